//! Sequences against a recomputation from the list of all events: through disorder, copies, new beginnings, restarts
//! that lose what was not committed, and other numbers of workers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, UInt64Type};
use weir_operators::account::TopicNames;
use weir_operators::detect::SenderColumns;
use weir_operators::expr::{Comparison, Expr, Function, Scalar};
use weir_operators::operator::{Context, Effects, Operator};
use weir_operators::profile::{Cell, read_cells};
use weir_operators::rule::{Basis, Rule};
use weir_operators::sequence::{KeySequence, REMEMBERED_DAYS, Sequence, Sequencing, Tell};
use weir_schemas::rows::Changes;
use weir_schemas::rule::{Mode, Severity};
use weir_schemas::tables;
use weir_schemas::time::{Epoch, EventTime, Span};
use weir_schemas::types::{ColumnType, Width};

use crate::events::{self, Event};
use crate::harness::{Harness, Random, seeds};
use crate::judge::rows_of;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const DAY: i64 = 1_440 * MINUTE;
/// The judge's windows.
const WINDOW: i64 = MINUTE;

/// A rule over the column `number`, an Int64, of devices in the column `device`, a text.
pub(crate) fn rule(device: Expr, number: Expr, when: Option<Expr>, within: Span, starts_at: Option<i64>) -> Rule {
    let sequencing = Sequencing { device, number, when, within, starts_at, columns: Vec::new(), is_masked: false };
    Rule {
        id: Arc::from("numbered"),
        mode: Mode::Observe,
        severity: Severity::Warning,
        owner: Arc::from("mobile"),
        field: Arc::from("seq"),
        when: Arc::from(""),
        expected: Arc::from("every number"),
        basis: Basis::Sequence(Box::new(sequencing)),
        shown: Vec::new(),
        fingerprint: Arc::from("f"),
    }
}

/// The user is the device, the amount its number, of the events that aren't of kind x.
fn numbered(within: i64, starts_at: Option<i64>) -> Rule {
    let column = |index: usize, name: &str, column_type| Expr::Column { index, name: name.to_owned(), column_type };
    let user = column(events::USER, "user", ColumnType::UInt(Width::W64));
    let device = Expr::call(Function::ToString, vec![user]).unwrap();
    let number = column(events::AMOUNT, "amount", ColumnType::Int(Width::W64).nullable());
    let kind = column(events::KIND, "kind", ColumnType::LowCardinality);
    let x = Expr::Literal { value: Scalar::Bytes(Arc::from(b"x".as_slice())), column_type: ColumnType::String };
    let when = Expr::call(Function::Compare(Comparison::NotEqual), vec![kind, x]).unwrap();
    rule(device, number, Some(when), Span(within), starts_at)
}

pub(crate) fn sequencing(rule: &Rule) -> Sequencing {
    let Basis::Sequence(sequencing) = &rule.basis else { panic!("a rule of sequences") };
    (**sequencing).clone()
}

fn sender() -> SenderColumns {
    SenderColumns { tenant: Some(events::TENANT), sdk: Some(events::KIND), ..SenderColumns::default() }
}

fn harness(rule: &Rule, lateness: i64, memory_bytes: usize, peers: usize) -> Harness {
    let rule = rule.clone();
    Harness::new(peers, Some(KeySequence::GROUP), move |registry| {
        let topics = vec![TopicNames { source: "shop".into(), topic: "events".into() }];
        let tell = Tell::new(rule.clone(), false, topics, Some(Span(WINDOW)));
        Box::new(Sequence::new(&sequencing(&rule), Span(lateness), tell, memory_bytes, registry).unwrap())
    })
}

fn keyed(rule: &Rule, events: &[Event]) -> RecordBatch {
    let mut effects = Effects::default();
    let mut key = KeySequence::new(sequencing(rule), sender());
    key.on_batch(events::batch(events), &mut Context::new(Epoch(1), EventTime::MIN, &mut effects)).unwrap();
    effects.emitted.pop().map_or_else(|| RecordBatch::new_empty(Arc::new(arrow_schema::Schema::empty())), |of| of.1)
}

