//! What a replay costs the live pipeline, and how fast it is.
//!
//! The same live pipeline is measured with a paced replay beside it and without, in turns, while events come at a steady rate:
//! how old a row is when it can be seen, at the 99th percentile. The replay has a backlog at the end of each turn, or the turn
//! says nothing. At the end the live tables are held against those of another pipeline that reads the same log with no replay
//! ever beside it. Then a replay of the whole history runs as fast as it can, in turns with a run of the engine over the same
//! records.
//!
//! `WEIR_BENCH_EVENTS` changes the history's length, `WEIR_BENCH_PAIRS` the number of turns, `WEIR_BENCH_SECONDS` how long a
//! turn lasts. Live and replay share this machine's cores with the parts, which is the worst of cases.

#![allow(clippy::unwrap_used, reason = "a test or benchmark ends where it can't go on")]

#[path = "speed/shop.rs"]
mod shop;
#[path = "speed/started.rs"]
mod started;

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use shop::{Events, PARTITIONS, ask, begun_minute, bench_folder, free_port, job, latency, weir};
use started::started;
use weir_replay::parts::Parts;
use weir_replay::produce::produce;

/// The history's beginning, 2026-01-01, and how many events it has a second.
const START_MS: i64 = 1_767_225_600_000;
const PER_SECOND: u64 = 2_000;
/// Live events a second.
const RATE: u64 = 5_000;
/// Of the topic and the live database.
const NAME: &str = "beside";

fn main() {
    // `cargo test` builds benches and runs them with this flag; a benchmark is no test.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let of = |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (events, pairs) = (of("WEIR_BENCH_EVENTS", 2_000_000), of("WEIR_BENCH_PAIRS", 5).max(1));
    let turn = Duration::from_secs(of("WEIR_BENCH_SECONDS", 30).max(5));
    let folder = tempfile::tempdir().unwrap();
    let parts = started(folder.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    eprintln!("filling the topic ...");
    runtime.block_on(produce(job(&parts, NAME, Events::new(events, START_MS, PER_SECOND, 1), None), |_| true)).unwrap();
    let bench = Bench { parts: &parts, runtime: &runtime, events, turn };
    println!("{events} events of history in {PARTITIONS} partitions, {RATE}/s live\n");
    bench.disturbance(pairs);
    bench.speed(pairs);
}

struct Bench<'a> {
    parts: &'a Parts,
    runtime: &'a tokio::runtime::Runtime,
    events: u64,
    turn: Duration,
}

