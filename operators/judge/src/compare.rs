//! One indicator of all releases in one window: what each leads the others to expect.
//!
//! Everything is on the logit scale. A release's *shift* is how far its share is from what its platform's season and its own
//! learned offset lead to expect. What the others' shifts have in common is their weighted median: weights are precisions
//! that saturate at what releases differ by anyway, so that a broken release that carries most of the traffic still has one
//! vote among several. With few others the common shift is drawn to none, the less so the larger it is.

use crate::evidence::drawn_shift;

/// A release's counts of the indicator in the window, and what its own past leads to expect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observation {
    pub(crate) member: usize,
    pub(crate) platform: usize,
    /// Effective counts.
    pub(crate) hits: f64,
    pub(crate) trials: f64,
    /// Effective hits that one user may have brought.
    pub(crate) one_user: f64,
    /// By season and offset, as logit and as share.
    pub(crate) logit: f64,
    pub(crate) expected: f64,
    /// Of the offset.
    pub(crate) offset_variance: f64,
    pub(crate) within: f64,
    pub(crate) shift: f64,
    /// Information of the counts about the logit, and the vote that it gives.
    pub(crate) information: f64,
    pub(crate) vote: f64,
    /// Known to be at fault, so that it leads nobody to expect anything.
    pub(crate) at_fault: bool,
}

impl Observation {
    /// Fills in what follows from counts and expectation.
    pub(crate) fn finish(mut self) -> Observation {
        let expected = self.expected.clamp(1e-6, 1.0 - 1e-6);
        self.shift = drawn_shift(self.hits, self.trials, expected);
        let unit = 1.0 / (expected * (1.0 - expected));
        let drawn = (self.hits + unit * expected) / (self.trials + unit);
        // At the drawn share less the unit that was put in; never less than at the expected one, which is where an
        // unmoved release stands.
        let at_drawn = (self.trials + unit) * drawn * (1.0 - drawn) - 1.0;
        self.information = at_drawn.max(self.trials * expected * (1.0 - expected));
        let spread = self.offset_variance + self.within;
        self.vote = self.information / (1.0 + self.information * spread);
        self
    }
}

/// What others have in common.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Common {
    pub(crate) shift: f64,
    /// How far off it may be: with `noise`, how the others happened to be counted in this window, which is another in the
    /// next one.
    pub(crate) variance: f64,
    pub(crate) noise: f64,
    /// Part that the counts decide, beside that nothing has moved.
    pub(crate) known: f64,
    /// Effective trials and hits behind it.
    pub(crate) trials: f64,
    pub(crate) hits: f64,
}

/// Orders observations by shift.
pub(crate) fn by_shift(observations: &[Observation]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..observations.len()).collect();
    order.sort_by(|&a, &b| observations[a].shift.total_cmp(&observations[b].shift));
    order
}

/// The common shift of those observations that `vote` gives a factor above 0 for. `prior` is the variance of common shifts.
pub(crate) fn common(
    observations: &[Observation],
    order: &[usize],
    prior: f64,
    vote: impl Fn(&Observation) -> f64,
) -> Common {
    let mut common = Common::default();
    let mut votes = 0.0;
    for observation in observations {
        let factor = vote(observation);
        if factor > 0.0 {
            votes += observation.vote * factor;
            common.trials += observation.trials;
            common.hits += observation.hits;
        }
    }
    if votes <= 0.0 {
        common.variance = prior;
        return common;
    }
    let median = median(observations, order, votes, &vote);
    let prior = prior.max(median * median);
    let precision = votes / 1.57;
    common.known = precision / (precision + 1.0 / prior);
    common.shift = median * common.known;
    common.variance = 1.0 / (precision + 1.0 / prior);
    common.noise = common.known * common.variance;
    common
}

/// The weighted median, the mean of the two in the middle where the votes are split evenly.
fn median(observations: &[Observation], order: &[usize], votes: f64, vote: impl Fn(&Observation) -> f64) -> f64 {
    let (mut below, mut lower) = (0.0, None);
    for &at in order {
        let observation = &observations[at];
        let factor = vote(observation).max(0.0);
        if factor == 0.0 {
            continue;
        }
        if let Some(lower) = lower {
            return 0.5 * (lower + observation.shift);
        }
        below += observation.vote * factor;
        if below > votes * (0.5 + 1e-9) {
            return observation.shift;
        }
        if below >= votes * (0.5 - 1e-9) {
            lower = Some(observation.shift);
        }
    }
    lower.unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::logit;

    fn release(member: usize, hits: f64, trials: f64) -> Observation {
        Observation {
            member,
            platform: 0,
            hits,
            trials,
            one_user: 1.0,
            logit: logit(0.05),
            expected: 0.05,
            offset_variance: 0.02,
            within: 0.01,
            shift: 0.0,
            information: 0.0,
            vote: 0.0,
            at_fault: false,
        }
        .finish()
    }

    fn others_of(all: &[Observation], without: usize) -> Common {
        common(all, &by_shift(all), 0.06, |o| if o.member == without { 0.0 } else { 1.0 })
    }

    #[test]
    fn one_broken_release_of_most_traffic_moves_nobodys_expectation() {
        let all = [
            release(0, 60_000.0, 100_000.0),
            release(1, 51.0, 1_000.0),
            release(2, 99.0, 2_000.0),
            release(3, 50.0, 1_000.0),
        ];
        assert!(others_of(&all, 1).shift.abs() < 0.2);
        assert!(others_of(&all, 0).shift.abs() < 0.2);
    }

    #[test]
    fn what_all_show_is_common() {
        let all = [release(0, 500.0, 1_000.0), release(1, 480.0, 1_000.0), release(2, 5.0, 10.0)];
        let common = others_of(&all, 2);
        assert!((common.shift - 2.9).abs() < 0.2, "{common:?}");
    }

    #[test]
    fn a_rare_indicator_in_all_releases_is_common_though_it_was_never_seen_before() {
        let mut all = [release(0, 500.0, 500.0), release(1, 450.0, 500.0)];
        for one in &mut all {
            one.expected = 0.001;
            one.logit = logit(0.001);
            *one = one.finish();
        }
        assert!(others_of(&all, 1).shift > 4.0);
    }
}
