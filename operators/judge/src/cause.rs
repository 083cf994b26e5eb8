//! From many symptoms to few problems: which signals have one cause, and the coarsest attribute that explains them.
//!
//! Signals are linked when one fault would show as both, and linked ones are one problem:
//! - the same senders, out of order since about the same window, or in the same field: a dropped field is null, shifts
//!   distributions and breaks rules;
//! - the same indicator of the same field in several releases of one platform and tenant: a fault that later releases
//!   inherit, or one of an SDK version in several apps;
//! - the same in one app version on several platforms, in one SDK version of several tenants (which isn't what moves several
//!   versions of a tenant), or in whole platforms at about the same time.
//!
//! The cause is then what all of them share. A whole platform or tenant that moved blames no release.

use std::collections::{BTreeMap, BTreeSet};

use crate::judge::Known;
use crate::signal::{Scope, Signal};
use crate::tally::Release;
use crate::version;

/// Windows by which symptoms of one fault may differ in when they began.
const ONSET_WINDOWS: u32 = 6;
/// The same between tenants, who take up a version at different times.
const TENANTS_WINDOWS: u32 = 48;

/// What kind of attribute explains a problem, from narrow to broad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CauseKind {
    /// One release, of one tenant.
    Release,
    /// An SDK version: in several apps or tenants, or that one and later ones.
    SdkVersion,
    /// An app version, whatever SDK or platform; or that one and later ones.
    AppVersion,
    /// A whole platform (SDK name): nothing that a release of it does.
    Platform,
    /// A whole tenant: server-side, or an outage.
    Tenant,
    /// Several tenants and platforms at once.
    Everything,
}

impl CauseKind {
    /// Its name in alerts.
    pub fn name(self) -> &'static str {
        match self {
            CauseKind::Release => "release",
            CauseKind::SdkVersion => "sdk_version",
            CauseKind::AppVersion => "app_version",
            CauseKind::Platform => "platform",
            CauseKind::Tenant => "tenant",
            CauseKind::Everything => "everything",
        }
    }
}

/// What explains a problem. Parts that are `None` aren't pinned down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub kind: CauseKind,
    /// Senders in common.
    pub scope: Scope,
    /// The tenant, where it is one only.
    pub tenant: Option<String>,
    /// Event type and field, where all symptoms are of one.
    pub event_type: Option<String>,
    pub field: Option<String>,
}

/// Signals of one cause.
#[derive(Clone, Debug)]
pub struct Problem {
    pub cause: Cause,
    /// The lowest version that is out of order, where releases are to blame.
    pub first_bad: Option<Release>,
    /// The highest version below it that is in order.
    pub last_good: Option<Release>,
    /// Positions in the list of signals, the strongest first.
    pub signals: Vec<usize>,
}

/// Groups the signals of all tenants into problems. `releases` are the releases of each tenant.
pub fn explain(signals: &[Signal], releases: &BTreeMap<String, Vec<Known>>) -> Vec<Problem> {
    let mut links = Links::new(signals.len());
    link_same_senders(signals, &mut links);
    link_same_field(signals, &mut links);
    link_platforms_and_tenants(signals, &mut links);
    let mut clusters: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for at in 0..signals.len() {
        clusters.entry(links.root(at)).or_default().push(at);
    }
    clusters.into_values().map(|cluster| problem(signals, cluster, releases)).collect()
}

/// Union-find over the positions of signals.
struct Links(Vec<usize>);

impl Links {
    fn new(count: usize) -> Links {
        Links((0..count).collect())
    }

    fn root(&mut self, mut at: usize) -> usize {
        while self.0[at] != at {
            self.0[at] = self.0[self.0[at]];
            at = self.0[at];
        }
        at
    }

    fn link(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        // The least position is the root, whatever the order of links.
        self.0[one.max(other)] = one.min(other);
    }

    /// Links signals of equal key; only those that began `within` so many windows of the one before.
    fn link_equal<'s, K: Ord>(
        &mut self,
        signals: &'s [Signal],
        within: Option<u32>,
        key: impl Fn(&'s Signal) -> Option<K>,
    ) {
        let mut keyed: Vec<(K, u32, usize)> = signals
            .iter()
            .enumerate()
            .filter_map(|(at, signal)| key(signal).map(|key| (key, signal.since, at)))
            .collect();
        keyed.sort_unstable();
        for pair in keyed.windows(2) {
            let near = within.is_none_or(|within| pair[1].1.saturating_sub(pair[0].1) <= within);
            if pair[0].0 == pair[1].0 && near {
                self.link(pair[0].2, pair[1].2);
            }
        }
    }
}

