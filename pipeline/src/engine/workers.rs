//! The workers: each builds the dataflow for its share and steps it until it is sent home.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use timely::dataflow::ProbeHandle;
use timely::scheduling::activate::Activator;
use timely::worker::Worker;
use weir_operators::adaptor::{Failure, Host};
use weir_operators::moment::Moment;
use weir_operators::state::Store;
use weir_schemas::time::{Epoch, EventTime};

use super::{FirstError, OpenSource};
use crate::clock::Clock;
use crate::dataflow::{self, SourceGraph, Wiring};
use crate::epochs::Epochs;
use crate::error::Error;
use crate::feed::FeedContext;
use crate::gather::Gathered;
use crate::metrics::Metrics;
use crate::shares::Shares;

/// How long a worker with nothing to do sleeps before it looks at its sources again.
pub(super) const IDLE_PAUSE: Duration = Duration::from_millis(2);

/// What the workers share.
pub(super) struct Workforce {
    pub(super) sources: Vec<WorkerSource>,
    pub(super) operator_bytes: usize,
    pub(super) idle_pause: Duration,
    pub(super) resume: Epoch,
    pub(super) in_flight_bytes: u64,
    pub(super) store: Arc<Store>,
    pub(super) gathered: Arc<Gathered>,
    pub(super) epochs: Arc<Epochs>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    pub(super) failure: Failure,
    pub(super) error: FirstError,
}

pub(super) struct WorkerSource {
    pub(super) graph: SourceGraph,
    pub(super) open: OpenSource,
    pub(super) told: EventTime,
    pub(super) shares: Arc<Shares>,
}

impl Workforce {
    /// A worker's life.
    pub(super) fn work(&self, worker: &mut Worker) {
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
                worker.step_or_park(Some(self.idle_pause));
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
    ) -> Result<Activator, Error> {
        let (index, peers) = (worker.index(), worker.peers());
        let opened = (source.open)(index, peers)?;
        let wiring = Wiring {
            host: Host {
                worker: index,
                peers,
                store: self.store.clone(),
                sink: self.gathered.clone(),
                failure: self.failure.clone(),
                efforts: self.metrics.efforts(),
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
