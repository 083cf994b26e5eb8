//! The engine: threads and the order of steps, from an open state folder to the last acknowledgement.
//!
//! ```text
//! this thread    opens epochs (`epochs::Clock`), watches for failures and for the wish to stop
//! workers        one timely worker each: feed, operators; tell how far they have passed
//! attendants     one per source, for what waits for the network beside reading
//! committer      writes an epoch when every worker has passed it
//! tokio          one task per destination, and the HTTP address
//! ```
//! Invariants: no worker thread waits for network or disk; whatever fails first stops everything, before the open
//! epoch's commit; a stop ends the open epoch, commits it and delivers it.
//!
//! Not here: what a pipeline file means (`run`), and how the parts are reached: sources and sinks are handed in.

mod attending;
mod failure;
mod plan;
mod reporting;
mod workers;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use plan::{
    Conductor, Destination, Inputs, OpenSource, Plan, PrepareSource, Prepared, Reporter, Resume, Running, SourcePlan,
    Summary, Watch,
};
use timely::WorkerConfig;
use tokio::task::JoinSet;
use weir_operators::account::TopicNames;
use weir_operators::adaptor::Failure;
use weir_schemas::time::{Epoch, EventTime};

use crate::archive::{ArchiveReporter, Archiver};
use crate::clock::Clock;
use crate::commit::{Committer, Positions};
use crate::dataflow::OPERATOR_BYTES;
use crate::deliver::{Lane, LaneKind, Post};
use crate::epochs::{self, Decision, Epochs, Facts, Why};
use crate::error::Error;
use crate::gather::{Gathered, Route};
use crate::http::{self, Pages};
use crate::lineage::openlineage::{Emitter, Ended};
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::recovery::{self, Recovered};
use crate::shares::Shares;
use crate::source::PartitionPosition;
use attending::{Attendants, Attended};
use failure::FirstError;
use reporting::{Reporting, reporter};
use workers::{WorkerSource, Workforce};

/// How often this thread looks around at least.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long a stop waits for destinations; what they haven't taken by then is sent at the next start.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// Runs a pipeline until it is at its end, is stopped, or fails.
///
/// # Errors
/// Whatever failed first.
pub fn execute(plan: Plan, running: &Running) -> Result<Summary, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("deliver")
        .enable_all()
        .build()
        .map_err(|error| Error::Worker { detail: format!("threads for delivery: {error}") })?;
    let result = Engine::start(plan, running, &runtime).and_then(|mut engine| {
        let emitter = engine.emitter.take();
        let result = engine.run(running, &runtime);
        if let Some(emitter) = emitter {
            emitter.end(Ended::of(&result, running.until_end, running.stop.load(Ordering::Acquire)));
        }
        result
    });
    // Reads of the outbox that a failure interrupted must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

struct Engine {
    first: Epoch,
    epoch: Duration,
    outbox_bytes: u64,
    core: Core,
    pages: Arc<Pages>,
    committer: JoinHandle<Result<(), Error>>,
    workers: timely::communication::WorkerGuards<()>,
    lanes: JoinSet<Result<(), Error>>,
    attendants: Attendants,
    emitter: Option<Emitter>,
    archiver: Option<Archiver>,
}

/// What the threads share.
#[derive(Clone)]
struct Core {
    epochs: Arc<Epochs>,
    outbox: Arc<Outbox>,
    gathered: Arc<Gathered>,
    post: Arc<Post>,
    metrics: Arc<Metrics>,
    /// By source.
    shares: Vec<Arc<Shares>>,
    clock: Clock,
    failure: Failure,
    error: FirstError,
    waits_for: Arc<Mutex<Option<String>>>,
}

