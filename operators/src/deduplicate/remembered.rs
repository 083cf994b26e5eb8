//! The accepted events that are remembered: by the hash of tenant and id, in buckets of event time, on a shelf for each
//! key group.
//!
//! A shelf is in memory: the accepted events in their order, and a hash table of their places, small enough that an
//! event that is new, as most are, is found to be so without a look at the others. What is accepted in an epoch is
//! *noted* on disk as one value for each shelf, not one for each id: as long as everything fits in memory, which is the
//! rule, nothing but a restart reads it. When the bound is passed, the shelves of the bucket that was used longest ago
//! are *filed*: their ids get a key each, by which they are found from then on, a batch at a time, and their notes go.
//! An id that isn't on a shelf of which nothing was ever filed was never accepted, and nothing is read for it.
//!
//! ```text
//! notes  key   = bucket's start (i64 BE, sign turned) | epoch (u64 BE)
//!        value = (identity (16 bytes LE) | event time (i64 LE) | content (u64 LE)) repeated
//! files  key   = bucket's start (i64 BE, sign turned) | identity (16 bytes LE)
//!        value = (event time (i64 LE) | content (u64 LE)) repeated: several accepted events of one id whose times differ
//!                by more than the horizon may stand in one bucket
//! ```
//! Invariants: each remembered event is in the notes or in the files, and in memory if it is in the notes; of an identity
//! that is in memory, all that its bucket has of it is. Notes and files are dropped by bucket.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

use weir_schemas::time::Epoch;

use super::shelf::{Accepted, Shelf, filed_in, noted_in};
use crate::error::Error;
use crate::group_key::{decode_start, encode_start};
use crate::route::GROUPS;
use crate::state::ByteTable;

/// Bytes of memory that an id takes, with the slack of its hash table.
const ID_BYTES: usize = 64;
struct Bucket {
    /// By key group, from the first owned one on.
    shelves: Vec<Shelf>,
    used_at: u64,
}

pub(crate) struct Remembered {
    files: ByteTable,
    notes: ByteTable,
    width: i64,
    memory_bytes: usize,
    buckets: BTreeMap<i64, Bucket>,
    /// Shelves with something fresh: the bucket's start and the key group.
    fresh: Vec<(i64, u16)>,
    owned: Range<u16>,
    in_memory: usize,
    /// Shelves that have files.
    filed_shelves: usize,
    /// The key group that is filed next.
    hand: u16,
    clock: u64,
    scratch: Vec<u8>,
}

impl Remembered {
    /// What `files` and `notes` hold, for the key groups `owned`; `width` is a bucket's in microseconds.
    pub(crate) fn new(
        files: ByteTable,
        notes: ByteTable,
        owned: Range<u16>,
        width: i64,
        memory_bytes: usize,
    ) -> Result<Self, Error> {
        let mut remembered = Remembered {
            files,
            notes,
            width,
            memory_bytes,
            buckets: BTreeMap::new(),
            fresh: Vec::new(),
            owned: owned.clone(),
            in_memory: 0,
            filed_shelves: 0,
            hand: owned.start,
            clock: 0,
            scratch: Vec::new(),
        };
        for group in owned {
            remembered.find_files(group)?;
            remembered.read_notes(group)?;
            // More than fits, where this worker has more key groups than the one that wrote them.
            remembered.evict()?;
        }
        Ok(remembered)
    }

    /// Finds the shelves of `group` that have files, with one seek each.
    fn find_files(&mut self, group: u16) -> Result<(), Error> {
        let mut from = Vec::new();
        loop {
            let mut found = None;
            self.files.scan_range(group, &from, &[0xff; 9], |key, _| {
                found = Some(decode_start(key)?);
                Ok(ControlFlow::Break(()))
            })?;
            let Some(start) = found else { return Ok(()) };
            self.shelf(start, group).has_files = true;
            self.filed_shelves += 1;
            let Some(next) = start.checked_add(1) else { return Ok(()) };
            from = encode_start(next).to_vec();
        }
    }

    fn read_notes(&mut self, group: u16) -> Result<(), Error> {
        let mut found: Vec<(i64, Epoch, Vec<Accepted>)> = Vec::new();
        self.notes.scan_prefix(group, &[], |key, stored| {
            let epoch = key.last_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            found.push((decode_start(key)?, Epoch(epoch), noted_in(&stored)?));
            Ok(ControlFlow::Continue(()))
        })?;
        let mut filed_too = Vec::new();
        for (start, epoch, accepted) in found {
            self.in_memory += accepted.len();
            let shelf = self.shelf(start, group);
            shelf.noted_in.push(epoch);
            shelf.noted += accepted.len();
            if shelf.has_files {
                filed_too.extend(accepted.iter().map(|accepted| (start, accepted.identity)));
            }
            accepted.into_iter().for_each(|accepted| shelf.accept(accepted));
        }
        self.read_files(filed_too)
    }

