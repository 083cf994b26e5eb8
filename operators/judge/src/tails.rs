//! How rare a size is among the sizes that came before it.
//!
//! A [`Tail`] is a histogram of sizes on a logarithmic scale that forgets slowly. Within what was seen it answers with the
//! share seen; beyond that it goes on with a Pareto tail whose index is Hill's estimate from the largest few per cent
//! (Hill 1975), so that a size that never came still has a rarity, and a series with wild swings needs a wilder one.
//! The peaks-over-threshold idea is that of SPOT (Siffer et al. 2017), with the estimate that needs no iteration.
//!
//! Invariants: 84 bytes whatever is learnt; counts never overflow (all are halved first); the same sizes in the same order
//! give the same answers.

use crate::series::bytes::{Reader, Writer};

/// Buckets of a [`Tail`].
const BUCKETS: usize = 40;
/// Buckets per doubling of the size.
const PER_OCTAVE: f64 = 2.5;
/// Binary logarithm of the lower edge of the first bucket.
const LOWEST: f64 = -4.0;
/// What one ordinary observation counts; less is possible for doubtful ones.
pub(crate) const WHOLE: u16 = 8;
/// Where all counts are halved: about 6,000 observations.
const FULL: u32 = 48_000;
/// What the prior counts: 20 observations.
const PRIOR: f64 = 160.0;
/// The share of the largest sizes that the Pareto tail is fitted to.
const TAIL_SHARE: f64 = 0.03;
/// The prior of Hill's estimate, and how many observations it counts.
const HILL_PRIOR: f64 = 0.25;
/// No single size counts for more in Hill's estimate than this logarithm of its excess.
const EXCESS_MOST: f64 = 1.5;
const HILL_PRIOR_WEIGHT: f64 = 6.0 * 8.0;

/// A forgetting histogram of sizes with a Pareto tail.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tail {
    counts: [u16; BUCKETS],
    total: u32,
}

impl Tail {
    /// A tail that has seen nothing: sizes in units of their mean, a little heavier than exponential.
    pub(crate) fn new() -> Tail {
        let mut counts = [0_u16; BUCKETS];
        let mut total = 0;
        for (bucket, count) in counts.iter_mut().enumerate() {
            let share = prior_beyond(edge(bucket)) - prior_beyond(edge(bucket + 1));
            *count = (share * PRIOR).round() as u16;
            total += u32::from(*count);
        }
        Tail { counts, total }
    }

    /// The rarity of `size`: minus the decimal logarithm of the share of sizes at least as large; never negative.
    pub(crate) fn rarity(&self, size: f64) -> f64 {
        if size.is_nan() || size <= edge(0) {
            return 0.0;
        }
        let whole = f64::from(self.total) + 1.0;
        let (threshold, beyond) = self.threshold();
        if size < edge(threshold) {
            return -(self.beyond(size) / whole).log10();
        }
        let log_excess = (size.min(1e30) / edge(threshold)).ln();
        let index = self.hill(threshold, beyond);
        -(beyond / whole).log10() + log_excess / index * std::f64::consts::LOG10_E
    }

    /// The size that the share `beyond` of all sizes exceeds.
    pub(crate) fn exceeded_by(&self, share: f64) -> f64 {
        let (threshold, beyond) = self.threshold();
        let whole = f64::from(self.total) + 1.0;
        if share * whole < beyond {
            let index = self.hill(threshold, beyond);
            return edge(threshold) * (beyond / (share * whole)).powf(index);
        }
        let mut left = share * whole;
        for bucket in (0..BUCKETS).rev() {
            let count = f64::from(self.counts[bucket]);
            if count >= left {
                return edge(bucket + 1) * (edge(bucket) / edge(bucket + 1)).powf(left / count);
            }
            left -= count;
        }
        edge(0)
    }

    /// Learns `size`, counted with `weight` ([`WHOLE`] for an ordinary one).
    pub(crate) fn learn(&mut self, size: f64, weight: u16) {
        let bucket = bucket_of(size);
        self.counts[bucket] = self.counts[bucket].saturating_add(weight);
        self.total += u32::from(weight);
        if self.total >= FULL {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().map(|count| u32::from(*count)).sum();
        }
    }