/// What was told: gaps by place (tenant, kind, missing numbers, the number behind), and counts by window, tenant and
/// kind.
#[derive(Debug, Default, PartialEq)]
struct Told {
    gaps: BTreeMap<(i32, i64), (String, String, String, String)>,
    counts: BTreeMap<(i64, String, String), (u64, u64)>,
}

impl Told {
    fn take_rows(&mut self, changes: Vec<Changes>) {
        for changes in changes {
            assert_eq!(*changes.table, *tables::VIOLATIONS);
            let texts = rows_of(&changes.rows);
            let partitions = changes.rows.column_by_name("partition").unwrap().as_primitive::<Int32Type>();
            let offsets = changes.rows.column_by_name("offset").unwrap().as_primitive::<Int64Type>();
            for (row, text) in texts.iter().enumerate() {
                assert_eq!(
                    (text["rule"].as_str(), text["field"].as_str(), text["owner"].as_str()),
                    ("numbered", "seq", "mobile")
                );
                let place = (partitions.value(row), offsets.value(row));
                let gap = ["tenant", "sdk", "expected", "found"].map(|name| text[name].clone());
                let [tenant, kind, expected, found] = gap;
                assert!(self.gaps.insert(place, (tenant, kind, expected, found)).is_none(), "{place:?} is told twice");
            }
        }
    }

    /// Cells have to come before a judge looks at their window, which it hasn't while the watermark was at `before`.
    fn take_cells(&mut self, emitted: Vec<(usize, RecordBatch)>, before: EventTime, lateness: i64) -> u64 {
        let mut gaps = 0;
        for (output, batch) in emitted {
            if output == 1 {
                gaps += batch.column(0).as_primitive::<UInt64Type>().values().iter().sum::<u64>();
                continue;
            }
            let cells = read_cells(&batch, |_, window, key, cell| {
                assert!(window + WINDOW > before.minus(Span(lateness)).0, "a cell comes too late for its window");
                let mut found = Cell::default();
                cell.add_to(&mut found)?;
                let numbers = &found.sequences[&(b"numbered".to_vec(), b"seq".to_vec())];
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let count = self.counts.entry((window, text(&key.tenant), text(&key.release[0]))).or_default();
                *count = (count.0 + numbers.received, count.1 + numbers.missing);
                Ok(())
            });
            cells.unwrap();
        }
        gaps
    }
}

/// The slow answer, from all events, for those whose buckets end by `settled`.
fn recomputed(all: &[Event], within: i64, starts_at: Option<i64>, settled: i64) -> Told {
    let mut told = Told::default();
    let width = (30 * SECOND).max(within / 8);
    let mut devices: BTreeMap<(&str, u64), Vec<&Event>> = BTreeMap::new();
    for event in all.iter().filter(|event| event.kind != "x" && event.amount.is_some_and(|number| number >= 0)) {
        devices.entry((event.tenant, event.user)).or_default().push(event);
    }
    for events in devices.values_mut() {
        events.sort_by_key(|event| (event.at, event.amount, event.partition, event.offset));
        events.dedup_by_key(|event| (event.at, event.amount));
        let number = |event: &Event| event.amount.unwrap();
        let (mut next, mut filled): (Option<i64>, BTreeSet<(i64, i64)>) = (None, BTreeSet::new());
        for (at, event) in events.iter().enumerate() {
            let end = event.at - event.at.rem_euclid(width) + width;
            if end > settled {
                break;
            }
            let own = number(event);
            let mut missing = Vec::new();
            if !filled.contains(&(event.at, own)) {
                let expected = next.unwrap_or(own);
                if own < expected && starts_at != Some(own) {
                    continue;
                }
                if own > expected && own - expected <= 10_000 {
                    let is_anew = |later: &&&Event| number(later) < expected && starts_at == Some(number(later));
                    let later = events[at + 1..].iter().take_while(|later| !is_anew(later));
                    let later: Vec<&&Event> = later.filter(|later| later.at <= event.at + within).collect();
                    for wanted in expected..own {
                        let is_it = |later: &&&&Event| number(later) == wanted && !filled.contains(&(later.at, wanted));
                        match later.iter().find(is_it).map(|later| later.at) {
                            Some(found) => {
                                filled.insert((found, wanted));
                            }
                            None => missing.push(wanted),
                        }
                    }
                }
                next = Some(own + 1);
            }
            let window = (end - 1 + within) - (end - 1 + within).rem_euclid(WINDOW);
            let key = (window, event.tenant.to_owned(), event.kind.to_owned());
            let count = told.counts.entry(key).or_default();
            *count = (count.0 + 1, count.1 + missing.len() as u64);
            if !missing.is_empty() {
                let gap = (event.tenant.to_owned(), event.kind.to_owned(), in_words(&missing), own.to_string());
                told.gaps.insert((event.partition, event.offset), gap);
            }
        }
    }
    told
}

