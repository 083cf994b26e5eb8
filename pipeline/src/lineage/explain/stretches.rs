//! Stretches of the log: which ones can hold a row's records, and reading just those.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, UInt16Array, UInt32Array};
use arrow_select::filter::filter_record_batch;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde::Deserialize;
use weir_operators::view::ViewPlan;
use weir_schemas::avro::{Decoded, Decoder};
use weir_schemas::fate::Reason;
use weir_schemas::frame::{FRAME_BYTES, frame};
use weir_schemas::place::{Partition, TopicId};
use weir_schemas::registry::{Cached, SchemaCache};
use weir_schemas::tables;
use weir_schemas::time::{Epoch, EventTime, Span};
use weir_sinks::DeliveryError;
use weir_sinks::clickhouse::{Client, literal};
use xxhash_rust::xxh3::xxh3_128;

use super::Window;
use super::stored::{Refused, parse};
use crate::bind::BoundSource;
use crate::clock::Clock;
use crate::complaints::{Complaints, why};
use crate::config::Pipeline;
use crate::connect;
use crate::error::Error;
use crate::source::fetch::{Fetcher, consumer_config};
use crate::source::intake::{Contract, Run, Sheets, event_times};
use crate::source::judge::{Bounds, PartitionClock};
use crate::source::kafka::unreachable_broker;
use crate::source::log::Assigned;
use crate::source::message::Message;
use crate::source::retry::retried_by;

/// Offsets that are read and thrown away rather than seek again.
const GAP_OFFSETS: i64 = 20_000;
/// Bytes that librdkafka may hold for one partition.
const QUEUE_BYTES: u64 = 8 << 20;
/// How long the broker or the registry may be silent.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(5);

/// Consecutive offsets of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) first: i64,
    pub(super) next: i64,
}

impl Stretch {
    pub(super) fn offsets(&self) -> u64 {
        self.next.abs_diff(self.first)
    }
}

/// What `weir_epochs` says of a row.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The epochs that may have brought records of the row: how many, the first and the last.
    pub(super) epochs: std::collections::BTreeSet<u64>,
    /// The versions of the pipeline then in force, and for how many of those epochs.
    pub(super) versions: BTreeMap<String, u64>,
    /// The first epoch that `weir_epochs` still knows.
    pub(super) known_from: Option<u64>,
}

/// The stretches that can hold records of the row: those of epochs up to `epoch` whose event times meet the window.
pub(super) async fn of_epochs(
    client: &Client,
    plan: &ViewPlan,
    window: Window,
    epoch: u64,
) -> Result<(Known, Vec<Stretch>), DeliveryError> {
    let table = client.qualified(tables::EPOCHS);
    let source = literal(&plan.source);
    let from = window.from().max(-2_208_988_800_000_000);
    let sql = format!(
        "SELECT `topic`, `partition`, toString(`first_offset`), toString(`next_offset`), toString(`epoch`), `pipeline_version` \
         FROM {table} WHERE `source` = {source} AND `epoch` <= {epoch} \
         AND `least_event_time` < fromUnixTimestamp64Micro({}, 'UTC') \
         AND `greatest_event_time` >= fromUnixTimestamp64Micro({from}, 'UTC') ORDER BY `topic`, `partition`, `first_offset`",
        window.end
    );
    let (mut known, mut stretches) = (Known::default(), Vec::<Stretch>::new());
    let mut lines = client.lines(&sql, "JSONCompactEachRow")?;
    while let Some(line) = lines.next().await? {
        let (topic, partition, first, next, epoch, version): (String, i32, String, String, String, String) =
            parse(&line)?;
        let (Ok(first), Ok(next), Ok(epoch)) = (first.parse(), next.parse(), epoch.parse()) else { continue };
        if known.epochs.insert(epoch) {
            *known.versions.entry(version).or_default() += 1;
        }
        match stretches.last_mut() {
            Some(last) if last.topic == topic && last.partition == partition && first <= last.next => {
                last.next = last.next.max(next);
            }
            _ => stretches.push(Stretch { topic, partition, first, next }),
        }
    }
    #[derive(Deserialize)]
    struct First {
        epoch: Option<String>,
    }
    let sql = format!("SELECT toString(minOrNull(`epoch`)) AS epoch FROM {table} WHERE `source` = {source}");
    let first = client.select::<First>(&sql).await?;
    known.known_from = first.into_iter().next().and_then(|first| first.epoch?.parse().ok());
    Ok((known, stretches))
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) records: u64,
    /// Records without an event, by reason.
    pub(super) undecodable: BTreeMap<String, u64>,
}

