//! Questions about Weir's own tables: completeness, ledger, quarantine, alerts, releases.
//!
//! All of them are bounded by a limit; those over records also by a time, since the tables grow for ever.

use weir_schemas::fate::Fate;
use weir_schemas::tables;
use weir_sinks::clickhouse::{identifier, literal};

use super::catalog::{Catalog, Source};
use super::question::{Parameter, Question, TIME};

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
    Question { sql, parameters: vec![text("fingerprint", fingerprint)] }
}

/// What of a release's records is refused, by time: rows of `time`, `release`, `refused` and `accepted`. Where `reason` or
/// `rule` isn't empty, only it counts as refused. Nothing where no source keeps its accepted events.
pub(super) fn shares(catalog: &Catalog, range: (i64, i64), step_s: i64, reason: &str, rule: &str) -> Option<Question> {
    catalog.releases().next()?;
    let mut parameters = bounds(range);
    let mut only = String::new();
    for (column, value) in [("reason", reason), ("rule", rule)].into_iter().filter(|(_, value)| !value.is_empty()) {
        only.push_str(&format!(" AND {column} = {{{column}:String}}"));
        parameters.push(text(column, value));
    }
    let sql = format!(
        "SELECT toStartOfInterval(at, INTERVAL {step_s} SECOND) AS time, release, sum(refused) AS refused, \
         count() - refused AS accepted\nFROM (\n{})\nGROUP BY time, release\nORDER BY time, release\nLIMIT {SHARES}",
        records(catalog, &only)
    );
    Some(Question { sql, parameters })
}

/// Releases: since when, how many records, which share of them is refused. Without kept events only refused ones are known.
pub(super) fn releases(catalog: &Catalog, from_s: i64, to_s: i64) -> Question {
    let sql = format!(
        "SELECT release, min(at) AS first_seen, max(at) AS last_seen, count() AS records, sum(refused) AS refused_records, \
         refused_records / records AS share\nFROM (\n{})\n\
         GROUP BY release\nORDER BY share DESC, records DESC, release\nLIMIT {LISTED}",
        records(catalog, "")
    );
    Question { sql, parameters: bounds((from_s, to_s)) }
}

/// Why a release's records are refused, of the same records that [`releases`] counts.
pub(super) fn reasons(catalog: &Catalog, release: &str, from_s: i64, to_s: i64) -> Question {
    let sql = format!(
        "SELECT reason, rule, field, count() AS records, any(expected) AS expects, any(found) AS finds, \
         any(concat(topic, '/', toString(partition), '@', toString(offset))) AS place\nFROM {}\n\
         WHERE {} AND {RELEASE} = {{release:String}}\n\
         GROUP BY reason, rule, field\nORDER BY records DESC, reason, rule, field\nLIMIT {LISTED}",
        catalog.qualified(tables::QUARANTINE),
        are_refused(catalog),
    );
    let mut parameters = bounds((from_s, to_s));
    parameters.push(text("release", release));
    Question { sql, parameters }
}

/// A release as one text, of a refused record.
const RELEASE: &str = "concat(sdk, ' ', sdk_version, ' / ', app_version)";
/// When a refused record happened, as far as is known.
const AT: &str = "ifNull(toDateTime64(event_time, 3, 'UTC'), kafka_time)";

fn bounds((from_s, to_s): (i64, i64)) -> Vec<Parameter> {
    let time = |name: &str, at| Parameter { name: name.to_owned(), kind: TIME, value: super::question::shown(at) };
    vec![time("from", from_s), time("to", to_s)]
}

fn text(name: &str, value: &str) -> Parameter {
    Parameter { name: name.to_owned(), kind: "String", value: value.to_owned() }
}