/// Rising numbers as stretches, of which eight are told.
fn in_words(numbers: &[i64]) -> String {
    let mut stretches: Vec<(i64, i64)> = Vec::new();
    for &number in numbers {
        match stretches.last_mut() {
            Some(last) if last.1 + 1 == number => last.1 = number,
            _ => stretches.push((number, number)),
        }
    }
    let word = |(from, to): &(i64, i64)| if from == to { from.to_string() } else { format!("{from}-{to}") };
    let mut words: Vec<String> = stretches.iter().take(8).map(word).collect();
    if stretches.len() > 8 {
        words.push(format!("… ({} in all)", numbers.len()));
    }
    words.join(", ")
}

/// An event of a device that counts up with time: a number about every four seconds, some of them out of order; odd
/// devices begin anew at 1 after 40 numbers; one number in 300 is from another world.
fn event(random: &mut Random, at: i64, offset: i64) -> Event {
    let user = random.below(3);
    let ticks = at / (4 * SECOND) + random.between(-2, 3);
    let number = if user % 2 == 1 { ticks % 40 + 1 } else { ticks };
    let number = if random.once_in(300) { number + random.between(-9, 40_000) } else { number };
    Event {
        partition: random.below(3) as i32,
        offset,
        at,
        tenant: ["acme", "globex"][random.below(2) as usize],
        kind: ["a", "b", "x"][usize::from(random.once_in(4)) + usize::from(random.once_in(8))],
        amount: (!random.once_in(20)).then_some(number),
        user,
        id: String::new(),
    }
}

/// A bounded number of devices over some minutes, in epochs of several batches; now and then the process dies in an
/// epoch and reads it again, cut otherwise.
fn run(seed: u64) -> (usize, u64) {
    let mut random = Random::new(seed + 9_000);
    let within = [0, 7 * SECOND, 3 * MINUTE][seed as usize % 3];
    let lateness = [0, MINUTE][seed as usize % 2];
    let starts_at = [Some(1), None][(seed as usize / 2) % 2];
    let memory = [1, 2_000, 1 << 30][(seed as usize / 3) % 3];
    let rule = numbered(within, starts_at);
    let mut harness = harness(&rule, lateness, memory, 1 + seed as usize % 3);
    let (mut all, mut told, mut watermark, mut offset) = (Vec::new(), Told::default(), 1_000 * MINUTE, 0);
    for epoch in 0..50 {
        let mut fresh: Vec<Event> = Vec::new();
        for _ in 0..random.below(120) {
            offset += 1;
            let at = random.between(watermark - lateness, watermark + 90 * SECOND);
            fresh.push(event(&mut random, at, offset));
            if random.once_in(9) {
                offset += 1;
                fresh.push(Event { offset, ..fresh[fresh.len() - 1].clone() });
            }
        }
        let raised = watermark + random.between(0, MINUTE);
        loop {
            let mut left = fresh.as_slice();
            while !left.is_empty() {
                let (batch, rest) = left.split_at(1 + random.below(left.len() as u64) as usize);
                let batch = keyed(&rule, batch);
                if batch.num_rows() > 0 {
                    harness.input(batch);
                }
                left = rest;
            }
            harness.raise(EventTime(raised));
            harness.end_of_epoch();
            if !random.once_in(6) {
                break;
            }
            // Not committed: nothing of it may be left.
            harness.start(1 + random.below(3) as usize);
            harness.take_emitted();
        }
        let rows: Vec<Changes> = std::iter::from_fn(|| harness.commit()).flatten().collect();
        let before = if epoch == 0 { EventTime::MIN } else { EventTime(watermark) };
        let gaps = told.gaps.len();
        told.take_rows(rows);
        let counted = told.take_cells(harness.take_emitted(), before, lateness);
        assert_eq!(counted, (told.gaps.len() - gaps) as u64);
        watermark = raised;
        all.extend(fresh);
        let settled = watermark - lateness - within;
        if epoch % 7 == 0 {
            assert_eq!(told, recomputed(&all, within, starts_at, settled), "epoch {epoch} of seed {seed}");
        }
    }
    (told.gaps.len(), told.counts.values().map(|(received, _)| received).sum())
}

