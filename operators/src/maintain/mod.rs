//! Keeps a view: merges partial states into its groups, and writes and corrects the view's rows.
//!
//! One per view, behind an exchange by key group. Groups live in memory as slots of the accumulators, with a table of
//! bytes beneath them; what does not fit is evicted and read back when it is touched. Everything that is decided about
//! rows is decided at the end of an epoch, by the watermark that stands then:
//!
//! - rows of open windows leave each epoch when the view is *provisional*, else when their window closes; those with
//!   big states leave an open window in turn, as many bytes an epoch as [`Keeping::provisional_bytes`] allows, so that
//!   how old such a row may be is bounded by what all of them weigh;
//! - a group that changes after its window was closed gets a row with a higher `revision`;
//! - a group for which HAVING is not true has no row, and a tombstone if it had one;
//! - when allowed lateness has passed, too, the window is final and its state leaves memory. It is dropped at once, or,
//!   where the source takes retried records, kept on disk for `retained` longer: a retried event then reads it back,
//!   is merged, and the row leaves again with a higher revision.
//!
//! Windows close in the order of their starts, and after a silence no more of them in one epoch than
//! [`Keeping::closing_bytes`] allows: the rest follows in the next epochs, and readers are told of completeness no
//! further than that. A window is not split, so that it is the least that an epoch closes.
//!
//! Invariants: for each group the last row written is the whole aggregate of all its partial states up to that epoch
//! (or it is held back and written at close); the rows do not depend on how much memory there is.
//!
//! Not here: `is_closed` and `is_final`, which the reader's view works out from `weir_progress`.

mod leave;
mod retain;
mod rows;
mod slots;
mod value;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt16Type;
use arrow_array::{Array, BinaryArray, RecordBatch};
use arrow_schema::ArrowError;
use weir_schemas::time::{EventTime, Span};
use xxhash_rust::xxh3::xxh3_64;

pub use rows::{REVISION, view_table};

use crate::aggregate::{Delta, accumulator};
use crate::combine::{GROUP, KEY, STATES};
use crate::error::Error;
use crate::group_key::{KeyFormat, decode_start, encode_start};
use crate::operator::{Context, Operator};
use crate::route::GROUPS;
use crate::state::{ByteTable, StateRegistry, Stored};
use crate::through::Through;
use crate::view::ViewPlan;
use crate::window::Windows;
use rows::RowFormat;
use slots::Slots;

/// Tables of the operator's state; the numbers are part of the keys on disk.
const GROUPS_TABLE: u16 = 0;
const CLOSED_TABLE: u16 = 1;

/// Groups that are read, merged or written together.
const CHUNK: usize = 1_024;
/// States that are written together, at most, in bytes; one group may be larger.
const CHUNK_BYTES: usize = 32 << 20;
/// States from this size on leave an open window in turn.
const BIG_STATE_BYTES: usize = 64 << 10;
/// Pieces of a stored value, from which on it is put whole again.
const MOST_PIECES: u32 = 16;

/// How a view is kept.
#[derive(Clone, Copy, Debug)]
pub struct Keeping {
    /// Write rows of open windows each epoch.
    pub provisional: bool,
    /// How long after its close a window is still corrected.
    pub allowed_lateness: Span,
    /// How much longer its state is kept on disk, for retried events; zero where none can come.
    pub retained: Span,
    /// Bytes that groups in memory may take on one worker, roughly.
    pub memory_bytes: usize,
    /// Bytes of groups whose rows leave an epoch because their windows close, roughly; a window more is always closed.
    pub closing_bytes: usize,
    /// Bytes of big states whose rows leave open windows in an epoch, on the average.
    pub provisional_bytes: usize,
}

/// [`Keeping::closing_bytes`] of a pipeline: some hundred thousand rows.
pub const CLOSING_BYTES: usize = 64 << 20;
/// [`Keeping::provisional_bytes`] of a pipeline: what ClickHouse takes each second from every worker and view, and merges.
pub const PROVISIONAL_BYTES: usize = 4 << 20;

