//! Both sides of a view in memory, and what differs between them, kept current by differential dataflow.
//!
//! ```text
//! live    (key, row or none) ─▶ arrange ─┬▶ each row alone ─────────────┐
//!                                        ├▶ join ─▶ each pair ──────────┼▶ add up ─▶ facts, rows that differ
//! replay  (key, row or none) ─▶ arrange ─┴▶ each row alone ─────────────┘
//! ```
//! A row alone adds itself, and that it is removed or added; a pair takes the latter back for both of its rows, and adds what
//! differs between them. So whatever changes on either side, what it had added is taken away by the same code that added it.
//!
//! Invariants: what is told is what a comparison from nothing would tell of the rows that were set last; memory holds the rows
//! of both sides once, and those that differ once more.
//!
//! Not here: where rows come from (`follow`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;

use differential_dataflow::operators::arrange::upsert::arrange_from_upsert;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::trace::implementations::{ValBuilder, ValSpine};
use serde_json::Value;
use timely::WorkerConfig;
use timely::communication::Allocator;
use timely::communication::allocator::Thread;
use timely::dataflow::operators::Input;
use timely::dataflow::{InputHandleVec, ProbeHandle, Scope};
use timely::worker::Worker;

use super::tally::{Fact, Shape, Tally};
use super::{Example, Kind, Side, ViewDiff};

/// Rows that are on their way through the dataflow together, at most.
const ROUND_ROWS: usize = 16_384;

/// A row's key: its hash, by which rows are told in the same order as those that stream, and its text.
type Key = (u64, String);
/// How often what was set before has been worked through.
type Round = u64;
/// A key and its row's cells as JSON, or that there is none, in the order of rounds.
type Upsert = (Key, Option<String>, Round);

/// What one row or one pair adds, or takes away where the weight is negative.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Added {
    Fact(Fact, i128),
    Row(Differing, i64),
}

/// A row that differs: in the order in which examples are told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Differing {
    kind: Kind,
    key: Key,
    /// The measures that differ, and the cells of both rows as JSON, where both sides have one.
    changed: Vec<usize>,
    live: String,
    replay: String,
}

/// What everything adds up to.
#[derive(Default)]
struct Sums {
    tally: Tally,
    differing: BTreeMap<Differing, i64>,
}

/// A diff that is kept current.
pub(super) struct Kept {
    worker: Worker,
    live: InputHandleVec<Round, Upsert>,
    replay: InputHandleVec<Round, Upsert>,
    probe: ProbeHandle<Round>,
    sums: Rc<RefCell<Sums>>,
    shape: Rc<Shape>,
    /// Rows that were set since the round began.
    set: usize,
}

impl Kept {
    /// A diff of nothing with nothing.
    pub(super) fn new(shape: Shape) -> Kept {
        let mut worker = Worker::new(WorkerConfig::default(), Allocator::Thread(Thread::default()), None);
        let (mut live, mut replay) = (InputHandleVec::new(), InputHandleVec::new());
        let (probe, sums, shape) = (ProbeHandle::new(), Rc::<RefCell<Sums>>::default(), Rc::new(shape));
        worker.dataflow(|scope| {
            let live = arranged(scope, &mut live, "live rows");
            let replay = arranged(scope, &mut replay, "replayed rows");
            let of = shape.clone();
            let live_alone = live.clone().flat_map_ref(move |key, cells| of.alone(Side::Live, key, cells));
            let of = shape.clone();
            let replay_alone = replay.clone().flat_map_ref(move |key, cells| of.alone(Side::Replay, key, cells));
            let of = shape.clone();
            let pairs = live.join_core(replay, move |key, live, replay| of.together(key, live, replay));
            let into = sums.clone();
            live_alone
                .concat(replay_alone)
                .concat(pairs)
                .inspect(move |(added, _, times)| into.borrow_mut().take(added, *times))
                .probe_with(&probe);
        });
        Kept { worker, live, replay, probe, sums, shape, set: 0 }
    }

    /// Sets the row of a key on one side, or that it has none. Between two calls of [`Kept::settle`] a key is set once a side.
    pub(super) fn set(&mut self, side: Side, key: Key, cells: Option<String>) {
        let input = if side == Side::Live { &mut self.live } else { &mut self.replay };
        let round = *input.time();
        input.send((key, cells, round));
        self.set += 1;
        if self.set >= ROUND_ROWS {
            self.settle();
        }
    }

    /// Works through what was set.
    pub(super) fn settle(&mut self) {
        let next = *self.live.time() + 1;
        self.live.advance_to(next);
        self.replay.advance_to(next);
        self.set = 0;
        while self.probe.less_than(&next) {
            self.worker.step();
        }
    }

