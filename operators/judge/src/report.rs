//! A judged series on its way to a [`Signal`]: who it is of, what it counted, what became of it.

use crate::block::{Frame, Member};
use crate::cell::Trial;
use crate::evidence::Seen;
use crate::math::{logit, share_at};
use crate::signal::{Scope, Signal, State};
use crate::tally::{Indicator, Place, Release, Row};
use crate::verdict::Outcome;

/// Whose events a series counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who<'t> {
    /// By its position in the tally.
    Release(usize),
    /// An SDK version or an app version of a platform.
    SdkVersion {
        sdk: &'t str,
        version: &'t str,
    },
    AppVersion {
        sdk: &'t str,
        version: &'t str,
    },
    /// An app version on all platforms.
    App(&'t str),
    Platform(&'t str),
}

impl Who<'_> {
    pub(crate) fn scope(&self, releases: &[Release]) -> Scope {
        let text = |text: &str| Some(text.to_owned());
        match *self {
            Who::Release(at) => releases.get(at).map(Scope::release).unwrap_or_default(),
            Who::SdkVersion { sdk, version } => Scope { sdk_version: text(version), ..Scope::platform(sdk) },
            Who::AppVersion { sdk, version } => Scope { app_version: text(version), ..Scope::platform(sdk) },
            Who::App(version) => Scope { app_version: text(version), ..Scope::default() },
            Who::Platform(sdk) => Scope::platform(sdk),
        }
    }

    /// Whether a release's events are among those counted.
    pub(crate) fn holds(&self, at: usize, release: &Release) -> bool {
        match *self {
            Who::Release(own) => own == at,
            Who::SdkVersion { sdk, version } => release.sdk == sdk && release.sdk_version == version,
            Who::AppVersion { sdk, version } => release.sdk == sdk && release.app_version == version,
            Who::App(version) => release.app_version == version,
            Who::Platform(sdk) => release.sdk == sdk,
        }
    }
}

/// What a series counted in the window, as it came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Came {
    pub(crate) hits: u64,
    pub(crate) trials: u64,
    /// All users of the senders.
    pub(crate) users: f64,
    pub(crate) first: Option<Place>,
    pub(crate) last: Option<Place>,
    pub(crate) examples: [Option<Place>; 3],
}

impl Came {
    pub(crate) fn of<'r>(
        frame: &Frame<'_>,
        family: usize,
        members: impl Iterator<Item = (&'r Member, Option<&'r Row>)>,
    ) -> Came {
        let mut came = Came::default();
        for (member, row) in members {
            came.trials += member.trials[family];
            came.users += frame.tally.release_users.get(member.release).copied().map_or(0.0, f64::from);
            if let Some(row) = row.filter(|row| row.hits > 0) {
                let places = row.examples.iter().copied().take(3);
                came.add(row.hits, Some(row.first), Some(row.last), places);
            }
        }
        came
    }

    /// Adds what the same senders counted of another type.
    pub(crate) fn add_type(&mut self, other: &Came) {
        self.trials += other.trials;
        self.users = self.users.max(other.users);
        self.add(other.hits, other.first, other.last, other.examples.into_iter().flatten());
    }

    fn add(&mut self, hits: u64, first: Option<Place>, last: Option<Place>, examples: impl Iterator<Item = Place>) {
        self.hits += hits;
        self.first = self.first.into_iter().chain(first).min();
        self.last = self.last.max(last);
        let free = self.examples.iter_mut().filter(|seat| seat.is_none());
        for (seat, place) in free.zip(examples) {
            *seat = Some(place);
        }
    }
}

/// A judged series, to be told of.
pub(crate) struct Report<'a> {
    pub(crate) who: Who<'a>,
    pub(crate) event_type: &'a str,
    pub(crate) field: &'a str,
    pub(crate) indicator: Indicator,
    pub(crate) label: &'a str,
    pub(crate) trial: &'a Trial,
    pub(crate) outcome: Outcome,
    pub(crate) seen: &'a Seen,
    pub(crate) came: &'a Came,
    /// Users affected in the window.
    pub(crate) users: f64,
    pub(crate) ln_threshold: f64,
}

impl Report<'_> {
    /// A signal where the series is out of order, or back in order.
    pub(crate) fn signal(&self, frame: &Frame<'_>) -> Option<Signal> {
        let state = match self.outcome {
            Outcome::Bad => State::Bad,
            Outcome::Recovered => State::Recovered,
            Outcome::Calm(_) | Outcome::Gathering => return None,
        };
        let Report { seen, came, .. } = self;
        let fault = self.trial.fault;
        let deviation = 1.96 * seen.variance.sqrt();
        Some(Signal {
            tenant: frame.tally.tenant.clone(),
            scope: self.who.scope(&frame.tally.releases),
            event_type: self.event_type.to_owned(),
            field: self.field.to_owned(),
            indicator: self.indicator,
            label: self.label.to_owned(),
            state,
            since: fault.map_or(frame.window, |fault| fault.since),
            window: frame.window,
            ln_e: fault.map_or(0.0, |fault| f64::from(fault.ln_e)),
            ln_threshold: self.ln_threshold,
            share_now: seen.hits / seen.trials.max(f64::MIN_POSITIVE),
            share_seen: fault.map_or(0.0, |fault| f64::from(fault.share)),
            expected: seen.expected,
            lower: share_at(logit(seen.expected) - deviation),
            upper: share_at(logit(seen.expected) + deviation),
            hits: came.hits,
            trials: came.trials,
            users: self.users,
            users_all: came.users,
            first: self.trial.first.or(came.first),
            last: came.last,
            examples: came.examples,
        })
    }
}
