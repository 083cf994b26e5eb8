//! The signs that something is wrong with a value, each a size, and the rarity of all of them together.
//!
//! - *surprise*: the value against the mix of forecasters, in units of the usual error at that hour,
//! - *run* and *long run*: the mean of the last values, few and many, against level and seasons, for shifts and drifts,
//! - *unrest* and *calm*: the mean of the last surprises, too large or too small, for changes of variance or of habits,
//! - *height*: the value against the middle of all values, for what never was so high or low,
//! - *novelty*: how new it is to meet the value in its company of late ([`super::context`]),
//! - *stillness*: the same value again and again where that never was.
//!
//! What a sign's size means is told by the sizes of its own past ([`crate::tails`]), but for stillness, where rows of the
//! same value are counted. Sizes are clipped where they enter means, at what one of a hundred values exceeds, so that
//! sparse series keep a scale and an outlier hardly widens it.

use crate::tails::{Tail, WHOLE};

use super::bytes::{Reader, Writer};
use super::context::Context;
use super::forecast::Forecast;
use super::incident::RARITY;
use super::level::{Mean, within};
use super::place::{HOURS, Place};
use super::season::Profile;

const SIGNS: usize = 7;
const SURPRISE: usize = 0;
const RUN: usize = 1;
/// What each sign's rarity counts: surprise, run, unrest, calm, height, novelty, long run.
const WEIGHTS: [f64; SIGNS] = [0.667, 0.833, 1.0, 0.667, 0.417, 1.35, 0.9];
/// Shares by which the means of the last values move.
const RUN_GAIN: f64 = 0.12;
const LONG_RUN_GAIN: f64 = 0.03;
const UNREST_GAIN: f64 = 0.12;
const CALM_GAIN: f64 = 0.04;
/// What one surprise can add to the unrest.
const UNREST_MOST: f64 = 8.0;
/// What one value can add to a run, in usual distances.
const RUN_MOST: f64 = 6.0;
/// Keeps the calm's size finite.
const CALM_LEAST: f64 = 0.02;
/// Of this rarity no sign is taken before so many values.
const JUDGED_FROM: u32 = 24;
/// Tails learn from so many values on; the first ones have no scale yet.
const TAILS_FROM: u32 = 8;
/// Of what is told after this many values, half is believed.
const HALF_BELIEVED: f64 = 30.0;
/// What the signs over several values count while the shape of the day isn't known, until so many values came.
const WITHOUT_DAY: f64 = 0.6;
const WITHOUT_DAY_UNTIL: u32 = 600;
/// What a doubtful value counts in the tails, of [`WHOLE`]: an incident must not teach that incidents are usual.
const DOUBTFUL: u16 = 3;
/// The share of values that outliers are beyond.
const OUTLIERS: f64 = 0.01;
/// The hour's error is at least and at most so many usual errors, and one value counts for at most so many.
const HOUR_LEAST: f64 = 0.25;
const HOUR_MOST: f64 = 30.0;
const HOUR_ONE_MOST: f64 = 40.0;
const HOUR_GAIN_MIN: f64 = 0.15;
/// Stillness: no value is held for less likely than this to come again, and longest rows are forgotten by this share.
const STILL_SHARE_LEAST: f64 = 0.2;
const STILL_KEPT: f64 = 0.9995;
const STILL_FROM: u32 = 48;

/// What the signs know.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Signs {
    /// The usual size of the one-step error, and its ratio by hour of day.
    error: Mean,
    error_by_hour: Profile<HOURS, 2>,
    /// The usual distance from the slow forecast.
    distance: Mean,
    /// The mean of the last distances, of few and of many, and its usual size.
    run: Mean,
    run_size: Mean,
    long_run: Mean,
    long_run_size: Mean,
    /// The mean of the last surprises, short and longer.
    unrest: Mean,
    calm: Mean,
    /// The middle of all values, and the usual distance from it.
    middle: Mean,
    spread: Mean,
    context: Context,
    tails: [Tail; SIGNS],
    /// How many values in a row stood far above (or, negative, below) the slow forecast.
    beyond: i32,
    /// How often in a row the value was the same, the longest such row, and how often that is so at all.
    still: u32,
    still_longest: f64,
    still_share: Mean,
    last: f64,
}

/// The signs of one value: their sizes, and how rare they are together.
pub(crate) struct Found {
    sizes: [f64; SIGNS],
    pub(crate) rarity: f64,
}