    /// The first bucket of the tail, and what it and all above it count.
    fn threshold(&self) -> (usize, f64) {
        let wanted = TAIL_SHARE * f64::from(self.total);
        let mut beyond = 0.0;
        for bucket in (1..BUCKETS).rev() {
            beyond += f64::from(self.counts[bucket]);
            if beyond >= wanted {
                return (bucket, beyond.max(0.5));
            }
        }
        (0, f64::from(self.total).max(0.5))
    }

    /// Hill's estimate over the buckets from `threshold` on: the mean logarithm of the excess, drawn towards its prior.
    fn hill(&self, threshold: usize, beyond: f64) -> f64 {
        let per_bucket = std::f64::consts::LN_2 / PER_OCTAVE;
        let excess: f64 = (threshold..BUCKETS)
            .map(|bucket| {
                f64::from(self.counts[bucket]) * (((bucket - threshold) as f64 + 0.5) * per_bucket).min(EXCESS_MOST)
            })
            .sum();
        (excess + HILL_PRIOR * HILL_PRIOR_WEIGHT) / (beyond + HILL_PRIOR_WEIGHT)
    }

    /// What is at least `size`, for a size below the tail.
    fn beyond(&self, size: f64) -> f64 {
        let bucket = bucket_of(size);
        let above: f64 = self.counts[bucket + 1..].iter().map(|count| f64::from(*count)).sum();
        let within = (edge(bucket + 1) / size).log2() * PER_OCTAVE;
        above + f64::from(self.counts[bucket]) * within.clamp(0.0, 1.0) + 1.0
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        self.counts.iter().for_each(|count| writer.u16(*count));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Tail> {
        let mut counts = [0; BUCKETS];
        for count in &mut counts {
            *count = reader.u16()?;
        }
        let total = counts.iter().map(|count| u32::from(*count)).sum();
        (total < FULL + u32::from(WHOLE)).then_some(Tail { counts, total })
    }
}

/// The share of sizes beyond `size` before anything is known.
fn prior_beyond(size: f64) -> f64 {
    (1.0 + size / 4.0).powi(-5)
}

/// The lower edge of a bucket.
fn edge(bucket: usize) -> f64 {
    ((bucket as f64) / PER_OCTAVE + LOWEST).exp2()
}

fn bucket_of(size: f64) -> usize {
    let at = (size.log2() - LOWEST) * PER_OCTAVE;
    // A cast of a float saturates: what is below the first edge, or not a number, becomes 0.
    (at as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rarity_follows_the_distribution_learnt_and_goes_on_beyond_it() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut tail = Tail::new();
        for _ in 0..5_000 {
            tail.learn(-random.f64().ln(), WHOLE);
        }
        for (size, expected) in [(1.0, 0.434), (2.0, 0.869), (4.0, 1.737), (7.0, 3.04)] {
            let rarity = tail.rarity(size);
            assert!((rarity - expected).abs() < 0.25 * expected, "{size}: {rarity} for {expected}");
        }
        assert!(tail.rarity(100.0) > tail.rarity(20.0));
        let size = tail.exceeded_by(0.01);
        assert!((size - 100_f64.ln()).abs() < 0.6, "{size}");
    }

    #[test]
    fn rarity_never_falls_as_the_size_grows() {
        let mut random = fastrand::Rng::with_seed(2);
        let mut tail = Tail::new();
        for learnt in 0..300 {
            let sizes: Vec<f64> = (0..120).map(|at| (f64::from(at) / 5.0 - 6.0).exp2()).collect();
            for pair in sizes.windows(2) {
                assert!(tail.rarity(pair[1]) >= tail.rarity(pair[0]) - 1e-9, "{pair:?} after {learnt}");
            }
            tail.learn(random.f64().powi(-2), WHOLE);
        }
    }

    #[test]
    fn nothing_overflows_and_odd_sizes_are_taken() {
        let mut tail = Tail::new();
        for _ in 0..100_000 {
            tail.learn(f64::MAX, u16::MAX / 4);
            tail.learn(f64::INFINITY, WHOLE);
            tail.learn(f64::NAN, WHOLE);
            tail.learn(0.0, WHOLE);
        }
        assert!(tail.rarity(f64::INFINITY).is_finite());
        assert!(tail.rarity(f64::NAN) == 0.0);
    }
}
