//! Gathering: what the workers' operators and sources hand over for an epoch's commit.
//!
//! Rows are encoded here, on the worker's own thread, so that the committer only has to write; save those of alerts,
//! which the committer gives their samples first. Each worker has a lock of its own, which it shares with nobody but the
//! committer, once per epoch.
//!
//! Invariant: [`Gathered::take`] is only called for an epoch that every worker has passed, so nothing is added to it
//! any more.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use weir_operators::adaptor::{EpochSink, Part};
use weir_operators::state::FrozenChanges;
use weir_schemas::place::Place;
use weir_schemas::rows::Changes;
use weir_schemas::time::{Epoch, EventTime, Version};
use weir_sinks::{Encode, OutRow};

use crate::error::Error;
use crate::lineage::Consumed;
use crate::outbox::DestinationId;
use crate::samples::wants_samples;
use crate::source::PartitionPosition;

/// Where the rows of a table go, and how their bytes look there.
#[derive(Clone)]
pub struct Route {
    /// The destination.
    pub destination: DestinationId,
    /// Its encoder.
    pub encode: Arc<dyn Encode>,
}

/// Where a worker left an epoch, for one source.
#[derive(Clone, Debug)]
pub struct LeftAt {
    /// The index of the source.
    pub source: usize,
    /// The watermark that the dataflow had been told; [`EventTime::MAX`] when its run ended here.
    pub watermark: EventTime,
    /// The watermark of the log, from which another run goes on; the same one until the run ends.
    pub log_watermark: EventTime,
    /// How far each of its partitions was read.
    pub positions: Vec<PartitionPosition>,
    /// The places whose retries it took in the epoch.
    pub retried: Vec<Place>,
    /// What the epoch took of them.
    pub consumed: Vec<Consumed>,
}

/// What one worker gathered for one epoch.
#[derive(Default)]
pub struct Parts {
    /// Changes of state.
    pub state: Vec<Arc<FrozenChanges>>,
    /// Encoded rows.
    pub rows: Vec<(DestinationId, OutRow)>,
    /// Rows of alerts, without their samples.
    pub alerts: Vec<Changes>,
    /// Operators that go on in the next epoch with what was due in this one, and up to where it is done.
    pub behind: Vec<(Arc<str>, EventTime)>,
    /// Where its sources were when the epoch ended.
    pub left: Vec<LeftAt>,
    /// Bytes that its sources fetched in the epoch.
    pub bytes: u64,
}

/// The parts of the open epochs, by worker.
pub struct Gathered {
    routes: HashMap<Arc<str>, Vec<Route>>,
    generation: u32,
    workers: Vec<Mutex<BTreeMap<Epoch, Parts>>>,
    failure: OnceLock<weir_sinks::Error>,
}

impl Gathered {
    /// Nothing yet, from `workers` workers. Rows of a table without a route are dropped: nobody asked for them.
    pub fn new(routes: HashMap<Arc<str>, Vec<Route>>, generation: u32, workers: usize) -> Gathered {
        let workers = (0..workers).map(|_| Mutex::default()).collect();
        Gathered { routes, generation, workers, failure: OnceLock::new() }
    }

    /// Adds rows to `epoch`.
    pub fn add_rows(&self, worker: usize, epoch: Epoch, changes: &Changes) {
        if wants_samples(&changes.table) {
            return self.with(worker, epoch, |parts| parts.alerts.push(changes.clone()));
        }
        let Some(routes) = self.routes.get(&changes.table) else { return };
        let mut encoded = Vec::new();
        for route in routes {
            match self.encode(route, epoch, changes) {
                Ok(rows) => encoded.extend(rows),
                // The committer finds it before it commits the epoch.
                Err(error) => drop(self.failure.set(error)),
            }
        }
        self.with(worker, epoch, |parts| parts.rows.append(&mut encoded));
    }

    fn encode(
        &self,
        route: &Route,
        epoch: Epoch,
        changes: &Changes,
    ) -> Result<Vec<(DestinationId, OutRow)>, weir_sinks::Error> {
        let mut rows = Vec::new();
        route.encode.encode(changes, Version::of(self.generation, epoch), &mut rows)?;
        Ok(rows.into_iter().map(|row| (route.destination, row)).collect())
    }

    /// Encodes rows that are no worker's.
    ///
    /// # Errors
    /// When they don't have the columns of their table: a bug.
    pub fn encode_all(&self, epoch: Epoch, changes: &Changes) -> Result<Vec<(DestinationId, OutRow)>, Error> {
        let mut rows = Vec::new();
        for route in self.routes.get(&changes.table).into_iter().flatten() {
            rows.extend(self.encode(route, epoch, changes)?);
        }
        Ok(rows)
    }

    /// Counts bytes that were fetched for `epoch`.
    pub fn add_bytes(&self, worker: usize, epoch: Epoch, bytes: u64) {
        self.with(worker, epoch, |parts| parts.bytes += bytes);
    }

    /// Tells where `worker` left `epoch`.
    pub fn leave(&self, worker: usize, epoch: Epoch, left: LeftAt) {
        self.with(worker, epoch, |parts| parts.left.push(left));
    }

    /// Takes the parts of `epoch`, by worker.
    ///
    /// # Errors
    /// When rows of it or of a later epoch could not be encoded.
    pub fn take(&self, epoch: Epoch) -> Result<Vec<Parts>, Error> {
        if let Some(error) = self.failure.get() {
            return Err(Error::Stopped(format!("rows could not be encoded: {error}")));
        }
        Ok(self.workers.iter().map(|worker| lock(worker).remove(&epoch).unwrap_or_default()).collect())
    }

    fn with(&self, worker: usize, epoch: Epoch, change: impl FnOnce(&mut Parts)) {
        if let Some(parts) = self.workers.get(worker) {
            change(lock(parts).entry(epoch).or_default());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EpochSink for Gathered {
    fn add(&self, worker: usize, epoch: Epoch, part: Part) {
        match part {
            Part::State { changes, .. } => self.with(worker, epoch, |parts| parts.state.push(changes)),
            Part::Rows(changes) => self.add_rows(worker, epoch, &changes),
            Part::Behind { operator, through } => {
                self.with(worker, epoch, |parts| parts.behind.push((operator, through)));
            }
        }
    }
}
