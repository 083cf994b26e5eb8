//! Drives an operator on one or several workers by its public contract, with real state, commits that may come late,
//! and restarts that lose what was not committed.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt16Type;
use arrow_array::{RecordBatch, UInt32Array};
use arrow_select::take::take_record_batch;
use weir_operators::operator::{Context, Effects, Operator};
use weir_operators::route::worker_of;
use weir_operators::state::{FrozenChanges, StateRegistry, Store, StoreOptions};
use weir_schemas::rows::Changes;
use weir_schemas::time::{Epoch, EventTime};

/// Seeds of a random test: ten times as many as in `make test` when `WEIR_PROOF=full` asks for it, as `make proof` does.
pub(crate) fn seeds(quick: u64) -> std::ops::Range<u64> {
    let is_full = std::env::var_os("WEIR_PROOF").is_some_and(|size| size == "full");
    0..if is_full { quick * 10 } else { quick }
}

pub(crate) type Build = Box<dyn Fn(&mut StateRegistry) -> Box<dyn Operator>>;

pub(crate) struct Harness {
    folder: tempfile::TempDir,
    store: Option<Arc<Store>>,
    build: Build,
    /// The column with the key group, when there are several workers.
    route: Option<usize>,
    workers: Vec<(Box<dyn Operator>, StateRegistry)>,
    pub(crate) epoch: Epoch,
    pub(crate) watermark: EventTime,
    /// Where the watermark stood when the last epoch ended, or the run began.
    log_watermark: EventTime,
    /// Ended and not committed.
    ended: VecDeque<Ended>,
    pub(crate) committed: (Epoch, EventTime),
    pub(crate) emitted: Vec<(usize, RecordBatch)>,
    rows: Vec<Changes>,
}

struct Ended {
    epoch: Epoch,
    watermark: EventTime,
    state: Vec<Arc<FrozenChanges>>,
    rows: Vec<Changes>,
}

impl Harness {
    pub(crate) fn new(
        peers: usize,
        route: Option<usize>,
        build: impl Fn(&mut StateRegistry) -> Box<dyn Operator> + 'static,
    ) -> Harness {
        let mut harness = Harness {
            folder: tempfile::tempdir().unwrap(),
            store: None,
            build: Box::new(build),
            route,
            workers: Vec::new(),
            epoch: Epoch(1),
            watermark: EventTime::MIN,
            log_watermark: EventTime::MIN,
            ended: VecDeque::new(),
            committed: (Epoch(0), EventTime::MIN),
            emitted: Vec::new(),
            rows: Vec::new(),
        };
        harness.start(peers);
        harness
    }

    /// Kills and starts again with `peers` workers, at what was committed last.
    pub(crate) fn start(&mut self, peers: usize) {
        self.workers.clear();
        self.ended.clear();
        self.rows.clear();
        self.store = None;
        let options = StoreOptions { cache_bytes: 8 << 20, write_buffer_bytes: 1 << 20 };
        let store = Arc::new(Store::open(self.folder.path(), options).unwrap());
        self.epoch = self.committed.0.next();
        self.watermark = self.committed.1;
        self.log_watermark = self.watermark;
        for worker in 0..peers {
            let mut registry = StateRegistry::new(store.clone(), "operator", worker, peers, self.epoch).unwrap();
            let operator = (self.build)(&mut registry);
            self.workers.push((operator, registry));
        }
        self.store = Some(store);
    }

    fn call(&mut self, worker: usize, call: impl FnOnce(&mut dyn Operator, &mut Context<'_>)) {
        let mut effects = Effects::default();
        let mut cx = Context::new(self.epoch, self.watermark, &mut effects);
        if self.watermark == EventTime::MAX {
            cx = cx.with_log_watermark(self.log_watermark);
        }
        call(&mut *self.workers[worker].0, &mut cx);
        assert!(effects.timers.is_empty(), "this harness has no timers");
        self.emitted.append(&mut effects.emitted);
        self.rows.append(&mut effects.changes);
    }

    pub(crate) fn input(&mut self, batch: RecordBatch) {
        let peers = self.workers.len();
        for worker in 0..peers {
            let piece = match self.route {
                Some(column) if peers > 1 => {
                    let groups = batch.column(column).as_primitive::<UInt16Type>();
                    let rows = (0..batch.num_rows() as u32)
                        .filter(|row| worker_of(groups.value(*row as usize), peers) == worker);
                    take_record_batch(&batch, &UInt32Array::from_iter_values(rows)).unwrap()
                }
                _ => batch.clone(),
            };
            if piece.num_rows() > 0 {
                self.call(worker, |operator, cx| operator.on_batch(piece, cx).unwrap());
            }
        }
    }

    pub(crate) fn raise(&mut self, watermark: EventTime) {
        if watermark > self.watermark {
            self.watermark = watermark;
            for worker in 0..self.workers.len() {
                self.call(worker, |operator, cx| operator.on_watermark(cx).unwrap());
            }
        }
    }

    /// Ends the epoch; its rows come out when it is committed.
    pub(crate) fn end_of_epoch(&mut self) {
        for worker in 0..self.workers.len() {
            self.call(worker, |operator, cx| operator.end_of_epoch(cx).unwrap());
        }
        let epoch = self.epoch;
        let state = self.workers.iter_mut().flat_map(|(_, registry)| registry.freeze(epoch).unwrap()).collect();
        if self.watermark != EventTime::MAX {
            self.log_watermark = self.watermark;
        }
        let (watermark, rows) = (self.log_watermark, std::mem::take(&mut self.rows));
        self.ended.push_back(Ended { epoch, watermark, state, rows });
        self.epoch = epoch.next();
    }

    /// Commits the oldest epoch that waits.
    pub(crate) fn commit(&mut self) -> Option<Vec<Changes>> {
        let ended = self.ended.pop_front()?;
        let store = self.store.as_ref().unwrap();
        let mut writes = store.writes();
        ended.state.iter().for_each(|changes| changes.write_into(&mut writes));
        store.commit(writes, ended.epoch).unwrap();
        self.committed = (ended.epoch, ended.watermark);
        Some(ended.rows)
    }

    /// Ends and commits.
    pub(crate) fn finish_epoch(&mut self) -> Vec<Changes> {
        self.end_of_epoch();
        let mut rows = Vec::new();
        while let Some(more) = self.commit() {
            rows.extend(more);
        }
        rows
    }

    pub(crate) fn take_emitted(&mut self) -> Vec<(usize, RecordBatch)> {
        std::mem::take(&mut self.emitted)
    }
}

/// A small generator of random numbers: the same seed, the same test.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn between(&mut self, from: i64, to: i64) -> i64 {
        from + self.below((to - from).max(1) as u64) as i64
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}
