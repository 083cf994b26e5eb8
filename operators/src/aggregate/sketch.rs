//! DDSketch with a logarithmic mapping and unbounded stores, as ClickHouse's `quantileDD` keeps it.
//!
//! Source: Masson, Rim, Lee, "DDSketch" (VLDB 2019); the bytes are those of DataDog's encoding, of which ClickHouse
//! writes one mapping and two kinds of bins. Bins are held sparsely, so that two keys that are far apart cost two
//! bins: ClickHouse allocates everything between them.

use super::bytes::{Bytes, put_varint, put_zigzag};
use crate::error::Error;

const MAPPING: u8 = 0b10;
const POSITIVE: u8 = 0b01;
const NEGATIVE: u8 = 0b11;
const ZEROS: u8 = 0b100;
const SPARSE: u8 = 0b100;
const DENSE: u8 = 0b1100;

/// How many keys, empty ones included, a store may span; ClickHouse refuses more.
const SPAN_MAX: u32 = 1 << 16;

/// From values to the keys of bins, and back.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    relative_accuracy: f64,
    gamma: f64,
    multiplier: f64,
    least: f64,
    greatest: f64,
}

impl Mapping {
    /// For a relative accuracy between 0 and 1, both excluded.
    pub(super) fn new(relative_accuracy: f64) -> Option<Self> {
        if !(relative_accuracy > 0.0 && relative_accuracy < 1.0) {
            return None;
        }
        let gamma = (1.0 + relative_accuracy) / (1.0 - relative_accuracy);
        let multiplier = 1.0 / gamma.ln();
        Some(Mapping {
            relative_accuracy,
            gamma,
            multiplier,
            least: f64::MIN_POSITIVE * gamma,
            greatest: f64::MAX / gamma,
        })
    }

    /// The bin of a positive value; it is cut off towards zero, not rounded down.
    #[inline]
    fn key(&self, value: f64) -> i32 {
        (value.ln() * self.multiplier) as i32
    }

    /// The value that a bin stands for.
    fn value(&self, key: i32) -> f64 {
        (f64::from(key) / self.multiplier).exp() * (1.0 + self.relative_accuracy)
    }

    /// Whether every sketch can hold the value, whatever else it holds: its bin is in the middle half of the keys that a
    /// store may reach, so that no two such bins are further apart than a store may span. NaN counts nothing.
    pub(super) fn holds(&self, value: f64) -> bool {
        let size = value.abs();
        value.is_nan() || size <= self.least || (size <= self.greatest && self.key(size).unsigned_abs() < SPAN_MAX / 2)
    }

    /// Whether states of this gamma have the same bins. ClickHouse computes gamma anew when it merges into an
    /// empty state, which can change its last bits.
    fn fits(&self, gamma: f64) -> bool {
        (gamma - self.gamma).abs() <= self.gamma * 4.0 * f64::EPSILON
    }

    /// How many bins there can be on either side of 1.
    fn key_max(&self) -> i32 {
        (f64::MAX.ln() * self.multiplier) as i32
    }
}

/// The bins of the positive or of the negative values, ascending by key; no bin is empty.
#[derive(Clone, Debug, Default)]
struct Bins {
    keys: Vec<i32>,
    counts: Vec<f64>,
    total: f64,
}

impl Bins {
    /// Counts one value; false if the bins would span too much.
    #[inline]
    fn add(&mut self, key: i32) -> bool {
        match self.keys.binary_search(&key) {
            Ok(at) => self.counts[at] += 1.0,
            Err(at) => {
                if !self.spans_with(key, key) {
                    return false;
                }
                self.keys.insert(at, key);
                self.counts.insert(at, 1.0);
            }
        }
        self.total += 1.0;
        true
    }

    /// Whether the bins may reach from `low` to `high` as well.
    fn spans_with(&self, low: i32, high: i32) -> bool {
        let low = self.keys.first().map_or(low, |first| low.min(*first));
        let high = self.keys.last().map_or(high, |last| high.max(*last));
        high.abs_diff(low) < SPAN_MAX
    }

    /// Whether these bins and others may be in one store.
    fn fits(&self, other: &Bins) -> bool {
        match (other.keys.first(), other.keys.last()) {
            (Some(first), Some(last)) => self.spans_with(*first, *last),
            _ => true,
        }
    }

