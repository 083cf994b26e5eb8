//! Recovery: what a state folder says at start, and whether the pipeline file may go on from it.
//!
//! Keys in the column family `meta`, all under `run/`; numbers are big-endian:
//! ```text
//! run/pipeline                              JSON of the Fingerprint
//! run/generation                            u32: raised by a restore from an older checkpoint
//! run/topic/<name>                          u16: the topic's number, which places and the ledger carry
//! run/topic_id/<name>                       text: the id that the cluster gave the topic
//! run/destination/<name>                    u16: the destination's number in the outbox
//! run/delivered/<name>                      u64: the epoch up to which the destination acknowledged
//! run/position/<topic>\0<partition i32>     next offset i64, watermark i64
//! run/watermark/<source>                    i64: the watermark of its log, which the operators had been shown
//! run/version/<version>                     first epoch u64, its time i64: a version of the pipeline that committed
//! run/mark/<topic u16><partition i32><offset i64>   watermark i64: where a replay of that range starts
//! ```
//! Invariants: numbers once given are never given again; positions and marks are written with their epoch's commit only.
//!
//! Not here: whether the log still holds what a position resumes from (the source asks the brokers and refuses).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_operators::state::{Family, Store, StoreError, StoreOptions, Sync, Writes};
use weir_schemas::time::{Epoch, EventTime};

use crate::error::Error;
use crate::outbox::DestinationId;
use crate::readers::KeptReader;
use crate::source::PartitionPosition;

const PIPELINE: &[u8] = b"run/pipeline";
const GENERATION: &[u8] = b"run/generation";
const TOPIC: &str = "run/topic/";
const TOPIC_ID: &str = "run/topic_id/";
const DESTINATION: &str = "run/destination/";
const DELIVERED: &str = "run/delivered/";
const POSITION: &str = "run/position/";
const WATERMARK: &str = "run/watermark/";
const MARK: &str = "run/mark/";
const VERSION: &str = "run/version/";

/// How the names of sources' parts begin.
pub const SOURCE_PART: &str = "source ";

/// The parts of a pipeline that its state depends on, each with the facts that may not change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The pipeline's name.
    pub pipeline: String,
    /// Parts by kind and name, such as `view revenue`.
    pub parts: BTreeMap<String, Part>,
}

/// A part of a pipeline: a source, a view, an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What may not change, by name: `query`, `column user_id`, ...
    pub facts: BTreeMap<String, String>,
    /// Whether its state is worthless once it was taken out for a while: it missed what came meanwhile.
    pub loses_by_absence: bool,
    /// The reader schema of a source. Not held to: what may not change of it stands among the facts.
    #[serde(default)]
    pub reader: Option<KeptReader>,
    /// It is in the state, but no longer in the pipeline file.
    #[serde(default)]
    pub is_absent: bool,
}

/// What the state in `folder` was last run with; `None` where there is no state. A running pipeline isn't disturbed.
fn kept(folder: &Path) -> Result<Option<Fingerprint>, Error> {
    let Some(json) = Store::peek(folder, PIPELINE)? else { return Ok(None) };
    serde_json::from_slice(&json).map(Some).map_err(|error| foreign("run/pipeline", &error.to_string()))
}

/// The reader schemas that the state in `folder` was last run with, by source. A running pipeline isn't disturbed.
///
/// # Errors
/// When the state can't be read, or was written by another version.
pub fn kept_readers(folder: &Path) -> Result<BTreeMap<String, KeptReader>, Error> {
    let reader = |(name, part): (String, Part)| Some((name.strip_prefix(SOURCE_PART)?.to_owned(), part.reader?));
    Ok(kept(folder)?.unwrap_or_default().parts.into_iter().filter_map(reader).collect())
}

/// Whether a pipeline with `fingerprint` may go on from the state in `folder`, asked before anything is changed elsewhere: a
/// column that were added to a table first would stand in the way of the change's being taken back.
///
/// # Errors
/// [`Error::Changed`], which names the part and the fact; a state that can't be read.
pub fn hold(folder: &Path, fingerprint: &Fingerprint) -> Result<(), Error> {
    match kept(folder)? {
        Some(before) => fingerprint.clone().after(&before).map(|_| ()),
        None => Ok(()),
    }
}

