//! What is known of each replay: a folder with its record, its state, and a lock while somebody runs it.
//!
//! ```text
//! <state folder>.replays/<run>/replay.json   the record
//!                              lock          held by the process that runs it
//!                              cancelled     there when somebody wants it to end
//!                              state/        the replay's own state
//! ```
//! It stands beside the live pipeline's state folder, not in it, since that one is held by the live pipeline.
//!
//! Invariant: a record is replaced as a whole, so that a kill leaves the old one or the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_pipeline::error::Error;
use weir_pipeline::slice::Slice;

/// Characters of a run's name, at most: it is part of a database's name.
const NAME_MAX: usize = 40;

/// How often a lock is tried, and how long between: who asks whether a replay runs has it for a moment, too.
const TRIES: usize = 20;
const TRY_EVERY: Duration = Duration::from_millis(10);

/// How far a replay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nothing is read yet, or some of it.
    Begun,
    /// All of it is there.
    Complete,
    /// Somebody cancelled it.
    Cancelled,
}

/// Where a replay reads from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadFrom {
    /// The topics.
    #[default]
    Topic,
    /// The archive.
    Archive,
    /// The archive for what the topics have forgotten, and the topics.
    Both,
}

/// A replay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub run: String,
    /// The live pipeline's file.
    pub file: PathBuf,
    /// The file whose rules, views and code it runs.
    pub with: PathBuf,
    /// What of the log it reads, and the times that it has results for.
    pub slice: Slice,
    /// Where it reads that from.
    #[serde(default)]
    pub reads: ReadFrom,
    /// A condition in SQL on the events that it has results of; absent, all.
    #[serde(default)]
    pub condition: Option<String>,
    /// Whether it leaves out partitions or offsets that hold events of its times, so that its rows are parts of rows.
    #[serde(default)]
    pub is_part: bool,
    /// Whether what the clock decided of its records is decided as the live pipeline kept it, instead of anew.
    #[serde(default)]
    pub repeats_judgements: bool,
    /// Its views.
    pub views: BTreeSet<String>,
    /// The version of the subject that each source reads with, where the live state keeps one.
    pub schema_versions: BTreeMap<String, u32>,
    /// Where its tables are.
    pub database: String,
    /// When it was asked for, in milliseconds since 1970.
    pub created_at_ms: i64,
    /// How far it is.
    pub status: Status,
    /// How fast it was, where it was read in one go and nobody held it back.
    #[serde(default)]
    pub records_per_second: Option<u64>,
}

impl Record {
    /// Whether it reads of this topic.
    pub fn reads_topic(&self, topic: &str) -> bool {
        self.slice.stretches.iter().any(|of| of.topic == topic)
    }
}