impl Bench<'_> {
    /// The history's whole minutes, as arguments of a replay.
    fn range(&self) -> [String; 4] {
        let minutes = (self.events / PER_SECOND / 60).max(1) as i64;
        let at = |ms: i64| chrono::DateTime::from_timestamp_millis(ms).unwrap().to_rfc3339();
        ["--from".to_owned(), at(START_MS), "--to".to_owned(), at(START_MS + minutes * 60_000)]
    }

    fn start(&self, folder: &Path, database: &str, port: u16, arguments: &[&str]) -> Child {
        weir(self.parts, folder, NAME, database, port, arguments).spawn().unwrap()
    }

    /// Runs a command to its end; how long it took.
    fn run(&self, folder: &Path, database: &str, arguments: &[&str]) -> Duration {
        let began = Instant::now();
        let status = self.start(folder, database, free_port(), arguments).wait().unwrap();
        assert!(status.success(), "{arguments:?}: {status}");
        began.elapsed()
    }

    fn replay<'b>(&self, range: &'b [String; 4], more: &[&'b str]) -> Vec<&'b str> {
        ["replay", "pipeline.toml"]
            .into_iter()
            .chain(range.iter().map(String::as_str))
            .chain(more.iter().copied())
            .collect()
    }

    /// How old live rows are, with a replay beside the pipeline and without.
    fn disturbance(&self, pairs: u64) {
        let folder = bench_folder(false);
        let folder = folder.path();
        self.run(folder, NAME, &["run", "pipeline.toml", "--until-end"]);
        let mut live = self.start(folder, NAME, free_port(), &["run", "pipeline.toml"]);
        let measure = |time| latency(self.runtime, self.parts, (NAME, NAME), RATE, time);
        // Until every partition has said something, the one that is ahead waits.
        measure(Duration::from_secs(5));
        // Slow enough to have a backlog for twice as long as a turn.
        let rate = (self.events / self.turn.as_secs() / 2).max(1).to_string();
        let range = self.range();
        println!("{:<8} {:>24} {:>24} {:>9}", "pair", "alone: p50, p99 ms", "beside: p50, p99 ms", "growth");
        let mut growths = Vec::new();
        for pair in 0..pairs {
            let beside = || {
                let run = format!("pair_{pair}");
                let arguments = self.replay(&range, &["--run", &run, "--rate", &rate]);
                begun_minute();
                let mut replay = self.start(folder, NAME, free_port(), &arguments);
                let ages = measure(self.turn);
                assert!(replay.try_wait().unwrap().is_none(), "the replay had no backlog left: give it more events");
                let _ = replay.kill();
                let _ = replay.wait();
                self.run(folder, NAME, &["replay", "drop", "pipeline.toml", &run]);
                ages
            };
            // In turns, so that what changes with time counts for neither.
            let (alone, beside) = match pair % 2 {
                0 => (measure(self.turn), beside()),
                _ => {
                    let beside = beside();
                    (measure(self.turn), beside)
                }
            };
            let growth = beside.1 as f64 / alone.1.max(1) as f64 - 1.0;
            growths.push(growth);
            let shown = |ages: (u64, u64)| format!("{}, {}", ages.0, ages.1);
            println!("{:<8} {:>24} {:>24} {:>7.1} %", pair + 1, shown(alone), shown(beside), growth * 100.0);
        }
        println!("p99 grows by {:.1} %, the median; at most 10 % are allowed", median(&mut growths) * 100.0);
        let _ = live.kill();
        let _ = live.wait();
        self.run(folder, NAME, &["run", "pipeline.toml", "--until-end"]);
        let other = bench_folder(false);
        self.run(other.path(), "beside_without", &["run", "pipeline.toml", "--until-end"]);
        let rows = |database| {
            let columns = "window_start, tenant, type, events, turnover, users";
            ask(
                self.parts,
                database,
                &format!("SELECT count(), sum(events), sum(cityHash64({columns})) FROM by_minute"),
            )
        };
        let (with, without) = (rows(NAME), rows("beside_without"));
        assert_eq!(with, without, "the live tables differ from those of a run without a replay");
        println!("the live tables are those of a run without a replay: {with}\n");
    }

    /// Replay against engine: the same records, each as fast as it goes.
    fn speed(&self, pairs: u64) {
        println!("{:<8} {:>16} {:>16} {:>7}", "pair", "engine, events/s", "replay, events/s", "ratio");
        let (range, mut ratios) = (self.range(), Vec::new());
        for pair in 0..pairs {
            let (folder, database) = (bench_folder(false), format!("beside_speed_{pair}"));
            let engine = self.run(folder.path(), &database, &["run", "pipeline.toml", "--until-end"]);
            let replay = self.run(folder.path(), &database, &self.replay(&range, &["--run", "all"]));
            let read = |of: &str| -> f64 {
                let sql = format!("SELECT sum(consumed) FROM {of}.weir_ledger");
                ask(self.parts, "system", &sql).parse().unwrap()
            };
            let speeds = (
                read(&database) / engine.as_secs_f64(),
                read(&format!("{database}_replay_all")) / replay.as_secs_f64(),
            );
            let ratio = speeds.1 / speeds.0;
            ratios.push(ratio);
            println!("{:<8} {:>16.0} {:>16.0} {ratio:>7.2}", pair + 1, speeds.0, speeds.1);
        }
        println!("replay runs at {:.2} of the engine's speed, the median; 0.67 are wanted", median(&mut ratios));
    }
}

fn median(of: &mut [f64]) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}
