//! Epochs: when the next one opens, and what every thread may know of them.
//!
//! [`Clock`] decides, and does nothing else: it is told facts and answers with a decision, so that its cases are plain
//! tests. [`Epochs`] is what the threads share: the open and the committed epoch, how far each worker has passed, how
//! many bytes are in flight.
//!
//! Invariants:
//! - Epoch e+1 opens only when e-1 is committed, so at most two epochs are uncommitted.
//! - Ending an epoch costs no budget: a paused worker ends it like any other, so no bound can keep an epoch open for
//!   ever except a full outbox, which delivery empties.
//! - `committed` only rises, and only after the commit is on disk.
//!
//! Not here: the timer that ticks (`engine`), what a commit writes (`commit`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use weir_schemas::time::Epoch;

/// What the clock is told.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The newest committed epoch.
    pub committed: Epoch,
    /// The open epoch has lasted as long as an epoch shall.
    pub is_due: bool,
    /// Committed rows that wait for delivery take as much as they may.
    pub is_outbox_full: bool,
    /// Every source of every worker is at the end that `--until-end` recorded, and its watermark has gone to the end of
    /// time within the open epoch or before.
    pub are_sources_ended: bool,
    /// The newest committed epoch left some of what was due in it to the next: windows close in slices.
    pub is_behind: bool,
    /// Somebody asked to stop.
    pub is_stopping: bool,
}

/// What the clock decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// This epoch opens now; the one before it ends.
    Open(Epoch),
    /// The epoch before this one is the last: it ends, and nothing is read into this one.
    Close(Epoch),
    /// Nothing changes, for this reason.
    Wait(Why),
    /// The last epoch is committed.
    Finished,
}

/// Why no epoch opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The open epoch is still young.
    NotDue,
    /// The epoch before the open one isn't committed yet.
    Commit,
    /// The destinations are behind.
    Outbox,
}

/// Decides when epochs open.
#[derive(Debug)]
pub struct Clock {
    open: Epoch,
    last: Option<Epoch>,
}

impl Clock {
    /// A clock after a start from `committed`: the epoch after it is open.
    pub fn after(committed: Epoch) -> Clock {
        Clock { open: committed.next(), last: None }
    }

    /// The open epoch.
    pub fn open(&self) -> Epoch {
        self.open
    }

    /// Decides on `facts`. A decision other than `Wait` and `Finished` has to be carried out.
    pub fn decide(&mut self, facts: Facts) -> Decision {
        if let Some(last) = self.last {
            if facts.committed < last {
                return Decision::Wait(Why::Commit);
            }
            // A run to the end closes everything first, an epoch at a time; one that is stopped goes on when it is started.
            if !facts.is_behind || facts.is_stopping {
                return Decision::Finished;
            }
            if facts.is_outbox_full {
                return Decision::Wait(Why::Outbox);
            }
            self.last = Some(self.open);
            self.open = self.open.next();
            return Decision::Close(self.open);
        }
        if facts.committed.next() < self.open {
            return Decision::Wait(Why::Commit);
        }
        // A last epoch ends even into a full outbox: what it read is in memory already, and one epoch's rows more on disk
        // are cheaper than reading it again.
        if facts.is_stopping || facts.are_sources_ended {
            self.last = Some(self.open);
            self.open = self.open.next();
            return Decision::Close(self.open);
        }
        if !facts.is_due {
            return Decision::Wait(Why::NotDue);
        }
        if facts.is_outbox_full {
            return Decision::Wait(Why::Outbox);
        }
        self.open = self.open.next();
        Decision::Open(self.open)
    }
}

/// What the clock, the workers, the committer and the deliveries know of each other.
#[derive(Debug)]
pub struct Epochs {
    open: AtomicU64,
    committed: AtomicU64,
    /// Nothing is read any more.
    closed: AtomicBool,
    /// The newest committed epoch left some of its work to the next.
    behind: AtomicBool,
    /// Workers leave their loop.
    halted: AtomicBool,
    workers: Vec<WorkerProgress>,
    bell: Bell,
}

#[derive(Debug, Default)]
struct WorkerProgress {
    /// Every epoch up to this one is complete in this worker's share of the dataflow.
    passed: AtomicU64,
    in_flight_bytes: AtomicU64,
}

impl Epochs {
    /// The shared state of `workers` workers that resume after `committed`.
    pub fn after(committed: Epoch, workers: usize) -> Epochs {
        Epochs {
            open: AtomicU64::new(committed.next().0),
            committed: AtomicU64::new(committed.0),
            closed: AtomicBool::new(false),
            behind: AtomicBool::new(false),
            halted: AtomicBool::new(false),
            workers: (0..workers)
                .map(|_| WorkerProgress { passed: AtomicU64::new(committed.0), in_flight_bytes: AtomicU64::new(0) })
                .collect(),
            bell: Bell::default(),
        }
    }

    /// The open epoch.
    pub fn open(&self) -> Epoch {
        Epoch(self.open.load(Ordering::Acquire))
    }

    /// The newest committed epoch.
    pub fn committed(&self) -> Epoch {
        Epoch(self.committed.load(Ordering::Acquire))
    }