    /// Merges bins that fit, in one pass.
    fn merge(&mut self, other: &Bins) {
        if self.keys.is_empty() {
            self.clone_from(other);
            return;
        }
        let room = self.keys.len() + other.keys.len();
        let (mut keys, mut counts) = (Vec::with_capacity(room), Vec::with_capacity(room));
        let mut ours = self.keys.iter().copied().zip(self.counts.iter().copied()).peekable();
        let mut theirs = other.keys.iter().copied().zip(other.counts.iter().copied()).peekable();
        loop {
            let (key, count) = match (ours.peek(), theirs.peek()) {
                (Some(our), Some(their)) if our.0 == their.0 => (our.0, our.1 + their.1),
                (Some(our), Some(their)) if our.0 < their.0 => *our,
                (Some(our), None) => *our,
                (_, Some(their)) => *their,
                (None, None) => break,
            };
            ours.next_if(|our| our.0 == key);
            theirs.next_if(|their| their.0 == key);
            keys.push(key);
            counts.push(count);
        }
        *self = Bins { keys, counts, total: self.total + other.total };
    }

    /// The bin in which the counts, added up from the lowest key, pass (`lower`) or reach one more than a rank.
    fn key_at(&self, rank: f64, lower: bool) -> i32 {
        let mut running = 0.0;
        for (key, count) in self.keys.iter().zip(&self.counts) {
            running += count;
            if (lower && running > rank) || (!lower && running >= rank + 1.0) {
                return *key;
            }
        }
        self.keys.last().copied().unwrap_or(i32::MIN)
    }

    fn write(&self, out: &mut Vec<u8>) {
        let (Some(first), Some(last)) = (self.keys.first().copied(), self.keys.last().copied()) else {
            // ClickHouse writes the least key of an empty store as it initialises it.
            out.push(DENSE);
            put_varint(0, out);
            put_zigzag(i64::from(i32::MAX), out);
            put_zigzag(1, out);
            return;
        };
        let filled = self.keys.len() as u64;
        let spanned = i64::from(last).abs_diff(i64::from(first)) + 1;
        // Eight bytes for each empty bin against two for the distance of each filled one.
        if (spanned - filled).saturating_mul(8) <= filled * 2 {
            out.push(DENSE);
            put_varint(spanned, out);
            put_zigzag(i64::from(first), out);
            put_zigzag(1, out);
            let mut next = first;
            for (key, count) in self.keys.iter().zip(&self.counts) {
                for _ in next..*key {
                    out.extend_from_slice(&0f64.to_le_bytes());
                }
                out.extend_from_slice(&count.to_le_bytes());
                next = key + 1;
            }
        } else {
            out.push(SPARSE);
            put_varint(filled, out);
            let mut previous = 0;
            for (key, count) in self.keys.iter().zip(&self.counts) {
                put_zigzag(i64::from(*key) - i64::from(previous), out);
                out.extend_from_slice(&count.to_le_bytes());
                previous = *key;
            }
        }
    }

    fn read(bytes: &mut Bytes<'_>, mapping: &Mapping) -> Result<Self, Error> {
        let encoding = bytes.byte()?;
        let count = bytes.varint()?;
        let bytes_each = match encoding {
            DENSE => 8,
            SPARSE => 9,
            other => return Err(bytes.wrong(format!("there is no encoding {other} of bins"))),
        };
        if count > (bytes.left() / bytes_each) as u64 {
            return Err(bytes.wrong(format!("{count} bins in {} bytes", bytes.left())));
        }
        let (mut key, step) = match encoding {
            DENSE => (bytes.zigzag()?, Some(bytes.zigzag()?)),
            _ => (0, None),
        };
        let mut bins = Bins::default();
        for bin in 0..count {
            let distance = match step {
                Some(step) => {
                    if bin == 0 {
                        0
                    } else {
                        step
                    }
                }
                None => bytes.zigzag()?,
            };
            key = key.saturating_add(distance);
            let count = bytes.float()?;
            let narrow = i32::try_from(key).ok().filter(|narrow| narrow.abs() <= mapping.key_max());
            let ascends =
                |narrow: &i32| bins.keys.last().is_none_or(|last| last < narrow) && (bin == 0 || distance > 0);
            let Some(narrow) = narrow.filter(ascends) else {
                return Err(bytes.wrong(format!("bin {bin} has key {key}, beyond its place")));
            };
            if !(count.is_finite() && count >= 0.0) {
                return Err(bytes.wrong(format!("bin {bin} counts {count}")));
            }
            if !bins.spans_with(narrow, narrow) {
                return Err(bytes.wrong(format!("bin {bin} spans more than {SPAN_MAX} keys")));
            }
            if count > 0.0 {
                bins.keys.push(narrow);
                bins.counts.push(count);
                bins.total += count;
            }
        }
        Ok(bins)
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.counts.clear();
        self.total = 0.0;
    }

