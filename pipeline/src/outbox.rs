//! The outbox: committed rows that wait for delivery, in the same database and the same write as the state.
//!
//! Format, in the column family `outbox`:
//! ```text
//! key    destination u16 BE | epoch u64 BE | the row's natural key
//! value  rows u32 LE | payload as its encoder wrote it
//! ```
//! A destination's number is given once and kept in the column family `meta` (see `recovery`), as is the epoch up to
//! which it is delivered.
//!
//! Invariants:
//! - Rows enter with the epoch's commit or not at all.
//! - Where only the newest row of a key counts, at most one undelivered row per key is kept; an index in memory by the
//!   keys' hashes, rebuilt at start, finds the one that a newer row replaces. Two keys of one hash cost no row: of
//!   both what is undelivered is sent, though it be twice. A reading sees the rows as they stood when it began,
//!   so that "delivered up to e" always means: of every key the newest row of the epochs up to e.
//! - What a row takes in the index counts among the bytes that wait, so that their bound bounds the memory, too.
//! - Delivered epochs stay for [`KEPT_FOR`] or until they take as much as undelivered rows may, the newest first, so
//!   that a server that lost what it had acknowledged can be told again.
//!
//! Not here: sending (`deliver`), and when no epoch may open because the outbox is full (`epochs`).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use weir_operators::state::{Family, Store, Sync, Writes};
use weir_schemas::time::Epoch;
use weir_sinks::OutRow;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::Error;

/// How long delivered epochs stay.
pub const KEPT_FOR: Duration = Duration::from_secs(600);

/// A destination's number within one state folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationId(pub u16);

/// Bytes of memory that an undelivered row takes where only the newest of a key counts: an entry of the index at the least
/// load of its table.
pub const INDEX_BYTES: u64 = 80;

/// Rows that wait, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Rows.
    pub rows: u64,
    /// Bytes of keys and payloads, and of the index in memory.
    pub bytes: u64,
}

/// The committed rows of every destination.
pub struct Outbox {
    store: Arc<Store>,
    lanes: Vec<Mutex<Lane>>,
    /// Delivered bytes that are kept at most, per destination.
    kept_bytes: u64,
}

/// One destination's share.
struct Lane {
    newest_only: bool,
    delivered: Epoch,
    /// Where the undelivered row of a key stands, by the key's hash; empty where every row counts.
    index: HashMap<u64, Placed>,
    /// Undelivered rows by epoch.
    waiting: BTreeMap<Epoch, Waiting>,
    /// Delivered epochs that are still kept.
    kept: BTreeMap<Epoch, Kept>,
}

#[derive(Clone, Copy)]
struct Placed {
    epoch: Epoch,
    rows: u32,
    bytes: u64,
}

#[derive(Clone, Copy)]
struct Kept {
    delivered_at: Instant,
    bytes: u64,
}

impl Outbox {
    /// The outbox of an open database. `lanes` says for each destination, by number, whether only the newest row of a key
    /// counts, and up to which epoch it is delivered.
    ///
    /// # Errors
    /// When the database can't be read or holds a key that this program doesn't write.
    pub fn open(store: Arc<Store>, lanes: &[(bool, Epoch)], kept_bytes: u64) -> Result<Outbox, Error> {
        let mut opened = Vec::with_capacity(lanes.len());
        for (id, &(newest_only, delivered)) in (0..=u16::MAX).map(DestinationId).zip(lanes) {
            opened.push(Mutex::new(Lane::read(&store, id, newest_only, delivered)?));
        }
        Ok(Outbox { store, lanes: opened, kept_bytes })
    }

    /// Adds to a commit's `writes` what brings `rows` of `epoch` into the outbox. Takes effect with
    /// [`Outbox::committed`], when they are on disk.
    pub fn stage(&self, writes: &mut Writes<'_>, epoch: Epoch, rows: &[(DestinationId, OutRow)]) {
        let mut value = Vec::new();
        for (destination, row) in rows {
            if let Some(lane) = self.lane(*destination)
                && let Some(older) = lane.index.get(&xxh3_64(&row.key))
                && older.epoch < epoch
            {
                writes.delete(Family::Outbox, &key_of(*destination, older.epoch, &row.key));
            }
            value.clear();
            value.extend_from_slice(&row.rows.to_le_bytes());
            value.extend_from_slice(&row.payload);
            writes.put(Family::Outbox, &key_of(*destination, epoch, &row.key), &value);
        }
    }

