//! Deduplication against a list of everything that was accepted, and its way through evictions and restarts.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, UInt8Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use weir_operators::deduplicate::{Deduplicate, Deduplication, Identify};
use weir_operators::operator::{Context, Effects, Operator};
use weir_schemas::fate::Fate;
use weir_schemas::stage::system;
use weir_schemas::time::{Epoch, EventTime, Span};

use crate::events::{self, Event};
use crate::harness::{Harness, Random, seeds};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;

fn harness(lateness: i64, horizon: i64, memory_bytes: usize, peers: usize) -> Harness {
    let settings = Deduplication {
        tenant: Some(events::TENANT),
        allowed_lateness: Span(lateness),
        horizon: Span(horizon),
        retained: Span(0),
        memory_bytes,
    };
    let route = Identify::group_column(system::COUNT + events::columns().len());
    Harness::new(peers, Some(route), move |registry| Box::new(Deduplicate::new(settings, registry).unwrap()))
}

fn identified(events: &[Event]) -> RecordBatch {
    let mut effects = Effects::default();
    let mut identify = Identify::new(Some(events::TENANT), events::ID);
    identify.on_batch(events::batch(events), &mut Context::new(Epoch(1), EventTime::MIN, &mut effects)).unwrap();
    effects.emitted.pop().unwrap().1
}

/// Places of the accepted events, and how many records had each fate, of what was emitted.
fn read(emitted: Vec<(usize, RecordBatch)>) -> (Vec<(i32, i64)>, [u64; 3]) {
    let (mut accepted, mut fates) = (Vec::new(), [0; 3]);
    for (output, batch) in emitted {
        if output == 0 {
            assert_eq!(batch.schema(), weir_schemas::stage::event_schema(&events::columns()));
            let partitions = batch.column(system::PARTITION).as_primitive::<Int32Type>();
            let offsets = batch.column(system::OFFSET).as_primitive::<Int64Type>();
            accepted.extend((0..batch.num_rows()).map(|row| (partitions.value(row), offsets.value(row))));
            continue;
        }
        let counts = batch.column(5).as_primitive::<UInt64Type>();
        for (fate, count) in batch.column(4).as_primitive::<UInt8Type>().values().iter().zip(counts.values()) {
            let at = [Fate::Accepted, Fate::Duplicate, Fate::DuplicateDiffering]
                .iter()
                .position(|known| *known as u8 == *fate);
            fates[at.unwrap()] += count;
        }
    }
    accepted.sort_unstable();
    (accepted, fates)
}

/// The slow answer: every event against all that were accepted before.
fn judge(accepted: &mut Vec<Event>, event: &Event, horizon: i64) -> usize {
    let copies = accepted.iter().filter(|known| known.tenant == event.tenant && known.id == event.id);
    let copies = copies.filter(|known| (known.at - event.at).abs() <= horizon);
    let nearest = copies.min_by_key(|known| ((known.at - event.at).abs(), known.at));
    match nearest {
        None => {
            accepted.push(event.clone());
            0
        }
        Some(known) => {
            let same = (known.kind, known.amount, known.user) == (event.kind, event.amount, event.user);
            if same { 1 } else { 2 }
        }
    }
}

fn random_event(random: &mut Random, offset: i64, from: i64, to: i64) -> Event {
    let id = random.below(60);
    Event {
        partition: random.below(3) as i32,
        offset,
        // Few distinct times, so that copies with equal times are common.
        at: random.between(from, to) / (10 * SECOND) * (10 * SECOND),
        tenant: ["acme", "globex"][random.below(2) as usize],
        kind: ["a", "b"][usize::from(random.once_in(4))],
        amount: Some(id as i64).filter(|id| id % 3 > 0),
        user: id,
        id: format!("id-{id}"),
    }
}