impl Fingerprint {
    /// What is kept when a pipeline with `self` goes on from a state that was left with `before`.
    ///
    /// A part that is new starts from now. A part that is there must have every fact it had; more facts are welcome (a
    /// column that was added). A part that was taken out is remembered.
    ///
    /// # Errors
    /// [`Error::Changed`], which names the part and the fact.
    pub fn after(mut self, before: &Fingerprint) -> Result<Fingerprint, Error> {
        if self.pipeline != before.pipeline {
            return Err(Error::State {
                detail: format!(
                    "this folder belongs to the pipeline {:?}, not to {:?}",
                    before.pipeline, self.pipeline
                ),
                remedy: "give each pipeline a `state` folder of its own".to_owned(),
            });
        }
        for (name, was) in &before.parts {
            let Some(now) = self.parts.get_mut(name) else {
                self.parts.insert(name.clone(), Part { is_absent: true, ..was.clone() });
                continue;
            };
            if was.is_absent && was.loses_by_absence {
                return Err(Error::Changed {
                    what: format!("{name} was taken out of the pipeline and has missed what came meanwhile"),
                    remedy: "give it another name: it then starts from now".to_owned(),
                });
            }
            for (fact, value) in &was.facts {
                match now.facts.get(fact) {
                    Some(same) if same == value => {}
                    Some(other) => return Err(changed(name, fact, value, other)),
                    None => return Err(changed(name, fact, value, "nothing")),
                }
            }
        }
        Ok(self)
    }
}

fn changed(name: &str, fact: &str, was: &str, is: &str) -> Error {
    Error::Changed {
        what: format!("{fact} of {name} was {was} and is {is}"),
        remedy: "take the change back, or give the part a new name (it then starts from now), or start with an empty \
                 state folder (everything is then read again)"
            .to_owned(),
    }
}

/// What a state folder holds at start.
pub struct Recovered {
    /// The open store.
    pub store: Arc<Store>,
    /// The newest committed epoch.
    pub committed: Epoch,
    /// The generation of versions.
    pub generation: u32,
    /// How far each partition was read.
    pub positions: BTreeMap<(String, i32), PartitionPosition>,
    /// The watermark of each source's log that its operators had been shown; what the end of a run closed beyond it
    /// doesn't count.
    pub watermarks: BTreeMap<String, EventTime>,
    /// The topics' names by number.
    pub topics: Vec<String>,
    /// The destinations' numbers, with the epoch up to which each is delivered.
    pub destinations: BTreeMap<String, (DestinationId, Epoch)>,
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        let detail = error.to_string();
        match error {
            StoreError::DiskFull { .. } => {
                Error::Disk { detail, remedy: "the next start resumes from the last commit".to_owned() }
            }
            StoreError::InUse { .. } | StoreError::Format { .. } | StoreError::SameId { .. } => {
                Error::State { detail, remedy: "nothing was changed".to_owned() }
            }
            StoreError::Failed { .. } => Error::disk(detail),
        }
    }
}

/// Opens the state folder for a pipeline, and writes down what is new in it.
///
/// `topics` and `destinations` are the names that the pipeline uses now, in the order in which new ones get numbers.
///
/// # Errors
/// When the folder is in use, broken, of another format or of another pipeline, and when the pipeline asks for more
/// than its state can follow.
pub fn recover(
    folder: &Path,
    options: StoreOptions,
    fingerprint: Fingerprint,
    topics: &[String],
    destinations: &[String],
) -> Result<Recovered, Error> {
    let store = Arc::new(Store::open(folder, options)?);
    let kept = match store.get(Family::Meta, PIPELINE)? {
        Some(json) => {
            let before: Fingerprint =
                serde_json::from_slice(&json).map_err(|error| foreign("run/pipeline", &error.to_string()))?;
            fingerprint.after(&before)?
        }
        None => fingerprint,
    };
    let mut writes = store.writes();
    let json = serde_json::to_vec(&kept).map_err(|error| foreign("run/pipeline", &error.to_string()))?;
    writes.put(Family::Meta, PIPELINE, &json);
    let generation = match store.get(Family::Meta, GENERATION)? {
        Some(bytes) => u32::from_be_bytes(fixed(&bytes, "run/generation")?),
        None => 0,
    };
    let topic_numbers = numbered(&store, &mut writes, TOPIC, topics)?;
    let destination_numbers = numbered(&store, &mut writes, DESTINATION, destinations)?;
    store.write(writes, Sync::Now)?;

    let mut by_number: Vec<(u16, String)> = topic_numbers.into_iter().map(|(name, number)| (number, name)).collect();
    by_number.sort();
    let mut delivered = BTreeMap::new();
    for (name, number) in destination_numbers {
        let key = format!("{DELIVERED}{name}");
        let epoch = match store.get(Family::Meta, key.as_bytes())? {
            Some(bytes) => Epoch(u64::from_be_bytes(fixed(&bytes, &key)?)),
            None => Epoch(0),
        };
        delivered.insert(name, (DestinationId(number), epoch));
    }
    Ok(Recovered {
        committed: store.committed_epoch(),
        generation,
        positions: read_positions(&store)?,
        watermarks: read_watermarks(&store)?,
        topics: by_number.into_iter().map(|(_, name)| name).collect(),
        destinations: delivered,
        store,
    })
}

