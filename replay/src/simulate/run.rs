//! Running a scenario: the whole engine, on invented parts and invented time.
//!
//! Time goes in ticks of the pipeline's `epoch_ms`, or of the scenario's `epoch`. What is sent within a tick is read when
//! the clock stands at the tick's end, in one epoch; within a long tick, in strides. Silence, too, is passed in strides,
//! which are short enough for nobody to take them for a stopped machine. A kill takes the open epoch's work with it; the state on disk, the log and the tables stay, and another
//! engine goes on from them.
//!
//! Not here: what a scenario's words mean (`scenario`, `events`) and whether what came is what was expected (`expect`).

use std::collections::{BTreeMap, VecDeque};
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
use super::retries;
use super::scenario::{End, PartState, Retry, Scenario};
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
    Ends(Restart),
    Registry(PartState),
    Tables(PartState),
    Retry(Retry),
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
    /// What it starts again with, by step.
    pub(super) versions: &'a BTreeMap<usize, Version>,
    pub(super) scenario: &'a Scenario,
    pub(super) shelf: Shelf,
    pub(super) log: InventedLog,
    pub(super) tables: Tables,
    pub(super) start_ms: i64,
    /// The length of an epoch in invented time.
    pub(super) epoch_ms: u64,
    pub(super) runtime: &'a tokio::runtime::Runtime,
}

/// A pipeline file of a scenario, bound.
pub(super) struct Version {
    pub(super) pipeline: Pipeline,
    pub(super) readers: Readers,
    pub(super) bound: Arc<Bound>,
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
    /// It starts again.
    Restart(Restart),
}

/// How the program ends and starts again.
#[derive(Clone, Copy)]
struct Restart {
    is_killed: bool,
    workers: Option<u16>,
    /// With the pipeline file of the step of this number.
    with: Option<usize>,
    /// When, in milliseconds since 1970.
    at_ms: i64,
}

