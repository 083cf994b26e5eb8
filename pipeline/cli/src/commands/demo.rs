//! `weir demo`: all of it together on one machine, to look at.
//!
//! Real parts on loopback (or those that are named), a generator of storefront events, the pipeline of `weir init`, and
//! a live screen. The data stays in the folder: started again, the demo goes on where it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use weir_pipeline::clock::Clock;
use weir_pipeline::config::Pipeline;
use weir_pipeline::config::load::load;
use weir_pipeline::connect;
use weir_pipeline::engine::{Running, Summary};
use weir_pipeline::error::Error;
use weir_pipeline::run::run as run_pipeline;
use weir_replay::parts::{Parts, PartsOptions};
use weir_replay::produce::faults::Faults;
use weir_replay::produce::storefront::{Storefront, StorefrontRows, Wrong};
use weir_replay::produce::{Job, Target, produce};
use weir_schemas::registry::{Registry, Settings};

use super::replay::shown_replays;
use super::run::{log, stop_on_signal};
use super::{init, status, verify};
use crate::args::Demo;
use crate::out::say;
use crate::prepare::prepare;
use crate::screen::{Picture, Screen, look};
use crate::{OperatorRegistry, Outcome, paint, runtime};

/// How much of the past the first start makes up, so that there are closed windows to look at from the first moment.
const BACKLOG_MS: i64 = 10 * 60_000;

/// How long the pipeline may take to read what the generator left when the demo ends.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(30);

/// Runs the demo.
pub(crate) fn run(arguments: &Demo, operators: OperatorRegistry) -> Outcome {
    // The screen says what matters; log lines would tear it.
    if std::env::var_os("RUST_LOG").is_some() {
        log(false);
    }
    let parts = match start_parts(arguments) {
        Ok(parts) => parts,
        Err(outcome) => return outcome,
    };
    let file = match write_pipeline(arguments, &parts) {
        Ok(file) => file,
        Err(error) => {
            return Outcome::refused(
                format!("{}: {error}", arguments.folder.display()),
                "name a folder that can be written",
            );
        }
    };
    let pipeline = match load(&file) {
        Ok(pipeline) => pipeline,
        Err(problems) => return Outcome::problems(&problems),
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(outcome) => return outcome,
    };
    let stop = Arc::new(AtomicBool::new(false));
    runtime.spawn(stop_on_signal(Arc::clone(&stop)));
    let addresses = Addresses::of(&pipeline);
    addresses.print(&file);
    let outcome = runtime.block_on(show(arguments, &file, &pipeline, operators, &stop));
    if let Ok(()) = &outcome {
        say!("\nThe data stays in {}; `weir demo` goes on from here.", arguments.folder.display());
    }
    drop(parts);
    match outcome {
        Ok(()) => Outcome::done(),
        Err(outcome) => outcome,
    }
}

/// Starts the parts that aren't named; `None` when all are.
fn start_parts(arguments: &Demo) -> Result<Option<Parts>, Outcome> {
    let program = std::env::current_exe()
        .map_err(|error| Outcome::unreachable(format!("this program's own path: {error}"), "start it by its path"))?;
    let options = PartsOptions {
        folder: arguments.folder.join("parts"),
        kafka: arguments.kafka.is_none(),
        registry: arguments.registry.is_none(),
        clickhouse: arguments.clickhouse.is_none(),
        front: vec![program.into_os_string(), "clickhouse".into()],
        ..PartsOptions::default()
    };
    if !(options.kafka || options.registry || options.clickhouse) {
        return Ok(None);
    }
    say!("starting Kafka, the schema registry and the ClickHouse engine (10 to 40 seconds) ...");
    Parts::start(&options).map(Some).map_err(|error| {
        Outcome::unreachable(
            error.to_string(),
            "`make parts` fetches them; --kafka, --registry, --clickhouse name others",
        )
    })
}

/// Writes the pipeline of `weir init` with the parts' addresses in it.
fn write_pipeline(arguments: &Demo, parts: &Option<Parts>) -> std::io::Result<PathBuf> {
    let folder = arguments.folder.join("pipeline");
    init::write(&folder)?;
    let file = folder.join("pipeline.toml");
    let address = |named: &Option<String>, started: fn(&Parts) -> String| {
        named.clone().or_else(|| parts.as_ref().map(started)).unwrap_or_default()
    };
    let text = std::fs::read_to_string(&file)?
        .replace("127.0.0.1:9092", &address(&arguments.kafka, Parts::kafka))
        .replace("http://127.0.0.1:8081", &address(&arguments.registry, Parts::registry))
        .replace("http://127.0.0.1:8123", &address(&arguments.clickhouse, Parts::clickhouse));
    std::fs::write(&file, text)?;
    Ok(file)
}

/// Where everything is.
struct Addresses {
    kafka: String,
    registry: String,
    clickhouse: String,
    http: String,
}

impl Addresses {
    fn of(pipeline: &Pipeline) -> Addresses {
        Addresses {
            kafka: pipeline.kafka.brokers.clone(),
            registry: pipeline.registry.url.clone(),
            clickhouse: pipeline.clickhouse.url.clone(),
            http: pipeline.http.clone().unwrap_or_default(),
        }
    }

