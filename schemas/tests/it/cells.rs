//! One cell of a batch in a form that tests can compare, and how it is read from an Arrow array.

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, RecordBatch};
use arrow_buffer::i256;
use arrow_schema::{DataType, TimeUnit};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Null,
    Bool(bool),
    Int(i64),
    /// The bits, so that a NaN equals itself.
    Float(u64),
    Decimal(i256),
    Bytes(Vec<u8>),
    List(Vec<Cell>),
    Map(Vec<(Vec<u8>, Cell)>),
}

pub(crate) fn cell(array: &dyn Array, row: usize) -> Cell {
    if array.is_null(row) {
        return Cell::Null;
    }
    match array.data_type() {
        DataType::Boolean => Cell::Bool(array.as_boolean().value(row)),
        DataType::Int32 => Cell::Int(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Cell::Int(array.as_primitive::<Int64Type>().value(row)),
        DataType::Date32 => Cell::Int(array.as_primitive::<Date32Type>().value(row).into()),
        DataType::Timestamp(TimeUnit::Millisecond, None) => {
            Cell::Int(array.as_primitive::<TimestampMillisecondType>().value(row))
        }
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            Cell::Int(array.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, None) => {
            Cell::Int(array.as_primitive::<TimestampNanosecondType>().value(row))
        }
        DataType::Float32 => Cell::Float(u64::from(array.as_primitive::<Float32Type>().value(row).to_bits())),
        DataType::Float64 => Cell::Float(array.as_primitive::<Float64Type>().value(row).to_bits()),
        DataType::Decimal128(..) => Cell::Decimal(i256::from_i128(array.as_primitive::<Decimal128Type>().value(row))),
        DataType::Decimal256(..) => Cell::Decimal(array.as_primitive::<Decimal256Type>().value(row)),
        DataType::Binary => Cell::Bytes(array.as_binary::<i32>().value(row).to_vec()),
        DataType::FixedSizeBinary(_) => Cell::Bytes(array.as_fixed_size_binary().value(row).to_vec()),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            Cell::List((0..items.len()).map(|index| cell(&items, index)).collect())
        }
        DataType::Map(..) => {
            let pairs = array.as_map().value(row);
            let (keys, values) = (pairs.column(0).as_binary::<i32>(), pairs.column(1));
            Cell::Map((0..pairs.len()).map(|index| (keys.value(index).to_vec(), cell(values, index))).collect())
        }
        other => panic!("no column has the type {other}"),
    }
}

/// Row `row` of a batch, maps sorted by key, as trees keep them in no order.
pub(crate) fn row(batch: &RecordBatch, row: usize) -> Vec<Cell> {
    batch.columns().iter().map(|column| sorted(cell(column, row))).collect()
}

pub(crate) fn sorted(cell: Cell) -> Cell {
    match cell {
        Cell::Map(mut pairs) => {
            pairs.sort_by(|left, right| left.0.cmp(&right.0));
            Cell::Map(pairs.into_iter().map(|(key, value)| (key, sorted(value))).collect())
        }
        Cell::List(items) => Cell::List(items.into_iter().map(sorted).collect()),
        other => other,
    }
}
