//! Delivery to one topic, exactly once as `read_committed` consumers see it.
//!
//! Each delivery is one transaction. After `init_transactions` has fenced an older sender and settled its last
//! transaction, the committed tail of the topic tells what is there already, and that is left out. So a delivery whose
//! commit was not heard of, because the network, the broker or Weir went away in between, may simply be told again.
//!
//! Any error ends the session: the next delivery begins with a new producer, which settles what the old one left, and a
//! new look at the tail. There is no second way to recover.
//!
//! Invariants: one live sender per transactional id; a message leaves only inside a transaction; what is
//! left out is left out because its identity was seen committed.
//!
//! A topic may have a second one beside it, compacted, that holds the newest message of each key. It is written in the
//! same transactions, and what it has is told by the first one's tail: compaction removes earlier steps of an alert, so a
//! delivery told again could not be recognised by the compacted topic alone.
//!
//! Not here: tombstones in the compacted topic. The last message of a key stays, so that a consumer that was away for
//! however long learns that an alert has been resolved; a tombstone would be gone after `delete.retention.ms`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientContext, message::Message as _};
use weir_schemas::headers;

use super::classify::classify;
use super::message::{IDENTITY_HEADER, Message, VERSION_HEADER, messages};
use super::tail::{self, epoch_of};
use crate::error::DeliveryError;
use crate::sink::{BoxFuture, Deliver, Delivery};

/// How long each step of a transaction may take.
const STEP_WITHIN: Duration = Duration::from_secs(60);
/// How long a transaction may be open before the brokers give it up.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(45);
/// How long giving a transaction up may take, before the next session settles it anyway.
const ABORT_WITHIN: Duration = Duration::from_secs(10);
/// The largest message: room for a record of Kafka's default limit, 1 MiB, with headers, and for larger ones.
const LARGEST_MESSAGE_BYTES: &str = "16777216";
/// Messages at a topic's end that a new sender looks through at most, for what it needn't send: some 50 MB of identities.
/// Only a topic that was filled from another state has more of the epochs in question.
pub const TAIL_MESSAGES: usize = 500_000;
/// Identities that are remembered beyond those of the epochs that are being delivered.
const REMEMBERED: usize = 100_000;

/// Where and how to send.
#[derive(Clone, Debug)]
pub struct TopicSettings {
    /// Brokers, TLS and login; settings of producer and consumer are added to it.
    pub client: ClientConfig,
    /// The topic.
    pub topic: String,
    /// A compacted topic that gets the newest message of each key.
    pub current_topic: Option<String>,
    /// What makes two senders the same one: the pipeline's name and the destination's.
    pub transactional_id: String,
    /// Partitions of the topic, if Weir makes it.
    pub partitions: i32,
    /// The first topic's settings by Kafka's names, if Weir makes it.
    pub topic_settings: BTreeMap<String, String>,
    /// Messages at the topic's end that are looked through at most; [`TAIL_MESSAGES`] but in tests.
    pub tail_messages: usize,
    /// Called when the messages of a transaction are handed over and it isn't committed: a place for tests to crash at.
    pub within_transaction: fn(),
}

/// Sends messages that an [`AlertEncoder`](super::AlertEncoder) or a [`QuarantineEncoder`](super::QuarantineEncoder) encoded.
pub struct TopicSink {
    settings: Arc<TopicSettings>,
    session: Option<Session>,
}

impl TopicSink {
    /// A sink for one topic. Nothing is asked yet.
    pub fn new(settings: TopicSettings) -> TopicSink {
        TopicSink { settings: Arc::new(settings), session: None }
    }

    /// Makes the topics if they aren't there, and fences older senders. [`Deliver::deliver`] does so by itself; called at
    /// start it finds what can't work early.
    ///
    /// # Errors
    /// As of [`Deliver::deliver`].
    pub async fn prepare(&mut self) -> Result<(), DeliveryError> {
        if self.session.is_none() {
            create_topics(&self.settings).await?;
            let settings = Arc::clone(&self.settings);
            self.session = Some(blocking(move || Session::open(settings)).await?);
        }
        Ok(())
    }
}

impl Deliver for TopicSink {
    fn deliver<'a>(&'a mut self, delivery: Delivery<'a>) -> BoxFuture<'a, Result<(), DeliveryError>> {
        Box::pin(async move {
            let messages = messages(delivery.rows)?;
            if messages.is_empty() {
                return Ok(());
            }
            self.prepare().await?;
            // Should this future be dropped, the session goes with the closure, and the next one settles its transaction.
            let Some(mut session) = self.session.take() else {
                return Ok(());
            };
            self.session = Some(blocking(move || session.send(&messages).map(|()| session)).await?);
            Ok(())
        })
    }
}

