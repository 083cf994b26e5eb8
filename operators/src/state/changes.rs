//! What an epoch changes in a table: gathered while it is open, then frozen.
//!
//! Changes are kept per key group as points and cleared ranges. A cleared range is older than every point of
//! the same epoch: clearing drops the points that it covers, and a point that comes later stands above it.
//! Points are found by hash; their order is worked out when somebody needs it, which for a table that is never
//! scanned is the committer's thread and not the operator's.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::OnceLock;

use hashbrown::HashTable;
use weir_schemas::time::Epoch;
use xxhash_rust::xxh3::xxh3_64;

use super::store::{Family, Writes};

/// Bytes in front of a key: operator id (u32 BE) and table (u16 BE); the group (u16 BE) follows.
pub(crate) type TablePrefix = [u8; 6];

/// The key's place in RocksDB.
pub(crate) fn full_key(out: &mut Vec<u8>, prefix: TablePrefix, group: u16, key: &[u8]) {
    out.clear();
    out.extend_from_slice(&prefix);
    out.extend_from_slice(&group.to_be_bytes());
    out.extend_from_slice(key);
}

/// The least bytes that are greater than everything that begins with `prefix`; `None` when there are none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut after = prefix.get(..=kept)?.to_vec();
    *after.last_mut()? += 1;
    Some(after)
}

/// Keys from `from` up to and without `to`; `None` is the end of the group.
#[derive(Clone, Debug)]
pub(crate) struct KeyRange {
    pub(crate) from: Vec<u8>,
    pub(crate) to: Option<Vec<u8>>,
}

impl KeyRange {
    pub(crate) fn of_prefix(prefix: &[u8]) -> KeyRange {
        KeyRange { from: prefix.to_vec(), to: after_prefix(prefix) }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        key >= self.from.as_slice() && self.to.as_ref().is_none_or(|to| key < to.as_slice())
    }
}

/// A key's change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    /// Whether what was there before does not count: the key was put or deleted.
    pub(crate) resets: bool,
    /// What is there since, as pieces; empty with `resets` means deleted.
    pub(crate) pieces: Vec<u8>,
}

/// The changes of one key group.
#[derive(Debug, Default)]
pub(crate) struct GroupChanges {
    entries: Vec<(Box<[u8]>, Change)>,
    index: HashTable<u32>,
    cleared: Vec<KeyRange>,
    order: OnceLock<Vec<u32>>,
}

impl GroupChanges {
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Change> {
        let at = self.index.find(xxh3_64(key), |at| self.key(*at) == Some(key))?;
        self.entries.get(*at as usize).map(|entry| &entry.1)
    }

    fn key(&self, at: u32) -> Option<&[u8]> {
        self.entries.get(at as usize).map(|entry| &*entry.0)
    }

    /// The key's change, made if it has none yet.
    pub(crate) fn entry(&mut self, key: &[u8]) -> &mut Change {
        let GroupChanges { entries, index, order, .. } = self;
        let found = index.find(xxh3_64(key), |at| *entries[*at as usize].0 == *key).copied();
        let at = match found {
            Some(at) => at as usize,
            None => {
                order.take();
                entries.push((key.into(), Change::default()));
                let at = entries.len() - 1;
                index.insert_unique(xxh3_64(key), at as u32, |at| xxh3_64(&entries[*at as usize].0));
                at
            }
        };
        &mut entries[at].1
    }

    fn clear(&mut self, range: KeyRange) {
        if self.entries.iter().any(|(key, _)| range.contains(key)) {
            self.order.take();
            self.entries.retain(|(key, _)| !range.contains(key));
            let GroupChanges { entries, index, .. } = self;
            index.clear();
            for (at, (key, _)) in entries.iter().enumerate() {
                index.insert_unique(xxh3_64(key), at as u32, |at| xxh3_64(&entries[*at as usize].0));
            }
        }
        self.cleared.push(range);
    }

    /// Whether everything older under `key` is gone.
    pub(crate) fn clears(&self, key: &[u8]) -> bool {
        self.cleared.iter().any(|range| range.contains(key))
    }

    fn order(&self) -> &[u32] {
        self.order.get_or_init(|| {
            let mut order: Vec<u32> = (0..self.entries.len() as u32).collect();
            order.sort_unstable_by(|a, b| self.key(*a).cmp(&self.key(*b)));
            order
        })
    }

    /// The points in the order of their keys.
    pub(crate) fn sorted(&self) -> impl Iterator<Item = (&[u8], &Change)> {
        self.order().iter().filter_map(|at| self.entries.get(*at as usize)).map(|(key, change)| (&**key, change))
    }

