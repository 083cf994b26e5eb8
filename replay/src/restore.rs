//! Restoring: an archived topic's records back into a topic, as they were.
//!
//! Key, value, headers and timestamp of each record are those that were archived, byte for byte, in their partitions and in
//! their order. Offsets are the new topic's own.
//!
//! Everything is sent in transactions, and each one also says how far the archive is restored, as offsets of a consumer group that
//! is this restore's alone. So it may be killed at any moment and given again: what a `read_committed` reader sees is never
//! doubled, and one restore fences another of the same topic.
//!
//! Not sent, but told: a producer can't write a record without a timestamp, nor the timestamp 0, which the client takes for
//! none: such a record gets the time of sending.
//!
//! Kafka forgets a group's offsets a while after its last commit (`offsets.retention.minutes`, seven days by default): a restore
//! that was stopped is to be given again before, or to a new topic.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use tokio::runtime::Handle;
use weir_archive::{Archive, Catalog, Kept, Selection};
use weir_pipeline::config::Pipeline;
use weir_pipeline::connect;
use weir_pipeline::error::Error;
use weir_pipeline::source::kafka::unreachable_broker;
use weir_schemas::headers;
use weir_sinks::kafka::Quiet;

/// Bytes and records of one transaction.
const TRANSACTION_BYTES: u64 = 8 << 20;
const TRANSACTION_RECORDS: u64 = 20_000;

/// How long the cluster may take for one step.
const STEP_WITHIN: Duration = Duration::from_secs(60);

/// The largest record: room for any that a broker has taken.
const LARGEST_BYTES: &str = "67108864";

/// What is restored, and where to.
pub struct Restore<'a> {
    /// The pipeline whose archive it is; its cluster is written to.
    pub pipeline: &'a Pipeline,
    /// The archive.
    pub archive: &'a Archive,
    /// What is in it.
    pub catalog: &'a Catalog,
    /// The topic that was archived.
    pub topic: &'a str,
    /// The topic to write to; made if it isn't there.
    pub to: &'a str,
    /// Write to a topic that holds other records already.
    pub append: bool,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Records that were sent.
    pub records: u64,
    /// Records that an earlier run had sent.
    pub before: u64,
    /// Records among those sent whose timestamp is none, or 0.
    pub without_time: u64,
}

/// Keeps the first failure.
#[derive(Default)]
struct Fates(Mutex<Option<KafkaError>>);

impl ClientContext for Fates {}

impl ProducerContext for Fates {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.clone());
        }
    }
}

