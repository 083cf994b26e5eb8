//! The codes of a batch's records, of which [`profile`](crate::profile) says what they mean.
//!
//! Invariant: between two records there are `bytes` of codes for each row, zeros where nothing was said.

use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeBinaryArray};
use arrow_buffer::Buffer;
use arrow_schema::ArrowError;

use super::reader::{Layout, ReaderSchema, Slot};
use crate::profile::{self, Codes, DEFAULT, Kind, NULL};
use crate::types::ColumnType;

/// What a buffer's values say to the codes of their record. It goes along with every value, so it is no larger than what
/// a register holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Look {
    at: u32,
    what: What,
    /// Digits behind a decimal's point.
    scale: u8,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Opaque,
    Text,
    Number,
    /// Whether a list has items; its null is a list without.
    List,
    /// A key of a map.
    Key,
}

/// What each buffer of a reader schema says.
#[derive(Clone, Debug)]
pub(super) struct Looks {
    pub(super) of: Box<[Option<Look>]>,
    pub(super) bytes: usize,
}

impl Looks {
    pub(super) fn new(codes: &Codes, reader: &ReaderSchema) -> Looks {
        let ReaderSchema { columns, layouts, slots, .. } = reader;
        let mut of = vec![None; slots.len()];
        let scale =
            |slot: Slot| match columns.get(slots[slot.0 as usize].column).map(|of| of.column_type.without_null()) {
                Some(ColumnType::Decimal(_, scale)) => *scale,
                _ => 0,
            };
        let mut set = |slot: Slot, at: usize, what| {
            of[slot.0 as usize] = Some(Look { at: at as u32, what, scale: scale(slot) });
        };
        for (column, layout) in layouts.iter().enumerate() {
            let Some((kind, at)) = codes.place(column) else { continue };
            match layout {
                Layout::Leaf(slot) => {
                    let what = match kind {
                        Kind::Text => What::Text,
                        Kind::Number => What::Number,
                        Kind::Opaque | Kind::Map => What::Opaque,
                    };
                    set(*slot, at, what);
                }
                Layout::List { offsets, .. } => set(*offsets, at, What::List),
                Layout::Map { offsets, keys, .. } => {
                    set(*offsets, at, What::List);
                    if kind == Kind::Map {
                        set(*keys, at + 1, What::Key);
                    }
                }
            }
        }
        Looks { of: of.into(), bytes: codes.bytes() }
    }
}

/// The codes.
pub(super) struct CodeRows {
    bytes: Vec<u8>,
    /// Of one record.
    width: usize,
    /// Where those of the record at hand begin.
    from: usize,
}

impl CodeRows {
    pub(super) fn new(width: usize, rows: usize) -> CodeRows {
        CodeRows { bytes: Vec::with_capacity(width * rows), width, from: 0 }
    }

    /// Makes room for the next record.
    #[inline]
    pub(super) fn begin(&mut self) {
        self.from = self.bytes.len();
        self.bytes.resize(self.from + self.width, 0);
    }

    pub(super) fn cut(&mut self, rows: usize) {
        self.bytes.truncate(rows * self.width);
    }

    #[inline]
    fn set(&mut self, look: Look, code: u8) {
        self.bytes[self.from + look.at as usize] = code;
    }

    #[inline]
    pub(super) fn bytes(&mut self, look: Look, value: &[u8]) {
        match look.what {
            What::Text => self.set(look, profile::text(value)),
            What::Key => {
                let bucket = usize::from(profile::bucket_of(value));
                self.bytes[self.from + look.at as usize + bucket / 8] |= 1 << (bucket % 8);
            }
            _ if value.is_empty() => self.set(look, DEFAULT),
            _ => {}
        }
    }

    #[inline]
    pub(super) fn number(&mut self, look: Look, value: f64) {
        self.of_number(look, profile::number(value));
    }

    #[inline]
    pub(super) fn integer(&mut self, look: Look, value: i64) {
        self.of_number(look, profile::integer(value));
    }

    /// A decimal by its digits as one number.
    pub(super) fn decimal(&mut self, look: Look, digits: f64) {
        self.number(look, digits / 10_f64.powi(i32::from(look.scale)));
    }

    /// What is kept of a number's code: nothing but the default where numbers aren't looked at for what they are.
    #[inline]
    fn of_number(&mut self, look: Look, code: u8) {
        self.set(look, if look.what == What::Number { code } else { code & DEFAULT });
    }

    #[inline]
    pub(super) fn list(&mut self, look: Look, items: usize) {
        if items == 0 {
            self.set(look, DEFAULT);
        }
    }

    pub(super) fn null(&mut self, look: Look) {
        self.set(look, if look.what == What::List { DEFAULT } else { NULL });
    }

    /// The codes as a column.
    pub(super) fn finish(self) -> Result<ArrayRef, ArrowError> {
        let width = i32::try_from(self.width).unwrap_or(i32::MAX);
        Ok(Arc::new(FixedSizeBinaryArray::try_new(width, Buffer::from_vec(self.bytes), None)?))
    }
}
