//! `count`: a `VarUInt`, without any flag for nullable arguments, because it is itself what counts them.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, UInt64Array};

use super::bytes::{Bytes, put_varint};
use super::rows::{Rows, same_length};
use super::{Accumulator, Delta};
use crate::error::Error;

/// The counts of every slot.
#[derive(Default)]
pub(super) struct Count {
    counts: Vec<u64>,
}

impl Accumulator for Count {
    fn grow(&mut self, slots: usize) {
        if slots > self.counts.len() {
            self.counts.resize(slots, 0);
        }
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<(), Error> {
        let argument = arguments.first();
        same_length(argument.map_or(slots.len(), |argument| argument.len()), slots, filter)?;
        let rows = Rows::new(slots, argument.and_then(|argument| argument.nulls()), filter);
        rows.each(|_, slot| self.counts[slot] = self.counts[slot].wrapping_add(1));
        Ok(())
    }

    fn merge(&mut self, slot: u32, state: &[u8]) -> Result<(), Error> {
        let mut bytes = Bytes::new("count", state);
        let count = bytes.varint()?;
        bytes.end()?;
        let held = &mut self.counts[slot as usize];
        *held = held.wrapping_add(count);
        Ok(())
    }

    fn write_state(&self, slot: u32, out: &mut Vec<u8>) {
        put_varint(self.counts[slot as usize], out);
    }

    fn take_delta(&mut self, slot: u32, out: &mut Vec<u8>) -> Delta {
        self.write_state(slot, out);
        Delta::Whole
    }

    fn settle(&mut self, _: u32) {}

    fn finish(&self, slots: &[u32]) -> Result<ArrayRef, Error> {
        Ok(Arc::new(UInt64Array::from_iter_values(slots.iter().map(|slot| self.counts[*slot as usize]))))
    }

    fn clear(&mut self, slot: u32) {
        self.counts[slot as usize] = 0;
    }

    fn heap_bytes(&self, _: u32) -> usize {
        0
    }
}