/// librdkafka's transactional calls block, so they run on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DeliveryError> + Send + 'static,
) -> Result<T, DeliveryError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(DeliveryError::Retriable { why: format!("the sender's thread ended: {error}") }))
}

/// How a topic forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// Old messages go.
    Delete,
    /// The newest message of each key stays.
    Compact,
}

impl Cleanup {
    fn policy(self) -> &'static str {
        match self {
            Cleanup::Delete => "delete",
            Cleanup::Compact => "compact",
        }
    }
}

/// Makes a topic of one partition, unless a topic of this name is there: for those who read a topic that its writer hasn't
/// made yet.
///
/// # Errors
/// As of [`Deliver::deliver`].
pub async fn create_topic(client: &ClientConfig, topic: &str, cleanup: Cleanup) -> Result<(), DeliveryError> {
    create_all(client, topic, &[new_topic(topic, cleanup, 1)]).await
}

async fn create_topics(settings: &TopicSettings) -> Result<(), DeliveryError> {
    let mut topics = vec![new_topic(&settings.topic, Cleanup::Delete, settings.partitions)];
    for (name, value) in &settings.topic_settings {
        topics[0].config.retain(|(other, _)| other != name);
        topics[0].config.push((name, value));
    }
    let current = settings.current_topic.as_deref();
    topics.extend(current.map(|topic| new_topic(topic, Cleanup::Compact, settings.partitions)));
    create_all(&settings.client, &settings.topic, &topics).await
}

async fn create_all(client: &ClientConfig, asked: &str, topics: &[NewTopic<'_>]) -> Result<(), DeliveryError> {
    let failed = |topic: &str, error: KafkaError| classify(&error, topic, None);
    let admin: AdminClient<DefaultClientContext> = client.create().map_err(|error| failed(asked, error))?;
    let options = AdminOptions::new().request_timeout(Some(STEP_WITHIN)).operation_timeout(Some(STEP_WITHIN));
    for result in admin.create_topics(topics, &options).await.map_err(|error| failed(asked, error))? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(failed(&topic, KafkaError::AdminOp(code))),
        }
    }
    Ok(())
}

/// A topic that Weir makes. -1 replicas: as many as the cluster's default says.
fn new_topic(name: &str, cleanup: Cleanup, partitions: i32) -> NewTopic<'_> {
    NewTopic::new(name, partitions, TopicReplication::Fixed(-1))
        .set("cleanup.policy", cleanup.policy())
        .set("max.message.bytes", LARGEST_MESSAGE_BYTES)
}

/// What librdkafka reports on its own threads: the last error of the client, and the first message that failed.
#[derive(Default)]
struct Reports {
    said: Mutex<Option<String>>,
    failed: Mutex<Option<KafkaError>>,
}

impl Reports {
    fn take_said(&self) -> Option<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn take_failed(&self) -> Option<KafkaError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[derive(Clone)]
struct Context(Arc<Reports>);

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
        *self.0.said.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            tracing::debug!(%error, topic = message.topic(), "message was not delivered");
            let mut failed = self.0.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert_with(|| error.clone());
        }
    }
}

/// A producer that holds the transactional id, and what it knows to be in the topic.
struct Session {
    settings: Arc<TopicSettings>,
    producer: BaseProducer<Context>,
    reports: Arc<Reports>,
    /// Identities of committed messages with their epochs: all from `known_from` on.
    sent: HashMap<Vec<u8>, u64>,
    known_from: Option<u64>,
    /// When the open transaction was begun. Brokers give up one that is open for too long, by fencing its producer, which
    /// then looks as if another Weir had taken over.
    open_since: Option<Instant>,
}