/// The operator that keeps one view's rows.
pub struct Maintain {
    plan: Arc<ViewPlan>,
    keeping: Keeping,
    windows: Windows,
    format: KeyFormat,
    row_format: RowFormat,
    table: ByteTable,
    closed: ByteTable,
    groups: Slots,
    /// Slots whose groups changed in the open epoch.
    changed: Vec<u32>,
    /// Groups that changed in the open epoch and were evicted since, with their key groups.
    evicted: BTreeMap<Box<[u8]>, u16>,
    waiting: Waiting,
    /// The windows that have state, by start.
    open_windows: BTreeMap<i64, OpenWindow>,
    owned: std::ops::Range<u16>,
    /// Up to where windows were closed by earlier epochs.
    complete_through: Through,
    /// Every window that ends here or before is final: its state is on disk only, or gone.
    final_through: EventTime,
    /// The state of every window that ends here or before is gone.
    dropped_through: EventTime,
    /// Bytes of the groups whose rows this epoch has written so far, roughly.
    written_bytes: usize,
    scratch: Vec<u8>,
}

/// The groups of open windows with big states whose rows are held back, in the order in which they leave.
#[derive(Default)]
struct Waiting {
    queue: VecDeque<(Box<[u8]>, u16)>,
    keys: HashSet<Box<[u8]>>,
    /// Bytes that may leave; below zero after a state that was larger.
    credit_bytes: i64,
}

impl Waiting {
    fn push(&mut self, key: &[u8], group: u16) {
        if !self.keys.contains(key) {
            self.keys.insert(key.into());
            self.queue.push_back((key.into(), group));
        }
    }

    fn pop(&mut self) -> Option<(Box<[u8]>, u16)> {
        let (key, group) = self.queue.pop_front()?;
        self.keys.remove(&key);
        Some((key, group))
    }
}

/// What is known of a window that has state.
#[derive(Clone, Copy, Default)]
struct OpenWindow {
    /// One bit per key group that has a group of the window.
    groups: [u64; GROUPS as usize / 64],
    /// Whether some row of it may be held back.
    held_back: bool,
    /// Whether some group of it may be stored and not in memory.
    spilled: bool,
}

impl OpenWindow {
    fn add(&mut self, group: u16) {
        self.groups[usize::from(group / 64)] |= 1 << (group % 64);
    }

    fn key_groups(&self) -> Vec<u16> {
        (0..GROUPS).filter(|group| self.groups[usize::from(group / 64)] >> (group % 64) & 1 == 1).collect()
    }
}

impl Maintain {
    /// Keeps `plan`'s rows, with what `registry` holds of it from before.
    pub fn new(plan: Arc<ViewPlan>, keeping: Keeping, registry: &mut StateRegistry) -> Result<Maintain, Error> {
        let states = plan.measures.iter().map(|measure| accumulator(&measure.call)).collect::<Result<_, _>>()?;
        let closed = registry.table(CLOSED_TABLE)?;
        let mut maintain = Maintain {
            windows: Windows::new(&plan.window)?,
            format: KeyFormat::new(plan.dimensions.iter().map(|dimension| dimension.value.column_type().clone()))?,
            row_format: RowFormat::new(&plan),
            plan,
            keeping,
            table: registry.table(GROUPS_TABLE)?,
            complete_through: Through::recover(&closed, registry.owned())?,
            closed,
            groups: Slots::new(states),
            changed: Vec::new(),
            evicted: BTreeMap::new(),
            waiting: Waiting::default(),
            open_windows: BTreeMap::new(),
            owned: registry.owned(),
            final_through: EventTime::MIN,
            dropped_through: EventTime::MIN,
            written_bytes: 0,
            scratch: Vec::new(),
        };
        maintain.recover()?;
        Ok(maintain)
    }

    /// How many groups are in memory.
    pub fn groups_in_memory(&self) -> usize {
        self.groups.len()
    }

