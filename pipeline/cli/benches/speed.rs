//! How fast it is, with the floor beside it, in one run: what consuming alone costs, consuming and decoding, and the
//! whole way into ClickHouse with and without deduplication. CPU seconds are those of Weir's process alone.
//!
//! Two million Avro events of nine fields (a map among them) in eight partitions, one-minute windows by tenant and type
//! with a count, a sum of decimals and exact distinct users, two workers. `WEIR_BENCH_EVENTS` changes the number.

#![allow(clippy::unwrap_used, reason = "a test or benchmark ends where it can't go on")]

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use weir_pipeline::source::fetch::{Fetcher, consumer_config};
use weir_pipeline::source::log::Assigned;
use weir_replay::parts::Parts;
use weir_replay::produce::produce;
use weir_schemas::avro::{Decoder, ReaderSchema, Schema};
use weir_schemas::frame::FRAME_BYTES;

#[path = "speed/shop.rs"]
mod shop;
#[path = "speed/started.rs"]
mod started;

use shop::{Events, PARTITIONS, SCHEMA, ask, bench_folder, free_port, job, latency, weir};
use started::started;

/// Events a second while latency is measured.
const RATE: u64 = 5_000;

fn main() {
    // `cargo test` builds benches and runs them with this flag; a benchmark is no test.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let events: u64 = std::env::var("WEIR_BENCH_EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000_000);
    let folder = tempfile::tempdir().unwrap();
    let parts = started(folder.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bytes = fill(&runtime, &parts, events);
    println!("{events} events of {bytes} bytes, {PARTITIONS} partitions, 2 workers\n");
    println!("{:<34} {:>12} {:>12} {:>10} {:>9}", "", "CPU-s per M", "events/s", "peak MiB", "x floor");

    let consume = floor(&parts, events, None);
    report("floor: consume", events, consume, None, None);
    let reader = Arc::new(ReaderSchema::parse(SCHEMA).unwrap());
    let decode = floor(&parts, events, Some(reader));
    report("floor: consume + decode", events, decode, None, None);
    let mut stages = Vec::new();
    for (name, deduplicate) in [("weir", false), ("weir with deduplication", true)] {
        let run = pipeline(&parts, events, deduplicate);
        report(name, events, run.cost, Some(run.peak_kib), Some(decode));
        stages.push((name, run.stages));
    }
    stages.iter().for_each(|(name, sample)| sample.print(name, events));
    let live = live(&runtime, &parts);
    println!("\nproduce to visible row, 5,000 events/s: p50 {} ms, p99 {} ms", live.0, live.1);
}

/// CPU time and wall time of a run.
#[derive(Clone, Copy)]
struct Cost {
    cpu: Duration,
    wall: Duration,
}

fn report(name: &str, events: u64, cost: Cost, peak_kib: Option<u64>, floor: Option<Cost>) {
    let per_million = cost.cpu.as_secs_f64() * 1e6 / events as f64;
    let rate = events as f64 / cost.wall.as_secs_f64();
    let peak = peak_kib.map_or_else(String::new, |kib| (kib / 1024).to_string());
    let times =
        floor.map_or_else(String::new, |floor| format!("{:.2}", cost.cpu.as_secs_f64() / floor.cpu.as_secs_f64()));
    println!("{name:<34} {per_million:>12.2} {rate:>12.0} {peak:>10} {times:>9}");
}

/// Fills the topic; the mean size of a value in bytes.
fn fill(runtime: &tokio::runtime::Runtime, parts: &Parts, events: u64) -> u64 {
    eprintln!("filling the topic ...");
    let rows = Events::new(events, 1_767_225_600_000, 2_000, 1);
    runtime.block_on(produce(job(parts, "speed", rows, None), |_| true)).unwrap();
    let fetcher = fetcher(parts, "speed");
    let (mut count, mut bytes) = (0u64, 0u64);
    let until = Instant::now() + Duration::from_secs(20);
    while count < 1_000 && Instant::now() < until {
        for message in fetcher.fetch(0).messages {
            count += 1;
            bytes += message.value().map_or(0, <[u8]>::len) as u64;
        }
    }
    bytes / count.max(1)
}

fn fetcher(parts: &Parts, topic: &str) -> Fetcher {
    let mut base = ClientConfig::new();
    base.set("bootstrap.servers", parts.kafka());
    let assigned: Vec<Assigned> =
        (0..PARTITIONS).map(|partition| Assigned { topic: topic.to_owned(), partition, offset: 0 }).collect();
    Fetcher::new(&consumer_config(&base, "floor", 16 << 20), &assigned).unwrap()
}

/// Consumes the whole topic in this process, on one thread besides librdkafka's; decodes it, too, with `reader`.
fn floor(parts: &Parts, events: u64, reader: Option<Arc<ReaderSchema>>) -> Cost {
    let writer = Schema::parse(SCHEMA).unwrap();
    let wanted = [false, true, true, true, true, true, false, false, false];
    let decoder = reader.map(|reader| Decoder::new(&writer, reader, &wanted).unwrap());
    let (began, cpu) = (Instant::now(), own_cpu());
    let fetcher = fetcher(parts, "speed");
    let mut count = 0u64;
    while count < events {
        let mut moved = false;
        for partition in 0..PARTITIONS as usize {
            let messages = fetcher.fetch(partition).messages;
            moved |= !messages.is_empty();
            count += messages.len() as u64;
            if let Some(decoder) = &decoder {
                let data: Vec<&[u8]> =
                    messages.iter().map(|message| &message.value().unwrap_or_default()[FRAME_BYTES..]).collect();
                assert!(decoder.decode(&data).unwrap().refused.is_empty());
            }
        }
        if !moved {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Cost { cpu: own_cpu() - cpu, wall: began.elapsed() }
}

struct PipelineRun {
    cost: Cost,
    peak_kib: u64,
    stages: Stages,
}

/// CPU seconds of a running pipeline when it was last seen: of its operators, by its own metric, and of its threads, by
/// the system's books.
#[derive(Clone, Default)]
struct Stages {
    operators: BTreeMap<String, f64>,
    threads: BTreeMap<String, f64>,
}

impl Stages {
    /// Looks at a process every 50 ms until it is gone.
    fn watch(process: u32, port: u16) -> Stages {
        let mut last = Stages::default();
        loop {
            let seen = Stages { operators: operators(port), threads: threads(process) };
            if seen.threads.is_empty() {
                return last;
            }
            if !seen.operators.is_empty() {
                last.operators = seen.operators;
            }
            // Threads that have ended are in the books no more.
            for (name, seconds) in seen.threads {
                let most = last.threads.entry(name).or_insert(0.0);
                *most = most.max(seconds);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn print(&self, name: &str, events: u64) {
        let all: f64 = self.threads.values().sum();
        let workers: f64 = self.operators.values().sum();
        println!("\n{name}: stages as last seen, CPU-s per million events and their share");
        let line = |stage: &str, seconds: f64| {
            let (per_million, share) = (seconds * 1e6 / events as f64, seconds * 100.0 / all.max(1e-9));
            println!("  {stage:<34} {per_million:>8.2} {share:>5.0} %");
        };
        let mut stages: Vec<(&String, &f64)> = self.operators.iter().collect();
        stages.sort_by(|a, b| b.1.total_cmp(a.1));
        stages.into_iter().for_each(|(stage, seconds)| line(stage, *seconds));
        // Workers' threads do nothing but operators and what timely needs for them.
        let is_worker = |name: &str| name.starts_with("timely");
        let timely: f64 = self.threads.iter().filter(|(name, _)| is_worker(name)).map(|(_, seconds)| seconds).sum();
        line("workers besides (progress, exchange)", (timely - workers).max(0.0));
        let others = self.threads.iter().filter(|(name, seconds)| !is_worker(name) && **seconds > 0.0);
        others.for_each(|(name, seconds)| line(&format!("thread {name}"), *seconds));
    }
}

fn operators(port: u16) -> BTreeMap<String, f64> {
    let output = Command::new("curl").args(["-s", &format!("http://127.0.0.1:{port}/metrics")]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let read = |line: &str| {
        let (name, seconds) = line.strip_prefix("weir_operator_cpu_seconds_total{operator=\"")?.split_once("\"} ")?;
        Some((name.to_owned(), seconds.parse().ok()?))
    };
    text.lines().filter_map(read).collect()
}

/// CPU seconds by name of thread; librdkafka's count as one.
fn threads(process: u32) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let (Some(open), Some(close)) = (stat.find('('), stat.rfind(')')) else { continue };
        let fields: Vec<&str> = stat[close + 1..].split_whitespace().collect();
        let ticks: f64 = fields.get(11..13).into_iter().flatten().filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
        let name = &stat[open + 1..close];
        let name = if name.starts_with("rdk:") { "librdkafka" } else { name };
        // Linux counts in hundredths of a second for every program.
        *found.entry(name.to_owned()).or_insert(0.0) += ticks / 100.0;
    }
    found
}

/// The whole way: the program itself, from an empty state to the last acknowledged row.
fn pipeline(parts: &Parts, events: u64, deduplicate: bool) -> PipelineRun {
    let folder = bench_folder(deduplicate);
    let database = if deduplicate { "speed_deduplicated" } else { "speed_plain" };
    let began = Instant::now();
    let port = free_port();
    let arguments = ["run", "pipeline.toml", "--until-end"];
    let process = weir(parts, folder.path(), "speed", database, port, &arguments).spawn().unwrap().id();
    let watch = std::thread::spawn(move || Stages::watch(process, port));
    let (status, usage) = wait(process);
    let stages = watch.join().unwrap();
    assert_eq!(status, 0, "the pipeline failed");
    let answer = ask(parts, database, "SELECT sum(events) FROM by_minute");
    assert_eq!(answer, events.to_string(), "rows are missing");
    let seconds = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    PipelineRun {
        cost: Cost { cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime), wall: began.elapsed() },
        peak_kib: usage.ru_maxrss as u64,
        stages,
    }
}

/// The latency of a live pipeline with nothing beside it.
fn live(runtime: &tokio::runtime::Runtime, parts: &Parts) -> (u64, u64) {
    let folder = bench_folder(false);
    // The topic has to be there before the pipeline starts.
    let now_ms = weir_pipeline::clock::Clock::System.now_ms();
    runtime.block_on(produce(job(parts, "live", Events::new(1, now_ms, RATE, 2), None), |_| true)).unwrap();
    let mut child =
        weir(parts, folder.path(), "live", "speed_live", free_port(), &["run", "pipeline.toml"]).spawn().unwrap();
    let ages = latency(runtime, parts, ("live", "speed_live"), RATE, Duration::from_secs(30));
    let _ = child.kill();
    let _ = child.wait();
    ages
}

fn own_cpu() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: writes the structure that it is given.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Waits for a child; its exit status and what it used.
fn wait(process: u32) -> (i32, libc::rusage) {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    let mut status = 0;
    // SAFETY: writes the two values that it is given; the child is ours and nobody else waits for it.
    let usage = unsafe {
        libc::wait4(process as libc::pid_t, &mut status, 0, usage.as_mut_ptr());
        usage.assume_init()
    };
    (status, usage)
}
