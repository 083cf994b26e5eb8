//! Records of single events, as rows: the accepted ones where a source keeps them, and the refused ones, whole.
//!
//! Both tables are only appended to, and a row's key is its place in the log, so that a repeated delivery changes
//! nothing. Nothing is remembered here.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, ListBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt8Type, UInt16Type};
use arrow_array::{Array, ArrayRef, ListArray, RecordBatch, TimestampMicrosecondArray, TimestampMillisecondArray};
use arrow_schema::{Field, Schema, SchemaRef};
use weir_schemas::fate::Reason;
use weir_schemas::rows::{Changes, Table, TableKind};
use weir_schemas::stage::{Column, broken_rules, system, text_item};
use weir_schemas::tables;
use weir_schemas::types::{ColumnType, Width, Zone};

use crate::account::TopicNames;
use crate::error::Error;
use crate::operator::{Context, Operator};
use crate::tally::primitive;

/// The table of a source's accepted events: time and place in front, in columns whose names begin with `_`, then the
/// reader schema's columns; where the source has passing rules, those that the event is tagged with are the last.
pub fn events_table(name: &str, columns: &[Column], has_marks: bool, retention_days: Option<u32>) -> Table {
    let utc = || Some(Zone::from("UTC"));
    let column = |name: &str, column_type: ColumnType, comment: &str| Column {
        name: name.to_owned(),
        column_type,
        comment: comment.to_owned(),
    };
    let mut all = vec![
        column("_event_time", ColumnType::DateTime64(6, utc()), "the event's time"),
        column("_topic", ColumnType::LowCardinality, "the topic"),
        column("_partition", ColumnType::Int(Width::W32), "the partition"),
        column("_offset", ColumnType::Int(Width::W64), "the offset"),
        column("_kafka_time", ColumnType::DateTime64(3, utc()), "the record's Kafka timestamp"),
        column("_schema_id", ColumnType::UInt(Width::W32), "the writer schema's id in the registry"),
    ];
    all.extend(columns.iter().cloned());
    if has_marks {
        let names = ColumnType::Array(Box::new(ColumnType::String));
        all.push(column("weir_broken_rules", names, "the rules of mode tag that the event breaks"));
    }
    Table {
        name: name.into(),
        comment: format!("Accepted events of the source {name}"),
        columns: all,
        key_columns: 4,
        partition_by: Some(0),
        kind: TableKind::Appended,
        retention_days,
    }
}

/// Writes accepted events to a table.
pub struct RecordEvents {
    table: Arc<str>,
    schema: SchemaRef,
    topics: Vec<TopicNames>,
    tags: Vec<Option<Arc<str>>>,
}

impl RecordEvents {
    /// Writes to `table`, which [`events_table`] declared; the topics' numbers are the indices of `topics`, the numbers of
    /// passing rules those of `tags`, which holds the ids of those that tag.
    pub fn new(table: &Table, topics: Vec<TopicNames>, tags: Vec<Option<Arc<str>>>) -> RecordEvents {
        RecordEvents { table: table.name.clone(), schema: schema_of(table), topics, tags }
    }

    /// The ids of the tags for the numbers of broken rules.
    fn tags(&self, broken: &ListArray) -> Result<ArrayRef, Error> {
        let mut ids = ListBuilder::new(BinaryBuilder::new()).with_field(text_item());
        for row in 0..broken.len() {
            let numbers = broken.value(row);
            for number in numbers.as_primitive::<UInt16Type>().values() {
                if let Some(Some(id)) = self.tags.get(usize::from(*number)) {
                    ids.values().append_value(id.as_bytes());
                }
            }
            ids.append(true);
        }
        Ok(Arc::new(ids.finish()))
    }
}

