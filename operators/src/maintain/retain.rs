//! What becomes of a window's state when nothing can change it by itself any more.
//!
//! Without retries it is dropped at once. With them it leaves memory, and what is on disk is dropped a *retained* span
//! later, in steps: one range per key group for many windows. How far windows are final is kept beside them, so that a
//! restart looks for the open ones alone, however many are kept behind them.
//!
//! All of it goes by the log's own watermark: the end of a run makes nothing final.

use weir_schemas::time::{EventTime, Span};

use super::{Maintain, OpenWindow};
use crate::error::Error;
use crate::group_key::{decode_start, encode_start};
use crate::state::Stored;

/// The key beside how far windows were closed.
const FINAL: &[u8] = b"final";
/// In how many steps what is kept is dropped.
const STEPS: i64 = 64;

impl Maintain {
    fn retains(&self) -> bool {
        self.keeping.retained > Span(0)
    }

    /// How far windows were final, and where in a key group's table the others begin.
    pub(super) fn recover_final(&mut self) -> Result<Vec<u8>, Error> {
        if !self.retains() {
            return Ok(Vec::new());
        }
        let mut least: Option<EventTime> = None;
        for group in self.owned.clone() {
            let stored = self.closed.get(group, FINAL)?;
            let through = match stored.as_ref().and_then(Stored::whole) {
                Some(bytes) => EventTime(decode_start(bytes)?),
                None => EventTime::MIN,
            };
            least = Some(least.map_or(through, |least| least.min(through)));
        }
        self.final_through = least.unwrap_or(EventTime::MIN);
        let is_known = self.final_through > EventTime::MIN;
        Ok(if is_known { encode_start(self.final_through.0).to_vec() } else { Vec::new() })
    }

    /// Lets go of what is final at `watermark`, but not of windows that aren't closed up to `complete` yet.
    pub(super) fn finalise(&mut self, watermark: EventTime, complete: EventTime) -> Result<(), Error> {
        let lateness = self.keeping.allowed_lateness;
        let through = self.windows.final_through(watermark, lateness).min(complete);
        if !self.retains() {
            return self.drop_final(through);
        }
        self.leave_memory(through)?;
        if watermark == EventTime::MIN {
            return Ok(());
        }
        let retained = self.keeping.retained;
        let boundary = self.windows.final_through(watermark, Span(lateness.0.saturating_add(retained.0))).min(complete);
        let is_due = self.dropped_through == EventTime::MIN
            || boundary >= self.dropped_through.plus(Span((retained.0 / STEPS).max(1)));
        if is_due && boundary > self.dropped_through {
            self.dropped_through = boundary;
            for group in self.owned.clone() {
                self.table.delete_range(group, &[], &encode_start(boundary.0))?;
            }
        }
        Ok(())
    }

    /// Saves the groups of every window that ends at `through` or before, and keeps them on disk alone.
    fn leave_memory(&mut self, through: EventTime) -> Result<(), Error> {
        let kept = self.open_windows.split_off(&through.0);
        let left = std::mem::replace(&mut self.open_windows, kept);
        if !left.is_empty() {
            for slot in self.groups.of_windows_before(through.0) {
                self.save(slot)?;
                self.groups.remove(slot);
            }
        }
        if through > self.final_through {
            self.final_through = through;
            for group in self.owned.clone() {
                self.closed.put(group, FINAL, &encode_start(through.0))?;
            }
        }
        Ok(())
    }

    /// Drops the state of every window that ends at `through` or before.
    fn drop_final(&mut self, through: EventTime) -> Result<(), Error> {
        if through <= self.final_through {
            return Ok(());
        }
        self.final_through = through;
        self.dropped_through = through;
        let kept = self.open_windows.split_off(&through.0);
        let dropped = std::mem::replace(&mut self.open_windows, kept);
        if dropped.is_empty() {
            return Ok(());
        }
        for slot in self.groups.of_windows_before(through.0) {
            self.groups.remove(slot);
        }
        let mut all = OpenWindow::default();
        for window in dropped.values() {
            all.groups.iter_mut().zip(window.groups).for_each(|(all, groups)| *all |= groups);
        }
        // One range per key group, however many windows there are.
        all.key_groups().into_iter().try_for_each(|group| self.table.delete_range(group, &[], &encode_start(through.0)))
    }
}
