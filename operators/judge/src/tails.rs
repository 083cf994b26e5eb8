//! How rare a size is among the sizes that came before it.
//!
//! A [`Tail`] is a histogram of sizes on a logarithmic scale that forgets slowly. Within what was seen often it answers
//! with the share seen. Beyond the last few it goes on as a stretched exponential (Weibull) tail, whose exponent is the
//! lesser of two measured between upper quantiles, so that a size that never came has a rarity, and a series with wild
//! swings needs a wilder one. The idea of going on beyond a high quantile is that of SPOT (Siffer et al. 2017); the
//! quantiles need no iteration, and bodies lighter than exponential keep their light tails.
//!
//! Invariants: 80 bytes whatever is learnt; counts never overflow (all are halved first); the same sizes in the same order
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
/// What so many observations were beyond is the tail: 6 observations.
const FEW: f64 = 48.0;
/// No rarity is greater.
const MOST: f64 = 99.0;

/// Between these lies the tail's exponent: 1 is exponential, 2 that of a normal distribution. Where little is known, the
/// most is less.
const EXPONENT_LEAST: f64 = 0.2;
const EXPONENT_MOST: f64 = 1.8;
const EXPONENT_MOST_AT_FIRST: f64 = 0.7;

/// A forgetting histogram of sizes with a tail beyond.
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
        let few = FEW / whole;
        if size < edge(BUCKETS - 1) {
            let share = (self.beyond(size) / whole).min(1.0);
            if share > few {
                return -share.log10();
            }
        }
        let (anchor, depth, exponent) = self.tail(few);
        (depth * (size.min(1e30) / anchor).max(1.0).powf(exponent) * std::f64::consts::LOG10_E).min(MOST)
    }

    /// The size that the share `beyond` of all sizes exceeds.
    pub(crate) fn exceeded_by(&self, share: f64) -> f64 {
        let whole = f64::from(self.total) + 1.0;
        let few = FEW / whole;
        if share >= few {
            return self.quantile(share);
        }
        let (anchor, depth, exponent) = self.tail(few);
        anchor * (-share.ln() / depth).max(1.0).powf(1.0 / exponent)
    }

    /// Where the tail begins, minus the natural logarithm of the share beyond, and the exponent with which that grows.
    fn tail(&self, few: f64) -> (f64, f64, f64) {
        let anchors = [0.1, (0.1 * few).sqrt().min(0.03), few].map(|share: f64| share.max(few));
        let points = anchors.map(|share| (self.quantile(share), -share.ln()));
        let exponent = |from: (f64, f64), to: (f64, f64)| {
            let is_apart = to.1 > from.1 && to.0 > from.0;
            if is_apart { (to.1 / from.1).ln() / (to.0 / from.0).ln() } else { EXPONENT_MOST }
        };
        let least = exponent(points[0], points[1]).min(exponent(points[1], points[2]));
        let most = if few > 0.03 { EXPONENT_MOST_AT_FIRST } else { EXPONENT_MOST };
        (points[2].0, points[2].1, least.clamp(EXPONENT_LEAST, most))
    }

    /// The size that the share `beyond` of all sizes exceeds, among those seen.
    fn quantile(&self, share: f64) -> f64 {
        let mut left = share * (f64::from(self.total) + 1.0);
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

    /// What is at least `size`, for a size below the tail.
    fn beyond(&self, size: f64) -> f64 {
        let bucket = bucket_of(size);
        let above: f64 = self.counts[bucket + 1..].iter().map(|count| f64::from(*count)).sum();
        let within = (edge(bucket + 1) / size).log2() * PER_OCTAVE;
        above + f64::from(self.counts[bucket]) * within.clamp(0.0, 1.0)
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
