//! The names of the functions that a view may use, and what to say of those that it may not.

use crate::problem::nearest;

/// Functions of one event.
pub(super) const FUNCTIONS: [&str; 55] = [
    "abs",
    "and",
    "coalesce",
    "concat",
    "divide",
    "endsWith",
    "equals",
    "greater",
    "greaterOrEquals",
    "if",
    "ifNull",
    "ilike",
    "intDiv",
    "isNotNull",
    "isNull",
    "length",
    "less",
    "lessOrEquals",
    "like",
    "lower",
    "match",
    "minus",
    "modulo",
    "multiIf",
    "multiply",
    "negate",
    "not",
    "notEquals",
    "notILike",
    "notLike",
    "or",
    "plus",
    "round",
    "startsWith",
    "substr",
    "substring",
    "toDate",
    "toDateOrNull",
    "toDateOrZero",
    "toDecimal64",
    "toDecimal64OrNull",
    "toDecimal64OrZero",
    "toFloat64",
    "toFloat64OrNull",
    "toFloat64OrZero",
    "toInt64",
    "toInt64OrNull",
    "toInt64OrZero",
    "toString",
    "upper",
    "toStartOfInterval",
    "toStartOfMinute",
    "toStartOfHour",
    "toStartOfDay",
    "toStartOfFiveMinutes",
];

/// Aggregate functions, without their `-If` forms.
pub(super) const AGGREGATES: [&str; 8] =
    ["count", "sum", "min", "max", "avg", "uniqExact", "uniqCombined64", "quantileDD"];

/// The functions whose names ClickHouse takes in any case.
const ANY_CASE: [&str; 16] = [
    "abs", "avg", "coalesce", "concat", "count", "if", "ifNull", "isNull", "length", "lower", "max", "min", "not",
    "round", "sum", "upper",
];

/// The name as it is known here: some are the same in any case.
pub(super) fn canonical(written: &str) -> String {
    if FUNCTIONS.contains(&written) {
        return written.to_owned();
    }
    match ANY_CASE.iter().find(|name| name.eq_ignore_ascii_case(written)) {
        Some(name) => (*name).to_owned(),
        None => written.to_owned(),
    }
}

/// Splits an aggregate's name into function and whether it is the `-If` form.
pub(super) fn aggregate(name: &str) -> Option<(&'static str, bool)> {
    let (base, conditional) = match name.strip_suffix("If") {
        Some(base) => (base, true),
        None => (name, false),
    };
    AGGREGATES.iter().find(|known| **known == base).map(|known| (*known, conditional))
}

/// The way out for a function that isn't supported.
pub(super) fn remedy(name: &str) -> String {
    let instead = match name {
        "uniq" | "uniqCombined" | "uniqHLL12" | "uniqTheta" => "use uniqExact, or uniqCombined64 for an estimate",
        "quantile" | "quantiles" | "quantileTDigest" | "quantileExact" | "quantileTiming" | "median" => {
            "use quantileDD(0.01, 0.5)(x), whose error is bounded"
        }
        "any" | "anyLast" | "argMin" | "argMax" => "use min or max, or a query over the events",
        "cast" | "CAST" => "use toInt64, toFloat64, toDecimal64, toString or toDate",
        "toInt8" | "toInt16" | "toInt32" | "toUInt8" | "toUInt16" | "toUInt32" | "toUInt64" => "use toInt64",
        "toFloat32" => "use toFloat64",
        "toDecimal32" | "toDecimal128" => "use toDecimal64(x, scale)",
        "lowerUTF8" => "use lower, which changes ASCII letters",
        "upperUTF8" => "use upper, which changes ASCII letters",
        "lengthUTF8" => "use length, which counts bytes",
        "now" | "today" | "now64" | "yesterday" => {
            "leave it out: a view's rows may not depend on when it is computed; filter by time in a query over the view"
        }
        "toStartOfWeek" | "toStartOfMonth" | "toMonday" | "toStartOfYear" | "toStartOfQuarter" => {
            "use toStartOfDay, and roll up in a query over the view"
        }
        _ => "",
    };
    if !instead.is_empty() {
        return instead.to_owned();
    }
    let known = FUNCTIONS.iter().chain(&AGGREGATES).copied();
    match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "compute it in a ClickHouse query over the view".to_owned(),
    }
}