/// The type, and the field or, where the signal isn't of one, its family.
fn subject(signal: &Signal) -> (&str, &str, u8) {
    let family = if signal.field.is_empty() { signal.indicator.family as u8 } else { 0 };
    (signal.about_type(), &signal.field, family)
}

/// What several senders show when they have one fault: the same family in the same field, whatever the type.
fn matter(signal: &Signal) -> (&str, u8) {
    (&signal.field, signal.indicator.family as u8)
}

/// The same of one type.
fn typed_matter(signal: &Signal) -> (&str, &str, u8) {
    let (field, family) = matter(signal);
    (signal.about_type(), field, family)
}

fn link_same_senders(signals: &[Signal], links: &mut Links) {
    links.link_equal(signals, Some(ONSET_WINDOWS), |signal| Some((&signal.tenant, &signal.scope)));
    links.link_equal(signals, None, |signal| Some((&signal.tenant, &signal.scope, subject(signal))));
}

fn link_same_field(signals: &[Signal], links: &mut Links) {
    links.link_equal(signals, None, |signal| {
        signal.scope.sdk.as_ref().map(|sdk| (&signal.tenant, sdk, typed_matter(signal)))
    });
    // Where a whole platform moves, some of its releases, and those of others, are found out of order by themselves.
    links.link_equal(signals, Some(ONSET_WINDOWS), |signal| Some((&signal.tenant, matter(signal))));
    links.link_equal(signals, None, |signal| {
        signal.scope.app_version.as_ref().map(|version| (&signal.tenant, version, matter(signal)))
    });
    // A release's first symptoms may be of different fields in different apps of the same SDK version.
    links.link_equal(signals, Some(ONSET_WINDOWS), |signal| {
        let scope = &signal.scope;
        scope.sdk_version.as_ref().map(|version| (&signal.tenant, &scope.sdk, version))
    });
    // What several versions of a tenant, or all, show isn't a version's matter, whatever another tenant shows.
    let mut versions: BTreeMap<_, BTreeSet<&Option<String>>> = BTreeMap::new();
    for signal in signals {
        versions.entry((&signal.tenant, matter(signal))).or_default().insert(&signal.scope.sdk_version);
    }
    links.link_equal(signals, Some(TENANTS_WINDOWS), |signal| {
        let scope = &signal.scope;
        let of_version = versions.get(&(&signal.tenant, matter(signal))).is_some_and(|of| of.len() == 1);
        scope.sdk_version.as_ref().filter(|_| of_version).map(|version| (&scope.sdk, version, typed_matter(signal)))
    });
}

fn link_platforms_and_tenants(signals: &[Signal], links: &mut Links) {
    fn whole(signal: &&Signal) -> bool {
        !signal.scope.names_releases()
    }
    links.link_equal(signals, Some(ONSET_WINDOWS), |signal| Some(signal).filter(whole).map(|signal| &signal.tenant));
    links.link_equal(signals, Some(ONSET_WINDOWS), |signal| {
        Some(signal).filter(whole).map(|signal| (&signal.scope.sdk, typed_matter(signal)))
    });
}

fn problem(signals: &[Signal], mut cluster: Vec<usize>, releases: &BTreeMap<String, Vec<Known>>) -> Problem {
    cluster.sort_by(|&a, &b| signals[b].ln_e.total_cmp(&signals[a].ln_e).then(a.cmp(&b)));
    let members: Vec<&Signal> = cluster.iter().map(|&at| &signals[at]).collect();
    let whole: Vec<&Signal> = members.iter().copied().filter(|signal| !signal.scope.names_releases()).collect();
    let tenants: BTreeSet<&String> = members.iter().map(|signal| &signal.tenant).collect();
    let tenant = if tenants.len() == 1 { tenants.first().map(|tenant| (*tenant).clone()) } else { None };
    let (event_type, field) = common_subject(&members);
    let (kind, scope, first_bad, last_good) = if whole.is_empty() {
        blame(&members, releases)
    } else {
        let (kind, scope) = blame_nobody(&whole, &tenant, releases);
        (kind, scope, None, None)
    };
    Problem { cause: Cause { kind, scope, tenant, event_type, field }, first_bad, last_good, signals: cluster }
}

