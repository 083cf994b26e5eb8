//! The types of calls, by ClickHouse's rules; and what is refused because ClickHouse would refuse it, would give a type that
//! Weir doesn't have (`Variant`), or holds no column and fails.
//!
//! `Nullable` and `LowCardinality` are taken off the arguments, the rule of the function is applied, and both are put on
//! again: null if any argument can be null, low cardinality if one argument is and all others are constants.

mod arithmetic;
mod choice;
mod comparisons;

use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::Schema;
use weir_schemas::types::{ColumnType, Width};

use super::{Expr, Function, OnFailure, Scalar, Target};
use crate::error::Error;
use arithmetic::{abs, arithmetic, divide, divide_whole, negate, number, round};
pub(super) use choice::{coalesce, multi_if};
use comparisons::comparable;
pub(super) use comparisons::literal_as;

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
    let function = of_text(function, &bases, nullable);
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
        Function::Like { .. } | Function::Match(_) | Function::StartsWith | Function::EndsWith => {
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
    possible(Expr::Call { function, arguments, column_type })
}

/// A conversion of a string reads it. What can't be read fails, except where the string may be NULL: then it is NULL.
fn of_text(function: Function, bases: &[ColumnType], nullable: bool) -> Function {
    if bases.first() != Some(&ColumnType::String) {
        return function;
    }
    let on_failure = if nullable { OnFailure::Null } else { OnFailure::Error };
    match function {
        Function::Convert(target) => Function::Parse(target, on_failure),
        Function::ToDate(_) => Function::Parse(Target::Date, on_failure),
        other => other,
    }
}

/// Refuses an expression without columns that can't be computed, as it would fail for every event.
fn possible(expr: Expr) -> Result<Expr, Refusal> {
    if !expr.is_constant() || !expr.can_fail() {
        return Ok(expr);
    }
    match one_row().and_then(|row| expr.evaluate(&row)) {
        Ok(_) => Ok(expr),
        Err(error) => Err(Refusal::new(format!("this fails for every event: {error}"), "write another literal")),
    }
}

/// A row without columns, over which a constant has its value.
fn one_row() -> Result<RecordBatch, Error> {
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?)
}

/// Puts `LowCardinality` and `Nullable` back on.
fn dress(result: ColumnType, nullable: bool, arguments: &[Expr]) -> ColumnType {
    let low = one_is_low(arguments);
    let result = if low && result == ColumnType::String { ColumnType::LowCardinality } else { result };
    if nullable { result.nullable() } else { result }
}

/// Whether one argument has low cardinality in ClickHouse and all others are constants.
fn one_is_low(arguments: &[Expr]) -> bool {
    let mut varying = arguments.iter().filter(|argument| !is_fixed(argument));
    matches!((varying.next(), varying.next()), (Some(only), None) if is_low(only))
}

/// Whether ClickHouse takes the expression for a constant: no column stands in it, or none that matters to its AND or OR.
fn is_fixed(expr: &Expr) -> bool {
    let Expr::Call { function, arguments, .. } = expr else { return expr.is_constant() };
    let decides = |truth: bool| {
        arguments.iter().filter(|argument| argument.is_constant()).any(|argument| {
            let held = one_row().and_then(|row| argument.evaluate_condition(&row));
            held.is_ok_and(|held| held.iter().eq([Some(truth)]))
        })
    };
    match function {
        Function::And if decides(false) => true,
        Function::Or if decides(true) => true,
        _ => arguments.iter().all(is_fixed),
    }
}

/// Whether ClickHouse's type of the expression is a `LowCardinality`, also where ours isn't.
pub(super) fn is_low(expr: &Expr) -> bool {
    match (expr, base(expr.column_type())) {
        // ClickHouse has no LowCardinality of these.
        (_, ColumnType::Decimal(..) | ColumnType::DateTime64(..)) | (Expr::Literal { .. }, _) => false,
        (Expr::Column { column_type, .. }, _) | (Expr::Call { column_type, .. }, ColumnType::String) => {
            *column_type.without_null() == ColumnType::LowCardinality
        }
        (
            Expr::Call {
                function: Function::MultiIf | Function::And | Function::Or | Function::IsNull | Function::IsNotNull,
                ..
            },
            _,
        )
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
        Function::Modulo | Function::Compare(_) | Function::StartsWith | Function::EndsWith | Function::MapGet => {
            (2, 2)
        }
        _ => (1, 1),
    };
    if (least..=most).contains(&count) {
        return Ok(());
    }
    let expected = if least == most { least.to_string() } else { format!("at least {least}") };
    Err(Refusal::new(
        format!("{} takes {expected} arguments, not {count}", function.name()),
        "give it as many as it takes",
    ))
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
            return Err(
                Refusal::new("concat of a FixedString isn't supported", "convert it with toString first").at(at)
            );
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
        Target::Date => Ok(ColumnType::Date),
        Target::Decimal64(scale) if scale <= 18 => Ok(ColumnType::Decimal(18, scale)),
        Target::Decimal64(scale) => {
            Err(Refusal::new(format!("a Decimal64 has no {scale} decimal places"), "use a scale of 0 to 18").at(1))
        }
    }
}

fn convert(function: &Function, target: Target, of: &ColumnType) -> Result<ColumnType, Refusal> {
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
        return Err(
            Refusal::new("[] of a map of maps or arrays isn't supported", "flatten the field in the schema").at(0)
        );
    }
    Ok((**value).clone())
}