/// Records of the range as rows of `at`, `release` and `refused`, which is 1 or 0: refused ones that meet `only`, and the
/// accepted ones of the sources that keep them. Both are of the same sources and of the days that those keep, as in
/// `weir_releases`; where none keeps any, refused ones of all sources are all that is known.
fn records(catalog: &Catalog, only: &str) -> String {
    let refused = format!(
        "  SELECT {AT} AS at, {RELEASE} AS release, 1 AS refused\n  FROM {}\n  WHERE {}{only}\n",
        catalog.qualified(tables::QUARANTINE),
        are_refused(catalog)
    );
    let accepted = catalog.releases().map(|(source, release)| {
        let [sdk, version, app] = release.each_ref().map(|column| match column {
            Some(name) => format!("ifNull(toString(e.{}), '')", identifier(name)),
            None => "''".to_owned(),
        });
        format!(
            "  UNION ALL\n  SELECT toDateTime64(e._event_time, 3, 'UTC') AS at, \
             concat({sdk}, ' ', {version}, ' / ', {app}) AS release, 0 AS refused\n  FROM {} AS e\n  \
             WHERE e._event_time >= {FROM} AND e._event_time < {TO}\n",
            catalog.qualified(&source.name)
        )
    });
    std::iter::once(refused).chain(accepted).collect()
}

/// The condition of refused records of the range that count.
fn are_refused(catalog: &Catalog) -> String {
    let of = |(source, _): (&Source, _)| {
        let topics: Vec<String> = source.topics.iter().map(|topic| literal(topic)).collect();
        let days = source.keep_events_days.unwrap_or_default();
        format!("topic IN ({}) AND {AT} >= now() - toIntervalDay({days})", topics.join(", "))
    };
    let of: Vec<String> = catalog.releases().map(of).collect();
    let of = if of.is_empty() { String::new() } else { format!(" AND ({})", of.join(" OR ")) };
    // An event isn't a day older or newer than its record, nearly always: so parts of other days aren't read.
    format!("kafka_time >= {FROM} - INTERVAL 1 DAY AND {AT} >= {FROM} AND {AT} < {TO} AND NOT {LATE}{of}")
}

const FROM: &str = "{from:DateTime('UTC')}";
const TO: &str = "{to:DateTime('UTC')}";

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, keep_events_days: Option<u32>, release: Option<[Option<String>; 3]>) -> Source {
        let topics = vec![format!("{name}-topic")];
        Source { name: name.to_owned(), topics, keep_events_days, release, ..Source::default() }
    }

    #[test]
    fn accepted_and_refused_records_are_of_the_same_sources() {
        let named = [Some("sdk".to_owned()), None, Some("app".to_owned())];
        let sources = vec![source("kept", Some(30), Some(named)), source("other", None, None)];
        let catalog = Catalog { database: "weir".to_owned(), sources, ..Catalog::default() };
        let question = shares(&catalog, (0, 60), 60, "rule", "it's").expect("events are kept");
        for part in [
            "FROM `weir`.`kept` AS e",
            "concat(ifNull(toString(e.`sdk`), ''), ' ', '', ' / ', ifNull(toString(e.`app`), ''))",
            "topic IN ('kept-topic')",
            "toIntervalDay(30)",
            "AND reason = {reason:String} AND rule = {rule:String}",
        ] {
            assert!(question.sql.contains(part), "{part} isn't in\n{}", question.sql);
        }
        assert!(!question.sql.contains("other"), "{}", question.sql);
        assert!(question.to_copy().contains("rule = 'it\\'s'"), "{}", question.to_copy());
        let same = reasons(&catalog, "web 1 / 2", 0, 60).sql.contains(&are_refused(&catalog));
        assert!(same && releases(&catalog, 0, 60).sql.contains(&are_refused(&catalog)));
    }

    #[test]
    fn without_kept_events_refused_records_of_all_sources_are_known() {
        let catalog = Catalog { sources: vec![source("other", None, None)], ..Catalog::default() };
        assert!(shares(&catalog, (0, 60), 60, "", "").is_none());
        assert!(!releases(&catalog, 0, 60).sql.contains("topic IN"));
    }
}
