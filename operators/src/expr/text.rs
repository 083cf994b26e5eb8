//! `toString`: values as ClickHouse writes them.

use std::io::Write;
use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Float32Type, Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use chrono::{Datelike, NaiveDate};
use weir_schemas::types::{ColumnType, Zone};

use super::Scalar;
use super::compare::ticks;
use super::decimals;
use super::evaluate::Call;
use super::numbers::convert_to;
use super::zone::LocalTime;
use crate::error::Error;

/// `toString(a)`.
pub(super) fn to_string(call: &Call<'_>) -> Result<ArrayRef, Error> {
    let array = call.value(0)?.array.clone();
    let column_type = call.argument_type(0)?.without_null();
    if let (ColumnType::String | ColumnType::LowCardinality, DataType::Binary) = (column_type, array.data_type()) {
        return Ok(array);
    }
    let mut writer = Writer::new(call, column_type, &array)?;
    let mut out = BinaryBuilder::with_capacity(array.len(), array.len() * 12);
    let mut buffer = Vec::with_capacity(64);
    for row in 0..array.len() {
        if array.is_null(row) {
            out.append_null();
            continue;
        }
        buffer.clear();
        writer.write(row, &mut buffer);
        out.append_value(&buffer);
    }
    Ok(Arc::new(out.finish()))
}

/// One column's values as text, by row.
enum Writer<'a> {
    Bool(arrow_array::BooleanArray),
    Int(arrow_array::PrimitiveArray<Int64Type>),
    UInt(arrow_array::PrimitiveArray<UInt64Type>),
    Float32(arrow_array::PrimitiveArray<Float32Type>),
    Float64(arrow_array::PrimitiveArray<Float64Type>),
    Decimal(&'a arrow_array::Decimal128Array, u8),
    Bytes(&'a arrow_array::FixedSizeBinaryArray, fn(&[u8], &mut Vec<u8>)),
    Days(&'a arrow_array::PrimitiveArray<Date32Type>),
    Ticks(arrow_buffer::ScalarBuffer<i64>, u8, LocalTime),
}

impl<'a> Writer<'a> {
    fn new(call: &Call<'_>, column_type: &ColumnType, array: &'a ArrayRef) -> Result<Writer<'a>, Error> {
        let clock = |zone: &Option<Zone>| LocalTime::new(zone.as_ref()).ok_or_else(|| call.unsupported());
        Ok(match column_type {
            ColumnType::Bool => match array.as_boolean_opt() {
                Some(truth) => Writer::Bool(truth.clone()),
                None => Writer::Bool(super::numbers::is_not_zero(array)?),
            },
            ColumnType::UInt(_) => Writer::UInt(convert_to(&super::evaluate::as_number(array))?),
            ColumnType::Int(_) => Writer::Int(convert_to(array)?),
            ColumnType::Float32 => Writer::Float32(convert_to(array)?),
            ColumnType::Float64 => Writer::Float64(convert_to(array)?),
            ColumnType::Decimal(_, scale) => Writer::Decimal(decimals::values(array)?, *scale),
            ColumnType::FixedString(_) => Writer::Bytes(array.as_fixed_size_binary(), write_fixed_string),
            ColumnType::Uuid => Writer::Bytes(array.as_fixed_size_binary(), write_uuid),
            ColumnType::Date | ColumnType::Date32 => Writer::Days(array.as_primitive()),
            ColumnType::DateTime(zone) => Writer::Ticks(ticks(array)?, 0, clock(zone)?),
            ColumnType::DateTime64(scale, zone) => Writer::Ticks(ticks(array)?, *scale, clock(zone)?),
            _ => return Err(call.unsupported()),
        })
    }

    fn write(&mut self, row: usize, out: &mut Vec<u8>) {
        match self {
            Writer::Bool(array) => out.extend_from_slice(if array.value(row) { b"true" } else { b"false" }),
            // Writing to memory can't fail.
            Writer::Int(array) => drop(write!(out, "{}", array.value(row))),
            Writer::UInt(array) => drop(write!(out, "{}", array.value(row))),
            Writer::Float32(array) => write_float32(array.value(row), out),
            Writer::Float64(array) => write_float(array.value(row), out),
            Writer::Decimal(array, scale) => write_decimal(array.value(row), *scale, out),
            Writer::Bytes(array, write) => write(array.value(row), out),
            Writer::Days(array) => write_day(i64::from(array.value(row)), out),
            Writer::Ticks(ticks, scale, clock) => write_ticks(ticks[row], *scale, clock, out),
        }
    }
}

/// A float as ClickHouse writes it: the fewest digits that read back as the same number, with an exponent from 1e21 and
/// below 1e-6.
pub fn write_float(value: f64, out: &mut Vec<u8>) {
    let start = out.len();
    drop(write!(out, "{value:e}"));
    // Only from 16 digits on can two shortest candidates be equally near. Below a power of two floats lie closer than above
    // it; there dragonbox takes the upper candidate, except of 2^-25.
    if value.to_bits() & 0x000f_ffff_ffff_ffff != 0 || value.abs() == 2f64.powi(-25) {
        even_out(value, start, 16, out);
    }
    lay_out(start, out);
}

fn write_float32(value: f32, out: &mut Vec<u8>) {
    let start = out.len();
    drop(write!(out, "{value:e}"));
    if value.to_bits() & 0x007f_ffff != 0 || value.abs() == 2f32.powi(-12) {
        even_out(f64::from(value), start, 7, out);
    }
    lay_out(start, out);
}

/// Between two candidates that are equally near, ClickHouse (dragonbox) takes the one with the even last digit, Rust the upper
/// one. `out`
/// holds what Rust wrote from `start` on; the candidates are a tie where the exact value has one more digit, a 5.
fn even_out(value: f64, start: usize, least_digits: usize, out: &mut [u8]) {
    let Some(end) = out[start..].iter().position(|&byte| byte == b'e').map(|at| start + at) else { return };
    let digits = out[start..end].iter().filter(|byte| byte.is_ascii_digit()).count();
    let last = out[end - 1];
    if digits < least_digits || !last.is_ascii_digit() || last.is_multiple_of(2) {
        return;
    }
    // The exact value has at most 1074 decimal places; 40 more digits than the candidate tell a tie from a near one.
    let exact = format!("{value:.*e}", digits + 40);
    let tail = exact.split('e').next().and_then(|mantissa| mantissa.get(mantissa.len() - 41..));
    let is_tie = tail.is_some_and(|tail| tail.starts_with('5') && tail[1..].bytes().all(|byte| byte == b'0'));
    let below = last - 1;
    if is_tie && exact.as_bytes().get(end - 1 - start) == Some(&below) {
        out[end - 1] = below;
    }
}

/// Lays out digits and exponent that Rust found (`-1.25e-7`), from `start` on, in ClickHouse's form.
fn lay_out(start: usize, out: &mut Vec<u8>) {
    let negative = out.get(start) == Some(&b'-');
    let text = &out[start + usize::from(negative)..];
    let Some(at) = text.iter().position(|&byte| byte == b'e') else {
        // inf and NaN have no exponent; NaN has no sign in ClickHouse.
        if text.starts_with(b"NaN") {
            out.truncate(start);
            out.extend_from_slice(b"nan");
        }
        return;
    };
    let exponent: i32 = std::str::from_utf8(&text[at + 1..]).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    if !(-6..21).contains(&exponent) {
        return;
    }
    // 17 digits are the most that a shortest float has.
    let mut digits = [0u8; 20];
    let mut count = 0;
    for &byte in text[..at].iter().filter(|byte| byte.is_ascii_digit()) {
        if let Some(slot) = digits.get_mut(count) {
            *slot = byte;
            count += 1;
        }
    }
    let digits = &digits[..count];
    out.truncate(start + usize::from(negative));
    if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + (-exponent - 1) as usize, b'0');
        out.extend_from_slice(digits);
    } else {
        let whole = exponent as usize + 1;
        out.extend_from_slice(&digits[..whole.min(count)]);
        out.resize(out.len() + whole.saturating_sub(count), b'0');
        if count > whole {
            out.push(b'.');
            out.extend_from_slice(&digits[whole..]);
        }
    }
}

