//! Calls an operator by the contract: effects after every call, timers before `on_watermark`, state frozen at
//! the end of each epoch. The adaptor drives it from a dataflow, the test script from virtual time.

use std::sync::Arc;

use arrow_array::RecordBatch;
use weir_schemas::rows::Changes;
use weir_schemas::time::{Epoch, EventTime};

use crate::error::Error;
use crate::moment::Moment;
use crate::operator::{Context, Effects, Operator};
use crate::state::{FrozenChanges, StateRegistry};
use crate::timers::Timers;

/// An operator with its state, at a moment.
pub(crate) struct Driver {
    operator: Box<dyn Operator>,
    registry: StateRegistry,
    timers: Timers,
    open: Epoch,
    watermark: EventTime,
    /// The watermark with which the last epoch ended that wasn't the last one of a run.
    log_watermark: EventTime,
    rows: Vec<Changes>,
    /// Kept between calls for its buffers.
    effects: Effects,
}

/// What an ended epoch leaves for its commit.
pub(crate) struct Ended {
    pub(crate) state: Vec<Arc<FrozenChanges>>,
    pub(crate) rows: Vec<Changes>,
    /// Up to where what was due is done, where that isn't everything.
    pub(crate) behind: Option<EventTime>,
}

/// Takes what an operator emits: the output's number and the batch.
pub(crate) type Send<'a> = &'a mut dyn FnMut(usize, RecordBatch);

impl Driver {
    /// Builds the operator on the tables of `registry`; `resume` is its first epoch and the watermark it knows.
    pub(crate) fn new(
        mut registry: StateRegistry,
        resume: Moment,
        build: impl FnOnce(&mut StateRegistry) -> Result<Box<dyn Operator>, Error>,
    ) -> Result<Driver, Error> {
        let timers = Timers::load(&mut registry)?;
        let operator = build(&mut registry)?;
        Ok(Driver {
            operator,
            registry,
            timers,
            open: resume.epoch,
            watermark: resume.watermark,
            log_watermark: resume.watermark,
            rows: Vec::new(),
            effects: Effects::default(),
        })
    }

    pub(crate) fn operator(&self) -> &dyn Operator {
        &*self.operator
    }

    /// The open epoch.
    pub(crate) fn open(&self) -> Epoch {
        self.open
    }

    /// The watermark that the operator was last shown.
    pub(crate) fn watermark(&self) -> EventTime {
        self.watermark
    }

    /// Shows it a batch of the open epoch.
    pub(crate) fn batch(&mut self, batch: RecordBatch, send: Send<'_>) -> Result<(), Error> {
        self.call(send, |operator, context| operator.on_batch(batch, context))?;
        self.fire(send)
    }

    /// Raises its watermark; one that is not greater does nothing.
    pub(crate) fn raise(&mut self, watermark: EventTime, send: Send<'_>) -> Result<(), Error> {
        if watermark <= self.watermark {
            return Ok(());
        }
        self.watermark = watermark;
        self.fire(send)?;
        self.call(send, |operator, context| operator.on_watermark(context))?;
        self.fire(send)
    }

    /// Ends the open epoch and opens the next.
    pub(crate) fn end_epoch(&mut self, send: Send<'_>) -> Result<Ended, Error> {
        self.call(send, |operator, context| operator.end_of_epoch(context))?;
        self.fire(send)?;
        let state = self.registry.freeze(self.open)?;
        self.open = self.open.next();
        self.log_watermark = self.log_watermark();
        Ok(Ended { state, rows: std::mem::take(&mut self.rows), behind: self.effects.take_behind() })
    }

    /// How far the log has come. Within the epoch that ends a run the workers come to its end one after the other, and
    /// the watermark is in between that of those that are last: it says nothing of the log.
    pub(crate) fn log_watermark(&self) -> EventTime {
        if self.watermark == EventTime::MAX { self.log_watermark } else { self.watermark }
    }

    fn fire(&mut self, send: Send<'_>) -> Result<(), Error> {
        while let Some(timer) = self.timers.pop_due(self.watermark)? {
            self.call(send, |operator, context| operator.on_timer(timer, context))?;
        }
        Ok(())
    }

    /// Makes one call and carries out its effects.
    fn call(
        &mut self,
        send: Send<'_>,
        call: impl FnOnce(&mut dyn Operator, &mut Context<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let log_watermark = self.log_watermark();
        let mut context = Context::new(self.open, self.watermark, &mut self.effects).with_log_watermark(log_watermark);
        call(&mut *self.operator, &mut context)?;
        for (timer, is_set) in self.effects.timers.drain(..) {
            if is_set { self.timers.set(timer)? } else { self.timers.cancel(&timer)? }
        }
        let outputs = self.operator.outputs();
        for (output, batch) in self.effects.emitted.drain(..) {
            if output >= outputs {
                let operator = self.registry.operator().to_string();
                let detail = format!("it emits on output {output}, but has {outputs}, numbered from 0");
                return Err(Error::Custom { operator, detail });
            }
            send(output, batch);
        }
        self.rows.append(&mut self.effects.changes);
        Ok(())
    }
}
