//! Arithmetic of integers and floats. Operands are converted to the result's type as C++ converts (modulo 2^n),
//! then the operation wraps around, as ClickHouse's does.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, ArrowNativeTypeOp, BooleanArray, PrimitiveArray};
use arrow_buffer::{BooleanBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType};
use num_traits::AsPrimitive;
use weir_schemas::types::ColumnType;

use super::evaluate::{Call, Value};
use super::{Function, decimals};
use crate::error::Error;

/// Runs `$body` with `$T` as the Arrow type of a number's data type, else `$other`.
macro_rules! with_number {
    ($data_type:expr, $T:ident => $body:expr, $other:expr) => {
        match $data_type {
            DataType::Float32 => {
                type $T = Float32Type;
                $body
            }
            DataType::Float64 => {
                type $T = Float64Type;
                $body
            }
            integer => with_integer!(integer, $T => $body, $other),
        }
    };
}

/// Runs `$body` with `$T` as the Arrow type of an integer's data type, else `$other`.
macro_rules! with_integer {
    ($data_type:expr, $T:ident => $body:expr, $other:expr) => {
        match $data_type {
            DataType::Int8 => {
                type $T = Int8Type;
                $body
            }
            DataType::Int16 => {
                type $T = Int16Type;
                $body
            }
            DataType::Int32 => {
                type $T = Int32Type;
                $body
            }
            DataType::Int64 => {
                type $T = Int64Type;
                $body
            }
            DataType::UInt8 => {
                type $T = UInt8Type;
                $body
            }
            DataType::UInt16 => {
                type $T = UInt16Type;
                $body
            }
            DataType::UInt32 => {
                type $T = UInt32Type;
                $body
            }
            DataType::UInt64 => {
                type $T = UInt64Type;
                $body
            }
            _ => $other,
        }
    };
}

fn not_a_number(data_type: &DataType) -> Error {
    Error::Arrow(ArrowError::SchemaError(format!("expected a number, got {data_type}")))
}

/// Floats with 0 for -0: in ClickHouse's `LowCardinality` the two are one value.
pub(super) fn without_negative_zeros(array: ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Float32 => Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(|value| value + 0.0)),
        DataType::Float64 => Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(|value| value + 0.0)),
        _ => array,
    }
}

/// A one-row array.
pub(super) fn one<N>(value: N, to: &DataType) -> Result<ArrayRef, Error>
where
    N: AsPrimitive<i8> + AsPrimitive<i16> + AsPrimitive<i32> + AsPrimitive<i64> + AsPrimitive<u8> + AsPrimitive<u16>,
    N: AsPrimitive<u32> + AsPrimitive<u64> + AsPrimitive<f32> + AsPrimitive<f64>,
{
    with_number!(to, T => Ok(Arc::new(PrimitiveArray::<T>::from_value(value.as_(), 1))), Err(not_a_number(to)))
}

/// Every number converted as C++ converts it: integers modulo 2^n, to floats by rounding.
pub(super) fn convert_to<T: ArrowPrimitiveType>(array: &ArrayRef) -> Result<PrimitiveArray<T>, Error>
where
    i8: AsPrimitive<T::Native>,
    i16: AsPrimitive<T::Native>,
    i32: AsPrimitive<T::Native>,
    i64: AsPrimitive<T::Native>,
    u8: AsPrimitive<T::Native>,
    u16: AsPrimitive<T::Native>,
    u32: AsPrimitive<T::Native>,
    u64: AsPrimitive<T::Native>,
    f32: AsPrimitive<T::Native>,
    f64: AsPrimitive<T::Native>,
{
    if let Some(same) = array.as_primitive_opt::<T>() {
        return Ok(same.clone());
    }
    with_number!(
        array.data_type(),
        S => Ok(array.as_primitive::<S>().unary::<_, T>(AsPrimitive::<T::Native>::as_)),
        Err(not_a_number(array.data_type()))
    )
}

