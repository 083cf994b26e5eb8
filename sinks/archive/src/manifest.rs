//! The manifest: numbered commits, each written once, and their sum now and then.
//!
//! The first commit is empty and made before any object: objects without a manifest have lost it, and nobody takes them for
//! a new archive's.
//!
//! A commit is an object of its own, written last and only if its number is free; so two writers never both make one, and
//! a reader sees all of it or nothing. Every fiftieth one is followed by a snapshot, from which reading starts; commits
//! older than a day and than the snapshot before are removed. They stay for a day so that one who was slow finds
//! their numbers taken.

use std::collections::BTreeSet;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::catalog::Catalog;
use crate::error::Error;
use crate::name::{self, Hour};
use crate::store::{Settings, Store};

/// Commits from one snapshot to the next.
const SNAPSHOT_EVERY: u64 = 50;

/// How often reading begins anew when a commit was removed while it was read.
const READS: usize = 3;

const FOLDER: &str = "_manifest";

/// An object that is there to be written a second time, which the store must refuse.
pub(crate) const PROBE: &str = "_manifest/probe.json";

/// Bytes of an object that can't be: more than any store takes.
const ABSURD_BYTES: u64 = 1 << 50;

/// An object with records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub object: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The hour of its records' timestamps.
    pub hour: Hour,
    /// The first offset in it.
    pub first_offset: i64,
    /// The last offset in it. Offsets between may be in objects of other hours.
    pub last_offset: i64,
    /// How many records.
    pub records: u64,
    /// Bytes of their keys, values and headers.
    pub raw_bytes: u64,
    /// The object's length.
    pub bytes: u64,
    /// The least Kafka timestamp in it.
    pub least_timestamp_ms: Option<i64>,
    /// The greatest one.
    pub greatest_timestamp_ms: Option<i64>,
    /// The SHA-256 of the object, hexadecimal.
    pub sha256: String,
    /// The sum of its rows' hashes, hexadecimal: the same for the same rows in other files.
    pub rows_hash: String,
    /// The schemas that its values name.
    pub schema_ids: BTreeSet<u32>,
}

impl Entry {
    /// Whether its numbers can be.
    ///
    /// # Errors
    /// Which of them can't.
    pub(crate) fn check(&self) -> Result<(), String> {
        let offsets = self.last_offset.checked_sub(self.first_offset).and_then(|offsets| u64::try_from(offsets).ok());
        let offsets = offsets.filter(|_| self.first_offset >= 0).and_then(|offsets| offsets.checked_add(1));
        match offsets {
            Some(offsets) if (1..=offsets).contains(&self.records) => {}
            _ => {
                let (first, last, records) = (self.first_offset, self.last_offset, self.records);
                return Err(format!("{}: {records} records of offsets {first} to {last} can't be", self.object));
            }
        }
        match self.bytes.max(self.raw_bytes) {
            ..ABSURD_BYTES => Ok(()),
            bytes => Err(format!("{}: {bytes} bytes can't be", self.object)),
        }
    }
}

/// Consecutive offsets of a partition that were archived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// The topic.
    pub topic: String,
    /// The topic's id, where the cluster gives one.
    pub topic_id: Option<String>,
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub first: i64,
    /// The offset after the last one.
    pub next: i64,
    /// The records in it: fewer than offsets, where transactions end or keys were compacted.
    pub records: u64,
}

/// Offsets that the log had forgotten before they were archived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset that is missing.
    pub first: i64,
    /// The offset after the last one.
    pub next: i64,
    /// When it was found, in milliseconds since 1970.
    pub found_at_ms: i64,
}

/// What a commit does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// New records.
    #[default]
    Append,
    /// Some objects in one, with the same rows.
    Merge,
    /// Objects that are older than they are kept.
    Expire,
    /// Objects that were replaced or expired are deleted now.
    Delete,
}

