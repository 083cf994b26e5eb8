//! The committer: one thread that makes an epoch durable as soon as every worker has passed it.
//!
//! A commit is one synced write: changes of state, positions and marks, judgements and all other rows in the outbox,
//! the rows of progress, the epoch's number. What comes after it (publishing, releasing bytes, delivering) only tells
//! others of a fact.
//!
//! Invariants: epochs are committed in order, each once; nothing of an epoch is visible outside before its commit; a
//! failure to write stops the pipeline with nothing of the epoch done.
//!
//! Not here: gathering (`gather`), when epochs open (`epochs`), sending (`deliver`).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use weir_operators::state::{Store, Writes};
use weir_schemas::time::{Epoch, EventTime};
use weir_sinks::OutRow;
use weir_sinks::clickhouse::partitions;

use crate::clock::Clock;
use crate::crash::{self, CrashPoint};
use crate::epochs::Epochs;
use crate::error::Error;
use crate::gather::{Gathered, Parts};
use crate::kept;
use crate::lineage::{self, PipelineVersion};
use crate::metrics::Metrics;
use crate::outbox::{DestinationId, Outbox};
use crate::progress::{self, Left, Watched};
use crate::recovery;
use crate::samples::Samples;
use crate::shares::Shares;
use crate::source::PartitionPosition;

/// Least time between two tellings of where the partitions are.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How long the committer sleeps at most before it looks whether it shall leave.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How far each partition is committed: the committer raises it, others look.
#[derive(Clone, Debug, Default)]
pub struct Positions(Arc<Mutex<BTreeMap<(String, i32), PartitionPosition>>>);

impl Positions {
    /// Those of a state at start.
    pub fn new(positions: BTreeMap<(String, i32), PartitionPosition>) -> Positions {
        Positions(Arc::new(Mutex::new(positions)))
    }

