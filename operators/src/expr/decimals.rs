//! Decimals: exact numbers whose width overflows with an error, as ClickHouse's do.
//!
//! Arrow carries every decimal up to 38 digits in 128 bits, ClickHouse in 32, 64 or 128 by its precision: a
//! result is checked against ClickHouse's width. Decimals of more than 38 digits have no kernels here.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Float64Type};
use arrow_array::{Array, ArrayRef, Decimal128Array, Float64Array, PrimitiveArray};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{ArrowError, DataType};
use weir_schemas::types::ColumnType;

use super::Function;
use super::evaluate::{Call, Value};
use super::numbers::convert_to;
use crate::error::Error;

/// The most digits of the width that ClickHouse stores a precision in.
pub(super) fn widest(precision: u8) -> u8 {
    match precision {
        0..=9 => 9,
        10..=18 => 18,
        19..=38 => 38,
        _ => 76,
    }
}

/// Whether an unscaled value fits ClickHouse's width of a precision.
pub(super) fn fits(value: i128, precision: u8) -> bool {
    match widest(precision) {
        9 => i32::try_from(value).is_ok(),
        18 => i64::try_from(value).is_ok(),
        _ => true,
    }
}

/// Ten to the power of a scale, up to 38.
pub(super) fn power(scale: u8) -> i128 {
    10i128.checked_pow(u32::from(scale)).unwrap_or(i128::MAX)
}

/// The precision and scale of a decimal's type.
pub(super) fn precision_and_scale(column_type: &ColumnType) -> Option<(u8, u8)> {
    match column_type.without_null() {
        ColumnType::Decimal(precision, scale) => Some((*precision, *scale)),
        _ => None,
    }
}

/// The decimals of an array.
pub(super) fn values(array: &ArrayRef) -> Result<&Decimal128Array, Error> {
    array.as_primitive_opt::<Decimal128Type>().ok_or_else(|| {
        Error::Arrow(ArrowError::SchemaError(format!(
            "expected decimals of up to 38 digits, got {}",
            array.data_type()
        )))
    })
}

/// Decimals as floats: the unscaled value divided by the power of ten.
pub(super) fn to_float(array: &ArrayRef, scale: u8) -> Result<Float64Array, Error> {
    let divisor = power(scale) as f64;
    Ok(values(array)?.unary::<_, Float64Type>(|value| value as f64 / divisor))
}

/// An operand as unscaled integers with its own scale: decimals as they are, integers with scale 0.
fn unscaled(call: &Call<'_>, at: usize) -> Result<(ScalarBuffer<i128>, bool, u8), Error> {
    let value: Value = call.number(at)?;
    match precision_and_scale(call.argument_type(at)?) {
        Some((_, scale)) => Ok((values(&value.array)?.values().clone(), value.constant, scale)),
        None if *value.array.data_type() == DataType::UInt64 => {
            let numbers = value.array.as_primitive::<arrow_array::types::UInt64Type>();
            Ok((numbers.values().iter().map(|&value| i128::from(value)).collect(), value.constant, 0))
        }
        None => {
            let numbers = convert_to::<arrow_array::types::Int64Type>(&value.array)?;
            Ok((numbers.values().iter().map(|&value| i128::from(value)).collect(), value.constant, 0))
        }
    }
}

