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
use super::layout::{BUCKETS, FieldSlots, Kind, magnitude};

/// Counts of many cells.
#[derive(Default)]
pub(super) struct Counts {
    slots: usize,
    counts: Vec<u32>,
    /// Of each cell, the first row of the column being observed that fell in the slot that is being looked at.
    first_rows: Vec<u32>,
}

/// No row.
const NONE: u32 = u32::MAX;

impl Counts {
    pub(super) fn new(slots: usize) -> Counts {
        Counts { slots, ..Counts::default() }
    }

    /// Makes room for `cells` cells.
    pub(super) fn grow(&mut self, cells: usize) {
        self.counts.resize(cells * self.slots, 0);
        self.first_rows.resize(cells, NONE);
    }

    pub(super) fn clear(&mut self) {
        self.counts.clear();
        self.first_rows.clear();
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
        at(row).unwrap_or(Spot(0, 0, 0))
    }
}

/// Counts a field, and tells `example(cell, slot, place)` the least place of each cell's nulls, defaults and numeric texts.
pub(super) fn observe(
    column: &ArrayRef,
    field: &FieldSlots,
    rows: &Rows<'_>,
    counts: &mut Counts,
    mut example: impl FnMut(u32, usize, Spot),
) {
    if column.null_count() > 0 {
        mark(rows, counts, field.first, |row| column.is_null(row), &mut example);
    }
    let default = field.first + 1;
    match column.data_type() {
        DataType::Binary => texts(column.as_binary::<i32>(), field, rows, counts, &mut example),
        DataType::Boolean => {
            let values = column.as_boolean();
            let is_false = |row: usize| column.is_valid(row) && !values.value(row);
            mark(rows, counts, default, is_false, &mut example);
        }
        DataType::Map(..) => {
            let maps = column.as_map();
            let is_empty = |row: usize| column.is_valid(row) && maps.value_length(row) == 0;
            mark(rows, counts, default, is_empty, &mut example);
            if field.kind == Kind::Map {
                keys(maps, field, rows, counts);
            }
        }
        DataType::List(_) => {
            let lists = column.as_list::<i32>();
            let is_empty = |row: usize| column.is_valid(row) && lists.value_length(row) == 0;
            mark(rows, counts, default, is_empty, &mut example);
        }
        _ => number(column, field, rows, counts, &mut example),
    }
}

/// Counts the rows for which `is` holds, and tells each cell's least place of them.
fn mark(
    rows: &Rows<'_>,
    counts: &mut Counts,
    slot: usize,
    is: impl Fn(usize) -> bool,
    example: &mut impl FnMut(u32, usize, Spot),
) {
    let mut marked = Vec::new();
    for (row, &cell) in rows.cells.iter().enumerate() {
        if !is(row) {
            continue;
        }
        counts.add(cell, slot);
        let Some(first) = counts.first_rows.get_mut(cell as usize) else { continue };
        if *first == NONE {
            marked.push(cell);
            *first = row as u32;
        } else if rows.spot(row) < rows.spot(*first as usize) {
            *first = row as u32;
        }
    }
    for cell in marked {
        let Some(first) = counts.first_rows.get_mut(cell as usize) else { continue };
        example(cell, slot, rows.spot(std::mem::replace(first, NONE) as usize));
    }
}

fn texts(
    values: &BinaryArray,
    field: &FieldSlots,
    rows: &Rows<'_>,
    counts: &mut Counts,
    example: &mut impl FnMut(u32, usize, Spot),
) {
    mark(rows, counts, field.first + 1, |row| values.is_valid(row) && values.value_length(row) == 0, example);
    if field.kind != Kind::Text {
        return;
    }
    mark(rows, counts, field.first + 2, |row| values.is_valid(row) && is_number(values.value(row)), example);
    let buckets = field.first + FieldSlots::HEAD;
    for (row, &cell) in rows.cells.iter().enumerate() {
        if values.is_valid(row) {
            counts.add(cell, buckets + bucket_of(values.value(row)));
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
        (0..usize::from(BUCKETS)).filter(|bucket| seen >> bucket & 1 == 1).for_each(|bucket| {
            counts.add(cell, first + bucket);
        });
    }
}

fn number(
    column: &ArrayRef,
    field: &FieldSlots,
    rows: &Rows<'_>,
    counts: &mut Counts,
    example: &mut impl FnMut(u32, usize, Spot),
) {
    macro_rules! each {
        ($($type:ty => $value:expr),* $(,)?) => {
            $(if let Some(values) = column.as_primitive_opt::<$type>() {
                return primitive(values, $value, field, rows, counts, example);
            })*
        };
    }
    let scale = match column.data_type() {
        DataType::Decimal128(_, scale) => 10_f64.powi(i32::from(*scale)),
        _ => 1.0,
    };
    each!(
        Float64Type => |value: f64| value,
        Float32Type => f64::from,
        Int64Type => |value: i64| value as f64,
        Int32Type => f64::from,
        Int16Type => f64::from,
        Int8Type => f64::from,
        UInt64Type => |value: u64| value as f64,
        UInt32Type => f64::from,
        UInt16Type => f64::from,
        UInt8Type => f64::from,
        Decimal128Type => move |value: i128| value as f64 / scale,
    );
}

fn primitive<T: ArrowPrimitiveType>(
    values: &PrimitiveArray<T>,
    value: impl Fn(T::Native) -> f64,
    field: &FieldSlots,
    rows: &Rows<'_>,
    counts: &mut Counts,
    example: &mut impl FnMut(u32, usize, Spot),
) {
    let all = values.values();
    let is_zero = |row: usize| values.is_valid(row) && all.get(row).is_some_and(|&number| value(number) == 0.0);
    mark(rows, counts, field.first + 1, is_zero, example);
    if field.kind != Kind::Number {
        return;
    }
    let buckets = field.first + FieldSlots::HEAD;
    for ((row, &cell), &number) in rows.cells.iter().enumerate().zip(all) {
        if values.is_valid(row) {
            counts.add(cell, buckets + usize::from(magnitude(value(number))));
        }
    }
}
