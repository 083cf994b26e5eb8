//! How much the counts of a series speak against "as expected": e-values, gathered over windows.
//!
//! **One segment.** Since a start, x of n were seen where two references led to expect shares: what the other releases show
//! in the same windows, shifted by this release's own learned offset on the logit scale (difference in differences), and
//! what this release's own past leads to expect. Under each null the true share is itself a random number, Beta around the
//! expected one, with the spread that was learned between releases and windows and never less than a floor; it stays the same through the
//! segment, so that a small lasting difference, which every release has, saturates instead of adding up. The alternative is
//! a mixture of wide betas. The ratio of the two marginal likelihoods (beta-binomial) is an e-value, at every moment of the
//! segment. A release is blamed only if it differs from the others *and* from its own past: the null is the union of both,
//! so that the lesser e-value counts. This is what keeps a campaign (all moved) and the victims of a comparison (an old
//! release beside a broken large one) from being blamed.
//!
//! **All windows.** A segment that speaks for the null (an e-value well below 1) ends, and the next window starts another. The
//! statistic is the sum of the open segment's e-value and of the newest window's alone. Starts are chosen by the past only,
//! so this is at most the Shiryaev-Roberts sum over all starts, an *e-detector*: without a fault, the mean time to a false
//! alarm is at least the threshold (Shin, Ramdas and Rinaldo, "E-detectors", New England Journal of Statistics in Data
//! Science 2024, arXiv 2203.03532, theorem 2.4).
//!
//! **All series.** The threshold is series x windows per week / budget: by Bonferroni over e-detectors, the expected number
//! of false alarms per patience is within the budget whatever the dependence between the series (Dandapanthula and Ramdas,
//! "Multiple testing in multi-stream sequential change detection", arXiv 2501.04130: e-d-Bonferroni for the per-family
//! error rate; e-BH of Wang and Ramdas 2022 would control a rate of false discoveries, which grows with the true ones, while a
//! person's patience is for a number of alerts). What it rests on: the betas are as wide as the truth (learned, with floors), and
//! windows are independent given the segment's share. Users that stay for many windows break the second; counts are
//! therefore divided by a design effect (as if all events of one user agreed), who happens to stay widens both nulls, half
//! of the evidence must stand without any one user of each window, and a person is told only of effects that matter. So the guarantee is one under a model; the
//! proof suite (`tests/it/shares`) measures the false alerts in a world that breaks it.

use crate::math::{ln_add, ln_beta, ln_marginal, logit, share_at};

/// Greatest and least prior weight of a reference, in trials: no reference is trusted like millions of independent
/// observations, and none is as vague as to forbid nothing.
const PRIOR_TRIALS: (f64, f64) = (1.0, 1e6);

/// How much more the evidence against the past counts: that null alone is true only where the others are wrong, beside a
/// fault of theirs, which is the case in one window of a hundred at most. So its threshold may be lower by ln 100, which is a
/// third of it.
const PAST_WEIGHT: f64 = 1.45;

/// Part of the users affected, at most, that are the same ones for about so many windows: with few users a share stays where
/// it happens to be for a while.
const STAY: f64 = 0.25;
const STAY_WINDOWS: f64 = 9.0;

/// The variance of a logit of so much information in a window by who happens to stay.
pub(crate) fn stay_variance(information: f64) -> f64 {
    STAY / information.max(1.0)
}

/// The counts of a series since a start, and what was expected of them. Counts are effective ones.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Segment {
    /// Number of the first window.
    pub(crate) start: u32,
    pub(crate) hits: f32,
    pub(crate) trials: f32,
    /// Hits expected by the other releases in the same windows.
    pub(crate) expected: f32,
    /// Hits expected by the series' own past.
    pub(crate) expected_by_past: f32,
    /// Sums of trials x variance of the logit that lasts, by reference.
    pub(crate) spread: f32,
    pub(crate) spread_by_past: f32,
    /// Sums of the square of trials x variance that is another in each window, and x variance of who happens to stay.
    pub(crate) noise: f32,
    pub(crate) stay: f32,
    /// Windows that were added.
    pub(crate) windows: u32,
}

/// One window's contribution to a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) hits: f64,
    pub(crate) trials: f64,
    /// Expected share by the others, and by the past.
    pub(crate) expected: f64,
    pub(crate) expected_by_past: f64,
    /// Variances of these on the logit scale; `noise` is the part of the former that is another in each window.
    pub(crate) variance: f64,
    pub(crate) noise: f64,
    pub(crate) variance_by_past: f64,
    /// Variance beside both by who happens to stay from window to window.
    pub(crate) stay: f64,
}

