//! The buffers that decoded values go to, and the arrays that they become.
//!
//! Invariant: after a whole record every column's buffers hold the same number of rows. A record that fails half-way is
//! taken back by cutting every buffer to the rows before it; nothing of a record needs to be remembered for that.

use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, ListArray, MapArray, PrimitiveArray, StructArray,
};
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer, i256};
use arrow_schema::{ArrowError, DataType, TimeUnit};

use super::codes::{CodeRows, Look, Looks};
use super::compile::Target;
use super::reader::{Layout, ReaderSchema, Slot, SlotKind, SlotSpec};

/// The values of one buffer, in the form of its kind.
pub(super) enum Values {
    Bool(BooleanBufferBuilder),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    I128(Vec<i128>),
    I256(Vec<i256>),
    Bytes {
        ends: Vec<i32>,
        bytes: Vec<u8>,
    },
    Fixed {
        size: usize,
        bytes: Vec<u8>,
    },
    Offsets(Vec<i32>),
    /// Of a column that isn't wanted.
    Absent,
}

pub(super) struct Column {
    pub(super) values: Values,
    valid: Option<BooleanBufferBuilder>,
    look: Option<Look>,
}

/// All buffers of a reader schema.
pub(super) struct Buffers {
    pub(super) columns: Vec<Column>,
    codes: CodeRows,
}

impl Buffers {
    /// Empty buffers with room for `rows` rows, for the columns that are wanted, and for codes where there are `looks`.
    pub(super) fn new(reader: &ReaderSchema, wanted: &[bool], looks: Option<&Looks>, rows: usize) -> Buffers {
        let column = |(index, slot): (usize, &SlotSpec)| {
            let wanted = wanted.get(slot.column).copied().unwrap_or(false);
            let valid = (wanted && slot.nullable).then(|| BooleanBufferBuilder::new(rows));
            let values = if wanted { Values::new(slot.kind, rows) } else { Values::Absent };
            let look = looks.and_then(|looks| looks.of.get(index).copied().flatten());
            Column { values, valid, look }
        };
        let columns = reader.slots.iter().enumerate().map(column).collect();
        Buffers { columns, codes: CodeRows::new(looks.map_or(0, |looks| looks.bytes), rows) }
    }

    /// Makes room for the codes of the next record.
    #[inline]
    pub(super) fn begin(&mut self) {
        self.codes.begin();
    }

    /// The codes as a column; none are left.
    pub(super) fn codes(&mut self) -> Result<ArrayRef, ArrowError> {
        std::mem::replace(&mut self.codes, CodeRows::new(0, 0)).finish()
    }

    /// Cuts the codes to those of the first `rows` records.
    pub(super) fn cut_codes(&mut self, rows: usize) {
        self.codes.cut(rows);
    }

    #[inline]
    fn at(&mut self, slot: Slot) -> &mut Column {
        &mut self.columns[slot.0 as usize]
    }

    /// Takes a value that is none of the nulls: `keep` is for the column, and `say` says what the codes keep of it.
    #[inline]
    fn take(&mut self, to: Target, keep: impl FnOnce(&mut Values), say: impl Fn(&mut CodeRows, Look)) {
        match to {
            Target::Nowhere => {}
            Target::Code(look) => say(&mut self.codes, look),
            Target::Column(slot) => {
                let column = &mut self.columns[slot.0 as usize];
                keep(&mut column.values);
                column.mark_valid();
                if let Some(look) = column.look {
                    say(&mut self.codes, look);
                }
            }
        }
    }

    #[inline]
    pub(super) fn boolean(&mut self, to: Target, value: bool) {
        let keep = |values: &mut Values| {
            if let Values::Bool(values) = values {
                values.append(value);
            }
        };
        self.take(to, keep, |codes, look| codes.integer(look, i64::from(value)));
    }

