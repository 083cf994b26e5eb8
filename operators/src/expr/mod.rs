//! Typed expressions with ClickHouse's semantics, evaluated on whole batches.
//!
//! The planner builds an [`Expr`] whose every node knows its ClickHouse type ([`Expr::call`] applies the typing
//! rules); evaluation never decides a type. Promotion, overflow, division, null and default-value rules are
//! ClickHouse's: what can't be computed as ClickHouse computes it has no node here, so that the planner must
//! refuse it.
//!
//! Invariants: [`Expr::evaluate`] returns an array of exactly `column_type().arrow()`, as long as the batch;
//! null slots appear only under `Nullable`. Within one [`Evaluation`] equal subexpressions are computed once.
//!
//! `LowCardinality` is kept on strings, where ClickHouse keeps it; on other results (`LowCardinality(UInt8)` of a
//! comparison) it is dropped, which changes a type's name but no value.

mod compare;
mod convert;
mod decimals;
mod evaluate;
mod function;
mod like;
mod logic;
mod maps;
mod members;
mod numbers;
mod parse;
mod regular;
mod strings;
mod text;
mod typing;
mod zone;

use std::fmt;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, RecordBatch};
use weir_schemas::types::ColumnType;

use crate::error::Error;

pub use evaluate::Evaluation;
pub use function::{Comparison, Function, OnFailure, Pattern, Target};
pub use members::Members;
pub use parse::{parse_date, parse_ticks};
pub use regular::Regular;
pub use text::write_float;
pub use typing::Refusal;
pub use zone::LocalTime;

/// A typed expression over the columns of a batch.
#[derive(Clone, Debug, PartialEq)]
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
    /// One value for every row.
    Literal {
        /// The value.
        value: Scalar,
        /// The type.
        column_type: ColumnType,
    },
    /// A function of other expressions.
    Call {
        /// The function.
        function: Function,
        /// Its arguments.
        arguments: Vec<Expr>,
        /// The type of the result.
        column_type: ColumnType,
    },
}

/// The value of a literal; its type stands beside it.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// NULL of a `Nullable` type.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    UInt(u64),
    /// A float; `Float32` holds the value that it rounds to.
    Float(f64),
    /// Bytes of a string, of a `FixedString` (padded) or of a `UUID` (16).
    Bytes(Arc<[u8]>),
    /// The unscaled value of a decimal.
    Decimal(i128),
    /// Days since 1970.
    Days(i32),
    /// Ticks of a `DateTime` (seconds) or `DateTime64` (its Arrow unit) since 1970.
    Ticks(i64),
}

impl Expr {
    /// The type of the value.
    pub fn column_type(&self) -> &ColumnType {
        match self {
            Expr::Column { column_type, .. } | Expr::Literal { column_type, .. } | Expr::Call { column_type, .. } => {
                column_type
            }
        }
    }

    /// A call with the type that ClickHouse gives it, or why there is none.
    pub fn call(function: Function, arguments: Vec<Expr>) -> Result<Expr, Refusal> {
        typing::call(function, arguments)
    }

    /// `multiIf(conditions[0], branches[0], ..., branches.last())`; `None` stands for NULL. `if` is the form with one condition.
    pub fn multi_if(conditions: Vec<Expr>, branches: Vec<Option<Expr>>) -> Result<Expr, Refusal> {
        typing::multi_if(conditions, branches)
    }

    /// `coalesce(...)` of what isn't a literal NULL.
    pub fn coalesce(arguments: Vec<Expr>) -> Result<Expr, Refusal> {
        typing::coalesce(arguments)
    }

    /// The expression of type `to`, where a conversion that loses nothing exists.
    pub fn widen(self, to: &ColumnType) -> Expr {
        if self.column_type() == to {
            return self;
        }
        Expr::Call { function: Function::Widen, arguments: vec![self], column_type: to.clone() }
    }

    /// Whether no column stands in it.
    pub fn is_constant(&self) -> bool {
        match self {
            Expr::Column { .. } => false,
            Expr::Literal { .. } => true,
            Expr::Call { arguments, .. } => arguments.iter().all(Expr::is_constant),
        }
    }

    /// Whether there are values for which evaluation fails, as ClickHouse's query does.
    pub fn can_fail(&self) -> bool {
        let Expr::Call { function, arguments, column_type } = self else { return false };
        function.can_fail(arguments, column_type) || arguments.iter().any(Expr::can_fail)
    }

    /// The value for every row of `batch`, in the Arrow type of [`Expr::column_type`].
    ///
    /// # Errors
    /// [`Error::Evaluation`] where ClickHouse's query would fail, too (decimal overflow, NaN to an integer).
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, Error> {
        Evaluation::new(batch).array(self)
    }

    /// The value as a condition: null where it is null, else whether it isn't zero.
    ///
    /// # Errors
    /// As [`Expr::evaluate`].
    pub fn evaluate_condition(&self, batch: &RecordBatch) -> Result<BooleanArray, Error> {
        Evaluation::new(batch).condition(self)
    }

    /// Calls `visit` with the index of every column that stands in the expression.
    pub fn visit_columns(&self, visit: &mut impl FnMut(usize)) {
        match self {
            Expr::Column { index, .. } => visit(*index),
            Expr::Literal { .. } => {}
            Expr::Call { arguments, .. } => arguments.iter().for_each(|argument| argument.visit_columns(visit)),
        }
    }

    /// The same expression over a batch in which the column at `index` stands at `to(index)`.
    pub fn over(mut self, to: &impl Fn(usize) -> usize) -> Expr {
        self.move_columns(to);
        self
    }

    fn move_columns(&mut self, to: &impl Fn(usize) -> usize) {
        match self {
            Expr::Column { index, .. } => *index = to(*index),
            Expr::Literal { .. } => {}
            Expr::Call { arguments, .. } => arguments.iter_mut().for_each(|argument| argument.move_columns(to)),
        }
    }

    /// The error of this expression at run time.
    pub(crate) fn failed(&self, detail: impl Into<String>) -> Error {
        Error::Evaluation { expression: self.to_string(), detail: detail.into() }
    }
}

impl fmt::Display for Expr {
    /// The expression as ClickHouse would write it, functions for operators.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Column { name, .. } => f.write_str(name),
            Expr::Literal { value, column_type } => write_literal(f, value, column_type),
            Expr::Call { function: Function::Widen, arguments, .. } => match arguments.first() {
                Some(argument) => write!(f, "{argument}"),
                None => Ok(()),
            },
            Expr::Call { function, arguments, .. } => function.write_call(f, arguments),
        }
    }
}

fn write_literal(f: &mut fmt::Formatter<'_>, value: &Scalar, column_type: &ColumnType) -> fmt::Result {
    match value {
        Scalar::Null => f.write_str("NULL"),
        Scalar::Bool(value) => write!(f, "{value}"),
        Scalar::Int(value) => write!(f, "{value}"),
        Scalar::UInt(value) => write!(f, "{value}"),
        Scalar::Float(value) => {
            let mut text = Vec::new();
            write_float(*value, &mut text);
            f.write_str(&String::from_utf8_lossy(&text))
        }
        Scalar::Bytes(_) | Scalar::Decimal(_) | Scalar::Days(_) | Scalar::Ticks(_) => {
            let mut bytes = Vec::new();
            text::write_scalar(value, column_type, &mut bytes);
            write!(f, "'{}'", String::from_utf8_lossy(&bytes).escape_debug())
        }
    }
}
