//! A bounded sample of a source's newest events, decoded as the pipeline would, with every column of the reader schema.
//!
//! Nothing is judged, kept or committed. What can't be decoded is counted and left out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch, UInt16Array, UInt32Array};
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::runtime::Handle;
use weir_schemas::avro::{Decoder, ReaderSchema};
use weir_schemas::frame::{FRAME_BYTES, frame};
use weir_schemas::registry::{Lookup, Registry};
use weir_schemas::stage::event_schema;

use crate::complaints::Complaints;
use crate::config::Pipeline;
use crate::connect;
use crate::error::Error;
use crate::source::fetch::{Fetcher, consumer_config};
use crate::source::kafka::{topics_of, unreachable_broker};
use crate::source::log::Assigned;
use crate::source::message::Message;

/// How long a broker may take for one answer, and nothing may come.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Bytes that librdkafka may hold for one partition.
const QUEUE_BYTES: u64 = 4 << 20;
/// Bytes of records that a sample holds, at most: beyond, it is smaller than asked for.
const SAMPLE_BYTES_MAX: u64 = 1 << 30;

/// A sample.
#[derive(Debug, Default)]
pub struct Sample {
    /// Batches of events, the columns of the reader schema behind those of the system.
    pub batches: Vec<RecordBatch>,
    /// Events in them.
    pub events: u64,
    /// Records that were read and are no events: tombstones, and what can't be decoded.
    pub left_out: u64,
}

/// What a sample is taken from.
pub struct Sampling<'a> {
    /// The pipeline.
    pub pipeline: &'a Pipeline,
    /// The reader schema.
    pub reader: Arc<ReaderSchema>,
    /// The topics.
    pub topics: &'a [String],
    /// Records to read, at most: the newest, about as many of each partition.
    pub records: u64,
}

struct Reading {
    next: i64,
    end: i64,
}

impl Sampling<'_> {
    /// Takes the sample; `progress` is told how many records were read, of how many.
    ///
    /// # Errors
    /// When the broker or the registry can't be asked, or a topic isn't there.
    pub fn take(
        &self,
        registry: &Registry,
        handle: &Handle,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Sample, Error> {
        let base = connect::kafka(self.pipeline);
        let brokers = &self.pipeline.kafka.brokers;
        let unreachable = |error| unreachable_broker(brokers, error);
        let consumer: BaseConsumer<Complaints> =
            base.create_with_context(Complaints::default()).map_err(unreachable)?;
        let topics = topics_of(&consumer, brokers, self.topics)?;
        let partitions: Vec<(&str, i32)> = topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|number| (topic.name.as_str(), *number)))
            .collect();
        let share = i64::try_from(self.records.div_ceil(partitions.len().max(1) as u64)).unwrap_or(i64::MAX);
        let (mut assigned, mut reading) = (Vec::new(), Vec::new());
        for (topic, partition) in partitions {
            let (low, end) = consumer.fetch_watermarks(topic, partition, ANSWER_WITHIN).map_err(unreachable)?;
            let offset = low.max(end.saturating_sub(share));
            assigned.push(Assigned { topic: topic.to_owned(), partition, offset });
            reading.push(Reading { next: offset, end });
        }
        let group = format!("weir-{}-sample", self.pipeline.name);
        let fetcher = Fetcher::new(&consumer_config(&base, &group, QUEUE_BYTES), &assigned).map_err(unreachable)?;
        let of = reading.iter().map(|one| one.end.saturating_sub(one.next).unsigned_abs()).sum();
        let mut decoding = Decoding { sampling: self, registry, handle, decoders: HashMap::new() };
        let (mut sample, mut bytes, mut moved_at) = (Sample::default(), 0, Instant::now());
        while reading.iter().any(|one| one.next < one.end) && bytes < SAMPLE_BYTES_MAX {
            let mut has_moved = false;
            for (at, one) in reading.iter_mut().enumerate().filter(|(_, one)| one.next < one.end) {
                let fetched = fetcher.fetch(at);
                if let Some(trouble) = fetched.trouble.filter(|trouble| !trouble.passes()) {
                    return Err(self.unreadable(&trouble.detail));
                }
                has_moved |= !fetched.messages.is_empty();
                let messages: Vec<Message> =
                    fetched.messages.into_iter().filter(|message| message.offset() < one.end).collect();
                bytes += messages.iter().map(Message::size).sum::<u64>();
                let reached = messages.last().map(|message| message.offset() + 1);
                one.next = one.next.max(reached.unwrap_or(one.next)).max(fetched.end_offset.unwrap_or(one.next));
                decoding.decode(&messages, &mut sample)?;
            }
            let left: u64 = reading.iter().map(|one| one.end.saturating_sub(one.next).max(0).unsigned_abs()).sum();
            progress(of - left.min(of), of);
            if has_moved {
                moved_at = Instant::now();
            } else if moved_at.elapsed() > ANSWER_WITHIN {
                return Err(self.unreadable("nothing comes any more"));
            } else {
                fetcher.serve();
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(sample)
    }

    fn unreadable(&self, why: &str) -> Error {
        Error::Unreachable {
            part: format!("kafka at {}", self.pipeline.kafka.brokers),
            detail: format!("the topics {} can't be read: {why}", self.topics.join(", ")),
            remedy: "check that the brokers are up, and the rights on the topics".to_owned(),
        }
    }
}

