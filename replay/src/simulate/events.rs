//! From the events of a scenario to records in the order in which they are sent.
//!
//! An author writes what matters. What is left out is filled in: from `[defaults]`, the event time from when it is
//! sent, the event's id by its number, then the schema's own default, and at last nothing (an empty text, 0, null, the
//! first symbol). A value that its field can't hold is a problem with its place.

use std::collections::BTreeMap;

use base64::Engine;
use bytes::Bytes;
use chrono::DateTime;
use serde_json::{Map, Value as Json};
use weir_pipeline::config::load::Source as Place;
use weir_pipeline::config::{Pipeline, Source};
use weir_pipeline::problem::{Problem, nearest};
use weir_pipeline::source::message::Record;
use weir_schemas::avro::Encoder;

use super::scenario::{EVENT_WORDS, Event, Generate, Offset, Scenario, WrongKind};
use crate::produce::convert::{Kind, TimeText, kind_of};
use crate::produce::faults::{Encoded, FaultStage, Faults};
use crate::produce::rows::Rows;
use crate::produce::storefront::{SCHEMA, Storefront, StorefrontRows, Wrong};

/// The id of the generator's schema.
pub(super) const STOREFRONT_ID: u32 = 900;

/// Records that one scenario may send: it is kept in memory.
const RECORDS_MAX: usize = 2_000_000;

/// A record with its turn.
pub(super) struct Sent {
    /// When, in milliseconds since 1970.
    pub(super) at_ms: i64,
    /// The topic.
    pub(super) topic: String,
    /// The partition.
    pub(super) partition: u16,
    /// The record; its offset isn't given yet.
    pub(super) record: Record,
}

/// What records are made with.
pub(super) struct Making<'a> {
    /// Where problems are told.
    pub(super) place: &'a Place<'a>,
    /// The pipeline.
    pub(super) pipeline: &'a Pipeline,
    /// The scenario.
    pub(super) scenario: &'a Scenario,
    /// When it begins, in milliseconds since 1970.
    pub(super) start_ms: i64,
    /// The texts of the schemas, by id.
    pub(super) schemas: &'a BTreeMap<u32, String>,
    /// The sources' own schemas.
    pub(super) own: &'a BTreeMap<String, u32>,
    /// What is drawn is drawn from this.
    pub(super) seed: u64,
}

/// A schema, ready to write with.
struct Ready {
    encoder: Encoder,
    kind: Kind,
}

