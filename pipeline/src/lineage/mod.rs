//! Lineage: which records made a row, and under which version of the pipeline.
//!
//! While a pipeline runs, each epoch's commit writes down the stretch of every partition that it took (`weir_epochs`),
//! with the span of the event times in it: at most once per partition and epoch, nothing per record. The version of the
//! pipeline (`weir_versions`) is a hash of everything that decides results. From both, [`explain`] finds the records of a
//! row again.
//!
//! Invariants: rows of lineage belong to their epoch's commit and leave through the outbox as all others do; every
//! event that was in time lies within the span of its epoch's row.
//!
//! Not here: the same watermarks as marks of the state, which only the pipeline that owns it reads (`recovery`).

pub mod explain;
pub mod openlineage;
mod versions;

use std::sync::Arc;

use arrow_array::builder::{ListBuilder, UInt32Builder};
use arrow_array::{ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use arrow_schema::{DataType, Schema};
use weir_schemas::rows::{Changes, Table};
use weir_schemas::tables;
use weir_schemas::time::{Epoch, EventTime};

pub use versions::{PipelineVersion, version_of};
pub(crate) use versions::{hash, hash_of_rule, hashes_of_plan, settings};

use crate::error::Error;

/// Schema ids that are told of one epoch and partition, at most: bad frames may hold any number.
const SCHEMA_IDS_MAX: usize = 256;

/// What was consumed of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumed {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first record.
    pub first_offset: i64,
    /// The offset after the last one.
    pub next_offset: i64,
    /// How many.
    pub records: u64,
    /// The least and the greatest event time of those in time.
    pub span: Option<(EventTime, EventTime)>,
    /// The writer schemas' ids, rising.
    pub schema_ids: Vec<u32>,
    /// The partition's watermark before the first record.
    pub watermark: EventTime,
}

impl Consumed {
    /// Nothing yet, from `first_offset` on, where the partition's watermark was `watermark`.
    pub fn from(topic: &str, partition: i32, first_offset: i64, watermark: EventTime) -> Consumed {
        Consumed {
            topic: topic.to_owned(),
            partition,
            first_offset,
            next_offset: first_offset,
            records: 0,
            span: None,
            schema_ids: Vec::new(),
            watermark,
        }
    }

    /// Adds `records` of one writer schema, up to `next_offset`.
    pub fn add(
        &mut self,
        next_offset: i64,
        records: u64,
        schema_id: Option<u32>,
        span: Option<(EventTime, EventTime)>,
    ) {
        self.next_offset = next_offset;
        self.records += records;
        if let Some((least, greatest)) = span {
            let (before_least, before_greatest) = self.span.unwrap_or((least, greatest));
            self.span = Some((before_least.min(least), before_greatest.max(greatest)));
        }
        if let Some(id) = schema_id
            && let Err(at) = self.schema_ids.binary_search(&id)
            && self.schema_ids.len() < SCHEMA_IDS_MAX
        {
            self.schema_ids.insert(at, id);
        }
    }
}