impl Seen {
    /// Counts of several platforms, or types, as one. Deviations add up as though all were off in the same direction, each
    /// by what its own share makes of it: a type in which every event is null leaves nothing open.
    pub(crate) fn sum<'s>(parts: impl Iterator<Item = &'s Seen> + Clone) -> Seen {
        let trials: f64 = parts.clone().map(|part| part.trials).sum();
        let mean = |of: fn(&Seen) -> f64| {
            parts.clone().map(|part| of(part) * part.trials).sum::<f64>() / trials.max(f64::MIN_POSITIVE)
        };
        let slope = |share: f64| share * (1.0 - share);
        let on_logit = |deviation: f64, share: f64| (deviation / slope(share).max(1e-9)).powi(2);
        let (expected, expected_by_past) = (mean(|part| part.expected), mean(|part| part.expected_by_past));
        let of = |part: &Seen| part.trials * slope(part.expected) * (part.variance - part.noise).max(0.0).sqrt();
        let deviation = parts.clone().map(of).sum::<f64>() / trials.max(f64::MIN_POSITIVE);
        let squares = |part: &Seen| (part.trials * slope(part.expected)).powi(2) * part.noise;
        let noise = parts.clone().map(squares).sum::<f64>().sqrt() / trials.max(f64::MIN_POSITIVE);
        let noise = on_logit(noise, expected);
        let by_past = mean(|part| part.expected_by_past * (1.0 - part.expected_by_past) * part.variance_by_past.sqrt());
        Seen {
            hits: parts.clone().map(|part| part.hits).sum(),
            trials,
            expected,
            expected_by_past,
            variance: on_logit(deviation, expected) + noise,
            noise,
            variance_by_past: on_logit(by_past, expected_by_past),
            stay: match parts.clone().any(|part| part.stay > 0.0) {
                true => stay_variance(trials * slope(expected_by_past)),
                false => 0.0,
            },
        }
    }
}

impl Segment {
    pub(crate) fn is_empty(&self) -> bool {
        self.trials <= 0.0
    }

    pub(crate) fn add(&mut self, window: u32, seen: &Seen) {
        if self.is_empty() {
            self.start = window;
        }
        self.hits += seen.hits as f32;
        self.trials += seen.trials as f32;
        self.expected += (seen.trials * seen.expected) as f32;
        self.expected_by_past += (seen.trials * seen.expected_by_past) as f32;
        self.spread += (seen.trials * (seen.variance - seen.noise)) as f32;
        self.noise += (seen.trials * seen.trials * seen.noise) as f32;
        self.stay += (seen.trials * seen.trials * seen.stay) as f32;
        self.windows += 1;
        self.spread_by_past += (seen.trials * seen.variance_by_past) as f32;
    }

    /// Logarithm of the e-value against the union of both nulls.
    pub(crate) fn ln_e(&self) -> f64 {
        if self.is_empty() {
            return 0.0;
        }
        let trials = f64::from(self.trials);
        let at = |expected: f32, variance: f64| {
            ln_e_value(f64::from(self.hits), trials, f64::from(expected) / trials, variance)
        };
        let stay = f64::from(self.stay) / trials * f64::from(self.windows).min(STAY_WINDOWS);
        let by_past = at(self.expected_by_past, (f64::from(self.spread_by_past) + stay) / trials);
        let variance = (f64::from(self.spread) + stay + f64::from(self.noise) / trials) / trials;
        // The lesser of the two counts; from nothing on, how much less doesn't matter.
        if by_past <= 0.0 { by_past } else { (PAST_WEIGHT * by_past).min(at(self.expected, variance)) }
    }

    /// The segment without so many hits, as though the events of one user in each window hadn't been there.
    pub(crate) fn without(&self, hits: f32) -> Segment {
        let rest = 1.0 - (hits / self.trials.max(f32::MIN_POSITIVE)).min(1.0);
        Segment {
            start: self.start,
            hits: (self.hits - hits).max(0.0),
            trials: self.trials * rest,
            expected: self.expected * rest,
            expected_by_past: self.expected_by_past * rest,
            spread: self.spread * rest,
            spread_by_past: self.spread_by_past * rest,
            noise: self.noise * rest * rest,
            stay: self.stay * rest * rest,
            windows: self.windows,
        }
    }

