//! Tapping: a bounded sample of live topics as a scenario.
//!
//! Records are decoded with the source's reader schema and written field by field, so that a person can read and
//! shorten them; those that don't decode are written as bytes. What the source calls `sensitive` leaves as a pseudonym:
//! equal values stay equal within one scenario, so that distinct counts are those of the sample, but the key of the
//! pseudonyms is drawn anew and kept nowhere. Bytes of a source with sensitive fields don't leave at all, since nobody
//! knows what they hold.
//!
//! The expectations are what the sample gives when it is run; so the scenario passes as it is, without a registry.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::{Decimal, Schema};
use bytes::Bytes;
use chrono::DateTime;
use tokio::runtime::Handle;
use weir_pipeline::config::{Pipeline, Source};
use weir_pipeline::error::Error;
use weir_pipeline::readers::Readers;
use weir_pipeline::source::log::{Assigned, Log};
use weir_pipeline::source::message::{Message, Record};
use weir_schemas::avro::Decoder;
use weir_schemas::frame::{FRAME_BYTES, frame};
use weir_schemas::registry::{Lookup, Registry};

use super::write::{Masks, Secret, Written, write};

/// How long nothing may come before reading is given up.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// The pause between two looks that brought nothing.
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes that may wait for a partition's reader.
const QUEUE_BYTES: u64 = 1 << 20;
/// Bytes of a decimal of 38 digits, as many as a scenario has.
const DECIMAL_BYTES: usize = 16;
/// Bytes of records that a scenario may hold.
const BYTES_MAX: u64 = 16 << 20;

/// What to tap.
pub struct Tapping<'a> {
    /// The pipeline.
    pub pipeline: &'a Pipeline,
    /// Its reader schemas.
    pub readers: &'a Readers,
    /// Where the writer schemas are.
    pub registry: &'a Registry,
    /// Where the registry is asked.
    pub handle: &'a Handle,
    /// The newest records of each partition, so many at most.
    pub records: u32,
    /// Instead of the newest ones those that come within so much time, as many at most.
    pub within: Option<Duration>,
    /// Only these topics; empty, all of them.
    pub topics: Vec<String>,
}

/// A scenario without expectations.
#[derive(Debug, Default)]
pub struct Tapped {
    /// Its text.
    pub text: String,
    /// Files that it needs beside it: their names and texts.
    pub files: Vec<(String, String)>,
    /// Records that it holds.
    pub records: usize,
    /// Records that don't decode and whose bytes may hold something sensitive.
    pub left_out: usize,
}

/// A record of a source, as it came.
struct Tap<'a> {
    source: (&'a str, &'a Source),
    topic: String,
    partition: i32,
    message: Message,
    /// The greatest Kafka timestamp up to it in its partition: records are sent in the order in which they lie.
    at_ms: i64,
}

