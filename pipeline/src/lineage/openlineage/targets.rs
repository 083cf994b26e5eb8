//! Who is told: an OpenLineage receiver by HTTP, a topic, a file. Each takes one event at a time, on its own thread.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use rdkafka::{ClientConfig, ClientContext};
use tokio::runtime::Runtime;
use weir_sinks::kafka::{Cleanup, create_topic};
use weir_sinks::notify::{Endpoint, NotTaken};

use super::events::Event;
use crate::config::Pipeline;
use crate::connect;
use crate::error::Error;

/// How long a receiver may take for one event.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How often it is looked whether a message has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Takes events, waiting a bounded time for each.
pub(super) trait Take: Send {
    /// Takes one.
    ///
    /// # Errors
    /// Why it isn't taken, and whether it ever will be.
    fn take(&mut self, event: &Event) -> Result<(), NotTaken>;
}

/// A target: what it is called in logs and metrics, and what takes events for it.
pub struct Target {
    pub(super) name: &'static str,
    pub(super) take: Box<dyn Take>,
}

/// The targets that a pipeline file names. Nothing is asked yet.
///
/// # Errors
/// When the address or the token can't be right, or the system has no threads.
pub fn targets_of(pipeline: &Pipeline) -> Result<Vec<Target>, Error> {
    let config = &pipeline.lineage;
    let mut targets = Vec::new();
    if let Some(url) = &config.url {
        let endpoint = Endpoint::new("lineage", &whole_address(url), config.token.as_deref(), ANSWER_WITHIN)?;
        targets.push(Target { name: "http", take: Box::new(Http { endpoint, runtime: runtime()? }) });
    }
    if let Some(topic) = &config.topic {
        let (topic, config) = (topic.clone(), connect::kafka(pipeline));
        let take = Topic { topic, config, producer: None, fate: Fate::default(), runtime: runtime()? };
        targets.push(Target { name: "topic", take: Box::new(take) });
    }
    if let Some(path) = &config.file {
        targets.push(Target { name: "file", take: Box::new(File { path: path.clone() }) });
    }
    Ok(targets)
}

fn runtime() -> Result<Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Worker { detail: format!("a thread for lineage: {error}") })
}

fn whole_address(url: &str) -> String {
    const PATH: &str = "/api/v1/lineage";
    let url = url.trim_end_matches('/');
    if url.ends_with(PATH) { url.to_owned() } else { format!("{url}{PATH}") }
}

struct Http {
    endpoint: Endpoint,
    runtime: Runtime,
}

impl Take for Http {
    fn take(&mut self, event: &Event) -> Result<(), NotTaken> {
        self.runtime.block_on(self.endpoint.post(event.json.clone().into_bytes(), None))
    }
}

struct Topic {
    topic: String,
    config: ClientConfig,
    producer: Option<BaseProducer<Fate>>,
    fate: Fate,
    runtime: Runtime,
}

/// What became of the message that was sent last.
#[derive(Clone, Default)]
struct Fate(Arc<Mutex<Option<Result<(), KafkaError>>>>);

impl Fate {
    fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Serves `producer` until the fate is known, for a bounded time. A flush would look every 100 ms only.
    fn wait(&self, producer: &BaseProducer<Fate>) -> Option<Result<(), KafkaError>> {
        let until = Instant::now() + ANSWER_WITHIN;
        loop {
            producer.poll(LOOK_EVERY);
            let fate = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
            if fate.is_some() || Instant::now() >= until {
                return fate;
            }
        }
    }
}

impl ClientContext for Fate {}

impl ProducerContext for Fate {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let result = result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    }
}

impl Topic {
    fn open(&mut self) -> Result<BaseProducer<Fate>, NotTaken> {
        let made = tokio_timeout(&self.runtime, create_topic(&self.config, &self.topic, Cleanup::Delete));
        made.ok_or_else(|| not_yet("the brokers don't answer"))?.map_err(|error| not_yet(error.to_string()))?;
        let mut config = self.config.clone();
        // As Java's clients place keys; one job's events stay in their order.
        config.set("acks", "all").set("enable.idempotence", "true").set("partitioner", "murmur2_random");
        config
            .set("message.timeout.ms", ANSWER_WITHIN.as_millis().to_string())
            .set("queue.buffering.max.messages", "100")
            .set("linger.ms", "0");
        config.create_with_context(self.fate.clone()).map_err(|error| not_yet(error.to_string()))
    }
}

impl Take for Topic {
    fn take(&mut self, event: &Event) -> Result<(), NotTaken> {
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => self.open()?,
        };
        self.fate.forget();
        let record = BaseRecord::to(&self.topic).key(&event.job).payload(&event.json);
        let fate = match producer.send(record) {
            Ok(()) => self.fate.wait(&producer),
            Err((error, _)) => Some(Err(error)),
        };
        let why = match fate {
            Some(Ok(())) => {
                self.producer = Some(producer);
                return Ok(());
            }
            Some(Err(error)) => error.to_string(),
            None => "the brokers say nothing".to_owned(),
        };
        // What is still under way is given up with this producer: it may arrive, and is sent again.
        producer.purge(PurgeConfig::default().queue().inflight());
        Err(not_yet(why))
    }
}

fn tokio_timeout<T>(runtime: &Runtime, asked: impl Future<Output = T>) -> Option<T> {
    runtime.block_on(async { tokio::time::timeout(ANSWER_WITHIN, asked).await.ok() })
}

fn not_yet(why: impl Into<String>) -> NotTaken {
    NotTaken::NotYet { why: why.into(), wait_ms: None }
}

struct File {
    path: PathBuf,
}

impl Take for File {
    /// Opened anew each time: events are few, and somebody may have moved the file away.
    fn take(&mut self, event: &Event) -> Result<(), NotTaken> {
        let written = std::fs::OpenOptions::new().create(true).append(true).open(&self.path);
        let written = written.and_then(|mut file| file.write_all(format!("{}\n", event.json).as_bytes()));
        written.map_err(|error| not_yet(format!("{}: {error}", self.path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_completed_once() {
        for url in ["http://host:5000", "http://host:5000/", "http://host:5000/api/v1/lineage"] {
            assert_eq!(whole_address(url), "http://host:5000/api/v1/lineage");
        }
    }
}