    #[inline]
    pub(super) fn i32(&mut self, to: Target, value: i32) {
        let keep = |values: &mut Values| {
            if let Values::I32(values) = values {
                values.push(value);
            }
        };
        self.take(to, keep, |codes, look| codes.integer(look, i64::from(value)));
    }

    #[inline]
    pub(super) fn i64(&mut self, to: Target, value: i64) {
        let keep = |values: &mut Values| {
            if let Values::I64(values) = values {
                values.push(value);
            }
        };
        self.take(to, keep, |codes, look| codes.integer(look, value));
    }

    #[inline]
    pub(super) fn f32(&mut self, to: Target, value: f32) {
        let keep = |values: &mut Values| {
            if let Values::F32(values) = values {
                values.push(value);
            }
        };
        self.take(to, keep, |codes, look| codes.number(look, f64::from(value)));
    }

    #[inline]
    pub(super) fn f64(&mut self, to: Target, value: f64) {
        let keep = |values: &mut Values| {
            if let Values::F64(values) = values {
                values.push(value);
            }
        };
        self.take(to, keep, |codes, look| codes.number(look, value));
    }

    /// A decimal within the bounds of the column.
    #[inline]
    pub(super) fn decimal(&mut self, to: Target, value: i256) {
        let keep = |values: &mut Values| match values {
            Values::I128(values) => values.push(value.to_i128().unwrap_or_default()),
            Values::I256(values) => values.push(value),
            _ => {}
        };
        self.take(to, keep, |codes, look| codes.decimal(look, float_of(value)));
    }

    /// Bytes of any length. The decoder's limits keep a buffer below 2 GiB.
    #[inline]
    pub(super) fn bytes(&mut self, to: Target, value: &[u8]) {
        let keep = |values: &mut Values| match values {
            Values::Bytes { ends, bytes } => {
                bytes.extend_from_slice(value);
                ends.push(bytes.len() as i32);
            }
            Values::Fixed { bytes, .. } => bytes.extend_from_slice(value),
            _ => {}
        };
        self.take(to, keep, |codes, look| codes.bytes(look, value));
    }

    /// A list of `items` items, which stand in the buffers already.
    #[inline]
    pub(super) fn list(&mut self, to: Target, items: usize) {
        let keep = |values: &mut Values| {
            if let Values::Offsets(ends) = values {
                let last = ends.last().copied().unwrap_or_default();
                ends.push(last + items as i32);
            }
        };
        self.take(to, keep, |codes, look| codes.list(look, items));
    }

    /// A null, or an empty list.
    pub(super) fn null(&mut self, to: Target) {
        let slot = match to {
            Target::Nowhere => return,
            Target::Code(look) => return self.codes.null(look),
            Target::Column(slot) => slot,
        };
        let column = &mut self.columns[slot.0 as usize];
        match &mut column.values {
            Values::Bool(values) => values.append(false),
            Values::I32(values) => values.push(0),
            Values::I64(values) => values.push(0),
            Values::F32(values) => values.push(0.0),
            Values::F64(values) => values.push(0.0),
            Values::I128(values) => values.push(0),
            Values::I256(values) => values.push(i256::ZERO),
            Values::Bytes { ends, bytes } => ends.push(bytes.len() as i32),
            Values::Fixed { size, bytes } => bytes.resize(bytes.len() + *size, 0),
            Values::Offsets(ends) => ends.push(ends.last().copied().unwrap_or_default()),
            Values::Absent => {}
        }
        if let Some(valid) = &mut column.valid {
            valid.append(false);
        }
        if let Some(look) = column.look {
            self.codes.null(look);
        }
    }

    /// Cuts a column to its first `rows` rows.
    pub(super) fn cut(&mut self, layout: &Layout, rows: usize) {
        match layout {
            Layout::Leaf(slot) => self.at(*slot).cut(rows),
            Layout::List { offsets, item } => {
                let items = self.cut_offsets(*offsets, rows);
                self.cut(item, items);
            }
            Layout::Map { offsets, keys, value } => {
                let items = self.cut_offsets(*offsets, rows);
                self.at(*keys).cut(items);
                self.cut(value, items);
            }
        }
    }

