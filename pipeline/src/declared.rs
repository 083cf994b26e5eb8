//! Every rule of a source, wherever it stands: in the pipeline file, in the reader schema, in the tracking plan.
//!
//! A rule of the reader schema is an object of a field's property `weir.rules` with the keys of the pipeline file. `field` is the
//! field itself; of a map, `key` names one of its values. Its id is `schema/<path>/<requirement>`.
//!
//! Invariant: a source's rules are in the order of their ids, and no two have the same one.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use weir_operators::plan::Plan as BoundPlan;
use weir_operators::rule::{Basis, Rule};
use weir_schemas::avro::{FieldRules, ReaderSchema};
use weir_schemas::rule::Mode;

use crate::config::load::unknown_key;
use crate::config::{self, Pipeline};
use crate::plan::Plan;
use crate::plan::compile::{Place, compile};
use crate::problem::{Problem, nearest};
use crate::rules::{self, ReferenceTables, quoted};
use crate::sql::SourceColumns;

/// What rules are made from, beside columns.
pub struct Declared<'a> {
    /// The pipeline file's name.
    pub file: &'a str,
    /// The pipeline.
    pub pipeline: &'a Pipeline,
    /// The tables that rules look values up in.
    pub tables: &'a ReferenceTables,
    /// The sources' tracking plans.
    pub plans: &'a BTreeMap<String, Plan>,
}

/// A source's rules over its columns.
pub struct OfSource {
    /// In the order of their ids.
    pub rules: Vec<Rule>,
    /// What judges those of the tracking plan.
    pub plan: Option<BoundPlan>,
}

impl OfSource {
    /// Calls `visit` with the index of every column that they read.
    pub fn visit_columns(&self, visit: &mut impl FnMut(usize)) {
        self.rules.iter().for_each(|rule| rule.visit_columns(visit));
        if let Some(plan) = &self.plan {
            plan.visit_columns(visit);
        }
    }
}