/// `+`, `-`, `*` of decimals and integers, `/` by a literal.
pub(super) fn arithmetic(call: &Call<'_>, function: &Function) -> Result<ArrayRef, Error> {
    let Some((precision, scale)) = precision_and_scale(call.result) else { return Err(call.unsupported()) };
    let (left, left_constant, left_scale) = unscaled(call, 0)?;
    let (right, right_constant, right_scale) = unscaled(call, 1)?;
    let nulls = call.nulls();
    let left_factor = power(scale.saturating_sub(left_scale));
    let right_factor = power(scale.saturating_sub(right_scale));
    let divide_factor = power(right_scale);
    let narrow = |value: i128| fits(value, precision).then_some(value);
    let compute = |a: i128, b: i128| -> Option<i128> {
        let result = match function {
            Function::Plus => narrow(a.checked_mul(left_factor)?)?.checked_add(narrow(b.checked_mul(right_factor)?)?),
            Function::Minus => narrow(a.checked_mul(left_factor)?)?.checked_sub(narrow(b.checked_mul(right_factor)?)?),
            Function::Multiply => a.checked_mul(b),
            Function::Divide => narrow(a.checked_mul(divide_factor)?)?.checked_div(b),
            _ => None,
        };
        narrow(result?)
    };
    let mut out = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            out.push(0);
            continue;
        }
        let a = left[if left_constant { 0 } else { row }];
        let b = right[if right_constant { 0 } else { row }];
        out.push(compute(a, b).ok_or_else(|| call.expr.failed("Decimal math overflow"))?);
    }
    Ok(Arc::new(Decimal128Array::new(out.into(), nulls).with_precision_and_scale(precision, scale as i8)?))
}

/// A function of one decimal that keeps its type; `None` is an overflow.
pub(super) fn unary(call: &Call<'_>, compute: impl Fn(i128) -> Option<i128>) -> Result<ArrayRef, Error> {
    let Some((precision, scale)) = precision_and_scale(call.result) else { return Err(call.unsupported()) };
    let value = call.value(0)?;
    let result: PrimitiveArray<Decimal128Type> = values(&value.array)?.try_unary(|value| {
        compute(value).filter(|value| fits(*value, precision)).ok_or_else(|| call.expr.failed("Decimal math overflow"))
    })?;
    Ok(Arc::new(result.with_precision_and_scale(precision, scale as i8)?))
}

/// A function of one decimal that wraps around in ClickHouse's width, as `-` and `abs` of the least number do.
pub(super) fn unary_wrapping(call: &Call<'_>, compute: impl Fn(i128) -> i128) -> Result<ArrayRef, Error> {
    let Some((precision, _)) = precision_and_scale(call.result) else { return Err(call.unsupported()) };
    unary(call, |value| Some(wrapped(compute(value), precision)))
}

/// What is left of a value in ClickHouse's width.
fn wrapped(value: i128, precision: u8) -> i128 {
    match widest(precision) {
        9 => i128::from(value as i32),
        18 => i128::from(value as i64),
        _ => value,
    }
}

/// `round`: half away from zero, in ClickHouse's steps, of which each wraps around in its width.
pub(super) fn round(call: &Call<'_>, digits: i32) -> Result<ArrayRef, Error> {
    let Some((precision, scale)) = precision_and_scale(call.result) else { return Err(call.unsupported()) };
    let dropped = i32::from(scale) - digits;
    if dropped <= 0 {
        return Ok(Arc::clone(&call.value(0)?.array));
    }
    let unit = power(u8::try_from(dropped).unwrap_or(u8::MAX));
    let step = |value: i128| if wrapped(unit, precision) == unit { wrapped(value, precision) } else { value };
    unary(call, |value| {
        let value = if value < 0 { step(value.wrapping_sub(unit)) } else { value };
        Some(step(value.wrapping_add(unit / 2)) / unit * unit)
    })
}

/// Integers or decimals as decimals of another scale, truncated where digits are lost.
pub(super) fn rescale(call: &Call<'_>) -> Result<ArrayRef, Error> {
    let Some((precision, scale)) = precision_and_scale(call.result) else { return Err(call.unsupported()) };
    let (source, _, from) = unscaled(call, 0)?;
    let nulls = call.value(0)?.array.nulls().cloned();
    let mut out = Vec::with_capacity(source.len());
    for (row, &value) in source.iter().enumerate() {
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            out.push(0);
            continue;
        }
        let converted =
            if scale >= from { value.checked_mul(power(scale - from)) } else { Some(value / power(from - scale)) };
        out.push(
            converted
                .filter(|value| fits(*value, precision))
                .ok_or_else(|| call.expr.failed("Decimal convert overflow"))?,
        );
    }
    Ok(Arc::new(Decimal128Array::new(out.into(), nulls).with_precision_and_scale(precision, scale as i8)?))
}
