//! Fetching: batches of messages from librdkafka, one queue per partition.
//!
//! `rd_kafka_consume_batch_queue` brings thousands of messages for one call (a poll per message costs twice the
//! CPU), and a queue per partition lets the source decide whose turn it is: a partition that isn't asked waits, and
//! librdkafka stops fetching for it when its queue is full. That is the whole of pausing here.
//!
//! Invariants: every message of a partition comes by its own queue, or the partition goes back to it; partitions are
//! assigned by Weir, never by group rebalancing; offsets are never committed or stored from here; an offset that the log no
//! longer holds is an error, not a reset; messages stay in librdkafka's own memory (`message`).
//!
//! These calls stand in librdkafka's C interface only.

use std::cell::Cell;
use std::ffi::CString;
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::bindings as c;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::hearing::{Hearing, TOLD_EVERY_MS};
use super::kafka::unreachable_broker;
use super::log::{Assigned, Fetch, Fetched};
use super::message::Message;
use super::trouble::{Kind, Trouble};
use crate::error::Error;

/// Messages that one call may bring; librdkafka's queue is bounded in bytes besides.
const MESSAGES_PER_CALL: usize = 8_192;

/// How long librdkafka may take to go back to an offset; it asks nobody for it.
const SEEK_WITHIN: Duration = Duration::from_millis(500);

/// A consumer whose partitions each have a queue of their own.
pub struct Fetcher {
    queues: Vec<Queue>,
    // Dropped after the queues: they belong to it.
    consumer: BaseConsumer<Hearing>,
    config: ClientConfig,
    /// Partitions that came later, each with a client of its own: to assign anew would drop what waits in the queues, and
    /// topics seldom get partitions. A restart reads them as the others.
    joined: Vec<Fetcher>,
}

/// A partition's own queue.
struct Queue {
    raw: NonNull<c::rd_kafka_queue_t>,
    topic: String,
    partition: i32,
    /// Whether it is known that everything of the partition comes here.
    is_own: Cell<bool>,
    /// The first message that came by the consumer's common queue instead.
    stray_at: Cell<Option<i64>>,
}

impl Queue {
    /// Ends the forwarding to the consumer's common queue.
    fn keep_to_itself(&self) {
        // SAFETY: a null destination is how forwarding ends.
        unsafe { c::rd_kafka_queue_forward(self.raw.as_ptr(), std::ptr::null_mut()) };
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the handle came from rd_kafka_queue_get_partition and is destroyed once, before its consumer.
        unsafe { c::rd_kafka_queue_destroy(self.raw.as_ptr()) }
    }
}

/// The most that one fetch of a partition asks for, unless its queue is smaller: librdkafka's own default.
const FETCH_BYTES: u64 = 1 << 20;

/// The settings that reading as Weir does needs, on top of the cluster's; `queue_bytes` bounds what librdkafka holds
/// for one partition. A queue that has room may still be given one fetch more, so a fetch is bounded, too; a larger record
/// comes alone.
pub fn consumer_config(base: &ClientConfig, group: &str, queue_bytes: u64) -> ClientConfig {
    let mut config = base.clone();
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "100")
        // The default of a second starves a reader whose queue was full for a moment.
        .set("fetch.queue.backoff.ms", "20")
        .set("queued.min.messages", "1000000")
        .set("queued.max.messages.kbytes", (queue_bytes / 1024).clamp(64, 1 << 20).to_string())
        .set("fetch.message.max.bytes", queue_bytes.clamp(64 << 10, FETCH_BYTES).to_string());
    config
}

impl Fetcher {
    /// A consumer that reads `assigned`, in that order of indices.
    ///
    /// # Errors
    /// What librdkafka says of wrong settings or an unknown partition.
    pub fn new(config: &ClientConfig, assigned: &[Assigned]) -> Result<Fetcher, KafkaError> {
        let mut telling = config.clone();
        telling.set("statistics.interval.ms", TOLD_EVERY_MS.to_string());
        let consumer: BaseConsumer<Hearing> = telling.create_with_context(Hearing::default())?;
        let mut list = TopicPartitionList::with_capacity(assigned.len());
        for part in assigned {
            list.add_partition_offset(&part.topic, part.partition, Offset::Offset(part.offset))?;
        }
        let mut queues = Vec::with_capacity(assigned.len());
        for part in assigned {
            let topic = CString::new(part.topic.as_str())
                .map_err(|_| KafkaError::Subscription(format!("topic {:?} has a zero byte", part.topic)))?;
            // SAFETY: the client handle lives as long as the consumer; the returned queue is owned by `Queue`.
            let queue = unsafe {
                c::rd_kafka_queue_get_partition(consumer.client().native_ptr(), topic.as_ptr(), part.partition)
            };
            let queue = NonNull::new(queue)
                .ok_or_else(|| KafkaError::Subscription(format!("no queue for {}/{}", part.topic, part.partition)))?;
            let (topic, partition) = (part.topic.clone(), part.partition);
            queues.push(Queue { raw: queue, topic, partition, is_own: Cell::default(), stray_at: Cell::default() });
        }
        consumer.assign(&list)?;
        queues.iter().for_each(Queue::keep_to_itself);
        Ok(Fetcher { queues, consumer, config: config.clone(), joined: Vec::new() })
    }

