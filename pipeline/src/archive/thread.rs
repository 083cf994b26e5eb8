//! The archive's thread: sessions, each from what the manifest says to the first failure.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use weir_archive::{Catalog, KeptSchema, Pending, Ready, Relation, Version};
use weir_schemas::registry::Lookup;

use super::follow::Follower;
use super::keep::Keeper;
use super::{Archiving, Shared, Wish};
use crate::clock::Clock;
use crate::commit::Positions;
use crate::error::Error;
use crate::source::PartitionPosition;
use crate::source::kafka::topic_settings;
use crate::status::{ArchivedTopic, Failing};

/// How long the thread sleeps when there is nothing to take.
const REST: Duration = Duration::from_millis(20);

/// The shortest and the longest wait before a failed session is begun again.
const BACKOFF: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// How often the beginnings of the logs are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Objects of one commit, at most: each has buffers of its own while it is gathered.
const FILES_MAX: usize = 256;

/// Ids that the registry doesn't know which are remembered, at most.
const UNKNOWN_MAX: usize = 10_000;

pub(super) struct Thread {
    archiving: Archiving,
    positions: Positions,
    shared: Arc<Shared>,
    clock: Clock,
    keeper: Keeper,
    /// Whether the store is known to keep what the archive rests on.
    is_probed: bool,
    /// Up to where each partition is archived, as far as that was seen.
    archived: BTreeMap<(String, i32), i64>,
}

/// From what the manifest said when it began.
struct Session<'a> {
    thread: &'a mut Thread,
    catalog: Catalog,
    follower: Follower,
    pending: Pending,
    /// Since when something waits.
    pending_since: Option<Instant>,
    /// Ids that the registry has no schema for.
    unknown: HashSet<u32>,
    looked_at: Instant,
    /// What people should know: since the beginning, of the logs, and of what isn't kept as it should be.
    notes: [Vec<String>; 3],
}

/// The places in a session's notes, behind those of its beginning.
const OF_LOGS: usize = 1;
const OF_KEEPING: usize = 2;

impl Thread {
    pub(super) fn new(archiving: Archiving, positions: Positions, shared: Arc<Shared>, clock: Clock) -> Thread {
        let (keeper, archived) = (Keeper::default(), BTreeMap::new());
        Thread { archiving, positions, shared, clock, keeper, is_probed: false, archived }
    }

    /// Follows until it is wished to end.
    pub(super) fn run(mut self) {
        let mut backoff = BACKOFF;
        loop {
            let began = Instant::now();
            let session = || Session::begin(&mut self).and_then(|mut session| session.follow());
            // A panic would end the thread unseen; what it left of the session isn't used again.
            let result = catch_unwind(AssertUnwindSafe(session)).unwrap_or_else(|_| {
                let detail = "the archive's thread panicked and begins again: see the log".to_owned();
                Err(Error::Worker { detail })
            });
            let Err(error) = result else { return };
            self.fails(&error);
            if self.shared.wish() == Wish::Leave {
                return;
            }
            backoff = if began.elapsed() > BACKOFF_MAX { BACKOFF } else { (backoff * 2).min(BACKOFF_MAX) };
            self.rest(backoff);
        }
    }

    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.clock.now_ms()).unwrap_or_default()
    }

    /// Sleeps, or less where somebody wants it to end.
    fn rest(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && self.shared.wish() != Wish::Leave {
            std::thread::sleep(REST);
        }
    }

    /// Tells how many offsets are committed and not archived.
    fn tell_lag(&self) {
        let goals = self.positions.of(&self.archiving.topics);
        let of = |goal: &PartitionPosition| {
            let archived = self.archived.get(&(goal.topic.clone(), goal.partition))?;
            u64::try_from(goal.next_offset - archived).ok()
        };
        let lag = goals.iter().filter_map(of).sum();
        self.shared.status(|status| status.lag_records = lag);
    }

    fn fails(&self, error: &Error) {
        self.tell_lag();
        let now_ms = self.clock.now_ms();
        let is_new = self.shared.status(|status| {
            let is_new = status.failing.as_ref().is_none_or(|failing| failing.error != error.to_string());
            let failing = status.failing.get_or_insert_with(|| Failing { since_ms: now_ms, ..Failing::default() });
            failing.attempts += 1;
            failing.error = error.to_string();
            is_new
        });
        if is_new {
            tracing::warn!(code = error.code(), %error, "the archive lags: it can't be written");
        }
    }

    fn succeeds(&self) {
        if self.shared.status(|status| status.failing.take()).is_some() {
            tracing::info!("the archive is written again");
        }
    }
}

