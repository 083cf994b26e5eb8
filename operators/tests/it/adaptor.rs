//! The adaptor in running dataflows of 1, 2 and 4 workers whose epochs drift apart, against a recount of the log.
//!
//! The log has four partitions and is a function of (partition, step), so that a run that was killed can read it
//! again with another number of workers. Windowed counts with timers are the operator under test: a watermark
//! that runs ahead of one stashed event writes a window too early, and the recount finds it.

mod behind;
mod log;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt64Type};
use arrow_array::{Int64Array, RecordBatch, UInt16Array, UInt64Array};
use timely::dataflow::ProbeHandle;
use timely::dataflow::operators::Probe;
use weir_operators::adaptor::{EpochSink, Failure, Host, Part, operate};
use weir_operators::error::Error;
use weir_operators::moment::Moment;
use weir_operators::operator::{Context, Operator, Timer};
use weir_operators::route::{GROUPS, Route, owned_groups, worker_of};
use weir_operators::state::{Codec, FrozenChanges, KeyedTable, Store, StoreOptions};
use weir_schemas::rows::Changes;
use weir_schemas::time::{Epoch, EventTime};

use log::{PARTITIONS, STEPS_PER_EPOCH, WINDOW, Written, epoch_of, group_of, partition_watermark, recount, source};

/// Broken promises, counted over all workers.
#[derive(Default)]
struct Broken {
    wrong_epoch: AtomicU64,
    older_than_watermark: AtomicU64,
    watermark_back: AtomicU64,
    wrong_worker: AtomicU64,
    epoch_out_of_order: AtomicU64,
    incomplete_epochs: AtomicU64,
    part_after_the_probe: AtomicU64,
}

impl Broken {
    fn assert_none(&self) {
        let all = [
            ("rows of another epoch", &self.wrong_epoch),
            ("events older than the watermark", &self.older_than_watermark),
            ("watermarks that went back", &self.watermark_back),
            ("rows on a worker that does not own them", &self.wrong_worker),
            ("epochs ended out of order", &self.epoch_out_of_order),
            ("epochs without every worker's end", &self.incomplete_epochs),
            ("parts after the probe had passed", &self.part_after_the_probe),
        ];
        let broken: Vec<_> = all.iter().filter(|(_, count)| count.load(SeqCst) > 0).collect();
        assert!(broken.is_empty(), "{broken:?}");
    }
}

/// Counts events per window and key; writes a window's row when the watermark has passed its end.
struct CountByWindow {
    counts: KeyedTable<(i64, u64), u64>,
    broken: Arc<Broken>,
    owned: Range<u16>,
    last: (Epoch, EventTime),
    rows_in_epoch: u64,
    holds: bool,
}

impl CountByWindow {
    fn check(&mut self, cx: &Context<'_>) {
        if cx.epoch() < self.last.0 || cx.epoch() > self.last.0.next() {
            self.broken.epoch_out_of_order.fetch_add(1, SeqCst);
        }
        if cx.watermark() < self.last.1 {
            self.broken.watermark_back.fetch_add(1, SeqCst);
        }
        self.last = (cx.epoch(), cx.watermark());
    }
}

impl Operator for CountByWindow {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        self.check(cx);
        let keys = batch.column(1).as_primitive::<UInt64Type>().values();
        let times = batch.column(2).as_primitive::<Int64Type>().values();
        let epochs = batch.column(3).as_primitive::<UInt64Type>().values();
        for ((key, time), epoch) in keys.iter().zip(times).zip(epochs) {
            let group = group_of(*key);
            if *epoch != cx.epoch().0 {
                self.broken.wrong_epoch.fetch_add(1, SeqCst);
            }
            if *time < cx.watermark().0 {
                self.broken.older_than_watermark.fetch_add(1, SeqCst);
            }
            if !self.owned.contains(&group) {
                self.broken.wrong_worker.fetch_add(1, SeqCst);
            }
            let window = time / WINDOW * WINDOW;
            *self.counts.get_or_insert_with(group, &(window, *key), || 0)? += 1;
            let mut timer_key = Vec::new();
            (window, *key).encode(&mut timer_key);
            cx.set_timer(Timer { at: EventTime(window + WINDOW), key: timer_key, group });
        }
        self.rows_in_epoch += batch.num_rows() as u64;
        Ok(())
    }

    fn on_timer(&mut self, timer: Timer, cx: &mut Context<'_>) -> Result<(), Error> {
        self.check(cx);
        let (window, key) = <(i64, u64)>::decode_all(&timer.key).map_err(|error| custom(&error.to_string()))?;
        let count = self.counts.get(timer.group, &(window, key))?.map_or(0, |count| *count);
        self.counts.remove(timer.group, &(window, key))?;
        let rows = RecordBatch::try_from_iter([
            ("window", Arc::new(Int64Array::from(vec![window])) as _),
            ("key", Arc::new(UInt64Array::from(vec![key])) as _),
            ("count", Arc::new(UInt64Array::from(vec![count])) as _),
        ])?;
        cx.write(Changes { table: "counts".into(), rows, deleted: None });
        Ok(())
    }

    fn on_watermark(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.check(cx);
        Ok(())
    }

    /// Emits (epoch, rows), to be counted behind another exchange.
    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.check(cx);
        self.last.0 = cx.epoch();
        cx.emit(RecordBatch::try_from_iter([
            ("_group", Arc::new(UInt16Array::from(vec![0])) as _),
            ("epoch", Arc::new(UInt64Array::from(vec![cx.epoch().0])) as _),
            ("rows", Arc::new(UInt64Array::from(vec![std::mem::take(&mut self.rows_in_epoch)])) as _),
        ])?);
        Ok(())
    }

    fn holds_watermark_within_epoch(&self) -> bool {
        self.holds
    }
}

