//! Questions about Weir's own tables: completeness, ledger, quarantine, alerts, releases.
//!
//! All of them are bounded by a limit; those over records also by a time, since the tables grow for ever. [`books`] alone isn't:
//! that every record since ever is accounted for is what it tells, and its table has rows by minute, not by record. Whoever
//! asks for it again and again waits ten times as long as it takes (`live`).

use weir_schemas::fate::Fate;
use weir_schemas::tables;
use weir_sinks::clickhouse::{identifier, literal};

use super::catalog::{Catalog, Source};
use super::question::{Parameter, Question, TIME};

/// Rows of a list, at most.
pub(super) const LISTED: usize = 500;
/// Days of refused records whose causes are listed.
pub(super) const CAUSES_DAYS: u32 = 7;
/// Points of an alert's history, at most.
const STEPS: usize = 2_000;
/// Rows of shares by release and time that are told, the newest.
pub(super) const SHARES: usize = 50_000;

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

/// What was refused, by cause, of the newest [`CAUSES_DAYS`] days of the topics; [`LISTED`] of them, and one more where that isn't
/// all. The newest of all, since history may be read; but not later than now, since anybody may give a record a time to come.
pub(super) fn causes(catalog: &Catalog, is_retried: &str) -> Question {
    let quarantine = catalog.qualified(tables::QUARANTINE);
    Question::plain(format!(
        "SELECT fingerprint AS cause, any(reason) AS why, any(rule) AS rules, any(field) AS about, any(owner) AS whose, \
         any(severity) AS how_bad, any(detail) AS details, any(expected) AS expects, any(found) AS finds, \
         min(kafka_time) AS first_seen, max(kafka_time) AS last_seen, \
         arraySort(groupUniqArray(5)(trimBoth(concat(sdk, ' ', sdk_version, ' / ', app_version)))) AS releases, \
         arraySort(groupUniqArray(5)(tenant)) AS tenants, countIf(NOT {is_retried}) AS waiting, \
         countIf({is_retried}) AS retried, any({LATE}) AS is_late, \
         any(concat(topic, '/', toString(partition), '@', toString(offset))) AS place\n\
         FROM {quarantine}\n\
         WHERE kafka_time > (SELECT least(max(kafka_time), now64(3, 'UTC')) FROM {quarantine}) - INTERVAL {CAUSES_DAYS} DAY\n\
         GROUP BY fingerprint\nORDER BY waiting DESC, retried DESC, cause\nLIMIT {}",
        LISTED + 1
    ))
}

/// Alerts, the open ones first and of those the worst: `limit` of them, and one more where that isn't all.
pub(super) fn alerts(catalog: &Catalog, with_resolved: bool, limit: usize) -> Question {
    let condition = if with_resolved { "" } else { "WHERE status != 'resolved'\n" };
    Question::plain(format!(
        "SELECT {}\nFROM {}\n{condition}ORDER BY status = 'resolved', indexOf(['critical', 'warning', 'info'], severity), \
         last_seen_at DESC, fingerprint\nLIMIT {}",
        BRIEF.join(", "),
        catalog.qualified(tables::ALERTS),
        limit + 1
    ))
}

/// One alert with everything that is known of it.
pub(super) fn alert(catalog: &Catalog, fingerprint: &str) -> Question {
    of_alert(format!("SELECT *\nFROM {}\nWHERE fingerprint = {IS}", catalog.qualified(tables::ALERTS)), fingerprint)
}

/// The SQL that it carries to look further with.
pub(super) fn query(catalog: &Catalog, fingerprint: &str) -> Question {
    of_alert(format!("SELECT query\nFROM {}\nWHERE fingerprint = {IS}", catalog.qualified(tables::ALERTS)), fingerprint)
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

/// The width of points of refused records, in seconds, for a range.
pub(super) fn step_of(range_s: i64) -> i64 {
    [60, 300, 900, 3_600].into_iter().find(|step| range_s / step <= 300).unwrap_or(21_600)
}

/// Which records are asked for by release.
#[derive(Clone, Copy, Default)]
pub(super) struct Which<'a> {
    /// The one source, where it is one.
    pub(super) source: Option<&'a Source>,
    /// The one tenant.
    pub(super) tenant: Option<&'a str>,
    /// The one reason that counts as refused; empty for all.
    pub(super) reason: &'a str,
    /// The one rule that does.
    pub(super) rule: &'a str,
}

