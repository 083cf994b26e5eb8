//! Running a scenario: the whole engine, on invented parts and invented time.
//!
//! Time goes in ticks of the pipeline's `epoch_ms`, or of the scenario's `epoch`. What is sent within a tick is read when
//! the clock stands at the tick's end, in one epoch; within a long tick, in strides. Silence, too, is passed in strides,
//! which are short enough for nobody to take them for a stopped machine. A kill takes the open epoch's work with it; the state on disk, the log and the tables stay, and another
//! engine goes on from them.
//!
//! Not here: what a scenario's words mean (`scenario`, `events`) and whether what came is what was expected (`expect`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use weir_pipeline::bind::Bound;
use weir_pipeline::clock::Clock;
use weir_pipeline::config::Pipeline;
use weir_pipeline::custom::OperatorRegistry;
use weir_pipeline::engine::{Inputs, Reporter, Running};
use weir_pipeline::error::Error;
use weir_pipeline::readers::Readers;
use weir_pipeline::run::run_apart;
use weir_schemas::registry::SchemaCache;

use super::conduct::{Conduct, Ended};
use super::events::Sent;
use super::log::InventedLog;
use super::scenario::{End, RegistryState, Scenario};
use super::shelf::Shelf;
use super::tables::Tables;

/// How far the clock goes on at once while nothing is sent. A longer step would be taken for a machine that slept, and
/// start the waiting for idle partitions anew.
const STRIDE_MS: i64 = 2_000;

/// How often it is looked whether all rows have arrived.
const LOOK_EVERY: Duration = Duration::from_micros(100);

/// Something that happens at a time.
enum Happening {
    Sent(Sent),
    /// The program ends, and starts again.
    Ends {
        is_killed: bool,
        workers: Option<u16>,
    },
    Registry(RegistryState),
    /// The check of this number.
    Check(usize),
}

/// A scenario's parts.
pub(super) struct Stage<'a> {
    pub(super) file: &'a str,
    /// With a state folder of its own.
    pub(super) pipeline: Pipeline,
    pub(super) operators: &'a OperatorRegistry,
    pub(super) readers: &'a Readers,
    pub(super) bound: &'a Bound,
    pub(super) scenario: &'a Scenario,
    pub(super) shelf: Shelf,
    pub(super) log: InventedLog,
    pub(super) tables: Tables,
    pub(super) start_ms: i64,
    /// The length of an epoch in invented time.
    pub(super) epoch_ms: u64,
    pub(super) runtime: &'a tokio::runtime::Runtime,
}

/// How far a scenario is.
struct Course {
    happenings: Vec<(i64, Happening)>,
    next: usize,
    /// What the clock shows, in milliseconds since 1970.
    now_ms: i64,
    /// The end of the tick in which something was sent that isn't committed.
    pending_until_ms: Option<i64>,
    /// What was sent within it and isn't in the log yet.
    pending: VecDeque<Sent>,
}

/// Why an engine ended.
enum Ending {
    /// The scenario is over.
    Over,
    /// It starts again, with so many workers.
    Restart { workers: Option<u16>, is_killed: bool },
}

/// One run of the engine, as its driver sees it.
struct Life {
    conduct: Conduct,
    log: InventedLog,
    stop: Arc<AtomicBool>,
    reporter: Arc<OnceLock<Reporter>>,
}

