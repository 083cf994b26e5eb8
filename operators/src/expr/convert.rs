//! Conversions: the `to...` functions, their `OrZero` and `OrNull` forms for strings, and the silent widening that
//! ClickHouse does to find a common type.

use std::sync::Arc;

use arrow_array::builder::PrimitiveBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Decimal128Type, Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, Date32Array, Float64Array, Int64Array, PrimitiveArray};
use arrow_schema::DataType;
use weir_schemas::types::{ColumnType, Zone};

use super::compare::ticks;
use super::evaluate::Call;
use super::numbers::{convert_number, convert_to};
use super::zone::LocalTime;
use super::{OnFailure, Target, decimals, parse};
use crate::error::Error;

/// `toInt64`, `toFloat64`, `toDecimal64` of a value that isn't a string.
pub(super) fn convert(call: &Call<'_>, target: Target) -> Result<ArrayRef, Error> {
    let array = call.number(0)?.array;
    let from = call.argument_type(0)?.without_null();
    match (target, from) {
        (Target::Int64, ColumnType::Float32 | ColumnType::Float64) => float_to_integer(call, &array),
        (Target::Int64, ColumnType::Decimal(_, scale)) => {
            let unit = decimals::power(*scale);
            Ok(Arc::new(decimals::values(&array)?.try_unary::<_, Int64Type, _>(|value| {
                i64::try_from(value / unit).map_err(|_| call.expr.failed("Convert overflow"))
            })?))
        }
        (Target::Int64, ColumnType::DateTime64(scale, _)) => {
            let unit = 10i64.pow(u32::from(*scale));
            let seconds = ticks(&array)?.iter().map(|tick| tick / unit).collect();
            Ok(Arc::new(Int64Array::new(seconds, array.nulls().cloned())))
        }
        (Target::Float64, ColumnType::Decimal(_, scale)) => Ok(Arc::new(decimals::to_float(&array, *scale)?)),
        (Target::Float64, ColumnType::DateTime64(scale, _)) => {
            let unit = decimals::power(*scale) as f64;
            let seconds = ticks(&array)?.iter().map(|&tick| tick as f64 / unit).collect();
            Ok(Arc::new(Float64Array::new(seconds, array.nulls().cloned())))
        }
        (Target::Int64 | Target::Float64, ColumnType::DateTime(_) | ColumnType::Date | ColumnType::Date32) => {
            let numbers = arrow_cast::cast(&arrow_cast::cast(&array, &integer_of(&array))?, &DataType::Int64)?;
            convert_number(&numbers, &call.result.arrow())
        }
        (Target::Int64 | Target::Float64, _) => convert_number(&array, &call.result.arrow()),
        (Target::Decimal64(scale), ColumnType::Float32 | ColumnType::Float64) => float_to_decimal(call, &array, scale),
        (Target::Decimal64(_), _) => decimals::rescale(call),
        (Target::Date, _) => Err(call.unsupported()),
    }
}

/// The integer of the same width as a date or time.
fn integer_of(array: &ArrayRef) -> DataType {
    if *array.data_type() == DataType::Date32 { DataType::Int32 } else { DataType::Int64 }
}

fn float_to_integer(call: &Call<'_>, array: &ArrayRef) -> Result<ArrayRef, Error> {
    // The conversion of x86-64: out of range gives the least integer.
    let in_range = -9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0;
    let result: PrimitiveArray<Int64Type> = convert_to::<Float64Type>(array)?.try_unary(|value| {
        if !value.is_finite() {
            return Err(call.expr.failed("Unexpected inf or nan to integer conversion"));
        }
        Ok(if in_range.contains(&value) { value as i64 } else { i64::MIN })
    })?;
    Ok(Arc::new(result))
}

fn float_to_decimal(call: &Call<'_>, array: &ArrayRef, scale: u8) -> Result<ArrayRef, Error> {
    let unit = decimals::power(scale) as f64;
    let bound = 9_223_372_036_854_775_807.0;
    let narrow = *array.data_type() == DataType::Float32;
    let result: PrimitiveArray<Decimal128Type> = convert_to::<Float64Type>(array)?.try_unary(|value| {
        // ClickHouse multiplies a Float32 as a Float32.
        let scaled = if narrow { f64::from(value as f32 * unit as f32) } else { value * unit };
        if !scaled.is_finite() || scaled <= -bound || scaled >= bound {
            return Err(call.expr.failed("Decimal convert overflow. Float is out of Decimal range"));
        }
        Ok(scaled as i128)
    })?;
    Ok(Arc::new(result.with_precision_and_scale(18, scale as i8)?))
}

