//! Archiving: raw records follow the pipeline's commits into an object store.
//!
//! ```text
//! Kafka ─▶ follow (a consumer of its own) ─▶ pending (files by partition and hour) ─▶ objects ─▶ commit of the manifest
//!             up to the committed positions      at most `roll_bytes`, about
//! ```
//! One thread beside the workers. It reads what the engine has committed and no further, so that what is archived is what
//! was processed, and every commit of the archive ends, for each partition, at or before a commit of the engine. Where it goes on
//! is what the archive's manifest says, never a second note that could differ.
//!
//! Invariants: nothing of the pipeline waits for it, but for the end of a run; a store that is away makes the archive lag,
//! which `/status` and metrics tell; what the log forgot before it was archived is a gap in the manifest, told as a
//! warning; records are archived once their schemas are.
//!
//! The first record of a partition that is archived is the first that the log has, also where the pipeline began later.
//!
//! Not here: files, manifest, merging (`weir-archive`), and reading it back (`weir-replay`).

mod follow;
pub mod keep;
mod thread;

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use tokio::runtime::Handle;
use weir_archive::{Archive, Settings};
use weir_schemas::registry::Registry;

use crate::clock::Clock;
use crate::commit::Positions;
use crate::config::{self, Pipeline};
use crate::connect;
use crate::error::Error;
use crate::source::kafka::KafkaLog;
use crate::source::log::Log;
use crate::status::ArchiveStatus;
pub use thread::retention_ms;

/// How long the end of a run waits for a store that is away.
const AWAY_FOR: Duration = Duration::from_secs(60);

/// How long a stop waits for a store that is away: what isn't archived is at the next start.
const STOP_AWAY_FOR: Duration = Duration::from_secs(5);

/// How long a call that is under way is waited for when it is time to leave. The process then ends without its answer, as if
/// it were killed.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// How often the end of a run looks whether the archive has followed.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What an archiver works with.
pub struct Archiving {
    /// The archive.
    pub archive: Archive,
    /// What the pipeline file says of it.
    pub config: config::archive::Archive,
    /// The topics that are archived.
    pub topics: Vec<String>,
    /// The log that they are read from.
    pub log: Arc<dyn Log>,
    /// The brokers, for messages.
    pub brokers: String,
    /// The cluster's settings for a client.
    pub kafka: ClientConfig,
    /// Where schemas come from.
    pub registry: Registry,
    /// Where the registry is asked.
    pub handle: Handle,
}

/// The archive of a pipeline's file, if it has one, to be read: where it is a folder, that must be there.
///
/// # Errors
/// When its address or an option can't be right.
pub fn archive_of(pipeline: &Pipeline) -> Result<Option<Archive>, Error> {
    archive(pipeline, false)
}

fn archive(pipeline: &Pipeline, makes_folder: bool) -> Result<Option<Archive>, Error> {
    let Some(config) = &pipeline.archive else { return Ok(None) };
    let (url, options, pipeline) = (config.url.clone(), config.options.clone(), pipeline.name.clone());
    Archive::open(&Settings { url, options, pipeline, makes_folder }).map(Some).map_err(Error::from)
}

impl Archiving {
    /// What the archive of `pipeline` needs; `None` where it has none.
    ///
    /// # Errors
    /// As of [`archive_of`].
    pub fn of(pipeline: &Pipeline, registry: &Registry, handle: &Handle) -> Result<Option<Archiving>, Error> {
        let (Some(config), Some(archive)) = (pipeline.archive.clone(), archive(pipeline, true)?) else {
            return Ok(None);
        };
        Ok(Some(Archiving {
            archive,
            config,
            topics: pipeline.sources.values().flat_map(config::Source::all_topics).collect(),
            log: Arc::new(KafkaLog::new(pipeline)),
            brokers: pipeline.kafka.brokers.clone(),
            kafka: connect::kafka(pipeline),
            registry: registry.clone(),
            handle: handle.clone(),
        }))
    }
}

