//! The engine: threads and the order of steps, from an open state folder to the last acknowledgement.
//!
//! ```text
//! this thread    opens epochs (`epochs::Clock`), watches for failures and for the wish to stop
//! workers        one timely worker each: feed, operators; tell how far they have passed
//! committer      writes an epoch when every worker has passed it
//! tokio          one task per destination, and the HTTP address
//! ```
//! Invariants: no worker thread waits for network or disk; whatever fails first stops everything, before the open
//! epoch's commit; a stop ends the open epoch, commits it and delivers it.
//!
//! Not here: what a pipeline file means (`run`), and how the parts are reached: sources and sinks are handed in.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use timely::WorkerConfig;
use timely::dataflow::ProbeHandle;
use timely::worker::Worker;
use tokio::task::JoinSet;
use weir_operators::account::TopicNames;
use weir_operators::adaptor::{Failure, Host};
use weir_operators::moment::Moment;
use weir_operators::state::StoreOptions;
use weir_schemas::time::{Epoch, EventTime};
use weir_sinks::{Deliver, Encode};

use crate::clock::Clock;
use crate::commit::Committer;
use crate::dataflow::{self, OPERATOR_BYTES, SourceGraph, Wiring};
use crate::deliver::{Lane, LaneKind, Post};
use crate::epochs::{self, Decision, Epochs, Facts, Why};
use crate::error::Error;
use crate::feed::FeedContext;
use crate::gather::{Gathered, Route};
use crate::http::{self, Pages};
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::progress::Watched;
use crate::recovery::{self, Fingerprint, Recovered};
use crate::shares::Shares;
use crate::source::{PartitionPosition, Source};
use crate::status::{DestinationStatus, SourceStatus, Status};

/// How long a worker with nothing to do sleeps before it looks at its sources again.
const IDLE_PAUSE: Duration = Duration::from_millis(2);

/// How often this thread looks around at least.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long a stop waits for destinations; what they haven't taken by then is sent at the next start.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// A pipeline, with everything decided before a thread starts.
pub struct Plan {
    /// The pipeline's name.
    pub name: String,
    /// The state folder.
    pub state: PathBuf,
    /// Memory of the store.
    pub store: StoreOptions,
    /// Worker threads.
    pub workers: usize,
    /// The length of an epoch.
    pub epoch: Duration,
    /// Bytes that may be fetched and not yet committed.
    pub in_flight_bytes: u64,
    /// Bytes that may be committed and not yet delivered.
    pub outbox_bytes: u64,
    /// The address of the pages.
    pub http: Option<String>,
    /// What the state depends on.
    pub fingerprint: Fingerprint,
    /// The sources.
    pub sources: Vec<SourcePlan>,
    /// Where rows go.
    pub destinations: Vec<Destination>,
    /// The views whose completeness is told.
    pub watched: Vec<Watched>,
}

/// A source, and what follows it.
pub struct SourcePlan {
    /// The source's name.
    pub name: String,
    /// Its topics.
    pub topics: Vec<String>,
    /// Called once, when the state is open and before a thread starts.
    pub prepare: Box<dyn FnOnce(Resume) -> Result<OpenSource, Error>>,
    /// Makes what follows it, given the topics of all sources by number.
    pub graph: Box<dyn FnOnce(Vec<TopicNames>) -> SourceGraph>,
}

/// Opens one worker's share of a source, on the worker's own thread: worker, number of workers.
pub type OpenSource = Arc<dyn Fn(usize, usize) -> Result<Box<dyn Source>, Error> + Send + Sync>;

/// What a source resumes from.
#[derive(Clone, Debug)]
pub struct Resume {
    /// How far each partition was read, by topic and partition; partitions that were never read have none.
    pub positions: BTreeMap<(String, i32), PartitionPosition>,
    /// The watermark that the operators were shown: what is older by more than the allowed lateness is too late.
    pub told: EventTime,
    /// The topics' names by number.
    pub topics: Vec<String>,
}

