//! SQL to look further with: what an alert is about, by window and release, in the tables that Weir keeps.
//!
//! Every query runs in ClickHouse as it stands, in the pipeline's database. Where a source's events aren't kept, and of what is
//! no event, it asks for what the judge counted while it was out of order.

use weir_judge::alert::{Alert, Symptom};
use weir_judge::tally::Family;
use weir_schemas::tables;

use super::told::{is_of_release, range_of_bucket, range_of_delay};
use crate::detect::alerts::literal;
use crate::profile::{BUCKETS, SCHEMAS};

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
///
/// Where it tells a release's share over time, its columns begin with `window`, `release`, `affected` and `records`.
pub(super) fn query(names: &Names, source: &str, alert: &Alert, since: i64, width: i64) -> String {
    let Some(symptom) = alert.symptoms.first() else { return steps(alert) };
    match (symptom.indicator.family, &names.events) {
        (Family::Refused, _) => refused(alert, symptom, since),
        (Family::Lost, _) => gaps(alert, symptom, since, width),
        // Copies, and what came too late, are no events.
        (Family::Duplicate, _) => shares(source, alert, symptom, since),
        (Family::Late, _) if is_of_release(symptom.indicator) => shares(source, alert, symptom, since),
        (_, None) => shares(source, alert, symptom, since),
        (_, Some(events)) => of_events(names, events, alert, symptom, since, width),
    }
}

/// What the accepted events show, each release beside the others: those say what is usual.
fn of_events(names: &Names, events: &str, alert: &Alert, symptom: &Symptom, since: i64, width: i64) -> String {
    let mut conditions = vec![format!("{} >= {}", column("_event_time"), time(since.saturating_sub(BEFORE_US)))];
    let mut is = |field: &Option<String>, value: Option<&String>| {
        if let (Some(field), Some(value)) = (field, value) {
            conditions.push(format!("{} = {}", column(field), literal(value.as_bytes())));
        }
    };
    is(&names.tenant, (alert.tenants_count == 1).then_some(&symptom.tenant));
    is(&names.release[0], symptom.scope.sdk.as_ref());
    let is_share_of_type = matches!(symptom.indicator.family, Family::TypeShare | Family::Volume);
    is(&names.event_type, Some(&symptom.event_type).filter(|name| !is_share_of_type && !name.is_empty()));
    let [sdk, sdk_version, app_version] = names.release.each_ref().map(|field| match field {
        Some(field) => format!("ifNull(toString({}), '')", column(field)),
        None => "''".to_owned(),
    });
    let Counted { of, shows, beside } = counted(names, symptom);
    let records = of.map_or_else(|| "count()".to_owned(), |of| format!("countIf({of})"));
    let beside = beside.map(|beside| format!(", {beside}")).unwrap_or_default();
    format!(
        "SELECT toStartOfInterval({}, INTERVAL {} SECOND) AS window, \
         concat({sdk}, ' ', {sdk_version}, ' / ', {app_version}) AS release, countIf({shows}) AS affected, \
         {records} AS records, round(affected / records, 4) AS share{beside} FROM {} AS e \
         WHERE {} GROUP BY 1, 2 HAVING records > 0 ORDER BY 1, 2",
        column("_event_time"),
        width / 1_000_000,
        quoted(events),
        conditions.join(" AND ")
    )
}

/// Which events count.
struct Counted {
    /// What an event has to be to be one of those that could show it; nothing where each could.
    of: Option<String>,
    /// What it has to be to show it.
    shows: String,
    /// What is shown beside.
    beside: Option<String>,
}

/// Which events the strongest symptom counts: as the profile does that the judge is told of.
fn counted(names: &Names, symptom: &Symptom) -> Counted {
    let (field, code) = (column(&symptom.field), symptom.indicator.code);
    let text = format!("ifNull(toString({field}), '')");
    let delay_ms = format!("dateDiff('millisecond', {}, {})", column("_event_time"), column("_kafka_time"));
    let of_all = |shows: String| Counted { of: None, shows, beside: None };
    let of_values = |shows: String| Counted { of: Some(format!("{field} IS NOT NULL")), shows, beside: None };
    match symptom.indicator.family {
        Family::Null => of_all(format!("{field} IS NULL")),
        Family::Default => of_all(format!("{field} IS NOT NULL AND {text} IN ('', '0', 'false', '{{}}', '[]')")),
        Family::Drift => of_values(format!("match({text}, '^-?[0-9][0-9.]*$')")),
        Family::Number => of_values(range_of_bucket(&field, code)),
        Family::Category if symptom.label.starts_with(super::told::KEYS) => of_values(format!(
            "arrayExists(key -> xxh3(key) % {BUCKETS} = {}, mapKeys({field}))",
            code.saturating_sub(1)
        )),
        // The values themselves say more than their bucket.
        Family::Category => {
            let shows = format!("{field} IS NOT NULL AND xxh3({text}) % {BUCKETS} = {}", code.saturating_sub(1));
            let beside = format!("topKIf(3)({text}, {shows}) AS commonest");
            Counted { beside: Some(beside), ..of_values(shows) }
        }
        Family::Tagged => {
            of_all(format!("has({}, {})", column("weir_broken_rules"), literal(symptom.label.as_bytes()))) //
        }
        Family::Schema => {
            let shows = format!("{} % {SCHEMAS} = {code}", column("_schema_id"));
            let beside = format!("groupUniqArrayIf(5)({}, {shows}) AS schema_ids", column("_schema_id"));
            Counted { beside: Some(beside), ..of_all(shows) }
        }
        Family::Late | Family::Skew => of_all(range_of_delay(&delay_ms, code)),
        _ => match &names.event_type {
            Some(field) if !symptom.event_type.is_empty() => {
                of_all(format!("{} = {}", column(field), literal(symptom.event_type.as_bytes())))
            }
            _ => of_all("true".to_owned()),
        },
    }
}

/// What the judge itself counted, of the windows in which it was out of order.
fn shares(source: &str, alert: &Alert, symptom: &Symptom, since: i64) -> String {
    let Symptom { indicator, event_type, field, scope, .. } = symptom;
    let is = |name: &str, value: &str| format!("{} = {}", column(name), literal(value.as_bytes()));
    let mut conditions = vec![is("source", source), is("indicator", indicator.family.name())];
    conditions.push(format!("{} = {}", column("code"), indicator.code));
    conditions.extend([is("event_type", event_type), is("field", field)]);
    conditions.extend((alert.tenants_count == 1).then(|| is("tenant", &symptom.tenant)));
    conditions.extend(scope.sdk.as_ref().map(|sdk| is("sdk", sdk)));
    conditions.push(format!("{} >= {}", column("window_start"), time(since)));
    format!(
        "SELECT e.window_start AS window, concat(e.sdk, ' ', e.sdk_version, ' / ', e.app_version) AS release, \
         sum(e.affected) AS affected, sum(e.records) AS records, round(affected / records, 4) AS share FROM {} AS e \
         WHERE {} GROUP BY 1, 2 ORDER BY 1, 2",
        tables::SHARES,
        conditions.join(" AND ")
    )
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

/// A column, qualified: an alias of the same name is never taken for it.
fn column(name: &str) -> String {
    format!("e.{}", quoted(name))
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}