impl Restore<'_> {
    /// How many records there are to restore.
    pub fn records(&self) -> u64 {
        self.catalog.entries.values().filter(|entry| entry.topic == self.topic).map(|entry| entry.records).sum()
    }

    /// Restores what isn't yet. `told` hears of every transaction: how many records are restored in all.
    ///
    /// # Errors
    /// When the topic isn't fit, an object of the archive is damaged, or the cluster says no. Given again, it goes on.
    pub fn run(&self, handle: &Handle, mut told: impl FnMut(u64)) -> Result<Restored, Error> {
        let logs = self.catalog.topics.get(self.topic).ok_or_else(|| {
            let known = self.catalog.topics.keys().cloned().collect::<Vec<_>>().join(", ");
            self.refused(format!("the archive has no topic {}", self.topic), format!("name one of {known}"))
        })?;
        let partitions: Vec<i32> = logs.keys().copied().collect();
        let needed = partitions.last().map_or(1, |last| last + 1);
        self.prepare(handle, needed)?;
        let group = format!("weir-restore-{}-{}-{}", self.pipeline.name, self.topic, self.to);
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", &group)
            .set("isolation.level", "read_committed")
            .create()
            .map_err(|error| self.unreachable(error))?;
        let producer = self.producer(&group)?;
        // Fences an older run and settles its last transaction, before it is asked how far that was.
        producer.init_transactions(STEP_WITHIN).map_err(|error| self.unreachable(error))?;
        let done = self.done(&consumer, &partitions)?;
        if !self.append && done.iter().all(Option::is_none) {
            self.hold_to_be_empty(&consumer, needed)?;
        }
        let metadata = consumer
            .group_metadata()
            .ok_or_else(|| self.refused("the client has no consumer group".to_owned(), "this is a bug".to_owned()))?;
        let mut sending =
            Sending { of: self, producer, metadata, restored: Restored::default(), open: Open::default() };
        for (partition, done) in partitions.iter().zip(done) {
            let first = done.unwrap_or(i64::MIN);
            let entries = self.catalog.of_partition(self.topic, *partition);
            let all: u64 = entries.iter().map(|entry| entry.records).sum();
            let mut order =
                self.archive.in_order(self.catalog, self.topic, *partition, Selection { first, ..Selection::ALL });
            let sent_before = sending.restored.records;
            loop {
                // A store may take longer for an object than a transaction may be open.
                if order.opens_next() {
                    sending.commit()?;
                    told(sending.restored.before + sending.restored.records);
                }
                let Some(record) = order.next_record()? else { break };
                sending.add(*partition, &record)?;
                if sending.open.bytes >= TRANSACTION_BYTES || sending.open.records >= TRANSACTION_RECORDS {
                    sending.commit()?;
                    told(sending.restored.before + sending.restored.records);
                }
            }
            sending.commit()?;
            sending.restored.before += all.saturating_sub(sending.restored.records - sent_before);
            told(sending.restored.before + sending.restored.records);
        }
        Ok(sending.restored)
    }

    fn client(&self) -> ClientConfig {
        connect::kafka(self.pipeline)
    }

    fn unreachable(&self, error: impl ToString) -> Error {
        unreachable_broker(&self.pipeline.kafka.brokers, error)
    }

    fn refused(&self, detail: String, remedy: String) -> Error {
        Error::Log { place: self.to.to_owned(), detail, remedy }
    }

    fn producer(&self, id: &str) -> Result<BaseProducer<Fates>, Error> {
        self.client()
            .set("transactional.id", id)
            .set("enable.idempotence", "true")
            .set("message.max.bytes", LARGEST_BYTES)
            .set("compression.type", "zstd")
            .set("linger.ms", "20")
            .set("queue.buffering.max.messages", "200000")
            .set("transaction.timeout.ms", STEP_WITHIN.as_millis().to_string())
            .create_with_context(Fates::default())
            .map_err(|error| self.unreachable(error))
    }

    /// Makes the topic if it isn't there, and looks whether it takes records as they were.
    fn prepare(&self, handle: &Handle, needed: i32) -> Result<(), Error> {
        let failed = |error: KafkaError| self.unreachable(error);
        let admin: AdminClient<DefaultClientContext> = self.client().create().map_err(failed)?;
        let options = AdminOptions::new().request_timeout(Some(STEP_WITHIN)).operation_timeout(Some(STEP_WITHIN));
        let topic = NewTopic::new(self.to, needed, TopicReplication::Fixed(-1))
            .set("message.timestamp.type", "CreateTime")
            .set("cleanup.policy", "delete")
            // What is old already would be gone at once.
            .set("retention.ms", "-1")
            .set("max.message.bytes", LARGEST_BYTES);
        for answer in handle.block_on(admin.create_topics([&topic], &options)).map_err(failed)? {
            match answer {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(failed(KafkaError::AdminOp(code))),
            }
        }
        let asked = [ResourceSpecifier::Topic(self.to)];
        let answers = handle.block_on(admin.describe_configs(&asked, &options)).map_err(failed)?;
        for answer in answers {
            let config = answer.map_err(|code| failed(KafkaError::AdminOp(code)))?;
            self.hold_to_settings(&config)?;
        }
        Ok(())
    }

    fn hold_to_settings(&self, config: &ConfigResource) -> Result<(), Error> {
        let value = |name: &str| config.get(name).and_then(|entry| entry.value.clone()).unwrap_or_default();
        let set = |name: &str, value: &str| format!("set {name}={value} on the topic, or restore to another one");
        if value("message.timestamp.type") == "LogAppendTime" {
            let detail = "the broker would give the records new timestamps".to_owned();
            return Err(self.refused(detail, set("message.timestamp.type", "CreateTime")));
        }
        if value("cleanup.policy").contains("compact") {
            let detail = "the topic is compacted, and would keep only some of the records".to_owned();
            return Err(self.refused(detail, set("cleanup.policy", "delete")));
        }
        let oldest = self.catalog.entries.values().filter(|entry| entry.topic == self.topic);
        let oldest = oldest.filter_map(|entry| entry.least_timestamp_ms).min();
        let retention_ms: i64 = value("retention.ms").parse().unwrap_or(-1);
        let now_ms = weir_pipeline::clock::Clock::default().now_ms();
        match oldest {
            Some(oldest) if retention_ms >= 0 && oldest < now_ms.saturating_sub(retention_ms) => {
                let detail = "the oldest records are older than the topic keeps them, and would be gone at once";
                Err(self.refused(detail.to_owned(), set("retention.ms", "-1")))
            }
            _ => Ok(()),
        }
    }

    /// Up to which archived offset each partition is restored.
    fn done(&self, consumer: &BaseConsumer, partitions: &[i32]) -> Result<Vec<Option<i64>>, Error> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(self.to, *partition);
        }
        let committed = consumer.committed_offsets(list, STEP_WITHIN).map_err(|error| self.unreachable(error))?;
        let of = |partition: &i32| match committed.find_partition(self.to, *partition).map(|found| found.offset()) {
            Some(Offset::Offset(offset)) => Some(offset),
            _ => None,
        };
        Ok(partitions.iter().map(of).collect())
    }

    /// Whether somebody can read a record of a partition, from its first offset on.
    fn holds_a_record(&self, partition: i32, low: i64) -> Result<bool, Error> {
        let consumer: BaseConsumer<Quiet> = self
            .client()
            .set("group.id", "weir-restore-looks")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .create_with_context(Quiet)
            .map_err(|error| self.unreachable(error))?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(self.to, partition, Offset::Offset(low)).map_err(|error| self.unreachable(error))?;
        consumer.assign(&list).map_err(|error| self.unreachable(error))?;
        match consumer.poll(STEP_WITHIN) {
            Some(Ok(_)) => Ok(true),
            Some(Err(KafkaError::PartitionEOF(_))) => Ok(false),
            Some(Err(error)) => Err(self.unreachable(error)),
            None => Err(self.unreachable(format!("no answer within {} s", STEP_WITHIN.as_secs()))),
        }
    }

    fn hold_to_be_empty(&self, consumer: &BaseConsumer, partitions: i32) -> Result<(), Error> {
        for partition in 0..partitions {
            let (low, high) =
                consumer.fetch_watermarks(self.to, partition, STEP_WITHIN).map_err(|error| match error {
                    KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownPartition) => self.refused(
                        format!("the topic has no partition {partition}, and {partitions} are needed"),
                        "add partitions, or restore to another topic".to_owned(),
                    ),
                    other => self.unreachable(other),
                })?;
            // What a killed run's transaction left behind are offsets without a record.
            if high > low && self.holds_a_record(partition, low)? {
                return Err(self.refused(
                    format!("the topic isn't empty: partition {partition} holds {} offsets", high - low),
                    "restore to another topic, or give --append to write behind what is there".to_owned(),
                ));
            }
        }
        Ok(())
    }
}

