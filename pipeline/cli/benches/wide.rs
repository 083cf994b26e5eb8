//! What judging costs: the engine's benchmark (`speed`: one-minute windows by tenant and type, count, sum and exact distinct
//! users, two workers) with events of fifty fields from a thousand releases, with the judge off and on, in one run.
//!
//! Two costs are told apart. What an event more costs is the difference between logs of two sizes with the same senders in
//! one hour of event time, each stopped when its last event is in the view's rows and before the hour is over. What judging
//! the window costs is the difference to a run of the larger log to its end; it depends on how many series there are, not
//! on how many events came. Off, the fields that no view reads aren't made columns, while the judge looks at every field. So
//! both are measured twice: alone, and with the events kept in ClickHouse, for which every field is made one in any case.
//! Ten tenants, one event type, releases drawn log-uniformly; `WEIR_BENCH_EVENTS` changes the number of the larger log. CPU
//! seconds are those of Weir's process alone, start-up included; off and on are run in turns, and of each the least counts.

#![allow(clippy::unwrap_used, reason = "a test or benchmark ends where it can't go on")]

#[path = "speed/started.rs"]
mod started;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use apache_avro::types::Value;
use started::started;
use weir_replay::parts::Parts;
use weir_replay::produce::faults::Faults;
use weir_replay::produce::rows::{Row, Rows};
use weir_replay::produce::{Job, ProduceError, Target, produce};
use weir_schemas::registry::{Registry, Settings};

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const START_MS: i64 = 1_767_225_600_000;
const RELEASES: f64 = 1_000.0;
/// Fields beside the eight that say whose an event is: texts of few values, texts that may be missing, numbers.
const TEXTS: usize = 14;
const MAYBE: usize = 10;
const LONGS: usize = 9;
const DOUBLES: usize = 9;

