//! A slice of the log: from where to where each partition is read, and the event times that a run is for.
//!
//! A live pipeline goes on where its state left off, for ever; a replay is handed a slice, ends with it, and has results
//! for the times in it alone. What is read beside (copies that came before, stragglers that came after) makes the
//! windows at both bounds whole and shows nowhere in the results, the ledger and the quarantine aside.
//!
//! Not here: how a slice is found (`weir-replay` asks what the live pipeline wrote down, or the log).

use serde::{Deserialize, Serialize};
use weir_schemas::time::EventTime;

/// What of the log a run reads, instead of all that its state hasn't.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// The stretches; a partition that has none isn't read.
    pub stretches: Vec<Stretch>,
    /// The first event time that results are for, in microseconds since 1970.
    pub from: EventTime,
    /// The first event time after them.
    pub to: EventTime,
}

/// Consecutive offsets of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub first: i64,
    /// The offset after the last one.
    pub next: i64,
    /// The partition's watermark before the first, as it was when they were read first; absent, it isn't known.
    #[serde(default)]
    pub watermark: Option<EventTime>,
}

impl Stretch {
    /// How many offsets; at most that many records.
    pub fn offsets(&self) -> u64 {
        u64::try_from(self.next.saturating_sub(self.first)).unwrap_or(0)
    }
}

impl Slice {
    /// The stretch of a partition.
    pub fn of(&self, topic: &str, partition: i32) -> Option<&Stretch> {
        self.stretches.iter().find(|of| of.topic == topic && of.partition == partition)
    }

    /// How many offsets there are in all.
    pub fn offsets(&self) -> u64 {
        self.stretches.iter().map(Stretch::offsets).sum()
    }
}
