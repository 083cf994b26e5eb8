//! `weir quarantine list`: refused records.

use chrono::DateTime;
use weir_schemas::tables::QUARANTINE;
use weir_sinks::clickhouse::literal;

use super::{Desk, List, begins_with, print_json, text};
use crate::out::say;
use crate::{Outcome, counted, paint};

/// Characters of what was found that a line shows.
const FOUND: usize = 40;

pub(super) fn run(list: &List) -> Result<Outcome, Outcome> {
    let conditions = conditions(list)?;
    let desk = Desk::open(&list.file)?;
    let is_retried = &desk.is_retried;
    let state = match list.state.as_deref() {
        Some("waiting") => format!(" AND NOT {is_retried}"),
        Some(_) => format!(" AND {is_retried}"),
        None => String::new(),
    };
    let rows: Vec<serde_json::Value> = desk.select(&format!(
        "SELECT concat(topic, '/', toString(partition), '@', toString(offset)) AS place, toString(kafka_time) AS at, \
         reason, if(empty(rule), field, rule) AS about, detail, found, \
         trimBoth(concat(sdk, ' ', sdk_version, ' ', app_version)) AS release, tenant, fingerprint AS cause, \
         if({is_retried}, 'retried', 'waiting') AS state FROM {} WHERE {conditions}{state} \
         ORDER BY kafka_time DESC, topic, partition, offset DESC LIMIT {}",
        desk.client.qualified(QUARANTINE),
        list.limit,
    ))?;
    if list.json {
        return Ok(print_json(&rows));
    }
    if rows.is_empty() {
        say!("no refused record");
        return Ok(Outcome::done());
    }
    let mut table = paint::table(&["place", "at", "cause", "reason", "about", "found", "release", "tenant", "state"]);
    for row in &rows {
        let found: String = text(row, "found").chars().take(FOUND).collect();
        let cells = ["place", "at", "cause", "reason", "about"].map(|column| text(row, column));
        let further = ["release", "tenant", "state"].map(|column| text(row, column));
        table.add_row(cells.into_iter().chain([found]).chain(further));
    }
    say!("{table}\n{}", paint::dim(&counted(rows.len(), "record")));
    Ok(Outcome::done())
}

fn conditions(list: &List) -> Result<String, Outcome> {
    let mut all = vec!["1".to_owned()];
    if let Some(cause) = &list.cause {
        all.push(begins_with(cause)?);
    }
    for (column, value) in [("rule", &list.rule), ("tenant", &list.tenant)] {
        all.extend(value.as_ref().map(|value| format!("{column} = {}", literal(value))));
    }
    if let Some(release) = &list.release {
        all.push(format!("{} IN (sdk_version, app_version)", literal(release)));
    }
    match list.since.as_deref().map(DateTime::parse_from_rfc3339) {
        None => {}
        Some(Ok(since)) => all.push(format!("kafka_time >= fromUnixTimestamp64Milli({})", since.timestamp_millis())),
        Some(Err(error)) => {
            let what = format!("--since {}: {error}", list.since.as_deref().unwrap_or_default());
            return Err(Outcome::refused(what, "write a time such as 2026-01-31T12:00:00Z"));
        }
    }
    Ok(all.join(" AND "))
}