    fn print(&self, file: &Path) {
        say!("kafka       {}", self.kafka);
        say!("registry    {}", self.registry);
        say!("clickhouse  {}", self.clickhouse);
        say!("metrics     http://{}/metrics", self.http);
        say!("console     {}", paint::bold(&format!("http://{}/", self.http)));
        say!("pipeline    {}", file.display());
        say!("\nAsk ClickHouse yourself:");
        say!(
            "  curl '{}' -d \"SELECT * FROM weir.revenue_by_minute ORDER BY window_start DESC LIMIT 5 FORMAT PrettyCompact\"",
            self.clickhouse
        );
        say!("  weir query {} --cookbook\n", file.display());
    }
}

/// Runs generator and pipeline, and draws until it is time to stop; then the summary and the verdict.
async fn show(
    arguments: &Demo,
    file: &Path,
    pipeline: &Pipeline,
    operators: OperatorRegistry,
    stop: &Arc<AtomicBool>,
) -> Result<(), Outcome> {
    let client = connect::clickhouse(pipeline).map_err(|error| Outcome::of_error(&error))?;
    let is_new = !pipeline.state.exists();
    let generator = Generator::start(arguments, pipeline, is_new)?;
    // The pipeline needs the topic, which the generator makes.
    generator.wait_for_first().await?;
    let pipeline_stop = Arc::new(AtomicBool::new(false));
    let running = spawn_pipeline(file, pipeline, operators, &pipeline_stop);

    let mut screen = Screen::new();
    let mut picture = Picture::default();
    let began = Instant::now();
    let (mut seen_at, mut consumed) = (Instant::now(), 0);
    let is_over =
        |began: Instant| arguments.seconds.is_some_and(|seconds| began.elapsed() >= Duration::from_secs(seconds));
    while !stop.load(Ordering::Acquire) && !is_over(began) && !running.is_finished() {
        tokio::time::sleep(Duration::from_millis(if screen.is_live() { 1_000 } else { 5_000 })).await;
        read_status(pipeline, &mut picture).await;
        look(&client, &mut picture).await;
        let now = positions(&picture);
        picture.rate = now.saturating_sub(consumed) as f64 / seen_at.elapsed().as_secs_f64().max(0.001);
        (seen_at, consumed) = (Instant::now(), now);
        screen.draw(&picture);
    }
    generator.stop().await?;
    let until = Instant::now() + CATCH_UP_WITHIN;
    while !running.is_finished() && Instant::now() < until {
        read_status(pipeline, &mut picture).await;
        if positions(&picture) > 0 && is_caught_up(&picture) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    pipeline_stop.store(true, Ordering::Release);
    let summary = tokio::task::spawn_blocking(move || running.join())
        .await
        .map_err(|error| Outcome::unreachable(error.to_string(), "start the demo again"))?;
    match summary {
        Ok(Ok(summary)) => tell(&client, &mut picture, &summary).await,
        Ok(Err(error)) => return Err(Outcome::of_error(&error)),
        Err(_) => {
            return Err(Outcome::unreachable("the pipeline's thread panicked", "start the demo again: it resumes"));
        }
    }
    check(file, pipeline, &client).await
}

/// Positions of all partitions added up.
fn positions(picture: &Picture) -> u64 {
    let partitions = picture.status.sources.iter().flat_map(|source| &source.partitions);
    partitions.map(|of| u64::try_from(of.status.next_offset).unwrap_or(0)).sum()
}

fn is_caught_up(picture: &Picture) -> bool {
    let mut partitions = picture.status.sources.iter().flat_map(|source| &source.partitions);
    partitions.all(|of| of.status.next_offset >= of.status.end_offset)
}

async fn read_status(pipeline: &Pipeline, picture: &mut Picture) {
    let Some(address) = &pipeline.http else { return };
    if let Ok(text) = status::fetch(address, pipeline.http_token.as_deref()).await
        && let Ok(status) = serde_json::from_str(&text)
    {
        picture.status = status;
    }
}

fn spawn_pipeline(
    file: &Path,
    pipeline: &Pipeline,
    operators: OperatorRegistry,
    stop: &Arc<AtomicBool>,
) -> JoinHandle<Result<Summary, Error>> {
    let replays = Some(shown_replays(file, pipeline));
    let (file, pipeline) = (file.display().to_string(), pipeline.clone());
    let running = Running { replays, stop: Arc::clone(stop), ..Running::default() };
    std::thread::spawn(move || run_pipeline(&file, &pipeline, &operators, &running))
}

async fn tell(client: &weir_sinks::clickhouse::Client, picture: &mut Picture, summary: &Summary) {
    look(client, picture).await;
    let ledger = &picture.ledger;
    say!("\n{}", paint::bold("Summary"));
    let mut table = paint::table(&["consumed", "accepted", "quarantined", "duplicate", "late", "ledger", "epochs"]);
    let balance = if ledger.unbalanced == 0 { paint::good("balanced") } else { paint::bad("NOT BALANCED") };
    table.add_row([
        paint::count(ledger.consumed),
        paint::count(ledger.accepted),
        paint::count(ledger.quarantined),
        paint::count(ledger.duplicate),
        paint::count(ledger.late),
        balance,
        (summary.committed.0 - summary.first.0).to_string(),
    ]);
    say!("{table}\n");
}

/// `weir verify`, on what the demo left.
async fn check(file: &Path, pipeline: &Pipeline, client: &weir_sinks::clickhouse::Client) -> Result<(), Outcome> {
    let (file, of_file) = (file.to_owned(), pipeline.clone());
    let prepared = tokio::task::spawn_blocking(move || prepare(&file, &of_file))
        .await
        .map_err(|error| Outcome::unreachable(error.to_string(), "start the demo again"))??;
    let options = weir_replay::verify::Options { show: 5, tolerance: 1e-9, live: false };
    let mut verdicts = Vec::new();
    for view in &prepared.bound.views {
        let kept = pipeline.sources.get(&view.plan.source).and_then(|source| source.keep_events_days);
        let verdict = weir_replay::verify::verify(client, view, kept.unwrap_or_default(), options).await;
        verdicts.push(verdict.map_err(|error| Outcome::unreachable(error.to_string(), "see the addresses above"))?);
    }
    let outcome = verify::report(&verdicts);
    if outcome.is_done() { Ok(()) } else { Err(outcome) }
}

/// The generator on a task of its own: a backlog at full speed, then live.
struct Generator {
    task: tokio::task::JoinHandle<Result<(), String>>,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
}

impl Generator {
    fn start(arguments: &Demo, pipeline: &Pipeline, with_backlog: bool) -> Result<Generator, Outcome> {
        let now_ms = Clock::System.now_ms();
        let rate = f64::from(arguments.rate.max(1));
        let backlog = if with_backlog { (BACKLOG_MS as f64 / 1000.0 * rate) as u64 } else { 0 };
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let registry = Registry::new(Settings::new(&pipeline.registry.url))
            .map_err(|error| Outcome::refused(error.to_string(), "correct --registry"))?;
        let topic = pipeline.sources.values().flat_map(|source| &source.topics).next().cloned().unwrap_or_default();
        let target = Target {
            kafka: BTreeMap::from([("bootstrap.servers".to_owned(), pipeline.kafka.brokers.clone())]),
            topic,
            partitions: Some(8),
            event_timestamps: true,
        };
        let job =
            move |start_at_ms: i64, count: Option<u64>, rate: Option<f64>, events_per_second: f64, wrong_from: u64| {
                Job {
                    rows: Box::new(StorefrontRows::new(Storefront {
                        // Another seed for each stretch of time, so that event ids don't come again.
                        seed: start_at_ms.unsigned_abs(),
                        start_at_ms,
                        events_per_second,
                        count,
                        wrong: Wrong::NegativeAmount,
                        wrong_from,
                        ..Storefront::default()
                    })),
                    target: target.clone(),
                    registry: registry.clone(),
                    subject: None,
                    rate,
                    limit: None,
                    faults: Faults {
                        seed: start_at_ms.unsigned_abs(),
                        disorder_ms: 3_000,
                        duplicates: 0.01,
                        stragglers: 0.002,
                        straggler_ms: 45_000,
                        bad: 0.001,
                    },
                }
            };
        let (watched_stop, watched_sent) = (Arc::clone(&stop), Arc::clone(&sent));
        let task = tokio::spawn(async move {
            let watch = |stop: Arc<AtomicBool>, sent: Arc<AtomicU64>| {
                move |progress: &weir_replay::produce::Progress| {
                    sent.fetch_max(progress.acknowledged, Ordering::Relaxed);
                    !stop.load(Ordering::Acquire)
                }
            };
            if backlog > 0 {
                let past = job(now_ms - BACKLOG_MS, Some(backlog), None, rate, backlog / 2);
                produce(past, watch(watched_stop.clone(), watched_sent.clone()))
                    .await
                    .map_err(|error| error.to_string())?;
            }
            if !watched_stop.load(Ordering::Acquire) {
                let live = job(Clock::System.now_ms(), None, Some(rate), rate, if backlog > 0 { 0 } else { u64::MAX });
                produce(live, watch(watched_stop, watched_sent)).await.map_err(|error| error.to_string())?;
            }
            Ok(())
        });
        Ok(Generator { task, stop, sent })
    }

    async fn wait_for_first(&self) -> Result<(), Outcome> {
        let until = Instant::now() + Duration::from_secs(60);
        while self.sent.load(Ordering::Relaxed) == 0 && !self.task.is_finished() {
            if Instant::now() > until {
                return Err(Outcome::unreachable(
                    "Kafka takes no records",
                    "look at the parts' logs in the demo's folder",
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn stop(self) -> Result<(), Outcome> {
        self.stop.store(true, Ordering::Release);
        match self.task.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Outcome::unreachable(error, "look at the parts' logs in the demo's folder")),
            Err(error) => Err(Outcome::unreachable(error.to_string(), "start the demo again")),
        }
    }
}
