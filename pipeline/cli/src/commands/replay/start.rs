//! Beginning a replay, or going on with one: look, say what will be read, read it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use weir_pipeline::bind::BoundView;
use weir_pipeline::clock::Clock;
use weir_pipeline::config::Pipeline;
use weir_pipeline::console::guard::Access;
use weir_pipeline::engine::Reporter;
use weir_pipeline::source::kafka::KafkaLog;
use weir_pipeline::source::log::Log;
use weir_pipeline::source::pace::Pace;
use weir_pipeline::status::Status as PipelineStatus;
use weir_pipeline::{connect, recovery};
use weir_replay::rerun::inputs;
use weir_replay::rerun::part::{choose, narrow};
use weir_replay::rerun::range::{Range, final_through, shown};
use weir_replay::rerun::record::{ReadFrom, Record, Status, Store};
use weir_replay::rerun::survey::{Survey, SurveyError, Surveyor};
use weir_replay::rerun::{Ended, Rerun};
use weir_schemas::registry::SchemaSource;
use weir_schemas::time::EventTime;
use weir_sinks::clickhouse::Client;

use super::{Start, opened, with};
use crate::commands::run::{log, stop_on_signal};
use crate::commands::status::fetch;
use crate::out::{printable, say};
use crate::prepare::prepare;
use crate::{OperatorRegistry, Outcome, paint, runtime};

/// How often the bar is drawn, and the live pipeline's lag looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub(super) fn run(start: &Start, operators: &OperatorRegistry) -> Result<Outcome, Outcome> {
    let (live, store) = opened(&start.file)?;
    let known = match &start.run {
        Some(name) => store.read(name).map_err(|error| Outcome::of_error(&error))?,
        None => None,
    };
    match known {
        Some(mut record) => {
            let is_new = [start.from.is_some(), start.last.is_some(), start.with.is_some(), start.condition.is_some()];
            if is_new.contains(&true) || !start.view.is_empty() || !start.only.is_empty() {
                return Err(Outcome::refused(
                    format!("there is a replay `{}` already", record.run),
                    "give it another name; to go on with this one, give its name alone",
                ));
            }
            carry_out(start, &live, &store, &mut record, operators)
        }
        None => {
            let planned = plan(start, &live)?;
            planned.print(start);
            if start.plan {
                return Ok(Outcome::done());
            }
            let mut record = planned.record(start, &live)?;
            store.write(&record).map_err(|error| Outcome::of_error(&error))?;
            carry_out(start, &live, &store, &mut record, operators)
        }
    }
}

/// What a replay would read.
struct Planned {
    asked: Range,
    range: Range,
    views: BTreeSet<String>,
    reads: ReadFrom,
    survey: Survey,
    is_part: bool,
}

