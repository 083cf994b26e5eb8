//! Planning a rule of uniqueness: no condition over one event, but a key.

use weir_operators::expr::{Expr, Function};
use weir_operators::rule::{Basis, Rule, Shown, Value};
use weir_operators::unique::Uniqueness;
use weir_schemas::time::Span;

use super::{Place, is_sensitive, rule_of, when_of};
use crate::config;
use crate::problem::Problem;
use crate::sql;

/// Plans the rule `id`, that a key is unique within `within` milliseconds.
pub(super) fn plan(
    id: &str,
    rule: &config::Rule,
    within: u64,
    source: &config::Source,
    place: &Place<'_>,
) -> Result<Rule, Vec<Problem>> {
    let names: Vec<String> = rule.fields.clone().unwrap_or_else(|| rule.field.iter().cloned().collect());
    let (mut key, mut shown, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for name in &names {
        let text = sql::plan_field(name, &place.file, place.columns).and_then(|field| {
            Expr::call(Function::ToString, vec![field])
                .map_err(|refusal| vec![place.problem(refusal.message, "name a field with one plain value")])
        });
        match text {
            Ok(text) => {
                let is_masked = is_sensitive(&source.sensitive, name);
                let value = if is_masked { Value::Masked } else { Value::Text(text.clone()) };
                shown.push(Shown { name: (names.len() > 1).then(|| name.clone()), value });
                key.push(text);
            }
            Err(found) => problems.extend(found),
        }
    }
    let when = when_of(rule, place, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let names = names.join(", ");
    let expected = format!("no other event with the same {names} and tenant within {within} ms");
    let within = Span::from_ms(i64::try_from(within).unwrap_or(i64::MAX));
    Ok(rule_of(id, rule, &expected, Basis::Unique(Box::new(Uniqueness { key, when, within })), shown))
}