    /// Rows that are held of both sides together.
    pub(super) fn rows(&self) -> u64 {
        self.sums.borrow().tally.rows()
    }

    /// What differs, as of the last call of [`Kept::settle`].
    pub(super) fn told(&self, examples: usize) -> ViewDiff {
        let sums = self.sums.borrow();
        let of_kind = |kind| sums.differing.keys().filter(move |row| row.kind == kind).take(examples);
        let rows = [Kind::Removed, Kind::Added, Kind::Changed].into_iter().flat_map(of_kind);
        let examples: Vec<Example> = rows.map(|row| row.told(&self.shape)).collect();
        sums.tally.told(&self.shape, examples)
    }
}

fn arranged<'scope>(
    scope: Scope<'scope, Round>,
    input: &mut InputHandleVec<Round, Upsert>,
    name: &str,
) -> Arranged<'scope, TraceAgent<ValSpine<Key, String, Round, isize>>> {
    let stream = scope.input_from(input);
    arrange_from_upsert::<ValBuilder<Key, String, Round, isize>, _, Key, String>(stream, name)
}

impl Sums {
    /// Takes what `times` rows or pairs add.
    fn take(&mut self, added: &Added, times: isize) {
        match added {
            Added::Fact(fact, weight) => self.tally.add(fact.clone(), weight * times as i128),
            Added::Row(row, weight) => {
                let weight = weight * times as i64;
                match self.differing.entry(row.clone()) {
                    Entry::Occupied(held) if *held.get() == -weight => drop(held.remove()),
                    Entry::Occupied(mut held) => *held.get_mut() += weight,
                    Entry::Vacant(free) => drop(free.insert(weight)),
                }
            }
        }
    }
}

impl Shape {
    /// What a row adds as long as the other side has none of its key.
    fn alone(&self, side: Side, key: &Key, cells: &str) -> Vec<Added> {
        let mut added = Vec::new();
        self.of_row(side, &values(cells), |fact, weight| added.push(Added::Fact(fact, weight)));
        let kind = if side == Side::Live { Kind::Removed } else { Kind::Added };
        self.differing(Differing::alone(kind, key), 1, &mut added);
        added
    }

    /// What two rows of one key add to what both add alone.
    fn together(&self, key: &Key, live: &str, replay: &str) -> Vec<Added> {
        let mut added = Vec::new();
        self.differing(Differing::alone(Kind::Removed, key), -1, &mut added);
        self.differing(Differing::alone(Kind::Added, key), -1, &mut added);
        let changed = if live == replay { Vec::new() } else { self.changed(&values(live), &values(replay)) };
        if !changed.is_empty() {
            let (key, live, replay) = (key.clone(), live.to_owned(), replay.to_owned());
            self.differing(Differing { kind: Kind::Changed, key, changed, live, replay }, 1, &mut added);
        }
        added
    }

    fn differing(&self, row: Differing, weight: i64, added: &mut Vec<Added>) {
        self.of_difference(row.kind, &row.key.1, &row.changed, |fact| added.push(Added::Fact(fact, weight.into())));
        added.push(Added::Row(row, weight));
    }
}

impl Differing {
    fn alone(kind: Kind, key: &Key) -> Differing {
        Differing { kind, key: key.clone(), changed: Vec::new(), live: String::new(), replay: String::new() }
    }

    fn told(&self, shape: &Shape) -> Example {
        shape.example(self.kind, &self.key.1, &self.changed, &values(&self.live), &values(&self.replay))
    }
}

