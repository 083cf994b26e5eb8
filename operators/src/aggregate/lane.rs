//! The numbers that states hold, by the Rust type that an argument's values have in memory.
//!
//! ClickHouse's columns may be narrower than Arrow's: a `Date` has 16 bits, a `DateTime` 32, a decimal of up to 9
//! digits 32. A [`Layout`] says how many low bytes of a number its state holds and how the rest is filled.

use std::ops::Deref;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, make_array};
use arrow_buffer::{Buffer, ScalarBuffer, i256};
use arrow_data::ArrayData;
use arrow_schema::DataType;
use weir_schemas::types::{ColumnType, Width};

use super::bytes::Bytes;
use super::rows::Rows;
use crate::error::Error;

/// How a number stands in a state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Its bytes, the lowest first.
    pub(super) width: usize,
    /// Whether its highest bit fills what memory has beyond them.
    pub(super) signed: bool,
}

/// The layout of a type with values of a fixed width, or nothing for other types.
pub(super) fn layout(column_type: &ColumnType) -> Option<Layout> {
    let (width, signed) = match column_type {
        ColumnType::Bool => (1, false),
        ColumnType::Int(width) => (*width as usize / 8, true),
        ColumnType::UInt(width) => (*width as usize / 8, false),
        ColumnType::Float32 => (4, false),
        ColumnType::Float64 => (8, false),
        ColumnType::Decimal(..=9, _) => (4, true),
        ColumnType::Decimal(..=18, _) => (8, true),
        ColumnType::Decimal(..=38, _) => (16, true),
        ColumnType::Decimal(..) => (32, true),
        ColumnType::Uuid => (16, false),
        ColumnType::Date => (2, false),
        ColumnType::Date32 => (4, true),
        ColumnType::DateTime(_) => (4, false),
        ColumnType::DateTime64(..) => (8, true),
        _ => return None,
    };
    Some(Layout { width, signed })
}

/// A type of number that an argument's values have in memory.
pub(super) trait Lane: Copy + PartialOrd + Default + 'static {
    /// The values of an array.
    type Values: Deref<Target = [Self]>;

    /// The values of an array whose type has been checked; those of null rows are arbitrary.
    fn values(array: &ArrayRef) -> Self::Values;

    /// An array of these values.
    fn array(values: Vec<Self>, data_type: &DataType) -> Result<ArrayRef, Error>;

    /// Appends the low bytes that the layout tells.
    fn put(self, layout: Layout, out: &mut Vec<u8>);

    /// Reads what `put` wrote.
    fn take(bytes: &mut Bytes<'_>, layout: Layout) -> Result<Self, Error>;

    /// Whether this is no number, which loses every comparison.
    fn is_nan(self) -> bool;
}

/// The values of an array of Arrow's primitive types.
fn buffer<N: arrow_buffer::ArrowNativeType>(array: &ArrayRef) -> ScalarBuffer<N> {
    let data = array.to_data();
    match data.buffers().first() {
        Some(buffer) => ScalarBuffer::new(buffer.clone(), data.offset(), data.len()),
        None => ScalarBuffer::from(Vec::new()),
    }
}

/// An array of one of Arrow's primitive types.
fn primitive(values: Buffer, rows: usize, data_type: &DataType) -> Result<ArrayRef, Error> {
    Ok(make_array(ArrayData::builder(data_type.clone()).len(rows).add_buffer(values).build()?))
}

/// The bytes of a state, extended to the `N` bytes of memory.
fn extend<const N: usize>(bytes: &mut Bytes<'_>, layout: Layout) -> Result<[u8; N], Error> {
    let stored = bytes.take(layout.width)?;
    let negative = layout.signed && stored.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut extended = [if negative { 0xff } else { 0 }; N];
    extended[..stored.len()].copy_from_slice(stored);
    Ok(extended)
}

