//! Several simple forecasters, mixed by how well each did lately.
//!
//! The forecasters: the last value, a fast level, a level with trend, a slow level, the slow level with the shape of the
//! day, the same with the shape of the week, a fast level of what is left of the season, and the last value with the
//! season's step. Each is weighed by a high power of the inverse of its mean absolute error, so that the best leads
//! and equals share. Errors are clipped before they count, so that an incident doesn't change the lead.

use super::bytes::{Reader, Writer};
use super::level::{Mean, within};
use super::place::{DAY_SLOTS, Pace, Place, WEEK_SLOTS};
use super::season::Profile;

const FORECASTERS: usize = 8;
/// The first forecaster that needs the shape of the day, and the ones that need that of the week, too.
const FIRST_SEASONAL: usize = 4;
/// The forecasters that go by slow levels and seasons alone.
const SLOW: std::ops::Range<usize> = 3..6;
const SHARPNESS: i32 = 6;
/// A gap of more steps tells no more.
const STEPS_MOST: f64 = 168.0;
/// Errors that a forecaster must have made before it is heard.
const HEARD_FROM: u16 = 12;
const DAY_GAIN_MIN: f64 = 0.1;
const WEEK_GAIN_MIN: f64 = 0.25;

/// What the forecasters know.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Forecasters {
    last: f64,
    fast: Mean,
    level: Mean,
    trend: f64,
    /// The slow level of what the seasons leave.
    slow: Mean,
    /// The fast level of what the seasons leave.
    rest: Mean,
    /// The season's part at the last value.
    season_last: f64,
    day: Profile<DAY_SLOTS, 3>,
    week: Profile<WEEK_SLOTS, 2>,
    errors: [Mean; FORECASTERS],
}

/// What is expected at one place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Forecast {
    /// One step ahead, the mix of all.
    pub(crate) next: f64,
    /// From slow levels and seasons alone: what a run of values is held against.
    pub(crate) slow: f64,
    /// Whether the shape of the day is known here.
    pub(crate) day_known: bool,
    /// Whether the shape of the week is known here.
    pub(crate) week_known: bool,
    each: [f64; FORECASTERS],
    season: f64,
}

impl Forecasters {
    pub(crate) fn new() -> Forecasters {
        Forecasters {
            last: 0.0,
            fast: Mean::new(),
            level: Mean::new(),
            trend: 0.0,
            slow: Mean::new(),
            rest: Mean::new(),
            season_last: 0.0,
            day: Profile::new(),
            week: Profile::new(),
            errors: [Mean::new(); FORECASTERS],
        }
    }

    /// The forecast for `place`, `steps` usual distances after the last value.
    pub(crate) fn forecast(&self, place: Place, steps: f64) -> Forecast {
        let day_known = self.day.visits(place.day_slot) >= 1;
        let visits = f64::from(self.week.visits(place.week_slot));
        let day = self.day.mean(place.day_slot);
        let week = self.week.mean(place.week_slot) * visits / (visits + 1.0);
        let season = day + week;
        let slow = self.slow.value;
        let each = [
            self.last,
            self.fast.value,
            self.level.value + self.trend,
            slow,
            slow + day,
            slow + season,
            self.rest.value + season,
            self.last + season - self.season_last,
        ];
        let next = self.mix(&each, 0..FORECASTERS, day_known, steps);
        let slow = self.mix(&each, SLOW, day_known, steps);
        Forecast { next, slow, day_known, week_known: visits >= 1.0, each, season }
    }

    /// The mean of the forecasters `which`, each weighed by a high power of its inverse error. Those that go by the last
    /// values know less after a gap: their errors grow by the root of its steps.
    fn mix(&self, each: &[f64; FORECASTERS], which: std::ops::Range<usize>, day_known: bool, steps: f64) -> f64 {
        let first = which.start;
        let widened = steps.min(STEPS_MOST).sqrt();
        let error = |at: usize| self.errors[at].value * if SLOW.contains(&at) { 1.0 } else { widened } + 1e-12;
        let heard = |at: &usize| {
            (*at < FIRST_SEASONAL || day_known) && (*at == first || self.errors[*at].count() >= HEARD_FROM)
        };
        let best = which.clone().filter(heard).map(error).fold(f64::INFINITY, f64::min);
        let (mut sum, mut weights) = (0.0, 0.0);
        for at in which.filter(heard) {
            let weight = (best / error(at)).powi(SHARPNESS);
            sum += weight * each[at];
            weights += weight;
        }
        sum / weights
    }

    /// Learns `value`, of which at most `clip` from the slow forecast is believed by what is slow.
    pub(crate) fn learn(&mut self, place: Place, pace: &Pace, value: f64, forecast: &Forecast, clip: f64) {
        let error_gain = (1.0 / pace.per_day()).clamp(0.003, 0.02);
        for at in 0..FORECASTERS {
            if at < FIRST_SEASONAL || forecast.day_known {
                let error = (value - forecast.each[at]).abs().min(2.0 * clip);
                self.errors[at].learn(error, error_gain);
            }
        }
        // The last value is forgotten at the next; what lives longer takes no value as it comes.
        let last = value;
        let value = forecast.slow + within(value - forecast.slow, 10.0 * clip);
        self.fast.learn(value, 0.25);
        let before = self.level.value;
        self.level.learn(value, 0.3);
        let ahead = before + self.trend;
        self.level.value = if self.level.count() > 2 { ahead + 0.3 * (value - ahead) } else { value };
        self.trend = 0.98 * (self.trend + 0.05 * (self.level.value - before - self.trend));
        self.rest.learn(value - forecast.season, 0.25);

        let believed = forecast.slow + within(value - forecast.slow, clip);
        let slow_gain = (0.3 / pace.per_day()).clamp(0.003, 0.1);
        let left = believed - forecast.season;
        self.slow.learn(left, slow_gain);
        let week = forecast.season - self.day.mean(place.day_slot);
        self.day.learn(place.day_slot, believed - self.slow.value - week, DAY_GAIN_MIN);
        if self.day.visits(place.day_slot) >= 2 {
            let rest = believed - self.slow.value - self.day.mean(place.day_slot);
            self.week.learn(place.week_slot, rest, WEEK_GAIN_MIN);
        }
        self.last = last;
        self.season_last = forecast.season;
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.f64(self.last);
        writer.f64(self.trend);
        writer.f64(self.season_last);
        for mean in [&self.fast, &self.level, &self.slow, &self.rest].into_iter().chain(&self.errors) {
            mean.write(writer);
        }
        self.day.write(writer);
        self.week.write(writer);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Forecasters> {
        let mut read = Forecasters::new();
        read.last = reader.f64()?;
        read.trend = reader.f64()?;
        read.season_last = reader.f64()?;
        for mean in
            [&mut read.fast, &mut read.level, &mut read.slow, &mut read.rest].into_iter().chain(&mut read.errors)
        {
            *mean = Mean::read(reader)?;
        }
        read.day = Profile::read(reader)?;
        read.week = Profile::read(reader)?;
        Some(read)
    }
}