impl<'a> Session<'a> {
    fn begin(thread: &'a mut Thread) -> Result<Session<'a>, Error> {
        let catalog = thread.archiving.archive.catalog()?;
        if !thread.is_probed {
            thread.archiving.archive.probe()?;
            thread.is_probed = true;
        }
        let mut pending = Pending::default();
        let (follower, notes) = Follower::open(&thread.archiving, &catalog, &mut pending, thread.clock.now_ms())?;
        for note in &notes {
            tracing::warn!("archive: {note}");
        }
        let topics = thread.retention();
        thread.shared.status(|status| {
            status.notes.clone_from(&notes);
            status.topics = topics;
        });
        thread.archived.extend(follower.nexts());
        let pending_since = (!pending.is_empty()).then(Instant::now);
        let mut session = Session {
            thread,
            catalog,
            follower,
            pending,
            pending_since,
            unknown: HashSet::new(),
            looked_at: Instant::now(),
            notes: [notes, Vec::new(), Vec::new()],
        };
        session.tell();
        session.thread.succeeds();
        Ok(session)
    }

    /// Follows the engine until it is wished to end, or something fails.
    fn follow(&mut self) -> Result<(), Error> {
        let (roll_bytes, roll) = {
            let config = &self.thread.archiving.config;
            (config.roll_bytes, Duration::from_millis(config.roll_ms))
        };
        let is_full = |pending: &Pending| pending.bytes() >= roll_bytes || pending.files() >= FILES_MAX;
        loop {
            // Asked before the positions: after the wish to finish, they don't move any more.
            let wish = self.thread.shared.wish();
            if wish == Wish::Leave {
                return Ok(());
            }
            let goals = self.thread.positions.of(&self.thread.archiving.topics);
            let taken = self.follower.step(&goals, &mut self.pending, is_full);
            let has_taken = match taken {
                Ok(has_taken) => has_taken,
                Err(error) => {
                    // By the next session the log may have forgotten what was taken already.
                    if matches!(error, Error::Log { .. }) && !self.pending.is_empty() {
                        self.write()?;
                    }
                    return Err(error);
                }
            };
            if !self.pending.is_empty() {
                self.pending_since.get_or_insert_with(Instant::now);
            }
            let behind = self.follower.behind(&goals);
            let is_end = wish == Wish::Finish && behind == 0;
            let is_due = is_full(&self.pending) || is_end || self.pending_since.is_some_and(|at| at.elapsed() >= roll);
            let writes = is_due && !self.pending.is_empty();
            if writes {
                self.write()?;
            }
            self.thread.tell_lag();
            if is_end && self.pending.is_empty() {
                return Ok(());
            }
            if self.looked_at.elapsed() >= LOOK_EVERY {
                self.looked_at = Instant::now();
                self.look(&goals);
            }
            if wish == Wish::Follow && (writes || !has_taken) {
                self.keep();
            }
            if !has_taken {
                std::thread::sleep(REST);
            }
        }
    }

    /// Merges, lets go, sweeps: a little of it. Whatever fails of it stops nothing else.
    fn keep(&mut self) {
        let now = self.thread.now();
        let Archiving { archive, config, .. } = &self.thread.archiving;
        if let Err(error) = self.thread.keeper.step(archive, config, &mut self.catalog, now) {
            // Somebody compacts by hand: what is pending still follows.
            tracing::debug!(%error, "the archive's catalogue is read again");
            match archive.catalog() {
                Ok(catalog) => self.catalog = catalog,
                Err(error) => tracing::debug!(%error, "the archive's catalogue could not be read again"),
            }
        }
        self.tell_notes(OF_KEEPING, self.thread.keeper.notes());
        self.tell();
    }

    /// Writes what is pending. A store that is away is tried again with what is in memory; nothing more is read meanwhile.
    fn write(&mut self) -> Result<(), Error> {
        let mut ready = std::mem::take(&mut self.pending).finish()?;
        self.pending_since = None;
        let mut backoff = BACKOFF;
        loop {
            let done = self.schemas(&mut ready).and_then(|()| {
                let now = self.thread.now();
                Ok(self.thread.archiving.archive.append(&mut self.catalog, &ready, now)?)
            });
            let Err(error) = done else { break };
            self.thread.fails(&error);
            if !error.may_retry() || self.thread.shared.wish() == Wish::Leave {
                return Err(error);
            }
            self.thread.rest(backoff);
            backoff = (backoff * 2).min(BACKOFF_MAX);
            // Whether the commit was made, nobody knows.
            if let Ok(catalog) = self.thread.archiving.archive.catalog() {
                self.catalog = catalog;
                match ready.relation(&self.catalog) {
                    Relation::Next => {}
                    Relation::There => break,
                    Relation::Elsewhere => return Err(error),
                }
            }
        }
        self.thread.succeeds();
        self.tell();
        let now_ms = self.thread.clock.now_ms();
        self.thread.shared.status(|status| status.written_at_ms = Some(now_ms));
        Ok(())
    }

    /// Puts the schemas that `ready` needs and the archive hasn't.
    fn schemas(&mut self, ready: &mut Ready) -> Result<(), Error> {
        let Archiving { archive, registry, handle, .. } = &self.thread.archiving;
        let ids: Vec<u32> = ready.schema_ids().filter(|id| !self.catalog.schemas.contains(id)).collect();
        for id in ids {
            if self.unknown.contains(&id) || ready.holds_schema(id) {
                continue;
            }
            let unavailable = |why: String| Error::Unreachable {
                part: "registry".to_owned(),
                detail: format!("the archive waits for schema {id}: {why}"),
                remedy: "check `[registry]`, and that the registry is up".to_owned(),
            };
            match handle.block_on(registry.by_id(id)) {
                Lookup::Found(found) => {
                    // Which subjects have it is for people; a registry that doesn't tell is no obstacle.
                    let versions = handle.block_on(registry.versions_of(id)).unwrap_or_default();
                    let versions =
                        versions.into_iter().map(|(subject, version)| Version { subject, version }).collect();
                    let (schema, referenced) = (found.text, found.referenced);
                    archive.put_schema(&KeptSchema { id, schema, referenced, versions })?;
                    ready.has_schema(id);
                }
                Lookup::Unknown | Lookup::Unusable(_) => {
                    if self.unknown.len() >= UNKNOWN_MAX {
                        self.unknown.clear();
                    }
                    self.unknown.insert(id);
                }
                Lookup::Unavailable(why) | Lookup::Refused(why) => return Err(unavailable(why)),
            }
        }
        Ok(())
    }

    /// Looks at the logs. It is advice: where they can't be asked now, they are the next time.
    fn look(&mut self, goals: &[PartitionPosition]) {
        match self.follower.look(goals) {
            Ok(looked) => self.tell_notes(OF_LOGS, looked.notes),
            Err(error) => tracing::debug!(%error, "the beginnings of the logs aren't known"),
        }
    }

    /// Tells notes in place of those of the same kind; what is new is warned of.
    fn tell_notes(&mut self, kind: usize, notes: Vec<String>) {
        let Some(known) = self.notes.get_mut(kind).filter(|known| **known != notes) else { return };
        for note in notes.iter().filter(|note| !known.contains(note)) {
            tracing::warn!("archive: {note}");
        }
        *known = notes;
        let all = self.notes.concat();
        self.thread.shared.status(|status| status.notes = all);
    }

    /// Tells what is in the archive.
    fn tell(&mut self) {
        let catalog = &self.catalog;
        for (topic, logs) in &catalog.topics {
            let nexts = logs.iter().map(|(partition, log)| ((topic.clone(), *partition), log.next));
            self.thread.archived.extend(nexts);
        }
        self.thread.shared.status(|status| {
            if status.commit == catalog.number && status.commit > 0 {
                return;
            }
            status.commit = catalog.number;
            status.objects = catalog.entries.len() as u64;
            status.records = catalog.entries.values().map(|entry| entry.records).sum();
            status.bytes = catalog.entries.values().map(|entry| entry.bytes).sum();
        });
    }
}

impl Thread {
    /// How long each topic keeps its records by itself, and the archive after it.
    fn retention(&self) -> Vec<ArchivedTopic> {
        let archiving = &self.archiving;
        let asked = retention_of(archiving).unwrap_or_else(|error| {
            tracing::debug!(%error, "the topics' retention isn't known");
            vec![None; archiving.topics.len()]
        });
        let of = |(topic, retention_ms): (&String, Option<i64>)| ArchivedTopic {
            topic: topic.clone(),
            retention_ms,
            keep_days: archiving.config.keep_days_of(topic),
        };
        archiving.topics.iter().zip(asked).map(of).collect()
    }
}

/// `retention.ms` of each topic; -1 means for ever.
fn retention_of(archiving: &Archiving) -> Result<Vec<Option<i64>>, Error> {
    retention_ms(&archiving.kafka, &archiving.brokers, &archiving.topics, &archiving.handle)
}

/// `retention.ms` of each of `topics`, as the cluster tells it; -1 means for ever.
///
/// # Errors
/// When the cluster can't be asked.
pub fn retention_ms(
    kafka: &rdkafka::ClientConfig,
    brokers: &str,
    topics: &[String],
    handle: &tokio::runtime::Handle,
) -> Result<Vec<Option<i64>>, Error> {
    let kept = topic_settings(kafka, brokers, topics, "retention.ms", handle)?;
    Ok(kept.into_iter().map(|kept| kept?.parse().ok()).collect())
}
