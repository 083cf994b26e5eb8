//! Aggregate functions and their states.
//!
//! A state has one encoding everywhere (between workers, in RocksDB, in the table): the bytes that ClickHouse
//! writes for its `AggregateFunction`, without any prefix of ours. Sets are written sorted, so that equal
//! states have equal bytes here; ClickHouse's own bytes may have another order and are read as well.
//!
//! An [`Accumulator`] is columnar: one instance holds the states of many groups, addressed by slot, so that a
//! batch updates it without an allocation per row.
//!
//! | function | state | value of no rows |
//! |---|---|---|
//! | `count` | `VarUInt` | 0 |
//! | `sum` | `Int64`, `UInt64`, `Float64`, 128 bits for decimals of up to 38 digits, 256 beyond | 0 |
//! | `min`, `max` | flag, value; for `String` its length and a zero at its end | 0, '' |
//! | `avg` | the state of `sum`, rows as `VarUInt` | NaN |
//! | `uniqExact` | `VarUInt` size, elements: numbers as they are, the rest as 128 bits of SipHash | 0 |
//! | `uniqCombined64` | container 1, 2 (`VarUInt` size, hashes) or 3 (HyperLogLog ranks and their counts) | 0 |
//! | `quantileDD` | gamma, offset, bins of positive and of negative values, count of zeros | NaN |
//!
//! - A nullable argument puts a flag before the state (1 once a row was not null; always 1 for `uniqExact`; none for
//!   `count`). The value of no rows is then NULL, but 0 for `count` and `uniqExact`.
//! - The `-If` form changes no byte: its condition decides which rows count. A column for it is best declared with
//!   the function itself, so that `uniqExactMerge` reads it; ClickHouse converts one type into the other. (Only
//!   `countIf` of a nullable argument has a flag in ClickHouse that `count` has not; tables hold its value.)
//! - Sums of integers and decimals wrap, as ClickHouse's do; sums of floats depend on the order of rows in their
//!   last bits, in both.
//! - The value of `uniqCombined64` is ClickHouse's own for the same state. Which container a group of exactly 4,096
//!   distinct hashes is in depends on whether a row followed the last new one, in both.
//! - Not here: sketches and means of dates and times, sets and extremes of arrays and maps, several arguments of one
//!   function, other precisions of `uniqCombined64`.
//!
//! The tests compare every function over every type with the engine, both ways (`tests/it/states`).

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
pub(crate) use quantile::SketchRange;

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
    /// The numbers that its states can hold, where those aren't all of the argument's type.
    pub(crate) fn sketch_range(&self) -> Option<SketchRange> {
        let Function::QuantileDd { relative_accuracy, .. } = &self.function else { return None };
        SketchRange::new(*relative_accuracy, self.arguments.first()?.column_type())
    }

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
    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<(), Error>;

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
