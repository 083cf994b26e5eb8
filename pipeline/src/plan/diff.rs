//! What a version of a plan asks differently from another, and whom that concerns.
//!
//! *Tightened* is what some event may break that it didn't break before; *loosened* the other way round. Whom it concerns is
//! counted over events, a sample of a topic or the accepted ones in ClickHouse: both versions judge every event, whichever it
//! claims, and what counts is what breaks the new one and kept the old one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::field::{Field, Kind};
use super::{EVERY_TYPE, EventType, Planned, Version};

/// How a version asks differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It wasn't planned.
    Added,
    /// It isn't planned any more.
    Removed,
    /// It asks more.
    Tightened,
    /// It asks less.
    Loosened,
    /// It asks something else.
    Changed,
}

impl Change {
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Change::Added => "added",
            Change::Removed => "removed",
            Change::Tightened => "tightened",
            Change::Loosened => "loosened",
            Change::Changed => "changed",
        }
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The event type; `*` where it is every one, empty where it is the plan itself.
    pub event_type: String,
    /// The field; empty where it is the event type.
    pub field: String,
    /// How.
    pub change: Change,
    /// What, in words.
    pub what: String,
}

/// Everything that `new` asks differently from `old`, by event type and field.
pub fn differences(old: &Version, new: &Version) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut add = |event_type: &str, field: &str, change: Change, what: String| {
        let difference = Difference { event_type: event_type.to_owned(), field: field.to_owned(), change, what };
        // Fields of every type come by once for each of them.
        if !found.contains(&difference) {
            found.push(difference);
        }
    };
    let allowed = |is_so: bool| if is_so { "allowed" } else { "refused by plan_unknown_type" };
    if old.plan.other_types != new.plan.other_types {
        let change = if new.plan.other_types { Change::Loosened } else { Change::Tightened };
        add(
            "",
            "",
            change,
            format!("other event types: {} -> {}", allowed(old.plan.other_types), allowed(new.plan.other_types)),
        );
    }
    let none = EventType::default();
    let types: BTreeSet<&String> = old.plan.events.keys().chain(new.plan.events.keys()).collect();
    for name in types {
        let (before, after) = (old.plan.events.get(name), new.plan.events.get(name));
        match (before, after) {
            (None, Some(_)) => add(name, "", Change::Added, "event type".to_owned()),
            (Some(_), None) => {
                add(name, "", Change::Removed, format!("event type; then {}", allowed(new.plan.other_types)))
            }
            (Some(before), Some(after)) => {
                let (was, is) = (old.plan.allows_others(before), new.plan.allows_others(after));
                if was != is {
                    let change = if is { Change::Loosened } else { Change::Tightened };
                    let word = |is_so: bool| if is_so { "allowed" } else { "not allowed" };
                    add(name, "", change, format!("properties that aren't planned: {} -> {}", word(was), word(is)));
                }
            }
            (None, None) => {}
        }
        let of = |version: &Version, event: Option<&EventType>| -> BTreeMap<String, (String, Field, Settings)> {
            let event_of = event.unwrap_or(&none);
            let planned = if event.is_some() { owned_fields(version, name, event_of) } else { Vec::new() };
            planned.into_iter().map(|(of, field, asked, settings)| (field, (of, asked, settings))).collect()
        };
        if before.is_none() || after.is_none() {
            continue;
        }
        let (before, after) = (of(old, before), of(new, after));
        let fields: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for field in fields {
            match (before.get(field), after.get(field)) {
                (None, Some((of, asked, _))) => add(of, field, Change::Added, asked.to_string()),
                (Some((of, asked, _)), None) => add(of, field, Change::Removed, asked.to_string()),
                (Some((_, was, settings_were)), Some((of, is, settings))) => {
                    for (change, what) in compare(was, is).into_iter().chain(settings_were.compare(settings)) {
                        add(of, field, change, what);
                    }
                }
                (None, None) => {}
            }
        }
    }
    found
}

/// What stands around the requirements of a field.
#[derive(Clone, PartialEq)]
struct Settings {
    mode: weir_schemas::rule::Mode,
    severity: weir_schemas::rule::Severity,
    owner: String,
}

