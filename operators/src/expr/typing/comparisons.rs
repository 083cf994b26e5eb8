//! What compares with what, and how a literal takes the type of the other side.

use std::sync::Arc;

use weir_schemas::types::ColumnType;

use super::arithmetic::number;
use super::{Refusal, base, no_zone};
use crate::expr::decimals::{fits, power, widest};
use crate::expr::{Comparison, Expr, Scalar, parse};

/// Checks that two types compare, and brings literals to the other side's type.
pub(super) fn comparable(comparison: Comparison, bases: &[ColumnType], arguments: &mut [Expr]) -> Result<(), Refusal> {
    for (at, other) in [(0, 1), (1, 0)] {
        if let Expr::Literal { .. } = arguments[at]
            && needs_adapting(&bases[at], &bases[other])
        {
            match literal_as(&arguments[at], &bases[other]) {
                Some(literal) => arguments[at] = literal,
                None => return Err(unadaptable(&arguments[at], &bases[other]).at(at)),
            }
        }
    }
    let (a, b) = (base(arguments[0].column_type()), base(arguments[1].column_type()));
    let equality = matches!(comparison, Comparison::Equal | Comparison::NotEqual);
    let known = match (&a, &b) {
        (ColumnType::String, ColumnType::String) => true,
        (ColumnType::Date, ColumnType::Date) | (ColumnType::Date32, ColumnType::Date32) => true,
        (
            ColumnType::DateTime(_) | ColumnType::DateTime64(..),
            ColumnType::DateTime(_) | ColumnType::DateTime64(..),
        ) => true,
        (ColumnType::Uuid, ColumnType::Uuid) => equality,
        (ColumnType::FixedString(n), ColumnType::FixedString(m)) => n == m,
        (ColumnType::Decimal(..), ColumnType::Decimal(..)) => true,
        (ColumnType::Decimal(..), other) | (other, ColumnType::Decimal(..)) => {
            number(other).is_some_and(|number| number.float)
        }
        (a, b) => number(a).is_some() && number(b).is_some(),
    };
    if known {
        return Ok(());
    }
    let remedy = match (&a, &b) {
        (ColumnType::Decimal(..), _) | (_, ColumnType::Decimal(..)) => {
            "convert the other side with toDecimal64(x, scale)"
        }
        (ColumnType::String, _) | (_, ColumnType::String) => {
            "convert the other side with toString, or the string to its type"
        }
        _ => "convert one side to the other's type",
    };
    Err(Refusal::new(format!("{a} and {b} don't compare with {}", comparison.name()), remedy))
}

fn needs_adapting(literal: &ColumnType, other: &ColumnType) -> bool {
    match (literal, other) {
        (ColumnType::String, ColumnType::String) => false,
        (ColumnType::String, _) => true,
        (ColumnType::Int(_) | ColumnType::UInt(_), ColumnType::Decimal(..)) => true,
        _ => false,
    }
}

fn unadaptable(literal: &Expr, other: &ColumnType) -> Refusal {
    let remedy = match other {
        ColumnType::DateTime(None) | ColumnType::DateTime64(_, None) => return no_zone(other),
        ColumnType::Date | ColumnType::Date32 => "write it as '2026-05-31'",
        ColumnType::DateTime(_) => "write it as '2026-05-31 12:30:00', a time that its zone shows once",
        ColumnType::DateTime64(..) => "write it as '2026-05-31 12:30:00.123', with no more places than the type has",
        ColumnType::Uuid => "write it as '00000000-0000-0000-0000-000000000000'",
        ColumnType::FixedString(_) => "write a string that isn't longer than the column",
        ColumnType::Bool => "write true or false",
        other if number(other).is_some() || matches!(other, ColumnType::Decimal(..)) => "write a number without quotes",
        _ => "convert the other side with toString",
    };
    Refusal::new(format!("{literal} isn't a value of type {other}"), remedy)
}

/// A literal as a value of a type, as ClickHouse converts it in a comparison; `None` where it doesn't, or only by rules
/// that aren't followed here.
pub(in crate::expr) fn literal_as(literal: &Expr, to: &ColumnType) -> Option<Expr> {
    let Expr::Literal { value, .. } = literal else { return None };
    let text = |bytes: &Arc<[u8]>| std::str::from_utf8(bytes).ok().map(str::to_owned);
    let value = match (value, to) {
        (Scalar::Bytes(bytes), ColumnType::Date) => {
            Scalar::Days(parse::parse_date(&text(bytes)?).filter(|days| (0..=65_535).contains(days))?)
        }
        (Scalar::Bytes(bytes), ColumnType::Date32) => {
            // 1900 to 2299.
            Scalar::Days(parse::parse_date(&text(bytes)?).filter(|days| (-25_567..=120_529).contains(days))?)
        }
        (Scalar::Bytes(bytes), ColumnType::DateTime(Some(zone))) => {
            Scalar::Ticks(parse::parse_ticks(&text(bytes)?, 0, zone).filter(|tick| u32::try_from(*tick).is_ok())?)
        }
        (Scalar::Bytes(bytes), ColumnType::DateTime64(scale @ (0 | 3 | 6 | 9), Some(zone))) => {
            Scalar::Ticks(parse::parse_ticks(&text(bytes)?, *scale, zone)?)
        }
        (Scalar::Bytes(bytes), ColumnType::Uuid) => Scalar::Bytes(uuid(bytes)?),
        (Scalar::Bytes(bytes), ColumnType::FixedString(size)) => {
            let mut padded = bytes.to_vec();
            if padded.len() > usize::from(*size) {
                return None;
            }
            padded.resize(usize::from(*size), 0);
            Scalar::Bytes(padded.into())
        }
        (Scalar::Int(_) | Scalar::UInt(_), ColumnType::Decimal(precision, scale)) => {
            let whole = match value {
                Scalar::Int(value) => i128::from(*value),
                Scalar::UInt(value) => i128::from(*value),
                _ => return None,
            };
            Scalar::Decimal(whole.checked_mul(power(*scale)).filter(|value| fits(*value, *precision))?)
        }
        _ => return None,
    };
    // Arrow's decimal of the column's precision may be narrower than what ClickHouse stores; take the width's.
    let column_type = match to {
        ColumnType::Decimal(precision, scale) => ColumnType::Decimal(widest(*precision), *scale),
        other => other.clone(),
    };
    Some(Expr::Literal { value, column_type })
}

fn uuid(text: &[u8]) -> Option<Arc<[u8]>> {
    let dashes = [8, 13, 18, 23];
    if text.len() != 36 || dashes.iter().any(|&at| text[at] != b'-') {
        return None;
    }
    let digits: Vec<u8> = text
        .iter()
        .enumerate()
        .filter(|(at, _)| !dashes.contains(at))
        .map(|(_, &byte)| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