/// A decimal without zeros at its end.
fn write_decimal(value: i128, scale: u8, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let unit = decimals::power(scale).unsigned_abs();
    let magnitude = value.unsigned_abs();
    drop(write!(out, "{}", magnitude / unit));
    let fraction = magnitude % unit;
    if fraction == 0 {
        return;
    }
    drop(write!(out, ".{fraction:0width$}", width = usize::from(scale)));
    while out.last() == Some(&b'0') {
        out.pop();
    }
}

fn write_fixed_string(value: &[u8], out: &mut Vec<u8>) {
    let length = value.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
    out.extend_from_slice(&value[..length]);
}

fn write_uuid(value: &[u8], out: &mut Vec<u8>) {
    for (at, byte) in value.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        drop(write!(out, "{byte:02x}"));
    }
}

fn write_day(days: i64, out: &mut Vec<u8>) {
    let day = i32::try_from(days).ok().and_then(NaiveDate::from_epoch_days).unwrap_or_default();
    drop(write!(out, "{:04}-{:02}-{:02}", day.year(), day.month(), day.day()));
}

/// The instants of years 0 to 9999; ClickHouse writes those beyond as the nearest of them.
const FIRST_SECOND: i64 = -62_167_219_200;
const LAST_SECOND: i64 = 253_402_300_799;

fn write_ticks(ticks: i64, scale: u8, clock: &mut LocalTime, out: &mut Vec<u8>) {
    let unit = 10i64.pow(u32::from(scale));
    let (seconds, fraction) = (ticks.div_euclid(unit), ticks.rem_euclid(unit));
    let local = (seconds + clock.offset(seconds)).clamp(FIRST_SECOND, LAST_SECOND);
    write_day(local.div_euclid(86_400), out);
    let second = local.rem_euclid(86_400);
    drop(write!(out, " {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60));
    if scale > 0 {
        drop(write!(out, ".{fraction:0width$}", width = usize::from(scale)));
    }
}

/// A literal's text, for messages and plans.
pub(super) fn write_scalar(value: &Scalar, column_type: &ColumnType, out: &mut Vec<u8>) {
    match (value, column_type.without_null()) {
        (Scalar::Bytes(bytes), ColumnType::Uuid) => write_uuid(bytes, out),
        (Scalar::Bytes(bytes), _) => out.extend_from_slice(bytes),
        (Scalar::Decimal(value), ColumnType::Decimal(_, scale)) => write_decimal(*value, *scale, out),
        (Scalar::Days(days), _) => write_day(i64::from(*days), out),
        (Scalar::Ticks(ticks), ColumnType::DateTime64(scale, zone)) => {
            if let Some(mut clock) = LocalTime::new(zone.as_ref()) {
                write_ticks(*ticks, *scale, &mut clock, out);
            }
        }
        (Scalar::Ticks(ticks), ColumnType::DateTime(zone)) => {
            if let Some(mut clock) = LocalTime::new(zone.as_ref()) {
                write_ticks(*ticks, 0, &mut clock, out);
            }
        }
        _ => {}
    }
}