    /// Takes what is ready in the queue of partition `index`, without waiting.
    pub fn fetch(&self, index: usize) -> Fetched {
        let Some(queue) = self.queues.get(index) else { return Fetched::default() };
        if !queue.is_own.get() && self.went_back(queue) {
            return Fetched::default();
        }
        let mut pointers: Vec<*mut c::rd_kafka_message_t> = Vec::with_capacity(MESSAGES_PER_CALL);
        // SAFETY: the buffer has room for the number of pointers that is given; as many are written as are returned.
        let count = unsafe {
            let count =
                c::rd_kafka_consume_batch_queue(queue.raw.as_ptr(), 0, pointers.as_mut_ptr(), MESSAGES_PER_CALL);
            let count = usize::try_from(count).unwrap_or(0);
            pointers.set_len(count);
            count
        };
        let mut messages = pointers.into_iter().filter_map(NonNull::new).map(Message::of_kafka);
        if count > 0 && !queue.is_own.get() {
            // What comes here from now on is all; what went astray before is in the common queue by now.
            self.serve();
            if queue.stray_at.get().is_some() {
                messages.for_each(drop);
                return Fetched::default();
            }
            queue.is_own.set(true);
        }
        let is_silent = self.consumer.context().is_silent(&queue.topic, queue.partition);
        let mut fetched = Fetched { messages: Vec::with_capacity(count), is_silent, ..Fetched::default() };
        for message in messages.by_ref() {
            match message.error() {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {
                    fetched.end_offset = None;
                    fetched.messages.push(message);
                }
                RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF => fetched.end_offset = Some(message.offset()),
                error => {
                    let text = message.value().map(String::from_utf8_lossy).unwrap_or_default();
                    let detail = format!("{}: {text}", KafkaError::MessageConsumption(error.into()));
                    let trouble = Trouble { kind: Kind::of(error.into()), detail };
                    // One that stops the pipeline isn't hidden by one that passes.
                    if fetched.trouble.as_ref().is_none_or(|known| known.kind == Kind::Passing) {
                        fetched.trouble = Some(trouble);
                    }
                }
            }
        }
        fetched
    }

    /// Goes back to the first message of a partition that went astray, if one did: librdkafka forwards a partition's queue to
    /// the consumer's common one when it begins to fetch, on a thread of its own, and a first message may come there before
    /// the forwarding is ended. Going back outdates whatever waits in either queue.
    fn went_back(&self, queue: &Queue) -> bool {
        let Some(offset) = queue.stray_at.get() else { return false };
        queue.keep_to_itself();
        match self.consumer.seek(&queue.topic, queue.partition, Offset::Offset(offset), SEEK_WITHIN) {
            Ok(()) => queue.stray_at.set(None),
            Err(error) => {
                tracing::warn!(topic = queue.topic, partition = queue.partition, %error, "can't go back yet");
            }
        }
        true
    }

    /// Notes a message that came by the consumer's common queue.
    fn note_stray(&self, topic: &str, partition: i32, offset: i64) {
        let is_of = |queue: &&Queue| queue.topic == topic && queue.partition == partition && !queue.is_own.get();
        if let Some(queue) = self.queues.iter().find(is_of) {
            let first = queue.stray_at.get().map_or(offset, |known| known.min(offset));
            queue.stray_at.set(Some(first));
        }
    }

    /// The end of partition `index`'s log as the last fetch told it, without asking the broker; `None` before the first.
    pub fn end_offset(&self, topic: &str, partition: i32) -> Option<i64> {
        let topic = CString::new(topic).ok()?;
        let (mut low, mut high) = (-1, -1);
        // SAFETY: reads cached numbers of a live client.
        let result = unsafe {
            c::rd_kafka_get_watermark_offsets(
                self.consumer.client().native_ptr(),
                topic.as_ptr(),
                partition,
                &mut low,
                &mut high,
            )
        };
        (result == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
    }

    /// Serves the client's events: log lines and errors of brokers, which librdkafka itself gets over. The newest
    /// error, if there was one.
    pub fn serve(&self) -> Option<String> {
        let mut newest = None;
        // A bound on the loop: a broker that is down reports again and again. What went astray is bounded by librdkafka.
        let mut reports = 0;
        while reports < 64 {
            match self.consumer.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => self.note_stray(message.topic(), message.partition(), message.offset()),
                Some(Err(error)) => {
                    reports += 1;
                    newest = Some(error.to_string());
                }
            }
        }
        newest
    }
}

impl Fetch for Fetcher {
    fn fetch(&mut self, index: usize) -> Fetched {
        match index.checked_sub(self.queues.len()).and_then(|at| self.joined.get(at)) {
            Some(joined) => joined.fetch(0),
            None => Fetcher::fetch(self, index),
        }
    }

    fn end_offset(&self, topic: &str, partition: i32) -> Option<i64> {
        let has = |of: &&Fetcher| of.queues.iter().any(|queue| queue.topic == topic && queue.partition == partition);
        Fetcher::end_offset(self.joined.iter().find(has).unwrap_or(self), topic, partition)
    }

    fn join(&mut self, assigned: &Assigned) -> Result<(), Error> {
        let joined = Fetcher::new(&self.config, std::slice::from_ref(assigned))
            .map_err(|error| unreachable_broker(self.config.get("bootstrap.servers").unwrap_or_default(), error))?;
        self.joined.push(joined);
        Ok(())
    }

    fn serve(&mut self) -> Option<String> {
        let own = Fetcher::serve(self);
        // Each of them is served, whichever error is told.
        self.joined.iter().fold(own, |newest, joined| Fetcher::serve(joined).or(newest))
    }
}