/// The event type and the field that all symptoms have in common.
fn common_subject(members: &[&Signal]) -> (Option<String>, Option<String>) {
    let only = |texts: BTreeSet<&str>| match (texts.first(), texts.len()) {
        (Some(text), 1) if !text.is_empty() => Some((*text).to_owned()),
        _ => None,
    };
    // Symptoms of all types together come with those of one type, and those of the whole type with those of a field: the
    // type and the field are still what it is about.
    let event_type = only(members.iter().map(|signal| signal.about_type()).filter(|of| !of.is_empty()).collect());
    let fields = members.iter().map(|signal| signal.field.as_str()).filter(|field| !field.is_empty()).collect();
    (event_type, only(fields))
}

fn blame_nobody(
    whole: &[&Signal],
    tenant: &Option<String>,
    releases: &BTreeMap<String, Vec<Known>>,
) -> (CauseKind, Scope) {
    let sdks: BTreeSet<Option<&String>> = whole.iter().map(|signal| signal.scope.sdk.as_ref()).collect();
    let one = match (sdks.first(), sdks.len()) {
        (Some(Some(sdk)), 1) => Some((*sdk).clone()),
        _ => None,
    };
    let has_one_only = tenant.as_ref().and_then(|tenant| releases.get(tenant)).is_some_and(|known| {
        let sdks: BTreeSet<&String> = known.iter().map(|known| &known.release.sdk).collect();
        sdks.len() == 1
    });
    match (one, tenant) {
        (Some(sdk), Some(_)) if has_one_only => (CauseKind::Tenant, Scope::platform(&sdk)),
        (Some(sdk), _) => (CauseKind::Platform, Scope::platform(&sdk)),
        (None, Some(_)) => (CauseKind::Tenant, Scope::default()),
        (None, None) => (CauseKind::Everything, Scope::default()),
    }
}

/// Releases are to blame: what they share, the first of them and the last one before it that is in order.
fn blame(
    members: &[&Signal],
    releases: &BTreeMap<String, Vec<Known>>,
) -> (CauseKind, Scope, Option<Release>, Option<Release>) {
    let scopes: BTreeSet<&Scope> = members.iter().map(|signal| &signal.scope).collect();
    let shared = |of: fn(&Scope) -> &Option<String>| -> Option<String> {
        let parts: BTreeSet<&Option<String>> = scopes.iter().map(|scope| of(scope)).collect();
        if parts.len() == 1 { parts.first().and_then(|part| (*part).clone()) } else { None }
    };
    let scope = Scope {
        sdk: shared(|scope| &scope.sdk),
        sdk_version: shared(|scope| &scope.sdk_version),
        app_version: shared(|scope| &scope.app_version),
    };
    let kind = match (&scope.sdk, &scope.sdk_version, &scope.app_version) {
        (Some(_), Some(_), Some(_)) => CauseKind::Release,
        (Some(_), Some(_), None) => CauseKind::SdkVersion,
        (_, _, Some(_)) => CauseKind::AppVersion,
        _ => CauseKind::SdkVersion,
    };
    let mut bad: Vec<(&String, &Known)> = Vec::new();
    let mut good: Vec<(&String, &Known)> = Vec::new();
    let tenants: BTreeSet<&String> = members.iter().map(|signal| &signal.tenant).collect();
    for tenant in tenants {
        for known in releases.get(tenant).into_iter().flatten() {
            let of_tenant = || members.iter().filter(|signal| signal.tenant == *tenant);
            if of_tenant().any(|signal| signal.scope.holds(&known.release)) {
                bad.push((tenant, known));
            } else if of_tenant().any(|signal| signal.scope.sdk.as_ref() == Some(&known.release.sdk)) {
                good.push((tenant, known));
            }
        }
    }
    let by_app = kind == CauseKind::AppVersion;
    let first = bad.iter().min_by(|a, b| in_order(a.1, b.1, by_app)).copied();
    let last_good = first.and_then(|(tenant, first)| {
        let before = good.iter().filter(|(of, known)| {
            *of == tenant && known.release.sdk == first.release.sdk && in_order(known, first, by_app).is_lt()
        });
        before.max_by(|a, b| in_order(a.1, b.1, by_app)).map(|(_, known)| known.release.clone())
    });
    (kind, scope, first.map(|(_, known)| known.release.clone()), last_good)
}

/// Order of releases: by SDK version and app version (or the other way round), then by when they were first seen.
fn in_order(one: &Known, other: &Known, by_app: bool) -> std::cmp::Ordering {
    let sdk = version::compare(&one.release.sdk_version, &other.release.sdk_version);
    let app = version::compare(&one.release.app_version, &other.release.app_version);
    let (first, second) = if by_app { (app, sdk) } else { (sdk, app) };
    first.then(second).then(one.first_seen.cmp(&other.first_seen)).then(one.release.cmp(&other.release))
}