/// Decoders of the writer schemas that came by.
struct Decoding<'a> {
    sampling: &'a Sampling<'a>,
    registry: &'a Registry,
    handle: &'a Handle,
    decoders: HashMap<u32, Option<Arc<Decoder>>>,
}

impl Decoding<'_> {
    fn decode(&mut self, messages: &[Message], sample: &mut Sample) -> Result<(), Error> {
        let schema_of =
            |message: &Message| message.value().and_then(|value| frame(value).ok()).map(|frame| frame.schema_id);
        for run in messages.chunk_by(|a, b| schema_of(a) == schema_of(b)) {
            let schema_id = run.first().and_then(schema_of);
            let decoder = match schema_id {
                Some(id) => self.decoder(id)?.map(|decoder| (id, decoder)),
                None => None,
            };
            let Some((id, decoder)) = decoder else {
                sample.left_out += run.len() as u64;
                continue;
            };
            let data: Vec<&[u8]> = run
                .iter()
                .map(|one| one.value().and_then(|value| value.get(FRAME_BYTES..)).unwrap_or_default())
                .collect();
            let mut from = 0;
            while from < data.len() {
                let mut upto = data.len();
                let decoded = loop {
                    match decoder.decode(data.get(from..upto).unwrap_or_default()) {
                        Ok(decoded) => break decoded,
                        Err(too_large) => upto = from + too_large.fits.clamp(1, upto - from),
                    }
                };
                sample.left_out += decoded.refused.len() as u64;
                let rows: Vec<&Message> =
                    decoded.records.iter().filter_map(|at| run.get(from + *at as usize)).collect();
                if !rows.is_empty() {
                    sample.events += rows.len() as u64;
                    sample.batches.push(self.with_system_columns(decoded.batch, &rows, id)?);
                }
                from = upto;
            }
        }
        Ok(())
    }

    /// The decoder of a writer schema; none where the registry doesn't know it or it can't be read.
    fn decoder(&mut self, id: u32) -> Result<Option<Arc<Decoder>>, Error> {
        if let Some(known) = self.decoders.get(&id) {
            return Ok(known.clone());
        }
        let reader = &self.sampling.reader;
        let decoder = match self.handle.block_on(self.registry.by_id(id)) {
            Lookup::Found(schema) => {
                let wanted = vec![true; reader.columns.len()];
                Decoder::new(&schema.schema, Arc::clone(reader), &wanted).ok().map(Arc::new)
            }
            Lookup::Unknown | Lookup::Unusable(_) => None,
            Lookup::Unavailable(detail) | Lookup::Refused(detail) => {
                return Err(Error::Unreachable {
                    part: format!("registry at {}", self.registry.settings().urls.join(", ")),
                    detail,
                    remedy: "check [registry] and its credentials, and that it is up".to_owned(),
                });
            }
        };
        self.decoders.insert(id, decoder.clone());
        Ok(decoder)
    }

    fn with_system_columns(&self, batch: RecordBatch, rows: &[&Message], id: u32) -> Result<RecordBatch, Error> {
        let count = batch.num_rows();
        let stamps = || rows.iter().map(|message| message.timestamp_ms());
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(UInt16Array::from_value(0, count)),
            Arc::new(Int32Array::from_value(0, count)),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|message| message.offset()))),
            Arc::new(Int64Array::from_iter_values(stamps())),
            Arc::new(UInt32Array::from_value(id, count)),
            Arc::new(Int64Array::from_iter_values(stamps().map(|ms| ms.saturating_mul(1_000)))),
        ];
        columns.extend_from_slice(batch.columns());
        Ok(RecordBatch::try_new(event_schema(&self.sampling.reader.columns), columns)?)
    }
}