    /// Finds the windows that have state and aren't known to be final, with one seek per window and key group.
    fn recover(&mut self) -> Result<(), Error> {
        let first = self.recover_final()?;
        for group in self.owned.clone() {
            let mut from = first.clone();
            loop {
                let mut found = None;
                self.table.scan_range(group, &from, &[0xff; 9], |key, _| {
                    found = Some(decode_start(key)?);
                    Ok(ControlFlow::Break(()))
                })?;
                let Some(start) = found else { break };
                let window = self.open_windows.entry(start).or_default();
                window.add(group);
                window.held_back = true;
                window.spilled = true;
                let Some(next) = start.checked_add(1) else { break };
                from = encode_start(next).to_vec();
            }
        }
        Ok(())
    }

    /// Merges rows `first..` of a batch of partial states, at most [`CHUNK`] of them.
    fn merge_rows(
        &mut self,
        first: usize,
        keys: &BinaryArray,
        groups: &[u16],
        states: &[&BinaryArray],
    ) -> Result<(), Error> {
        let rows = first..keys.len().min(first + CHUNK);
        let mut slots = Vec::with_capacity(rows.len());
        let mut missing = Vec::new();
        for row in rows.clone() {
            let (key, group) = (keys.value(row), groups[row]);
            let hash = xxh3_64(key);
            let slot = match self.groups.find(hash, key) {
                Some(slot) => slot,
                None => {
                    let start = decode_start(key)?;
                    if start < self.dropped_through.0 {
                        return Err(Error::State {
                            operator: self.plan.name.clone(),
                            detail: format!(
                                "an event of the window at {start} µs came after its state was dropped: \
                                the source let an event pass that is older than the watermark by more than the allowed lateness"
                            ),
                        });
                    }
                    // What a final window holds is on disk.
                    let is_final = start < self.final_through.0;
                    let window = self.open_windows.entry(start).or_default();
                    window.add(group);
                    window.spilled |= is_final;
                    let spilled = window.spilled;
                    let slot = self.groups.place(hash, key, group, start);
                    if spilled {
                        missing.push(slot);
                    }
                    slot
                }
            };
            slots.push(slot);
        }
        self.read_back(&missing)?;
        for (row, slot) in rows.zip(slots) {
            let Some((entry, accumulators)) = self.groups.parts(slot) else { continue };
            entry.dirty = true;
            if !entry.changed {
                entry.changed = true;
                self.changed.push(slot);
            }
            for (accumulator, states) in accumulators.iter_mut().zip(states) {
                accumulator.merge(slot, states.value(row))?;
            }
            self.groups.weigh(slot);
        }
        Ok(())
    }

    /// Fills freshly placed slots with what is stored of their groups.
    fn read_back(&mut self, slots: &[u32]) -> Result<(), Error> {
        let keys = slots.iter().filter_map(|slot| self.groups.get(*slot)).map(|entry| (entry.group, &*entry.key));
        let stored = self.table.get_many(keys)?;
        for (slot, stored) in slots.iter().zip(stored) {
            if let Some(stored) = stored {
                self.fill(*slot, &stored)?;
            }
        }
        Ok(())
    }

    fn fill(&mut self, slot: u32, stored: &Stored) -> Result<(), Error> {
        let Some((entry, states)) = self.groups.parts(slot) else { return Ok(()) };
        entry.header = value::load(stored, slot, states)?;
        entry.stored = Some(entry.header);
        entry.pieces = stored.len() as u32;
        entry.whole_bytes = stored.whole().map_or(0, <[u8]>::len);
        entry.added_bytes = stored.added().map(<[u8]>::len).sum();
        // What was read is not news.
        states.iter_mut().for_each(|state| state.settle(slot));
        let key = entry.key.clone();
        if self.evicted.remove(&key).is_some()
            && let Some(entry) = self.groups.get_mut(slot)
        {
            entry.changed = true;
            self.changed.push(slot);
        }
        self.groups.weigh(slot);
        Ok(())
    }

