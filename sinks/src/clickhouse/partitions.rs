//! Rows of `weir_partitions`: where each partition is read.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt32Array,
    UInt64Array,
};
use weir_schemas::rows::Changes;
use weir_schemas::tables;
use weir_schemas::time::{Epoch, EventTime};

use super::progress::shown;
use crate::error::Error;

/// What is known of one partition when an epoch is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The source's name.
    pub source: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Every record before this offset is committed.
    pub next_offset: i64,
    /// The log's end, as far as it is known.
    pub end_offset: i64,
    /// The partition's own watermark at `next_offset`.
    pub watermark: EventTime,
    /// What it is doing.
    pub state: String,
    /// Why, where it waits.
    pub detail: String,
    /// Whether it holds the source's watermark back.
    pub holds_back: bool,
    /// The worker that reads it.
    pub worker: u32,
}

/// The rows for [`tables::partitions`], of an epoch and the time of its commit.
///
/// # Errors
/// None in practice: the columns are those of the table.
pub fn changes(rows: &[Partition], epoch: Epoch, committed_at: EventTime) -> Result<Changes, Error> {
    let texts =
        |text: fn(&Partition) -> &str| -> ArrayRef { Arc::new(BinaryArray::from_iter_values(rows.iter().map(text))) };
    let offsets =
        |offset: fn(&Partition) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(rows.iter().map(offset))) };
    let columns: Vec<ArrayRef> = vec![
        texts(|row| &row.source),
        texts(|row| &row.topic),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.partition))),
        offsets(|row| row.next_offset),
        offsets(|row| row.end_offset),
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| shown(row.watermark)))),
        texts(|row| &row.state),
        texts(|row| &row.detail),
        Arc::new(rows.iter().map(|row| Some(row.holds_back)).collect::<BooleanArray>()),
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.worker))),
        Arc::new(UInt64Array::from_value(epoch.0, rows.len())),
        Arc::new(TimestampMicrosecondArray::from_value(shown(committed_at), rows.len())),
    ];
    let table = tables::partitions();
    let rows = RecordBatch::try_from_iter(table.columns.iter().map(|column| column.name.as_str()).zip(columns))
        .map_err(|error| Error::Columns { table: table.name.to_string(), detail: error.to_string() })?;
    Ok(Changes { table: table.name, rows, deleted: None })
}
