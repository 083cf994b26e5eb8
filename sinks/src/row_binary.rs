//! Arrow batches as ClickHouse's `RowBinary`: row after row, each value in the form its column type has.
//!
//! Types are resolved once per batch: [`cells`] turns each column into a [`Cell`] that borrows the array's buffers.
//! Writing a row is then one copy of a known width per column, straight into the output buffer.
//!
//! Invariants: the bytes of a row depend on its values alone, so they serve as its natural key, too: for one
//! list of column types, two rows have equal bytes exactly when their values are equal, and no row's bytes are a
//! prefix of another's. Values that a type cannot hold (a day beyond `Date`) are brought to its nearest end:
//! refusing them is the expressions' business, which know the place.
//!
//! Not here: which columns leave, and in what order; compression; the insert.
//!
//! Source of the format: ClickHouse's documentation of `RowBinary`, and the engine itself, which the crate's
//! tests ask.

use arrow_array::types::{
    Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, FixedSizeBinaryArray, ListArray, MapArray,
    PrimitiveArray, RecordBatch,
};
use arrow_buffer::NullBuffer;
use weir_schemas::stage::Column;
use weir_schemas::types::{ColumnType, Width};

use crate::error::Error;

/// Numbers are copied as they lie in memory, and `RowBinary` is little-endian.
const _: () = assert!(cfg!(target_endian = "little"), "Weir runs on little-endian machines");

/// The last day of `Date32`, 2299-12-31, in days since 1970.
const DATE32_LAST: i32 = 120_529;
/// The first day of `Date32`, 1900-01-01, in days since 1970.
const DATE32_FIRST: i32 = -25_567;

