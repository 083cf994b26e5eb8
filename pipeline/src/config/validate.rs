//! What a well-formed pipeline file may still get wrong: bounds, names that must exist, names that clash.

use super::load::Source;
use super::{Pipeline, quality, topics};
use crate::problem::{Problem, nearest};

/// Names that Weir's own tables and views take in the database.
const RESERVED_PREFIX: &str = "weir_";

/// Longer and ClickHouse's expiry times, which end in 2106, could wrap around and rows vanish at once.
const RETENTION_DAYS_MAX: u64 = 10_000;

/// Every problem of `pipeline`'s values.
pub(super) fn validate(source: &Source<'_>, pipeline: &Pipeline) -> Vec<Problem> {
    let mut problems = Vec::new();
    bounds(source, pipeline, &mut problems);
    names(source, pipeline, &mut problems);
    super::judge::check(source, pipeline, &mut problems);
    references(source, pipeline, &mut problems);
    connections(source, pipeline, &mut problems);
    quality::validate(source, &pipeline.quality, &mut problems);
    super::plan::validate(source, pipeline, &mut problems);
    super::alerts::validate(source, pipeline, &mut problems);
    topics::check(source, pipeline, &mut problems);
    super::lineage::validate(source, pipeline, &mut problems);
    super::archive::validate(source, pipeline, &mut problems);
    problems
}

fn bounds(source: &Source<'_>, pipeline: &Pipeline, problems: &mut Vec<Problem>) {
    let mut between = |path: &[&str], value: u64, least: u64, most: u64| {
        if !(least..=most).contains(&value) {
            problems.push(source.problem(
                path,
                format!("`{}` is {value}", path.join(".")),
                format!("take a number from {least} to {most}"),
            ));
        }
    };
    between(&["workers"], pipeline.workers as u64, 1, 256);
    between(&["epoch_ms"], pipeline.epoch_ms, 10, 600_000);
    between(&["in_flight_bytes"], pipeline.in_flight_bytes, 1 << 20, 1 << 40);
    between(&["outbox_bytes"], pipeline.outbox_bytes, 1 << 20, 1 << 44);
    between(&["clickhouse", "insert_every_ms"], pipeline.clickhouse.insert_every_ms, 0, 600_000);
    // A year, in milliseconds: longer spans are a mistake in the unit.
    const YEAR_MS: u64 = 366 * 86_400_000;
    for (name, stream) in &pipeline.sources {
        for (key, value) in [
            ("disorder_ms", stream.disorder_ms),
            ("allowed_lateness_ms", stream.allowed_lateness_ms),
            ("dedup_horizon_ms", stream.dedup_horizon_ms),
            ("future_limit_ms", stream.future_limit_ms),
            ("align_within_ms", stream.align_within_ms),
            ("retry_for_ms", stream.retry_for_ms),
        ] {
            between(&["sources", name, key], value, 0, YEAR_MS);
        }
        between(&["sources", name, "idle_after_ms"], stream.idle_after_ms, 100, YEAR_MS);
        if let Some(days) = stream.keep_events_days {
            between(&["sources", name, "keep_events_days"], u64::from(days), 1, RETENTION_DAYS_MAX);
        }
    }
    for (name, view) in &pipeline.views {
        if let Some(days) = view.retention_days {
            between(&["views", name, "retention_days"], u64::from(days), 1, RETENTION_DAYS_MAX);
        }
    }
    if let Some(detector) = &pipeline.alerts.refused_share {
        between(&["alerts", "refused_share", "window_ms"], detector.window_ms, 1_000, 86_400_000);
        let silent = u64::from(detector.silent_windows);
        between(&["alerts", "refused_share", "silent_windows"], silent, 1, 1_000_000);
        let ordered =
            0.0 <= detector.resolve_below && detector.resolve_below <= detector.open_at && detector.open_at <= 1.0;
        if !ordered {
            problems.push(source.problem(
                &["alerts", "refused_share"],
                "the shares are not in order",
                "write 0 ≤ resolve_below ≤ open_at ≤ 1",
            ));
        }
    }
}

/// What stands in the way of a connection before anybody is asked.
fn connections(source: &Source<'_>, pipeline: &Pipeline, problems: &mut Vec<Problem>) {
    let registry = &pipeline.registry;
    if registry.user.is_some() && registry.token.is_some() {
        problems.push(source.problem(
            &["registry", "token"],
            "both a `user` and a `token` are given for the registry",
            "leave one of them out: a user has a password, a token stands for itself",
        ));
    }
    for (section, file) in [("registry", &registry.ca_file), ("clickhouse", &pipeline.clickhouse.ca_file)] {
        let Some(file) = file else { continue };
        if let Err(error) = std::fs::read(file).map_err(|error| error.to_string()).and_then(|pem| certificates(&pem)) {
            problems.push(source.problem(
                &[section, "ca_file"],
                format!("{}: {error}", file.display()),
                "give a readable file of certificates in PEM; a relative path starts at the pipeline file's folder",
            ));
        }
    }
}