impl Session {
    fn open(settings: Arc<TopicSettings>) -> Result<Session, DeliveryError> {
        let reports = Arc::new(Reports::default());
        let failed = |error: KafkaError| classify(&error, &settings.topic, reports.take_said());
        let producer: BaseProducer<Context> = settings
            .client
            .clone()
            .set("transactional.id", &settings.transactional_id)
            .set("enable.idempotence", "true")
            .set("message.max.bytes", LARGEST_MESSAGE_BYTES)
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string())
            .set("compression.type", "lz4")
            // As Java's clients place keys, so that topics can be joined.
            .set("partitioner", "murmur2_random")
            .create_with_context(Context(Arc::clone(&reports)))
            .map_err(failed)?;
        producer.init_transactions(STEP_WITHIN).map_err(failed)?;
        Ok(Session { producer, reports, settings, sent: HashMap::new(), known_from: None, open_since: None })
    }

    /// Sends those of `messages` that the topic does not hold, in one transaction.
    fn send(&mut self, messages: &[Message]) -> Result<(), DeliveryError> {
        self.try_send(messages).map_err(|error| {
            let error = self.classify(error);
            // The next session would settle it, too; consumers need not wait for that.
            if let Err(abort_error) = self.producer.abort_transaction(ABORT_WITHIN) {
                tracing::debug!(error = %abort_error, topic = self.settings.topic, "transaction was not aborted");
            }
            error
        })
    }

    /// What an error means. The call that failed may only say that messages were purged or that time was up: what ended
    /// the producer says more, and so does the first message that was refused.
    fn classify(&self, error: KafkaError) -> DeliveryError {
        let topic = &self.settings.topic;
        if self.open_since.is_some_and(|since| since.elapsed() >= TRANSACTION_TIMEOUT) {
            let why =
                format!("Kafka topic {topic}: the brokers gave up a transaction that was open for too long: {error}");
            return DeliveryError::Retriable { why };
        }
        let ended = self.producer.client().fatal_error().map(|(code, _)| KafkaError::Global(code));
        let said = self.reports.take_said();
        let all = [ended, Some(error), self.reports.take_failed()];
        let mut all = all.iter().flatten().map(|error| classify(error, topic, said.clone()));
        let first =
            all.next().unwrap_or(DeliveryError::Retriable { why: format!("Kafka topic {topic}: no reason given") });
        match first {
            DeliveryError::Fatal { .. } => first,
            DeliveryError::Retriable { .. } => {
                all.find(|other| matches!(other, DeliveryError::Fatal { .. })).unwrap_or(first)
            }
        }
    }

    fn try_send(&mut self, messages: &[Message]) -> KafkaResult<()> {
        let Some(first_epoch) = messages.iter().map(|message| epoch_of(message.version)).min() else {
            return Ok(());
        };
        self.know_from(first_epoch)?;
        let mut told = HashSet::new();
        let mut new: Vec<&Message> = Vec::new();
        for message in messages {
            if !self.sent.contains_key(&message.identity) && told.insert(&message.identity) {
                new.push(message);
            }
        }
        if !new.is_empty() {
            self.producer.begin_transaction()?;
            self.open_since = Some(Instant::now());
            for message in &new {
                self.produce(&self.settings.topic, message)?;
            }
            if let Some(current) = &self.settings.current_topic {
                for message in newest_of_keys(&new) {
                    self.produce(current, message)?;
                }
            }
            (self.settings.within_transaction)();
            self.producer.commit_transaction(STEP_WITHIN)?;
            self.open_since = None;
        }
        let committed = messages.iter().map(|message| (message.identity.clone(), epoch_of(message.version)));
        self.sent.extend(committed);
        Ok(())
    }

    /// Makes sure that all committed messages of `epoch` and later are known.
    fn know_from(&mut self, epoch: u64) -> KafkaResult<()> {
        if self.sent.len() > REMEMBERED {
            self.sent.retain(|_, sent_epoch| *sent_epoch >= epoch);
            self.known_from = self.known_from.max(Some(epoch));
        }
        if self.known_from.is_none_or(|known| epoch < known) {
            let group = format!("{}-tail", self.settings.transactional_id);
            let TopicSettings { client, topic, tail_messages, .. } = &*self.settings;
            let found = tail::read(client, &group, topic, epoch, *tail_messages)?;
            tracing::debug!(topic = self.settings.topic, epoch, messages = found.len(), "read the topic's tail");
            self.sent.extend(found);
            self.known_from = Some(epoch);
        }
        Ok(())
    }

    fn produce(&self, topic: &str, message: &Message) -> KafkaResult<()> {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).headers(kafka_headers(message));
        record.key = message.key.as_deref();
        record.payload = message.value.as_deref();
        let until = Instant::now() + STEP_WITHIN;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                // The local queue is bounded; delivery makes room.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned))
                    if Instant::now() < until =>
                {
                    record = returned;
                    self.producer.poll(Duration::from_millis(100));
                }
                Err((error, _)) => return Err(error),
            }
        }
    }
}

/// Of `messages`, which stand in their order, the last of each key, in the order of keys.
fn newest_of_keys<'a>(messages: &[&'a Message]) -> Vec<&'a Message> {
    let newest: BTreeMap<_, _> = messages.iter().map(|message| (message.key.as_deref(), *message)).collect();
    newest.into_values().collect()
}

fn kafka_headers(message: &Message) -> OwnedHeaders {
    let version = message.version.to_string();
    let mut all = OwnedHeaders::new();
    for (name, value) in headers::iter(&message.headers) {
        all = all.insert(Header { key: &String::from_utf8_lossy(name), value });
    }
    all.insert(Header { key: IDENTITY_HEADER, value: Some(&message.identity) })
        .insert(Header { key: VERSION_HEADER, value: Some(&version) })
}
