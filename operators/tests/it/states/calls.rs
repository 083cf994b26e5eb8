//! Calls of every function over every type, with the types that ClickHouse gives them.

use weir_operators::aggregate::{Call, Function};
use weir_operators::expr::Expr;
use weir_schemas::types::{ColumnType, Width};

/// The types that the tests know values of.
pub(super) fn types() -> Vec<ColumnType> {
    let widths = [Width::W8, Width::W16, Width::W32, Width::W64];
    let zone = || Some("UTC".into());
    let mut types = vec![ColumnType::Bool];
    types.extend(widths.map(ColumnType::Int));
    types.extend(widths.map(ColumnType::UInt));
    types.extend([
        ColumnType::Float32,
        ColumnType::Float64,
        ColumnType::Decimal(9, 2),
        ColumnType::Decimal(18, 4),
        ColumnType::Decimal(38, 10),
        ColumnType::Decimal(76, 20),
        ColumnType::String,
        ColumnType::LowCardinality,
        ColumnType::FixedString(5),
        ColumnType::Uuid,
        ColumnType::Date,
        ColumnType::Date32,
        ColumnType::DateTime(zone()),
        ColumnType::DateTime64(0, zone()),
        ColumnType::DateTime64(3, zone()),
        ColumnType::DateTime64(6, zone()),
        ColumnType::DateTime64(9, zone()),
    ]);
    types
}

/// Every function.
pub(super) fn functions() -> Vec<Function> {
    vec![
        Function::Count,
        Function::Sum,
        Function::Min,
        Function::Max,
        Function::Avg,
        Function::UniqExact,
        Function::UniqCombined64,
        Function::QuantileDd { relative_accuracy: 0.01, level: 0.9 },
        Function::QuantileDd { relative_accuracy: 0.003, level: 0.25 },
    ]
}

/// The parameters of a function, in SQL.
pub(super) fn parameters(function: &Function) -> String {
    match function {
        Function::QuantileDd { relative_accuracy, level } => format!("({relative_accuracy}, {level})"),
        _ => String::new(),
    }
}

/// Whether ClickHouse has the function for the type.
fn takes(function: &Function, of: &ColumnType) -> bool {
    let decimal = matches!(of, ColumnType::Decimal(..));
    let number = decimal
        || matches!(
            of,
            ColumnType::Bool | ColumnType::Int(_) | ColumnType::UInt(_) | ColumnType::Float32 | ColumnType::Float64
        );
    match function {
        Function::Sum | Function::Avg => number,
        Function::QuantileDd { .. } => number && !decimal,
        _ => true,
    }
}

/// The call of a function over one argument; nothing where ClickHouse has none.
pub(super) fn call(function: &Function, argument: &ColumnType) -> Option<Call> {
    let of = argument.without_null();
    if !takes(function, of) {
        return None;
    }
    let counts = matches!(function, Function::Count | Function::UniqExact | Function::UniqCombined64);
    let result = match (function, of) {
        _ if counts => ColumnType::UInt(Width::W64),
        (Function::Avg | Function::QuantileDd { .. }, _) => ColumnType::Float64,
        (Function::Min | Function::Max, ColumnType::LowCardinality) => ColumnType::String,
        (Function::Min | Function::Max, of) => of.clone(),
        (_, ColumnType::Int(_)) => ColumnType::Int(Width::W64),
        (_, ColumnType::Bool | ColumnType::UInt(_)) => ColumnType::UInt(Width::W64),
        (_, ColumnType::Decimal(..=38, scale)) => ColumnType::Decimal(38, *scale),
        (_, ColumnType::Decimal(_, scale)) => ColumnType::Decimal(76, *scale),
        _ => ColumnType::Float64,
    };
    // Of the functions that count, uniqCombined64 alone gives NULL where there are nulls only.
    let without_null = matches!(function, Function::Count | Function::UniqExact);
    let result = if argument.is_nullable() && !without_null { result.nullable() } else { result };
    let argument_in_state = match (of, argument.is_nullable()) {
        (ColumnType::LowCardinality, false) => ColumnType::String,
        (ColumnType::LowCardinality, true) => ColumnType::String.nullable(),
        _ => argument.clone(),
    };
    Some(Call {
        function: function.clone(),
        arguments: vec![Expr::Column { index: 0, name: "x".into(), column_type: argument.clone() }],
        condition: None,
        signature: format!("{}{}, {argument_in_state}", function.name(), parameters(function)),
        result,
    })
}
