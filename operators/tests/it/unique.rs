//! Uniqueness against a list of every event that kept the rule, through evictions, restarts and other numbers of workers.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, UInt8Type, UInt16Type, UInt64Type};
use arrow_array::{Array, ArrayRef, BinaryArray, ListArray, RecordBatch, UInt16Array};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use weir_operators::detect::SenderColumns;
use weir_operators::expr::{Comparison, Expr, Function, Scalar};
use weir_operators::operator::{Context, Effects, Operator};
use weir_operators::refuse::Refusing;
use weir_operators::rule::{Basis, Rule};
use weir_operators::unique::{KeyUnique, Unique, Uniqueness, Verdict};
use weir_schemas::fate::Reason;
use weir_schemas::rule::{Mode, Severity};
use weir_schemas::stage::{
    BROKEN_RULES, RECORD_COLUMNS, broken_rule_field, event_schema, marked_event_schema, recorded_event_schema, system,
};
use weir_schemas::time::{Epoch, EventTime, Span};
use weir_schemas::types::{ColumnType, Width};

use crate::events::{self, Event};
use crate::harness::{Harness, Random, seeds};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
/// The rule's number in the marks; others stand on both sides of it.
const NUMBER: u16 = 3;

/// The user is unique, of kind a.
fn rule(within: i64) -> Uniqueness {
    let column = |index: usize, name: &str, column_type| Expr::Column { index, name: name.to_owned(), column_type };
    let user = column(events::USER, "user", ColumnType::UInt(Width::W64));
    let kind = column(events::KIND, "kind", ColumnType::LowCardinality);
    let a = Expr::Literal { value: Scalar::Bytes(Arc::from(b"a".as_slice())), column_type: ColumnType::String };
    Uniqueness {
        key: vec![Expr::call(Function::ToString, vec![user]).unwrap()],
        when: Some(Expr::call(Function::Compare(Comparison::Equal), vec![kind, a]).unwrap()),
        within: Span(within),
    }
}

/// The rules of the source, of which the one in question refuses if `mode` says so: then it has no number, and 7 is `v8`.
fn rules(within: i64, mode: Mode) -> Vec<Rule> {
    let ids = ["r0", "r1", "r2", "unique", "v4", "v5", "v6", "v7", "v8"];
    let unique = |id: &str| id == "unique";
    let rule = |id: &str| Rule {
        id: id.into(),
        mode: if unique(id) { mode } else { Mode::Tag },
        severity: Severity::Critical,
        owner: "web".into(),
        field: "user".into(),
        when: "".into(),
        expected: "one of each".into(),
        basis: Basis::Unique(Box::new(self::rule(within))),
        shown: Vec::new(),
        fingerprint: "0123".into(),
    };
    ids.map(rule).into()
}

fn harness(mode: Mode, within: i64, lateness: i64, memory_bytes: usize, peers: usize) -> Harness {
    let records = if mode.passes() { 0 } else { RECORD_COLUMNS.len() };
    let route = KeyUnique::group_column(system::COUNT + events::columns().len() + 1 + records);
    Harness::new(peers, Some(route), move |registry| {
        let rules = rules(within, mode);
        let sender = SenderColumns { tenant: Some(events::TENANT), ..SenderColumns::default() };
        let refusing = || Box::new(Refusing::new(rules[usize::from(NUMBER)].clone(), &rules, sender));
        let verdict = match mode {
            Mode::Quarantine => Verdict::Refuse { refusing: refusing(), is_last: true },
            _ => Verdict::Mark(NUMBER),
        };
        Box::new(Unique::new(Span(within), Span(lateness), verdict, memory_bytes, registry).unwrap())
    })
}

/// Marks that the event has already: rules 1 and 7 where its offset is odd.
fn marked(events: &[Event]) -> RecordBatch {
    let batch = events::batch(events);
    let (mut numbers, mut offsets) = (Vec::new(), vec![0i32]);
    for event in events {
        if event.offset % 2 == 1 {
            numbers.extend([1u16, 7]);
        }
        offsets.push(numbers.len() as i32);
    }
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    let marks = ListArray::new(broken_rule_field(), offsets, Arc::new(UInt16Array::from(numbers)), None);
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(marks));
    RecordBatch::try_new(marked_event_schema(&event_schema(&events::columns())), columns).unwrap()
}

/// The bytes of the record at an offset.
fn record_of(offset: i64) -> Vec<u8> {
    format!("record {offset}").into_bytes()
}

