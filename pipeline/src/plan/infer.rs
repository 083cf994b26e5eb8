//! Proposes a version of a plan from a sample: what held for all of it.
//!
//! Proposed is what the sample gives good reason for: `required` where a field was always there, a list of values where there are
//! few and each came several times, ranges rounded outward, forms only where every value has one, lengths. Each stands with
//! the numbers behind it, in a comment. The proposal holds for the sample itself; whether it is what was meant, people decide.

use std::collections::BTreeMap;
use std::fmt::Write;

use arrow_array::cast::AsArray;
use arrow_array::{Array, BinaryArray, RecordBatch};
use weir_operators::expr::{Expr, Function};
use weir_schemas::stage::system;
use weir_schemas::types::ColumnType;

use super::field::is_text;
use super::sample::Sample;
use super::seen::{Forms, Seen};
use crate::config;
use crate::error::Error;
use crate::sql::SourceColumns;

/// Event types, and fields of each, that a proposal has, at most: beyond, values have most likely become names.
const TYPES_MAX: usize = 500;
const FIELDS_MAX: usize = 500;
/// Events of a type below which nothing is asked of its fields.
const EVENTS_MIN: u64 = 20;
/// Values below which there is no list, no form and no length.
const VALUES_MIN: u64 = 50;
/// How often each value of a list has to have come.
const EACH_MIN: u64 = 3;

/// A proposal.
#[derive(Debug)]
pub struct Proposal {
    /// The file's text.
    pub text: String,
    /// Event types in it.
    pub event_types: usize,
    /// Fields of them.
    pub fields: usize,
    /// Event types that were left out because there are too many.
    pub left_out: u64,
}

/// What was seen of an event type.
#[derive(Default)]
struct TypeSeen {
    events: u64,
    fields: BTreeMap<String, Seen>,
}

/// A column that is looked at.
struct Looked<'a> {
    name: &'a str,
    column_type: &'a ColumnType,
    what: What,
}

enum What {
    /// Its values as text.
    Texts(Expr),
    /// A map of texts: its values are fields.
    Map(usize),
}

/// Proposes a plan for what `sample` holds.
///
/// # Errors
/// When the source names no event type, or the sample isn't one of the source.
pub fn infer(sample: &Sample, source: &config::Source, columns: &SourceColumns) -> Result<Proposal, Error> {
    let forms = Forms::new().map_err(Error::Stopped)?;
    let types = source.event_type.as_deref().and_then(|name| columns.columns.iter().position(|of| of.name == name));
    let types = types.ok_or_else(|| Error::Stopped("the source names no event type".to_owned()))? + system::COUNT;
    let looked = looked_at(source, columns);
    let (mut seen, mut left_out) = (BTreeMap::new(), 0);
    for batch in &sample.batches {
        look(batch, types, &looked, &forms, &mut seen, &mut left_out)?;
    }
    let kinds: BTreeMap<&str, &ColumnType> = looked.iter().map(|one| (one.name, one.column_type)).collect();
    let (mut text, mut fields) = (header(sample, source), 0);
    let identities = identities(source);
    common(&mut text, &seen, &identities, &kinds);
    for (name, of) in &seen {
        let _ = writeln!(text, "\n[events.{}]  # {} events", key(name), of.events);
        for (field, seen) in of.fields.iter().filter(|(field, _)| !identities.contains(&field.as_str())) {
            fields += 1;
            write_field(&mut text, name, field, seen, of.events, kinds.get(field.as_str()).copied());
        }
    }
    Ok(Proposal { text, event_types: seen.len(), fields, left_out })
}

/// The fields that say who and when: nothing but their presence is proposed of them.
fn identities(source: &config::Source) -> Vec<&str> {
    let release = &source.release;
    let named =
        [&source.event_id, &source.user, &source.tenant, &release.sdk, &release.sdk_version, &release.app_version];
    named.into_iter().flatten().map(String::as_str).collect()
}