impl Which<'_> {
    /// The sources whose accepted events say which release sent them.
    fn kept<'c>(&'c self, catalog: &'c Catalog) -> Vec<(&'c Source, &'c [Option<String>; 3])> {
        match self.source {
            Some(source) => source.release.iter().map(|release| (source, release)).collect(),
            None => catalog.releases().collect(),
        }
    }
}

/// What of a release's records is refused, by time: rows of `time`, `release`, `affected` and `records`. Where no source keeps its
/// accepted events, `records` are the refused ones alone.
pub(super) fn shares(catalog: &Catalog, range: (i64, i64), step_s: i64, which: &Which<'_>) -> Question {
    let mut parameters = bounds(range);
    let named = [("reason", which.reason), ("rule", which.rule)].into_iter().filter(|(_, value)| !value.is_empty());
    parameters
        .extend(named.chain(which.tenant.map(|tenant| ("tenant", tenant))).map(|(name, value)| text(name, value)));
    let sql = format!(
        "SELECT toStartOfInterval(at, INTERVAL {step_s} SECOND) AS time, release, sum(refused) AS affected, \
         count() AS records\nFROM (\n{})\nGROUP BY time, release",
        records(catalog, which)
    );
    Question { sql: newest(&sql), parameters }
}

/// Rows of `time`, `release`, `affected` and `records` in order of time: the newest [`SHARES`] of them, and one more where that
/// isn't all. What happens now is what people look for, so it is the oldest that are left out.
pub(super) fn newest(sql: &str) -> String {
    format!(
        "SELECT time, release, affected, records\nFROM (\n{sql}\nORDER BY time DESC, release\nLIMIT {}\n)\n\
         ORDER BY time, release",
        SHARES + 1
    )
}

/// Releases: since when, how many records, which share of them is refused; the worst [`LISTED`], and one more where that isn't
/// all. Without kept events only refused ones are known.
pub(super) fn releases(catalog: &Catalog, from_s: i64, to_s: i64) -> Question {
    let sql = format!(
        "SELECT release, min(at) AS first_seen, max(at) AS last_seen, count() AS records, sum(refused) AS refused_records, \
         refused_records / records AS share\nFROM (\n{})\n\
         GROUP BY release\nORDER BY share DESC, records DESC, release\nLIMIT {}",
        records(catalog, &Which::default()),
        LISTED + 1
    );
    Question { sql, parameters: bounds((from_s, to_s)) }
}

/// One release beside all others whose name is known, however many those are: a single row, with zeros where nothing was seen.
pub(super) fn one_release(catalog: &Catalog, release: &str, from_s: i64, to_s: i64) -> Question {
    let sql = format!(
        "SELECT sumIf(of_release, is_own) AS own_records, sumIf(refused_of_release, is_own) AS own_refused, \
         minIf(first_at, is_own) AS own_first_seen, maxIf(last_at, is_own) AS own_last_seen, countIf(NOT is_own) AS others, \
         sumIf(of_release, NOT is_own) AS others_records, sumIf(refused_of_release, NOT is_own) AS others_refused\nFROM (\n\
         SELECT release, (release = {{release:String}}) AS is_own, min(at) AS first_at, max(at) AS last_at, count() AS of_release, \
         sum(refused) AS refused_of_release\nFROM (\n{})\nGROUP BY release\n)\nWHERE is_own OR trimBoth(release) != '/'",
        records(catalog, &Which::default())
    );
    let mut parameters = bounds((from_s, to_s));
    parameters.push(text("release", release));
    Question { sql, parameters }
}

