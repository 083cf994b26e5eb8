//! Whose an alert is, who is told, and when nobody is: what the pipeline file says about alerts, as plain rules.
//!
//! Invariant: a decision depends on the alert and the rules alone, and suppressions look at event time. So the same log
//! and the same file give the same rows.
//!
//! Not here: sending, and acknowledgements, which people make while the pipeline runs.

use chrono::{DateTime, Datelike, Timelike};
use chrono_tz::Tz;
use weir_schemas::time::EventTime;

/// What is decided for each alert. Of owners and routes the first that matches counts, of suppressions too.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Who has to act.
    pub owners: Vec<(Matching, String)>,
    /// Which senders tell it.
    pub routes: Vec<(Matching, Vec<String>)>,
    /// Which senders tell an alert while `routes` is empty.
    pub senders: Vec<String>,
    /// When nobody is told.
    pub suppressions: Vec<Suppression>,
}

/// A time in which alerts are kept and not sent.
#[derive(Clone, Debug)]
pub struct Suppression {
    /// Its name; it stands in the alert's row.
    pub name: String,
    /// Which alerts.
    pub matching: Matching,
    /// When, by the start of an alert's window; any of them.
    pub times: Vec<Times>,
}

/// A span of event time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Times {
    /// Once, from an instant to before another.
    Once(EventTime, EventTime),
    /// Every week.
    Weekly(Weekly),
}

/// Hours of some days of the week, by a zone's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weekly {
    /// The zone.
    pub zone: Tz,
    /// The days, Monday first; hours past midnight belong to the day on which they began.
    pub days: [bool; 7],
    /// Minutes after midnight at which it begins.
    pub from_minute: u32,
    /// Minutes after midnight before which it ends; up to `from_minute` that is on the next day.
    pub until_minute: u32,
}

/// Conditions on an alert, all of which must hold; none at all holds for every alert.
#[derive(Clone, Debug, Default)]
pub struct Matching {
    /// Each with the part that it looks at.
    pub conditions: Vec<(Part, Pattern)>,
}

/// A part of an alert that conditions look at. Where an alert has several values of it, all of them have to match: an
/// alert of many tenants is not the business of the one who owns one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The detector.
    Detector,
    /// The source.
    Source,
    /// The rule that is broken.
    Rule,
    /// The first bad release's SDK.
    Sdk,
    /// Its event types.
    EventType,
    /// Its tenants.
    Tenant,
    /// Its fields.
    Field,
    /// Its severity.
    Severity,
    /// Its owner; in `owners` there is none yet.
    Owner,
}

/// A text in which `*` stands for any text, the empty one too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(pub String);

/// An alert as the rules see it.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// Start of its window.
    pub window_start: EventTime,
    /// The detector.
    pub detector: &'a str,
    /// The source.
    pub source: &'a str,
    /// The rule.
    pub rule: &'a [u8],
    /// The SDK.
    pub sdk: &'a [u8],
    /// The severity.
    pub severity: &'a str,
    /// The event types.
    pub event_types: &'a [Vec<u8>],
    /// The tenants that are named.
    pub tenants: &'a [Vec<u8>],
    /// How many tenants there are.
    pub tenant_count: u64,
    /// The fields.
    pub fields: &'a [Vec<u8>],
}

/// What the rules say about an alert.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The owner, empty for none.
    pub owner: String,
    /// The senders.
    pub routes: Vec<String>,
    /// The suppression's name, empty for none.
    pub suppressed_by: String,
}

impl Policy {
    /// Decides about an alert.
    pub fn decide(&self, subject: &Subject<'_>) -> Decision {
        let owner = self.owners.iter().find(|(matching, _)| matching.holds(subject, ""));
        let owner = owner.map(|(_, owner)| owner.clone()).unwrap_or_default();
        let routes = if self.routes.is_empty() {
            self.senders.clone()
        } else {
            let route = self.routes.iter().find(|(matching, _)| matching.holds(subject, &owner));
            route.map(|(_, senders)| senders.clone()).unwrap_or_default()
        };
        let suppression = self.suppressions.iter().find(|suppression| {
            suppression.times.iter().any(|times| times.hold(subject.window_start))
                && suppression.matching.holds(subject, &owner)
        });
        let suppressed_by = suppression.map(|suppression| suppression.name.clone()).unwrap_or_default();
        Decision { owner, routes, suppressed_by }
    }
}

impl Matching {
    fn holds(&self, subject: &Subject<'_>, owner: &str) -> bool {
        self.conditions.iter().all(|(part, pattern)| {
            let all = |values: &[Vec<u8>]| !values.is_empty() && values.iter().all(|value| pattern.matches(value));
            match part {
                Part::Detector => pattern.matches(subject.detector.as_bytes()),
                Part::Source => pattern.matches(subject.source.as_bytes()),
                Part::Rule => pattern.matches(subject.rule),
                Part::Sdk => pattern.matches(subject.sdk),
                Part::Severity => pattern.matches(subject.severity.as_bytes()),
                Part::Owner => pattern.matches(owner.as_bytes()),
                Part::EventType => all(subject.event_types),
                Part::Field => all(subject.fields),
                // Tenants that aren't named may be others.
                Part::Tenant => subject.tenant_count == subject.tenants.len() as u64 && all(subject.tenants),
            }
        })
    }
}