fn keyed(events: &[Event], within: i64, mode: Mode) -> RecordBatch {
    let mut effects = Effects::default();
    let mut key = KeyUnique::new(rule(within), Some(events::TENANT), Some(events::ID));
    let mut batch = marked(events);
    if mode == Mode::Quarantine {
        let texts = |of: &dyn Fn(&Event) -> Option<Vec<u8>>| -> ArrayRef {
            Arc::new(events.iter().map(of).collect::<BinaryArray>())
        };
        let mut columns = batch.columns().to_vec();
        columns.push(texts(&|event| (event.offset % 3 > 0).then(|| event.id.clone().into_bytes())));
        columns.push(texts(&|event| Some(record_of(event.offset))));
        columns.push(texts(&|event| Some(vec![event.partition as u8])));
        batch = RecordBatch::try_new(recorded_event_schema(&batch.schema()), columns).unwrap();
    }
    key.on_batch(batch, &mut Context::new(Epoch(1), EventTime::MIN, &mut effects)).unwrap();
    effects.emitted.pop().unwrap().1
}

type Places = BTreeSet<(i32, i64)>;

fn places_of(batch: &RecordBatch) -> Places {
    let partitions = batch.column(system::PARTITION).as_primitive::<Int32Type>();
    let offsets = batch.column(system::OFFSET).as_primitive::<Int64Type>();
    partitions.values().iter().copied().zip(offsets.values().iter().copied()).collect()
}

/// All events that came out and went on, those refused, and how many were counted.
fn read_refused(emitted: Vec<(usize, RecordBatch)>) -> (Places, Places, u64) {
    let (mut all, mut refused, mut events, mut counted, mut tallied) =
        (Places::new(), Places::new(), Places::new(), 0, 0);
    for (output, batch) in emitted {
        match output {
            0 => {
                assert_eq!(batch.schema(), marked_event_schema(&event_schema(&events::columns())));
                all.extend(places_of(&batch));
            }
            1 => counted += batch.column(0).as_primitive::<UInt64Type>().values().iter().sum::<u64>(),
            2 => {
                let text =
                    |name: &str, row: usize| batch.column_by_name(name).unwrap().as_binary::<i32>().value(row).to_vec();
                let broken = batch.column_by_name("broken_rules").unwrap().as_list::<i32>();
                for (row, place) in (0..).zip(rows_of(&batch)) {
                    assert!(refused.insert(place), "{place:?} was refused twice");
                    assert_eq!((text("rule", row), text("owner", row)), (b"unique".to_vec(), b"web".to_vec()));
                    assert_eq!((text("value", row), text("headers", row)), (record_of(place.1), vec![place.0 as u8]));
                    assert_eq!(batch.column_by_name("key").unwrap().is_null(row), place.1 % 3 == 0);
                    let ids = broken.value(row);
                    let ids: Vec<&[u8]> = ids.as_binary::<i32>().iter().flatten().collect();
                    let expected: &[&[u8]] = if place.1 % 2 == 1 { &[b"r1", b"unique", b"v8"] } else { &[b"unique"] };
                    assert_eq!(ids, expected);
                }
            }
            3 => {
                let fates = batch.column(4).as_primitive::<UInt8Type>();
                assert!(fates.values().iter().all(|fate| *fate == Reason::Rule.fate() as u8));
                tallied += batch.column(5).as_primitive::<UInt64Type>().values().iter().sum::<u64>();
            }
            _ => events.extend(places_of(&batch)),
        }
    }
    assert_eq!((&events, tallied), (&refused, counted));
    assert!(all.is_disjoint(&refused));
    all.extend(&refused);
    (all, refused, counted)
}

/// The places of a batch of refused records, in its order.
fn rows_of(batch: &RecordBatch) -> Vec<(i32, i64)> {
    let partitions = batch.column(1).as_primitive::<Int32Type>();
    let offsets = batch.column(2).as_primitive::<Int64Type>();
    partitions.values().iter().copied().zip(offsets.values().iter().copied()).collect()
}

/// All events that came out, those marked, and how many were counted.
fn read(emitted: Vec<(usize, RecordBatch)>) -> (Places, Places, u64) {
    let (mut all, mut broken, mut counted) = (Places::new(), Places::new(), 0);
    for (output, batch) in emitted {
        if output == 1 {
            counted += batch.column(0).as_primitive::<UInt64Type>().values().iter().sum::<u64>();
            continue;
        }
        assert_eq!(batch.schema(), marked_event_schema(&event_schema(&events::columns())));
        let partitions = batch.column(system::PARTITION).as_primitive::<Int32Type>();
        let offsets = batch.column(system::OFFSET).as_primitive::<Int64Type>();
        let marks = batch.column_by_name(BROKEN_RULES).unwrap().as_list::<i32>();
        for row in 0..batch.num_rows() {
            let place = (partitions.value(row), offsets.value(row));
            assert!(all.insert(place), "{place:?} came out twice");
            let of_row = marks.value(row);
            let numbers = of_row.as_primitive::<UInt16Type>().values().to_vec();
            let before: &[u16] = if place.1 % 2 == 1 { &[1, 7] } else { &[] };
            let mut with: Vec<u16> = before.iter().copied().chain([NUMBER]).collect();
            with.sort_unstable();
            if numbers == with {
                broken.insert(place);
            } else {
                assert_eq!(numbers, before, "{place:?}");
            }
        }
    }
    (all, broken, counted)
}

