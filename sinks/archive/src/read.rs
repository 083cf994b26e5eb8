//! Reading a partition's records back, in the order of their offsets.
//!
//! Objects are cut by hour, and timestamps go back and forth, so objects of one partition may interleave: they are merged.
//! An object is held to its checksum when it is opened, and kept in a file without a name while it is read; memory holds a
//! batch of each open one.
//!
//! Not here: which partitions are wanted, and what becomes of the records.

use std::collections::VecDeque;
use std::io::{Seek, Write};

use bytes::Bytes;

use crate::catalog::Catalog;
use crate::crypto::sha256;
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
    selection: Selection,
    /// Those that aren't opened yet, by their first offset.
    waiting: VecDeque<Entry>,
    open: Vec<Opened>,
}

struct Opened {
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
    let each = entry.raw_bytes / entry.records.max(1) + 1;
    (BATCH_BYTES / each).clamp(1, BATCH_ROWS) as usize
}

impl Archive {
    /// An object's bytes, held to the manifest.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it is missing, cut or altered; [`Error::Store`].
    pub(crate) fn fetch(&self, entry: &Entry) -> Result<Bytes, Error> {
        let bytes = self.store().get(&entry.object)?.ok_or_else(|| Error::damaged(&entry.object, "it is missing"))?;
        if bytes.len() as u64 != entry.bytes {
            let detail = format!("it has {} bytes, and the manifest says {}", bytes.len(), entry.bytes);
            return Err(Error::damaged(&entry.object, detail));
        }
        if sha256(&bytes) != entry.sha256 {
            return Err(Error::damaged(&entry.object, "its bytes were altered: the checksum differs"));
        }
        Ok(bytes)
    }

    /// The records of a partition that `selection` wants.
    pub fn in_order(&self, catalog: &Catalog, topic: &str, partition: i32, selection: Selection) -> Order {
        let is_wanted = |entry: &&Entry| entry.last_offset >= selection.first && entry.first_offset < selection.next;
        let waiting = catalog.of_partition(topic, partition).into_iter().filter(is_wanted).cloned().collect();
        Order { archive: self.clone(), selection, waiting, open: Vec::new() }
    }
}

impl Order {
    /// The next record; `None` after the last.
    ///
    /// # Errors
    /// [`Error::Damaged`] with the object that can't be read; [`Error::Store`].
    pub fn next_record(&mut self) -> Result<Option<Kept>, Error> {
        loop {
            let least = self.open.iter().enumerate().filter_map(|(at, of)| Some((of.ready.front()?.offset, at))).min();
            let opens =
                self.waiting.front().is_some_and(|entry| least.is_none_or(|(least, _)| entry.first_offset < least));
            if opens {
                if let Some(entry) = self.waiting.pop_front() {
                    self.open(&entry)?;
                }
                continue;
            }
            let Some((_, at)) = least else { return Ok(None) };
            let selection = self.selection;
            let Some(opened) = self.open.get_mut(at) else { return Ok(None) };
            let record = opened.ready.pop_front();
            if !opened.fill(selection)? {
                self.open.swap_remove(at);
            }
            return Ok(record);
        }
    }

    fn open(&mut self, entry: &Entry) -> Result<(), Error> {
        let bytes = self.archive.fetch(entry)?;
        let spill = || -> std::io::Result<std::fs::File> {
            let mut file = tempfile::tempfile()?;
            file.write_all(&bytes)?;
            file.rewind()?;
            Ok(file)
        };
        let file = spill().map_err(|error| Error::Store {
            url: std::env::temp_dir().display().to_string(),
            what: "keep an object while it is read".to_owned(),
            detail: error.to_string(),
        })?;
        let reader = FileReader::open(&entry.object, file, rows_at_once(entry))?;
        let mut opened = Opened { reader, ready: VecDeque::new() };
        if opened.fill(self.selection)? {
            self.open.push(opened);
        }
        Ok(())
    }
}