fn plan(start: &Start, live: &Pipeline) -> Result<Planned, Outcome> {
    let file = start.with.as_ref().unwrap_or(&start.file);
    let other = with(file, live)?;
    let prepared = prepare(file, &other)?;
    let bound = &prepared.bound;
    if let Some(unknown) = start.view.iter().find(|name| !other.views.contains_key(*name)) {
        let known: Vec<&str> = other.views.keys().map(String::as_str).collect();
        return Err(Outcome::refused(
            format!("there is no view `{unknown}`"),
            format!("name one of {}", known.join(", ")),
        ));
    }
    let is_wanted = |view: &&BoundView| start.view.is_empty() || start.view.contains(&view.plan.name);
    let views: Vec<&BoundView> = bound.views.iter().filter(is_wanted).collect();
    let client = connect::clickhouse(live).map_err(|error| Outcome::of_error(&error))?;
    let runtime = runtime()?;
    let final_through = runtime.block_on(known_final(&client, &views, live));
    let asked = match (start.from.zip(start.to), start.last) {
        (Some((from, to)), _) => Range { from, to },
        (None, Some(length)) => {
            let Some(end) = final_through else {
                return Err(Outcome::refused("nothing is final yet", "name the times with --from and --to"));
            };
            Range::last(length, end)
        }
        (None, None) => {
            return Err(Outcome::refused("no times are named", "name them with --from and --to, or with --last"));
        }
    };
    if asked.from >= asked.to {
        return Err(Outcome::refused(
            "--to is not after --from",
            "name the first event time, then the one after the last",
        ));
    }
    let range = asked.widened(&views).map_err(|error| Outcome::told(1, error.to_string(), "tell us"))?;
    if let Some(end) = final_through.filter(|end| *end < range.to) {
        return Err(Outcome::refused(
            format!("windows up to {} are asked for, and only those up to {} are final", shown(range.to), shown(end)),
            format!("replay to {}, or wait until the rest is final", shown(end)),
        ));
    }
    let sources: BTreeSet<&str> = views.iter().map(|view| view.plan.source.as_str()).collect();
    if start.condition.is_some() {
        let mut of_condition = other.clone();
        narrow(&mut of_condition, start.condition.as_deref(), |name, _| sources.contains(name));
        prepare(file, &of_condition)?;
    }
    let look = |reads: ReadFrom| look(reads, live, &client, &runtime, &sources, range);
    let mut reads = start.reads().unwrap_or_default();
    let mut survey = look(reads)?;
    if !survey.forgotten.is_empty() && start.reads().is_none() && live.archive.is_some() {
        reads = ReadFrom::Both;
        survey = look(reads)?;
    }
    let is_part = choose(&mut survey, &start.only);
    Ok(Planned {
        asked,
        range,
        views: views.iter().map(|view| view.plan.name.clone()).collect(),
        reads,
        survey,
        is_part,
    })
}

/// What would be read of the log that `reads` names.
fn look(
    reads: ReadFrom,
    live: &Pipeline,
    client: &Client,
    runtime: &tokio::runtime::Runtime,
    sources: &BTreeSet<&str>,
    range: Range,
) -> Result<Survey, Outcome> {
    let of_error = |error| Outcome::of_error(&error);
    let archive = inputs::of(reads, live).map_err(of_error)?;
    let (topics, registry);
    let (archived, archived_schemas);
    let (log, schemas): (&dyn Log, &dyn SchemaSource) = match &archive {
        Some(reads) => {
            (archived, archived_schemas) = (reads.log.clone(), reads.schemas());
            (&*archived, &archived_schemas)
        }
        None => {
            (topics, registry) = (KafkaLog::new(live), connect::registry(live).map_err(of_error)?);
            (&topics, &registry)
        }
    };
    let surveyor = Surveyor { live, client, log, schemas };
    let surveyed = runtime.block_on(surveyor.survey(sources, range));
    surveyed.map_err(|error| match error {
        SurveyError::ClickHouse(error) => Outcome::unreachable(format!("clickhouse: {error}"), "check `[clickhouse]`"),
        SurveyError::Other(error) => Outcome::of_error(&error),
    })
}

/// Up to where every view is final, those that are new as far as the live ones; absent where that isn't known.
async fn known_final(client: &Client, views: &[&BoundView], live: &Pipeline) -> Option<EventTime> {
    let names: Vec<&str> = views.iter().map(|view| view.plan.name.as_str()).collect();
    // Where there was no live pipeline yet, there is no such table, and nothing that could still change.
    match final_through(client, &names).await.ok()? {
        Some(through) => Some(through),
        None => {
            let all: Vec<&str> = live.views.keys().map(String::as_str).collect();
            final_through(client, &all).await.ok()?
        }
    }
}

