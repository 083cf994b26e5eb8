//! The judge of a series: one number per window against its own past.
//!
//! Each value is judged first and learnt then: no value is used before it came. Simple forecasters, mixed by how well each
//! did lately, say what comes next (`forecast`); signs that something is wrong are weighed by their own past (`signs`);
//! one incident is one alarm (`incident`).
//!
//! Invariants: the state has one fixed size ([`STATE_BYTES`]); an affine change of the values changes no score; what is
//! not a finite number scores 0 and teaches nothing; the same values give the same scores, through [`Series::to_bytes`]
//! too.
//!
//! Not here: several series at once, seasons other than those of day and week in UTC, or whether an alert is worth
//! sending.

pub(crate) mod bytes;
mod context;
mod forecast;
mod incident;
mod level;
mod place;
mod season;
mod signs;

use bytes::{Reader, Writer};
use forecast::Forecasters;
use incident::Incident;
use place::{Pace, Place};
use signs::Signs;

pub use incident::THRESHOLD;

/// The length of [`Series::to_bytes`], in bytes.
pub const STATE_BYTES: usize = 2_799;
/// The version of the state's bytes.
const VERSION: u8 = 3;
/// Values are held in units of the first step, and no further out than this.
const FURTHEST: f64 = 1e12;
/// What a series is known from: values seen.
const KNOWN_FROM: u32 = 48;
/// The first values are believed whatever they are.
const BELIEVED_UNTIL: u32 = 8;
/// The share of values outside the interval that [`Observation`] gives.
const OUTSIDE: f64 = 0.01;
/// A gap of this many usual distances, or a longer one, widens the interval most.
const GAP_MOST: f64 = 16.0;

/// What was found out about one value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// How unusual the value is, 0 to 1; the product alerts from [`THRESHOLD`] on.
    pub score: f64,
    /// Minus the decimal logarithm of about how often such a value comes, were nothing wrong, less what the memory of the
    /// last incident takes away; the product alerts from 3 on.
    pub rarity: f64,
    /// What was expected.
    pub expected: f64,
    /// The lower end of what is usual: 99 of 100 values stay between `lower` and `upper`.
    pub lower: f64,
    /// The upper end of what is usual.
    pub upper: f64,
    /// Whether there is past enough to judge by; the score stays below the threshold until it is.
    pub known: bool,
}

/// What is expected at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expectation {
    /// The value expected.
    pub expected: f64,
    /// The lower end of what is usual, as in [`Observation`].
    pub lower: f64,
    /// The upper end of what is usual.
    pub upper: f64,
    /// Whether there is past enough to say so.
    pub known: bool,
}

/// Bytes that are no state of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoSeries {
    /// The version that the bytes begin with, where there is one that isn't known.
    pub unknown_version: Option<u8>,
}

impl std::fmt::Display for NoSeries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.unknown_version {
            Some(version) => write!(f, "the state of a series has version {version}, this program reads {VERSION}"),
            None => write!(f, "the state of a series is damaged"),
        }
    }
}

impl std::error::Error for NoSeries {}

/// The memory of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    seen: u32,
    origin: f64,
    unit: f64,
    pace: Pace,
    forecasters: Forecasters,
    signs: Signs,
    incident: Incident,
}

impl Default for Series {
    fn default() -> Self {
        Series::new()
    }
}

impl Series {
    /// A series of which nothing is known.
    pub fn new() -> Series {
        Series {
            seen: 0,
            origin: 0.0,
            unit: 0.0,
            pace: Pace::new(),
            forecasters: Forecasters::new(),
            signs: Signs::new(),
            incident: Incident::new(),
        }
    }

    /// Judges `value` at `at_us` (microseconds since 1970, the start of its window), then learns it.
    pub fn observe(&mut self, at_us: i64, value: f64) -> Observation {
        let Expectation { expected, lower, upper, known } = self.expect(at_us);
        if !value.is_finite() {
            return Observation { score: 0.0, rarity: 0.0, expected, lower, upper, known };
        }
        let place = Place::of(at_us);
        let x = self.scaled(value);
        let forecast = self.forecasters.forecast(place, self.pace.steps_to(at_us));
        let found = self.signs.find(x, self.seen, self.gap(at_us), place, &forecast);
        let (score, rarity) = self.incident.judge(found.rarity, self.pace.steps_to(at_us));

        let per_day = self.pace.per_day();
        let believed = self.signs.believed_within(x, per_day, &forecast).1;
        let believed = if self.seen < BELIEVED_UNTIL { FURTHEST } else { believed };
        self.forecasters.learn(place, &self.pace, x, &forecast, believed);
        self.signs.learn(x, self.seen, per_day, place, &forecast, &found);
        self.pace.learn(at_us);
        self.seen = self.seen.saturating_add(1);
        Observation { score, rarity, expected, lower, upper, known }
    }

    /// What is expected at `at_us`, without learning anything.
    pub fn expect(&self, at_us: i64) -> Expectation {
        let place = Place::of(at_us);
        let next = self.forecasters.forecast(place, self.pace.steps_to(at_us)).next;
        let half = self.signs.half_width(place, OUTSIDE) * self.gap(at_us);
        let value = |x: f64| self.origin + x * self.unit;
        Expectation {
            expected: value(next),
            lower: value(next - half),
            upper: value(next + half),
            known: self.seen >= KNOWN_FROM,
        }
    }

    /// What values missing before `at_us` widen the error by: what wanders goes as far as the root of the steps.
    fn gap(&self, at_us: i64) -> f64 {
        self.pace.steps_to(at_us).min(GAP_MOST).sqrt()
    }

    /// The value in units of the first step; the first value and the first step are kept for that.
    fn scaled(&mut self, value: f64) -> f64 {
        if self.seen == 0 {
            self.origin = value;
        }
        if self.unit == 0.0 {
            self.unit = (value - self.origin).abs().min(f64::MAX);
        }
        if self.unit == 0.0 { 0.0 } else { ((value - self.origin) / self.unit).clamp(-FURTHEST, FURTHEST) }
    }

    /// The state as bytes, [`STATE_BYTES`] of them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u8(VERSION);
        writer.u32(self.seen);
        writer.f64(self.origin);
        writer.f64(self.unit);
        self.pace.write(&mut writer);
        self.forecasters.write(&mut writer);
        self.signs.write(&mut writer);
        self.incident.write(&mut writer);
        writer.bytes
    }

    /// The series that [`Series::to_bytes`] wrote; an error when the bytes are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Series, NoSeries> {
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&other) => return Err(NoSeries { unknown_version: Some(other) }),
            None => return Err(NoSeries { unknown_version: None }),
        }
        let mut reader = Reader { rest: &bytes[1..] };
        let series = Series::read(&mut reader).filter(|_| reader.rest.is_empty());
        series.ok_or(NoSeries { unknown_version: None })
    }

    fn read(reader: &mut Reader<'_>) -> Option<Series> {
        Some(Series {
            seen: reader.u32()?,
            origin: reader.f64()?,
            unit: reader.f64()?,
            pace: Pace::read(reader)?,
            forecasters: Forecasters::read(reader)?,
            signs: Signs::read(reader)?,
            incident: Incident::read(reader)?,
        })
    }
}
