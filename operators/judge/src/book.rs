//! The life of alerts: opened, updated, resolved, reopened; one decision per closed window.
//!
//! A symptom lives from the window in which the judge finds a series out of order until the one in which it finds it back
//! in order (the judge's own test, against the fault and for the reference, is the hysteresis), or until nothing is heard
//! of the series for `silent_windows`. Each window, all live symptoms are grouped anew into problems, and each problem is
//! matched with the alert that has symptoms in common with it: so an alert may grow from one release to a whole SDK version
//! without becoming another one. An alert without live symptoms is resolved. A problem whose symptoms, or whose
//! fingerprint, are those of a resolved alert reopens it while that is remembered.
//!
//! A revision is made only of what a person cares about: opened, resolved, reopened, another class of severity, another
//! cause or first bad release, more tenants, users or share changed by a factor, and otherwise every so many windows.
//!
//! Bound: `symptoms_max` live symptoms (further ones are counted), alerts that are open and the newest `remembered_max` that
//! are remembered, releases and users of tenants with live symptoms.

use std::collections::{BTreeMap, BTreeSet};

use crate::alert::{
    Alert, Change, EXAMPLES_MAX, Facts, Reason, SYMPTOMS_MAX, Severity, Status, Symptom, TENANTS_MAX, fingerprint,
};
use crate::cause::{Problem, explain};
use crate::judge::Known;
use crate::signal::{Signal, State};
use crate::tally::Place;

/// Series that a remembered alert is recognized by, at most.
const REMEMBERED_SERIES: usize = 256;

/// How alerts live.
#[derive(Clone, Debug)]
pub struct Manners {
    /// The source's name, a part of fingerprints.
    pub source: String,
    /// Windows without any data of a series after which its symptom ends.
    pub silent_windows: u32,
    /// An open alert is told again when users affected changed by this factor, or at least after as many windows.
    pub update_factor: f64,
    pub update_every_windows: u32,
    /// Windows for which a resolved alert is remembered.
    pub remember_windows: u32,
    pub symptoms_max: usize,
    /// Resolved alerts that are remembered at most: the oldest is forgotten first.
    pub remembered_max: usize,
}

impl Default for Manners {
    fn default() -> Manners {
        Manners {
            source: String::new(),
            silent_windows: 24,
            update_factor: 3.0,
            update_every_windows: 24,
            remember_windows: 24 * 14,
            symptoms_max: 10_000,
            remembered_max: 2_000,
        }
    }
}

/// All that happened in one window, over all tenants.
#[derive(Debug, Default)]
pub struct WindowSignals {
    pub window: u32,
    pub signals: Vec<Signal>,
    /// Releases by tenant, and users of each tenant in the window.
    pub releases: BTreeMap<String, Vec<Known>>,
    pub users: BTreeMap<String, f64>,
}

/// An alert and what it goes by.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) alert: Alert,
    /// Series that showed it, live ones or not, bounded.
    pub(crate) series: BTreeSet<u64>,
    /// As of the newest revision.
    pub(crate) told_users: f64,
    pub(crate) told_in: u32,
    pub(crate) resolved_in: u32,
}

/// All alerts that are open or remembered.
#[derive(Debug, Default)]
pub struct Book {
    pub(crate) live: BTreeMap<u64, Signal>,
    pub(crate) held: Vec<Held>,
    pub(crate) releases: BTreeMap<String, Vec<Known>>,
    pub(crate) users: BTreeMap<String, f64>,
    /// Symptoms that found no room.
    pub crowded_out: u64,
}

impl Book {
    /// The alerts that are open.
    pub fn open(&self) -> impl Iterator<Item = &Alert> {
        self.held.iter().map(|held| &held.alert).filter(|alert| alert.status == Status::Open)
    }