    /// Tells that what [`Outbox::stage`] wrote is on disk.
    pub fn committed(&self, epoch: Epoch, rows: Vec<(DestinationId, OutRow)>) {
        for (destination, row) in rows {
            let Some(mut lane) = self.lane(destination) else { continue };
            let placed = lane.placed(epoch, &row);
            lane.add(&row.key, placed);
        }
    }

    /// The epoch up to which `destination` is delivered.
    pub fn delivered(&self, destination: DestinationId) -> Epoch {
        self.lane(destination).map_or(Epoch(0), |lane| lane.delivered)
    }

    /// What `destination` still has to get.
    pub fn waiting(&self, destination: DestinationId) -> Waiting {
        self.lane(destination).map(|lane| lane.waiting_in_all()).unwrap_or_default()
    }

    /// What all destinations still have to get.
    pub fn waiting_in_all(&self) -> Waiting {
        let mut all = Waiting::default();
        for number in 0..self.lanes.len() {
            let waiting = self.waiting(DestinationId(number as u16));
            all.rows += waiting.rows;
            all.bytes += waiting.bytes;
        }
        all
    }

    /// Shows the rows of `destination` after epoch `after`, up to `to`, in pieces of about `bytes`, in the order of their
    /// epochs and as they stand now: what a commit replaces meanwhile is still shown. Ends early when `take`, which may
    /// block, returns false.
    ///
    /// # Errors
    /// When the disk fails, or holds what this program doesn't write.
    pub fn read(
        &self,
        destination: DestinationId,
        after: Epoch,
        to: Epoch,
        bytes: usize,
        mut take: impl FnMut(Piece) -> bool,
    ) -> Result<(), Error> {
        let (from, end) = (key_of(destination, after.next(), &[]), key_of(destination, to.next(), &[]));
        let (mut piece, mut held, mut foreign) = (Piece::default(), 0, false);
        let mut goes_on = true;
        self.store.scan(Family::Outbox, &from, &end, |key, value| {
            let Some((epoch, row)) = parsed(key, value) else {
                foreign = true;
                return false;
            };
            held += row.key.len() + row.payload.len();
            piece.epoch = epoch;
            piece.rows.push(row);
            if held >= bytes {
                held = 0;
                goes_on = take(std::mem::take(&mut piece));
            }
            goes_on
        })?;
        if foreign {
            return Err(foreign_entry());
        }
        if goes_on && !piece.rows.is_empty() {
            take(piece);
        }
        Ok(())
    }

    /// Tells that `destination` acknowledged every row up to `to`, and lets go of what was kept for long enough.
    ///
    /// The caller keeps the fact on disk; losing it costs a repeated delivery and nothing else.
    pub fn acknowledge(&self, destination: DestinationId, to: Epoch, now: Instant) -> Result<(), Error> {
        let Some(mut lane) = self.lane(destination) else { return Ok(()) };
        lane.acknowledge(to, now);
        if let Some(last) = lane.expire(now, self.kept_bytes) {
            drop(lane);
            let mut writes = self.store.writes();
            let from = key_of(destination, Epoch(0), &[]);
            writes.delete_range(Family::Outbox, &from, &key_of(destination, last.next(), &[]));
            self.store.write(writes, Sync::Later)?;
        }
        Ok(())
    }

    /// The epoch before the oldest delivered one that is still kept: delivering again starts after it.
    pub fn kept_after(&self, destination: DestinationId) -> Epoch {
        let Some(lane) = self.lane(destination) else { return Epoch(0) };
        lane.kept.keys().next().map_or(lane.delivered, |oldest| Epoch(oldest.0 - 1))
    }

