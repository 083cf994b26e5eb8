//! What is remembered of a share between windows: constant bytes per series.
//!
//! Two kinds of records, each of a version of its own: a *strand* holds the series of one release (or one SDK or app
//! version) of an event type and field, a *pool* what all releases of a platform have in common there.

use crate::evidence::Segment;
use crate::season::Season;
use crate::store::{Reader, Writer};
use crate::tally::{Family, Indicator, Place};

const STRAND_VERSION: u8 = 2;
const POOL_VERSION: u8 = 2;
/// Bytes of a label that are kept.
const LABEL_BYTES: usize = 96;

/// A fault that was found and isn't over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) since: u32,
    pub(crate) ln_e: f32,
    /// Share seen when it was found.
    pub(crate) share: f32,
    /// Evidence that it is over: a one-sided sum of log likelihood ratios (Page's CUSUM), and its windows.
    pub(crate) recovery: f32,
    pub(crate) windows: u32,
}

/// Evidence about one series, and whether it is out of order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Trial {
    pub(crate) segment: Segment,
    pub(crate) users: f32,
    pub(crate) users_in_window: f32,
    /// Effective hits that one user of each window may have brought, summed.
    pub(crate) one_user: f32,
    /// Logarithm of the segment's e-value.
    pub(crate) ln_e: f32,
    pub(crate) first: Option<Place>,
    pub(crate) fault: Option<Fault>,
    pub(crate) last_seen: u32,
}

impl Trial {
    pub(crate) const BYTES: usize = 40 + 16 + 15 + 21 + 4;

    /// Starts gathering anew.
    pub(crate) fn clear(&mut self) {
        *self = Trial { last_seen: self.last_seen, ..Trial::default() };
    }

    fn write(&self, out: &mut Writer) {
        let segment = &self.segment;
        out.u32(segment.start);
        let sums = [segment.hits, segment.trials, segment.expected, segment.expected_by_past];
        sums.into_iter()
            .chain([segment.spread, segment.spread_by_past])
            .chain([segment.noise, segment.stay])
            .for_each(|sum| out.f32(sum));
        out.u32(segment.windows);
        out.f32(self.users);
        out.f32(self.users_in_window);
        out.f32(self.one_user);
        out.f32(self.ln_e);
        out.u8(u8::from(self.first.is_some()));
        let first = self.first.unwrap_or_default();
        out.i16(first.topic as i16);
        out.u32(first.partition as u32);
        out.i64(first.offset);
        out.u8(u8::from(self.fault.is_some()));
        let fault = self.fault.unwrap_or(Fault { since: 0, ln_e: 0.0, share: 0.0, recovery: 0.0, windows: 0 });
        out.u32(fault.since);
        out.f32(fault.ln_e);
        out.f32(fault.share);
        out.f32(fault.recovery);
        out.u32(fault.windows);
        out.u32(self.last_seen);
    }

    fn read(from: &mut Reader<'_>) -> Option<Trial> {
        let segment = Segment {
            start: from.u32()?,
            hits: from.f32()?,
            trials: from.f32()?,
            expected: from.f32()?,
            expected_by_past: from.f32()?,
            spread: from.f32()?,
            spread_by_past: from.f32()?,
            noise: from.f32()?,
            stay: from.f32()?,
            windows: from.u32()?,
        };
        let (users, users_in_window) = (from.f32()?, from.f32()?);
        let (one_user, ln_e) = (from.f32()?, from.f32()?);
        let known = from.u8()? == 1;
        let place = Place { topic: from.i16()? as u16, partition: from.u32()? as i32, offset: from.i64()? };
        let is_fault = from.u8()? == 1;
        let fault = Fault {
            since: from.u32()?,
            ln_e: from.f32()?,
            share: from.f32()?,
            recovery: from.f32()?,
            windows: from.u32()?,
        };
        Some(Trial {
            segment,
            users,
            users_in_window,
            one_user,
            ln_e,
            first: known.then_some(place),
            fault: is_fault.then_some(fault),
            last_seen: from.u32()?,
        })
    }
}

/// One release's series: how it usually differs from its platform, and the evidence.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) indicator: Indicator,
    /// On the logit scale; learned whenever a segment speaks for the null.
    pub(crate) offset: f32,
    pub(crate) offset_variance: f32,
    pub(crate) trial: Trial,
}

impl Cell {
    /// Bytes of a release's series in state.
    pub(crate) const BYTES: usize = 9 + 8 + Trial::BYTES;
}

/// The series of one release, version or platform for one type and field.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Strand {
    /// Sorted by indicator.
    pub(crate) cells: Vec<Cell>,
}

/// One indicator of a platform: the season of its share, how releases differ in it, and evidence about all of them at once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PoolCell {
    pub(crate) indicator: Indicator,
    pub(crate) label: String,
    pub(crate) season: Season,
    /// Variances of the logit: of a known release from window to window, and between releases.
    pub(crate) within: f32,
    pub(crate) between: f32,
    /// Hits per user.
    pub(crate) per_user: f32,
    pub(crate) trial: Trial,
}

impl PoolCell {
    /// Bytes of a platform's series in state, without its label.
    pub(crate) const BYTES: usize = 9 + 4 + Season::BYTES + 12 + Trial::BYTES;
}

