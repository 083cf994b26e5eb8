//! Aggregate calls: their types and the signature of their states, as ClickHouse gives them.

use sqlparser::ast::{self, DuplicateTreatment, FunctionArg, FunctionArgExpr, FunctionArguments};
use sqlparser::tokenizer::Location;
use weir_operators::aggregate::{Call, Function};
use weir_operators::expr::{Expr, Scalar, write_float};
use weir_schemas::types::{ColumnType, Width};

use super::calls::argument_list;
use super::expressions::Builder;
use super::functions;
use super::places::{Problems, start};
use super::scope::Scope;

/// Least relative accuracy of a sketch. A store spans a fixed number of bins, so that an accuracy bounds how far apart two
/// values of a group may be: with this one they reach from 1e-14 to 1e14.
const LEAST_ACCURACY: f64 = 0.0005;

/// Whether a call is of an aggregate function, supported or known to be one.
pub(super) fn is_aggregate(function: &ast::Function) -> bool {
    let name = canonical(function);
    functions::aggregate(&name).is_some()
}

fn canonical(function: &ast::Function) -> String {
    let written = function.name.to_string();
    if functions::aggregate(&written).is_some() { written } else { functions::canonical(&written) }
}

/// Whether two calls compute the same.
pub(super) fn same(one: &Call, other: &Call) -> bool {
    one.function == other.function && one.arguments == other.arguments && one.condition == other.condition
}

/// Plans an aggregate call over the events.
pub(super) fn call(
    function: &ast::Function,
    scope: &Scope<'_>,
    problems: &mut Problems<'_>,
    fallback: Location,
) -> Option<Call> {
    let at = start(function, fallback);
    let name = canonical(function);
    let (base, conditional) = functions::aggregate(&name)?;
    let nodes = arguments(function, base, at, problems)?;
    let mut builder = Builder { scope, problems: &mut *problems, within: Vec::new(), fallback: at };
    let places: Vec<Location> = nodes.iter().map(|node| builder.place(node)).collect();
    let built: Vec<Option<Expr>> = nodes.iter().map(|node| builder.value(node)).collect();
    let mut arguments: Vec<Expr> = built.into_iter().collect::<Option<_>>()?;
    let condition = if conditional {
        let Some(condition) = arguments.pop() else {
            problems.add(
                at,
                format!("{name} takes a condition as its last argument"),
                format!("write {name}(..., condition)"),
            );
            return None;
        };
        let place = places.last().copied().unwrap_or(at);
        Some(check_condition(condition, &name, place, problems)?)
    } else {
        None
    };
    // count(1) counts rows, as count() does.
    if base == "count"
        && arguments.len() == 1
        && arguments.iter().all(|argument| matches!(argument, Expr::Literal { .. }))
    {
        arguments.clear();
    }
    let expected = if base == "count" { 0..=1 } else { 1..=1 };
    if !expected.contains(&arguments.len()) {
        let detail = if arguments.len() > 1 { "of several arguments isn't supported" } else { "takes an argument" };
        problems.add(at, format!("{name} {detail}"), format!("write {name} of one column"));
        return None;
    }
    let arguments: Vec<Expr> = arguments.into_iter().map(without_low_cardinality).collect();
    let (computed, parameters) = kind(function, base, at, problems)?;
    let argument = arguments.first();
    let result = match argument {
        Some(argument) => result_type(base, argument.column_type(), places.first().copied().unwrap_or(at), problems)?,
        None => ColumnType::UInt(Width::W64),
    };
    // The state of an -If form is that of its base, and so is its type: analysts merge all with uniqExactMerge.
    let types = argument.iter().map(|argument| argument.column_type().to_string());
    let signature: Vec<String> = std::iter::once(format!("{base}{parameters}")).chain(types).collect();
    Some(Call { function: computed, signature: signature.join(", "), arguments, condition, result })
}

/// The arguments as they are written; `*` of count stands for none.
fn arguments<'f>(
    function: &'f ast::Function,
    base: &str,
    at: Location,
    problems: &mut Problems<'_>,
) -> Option<Vec<&'f ast::Expr>> {
    if let FunctionArguments::List(list) = &function.args {
        if list.duplicate_treatment == Some(DuplicateTreatment::Distinct) {
            problems.add(at, format!("{base}(DISTINCT ...) isn't supported"), "use uniqExact(x)");
            return None;
        }
        if base == "count" && matches!(list.args.as_slice(), [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)]) {
            return Some(Vec::new());
        }
    }
    let plain = function.over.is_none() && function.filter.is_none() && function.within_group.is_empty();
    let arguments = argument_list(function).filter(|_| plain);
    if arguments.is_none() {
        problems.add(
            at,
            format!("{base} isn't supported in this form"),
            format!("write {base}(x) or {base}If(x, condition)"),
        );
    }
    arguments
}

fn check_condition(condition: Expr, name: &str, at: Location, problems: &mut Problems<'_>) -> Option<Expr> {
    let of = condition.column_type();
    if matches!(of.without_null(), ColumnType::Bool | ColumnType::UInt(Width::W8)) {
        return Some(condition);
    }
    problems.add(
        at,
        format!("the condition of {name} is of type {of}"),
        "compare it with something, as in x != 0 or x != ''",
    );
    None
}

fn base_type(expr: &Expr) -> ColumnType {
    match expr.column_type() {
        ColumnType::LowCardinality => ColumnType::String,
        ColumnType::Nullable(of) if **of == ColumnType::LowCardinality => ColumnType::String.nullable(),
        other => other.clone(),
    }
}

