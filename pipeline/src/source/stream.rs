//! One worker's share of a stream: its partitions, whose turn it is, and what the stream is told of time.
//!
//! The partition with the least watermark is read first, so that the one furthest ahead waits first and the one that
//! holds the watermark never does. A partition whose schema can't be had *parks*: its records stay here, unconsumed,
//! and only that partition waits.
//!
//! Invariants: at most one fetch per partition is held besides librdkafka's own bounded queue; a position covers
//! exactly the records whose fate was decided; the watermark told never goes back.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use weir_schemas::avro::ReaderSchema;
use weir_schemas::frame::frame;
use weir_schemas::place::{Partition, Place};
use weir_schemas::profile::Codes;
use weir_schemas::registry::SchemaCache;
use weir_schemas::time::{Epoch, EventTime, Span};

use super::intake::{Contract, Run, Sheets};
use super::joining::Joining;
use super::judge::{combine, onward};
use super::judgement::{Judgement, Kind};
use super::log::{Assigned, Fetch};
use super::message::Message;
use super::partition::PartitionState;
use super::precedent::{OfPartition, Precedents};
use super::resolve::{Decoders, Resolved, refuse_all, take_unframed};
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
    /// What a judge looks at of every column, if there is one.
    pub codes: Option<Codes>,
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
    /// Where each worker's slowest partition is.
    pub paces: Paces,
    /// Partitions that are new.
    pub joining: Joining,
    /// What is judged as it was before; absent, the clock judges.
    pub precedents: Option<Arc<Precedents>>,
}

impl Plan {
    fn precedents_of(&self, resume: &Resume) -> Option<&OfPartition> {
        self.precedents.as_deref().map(|all| all.of(&resume.topic, resume.partition.number))
    }
}

/// Where the slowest partition of each worker is in event time, so that partitions keep in step over all workers.
#[derive(Debug, Default)]
pub struct Paces(Mutex<Vec<EventTime>>);

impl Paces {
    /// A seat for one more worker.
    fn join(&self) -> usize {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        paces.push(EventTime::MAX);
        paces.len() - 1
    }

    /// Tells where the slowest partition of a seat is, [`EventTime::MAX`] where none sets a pace; returns where the slowest
    /// of all seats is.
    fn tell(&self, seat: usize, pace: EventTime) -> EventTime {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = paces.get_mut(seat) {
            *told = pace;
        }
        paces.iter().copied().min().unwrap_or(EventTime::MAX)
    }
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
    fetcher: Box<dyn Fetch>,
    decoders: Decoders,
    seat: usize,
    joining_seat: usize,
    held: EventTime,
    sheets: Sheets,
    taken: Taken,
}

impl StreamSource {
    /// A share that reads `resumes` through `fetcher`, which was made for the same partitions in the same order.
    pub fn new(
        plan: Arc<Plan>,
        schemas: SchemaCache,
        fetcher: Box<dyn Fetch>,
        resumes: Vec<Resume>,
        now_ms: i64,
    ) -> Self {
        let retries = plan.retries.as_ref();
        let is_retry = |resume: &Resume| retries.is_some_and(|retries| retries.topic == resume.topic);
        let joining_seat = plan.joining.sit(resumes.len());
        let resumed = |resume: Resume| PartitionState::resume(is_retry(&resume), resume, now_ms);
        let partitions = resumes.into_iter().map(resumed).collect();
        StreamSource {
            held: plan.told,
            seat: plan.paces.join(),
            joining_seat,
            plan,
            schemas,
            fetcher,
            partitions,
            decoders: Decoders::default(),
            sheets: Sheets::default(),
            taken: Taken::default(),
        }
    }

    /// Takes in the partitions that are new.
    fn join(&mut self, now_ms: i64) -> Result<(), Error> {
        for resume in self.plan.joining.take(self.joining_seat) {
            let (topic, partition) = (resume.topic.clone(), resume.partition.number);
            self.fetcher.join(&Assigned { topic, partition, offset: resume.offset })?;
            self.partitions.push(PartitionState::resume(false, resume, now_ms));
        }
        Ok(())
    }

    /// Reads partition `index` for up to `budget` bytes; the bytes that were consumed.
    fn read(&mut self, index: usize, epoch: Epoch, now_ms: i64, budget: u64) -> Result<u64, Error> {
        let Some(partition) = self.partitions.get_mut(index) else { return Ok(0) };
        if partition.waiting.is_empty() {
            partition.take(self.fetcher.fetch(index), now_ms)?;
        }
        let bytes = self.consume(index, epoch, now_ms, budget)?;
        if let Some(partition) = self.partitions.get_mut(index) {
            if bytes > 0 && !partition.is_retry {
                partition.clock.active(now_ms);
                self.plan.last_record_at_ms.fetch_max(now_ms, Ordering::Relaxed);
            }
            partition.note_end(now_ms);
        }
        Ok(bytes)
    }