/// Where rows of some tables go.
pub struct Destination {
    /// Its name: the same for ever, since the state knows it by that.
    pub name: String,
    /// The tables whose rows it gets.
    pub tables: Vec<Arc<str>>,
    /// How rows look there.
    pub encode: Arc<dyn Encode>,
    /// How they get there.
    pub sink: Box<dyn Deliver>,
    /// Least time between two inserts.
    pub every: Duration,
    /// Whether completeness waits for it, or is it.
    pub kind: LaneKind,
}

/// How a pipeline is run.
#[derive(Clone, Default)]
pub struct Running {
    /// Read to the ends that the logs have at start, close every window, and end.
    pub until_end: bool,
    /// Set by whoever wants it to stop.
    pub stop: Arc<AtomicBool>,
    /// Wall time.
    pub clock: Clock,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The epoch that was committed when it started.
    pub first: Epoch,
    /// The newest committed epoch.
    pub committed: Epoch,
    /// Rows that a destination hasn't taken yet; the next start sends them.
    pub undelivered_rows: u64,
}

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
    let result = Engine::start(plan, running, &runtime).and_then(|engine| engine.run(running, &runtime));
    // Reads of the outbox that a failure interrupted must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// The first failure of any thread.
#[derive(Clone, Default)]
struct FirstError(Arc<Mutex<Option<Error>>>);