/// Why a release's records are refused, of the same records that [`releases`] counts.
pub(super) fn reasons(catalog: &Catalog, release: &str, from_s: i64, to_s: i64) -> Question {
    let sql = format!(
        "SELECT reason, rule, field, count() AS records, any(expected) AS expects, any(found) AS finds, \
         any(concat(topic, '/', toString(partition), '@', toString(offset))) AS place\nFROM {}\n\
         WHERE {} AND {RELEASE} = {{release:String}}\n\
         GROUP BY reason, rule, field\nORDER BY records DESC, reason, rule, field\nLIMIT {LISTED}",
        catalog.qualified(tables::QUARANTINE),
        are_refused(&Which::default().kept(catalog), None),
    );
    let mut parameters = bounds((from_s, to_s));
    parameters.push(text("release", release));
    Question { sql, parameters }
}

/// A release as one text, of a refused record.
pub(super) const RELEASE: &str = "concat(sdk, ' ', sdk_version, ' / ', app_version)";
/// When a refused record happened, as far as is known.
const AT: &str = "ifNull(toDateTime64(event_time, 3, 'UTC'), kafka_time)";

/// The values of [`FROM`] and [`TO`].
pub(super) fn bounds((from_s, to_s): (i64, i64)) -> Vec<Parameter> {
    let time = |name: &str, at| Parameter { name: name.to_owned(), kind: TIME, value: super::question::shown(at) };
    vec![time("from", from_s), time("to", to_s)]
}

pub(super) fn text(name: &str, value: &str) -> Parameter {
    Parameter { name: name.to_owned(), kind: "String", value: value.to_owned() }
}

/// Records of the range as rows of `at`, `release` and `refused`, which is 1 or 0: refused ones, and the accepted ones of the
/// sources that keep them. Both are of the same sources and of the days that those keep, as in `weir_releases`; where none
/// keeps any, refused ones are all that is known.
fn records(catalog: &Catalog, which: &Which<'_>) -> String {
    let kept = which.kept(catalog);
    let only =
        [("reason", !which.reason.is_empty()), ("rule", !which.rule.is_empty()), ("tenant", which.tenant.is_some())];
    let only =
        only.into_iter().filter(|(_, is_meant)| *is_meant).map(|(name, _)| format!(" AND {name} = {{{name}:String}}"));
    let refused = format!(
        "  SELECT {AT} AS at, {RELEASE} AS release, 1 AS refused\n  FROM {}\n  WHERE {}{}\n",
        catalog.qualified(tables::QUARANTINE),
        are_refused(&kept, which.source),
        only.collect::<String>()
    );
    let accepted = kept.iter().map(|(source, release)| {
        let [sdk, version, app] = release.each_ref().map(|column| match column {
            Some(name) => format!("ifNull(toString(e.{}), '')", identifier(name)),
            None => "''".to_owned(),
        });
        let tenant = match &source.tenant {
            Some(name) if which.tenant.is_some() => {
                format!(" AND toString(e.{}) = {{tenant:String}}", identifier(name))
            }
            _ => String::new(),
        };
        format!(
            "  UNION ALL\n  SELECT toDateTime64(e._event_time, 3, 'UTC') AS at, \
             concat({sdk}, ' ', {version}, ' / ', {app}) AS release, 0 AS refused\n  FROM {} AS e\n  \
             WHERE e._event_time >= {FROM} AND e._event_time < {TO}{tenant}\n",
            catalog.qualified(&source.name)
        )
    });
    std::iter::once(refused).chain(accepted).collect()
}

/// The condition of refused records of the range that count: those of the sources that keep their accepted events; where none
/// does, those of `source`, or all.
fn are_refused(kept: &[(&Source, &[Option<String>; 3])], source: Option<&Source>) -> String {
    let topics = |source: &Source| source.topics.iter().map(|topic| literal(topic)).collect::<Vec<_>>().join(", ");
    let of = |(source, _): &(&Source, _)| {
        let days = source.keep_events_days.unwrap_or_default();
        format!("topic IN ({}) AND {AT} >= now() - toIntervalDay({days})", topics(source))
    };
    let mut of: Vec<String> = kept.iter().map(of).collect();
    of.extend(source.filter(|_| kept.is_empty()).map(|source| format!("topic IN ({})", topics(source))));
    let of = if of.is_empty() { String::new() } else { format!(" AND ({})", of.join(" OR ")) };
    // An event isn't a day older or newer than its record, nearly always: so parts of other days aren't read.
    format!("kafka_time >= {FROM} - INTERVAL 1 DAY AND {AT} >= {FROM} AND {AT} < {TO} AND NOT {LATE}{of}")
}

