//! A log read to its end gives the oracle's totals, whatever the number of workers, however often it is stopped, and
//! whatever the number of workers it goes on with.

use std::sync::atomic::Ordering;
use std::time::Duration;

use weir_pipeline::engine::{Running, execute};
use weir_schemas::time::Epoch;

use crate::invented::{World, log};

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
