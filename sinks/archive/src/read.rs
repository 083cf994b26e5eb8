//! Reading a partition's records back, in the order of their offsets.
//!
//! Objects are cut by hour, and timestamps go back and forth, so objects of one partition may interleave: they are merged.
//! An object goes piece by piece into a file without a name, is held to its checksum, and is read from there; memory holds a
//! batch of each open one.
//!
//! Reading may take longer than objects that were merged or have expired are left alone. Where one is missing, the catalogue is
//! read again, and reading goes on behind the last record that was given.
//!
//! Not here: which partitions are wanted, and what becomes of the records.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Seek, Write};

use crate::catalog::Catalog;
use crate::crypto::Sha256;
use crate::error::Error;
use crate::file::FileReader;
use crate::manifest::{Archive, Entry};
use crate::record::Kept;

/// Bytes of records that are decoded at once, of each object.
const BATCH_BYTES: u64 = 2 << 20;

/// Records that are decoded at once, at most.
const BATCH_ROWS: u64 = 4_096;

/// Which offsets are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The first one.
    pub first: i64,
    /// The one after the last.
    pub next: i64,
}

impl Selection {
    /// All of them.
    pub const ALL: Selection = Selection { first: i64::MIN, next: i64::MAX };
}

/// The records of a partition, in order.
pub struct Order {
    archive: Archive,
    topic: String,
    partition: i32,
    /// What is still wanted: its beginning moves on with every record.
    selection: Selection,
    /// Those that aren't opened yet, by their first offset.
    waiting: VecDeque<Entry>,
    open: Vec<Opened>,
}

struct Opened {
    entry: Entry,
    reader: FileReader,
    ready: VecDeque<Kept>,
}

