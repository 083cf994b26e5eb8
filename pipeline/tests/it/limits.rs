//! Bounds: what waits is bounded in bytes, whoever is slow; nothing is dropped for it, and no bound keeps an epoch from
//! ending.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use weir_pipeline::engine::{Running, execute};
use weir_pipeline::status::Status;

use crate::invented::{LossAt, World, log};
use crate::pages;

/// Asks for the status all the while, and returns what `judge` makes of each.
fn watch(
    address: String,
    done: Arc<AtomicBool>,
    judge: impl Fn(&Status) + Send + 'static,
) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut asked = 0;
        while !done.load(Ordering::Acquire) {
            if let Some((200, json)) = pages::get(&address, "/status") {
                judge(&serde_json::from_str(&json).expect("a status"));
                asked += 1;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        asked
    })
}

#[test]
fn a_destination_that_is_away_stops_the_reading_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = pages::free_address();
    let world = World {
        http: Some(address.clone()),
        outbox_bytes: 64 << 10,
        in_flight_bytes: 100 << 10,
        ..World::new(folder.path(), log(21, 4, 20_000), 2)
    };
    world.trouble.refuse.store(true, Ordering::Release);
    let done = Arc::new(AtomicBool::new(false));
    let (most, full, told) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let watcher = {
        let (most, full, told, trouble) = (most.clone(), full.clone(), told.clone(), world.trouble.clone());
        watch(address, done.clone(), move |status| {
            most.fetch_max(status.outbox_bytes, Ordering::AcqRel);
            if status.waits_for.as_deref().is_some_and(|why| why.contains("outbox is full")) {
                let failing = status.destinations.iter().filter_map(|of| of.failing.as_ref());
                told.fetch_add(failing.filter(|of| of.error.contains("refusing")).count() as u64, Ordering::AcqRel);
                // Long enough for more epochs, if the bound let them.
                if full.fetch_add(1, Ordering::AcqRel) > 20 {
                    trouble.refuse.store(false, Ordering::Release);
                }
            }
        })
    };
    execute(world.plan(), &Running { until_end: true, ..Running::default() }).expect("runs to the end");
    done.store(true, Ordering::Release);
    watcher.join().expect("the watcher");
    assert!(full.load(Ordering::Acquire) > 20, "the outbox was never full");
    assert!(told.load(Ordering::Acquire) > 0, "who fails was never told");
    // Two epochs may be under way when it fills; each is bounded by what may be in flight: 100 KiB of invented bytes are
    // a thousand events, and an event's rows take less than 300 bytes.
    let bound = (64 << 10) + 2 * 1_100 * 300;
    assert!(most.load(Ordering::Acquire) < bound, "{} bytes in the outbox", most.load(Ordering::Acquire));
    world.check_delivered();
}

#[test]
fn a_slow_worker_at_the_bound_reads_no_further_and_its_epochs_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = pages::free_address();
    let world = World {
        http: Some(address.clone()),
        in_flight_bytes: 20_000,
        ..World::new(folder.path(), log(22, 2, 3_000), 2)
    };
    world.trouble.slow_batch_ms.store(2, Ordering::Release);
    let (done, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watcher = {
        let most = most.clone();
        watch(address, done.clone(), move |status| {
            most.fetch_max(status.in_flight_bytes, Ordering::AcqRel);
        })
    };
    let summary = execute(world.plan(), &Running { until_end: true, ..Running::default() }).expect("runs to the end");
    done.store(true, Ordering::Release);
    assert!(watcher.join().expect("the watcher") > 0);
    // 600,000 bytes in all went through a bound of 20,000, so some thirty epochs ended at the bound.
    assert!(most.load(Ordering::Acquire) <= 20_000, "{} bytes in flight", most.load(Ordering::Acquire));
    assert!(summary.committed.0 >= 25, "{summary:?}");
    world.check_delivered();
}

#[test]
fn one_record_larger_than_the_bound_goes_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World { in_flight_bytes: 10, ..World::new(folder.path(), log(23, 1, 40), 1) };
    execute(world.plan(), &Running { until_end: true, ..Running::default() }).expect("runs to the end");
    world.check_delivered();
}

#[test]
fn a_stop_while_a_destination_is_away_ends_and_the_next_start_delivers() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World { until_end: false, ..World::new(folder.path(), log(24, 2, 1_000), 2) };
    world.trouble.refuse.store(true, Ordering::Release);
    let running = Running::default();
    let (stop, began) = (running.stop.clone(), Instant::now());
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Release);
    });
    let summary = execute(world.plan(), &running).expect("ends");
    stopper.join().expect("the stopper");
    assert!(summary.undelivered_rows > 0 && began.elapsed() < Duration::from_secs(60), "{summary:?}");
    world.trouble.refuse.store(false, Ordering::Release);
    let world = World { until_end: true, ..world };
    let again = execute(world.plan(), &Running { until_end: true, ..Running::default() }).expect("runs to the end");
    assert_eq!((again.first, again.undelivered_rows), (summary.committed, 0));
    world.check_delivered();
}

/// Runs a log to its end while the destinations' server loses what it had acknowledged, and is away.
fn lose(when: impl FnOnce(&World) -> LossAt, seed: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World { outbox_bytes: 64 << 20, ..World::new(folder.path(), log(seed, 2, 2_000), 2) };
    let loss = || world.trouble.loss.lock().expect("the loss");
    loss().when = Some(when(&world));
    execute(world.plan(), &Running { until_end: true, ..Running::default() }).expect("runs to the end");
    let (_, lost_bytes) = loss().happened.expect("it was lost");
    assert!(lost_bytes > 0, "there was nothing to lose yet");
    world.check_delivered();
}

#[test]
fn a_server_that_lost_what_it_had_acknowledged_is_told_again() {
    lose(|_| LossAt::Delivery(4), 25);
}

#[test]
fn a_table_that_has_everything_is_told_again_when_another_finds_the_server_back() {
    let ids = |world: &World| world.log.iter().flatten().map(|event| event.id).collect::<BTreeSet<u64>>().len();
    lose(|world| LossAt::Places(ids(world)), 26);
}
