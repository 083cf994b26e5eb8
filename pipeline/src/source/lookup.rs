//! Reading single records of a cluster's log, by place.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::log::LookUp;
use super::message::Record;

/// Bytes that librdkafka fetches ahead for a reader of a few records.
const QUEUE_KIB: &str = "4096";

/// A consumer that goes where it is sent; made when it is first needed.
pub(super) struct Seeker {
    config: ClientConfig,
    consumer: Option<BaseConsumer>,
    /// Where the consumer stands: what it gives next.
    at: Option<(String, i32, i64)>,
}

impl Seeker {
    pub(super) fn new(config: ClientConfig) -> Seeker {
        Seeker { config, consumer: None, at: None }
    }

    fn try_read(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        count: usize,
        until: Instant,
    ) -> Result<Option<Vec<Arc<Record>>>, KafkaError> {
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
                Some(Ok(message)) => records.push(Arc::new(Record {
                    offset: message.offset(),
                    timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
                    value: message.payload().map(Bytes::copy_from_slice),
                    ..Record::default()
                })),
            }
        }
        self.at = records.last().map(|last| (topic.to_owned(), partition, last.offset + 1));
        self.consumer = Some(consumer);
        Ok(Some(records))
    }
}

impl LookUp for Seeker {
    fn look_up(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        count: usize,
        until: Instant,
    ) -> Option<Vec<Arc<Record>>> {
        match self.try_read(topic, partition, offset, count, until) {
            Ok(read) => read,
            Err(error) => {
                tracing::debug!(topic, partition, offset, %error, "a sample could not be read");
                (self.consumer, self.at) = (None, None);
                None
            }
        }
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
