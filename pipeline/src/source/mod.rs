//! What the dataflow asks of a source of records.
//!
//! A source is one per stream of the pipeline file and worker. It reads its share of the partitions, decodes,
//! judges time, and tells how far it is; the dataflow's feed decides when it may read and into which epoch.
//!
//! Invariants: a watermark never goes back; positions are those of everything that was polled, so that a commit of
//! them together with what became of the records is exact; `poll` never waits for the network.

mod apply;
pub mod attend;
pub mod describe;
pub mod fetch;
mod hearing;
pub mod intake;
pub mod joining;
pub mod judge;
pub mod judgement;
pub mod kafka;
pub mod log;
mod lookup;
pub mod message;
pub mod open;
pub mod pace;
mod partition;
pub mod precedent;
pub mod refuse;
mod resolve;
pub mod retry;
pub mod stream;
pub mod tally;
pub mod trouble;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arrow_array::RecordBatch;
use serde::{Deserialize, Serialize};
use weir_schemas::place::Place;
use weir_schemas::rows::Changes;
use weir_schemas::rule::Mode;
use weir_schemas::time::{Epoch, EventTime};

use crate::error::Error;
use crate::lineage::Consumed;

/// What one call of [`Source::poll`] brought.
pub struct Polled {
    /// Events in time that kept the rules, with the columns of [`event_schema`](weir_schemas::stage::event_schema), or of
    /// [`marked_event_schema`](weir_schemas::stage::marked_event_schema) where rules may be broken.
    pub events: Vec<RecordBatch>,
    /// Refused records, with the columns of [`refused_schema`](weir_schemas::stage::refused_schema).
    pub refused: Vec<RecordBatch>,
    /// Counts for the ledger, with the columns of [`tally_schema`](weir_schemas::stage::tally_schema).
    pub tallies: Vec<RecordBatch>,
    /// Events in time that a rule refused or a view can't be evaluated for, with the columns of `events`; only where the source
    /// has sequences, of which they are a part.
    pub refused_events: Vec<RecordBatch>,
    /// How many events in time broke each rule: its id, its mode and the number; none where it is zero.
    pub broken: Vec<(Arc<str>, Mode, u64)>,
    /// Rows that the source writes itself: `weir_judgements`, what only the clock could decide, and `weir_retried`.
    pub judgements: Vec<Changes>,
    /// Bytes of keys and values that were fetched for this.
    pub bytes: u64,
    /// The least watermark of this worker's partitions; never goes back. It stands *after* the events above: they may
    /// be older than it, not older than what the call before said.
    pub watermark: EventTime,
    /// Whether every partition of this worker is idle, or it has none: it then follows the others.
    pub idle: bool,
}

impl Polled {
    /// Nothing came, and the watermark stands at `watermark`.
    pub fn nothing(watermark: EventTime, idle: bool) -> Polled {
        Polled {
            events: Vec::new(),
            refused: Vec::new(),
            tallies: Vec::new(),
            refused_events: Vec::new(),
            broken: Vec::new(),
            judgements: Vec::new(),
            bytes: 0,
            watermark,
            idle,
        }
    }
}

/// How far a partition was read, and the mark that goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionPosition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset to read next.
    pub next_offset: i64,
    /// The partition's own watermark at that offset.
    pub watermark: EventTime,
}

/// What a person wants to know of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset to read next.
    pub next_offset: i64,
    /// The end of the log, as far as it is known.
    pub end_offset: i64,
    /// The partition's own watermark.
    pub watermark: EventTime,
    /// What it is doing: `reading`, `idle`, `waiting`, `parked`, `done`.
    pub state: String,
    /// Why, where it waits.
    pub detail: String,
}

/// One worker's share of a stream of records.
pub trait Source {
    /// Takes what is there, at most about `budget_bytes`: nothing with a budget of 0, at least one record with any other,
    /// if one is there. `others` is what an idle share follows: the least watermark of the other workers.
    ///
    /// # Errors
    /// When it cannot go on: offsets that expired, a topic that was recreated, a broker that refuses for good.
    fn poll(&mut self, epoch: Epoch, now_ms: i64, budget_bytes: u64, others: EventTime) -> Result<Polled, Error>;

    /// How far each partition of this share was polled.
    fn positions(&self) -> Vec<PartitionPosition>;

    /// The places whose retries were polled since this was asked last, for the open epoch's commit.
    fn take_retried(&mut self) -> Vec<Place> {
        Vec::new()
    }

    /// What was polled of each partition since this was last asked, for lineage; a source that has no log has none.
    fn take_consumed(&mut self) -> Vec<Consumed> {
        Vec::new()
    }

    /// Whether everything up to the ends that were recorded at the start of `--until-end` is polled. Always false
    /// without it.
    fn at_end(&self) -> bool;

    /// The partitions, for people.
    fn status(&self) -> Vec<PartitionStatus>;
}

/// What a source does beside reading, on a thread of its own that may wait for the network.
pub trait Attend: Send {
    /// Tells others how far its partitions are committed. Best effort: nothing reads it back. It stops waiting for an
    /// answer when `leave` says so.
    fn tell(&mut self, committed: Vec<PartitionPosition>, leave: &Leave);

    /// Looks at the log, and returns what people should know of it.
    ///
    /// # Errors
    /// When the log is no longer the one that is being read.
    fn look(&mut self) -> Result<Vec<String>, Error>;
}

/// The wish that attendants leave, and until when they may still finish something. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Leave(Arc<OnceLock<Instant>>);

impl Leave {
    /// Asks to leave by `deadline`. The first call counts.
    pub fn by(&self, deadline: Instant) {
        // A later deadline would let somebody stay longer than was promised.
        let _ = self.0.set(deadline);
    }

    /// Whether somebody asked to leave.
    pub fn is_wanted(&self) -> bool {
        self.0.get().is_some()
    }

    /// Whether the time to leave has come.
    pub fn is_due(&self) -> bool {
        self.0.get().is_some_and(|deadline| *deadline <= Instant::now())
    }
}
