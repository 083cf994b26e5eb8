//! Judges tenants: when a window is over, what its cells show is held against the other releases and against the past.
//!
//! Behind an exchange by tenant, since releases are compared within a tenant. A window is judged once, when the watermark
//! has passed its end by the time that the views are corrected, so that every event that will ever count is there: the same
//! log gives the same judgements, whatever the number of workers. What comes for a window that was judged is not looked at.
//!
//! A window of many cells is judged in slices, an epoch at a time, each of whole key groups: so an epoch holds little more
//! than [`CELLS_AT_ONCE`], and who waits behind sees the watermark pass a window when all of it was judged.
//!
//! Output: one row for each tenant and judged window, its findings encoded, and one that says which key groups are judged up
//! to where, all to one key group; and rows of `weir_shares` of what is out of order.
//! State: the cells of open windows, and the judges' series, both in keyed tables larger than memory.
//! Bound: cells are named by senders, so of a window those with the most records are judged, at most [`CELLS_OF_TENANT`] of a
//! tenant and [`CELLS_OF_GROUP`] of a key group; the rest is left out, and a log line says so.

mod query;
mod raise;
mod shares;
mod told;

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, UInt16Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use weir_judge::book::WindowSignals;
use weir_judge::settings::Settings;
use weir_judge::store::Store;
use weir_judge::tally::Window;
use weir_judge::{Judged, judge};
use weir_schemas::rows::Changes;
use weir_schemas::tables;
use weir_schemas::time::{EventTime, Span};

use shares::{Share, rows_of, shares};

pub use query::Names;
pub use raise::Raise;
pub use told::Telling;

use crate::error::Error;
use crate::operator::{Context, Operator};
use crate::profile::{Cell, CellKey, Layout, read_cells};
use crate::state::{ByteTable, KeyedTable, StateRegistry, Stored};
use crate::through::Through;

/// Tables of the operator's state; the numbers are part of the keys on disk. 0 held cells with other slots, 3 cells without
/// sequences, 4 cells whose counts stood alone.
const CELLS_TABLE: u16 = 6;
const SERIES_TABLE: u16 = 1;
const JUDGED_TABLE: u16 = 2;
const LAYOUT_TABLE: u16 = 5;

/// Cells of a tenant's window that are judged.
pub const CELLS_OF_TENANT: usize = 4_096;
/// Cells of a key group's window that are judged: what is in memory at once is twice as many.
pub const CELLS_OF_GROUP: usize = 32_768;
/// [`Court::cells_at_once`], where nobody wants it otherwise: a wide event has a thousand indicators a cell.
pub const CELLS_AT_ONCE: usize = 512;
/// Cells that are forgotten at once.
const FORGOTTEN: usize = 8_192;

/// The key group in which all tenants' findings come together: a problem may be of many tenants.
const RAISING_GROUP: u16 = 0;

/// When windows are judged, and by what.
#[derive(Clone, Debug)]
pub struct Court {
    /// The window's width.
    pub window: Span,
    /// How long after its end a window is judged: the allowed lateness.
    pub settle: Span,
    /// What decides that something is out of order.
    pub settings: Settings,
    /// Cells after which an epoch judges no further key group.
    pub cells_at_once: usize,
}

/// The operator; its input are cells, by the tenant's group.
pub struct Judge {
    court: Court,
    telling: Telling,
    source: String,
    /// What this epoch found out of order, by release.
    shares: Vec<Share>,
    cells: KeyedTable<(i64, CellKey), Cell>,
    series: KeyedTable<Vec<u8>, Vec<u8>>,
    /// Windows that have cells, with their key groups.
    windows: BTreeMap<i64, Vec<u16>>,
    /// Up to where windows were judged, or are of those above and being judged: nothing is added to them.
    judged_through: Through,
    /// The same, on disk.
    judged: ByteTable,
    /// Up to where whoever raises alerts was told that windows are judged, since this judge began.
    told_through: EventTime,
    owned: Range<u16>,
}

