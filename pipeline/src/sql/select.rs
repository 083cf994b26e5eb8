//! A view's SELECT as a whole: which column is the window, which are dimensions and which measures.

use std::collections::BTreeMap;

use sqlparser::ast::{self, GroupByExpr, SelectItem, SetExpr, Statement, TableFactor};
use sqlparser::dialect::ClickHouseDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserOptions};
use sqlparser::tokenizer::{Location, TokenWithSpan, Tokenizer};
use weir_operators::expr::Expr;
use weir_operators::view::{Dimension, Measure, Output, ViewPlan, Window};
use weir_schemas::types::{ColumnType, Width};

use super::expressions::Builder;
use super::places::{Problems, keyword, start};
use super::scope::Scope;
use super::{SourceColumns, aggregates, names, windows};
use crate::problem::{Problem, nearest};

const BEGINNING: Location = Location { line: 1, column: 1 };

pub(super) fn plan(
    name: &str,
    text: &str,
    file: &str,
    sources: &BTreeMap<String, SourceColumns>,
) -> Result<ViewPlan, Vec<Problem>> {
    let mut problems = Problems::new(file, text);
    let plan = parse(text, &mut problems)
        .and_then(|(query, tokens)| plan_query(name, &query, &tokens, sources, &mut problems));
    match plan {
        Some(plan) if problems.is_empty() => Ok(plan),
        _ => Err(problems.into_refusal()),
    }
}

pub(super) fn plan_condition(text: &str, file: &str, source: &SourceColumns) -> Result<Expr, Vec<Problem>> {
    plan_expression(text, file, source, |condition, place, problems| check_filter(condition, place, true, problems))
}

pub(super) fn plan_expression(
    text: &str,
    file: &str,
    source: &SourceColumns,
    check: impl Fn(Expr, Location, &mut Problems<'_>) -> Option<Expr>,
) -> Result<Expr, Vec<Problem>> {
    let mut problems = Problems::new(file, text);
    let scope = Scope::Events { source, qualifiers: Vec::new(), aliases: BTreeMap::new() };
    let parsed = tokens(text, &mut problems).and_then(|tokens| {
        let mut parser = parser().with_tokens_with_locations(tokens);
        let parsed = parser.parse_expr().and_then(|expr| {
            parser.expect_token(&sqlparser::tokenizer::Token::EOF)?;
            Ok(expr)
        });
        parsed.map_err(|error| problems.add_parser_error(error)).ok()
    });
    let expression = parsed.and_then(|node| {
        let mut builder = Builder { scope: &scope, problems: &mut problems, within: Vec::new(), fallback: BEGINNING };
        let place = builder.place(&node);
        let expression = builder.value(&node)?;
        check(expression, place, &mut problems)
    });
    match expression {
        Some(expression) if problems.is_empty() => Ok(expression),
        _ => Err(problems.into_refusal()),
    }
}

fn parser() -> Parser<'static> {
    // Strings stay as they are written: ClickHouse's escapes aren't sqlparser's.
    Parser::new(&ClickHouseDialect {}).with_options(ParserOptions::new().with_unescape(false))
}

fn tokens(text: &str, problems: &mut Problems<'_>) -> Option<Vec<TokenWithSpan>> {
    let tokens = Tokenizer::new(&ClickHouseDialect {}, text).with_unescape(false).tokenize_with_location();
    tokens.map_err(|error| problems.add_parser_error(error.into())).ok()
}

fn parse(text: &str, problems: &mut Problems<'_>) -> Option<(ast::Query, Vec<TokenWithSpan>)> {
    let tokens = tokens(text, problems)?;
    let mut statements = match parser().with_tokens_with_locations(tokens.clone()).parse_statements() {
        Ok(statements) => statements,
        Err(error) => {
            problems.add_parser_error(error);
            return None;
        }
    };
    match (statements.pop(), statements.is_empty()) {
        (Some(Statement::Query(query)), true) => Some((*query, tokens)),
        _ => {
            problems.add(BEGINNING, "a view is one SELECT", "leave one SELECT in the file");
            None
        }
    }
}

