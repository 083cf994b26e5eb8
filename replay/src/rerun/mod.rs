//! Reruns: a stretch of history through today's or tomorrow's pipeline, beside the live one.
//!
//! ```text
//! range (event times) ─▶ survey (stretches of the log) ─▶ record (a folder) ─▶ isolate (a pipeline of its own) ─▶ run
//! ```
//! A replay is the live pipeline's own code over a [`Slice`](weir_pipeline::slice::Slice) of the log, with a state folder, a
//! database, a ledger and a consumer group of its own, and no topic to write to.
//!
//! Invariants: nothing of the live pipeline is written, its state isn't opened; a replay ends by itself; killed at any
//! moment, it goes on from its last commit when it is given again, with the rules, views and settings that it began with or
//! not at all.
//!
//! Not here: what differs from the live rows (`diff`), and putting rows in their place (`swap`).

pub mod archived;
pub mod cost;
pub mod inputs;
mod isolate;
pub mod part;
pub mod plan;
pub mod precedents;
pub mod range;
pub mod record;
pub mod survey;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use weir_pipeline::config::Pipeline;
use weir_pipeline::connect;
use weir_pipeline::custom::OperatorRegistry;
use weir_pipeline::engine::{Reporter, Running};
use weir_pipeline::error::Error;
use weir_pipeline::run::run;
use weir_pipeline::source::pace::Pace;
use weir_pipeline::source::precedent::Precedents;

pub use isolate::isolated;
use record::{Record, Status, Store};

/// How often a run looks whether somebody wants it to end.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a replay works with while it runs.
pub struct Rerun<'a> {
    /// The pipeline file that it runs, for messages.
    pub file: &'a Path,
    /// What is in it.
    pub pipeline: &'a Pipeline,
    /// A team's own operators.
    pub operators: &'a OperatorRegistry,
    /// Where its record is.
    pub store: &'a Store,
    /// How fast it reads.
    pub pace: Arc<Pace>,
    /// Whether that is anything but as fast as it can.
    pub is_paced: bool,
    /// Set by whoever wants it to stop.
    pub stop: Arc<AtomicBool>,
    /// Where schemas are asked for.
    pub handle: Handle,
}

/// How a replay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All of it is read, and every row is there.
    Complete,
    /// It was stopped; given again, it goes on.
    Stopped,
    /// Somebody cancelled it.
    Cancelled,
}

impl Rerun<'_> {
    /// Runs the replay of `record`, or goes on with it, and keeps its record true. `on_reporter` gets what tells how far it is.
    ///
    /// # Errors
    /// What [`run`] says, and a record that can't be written.
    pub fn run(
        &self,
        record: &mut Record,
        on_reporter: impl Fn(Reporter) + Send + Sync + 'static,
    ) -> Result<Ended, Error> {
        let _held = self.store.hold(&record.run)?;
        if record.status == Status::Complete {
            return Ok(Ended::Complete);
        }
        record.status = Status::Begun;
        self.store.write(record)?;
        let (begun_at, is_whole) = (Instant::now(), !self.store.state_of(&record.run).exists());
        let mut pipeline = isolated(self.pipeline, record, &self.store.state_of(&record.run));
        let reads = inputs::of(record.reads, self.pipeline)?;
        if reads.is_some() {
            inputs::keep_readers(self.pipeline, &mut pipeline, |name| self.store.file_of(&record.run, name))?;
        }
        let precedents = match record.repeats_judgements {
            true => Some(Arc::new(self.precedents(record)?)),
            false => None,
        };
        let running = Running {
            until_end: true,
            precedents,
            inputs: reads.map(|reads| reads.inputs(&self.handle)),
            slice: Some(Arc::new(record.slice.clone())),
            pace: Some(self.pace.clone()),
            watch: Some(Arc::new(on_reporter)),
            stop: self.stop.clone(),
            ..Running::default()
        };
        let is_over = Arc::new(AtomicBool::new(false));
        let watcher = self.stop_when_cancelled(&record.run, is_over.clone());
        let result = run(&self.file.display().to_string(), &pipeline, self.operators, &running);
        is_over.store(true, Ordering::Release);
        if let Some(watcher) = watcher {
            // It only sleeps and looks; should it have panicked, the run is over in any case.
            let _ = watcher.join();
        }
        result.map_err(of_replay)?;
        if self.store.is_cancelled(&record.run) {
            record.status = Status::Cancelled;
            self.store.write(record)?;
            return Ok(Ended::Cancelled);
        }
        if self.stop.load(Ordering::Acquire) {
            return Ok(Ended::Stopped);
        }
        record.status = Status::Complete;
        // What tells how long the next one will take.
        let speed = record.slice.offsets() as f64 / begun_at.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        record.records_per_second = (is_whole && !self.is_paced).then_some(speed as u64);
        self.store.write(record)?;
        Ok(Ended::Complete)
    }

    /// What the live pipeline judged by the clock of what is read.
    fn precedents(&self, record: &Record) -> Result<Precedents, Error> {
        let client = connect::clickhouse(self.pipeline)?;
        let (precedents, _) =
            self.handle.block_on(precedents::precedents(&client, &record.slice)).map_err(|error| {
                Error::Unreachable {
                    part: format!("clickhouse at {}", self.pipeline.clickhouse.url),
                    detail: format!("the judgements of the live pipeline: {error}"),
                    remedy: "check `[clickhouse]`; with --judge-anew they aren't asked for".to_owned(),
                }
            })?;
        Ok(precedents)
    }

    fn stop_when_cancelled(&self, name: &str, is_over: Arc<AtomicBool>) -> Option<std::thread::JoinHandle<()>> {
        let (store, name, stop) = (self.store.clone(), name.to_owned(), self.stop.clone());
        let watch = move || {
            while !is_over.load(Ordering::Acquire) {
                if store.is_cancelled(&name) {
                    stop.store(true, Ordering::Release);
                    return;
                }
                std::thread::sleep(LOOK_EVERY);
            }
        };
        std::thread::Builder::new().name("cancelled".to_owned()).spawn(watch).ok()
    }
}

/// A replay ends with the rules, views and settings that it began with. In a live pipeline a part of another name would start from
/// now; in a replay that is no remedy.
fn of_replay(error: Error) -> Error {
    match error {
        Error::Changed { what, .. } => Error::Changed {
            what: format!("{what}, since the replay began"),
            remedy:
                "take the change back and give the replay's name again, or begin a replay of another name, which reads \
                     everything with the change"
                    .to_owned(),
        },
        other => other,
    }
}
