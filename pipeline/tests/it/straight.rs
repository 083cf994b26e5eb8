//! A log read to its end gives the oracle's totals, whatever the number of workers, however often it is stopped, and
//! whatever the number of workers it goes on with.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use weir_pipeline::engine::{Running, execute};
use weir_schemas::time::Epoch;

use crate::invented::{Delivered, Event, MINUTE, Random, World, expected, log};

#[test]
fn one_two_and_four_workers_give_the_oracles_rows() {
    for workers in [1, 2, 4] {
        let folder = tempfile::tempdir().expect("a folder");
        let world = World { fails_one_in: 4, ..World::new(folder.path(), log(7, 3, 4_000), workers) };
        let running = Running { until_end: true, ..Running::default() };
        let summary = execute(world.plan(), &running).expect("runs to the end");
        assert_eq!((summary.first, summary.undelivered_rows), (Epoch(0), 0));
        world.check_delivered();
    }
}

#[test]
fn a_run_to_the_end_closes_window_after_window_where_an_epoch_may_not_close_them_all() {
    for workers in [1, 3] {
        let folder = tempfile::tempdir().expect("a folder");
        let world = World {
            provisional: false,
            closing_bytes: 0,
            // One epoch for all of the log: what follows it is what closing takes.
            epoch: Duration::from_secs(60),
            ..World::new(folder.path(), log(6, 3, 1_000), workers)
        };
        let summary =
            execute(world.plan(), &Running { until_end: true, ..Running::default() }).expect("runs to the end");
        assert!(summary.committed.0 > 15, "{summary:?}: twenty windows closed in too few epochs");
        assert_eq!(summary.undelivered_rows, 0);
        world.check_delivered();
    }
}

#[test]
fn a_partition_that_only_one_of_four_workers_reads_does_not_hold_the_others_windows() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::new(folder.path(), log(8, 1, 3_000), 4);
    execute(world.plan(), &Running { until_end: true, ..Running::default() }).expect("runs to the end");
    world.check_delivered();
}

#[test]
fn a_stop_drains_and_another_number_of_workers_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let live =
        World { until_end: false, pause: Duration::from_millis(1), ..World::new(folder.path(), log(9, 5, 3_000), 1) };
    let mut before = Epoch(0);
    for workers in [2, 4, 1, 3] {
        let world = World { workers, ..live.clone() };
        let running = Running::default();
        let stop = running.stop.clone();
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(120));
            stop.store(true, Ordering::Release);
        });
        let summary = execute(world.plan(), &running).expect("drains");
        stopper.join().expect("the stopper");
        assert_eq!((summary.first, summary.undelivered_rows), (before, 0), "everything committed is delivered");
        assert!(summary.committed > summary.first);
        before = summary.committed;
    }
    let world = World { until_end: true, pause: Duration::ZERO, ..live };
    execute(world.plan(), &Running { until_end: true, ..Running::default() }).expect("runs to the end");
    world.check_delivered();
}

/// Runs a world until the destinations hold every event of its log.
fn live(world: &World) {
    let ids = world.log.iter().flatten().map(|event| event.id).collect::<BTreeSet<u64>>().len();
    let running = Running::default();
    let (stop, file) = (running.stop.clone(), world.delivered_file());
    let stopper = std::thread::spawn(move || {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Delivered::read(&file).places.len() < ids && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::Release);
    });
    execute(world.plan(), &running).expect("drains");
    stopper.join().expect("the stopper");
}

#[test]
fn a_run_to_the_end_of_a_part_of_the_log_goes_on_live_and_to_the_end_again() {
    for seed in 0..4 {
        let folder = tempfile::tempdir().expect("a folder");
        let whole = World::new(folder.path(), log(40 + seed, 3, 1_500), 1 + seed as usize % 3);
        let mut random = Random(seed);
        // Each partition is cut elsewhere, and one of them may have nothing yet.
        let mut part_of = |of: &Vec<Event>| of[..random.below(of.len() as u64) as usize].to_vec();
        let mut parts: Vec<_> = whole.log.iter().map(&mut part_of).collect();
        if seed == 3 {
            parts[1].clear();
        }
        let part = World { log: Arc::new(parts), ..whole.clone() };
        execute(part.plan(), &Running { until_end: true, ..Running::default() }).expect("runs to the end");
        part.check_delivered();

        let goes_on = World { until_end: false, workers: 1 + (seed as usize + 1) % 3, ..whole.clone() };
        live(&goes_on);
        let delivered = Delivered::read(&whole.delivered_file());
        assert_eq!(delivered.per_minute, expected(&whole.log), "live after the end, seed {seed}");
        let told = *delivered.complete_through.last().expect("progress was told");
        assert!(told < 30 * MINUTE, "what another run goes on from isn't complete for ever: {told}");

        execute(whole.plan(), &Running { until_end: true, ..Running::default() }).expect("runs to the end again");
        whole.check_delivered();
    }
}
