//! `weir alerts list`: the open alerts.

use std::path::Path;

use weir_schemas::tables;

use super::{Current, clickhouse, json, pipeline, print_line, select, severity, share, short, status, time};
use crate::out::say;
use crate::{Outcome, counted, paint, runtime};

/// Alerts that are listed at most.
const LISTED: usize = 1_000;

pub(super) fn run(file: &Path, all: bool, as_json: bool) -> Result<Outcome, Outcome> {
    let client = clickhouse(&pipeline(file)?)?;
    let condition = if all { "" } else { "WHERE status != 'resolved' " };
    let order = "indexOf(['critical', 'warning', 'info'], severity), affected_records DESC, fingerprint";
    let rest = format!("{condition}ORDER BY status = 'resolved', {order} LIMIT {LISTED}");
    let found: Vec<Current> = runtime()?.block_on(select(&client, tables::ALERTS, ", acknowledged_by", &rest))?;
    if as_json {
        for current in &found {
            if !print_line(&json(&current.alert)?) {
                break;
            }
        }
        return Ok(Outcome::done());
    }
    if found.is_empty() {
        say!("{}", if all { "no alert" } else { "no open alert" });
        return Ok(Outcome::done());
    }
    let mut table =
        paint::table(&["fingerprint", "severity", "status", "cause", "what", "share", "since", "owner", ""]);
    for Current { alert, acknowledged_by } in &found {
        let what = [&alert.rule, &alert.reason, &alert.indicator].into_iter().find(|text| !text.is_empty());
        let note = match (acknowledged_by.as_str(), alert.suppressed_by.as_str()) {
            ("", "") => String::new(),
            ("", by) => paint::dim(&format!("suppressed by {by}")),
            (by, _) => paint::dim(&format!("{by} has it")),
        };
        table.add_row([
            short(&alert.fingerprint).to_owned(),
            severity(alert),
            status(alert),
            format!("{} {}", alert.cause_kind, alert.cause),
            what.cloned().unwrap_or_default(),
            share(alert),
            time(alert.opened_at),
            alert.owner.clone(),
            note,
        ]);
    }
    say!("{table}\n{}", paint::dim(&counted(found.len(), "alert")));
    Ok(Outcome::done())
}
