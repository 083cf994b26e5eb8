//! Keeping an archive: merging, letting go of what is old, sweeping. A little at a time, between commits.
//!
//! Nothing of it is needed for records to be archived: what fails is told and done again later, each kind for itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use weir_archive::{Archive, Catalog, Compaction, Error};

use crate::config;

/// How often old records are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(600);

/// How often a whole archive is listed, for what a killed writer left.
const SWEEP_EVERY: Duration = Duration::from_secs(86_400);

/// How often something to merge or to delete is looked for, when there was nothing.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What is merged, by the pipeline file; nothing where it says so.
pub fn compaction(config: &config::archive::Archive) -> Option<Compaction> {
    let settle_ms = i64::try_from(config.merge_after_ms).unwrap_or(i64::MAX);
    (config.merge_to_bytes > 0).then_some(Compaction { aim_bytes: config.merge_to_bytes, settle_ms })
}

/// The time before which a topic's records aren't kept, in milliseconds since 1970.
pub fn kept_from_ms(config: &config::archive::Archive, topic: &str, now: DateTime<Utc>) -> Option<i64> {
    config.keep_days_of(topic).map(|days| (now - TimeDelta::days(i64::from(days))).timestamp_millis())
}

/// How long objects that count no more are left alone.
pub fn grace(config: &config::archive::Archive) -> TimeDelta {
    TimeDelta::try_milliseconds(i64::try_from(config.delete_after_ms).unwrap_or(i64::MAX)).unwrap_or(TimeDelta::MAX)
}

/// The shortest and the longest wait before what failed is done again.
const AGAIN: Duration = Duration::from_secs(30);
const AGAIN_MAX: Duration = Duration::from_secs(900);

/// One kind of upkeep: when it was done, and whether it fails.
struct Task {
    name: &'static str,
    every: Duration,
    done_at: Option<Instant>,
    /// How often it has failed since it last succeeded, and what was said.
    fails: u32,
    why: Option<String>,
}

impl Task {
    fn new(name: &'static str, every: Duration) -> Task {
        Task { name, every, done_at: None, fails: 0, why: None }
    }

    /// Does `work` if it is time to, and remembers how it went. A conflict is left to the caller: it is no failure.
    fn step(&mut self, work: impl FnOnce() -> Result<bool, Error>) -> Result<(), Error> {
        let again = AGAIN.saturating_mul(1 << self.fails.saturating_sub(1).min(10)).min(AGAIN_MAX);
        let wait = if self.fails > 0 { again.max(self.every) } else { self.every };
        if self.done_at.is_some_and(|at| at.elapsed() < wait) {
            return Ok(());
        }
        self.done_at = Some(Instant::now());
        match work() {
            Ok(has_more) => {
                (self.fails, self.why) = (0, None);
                if has_more {
                    self.done_at = None;
                }
            }
            Err(conflict @ Error::Conflict { .. }) => return Err(conflict),
            Err(error) => {
                self.fails = self.fails.saturating_add(1);
                self.why = Some(error.to_string());
            }
        }
        Ok(())
    }
}

/// What was done when. Each kind of work fails for itself, is tried again later and later, and stops nothing else.
pub(super) struct Keeper {
    sweeping: Task,
    expiring: Task,
    deleting: Task,
    merging: Task,
    /// Objects that are damaged: everything but them is merged.
    damaged: BTreeMap<String, String>,
}

impl Default for Keeper {
    fn default() -> Keeper {
        Keeper {
            sweeping: Task::new("what a killed writer left isn't swept", SWEEP_EVERY),
            expiring: Task::new("old records aren't let go of", EXPIRE_EVERY),
            deleting: Task::new("objects that were replaced or have expired aren't deleted", LOOK_EVERY),
            merging: Task::new("small objects aren't merged", LOOK_EVERY),
            damaged: BTreeMap::new(),
        }
    }
}

impl Keeper {
    /// Does what is due. What fails is in [`Keeper::notes`] and is tried again later.
    ///
    /// # Errors
    /// [`Error::Conflict`] alone: somebody else has made a commit, and `catalog` is to be read again.
    pub(super) fn step(
        &mut self,
        archive: &Archive,
        config: &config::archive::Archive,
        catalog: &mut Catalog,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        self.sweeping.step(|| {
            let nobodys = archive.sweep_nobodys(now)?;
            if nobodys > 0 {
                tracing::info!(objects = nobodys, "deleted what a killed writer had left in the archive");
            }
            Ok(false)
        })?;
        self.expiring.step(|| {
            let topics: Vec<String> = catalog.topics.keys().cloned().collect();
            for topic in topics {
                let Some(before_ms) = kept_from_ms(config, &topic, now) else { continue };
                let objects = archive.expire(catalog, &topic, before_ms, now)?;
                if objects > 0 {
                    tracing::info!(topic, objects, "records in the archive are older than they are kept");
                }
            }
            Ok(false)
        })?;
        self.deleting.step(|| archive.sweep_removed(catalog, grace(config), now).map(|_| false))?;
        let Some(compaction) = compaction(config) else { return Ok(()) };
        let damaged = &mut self.damaged;
        damaged.retain(|name, _| catalog.entries.contains_key(name));
        self.merging.step(|| {
            let leave_out = damaged.keys().cloned().collect();
            match archive.merge(catalog, compaction, &leave_out, now) {
                Ok(Some(merged)) => {
                    tracing::debug!(object = merged.object, objects = merged.objects, "merged objects of the archive");
                    Ok(true)
                }
                Ok(None) => Ok(false),
                Err(Error::Damaged { object, detail }) if catalog.entries.contains_key(&object) => {
                    damaged.insert(object, detail);
                    Ok(true)
                }
                Err(error) => Err(error),
            }
        })
    }

