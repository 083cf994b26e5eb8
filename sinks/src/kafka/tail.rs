//! What a topic holds already: the identities of its newest committed messages.
//!
//! Messages of one partition come in order of their epochs, since one fenced producer sends epoch after epoch. So the
//! tail of each partition is read backwards, in growing pieces, until a piece holds a message of an epoch
//! before the ones asked for. A topic that another state has filled may have none: then only its newest messages are
//! read, up to a bound, and a log line says that those before may come twice.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use weir_schemas::time::Version;

use super::message::{IDENTITY_HEADER, VERSION_HEADER};
use super::quiet::Quiet;

/// Offsets in the first piece of a partition's tail; each further one is four times as large.
const FIRST_PIECE: i64 = 1_000;
/// How long one question to the brokers may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long the brokers may be silent while a tail is read.
const SILENT_AT_MOST: Duration = Duration::from_secs(60);
/// How often it is told how far a long tail is read.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// The epoch within a version: versions of a later generation may begin again at earlier epochs.
pub(crate) fn epoch_of(version: u64) -> u64 {
    version & ((1 << Version::EPOCH_BITS) - 1)
}

/// Identities and epochs of the committed messages of `from_epoch` and later. The producer of `topic` has to be fenced and its
/// last transaction settled before. At most about the newest `at_most` messages are looked at.
pub(crate) fn read(
    config: &ClientConfig,
    group: &str,
    topic: &str,
    from_epoch: u64,
    at_most: usize,
) -> KafkaResult<HashMap<Vec<u8>, u64>> {
    let consumer: BaseConsumer<Quiet> = config
        .clone()
        .set("group.id", group)
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .create_with_context(Quiet)?;
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER_WITHIN)?;
    let partitions: Vec<i32> =
        metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id()).collect();
    if partitions.is_empty() {
        return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
    }
    let of_partition = i64::try_from(at_most.div_ceil(partitions.len())).unwrap_or(i64::MAX);
    let now = Instant::now();
    let mut tail = Tail { consumer, topic, from_epoch, heard_at: now, told_at: now, read: 0, found: HashMap::new() };
    let mut is_whole = true;
    for partition in partitions {
        is_whole &= tail.read_partition(partition, of_partition)?;
    }
    if !is_whole {
        let known = tail.found.len();
        tracing::warn!(topic, known, "the topic holds more from an earlier state: what is older may be sent once more");
    }
    Ok(tail.found)
}

struct Tail<'a> {
    consumer: BaseConsumer<Quiet>,
    topic: &'a str,
    from_epoch: u64,
    /// When the brokers last sent something.
    heard_at: Instant,
    told_at: Instant,
    read: u64,
    found: HashMap<Vec<u8>, u64>,
}

impl Tail<'_> {
    /// Reads back to before the epochs asked for, or the newest `at_most` offsets; says whether the first was reached.
    fn read_partition(&mut self, partition: i32, at_most: i64) -> KafkaResult<bool> {
        let (low, high) = self.consumer.fetch_watermarks(self.topic, partition, ANSWER_WITHIN)?;
        let least = low.max(high.saturating_sub(at_most));
        let (mut end, mut piece) = (high, FIRST_PIECE);
        while end > least {
            let start = least.max(end.saturating_sub(piece));
            if self.read_piece(partition, start, end)? {
                return Ok(true);
            }
            (end, piece) = (start, piece.saturating_mul(4));
        }
        Ok(least == low)
    }

    /// Reads what is visible in `[start, end)`; says whether a message from before the epochs asked for was there.
    fn read_piece(&mut self, partition: i32, start: i64, end: i64) -> KafkaResult<bool> {
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(self.topic, partition, Offset::Offset(start))?;
        self.consumer.assign(&assignment)?;
        let mut reached_older = false;
        self.heard_at = Instant::now();
        while self.heard_at.elapsed() < SILENT_AT_MOST {
            match self.consumer.poll(Duration::from_millis(200)) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(reached_older),
                Some(Err(error)) if is_passing(&error) => {}
                Some(Err(error)) => return Err(error),
                Some(Ok(message)) if message.offset() >= end => return Ok(reached_older),
                Some(Ok(message)) => {
                    self.read += 1;
                    self.heard_at = Instant::now();
                    if self.told_at.elapsed() >= TELL_EVERY {
                        self.told_at = self.heard_at;
                        let (topic, messages) = (self.topic, self.read);
                        tracing::info!(topic, partition, messages, "reading what the topic holds already");
                    }
                    // A message without our headers was sent by somebody else.
                    let Some((identity, version)) = message.headers().and_then(identity_and_version) else {
                        continue;
                    };
                    let epoch = epoch_of(version);
                    if epoch < self.from_epoch {
                        reached_older = true;
                    } else {
                        self.found.insert(identity, epoch);
                    }
                }
            }
        }
        Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))
    }
}

/// Errors that librdkafka reports while it goes on trying.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::Resolve)
    )
}

/// The last header of each name counts: the original record may have brought such headers itself.
fn identity_and_version(headers: &impl Headers) -> Option<(Vec<u8>, u64)> {
    let last = |name: &str| headers.iter().filter(|header| header.key == name).filter_map(|header| header.value).last();
    let version = std::str::from_utf8(last(VERSION_HEADER)?).ok()?.parse().ok()?;
    Some((last(IDENTITY_HEADER)?.to_vec(), version))
}
