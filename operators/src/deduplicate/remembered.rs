//! The accepted events that are remembered: by the hash of tenant and id, in buckets of event time.
//!
//! A bucket is in memory as a hash table, with a table of bytes beneath it. While everything of a bucket is in memory,
//! which is the rule, an id that is not found there was never accepted, and nothing is read. When the bound is passed
//! the bucket that was used longest ago leaves memory; from then on its ids are asked for below, a batch at a time.
//!
//! ```text
//! key   = bucket's start (i64 BE, sign turned) | identity (16 bytes, little endian)
//! value = (event time (i64 LE) | content (u64 LE)) repeated: several accepted events of one id whose times differ by
//!         more than the horizon may stand in one bucket
//! ```

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

use hashbrown::HashTable;

use crate::error::Error;
use crate::group_key::{decode_start, encode_start};
use crate::route::GROUPS;
use crate::state::{ByteTable, Stored};

/// Bytes of memory that an id takes, with the slack of its hash table.
const ID_BYTES: usize = 64;
/// Bytes of one accepted event in a stored value.
const ENTRY_BYTES: usize = 16;

/// An accepted event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) identity: u128,
    /// The event time in microseconds.
    pub(super) at: i64,
    pub(super) content: u64,
}

impl Accepted {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.at.to_le_bytes());
        out.extend_from_slice(&self.content.to_le_bytes());
    }
}

/// An accepted event that the table beneath does not have yet.
struct Unsaved {
    group: u16,
    /// Whether an event of the same identity stood in its bucket before: then the value holds more than this one.
    has_others: bool,
    start: i64,
    accepted: Accepted,
}

#[derive(Default)]
struct Bucket {
    ids: HashTable<Accepted>,
    /// Whether ids of the bucket may be stored that are not in `ids`.
    spilled: bool,
    used_at: u64,
}

pub(super) struct Remembered {
    table: ByteTable,
    width: i64,
    memory_bytes: usize,
    buckets: BTreeMap<i64, Bucket>,
    /// Accepted and not yet handed to the table beneath; still in memory, too.
    unsaved: Vec<Unsaved>,
    owned: Range<u16>,
    in_memory: usize,
    clock: u64,
}

impl Remembered {
    /// What `table` holds, for the key groups `owned`; `width` is a bucket's in microseconds.
    pub(super) fn new(table: ByteTable, owned: Range<u16>, width: i64, memory_bytes: usize) -> Result<Self, Error> {
        let mut buckets: BTreeMap<i64, Bucket> = BTreeMap::new();
        for group in owned.clone() {
            let mut from = Vec::new();
            loop {
                let mut found = None;
                table.scan_range(group, &from, &[0xff; 9], |key, _| {
                    found = Some(decode_start(key)?);
                    Ok(ControlFlow::Break(()))
                })?;
                let Some(start) = found else { break };
                buckets.entry(start).or_default().spilled = true;
                let Some(next) = start.checked_add(1) else { break };
                from = encode_start(next).to_vec();
            }
        }
        Ok(Remembered { table, width, memory_bytes, buckets, unsaved: Vec::new(), owned, in_memory: 0, clock: 0 })
    }

    /// How many ids are in memory.
    pub(super) fn in_memory(&self) -> usize {
        self.in_memory
    }

    /// The start of the bucket of an event time.
    pub(super) fn bucket_of(&self, at: i64) -> i64 {
        at.saturating_sub(at.rem_euclid(self.width))
    }

    /// Brings into memory what is stored of the ids of `asked`, in the buckets between `at - reach` and `at + reach`, so
    /// that [`Remembered::find`] needs no disk.
    pub(super) fn prefetch(&mut self, asked: &[(u128, i64)], reach: i64) -> Result<(), Error> {
        if !self.buckets.values().any(|bucket| bucket.spilled) {
            return Ok(());
        }
        let mut missing = Vec::new();
        for (identity, at) in asked {
            let (from, to) = (self.bucket_of(at.saturating_sub(reach)), at.saturating_add(reach));
            for (start, bucket) in self.buckets.range(from..=to) {
                if bucket.spilled && bucket.ids.find(hash_of(*identity), |known| known.identity == *identity).is_none()
                {
                    missing.push((*start, *identity));
                }
            }
        }
        missing.sort_unstable();
        missing.dedup();
        let keys: Vec<[u8; 24]> = missing.iter().map(|(start, identity)| key_of(*start, *identity)).collect();
        let asked = missing.iter().zip(&keys).map(|((_, identity), key)| (group_of(*identity), &key[..]));
        let stored = self.table.get_many(asked)?;
        for ((start, identity), stored) in missing.into_iter().zip(stored) {
            let Some(stored) = stored else { continue };
            for (at, content) in entries_of(&stored)? {
                self.insert(start, Accepted { identity, at, content });
            }
        }
        Ok(())
    }

