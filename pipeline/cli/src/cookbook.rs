//! The cookbook: questions that people really ask, each with the SQL that answers it.
//!
//! Each is a file of `dashboards/cookbook`, which any ClickHouse client can run. Its first lines are comments: the
//! question, then `for` whom, what it `reads`, and a line for each of its parameters with the value that is taken when none
//! is given: a text, `now`, or a time before it such as `7 days ago`. A test runs every one of them against other SQL over the
//! accepted events.

use weir_schemas::time::EventTime;

/// A question with its answer in SQL.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The file's name without `.sql`.
    pub name: &'static str,
    /// The question.
    pub question: String,
    /// Who asks it: analysts, engineers or SDK teams.
    pub audience: String,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
    /// The whole file.
    pub sql: &'static str,
}

/// A `{name:Type}` of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// Its name.
    pub name: String,
    /// What is taken when nothing is given, as it is written.
    pub default: String,
}

macro_rules! entry {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../dashboards/cookbook/", $name, ".sql")))
    };
}

const FILES: &[(&str, &str)] = &[
    entry!("adoption"),
    entry!("against_the_period_before"),
    entry!("alert_steps"),
    entry!("average_order_by_hour"),
    entry!("busiest_minutes"),
    entry!("corrections"),
    entry!("duplicates_by_tenant"),
    entry!("epochs_by_partition"),
    entry!("event_types_by_release"),
    entry!("fates_by_hour"),
    entry!("first_bad_record"),
    entry!("how_complete"),
    entry!("lag_by_partition"),
    entry!("late_by_partition"),
    entry!("ledger_balance"),
    entry!("median_purchase"),
    entry!("open_alerts"),
    entry!("quarantine_by_reason"),
    entry!("records_by_minute"),
    entry!("refused_by_rule"),
    entry!("refused_share_by_release"),
    entry!("releases"),
    entry!("revenue_by_country"),
    entry!("revenue_by_day"),
    entry!("send_delay"),
    entry!("shoppers_by_day"),
    entry!("shoppers_over_range"),
    entry!("table_sizes"),
    entry!("undecodable_by_schema"),
    entry!("versions"),
    entry!("visitors_by_platform"),
    entry!("who_holds_back"),
];

/// Every entry, by name.
pub(crate) fn all() -> Vec<Entry> {
    FILES.iter().map(|(name, sql)| parse(name, sql)).collect()
}

fn parse(name: &'static str, sql: &'static str) -> Entry {
    let mut entry = Entry { name, question: String::new(), audience: String::new(), parameters: Vec::new(), sql };
    for line in sql.lines().map_while(|line| line.strip_prefix("-- ")) {
        if let Some(audience) = line.strip_prefix("for ") {
            entry.audience = audience.to_owned();
        } else if let Some((declared, default)) = line.strip_prefix('{').and_then(|line| line.split_once("} =")) {
            let name = declared.split(':').next().unwrap_or_default().to_owned();
            entry.parameters.push(Parameter { name, default: default.trim().to_owned() });
        } else if entry.audience.is_empty() {
            let space = if entry.question.is_empty() { "" } else { " " };
            entry.question.push_str(space);
            entry.question.push_str(line);
        }
    }
    entry
}

/// What a default means at the time `now`: times as ClickHouse reads them, in UTC, all else as it stands.
pub(crate) fn default_value(default: &str, now: EventTime) -> String {
    let words: Vec<&str> = default.split_whitespace().collect();
    let ago_seconds = match words.as_slice() {
        ["now"] => Some(0),
        [number, unit, "ago"] => seconds_of(unit).and_then(|seconds| number.parse::<i64>().ok()?.checked_mul(seconds)),
        _ => None,
    };
    let time =
        ago_seconds.and_then(|ago| chrono::DateTime::from_timestamp(now.0.div_euclid(1_000_000).checked_sub(ago)?, 0));
    time.map_or_else(|| default.to_owned(), |time| time.format("%Y-%m-%d %H:%M:%S").to_string())
}

fn seconds_of(unit: &str) -> Option<i64> {
    match unit.trim_end_matches('s') {
        "minute" => Some(60),
        "hour" => Some(3_600),
        "day" => Some(86_400),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_an_entry_that_says_what_it_is() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dashboards/cookbook");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .expect("the cookbook")
            .map(|entry| entry.expect("a file").file_name().to_string_lossy().trim_end_matches(".sql").to_owned())
            .collect();
        files.sort();
        assert_eq!(files, all().iter().map(|entry| entry.name).collect::<Vec<_>>());
        for entry in all() {
            assert!(entry.question.ends_with(['?', '.', ')']), "{}: {}", entry.name, entry.question);
            assert!(["analysts", "engineers", "SDK teams"].contains(&entry.audience.as_str()), "{}", entry.name);
            assert!(entry.sql.contains("\n-- reads "), "{}", entry.name);
            for parameter in &entry.parameters {
                let used = format!("{{{}:", parameter.name);
                assert!(entry.sql.matches(&used).count() > 1, "{}: {} isn't used", entry.name, parameter.name);
            }
        }
        for audience in ["analysts", "engineers", "SDK teams"] {
            assert!(all().iter().filter(|entry| entry.audience == audience).count() >= 10, "{audience}");
        }
    }

    #[test]
    fn defaults_are_times_before_now() {
        let now = EventTime(1_767_225_600_000_000);
        assert_eq!(default_value("now", now), "2026-01-01 00:00:00");
        assert_eq!(default_value("7 days ago", now), "2025-12-25 00:00:00");
        assert_eq!(default_value("1 hour ago", now), "2025-12-31 23:00:00");
        assert_eq!(default_value("", now), "");
        assert_eq!(default_value("alpine", now), "alpine");
    }
}
