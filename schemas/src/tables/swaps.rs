//! Which replays stand in the place of live rows, and who put them there.

use std::sync::Arc;

use super::{column, time};
use crate::rows::{Table, TableKind};
use crate::types::ColumnType;

/// The name of [`swaps`].
pub const SWAPS: &str = "weir_swaps";

/// What happened to the readers' views by hand: a replay was swapped in, or taken out again. Nothing is ever changed in it;
/// what is in place is what the newest row of each view and run says.
pub fn swaps() -> Table {
    let few = || ColumnType::LowCardinality;
    Table {
        name: Arc::from(SWAPS),
        comment: "Replays that were put in the place of live rows, and taken out again".to_owned(),
        columns: vec![
            column("at", time(), "when"),
            column("view", few(), "the view"),
            column("run", few(), "the replay"),
            column("action", few(), "swap or undo"),
            column("database", few(), "where the replay's rows are"),
            column("from", time(), "the first start of a window whose rows come from the replay"),
            column("to", time(), "the first start of a window behind them"),
            column("by", ColumnType::String, "who did it"),
            column("why", ColumnType::String, "why"),
        ],
        key_columns: 3,
        partition_by: None,
        kind: TableKind::Appended,
        retention_days: None,
    }
}