/// Counts how many workers have ended an epoch, and their rows.
struct CountEnds {
    broken: Arc<Broken>,
    is_counting: bool,
    workers: u64,
    ends: u64,
    rows: u64,
    rows_per_epoch: u64,
    last_full: Epoch,
}

impl Operator for CountEnds {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        for (epoch, rows) in batch
            .column(1)
            .as_primitive::<UInt64Type>()
            .values()
            .iter()
            .zip(batch.column(2).as_primitive::<UInt64Type>().values())
        {
            self.ends += 1;
            self.rows += rows;
            if *epoch != cx.epoch().0 {
                self.broken.wrong_epoch.fetch_add(1, SeqCst);
            }
        }
        Ok(())
    }

    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let complete = self.ends == self.workers && self.rows == self.rows_per_epoch;
        if self.is_counting && cx.epoch() <= self.last_full && !complete {
            self.broken.incomplete_epochs.fetch_add(1, SeqCst);
        }
        (self.ends, self.rows) = (0, 0);
        Ok(())
    }

    fn outputs(&self) -> usize {
        0
    }
}

fn custom(detail: &str) -> Error {
    Error::Custom { operator: "test".to_owned(), detail: detail.to_owned() }
}

/// The parts of epochs, and which epochs each worker's probe has passed.
struct Sink {
    parts: Mutex<BTreeMap<Epoch, (Vec<Arc<FrozenChanges>>, Vec<Changes>)>>,
    open_at: Vec<AtomicU64>,
    broken: Arc<Broken>,
}

impl EpochSink for Sink {
    fn add(&self, worker: usize, epoch: Epoch, part: Part) {
        if epoch.0 < self.open_at[worker].load(SeqCst) {
            self.broken.part_after_the_probe.fetch_add(1, SeqCst);
        }
        let mut parts = self.parts.lock().unwrap();
        let parts = parts.entry(epoch).or_default();
        match part {
            Part::State { changes, .. } => parts.0.push(changes),
            Part::Rows(changes) => parts.1.push(changes),
            Part::Behind { .. } => {}
        }
    }
}

/// One life of the process.
struct Life {
    workers: usize,
    /// The last step that is read; the process is then killed, or, at the log's end, closes everything.
    until_step: u64,
    log_ends: bool,
    /// Commit only every n-th look, so that frozen epochs pile up.
    commit_every: u64,
    /// How many whole epochs before the last step are lost with the process.
    loses: u64,
    holds: bool,
}

