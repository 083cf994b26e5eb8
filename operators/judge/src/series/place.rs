//! Where in the day and the week a value stands, and how far apart values stand.

use super::bytes::{Reader, Writer};

const SECOND_US: i64 = 1_000_000;
const HOUR_US: i64 = 3_600 * SECOND_US;
const DAY_US: i64 = 24 * HOUR_US;
const WEEK_US: i64 = 7 * DAY_US;

/// Slots of a quarter of an hour in a day.
pub(crate) const DAY_SLOTS: usize = 96;
/// Hours in a week.
pub(crate) const WEEK_SLOTS: usize = 168;
/// Hours in a day.
pub(crate) const HOURS: usize = 24;

/// A value's place in the seasons, all of it UTC.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place {
    pub(crate) day_slot: usize,
    pub(crate) week_slot: usize,
    pub(crate) hour: usize,
}

impl Place {
    /// The place of `at_us`, in microseconds since 1970.
    pub(crate) fn of(at_us: i64) -> Place {
        let in_day = at_us.rem_euclid(DAY_US);
        let in_week = at_us.rem_euclid(WEEK_US);
        Place {
            day_slot: (in_day / (DAY_US / DAY_SLOTS as i64)) as usize,
            week_slot: (in_week / HOUR_US) as usize,
            hour: (in_day / HOUR_US) as usize,
        }
    }
}

/// The usual distance between values, learnt so that gaps and repeats hardly move it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pace {
    last_us: i64,
    interval_us: f64,
    steps: u32,
}

impl Pace {
    pub(crate) fn new() -> Pace {
        Pace { last_us: 0, interval_us: 0.0, steps: 0 }
    }

    /// How many usual distances `at_us` is from the last value: 1 where all is regular; never below 1.
    pub(crate) fn steps_to(&self, at_us: i64) -> f64 {
        if self.steps < 2 || self.interval_us <= 0.0 {
            return 1.0;
        }
        (at_us.saturating_sub(self.last_us) as f64 / self.interval_us).max(1.0)
    }

    /// Learns that a value came at `at_us`. The distance is a running median: it moves by a share of itself towards each.
    pub(crate) fn learn(&mut self, at_us: i64) {
        let distance = at_us.saturating_sub(self.last_us) as f64;
        if self.steps > 0 && distance > 0.0 {
            if self.interval_us == 0.0 {
                self.interval_us = distance;
            }
            let gain = (1.0 / f64::from(self.steps)).max(0.02);
            self.interval_us += gain * (distance - self.interval_us).min(self.interval_us).max(-0.5 * self.interval_us);
        }
        self.last_us = at_us;
        self.steps = self.steps.saturating_add(1);
    }

    /// Values in a day, at the usual distance.
    pub(crate) fn per_day(&self) -> f64 {
        if self.interval_us <= 0.0 { 24.0 } else { DAY_US as f64 / self.interval_us }
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.i64(self.last_us);
        writer.f64(self.interval_us);
        writer.u32(self.steps);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Pace> {
        let read = Pace { last_us: reader.i64()?, interval_us: reader.f64()?, steps: reader.u32()? };
        (read.interval_us >= 0.0).then_some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_before_1970_and_at_the_ends_of_time_are_in_range() {
        for at_us in [i64::MIN, -1, 0, 1, DAY_US - 1, i64::MAX] {
            let place = Place::of(at_us);
            assert!(place.day_slot < DAY_SLOTS && place.week_slot < WEEK_SLOTS && place.hour < HOURS);
        }
        assert_eq!(Place::of(-1).day_slot, DAY_SLOTS - 1);
    }

    #[test]
    fn the_pace_survives_gaps_and_repeats() {
        let mut pace = Pace::new();
        let mut at_us = 0;
        for step in 0..500_i64 {
            at_us += if step % 50 == 7 {
                40 * HOUR_US
            } else if step % 50 == 9 {
                0
            } else {
                HOUR_US
            };
            pace.learn(at_us);
        }
        assert!((pace.per_day() - 24.0).abs() < 3.0, "{}", pace.per_day());
        assert_eq!(pace.steps_to(at_us - HOUR_US), 1.0);
        assert!(pace.steps_to(at_us + 10 * HOUR_US) > 8.0);
    }
}
