//! The ledger: totals that go on over epochs and restarts, and an imbalance that is seen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, TimestampSecondType, UInt64Type};
use weir_operators::account::{KeepLedger, TopicNames, ledger_table};
use weir_operators::operator::{Context, Effects, Operator};
use weir_operators::tally::{Account, GatherTallies, Tallies};
use weir_schemas::fate::Fate;
use weir_schemas::rows::Changes;
use weir_schemas::stage::CONSUMED;
use weir_schemas::time::{Epoch, EventTime};

use crate::harness::{Harness, Random};

type Key = (String, i32, String, i64);

fn harness(imbalances: &Arc<AtomicU64>, memory_bytes: usize) -> Harness {
    let imbalances = imbalances.clone();
    Harness::new(1, Some(0), move |registry| {
        let names = |topic: &str| TopicNames { source: "shop".into(), topic: topic.into() };
        let topics = vec![names("orders"), names("visits")];
        Box::new(KeepLedger::new(topics, imbalances.clone(), memory_bytes, registry).unwrap())
    })
}

fn gathered(tallies: &mut Tallies) -> arrow_array::RecordBatch {
    let mut effects = Effects::default();
    let mut gather = GatherTallies::default();
    let mut cx = Context::new(Epoch(1), EventTime::MIN, &mut effects);
    gather.on_batch(tallies.take().unwrap(), &mut cx).unwrap();
    gather.end_of_epoch(&mut cx).unwrap();
    effects.emitted.pop().unwrap().1
}

fn read(changes: &[Changes], table: &mut BTreeMap<Key, Vec<u64>>) {
    for changes in changes {
        assert_eq!(changes.rows.num_columns(), ledger_table().columns.len());
        let text = |column: usize, row: usize| {
            String::from_utf8(changes.rows.column(column).as_binary::<i32>().value(row).to_vec()).unwrap()
        };
        for row in 0..changes.rows.num_rows() {
            assert_eq!(text(0, row), "shop");
            let partition = changes.rows.column(2).as_primitive::<Int32Type>().value(row);
            let minute = changes.rows.column(4).as_primitive::<TimestampSecondType>().value(row);
            let counts = (5..changes.rows.num_columns())
                .map(|column| changes.rows.column(column).as_primitive::<UInt64Type>().value(row));
            table.insert((text(1, row), partition, text(3, row), minute), counts.collect());
        }
    }
}

#[test]
fn rows_are_running_totals_over_epochs_evictions_and_restarts() {
    let imbalances = Arc::new(AtomicU64::new(0));
    let mut harness = harness(&imbalances, 200);
    let mut random = Random::new(7);
    let (mut expected, mut table): (BTreeMap<Key, Vec<u64>>, BTreeMap<Key, Vec<u64>>) = Default::default();
    for _ in 0..60 {
        let mut tallies = Tallies::default();
        for _ in 0..1 + random.below(30) {
            let (topic, partition) = (random.below(2) as u16, random.below(3) as i32);
            let (tenant, minute) = (["", "a", "bb"][random.below(3) as usize], random.below(4) as i64 * 60);
            let account = Account { topic, partition, tenant: tenant.as_bytes(), minute };
            let fate = random.below(Fate::ALL.len() as u64) as usize;
            tallies.add(account, CONSUMED, 1);
            tallies.add(account, Fate::ALL[fate] as u8, 1);
            let topic = ["orders", "visits"][usize::from(topic)].to_owned();
            let counts = expected.entry((topic, partition, tenant.to_owned(), minute)).or_insert_with(|| vec![0; 8]);
            counts[0] += 1;
            counts[1 + fate] += 1;
        }
        let batch = gathered(&mut tallies);
        if random.once_in(5) {
            // Lost with the process, then read again.
            harness.input(batch.clone());
            harness.end_of_epoch();
            harness.start(1 + random.below(2) as usize);
        }
        harness.input(batch);
        read(&harness.finish_epoch(), &mut table);
        assert_eq!(table, expected);
    }
    assert_eq!(imbalances.load(Ordering::Relaxed), 0);
}

#[test]
fn an_imbalance_is_counted_once_and_its_row_is_written() {
    let imbalances = Arc::new(AtomicU64::new(0));
    let mut harness = harness(&imbalances, 1 << 20);
    let account = Account { topic: 0, partition: 3, tenant: b"a", minute: 60 };
    let mut table = BTreeMap::new();
    let mut tallies = Tallies::default();
    tallies.add(account, CONSUMED, 2);
    tallies.add(account, Fate::Accepted as u8, 1);
    harness.input(gathered(&mut tallies));
    read(&harness.finish_epoch(), &mut table);
    assert_eq!(imbalances.load(Ordering::Relaxed), 1);
    tallies.add(account, CONSUMED, 1);
    tallies.add(account, Fate::Tombstone as u8, 1);
    harness.input(gathered(&mut tallies));
    read(&harness.finish_epoch(), &mut table);
    assert_eq!(imbalances.load(Ordering::Relaxed), 1, "the second epoch balances by itself");
    let row = table.get(&("orders".to_owned(), 3, "a".to_owned(), 60)).unwrap();
    assert_eq!(row, &[3, 1, 0, 0, 0, 0, 0, 1]);
}
