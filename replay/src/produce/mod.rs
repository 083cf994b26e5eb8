//! What stands behind `weir produce`: rows of a file or of a generator, as Avro in Kafka.
//!
//! ```text
//! rows (CSV, JSON lines, storefront) ─▶ encode (registered schema) ─▶ faults (held ≤ 256 MiB) ─▶ Kafka (queue ≤ 128 MiB)
//! ```
//! One thread does it all; librdkafka sends on threads of its own. The producer is idempotent, so that a broker that
//! goes away and comes back gets every record once. Nothing is skipped silently: a row that doesn't fit the schema ends
//! the run with its place.

pub mod convert;
pub mod faults;
pub mod files;
mod infer;
pub mod rows;
mod send;
pub mod storefront;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use weir_schemas::avro::{EncodeError, Encoder};
use weir_schemas::registry::{Failure, Registry};

use faults::{Encoded, FaultStage, Faults, Injected};
use rows::Rows;
use send::Sender;
pub use send::Target;

/// The reader's schema for the retail data set.
pub const RETAIL_SCHEMA: &str = include_str!("../../presets/retail.avsc");

/// Records between two looks at progress, pace and deliveries.
const STRIDE: u64 = 256;

/// What to send, where to, and how.
pub struct Job {
    /// The rows.
    pub rows: Box<dyn Rows + Send>,
    /// Kafka.
    pub target: Target,
    /// Where the schema is registered.
    pub registry: Registry,
    /// Under which name; absent, the topic's name and `-value`.
    pub subject: Option<String>,
    /// Records a second; absent, as fast as possible.
    pub rate: Option<f64>,
    /// No more rows than this.
    pub limit: Option<u64>,
    /// Faults to put in.
    pub faults: Faults,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Rows read or made.
    pub rows: u64,
    /// Records handed to Kafka, duplicates included.
    pub sent: u64,
    /// Records that Kafka has acknowledged.
    pub acknowledged: u64,
    /// Faults put in.
    pub injected: Injected,
    /// The share that is done, if it is known.
    pub share_done: Option<f64>,
    /// The newest event time, in milliseconds.
    pub newest_ms: Option<i64>,
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    /// The input can't be read.
    #[error("{path}: {source}")]
    Input {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A row isn't what the schema says.
    #[error("{path}, line {line}: {why}")]
    Row {
        /// The file.
        path: PathBuf,
        /// The line where the row begins, from 1.
        line: u64,
        /// The field and what is wrong with it.
        why: String,
    },
    /// The schema can't be used.
    #[error("the schema can't be used: {0}")]
    Schema(String),
    /// A value that the encoder doesn't take.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The registry doesn't take the schema.
    #[error("the schema could not be registered as {subject}: {source}")]
    Register {
        /// The subject.
        subject: String,
        /// Why.
        source: Failure,
    },
    /// Kafka doesn't take the records.
    #[error("topic {topic}: {source}")]
    Kafka {
        /// The topic.
        topic: String,
        /// Why.
        source: KafkaError,
    },
}

/// Sends all rows of `job`, telling `watch` some times a second how far it is. When `watch` answers false, no more rows
/// are taken and what is held is sent.
///
/// # Errors
/// [`ProduceError`]; what was sent before stays sent.
pub async fn produce(
    job: Job,
    watch: impl FnMut(&Progress) -> bool + Send + 'static,
) -> Result<Progress, ProduceError> {
    send::make_topic(&job.target).await?;
    let subject = job.subject.clone().unwrap_or_else(|| format!("{}-value", job.target.topic));
    let registered = job.registry.register(&subject, job.rows.schema()).await;
    let schema_id = registered.map_err(|source| ProduceError::Register { subject, source })?;
    let encoder = Encoder::new(schema_id, job.rows.schema(), &[])?;
    let topic = job.target.topic.clone();
    let run = tokio::task::spawn_blocking(move || Run::start(job, watch)?.run(&encoder));
    run.await.unwrap_or_else(|error| Err(ProduceError::Kafka { topic, source: KafkaError::Canceled }.because(&error)))
}

impl ProduceError {
    /// Logs what an error of our own thread was.
    fn because(self, error: &tokio::task::JoinError) -> ProduceError {
        tracing::error!(%error, "the producing thread failed");
        self
    }
}

struct Run<W> {
    rows: Box<dyn Rows + Send>,
    sender: Sender,
    stage: FaultStage,
    progress: Progress,
    rate: Option<f64>,
    limit: u64,
    started_at: Instant,
    told_at: Instant,
    watch: W,
}

impl<W: FnMut(&Progress) -> bool> Run<W> {
    fn start(job: Job, watch: W) -> Result<Run<W>, ProduceError> {
        let now = Instant::now();
        Ok(Run {
            sender: Sender::new(&job.target)?,
            rows: job.rows,
            stage: FaultStage::new(job.faults),
            progress: Progress::default(),
            rate: job.rate.filter(|rate| *rate > 0.0),
            limit: job.limit.unwrap_or(u64::MAX),
            started_at: now,
            told_at: now,
            watch,
        })
    }

    fn run(mut self, encoder: &Encoder) -> Result<Progress, ProduceError> {
        let writer = encoder.writer()?;
        let mut goes_on = true;
        while goes_on && self.progress.rows < self.limit {
            let Some(row) = self.rows.next_row()? else { break };
            self.progress.rows += 1;
            self.progress.newest_ms = self.progress.newest_ms.max(row.time_ms);
            let mut payload = Vec::with_capacity(192);
            writer.write(&row.value, &mut payload)?;
            self.stage
                .take(Encoded { payload, key: row.key, time_ms: row.time_ms, release: row.release }, row.is_spoiled);
            self.send_due(false)?;
            let stride = self.rate.map_or(STRIDE, |rate| STRIDE.min((rate / 50.0) as u64 + 1));
            if self.progress.rows.is_multiple_of(stride) {
                goes_on = self.look()?;
            }
        }
        self.send_due(true)?;
        self.sender.finish()?;
        self.count();
        (self.watch)(&self.progress);
        Ok(self.progress)
    }

    fn send_due(&mut self, is_end: bool) -> Result<(), ProduceError> {
        while let Some(record) = self.stage.next_due(is_end) {
            self.sender.send(&record)?;
            self.progress.sent += 1;
        }
        Ok(())
    }

    fn count(&mut self) {
        self.progress.acknowledged = self.sender.acknowledged();
        self.progress.injected = self.stage.injected();
        self.progress.share_done = self.rows.share_done();
    }

    /// Takes in acknowledgements, tells how far it is, and waits while ahead of the rate.
    #[allow(clippy::cast_precision_loss)]
    fn look(&mut self) -> Result<bool, ProduceError> {
        self.sender.poll()?;
        let mut goes_on = true;
        loop {
            if self.told_at.elapsed() > Duration::from_millis(100) {
                self.told_at = Instant::now();
                self.count();
                goes_on = (self.watch)(&self.progress);
            }
            let due =
                self.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(self.progress.rows as f64 / rate));
            let ahead = due.saturating_sub(self.started_at.elapsed());
            if ahead.is_zero() || !goes_on {
                return Ok(goes_on);
            }
            std::thread::sleep(ahead.min(Duration::from_millis(50)));
            self.sender.poll()?;
        }
    }
}
