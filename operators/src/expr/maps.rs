//! `map['key']`: the first entry with the key; a missing key gives the default of the value's type.

use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, new_null_array};
use arrow_schema::DataType;
use weir_schemas::types::ColumnType;

use super::Scalar;
use super::evaluate::{Call, literal};
use crate::error::Error;

/// `map['key']`.
pub(super) fn get(call: &Call<'_>) -> Result<ArrayRef, Error> {
    let map_value = call.value(0)?;
    let Some(map) = map_value.array.as_map_opt() else { return Err(call.unsupported()) };
    let key = call.value(1)?.bytes()?;
    let Some(keys) = map.keys().as_binary_opt::<i32>() else { return Err(call.unsupported()) };
    let offsets = map.offsets();
    let find = |row: usize| -> Option<usize> {
        let wanted = key.at(row);
        let (from, to) = (offsets[row] as usize, offsets[row + 1] as usize);
        (from..to).find(|&entry| keys.value(entry) == wanted)
    };
    if let (Some(values), false) = (map.values().as_binary_opt::<i32>(), call.result.is_nullable()) {
        let mut out = BinaryBuilder::with_capacity(call.rows, call.rows * 8);
        for row in 0..call.rows {
            out.append_value(find(row).map_or(&[][..], |entry| values.value(entry)));
        }
        return Ok(Arc::new(out.finish()));
    }
    let missing = default_of(call.result)?;
    let found: Vec<(usize, usize)> = (0..call.rows).map(|row| find(row).map_or((1, 0), |entry| (0, entry))).collect();
    Ok(arrow_select::interleave::interleave(&[map.values().as_ref(), missing.as_ref()], &found)?)
}

/// One row with the default value of a type: zero, '', an empty array, NULL of a nullable.
fn default_of(column_type: &ColumnType) -> Result<ArrayRef, Error> {
    if column_type.is_nullable() {
        return Ok(new_null_array(&column_type.arrow(), 1));
    }
    let data_type = column_type.arrow();
    match &data_type {
        DataType::Boolean => Ok(Arc::new(BooleanArray::from(vec![false]))),
        DataType::Binary => Ok(literal(&Scalar::Bytes(Arc::from([].as_slice())), column_type)?.array),
        DataType::FixedSizeBinary(size) => {
            let zeros = vec![0u8; usize::try_from(*size).unwrap_or_default()];
            Ok(literal(&Scalar::Bytes(Arc::from(zeros)), column_type)?.array)
        }
        // A null slot of these has zeros, or an empty list, underneath; without its null it is the default.
        _ => {
            let null = new_null_array(&data_type, 1);
            let data = null.to_data().into_builder().nulls(None).null_count(0).build()?;
            Ok(arrow_array::make_array(data))
        }
    }
}
