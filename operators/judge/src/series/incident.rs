//! One incident is one alarm.
//!
//! A value at or beyond the threshold opens an incident. While it is open, what follows must be rarer than what opened it,
//! less so with every step; below that it scores high, but under the threshold.

use super::bytes::{Reader, Writer};

/// The score from which the product alerts.
pub const THRESHOLD: f64 = 0.5;
/// The rarity that the threshold stands for, in decimal logarithms.
const RARITY: f64 = 2.8;

/// Steps after which the memory of an incident has fallen to a third.
const FADES_IN: f64 = 60.0;

/// The memory of the last incident.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Incident {
    /// What is subtracted from rarities; 0 when nothing happened for long.
    memory: f64,
}

impl Incident {
    pub(crate) fn new() -> Incident {
        Incident { memory: 0.0 }
    }

    /// Whether an incident is fresh.
    pub(crate) fn is_open(&self) -> bool {
        self.memory > 0.3 * RARITY
    }

    /// The score and the rarity left of `rarity`, `steps` usual distances after the last value.
    pub(crate) fn judge(&mut self, rarity: f64, steps: f64) -> (f64, f64) {
        self.memory *= (-steps / FADES_IN).exp();
        let left = rarity - self.memory;
        if left >= RARITY {
            self.memory = f64::max(self.memory, rarity);
            return (left / (left + RARITY), left);
        }
        // Ordered below the threshold by the rarity itself, for those who rank.
        let shadow = rarity / (rarity + RARITY);
        let below = left.max(0.0) / (left.max(0.0) + RARITY);
        (below.max(shadow.min(0.9) * 0.5).min(0.4999), left.max(0.0))
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.f64(self.memory);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Incident> {
        Some(Incident { memory: reader.f64()? })
    }
}
