//! What benchmarks of the whole way share: a shop's events, the pipeline that reads them, and how old a row is when it can be
//! seen.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use apache_avro::types::Value;
use weir_replay::parts::Parts;
use weir_replay::produce::faults::Faults;
use weir_replay::produce::rows::{Row, Rows};
use weir_replay::produce::{Job, ProduceError, Target, produce};
use weir_schemas::registry::{Registry, Settings};

pub(crate) const WEIR: &str = env!("CARGO_BIN_EXE_weir");
pub(crate) const SCHEMA: &str = include_str!("event.avsc");
pub(crate) const PARTITIONS: i32 = 8;
const MINUTE_MS: i64 = 60_000;

/// Events like those of apps: few tenants, a few thousand users, a purchase now and then.
pub(crate) struct Events {
    made: u64,
    count: u64,
    start_at_ms: i64,
    per_second: u64,
    random: fastrand::Rng,
}

impl Events {
    /// `count` of them, evenly in event time from `start_at_ms` on.
    pub(crate) fn new(count: u64, start_at_ms: i64, per_second: u64, seed: u64) -> Events {
        Events { made: 0, count, start_at_ms, per_second, random: fastrand::Rng::with_seed(seed) }
    }
}

impl Rows for Events {
    fn schema(&self) -> &str {
        SCHEMA
    }

    fn next_row(&mut self) -> Result<Option<Row>, ProduceError> {
        if self.made == self.count {
            return Ok(None);
        }
        self.made += 1;
        let time_ms = self.start_at_ms + (self.made * 1000 / self.per_second) as i64;
        let text = |text: String| Value::String(text);
        let kind = self.random.usize(0..5);
        let kinds = ["page_view", "search", "add_to_cart", "purchase", "refund"];
        let amount = self.random.u32(100..100_000).to_be_bytes().to_vec();
        let user = format!("u{:07}", self.random.u32(0..50_000));
        let props = [("country", ["DE", "US", "GB", "FR"][self.random.usize(0..4)]), ("path", "/checkout")];
        let value = Value::Record(vec![
            ("event_id".to_owned(), text(format!("{:016x}", self.random.u64(..)))),
            ("occurred_at".to_owned(), Value::TimestampMillis(time_ms)),
            ("tenant".to_owned(), text(format!("shop-{}", self.random.u8(0..20)))),
            ("type".to_owned(), Value::Enum(kind as u32, kinds[kind].to_owned())),
            ("user_id".to_owned(), text(user.clone())),
            ("amount".to_owned(), Value::Decimal(amount.into())),
            ("sdk".to_owned(), text("android".to_owned())),
            ("app_version".to_owned(), text("7.1.0".to_owned())),
            ("props".to_owned(), Value::Map(props.map(|(k, v)| (k.to_owned(), text(v.to_owned()))).into())),
        ]);
        Ok(Some(Row { value, time_ms: Some(time_ms), key: Some(user.into_bytes()), release: None, is_spoiled: false }))
    }

    fn share_done(&self) -> Option<f64> {
        Some(self.made as f64 / self.count as f64)
    }
}

/// What produces `rows`, at `rate` a second or as fast as it goes.
pub(crate) fn job(parts: &Parts, topic: &str, rows: Events, rate: Option<f64>) -> Job {
    Job {
        rows: Box::new(rows),
        target: Target {
            kafka: BTreeMap::from([("bootstrap.servers".to_owned(), parts.kafka())]),
            topic: topic.to_owned(),
            partitions: Some(PARTITIONS),
            event_timestamps: true,
        },
        registry: Registry::new(Settings::new(parts.registry())).unwrap(),
        subject: None,
        rate,
        limit: None,
        faults: Faults::default(),
    }
}

/// The pipeline's files in a folder of their own.
pub(crate) fn bench_folder(deduplicate: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/speed");
    std::fs::create_dir(folder.path().join("views")).unwrap();
    for name in ["event.avsc", "views/by_minute.sql"] {
        std::fs::copy(from.join(name), folder.path().join(name)).unwrap();
    }
    let mut text = std::fs::read_to_string(from.join("pipeline.toml")).unwrap();
    if deduplicate {
        text = text.replace("# DEDUPLICATE ", "");
    }
    std::fs::write(folder.path().join("pipeline.toml"), text).unwrap();
    folder
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A command of the program.
pub(crate) fn weir(
    parts: &Parts,
    folder: &Path,
    topic: &str,
    database: &str,
    port: u16,
    arguments: &[&str],
) -> Command {
    let mut command = Command::new(WEIR);
    command
        .args(arguments)
        .current_dir(folder)
        .env("BROKERS", parts.kafka())
        .env("REGISTRY", parts.registry())
        .env("CLICKHOUSE", parts.clickhouse())
        .env("DATABASE", database)
        .env("TOPIC", topic)
        .env("HTTP_PORT", port.to_string())
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// Waits for a minute to begin, and returns its start in milliseconds since 1970: from there on a minute's rows are of what is
/// sent then alone, and of every turn they grow alike.
pub(crate) fn begun_minute() -> i64 {
    loop {
        let now_ms = weir_pipeline::clock::Clock::System.now_ms();
        if now_ms % MINUTE_MS < 1_000 {
            return now_ms - now_ms % MINUTE_MS;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Milliseconds from producing to a visible row, p50 and p99, of a pipeline that is starting or running: a reader polls the sum
/// of events, and each event that it misses is as old as the live rate says.
pub(crate) fn latency(
    runtime: &tokio::runtime::Runtime,
    parts: &Parts,
    (topic, database): (&str, &str),
    rate: u64,
    time: Duration,
) -> (u64, u64) {
    let there = format!("SELECT count() FROM tables WHERE name = 'by_minute' AND database = '{database}'");
    while ask(parts, "system", &there) != "1" {
        std::thread::sleep(Duration::from_millis(100));
    }
    let start_at_ms = begun_minute();
    let from = start_at_ms / 1_000;
    let sum = format!("SELECT sum(events) FROM by_minute WHERE window_start >= toDateTime({from}, 'UTC')");
    let seen = || ask(parts, database, &sum).parse::<u64>().unwrap_or(0);
    let rows = Events::new(rate * time.as_secs(), start_at_ms, rate, start_at_ms as u64);
    let acknowledged = Arc::new(Mutex::new(Vec::<(Instant, u64)>::new()));
    let told = Arc::clone(&acknowledged);
    let live = runtime.spawn(produce(job(parts, topic, rows, Some(rate as f64)), move |progress| {
        told.lock().unwrap().push((Instant::now(), progress.acknowledged));
        true
    }));
    let mut ages = Vec::new();
    while !live.is_finished() {
        let visible = seen();
        let now = Instant::now();
        // The oldest acknowledged record that isn't visible: when was it acknowledged?
        let sent = acknowledged.lock().unwrap();
        if let Some((at, _)) = sent.iter().find(|(_, count)| *count > visible) {
            ages.push(now.duration_since(*at).as_millis() as u64);
        }
        drop(sent);
        std::thread::sleep(Duration::from_millis(50));
    }
    ages.sort_unstable();
    let at = |share: f64| ages.get((ages.len() as f64 * share) as usize).copied().unwrap_or(0);
    (at(0.5), at(0.99))
}

/// What ClickHouse answers.
pub(crate) fn ask(parts: &Parts, database: &str, sql: &str) -> String {
    let output = Command::new("curl")
        .args(["-s", &format!("{}/?database={database}", parts.clickhouse()), "-d", sql])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