    /// Cuts the ends of lists to `rows` lists and tells how many items these have.
    fn cut_offsets(&mut self, slot: Slot, rows: usize) -> usize {
        let Values::Offsets(ends) = &mut self.at(slot).values else { return 0 };
        ends.truncate(rows + 1);
        ends.last().copied().unwrap_or_default().unsigned_abs() as usize
    }

    /// The array of column `index`; its buffers are empty afterwards.
    pub(super) fn array(&mut self, reader: &ReaderSchema, index: usize) -> Result<ArrayRef, ArrowError> {
        self.assemble(&reader.layouts[index], &reader.columns[index].column_type.arrow())
    }

    fn assemble(&mut self, layout: &Layout, arrow: &DataType) -> Result<ArrayRef, ArrowError> {
        match (layout, arrow) {
            (Layout::Leaf(slot), arrow) => self.at(*slot).finish(arrow),
            (Layout::List { offsets, item }, DataType::List(field)) => {
                let items = self.assemble(item, field.data_type())?;
                Ok(Arc::new(ListArray::try_new(Arc::clone(field), self.ends(*offsets), items, None)?))
            }
            (Layout::Map { offsets, keys, value }, DataType::Map(entries, sorted)) => {
                let DataType::Struct(fields) = entries.data_type() else { return Err(misfit(arrow)) };
                let [_, of] = fields.as_ref() else { return Err(misfit(arrow)) };
                let keys = self.at(*keys).finish(&DataType::Binary)?;
                let values = self.assemble(value, of.data_type())?;
                let pairs = StructArray::try_new(fields.clone(), vec![keys, values], None)?;
                let ends = self.ends(*offsets);
                Ok(Arc::new(MapArray::try_new(Arc::clone(entries), ends, pairs, None, *sorted)?))
            }
            (_, arrow) => Err(misfit(arrow)),
        }
    }

    fn ends(&mut self, slot: Slot) -> OffsetBuffer<i32> {
        match std::mem::replace(&mut self.at(slot).values, Values::Absent) {
            Values::Offsets(ends) => OffsetBuffer::new(ends.into()),
            _ => OffsetBuffer::new_empty(),
        }
    }
}

/// The float nearest to a decimal's digits, or the one beside it.
fn float_of(value: i256) -> f64 {
    let (low, high) = value.to_parts();
    value.to_i128().map_or_else(|| high as f64 * 2_f64.powi(128) + low as f64, |value| value as f64)
}

fn misfit(arrow: &DataType) -> ArrowError {
    ArrowError::SchemaError(format!("the reader schema's buffers don't make a {arrow}"))
}

impl Values {
    fn new(kind: SlotKind, rows: usize) -> Values {
        let ends = || {
            let mut ends = Vec::with_capacity(rows + 1);
            ends.push(0);
            ends
        };
        match kind {
            SlotKind::Bool => Values::Bool(BooleanBufferBuilder::new(rows)),
            SlotKind::I32 => Values::I32(Vec::with_capacity(rows)),
            SlotKind::I64 => Values::I64(Vec::with_capacity(rows)),
            SlotKind::F32 => Values::F32(Vec::with_capacity(rows)),
            SlotKind::F64 => Values::F64(Vec::with_capacity(rows)),
            SlotKind::I128 => Values::I128(Vec::with_capacity(rows)),
            SlotKind::I256 => Values::I256(Vec::with_capacity(rows)),
            SlotKind::Bytes => Values::Bytes { ends: ends(), bytes: Vec::new() },
            SlotKind::Fixed(size) => Values::Fixed { size, bytes: Vec::new() },
            SlotKind::Offsets => Values::Offsets(ends()),
        }
    }
}

impl Column {
    #[inline]
    fn mark_valid(&mut self) {
        if let Some(valid) = &mut self.valid {
            valid.append(true);
        }
    }