impl Judge {
    /// Goes on with what `registry` holds.
    pub fn new(
        court: Court,
        telling: Telling,
        source: &str,
        memory_bytes: usize,
        registry: &mut StateRegistry,
    ) -> Result<Judge, Error> {
        let mut cells: KeyedTable<(i64, CellKey), Cell> = registry.keyed(CELLS_TABLE, memory_bytes / 2)?;
        let mut windows: BTreeMap<i64, Vec<u16>> = BTreeMap::new();
        cells.scan(|group, (window, _), _| {
            add_group(&mut windows, window, group);
            Ok(ControlFlow::Continue(()))
        })?;
        let judged = registry.table(JUDGED_TABLE)?;
        let judged_through = Through::recover(&judged, registry.owned())?;
        let series = registry.keyed(SERIES_TABLE, memory_bytes / 2)?;
        let mut layouts = registry.table(LAYOUT_TABLE)?;
        let told_through = EventTime::MIN;
        let mut judge = Judge {
            court,
            telling,
            source: source.to_owned(),
            shares: Vec::new(),
            cells,
            series,
            windows,
            judged_through,
            judged,
            told_through,
            owned: registry.owned(),
        };
        judge.leave_other_layouts(&mut layouts)?;
        Ok(judge)
    }

    /// Leaves out the open windows whose cells were counted by other slots, since the schema or the rules were others: half a
    /// window would look like a loss of volume.
    fn leave_other_layouts(&mut self, layouts: &mut ByteTable) -> Result<(), Error> {
        let layout = self.telling.hash().to_be_bytes();
        let mut is_other = false;
        for group in self.owned.clone() {
            let stored = layouts.get(group, &[])?;
            match stored.as_ref().and_then(Stored::whole) {
                Some(known) if *known == layout => continue,
                known => is_other |= known.is_some(),
            }
            layouts.put(group, &[], &layout)?;
        }
        let Some((&last, _)) = self.windows.last_key_value().filter(|_| is_other) else { return Ok(()) };
        let windows = std::mem::take(&mut self.windows);
        tracing::warn!(
            windows = windows.len(),
            "fields or rules are others now: the windows that are open aren't judged"
        );
        for (start, groups) in windows {
            groups.into_iter().try_for_each(|group| self.forget(start, group))?;
        }
        self.judged_through.raise(EventTime(last.saturating_add(self.court.window.0)), &mut self.judged)
    }

    /// Judges the tenants of a key group of a window in the order of their names, and forgets its cells; how many there
    /// were of those that were judged.
    fn judge_group(
        &mut self,
        start: i64,
        group: u16,
        findings: &mut Vec<(i64, WindowSignals)>,
    ) -> Result<usize, Error> {
        let tenants = self.largest(start, group)?;
        let window = Window { start_us: start, width_us: self.court.window.0 };
        for (tenant, cells) in &tenants {
            let tally = self.telling.tell(tenant, window, cells);
            let mut store = Series { table: &mut self.series, group, failed: None };
            let judged = judge(&tally, &mut store, &self.court.settings);
            store.failed.map_or(Ok(()), Err)?;
            self.shares.extend(shares(&tally, &judged.signals));
            findings.push((start, signals_of(window.index(), tally.tenant, judged)));
        }
        self.forget(start, group)?;
        Ok(tenants.values().map(BTreeMap::len).sum())
    }

    /// Judges the windows that end by `through`, the oldest first, as far as an epoch may; the start of the first that is
    /// left.
    fn judge_due(&mut self, through: EventTime) -> Result<(Vec<(i64, WindowSignals)>, Option<i64>), Error> {
        let (mut findings, mut cells) = (Vec::new(), 0);
        let width = self.court.window.0.max(1);
        while let Some(mut first) = self.windows.first_entry() {
            let start = *first.key();
            let end = EventTime(start.saturating_add(width));
            if end > through {
                break;
            }
            if cells >= self.court.cells_at_once {
                return Ok((findings, Some(start)));
            }
            let group = first.get_mut().pop();
            if first.get().is_empty() {
                first.remove();
            }
            if let Some(group) = group {
                cells += self.judge_group(start, group, &mut findings)?;
            }
        }
        Ok((findings, None))
    }

