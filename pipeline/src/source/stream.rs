//! One worker's share of a stream: its partitions, whose turn it is, and what the stream is told of time.
//!
//! The partition with the least watermark is read first, so that the one furthest ahead waits first and the one that
//! holds the watermark never does. A partition whose schema can't be had *parks*: its records stay here, unconsumed,
//! and only that partition waits.
//!
//! Invariants: at most one fetch per partition is held besides librdkafka's own bounded queue; a position covers
//! exactly the records whose fate was decided; the watermark told never goes back.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use weir_schemas::avro::{Decoder, ReaderSchema};
use weir_schemas::fate::Reason;
use weir_schemas::frame::frame;
use weir_schemas::place::{Partition, Place};
use weir_schemas::registry::{Cached, SchemaCache};
use weir_schemas::time::{Epoch, EventTime, Span};

use super::fetch::{Fetcher, Message};
use super::intake::{Contract, Run, Sheets};
use super::judge::{PartitionClock, combine, onward};
use super::judgement::{Judgement, Kind};
use super::retry::{Retries, Taken};
use super::{PartitionPosition, PartitionStatus, Polled, Source};
use crate::error::Error;
use crate::lineage::Consumed;

/// What all workers of a source share.
#[derive(Debug)]
pub struct Plan {
    /// The source's name.
    pub name: String,
    /// What every record must be.
    pub contract: Contract,
    /// The reader schema.
    pub reader: Arc<ReaderSchema>,
    /// Which of the reader's columns are read.
    pub wanted: Vec<bool>,
    /// How long an id that the registry doesn't know may be too young.
    pub grace_ms: u64,
    /// How far a partition may run ahead of the watermark.
    pub align_within: Span,
    /// The greatest watermark of any partition, in microseconds.
    pub greatest: AtomicI64,
    /// When any worker last saw a record, in milliseconds.
    pub last_record_at_ms: AtomicI64,
    /// The watermark that the stream had been told when the state was committed; [`EventTime::MIN`] at first.
    pub told: EventTime,
    /// The retry topic, if the source has one.
    pub retries: Option<Retries>,
}

/// Where one partition is resumed.
#[derive(Clone, Debug)]
pub struct Resume {
    /// The topic's name.
    pub topic: String,
    /// The topic's number and the partition's.
    pub partition: Partition,
    /// The first offset to read.
    pub offset: i64,
    /// The log's first offset when it was asked.
    pub log_begins_at: i64,
    /// The mark before it.
    pub watermark: EventTime,
    /// The end that `--until-end` recorded.
    pub end: Option<i64>,
}

/// One worker's share.
pub struct StreamSource {
    plan: Arc<Plan>,
    schemas: SchemaCache,
    // Dropped before the fetcher: librdkafka's consumer doesn't end while anybody holds one of its messages.
    partitions: Vec<PartitionState>,
    fetcher: Fetcher,
    decoders: HashMap<u32, Result<Arc<Decoder>, String>>,
    held: EventTime,
    sheets: Sheets,
    taken: Taken,
}

struct PartitionState {
    resume: Resume,
    next_offset: i64,
    clock: PartitionClock,
    /// Fetched and not yet consumed.
    waiting: VecDeque<Message>,
    end_offset: Option<i64>,
    was_idle: bool,
    parked: Option<String>,
    aligned: bool,
    /// Whether it is the retry topic's: it says nothing of time.
    is_retry: bool,
    /// What was consumed since it was last taken.
    consumed: Option<Consumed>,
}

/// What a schema id means right now.
enum Resolved {
    Ready(Arc<Decoder>),
    Park(String),
    Refuse(Reason, String),
}

impl StreamSource {
    /// A share that reads `resumes` through `fetcher`, which was made for the same partitions in the same order.
    pub fn new(plan: Arc<Plan>, schemas: SchemaCache, fetcher: Fetcher, resumes: Vec<Resume>, now_ms: i64) -> Self {
        let retries = plan.retries.as_ref();
        let is_retry = |resume: &Resume| retries.is_some_and(|retries| retries.topic == resume.topic);
        let resumed = |resume: Resume| PartitionState::resume(is_retry(&resume), resume, now_ms);
        let partitions = resumes.into_iter().map(resumed).collect();
        StreamSource {
            held: plan.told,
            plan,
            schemas,
            fetcher,
            partitions,
            decoders: HashMap::new(),
            sheets: Sheets::default(),
            taken: Taken::default(),
        }
    }

