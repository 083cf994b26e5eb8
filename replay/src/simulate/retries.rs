//! Retrying in a scenario: which refused records wait, and what is sent of them, as `weir quarantine retry` does both.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::Value;
use weir_pipeline::source::message::Record;
use weir_schemas::headers;
use weir_schemas::place::Place;
use weir_schemas::retry::{RETRIED, Retried};
use weir_schemas::tables::QUARANTINE;

use super::scenario::Retry;
use super::tables::{Stored, Tables};

/// The id of all retries of a scenario.
const ID: &str = "scenario";

/// The refused records that `retry` means and that nobody has retried.
pub(super) fn waiting(tables: &Tables, retry: &Retry) -> Vec<Retried> {
    let Some(quarantine) = tables.get(QUARANTINE) else { return Vec::new() };
    let retried = tables.get(RETRIED);
    let done: BTreeSet<Place> =
        retried.iter().flat_map(|of| of.rows().into_iter().filter_map(|row| place(of, &row))).collect();
    let wanted = [("reason", &retry.reason), ("rule", &retry.rule), ("field", &retry.field)];
    let is_wanted = |row: &[Value]| {
        wanted
            .iter()
            .all(|(name, wanted)| wanted.as_deref().is_none_or(|wanted| text(&quarantine, row, name) == wanted))
    };
    let rows = quarantine.rows().into_iter().filter(|row| is_wanted(row));
    let of_row = |row: Vec<Value>| {
        let origin = place(&quarantine, &row)?;
        let cause = text(&quarantine, &row, "fingerprint").to_owned();
        Some(Retried { origin, kafka_time_ms: 0, id: ID.to_owned(), cause })
    };
    rows.filter_map(of_row).filter(|retried| !done.contains(&retried.origin)).collect()
}

/// The message of the retry topic for `record`, sent at `at_ms`.
pub(super) fn once_more(retried: &Retried, record: &Record, at_ms: i64) -> Record {
    let mut before = Vec::new();
    for (name, value) in &record.headers {
        headers::push(&mut before, name, value.as_deref());
    }
    let retried = Retried { kafka_time_ms: record.timestamp_ms, ..retried.clone() };
    let bytes = retried.headers(&before);
    let headers = headers::iter(&bytes)
        .map(|(name, value)| (Bytes::copy_from_slice(name), value.map(Bytes::copy_from_slice)))
        .collect();
    Record { offset: 0, timestamp_ms: at_ms, key: record.key.clone(), value: record.value.clone(), headers }
}

fn place(of: &Stored, row: &[Value]) -> Option<Place> {
    Some(Place {
        topic: text(of, row, "topic").to_owned(),
        partition: text(of, row, "partition").parse().ok()?,
        offset: text(of, row, "offset").parse().ok()?,
    })
}

fn text<'a>(of: &Stored, row: &'a [Value], column: &str) -> &'a str {
    of.column(column).and_then(|at| row.get(at)).and_then(Value::as_str).unwrap_or_default()
}
