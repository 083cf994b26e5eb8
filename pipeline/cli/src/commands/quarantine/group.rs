//! `weir quarantine group`: causes, and whether quarantined is what was retried and what waits.

use std::path::Path;

use serde::Deserialize;
use weir_schemas::tables::QUARANTINE;

use super::{Desk, print_json, text};
use crate::out::say;
use crate::{Outcome, counted, paint};

/// The ledger.
const LEDGER: &str = "weir_ledger";

/// Reasons whose records count as too late and not as quarantined.
const LATE: &str = "reason IN ('too_late', 'too_late_after_idle')";

#[derive(Deserialize)]
struct Books {
    quarantined: u64,
    retried: u64,
    waiting: u64,
}

pub(super) fn run(file: &Path, as_json: bool) -> Result<Outcome, Outcome> {
    let desk = Desk::open(file)?;
    let (quarantine, is_retried) = (desk.client.qualified(QUARANTINE), &desk.is_retried);
    let rows: Vec<serde_json::Value> = desk.select(&format!(
        "SELECT fingerprint AS cause, any(reason) AS reason, any(if(empty(rule), field, rule)) AS about, \
         any(owner) AS owner, any(detail) AS detail, toString(min(kafka_time)) AS first_seen, \
         toString(max(kafka_time)) AS last_seen, \
         arrayStringConcat(arraySort(groupUniqArray(5)(trimBoth(concat(sdk, ' ', sdk_version, ' ', app_version)))), ', ') \
         AS releases, countIf(NOT {is_retried}) AS waiting, countIf({is_retried}) AS retried \
         FROM {quarantine} GROUP BY fingerprint ORDER BY waiting DESC, retried DESC, fingerprint"
    ))?;
    if as_json {
        return Ok(print_json(&rows));
    }
    if rows.is_empty() {
        say!("nothing was refused");
        return Ok(Outcome::done());
    }
    let columns = ["cause", "reason", "about", "owner", "waiting", "retried", "first_seen", "last_seen", "releases"];
    let mut table = paint::table(&columns);
    for row in &rows {
        table.add_row(columns.map(|column| text(row, column)));
    }
    say!("{table}\n{}", paint::dim(&counted(rows.len(), "cause")));
    let books: Vec<Books> = desk.select(&format!(
        "SELECT (SELECT sum(quarantined) FROM {}) AS quarantined, countIf({is_retried}) AS retried, \
         countIf(NOT {is_retried}) AS waiting FROM {quarantine} WHERE NOT {LATE}",
        desk.client.qualified(LEDGER)
    ))?;
    if let Some(Books { quarantined, retried, waiting }) = books.first() {
        let is_even = *quarantined == retried + waiting;
        let sum = format!("{quarantined} quarantined, by the ledger; {retried} retried + {waiting} waiting");
        let verdict = if is_even { paint::good("balanced") } else { paint::bad("not balanced") };
        say!("{sum}: {verdict}");
        if !is_even {
            say!("{}", paint::dim("while the pipeline runs, tables are a second or two apart: look again"));
        }
    }
    Ok(Outcome::done())
}
