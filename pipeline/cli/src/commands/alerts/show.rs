//! `weir alerts show`: everything about one alert.

use std::path::Path;

use weir_schemas::tables;
use weir_sinks::kafka::read::Alert;
use weir_sinks::notify::{facts, headline};

use super::{clickhouse, find, json, pipeline, print_line, select, severity, share, status, time};
use crate::out::{printable, say};
use crate::{Outcome, paint, runtime};

/// Steps that are shown at most: the newest.
const STEPS: usize = 200;

pub(super) fn run(file: &Path, fingerprint: &str, as_json: bool) -> Result<Outcome, Outcome> {
    let client = clickhouse(&pipeline(file)?)?;
    let runtime = runtime()?;
    let current = runtime.block_on(find(&client, file, fingerprint))?;
    // Fingerprints are hexadecimal, as `find` has made sure.
    let rest = format!(
        "WHERE fingerprint = '{}' ORDER BY window_start DESC, revision DESC LIMIT {STEPS}",
        current.alert.fingerprint
    );
    let mut steps: Vec<Alert> = runtime.block_on(select(&client, tables::ALERTS_HISTORY, "", &rest))?;
    steps.reverse();
    if as_json {
        for step in &steps {
            if !print_line(&json(step)?) {
                break;
            }
        }
        return Ok(Outcome::done());
    }
    let alert = &current.alert;
    say!("{}\n", paint::bold(&printable(&headline(alert))));
    let mut table = paint::table(&["", ""]);
    table.add_row(["fingerprint", &alert.fingerprint]);
    table.add_row(["status", &status(alert)]);
    table.add_row(["severity", &severity(alert)]);
    table.add_row(["opened at", &time(alert.opened_at)]);
    table.add_row(["last seen at", &time(alert.last_seen_at)]);
    table.add_row(["detector", &format!("{}: {}", alert.detector, alert.indicator)]);
    for (name, text) in facts(alert) {
        table.add_row([name, &text]);
    }
    table.add_row(["told by", &alert.routes.join(", ")]);
    for (name, text) in [("suppressed by", &alert.suppressed_by), ("acknowledged by", &current.acknowledged_by)] {
        if !text.is_empty() {
            table.add_row([name, text]);
        }
    }
    say!("{table}\n");

    let mut history = paint::table(&["window", "step", "status", "severity", "affected", "of", "share", "why"]);
    for step in &steps {
        history.add_row([
            time(step.window_start),
            step.revision.to_string(),
            status(step),
            severity(step),
            step.affected_records.to_string(),
            step.records.to_string(),
            share(step),
            step.status_reason.clone(),
        ]);
    }
    say!("{history}");
    if !alert.query.is_empty() {
        say!("\n{}\n{};", paint::dim("look further:"), alert.query);
    }
    Ok(Outcome::done())
}
