//! Starts that are refused, each by a message that names what is wrong; and failures that stop without a loss.

use std::sync::atomic::Ordering;
use std::time::Duration;

use weir_operators::state::{Store, StoreOptions};
use weir_pipeline::engine::{Running, execute};
use weir_pipeline::error::Error;
use weir_schemas::time::Epoch;

use crate::invented::{World, log};

fn to_the_end() -> Running {
    Running { until_end: true, ..Running::default() }
}

#[test]
fn a_second_instance_on_the_same_state_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::new(folder.path(), log(41, 1, 10), 1);
    let held = Store::open(&folder.path().join("state"), StoreOptions::default()).expect("opened");
    let error = execute(world.plan(), &to_the_end()).expect_err("refused");
    assert!(matches!(error, Error::State { .. }) && error.to_string().contains("in use by another"), "{error}");
    drop(held);
    execute(world.plan(), &to_the_end()).expect("runs when the other is gone");
}

#[test]
fn a_view_whose_query_changed_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::new(folder.path(), log(42, 1, 10), 1);
    execute(world.plan(), &to_the_end()).expect("runs");
    let changed = World { query: "SELECT 2", ..world };
    let error = execute(changed.plan(), &to_the_end()).expect_err("refused");
    assert_eq!((error.code(), error.exit_code()), ("W005", 2));
    assert!(error.to_string().contains("query of view totals was SELECT 1 and is SELECT 2"), "{error}");
}

#[test]
fn an_operator_that_fails_stops_the_pipeline_before_the_commit_and_nothing_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World { pause: Duration::from_millis(4), ..World::new(folder.path(), log(44, 3, 2_000), 2) };
    world.trouble.fail_after_batches.store(120, Ordering::Release);
    let error = execute(world.plan(), &to_the_end()).expect_err("fails");
    assert_eq!((error.code(), error.exit_code()), ("W013", 1));
    assert!(error.to_string().contains("totals") && error.to_string().contains("asked to fail"), "{error}");
    world.trouble.fail_after_batches.store(0, Ordering::Release);
    let summary = execute(world.plan(), &to_the_end()).expect("runs to the end");
    assert!(summary.first > Epoch(0), "something was committed before");
    world.check_delivered();
}