impl Tapping<'_> {
    /// Takes the sample from `log` and writes it; `name` is the scenario's, for the names of its other files.
    ///
    /// # Errors
    /// When the log or the registry can't be asked, or there is nothing to tap.
    pub fn take(&self, log: &dyn Log, name: &str) -> Result<Tapped, Error> {
        // Kept nowhere: who has the scenario can't try out which value has which pseudonym.
        let secret = Secret::draw().map_err(|error| Error::Stopped(format!("no key for pseudonyms: {error}")))?;
        let mut taps = Vec::new();
        for (source, config) in &self.pipeline.sources {
            self.read(log, (source.as_str(), config), &mut taps)?;
        }
        taps.sort_by_key(|tap| tap.at_ms);
        let times = taps.iter().map(|tap| tap.message.timestamp_ms().max(0));
        let start_ms = times.min().unwrap_or(0).div_euclid(1_000) * 1_000;
        let (mut tapped, mut decoding) = (Tapped::default(), Decoding::new(self));
        let partitions = taps.iter().map(|tap| tap.partition + 1).max().unwrap_or(1);
        tapped.text = self.header(name, start_ms, partitions, &mut tapped.files);
        let _ = writeln!(tapped.text, "events = [");
        for tap in &taps {
            let value = decoding.decode(tap)?;
            let schema_id = decoding.schema_id(tap);
            let masks = Masks { sensitive: &tap.source.1.sensitive, secret: &secret };
            let of = Written {
                source: (self.pipeline.sources.len() > 1).then_some(tap.source.0),
                config: tap.source.1,
                topic: &tap.topic,
                partition: tap.partition,
                message: &tap.message,
                schema_id,
                at_ms: tap.at_ms,
                start_ms,
            };
            match write(&of, value.as_ref(), decoding.schema(tap.source.0), &masks) {
                Some(line) => {
                    let _ = writeln!(tapped.text, "  {line},");
                    tapped.records += 1;
                }
                None => tapped.left_out += 1,
            }
        }
        tapped.text.push_str("]\n");
        self.sections(&mut tapped.text, name);
        Ok(tapped)
    }

    /// What stands before the events; texts of schemas that have no file are added to `files`.
    fn header(&self, name: &str, start_ms: i64, partitions: i32, files: &mut Vec<(String, String)>) -> String {
        let start = DateTime::from_timestamp_millis(start_ms).unwrap_or_default().to_rfc3339();
        for (source, config) in &self.pipeline.sources {
            if let (None, Some(reader)) = (&config.schema_file, self.readers.kept.get(source)) {
                files.push((format!("{name}.{source}.avsc"), reader.text.clone()));
            }
        }
        let topics = if self.topics.is_empty() { "its topics".to_owned() } else { self.topics.join(", ") };
        format!(
            "about = \"What came in {topics} of `{}`; sensitive values are pseudonyms.\"\nstart = \"{start}\"\n\
             partitions = {partitions}\n\n",
            self.pipeline.name
        )
    }

    /// What stands behind the events: schemas, and expectations that are empty.
    fn sections(&self, text: &mut String, name: &str) {
        let without: Vec<&String> =
            self.pipeline.sources.iter().filter(|(_, of)| of.schema_file.is_none()).map(|(name, _)| name).collect();
        if !without.is_empty() {
            text.push_str("\n[readers]\n");
            for source in without {
                let _ = writeln!(text, "{source} = \"{name}.{source}.avsc\"");
            }
        }
        text.push_str("\n[expect]\nquarantine = []\n\n[expect.ledger]\n\n[expect.views]\n");
        for view in self.pipeline.views.keys() {
            let _ = writeln!(text, "{view} = []");
        }
    }

    /// Reads a source's share of the sample.
    fn read<'s>(&self, log: &dyn Log, source: (&'s str, &'s Source), taps: &mut Vec<Tap<'s>>) -> Result<(), Error> {
        let wanted: Vec<String> = source.1.topics.iter().filter(|topic| self.is_wanted(topic)).cloned().collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let (mut assigned, mut ends) = (Vec::new(), Vec::new());
        for topic in log.topics(&wanted)? {
            for partition in topic.partitions {
                let (low, high) = log.extent(&topic.name, partition)?;
                let offset = match self.within {
                    Some(_) => high,
                    None => low.max(high.saturating_sub(i64::from(self.records))),
                };
                assigned.push(Assigned { topic: topic.name.clone(), partition, offset });
                ends.push(if self.within.is_some() { i64::MAX } else { high });
            }
        }
        let mut reader = log.read("tap", &assigned, QUEUE_BYTES)?;
        let mut open: Vec<bool> = assigned.iter().zip(&ends).map(|(of, end)| of.offset < *end).collect();
        let mut taken = vec![0u32; assigned.len()];
        let mut newest_ms = vec![0i64; assigned.len()];
        let until = self.within.map(|within| Instant::now() + within);
        let (mut moved_at, mut bytes) = (Instant::now(), 0);
        while open.contains(&true) && bytes < BYTES_MAX && until.is_none_or(|until| Instant::now() < until) {
            let mut has_moved = false;
            for (index, of) in assigned.iter().enumerate() {
                if !open[index] {
                    continue;
                }
                let fetched = reader.fetch(index);
                if let Some(trouble) = fetched.trouble.filter(|trouble| !trouble.passes()) {
                    return Err(self.unreadable(&of.topic, &trouble.detail));
                }
                let reached = fetched.messages.last().map(|last| last.offset() + 1).max(fetched.end_offset);
                for message in fetched.messages {
                    if message.offset() < ends[index] && taken[index] < self.records {
                        (has_moved, taken[index], bytes) = (true, taken[index] + 1, bytes + message.size());
                        newest_ms[index] = newest_ms[index].max(message.timestamp_ms());
                        let (topic, at_ms, message) = (of.topic.clone(), newest_ms[index], detached(&message));
                        taps.push(Tap { source, topic, partition: of.partition, message, at_ms });
                    }
                }
                open[index] = reached.is_none_or(|reached| reached < ends[index]) && taken[index] < self.records;
            }
            let complaint = reader.serve();
            if has_moved {
                moved_at = Instant::now();
            } else if until.is_none() && moved_at.elapsed() > ANSWER_WITHIN {
                let topic = assigned.first().map_or("", |of| of.topic.as_str());
                return Err(self.unreadable(topic, complaint.as_deref().unwrap_or("nothing comes any more")));
            } else {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    fn is_wanted(&self, topic: &str) -> bool {
        self.topics.is_empty() || self.topics.iter().any(|wanted| wanted == topic)
    }

    fn unreadable(&self, topic: &str, why: &str) -> Error {
        Error::Unreachable {
            part: format!("kafka at {}", self.pipeline.kafka.brokers),
            detail: format!("the topic {topic} can't be read: {why}"),
            remedy: "check that the brokers are up, and the rights on the topics".to_owned(),
        }
    }
}

/// Decodes records with the schemas that they were written with.
struct Decoding<'a> {
    tapping: &'a Tapping<'a>,
    /// The reader schemas, by source.
    readers: BTreeMap<&'a str, Schema>,
    /// By source and id.
    writers: HashMap<(String, u32), Option<(Decoder, Schema)>>,
}

impl<'a> Decoding<'a> {
    fn new(tapping: &'a Tapping<'a>) -> Decoding<'a> {
        let parsed = tapping.readers.kept.iter().filter_map(|(source, reader)| {
            let (schema, _) = Schema::parse_str_with_list(&reader.text, &reader.referenced).ok()?;
            Some((source.as_str(), schema))
        });
        Decoding { tapping, readers: parsed.collect(), writers: HashMap::new() }
    }

    fn schema(&self, source: &str) -> Option<&Schema> {
        self.readers.get(source)
    }

    /// The event of a record, if it is one that its source reads.
    ///
    /// # Errors
    /// When the registry can't be asked.
    fn decode(&mut self, tap: &Tap<'_>) -> Result<Option<Value>, Error> {
        let Some(bytes) = tap.message.value() else { return Ok(None) };
        let Ok(framed) = frame(bytes) else { return Ok(None) };
        let key = (tap.source.0.to_owned(), framed.schema_id);
        if !self.writers.contains_key(&key) {
            let found = self.writer(tap.source.0, framed.schema_id)?;
            self.writers.insert(key.clone(), found);
        }
        let Some(Some((decoder, writer))) = self.writers.get(&key) else { return Ok(None) };
        let body = bytes.get(FRAME_BYTES..).unwrap_or_default();
        // Weir's own decoder goes first: what it takes holds no length that isn't there.
        let is_event = decoder.decode(&[body]).is_ok_and(|decoded| decoded.batch.num_rows() == 1);
        let reader = self.readers.get(tap.source.0).filter(|_| is_event);
        let decoded = reader.and_then(|reader| {
            let datum = GenericDatumReader::builder(writer).build().ok()?;
            with_room(datum.read_value(&mut &*body).ok()?).resolve(reader).ok()
        });
        Ok(decoded)
    }

    /// The id that a record's schema has in the scenario, if it is its source's own: those count from 1. Another one keeps
    /// its id.
    fn schema_id(&self, tap: &Tap<'_>) -> Option<u32> {
        let framed = frame(tap.message.value()?).ok()?;
        let (_, writer) = self.writers.get(&(tap.source.0.to_owned(), framed.schema_id))?.as_ref()?;
        let mut own = (1..).zip(self.tapping.readers.kept.keys());
        let (id, _) = own.find(|(_, source)| source.as_str() == tap.source.0)?;
        (self.readers.get(tap.source.0) == Some(writer)).then_some(id)
    }

    fn writer(&self, source: &str, id: u32) -> Result<Option<(Decoder, Schema)>, Error> {
        let found = match self.tapping.handle.block_on(self.tapping.registry.by_id(id)) {
            Lookup::Found(found) => found,
            Lookup::Unknown | Lookup::Unusable(_) => return Ok(None),
            Lookup::Unavailable(why) | Lookup::Refused(why) => {
                return Err(Error::Unreachable {
                    part: format!("registry at {}", self.tapping.pipeline.registry.url),
                    detail: why,
                    remedy: "check [registry] and its credentials, and that it is up".to_owned(),
                });
            }
        };
        let Some(reader) = self.tapping.readers.schemas.get(source) else { return Ok(None) };
        let wanted = vec![true; reader.columns.len()];
        let decoder = Decoder::new(&found.schema, reader.clone(), &wanted).ok();
        let schema = Schema::parse_str_with_list(&found.text, &found.referenced).ok();
        Ok(decoder.zip(schema.map(|(schema, _)| schema)))
    }
}