impl FirstError {
    fn set(&self, error: Error) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            tracing::error!(code = error.code(), %error, "stopping");
            *first = Some(error);
        }
    }

    fn is_set(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

struct Engine {
    first: Epoch,
    epoch: Duration,
    outbox_bytes: u64,
    epochs: Arc<Epochs>,
    outbox: Arc<Outbox>,
    post: Arc<Post>,
    shares: Vec<Arc<Shares>>,
    failure: Failure,
    error: FirstError,
    waits_for: Arc<Mutex<Option<String>>>,
    pages: Arc<Pages>,
    committer: JoinHandle<Result<(), Error>>,
    workers: timely::communication::WorkerGuards<()>,
    lanes: JoinSet<Result<(), Error>>,
}

impl Engine {
    fn start(plan: Plan, running: &Running, runtime: &tokio::runtime::Runtime) -> Result<Engine, Error> {
        let topics: Vec<String> = plan.sources.iter().flat_map(|source| source.topics.clone()).collect();
        let names: Vec<String> = plan.destinations.iter().map(|destination| destination.name.clone()).collect();
        let recovered = recovery::recover(&plan.state, plan.store, plan.fingerprint, &topics, &names)?;
        check_not_ended(&recovered, running)?;
        let workers = plan.workers.max(1);
        let listener = match &plan.http {
            Some(address) => Some(runtime.block_on(http::listen(address))?),
            None => None,
        };

        let (outbox, gathered, lanes) = mail(plan.destinations, &recovered, plan.outbox_bytes, workers)?;
        let metrics = Arc::new(Metrics::default());
        let epochs = Arc::new(Epochs::after(recovered.committed, workers));
        let shares: Vec<Arc<Shares>> = plan.sources.iter().map(|_| Arc::new(Shares::of(workers))).collect();
        let tables = lanes.iter().filter(|lane| lane.kind == LaneKind::Table).map(|lane| lane.id).collect();
        let post = Arc::new(Post::new(
            outbox.clone(),
            recovered.store.clone(),
            metrics.clone(),
            running.clock.clone(),
            tables,
            recovered.committed,
        ));

        let topic_names = names_of(&recovered.topics, &plan.sources);
        let mut sources = Vec::new();
        let source_names: Vec<String> = plan.sources.iter().map(|source| source.name.clone()).collect();
        for (source, shares) in plan.sources.into_iter().zip(&shares) {
            let resume = Resume {
                positions: positions_of(&recovered, &source.topics),
                told: recovered.watermarks.get(&source.name).copied().unwrap_or(EventTime::MIN),
                topics: recovered.topics.clone(),
            };
            let told = resume.told;
            let open = (source.prepare)(resume)?;
            let graph = (source.graph)(topic_names.clone());
            sources.push(WorkerSource { graph, open, told, shares: shares.clone() });
        }

        let committer = Committer {
            store: recovered.store.clone(),
            outbox: outbox.clone(),
            gathered: gathered.clone(),
            epochs: epochs.clone(),
            metrics: metrics.clone(),
            clock: running.clock.clone(),
            topics: numbers_of(&recovered.topics),
            sources: source_names.clone(),
            watched: plan.watched,
            positions: recovered.positions,
            on_commit: {
                let post = post.clone();
                Box::new(move |epoch, at| post.committed(epoch, at))
            },
        };
        let (failure, error) = (Failure::default(), FirstError::default());
        let waits_for = Arc::new(Mutex::new(None));
        let pages = Arc::new(Pages {
            status: Box::new(reporter(Reporting {
                pipeline: plan.name,
                in_flight_limit_bytes: plan.in_flight_bytes,
                outbox_limit_bytes: plan.outbox_bytes,
                epochs: epochs.clone(),
                post: post.clone(),
                sources: source_names.into_iter().zip(shares.clone()).collect(),
                destinations: lanes.iter().map(|lane| (lane.name.clone(), lane.id)).collect(),
                waits_for: waits_for.clone(),
            })),
            metrics: metrics.clone(),
            is_ready: AtomicBool::new(false),
            is_healthy: AtomicBool::new(true),
        });

        let keepers: usize = sources.iter().map(|source| source.graph.keepers()).sum();
        let workforce = Arc::new(Workforce {
            sources,
            operator_bytes: OPERATOR_BYTES / (keepers.max(1) * workers),
            resume: recovered.committed.next(),
            in_flight_bytes: plan.in_flight_bytes / workers as u64,
            store: recovered.store,
            gathered,
            epochs: epochs.clone(),
            metrics,
            clock: running.clock.clone(),
            failure: failure.clone(),
            error: error.clone(),
        });
        let mut config = timely::Config::process(workers);
        // Two threads that spin while they wait would take a third of a small machine.
        config.worker = WorkerConfig::default().idle_spin(Duration::ZERO);
        let guards = timely::execute(config, move |worker| workforce.work(worker))
            .map_err(|detail| Error::Worker { detail })?;
        let committer = std::thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || committer.run())
            .map_err(|error| Error::Worker { detail: format!("the committer's thread: {error}") })?;

        let _on_runtime = runtime.enter();
        let mut tasks = JoinSet::new();
        for lane in lanes {
            tasks.spawn(lane.run(post.clone()));
        }
        if let Some(listener) = listener {
            runtime.spawn(http::serve(listener, pages.clone()));
        }
        Ok(Engine {
            first: recovered.committed,
            epoch: plan.epoch,
            outbox_bytes: plan.outbox_bytes,
            epochs,
            outbox,
            post,
            shares,
            failure,
            error,
            waits_for,
            pages,
            committer,
            workers: guards,
            lanes: tasks,
        })
    }

    /// Opens epochs until the last one is committed, then sees everybody off.
    fn run(mut self, running: &Running, runtime: &tokio::runtime::Runtime) -> Result<Summary, Error> {
        self.pages.is_ready.store(true, Ordering::Release);
        let has_finished = self.open_epochs(running);
        self.epochs.halt();
        for result in self.workers.join() {
            if let Err(detail) = result {
                self.error.set(Error::Worker { detail });
            }
        }
        match self.committer.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.error.set(error),
            Err(_) => self.error.set(Error::Worker { detail: "the committer panicked".to_owned() }),
        }
        if let Some(failed) = self.failure.get() {
            self.error.set(Error::Stopped(failed.to_string()));
        }
        if has_finished && !self.error.is_set() {
            self.post.finish();
            let within = if running.until_end { None } else { Some(STOP_WITHIN) };
            runtime.block_on(see_off(&mut self.lanes, within, running, &self.error));
        }
        self.lanes.abort_all();
        if let Some(error) = self.error.take() {
            self.pages.is_healthy.store(false, Ordering::Release);
            return Err(error);
        }
        let undelivered_rows = self.outbox.waiting_in_all().rows;
        if undelivered_rows > 0 {
            tracing::warn!(rows = undelivered_rows, "committed rows wait for delivery, which the next start does");
        }
        Ok(Summary { first: self.first, committed: self.epochs.committed(), undelivered_rows })
    }

    /// Returns whether the last epoch was committed; false after a failure.
    fn open_epochs(&mut self, running: &Running) -> bool {
        let mut clock = epochs::Clock::after(self.epochs.committed());
        let mut opened_at = Instant::now();
        loop {
            let rings = self.epochs.rings();
            if self.has_failed() {
                return false;
            }
            let facts = Facts {
                committed: self.epochs.committed(),
                is_due: opened_at.elapsed() >= self.epoch,
                is_outbox_full: self.outbox.waiting_in_all().bytes >= self.outbox_bytes,
                are_sources_ended: running.until_end && self.shares.iter().all(|shares| shares.are_ended()),
                is_stopping: running.stop.load(Ordering::Acquire),
            };
            let decision = clock.decide(facts);
            let waits_for = match decision {
                Decision::Wait(Why::Commit) if facts.is_due => Some("the commit of the epoch before"),
                Decision::Wait(Why::Outbox) => Some("the destinations: the outbox is full"),
                _ => None,
            };
            *self.waits_for.lock().unwrap_or_else(PoisonError::into_inner) = waits_for.map(str::to_owned);
            match decision {
                Decision::Open(epoch) => {
                    self.epochs.open_epoch(epoch, false);
                    opened_at = Instant::now();
                }
                Decision::Close(epoch) => self.epochs.open_epoch(epoch, true),
                Decision::Wait(_) => {
                    let left = self.epoch.saturating_sub(opened_at.elapsed()).min(LOOK_EVERY);
                    self.epochs.wait(rings, left.max(Duration::from_millis(1)));
                }
                Decision::Finished => return true,
            }
        }
    }

    fn has_failed(&mut self) -> bool {
        if let Some(failed) = self.failure.get() {
            self.error.set(Error::Stopped(failed.to_string()));
        }
        while let Some(ended) = self.lanes.try_join_next() {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.error.set(error),
                Err(error) => self.error.set(Error::Worker { detail: error.to_string() }),
            }
        }
        let has_ended = self.committer.is_finished() || self.workers.guards().iter().any(JoinHandle::is_finished);
        self.error.is_set() || has_ended || self.epochs.is_halted()
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

