//! Combine and maintain together, against a recomputation over all events that shares no code with them, and scripts
//! for single properties.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampSecondType, UInt32Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use weir_operators::aggregate::{Call, Function};
use weir_operators::combine::{Combine, GROUP};
use weir_operators::expr::{self, Comparison, Expr, Scalar};
use weir_operators::maintain::{CLOSING_BYTES, Keeping, Maintain, PROVISIONAL_BYTES};
use weir_operators::operator::{Context, Effects, Operator};
use weir_operators::view::{Dimension, Measure, Output, ViewPlan, Width, Window};
use weir_schemas::rows::Changes;
use weir_schemas::time::{Epoch, EventTime, Span};
use weir_schemas::types::{ColumnType, Width as Bits};

use crate::events::{self, Event};
use crate::harness::{Harness, Random, seeds};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;

fn column(index: usize) -> Expr {
    let column = &events::columns()[index - events::TENANT];
    Expr::Column { index, name: column.name.clone(), column_type: column.column_type.clone() }
}

fn is_kind(kind: &str) -> Expr {
    let literal = Expr::Literal { value: Scalar::Bytes(kind.as_bytes().into()), column_type: ColumnType::String };
    Expr::call(expr::Function::Compare(Comparison::Equal), vec![column(events::KIND), literal]).unwrap()
}

fn u64_type() -> ColumnType {
    ColumnType::UInt(Bits::W64)
}

fn call(function: Function, arguments: Vec<Expr>, signature: &str, result: ColumnType) -> Call {
    Call { function, arguments, condition: None, signature: signature.to_owned(), result }
}

/// `SELECT toStartOfMinute(..) AS minute, tenant, count() AS events, sumIf(amount, kind = 'buy') AS revenue,
/// uniqExact(user) AS users FROM events [WHERE kind = ..] GROUP BY minute, tenant [HAVING revenue >= 0]`
pub(crate) fn plan(having: bool) -> Arc<ViewPlan> {
    let amount = ColumnType::Int(Bits::W64).nullable();
    let mut revenue = call(Function::Sum, vec![column(events::AMOUNT)], "sum, Nullable(Int64)", amount.clone());
    revenue.condition = Some(is_kind("buy"));
    let measures = vec![
        Measure { name: "events".into(), call: call(Function::Count, vec![], "count", u64_type()) },
        Measure { name: "revenue".into(), call: revenue },
        Measure {
            name: "users".into(),
            call: call(Function::UniqExact, vec![column(events::USER)], "uniqExact, UInt64", u64_type()),
        },
    ];
    let zero = Expr::Literal { value: Scalar::Int(0), column_type: ColumnType::Int(Bits::W64) };
    let revenue = Expr::Column { index: 3, name: "revenue".into(), column_type: amount };
    let not_negative = Expr::call(expr::Function::Compare(Comparison::GreaterOrEqual), vec![revenue, zero]).unwrap();
    let not_beat = Expr::call(expr::Function::Not, vec![is_kind("beat")]).unwrap();
    Arc::new(ViewPlan {
        name: "revenue".into(),
        source: "events".into(),
        filter: Some(not_beat),
        window: Window {
            name: "minute".into(),
            column_type: ColumnType::DateTime(None),
            width: Width::Fixed(Span(MINUTE)),
            zone: None,
        },
        dimensions: vec![Dimension { name: "tenant".into(), value: column(events::TENANT) }],
        measures,
        outputs: vec![Output::Window, Output::Dimension(0), Output::Measure(0), Output::Measure(1), Output::Measure(2)],
        having: having.then_some(not_negative),
    })
}

type Key = (i64, String);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Row {
    events: u64,
    revenue: Option<i64>,
    users: BTreeSet<u64>,
}

/// The slow answer: everything again from all events.
fn recompute(events: &[Event], having: bool) -> BTreeMap<Key, Row> {
    let mut rows: BTreeMap<Key, Row> = BTreeMap::new();
    for event in events.iter().filter(|event| event.kind != "beat") {
        let row = rows.entry((event.at.div_euclid(MINUTE) * 60, event.tenant.to_owned())).or_default();
        row.events += 1;
        row.users.insert(event.user);
        if event.kind == "buy"
            && let Some(amount) = event.amount
        {
            row.revenue = Some(row.revenue.unwrap_or(0) + amount);
        }
    }
    rows.retain(|_, row| !having || row.revenue.is_some_and(|revenue| revenue >= 0));
    rows
}

