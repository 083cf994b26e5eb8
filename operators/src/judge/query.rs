//! SQL to look further with: what an alert is about, by window and release, in the tables that Weir keeps.
//!
//! Every query runs in ClickHouse as it stands, in the pipeline's database. Where a source's events aren't kept, it asks for
//! the alert's own steps.

use weir_judge::alert::{Alert, Symptom};
use weir_judge::tally::Family;
use weir_schemas::tables;

use super::told::range_of_bucket;
use crate::account::LEDGER;
use crate::detect::alerts::literal;
use crate::profile::BUCKETS;

/// How a source's fields are named.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The table of accepted events, where they are kept.
    pub events: Option<String>,
    /// The tenant's field.
    pub tenant: Option<String>,
    /// The field of the event's type.
    pub event_type: Option<String>,
    /// The fields of SDK, its version and the app's version.
    pub release: [Option<String>; 3],
    /// Whether the source names its users.
    pub has_users: bool,
}

/// Microseconds before the fault that a query shows as well.
const BEFORE_US: i64 = 24 * 3_600_000_000;

/// The query for an alert whose fault began at `since`, in windows of `width` microseconds.
pub(super) fn query(names: &Names, alert: &Alert, since: i64, width: i64) -> String {
    let Some(symptom) = alert.symptoms.first() else { return steps(alert) };
    match symptom.indicator.family {
        Family::Refused => return refused(alert, symptom, since),
        Family::Lost => return gaps(alert, symptom, since, width),
        _ => {}
    }
    let Some(events) = &names.events else { return steps(alert) };
    let of_ledger = matches!(symptom.indicator.family, Family::Duplicate);
    let of_ledger = of_ledger || (symptom.indicator.family == Family::Late && symptom.indicator.code >= 8);
    if of_ledger {
        return ledger(symptom, since, width);
    }
    let mut conditions = vec![format!("_event_time >= {}", time(since.saturating_sub(BEFORE_US)))];
    let mut is = |field: &Option<String>, value: Option<&String>| {
        if let (Some(field), Some(value)) = (field, value) {
            conditions.push(format!("{} = {}", quoted(field), literal(value.as_bytes())));
        }
    };
    is(&names.tenant, (alert.tenants_count == 1).then_some(&symptom.tenant));
    is(&names.release[0], symptom.scope.sdk.as_ref());
    let is_share_of_type = matches!(symptom.indicator.family, Family::TypeShare | Family::Volume);
    is(&names.event_type, Some(&symptom.event_type).filter(|name| !is_share_of_type && !name.is_empty()));
    let mut columns = vec![format!("toStartOfInterval(_event_time, INTERVAL {} SECOND) AS window", width / 1_000_000)];
    // Releases beside each other: the others show what is usual.
    columns.extend(names.release.iter().skip(1).flatten().map(|field| quoted(field)));
    let (shown, condition) = condition(names, symptom);
    columns.extend(shown);
    let groups: Vec<String> = (1..=columns.len()).map(|at| at.to_string()).collect();
    format!(
        "SELECT {}, countIf({condition}) AS affected, count() AS events, round(affected / events, 4) AS share FROM {} \
         WHERE {} GROUP BY {} ORDER BY {}",
        columns.join(", "),
        quoted(events),
        conditions.join(" AND "),
        groups.join(", "),
        groups.join(", ")
    )
}

