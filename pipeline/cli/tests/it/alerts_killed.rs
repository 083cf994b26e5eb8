//! Alerts are exactly-once and reproducible: whatever the number of workers, and whatever is killed at whatever moment, the
//! topics and tables hold the steps of an undisturbed run over the same log.

use std::process::Child;
use std::time::Duration;

use weir_replay::produce::faults::Faults;

use crate::alerts::messages;
use crate::history::{Fault, History, Wrong};
use crate::judged::bench;
use crate::program::{Bench, size};

/// Everything that is told of alerts: the history's rows, the topic's messages, and the newest step of each alert by both.
#[derive(Debug, PartialEq)]
struct Told {
    rows: Vec<String>,
    messages: Vec<(String, String, Vec<u8>)>,
    current_rows: Vec<String>,
    current: Vec<(String, String, Vec<u8>)>,
}

fn told(bench: &Bench) -> Told {
    let lines = |sql: &str| bench.ask(sql).lines().map(str::to_owned).collect::<Vec<_>>();
    let newest: std::collections::BTreeMap<_, _> = messages(&format!("{}-current", bench.database))
        .into_iter()
        .map(|message| (message.0.clone(), message))
        .collect();
    // The steps of one alert stand in their order. How alerts stand among each other goes with how the log was cut into
    // epochs, which a kill changes.
    let mut history = messages(&format!("{}-alerts", bench.database));
    history.sort_by(|one, other| one.0.cmp(&other.0));
    Told {
        rows: lines("SELECT * FROM weir_alerts_history ORDER BY window_start, fingerprint, revision"),
        messages: history,
        current_rows: lines("SELECT * EXCEPT (acknowledged_by, acknowledged_at) FROM weir_alerts ORDER BY fingerprint"),
        current: newest.into_values().collect(),
    }
}

#[track_caller]
fn assert_same(expected: &Told, found: &Told, how: &str) {
    for (at, (expected, found)) in expected.rows.iter().zip(&found.rows).enumerate() {
        assert_eq!(expected, found, "{how}: row {at}");
    }
    assert_eq!(expected.rows.len(), found.rows.len(), "{how}: steps in the history");
    let ids = |told: &Told| told.messages.iter().map(|message| message.1.clone()).collect::<Vec<_>>();
    assert_eq!(ids(expected), ids(found), "{how}: steps in the topic");
    assert!(expected == found, "{how}: what the steps say\n{expected:#?}\n{found:#?}");
}

/// Runs to the end, crashed again and again by `crash`, which gets the number of the start and what to start.
fn run(bench: &Bench, starts: usize, workers: &[&str], crash: impl Fn(usize, &[&str])) {
    for start in 0..starts {
        let workers = workers[start % workers.len()];
        crash(start, &["run", "pipeline.toml", "--until-end", "--workers", workers]);
    }
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
}

fn kill(mut running: Child) {
    let _ = running.kill();
    running.wait().unwrap();
}

/// What is told without any disturbance, the same with every number of workers.
fn undisturbed(bench: &mut Bench) -> Told {
    let mut of_each = ["2", "1", "4"].map(|workers| {
        bench.anew("alerts_killed");
        bench.weir(&["run", "pipeline.toml", "--until-end", "--workers", workers]).fine();
        (workers, Some(told(bench)))
    });
    let expected = of_each[0].1.take().unwrap();
    for (workers, found) in &of_each[1..] {
        assert_same(&expected, found.as_ref().unwrap(), &format!("{workers} workers"));
    }
    let count = |status: &str| expected.rows.iter().filter(|row| row.contains(&format!("\t{status}\t"))).count();
    assert!(count("open") >= 2 && count("resolved") >= 2, "{:#?}", expected.rows);
    println!("{} steps of {} alerts", expected.rows.len(), expected.current.len());
    expected
}

#[test]
fn the_same_log_tells_the_same_alerts_with_any_workers_and_through_any_kill() {
    let mut bench = bench("alerts_killed");
    let fault = |tenant, release, wrong, hours| Fault { tenant, release, wrong, hours };
    let history = History {
        tenants: vec!["north", "south", "east"],
        hours: 24 * 8,
        per_hour: 150.0,
        faults: vec![
            fault("north", 5, Wrong::NullAmount, 110..150),
            fault("south", 3, Wrong::Currency, 120..144),
            fault("east", 1, Wrong::NoPurchases, 100..130),
            fault("east", 4, Wrong::Bytes, 130..160),
        ],
        seed: 11,
    };
    // Disorder beyond the bound, copies, and bytes that don't decode: what comes too late and what is refused is judged, too.
    let faults = Faults {
        seed: 11,
        disorder_ms: 60_000,
        duplicates: 0.02,
        stragglers: 0.01,
        straggler_ms: 3_600_000,
        bad: 0.002,
    };
    history.send(&bench, 4, faults);

    let expected = undisturbed(&mut bench);

    // Killed from outside, at any moment.
    let mut random = fastrand::Rng::with_seed(size(3, fastrand::u64(..)));
    for series in 0..size(1, 12) {
        bench.anew("alerts_killed");
        let pauses: Vec<u64> = (0..size(5, 12)).map(|_| random.u64(300..2_500)).collect();
        run(&bench, pauses.len(), &["2", "1", "4"], |start, arguments| {
            let running = bench.start(arguments);
            std::thread::sleep(Duration::from_millis(pauses[start]));
            kill(running);
        });
        assert_same(&expected, &told(&bench), &format!("series {series}, killed after {pauses:?} ms"));
    }

    // Crashed around what sends alerts, above all with a transaction open.
    let points = ["within_transaction", "after_delivery", "within_delivery", "before_progress", "after_commit"];
    for passage in 1..=size(1, 4) {
        bench.anew("alerts_killed");
        run(&bench, 3 * points.len(), &["2"], |start, arguments| {
            let at = format!("{}:{}", points[start % points.len()], passage as usize + start / points.len());
            let mut command = bench.command(arguments);
            command.env("WEIR_CRASH_AT", &at).stderr(std::process::Stdio::null());
            command.stdout(std::process::Stdio::null());
            command.status().unwrap();
        });
        assert_same(&expected, &told(&bench), &format!("crashed at points, passage {passage} and on"));
    }
}
