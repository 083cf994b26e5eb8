//! Questions about Weir's own tables: completeness, ledger, quarantine, alerts, releases.
//!
//! All of them are bounded by a limit; those over records also by a time, since the tables grow for ever.

use weir_schemas::fate::Fate;
use weir_schemas::tables;
use weir_sinks::clickhouse::{identifier, literal};

use super::catalog::Catalog;
use super::question::{Parameter, Question};

/// Rows of a list, at most.
const LISTED: usize = 500;
/// Points of an alert's history, at most.
const STEPS: usize = 2_000;
/// Rows of shares by release and time.
const SHARES: usize = 50_000;

/// Reasons whose records count as too late and not as quarantined.
const LATE: &str = "reason IN ('too_late', 'too_late_after_idle')";

/// Columns of an alert that a list shows.
const BRIEF: &[&str] = &[
    "fingerprint",
    "status",
    "severity",
    "owner",
    "opened_at",
    "last_seen_at",
    "detector",
    "indicator",
    "cause_kind",
    "cause",
    "source",
    "tenants",
    "tenant_count",
    "sdk",
    "sdk_version",
    "app_version",
    "last_good_release",
    "fields",
    "event_types",
    "rule",
    "reason",
    "detail",
    "affected_records",
    "records",
    "affected_share",
    "affected_users",
    "suppressed_by",
    "acknowledged_by",
];

/// How far each view is complete.
pub(super) fn progress(catalog: &Catalog) -> Question {
    let from = catalog.qualified(tables::PROGRESS);
    Question::plain(format!(
        "SELECT view, complete_through, final_through, held_back_by, committed_at, epoch FROM {from} ORDER BY view LIMIT {LISTED}"
    ))
}

/// Records by fate, over all time, and how many rows don't balance.
pub(super) fn books(catalog: &Catalog) -> Question {
    let fates: Vec<String> = Fate::ALL.iter().map(|fate| format!("l.{}", fate.name())).collect();
    let sums: Vec<String> = Fate::ALL.iter().map(|fate| format!("sum(l.{0}) AS {0}", fate.name())).collect();
    Question::plain(format!(
        "SELECT l.source AS source, sum(l.consumed) AS consumed, {}, countIf(l.consumed != {}) AS unbalanced\n\
         FROM {} AS l\nGROUP BY source\nORDER BY source\nLIMIT {LISTED}",
        sums.join(", "),
        fates.join(" + "),
        catalog.ledger()
    ))
}

/// Records by fate and minute, over the newest hour of event time: the newest of all, since history may be read.
pub(super) fn ledger(catalog: &Catalog) -> Question {
    let sums: Vec<String> = Fate::ALL.iter().map(|fate| format!("sum(l.{0}) AS {0}", fate.name())).collect();
    let ledger = catalog.ledger();
    Question::plain(format!(
        "SELECT l.minute AS minute, sum(l.consumed) AS consumed, {}\nFROM {ledger} AS l\n\
         WHERE l.minute > (SELECT max(minute) FROM {ledger}) - INTERVAL 1 HOUR\n\
         GROUP BY minute\nORDER BY minute\nLIMIT {STEPS}",
        sums.join(", "),
    ))
}

/// What was refused, by cause.
pub(super) fn causes(catalog: &Catalog, is_retried: &str) -> Question {
    Question::plain(format!(
        "SELECT fingerprint AS cause, any(reason) AS why, any(rule) AS rules, any(field) AS about, any(owner) AS whose, \
         any(severity) AS how_bad, any(detail) AS details, any(expected) AS expects, any(found) AS finds, \
         min(kafka_time) AS first_seen, max(kafka_time) AS last_seen, \
         arraySort(groupUniqArray(5)(trimBoth(concat(sdk, ' ', sdk_version, ' / ', app_version)))) AS releases, \
         arraySort(groupUniqArray(5)(tenant)) AS tenants, countIf(NOT {is_retried}) AS waiting, \
         countIf({is_retried}) AS retried, any({LATE}) AS is_late, \
         any(concat(topic, '/', toString(partition), '@', toString(offset))) AS place\n\
         FROM {}\nGROUP BY fingerprint\nORDER BY waiting DESC, retried DESC, cause\nLIMIT {LISTED}",
        catalog.qualified(tables::QUARANTINE)
    ))
}

/// Alerts, the open ones first and of those the worst.
pub(super) fn alerts(catalog: &Catalog, with_resolved: bool, limit: usize) -> Question {
    let condition = if with_resolved { "" } else { "WHERE status != 'resolved'\n" };
    Question::plain(format!(
        "SELECT {}\nFROM {}\n{condition}ORDER BY status = 'resolved', indexOf(['critical', 'warning', 'info'], severity), \
         last_seen_at DESC, fingerprint\nLIMIT {limit}",
        BRIEF.join(", "),
        catalog.qualified(tables::ALERTS)
    ))
}

/// One alert with everything that is known of it.
pub(super) fn alert(catalog: &Catalog, fingerprint: &str) -> Question {
    of_alert(format!("SELECT *\nFROM {}\nWHERE fingerprint = {IS}", catalog.qualified(tables::ALERTS)), fingerprint)
}

