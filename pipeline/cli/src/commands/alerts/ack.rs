//! `weir alerts ack`: somebody takes an alert on.

use chrono::DateTime;
use weir_pipeline::alerts::acknowledge::acknowledge;
use weir_pipeline::clock::Clock;
use weir_sinks::kafka::acknowledgement::Acknowledgement;
use weir_sinks::notify::headline;

use super::{Ack, clickhouse, find, pipeline, short};
use crate::out::{printable, say};
use crate::{Outcome, paint, runtime};

pub(super) fn run(ack: &Ack) -> Result<Outcome, Outcome> {
    let pipeline = pipeline(&ack.file)?;
    let until = match ack.until.as_deref().map(DateTime::parse_from_rfc3339) {
        None => None,
        Some(Ok(until)) => Some(until.timestamp_micros()),
        Some(Err(error)) => {
            return Err(Outcome::refused(
                format!("--until {}: {error}", ack.until.as_deref().unwrap_or_default()),
                "write a time such as 2026-01-31T12:00:00Z",
            ));
        }
    };
    let client = clickhouse(&pipeline)?;
    let runtime = runtime()?;
    let alert = runtime.block_on(find(&client, &ack.file, &ack.fingerprint))?.alert;
    if alert.is_resolved() {
        return Err(Outcome::refused(
            format!("alert {} is resolved", short(&alert.fingerprint)),
            "nothing is left to take on: should it reopen, it is told again",
        ));
    }
    let acknowledgement = Acknowledgement {
        fingerprint: alert.fingerprint.clone(),
        opened_at: alert.opened_at,
        acknowledged_at: Clock::default().now().0,
        acknowledged_by: ack.by.clone(),
        note: ack.note.clone(),
        until,
    };
    runtime.block_on(acknowledge(&pipeline, &client, &acknowledgement)).map_err(|error| Outcome::of_error(&error))?;
    say!(
        "{} {} has {}  {}",
        paint::good("acknowledged:"),
        ack.by,
        short(&alert.fingerprint),
        printable(&headline(&alert))
    );
    Ok(Outcome::done())
}
