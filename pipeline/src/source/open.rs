//! Opening a source: which partitions there are, where each is resumed, and whether the log still fits the state.
//!
//! Invariant: a partition is resumed from its committed position or not at all; where the log can't give that any
//! more, this says so instead of jumping.

use std::collections::HashMap;

use weir_schemas::place::{Partition, TopicId};
use weir_schemas::time::EventTime;

use super::PartitionPosition;
use super::describe::Topic;
use super::log::Log;
use super::stream::Resume;
use crate::error::Error;
use crate::slice::Slice;

/// What helps when a topic was made anew.
const ANEW: &str = "check that this is the right cluster; to read the new topic, use a new state folder";

/// Where a source begins that has no position yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the log's beginning.
    Earliest,
    /// At the log's end.
    Latest,
    /// At the first record whose Kafka timestamp is this or later, in milliseconds.
    At(i64),
}

impl Start {
    /// Reads a pipeline file's `start`; `None` where it is neither a word nor a time.
    pub fn parse(text: &str) -> Option<Start> {
        match text {
            "earliest" => Some(Start::Earliest),
            "latest" => Some(Start::Latest),
            time => chrono::DateTime::parse_from_rfc3339(time).ok().map(|time| Start::At(time.timestamp_millis())),
        }
    }
}

/// Where every partition of `topics` is resumed, in their order. `committed` holds the positions of the state; with
/// `until_end` the ends of now are recorded.
///
/// # Errors
/// When the log can't be asked, or no longer has what the state resumes from.
pub fn open(
    log: &dyn Log,
    topics: &[(TopicId, Topic)],
    committed: &[PartitionPosition],
    start: Start,
    until_end: bool,
) -> Result<Vec<Resume>, Error> {
    let known: HashMap<(&str, i32), &PartitionPosition> =
        committed.iter().map(|position| ((position.topic.as_str(), position.partition), position)).collect();
    let mut resumes = Vec::new();
    for (id, Topic { name: topic, partitions, .. }) in topics {
        let is_new = !committed.iter().any(|position| position.topic == *topic);
        for &number in partitions {
            let (low, high) = log.extent(topic, number)?;
            let position = known.get(&(topic.as_str(), number));
            let offset = match position {
                Some(position) => resumable(topic, number, position.next_offset, low, high)?,
                // A partition that was added to a known topic holds only records that nobody has read.
                None if !is_new => low,
                None => first_offset(log, topic, number, (low, high), start)?,
            };
            resumes.push(Resume {
                topic: topic.clone(),
                partition: Partition { topic: *id, number },
                offset,
                log_begins_at: low,
                watermark: position.map_or(EventTime::MIN, |position| position.watermark),
                end: until_end.then_some(high),
            });
        }
    }
    Ok(resumes)
}

/// `resumes`, of which only what `slice` holds is read: from where it begins, or from where a run was interrupted.
///
/// # Errors
/// [`Error::Log`] when the log doesn't have all of it any more.
pub fn narrow(resumes: Vec<Resume>, committed: &[PartitionPosition], slice: &Slice) -> Result<Vec<Resume>, Error> {
    let mut narrowed = Vec::new();
    for resume in resumes {
        let Some(stretch) = slice.of(&resume.topic, resume.partition.number) else { continue };
        let is_known = |of: &PartitionPosition| of.topic == stretch.topic && of.partition == stretch.partition;
        let (offset, watermark) = match committed.iter().any(is_known) {
            true => (resume.offset, resume.watermark),
            false => (stretch.first, stretch.watermark.unwrap_or(EventTime::MIN)),
        };
        let end = resume.end.unwrap_or(resume.offset);
        if offset < resume.log_begins_at || stretch.next > end {
            return Err(Error::Log {
                place: format!("{}/{}", stretch.topic, stretch.partition),
                detail: format!(
                    "offsets {offset} to {} are to be read, and the log has {} to {end}",
                    stretch.next, resume.log_begins_at
                ),
                remedy: "plan the run anew: what the log has forgotten can't be read from it".to_owned(),
            });
        }
        narrowed.push(Resume { offset, watermark, end: Some(stretch.next), ..resume });
    }
    Ok(narrowed)
}

/// Whether retry topics have one partition each: what is retried is seen in one order, so that each is retried once.
///
/// # Errors
/// [`Error::Log`] when one has several.
pub fn check_one_order<'a>(mut topics: impl Iterator<Item = &'a Topic>) -> Result<(), Error> {
    match topics.find(|topic| topic.partitions.len() != 1) {
        None => Ok(()),
        Some(topic) => Err(Error::Log {
            place: topic.name.clone(),
            detail: format!("a retry topic has one partition, and this one has {}", topic.partitions.len()),
            remedy: "name another `retry_topic`: Weir makes it as it must be".to_owned(),
        }),
    }
}