/// One step of the archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its number: one more than the last one's.
    pub number: u64,
    /// The pipeline.
    pub pipeline: String,
    /// When it was made, in milliseconds since 1970.
    pub at_ms: i64,
    /// What it does.
    pub change: Change,
    /// Stretches that are archived with it.
    #[serde(default)]
    pub stretches: Vec<Stretch>,
    /// Gaps that were found before them.
    #[serde(default)]
    pub gaps: Vec<Gap>,
    /// Objects that count from now on.
    #[serde(default)]
    pub added: Vec<Entry>,
    /// Objects that count no more, by name.
    #[serde(default)]
    pub removed: Vec<String>,
    /// Objects of those that are deleted.
    #[serde(default)]
    pub deleted: Vec<String>,
    /// Schemas that are in the archive from now on.
    #[serde(default)]
    pub schemas: BTreeSet<u32>,
}

/// An archive.
#[derive(Clone)]
pub struct Archive {
    store: Store,
    pipeline: String,
}

fn commit_name(number: u64) -> String {
    format!("{FOLDER}/commit-{number:020}.json")
}

fn snapshot_name(number: u64) -> String {
    format!("{FOLDER}/snapshot-{number:020}.json")
}

/// Whether an object is one of the manifest's own.
pub(crate) fn is_manifests(name: &str) -> bool {
    name == PROBE || number_of(name, "commit-").is_some() || number_of(name, "snapshot-").is_some()
}

/// The number in the name of a commit or a snapshot.
fn number_of(name: &str, kind: &str) -> Option<u64> {
    name.strip_prefix(FOLDER)?.strip_prefix('/')?.strip_prefix(kind)?.strip_suffix(".json")?.parse().ok()
}

fn json(value: &impl Serialize) -> Result<Bytes, Error> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| Error::Bug(format!("a manifest's JSON: {error}")))
}

impl Archive {
    /// The archive of `settings`; nothing is asked yet.
    ///
    /// # Errors
    /// [`Error::Settings`].
    pub fn open(settings: &Settings) -> Result<Archive, Error> {
        Ok(Archive { store: Store::open(settings)?, pipeline: settings.pipeline.clone() })
    }

    /// This archive with another store behind it.
    #[cfg(test)]
    pub(crate) fn over(&self, inner: std::sync::Arc<dyn object_store::ObjectStore>) -> Archive {
        Archive { store: self.store.over(inner), pipeline: self.pipeline.clone() }
    }

    /// Its store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Finds out whether the store refuses to write over an object that is there, which all else rests on. To be asked by
    /// who writes.
    ///
    /// # Errors
    /// [`Error::Settings`] when it doesn't; [`Error::Store`].
    pub fn probe(&self) -> Result<(), Error> {
        let is_over = |archive: &Archive| archive.store.put_new(PROBE, Bytes::from_static(b"{}"));
        // The first time the object isn't there yet; it stays.
        if is_over(self)? && is_over(self)? {
            return Err(Error::Settings(format!(
                "the store at {} writes over an object that it was told to leave (`If-None-Match: *`), so that two writers \
                 could undo each other's commits: use a store, or a version of it, with conditional writes",
                self.store.url()
            )));
        }
        Ok(())
    }

    /// Reads `catalog` again if somebody has made a commit since.
    ///
    /// # Errors
    /// As of [`Archive::catalog`].
    pub(crate) fn refresh(&self, catalog: &mut Catalog) -> Result<(), Error> {
        if self.store.written_at(&commit_name(catalog.number.saturating_add(1)))?.is_some() {
            *catalog = self.catalog()?;
        }
        Ok(())
    }

    /// What is in it now.
    ///
    /// # Errors
    /// [`Error::Damaged`] with the object of the manifest that is missing or can't be read, and when all of it is missing
    /// beside objects with records; [`Error::Settings`] when it is
    /// another pipeline's; [`Error::Store`].
    pub fn catalog(&self) -> Result<Catalog, Error> {
        let mut reads = 0;
        let catalog = loop {
            reads += 1;
            match self.read() {
                // What was listed may be gone by now, and stands in a newer snapshot.
                Err(Error::Damaged { .. }) if reads < READS => {}
                other => break other?,
            }
        };
        if !catalog.pipeline.is_empty() && catalog.pipeline != self.pipeline {
            return Err(Error::Settings(format!(
                "the archive at {} belongs to the pipeline `{}`: give this one another prefix",
                self.store.url(),
                catalog.pipeline
            )));
        }
        Ok(catalog)
    }

