//! Counting a batch of events into cells, a column at a time.
//!
//! Counts of all open cells stand in one array, `slots` of them for each cell, so that the inner loops do nothing but add 1
//! at `cell * slots + slot`. No loop allocates for a row.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, BinaryArray, MapArray, PrimitiveArray};
use arrow_schema::DataType;
use xxhash_rust::xxh3::xxh3_64;

use super::cell::Spot;
use super::layout::{BUCKETS, FieldSlots, Indicator, Kind, magnitude};

/// Counts of many cells.
#[derive(Default)]
pub(super) struct Counts {
    slots: usize,
    counts: Vec<u32>,
}

impl Counts {
    pub(super) fn new(slots: usize) -> Counts {
        Counts { slots, counts: Vec::new() }
    }

    /// Makes room for `cells` cells.
    pub(super) fn grow(&mut self, cells: usize) {
        self.counts.resize(cells * self.slots, 0);
    }

    pub(super) fn clear(&mut self) {
        self.counts.clear();
    }

    /// The counts of a cell.
    pub(super) fn of(&self, cell: usize) -> &[u32] {
        self.counts.get(cell * self.slots..(cell + 1) * self.slots).unwrap_or_default()
    }

    #[inline]
    pub(super) fn add(&mut self, cell: u32, slot: usize) {
        if let Some(count) = self.counts.get_mut(cell as usize * self.slots + slot) {
            *count = count.saturating_add(1);
        }
    }
}

/// The rows of a batch: the cell of each, and its place.
pub(super) struct Rows<'a> {
    pub(super) cells: &'a [u32],
    pub(super) topics: &'a [u16],
    pub(super) partitions: &'a [i32],
    pub(super) offsets: &'a [i64],
}

impl Rows<'_> {
    pub(super) fn spot(&self, row: usize) -> Spot {
        let at = |row: usize| Some(Spot(*self.topics.get(row)?, *self.partitions.get(row)?, *self.offsets.get(row)?));
        at(row).unwrap_or_default()
    }
}

/// Counts a field.
pub(super) fn observe(column: &ArrayRef, field: &FieldSlots, rows: &Rows<'_>, counts: &mut Counts) {
    let (null, default) = (field.first, field.first + 1);
    if column.null_count() > 0 {
        mark(rows, counts, null, |row| column.is_null(row));
    }
    match column.data_type() {
        DataType::Binary => texts(column.as_binary::<i32>(), field, rows, counts),
        DataType::Boolean => {
            let values = column.as_boolean();
            mark(rows, counts, default, |row| column.is_valid(row) && !values.value(row));
        }
        DataType::Map(..) => {
            let maps = column.as_map();
            mark(rows, counts, default, |row| column.is_valid(row) && maps.value_length(row) == 0);
            if field.kind == Kind::Map {
                keys(maps, field, rows, counts);
            }
        }
        DataType::List(_) => {
            let lists = column.as_list::<i32>();
            mark(rows, counts, default, |row| column.is_valid(row) && lists.value_length(row) == 0);
        }
        _ => number(column, field, rows, counts),
    }
}

/// Counts the rows for which `is` holds.
fn mark(rows: &Rows<'_>, counts: &mut Counts, slot: usize, is: impl Fn(usize) -> bool) {
    for (row, &cell) in rows.cells.iter().enumerate() {
        if is(row) {
            counts.add(cell, slot);
        }
    }
}

fn texts(values: &BinaryArray, field: &FieldSlots, rows: &Rows<'_>, counts: &mut Counts) {
    let is_text = field.kind == Kind::Text;
    for (row, &cell) in rows.cells.iter().enumerate() {
        if values.is_null(row) {
            continue;
        }
        let text = values.value(row);
        if text.is_empty() {
            counts.add(cell, field.first + 1);
        }
        if is_text {
            if is_number(text) {
                counts.add(cell, field.first + 2);
            }
            counts.add(cell, field.first + FieldSlots::HEAD + bucket_of(text));
        }
    }
}

/// The bucket of a text.
pub(super) fn bucket_of(text: &[u8]) -> usize {
    (xxh3_64(text) % u64::from(BUCKETS)) as usize
}

/// Whether a text is nothing but a number, as one that was sent as a string.
fn is_number(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let starts = digits.first().is_some_and(u8::is_ascii_digit);
    starts && digits.len() <= 24 && digits.iter().filter(|&&byte| byte == b'.').count() <= 1 && {
        digits.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
    }
}

