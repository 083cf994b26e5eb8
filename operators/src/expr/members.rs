//! The list of an IN, in the form in which rows are looked up without an allocation.

use std::fmt;

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Float64Type};
use arrow_array::{Array, BooleanArray};
use arrow_buffer::BooleanBuffer;
use arrow_schema::DataType;
use hashbrown::HashSet;
use weir_schemas::types::ColumnType;

use super::evaluate::Call;
use super::numbers::{convert_to, wide_integers};
use super::{Expr, Refusal, Scalar, compare, decimals, typing};
use crate::error::Error;

/// The members of an IN list, converted to the type of its left side. A literal that the type can't hold exactly is no
/// member, as in ClickHouse; neither is NULL.
#[derive(Clone, Debug, PartialEq)]
pub enum Members {
    /// Few strings or fixed bytes: compared one after the other.
    FewBytes(Vec<Box<[u8]>>),
    /// Many of them.
    ManyBytes(ByteSet),
    /// Integers, unscaled decimals, days or ticks; sorted.
    Integers(Vec<i128>),
    /// Bits of floats; sorted. ClickHouse compares the bits here: NaN is in (nan), -0 isn't in (0).
    Floats(Vec<u64>),
    /// `true` and `false`.
    Bools(Vec<bool>),
}

/// A set of strings. It prints them in order: what is printed of an expression tells whether another one decides the same, also
/// in another process.
#[derive(Clone, PartialEq)]
pub struct ByteSet(HashSet<Box<[u8]>>);

impl fmt::Debug for ByteSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut members: Vec<_> = self.0.iter().collect();
        members.sort_unstable();
        f.debug_set().entries(members).finish()
    }
}

/// Up to so many strings a list is searched one by one.
const FEW: usize = 8;

impl Members {
    /// The members for a left side of `column_type`; refuses literals of another kind at their place in the list.
    pub fn new(column_type: &ColumnType, literals: &[Expr]) -> Result<Members, Refusal> {
        let mut bytes = Vec::new();
        let mut integers = Vec::new();
        let mut floats = Vec::new();
        let mut bools = Vec::new();
        let base = column_type.without_null();
        for (at, literal) in literals.iter().enumerate() {
            let refused = || {
                Refusal::new(
                    format!("{literal} can't be looked for in a column of type {column_type}"),
                    format!("write literals of the type {base}"),
                )
                .at(at)
            };
            let Expr::Literal { value, .. } = literal else { return Err(refused()) };
            match (base, value) {
                (ColumnType::String | ColumnType::LowCardinality, Scalar::Bytes(value)) => {
                    bytes.push(Box::from(&**value))
                }
                (ColumnType::Bool, Scalar::Bool(value)) => bools.push(*value),
                (ColumnType::Int(_) | ColumnType::UInt(_), Scalar::Int(value)) => integers.push(i128::from(*value)),
                (ColumnType::Int(_) | ColumnType::UInt(_), Scalar::UInt(value)) => integers.push(i128::from(*value)),
                (ColumnType::Int(_) | ColumnType::UInt(_), Scalar::Float(value)) => {
                    if value.fract() == 0.0 && value.abs() < 1e19 {
                        integers.push(*value as i128);
                    }
                }
                (ColumnType::Float32 | ColumnType::Float64, Scalar::Int(_) | Scalar::UInt(_) | Scalar::Float(_)) => {
                    floats.extend(exact_float(value, *base == ColumnType::Float32).map(f64::to_bits));
                }
                (ColumnType::Decimal(precision, scale), Scalar::Int(_) | Scalar::UInt(_)) => {
                    let whole = if let Scalar::Int(value) = value { i128::from(*value) } else { unsigned(value) };
                    let unscaled = whole.checked_mul(decimals::power(*scale));
                    // ClickHouse refuses a literal with more digits than the type declares.
                    let declared = |value: &i128| value.unsigned_abs() < decimals::power(*precision).unsigned_abs();
                    integers.push(unscaled.filter(declared).ok_or_else(refused)?);
                }
                _ => match typing::literal_as(literal, base) {
                    Some(Expr::Literal { value: Scalar::Days(days), .. }) => integers.push(i128::from(days)),
                    Some(Expr::Literal { value: Scalar::Ticks(ticks), .. }) => integers.push(i128::from(ticks)),
                    Some(Expr::Literal { value: Scalar::Bytes(value), .. }) => bytes.push(Box::from(&*value)),
                    _ => return Err(refused()),
                },
            }
        }
        integers.sort_unstable();
        floats.sort_unstable();
        Ok(match base {
            ColumnType::Bool => Members::Bools(bools),
            ColumnType::Float32 | ColumnType::Float64 => Members::Floats(floats),
            ColumnType::String | ColumnType::LowCardinality | ColumnType::FixedString(_) | ColumnType::Uuid => {
                if bytes.len() <= FEW {
                    Members::FewBytes(bytes)
                } else {
                    Members::ManyBytes(ByteSet(bytes.into_iter().collect()))
                }
            }
            _ => Members::Integers(integers),
        })
    }

