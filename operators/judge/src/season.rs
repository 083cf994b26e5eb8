//! The usual level of a number by hour of week, learned online in constant memory.
//!
//! The number (a logit or a logarithm) is a level, plus an effect of the hour of day, plus what weekends add at that hour,
//! plus an effect of the day of week. Each part follows what is left over of the others: the level with the gain of all that
//! is known of it, the effects with one that falls from 1/visits, both to a floor. What is left over is clipped at three
//! deviations before it is learned, so that an incident moves little.

use crate::store::{Reader, Writer};

/// Hours of the day, and what weekends add to each.
const SLOTS: usize = 48;
const DAYS: usize = 7;
/// Thousandths of a logit (or of a natural logarithm) in one step of a stored effect.
const STEP: f64 = 1e-3;
/// Least gains: of the level per window, of an effect per visit.
const GAIN_OF_LEVEL: f64 = 0.004;
const GAIN_OF_EFFECT: f64 = 0.15;
const GAIN_OF_VARIANCE: f64 = 0.01;
/// Variance of a number's own counting at which it is trusted half.
const NOISE_HALF: f64 = 0.25;

/// A learned season; [`Season::BYTES`] bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Season {
    pub(crate) level: f32,
    /// What is left over, squared and meaned.
    pub(crate) variance: f32,
    /// Windows that were learned.
    pub(crate) windows: u32,
    /// Information about the level so far: where windows have few events, or hardly a hit, it takes many of them.
    known: f32,
    hours: [i16; SLOTS],
    days: [i16; DAYS],
}

/// The hour of day, the day of week, and whether it is a weekend's. 1970-01-01 was a Thursday.
fn slots(at_us: i64) -> (usize, usize, bool) {
    let hours = at_us.div_euclid(3_600_000_000);
    let day = (hours.div_euclid(24) + 3).rem_euclid(7) as usize;
    (hours.rem_euclid(24) as usize, day, day >= 5)
}

impl Season {
    pub(crate) const BYTES: usize = 16 + 2 * (SLOTS + DAYS);

    pub(crate) fn new(level: f64, variance: f64) -> Season {
        Season {
            level: level as f32,
            variance: variance as f32,
            windows: 0,
            known: 0.0,
            hours: [0; SLOTS],
            days: [0; DAYS],
        }
    }

    /// The season of what was never seen though it could have been for so many windows.
    pub(crate) fn never_seen(level: f64, variance: f64, windows: u32) -> Season {
        Season { windows, known: (f64::from(windows) / variance) as f32, ..Season::new(level, variance) }
    }

    /// What is expected at a moment, from what was learned before.
    pub(crate) fn expected(&self, at_us: i64) -> f64 {
        let (hour, day, weekend) = slots(at_us);
        let of_weekend = if weekend { self.hours[24 + hour] } else { 0 };
        f64::from(self.level) + STEP * (f64::from(self.hours[hour]) + f64::from(of_weekend) + f64::from(self.days[day]))
    }