    /// Takes in a window and returns the alerts that changed, each in its new revision.
    pub fn close(&mut self, of: WindowSignals, manners: &Manners, facts: &dyn Facts) -> Vec<Alert> {
        let window = of.window;
        self.releases.extend(of.releases);
        self.users.extend(of.users);
        let silenced = self.take_in(of.signals, window, manners);
        let keys: Vec<u64> = self.live.keys().copied().collect();
        let signals: Vec<Signal> = self.live.values().cloned().collect();
        let problems = explain(&signals, &self.releases);
        let mut changed = Vec::new();
        let mut served = BTreeSet::new();
        for (at, merged) in self.match_problems(&problems, &keys, window, manners) {
            served.insert(at);
            changed.extend(self.renew(at, &merged, &signals, &keys, window, manners, facts));
        }
        for at in 0..self.held.len() {
            if self.held[at].alert.status == Status::Open && !served.contains(&at) {
                changed.push(self.resolve(at, window, &silenced, &keys, facts));
            }
        }
        self.held
            .retain(|held| held.alert.status == Status::Open || held.resolved_in + manners.remember_windows >= window);
        self.forget_beyond(manners.remembered_max);
        // A tenant whose symptoms are still to come brings its releases and users with them.
        let live: BTreeSet<&String> = self.live.values().map(|signal| &signal.tenant).collect();
        self.releases.retain(|tenant, _| live.contains(tenant));
        self.users.retain(|tenant, _| live.contains(tenant));
        changed
    }

    /// Forgets the resolved alerts beyond the newest `most`.
    fn forget_beyond(&mut self, most: usize) {
        let resolved = |held: &Held| held.alert.status != Status::Open;
        let mut ends: Vec<u32> = self.held.iter().filter(|held| resolved(held)).map(|held| held.resolved_in).collect();
        let Some(mut beyond) = ends.len().checked_sub(most).filter(|beyond| *beyond > 0) else { return };
        ends.sort_unstable();
        let last = ends[beyond - 1];
        // Those before `last` go for certain; of those that were resolved in it, as many as have to.
        beyond -= ends.partition_point(|end| *end < last);
        self.held.retain(|held| {
            let goes = resolved(held) && (held.resolved_in < last || (held.resolved_in == last && beyond > 0));
            beyond -= usize::from(goes && held.resolved_in == last);
            !goes
        });
    }

    /// Renews the live symptoms; returns those that ended by silence.
    fn take_in(&mut self, signals: Vec<Signal>, window: u32, manners: &Manners) -> BTreeSet<u64> {
        for signal in signals {
            let series = signal.series();
            if signal.state == State::Recovered {
                self.live.remove(&series);
            } else if self.live.len() < manners.symptoms_max || self.live.contains_key(&series) {
                self.live.insert(series, signal);
            } else {
                self.crowded_out += 1;
            }
        }
        let silent = |signal: &Signal| window.saturating_sub(signal.window) >= manners.silent_windows;
        let silenced: BTreeSet<u64> =
            self.live.iter().filter(|(_, signal)| silent(signal)).map(|(series, _)| *series).collect();
        self.live.retain(|series, _| !silenced.contains(series));
        silenced
    }

    /// Which held alert each problem belongs to, new ones made; problems of one alert are joined, the greatest first.
    fn match_problems(
        &mut self,
        problems: &[Problem],
        keys: &[u64],
        window: u32,
        manners: &Manners,
    ) -> Vec<(usize, Vec<Problem>)> {
        let mut of_alert: BTreeMap<usize, Vec<Problem>> = BTreeMap::new();
        let mut new = Vec::new();
        for problem in problems {
            let has = |held: &Held| problem.signals.iter().any(|&at| held.series.contains(&keys[at]));
            let open = |held: &Held| held.alert.status == Status::Open;
            let mine = self.held.iter().position(|held| open(held) && has(held));
            match mine.or_else(|| self.held.iter().position(|held| !open(held) && has(held))) {
                Some(at) => of_alert.entry(at).or_default().push(problem.clone()),
                None => new.push(problem.clone()),
            }
        }
        for problem in new {
            let family = self.family_of(&problem, keys);
            let print = fingerprint(&manners.source, &problem.cause, problem.first_bad.as_ref(), family);
            let known = self.held.iter().position(|held| held.alert.fingerprint == print);
            let at = known.unwrap_or_else(|| {
                self.held.push(Held::new(print, &problem, window));
                self.held.len() - 1
            });
            of_alert.entry(at).or_default().push(problem);
        }
        let mut joined: Vec<(usize, Vec<Problem>)> = of_alert.into_iter().collect();
        for (_, problems) in &mut joined {
            problems.sort_by_key(|problem| std::cmp::Reverse((problem.cause.kind, problem.signals.len())));
        }
        joined
    }

