//! Evaluation over one batch: every distinct call once.
//!
//! Between nodes a value is an array as long as the batch, or of one row where it is the same for all. A
//! condition travels as Arrow booleans, although its ClickHouse type is `UInt8`, and becomes `UInt8` only
//! where somebody wants its number.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt8Type;
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Datum, Decimal128Array, FixedSizeBinaryArray, RecordBatch,
    UInt8Array, UInt32Array, new_null_array,
};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use arrow_schema::{ArrowError, DataType};
use weir_schemas::types::ColumnType;

use super::typing::is_low;
use super::{Expr, Function, Scalar, compare, convert, decimals, like, logic, maps, numbers, regular, strings, text};
use crate::error::Error;

/// The values of expressions over one batch; equal calls are computed once, however many expressions hold them.
pub struct Evaluation<'a> {
    batch: &'a RecordBatch,
    known: Vec<(&'a Expr, Value)>,
}

/// An array, or one row that stands for all.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) array: ArrayRef,
    pub(super) constant: bool,
}

impl<'a> Evaluation<'a> {
    /// An evaluation that has computed nothing yet.
    pub fn new(batch: &'a RecordBatch) -> Evaluation<'a> {
        Evaluation { batch, known: Vec::new() }
    }

    /// The value for every row, in the Arrow type of the expression.
    ///
    /// # Errors
    /// [`Error::Evaluation`] where ClickHouse's query would fail, too.
    pub fn array(&mut self, expr: &'a Expr) -> Result<ArrayRef, Error> {
        let rows = self.batch.num_rows();
        let value = self.value(expr)?;
        let carried = carried(value.array, expr.column_type());
        if value.constant { spread(&carried, rows) } else { Ok(carried) }
    }

    /// The value as a condition: null where it is null, else whether it isn't zero.
    ///
    /// # Errors
    /// As [`Evaluation::array`].
    pub fn condition(&mut self, expr: &'a Expr) -> Result<BooleanArray, Error> {
        let rows = self.batch.num_rows();
        let value = self.value(expr)?;
        let truth = value.truth()?;
        if !value.constant {
            return Ok(truth);
        }
        Ok(if truth.is_null(0) {
            BooleanArray::new_null(rows)
        } else {
            BooleanArray::new(
                if truth.value(0) { BooleanBuffer::new_set(rows) } else { BooleanBuffer::new_unset(rows) },
                None,
            )
        })
    }

    pub(super) fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// The rows of the batch for which `mask` holds.
    pub(super) fn rows_where(&self, mask: &BooleanArray) -> Result<RecordBatch, Error> {
        Ok(arrow_select::filter::filter_record_batch(self.batch, mask)?)
    }

    /// A condition computed for the rows of `mask` alone, null elsewhere.
    pub(super) fn condition_where(&self, expr: &Expr, mask: &BooleanArray) -> Result<BooleanArray, Error> {
        let part = self.rows_where(mask)?;
        let truth = Evaluation::new(&part).condition(expr)?;
        let mut held = truth.iter();
        Ok(mask.values().iter().map(|open| if open { held.next().flatten() } else { None }).collect())
    }

    pub(super) fn value(&mut self, expr: &'a Expr) -> Result<Value, Error> {
        match expr {
            Expr::Column { index, name, .. } => match self.batch.columns().get(*index) {
                Some(array) => Ok(Value { array: Arc::clone(array), constant: false }),
                None => Err(Error::Arrow(ArrowError::SchemaError(format!(
                    "column {name} should be at {index}, the batch has {} columns",
                    self.batch.num_columns()
                )))),
            },
            Expr::Literal { value, column_type } => literal(value, column_type),
            Expr::Call { function, arguments, column_type } => {
                if let Some((_, value)) = self.known.iter().find(|(known, _)| *known == expr) {
                    return Ok(value.clone());
                }
                let value = self.call(expr, function, arguments, column_type)?;
                self.known.push((expr, value.clone()));
                Ok(value)
            }
        }
    }

    fn call(
        &mut self,
        expr: &'a Expr,
        function: &'a Function,
        arguments: &'a [Expr],
        column_type: &'a ColumnType,
    ) -> Result<Value, Error> {
        match function {
            Function::MultiIf | Function::Coalesce => return logic::choose(self, function, arguments, column_type),
            Function::And | Function::Or => return logic::and_or(self, arguments, matches!(function, Function::And)),
            _ => {}
        }
        let values = arguments.iter().map(|argument| self.value(argument)).collect::<Result<Vec<_>, _>>()?;
        let constant = values.iter().all(|value| value.constant);
        let rows = if constant { 1 } else { self.rows() };
        let call = Call { expr, arguments, values: &values, rows, result: column_type };
        let array: ArrayRef = match function {
            Function::Plus | Function::Minus | Function::Multiply | Function::Divide => {
                if let ColumnType::Decimal(..) = column_type.without_null() {
                    decimals::arithmetic(&call, function)?
                } else {
                    numbers::arithmetic(&call, function)?
                }
            }
            Function::IntDiv => numbers::int_div(&call)?,
            Function::Modulo => numbers::modulo(&call)?,
            Function::Negate => numbers::negate(&call)?,
            Function::Abs => numbers::abs(&call)?,
            Function::Round(digits) => numbers::round(&call, *digits)?,
            Function::Compare(comparison) => Arc::new(compare::compare(&call, *comparison)?),
            Function::Not => Arc::new(arrow_arith::boolean::not(&call.value(0)?.truth()?)?),
            Function::IsNull => Arc::new(logic::is_null(call.value(0)?, rows)),
            Function::IsNotNull => Arc::new(arrow_arith::boolean::not(&logic::is_null(call.value(0)?, rows))?),
            Function::In { members, negated } => Arc::new(members.contains(&call, *negated)?),
            Function::Like { pattern, negated } => Arc::new(like::matches(&call, pattern, *negated)?),
            Function::Match(regular) => Arc::new(regular::matches(&call, regular)?),
            Function::Lower => strings::change_case(&call, u8::to_ascii_lowercase)?,
            Function::Upper => strings::change_case(&call, u8::to_ascii_uppercase)?,
            Function::Length => strings::length(&call)?,
            Function::Concat => strings::concat(&call)?,
            Function::Substring => strings::substring(&call)?,
            Function::StartsWith => Arc::new(strings::affix(&call, <[u8]>::starts_with)?),
            Function::EndsWith => Arc::new(strings::affix(&call, <[u8]>::ends_with)?),
            Function::ToString => text::to_string(&call)?,
            Function::Convert(target) => convert::convert(&call, *target)?,
            Function::Parse(target, on_failure) => convert::parse(&call, *target, *on_failure)?,
            Function::ToDate(zone) => convert::to_date(&call, zone.as_ref())?,
            Function::MapGet => maps::get(&call)?,
            Function::Widen => convert::widen(&call)?,
            Function::MultiIf | Function::Coalesce | Function::And | Function::Or => {
                return Err(expr.failed("is computed by itself"));
            }
        };
        let is_float = matches!(column_type.without_null(), ColumnType::Float32 | ColumnType::Float64);
        let array = if is_float && is_low(expr) { numbers::without_negative_zeros(array) } else { array };
        Ok(Value { array, constant })
    }
}

/// A call with its arguments' values: what every kernel takes.
pub(super) struct Call<'a> {
    pub(super) expr: &'a Expr,
    pub(super) arguments: &'a [Expr],
    pub(super) values: &'a [Value],
    /// Rows of the result: the batch's, or 1 where all arguments are constant.
    pub(super) rows: usize,
    pub(super) result: &'a ColumnType,
}

