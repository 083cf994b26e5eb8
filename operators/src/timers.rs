//! An operator's timers: what it asked to be called for, kept in its state.
//!
//! Invariants: timers fire in the order of time, then key, then group, each once; a timer that was set is there
//! again after a restart, on the worker that then owns its key group.
//!
//! Bound: all timers of a worker are in memory, one small key each; an operator sets about one per open window
//! or key, not one per event.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use weir_schemas::time::EventTime;

use crate::error::Error;
use crate::operator::Timer;
use crate::state::{ByteTable, Codec, StateRegistry, TIMERS, at};

/// The timers of one operator on one worker.
pub(crate) struct Timers {
    table: ByteTable,
    set: BTreeSet<Timer>,
}

impl Timers {
    /// Reads the timers that the worker's key groups have.
    pub(crate) fn load(registry: &mut StateRegistry) -> Result<Timers, Error> {
        let table = registry.any_table(TIMERS)?;
        let operator = registry.operator().clone();
        let mut set = BTreeSet::new();
        table.scan(|group, mut key, _| {
            let at = EventTime::decode(&mut key).map_err(|error| at(&operator, error))?;
            set.insert(Timer { at, key: key.to_vec(), group });
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Timers { table, set })
    }

    /// Sets a timer; one that is set already stays one.
    pub(crate) fn set(&mut self, timer: Timer) -> Result<(), Error> {
        if !self.set.contains(&timer) {
            self.table.put(timer.group, &stored_key(&timer), &[])?;
            self.set.insert(timer);
        }
        Ok(())
    }

    /// Takes a timer back; one that is not set is no error.
    pub(crate) fn cancel(&mut self, timer: &Timer) -> Result<(), Error> {
        if self.set.remove(timer) {
            self.table.delete(timer.group, &stored_key(timer))?;
        }
        Ok(())
    }

    /// Takes the first timer that is due at `watermark`.
    pub(crate) fn pop_due(&mut self, watermark: EventTime) -> Result<Option<Timer>, Error> {
        if self.set.first().is_none_or(|first| first.at > watermark) {
            return Ok(None);
        }
        let Some(timer) = self.set.pop_first() else { return Ok(None) };
        self.table.delete(timer.group, &stored_key(&timer))?;
        Ok(Some(timer))
    }
}

/// The time, then the operator's key as it is: it ends where the stored key ends.
fn stored_key(timer: &Timer) -> Vec<u8> {
    let mut key = Vec::with_capacity(timer.key.len() + 8);
    timer.at.encode(&mut key);
    key.extend_from_slice(&timer.key);
    key
}