    /// Whether nothing is read any more.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether workers have to leave, be it at the end or after a failure.
    pub fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Acquire)
    }

    /// Opens `epoch`; with `is_last`, nothing is read into it.
    pub fn open_epoch(&self, epoch: Epoch, is_last: bool) {
        // Closed first: whoever sees the new epoch must not read into it.
        if is_last {
            self.closed.store(true, Ordering::Release);
        }
        self.open.store(epoch.0, Ordering::Release);
    }

    /// Tells that `epoch` is on disk, and returns its bytes of `released`, one count per worker, to the budgets.
    pub fn commit(&self, epoch: Epoch, released: &[u64]) {
        for (worker, bytes) in self.workers.iter().zip(released) {
            worker.in_flight_bytes.fetch_sub(*bytes, Ordering::AcqRel);
        }
        self.committed.store(epoch.0, Ordering::Release);
        self.bell.ring();
    }

    /// Whether the newest committed epoch left some of its work to the next.
    pub fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Acquire)
    }

    /// Tells whether the epoch that is committed next leaves some of its work; to be told before its commit is.
    pub fn tell_behind(&self, is_behind: bool) {
        self.behind.store(is_behind, Ordering::Release);
    }

    /// Sends the workers home.
    pub fn halt(&self) {
        self.halted.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// Tells that `worker` has passed every epoch up to `epoch`.
    pub fn pass(&self, worker: usize, epoch: Epoch) {
        if let Some(progress) = self.workers.get(worker)
            && progress.passed.fetch_max(epoch.0, Ordering::AcqRel) < epoch.0
        {
            self.bell.ring();
        }
    }

    /// The newest epoch that every worker has passed.
    pub fn passed(&self) -> Epoch {
        let least = self.workers.iter().map(|worker| worker.passed.load(Ordering::Acquire)).min();
        Epoch(least.unwrap_or_default())
    }

    /// Counts `bytes` that `worker` fetched.
    pub fn fetched(&self, worker: usize, bytes: u64) {
        if let Some(progress) = self.workers.get(worker) {
            progress.in_flight_bytes.fetch_add(bytes, Ordering::AcqRel);
        }
    }

    /// Bytes that `worker` fetched and that are not committed yet.
    pub fn in_flight_bytes_of(&self, worker: usize) -> u64 {
        self.workers.get(worker).map_or(0, |progress| progress.in_flight_bytes.load(Ordering::Acquire))
    }

    /// Bytes that were fetched and are not committed yet.
    pub fn in_flight_bytes(&self) -> u64 {
        (0..self.workers.len()).map(|worker| self.in_flight_bytes_of(worker)).sum()
    }

    /// How often the bell rang: a worker passed an epoch, an epoch was committed, or the workers were sent home. To be
    /// taken before looking at any of those.
    pub fn rings(&self) -> u64 {
        self.bell.rings()
    }

    /// Waits until the bell has rung more often than `rings`, at most `at_most`.
    pub fn wait(&self, rings: u64, at_most: Duration) {
        self.bell.wait(rings, at_most);
    }

    /// Wakes whoever waits.
    pub fn ring(&self) {
        self.bell.ring();
    }
}

/// A bell that counts its rings, so that one between a look and a wait isn't missed.
#[derive(Debug, Default)]
struct Bell {
    rings: Mutex<u64>,
    rang: Condvar,
}

impl Bell {
    fn rings(&self) -> u64 {
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.rang.notify_all();
    }

    fn wait(&self, seen: u64, at_most: Duration) {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.rang.wait_timeout_while(rings, at_most, |rings| *rings == seen));
    }
}