impl Signs {
    pub(crate) fn new() -> Signs {
        Signs {
            error: Mean::new(),
            error_by_hour: Profile::new(),
            distance: Mean::new(),
            run: Mean::new(),
            run_size: Mean::new(),
            long_run: Mean::new(),
            long_run_size: Mean::new(),
            unrest: Mean::new(),
            calm: Mean::new(),
            middle: Mean::new(),
            spread: Mean::new(),
            context: Context::new(),
            tails: std::array::from_fn(|_| Tail::new()),
            beyond: 0,
            still: 0,
            still_longest: 0.0,
            still_share: Mean::new(),
            last: 0.0,
        }
    }

    /// Half the width of what is usual at `place`: the error that the share `outside` exceeds.
    pub(crate) fn half_width(&self, place: Place, outside: f64) -> f64 {
        self.tails[SURPRISE].exceeded_by(outside) * self.error_at(place)
    }

    /// No error is held for smaller than this share of the spread, lest rounding be a surprise.
    fn least(&self) -> f64 {
        1e-9 + 0.002 * self.spread.value
    }

    /// How far `x` is from the middle of all values, in usual distances.
    fn off_middle(&self, x: f64) -> f64 {
        (x - self.middle.value) / self.spread.value.max(1e-9)
    }

    fn error_at(&self, place: Place) -> f64 {
        let visits = f64::from(self.error_by_hour.visits(place.hour));
        let ratio = (self.error_by_hour.mean(place.hour) * visits + 1.0) / (visits + 1.0);
        (self.error.value * ratio.clamp(HOUR_LEAST, HOUR_MOST)).max(self.least())
    }

    /// The signs of `x`, the value after `seen` others; `gap` widens the error where values are missing before it.
    pub(crate) fn find(&self, x: f64, seen: u32, gap: f64, place: Place, forecast: &Forecast) -> Found {
        let surprise = (x - forecast.next).abs() / (self.error_at(place) * gap);
        let distance = within(x - forecast.slow, RUN_MOST * self.distance.value);
        let run = (self.run.value + RUN_GAIN * (distance - self.run.value)).abs();
        let long_run = (self.long_run.value + LONG_RUN_GAIN * (distance - self.long_run.value)).abs();
        let clipped = surprise.min(UNREST_MOST);
        let unrest = self.unrest.value + UNREST_GAIN * (clipped - self.unrest.value);
        let calm = self.calm.value + CALM_GAIN * (clipped - self.calm.value);
        let off = self.off_middle(x);
        let sizes = [
            surprise,
            run / self.run_size.value.max(self.least()),
            unrest,
            1.0 / (calm + CALM_LEAST),
            off.abs(),
            self.context.novelty(off),
            long_run / self.long_run_size.value.max(self.least()),
        ];
        if seen < JUDGED_FROM {
            return Found { sizes, rarity: 0.0 };
        }
        let is_day_known = forecast.day_known || seen >= WITHOUT_DAY_UNTIL;
        let season = if is_day_known { 1.0 } else { WITHOUT_DAY };
        // The sum of cubes is little more than the largest, and yet two strong signs are more than one.
        let mut cubes = self.stillness(x, seen).powi(3);
        for (sign, (tail, size)) in self.tails.iter().zip(sizes).enumerate() {
            let weight = WEIGHTS[sign] * if sign == SURPRISE { 1.0 } else { season };
            cubes += (tail.rarity(size) * weight).powi(3);
        }
        // Honest about little data: what has hardly been seen can't be rare yet.
        let believed = f64::from(seen) / (f64::from(seen) + HALF_BELIEVED);
        Found { sizes, rarity: cubes.cbrt() * believed }
    }

    /// The rarity of yet another same value.
    fn stillness(&self, x: f64, seen: u32) -> f64 {
        let row = f64::from(self.still) + 1.0;
        if x != self.last || seen < STILL_FROM || row < 1.5 * self.still_longest {
            return 0.0;
        }
        (-row * self.still_share.value.max(STILL_SHARE_LEAST).log10()).min(99.0)
    }

    /// How far from the slow forecast a value is believed: the usual distance a few times, and more with every value in a
    /// row that stays beyond, so that what lasts is believed in the end, however far it is.
    pub(crate) fn believed_within(&self, x: f64, per_day: f64, forecast: &Forecast) -> (i32, f64) {
        let distance = x - forecast.slow;
        let side = if distance > 0.0 { 1 } else { -1 };
        let beyond = match distance.abs() > 3.0 * self.distance.value {
            true if self.beyond.signum() == side => self.beyond.saturating_add(side),
            true => side,
            false => 0,
        };
        let patience = (0.5 * per_day).clamp(6.0, 100.0);
        let lasting = (f64::from(beyond.unsigned_abs()) - patience).max(0.0) / patience;
        (beyond, 3.0 * self.distance.value.max(self.least()) * (4.0 * lasting).min(60.0).exp())
    }