fn schema() -> String {
    let named = |name: &str, of: &str| format!(r#"{{"name": "{name}", "type": {of}}}"#);
    let text = "\"string\"";
    let mut fields: Vec<String> = ["event_id", "tenant", "type", "user_id", "sdk", "sdk_version", "app_version"]
        .map(|name| named(name, text))
        .into();
    fields.push(named("occurred_at", r#"{"type": "long", "logicalType": "timestamp-millis"}"#));
    fields.extend((0..TEXTS).map(|at| named(&format!("text{at}"), text)));
    fields.extend((0..MAYBE).map(|at| named(&format!("maybe{at}"), r#"["null", "string"]"#)));
    fields.extend((0..LONGS).map(|at| named(&format!("long{at}"), "\"long\"")));
    fields.extend((0..DOUBLES).map(|at| named(&format!("double{at}"), "\"double\"")));
    format!(r#"{{"type": "record", "name": "Wide", "fields": [{}]}}"#, fields.join(", "))
}

struct Wide {
    schema: String,
    made: u64,
    count: u64,
    random: fastrand::Rng,
    /// Tenant and release of every cell.
    cells: Arc<Mutex<HashSet<(u8, u16)>>>,
}

impl Rows for Wide {
    fn schema(&self) -> &str {
        &self.schema
    }

    fn next_row(&mut self) -> Result<Option<Row>, ProduceError> {
        if self.made == self.count {
            return Ok(None);
        }
        let time_ms = START_MS + (self.made * 3_600_000 / self.count) as i64;
        self.made += 1;
        let random = &mut self.random;
        let text = |text: String| Value::String(text);
        let tenant = random.u8(0..10);
        let release = RELEASES.powf(random.f64()) as u16;
        self.cells.lock().unwrap().insert((tenant, release));
        let user = format!("u{:06}", random.u32(0..50_000));
        let mut fields = vec![
            ("event_id".to_owned(), text(format!("{:016x}", random.u64(..)))),
            ("tenant".to_owned(), text(format!("shop-{tenant}"))),
            ("type".to_owned(), text("view".to_owned())),
            ("user_id".to_owned(), text(user.clone())),
            ("sdk".to_owned(), text(["android", "ios", "web"][usize::from(release % 3)].to_owned())),
            ("sdk_version".to_owned(), text(format!("4.{release}.0"))),
            ("app_version".to_owned(), text("7.1".to_owned())),
            ("occurred_at".to_owned(), Value::TimestampMillis(time_ms)),
        ];
        fields.extend((0..TEXTS).map(|at| (format!("text{at}"), text(format!("value-{}", random.u8(0..8))))));
        for at in 0..MAYBE {
            let value = match random.u8(0..3) {
                0 => Value::Union(0, Box::new(Value::Null)),
                of => Value::Union(1, Box::new(text(format!("some-{of}")))),
            };
            fields.push((format!("maybe{at}"), value));
        }
        fields.extend((0..LONGS).map(|at| (format!("long{at}"), Value::Long(random.i64(0..5_000)))));
        fields.extend((0..DOUBLES).map(|at| (format!("double{at}"), Value::Double(random.f64() * 100.0))));
        let value = Value::Record(fields);
        Ok(Some(Row { value, time_ms: Some(time_ms), key: Some(user.into_bytes()), release: None, is_spoiled: false }))
    }

    fn share_done(&self) -> Option<f64> {
        Some(self.made as f64 / self.count as f64)
    }
}

const PIPELINE: &str = r#"
name = "wide"
state = "state"
workers = 2
epoch_ms = 1000
[kafka]
brokers = "${BROKERS}"
[registry]
url = "${REGISTRY}"
[clickhouse]
url = "${CLICKHOUSE}"
database = "${DATABASE}"
[sources.events]
topics = ["${TOPIC}"]
schema_file = "event.avsc"
event_time = "occurred_at"
tenant = "tenant"
event_type = "type"
user = "user_id"
release = { sdk = "sdk", sdk_version = "sdk_version", app_version = "app_version" }
disorder_ms = 5000
idle_after_ms = 2000
allowed_lateness_ms = 60000
KEPT
[views.by_minute]
file = "by_minute.sql"
JUDGE
"#;
const VIEW: &str = "SELECT toStartOfInterval(occurred_at, INTERVAL 1 MINUTE) AS window_start, tenant, type, \
                    count() AS events, sum(double0) AS turnover, uniqExact(user_id) AS users \
                    FROM events GROUP BY window_start, tenant, type";

fn main() {
    // `cargo test` builds benches and runs them with this flag; a benchmark is no test.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let events: u64 = std::env::var("WEIR_BENCH_EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(3_000_000);
    let folder = tempfile::tempdir().unwrap();
    let parts = started(folder.path());
    let sizes = [events / 3, events];
    let cells = sizes.map(|events| fill(&parts, events));
    println!("{sizes:?} events of 50 fields, {cells:?} of tenant and release in one window, 2 workers\n");
    let heads = ["CPU-s per M more", "adds", "CPU-s window", "peak MiB", "state bytes"];
    println!("{:<34} {:>17} {:>8} {:>13} {:>9} {:>12}", "", heads[0], heads[1], heads[2], heads[3], heads[4]);
    for (name, kept, turns) in
        [("fields that no view reads skipped", "", 8), ("events kept in ClickHouse", "keep_events_days = 10000", 2)]
    {
        let (mut off, mut on) = (Costs::new(sizes, kept, ""), Costs::new(sizes, kept, "[alerts.judge]\n"));
        // In turns, so that what changes with time counts for neither.
        for _ in 0..turns {
            for size in 0..sizes.len() {
                off.once_more(&parts, size);
                on.once_more(&parts, size);
            }
        }
        let state_off = off.report(&parts, name, String::new());
        let adds = format!("{:.0} %", (on.per_million() / off.per_million() - 1.0) * 100.0);
        let state = on.report(&parts, "  the same, judged", adds);
        let bytes = state.saturating_sub(state_off);
        println!("  state by judging: {} bytes per field and cell\n", bytes / (cells[1] * 50).max(1));
    }
}

/// What one run cost.
struct Cost {
    cpu: Duration,
    peak_kib: i64,
    state_bytes: u64,
}

/// What the runs of one pipeline cost.
struct Costs {
    sizes: [u64; 2],
    kept: &'static str,
    judge: &'static str,
    /// CPU seconds up to the last event of each log, of every run.
    seconds: [Vec<f64>; 2],
}

impl Costs {
    fn new(sizes: [u64; 2], kept: &'static str, judge: &'static str) -> Costs {
        Costs { sizes, kept, judge, seconds: [Vec::new(), Vec::new()] }
    }

    /// Runs over one of the logs, up to the last event.
    fn once_more(&mut self, parts: &Parts, size: usize) {
        let cost = run(parts, self.sizes[size], self.kept, self.judge, false);
        self.seconds[size].push(cost.cpu.as_secs_f64());
    }

    /// The least of the runs: what others do on the machine takes caches and clock away, and so only adds.
    fn least(&self, size: usize) -> f64 {
        self.seconds[size].iter().copied().fold(f64::NAN, f64::min)
    }

    /// What a million events more cost.
    fn per_million(&self) -> f64 {
        (self.least(1) - self.least(0)) * 1e6 / (self.sizes[1] - self.sizes[0]) as f64
    }

    /// Runs over the larger log with its window, and tells everything; the bytes of state.
    fn report(&self, parts: &Parts, name: &str, adds: String) -> u64 {
        let to_end = run(parts, self.sizes[1], self.kept, self.judge, true);
        let window = to_end.cpu.as_secs_f64() - self.least(1);
        let (more, peak, state) = (self.per_million(), to_end.peak_kib / 1024, to_end.state_bytes);
        println!("{name:<34} {more:>17.2} {adds:>8} {window:>13.1} {peak:>9} {state:>12}");
        for (events, seconds) in self.sizes.iter().zip(&self.seconds) {
            let all: Vec<String> = seconds.iter().map(|seconds| format!("{seconds:.2}")).collect();
            println!("    {events} events: {}", all.join(" "));
        }
        state
    }
}

fn topic(events: u64) -> String {
    format!("wide-{events}")
}

/// Fills a topic of its own; how many cells of tenant and release it has.
fn fill(parts: &Parts, events: u64) -> u64 {
    let random = fastrand::Rng::with_seed(1);
    let cells: Arc<Mutex<HashSet<(u8, u16)>>> = Arc::default();
    let job = Job {
        rows: Box::new(Wide { schema: schema(), made: 0, count: events, random, cells: cells.clone() }),
        target: Target {
            kafka: BTreeMap::from([("bootstrap.servers".to_owned(), parts.kafka())]),
            topic: topic(events),
            partitions: Some(8),
            event_timestamps: true,
        },
        registry: Registry::new(Settings::new(parts.registry())).unwrap(),
        subject: None,
        rate: None,
        limit: None,
        faults: Faults::default(),
    };
    tokio::runtime::Runtime::new().unwrap().block_on(produce(job, |_| true)).unwrap();
    let cells = cells.lock().unwrap().len();
    cells as u64
}

/// Runs the pipeline over a log: to its end, or until its last event is in the view's rows.
fn run(parts: &Parts, events: u64, kept: &str, judge: &str, is_to_end: bool) -> Cost {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("event.avsc", &schema());
    write("by_minute.sql", VIEW);
    write("pipeline.toml", &PIPELINE.replace("KEPT", kept).replace("JUDGE", judge));
    let database = weir_replay::parts::unique("wide");
    let mut arguments = vec!["run", "pipeline.toml"];
    arguments.extend(is_to_end.then_some("--until-end"));
    let process = Command::new(WEIR)
        .args(arguments)
        .current_dir(folder.path())
        .env("BROKERS", parts.kafka())
        .env("REGISTRY", parts.registry())
        .env("CLICKHOUSE", parts.clickhouse())
        .env("DATABASE", &database)
        .env("TOPIC", topic(events))
        .env("RUST_LOG", "error")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
        .id();
    let counted = || ask(parts, &database, "SELECT sum(events) FROM by_minute") == events.to_string();
    if !is_to_end {
        let until = Instant::now() + Duration::from_secs(600);
        while !counted() {
            assert!(Instant::now() < until, "rows are missing");
            std::thread::sleep(Duration::from_millis(250));
        }
        // SAFETY: sends a signal to our own child, which has not been waited for.
        unsafe { libc::kill(process as libc::pid_t, libc::SIGTERM) };
    }
    let (cpu, peak_kib) = wait(process);
    assert!(counted(), "rows are missing");
    Cost { cpu, peak_kib, state_bytes: bytes_below(&folder.path().join("state")) }
}

fn ask(parts: &Parts, database: &str, sql: &str) -> String {
    let address = format!("{}/?database={database}", parts.clickhouse());
    let answer = Command::new("curl").args(["-s", &address, "-d", sql]).output().unwrap();
    String::from_utf8_lossy(&answer.stdout).trim().to_owned()
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(facts) if facts.is_dir() => bytes_below(&entry.path()),
        // The log of what was written since the last flush isn't state.
        Ok(facts) if entry.path().extension().is_some_and(|kind| kind == "sst") => facts.len(),
        _ => 0,
    };
    entries.map(of).sum()
}

/// Waits for a child that has to end well; the CPU time that it used and the most memory that it had, in KiB.
fn wait(process: u32) -> (Duration, i64) {
    let (mut usage, mut status) = (std::mem::MaybeUninit::<libc::rusage>::zeroed(), 0);
    // SAFETY: writes the two values that it is given; the child is ours and nobody else waits for it.
    let usage = unsafe {
        libc::wait4(process as libc::pid_t, &mut status, 0, usage.as_mut_ptr());
        usage.assume_init()
    };
    assert_eq!(status, 0, "the pipeline failed");
    let seconds = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    (seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss)
}
