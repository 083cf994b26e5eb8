//! The common type of branches, and the functions that choose one of them.

use weir_schemas::types::{ColumnType, Width};

use super::arithmetic::{Number, next, number, number_type};
use super::{Refusal, base, dress};
use crate::expr::decimals::widest;
use crate::expr::{Expr, Function, Scalar};

/// `multiIf`.
pub(in crate::expr) fn multi_if(conditions: Vec<Expr>, branches: Vec<Option<Expr>>) -> Result<Expr, Refusal> {
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
        return Err(Refusal::new(
            "multiIf takes conditions and values in turn, and one value at the end",
            "add what is missing",
        ));
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
pub(in crate::expr) fn coalesce(arguments: Vec<Expr>) -> Result<Expr, Refusal> {
    if arguments.is_empty() {
        return Err(Refusal::new("coalesce takes at least one argument that isn't NULL", "add one"));
    }
    let last = arguments.iter().position(|argument| !argument.column_type().is_nullable());
    let count = last.map_or(arguments.len(), |last| last + 1);
    let used = &arguments[..count];
    if used.iter().all(Expr::is_constant) && !arguments.iter().all(Expr::is_constant) {
        return Err(Refusal::new(format!("what comes after {} has no effect", used[count - 1]), "leave out coalesce")
            .at(count - 1));
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
    let nullable =
        branches.iter().any(|branch| branch.as_ref().is_none_or(|branch| branch.column_type().is_nullable()));
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
    if let Some((at, odd)) =
        of.iter().enumerate().find(|(_, of)| matches!(of, ColumnType::Array(_) | ColumnType::Map(..)))
    {
        return Err(
            Refusal::new(format!("a branch of type {odd} isn't supported"), "choose between single values").at(at)
        );
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
        return decimal_supertype(of)
            .ok_or_else(|| refused(odd, "convert all with toDecimal64(x, scale) or toFloat64(x)"));
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
