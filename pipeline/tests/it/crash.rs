//! Killed at any point, however often, and started again with another number of workers: nothing is lost, nothing is
//! counted twice, and completeness was never told too early.
//!
//! A crash ends the whole process, so each attempt runs in a child: this very test binary, told by the environment what
//! to do.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use weir_pipeline::crash::CrashPoint;
use weir_pipeline::engine::{Running, execute};

use crate::invented::{Random, World, log};

const FOLDER: &str = "WEIR_IT_FOLDER";
const WORKERS: &str = "WEIR_IT_WORKERS";

fn world(folder: &Path, workers: usize) -> World {
    // The pause makes a run last for some dozens of epochs, so that there is something to crash in.
    World { fails_one_in: 5, pause: Duration::from_millis(1), ..World::new(folder, log(11, 4, 3_000), workers) }
}

/// Not a test of its own: what a child does.
#[test]
#[ignore = "run by the crash tests, in a process that may abort"]
fn child() {
    let folder = std::env::var(FOLDER).expect("set by the parent");
    let workers = std::env::var(WORKERS).expect("set by the parent").parse().expect("a number");
    let running = Running { until_end: true, ..Running::default() };
    execute(world(Path::new(&folder), workers).plan(), &running).expect("runs to the end");
}

/// Runs a child; tells whether it got to the end.
fn run_child(folder: &Path, workers: usize, crash_at: Option<String>) -> bool {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["crash::child", "--exact", "--ignored", "--test-threads=1"]);
    command.env(FOLDER, folder).env(WORKERS, workers.to_string()).env_remove("WEIR_CRASH_AT");
    if let Some(point) = crash_at {
        command.env("WEIR_CRASH_AT", point);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().expect("the child starts").success()
}

#[test]
fn a_crash_at_every_point_in_turn_changes_nothing() {
    // This world has no Kafka, and so no transactions.
    for point in CrashPoint::ALL.into_iter().filter(|point| *point != CrashPoint::WithinTransaction) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut random = Random(point as u64 + 1);
        let mut crashes = 0;
        for attempt in 0..4 {
            let passage = 1 + random.below(5);
            let workers = [1, 2, 4, 3][attempt];
            if run_child(folder.path(), workers, Some(format!("{}:{passage}", point.name()))) {
                break;
            }
            crashes += 1;
        }
        assert!(crashes > 0, "{} was never passed", point.name());
        assert!(run_child(folder.path(), 2, None), "after {crashes} crashes at {}", point.name());
        world(folder.path(), 2).check_delivered();
    }
}

#[test]
fn crashes_at_random_points_change_nothing() {
    // `make proof` asks for more.
    let is_full = std::env::var_os("WEIR_PROOF").is_some_and(|size| size == "full");
    for seed in 1..=if is_full { 30 } else { 3 } {
        let folder = tempfile::tempdir().expect("a folder");
        let mut random = Random(seed * 1_000);
        for _ in 0..6 {
            let point = CrashPoint::ALL[random.below(CrashPoint::ALL.len() as u64) as usize];
            let crash_at = format!("{}:{}", point.name(), 1 + random.below(8));
            run_child(folder.path(), 1 + random.below(4) as usize, Some(crash_at));
        }
        assert!(run_child(folder.path(), 4, None), "seed {seed}");
        world(folder.path(), 4).check_delivered();
    }
}
