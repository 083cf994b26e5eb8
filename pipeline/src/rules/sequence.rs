//! Planning a rule of sequences: no condition over one event, but a device and its numbers.

use weir_operators::expr::{Expr, Function, OnFailure, Target};
use weir_operators::rule::{Basis, Rule};
use weir_operators::sequence::Sequencing;
use weir_schemas::time::Span;
use weir_schemas::types::ColumnType;

use super::{Place, is_sensitive, rule_of, when_of};
use crate::config;
use crate::problem::Problem;
use crate::sql;

/// Plans the rule `id`, that a device's numbers come one after the other, each within `within` milliseconds.
pub(super) fn plan(
    id: &str,
    rule: &config::Rule,
    within: u64,
    source: &config::Source,
    place: &Place<'_>,
) -> Result<Rule, Vec<Problem>> {
    let (mut problems, mut columns) = (Vec::new(), Vec::new());
    let name = rule.field.clone().unwrap_or_default();
    let mut planned = |name: &str, problems: &mut Vec<Problem>| {
        let field = sql::plan_field(name, &place.file, place.columns).map_err(|found| problems.extend(found)).ok()?;
        if let Expr::Column { name, .. } = &field {
            columns.push(name.clone());
        }
        Some(field)
    };
    let number = planned(&name, &mut problems);
    let number = number.and_then(|field| number_of(field, &name, place).map_err(|found| problems.push(found)).ok());
    let device = rule.device.as_ref().or(source.user.as_ref());
    let text = device.and_then(|device| planned(device, &mut problems)).and_then(|field| {
        let refused = |message: String| place.problem(message, "name a field with one plain value");
        let text = Expr::call(Function::ToString, vec![field]);
        text.map_err(|refusal| problems.push(refused(refusal.message))).ok()
    });
    if device.is_none() {
        let message = "numbers count a device's events, and none is named";
        problems.push(place.problem(message, "name the `device`'s field, or the source's `user`"));
    }
    if rule.starts_at.is_some() && source.event_id.is_none() {
        let message =
            format!("`starts_at` needs the source's `event_id`: else a copy of a first event begins `{name}` anew");
        problems.push(place.problem(message, "name the source's `event_id`, or leave `starts_at` out"));
    }
    let when = when_of(rule, place, &mut problems);
    let (Some(number), Some(text), Some(device), true) = (number, text, device, problems.is_empty()) else {
        return Err(problems);
    };
    let anew = rule.starts_at.map(|first| format!("; {first} begins anew")).unwrap_or_default();
    let expected = format!(
        "every number of {name} of a tenant's {device}, at most {within} ms of event time behind the first one beyond it{anew}"
    );
    let sequencing = Sequencing {
        device: text,
        number,
        when,
        within: Span::from_ms(i64::try_from(within).unwrap_or(i64::MAX)),
        starts_at: rule.starts_at,
        columns,
        is_masked: is_sensitive(&source.sensitive, &name),
    };
    // What is told of a gap is its numbers.
    Ok(rule_of(id, rule, &expected, Basis::Sequence(Box::new(sequencing)), Vec::new()))
}

/// The field as a whole number of 64 bits; a text that isn't one is none.
fn number_of(field: Expr, name: &str, place: &Place<'_>) -> Result<Expr, Problem> {
    let of = field.column_type().clone();
    let function = match of.without_null() {
        ColumnType::Int(_) | ColumnType::UInt(_) => Function::Convert(Target::Int64),
        ColumnType::String | ColumnType::LowCardinality => Function::Parse(Target::Int64, OnFailure::Null),
        _ => {
            let remedy = "name a field of int or long, or a text that holds such a number";
            return Err(place.wrong(name, &of, "sequence_within_ms", "a whole number", remedy));
        }
    };
    Expr::call(function, vec![field]).map_err(|refusal| place.problem(refusal.message, "name a field of int or long"))
}