/// A clause that a view can't have.
fn refuse_clauses(query: &ast::Query, select: &ast::Select, tokens: &[TokenWithSpan], problems: &mut Problems<'_>) {
    let over = "put it into a ClickHouse query over the view";
    let clauses = [
        (query.with.is_some(), Keyword::WITH, "WITH", "write the expression out where it is used"),
        (query.order_by.is_some(), Keyword::ORDER, "ORDER BY", over),
        (query.limit_clause.is_some() || query.fetch.is_some(), Keyword::LIMIT, "LIMIT", over),
        (query.settings.is_some(), Keyword::SETTINGS, "SETTINGS", "leave it out"),
        (query.format_clause.is_some(), Keyword::FORMAT, "FORMAT", "leave it out"),
        (select.distinct.is_some(), Keyword::DISTINCT, "DISTINCT", "GROUP BY makes the rows distinct"),
        (select.top.is_some(), Keyword::TOP, "TOP", over),
        (select.into.is_some(), Keyword::INTO, "INTO", "leave it out"),
        (select.prewhere.is_some(), Keyword::PREWHERE, "PREWHERE", "use WHERE"),
        (select.qualify.is_some(), Keyword::QUALIFY, "QUALIFY", over),
        (!select.named_window.is_empty(), Keyword::WINDOW, "WINDOW", over),
        (!select.lateral_views.is_empty(), Keyword::LATERAL, "LATERAL VIEW", over),
    ];
    for (stands, word, name, remedy) in clauses {
        if stands {
            problems.add(keyword(tokens, word), format!("{name} isn't supported in a view"), remedy);
        }
    }
}

fn plan_query(
    name: &str,
    query: &ast::Query,
    tokens: &[TokenWithSpan],
    sources: &BTreeMap<String, SourceColumns>,
    problems: &mut Problems<'_>,
) -> Option<ViewPlan> {
    let SetExpr::Select(select) = query.body.as_ref() else {
        let place = [Keyword::UNION, Keyword::EXCEPT, Keyword::INTERSECT].map(|word| keyword(tokens, word));
        let place = place.into_iter().find(|place| *place != BEGINNING).unwrap_or(BEGINNING);
        problems.add(place, "UNION, EXCEPT and INTERSECT aren't supported in a view", "write a view for each SELECT");
        return None;
    };
    refuse_clauses(query, select, tokens, problems);
    let (source_name, source, qualifiers) = find_source(select, tokens, sources, problems)?;
    let items = items(select, problems);
    let aliases = items.iter().filter(|item| item.aliased).map(|item| (item.name.clone(), item.expr)).collect();
    let events = Scope::Events { source, qualifiers, aliases };
    let filter = select.selection.as_ref().map(|node| filter(node, &events, problems));
    let sorted = sort_items(&items, &events, source, problems);
    names::refuse_taken(&items, &sorted.measures, problems);
    if problems.is_empty() && sorted.window.is_none() {
        problems.add(
            BEGINNING,
            "there is no window in the SELECT",
            format!(
                "add toStartOfInterval({}, INTERVAL 1 MINUTE) AS window_start to SELECT and GROUP BY",
                source.event_time
            ),
        );
    }
    check_grouping(select, &items, &sorted, &events, source, problems);
    let having = match (&select.having, problems.is_empty()) {
        (Some(node), true) => Some(having(node, &sorted, events, problems)?),
        _ => None,
    };
    Some(ViewPlan {
        name: name.to_owned(),
        source: source_name,
        filter: filter.map_or(Some(None), |filter| filter.map(Some))?,
        window: sorted.window?,
        dimensions: sorted.dimensions,
        measures: sorted.measures,
        outputs: sorted.outputs,
        having,
    })
}

