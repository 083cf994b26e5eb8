//! ClickHouse as a destination: its tables, their readers' views, and inserts that may be repeated.
//!
//! Every [`Table`](weir_schemas::rows::Table) `t` becomes two things in the database. Rows go to the *base table* `t__rows`, a
//! `ReplacingMergeTree` on `_version` that may hold several rows of one key for a while, and tombstones. Readers
//! use the *view* `t`, which shows each key once, without the deleted ones, so that nobody writes `FINAL`.
//!
//! Invariants: nothing that exists is dropped, replaced or emptied, save views that Weir made; the key fixes
//! the partition, so that `FINAL` never has to look across partitions; a row's columns are always named in the
//! insert, so that a column that a person added does no harm.
//!
//! Not here: clusters. A replicated or distributed base table works when a person created it with the same
//! columns and keys; Weir itself creates plain ones.

mod ask;
mod classify;
mod client;
pub mod ddl;
mod encode;
pub mod evolve;
mod insert;
mod lines;
pub mod partitions;
pub mod progress;
pub mod reader;
pub mod releases;
pub mod rollup;
pub mod swaps;

pub use ask::{Answer, AnswerLines, Limits, Question, Refusal};
pub use client::{Client, Lines, Settings};
pub use encode::TableEncoder;
pub use evolve::Layout;
pub use insert::TableSink;
pub use reader::{IS_CLOSED, IS_FINAL, ViewTable};
pub use releases::KeptEvents;
pub use rollup::Rollup;

/// The table that holds the rows of what readers see as `name`.
pub fn base_table(name: &str) -> String {
    format!("{name}__rows")
}

/// A name as SQL writes it, whatever characters it has.
pub fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// A text as SQL writes it.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
