//! The audit of a retry: a row of `weir_retries`, written before anything is sent and again as it goes on.

use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use arrow_schema::Schema;
use weir_schemas::retry::retries;
use weir_schemas::rows::Changes;
use weir_schemas::time::{Epoch, EventTime, Version};
use weir_sinks::clickhouse::{Client, TableEncoder, TableSink};
use weir_sinks::{Deliver, Delivery, Encode};
use xxhash_rust::xxh3::xxh3_64;

use super::unreachable;
use crate::clock::Clock;
use crate::config::Pipeline;
use crate::error::Error;

/// How far a retry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has begun.
    Planned,
    /// All of its records are in the topic.
    Sent,
    /// The pipeline has taken them.
    Done,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Status::Planned => "planned",
            Status::Sent => "sent",
            Status::Done => "done",
        }
    }
}

/// Who retries what, why, and what became of it.
#[derive(Clone, Debug)]
pub struct Audit {
    /// The retry's id.
    pub id: String,
    /// The cause's fingerprint.
    pub cause: String,
    /// The source.
    pub source: String,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// How far it is.
    pub status: Status,
    /// When it began.
    pub planned_at: EventTime,
    /// Records that waited then.
    pub waiting_before: u64,
    /// Records that were sent, or stood in the topic already.
    pub sent: u64,
    /// Of those, records that the pipeline has taken.
    pub taken: u64,
    /// Of those, records that were refused again.
    pub refused_again: u64,
    /// Records that waited when this was written.
    pub waiting_after: u64,
}

impl Audit {
    /// The audit of a retry that begins now.
    pub fn begin(cause: &str, source: &str, by: &str, why: &str, waiting: u64) -> Audit {
        let planned_at = Clock::default().now();
        let of = format!("{cause} {by} {} {}", planned_at.0, std::process::id());
        Audit {
            id: format!("{:016x}", xxh3_64(of.as_bytes())),
            cause: cause.to_owned(),
            source: source.to_owned(),
            by: by.to_owned(),
            why: why.to_owned(),
            status: Status::Planned,
            planned_at,
            waiting_before: waiting,
            sent: 0,
            taken: 0,
            refused_again: 0,
            waiting_after: waiting,
        }
    }

    /// Writes it, over what was written of it before.
    ///
    /// # Errors
    /// When ClickHouse doesn't take it.
    pub async fn write(&self, pipeline: &Pipeline, client: &Client) -> Result<(), Error> {
        let now = Clock::default().now();
        let table = retries();
        let changes = self.changes(now).map_err(|error| Error::Stopped(error.to_string()))?;
        let mut rows = Vec::new();
        let version = Version(u64::try_from(now.0).unwrap_or_default());
        TableEncoder::new(table.clone()).encode(&changes, version, &mut rows)?;
        let delivery = Delivery { epoch: Epoch(0), rows: &rows };
        let delivered = TableSink::new(client.clone(), &table).deliver(delivery).await;
        delivered.map_err(|error| unreachable(pipeline, &error))
    }

    fn changes(&self, now: EventTime) -> Result<Changes, arrow_schema::ArrowError> {
        let text = |text: &str| -> ArrayRef { Arc::new(BinaryArray::from_vec(vec![text.as_bytes()])) };
        let time = |at: EventTime| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(vec![at.0])) };
        let count = |count: u64| -> ArrayRef { Arc::new(UInt64Array::from(vec![count])) };
        let columns = vec![
            text(&self.id),
            text(&self.cause),
            text(&self.source),
            text(&self.by),
            text(&self.why),
            text(self.status.name()),
            time(self.planned_at),
            time(now),
            count(self.waiting_before),
            count(self.sent),
            count(self.taken),
            count(self.refused_again),
            count(self.waiting_after),
        ];
        let table = retries();
        let fields: Vec<_> = table.columns.iter().map(|column| column.column_type.field(&column.name)).collect();
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        Ok(Changes { table: table.name, rows, deleted: None })
    }
}
