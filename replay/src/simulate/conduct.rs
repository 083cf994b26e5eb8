//! Conducting: an engine on invented time, one decision after the other.
//!
//! The clock stands still until everybody has done all that there is to do at that time. *Settled* is when every worker
//! has looked at its sources without anything coming of it for anybody; where there are several workers twice in a row,
//! since what one tells the others is heard in the round after. Then an epoch may be ended, and is waited for until it
//! is committed. So the same scenario is cut into the same epochs, however fast the machine is and however many workers
//! there are.
//!
//! A worker that has nothing to do is held within its look at a source, until it is asked for something: it burns no
//! CPU that others need. It is never held while an epoch is under way, in which others may send it something.
//!
//! What happens (the clock goes on, records are sent) happens as a whole: while no worker looks at a source. So none reads
//! half of what is sent at once, nor any of it by the time before.
//!
//! Invariant: whoever waits here waits for real work of threads, never for time; and ends when the engine has ended.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use weir_pipeline::engine::Conductor;
use weir_pipeline::epochs::Epochs;
use weir_pipeline::error::Error;
use weir_pipeline::lineage::Consumed;
use weir_pipeline::source::{PartitionPosition, PartitionStatus, Polled, Source};
use weir_schemas::place::Place;
use weir_schemas::registry::SchemaCache;
use weir_schemas::time::{Epoch, EventTime};

/// How long one wait lasts before it is looked whether the engine still runs.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The engine has ended while it was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended;

/// One run of an engine. Clones conduct the same one.
#[derive(Clone)]
pub struct Conduct(Arc<Shared>);

struct Shared {
    clock: Arc<AtomicI64>,
    schemas: SchemaCache,
    seats_expected: usize,
    /// Rounds without any news after which nothing more will come.
    quiet_rounds: u32,
    /// Workers look at their sources with it, something happens without them. Taken before `rounds`.
    looking: RwLock<()>,
    rounds: Mutex<Rounds>,
    /// Told when a share was looked at.
    turned: Condvar,
    /// Told when workers are asked for something.
    asked: Condvar,
    epochs: OnceLock<Arc<Epochs>>,
    /// The epoch that is to end.
    due: AtomicU64,
    is_at_end: AtomicBool,
    is_killed: AtomicBool,
    has_ended: AtomicBool,
}

/// What the workers' shares have done at this time.
#[derive(Default)]
struct Rounds {
    /// Whether somebody waits for rounds.
    are_wanted: bool,
    /// Whether each share was polled in this round.
    polled: Vec<bool>,
    /// Whether anything came in this round.
    has_moved: bool,
    /// Rounds in a row in which nothing came.
    quiet: u32,
    /// Rounds in all.
    completed: u32,
    /// Whether anything came in any of them.
    has_ever_moved: bool,
}

impl Conduct {
    /// Conducts an engine of so many sources and workers, which looks at `clock`, in milliseconds.
    pub fn new(clock: Arc<AtomicI64>, schemas: SchemaCache, sources: usize, workers: usize) -> Conduct {
        Conduct(Arc::new(Shared {
            clock,
            schemas,
            seats_expected: sources * workers,
            quiet_rounds: if workers > 1 { 2 } else { 1 },
            asked: Condvar::new(),
            looking: RwLock::default(),
            rounds: Mutex::default(),
            turned: Condvar::new(),
            epochs: OnceLock::new(),
            due: AtomicU64::new(0),
            is_at_end: AtomicBool::new(false),
            is_killed: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
        }))
    }

    /// Tells that the engine has ended; whoever waits goes on.
    pub fn note_end(&self) {
        self.0.has_ended.store(true, Ordering::Release);
        self.0.turned.notify_all();
        self.ring();
    }

    /// Lets the clock stand at `now_ms`, and something happen at that time, between two looks of all workers.
    pub fn set_clock(&self, now_ms: i64, happens: impl FnOnce()) {
        let _nobody_looks = self.0.looking.write().unwrap_or_else(PoisonError::into_inner);
        self.0.clock.store(now_ms, Ordering::Release);
        happens();
    }

    /// Lets the clock stand at `now_ms` and waits until every share has been looked at once. Tells whether anything
    /// came.
    ///
    /// # Errors
    /// When the engine has ended.
    pub fn tick(&self, now_ms: i64) -> Result<bool, Ended> {
        self.set_clock(now_ms, || ());
        self.wait_for(|rounds| rounds.completed >= 1)
    }

