//! Telling: one thread makes the events, and one per target hands them over.
//!
//! ```text
//! engine ── how it ended ──▶ maker ── try_send ──▶ bounded queue ──▶ target's thread ──▶ HTTP, topic, file
//! ```
//! What a queue has no room for is dropped at once, and counted; so is what a target doesn't take within its tries. Only
//! a START is kept until it is taken: the events behind it would be about a run that nobody knows.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use weir_sinks::notify::NotTaken;

use super::events::{Event, Run, Step};
use super::graph::Graph;
use super::targets::{Take, Target};
use crate::clock::Clock;
use crate::error::Error;
use crate::metrics::Metrics;

/// Events that wait for one target, at least; with more jobs than fit, a few steps of each.
const QUEUE_EVENTS: usize = 1_024;

/// Pauses before the second and the third try.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

/// The first and the longest time for which a target that didn't take an event is left alone.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Least time between two lines of the log about dropped events.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How long the end of a run waits for targets to take its last events.
const END_WITHIN: Duration = Duration::from_secs(3);

/// What is told, how often, and to whom.
pub struct Emission {
    /// The graph.
    pub graph: Graph,
    /// Time between two events of a job.
    pub every: Duration,
    /// The targets.
    pub targets: Vec<Target>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// At its end.
    Complete,
    /// Somebody stopped it.
    Stopped,
    /// It failed; what is told of it holds no detail, which might be a secret.
    Failed(&'static str),
}

impl Ended {
    /// How a run ended that was to run to the end, or not, and was stopped, or not.
    pub fn of<T>(result: &Result<T, Error>, until_end: bool, is_stopped: bool) -> Ended {
        match result {
            Err(error) => Ended::Failed(error.summary()),
            Ok(_) if until_end && !is_stopped => Ended::Complete,
            Ok(_) => Ended::Stopped,
        }
    }
}

/// The threads, until they are told how the run ended.
pub struct Emitter {
    ended: Sender<Ended>,
    /// Disconnected when every target has taken what it ever will.
    done: Receiver<()>,
}

impl Emission {
    /// Starts the threads, which tell of a run from now on. A system without threads for it costs the events only.
    pub fn start(self, metrics: &Arc<Metrics>, clock: Clock) -> Emitter {
        let ((ended, told), (keep, done)) = (channel(), channel());
        let room = QUEUE_EVENTS.max(self.graph.jobs.len().saturating_mul(4));
        let mut queues = Vec::new();
        for target in self.targets {
            let (queue, events) = sync_channel(room);
            let (name, counts) = (target.name, Counts::new(target.name, metrics));
            let handing = Handing::new(target.take, counts.clone());
            let keep = keep.clone();
            let started = std::thread::Builder::new().name(format!("lineage {name}")).spawn(move || {
                handing.run(&events);
                drop(keep);
            });
            match started {
                Ok(_) => queues.push((queue, counts)),
                Err(error) => tracing::warn!(receiver = name, %error, "no thread tells of lineage"),
            }
        }
        drop(keep);
        let run = Run::new(&self.graph);
        let maker = Maker { graph: self.graph, run, every: self.every, queues, metrics: Arc::clone(metrics), clock };
        if let Err(error) = std::thread::Builder::new().name("lineage".to_owned()).spawn(move || maker.run(&told)) {
            tracing::warn!(%error, "no thread tells of lineage");
        }
        Emitter { ended, done }
    }
}

impl Emitter {
    /// Tells how the run ended, and waits a bounded time until that is known.
    pub fn end(self, how: Ended) {
        // Nobody listens where no thread could be started.
        let _ = self.ended.send(how);
        if let Err(RecvTimeoutError::Timeout) = self.done.recv_timeout(END_WITHIN) {
            let within_ms = END_WITHIN.as_millis() as u64;
            tracing::warn!(within_ms, "the last events of lineage weren't taken in time, and are given up");
        }
    }
}

/// Makes the events.
struct Maker {
    graph: Graph,
    run: Run,
    every: Duration,
    queues: Vec<(SyncSender<Arc<Event>>, Counts)>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl Maker {
    fn run(self, ended: &Receiver<Ended>) {
        self.tell(Step::Start, None);
        loop {
            match ended.recv_timeout(self.every) {
                Err(RecvTimeoutError::Timeout) => self.tell(Step::Running, None),
                Ok(Ended::Complete) => return self.tell(Step::Complete, None),
                Ok(Ended::Stopped) => return self.tell(Step::Abort, None),
                Ok(Ended::Failed(why)) => return self.tell(Step::Fail, Some(why)),
                // The engine is gone without a word: it panicked.
                Err(RecvTimeoutError::Disconnected) => return self.tell(Step::Fail, Some("a bug stopped it")),
            }
        }
    }

    fn tell(&self, step: Step, failure: Option<&str>) {
        let written = |destination: &str| self.metrics.written(destination);
        for event in self.run.events(&self.graph, step, self.clock.now(), &written, failure) {
            let event = Arc::new(event);
            for (queue, counts) in &self.queues {
                if queue.try_send(Arc::clone(&event)).is_err() {
                    counts.dropped(1, "its queue is full");
                }
            }
        }
    }
}

/// Where it is counted what became of a target's events.
#[derive(Clone)]
struct Counts {
    target: &'static str,
    metrics: Arc<Metrics>,
    /// When the log was told of dropped events last, and how many it wasn't told of since.
    told: Arc<Mutex<(Option<Instant>, u64)>>,
}

impl Counts {
    fn new(target: &'static str, metrics: &Arc<Metrics>) -> Counts {
        Counts { target, metrics: Arc::clone(metrics), told: Arc::default() }
    }

