//! Rules: from what a pipeline file requires to conditions over the events.
//!
//! A shorthand is written out as the SQL that it stands for, and that is planned like any other: `check` prints it, and
//! run by ClickHouse over the same events it finds the same ones.
//!
//! Not here: which events break them ([`weir_operators::rule`]), and what becomes of those (`source::intake`).

mod sequence;
mod unique;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use weir_operators::expr::{Comparison, Expr, Function, Scalar};
use weir_operators::rule::{Basis, Rule, Shown, Value};
use weir_schemas::fate::Reason;
use weir_schemas::stage::{Column, system};
use weir_schemas::types::{ColumnType, Width};

use crate::cause;
use crate::config::{self, Pipeline, ReferenceTable};
use crate::problem::{Problem, nearest};
use crate::sql::{self, SourceColumns};

/// Bytes of a reference table's file, at most.
const TABLE_BYTES_MAX: u64 = 8 << 20;
/// Values of a reference table, at most.
const TABLE_VALUES_MAX: usize = 100_000;

/// The reference tables of a pipeline, read once: the distinct values of each column, sorted.
#[derive(Debug, Default)]
pub struct ReferenceTables(BTreeMap<(PathBuf, String), Vec<String>>);

impl ReferenceTables {
    /// Reads every table that a rule names.
    pub fn read(pipeline: &Pipeline, problems: &mut Vec<Problem>) -> ReferenceTables {
        let mut tables = BTreeMap::new();
        for (id, rule) in &pipeline.quality.rules {
            let Some(table) = &rule.in_table else { continue };
            match read_table(table) {
                Ok(values) => {
                    tables.insert((table.file.clone(), table.column.clone()), values);
                }
                Err((message, remedy)) => {
                    let file = table.file.display().to_string();
                    problems.push(Problem::of_file(&file, format!("rule `{id}`: {message}"), remedy));
                }
            }
        }
        ReferenceTables(tables)
    }

    /// The values of `table`.
    pub fn values(&self, table: &ReferenceTable) -> &[String] {
        self.0.get(&(table.file.clone(), table.column.clone())).map(Vec::as_slice).unwrap_or_default()
    }
}

fn read_table(table: &ReferenceTable) -> Result<Vec<String>, (String, String)> {
    let readable = || "the path starts at the pipeline file's folder; the file is CSV in UTF-8".to_owned();
    let bytes = std::fs::metadata(&table.file).map_err(|error| (error.to_string(), readable()))?.len();
    if bytes > TABLE_BYTES_MAX {
        let message = format!("the table has {bytes} bytes, and {TABLE_BYTES_MAX} is the most");
        return Err((message, "check so many values in a view, or leave columns out of the file".to_owned()));
    }
    let mut reader = csv::Reader::from_path(&table.file).map_err(|error| (error.to_string(), readable()))?;
    let header = reader.headers().map_err(|error| (error.to_string(), readable()))?.clone();
    let Some(at) = header.iter().position(|name| name == table.column) else {
        let remedy = match nearest(&table.column, header.iter()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the header has: {}", header.iter().collect::<Vec<_>>().join(", ")),
        };
        return Err((format!("the table has no column `{}`", table.column), remedy));
    };
    let mut values = Vec::new();
    for row in reader.records() {
        let row = row.map_err(|error| (error.to_string(), readable()))?;
        values.extend(row.get(at).map(str::to_owned));
    }
    values.sort_unstable();
    values.dedup();
    if values.is_empty() || values.len() > TABLE_VALUES_MAX {
        let message = format!("the table has {} values, and 1 to {TABLE_VALUES_MAX} are wanted", values.len());
        return Err((message, "correct the file".to_owned()));
    }
    Ok(values)
}

/// A rule's two conditions in SQL, and how it is told what must hold.
struct Conditions {
    require: Expr,
    expected: String,
    field: Option<Expr>,
}

/// Where a rule is planned.
struct Place<'a> {
    file: String,
    columns: &'a SourceColumns,
    tables: &'a ReferenceTables,
}