impl Planned {
    fn print(&self, start: &Start) {
        let (from, to) = self.range.shown();
        say!("{}  {from} to {to}", paint::bold("event times"));
        if self.range != self.asked {
            let (from, to) = self.asked.shown();
            say!("  widened to whole windows from {from} to {to}");
        }
        let reads = match self.reads {
            ReadFrom::Topic => "the topics",
            ReadFrom::Archive => "the archive",
            ReadFrom::Both => "the archive as far as it goes, then the topics",
        };
        say!("{}  {reads}", paint::bold("read from"));
        if let Some(condition) = &start.condition {
            say!("{}  {}", paint::bold("events"), printable(condition));
        }
        say!("{}  {}\n", paint::bold("views"), self.views.iter().cloned().collect::<Vec<_>>().join(", "));
        let mut table = paint::table(&["partition", "first offset", "next offset", "offsets", ""]);
        for of in &self.survey.slice.stretches {
            let key = (of.topic.clone(), of.partition);
            let note = if self.survey.by_log_time.contains(&key) { "by the log's timestamps" } else { "" };
            let partition = format!("{}/{}", of.topic, of.partition);
            table.add_row([
                partition,
                of.first.to_string(),
                of.next.to_string(),
                paint::count(of.offsets()),
                note.to_owned(),
            ]);
        }
        say!("{table}");
        let offsets = self.survey.slice.offsets();
        let time = start.rate.map(|rate| {
            let seconds = Duration::from_secs(offsets / u64::from(rate.max(1)));
            format!(", {} at {}/s", indicatif::HumanDuration(seconds), paint::count(u64::from(rate)))
        });
        say!("{} offsets{}", paint::count(offsets), time.unwrap_or_default());
        let (resolved, missing): (Vec<_>, Vec<_>) = self.survey.schemas.iter().partition(|(_, said)| said.is_none());
        let ids =
            |of: &[(&u32, &Option<String>)]| of.iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>().join(", ");
        say!("schemas {} resolve", if resolved.is_empty() { "(none known)".to_owned() } else { ids(&resolved) });
        for (id, said) in missing {
            say!("{} {id}: {}", paint::bad("schema"), said.as_deref().unwrap_or_default());
        }
        for of in &self.survey.forgotten {
            say!(
                "{} {}/{}: offsets {} to {} are gone from the log",
                paint::bad("gap"),
                of.topic,
                of.partition,
                of.first,
                of.next - 1
            );
        }
        say!("");
    }

    fn record(self, start: &Start, live: &Pipeline) -> Result<Record, Outcome> {
        if !self.survey.forgotten.is_empty() && !start.allow_gaps {
            return Err(Outcome::told(
                4,
                "the log has forgotten a part of what is asked for",
                "replay later times, or read what is left with --allow-gaps",
            ));
        }
        if self.survey.slice.stretches.is_empty() {
            let (from, to) = self.range.shown();
            return Err(Outcome::refused(
                format!("no partition holds events from {from} to {to}"),
                "name other times; `weir replay ... --plan` looks without reading",
            ));
        }
        let run = start.run.clone().unwrap_or_else(|| chrono::Utc::now().format("r%Y%m%d_%H%M%S").to_string());
        let kept = recovery::kept_readers(&live.state).map_err(|error| Outcome::of_error(&error))?;
        let versions = kept.into_iter().filter_map(|(source, reader)| Some((source, reader.version?)));
        Ok(Record {
            database: format!("{}_replay_{run}", live.clickhouse.database),
            run,
            file: absolute(&start.file),
            with: absolute(start.with.as_ref().unwrap_or(&start.file)),
            slice: self.survey.slice,
            reads: self.reads,
            condition: start.condition.clone(),
            is_part: self.is_part,
            views: self.views,
            schema_versions: versions.collect::<BTreeMap<_, _>>(),
            created_at_ms: Clock::default().now_ms(),
            status: Status::Begun,
        })
    }
}

fn absolute(file: &Path) -> std::path::PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}

