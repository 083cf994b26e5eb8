//! The judge of a series: one number per window against its own past.
//!
//! Each value is judged first and learnt then: no value is used before it came. Five signs are looked at, each a size whose
//! rarity is told by the sizes of its own past ([`crate::tails`]):
//!
//! - *surprise*: the value against the mix of forecasters, in units of the usual error at that hour,
//! - *run*: the mean of the last values against level and seasons, for shifts and drifts,
//! - *unrest* and *calm*: the mean of the last surprises, too large or too small, for changes of variance or of habits,
//! - *extreme*: the value against all values.
//!
//! A sixth is *stillness*: the same value again and again where that never was.
//!
//! Invariants: the state has one fixed size; an affine change of the values changes no score; what is not a finite number
//! scores 0 and teaches nothing; the same values give the same scores, through [`Series::to_bytes`] too.
//!
//! Not here: several series at once, or whether an alert is worth sending.

pub(crate) mod bytes;
mod forecast;
mod incident;
mod level;
mod place;
mod season;

use crate::tails::{Tail, WHOLE};
use bytes::{Reader, Writer};
use forecast::{Forecast, Forecasters};
use incident::Incident;
use level::{Mean, within};
use place::{HOURS, Pace, Place};
use season::Profile;

pub use incident::THRESHOLD;

/// The version of the state's bytes.
const VERSION: u8 = 1;
/// Values are held in units of the first step, and no further out than this.
const FURTHEST: f64 = 1e12;
/// What a series is known from: values seen.
const KNOWN_FROM: u32 = 48;
/// Of what this many values tell, half is believed.
const KNOWN_HALF: f64 = 30.0;
/// The share of values outside the interval that [`Observation`] gives.
const OUTSIDE: f64 = 0.01;
const SIGNS: usize = 5;

/// What was found out about one value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// How unusual the value is, 0 to 1; the product alerts from [`THRESHOLD`] on.
    pub score: f64,
    /// Minus the decimal logarithm of about how often such a value comes, were nothing wrong; `score` grows with it.
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
    /// The usual size of the one-step error, and its ratio by hour of day.
    error: Mean,
    error_by_hour: Profile<HOURS>,
    /// The usual distance from the slow forecast.
    distance: Mean,
    /// The mean of the last distances, and its usual size.
    run: Mean,
    run_size: Mean,
    /// The mean of the last surprises, short and longer.
    unrest: Mean,
    calm: Mean,
    /// The middle of all values, and the usual distance from it.
    middle: Mean,
    spread: Mean,
    tails: [Tail; SIGNS],
    /// How often in a row values stood on one side far from the slow forecast.
    beyond: i32,
    /// How often in a row the value was the same, the longest such row, and how often that is so at all.
    still: u32,
    still_longest: f64,
    still_share: Mean,
    last: f64,
    incident: Incident,
}

impl Default for Series {
    fn default() -> Self {
        Series::new()
    }
}