/// One run of the engine, as its driver sees it.
struct Life {
    conduct: Conduct,
    log: InventedLog,
    tables: Tables,
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
                Ending::Restart(restart) => {
                    let workers = restart.workers.map_or(self.pipeline.workers, usize::from);
                    if let Some(version) = restart.with.and_then(|step| self.versions.get(&step)) {
                        self.pipeline = version.pipeline.clone();
                        (self.readers, self.bound) = (&version.readers, &version.bound);
                    }
                    self.pipeline.workers = workers;
                    self.pass_without(&mut course, restart.at_ms, &mut check);
                    clock.store(course.now_ms, Ordering::Release);
                }
            }
        }
    }

    fn course(&self, sent: Vec<Sent>) -> Course {
        let at = |offset: i64| self.start_ms.saturating_add(offset);
        let mut happenings: Vec<(i64, Happening)> =
            sent.into_iter().map(|sent| (sent.at_ms, Happening::Sent(sent))).collect();
        for (number, step) in self.scenario.steps.iter().enumerate() {
            let mut happens = Vec::new();
            happens.extend(step.registry.map(Happening::Registry));
            happens.extend(step.tables.map(Happening::Tables));
            let with = step.with.as_ref().map(|_| number);
            if step.kill || step.workers.is_some() || with.is_some() || step.away.is_some() {
                let at_ms = at(step.at.0.saturating_add(step.away.unwrap_or_default().0));
                happens.push(Happening::Ends(Restart { is_killed: step.kill, workers: step.workers, with, at_ms }));
            }
            happens.extend(step.retry.clone().map(Happening::Retry));
            happenings.extend(happens.into_iter().map(|happening| (at(step.at.0), happening)));
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
            tables: self.tables.clone(),
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
            (Ok(Ending::Restart(restart)), Err(Error::Stopped(_))) if restart.is_killed => Ok(Ending::Restart(restart)),
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
                &Happening::Ends(restart) => {
                    course.next += 1;
                    course.end(life, at_ms, restart.is_killed)?;
                    return Ok(Ending::Restart(restart));
                }
                &Happening::Registry(state) => {
                    course.pass(life, at_ms)?;
                    self.shelf.set_down(state == PartState::Down);
                }
                &Happening::Tables(state) => {
                    course.pass(life, at_ms)?;
                    life.set_tables(state)?;
                }
                Happening::Retry(retry) => {
                    let retry = retry.clone();
                    course.come_to_rest(life, at_ms)?;
                    life.conduct.set_clock(course.now_ms, || self.retry(&retry, at_ms));
                    course.come_to_rest(life, at_ms)?;
                }
                &Happening::Check(number) => {
                    course.come_to_rest(life, at_ms)?;
                    check(number, &self.tables);
                }
            }
            course.next += 1;
        }
        course.flush(life)?;
        life.set_tables(PartState::Up)?;
        if let Some(ends_at) = self.scenario.ends_at {
            course.go_on(life, self.start_ms.saturating_add(ends_at.0))?;
        }
        while life.conduct.settle()? {
            life.end_epoch()?;
        }
        match self.scenario.end {
            End::Close => life.conduct.finish(),
            End::Stop => life.stop(),
        }
        Ok(Ending::Over)
    }

    /// Lets the clock go on to `to_ms` with nobody there: what is sent waits in the log.
    fn pass_without(&self, course: &mut Course, to_ms: i64, check: &mut impl FnMut(usize, &Tables)) {
        while let Some((at_ms, happening)) = course.happenings.get(course.next).filter(|(at_ms, _)| *at_ms < to_ms) {
            match happening {
                Happening::Sent(Sent { topic, partition, record, .. }) => {
                    self.log.append(topic, usize::from(*partition), record.clone());
                }
                // Nobody is there to end.
                Happening::Ends(_) => {}
                Happening::Registry(state) => self.shelf.set_down(*state == PartState::Down),
                Happening::Tables(state) => self.tables.set_down(*state == PartState::Down),
                Happening::Retry(retry) => self.retry(retry, *at_ms),
                Happening::Check(number) => check(*number, &self.tables),
            }
            course.next += 1;
            // It is read by whoever comes then.
            course.pending_until_ms = Some(to_ms);
        }
        course.now_ms = course.now_ms.max(to_ms);
    }

    /// Sends the refused records that `retry` means and that wait to their sources' retry topics, at `at_ms`.
    fn retry(&self, retry: &Retry, at_ms: i64) {
        let sources = self.pipeline.sources.values();
        let topic_of = |topic: &str| {
            let source = sources.clone().find(|source| source.all_topics().iter().any(|own| own == topic))?;
            source.retry_topic.clone()
        };
        for retried in retries::waiting(&self.tables, retry) {
            let origin = &retried.origin;
            let record = self.log.record(&origin.topic, origin.partition, origin.offset);
            let (Some(topic), Some(record)) = (topic_of(&origin.topic), record) else { continue };
            self.log.append(&topic, 0, retries::once_more(&retried, &record, at_ms));
        }
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
        life.end_epoch()
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
            life.end_epoch()?;
        }
        Ok(())
    }

    /// The same, and waits until everything up to there is committed and has arrived.
    fn come_to_rest(&mut self, life: &Life, at_ms: i64) -> Result<(), Ended> {
        self.pass(life, at_ms)?;
        life.conduct.settle()?;
        life.end_epoch()?;
        life.wait_for_delivery()
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

    /// Ends the open epoch and waits until it is committed, unless it has to wait for the tables.
    fn end_epoch(&self) -> Result<(), Ended> {
        let is_full =
            || self.reporter.get().map(|told| told()).is_some_and(|of| of.outbox_bytes >= of.outbox_limit_bytes);
        self.conduct.end_epoch(|| self.tables.is_down() && is_full())
    }

    /// Lets the tables take rows, or not: from what is committed later on, and all of what waited.
    fn set_tables(&self, state: PartState) -> Result<(), Ended> {
        let were_down = self.tables.is_down();
        if !were_down && state == PartState::Up {
            return Ok(());
        }
        // An engine that has just started is there when its sources were looked at.
        self.conduct.settle()?;
        self.wait_for_delivery()?;
        self.tables.set_down(state == PartState::Down);
        if state == PartState::Up {
            self.wait_for_delivery()?;
            // An epoch that waited for room ends now.
            self.conduct.settle()?;
            self.end_epoch()?;
        }
        Ok(())
    }

    /// Waits until every destination has what was committed; what is down has what it had.
    fn wait_for_delivery(&self) -> Result<(), Ended> {
        let reporter = self.reporter.get().ok_or(Ended)?;
        loop {
            let has_all = || reporter().destinations.iter().all(|destination| destination.waiting_rows == 0);
            if self.tables.is_down() || has_all() {
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
