//! The archive: raw records and the schemas that they were written with in an object store, as Parquet.
//!
//! ```text
//! topic=orders/day=2026-01-31/hour=12/part-3-100-199-9f86d081.parquet   records by topic and hour of their Kafka timestamp
//! _schemas/7.json                                                       a writer schema, with what it refers to
//! _manifest/commit-00000000000000000012.json                            what was added, merged, let go of; numbered
//! _manifest/snapshot-00000000000000000010.json                          the sum of all commits up to that one
//! ```
//! The files are for everybody: one row is one record (columns in [`file`]), and the folders are Hive's, so that ClickHouse,
//! DuckDB and pandas find `topic`, `day` and `hour` in the path. Therefore no column of a file has one of these names, and
//! what isn't Parquet stands under names that begin with `_`, which such readers leave alone.
//!
//! Invariants:
//! - What counts is what the manifest names. An object that it doesn't name isn't there for our readers, and is swept.
//! - A commit is written last, at a number of its own and only if nobody has taken that number. So whatever is killed,
//!   a record is archived once; of two writers one fails and looks again.
//! - An object's name holds the beginning of its SHA-256. A name never means two contents: who lost a race can't overwrite
//!   what the winner's manifest names, and writing again after a crash is harmless.
//! - Of a partition, the stretches that were archived follow one another. What the log forgot before it was archived is
//!   a gap with a name, never silence.
//! - Merging small files keeps each row: the sum of the rows' hashes is checked before the commit.
//!
//! Not here: Kafka. Who reads it and when is the pipeline's, who writes it back is replay's. Waiting is not here either:
//! every call is made once, blocks its thread, and says whether trying again can help.

#[cfg(test)]
mod careless;
mod catalog;
mod compact;
mod crypto;
mod error;
pub mod file;
mod manifest;
mod name;
mod read;
mod record;
mod schema;
mod store;
mod sweep;
mod verify;
mod write;

pub use catalog::{Catalog, Log};
pub use compact::{Compaction, Merged};
pub use error::Error;
pub use manifest::{Archive, Change, Commit, Entry, Gap, Stretch};
pub use name::Hour;
pub use read::{Order, Selection};
pub use record::{Kept, Record};
pub use schema::{KeptSchema, Version};
pub use store::{Settings, Store};
pub use verify::{Fault, Verified};
pub use write::{Pending, Ready, Relation};