    fn family_of(&self, problem: &Problem, keys: &[u64]) -> crate::tally::Family {
        let strongest = problem.signals.first().and_then(|&at| self.live.get(&keys[at]));
        strongest.map_or(crate::tally::Family::Refused, |signal| signal.indicator.family)
    }

    #[expect(clippy::too_many_arguments, reason = "facts of the window beside those of the alert")]
    fn renew(
        &mut self,
        at: usize,
        problems: &[Problem],
        signals: &[Signal],
        keys: &[u64],
        window: u32,
        manners: &Manners,
        facts: &dyn Facts,
    ) -> Option<Alert> {
        let problem = problems.first()?;
        let mut members: Vec<usize> = problems.iter().flat_map(|problem| problem.signals.iter().copied()).collect();
        members.sort_by(|&a, &b| signals[b].ln_e.total_cmp(&signals[a].ln_e).then(a.cmp(&b)));
        let own: Vec<&Signal> = members.iter().map(|&member| &signals[member]).collect();
        let (users, users_of_tenants) = self.users_affected(&own);
        let held = &mut self.held[at];
        for &member in &members {
            if held.series.len() < REMEMBERED_SERIES {
                held.series.insert(keys[member]);
            }
        }
        let before = held.alert.clone();
        held.alert.take(problem, &own);
        let alert = &mut held.alert;
        (alert.users, alert.users_share) = (users, (users / users_of_tenants.max(1.0)).min(1.0));
        alert.users_most = alert.users_most.max(users);
        // The class only falls when the alert is told for another reason, so that it doesn't go up and down.
        let severity = Severity::of(users, alert.users_share);
        alert.severity = severity.max(if alert.revision > 0 { before.severity } else { Severity::Low });
        alert.owner = facts.owner(alert);
        alert.suppressed = facts.is_suppressed(alert);
        alert.acknowledged = facts.is_acknowledged(alert.fingerprint);
        let ratio = (users.max(1.0) / held.told_users.max(1.0)).ln().abs();
        let change = match (before.revision, before.status) {
            (0, _) => Change::Opened,
            (_, Status::Resolved) => Change::Reopened,
            _ => Change::Updated,
        };
        let cares = change != Change::Updated
            || alert.severity != before.severity
            || alert.cause != before.cause
            || alert.first_bad != before.first_bad
            || alert.tenants_count > before.tenants_count
            || alert.acknowledged != before.acknowledged
            || ratio >= manners.update_factor.ln()
            || window.saturating_sub(held.told_in) >= manners.update_every_windows;
        if !cares {
            return None;
        }
        if change != Change::Opened {
            alert.severity = severity;
        }
        if change == Change::Reopened {
            (alert.reason, alert.opened_in) = (None, window);
        }
        alert.status = Status::Open;
        alert.change = change;
        alert.revision = before.revision + 1;
        (held.told_users, held.told_in) = (users, window);
        Some(held.alert.clone())
    }