    /// Brings a group's stored value up to date.
    fn save(&mut self, slot: u32) -> Result<(), Error> {
        let Some((entry, states)) = self.groups.parts(slot) else { return Ok(()) };
        let header_only = !entry.dirty;
        if header_only && (entry.stored.is_none() || entry.stored == Some(entry.header)) {
            return Ok(());
        }
        self.scratch.clear();
        entry.header.write(&mut self.scratch);
        let mut extends = header_only;
        for state in states.iter_mut() {
            if header_only {
                value::write_nothing(&mut self.scratch);
            } else {
                let delta = value::write_part(&mut self.scratch, |out| state.take_delta(slot, out))?;
                extends |= delta == Delta::Added;
            }
        }
        let worthwhile = entry.pieces < MOST_PIECES && entry.added_bytes + self.scratch.len() <= entry.whole_bytes;
        if extends && entry.stored.is_some() && worthwhile {
            self.table.merge(entry.group, &entry.key, &self.scratch)?;
            entry.pieces += 1;
            entry.added_bytes += self.scratch.len();
        } else {
            if extends {
                self.scratch.clear();
                entry.header.write(&mut self.scratch);
                for state in states.iter() {
                    value::write_part(&mut self.scratch, |out| {
                        state.write_state(slot, out);
                        Delta::Whole
                    })?;
                }
            }
            self.table.put(entry.group, &entry.key, &self.scratch)?;
            entry.pieces = 1;
            entry.whole_bytes = self.scratch.len();
            entry.added_bytes = 0;
        }
        entry.stored = Some(entry.header);
        entry.dirty = false;
        Ok(())
    }

    /// Evicts groups until the rest fits, saving what is not saved yet.
    fn evict(&mut self) -> Result<(), Error> {
        while self.groups.bytes() > self.keeping.memory_bytes {
            let Some(slot) = self.groups.next_victim() else { break };
            self.save(slot)?;
            let Some(entry) = self.groups.remove(slot) else { break };
            self.open_windows.entry(entry.start).or_default().spilled = true;
            if entry.changed {
                self.evicted.insert(entry.key, entry.group);
            }
        }
        Ok(())
    }

    /// Up to where windows are closed at `watermark`. The end of a run closes those that there are, and none that another
    /// run may begin.
    fn complete_at(&mut self, watermark: EventTime) -> EventTime {
        let complete = match (watermark, self.open_windows.last_key_value()) {
            (EventTime::MAX, Some((last, _))) => self.windows.end_of(EventTime(*last)),
            (EventTime::MAX, None) => EventTime::MIN,
            (at, _) => self.windows.complete_through(at),
        };
        complete.max(self.complete_through.all())
    }
}

impl Operator for Maintain {
    fn on_batch(&mut self, batch: RecordBatch, _: &mut Context<'_>) -> Result<(), Error> {
        let wrong = || ArrowError::SchemaError("a batch of partial states lacks a column".to_owned());
        let binary =
            |at: usize| batch.columns().get(at).and_then(|column| column.as_binary_opt::<i32>()).ok_or_else(wrong);
        let groups = batch.columns().get(GROUP).and_then(|column| column.as_primitive_opt::<UInt16Type>());
        let groups = groups.ok_or_else(wrong)?.values();
        let keys = binary(KEY)?;
        let states: Vec<&BinaryArray> =
            (0..self.plan.measures.len()).map(|at| binary(STATES + at)).collect::<Result<_, _>>()?;
        for first in (0..batch.num_rows()).step_by(CHUNK) {
            self.merge_rows(first, keys, groups, &states)?;
            self.evict()?;
        }
        Ok(())
    }

    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let mut complete = self.complete_at(cx.watermark());
        let closing: Vec<i64> = self
            .open_windows
            .range(self.complete_through.all().0..complete.0)
            .filter(|(_, window)| !self.keeping.provisional || window.held_back)
            .map(|(start, _)| *start)
            .collect();
        self.write_changed(&closing, complete, cx)?;
        self.write_waiting(complete, cx)?;
        self.written_bytes = 0;
        for start in closing {
            if self.written_bytes > self.keeping.closing_bytes {
                complete = EventTime(start);
                cx.leave_for_later(complete);
                break;
            }
            self.close_window(start, complete, cx)?;
        }
        self.changed.clear();
        self.finalise(cx.log_watermark(), complete)?;
        self.complete_through.raise(complete, &mut self.closed)?;
        self.evict()
    }
}
