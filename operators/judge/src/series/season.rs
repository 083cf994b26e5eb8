//! A season's shape: a mean for each of its slots, learnt once a visit.
//!
//! Several values may fall into one slot of one day. They are gathered and count as one visit when the next slot begins,
//! so that fine-grained series don't learn faster than the season turns.
//!
//! Invariant: means have the precision in which they are written, so that a profile and its bytes are the same.

use super::bytes::{Reader, Writer};

/// Visits are counted up to here.
const VISITS_MOST: u8 = 15;

/// A profile of `N` slots, whose means are the upper `BYTES` bytes of an `f32`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Profile<const N: usize, const BYTES: usize> {
    means: [f32; N],
    visits: [u8; N],
    open: u16,
    sum: f64,
    count: u32,
}

impl<const N: usize, const BYTES: usize> Profile<N, BYTES> {
    pub(crate) fn new() -> Profile<N, BYTES> {
        Profile { means: [0.0; N], visits: [0; N], open: 0, sum: 0.0, count: 0 }
    }

    /// The slot's mean, 0 before its first visit is over.
    pub(crate) fn mean(&self, slot: usize) -> f64 {
        f64::from(self.means[slot])
    }

    /// How often the slot was visited; stops counting at 15.
    pub(crate) fn visits(&self, slot: usize) -> u8 {
        self.visits[slot]
    }

    /// Gathers `value` for `slot`. When another slot was open, that visit is over and moves its slot's mean by a share of
    /// 1/n, no less than `gain_min`.
    pub(crate) fn learn(&mut self, slot: usize, value: f64, gain_min: f64) {
        let open = usize::from(self.open);
        if self.count > 0 && open != slot {
            let gain = (1.0 / (f64::from(self.visits[open]) + 1.0)).max(gain_min);
            let mean = f64::from(self.means[open]);
            self.means[open] = rounded::<BYTES>(mean + gain * (self.sum / f64::from(self.count) - mean));
            self.visits[open] = (self.visits[open] + 1).min(VISITS_MOST);
            self.sum = 0.0;
            self.count = 0;
        }
        self.open = slot as u16;
        self.sum += value;
        self.count = self.count.saturating_add(1);
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        self.means.iter().for_each(|mean| writer.bytes.extend_from_slice(&mean.to_be_bytes()[..BYTES]));
        for pair in self.visits.chunks(2) {
            writer.u8(pair[0] | pair.get(1).map_or(0, |second| second << 4));
        }
        writer.u16(self.open);
        writer.f64(self.sum);
        writer.u32(self.count);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Profile<N, BYTES>> {
        let mut profile = Profile::new();
        for mean in &mut profile.means {
            let mut bytes = [0; 4];
            bytes[..BYTES].copy_from_slice(&reader.take::<BYTES>()?);
            *mean = Some(f32::from_be_bytes(bytes)).filter(|mean| mean.is_finite())?;
        }
        for pair in profile.visits.chunks_mut(2) {
            let both = reader.u8()?;
            pair[0] = both & VISITS_MOST;
            pair.iter_mut().skip(1).for_each(|second| *second = both >> 4);
        }
        profile.open = reader.u16()?;
        profile.sum = reader.f64()?;
        profile.count = reader.u32()?;
        (usize::from(profile.open) < N).then_some(profile)
    }
}

/// `value` to the nearest number whose lower bytes are 0, as far as `f32` goes.
fn rounded<const BYTES: usize>(value: f64) -> f32 {
    let most = f64::from(f32::MAX) / 2.0;
    let bits = (value.clamp(-most, most) as f32).to_bits();
    let dropped = 8 * (4 - BYTES as u32);
    if dropped == 0 {
        return f32::from_bits(bits);
    }
    f32::from_bits((bits + (1 << (dropped - 1))) >> dropped << dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_of_many_values_counts_once() {
        let mut profile = Profile::<4, 3>::new();
        for round in 0..3 {
            for slot in 0..4 {
                for _ in 0..10 {
                    profile.learn(slot, f64::from(round) + slot as f64, 0.1);
                }
            }
        }
        assert_eq!((profile.visits(1), profile.visits(3)), (3, 2));
        assert!((profile.mean(1) - 2.0).abs() < 1e-4, "the mean of 1, 2 and 3: {}", profile.mean(1));
    }

    #[test]
    fn rounding_is_near_keeps_the_sign_and_drops_the_lower_bytes() {
        for value in [0.0, 1.0, -3.7, 1e-30, 7e29, -1e300, 0.1] {
            for (rounded, error) in [(rounded::<2>(value), 4e-3), (rounded::<3>(value), 2e-5)] {
                let most = f64::from(f32::MAX) / 2.0;
                let wanted = value.clamp(-most, most);
                assert!((f64::from(rounded) - wanted).abs() <= error * wanted.abs(), "{value} became {rounded}");
            }
            assert_eq!(rounded::<2>(value).to_bits() & 0xffff, 0);
        }
    }
}