impl Operator for RecordEvents {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        let times = primitive::<Int64Type>(&batch, system::EVENT_TIME)?;
        let kafka_times = primitive::<Int64Type>(&batch, system::KAFKA_TIME_MS)?;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMicrosecondArray::new(times.values().clone(), None)),
            topic_names(&self.topics, primitive::<UInt16Type>(&batch, system::TOPIC)?.values())?,
            batch.column(system::PARTITION).clone(),
            batch.column(system::OFFSET).clone(),
            Arc::new(TimestampMillisecondArray::new(kafka_times.values().clone(), None)),
            batch.column(system::SCHEMA_ID).clone(),
        ];
        let broken = broken_rules(&batch);
        // Behind the reader schema's columns stands what the table doesn't have: codes and marks.
        let own = self.schema.fields().len().saturating_sub(columns.len() + usize::from(broken.is_some()));
        columns.extend(batch.columns().iter().skip(system::COUNT).take(own).cloned());
        if let Some(broken) = broken {
            columns.push(self.tags(broken)?);
        }
        let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
        cx.write(Changes { table: self.table.clone(), rows, deleted: None });
        Ok(())
    }

    fn end_of_epoch(&mut self, _: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// Writes refused records to the quarantine's table; those that came too late are among them, with that as the reason.
pub struct RecordRefused {
    schema: SchemaRef,
    topics: Vec<TopicNames>,
}

impl RecordRefused {
    /// The topics' numbers are the indices of `topics`.
    pub fn new(topics: Vec<TopicNames>) -> RecordRefused {
        RecordRefused { schema: schema_of(&tables::quarantine(None)), topics }
    }
}

/// Columns of [`refused_schema`](weir_schemas::stage::refused_schema).
pub(crate) mod refused {
    pub(crate) const TOPIC: usize = 0;
    pub(crate) const PARTITION: usize = 1;
    pub(crate) const OFFSET: usize = 2;
    pub(crate) const KAFKA_TIME_MS: usize = 3;
    pub(crate) const SCHEMA_ID: usize = 4;
    pub(crate) const EVENT_TIME: usize = 5;
    pub(crate) const REASON: usize = 6;
    pub(crate) const DETAIL: usize = 7;
    pub(crate) const TENANT: usize = 8;
    pub(crate) const RELEASE: std::ops::Range<usize> = 9..12;
    pub(crate) const COUNTED_AT: usize = 23;
}

impl Operator for RecordRefused {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        let kafka_times = primitive::<Int64Type>(&batch, refused::KAFKA_TIME_MS)?;
        let times = primitive::<Int64Type>(&batch, refused::EVENT_TIME)?;
        let mut reasons = BinaryBuilder::new();
        for number in primitive::<UInt8Type>(&batch, refused::REASON)?.values() {
            reasons.append_value(reason_of(*number)?.name());
        }
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMillisecondArray::new(kafka_times.values().clone(), None)),
            topic_names(&self.topics, primitive::<UInt16Type>(&batch, refused::TOPIC)?.values())?,
            batch.column(refused::PARTITION).clone(),
            batch.column(refused::OFFSET).clone(),
            batch.column(refused::SCHEMA_ID).clone(),
            Arc::new(TimestampMicrosecondArray::new(times.values().clone(), times.nulls().cloned())),
            Arc::new(reasons.finish()),
        ];
        // Detail, tenant, release, cause, key, value and headers stand in the table as they came.
        let own = batch.columns().iter().take(refused::COUNTED_AT).skip(refused::DETAIL);
        columns.extend(own.cloned());
        let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
        cx.write(Changes { table: Arc::from(tables::QUARANTINE), rows, deleted: None });
        Ok(())
    }

    fn end_of_epoch(&mut self, _: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// The reason of a number in a batch of refused records.
pub(crate) fn reason_of(number: u8) -> Result<Reason, Error> {
    Reason::from_number(number).ok_or_else(|| Error::Custom {
        operator: tables::QUARANTINE.to_owned(),
        detail: format!("a refused record with reason number {number}, which does not exist"),
    })
}

/// The Arrow schema of a table's rows.
pub(crate) fn schema_of(table: &Table) -> SchemaRef {
    let fields: Vec<Field> = table.columns.iter().map(|column| column.column_type.field(&column.name)).collect();
    Arc::new(Schema::new(fields))
}

/// The topics' names for their numbers.
pub(crate) fn topic_names(topics: &[TopicNames], numbers: &[u16]) -> Result<ArrayRef, Error> {
    let mut names = BinaryBuilder::with_capacity(numbers.len(), numbers.len() * 16);
    for number in numbers {
        let names_of = topics.get(usize::from(*number)).ok_or_else(|| Error::Custom {
            operator: "record".to_owned(),
            detail: format!("a record of topic number {number}, but the pipeline has {}", topics.len()),
        })?;
        names.append_value(names_of.topic.as_bytes());
    }
    Ok(Arc::new(names.finish()))
}
