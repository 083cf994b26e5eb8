//! The operator: the one interface through which everything is computed, built-in or a team's own.
//!
//! An operator sees epochs strictly in order. Within an epoch it sees batches and rising watermarks in any
//! interleaving that keeps this promise: no event of a later batch is older than the watermark it was shown,
//! save *late* events, which the source judged to be within the allowed lateness. Then `end_of_epoch` comes,
//! once, and what its state tables changed since the last one is frozen as bytes for the epoch's commit.
//!
//! Not here: how an operator stands in a timely dataflow (the adaptor), where state is kept (the tables).

use arrow_array::RecordBatch;
use weir_schemas::rows::Changes;
use weir_schemas::time::{Epoch, EventTime};

use crate::error::Error;

/// What is computed on a stream of record batches.
pub trait Operator: 'static {
    /// Takes the rows of `batch`, all of the open epoch.
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error>;

    /// The watermark rose to `cx.watermark()`; called after every batch that stands before it.
    fn on_watermark(&mut self, _cx: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// The watermark reached a timer that this operator set; timers fire in order of time, then key,
    /// before `on_watermark` of the same rise.
    fn on_timer(&mut self, _timer: Timer, _cx: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// The open epoch ends: emit what belongs to it. Its state tables are frozen right after.
    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error>;

    /// How many output edges it has; [`Context::emit`] sends on the first.
    fn outputs(&self) -> usize {
        1
    }

    /// Whether what this operator emits at the end of an epoch may be as old as the watermark was when the
    /// epoch began. Such an operator (it gathers before an exchange) passes the watermark on at the end of
    /// each epoch only.
    fn holds_watermark_within_epoch(&self) -> bool {
        false
    }
}

/// A point in event time at which an operator wants to be called, and for what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    /// When: fires as soon as the watermark is at or past it.
    pub at: EventTime,
    /// The operator's own key.
    pub key: Vec<u8>,
    /// The key group of the state that it is about, so that it follows that state to another worker.
    pub group: u16,
}

/// What an operator may do while it is called.
pub struct Context<'a> {
    epoch: Epoch,
    watermark: EventTime,
    log_watermark: EventTime,
    effects: &'a mut Effects,
}

impl Effects {
    /// Up to where what was due is done, where that isn't everything; asked once an epoch.
    pub(crate) fn take_behind(&mut self) -> Option<EventTime> {
        self.behind.take()
    }
}

/// What an operator did in one call; the adaptor and the test script carry it out.
#[derive(Default)]
pub struct Effects {
    /// Batches with the number of the output edge they leave on, in order.
    pub emitted: Vec<(usize, RecordBatch)>,
    /// Rows for the epoch's outbox, in order.
    pub changes: Vec<Changes>,
    /// Timers to set (`true`) and to cancel (`false`), in order.
    pub timers: Vec<(Timer, bool)>,
    /// Up to where what is due by the watermark is done, where some of it is left for the next epoch.
    pub behind: Option<EventTime>,
}

impl<'a> Context<'a> {
    /// A context for one call.
    pub fn new(epoch: Epoch, watermark: EventTime, effects: &'a mut Effects) -> Context<'a> {
        // Of a log whose run ends here nothing is known, unless it is told.
        let log_watermark = if watermark == EventTime::MAX { EventTime::MIN } else { watermark };
        Context { epoch, watermark, log_watermark, effects }
    }

    /// The same context at the end of a run whose log has come to `log_watermark`.
    #[must_use]
    pub fn with_log_watermark(self, log_watermark: EventTime) -> Context<'a> {
        Context { log_watermark, ..self }
    }

    /// The open epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The watermark: every event that is still to come and older is a late one.
    pub fn watermark(&self) -> EventTime {
        self.watermark
    }

    /// How far the log itself has come. Until a run ends, this is the watermark. When it ends, the watermark goes to
    /// [`EventTime::MAX`], and everything that is open is closed; this stays where the epoch before ended, since another run
    /// may go on from the state, and to that one an event is late or too late as if nothing had been in between. So
    /// state that a late event may need goes by this one.
    pub fn log_watermark(&self) -> EventTime {
        self.log_watermark
    }

    /// Sends `batch` to the next operator; an empty one is dropped.
    pub fn emit(&mut self, batch: RecordBatch) {
        self.emit_to(0, batch);
    }

    /// Sends `batch` on output edge `output`; an empty one is dropped.
    pub fn emit_to(&mut self, output: usize, batch: RecordBatch) {
        if batch.num_rows() > 0 {
            self.effects.emitted.push((output, batch));
        }
    }

    /// Writes rows of a table that this operator declared; they leave with the epoch's commit.
    pub fn write(&mut self, changes: Changes) {
        if changes.rows.num_rows() > 0 {
            self.effects.changes.push(changes);
        }
    }

    /// Tells at the end of an epoch that more was due than one epoch should hold: all of it is done up to `through`, and the
    /// rest is in the epochs that follow. What readers are told of completeness goes no further, and a run doesn't end.
    pub fn leave_for_later(&mut self, through: EventTime) {
        self.effects.behind = Some(through);
    }

    /// Asks for a call when the watermark reaches `timer.at`; setting the same timer twice is one timer.
    pub fn set_timer(&mut self, timer: Timer) {
        self.effects.timers.push((timer, true));
    }

    /// Takes a timer back; one that was never set is no error.
    pub fn cancel_timer(&mut self, timer: Timer) {
        self.effects.timers.push((timer, false));
    }
}
