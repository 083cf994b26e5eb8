//! Shares: what the workers of a source tell each other out of band, and what people ask of them.
//!
//! A capability never moves backwards, so a worker whose partitions are all idle can't let go of the watermark and
//! come back. It follows the others instead; here it learns where they are.
//!
//! Not here: when a partition is idle (the source judges that), and the watermark of the dataflow itself, which is
//! timely's frontier.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use weir_schemas::time::EventTime;

use crate::source::PartitionStatus;
use crate::status::rests;

/// How far one worker's share of a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// It reads, and its watermark is this.
    Reading(EventTime),
    /// All its partitions are idle, and it has followed or gone on to this.
    Idle(EventTime),
    /// It is at the end that `--until-end` recorded, and its watermark is this.
    AtEnd(EventTime),
    /// All shares are at their ends, and its watermark has gone to the end of time.
    Ended,
}

/// What an idle share follows: the least watermark of the others that read; [`EventTime::MAX`] when none does, and the
/// share then goes on by the clock.
pub fn followed(shares: &[Share], me: usize) -> EventTime {
    let others = shares.iter().enumerate().filter(|(worker, _)| *worker != me);
    let reading = others.filter_map(|(_, share)| match share {
        Share::Reading(watermark) => Some(*watermark),
        Share::Idle(_) | Share::AtEnd(_) | Share::Ended => None,
    });
    reading.min().unwrap_or(EventTime::MAX)
}

/// The shares of one source.
#[derive(Debug)]
pub struct Shares(Mutex<State>);

#[derive(Debug)]
struct State {
    shares: Vec<Share>,
    partitions: Vec<Vec<PartitionStatus>>,
    notes: Vec<String>,
}

impl Shares {
    /// The shares of `workers` workers, of which nothing is known.
    pub fn of(workers: usize) -> Shares {
        Shares(Mutex::new(State {
            shares: vec![Share::Reading(EventTime::MIN); workers],
            partitions: vec![Vec::new(); workers],
            notes: Vec::new(),
        }))
    }

    /// Tells how far `worker` is, and returns what it follows if it is idle.
    pub fn tell(&self, worker: usize, share: Share) -> EventTime {
        let mut state = self.state();
        if let Some(told) = state.shares.get_mut(worker) {
            *told = share;
        }
        followed(&state.shares, worker)
    }

    /// Tells where the partitions of `worker` are, for people.
    pub fn tell_partitions(&self, worker: usize, partitions: Vec<PartitionStatus>) {
        if let Some(told) = self.state().partitions.get_mut(worker) {
            *told = partitions;
        }
    }

    /// Tells what people should know of the source, instead of what was told before.
    pub fn tell_notes(&self, notes: Vec<String>) {
        self.state().notes = notes;
    }

    /// What people should know of the source.
    pub fn notes(&self) -> Vec<String> {
        self.state().notes.clone()
    }

    /// Whether every share is at its end.
    pub fn are_at_end(&self) -> bool {
        self.state().shares.iter().all(|share| matches!(share, Share::AtEnd(_) | Share::Ended))
    }

    /// Whether every share has closed everything.
    pub fn are_ended(&self) -> bool {
        self.state().shares.iter().all(|share| *share == Share::Ended)
    }

    /// The least watermark of all shares; `None` while one has none yet, `MAX` when all are ended.
    pub fn watermark(&self) -> Option<EventTime> {
        let state = self.state();
        let least = state.shares.iter().map(|share| match share {
            Share::Reading(watermark) | Share::Idle(watermark) | Share::AtEnd(watermark) => *watermark,
            Share::Ended => EventTime::MAX,
        });
        least.min().filter(|least| *least > EventTime::MIN)
    }

    /// The partitions with the worker that reads them.
    pub fn partitions(&self) -> Vec<(usize, PartitionStatus)> {
        let state = self.state();
        let each = state.partitions.iter().enumerate();
        each.flat_map(|(worker, of)| of.iter().map(move |partition| (worker, partition.clone()))).collect()
    }

    /// The partitions that hold nothing back.
    pub fn resting(&self) -> BTreeSet<(String, i32)> {
        let state = self.state();
        let resting = state.partitions.iter().flatten().filter(|of| rests(&of.state));
        resting.map(|of| (of.topic.clone(), of.partition)).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: EventTime = EventTime(100);
    const B: EventTime = EventTime(200);

    #[test]
    fn an_idle_share_follows_the_slowest_reader_and_not_the_idle_ones() {
        let shares = [Share::Idle(EventTime(7)), Share::Reading(B), Share::Idle(A), Share::Reading(EventTime(300))];
        assert_eq!(followed(&shares, 0), B);
    }

    #[test]
    fn when_nobody_reads_nobody_is_followed() {
        assert_eq!(followed(&[Share::Idle(EventTime(7)), Share::Idle(A), Share::Ended], 0), EventTime::MAX);
        assert_eq!(followed(&[Share::Idle(A)], 0), EventTime::MAX);
    }

    #[test]
    fn a_reader_that_knows_nothing_yet_holds_everybody() {
        let shares = Shares::of(2);
        assert_eq!(shares.tell(0, Share::Idle(EventTime::MIN)), EventTime::MIN);
        assert_eq!(shares.watermark(), None);
        shares.tell(1, Share::Reading(B));
        assert_eq!(shares.tell(0, Share::Idle(A)), B);
        assert_eq!(shares.watermark(), Some(A));
    }
}