impl Stage<'_> {
    /// Runs everything. `check` is called for each check with its number, when everything that was committed has
    /// arrived. Returns how much time was invented, in milliseconds.
    ///
    /// # Errors
    /// Whatever stops the engine.
    pub(super) fn run(mut self, sent: Vec<Sent>, mut check: impl FnMut(usize, &Tables)) -> Result<i64, Error> {
        let mut course = self.course(sent);
        let clock = Arc::new(AtomicI64::new(self.start_ms));
        loop {
            match self.live(&clock, &mut course, &mut check)? {
                Ending::Over => return Ok(course.now_ms - self.start_ms),
                Ending::Restart { workers, .. } => {
                    self.pipeline.workers = workers.map_or(self.pipeline.workers, usize::from);
                }
            }
        }
    }

    fn course(&self, sent: Vec<Sent>) -> Course {
        let at = |offset: i64| self.start_ms.saturating_add(offset);
        let mut happenings: Vec<(i64, Happening)> =
            sent.into_iter().map(|sent| (sent.at_ms, Happening::Sent(sent))).collect();
        for step in &self.scenario.steps {
            happenings.extend(step.registry.map(|state| (at(step.at.0), Happening::Registry(state))));
            if step.kill || step.workers.is_some() {
                let ends = Happening::Ends { is_killed: step.kill, workers: step.workers };
                happenings.push((at(step.at.0), ends));
            }
        }
        let checks = self.scenario.checks.iter().enumerate();
        happenings.extend(checks.map(|(number, check)| (at(check.at.0), Happening::Check(number))));
        // Of one time, in this order: what is sent, what is done, what is checked.
        happenings.sort_by_key(|(at_ms, _)| *at_ms);
        Course { happenings, next: 0, now_ms: self.start_ms, pending_until_ms: None, pending: VecDeque::new() }
    }

    /// One run of the engine.
    fn live(
        &self,
        clock: &Arc<AtomicI64>,
        course: &mut Course,
        check: &mut impl FnMut(usize, &Tables),
    ) -> Result<Ending, Error> {
        let schemas = SchemaCache::new(self.shelf.clone(), self.runtime.handle().clone());
        let (sources, workers) = (self.pipeline.sources.len(), self.pipeline.workers.max(1));
        let life = Life {
            conduct: Conduct::new(clock.clone(), schemas.clone(), sources, workers),
            log: self.log.clone(),
            stop: Arc::default(),
            reporter: Arc::default(),
        };
        let reporter = life.reporter.clone();
        let running = Running {
            until_end: true,
            inputs: Some(Inputs { log: Arc::new(self.log.clone()), schemas }),
            conductor: Some(Arc::new(life.conduct.clone())),
            watch: Some(Arc::new(move |told| drop(reporter.set(told)))),
            stop: life.stop.clone(),
            clock: Clock::Invented(clock.clone()),
            ..Running::default()
        };
        let (driven, ended) = std::thread::scope(|scope| {
            let engine = std::thread::Builder::new().name("engine".to_owned()).spawn_scoped(scope, || {
                let _end = NoteEnd(&life.conduct);
                let destinations = |layout: &_| self.tables.destinations(layout, self.bound);
                run_apart(self.file, &self.pipeline, self.readers, self.operators, destinations, &running)
            });
            let driven = if engine.is_ok() { self.drive(&life, course, check) } else { Err(Ended) };
            (driven, engine.map(|engine| engine.join()))
        });
        let ended = match ended {
            Ok(Ok(ended)) => ended,
            Ok(Err(_)) => return Err(Error::Worker { detail: "the engine's thread panicked".to_owned() }),
            Err(error) => return Err(Error::Worker { detail: format!("the engine's thread: {error}") }),
        };
        match (driven, ended) {
            // An engine that was killed ends with an error, and it is the one that was asked for.
            (Ok(ending @ Ending::Restart { is_killed: true, .. }), Err(Error::Stopped(_))) => Ok(ending),
            (_, Err(error)) => Err(error),
            (Ok(ending), Ok(_)) => Ok(ending),
            (Err(Ended), Ok(_)) => {
                Err(Error::Stopped("the engine ended before the scenario: this is a bug".to_owned()))
            }
        }
    }

    /// Lets things happen until the engine is to end.
    fn drive(&self, life: &Life, course: &mut Course, check: &mut impl FnMut(usize, &Tables)) -> Result<Ending, Ended> {
        while let Some((at_ms, happening)) = course.happenings.get(course.next) {
            let at_ms = *at_ms;
            match happening {
                Happening::Sent(sent) => {
                    let (sent, tick_ends_at) = (sent.clone(), self.tick_end(at_ms));
                    if course.pending_until_ms != Some(tick_ends_at) {
                        course.flush(life)?;
                        course.go_on(life, tick_ends_at - self.tick_ms())?;
                        course.pending_until_ms = Some(tick_ends_at);
                    }
                    course.pending.push_back(sent);
                }
                &Happening::Ends { is_killed, workers } => {
                    course.next += 1;
                    course.end(life, at_ms, is_killed)?;
                    return Ok(Ending::Restart { workers, is_killed });
                }
                &Happening::Registry(state) => {
                    course.pass(life, at_ms)?;
                    self.shelf.set_down(state == RegistryState::Down);
                }
                &Happening::Check(number) => {
                    course.pass(life, at_ms)?;
                    life.conduct.settle()?;
                    life.conduct.end_epoch()?;
                    life.wait_for_delivery()?;
                    check(number, &self.tables);
                }
            }
            course.next += 1;
        }
        course.flush(life)?;
        if let Some(ends_at) = self.scenario.ends_at {
            course.go_on(life, self.start_ms.saturating_add(ends_at.0))?;
        }
        while life.conduct.settle()? {
            life.conduct.end_epoch()?;
        }
        match self.scenario.end {
            End::Close => life.conduct.finish(),
            End::Stop => life.stop(),
        }
        Ok(Ending::Over)
    }

    fn tick_ms(&self) -> i64 {
        let of_file = i64::try_from(self.epoch_ms).unwrap_or(STRIDE_MS);
        self.scenario.epoch.map_or(of_file, |epoch| epoch.0).max(1)
    }

    /// The end of the tick in which a time lies.
    fn tick_end(&self, at_ms: i64) -> i64 {
        let since = at_ms.saturating_sub(self.start_ms).max(0);
        self.start_ms + (since.div_euclid(self.tick_ms()) + 1) * self.tick_ms()
    }
}

