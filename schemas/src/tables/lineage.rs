//! The tables of lineage: which stretch of each partition an epoch took, and which version of the pipeline took it.

use std::sync::Arc;

use super::{column, count, time};
use crate::rows::{Table, TableKind};
use crate::types::{ColumnType, Width};

/// The name of [`epochs`].
pub const EPOCHS: &str = "weir_epochs";
/// The name of [`versions`].
pub const VERSIONS: &str = "weir_versions";

/// What each epoch took of each partition: one row per epoch and partition that had records in it. The epochs whose
/// span of event times meets a window hold every record that can have counted in it.
pub fn epochs(retention_days: Option<u32>) -> Table {
    let few = || ColumnType::LowCardinality;
    let offset = || ColumnType::Int(Width::W64);
    let ids = ColumnType::Array(Box::new(ColumnType::UInt(Width::W32)));
    Table {
        name: Arc::from(EPOCHS),
        comment: "What each epoch took of each partition".to_owned(),
        columns: vec![
            column("committed_at", time(), "when the epoch was committed, by Weir's clock"),
            column("source", few(), "the source's name"),
            column("topic", few(), "the topic"),
            column("partition", ColumnType::Int(Width::W32), "the partition"),
            column("first_offset", offset(), "the first record of the epoch"),
            column("next_offset", offset(), "the offset after its last record"),
            column("records", count(), "how many records it took; fewer than offsets where the log has gaps"),
            column("least_event_time", time().nullable(), "of its events that were in time; null where none was"),
            column("greatest_event_time", time().nullable(), "of its events that were in time; null where none was"),
            column("schema_ids", ids, "the writer schemas of its framed records, rising; the first 256 of them"),
            column("epoch", count(), "the epoch"),
            column("pipeline_version", few(), "what was in force: `weir_versions` has it"),
            column("watermark", time().nullable(), "the partition's before the first record; null where it had none"),
        ],
        key_columns: 5,
        partition_by: Some(0),
        kind: TableKind::Appended,
        retention_days,
    }
}

/// Everything that decides results, by version: one row per version of the pipeline that ever committed an epoch.
pub fn versions() -> Table {
    let text = || ColumnType::String;
    Table {
        name: Arc::from(VERSIONS),
        comment: "Versions of the pipeline: everything that decides results".to_owned(),
        columns: vec![
            column("pipeline_version", text(), "a hash of everything below, first_epoch and first_at aside"),
            column("pipeline", text(), "the pipeline's name"),
            column("weir_version", text(), "the version of Weir's code"),
            column("weir_commit", text(), "the commit it was built from, empty where the build didn't say"),
            column(
                "definition",
                text(),
                "JSON: views with their SQL, rules, sources and reader schemas, each with a hash",
            ),
            column("first_epoch", count(), "the first epoch that it committed"),
            column("first_at", time(), "when that was committed, by Weir's clock"),
        ],
        key_columns: 1,
        partition_by: None,
        kind: TableKind::Keyed,
        retention_days: None,
    }
}
