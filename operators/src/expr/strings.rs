//! Functions of strings. Strings are bytes: lengths and offsets count bytes, letters are ASCII's.

use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, BinaryArray, BooleanArray, UInt64Array};
use arrow_buffer::{BooleanBuffer, Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::DataType;

use super::evaluate::Call;
use super::numbers::convert_to;
use crate::error::Error;

/// `lower` and `upper`: the same bytes, each letter changed.
pub(super) fn change_case(call: &Call<'_>, change: fn(&u8) -> u8) -> Result<ArrayRef, Error> {
    let array = call.value(0)?.bytes()?.array();
    let values: Vec<u8> = array.values().iter().map(change).collect();
    Ok(Arc::new(BinaryArray::new(array.offsets().clone(), Buffer::from(values), array.nulls().cloned())))
}

/// `length`: bytes of a string, elements of an array or a map.
pub(super) fn length(call: &Call<'_>) -> Result<ArrayRef, Error> {
    let array = &call.value(0)?.array;
    let lengths = |offsets: &OffsetBuffer<i32>| offsets.lengths().map(|length| length as u64).collect::<Vec<_>>();
    let lengths = match array.data_type() {
        DataType::Binary => lengths(array.as_binary::<i32>().offsets()),
        DataType::List(_) => lengths(array.as_list::<i32>().offsets()),
        DataType::Map(..) => lengths(array.as_map().offsets()),
        _ => return Err(call.unsupported()),
    };
    Ok(Arc::new(UInt64Array::new(lengths.into(), array.nulls().cloned())))
}

/// `concat`: one buffer for the whole batch.
pub(super) fn concat(call: &Call<'_>) -> Result<ArrayRef, Error> {
    let parts = call.values.iter().map(|value| value.bytes()).collect::<Result<Vec<_>, _>>()?;
    let nulls = call.nulls();
    let mut values: Vec<u8> = Vec::new();
    let mut offsets = Vec::with_capacity(call.rows + 1);
    offsets.push(0);
    for row in 0..call.rows {
        if !nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            for part in &parts {
                values.extend_from_slice(part.at(row));
            }
        }
        offsets
            .push(i32::try_from(values.len()).map_err(|_| call.expr.failed("more than 2 GiB of text in one batch"))?);
    }
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    Ok(Arc::new(BinaryArray::new(offsets, Buffer::from(values), nulls)))
}

/// `substring(a, offset[, length])`.
pub(super) fn substring(call: &Call<'_>) -> Result<ArrayRef, Error> {
    let strings = call.value(0)?.bytes()?;
    let (offset_value, offset) = (call.value(1)?, convert_to::<Int64Type>(&call.number(1)?.array)?);
    let length = match call.values.get(2) {
        Some(value) => Some((value.constant, convert_to::<Int64Type>(&call.number(2)?.array)?)),
        None => None,
    };
    let nulls = call.nulls();
    let mut out = BinaryBuilder::with_capacity(call.rows, strings.array().values().len().min(1 << 20));
    for row in 0..call.rows {
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            out.append_null();
            continue;
        }
        let offset = offset.value(if offset_value.constant { 0 } else { row });
        let length = length.as_ref().map(|(constant, length)| length.value(if *constant { 0 } else { row }));
        if length == Some(i64::MIN) {
            return Err(call.expr.failed("Overflow in length argument of substring-like function"));
        }
        out.append_value(slice(strings.at(row), offset, length));
    }
    Ok(Arc::new(out.finish()))
}

/// The part of `string` from `offset` (1 is the first byte, -1 the last, 0 gives nothing), `length` bytes long; a negative
/// length leaves out as many bytes at the end. An offset before the first byte uses up length.
fn slice(string: &[u8], offset: i64, length: Option<i64>) -> &[u8] {
    let size = string.len() as i128;
    let start = match offset {
        0 => return &[],
        1.. => i128::from(offset) - 1,
        _ => size + i128::from(offset),
    };
    let end = match length {
        None => size,
        Some(length) if length < 0 => size + i128::from(length),
        Some(length) => start + i128::from(length),
    };
    let (start, end) = (start.clamp(0, size), end.clamp(0, size));
    if start < end { &string[start as usize..end as usize] } else { &[] }
}

/// `startsWith` and `endsWith`.
pub(super) fn affix(call: &Call<'_>, test: fn(&[u8], &[u8]) -> bool) -> Result<BooleanArray, Error> {
    let (strings, affixes) = (call.value(0)?.bytes()?, call.value(1)?.bytes()?);
    let values = BooleanBuffer::collect_bool(call.rows, |row| test(strings.at(row), affixes.at(row)));
    Ok(BooleanArray::new(values, call.nulls()))
}
