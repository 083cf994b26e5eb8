//! Following: the records of each partition from what is archived to what is committed.

use std::collections::VecDeque;
use std::sync::Arc;

use weir_archive::{Catalog, Gap, Pending, Record, Stretch};
use weir_schemas::headers;

use super::Archiving;
use crate::error::Error;
use crate::source::PartitionPosition;
use crate::source::log::{Assigned, Fetch, Log};
use crate::source::message::Message;

/// The reader's name among those of the pipeline's sources.
const READER: &str = "archive";

/// Bytes that the reader may hold of all partitions together, about.
const QUEUES_BYTES: u64 = 32 << 20;

/// A partition that is followed.
struct Part {
    topic: String,
    topic_id: Option<String>,
    partition: i32,
    /// The first offset that is neither archived nor pending.
    next: i64,
    /// What was fetched and isn't committed yet.
    held: VecDeque<Message>,
    /// The end of the log behind what was fetched, where it was seen.
    end: Option<i64>,
}

/// Reads what is to be archived.
pub(super) struct Follower {
    parts: Vec<Part>,
    reader: Box<dyn Fetch>,
    log: Arc<dyn Log>,
    headers: Vec<u8>,
}

/// What a look at the logs told.
#[derive(Default)]
pub(super) struct Looked {
    /// What people should know.
    pub(super) notes: Vec<String>,
}

impl Follower {
    /// Goes on where the manifest ends; what the logs have forgotten before that is put down in `pending`.
    pub(super) fn open(
        archiving: &Archiving,
        catalog: &Catalog,
        pending: &mut Pending,
        now_ms: i64,
    ) -> Result<(Follower, Vec<String>), Error> {
        let log = archiving.log.clone();
        let (mut parts, mut notes) = (Vec::new(), Vec::new());
        for topic in log.topics(&archiving.topics)? {
            let known =
                catalog.topics.get(&topic.name).and_then(|logs| logs.values().find_map(|log| log.topic_id.clone()));
            if let (Some(known), Some(id)) = (&known, &topic.id)
                && known != id
            {
                notes.push(format!(
                    "{} was made anew (its id was {known} and is {id}) and isn't archived: give the archive another prefix",
                    topic.name
                ));
                continue;
            }
            for &partition in &topic.partitions {
                let (low, _) = log.extent(&topic.name, partition)?;
                let next = catalog.log(&topic.name, partition).map_or(low, |log| log.next);
                if next < low {
                    let (topic, first) = (topic.name.clone(), next);
                    notes.push(format!(
                        "offsets {first} to {low} of {topic}/{partition} expired before they were archived"
                    ));
                    pending.miss(Gap { topic, partition, first, next: low, found_at_ms: now_ms });
                }
                let (name, topic_id) = (topic.name.clone(), topic.id.clone());
                parts.push(Part {
                    topic: name,
                    topic_id,
                    partition,
                    next: next.max(low),
                    held: VecDeque::new(),
                    end: None,
                });
            }
        }
        let each = QUEUES_BYTES / parts.len().max(1) as u64;
        let assigned: Vec<Assigned> = parts
            .iter()
            .map(|part| Assigned { topic: part.topic.clone(), partition: part.partition, offset: part.next })
            .collect();
        let reader = log.read(READER, &assigned, each)?;
        Ok((Follower { parts, reader, log, headers: Vec::new() }, notes))
    }

