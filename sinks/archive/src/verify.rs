//! Verifying: whether everything that the manifest names is there, unaltered, and all that was archived is in it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::catalog::{Catalog, Log};
use crate::crypto::sha256;
use crate::error::Error;
use crate::file::{Facts, FileReader};
use crate::manifest::{Archive, Entry};
use crate::name::Hour;
use crate::read::rows_at_once;
use crate::store::Listed;
use crate::{name, schema};

/// What is wrong with an object, or with a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The object's name, or `topic/partition`.
    pub name: String,
    /// One word: `missing`, `truncated`, `altered`, `unreadable`, `foreign`, `incomplete`.
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

impl Archive {
    /// Reads every object of the archive. `each` is told of every one that is done.
    ///
    /// # Errors
    /// [`Error::Store`]; what is wrong with an object is no error, but a fault.
    pub fn verify(&self, catalog: &Catalog, mut each: impl FnMut()) -> Result<Verified, Error> {
        let listed: BTreeMap<String, Listed> =
            self.store().list("")?.into_iter().map(|of| (of.name.clone(), of)).collect();
        let mut verified = Verified { waiting: catalog.removed.len(), ..Verified::default() };
        let mut runs: BTreeMap<(&str, i32), Runs> = BTreeMap::new();
        let mut broken: BTreeSet<(&str, i32)> = BTreeSet::new();
        for entry in catalog.entries.values() {
            let of = (entry.topic.as_str(), entry.partition);
            match self.verify_object(entry, &listed)? {
                Ok(found) => {
                    verified.objects += 1;
                    verified.records += entry.records;
                    verified.bytes += entry.bytes;
                    runs.entry(of).or_default().extend(found);
                }
                Err((kind, detail)) => {
                    broken.insert(of);
                    verified.faults.push(Fault { name: entry.object.clone(), kind, detail });
                }
            }
            each();
        }
        // Of a partition whose objects aren't all there, the sum can't be right: its objects are told by name already.
        for (topic, logs) in &catalog.topics {
            for (partition, log) in
                logs.iter().filter(|(partition, _)| !broken.contains(&(topic.as_str(), **partition)))
            {
                let runs = runs.remove(&(topic.as_str(), *partition)).unwrap_or_default();
                if let Err(detail) = complete(log, runs) {
                    let name = format!("{topic}/{partition}");
                    verified.faults.push(Fault { name, kind: "incomplete", detail });
                }
            }
        }
        self.verify_schemas(catalog, &mut verified)?;
        for of in listed.values() {
            self.verify_listed(catalog, of, &mut verified)?;
        }
        Ok(verified)
    }

    fn verify_object(
        &self,
        entry: &Entry,
        listed: &BTreeMap<String, Listed>,
    ) -> Result<Result<Runs, (&'static str, String)>, Error> {
        let missing = Ok(Err(("missing", "the manifest names it, and it isn't there".to_owned())));
        let Some(of) = listed.get(&entry.object) else { return missing };
        if of.bytes != entry.bytes {
            let kind = if of.bytes < entry.bytes { "truncated" } else { "altered" };
            return Ok(Err((kind, format!("it has {} bytes, and the manifest says {}", of.bytes, entry.bytes))));
        }
        let Some(bytes) = self.store().get(&entry.object)? else { return missing };
        if sha256(&bytes) != entry.sha256 {
            return Ok(Err(("altered", "its SHA-256 is another one than the manifest says".to_owned())));
        }
        match rows(entry, bytes) {
            Ok(runs) => Ok(Ok(runs)),
            Err(Error::Damaged { detail, .. }) => Ok(Err(("unreadable", detail))),
            Err(other) => Err(other),
        }
    }

    fn verify_schemas(&self, catalog: &Catalog, verified: &mut Verified) -> Result<(), Error> {
        for id in &catalog.schemas {
            let (kind, detail) = match self.schema(*id) {
                Ok(Some(_)) => continue,
                Ok(None) => ("missing", "the manifest names this schema, and it isn't there".to_owned()),
                Err(Error::Damaged { detail, .. }) => ("unreadable", detail),
                Err(other) => return Err(other),
            };
            verified.faults.push(Fault { name: schema::name_of(*id), kind, detail });
        }
        Ok(())
    }

    /// An object that is there: does anybody know it?
    fn verify_listed(&self, catalog: &Catalog, of: &Listed, verified: &mut Verified) -> Result<(), Error> {
        let is_json = |folder: &str, kinds: &[&str]| {
            let stem = of.name.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')?.strip_suffix(".json"));
            let is_number = |text: &str| text.parse::<u64>().is_ok();
            stem.is_some_and(|stem| kinds.iter().any(|kind| stem.strip_prefix(kind).is_some_and(is_number)))
        };
        let is_known = catalog.entries.contains_key(&of.name) || catalog.removed.contains_key(&of.name);
        // A schema is put before the commit that names it, and is the same whoever puts it.
        if is_known || is_json("_manifest", &["commit-", "snapshot-"]) || is_json(schema::FOLDER, &[""]) {
            return Ok(());
        }
        if name::parse(&of.name).is_some() && self.is_left_over(catalog, of)? {
            verified.left_over.push(of.name.clone());
            return Ok(());
        }
        let detail = "no commit of the manifest names it; readers of the archive leave it out".to_owned();
        verified.faults.push(Fault { name: of.name.clone(), kind: "foreign", detail });
        Ok(())
    }
}

/// The offsets of an object whose rows are those that the manifest tells of.
fn rows(entry: &Entry, bytes: Bytes) -> Result<Runs, Error> {
    let mut reader = FileReader::open(&entry.object, bytes, rows_at_once(entry))?;
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
        records += u64::try_from(last - first + 1).unwrap_or(0);
        before = last;
    }
    let expected = log.records.saturating_sub(log.expired_records);
    if records != expected {
        return Err(format!("{records} records are there, and {expected} were archived and haven't expired"));
    }
    Ok(())
}