    /// Share seen and share expected, and how far apart they are on the logit scale. The seen share is drawn towards the
    /// expected one by one unit of information, so that 0 of n says no more than it knows.
    pub(crate) fn effect(&self) -> Effect {
        let trials = f64::from(self.trials).max(f64::MIN_POSITIVE);
        let expected = f64::from(self.expected) / trials;
        let by_past = f64::from(self.expected_by_past) / trials;
        let seen = f64::from(self.hits) / trials;
        let shift = drawn_shift(f64::from(self.hits), trials, expected);
        let shift_by_past = drawn_shift(f64::from(self.hits), trials, by_past);
        // The lesser of the two shifts, as with the e-value; none if the references disagree on the direction.
        let lesser = if shift.abs() < shift_by_past.abs() { shift } else { shift_by_past };
        let shift = if shift.signum() == shift_by_past.signum() { lesser } else { 0.0 };
        let nearer = if (seen - expected).abs() < (seen - by_past).abs() { expected } else { by_past };
        Effect { seen, expected: nearer, shift }
    }
}

/// What a segment shows against what was expected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effect {
    pub(crate) seen: f64,
    /// The reference that is nearer to what was seen.
    pub(crate) expected: f64,
    /// On the logit scale, with its sign.
    pub(crate) shift: f64,
}

/// How far hits of trials are from an expected share on the logit scale, with one unit of information for the expected one.
pub(crate) fn drawn_shift(hits: f64, trials: f64, expected: f64) -> f64 {
    let expected = expected.clamp(1e-6, 1.0 - 1e-6);
    let unit = 1.0 / (expected * (1.0 - expected));
    logit((hits + unit * expected) / (trials + unit)) - logit(expected)
}

/// Logarithm of the e-value of `hits` of `trials` against a share expected at `expected` with `variance` on the logit scale.
pub(crate) fn ln_e_value(hits: f64, trials: f64, expected: f64, variance: f64) -> f64 {
    let hits = hits.clamp(0.0, trials);
    let misses = trials - hits;
    let (a, b) = beta_around(expected, variance);
    let null = ln_marginal(hits, misses, a, b);
    let centre = logit(expected.clamp(1e-6, 1.0 - 1e-6));
    // Beta(1/2, 1/2) of Jeffreys; the beta function is pi there.
    let mut alternative = ln_beta(hits + 0.5, misses + 0.5) - std::f64::consts::PI.ln();
    for (shift, spread) in [(1.2, 0.3), (-1.2, 0.3), (3.0, 1.5), (-8.0, 0.3)] {
        let (a, b) = beta_around(share_at(centre + shift), spread);
        alternative = ln_add(alternative, ln_marginal(hits, misses, a, b));
    }
    alternative - 5.0f64.ln() - null
}

/// Logarithm of how much better one reference (share, variance of its logit) explains the counts than another.
pub(crate) fn ln_ratio(hits: f64, trials: f64, better: (f64, f64), than: (f64, f64)) -> f64 {
    let hits = hits.clamp(0.0, trials);
    let of = |(share, variance): (f64, f64)| {
        let (a, b) = beta_around(share, variance);
        ln_marginal(hits, trials - hits, a, b)
    };
    of(better) - of(than)
}

/// The beta with a given mean whose logit has about the given variance (delta method).
fn beta_around(mean: f64, variance: f64) -> (f64, f64) {
    let mean = mean.clamp(1e-6, 1.0 - 1e-6);
    let trials = (1.0 / (variance.max(1e-9) * mean * (1.0 - mean))).clamp(PRIOR_TRIALS.0, PRIOR_TRIALS.1);
    (mean * trials, (1.0 - mean) * trials)
}

/// Adds a window to the segment; returns the logarithm of its e-value and that of the e-detector's statistic, which adds
/// the e-value of this window alone (where that can be more than nothing).
///
/// Which segment goes on is chosen after the window: if the window alone says more than the whole, the next starts here.
pub(crate) fn observe(segment: &mut Segment, window: u32, seen: &Seen) -> (f64, f64) {
    let mut alone = Segment::default();
    alone.add(window, seen);
    if segment.is_empty() {
        *segment = alone;
        let newest = alone.ln_e();
        return (newest, newest);
    }
    segment.add(window, seen);
    let whole = segment.ln_e();
    if is_within(seen, 1.5) {
        return (whole, whole);
    }
    let newest = alone.ln_e();
    if newest > whole {
        *segment = alone;
    }
    (whole.max(newest), ln_add(whole, newest))
}

