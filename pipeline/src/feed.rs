//! The feed: the timely operator that lets a source read, and holds the capability that everything downstream waits for.
//!
//! Invariants:
//! - What is polled while e is open belongs to e; leaving e records the positions of all of it before the capability
//!   moves on.
//! - The watermark rises within e only after every worker has passed e-1. So the watermark recorded with e is the
//!   greatest that any operator was shown in e, and a restart from e can tell the source exactly what was promised.
//! - At the end of a run the watermark goes to the end of time, so that everything is closed, in an epoch after the one
//!   that shows how far the log itself has come: what goes by that doesn't depend on how the log was cut into epochs. The
//!   log's own is recorded beside it: another run goes on from that one, as if this one hadn't ended.
//! - Leaving an epoch needs no budget, and no call here waits for anything.
//!
//! Not here: which partition is read next and which one waits (the source's).

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use timely::container::NoopBuilder;
use timely::dataflow::Scope;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::scheduling::activate::Activator;
use weir_operators::moment::Moment;
use weir_operators::route::{Batch, BatchStream};
use weir_schemas::time::{Epoch, EventTime};

use crate::clock::Clock;
use crate::crash::{self, CrashPoint};
use crate::epochs::{Epochs, poll_budget};
use crate::error::Error;
use crate::gather::{Gathered, LeftAt};
use crate::metrics::Metrics;
use crate::shares::{Share, Shares};
use crate::source::Source;

/// Bytes that one poll may bring, so that a worker's other operators get their turn.
const POLL_BYTES: u64 = 4 << 20;

/// How often people are told where the partitions are.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// What a feed works with besides its source.
#[derive(Clone)]
pub struct FeedContext {
    /// The worker.
    pub worker: usize,
    /// The index of the source.
    pub source: usize,
    /// Its name.
    pub name: String,
    /// Bytes that this worker may have in flight, over all its sources.
    pub in_flight_bytes: u64,
    /// How far everybody is.
    pub epochs: Arc<Epochs>,
    /// What the epochs' commits need.
    pub gathered: Arc<Gathered>,
    /// The other workers' shares of this source.
    pub shares: Arc<Shares>,
    /// Where counts are noted.
    pub metrics: Arc<Metrics>,
    /// Wall time.
    pub clock: Clock,
}

/// A source's four edges.
pub struct FeedStreams<'scope> {
    /// Events in time that kept the rules.
    pub events: BatchStream<'scope>,
    /// Refused records.
    pub refused: BatchStream<'scope>,
    /// Counts for the ledger.
    pub tallies: BatchStream<'scope>,
    /// Events in time that were refused, where the source has sequences.
    pub refused_events: BatchStream<'scope>,
    /// Wakes the feed.
    pub activator: Activator,
}

/// What a feed does in one turn, as the operator carries it out.
#[derive(Default)]
struct Turn {
    /// Batches by edge, to be sent at the moment before the turn's.
    batches: [Vec<RecordBatch>; 4],
    /// Whether anything came.
    has_moved: bool,
}

/// A source and how far it is.
struct Feed {
    cx: FeedContext,
    source: Box<dyn Source>,
    at: Moment,
    /// The watermark that the source has reached, which is the log's; the dataflow is shown it as soon as it may be.
    reached: EventTime,
    /// The epoch in which the dataflow was last shown a watermark of the log.
    raised_in: Option<Epoch>,
    /// The epoch in which it was shown where the log ended.
    end_shown_in: Option<Epoch>,
    is_idle: bool,
    is_ended: bool,
    told_at: Option<Instant>,
}

impl Feed {
    /// Ends epochs that have ended. Returns the moment to move on to, if there is one.
    fn leave(&mut self) -> Option<Moment> {
        let open = self.cx.epochs.open();
        if open <= self.at.epoch {
            return None;
        }
        // The epoch after the open one opens only when the one before it is committed, so every worker has passed that.
        self.at.watermark = self.at.watermark.max(self.reached);
        let left = LeftAt {
            source: self.cx.source,
            watermark: self.at.watermark,
            log_watermark: self.reached,
            positions: self.source.positions(),
            retried: self.source.take_retried(),
            consumed: self.source.take_consumed(),
        };
        self.cx.gathered.leave(self.cx.worker, self.at.epoch, left);
        self.at.epoch = self.at.epoch.next();
        self.tell(true);
        Some(self.at)
    }

    /// Reads, if there is budget for it.
    fn poll(&mut self) -> Result<Turn, Error> {
        if self.cx.epochs.is_closed() {
            return Ok(Turn::default());
        }
        let FeedContext { worker, epochs, gathered, .. } = &self.cx;
        let budget = poll_budget(self.cx.in_flight_bytes, epochs.in_flight_bytes_of(*worker), POLL_BYTES);
        let others = self.cx.shares.tell(*worker, self.share());
        let polled = self.source.poll(self.at.epoch, self.cx.clock.now_ms(), budget, others)?;
        if polled.bytes > 0 {
            epochs.fetched(*worker, polled.bytes);
            gathered.add_bytes(*worker, self.at.epoch, polled.bytes);
            self.cx.metrics.fetched(&self.cx.name, polled.bytes);
            crash::pass(CrashPoint::AfterPoll);
        }
        for (rule, mode, count) in &polled.broken {
            self.cx.metrics.rule_broken(&self.cx.name, rule, *mode, *count);
        }
        for judgement in &polled.judgements {
            gathered.add_rows(*worker, self.at.epoch, judgement);
        }
        self.is_idle = polled.idle;
        self.is_ended = self.source.at_end();
        self.reached = self.reached.max(polled.watermark);
        let batches = [polled.events, polled.refused, polled.tallies, polled.refused_events];
        let has_moved = polled.bytes > 0 || batches.iter().flatten().any(|batch| batch.num_rows() > 0);
        Ok(Turn { batches, has_moved })
    }

