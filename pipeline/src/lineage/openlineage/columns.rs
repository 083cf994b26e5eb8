//! Which fields of the events reach which columns of a view, and how: read from the typed plan, not from its text.
//!
//! The words are OpenLineage's. *Direct*: the column's value is made of the field's (as it is, transformed, or aggregated
//! over many events). *Indirect*: the field decides about the value or about the row without being part of it. What is
//! true of every column (the filter, the grouping) is told once, of the whole view.
//!
//! A field *masks* where nothing of its value can be read from the column: a count, a number of distinct values, whether
//! there is one. A map's value counts as its map, since that is the column that the events have; the description says
//! which key.

use std::collections::BTreeMap;

use weir_operators::aggregate::{Call, Function as Aggregate};
use weir_operators::expr::{Expr, Function};
use weir_operators::view::{Measure, Output, ViewPlan};
use weir_schemas::types::ColumnType;
use weir_sinks::clickhouse::reader::STATE_SUFFIX;

use crate::sql;

/// How a field reaches a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// As it is.
    Identity,
    /// Made into something else, event by event.
    Transformation,
    /// Together with those of other events.
    Aggregation,
    /// It decides which of several values is taken, or whether an event counts in the column.
    Conditional,
    /// It decides in which row an event counts.
    GroupBy,
    /// It decides whether an event, or a row, is there at all.
    Filter,
}

impl How {
    /// OpenLineage's type and subtype.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            How::Identity => ("DIRECT", "IDENTITY"),
            How::Transformation => ("DIRECT", "TRANSFORMATION"),
            How::Aggregation => ("DIRECT", "AGGREGATION"),
            How::Conditional => ("INDIRECT", "CONDITIONAL"),
            How::GroupBy => ("INDIRECT", "GROUP_BY"),
            How::Filter => ("INDIRECT", "FILTER"),
        }
    }
}

/// One way in which a field reaches a column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// How.
    pub how: How,
    /// The expression, as ClickHouse would write it; empty where the value is taken as it is.
    pub description: String,
    /// Whether nothing of the field's value can be read from the column.
    pub masks: bool,
}

/// Fields by name, with the ways in which each takes part.
pub type Fields = BTreeMap<String, Vec<Way>>;

/// The lineage of a dataset's columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Each column with the fields that reach it, in the dataset's order.
    pub columns: Vec<(String, Fields)>,
    /// The fields that reach every column.
    pub whole: Fields,
}

impl Columns {
    /// Notes that a column is a field's value, changed or not.
    pub(super) fn add(&mut self, column: &str, field: &str, how: How, masks: bool) {
        let at = match self.columns.iter().position(|(known, _)| known == column) {
            Some(at) => at,
            None => {
                self.columns.push((column.to_owned(), Fields::new()));
                self.columns.len() - 1
            }
        };
        note(&mut self.columns[at].1, field, Way { how, description: String::new(), masks });
    }
}

/// The lineage of the columns of a view's SELECT; `event_time` is the field that its windows cut.
pub fn of_view(plan: &ViewPlan, event_time: &str) -> Columns {
    let window = format!("window of {}", sql::width(plan));
    let way = |how, description: &str| Way { how, description: description.to_owned(), masks: false };
    let mut of_window = Fields::new();
    note(&mut of_window, event_time, way(How::Transformation, &window));
    let of_dimensions: Vec<Fields> =
        plan.dimensions.iter().map(|dimension| of_value(&dimension.value, How::Transformation)).collect();
    let of_measures: Vec<Fields> = plan.measures.iter().map(|measure| of_call(&measure.call)).collect();
    let of_output = |output: &Output| match *output {
        Output::Window => Some(&of_window),
        Output::Dimension(at) => of_dimensions.get(at),
        Output::Measure(at) => of_measures.get(at),
    };
    let named = plan.columns().into_iter().zip(&plan.outputs);
    let mut columns: Vec<(String, Fields)> =
        named.map(|(column, output)| (column.name, of_output(output).cloned().unwrap_or_default())).collect();
    let measures = plan.measures.iter().zip(&of_measures);
    columns.extend(measures.filter_map(|(measure, fields)| of_state(measure, fields)));

    let mut whole = Fields::new();
    if let Some(filter) = &plan.filter {
        decides(filter, How::Filter, &format!("WHERE {filter}"), &mut whole);
    }
    note(&mut whole, event_time, way(How::GroupBy, &window));
    for dimension in &plan.dimensions {
        decides(&dimension.value, How::GroupBy, &dimension.value.to_string(), &mut whole);
    }
    if let Some(having) = &plan.having {
        let description = format!("HAVING {having}");
        having.visit_columns(&mut |index| {
            for field in plan.outputs.get(index).and_then(of_output).into_iter().flat_map(Fields::keys) {
                note(&mut whole, field, way(How::Filter, &description));
            }
        });
    }
    Columns { columns, whole }
}