impl Core {
    fn new(plan: &mut Plan, recovered: &Recovered, clock: Clock) -> Result<(Core, Vec<Lane>), Error> {
        let destinations = std::mem::take(&mut plan.destinations);
        let (outbox, gathered, lanes) = mail(destinations, recovered, plan.outbox_bytes, plan.workers)?;
        let metrics = Arc::new(Metrics::default());
        let tables = lanes.iter().filter(|lane| lane.kind == LaneKind::Table).map(|lane| lane.id).collect();
        let (store, committed) = (recovered.store.clone(), recovered.committed);
        let post = Post::new(outbox.clone(), store, metrics.clone(), clock.clone(), tables, committed);
        let core = Core {
            epochs: Arc::new(Epochs::after(committed, plan.workers)),
            outbox,
            gathered,
            post: Arc::new(post),
            metrics,
            shares: plan.sources.iter().map(|_| Arc::new(Shares::of(plan.workers))).collect(),
            clock,
            failure: Failure::default(),
            error: FirstError::default(),
            waits_for: Arc::default(),
        };
        Ok((core, lanes))
    }

    /// The sources' shares, ready to be opened by the workers, and what is done beside reading them.
    fn sources(
        &self,
        sources: Vec<SourcePlan>,
        recovered: &Recovered,
    ) -> Result<(Vec<WorkerSource>, Vec<Attended>), Error> {
        let mut attended = Vec::new();
        let topics = names_of(&recovered.topics, &sources);
        let mut open = |(source, shares): (SourcePlan, &Arc<Shares>)| {
            let told = recovered.watermarks.get(&source.name).copied().unwrap_or(EventTime::MIN);
            let positions = positions_of(recovered, &source.topics);
            let store = recovered.store.clone();
            let Prepared { open, attend } =
                (source.prepare)(Resume { positions, told, topics: recovered.topics.clone(), store })?;
            let graph = (source.graph)(topics.clone());
            attended.extend(attend.map(|attend| Attended {
                name: source.name,
                topics: source.topics,
                shares: shares.clone(),
                attend,
            }));
            Ok(WorkerSource { graph, open, told, shares: shares.clone() })
        };
        let opened = sources.into_iter().zip(&self.shares).map(&mut open).collect::<Result<_, Error>>()?;
        Ok((opened, attended))
    }

    fn workforce(
        &self,
        plan: &Plan,
        running: &Running,
        sources: Vec<WorkerSource>,
        recovered: &Recovered,
    ) -> Workforce {
        let keepers: usize = sources.iter().map(|source| source.graph.keepers()).sum();
        Workforce {
            sources,
            operator_bytes: OPERATOR_BYTES / (keepers.max(1) * plan.workers),
            idle_pause: running.conductor.as_ref().map_or(workers::IDLE_PAUSE, |conductor| conductor.idle_pause()),
            resume: recovered.committed.next(),
            in_flight_bytes: plan.in_flight_bytes / plan.workers as u64,
            store: recovered.store.clone(),
            gathered: self.gathered.clone(),
            epochs: self.epochs.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            failure: self.failure.clone(),
            error: self.error.clone(),
        }
    }

    fn committer(&self, plan: &mut Plan, names: Vec<String>, recovered: Recovered, positions: Positions) -> Committer {
        let post = self.post.clone();
        let mut samples = std::mem::take(&mut plan.samples);
        samples.set_topics(recovered.topics.clone());
        Committer {
            store: recovered.store,
            outbox: self.outbox.clone(),
            gathered: self.gathered.clone(),
            epochs: self.epochs.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            topics: numbers_of(&recovered.topics),
            sources: names.into_iter().zip(self.shares.clone()).collect(),
            told_at: None,
            watched: std::mem::take(&mut plan.watched),
            samples,
            positions,
            version: std::mem::take(&mut plan.version),
            has_told_version: false,
            on_commit: Box::new(move |epoch, at| post.committed(epoch, at)),
        }
    }

