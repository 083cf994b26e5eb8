//! Whether a value was seen in such company before: its own size, that of the last few values and that of the last many.
//!
//! The three sizes, each in one of eight steps around the series' middle, name one of 512 cells, which count how often
//! they were visited. A cell that hardly ever was is novel, whatever the value alone: noon's height at midnight, a quiet
//! stretch where there never was one. The idea of scoring contexts by how new they are is that of the Contextual Anomaly
//! Detector (Smirnov 2016); counting in a fixed grid keeps the memory bounded.
//!
//! Invariants: counts never overflow (all are halved first); the state has one fixed size.

use super::bytes::{Reader, Writer};
use super::level::{Mean, within};

const STEPS: usize = 8;
const CELLS: usize = STEPS * STEPS * STEPS;
/// Between the steps, in usual distances from the middle.
const EDGES: [f64; STEPS - 1] = [-2.2, -1.2, -0.5, 0.0, 0.5, 1.2, 2.2];
/// Visits that all cells together have had before anything came.
const PRIOR: f64 = 30.0;
/// Where all counts are halved.
const FULL: u32 = 16_000;
/// Shares by which the means of the last few values, of the last many, and of the novelty move.
const FEW_GAIN: f64 = 0.3;
const MANY_GAIN: f64 = 0.062;
const NOVELTY_GAIN: f64 = 0.167;
/// What one value can add to those means, in usual distances from the middle.
const FURTHEST: f64 = 6.0;
/// About the usual novelty, so that sizes are near 1.
const USUAL: f64 = 3.0;

/// The contexts seen, and the one that the next value meets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Context {
    cells: [u16; CELLS],
    total: u32,
    few: Mean,
    many: Mean,
    novelty: Mean,
}

impl Context {
    pub(crate) fn new() -> Context {
        Context { cells: [0; CELLS], total: 0, few: Mean::new(), many: Mean::new(), novelty: Mean::new() }
    }

    /// How new the last contexts were, that of a value `off` usual distances from the middle included.
    pub(crate) fn novelty(&self, off: f64) -> f64 {
        (self.novelty.value + NOVELTY_GAIN * (self.rareness(off) - self.novelty.value)) / USUAL
    }

    /// Minus the natural logarithm of the share of values that met the context of one `off` from the middle.
    fn rareness(&self, off: f64) -> f64 {
        let visits = f64::from(self.cells[self.cell(off)]) + PRIOR / CELLS as f64;
        -(visits / (f64::from(self.total) + PRIOR)).ln()
    }

    fn cell(&self, off: f64) -> usize {
        (step_of(off) * STEPS + step_of(self.few.value)) * STEPS + step_of(self.many.value)
    }

    /// Learns a value `off` usual distances from the middle.
    pub(crate) fn learn(&mut self, off: f64) {
        self.novelty.learn(self.rareness(off), NOVELTY_GAIN);
        let cell = self.cell(off);
        self.cells[cell] += 1;
        self.total += 1;
        if self.total >= FULL {
            self.cells.iter_mut().for_each(|count| *count /= 2);
            self.total = self.cells.iter().map(|count| u32::from(*count)).sum();
        }
        let off = within(off, FURTHEST);
        self.few.learn(off, FEW_GAIN);
        self.many.learn(off, MANY_GAIN);
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        self.cells.iter().for_each(|count| writer.u16(*count));
        [&self.few, &self.many, &self.novelty].into_iter().for_each(|mean| mean.write(writer));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Context> {
        let mut read = Context::new();
        for count in &mut read.cells {
            *count = reader.u16()?;
        }
        read.total = read.cells.iter().map(|count| u32::from(*count)).sum();
        for mean in [&mut read.few, &mut read.many, &mut read.novelty] {
            *mean = Mean::read(reader)?;
        }
        (read.total < FULL).then_some(read)
    }
}

fn step_of(off: f64) -> usize {
    EDGES.iter().filter(|edge| off >= **edge).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_new_where_it_never_came_and_usual_where_it_does() {
        let mut context = Context::new();
        let wave = |at: u32| 2.0 * (f64::from(at) / 50.0 * std::f64::consts::TAU).sin();
        (0..5_000).for_each(|at| context.learn(wave(at)));
        let usual = context.novelty(wave(5_000));
        assert!(context.novelty(wave(5_025) - 1.9) > usual, "a trough where the wave rises from its middle");
        assert!(context.novelty(9.0) > 1.3 * usual);
        assert!((0..20_000).all(|at| {
            context.learn(wave(at));
            context.total < FULL && context.novelty(0.0).is_finite()
        }));
    }
}
