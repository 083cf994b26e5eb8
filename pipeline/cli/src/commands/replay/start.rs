//! Beginning a replay, or going on with one: look, say what will be read, read it.

use std::collections::BTreeMap;
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
use weir_pipeline::source::pace::Pace;
use weir_pipeline::status::Status as PipelineStatus;
use weir_pipeline::{connect, recovery};
use weir_replay::rerun::part::narrow;
use weir_replay::rerun::plan::{Asked, PlanError, Planned, Refusal, Times, plan};
use weir_replay::rerun::range::{Range, shown};
use weir_replay::rerun::record::{Record, Status, Store};
use weir_replay::rerun::survey::SurveyError;
use weir_replay::rerun::{Ended, Rerun};
use weir_schemas::time::EventTime;

use super::{Start, opened, told, with};
use crate::commands::run::{log, stop_on_signal};
use crate::commands::status::fetch;
use crate::out::say;
use crate::prepare::prepare;
use crate::{OperatorRegistry, Outcome, paint, runtime};

/// How often the bar is drawn, and the live pipeline's lag looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub(super) fn run(start: &Start, operators: &OperatorRegistry) -> Result<Outcome, Outcome> {
    give_way(start);
    let (live, store) = opened(&start.file)?;
    let known = match &start.run {
        Some(name) => store.read(name).map_err(|error| Outcome::of_error(&error))?,
        None => None,
    };
    match known {
        Some(mut record) => {
            refuse_what_is_fixed(start, &record)?;
            carry_out(start, &live, &store, &mut record, operators)
        }
        None => {
            let planned = planned(start, &live)?;
            let earlier = store.all().map_err(|error| Outcome::of_error(&error))?;
            told::print(&planned, start, &earlier);
            if start.plan {
                return Ok(Outcome::done());
            }
            let mut record = record(planned, start, &live)?;
            store.write(&record).map_err(|error| Outcome::of_error(&error))?;
            carry_out(start, &live, &store, &mut record, operators)
        }
    }
}

/// Lets the live pipeline, and everything else on this machine, have the processor first. A paced replay is one that they are not
/// to notice: it takes what nobody wants. With so little, brokers and ClickHouse on the same machine would keep one waiting that
/// is to be fast.
fn give_way(start: &Start) {
    let nice = if start.is_paced() { 19 } else { 10 };
    // SAFETY: a call that takes three numbers. Where it isn't allowed, the replay runs like any other program. Of threads only
    // the calling one gives way, and those that it starts later.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
}

/// Refuses what only a new replay can be told: of one that is there it would be ignored, and `--plan` would even read.
fn refuse_what_is_fixed(start: &Start, record: &Record) -> Result<(), Outcome> {
    if start.plan {
        return Err(Outcome::refused(
            format!("there is a replay `{}` already, so nothing is left to plan", record.run),
            format!(
                "weir replay show {} {} says what it reads; for another plan leave out --run or give another name",
                start.file.display(),
                record.run
            ),
        ));
    }
    let given = [
        ("--from", start.from.is_some()),
        ("--last", start.last.is_some()),
        ("--view", !start.view.is_empty()),
        ("--where", start.condition.is_some()),
        ("--only", !start.only.is_empty()),
        ("--with", start.with.is_some()),
        ("--source", start.source.is_some()),
        ("--from-archive", start.from_archive),
        ("--allow-gaps", start.allow_gaps),
        ("--judge-anew", start.judge_anew),
    ];
    let given: Vec<&str> = given.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect();
    if given.is_empty() {
        return Ok(());
    }
    Err(Outcome::refused(
        format!("there is a replay `{}` already, which {} can't change", record.run, given.join(", ")),
        "give it another name; to go on with this one, give its name alone",
    ))
}