    fn resolve(&mut self, at: usize, window: u32, silenced: &BTreeSet<u64>, live: &[u64], facts: &dyn Facts) -> Alert {
        let absorbed_by = self.held.iter().enumerate().find(|(other, held)| {
            *other != at
                && held.alert.status == Status::Open
                && self.held[at].series.iter().any(|series| live.contains(series) && held.series.contains(series))
        });
        let reason = match absorbed_by {
            Some((_, other)) => Reason::PartOf(other.alert.fingerprint),
            None if self.held[at].series.iter().any(|series| silenced.contains(series)) => Reason::Vanished,
            None => Reason::Recovered,
        };
        let held = &mut self.held[at];
        held.resolved_in = window;
        let alert = &mut held.alert;
        alert.status = Status::Resolved;
        alert.change = Change::Resolved;
        alert.reason = Some(reason);
        alert.revision += 1;
        (alert.users, alert.users_share) = (0.0, 0.0);
        alert.suppressed = facts.is_suppressed(alert);
        alert.acknowledged = facts.is_acknowledged(alert.fingerprint);
        alert.clone()
    }

    /// Users affected: of each tenant's senders the most that any symptom shows, summed; and all users of these tenants.
    fn users_affected(&self, own: &[&Signal]) -> (f64, f64) {
        let mut by_senders: BTreeMap<(&String, bool, &crate::signal::Scope), f64> = BTreeMap::new();
        for signal in own {
            let users = by_senders.entry((&signal.tenant, signal.scope.names_releases(), &signal.scope)).or_default();
            *users = users.max(signal.users);
        }
        let mut by_tenant: BTreeMap<&String, [f64; 2]> = BTreeMap::new();
        for ((tenant, names, _), users) in by_senders {
            by_tenant.entry(tenant).or_default()[usize::from(names)] += users;
        }
        // Releases are parts of a platform: the greater of the two sums, not both.
        let users = by_tenant.values().map(|sums| sums[0].max(sums[1])).sum();
        let all = by_tenant.keys().map(|tenant| self.users.get(*tenant).copied().unwrap_or(0.0)).sum();
        (users, all)
    }
}

impl Held {
    fn new(fingerprint: u64, problem: &Problem, window: u32) -> Held {
        let alert = Alert {
            fingerprint,
            revision: 0,
            status: Status::Open,
            change: Change::Opened,
            reason: None,
            severity: Severity::Low,
            owner: String::new(),
            suppressed: false,
            acknowledged: false,
            cause: problem.cause.clone(),
            first_bad: None,
            last_good: None,
            first_place: None,
            last_place: None,
            examples: Vec::new(),
            users: 0.0,
            users_share: 0.0,
            users_most: 0.0,
            symptoms: Vec::new(),
            symptoms_count: 0,
            tenants: Vec::new(),
            tenants_count: 0,
            since: window,
            opened_in: window,
            last_seen: window,
        };
        Held { alert, series: BTreeSet::new(), told_users: 0.0, told_in: window, resolved_in: 0 }
    }
}

impl Alert {
    /// Takes over what the problem's signals, the strongest first, show now.
    fn take(&mut self, problem: &Problem, own: &[&Signal]) {
        self.cause = problem.cause.clone();
        self.first_bad = problem.first_bad.clone();
        self.last_good = problem.last_good.clone();
        let least = |a: Option<Place>, b: Option<Place>| a.into_iter().chain(b).min();
        self.first_place = own.iter().fold(self.first_place, |place, signal| least(place, signal.first));
        self.last_place = own.iter().filter_map(|signal| signal.last).chain(self.last_place).max();
        for place in own.iter().flat_map(|signal| signal.examples.iter().flatten()) {
            if self.examples.len() < EXAMPLES_MAX && !self.examples.contains(place) {
                self.examples.push(*place);
            }
        }
        self.symptoms = own.iter().take(SYMPTOMS_MAX).map(|signal| Symptom::of(signal)).collect();
        self.symptoms_count = own.len() as u32;
        let tenants: BTreeSet<&String> = own.iter().map(|signal| &signal.tenant).collect();
        self.tenants_count = tenants.len() as u32;
        self.tenants = tenants.into_iter().take(TENANTS_MAX).cloned().collect();
        self.since = own.iter().map(|signal| signal.since).min().unwrap_or(self.since).min(self.since);
        self.last_seen = own.iter().map(|signal| signal.window).max().unwrap_or(self.last_seen);
    }
}