/// What the open transaction holds.
#[derive(Default)]
struct Open {
    is_begun: bool,
    partition: i32,
    /// The offset after the last archived one in it.
    next: i64,
    bytes: u64,
    records: u64,
}

struct Sending<'a> {
    of: &'a Restore<'a>,
    producer: BaseProducer<Fates>,
    metadata: ConsumerGroupMetadata,
    restored: Restored,
    open: Open,
}

impl Sending<'_> {
    fn add(&mut self, partition: i32, record: &Kept) -> Result<(), Error> {
        let failed = |error: KafkaError| self.of.unreachable(error);
        if !self.open.is_begun {
            self.producer.begin_transaction().map_err(failed)?;
            self.open = Open { is_begun: true, partition, ..Open::default() };
        }
        let place = || format!("{}/{}@{}", self.of.topic, record.partition, record.offset);
        let headers = kafka_headers(&record.headers).ok_or_else(|| {
            let detail = format!("a header of {} has a name that isn't UTF-8, which can't be sent", place());
            self.of.refused(detail, "leave the record out by hand; nothing behind it is restored".to_owned())
        })?;
        let mut sent = BaseRecord::<[u8], [u8]>::to(self.of.to).partition(partition).headers(headers);
        sent.key = record.key.as_deref();
        sent.payload = record.value.as_deref();
        sent.timestamp = record.timestamp_ms;
        let until = Instant::now() + STEP_WITHIN;
        loop {
            match self.producer.send(sent) {
                Ok(()) => break,
                // The local queue is bounded; delivery makes room.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned))
                    if Instant::now() < until =>
                {
                    sent = returned;
                    self.producer.poll(Duration::from_millis(50));
                }
                Err((error, _)) => return Err(failed(error)),
            }
        }
        self.open.next = record.offset + 1;
        self.open.bytes += record.borrowed().bytes();
        self.open.records += 1;
        self.restored.without_time += u64::from(record.timestamp_ms.is_none_or(|at| at == 0));
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Error> {
        if !self.open.is_begun {
            return Ok(());
        }
        let mut offsets = TopicPartitionList::new();
        let committed = offsets
            .add_partition_offset(self.of.to, self.open.partition, Offset::Offset(self.open.next))
            .and_then(|()| self.producer.send_offsets_to_transaction(&offsets, &self.metadata, STEP_WITHIN))
            .and_then(|()| self.producer.commit_transaction(STEP_WITHIN));
        if let Err(error) = committed {
            let first = self.producer.context().0.lock().unwrap_or_else(PoisonError::into_inner).take();
            return Err(self.of.unreachable(first.unwrap_or(error)));
        }
        self.restored.records += self.open.records;
        self.open = Open::default();
        Ok(())
    }
}

/// Headers as the client takes them; `None` where a name isn't UTF-8.
fn kafka_headers(bytes: &[u8]) -> Option<OwnedHeaders> {
    let mut all = OwnedHeaders::new();
    for (name, value) in headers::iter(bytes) {
        all = all.insert(Header { key: std::str::from_utf8(name).ok()?, value });
    }
    Some(all)
}
