//! A plan as `weir check` prints it.

use std::fmt::Write;

use weir_operators::aggregate::Call;
use weir_operators::view::{Output, ViewPlan, Width};

/// The plan in a few aligned lines: the source and filter, the window, then each column with its type and what it holds.
pub fn render(plan: &ViewPlan) -> String {
    let mut lines = vec![("source".to_owned(), plan.source.clone())];
    if let Some(filter) = &plan.filter {
        lines.push(("where".to_owned(), filter.to_string()));
    }
    let mut columns = Vec::with_capacity(plan.outputs.len());
    for (column, output) in plan.columns().into_iter().zip(&plan.outputs) {
        let holds = match *output {
            Output::Window => format!("window of {}", width(plan)),
            Output::Dimension(at) => {
                plan.dimensions.get(at).map_or(String::new(), |dimension| dimension.value.to_string())
            }
            Output::Measure(at) => plan.measures.get(at).map_or(String::new(), |measure| call(&measure.call)),
        };
        columns.push((column.name, column.column_type.to_string(), holds));
    }
    if let Some(having) = &plan.having {
        lines.push(("having".to_owned(), having.to_string()));
    }
    let name_width = columns.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
    let type_width = columns.iter().map(|(_, of, _)| of.chars().count()).max().unwrap_or(0);
    let mut out = format!("view {}\n", plan.name);
    // Writing to a string can't fail.
    for (key, value) in lines {
        let _ = writeln!(out, "  {key:<7} {value}");
    }
    for (name, of, holds) in columns {
        let _ = writeln!(out, "  {name:<name_width$}  {of:<type_width$}  {holds}");
    }
    out
}

/// An aggregate call as ClickHouse would write it.
pub fn call(call: &Call) -> String {
    let mut arguments: Vec<String> = call.arguments.iter().map(ToString::to_string).collect();
    arguments.extend(call.condition.iter().map(ToString::to_string));
    let name = call.signature.split([',', '(']).next().unwrap_or_default();
    let conditional = if call.condition.is_some() { "If" } else { "" };
    format!("{name}{conditional}({})", arguments.join(", "))
}

/// How wide a view's windows are, and by whose calendar.
pub fn width(plan: &ViewPlan) -> String {
    let count = |count: i64, unit: &str| if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") };
    let width = match plan.window.width {
        Width::Fixed(span) => {
            let seconds = span.0 / 1_000_000;
            match seconds {
                _ if seconds % 3600 == 0 => count(seconds / 3600, "hour"),
                _ if seconds % 60 == 0 => count(seconds / 60, "minute"),
                _ => count(seconds, "second"),
            }
        }
        Width::Hours(hours) => count(i64::from(hours), "hour"),
        Width::Days(days) => count(i64::from(days), "day"),
    };
    format!("{width} ({})", plan.window.zone.as_deref().unwrap_or("UTC"))
}