/// The range of a question, as [`bounds`] gives it.
pub(super) const FROM: &str = "{from:DateTime('UTC')}";
pub(super) const TO: &str = "{to:DateTime('UTC')}";

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, keep_events_days: Option<u32>, release: Option<[Option<String>; 3]>) -> Source {
        let (topics, tenant) = (vec![format!("{name}-topic")], Some("shop".to_owned()));
        Source { name: name.to_owned(), topics, keep_events_days, release, tenant, ..Source::default() }
    }

    #[test]
    fn accepted_and_refused_records_are_of_the_same_sources() {
        let named = [Some("sdk".to_owned()), None, Some("app".to_owned())];
        let sources = vec![source("kept", Some(30), Some(named)), source("other", None, None)];
        let catalog = Catalog { database: "weir".to_owned(), sources, ..Catalog::default() };
        let which = Which { tenant: Some("a"), reason: "rule", rule: "it's", ..Which::default() };
        let question = shares(&catalog, (0, 60), 60, &which);
        for part in [
            "FROM `weir`.`kept` AS e",
            "concat(ifNull(toString(e.`sdk`), ''), ' ', '', ' / ', ifNull(toString(e.`app`), ''))",
            "topic IN ('kept-topic')",
            "toIntervalDay(30)",
            "AND reason = {reason:String} AND rule = {rule:String} AND tenant = {tenant:String}",
            "AND toString(e.`shop`) = {tenant:String}",
        ] {
            assert!(question.sql.contains(part), "{part} isn't in\n{}", question.sql);
        }
        assert!(!question.sql.contains("other"), "{}", question.sql);
        assert!(question.to_copy().contains("rule = 'it\\'s'"), "{}", question.to_copy());
        let same = are_refused(&Which::default().kept(&catalog), None);
        assert!(reasons(&catalog, "web 1 / 2", 0, 60).sql.contains(&same));
        assert!(releases(&catalog, 0, 60).sql.contains(&same));
        assert!(one_release(&catalog, "web 1 / 2", 0, 60).sql.contains(&same));
        // Of the one that keeps none, refused records are all that is known.
        let which = Which { source: catalog.sources.get(1), ..Which::default() };
        let alone = shares(&catalog, (0, 60), 60, &which).sql;
        assert!(alone.contains("topic IN ('other-topic')") && !alone.contains("UNION ALL"), "{alone}");
    }

    #[test]
    fn lists_ask_for_one_more_than_is_told_and_shares_for_the_newest() {
        let catalog = Catalog::default();
        let shares = shares(&catalog, (0, 60), 60, &Which::default()).sql;
        assert!(shares.contains(&format!("ORDER BY time DESC, release\nLIMIT {}\n", SHARES + 1)), "{shares}");
        assert!(shares.ends_with("ORDER BY time, release"), "{shares}");
        let more = format!("LIMIT {}", LISTED + 1);
        assert!(releases(&catalog, 0, 60).sql.ends_with(&more) && causes(&catalog, "0").sql.ends_with(&more));
        // A release's own numbers and those of the others are of all releases.
        let one = one_release(&catalog, "web 1 / 2", 0, 60);
        assert!(!one.sql.contains("LIMIT") && one.to_copy().contains("(release = 'web 1 / 2')"), "{}", one.to_copy());
    }

    #[test]
    fn without_kept_events_refused_records_of_all_sources_are_known() {
        let catalog = Catalog { sources: vec![source("other", None, None)], ..Catalog::default() };
        assert!(!releases(&catalog, 0, 60).sql.contains("topic IN"));
    }
}
