//! Rows on their way out: what an operator says about a table, told without knowing who stores it.
//!
//! An operator declares a [`Table`] and emits [`Changes`] to it. A *keyed* table holds one row per key, the
//! newest version counts, and a deleted key gets a tombstone. An *appended* table holds rows whose key is their
//! place in the log; they never change.

use std::sync::Arc;

use arrow_array::{BooleanArray, RecordBatch};

use crate::stage::Column;

/// A table that rows are written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The name, without a database.
    pub name: Arc<str>,
    /// One sentence on what a row is, for the table's comment.
    pub comment: String,
    /// The columns, key columns included, in the order of the batches that are emitted.
    pub columns: Vec<Column>,
    /// How many columns at the front are the natural key, at least one. The key fixes the partition.
    pub key_columns: usize,
    /// Index of the column whose month partitions the table; it is one of the key's.
    pub partition_by: Option<usize>,
    /// Whether keys are updated or rows are only appended.
    pub kind: TableKind,
    /// How long rows are kept by the column `partition_by`, in days; `None` for ever.
    pub retention_days: Option<u32>,
}

/// How rows of a table relate to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// One row per key; the newest version wins, and a key can be deleted.
    Keyed,
    /// Rows only come; the key makes a repeated delivery harmless.
    Appended,
}

/// Changes of one table in one epoch.
#[derive(Clone, Debug)]
pub struct Changes {
    /// The table's name.
    pub table: Arc<str>,
    /// The rows, in the table's columns. A deleted key's other columns hold their types' defaults.
    pub rows: RecordBatch,
    /// Which rows are tombstones; `None` when none is.
    pub deleted: Option<BooleanArray>,
}
