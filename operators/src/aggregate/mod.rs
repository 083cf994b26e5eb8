//! Aggregate functions and their states.
//!
//! A state has one encoding everywhere (between workers, in RocksDB, in the table): the bytes that ClickHouse
//! writes for its `AggregateFunction`, without any prefix of ours. Sets are written sorted, so that equal
//! states have equal bytes here; ClickHouse's own bytes may have another order and are read as well.
//!
//! An [`Accumulator`] is columnar: one instance holds the states of many groups, addressed by slot, so that a
//! batch updates it without an allocation per row.

mod avg;
mod build;
mod bytes;
mod combined;
mod count;
mod distinct;
mod extreme;
mod extreme_bytes;
mod hash;
mod knots;
mod lane;
mod nullable;
mod quantile;
mod ranks;
mod rows;
mod sketch;
mod sum;
mod unique;

pub use build::{accumulator, merge_states};

use arrow_array::{ArrayRef, BooleanArray};
use weir_schemas::types::ColumnType;

use crate::error::Error;
use crate::expr::Expr;

/// An aggregate call of a view: function, arguments, and the condition of its `-If` form.
#[derive(Clone, Debug)]
pub struct Call {
    /// The function.
    pub function: Function,
    /// Its arguments, over the events' columns.
    pub arguments: Vec<Expr>,
    /// Rows for which this is false or null do not count.
    pub condition: Option<Expr>,
    /// The function's type as it stands between the parentheses of `AggregateFunction(...)`.
    pub signature: String,
    /// The type of the finalised value.
    pub result: ColumnType,
}

/// An aggregate function.
#[derive(Clone, Debug, PartialEq)]
pub enum Function {
    /// `count()`, `count(x)`: with an argument, nulls do not count.
    Count,
    /// `sum(x)`.
    Sum,
    /// `min(x)`.
    Min,
    /// `max(x)`.
    Max,
    /// `avg(x)`.
    Avg,
    /// `uniqExact(x)`, of one argument.
    UniqExact,
    /// `uniqCombined64(x)`, of one argument and the default precision 17.
    UniqCombined64,
    /// `quantileDD(relative_accuracy, level)(x)`.
    QuantileDd {
        /// The relative accuracy, between 0 and 1.
        relative_accuracy: f64,
        /// The level, 0 to 1.
        level: f64,
    },
}

impl Function {
    /// The name as in SQL, without parameters and without `-If`.
    pub fn name(&self) -> &'static str {
        match self {
            Function::Count => "count",
            Function::Sum => "sum",
            Function::Min => "min",
            Function::Max => "max",
            Function::Avg => "avg",
            Function::UniqExact => "uniqExact",
            Function::UniqCombined64 => "uniqCombined64",
            Function::QuantileDd { .. } => "quantileDD",
        }
    }
}

/// Which end of the order a function keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Min,
    Max,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Min => "min",
            Side::Max => "max",
        }
    }
}

impl Call {
    /// The type of the finalised value.
    pub fn result_type(&self) -> &ColumnType {
        &self.result
    }

    /// The type of the table's column: the value itself for count, sum, min and max, the state for the rest.
    pub fn stored_type(&self) -> ColumnType {
        match self.function {
            Function::Count | Function::Sum | Function::Min | Function::Max => self.result.clone(),
            _ => ColumnType::AggregateState(self.signature.clone()),
        }
    }
}

/// The states of many groups of one aggregate call, addressed by slot.
///
/// A slot that was never updated or was cleared holds the state of no rows.
pub trait Accumulator {
    /// Makes slots `0..slots` addressable; never shrinks.
    fn grow(&mut self, slots: usize);

    /// Adds row `i` to slot `slots[i]` for every `i` where `filter` is absent or true (null counts as false).
    /// `arguments` are the evaluated arguments, each as long as `slots`.
    fn update(
        &mut self,
        slots: &[u32],
        arguments: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<(), Error>;

    /// Merges a state into a slot. The bytes may come from Weir or from ClickHouse; wrong bytes are an error and
    /// leave the slot as it was. Never allocates more than a small multiple of `state.len()`.
    fn merge(&mut self, slot: u32, state: &[u8]) -> Result<(), Error>;

    /// Appends the slot's whole state to `out`, in the canonical order.
    fn write_state(&self, slot: u32, out: &mut Vec<u8>);

    /// Appends what changed in the slot since the last call, as a state that `merge` takes: the whole state for
    /// small ones (then it replaces), the added elements for sets (then it is merged with what is stored).
    fn take_delta(&mut self, slot: u32, out: &mut Vec<u8>) -> Delta;

    /// Declares the slot's state as stored, as `take_delta` does without writing it: to be called after a stored
    /// state was merged into a slot that was empty. Forgetting it costs bytes, not correctness.
    fn settle(&mut self, slot: u32);

    /// The finalised values of `slots`, in the call's result type.
    fn finish(&self, slots: &[u32]) -> Result<ArrayRef, Error>;

    /// Forgets a slot's state; its number will be used again.
    fn clear(&mut self, slot: u32);

    /// Bytes of memory that the slot's state takes beyond its fixed part.
    fn heap_bytes(&self, slot: u32) -> usize;
}

/// How the bytes of [`Accumulator::take_delta`] relate to what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delta {
    /// They are the whole state: stored bytes are replaced.
    Whole,
    /// They are to be merged with the stored state.
    Added,
}