/// Its steps.
pub(super) fn steps(catalog: &Catalog, fingerprint: &str) -> Question {
    let sql = format!(
        "SELECT window_start, window_end, revision, status, status_reason, severity, affected_share, affected_records, \
         records, seen, expected, expected_lower, expected_upper\nFROM {}\nWHERE fingerprint = {IS}\n\
         ORDER BY window_start, revision\nLIMIT {STEPS}",
        catalog.qualified(tables::ALERTS_HISTORY)
    );
    of_alert(sql, fingerprint)
}

const IS: &str = "{fingerprint:String}";

fn of_alert(sql: String, fingerprint: &str) -> Question {
    let value = fingerprint.to_owned();
    Question { sql, parameters: vec![Parameter { name: "fingerprint".to_owned(), kind: "String", value }] }
}

/// What of a release's records is refused, by time: rows of `time`, `release`, `refused` and `accepted`. Where `reason` or
/// `rule` isn't empty, only it counts as refused. Nothing where no source keeps its accepted events.
pub(super) fn shares(catalog: &Catalog, range: (i64, i64), step_s: i64, reason: &str, rule: &str) -> Option<Question> {
    let (from_s, to_s) = range;
    let accepted = accepted(catalog, from_s, to_s)?;
    let only = |column: &str, value: &str| match value {
        "" => String::new(),
        value => format!(" AND {column} = {}", literal(value)),
    };
    let reason = only("reason", reason) + &only("rule", rule);
    let (from, to) = bounds(from_s, to_s);
    Some(Question::plain(format!(
        "SELECT toStartOfInterval(at, INTERVAL {step_s} SECOND) AS time, release, sum(refused) AS refused, \
         count() - refused AS accepted\nFROM (\n  \
         SELECT ifNull(toDateTime64(event_time, 3, 'UTC'), kafka_time) AS at, \
         concat(sdk, ' ', sdk_version, ' / ', app_version) AS release, 1 AS refused\n  FROM {}\n  \
         WHERE kafka_time >= {from} - INTERVAL 1 DAY AND at >= {from} AND at < {to} AND NOT {LATE}{reason}\n  \
         UNION ALL\n{accepted})\nGROUP BY time, release\nORDER BY time, release\nLIMIT {SHARES}",
        catalog.qualified(tables::QUARANTINE)
    )))
}

/// Releases: since when, how many records, which share of them is refused. Without kept events only refused ones are known.
pub(super) fn releases(catalog: &Catalog, from_s: i64, to_s: i64) -> Question {
    let (from, to) = bounds(from_s, to_s);
    let accepted = accepted(catalog, from_s, to_s).map(|select| format!("  UNION ALL\n{select}")).unwrap_or_default();
    Question::plain(format!(
        "SELECT release, min(at) AS first_seen, max(at) AS last_seen, count() AS records, sum(refused) AS refused_records, \
         refused_records / records AS share\nFROM (\n  \
         SELECT ifNull(toDateTime64(event_time, 3, 'UTC'), kafka_time) AS at, \
         concat(sdk, ' ', sdk_version, ' / ', app_version) AS release, 1 AS refused\n  FROM {}\n  \
         WHERE kafka_time >= {from} - INTERVAL 1 DAY AND at >= {from} AND at < {to} AND NOT {LATE}\n{accepted})\n\
         GROUP BY release\nORDER BY share DESC, records DESC, release\nLIMIT {LISTED}",
        catalog.qualified(tables::QUARANTINE)
    ))
}

/// Why a release's records are refused.
pub(super) fn reasons(catalog: &Catalog, release: &str, from_s: i64, to_s: i64) -> Question {
    let (from, to) = bounds(from_s, to_s);
    let sql = format!(
        "SELECT reason, rule, field, count() AS records, any(expected) AS expects, any(found) AS finds, \
         any(concat(topic, '/', toString(partition), '@', toString(offset))) AS place\nFROM {}\n\
         WHERE kafka_time >= {from} AND kafka_time < {to} + INTERVAL 1 DAY AND NOT {LATE} \
         AND concat(sdk, ' ', sdk_version, ' / ', app_version) = {{release:String}}\n\
         GROUP BY reason, rule, field\nORDER BY records DESC, reason, rule, field\nLIMIT {LISTED}",
        catalog.qualified(tables::QUARANTINE)
    );
    let release = Parameter { name: "release".to_owned(), kind: "String", value: release.to_owned() };
    Question { sql, parameters: vec![release] }
}

fn bounds(from_s: i64, to_s: i64) -> (String, String) {
    let time = |at| format!("toDateTime({}, 'UTC')", literal(&super::question::shown(at)));
    (time(from_s), time(to_s))
}

/// Accepted events of all sources that keep them with their releases, as rows of `at`, `release` and 0.
fn accepted(catalog: &Catalog, from_s: i64, to_s: i64) -> Option<String> {
    let (from, to) = bounds(from_s, to_s);
    let sources = catalog.releases().into_iter().map(|(source, [sdk, version, app])| {
        let column = |name: &str| format!("toString(e.{})", identifier(name));
        format!(
            "  SELECT toDateTime64(e._event_time, 3, 'UTC') AS at, concat({}, ' ', {}, ' / ', {}) AS release, 0 AS refused\n  \
             FROM {} AS e\n  WHERE e._event_time >= {from} AND e._event_time < {to}",
            column(sdk),
            column(version),
            column(app),
            catalog.qualified(source)
        )
    });
    let sources: Vec<String> = sources.collect();
    (!sources.is_empty()).then(|| sources.join("\n  UNION ALL\n"))
}