    /// Whether each row is a member.
    pub(super) fn contains(&self, call: &Call<'_>, negated: bool) -> Result<BooleanArray, Error> {
        let value = call.number(0)?;
        let array = &value.array;
        let test = |found: bool| found != negated;
        let rows = array.len();
        let values = match (self, array.data_type()) {
            (Members::FewBytes(_) | Members::ManyBytes(_), DataType::Binary) => {
                let strings = array.as_binary::<i32>();
                BooleanBuffer::collect_bool(rows, |row| test(self.has_bytes(strings.value(row))))
            }
            (Members::FewBytes(_) | Members::ManyBytes(_), DataType::FixedSizeBinary(_)) => {
                let strings = array.as_fixed_size_binary();
                BooleanBuffer::collect_bool(rows, |row| test(self.has_bytes(strings.value(row))))
            }
            (Members::Floats(list), _) => {
                let numbers = convert_to::<Float64Type>(array)?;
                BooleanBuffer::collect_bool(rows, |row| test(list.binary_search(&numbers.value(row).to_bits()).is_ok()))
            }
            (Members::Bools(list), _) => {
                let numbers = wide_integers(array)?;
                BooleanBuffer::collect_bool(rows, |row| test(list.contains(&(numbers[row] != 0))))
            }
            (Members::Integers(list), data_type) => {
                let numbers = match data_type {
                    DataType::Decimal128(..) => decimals::values(array)?.values().clone(),
                    DataType::Timestamp(..) => compare::ticks(array)?.iter().map(|&tick| i128::from(tick)).collect(),
                    DataType::Date32 => {
                        array.as_primitive::<Date32Type>().values().iter().map(|&day| i128::from(day)).collect()
                    }
                    _ => wide_integers(array)?,
                };
                BooleanBuffer::collect_bool(rows, |row| test(list.binary_search(&numbers[row]).is_ok()))
            }
            _ => return Err(call.unsupported()),
        };
        Ok(BooleanArray::new(values, array.nulls().cloned()))
    }

    fn has_bytes(&self, string: &[u8]) -> bool {
        match self {
            Members::FewBytes(list) => list.iter().any(|member| **member == *string),
            Members::ManyBytes(set) => set.0.contains(string),
            _ => false,
        }
    }
}

fn unsigned(value: &Scalar) -> i128 {
    if let Scalar::UInt(value) = value { i128::from(*value) } else { 0 }
}

/// The literal as a float, if the float type holds it exactly.
fn exact_float(value: &Scalar, narrow: bool) -> Option<f64> {
    let (float, exact) = match value {
        Scalar::Int(value) => (*value as f64, (*value as f64) as i128 == i128::from(*value)),
        Scalar::UInt(value) => (*value as f64, (*value as f64) as i128 == i128::from(*value)),
        Scalar::Float(value) => (*value, true),
        _ => return None,
    };
    let held = !narrow || float.is_nan() || f64::from(float as f32) == float;
    (exact && held).then_some(float)
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = match self {
            Members::FewBytes(list) => {
                for (at, member) in list.iter().enumerate() {
                    let comma = if at > 0 { ", " } else { "" };
                    write!(f, "{comma}'{}'", String::from_utf8_lossy(member).escape_debug())?;
                }
                return Ok(());
            }
            Members::ManyBytes(set) => set.0.len(),
            Members::Integers(list) => list.len(),
            Members::Floats(list) => list.len(),
            Members::Bools(list) => list.len(),
        };
        write!(f, "{count} values")
    }
}
