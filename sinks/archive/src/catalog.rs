//! The catalogue: what is in an archive, as the sum of its commits.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::manifest::{Change, Commit, Entry, Gap};

/// What is known of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// The topic's id, where the cluster gives one.
    pub topic_id: Option<String>,
    /// The first offset that was archived.
    pub first: i64,
    /// The offset after the last one.
    pub next: i64,
    /// Records that were archived, expired ones included.
    pub records: u64,
    /// Records of those that have expired.
    pub expired_records: u64,
    /// What the log had forgotten before it was archived.
    pub gaps: Vec<Gap>,
    /// Where records have expired, from the first offset to before the second one, in order and apart. Between them there may
    /// be some of other hours that haven't.
    #[serde(default)]
    pub expired: Vec<(i64, i64)>,
}

impl Log {
    /// The parts of `first` to before `next` of which not all records are there: gaps, and where some have expired.
    pub fn missing(&self, first: i64, next: i64) -> Vec<(i64, i64)> {
        let gaps = self.gaps.iter().map(|gap| (gap.first, gap.next));
        let cut = |(from, to): (i64, i64)| (from.max(first), to.min(next));
        let mut missing: Vec<(i64, i64)> =
            gaps.chain(self.expired.iter().copied()).map(cut).filter(|(from, to)| from < to).collect();
        missing.sort_unstable();
        missing
    }

    /// Puts down that records of some stretches have expired. Where `others` has nothing between two stretches, they are one.
    fn expire(&mut self, stretches: Vec<(i64, i64)>, others: &[(i64, i64)]) {
        let mut all = std::mem::take(&mut self.expired);
        all.extend(stretches);
        all.sort_unstable();
        for (first, next) in all {
            let is_apart = |before: i64| others.iter().any(|other| other.0 < first && other.1 > before);
            match self.expired.last_mut() {
                Some(before) if first <= before.1 || !is_apart(before.1) => before.1 = before.1.max(next),
                _ => self.expired.push((first, next)),
            }
        }
    }
}

/// What is in an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// The newest commit; 0 before the first.
    pub number: u64,
    /// The pipeline that writes it; empty before the first commit.
    pub pipeline: String,
    /// The partitions, by topic.
    pub topics: BTreeMap<String, BTreeMap<i32, Log>>,
    /// The objects that count, by name.
    pub entries: BTreeMap<String, Entry>,
    /// Objects that count no more and aren't deleted yet, with the time since when, in milliseconds since 1970.
    pub removed: BTreeMap<String, i64>,
    /// The schemas that are there.
    pub schemas: BTreeSet<u32>,
    /// The snapshot that reading began with.
    #[serde(skip)]
    pub(crate) snapshot: u64,
}

impl Catalog {
    /// What is known of a partition; nothing before it is first archived.
    pub fn log(&self, topic: &str, partition: i32) -> Option<&Log> {
        self.topics.get(topic)?.get(&partition)
    }

    /// Whether an object counts, or did and isn't deleted yet.
    pub(crate) fn names(&self, object: &str) -> bool {
        self.entries.contains_key(object) || self.removed.contains_key(object)
    }

    /// Whether `commit` follows from what is there.
    ///
    /// # Errors
    /// What of it doesn't.
    pub(crate) fn check(&self, commit: &Commit) -> Result<(), String> {
        if self.number.checked_add(1) != Some(commit.number) {
            return Err(format!("it has the number {} and follows number {}", commit.number, self.number));
        }
        let mut nexts: BTreeMap<(&str, i32), i64> = BTreeMap::new();
        let gaps = commit.gaps.iter().map(|of| (of.topic.as_str(), of.partition, of.first, of.next));
        let stretches = commit.stretches.iter().map(|of| (of.topic.as_str(), of.partition, of.first, of.next));
        for (topic, partition, first, next) in gaps.chain(stretches) {
            let known = self.log(topic, partition).map_or(first, |log| log.next);
            let expected = nexts.insert((topic, partition), next).unwrap_or(known);
            if first != expected || next < first {
                return Err(format!("{topic}/{partition}: offsets {first} to {next} don't follow {expected}"));
            }
        }
        commit.added.iter().try_for_each(Entry::check)?;
        match commit.removed.iter().find(|name| !self.entries.contains_key(*name)) {
            Some(name) => Err(format!("it removes {name}, which isn't there")),
            None => Ok(()),
        }
    }

    /// Adds a commit.
    ///
    /// # Errors
    /// What of it doesn't follow from what is there; then nothing is changed.
    pub(crate) fn apply(&mut self, commit: &Commit) -> Result<(), String> {
        self.check(commit)?;
        for gap in &commit.gaps {
            let log = self.log_mut(&gap.topic, gap.partition, gap.first);
            log.next = gap.next;
            log.gaps.push(gap.clone());
        }
        for of in &commit.stretches {
            let log = self.log_mut(&of.topic, of.partition, of.first);
            log.next = of.next;
            log.records = log.records.saturating_add(of.records);
            log.topic_id = of.topic_id.clone().or(log.topic_id.take());
        }
        let mut expired: BTreeMap<(String, i32), Vec<(i64, i64)>> = BTreeMap::new();
        for name in &commit.removed {
            let Some(entry) = self.entries.remove(name) else { continue };
            if commit.change == Change::Expire {
                let log = self.log_mut(&entry.topic, entry.partition, entry.first_offset);
                log.expired_records = log.expired_records.saturating_add(entry.records);
                let stretch = (entry.first_offset, entry.last_offset.saturating_add(1));
                expired.entry((entry.topic, entry.partition)).or_default().push(stretch);
            }
            self.removed.insert(name.clone(), commit.at_ms);
        }
        for ((topic, partition), stretches) in expired {
            let left = self.of_partition(&topic, partition);
            let left: Vec<_> = left.iter().map(|of| (of.first_offset, of.last_offset.saturating_add(1))).collect();
            self.log_mut(&topic, partition, 0).expire(stretches, &left);
        }
        let added = commit.added.iter().map(|entry| (entry.object.clone(), entry.clone()));
        self.entries.extend(added);
        for name in &commit.deleted {
            self.removed.remove(name);
        }
        self.schemas.extend(&commit.schemas);
        self.number = commit.number;
        self.pipeline.clone_from(&commit.pipeline);
        Ok(())
    }

    fn log_mut(&mut self, topic: &str, partition: i32, first: i64) -> &mut Log {
        let logs = self.topics.entry(topic.to_owned()).or_default();
        logs.entry(partition).or_insert_with(|| Log { first, next: first, ..Log::default() })
    }

    /// The objects of a partition, in the order of their first offsets.
    pub fn of_partition(&self, topic: &str, partition: i32) -> Vec<&Entry> {
        let is_of = |entry: &&Entry| entry.topic == topic && entry.partition == partition;
        let mut entries: Vec<&Entry> = self.entries.values().filter(is_of).collect();
        entries.sort_by_key(|entry| entry.first_offset);
        entries
    }

    /// Ids that values name and whose schemas aren't there: they were unknown to the registry, or never were schemas.
    pub fn missing_schemas(&self) -> BTreeSet<u32> {
        self.entries
            .values()
            .flat_map(|entry| &entry.schema_ids)
            .filter(|id| !self.schemas.contains(id))
            .copied()
            .collect()
    }
}