impl Course {
    /// Commits what was sent.
    fn flush(&mut self, life: &Life) -> Result<(), Ended> {
        let Some(until_ms) = self.pending_until_ms.take() else { return Ok(()) };
        self.send(life, until_ms)?;
        life.conduct.end_epoch()
    }

    /// Lets the clock go on to `to_ms` while that arrives which was sent meanwhile, and waits until it is read.
    fn send(&mut self, life: &Life, to_ms: i64) -> Result<(), Ended> {
        loop {
            self.now_ms = self.now_ms.saturating_add(STRIDE_MS).min(to_ms).max(self.now_ms);
            let is_last = self.now_ms >= to_ms;
            let is_due = |sent: &Sent| is_last || sent.at_ms <= self.now_ms;
            let due = self.pending.iter().take_while(|sent| is_due(sent)).count();
            let sent = self.pending.drain(..due);
            life.conduct.set_clock(self.now_ms, || {
                for Sent { topic, partition, record, .. } in sent {
                    life.log.append(&topic, usize::from(partition), record);
                }
            });
            life.conduct.settle()?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Commits what was sent, and lets the clock go on to `at_ms`.
    fn pass(&mut self, life: &Life, at_ms: i64) -> Result<(), Ended> {
        self.flush(life)?;
        self.go_on(life, at_ms)
    }

    /// Lets the clock go on to `to_ms` in silence; a clock that is beyond stays.
    fn go_on(&mut self, life: &Life, to_ms: i64) -> Result<(), Ended> {
        if to_ms <= self.now_ms {
            return Ok(());
        }
        let mut has_moved = false;
        while self.now_ms < to_ms {
            self.now_ms = self.now_ms.saturating_add(STRIDE_MS).min(to_ms);
            has_moved |= life.conduct.tick(self.now_ms)?;
        }
        // Windows that closed in the silence are written.
        if life.conduct.settle()? || has_moved {
            life.conduct.end_epoch()?;
        }
        Ok(())
    }

    /// Ends an engine. A kill loses what was sent within the tick, which has been read and is not committed.
    fn end(&mut self, life: &Life, at_ms: i64, is_killed: bool) -> Result<(), Ended> {
        let is_within = self.pending_until_ms.is_some_and(|until_ms| at_ms < until_ms);
        if !is_killed || !is_within {
            self.pass(life, at_ms)?;
        }
        if !is_killed {
            life.stop();
            return Ok(());
        }
        self.send(life, at_ms)?;
        // It is read again by the next one, in an epoch that has yet to be committed.
        life.conduct.kill();
        Ok(())
    }
}

impl Life {
    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.conduct.ring();
    }

    /// Waits until every destination has what was committed.
    fn wait_for_delivery(&self) -> Result<(), Ended> {
        let reporter = self.reporter.get().ok_or(Ended)?;
        loop {
            if reporter().destinations.iter().all(|destination| destination.waiting_rows == 0) {
                return Ok(());
            }
            // A pause, since delivery is what is waited for, and it has a thread of its own.
            self.conduct.pause(LOOK_EVERY)?;
        }
    }
}

/// Tells the driver that the engine has ended, however it did.
struct NoteEnd<'a>(&'a Conduct);

impl Drop for NoteEnd<'_> {
    fn drop(&mut self) {
        self.0.note_end();
    }
}