impl Call<'_> {
    pub(super) fn value(&self, at: usize) -> Result<&Value, Error> {
        self.values.get(at).ok_or_else(|| self.expr.failed(format!("argument {} is missing", at + 1)))
    }

    pub(super) fn argument_type(&self, at: usize) -> Result<&ColumnType, Error> {
        match self.arguments.get(at) {
            Some(argument) => Ok(argument.column_type()),
            None => Err(self.expr.failed(format!("argument {} is missing", at + 1))),
        }
    }

    /// An argument as numbers: conditions become `UInt8`.
    pub(super) fn number(&self, at: usize) -> Result<Value, Error> {
        let value = self.value(at)?;
        Ok(Value { array: as_number(&value.array), constant: value.constant })
    }

    /// The null slots of a function that is null where any argument is.
    pub(super) fn nulls(&self) -> Option<NullBuffer> {
        let mut nulls: Option<NullBuffer> = None;
        for value in self.values {
            nulls = NullBuffer::union(nulls.as_ref(), value.nulls_over(self.rows).as_ref());
        }
        nulls
    }

    pub(super) fn unsupported(&self) -> Error {
        self.expr.failed("has no kernel for the types of its arguments")
    }
}

impl Value {
    /// The value as a condition.
    pub(super) fn truth(&self) -> Result<BooleanArray, Error> {
        if let Some(truth) = self.array.as_boolean_opt() {
            return Ok(truth.clone());
        }
        numbers::is_not_zero(&self.array)
    }

