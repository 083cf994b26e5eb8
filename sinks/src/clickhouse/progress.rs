//! Rows of `weir_progress`: how far each view is complete.

use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use weir_schemas::rows::Changes;
use weir_schemas::tables;
use weir_schemas::time::{Epoch, EventTime};

use crate::error::Error;

/// The earliest time that `DateTime64` can show: 1900-01-01T00:00:00Z. Stands for [`EventTime::MIN`].
pub const EARLIEST: EventTime = EventTime(-2_208_988_800_000_000);
/// The latest time that `DateTime64` can show: 2299-12-31T23:59:59.999999Z. Stands for [`EventTime::MAX`].
pub const LATEST: EventTime = EventTime(10_413_791_999_999_999);

/// What is known of one view after an epoch's rows were acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The view.
    pub view: String,
    /// Every window that ends here or before is closed.
    pub complete_through: EventTime,
    /// Every window that ends here or before can change no more by itself.
    pub final_through: EventTime,
    /// The committed epoch.
    pub epoch: Epoch,
    /// The partition with the least watermark, as `topic/partition`; empty when there is none.
    pub held_back_by: String,
    /// When the epoch was committed, by Weir's clock.
    pub committed_at: EventTime,
}

/// The rows for [`tables::progress`].
///
/// # Errors
/// None in practice: the columns are those of the table.
pub fn changes(rows: &[Progress]) -> Result<Changes, Error> {
    let times = |time: fn(&Progress) -> EventTime| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| shown(time(row)))))
    };
    let names =
        |name: fn(&Progress) -> &str| -> ArrayRef { Arc::new(BinaryArray::from_iter_values(rows.iter().map(name))) };
    let columns: Vec<ArrayRef> = vec![
        names(|row| &row.view),
        times(|row| row.complete_through),
        times(|row| row.final_through),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.epoch.0))),
        names(|row| &row.held_back_by),
        times(|row| row.committed_at),
    ];
    let table = tables::progress();
    let rows = RecordBatch::try_from_iter(table.columns.iter().map(|column| column.name.as_str()).zip(columns))
        .map_err(|error| Error::Columns { table: table.name.to_string(), detail: error.to_string() })?;
    Ok(Changes { table: table.name, rows, deleted: None })
}

/// A time as ClickHouse can show it.
pub(super) fn shown(time: EventTime) -> i64 {
    time.clamp(EARLIEST, LATEST).0
}
