//! Counting events into cells, an event at a time, by what its codes say.
//!
//! Counts of all open cells stand in one array, a byte for each slot, so that a cell fits into few cache lines: the events
//! of a batch belong to thousands of cells in no order, and fetching their counts is what counting costs, so they are asked
//! for some events ahead. A byte is full after 255 events, each of which adds at most one to a slot; the cell's counts are
//! added to its sums before that. No loop allocates for a row.

use weir_schemas::profile::{BUCKET, DEFAULT, Kind, NULL, NUMERIC};

use super::cell::Spot;
use super::layout::{FieldSlots, Layout};
use super::sums::Sums;

/// What a processor fetches at once.
#[cfg(target_arch = "x86_64")]
const LINE_BYTES: usize = 64;

/// Has the processor fetch `of` while it does other things.
#[inline]
pub(super) fn prefetch<T>(of: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of_val(of)).step_by(LINE_BYTES) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint that reads nothing; the address is within the slice.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(of.as_ptr().cast::<i8>().add(line)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = of;
}

/// Counts of many cells.
#[derive(Default)]
pub(crate) struct Counts {
    slots: usize,
    counts: Vec<u8>,
    /// Events since a cell's counts were last taken.
    events: Vec<u8>,
}

impl Counts {
    pub(super) fn new(slots: usize) -> Counts {
        Counts { slots, ..Counts::default() }
    }

    /// Makes room for `cells` cells.
    pub(super) fn grow(&mut self, cells: usize) {
        self.counts.resize(cells * self.slots, 0);
        self.events.resize(cells, 0);
    }

    pub(super) fn clear(&mut self) {
        self.counts.clear();
        self.events.clear();
    }

    fn range(&self, cell: u32) -> std::ops::Range<usize> {
        let from = cell as usize * self.slots;
        from..from + self.slots
    }

    /// Says that a cell's counts are wanted soon.
    #[inline]
    pub(super) fn expect(&self, cell: u32) {
        prefetch(self.of(cell));
    }

    /// The counts of a cell.
    pub(super) fn of(&self, cell: u32) -> &[u8] {
        self.counts.get(self.range(cell)).unwrap_or_default()
    }

    /// What the counts of a cell are; they are zero afterwards.
    fn take(&mut self, cell: u32) -> Sums {
        let range = self.range(cell);
        let Some(counts) = self.counts.get_mut(range) else { return Sums::default() };
        let sums = Sums::of(counts);
        counts.fill(0);
        if let Some(events) = self.events.get_mut(cell as usize) {
            *events = 0;
        }
        sums
    }

    /// Begins another event of a cell: the cell's counts, for adding at most one to each slot. `spill` gets what was
    /// counted before, when it fills its bytes.
    #[inline]
    pub(super) fn event(&mut self, cell: u32, spill: impl FnOnce(Sums)) -> CellCounts<'_> {
        if self.events.get(cell as usize).is_some_and(|events| *events == u8::MAX) {
            spill(self.take(cell));
        }
        if let Some(events) = self.events.get_mut(cell as usize) {
            *events += 1;
        }
        let range = self.range(cell);
        CellCounts(self.counts.get_mut(range).unwrap_or_default())
    }
}

/// The counts of one cell.
pub(super) struct CellCounts<'a>(&'a mut [u8]);

impl CellCounts<'_> {
    /// Adds one to a slot.
    #[inline]
    pub(super) fn add(&mut self, slot: usize) {
        if let Some(count) = self.0.get_mut(slot) {
            // It can't be full: see `Counts::event`.
            *count = count.wrapping_add(1);
        }
    }

    /// Counts an event's fields by its codes.
    #[inline]
    pub(super) fn add_fields(&mut self, layout: &Layout, codes: &[u8]) {
        let (valued, others) = layout.counted();
        let slots = self.0.get_mut(layout.first_field()..).unwrap_or_default();
        let fields = slots.as_chunks_mut::<{ FieldSlots::WITH_BUCKETS }>().0;
        for (counts, &code) in fields.iter_mut().zip(codes.get(..valued).unwrap_or_default()) {
            // One of the two always, without a branch that what is sent decides.
            let bucket = FieldSlots::HEAD + usize::from(code & BUCKET);
            let slot = if code & NULL != 0 { 0 } else { bucket };
            counts[slot] = counts[slot].wrapping_add(1);
            if code & (DEFAULT | NUMERIC) != 0 {
                counts[1] = counts[1].wrapping_add(u8::from(code & DEFAULT != 0));
                counts[2] = counts[2].wrapping_add(u8::from(code & NUMERIC != 0));
            }
        }
        for field in others {
            let Some(&code) = codes.get(field.code) else { continue };
            if field.kind == Kind::Map {
                let mut keys = field.keys(codes);
                while keys != 0 {
                    self.add(field.first + FieldSlots::HEAD + keys.trailing_zeros() as usize);
                    keys &= keys - 1;
                }
            } else if code & NULL != 0 {
                self.add(field.first);
            }
            if code & DEFAULT != 0 {
                self.add(field.first + 1);
            }
        }
    }
}

/// The places of a batch's rows.
pub(super) struct Places<'a> {
    pub(super) topics: &'a [u16],
    pub(super) partitions: &'a [i32],
    pub(super) offsets: &'a [i64],
}

impl Places<'_> {
    #[inline]
    pub(super) fn of(&self, row: usize) -> Spot {
        let at = |row: usize| Some(Spot(*self.topics.get(row)?, *self.partitions.get(row)?, *self.offsets.get(row)?));
        at(row).unwrap_or_default()
    }
}

/// The rules that a batch's rows broke.
#[derive(Default)]
pub(super) struct Marks<'a> {
    pub(super) rules: &'a [u16],
    /// Where each row's begin, and the last one's end; empty where there are none.
    pub(super) ends: &'a [i32],
}

impl Marks<'_> {
    #[inline]
    pub(super) fn of(&self, row: usize) -> &[u16] {
        let range = |from: &i32, upto: &i32| self.rules.get(*from as usize..*upto as usize);
        self.ends.get(row).zip(self.ends.get(row + 1)).and_then(|(from, upto)| range(from, upto)).unwrap_or_default()
    }
}
