//! Silence on real Kafka: a partition that says nothing holds nobody up, the last windows close at the clock's pace, and
//! what a partition says when it wakes is judged as designed.

use std::time::{Duration, Instant};

use crate::log::{Log, MORNING, SALE, Sale, SaleWriter, expected, files, ledger, live};
use crate::program::{Bench, terminate, wait_until};

const SECOND: i64 = 1_000;
/// Ends the last window that partition 0 fills, in milliseconds; its watermark stays 4 seconds before that.
const LAST_END: i64 = MORNING + 605 * SECOND;

/// Whether every row of the windows up to `end_ms` is closed, of which there are some.
fn is_closed(bench: &Bench, end_ms: i64) -> bool {
    let sql = format!(
        "SELECT countIf(toUnixTimestamp(window_start) = {start}) > 0, countIf(NOT is_closed) FROM by_window \
         WHERE toUnixTimestamp(window_start) <= {start}",
        start = end_ms / 1_000 - 5
    );
    bench.ask(&sql) == "1\t0"
}

fn silence_and_waking(workers: &str) {
    let bench = Bench::of(&files(), "idle");
    let mut log = Log::make(&bench, 2);
    let writer = SaleWriter::register(&bench, SALE, vec![]);
    let mut counted = Vec::new();
    let mut number = 0;
    let mut sell = |log: &mut Log, partition: i32, at: i64, is_counted: bool| {
        let sale = Sale::of(number, at, "shop");
        number += 1;
        log.send(partition, at, &writer.bytes(&sale, ""));
        if is_counted {
            counted.push(sale);
        }
    };

    // Both speak for ten seconds of the log's time.
    for at in (0..10_000).step_by(100) {
        sell(&mut log, 0, MORNING + at, true);
        sell(&mut log, 1, MORNING + at, true);
    }
    log.flush();
    let mut running = bench.start(&["run", "pipeline.toml", "--workers", workers]);
    wait_until("both are read", || bench.consumed() == 200);

    // Partition 1 is silent from here on. Partition 0's windows close without it.
    for at in (10_000..=602_000).step_by(1_000) {
        sell(&mut log, 0, MORNING + at, true);
    }
    log.flush();
    let silent_since = Instant::now();
    wait_until("partition 0 is read", || bench.consumed() == 200 + 593);
    wait_until("windows close without the silent partition", || is_closed(&bench, LAST_END - 5 * SECOND));
    let state_of = |partition: i32| {
        let status = bench.status()?;
        let found = status.sources[0].partitions.iter().find(|of| of.status.partition == partition)?;
        Some(found.status.state.clone())
    };
    assert_eq!(state_of(1).as_deref(), Some("idle"));

    // All are silent: the watermark, at second 601, needs four seconds more of the clock for the last window, and
    // takes no less and not much more.
    wait_until("the last window closes", || is_closed(&bench, LAST_END));
    let waited = silent_since.elapsed();
    assert!(waited >= Duration::from_millis(3_500), "the last window closed after {waited:?}: faster than the clock");
    assert!(waited <= Duration::from_secs(20), "the last window closed after {waited:?}");
    assert_eq!(state_of(0).as_deref(), Some("idle"));

    // Partition 1 wakes. Its own log's watermark is at second 8.9, so nothing that follows is too late by the log; the
    // stream was told at least second 605 meanwhile, and 100 seconds of lateness are allowed.
    sell(&mut log, 1, MORNING + 50 * SECOND, false); // Too late only because of the clock.
    sell(&mut log, 1, MORNING + 60 * SECOND, false);
    sell(&mut log, 1, MORNING + 590 * SECOND, true); // A correction of a closed window.
    sell(&mut log, 1, MORNING + 700 * SECOND, true);
    sell(&mut log, 1, MORNING + 598 * SECOND, false); // Too late by its own log, whose watermark is at second 699.
    sell(&mut log, 1, MORNING + 599 * SECOND, true); // At the very bound.
    let places = log.flush();
    wait_until("what it says on waking is read", || bench.consumed() == 200 + 593 + 6);
    terminate(&mut running);
    bench.weir(&["run", "pipeline.toml", "--until-end", "--workers", workers]).fine();

    assert_eq!(live(&bench, "%"), expected(&counted));
    assert_eq!(ledger(&bench), "799\t796\t0\t0\t1\t2\t0");
    let corrected = format!(
        "SELECT toUInt8(is_closed), revision > 0 FROM by_window WHERE toUnixTimestamp(window_start) = {}",
        (MORNING + 590 * SECOND) / 1_000
    );
    assert_eq!(bench.ask(&corrected), "1\t1");
    // What the clock judged is on record, so that a replay can judge the same; refused records are kept whole.
    let too_late = |at: usize| format!("{}\t{}", places[at].0, places[at].1);
    let first = 793;
    assert_eq!(
        bench.ask(
            "SELECT DISTINCT partition, offset FROM weir_judgements WHERE kind = 'too_late_after_idle' ORDER BY ALL"
        ),
        [too_late(first), too_late(first + 1)].join("\n")
    );
    assert_eq!(
        bench.ask("SELECT partition, offset, reason FROM weir_quarantine ORDER BY ALL"),
        [
            format!("{}\ttoo_late_after_idle", too_late(first)),
            format!("{}\ttoo_late_after_idle", too_late(first + 1)),
            format!("{}\ttoo_late", too_late(first + 4)),
        ]
        .join("\n")
    );
    let kinds =
        bench.ask("SELECT kind, count() > 0 FROM weir_judgements WHERE partition = 1 GROUP BY kind ORDER BY kind");
    assert_eq!(kinds, "awake\t1\nidle\t1\ntoo_late_after_idle\t1");
    bench.weir(&["verify", "pipeline.toml"]).fine();
}

#[test]
fn partitions_fall_silent_and_wake_on_one_worker() {
    silence_and_waking("1");
}

#[test]
fn partitions_fall_silent_and_wake_on_workers_of_their_own() {
    silence_and_waking("2");
}
