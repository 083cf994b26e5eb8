//! What the judge says: one signal per series that is out of order, each window anew until it is in order again.

use crate::tally::{Indicator, Place, Release};

/// Which senders a series counts. A part that is `None` stands for all.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    pub sdk: Option<String>,
    pub sdk_version: Option<String>,
    pub app_version: Option<String>,
}

impl Scope {
    /// One release only.
    pub fn release(release: &Release) -> Scope {
        Scope {
            sdk: Some(release.sdk.clone()),
            sdk_version: Some(release.sdk_version.clone()),
            app_version: Some(release.app_version.clone()),
        }
    }

    /// All releases of a platform.
    pub fn platform(sdk: &str) -> Scope {
        Scope { sdk: Some(sdk.to_owned()), ..Scope::default() }
    }

    /// Blames particular releases, not a whole platform or tenant.
    pub fn names_releases(&self) -> bool {
        self.sdk_version.is_some() || self.app_version.is_some()
    }

    /// Whether the release is one of those meant.
    pub fn holds(&self, release: &Release) -> bool {
        let fits = |part: &Option<String>, value: &str| part.as_deref().is_none_or(|part| part == value);
        fits(&self.sdk, &release.sdk)
            && fits(&self.sdk_version, &release.sdk_version)
            && fits(&self.app_version, &release.app_version)
    }
}

/// Whether a signal goes on or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Out of order, also in windows with too little data to say otherwise.
    Bad,
    /// Back in order: the last signal of the series for now.
    Recovered,
}

/// A series that is out of order in a window.
#[derive(Clone, Debug)]
pub struct Signal {
    pub tenant: String,
    pub scope: Scope,
    /// Empty where the series isn't of one type.
    pub event_type: String,
    /// Empty where the series isn't of one field.
    pub field: String,
    pub indicator: Indicator,
    /// The reason, rule, value or bucket, as the tally gave it.
    pub label: String,
    pub state: State,
    /// Number of the first window that speaks for the fault.
    pub since: u32,
    /// Number of the window that this signal is of.
    pub window: u32,
    /// Logarithm of the e-detector's statistic when the series was found out of order, and what it had to reach.
    pub ln_e: f64,
    pub ln_threshold: f64,
    /// Share seen in this window, and in the windows from `since` until it was found.
    pub share_now: f64,
    pub share_seen: f64,
    /// Share expected in this window with a 95 % interval; of [`Family::Volume`](crate::tally::Family::Volume), the counts
    /// relative to what is usual (1), likewise for what was seen.
    pub expected: f64,
    pub lower: f64,
    pub upper: f64,
    /// Hits and trials in this window, as they came.
    pub hits: u64,
    pub trials: u64,
    /// Users affected in this window beyond what is usual, about, and all users of the scope in it; 0 where unknown.
    pub users: f64,
    pub users_all: f64,
    /// Least place among the hits since `since`, greatest among those of this window; none where a fault shows as absence.
    pub first: Option<Place>,
    pub last: Option<Place>,
    pub examples: [Option<Place>; 3],
}

impl Signal {
    /// The type that the signal is about, also for the share of a type.
    pub fn about_type(&self) -> &str {
        let of_share = self.indicator.family == crate::tally::Family::TypeShare;
        if of_share { &self.label } else { &self.event_type }
    }

    /// A number that names the series among all: tenant, scope, type, field and indicator.
    pub fn series(&self) -> u64 {
        series(&self.tenant, &self.scope, &self.event_type, &self.field, self.indicator)
    }

    /// Logarithm of the odds seen over the odds expected; its size is the signal's strength.
    pub fn ln_odds_ratio(&self) -> f64 {
        crate::math::logit(self.share_seen) - crate::math::logit(self.expected)
    }
}

/// The number of [`Signal::series`].
pub(crate) fn series(tenant: &str, scope: &Scope, event_type: &str, field: &str, indicator: Indicator) -> u64 {
    let part = |part: &Option<String>| part.as_deref().map_or(0, crate::tally::code_of);
    let scope = [part(&scope.sdk), part(&scope.sdk_version), part(&scope.app_version)];
    let texts = [tenant, event_type, field].map(crate::tally::code_of);
    let indicator = [indicator.family as u64, indicator.code];
    let parts = scope.into_iter().chain(texts).chain(indicator);
    parts.fold(0x9e37_79b9_7f4a_7c15, |hash: u64, part| {
        let mixed = (hash ^ part).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ (mixed >> 32)
    })
}