fn looked_at<'a>(source: &config::Source, columns: &'a SourceColumns) -> Vec<Looked<'a>> {
    let left_out = [Some(source.event_time.as_str()), source.event_type.as_deref()];
    let mut looked = Vec::new();
    for (at, column) in columns.columns.iter().enumerate() {
        if left_out.contains(&Some(column.name.as_str())) {
            continue;
        }
        let (index, name) = (at + system::COUNT, column.name.clone());
        let value = Expr::Column { index, name, column_type: column.column_type.clone() };
        let what = match column.column_type.without_null() {
            ColumnType::Map(_, value) if is_text(value) => Some(What::Map(index)),
            ColumnType::Map(..) | ColumnType::Array(_) => None,
            _ => Expr::call(Function::ToString, vec![value]).ok().map(What::Texts),
        };
        looked.extend(what.map(|what| Looked { name: &column.name, column_type: &column.column_type, what }));
    }
    looked
}

fn look(
    batch: &RecordBatch,
    types: usize,
    looked: &[Looked<'_>],
    forms: &Forms,
    seen: &mut BTreeMap<String, TypeSeen>,
    left_out: &mut u64,
) -> Result<(), Error> {
    let wrong = || Error::Stopped("a sampled column isn't what the schema says".to_owned());
    let types = batch.columns().get(types).and_then(|column| column.as_binary_opt::<i32>()).ok_or_else(wrong)?;
    let type_of = |row: usize| String::from_utf8_lossy(if types.is_valid(row) { types.value(row) } else { &[] });
    for row in 0..batch.num_rows() {
        let name = type_of(row);
        let is_full = seen.len() >= TYPES_MAX;
        match seen.get_mut(&*name) {
            Some(of) => of.events += 1,
            None if is_full => *left_out += 1,
            None => {
                seen.insert(name.into_owned(), TypeSeen { events: 1, ..TypeSeen::default() });
            }
        }
    }
    for one in looked {
        match &one.what {
            What::Texts(text) => {
                let texts = text.evaluate(batch)?;
                let texts: &BinaryArray = texts.as_binary_opt::<i32>().ok_or_else(wrong)?;
                for row in (0..batch.num_rows()).filter(|row| texts.is_valid(*row)) {
                    note(seen, &type_of(row), one.name, texts.value(row), forms);
                }
            }
            What::Map(index) => {
                let map = batch.columns().get(*index).and_then(|column| column.as_map_opt()).ok_or_else(wrong)?;
                let (keys, values) = (map.keys().as_binary_opt::<i32>(), map.values().as_binary_opt::<i32>());
                let (keys, values) = (keys.ok_or_else(wrong)?, values.ok_or_else(wrong)?);
                for row in 0..batch.num_rows() {
                    let name = type_of(row);
                    let (from, to) = (map.value_offsets()[row] as usize, map.value_offsets()[row + 1] as usize);
                    for entry in (from..to).filter(|entry| values.is_valid(*entry)) {
                        let is_again = (from..entry).any(|before| keys.value(before) == keys.value(entry));
                        if let (Ok(key), false) = (std::str::from_utf8(keys.value(entry)), is_again) {
                            let field = format!("{}[{}]", one.name, crate::rules::quoted(key));
                            note(seen, &name, &field, values.value(entry), forms);
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// Notes a value; an empty one counts as missing, as rules have it.
fn note(seen: &mut BTreeMap<String, TypeSeen>, name: &str, field: &str, value: &[u8], forms: &Forms) {
    let Some(of) = seen.get_mut(name).filter(|_| !value.is_empty()) else { return };
    let is_full = of.fields.len() >= FIELDS_MAX;
    match of.fields.get_mut(field) {
        Some(seen) => seen.note(value, forms),
        None if is_full => {}
        None => {
            let mut first = Seen::new(forms);
            first.note(value, forms);
            of.fields.insert(field.to_owned(), first);
        }
    }
}

fn header(sample: &Sample, source: &config::Source) -> String {
    format!(
        "# Proposed by `weir plan infer` from {} events of {}: what held for all of them.\n\
         # Read it, correct what it can't know, and save it as a version of the plan: the file's name is the version.\n\n\
         mode = \"tag\"               # what becomes of events that break it: observe, tag or quarantine\n\
         other_types = false        # events of other types break the rule plan_unknown_type\n\
         other_properties = true    # false: properties that don't stand here break plan_unplanned_property\n",
        sample.events,
        source.topics.join(", ")
    )
}

/// The identities that every event has.
fn common(
    text: &mut String,
    seen: &BTreeMap<String, TypeSeen>,
    identities: &[&str],
    kinds: &BTreeMap<&str, &ColumnType>,
) {
    let events: u64 = seen.values().map(|of| of.events).sum();
    for field in identities {
        let present = seen.values().filter_map(|of| of.fields.get(*field)).map(|seen| seen.present).sum::<u64>();
        let may_be_missing = kinds.get(field).is_some_and(|of| is_text(of) || of.is_nullable());
        if present == events && events >= EVENTS_MIN && may_be_missing {
            let _ =
                writeln!(text, "\n[fields.{}]  # of every type: in {present} of {events}\nrequired = true", key(field));
        }
    }
}

fn write_field(text: &mut String, name: &str, field: &str, seen: &Seen, events: u64, of: Option<&ColumnType>) {
    let _ = writeln!(text, "\n[events.{}.fields.{}]  # in {} of {events}", key(name), key(field), seen.present);
    if events < EVENTS_MIN {
        text.push_str("# too few events to ask anything of it\n");
        return;
    }
    let reads_as_text = of.is_none_or(is_text);
    let may_be_missing = reads_as_text || of.is_some_and(ColumnType::is_nullable);
    if seen.present == events && may_be_missing {
        text.push_str("required = true\n");
    }
    let kind = if reads_as_text { seen.kind() } else { None };
    if let Some(kind) = kind {
        let _ = writeln!(text, "type = {:?}", kind.name());
    }
    if let Some(numbers) = seen.numbers.filter(|_| is_number(of) && seen.present >= EVENTS_MIN) {
        write_range(text, numbers);
    }
    if reads_as_text && kind.is_none() && seen.present >= VALUES_MIN {
        write_text(text, seen);
    }
}

/// Whether the values of a column, or of a map where it is none, may have a range.
fn is_number(of: Option<&ColumnType>) -> bool {
    of.is_none_or(|of| {
        let plain = of.without_null();
        is_text(of)
            || matches!(
                plain,
                ColumnType::Int(_)
                    | ColumnType::UInt(_)
                    | ColumnType::Float32
                    | ColumnType::Float64
                    | ColumnType::Decimal(..)
            )
    })
}

fn write_range(text: &mut String, (least, most): (f64, f64)) {
    let min = if least >= 0.0 { 0.0 } else { -rounded_up(-least) };
    let max = if most <= 0.0 { 0.0 } else { rounded_up(most) };
    let _ = writeln!(text, "min = {}   # from {least} to {most}, rounded outward", written(min));
    let _ = writeln!(text, "max = {}", written(max));
}

/// The next of 1, 2 and 5 times a power of ten that isn't smaller.
fn rounded_up(value: f64) -> f64 {
    let power = 10f64.powi(value.log10().floor() as i32);
    let steps = [1.0, 2.0, 5.0, 10.0, 20.0];
    steps.into_iter().map(|step| step * power).find(|bound| *bound >= value).unwrap_or(value)
}

fn written(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value:.0}") } else { format!("{value:?}") }
}

fn write_text(text: &mut String, seen: &Seen) {
    let few = seen.values.as_ref().filter(|values| values.values().all(|count| *count >= EACH_MIN));
    if let Some(values) = few {
        let mut by_count: Vec<(&String, &u64)> = values.iter().collect();
        by_count.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let list: Vec<String> = by_count.iter().map(|(value, _)| string(value)).collect();
        let told: Vec<String> =
            by_count.iter().map(|(value, count)| format!("{} {count}", value.escape_debug())).collect();
        let _ = writeln!(text, "one_of = [{}]   # {}", list.join(", "), told.join(", "));
        return;
    }
    if let Some((name, expression)) = seen.form() {
        let _ = writeln!(text, "pattern = {}   # {name}", string(expression));
        return;
    }
    let (least, most) = seen.lengths;
    if least == most {
        let _ = writeln!(text, "min_length = {least}   # all of this length\nmax_length = {most}");
    } else {
        let _ = writeln!(text, "max_length = {}   # from {least} to {most} bytes", most.max(16).next_power_of_two());
    }
}

/// A key of TOML.
fn key(name: &str) -> String {
    let is_bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if is_bare { name.to_owned() } else { string(name) }
}

/// A string of TOML.
fn string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