    /// The cells of a window that are judged, by tenant.
    fn largest(&mut self, start: i64, group: u16) -> Result<BTreeMap<Vec<u8>, BTreeMap<CellKey, Cell>>, Error> {
        let (mut kept, mut all) = (Vec::new(), 0);
        let mut of_tenant: Vec<(CellKey, Cell)> = Vec::new();
        self.cells.scan_prefix(group, &start, |(_, key): (i64, CellKey), cell| {
            all += 1;
            if of_tenant.first().is_some_and(|(first, _)| first.tenant != key.tenant) {
                keep_largest(&mut of_tenant, CELLS_OF_TENANT);
                kept.append(&mut of_tenant);
            }
            of_tenant.push((key, cell));
            if of_tenant.len() >= 2 * CELLS_OF_TENANT {
                keep_largest(&mut of_tenant, CELLS_OF_TENANT);
            }
            if kept.len() >= 2 * CELLS_OF_GROUP {
                keep_largest(&mut kept, CELLS_OF_GROUP);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        keep_largest(&mut of_tenant, CELLS_OF_TENANT);
        kept.append(&mut of_tenant);
        keep_largest(&mut kept, CELLS_OF_GROUP);
        if kept.len() < all {
            let (judged, left_out) = (kept.len(), all - kept.len());
            tracing::warn!(judged, left_out, "a window has more releases and event types than are judged");
        }
        let mut tenants: BTreeMap<Vec<u8>, BTreeMap<CellKey, Cell>> = BTreeMap::new();
        for (key, cell) in kept {
            tenants.entry(key.tenant.clone()).or_default().insert(key, cell);
        }
        Ok(tenants)
    }

    /// Forgets the cells of a window.
    fn forget(&mut self, start: i64, group: u16) -> Result<(), Error> {
        loop {
            let mut keys = Vec::new();
            self.cells.scan_prefix(group, &start, |(_, key): (i64, CellKey), _| {
                keys.push(key);
                Ok(if keys.len() < FORGOTTEN { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?;
            if keys.is_empty() {
                return Ok(());
            }
            for key in keys {
                self.cells.remove(group, &(start, key))?;
            }
        }
    }
}

/// Keeps the `most` cells with the most records; of equal ones those with the least keys, so that the same cells stay whatever
/// the order.
fn keep_largest(cells: &mut Vec<(CellKey, Cell)>, most: usize) {
    if cells.len() <= most {
        return;
    }
    let records = |cell: &Cell| {
        let refused: u64 = cell.refused.values().map(|refusals| refusals.records).sum();
        let numbered = cell.sequences.values().map(|numbers| numbers.received.saturating_add(numbers.missing));
        numbered.fold(refused, u64::saturating_add).saturating_add(u64::from(cell.count(Layout::EVENTS)))
    };
    cells.select_nth_unstable_by(most, |(a_key, a), (b_key, b)| {
        records(b).cmp(&records(a)).then_with(|| a_key.cmp(b_key))
    });
    cells.truncate(most);
}

fn signals_of(window: u32, tenant: String, judged: Judged) -> WindowSignals {
    WindowSignals {
        window,
        signals: judged.signals,
        releases: BTreeMap::from([(tenant.clone(), judged.releases)]),
        users: BTreeMap::from([(tenant, judged.users)]),
    }
}

/// The columns of findings: the one key group of whoever raises alerts, the window's start in microseconds, and the
/// encoded [`WindowSignals`] of one tenant. Where there are none, every window of the key groups `from` to `upto` that ends by
/// `window` is judged; [`EventTime::MAX`] says so of those that there are, at the end of a run.
fn finding_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("_group", DataType::UInt16, false),
        Field::new("window", DataType::Int64, false),
        Field::new("signals", DataType::Binary, true),
        Field::new("from", DataType::UInt16, false),
        Field::new("upto", DataType::UInt16, false),
    ]))
}

/// Findings, and up to where which key groups are judged.
fn write_findings(
    findings: &[(i64, WindowSignals)],
    through: Option<(EventTime, Range<u16>)>,
) -> Result<RecordBatch, Error> {
    let rows = findings.len() + usize::from(through.is_some());
    let (through, of) = through.map_or((None, 0..0), |(through, of)| (Some(through.0), of));
    let mut signals = BinaryBuilder::new();
    findings.iter().for_each(|(_, of)| signals.append_value(of.to_bytes()));
    through.iter().for_each(|_| signals.append_null());
    let windows = findings.iter().map(|(window, _)| *window).chain(through);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt16Array::from_value(RAISING_GROUP, rows)),
        Arc::new(Int64Array::from_iter_values(windows)),
        Arc::new(signals.finish()),
        Arc::new(UInt16Array::from_value(of.start, rows)),
        Arc::new(UInt16Array::from_value(of.end, rows)),
    ];
    Ok(RecordBatch::try_new(finding_schema(), columns)?)
}

fn add_group(windows: &mut BTreeMap<i64, Vec<u16>>, window: i64, group: u16) {
    let groups = windows.entry(window).or_default();
    if let Err(at) = groups.binary_search(&group) {
        groups.insert(at, group);
    }
}

/// The judges' series of a key group. A table that fails is told when the window was judged: the epoch then isn't committed.
struct Series<'a> {
    table: &'a mut KeyedTable<Vec<u8>, Vec<u8>>,
    group: u16,
    failed: Option<Error>,
}

