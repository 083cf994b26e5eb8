//! Compaction: the small objects of an hour become one, with the same rows.
//!
//! The new object is put first, then one commit names it instead of the old ones, which are deleted after a grace
//! (`sweep`). A kill leaves an object that nobody names, or old objects that are deleted later. Only objects below half of
//! the aimed size are merged, so that a late record doesn't have a large object written again.
//!
//! Whoever reads the folders by a pattern and not by the manifest sees both for the time of the grace.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::catalog::Catalog;
use crate::error::Error;
use crate::file::{FileReader, FileWriter};
use crate::manifest::{Archive, Change, Commit, Entry};
use crate::name::Hour;
use crate::read::rows_at_once;
use crate::write;

/// What is merged.
#[derive(Clone, Copy, Debug)]
pub struct Compaction {
    /// The size that objects are to have, in bytes.
    pub aim_bytes: u64,
    /// How long an hour must be over, in milliseconds.
    pub settle_ms: i64,
}

/// What one merge did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The new object.
    pub object: String,
    /// How many objects it replaces.
    pub objects: usize,
    /// The records in it.
    pub records: u64,
}

/// The next objects that belong together, if there are any.
fn candidates(catalog: &Catalog, compaction: Compaction, now_ms: i64) -> Option<Vec<Entry>> {
    let mut hours: BTreeMap<(&str, i32, Hour), Vec<&Entry>> = BTreeMap::new();
    let is_over = |entry: &&Entry| entry.hour.ends_at_ms().saturating_add(compaction.settle_ms) <= now_ms;
    let is_small = |entry: &&Entry| entry.bytes < compaction.aim_bytes / 2;
    for entry in catalog.entries.values().filter(is_over).filter(is_small) {
        hours.entry((&entry.topic, entry.partition, entry.hour)).or_default().push(entry);
    }
    for mut entries in hours.into_values().filter(|entries| entries.len() > 1) {
        entries.sort_by_key(|entry| entry.first_offset);
        let mut bytes = 0;
        let fits = |entry: &&&Entry| {
            bytes += entry.bytes;
            bytes <= compaction.aim_bytes
        };
        let together: Vec<Entry> = entries.iter().take_while(fits).map(|entry| (*entry).clone()).collect();
        if together.len() > 1 {
            return Some(together);
        }
    }
    None
}

impl Archive {
    /// Merges once, if there is something to merge. To be called until it says `None`.
    ///
    /// # Errors
    /// [`Error::Damaged`] with an object that isn't what the manifest says; nothing is changed then. As of
    /// [`Archive::commit`] besides.
    pub fn merge(
        &self,
        catalog: &mut Catalog,
        compaction: Compaction,
        now: DateTime<Utc>,
    ) -> Result<Option<Merged>, Error> {
        let Some(entries) = candidates(catalog, compaction, now.timestamp_millis()) else { return Ok(None) };
        let Some(first) = entries.first() else { return Ok(None) };
        let mut file = FileWriter::new()?;
        let mut last_offset = i64::MIN;
        for entry in &entries {
            let mut reader = FileReader::open(&entry.object, self.fetch(entry)?, rows_at_once(entry))?;
            let mut each = |record: &crate::Record<'_>| {
                if record.offset <= last_offset {
                    let detail = format!("offset {} comes behind {last_offset}", record.offset);
                    return Err(Error::damaged(&entry.object, detail));
                }
                last_offset = record.offset;
                file.add(record)
            };
            while reader.next(&mut each)? {}
        }
        let (bytes, facts) = file.finish()?;
        let merged = write::entry(first.topic.clone(), first.partition, first.hour, &bytes, facts);
        same_rows(&entries, &merged)?;
        self.store().put(&merged.object, Bytes::from(bytes))?;
        let done = Merged { object: merged.object.clone(), objects: entries.len(), records: merged.records };
        let removed = entries.into_iter().map(|entry| entry.object).collect();
        let commit = Commit { change: Change::Merge, added: vec![merged], removed, ..Commit::default() };
        self.commit(catalog, commit, now)?;
        Ok(Some(done))
    }

    /// Lets go of a topic's objects whose records are all older than `before_ms`, and tells how many those were. Objects
    /// whose records have no timestamps stay.
    ///
    /// # Errors
    /// As of [`Archive::commit`].
    pub fn expire(
        &self,
        catalog: &mut Catalog,
        topic: &str,
        before_ms: i64,
        now: DateTime<Utc>,
    ) -> Result<usize, Error> {
        let is_old = |entry: &&Entry| {
            entry.topic == topic && entry.greatest_timestamp_ms.is_some_and(|greatest| greatest < before_ms)
        };
        let removed: Vec<String> = catalog.entries.values().filter(is_old).map(|entry| entry.object.clone()).collect();
        let count = removed.len();
        if count > 0 {
            self.commit(catalog, Commit { change: Change::Expire, removed, ..Commit::default() }, now)?;
        }
        Ok(count)
    }
}

/// Whether a merged object has the rows of those that it replaces.
fn same_rows(entries: &[Entry], merged: &Entry) -> Result<(), Error> {
    let hash = |entry: &Entry| u64::from_str_radix(&entry.rows_hash, 16).unwrap_or_default();
    let expected = entries.iter().fold(0_u64, |sum, entry| sum.wrapping_add(hash(entry)));
    let records: u64 = entries.iter().map(|entry| entry.records).sum();
    if records != merged.records || expected != hash(merged) {
        return Err(Error::Bug(format!("{} doesn't have the rows of what it would replace", merged.object)));
    }
    Ok(())
}
