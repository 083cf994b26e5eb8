//! Rules and the quarantine, as the pipeline file has them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use weir_schemas::rule::{Mode, Severity};

use super::load::Source;
use crate::problem::Problem;

/// Rules that one source may have, at most.
const RULES_MAX: usize = 1_000;

/// Rules and the quarantine.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    /// The topic that refused records go to, whole; absent, they are only in the table.
    pub quarantine_topic: Option<String>,
    /// What must hold of every event, by the rule's id.
    #[serde(default)]
    pub rules: BTreeMap<String, Rule>,
    /// Modes of rules that stand elsewhere, in a reader schema or a tracking plan, by the rules' ids; `*` stands for any text.
    #[serde(default)]
    pub modes: BTreeMap<String, Mode>,
}

/// What must hold of a source's events: one requirement, in SQL or as a shorthand on a field. The shorthands say
/// nothing of a field that is null; `required` does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The source.
    pub source: String,
    /// A SQL condition: the events that the rule is about; absent, all.
    pub when: Option<String>,
    /// The field that it is about: a column, or a map's value as in `props['country']`.
    pub field: Option<String>,
    /// A SQL condition over the source's columns.
    pub require: Option<String>,
    /// The field is neither null nor empty.
    pub required: Option<bool>,
    /// The values that the field may have.
    pub one_of: Option<Vec<toml::Value>>,
    /// The least value of a number or a time.
    pub min: Option<toml::Value>,
    /// The greatest value of a number or a time.
    pub max: Option<toml::Value>,
    /// A regular expression that matches somewhere in the text, as ClickHouse's `match` reads it.
    pub pattern: Option<String>,
    /// The least length: bytes of a text, items of an array or a map.
    pub min_length: Option<u64>,
    /// The greatest length.
    pub max_length: Option<u64>,
    /// True: the text must read as a number; false: it mustn't, as a number was sent where a word is wanted.
    pub number: Option<bool>,
    /// How far the event time may be from the record's Kafka timestamp, either way.
    pub max_clock_skew_ms: Option<u64>,
    /// The field's value is unique per tenant within so much event time, either way.
    pub unique_within_ms: Option<u64>,
    /// Several fields whose values together are.
    pub fields: Option<Vec<String>>,
    /// The field numbers a device's events one after the other; a number that hasn't come with an event time at most so much
    /// newer than that of the first event beyond it is missing.
    pub sequence_within_ms: Option<u64>,
    /// The field that names the device; absent, the source's `user`.
    pub device: Option<String>,
    /// The number with which a device begins anew; absent, numbers only rise.
    pub starts_at: Option<i64>,
    /// The field's value stands in a column of a small table.
    pub in_table: Option<ReferenceTable>,
    /// What becomes of an event that breaks the rule.
    #[serde(default)]
    pub mode: Mode,
    /// How bad that is.
    #[serde(default)]
    pub severity: Severity,
    /// Whose rule it is.
    #[serde(default)]
    pub owner: String,
}

/// A small table with the values that a field may have, read once at the start.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceTable {
    /// A CSV file with a header.
    pub file: PathBuf,
    /// The column.
    pub column: String,
}

impl Rule {
    /// The keys of the requirements that it makes; a least and a greatest value are one.
    pub fn requirements(&self) -> Vec<&'static str> {
        let made = [
            ("require", self.require.is_some()),
            ("required", self.required.is_some()),
            ("one_of", self.one_of.is_some()),
            ("min", self.min.is_some()),
            ("max", self.max.is_some() && self.min.is_none()),
            ("pattern", self.pattern.is_some()),
            ("min_length", self.min_length.is_some()),
            ("max_length", self.max_length.is_some() && self.min_length.is_none()),
            ("number", self.number.is_some()),
            ("max_clock_skew_ms", self.max_clock_skew_ms.is_some()),
            ("in_table", self.in_table.is_some()),
            ("unique_within_ms", self.unique_within_ms.is_some()),
            ("sequence_within_ms", self.sequence_within_ms.is_some()),
        ];
        made.into_iter().filter(|(_, is_made)| *is_made).map(|(key, _)| key).collect()
    }
}

/// Every problem of the rules' form.
pub(super) fn validate(source: &Source<'_>, quality: &Quality, problems: &mut Vec<Problem>) {
    let mut of_source: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, rule) in &quality.rules {
        let path = |key: &'static str| ["quality", "rules", id.as_str(), key];
        let mut add = |key: &'static str, message: String, remedy: &str| {
            problems.push(source.problem(&path(key), format!("rule `{id}` {message}"), remedy));
        };
        let is_id = !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if !is_id {
            add("", "can't have that id".to_owned(), "use letters, digits, dots, dashes and _");
        }
        let count = of_source.entry(&rule.source).or_default();
        *count += 1;
        if *count == RULES_MAX + 1 {
            add("", format!("is one too many: a source has {RULES_MAX} at most"), "join rules by AND in one `require`");
        }
        for (key, message, remedy) in problems_of(rule) {
            add(key, message, &remedy);
        }
    }
}

