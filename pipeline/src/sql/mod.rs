//! SQL: from the text of a view or a rule to a typed plan.
//!
//! A view is one ClickHouse SELECT. The planner reads it with sqlparser's ClickHouse dialect and types it by ClickHouse's rules
//! (which live with the expressions, in `weir_operators::expr`). What Weir can't compute exactly as ClickHouse does is
//! refused at its place in the text, with the way out; as many problems as can be found are reported at once.
//!
//! Not here: joins, subqueries, ORDER BY, LIMIT, DISTINCT, UNION, expressions over aggregates. They belong in a
//! query over the view.

mod aggregates;
mod calls;
mod expressions;
mod functions;
mod literals;
mod names;
mod places;
mod render;
mod scope;
mod select;
mod windows;

use std::collections::{BTreeMap, BTreeSet};

use weir_operators::expr::{Expr, Function};
use weir_operators::view::ViewPlan;
use weir_schemas::stage::Column;

use crate::problem::Problem;

pub use render::{call, render, width};

/// What the planner knows of a source.
#[derive(Clone, Debug)]
pub struct SourceColumns {
    /// The reader schema's columns, in their order.
    pub columns: Vec<Column>,
    /// The column of the event time.
    pub event_time: String,
}

/// Plans the SELECT of the view `name`, whose text stands in `file`.
///
/// # Errors
/// Every problem that was found, in the order of the text.
pub fn plan(
    name: &str,
    text: &str,
    file: &str,
    sources: &BTreeMap<String, SourceColumns>,
) -> Result<ViewPlan, Vec<Problem>> {
    select::plan(name, text, file, sources)
}

/// Plans a condition over a source's events, as in the rules of `quality`. It is of type `UInt8` or `Bool`, maybe nullable.
///
/// # Errors
/// Every problem that was found, in the order of the text.
pub fn plan_condition(text: &str, file: &str, source: &SourceColumns) -> Result<Expr, Vec<Problem>> {
    select::plan_condition(text, file, source)
}

/// Plans the name of a field: a column, dotted where it is nested, or a map's value as in `props['country']`.
///
/// # Errors
/// Every problem that was found.
pub fn plan_field(text: &str, file: &str, source: &SourceColumns) -> Result<Expr, Vec<Problem>> {
    select::plan_expression(text, file, source, |field, place, problems| {
        let is_field = match &field {
            Expr::Column { .. } => true,
            Expr::Call { function: Function::MapGet, arguments, .. } => {
                matches!(arguments.as_slice(), [Expr::Column { .. }, Expr::Literal { .. }])
            }
            _ => false,
        };
        if !is_field {
            problems.add(place, "this is no field", "name a column, or a map's value as in props['country']");
        }
        is_field.then_some(field)
    })
}

/// The columns of the event batches that a view reads, by their index in the batch; those of the system aside.
pub fn columns_used(plan: &ViewPlan) -> BTreeSet<usize> {
    let mut used = BTreeSet::new();
    let mut visit = |index: usize| {
        used.insert(index);
    };
    if let Some(filter) = &plan.filter {
        filter.visit_columns(&mut visit);
    }
    for dimension in &plan.dimensions {
        dimension.value.visit_columns(&mut visit);
    }
    for measure in &plan.measures {
        measure.call.arguments.iter().for_each(|argument| argument.visit_columns(&mut visit));
        if let Some(condition) = &measure.call.condition {
            condition.visit_columns(&mut visit);
        }
    }
    used
}
