//! `uniqExact` of one argument: the number of elements as a `VarUInt`, then the elements.
//!
//! Numbers, dates, `DateTime` and `UUID` are their own elements, in their own width. Strings, decimals and
//! `DateTime64` are represented by the 128 bits of ClickHouse's SipHash of their bytes.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, UInt64Array};
use weir_schemas::types::ColumnType;

use super::bytes::{Bytes, put_varint};
use super::distinct::{Distinct, Element, put_sorted, take_elements};
use super::hash;
use super::lane::{Lane, Uuid, bits, each_bytes};
use super::rows::{Rows, argument};
use super::{Accumulator, Delta};
use crate::error::Error;

const NAME: &str = "uniqExact";

/// Sets of up to this many elements are stored whole: that is smaller than what merging them costs.
const WHOLE_MAX: usize = 16;

/// The sets of every slot.
pub(super) struct Unique<E> {
    argument: ColumnType,
    sets: Vec<Distinct<E>>,
}

impl<E: Element> Unique<E> {
    /// Sets of elements of a type, whose width is that of `E`.
    pub(super) fn new(argument: ColumnType) -> Self {
        Unique { argument, sets: Vec::new() }
    }
}

/// How many rows wait for memory at once.
const ROWS_AHEAD: usize = 16;

/// Rows whose sets have been approached but not yet changed.
struct Ahead<'a, E> {
    sets: &'a mut [Distinct<E>],
    rows: [(usize, E); ROWS_AHEAD],
    waiting: usize,
}

impl<'a, E: Element> Ahead<'a, E> {
    fn new(sets: &'a mut [Distinct<E>]) -> Self {
        Ahead { sets, rows: [(0, E::default()); ROWS_AHEAD], waiting: 0 }
    }

    #[inline]
    fn insert(&mut self, slot: usize, element: E) {
        self.rows[self.waiting] = (slot, element);
        self.waiting += 1;
        if self.waiting == ROWS_AHEAD {
            self.finish();
        }
    }

    fn finish(&mut self) {
        let rows = &self.rows[..self.waiting];
        for (slot, element) in rows {
            self.sets[*slot].approach(*element);
        }
        for (slot, element) in rows {
            self.sets[*slot].insert(*element);
        }
        self.waiting = 0;
    }
}

impl<E: Element> Accumulator for Unique<E> {
    fn grow(&mut self, slots: usize) {
        if slots > self.sets.len() {
            self.sets.resize_with(slots, Distinct::default);
        }
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<(), Error> {
        let array = argument(arguments, &self.argument.arrow(), slots, filter)?;
        let rows = Rows::new(slots, array.nulls(), filter);
        let mut ahead = Ahead::new(&mut self.sets);
        let mut insert = |slot: usize, element: u128| ahead.insert(slot, E::truncated(element));
        if let Some(bits) = bits(array, &self.argument) {
            rows.each(|row, slot| insert(slot, u128::from(bits[row])));
        } else if self.argument == ColumnType::Uuid {
            let values = Uuid::values(array);
            rows.each(|row, slot| insert(slot, values[row].0));
        } else {
            each_bytes(array, &self.argument, &rows, |slot, bytes| insert(slot, hash::sip128(bytes)));
        }
        ahead.finish();
        Ok(())
    }

    fn merge(&mut self, slot: u32, state: &[u8]) -> Result<(), Error> {
        let mut bytes = Bytes::new(NAME, state);
        let count = bytes.varint()?;
        let elements = take_elements(bytes, count)?;
        let set = &mut self.sets[slot as usize];
        for element in elements {
            set.insert(element?);
        }
        Ok(())
    }

    fn write_state(&self, slot: u32, out: &mut Vec<u8>) {
        let set = &self.sets[slot as usize];
        put_varint(set.len() as u64, out);
        put_sorted(set.elements().collect(), out);
    }

    fn take_delta(&mut self, slot: u32, out: &mut Vec<u8>) -> Delta {
        let set = &mut self.sets[slot as usize];
        let whole = set.settled() == 0 || set.len() <= WHOLE_MAX;
        let elements = if whole { set.elements().collect() } else { set.added() };
        put_varint(elements.len() as u64, out);
        put_sorted(elements, out);
        set.settle();
        if whole { Delta::Whole } else { Delta::Added }
    }

    fn settle(&mut self, slot: u32) {
        self.sets[slot as usize].settle();
    }

    fn finish(&self, slots: &[u32]) -> Result<ArrayRef, Error> {
        let sizes = slots.iter().map(|slot| self.sets[*slot as usize].len() as u64);
        Ok(Arc::new(UInt64Array::from_iter_values(sizes)))
    }

    fn clear(&mut self, slot: u32) {
        self.sets[slot as usize].clear();
    }

    fn heap_bytes(&self, slot: u32) -> usize {
        self.sets[slot as usize].heap_bytes()
    }
}