    fn read(&self) -> Result<Catalog, Error> {
        let listed = self.store.list(FOLDER)?;
        let snapshot = listed.iter().filter_map(|of| number_of(&of.name, "snapshot-")).max();
        let mut catalog = match snapshot {
            Some(number) => {
                let catalog = self.object::<Catalog>(&snapshot_name(number))?;
                let checked = catalog.entries.values().try_for_each(Entry::check);
                checked.map_err(|detail| Error::damaged(&snapshot_name(number), detail))?;
                catalog
            }
            None => Catalog::default(),
        };
        catalog.snapshot = snapshot.unwrap_or(0);
        let mut numbers: Vec<u64> = listed.iter().filter_map(|of| number_of(&of.name, "commit-")).collect();
        numbers.sort_unstable();
        if snapshot.is_none() && numbers.is_empty() {
            self.hold_to_be_new()?;
        }
        for number in numbers.into_iter().filter(|number| snapshot.is_none_or(|of| *number > of)) {
            let next = catalog.number.saturating_add(1);
            if number != next {
                return Err(Error::damaged(&commit_name(next), "this commit of the manifest is missing"));
            }
            let commit = self.object::<Commit>(&commit_name(number))?;
            catalog.apply(&commit).map_err(|detail| Error::damaged(&commit_name(number), detail))?;
        }
        Ok(catalog)
    }

    /// Without a manifest there must be no records: they have been there for longer than that.
    fn hold_to_be_new(&self) -> Result<(), Error> {
        let objects = self.store.list("")?.iter().filter(|of| name::parse(&of.name).is_some()).count();
        if objects == 0 {
            return Ok(());
        }
        let detail = format!(
            "the manifest is missing beside {objects} objects with records: put the folder back from a copy, or give \
             the archive another prefix; until then nothing is written, and nothing deleted"
        );
        Err(Error::damaged(FOLDER, detail))
    }

    fn object<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<T, Error> {
        let bytes = self.store.get(name)?.ok_or_else(|| Error::damaged(name, "it is missing"))?;
        serde_json::from_slice(&bytes).map_err(|error| Error::damaged(name, format!("it can't be read: {error}")))
    }

    /// Makes `commit` the next one after `catalog`, which then includes it. Its objects must be there already.
    ///
    /// # Errors
    /// [`Error::Conflict`] when somebody else has made that commit; [`Error::Store`], after which nobody knows whether it is
    /// made: read the catalogue again.
    pub fn commit(&self, catalog: &mut Catalog, mut commit: Commit, now: DateTime<Utc>) -> Result<(), Error> {
        commit.number = catalog.number.saturating_add(1);
        commit.pipeline.clone_from(&self.pipeline);
        commit.at_ms = now.timestamp_millis();
        let bug = |detail: String| Error::Bug(format!("commit {}: {detail}", commit.number));
        catalog.check(&commit).map_err(bug)?;
        if !self.store.put_new(&commit_name(commit.number), json(&commit)?)? {
            return Err(Error::Conflict { number: commit.number });
        }
        catalog.apply(&commit).map_err(bug)?;
        if catalog.number >= catalog.snapshot.saturating_add(SNAPSHOT_EVERY) {
            // The commit is made, whatever becomes of the snapshot: the next one tries again.
            if let Err(error) = self.snapshot(catalog, now) {
                tracing::warn!(%error, "no snapshot of the archive's manifest");
            }
        }
        Ok(())
    }

    fn snapshot(&self, catalog: &mut Catalog, now: DateTime<Utc>) -> Result<(), Error> {
        let before = catalog.snapshot;
        self.store.put(&snapshot_name(catalog.number), json(catalog)?)?;
        catalog.snapshot = catalog.number;
        let old = now - TimeDelta::days(1);
        for listed in self.store.list(FOLDER)?.into_iter().filter(|of| of.written_at < old) {
            let is_old_commit = number_of(&listed.name, "commit-").is_some_and(|number| number <= before);
            let is_old_snapshot = number_of(&listed.name, "snapshot-").is_some_and(|number| number < before);
            if is_old_commit || is_old_snapshot {
                self.store.delete(&listed.name)?;
            }
        }
        Ok(())
    }
}
