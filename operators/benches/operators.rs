//! Nanoseconds of CPU per event of combine, maintain, identify and deduplicate, and of a rule of sequences with 20,000 devices
//! of which none loses anything, in memory and on one thread; and of judging by a tracking plan of 20 versions with five event types, five requirements each, beside the same 500 requirements as rules.
//!
//! `cargo bench -p weir-operators --profile dev --bench operators`; an argument is the number of events (1,000,000).
//! The events: 20 tenants, 5 types, 20,000 users, an amount with two decimals, over ten minutes; the view groups by
//! minute, tenant and type, with count, sum of the amount and exact distinct users.

#![allow(clippy::unwrap_used, reason = "a test or benchmark ends where it can't go on")]

use std::hint::black_box;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, Decimal128Array, Int32Array, Int64Array, RecordBatch, UInt16Array, UInt32Array,
};
use weir_operators::account::TopicNames;
use weir_operators::aggregate::{Call, Function};
use weir_operators::combine::Combine;
use weir_operators::deduplicate::{Deduplicate, Deduplication, Identify};
use weir_operators::detect::SenderColumns;
use weir_operators::expr::{Comparison, Expr, Function as Calculation, Scalar};
use weir_operators::maintain::{CLOSING_BYTES, Keeping, Maintain, PROVISIONAL_BYTES};
use weir_operators::operator::{Context, Effects, Operator};
use weir_operators::plan::{Claims, Plan, Scope};
use weir_operators::rule::{self, Basis, Rule};
use weir_operators::sequence::{KeySequence, Sequence, Sequencing, Tell};
use weir_operators::state::{FrozenChanges, StateRegistry, Store, StoreOptions};
use weir_operators::view::{Dimension, Measure, Output, ViewPlan, Width, Window};
use weir_schemas::rule::{Mode, Severity};
use weir_schemas::stage::{Column, event_schema, system};
use weir_schemas::time::{Epoch, EventTime, Span};
use weir_schemas::types::{ColumnType, Width as Bits};

const BATCH: usize = 8_192;
/// Batches of one epoch.
const EPOCH: usize = 16;

fn columns() -> Vec<Column> {
    vec![
        Column::new("id", ColumnType::String),
        Column::new("tenant", ColumnType::String),
        Column::new("type", ColumnType::LowCardinality),
        Column::new("user", ColumnType::String),
        Column::new("amount", ColumnType::Decimal(18, 2)),
    ]
}

fn batch(first: u64) -> RecordBatch {
    let rows = first..first + BATCH as u64;
    let scattered = |row: u64| row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let text = |of: &dyn Fn(u64) -> String| -> ArrayRef {
        Arc::new(BinaryArray::from_iter_values(rows.clone().map(|row| of(row).into_bytes())))
    };
    let amounts = Decimal128Array::from_iter_values(rows.clone().map(|row| i128::from(scattered(row) % 10_000)));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt16Array::from_iter_values(rows.clone().map(|_| 0))),
        Arc::new(Int32Array::from_iter_values(rows.clone().map(|row| (row / BATCH as u64 % 8) as i32))),
        Arc::new(Int64Array::from_iter_values(rows.clone().map(|row| row as i64))),
        Arc::new(Int64Array::from_iter_values(rows.clone().map(|row| row as i64))),
        Arc::new(UInt32Array::from_iter_values(rows.clone().map(|_| 1))),
        Arc::new(Int64Array::from_iter_values(
            rows.clone().map(|row| row as i64 * 600 + (scattered(row) % 9_000_000) as i64),
        )),
        text(&|row| format!("{:016x}", scattered(row) ^ row << 40)),
        text(&|row| format!("tenant-{}", scattered(row) % 20)),
        text(&|row| ["view", "click", "purchase", "cart", "search"][scattered(row) as usize % 5].to_owned()),
        text(&|row| format!("user-{}", scattered(row * 7) % 20_000)),
        Arc::new(amounts.with_precision_and_scale(18, 2).unwrap()),
    ];
    RecordBatch::try_new(event_schema(&self::columns()), columns).unwrap()
}

