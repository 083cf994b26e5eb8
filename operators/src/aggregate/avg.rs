//! `avg`: the sum in the type that `sum` has for the argument, then the number of rows as a `VarUInt`.
//!
//! The value is the sum as `Float64`, divided by ten to the power of a decimal's scale, divided by the number of
//! rows: in this order, because each step rounds. No rows give NaN.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, Float64Array};
use arrow_schema::DataType;

use super::bytes::{Bytes, put_varint};
use super::lane::Lane;
use super::rows::{Rows, argument};
use super::sum::{Summand, Total};
use super::{Accumulator, Delta};
use crate::error::Error;

/// The sums and numbers of rows of every slot.
pub(super) struct Avg<N: Summand> {
    argument: DataType,
    /// Ten to the power of a decimal's scale.
    multiplier: Option<f64>,
    fractions: Vec<(N::Sum, u64)>,
}

impl<N: Summand> Avg<N> {
    /// Means of arguments of one Arrow type, `scale` being that of a decimal.
    pub(super) fn new(argument: DataType, scale: Option<u8>) -> Self {
        // A power of ten is exact in a Float64 up to 22; beyond, text is read with correct rounding.
        let multiplier = scale.and_then(|scale| format!("1e{scale}").parse().ok());
        Avg { argument, multiplier, fractions: Vec::new() }
    }

    fn value(&self, slot: u32) -> f64 {
        let (sum, rows) = self.fractions[slot as usize];
        match self.multiplier {
            Some(multiplier) => sum.float() / multiplier / rows as f64,
            None => sum.float() / rows as f64,
        }
    }
}

impl<N: Summand> Accumulator for Avg<N> {
    fn grow(&mut self, slots: usize) {
        if slots > self.fractions.len() {
            self.fractions.resize(slots, (N::Sum::default(), 0));
        }
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<(), Error> {
        let array = argument(arguments, &self.argument, slots, filter)?;
        let values = N::values(array);
        let fractions = &mut self.fractions;
        Rows::new(slots, array.nulls(), filter).each(|row, slot| {
            let (sum, rows) = &mut fractions[slot];
            *sum = sum.add(values[row].widen());
            *rows = rows.wrapping_add(1);
        });
        Ok(())
    }

    fn merge(&mut self, slot: u32, state: &[u8]) -> Result<(), Error> {
        let mut bytes = Bytes::new("avg", state);
        let sum = N::Sum::take(&mut bytes, N::Sum::LAYOUT)?;
        let rows = bytes.varint()?;
        bytes.end()?;
        let held = &mut self.fractions[slot as usize];
        *held = (held.0.add(sum), held.1.wrapping_add(rows));
        Ok(())
    }

    fn write_state(&self, slot: u32, out: &mut Vec<u8>) {
        let (sum, rows) = self.fractions[slot as usize];
        sum.put(N::Sum::LAYOUT, out);
        put_varint(rows, out);
    }

    fn take_delta(&mut self, slot: u32, out: &mut Vec<u8>) -> Delta {
        self.write_state(slot, out);
        Delta::Whole
    }

    fn settle(&mut self, _: u32) {}

    fn finish(&self, slots: &[u32]) -> Result<ArrayRef, Error> {
        Ok(Arc::new(Float64Array::from_iter_values(slots.iter().map(|slot| self.value(*slot)))))
    }

    fn clear(&mut self, slot: u32) {
        self.fractions[slot as usize] = (N::Sum::default(), 0);
    }

    fn heap_bytes(&self, _: u32) -> usize {
        0
    }
}