fn values(cells: &str) -> Vec<Value> {
    serde_json::from_str(cells).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{Described, Meeting, Row};
    use crate::diff::Streamed;
    use serde_json::json;

    type Rows = BTreeMap<Key, (i64, f64, Option<&'static str>)>;

    fn shape() -> Shape {
        let column = |name: &str, of: &str| Described { name: name.to_owned(), r#type: of.to_owned() };
        Shape {
            view: "v".to_owned(),
            key: ["window_start", "country", "age"].map(str::to_owned).to_vec(),
            measures: vec![column("orders", "Int64"), column("paid", "Float64"), column("best", "Nullable(String)")],
            tolerance: 1e-6,
            ..Shape::default()
        }
    }

    fn text((orders, paid, best): (i64, f64, Option<&str>)) -> String {
        json!([orders.to_string(), paid, best]).to_string()
    }

    /// The diff that is computed once, of rows that meet in the order of their hashes.
    fn once(live: &Rows, replay: &Rows, examples: usize) -> ViewDiff {
        let shape = shape();
        let mut streamed = Streamed { tally: Tally::default(), examples: Vec::new(), most: examples };
        let mut keys: Vec<&Key> = live.keys().chain(replay.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let row = |of: &Rows| {
                let text = text(*of.get(key)?);
                Some(Row { hash: key.0, key: key.1.clone(), cells: values(&text), text })
            };
            let meeting = match (row(live), row(replay)) {
                (Some(live), Some(replay)) => Meeting::Both(live, replay),
                (Some(live), None) => Meeting::First(live),
                (None, Some(replay)) => Meeting::Second(replay),
                (None, None) => continue,
            };
            streamed.take(meeting, &shape);
        }
        streamed.examples.sort_by_key(|example| example.kind);
        streamed.tally.told(&shape, streamed.examples)
    }

    /// The counts by an oracle that shares no code: added, removed, changed rows, and changed cells of each measure.
    fn naive(live: &Rows, replay: &Rows) -> [usize; 6] {
        let both = || live.iter().filter_map(|(key, row)| Some((row, replay.get(key)?)));
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-6 * a.abs().max(b.abs());
        let (orders, paid, best) = (
            both().filter(|(a, b)| a.0 != b.0).count(),
            both().filter(|(a, b)| !near(a.1, b.1)).count(),
            both().filter(|(a, b)| a.2 != b.2).count(),
        );
        let changed = both().filter(|(a, b)| a.0 != b.0 || !near(a.1, b.1) || a.2 != b.2).count();
        let added = replay.keys().filter(|key| !live.contains_key(*key)).count();
        let removed = live.keys().filter(|key| !replay.contains_key(*key)).count();
        [added, removed, changed, orders, paid, best]
    }

    fn told(diff: &ViewDiff) -> [usize; 6] {
        let cells = |at: usize| diff.measures[at].changed;
        [diff.added, diff.removed, diff.changed, cells(0), cells(1), cells(2)].map(|count| count as usize)
    }

    #[test]
    fn whatever_changes_on_either_side_is_told_as_a_comparison_from_nothing_would() {
        for seed in 0..40 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut live, mut replay) = (Rows::new(), Rows::new());
            let mut kept = Kept::new(shape());
            let keys = random.u64(1..60);
            for _ in 0..30 {
                let mut updates = BTreeMap::new();
                for _ in 0..random.usize(0..20) {
                    let number = random.u64(0..keys);
                    let country = ["DE", "FR"][number as usize % 2];
                    let minute = format!("2026-01-01 00:0{}:00", number % 7);
                    let key = json!([minute, country, number / 5]);
                    let key = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15), key.to_string());
                    let side = if random.bool() { Side::Live } else { Side::Replay };
                    // Few values, some of them within the tolerance, so that rows are often equal again.
                    let paid = *random.choice(&[0.0, 1.5, 1.5 + 1e-9, -2.25, 1e15, 1e-15]).unwrap();
                    let best = *random.choice(&[None, Some("a"), Some("b, \"c\"")]).unwrap();
                    let row = random.u32(0..4).gt(&0).then(|| (random.i64(-1..2), paid, best));
                    updates.insert((side, key), row);
                }
                for ((side, key), row) in updates {
                    let rows = if side == Side::Live { &mut live } else { &mut replay };
                    match row {
                        Some(row) => drop(rows.insert(key.clone(), row)),
                        None => drop(rows.remove(&key)),
                    }
                    kept.set(side, key, row.map(text));
                }
                kept.settle();
                let diff = kept.told(3);
                assert_eq!(diff, once(&live, &replay, 3), "seed {seed}");
                assert_eq!(told(&diff), naive(&live, &replay), "seed {seed}");
                assert_eq!(kept.rows(), (live.len() + replay.len()) as u64);
            }
        }
    }

    #[test]
    fn more_rows_than_go_together_are_the_same_and_equal_ones_leave_nothing() {
        let mut kept = Kept::new(shape());
        let mut rows = Rows::new();
        for number in 0..40_000_u64 {
            let key = json!([number.to_string(), "DE", number % 500]).to_string();
            rows.insert((number, key), (number as i64, 0.1, None));
        }
        for (key, row) in &rows {
            kept.set(Side::Live, key.clone(), Some(text(*row)));
            kept.set(Side::Replay, key.clone(), Some(text(*row)));
        }
        kept.settle();
        assert_eq!(kept.told(5), once(&rows, &rows, 5));
        assert!(kept.told(5).is_equal() && kept.sums.borrow().differing.is_empty());
        for key in rows.keys() {
            kept.set(Side::Replay, key.clone(), None);
        }
        kept.settle();
        assert_eq!(kept.told(5), once(&rows, &Rows::new(), 5));
        assert_eq!(kept.told(5).removed, 40_000);
    }
}
