//! The closed list of functions: what the planner may use and evaluation can compute.

use std::fmt;
use std::sync::Arc;

use weir_schemas::types::{ColumnType, Zone};

use super::{Expr, Members, Regular};

/// A function of an expression, in ClickHouse's meaning of its name.
#[derive(Clone, Debug, PartialEq)]
pub enum Function {
    /// `a + b`
    Plus,
    /// `a - b`
    Minus,
    /// `a * b`
    Multiply,
    /// `a / b`
    Divide,
    /// `intDiv(a, b)`; `b` is a literal other than zero.
    IntDiv,
    /// `a % b`; `b` is a literal other than zero.
    Modulo,
    /// `-a`
    Negate,
    /// `abs(a)`
    Abs,
    /// `round(a, digits)`
    Round(i32),
    /// A comparison.
    Compare(Comparison),
    /// `a AND b AND ...`
    And,
    /// `a OR b OR ...`
    Or,
    /// `NOT a`
    Not,
    /// `a IS NULL`
    IsNull,
    /// `a IS NOT NULL`
    IsNotNull,
    /// `multiIf(c1, v1, c2, v2, ..., otherwise)`; `if` is the form with one condition.
    MultiIf,
    /// `coalesce(a, b, ...)`, also `ifNull`.
    Coalesce,
    /// `a IN (...)`
    In {
        /// The list, in the type of `a`.
        members: Arc<Members>,
        /// `NOT IN`
        negated: bool,
    },
    /// `a LIKE pattern` and its variants.
    Like {
        /// The pattern.
        pattern: Arc<Pattern>,
        /// `NOT LIKE`
        negated: bool,
    },
    /// `match(a, expression)`
    Match(Arc<Regular>),
    /// `lower(a)`: ASCII letters only.
    Lower,
    /// `upper(a)`: ASCII letters only.
    Upper,
    /// `length(a)`: bytes of a string, elements of an array or a map.
    Length,
    /// `concat(a, b, ...)`
    Concat,
    /// `substring(a, offset[, length])`: bytes.
    Substring,
    /// `startsWith(a, prefix)`
    StartsWith,
    /// `endsWith(a, suffix)`
    EndsWith,
    /// `toString(a)`
    ToString,
    /// `toInt64(a)` and so on, of a value that isn't a string.
    Convert(Target),
    /// `toInt64(a)`, `toInt64OrZero(a)`, `toInt64OrNull(a)` and so on, of a string.
    Parse(Target, OnFailure),
    /// `toDate(a[, zone])`: the day of an instant in a zone.
    ToDate(Option<Zone>),
    /// `a['key']` of a map with string keys; a missing key gives the value type's default.
    MapGet,
    /// A conversion that loses nothing, put in by the planner where ClickHouse converts by itself.
    Widen,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// What a value is converted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `Int64`
    Int64,
    /// `Float64`
    Float64,
    /// `Decimal(18, scale)`
    Decimal64(u8),
    /// `Date`; a conversion to it is [`Function::ToDate`], so this is for strings alone.
    Date,
}

/// What stands for a string that can't be read as the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Zero.
    Zero,
    /// NULL.
    Null,
    /// Nothing: evaluation fails, as ClickHouse's query does.
    Error,
}

/// A LIKE pattern, taken apart once.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    /// The pattern as it was written, for messages.
    pub text: String,
    /// ILIKE: ASCII letters match either case.
    pub ignore_case: bool,
    pub(super) folds_unicode: bool,
    pub(super) open_start: bool,
    pub(super) open_end: bool,
    pub(super) segments: Vec<Vec<PatternToken>>,
}

/// One character of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatternToken {
    /// This byte.
    Byte(u8),
    /// `_`: one character of UTF-8.
    AnyCharacter,
}