    /// Up to where each partition is archived or pending.
    pub(super) fn nexts(&self) -> impl Iterator<Item = ((String, i32), i64)> + '_ {
        self.parts.iter().map(|part| ((part.topic.clone(), part.partition), part.next))
    }

    /// How many offsets are committed and neither archived nor pending.
    pub(super) fn behind(&self, goals: &[PartitionPosition]) -> u64 {
        let of = |part: &Part| u64::try_from(goal_of(part, goals)? - part.next).ok();
        self.parts.iter().filter_map(of).sum()
    }

    /// Takes what is ready into `pending`, up to the committed positions and until `is_full`; false when there was nothing.
    pub(super) fn step(
        &mut self,
        goals: &[PartitionPosition],
        pending: &mut Pending,
        is_full: impl Fn(&Pending) -> bool,
    ) -> Result<bool, Error> {
        self.reader.serve();
        let mut has_taken = false;
        for index in 0..self.parts.len() {
            let Some(part) = self.parts.get_mut(index) else { break };
            let Some(goal) = goal_of(part, goals).filter(|goal| *goal > part.next) else { continue };
            if is_full(pending) {
                break;
            }
            if part.held.is_empty() {
                let fetched = self.reader.fetch(index);
                if let Some(trouble) = fetched.trouble.filter(|trouble| !trouble.passes()) {
                    return Err(Error::Log {
                        place: format!("{}/{}", part.topic, part.partition),
                        detail: format!("offset {} can't be archived: {}", part.next, trouble.detail),
                        remedy: "the archive tries again".to_owned(),
                    });
                }
                // The end is told once; it holds until there is more.
                part.end = fetched.end_offset.or(part.end.filter(|_| fetched.messages.is_empty()));
                part.held.extend(fetched.messages);
            }
            let before = part.next;
            part.take(goal, pending, &is_full, &mut self.headers)?;
            has_taken |= part.next != before;
        }
        Ok(has_taken)
    }

    /// Looks how near the logs' beginnings are to what isn't archived yet.
    pub(super) fn look(&self, goals: &[PartitionPosition]) -> Result<Looked, Error> {
        let mut looked = Looked::default();
        for part in &self.parts {
            if goal_of(part, goals).is_none_or(|goal| goal <= part.next) {
                continue;
            }
            let (low, high) = self.log.extent(&part.topic, part.partition)?;
            // A tenth of the log is left between its beginning and what would be lost.
            if part.next > low && part.next - low < (high - low) / 10 || part.next == low && low > 0 {
                looked.notes.push(format!(
                    "the log of {}/{} begins at {low} and forgets more; offset {} is the next to be archived",
                    part.topic, part.partition, part.next
                ));
            }
        }
        Ok(looked)
    }
}

/// Up to where a partition is committed, where that is known.
fn goal_of(part: &Part, goals: &[PartitionPosition]) -> Option<i64> {
    goals.iter().find(|of| of.topic == part.topic && of.partition == part.partition).map(|of| of.next_offset)
}

impl Part {
    /// Takes what is held and lies before `goal`.
    fn take(
        &mut self,
        goal: i64,
        pending: &mut Pending,
        is_full: impl Fn(&Pending) -> bool,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let (first, mut records) = (self.next, 0);
        while let Some(message) = self.held.front().filter(|message| message.offset() < goal) {
            let timestamp_ms = message.timestamp_ms();
            buffer.clear();
            message.headers(|name, value| headers::push(buffer, name, value));
            let record = Record {
                partition: self.partition,
                offset: message.offset(),
                timestamp_ms: (timestamp_ms != -1).then_some(timestamp_ms),
                is_append_time: message.is_append_time(),
                key: message.key(),
                value: message.value(),
                headers: buffer,
            };
            pending.add(&self.topic, &record)?;
            self.next = message.offset() + 1;
            records += 1;
            self.held.pop_front();
            if is_full(pending) {
                break;
            }
        }
        // Behind the last record there may be offsets without one, where transactions end.
        let is_behind_goal = self.held.front().is_some_and(|message| message.offset() >= goal);
        let is_at_end = self.held.is_empty() && self.end.is_some_and(|end| end >= goal);
        if is_behind_goal || is_at_end {
            self.next = self.next.max(goal);
        }
        if self.next > first {
            pending.cover(Stretch {
                topic: self.topic.clone(),
                topic_id: self.topic_id.clone(),
                partition: self.partition,
                first,
                next: self.next,
                records,
            });
        }
        Ok(())
    }
}
