//! Opening a source: which partitions there are, where each is resumed, and whether the log still fits the state.
//!
//! Invariant: a partition is resumed from its committed position or not at all; where the log can't give that any
//! more, this says so instead of jumping.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use weir_schemas::place::{Partition, TopicId};
use weir_schemas::time::EventTime;

use super::PartitionPosition;
use super::stream::Resume;
use crate::error::Error;

/// How long a broker may take to answer one question at start.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

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

/// Where every partition of `topics` is resumed, in the order of topics and partitions. `committed` holds the
/// positions of the state; with `until_end` the ends of now are recorded.
///
/// # Errors
/// When the broker can't be asked, a topic isn't there, or the log no longer has what the state resumes from.
pub fn open(
    consumer: &BaseConsumer,
    brokers: &str,
    topics: &[(TopicId, String)],
    committed: &[PartitionPosition],
    start: Start,
    until_end: bool,
) -> Result<Vec<Resume>, Error> {
    let known: HashMap<(&str, i32), &PartitionPosition> =
        committed.iter().map(|position| ((position.topic.as_str(), position.partition), position)).collect();
    let mut resumes = Vec::new();
    for (id, topic) in topics {
        let is_new = !committed.iter().any(|position| position.topic == *topic);
        for number in partitions_of(consumer, brokers, topic)? {
            let (low, high) = consumer
                .fetch_watermarks(topic, number, ANSWER_WITHIN)
                .map_err(|error| unreachable_broker(brokers, &error))?;
            let position = known.get(&(topic.as_str(), number));
            let offset = match position {
                Some(position) => resumable(topic, number, position.next_offset, low, high)?,
                // A partition that was added to a known topic holds only records that nobody has read.
                None if !is_new => low,
                None => first_offset(consumer, brokers, topic, number, (low, high), start)?,
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

/// The share of worker `worker` among `peers`: every `peers`-th partition.
pub fn share(resumes: &[Resume], worker: usize, peers: usize) -> Vec<Resume> {
    resumes.iter().enumerate().filter(|(at, _)| at % peers.max(1) == worker).map(|(_, resume)| resume.clone()).collect()
}

fn partitions_of(consumer: &BaseConsumer, brokers: &str, topic: &str) -> Result<Vec<i32>, Error> {
    let metadata =
        consumer.fetch_metadata(Some(topic), ANSWER_WITHIN).map_err(|error| unreachable_broker(brokers, &error))?;
    let mut numbers: Vec<i32> = metadata
        .topics()
        .iter()
        .filter(|found| found.name() == topic && found.error().is_none())
        .flat_map(|found| found.partitions().iter().map(|partition| partition.id()))
        .collect();
    numbers.sort_unstable();
    if numbers.is_empty() {
        return Err(Error::Unreachable {
            part: format!("kafka at {brokers}"),
            detail: format!("there is no topic `{topic}`"),
            remedy: "make the topic, or correct `topics` in the pipeline file".to_owned(),
        });
    }
    Ok(numbers)
}

/// The committed offset, if the log `low..=high` can still give it.
fn resumable(topic: &str, partition: i32, next_offset: i64, low: i64, high: i64) -> Result<i64, Error> {
    let lost = |detail: String, remedy: &str| {
        Err(Error::Log { topic: topic.to_owned(), partition, detail, remedy: remedy.to_owned() })
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
            "check that this is the right cluster; to read the new topic, use a new state folder",
        );
    }
    Ok(next_offset)
}

fn first_offset(
    consumer: &BaseConsumer,
    brokers: &str,
    topic: &str,
    partition: i32,
    (low, high): (i64, i64),
    start: Start,
) -> Result<i64, Error> {
    let at_ms = match start {
        Start::Earliest => return Ok(low),
        Start::Latest => return Ok(high),
        Start::At(at_ms) => at_ms,
    };
    let unreachable = |error: KafkaError| unreachable_broker(brokers, &error);
    let mut asked = TopicPartitionList::new();
    asked.add_partition_offset(topic, partition, Offset::Offset(at_ms)).map_err(unreachable)?;
    let answered = consumer.offsets_for_times(asked, ANSWER_WITHIN).map_err(unreachable)?;
    match answered.find_partition(topic, partition).map(|found| found.offset()) {
        Some(Offset::Offset(offset)) => Ok(offset),
        // No record is as young: it begins with the next one.
        _ => Ok(high),
    }
}

/// The error for a broker that gave no answer, or a wrong one.
pub fn unreachable_broker(brokers: &str, error: &KafkaError) -> Error {
    Error::Unreachable {
        part: format!("kafka at {brokers}"),
        detail: error.to_string(),
        remedy: "check `kafka.brokers` and `kafka.settings`, and that the broker is up".to_owned(),
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
