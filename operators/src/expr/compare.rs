//! Comparisons. Numbers compare by value whatever their types: a negative integer is less than every unsigned
//! one, an integer and a float compare exactly, NaN is unequal to everything. Strings compare as bytes.

use std::cmp::Ordering;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{ArrayRef, BooleanArray};
use arrow_buffer::{BooleanBuffer, ScalarBuffer};
use arrow_schema::{DataType, TimeUnit};
use weir_schemas::types::ColumnType;

use super::Comparison;
use super::decimals;
use super::evaluate::{Call, Value};
use super::numbers::{convert_to, wide_integers};
use crate::error::Error;

/// `a = b` and its relatives.
pub(super) fn compare(call: &Call<'_>, comparison: Comparison) -> Result<BooleanArray, Error> {
    let left = call.number(0)?;
    let right = call.number(1)?;
    let (left_type, right_type) = (call.argument_type(0)?.without_null(), call.argument_type(1)?.without_null());
    let values = match (left.array.data_type(), right.array.data_type()) {
        (DataType::Binary, DataType::Binary) | (DataType::FixedSizeBinary(_), DataType::FixedSizeBinary(_)) => {
            return bytes(&left, &right, comparison, call.rows);
        }
        (DataType::Decimal128(..), _) | (_, DataType::Decimal128(..)) => {
            decimal(call, [&left, &right], [left_type, right_type], comparison)?
        }
        (DataType::Timestamp(a, _), DataType::Timestamp(b, _)) => {
            let (a, b) = (nanoseconds(a), nanoseconds(b));
            let (left_ticks, right_ticks) = (ticks(&left.array)?, ticks(&right.array)?);
            if a == b {
                each(call.rows, &left, &left_ticks, &right, &right_ticks, |a, b| holds(comparison, a.cmp(b)))
            } else {
                each(call.rows, &left, &left_ticks, &right, &right_ticks, |x, y| {
                    holds(comparison, (i128::from(*x) * a).cmp(&(i128::from(*y) * b)))
                })
            }
        }
        (DataType::Date32, DataType::Date32) => {
            let days = |value: &Value| value.array.as_primitive::<arrow_array::types::Date32Type>().values().clone();
            each(call.rows, &left, &days(&left), &right, &days(&right), |a, b| holds(comparison, a.cmp(b)))
        }
        (a, b) if a.is_numeric() && b.is_numeric() => numbers(call.rows, &left, &right, comparison)?,
        _ => return Err(call.unsupported()),
    };
    Ok(BooleanArray::new(values, call.nulls()))
}

/// Compares bytes with Arrow's kernels, which allocate nothing per row.
fn bytes(left: &Value, right: &Value, comparison: Comparison, rows: usize) -> Result<BooleanArray, Error> {
    let result = match comparison {
        Comparison::Equal => arrow_ord::cmp::eq(left, right)?,
        Comparison::NotEqual => arrow_ord::cmp::neq(left, right)?,
        Comparison::Less => arrow_ord::cmp::lt(left, right)?,
        Comparison::LessOrEqual => arrow_ord::cmp::lt_eq(left, right)?,
        Comparison::Greater => arrow_ord::cmp::gt(left, right)?,
        Comparison::GreaterOrEqual => arrow_ord::cmp::gt_eq(left, right)?,
    };
    debug_assert_eq!(result.len(), rows);
    Ok(result)
}

fn numbers(rows: usize, left: &Value, right: &Value, comparison: Comparison) -> Result<BooleanBuffer, Error> {
    let (left_type, right_type) = (left.array.data_type(), right.array.data_type());
    let wide = |of: &DataType| matches!(of, DataType::Int64 | DataType::UInt64);
    let integers = left_type.is_integer() && right_type.is_integer();
    if !integers && !wide(left_type) && !wide(right_type) {
        // Every integer of up to 32 bits and every Float32 is a Float64.
        let (a, b) = (convert_to::<Float64Type>(&left.array)?, convert_to::<Float64Type>(&right.array)?);
        return Ok(each(rows, left, a.values(), right, b.values(), |a, b| floats(comparison, *a, *b)));
    }
    if integers && *left_type != DataType::UInt64 && *right_type != DataType::UInt64 {
        let (a, b) = (convert_to::<Int64Type>(&left.array)?, convert_to::<Int64Type>(&right.array)?);
        return Ok(each(rows, left, a.values(), right, b.values(), |a, b| holds(comparison, a.cmp(b))));
    }
    if integers && left_type.is_unsigned_integer() && right_type.is_unsigned_integer() {
        let (a, b) = (convert_to::<UInt64Type>(&left.array)?, convert_to::<UInt64Type>(&right.array)?);
        return Ok(each(rows, left, a.values(), right, b.values(), |a, b| holds(comparison, a.cmp(b))));
    }
    if integers {
        let (a, b) = (wide_integers(&left.array)?, wide_integers(&right.array)?);
        return Ok(each(rows, left, &a, right, &b, |a, b| holds(comparison, a.cmp(b))));
    }
    if left_type.is_floating() {
        let (a, b) = (convert_to::<Float64Type>(&left.array)?, wide_integers(&right.array)?);
        let flipped = comparison.flipped();
        return Ok(each(rows, left, a.values(), right, &b, |a, b| integer_and_float(flipped, *b, *a)));
    }
    let (a, b) = (wide_integers(&left.array)?, convert_to::<Float64Type>(&right.array)?);
    Ok(each(rows, left, &a, right, b.values(), |a, b| integer_and_float(comparison, *a, *b)))
}

