//! The types of calls, by ClickHouse's rules; and what is refused because ClickHouse would refuse it, would give a type that
//! Weir doesn't have (`Variant`), or could fail on a row where a live view must not stop.
//!
//! `Nullable` and `LowCardinality` are taken off the arguments, the rule of the function is applied, and both are put on
//! again: null if any argument can be null, low cardinality if one argument is and all others are constants.

use std::sync::Arc;

use weir_schemas::types::{ColumnType, Width};

use super::decimals::{fits, power, widest};
use super::{Comparison, Expr, Function, OnFailure, Scalar, Target, parse};

/// Why there is no such call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The argument that is to blame, if one is.
    pub argument: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// The way out.
    pub remedy: String,
}

impl Refusal {
    /// A refusal of the whole call.
    pub fn new(message: impl Into<String>, remedy: impl Into<String>) -> Refusal {
        Refusal { argument: None, message: message.into(), remedy: remedy.into() }
    }

    /// The same, with one argument to blame.
    #[must_use]
    pub fn at(self, argument: usize) -> Refusal {
        Refusal { argument: Some(argument), ..self }
    }
}

/// Types the call.
pub(super) fn call(function: Function, arguments: Vec<Expr>) -> Result<Expr, Refusal> {
    let mut arguments = arguments;
    count_arguments(&function, arguments.len())?;
    for (at, argument) in arguments.iter().enumerate() {
        refuse_carried_only(&function, argument.column_type()).map_err(|refusal| refusal.at(at))?;
    }
    let bases: Vec<ColumnType> = arguments.iter().map(|argument| base(argument.column_type())).collect();
    let mut nullable = arguments.iter().any(|argument| argument.column_type().is_nullable());
    let result = match &function {
        Function::Plus | Function::Minus | Function::Multiply => arithmetic(&function, &bases)?,
        Function::Divide => divide(&bases, &arguments)?,
        Function::IntDiv | Function::Modulo => divide_whole(&function, &bases, &arguments)?,
        Function::Negate => negate(&bases[0])?,
        Function::Abs => abs(&bases[0])?,
        Function::Round(digits) => round(&bases[0], *digits)?,
        Function::Compare(comparison) => {
            comparable(*comparison, &bases, &mut arguments)?;
            ColumnType::UInt(Width::W8)
        }
        Function::And | Function::Or | Function::Not => logic(&function, &bases, &arguments)?,
        Function::IsNull | Function::IsNotNull if !nullable => {
            let value = Scalar::UInt(u64::from(function == Function::IsNotNull));
            return Ok(Expr::Literal { value, column_type: ColumnType::UInt(Width::W8) });
        }
        Function::IsNull | Function::IsNotNull => {
            nullable = false;
            ColumnType::UInt(Width::W8)
        }
        Function::In { .. } => ColumnType::UInt(Width::W8),
        Function::Like { .. } | Function::StartsWith | Function::EndsWith => {
            strings(&function, &bases)?;
            ColumnType::UInt(Width::W8)
        }
        Function::Lower | Function::Upper => {
            strings(&function, &bases)?;
            ColumnType::String
        }
        Function::Length => match &bases[0] {
            ColumnType::String | ColumnType::Array(_) | ColumnType::Map(..) => ColumnType::UInt(Width::W64),
            other => return Err(wrong(&function, 0, other, "a string, an array or a map")),
        },
        Function::Concat => concat(&bases, &mut arguments)?,
        Function::Substring => substring(&bases, &arguments)?,
        Function::ToString => {
            has_text(&bases[0])?;
            ColumnType::String
        }
        Function::Convert(target) => convert(&function, *target, &bases[0])?,
        Function::Parse(target, on_failure) => {
            strings(&function, &bases)?;
            nullable |= *on_failure == OnFailure::Null;
            target_type(*target)?
        }
        Function::ToDate(zone) => to_date(&bases[0], zone.is_some())?,
        Function::MapGet => {
            let value = map_get(&bases, &arguments)?;
            return Ok(Expr::Call { function, arguments, column_type: value });
        }
        Function::MultiIf | Function::Coalesce | Function::Widen => {
            return Err(Refusal::new(format!("{} has a constructor of its own", function.name()), "use that"));
        }
    };
    let column_type = dress(result, nullable, &arguments);
    Ok(Expr::Call { function, arguments, column_type })
}