/// `toInt64`, `toInt64OrZero` and their relatives, of strings.
pub(super) fn parse(call: &Call<'_>, target: Target, on_failure: OnFailure) -> Result<ArrayRef, Error> {
    match target {
        Target::Int64 if on_failure == OnFailure::Error => {
            parse_each::<Int64Type>(call, on_failure, 0, parse::parse_integer_wrapping)
        }
        Target::Int64 => parse_each::<Int64Type>(call, on_failure, 0, parse::parse_integer),
        Target::Date => parse_each::<Date32Type>(call, on_failure, 0, parse::parse_day),
        Target::Float64 => parse_each::<Float64Type>(call, on_failure, 0.0, parse::parse_float),
        Target::Decimal64(scale) => {
            let read = |text: &[u8]| parse::parse_decimal(text, scale).map(i128::from);
            let array = parse_each::<Decimal128Type>(call, on_failure, 0, read)?;
            let decimals = array.as_primitive::<Decimal128Type>().clone();
            Ok(Arc::new(decimals.with_precision_and_scale(18, scale as i8)?))
        }
    }
}

fn parse_each<T: ArrowPrimitiveType>(
    call: &Call<'_>,
    on_failure: OnFailure,
    zero: T::Native,
    read: impl Fn(&[u8]) -> Option<T::Native>,
) -> Result<ArrayRef, Error> {
    let strings = call.value(0)?.bytes()?.array();
    let mut out = PrimitiveBuilder::<T>::with_capacity(strings.len());
    for text in strings {
        match (text.map(&read), on_failure) {
            (Some(Some(value)), _) => out.append_value(value),
            (Some(None), OnFailure::Zero) => out.append_value(zero),
            (Some(None), OnFailure::Null) | (None, _) => out.append_null(),
            (Some(None), OnFailure::Error) => {
                let target = call.result.without_null();
                return Err(call.expr.failed(format!("the string can't be parsed as {target}")));
            }
        }
    }
    Ok(Arc::new(out.finish()))
}

/// `toDate(a[, zone])`. ClickHouse keeps 16 bits of the day, so that days outside 1970 to 2149 come out as others.
pub(super) fn to_date(call: &Call<'_>, zone: Option<&Zone>) -> Result<ArrayRef, Error> {
    let array = &call.value(0)?.array;
    let wrap = |day: i64| i32::from(day as u16);
    let (scale, own) = match call.argument_type(0)?.without_null() {
        ColumnType::DateTime(own) => (0, own.as_ref()),
        ColumnType::DateTime64(scale, own) => (*scale, own.as_ref()),
        ColumnType::Date | ColumnType::Date32 => {
            let days = array.as_primitive::<Date32Type>();
            return Ok(Arc::new(days.unary::<_, Date32Type>(|day| wrap(i64::from(day)))));
        }
        _ => return Err(call.unsupported()),
    };
    let Some(mut clock) = LocalTime::new(zone.or(own)) else { return Err(call.unsupported()) };
    let unit = 10i64.pow(u32::from(scale));
    let days = ticks(array)?
        .iter()
        .map(|tick| {
            // Towards zero, as ClickHouse takes the whole seconds of a DateTime64.
            let seconds = tick / unit;
            wrap((seconds + clock.offset(seconds)).div_euclid(86_400))
        })
        .collect();
    Ok(Arc::new(Date32Array::new(days, array.nulls().cloned())))
}

/// The conversion to a common type, which loses nothing.
pub(super) fn widen(call: &Call<'_>) -> Result<ArrayRef, Error> {
    let value = call.number(0)?;
    let from = call.argument_type(0)?.without_null();
    let to = call.result.without_null();
    if from.arrow() == to.arrow() {
        return Ok(Arc::clone(&call.value(0)?.array));
    }
    match to {
        ColumnType::Decimal(..) => decimals::rescale(call),
        _ => convert_number(&value.array, &to.arrow()),
    }
}
