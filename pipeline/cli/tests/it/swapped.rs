//! Swaps and undos that are killed at any moment, swaps that ClickHouse refuses, and undos whose replay's file is gone: what
//! readers see is complete again by giving them once more, and nobody can drop what readers may see. Called by the test in `replay.rs` that has such a bench.

use std::time::Duration;

use weir_sinks::clickhouse::base_table;

use crate::program::{Bench, size};
use crate::replay::{RANGE, replay_of};

const SWAP: &[&str] = &["swap", "pipeline.toml", "next", "--by", "ada"];
const UNDO: &[&str] = &["swap", "pipeline.toml", "next", "--undo", "--by", "ada"];
const DROP: &[&str] = &["replay", "drop", "pipeline.toml", "next"];
/// The latest moment of a kill: a swap takes about as long.
const KILLED_WITHIN_MS: u64 = 400;
/// How long ClickHouse gets to carry out the statement that a killed program had sent: it doesn't stop with its sender.
const CARRIED_OUT_AFTER: Duration = Duration::from_millis(500);

/// Readers' rows in the range of the replay.
fn rows(bench: &Bench, table: &str) -> String {
    bench.ask(&format!(
        "SELECT count(), sum(cityHash64(window_start, tenant, country, events)) FROM {table} WHERE {RANGE}"
    ))
}

/// Whether the record says that the replay stands in a view's place.
fn is_in_place(bench: &Bench) -> bool {
    let last =
        "SELECT argMax(action, at) AS last FROM weir_swaps WHERE run = 'next' GROUP BY view HAVING last = 'swap'";
    bench.ask(&format!("SELECT count() FROM ({last})")) != "0"
}

/// Kills a command after `ms`, unless it has ended by then; nothing of it is under way any more behind this.
fn killed_after(bench: &Bench, command: &[&str], ms: u64) {
    let mut running = bench.start(command);
    std::thread::sleep(Duration::from_millis(ms));
    // One that has ended can't be killed.
    let _ = running.kill();
    running.wait().unwrap();
    std::thread::sleep(CARRIED_OUT_AFTER);
}

/// Begins and ends with the live rows in place; `replayed` is the replay's table.
pub(crate) fn is_completed_after_any_kill(bench: &Bench, replayed: &str) {
    let (live, replay) = (rows(bench, "by_minute"), rows(bench, replayed));
    assert_ne!(live, replay);
    let mut random = fastrand::Rng::with_seed(size(7, fastrand::u64(..)));
    let (mut unfinished_swaps, mut unfinished_undos) = (0, 0);
    for round in 0..size(3, 20) {
        let ms = random.u64(0..=KILLED_WITHIN_MS);
        let how = format!("round {round}, swap killed after {ms} ms");
        killed_after(bench, SWAP, ms);
        let seen = rows(bench, "by_minute");
        assert!(seen == live || seen == replay, "{how}: a mixture: {seen}");
        assert!(seen == live || is_in_place(bench), "{how}: readers see a replay that the record doesn't know");
        unfinished_swaps += u64::from(seen == live);
        bench.weir(SWAP).fine();
        assert_eq!(rows(bench, "by_minute"), replay, "{how}");

        let ms = random.u64(0..=KILLED_WITHIN_MS);
        let how = format!("round {round}, undo killed after {ms} ms");
        killed_after(bench, UNDO, ms);
        let seen = rows(bench, "by_minute");
        assert!(seen == live || seen == replay, "{how}: a mixture: {seen}");
        if is_in_place(bench) {
            unfinished_undos += 1;
            bench.weir(DROP).refused(2, &["stands in the place", "--undo"]);
            bench.weir(UNDO).fine();
        } else {
            assert_eq!(seen, live, "{how}: readers see a replay that the record doesn't know");
            bench.weir(UNDO).refused(2, &["nothing to undo"]);
        }
        assert!(!is_in_place(bench), "{how}");
        assert_eq!(rows(bench, "by_minute"), live, "{how}");
    }
    println!("killed before they had ended: {unfinished_swaps} swaps, {unfinished_undos} undos");
}

/// Begins and ends with the live rows in place. Without the replay's table ClickHouse makes no view that reads it.
pub(crate) fn is_not_in_place_when_clickhouse_refuses(bench: &Bench) {
    let live = rows(bench, "by_minute");
    let (database, table) = (replay_of(bench, "next"), base_table("by_minute"));
    let (there, elsewhere) = (format!("{database}.{table}"), format!("{database}.elsewhere"));
    bench.ask(&format!("RENAME TABLE {there} TO {elsewhere}"));
    bench.weir(SWAP).refused(3, &["clickhouse", "remedy"]);
    assert!(!is_in_place(bench), "a swap that ClickHouse refused stays in the record");
    assert_eq!(rows(bench, "by_minute"), live);
    bench.ask(&format!("RENAME TABLE {elsewhere} TO {there}"));
}

/// Begins and ends with the live rows in place; the replay was made with the pipeline of `file`.
pub(crate) fn is_taken_out_without_the_file_of_the_replay(bench: &Bench, file: &str) {
    let live = rows(bench, "by_minute");
    bench.weir(SWAP).fine();
    assert_ne!(rows(bench, "by_minute"), live);
    let told = bench.weir(&["verify", "pipeline.toml"]).out;
    assert!(told.contains("the replay `next` stands in the place of live rows from 2026-01-05T06:12:00Z"), "{told}");
    let (there, elsewhere) = (bench.folder.path().join(file), bench.folder.path().join("elsewhere.toml"));
    std::fs::rename(&there, &elsewhere).unwrap();
    bench.weir(UNDO).fine();
    assert_eq!(rows(bench, "by_minute"), live);
    assert!(!bench.weir(&["verify", "pipeline.toml"]).out.contains("stands in the place"));
    bench.weir(SWAP).refused(2, &[file]);
    std::fs::rename(&elsewhere, &there).unwrap();
}
