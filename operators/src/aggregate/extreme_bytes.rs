//! `min` and `max` of `String` and `FixedString`, compared as bytes.
//!
//! A `String` stands in a state as its length with a zero byte at the end (`Int32`, -1 for no value), the bytes and
//! that zero. Some versions of ClickHouse left the zero out; as in ClickHouse, a value without it is taken as it
//! is. A `FixedString` has a flag and its bytes, and finishes as zeros when there is no value.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, make_array};
use arrow_buffer::Buffer;
use arrow_data::ArrayData;
use arrow_schema::DataType;

use super::bytes::Bytes;
use super::rows::{Rows, argument};
use super::{Accumulator, Delta, Side};
use crate::error::Error;

/// The least or greatest strings of every slot.
pub(super) struct ExtremeBytes {
    side: Side,
    /// The length of a `FixedString`.
    fixed: Option<u16>,
    values: Vec<Option<Vec<u8>>>,
}

impl ExtremeBytes {
    /// Values of `String`, or of `FixedString` of a length.
    pub(super) fn new(side: Side, fixed: Option<u16>) -> Self {
        ExtremeBytes { side, fixed, values: Vec::new() }
    }

    fn offer(&mut self, slot: usize, value: &[u8]) {
        match &mut self.values[slot] {
            None => self.values[slot] = Some(value.to_vec()),
            Some(held) => {
                let wins = match self.side {
                    Side::Min => value < held.as_slice(),
                    Side::Max => value > held.as_slice(),
                };
                if wins {
                    held.clear();
                    held.extend_from_slice(value);
                }
            }
        }
    }

    /// The value in a state, if it has one.
    fn read<'a>(&self, state: &'a [u8]) -> Result<Option<&'a [u8]>, Error> {
        let mut bytes = Bytes::new(self.side.name(), state);
        let value = match self.fixed {
            Some(length) => match bytes.flag()? {
                true => Some(bytes.take(usize::from(length))?),
                false => None,
            },
            None => match usize::try_from(i32::from_le_bytes(bytes.array()?)) {
                Ok(size) => {
                    let value = bytes.take(size)?;
                    Some(value.strip_suffix(&[0]).unwrap_or(value))
                }
                Err(_) => None,
            },
        };
        bytes.end()?;
        Ok(value)
    }
}

impl Accumulator for ExtremeBytes {
    fn grow(&mut self, slots: usize) {
        if slots > self.values.len() {
            self.values.resize(slots, None);
        }
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<(), Error> {
        let data_type = match self.fixed {
            Some(length) => DataType::FixedSizeBinary(i32::from(length)),
            None => DataType::Binary,
        };
        let array = argument(arguments, &data_type, slots, filter)?;
        let rows = Rows::new(slots, array.nulls(), filter);
        if let Some(strings) = array.as_any().downcast_ref::<BinaryArray>() {
            rows.each(|row, slot| self.offer(slot, strings.value(row)));
        } else if let Some(strings) = array.as_any().downcast_ref::<FixedSizeBinaryArray>() {
            rows.each(|row, slot| self.offer(slot, strings.value(row)));
        }
        Ok(())
    }

    fn merge(&mut self, slot: u32, state: &[u8]) -> Result<(), Error> {
        if let Some(value) = self.read(state)? {
            self.offer(slot as usize, value);
        }
        Ok(())
    }

    fn write_state(&self, slot: u32, out: &mut Vec<u8>) {
        match (&self.values[slot as usize], self.fixed) {
            (None, None) => out.extend_from_slice(&(-1i32).to_le_bytes()),
            (None, Some(_)) => out.push(0),
            (Some(value), None) => {
                // A Binary array has less than 2 GiB in all, so the length with its zero fits.
                out.extend_from_slice(&(value.len() as u32 + 1).to_le_bytes());
                out.extend_from_slice(value);
                out.push(0);
            }
            (Some(value), Some(_)) => {
                out.push(1);
                out.extend_from_slice(value);
            }
        }
    }

    fn take_delta(&mut self, slot: u32, out: &mut Vec<u8>) -> Delta {
        self.write_state(slot, out);
        Delta::Whole
    }

    fn settle(&mut self, _: u32) {}

    fn finish(&self, slots: &[u32]) -> Result<ArrayRef, Error> {
        let values = slots.iter().map(|slot| self.values[*slot as usize].as_deref());
        Ok(match self.fixed {
            None => Arc::new(BinaryArray::from_iter_values(values.map(Option::unwrap_or_default))),
            Some(length) => {
                let zeros = vec![0; usize::from(length)];
                let bytes = values.flat_map(|value| value.unwrap_or(&zeros)).copied().collect::<Vec<u8>>();
                let data_type = DataType::FixedSizeBinary(i32::from(length));
                make_array(ArrayData::builder(data_type).len(slots.len()).add_buffer(Buffer::from_vec(bytes)).build()?)
            }
        })
    }

    fn clear(&mut self, slot: u32) {
        self.values[slot as usize] = None;
    }

    fn heap_bytes(&self, slot: u32) -> usize {
        self.values[slot as usize].as_ref().map_or(0, Vec::capacity)
    }
}
