//! `sum`: the sum in the widest type of its kind, wrapping as ClickHouse's does.
//!
//! Integers give `Int64` or `UInt64`, floats `Float64` (the order of the rows shows in its last bits, in
//! ClickHouse as well), decimals of up to 38 digits a decimal of 38, longer ones of 76, at the same scale.

use arrow_array::{Array, ArrayRef, BooleanArray};
use arrow_buffer::i256;
use arrow_schema::DataType;

use super::bytes::Bytes;
use super::lane::{Lane, Layout, Truth};
use super::rows::{Rows, argument};
use super::{Accumulator, Delta};
use crate::error::Error;

/// A number to add up, and the type of its sums.
pub(super) trait Summand: Lane {
    /// The type of the sum.
    type Sum: Total;

    /// The number in the sum's type.
    fn widen(self) -> Self::Sum;
}

/// A sum.
pub(super) trait Total: Lane {
    /// Adds without a check, as ClickHouse does.
    fn add(self, other: Self) -> Self;

    /// The nearest `Float64`, before a decimal's scale is applied.
    fn float(self) -> f64;

    /// All bytes of the sum.
    const LAYOUT: Layout = Layout { width: size_of::<Self>(), signed: true };
}

macro_rules! total {
    ($native:ty, $add:expr, $float:expr) => {
        impl Total for $native {
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                $add(self, other)
            }

            fn float(self) -> f64 {
                $float(self)
            }
        }
    };
}

total!(i64, i64::wrapping_add, |value| value as f64);
total!(u64, u64::wrapping_add, |value| value as f64);
total!(f64, |a: f64, b: f64| a + b, |value| value);
total!(i128, i128::wrapping_add, |value| value as f64);
total!(i256, i256::wrapping_add, |value: i256| { num_traits::ToPrimitive::to_f64(&value).unwrap_or(f64::NAN) });

macro_rules! summand {
    ($($native:ty => $sum:ty),*) => {
        $(impl Summand for $native {
            type Sum = $sum;

            #[inline(always)]
            fn widen(self) -> $sum {
                self.into()
            }
        })*
    };
}

summand!(i8 => i64, i16 => i64, i32 => i64, i64 => i64, u8 => u64, u16 => u64, u32 => u64, u64 => u64);
summand!(f32 => f64, f64 => f64, i128 => i128, i256 => i256);

impl Summand for Truth {
    type Sum = u64;

    #[inline(always)]
    fn widen(self) -> u64 {
        u64::from(self.0)
    }
}

/// The sums of every slot.
pub(super) struct Sum<N: Summand> {
    argument: DataType,
    result: DataType,
    sums: Vec<N::Sum>,
}

impl<N: Summand> Sum<N> {
    /// Sums of arguments of one Arrow type, finished in another.
    pub(super) fn new(argument: DataType, result: DataType) -> Self {
        Sum { argument, result, sums: Vec::new() }
    }
}

impl<N: Summand> Accumulator for Sum<N> {
    fn grow(&mut self, slots: usize) {
        if slots > self.sums.len() {
            self.sums.resize(slots, N::Sum::default());
        }
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<(), Error> {
        let array = argument(arguments, &self.argument, slots, filter)?;
        let values = N::values(array);
        let sums = &mut self.sums;
        Rows::new(slots, array.nulls(), filter).each(|row, slot| sums[slot] = sums[slot].add(values[row].widen()));
        Ok(())
    }

    fn merge(&mut self, slot: u32, state: &[u8]) -> Result<(), Error> {
        let mut bytes = Bytes::new("sum", state);
        let sum = N::Sum::take(&mut bytes, N::Sum::LAYOUT)?;
        bytes.end()?;
        let held = &mut self.sums[slot as usize];
        *held = held.add(sum);
        Ok(())
    }

    fn write_state(&self, slot: u32, out: &mut Vec<u8>) {
        self.sums[slot as usize].put(N::Sum::LAYOUT, out);
    }

    fn take_delta(&mut self, slot: u32, out: &mut Vec<u8>) -> Delta {
        self.write_state(slot, out);
        Delta::Whole
    }

    fn settle(&mut self, _: u32) {}

    fn finish(&self, slots: &[u32]) -> Result<ArrayRef, Error> {
        N::Sum::array(slots.iter().map(|slot| self.sums[*slot as usize]).collect(), &self.result)
    }

    fn clear(&mut self, slot: u32) {
        self.sums[slot as usize] = N::Sum::default();
    }

    fn heap_bytes(&self, _: u32) -> usize {
        0
    }
}