/// The table as ClickHouse would show it: the newest row of each key.
#[derive(Default)]
struct Table {
    rows: BTreeMap<Key, (Row, u32)>,
    written: u64,
    tombstones: u64,
}

impl Table {
    /// Applies the rows of an epoch; `closed_before` is the start up to which windows were closed before it.
    fn apply(&mut self, changes: &[Changes], closed_before: i64) {
        let mut seen = BTreeSet::new();
        for changes in changes {
            for at in 0..changes.rows.num_rows() {
                let (key, row, revision) = read_row(&changes.rows, at);
                assert!(seen.insert(key.clone()), "{key:?} was written twice in one epoch");
                self.written += 1;
                if changes.deleted.as_ref().is_some_and(|deleted| deleted.value(at)) {
                    self.tombstones += 1;
                    assert!(self.rows.remove(&key).is_some(), "a tombstone of {key:?}, which has no row");
                    assert_eq!(row, Row::default(), "a tombstone holds the values of no rows");
                    continue;
                }
                if let Some((old, old_revision)) = self.rows.get(&key) {
                    assert!(revision >= *old_revision, "the revision of {key:?} went down");
                    if key.0 < closed_before && *old != row {
                        assert!(revision > *old_revision, "{key:?} was corrected without a new revision");
                    }
                }
                self.rows.insert(key, (row, revision));
            }
        }
    }
}

fn read_row(rows: &RecordBatch, at: usize) -> (Key, Row, u32) {
    let minute = rows.column(0).as_primitive::<TimestampSecondType>().value(at);
    let tenant = String::from_utf8(rows.column(1).as_binary::<i32>().value(at).to_vec()).unwrap();
    let revenue = rows.column(3).as_primitive::<Int64Type>();
    let row = Row {
        events: rows.column(2).as_primitive::<UInt64Type>().value(at),
        revenue: revenue.is_valid(at).then(|| revenue.value(at)),
        users: read_set(rows.column(4).as_binary::<i32>().value(at)),
    };
    ((minute, tenant), row, rows.column(5).as_primitive::<UInt32Type>().value(at))
}

/// ClickHouse's state of uniqExact over UInt64: how many as LEB128, then each in eight bytes.
fn read_set(mut bytes: &[u8]) -> BTreeSet<u64> {
    let (mut count, mut shift) = (0u64, 0);
    loop {
        let byte = bytes[0];
        bytes = &bytes[1..];
        count |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    assert_eq!(bytes.len() as u64, count * 8);
    let set: BTreeSet<u64> = bytes.chunks(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap())).collect();
    assert_eq!(set.len() as u64, count);
    set
}

/// One run: how it is set up, and what happens in it.
#[derive(Clone, Copy, Debug)]
struct Setting {
    seed: u64,
    provisional: bool,
    having: bool,
    peers: usize,
    /// Memory of combine and of maintain; 1 keeps a single group.
    memory_bytes: usize,
    lateness: i64,
    /// For how long windows are kept for retried events beyond the lateness.
    retained: i64,
    users: u64,
    /// Ended epochs that wait for their commit.
    delay: usize,
    epochs: usize,
}

/// What an epoch was fed with, to be fed again after a restart.
#[derive(Clone, Default)]
struct Fed {
    batches: Vec<Vec<Event>>,
    watermark: Option<EventTime>,
}

struct Run {
    setting: Setting,
    combine: Vec<Combine>,
    harness: Harness,
    table: Table,
    /// Epochs that ended and are not committed, oldest first.
    waiting: VecDeque<Fed>,
    committed: Vec<Event>,
    restarts: usize,
    /// Runs that ended and were gone on from.
    ends: usize,
}

