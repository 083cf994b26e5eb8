//! What people ask a running pipeline: where everything is, and who holds it back.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use weir_schemas::time::EventTime;

use crate::source::PartitionStatus;

/// The whole pipeline at one moment; `/status` serves it as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The pipeline's name.
    pub pipeline: String,
    /// The epoch that is being read.
    pub open_epoch: u64,
    /// The newest committed epoch.
    pub committed_epoch: u64,
    /// The newest epoch whose rows every table acknowledged.
    pub delivered_epoch: u64,
    /// Why no epoch opens, where that isn't only because the open one is young.
    pub waits_for: Option<String>,
    /// Bytes fetched and not yet committed.
    pub in_flight_bytes: u64,
    /// Bytes that may be.
    pub in_flight_limit_bytes: u64,
    /// Bytes committed and not yet delivered.
    pub outbox_bytes: u64,
    /// Bytes that may be.
    pub outbox_limit_bytes: u64,
    /// The sources.
    pub sources: Vec<SourceStatus>,
    /// The destinations.
    pub destinations: Vec<DestinationStatus>,
    /// The archive, where there is one.
    #[serde(default)]
    pub archive: Option<ArchiveStatus>,
}

/// The archive at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArchiveStatus {
    /// Its address.
    pub url: String,
    /// The newest commit of its manifest.
    pub commit: u64,
    /// When this run last wrote records to it, in milliseconds since 1970; absent, it hasn't yet.
    pub written_at_ms: Option<i64>,
    /// The objects in it.
    pub objects: u64,
    /// Their records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Offsets that were committed and aren't archived yet.
    pub lag_records: u64,
    /// What is wrong, while it can't be written.
    pub failing: Option<Failing>,
    /// What people should know of it.
    pub notes: Vec<String>,
    /// How long records are kept, by topic.
    pub topics: Vec<ArchivedTopic>,
}

/// How long a topic's records are kept, and where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArchivedTopic {
    /// The topic.
    pub topic: String,
    /// How long the topic itself keeps them, in milliseconds; -1 for ever; absent where the cluster doesn't say.
    pub retention_ms: Option<i64>,
    /// Days that the archive keeps them; absent, for ever.
    pub keep_days: Option<u32>,
}

/// A source at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// The source's name.
    pub name: String,
    /// The least watermark of its workers; absent while one knows none.
    pub watermark: Option<EventTime>,
    /// The partition that holds the watermark back, as `topic/partition`.
    pub held_back_by: Option<String>,
    /// What people should know of it.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Its partitions.
    pub partitions: Vec<WorkerPartition>,
}

/// A partition, with the worker that reads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerPartition {
    /// The worker.
    pub worker: usize,
    /// Where it is.
    #[serde(flatten)]
    pub status: PartitionStatus,
}

/// A destination at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DestinationStatus {
    /// The destination's name.
    pub name: String,
    /// The epoch up to which it acknowledged.
    pub delivered_epoch: u64,
    /// Rows that wait.
    pub waiting_rows: u64,
    /// Bytes that wait.
    pub waiting_bytes: u64,
    /// What is wrong, while deliveries fail.
    pub failing: Option<Failing>,
}

/// A destination that doesn't take what it is sent, for now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Failing {
    /// Since when, in milliseconds since 1970.
    pub since_ms: i64,
    /// How many attempts failed.
    pub attempts: u64,
    /// What it said last.
    pub error: String,
}

/// Whether a partition in this state holds nothing back.
pub fn rests(state: &str) -> bool {
    matches!(state, "idle" | "done")
}

impl SourceStatus {
    /// A source whose workers report `partitions`. The one that holds back is the one with the least watermark among
    /// those that are neither idle nor done.
    pub fn of(
        name: &str,
        watermark: Option<EventTime>,
        partitions: Vec<(usize, PartitionStatus)>,
        notes: Vec<String>,
    ) -> SourceStatus {
        let holds = partitions.iter().filter(|(_, of)| !rests(&of.state)).min_by_key(|(_, of)| of.watermark);
        SourceStatus {
            name: name.to_owned(),
            watermark,
            held_back_by: holds.map(|(_, of)| format!("{}/{}", of.topic, of.partition)),
            notes,
            partitions: partitions.into_iter().map(|(worker, status)| WorkerPartition { worker, status }).collect(),
        }
    }
}

/// What is wrong with each destination, told by the deliveries.
#[derive(Debug, Default)]
pub struct Failures(Mutex<Vec<Option<Failing>>>);

impl Failures {
    /// Tells that an attempt of destination `at` failed, and returns how many have in a row.
    pub fn failed(&self, at: usize, now_ms: i64, error: &str) -> u64 {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() <= at {
            failures.resize(at + 1, None);
        }
        let Some(slot) = failures.get_mut(at) else { return 0 };
        let failing = slot.get_or_insert_with(|| Failing { since_ms: now_ms, ..Failing::default() });
        failing.attempts += 1;
        failing.error = error.to_owned();
        failing.attempts
    }

    /// Tells that destination `at` took what it was sent.
    pub fn succeeded(&self, at: usize) {
        if let Some(slot) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(at) {
            *slot = None;
        }
    }

    /// What is wrong with destination `at`.
    pub fn of(&self, at: usize) -> Option<Failing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(at).cloned().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: i32, watermark: i64, state: &str) -> (usize, PartitionStatus) {
        let status = PartitionStatus {
            topic: "orders".to_owned(),
            partition: number,
            next_offset: 5,
            end_offset: 9,
            watermark: EventTime(watermark),
            state: state.to_owned(),
            detail: String::new(),
        };
        (0, status)
    }

    #[test]
    fn who_holds_back_is_never_an_idle_partition() {
        let of = SourceStatus::of(
            "events",
            None,
            vec![
                partition(0, 1, "idle"),
                partition(1, 3, "parked"),
                partition(2, 7, "reading"),
                partition(3, 2, "done"),
            ],
            Vec::new(),
        );
        assert_eq!(of.held_back_by.as_deref(), Some("orders/1"));
    }

    #[test]
    fn the_status_can_be_read_back_from_its_json() {
        let status = Status {
            sources: vec![SourceStatus::of("events", Some(EventTime(5)), vec![partition(0, 1, "idle")], Vec::new())],
            destinations: vec![DestinationStatus { failing: Some(Failing::default()), ..DestinationStatus::default() }],
            ..Status::default()
        };
        let json = serde_json::to_string(&status).expect("json");
        assert_eq!(serde_json::from_str::<Status>(&json).expect("status"), status);
    }
}