/// Two decimals, or a decimal and a float; the planner brings integer literals to the decimal's type.
fn decimal(
    call: &Call<'_>,
    [left, right]: [&Value; 2],
    [left_type, right_type]: [&ColumnType; 2],
    comparison: Comparison,
) -> Result<BooleanBuffer, Error> {
    let scales = (decimals::precision_and_scale(left_type), decimals::precision_and_scale(right_type));
    match scales {
        (Some((left_precision, left_scale)), Some((right_precision, right_scale))) => {
            let (a, b) = (decimals::values(&left.array)?, decimals::values(&right.array)?);
            let scale = left_scale.max(right_scale);
            let (a_factor, b_factor) = (decimals::power(scale - left_scale), decimals::power(scale - right_scale));
            let precision = left_precision.max(right_precision);
            let overflows = |values: &ScalarBuffer<i128>, factor: i128| {
                factor != 1
                    && values
                        .iter()
                        .any(|value| !value.checked_mul(factor).is_some_and(|value| decimals::fits(value, precision)))
            };
            if overflows(a.values(), a_factor) || overflows(b.values(), b_factor) {
                return Err(call.expr.failed("Can't compare decimal number due to overflow"));
            }
            Ok(each(call.rows, left, a.values(), right, b.values(), |a, b| {
                holds(comparison, (a * a_factor).cmp(&(b * b_factor)))
            }))
        }
        (Some((_, scale)), None) => {
            let (a, b) = (decimals::to_float(&left.array, scale)?, convert_to::<Float64Type>(&right.array)?);
            Ok(each(call.rows, left, a.values(), right, b.values(), |a, b| floats(comparison, *a, *b)))
        }
        (None, Some((_, scale))) => {
            let (a, b) = (convert_to::<Float64Type>(&left.array)?, decimals::to_float(&right.array, scale)?);
            Ok(each(call.rows, left, a.values(), right, b.values(), |a, b| floats(comparison, *a, *b)))
        }
        (None, None) => Err(call.unsupported()),
    }
}

fn each<A, B>(
    rows: usize,
    left: &Value,
    a: &ScalarBuffer<A>,
    right: &Value,
    b: &ScalarBuffer<B>,
    test: impl Fn(&A, &B) -> bool,
) -> BooleanBuffer
where
    A: arrow_buffer::ArrowNativeType,
    B: arrow_buffer::ArrowNativeType,
{
    match (left.constant, right.constant) {
        (false, false) => BooleanBuffer::collect_bool(rows, |row| test(&a[row], &b[row])),
        (false, true) => BooleanBuffer::collect_bool(rows, |row| test(&a[row], &b[0])),
        (true, false) => BooleanBuffer::collect_bool(rows, |row| test(&a[0], &b[row])),
        (true, true) => BooleanBuffer::collect_bool(rows, |_| test(&a[0], &b[0])),
    }
}

fn holds(comparison: Comparison, ordering: Ordering) -> bool {
    match comparison {
        Comparison::Equal => ordering.is_eq(),
        Comparison::NotEqual => ordering.is_ne(),
        Comparison::Less => ordering.is_lt(),
        Comparison::LessOrEqual => ordering.is_le(),
        Comparison::Greater => ordering.is_gt(),
        Comparison::GreaterOrEqual => ordering.is_ge(),
    }
}

fn floats(comparison: Comparison, a: f64, b: f64) -> bool {
    match a.partial_cmp(&b) {
        Some(ordering) => holds(comparison, ordering),
        None => comparison == Comparison::NotEqual,
    }
}

/// Exact: through Float64, 2^53 + 1 would equal 2^53.
fn integer_and_float(comparison: Comparison, integer: i128, float: f64) -> bool {
    if float.is_nan() {
        return comparison == Comparison::NotEqual;
    }
    // Beyond 2^65 no 64-bit integer can be equal; `as` saturates there, which keeps the order.
    let whole = float.trunc() as i128;
    let fraction = if float.is_finite() { float - float.trunc() } else { 0.0 };
    let ordering = integer.cmp(&whole).then(0.0f64.partial_cmp(&fraction).unwrap_or(Ordering::Equal));
    holds(comparison, ordering)
}

/// Nanoseconds of a unit.
fn nanoseconds(unit: &TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

/// The ticks of timestamps, whatever their unit.
pub(super) fn ticks(array: &ArrayRef) -> Result<ScalarBuffer<i64>, Error> {
    let numbers = arrow_cast::cast(array, &DataType::Int64)?;
    Ok(numbers.as_primitive::<Int64Type>().values().clone())
}