/// Puts `LowCardinality` and `Nullable` back on.
fn dress(result: ColumnType, nullable: bool, arguments: &[Expr]) -> ColumnType {
    let low = one_is_low(arguments);
    let result = if low && result == ColumnType::String { ColumnType::LowCardinality } else { result };
    if nullable { result.nullable() } else { result }
}

/// Whether one argument has low cardinality in ClickHouse and all others are constants.
fn one_is_low(arguments: &[Expr]) -> bool {
    let mut varying = arguments.iter().filter(|argument| !argument.is_constant());
    matches!((varying.next(), varying.next()), (Some(only), None) if is_low(only))
}

/// Whether ClickHouse's type of the expression is a `LowCardinality`, also where ours isn't.
fn is_low(expr: &Expr) -> bool {
    match (expr, base(expr.column_type())) {
        // ClickHouse has no LowCardinality of these.
        (_, ColumnType::Decimal(..) | ColumnType::DateTime64(..)) | (Expr::Literal { .. }, _) => false,
        (Expr::Column { column_type, .. }, _) | (Expr::Call { column_type, .. }, ColumnType::String) => {
            *column_type.without_null() == ColumnType::LowCardinality
        }
        (Expr::Call { function: Function::MultiIf | Function::And | Function::Or | Function::IsNull | Function::IsNotNull, .. }, _)
        | (Expr::Call { function: Function::MapGet, .. }, _) => false,
        (Expr::Call { arguments, .. }, _) => one_is_low(arguments),
    }
}

/// The type without `Nullable` and `LowCardinality`.
fn base(column_type: &ColumnType) -> ColumnType {
    match column_type.without_null() {
        ColumnType::LowCardinality => ColumnType::String,
        other => other.clone(),
    }
}

fn count_arguments(function: &Function, count: usize) -> Result<(), Refusal> {
    let (least, most) = match function {
        Function::And | Function::Or => (2, usize::MAX),
        Function::Concat => (1, usize::MAX),
        Function::Substring => (2, 3),
        Function::Plus | Function::Minus | Function::Multiply | Function::Divide | Function::IntDiv => (2, 2),
        Function::Modulo | Function::Compare(_) | Function::StartsWith | Function::EndsWith | Function::MapGet => (2, 2),
        _ => (1, 1),
    };
    if (least..=most).contains(&count) {
        return Ok(());
    }
    let expected = if least == most { least.to_string() } else { format!("at least {least}") };
    Err(Refusal::new(format!("{} takes {expected} arguments, not {count}", function.name()), "give it as many as it takes"))
}

/// Arrays, maps and decimals beyond 38 digits travel and are grouped by, but few functions compute with them.
fn refuse_carried_only(function: &Function, column_type: &ColumnType) -> Result<(), Refusal> {
    let known = match column_type.without_null() {
        ColumnType::Array(_) | ColumnType::Map(..) => matches!(function, Function::Length | Function::MapGet),
        ColumnType::Decimal(39.., _) => matches!(function, Function::IsNull | Function::IsNotNull),
        ColumnType::AggregateState(_) => false,
        _ => true,
    };
    if known {
        return Ok(());
    }
    Err(Refusal::new(
        format!("{} of a value of type {column_type} isn't supported", function.name()),
        "compute it in a ClickHouse query over the view",
    ))
}

fn wrong(function: &Function, at: usize, got: &ColumnType, wanted: &str) -> Refusal {
    Refusal::new(format!("{} wants {wanted}, this is of type {got}", function.name()), "convert it first").at(at)
}

/// A number's kind: signed, float, bits.
#[derive(Clone, Copy)]
struct Number {
    signed: bool,
    float: bool,
    bits: u8,
}

fn number(of: &ColumnType) -> Option<Number> {
    Some(match of {
        ColumnType::Bool => Number { signed: false, float: false, bits: 8 },
        ColumnType::UInt(width) => Number { signed: false, float: false, bits: *width as u8 },
        ColumnType::Int(width) => Number { signed: true, float: false, bits: *width as u8 },
        ColumnType::Float32 => Number { signed: true, float: true, bits: 32 },
        ColumnType::Float64 => Number { signed: true, float: true, bits: 64 },
        _ => return None,
    })
}