impl Function {
    /// ClickHouse's name.
    pub fn name(&self) -> &'static str {
        match self {
            Function::Plus => "plus",
            Function::Minus => "minus",
            Function::Multiply => "multiply",
            Function::Divide => "divide",
            Function::IntDiv => "intDiv",
            Function::Modulo => "modulo",
            Function::Negate => "negate",
            Function::Abs => "abs",
            Function::Round(_) => "round",
            Function::Compare(comparison) => comparison.name(),
            Function::And => "and",
            Function::Or => "or",
            Function::Not => "not",
            Function::IsNull => "isNull",
            Function::IsNotNull => "isNotNull",
            Function::MultiIf => "multiIf",
            Function::Coalesce => "coalesce",
            Function::In { negated: false, .. } => "in",
            Function::In { negated: true, .. } => "notIn",
            Function::Like { pattern, negated } => match (pattern.ignore_case, negated) {
                (false, false) => "like",
                (false, true) => "notLike",
                (true, false) => "ilike",
                (true, true) => "notILike",
            },
            Function::Match(_) => "match",
            Function::Lower => "lower",
            Function::Upper => "upper",
            Function::Length => "length",
            Function::Concat => "concat",
            Function::Substring => "substring",
            Function::StartsWith => "startsWith",
            Function::EndsWith => "endsWith",
            Function::ToString => "toString",
            Function::Convert(Target::Int64) | Function::Parse(Target::Int64, OnFailure::Error) => "toInt64",
            Function::Convert(Target::Float64) | Function::Parse(Target::Float64, OnFailure::Error) => "toFloat64",
            Function::Convert(Target::Decimal64(_)) | Function::Parse(Target::Decimal64(_), OnFailure::Error) => {
                "toDecimal64"
            }
            Function::Parse(Target::Int64, OnFailure::Zero) => "toInt64OrZero",
            Function::Parse(Target::Int64, OnFailure::Null) => "toInt64OrNull",
            Function::Parse(Target::Float64, OnFailure::Zero) => "toFloat64OrZero",
            Function::Parse(Target::Float64, OnFailure::Null) => "toFloat64OrNull",
            Function::Parse(Target::Decimal64(_), OnFailure::Zero) => "toDecimal64OrZero",
            Function::Parse(Target::Decimal64(_), OnFailure::Null) => "toDecimal64OrNull",
            Function::Parse(Target::Date, OnFailure::Zero) => "toDateOrZero",
            Function::Parse(Target::Date, OnFailure::Null) => "toDateOrNull",
            Function::Convert(Target::Date) | Function::Parse(Target::Date, OnFailure::Error) | Function::ToDate(_) => {
                "toDate"
            }
            Function::MapGet => "arrayElement",
            Function::Widen => "CAST",
        }
    }

    /// Whether a call fails for some values of its arguments.
    pub(super) fn can_fail(&self, arguments: &[Expr], result: &ColumnType) -> bool {
        let is_decimal = |of: &ColumnType| matches!(of.without_null(), ColumnType::Decimal(..));
        let scale = |of: &Expr| match of.column_type().without_null() {
            ColumnType::Decimal(_, scale) => Some(*scale),
            _ => None,
        };
        match self {
            Function::Plus
            | Function::Minus
            | Function::Multiply
            | Function::Divide
            | Function::Round(_)
            | Function::Widen => is_decimal(result),
            Function::Convert(Target::Decimal64(_)) | Function::Parse(_, OnFailure::Error) => true,
            Function::Convert(Target::Int64) => arguments.iter().any(|argument| {
                let of = argument.column_type();
                is_decimal(of) || matches!(of.without_null(), ColumnType::Float32 | ColumnType::Float64)
            }),
            // Two decimals are brought to one scale.
            Function::Compare(_) => match arguments {
                [left, right] => scale(left).zip(scale(right)).is_some_and(|(left, right)| left != right),
                _ => true,
            },
            Function::Substring => arguments.len() > 2,
            _ => false,
        }
    }

    /// Writes a call of this function as ClickHouse's text, with the parts that aren't arguments.
    pub(super) fn write_call(&self, f: &mut fmt::Formatter<'_>, arguments: &[Expr]) -> fmt::Result {
        let operator = match self {
            Function::Plus => Some(" + "),
            Function::Minus => Some(" - "),
            Function::Multiply => Some(" * "),
            Function::Divide => Some(" / "),
            Function::Modulo => Some(" % "),
            Function::And => Some(" AND "),
            Function::Or => Some(" OR "),
            Function::Compare(comparison) => Some(comparison.operator()),
            _ => None,
        };
        if let Some(operator) = operator {
            f.write_str("(")?;
            write_list(f, arguments, operator)?;
            return f.write_str(")");
        }
        if let (Function::MapGet, [map, key]) = (self, arguments) {
            return write!(f, "{map}[{key}]");
        }
        write!(f, "{}(", self.name())?;
        write_list(f, arguments, ", ")?;
        match self {
            Function::Round(digits) => write!(f, ", {digits}")?,
            Function::In { members, .. } => write!(f, ", ({members})")?,
            Function::Like { pattern, .. } => write!(f, ", '{}'", pattern.text.escape_debug())?,
            Function::Match(regular) => write!(f, ", '{}'", regular.text.escape_debug())?,
            Function::Convert(Target::Decimal64(scale)) | Function::Parse(Target::Decimal64(scale), _) => {
                write!(f, ", {scale}")?;
            }
            Function::ToDate(Some(zone)) => write!(f, ", '{zone}'")?,
            _ => {}
        }
        f.write_str(")")
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, items: &[Expr], separator: &str) -> fmt::Result {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            f.write_str(separator)?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}

impl Comparison {
    /// ClickHouse's name of the function.
    pub fn name(self) -> &'static str {
        match self {
            Comparison::Equal => "equals",
            Comparison::NotEqual => "notEquals",
            Comparison::Less => "less",
            Comparison::LessOrEqual => "lessOrEquals",
            Comparison::Greater => "greater",
            Comparison::GreaterOrEqual => "greaterOrEquals",
        }
    }

    fn operator(self) -> &'static str {
        match self {
            Comparison::Equal => " = ",
            Comparison::NotEqual => " != ",
            Comparison::Less => " < ",
            Comparison::LessOrEqual => " <= ",
            Comparison::Greater => " > ",
            Comparison::GreaterOrEqual => " >= ",
        }
    }

    /// The comparison with its sides exchanged.
    #[must_use]
    pub fn flipped(self) -> Comparison {
        match self {
            Comparison::Less => Comparison::Greater,
            Comparison::LessOrEqual => Comparison::GreaterOrEqual,
            Comparison::Greater => Comparison::Less,
            Comparison::GreaterOrEqual => Comparison::LessOrEqual,
            same => same,
        }
    }
}
