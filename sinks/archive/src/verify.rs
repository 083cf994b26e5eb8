//! Verifying: whether everything that the manifest names is there, unaltered, and all that was archived is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

use chrono::{DateTime, Utc};

use crate::catalog::{Catalog, Log};
use crate::error::Error;
use crate::file::{Facts, FileReader};
use crate::manifest::{Archive, Entry};
use crate::name::Hour;
use crate::read::rows_at_once;
use crate::store::Listed;
use crate::sweep::{Unnamed, is_old};
use crate::{manifest, schema};

/// What is wrong with an object, or with a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The object's name, or `topic/partition`.
    pub name: String,
    /// One word: `missing`, `truncated`, `altered`, `unreadable`, `foreign`, `unnamed`, `incomplete`.
    pub kind: &'static str,
    /// What is wrong.
    pub detail: String,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Objects that were read.
    pub objects: u64,
    /// Their records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// Objects of a writer that was killed, which don't count and will be swept.
    pub left_over: Vec<String>,
    /// Objects that were replaced or have expired and wait to be deleted.
    pub waiting: usize,
}

/// Consecutive offsets in an object: first, last.
type Runs = Vec<(i64, i64)>;

/// What was found of an object: its offsets, or the kind of a fault and what is wrong.
type Seen = Result<Runs, (&'static str, String)>;

/// The kind of fault of an object that isn't there.
const MISSING: &str = "missing";

/// How often the catalogue is read again because objects are missing that somebody has replaced meanwhile.
const LOOKS: usize = 100;

impl Archive {
    /// Reads every object of the archive. `each` is told of every one that is done. What is merged or let go of meanwhile
    /// is looked at as it is then.
    ///
    /// # Errors
    /// [`Error::Store`]; what is wrong with an object is no error, but a fault.
    pub fn verify(&self, catalog: &Catalog, now: DateTime<Utc>, mut each: impl FnMut()) -> Result<Verified, Error> {
        let mut catalog = catalog.clone();
        let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
        let mut looks = 0;
        let listed = loop {
            looks += 1;
            let listed: BTreeMap<String, Listed> =
                self.store().list("")?.into_iter().map(|of| (of.name.clone(), of)).collect();
            for entry in catalog.entries.values() {
                if !seen.contains_key(&entry.object) {
                    seen.insert(entry.object.clone(), self.verify_object(entry, &listed)?);
                    each();
                }
            }
            let is_missing = |of: &Entry| matches!(seen.get(&of.object), Some(Err((MISSING, _))));
            let number = catalog.number;
            if looks < LOOKS && catalog.entries.values().any(is_missing) {
                catalog = self.catalog()?;
            }
            if catalog.number == number {
                break listed;
            }
        };
        let mut verified = Verified { waiting: catalog.removed.len(), ..Verified::default() };
        verified.sum(&catalog, seen);
        self.verify_schemas(&catalog, &mut verified)?;
        for of in listed.values() {
            self.verify_listed(&catalog, of, now, &mut verified)?;
        }
        Ok(verified)
    }

    fn verify_object(&self, entry: &Entry, listed: &BTreeMap<String, Listed>) -> Result<Seen, Error> {
        let missing = Ok(Err((MISSING, "the manifest names it, and it isn't there".to_owned())));
        let Some(of) = listed.get(&entry.object) else { return missing };
        if of.bytes != entry.bytes {
            let kind = if of.bytes < entry.bytes { "truncated" } else { "altered" };
            return Ok(Err((kind, format!("it has {} bytes, and the manifest says {}", of.bytes, entry.bytes))));
        }
        let Some(spilled) = self.spill(&entry.object)? else { return missing };
        if spilled.sha256 != entry.sha256 {
            return Ok(Err(("altered", "its SHA-256 is another one than the manifest says".to_owned())));
        }
        match rows(entry, spilled.file) {
            Ok(runs) => Ok(Ok(runs)),
            Err(Error::Damaged { detail, .. }) => Ok(Err(("unreadable", detail))),
            Err(other) => Err(other),
        }
    }

    fn verify_schemas(&self, catalog: &Catalog, verified: &mut Verified) -> Result<(), Error> {
        for id in &catalog.schemas {
            let (kind, detail) = match self.schema(*id) {
                Ok(Some(_)) => continue,
                Ok(None) => (MISSING, "the manifest names this schema, and it isn't there".to_owned()),
                Err(Error::Damaged { detail, .. }) => ("unreadable", detail),
                Err(other) => return Err(other),
            };
            verified.faults.push(Fault { name: schema::name_of(*id), kind, detail });
        }
        Ok(())
    }

    /// An object that is there: does anybody know it?
    fn verify_listed(
        &self,
        catalog: &Catalog,
        of: &Listed,
        now: DateTime<Utc>,
        verified: &mut Verified,
    ) -> Result<(), Error> {
        // A schema is put before the commit that names it, and is the same whoever puts it.
        if catalog.names(&of.name) || manifest::is_manifests(&of.name) || schema::is_schema(&of.name) {
            return Ok(());
        }
        let (kind, detail) = match self.unnamed(catalog, of)? {
            Some(Unnamed::Unknown) if is_old(of, now) => (
                "unnamed",
                "no commit names it, and its records are nowhere else: the manifest has lost commits, or a write was \
                 interrupted, which the next start of the pipeline does again; nothing deletes it until then",
            ),
            Some(_) => {
                verified.left_over.push(of.name.clone());
                return Ok(());
            }
            None => ("foreign", "no commit of the manifest names it; readers of the archive leave it out"),
        };
        verified.faults.push(Fault { name: of.name.clone(), kind, detail: detail.to_owned() });
        Ok(())
    }
}

impl Verified {
    /// Adds up what was seen of the objects that count.
    fn sum(&mut self, catalog: &Catalog, mut seen: BTreeMap<String, Seen>) {
        let mut runs: BTreeMap<(&str, i32), Runs> = BTreeMap::new();
        let mut broken: BTreeSet<(&str, i32)> = BTreeSet::new();
        for entry in catalog.entries.values() {
            let of = (entry.topic.as_str(), entry.partition);
            match seen.remove(&entry.object) {
                Some(Ok(found)) => {
                    self.objects += 1;
                    self.records = self.records.saturating_add(entry.records);
                    self.bytes = self.bytes.saturating_add(entry.bytes);
                    runs.entry(of).or_default().extend(found);
                }
                Some(Err((kind, detail))) => {
                    broken.insert(of);
                    self.faults.push(Fault { name: entry.object.clone(), kind, detail });
                }
                None => {}
            }
        }
        // Of a partition whose objects aren't all there, the sum can't be right: its objects are told by name already.
        for (topic, logs) in &catalog.topics {
            for (partition, log) in
                logs.iter().filter(|(partition, _)| !broken.contains(&(topic.as_str(), **partition)))
            {
                let runs = runs.remove(&(topic.as_str(), *partition)).unwrap_or_default();
                if let Err(detail) = complete(log, runs) {
                    let name = format!("{topic}/{partition}");
                    self.faults.push(Fault { name, kind: "incomplete", detail });
                }
            }
        }
    }
}

/// The offsets of an object whose rows are those that the manifest tells of.
fn rows(entry: &Entry, file: File) -> Result<Runs, Error> {
    let mut reader = FileReader::open(&entry.object, file, rows_at_once(entry))?;
    let (mut facts, mut runs) = (Facts::new(), Runs::new());
    let wrong = |detail: String| Error::damaged(&entry.object, detail);
    while reader.next(|record| {
        if record.partition != entry.partition || Hour::of(record.timestamp_ms) != entry.hour {
            return Err(wrong(format!("the record at offset {} belongs elsewhere", record.offset)));
        }
        match runs.last_mut() {
            Some((_, last)) if record.offset <= *last => {
                return Err(wrong(format!("offset {} comes behind {last}", record.offset)));
            }
            Some((_, last)) if record.offset == *last + 1 => *last = record.offset,
            _ => runs.push((record.offset, record.offset)),
        }
        facts.add(record);
        Ok(())
    })? {}
    let is_same = facts.records == entry.records
        && (facts.first_offset, facts.last_offset) == (entry.first_offset, entry.last_offset)
        && format!("{:016x}", facts.rows_hash) == entry.rows_hash;
    match is_same {
        true => Ok(runs),
        false => Err(wrong(format!("its {} rows aren't the ones that the manifest tells of", facts.records))),
    }
}

/// Whether `runs` are all that was archived of a partition, each offset once.
fn complete(log: &Log, mut runs: Runs) -> Result<(), String> {
    runs.sort_unstable();
    let mut before = i64::MIN;
    let mut records = 0;
    for (first, last) in runs {
        if first <= before {
            return Err(format!("offset {first} is there twice"));
        }
        if first < log.first || last >= log.next {
            return Err(format!("offsets {first} to {last} are outside of {} to {}", log.first, log.next));
        }
        if let Some(gap) = log.gaps.iter().find(|gap| first < gap.next && last >= gap.first) {
            return Err(format!("offsets {first} to {last} reach into the gap {} to {}", gap.first, gap.next));
        }
        records += last.abs_diff(first) + 1;
        before = last;
    }
    let expected = log.records.saturating_sub(log.expired_records);
    if records != expected {
        return Err(format!("{records} records are there, and {expected} were archived and haven't expired"));
    }
    Ok(())
}