/// The replays of a pipeline.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// A replay that this process runs; let go of when dropped.
#[derive(Debug)]
pub struct Held(#[allow(dead_code, reason = "the lock is what it is for")] File);

impl Store {
    /// The replays of the pipeline whose state is in `state`.
    pub fn of(state: &Path) -> Store {
        let mut name = state.file_name().unwrap_or_default().to_os_string();
        name.push(".replays");
        Store { folder: state.with_file_name(name) }
    }

    /// The folder of a replay's state.
    pub fn state_of(&self, run: &str) -> PathBuf {
        self.folder.join(run).join("state")
    }

    /// Every replay, the newest first.
    ///
    /// # Errors
    /// A folder that can't be read, a record that isn't one.
    pub fn all(&self) -> Result<Vec<Record>, Error> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(&self.folder, &error)),
        };
        let mut records = Vec::new();
        for entry in entries {
            let name = entry.map_err(|error| failed(&self.folder, &error))?.file_name();
            records.extend(self.read(&name.to_string_lossy())?);
        }
        records.sort_by_key(|record| std::cmp::Reverse(record.created_at_ms));
        Ok(records)
    }

    /// The replay of this name, if there is one.
    ///
    /// # Errors
    /// A record that can't be read, or isn't one.
    pub fn read(&self, run: &str) -> Result<Option<Record>, Error> {
        let path = self.folder.join(run).join("replay.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path, &error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| failed(&path, &error))
    }

    /// Writes a record, in one step.
    ///
    /// # Errors
    /// When the disk doesn't take it.
    pub fn write(&self, record: &Record) -> Result<(), Error> {
        let folder = self.folder.join(&record.run);
        let (path, next) = (folder.join("replay.json"), folder.join("replay.json.next"));
        let write = || -> io::Result<()> {
            fs::create_dir_all(&folder)?;
            let mut file = File::create(&next)?;
            file.write_all(&serde_json::to_vec_pretty(record)?)?;
            file.sync_all()?;
            fs::rename(&next, &path)
        };
        write().map_err(|error| failed(&path, &error))
    }

    /// A file of this replay's own.
    pub fn file_of(&self, run: &str, name: &str) -> PathBuf {
        self.folder.join(run).join(name)
    }

    /// Takes a replay for this process.
    ///
    /// # Errors
    /// When another process runs it.
    pub fn hold(&self, run: &str) -> Result<Held, Error> {
        for _ in 0..TRIES {
            if let Some(held) = self.try_to_hold(run)? {
                return Ok(held);
            }
            std::thread::sleep(TRY_EVERY);
        }
        Err(Error::State {
            detail: format!("the replay `{run}` is run by another process"),
            remedy: "wait until it has ended, or end it with `weir replay cancel`".to_owned(),
        })
    }

    fn try_to_hold(&self, run: &str) -> Result<Option<Held>, Error> {
        let path = self.folder.join(run).join("lock");
        let open = || -> io::Result<File> {
            fs::create_dir_all(self.folder.join(run))?;
            File::options().create(true).truncate(false).write(true).open(&path)
        };
        let file = open().map_err(|error| failed(&path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Held(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(&path, &error)),
        }
    }

    /// Whether some process runs it.
    pub fn is_running(&self, run: &str) -> bool {
        !matches!(self.try_to_hold(run), Ok(Some(_)))
    }

    /// Asks the process that runs it to end.
    ///
    /// # Errors
    /// When the disk doesn't take it.
    pub fn cancel(&self, run: &str) -> Result<(), Error> {
        let path = self.folder.join(run).join("cancelled");
        fs::write(&path, b"").map_err(|error| failed(&path, &error))
    }

    /// Whether somebody asked it to end.
    pub fn is_cancelled(&self, run: &str) -> bool {
        self.folder.join(run).join("cancelled").exists()
    }

    /// Removes a replay's record and state; its tables are the caller's to drop.
    ///
    /// # Errors
    /// When it is running, or the folder can't be removed.
    pub fn remove(&self, run: &str) -> Result<(), Error> {
        let _held = self.hold(run)?;
        let folder = self.folder.join(run);
        fs::remove_dir_all(&folder).map_err(|error| failed(&folder, &error))
    }
}

/// Whether `name` can be a run's name: part of a folder's, a database's and a consumer group's.
pub fn is_name(name: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(is_fine)
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::State {
        detail: format!("{}: {error}", path.display()),
        remedy: "see to the folder: space, rights, and nobody else's files in it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use weir_schemas::time::EventTime;

    use super::*;

    fn record(run: &str, created_at_ms: i64) -> Record {
        Record {
            run: run.to_owned(),
            file: PathBuf::from("pipeline.toml"),
            with: PathBuf::from("pipeline.toml"),
            slice: Slice { stretches: Vec::new(), from: EventTime(0), to: EventTime(1) },
            reads: ReadFrom::Topic,
            condition: None,
            is_part: false,
            repeats_judgements: true,
            views: BTreeSet::from(["revenue".to_owned()]),
            schema_versions: BTreeMap::new(),
            database: format!("weir_replay_{run}"),
            created_at_ms,
            status: Status::Begun,
            records_per_second: None,
        }
    }

    #[test]
    fn records_are_kept_beside_the_state_and_held_by_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::of(&folder.path().join("state"));
        assert_eq!(store.all().expect("none yet"), []);
        store.write(&record("a", 1)).expect("written");
        store.write(&record("b", 2)).expect("written");
        let names: Vec<String> = store.all().expect("two").into_iter().map(|record| record.run).collect();
        assert_eq!(names, ["b", "a"]);
        assert!(folder.path().join("state.replays/a/replay.json").exists());

        let held = store.hold("a").expect("free");
        assert!(store.is_running("a") && !store.is_running("b"));
        assert!(store.remove("a").is_err());
        let looking = std::thread::spawn(move || {
            std::thread::sleep(TRY_EVERY);
            drop(held);
        });
        drop(store.hold("a").expect("who only looked has let go"));
        looking.join().expect("no panic");
        store.cancel("a").expect("asked");
        assert!(store.is_cancelled("a") && !store.is_cancelled("b"));
        store.remove("a").expect("removed");
        assert_eq!(store.read("a").expect("gone"), None);
    }

    #[test]
    fn a_name_is_part_of_other_names() {
        assert!(is_name("fix_42") && !is_name("") && !is_name("A") && !is_name("a-b") && !is_name("../x"));
        assert!(!is_name(&"a".repeat(41)));
    }
}