#[test]
fn every_gap_is_told_as_a_recomputation_from_all_events_finds_it() {
    let (mut gaps, mut received) = (0, 0);
    for seed in seeds(24) {
        let found = run(seed);
        (gaps, received) = (gaps + found.0, received + found.1);
    }
    assert!(gaps > 2_000 && received > 2 * gaps as u64, "{gaps} gaps, {received} numbers: the runs show too little");
}

/// An event of one device.
fn one(at: i64, number: i64) -> Event {
    let (partition, tenant, kind, user, id) = (0, "acme", "a", 1, String::new());
    Event { partition, offset: at / SECOND, at, tenant, kind, amount: Some(number), user, id }
}

#[test]
fn the_end_of_a_run_tells_nothing_before_its_time() {
    let rule = numbered(0, None);
    let mut harness = harness(&rule, MINUTE, 1 << 20, 2);
    harness.input(keyed(&rule, &[one(0, 1), one(30 * SECOND, 5)]));
    harness.raise(EventTime(30 * SECOND));
    assert!(harness.finish_epoch().is_empty());
    harness.raise(EventTime::MAX);
    assert!(harness.finish_epoch().is_empty());
    // Another run goes on, and an event in time fills part of the gap.
    harness.start(1);
    harness.input(keyed(&rule, &[one(20 * SECOND, 3)]));
    harness.raise(EventTime(130 * SECOND));
    let mut told = Told::default();
    told.take_rows(harness.finish_epoch());
    let gaps: Vec<(&str, &str)> =
        told.gaps.values().map(|(_, _, missing, found)| (missing.as_str(), found.as_str())).collect();
    assert_eq!(gaps, [("2", "3"), ("4", "5")]);
}

#[test]
fn a_device_that_was_silent_for_long_is_a_new_one() {
    let rule = numbered(0, None);
    let mut harness = harness(&rule, 0, 1 << 20, 1);
    let mut told = |events: &[Event], upto: i64| {
        if !events.is_empty() {
            harness.input(keyed(&rule, events));
        }
        harness.raise(EventTime(upto));
        let rows = harness.finish_epoch();
        rows.iter().map(|changes| changes.rows.num_rows()).sum::<usize>()
    };
    assert_eq!(told(&[one(0, 1)], DAY), 0);
    // Heard of again within the time, so it isn't forgotten by the day in which it was heard of first.
    assert_eq!(told(&[one(40 * DAY, 3)], 41 * DAY), 1);
    assert_eq!(told(&[], (REMEMBERED_DAYS + 2) * DAY), 0);
    assert_eq!(told(&[one(90 * DAY, 5)], 91 * DAY), 1);
    assert_eq!(told(&[], (91 + REMEMBERED_DAYS) * DAY), 0);
    assert_eq!(told(&[one((92 + REMEMBERED_DAYS) * DAY, 9)], (93 + REMEMBERED_DAYS) * DAY), 0);
    assert_eq!(told(&[one((93 + REMEMBERED_DAYS) * DAY, 11)], (94 + REMEMBERED_DAYS) * DAY), 1);
}
