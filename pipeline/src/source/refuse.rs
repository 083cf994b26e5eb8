//! Gathering refused records, whole, into a batch.

use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, Int32Builder, Int64Builder, ListBuilder, UInt8Builder, UInt16Builder, UInt32Builder,
};
use arrow_array::{ArrayRef, RecordBatch};
use weir_schemas::fate::Reason;
use weir_schemas::headers;
use weir_schemas::place::Partition;
use weir_schemas::stage::{refused_schema, text_item};
use weir_schemas::time::EventTime;

use super::message::Message;
use crate::cause;

/// A record's headers, byte for byte.
pub(super) fn header_bytes(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.headers(|name, value| headers::push(&mut bytes, name, value));
    bytes
}

/// Who sent a record, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct Sender {
    /// The tenant.
    pub tenant: Vec<u8>,
    /// The SDK's name, its version, the app's version.
    pub release: [Vec<u8>; 3],
}

/// What a refusal says of its cause beyond the reason; each empty where there is no such thing.
#[derive(Clone, Debug, Default)]
pub struct Cause<'a> {
    /// The rule that decided.
    pub rule: &'a str,
    /// The field's path.
    pub field: &'a str,
    /// What the rule requires.
    pub expected: &'a str,
    /// What was found instead, masked and cut short.
    pub found: &'a [u8],
    /// The rule's severity.
    pub severity: &'a str,
    /// Whose rule it is.
    pub owner: &'a str,
    /// Every rule that is broken.
    pub broken: &'a [&'a str],
    /// The kind of fault, where no rule is broken: the same for all records of the cause.
    pub fault: &'a str,
    /// The cause's fingerprint, where it is known already.
    pub fingerprint: Option<&'a str>,
}

/// Why one record was refused.
#[derive(Debug)]
pub struct Refusal<'a> {
    /// The source's name.
    pub source: &'a str,
    /// The writer schema's id, where the frame could be read.
    pub schema_id: Option<u32>,
    /// The event time, where it could be read.
    pub event_time: Option<EventTime>,
    /// When it counts for detectors.
    pub counted_at: EventTime,
    /// The reason.
    pub reason: Reason,
    /// The field, the rule, or what was wrong with the bytes.
    pub detail: &'a str,
    /// Who sent it.
    pub sender: &'a Sender,
    /// What else is known of the cause.
    pub cause: &'a Cause<'a>,
}

/// Refused records of one poll.
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
    /// Rule, field, expected, found, severity, owner, fingerprint.
    cause: [BinaryBuilder; 7],
    broken: ListBuilder<BinaryBuilder>,
    key: BinaryBuilder,
    value: BinaryBuilder,
    headers: BinaryBuilder,
    counted_at: Int64Builder,
    rows: usize,
}

impl Default for RefusedSheet {
    fn default() -> RefusedSheet {
        RefusedSheet {
            topic: UInt16Builder::new(),
            partition: Int32Builder::new(),
            offset: Int64Builder::new(),
            kafka_time_ms: Int64Builder::new(),
            schema_id: UInt32Builder::new(),
            event_time: Int64Builder::new(),
            reason: UInt8Builder::new(),
            detail: BinaryBuilder::new(),
            tenant: BinaryBuilder::new(),
            release: Default::default(),
            cause: Default::default(),
            broken: ListBuilder::new(BinaryBuilder::new()).with_field(text_item()),
            key: BinaryBuilder::new(),
            value: BinaryBuilder::new(),
            headers: BinaryBuilder::new(),
            counted_at: Int64Builder::new(),
            rows: 0,
        }
    }
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
        self.add_cause(refusal);
        self.key.append_option(message.key());
        self.value.append_option(message.value());
        self.headers.append_value(header_bytes(message));
        self.counted_at.append_value(refusal.counted_at.0);
    }

    fn add_cause(&mut self, refusal: &Refusal<'_>) {
        let cause = refusal.cause;
        let computed;
        let fingerprint = match cause.fingerprint {
            Some(fingerprint) => fingerprint,
            None => {
                computed = cause::fingerprint(refusal.source, refusal.reason, cause.field, cause.fault);
                &computed
            }
        };
        let texts: [&[u8]; 7] = [
            cause.rule.as_bytes(),
            cause.field.as_bytes(),
            cause.expected.as_bytes(),
            cause.found,
            cause.severity.as_bytes(),
            cause.owner.as_bytes(),
            fingerprint.as_bytes(),
        ];
        for (builder, text) in self.cause.iter_mut().zip(texts) {
            builder.append_value(text);
        }
        for id in cause.broken {
            self.broken.values().append_value(id);
        }
        self.broken.append(true);
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
        let mut columns: Vec<ArrayRef> = vec![
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
        ];
        columns.extend(self.cause.iter_mut().map(|texts| Arc::new(texts.finish()) as ArrayRef));
        columns.push(Arc::new(self.broken.finish()));
        for builder in [&mut self.key, &mut self.value, &mut self.headers] {
            columns.push(Arc::new(builder.finish()));
        }
        columns.push(Arc::new(self.counted_at.finish()));
        RecordBatch::try_new(refused_schema(), columns).map(Some)
    }
}