/// [`convert_to`] a data type that is only known at run time.
pub(super) fn convert_number(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Error> {
    with_number!(to, T => Ok(Arc::new(convert_to::<T>(array)?)), Err(not_a_number(to)))
}

/// Integers of any type, wide enough for all.
pub(super) fn wide_integers(array: &ArrayRef) -> Result<ScalarBuffer<i128>, Error> {
    if let Some(numbers) = array.as_primitive_opt::<UInt64Type>() {
        return Ok(numbers.values().iter().map(|&value| i128::from(value)).collect());
    }
    Ok(convert_to::<Int64Type>(array)?.values().iter().map(|&value| i128::from(value)).collect())
}

/// Whether each number isn't zero.
pub(super) fn is_not_zero(array: &ArrayRef) -> Result<BooleanArray, Error> {
    with_number!(
        array.data_type(),
        T => {
            let numbers = array.as_primitive::<T>();
            let zero = <T as ArrowPrimitiveType>::Native::ZERO;
            let values = numbers.values();
            Ok(BooleanArray::new(
                BooleanBuffer::collect_bool(values.len(), |row| values[row] != zero),
                numbers.nulls().cloned(),
            ))
        },
        Err(not_a_number(array.data_type()))
    )
}

/// `+`, `-`, `*` in the result's type, `/` in `Float64`.
pub(super) fn arithmetic(call: &Call<'_>, function: &Function) -> Result<ArrayRef, Error> {
    let to = call.result.arrow();
    let left = operand(call, 0, &to)?;
    let right = operand(call, 1, &to)?;
    Ok(match function {
        Function::Plus => arrow_arith::numeric::add_wrapping(&left, &right)?,
        Function::Minus => arrow_arith::numeric::sub_wrapping(&left, &right)?,
        Function::Multiply => arrow_arith::numeric::mul_wrapping(&left, &right)?,
        Function::Divide => arrow_arith::numeric::div(&left, &right)?,
        _ => return Err(call.unsupported()),
    })
}

fn operand(call: &Call<'_>, at: usize, to: &DataType) -> Result<Value, Error> {
    let value = call.number(at)?;
    let array = match call.argument_type(at)?.without_null() {
        ColumnType::Decimal(_, scale) => Arc::new(decimals::to_float(&value.array, *scale)?),
        _ => convert_number(&value.array, to)?,
    };
    Ok(Value { array, constant: value.constant })
}

/// `intDiv` by a literal. When either side is signed, ClickHouse takes both as signed numbers of their own widths (the
/// divisor at least of the dividend's), so that `intDiv(toUInt8(200), -3)` is 18.
pub(super) fn int_div(call: &Call<'_>) -> Result<ArrayRef, Error> {
    let divisor = integer_literal(call)?;
    let numbers = call.number(0)?.array;
    let right = call.number(1)?.array;
    let (left_bits, right_bits) = (bits(numbers.data_type()), bits(right.data_type()));
    let signed = numbers.data_type().is_signed_integer() || right.data_type().is_signed_integer();
    let seen = |value: i128, bits: u32| if signed { (value << (128 - bits)) >> (128 - bits) } else { value };
    let divisor = seen(divisor, left_bits.max(right_bits));
    if divisor == 0 || divisor == -1 {
        return Err(call.unsupported());
    }
    with_integer!(
        numbers.data_type(),
        S => {
            let source = numbers.as_primitive::<S>();
            with_integer!(
                call.result.arrow(),
                T => Ok(Arc::new(source.unary::<_, T>(|value| (seen(value.as_(), left_bits) / divisor).as_()))),
                Err(call.unsupported())
            )
        },
        Err(call.unsupported())
    )
}

fn bits(data_type: &DataType) -> u32 {
    match data_type {
        DataType::Int8 | DataType::UInt8 => 8,
        DataType::Int16 | DataType::UInt16 => 16,
        DataType::Int32 | DataType::UInt32 => 32,
        _ => 64,
    }
}

/// `%` by a literal, with C++'s usual conversions: the common type of both sides decides how a negative number is seen.
pub(super) fn modulo(call: &Call<'_>) -> Result<ArrayRef, Error> {
    let divisor = integer_literal(call)?;
    let numbers = call.number(0)?.array;
    let right = call.number(1)?.array;
    let common = common_type(numbers.data_type(), right.data_type());
    let seen = |value: i128| -> i128 {
        match common {
            DataType::UInt32 => i128::from(value as u32),
            DataType::UInt64 => i128::from(value as u64),
            _ => value,
        }
    };
    let divisor = seen(divisor);
    with_integer!(
        numbers.data_type(),
        S => {
            let source = numbers.as_primitive::<S>();
            with_integer!(
                call.result.arrow(),
                T => Ok(Arc::new(source.unary::<_, T>(|value| (seen(value.as_()) % divisor).as_()))),
                Err(call.unsupported())
            )
        },
        Err(call.unsupported())
    )
}

/// C++'s common type of two integers.
fn common_type(left: &DataType, right: &DataType) -> DataType {
    let rank = |of: &DataType| match of {
        DataType::UInt32 | DataType::Int32 => 4,
        DataType::UInt64 | DataType::Int64 => 8,
        _ => 0,
    };
    let width = rank(left).max(rank(right));
    let unsigned = |of: &DataType| rank(of) == width && matches!(of, DataType::UInt32 | DataType::UInt64);
    match (width, unsigned(left) || unsigned(right)) {
        (4, true) => DataType::UInt32,
        (8, true) => DataType::UInt64,
        _ => DataType::Int64,
    }
}

fn integer_literal(call: &Call<'_>) -> Result<i128, Error> {
    let value = call.number(1)?;
    let divisor: i128 = with_integer!(
        value.array.data_type(),
        T => value.array.as_primitive::<T>().value(0).as_(),
        return Err(call.unsupported())
    );
    if divisor == 0 || !value.constant {
        return Err(call.expr.failed("Division by zero"));
    }
    Ok(divisor)
}

/// `-a`.
pub(super) fn negate(call: &Call<'_>) -> Result<ArrayRef, Error> {
    let value = call.number(0)?;
    if let ColumnType::Decimal(..) = call.result.without_null() {
        return decimals::unary_wrapping(call, i128::wrapping_neg);
    }
    let array = convert_number(&value.array, &call.result.arrow())?;
    Ok(arrow_arith::numeric::neg_wrapping(&array)?)
}

/// `abs(a)`: of a signed integer the unsigned one, so that the least number has one.
pub(super) fn abs(call: &Call<'_>) -> Result<ArrayRef, Error> {
    let array = call.number(0)?.array;
    Ok(match array.data_type() {
        DataType::Int8 => Arc::new(array.as_primitive::<Int8Type>().unary::<_, UInt8Type>(i8::unsigned_abs)),
        DataType::Int16 => Arc::new(array.as_primitive::<Int16Type>().unary::<_, UInt16Type>(i16::unsigned_abs)),
        DataType::Int32 => Arc::new(array.as_primitive::<Int32Type>().unary::<_, UInt32Type>(i32::unsigned_abs)),
        DataType::Int64 => Arc::new(array.as_primitive::<Int64Type>().unary::<_, UInt64Type>(i64::unsigned_abs)),
        DataType::Float32 => Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::abs)),
        DataType::Float64 => Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::abs)),
        DataType::Decimal128(..) => decimals::unary_wrapping(call, i128::wrapping_abs)?,
        _ => array,
    })
}