    /// Reads partition `index` for up to `budget` bytes; the bytes that were consumed.
    fn read(&mut self, index: usize, epoch: Epoch, now_ms: i64, budget: u64) -> Result<u64, Error> {
        let Some(partition) = self.partitions.get_mut(index) else { return Ok(0) };
        if partition.waiting.is_empty() {
            let fetched = self.fetcher.fetch(index);
            if let Some(failure) = fetched.failure {
                return Err(lost_log(&partition.resume, partition.next_offset, failure));
            }
            if !fetched.messages.is_empty() && !partition.is_retry {
                partition.clock.active(now_ms);
                self.plan.last_record_at_ms.fetch_max(now_ms, Ordering::Relaxed);
            }
            partition.end_offset = fetched.end_offset.or(partition.end_offset.filter(|_| fetched.messages.is_empty()));
            partition.waiting.extend(fetched.messages);
        }
        let bytes = self.consume(index, epoch, now_ms, budget)?;
        if let Some(partition) = self.partitions.get_mut(index)
            && partition.waiting.is_empty()
            && let Some(end) = partition.end_offset
        {
            // Control records of transactions have offsets but are no messages: the end stands behind them.
            partition.next_offset = partition.next_offset.max(end);
            partition.clock.reached_end();
        }
        Ok(bytes)
    }

    /// Consumes waiting records in runs of one schema id, until the budget is used or the partition parks.
    fn consume(&mut self, index: usize, epoch: Epoch, now_ms: i64, budget: u64) -> Result<u64, Error> {
        let plan = Arc::clone(&self.plan);
        let mut bytes = 0;
        while bytes < budget {
            let Some(partition) = self.partitions.get_mut(index) else { break };
            partition.parked = None;
            let Some(first) = partition.waiting.front() else { break };
            let framed = first.value().map(frame);
            let schema_id = match &framed {
                Some(Ok(frame)) => Some(frame.schema_id),
                _ => None,
            };
            let resolved = schema_id.map(|id| resolve(&plan, &self.schemas, &mut self.decoders, id, now_ms));
            if let Some(Resolved::Park(why)) = resolved {
                partition.parked = Some(why);
                break;
            }
            let retries = plan.retries.as_ref().filter(|_| partition.is_retry);
            let run = Run {
                contract: &plan.contract,
                topic: &partition.resume.topic,
                partition: partition.resume.partition,
                epoch,
                now_ms,
                held: self.held,
                floor: retries.map(|retries| retries.floor(self.held, plan.contract.bounds.allowed_lateness)),
            };
            let count = run_length(&partition.waiting, schema_id, budget - bytes);
            let messages: Vec<Message> = partition.waiting.drain(..count).collect();
            bytes += messages.iter().map(Message::size).sum::<u64>().max(1);
            let (first, last) = (messages.first().map(Message::offset), messages.last().map(Message::offset));
            if let Some(last) = last {
                partition.next_offset = last + 1;
            }
            let messages = match retries {
                Some(retries) => self.taken.admit(retries, messages, &run, schema_id, &mut self.sheets)?,
                None => messages,
            };
            match (resolved, schema_id) {
                (Some(Resolved::Ready(decoder)), Some(id)) => {
                    run.take(&messages, id, &decoder, &mut partition.clock, &mut self.sheets)?;
                }
                (Some(Resolved::Refuse(reason, detail)), id) => {
                    refuse_all(&run, &messages, id, reason, &detail, partition.clock.watermark(), &mut self.sheets);
                }
                _ => take_unframed(&run, &messages, partition.clock.watermark(), &mut self.sheets),
            }
            if !partition.is_retry {
                plan.greatest.fetch_max(partition.clock.watermark().0, Ordering::Relaxed);
            }
            let (span, at) = (self.sheets.span.take(), first.zip(last));
            if let Some((first, last)) = at {
                let of = partition.consumed.get_or_insert_with(|| {
                    Consumed::from(&partition.resume.topic, partition.resume.partition.number, first)
                });
                of.add(last + 1, count as u64, schema_id, span);
            }
        }
        Ok(bytes)
    }

    /// The order in which partitions are read: least watermark first. The ones too far ahead are left out.
    fn turns(&mut self, now_ms: i64, others: EventTime) -> Vec<usize> {
        let bounds = &self.plan.contract.bounds;
        // One that a run has read to its end has nothing that the others could wait for.
        let is_reading = |of: &&PartitionState| !of.is_retry && !of.clock.is_idle(bounds, now_ms) && !of.is_at_end();
        let reading = self.partitions.iter().filter(is_reading);
        let least = reading.map(|partition| partition.clock.watermark()).min().unwrap_or(EventTime::MAX).min(others);
        // Before every partition has said something, there is nothing to keep in step with.
        let limit = if least == EventTime::MIN { EventTime::MAX } else { least.plus(self.plan.align_within) };
        let mut turns = Vec::with_capacity(self.partitions.len());
        for (index, partition) in self.partitions.iter_mut().enumerate() {
            partition.aligned = partition.clock.watermark() > limit && !partition.is_retry;
            if !partition.aligned {
                turns.extend((!partition.is_retry).then_some(index));
            }
        }
        turns.sort_by_key(|&index| self.partitions[index].clock.watermark());
        turns
    }

