//! Retrying refused records: the ones of one cause, whole, into the retry topic of their source.
//!
//! ```text
//! weir_quarantine ── waiting records of one cause ──▶ retry topic ──▶ the pipeline ──▶ weir_retried, views, quarantine
//!        row of weir_retries: planned ─────────────────▶ sent ──────────────▶ done
//! ```
//! Invariants: what is sent is sent in transactions of bounded size, behind a fence that ends an earlier try, and without
//! what the topic holds already; whatever ends the command at whatever moment, giving it again sends the rest. That each
//! record is *taken* once is the pipeline's own doing (`source::retry`) and doesn't rely on this.
//!
//! Not here: whether a fix has been made. What is still wrong is refused again, at its place in the retry topic.

mod audit;
mod decoded;

use std::time::Duration;

use serde::Deserialize;
use weir_schemas::place::Place;
use weir_schemas::retry::{RETRIED, Retried};
use weir_schemas::tables::QUARANTINE;
use weir_schemas::time::Epoch;
use weir_sinks::clickhouse::{Client, literal};
use weir_sinks::kafka::retry::{Refused, encode};
use weir_sinks::kafka::{TAIL_MESSAGES, TopicSettings, TopicSink};
use weir_sinks::{Deliver, Delivery};

pub use audit::{Audit, Status};
pub use decoded::decode;

use crate::config::Pipeline;
use crate::connect;
use crate::crash::{self, CrashPoint};
use crate::error::Error;

/// Records and bytes of one transaction, roughly: one that is open for too long is given up by the brokers.
const TRANSACTION_RECORDS: usize = 5_000;
const TRANSACTION_BYTES: usize = 8 << 20;

/// How often it is looked whether the pipeline has taken what was sent.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The condition on rows of `weir_quarantine` that they were retried.
pub fn is_retried(client: &Client) -> String {
    let retried = client.qualified(RETRIED);
    format!("(topic, partition, offset) IN (SELECT topic, partition, offset FROM {retried})")
}

/// What stands of one cause in the tables right now.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Counts {
    /// Records that wait.
    pub waiting: u64,
    /// Records that the pipeline has taken again.
    pub retried: u64,
    /// The greatest offset of those in the retry topic; -1 before the first.
    pub last_offset: i64,
}

/// Counts the records of a cause.
///
/// # Errors
/// When ClickHouse can't be asked.
pub async fn counts(pipeline: &Pipeline, client: &Client, cause: &str) -> Result<Counts, Error> {
    let (quarantine, retried) = (client.qualified(QUARANTINE), client.qualified(RETRIED));
    let (of_cause, is_retried) = (format!("WHERE fingerprint = {}", literal(cause)), is_retried(client));
    let sql = format!(
        "SELECT (SELECT count() FROM {quarantine} {of_cause} AND NOT {is_retried}) AS waiting, \
         (SELECT count() FROM {retried} {of_cause}) AS retried, \
         (SELECT maxOrNull(retry_offset) FROM {retried} {of_cause}) AS last, ifNull(last, -1) AS last_offset \
         SETTINGS output_format_json_quote_64bit_integers = 0"
    );
    let mut found = client.select(&sql).await.map_err(|error| unreachable(pipeline, &error))?;
    found.pop().ok_or_else(|| unreachable(pipeline, &"an empty answer"))
}

/// Of the retried records behind `after` in the retry topic, those that were refused again.
async fn refused_again(
    pipeline: &Pipeline,
    client: &Client,
    cause: &str,
    topic: &str,
    after: i64,
) -> Result<u64, Error> {
    #[derive(Deserialize)]
    struct Found {
        again: u64,
    }
    let sql = format!(
        "SELECT count() AS again FROM {} WHERE topic = {} AND (partition, offset) IN \
         (SELECT retry_partition, retry_offset FROM {} WHERE fingerprint = {} AND retry_offset > {after}) \
         SETTINGS output_format_json_quote_64bit_integers = 0",
        client.qualified(QUARANTINE),
        literal(topic),
        client.qualified(RETRIED),
        literal(cause),
    );
    let found: Vec<Found> = client.select(&sql).await.map_err(|error| unreachable(pipeline, &error))?;
    Ok(found.first().map_or(0, |found| found.again))
}