/// The rows of [`tables::epochs`] for what `epoch` took, each with its source's name.
///
/// # Errors
/// None in practice: the columns are those of the table.
pub fn epochs(
    taken: &[(&str, &Consumed)],
    epoch: Epoch,
    version: &str,
    committed_at: EventTime,
) -> Result<Changes, Error> {
    let rows = taken.len();
    let offsets = |offset: fn(&Consumed) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(taken.iter().map(|(_, of)| offset(of))))
    };
    let times = |time: fn(&(EventTime, EventTime)) -> EventTime| -> ArrayRef {
        let of = |(_, consumed): &(&str, &Consumed)| consumed.span.as_ref().map(|span| time(span).storable().0);
        Arc::new(taken.iter().map(of).collect::<TimestampMicrosecondArray>())
    };
    let table = tables::epochs(None);
    let ids = table.columns.iter().find(|column| column.name == "schema_ids").map(|column| column.column_type.arrow());
    let mut schema_ids = ListBuilder::new(UInt32Builder::new());
    if let Some(DataType::List(item)) = ids {
        schema_ids = schema_ids.with_field(item);
    }
    for (_, consumed) in taken {
        schema_ids.values().append_slice(&consumed.schema_ids);
        schema_ids.append(true);
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_value(committed_at.storable().0, rows)),
        Arc::new(BinaryArray::from_iter_values(taken.iter().map(|(source, _)| source))),
        Arc::new(BinaryArray::from_iter_values(taken.iter().map(|(_, of)| &of.topic))),
        Arc::new(Int32Array::from_iter_values(taken.iter().map(|(_, of)| of.partition))),
        offsets(|of| of.first_offset),
        offsets(|of| of.next_offset),
        Arc::new(UInt64Array::from_iter_values(taken.iter().map(|(_, of)| of.records))),
        times(|span| span.0),
        times(|span| span.1),
        Arc::new(schema_ids.finish()),
        Arc::new(UInt64Array::from_value(epoch.0, rows)),
        Arc::new(BinaryArray::from_iter_values(std::iter::repeat_n(version, rows))),
        Arc::new(taken.iter().map(|(_, of)| mark(of.watermark)).collect::<TimestampMicrosecondArray>()),
    ];
    changes(table, columns)
}

/// A partition's watermark as it is kept: null where nothing has moved it yet, and for a topic that has none.
fn mark(watermark: EventTime) -> Option<i64> {
    (![EventTime::MIN, EventTime::MAX].contains(&watermark)).then(|| watermark.storable().0)
}

/// The row of [`tables::versions`] for a version that committed its first epoch at `at`.
///
/// # Errors
/// None in practice: the columns are those of the table.
pub fn version_row(version: &PipelineVersion, first: Epoch, at: EventTime) -> Result<Changes, Error> {
    let text = |text: &str| -> ArrayRef { Arc::new(BinaryArray::from_iter_values([text])) };
    let columns: Vec<ArrayRef> = vec![
        text(&version.id),
        text(&version.pipeline),
        text(versions::CODE_VERSION),
        text(versions::CODE_COMMIT),
        text(&version.definition),
        Arc::new(UInt64Array::from_iter_values([first.0])),
        Arc::new(TimestampMicrosecondArray::from_iter_values([at.storable().0])),
    ];
    changes(tables::versions(), columns)
}

fn changes(table: Table, columns: Vec<ArrayRef>) -> Result<Changes, Error> {
    let fields: Vec<_> = table.columns.iter().map(|column| column.column_type.field(&column.name)).collect();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    Ok(Changes { table: table.name, rows, deleted: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_grows_by_what_is_added_and_keeps_few_ids() {
        let mut consumed = Consumed::from("t", 3, 10, EventTime::MIN);
        consumed.add(12, 2, None, None);
        assert_eq!((consumed.records, consumed.span, consumed.schema_ids.len()), (2, None, 0));
        consumed.add(14, 2, Some(9), Some((EventTime(5), EventTime(8))));
        consumed.add(15, 1, Some(2), Some((EventTime(3), EventTime(3))));
        consumed.add(16, 1, Some(9), None);
        assert_eq!((consumed.first_offset, consumed.next_offset, consumed.records), (10, 16, 6));
        assert_eq!((consumed.span, &*consumed.schema_ids), (Some((EventTime(3), EventTime(8))), &[2, 9][..]));
        (0..10_000).for_each(|id| consumed.add(17, 1, Some(id), None));
        assert_eq!(consumed.schema_ids.len(), SCHEMA_IDS_MAX);
    }

    #[test]
    fn rows_fit_the_declared_tables() {
        let mut consumed = Consumed::from("t", 3, 10, EventTime::MIN);
        consumed.add(12, 2, Some(7), None);
        let rows = epochs(&[("events", &consumed)], Epoch(4), "v", EventTime(0)).unwrap().rows;
        assert_eq!((rows.num_rows(), rows.num_columns()), (1, tables::epochs(None).columns.len()));
        assert_eq!(version_row(&PipelineVersion::default(), Epoch(4), EventTime(0)).unwrap().rows.num_rows(), 1);
    }
}