/// Plans the rule `id` of `source` over `columns`.
///
/// # Errors
/// Every problem with it that can be found.
pub fn plan(
    file: &str,
    id: &str,
    rule: &config::Rule,
    source: &config::Source,
    columns: &SourceColumns,
    tables: &ReferenceTables,
) -> Result<Rule, Vec<Problem>> {
    let place = Place { file: format!("{file}, rule `{id}`"), columns, tables };
    if let Some(within) = rule.unique_within_ms {
        return unique::plan(id, rule, within, source, &place);
    }
    if let Some(within) = rule.sequence_within_ms {
        return sequence::plan(id, rule, within, source, &place);
    }
    let mut problems = Vec::new();
    let mut or_none = |planned: Result<Expr, Vec<Problem>>| planned.map_err(|found| problems.extend(found)).ok();
    let when = rule.when.as_ref().map(|when| or_none(sql::plan_condition(when, &place.file, columns)));
    let conditions = match plan_requirement(rule, &place) {
        Ok(conditions) => Some(conditions),
        Err(found) => {
            problems.extend(found);
            None
        }
    };
    let (Some(conditions), true) = (conditions, problems.is_empty()) else { return Err(problems) };
    let condition = match when.flatten() {
        None => conditions.require.clone(),
        Some(when) => unless(when, conditions.require.clone()).map_err(|message| {
            vec![Problem::of_file(&place.file, message, "write `when` and `require` as conditions")]
        })?,
    };
    let shown = shown_of(rule, &conditions, source);
    Ok(rule_of(id, rule, &conditions.expected, Basis::Condition(condition), shown))
}

/// The rule `id` with what its section says, judged by `basis`.
fn rule_of(id: &str, rule: &config::Rule, expected: &str, basis: Basis, shown: Vec<Shown>) -> Rule {
    Rule {
        id: Arc::from(id),
        mode: rule.mode,
        severity: rule.severity,
        owner: Arc::from(rule.owner.as_str()),
        fingerprint: Arc::from(cause::fingerprint(&rule.source, Reason::Rule, id, "")),
        field: Arc::from(rule.field.as_deref().unwrap_or_default()),
        when: Arc::from(rule.when.as_deref().unwrap_or_default()),
        expected: Arc::from(expected),
        basis,
        shown,
    }
}

/// The condition of events that a rule is about, for rules that look at several; what is wrong with it goes to `problems`.
fn when_of(rule: &config::Rule, place: &Place<'_>, problems: &mut Vec<Problem>) -> Option<Expr> {
    let planned = sql::plan_condition(rule.when.as_ref()?, &place.file, place.columns);
    planned.map_err(|found| problems.extend(found)).ok()
}

/// `require`, where `when` is true.
fn unless(when: Expr, require: Expr) -> Result<Expr, String> {
    let truth =
        |value: bool| Expr::Literal { value: Scalar::UInt(u64::from(value)), column_type: ColumnType::UInt(Width::W8) };
    let told = |refusal: weir_operators::expr::Refusal| refusal.message;
    let when =
        if when.column_type().is_nullable() { Expr::coalesce(vec![when, truth(false)]).map_err(told)? } else { when };
    let elsewhere = Expr::call(Function::Not, vec![when]).map_err(told)?;
    Expr::call(Function::Or, vec![elsewhere, require]).map_err(told)
}

fn plan_requirement(rule: &config::Rule, place: &Place<'_>) -> Result<Conditions, Vec<Problem>> {
    let field = rule.field.as_ref().map(|field| sql::plan_field(field, &place.file, place.columns)).transpose()?;
    if let Some(most) = rule.max_clock_skew_ms {
        let require = clock_skew(most).map_err(|message| vec![place.problem(message, "take a smaller number")])?;
        let expected = format!("the event time at most {most} ms from the record's timestamp");
        return Ok(Conditions { require, expected, field: None });
    }
    if let Some(require) = &rule.require {
        let planned = sql::plan_condition(require, &place.file, place.columns)?;
        return Ok(Conditions { require: planned, expected: require.clone(), field });
    }
    let (Some(field), Some(name)) = (field, &rule.field) else { return Err(Vec::new()) };
    let (text, expected) = shorthand(rule, name, field.column_type(), place).map_err(|problem| vec![problem])?;
    let require = sql::plan_condition(&text, &place.file, place.columns)?;
    Ok(Conditions { require, expected: expected.unwrap_or(text), field: Some(field) })
}

impl Place<'_> {
    fn problem(&self, message: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Problem::of_file(&self.file, message, remedy)
    }

    /// A problem of the field's type.
    fn wrong(&self, field: &str, of: &ColumnType, key: &str, wanted: &str, remedy: &str) -> Problem {
        self.problem(format!("`{key}` wants {wanted}, and `{field}` is {of}"), remedy)
    }
}