    /// Learns `x` and the signs `found` in it.
    pub(crate) fn learn(&mut self, x: f64, seen: u32, per_day: f64, place: Place, forecast: &Forecast, found: &Found) {
        self.beyond = self.believed_within(x, per_day, forecast).0;
        let slow_gain = (0.07 / per_day).clamp(0.0005, 0.02);
        if seen >= TAILS_FROM {
            let weight = if found.rarity >= RARITY { DOUBTFUL } else { WHOLE };
            self.tails.iter_mut().zip(found.sizes).for_each(|(tail, size)| tail.learn(size, weight));
        }
        let least = self.least();
        let usual = [SURPRISE, RUN].map(|sign| (1.5 * self.tails[sign].exceeded_by(OUTLIERS)).clamp(4.0, 200.0));
        let clipped = |mean: &Mean, size: f64, sign: usize| {
            if mean.count() < 8 { size } else { size.min(usual[sign] * mean.value.max(least)) }
        };

        let error = clipped(&self.error, (x - forecast.next).abs(), SURPRISE);
        if self.error.value > 0.0 {
            let ratio = (error / self.error.value).min(HOUR_ONE_MOST);
            self.error_by_hour.learn(place.hour, ratio, HOUR_GAIN_MIN);
        }
        self.error.learn(error, slow_gain);
        let distance = x - forecast.slow;
        let size = clipped(&self.distance, distance.abs(), SURPRISE);
        self.run.learn(within(distance, RUN_MOST * self.distance.value), RUN_GAIN);
        self.long_run.learn(within(distance, RUN_MOST * self.distance.value), LONG_RUN_GAIN);
        self.distance.learn(size, slow_gain);
        self.run_size.learn(clipped(&self.run_size, self.run.value.abs(), RUN), slow_gain);
        self.long_run_size.learn(clipped(&self.long_run_size, self.long_run.value.abs(), RUN), slow_gain);
        self.context.learn(self.off_middle(x));
        let surprise = found.sizes[SURPRISE].min(UNREST_MOST);
        self.unrest.learn(surprise, UNREST_GAIN);
        self.calm.learn(surprise, CALM_GAIN);
        let from_middle = clipped(&self.spread, (x - self.middle.value).abs(), SURPRISE);
        self.middle.learn(self.middle.value + within(x - self.middle.value, from_middle), 0.0005);
        self.spread.learn(from_middle, 0.0005);
        self.learn_stillness(x, seen);
        self.last = x;
    }

    fn learn_stillness(&mut self, x: f64, seen: u32) {
        let is_same = seen > 0 && x == self.last;
        self.still_longest *= STILL_KEPT;
        if is_same {
            self.still = self.still.saturating_add(1);
        } else {
            self.still_longest = self.still_longest.max(f64::from(self.still));
            self.still = 0;
        }
        self.still_share.learn(f64::from(u8::from(is_same)), 0.001);
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        for mean in [
            &self.error,
            &self.distance,
            &self.run,
            &self.run_size,
            &self.long_run,
            &self.long_run_size,
            &self.unrest,
            &self.calm,
            &self.middle,
            &self.spread,
            &self.still_share,
        ] {
            mean.write(writer);
        }
        self.error_by_hour.write(writer);
        self.context.write(writer);
        self.tails.iter().for_each(|tail| tail.write(writer));
        writer.i32(self.beyond);
        writer.u32(self.still);
        writer.f64(self.still_longest);
        writer.f64(self.last);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Signs> {
        let mut read = Signs::new();
        for mean in [
            &mut read.error,
            &mut read.distance,
            &mut read.run,
            &mut read.run_size,
            &mut read.long_run,
            &mut read.long_run_size,
            &mut read.unrest,
            &mut read.calm,
            &mut read.middle,
            &mut read.spread,
            &mut read.still_share,
        ] {
            *mean = Mean::read(reader)?;
        }
        read.error_by_hour = Profile::read(reader)?;
        read.context = Context::read(reader)?;
        for tail in &mut read.tails {
            *tail = Tail::read(reader)?;
        }
        read.beyond = reader.i32()?;
        read.still = reader.u32()?;
        read.still_longest = reader.f64()?;
        read.last = reader.f64()?;
        Some(read)
    }
}
