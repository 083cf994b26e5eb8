//! The stage types: what travels on the edges of the dataflow.
//!
//! Every edge carries Arrow record batches, each wrapped in a type of its own, so that a signature tells
//! the stage. A batch of events has the system columns below first, then the reader schema's columns in its
//! order, nested records flattened to dotted names. Where events are judged, [`PROFILE_CODES`] stands behind them: what
//! the judge looks at of every field. Where the source has rules that events may break and still pass, [`BROKEN_RULES`] is
//! the last column: which of them each row broke.
//!
//! Invariants: the system columns are never null and stand at the indices given here; all other columns have
//! the Arrow types of [`ColumnType::arrow`](crate::types::ColumnType::arrow).

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{FixedSizeBinaryArray, ListArray, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use crate::profile::Codes;
use crate::types::ColumnType;

/// The system columns in front of every batch of events.
pub mod system {
    /// Index of the topic's number in the pipeline (`UInt16`).
    pub const TOPIC: usize = 0;
    /// Index of the partition (`Int32`).
    pub const PARTITION: usize = 1;
    /// Index of the offset (`Int64`).
    pub const OFFSET: usize = 2;
    /// Index of the record's Kafka timestamp in milliseconds (`Int64`).
    pub const KAFKA_TIME_MS: usize = 3;
    /// Index of the writer schema's id in the registry (`UInt32`).
    pub const SCHEMA_ID: usize = 4;
    /// Index of the event time in microseconds (`Int64`).
    pub const EVENT_TIME: usize = 5;
    /// How many there are; the reader schema's columns begin here.
    pub const COUNT: usize = 6;
}

/// A column of a source's events or of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The name, dotted where the field was nested.
    pub name: String,
    /// The type.
    pub column_type: ColumnType,
    /// One line on what it holds, for the table's comment; may be empty.
    pub comment: String,
}

impl Column {
    /// A column without a comment.
    pub fn new(name: impl Into<String>, column_type: ColumnType) -> Column {
        Column { name: name.into(), column_type, comment: String::new() }
    }
}

/// The Arrow schema of a source's events: the system columns, then `columns`.
pub fn event_schema(columns: &[Column]) -> SchemaRef {
    let mut fields = vec![
        Field::new("_topic", DataType::UInt16, false),
        Field::new("_partition", DataType::Int32, false),
        Field::new("_offset", DataType::Int64, false),
        Field::new("_kafka_time_ms", DataType::Int64, false),
        Field::new("_schema_id", DataType::UInt32, false),
        Field::new("_event_time", DataType::Int64, false),
    ];
    fields.extend(columns.iter().map(|column| column.column_type.field(&column.name)));
    Arc::new(Schema::new(fields))
}

/// The column of a batch of events that a judge looks at (`FixedSizeBinary`): the codes of all fields of the reader schema,
/// read or not, as [`Codes`] places them.
pub const PROFILE_CODES: &str = "_profile_codes";

/// The field of [`PROFILE_CODES`].
pub fn profile_codes_field(codes: &Codes) -> Field {
    let width = i32::try_from(codes.bytes()).unwrap_or(i32::MAX);
    Field::new(PROFILE_CODES, DataType::FixedSizeBinary(width), false)
}

/// [`PROFILE_CODES`] of a batch of events, if a judge looks at its source.
pub fn profile_codes(batch: &RecordBatch) -> Option<&FixedSizeBinaryArray> {
    batch.column_by_name(PROFILE_CODES)?.as_fixed_size_binary_opt()
}

/// The Arrow schema of `events` that a judge looks at.
pub fn coded_event_schema(events: &SchemaRef, codes: &Codes) -> SchemaRef {
    with_last(events, profile_codes_field(codes))
}

/// The columns behind all others of a batch of events that an operator behind the source may still refuse: key, value and
/// headers of the record, as in [`refused_schema`]. The last of those operators takes them away.
pub const RECORD_COLUMNS: [&str; 3] = ["_record_key", "_record_value", "_record_headers"];

/// The Arrow schema of `events` with their records.
pub fn recorded_event_schema(events: &SchemaRef) -> SchemaRef {
    let fields = RECORD_COLUMNS.map(|name| Field::new(name, DataType::Binary, true));
    fields.into_iter().fold(Arc::clone(events), |schema, field| with_last(&schema, field))
}