impl Series<'_> {
    fn note<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.failed.get_or_insert(error)).ok()
    }
}

impl Store for Series<'_> {
    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let found = self.table.get(self.group, &key.to_vec()).map(|found| found.map(|bytes| bytes.clone()));
        self.note(found).flatten()
    }

    fn put(&mut self, key: &[u8], value: Vec<u8>) {
        let done = self.table.insert(self.group, &key.to_vec(), value);
        self.note(done);
    }

    fn remove(&mut self, key: &[u8]) {
        let done = self.table.remove(self.group, &key.to_vec());
        self.note(done);
    }
}

impl Operator for Judge {
    fn on_batch(&mut self, batch: RecordBatch, _: &mut Context<'_>) -> Result<(), Error> {
        read_cells(&batch, |group, window, key, cell| {
            if window.saturating_add(self.court.window.0) <= self.judged_through.of(group).0 {
                return Ok(());
            }
            add_group(&mut self.windows, window, group);
            let mut sum = self.cells.get_or_insert_with(group, &(window, key), Cell::default)?;
            cell.add_to(&mut sum)
        })
    }

    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let through = cx.watermark().minus(self.court.settle);
        let width = self.court.window.0.max(1);
        let boundary = through.0.saturating_sub(through.0.rem_euclid(width));
        // The end of a run judges the windows that there are, and none that another run may begin.
        let last_end = self.windows.last_key_value().map_or(i64::MIN, |(start, _)| start.saturating_add(width));
        let is_end = cx.watermark() == EventTime::MAX;
        self.judged_through.raise(EventTime(if is_end { last_end } else { boundary }), &mut self.judged)?;
        let (findings, left) = self.judge_due(self.judged_through.all())?;
        if let Some(start) = left {
            // The last moment at which this window wasn't due yet.
            let done = start.saturating_add(width).saturating_add(self.court.settle.0).saturating_sub(1);
            cx.leave_for_later(EventTime(done).min(cx.watermark()));
        }
        // At the end of a run others may have later windows than this judge, which has none of them.
        let done = if is_end { EventTime::MAX } else { self.judged_through.all() };
        let through = left.map_or(done, EventTime);
        let told = (through > self.told_through).then(|| (through, self.owned.clone()));
        self.told_through = through.max(self.told_through);
        cx.emit(write_findings(&findings, told)?);
        let rows = rows_of(&std::mem::take(&mut self.shares), &self.source)?;
        cx.write(Changes { table: Arc::from(tables::SHARES), rows, deleted: None });
        Ok(())
    }

    /// What is found at an epoch's end is of windows that the watermark passed within it.
    fn holds_watermark_within_epoch(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Sums;

    fn cell(release: usize, events: u32) -> (CellKey, Cell) {
        let release = [b"web".to_vec(), format!("{release}").into_bytes(), Vec::new()];
        let key = CellKey { tenant: b"shop".to_vec(), event_type: Vec::new(), release };
        let mut cell = Cell::default();
        let mut counts = vec![0_u32; Layout::EVENTS + 1];
        counts[Layout::EVENTS] = events;
        cell.counts = Sums::of(&counts);
        (key, cell)
    }

    #[test]
    fn made_up_releases_crowd_out_no_real_one_and_the_order_does_not_matter() {
        let mut cells: Vec<_> = (0..1_000).map(|release| cell(release, 1)).collect();
        cells.extend([cell(5_000, 70), cell(5_001, 2)]);
        let mut backwards: Vec<_> = cells.iter().rev().cloned().collect();
        keep_largest(&mut cells, 10);
        keep_largest(&mut backwards, 10);
        let of = |cells: Vec<(CellKey, Cell)>| cells.into_iter().collect::<BTreeMap<_, _>>();
        let (cells, backwards) = (of(cells), of(backwards));
        assert_eq!(cells, backwards);
        assert_eq!(cells.len(), 10);
        assert!(cells.contains_key(&cell(5_000, 0).0) && cells.contains_key(&cell(5_001, 0).0));
    }
}