impl Making<'_> {
    /// All records, in the order of their times.
    ///
    /// # Errors
    /// Every event that can't be made, at its place.
    pub(super) fn records(&self) -> Result<Vec<Sent>, Vec<Problem>> {
        let (mut sent, mut problems) = (Vec::new(), Vec::new());
        let ready = self.ready().map_err(|problem| vec![problem])?;
        let (mut at, mut number) = (Offset(0), 0u64);
        for (index, event) in self.scenario.events.iter().enumerate() {
            at = event.at.unwrap_or(at);
            for n in 0..event.times.unwrap_or(1) {
                number += 1;
                let every = event.every.unwrap_or_default().0.saturating_mul(i64::from(n));
                let at_ms = self.start_ms.saturating_add(at.0).saturating_add(every);
                let copies = event.copies.unwrap_or(1);
                // Before they are made: the file may ask for more than memory holds.
                if u64::from(copies.max(event.times.unwrap_or(1) - n)) > (RECORDS_MAX - sent.len()) as u64 {
                    problems.push(self.too_many(&["events", &index.to_string()]));
                    return Err(problems);
                }
                match self.event(index, event, &ready, (at_ms, n, number)) {
                    Ok(one) => sent.extend((0..copies).map(|_| one.clone())),
                    Err(problem) => {
                        problems.push(problem);
                        break;
                    }
                }
            }
        }
        let planned = self.scenario.generate.iter().fold(0u64, |sum, of| sum.saturating_add(of.count));
        if planned > (RECORDS_MAX - sent.len()) as u64 {
            problems.push(self.too_many(&["generate"]));
            return Err(problems);
        }
        for (index, generate) in self.scenario.generate.iter().enumerate() {
            let free = RECORDS_MAX - sent.len();
            match self.generated(index, generate, free) {
                Ok(generated) => sent.extend(generated),
                Err(problem) => problems.push(problem),
            }
        }
        sent.sort_by_key(|sent| sent.at_ms);
        if problems.is_empty() { Ok(sent) } else { Err(problems) }
    }

    fn ready(&self) -> Result<BTreeMap<u32, Ready>, Problem> {
        let ready = |(&id, text): (&u32, &String)| {
            let unusable = |why: String| {
                self.problem(&["schemas"], format!("schema {id} can't be written with: {why}"), "correct its file")
            };
            let encoder = Encoder::new(id, text, &[]).map_err(|error| unusable(error.to_string()))?;
            let kind = kind_of(encoder.schema()).map_err(unusable)?;
            Ok((id, Ready { encoder, kind }))
        };
        self.schemas.iter().map(ready).collect()
    }

    fn too_many(&self, path: &[&str]) -> Problem {
        self.problem(path, "a scenario sends at most 2 000 000 records in all", "send fewer")
    }

    fn problem(&self, path: &[&str], message: impl Into<String>, remedy: impl Into<String>) -> Problem {
        self.place.problem(path, message, remedy)
    }

    /// The source that an event is for.
    fn source(&self, path: &[&str], name: Option<&String>) -> Result<(&String, &Source), Problem> {
        let found = match name {
            Some(name) => self.pipeline.sources.get_key_value(name),
            None => self.pipeline.sources.iter().next(),
        };
        found.ok_or_else(|| {
            let known = self.pipeline.sources.keys().map(String::as_str);
            let remedy = match name.and_then(|name| nearest(name, known)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "name a source of the pipeline file".to_owned(),
            };
            self.problem(path, "the pipeline has no such source", remedy)
        })
    }

    /// One event; `turn` is its time, its number among its like, and among all.
    fn event(
        &self,
        index: usize,
        event: &Event,
        ready: &BTreeMap<u32, Ready>,
        (at_ms, n, number): (i64, u32, u64),
    ) -> Result<Sent, Problem> {
        let index = index.to_string();
        let path = |key: &'static str| ["events", index.as_str(), key];
        let (name, source) = self.source(&path("source"), event.source.as_ref())?;
        let topic = match (&event.topic, source.topics.first()) {
            (Some(topic), _) if source.all_topics().contains(topic) => topic.clone(),
            (None, Some(first)) => first.clone(),
            _ => {
                let remedy = format!("name one of {}", source.all_topics().join(", "));
                return Err(self.problem(&path("topic"), format!("source `{name}` doesn't read that topic"), remedy));
            }
        };
        let partition = event.partition.unwrap_or(0);
        if partition >= self.scenario.partitions {
            let remedy = "set `partitions` of the scenario, or name a lower one";
            let message = format!("the topics have {} partition(s), counted from 0", self.scenario.partitions);
            return Err(self.problem(&path("partition"), message, remedy));
        }
        let mut value =
            if event.tombstone { None } else { Some(self.value(&index, event, ready, (at_ms, n, number))?) };
        if let (Some(value), Some(cut)) = (&mut value, event.cut) {
            value.truncate(usize::try_from(cut).unwrap_or(usize::MAX));
        }
        let headers = event.headers.iter();
        let headers = headers.map(|(name, value)| (Bytes::from(name.clone()), Some(Bytes::from(value.clone()))));
        let record = Record {
            offset: 0,
            timestamp_ms: event.kafka_time.map_or(at_ms, |time| self.start_ms.saturating_add(time.0)),
            key: event.key.as_ref().map(|key| Bytes::from(counted(key, event.times.map(|_| n)))),
            value: value.map(Bytes::from),
            headers: headers.collect(),
        };
        Ok(Sent { at_ms, topic, partition, record })
    }

    /// The bytes of an event.
    fn value(
        &self,
        index: &str,
        event: &Event,
        ready: &BTreeMap<u32, Ready>,
        turn: (i64, u32, u64),
    ) -> Result<Vec<u8>, Problem> {
        let path = |key: &'static str| ["events", index, key];
        if let Some(raw) = &event.raw {
            if let Some(field) = event.fields.keys().chain(event.others.keys()).next() {
                let message = format!("a raw record has no field `{field}`");
                return Err(self.problem(&["events", index, field], message, "take `raw` or the fields out"));
            }
            return raw_bytes(raw)
                .ok_or_else(|| self.problem(&path("raw"), "these are no bytes", "write hex:00ff.. or base64:AP8="));
        }
        let (name, source) = self.source(&path("source"), event.source.as_ref())?;
        let own = self.own.get(name).copied().unwrap_or(1);
        // With an id that the registry doesn't know, an event is written as its source reads it.
        let id = event.schema.unwrap_or(own);
        let Some(of) = ready.get(&id).or_else(|| ready.get(&own)) else {
            return Err(self.problem(
                &path("schema"),
                format!("there is no schema {id}"),
                "name its file in [schemas]",
            ));
        };
        let Kind::Record(fields) = &of.kind else {
            return Err(self.problem(&path("schema"), format!("schema {id} is no record"), "name another"));
        };
        self.check_names(index, event, fields.iter().map(|(name, ..)| name.as_str()).collect())?;
        let mut object = Map::new();
        for (field, kind, default) in fields {
            let json = self.field(source, event, (field, kind, default.as_ref()), turn);
            object.insert(field.clone(), json);
        }
        let times = TimeText::default();
        let value = of.kind.value_of_json(&Json::Object(object), &times).map_err(|why| {
            let field = why.split(':').next().unwrap_or_default().to_owned();
            self.problem(&["events", index, &field], why, "write a value that the field's type in the schema has")
        })?;
        let mut bytes = Vec::new();
        let written = of.encoder.writer().and_then(|writer| writer.write(&value, &mut bytes));
        written.map_err(|error| self.problem(&path("at"), error.to_string(), "write what the schema has"))?;
        if let (true, Some(id_bytes)) = (id != own && !ready.contains_key(&id), bytes.get_mut(1..5)) {
            id_bytes.copy_from_slice(&id.to_be_bytes());
        }
        Ok(bytes)
    }

    fn check_names(&self, index: &str, event: &Event, known: Vec<&str>) -> Result<(), Problem> {
        let named = event.fields.keys().chain(event.others.keys()).chain(&event.null);
        let Some(unknown) = named.into_iter().find(|name| !known.contains(&name.as_str())) else { return Ok(()) };
        let remedy = match nearest(unknown, known.iter().copied().chain(EVENT_WORDS)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the schema has {}", known.join(", ")),
        };
        Err(self.problem(&["events", index, unknown], format!("the event's schema has no field `{unknown}`"), remedy))
    }

    /// A field's value.
    fn field(
        &self,
        source: &Source,
        event: &Event,
        (name, kind, default): (&String, &Kind, Option<&Json>),
        (at_ms, n, number): (i64, u32, u64),
    ) -> Json {
        if event.null.contains(name) {
            return Json::Null;
        }
        let given = event.fields.get(name).or_else(|| event.others.get(name)).or_else(|| {
            // What an event says of its time goes before what all say.
            let is_time = *name == source.event_time && event.late.is_some();
            self.scenario.defaults.get(name).filter(|_| !is_time)
        });
        if let Some(given) = given {
            return self.json(given, kind, event.times.map(|_| n));
        }
        if *name == source.event_time {
            return time_json(at_ms.saturating_sub(event.late.unwrap_or_default().0));
        }
        if source.event_id.as_ref() == Some(name) && matches!(inner(kind), Kind::String) {
            return Json::String(format!("event-{number}"));
        }
        default.cloned().unwrap_or_else(|| nothing(kind))
    }

    /// A value of the file as JSON: a time as `1m30s` counts from the scenario's start.
    fn json(&self, value: &toml::Value, kind: &Kind, n: Option<u32>) -> Json {
        match (value, inner(kind)) {
            (toml::Value::String(text), Kind::Time(_)) => match Offset::parse(text) {
                Some(offset) => time_json(self.start_ms.saturating_add(offset.0)),
                None => Json::String(text.clone()),
            },
            (toml::Value::String(text), _) => Json::String(counted(text, n)),
            (toml::Value::Integer(number), _) => Json::from(*number),
            (toml::Value::Float(number), _) => Json::from(*number),
            (toml::Value::Boolean(value), _) => Json::Bool(*value),
            (toml::Value::Datetime(time), _) => Json::String(time.to_string()),
            (toml::Value::Array(items), Kind::Array(of)) => items.iter().map(|item| self.json(item, of, n)).collect(),
            (toml::Value::Array(items), _) => items.iter().map(|item| self.json(item, &Kind::Null, n)).collect(),
            (toml::Value::Table(entries), of) => {
                let kind_of_entry = |name: &String| match of {
                    Kind::Map(of) => Some(&**of),
                    Kind::Record(fields) => fields.iter().find(|(field, ..)| field == name).map(|(_, kind, _)| kind),
                    _ => None,
                };
                let entry = |(name, value): (&String, &toml::Value)| {
                    (counted(name, n), self.json(value, kind_of_entry(name).unwrap_or(&Kind::Null), n))
                };
                Json::Object(entries.iter().map(entry).collect())
            }
        }
    }

    /// What the storefront sends: `free` records at most.
    fn generated(&self, index: usize, generate: &Generate, free: usize) -> Result<Vec<Sent>, Problem> {
        let index = index.to_string();
        let path = |key: &'static str| ["generate", index.as_str(), key];
        let (_, source) = self.source(&path("source"), generate.source.as_ref())?;
        let topic = source.topics.first().cloned().unwrap_or_default();
        if generate.per_second <= 0.0 || !generate.per_second.is_finite() {
            return Err(self.problem(&path("per_second"), "a rate is above 0", "write 10, for one"));
        }
        let milliseconds = |offset: Offset| u32::try_from(offset.0).unwrap_or(u32::MAX);
        let mut rows = StorefrontRows::new(Storefront {
            seed: self.seed,
            start_at_ms: self.start_ms.saturating_add(generate.at.0),
            events_per_second: generate.per_second,
            count: Some(generate.count),
            users: generate.users.max(1),
            wrong: match generate.wrong {
                WrongKind::Nothing => Wrong::Nothing,
                WrongKind::NegativeAmount => Wrong::NegativeAmount,
                WrongKind::Undecodable => Wrong::Undecodable,
            },
            wrong_from: generate.wrong_from,
            headers: true,
        });
        let mut stage = FaultStage::new(Faults {
            seed: self.seed,
            disorder_ms: milliseconds(generate.disorder),
            duplicates: generate.duplicates,
            stragglers: generate.stragglers,
            straggler_ms: milliseconds(generate.straggler),
            bad: generate.bad,
        });
        let unusable = |why: String| self.problem(&path("count"), why, "take the generator out");
        let encoder = Encoder::new(STOREFRONT_ID, SCHEMA, &[]).map_err(|error| unusable(error.to_string()))?;
        let writer = encoder.writer().map_err(|error| unusable(error.to_string()))?;
        let (mut sent, mut newest_ms) = (Vec::new(), i64::MIN);
        let mut send = |encoded: Encoded, sent: &mut Vec<Sent>| {
            // A record is sent when it happened, or with those that were sent before it.
            newest_ms = newest_ms.max(encoded.time_ms.unwrap_or(newest_ms));
            let partition = u16::try_from(spread(encoded.key.as_deref(), self.scenario.partitions)).unwrap_or(0);
            sent.push(Sent {
                at_ms: newest_ms,
                topic: topic.clone(),
                partition,
                record: record_of(encoded, newest_ms),
            });
        };
        while let Some(row) = rows.next_row().map_err(|error| unusable(error.to_string()))? {
            let mut payload = Vec::with_capacity(192);
            writer.write(&row.value, &mut payload).map_err(|error| unusable(error.to_string()))?;
            let encoded = Encoded { payload, key: row.key, time_ms: row.time_ms, release: row.release };
            stage.take(encoded, row.is_spoiled);
            while let Some(due) = stage.next_due(false) {
                send(due, &mut sent);
            }
        }
        while let Some(due) = stage.next_due(true) {
            send(due, &mut sent);
        }
        // Copies come on top of what is counted.
        if sent.len() > free { Err(self.too_many(&path("count"))) } else { Ok(sent) }
    }
}