/// The last column of a batch of events whose source has passing rules, those of mode tag or observe (a list of
/// `UInt16`): the numbers of the rules that the event broke, rising. A rule's number is its place among the passing rules of
/// its source, in the order of their ids. A source without passing rules has no such column.
pub const BROKEN_RULES: &str = "_broken_rules";

/// The Arrow schema of `events` of a source with passing rules: those columns, then [`BROKEN_RULES`].
pub fn marked_event_schema(events: &SchemaRef) -> SchemaRef {
    with_last(events, Field::new(BROKEN_RULES, DataType::List(broken_rule_field()), false))
}

fn with_last(events: &SchemaRef, field: Field) -> SchemaRef {
    let mut fields: Vec<_> = events.fields().iter().cloned().collect();
    fields.push(Arc::new(field));
    Arc::new(Schema::new(fields))
}

/// The field of the items of [`BROKEN_RULES`].
pub fn broken_rule_field() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::UInt16, false))
}

/// [`BROKEN_RULES`] of a batch of events, if its source has passing rules.
pub fn broken_rules(batch: &RecordBatch) -> Option<&ListArray> {
    batch.column_by_name(BROKEN_RULES)?.as_list_opt::<i32>()
}

/// Events that decoded, are in time and kept the rules; duplicates may be among them.
#[derive(Clone, Debug)]
pub struct Events(pub RecordBatch);

/// Events without duplicates: what views count.
#[derive(Clone, Debug)]
pub struct AcceptedEvents(pub RecordBatch);

/// Records that were refused, whole, with the reason; see [`refused_schema`] for the columns.
#[derive(Clone, Debug)]
pub struct Refused(pub RecordBatch);

/// Counts for the ledger; see [`tally_schema`] for the columns.
#[derive(Clone, Debug)]
pub struct Tallies(pub RecordBatch);

/// The columns of [`Refused`]. `tenant`, `sdk`, `sdk_version` and `app_version` are '' where unknown; `schema_id` is
/// null where the frame could not be read, `event_time` (microseconds) where there is none. From `rule` to
/// `broken_rules` they say what decided, as [`tables::quarantine`](crate::tables::quarantine) explains. `counted_at`
/// (microseconds) is when detectors count it: the event time of an event that came in time; of any other record its Kafka
/// timestamp, yet never before its partition's watermark at its place, so that no window is over by then. It is a fact of
/// the log.
pub fn refused_schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Binary, false);
    Arc::new(Schema::new(vec![
        Field::new("topic", DataType::UInt16, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("kafka_time_ms", DataType::Int64, false),
        Field::new("schema_id", DataType::UInt32, true),
        Field::new("event_time", DataType::Int64, true),
        Field::new("reason", DataType::UInt8, false),
        text("detail"),
        text("tenant"),
        text("sdk"),
        text("sdk_version"),
        text("app_version"),
        text("rule"),
        text("field"),
        text("expected"),
        text("found"),
        text("severity"),
        text("owner"),
        text("fingerprint"),
        Field::new("broken_rules", DataType::List(text_item()), false),
        Field::new("key", DataType::Binary, true),
        Field::new("value", DataType::Binary, true),
        // Kafka's headers as `crate::headers` writes them: kept byte for byte.
        Field::new("headers", DataType::Binary, false),
        Field::new("counted_at", DataType::Int64, false),
    ]))
}

/// The field of the items of a list of texts.
pub fn text_item() -> Arc<Field> {
    match ColumnType::Array(Box::new(ColumnType::String)).arrow() {
        DataType::List(item) => item,
        _ => Arc::new(Field::new("item", DataType::Binary, false)),
    }
}

/// The columns of [`Tallies`]: `count` records of `partition`, `tenant` and `minute` had `fate`, or were consumed where
/// `fate` is [`CONSUMED`]. The minute is the event's, or the Kafka timestamp's where there is no event (seconds
/// since 1970, a multiple of 60).
pub fn tally_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("topic", DataType::UInt16, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("tenant", DataType::Binary, false),
        Field::new("minute", DataType::Int64, false),
        Field::new("fate", DataType::UInt8, false),
        Field::new("count", DataType::UInt64, false),
    ]))
}

/// The number in a tally's `fate` column that means "consumed": counted at fetch, before any fate is known.
pub const CONSUMED: u8 = 255;
