//! From sqlparser's expressions to typed ones.

use std::sync::Arc;

use sqlparser::ast::{self, AccessExpr, BinaryOperator, FunctionArguments, Subscript, UnaryOperator};
use sqlparser::tokenizer::Location;
use weir_operators::expr::{Comparison, Expr, Function, Members, Pattern, Scalar};
use weir_schemas::types::ColumnType;

use super::calls::argument_list;
use super::functions;
use super::places::{Problems, start};
use super::scope::Scope;
use super::{aggregates, literals, windows};
use crate::problem::nearest;

/// How often aliases may stand for one another.
const ALIAS_DEPTH: usize = 16;

/// Builds typed expressions in one scope; what can't be built becomes a problem and `None`.
pub(super) struct Builder<'a, 'p, 't> {
    pub(super) scope: &'a Scope<'a>,
    pub(super) problems: &'p mut Problems<'t>,
    /// The aliases that are being looked through, the innermost last.
    pub(super) within: Vec<String>,
    /// Where a problem is when the parser doesn't know the place.
    pub(super) fallback: Location,
}

/// A value, or the literal NULL, whose type depends on where it stands.
pub(super) enum Operand {
    Null,
    Value(Expr),
}

impl Builder<'_, '_, '_> {
    /// A value; a literal NULL is refused.
    pub(super) fn value(&mut self, node: &ast::Expr) -> Option<Expr> {
        let at = self.place(node);
        match self.operand(node)? {
            Operand::Value(value) => Some(value),
            Operand::Null => {
                self.problems.add(
                    at,
                    "NULL here makes the result NULL for every row",
                    "write `x IS NULL`, or coalesce(x, default)",
                );
                None
            }
        }
    }

    pub(super) fn place(&self, node: &ast::Expr) -> Location {
        start(node, self.fallback)
    }

    pub(super) fn operand(&mut self, node: &ast::Expr) -> Option<Operand> {
        let at = self.place(node);
        if let ast::Expr::Value(value) = node
            && value.value == ast::Value::Null
        {
            return Some(Operand::Null);
        }
        if let ast::Expr::Nested(inner) = node {
            return self.operand(inner);
        }
        self.build(node, at).map(Operand::Value)
    }

    fn build(&mut self, node: &ast::Expr, at: Location) -> Option<Expr> {
        if let Some(known) = self.known_output(node) {
            return Some(known);
        }
        match node {
            ast::Expr::Identifier(name) => self.name(&name.value, at),
            ast::Expr::CompoundIdentifier(parts) => self.dotted(parts, at),
            ast::Expr::Value(value) => self.literal(&value.value, at),
            ast::Expr::UnaryOp { op, expr } => self.unary(*op, expr, at),
            ast::Expr::BinaryOp { left, op, right } => self.binary(left, op, right, at),
            ast::Expr::IsNull(inner) => self.call_of(Function::IsNull, &[inner], at),
            ast::Expr::IsNotNull(inner) => self.call_of(Function::IsNotNull, &[inner], at),
            ast::Expr::Between { expr, negated, low, high } => self.between(expr, *negated, low, high, at),
            ast::Expr::InList { expr, list, negated } => self.in_list(expr, list, *negated, at),
            ast::Expr::Like { negated, expr, pattern, escape_char: None, any: false } => {
                self.like(expr, pattern, *negated, false, at)
            }
            ast::Expr::ILike { negated, expr, pattern, escape_char: None, any: false } => {
                self.like(expr, pattern, *negated, true, at)
            }
            ast::Expr::CompoundFieldAccess { root, access_chain } => self.access(root, access_chain, at),
            ast::Expr::Substring { expr, substring_from: Some(from), substring_for, .. } => {
                let mut arguments = vec![expr.as_ref(), from.as_ref()];
                arguments.extend(substring_for.as_deref());
                self.call_of(Function::Substring, &arguments, at)
            }
            ast::Expr::Case { operand: None, conditions, else_result, .. } => {
                let conditions_and_values = conditions.iter().map(|when| (&when.condition, &when.result)).collect();
                self.multi_if(conditions_and_values, else_result.as_deref(), at)
            }
            ast::Expr::Function(function) => self.function(function, at),
            other => {
                self.unsupported(other, at);
                None
            }
        }
    }

    /// In HAVING, a dimension's expression or a measure's call that stands in the SELECT.
    fn known_output(&mut self, node: &ast::Expr) -> Option<Expr> {
        let Scope::Outputs { columns, measures, dimensions, events } = self.scope else { return None };
        let column = |at: usize| {
            let column = columns.get(at)?;
            Some(Expr::Column { index: at, name: column.name.clone(), column_type: column.column_type.clone() })
        };
        match node {
            ast::Expr::Function(function) if aggregates::is_aggregate(function) => {
                let mut scratch = Problems::new("", "");
                let call = aggregates::call(function, events, &mut scratch, self.fallback)?;
                let at = measures.iter().find(|(_, measure)| aggregates::same(&measure.call, &call))?.0;
                column(at)
            }
            ast::Expr::Function(_) | ast::Expr::CompoundFieldAccess { .. } | ast::Expr::BinaryOp { .. } => {
                let mut scratch = Problems::new("", "");
                let mut builder =
                    Builder { scope: events, problems: &mut scratch, within: Vec::new(), fallback: self.fallback };
                let value = builder.value(node)?;
                let at = dimensions.iter().find(|(_, dimension)| dimension.value == value)?.0;
                column(at)
            }
            _ => None,
        }
    }

    fn name(&mut self, name: &str, at: Location) -> Option<Expr> {
        let column = self.scope.column(name);
        let Scope::Events { aliases, .. } = self.scope else {
            return column.or_else(|| self.unknown_name(name, at));
        };
        let Some(aliased) = aliases.get(name).copied().filter(|_| !self.within.iter().any(|within| within == name))
        else {
            return column.or_else(|| self.unknown_name(name, at));
        };
        let itself = matches!(aliased, ast::Expr::Identifier(column) if column.value == name);
        if let (Some(column), true) = (&column, itself) {
            return Some(column.clone());
        }
        if column.is_some() {
            self.problems.add(
                at,
                format!("`{name}` is both a column and an alias of this SELECT, and ClickHouse takes the alias"),
                "give the alias another name",
            );
            return None;
        }
        if self.within.len() >= ALIAS_DEPTH {
            self.problems.add(at, "aliases stand for one another too often", "write the expression out");
            return None;
        }
        self.within.push(name.to_owned());
        let value = self.value(aliased);
        self.within.pop();
        value
    }

    fn unknown_name(&mut self, name: &str, at: Location) -> Option<Expr> {
        let (message, otherwise) = match self.scope {
            Scope::Events { .. } => (format!("there is no column `{name}`"), "see the reader schema for the columns"),
            Scope::Outputs { events, .. } if events.column(name).is_some() => (
                format!("`{name}` isn't in the SELECT, and HAVING sees its columns only"),
                "put the condition into WHERE, or add the column to SELECT and GROUP BY",
            ),
            Scope::Outputs { .. } => {
                (format!("there is no column `{name}` in this SELECT"), "use an alias of the SELECT")
            }
        };
        let remedy = match nearest(name, self.scope.names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => otherwise.to_owned(),
        };
        self.problems.add(at, message, remedy);
        None
    }

    fn dotted(&mut self, parts: &[ast::Ident], at: Location) -> Option<Expr> {
        let joined = |parts: &[ast::Ident]| parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(".");
        let whole = joined(parts);
        if let Some(column) = self.scope.column(&whole) {
            return Some(column);
        }
        if let (Scope::Events { qualifiers, .. }, Some((first, rest))) = (self.scope, parts.split_first())
            && qualifiers.contains(&first.value)
            && let Some(column) = self.scope.column(&joined(rest))
        {
            return Some(column);
        }
        self.unknown_name(&whole, at)
    }

    fn literal(&mut self, value: &ast::Value, at: Location) -> Option<Expr> {
        let literal = match value {
            ast::Value::Number(text, _) => literals::number(text, false),
            ast::Value::SingleQuotedString(raw) => literals::string(raw),
            ast::Value::Boolean(value) => {
                Ok(Expr::Literal { value: Scalar::Bool(*value), column_type: ColumnType::Bool })
            }
            ast::Value::HexStringLiteral(_) => Err("write the number with decimal digits"),
            _ => Err("write a number, a string in single quotes, true, false or NULL"),
        };
        self.or_add(literal, at, || format!("the literal {value} isn't supported"))
    }

    pub(super) fn or_add<T>(
        &mut self,
        result: Result<T, &'static str>,
        at: Location,
        message: impl Fn() -> String,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(remedy) => {
                self.problems.add(at, message(), remedy);
                None
            }
        }
    }

    fn unary(&mut self, op: UnaryOperator, inner: &ast::Expr, at: Location) -> Option<Expr> {
        match (op, inner) {
            (UnaryOperator::Minus, ast::Expr::Value(value)) if matches!(value.value, ast::Value::Number(..)) => {
                let ast::Value::Number(text, _) = &value.value else { return None };
                let literal = literals::number(text, true);
                self.or_add(literal, at, || format!("the literal -{text} isn't supported"))
            }
            (UnaryOperator::Plus, ast::Expr::Value(_)) => self.value(inner),
            (UnaryOperator::Minus, _) => self.call_of(Function::Negate, &[inner], at),
            (UnaryOperator::Not, _) => self.call_of(Function::Not, &[inner], at),
            _ => {
                self.problems.add(at, format!("the operator {op} isn't supported"), "write it with a function");
                None
            }
        }
    }

    fn binary(&mut self, left: &ast::Expr, op: &BinaryOperator, right: &ast::Expr, at: Location) -> Option<Expr> {
        let function = match op {
            BinaryOperator::Plus => Function::Plus,
            BinaryOperator::Minus => Function::Minus,
            BinaryOperator::Multiply => Function::Multiply,
            BinaryOperator::Divide => Function::Divide,
            BinaryOperator::Modulo => Function::Modulo,
            BinaryOperator::MyIntegerDivide => Function::IntDiv,
            BinaryOperator::StringConcat => Function::Concat,
            BinaryOperator::And => Function::And,
            BinaryOperator::Or => Function::Or,
            BinaryOperator::Eq => Function::Compare(Comparison::Equal),
            BinaryOperator::NotEq => Function::Compare(Comparison::NotEqual),
            BinaryOperator::Lt => Function::Compare(Comparison::Less),
            BinaryOperator::LtEq => Function::Compare(Comparison::LessOrEqual),
            BinaryOperator::Gt => Function::Compare(Comparison::Greater),
            BinaryOperator::GtEq => Function::Compare(Comparison::GreaterOrEqual),
            other => {
                self.problems.add(at, format!("the operator {other} isn't supported"), functions::remedy(""));
                return None;
            }
        };
        // sqlparser and ClickHouse bind these differently, so nobody should have to know how.
        let unclear = |operand: &ast::Expr| match &function {
            Function::Compare(_) => is_comparison(operand),
            Function::Concat => {
                matches!(operand, ast::Expr::BinaryOp { op, .. } if *op != BinaryOperator::StringConcat)
            }
            Function::And | Function::Or => false,
            _ => matches!(operand, ast::Expr::BinaryOp { op: BinaryOperator::StringConcat, .. }),
        };
        if unclear(left) || unclear(right) {
            self.problems.add(
                at,
                format!("which side {op} takes first isn't clear here"),
                "put parentheses around each side",
            );
            return None;
        }
        self.call_of(function, &[left, right], at)
    }

    fn between(
        &mut self,
        value: &ast::Expr,
        negated: bool,
        low: &ast::Expr,
        high: &ast::Expr,
        at: Location,
    ) -> Option<Expr> {
        let (value, low, high) = (self.value(value), self.value(low), self.value(high));
        let (value, low, high) = (value?, low?, high?);
        let (above, below, both) = if negated {
            (Comparison::Less, Comparison::Greater, Function::Or)
        } else {
            (Comparison::GreaterOrEqual, Comparison::LessOrEqual, Function::And)
        };
        let above = self.call(Function::Compare(above), vec![value.clone(), low], &[], at)?;
        let below = self.call(Function::Compare(below), vec![value, high], &[], at)?;
        self.call(both, vec![above, below], &[], at)
    }

    fn in_list(&mut self, value: &ast::Expr, list: &[ast::Expr], negated: bool, at: Location) -> Option<Expr> {
        if is_comparison(value) {
            self.problems.add(at, "what IN looks for isn't clear here", "put parentheses around its left side");
            return None;
        }
        let value = self.value(value);
        let mut members = Vec::with_capacity(list.len());
        let mut places = Vec::with_capacity(list.len());
        let mut whole = true;
        for item in list {
            match self.operand(item) {
                // NULL is never found.
                Some(Operand::Null) => {}
                Some(Operand::Value(literal)) => {
                    members.push(literal);
                    places.push(self.place(item));
                }
                None => whole = false,
            }
        }
        let value = value.filter(|_| whole)?;
        match Members::new(value.column_type(), &members) {
            Ok(members) => self.call(Function::In { members: Arc::new(members), negated }, vec![value], &[], at),
            Err(refusal) => {
                let place = refusal.argument.and_then(|argument| places.get(argument).copied());
                self.problems.refuse(place.unwrap_or(at), refusal);
                None
            }
        }
    }

    pub(super) fn like(
        &mut self,
        value: &ast::Expr,
        pattern: &ast::Expr,
        negated: bool,
        ignore_case: bool,
        at: Location,
    ) -> Option<Expr> {
        let place = self.place(pattern);
        let (value, pattern) = (self.value(value), self.value(pattern));
        let (value, pattern) = (value?, pattern?);
        let text = match &pattern {
            Expr::Literal { value: Scalar::Bytes(bytes), .. } => std::str::from_utf8(bytes).ok(),
            _ => None,
        };
        let Some(text) = text else {
            self.problems.add(place, "the pattern of LIKE must be a literal", "write the pattern as a string");
            return None;
        };
        match Pattern::new(text, ignore_case) {
            Ok(pattern) => self.call(Function::Like { pattern: Arc::new(pattern), negated }, vec![value], &[], at),
            Err(message) => {
                self.problems.add(place, message, "change the pattern; in a string, a backslash is written as two");
                None
            }
        }
    }

    fn access(&mut self, root: &ast::Expr, chain: &[AccessExpr], at: Location) -> Option<Expr> {
        let mut value = self.value(root)?;
        for access in chain {
            let AccessExpr::Subscript(Subscript::Index { index }) = access else {
                self.problems.add(
                    at,
                    "only map['key'] is supported here",
                    "name a nested field with dots, as in address.city",
                );
                return None;
            };
            let key = self.value(index)?;
            value = self.call(Function::MapGet, vec![value, key], &[at, self.place(index)], at)?;
        }
        Some(value)
    }

    fn function(&mut self, function: &ast::Function, at: Location) -> Option<Expr> {
        let written = function.name.to_string();
        if aggregates::is_aggregate(function) {
            self.aggregate_here(&written, at);
            return None;
        }
        if windows::is_window(&written) {
            self.problems.add(
                at,
                format!("{written} makes the view's window, so it stands as a whole column of the SELECT"),
                "use it once in the SELECT and in GROUP BY; filter by time in a query over the view",
            );
            return None;
        }
        if function.over.is_some() || function.filter.is_some() || function.parameters != FunctionArguments::None {
            self.problems.add(at, format!("{written} isn't supported in this form"), "call it with arguments only");
            return None;
        }
        let arguments = argument_list(function);
        let Some(arguments) = arguments else {
            self.problems.add(at, format!("the arguments of {written} aren't supported"), "give it plain expressions");
            return None;
        };
        self.named(&written, &arguments, at)
    }

    fn aggregate_here(&mut self, written: &str, at: Location) {
        match self.scope {
            Scope::Events { .. } => self.problems.add(
                at,
                format!("{written} stands inside an expression; a view keeps plain aggregates"),
                "make it a column of its own, and compute with it in a ClickHouse query over the view",
            ),
            Scope::Outputs { .. } => self.problems.add(
                at,
                format!("this call of {written} isn't a column of the SELECT"),
                "add it to the SELECT, and use its alias here",
            ),
        }
    }

    fn unsupported(&mut self, node: &ast::Expr, at: Location) {
        let (what, remedy) = match node {
            ast::Expr::Cast { .. } => ("CAST", "use toInt64, toFloat64, toDecimal64, toString or toDate"),
            ast::Expr::Subquery(_) | ast::Expr::InSubquery { .. } | ast::Expr::Exists { .. } => {
                ("a subquery", "write literals, or join in a ClickHouse query over the view")
            }
            ast::Expr::Case { .. } => ("CASE with an operand", "write CASE WHEN x = 'a' THEN ... END"),
            ast::Expr::Interval(_) => ("INTERVAL", "it stands in toStartOfInterval only"),
            ast::Expr::Lambda(_) => ("a lambda", "compute it in a ClickHouse query over the view"),
            ast::Expr::Tuple(_) => ("a tuple", "write its parts as columns of their own"),
            ast::Expr::Array(_) => ("an array", "compute it in a ClickHouse query over the view"),
            ast::Expr::Wildcard(_) | ast::Expr::QualifiedWildcard(..) => ("*", "name the columns"),
            _ => ("this expression", "compute it in a ClickHouse query over the view"),
        };
        self.problems.add(at, format!("{what} isn't supported in a view"), remedy);
    }
}

pub(super) fn nullable(operand: Operand) -> Option<Expr> {
    match operand {
        Operand::Null => None,
        Operand::Value(value) => Some(value),
    }
}

/// Whether an expression is a comparison that isn't in parentheses.
fn is_comparison(node: &ast::Expr) -> bool {
    match node {
        ast::Expr::BinaryOp { op, .. } => matches!(
            op,
            BinaryOperator::Eq
                | BinaryOperator::NotEq
                | BinaryOperator::Lt
                | BinaryOperator::LtEq
                | BinaryOperator::Gt
                | BinaryOperator::GtEq
        ),
        ast::Expr::IsNull(_)
        | ast::Expr::IsNotNull(_)
        | ast::Expr::InList { .. }
        | ast::Expr::Like { .. }
        | ast::Expr::ILike { .. }
        | ast::Expr::Between { .. } => true,
        ast::Expr::UnaryOp { op: UnaryOperator::Not, .. } => true,
        _ => false,
    }
}