/// The log of one source.
pub(super) struct Log<'a> {
    pipeline: &'a Pipeline,
    source: &'a BoundSource,
    topics: &'a [String],
    schemas: SchemaCache,
    /// The source's contract without judgements: whose time is up and who breaks a rule was decided long ago.
    contract: Contract,
    decoders: RefCell<HashMap<u32, Option<Arc<Decoder>>>>,
    retry_topic: Option<&'a str>,
    /// Hashes of the places whose retries were read: a second message for one of them is no record, as in the pipeline.
    retried: RefCell<HashSet<u128>>,
}

impl<'a> Log<'a> {
    pub(super) fn new(
        pipeline: &'a Pipeline,
        source: &'a BoundSource,
        topics: &'a [String],
        schemas: SchemaCache,
    ) -> Log<'a> {
        let for_ever = Span(i64::MAX);
        let bounds = Bounds { allowed_lateness: for_ever, future_limit: for_ever, ..source.contract.bounds };
        let contract = Contract {
            bounds,
            marked: None,
            rules: Vec::new(),
            plan: None,
            proofs: Vec::new(),
            ..source.contract.clone()
        };
        let retry_topic = pipeline.sources.get(&source.name).and_then(|config| config.retry_topic.as_deref());
        let (decoders, retried) = (RefCell::default(), RefCell::default());
        Log { pipeline, source, topics, schemas, contract, decoders, retry_topic, retried }
    }

    /// Parts the stretches into those that the log still has and those that it has forgotten.
    pub(super) fn split_forgotten(&self, stretches: Vec<Stretch>) -> Result<(Vec<Stretch>, Vec<Stretch>), Error> {
        let brokers = &self.pipeline.kafka.brokers;
        let consumer: BaseConsumer<Complaints> = connect::kafka(self.pipeline)
            .create_with_context(Complaints::default())
            .map_err(|error| unreachable_broker(brokers, error))?;
        let mut begins: HashMap<(String, i32), i64> = HashMap::new();
        let (mut readable, mut forgotten) = (Vec::new(), Vec::new());
        for stretch in stretches {
            let key = (stretch.topic.clone(), stretch.partition);
            let low = match begins.get(&key) {
                Some(low) => *low,
                None => {
                    let (low, _) = consumer
                        .fetch_watermarks(&stretch.topic, stretch.partition, ANSWER_WITHIN)
                        .map_err(|error| unreachable_broker(brokers, why(&consumer, &error)))?;
                    begins.insert(key, low);
                    low
                }
            };
            if stretch.first < low {
                forgotten.push(Stretch { next: stretch.next.min(low), ..stretch.clone() });
            }
            if stretch.next > low {
                readable.push(Stretch { first: stretch.first.max(low), ..stretch });
            }
        }
        Ok((readable, forgotten))
    }

    /// Reads the stretches; `progress` is told how many offsets are done, `on_events` gets what was decoded of them.
    pub(super) fn read(
        &self,
        stretches: &[Stretch],
        progress: &mut dyn FnMut(u64),
        on_events: &mut dyn FnMut(&RecordBatch) -> Result<(), Error>,
    ) -> Result<Read, Error> {
        let mut read = Read::default();
        let mut done = 0;
        // One stretch of each partition at a time, since a consumer reads a partition from one place.
        let mut rounds: Vec<Vec<Vec<Stretch>>> = Vec::new();
        for near in together(stretches) {
            let is_free = |round: &&mut Vec<Vec<Stretch>>| {
                !round.iter().any(|of| of[0].topic == near[0].topic && of[0].partition == near[0].partition)
            };
            match rounds.iter_mut().find(is_free) {
                Some(round) => round.push(near),
                None => rounds.push(vec![near]),
            }
        }
        for round in &rounds {
            self.read_round(round, &mut read, &mut done, progress, on_events)?;
        }
        Ok(read)
    }

    fn read_round(
        &self,
        round: &[Vec<Stretch>],
        read: &mut Read,
        done: &mut u64,
        progress: &mut dyn FnMut(u64),
        on_events: &mut dyn FnMut(&RecordBatch) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let brokers = &self.pipeline.kafka.brokers;
        let group = format!("weir-{}-explain", self.pipeline.name);
        let config = consumer_config(&connect::kafka(self.pipeline), &group, QUEUE_BYTES);
        let assigned: Vec<Assigned> = round
            .iter()
            .map(|of| Assigned { topic: of[0].topic.clone(), partition: of[0].partition, offset: of[0].first })
            .collect();
        let fetcher = Fetcher::new(&config, &assigned).map_err(|error| unreachable_broker(brokers, error))?;
        let mut open: Vec<bool> = round.iter().map(|_| true).collect();
        let mut last_answer = Instant::now();
        while open.contains(&true) {
            let mut has_moved = false;
            for (index, stretches) in round.iter().enumerate().filter(|(index, _)| open[*index]).collect::<Vec<_>>() {
                let fetched = fetcher.fetch(index);
                if let Some(trouble) = fetched.trouble.filter(|trouble| !trouble.passes()) {
                    let place = format!("{}/{}", stretches[0].topic, stretches[0].partition);
                    return Err(unreachable_broker(brokers, format!("{place} can't be read: {}", trouble.detail)));
                }
                has_moved |= !fetched.messages.is_empty() || fetched.end_offset.is_some();
                let next = stretches.last().map_or(0, |last| last.next);
                let reached = fetched.messages.last().map(|last| last.offset() + 1).max(fetched.end_offset);
                if reached.is_some_and(|reached| reached >= next) {
                    open[index] = false;
                }
                let within = |of: &Message| stretches.iter().any(|at| (at.first..at.next).contains(&of.offset()));
                let messages: Vec<Message> = fetched.messages.into_iter().filter(within).collect();
                read.records += messages.len() as u64;
                *done += messages.len() as u64;
                self.take(&stretches[0], messages, read, on_events)?;
                progress(*done);
            }
            let complaint = fetcher.serve();
            if has_moved {
                last_answer = Instant::now();
            } else if last_answer.elapsed() > ANSWER_WITHIN {
                let detail = complaint.unwrap_or_else(|| "no record came for 30 seconds".to_owned());
                return Err(unreachable_broker(brokers, detail));
            } else {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    /// Decodes messages in runs of one schema.
    fn take(
        &self,
        stretch: &Stretch,
        mut messages: Vec<Message>,
        read: &mut Read,
        on_events: &mut dyn FnMut(&RecordBatch) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let topic = self.topics.iter().position(|topic| *topic == stretch.topic).and_then(|at| u16::try_from(at).ok());
        let partition = Partition { topic: TopicId(topic.unwrap_or(u16::MAX)), number: stretch.partition };
        if self.retry_topic == Some(&stretch.topic) {
            messages = self.first_of_places(messages, read);
        }
        let run = Run {
            contract: &self.contract,
            topic: &stretch.topic,
            partition,
            epoch: Epoch(0),
            now_ms: 0,
            held: EventTime::MIN,
            precedents: None,
            floor: None,
        };
        while !messages.is_empty() {
            let id = schema_of(&messages[0]);
            let count = messages.iter().position(|message| schema_of(message) != id).unwrap_or(messages.len());
            let rest = messages.split_off(count);
            let decoder = match id {
                Ok(id) => self.decoder(id)?.map(|decoder| (id, decoder)),
                Err(_) => None,
            };
            match decoder {
                Some((id, decoder)) => {
                    let mut sheets = Sheets::default();
                    let mut clock = PartitionClock::resume(EventTime::MIN, 0);
                    run.take(&messages, id, &decoder, &mut clock, &mut sheets)?;
                    sheets.events.iter().try_for_each(&mut *on_events)?;
                    if let Some(refused) = sheets.refused.take()? {
                        count_reasons(&refused, read)?;
                    }
                }
                None => {
                    let reason = id.map_or_else(|reason| reason, |_| Reason::IncompatibleSchema.name());
                    *read.undecodable.entry(reason.to_owned()).or_default() += messages.len() as u64;
                }
            }
            messages = rest;
        }
        Ok(())
    }

    /// Of messages of the retry topic, the first for each place, with the original's Kafka timestamp.
    fn first_of_places(&self, messages: Vec<Message>, read: &mut Read) -> Vec<Message> {
        let mut first = Vec::with_capacity(messages.len());
        for mut message in messages {
            match retried_by(&message) {
                Ok(of) => {
                    message.set_timestamp_ms(of.kafka_time_ms);
                    if self.retried.borrow_mut().insert(xxh3_128(of.origin.to_string().as_bytes())) {
                        first.push(message);
                    }
                }
                Err(_) => *read.undecodable.entry(Reason::Malformed.name().to_owned()).or_default() += 1,
            }
        }
        first
    }

    /// Decodes refused records, with their system columns; `None` where their schema can't be had.
    pub(super) fn decode(&self, schema_id: u32, records: &[Refused]) -> Result<Option<RecordBatch>, Error> {
        let Some(decoder) = self.decoder(schema_id)? else { return Ok(None) };
        let mut batches = Vec::new();
        let data: Vec<&[u8]> =
            records.iter().map(|record| record.value.get(FRAME_BYTES..).unwrap_or_default()).collect();
        decoder.decode_all(&data, |of, decoded| self.add_decoded(schema_id, &records[of], decoded, &mut batches))?;
        Ok(Some(arrow_select::concat::concat_batches(&self.contract.events, &batches)?))
    }

    /// Adds those that have an event time.
    fn add_decoded(
        &self,
        schema_id: u32,
        records: &[Refused],
        decoded: Decoded,
        batches: &mut Vec<RecordBatch>,
    ) -> Result<(), Error> {
        let (times, known) = event_times(decoded.batch.column(self.contract.event_time))?;
        let rows: Vec<&Refused> = decoded.records.iter().filter_map(|&at| records.get(at as usize)).collect();
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(UInt16Array::from_iter_values(rows.iter().map(|row| row.place.0))),
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.place.1))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.place.2))),
            Arc::new(Int64Array::from_value(0, rows.len())),
            Arc::new(UInt32Array::from_value(schema_id, rows.len())),
            Arc::new(Int64Array::from_iter_values(times.iter().map(|time| time.0))),
        ];
        columns.extend_from_slice(decoded.batch.columns());
        let batch = RecordBatch::try_new(Arc::clone(&self.contract.events), columns)?;
        batches.push(match known {
            Some(known) => filter_record_batch(&batch, &BooleanArray::new(known.into_inner(), None))?,
            None => batch,
        });
        Ok(())
    }

    /// The decoder for a writer schema; `None` where the registry doesn't know it or it can't be read.
    fn decoder(&self, id: u32) -> Result<Option<Arc<Decoder>>, Error> {
        if let Some(known) = self.decoders.borrow().get(&id) {
            return Ok(known.clone());
        }
        let asked_at = Instant::now();
        let decoder = loop {
            let why = match self.schemas.get(id, u64::try_from(Clock::System.now_ms()).unwrap_or(0)) {
                Cached::Ready(writer) => {
                    break self.source.decoder(&writer.schema).ok().map(Arc::new);
                }
                Cached::Unusable(_) | Cached::Unknown { .. } => break None,
                Cached::Pending => "it doesn't answer".to_owned(),
                Cached::Unavailable(why) => why.to_string(),
            };
            if asked_at.elapsed() > ANSWER_WITHIN {
                return Err(Error::Unreachable {
                    part: format!("registry at {}", self.pipeline.registry.url),
                    detail: format!("schema {id}: {why}"),
                    remedy: "correct [registry], or start it".to_owned(),
                });
            }
            std::thread::sleep(PAUSE);
        };
        self.decoders.borrow_mut().insert(id, decoder.clone());
        Ok(decoder)
    }
}