/// Every problem of a rule's form that stands in a reader schema: message and remedy.
pub fn check_rule(id: &str, rule: &Rule) -> impl Iterator<Item = (String, String)> {
    let id = id.to_owned();
    problems_of(rule).into_iter().map(move |(_, message, remedy)| (format!("rule `{id}` {message}"), remedy))
}

/// What is wrong with a rule by itself: the key, the message behind the rule's name, the remedy.
fn problems_of(rule: &Rule) -> Vec<(&'static str, String, String)> {
    let mut problems: Vec<(&'static str, String, String)> = Vec::new();
    let mut add = |key: &'static str, message: String, remedy: &str| problems.push((key, message, remedy.to_owned()));
    let made = rule.requirements();
    match made.as_slice() {
        [] => add(
            "",
            "requires nothing".to_owned(),
            "give it `require`, or one of required, one_of, min, max, pattern, min_length, max_length, number, \
                 max_clock_skew_ms, in_table, unique_within_ms, sequence_within_ms",
        ),
        [one] => {
            let needs_field = !matches!(*one, "require" | "max_clock_skew_ms") && rule.fields.is_none();
            if needs_field && rule.field.is_none() {
                add(one, format!("has `{one}` and no field"), "name the `field` that it is about");
            }
            if *one == "max_clock_skew_ms" && rule.field.is_some() {
                add("field", "is about the event time".to_owned(), "leave `field` out");
            }
        }
        [first, second, ..] => {
            add(second, format!("has two requirements, `{first}` and `{second}`"), "make a rule of each");
        }
    }
    unique_problems(rule, &mut add);
    sequence_problems(rule, &mut add);
    if rule.required == Some(false) {
        add("required", "requires nothing".to_owned(), "write required = true, or leave the rule out");
    }
    if rule.one_of.as_ref().is_some_and(Vec::is_empty) {
        add("one_of", "allows no value at all".to_owned(), "name the values that are allowed");
    }
    if let (Some(least), Some(most)) = (rule.min_length, rule.max_length)
        && least > most
    {
        add("min_length", format!("allows no length: {least} is more than {most}"), "exchange the two");
    }
    if let (Some(least), Some(most)) = (rule.min.as_ref().and_then(number), rule.max.as_ref().and_then(number))
        && least > most
    {
        add("min", format!("allows no value: {least} is more than {most}"), "exchange the two");
    }
    problems
}

/// Further than this, a span is most likely in another unit.
const WITHIN_MAX_MS: u64 = 366 * 86_400_000;

/// What is wrong with a rule of uniqueness, or with keys that belong to one.
fn unique_problems(rule: &Rule, add: &mut impl FnMut(&'static str, String, &str)) {
    let Some(within) = rule.unique_within_ms else {
        if rule.fields.is_some() {
            add("fields", "has `fields` and no `unique_within_ms`".to_owned(), "name one `field`");
        }
        return;
    };
    if !(1..=WITHIN_MAX_MS).contains(&within) {
        add("unique_within_ms", format!("is about {within} ms"), "take 1 ms to a year");
    }
    match &rule.fields {
        Some(_) if rule.field.is_some() => {
            add("fields", "has `field` and `fields`".to_owned(), "leave one of them out")
        }
        Some(fields) if fields.is_empty() => add("fields", "names no field".to_owned(), "name the fields of the key"),
        _ => {}
    }
}

/// Further than this, a missing number would be told so late that nobody could act.
const SEQUENCE_WITHIN_MAX_MS: u64 = 86_400_000;

/// What is wrong with a rule of sequences, or with keys that belong to one.
fn sequence_problems(rule: &Rule, add: &mut impl FnMut(&'static str, String, &str)) {
    let Some(within) = rule.sequence_within_ms else {
        for (key, is_there) in [("device", rule.device.is_some()), ("starts_at", rule.starts_at.is_some())] {
            if is_there {
                let remedy = "give it a `field` with the number and `sequence_within_ms`, or leave it out";
                add(key, format!("has `{key}` and no `sequence_within_ms`"), remedy);
            }
        }
        return;
    };
    if within > SEQUENCE_WITHIN_MAX_MS {
        add("sequence_within_ms", format!("waits for {within} ms"), "take 0 ms to a day");
    }
    if rule.mode != Mode::Observe {
        add(
            "sequence_within_ms",
            format!(
                "can't {}: that a number is missing is known when the event behind it was written long ago",
                if rule.mode == Mode::Tag { "mark an event" } else { "refuse" }
            ),
            "write mode = \"observe\"; each gap is a row of weir_violations all the same",
        );
    }
    if rule.starts_at.is_some_and(|first| first < 0) {
        add("starts_at", "begins below 0".to_owned(), "numbers count up from 0 or more");
    }
}

fn number(value: &toml::Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|value| value as f64))
}