impl Clone for Sent {
    fn clone(&self) -> Sent {
        let Sent { at_ms, topic, partition, record } = self;
        Sent { at_ms: *at_ms, topic: topic.clone(), partition: *partition, record: record.clone() }
    }
}

fn record_of(encoded: Encoded, timestamp_ms: i64) -> Record {
    let header = |name: &'static str, value: String| (Bytes::from_static(name.as_bytes()), Some(Bytes::from(value)));
    let headers = encoded.release.map(|release| {
        vec![
            header("tenant", release.tenant),
            header("sdk", release.sdk),
            header("sdk_version", release.sdk_version),
            header("app_version", release.app_version),
        ]
    });
    Record {
        offset: 0,
        timestamp_ms,
        key: encoded.key.map(Bytes::from),
        value: Some(Bytes::from(encoded.payload)),
        headers: headers.unwrap_or_default(),
    }
}

/// The partition of a key: the same for ever, though not the one that a Kafka client would choose.
fn spread(key: Option<&[u8]>, partitions: u16) -> u32 {
    let sum =
        key.unwrap_or_default().iter().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    sum % u32::from(partitions.max(1))
}

fn time_json(ms: i64) -> Json {
    DateTime::from_timestamp_millis(ms).map_or(Json::Null, |time| Json::String(time.to_rfc3339()))
}