fn of_call(call: &Call) -> Fields {
    let mut fields = Fields::new();
    let masks = matches!(call.function, Aggregate::Count | Aggregate::UniqExact | Aggregate::UniqCombined64);
    let way = Way { how: How::Aggregation, description: sql::call(call), masks };
    for argument in &call.arguments {
        makes(argument, &way, &mut fields);
    }
    if let Some(condition) = &call.condition {
        decides(condition, How::Conditional, &condition.to_string(), &mut fields);
    }
    fields
}

/// The column that shows a measure's state, where it has one. A set of numbers holds them as they are.
fn of_state(measure: &Measure, fields: &Fields) -> Option<(String, Fields)> {
    let call = &measure.call;
    let ColumnType::AggregateState(_) = call.stored_type() else { return None };
    let is_text =
        |of: &Expr| matches!(of.column_type().without_null(), ColumnType::String | ColumnType::LowCardinality);
    let shows = matches!(call.function, Aggregate::UniqExact) && !call.arguments.iter().all(is_text);
    let mut fields = fields.clone();
    for way in fields.values_mut().flatten().filter(|way| way.how == How::Aggregation) {
        way.masks &= !shows;
    }
    Some((format!("{}{STATE_SUFFIX}", measure.name), fields))
}

fn of_value(value: &Expr, how: How) -> Fields {
    let mut fields = Fields::new();
    let way = match value {
        Expr::Column { .. } => Way { how: How::Identity, description: String::new(), masks: false },
        _ => Way { how, description: value.to_string(), masks: false },
    };
    makes(value, &way, &mut fields);
    fields
}

/// Notes the fields that a value is made of, and those that decide within it.
fn makes(value: &Expr, way: &Way, fields: &mut Fields) {
    let Expr::Call { function, arguments, .. } = value else {
        if let Expr::Column { name, .. } = value {
            note(fields, name, way.clone());
        }
        return;
    };
    let last = arguments.len().saturating_sub(1);
    for (at, argument) in arguments.iter().enumerate() {
        match function {
            // Condition, value, condition, value, ..., otherwise.
            Function::MultiIf if at % 2 == 0 && at != last => {
                decides(argument, How::Conditional, &argument.to_string(), fields);
            }
            Function::Coalesce if at != last => {
                decides(argument, How::Conditional, &value.to_string(), fields);
                makes(argument, way, fields);
            }
            Function::IsNull | Function::IsNotNull => makes(argument, &Way { masks: true, ..way.clone() }, fields),
            _ => makes(argument, way, fields),
        }
    }
}

/// Notes the fields of an expression that decides something.
fn decides(condition: &Expr, how: How, description: &str, fields: &mut Fields) {
    match condition {
        Expr::Column { name, .. } => {
            note(fields, name, Way { how, description: description.to_owned(), masks: false });
        }
        Expr::Literal { .. } => {}
        Expr::Call { arguments, .. } => {
            arguments.iter().for_each(|argument| decides(argument, how, description, fields));
        }
    }
}

fn note(fields: &mut Fields, field: &str, way: Way) {
    let ways = fields.entry(field.to_owned()).or_default();
    if !ways.contains(&way) {
        ways.push(way);
    }
}