/// A state whose windows are all closed can't go on live: everything that comes would be too late.
fn check_not_ended(recovered: &Recovered, running: &Running) -> Result<(), Error> {
    let ended = recovered.watermarks.iter().find(|(_, watermark)| **watermark == EventTime::MAX);
    match ended {
        Some((source, _)) if !running.until_end => Err(Error::State {
            detail: format!("this folder was run to the end of {source} (--until-end): every window is closed for good"),
            remedy: "use a state folder of its own to run live".to_owned(),
        }),
        _ => Ok(()),
    }
}

fn positions_of(recovered: &Recovered, topics: &[String]) -> BTreeMap<(String, i32), PartitionPosition> {
    let of = |key: &(String, i32)| topics.contains(&key.0);
    recovered.positions.iter().filter(|(key, _)| of(key)).map(|(key, at)| (key.clone(), at.clone())).collect()
}

/// The topics by number with their sources; a topic that no source reads any more has none.
fn names_of(topics: &[String], sources: &[SourcePlan]) -> Vec<TopicNames> {
    let source_of = |topic: &String| sources.iter().find(|source| source.topics.contains(topic));
    let names = |topic: &String| TopicNames {
        source: source_of(topic).map_or("", |source| source.name.as_str()).into(),
        topic: topic.as_str().into(),
    };
    topics.iter().map(names).collect()
}

fn numbers_of(topics: &[String]) -> HashMap<String, u16> {
    (0..=u16::MAX).zip(topics).map(|(number, name)| (name.clone(), number)).collect()
}

