//! `quantileDD(relative_accuracy, level)`: a DDSketch of every group; values are read as `Float64`.
//!
//! An infinite value, or one that the sketch cannot hold, is an error, as it is in ClickHouse; NaN counts nothing.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, Float64Array};
use arrow_schema::DataType;

use super::bytes::Bytes;
use super::rows::{Rows, argument};
use super::sketch::{Mapping, Sketch};
use super::sum::{Summand, Total};
use super::{Accumulator, Delta};
use crate::error::Error;

const NAME: &str = "quantileDD";

/// The sketches of every slot.
pub(super) struct Quantile<N> {
    argument: DataType,
    mapping: Mapping,
    level: f64,
    sketches: Vec<Sketch>,
    lane: std::marker::PhantomData<N>,
}

impl<N: Summand> Quantile<N> {
    /// Sketches of arguments of one Arrow type, finished at a level.
    pub(super) fn new(argument: DataType, mapping: Mapping, level: f64) -> Self {
        Quantile { argument, mapping, level, sketches: Vec::new(), lane: std::marker::PhantomData }
    }
}

impl<N: Summand> Accumulator for Quantile<N> {
    fn grow(&mut self, slots: usize) {
        if slots > self.sketches.len() {
            self.sketches.resize_with(slots, Sketch::default);
        }
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<(), Error> {
        let array = argument(arguments, &self.argument, slots, filter)?;
        let values = N::values(array);
        let mut result = Ok(());
        Rows::new(slots, array.nulls(), filter).each(|row, slot| {
            if let Err(value) = self.sketches[slot].add(&self.mapping, values[row].widen().float()) {
                result = Err(value);
            }
        });
        result.map_err(|value| Error::Evaluation {
            expression: NAME.into(),
            detail: format!("the value {value} is out of the sketch's range; leave it out, for example by {NAME}If"),
        })
    }

    fn merge(&mut self, slot: u32, state: &[u8]) -> Result<(), Error> {
        let other = Sketch::read(Bytes::new(NAME, state), &self.mapping)?;
        match self.sketches[slot as usize].merge(&other) {
            true => Ok(()),
            false => Err(Bytes::new(NAME, state).wrong("its bins and those of the group span too much".into())),
        }
    }

    fn write_state(&self, slot: u32, out: &mut Vec<u8>) {
        self.sketches[slot as usize].write(&self.mapping, out);
    }

    fn take_delta(&mut self, slot: u32, out: &mut Vec<u8>) -> Delta {
        self.write_state(slot, out);
        Delta::Whole
    }

    fn settle(&mut self, _: u32) {}

    fn finish(&self, slots: &[u32]) -> Result<ArrayRef, Error> {
        let values = slots.iter().map(|slot| self.sketches[*slot as usize].quantile(&self.mapping, self.level));
        Ok(Arc::new(Float64Array::from_iter_values(values)))
    }

    fn clear(&mut self, slot: u32) {
        self.sketches[slot as usize].clear();
    }

    fn heap_bytes(&self, slot: u32) -> usize {
        self.sketches[slot as usize].heap_bytes()
    }
}