impl Opened {
    /// Makes sure that a record is ready; false at the end of the object.
    fn fill(&mut self, selection: Selection) -> Result<bool, Error> {
        while self.ready.is_empty() {
            let ready = &mut self.ready;
            let is_more = self.reader.next(|record| {
                if (selection.first..selection.next).contains(&record.offset) {
                    ready.push_back(Kept {
                        partition: record.partition,
                        offset: record.offset,
                        timestamp_ms: record.timestamp_ms,
                        is_append_time: record.is_append_time,
                        key: record.key.map(<[u8]>::to_vec),
                        value: record.value.map(<[u8]>::to_vec),
                        headers: record.headers.to_vec(),
                    });
                }
                Ok(())
            })?;
            if !is_more {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// How many records of an object are decoded at once.
pub(crate) fn rows_at_once(entry: &Entry) -> usize {
    let each = (entry.raw_bytes / entry.records.max(1)).saturating_add(1);
    (BATCH_BYTES / each).clamp(1, BATCH_ROWS) as usize
}

/// An object's bytes in a file without a name.
pub(crate) struct Spilled {
    pub(crate) file: File,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

impl Archive {
    /// Takes an object out of the store, piece by piece; `None` when it isn't there.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn spill(&self, name: &str) -> Result<Option<Spilled>, Error> {
        let failed = |error: std::io::Error| Error::Store {
            url: std::env::temp_dir().display().to_string(),
            what: format!("keep {name} while it is read"),
            detail: error.to_string(),
        };
        let mut file = tempfile::tempfile().map_err(failed)?;
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        let is_there = self.store().read(name, |piece| {
            bytes += piece.len() as u64;
            hash.update(piece);
            file.write_all(piece)
        })?;
        if !is_there {
            return Ok(None);
        }
        file.rewind().map_err(failed)?;
        Ok(Some(Spilled { file, bytes, sha256: hash.finish() }))
    }

    /// The records of a partition that `selection` wants.
    pub fn in_order(&self, catalog: &Catalog, topic: &str, partition: i32, selection: Selection) -> Order {
        let waiting = planned(catalog, topic, partition, selection);
        Order { archive: self.clone(), topic: topic.to_owned(), partition, selection, waiting, open: Vec::new() }
    }

    /// The records of some objects of a partition.
    pub(crate) fn together(&self, topic: &str, partition: i32, mut entries: Vec<Entry>) -> Order {
        entries.sort_by_key(|entry| entry.first_offset);
        let (selection, topic) = (Selection::ALL, topic.to_owned());
        Order { archive: self.clone(), topic, partition, selection, waiting: entries.into(), open: Vec::new() }
    }
}

/// The objects that hold what `selection` wants, by their first offsets.
fn planned(catalog: &Catalog, topic: &str, partition: i32, selection: Selection) -> VecDeque<Entry> {
    let is_wanted = |entry: &&Entry| entry.last_offset >= selection.first && entry.first_offset < selection.next;
    catalog.of_partition(topic, partition).into_iter().filter(is_wanted).cloned().collect()
}

impl Order {
    /// The next record; `None` after the last. May be asked again after [`Error::Store`]: nothing is passed over.
    ///
    /// # Errors
    /// [`Error::Damaged`] with the object that can't be read, or whose records expired meanwhile; [`Error::Store`].
    pub fn next_record(&mut self) -> Result<Option<Kept>, Error> {
        while self.opens_next() {
            let Some(entry) = self.waiting.front().cloned() else { break };
            match self.archive.spill(&entry.object)? {
                Some(spilled) => {
                    self.open(&entry, spilled)?;
                    self.waiting.pop_front();
                }
                None => self.plan_anew(&entry)?,
            }
        }
        let Some((_, at)) = self.least() else { return Ok(None) };
        let Some(opened) = self.open.get_mut(at) else { return Ok(None) };
        let record = opened.ready.pop_front();
        if let Some(record) = &record {
            self.selection.first = record.offset.saturating_add(1);
        }
        if !opened.fill(self.selection)? {
            self.open.swap_remove(at);
        }
        Ok(record)
    }

    /// Whether an object is taken out of the store before the next record is there, which may take long.
    pub fn opens_next(&self) -> bool {
        let least = self.least();
        self.waiting.front().is_some_and(|entry| least.is_none_or(|(least, _)| entry.first_offset < least))
    }

    /// The least offset that is ready, and which of the open objects has it.
    fn least(&self) -> Option<(i64, usize)> {
        self.open.iter().enumerate().filter_map(|(at, of)| Some((of.ready.front()?.offset, at))).min()
    }

    fn open(&mut self, entry: &Entry, spilled: Spilled) -> Result<(), Error> {
        if spilled.bytes != entry.bytes {
            let detail = format!("it has {} bytes, and the manifest says {}", spilled.bytes, entry.bytes);
            return Err(Error::damaged(&entry.object, detail));
        }
        if spilled.sha256 != entry.sha256 {
            return Err(Error::damaged(&entry.object, "its bytes were altered: the checksum differs"));
        }
        let reader = FileReader::open(&entry.object, spilled.file, rows_at_once(entry))?;
        let mut opened = Opened { entry: entry.clone(), reader, ready: VecDeque::new() };
        if opened.fill(self.selection)? {
            self.open.push(opened);
        }
        Ok(())
    }

    /// Goes on with what the archive holds now: `missing` may have been merged, or have expired, since it was planned.
    fn plan_anew(&mut self, missing: &Entry) -> Result<(), Error> {
        let catalog = self.archive.catalog()?;
        if catalog.entries.contains_key(&missing.object) {
            return Err(Error::damaged(&missing.object, "it is missing"));
        }
        let planned = planned(&catalog, &self.topic, self.partition, self.selection);
        let holds = |of: &Entry, entry: &Entry| {
            of.hour == entry.hour && of.first_offset <= entry.first_offset && of.last_offset >= entry.last_offset
        };
        let mut due = self.waiting.iter().chain(self.open.iter().map(|opened| &opened.entry));
        if let Some(gone) = due.find(|entry| !planned.iter().any(|of| holds(of, entry))) {
            return Err(Error::damaged(&gone.object, "its records have expired while they were read"));
        }
        self.open.clear();
        self.waiting = planned;
        Ok(())
    }
}
