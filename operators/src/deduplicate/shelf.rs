//! A shelf: the remembered events of one bucket and key group in memory, and how an event looks in notes and files.
//!
//! Invariant: `places` has each of `accepted` once; what was read back of the files is apart, since it is stored already.

use hashbrown::HashTable;
use weir_schemas::time::Epoch;

use crate::error::Error;
use crate::state::Stored;

/// Bytes of one accepted event in a filed value.
const ENTRY_BYTES: usize = 16;
/// Bytes of one accepted event in a note.
const NOTED_BYTES: usize = 32;

/// An accepted event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) identity: u128,
    /// The event time in microseconds.
    pub(crate) at: i64,
    pub(crate) content: u64,
}

impl Accepted {
    /// What a file holds of it, whose key has the identity.
    pub(super) fn write_entry(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.at.to_le_bytes());
        out.extend_from_slice(&self.content.to_le_bytes());
    }

    pub(super) fn write_note(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.identity.to_le_bytes());
        self.write_entry(out);
    }
}

/// The remembered events of one bucket and key group.
#[derive(Default)]
pub(super) struct Shelf {
    /// Accepted since the shelf was filed last.
    pub(super) accepted: Vec<Accepted>,
    /// Places in `accepted`, by identity.
    pub(super) places: HashTable<u32>,
    /// How many of `accepted` are noted; the others were accepted in the open epoch.
    pub(super) noted: usize,
    /// The epochs in which something was noted.
    pub(super) noted_in: Vec<Epoch>,
    /// Whether ids are filed.
    pub(super) has_files: bool,
    /// What was read back of the files.
    pub(super) read_back: HashTable<Accepted>,
}

impl Shelf {
    pub(super) fn len(&self) -> usize {
        self.accepted.len() + self.read_back.len()
    }

    /// What is in memory of an identity.
    pub(super) fn of(&self, identity: u128) -> impl Iterator<Item = &Accepted> {
        let hash = hash_of(identity);
        let places = self.places.iter_hash(hash).filter_map(|at| self.accepted.get(*at as usize));
        let all = places.chain(self.read_back.iter_hash(hash));
        all.filter(move |known| known.identity == identity)
    }

    pub(super) fn accept(&mut self, new: Accepted) {
        let Shelf { accepted, places, .. } = self;
        // A shelf is filed long before it has as many that a place wouldn't fit.
        let place = accepted.len() as u32;
        accepted.push(new);
        let hash_at = |at: &u32| accepted.get(*at as usize).map_or(0, |known| hash_of(known.identity));
        places.insert_unique(hash_of(new.identity), place, hash_at);
    }

    pub(super) fn read_back(&mut self, filed: Accepted) {
        self.read_back.insert_unique(hash_of(filed.identity), filed, |known| hash_of(known.identity));
    }
}

/// Bits of the identity that do not decide its key group, which a shelf's ids have in common.
fn hash_of(identity: u128) -> u64 {
    (identity >> 64) as u64
}

/// The records of a stored value, `size` bytes each.
fn records(stored: &Stored, size: usize) -> Result<std::slice::ChunksExact<'_, u8>, Error> {
    let bytes = stored.whole().unwrap_or_default();
    if bytes.is_empty() || !bytes.len().is_multiple_of(size) {
        return Err(Error::State {
            operator: "deduplicate or unique".to_owned(),
            detail: "a remembered id is corrupt: restore the state folder or start again from the log".to_owned(),
        });
    }
    Ok(bytes.chunks_exact(size))
}

/// An event time and a content.
fn entry(bytes: &[u8]) -> (i64, u64) {
    let number = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    (number(bytes.first_chunk()) as i64, number(bytes.last_chunk()))
}

pub(super) fn filed_in(stored: &Stored) -> Result<Vec<(i64, u64)>, Error> {
    Ok(records(stored, ENTRY_BYTES)?.map(entry).collect())
}

pub(super) fn noted_in(stored: &Stored) -> Result<Vec<Accepted>, Error> {
    let read = |record: &[u8]| {
        let (identity, rest) = record.split_at(NOTED_BYTES - ENTRY_BYTES);
        let (at, content) = entry(rest);
        let identity = identity.first_chunk::<16>().map_or(0, |bytes| u128::from_le_bytes(*bytes));
        Accepted { identity, at, content }
    };
    Ok(records(stored, NOTED_BYTES)?.map(read).collect())
}