    /// An accepted event with this identity whose time is within `reach` of `at`, the nearest one.
    pub(super) fn find(&mut self, identity: u128, at: i64, reach: i64) -> Option<Accepted> {
        self.clock += 1;
        let first = self.bucket_of(at.saturating_sub(reach));
        let mut nearest: Option<Accepted> = None;
        for (_, bucket) in self.buckets.range_mut(first..=at.saturating_add(reach)) {
            bucket.used_at = self.clock;
            for known in bucket.ids.iter_hash(hash_of(identity)).filter(|known| known.identity == identity) {
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

    /// Remembers an event that was just accepted.
    pub(super) fn accept(&mut self, accepted: Accepted) {
        let start = self.bucket_of(accepted.at);
        let bucket = self.buckets.get(&start);
        let has_others = bucket.is_some_and(|bucket| {
            bucket.ids.find(hash_of(accepted.identity), |known| known.identity == accepted.identity).is_some()
        });
        self.insert(start, accepted);
        self.unsaved.push(Unsaved { group: group_of(accepted.identity), has_others, start, accepted });
    }

    fn insert(&mut self, start: i64, accepted: Accepted) {
        let bucket = self.buckets.entry(start).or_default();
        bucket.used_at = self.clock;
        bucket.ids.insert_unique(hash_of(accepted.identity), accepted, |known| hash_of(known.identity));
        self.in_memory += 1;
    }

    /// Writes events that were accepted since the last time to the table beneath.
    pub(super) fn save(&mut self) -> Result<(), Error> {
        let mut unsaved = std::mem::take(&mut self.unsaved);
        // One key group after the other: what is staged of one fits the processor's cache.
        unsaved.sort_by_key(|new| new.group);
        let mut value = Vec::with_capacity(ENTRY_BYTES);
        for Unsaved { group, has_others, start, accepted } in unsaved.drain(..) {
            value.clear();
            if has_others {
                let Some(bucket) = self.buckets.get(&start) else { continue };
                let same = bucket.ids.iter_hash(hash_of(accepted.identity));
                same.filter(|known| known.identity == accepted.identity).for_each(|known| known.write(&mut value));
            } else {
                accepted.write(&mut value);
            }
            self.table.put(group, &key_of(start, accepted.identity), &value)?;
        }
        self.unsaved = unsaved;
        Ok(())
    }

    /// Lets buckets leave memory until the rest fits. Everything must be saved.
    pub(super) fn evict(&mut self) {
        while self.in_memory * ID_BYTES > self.memory_bytes {
            let oldest =
                self.buckets.values_mut().filter(|bucket| !bucket.ids.is_empty()).min_by_key(|bucket| bucket.used_at);
            let Some(bucket) = oldest else { return };
            self.in_memory = self.in_memory.saturating_sub(bucket.ids.len());
            bucket.ids = HashTable::new();
            bucket.spilled = true;
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.in_memory * ID_BYTES > self.memory_bytes
    }

    /// Forgets every bucket that ends at `through` or before.
    pub(super) fn forget(&mut self, through: i64) -> Result<(), Error> {
        let boundary = self.bucket_of(through);
        if self.buckets.first_key_value().is_none_or(|(first, _)| *first >= boundary) {
            return Ok(());
        }
        let kept = self.buckets.split_off(&boundary);
        let dropped = std::mem::replace(&mut self.buckets, kept);
        self.in_memory -= dropped.values().map(|bucket| bucket.ids.len()).sum::<usize>();
        for group in self.owned.clone() {
            self.table.delete_range(group, &[], &encode_start(boundary))?;
        }
        Ok(())
    }
}

/// The key group of an identity: its low bits.
fn group_of(identity: u128) -> u16 {
    (identity & u128::from(GROUPS - 1)) as u16
}

/// Bits of the identity that do not decide its key group, which a worker's ids have in common.
fn hash_of(identity: u128) -> u64 {
    (identity >> 64) as u64
}

fn key_of(start: i64, identity: u128) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&encode_start(start));
    key[8..].copy_from_slice(&identity.to_le_bytes());
    key
}

fn entries_of(stored: &Stored) -> Result<Vec<(i64, u64)>, Error> {
    let bytes = stored.whole().unwrap_or_default();
    if bytes.is_empty() || !bytes.len().is_multiple_of(ENTRY_BYTES) {
        return Err(Error::State {
            operator: "deduplicate".to_owned(),
            detail: "a remembered id is corrupt: restore the state folder or start again from the log".to_owned(),
        });
    }
    let number = |bytes: &[u8]| bytes.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    Ok(bytes.chunks_exact(ENTRY_BYTES).map(|entry| (number(entry) as i64, number(&entry[8..]))).collect())
}
