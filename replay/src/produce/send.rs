//! Sending to Kafka: an idempotent producer with a bounded queue, and an account of what was acknowledged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::ProduceError;
use super::faults::Encoded;

/// How long to wait for a place in the producer's queue before looking again.
const QUEUE_WAIT: Duration = Duration::from_millis(20);
/// How long the broker may take to answer a question.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Where to send, and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// `bootstrap.servers` and whatever else librdkafka needs to connect.
    pub kafka: BTreeMap<String, String>,
    /// The topic.
    pub topic: String,
    /// Make the topic with so many partitions when it isn't there.
    pub partitions: Option<i32>,
    /// Send the event time as the records' timestamp, rather than the time of sending.
    pub event_timestamps: bool,
}

/// Counts deliveries and keeps the first failure.
#[derive(Default)]
struct Deliveries {
    acknowledged: AtomicU64,
    failed: Mutex<Option<KafkaError>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.clone());
            }
        }
    }
}

/// The sending side.
pub(super) struct Sender {
    producer: BaseProducer<Deliveries>,
    topic: String,
    event_timestamps: bool,
}

fn config(target: &Target) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (name, value) in &target.kafka {
        config.set(name, value);
    }
    config
}

/// Makes the topic if it isn't there.
pub(super) async fn make_topic(target: &Target) -> Result<(), ProduceError> {
    let Some(partitions) = target.partitions else { return Ok(()) };
    let failed = |source| ProduceError::Kafka { topic: target.topic.clone(), source };
    let admin: AdminClient<_> = config(target).create().map_err(failed)?;
    let topic = NewTopic::new(&target.topic, partitions, TopicReplication::Fixed(-1));
    let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN)).operation_timeout(Some(ANSWER_WITHIN));
    for answer in admin.create_topics([&topic], &options).await.map_err(failed)? {
        match answer {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(failed(KafkaError::AdminOp(code))),
        }
    }
    Ok(())
}

impl Sender {
    pub(super) fn new(target: &Target) -> Result<Sender, ProduceError> {
        let mut config = config(target);
        for (name, value) in [
            ("enable.idempotence", "true"),
            ("partitioner", "murmur2_random"),
            ("linger.ms", "20"),
            ("compression.type", "lz4"),
            ("queue.buffering.max.messages", "200000"),
            ("queue.buffering.max.kbytes", "131072"),
        ] {
            if !target.kafka.contains_key(name) {
                config.set(name, value);
            }
        }
        let failed = |source| ProduceError::Kafka { topic: target.topic.clone(), source };
        let producer: BaseProducer<Deliveries> = config.create_with_context(Deliveries::default()).map_err(failed)?;
        let topics = producer.client().fetch_metadata(Some(&target.topic), ANSWER_WITHIN).map_err(failed)?;
        if let Some(code) = topics.topics().iter().find_map(rdkafka::metadata::MetadataTopic::error) {
            return Err(failed(KafkaError::MetadataFetch(code.into())));
        }
        Ok(Sender { producer, topic: target.topic.clone(), event_timestamps: target.event_timestamps })
    }

    /// Queues a record; waits while the queue is full.
    pub(super) fn send(&self, record: &Encoded) -> Result<(), ProduceError> {
        let mut message = BaseRecord::<[u8], [u8]>::to(&self.topic).payload(&record.payload);
        if let Some(key) = &record.key {
            message = message.key(key);
        }
        if let (true, Some(time_ms)) = (self.event_timestamps, record.time_ms) {
            message = message.timestamp(time_ms);
        }
        if let Some(release) = &record.release {
            let headers = [
                ("tenant", &release.tenant),
                ("sdk", &release.sdk),
                ("sdk_version", &release.sdk_version),
                ("app_version", &release.app_version),
            ];
            let add = |all: OwnedHeaders, (key, value): (&str, &String)| all.insert(Header { key, value: Some(value) });
            message = message.headers(headers.into_iter().fold(OwnedHeaders::new_with_capacity(4), add));
        }
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    message = back;
                    self.producer.poll(QUEUE_WAIT);
                    self.check()?;
                }
                Err((source, _)) => return Err(ProduceError::Kafka { topic: self.topic.clone(), source }),
            }
        }
    }

    /// Takes in what the broker has answered; the first failed delivery is an error.
    pub(super) fn poll(&self) -> Result<(), ProduceError> {
        self.producer.poll(Duration::ZERO);
        self.check()
    }

    fn check(&self) -> Result<(), ProduceError> {
        let failed = self.producer.context().failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        failed.map_or(Ok(()), |source| Err(ProduceError::Kafka { topic: self.topic.clone(), source }))
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.producer.context().acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until everything queued is acknowledged or has failed (`message.timeout.ms` bounds it).
    pub(super) fn finish(&self) -> Result<(), ProduceError> {
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(Duration::from_millis(100));
            self.check()?;
        }
        self.poll()
    }
}
