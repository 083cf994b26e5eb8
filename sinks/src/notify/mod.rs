//! Telling people and programs about alerts: a webhook, Slack, e-mail; and any JSON to an address that takes it.
//!
//! What is told is decided elsewhere; here a step of an alert becomes a request or a mail, and an answer becomes one of
//! three things: taken, never to be taken, or not taken yet. Telling is at-least-once. Copies of a step have one
//! idempotency key, so that a receiver can tell them.
//!
//! Not here: which steps are told to whom, in which order, and how long to wait before another try (the pipeline's).

mod email;
mod endpoint;
mod slack;
mod webhook;

pub use email::{Email, EmailSettings, Protection};
pub use endpoint::{Endpoint, IDEMPOTENCY_HEADER};
pub use slack::slack_message;
pub use webhook::{Webhook, WebhookFormat};

use crate::kafka::read::Alert;

/// Why a step wasn't taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// It never will be, because of what it says; everything behind it may be.
    #[error("{why}")]
    Poisoned {
        /// What the receiver said.
        why: String,
    },
    /// It may be later, by itself or when somebody acts.
    #[error("{why}")]
    NotYet {
        /// What went wrong.
        why: String,
        /// How long the receiver asks to wait, in milliseconds.
        wait_ms: Option<u64>,
    },
}

/// One line that says what an alert is about.
pub fn headline(alert: &Alert) -> String {
    let step = match alert.status.as_str() {
        "open" => "",
        other => &format!(" ({other})"),
    };
    let tenants = match (alert.tenants.as_slice(), alert.tenant_count) {
        ([], _) => String::new(),
        ([one], 1) if one.is_empty() => String::new(),
        ([one], 1) => format!(" at {one}"),
        (_, count) => format!(" at {count} tenants"),
    };
    let what = [&alert.rule, &alert.reason, &alert.indicator].into_iter().find(|text| !text.is_empty());
    format!(
        "{}{step}: {} from {} {}{tenants}: {} of {} records",
        alert.severity,
        what.map_or("", |text| text.as_str()),
        alert.cause_kind,
        alert.cause,
        alert.affected_records,
        alert.records
    )
}

/// What is known of an alert beyond its headline, as name and text, in the order in which people ask for it.
pub fn facts(alert: &Alert) -> Vec<(&'static str, String)> {
    let number = |number: f64| format!("{number:.6}").trim_end_matches('0').trim_end_matches('.').to_owned();
    let bound = |bound: Option<f64>| bound.map_or("…".to_owned(), number);
    let mut expected = alert.expected.map(number).unwrap_or_default();
    if alert.expected_lower.is_some() || alert.expected_upper.is_some() {
        let range = format!("[{}, {}]", bound(alert.expected_lower), bound(alert.expected_upper));
        expected = if expected.is_empty() { range } else { format!("{expected} in {range}") };
    }
    let all = [
        ("why", alert.status_reason.clone()),
        ("owner", alert.owner.clone()),
        ("tenants", alert.tenants.join(", ")),
        ("event types", alert.event_types.join(", ")),
        ("fields", alert.fields.join(", ")),
        ("rule", alert.rule.clone()),
        ("reason", format!("{} {}", alert.reason, alert.detail).trim().to_owned()),
        ("last good release", alert.last_good_release.clone()),
        ("share", format!("{:.2} %", alert.affected_share * 100.0)),
        ("users", alert.affected_users.map(|users| users.to_string()).unwrap_or_default()),
        ("seen", number(alert.seen)),
        ("expected", expected),
        ("statistic", alert.statistic.clone()),
        ("first place", alert.first_place.clone()),
        ("last place", alert.last_place.clone()),
        ("examples", alert.examples.join(", ")),
        ("samples", alert.samples.join("\n")),
    ];
    all.into_iter().filter(|(_, text)| !text.is_empty()).collect()
}

#[cfg(test)]
pub(crate) fn sample() -> Alert {
    Alert {
        fingerprint: "f00d".to_owned(),
        revision: 3,
        opened_at: 1_767_600_000_000_000,
        window_start: 1_767_600_060_000_000,
        window_end: 1_767_600_120_000_000,
        status: "update".to_owned(),
        status_reason: "12.00 % refused, less than 1.00 % resolves".to_owned(),
        severity: "warning".to_owned(),
        owner: "payments".to_owned(),
        cause_kind: "release".to_owned(),
        cause: "web 2.0 / 7 <&> \"x\"".to_owned(),
        tenants: vec!["acme".to_owned()],
        tenant_count: 1,
        rule: "amounts".to_owned(),
        affected_records: 12,
        records: 100,
        affected_share: 0.12,
        seen: 0.12,
        expected_upper: Some(0.01),
        query: "SELECT 1".to_owned(),
        ..Alert::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_one_line_and_what_is_known() {
        let alert = sample();
        assert_eq!(
            headline(&alert),
            "warning (update): amounts from release web 2.0 / 7 <&> \"x\" at acme: 12 of 100 records"
        );
        let facts = facts(&alert);
        assert!(facts.contains(&("expected", "[…, 0.01]".to_owned())), "{facts:?}");
        assert!(facts.iter().all(|(_, text)| !text.is_empty()));
        assert_eq!(alert.idempotency_key(), "f00d/1767600000000000/3");
    }
}