/// The value with its decimals in as many bytes as any of theirs may need. Writers use as few as a number needs, and those
/// are taken for less than the type by what resolves values to another schema.
fn with_room(value: Value) -> Value {
    match value {
        Value::Decimal(decimal) => match Vec::try_from(&decimal) {
            Ok(bytes) => Value::Decimal(Decimal::from(extended(bytes))),
            Err(_) => Value::Decimal(decimal),
        },
        Value::Union(branch, value) => Value::Union(branch, Box::new(with_room(*value))),
        Value::Array(items) => Value::Array(items.into_iter().map(with_room).collect()),
        Value::Map(entries) => Value::Map(entries.into_iter().map(|(name, value)| (name, with_room(value))).collect()),
        Value::Record(fields) => {
            Value::Record(fields.into_iter().map(|(name, value)| (name, with_room(value))).collect())
        }
        other => other,
    }
}

/// The same number, signed and with its highest byte first, in [`DECIMAL_BYTES`] or more.
fn extended(bytes: Vec<u8>) -> Vec<u8> {
    let fill = if bytes.first().is_some_and(|first| first & 0x80 != 0) { 0xff } else { 0 };
    let missing = DECIMAL_BYTES.saturating_sub(bytes.len());
    std::iter::repeat_n(fill, missing).chain(bytes).collect()
}