/// Sends the waiting records of the audit's cause to `topic`, and writes the audit before and after. `told` hears how many
/// are there.
///
/// # Errors
/// When the broker or ClickHouse can't be used. The command may be given again.
pub async fn send(
    pipeline: &Pipeline,
    client: &Client,
    topic: &str,
    audit: &mut Audit,
    mut told: impl FnMut(u64),
) -> Result<(), Error> {
    let settings = TopicSettings {
        client: connect::kafka(pipeline),
        topic: topic.to_owned(),
        current_topic: None,
        transactional_id: format!("{}/{topic}", pipeline.name),
        partitions: 1,
        topic_settings: Default::default(),
        tail_messages: TAIL_MESSAGES,
        within_transaction: || crash::pass(CrashPoint::WithinTransaction),
    };
    let mut sink = TopicSink::new(settings);
    // Fences an earlier try: from here on nobody else sends, and what it sent is settled.
    sink.prepare().await.map_err(weir_sinks::Error::from)?;
    audit.write(pipeline, client).await?;
    let sql = format!(
        "SELECT topic, partition, offset, toUnixTimestamp64Milli(kafka_time) AS kafka_time_ms, \
         hex(key) AS key, hex(value) AS value, hex(headers) AS headers FROM {} WHERE fingerprint = {} AND NOT {} \
         ORDER BY kafka_time, topic, partition, offset SETTINGS output_format_json_quote_64bit_integers = 0",
        client.qualified(QUARANTINE),
        literal(&audit.cause),
        is_retried(client),
    );
    let mut lines = client.lines(&sql, "JSONEachRow").map_err(|error| unreachable(pipeline, &error))?;
    let (mut records, mut bytes) = (Vec::new(), 0);
    loop {
        let line = lines.next().await.map_err(|error| unreachable(pipeline, &error))?;
        let is_last = line.is_none();
        if let Some(line) = line {
            bytes += line.len();
            let row: Row = serde_json::from_slice(&line).map_err(|error| unreachable(pipeline, &error))?;
            records.push(row.refused(audit).ok_or_else(|| unreachable(pipeline, &"bytes that aren't hexadecimal"))?);
        }
        if is_last || records.len() >= TRANSACTION_RECORDS || bytes >= TRANSACTION_BYTES {
            let rows = encode(&records);
            sink.deliver(Delivery { epoch: Epoch(0), rows: &rows }).await.map_err(weir_sinks::Error::from)?;
            audit.sent += records.len() as u64;
            told(audit.sent);
            (records, bytes) = (Vec::new(), 0);
        }
        if is_last {
            break;
        }
    }
    audit.status = Status::Sent;
    audit.write(pipeline, client).await
}

/// Waits, for `within` at most, until the pipeline has taken what was sent, and writes down what became of it. `before` was
/// counted when the retry began; `told` hears how many were taken.
///
/// # Errors
/// When ClickHouse can't be used.
pub async fn watch(
    pipeline: &Pipeline,
    client: &Client,
    topic: &str,
    audit: &mut Audit,
    before: Counts,
    within: Duration,
    mut told: impl FnMut(u64),
) -> Result<(), Error> {
    let looked = async {
        loop {
            let now = counts(pipeline, client, &audit.cause).await?;
            audit.taken = now.retried.saturating_sub(before.retried);
            audit.waiting_after = now.waiting;
            told(audit.taken);
            if audit.taken >= audit.sent {
                audit.status = Status::Done;
                return Ok::<(), Error>(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    if let Ok(failed @ Err(_)) = tokio::time::timeout(within.max(LOOK_EVERY), looked).await {
        return failed;
    }
    // Rows of one commit reach their tables one after the other.
    tokio::time::sleep(LOOK_EVERY * 8).await;
    audit.refused_again = refused_again(pipeline, client, &audit.cause, topic, before.last_offset).await?;
    audit.waiting_after = counts(pipeline, client, &audit.cause).await?.waiting;
    audit.write(pipeline, client).await
}

/// A row of the quarantine, as it is asked for; bytes are hexadecimal.
#[derive(Deserialize)]
struct Row {
    topic: String,
    partition: i32,
    offset: i64,
    kafka_time_ms: i64,
    key: Option<String>,
    value: Option<String>,
    headers: String,
}

impl Row {
    fn refused(self, audit: &Audit) -> Option<Refused> {
        let bytes = |text: Option<String>| match text {
            Some(text) => from_hex(&text).map(Some),
            None => Some(None),
        };
        Some(Refused {
            retried: Retried {
                origin: Place { topic: self.topic, partition: self.partition, offset: self.offset },
                kafka_time_ms: self.kafka_time_ms,
                id: audit.id.clone(),
                cause: audit.cause.clone(),
            },
            key: bytes(self.key)?,
            value: bytes(self.value)?,
            headers: from_hex(&self.headers)?,
        })
    }
}

/// The bytes of a hexadecimal text; `None` where it is none.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

fn unreachable(pipeline: &Pipeline, error: &dyn std::fmt::Display) -> Error {
    Error::Unreachable {
        part: format!("ClickHouse at {}", pipeline.clickhouse.url),
        detail: error.to_string(),
        remedy: "check [clickhouse], and that the pipeline was started with `retry_topic` in the file; then give the \
                 command again: what was sent isn't sent twice"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::from_hex;

    #[test]
    fn bytes_come_back_from_hexadecimal_digits() {
        assert_eq!(from_hex("00fFa1"), Some(vec![0, 255, 161]));
        assert_eq!(from_hex(""), Some(vec![]));
        assert_eq!((from_hex("0"), from_hex("0g"), from_hex("é")), (None, None, None));
    }
}