    fn pages(&self, plan: &Plan, names: Vec<String>, lanes: &[Lane], archive: Option<ArchiveReporter>) -> Pages {
        let reporting = Reporting {
            pipeline: plan.name.clone(),
            in_flight_limit_bytes: plan.in_flight_bytes,
            outbox_limit_bytes: plan.outbox_bytes,
            epochs: self.epochs.clone(),
            post: self.post.clone(),
            sources: names.into_iter().zip(self.shares.clone()).collect(),
            destinations: lanes.iter().map(|lane| (lane.name.clone(), lane.id)).collect(),
            waits_for: self.waits_for.clone(),
            archive,
        };
        Pages {
            status: Box::new(reporter(reporting)),
            metrics: self.metrics.clone(),
            is_ready: AtomicBool::new(false),
            is_healthy: AtomicBool::new(true),
        }
    }
}

impl Engine {
    fn start(mut plan: Plan, running: &Running, runtime: &tokio::runtime::Runtime) -> Result<Engine, Error> {
        plan.workers = plan.workers.max(1);
        let topics: Vec<String> = plan.sources.iter().flat_map(|source| source.topics.clone()).collect();
        let destinations: Vec<String> = plan.destinations.iter().map(|destination| destination.name.clone()).collect();
        let fingerprint = std::mem::take(&mut plan.fingerprint);
        let recovered = recovery::recover(&plan.state, plan.store, fingerprint, &topics, &destinations)?;
        let listener = match &plan.http {
            Some(address) => Some(runtime.block_on(http::listen(address))?),
            None => None,
        };
        let first = recovered.committed;
        let (core, lanes) = Core::new(&mut plan, &recovered, running.clock.clone())?;
        let names: Vec<String> = plan.sources.iter().map(|source| source.name.clone()).collect();
        let (sources, attended) = core.sources(std::mem::take(&mut plan.sources), &recovered)?;
        let positions = Positions::new(recovered.positions.clone());
        let archiver = plan.archiving.take();
        let archiver = archiver.map(|of| Archiver::start(of, positions.clone(), running.clock.clone())).transpose()?;
        let pages = Arc::new(core.pages(&plan, names.clone(), &lanes, archiver.as_ref().map(Archiver::reporter)));
        if let Some(watch) = &running.watch {
            let pages = pages.clone();
            watch(Arc::new(move || (pages.status)()));
        }
        if let Some(conductor) = &running.conductor {
            conductor.begin(core.epochs.clone());
        }
        let workforce = Arc::new(core.workforce(&plan, running, sources, &recovered));
        let committer = core.committer(&mut plan, names, recovered, positions.clone());
        let attendants = Attendants::start(attended, &positions, &core)?;

        let mut config = timely::Config::process(plan.workers);
        // Threads that spin while they wait would take a third of a small machine.
        config.worker = WorkerConfig::default().idle_spin(Duration::ZERO);
        let workers =
            timely::execute(config, move |worker| workforce.work(worker)).map_err(|detail| Error::Worker { detail })?;
        let committer = std::thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || committer.run())
            .map_err(|error| Error::Worker { detail: format!("the committer's thread: {error}") })?;
        let _on_runtime = runtime.enter();
        let mut tasks = JoinSet::new();
        for lane in lanes {
            tasks.spawn(lane.run(core.post.clone()));
        }
        if let Some(listener) = listener {
            runtime.spawn(http::serve(listener, pages.clone(), plan.console.take()));
        }
        let (epoch, outbox_bytes) = (plan.epoch, plan.outbox_bytes);
        let emitter = plan.emission.map(|emission| emission.start(&core.metrics, core.clock.clone()));
        Ok(Engine {
            first,
            epoch,
            outbox_bytes,
            core,
            pages,
            committer,
            workers,
            lanes: tasks,
            attendants,
            emitter,
            archiver,
        })
    }

    /// Opens epochs until the last one is committed, then sees everybody off.
    fn run(mut self, running: &Running, runtime: &tokio::runtime::Runtime) -> Result<Summary, Error> {
        self.pages.is_ready.store(true, Ordering::Release);
        let has_finished = self.open_epochs(running);
        self.core.epochs.halt();
        for result in self.workers.join() {
            if let Err(detail) = result {
                self.core.error.set(Error::Worker { detail });
            }
        }
        match self.committer.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.core.error.set(error),
            Err(_) => self.core.error.set(Error::Worker { detail: "the committer panicked".to_owned() }),
        }
        if let Some(failed) = self.core.failure.get() {
            self.core.error.set(Error::Stopped(failed.to_string()));
        }
        self.attendants.dismiss();
        if let Some(archiver) = &self.archiver {
            archiver.finish();
        }
        if has_finished && !self.core.error.is_set() {
            self.core.post.finish();
            let within = if running.until_end { None } else { Some(STOP_WITHIN) };
            runtime.block_on(see_off(&mut self.lanes, within, running, &self.core.error));
        }
        if let Some(archiver) = self.archiver.take() {
            let within = if running.until_end { None } else { Some(STOP_WITHIN) };
            let is_stopped = || running.until_end && running.stop.load(Ordering::Acquire);
            archiver.see_off(within, !has_finished || self.core.error.is_set(), is_stopped);
        }
        self.attendants.see_off();
        self.lanes.abort_all();
        if let Some(error) = self.core.error.take() {
            return Err(error);
        }
        let undelivered_rows = self.core.outbox.waiting_in_all().rows;
        if undelivered_rows > 0 {
            tracing::warn!(rows = undelivered_rows, "committed rows wait for delivery, which the next start does");
        }
        Ok(Summary { first: self.first, committed: self.core.epochs.committed(), undelivered_rows })
    }

    /// Returns whether the last epoch was committed; false after a failure.
    fn open_epochs(&mut self, running: &Running) -> bool {
        let mut clock = epochs::Clock::after(self.core.epochs.committed());
        let mut opened_at = Instant::now();
        loop {
            let rings = self.core.epochs.rings();
            if self.has_failed() {
                self.pages.is_healthy.store(false, Ordering::Release);
                return false;
            }
            let are_at_end = self.core.shares.iter().all(|shares| shares.are_at_end());
            let facts = Facts {
                committed: self.core.epochs.committed(),
                // At the end nothing more comes into an epoch: the next one closes what this one showed to be over.
                is_due: self.is_due(running, opened_at) || (running.until_end && are_at_end),
                is_outbox_full: self.core.outbox.waiting_in_all().bytes >= self.outbox_bytes,
                are_sources_ended: running.until_end && self.core.shares.iter().all(|shares| shares.are_ended()),
                is_behind: self.core.epochs.is_behind(),
                is_stopping: running.stop.load(Ordering::Acquire),
            };
            let decision = clock.decide(facts);
            let waits_for = match decision {
                Decision::Wait(Why::Commit) if facts.is_due => Some("the commit of the epoch before"),
                Decision::Wait(Why::Outbox) => Some("the destinations: the outbox is full"),
                _ => None,
            };
            *self.core.waits_for.lock().unwrap_or_else(PoisonError::into_inner) = waits_for.map(str::to_owned);
            match decision {
                Decision::Open(epoch) => {
                    self.core.epochs.open_epoch(epoch, false);
                    opened_at = Instant::now();
                }
                Decision::Close(epoch) => self.core.epochs.open_epoch(epoch, true),
                Decision::Wait(_) => {
                    let left = self.epoch.saturating_sub(opened_at.elapsed()).min(LOOK_EVERY);
                    self.core.epochs.wait(rings, left.max(Duration::from_millis(1)));
                }
                Decision::Finished => return true,
            }
        }
    }

    /// Whether the open epoch has lasted as long as it shall.
    fn is_due(&self, running: &Running, opened_at: Instant) -> bool {
        match &running.conductor {
            Some(conductor) => conductor.is_due(self.core.epochs.open()),
            None => opened_at.elapsed() >= self.epoch,
        }
    }

    fn has_failed(&mut self) -> bool {
        if let Some(failed) = self.core.failure.get() {
            self.core.error.set(Error::Stopped(failed.to_string()));
        }
        while let Some(ended) = self.lanes.try_join_next() {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.core.error.set(error),
                Err(error) => self.core.error.set(Error::Worker { detail: error.to_string() }),
            }
        }
        let has_ended = self.committer.is_finished() || self.workers.guards().iter().any(JoinHandle::is_finished);
        self.core.error.is_set() || has_ended || self.core.epochs.is_halted()
    }
}