/// `round(a, digits)`: floats half to even, integers and decimals half away from zero.
pub(super) fn round(call: &Call<'_>, digits: i32) -> Result<ArrayRef, Error> {
    let array = call.number(0)?.array;
    match array.data_type() {
        DataType::Float32 => {
            let scale = 10f64.powi(digits.abs()) as f32;
            Ok(Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(|value| match digits {
                0 => value.round_ties_even(),
                1.. => (value * scale).round_ties_even() / scale,
                _ => (value / scale).round_ties_even() * scale,
            })))
        }
        DataType::Float64 => {
            let scale = 10f64.powi(digits.abs());
            Ok(Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(|value| match digits {
                0 => value.round_ties_even(),
                1.. => (value * scale).round_ties_even() / scale,
                _ => (value / scale).round_ties_even() * scale,
            })))
        }
        DataType::Decimal128(..) => decimals::round(call, digits),
        _ if digits >= 0 => Ok(array),
        data_type => with_integer!(
            data_type,
            T => Ok(Arc::new(round_integers::<T>(array.as_primitive::<T>(), digits.unsigned_abs()))),
            Err(call.unsupported())
        ),
    }
}

fn round_integers<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, zeros: u32) -> PrimitiveArray<T>
where
    T::Native: AsPrimitive<i128>,
    i128: AsPrimitive<T::Native>,
{
    let widest: i128 = T::Native::MAX_TOTAL_ORDER.as_();
    // As many decimal digits as any number of the type has; beyond them ClickHouse gives 0.
    let digits = widest.ilog10();
    if zeros > digits {
        return array.unary(|_| T::Native::ZERO);
    }
    let scale = 10i128.pow(zeros);
    // Steps in C++: types of 8 and 16 bits are computed as int, wider ones wrap around.
    let wraps = |value: i128| -> i128 {
        if size_of::<T::Native>() >= 4 {
            let narrowed: T::Native = value.as_();
            narrowed.as_()
        } else {
            value
        }
    };
    array.unary(|value| {
        let mut value: i128 = value.as_();
        if value < 0 {
            let narrowed: T::Native = (value - scale).as_();
            value = narrowed.as_();
        }
        (wraps(value + scale / 2) / scale * scale).as_()
    })
}
