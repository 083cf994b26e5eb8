//! Typed expressions with ClickHouse's semantics, evaluated on whole batches.
//!
//! The planner builds an [`Expr`] whose every node knows its ClickHouse type; evaluation never decides a type.
//! Promotion, overflow, division, null and default-value rules are ClickHouse's: what can't be computed as
//! ClickHouse computes it has no node here, so that the planner must refuse it.

use weir_schemas::types::ColumnType;

/// A typed expression over the columns of a batch.
#[derive(Clone, Debug)]
pub enum Expr {
    /// The batch's column at `index`.
    Column {
        /// Index in the batch.
        index: usize,
        /// The name, for messages.
        name: String,
        /// The type.
        column_type: ColumnType,
    },
}

impl Expr {
    /// The type of the value.
    pub fn column_type(&self) -> &ColumnType {
        match self {
            Expr::Column { column_type, .. } => column_type,
        }
    }
}