    fn heap_bytes(&self) -> usize {
        self.keys.capacity() * size_of::<i32>() + self.counts.capacity() * size_of::<f64>()
    }
}

/// What one group has seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Sketch {
    positive: Bins,
    negative: Bins,
    zeros: f64,
}

impl Sketch {
    /// Adds a value; NaN counts nothing. False, and nothing has changed, if it is beyond what the sketch can hold.
    #[inline]
    pub(super) fn add(&mut self, mapping: &Mapping, value: f64) -> bool {
        let size = value.abs();
        if value.is_nan() {
            return true;
        }
        if size > mapping.greatest {
            return false;
        }
        if size <= mapping.least {
            self.zeros += 1.0;
            return true;
        }
        let bins = if value > 0.0 { &mut self.positive } else { &mut self.negative };
        bins.add(mapping.key(size))
    }

    /// Adds what another one has seen; false, and nothing has changed, if the two span too much.
    pub(super) fn merge(&mut self, other: &Sketch) -> bool {
        if !self.positive.fits(&other.positive) || !self.negative.fits(&other.negative) {
            return false;
        }
        self.positive.merge(&other.positive);
        self.negative.merge(&other.negative);
        self.zeros += other.zeros;
        true
    }

    /// The value at a level; NaN if nothing was seen.
    pub(super) fn quantile(&self, mapping: &Mapping, level: f64) -> f64 {
        let (negative, positive) = (&self.negative, &self.positive);
        let count = negative.total + self.zeros + positive.total;
        if !(0.0..=1.0).contains(&level) || count == 0.0 {
            return f64::NAN;
        }
        let rank = level * (count - 1.0);
        if rank < negative.total {
            -mapping.value(negative.key_at(negative.total - rank - 1.0, false))
        } else if rank < self.zeros + negative.total {
            0.0
        } else {
            mapping.value(positive.key_at(rank - self.zeros - negative.total, true))
        }
    }

    /// Appends the state.
    pub(super) fn write(&self, mapping: &Mapping, out: &mut Vec<u8>) {
        out.push(MAPPING);
        out.extend_from_slice(&mapping.gamma.to_le_bytes());
        out.extend_from_slice(&0f64.to_le_bytes());
        out.push(POSITIVE);
        self.positive.write(out);
        out.push(NEGATIVE);
        self.negative.write(out);
        out.push(ZEROS);
        out.extend_from_slice(&self.zeros.to_le_bytes());
    }

    /// Reads a state of the same relative accuracy.
    pub(super) fn read(mut bytes: Bytes<'_>, mapping: &Mapping) -> Result<Self, Error> {
        part(&mut bytes, MAPPING, "mapping")?;
        let (gamma, offset) = (bytes.float()?, bytes.float()?);
        if !mapping.fits(gamma) || offset != 0.0 {
            return Err(bytes.wrong(format!(
                "bins of gamma {gamma} and offset {offset}, not of {} and 0: another relative accuracy",
                mapping.gamma
            )));
        }
        part(&mut bytes, POSITIVE, "store of positive values")?;
        let positive = Bins::read(&mut bytes, mapping)?;
        part(&mut bytes, NEGATIVE, "store of negative values")?;
        let negative = Bins::read(&mut bytes, mapping)?;
        part(&mut bytes, ZEROS, "count of zeros")?;
        let zeros = bytes.float()?;
        if !(zeros.is_finite() && zeros >= 0.0) {
            return Err(bytes.wrong(format!("{zeros} zeros")));
        }
        bytes.end()?;
        Ok(Sketch { positive, negative, zeros })
    }

    /// Forgets everything but the memory.
    pub(super) fn clear(&mut self) {
        self.positive.clear();
        self.negative.clear();
        self.zeros = 0.0;
    }

    /// Bytes of memory beyond the fixed part.
    pub(super) fn heap_bytes(&self) -> usize {
        self.positive.heap_bytes() + self.negative.heap_bytes()
    }
}

fn part(bytes: &mut Bytes<'_>, flag: u8, name: &str) -> Result<(), Error> {
    match bytes.byte()? {
        found if found == flag => Ok(()),
        found => Err(bytes.wrong(format!("the {name} begins with {flag}, not with {found}"))),
    }
}