    /// What people should know: what isn't done, and why.
    pub(super) fn notes(&self) -> Vec<String> {
        let tasks = [&self.sweeping, &self.expiring, &self.deleting, &self.merging];
        let of = |task: &&Task| Some(format!("{}: {}", task.name, task.why.as_ref()?));
        let mut notes: Vec<String> = tasks.iter().filter_map(of).collect();
        if let Some((object, detail)) = self.damaged.first_key_value() {
            let others = match self.damaged.len() - 1 {
                0 => String::new(),
                others => format!(", and {others} more like it"),
            };
            let remedy = "`weir archive verify` names all that is wrong";
            notes.push(format!("{object} isn't merged: {detail}{others}; {remedy}"));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use weir_archive::{Pending, Record, Settings, Stretch};

    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn append(archive: &Archive, catalog: &mut Catalog, first: i64, hour: i64, now: DateTime<Utc>) {
        let mut pending = Pending::default();
        let (topic, topic_id, next) = ("events".to_owned(), None, first + 10);
        for offset in first..next {
            let timestamp_ms = Some(hour * HOUR_MS);
            let (key, value) = (None, Some(&b"value"[..]));
            let (partition, is_append_time, headers) = (0, false, &[][..]);
            let record = Record { partition, offset, timestamp_ms, is_append_time, key, value, headers };
            pending.add(&topic, &record).unwrap();
        }
        pending.cover(Stretch { topic, topic_id, partition: 0, first, next, records: 10 });
        archive.append(catalog, &pending.finish().unwrap(), now).unwrap();
    }

    #[test]
    fn what_cannot_be_done_is_told_and_stops_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let url = folder.path().display().to_string();
        let (options, pipeline) = (BTreeMap::new(), "shop".to_owned());
        let archive = Archive::open(&Settings { url, options, pipeline, makes_folder: true }).unwrap();
        let config: config::archive::Archive =
            toml::from_str("url = \"a\"\ndelete_after_ms = 0\nmerge_after_ms = 0\n").unwrap();
        let now = DateTime::from_timestamp_millis(1_000 * HOUR_MS).unwrap();
        let mut catalog = archive.catalog().unwrap();
        for at in 0..6 {
            append(&archive, &mut catalog, at * 10, at / 3, now);
        }
        // Of the first hour an object is damaged; of the second one what was merged can't be deleted.
        let names: Vec<String> = catalog.entries.keys().cloned().collect();
        std::fs::write(folder.path().join(&names[1]), b"damaged").unwrap();
        let mut keeper = Keeper::default();
        for _ in 0..4 {
            keeper.step(&archive, &config, &mut catalog, now).unwrap();
        }
        assert_eq!(catalog.removed.len(), 5);
        assert!(!catalog.removed.contains_key(&names[1]) && catalog.entries.contains_key(&names[1]));
        std::fs::remove_file(folder.path().join(&names[5])).unwrap();
        std::fs::create_dir_all(folder.path().join(&names[5]).join("taken")).unwrap();
        keeper.deleting.done_at = None;
        keeper.step(&archive, &config, &mut catalog, now).unwrap();
        let notes = keeper.notes();
        let is_told = |what: &str| notes.iter().any(|note| note.contains(what));
        assert!(is_told("aren't deleted: ") && is_told(&format!("{} isn't merged", names[1])), "{notes:?}");

        // The store fails again and again; what is new is merged all the same.
        append(&archive, &mut catalog, 60, 5, now);
        append(&archive, &mut catalog, 70, 5, now);
        let before = catalog.entries.len();
        keeper.merging.done_at = None;
        keeper.step(&archive, &config, &mut catalog, now).unwrap();
        assert_eq!(catalog.entries.len(), before - 1);
        assert_eq!(keeper.deleting.fails, 1, "it waits before it is tried again");

        std::fs::remove_dir_all(folder.path().join(&names[5])).unwrap();
        keeper.deleting.done_at = None;
        keeper.step(&archive, &config, &mut catalog, now).unwrap();
        assert!(catalog.removed.is_empty() && !keeper.notes().iter().any(|note| note.contains("deleted")));
    }
}