macro_rules! lane {
    ($native:ty, $is_nan:expr) => {
        impl Lane for $native {
            type Values = ScalarBuffer<$native>;

            fn values(array: &ArrayRef) -> Self::Values {
                buffer(array)
            }

            fn array(values: Vec<Self>, data_type: &DataType) -> Result<ArrayRef, Error> {
                let rows = values.len();
                primitive(Buffer::from_vec(values), rows, data_type)
            }

            fn put(self, layout: Layout, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes()[..layout.width]);
            }

            fn take(bytes: &mut Bytes<'_>, layout: Layout) -> Result<Self, Error> {
                Ok(Self::from_le_bytes(extend(bytes, layout)?))
            }

            fn is_nan(self) -> bool {
                $is_nan(self)
            }
        }
    };
}

lane!(i8, |_| false);
lane!(i16, |_| false);
lane!(i32, |_| false);
lane!(i64, |_| false);
lane!(u8, |_| false);
lane!(u16, |_| false);
lane!(u32, |_| false);
lane!(u64, |_| false);
lane!(f32, f32::is_nan);
lane!(f64, f64::is_nan);
lane!(i128, |_| false);
lane!(i256, |_| false);

/// A `Bool`, which Arrow packs into bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub(super) struct Truth(pub(super) bool);

impl Lane for Truth {
    type Values = Vec<Truth>;

    fn values(array: &ArrayRef) -> Self::Values {
        let Some(array) = array.as_any().downcast_ref::<BooleanArray>() else {
            return Vec::new();
        };
        array.values().iter().map(Truth).collect()
    }

    fn array(values: Vec<Self>, _: &DataType) -> Result<ArrayRef, Error> {
        Ok(Arc::new(BooleanArray::from_iter(values.into_iter().map(|truth| Some(truth.0)))))
    }

    fn put(self, _: Layout, out: &mut Vec<u8>) {
        out.push(u8::from(self.0));
    }

    fn take(bytes: &mut Bytes<'_>, _: Layout) -> Result<Self, Error> {
        Ok(Truth(bytes.flag()?))
    }

    fn is_nan(self) -> bool {
        false
    }
}

/// A `UUID`, whose text is 16 bytes in Arrow. ClickHouse holds the two halves as numbers and compares the second
/// one first.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub(super) struct Uuid(pub(super) u128);

impl Uuid {
    /// From the bytes in the order of the text.
    fn from_text(text: &[u8; 16]) -> Self {
        Uuid(u128::from_be_bytes(*text).rotate_left(64))
    }
}

impl Lane for Uuid {
    type Values = Vec<Uuid>;

    fn values(array: &ArrayRef) -> Self::Values {
        let Some(array) = array.as_any().downcast_ref::<FixedSizeBinaryArray>() else {
            return Vec::new();
        };
        let (texts, _) = array.value_data().as_chunks::<16>();
        texts.iter().map(Uuid::from_text).collect()
    }

    fn array(values: Vec<Self>, data_type: &DataType) -> Result<ArrayRef, Error> {
        let rows = values.len();
        let mut texts = Vec::with_capacity(rows * 16);
        for value in values {
            texts.extend_from_slice(&value.0.rotate_left(64).to_be_bytes());
        }
        primitive(Buffer::from_vec(texts), rows, data_type)
    }

    fn put(self, _: Layout, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_le_bytes());
    }

    fn take(bytes: &mut Bytes<'_>, _: Layout) -> Result<Self, Error> {
        Ok(Uuid(u128::from_le_bytes(bytes.array()?)))
    }

    fn is_nan(self) -> bool {
        false
    }
}

/// Calls `$build!(lane)` with the lane of a number's type, or gives `$otherwise`.
macro_rules! by_number {
    ($column_type:expr, $build:ident, $otherwise:expr) => {
        match $column_type {
            ColumnType::Bool => $build!(Truth),
            ColumnType::Int(Width::W8) => $build!(i8),
            ColumnType::Int(Width::W16) => $build!(i16),
            ColumnType::Int(Width::W32) => $build!(i32),
            ColumnType::Int(Width::W64) => $build!(i64),
            ColumnType::UInt(Width::W8) => $build!(u8),
            ColumnType::UInt(Width::W16) => $build!(u16),
            ColumnType::UInt(Width::W32) => $build!(u32),
            ColumnType::UInt(Width::W64) => $build!(u64),
            ColumnType::Float32 => $build!(f32),
            ColumnType::Float64 => $build!(f64),
            ColumnType::Decimal(..=38, _) => $build!(i128),
            ColumnType::Decimal(..) => $build!(i256),
            _ => $otherwise,
        }
    };
}
pub(super) use by_number;