#[test]
fn every_event_is_judged_as_against_a_list_of_all_accepted_ones() {
    let (mut totals, mut ends) = ([0; 3], 0);
    for seed in seeds(18) {
        let mut random = Random::new(seed + 1_000);
        let horizon = [0, 30 * SECOND, 20 * MINUTE][seed as usize % 3];
        let lateness = [0, 2 * MINUTE][seed as usize % 2];
        let memory = [1, 1_500, 1 << 30][(seed as usize / 3) % 3];
        let mut harness = harness(lateness, horizon, memory, 1 + seed as usize % 3);
        let (mut known, mut watermark, mut offset) = (Vec::new(), 1_000 * MINUTE, 0);
        for epoch in 0..60 {
            let (mut expected, mut fates) = (Vec::new(), [0; 3]);
            for _ in 0..random.below(3) {
                let from = (watermark - lateness + 10 * SECOND - 1) / (10 * SECOND) * (10 * SECOND);
                let batch: Vec<Event> = (0..1 + random.below(30))
                    .map(|_| {
                        offset += 1;
                        random_event(&mut random, offset, from, watermark + 4 * MINUTE)
                    })
                    .collect();
                for event in &batch {
                    let fate = judge(&mut known, event, horizon);
                    fates[fate] += 1;
                    if fate == 0 {
                        expected.push((event.partition, event.offset));
                    }
                }
                harness.input(identified(&batch));
            }
            watermark += random.between(0, 3 * MINUTE);
            harness.raise(EventTime(watermark));
            harness.finish_epoch();
            expected.sort_unstable();
            assert_eq!(read(harness.take_emitted()), (expected, fates), "epoch {epoch} of seed {seed}");
            totals.iter_mut().zip(fates).for_each(|(total, fate)| *total += fate);
            if random.once_in(10) {
                // Whether or not its run came to its end.
                if random.once_in(2) {
                    harness.raise(EventTime::MAX);
                    harness.finish_epoch();
                    ends += 1;
                }
                harness.start(1 + random.below(3) as usize);
            }
        }
    }
    assert!(totals.iter().all(|total| *total > 500) && ends > 20, "{totals:?} {ends}: the runs show too little");
}

fn event(offset: i64, at: i64, id: &str) -> Event {
    Event { partition: 0, offset, at, tenant: "t", kind: "k", amount: None, user: 1, id: id.to_owned() }
}

#[test]
fn ids_are_forgotten_when_no_copy_can_come_any_more() {
    let mut harness = harness(MINUTE, 0, 1 << 20, 1);
    harness.input(identified(&[event(1, 5 * MINUTE, "x")]));
    harness.raise(EventTime(11 * MINUTE));
    harness.finish_epoch();
    harness.input(identified(&[event(2, 10 * MINUTE, "x")]));
    harness.raise(EventTime(30 * MINUTE));
    harness.finish_epoch();
    // The horizon is 0, so the second is no copy of the first, which is forgotten, bucket and all.
    assert_eq!(read(harness.take_emitted()), (vec![(0, 1), (0, 2)], [2, 0, 0]));
    harness.start(1);
    harness.input(identified(&[event(3, 40 * MINUTE, "y")]));
    harness.input(identified(&[event(4, 40 * MINUTE, "y")]));
    harness.finish_epoch();
    assert_eq!(read(harness.take_emitted()), (vec![(0, 3)], [1, 1, 0]));
}

#[test]
fn what_was_not_committed_is_not_remembered_after_a_restart() {
    let mut harness = harness(0, 0, 1 << 20, 1);
    harness.input(identified(&[event(1, MINUTE, "x")]));
    harness.end_of_epoch();
    harness.start(2);
    harness.take_emitted();
    harness.input(identified(&[event(1, MINUTE, "x")]));
    harness.finish_epoch();
    assert_eq!(read(harness.take_emitted()), (vec![(0, 1)], [1, 0, 0]));
    harness.start(1);
    harness.input(identified(&[event(2, MINUTE, "x")]));
    harness.finish_epoch();
    assert_eq!(read(harness.take_emitted()), (vec![], [0, 1, 0]));
}

#[test]
fn events_without_an_id_are_nobodys_copies() {
    let columns = events::columns();
    let with_null = |batch: RecordBatch| {
        let at = events::ID;
        let nulls = arrow_array::new_null_array(batch.column(at).data_type(), batch.num_rows());
        let mut arrays = batch.columns().to_vec();
        arrays[at] = nulls;
        let mut fields: Vec<_> = batch.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        fields[at] = fields[at].clone().with_nullable(true);
        RecordBatch::try_new(Arc::new(arrow_schema::Schema::new(fields)), arrays).unwrap()
    };
    let batch = with_null(events::batch(&[event(1, MINUTE, ""), event(2, MINUTE, "")]));
    let mut effects = Effects::default();
    let mut identify = Identify::new(Some(events::TENANT), events::ID);
    identify.on_batch(batch, &mut Context::new(Epoch(1), EventTime::MIN, &mut effects)).unwrap();
    let (_, batch) = effects.emitted.pop().unwrap();
    let identities = batch.column(system::COUNT + columns.len() + 1).as_fixed_size_binary();
    assert_ne!(identities.value(0), identities.value(1));
}