fn plan() -> Arc<ViewPlan> {
    let column = |at: usize| Expr::Column {
        index: system::COUNT + at,
        name: columns()[at].name.clone(),
        column_type: columns()[at].column_type.clone(),
    };
    let call = |function, arguments, signature: &str, result| Call {
        function,
        arguments,
        condition: None,
        signature: signature.to_owned(),
        result,
    };
    let count = ColumnType::UInt(Bits::W64);
    let measures = vec![
        Measure { name: "events".into(), call: call(Function::Count, vec![], "count", count.clone()) },
        Measure {
            name: "revenue".into(),
            call: call(Function::Sum, vec![column(4)], "sum, Decimal(18, 2)", ColumnType::Decimal(38, 2)),
        },
        Measure { name: "users".into(), call: call(Function::UniqExact, vec![column(3)], "uniqExact, String", count) },
    ];
    Arc::new(ViewPlan {
        name: "bench".into(),
        source: "events".into(),
        filter: None,
        window: Window {
            name: "minute".into(),
            column_type: ColumnType::DateTime(None),
            width: Width::Fixed(Span(60_000_000)),
            zone: None,
        },
        dimensions: vec![
            Dimension { name: "tenant".into(), value: column(1) },
            Dimension { name: "type".into(), value: column(2) },
        ],
        measures,
        outputs: vec![
            Output::Window,
            Output::Dimension(0),
            Output::Dimension(1),
            Output::Measure(0),
            Output::Measure(1),
            Output::Measure(2),
        ],
        having: None,
    })
}

/// Nanoseconds of CPU that this thread has taken, as Linux counts them: what others do on the machine does not count.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// An operator with the time that its calls took.
struct Timed {
    name: &'static str,
    operator: Box<dyn Operator>,
    registry: StateRegistry,
    taken: u64,
    epoch: Epoch,
    watermark: EventTime,
    /// What the last epoch changed.
    frozen: Vec<Arc<FrozenChanges>>,
}

impl Timed {
    fn new(
        name: &'static str,
        store: &Arc<Store>,
        build: impl FnOnce(&mut StateRegistry) -> Box<dyn Operator>,
    ) -> Timed {
        let mut registry = StateRegistry::new(store.clone(), name, 0, 1, Epoch(1)).unwrap();
        Timed {
            name,
            operator: build(&mut registry),
            registry,
            taken: 0,
            epoch: Epoch(1),
            watermark: EventTime(0),
            frozen: Vec::new(),
        }
    }

    fn input(&mut self, batch: RecordBatch) -> Vec<RecordBatch> {
        self.call(|operator, cx| operator.on_batch(batch, cx).unwrap())
    }