/// Waits until every destination has taken everything, at most `within`.
async fn see_off(
    lanes: &mut JoinSet<Result<(), Error>>,
    within: Option<Duration>,
    running: &Running,
    error: &FirstError,
) {
    let mut deadline = within.map(|within| tokio::time::Instant::now() + within);
    loop {
        // A run to the end waits for its destinations for as long as nobody stops it.
        if deadline.is_none() && running.stop.load(Ordering::Acquire) {
            deadline = Some(tokio::time::Instant::now() + STOP_WITHIN);
        }
        if deadline.is_some_and(|deadline| deadline <= tokio::time::Instant::now()) {
            return;
        }
        match tokio::time::timeout(Duration::from_millis(200), lanes.join_next()).await {
            Err(_) | Ok(Some(Ok(Ok(())))) => {}
            Ok(None) => return,
            Ok(Some(Ok(Err(failed)))) => error.set(failed),
            Ok(Some(Err(failed))) => error.set(Error::Worker { detail: failed.to_string() }),
        }
    }
}

fn positions_of(recovered: &Recovered, topics: &[String]) -> BTreeMap<(String, i32), PartitionPosition> {
    let of = |key: &(String, i32)| topics.contains(&key.0);
    recovered.positions.iter().filter(|(key, _)| of(key)).map(|(key, at)| (key.clone(), at.clone())).collect()
}

