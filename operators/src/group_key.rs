//! The bytes of a group's key: the start of its window, then its dimensions.
//!
//! Format, for ever, since state on disk is kept under it: the window's start in microseconds as eight bytes, big
//! endian with the sign bit turned (so that keys stand in order of time), then each dimension in the order of the
//! view. A dimension of type `Nullable` has a byte in front, 0 for null (nothing follows) and 1 otherwise. Booleans are
//! one byte, types of fixed width their Arrow bytes (little endian), strings four bytes of length (little endian),
//! then their bytes. Equal bytes mean equal groups and the reverse.
//!
//! Not here: arrays and maps, which cannot be a dimension.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, BooleanBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, make_array};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow_data::ArrayData;
use arrow_schema::{ArrowError, DataType};
use weir_schemas::types::ColumnType;

use crate::error::Error;

/// Length of the window's start at the front of each key.
pub(crate) const START_BYTES: usize = 8;

/// The bytes of a window's start.
pub(crate) fn encode_start(start: i64) -> [u8; START_BYTES] {
    (start ^ i64::MIN).to_be_bytes()
}

/// The window's start of a key; keys that are too short are an error of the state.
pub(crate) fn decode_start(key: &[u8]) -> Result<i64, Error> {
    let bytes = key.first_chunk::<START_BYTES>().ok_or_else(short)?;
    Ok(i64::from_be_bytes(*bytes) ^ i64::MIN)
}

/// How the dimensions of a view are written.
#[derive(Clone, Debug)]
pub(crate) struct KeyFormat {
    dimensions: Vec<(ColumnType, Shape)>,
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Bool,
    Fixed(usize),
    Bytes,
}

/// The keys of the rows of one batch, one after the other.
#[derive(Default)]
pub(crate) struct Keys {
    bytes: Vec<u8>,
    /// Where each key ends; one more than there are keys, the first is 0.
    ends: Vec<usize>,
}

impl Keys {
    pub(crate) fn len(&self) -> usize {
        self.ends.len().saturating_sub(1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.ends.windows(2).map(|ends| &self.bytes[ends[0]..ends[1]])
    }
}

impl KeyFormat {
    /// The format of keys with dimensions of `types`; an array or a map among them is an error.
    pub(crate) fn new(types: impl IntoIterator<Item = ColumnType>) -> Result<KeyFormat, Error> {
        let dimensions = types.into_iter().map(|column_type| {
            let shape = match column_type.arrow() {
                DataType::Boolean => Shape::Bool,
                DataType::Binary => Shape::Bytes,
                DataType::FixedSizeBinary(width) if width > 0 => Shape::Fixed(width as usize),
                other => match other.primitive_width() {
                    Some(width) => Shape::Fixed(width),
                    None => {
                        return Err(Error::Evaluation {
                            expression: "GROUP BY".to_owned(),
                            detail: format!("values of type {column_type} cannot be a grouping column"),
                        });
                    }
                },
            };
            Ok((column_type, shape))
        });
        Ok(KeyFormat { dimensions: dimensions.collect::<Result<_, _>>()? })
    }

    /// Writes the keys of all rows; `columns` are the dimensions, each as long as `starts`.
    pub(crate) fn encode(&self, starts: &[i64], columns: &[ArrayRef], keys: &mut Keys) -> Result<(), Error> {
        let rows = starts.len();
        let mut writers = Vec::with_capacity(columns.len());
        let mut fixed = START_BYTES;
        for ((column_type, shape), column) in self.dimensions.iter().zip(columns) {
            if column.len() != rows || column.data_type() != &column_type.arrow() {
                return Err(Error::Arrow(ArrowError::SchemaError(format!(
                    "a dimension of type {column_type} came as {} with {} rows of {rows}",
                    column.data_type(),
                    column.len()
                ))));
            }
            fixed += match shape {
                Shape::Bool => 1,
                Shape::Fixed(width) => *width,
                Shape::Bytes => 4,
            } + usize::from(column_type.is_nullable());
            writers.push(Writer::new(column, *shape, column_type.is_nullable()));
        }
        keys.bytes.clear();
        keys.bytes.reserve(rows * fixed);
        keys.ends.clear();
        keys.ends.push(0);
        for (row, start) in starts.iter().enumerate() {
            keys.bytes.extend_from_slice(&encode_start(*start));
            for writer in &writers {
                writer.write(row, &mut keys.bytes);
            }
            keys.ends.push(keys.bytes.len());
        }
        Ok(())
    }

