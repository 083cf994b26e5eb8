//! What a source asks of the log that it reads: a cluster's topics, or anything that holds records by place.
//!
//! [`Log`] answers what is asked once, at start; [`Fetch`] is one worker's reader, which is asked for a batch at a time
//! and never for a single record. Everything that follows (decoding, judging time, idleness, retries, the commit) is the
//! same whatever stands behind these traits.
//!
//! Invariants: offsets of a partition rise and are never given to another record; [`Fetch::fetch`] never waits; a
//! partition that isn't asked waits, and a reader holds no more of it than it was told to.

use std::sync::Arc;
use std::time::Instant;

use super::Attend;
use super::attend::{Admit, Forget, News};
use super::describe::Topic;
use super::message::{Message, Record};
use super::trouble::Trouble;
use crate::error::Error;

/// Records by topic, partition and offset.
pub trait Log: Send + Sync {
    /// The topics of these names, in that order; each has a partition.
    ///
    /// # Errors
    /// When it can't be asked, or one of them isn't there.
    fn topics(&self, names: &[String]) -> Result<Vec<Topic>, Error>;

    /// The first offset that a partition still has, and the one behind its last.
    ///
    /// # Errors
    /// When it can't be asked.
    fn extent(&self, topic: &str, partition: i32) -> Result<(i64, i64), Error>;

    /// The first offset whose record's Kafka timestamp is `at_ms` or later; `None` where no record is as young.
    ///
    /// # Errors
    /// When it can't be asked.
    fn offset_at(&self, topic: &str, partition: i32, at_ms: i64) -> Result<Option<i64>, Error>;

    /// The parts of `first` to before `next` that lie within the extent and of which not all records are there any more; of
    /// a topic there are none.
    ///
    /// # Errors
    /// When it can't be asked.
    fn missing(&self, _topic: &str, _partition: i32, _first: i64, _next: i64) -> Result<Vec<(i64, i64)>, Error> {
        Ok(Vec::new())
    }

    /// A reader of `assigned`, for the source of this name. It holds at most about `queue_bytes` of each of them that
    /// nobody has asked for yet.
    ///
    /// # Errors
    /// When one of them can't be read.
    fn read(&self, source: &str, assigned: &[Assigned], queue_bytes: u64) -> Result<Box<dyn Fetch>, Error>;

    /// A reader of single records by place; made before any is needed, and perhaps never asked.
    fn lookups(&self) -> Box<dyn LookUp>;

    /// What is done beside reading the topics of a source; `None` where there is nothing to do.
    ///
    /// # Errors
    /// When it can't be begun.
    fn attend(&self, asked: Attending) -> Result<Option<Box<dyn Attend>>, Error>;
}

/// What a source wants to be done beside reading.
pub struct Attending {
    /// The source's name.
    pub source: String,
    /// Its topics, as they were described when it was opened.
    pub topics: Vec<Topic>,
    /// What else people should be told whenever the log is looked at.
    pub news: News,
    /// Lets go of what is kept for records that the log has forgotten.
    pub forget: Forget,
    /// Takes partitions that are new; absent, they wait for a restart.
    pub admit: Option<Admit>,
}

/// One worker's reader of some partitions, known by their index in what was assigned.
pub trait Fetch {
    /// Takes what is ready of partition `index`, without waiting.
    fn fetch(&mut self, index: usize) -> Fetched;

    /// The end of a partition's log as far as it is known, without asking for it.
    fn end_offset(&self, topic: &str, partition: i32) -> Option<i64>;

    /// Reads one more partition from now on, by the next index. A log whose partitions stay as they are is never asked.
    ///
    /// # Errors
    /// When it can't be read.
    fn join(&mut self, assigned: &Assigned) -> Result<(), Error> {
        let Assigned { topic, partition, .. } = assigned;
        Err(Error::Stopped(format!("{topic}/{partition} is new in a log that gets no partitions: this is a bug")))
    }

    /// Does what the reader has to do now and then. The newest error, if there was one; the reader gets over it by itself.
    fn serve(&mut self) -> Option<String>;
}

/// Reads single records by place, on a thread that may wait.
pub trait LookUp: Send {
    /// Up to `count` records from an offset on, fewer where the log ends; none when they could not be read by `until`.
    /// An offset that the log no longer holds gives no record.
    fn look_up(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        count: usize,
        until: Instant,
    ) -> Option<Vec<Arc<Record>>>;
}

/// Where a partition is read from.
#[derive(Clone, Debug)]
pub struct Assigned {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset to read.
    pub offset: i64,
}

/// What one look at a partition brought.
#[derive(Default)]
pub struct Fetched {
    /// The messages, in the order of their offsets.
    pub messages: Vec<Message>,
    /// The end of the log, where it was reached behind these messages.
    pub end_offset: Option<i64>,
    /// Whether who keeps the partition doesn't answer, so that nothing is known of its end.
    pub is_silent: bool,
    /// An error of this partition, behind the messages.
    pub trouble: Option<Trouble>,
}