    /// Learns what was left over at a moment: seen less expected. `noise` is the variance of the number itself, by how it
    /// was counted: it is trusted the less, and isn't taken for the series' own.
    pub(crate) fn learn(&mut self, at_us: i64, left_over: f64, noise: f64) {
        let weight = NOISE_HALF / (NOISE_HALF + noise);
        let (hour, day, weekend) = slots(at_us);
        let deviation = (f64::from(self.variance) + noise).max(1e-6).sqrt();
        let young = self.windows < 48;
        let clipped = if young { left_over } else { left_over.clamp(-3.0 * deviation, 3.0 * deviation) };
        self.windows = self.windows.saturating_add(1);
        let visits = f64::from(self.windows);
        // What is left over was drawn towards nothing by one unit of information.
        let information = 1.0 / (noise + f64::from(self.variance)).max(1e-6);
        let gain = (1.0 + information) / (1.0 + information + f64::from(self.known));
        self.level += (clipped * gain.max(weight * GAIN_OF_LEVEL)) as f32;
        self.known = (f64::from(self.known) + information).min(1e9) as f32;
        // Hours take what the level leaves: each is seen daily, a weekend's twice a week.
        let of_hour = (1.0 / (1.0 + visits / 24.0)).max(GAIN_OF_EFFECT) * weight;
        let of_weekend = (1.0 / (1.0 + visits / 84.0)).max(GAIN_OF_EFFECT) * weight;
        let of_day = (0.2 / (1.0 + visits / 168.0)).max(GAIN_OF_EFFECT / 24.0) * weight;
        let step = |effect: &mut i16, by: f64| {
            *effect = (f64::from(*effect) + by / STEP).round().clamp(-30_000.0, 30_000.0) as i16;
        };
        if weekend {
            step(&mut self.hours[24 + hour], clipped * of_weekend);
        }
        step(&mut self.hours[hour], clipped * of_hour * if weekend { 0.3 } else { 1.0 });
        step(&mut self.days[day], clipped * of_day);
        let wide = left_over.clamp(-4.0 * deviation - 0.1, 4.0 * deviation + 0.1);
        let gain = (1.0 / (visits + 8.0)).max(GAIN_OF_VARIANCE) * weight;
        let own = wide * wide - noise - f64::from(self.variance);
        self.variance = (f64::from(self.variance) + own * gain).max(1e-4) as f32;
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.f32(self.level);
        out.f32(self.variance);
        out.u32(self.windows);
        out.f32(self.known);
        self.hours.iter().chain(&self.days).for_each(|effect| out.i16(*effect));
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Option<Season> {
        let mut season = Season::new(0.0, 0.0);
        season.level = from.f32()?;
        season.variance = from.f32()?;
        season.windows = from.u32()?;
        season.known = from.f32()?;
        for effect in season.hours.iter_mut().chain(&mut season.days) {
            *effect = from.i16()?;
        }
        Some(season)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_US: i64 = 3_600_000_000;

    #[test]
    fn learns_the_hour_and_the_weekend() {
        let truth = |hour: i64| {
            let weekend = (hour / 24 + 3) % 7 >= 5;
            let daily = ((hour % 24) as f64 / 24.0 * std::f64::consts::TAU).sin();
            2.0 + if weekend { 0.7 - 0.5 * daily } else { daily }
        };
        let mut season = Season::new(truth(0), 0.25);
        for hour in 0..24 * 42 {
            let left_over = truth(hour) - season.expected(hour * HOUR_US);
            season.learn(hour * HOUR_US, left_over, 0.0);
        }
        for hour in 24 * 42..24 * 49 {
            let off = (truth(hour) - season.expected(hour * HOUR_US)).abs();
            assert!(off < 0.3, "hour {hour}: {off}");
        }
    }

    #[test]
    fn what_every_event_shows_is_learned_from_few_events() {
        use crate::evidence::drawn_shift;
        use crate::math::{logit, share_at};
        let mut season = Season::new(logit(12.5 / 13.0), 0.09);
        for hour in 0..24 * 7 {
            let expected = share_at(season.expected(hour * HOUR_US));
            let noise = 1.0 / (12.0 * expected * (1.0 - expected));
            season.learn(hour * HOUR_US, drawn_shift(12.0, 12.0, expected), noise);
        }
        assert!(share_at(season.expected(0)) > 0.995, "{}", share_at(season.expected(0)));
    }

    #[test]
    fn an_incident_of_a_day_moves_little() {
        let mut season = Season::new(0.0, 0.01);
        for hour in 0..24 * 28 {
            season.learn(hour * HOUR_US, -season.expected(hour * HOUR_US), 0.0);
        }
        for hour in 24 * 28..24 * 29 {
            season.learn(hour * HOUR_US, 5.0 - season.expected(hour * HOUR_US), 0.0);
        }
        assert!(season.expected(24 * 29 * HOUR_US).abs() < 0.5);
        assert_eq!(
            Season::read(&mut Reader(&{
                let mut out = Writer::default();
                season.write(&mut out);
                assert_eq!(out.0.len(), Season::BYTES);
                out.0
            })),
            Some(season)
        );
    }
}