/// The numbers of all names that were ever used under `prefix`; the ones of `names` that have none get the next.
fn numbered(
    store: &Store,
    writes: &mut Writes<'_>,
    prefix: &str,
    names: &[String],
) -> Result<BTreeMap<String, u16>, Error> {
    let mut numbers = BTreeMap::new();
    for (key, value) in entries(store, prefix)? {
        let name = String::from_utf8(key).map_err(|error| foreign(prefix, &error.to_string()))?;
        numbers.insert(name, u16::from_be_bytes(fixed(&value, prefix)?));
    }
    let known: BTreeSet<u16> = numbers.values().copied().collect();
    let mut free = (0..=u16::MAX).filter(|number| !known.contains(number));
    for name in names {
        if !numbers.contains_key(name) {
            let number = free.next().ok_or_else(|| foreign(prefix, "65536 names are taken"))?;
            writes.put(Family::Meta, format!("{prefix}{name}").as_bytes(), &number.to_be_bytes());
            numbers.insert(name.clone(), number);
        }
    }
    Ok(numbers)
}

fn read_positions(store: &Store) -> Result<BTreeMap<(String, i32), PartitionPosition>, Error> {
    let mut positions = BTreeMap::new();
    for (key, value) in entries(store, POSITION)? {
        let wrong = || foreign(POSITION, "its key is not a topic and a partition");
        let (topic, partition) = key.split_last_chunk::<4>().ok_or_else(wrong)?;
        let topic = topic.strip_suffix(b"\0").and_then(|topic| std::str::from_utf8(topic).ok()).ok_or_else(wrong)?;
        let partition = i32::from_be_bytes(*partition);
        let value: [u8; 16] = fixed(&value, POSITION)?;
        let (offset, watermark) = value.split_first_chunk::<8>().ok_or_else(wrong)?;
        let position = PartitionPosition {
            topic: topic.to_owned(),
            partition,
            next_offset: i64::from_be_bytes(*offset),
            watermark: EventTime(i64::from_be_bytes(fixed(watermark, POSITION)?)),
        };
        positions.insert((topic.to_owned(), partition), position);
    }
    Ok(positions)
}

/// Adds a partition's position to a commit, and a mark if it moved.
pub fn write_position(writes: &mut Writes<'_>, position: &PartitionPosition, topic: u16, has_moved: bool) {
    let mut key = POSITION.as_bytes().to_vec();
    key.extend_from_slice(position.topic.as_bytes());
    key.push(0);
    key.extend_from_slice(&position.partition.to_be_bytes());
    let mut value = [0; 16];
    value[..8].copy_from_slice(&position.next_offset.to_be_bytes());
    value[8..].copy_from_slice(&position.watermark.0.to_be_bytes());
    writes.put(Family::Meta, &key, &value);
    if has_moved {
        let mark = mark_key(topic, position.partition, position.next_offset);
        writes.put(Family::Meta, &mark, &position.watermark.0.to_be_bytes());
    }
}

fn read_watermarks(store: &Store) -> Result<BTreeMap<String, EventTime>, Error> {
    let mut watermarks = BTreeMap::new();
    for (source, value) in entries(store, WATERMARK)? {
        let source = String::from_utf8(source).map_err(|error| foreign(WATERMARK, &error.to_string()))?;
        watermarks.insert(source, EventTime(i64::from_be_bytes(fixed(&value, WATERMARK)?)));
    }
    Ok(watermarks)
}

/// Adds to a commit the watermark of its log that the operators behind `source` have been shown.
pub fn write_watermark(writes: &mut Writes<'_>, source: &str, watermark: EventTime) {
    writes.put(Family::Meta, format!("{WATERMARK}{source}").as_bytes(), &watermark.0.to_be_bytes());
}

