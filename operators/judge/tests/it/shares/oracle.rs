//! What could be known of an incident at best: the evidence of an *oracle* that is told beforehand what goes wrong, from when
//! to when, for whom and by how much, and that has to tell it from nothing within the judge's budget of false alarms.
//!
//! The oracle knows the usual share of every hour as the world draws it, but for what no detector can know: by how much this
//! release differs from the others (a new one hasn't been seen before; of all releases of a tenant there are no others, so
//! that a campaign's effect stands there), and which users happen to be about. These are a normal deviation of the share's
//! logit, with the very numbers that the world draws them by. Its evidence is the logarithm of the likelihood ratio of the
//! incident against nothing, both beta-binomial with that deviation, at the counts that the incident leads to expect, of the
//! one symptom that says most. It counts users, not events: what one device sends says no more than one observation.
//!
//! Of this the *stated minimum size* is made ([`Evidence::is_enough`]), which is fixed before any judging:
//! - The evidence is [`FACTOR`] times the logarithm of the threshold that the budget asks for. The oracle itself finds an
//!   incident of expected evidence m with probability 0.99 if m less 2.33 of its deviations, which are about sqrt(2 m), is
//!   the threshold: at 14.5 nats, that is 33, a factor of 2.3. What remains of the factor, some ten nats, is for not knowing
//!   kind, size, release and beginning.
//! - Half of that is left if one affected user of every hour is taken away: windows don't tell whether the users of different
//!   hours are one device.
//! - A person wants to know: the effect is a quarter above what the settings state to be worth telling, and twice as many
//!   users as stated there are affected.
//!
//! So no incident is asked for that can't be found, none is left out for what the judge finds hard, and the size isn't made of
//! the judge's own evidence. Recall by the ratio of evidence to threshold is printed for all incidents, those below it too.

use std::collections::BTreeMap;

use weir_judge::settings::{Effects, Settings};
use weir_judge::tally::Family;

/// How many times the threshold the oracle's evidence must be.
pub(crate) const FACTOR: f64 = 3.0;
/// Part of it that must be left without one affected user of every hour.
const WITHOUT_ONE: f64 = 0.5;
const EFFECT_MARGIN: f64 = 1.25;
const USERS_MARGIN: f64 = 2.0;
/// Share that is expected of what was never seen.
pub(crate) const NEVER_SEEN: f64 = 1e-3;
/// Hours for which the same users stay: (1 + memory) / (1 - memory) of the world's noise of a release.
const USERS_STAY_HOURS: f64 = 9.0;

/// What one symptom of an incident shows in one hour: users, the usual share and that of the incident.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    pub(crate) family: Family,
    /// Tells the symptoms of an incident apart.
    pub(crate) symptom: u64,
    pub(crate) users: f64,
    pub(crate) usual: f64,
    pub(crate) share: f64,
    /// Variance of the logit that nobody can know.
    pub(crate) open: f64,
    /// Whether the same users stay, which moves the share for hours.
    pub(crate) users_stay: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Hour {
    users: f64,
    usual: f64,
    share: f64,
    open: f64,
}

#[derive(Clone, Debug)]
struct Symptom {
    family: Family,
    users_stay: bool,
    hours: BTreeMap<u32, Hour>,
}

/// All that an incident showed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    symptoms: BTreeMap<u64, Symptom>,
}

/// What a symptom comes to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    pub(crate) nats: f64,
    pub(crate) nats_without_one: f64,
    pub(crate) users: f64,
    pub(crate) usual: f64,
    pub(crate) share: f64,
    pub(crate) open: f64,
    is_worth_telling: bool,
}

impl Evidence {
    pub(crate) fn add(&mut self, hour: u32, shown: Shown) {
        let symptom = self.symptoms.entry(shown.symptom).or_insert_with(|| Symptom {
            family: shown.family,
            users_stay: shown.users_stay,
            hours: BTreeMap::new(),
        });
        let hour = symptom.hours.entry(hour).or_default();
        hour.users += shown.users;
        hour.usual += shown.users * shown.usual;
        hour.share += shown.users * shown.share;
        hour.open += shown.users * shown.open;
    }

    /// The symptom that says most; of all that are worth telling, if any is.
    pub(crate) fn best(&self, of_all: bool, settings: &Settings) -> Known {
        let effects = if of_all { &settings.platform } else { &settings.release };
        let known = self.symptoms.values().map(|symptom| symptom.known(effects));
        known
            .max_by(|a, b| a.is_worth_telling.cmp(&b.is_worth_telling).then(a.nats.total_cmp(&b.nats)))
            .unwrap_or_default()
    }
}