fn find_source<'s>(
    select: &ast::Select,
    tokens: &[TokenWithSpan],
    sources: &'s BTreeMap<String, SourceColumns>,
    problems: &mut Problems<'_>,
) -> Option<(String, &'s SourceColumns, Vec<String>)> {
    let place = keyword(tokens, Keyword::FROM);
    let [table] = select.from.as_slice() else {
        problems.add(place, "a view reads from one source", "name one source of the pipeline after FROM");
        return None;
    };
    if let Some(join) = table.joins.first() {
        let place = start(&join.relation, keyword(tokens, Keyword::JOIN));
        problems.add(place, "JOIN isn't supported in a view", "join in a ClickHouse query over the view");
    }
    let TableFactor::Table { name, alias, args: None, sample: None, with_ordinality: false, .. } = &table.relation
    else {
        let place = start(&table.relation, place);
        problems.add(place, "a view reads from a source, not from this", "name one source of the pipeline after FROM");
        return None;
    };
    let place = start(&table.relation, place);
    let written = name.to_string();
    let alias = alias.as_ref().map(|alias| alias.name.value.clone());
    if alias.as_ref().is_some_and(|alias| alias.eq_ignore_ascii_case("final")) {
        problems.add(place, "FINAL isn't supported in a view", "leave it out: a source has no duplicates");
    }
    let bare = written.trim_matches(['`', '"']).to_owned();
    let Some(source) = sources.get(&bare) else {
        let remedy = match nearest(&bare, sources.keys().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let known: Vec<&str> = sources.keys().map(String::as_str).collect();
                format!("name a source of the pipeline: {}", known.join(", "))
            }
        };
        problems.add(place, format!("there is no source `{bare}`"), remedy);
        return None;
    };
    let qualifiers = std::iter::once(bare.clone()).chain(alias).collect();
    Some((bare, source, qualifiers))
}

/// A column of the SELECT.
pub(super) struct Item<'a> {
    pub(super) name: String,
    aliased: bool,
    expr: &'a ast::Expr,
    at: Location,
    /// Where its name stands.
    pub(super) named_at: Location,
}

fn items<'a>(select: &'a ast::Select, problems: &mut Problems<'_>) -> Vec<Item<'a>> {
    let mut items: Vec<Item<'a>> = Vec::new();
    for item in &select.projection {
        let at = start(item, BEGINNING);
        let item = match item {
            SelectItem::ExprWithAlias { expr, alias } => {
                Item { name: alias.value.clone(), aliased: true, expr, at, named_at: alias.span.start }
            }
            SelectItem::UnnamedExpr(expr @ ast::Expr::Identifier(name)) => {
                Item { name: name.value.clone(), aliased: false, expr, at, named_at: at }
            }
            SelectItem::UnnamedExpr(expr @ ast::Expr::CompoundIdentifier(parts)) => {
                let parts: Vec<&str> = parts.iter().map(|part| part.value.as_str()).collect();
                Item { name: parts.join("."), aliased: false, expr, at, named_at: at }
            }
            SelectItem::UnnamedExpr(expr) => {
                problems.add(at, format!("the column {expr} has no name"), "write AS and a name after it");
                Item { name: expr.to_string(), aliased: false, expr, at, named_at: at }
            }
            _ => {
                problems.add(at, "* isn't supported in a view", "name the columns");
                continue;
            }
        };
        if items.iter().any(|other| other.name == item.name) {
            problems.add(at, format!("two columns are called `{}`", item.name), "give one of them another name");
        }
        items.push(item);
    }
    items
}

fn filter(node: &ast::Expr, scope: &Scope<'_>, problems: &mut Problems<'_>) -> Option<Expr> {
    let mut builder = Builder { scope, problems, within: Vec::new(), fallback: BEGINNING };
    let place = builder.place(node);
    let condition = builder.value(node)?;
    check_filter(condition, place, false, problems)
}

/// WHERE and HAVING take any integer as a condition; a rule, like `-If`, only `UInt8` and `Bool`.
fn check_filter(condition: Expr, at: Location, strict: bool, problems: &mut Problems<'_>) -> Option<Expr> {
    let of = condition.column_type().without_null();
    let truth = matches!(of, ColumnType::Bool | ColumnType::UInt(Width::W8));
    if truth || (!strict && matches!(of, ColumnType::Int(_) | ColumnType::UInt(_))) {
        return Some(condition);
    }
    problems.add(
        at,
        format!("a condition is wanted here, this is of type {}", condition.column_type()),
        "compare it with something, as in x != 0 or x != ''",
    );
    None
}

