//! Gathering refused records, whole, into a batch.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, Int32Builder, Int64Builder, UInt8Builder, UInt16Builder, UInt32Builder};
use arrow_array::{ArrayRef, RecordBatch};
use weir_schemas::fate::Reason;
use weir_schemas::headers;
use weir_schemas::place::Partition;
use weir_schemas::stage::refused_schema;
use weir_schemas::time::EventTime;

use super::fetch::Message;

/// Who sent a record, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct Sender {
    /// The tenant.
    pub tenant: Vec<u8>,
    /// The SDK's name, its version, the app's version.
    pub release: [Vec<u8>; 3],
}

/// Why one record was refused.
#[derive(Debug)]
pub struct Refusal<'a> {
    /// The writer schema's id, where the frame could be read.
    pub schema_id: Option<u32>,
    /// The event time, where it could be read.
    pub event_time: Option<EventTime>,
    /// The reason.
    pub reason: Reason,
    /// The field, the rule, or what was wrong with the bytes.
    pub detail: &'a str,
    /// Who sent it.
    pub sender: &'a Sender,
}

/// Refused records of one poll.
#[derive(Default)]
pub struct RefusedSheet {
    topic: UInt16Builder,
    partition: Int32Builder,
    offset: Int64Builder,
    kafka_time_ms: Int64Builder,
    schema_id: UInt32Builder,
    event_time: Int64Builder,
    reason: UInt8Builder,
    detail: BinaryBuilder,
    tenant: BinaryBuilder,
    release: [BinaryBuilder; 3],
    key: BinaryBuilder,
    value: BinaryBuilder,
    headers: BinaryBuilder,
    rows: usize,
}

impl RefusedSheet {
    /// Adds a record.
    pub fn refuse(&mut self, partition: Partition, message: &Message, refusal: &Refusal<'_>) {
        self.rows += 1;
        self.topic.append_value(partition.topic.0);
        self.partition.append_value(partition.number);
        self.offset.append_value(message.offset());
        self.kafka_time_ms.append_value(message.timestamp_ms());
        self.schema_id.append_option(refusal.schema_id);
        self.event_time.append_option(refusal.event_time.map(|time| time.0));
        self.reason.append_value(refusal.reason as u8);
        self.detail.append_value(refusal.detail);
        self.tenant.append_value(&refusal.sender.tenant);
        for (builder, value) in self.release.iter_mut().zip(&refusal.sender.release) {
            builder.append_value(value);
        }
        self.key.append_option(message.key());
        self.value.append_option(message.value());
        let mut bytes = Vec::new();
        message.headers(|name, value| headers::push(&mut bytes, name, value));
        self.headers.append_value(&bytes);
    }

    /// The records as a batch with the columns of [`refused_schema`]; the sheet is empty afterwards.
    ///
    /// # Errors
    /// Never for records that fit in memory.
    pub fn take(&mut self) -> Result<Option<RecordBatch>, arrow_schema::ArrowError> {
        if std::mem::take(&mut self.rows) == 0 {
            return Ok(None);
        }
        let [sdk, sdk_version, app_version] = &mut self.release;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.topic.finish()),
            Arc::new(self.partition.finish()),
            Arc::new(self.offset.finish()),
            Arc::new(self.kafka_time_ms.finish()),
            Arc::new(self.schema_id.finish()),
            Arc::new(self.event_time.finish()),
            Arc::new(self.reason.finish()),
            Arc::new(self.detail.finish()),
            Arc::new(self.tenant.finish()),
            Arc::new(sdk.finish()),
            Arc::new(sdk_version.finish()),
            Arc::new(app_version.finish()),
            Arc::new(self.key.finish()),
            Arc::new(self.value.finish()),
            Arc::new(self.headers.finish()),
        ];
        RecordBatch::try_new(refused_schema(), columns).map(Some)
    }
}