/// The SQL that a shorthand stands for; and how it is told, where that is too long.
fn shorthand(
    rule: &config::Rule,
    field: &str,
    of: &ColumnType,
    place: &Place<'_>,
) -> Result<(String, Option<String>), Problem> {
    let plain = of.without_null();
    let is_text = matches!(plain, ColumnType::String | ColumnType::LowCardinality);
    let is_list = matches!(plain, ColumnType::Array(_) | ColumnType::Map(..));
    if rule.required.is_some() {
        return required(field, of, is_text, is_list, place).map(|text| (text, None));
    }
    let mut told = None;
    let text = if let Some(values) = &rule.one_of {
        let values: Option<Vec<String>> = values.iter().map(literal).collect();
        let values = values.ok_or_else(|| {
            place.problem("`one_of` holds something that is no plain value", "use strings, numbers or booleans")
        })?;
        format!("{field} IN ({})", values.join(", "))
    } else if let Some(table) = &rule.in_table {
        let values = place.tables.values(table);
        let file = table.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        told = Some(format!("{field} is one of the {} values of {} in {file}", values.len(), table.column));
        let is_number = |value: &String| value.parse::<i64>().is_ok();
        if let Some(odd) = values.iter().find(|value| !is_text && !is_number(value)) {
            let message = format!("`{field}` is {of}, and the table holds `{}`", odd.escape_debug());
            return Err(place.problem(message, "name a column of whole numbers, or a field of text"));
        }
        let values: Vec<String> =
            values.iter().map(|value| if is_text { quoted(value) } else { value.clone() }).collect();
        format!("{field} IN ({})", values.join(", "))
    } else if rule.min.is_some() || rule.max.is_some() {
        if is_text || is_list || *plain == ColumnType::Bool {
            let remedy = format!("for text, write require = \"toFloat64OrNull({field}) >= 1\"");
            return Err(place.wrong(field, of, "min and max", "a number or a time", &remedy));
        }
        range(field, rule, place)?
    } else if let Some(pattern) = &rule.pattern {
        if !is_text {
            return Err(place.wrong(field, of, "pattern", "a text", "name a field of text"));
        }
        format!("match({field}, {})", quoted(pattern))
    } else if rule.min_length.is_some() || rule.max_length.is_some() {
        if !is_text && !is_list {
            return Err(place.wrong(
                field,
                of,
                "min_length and max_length",
                "a text, an array or a map",
                "name such a field",
            ));
        }
        let least = rule.min_length.map(|least| format!("length({field}) >= {least}"));
        let most = rule.max_length.map(|most| format!("length({field}) <= {most}"));
        least.into_iter().chain(most).collect::<Vec<_>>().join(" AND ")
    } else {
        if !is_text {
            return Err(place.wrong(field, of, "number", "a text", "leave the rule out: the schema sees to it"));
        }
        let not = if rule.number == Some(false) { "" } else { "NOT " };
        format!("toFloat64OrNull({field}) IS {not}NULL")
    };
    // A missing value is nobody's business but that of `required`.
    Ok((if of.is_nullable() { format!("{field} IS NULL OR ({text})") } else { text }, told))
}

fn required(field: &str, of: &ColumnType, is_text: bool, is_list: bool, place: &Place<'_>) -> Result<String, Problem> {
    let filled = match (is_text, is_list) {
        (true, _) => Some(format!("{field} != ''")),
        (_, true) => Some(format!("length({field}) > 0")),
        _ => None,
    };
    let there = of.is_nullable().then(|| format!("{field} IS NOT NULL"));
    if filled.is_none() && there.is_none() {
        let message = format!("`{field}` is {of}, which is never missing");
        return Err(place.problem(message, "leave the rule out, or make the field nullable in the reader schema"));
    }
    Ok(there.into_iter().chain(filled).collect::<Vec<_>>().join(" AND "))
}

fn range(field: &str, rule: &config::Rule, place: &Place<'_>) -> Result<String, Problem> {
    let mut sides = Vec::new();
    for (bound, operator) in [(&rule.min, ">="), (&rule.max, "<=")] {
        let Some(bound) = bound else { continue };
        let bound = literal(bound).filter(|_| !bound.is_bool());
        let bound = bound.ok_or_else(|| {
            place.problem("`min` and `max` are numbers or times", "write 0.5, or '2026-01-31 00:00:00'")
        })?;
        sides.push(format!("{field} {operator} {bound}"));
    }
    Ok(sides.join(" AND "))
}

/// A TOML value as a literal of ClickHouse's.
pub(crate) fn literal(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(quoted(text)),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) if number.is_finite() => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// A text as a literal of ClickHouse's.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Whether event time and the record's timestamp are at most so far apart; a record without a timestamp isn't judged.
fn clock_skew(most_ms: u64) -> Result<Expr, String> {
    let told = |refusal: weir_operators::expr::Refusal| refusal.message;
    let most = most_ms.checked_mul(1_000).filter(|most| i64::try_from(*most).is_ok());
    let most = most.ok_or("`max_clock_skew_ms` is beyond 292,000 years")?;
    let whole = |value: u64| Expr::Literal { value: Scalar::UInt(value), column_type: ColumnType::UInt(Width::W64) };
    let skew = Expr::call(Function::Abs, vec![skew().map_err(told)?]).map_err(told)?;
    let near = Expr::call(Function::Compare(Comparison::LessOrEqual), vec![skew, whole(most)]).map_err(told)?;
    let stamped = Expr::call(Function::Compare(Comparison::Less), vec![kafka_time_ms(), whole(0)]).map_err(told)?;
    Expr::call(Function::Or, vec![stamped, near]).map_err(told)
}

