//! `quantileDD(relative_accuracy, level)`: a DDSketch of every group; values are read as `Float64`.
//!
//! An infinite value, or one that the sketch cannot hold, is an error, as it is in ClickHouse; NaN counts nothing. Events with
//! such values are refused before they get here ([`prove`](crate::prove)).

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ArrayRef, BooleanArray, Float64Array};
use arrow_schema::DataType;
use weir_schemas::types::ColumnType;

use super::bytes::Bytes;
use super::rows::{Rows, argument};
use super::sketch::{Mapping, Sketch};
use super::sum::{Summand, Total};
use super::{Accumulator, Delta};
use crate::error::Error;

const NAME: &str = "quantileDD";

/// The numbers that every sketch of an accuracy can hold together: ClickHouse fails over an infinite one, and over two in one
/// group that are too far apart. Which of those comes first depends on the order of reading, so that a fixed range
/// around 1 decides instead: with an accuracy of 0.001 it reaches from 1e-28 to 1e28 on either side of 0.
#[derive(Clone, Debug)]
pub(crate) struct SketchRange {
    mapping: Mapping,
}

impl SketchRange {
    /// For the arguments' type; `None` if it has no number beyond the range.
    pub(crate) fn new(relative_accuracy: f64, argument: &ColumnType) -> Option<SketchRange> {
        let mapping = Mapping::new(relative_accuracy)?;
        let always = match argument.without_null() {
            ColumnType::Float32 | ColumnType::Float64 => false,
            _ => mapping.holds(u64::MAX as f64),
        };
        (!always).then_some(SketchRange { mapping })
    }

    /// Whether all numbers that count are in the range.
    ///
    /// # Errors
    /// [`Error::Evaluation`] if one isn't.
    pub(crate) fn check(&self, numbers: &ArrayRef, filter: Option<&BooleanArray>) -> Result<(), Error> {
        let floats = arrow_cast::cast(numbers, &DataType::Float64)?;
        let floats = floats.as_primitive::<Float64Type>();
        let counts =
            |row: usize| floats.is_valid(row) && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        match floats.values().iter().enumerate().all(|(row, value)| self.mapping.holds(*value) || !counts(row)) {
            true => Ok(()),
            false => Err(out_of_range()),
        }
    }
}

fn out_of_range() -> Error {
    Error::Evaluation {
        expression: NAME.into(),
        detail: format!("the value is out of the sketch's range; leave it out, for example by {NAME}If"),
    }
}

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
        let mut fits = true;
        Rows::new(slots, array.nulls(), filter).each(|row, slot| {
            fits &= self.sketches[slot].add(&self.mapping, values[row].widen().float());
        });
        if fits { Ok(()) } else { Err(out_of_range()) }
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