fn mark_key(topic: u16, partition: i32, offset: i64) -> Vec<u8> {
    let mut key = MARK.as_bytes().to_vec();
    key.extend_from_slice(&topic.to_be_bytes());
    key.extend_from_slice(&partition.to_be_bytes());
    key.extend_from_slice(&offset.to_be_bytes());
    key
}

/// Lets go of marks that lie before the log's first offset, but for the newest of them: a replay can't start earlier.
pub fn forget_marks(store: &Store, topic: u16, partition: i32, first_offset: i64) -> Result<(), Error> {
    let (from, end) = (mark_key(topic, partition, 0), mark_key(topic, partition, first_offset.saturating_add(1)));
    let mut newest = None;
    store.scan(Family::Meta, &from, &end, |key, _| {
        newest = Some(key.to_vec());
        true
    })?;
    if let Some(newest) = newest {
        let mut writes = store.writes();
        writes.delete_range(Family::Meta, &from, &newest);
        store.write(writes, Sync::Later)?;
    }
    Ok(())
}

/// The id that `topic` had when it was last opened; `None` where none is known.
///
/// # Errors
/// When the state can't be read.
pub fn read_topic_id(store: &Store, topic: &str) -> Result<Option<String>, Error> {
    let key = format!("{TOPIC_ID}{topic}");
    let Some(id) = store.get(Family::Meta, key.as_bytes())? else { return Ok(None) };
    String::from_utf8(id).map(Some).map_err(|error| foreign(&key, &error.to_string()))
}

/// Writes down the id of a topic that is about to be read. Not synced by itself: the first commit is, and takes it along.
///
/// # Errors
/// When the disk fails.
pub fn write_topic_id(store: &Store, topic: &str, id: &str) -> Result<(), Error> {
    let mut writes = store.writes();
    writes.put(Family::Meta, format!("{TOPIC_ID}{topic}").as_bytes(), id.as_bytes());
    Ok(store.write(writes, Sync::Later)?)
}

/// The first epoch that the pipeline's version `id` committed, and when; adds `now` to the commit where it is the first.
///
/// # Errors
/// When the state can't be read.
pub fn first_epoch_of(
    store: &Store,
    writes: &mut Writes<'_>,
    id: &str,
    now: (Epoch, EventTime),
) -> Result<(Epoch, EventTime), Error> {
    let key = format!("{VERSION}{id}");
    if let Some(known) = store.get(Family::Meta, key.as_bytes())? {
        let known: [u8; 16] = fixed(&known, VERSION)?;
        let (epoch, at) = known.split_first_chunk::<8>().ok_or_else(|| foreign(VERSION, "it is too short"))?;
        return Ok((Epoch(u64::from_be_bytes(*epoch)), EventTime(i64::from_be_bytes(fixed(at, VERSION)?))));
    }
    let mut value = [0; 16];
    value[..8].copy_from_slice(&now.0.0.to_be_bytes());
    value[8..].copy_from_slice(&now.1.0.to_be_bytes());
    writes.put(Family::Meta, key.as_bytes(), &value);
    Ok(now)
}

/// Writes down that a destination acknowledged everything up to `epoch`.
///
/// Not synced: a loss of power repeats a delivery, which is harmless.
pub fn write_delivered(store: &Store, destination: &str, epoch: Epoch) -> Result<(), Error> {
    let mut writes = store.writes();
    writes.put(Family::Meta, format!("{DELIVERED}{destination}").as_bytes(), &epoch.0.to_be_bytes());
    Ok(store.write(writes, Sync::Later)?)
}

/// What follows `prefix` in a key, and the value.
type Entry = (Vec<u8>, Vec<u8>);

fn entries(store: &Store, prefix: &str) -> Result<Vec<Entry>, Error> {
    let mut end = prefix.as_bytes().to_vec();
    // Every prefix here ends in '/', and '0' is the byte after it.
    end.pop();
    end.push(b'0');
    let mut found = Vec::new();
    store.scan(Family::Meta, prefix.as_bytes(), &end, |key, value| {
        found.push((key.get(prefix.len()..).unwrap_or_default().to_vec(), value.to_vec()));
        true
    })?;
    Ok(found)
}

fn fixed<const N: usize>(bytes: &[u8], key: &str) -> Result<[u8; N], Error> {
    bytes.try_into().map_err(|_| foreign(key, &format!("it has {} bytes and not {N}", bytes.len())))
}

fn foreign(key: &str, detail: &str) -> Error {
    Error::State {
        detail: format!("{key} holds what this version of weir does not write: {detail}"),
        remedy: "run the version that wrote the state, or start with an empty state folder".to_owned(),
    }
}