/// Calls `$build!(lane)` with the lane of a type whose values have a fixed width, or gives `$otherwise`.
macro_rules! by_lane {
    ($column_type:expr, $build:ident, $otherwise:expr) => {
        match $column_type {
            ColumnType::Date | ColumnType::Date32 => $build!(i32),
            ColumnType::DateTime(_) | ColumnType::DateTime64(..) => $build!(i64),
            ColumnType::Uuid => $build!(Uuid),
            number => by_number!(number, $build, $otherwise),
        }
    };
}
pub(super) use by_lane;

/// The bits of every value of a type of up to 64 bits that ClickHouse hashes as a number, extended by its sign;
/// nothing for other types. Those of null rows are arbitrary.
pub(super) fn bits(array: &ArrayRef, column_type: &ColumnType) -> Option<Vec<u64>> {
    macro_rules! signed {
        ($native:ty) => {
            <$native>::values(array).iter().map(|value| i64::from(*value).cast_unsigned()).collect()
        };
    }
    macro_rules! unsigned {
        ($native:ty) => {
            <$native>::values(array).iter().map(|value| u64::from(*value)).collect()
        };
    }
    Some(match column_type {
        ColumnType::Bool => Truth::values(array).iter().map(|value| u64::from(value.0)).collect(),
        ColumnType::Int(Width::W8) => signed!(i8),
        ColumnType::Int(Width::W16) => signed!(i16),
        ColumnType::Int(Width::W32) | ColumnType::Date | ColumnType::Date32 => signed!(i32),
        ColumnType::Int(Width::W64) | ColumnType::DateTime(_) => signed!(i64),
        ColumnType::UInt(Width::W8) => unsigned!(u8),
        ColumnType::UInt(Width::W16) => unsigned!(u16),
        ColumnType::UInt(Width::W32) => unsigned!(u32),
        ColumnType::UInt(Width::W64) => u64::values(array).to_vec(),
        ColumnType::Float32 => f32::values(array).iter().map(|value| u64::from(value.to_bits())).collect(),
        ColumnType::Float64 => f64::values(array).iter().map(|value| value.to_bits()).collect(),
        _ => return None,
    })
}

/// Calls `take` with the slot of every row and its value's bytes as ClickHouse has them in memory, for the types
/// that it hashes by their bytes: strings, decimals and `DateTime64`. False for other types.
pub(super) fn each_bytes(
    array: &ArrayRef,
    column_type: &ColumnType,
    rows: &Rows<'_>,
    mut take: impl FnMut(usize, &[u8]),
) -> bool {
    if let Some(strings) = array.as_any().downcast_ref::<BinaryArray>() {
        rows.each(|row, slot| take(slot, strings.value(row)));
        return true;
    }
    if let Some(strings) = array.as_any().downcast_ref::<FixedSizeBinaryArray>() {
        rows.each(|row, slot| take(slot, strings.value(row)));
        return true;
    }
    let Some(Layout { width, .. }) = layout(column_type) else {
        return false;
    };
    match column_type {
        ColumnType::DateTime64(..) => {
            let values = i64::values(array);
            rows.each(|row, slot| take(slot, &values[row].to_le_bytes()[..width]));
        }
        ColumnType::Decimal(..=38, _) => {
            let values = i128::values(array);
            rows.each(|row, slot| take(slot, &values[row].to_le_bytes()[..width]));
        }
        ColumnType::Decimal(..) => {
            let values = i256::values(array);
            rows.each(|row, slot| take(slot, &values[row].to_le_bytes()[..width]));
        }
        _ => return false,
    }
    true
}
