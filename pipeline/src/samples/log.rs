//! Reading single records of the log, by place.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

/// Bytes that librdkafka fetches ahead for a reader of a few records.
const QUEUE_KIB: &str = "4096";

/// A record, copied out of the log.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) offset: i64,
    pub(super) time_ms: i64,
    pub(super) value: Option<Vec<u8>>,
}

/// A consumer that goes where it is sent; made when it is first needed.
#[derive(Default)]
pub(super) struct Log {
    config: ClientConfig,
    consumer: Option<BaseConsumer>,
    /// Where the consumer stands: what it gives next.
    at: Option<(String, i32, i64)>,
}

impl Log {
    pub(super) fn new(config: ClientConfig) -> Log {
        Log { config, consumer: None, at: None }
    }

    /// Up to `count` records from an offset on, fewer where the log ends; none when they could not be read by `until`.
    /// An offset that the log no longer holds gives no record.
    pub(super) fn read(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        count: usize,
        until: Instant,
    ) -> Option<Vec<Record>> {
        match self.try_read(topic, partition, offset, count, until) {
            Ok(read) => read,
            Err(error) => {
                tracing::debug!(topic, partition, offset, %error, "a sample could not be read");
                (self.consumer, self.at) = (None, None);
                None
            }
        }
    }

    fn try_read(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        count: usize,
        until: Instant,
    ) -> Result<Option<Vec<Record>>, KafkaError> {
        let consumer = match self.consumer.take() {
            Some(consumer) => consumer,
            None => self.config.clone().set("queued.max.messages.kbytes", QUEUE_KIB).create()?,
        };
        if self.at.take() != Some((topic.to_owned(), partition, offset)) {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
            consumer.assign(&list)?;
        }
        let mut records = Vec::new();
        while records.len() < count {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            match consumer.poll(left.min(Duration::from_millis(500))) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                // A broker that is away for a moment; librdkafka tries again by itself.
                Some(Err(KafkaError::MessageConsumption(code))) if is_passing(code) => {}
                Some(Err(error)) if records.is_empty() && is_gone(&error) => break,
                Some(Err(error)) => return Err(error),
                Some(Ok(message)) => records.push(Record {
                    offset: message.offset(),
                    time_ms: message.timestamp().to_millis().unwrap_or(-1),
                    value: message.payload().map(<[u8]>::to_vec),
                }),
            }
        }
        self.at = records.last().map(|last| (topic.to_owned(), partition, last.offset + 1));
        self.consumer = Some(consumer);
        Ok(Some(records))
    }
}

fn is_passing(code: rdkafka::types::RDKafkaErrorCode) -> bool {
    use rdkafka::types::RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut};
    matches!(code, AllBrokersDown | BrokerTransportFailure | OperationTimedOut)
}

fn is_gone(error: &KafkaError) -> bool {
    use rdkafka::types::RDKafkaErrorCode::{AutoOffsetReset, OffsetOutOfRange};
    matches!(error, KafkaError::MessageConsumption(AutoOffsetReset | OffsetOutOfRange))
}