/// The signs of one value.
struct Signs {
    sizes: [f64; SIGNS],
    rarity: f64,
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
            error: Mean::new(),
            error_by_hour: Profile::new(),
            distance: Mean::new(),
            run: Mean::new(),
            run_size: Mean::new(),
            unrest: Mean::new(),
            calm: Mean::new(),
            middle: Mean::new(),
            spread: Mean::new(),
            tails: std::array::from_fn(|_| Tail::new()),
            beyond: 0,
            still: 0,
            still_longest: 0.0,
            still_share: Mean::new(),
            last: 0.0,
            incident: Incident::new(),
        }
    }

    /// Judges `value` at `at_us` (microseconds since 1970, the start of its window), then learns it.
    pub fn observe(&mut self, at_us: i64, value: f64) -> Observation {
        let expectation = self.expect(at_us);
        let said = |score, rarity| Observation {
            score,
            rarity,
            expected: expectation.expected,
            lower: expectation.lower,
            upper: expectation.upper,
            known: expectation.known,
        };
        if !value.is_finite() {
            return said(0.0, 0.0);
        }
        let place = Place::of(at_us);
        let x = self.scaled_first(value);
        let forecast = self.forecasters.forecast(place);
        let signs = self.signs(x, at_us, place, &forecast);
        let (score, rarity) = self.incident.judge(signs.rarity, self.pace.steps_to(at_us));
        self.learn(x, at_us, place, &forecast, &signs);
        said(score, rarity)
    }

    /// What is expected at `at_us`, without learning anything.
    pub fn expect(&self, at_us: i64) -> Expectation {
        let place = Place::of(at_us);
        let forecast = self.forecasters.forecast(place);
        let half =
            self.tails[0].exceeded_by(OUTSIDE) * self.error_at(place) * self.pace.steps_to(at_us).min(16.0).sqrt();
        let value = |x: f64| self.origin + x * self.unit;
        Expectation {
            expected: value(forecast.next),
            lower: value(forecast.next - half),
            upper: value(forecast.next + half),
            known: self.seen >= KNOWN_FROM,
        }
    }

    /// The value in units of the first step; the first value and the first step are kept for that.
    fn scaled_first(&mut self, value: f64) -> f64 {
        if self.seen == 0 {
            self.origin = value;
        }
        if self.unit == 0.0 {
            self.unit = (value - self.origin).abs().min(f64::MAX);
        }
        if self.unit == 0.0 { 0.0 } else { ((value - self.origin) / self.unit).clamp(-FURTHEST, FURTHEST) }
    }

    /// No error is held for smaller than this share of the spread, lest rounding be a surprise.
    fn least(&self) -> f64 {
        1e-9 + 0.002 * self.spread.value
    }

    fn error_at(&self, place: Place) -> f64 {
        let visits = f64::from(self.error_by_hour.visits(place.hour));
        let ratio = if visits < 1.0 { 1.0 } else { self.error_by_hour.mean(place.hour) };
        let ratio = (ratio * visits + 3.0) / (visits + 3.0);
        (self.error.value * ratio.clamp(0.25, 4.0)).max(self.least())
    }

    fn signs(&self, x: f64, at_us: i64, place: Place, forecast: &Forecast) -> Signs {
        let least = self.least();
        let gap = self.pace.steps_to(at_us).min(16.0).sqrt();
        let surprise = (x - forecast.next).abs() / (self.error_at(place) * gap);
        let distance = within(x - forecast.slow, 6.0 * self.distance.value);
        let run = (self.run.value + RUN_GAIN * (distance - self.run.value)).abs() / self.run_size.value.max(least);
        let clipped = surprise.min(UNREST_CLIP);
        let unrest = self.unrest.value + UNREST_GAIN * (clipped - self.unrest.value);
        let calm = self.calm.value + CALM_GAIN * (clipped - self.calm.value);
        let extreme = (x - self.middle.value).abs() / self.spread.value.max(least);
        let sizes = [surprise, run, unrest, 1.0 / (calm + 0.02), extreme];
        let season = if forecast.day_known { 1.0 } else { 0.6 };
        let weights = [1.0, season, season, season, season];
        let mut rarity = self.stillness(x);
        for ((tail, size), weight) in self.tails.iter().zip(sizes).zip(weights) {
            rarity = f64::max(rarity, tail.rarity(size) * weight);
        }
        // Honest about little data: what has hardly been seen can't be rare yet.
        let seen = f64::from(self.seen);
        let rarity = rarity * seen / (seen + KNOWN_HALF);
        Signs { sizes, rarity }
    }

    /// The rarity of yet another same value.
    fn stillness(&self, x: f64) -> f64 {
        if x != self.last || self.seen < KNOWN_FROM {
            return 0.0;
        }
        let row = f64::from(self.still + 1);
        if row < 1.5 * self.still_longest { 0.0 } else { -row * self.still_share.value.max(0.2).log10() }
    }

    fn learn(&mut self, x: f64, at_us: i64, place: Place, forecast: &Forecast, signs: &Signs) {
        let per_day = self.pace.per_day();
        let slow_gain = (1.0 / (4.0 * per_day)).clamp(0.0015, 0.02);
        // Doubtful values count less, so that an incident doesn't teach that incidents are usual.
        let weight = if self.incident.is_open() { 1 } else { WHOLE };
        if self.seen >= 8 {
            self.tails.iter_mut().zip(signs.sizes).for_each(|(tail, size)| tail.learn(size, weight));
        }
        let least = self.least();
        // What comes in one of a hundred values is no outlier: sparse series have a mean far below their usual values.
        let usual = self.tails.each_ref().map(|tail| (1.5 * tail.exceeded_by(OUTSIDE)).clamp(4.0, 200.0));
        let clip = |sign: usize, mean: &Mean, size: f64| {
            if mean.count() < 8 { size } else { size.min(usual[sign] * mean.value.max(least)) }
        };

        let error = (x - forecast.next).abs();
        let error = clip(0, &self.error, error);
        if self.error.value > 0.0 {
            let ratio = (error / self.error.value).min(8.0);
            self.error_by_hour.learn(place.hour, ratio, 0.15);
        }
        self.error.learn(error, slow_gain);

        let distance = x - forecast.slow;
        self.beyond = match distance.abs() > 3.0 * self.distance.value {
            true if (distance > 0.0) == (self.beyond > 0) => self.beyond.saturating_add(distance.signum() as i32),
            true => distance.signum() as i32,
            false => 0,
        };
        // What lasts is believed in the end: the clip widens with every value that stays beyond it.
        let patience = (0.5 * per_day).clamp(6.0, 100.0);
        let lasting = (f64::from(self.beyond.unsigned_abs()) - patience).max(0.0) / patience;
        let widened = 3.0 * self.distance.value.max(least) * (4.0 * lasting).min(60.0).exp();
        let believed_within = if self.seen < 8 { FURTHEST } else { widened };
        self.forecasters.learn(place, &self.pace, x, forecast, believed_within);
        let size = clip(0, &self.distance, distance.abs());
        self.run.learn(within(distance, 6.0 * self.distance.value), RUN_GAIN);
        self.distance.learn(size, slow_gain);
        self.run_size.learn(clip(1, &self.run_size, self.run.value.abs()), slow_gain);
        let clipped = signs.sizes[0].min(UNREST_CLIP);
        self.unrest.learn(clipped, UNREST_GAIN);
        self.calm.learn(clipped, CALM_GAIN);
        let from_middle = clip(4, &self.spread, (x - self.middle.value).abs());
        self.middle.learn(self.middle.value + (x - self.middle.value).signum() * from_middle, 0.0005);
        self.spread.learn(from_middle, 0.0005);
        self.learn_stillness(x);
        self.last = x;
        self.pace.learn(at_us);
        self.seen = self.seen.saturating_add(1);
    }

    fn learn_stillness(&mut self, x: f64) {
        let is_same = self.seen > 0 && x == self.last;
        if is_same {
            self.still = self.still.saturating_add(1);
        } else {
            self.still = 0;
        }
        self.still_longest = f64::max(0.9995 * self.still_longest, f64::from(self.still));
        self.still_share.learn(f64::from(u8::from(is_same)), 0.001);
    }

    /// The state as bytes, always of the same length.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u8(VERSION);
        writer.u32(self.seen);
        writer.f64(self.origin);
        writer.f64(self.unit);
        self.pace.write(&mut writer);
        self.forecasters.write(&mut writer);
        self.error_by_hour.write(&mut writer);
        for mean in [
            &self.error,
            &self.distance,
            &self.run,
            &self.run_size,
            &self.unrest,
            &self.calm,
            &self.middle,
            &self.spread,
            &self.still_share,
        ] {
            mean.write(&mut writer);
        }
        self.tails.iter().for_each(|tail| tail.write(&mut writer));
        writer.i64(i64::from(self.beyond));
        writer.u32(self.still);
        writer.f64(self.still_longest);
        writer.f64(self.last);
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
        let mut read = Series::new();
        read.seen = reader.u32()?;
        read.origin = reader.f64()?;
        read.unit = reader.f64()?;
        read.pace = Pace::read(reader)?;
        read.forecasters = Forecasters::read(reader)?;
        read.error_by_hour = Profile::read(reader)?;
        for mean in [
            &mut read.error,
            &mut read.distance,
            &mut read.run,
            &mut read.run_size,
            &mut read.unrest,
            &mut read.calm,
            &mut read.middle,
            &mut read.spread,
            &mut read.still_share,
        ] {
            *mean = Mean::read(reader)?;
        }
        for tail in &mut read.tails {
            *tail = Tail::read(reader)?;
        }
        read.beyond = i32::try_from(reader.i64()?).ok()?;
        read.still = reader.u32()?;
        read.still_longest = reader.f64()?;
        read.last = reader.f64()?;
        read.incident = Incident::read(reader)?;
        Some(read)
    }
}

/// Shares by which the short means move.
const RUN_GAIN: f64 = 0.12;
const UNREST_GAIN: f64 = 0.1;
const CALM_GAIN: f64 = 0.04;
/// What one surprise can add to the unrest.
const UNREST_CLIP: f64 = 6.0;