/// The share of worker `worker` among `peers`: every `peers`-th partition.
pub fn share(resumes: &[Resume], worker: usize, peers: usize) -> Vec<Resume> {
    resumes.iter().enumerate().filter(|(at, _)| at % peers.max(1) == worker).map(|(_, resume)| resume.clone()).collect()
}

/// Whether `topic` is still the one that was read, whose id was `known`. Where either id is unknown, offsets have to
/// tell.
///
/// # Errors
/// [`Error::Log`] when it was deleted and made again.
pub fn check_identity(topic: &Topic, known: Option<&str>) -> Result<(), Error> {
    match (known, topic.id.as_deref()) {
        (Some(known), Some(now)) if known != now => Err(Error::Log {
            place: topic.name.clone(),
            detail: format!("the topic was made anew: what was read of it had the id {known}, and now it is {now}"),
            remedy: ANEW.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// The committed offset, if the log `low..=high` can still give it.
fn resumable(topic: &str, partition: i32, next_offset: i64, low: i64, high: i64) -> Result<i64, Error> {
    let lost = |detail: String, remedy: &str| {
        Err(Error::Log { place: format!("{topic}/{partition}"), detail, remedy: remedy.to_owned() })
    };
    if next_offset < low {
        return lost(
            format!(
                "the state resumes at offset {next_offset}, and the log begins at {low}: {} records expired unread",
                low - next_offset
            ),
            "restore them from a copy, or go on without them with a new state folder",
        );
    }
    if next_offset > high {
        return lost(
            format!("the state resumes at offset {next_offset}, and the log ends at {high}: the topic was made anew"),
            ANEW,
        );
    }
    Ok(next_offset)
}

fn first_offset(
    log: &dyn Log,
    topic: &str,
    partition: i32,
    (low, high): (i64, i64),
    start: Start,
) -> Result<i64, Error> {
    match start {
        Start::Earliest => Ok(low),
        Start::Latest => Ok(high),
        // Where no record is as young, it begins with the next one.
        Start::At(at_ms) => Ok(log.offset_at(topic, partition, at_ms)?.unwrap_or(high)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_a_word_or_a_time() {
        assert_eq!(Start::parse("earliest"), Some(Start::Earliest));
        assert_eq!(Start::parse("1970-01-01T00:00:01+00:00"), Some(Start::At(1_000)));
        assert_eq!(Start::parse("yesterday"), None);
    }

    #[test]
    fn a_log_that_lost_the_position_is_refused_with_what_happened() {
        assert_eq!(resumable("t", 0, 5, 5, 9).ok(), Some(5));
        assert_eq!(resumable("t", 0, 9, 5, 9).ok(), Some(9));
        let expired = resumable("t", 0, 4, 5, 9).unwrap_err().to_string();
        assert!(expired.contains("1 records expired unread"), "{expired}");
        let anew = resumable("t", 0, 10, 5, 9).unwrap_err().to_string();
        assert!(anew.contains("made anew"), "{anew}");
    }

    #[test]
    fn another_id_is_another_topic_and_an_unknown_one_says_nothing() {
        let topic = |id: Option<&str>| Topic { name: "t".to_owned(), id: id.map(str::to_owned), partitions: vec![0] };
        for (known, now) in [(Some("a"), Some("a")), (None, Some("a")), (Some("a"), None)] {
            assert!(check_identity(&topic(now), known).is_ok());
        }
        let anew = check_identity(&topic(Some("b")), Some("a")).unwrap_err();
        assert_eq!(anew.exit_code(), 4);
        assert!(anew.to_string().starts_with("t: the topic was made anew"), "{anew}");
    }

    #[test]
    fn every_partition_belongs_to_exactly_one_worker() {
        let resume = |number| Resume {
            topic: "t".to_owned(),
            partition: Partition { topic: TopicId(0), number },
            offset: 0,
            log_begins_at: 0,
            watermark: EventTime::MIN,
            end: None,
        };
        let all: Vec<Resume> = (0..5).map(resume).collect();
        for peers in 1..8 {
            let mut seen: Vec<i32> = (0..peers)
                .flat_map(|worker| share(&all, worker, peers))
                .map(|resume| resume.partition.number)
                .collect();
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2, 3, 4]);
        }
    }
}