fn carry_out(
    start: &Start,
    live: &Pipeline,
    store: &Store,
    record: &mut Record,
    operators: &OperatorRegistry,
) -> Result<Outcome, Outcome> {
    // The bar says what matters; log lines would tear it.
    if std::env::var_os("RUST_LOG").is_some() {
        log(false);
    }
    let mut pipeline = with(&record.with, live)?;
    pipeline.workers = start.workers.map_or(pipeline.workers, usize::from);
    let stop = Arc::new(AtomicBool::new(false));
    let pace = Arc::new(Pace::new(start.rate));
    let runtime = runtime()?;
    runtime.spawn(stop_on_signal(stop.clone()));
    if let Some(lag) = start.while_lag_below {
        let Some(address) = live.http.clone() else {
            return Err(Outcome::refused(
                format!("{} has no `http`, so nobody can tell its lag", start.file.display()),
                "add an address such as http = \"127.0.0.1:9464\" and start the live pipeline again",
            ));
        };
        if Access::of(&address, live.http_token.as_deref()) == Access::Closed {
            return Err(Outcome::refused(
                format!("http = \"{address}\" tells nobody its lag beyond this machine without `http_token`"),
                "write http_token = \"${CONSOLE_TOKEN}\" beside it and start the live pipeline again",
            ));
        }
        runtime.spawn(keep_pace(address, live.http_token.clone(), lag, pace.clone()));
    }
    let bar = Arc::new(Bar::of(record));
    let drawn = bar.clone();
    runtime.spawn(async move {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            drawn.draw();
        }
    });
    let rerun = Rerun {
        file: &record.with.clone(),
        pipeline: &pipeline,
        operators,
        store,
        pace,
        stop: stop.clone(),
        handle: runtime.handle().clone(),
    };
    let told = bar.clone();
    let ended = rerun.run(record, move |reporter| told.follow(reporter));
    bar.end();
    drop(runtime);
    match ended.map_err(|error| Outcome::of_error(&error))? {
        Ended::Complete => {
            say!("{} {} in the database {}", paint::good("complete"), record.run, record.database);
            say!("  weir diff {} {}", start.file.display(), record.run);
            Ok(Outcome::done())
        }
        Ended::Stopped => {
            say!("stopped; weir replay {} --run {} goes on", start.file.display(), record.run);
            Ok(Outcome::done())
        }
        Ended::Cancelled => {
            say!("cancelled; `weir replay drop` removes what it has written");
            Ok(Outcome::done())
        }
    }
}

/// Holds the replay while the live pipeline is `most` records behind or more, or doesn't say.
async fn keep_pace(address: String, token: Option<String>, most: u64, pace: Arc<Pace>) {
    loop {
        let answer = fetch(&address, token.as_deref())
            .await
            .ok()
            .and_then(|text| serde_json::from_str::<PipelineStatus>(&text).ok());
        let lag = |status: PipelineStatus| -> u64 {
            let partitions = status.sources.iter().flat_map(|source| &source.partitions);
            let behind = partitions.map(|of| u64::try_from(of.status.end_offset - of.status.next_offset).unwrap_or(0));
            behind.sum()
        };
        // A live pipeline that is away has no lag that a replay could make worse.
        pace.hold(answer.is_some_and(|status| lag(status) >= most));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How far a replay is, drawn.
struct Bar {
    bar: ProgressBar,
    first: BTreeMap<(String, i32), i64>,
    reporter: Mutex<Option<Reporter>>,
}

impl Bar {
    fn of(record: &Record) -> Bar {
        let bar = ProgressBar::new(record.slice.offsets());
        let style = ProgressStyle::with_template(
            "{bar:40} {percent:>3} %  {pos} of {len} offsets  {per_sec}  {eta} left  {msg}",
        );
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let first = record.slice.stretches.iter().map(|of| ((of.topic.clone(), of.partition), of.first));
        Bar { bar, first: first.collect(), reporter: Mutex::default() }
    }

    fn follow(&self, reporter: Reporter) {
        *self.reporter.lock().unwrap_or_else(PoisonError::into_inner) = Some(reporter);
    }

    /// Lets go of the run: what tells its status holds its state open.
    fn end(&self) {
        *self.reporter.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.bar.finish_and_clear();
    }

    fn draw(&self) {
        let Some(reporter) = self.reporter.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return };
        let status = reporter();
        let partitions = || status.sources.iter().flat_map(|source| &source.partitions);
        let done: u64 = partitions()
            .filter_map(|of| {
                let first = self.first.get(&(of.status.topic.clone(), of.status.partition))?;
                u64::try_from(of.status.next_offset - first).ok()
            })
            .sum();
        self.bar.set_position(done);
        let watermarks = status.sources.iter().filter_map(|source| source.watermark);
        if let Some(at) = watermarks.filter(|at| ![EventTime::MIN, EventTime::MAX].contains(at)).min() {
            self.bar.set_message(format!("at {}", shown(at)));
        }
    }
}
