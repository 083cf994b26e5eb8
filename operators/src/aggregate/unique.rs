//! `uniqExact` of one argument: the number of elements as a `VarUInt`, then the elements.
//!
//! Numbers, dates, `DateTime` and `UUID` are their own elements, in their own width. Strings, decimals and
//! `DateTime64` are represented by the 128 bits of ClickHouse's SipHash of their bytes.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, UInt64Array};
use weir_schemas::types::ColumnType;

use super::bytes::{Bytes, put_varint};
use super::distinct::{Distinct, Element, Full, put_sorted, take_elements};
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

fn too_many(_: Full) -> Error {
    Error::AggregateState {
        function: NAME.into(),
        detail: format!("more than {} distinct values in a group", u32::MAX),
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
        let mut result = Ok(());
        let sets = &mut self.sets;
        let mut insert = |slot: usize, element: u128| {
            if let Err(full) = sets[slot].insert(E::truncated(element)) {
                result = Err(full);
            }
        };
        if let Some(bits) = bits(array, &self.argument) {
            rows.each(|row, slot| insert(slot, u128::from(bits[row])));
        } else if self.argument == ColumnType::Uuid {
            let values = Uuid::values(array);
            rows.each(|row, slot| insert(slot, values[row].0));
        } else {
            each_bytes(array, &self.argument, &rows, |slot, bytes| insert(slot, hash::sip128(bytes)));
        }
        result.map_err(too_many)
    }

    fn merge(&mut self, slot: u32, state: &[u8]) -> Result<(), Error> {
        let mut bytes = Bytes::new(NAME, state);
        let count = bytes.varint()?;
        let elements = take_elements(bytes, count)?;
        let set = &mut self.sets[slot as usize];
        for element in elements {
            set.insert(element?).map_err(too_many)?;
        }
        Ok(())
    }

    fn write_state(&self, slot: u32, out: &mut Vec<u8>) {
        let set = &self.sets[slot as usize];
        put_varint(set.len() as u64, out);
        put_sorted(set.elements(), out);
    }

    fn take_delta(&mut self, slot: u32, out: &mut Vec<u8>) -> Delta {
        let set = &mut self.sets[slot as usize];
        let whole = set.settled() == 0 || set.len() <= WHOLE_MAX;
        let elements = if whole { set.elements() } else { set.added() };
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
