//! Alerts of the judge end to end: weeks of generated events through real Kafka, and what people are told of them.

use std::collections::BTreeSet;
use std::path::Path;

use weir_replay::produce::faults::Faults;

use crate::alerts::messages;
use crate::history::{Fault, History, Wrong};
use crate::program::{Bench, size};

pub(crate) fn bench(name: &str) -> Bench {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/judged");
    Bench::of(&folder, name)
}

/// Columns of a tenant's steps.
const STEPS: &str = "SELECT status, revision, cause, last_good_release, toString(fields), owner, indicator, \
                     dateDiff('hour', toDateTime64('2026-01-05 00:00:00', 6, 'UTC'), window_start) AS hour \
                     FROM weir_alerts_history WHERE has(tenants, '{tenant}') ORDER BY window_start, revision";

fn steps(bench: &Bench, tenant: &str) -> Vec<Vec<String>> {
    let told = bench.ask(&STEPS.replace("{tenant}", tenant));
    told.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

#[test]
fn each_fault_of_a_release_is_one_alert_that_ends_by_itself() {
    let bench = bench("judged");
    let fault = |tenant, release, wrong| Fault { tenant, release, wrong, hours: 216..264 };
    let history = History {
        tenants: vec!["north", "south", "east", "west"],
        hours: 24 * size(14, 28) as usize,
        per_hour: 200.0,
        faults: vec![
            fault("north", 6, Wrong::NullAmount),
            // What is built on the bad release has the fault, too.
            fault("north", 7, Wrong::NullAmount),
            fault("south", 3, Wrong::Currency),
            fault("east", 1, Wrong::FewerPurchases),
        ],
        seed: 5,
    };
    history.send(&bench, 4, Faults { seed: 5, disorder_ms: 30_000, duplicates: 0.01, ..Faults::default() });
    bench.weir(&["check", "pipeline.toml"]).fine();
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    println!("{}", bench.ask("SELECT * FROM weir_alerts_history ORDER BY fingerprint, window_start, revision FORMAT Vertical"));
    println!("{}", bench.weir(&["alerts", "list", "pipeline.toml", "--all"]).fine().out);
    for tenant in ["north", "south", "east", "west"] {
        println!("{tenant}: {:#?}", steps(&bench, tenant));
    }
    let keys: BTreeSet<String> = messages(&format!("{}-alerts", bench.database)).into_iter().map(|m| m.0).collect();
    println!("{keys:?}");
}
