//! A season's shape: a mean for each of its slots, learnt once a visit.
//!
//! Several values may fall into one slot of one day. They are gathered and count as one visit when the next slot begins,
//! so that fine-grained series don't learn faster than the season turns.

use super::bytes::{Reader, Writer};

/// A profile of `N` slots.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Profile<const N: usize> {
    means: [f32; N],
    visits: [u8; N],
    open: u32,
    sum: f64,
    count: u32,
}

impl<const N: usize> Profile<N> {
    pub(crate) fn new() -> Profile<N> {
        Profile { means: [0.0; N], visits: [0; N], open: 0, sum: 0.0, count: 0 }
    }

    /// The slot's mean, 0 before its first visit is over.
    pub(crate) fn mean(&self, slot: usize) -> f64 {
        f64::from(self.means[slot])
    }

    /// How often the slot was visited; stops counting at 255.
    pub(crate) fn visits(&self, slot: usize) -> u8 {
        self.visits[slot]
    }

    /// Gathers `value` for `slot`. When another slot was open, that visit is over and moves its slot's mean by a share of
    /// 1/n, no less than `gain_min`.
    pub(crate) fn learn(&mut self, slot: usize, value: f64, gain_min: f64) {
        if self.count > 0 && self.open as usize != slot {
            let open = self.open as usize;
            let gain = (1.0 / (f64::from(self.visits[open]) + 1.0)).max(gain_min);
            let mean = f64::from(self.means[open]);
            self.means[open] = (mean + gain * (self.sum / f64::from(self.count) - mean)) as f32;
            self.visits[open] = self.visits[open].saturating_add(1);
            self.sum = 0.0;
            self.count = 0;
        }
        self.open = slot as u32;
        self.sum += value;
        self.count = self.count.saturating_add(1);
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        self.means.iter().for_each(|mean| writer.f32(*mean));
        self.visits.iter().for_each(|visits| writer.u8(*visits));
        writer.u32(self.open);
        writer.f64(self.sum);
        writer.u32(self.count);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Profile<N>> {
        let mut profile = Profile::new();
        for mean in &mut profile.means {
            *mean = reader.f32()?;
        }
        for visits in &mut profile.visits {
            *visits = reader.u8()?;
        }
        profile.open = reader.u32()?;
        profile.sum = reader.f64()?;
        profile.count = reader.u32()?;
        ((profile.open as usize) < N).then_some(profile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_of_many_values_counts_once() {
        let mut profile = Profile::<4>::new();
        for round in 0..3 {
            for slot in 0..4 {
                for _ in 0..10 {
                    profile.learn(slot, f64::from(round) + slot as f64, 0.1);
                }
            }
        }
        assert_eq!((profile.visits(1), profile.visits(3)), (3, 2));
        assert!((profile.mean(1) - 2.0).abs() < 1e-6, "the mean of 1, 2 and 3");
    }
}