impl Pattern {
    /// Whether a text is one of those that the pattern stands for.
    pub fn matches(&self, text: &[u8]) -> bool {
        let mut pieces = self.0.split('*').map(str::as_bytes);
        let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else { return false };
        let Some(last) = pieces.next_back() else { return rest.is_empty() };
        // Of each piece the first place will do: what stands in front of it is the least.
        for piece in pieces.filter(|piece| !piece.is_empty()) {
            match rest.windows(piece.len()).position(|window| window == piece) {
                Some(at) => rest = rest.get(at + piece.len()..).unwrap_or_default(),
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

impl Times {
    fn hold(&self, at: EventTime) -> bool {
        match self {
            Times::Once(from, until) => (*from..*until).contains(&at),
            Times::Weekly(weekly) => weekly.holds(at),
        }
    }
}

impl Weekly {
    fn holds(&self, at: EventTime) -> bool {
        let Some(at) = DateTime::from_timestamp_micros(at.0) else { return false };
        let local = at.with_timezone(&self.zone);
        let (day, minute) = (local.weekday().num_days_from_monday() as usize, local.hour() * 60 + local.minute());
        let (today, yesterday) = (self.days[day], self.days[(day + 6) % 7]);
        if self.from_minute < self.until_minute {
            today && (self.from_minute..self.until_minute).contains(&minute)
        } else {
            (today && minute >= self.from_minute) || (yesterday && minute < self.until_minute)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> EventTime {
        EventTime(DateTime::parse_from_rfc3339(text).expect("a time").timestamp_micros())
    }

    fn matching(conditions: &[(Part, &str)]) -> Matching {
        let conditions = conditions.iter().map(|(part, pattern)| (*part, Pattern((*pattern).to_owned())));
        Matching { conditions: conditions.collect() }
    }

    fn nothing() -> Subject<'static> {
        Subject {
            window_start: EventTime(0),
            detector: "",
            source: "",
            rule: b"",
            sdk: b"",
            severity: "",
            event_types: &[],
            tenants: &[],
            tenant_count: 0,
            fields: &[],
        }
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("web", "web", true),
            ("web", "web2", false),
            ("web*", "web2", true),
            ("*web", "my-web", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("*", "", true),
            ("", "x", false),
            ("**x", "x", true),
            ("a*bb*b", "abb", false),
        ] {
            assert_eq!(Pattern(pattern.to_owned()).matches(text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_first_owner_counts_and_several_values_have_to_match_all() {
        let policy = Policy {
            owners: vec![
                (matching(&[(Part::Rule, "amounts_*"), (Part::Sdk, "web")]), "payments".to_owned()),
                (matching(&[(Part::Tenant, "acme")]), "acme's".to_owned()),
                (matching(&[]), "anybody".to_owned()),
            ],
            routes: vec![(matching(&[(Part::Owner, "payments")]), vec!["chat".to_owned()])],
            ..Policy::default()
        };
        let owner = |subject: &Subject<'_>| policy.decide(subject).owner;
        let web = Subject { rule: b"amounts_positive", sdk: b"web", ..nothing() };
        assert_eq!(policy.decide(&web).routes, ["chat"]);
        assert_eq!(owner(&web), "payments");
        let (one, two) = ([b"acme".to_vec()], [b"acme".to_vec(), b"globex".to_vec()]);
        assert_eq!(owner(&Subject { tenants: &one, tenant_count: 1, ..nothing() }), "acme's");
        assert_eq!(owner(&Subject { tenants: &two, tenant_count: 2, ..nothing() }), "anybody");
        // More tenants than are named.
        let many = Subject { tenants: &one, tenant_count: 9, ..nothing() };
        assert_eq!(owner(&many), "anybody");
        assert!(policy.decide(&many).routes.is_empty());
        let every = Policy { senders: vec!["mail".to_owned()], ..Policy::default() };
        assert_eq!(every.decide(&many).routes, ["mail"]);
    }

    #[test]
    fn suppressions_hold_by_the_clock_of_their_zone() {
        let weekly = |days: [bool; 7], from_minute, until_minute| {
            Times::Weekly(Weekly { zone: Tz::Europe__Berlin, days, from_minute, until_minute })
        };
        let tuesday = [false, true, false, false, false, false, false];
        // 2026-03-31 is a Tuesday; Berlin is two hours ahead of UTC from 2026-03-29 on, one hour before.
        let release = weekly(tuesday, 10 * 60, 12 * 60);
        assert!(release.hold(at("2026-03-31T08:00:00Z")) && !release.hold(at("2026-03-31T10:00:00Z")));
        assert!(!release.hold(at("2026-03-24T08:59:59Z")) && release.hold(at("2026-03-24T09:00:00Z")));
        let night = weekly(tuesday, 22 * 60, 6 * 60);
        assert!(night.hold(at("2026-03-31T21:00:00Z")) && night.hold(at("2026-04-01T03:59:00Z")));
        assert!(!night.hold(at("2026-03-31T03:00:00Z")) && !night.hold(at("2026-04-01T04:00:00Z")));
        let whole = weekly(tuesday, 0, 0);
        assert!(whole.hold(at("2026-03-31T12:00:00Z")) && !whole.hold(at("2026-04-01T12:00:00Z")));
        let once = Times::Once(at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"));
        assert!(once.hold(at("2026-01-01T00:00:00Z")) && !once.hold(at("2026-01-02T00:00:00Z")));
        let policy = Policy {
            suppressions: vec![Suppression {
                name: "load test".to_owned(),
                matching: matching(&[(Part::Source, "shop")]),
                times: vec![once, release],
            }],
            ..Policy::default()
        };
        let subject = |source, time: &str| Subject { source, window_start: at(time), ..nothing() };
        assert_eq!(policy.decide(&subject("shop", "2026-01-01T12:00:00Z")).suppressed_by, "load test");
        assert_eq!(policy.decide(&subject("shop", "2026-03-31T08:00:00Z")).suppressed_by, "load test");
        assert_eq!(policy.decide(&subject("app", "2026-01-01T12:00:00Z")).suppressed_by, "");
    }
}