/// What an event has to be to count, and what is shown beside.
fn condition(names: &Names, symptom: &Symptom) -> (Option<String>, String) {
    let (field, code) = (quoted(&symptom.field), symptom.indicator.code);
    let text = format!("ifNull(toString({field}), '')");
    let late = "dateDiff('millisecond', _event_time, _kafka_time)";
    match symptom.indicator.family {
        Family::Null => (None, format!("{field} IS NULL")),
        Family::Default => (None, format!("{field} IS NOT NULL AND {text} IN ('', '0', 'false', '{{}}', '[]')")),
        Family::Drift => (None, format!("match({text}, '^-?[0-9][0-9.]*$')")),
        Family::Number => (None, range_of_bucket(&field, code)),
        Family::Category if symptom.label.starts_with(super::told::KEYS) => {
            (None, format!("arrayExists(key -> xxh3(key) % {BUCKETS} = {}, mapKeys({field}))", code.saturating_sub(1)))
        }
        // The values themselves say more than their bucket.
        Family::Category => (
            Some(format!("if(xxh3({text}) % {BUCKETS} = {}, {text}, '') AS value", code.saturating_sub(1))),
            "value != ''".to_owned(),
        ),
        Family::Tagged => (None, format!("has(weir_broken_rules, {})", literal(symptom.label.as_bytes()))),
        Family::Schema => (Some("_schema_id".to_owned()), "true".to_owned()),
        Family::Late => (None, format!("{late} >= 60000")),
        Family::Skew => (None, format!("{late} <= -60000")),
        _ => match &names.event_type {
            Some(field) if !symptom.event_type.is_empty() => {
                (None, format!("{} = {}", quoted(field), literal(symptom.event_type.as_bytes())))
            }
            _ => (None, "true".to_owned()),
        },
    }
}

fn refused(alert: &Alert, symptom: &Symptom, since: i64) -> String {
    let conditions = of_senders(alert, symptom, since);
    format!(
        "SELECT reason, rule, field, detail, count() AS records, any(expected) AS expects, any(found) AS finds FROM {} \
         WHERE {} GROUP BY 1, 2, 3, 4 ORDER BY records DESC",
        tables::QUARANTINE,
        conditions.join(" AND ")
    )
}

/// The gaps before the fault and since, by release.
fn gaps(alert: &Alert, symptom: &Symptom, since: i64, width: i64) -> String {
    let mut conditions = of_senders(alert, symptom, since.saturating_sub(BEFORE_US));
    conditions.push(format!("rule = {}", literal(symptom.label.as_bytes())));
    format!(
        "SELECT toStartOfInterval(event_time, INTERVAL {} SECOND) AS window, sdk, sdk_version, app_version, count() AS \
         gaps, any(expected) AS expects, any(found) AS finds FROM {} WHERE {} GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4",
        width / 1_000_000,
        tables::VIOLATIONS,
        conditions.join(" AND ")
    )
}

/// The conditions of the senders at fault, in tables of records.
fn of_senders(alert: &Alert, symptom: &Symptom, since: i64) -> Vec<String> {
    let mut conditions = vec![format!("kafka_time >= {}", time(since))];
    let scope = &symptom.scope;
    let parts = [("sdk", &scope.sdk), ("sdk_version", &scope.sdk_version), ("app_version", &scope.app_version)];
    let tenant = (alert.tenants_count == 1).then(|| symptom.tenant.clone());
    let parts = parts.into_iter().map(|(name, value)| (name, value.clone())).chain([("tenant", tenant)]);
    for (name, value) in parts {
        if let Some(value) = value {
            conditions.push(format!("{name} = {}", literal(value.as_bytes())));
        }
    }
    conditions
}

/// Copies and records that came too late are no events: the ledger knows how many there were.
fn ledger(symptom: &Symptom, since: i64, width: i64) -> String {
    format!(
        "SELECT toStartOfInterval(minute, INTERVAL {} SECOND) AS window, sum(accepted) AS events, \
         sum(duplicate + duplicate_differing) AS copies, sum(too_late + too_late_after_idle) AS late FROM {} \
         WHERE tenant = {} AND minute >= {} GROUP BY 1 ORDER BY 1",
        width / 1_000_000,
        LEDGER,
        literal(symptom.tenant.as_bytes()),
        time(since.saturating_sub(BEFORE_US))
    )
}

fn steps(alert: &Alert) -> String {
    format!(
        "SELECT window_start, status, seen, expected, affected_records, records FROM {} WHERE fingerprint = '{:016x}' \
         ORDER BY window_start, revision",
        tables::ALERTS_HISTORY,
        alert.fingerprint
    )
}

fn time(at: i64) -> String {
    format!("fromUnixTimestamp64Micro({at}, 'UTC')")
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}
