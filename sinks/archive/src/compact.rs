//! Compaction: the small objects of an hour become one, with the same rows.
//!
//! The new object is put first, then one commit names it instead of the old ones, which are deleted after a grace
//! (`sweep`). A kill leaves an object that nobody names, or old objects that are deleted later. Only objects below half of
//! the aimed size are merged, so that a late record doesn't have a large object written again.
//!
//! Whoever reads the folders by a pattern and not by the manifest sees both for the time of the grace.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::catalog::Catalog;
use crate::error::Error;
use crate::file::FileWriter;
use crate::manifest::{Archive, Change, Commit, Entry};
use crate::name::Hour;
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
fn candidates(
    catalog: &Catalog,
    compaction: Compaction,
    leave_out: &BTreeSet<String>,
    now_ms: i64,
) -> Option<Vec<Entry>> {
    let mut hours: BTreeMap<(&str, i32, Hour), Vec<&Entry>> = BTreeMap::new();
    let is_over = |entry: &&Entry| entry.hour.ends_at_ms().saturating_add(compaction.settle_ms) <= now_ms;
    let is_small = |entry: &&Entry| entry.bytes < compaction.aim_bytes / 2 && !leave_out.contains(&entry.object);
    for entry in catalog.entries.values().filter(is_over).filter(is_small) {
        hours.entry((&entry.topic, entry.partition, entry.hour)).or_default().push(entry);
    }
    for mut entries in hours.into_values().filter(|entries| entries.len() > 1) {
        entries.sort_by_key(|entry| entry.first_offset);
        let mut bytes: u64 = 0;
        let fits = |entry: &&&Entry| {
            bytes = bytes.saturating_add(entry.bytes);
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
    /// Merges once, if there is something to merge but for the objects of `leave_out`. To be called until it says `None`.
    ///
    /// # Errors
    /// [`Error::Damaged`] with an object that isn't what the manifest says; nothing is changed then, and everything else can be
    /// merged without it. As of
    /// [`Archive::commit`] besides.
    pub fn merge(
        &self,
        catalog: &mut Catalog,
        compaction: Compaction,
        leave_out: &BTreeSet<String>,
        now: DateTime<Utc>,
    ) -> Result<Option<Merged>, Error> {
        let Some(entries) = candidates(catalog, compaction, leave_out, now.timestamp_millis()) else {
            return Ok(None);
        };
        let Some(first) = entries.first() else { return Ok(None) };
        let mut file = FileWriter::new()?;
        let mut last_offset = i64::MIN;
        // By offset, since what was left out of an earlier merge lies between the rows of that one.
        let mut order = self.together(&first.topic, first.partition, entries.clone());
        while let Some(record) = order.next_record()? {
            if record.offset <= last_offset {
                let detail = format!("offset {last_offset} is in it or in one of its hour twice");
                return Err(Error::damaged(&first.object, detail));
            }
            last_offset = record.offset;
            file.add(&record.borrowed())?;
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
    let records = entries.iter().fold(0_u64, |sum, entry| sum.saturating_add(entry.records));
    if records != merged.records || expected != hash(merged) {
        return Err(Error::Bug(format!("{} doesn't have the rows of what it would replace", merged.object)));
    }
    Ok(())
}