    fn taken(&self) {
        self.metrics.lineage(self.target, "taken", 1);
    }

    fn dropped(&self, events: u64, why: &str) {
        self.metrics.lineage(self.target, "dropped", events);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.1 += events;
        if told.0.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            tracing::warn!(receiver = self.target, events = told.1, why, "events of lineage were dropped");
            *told = (Some(Instant::now()), 0);
        }
    }
}

/// Hands events over to one target.
struct Handing {
    take: Box<dyn Take>,
    counts: Counts,
    /// START events that weren't taken yet, one per job at most.
    owed: VecDeque<Arc<Event>>,
    /// The target is left alone until then.
    rests_until: Option<Instant>,
    rest: Duration,
}

impl Handing {
    fn new(take: Box<dyn Take>, counts: Counts) -> Handing {
        Handing { take, counts, owed: VecDeque::new(), rests_until: None, rest: REST.0 }
    }

    fn run(mut self, events: &Receiver<Arc<Event>>) {
        while let Ok(event) = events.recv() {
            self.hand(event);
        }
        self.hand_owed();
        if !self.owed.is_empty() {
            self.counts.dropped(self.owed.len() as u64, "the run is over");
        }
    }

    fn hand(&mut self, event: Arc<Event>) {
        // The last events of a run are tried whatever came before: there is no later.
        let is_last = !matches!(event.step, Step::Start | Step::Running);
        let rests = !is_last && self.rests_until.is_some_and(|until| Instant::now() < until);
        if rests || !self.hand_owed() {
            return self.keep_or_drop(event, "the target rests after a failure");
        }
        for pause in PAUSES.iter().map(Some).chain([None]) {
            match (self.take.take(&event), pause) {
                (Ok(()), _) => return self.was_taken(),
                (Err(NotTaken::Poisoned { why }), _) => return self.counts.dropped(1, &why),
                (Err(NotTaken::NotYet { .. }), Some(pause)) => std::thread::sleep(*pause),
                (Err(NotTaken::NotYet { why, .. }), None) => {
                    self.leave_alone();
                    return self.keep_or_drop(event, &why);
                }
            }
        }
    }

    /// Hands over what is owed, once each; whether nothing is owed any more.
    fn hand_owed(&mut self) -> bool {
        while let Some(event) = self.owed.front() {
            match self.take.take(event) {
                Ok(()) => self.was_taken(),
                Err(NotTaken::Poisoned { why }) => self.counts.dropped(1, &why),
                Err(NotTaken::NotYet { .. }) => {
                    self.leave_alone();
                    return false;
                }
            }
            self.owed.pop_front();
        }
        true
    }

    fn was_taken(&mut self) {
        self.counts.taken();
        (self.rests_until, self.rest) = (None, REST.0);
    }

    fn leave_alone(&mut self) {
        self.rests_until = Some(Instant::now() + self.rest);
        self.rest = (self.rest * 2).min(REST.1);
    }