impl Declared<'_> {
    /// The rules of the source called `name`, over `columns`.
    ///
    /// # Errors
    /// Every problem with them.
    pub fn of_source(
        &self,
        name: &str,
        reader: &ReaderSchema,
        columns: &SourceColumns,
    ) -> Result<OfSource, Vec<Problem>> {
        let Some(source) = self.pipeline.sources.get(name) else { return Err(Vec::new()) };
        let (mut rules, mut problems) = (Vec::new(), Vec::new());
        let own = self.pipeline.quality.rules.iter().filter(|(_, rule)| rule.source == name);
        let of_file = own.map(|(id, rule)| (id.clone(), rule.clone(), self.file.to_owned()));
        let of_schema = self.of_schema(name, source, &reader.rules, &mut problems);
        for (id, rule, file) in of_file.chain(of_schema) {
            match rules::plan(&file, &id, &rule, source, columns, self.tables) {
                Ok(planned) => rules.push(planned),
                Err(found) => problems.extend(found),
            }
        }
        let mut compiled = None;
        if let (Some(plan), Some(uses)) = (self.plans.get(name), &source.plan) {
            match compile(plan, &Place { file: self.file, name, source, uses, columns }) {
                Ok(of_plan) => {
                    rules.extend(of_plan.rules.iter().cloned());
                    compiled = Some(of_plan);
                }
                Err(found) => problems.extend(found),
            }
        }
        rules.sort_by(|a, b| a.id.cmp(&b.id));
        for pair in rules.windows(2).filter(|pair| pair[0].id == pair[1].id) {
            let message = format!("source `{name}` has two rules called `{}`", pair[0].id);
            problems.push(Problem::of_file(self.file, message, "give the pipeline file's rule another id"));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        self.set_modes(&mut rules);
        self.check_refusals(&rules, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let plan = compiled.map(|compiled| compiled.bind(&mut rules));
        Ok(OfSource { rules, plan })
    }

    /// The rules in a reader schema, each with its id and what to call its place.
    fn of_schema(
        &self,
        name: &str,
        source: &config::Source,
        fields: &[FieldRules],
        problems: &mut Vec<Problem>,
    ) -> Vec<(String, config::Rule, String)> {
        let schema = match &source.schema_file {
            Some(file) => file.display().to_string(),
            None => format!("the reader schema of source `{name}`"),
        };
        let mut rules: Vec<(String, config::Rule, String)> = Vec::new();
        for FieldRules { field, rules: written } in fields {
            let place = format!("{schema}, field `{field}`");
            for rule in written {
                match schema_rule(name, field, rule.clone()) {
                    Ok(rule) => {
                        let requirement = rule.requirements().first().copied().unwrap_or("rule");
                        let path = rule.field.as_deref().unwrap_or(field).replace("['", ".").replace("']", "");
                        let base = format!("schema/{path}/{requirement}");
                        let alike = rules.iter().filter(|(id, ..)| id.split('#').next() == Some(&base)).count();
                        let id = if alike == 0 { base } else { format!("{base}#{}", alike + 1) };
                        problems.extend(
                            config::check_rule(&id, &rule)
                                .map(|(message, remedy)| Problem::of_file(&place, message, remedy)),
                        );
                        rules.push((id, rule, place.clone()));
                    }
                    Err((message, remedy)) => problems.push(Problem::of_file(&place, message, remedy)),
                }
            }
        }
        rules
    }

    /// Gives rules of schemas and plans the modes that the pipeline file has for them; the exact id goes before a pattern.
    fn set_modes(&self, rules: &mut [Rule]) {
        let modes = &self.pipeline.quality.modes;
        for rule in rules {
            let by_pattern = || modes.iter().find(|(id, _)| matches(id, &rule.id)).map(|(_, mode)| *mode);
            let is_own = self.pipeline.quality.rules.contains_key(&*rule.id);
            let mode: Option<Mode> = modes.get(&*rule.id).copied().or_else(by_pattern);
            rule.mode = mode.filter(|_| !is_own).unwrap_or(rule.mode);
        }
    }

    /// Rules that can't do what they shall, by the pipeline file's modes.
    fn check_refusals(&self, rules: &[Rule], problems: &mut Vec<Problem>) {
        for rule in rules {
            let (message, remedy) = match &rule.basis {
                Basis::Sequence(_) if rule.mode != Mode::Observe => {
                    ("can only observe: a gap is known when the event behind it is written", "write \"observe\"")
                }
                _ => continue,
            };
            let message = format!("[quality.modes]: rule `{}` {message}", rule.id);
            problems.push(Problem::of_file(self.file, message, remedy));
        }
    }

    /// The entries of `quality.modes` that are about no rule of `rules`.
    pub fn check_modes<'r>(&self, rules: impl Iterator<Item = &'r Rule> + Clone, problems: &mut Vec<Problem>) {
        for id in self.pipeline.quality.modes.keys() {
            let is_own = self.pipeline.quality.rules.contains_key(id);
            if is_own || !rules.clone().any(|rule| matches(id, &rule.id)) {
                let near = nearest(id, rules.clone().map(|rule| &*rule.id));
                let (message, remedy) = match (is_own, near) {
                    (true, _) => (format!("`{id}` has its mode in [quality.rules]"), "set it there".to_owned()),
                    (_, Some(near)) => {
                        (format!("[quality.modes]: there is no rule `{id}`"), format!("did you mean `{near}`?"))
                    }
                    _ => (
                        format!("[quality.modes]: there is no rule `{id}`"),
                        "name a rule of a reader schema or a tracking plan; `weir check` lists them".to_owned(),
                    ),
                };
                problems.push(Problem::of_file(self.file, message, remedy));
            }
        }
    }
}

/// Whether `pattern`, in which `*` stands for any text, is `id`.
fn matches(pattern: &str, id: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = id.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

/// A rule as it stands in a schema, as the pipeline file would have it.
fn schema_rule(source: &str, field: &str, mut rule: Map<String, Value>) -> Result<config::Rule, (String, String)> {
    for key in ["source", "field"] {
        if rule.contains_key(key) {
            return Err((
                format!("a rule in a schema has no `{key}`"),
                "leave it out: it is about its own field".to_owned(),
            ));
        }
    }
    let path = match rule.remove("key") {
        None => field.to_owned(),
        Some(Value::String(key)) => format!("{field}[{}]", quoted(&key)),
        Some(other) => return Err((format!("`key` is {other}"), "write the map's key as a string".to_owned())),
    };
    rule.insert("source".to_owned(), Value::from(source));
    if !rule.contains_key("require") && !rule.contains_key("fields") && !rule.contains_key("max_clock_skew_ms") {
        rule.insert("field".to_owned(), Value::from(path));
    }
    config::Rule::deserialize(Value::Object(rule)).map_err(|error| {
        let message = error.to_string();
        unknown_key(&message).unwrap_or((message, "write it as in the pipeline file's [quality.rules]".to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, id, is_it) in [
            ("plan/*", "plan/purchase/amount@2", true),
            ("plan/*/amount@*", "plan/purchase/amount@2", true),
            ("*@2", "plan/purchase/amount@2", true),
            ("plan/purchase/amount@2", "plan/purchase/amount@2", true),
            ("plan/purchase/amount@2", "plan/purchase/amount@23", false),
            ("plan/*/country@*", "plan/purchase/amount@2", false),
        ] {
            assert_eq!(matches(pattern, id), is_it, "{pattern} {id}");
        }
    }
}