/// Aggregates see plain strings; the bytes are the same.
fn without_low_cardinality(argument: Expr) -> Expr {
    let to = base_type(&argument);
    argument.widen(&to)
}

/// The function and its parameters as ClickHouse writes them in a state's type.
fn kind(function: &ast::Function, base: &str, at: Location, problems: &mut Problems<'_>) -> Option<(Function, String)> {
    let parameters = match &function.parameters {
        FunctionArguments::None => Vec::new(),
        FunctionArguments::List(list) => list
            .args
            .iter()
            .map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Value(value))) => match &value.value {
                    ast::Value::Number(text, _) => super::literals::number(text, false).ok(),
                    _ => None,
                },
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .or_else(|| {
                problems.add(at, format!("the parameters of {base} must be numbers"), "write quantileDD(0.01, 0.5)(x)");
                None
            })?,
        FunctionArguments::Subquery(_) => {
            problems.add(at, format!("{base} takes no subquery"), "write literals");
            return None;
        }
    };
    let plain = match base {
        "count" => Function::Count,
        "sum" => Function::Sum,
        "min" => Function::Min,
        "max" => Function::Max,
        "avg" => Function::Avg,
        "uniqExact" => Function::UniqExact,
        "uniqCombined64" => Function::UniqCombined64,
        _ => return quantile(&parameters, at, problems),
    };
    if parameters.is_empty() {
        return Some((plain, String::new()));
    }
    problems.add(at, format!("{base} with parameters isn't supported"), format!("write {base}(x)"));
    None
}

fn quantile(parameters: &[Expr], at: Location, problems: &mut Problems<'_>) -> Option<(Function, String)> {
    let level = |expr: &Expr| match expr {
        Expr::Literal { value: Scalar::Float(value), .. } => Some(*value),
        Expr::Literal { value: Scalar::UInt(value @ (0 | 1)), .. } => Some(*value as f64),
        _ => None,
    };
    let (accuracy, level_given) = match parameters {
        [Expr::Literal { value: Scalar::Float(accuracy), .. }] => (*accuracy, Some(0.5)),
        [Expr::Literal { value: Scalar::Float(accuracy), .. }, second] => (*accuracy, level(second)),
        _ => (0.0, None),
    };
    let in_range = accuracy > 0.0 && accuracy < 1.0;
    let Some(level) = level_given.filter(|level| in_range && (0.0..=1.0).contains(level)) else {
        problems.add(
            at,
            "quantileDD takes a relative accuracy between 0 and 1 and a level from 0 to 1",
            "write quantileDD(0.01, 0.95)(x)",
        );
        return None;
    };
    if accuracy < LEAST_ACCURACY {
        problems.add(
            at,
            format!("quantileDD of an accuracy below {LEAST_ACCURACY} can't hold far apart values in one group"),
            "write quantileDD(0.001, 0.95)(x)",
        );
        return None;
    }
    let texts: Vec<String> = parameters.iter().map(parameter_text).collect();
    Some((Function::QuantileDd { relative_accuracy: accuracy, level }, format!("({})", texts.join(", "))))
}

/// A literal as ClickHouse writes it in a type: a float without a fraction keeps its point.
fn parameter_text(parameter: &Expr) -> String {
    match parameter {
        Expr::Literal { value: Scalar::Float(value), .. } => {
            let mut text = Vec::new();
            write_float(*value, &mut text);
            let text = String::from_utf8_lossy(&text).into_owned();
            if text.contains(['.', 'e']) { text } else { format!("{text}.") }
        }
        other => other.to_string(),
    }
}

/// The type of the finalised value.
fn result_type(base: &str, of: &ColumnType, at: Location, problems: &mut Problems<'_>) -> Option<ColumnType> {
    let plain = of.without_null();
    let result = match (base, plain) {
        (_, ColumnType::Array(_) | ColumnType::Map(..) | ColumnType::AggregateState(_)) if base != "count" => None,
        ("count" | "uniqExact", _) => return Some(ColumnType::UInt(Width::W64)),
        ("uniqCombined64", _) => Some(ColumnType::UInt(Width::W64)),
        ("min" | "max", _) => Some(plain.clone()),
        ("sum", ColumnType::Int(_)) => Some(ColumnType::Int(Width::W64)),
        ("sum", ColumnType::UInt(_) | ColumnType::Bool) => Some(ColumnType::UInt(Width::W64)),
        ("sum", ColumnType::Float32 | ColumnType::Float64) => Some(ColumnType::Float64),
        ("sum", ColumnType::Decimal(0..=38, scale)) => Some(ColumnType::Decimal(38, *scale)),
        ("avg", ColumnType::Decimal(0..=38, _)) => Some(ColumnType::Float64),
        (
            "avg" | "quantileDD",
            ColumnType::Int(_) | ColumnType::UInt(_) | ColumnType::Bool | ColumnType::Float32 | ColumnType::Float64,
        ) => Some(ColumnType::Float64),
        _ => None,
    };
    let Some(result) = result else {
        let remedy = match (base, plain) {
            ("quantileDD", ColumnType::Decimal(..)) => "convert it with toFloat64",
            (_, ColumnType::String) => "convert it with toFloat64OrZero or toInt64OrZero",
            (_, ColumnType::Array(_) | ColumnType::Map(..)) => "aggregate one of its values, as in props['country']",
            _ => "aggregate a number",
        };
        problems.add(at, format!("{base} of a value of type {of} isn't supported"), remedy);
        return None;
    };
    Some(if of.is_nullable() { result.nullable() } else { result })
}