    /// Brings into memory what is filed of each identity, by bucket: whatever else of it is there, too.
    fn read_files(&mut self, mut wanted: Vec<(i64, u128)>) -> Result<(), Error> {
        wanted.sort_unstable();
        wanted.dedup();
        let keys: Vec<[u8; 24]> = wanted.iter().map(|(start, identity)| file_key(*start, *identity)).collect();
        let asked = wanted.iter().zip(&keys).map(|((_, identity), key)| (group_of(*identity), &key[..]));
        let stored = self.files.get_many(asked)?;
        for ((start, identity), stored) in wanted.into_iter().zip(stored) {
            let Some(stored) = stored else { continue };
            for (at, content) in filed_in(&stored)? {
                self.in_memory += 1;
                self.shelf(start, group_of(identity)).read_back(Accepted { identity, at, content });
            }
        }
        Ok(())
    }

    /// How many ids are in memory.
    pub(crate) fn in_memory(&self) -> usize {
        self.in_memory
    }

    /// The start of the bucket of an event time.
    pub(crate) fn bucket_of(&self, at: i64) -> i64 {
        at.saturating_sub(at.rem_euclid(self.width))
    }

    fn shelf(&mut self, start: i64, group: u16) -> &mut Shelf {
        let shelves = self.owned.len();
        let new = || Bucket { shelves: (0..shelves).map(|_| Shelf::default()).collect(), used_at: 0 };
        let bucket = self.buckets.entry(start).or_insert_with(new);
        bucket.used_at = self.clock;
        // A key group of another worker would be refused by the tables.
        let at = usize::from(group.saturating_sub(self.owned.start)).min(shelves.saturating_sub(1));
        &mut bucket.shelves[at]
    }

    /// Brings into memory what is filed of the ids of `asked`, in the buckets between `at - reach` and `at + reach`, so
    /// that [`Remembered::find`] needs no disk.
    pub(crate) fn prefetch(&mut self, asked: &[(u128, i64)], reach: i64) -> Result<(), Error> {
        if self.filed_shelves == 0 {
            return Ok(());
        }
        let mut missing = Vec::new();
        for (identity, at) in asked {
            let (from, to) = (self.bucket_of(at.saturating_sub(reach)), at.saturating_add(reach));
            let shelf_of = usize::from(group_of(*identity).saturating_sub(self.owned.start));
            for (start, bucket) in self.buckets.range(from..=to) {
                if bucket
                    .shelves
                    .get(shelf_of)
                    .is_some_and(|shelf| shelf.has_files && shelf.of(*identity).next().is_none())
                {
                    missing.push((*start, *identity));
                }
            }
        }
        self.read_files(missing)
    }

    /// An accepted event with this identity whose time is within `reach` of `at`, the nearest one.
    pub(crate) fn find(&mut self, identity: u128, at: i64, reach: i64) -> Option<Accepted> {
        self.clock += 1;
        let first = self.bucket_of(at.saturating_sub(reach));
        let shelf_of = usize::from(group_of(identity).saturating_sub(self.owned.start));
        let mut nearest: Option<Accepted> = None;
        for (_, bucket) in self.buckets.range_mut(first..=at.saturating_add(reach)) {
            bucket.used_at = self.clock;
            let Some(shelf) = bucket.shelves.get(shelf_of) else { continue };
            for known in shelf.of(identity) {
                let distance = known.at.abs_diff(at);
                // Of two that are equally near, the earlier one.
                let is_nearer =
                    nearest.is_none_or(|nearest| (distance, known.at) < (nearest.at.abs_diff(at), nearest.at));
                if distance <= reach as u64 && is_nearer {
                    nearest = Some(*known);
                }
            }
        }
        nearest
    }

    /// Calls `each` with every accepted event of this identity whose time is within `reach` of `at`.
    pub(crate) fn visit(&mut self, identity: u128, at: i64, reach: i64, mut each: impl FnMut(&Accepted)) {
        self.clock += 1;
        let first = self.bucket_of(at.saturating_sub(reach));
        let shelf_of = usize::from(group_of(identity).saturating_sub(self.owned.start));
        for (_, bucket) in self.buckets.range_mut(first..=at.saturating_add(reach)) {
            bucket.used_at = self.clock;
            let Some(shelf) = bucket.shelves.get(shelf_of) else { continue };
            shelf.of(identity).filter(|known| known.at.abs_diff(at) <= reach as u64).for_each(&mut each);
        }
    }