impl Run {
    fn new(setting: Setting) -> Run {
        let keeping = Keeping {
            provisional: setting.provisional,
            allowed_lateness: Span(setting.lateness),
            retained: Span(setting.retained),
            memory_bytes: setting.memory_bytes,
            closing_bytes: CLOSING_BYTES,
            provisional_bytes: PROVISIONAL_BYTES,
        };
        let harness = Harness::new(setting.peers, Some(GROUP), move |registry| {
            Box::new(Maintain::new(plan(setting.having), keeping, registry).unwrap())
        });
        let mut run = Run {
            setting,
            combine: Vec::new(),
            harness,
            table: Table::default(),
            waiting: VecDeque::new(),
            committed: Vec::new(),
            restarts: 0,
            ends: 0,
        };
        run.build_combine();
        run
    }

    fn build_combine(&mut self) {
        let one = || Combine::new(plan(self.setting.having), self.setting.memory_bytes).unwrap();
        self.combine = (0..self.setting.peers).map(|_| one()).collect();
    }

    fn combine(&mut self, worker: usize, call: impl FnOnce(&mut Combine, &mut Context<'_>)) {
        let mut effects = Effects::default();
        call(&mut self.combine[worker], &mut Context::new(Epoch(1), EventTime::MIN, &mut effects));
        for (_, partials) in effects.emitted {
            self.harness.input(partials);
        }
    }

    fn epoch(&mut self, fed: Fed) {
        for (at, events) in fed.batches.iter().enumerate() {
            self.combine(at % self.setting.peers, |combine, cx| combine.on_batch(events::batch(events), cx).unwrap());
        }
        for worker in 0..self.setting.peers {
            self.combine(worker, |combine, cx| combine.end_of_epoch(cx).unwrap());
        }
        if let Some(watermark) = fed.watermark {
            self.harness.raise(watermark);
        }
        self.harness.end_of_epoch();
        self.waiting.push_back(fed);
    }

    fn commit(&mut self) {
        let closed_before = match self.harness.committed.1 {
            EventTime::MIN => i64::MIN,
            EventTime(at) => at.div_euclid(MINUTE) * 60,
        };
        let Some(rows) = self.harness.commit() else { return };
        self.table.apply(&rows, closed_before);
        let fed = self.waiting.pop_front().unwrap();
        self.committed.extend(fed.batches.into_iter().flatten());
        self.check(fed.watermark == Some(EventTime::MAX));
    }

    /// The table is what a recomputation over the committed events gives.
    fn check(&self, has_ended: bool) {
        let mut expected = recompute(&self.committed, self.setting.having);
        if !self.setting.provisional && !has_ended {
            let complete = match self.harness.committed.1 {
                EventTime::MIN => i64::MIN,
                EventTime(at) => at.div_euclid(MINUTE) * 60,
            };
            // What the end of a run closed before its time is corrected from then on.
            let is_out = |key: &Key| self.ends > 0 && self.table.rows.contains_key(key);
            expected.retain(|key, _| key.0 < complete || is_out(key));
        }
        let rows: BTreeMap<Key, Row> =
            self.table.rows.iter().map(|(key, (row, _))| (key.clone(), row.clone())).collect();
        assert_eq!(rows, expected, "after epoch {:?} of {:?}", self.harness.committed, self.setting);
    }

    /// The run ends, and another one goes on from its state with `peers` workers.
    fn end(&mut self, peers: usize) {
        self.epoch(Fed { batches: Vec::new(), watermark: Some(EventTime::MAX) });
        while !self.waiting.is_empty() {
            self.commit();
        }
        self.ends += 1;
        self.restart(peers);
    }

    fn restart(&mut self, peers: usize) {
        self.restarts += 1;
        self.setting.peers = peers;
        self.harness.start(peers);
        self.build_combine();
        for fed in std::mem::take(&mut self.waiting) {
            self.epoch(fed);
        }
    }
}

fn random_event(random: &mut Random, offset: i64, from: i64, to: i64, users: u64) -> Event {
    Event {
        partition: 0,
        offset,
        at: random.between(from, to),
        tenant: ["", "acme", "globex", "initech"][random.below(4) as usize],
        kind: ["buy", "view", "beat"][random.below(3) as usize],
        amount: (!random.once_in(4)).then(|| random.between(-60, 50)),
        user: random.below(users),
        id: String::new(),
    }
}

fn run(setting: Setting) -> Run {
    let mut random = Random::new(setting.seed);
    let mut run = Run::new(setting);
    let (mut watermark, mut offset) = (100 * MINUTE, 0);
    for _ in 0..setting.epochs {
        let mut fed = Fed::default();
        for _ in 0..random.below(4) {
            // Now and then retried events, as old as the state keeps windows.
            let retained = if random.once_in(3) { setting.retained } else { 0 };
            let (from, to) = (watermark - setting.lateness - retained, watermark + 3 * MINUTE);
            let events = (0..random.below(40)).map(|_| {
                offset += 1;
                random_event(&mut random, offset, from, to, setting.users)
            });
            fed.batches.push(events.collect());
        }
        if !random.once_in(3) {
            watermark += random.between(0, 90 * SECOND);
            fed.watermark = Some(EventTime(watermark));
        }
        run.epoch(fed);
        if random.once_in(12) {
            run.restart(1 + random.below(3) as usize);
        }
        while run.waiting.len() > setting.delay {
            run.commit();
        }
        if random.once_in(15) {
            run.end(1 + random.below(3) as usize);
        }
    }
    // Every partition is at its end: all windows close.
    run.epoch(Fed { batches: Vec::new(), watermark: Some(EventTime::MAX) });
    while !run.waiting.is_empty() {
        run.commit();
    }
    assert!(run.table.written > 0);
    run
}

/// The end of a run closes the windows that there are, which are later ones at one worker than at another: whoever takes
/// over the key groups of both has to close what only one of them has closed.
#[test]
fn a_window_that_only_some_workers_closed_is_closed_by_whoever_comes_after() {
    const TENANTS: [&str; 4] = ["", "acme", "globex", "initech"];
    let pairs = TENANTS.iter().flat_map(|early| TENANTS.iter().map(move |late| (*early, *late)));
    for (early, late) in pairs.filter(|(early, late)| early != late) {
        let mut run = Run::new(Setting {
            seed: 0,
            provisional: false,
            having: false,
            peers: 2,
            memory_bytes: 1 << 30,
            lateness: 0,
            retained: 0,
            users: 1,
            delay: 0,
            epochs: 0,
        });
        let epoch = |run: &mut Run, tenant: &'static str, minute: i64, watermark: i64| {
            let event = Event {
                partition: 0,
                offset: minute,
                at: minute * MINUTE,
                tenant,
                kind: "buy",
                amount: Some(1),
                user: 1,
                id: String::new(),
            };
            run.epoch(Fed { batches: vec![vec![event]], watermark: Some(EventTime(watermark * MINUTE)) });
            run.commit();
        };
        epoch(&mut run, late, 110, 100);
        run.end(2);
        epoch(&mut run, early, 105, 104);
        run.restart(1);
        // Corrects what was closed before its time, then all of it is closed.
        epoch(&mut run, late, 110, 105);
        epoch(&mut run, late, 120, 112);
    }
}

#[test]
fn rows_are_those_of_a_recomputation_over_all_events() {
    let (mut tombstones, mut restarts, mut ends, mut corrected) = (0, 0, 0, 0);
    for seed in seeds(24) {
        let done = run(Setting {
            seed,
            provisional: seed % 2 == 0,
            having: seed % 3 == 0,
            peers: 1 + (seed as usize % 3),
            memory_bytes: [1, 2_000, 1 << 30][(seed as usize / 4) % 3],
            lateness: [0, 90 * SECOND, 10 * MINUTE][(seed as usize / 2) % 3],
            retained: [0, 6 * MINUTE, 40 * MINUTE][seed as usize % 3],
            users: 50,
            delay: seed as usize % 4,
            epochs: 40,
        });
        tombstones += done.table.tombstones;
        restarts += done.restarts;
        ends += done.ends;
        corrected += done.table.rows.values().filter(|(_, revision)| *revision > 0).count();
    }
    assert!(
        tombstones > 0 && restarts > 0 && ends > 20 && corrected > 0,
        "{tombstones} {restarts} {ends} {corrected}: the runs show too little"
    );
}