    /// Notes which partitions became idle or awake.
    fn note_idleness(&mut self, epoch: Epoch, now_ms: i64) {
        for partition in self.partitions.iter_mut().filter(|partition| !partition.is_retry) {
            let idle = partition.clock.is_idle(&self.plan.contract.bounds, now_ms);
            if idle != partition.was_idle {
                partition.was_idle = idle;
                self.sheets.judgements.add(&Judgement {
                    judged_at_ms: now_ms,
                    topic: &partition.resume.topic,
                    partition: partition.resume.partition.number,
                    offset: partition.next_offset,
                    kind: if idle { Kind::Idle } else { Kind::Awake },
                    epoch,
                    watermark: self.held,
                    detail: "",
                });
            }
        }
    }
}

impl Source for StreamSource {
    fn poll(&mut self, epoch: Epoch, now_ms: i64, budget_bytes: u64, others: EventTime) -> Result<Polled, Error> {
        let mut bytes = 0;
        if budget_bytes > 0 {
            // Retries get their turn however much the others have to say, and a part of it only.
            if let Some(index) = self.partitions.iter().position(|partition| partition.is_retry) {
                bytes += self.read(index, epoch, now_ms, (budget_bytes / 4).max(1))?;
            }
            for index in self.turns(now_ms, others) {
                if bytes >= budget_bytes {
                    break;
                }
                bytes += self.read(index, epoch, now_ms, budget_bytes - bytes)?;
            }
        }
        if let Some(error) = self.fetcher.serve() {
            tracing::warn!(source = self.plan.name, error, "kafka");
        }
        self.note_idleness(epoch, now_ms);
        let bounds = &self.plan.contract.bounds;
        let greatest = EventTime(self.plan.greatest.load(Ordering::Relaxed));
        let carried = onward(greatest, self.plan.last_record_at_ms.load(Ordering::Relaxed), now_ms);
        let of_time = self.partitions.iter().filter(|partition| !partition.is_retry);
        let clocks = of_time.map(|partition| &partition.clock);
        let combined = combine(clocks, bounds, now_ms, self.held, others, carried);
        self.held = combined.watermark;
        let retried = match &self.plan.retries {
            Some(retries) => self.taken.take_rows(&self.plan.name, &retries.topic)?,
            None => None,
        };
        let rules = &self.plan.contract.rules;
        let broken = std::mem::take(&mut self.sheets.broken);
        let broken = rules.iter().zip(broken).filter(|(_, count)| *count > 0);
        Ok(Polled {
            broken: broken.map(|(rule, count)| (Arc::clone(&rule.id), rule.mode, count)).collect(),
            events: std::mem::take(&mut self.sheets.events),
            refused: self.sheets.refused.take()?.into_iter().collect(),
            tallies: self.sheets.tallies.take()?.into_iter().collect(),
            refused_events: std::mem::take(&mut self.sheets.refused_events),
            judgements: self.sheets.judgements.take()?.into_iter().chain(retried).collect(),
            bytes,
            watermark: combined.watermark,
            idle: combined.idle,
        })
    }

    fn positions(&self) -> Vec<PartitionPosition> {
        let position = |partition: &PartitionState| PartitionPosition {
            topic: partition.resume.topic.clone(),
            partition: partition.resume.partition.number,
            next_offset: partition.next_offset,
            watermark: partition.clock.watermark(),
        };
        self.partitions.iter().map(position).collect()
    }

    fn take_retried(&mut self) -> Vec<Place> {
        self.taken.take_places()
    }

    fn take_consumed(&mut self) -> Vec<Consumed> {
        self.partitions.iter_mut().filter_map(|partition| partition.consumed.take()).collect()
    }

    fn at_end(&self) -> bool {
        self.partitions.iter().all(PartitionState::is_at_end)
    }

    fn status(&self) -> Vec<PartitionStatus> {
        self.partitions.iter().map(|partition| partition.status(&self.fetcher)).collect()
    }
}

impl PartitionState {
    fn resume(is_retry: bool, resume: Resume, now_ms: i64) -> PartitionState {
        // No watermark holds anybody back less than the greatest.
        let watermark = if is_retry { EventTime::MAX } else { resume.watermark };
        PartitionState {
            next_offset: resume.offset,
            clock: PartitionClock::resume(watermark, now_ms),
            waiting: VecDeque::new(),
            end_offset: None,
            was_idle: false,
            parked: None,
            aligned: false,
            is_retry,
            consumed: None,
            resume,
        }
    }