    /// The null slots over `rows` rows; a constant's single slot counts for all.
    pub(super) fn nulls_over(&self, rows: usize) -> Option<NullBuffer> {
        match self.array.nulls() {
            Some(nulls) if self.constant => nulls.is_null(0).then(|| NullBuffer::new_null(rows)),
            nulls => nulls.cloned(),
        }
    }

    /// The bytes of strings; fixed strings and others give an error.
    pub(super) fn bytes(&self) -> Result<Bytes<'_>, Error> {
        match self.array.as_binary_opt::<i32>() {
            Some(array) => Ok(Bytes { array, constant: self.constant }),
            None => {
                Err(Error::Arrow(ArrowError::SchemaError(format!("expected strings, got {}", self.array.data_type()))))
            }
        }
    }
}

impl Datum for Value {
    fn get(&self) -> (&dyn Array, bool) {
        (self.array.as_ref(), self.constant)
    }
}

/// Strings by row.
pub(super) struct Bytes<'a> {
    array: &'a BinaryArray,
    constant: bool,
}

impl<'a> Bytes<'a> {
    pub(super) fn at(&self, row: usize) -> &'a [u8] {
        self.array.value(if self.constant { 0 } else { row })
    }

    pub(super) fn array(&self) -> &'a BinaryArray {
        self.array
    }
}

/// Conditions as the `UInt8` that ClickHouse has for them; other arrays as they are.
pub(super) fn as_number(array: &ArrayRef) -> ArrayRef {
    match array.as_boolean_opt() {
        Some(truth) => {
            let numbers: Vec<u8> = truth.values().iter().map(u8::from).collect();
            Arc::new(UInt8Array::new(numbers.into(), truth.nulls().cloned()))
        }
        None => Arc::clone(array),
    }
}

fn carried(array: ArrayRef, column_type: &ColumnType) -> ArrayRef {
    match column_type.without_null() {
        ColumnType::Bool => match array.as_primitive_opt::<UInt8Type>() {
            Some(numbers) => Arc::new(BooleanArray::new(
                BooleanBuffer::collect_bool(numbers.len(), |row| numbers.value(row) != 0),
                numbers.nulls().cloned(),
            )),
            None => array,
        },
        _ => as_number(&array),
    }
}

/// `array`'s one row, `rows` times.
pub(super) fn spread(array: &ArrayRef, rows: usize) -> Result<ArrayRef, Error> {
    if array.is_null(0) {
        return Ok(new_null_array(array.data_type(), rows));
    }
    let indices = UInt32Array::from_value(0, rows);
    Ok(arrow_select::take::take(array.as_ref(), &indices, None)?)
}

/// The one-row array of a literal.
pub(super) fn literal(value: &Scalar, column_type: &ColumnType) -> Result<Value, Error> {
    let to = column_type.arrow();
    let array: ArrayRef = match (value, &to) {
        (Scalar::Null, _) => new_null_array(&to, 1),
        (Scalar::Bool(value), DataType::Boolean) => Arc::new(BooleanArray::from(vec![*value])),
        (Scalar::Int(value), _) => numbers::one(*value, &to)?,
        (Scalar::UInt(value), _) => numbers::one(*value, &to)?,
        (Scalar::Float(value), _) => numbers::one(*value, &to)?,
        (Scalar::Bytes(value), DataType::Binary) => Arc::new(BinaryArray::from_vec(vec![value.as_ref()])),
        (Scalar::Bytes(value), DataType::FixedSizeBinary(_)) => {
            Arc::new(FixedSizeBinaryArray::try_from_iter(std::iter::once(value.as_ref()))?)
        }
        (Scalar::Decimal(value), DataType::Decimal128(precision, scale)) => {
            Arc::new(Decimal128Array::from(vec![*value]).with_precision_and_scale(*precision, *scale)?)
        }
        (Scalar::Days(value), DataType::Date32) => Arc::new(Date32Array::from(vec![*value])),
        (Scalar::Ticks(value), DataType::Timestamp(..)) => {
            numbers::one(*value, &DataType::Int64).and_then(|array| Ok(arrow_cast::cast(&array, &to)?))?
        }
        _ => {
            return Err(Error::Arrow(ArrowError::SchemaError(format!("no literal {value:?} of type {column_type}"))));
        }
    };
    Ok(Value { array, constant: true })
}