impl Known {
    /// Whether the incident has the stated minimum size: see the module.
    pub(crate) fn is_enough(&self, ln_threshold: f64, settings: &Settings) -> bool {
        self.is_worth_telling
            && self.users >= USERS_MARGIN * settings.users_min
            && self.nats >= FACTOR * ln_threshold
            && self.nats_without_one >= WITHOUT_ONE * FACTOR * ln_threshold
    }
}

impl Symptom {
    fn known(&self, effects: &Effects) -> Known {
        let sum = |of: fn(&Hour) -> f64| self.hours.values().map(of).sum::<f64>();
        let users = sum(|hour| hour.users).max(1e-9);
        let (usual, share) = (sum(|hour| hour.usual) / users, sum(|hour| hour.share) / users);
        let hours = self.hours.len().max(1) as f64;
        let mut open = sum(|hour| hour.open) / users;
        if self.users_stay {
            let of_an_hour = (0.25 / (users / hours * usual * (1.0 - usual)).max(1e-9)).min(0.25);
            open += of_an_hour * (USERS_STAY_HOURS / hours).min(1.0);
        }
        let hits = users * share;
        // Where a share falls there is nobody whose events could be taken away.
        let one = if share > usual { self.hours.values().map(|hour| hour.share.min(1.0)).sum() } else { 0.0 };
        let nats = ln_ratio(hits, users, usual, share, open);
        let nats_without_one = ln_ratio(hits - one, users - one, usual, share, open);
        let (shift, difference) = ((logit(share) - logit(usual)).abs(), (share - usual).abs());
        let matters = |&(least_shift, least): &(f64, f64)| {
            shift >= EFFECT_MARGIN * least_shift && difference >= EFFECT_MARGIN * least
        };
        let is_worth_telling = effects.of(self.family).iter().any(matters);
        Known { nats, nats_without_one, users: users * (share - usual).abs(), usual, share, open, is_worth_telling }
    }
}

/// Logarithm of how much better `share` explains the hits than `usual`, both with a deviation of the logit.
fn ln_ratio(hits: f64, trials: f64, usual: f64, share: f64, variance: f64) -> f64 {
    let hits = hits.clamp(0.0, trials.max(0.0));
    let misses = (trials - hits).max(0.0);
    let of = |mean: f64| {
        let mean = mean.clamp(1e-6, 1.0 - 1e-6);
        let weight = (1.0 / (variance.max(1e-6) * mean * (1.0 - mean))).clamp(1.0, 1e6);
        let (a, b) = (mean * weight, (1.0 - mean) * weight);
        ln_beta(a + hits, b + misses) - ln_beta(a, b)
    };
    of(share) - of(usual)
}

pub(crate) fn logit(share: f64) -> f64 {
    let share = share.clamp(1e-6, 1.0 - 1e-6);
    (share / (1.0 - share)).ln()
}

fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// Stirling's series, small arguments shifted up.
fn ln_gamma(mut x: f64) -> f64 {
    let mut shift = 0.0;
    while x < 10.0 {
        shift += x.ln();
        x += 1.0;
    }
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) - shift
}

#[test]
fn the_oracle_needs_few_users_for_what_never_is_and_many_for_what_often_is() {
    let of = |users: f64, usual: f64, share: f64, open: f64| {
        let mut evidence = Evidence::default();
        let shown = Shown { family: Family::Null, symptom: 0, users, usual, share, open, users_stay: false };
        (0..10).for_each(|hour| evidence.add(hour, shown));
        evidence.best(false, &Settings::default())
    };
    let settings = Settings::default();
    let enough = |known: Known| known.is_enough(14.5, &settings);
    assert!(enough(of(3.0, 1e-3, 1.0, 0.02)));
    assert!(!enough(of(1.0, 1e-3, 1.0, 0.02)), "one user an hour may be one device");
    assert!(!enough(of(1e6, 0.15, 0.2, 0.02)), "no number of users tells what releases differ by anyway");
    assert!(enough(of(1e3, 0.15, 0.5, 0.02)) && !enough(of(3.0, 0.15, 0.5, 0.02)));
    assert!(!enough(of(1e6, 1e-3, 1.5e-2, 0.0)), "not worth telling");
}
