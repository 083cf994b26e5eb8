//! The one adaptor that turns an [`Operator`] into a timely operator.
//!
//! Workers read ahead at their own pace, so batches of epoch e+1 arrive while e is still open. The adaptor
//! stashes them until its input frontier has left e, and with that gives the operator epochs strictly in order.
//!
//! Invariants:
//! - The watermark that the operator sees is the least over the input frontier *and* over the stash. The frontier
//!   alone has already been raised by the next epoch, and would close windows that stashed events belong to.
//! - One capability per output, at (open epoch, watermark): an operator can emit without input, and nothing
//!   downstream can pass an epoch that it has not ended.
//! - An operator that leaves work for the next epoch holds the watermark of those behind it at what it has done.
//! - Parts of an epoch are with the [`EpochSink`] before the frontier leaves it: when a probe behind every
//!   operator's outputs has passed e, the parts of e are complete.
//! - After a failure no operator of the process ends an epoch any more, so the epoch cannot be committed.
//! - An input that closes does not raise the watermark: closing is not knowing. A source that wants the last
//!   windows closed raises its capability to [`EventTime::MAX`], moves on to a next epoch, and lets go when the
//!   probe has passed the one before. State that another run may need goes by [`Context::log_watermark`].
//!
//! [`Context::log_watermark`]: crate::operator::Context::log_watermark
//!
//! Not here: a bound on the stash. What is in flight is bounded where it enters, at the source.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow_array::RecordBatch;
use timely::container::NoopBuilder;
use timely::dataflow::channels::pact::{DistributorPact, ParallelizationContract, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use weir_schemas::rows::Changes;
use weir_schemas::time::{Epoch, EventTime};

use crate::drive::Driver;
use crate::effort::Efforts;
use crate::error::Error;
use crate::moment::Moment;
use crate::operator::Operator;
use crate::route::{Batch, BatchStream, GroupDistributor, Route};
use crate::state::{FrozenChanges, StateRegistry, Store};

/// Takes what belongs to an epoch's commit. Every worker's adaptors share one.
pub trait EpochSink: std::marker::Send + std::marker::Sync {
    /// Adds a part of `epoch`, from `worker`. Called before the worker's frontier leaves the epoch; must not block.
    fn add(&self, worker: usize, epoch: Epoch, part: Part);
}

/// A part of an epoch's commit.
#[derive(Debug)]
pub enum Part {
    /// What an operator changed in one of its tables.
    State {
        /// The operator's name.
        operator: Arc<str>,
        /// The changes.
        changes: Arc<FrozenChanges>,
    },
    /// Rows of a table on their way out, in the order in which the operator wrote them.
    Rows(Changes),
    /// An operator has more to do than the epoch should hold, and goes on in the next one.
    Behind {
        /// The operator's name.
        operator: Arc<str>,
        /// Up to where it has done what was due.
        through: EventTime,
    },
}

/// The first failure of a process's operators. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Failure(Arc<OnceLock<Failed>>);

/// Which operator failed, where, and why.
#[derive(Debug)]
pub struct Failed {
    /// The operator's name.
    pub operator: Arc<str>,
    /// The worker's number.
    pub worker: usize,
    /// Why.
    pub error: Error,
}

impl Failure {
    /// Keeps `error` if it is the first.
    pub fn fail(&self, operator: &Arc<str>, worker: usize, error: Error) {
        // A later failure is most often a consequence of the first, and there is one exit code.
        let _ = self.0.set(Failed { operator: operator.clone(), worker, error });
    }

    /// The first failure.
    pub fn get(&self) -> Option<&Failed> {
        self.0.get()
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operator {} on worker {} stopped: {}", self.operator, self.worker, self.error)
    }
}

/// What a worker gives to every operator on it.
#[derive(Clone)]
pub struct Host {
    /// The worker's number.
    pub worker: usize,
    /// How many workers there are.
    pub peers: usize,
    /// The state folder.
    pub store: Arc<Store>,
    /// Where parts of epochs go.
    pub sink: Arc<dyn EpochSink>,
    /// Where failures go.
    pub failure: Failure,
    /// Where CPU time is noted.
    pub efforts: Arc<Efforts>,
    /// The first epoch to process (the committed one's next) and the watermark that is known already.
    pub resume: Moment,
}

/// Puts an operator into the dataflow, behind `stream`, and gives its output edges in their order.
///
/// `name` names the operator everywhere, its state on disk included. Several streams of one shape are
/// concatenated before. There is always at least one output edge, even when [`Operator::outputs`] is 0: it carries
/// the frontier, and a probe on it sees when epochs have ended.
///
/// Fails when the state cannot be read or `build` does; the dataflow is then incomplete and must not run.
pub fn operate<'scope>(
    name: &str,
    stream: BatchStream<'scope>,
    route: Route,
    host: &Host,
    build: impl FnOnce(&mut StateRegistry) -> Result<Box<dyn Operator>, Error>,
) -> Result<Vec<BatchStream<'scope>>, Error> {
    let registry = StateRegistry::new(host.store.clone(), name, host.worker, host.peers, host.resume.epoch)?;
    let driver = Driver::new(registry, host.resume, build)?;
    let operator: Arc<str> = name.into();
    Ok(match route {
        Route::Pipeline => assemble(operator, stream, Pipeline, host, driver),
        Route::ByGroup { column } => {
            let (failure, receiver, worker) = (host.failure.clone(), operator.clone(), host.worker);
            let pact =
                DistributorPact(move |_peers: usize| GroupDistributor { column, failure, operator: receiver, worker });
            assemble(operator, stream, pact, host, driver)
        }
    })
}

