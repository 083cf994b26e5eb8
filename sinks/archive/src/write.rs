//! Writing: records are gathered by partition and hour, their objects put, and a commit made of it all.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::catalog::Catalog;
use crate::crypto::sha256;
use crate::error::Error;
use crate::file::{Facts, FileWriter};
use crate::manifest::{Archive, Change, Commit, Entry, Gap, Stretch};
use crate::name::{self, Hour};
use crate::record::Record;

/// What waits for the next commit. Its memory is about the bytes of its records.
#[derive(Default)]
pub struct Pending {
    files: BTreeMap<(String, i32, Hour), FileWriter>,
    stretches: BTreeMap<(String, i32), Stretch>,
    gaps: Vec<Gap>,
    bytes: u64,
}

/// What is ready to be written.
pub struct Ready {
    commit: Commit,
    objects: Vec<(String, Bytes)>,
}

/// How what is ready stands to what is in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It follows.
    Next,
    /// All of it is there.
    There,
    /// Neither: somebody else writes, too.
    Elsewhere,
}

impl Pending {
    /// Adds a record, which stands behind all others of its partition.
    ///
    /// # Errors
    /// [`Error::Bug`].
    pub fn add(&mut self, topic: &str, record: &Record<'_>) -> Result<(), Error> {
        self.bytes += record.bytes() + 64;
        let key = (topic.to_owned(), record.partition, Hour::of(record.timestamp_ms));
        if let Some(file) = self.files.get_mut(&key) {
            return file.add(record);
        }
        let mut file = FileWriter::new()?;
        file.add(record)?;
        self.files.insert(key, file);
        Ok(())
    }

    /// Says that everything of `stretch`, which follows what was said of its partition, is added.
    pub fn cover(&mut self, stretch: Stretch) {
        match self.stretches.get_mut(&(stretch.topic.clone(), stretch.partition)) {
            Some(before) => {
                before.next = stretch.next;
                before.records += stretch.records;
            }
            None => {
                self.stretches.insert((stretch.topic.clone(), stretch.partition), stretch);
            }
        }
    }

    /// Says that the log has forgotten offsets, before anything else is said of the partition.
    pub fn miss(&mut self, gap: Gap) {
        self.gaps.push(gap);
    }

    /// Bytes of its records, about.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many objects it will be.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.stretches.is_empty() && self.gaps.is_empty()
    }

    /// Ends the files.
    ///
    /// # Errors
    /// [`Error::Bug`].
    pub fn finish(self) -> Result<Ready, Error> {
        let mut objects = Vec::with_capacity(self.files.len());
        let mut commit = Commit {
            change: Change::Append,
            stretches: self.stretches.into_values().collect(),
            gaps: self.gaps,
            ..Commit::default()
        };
        for ((topic, partition, hour), file) in self.files {
            let (bytes, facts) = file.finish()?;
            let entry = entry(topic, partition, hour, &bytes, facts);
            objects.push((entry.object.clone(), Bytes::from(bytes)));
            commit.added.push(entry);
        }
        Ok(Ready { commit, objects })
    }
}

impl Ready {
    /// Ids of the schemas that its values name.
    pub fn schema_ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.commit.added.iter().flat_map(|entry| entry.schema_ids.iter().copied())
    }

    /// Says that a schema is in the archive.
    pub fn has_schema(&mut self, id: u32) {
        self.commit.schemas.insert(id);
    }

    /// Whether it was said that a schema is in the archive.
    pub fn holds_schema(&self, id: u32) -> bool {
        self.commit.schemas.contains(&id)
    }

    /// How it stands to what is in an archive.
    pub fn relation(&self, catalog: &Catalog) -> Relation {
        // The first offset of each partition and the one after the last, gaps included.
        let mut spans: BTreeMap<(&str, i32), (i64, i64)> = BTreeMap::new();
        let gaps = self.commit.gaps.iter().map(|of| (of.topic.as_str(), of.partition, of.first, of.next));
        let stretches = self.commit.stretches.iter().map(|of| (of.topic.as_str(), of.partition, of.first, of.next));
        for (topic, partition, first, next) in gaps.chain(stretches) {
            spans.entry((topic, partition)).or_insert((first, next)).1 = next;
        }
        let mut all = spans.iter().map(|((topic, partition), span)| (catalog.log(topic, *partition), *span));
        if all.clone().all(|(log, (first, _))| log.is_none_or(|log| log.next == first)) {
            Relation::Next
        } else if all.all(|(log, (_, next))| log.is_some_and(|log| log.next >= next)) {
            Relation::There
        } else {
            Relation::Elsewhere
        }
    }
}

/// What the manifest says of a file.
pub(crate) fn entry(topic: String, partition: i32, hour: Hour, bytes: &[u8], facts: Facts) -> Entry {
    let sha256 = sha256(bytes);
    Entry {
        object: name::object(&topic, hour, partition, (facts.first_offset, facts.last_offset), &sha256),
        topic,
        partition,
        hour,
        first_offset: facts.first_offset,
        last_offset: facts.last_offset,
        records: facts.records,
        raw_bytes: facts.raw_bytes,
        bytes: bytes.len() as u64,
        least_timestamp_ms: facts.least_timestamp_ms,
        greatest_timestamp_ms: facts.greatest_timestamp_ms,
        sha256,
        rows_hash: format!("{:016x}", facts.rows_hash),
        schema_ids: facts.schema_ids,
    }
}

impl Archive {
    /// Puts the objects of `ready`, then commits it. Given again after a failure of the store it does no harm, as long as
    /// `catalog` was read again.
    ///
    /// # Errors
    /// As of [`Archive::commit`].
    pub fn append(&self, catalog: &mut Catalog, ready: &Ready, now: DateTime<Utc>) -> Result<(), Error> {
        if catalog.number == 0 {
            // From here on objects without a manifest are a manifest that was lost, and no new archive.
            self.commit(catalog, Commit::default(), now)?;
        }
        self.store().put_all(&ready.objects)?;
        self.commit(catalog, ready.commit.clone(), now)
    }
}