/// An event counts once for each bucket that has some of its keys.
fn keys(maps: &MapArray, field: &FieldSlots, rows: &Rows<'_>, counts: &mut Counts) {
    let Some(keys) = maps.keys().as_binary_opt::<i32>() else { return };
    let (offsets, first) = (maps.value_offsets(), field.first + FieldSlots::HEAD);
    for (row, &cell) in rows.cells.iter().enumerate() {
        let (Some(&from), Some(&upto)) = (offsets.get(row), offsets.get(row + 1)) else { continue };
        if maps.is_null(row) {
            continue;
        }
        let mut seen = 0_u16;
        (from..upto).for_each(|at| seen |= 1 << bucket_of(keys.value(at as usize)));
        while seen != 0 {
            counts.add(cell, first + seen.trailing_zeros() as usize);
            seen &= seen - 1;
        }
    }
}

/// Hands an array of numbers of any type, with what makes a float of each, to what comes behind; returns its result.
macro_rules! of_number {
    ($column:expr, $values:ident, $value:ident => $then:expr) => {{
        let scale = match $column.data_type() {
            DataType::Decimal128(_, scale) => 10_f64.powi(i32::from(*scale)),
            _ => 1.0,
        };
        of_number!(each $column, $values, $value, $then;
            Float64Type => |value: f64| value,
            Float32Type => |value: f32| f64::from(value),
            Int64Type => |value: i64| value as f64,
            Int32Type => |value: i32| f64::from(value),
            Int16Type => |value: i16| f64::from(value),
            Int8Type => |value: i8| f64::from(value),
            UInt64Type => |value: u64| value as f64,
            UInt32Type => |value: u32| f64::from(value),
            UInt16Type => |value: u16| f64::from(value),
            UInt8Type => |value: u8| f64::from(value),
            Decimal128Type => move |value: i128| value as f64 / scale
        );
    }};
    (each $column:expr, $values:ident, $value:ident, $then:expr; $($type:ty => $float:expr),*) => {
        $(if let Some($values) = $column.as_primitive_opt::<$type>() {
            let $value = $float;
            return $then;
        })*
    };
}

fn number(column: &ArrayRef, field: &FieldSlots, rows: &Rows<'_>, counts: &mut Counts) {
    struct Each<'a, 'b>(&'a FieldSlots, &'a Rows<'b>, &'a mut Counts);
    impl Each<'_, '_> {
        fn count<T: ArrowPrimitiveType>(self, values: &PrimitiveArray<T>, value: impl Fn(T::Native) -> f64) {
            let Each(field, rows, counts) = self;
            let is_number = field.kind == Kind::Number;
            let buckets = field.first + FieldSlots::HEAD;
            for ((row, &cell), &number) in rows.cells.iter().enumerate().zip(values.values()) {
                if values.is_null(row) {
                    continue;
                }
                let number = value(number);
                if number == 0.0 {
                    counts.add(cell, field.first + 1);
                }
                if is_number {
                    counts.add(cell, buckets + usize::from(magnitude(number)));
                }
            }
        }
    }
    let each = Each(field, rows, counts);
    of_number!(column, values, value => each.count(values, value));
}

/// Whether one row of a field's column is counted under `indicator`: the same question as above, asked for one event.
pub fn holds(column: &ArrayRef, indicator: Indicator, row: usize) -> bool {
    if column.is_null(row) {
        return indicator == Indicator::Null;
    }
    let bucket_is = |bucket: u8, of: usize| of == usize::from(bucket);
    if let Some(texts) = column.as_binary_opt::<i32>() {
        let text = texts.value(row);
        return match indicator {
            Indicator::Default => text.is_empty(),
            Indicator::NumericText => is_number(text),
            Indicator::Bucket(bucket) => bucket_is(bucket, bucket_of(text)),
            _ => false,
        };
    }
    if let Some(maps) = column.as_map_opt() {
        let entries = maps.value(row);
        let keys = entries.column(0).as_binary_opt::<i32>();
        return match indicator {
            Indicator::Default => maps.value_length(row) == 0,
            Indicator::Key(bucket) => {
                keys.is_some_and(|keys| keys.iter().flatten().any(|key| bucket_is(bucket, bucket_of(key))))
            }
            _ => false,
        };
    }
    match (column.as_list_opt::<i32>(), column.as_boolean_opt(), indicator) {
        (Some(lists), _, Indicator::Default) => lists.value_length(row) == 0,
        (_, Some(values), Indicator::Default) => !values.value(row),
        (_, _, Indicator::Default) => value_of(column, row) == Some(0.0),
        (_, _, Indicator::Bucket(bucket)) => value_of(column, row).is_some_and(|value| magnitude(value) == bucket),
        _ => false,
    }
}

fn value_of(column: &ArrayRef, row: usize) -> Option<f64> {
    of_number!(column, values, value => Some(value(values.value(row))));
    None
}