fn number_type(of: Number) -> ColumnType {
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
fn next(bits: u8) -> u8 {
    if bits >= 64 { 64 } else { bits * 2 }
}

fn arithmetic(function: &Function, bases: &[ColumnType]) -> Result<ColumnType, Refusal> {
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

fn divide(bases: &[ColumnType], arguments: &[Expr]) -> Result<ColumnType, Refusal> {
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

fn divide_whole(function: &Function, bases: &[ColumnType], arguments: &[Expr]) -> Result<ColumnType, Refusal> {
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

fn negate(of: &ColumnType) -> Result<ColumnType, Refusal> {
    match (of, number(of)) {
        (ColumnType::Decimal(..), _) => Ok(of.clone()),
        (_, Some(Number { signed, float, bits })) => {
            Ok(number_type(Number { signed: true, float, bits: if signed { bits } else { next(bits) } }))
        }
        _ => Err(wrong(&Function::Negate, 0, of, "a number")),
    }
}

fn abs(of: &ColumnType) -> Result<ColumnType, Refusal> {
    match (of, number(of)) {
        (ColumnType::Decimal(..), _) => Ok(of.clone()),
        (_, Some(Number { float, bits, .. })) => Ok(number_type(Number { signed: false, float, bits })),
        _ => Err(wrong(&Function::Abs, 0, of, "a number")),
    }
}

fn round(of: &ColumnType, digits: i32) -> Result<ColumnType, Refusal> {
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

fn logic(function: &Function, bases: &[ColumnType], arguments: &[Expr]) -> Result<ColumnType, Refusal> {
    for (at, of) in bases.iter().enumerate() {
        if !matches!(of, ColumnType::Bool | ColumnType::Int(_) | ColumnType::UInt(_)) {
            return Err(Refusal::new(
                format!("{} wants conditions, this is of type {of}", function.name().to_uppercase()),
                "compare it with something, as in x != 0 or x != ''",
            )
            .at(at));
        }
    }
    // AND and OR look for Bool itself: of Nullable(Bool) alone they make Nullable(UInt8).
    let bool_stays = match function {
        Function::Not => bases.contains(&ColumnType::Bool),
        _ => arguments.iter().any(|argument| *argument.column_type() == ColumnType::Bool),
    };
    Ok(if bool_stays { ColumnType::Bool } else { ColumnType::UInt(Width::W8) })
}

fn strings(function: &Function, bases: &[ColumnType]) -> Result<(), Refusal> {
    match bases.iter().position(|of| *of != ColumnType::String) {
        None => Ok(()),
        Some(at) => Err(Refusal::new(
            format!("{} wants a string, this is of type {}", function.name(), bases[at]),
            "convert it with toString first",
        )
        .at(at)),
    }
}

/// Whether `toString` knows the type.
fn has_text(of: &ColumnType) -> Result<(), Refusal> {
    match of {
        ColumnType::Array(_) | ColumnType::Map(..) | ColumnType::AggregateState(_) => {
            Err(wrong(&Function::ToString, 0, of, "a single value"))
        }
        ColumnType::DateTime(None) | ColumnType::DateTime64(_, None) => Err(no_zone(of)),
        ColumnType::DateTime64(scale, _) if !matches!(scale, 0 | 3 | 6 | 9) => Err(odd_scale(of)),
        _ => Ok(()),
    }
}

fn no_zone(of: &ColumnType) -> Refusal {
    Refusal::new(format!("{of} has no zone, so its text depends on the server's"), "name a zone")
}

fn odd_scale(of: &ColumnType) -> Refusal {
    Refusal::new(format!("{of} isn't supported in expressions"), "use a scale of 0, 3, 6 or 9")
}

fn concat(bases: &[ColumnType], arguments: &mut [Expr]) -> Result<ColumnType, Refusal> {
    for (at, of) in bases.iter().enumerate() {
        if *of == ColumnType::String {
            continue;
        }
        if let ColumnType::FixedString(_) = of {
            return Err(Refusal::new("concat of a FixedString isn't supported", "convert it with toString first").at(at));
        }
        let argument = arguments[at].clone();
        arguments[at] = call(Function::ToString, vec![argument]).map_err(|refusal| refusal.at(at))?;
    }
    Ok(ColumnType::String)
}

fn substring(bases: &[ColumnType], arguments: &[Expr]) -> Result<ColumnType, Refusal> {
    if let Expr::Literal { value: Scalar::UInt(0), .. } = arguments[1] {
        return Err(Refusal::new("offsets of substring count from 1", "write 1 for the first byte").at(1));
    }
    strings(&Function::Substring, &bases[..1])?;
    for (at, of) in bases.iter().enumerate().skip(1) {
        if !matches!(of, ColumnType::Int(_) | ColumnType::UInt(_)) {
            return Err(wrong(&Function::Substring, at, of, "an integer"));
        }
    }
    Ok(ColumnType::String)
}

fn target_type(target: Target) -> Result<ColumnType, Refusal> {
    match target {
        Target::Int64 => Ok(ColumnType::Int(Width::W64)),
        Target::Float64 => Ok(ColumnType::Float64),
        Target::Decimal64(scale) if scale <= 18 => Ok(ColumnType::Decimal(18, scale)),
        Target::Decimal64(scale) => {
            Err(Refusal::new(format!("a Decimal64 has no {scale} decimal places"), "use a scale of 0 to 18").at(1))
        }
    }
}

fn convert(function: &Function, target: Target, of: &ColumnType) -> Result<ColumnType, Refusal> {
    if *of == ColumnType::String {
        let name = function.name();
        return Err(Refusal::new(
            format!("{name} of a string would stop the view at the first row that isn't a number"),
            format!("use {name}OrZero or {name}OrNull"),
        )
        .at(0));
    }
    let decimal = matches!(target, Target::Decimal64(_));
    let known = match of {
        ColumnType::Decimal(..) => true,
        ColumnType::Date | ColumnType::Date32 | ColumnType::DateTime(_) => !decimal,
        ColumnType::DateTime64(scale, _) => !decimal && matches!(scale, 0 | 3 | 6 | 9),
        other => number(other).is_some(),
    };
    if known { target_type(target) } else { Err(wrong(function, 0, of, "a number or a time")) }
}

fn to_date(of: &ColumnType, zone_given: bool) -> Result<ColumnType, Refusal> {
    match of {
        ColumnType::DateTime(None) | ColumnType::DateTime64(_, None) if !zone_given => Err(no_zone(of)),
        ColumnType::DateTime64(scale, _) if !matches!(scale, 0 | 3 | 6 | 9) => Err(odd_scale(of)),
        ColumnType::DateTime(_) | ColumnType::DateTime64(..) => Ok(ColumnType::Date),
        ColumnType::Date | ColumnType::Date32 if !zone_given => Ok(ColumnType::Date),
        _ => Err(wrong(&Function::ToDate(None), 0, of, "a time")),
    }
}

fn map_get(bases: &[ColumnType], arguments: &[Expr]) -> Result<ColumnType, Refusal> {
    let ColumnType::Map(key, value) = &bases[0] else {
        return Err(Refusal::new(
            format!("[] is for maps, this is of type {}", bases[0]),
            "compute it in a ClickHouse query over the view",
        )
        .at(0));
    };
    if base(key) != ColumnType::String || bases[1] != ColumnType::String || arguments[1].column_type().is_nullable() {
        return Err(Refusal::new(
            format!("a key of type {} isn't supported in {}", arguments[1].column_type(), bases[0]),
            "use a string as the key",
        )
        .at(1));
    }
    if let ColumnType::Map(..) | ColumnType::Array(_) = **value {
        return Err(Refusal::new("[] of a map of maps or arrays isn't supported", "flatten the field in the schema").at(0));
    }
    Ok((**value).clone())
}

/// Checks that two types compare, and brings literals to the other side's type.
fn comparable(comparison: Comparison, bases: &[ColumnType], arguments: &mut [Expr]) -> Result<(), Refusal> {
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
        (ColumnType::DateTime(_) | ColumnType::DateTime64(..), ColumnType::DateTime(_) | ColumnType::DateTime64(..)) => true,
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
        (ColumnType::Decimal(..), _) | (_, ColumnType::Decimal(..)) => "convert the other side with toDecimal64(x, scale)",
        (ColumnType::String, _) | (_, ColumnType::String) => "convert the other side with toString, or the string to its type",
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

/// A literal as a value of a type, as ClickHouse converts it in a comparison; `None` where it doesn't, or only by rules that aren't
/// followed here.
pub(super) fn literal_as(literal: &Expr, to: &ColumnType) -> Option<Expr> {
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

/// `multiIf`.
pub(super) fn multi_if(conditions: Vec<Expr>, branches: Vec<Option<Expr>>) -> Result<Expr, Refusal> {
    for (at, condition) in conditions.iter().enumerate() {
        if !matches!(base(condition.column_type()), ColumnType::Bool | ColumnType::UInt(Width::W8)) {
            return Err(Refusal::new(
                format!("a condition is of type UInt8 or Bool, this is of type {}", condition.column_type()),
                "compare it with something, as in x != 0",
            )
            .at(2 * at));
        }
    }
    if branches.len() != conditions.len() + 1 {
        return Err(Refusal::new("multiIf takes conditions and values in turn, and one value at the end", "add what is missing"));
    }
    let place = |at: usize| if at == conditions.len() { 2 * at } else { 2 * at + 1 };
    let branches = unify(branches).map_err(|refusal| Refusal { argument: refusal.argument.map(place), ..refusal })?;
    let column_type = match branches.first() {
        Some(branch) => branch.column_type().clone(),
        None => return Err(Refusal::new("there are no branches", "add one")),
    };
    let mut branches = branches.into_iter();
    let mut arguments = Vec::with_capacity(conditions.len() * 2 + 1);
    for condition in conditions {
        arguments.push(condition);
        arguments.extend(branches.next());
    }
    arguments.extend(branches);
    Ok(Expr::Call { function: Function::MultiIf, arguments, column_type })
}

/// `coalesce`: what comes after the first argument that can't be null has no effect but on `LowCardinality`.
pub(super) fn coalesce(arguments: Vec<Expr>) -> Result<Expr, Refusal> {
    if arguments.is_empty() {
        return Err(Refusal::new("coalesce takes at least one argument that isn't NULL", "add one"));
    }
    let last = arguments.iter().position(|argument| !argument.column_type().is_nullable());
    let count = last.map_or(arguments.len(), |last| last + 1);
    let used = &arguments[..count];
    if used.iter().all(Expr::is_constant) && !arguments.iter().all(Expr::is_constant) {
        return Err(Refusal::new(format!("what comes after {} has no effect", used[count - 1]), "leave out coalesce").at(count - 1));
    }
    let common = supertype(&used.iter().map(|argument| base(argument.column_type())).collect::<Vec<_>>())?;
    let column_type = dress(common.clone(), last.is_none(), &arguments);
    if let [only] = used {
        return Ok(only.clone().widen(&column_type));
    }
    let carried = |argument: Expr| {
        let to = if argument.column_type().is_nullable() { common.clone().nullable() } else { common.clone() };
        argument.widen(&to)
    };
    let arguments = arguments.into_iter().take(count).map(carried).collect();
    Ok(Expr::Call { function: Function::Coalesce, arguments, column_type })
}

/// Brings branches to their common type; `None` is NULL.
fn unify(branches: Vec<Option<Expr>>) -> Result<Vec<Expr>, Refusal> {
    let bases: Vec<ColumnType> = branches.iter().flatten().map(|branch| base(branch.column_type())).collect();
    if bases.is_empty() {
        return Err(Refusal::new("every branch is NULL", "leave it out"));
    }
    let common = supertype(&bases)?;
    let nullable = branches.iter().any(|branch| branch.as_ref().is_none_or(|branch| branch.column_type().is_nullable()));
    let to = if nullable { common.nullable() } else { common };
    Ok(branches
        .into_iter()
        .map(|branch| match branch {
            Some(branch) => branch.widen(&to),
            None => Expr::Literal { value: Scalar::Null, column_type: to.clone() },
        })
        .collect())
}

/// The one type that holds the values of all; ClickHouse's `Variant`, which stands for "none", is refused.
fn supertype(of: &[ColumnType]) -> Result<ColumnType, Refusal> {
    let first = &of[0];
    if let Some((at, odd)) = of.iter().enumerate().find(|(_, of)| matches!(of, ColumnType::Array(_) | ColumnType::Map(..))) {
        return Err(Refusal::new(format!("a branch of type {odd} isn't supported"), "choose between single values").at(at));
    }
    if of.iter().all(|other| other == first) {
        return Ok(first.clone());
    }
    let refused = |at: usize, remedy: &str| {
        Refusal::new(format!("{first} and {} have no common type", of[at]), remedy.to_owned()).at(at)
    };
    let odd = of.iter().position(|other| other != first).unwrap_or(0);
    if of.contains(&ColumnType::Bool) {
        return Err(refused(odd, "write true and false, or 1 and 0, throughout"));
    }
    if of.iter().any(|of| matches!(of, ColumnType::Decimal(..))) {
        return decimal_supertype(of).ok_or_else(|| refused(odd, "convert all with toDecimal64(x, scale) or toFloat64(x)"));
    }
    let numbers: Option<Vec<Number>> = of.iter().map(number).collect();
    let Some(numbers) = numbers else { return Err(refused(odd, "convert one to the other's type, as with toString")) };
    number_supertype(&numbers).ok_or_else(|| refused(odd, "convert with toInt64 or toFloat64 to one of the types"))
}

fn number_supertype(numbers: &[Number]) -> Option<ColumnType> {
    let most = |test: fn(&Number) -> bool| numbers.iter().filter(|number| test(number)).map(|number| number.bits).max();
    let integers = most(|number| !number.float).unwrap_or(0);
    if let Some(floats) = most(|number| number.float) {
        // A float holds integers of up to half its width; 64 bits fit in none.
        return match integers {
            64 => None,
            32 => Some(ColumnType::Float64),
            _ => Some(number_type(Number { signed: true, float: true, bits: floats })),
        };
    }
    let unsigned = most(|number| !number.signed).unwrap_or(0);
    match most(|number| number.signed) {
        None => Some(number_type(Number { signed: false, float: false, bits: unsigned })),
        Some(_) if unsigned == 64 => None,
        Some(signed) => {
            let bits = if unsigned >= signed { next(unsigned) } else { signed };
            Some(number_type(Number { signed: true, float: false, bits }))
        }
    }
}

/// Decimals of one scale and integers: as wide as the widest needs.
fn decimal_supertype(of: &[ColumnType]) -> Option<ColumnType> {
    let decimals: Vec<(u8, u8)> = of
        .iter()
        .filter_map(|of| if let ColumnType::Decimal(precision, scale) = of { Some((*precision, *scale)) } else { None })
        .collect();
    let first = *decimals.first()?;
    if decimals.iter().any(|other| *other != first) {
        return None;
    }
    let (precision, scale) = first;
    let mut widest_precision = widest(precision);
    for of in of {
        let digits = match of {
            ColumnType::Decimal(..) => continue,
            ColumnType::Int(Width::W64) => 19,
            ColumnType::UInt(Width::W64) => 20,
            ColumnType::Int(Width::W32) | ColumnType::UInt(Width::W32) => 10,
            ColumnType::Int(Width::W16) | ColumnType::UInt(Width::W16) => 5,
            ColumnType::Int(Width::W8) | ColumnType::UInt(Width::W8) => 3,
            _ => return None,
        };
        widest_precision = widest_precision.max(widest(digits + scale));
    }
    if scale == 0 {
        // ClickHouse puts an Int64 into 18 digits there and an Int32 into 9, whatever else is among the types.
        let integers: Vec<&ColumnType> = of.iter().filter(|of| number(of).is_some()).collect();
        let digits = match integers.as_slice() {
            [ColumnType::Int(Width::W64)] => 18,
            [ColumnType::Int(Width::W32)] => 9,
            [_] => widest_precision,
            _ => return None,
        };
        widest_precision = digits.max(widest(precision));
    }
    (widest_precision <= 38).then_some(ColumnType::Decimal(widest_precision, scale))
}