    fn call(&mut self, call: impl FnOnce(&mut dyn Operator, &mut Context<'_>)) -> Vec<RecordBatch> {
        let mut effects = Effects::default();
        let started = cpu_ns();
        call(&mut *self.operator, &mut Context::new(self.epoch, self.watermark, &mut effects));
        self.taken += cpu_ns() - started;
        black_box(&effects.changes);
        effects.emitted.into_iter().filter(|(output, _)| *output == 0).map(|(_, batch)| batch).collect()
    }

    /// Ends the epoch; writing to the disk is not counted.
    fn end(&mut self) -> Vec<RecordBatch> {
        let emitted = self.call(|operator, cx| operator.end_of_epoch(cx).unwrap());
        let started = cpu_ns();
        let frozen = self.registry.freeze(self.epoch).unwrap();
        self.taken += cpu_ns() - started;
        self.frozen = black_box(frozen);
        self.epoch = self.epoch.next();
        emitted
    }

    fn report(&self, events: usize) {
        println!("{:<12} {:>7.1} ns/event", self.name, self.taken as f64 / events as f64);
    }
}

/// A rule that the events of each of 20,000 devices are numbered, by the places of the events.
fn numbered() -> (Rule, Sequencing) {
    let whole = |value: i64| Expr::Literal { value: Scalar::Int(value), column_type: ColumnType::Int(Bits::W64) };
    let offset =
        || Expr::Column { index: system::OFFSET, name: "_offset".into(), column_type: ColumnType::Int(Bits::W64) };
    let device = Expr::call(Calculation::Modulo, vec![offset(), whole(20_000)]).unwrap();
    let sequencing = Sequencing {
        device: Expr::call(Calculation::ToString, vec![device]).unwrap(),
        number: Expr::call(Calculation::IntDiv, vec![offset(), whole(20_000)]).unwrap(),
        when: None,
        within: Span(10_000_000),
        starts_at: None,
        columns: Vec::new(),
        is_masked: false,
    };
    let rule = Rule {
        id: "numbered".into(),
        mode: Mode::Observe,
        severity: Severity::Warning,
        owner: "".into(),
        field: "seq".into(),
        when: "".into(),
        expected: "".into(),
        basis: Basis::Sequence(Box::new(sequencing.clone())),
        shown: Vec::new(),
        fingerprint: "".into(),
    };
    (rule, sequencing)
}

/// Keying, keeping and walking over numbers, with a judge's windows of a minute.
fn follow_sequences(all: &[RecordBatch], store: &Arc<Store>) {
    let (rule, sequencing) = numbered();
    let sender = SenderColumns { tenant: None, sdk: Some(system::COUNT + 2), ..SenderColumns::default() };
    let topics = vec![TopicNames { source: "shop".into(), topic: "events".into() }];
    let tell = Tell::new(rule, false, topics, Some(Span(60_000_000)));
    let mut key = Timed::new("key sequence", store, |_| Box::new(KeySequence::new(sequencing.clone(), sender)));
    let mut sequence = Timed::new("sequence", store, |registry| {
        Box::new(Sequence::new(&sequencing, Span(0), tell, 256 << 20, registry).unwrap())
    });
    for (number, epoch) in all.chunks(EPOCH).enumerate() {
        for batch in epoch {
            for keyed in key.input(batch.clone()) {
                sequence.input(keyed);
            }
        }
        // Events are up to nine seconds out of order.
        sequence.watermark = EventTime(((number + 1) * EPOCH * BATCH) as i64 * 600 - 9_000_000);
        sequence.end();
        let mut writes = store.writes();
        sequence.frozen.iter().for_each(|changes| changes.write_into(&mut writes));
        store.commit(writes, Epoch(number as u64 + 1)).unwrap();
    }
    [key, sequence].iter().for_each(|timed| timed.report(all.len() * BATCH));
}

/// A requirement that all events keep, a little different for each number.
fn requirement(number: usize) -> Expr {
    let (at, least) = if number.is_multiple_of(2) { (0, 1) } else { (3, 2) };
    let text = Expr::Column { index: system::COUNT + at, name: "text".into(), column_type: ColumnType::String };
    let length = Expr::call(Calculation::Length, vec![text]).unwrap();
    let least = Expr::Literal { value: Scalar::Int(least - number as i64), column_type: ColumnType::Int(Bits::W64) };
    Expr::call(Calculation::Compare(Comparison::GreaterOrEqual), vec![length, least]).unwrap()
}

/// A plan whose versions are the tenants, and its requirements as rules of their own.
fn tracking_plan() -> (Plan, Vec<Rule>) {
    let versions: Vec<String> = (0..20).map(|tenant| format!("tenant-{tenant}")).collect();
    let version = Expr::Column { index: system::COUNT + 1, name: "tenant".into(), column_type: ColumnType::String };
    let mut claims = Claims::new(system::COUNT + 2, version, &versions, None);
    let (mut scopes, mut rules) = (Vec::new(), Vec::new());
    for version in 0..versions.len() {
        for event_type in ["view", "click", "purchase", "cart", "search"] {
            claims.add(version, event_type, scopes.len());
            let conditions: Vec<(usize, Expr)> =
                (rules.len()..rules.len() + 5).map(|number| (number, requirement(number))).collect();
            scopes.push(Scope::new(&conditions));
            rules.extend(conditions.into_iter().map(|(number, condition)| Rule {
                id: format!("rule-{number}").into(),
                mode: Mode::Tag,
                severity: Severity::Warning,
                owner: "".into(),
                field: "".into(),
                when: "".into(),
                expected: "".into(),
                basis: Basis::Condition(condition),
                shown: Vec::new(),
                fingerprint: "".into(),
            }));
        }
    }
    let unknown_type = vec![None; versions.len()];
    let plan = Plan { claims: Arc::new(claims), scopes, unknown_version: None, unknown_type, unplanned: None };
    (plan, rules)
}

/// Judging by a plan and by rules; nothing is broken, as is the rule.
fn judge(all: &[RecordBatch]) {
    let (plan, rules) = tracking_plan();
    let events = all.len() * BATCH;
    let report = |name: &str, taken: u64| println!("{name:<12} {:>7.1} ns/event", taken as f64 / events as f64);
    let started = cpu_ns();
    for batch in all {
        assert!(plan.judge(black_box(batch)).unwrap().is_empty());
    }
    report("plan", cpu_ns() - started);
    let started = cpu_ns();
    for batch in all {
        assert!(rule::judge(&rules, black_box(batch)).unwrap().is_empty());
    }
    report("as rules", cpu_ns() - started);
}

fn main() {
    let asked = std::env::args().skip(1).find_map(|argument| argument.parse::<usize>().ok());
    let batches = asked.unwrap_or(1_000_000).div_ceil(BATCH);
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path(), StoreOptions::default()).unwrap());
    let keeping = Keeping {
        provisional: true,
        allowed_lateness: Span(0),
        retained: Span(0),
        memory_bytes: 256 << 20,
        closing_bytes: CLOSING_BYTES,
        provisional_bytes: PROVISIONAL_BYTES,
    };
    let mut combine = Timed::new("combine", &store, |_| Box::new(Combine::new(plan(), 64 << 20).unwrap()));
    let mut maintain =
        Timed::new("maintain", &store, |registry| Box::new(Maintain::new(plan(), keeping, registry).unwrap()));
    let mut identify =
        Timed::new("identify", &store, |_| Box::new(Identify::new(Some(system::COUNT + 1), system::COUNT)));
    let settings = Deduplication {
        tenant: Some(system::COUNT + 1),
        allowed_lateness: Span(0),
        horizon: Span(0),
        retained: Span(0),
        memory_bytes: 512 << 20,
    };
    let mut deduplicate =
        Timed::new("deduplicate", &store, |registry| Box::new(Deduplicate::new(settings, registry).unwrap()));
    let all: Vec<RecordBatch> = (0..batches as u64).map(|at| batch(at * BATCH as u64)).collect();
    for epoch in all.chunks(EPOCH) {
        for batch in epoch {
            for partials in combine.input(batch.clone()) {
                maintain.input(partials);
            }
            for identified in identify.input(batch.clone()) {
                black_box(deduplicate.input(identified));
            }
        }
        for partials in combine.end() {
            maintain.input(partials);
        }
        maintain.end();
        deduplicate.end();
    }
    let events = batches * BATCH;
    println!("{events} events, {batches} batches, {} epochs", batches.div_ceil(EPOCH));
    [combine, maintain, identify, deduplicate].iter().for_each(|timed| timed.report(events));
    let folder = tempfile::tempdir().unwrap();
    follow_sequences(&all, &Arc::new(Store::open(folder.path(), StoreOptions::default()).unwrap()));
    judge(&all);
}