/// The slow answer: whether an event breaks the rule, given all that kept it.
fn breaks(kept: &mut Vec<Event>, event: &Event, within: i64) -> bool {
    if event.kind != "a" {
        return false;
    }
    let near = kept.iter().filter(|known| (known.tenant, known.user) == (event.tenant, event.user));
    let near: Vec<&Event> = near.filter(|known| (known.at - event.at).abs() <= within).collect();
    let (is_copy, is_taken) = (near.iter().any(|known| known.id == event.id), !near.is_empty());
    if !is_taken {
        kept.push(event.clone());
    }
    is_taken && !is_copy
}

#[test]
fn every_event_is_judged_as_against_a_list_of_all_that_kept_the_rule() {
    let (mut judged, mut found) = (0, 0);
    for seed in seeds(18) {
        let mut random = Random::new(seed + 4_000);
        let within = [30 * SECOND, 4 * MINUTE, 25 * MINUTE][seed as usize % 3];
        let lateness = [0, 2 * MINUTE][seed as usize % 2];
        let memory = [1, 1_500, 1 << 30][(seed as usize / 3) % 3];
        let mode = [Mode::Tag, Mode::Quarantine][(seed as usize / 2) % 2];
        let mut harness = harness(mode, within, lateness, memory, 1 + seed as usize % 3);
        let (mut kept, mut watermark, mut offset) = (Vec::new(), 1_000 * MINUTE, 0);
        for epoch in 0..60 {
            let (mut places, mut expected) = (Places::new(), Places::new());
            for _ in 0..random.below(3) {
                let batch: Vec<Event> = (0..1 + random.below(30))
                    .map(|_| {
                        offset += 1;
                        let user = random.below(40);
                        Event {
                            partition: random.below(3) as i32,
                            offset,
                            at: random.between(watermark - lateness, watermark + 4 * MINUTE),
                            tenant: ["acme", "globex"][random.below(2) as usize],
                            kind: ["a", "b"][usize::from(random.once_in(4))],
                            amount: None,
                            user,
                            // Copies are common: an id belongs to few events of its user.
                            id: format!("{user}-{}", random.below(4)),
                        }
                    })
                    .collect();
                for event in &batch {
                    places.insert((event.partition, event.offset));
                    if breaks(&mut kept, event, within) {
                        expected.insert((event.partition, event.offset));
                    }
                }
                judged += batch.len();
                harness.input(keyed(&batch, within, mode));
            }
            watermark += random.between(0, 3 * MINUTE);
            harness.raise(EventTime(watermark));
            harness.finish_epoch();
            found += expected.len();
            let counted = expected.len() as u64;
            let emitted = harness.take_emitted();
            let found = if mode.passes() { read(emitted) } else { read_refused(emitted) };
            assert_eq!(found, (places, expected, counted), "epoch {epoch} of seed {seed}");
            if random.once_in(10) {
                harness.start(1 + random.below(3) as usize);
            }
        }
    }
    assert!(found > 1_000 && judged > found * 2, "{found} of {judged}: the runs show too little");
}

#[test]
fn what_was_not_committed_is_not_remembered_after_a_restart() {
    let event = |offset, id: &str| Event {
        partition: 0,
        offset,
        at: MINUTE,
        tenant: "t",
        kind: "a",
        amount: None,
        user: 1,
        id: id.to_owned(),
    };
    let mut harness = harness(Mode::Tag, MINUTE, 0, 1 << 20, 1);
    harness.input(keyed(&[event(2, "x")], MINUTE, Mode::Tag));
    harness.end_of_epoch();
    harness.start(2);
    harness.take_emitted();
    harness.input(keyed(&[event(4, "y")], MINUTE, Mode::Tag));
    harness.finish_epoch();
    harness.start(1);
    harness.input(keyed(&[event(6, "x"), event(8, "y")], MINUTE, Mode::Tag));
    harness.finish_epoch();
    let (all, broken, counted) = read(harness.take_emitted());
    assert_eq!((all.len(), broken, counted), (3, Places::from([(0, 6)]), 1));
}
