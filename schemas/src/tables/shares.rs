//! What the judge counted by release, of what it found out of order.

use std::sync::Arc;

use super::{column, count, time};
use crate::rows::{Table, TableKind};
use crate::types::{ColumnType, Width};

/// The name of [`shares`].
pub const SHARES: &str = "weir_shares";

/// What each release showed of what was found out of order: one row per window, series and release, for as long as it is so.
///
/// Here and nowhere else stands what of a source whose events aren't kept would be gone, and what no table of events
/// has: copies, records that came too late and lost ones, by release.
pub fn shares() -> Table {
    let few = || ColumnType::LowCardinality;
    Table {
        name: Arc::from(SHARES),
        comment: "What each release showed of what the judge found out of order, for as long as it was".to_owned(),
        columns: vec![
            column("window_start", time(), "start of the window that was judged"),
            column("source", few(), "the source"),
            column("tenant", few(), "the tenant"),
            column("indicator", few(), "the number that is watched, as in alerts"),
            column(
                "code",
                ColumnType::UInt(Width::W64),
                "which reason, rule, value or range of it; 0 where there is one",
            ),
            column("event_type", few(), "the event type; empty where it is about all"),
            column("field", few(), "the field; empty where it is about none"),
            column("sdk", few(), "the SDK"),
            column("sdk_version", few(), "the SDK's version"),
            column("app_version", few(), "the app's version"),
            column("label", few(), "what code stands for, in words"),
            column("affected", count(), "records of the release in the window that show it"),
            column("records", count(), "records of it that could"),
        ],
        key_columns: 10,
        partition_by: Some(0),
        kind: TableKind::Appended,
        retention_days: None,
    }
}