/// The topics by number with their sources; a topic that no source reads any more has none.
fn names_of(topics: &[String], sources: &[SourcePlan]) -> Vec<TopicNames> {
    let source_of = |topic: &String| sources.iter().find(|source| source.topics.contains(topic));
    let name_of = |topic: &String, source: &SourcePlan| match &source.retry_topic {
        Some(retry) if retry == topic => format!("{}/retry", source.name),
        _ => source.name.clone(),
    };
    let names = |topic: &String| TopicNames {
        source: source_of(topic).map_or_else(String::new, |source| name_of(topic, source)).into(),
        topic: topic.as_str().into(),
    };
    topics.iter().map(names).collect()
}

fn numbers_of(topics: &[String]) -> HashMap<String, u16> {
    (0..=u16::MAX).zip(topics).map(|(number, name)| (name.clone(), number)).collect()
}

/// The outbox, what is put into it, and what is sent from it.
type Mail = (Arc<Outbox>, Arc<Gathered>, Vec<Lane>);

/// Sets up the outbox and both ends of it.
fn mail(
    destinations: Vec<Destination>,
    recovered: &Recovered,
    outbox_bytes: u64,
    workers: usize,
) -> Result<Mail, Error> {
    let places = recovered.destinations.values().map(|(id, _)| usize::from(id.0) + 1).max().unwrap_or(0);
    let mut newest = vec![(false, recovered.committed); places];
    let mut routes: HashMap<Arc<str>, Vec<Route>> = HashMap::new();
    let mut lanes = Vec::new();
    for destination in destinations {
        let Some(&(id, delivered)) = recovered.destinations.get(&destination.name) else { continue };
        // Completeness is kept for every epoch, since it is told late.
        let newest_only = destination.encode.newest_only() && destination.kind != LaneKind::Progress;
        if let Some(slot) = newest.get_mut(usize::from(id.0)) {
            *slot = (newest_only, delivered);
        }
        for table in destination.tables {
            let route = Route { destination: id, encode: destination.encode.clone() };
            routes.entry(table).or_default().push(route);
        }
        let Destination { name, sink, every, kind, .. } = destination;
        lanes.push(Lane { id, name, sink, every, kind });
    }
    let outbox = Arc::new(Outbox::open(recovered.store.clone(), &newest, outbox_bytes)?);
    let gathered = Arc::new(Gathered::new(routes, recovered.generation, workers));
    Ok((outbox, gathered, lanes))
}