    /// Raises the watermark as far as it may be. Returns the moment to move on to, if it rose.
    fn raise(&mut self) -> Option<Moment> {
        let may_rise = self.cx.epochs.passed().next() >= self.at.epoch;
        // Only together: a share that went ahead would let go of state that another run's late events need.
        let has_run_ended = self.is_ended && self.cx.shares.are_at_end();
        if !may_rise {
            return None;
        }
        let reached = if has_run_ended { self.at_the_end() } else { self.reached };
        if reached <= self.at.watermark {
            return None;
        }
        self.at.watermark = reached;
        self.raised_in = Some(self.at.epoch);
        Some(self.at)
    }

    /// The watermark of a run that has ended: the log's own, as it stood when the end was seen (the clock carries it on), and
    /// from the next epoch on the end of time.
    fn at_the_end(&mut self) -> EventTime {
        let is_shown = self.reached <= self.at.watermark && self.raised_in.is_none_or(|epoch| epoch < self.at.epoch);
        match self.end_shown_in {
            None if is_shown => EventTime::MAX,
            None => {
                self.end_shown_in = Some(self.at.epoch);
                self.reached
            }
            Some(epoch) if epoch < self.at.epoch => EventTime::MAX,
            Some(_) => self.at.watermark,
        }
    }

    fn share(&self) -> Share {
        match self.at.watermark {
            EventTime::MAX if self.is_ended => Share::Ended,
            watermark if self.is_ended => Share::AtEnd(watermark),
            watermark if self.is_idle => Share::Idle(watermark),
            watermark => Share::Reading(watermark),
        }
    }

    fn tell(&mut self, is_due: bool) {
        if is_due || self.told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            self.cx.shares.tell(self.cx.worker, self.share());
            self.cx.shares.tell_partitions(self.cx.worker, self.source.status());
            self.told_at = Some(Instant::now());
        }
    }
}

/// Puts `source` into the dataflow. It goes on from `resume`; `busy` is set when something came, and an error goes to
/// `fail`, after which it reads no more and lets no epoch end.
pub fn feed<'scope>(
    scope: Scope<'scope, Moment>,
    cx: FeedContext,
    source: Box<dyn Source>,
    resume: Moment,
    busy: Rc<Cell<bool>>,
    fail: impl Fn(Error) + 'static,
) -> FeedStreams<'scope> {
    let mut builder = OperatorBuilder::new(format!("source {}", cx.name), scope);
    let address = builder.operator_info().address;
    let activator = scope.activator_for(address);
    let (outputs, streams): (Vec<_>, Vec<_>) = (0..4)
        .map(|_| {
            let (output, stream) = builder.new_output::<Batch>();
            (OutputBuilder::<Moment, NoopBuilder<Batch>>::from(output), stream)
        })
        .unzip();
    let mut outputs = outputs;
    let effort = cx.metrics.efforts().of(&format!("{}/source", cx.name));
    let at = resume;
    let reached = at.watermark;
    let mut feed = Feed {
        cx,
        source,
        at,
        reached,
        raised_in: None,
        end_shown_in: None,
        is_idle: false,
        is_ended: false,
        told_at: None,
    };
    builder.build(move |mut held| {
        let mut has_failed = false;
        held.iter_mut().for_each(|held| held.downgrade(&resume));
        move |_frontiers| {
            if has_failed {
                return;
            }
            let go_to = |held: &mut Vec<Capability<Moment>>, moment: Moment| {
                held.iter_mut().for_each(|held| held.downgrade(&moment));
            };
            while let Some(moment) = feed.leave() {
                go_to(&mut held, moment);
            }
            let turn = match effort.spend(|| feed.poll()) {
                Ok(turn) => turn,
                Err(error) => {
                    has_failed = true;
                    return fail(error);
                }
            };
            busy.set(busy.get() || turn.has_moved);
            for ((output, held), batches) in outputs.iter_mut().zip(&held).zip(turn.batches) {
                for batch in batches.into_iter().filter(|batch| batch.num_rows() > 0) {
                    output.activate().session_with_builder(held).give_container(&mut Batch(batch));
                }
            }
            if let Some(moment) = feed.raise() {
                go_to(&mut held, moment);
            }
            feed.tell(false);
        }
    });
    let mut streams = streams.into_iter();
    let mut next = || streams.next();
    match (next(), next(), next(), next()) {
        (Some(events), Some(refused), Some(tallies), Some(refused_events)) => {
            FeedStreams { events, refused, tallies, refused_events, activator }
        }
        _ => unreachable!("four outputs were made above"),
    }
}