    fn cut(&mut self, rows: usize) {
        match &mut self.values {
            Values::Bool(values) => values.truncate(rows),
            Values::I32(values) => values.truncate(rows),
            Values::I64(values) => values.truncate(rows),
            Values::F32(values) => values.truncate(rows),
            Values::F64(values) => values.truncate(rows),
            Values::I128(values) => values.truncate(rows),
            Values::I256(values) => values.truncate(rows),
            Values::Bytes { ends, bytes } => {
                ends.truncate(rows + 1);
                bytes.truncate(ends.last().copied().unwrap_or_default().unsigned_abs() as usize);
            }
            Values::Fixed { size, bytes } => bytes.truncate(rows * *size),
            Values::Offsets(_) | Values::Absent => {}
        }
        if let Some(valid) = &mut self.valid {
            valid.truncate(rows);
        }
    }

    fn finish(&mut self, arrow: &DataType) -> Result<ArrayRef, ArrowError> {
        let nulls = self.valid.as_mut().map(|valid| NullBuffer::new(valid.finish()));
        let array: ArrayRef = match (std::mem::replace(&mut self.values, Values::Absent), arrow) {
            (Values::Bool(mut values), DataType::Boolean) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            (Values::I32(values), DataType::Int32) => primitive::<Int32Type>(values, nulls)?,
            (Values::I32(values), DataType::Date32) => primitive::<Date32Type>(values, nulls)?,
            (Values::I64(values), DataType::Int64) => primitive::<Int64Type>(values, nulls)?,
            (Values::I64(values), DataType::Timestamp(TimeUnit::Millisecond, None)) => {
                primitive::<TimestampMillisecondType>(values, nulls)?
            }
            (Values::I64(values), DataType::Timestamp(TimeUnit::Microsecond, None)) => {
                primitive::<TimestampMicrosecondType>(values, nulls)?
            }
            (Values::I64(values), DataType::Timestamp(TimeUnit::Nanosecond, None)) => {
                primitive::<TimestampNanosecondType>(values, nulls)?
            }
            (Values::F32(values), DataType::Float32) => primitive::<Float32Type>(values, nulls)?,
            (Values::F64(values), DataType::Float64) => primitive::<Float64Type>(values, nulls)?,
            (Values::I128(values), DataType::Decimal128(..)) => decimal::<Decimal128Type>(values, nulls, arrow)?,
            (Values::I256(values), DataType::Decimal256(..)) => decimal::<Decimal256Type>(values, nulls, arrow)?,
            (Values::Bytes { ends, bytes }, DataType::Binary) => {
                Arc::new(BinaryArray::try_new(OffsetBuffer::new(ends.into()), Buffer::from_vec(bytes), nulls)?)
            }
            (Values::Fixed { size, bytes }, DataType::FixedSizeBinary(_)) => {
                Arc::new(FixedSizeBinaryArray::try_new(size as i32, Buffer::from_vec(bytes), nulls)?)
            }
            (_, arrow) => return Err(misfit(arrow)),
        };
        Ok(array)
    }
}

fn primitive<T: ArrowPrimitiveType>(values: Vec<T::Native>, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError>
where
    ScalarBuffer<T::Native>: From<Vec<T::Native>>,
{
    Ok(Arc::new(PrimitiveArray::<T>::try_new(values.into(), nulls)?))
}

fn decimal<T: ArrowPrimitiveType>(
    values: Vec<T::Native>,
    nulls: Option<NullBuffer>,
    arrow: &DataType,
) -> Result<ArrayRef, ArrowError>
where
    ScalarBuffer<T::Native>: From<Vec<T::Native>>,
{
    let array = PrimitiveArray::<T>::try_new(values.into(), nulls)?.with_data_type(arrow.clone());
    debug_assert_eq!(array.data_type(), arrow);
    Ok(Arc::new(array))
}