/// The message in memory of its own: librdkafka's consumer doesn't end while anybody holds one of its messages.
fn detached(message: &Message) -> Message {
    let mut headers = Vec::new();
    message.headers(|name, value| {
        headers.push((Bytes::copy_from_slice(name), value.map(Bytes::copy_from_slice)));
    });
    Message::of(Arc::new(Record {
        offset: message.offset(),
        timestamp_ms: message.timestamp_ms(),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.value().map(Bytes::copy_from_slice),
        headers,
    }))
}

/// The name of a scenario file without its ending.
pub fn name_of(path: &Path) -> String {
    path.file_stem().map_or_else(|| "tapped".to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_in_few_bytes_is_one_of_its_type_still() {
        let text = r#"{"type":"record","name":"e","fields":[{"name":"amount","type":
            ["null",{"type":"bytes","logicalType":"decimal","precision":18,"scale":2}]}]}"#;
        let schema = Schema::parse_str(text).unwrap();
        for (number, few) in [(1_050i128, vec![4, 26]), (-1, vec![255]), (0, vec![0])] {
            let amount = |bytes: Vec<u8>| Value::Union(1, Box::new(Value::Decimal(Decimal::from(bytes))));
            let value = |bytes| Value::Record(vec![("amount".to_owned(), amount(bytes))]);
            assert!(value(few.clone()).resolve(&schema).is_err(), "nobody would need room");
            let resolved = with_room(value(few)).resolve(&schema).unwrap();
            assert_eq!(resolved, value(number.to_be_bytes().to_vec()));
        }
    }
}