/// The SELECT's columns, sorted by what they are. A column with a problem is missing everywhere.
struct Sorted {
    window: Option<Window>,
    dimensions: Vec<Dimension>,
    measures: Vec<Measure>,
    outputs: Vec<Output>,
    /// Whether each column of the SELECT could be planned.
    planned: Vec<bool>,
}

fn sort_items(items: &[Item<'_>], scope: &Scope<'_>, source: &SourceColumns, problems: &mut Problems<'_>) -> Sorted {
    let mut sorted =
        Sorted { window: None, dimensions: Vec::new(), measures: Vec::new(), outputs: Vec::new(), planned: Vec::new() };
    let window = window_item(items, source);
    for (at, item) in items.iter().enumerate() {
        let outputs = sorted.outputs.len();
        let function = match item.expr {
            ast::Expr::Function(function) => Some(function),
            _ => None,
        };
        if let Some(function) = function.filter(|_| window == Some(at)) {
            sorted.window = windows::window(&item.name, function, source, item.at, problems);
            sorted.outputs.push(Output::Window);
        } else if let Some(function) = function.filter(|function| aggregates::is_aggregate(function)) {
            if let Some(call) = aggregates::call(function, scope, problems, item.at) {
                sorted.outputs.push(Output::Measure(sorted.measures.len()));
                sorted.measures.push(Measure { name: item.name.clone(), call });
            }
        } else if function.is_some_and(|function| windows::is_window(&function.name.to_string())) {
            problems.add(
                item.at,
                "a view has one window",
                "leave one toStartOf... in the SELECT, and write another view",
            );
        } else {
            let mut builder = Builder { scope, problems, within: vec![item.name.clone()], fallback: item.at };
            let value = builder.value(item.expr);
            if let Some(value) = value.and_then(|value| groupable(value, item.at, problems)) {
                sorted.outputs.push(Output::Dimension(sorted.dimensions.len()));
                sorted.dimensions.push(Dimension { name: item.name.clone(), value });
            }
        }
        sorted.planned.push(sorted.outputs.len() > outputs);
    }
    if sorted.measures.is_empty() && problems.is_empty() {
        problems.add(BEGINNING, "the view aggregates nothing", "add a measure, such as count() AS events");
    }
    sorted
}

fn groupable(value: Expr, at: Location, problems: &mut Problems<'_>) -> Option<Expr> {
    if let ColumnType::Array(_) | ColumnType::Map(..) = value.column_type() {
        let message = format!("grouping by a value of type {} isn't supported", value.column_type());
        problems.add(at, message, "group by one of its values, as in props['country']");
        return None;
    }
    Some(value)
}

/// The first `toStartOf...`; without one, `toDate` of the event time cuts days.
fn window_item(items: &[Item<'_>], source: &SourceColumns) -> Option<usize> {
    let called = |item: &Item<'_>| match item.expr {
        ast::Expr::Function(function) => Some((function.name.to_string(), function.args.to_string())),
        _ => None,
    };
    items.iter().position(|item| called(item).is_some_and(|(name, _)| windows::is_window(&name))).or_else(|| {
        items.iter().position(|item| {
            called(item).is_some_and(|(name, arguments)| {
                let first = arguments.trim_matches(['(', ')']).split(',').next().unwrap_or("").trim_matches(['`', ' ']);
                name == "toDate" && first == source.event_time
            })
        })
    })
}

/// Every column that isn't an aggregate stands in GROUP BY, and everything in GROUP BY stands in the SELECT.
fn check_grouping(
    select: &ast::Select,
    items: &[Item<'_>],
    sorted: &Sorted,
    scope: &Scope<'_>,
    source: &SourceColumns,
    problems: &mut Problems<'_>,
) {
    let aggregate =
        |item: &Item<'_>| matches!(item.expr, ast::Expr::Function(function) if aggregates::is_aggregate(function));
    let keys = match &select.group_by {
        GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers) if !modifiers.is_empty() => {
            problems.add(
                BEGINNING,
                "GROUP BY with ROLLUP, CUBE or TOTALS isn't supported",
                "roll up in a query over the view",
            );
            return;
        }
        GroupByExpr::All(_) => return,
        GroupByExpr::Expressions(keys, _) => keys,
    };
    let mut grouped = vec![false; items.len()];
    for key in keys {
        let at = start(key, BEGINNING);
        match grouped_item(key, items, sorted, scope, source) {
            Some(index) if items.get(index).is_some_and(aggregate) => {
                problems.add(at, format!("{key} is an aggregate, and can't be grouped by"), "leave it out of GROUP BY");
            }
            Some(index) => grouped[index] = true,
            None => {
                let names = items.iter().filter(|item| !aggregate(item)).map(|item| item.name.as_str());
                let key_text = key.to_string();
                let near = nearest(&key_text, names).filter(|_| scope.column(&key_text).is_none());
                let remedy = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "add it to the SELECT with a name, or leave it out".to_owned(),
                };
                problems.add(at, format!("{key} is grouped by, but no column of the SELECT"), remedy);
            }
        }
    }
    for ((item, grouped), planned) in items.iter().zip(grouped).zip(&sorted.planned) {
        if !grouped && *planned && !aggregate(item) {
            problems.add(
                item.at,
                format!("`{}` is neither an aggregate nor in GROUP BY", item.name),
                "add it to GROUP BY",
            );
        }
    }
}