    /// Waits until nothing more comes at this time. Tells whether anything came.
    ///
    /// # Errors
    /// When the engine has ended.
    pub fn settle(&self) -> Result<bool, Ended> {
        let quiet_rounds = self.0.quiet_rounds;
        let mut has_moved = false;
        loop {
            // An answer that came while a round was under way is heard in the next.
            let was_asking = self.0.schemas.is_asking();
            has_moved |= self.wait_for(|rounds| rounds.quiet >= quiet_rounds)?;
            if !was_asking && !self.0.schemas.is_asking() {
                return Ok(has_moved);
            }
        }
    }

    /// Ends the open epoch and waits until it is committed, or until `is_stuck` says that it can't be for now; it is when what
    /// it waits for is over.
    ///
    /// # Errors
    /// When the engine has ended.
    pub fn end_epoch(&self, is_stuck: impl Fn() -> bool) -> Result<(), Ended> {
        let epochs = self.0.epochs.get().ok_or(Ended)?;
        let open = epochs.open();
        self.0.due.store(open.0, Ordering::Release);
        self.ring();
        loop {
            let rings = epochs.rings();
            if epochs.committed() >= open || is_stuck() {
                return Ok(());
            }
            if self.0.has_ended.load(Ordering::Acquire) {
                return Err(Ended);
            }
            epochs.wait(rings, LOOK_EVERY);
        }
    }

    /// Says that the log has ended: the engine closes every window and ends.
    pub fn finish(&self) {
        self.0.is_at_end.store(true, Ordering::Release);
        self.ring();
    }

    /// Ends the engine at its next look at a source, with the open epoch lost: as a kill would.
    pub fn kill(&self) {
        self.0.is_killed.store(true, Ordering::Release);
        self.ring();
    }

    /// Waits for a moment of real time.
    ///
    /// # Errors
    /// When the engine has ended.
    pub fn pause(&self, time: Duration) -> Result<(), Ended> {
        std::thread::sleep(time);
        if self.0.has_ended.load(Ordering::Acquire) { Err(Ended) } else { Ok(()) }
    }

    /// Wakes the engine's own thread, and the workers.
    pub fn ring(&self) {
        // With the lock, so that a worker that is about to wait hears it.
        drop(self.0.lock());
        self.0.asked.notify_all();
        if let Some(epochs) = self.0.epochs.get() {
            epochs.ring();
        }
    }