    /// The keys of `range`, in order.
    pub(crate) fn keys_in(&self, range: &KeyRange) -> impl Iterator<Item = &[u8]> {
        let order = self.order();
        let from = order.partition_point(|at| self.key(*at).is_some_and(|key| key < range.from.as_slice()));
        let rest = order.get(from..).unwrap_or_default();
        rest.iter().filter_map(|at| self.key(*at)).take_while(|key| range.contains(key))
    }
}

/// The changes of the open epoch.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    groups: BTreeMap<u16, GroupChanges>,
    bytes: usize,
}

impl Staged {
    pub(crate) fn group(&self, group: u16) -> Option<&GroupChanges> {
        self.groups.get(&group)
    }

    /// Replaces (`resets`) or extends what is staged under a key; `write` appends the pieces.
    pub(crate) fn change(&mut self, group: u16, key: &[u8], resets: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let change = self.groups.entry(group).or_default().entry(key);
        let before = change.pieces.len();
        if resets {
            change.resets = true;
            change.pieces.clear();
        }
        write(&mut change.pieces);
        self.bytes = (self.bytes + key.len() + change.pieces.len()).saturating_sub(before);
    }

    pub(crate) fn clear(&mut self, group: u16, range: KeyRange) {
        self.groups.entry(group).or_default().clear(range);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

/// What an epoch changed in one table of one worker, as bytes that never change again.
#[derive(Debug)]
pub struct FrozenChanges {
    prefix: TablePrefix,
    epoch: Epoch,
    staged: Staged,
}

impl FrozenChanges {
    pub(crate) fn new(prefix: TablePrefix, epoch: Epoch, staged: Staged) -> FrozenChanges {
        FrozenChanges { prefix, epoch, staged }
    }

    /// The epoch whose changes these are.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Bytes of keys and values, roughly.
    pub fn bytes(&self) -> usize {
        self.staged.bytes
    }

    pub(crate) fn group(&self, group: u16) -> Option<&GroupChanges> {
        self.staged.group(group)
    }

    /// Adds the changes to a commit's writes, in the order of the keys.
    pub fn write_into(&self, writes: &mut Writes<'_>) {
        let (mut key, mut end) = (Vec::new(), Vec::new());
        for (group, changes) in &self.staged.groups {
            for range in &changes.cleared {
                full_key(&mut key, self.prefix, *group, &range.from);
                match &range.to {
                    Some(to) => full_key(&mut end, self.prefix, *group, to),
                    None => end = self.after_group(*group),
                }
                writes.delete_range(Family::State, &key, &end);
            }
            for (user_key, change) in changes.sorted() {
                full_key(&mut key, self.prefix, *group, user_key);
                match (change.resets, change.pieces.is_empty()) {
                    (true, true) => writes.delete(Family::State, &key),
                    (true, false) => writes.put(Family::State, &key, &change.pieces),
                    (false, _) => writes.append(&key, &change.pieces),
                }
            }
        }
    }

    /// The key after every key of the group: the next group's first, which exists for every group.
    fn after_group(&self, group: u16) -> Vec<u8> {
        let mut end = Vec::new();
        full_key(&mut end, self.prefix, group + 1, &[]);
        end
    }
}

/// The owned groups of `range` as a key range of RocksDB.
pub(crate) fn span_of(prefix: TablePrefix, groups: &Range<u16>) -> (Vec<u8>, Vec<u8>) {
    let (mut from, mut to) = (Vec::new(), Vec::new());
    full_key(&mut from, prefix, groups.start, &[]);
    full_key(&mut to, prefix, groups.end, &[]);
    (from, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_skips_trailing_ff() {
        assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(after_prefix(&[1, 0xff, 0xff]), Some(vec![2]));
        assert_eq!(after_prefix(&[0xff, 0xff]), None);
        assert_eq!(after_prefix(&[]), None);
    }

    #[test]
    fn golden_bytes_of_a_key() {
        let mut key = Vec::new();
        full_key(&mut key, [0x01, 0x02, 0x03, 0x04, 0x00, 0x05], 0x00fe, b"k");
        assert_eq!(key, [1, 2, 3, 4, 0, 5, 0, 0xfe, b'k']);
    }

    #[test]
    fn a_point_that_comes_after_a_cleared_range_stands_above_it() {
        let mut group = GroupChanges::default();
        group.entry(b"a1").resets = true;
        group.entry(b"b1").resets = true;
        group.clear(KeyRange::of_prefix(b"a"));
        assert!(group.get(b"a1").is_none() && group.get(b"b1").is_some() && group.clears(b"a1"));
        group.entry(b"a2").pieces.push(1);
        assert_eq!(group.sorted().map(|(key, _)| key).collect::<Vec<_>>(), [b"a2", b"b1"]);
        assert_eq!(group.keys_in(&KeyRange::of_prefix(b"a")).collect::<Vec<_>>(), [b"a2"]);
    }
}