impl Settings {
    fn compare(&self, new: &Settings) -> Vec<(Change, String)> {
        let mut found = Vec::new();
        let by = |stricter: bool| if stricter { Change::Tightened } else { Change::Loosened };
        if self.mode != new.mode {
            found.push((by(new.mode > self.mode), format!("mode: {} -> {}", self.mode.name(), new.mode.name())));
        }
        if self.severity != new.severity {
            let what = format!("severity: {} -> {}", self.severity.name(), new.severity.name());
            found.push((Change::Changed, what));
        }
        if self.owner != new.owner {
            found.push((Change::Changed, format!("owner: {:?} -> {:?}", self.owner, new.owner)));
        }
        found
    }
}

fn owned_fields(version: &Version, name: &str, event: &EventType) -> Vec<(String, String, Field, Settings)> {
    let owned = |planned: &Planned<'_>| {
        let settings = Settings { mode: planned.mode, severity: planned.severity, owner: planned.owner.to_owned() };
        let of = if planned.of == EVERY_TYPE { EVERY_TYPE } else { name };
        (of.to_owned(), planned.name.to_owned(), planned.field.clone(), settings)
    };
    version.plan.fields_of(name, event).iter().map(owned).collect()
}

/// What a field's requirements are, and how they differ.
fn compare(old: &Field, new: &Field) -> Vec<(Change, String)> {
    let mut found = Vec::new();
    if old.required != new.required {
        let word = |is_so: bool| if is_so { "required" } else { "optional" };
        found.push((side(new.required), format!("{} -> {}", word(old.required), word(new.required))));
    }
    if old.kind != new.kind {
        let change = match (old.kind, new.kind) {
            (None, Some(_)) | (Some(Kind::Number), Some(Kind::Integer)) => Change::Tightened,
            (Some(_), None) | (Some(Kind::Integer), Some(Kind::Number)) => Change::Loosened,
            _ => Change::Changed,
        };
        let word = |kind: Option<Kind>| kind.map_or("any", Kind::name);
        found.push((change, format!("type: {} -> {}", word(old.kind), word(new.kind))));
    }
    found.extend(values(old, new));
    let number = |value: &Option<toml::Value>| {
        value.as_ref().and_then(|value| value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64)))
    };
    let text = |value: &Option<toml::Value>| value.as_ref().map(ToString::to_string);
    for (key, was, is, rises) in [("min", &old.min, &new.min, true), ("max", &old.max, &new.max, false)] {
        if was != is {
            found.push((
                bound(text(was).zip(number(was)), text(is).zip(number(is)), (was.is_some(), is.is_some()), rises),
                told(key, text(was), text(is)),
            ));
        }
    }
    let length = |value: Option<u64>| value.map(|length| (length.to_string(), length as f64));
    for (key, was, is, rises) in
        [("min_length", old.min_length, new.min_length, true), ("max_length", old.max_length, new.max_length, false)]
    {
        if was != is {
            let change = bound(length(was), length(is), (was.is_some(), is.is_some()), rises);
            found.push((change, told(key, was.map(|of| of.to_string()), is.map(|of| of.to_string()))));
        }
    }
    if old.pattern != new.pattern {
        let change = match (&old.pattern, &new.pattern) {
            (None, _) => Change::Tightened,
            (_, None) => Change::Loosened,
            _ => Change::Changed,
        };
        found.push((change, told("pattern", old.pattern.clone(), new.pattern.clone())));
    }
    found
}

fn side(is_tighter: bool) -> Change {
    if is_tighter { Change::Tightened } else { Change::Loosened }
}

fn told(key: &str, was: Option<String>, is: Option<String>) -> String {
    let word = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
    format!("{key}: {} -> {}", word(was), word(is))
}

/// How a bound moved; one that is no number moved somewhere.
fn bound(
    was: Option<(String, f64)>,
    is: Option<(String, f64)>,
    (had, has): (bool, bool),
    rising_tightens: bool,
) -> Change {
    match (had, has, was, is) {
        (false, ..) => Change::Tightened,
        (_, false, ..) => Change::Loosened,
        (.., Some((_, was)), Some((_, is))) => side((is > was) == rising_tightens),
        _ => Change::Changed,
    }
}

