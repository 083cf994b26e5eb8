//! The types of arithmetic: how wide a result gets, and what would overflow or divide by zero.

use weir_schemas::types::{ColumnType, Width};

use super::{Refusal, wrong};
use crate::expr::decimals::widest;
use crate::expr::{Expr, Function, Scalar};

/// A number's kind: signed, float, bits.
#[derive(Clone, Copy)]
pub(super) struct Number {
    pub(super) signed: bool,
    pub(super) float: bool,
    pub(super) bits: u8,
}

pub(super) fn number(of: &ColumnType) -> Option<Number> {
    Some(match of {
        ColumnType::Bool => Number { signed: false, float: false, bits: 8 },
        ColumnType::UInt(width) => Number { signed: false, float: false, bits: *width as u8 },
        ColumnType::Int(width) => Number { signed: true, float: false, bits: *width as u8 },
        ColumnType::Float32 => Number { signed: true, float: true, bits: 32 },
        ColumnType::Float64 => Number { signed: true, float: true, bits: 64 },
        _ => return None,
    })
}

pub(super) fn number_type(of: Number) -> ColumnType {
    let width = match of.bits {
        0..=8 => Width::W8,
        9..=16 => Width::W16,
        17..=32 => Width::W32,
        _ => Width::W64,
    };
    match (of.float, of.signed) {
        (true, _) if of.bits <= 32 => ColumnType::Float32,
        (true, _) => ColumnType::Float64,
        (false, true) => ColumnType::Int(width),
        (false, false) => ColumnType::UInt(width),
    }
}

/// The next wider width: sums and products of two numbers get it.
pub(super) fn next(bits: u8) -> u8 {
    if bits >= 64 { 64 } else { bits * 2 }
}

pub(super) fn arithmetic(function: &Function, bases: &[ColumnType]) -> Result<ColumnType, Refusal> {
    for (at, of) in bases.iter().enumerate() {
        if number(of).is_none() && !matches!(of, ColumnType::Decimal(..)) {
            return Err(wrong(function, at, of, "numbers"));
        }
    }
    if let (Some(a), Some(b)) = (number(&bases[0]), number(&bases[1])) {
        return Ok(number_type(Number {
            signed: a.signed || b.signed || matches!(function, Function::Minus),
            float: a.float || b.float,
            bits: next(a.bits.max(b.bits)),
        }));
    }
    match (&bases[0], &bases[1]) {
        (ColumnType::Decimal(p, s), ColumnType::Decimal(q, t)) => {
            let precision = widest(*p.max(q));
            wide_product(function, precision)?;
            let scale = if matches!(function, Function::Multiply) { s + t } else { *s.max(t) };
            if scale > precision {
                return Err(Refusal::new(
                    format!("the product has {scale} decimal places, more than Decimal({precision}) holds"),
                    "convert one side with toFloat64, or to a smaller scale with toDecimal64",
                ));
            }
            Ok(ColumnType::Decimal(precision, scale))
        }
        (ColumnType::Decimal(precision, _), other) | (other, ColumnType::Decimal(precision, _)) => {
            if number(other).is_some_and(|number| !number.float) {
                wide_product(function, *precision)?;
            }
            decimal_and_number(bases, other)
        }
        _ => Err(wrong(function, 0, &bases[0], "numbers")),
    }
}

/// ClickHouse doesn't see every overflow of a product in 128 bits.
fn wide_product(function: &Function, precision: u8) -> Result<(), Refusal> {
    if *function == Function::Multiply && precision > 18 {
        return Err(Refusal::new(
            "products of decimals of more than 18 digits aren't supported",
            "convert with toDecimal64(x, scale) or toFloat64(x)",
        ));
    }
    Ok(())
}

/// A decimal and an integer stay that decimal, a decimal and a float are a float.
fn decimal_and_number(bases: &[ColumnType], other: &ColumnType) -> Result<ColumnType, Refusal> {
    let decimal = bases.iter().find_map(|of| match of {
        ColumnType::Decimal(precision, scale) => Some((*precision, *scale)),
        _ => None,
    });
    match (decimal, number(other)) {
        (Some(_), Some(number)) if number.float => Ok(ColumnType::Float64),
        (Some((precision, scale)), Some(number)) => {
            // ClickHouse takes the integer in the decimal's own width, which could cut off a wider one.
            let held = match widest(precision) {
                9 => 32,
                18 => 64,
                _ => 128,
            };
            if number.bits > held || (number.bits == held && !number.signed) {
                return Err(Refusal::new(
                    format!("{other} is wider than Decimal({precision}, {scale}), so the result could overflow"),
                    "convert the integer with toDecimal64(x, 0) first",
                ));
            }
            Ok(ColumnType::Decimal(precision, scale))
        }
        _ => Err(Refusal::new("these types have no arithmetic", "convert them first")),
    }
}