/// All indicators of a platform's type and field.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pool {
    /// Windows in which anything was counted.
    pub(crate) windows: u32,
    /// Sorted by indicator.
    pub(crate) cells: Vec<PoolCell>,
}

fn write_indicator(out: &mut Writer, indicator: Indicator) {
    out.u8(indicator.family as u8);
    out.u64(indicator.code);
}

fn read_indicator(from: &mut Reader<'_>) -> Option<Indicator> {
    Some(Indicator { family: Family::from_number(from.u8()?)?, code: from.u64()? })
}

impl Strand {
    pub(crate) fn find(&mut self, indicator: Indicator, variance: f64) -> &mut Cell {
        let at = match self.cells.binary_search_by(|cell| cell.indicator.cmp(&indicator)) {
            Ok(at) => at,
            Err(at) => {
                let cell = Cell { indicator, offset: 0.0, offset_variance: variance as f32, trial: Trial::default() };
                self.cells.insert(at, cell);
                at
            }
        };
        &mut self.cells[at]
    }

    /// Whether a series is out of order.
    pub(crate) fn has_fault(&self, indicator: Indicator) -> bool {
        let found = self.cells.binary_search_by(|cell| cell.indicator.cmp(&indicator));
        found.is_ok_and(|at| self.cells[at].trial.fault.is_some())
    }

    /// Whether any series of a family is out of order.
    pub(crate) fn is_at_fault(&self, family: Family) -> bool {
        self.cells.iter().any(|cell| cell.indicator.family == family && cell.trial.fault.is_some())
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer(Vec::with_capacity(5 + self.cells.len() * Cell::BYTES));
        out.u8(STRAND_VERSION);
        for cell in &self.cells {
            write_indicator(&mut out, cell.indicator);
            out.f32(cell.offset);
            out.f32(cell.offset_variance);
            cell.trial.write(&mut out);
        }
        out.0
    }

    /// Nothing if the bytes are of another version or damaged.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Strand> {
        let mut from = Reader(bytes);
        if from.u8()? != STRAND_VERSION {
            return None;
        }
        let mut cells = Vec::with_capacity(from.0.len() / Cell::BYTES);
        while !from.0.is_empty() {
            cells.push(Cell {
                indicator: read_indicator(&mut from)?,
                offset: from.f32()?,
                offset_variance: from.f32()?,
                trial: Trial::read(&mut from)?,
            });
        }
        Some(Strand { cells })
    }
}

impl Pool {
    pub(crate) fn position(&self, indicator: Indicator) -> Result<usize, usize> {
        self.cells.binary_search_by(|cell| cell.indicator.cmp(&indicator))
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer(Vec::with_capacity(5 + self.cells.len() * (PoolCell::BYTES + 16)));
        out.u8(POOL_VERSION);
        out.u32(self.windows);
        for cell in &self.cells {
            write_indicator(&mut out, cell.indicator);
            out.text(&cell.label);
            cell.season.write(&mut out);
            out.f32(cell.within);
            out.f32(cell.between);
            out.f32(cell.per_user);
            cell.trial.write(&mut out);
        }
        out.0
    }

    /// Nothing if the bytes are of another version or damaged.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Pool> {
        let mut from = Reader(bytes);
        if from.u8()? != POOL_VERSION {
            return None;
        }
        let mut pool = Pool { windows: from.u32()?, cells: Vec::with_capacity(from.0.len() / PoolCell::BYTES) };
        while !from.0.is_empty() {
            pool.cells.push(PoolCell {
                indicator: read_indicator(&mut from)?,
                label: from.text()?,
                season: Season::read(&mut from)?,
                within: from.f32()?,
                between: from.f32()?,
                per_user: from.f32()?,
                trial: Trial::read(&mut from)?,
            });
        }
        Some(pool)
    }
}

/// A label cut to what is kept of it.
pub(crate) fn cut(label: &str) -> String {
    let end = (0..=label.len().min(LABEL_BYTES)).rev().find(|&end| label.is_char_boundary(end)).unwrap_or(0);
    label[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_keep_everything_and_refuse_damage() {
        let indicator = Indicator { family: Family::Null, code: 3 };
        let mut strand = Strand::default();
        let cell = strand.find(indicator, 0.09);
        cell.trial.first = Some(Place { topic: 65_535, partition: -1, offset: 1 << 40 });
        cell.trial.fault = Some(Fault { since: 5, ln_e: 20.0, share: 0.5, recovery: 1.0, windows: 1 });
        let bytes = strand.to_bytes();
        assert_eq!(bytes.len(), 1 + Cell::BYTES);
        assert_eq!(Strand::from_bytes(&bytes), Some(strand.clone()));
        for cut in 2..bytes.len() {
            assert_eq!(Strand::from_bytes(&bytes[..cut]), None, "{cut}");
        }
        let trial = strand.cells[0].trial.clone();
        let season = Season::new(-3.0, 0.1);
        let cell = PoolCell { indicator, label: "ü".into(), season, within: 0.01, between: 0.1, per_user: 2.0, trial };
        let pool = Pool { windows: 7, cells: vec![cell] };
        let bytes = pool.to_bytes();
        assert_eq!(bytes.len(), 5 + PoolCell::BYTES + 2);
        assert_eq!(Pool::from_bytes(&bytes), Some(pool));
        assert_eq!(cut(&"ü".repeat(99)).len(), LABEL_BYTES);
    }
}