/// One column of a batch, resolved: where its values lie, and how they are written.
pub(crate) enum Cell<'a> {
    One(&'a [[u8; 1]]),
    Two(&'a [[u8; 2]]),
    Four(&'a [[u8; 4]]),
    Eight(&'a [[u8; 8]]),
    Sixteen(&'a [[u8; 16]]),
    ThirtyTwo(&'a [[u8; 32]]),
    Bool(&'a BooleanArray),
    /// Decimals that Arrow keeps wider than ClickHouse does.
    DecimalIn4(&'a [i128]),
    DecimalIn8(&'a [i128]),
    Date(&'a [i32]),
    Date32(&'a [i32]),
    DateTime(&'a [i64]),
    Uuid(&'a [[u8; 16]]),
    /// Bytes behind their length.
    Text(&'a BinaryArray),
    /// Bytes that know their own end.
    State(&'a BinaryArray),
    Fixed(&'a FixedSizeBinaryArray),
    List {
        offsets: &'a [i32],
        item: Box<Cell<'a>>,
    },
    Map {
        offsets: &'a [i32],
        key: Box<Cell<'a>>,
        value: Box<Cell<'a>>,
    },
    Nullable {
        nulls: Option<&'a NullBuffer>,
        of: Box<Cell<'a>>,
    },
}

/// The columns of `batch` as `columns` declare them, which is all that it may have.
pub(crate) fn cells<'a>(table: &str, columns: &[Column], batch: &'a RecordBatch) -> Result<Vec<Cell<'a>>, Error> {
    let wrong = |detail| Error::Columns { table: table.to_owned(), detail };
    if batch.num_columns() != columns.len() {
        return Err(wrong(format!("{} columns came where {} are declared", batch.num_columns(), columns.len())));
    }
    columns
        .iter()
        .zip(batch.columns())
        .map(|(column, array)| {
            cell(&column.column_type, array).map_err(|detail| wrong(format!("column {}: {detail}", column.name)))
        })
        .collect()
}

/// Whether every value of this type can be written.
///
/// # Errors
/// Names the type that can't.
pub(crate) fn check(column_type: &ColumnType) -> Result<(), String> {
    match column_type {
        ColumnType::Decimal(precision, scale) if !(1..=76).contains(precision) || scale > precision => {
            Err(format!("{column_type}: the precision is 1 to 76 and the scale at most the precision"))
        }
        ColumnType::DateTime64(scale, _) if !matches!(scale, 0 | 3 | 6 | 9) => {
            Err(format!("{column_type}: the scale is 0, 3, 6 or 9"))
        }
        ColumnType::FixedString(0) => Err("FixedString(0): the length is at least 1".to_owned()),
        ColumnType::Array(of) | ColumnType::Nullable(of) => check(of),
        ColumnType::Map(key, value) => check(key).and_then(|()| check(value)),
        _ => Ok(()),
    }
}

fn cell<'a>(column_type: &ColumnType, array: &'a ArrayRef) -> Result<Cell<'a>, String> {
    if let ColumnType::Nullable(of) = column_type {
        let of = Box::new(values(of, array)?);
        return Ok(Cell::Nullable { nulls: array.nulls().filter(|nulls| nulls.null_count() > 0), of });
    }
    if array.null_count() > 0 {
        return Err(format!("{} nulls in a {column_type}", array.null_count()));
    }
    values(column_type, array)
}

/// The values of `array`, whichever of them are null.
fn values<'a>(column_type: &ColumnType, array: &'a ArrayRef) -> Result<Cell<'a>, String> {
    check(column_type)?;
    Ok(match column_type {
        ColumnType::Bool => Cell::Bool(downcast(column_type, array)?),
        ColumnType::Int(Width::W8) => Cell::One(bytes::<Int8Type, 1>(column_type, array)?),
        ColumnType::Int(Width::W16) => Cell::Two(bytes::<Int16Type, 2>(column_type, array)?),
        ColumnType::Int(Width::W32) => Cell::Four(bytes::<Int32Type, 4>(column_type, array)?),
        ColumnType::Int(Width::W64) => Cell::Eight(bytes::<Int64Type, 8>(column_type, array)?),
        ColumnType::UInt(Width::W8) => Cell::One(bytes::<UInt8Type, 1>(column_type, array)?),
        ColumnType::UInt(Width::W16) => Cell::Two(bytes::<UInt16Type, 2>(column_type, array)?),
        ColumnType::UInt(Width::W32) => Cell::Four(bytes::<UInt32Type, 4>(column_type, array)?),
        ColumnType::UInt(Width::W64) => Cell::Eight(bytes::<UInt64Type, 8>(column_type, array)?),
        ColumnType::Float32 => Cell::Four(bytes::<Float32Type, 4>(column_type, array)?),
        ColumnType::Float64 => Cell::Eight(bytes::<Float64Type, 8>(column_type, array)?),
        ColumnType::Decimal(0..=9, _) => Cell::DecimalIn4(native::<Decimal128Type>(column_type, array)?),
        ColumnType::Decimal(10..=18, _) => Cell::DecimalIn8(native::<Decimal128Type>(column_type, array)?),
        ColumnType::Decimal(19..=38, _) => Cell::Sixteen(bytes::<Decimal128Type, 16>(column_type, array)?),
        ColumnType::Decimal(..) => Cell::ThirtyTwo(bytes::<Decimal256Type, 32>(column_type, array)?),
        ColumnType::String | ColumnType::LowCardinality => Cell::Text(downcast(column_type, array)?),
        ColumnType::AggregateState(_) => Cell::State(downcast(column_type, array)?),
        ColumnType::FixedString(length) => Cell::Fixed(fixed(column_type, array, i32::from(*length))?),
        ColumnType::Uuid => Cell::Uuid(fixed(column_type, array, 16)?.value_data().as_chunks().0),
        ColumnType::Date => Cell::Date(native::<Date32Type>(column_type, array)?),
        ColumnType::Date32 => Cell::Date32(native::<Date32Type>(column_type, array)?),
        ColumnType::DateTime(_) => Cell::DateTime(native::<TimestampSecondType>(column_type, array)?),
        ColumnType::DateTime64(0, _) => Cell::Eight(bytes::<TimestampSecondType, 8>(column_type, array)?),
        ColumnType::DateTime64(3, _) => Cell::Eight(bytes::<TimestampMillisecondType, 8>(column_type, array)?),
        ColumnType::DateTime64(6, _) => Cell::Eight(bytes::<TimestampMicrosecondType, 8>(column_type, array)?),
        ColumnType::DateTime64(..) => Cell::Eight(bytes::<TimestampNanosecondType, 8>(column_type, array)?),
        ColumnType::Array(of) => {
            let list: &ListArray = downcast(column_type, array)?;
            Cell::List { offsets: list.value_offsets(), item: Box::new(cell(of, list.values())?) }
        }
        ColumnType::Map(key, value) => {
            let map: &MapArray = downcast(column_type, array)?;
            let (key, value) = (Box::new(cell(key, map.keys())?), Box::new(cell(value, map.values())?));
            Cell::Map { offsets: map.value_offsets(), key, value }
        }
        ColumnType::Nullable(_) => return Err(format!("{column_type} within Nullable")),
    })
}

fn downcast<'a, T: Array + 'static>(column_type: &ColumnType, array: &'a ArrayRef) -> Result<&'a T, String> {
    array.as_any().downcast_ref().ok_or_else(|| mismatch(column_type, array))
}

fn mismatch(column_type: &ColumnType, array: &ArrayRef) -> String {
    format!("{} came where {column_type} travels as {}", array.data_type(), column_type.arrow())
}

fn fixed<'a>(column_type: &ColumnType, array: &'a ArrayRef, length: i32) -> Result<&'a FixedSizeBinaryArray, String> {
    downcast::<FixedSizeBinaryArray>(column_type, array)
        .ok()
        .filter(|array| array.value_length() == length)
        .ok_or_else(|| mismatch(column_type, array))
}

fn native<'a, T: ArrowPrimitiveType>(column_type: &ColumnType, array: &'a ArrayRef) -> Result<&'a [T::Native], String> {
    let array: &PrimitiveArray<T> = downcast(column_type, array)?;
    Ok(array.values())
}

fn bytes<'a, T: ArrowPrimitiveType, const N: usize>(
    column_type: &ColumnType,
    array: &'a ArrayRef,
) -> Result<&'a [[u8; N]], String> {
    let array: &PrimitiveArray<T> = downcast(column_type, array)?;
    Ok(array.values().inner().as_slice().as_chunks().0)
}

impl Cell<'_> {
    /// Appends the value of `row`, which has to be a row of the batch.
    pub(crate) fn write(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Cell::One(values) => out.extend_from_slice(&values[row]),
            Cell::Two(values) => out.extend_from_slice(&values[row]),
            Cell::Four(values) => out.extend_from_slice(&values[row]),
            Cell::Eight(values) => out.extend_from_slice(&values[row]),
            Cell::Sixteen(values) => out.extend_from_slice(&values[row]),
            Cell::ThirtyTwo(values) => out.extend_from_slice(&values[row]),
            Cell::Bool(values) => out.push(u8::from(values.value(row))),
            // A value of a null slot may be anything, hence no checked conversion.
            Cell::DecimalIn4(values) => out.extend_from_slice(&(values[row] as i32).to_le_bytes()),
            Cell::DecimalIn8(values) => out.extend_from_slice(&(values[row] as i64).to_le_bytes()),
            Cell::Date(values) => {
                out.extend_from_slice(&(values[row].clamp(0, i32::from(u16::MAX)) as u16).to_le_bytes());
            }
            Cell::Date32(values) => {
                out.extend_from_slice(&values[row].clamp(DATE32_FIRST, DATE32_LAST).to_le_bytes());
            }
            Cell::DateTime(values) => {
                out.extend_from_slice(&(values[row].clamp(0, i64::from(u32::MAX)) as u32).to_le_bytes());
            }
            Cell::Uuid(values) => {
                // ClickHouse keeps a UUID as two little-endian halves, the first one first.
                let mut halves = values[row];
                halves[..8].reverse();
                halves[8..].reverse();
                out.extend_from_slice(&halves);
            }
            Cell::Text(values) => {
                let value = values.value(row);
                write_length(value.len(), out);
                out.extend_from_slice(value);
            }
            Cell::State(values) => out.extend_from_slice(values.value(row)),
            Cell::Fixed(values) => out.extend_from_slice(values.value(row)),
            Cell::List { offsets, item } => {
                let range = range(offsets, row);
                write_length(range.len(), out);
                range.for_each(|at| item.write(at, out));
            }
            Cell::Map { offsets, key, value } => {
                let range = range(offsets, row);
                write_length(range.len(), out);
                for at in range {
                    key.write(at, out);
                    value.write(at, out);
                }
            }
            Cell::Nullable { nulls: Some(nulls), .. } if nulls.is_null(row) => out.push(1),
            Cell::Nullable { of, .. } => {
                out.push(0);
                of.write(row, out);
            }
        }
    }
}

/// Where the elements of `row` lie. Arrow's offsets are never negative.
fn range(offsets: &[i32], row: usize) -> std::ops::Range<usize> {
    offsets[row] as usize..offsets[row + 1] as usize
}

/// Appends a length as LEB128, as ClickHouse's `writeVarUInt` does.
fn write_length(length: usize, out: &mut Vec<u8>) {
    let mut rest = length;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
