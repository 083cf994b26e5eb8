//! The groups that are in memory: keys, what is known of them, and their states by slot.
//!
//! Invariant: slot 0 is never a group's; its states are those of no rows.

use hashbrown::HashTable;

use super::value::Header;
use crate::aggregate::Accumulator;

/// Bytes that a group takes beside its key and its states' heap.
pub(super) const FIXED_BYTES: usize = 160;

/// A group in memory.
pub(super) struct Entry {
    pub(super) key: Box<[u8]>,
    hash: u64,
    /// The key group.
    pub(super) group: u16,
    /// The window's start.
    pub(super) start: i64,
    pub(super) header: Header,
    /// The header as it is stored; `None` while nothing is stored.
    pub(super) stored: Option<Header>,
    /// Pieces that were added since the whole value was put.
    pub(super) pieces: u32,
    /// Bytes of the whole value that is stored, and of the pieces since.
    pub(super) whole_bytes: usize,
    pub(super) added_bytes: usize,
    /// Whether the states differ from what is stored.
    pub(super) dirty: bool,
    /// Whether the states changed since the group was last looked at for a row.
    pub(super) changed: bool,
    /// Heap of the states.
    pub(super) heap_bytes: usize,
    /// Whether it was used since the hand of the eviction passed.
    used: bool,
}

pub(super) struct Slots {
    table: HashTable<u32>,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    hand: usize,
    bytes: usize,
    pub(super) states: Vec<Box<dyn Accumulator>>,
}

impl Slots {
    pub(super) fn new(mut states: Vec<Box<dyn Accumulator>>) -> Slots {
        states.iter_mut().for_each(|state| state.grow(1));
        Slots { table: HashTable::new(), entries: vec![None], free: Vec::new(), hand: 0, bytes: 0, states }
    }

    /// How many groups are in memory.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Bytes that they take, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn find(&mut self, hash: u64, key: &[u8]) -> Option<u32> {
        let Slots { table, entries, .. } = self;
        let entry = |slot: &u32| entries.get(*slot as usize).and_then(Option::as_ref);
        let slot = *table.find(hash.rotate_left(24), |slot| entry(slot).is_some_and(|entry| *entry.key == *key))?;
        if let Some(entry) = self.get_mut(slot) {
            entry.used = true;
        }
        Some(slot)
    }

    /// Gives a group that is not in memory a slot, with states of no rows.
    pub(super) fn place(&mut self, hash: u64, key: &[u8], group: u16, start: i64) -> u32 {
        let entry = Entry {
            key: key.into(),
            hash,
            group,
            start,
            header: Header::default(),
            stored: None,
            pieces: 0,
            whole_bytes: 0,
            added_bytes: 0,
            dirty: false,
            changed: false,
            heap_bytes: 0,
            used: true,
        };
        self.bytes += FIXED_BYTES + key.len();
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.entries.push(None);
                let slots = self.entries.len();
                self.states.iter_mut().for_each(|state| state.grow(slots));
                (slots - 1) as u32
            }
        };
        let Slots { table, entries, .. } = self;
        entries[slot as usize] = Some(entry);
        // A worker's groups have their low bits in common, so the table goes by other ones.
        table.insert_unique(hash.rotate_left(24), slot, |slot| {
            entries.get(*slot as usize).and_then(Option::as_ref).map_or(0, |entry| entry.hash.rotate_left(24))
        });
        slot
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Entry> {
        self.entries.get(slot as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Entry> {
        self.entries.get_mut(slot as usize)?.as_mut()
    }

    /// The entry beside the states, to change both.
    pub(super) fn parts(&mut self, slot: u32) -> Option<(&mut Entry, &mut [Box<dyn Accumulator>])> {
        let entry = self.entries.get_mut(slot as usize)?.as_mut()?;
        Some((entry, &mut self.states))
    }

    /// Weighs a slot's states again.
    pub(super) fn weigh(&mut self, slot: u32) {
        let heap: usize = self.states.iter().map(|state| state.heap_bytes(slot)).sum();
        if let Some(entry) = self.entries.get_mut(slot as usize).and_then(Option::as_mut) {
            self.bytes = (self.bytes + heap).saturating_sub(entry.heap_bytes);
            entry.heap_bytes = heap;
        }
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Entry> {
        let entry = self.entries.get_mut(slot as usize)?.take()?;
        if let Ok(found) = self.table.find_entry(entry.hash.rotate_left(24), |other| *other == slot) {
            found.remove();
        }
        self.bytes = self.bytes.saturating_sub(FIXED_BYTES + entry.key.len() + entry.heap_bytes);
        self.states.iter_mut().for_each(|state| state.clear(slot));
        self.free.push(slot);
        Some(entry)
    }

    /// The next slot to evict: one that was not used since the hand came by last. `None` when nothing is in memory.
    pub(super) fn next_victim(&mut self) -> Option<u32> {
        if self.len() == 0 {
            return None;
        }
        loop {
            self.hand = (self.hand + 1) % self.entries.len();
            if let Some(entry) = self.entries.get_mut(self.hand).and_then(Option::as_mut) {
                if !entry.used {
                    return Some(self.hand as u32);
                }
                entry.used = false;
            }
        }
    }

    /// The slots of every group of `slots` whose window begins before `end`.
    pub(super) fn of_windows_before(&self, end: i64) -> Vec<u32> {
        let slots = self.entries.iter().enumerate();
        slots
            .filter(|(_, entry)| entry.as_ref().is_some_and(|entry| entry.start < end))
            .map(|(at, _)| at as u32)
            .collect()
    }
}