    fn lane(&self, destination: DestinationId) -> Option<MutexGuard<'_, Lane>> {
        let lane = self.lanes.get(usize::from(destination.0))?;
        Some(lane.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Lane {
    fn read(store: &Store, id: DestinationId, newest_only: bool, delivered: Epoch) -> Result<Lane, Error> {
        let mut lane =
            Lane { newest_only, delivered, index: HashMap::new(), waiting: BTreeMap::new(), kept: BTreeMap::new() };
        let (now, mut foreign) = (Instant::now(), false);
        let (from, end) = (key_of(id, Epoch(0), &[]), key_of(id, Epoch(u64::MAX), &[]));
        store.scan(Family::Outbox, &from, &end, |key, value| {
            let Some((epoch, row)) = parsed(key, value) else {
                foreign = true;
                return false;
            };
            if epoch <= delivered {
                let bytes = (row.key.len() + row.payload.len()) as u64;
                lane.kept.entry(epoch).or_insert(Kept { delivered_at: now, bytes: 0 }).bytes += bytes;
            } else {
                let placed = lane.placed(epoch, &row);
                lane.add(&row.key, placed);
            }
            true
        })?;
        if foreign { Err(foreign_entry()) } else { Ok(lane) }
    }

    fn placed(&self, epoch: Epoch, row: &OutRow) -> Placed {
        let in_memory = if self.newest_only { INDEX_BYTES } else { 0 };
        Placed { epoch, rows: row.rows, bytes: (row.key.len() + row.payload.len()) as u64 + in_memory }
    }

    fn add(&mut self, key: &[u8], placed: Placed) {
        if self.newest_only
            && let Some(older) = self.index.insert(xxh3_64(key), placed)
            && let Some(waiting) = self.waiting.get_mut(&older.epoch)
        {
            waiting.rows = waiting.rows.saturating_sub(u64::from(older.rows));
            waiting.bytes = waiting.bytes.saturating_sub(older.bytes);
        }
        let waiting = self.waiting.entry(placed.epoch).or_default();
        waiting.rows += u64::from(placed.rows);
        waiting.bytes += placed.bytes;
    }

    fn waiting_in_all(&self) -> Waiting {
        self.waiting.values().fold(Waiting::default(), |all, epoch| Waiting {
            rows: all.rows + epoch.rows,
            bytes: all.bytes + epoch.bytes,
        })
    }

    fn acknowledge(&mut self, to: Epoch, now: Instant) {
        if to <= self.delivered {
            return;
        }
        self.delivered = to;
        self.index.retain(|_, placed| placed.epoch > to);
        // What an outage let it grow to isn't kept for the next one.
        if self.index.capacity() > 8 * self.index.len().max(1_024) {
            self.index.shrink_to(2 * self.index.len());
        }
        let later = self.waiting.split_off(&to.next());
        for (epoch, waiting) in std::mem::replace(&mut self.waiting, later) {
            if waiting.bytes > 0 {
                self.kept.insert(epoch, Kept { delivered_at: now, bytes: waiting.bytes });
            }
        }
    }

    /// Forgets delivered epochs that were kept for long enough or take too much, and returns the newest of them.
    fn expire(&mut self, now: Instant, kept_bytes: u64) -> Option<Epoch> {
        let mut bytes: u64 = self.kept.values().map(|kept| kept.bytes).sum();
        let mut last = None;
        while let Some(oldest) = self.kept.first_entry() {
            let kept = *oldest.get();
            if now.saturating_duration_since(kept.delivered_at) < KEPT_FOR && bytes <= kept_bytes {
                break;
            }
            bytes -= kept.bytes;
            last = Some(*oldest.key());
            oldest.remove();
        }
        last
    }
}

/// Rows on their way out of the outbox.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// The newest epoch among the rows.
    pub epoch: Epoch,
    /// The rows.
    pub rows: Vec<OutRow>,
}

/// The row of an entry; `None` when this program doesn't write such an entry.
fn parsed(key: &[u8], value: &[u8]) -> Option<(Epoch, OutRow)> {
    let epoch = u64::from_be_bytes(key.get(2..10)?.try_into().ok()?);
    let (rows, payload) = value.split_at_checked(4)?;
    let rows = u32::from_le_bytes(rows.try_into().ok()?);
    Some((Epoch(epoch), OutRow { key: key.get(10..)?.to_vec(), payload: payload.to_vec(), rows }))
}

fn foreign_entry() -> Error {
    Error::State {
        detail: "the outbox holds an entry that this version of weir does not write".to_owned(),
        remedy: "run the version that wrote the state, or start with an empty state folder".to_owned(),
    }
}

/// The key of a row.
fn key_of(destination: DestinationId, epoch: Epoch, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(10 + key.len());
    bytes.extend_from_slice(&destination.0.to_be_bytes());
    bytes.extend_from_slice(&epoch.0.to_be_bytes());
    bytes.extend_from_slice(key);
    bytes
}