/// Runs one life on the folder and adds what its committed epochs wrote.
fn live(folder: &Path, life: Life, written: &mut Written, broken: &Arc<Broken>) {
    let store =
        Arc::new(Store::open(folder, StoreOptions { cache_bytes: 4 << 20, write_buffer_bytes: 1 << 20 }).unwrap());
    let committed = store.committed_epoch();
    let first_step = committed.0 * STEPS_PER_EPOCH;
    let least = (0..PARTITIONS).map(|p| partition_watermark(p, first_step)).min().unwrap();
    let resume = Moment::new(committed.next(), if first_step == 0 { EventTime::MIN } else { EventTime(least) });
    let sink = Arc::new(Sink {
        parts: Mutex::default(),
        open_at: (0..life.workers).map(|_| AtomicU64::new(0)).collect(),
        broken: broken.clone(),
    });
    let failure = Failure::default();
    let results = Arc::new(Mutex::new(std::mem::take(written)));
    let (life, folder_closed) = (Arc::new(life), Arc::new(AtomicBool::new(false)));
    let workers = life.workers;
    let shared = (store.clone(), sink.clone(), failure.clone(), broken.clone(), results.clone());
    timely::execute(timely::Config::process(workers), move |worker| {
        let (store, sink, failure, broken, results) = shared.clone();
        let (life, closed) = (life.clone(), folder_closed.clone());
        let (index, peers) = (worker.index(), worker.peers());
        let host = Host {
            worker: index,
            peers,
            store: store.clone(),
            sink: sink.clone(),
            failure: failure.clone(),
            efforts: Arc::default(),
            resume,
        };
        let probe = ProbeHandle::new();
        worker.dataflow::<Moment, _, _>(|scope| {
            let events = source(scope, (index, peers), first_step..life.until_step, life.log_ends, closed.clone());
            let ends = operate("count_by_window", events, Route::ByGroup { column: 0 }, &host, |state| {
                Ok(Box::new(CountByWindow {
                    counts: state.keyed(0, 4000)?,
                    broken: broken.clone(),
                    owned: owned_groups(index, peers),
                    last: (resume.epoch, resume.watermark),
                    rows_in_epoch: 0,
                    holds: life.holds,
                }))
            })
            .unwrap();
            for stream in ends {
                let ended = operate("count_ends", stream, Route::ByGroup { column: 0 }, &host, |_| {
                    Ok(Box::new(CountEnds {
                        broken: broken.clone(),
                        is_counting: index == worker_of(0, peers),
                        workers: peers as u64,
                        ends: 0,
                        rows: 0,
                        rows_per_epoch: PARTITIONS * 4 * STEPS_PER_EPOCH,
                        last_full: Epoch(life.until_step / STEPS_PER_EPOCH),
                    }))
                })
                .unwrap();
                ended.into_iter().for_each(|stream| drop(stream.probe_with(&probe)));
            }
        });
        let mut looks = 0u64;
        while !probe.done() {
            worker.step();
            assert!(failure.get().is_none(), "{}", failure.get().unwrap());
            let open = probe.with_frontier(|frontier| Moment::meet(frontier.iter())).map_or(u64::MAX, |m| m.epoch.0);
            sink.open_at[index].store(open, SeqCst);
            looks += 1;
            if index != 0 || !looks.is_multiple_of(life.commit_every) {
                continue;
            }
            let all_passed = sink.open_at.iter().map(|open| open.load(SeqCst)).min().unwrap();
            let last = epoch_of(life.until_step).0 - 1;
            commit_before(all_passed.min(last + 1 - life.loses), &store, &sink, &results);
            if all_passed > last {
                closed.store(true, SeqCst);
            }
        }
    })
    .unwrap()
    .join()
    .into_iter()
    .for_each(|result| result.unwrap());
    *written = std::mem::take(&mut results.lock().unwrap());
}

fn commit_before(open: u64, store: &Store, sink: &Sink, results: &Mutex<Written>) {
    let mut epoch = store.committed_epoch().next();
    while epoch.0 < open {
        let Some((state, rows)) = sink.parts.lock().unwrap().remove(&epoch) else { break };
        let mut writes = store.writes();
        state.iter().for_each(|changes| changes.write_into(&mut writes));
        store.commit(writes, epoch).unwrap();
        for rows in rows.iter().map(|changes| &changes.rows) {
            let windows = rows.column(0).as_primitive::<Int64Type>().values();
            let keys = rows.column(1).as_primitive::<UInt64Type>().values();
            let counts = rows.column(2).as_primitive::<UInt64Type>().values();
            for ((window, key), count) in windows.iter().zip(keys).zip(counts) {
                results.lock().unwrap().entry((*window, *key)).or_default().push(*count);
            }
        }
        epoch = epoch.next();
    }
}

#[test]
fn windows_are_right_and_written_once_with_1_2_and_4_workers() {
    for (workers, holds) in [(1, false), (2, false), (4, false), (2, true), (4, true)] {
        let folder = tempfile::tempdir().unwrap();
        let (mut written, broken) = (Written::new(), Arc::default());
        let life = Life { workers, until_step: 1600, log_ends: true, commit_every: 7, loses: 0, holds };
        live(folder.path(), life, &mut written, &broken);
        broken.assert_none();
        assert_eq!(written, recount(1600), "{workers} workers");
    }
}

