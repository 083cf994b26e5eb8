//! Which rows of a batch count, and where their values are.

use arrow_array::{Array, ArrayRef, BooleanArray};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use arrow_schema::DataType;

use crate::error::Error;

/// The rows of a batch that an accumulator takes, with their slots.
pub(super) enum Rows<'a> {
    /// Every row.
    All(&'a [u32]),
    /// The rows whose bit is set.
    Kept(&'a [u32], BooleanBuffer),
}

impl<'a> Rows<'a> {
    /// The rows that are not null in `nulls` and true in `filter`.
    pub(super) fn new(slots: &'a [u32], nulls: Option<&NullBuffer>, filter: Option<&BooleanArray>) -> Self {
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0).map(|nulls| nulls.inner().clone());
        let filter = filter.map(|filter| match filter.nulls() {
            Some(nulls) => filter.values() & nulls.inner(),
            None => filter.values().clone(),
        });
        match (nulls, filter) {
            (None, None) => Rows::All(slots),
            (Some(kept), None) | (None, Some(kept)) => Rows::Kept(slots, kept),
            (Some(nulls), Some(filter)) => Rows::Kept(slots, &nulls & &filter),
        }
    }

    /// Calls `take` with every row's index and slot.
    #[inline]
    pub(super) fn each(&self, mut take: impl FnMut(usize, usize)) {
        match self {
            Rows::All(slots) => {
                for (row, slot) in slots.iter().enumerate() {
                    take(row, *slot as usize);
                }
            }
            Rows::Kept(slots, kept) => {
                for row in kept.set_indices() {
                    take(row, slots[row] as usize);
                }
            }
        }
    }
}

/// The accumulator's argument, after its type, length and the filter's length have been compared with what
/// they must be.
pub(super) fn argument<'a>(
    arguments: &'a [ArrayRef],
    expected: &DataType,
    slots: &[u32],
    filter: Option<&BooleanArray>,
) -> Result<&'a ArrayRef, Error> {
    let [argument] = arguments else {
        return Err(mismatch(format!("{} arguments where one is expected", arguments.len())));
    };
    if argument.data_type() != expected {
        return Err(mismatch(format!("an argument of {} where {expected} is expected", argument.data_type())));
    }
    same_length(argument.len(), slots, filter)?;
    Ok(argument)
}

/// Refuses a batch whose columns do not have one length.
pub(super) fn same_length(rows: usize, slots: &[u32], filter: Option<&BooleanArray>) -> Result<(), Error> {
    if rows != slots.len() || filter.is_some_and(|filter| filter.len() != slots.len()) {
        return Err(mismatch(format!("{rows} rows and {} slots in one batch", slots.len())));
    }
    Ok(())
}

fn mismatch(detail: String) -> Error {
    Error::Arrow(arrow_schema::ArrowError::InvalidArgumentError(format!("aggregate: {detail}")))
}
