//! A hash of what an event says, whoever wrote it and wherever it stands in the log: by it differing copies of one
//! event are told from equal ones.
//!
//! All columns of the reader schema count, none of the system columns. Floats count by their bits. The order of a map's
//! entries means nothing: who encodes an event anew may write them in another one. Two differing events have the same
//! hash once in 2^64 pairs. Kept on disk: changing how it is computed makes every remembered event look different
//! from its copies.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_schema::{ArrowError, DataType};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::Error;

/// The hash of an absent value, and of the end of a list.
const NULL: u64 = 0x9e37_79b9_7f4a_7c15;
const SEED: u64 = 0xa076_1d64_78bd_642f;

/// Adds each row's value of `column` to the row's hash.
pub(crate) fn add_column(column: &ArrayRef, hashes: &mut [u64]) -> Result<(), Error> {
    let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
    let is_null = |row: usize| nulls.is_some_and(|nulls| nulls.is_null(row));
    let rows = hashes.iter_mut().enumerate();
    match column.data_type() {
        DataType::Boolean => {
            let values = column.as_boolean().values();
            rows.for_each(|(row, hash)| {
                *hash = mix(*hash, if is_null(row) { NULL } else { u64::from(values.value(row)) })
            });
        }
        DataType::Binary => {
            let values = column.as_binary::<i32>();
            rows.for_each(|(row, hash)| {
                *hash = mix(*hash, if is_null(row) { NULL } else { xxh3_64(values.value(row)) })
            });
        }
        DataType::List(_) => {
            let lists = column.as_list::<i32>();
            add_lists(lists.value_offsets(), &[lists.values().clone()], mix, is_null, hashes)?;
        }
        DataType::Map(_, _) => {
            let maps = column.as_map();
            let entries = [maps.keys().clone(), maps.values().clone()];
            add_lists(maps.value_offsets(), &entries, u64::wrapping_add, is_null, hashes)?;
        }
        other => {
            let width = match other {
                DataType::FixedSizeBinary(width) => usize::try_from(*width).ok(),
                other => other.primitive_width(),
            };
            let width = width.filter(|width| *width > 0).ok_or_else(|| {
                ArrowError::SchemaError(format!("a column of type {other} cannot be compared with its copy"))
            })?;
            let data = column.to_data();
            let values = data.buffers().first().map_or(&[][..], |values| values.as_slice());
            let values = values.get(data.offset() * width..).unwrap_or_default().chunks_exact(width);
            for ((row, hash), value) in rows.zip(values) {
                *hash = mix(*hash, if is_null(row) { NULL } else { fixed(value) });
            }
        }
    }
    Ok(())
}

/// Lists by the hashes of their elements, which stand in `columns` side by side and are folded by `fold`.
fn add_lists(
    offsets: &[i32],
    columns: &[ArrayRef],
    fold: impl Fn(u64, u64) -> u64,
    is_null: impl Fn(usize) -> bool,
    hashes: &mut [u64],
) -> Result<(), Error> {
    // A slice of a list array keeps all its elements: only those between its ends are looked at.
    let first = offsets.first().copied().unwrap_or_default() as usize;
    let last = offsets.last().copied().unwrap_or_default() as usize;
    let mut elements = vec![SEED; last - first];
    for column in columns {
        add_column(&column.slice(first, last - first), &mut elements)?;
    }
    for ((row, hash), ends) in hashes.iter_mut().enumerate().zip(offsets.windows(2)) {
        if is_null(row) {
            *hash = mix(*hash, NULL);
            continue;
        }
        let elements = &elements[ends[0] as usize - first..ends[1] as usize - first];
        let folded = elements.iter().fold(*hash, |hash, element| fold(hash, *element));
        *hash = mix(folded, elements.len() as u64);
    }
    Ok(())
}

#[inline]
fn fixed(value: &[u8]) -> u64 {
    match value.first_chunk::<8>() {
        Some(bytes) if value.len() == 8 => u64::from_le_bytes(*bytes),
        _ if value.len() < 8 => {
            let mut bytes = [0; 8];
            bytes[..value.len()].copy_from_slice(value);
            u64::from_le_bytes(bytes)
        }
        _ => xxh3_64(value),
    }
}

/// Folds a value into a hash: the two halves of a product, as wyhash does.
#[inline]
pub(crate) fn mix(hash: u64, value: u64) -> u64 {
    let product = u128::from(hash ^ value ^ SEED) * u128::from(NULL);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::builder::{BinaryBuilder, Int64Builder, ListBuilder, MapBuilder};

    use super::*;

    fn hash_of(column: ArrayRef) -> u64 {
        let mut hashes = [0];
        add_column(&column, &mut hashes).expect("a hash");
        hashes[0]
    }

    fn map(entries: &[(&str, &str)]) -> u64 {
        let mut map = MapBuilder::new(None, BinaryBuilder::new(), BinaryBuilder::new());
        for (key, value) in entries {
            map.keys().append_value(key);
            map.values().append_value(value);
        }
        map.append(true).expect("as many keys as values");
        hash_of(Arc::new(map.finish()))
    }

    fn list(numbers: &[i64]) -> u64 {
        let mut list = ListBuilder::new(Int64Builder::new());
        list.values().append_slice(numbers);
        list.append(true);
        hash_of(Arc::new(list.finish()))
    }

    #[test]
    fn the_order_counts_in_lists_and_not_in_maps() {
        assert_eq!(map(&[("a", "1"), ("b", "2")]), map(&[("b", "2"), ("a", "1")]));
        assert_ne!(map(&[("a", "1"), ("b", "2")]), map(&[("a", "2"), ("b", "1")]));
        assert_ne!(map(&[("a", "1")]), map(&[("a", "1"), ("", "")]));
        assert_ne!(list(&[1, 2]), list(&[2, 1]));
    }
}