fn planned(start: &Start, live: &Pipeline) -> Result<Planned, Outcome> {
    let file = start.with.as_ref().unwrap_or(&start.file);
    let other = with(file, live)?;
    let prepared = prepare(file, &other)?;
    if let Some(unknown) = start.view.iter().find(|name| !other.views.contains_key(*name)) {
        let known: Vec<&str> = other.views.keys().map(String::as_str).collect();
        return Err(Outcome::refused(
            format!("there is no view `{unknown}`"),
            format!("name one of {}", known.join(", ")),
        ));
    }
    let is_wanted = |view: &&BoundView| start.view.is_empty() || start.view.contains(&view.plan.name);
    let views: Vec<&BoundView> = prepared.bound.views.iter().filter(is_wanted).collect();
    if start.condition.is_some() {
        let mut of_condition = other.clone();
        let is_read = |name: &str| views.iter().any(|view| view.plan.source == name);
        narrow(&mut of_condition, start.condition.as_deref(), |name, _| is_read(name));
        prepare(file, &of_condition)?;
    }
    let times = match (start.from.zip(start.to), start.last) {
        (Some((from, to)), _) => Times::Between(Range { from, to }),
        (None, Some(length)) => Times::Last(length),
        (None, None) => {
            return Err(Outcome::refused("no times are named", "name them with --from and --to, or with --last"));
        }
    };
    let client = connect::clickhouse(live).map_err(|error| Outcome::of_error(&error))?;
    let runtime = runtime()?;
    let asked = Asked {
        live,
        client: &client,
        handle: runtime.handle(),
        views: &views,
        times,
        reads: start.reads(),
        only: &start.only,
    };
    plan(&asked).map_err(|error| match error {
        PlanError::Refused(refusal) => refused(refusal),
        PlanError::Survey(SurveyError::ClickHouse(error)) => {
            Outcome::unreachable(format!("clickhouse: {error}"), "check `[clickhouse]`")
        }
        PlanError::Survey(SurveyError::Other(error)) => Outcome::of_error(&error),
    })
}

fn refused(refusal: Refusal) -> Outcome {
    Outcome::told(if refusal.is_of_log { 4 } else { 2 }, refusal.what, refusal.remedy)
}

fn record(planned: Planned, start: &Start, live: &Pipeline) -> Result<Record, Outcome> {
    if let Some(refusal) = planned.refusal(start.allow_gaps) {
        return Err(refused(refusal));
    }
    let run = start.run.clone().unwrap_or_else(|| chrono::Utc::now().format("r%Y%m%d_%H%M%S").to_string());
    let kept = recovery::kept_readers(&live.state).map_err(|error| Outcome::of_error(&error))?;
    let versions = kept.into_iter().filter_map(|(source, reader)| Some((source, reader.version?)));
    Ok(Record {
        database: format!("{}_replay_{run}", live.clickhouse.database),
        run,
        file: absolute(&start.file),
        with: absolute(start.with.as_ref().unwrap_or(&start.file)),
        slice: planned.survey.slice,
        reads: planned.reads,
        condition: start.condition.clone(),
        is_part: planned.is_part,
        repeats_judgements: !start.judge_anew,
        views: planned.views,
        schema_versions: versions.collect::<BTreeMap<_, _>>(),
        created_at_ms: Clock::default().now_ms(),
        status: Status::Begun,
        records_per_second: None,
    })
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
    // Until the live pipeline has said how far it is behind, it may be.
    pace.hold(start.while_lag_below.is_some());
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
        is_paced: start.is_paced(),
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
        let lag = |status: PipelineStatus| -> u64 {
            let partitions = status.sources.iter().flat_map(|source| &source.partitions);
            let behind = partitions.map(|of| u64::try_from(of.status.end_offset - of.status.next_offset).unwrap_or(0));
            behind.sum()
        };
        pace.hold(match fetch(&address, token.as_deref()).await {
            // What can't be read or comes too late may be the word of one that is far behind.
            Ok(text) => serde_json::from_str(&text).map_or(true, |status| lag(status) >= most),
            // A live pipeline that is away has no lag that a replay could make worse.
            Err(error) => !error.is_away,
        });
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