    /// Consumes waiting records in runs of one schema id, until the budget is used or the partition parks.
    fn consume(&mut self, index: usize, epoch: Epoch, now_ms: i64, budget: u64) -> Result<u64, Error> {
        let mut bytes = 0;
        while bytes < budget {
            let Some(partition) = self.partitions.get_mut(index) else { break };
            partition.parked = None;
            let Some(first) = partition.front() else { break };
            let schema_id = first.value().and_then(|value| frame(value).ok()).map(|frame| frame.schema_id);
            let offset = first.offset();
            let precedents = self.plan.precedents_of(&partition.resume);
            let (was_unknown, until) = precedents.map_or((false, i64::MAX), |of| of.schema_was_unknown(offset));
            let resolved = schema_id.map(|id| match was_unknown {
                true => Resolved::unknown(id),
                false => self.decoders.resolve(&self.plan, &self.schemas, id, &mut partition.patience, now_ms),
            });
            if let Some(Resolved::Park(why)) = resolved {
                partition.parked = Some(why);
                if partition.patience.asks_ahead(now_ms) {
                    let PartitionState { waiting, patience, .. } = partition;
                    self.decoders.ask_ahead(&self.schemas, waiting.iter(), patience, now_ms);
                }
                break;
            }
            let messages = partition.take_run(schema_id, budget - bytes, until);
            bytes += messages.iter().map(Message::size).sum::<u64>().max(1);
            self.take_run(index, messages, (schema_id, resolved), epoch, now_ms)?;
        }
        Ok(bytes)
    }

    /// Gives each record of a run of one schema id its fate.
    fn take_run(
        &mut self,
        index: usize,
        messages: Vec<Message>,
        (schema_id, resolved): (Option<u32>, Option<Resolved>),
        epoch: Epoch,
        now_ms: i64,
    ) -> Result<(), Error> {
        let plan = Arc::clone(&self.plan);
        let Some(partition) = self.partitions.get_mut(index) else { return Ok(()) };
        let (Some(first), Some(last)) = (messages.first().map(Message::offset), messages.last().map(Message::offset))
        else {
            return Ok(());
        };
        partition.next_offset = last + 1;
        let watermark = partition.clock.watermark();
        let taken = messages.len() as u64;
        let retries = plan.retries.as_ref().filter(|_| partition.is_retry);
        let run = Run {
            contract: &plan.contract,
            topic: &partition.resume.topic,
            partition: partition.resume.partition,
            epoch,
            now_ms,
            held: self.held,
            precedents: plan.precedents_of(&partition.resume),
            floor: retries.map(|retries| retries.floor(self.held, plan.contract.bounds.allowed_lateness)),
        };
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
        let counted = self.sheets.tallies.take_consumed();
        if counted != taken {
            let (topic, number) = (&partition.resume.topic, partition.resume.partition.number);
            return Err(Error::Stopped(format!(
                "of {taken} records of {topic}/{number} from offset {first} on, {counted} were counted: this is a bug"
            )));
        }
        if !partition.is_retry {
            plan.greatest.fetch_max(partition.clock.watermark().0, Ordering::Relaxed);
        }
        let span = self.sheets.span.take();
        let (topic, number) = (&partition.resume.topic, partition.resume.partition.number);
        let of = partition.consumed.get_or_insert_with(|| Consumed::from(topic, number, first, watermark));
        of.add(last + 1, taken, schema_id, span);
        Ok(())
    }

    /// The order in which partitions are read: least watermark first. The ones too far ahead are left out.
    fn turns(&mut self) -> Vec<usize> {
        let bounds = &self.plan.contract.bounds;
        let setting = self.partitions.iter().filter(|partition| partition.sets_pace(bounds));
        let own = setting.filter_map(|partition| partition.pace(bounds)).min().unwrap_or(EventTime::MAX);
        let limit = self.plan.paces.tell(self.seat, own).plus(self.plan.align_within);
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
            let idle = partition.clock.is_idle(&self.plan.contract.bounds);
            if idle != partition.was_idle {
                partition.was_idle = idle;
                self.sheets.judgements.add(&Judgement {
                    judged_at_ms: now_ms,
                    topic: &partition.resume.topic,
                    partition: partition.resume.partition.number,
                    offset: partition.next_offset,
                    last_offset: partition.next_offset,
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
        self.join(now_ms)?;
        let mut bytes = 0;
        if budget_bytes > 0 {
            // Retries get their turn however much the others have to say, and a part of it only.
            if let Some(index) = self.partitions.iter().position(|partition| partition.is_retry) {
                bytes += self.read(index, epoch, now_ms, (budget_bytes / 4).max(1))?;
            }
            for index in self.turns() {
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
        self.partitions.iter().map(PartitionState::position).collect()
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
        self.partitions.iter().map(|partition| partition.status(&*self.fetcher)).collect()
    }
}
