//! `min` and `max` of values of a fixed width: a flag whether there is a value, then the value in the type's own
//! width. NaN is taken only when there is nothing else. Without rows the value is the type's zero.

use arrow_array::{Array, ArrayRef, BooleanArray};
use arrow_schema::DataType;

use super::bytes::Bytes;
use super::lane::{Lane, Layout};
use super::rows::{Rows, argument};
use super::{Accumulator, Delta, Side};
use crate::error::Error;

/// The least or greatest values of every slot.
pub(super) struct Extreme<N: Lane> {
    side: Side,
    argument: DataType,
    layout: Layout,
    values: Vec<Option<N>>,
}

impl<N: Lane> Extreme<N> {
    /// Values of one Arrow type, which is the result's, too.
    pub(super) fn new(side: Side, argument: DataType, layout: Layout) -> Self {
        Extreme { side, argument, layout, values: Vec::new() }
    }
}

/// Puts `value` in the place of what is held if it wins.
#[inline(always)]
fn offer<N: Lane>(side: Side, held: &mut Option<N>, value: N) {
    let wins = match held {
        None => true,
        Some(held) if held.is_nan() => true,
        Some(held) => match side {
            Side::Min => value < *held,
            Side::Max => value > *held,
        },
    };
    if wins {
        *held = Some(value);
    }
}

impl<N: Lane> Accumulator for Extreme<N> {
    fn grow(&mut self, slots: usize) {
        if slots > self.values.len() {
            self.values.resize(slots, None);
        }
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<(), Error> {
        let array = argument(arguments, &self.argument, slots, filter)?;
        let values = N::values(array);
        let held = &mut self.values;
        let rows = Rows::new(slots, array.nulls(), filter);
        match self.side {
            Side::Min => rows.each(|row, slot| offer(Side::Min, &mut held[slot], values[row])),
            Side::Max => rows.each(|row, slot| offer(Side::Max, &mut held[slot], values[row])),
        }
        Ok(())
    }

    fn merge(&mut self, slot: u32, state: &[u8]) -> Result<(), Error> {
        let mut bytes = Bytes::new(self.side.name(), state);
        let value = if bytes.flag()? { Some(N::take(&mut bytes, self.layout)?) } else { None };
        bytes.end()?;
        if let Some(value) = value {
            offer(self.side, &mut self.values[slot as usize], value);
        }
        Ok(())
    }

    fn write_state(&self, slot: u32, out: &mut Vec<u8>) {
        let value = self.values[slot as usize];
        out.push(u8::from(value.is_some()));
        if let Some(value) = value {
            value.put(self.layout, out);
        }
    }

    fn take_delta(&mut self, slot: u32, out: &mut Vec<u8>) -> Delta {
        self.write_state(slot, out);
        Delta::Whole
    }

    fn settle(&mut self, _: u32) {}

    fn finish(&self, slots: &[u32]) -> Result<ArrayRef, Error> {
        N::array(slots.iter().map(|slot| self.values[*slot as usize].unwrap_or_default()).collect(), &self.argument)
    }

    fn clear(&mut self, slot: u32) {
        self.values[slot as usize] = None;
    }

    fn heap_bytes(&self, _: u32) -> usize {
        0
    }
}