    /// Those of `topics`, in the order of names and partitions.
    pub fn of(&self, topics: &[String]) -> Vec<PartitionPosition> {
        self.all().values().filter(|of| topics.contains(&of.topic)).cloned().collect()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<(String, i32), PartitionPosition>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the committer works with.
pub struct Committer {
    /// The state.
    pub store: Arc<Store>,
    /// Where rows wait.
    pub outbox: Arc<Outbox>,
    /// What the workers hand over.
    pub gathered: Arc<Gathered>,
    /// How far everybody is.
    pub epochs: Arc<Epochs>,
    /// Where times and counts are noted.
    pub metrics: Arc<Metrics>,
    /// Wall time.
    pub clock: Clock,
    /// The numbers of topics.
    pub topics: HashMap<String, u16>,
    /// The sources by index: their names, and what their workers say of the partitions.
    pub sources: Vec<(String, Arc<Shares>)>,
    /// When it was last told where the partitions are.
    pub told_at: Option<Instant>,
    /// The views whose completeness is told.
    pub watched: Vec<Watched>,
    /// The positions that the last commit wrote.
    pub positions: Positions,
    /// What alerts show of their records.
    pub samples: Samples,
    /// What decides the results of this run.
    pub version: PipelineVersion,
    /// Whether `weir_versions` was told of it by this run.
    pub has_told_version: bool,
    /// Told of every commit.
    pub on_commit: Box<dyn Fn(Epoch, Instant) + Send>,
}

impl Committer {
    /// Commits epochs until the workers are sent home.
    ///
    /// # Errors
    /// When the disk fails or rows could not be encoded; the workers are then sent home.
    pub fn run(mut self) -> Result<(), Error> {
        loop {
            let rings = self.epochs.rings();
            if self.epochs.is_halted() {
                return Ok(());
            }
            let next = self.epochs.committed().next();
            if self.epochs.passed() < next {
                self.epochs.wait(rings, LOOK_EVERY);
                continue;
            }
            if let Err(error) = self.commit(next) {
                self.epochs.halt();
                return Err(error);
            }
        }
    }

    fn commit(&mut self, epoch: Epoch) -> Result<(), Error> {
        crash::pass(CrashPoint::BeforeCommit);
        let began = Instant::now();
        let mut parts = self.gathered.take(epoch)?;
        let alerts = parts.iter_mut().flat_map(|parts| std::mem::take(&mut parts.alerts)).collect();
        let store = Arc::clone(&self.store);
        let mut writes = store.writes();
        for changes in parts.iter().flat_map(|parts| &parts.state) {
            changes.write_into(&mut writes);
        }
        let left = self.left(&parts);
        for ((source, _), left) in self.sources.iter().zip(&left) {
            if let Some(left) = left {
                recovery::write_watermark(&mut writes, source, left.log_watermark);
            }
        }
        let positions: Vec<&PartitionPosition> =
            parts.iter().flat_map(|parts| &parts.left).flat_map(|left| &left.positions).collect();
        for place in parts.iter().flat_map(|parts| &parts.left).flat_map(|left| &left.retried) {
            kept::write_retried(&mut writes, place);
        }
        for position in &positions {
            self.write_position(&mut writes, position)?;
        }
        let behind: Vec<(Arc<str>, EventTime)> = parts.iter().flat_map(|parts| parts.behind.clone()).collect();
        let told = progress::rows(&self.watched, &left, &behind, epoch, self.clock.now())?;
        let mut rows = self.gathered.encode_all(epoch, &told)?;
        rows.extend(self.partitions(epoch, &positions)?);
        for alerts in self.samples.fill(alerts)? {
            rows.extend(self.gathered.encode_all(epoch, &alerts)?);
        }
        rows.extend(self.lineage(&mut writes, epoch, &parts)?);
        let released: Vec<u64> = parts.iter().map(|parts| parts.bytes).collect();
        let positions: Vec<PartitionPosition> = positions.into_iter().cloned().collect();
        rows.extend(parts.into_iter().flat_map(|parts| parts.rows));
        self.outbox.stage(&mut writes, epoch, &rows);
        let bytes = writes.bytes();
        store.commit(writes, epoch)?;
        crash::pass(CrashPoint::AfterCommit);

        let (row_count, took) = (rows.len(), began.elapsed());
        self.outbox.committed(epoch, rows);
        self.positions.all().extend(positions.into_iter().map(|of| ((of.topic.clone(), of.partition), of)));
        self.metrics.committed(took.as_secs_f64());
        self.epochs.tell_behind(!behind.is_empty());
        self.epochs.commit(epoch, &released);
        (self.on_commit)(epoch, Instant::now());
        tracing::debug!(epoch = epoch.0, rows = row_count, bytes, took_ms = took.as_millis() as u64, "committed");
        Ok(())
    }

    /// Rows of where the partitions are, if it is time to tell them; with the last epoch always.
    fn partitions(
        &mut self,
        epoch: Epoch,
        positions: &[&PartitionPosition],
    ) -> Result<Vec<(DestinationId, OutRow)>, Error> {
        let is_due = self.told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY);
        if !is_due && !self.epochs.is_closed() {
            return Ok(Vec::new());
        }
        self.told_at = Some(Instant::now());
        let positions = positions.iter().map(|of| ((of.topic.as_str(), of.partition), *of)).collect();
        let of = |(source, shares): &(String, Arc<Shares>)| progress::partitions_of(source, shares, &positions);
        let rows: Vec<_> = self.sources.iter().flat_map(of).collect();
        self.gathered.encode_all(epoch, &partitions::changes(&rows, epoch, self.clock.now())?)
    }

    /// Rows of what the epoch took; with the run's first epoch also the version of the pipeline.
    fn lineage(
        &mut self,
        writes: &mut Writes<'_>,
        epoch: Epoch,
        parts: &[Parts],
    ) -> Result<Vec<(DestinationId, OutRow)>, Error> {
        let now = self.clock.now();
        let mut rows = Vec::new();
        let taken: Vec<(&str, &lineage::Consumed)> = parts
            .iter()
            .flat_map(|parts| &parts.left)
            .filter_map(|left| Some((self.sources.get(left.source)?.0.as_str(), left)))
            .flat_map(|(source, left)| left.consumed.iter().map(move |consumed| (source, consumed)))
            .collect();
        if !taken.is_empty() {
            rows = self.gathered.encode_all(epoch, &lineage::epochs(&taken, epoch, &self.version.id, now)?)?;
        }
        if !std::mem::replace(&mut self.has_told_version, true) {
            let (first, at) = recovery::first_epoch_of(&self.store, writes, &self.version.id, (epoch, now))?;
            rows.extend(self.gathered.encode_all(epoch, &lineage::version_row(&self.version, first, at)?)?);
        }
        Ok(rows)
    }

    /// Where the workers left the epoch, by source.
    fn left(&self, parts: &[Parts]) -> Vec<Option<Left>> {
        let of = |(source, (_, shares)): (usize, &(String, Arc<Shares>))| {
            let reports = parts.iter().flat_map(|parts| &parts.left).filter(move |left| left.source == source);
            let resting = shares.resting();
            let rests = |of: &PartitionPosition| resting.contains(&(of.topic.clone(), of.partition));
            progress::combine(reports, rests)
        };
        self.sources.iter().enumerate().map(of).collect()
    }

    fn write_position(&self, writes: &mut Writes<'_>, position: &PartitionPosition) -> Result<(), Error> {
        let before = self.positions.all().get(&(position.topic.clone(), position.partition)).cloned();
        if before.as_ref() == Some(position) {
            return Ok(());
        }
        let has_moved = before.as_ref().is_none_or(|before| before.next_offset != position.next_offset);
        let known_mark = before.as_ref().map_or(EventTime::MIN, |before| before.watermark);
        debug_assert!(position.watermark >= known_mark, "a partition's watermark went back");
        let topic = self.topics.get(&position.topic).copied().ok_or_else(|| {
            Error::Stopped(format!("topic {} has a position but belongs to no source", position.topic))
        })?;
        recovery::write_position(writes, position, topic, has_moved);
        Ok(())
    }
}
