//! The adapter for nullable arguments, as ClickHouse wraps its functions: a flag whether any row was not null, then
//! the state of the function itself, which skips nulls.
//!
//! `uniqExact` does not become nullable, since ClickHouse gives 0 for nulls only; the flag is in its states all the
//! same, and always 1.

use arrow_array::{Array, ArrayRef, BooleanArray, make_array};
use arrow_buffer::NullBuffer;

use super::bytes::Bytes;
use super::rows::{Rows, same_length};
use super::{Accumulator, Delta};
use crate::error::Error;

/// The function inside, and which slots have a value.
pub(super) struct Nullable {
    function: &'static str,
    inner: Box<dyn Accumulator>,
    seen: Vec<bool>,
    /// No rows finish as NULL.
    finishes_as_null: bool,
    /// The flag is 1 in every state.
    always_flagged: bool,
}

impl Nullable {
    /// Wraps `inner`.
    pub(super) fn new(
        function: &'static str,
        inner: Box<dyn Accumulator>,
        finishes_as_null: bool,
        always_flagged: bool,
    ) -> Self {
        Nullable { function, inner, seen: Vec::new(), finishes_as_null, always_flagged }
    }
}

impl Accumulator for Nullable {
    fn grow(&mut self, slots: usize) {
        if slots > self.seen.len() {
            self.seen.resize(slots, self.always_flagged);
        }
        self.inner.grow(slots);
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<(), Error> {
        let argument = arguments.first();
        same_length(argument.map_or(slots.len(), |argument| argument.len()), slots, filter)?;
        self.inner.update(slots, arguments, filter)?;
        if !self.always_flagged {
            let rows = Rows::new(slots, argument.and_then(|argument| argument.nulls()), filter);
            rows.each(|_, slot| self.seen[slot] = true);
        }
        Ok(())
    }

    fn merge(&mut self, slot: u32, state: &[u8]) -> Result<(), Error> {
        let mut bytes = Bytes::new(self.function, state);
        if bytes.flag()? {
            self.inner.merge(slot, bytes.take(bytes.left())?)?;
            self.seen[slot as usize] = true;
        }
        bytes.end()
    }

    fn write_state(&self, slot: u32, out: &mut Vec<u8>) {
        let seen = self.seen[slot as usize];
        out.push(u8::from(seen));
        if seen {
            self.inner.write_state(slot, out);
        }
    }

    fn take_delta(&mut self, slot: u32, out: &mut Vec<u8>) -> Delta {
        let seen = self.seen[slot as usize];
        out.push(u8::from(seen));
        if seen { self.inner.take_delta(slot, out) } else { Delta::Whole }
    }

    fn settle(&mut self, slot: u32) {
        self.inner.settle(slot);
    }

    fn finish(&self, slots: &[u32]) -> Result<ArrayRef, Error> {
        let values = self.inner.finish(slots)?;
        if !self.finishes_as_null {
            return Ok(values);
        }
        let seen = NullBuffer::from_iter(slots.iter().map(|slot| self.seen[*slot as usize]));
        Ok(make_array(values.to_data().into_builder().nulls(Some(seen)).build()?))
    }

    fn clear(&mut self, slot: u32) {
        self.seen[slot as usize] = self.always_flagged;
        self.inner.clear(slot);
    }

    fn heap_bytes(&self, slot: u32) -> usize {
        self.inner.heap_bytes(slot)
    }
}