/// What is wanted of the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// To follow.
    Follow = 0,
    /// To follow to where the engine has ended, and end.
    Finish = 1,
    /// To end now.
    Leave = 2,
}

/// What the thread and others share.
struct Shared {
    wish: AtomicU8,
    status: Mutex<ArchiveStatus>,
}

impl Shared {
    fn wish(&self) -> Wish {
        match self.wish.load(Ordering::Acquire) {
            0 => Wish::Follow,
            1 => Wish::Finish,
            _ => Wish::Leave,
        }
    }

    fn wants(&self, wish: Wish) {
        self.wish.fetch_max(wish as u8, Ordering::AcqRel);
    }

    fn status<T>(&self, with: impl FnOnce(&mut ArchiveStatus) -> T) -> T {
        with(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A thread that archives.
pub struct Archiver {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// Tells how the archive is.
#[derive(Clone)]
pub struct ArchiveReporter(Arc<Shared>);

impl ArchiveReporter {
    /// How the archive is.
    pub fn status(&self) -> ArchiveStatus {
        self.0.status(|status| status.clone())
    }
}

impl Archiver {
    /// Starts the thread, which follows `positions`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(archiving: Archiving, positions: Positions, clock: Clock) -> Result<Archiver, Error> {
        let status = ArchiveStatus { url: archiving.archive.store().url().to_owned(), ..ArchiveStatus::default() };
        let shared = Arc::new(Shared { wish: AtomicU8::new(Wish::Follow as u8), status: Mutex::new(status) });
        let thread = thread::Thread::new(archiving, positions, shared.clone(), clock);
        let thread = std::thread::Builder::new()
            .name("archive".to_owned())
            .spawn(move || thread.run())
            .map_err(|error| Error::Worker { detail: format!("the archive's thread: {error}") })?;
        Ok(Archiver { shared, thread })
    }

    /// What tells how it is.
    pub fn reporter(&self) -> ArchiveReporter {
        ArchiveReporter(self.shared.clone())
    }

    /// Says that the engine commits nothing more.
    pub fn finish(&self) {
        self.shared.wants(Wish::Finish);
    }

    /// Waits until everything committed is archived, for `within` at most; where that is absent, for as long as it gets on.
    /// What isn't archived by then is at the next start. Left without waiting after a failure, as `is_failed` says.
    /// `is_stopped` tells whether somebody wants the process to end; then it waits as for a stop.
    pub fn see_off(self, mut within: Option<Duration>, is_failed: bool, is_stopped: impl Fn() -> bool) {
        self.shared.wants(if is_failed { Wish::Leave } else { Wish::Finish });
        let began = Instant::now();
        let mut well_at = Instant::now();
        let mut leaves_at = is_failed.then(Instant::now);
        while !self.thread.is_finished() {
            if self.shared.status(|status| status.failing.is_none()) {
                well_at = Instant::now();
            }
            if within.is_none() && is_stopped() {
                within = Some(began.elapsed() + STOP_AWAY_FOR);
            }
            let away_for = if within.is_some() { STOP_AWAY_FOR } else { AWAY_FOR };
            let is_over = within.is_some_and(|within| began.elapsed() >= within) || well_at.elapsed() >= away_for;
            if is_over && leaves_at.is_none() {
                self.shared.wants(Wish::Leave);
                leaves_at = Some(Instant::now());
            }
            if leaves_at.is_some_and(|at| at.elapsed() >= LEAVE_WITHIN) {
                break;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let (lag, failing) = self.shared.status(|status| (status.lag_records, status.failing.clone()));
        if lag > 0 {
            let why = failing.map(|failing| failing.error).unwrap_or_default();
            tracing::warn!(offsets = lag, why, "committed records wait for the archive, which the next start does");
        }
    }
}

impl Drop for Archiver {
    /// A start that fails behind this one leaves no thread that goes on by itself.
    fn drop(&mut self) {
        self.shared.wants(Wish::Leave);
    }
}