pub(super) fn divide(bases: &[ColumnType], arguments: &[Expr]) -> Result<ColumnType, Refusal> {
    if bases.iter().all(|of| number(of).is_some()) {
        return Ok(ColumnType::Float64);
    }
    match (&bases[0], &bases[1]) {
        (ColumnType::Decimal(precision, scale), other) if number(other).is_some_and(|number| !number.float) => {
            match &arguments[1] {
                Expr::Literal { value: Scalar::Int(1..) | Scalar::UInt(1..) | Scalar::Int(..=-2), .. } => {
                    decimal_and_number(bases, other).map(|_| ColumnType::Decimal(*precision, *scale))
                }
                _ => Err(Refusal::new(
                    "a decimal divided by a value that may be zero would stop the view",
                    "divide by a literal other than zero, or write toFloat64(a) / b",
                )),
            }
        }
        (ColumnType::Decimal(..), other) | (other, ColumnType::Decimal(..))
            if number(other).is_some_and(|number| number.float) =>
        {
            Ok(ColumnType::Float64)
        }
        (ColumnType::Decimal(..), _) | (_, ColumnType::Decimal(..)) => Err(Refusal::new(
            "division of decimals isn't supported: a divisor of zero would stop the view",
            "write toFloat64(a) / toFloat64(b)",
        )),
        (other, _) => Err(wrong(&Function::Divide, 0, other, "numbers")),
    }
}

pub(super) fn divide_whole(
    function: &Function,
    bases: &[ColumnType],
    arguments: &[Expr],
) -> Result<ColumnType, Refusal> {
    let name = function.name();
    for (at, of) in bases.iter().enumerate() {
        if number(of).is_none() {
            return Err(wrong(function, at, of, "integers"));
        }
    }
    let (Some(a), Some(b)) = (number(&bases[0]), number(&bases[1])) else {
        return Err(wrong(function, 0, &bases[0], "integers"));
    };
    let whole = match &arguments[1] {
        Expr::Literal { value: Scalar::UInt(value), .. } => i128::from(*value),
        Expr::Literal { value: Scalar::Int(value), .. } => i128::from(*value),
        _ => 0,
    };
    if a.float || b.float {
        return Err(Refusal::new(format!("{name} of floats isn't supported"), "convert with toInt64 first"));
    }
    // In the widths in which ClickHouse divides, a literal can turn negative.
    let bits = if *function == Function::IntDiv { u32::from(a.bits.max(b.bits)) } else { 128 };
    let seen = if a.signed || b.signed { (whole << (128 - bits)) >> (128 - bits) } else { whole };
    // Nor does it divide by the least number of a type.
    let least = b.signed && whole == -(1i128 << (b.bits - 1));
    if matches!(seen, 0 | -1) || least {
        return Err(Refusal::new(
            format!("{name} by anything but a small literal other than 0 and -1 could stop the view at a row where ClickHouse fails"),
            "divide by a literal, or use a / b",
        )
        .at(1));
    }
    Ok(number_type(match function {
        Function::IntDiv => Number { signed: a.signed || b.signed, float: false, bits: a.bits },
        _ => Number { signed: a.signed, float: false, bits: if a.signed { next(b.bits) } else { b.bits } },
    }))
}

pub(super) fn negate(of: &ColumnType) -> Result<ColumnType, Refusal> {
    match (of, number(of)) {
        (ColumnType::Decimal(..), _) => Ok(of.clone()),
        (_, Some(Number { signed, float, bits })) => {
            Ok(number_type(Number { signed: true, float, bits: if signed { bits } else { next(bits) } }))
        }
        _ => Err(wrong(&Function::Negate, 0, of, "a number")),
    }
}

pub(super) fn abs(of: &ColumnType) -> Result<ColumnType, Refusal> {
    match (of, number(of)) {
        (ColumnType::Decimal(..), _) => Ok(of.clone()),
        (_, Some(Number { float, bits, .. })) => Ok(number_type(Number { signed: false, float, bits })),
        _ => Err(wrong(&Function::Abs, 0, of, "a number")),
    }
}

pub(super) fn round(of: &ColumnType, digits: i32) -> Result<ColumnType, Refusal> {
    let function = Function::Round(digits);
    // Beyond these the power of ten isn't exact, or ClickHouse's arithmetic leaves its width.
    let exact = match of {
        ColumnType::Float64 => (-15..=15).contains(&digits),
        ColumnType::Float32 => (-10..=10).contains(&digits),
        ColumnType::Int(_) | ColumnType::UInt(_) => true,
        ColumnType::Decimal(precision, scale) => i32::from(*scale) - digits <= i32::from(widest(*precision)),
        _ => return Err(wrong(&function, 0, of, "a number")),
    };
    if exact {
        return Ok(of.clone());
    }
    Err(Refusal::new(format!("rounding {of} to {digits} decimal places isn't supported"), "round to fewer places"))
}