    /// Remembers an event that was just accepted.
    pub(crate) fn accept(&mut self, accepted: Accepted) {
        let (start, group) = (self.bucket_of(accepted.at), group_of(accepted.identity));
        let shelf = self.shelf(start, group);
        let is_first = shelf.noted == shelf.accepted.len();
        shelf.accept(accepted);
        self.in_memory += 1;
        if is_first {
            self.fresh.push((start, group));
        }
    }

    /// Notes what was accepted in `epoch`, which ends.
    pub(crate) fn note(&mut self, epoch: Epoch) -> Result<(), Error> {
        let mut value = std::mem::take(&mut self.scratch);
        for (start, group) in std::mem::take(&mut self.fresh) {
            let shelf = self.shelf(start, group);
            // Nothing is left of one that was filed in this epoch, and twice here one that was used again.
            let fresh = shelf.accepted.get(shelf.noted..).unwrap_or_default();
            if fresh.is_empty() {
                continue;
            }
            value.clear();
            fresh.iter().for_each(|accepted| accepted.write_note(&mut value));
            shelf.noted = shelf.accepted.len();
            shelf.noted_in.push(epoch);
            self.notes.put(group, &note_key(start, epoch), &value)?;
        }
        self.scratch = value;
        Ok(())
    }

    /// Files shelves until the rest fits in memory, with some room.
    pub(crate) fn evict(&mut self) -> Result<(), Error> {
        if self.in_memory * ID_BYTES <= self.memory_bytes {
            return Ok(());
        }
        let fits = self.memory_bytes - self.memory_bytes / 8;
        while self.in_memory * ID_BYTES > fits {
            let has_any = |bucket: &&Bucket| bucket.shelves.iter().any(|shelf| shelf.len() > 0);
            let filled = self.buckets.iter().filter(|(_, bucket)| has_any(bucket));
            let Some(start) = filled.min_by_key(|(_, bucket)| bucket.used_at).map(|(start, _)| *start) else {
                return Ok(());
            };
            for _ in self.owned.clone() {
                self.file(start, self.hand)?;
                self.hand = if self.hand + 1 < self.owned.end { self.hand + 1 } else { self.owned.start };
                if self.in_memory * ID_BYTES <= fits {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Moves a shelf's ids from memory and notes to files.
    fn file(&mut self, start: i64, group: u16) -> Result<(), Error> {
        let used_at = self.buckets.get(&start).map_or(0, |bucket| bucket.used_at);
        let shelf = self.shelf(start, group);
        let had_files = shelf.has_files;
        let Shelf { mut accepted, mut read_back, noted_in, .. } = std::mem::take(shelf);
        let is_first = !had_files && !accepted.is_empty();
        shelf.has_files = had_files || is_first;
        // What was read back and stands beside no new event of its identity is written as it is: it is little.
        accepted.extend(read_back.drain());
        self.filed_shelves += usize::from(is_first);
        self.in_memory = self.in_memory.saturating_sub(accepted.len());
        if let Some(bucket) = self.buckets.get_mut(&start) {
            bucket.used_at = used_at;
        }
        accepted.sort_unstable_by_key(|accepted| (accepted.identity, accepted.at));
        // An identity that was filed before was read back before another event of it was accepted, so all are here.
        for same in accepted.chunk_by(|a, b| a.identity == b.identity) {
            let Some(first) = same.first() else { continue };
            self.scratch.clear();
            same.iter().for_each(|accepted| accepted.write_entry(&mut self.scratch));
            self.files.put(group, &file_key(start, first.identity), &self.scratch)?;
        }
        noted_in.into_iter().try_for_each(|epoch| self.notes.delete(group, &note_key(start, epoch)))
    }

    /// Forgets every bucket that ends at `through` or before.
    pub(crate) fn forget(&mut self, through: i64) -> Result<(), Error> {
        let boundary = self.bucket_of(through);
        if self.buckets.first_key_value().is_none_or(|(first, _)| *first >= boundary) {
            return Ok(());
        }
        let kept = self.buckets.split_off(&boundary);
        let dropped = std::mem::replace(&mut self.buckets, kept);
        for shelf in dropped.values().flat_map(|bucket| &bucket.shelves) {
            self.in_memory -= shelf.len();
            self.filed_shelves -= usize::from(shelf.has_files);
        }
        for group in self.owned.clone() {
            self.files.delete_range(group, &[], &encode_start(boundary))?;
            self.notes.delete_range(group, &[], &encode_start(boundary))?;
        }
        Ok(())
    }
}

/// The key group of an identity: its low bits.
fn group_of(identity: u128) -> u16 {
    (identity & u128::from(GROUPS - 1)) as u16
}

fn file_key(start: i64, identity: u128) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&encode_start(start));
    key[8..].copy_from_slice(&identity.to_le_bytes());
    key
}

fn note_key(start: i64, epoch: Epoch) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&encode_start(start));
    key[8..].copy_from_slice(&epoch.0.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::state::{Family, StateRegistry, Store, StoreOptions};

    const MINUTE: i64 = 60_000_000;

    fn accepted(identity: u128, at: i64) -> Accepted {
        Accepted { identity, at, content: 0x0807_0605_0403_0201 }
    }

    fn open(store: &Arc<Store>, epoch: Epoch, memory_bytes: usize) -> (StateRegistry, Remembered) {
        let mut registry = StateRegistry::new(store.clone(), "dedup", 0, 1, epoch).expect("a registry");
        let (files, notes) = (registry.table(0).expect("files"), registry.table(2).expect("notes"));
        let owned = registry.owned();
        (registry, Remembered::new(files, notes, owned, MINUTE, memory_bytes).expect("remembered"))
    }

    fn commit(store: &Store, registry: &mut StateRegistry, epoch: Epoch) {
        let mut writes = store.writes();
        registry.freeze(epoch).expect("frozen").iter().for_each(|changes| changes.write_into(&mut writes));
        store.commit(writes, epoch).expect("committed");
    }

    /// The keys behind the operator's id, which end in neither table's number nor key group.
    fn stored(store: &Store) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        let visit = |key: &[u8], value: &[u8]| {
            found.push((key[4..].to_vec(), value.to_vec()));
            true
        };
        store.scan(Family::State, &[0], &[0xff; 12], visit).expect("scanned");
        found
    }