/// Sets up the outbox and both ends of it.
fn mail(
    destinations: Vec<Destination>,
    recovered: &Recovered,
    outbox_bytes: u64,
    workers: usize,
) -> Result<(Arc<Outbox>, Arc<Gathered>, Vec<Lane>), Error> {
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

/// What the workers share.
struct Workforce {
    sources: Vec<WorkerSource>,
    operator_bytes: usize,
    resume: Epoch,
    in_flight_bytes: u64,
    store: Arc<weir_operators::state::Store>,
    gathered: Arc<Gathered>,
    epochs: Arc<Epochs>,
    metrics: Arc<Metrics>,
    clock: Clock,
    failure: Failure,
    error: FirstError,
}

struct WorkerSource {
    graph: SourceGraph,
    open: OpenSource,
    told: EventTime,
    shares: Arc<Shares>,
}

impl Workforce {
    /// A worker's life.
    fn work(&self, worker: &mut Worker) {
        let (index, peers) = (worker.index(), worker.peers());
        let busy = Rc::new(Cell::new(false));
        let probe = ProbeHandle::new();
        let mut feeds = Vec::new();
        for (number, source) in self.sources.iter().enumerate() {
            match self.build(worker, number, source, &probe, &busy) {
                Ok(activator) => feeds.push(activator),
                Err(error) => {
                    self.error.set(error);
                    self.epochs.halt();
                }
            }
        }
        while !self.epochs.is_halted() {
            feeds.iter().for_each(|feed| feed.activate());
            worker.step();
            if let Some(now) = probe.with_frontier(|frontier| Moment::meet(frontier.iter())) {
                self.epochs.pass(index, Epoch(now.epoch.0.saturating_sub(1)));
            }
            if !busy.replace(false) {
                worker.step_or_park(Some(IDLE_PAUSE));
            }
        }
        tracing::debug!(worker = index, peers, "a worker leaves");
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
    }

    /// Builds a source and what follows it.
    fn build(
        &self,
        worker: &mut Worker,
        number: usize,
        source: &WorkerSource,
        probe: &ProbeHandle<Moment>,
        busy: &Rc<Cell<bool>>,
    ) -> Result<timely::scheduling::activate::Activator, Error> {
        let (index, peers) = (worker.index(), worker.peers());
        let opened = (source.open)(index, peers)?;
        let wiring = Wiring {
            host: Host {
                worker: index,
                peers,
                store: self.store.clone(),
                sink: self.gathered.clone(),
                failure: self.failure.clone(),
                resume: Moment::new(self.resume, source.told),
            },
            metrics: self.metrics.clone(),
            probe: probe.clone(),
            operator_bytes: self.operator_bytes,
            imbalances: self.metrics.imbalances(),
        };
        let cx = FeedContext {
            worker: index,
            source: number,
            name: source.graph.name.clone(),
            in_flight_bytes: self.in_flight_bytes,
            epochs: self.epochs.clone(),
            gathered: self.gathered.clone(),
            shares: source.shares.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
        };
        let error = self.error.clone();
        let fail = move |failed| error.set(failed);
        worker.dataflow_named(&source.graph.name.clone(), |scope| {
            dataflow::build(scope, &source.graph, &wiring, cx, opened, busy.clone(), fail)
        })
    }
}

/// What a status is made from.
struct Reporting {
    pipeline: String,
    in_flight_limit_bytes: u64,
    outbox_limit_bytes: u64,
    epochs: Arc<Epochs>,
    post: Arc<Post>,
    sources: Vec<(String, Arc<Shares>)>,
    destinations: Vec<(String, crate::outbox::DestinationId)>,
    waits_for: Arc<Mutex<Option<String>>>,
}

fn reporter(of: Reporting) -> impl Fn() -> Status + Send + Sync {
    move || Status {
        pipeline: of.pipeline.clone(),
        open_epoch: of.epochs.open().0,
        committed_epoch: of.epochs.committed().0,
        delivered_epoch: of.post.delivered().0,
        waits_for: of.waits_for.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        in_flight_bytes: of.epochs.in_flight_bytes(),
        in_flight_limit_bytes: of.in_flight_limit_bytes,
        outbox_bytes: of.post.outbox.waiting_in_all().bytes,
        outbox_limit_bytes: of.outbox_limit_bytes,
        sources: of
            .sources
            .iter()
            .map(|(name, shares)| SourceStatus::of(name, shares.watermark(), shares.partitions()))
            .collect(),
        destinations: of
            .destinations
            .iter()
            .map(|(name, id)| {
                let waiting = of.post.outbox.waiting(*id);
                DestinationStatus {
                    name: name.clone(),
                    delivered_epoch: of.post.outbox.delivered(*id).0,
                    waiting_rows: waiting.rows,
                    waiting_bytes: waiting.bytes,
                    failing: of.post.failures.of(usize::from(id.0)),
                }
            })
            .collect(),
    }
}