    /// Whether it was read to the end that `--until-end` recorded.
    fn is_at_end(&self) -> bool {
        self.resume.end.is_some_and(|end| self.next_offset >= end)
    }

    fn status(&self, fetcher: &Fetcher) -> PartitionStatus {
        let (state, detail) = match &self.parked {
            Some(why) => ("parked", why.clone()),
            None if self.is_at_end() => ("done", String::new()),
            None if self.was_idle => ("idle", String::new()),
            None if self.aligned => ("waiting", "too far ahead of the watermark".to_owned()),
            None => ("reading", String::new()),
        };
        let end = fetcher.end_offset(&self.resume.topic, self.resume.partition.number);
        PartitionStatus {
            topic: self.resume.topic.clone(),
            partition: self.resume.partition.number,
            next_offset: self.next_offset,
            end_offset: end.unwrap_or(self.next_offset).max(self.next_offset),
            watermark: self.clock.watermark(),
            state: state.to_owned(),
            detail,
        }
    }
}

/// How many records at the front of `waiting` have the schema id `id`, within `budget` bytes but at least one.
fn run_length(waiting: &VecDeque<Message>, id: Option<u32>, budget: u64) -> usize {
    let mut bytes = 0;
    let mut count = 0;
    for message in waiting {
        let own = message.value().and_then(|value| frame(value).ok()).map(|frame| frame.schema_id);
        if own != id || (count > 0 && bytes >= budget) {
            break;
        }
        bytes += message.size();
        count += 1;
    }
    count
}

fn resolve(
    plan: &Plan,
    schemas: &SchemaCache,
    decoders: &mut HashMap<u32, Result<Arc<Decoder>, String>>,
    id: u32,
    now_ms: i64,
) -> Resolved {
    if let Some(known) = decoders.get(&id) {
        return match known {
            Ok(decoder) => Resolved::Ready(Arc::clone(decoder)),
            Err(why) => Resolved::Refuse(Reason::IncompatibleSchema, why.clone()),
        };
    }
    let now = u64::try_from(now_ms).unwrap_or(0);
    match schemas.get(id, now) {
        Cached::Ready(writer) => {
            let made = Decoder::new(&writer.schema, Arc::clone(&plan.reader), &plan.wanted).map(Arc::new).map_err(
                |problems| {
                    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
                    format!("schema {id}: {}", told.join("; "))
                },
            );
            decoders.insert(id, made.clone());
            match made {
                Ok(decoder) => Resolved::Ready(decoder),
                Err(why) => Resolved::Refuse(Reason::IncompatibleSchema, why),
            }
        }
        Cached::Unusable(why) => Resolved::Refuse(Reason::IncompatibleSchema, format!("schema {id}: {why}")),
        Cached::Pending => Resolved::Park(format!("asking the registry for schema {id}")),
        Cached::Unavailable(why) => Resolved::Park(format!("the registry can't be asked for schema {id}: {why}")),
        Cached::Unknown { first_asked_at_ms } if now.saturating_sub(first_asked_at_ms) < plan.grace_ms => {
            Resolved::Park(format!("the registry doesn't know schema {id} yet"))
        }
        Cached::Unknown { .. } => Resolved::Refuse(Reason::UnknownSchema, format!("the registry has no schema {id}")),
    }
}

fn refuse_all(
    run: &Run<'_>,
    messages: &[Message],
    id: Option<u32>,
    reason: Reason,
    detail: &str,
    watermark: EventTime,
    sheets: &mut Sheets,
) {
    for message in messages {
        run.refuse(message, id, reason, detail, watermark, sheets);
    }
    // That the grace period is over was decided by the clock; that a schema is incompatible was not.
    if let (Reason::UnknownSchema, Some(first)) = (reason, messages.first()) {
        sheets.judgements.add(&Judgement {
            judged_at_ms: run.now_ms,
            topic: run.topic,
            partition: run.partition.number,
            offset: first.offset(),
            kind: Kind::UnknownSchema,
            epoch: run.epoch,
            watermark,
            detail: &format!("{} records, {detail}", messages.len()),
        });
    }
}

fn take_unframed(run: &Run<'_>, messages: &[Message], watermark: EventTime, sheets: &mut Sheets) {
    for message in messages {
        match message.value().map(frame) {
            None => run.tombstone(message, sheets),
            Some(Err((reason, detail))) => run.refuse(message, None, reason, &detail, watermark, sheets),
            Some(Ok(_)) => {}
        }
    }
}

fn lost_log(resume: &Resume, next_offset: i64, failure: String) -> Error {
    Error::Log {
        place: format!("{}/{}", resume.topic, resume.partition.number),
        detail: format!("offset {next_offset} can't be read: {failure}"),
        remedy: "the records expired or the topic was made anew; to go on from what is there, use a new state folder"
            .to_owned(),
    }
}
