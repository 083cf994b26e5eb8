//! From a call to its accumulator.

use weir_schemas::types::{ColumnType, Width};

use super::avg::Avg;
use super::combined::Combined;
use super::count::Count;
use super::extreme::Extreme;
use super::extreme_bytes::ExtremeBytes;
use super::lane::{Truth, Uuid, by_lane, by_number, layout};
use super::nullable::Nullable;
use super::quantile::Quantile;
use super::sketch::Mapping;
use super::sum::Sum;
use super::unique::Unique;
use super::{Accumulator, Call, Function, Side};
use crate::error::Error;
use arrow_buffer::i256;

/// The accumulator of a call.
///
/// # Errors
/// If the function has no such argument here; the message names both. What ClickHouse itself refuses is refused,
/// and so are `min` and `max` of arrays and maps, `avg` and `quantileDD` of dates and times, and sets of arrays and
/// maps.
pub fn accumulator(call: &Call) -> Result<Box<dyn Accumulator>, Error> {
    if call.function == Function::Count {
        return match call.arguments.len() {
            0 | 1 => Ok(Box::new(Count::default())),
            _ => Err(refused(call, "takes at most one argument")),
        };
    }
    let [argument] = call.arguments.as_slice() else {
        return Err(refused(call, "takes one argument"));
    };
    let nullable = argument.column_type().is_nullable();
    let inner = plain(call, argument.column_type().without_null())?;
    if !nullable && !call.result.is_nullable() {
        return Ok(inner);
    }
    let always_flagged = call.function == Function::UniqExact;
    Ok(Box::new(Nullable::new(call.function.name(), inner, call.result.is_nullable(), always_flagged)))
}

/// The accumulator for an argument that is not nullable.
fn plain(call: &Call, argument: &ColumnType) -> Result<Box<dyn Accumulator>, Error> {
    let inner = match &call.function {
        Function::Count => Some(Box::new(Count::default()) as Box<dyn Accumulator>),
        Function::Sum => sum(argument, call.result.without_null()),
        Function::Avg => avg(argument),
        Function::Min => extreme(Side::Min, argument),
        Function::Max => extreme(Side::Max, argument),
        Function::UniqExact => unique(argument),
        Function::UniqCombined64 => hashable(argument).then(|| Box::new(Combined::new(argument.clone())) as _),
        Function::QuantileDd { relative_accuracy, level } => {
            let mapping = Mapping::new(*relative_accuracy)
                .ok_or_else(|| refused(call, "has a relative accuracy between 0 and 1, both excluded"))?;
            if !(0.0..=1.0).contains(level) {
                return Err(refused(call, "has a level from 0 to 1"));
            }
            quantile(argument, mapping, *level)
        }
    };
    inner.ok_or_else(|| refused(call, &format!("has no argument of type {argument} here")))
}

fn refused(call: &Call, detail: &str) -> Error {
    Error::Evaluation {
        expression: format!("{}({})", call.function.name(), call.signature),
        detail: format!("the function {detail}"),
    }
}

fn sum(argument: &ColumnType, result: &ColumnType) -> Option<Box<dyn Accumulator>> {
    macro_rules! build {
        ($native:ty) => {
            Some(Box::new(Sum::<$native>::new(argument.arrow(), result.arrow())))
        };
    }
    by_number!(argument, build, None)
}

fn avg(argument: &ColumnType) -> Option<Box<dyn Accumulator>> {
    let scale = if let ColumnType::Decimal(_, scale) = argument { Some(*scale) } else { None };
    macro_rules! build {
        ($native:ty) => {
            Some(Box::new(Avg::<$native>::new(argument.arrow(), scale)))
        };
    }
    by_number!(argument, build, None)
}

fn quantile(argument: &ColumnType, mapping: Mapping, level: f64) -> Option<Box<dyn Accumulator>> {
    macro_rules! build {
        ($native:ty) => {
            Some(Box::new(Quantile::<$native>::new(argument.arrow(), mapping, level)))
        };
    }
    // ClickHouse has no sketch of decimals.
    if matches!(argument, ColumnType::Decimal(..)) {
        return None;
    }
    by_number!(argument, build, None)
}

fn extreme(side: Side, argument: &ColumnType) -> Option<Box<dyn Accumulator>> {
    match argument {
        ColumnType::String | ColumnType::LowCardinality => {
            return Some(Box::new(ExtremeBytes::new(side, None)));
        }
        ColumnType::FixedString(length) => {
            return Some(Box::new(ExtremeBytes::new(side, Some(*length))));
        }
        _ => {}
    }
    let layout = layout(argument)?;
    macro_rules! build {
        ($lane:ty) => {
            Some(Box::new(Extreme::<$lane>::new(side, argument.arrow(), layout)))
        };
    }
    by_lane!(argument, build, None)
}

/// Whether a set can hold values of the type.
fn hashable(argument: &ColumnType) -> bool {
    layout(argument).is_some()
        || matches!(argument, ColumnType::String | ColumnType::LowCardinality | ColumnType::FixedString(_))
}

fn unique(argument: &ColumnType) -> Option<Box<dyn Accumulator>> {
    if !hashable(argument) {
        return None;
    }
    let of = argument.clone();
    // What is hashed has 128 bits whatever its own width is.
    let hashed = matches!(argument, ColumnType::Decimal(..) | ColumnType::DateTime64(..));
    Some(match layout(argument).filter(|_| !hashed).map(|layout| layout.width) {
        Some(1) => Box::new(Unique::<u8>::new(of)),
        Some(2) => Box::new(Unique::<u16>::new(of)),
        Some(4) => Box::new(Unique::<u32>::new(of)),
        Some(8) => Box::new(Unique::<u64>::new(of)),
        _ => Box::new(Unique::<u128>::new(of)),
    })
}

/// Merges states of one call: what is stored, if anything is, and what was added to it since.
///
/// # Errors
/// If any of the bytes are wrong.
pub fn merge_states(call: &Call, base: Option<&[u8]>, deltas: &[&[u8]]) -> Result<Vec<u8>, Error> {
    let mut merged = accumulator(call)?;
    merged.grow(1);
    for state in base.iter().chain(deltas) {
        merged.merge(0, state)?;
    }
    let mut out = Vec::new();
    merged.write_state(0, &mut out);
    Ok(out)
}