    /// The dimensions' columns of `keys`, in their order.
    pub(crate) fn decode<'a>(&self, keys: impl Iterator<Item = &'a [u8]> + Clone) -> Result<Vec<ArrayRef>, Error> {
        let mut rest: Vec<&[u8]> =
            keys.map(|key| key.get(START_BYTES..).ok_or_else(short)).collect::<Result<_, _>>()?;
        self.dimensions.iter().map(|(column_type, shape)| decode_column(column_type, *shape, &mut rest)).collect()
    }
}

/// Writes one dimension of a row.
enum Writer<'a> {
    Bool { values: &'a BooleanBuffer, nulls: Option<&'a NullBuffer>, nullable: bool },
    Fixed { values: Buffer, width: usize, nulls: Option<&'a NullBuffer>, nullable: bool },
    Bytes { offsets: &'a [i32], values: &'a [u8], nulls: Option<&'a NullBuffer>, nullable: bool },
}

impl<'a> Writer<'a> {
    fn new(column: &'a ArrayRef, shape: Shape, nullable: bool) -> Writer<'a> {
        let nulls = column.nulls();
        match shape {
            Shape::Bool => Writer::Bool { values: column.as_boolean().values(), nulls, nullable },
            Shape::Bytes => {
                let column = column.as_binary::<i32>();
                Writer::Bytes { offsets: column.value_offsets(), values: column.value_data(), nulls, nullable }
            }
            Shape::Fixed(width) => {
                let data = column.to_data();
                let first = data.offset() * width;
                let values = data.buffers().first().map_or_else(Buffer::default, |values| values.slice(first));
                Writer::Fixed { values, width, nulls, nullable }
            }
        }
    }

    #[inline]
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        let (nulls, nullable) = match self {
            Writer::Bool { nulls, nullable, .. }
            | Writer::Fixed { nulls, nullable, .. }
            | Writer::Bytes { nulls, nullable, .. } => (nulls, *nullable),
        };
        if nullable {
            let null = nulls.is_some_and(|nulls| nulls.is_null(row));
            out.push(u8::from(!null));
            if null {
                return;
            }
        }
        match self {
            Writer::Bool { values, .. } => out.push(u8::from(values.value(row))),
            Writer::Fixed { values, width: 8, .. } => {
                if let Some(value) = values[row * 8..].first_chunk::<8>() {
                    out.extend_from_slice(value);
                }
            }
            Writer::Fixed { values, width, .. } => out.extend_from_slice(&values[row * width..(row + 1) * width]),
            Writer::Bytes { offsets, values, .. } => {
                let value = &values[offsets[row] as usize..offsets[row + 1] as usize];
                out.extend_from_slice(&(value.len() as u32).to_le_bytes());
                out.extend_from_slice(value);
            }
        }
    }
}

fn short() -> Error {
    Error::State { operator: "aggregate".to_owned(), detail: "a group's key is cut short".to_owned() }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Error> {
    let (taken, left) = rest.split_at_checked(length).ok_or_else(short)?;
    *rest = left;
    Ok(taken)
}

/// Takes one dimension from the front of every key.
fn decode_column(column_type: &ColumnType, shape: Shape, rest: &mut [&[u8]]) -> Result<ArrayRef, Error> {
    let nullable = column_type.is_nullable();
    let present = |rest: &mut &[u8]| -> Result<bool, Error> { Ok(!nullable || take(rest, 1)? != [0]) };
    match shape {
        Shape::Bool => {
            let mut values = BooleanBuilder::with_capacity(rest.len());
            for rest in rest {
                let value = if present(rest)? { Some(take(rest, 1)? != [0]) } else { None };
                values.append_option(value);
            }
            Ok(Arc::new(values.finish()))
        }
        Shape::Bytes => {
            let mut values = BinaryBuilder::with_capacity(rest.len(), 0);
            for rest in rest {
                if !present(rest)? {
                    values.append_null();
                    continue;
                }
                let length = take(rest, 4)?.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
                values.append_value(take(rest, length as usize)?);
            }
            Ok(Arc::new(values.finish()))
        }
        Shape::Fixed(width) => {
            let mut values = Vec::with_capacity(rest.len() * width);
            let mut nulls = Vec::with_capacity(if nullable { rest.len() } else { 0 });
            for rest in rest.iter_mut() {
                let there = present(rest)?;
                if there {
                    values.extend_from_slice(take(rest, width)?);
                } else {
                    values.resize(values.len() + width, 0);
                }
                if nullable {
                    nulls.push(there);
                }
            }
            let data = ArrayData::builder(column_type.arrow())
                .len(rest.len())
                .add_buffer(Buffer::from(values))
                .nulls(nullable.then(|| NullBuffer::from(nulls)))
                .align_buffers(true)
                .build()?;
            Ok(make_array(data))
        }
    }
}