/// Which column a key of GROUP BY means: by alias, by position, or by writing the expression again.
fn grouped_item(
    key: &ast::Expr,
    items: &[Item<'_>],
    sorted: &Sorted,
    scope: &Scope<'_>,
    source: &SourceColumns,
) -> Option<usize> {
    if let ast::Expr::Value(value) = key
        && let ast::Value::Number(text, _) = &value.value
    {
        return text.parse::<usize>().ok()?.checked_sub(1).filter(|index| *index < items.len());
    }
    if let ast::Expr::Identifier(name) = key
        && let Some(index) = items.iter().position(|item| item.name == name.value)
    {
        return Some(index);
    }
    if let Some(index) = items.iter().position(|item| item.expr == key) {
        return Some(index);
    }
    let mut scratch = Problems::new("", "");
    if let ast::Expr::Function(function) = key
        && let Some(window) = &sorted.window
        && let Some(again) = windows::window(&window.name, function, source, BEGINNING, &mut scratch)
        && again == *window
    {
        return items.iter().position(|item| item.name == window.name);
    }
    let mut builder = Builder { scope, problems: &mut scratch, within: Vec::new(), fallback: BEGINNING };
    let value = builder.value(key)?;
    let dimension = sorted.dimensions.iter().find(|dimension| dimension.value == value)?;
    items.iter().position(|item| item.name == dimension.name)
}

fn having<'a>(node: &ast::Expr, sorted: &Sorted, events: Scope<'a>, problems: &mut Problems<'_>) -> Option<Expr> {
    let mut columns = Vec::with_capacity(sorted.outputs.len());
    let mut dimensions = Vec::new();
    let mut measures = Vec::new();
    for output in &sorted.outputs {
        let at = columns.len();
        columns.push(match *output {
            Output::Window => {
                let window = sorted.window.as_ref()?;
                weir_schemas::stage::Column::new(&window.name, window.column_type.clone())
            }
            Output::Dimension(index) => {
                let dimension = sorted.dimensions.get(index)?;
                dimensions.push((at, dimension));
                weir_schemas::stage::Column::new(&dimension.name, dimension.value.column_type().clone())
            }
            Output::Measure(index) => {
                let measure = sorted.measures.get(index)?;
                measures.push((at, measure));
                weir_schemas::stage::Column::new(&measure.name, measure.call.result_type().clone())
            }
        });
    }
    let scope = Scope::Outputs { columns, dimensions, measures, events: Box::new(events) };
    let condition = filter(node, &scope, problems)?;
    if condition.can_fail() {
        // An event that can't be evaluated is refused; a group can't be.
        let at = Builder { scope: &scope, problems, within: Vec::new(), fallback: BEGINNING }.place(node);
        problems.add(
            at,
            "HAVING could fail for a group, and a live view can't",
            "compare values of one scale without arithmetic of decimals and conversions that fail",
        );
        return None;
    }
    Some(condition)
}