/// The schema id of a record's frame, or why there is none.
fn schema_of(message: &Message) -> Result<u32, &'static str> {
    match message.value().map(frame) {
        Some(Ok(frame)) => Ok(frame.schema_id),
        Some(Err((reason, _))) => Err(reason.name()),
        None => Err("tombstone"),
    }
}

fn count_reasons(refused: &RecordBatch, read: &mut Read) -> Result<(), Error> {
    use arrow_array::cast::AsArray;
    let reasons =
        refused.column_by_name("reason").and_then(|of| of.as_primitive_opt::<arrow_array::types::UInt8Type>());
    for number in reasons.into_iter().flat_map(|reasons| reasons.values()) {
        let name = Reason::from_number(*number).map_or("unknown", Reason::name);
        *read.undecodable.entry(name.to_owned()).or_default() += 1;
    }
    Ok(())
}

/// Stretches of one partition that lie near each other, in groups that are read in one go.
fn together(stretches: &[Stretch]) -> Vec<Vec<Stretch>> {
    let mut groups: Vec<Vec<Stretch>> = Vec::new();
    for stretch in stretches {
        let near = groups.last_mut().filter(|group| {
            group.last().is_some_and(|last| {
                last.topic == stretch.topic
                    && last.partition == stretch.partition
                    && stretch.first - last.next <= GAP_OFFSETS
            })
        });
        match near {
            Some(group) => group.push(stretch.clone()),
            None => groups.push(vec![stretch.clone()]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_stretches_of_one_partition_are_read_in_one_go() {
        let of = |partition, first, next| Stretch { topic: "t".to_owned(), partition, first, next };
        let groups = together(&[of(0, 0, 10), of(0, 20, 30), of(0, 50_000, 50_001), of(1, 50_001, 50_002)]);
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1]);
    }
}
