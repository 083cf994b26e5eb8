//! What the pipeline file says about alerts, in the terms of those who do it: rules for the detectors, schemas for the
//! topics, and the senders, which run beside the pipeline and read its alert topic.
//!
//! ```text
//! pipeline ─▶ alert topic ─▶ follow: read, decode ─▶ teller: is it told? ─▶ send: until it is taken ─▶ commit the offset
//!                                                       ▲
//!            weir alerts ack ─▶ control topic ──────────┘
//! ```

pub mod acknowledge;
pub mod follow;
mod patience;
pub mod send;
mod teller;

use chrono::DateTime;
use weir_operators::detect::policy::{Matching, Part, Pattern, Policy, Suppression, Times, Weekly};
use weir_operators::rule::Rule;
use weir_schemas::registry::{Compatibility, Registry};
use weir_schemas::time::EventTime;

use crate::config::Pipeline;
use crate::config::alerts::{DAYS, SuppressionRule, WeeklyHours, When, minute_of};
use crate::error::Error;

/// What alert and control topics' schemas are held to. Compacted topics keep messages of every version, so a new reader
/// has to read them all; and who reads alerts is changed when they like, so an old reader has to read new messages.
pub const COMPATIBILITY: Compatibility = Compatibility::FullTransitive;

/// Owners, routes and suppressions, for the alerts of a source with these rules.
pub fn policy(pipeline: &Pipeline, rules: &[Rule]) -> Policy {
    let alerts = &pipeline.alerts;
    let named = alerts.owners.iter().map(|rule| (matching(&rule.when), rule.owner.clone()));
    // Where the list says nothing, a rule's own owner has to act.
    let mut rules: Vec<&Rule> = rules.iter().filter(|rule| !rule.owner.is_empty()).collect();
    // A plan's rule for every event type has a star in its id, which would stand for its neighbours here.
    rules.sort_by_key(|rule| rule.id.contains('*'));
    let matching_rule = |rule: &Rule| Matching { conditions: vec![(Part::Rule, Pattern(rule.id.to_string()))] };
    let of_rules = rules.into_iter().map(|rule| (matching_rule(rule), rule.owner.to_string()));
    Policy {
        owners: named.chain(of_rules).collect(),
        routes: alerts.routes.iter().map(|route| (matching(&route.when), route.to.clone())).collect(),
        senders: pipeline.senders.keys().cloned().collect(),
        suppressions: alerts.suppressions.iter().map(suppression).collect(),
    }
}

fn matching(when: &When) -> Matching {
    let part = |key: &str| match key {
        "detector" => Part::Detector,
        "source" => Part::Source,
        "rule" => Part::Rule,
        "sdk" => Part::Sdk,
        "event_type" => Part::EventType,
        "tenant" => Part::Tenant,
        "field" => Part::Field,
        "severity" => Part::Severity,
        _ => Part::Owner,
    };
    let conditions = when.given().into_iter().map(|(key, text)| (part(key), Pattern(text.to_owned())));
    Matching { conditions: conditions.collect() }
}

/// Times that are none were refused when the file was read.
fn suppression(rule: &SuppressionRule) -> Suppression {
    let time = |text: &Option<String>| {
        let time = DateTime::parse_from_rfc3339(text.as_deref()?).ok()?;
        Some(EventTime(time.timestamp_micros()))
    };
    let once = time(&rule.from).zip(time(&rule.until)).map(|(from, until)| Times::Once(from, until));
    let weekly = rule.weekly.as_ref().and_then(weekly).map(Times::Weekly);
    Suppression {
        name: rule.name.clone(),
        matching: matching(&rule.when),
        times: once.into_iter().chain(weekly).collect(),
    }
}

fn weekly(hours: &WeeklyHours) -> Option<Weekly> {
    Some(Weekly {
        zone: hours.zone.parse().ok()?,
        days: DAYS.map(|day| hours.days.iter().any(|named| named == day)),
        from_minute: minute_of(&hours.from)?,
        until_minute: minute_of(&hours.until)?,
    })
}

/// Registers the schema of a topic's values, and holds its subject to [`COMPATIBILITY`].
///
/// # Errors
/// When the registry can't be asked, or takes the schema for incompatible with what stands there.
pub async fn register(pipeline: &Pipeline, registry: &Registry, topic: &str, schema: &str) -> Result<u32, Error> {
    let subject = format!("{topic}-value");
    registry.register_held(&subject, schema, COMPATIBILITY).await.map_err(|error| Error::Unreachable {
        part: format!("registry at {}", pipeline.registry.url),
        detail: format!("the schema of topic {topic} can't be registered as {subject}: {error}"),
        remedy: "check [registry] and the subject's compatibility, or name another topic under [alerts]".to_owned(),
    })
}