#[test]
fn a_life_that_ended_anywhere_goes_on_with_any_number_of_workers() {
    let folder = tempfile::tempdir().unwrap();
    let (mut written, broken) = (Written::new(), Arc::default());
    let mut until_step = 0;
    for (workers, steps, commit_every, loses) in
        [(2, 330, 3, 0), (4, 411, 50, 7), (1, 200, 1000, 1), (3, 505, 9, 20), (2, 154, 1, 0)]
    {
        until_step += steps;
        let log_ends = until_step == 1600;
        let life = Life { workers, until_step, log_ends, commit_every, loses, holds: false };
        live(folder.path(), life, &mut written, &broken);
    }
    broken.assert_none();
    assert_eq!(written, recount(1600));
}

/// Passes batches on; fails in one epoch.
struct FailIn(Epoch);

impl Operator for FailIn {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        if cx.epoch() == self.0 {
            return Err(custom("the disk is gone"));
        }
        cx.emit(batch);
        Ok(())
    }

    fn end_of_epoch(&mut self, _: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// Runs `first` before a counting operator until something fails, and gives the failure's text and the epoch that
/// the probe stands at after that.
fn run_to_failure(workers: usize, group_column: usize, fail_in: Epoch) -> (String, Epoch) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path(), StoreOptions::default()).unwrap());
    let broken: Arc<Broken> = Arc::default();
    let open_at = (0..workers).map(|_| AtomicU64::new(0)).collect();
    let sink = Arc::new(Sink { parts: Mutex::default(), open_at, broken });
    let failure = Failure::default();
    let shared = (store, sink.clone(), failure.clone());
    timely::execute(timely::Config::process(workers), move |worker| {
        let (store, sink, failure) = shared.clone();
        let (index, peers) = (worker.index(), worker.peers());
        let resume = Moment::new(Epoch(1), EventTime::MIN);
        let host = Host {
            worker: index,
            peers,
            store,
            sink: sink.clone(),
            failure: failure.clone(),
            efforts: Arc::default(),
            resume,
        };
        let probe = ProbeHandle::new();
        let dataflow = worker.next_dataflow_index();
        worker.dataflow::<Moment, _, _>(|scope| {
            let events = source(scope, (index, peers), 0..800, false, Arc::default());
            let fail_in = if index == peers - 1 { fail_in } else { Epoch(u64::MAX) };
            let passed = operate("fail", events, Route::ByGroup { column: group_column }, &host, |_| {
                Ok(Box::new(FailIn(fail_in)))
            });
            for stream in passed.unwrap() {
                let again = operate("pass", stream, Route::Pipeline, &host, |_| Ok(Box::new(FailIn(Epoch(u64::MAX)))));
                again.unwrap().into_iter().for_each(|stream| drop(stream.probe_with(&probe)));
            }
        });
        // The source has 100 epochs to send: go on long after the failure.
        let (mut steps, mut after_failure) = (0, 0);
        while after_failure < 3000 {
            worker.step();
            steps += 1;
            after_failure += u64::from(failure.get().is_some());
            assert!(steps < 10_000_000, "nothing failed");
        }
        let open = probe.with_frontier(|frontier| Moment::meet(frontier.iter())).unwrap();
        sink.open_at[index].store(open.epoch.0, SeqCst);
        worker.drop_dataflow(dataflow);
    })
    .unwrap()
    .join()
    .into_iter()
    .for_each(|result| result.unwrap());
    let open = sink.open_at.iter().map(|open| open.load(SeqCst)).max().unwrap();
    (failure.get().unwrap().to_string(), Epoch(open))
}

#[test]
fn an_operators_error_is_kept_and_its_epoch_never_ends() {
    for workers in [1, 2] {
        let (failure, open) = run_to_failure(workers, 0, Epoch(5));
        assert!(failure.contains("operator fail on worker") && failure.contains("the disk is gone"), "{failure}");
        assert!(open <= Epoch(5), "{workers} workers: the probe passed the epoch that failed, and stands at {open:?}");
    }
}

#[test]
fn an_edge_without_key_groups_is_a_failure_that_names_the_receiver() {
    let (failure, open) = run_to_failure(2, 2, Epoch(u64::MAX));
    assert!(failure.contains("operator fail") && failure.contains("column 2"), "{failure}");
    assert!(open <= Epoch(1), "{open:?}");
}

#[test]
fn every_group_has_one_owner_and_owners_have_their_groups() {
    for peers in [1, 2, 3, 5, 128, 256, 300] {
        let mut owners = vec![0; usize::from(GROUPS)];
        for worker in 0..peers {
            for group in owned_groups(worker, peers) {
                owners[usize::from(group)] += 1;
                assert_eq!(worker_of(group, peers), worker, "group {group} of {peers} workers");
            }
        }
        assert!(owners.iter().all(|owners| *owners == 1), "{peers} workers");
    }
}
