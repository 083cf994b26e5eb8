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
    /// Which one is asked first: the one that found no room the last time.
    first: usize,
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
        Ok((Follower { parts, first: 0, reader, log, headers: Vec::new() }, notes))
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
        let count = self.parts.len();
        for index in (self.first..count).chain(0..self.first.min(count)) {
            let Some(part) = self.parts.get_mut(index) else { break };
            let Some(goal) = goal_of(part, goals).filter(|goal| *goal > part.next) else { continue };
            if is_full(pending) {
                self.first = index;
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
            let is_near = part.next <= low || part.next - low < (high - low) / 10;
            if is_near && low > 0 {
                // No offsets: they move, and what is told anew with every look tells nobody anything.
                looked.notes.push(format!(
                    "the log of {}/{} begins to forget records that aren't archived yet",
                    part.topic, part.partition
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use weir_schemas::time::EventTime;

    use super::*;
    use crate::source::Attend;
    use crate::source::describe::Topic;
    use crate::source::log::{Attending, Fetched, LookUp};
    use crate::source::message::Record as Sent;

    /// Partitions that always have a next record, an hour after the last one.
    #[derive(Default)]
    struct Endless {
        nexts: Vec<i64>,
    }

    impl Fetch for Endless {
        fn fetch(&mut self, index: usize) -> Fetched {
            let offset = self.nexts[index];
            self.nexts[index] += 1;
            let record = Sent { offset, timestamp_ms: offset * 3_600_000, ..Sent::default() };
            Fetched { messages: vec![Message::of(Arc::new(record))], ..Fetched::default() }
        }

        fn end_offset(&self, _: &str, _: i32) -> Option<i64> {
            None
        }

        fn serve(&mut self) -> Option<String> {
            None
        }
    }

    impl Log for Endless {
        fn topics(&self, _: &[String]) -> Result<Vec<Topic>, Error> {
            Ok(Vec::new())
        }

        fn extent(&self, _: &str, _: i32) -> Result<(i64, i64), Error> {
            Ok((0, 1_000))
        }

        fn offset_at(&self, _: &str, _: i32, _: i64) -> Result<Option<i64>, Error> {
            Ok(None)
        }

        fn read(&self, _: &str, _: &[Assigned], _: u64) -> Result<Box<dyn Fetch>, Error> {
            Ok(Box::new(Endless::default()))
        }

        fn lookups(&self) -> Box<dyn LookUp> {
            unreachable!("nothing is looked up")
        }

        fn attend(&self, _: Attending) -> Result<Option<Box<dyn Attend>>, Error> {
            Ok(None)
        }
    }

    #[test]
    fn no_partition_waits_for_ever_where_there_are_more_than_a_commit_takes() {
        let part = |partition| Part {
            topic: "events".to_owned(),
            topic_id: None,
            partition,
            next: 0,
            held: VecDeque::new(),
            end: None,
        };
        let parts: Vec<Part> = (0..7).map(part).collect();
        let reader = Box::new(Endless { nexts: vec![0; 7] });
        let mut follower = Follower { parts, first: 0, reader, log: Arc::new(Endless::default()), headers: Vec::new() };
        let goal = |partition| PartitionPosition {
            topic: "events".to_owned(),
            partition,
            next_offset: 1_000,
            watermark: EventTime(0),
        };
        let goals: Vec<PartitionPosition> = (0..7).map(goal).collect();
        let mut served = BTreeSet::new();
        // Three files a commit: after five commits each of the seven had its turn.
        for _ in 0..5 {
            let mut pending = Pending::default();
            let before: Vec<i64> = follower.parts.iter().map(|part| part.next).collect();
            assert!(follower.step(&goals, &mut pending, |pending| pending.files() >= 3).unwrap());
            let parts = follower.parts.iter().zip(before);
            served.extend(parts.filter(|(part, before)| part.next > *before).map(|(part, _)| part.partition));
        }
        assert_eq!(served, (0..7).collect());
    }
}
