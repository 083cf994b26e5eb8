//! What a person is told: one alert per problem.

use crate::cause::{Cause, CauseKind};
use crate::signal::{Scope, Signal};
use crate::tally::{Family, Indicator, Place, Release, code_of};

/// Symptoms, tenants and examples that an alert lists, at most; the number of all stands beside.
pub const SYMPTOMS_MAX: usize = 16;
pub const TENANTS_MAX: usize = 16;
pub const EXAMPLES_MAX: usize = 3;

/// Whether an alert is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Open,
    Resolved,
}

/// What made a revision of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Opened,
    Updated,
    Resolved,
    Reopened,
}

impl Change {
    /// Its name in alerts.
    pub fn name(self) -> &'static str {
        match self {
            Change::Opened => "opened",
            Change::Updated => "updated",
            Change::Resolved => "resolved",
            Change::Reopened => "reopened",
        }
    }
}

/// Why an alert was resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// All symptoms are back in order.
    Recovered,
    /// The senders at fault aren't heard of any more.
    Vanished,
    /// It turned out to be a part of another alert, by its fingerprint.
    PartOf(u64),
}

/// How bad it is, by the users affected: their number and their share of the tenants' users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Low,
    Minor,
    Major,
    Critical,
}

impl Severity {
    /// The class of so many users in a window, and of their share: critical from 1,000 users that are a fifth of all;
    /// major from 1,000 users, or a fifth if it is 50 users; minor from 50 users or a fiftieth.
    pub fn of(users: f64, share: f64) -> Severity {
        match (users, share) {
            (users, share) if users >= 1000.0 && share >= 0.2 => Severity::Critical,
            (users, share) if users >= 1000.0 || (users >= 50.0 && share >= 0.2) => Severity::Major,
            (users, share) if users >= 50.0 || share >= 0.02 => Severity::Minor,
            _ => Severity::Low,
        }
    }

    /// Its name in alerts.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Low => "low",
            Severity::Minor => "minor",
            Severity::Major => "major",
            Severity::Critical => "critical",
        }
    }
}

/// One series that shows the problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Symptom {
    pub tenant: String,
    pub scope: Scope,
    pub event_type: String,
    pub field: String,
    pub indicator: Indicator,
    pub label: String,
    /// Share seen when it was found and in the newest window; expected share with a 95 % interval. Of volumes: relative
    /// to what is usual.
    pub share_seen: f64,
    pub share_now: f64,
    pub expected: f64,
    pub lower: f64,
    pub upper: f64,
    /// Logarithm of the e-detector's statistic when it was found.
    pub ln_e: f64,
}

impl Symptom {
    /// The number that names the series, as of [`Signal::series`].
    pub fn series(&self) -> u64 {
        let about_type = self.indicator.family == Family::TypeShare;
        let event_type = if about_type { String::new() } else { self.event_type.clone() };
        crate::signal::series(&self.tenant, &self.scope, &event_type, &self.field, self.indicator)
    }

    pub(crate) fn of(signal: &Signal) -> Symptom {
        Symptom {
            tenant: signal.tenant.clone(),
            scope: signal.scope.clone(),
            event_type: signal.about_type().to_owned(),
            field: signal.field.clone(),
            indicator: signal.indicator,
            label: signal.label.clone(),
            share_seen: signal.share_seen,
            share_now: signal.share_now,
            expected: signal.expected,
            lower: signal.lower,
            upper: signal.upper,
            ln_e: signal.ln_e,
        }
    }
}

/// An alert as of one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// The same for the same problem, also when it comes back.
    pub fingerprint: u64,
    /// 1 when opened; one more for each change.
    pub revision: u32,
    pub status: Status,
    pub change: Change,
    pub reason: Option<Reason>,
    pub severity: Severity,
    /// Who is to be told, by the owner of the rule or of the SDK.
    pub owner: String,
    pub suppressed: bool,
    pub acknowledged: bool,
    pub cause: Cause,
    pub first_bad: Option<Release>,
    pub last_good: Option<Release>,
    pub first_place: Option<Place>,
    pub last_place: Option<Place>,
    pub examples: Vec<Place>,
    /// Users affected in the newest window, their share of the users of the tenants affected, and the most in any window.
    pub users: f64,
    pub users_share: f64,
    pub users_most: f64,
    /// The strongest first; the first is what the alert is about.
    pub symptoms: Vec<Symptom>,
    pub symptoms_count: u32,
    pub tenants: Vec<String>,
    pub tenants_count: u32,
    /// Numbers of windows: the first that speaks for the fault, the one in which it was found, the newest that shows it.
    pub since: u32,
    pub opened_in: u32,
    pub last_seen: u32,
}

/// What only others know, taken as facts when a window is closed.
pub trait Facts {
    /// The owner, by the alert's rule, SDK or event type.
    fn owner(&self, alert: &Alert) -> String;
    /// Whether nobody is to be told for now.
    fn is_suppressed(&self, alert: &Alert) -> bool;
    /// Whether somebody has said that they look after it.
    fn is_acknowledged(&self, fingerprint: u64) -> bool;
}

/// No owners, nothing suppressed, nothing acknowledged.
#[derive(Debug)]
pub struct NoFacts;

impl Facts for NoFacts {
    fn owner(&self, _: &Alert) -> String {
        String::new()
    }
    fn is_suppressed(&self, _: &Alert) -> bool {
        false
    }
    fn is_acknowledged(&self, _: u64) -> bool {
        false
    }
}

/// The fingerprint of a problem: what its cause is, where it began, and the family of its strongest symptom.
pub(crate) fn fingerprint(source: &str, cause: &Cause, first_bad: Option<&Release>, family: Family) -> u64 {
    let scope = match cause.kind {
        // A release is named by the first bad one, which stays when later ones inherit the fault.
        CauseKind::Release | CauseKind::SdkVersion | CauseKind::AppVersion => {
            first_bad.map_or_else(String::new, |release| format!("{release}"))
        }
        _ => format!("{} {}", cause.kind.name(), cause.scope.sdk.as_deref().unwrap_or("*")),
    };
    let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "*".to_owned());
    let (tenant, event_type, field) = (part(&cause.tenant), part(&cause.event_type), part(&cause.field));
    code_of(&[source, &scope, &tenant, &event_type, &field, family.name()].join("\u{1f}"))
}
