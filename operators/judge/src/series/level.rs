//! Running means, and limits.

use super::bytes::{Reader, Writer};

/// A mean that weighs its first values alike and later ones by a fixed share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mean {
    pub(crate) value: f64,
    count: u16,
}

impl Mean {
    pub(crate) fn new() -> Mean {
        Mean { value: 0.0, count: 0 }
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    /// Moves towards `value` by a share of 1/n, no less than `gain_min`.
    pub(crate) fn learn(&mut self, value: f64, gain_min: f64) {
        let gain = (1.0 / (f64::from(self.count) + 1.0)).max(gain_min);
        self.value += gain * (value - self.value);
        self.count = self.count.saturating_add(1);
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.f64(self.value);
        writer.u16(self.count);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Mean> {
        Some(Mean { value: reader.f64()?, count: reader.u16()? })
    }
}

/// `value`, no further from 0 than `most`; 0 where `most` is negative.
pub(crate) fn within(value: f64, most: f64) -> f64 {
    let most = most.max(0.0);
    value.min(most).max(-most)
}