/// How many bytes a worker may fetch with the next poll.
///
/// A nearly used-up budget is no budget: many tiny polls cost more than one wait. A worker with nothing in flight may
/// always fetch, so that a record larger than the whole bound goes alone.
pub fn poll_budget(limit_bytes: u64, in_flight_bytes: u64, at_most_bytes: u64) -> u64 {
    if in_flight_bytes == 0 {
        return limit_bytes.clamp(1, at_most_bytes.max(1));
    }
    let left = limit_bytes.saturating_sub(in_flight_bytes);
    if left < limit_bytes / 16 { 0 } else { left.min(at_most_bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(committed: u64) -> Facts {
        Facts {
            committed: Epoch(committed),
            is_due: true,
            is_outbox_full: false,
            are_sources_ended: false,
            is_behind: false,
            is_stopping: false,
        }
    }

    #[test]
    fn a_run_to_the_end_goes_on_until_everything_is_closed_and_a_stop_does_not_wait_for_it() {
        let mut clock = Clock::after(Epoch(0));
        let ended = |committed| Facts { are_sources_ended: true, is_behind: true, ..facts(committed) };
        assert_eq!(clock.decide(ended(0)), Decision::Close(Epoch(2)));
        assert_eq!(clock.decide(ended(0)), Decision::Wait(Why::Commit));
        assert_eq!(clock.decide(ended(1)), Decision::Close(Epoch(3)));
        assert_eq!(clock.decide(Facts { is_outbox_full: true, ..ended(2) }), Decision::Wait(Why::Outbox));
        assert_eq!(clock.decide(ended(2)), Decision::Close(Epoch(4)));
        let mut stopped = Clock { open: clock.open, last: clock.last };
        assert_eq!(stopped.decide(Facts { is_stopping: true, ..ended(3) }), Decision::Finished);
        assert_eq!(clock.decide(Facts { is_behind: false, ..ended(3) }), Decision::Finished);
    }

    #[test]
    fn an_epoch_opens_beside_one_that_is_being_committed_but_not_beside_two() {
        let mut clock = Clock::after(Epoch(0));
        assert_eq!(clock.decide(facts(0)), Decision::Open(Epoch(2)));
        assert_eq!(clock.decide(facts(0)), Decision::Wait(Why::Commit));
        assert_eq!(clock.decide(facts(1)), Decision::Open(Epoch(3)));
    }

    #[test]
    fn a_full_outbox_opens_nothing_but_lets_the_last_epoch_end() {
        let mut clock = Clock::after(Epoch(7));
        let full = Facts { is_outbox_full: true, ..facts(7) };
        assert_eq!(clock.decide(full), Decision::Wait(Why::Outbox));
        assert_eq!(clock.decide(Facts { is_stopping: true, ..full }), Decision::Close(Epoch(9)));
        assert_eq!(clock.decide(full), Decision::Wait(Why::Commit));
        assert_eq!(clock.decide(Facts { committed: Epoch(8), ..full }), Decision::Finished);
    }

    #[test]
    fn a_stop_does_not_wait_until_the_epoch_is_due_but_for_the_commit_before() {
        let mut clock = Clock::after(Epoch(0));
        assert_eq!(clock.decide(facts(0)), Decision::Open(Epoch(2)));
        let stop = Facts { is_due: false, is_stopping: true, ..facts(0) };
        assert_eq!(clock.decide(stop), Decision::Wait(Why::Commit));
        assert_eq!(clock.decide(Facts { committed: Epoch(1), ..stop }), Decision::Close(Epoch(3)));
        assert_eq!(clock.decide(Facts { committed: Epoch(2), ..stop }), Decision::Finished);
    }

    /// Workers, committer, destination and clock take steps in a random order. Whatever the order, never more than two
    /// epochs are uncommitted, and once a stop is asked for the clock finishes with every epoch committed.
    #[test]
    fn any_interleaving_keeps_two_epochs_open_at_most_and_finishes() {
        for seed in 0..2_000u64 {
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut next = move |below: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % below
            };
            let workers = 1 + next(4) as usize;
            let epochs = Epochs::after(Epoch(3), workers);
            let mut clock = Clock::after(Epoch(3));
            let mut seen = vec![Epoch(4); workers];
            let (mut outbox, mut stopping) = (0u64, false);
            let mut finished = false;
            for step in 0..10_000 {
                stopping |= step > 500;
                match next(4) {
                    0 => {
                        let at = next(workers as u64) as usize;
                        let open = epochs.open();
                        assert!(open.0 <= epochs.committed().0 + 2, "seed {seed}: e+2 opened before e was committed");
                        if open > seen[at] {
                            epochs.pass(at, Epoch(open.0 - 1));
                            seen[at] = open;
                        }
                    }
                    1 if epochs.passed() > epochs.committed() => {
                        outbox += 1;
                        epochs.commit(epochs.committed().next(), &[]);
                    }
                    2 => outbox = outbox.saturating_sub(1),
                    _ => {
                        let facts = Facts {
                            committed: epochs.committed(),
                            is_due: next(2) == 0,
                            is_outbox_full: outbox > 2,
                            are_sources_ended: false,
                            is_behind: false,
                            is_stopping: stopping,
                        };
                        match clock.decide(facts) {
                            Decision::Open(epoch) => epochs.open_epoch(epoch, false),
                            Decision::Close(epoch) => epochs.open_epoch(epoch, true),
                            Decision::Wait(_) => {}
                            Decision::Finished => {
                                finished = true;
                                break;
                            }
                        }
                    }
                }
            }
            assert!(finished, "seed {seed}: never finished");
            assert_eq!(epochs.committed().next(), epochs.open(), "seed {seed}");
        }
    }

    #[test]
    fn one_record_larger_than_the_bound_goes_alone() {
        assert_eq!(poll_budget(100, 0, 1 << 20), 100);
        assert_eq!(poll_budget(100, 500, 1 << 20), 0);
        assert_eq!(poll_budget(0, 0, 1 << 20), 1);
        assert_eq!(poll_budget(1 << 30, 1 << 20, 1 << 20), 1 << 20);
        assert_eq!(poll_budget(1600, 1550, 1 << 20), 0, "what is left is too little to poll for");
    }

    #[test]
    fn a_commit_returns_its_bytes_to_the_worker_that_fetched_them() {
        let epochs = Epochs::after(Epoch(0), 2);
        epochs.fetched(0, 10);
        epochs.fetched(1, 20);
        epochs.commit(Epoch(1), &[10, 5]);
        assert_eq!((epochs.in_flight_bytes_of(0), epochs.in_flight_bytes_of(1)), (0, 15));
    }
}