/// The kind without its `[null, T]`.
fn inner(kind: &Kind) -> &Kind {
    match kind {
        Kind::Nullable { kind, .. } => inner(kind),
        other => other,
    }
}

/// What stands in a field of which nobody says anything.
fn nothing(kind: &Kind) -> Json {
    match kind {
        Kind::Null | Kind::Nullable { .. } => Json::Null,
        Kind::Boolean => Json::Bool(false),
        Kind::Int | Kind::Long | Kind::Float | Kind::Double | Kind::Decimal { .. } | Kind::Time(_) => Json::from(0),
        Kind::Bytes | Kind::String => Json::String(String::new()),
        Kind::Date => Json::String("1970-01-01".to_owned()),
        Kind::Enum(symbols) => symbols.first().map_or(Json::Null, |symbol| Json::String(symbol.clone())),
        Kind::Map(_) => Json::Object(Map::new()),
        Kind::Array(_) => Json::Array(Vec::new()),
        Kind::Record(fields) => {
            let field = |(name, kind, default): &(String, Kind, Option<Json>)| {
                (name.clone(), default.clone().unwrap_or_else(|| nothing(kind)))
            };
            Json::Object(fields.iter().map(field).collect())
        }
    }
}

/// The text with `{n}` replaced by the number, and `{n%10}` by what is left of it; as it is where there is only one
/// event.
fn counted(text: &str, n: Option<u32>) -> String {
    let Some(n) = n.filter(|_| text.contains("{n")) else { return text.to_owned() };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{n") {
        let end = after.find('}');
        let number = end.and_then(|end| match after.get(..end)? {
            "" => Some(n),
            modulus => n.checked_rem(modulus.strip_prefix('%')?.parse().ok()?),
        });
        out.push_str(before);
        match (number, end) {
            (Some(number), Some(end)) => {
                out.push_str(&number.to_string());
                rest = after.get(end + 1..).unwrap_or_default();
            }
            _ => {
                out.push_str("{n");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn raw_bytes(text: &str) -> Option<Vec<u8>> {
    if let Some(hex) = text.strip_prefix("hex:") {
        let hex: String = hex.chars().filter(|c| !c.is_whitespace()).collect();
        let pairs = (0..hex.len()).step_by(2);
        return pairs.map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect();
    }
    base64::engine::general_purpose::STANDARD.decode(text.strip_prefix("base64:")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_put_into_texts() {
        assert_eq!(counted("user-{n%3}-{n}", Some(7)), "user-1-7");
        assert_eq!(counted("{n%0} {no} {n", Some(7)), "{n%0} {no} {n");
        assert_eq!(counted("{n}", None), "{n}");
    }

    #[test]
    fn bytes_are_written_in_hex_or_base64() {
        assert_eq!(raw_bytes("hex:00 ff"), Some(vec![0, 255]));
        assert_eq!(raw_bytes("base64:AP8="), Some(vec![0, 255]));
        for wrong in ["00ff", "hex:0", "hex:zz", "base64:!"] {
            assert_eq!(raw_bytes(wrong), None, "{wrong}");
        }
    }
}