    /// Forgets the rounds so far and waits for new ones; tells whether anything came in them.
    fn wait_for(&self, is_done: impl Fn(&Rounds) -> bool) -> Result<bool, Ended> {
        // A look that is under way says nothing of what happened before it was waited for.
        let nobody_looks = self.0.looking.write().unwrap_or_else(PoisonError::into_inner);
        let mut rounds = self.0.lock();
        rounds.begin();
        drop(nobody_looks);
        self.0.asked.notify_all();
        loop {
            if self.0.has_ended.load(Ordering::Acquire) {
                return Err(Ended);
            }
            if rounds.polled.len() >= self.0.seats_expected && is_done(&rounds) {
                rounds.are_wanted = false;
                return Ok(rounds.has_ever_moved);
            }
            rounds = self.0.turned.wait_timeout(rounds, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    /// Whether a worker has nothing to do: nobody waits for it, and no epoch is under way.
    fn may_rest(&self, rounds: &Rounds) -> bool {
        let Some(epochs) = self.epochs.get() else { return false };
        let open = epochs.open();
        let flags = [&self.is_at_end, &self.is_killed];
        let is_asked = rounds.are_wanted || flags.iter().any(|flag| flag.load(Ordering::Acquire)) || epochs.is_halted();
        !is_asked && self.due.load(Ordering::Acquire) < open.0 && epochs.passed().next() >= open && !epochs.is_closed()
    }

    /// Holds a worker that has nothing to do, until it has or for a moment.
    fn rest(&self) {
        let rounds = self.lock();
        if self.may_rest(&rounds) {
            drop(self.asked.wait_timeout(rounds, LOOK_EVERY));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rounds> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rounds {
    fn begin(&mut self) {
        *self = Rounds { are_wanted: true, polled: vec![false; self.polled.len()], ..Rounds::default() };
    }

    /// Notes that a share was looked at.
    fn take(&mut self, seat: usize, has_moved: bool) {
        self.has_moved |= has_moved;
        if let Some(polled) = self.polled.get_mut(seat) {
            *polled = true;
        }
        if self.polled.iter().all(|polled| *polled) {
            self.completed += 1;
            self.quiet = if self.has_moved { 0 } else { self.quiet + 1 };
            self.has_ever_moved |= self.has_moved;
            self.has_moved = false;
            self.polled.iter_mut().for_each(|polled| *polled = false);
        }
    }
}

impl Conductor for Conduct {
    fn begin(&self, epochs: Arc<Epochs>) {
        // A run has one set of epochs, and a conductor one run.
        let _ = self.0.epochs.set(epochs);
    }

    fn is_due(&self, open: Epoch) -> bool {
        self.0.due.load(Ordering::Acquire) >= open.0
    }

    fn accompany(&self, source: Box<dyn Source>) -> Box<dyn Source> {
        let mut rounds = self.0.lock();
        rounds.polled.push(false);
        let seat = rounds.polled.len() - 1;
        drop(rounds);
        Box::new(Accompanied { source, shared: self.0.clone(), seat, told: None })
    }

    fn idle_pause(&self) -> Duration {
        // It is held within its look at a source instead.
        Duration::ZERO
    }
}

/// A worker's share, of which it is noted when it was looked at and whether anything came.
struct Accompanied {
    source: Box<dyn Source>,
    shared: Arc<Shared>,
    seat: usize,
    /// The watermark and the idleness that it told last.
    told: Option<(EventTime, bool)>,
}

impl Source for Accompanied {
    fn poll(&mut self, epoch: Epoch, _: i64, budget_bytes: u64, others: EventTime) -> Result<Polled, Error> {
        self.shared.rest();
        let looking = self.shared.looking.read().unwrap_or_else(PoisonError::into_inner);
        // The clock may have been set meanwhile.
        let now_ms = self.shared.clock.load(Ordering::Acquire);
        if self.shared.is_killed.load(Ordering::Acquire) {
            return Err(Error::Stopped("the scenario kills the program here".to_owned()));
        }
        let polled = self.source.poll(epoch, now_ms, budget_bytes, others)?;
        let told = Some((polled.watermark, polled.idle));
        let has_moved = polled.bytes > 0 || !polled.judgements.is_empty() || self.told != told;
        self.told = told;
        self.shared.lock().take(self.seat, has_moved);
        drop(looking);
        self.shared.turned.notify_all();
        Ok(polled)
    }

    fn positions(&self) -> Vec<PartitionPosition> {
        self.source.positions()
    }

    fn take_retried(&mut self) -> Vec<Place> {
        self.source.take_retried()
    }

    fn take_consumed(&mut self) -> Vec<Consumed> {
        self.source.take_consumed()
    }

    fn at_end(&self) -> bool {
        self.shared.is_at_end.load(Ordering::Acquire)
    }

    fn status(&self) -> Vec<PartitionStatus> {
        self.source.status()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::simulate::Shelf;

    /// A source that looks twice at what was sent, and at the clock.
    struct Looks {
        sent: Arc<AtomicUsize>,
        wrong: Arc<AtomicUsize>,
    }

    impl Source for Looks {
        fn poll(&mut self, _: Epoch, now_ms: i64, _: u64, _: EventTime) -> Result<Polled, Error> {
            for _ in 0..2 {
                let sent = self.sent.load(Ordering::SeqCst);
                if i64::try_from(sent) != Ok(now_ms * 10) {
                    self.wrong.fetch_add(1, Ordering::SeqCst);
                }
                std::thread::yield_now();
            }
            Ok(Polled::nothing(EventTime::MIN, true))
        }

        fn positions(&self) -> Vec<PartitionPosition> {
            Vec::new()
        }

        fn at_end(&self) -> bool {
            false
        }

        fn status(&self) -> Vec<PartitionStatus> {
            Vec::new()
        }
    }

    #[test]
    fn what_is_sent_at_once_is_read_at_once_and_by_its_own_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let shelf = Shelf::new(&BTreeMap::new()).unwrap_or_else(|(_, why)| panic!("{why}"));
        let schemas = SchemaCache::new(shelf, runtime.handle().clone());
        let conduct = Conduct::new(Arc::default(), schemas, 1, 2);
        let (sent, wrong, is_over) = (Arc::default(), Arc::new(AtomicUsize::new(0)), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let looks = Looks { sent: Arc::clone(&sent), wrong: wrong.clone() };
                let (conduct, is_over) = (&conduct, &is_over);
                scope.spawn(move || {
                    let mut source = conduct.accompany(Box::new(looks));
                    while !is_over.load(Ordering::SeqCst) {
                        source.poll(Epoch(1), 0, 0, EventTime::MIN).unwrap();
                    }
                });
            }
            for now_ms in 1..=300 {
                conduct.set_clock(now_ms, || {
                    for _ in 0..10 {
                        sent.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                    }
                });
                conduct.settle().unwrap();
            }
            is_over.store(true, Ordering::SeqCst);
        });
        assert_eq!(wrong.load(Ordering::SeqCst), 0);
    }
}
