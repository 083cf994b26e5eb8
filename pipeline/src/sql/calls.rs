//! Calls of functions by their names: which are known, and which of their arguments must be literals.

use std::sync::Arc;

use sqlparser::ast::{self, FunctionArg, FunctionArgExpr, FunctionArguments};
use sqlparser::tokenizer::Location;
use weir_operators::expr::{Comparison, Expr, Function, LocalTime, OnFailure, Refusal, Regular, Scalar, Target};
use weir_schemas::types::Zone;

use super::expressions::{Builder, Operand, nullable};
use super::functions::{self, canonical};

impl Builder<'_, '_, '_> {
    /// A call whose arguments still have to be built.
    pub(super) fn call_of(&mut self, function: Function, arguments: &[&ast::Expr], at: Location) -> Option<Expr> {
        let places: Vec<Location> = arguments.iter().map(|argument| self.place(argument)).collect();
        // Each argument is built even if one fails, so that all problems are found.
        let built: Vec<Option<Expr>> = arguments.iter().map(|argument| self.value(argument)).collect();
        let built: Vec<Expr> = built.into_iter().collect::<Option<_>>()?;
        self.call(function, built, &places, at)
    }

    pub(super) fn call(
        &mut self,
        function: Function,
        arguments: Vec<Expr>,
        places: &[Location],
        at: Location,
    ) -> Option<Expr> {
        let call = Expr::call(function, arguments);
        self.or_refuse(call, places, at)
    }

    pub(super) fn or_refuse(&mut self, call: Result<Expr, Refusal>, places: &[Location], at: Location) -> Option<Expr> {
        match call {
            Ok(call) => Some(call),
            Err(refusal) => {
                let place = refusal.argument.and_then(|argument| places.get(argument).copied());
                self.problems.refuse(place.unwrap_or(at), refusal);
                None
            }
        }
    }

    /// A call of a function of one event.
    pub(super) fn named(&mut self, written: &str, arguments: &[&ast::Expr], at: Location) -> Option<Expr> {
        use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        let function = match canonical(written).as_str() {
            "plus" => Function::Plus,
            "minus" => Function::Minus,
            "multiply" => Function::Multiply,
            "divide" => Function::Divide,
            "intDiv" => Function::IntDiv,
            "modulo" => Function::Modulo,
            "negate" => Function::Negate,
            "abs" => Function::Abs,
            "round" => return self.with_digits(arguments, at),
            "equals" => Function::Compare(Equal),
            "notEquals" => Function::Compare(NotEqual),
            "less" => Function::Compare(Less),
            "lessOrEquals" => Function::Compare(LessOrEqual),
            "greater" => Function::Compare(Greater),
            "greaterOrEquals" => Function::Compare(GreaterOrEqual),
            "and" => Function::And,
            "or" => Function::Or,
            "not" => Function::Not,
            "isNull" => Function::IsNull,
            "isNotNull" => Function::IsNotNull,
            "like" | "notLike" | "ilike" | "notILike" => {
                let [value, pattern] = arguments else {
                    self.problems.add(at, format!("{written} takes a string and a pattern"), "give it two arguments");
                    return None;
                };
                return self.like(
                    value,
                    pattern,
                    written.starts_with("not"),
                    written.to_lowercase().ends_with("ilike"),
                    at,
                );
            }
            "match" => {
                let [value, expression] = arguments else {
                    let message = "match takes a string and a regular expression";
                    self.problems.add(at, message, "give it two arguments");
                    return None;
                };
                return self.regular(value, expression, at);
            }
            "lower" => Function::Lower,
            "upper" => Function::Upper,
            "length" => Function::Length,
            "concat" => Function::Concat,
            "substring" | "substr" => Function::Substring,
            "startsWith" => Function::StartsWith,
            "endsWith" => Function::EndsWith,
            "toString" => Function::ToString,
            "toInt64" => Function::Convert(Target::Int64),
            "toInt64OrZero" => Function::Parse(Target::Int64, OnFailure::Zero),
            "toInt64OrNull" => Function::Parse(Target::Int64, OnFailure::Null),
            "toFloat64" => Function::Convert(Target::Float64),
            "toFloat64OrZero" => Function::Parse(Target::Float64, OnFailure::Zero),
            "toFloat64OrNull" => Function::Parse(Target::Float64, OnFailure::Null),
            "toDecimal64" => return self.with_scale(Function::Convert, arguments, at),
            "toDecimal64OrZero" => {
                return self.with_scale(|target| Function::Parse(target, OnFailure::Zero), arguments, at);
            }
            "toDecimal64OrNull" => {
                return self.with_scale(|target| Function::Parse(target, OnFailure::Null), arguments, at);
            }
            "toDate" => return self.date_of(arguments, at),
            "toDateOrZero" => Function::Parse(Target::Date, OnFailure::Zero),
            "toDateOrNull" => Function::Parse(Target::Date, OnFailure::Null),
            "if" | "multiIf" => return self.conditional(written, arguments, at),
            "coalesce" | "ifNull" => return self.coalesce(arguments, at),
            _ => {
                self.problems.add(at, format!("the function {written} isn't supported"), functions::remedy(written));
                return None;
            }
        };
        self.call_of(function, arguments, at)
    }

    /// `match(x, expression)`.
    fn regular(&mut self, value: &ast::Expr, expression: &ast::Expr, at: Location) -> Option<Expr> {
        let place = self.place(expression);
        let (value, expression) = (self.value(value), self.value(expression));
        let (value, expression) = (value?, expression?);
        let text = match &expression {
            Expr::Literal { value: Scalar::Bytes(bytes), .. } => std::str::from_utf8(bytes).ok(),
            _ => None,
        };
        let Some(text) = text else {
            self.problems.add(place, "the expression of match must be a literal", "write it as a string");
            return None;
        };
        match Regular::new(text) {
            Ok(regular) => self.call(Function::Match(Arc::new(regular)), vec![value], &[], at),
            Err(message) => {
                self.problems.add(place, message, "change the expression; in a string, a backslash is written as two");
                None
            }
        }
    }

    /// `round(x[, digits])`.
    fn with_digits(&mut self, arguments: &[&ast::Expr], at: Location) -> Option<Expr> {
        let digits = match arguments.get(1) {
            None => 0,
            Some(digits) => self.whole_number(digits, "the number of decimal places")?,
        };
        self.one_or_two(Function::Round(digits), arguments, at)
    }

    /// `toDecimal64(x, scale)`.
    fn with_scale(
        &mut self,
        function: impl Fn(Target) -> Function,
        arguments: &[&ast::Expr],
        at: Location,
    ) -> Option<Expr> {
        let [value, scale] = arguments else {
            self.problems.add(at, "toDecimal64 takes a value and a scale", "write toDecimal64(x, 2)");
            return None;
        };
        let place = self.place(scale);
        let scale = self.whole_number(scale, "the scale")?;
        let Ok(scale) = u8::try_from(scale) else {
            self.problems.add(place, format!("a Decimal64 has no {scale} decimal places"), "use a scale of 0 to 18");
            return None;
        };
        self.call_of(function(Target::Decimal64(scale)), &[*value], at)
    }

    fn date_of(&mut self, arguments: &[&ast::Expr], at: Location) -> Option<Expr> {
        let zone = match arguments.get(1) {
            None => None,
            Some(zone) => {
                let place = self.place(zone);
                let name = match self.value(zone)? {
                    Expr::Literal { value: Scalar::Bytes(bytes), .. } => String::from_utf8(bytes.to_vec()).ok(),
                    _ => None,
                };
                let known = name.map(Zone::from).filter(|name| LocalTime::new(Some(name)).is_some());
                if known.is_none() {
                    self.problems.add(
                        place,
                        "this is no time zone",
                        "write an IANA name as a literal, such as 'Europe/Berlin'",
                    );
                    return None;
                }
                known
            }
        };
        self.one_or_two(Function::ToDate(zone), arguments, at)
    }

    /// A call whose first argument is its value; the second, where there is one, has become a part of `function`.
    fn one_or_two(&mut self, function: Function, arguments: &[&ast::Expr], at: Location) -> Option<Expr> {
        let ([value] | [value, _]) = arguments else {
            let message = format!("{} arguments where one or two are taken", arguments.len());
            self.problems.add(at, message, "give it a value and, if wanted, a second argument");
            return None;
        };
        self.call_of(function, &[*value], at)
    }

    fn whole_number(&mut self, node: &ast::Expr, what: &str) -> Option<i32> {
        let place = self.place(node);
        let number = match self.value(node)? {
            Expr::Literal { value: Scalar::UInt(value), .. } => i32::try_from(value).ok(),
            Expr::Literal { value: Scalar::Int(value), .. } => i32::try_from(value).ok(),
            _ => None,
        };
        if number.is_none() {
            self.problems.add(place, format!("{what} must be a literal"), "write a whole number");
        }
        number
    }

    fn conditional(&mut self, written: &str, arguments: &[&ast::Expr], at: Location) -> Option<Expr> {
        let wrong_count = arguments.len() < 3
            || arguments.len().is_multiple_of(2)
            || (written.eq_ignore_ascii_case("if") && arguments.len() != 3);
        if wrong_count {
            self.problems.add(
                at,
                format!(
                    "{written} takes conditions and values in turn, and one value at the end, not {} arguments",
                    arguments.len()
                ),
                "write if(condition, then, otherwise), or multiIf for several conditions",
            );
            return None;
        }
        let pairs = arguments.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        self.multi_if(pairs, arguments.last().copied(), at)
    }

    pub(super) fn multi_if(
        &mut self,
        pairs: Vec<(&ast::Expr, &ast::Expr)>,
        otherwise: Option<&ast::Expr>,
        at: Location,
    ) -> Option<Expr> {
        let mut conditions = Vec::with_capacity(pairs.len());
        let mut branches = Vec::with_capacity(pairs.len() + 1);
        let mut places = Vec::new();
        let mut whole = true;
        for (condition, branch) in pairs {
            places.extend([self.place(condition), self.place(branch)]);
            match (self.value(condition), self.operand(branch)) {
                (Some(condition), Some(branch)) => {
                    conditions.push(condition);
                    branches.push(nullable(branch));
                }
                _ => whole = false,
            }
        }
        match otherwise.map(|node| (self.place(node), self.operand(node))) {
            None => branches.push(None),
            Some((place, Some(branch))) => {
                places.push(place);
                branches.push(nullable(branch));
            }
            Some((_, None)) => whole = false,
        }
        if !whole {
            return None;
        }
        let call = Expr::multi_if(conditions, branches);
        self.or_refuse(call, &places, at)
    }

    fn coalesce(&mut self, arguments: &[&ast::Expr], at: Location) -> Option<Expr> {
        let places: Vec<Location> = arguments.iter().map(|argument| self.place(argument)).collect();
        let operands: Vec<Option<Operand>> = arguments.iter().map(|argument| self.operand(argument)).collect();
        let operands: Vec<Operand> = operands.into_iter().collect::<Option<_>>()?;
        self.or_refuse(Expr::coalesce(operands.into_iter().filter_map(nullable).collect()), &places, at)
    }
}

/// The plain arguments of a call; `None` if there is anything else between its parentheses.
pub(super) fn argument_list(function: &ast::Function) -> Option<Vec<&ast::Expr>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    if list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
        return None;
    }
    list.args
        .iter()
        .map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
            _ => None,
        })
        .collect()
}