    #[test]
    fn golden_bytes_of_notes_and_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(Store::open(folder.path(), StoreOptions::default()).expect("a store"));
        let identity = 0x1f1e_1d1c_1b1a_1918_1716_1514_1312_1103;
        let (mut registry, mut remembered) = open(&store, Epoch(5), 1 << 20);
        remembered.accept(accepted(identity, MINUTE + 2));
        remembered.accept(accepted(identity, MINUTE + 9));
        remembered.note(Epoch(5)).expect("noted");
        commit(&store, &mut registry, Epoch(5));
        let start = [0x80, 0, 0, 0, 0x03, 0x93, 0x87, 0];
        let id: Vec<u8> = [&[3u8][..], &(0x11..=0x1f).collect::<Vec<u8>>()].concat();
        let entry = |last: u8| [&[last, 0x87, 0x93, 3, 0, 0, 0, 0][..], &[1, 2, 3, 4, 5, 6, 7, 8]].concat();
        let note = [&id[..], &entry(2), &id, &entry(9)].concat();
        let key = [&[0, 2, 0, 3][..], &start, &[0, 0, 0, 0, 0, 0, 0, 5]].concat();
        // A whole value is a piece: its kind and its length stand before it.
        assert_eq!(stored(&store), [(key, [&[0, 64][..], &note].concat())]);

        // Another process, which has no memory for it, files it.
        drop((registry, remembered));
        let (mut registry, remembered) = open(&store, Epoch(6), 1);
        assert_eq!(remembered.in_memory(), 0);
        commit(&store, &mut registry, Epoch(6));
        let key = [&[0, 0, 0, 3][..], &start, &id].concat();
        assert_eq!(stored(&store), [(key, [&[0, 32][..], &entry(2), &entry(9)].concat())]);
    }

    #[test]
    fn what_is_filed_is_found_again_and_forgotten_with_its_bucket() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(Store::open(folder.path(), StoreOptions::default()).expect("a store"));
        let (mut registry, mut remembered) = open(&store, Epoch(1), ID_BYTES * 4);
        let ids: Vec<Accepted> = (0..40u8).map(|id| accepted(u128::from(id) << 64 | 3, i64::from(id % 2))).collect();
        for id in &ids {
            remembered.accept(*id);
            remembered.evict().expect("evicted");
        }
        assert!(remembered.in_memory() <= 4);
        remembered.note(Epoch(1)).expect("noted");
        commit(&store, &mut registry, Epoch(1));
        let asked: Vec<(u128, i64)> = ids.iter().map(|id| (id.identity, id.at)).collect();
        remembered.prefetch(&asked, 0).expect("read back");
        assert!(ids.iter().all(|id| remembered.find(id.identity, id.at, 0) == Some(*id)));
        remembered.forget(MINUTE).expect("forgotten");
        commit(&store, &mut registry, Epoch(2));
        assert_eq!((remembered.in_memory(), stored(&store)), (0, vec![]));
        assert_eq!(remembered.filed_shelves, 0);
    }
}