    fn keep_or_drop(&mut self, event: Arc<Event>, why: &str) {
        if event.step == Step::Start {
            tracing::warn!(receiver = self.counts.target, job = event.job, why, "a start isn't told yet");
            self.owed.push_back(event);
        } else {
            self.counts.dropped(1, why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes events after having refused `refuses` tries, each after a pause.
    struct Invented {
        taken: Arc<Mutex<Vec<(String, Step)>>>,
        refuses: usize,
        pause: Duration,
    }

    impl Take for Invented {
        fn take(&mut self, event: &Event) -> Result<(), NotTaken> {
            std::thread::sleep(self.pause);
            if self.refuses > 0 {
                self.refuses -= 1;
                return Err(NotTaken::NotYet { why: "away".to_owned(), wait_ms: None });
            }
            self.taken.lock().unwrap().push((event.job.clone(), event.step));
            Ok(())
        }
    }

    fn graph() -> Graph {
        let (namespace, pipeline) = ("weir".to_owned(), "shop".to_owned());
        Graph { namespace, pipeline, every_s: 1, datasets: Vec::new(), jobs: Vec::new() }
    }

    fn run(
        refuses: usize,
        pause: Duration,
        every: Duration,
        lasts: Duration,
    ) -> (Vec<(String, Step)>, Duration, String) {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let take = Box::new(Invented { taken: Arc::clone(&taken), refuses, pause });
        let metrics = Arc::new(Metrics::default());
        let emission = Emission { graph: graph(), every, targets: vec![Target { name: "http", take }] };
        let emitter = emission.start(&metrics, Clock::System);
        std::thread::sleep(lasts);
        let ending = Instant::now();
        emitter.end(Ended::Stopped);
        let text = metrics.text(&Default::default()).unwrap();
        let taken = taken.lock().unwrap().clone();
        (taken, ending.elapsed(), text)
    }

    #[test]
    fn how_a_run_ended_is_told_without_what_a_part_said() {
        let failed: Result<(), Error> = Err(Error::Unreachable {
            part: "ClickHouse at http://me:s3cret@host".to_owned(),
            detail: "no".to_owned(),
            remedy: "start it".to_owned(),
        });
        assert_eq!(Ended::of(&failed, true, false), Ended::Failed("W002: a part outside Weir can't be used"));
        assert_eq!(Ended::of(&Ok(()), true, false), Ended::Complete);
        assert_eq!(Ended::of(&Ok(()), true, true), Ended::Stopped);
        assert_eq!(Ended::of(&Ok(()), false, true), Ended::Stopped);
    }

    #[test]
    fn a_run_is_told_from_its_start_to_its_end() {
        let (taken, _, text) = run(0, Duration::ZERO, Duration::from_millis(50), Duration::from_millis(300));
        let steps: Vec<Step> = taken.iter().map(|(_, step)| *step).collect();
        assert_eq!((steps.first(), steps.last()), (Some(&Step::Start), Some(&Step::Abort)), "{steps:?}");
        assert!(steps[1..steps.len() - 1].iter().all(|step| *step == Step::Running) && steps.len() > 3, "{steps:?}");
        let counted = format!("weir_lineage_events_total{{target=\"http\",outcome=\"taken\"}} {}", steps.len());
        assert!(text.contains(&counted), "{text}");
    }

    #[test]
    fn a_start_is_told_before_anything_else_however_late() {
        // Three tries, then the rest of a second, in which what goes on is dropped.
        let (taken, _, text) = run(3, Duration::ZERO, Duration::from_millis(100), Duration::from_millis(3_500));
        let steps: Vec<Step> = taken.iter().map(|(_, step)| *step).collect();
        assert_eq!((steps.first(), steps.last()), (Some(&Step::Start), Some(&Step::Abort)), "{steps:?}");
        assert!(text.contains("outcome=\"dropped\"} "), "{text}");
    }

    #[test]
    fn a_target_that_never_answers_holds_the_end_up_for_a_bounded_time() {
        let (taken, waited, _) =
            run(usize::MAX, Duration::from_secs(60), Duration::from_millis(1), Duration::from_millis(200));
        assert!(taken.is_empty());
        assert!(waited >= END_WITHIN && waited < END_WITHIN * 2, "{waited:?}");
    }

    #[test]
    fn what_a_full_queue_has_no_room_for_is_dropped_and_counted() {
        let every = Duration::from_micros(100);
        let (_, _, text) = run(usize::MAX, Duration::from_secs(60), every, Duration::from_millis(2_000));
        let counted = text.lines().find_map(|line| {
            line.strip_prefix("weir_lineage_events_total{target=\"http\",outcome=\"dropped\"} ")?.parse::<u64>().ok()
        });
        assert!(counted.is_some_and(|dropped| dropped > 100), "{text}");
    }
}
