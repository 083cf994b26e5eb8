//! One incident is one alarm.
//!
//! A value at or beyond the threshold opens an incident. While it is open, and a while after it has calmed down, what
//! follows must be rarer than what opened it; below that it scores by its rarity, but under the threshold. What is
//! rare beyond doubt renews the memory even then, so that a series that goes on being wild isn't an alarm each time.

use super::bytes::{Reader, Writer};

/// The score from which the product alerts.
pub const THRESHOLD: f64 = 0.5;
/// The rarity that the threshold stands for, in decimal logarithms: about once in a thousand values.
pub(crate) const RARITY: f64 = 3.0;
/// Quiet steps after which the memory of an incident has fallen to a third.
const FADES_IN: f64 = 72.0;
/// How much longer the memory lasts through steps that aren't quiet.
const HELD: f64 = 5.333;
/// The memory of the value that opens an incident, and of one that keeps it open, in times of its size.
const OPENS: f64 = 1.5;
const RENEWS: f64 = 0.444;
/// How large the latter must be, in times of the threshold's rarity.
const RENEWED_FROM: f64 = 1.5;
/// The highest score below the threshold.
const BELOW: f64 = 0.4999;

/// The memory of the last incident.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Incident {
    /// What is subtracted from rarities; it falls to 0 with time.
    memory: f64,
}

impl Incident {
    pub(crate) fn new() -> Incident {
        Incident { memory: 0.0 }
    }

    /// The score and what is left of `rarity`, `steps` usual distances after the last value.
    pub(crate) fn judge(&mut self, rarity: f64, steps: f64) -> (f64, f64) {
        // Far out, rarities are extrapolated: ten times as rare in logarithms is only a few times as telling.
        let size = if rarity < RARITY { rarity } else { RARITY * (1.0 + (rarity / RARITY).ln()) };
        let fades_in = if size < RARITY { FADES_IN } else { HELD * FADES_IN };
        self.memory *= (-steps / fades_in).exp();
        let left = (size - self.memory).max(0.0);
        if left >= RARITY {
            self.memory = OPENS * size;
            return (left / (left + RARITY), left);
        }
        if size >= RENEWED_FROM * RARITY {
            self.memory = self.memory.max(RENEWS * size);
        }
        // Who ranks rows rather than counts alarms still sees the rest of an incident stand out.
        let ranked = 0.5 * rarity / (rarity + RARITY);
        ((left / (left + RARITY)).max(ranked).min(BELOW), left)
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.f64(self.memory);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Incident> {
        Some(Incident { memory: reader.f64()?.max(0.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_alarms_once_and_what_is_much_worse_again() {
        let mut incident = Incident::new();
        assert!(incident.judge(1.0, 1.0).0 < THRESHOLD);
        assert!(incident.judge(4.0, 1.0).0 >= THRESHOLD);
        assert!((0..100).all(|_| incident.judge(4.0, 1.0).0 < THRESHOLD));
        assert!(incident.judge(60.0, 1.0).0 >= THRESHOLD);
        (0..400).for_each(|_| assert!(incident.judge(0.5, 1.0).0 < THRESHOLD));
        assert!(incident.judge(4.0, 1.0).0 >= THRESHOLD, "after a long calm");
    }
}