fn system_column(index: usize, name: &str) -> Expr {
    Expr::Column { index, name: name.to_owned(), column_type: ColumnType::Int(Width::W64) }
}

fn kafka_time_ms() -> Expr {
    system_column(system::KAFKA_TIME_MS, "_kafka_time_ms")
}

/// Event time less the record's timestamp, in microseconds.
fn skew() -> Result<Expr, weir_operators::expr::Refusal> {
    let thousand = Expr::Literal { value: Scalar::Int(1_000), column_type: ColumnType::Int(Width::W64) };
    let kafka = Expr::call(Function::Multiply, vec![kafka_time_ms(), thousand])?;
    Expr::call(Function::Minus, vec![system_column(system::EVENT_TIME, "_event_time"), kafka])
}

/// What is told of an event that breaks the rule: its field, else every plain value that stands in the condition.
fn shown_of(rule: &config::Rule, conditions: &Conditions, source: &config::Source) -> Vec<Shown> {
    let text_of = |value: Expr| Expr::call(Function::ToString, vec![value]).ok();
    if rule.max_clock_skew_ms.is_some() {
        let thousand = Expr::Literal { value: Scalar::UInt(1_000), column_type: ColumnType::UInt(Width::W16) };
        let skew = skew().and_then(|skew| Expr::call(Function::IntDiv, vec![skew, thousand])).ok().and_then(text_of);
        let shown = |text| Shown { name: Some("ms ahead".to_owned()), value: Value::Text(text) };
        return skew.map(shown).into_iter().collect();
    }
    if let Some(field) = &conditions.field {
        let name = rule.field.as_deref().unwrap_or_default();
        if is_sensitive(&source.sensitive, name) || is_sensitive(&source.sensitive, &field.to_string()) {
            return vec![Shown { name: None, value: Value::Masked }];
        }
        let shown = |text| Shown { name: None, value: Value::Text(text) };
        return text_of(field.clone()).map(shown).into_iter().collect();
    }
    let mut fields = Vec::new();
    fields_of(&conditions.require, &mut fields);
    let shown = fields.into_iter().filter_map(|field| {
        let name = field.to_string();
        let is_masked = is_sensitive(&source.sensitive, &name);
        let value = if is_masked { Value::Masked } else { Value::Text(text_of(field)?) };
        Some(Shown { name: Some(name), value })
    });
    shown.collect()
}

/// The columns and the maps' values that stand in an expression, each once.
fn fields_of(expr: &Expr, fields: &mut Vec<Expr>) {
    match expr {
        Expr::Literal { .. } => {}
        Expr::Call { function, arguments, .. } if *function != Function::MapGet => {
            arguments.iter().for_each(|argument| fields_of(argument, fields));
        }
        field => {
            if !fields.contains(field) {
                fields.push(field.clone());
            }
        }
    }
}

/// Whether the field of `path` is one of `sensitive`, or lies below one.
pub fn is_sensitive(sensitive: &[String], path: &str) -> bool {
    sensitive.iter().any(|name| {
        path.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[', '{']))
    })
}

/// The problems of a source's sensitive fields, each a column, what columns lie below, or a map's value, and of its
/// identities, each a column.
pub fn check_listed(file: &str, name: &str, source: &config::Source, columns: &[Column], problems: &mut Vec<Problem>) {
    let mut unknown = |key: &str, field: &str, base: &str| {
        let remedy = match nearest(base, columns.iter().map(|column| column.name.as_str())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "name a field of the reader schema".to_owned(),
        };
        let message = format!("source `{name}`: `{key}` names the field `{field}`, which its schema doesn't have");
        problems.push(Problem::of_file(file, message, remedy));
    };
    for field in &source.sensitive {
        let base = field.split('[').next().unwrap_or_default();
        let is_known = |column: &Column| column.name == base || is_sensitive(std::slice::from_ref(field), &column.name);
        if !columns.iter().any(is_known) {
            unknown("sensitive", field, base);
        }
    }
    for field in &source.identities {
        if !columns.iter().any(|column| column.name == *field) {
            unknown("identities", field, field);
        }
    }
}

/// What `check` prints of a reference table: how many values, and the first of them.
pub fn describe_table(table: &ReferenceTable, tables: &ReferenceTables) -> String {
    const SHOWN: usize = 12;
    let values = tables.values(table);
    let first = values.iter().take(SHOWN).map(|value| value.escape_debug().to_string()).collect::<Vec<_>>().join(", ");
    let more = if values.len() > SHOWN { ", …" } else { "" };
    format!("{} values of {} in {}: {first}{more}", values.len(), table.column, table.file.display())
}