fn values(old: &Field, new: &Field) -> Option<(Change, String)> {
    if old.one_of == new.one_of {
        return None;
    }
    let set = |values: &Option<Vec<toml::Value>>| -> Option<BTreeSet<String>> {
        values.as_ref().map(|values| values.iter().map(ToString::to_string).collect())
    };
    let (was, is) = match (set(&old.one_of), set(&new.one_of)) {
        (Some(was), Some(is)) => (was, is),
        (None, Some(is)) => return Some((Change::Tightened, format!("one_of: any -> {}", joined(is.iter())))),
        (Some(was), None) => return Some((Change::Loosened, format!("one_of: {} -> any", joined(was.iter())))),
        (None, None) => return None,
    };
    let (more, fewer) = (joined(is.difference(&was)), joined(was.difference(&is)));
    match (more.is_empty(), fewer.is_empty()) {
        (true, true) => None,
        (false, true) => Some((Change::Loosened, format!("one_of: also {more}"))),
        (true, false) => Some((Change::Tightened, format!("one_of: no longer {fewer}"))),
        (false, false) => Some((Change::Changed, format!("one_of: also {more}; no longer {fewer}"))),
    }
}

fn joined<'a>(values: impl Iterator<Item = &'a String>) -> String {
    values.map(String::as_str).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Field {
    /// What is asked, in a few words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = vec![if self.required { "required".to_owned() } else { "optional".to_owned() }];
        parts.extend(self.kind.map(|kind| kind.name().to_owned()));
        if let Some(values) = &self.one_of {
            parts.push(format!("one of {}", values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")));
        }
        let bounds = [("min", self.min.as_ref()), ("max", self.max.as_ref())];
        parts.extend(bounds.into_iter().filter_map(|(key, value)| Some(format!("{key} {}", value?))));
        parts.extend(self.pattern.as_ref().map(|pattern| format!("pattern {pattern}")));
        let lengths = [("min_length", self.min_length), ("max_length", self.max_length)];
        parts.extend(lengths.into_iter().filter_map(|(key, value)| Some(format!("{key} {}", value?))));
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::{Source, read_file};

    fn version(text: &str) -> Version {
        let plan = read_file(&Source::new("p.toml", text)).unwrap();
        Version { name: "1".to_owned(), file: "p.toml".to_owned(), text: text.to_owned(), plan }
    }

    fn diff(old: &str, new: &str) -> String {
        let told = differences(&version(old), &version(new));
        let line = |one: &Difference| {
            format!("{} {} {}: {}", one.change.name(), one.event_type, one.field, one.what).replace("  ", " ")
        };
        told.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn each_difference_is_told_by_the_side_that_it_moves_to() {
        let old = r#"
            [fields.user_id]
            required = true
            [events.purchase.fields.amount]
            min = 0
            max = 1000
            [events.purchase.fields."props['country']"]
            one_of = ["AT", "DE"]
            max_length = 2
            [events.view.fields."props['path']"]
            [events.gone.fields.amount]
        "#;
        let new = r#"
            other_properties = false
            [fields.user_id]
            [events.purchase]
            owner = "payments"
            [events.purchase.fields.amount]
            min = 1
            max = 2000
            type = "number"
            [events.purchase.fields."props['country']"]
            one_of = ["AT", "KR"]
            required = true
            [events.purchase.fields."props['code']"]
            pattern = "^[A-Z]+$"
            mode = "quarantine"
            [events.view.fields."props['path']"]
            mode = "quarantine"
            [events.signup]
        "#;
        assert_eq!(
            diff(old, new),
            "removed gone : event type; then refused by plan_unknown_type\n\
             tightened purchase : properties that aren't planned: allowed -> not allowed\n\
             tightened purchase amount: type: any -> number\n\
             tightened purchase amount: min: 0 -> 1\n\
             loosened purchase amount: max: 1000 -> 2000\n\
             changed purchase amount: owner: \"\" -> \"payments\"\n\
             added purchase props['code']: optional, pattern ^[A-Z]+$\n\
             tightened purchase props['country']: optional -> required\n\
             changed purchase props['country']: one_of: also \"KR\"; no longer \"DE\"\n\
             loosened purchase props['country']: max_length: 2 -> none\n\
             changed purchase props['country']: owner: \"\" -> \"payments\"\n\
             loosened * user_id: required -> optional\n\
             added signup : event type\n\
             tightened view : properties that aren't planned: allowed -> not allowed\n\
             tightened view props['path']: mode: tag -> quarantine"
        );
        assert_eq!(diff(old, old), "");
    }
}