/// Whether the counts are within so many standard deviations of either reference.
pub(crate) fn is_within(seen: &Seen, deviations: f64) -> bool {
    let near = |expected: f64, variance: f64| {
        let information = seen.trials * expected * (1.0 - expected);
        let off = seen.hits - seen.trials * expected;
        off * off < deviations * deviations * information * (1.0 + information * variance)
    };
    near(seen.expected, seen.variance + seen.stay) || near(seen.expected_by_past, seen.variance_by_past + seen.stay)
}

/// The logarithm of the threshold that keeps the expected number of false alarms of a tenant within a budget per week.
pub(crate) fn ln_threshold(series: u64, windows_per_week: f64, false_alarms_per_week: f64) -> f64 {
    (series.max(1) as f64 * windows_per_week / false_alarms_per_week.max(1e-9)).ln().max(3.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws a share from the null's beta by inverse of a fine grid, then binomial hits.
    fn null_hits(random: &mut fastrand::Rng, trials: u32, mean: f64, variance: f64) -> f64 {
        let (a, b) = beta_around(mean, variance);
        let gamma = |random: &mut fastrand::Rng, shape: f64| {
            // Sum of exponentials for the whole part is enough for shapes well above 1; boosted below.
            let (mut shape, mut boost) = (shape, 1.0);
            if shape < 1.0 {
                boost = random.f64().powf(1.0 / shape);
                shape += 1.0;
            }
            let (d, mut value) = (shape - 1.0 / 3.0, 0.0);
            while value == 0.0 {
                let normal =
                    (-2.0 * random.f64().max(1e-300).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos();
                let cube = (1.0 + normal / (9.0 * d).sqrt()).powi(3);
                if cube > 0.0 && random.f64().ln() < 0.5 * normal * normal + d - d * cube + d * cube.ln() {
                    value = d * cube;
                }
            }
            value * boost
        };
        let (x, y) = (gamma(random, a), gamma(random, b));
        let share = x / (x + y);
        (0..trials).filter(|_| random.f64() < share).count() as f64
    }

    #[test]
    fn the_mean_e_value_under_the_null_is_at_most_one() {
        let mut random = fastrand::Rng::with_seed(7);
        for (trials, mean, variance) in [(20, 0.3, 0.1), (500, 0.02, 0.09), (2_000, 0.5, 0.02), (200, 0.001, 0.2)] {
            let runs = 20_000;
            let total: f64 = (0..runs)
                .map(|_| {
                    let hits = null_hits(&mut random, trials, mean, variance);
                    // An e-value is heavy-tailed; cut where one value would carry the mean.
                    ln_e_value(hits, f64::from(trials), mean, variance).exp().min(1e3)
                })
                .sum();
            let mean_e = total / f64::from(runs);
            assert!(mean_e < 1.1, "{trials} {mean} {variance}: {mean_e}");
        }
    }

    #[test]
    fn a_dropped_field_is_certain_within_a_handful_of_events() {
        assert!(ln_e_value(8.0, 8.0, 0.01, 0.1) > 15.0);
        assert!(ln_e_value(0.0, 8.0, 0.01, 0.1) < 0.0);
    }

    #[test]
    fn a_small_lasting_difference_saturates() {
        // One and a half standard deviations off, seen ever more precisely: never an alarm.
        let share = share_at(logit(0.1) + 1.5 * 0.3);
        for trials in [1e3, 1e5, 1e6] {
            assert!(ln_e_value(trials * share, trials, 0.1, 0.09) < 4.0, "{trials}");
        }
    }

    #[test]
    fn little_data_gathers_over_windows() {
        let mut segment = Segment::default();
        let seen = Seen {
            hits: 0.6,
            trials: 4.0,
            expected: 0.01,
            expected_by_past: 0.01,
            variance: 0.1,
            noise: 0.0,
            stay: 0.0,
            variance_by_past: 0.1,
        };
        let (_, first) = observe(&mut segment, 10, &seen);
        let mut last = first;
        for window in 11..60 {
            (_, last) = observe(&mut segment, window, &seen);
        }
        assert!(first < 3.0 && last > 20.0, "{first} {last}");
        assert_eq!(segment.start, 10);
    }

    #[test]
    fn who_moved_against_the_others_but_not_against_its_past_is_not_blamed() {
        let seen = Seen {
            hits: 10.0,
            trials: 1000.0,
            expected: 0.6,
            expected_by_past: 0.01,
            variance: 0.1,
            noise: 0.0,
            stay: 0.0,
            variance_by_past: 0.1,
        };
        assert!(observe(&mut Segment::default(), 1, &seen).1 < 0.0);
    }
}