fn assemble<'scope>(
    name: Arc<str>,
    stream: BatchStream<'scope>,
    pact: impl ParallelizationContract<Moment, Batch>,
    host: &Host,
    driver: Driver,
) -> Vec<BatchStream<'scope>> {
    let mut builder = OperatorBuilder::new(name.to_string(), stream.scope());
    let mut input = builder.new_input(stream, pact);
    let (outputs, streams): (Vec<_>, Vec<_>) = (0..driver.operator().outputs().max(1))
        .map(|_| {
            let (output, stream) = builder.new_output::<Batch>();
            (OutputBuilder::from(output), stream)
        })
        .unzip();
    let (host, effort) = (host.clone(), host.efforts.of(&name));
    builder.build(move |mut held| {
        for capability in &mut held {
            capability.downgrade(&host.resume);
        }
        let mut adaptor = Adaptor { name, host, driver, outputs, held, behind: None, stash: BTreeMap::new() };
        move |frontiers| {
            effort.spend(|| {
                input.for_each(|capability, batch| {
                    adaptor.take(Moment::meet(capability.stamp().iter()), std::mem::take(batch).0);
                });
                adaptor.advance(frontiers.first().and_then(|frontier| Moment::meet(frontier.frontier().iter())));
            });
        }
    });
    streams
}

/// An operator in the dataflow of one worker.
struct Adaptor {
    name: Arc<str>,
    host: Host,
    driver: Driver,
    outputs: Vec<OutputBuilder<Moment, NoopBuilder<Batch>>>,
    /// One capability per output; none after the input has closed and all is done.
    held: Vec<Capability<Moment>>,
    /// Up to where the operator has done what was due, where it left some of it for the next epoch.
    behind: Option<EventTime>,
    /// Batches by epoch, in order of arrival, each with the watermark that it was sent at.
    stash: BTreeMap<Epoch, VecDeque<(EventTime, RecordBatch)>>,
}

impl Adaptor {
    /// Keeps a batch until its epoch is open.
    fn take(&mut self, sent_at: Option<Moment>, batch: RecordBatch) {
        if self.host.failure.get().is_some() {
            return;
        }
        let sent_at = sent_at.unwrap_or(Moment::new(self.driver.open(), self.driver.watermark()));
        if sent_at.epoch < self.driver.open() || self.held.is_empty() {
            let (late, open) = (sent_at.epoch.0, self.driver.open().0);
            let detail = format!("a batch of epoch {late} arrived when {open} was open");
            let error = Error::Custom { operator: self.name.to_string(), detail };
            return self.host.failure.fail(&self.name, self.host.worker, error);
        }
        self.stash.entry(sent_at.epoch).or_default().push_back((sent_at.watermark, batch));
    }

    /// Goes as far as the input's frontier allows; `None` when the input has closed.
    fn advance(&mut self, frontier: Option<Moment>) {
        if self.host.failure.get().is_none()
            && let Err(error) = self.try_advance(frontier)
        {
            self.host.failure.fail(&self.name, self.host.worker, error);
        }
        if self.host.failure.get().is_some() {
            // The capability stays, so that the open epoch never ends; the input is let go of.
            self.stash.clear();
        }
    }

    fn try_advance(&mut self, frontier: Option<Moment>) -> Result<(), Error> {
        while !self.held.is_empty() && self.host.failure.get().is_none() {
            let open = self.driver.open();
            let Adaptor { driver, outputs, held, stash, .. } = self;
            let mut send = |output: usize, batch: RecordBatch| {
                if let (Some(output), Some(held)) = (outputs.get_mut(output), held.get(output)) {
                    output.activate().session_with_builder(held).give_container(&mut Batch(batch));
                }
            };
            for (_, batch) in stash.remove(&open).into_iter().flatten() {
                driver.batch(batch, &mut send)?;
            }
            let known = frontier.map_or(driver.watermark(), |frontier| frontier.watermark);
            let stashed = stash.values().flatten().map(|(sent_at, _)| *sent_at).min();
            driver.raise(stashed.map_or(known, |stashed| stashed.min(known)), &mut send)?;
            if frontier.is_some_and(|frontier| frontier.epoch <= open) {
                if !driver.operator().holds_watermark_within_epoch() {
                    self.hold();
                }
                break;
            }
            let ended = driver.end_epoch(&mut send)?;
            for changes in ended.state {
                self.host.sink.add(self.host.worker, open, Part::State { operator: self.name.clone(), changes });
            }
            for changes in ended.rows {
                self.host.sink.add(self.host.worker, open, Part::Rows(changes));
            }
            self.behind = ended.behind;
            if let Some(through) = ended.behind {
                let part = Part::Behind { operator: self.name.clone(), through };
                self.host.sink.add(self.host.worker, open, part);
            }
            if frontier.is_none() && self.stash.is_empty() {
                self.held.clear();
            }
            self.hold();
        }
        Ok(())
    }

    /// Moves the capabilities to the open epoch and the watermark, and lets the next operators see both: of the
    /// watermark no more than the operator has done, for what it does later is of times before it.
    fn hold(&mut self) {
        let watermark = self.driver.watermark();
        let done = self.behind.map_or(watermark, |behind| behind.min(watermark));
        for held in &mut self.held {
            let watermark = done.max(held.time().watermark);
            held.downgrade(&Moment::new(self.driver.open(), watermark));
        }
    }
}