/// Whether there is a certificate in a PEM file; what is in it, the client looks at.
fn certificates(pem: &[u8]) -> Result<(), String> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    match pem.windows(BEGIN.len()).any(|window| window == BEGIN) {
        true => Ok(()),
        false => Err("there is no certificate in it".to_owned()),
    }
}

fn names(source: &Source<'_>, pipeline: &Pipeline, problems: &mut Vec<Problem>) {
    let named = [
        ("sources", pipeline.sources.keys().collect::<Vec<_>>()),
        ("views", pipeline.views.keys().collect()),
        ("operators", pipeline.operators.keys().collect()),
    ];
    let mut taken: std::collections::BTreeMap<&str, &str> = std::collections::BTreeMap::new();
    for (section, keys) in named {
        for name in keys {
            let path = [section, name.as_str()];
            if !is_name(name) {
                problems.push(source.problem(
                    &path,
                    format!("`{name}` can't be a table's name"),
                    "use lower-case letters, digits and _, beginning with a letter",
                ));
            } else if name.starts_with(RESERVED_PREFIX) || name.contains("__") {
                problems.push(source.problem(
                    &path,
                    format!("`{name}` is reserved"),
                    format!("names that begin with {RESERVED_PREFIX} or hold __ are Weir's own tables; rename it"),
                ));
            } else if let Some(other) = taken.insert(name, section) {
                problems.push(source.problem(
                    &path,
                    format!("`{name}` stands in [{other}] already"),
                    "sources, views and operators share one database: rename one of them",
                ));
            }
        }
    }
    let databases = [
        ("database", Some(&pipeline.clickhouse.database)),
        ("reader_database", pipeline.clickhouse.reader_database.as_ref()),
    ];
    for (key, name) in databases {
        if let Some(name) = name.filter(|name| !is_name(name)) {
            problems.push(source.problem(
                &["clickhouse", key],
                format!("`{name}` can't be a database's name"),
                "use lower-case letters, digits and _, beginning with a letter",
            ));
        }
    }
    if pipeline.clickhouse.reader_database.as_ref() == Some(&pipeline.clickhouse.database) {
        problems.push(source.problem(
            &["clickhouse", "reader_database"],
            "the readers' database is Weir's own",
            "give it another name, or leave it out: readers' views are in Weir's own database in any case",
        ));
    }
    if pipeline.name.is_empty() || !pipeline.name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        problems.push(source.problem(
            &["name"],
            format!("`{}` can't be a pipeline's name", pipeline.name),
            "use letters, digits, dots, dashes and _: it names consumer groups and transactions",
        ));
    }
}

fn references(source: &Source<'_>, pipeline: &Pipeline, problems: &mut Vec<Problem>) {
    if pipeline.sources.is_empty() {
        problems.push(source.problem(&["sources"], "there is no source", "add a [sources.NAME] section"));
    }
    for (name, stream) in &pipeline.sources {
        if stream.topics.is_empty() {
            problems.push(source.problem(
                &["sources", name, "topics"],
                format!("source `{name}` reads no topic"),
                "name at least one topic",
            ));
        }
        if let Some(topic) = &stream.retry_topic {
            let others =
                pipeline.sources.iter().filter(|(other, _)| *other != name).flat_map(|(_, of)| of.all_topics());
            let quarantine = pipeline.quality.quarantine_topic.clone();
            if others.chain(quarantine).chain(stream.topics.clone()).any(|other| other == *topic) {
                problems.push(source.problem(
                    &["sources", name, "retry_topic"],
                    format!("topic `{topic}` is used for something else already"),
                    "give retries of this source a topic of their own",
                ));
            }
        }
        if stream.schema_file.is_some() && stream.schema_version.is_some() {
            problems.push(source.problem(
                &["sources", name, "schema_version"],
                format!("source `{name}` has a `schema_file` and a `schema_version`"),
                "leave one of them out: each is the whole reader schema",
            ));
        }
        if !matches!(stream.start.as_str(), "earliest" | "latest")
            && chrono::DateTime::parse_from_rfc3339(&stream.start).is_err()
        {
            problems.push(source.problem(
                &["sources", name, "start"],
                format!("`{}` is no place to start", stream.start),
                "write `earliest`, `latest` or a time such as `2026-01-31T00:00:00Z`",
            ));
        }
    }
    for (name, view) in &pipeline.views {
        if !view.file.is_file() {
            problems.push(source.problem(
                &["views", name, "file"],
                format!("view `{name}`: there is no file {}", view.file.display()),
                "the path starts at the pipeline file's folder",
            ));
        }
    }
    let mut known = |section: &str, name: &str, written: &str| {
        if !pipeline.sources.contains_key(written) {
            let remedy = match nearest(written, pipeline.sources.keys().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "name one of [sources]".to_owned(),
            };
            let path: Vec<&str> = section.split('.').chain([name, "source"]).collect();
            problems.push(source.problem(&path, format!("there is no source `{written}`"), remedy));
        }
    };
    for (name, rule) in &pipeline.quality.rules {
        known("quality.rules", name, &rule.source);
    }
    for (name, custom) in &pipeline.operators {
        known("operators", name, &custom.source);
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}
