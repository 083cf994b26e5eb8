//! `weir replay`: a stretch of history through a pipeline, beside the live one.

mod manage;
mod start;
mod told;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::TimeDelta;
use clap::{Args, Subcommand, ValueEnum};
use weir_pipeline::config::Pipeline;
use weir_pipeline::config::load::load;
use weir_pipeline::console::replays::{Replay as Replayed, Replays, Stretch};
use weir_replay::rerun::part::{Chosen, narrow_to, parse_chosen};
use weir_replay::rerun::range::{parse_length, parse_time};
use weir_replay::rerun::record::{ReadFrom, Record, Status, Store, is_name};
use weir_schemas::time::EventTime;

use super::diff::shown_differences;
use crate::{OperatorRegistry, Outcome};

const EXAMPLES: &str = "\
Examples:
  weir replay shop/pipeline.toml --from 2026-01-01 --to 2026-02-01 --plan
  weir replay shop/pipeline.toml --last \"7 days\" --run fixed_prices --with shop/next.toml
  weir replay shop/pipeline.toml --from 2025-01-01 --to 2025-02-01 --from-archive
  weir replay shop/pipeline.toml --run fixed_prices              (goes on with it after a stop or a kill)
  weir replay shop/pipeline.toml --last 12h --where \"tenant = 'north' AND type = 'purchase'\" --only events/3
  weir replay list shop/pipeline.toml
  weir diff shop/pipeline.toml fixed_prices
  weir swap shop/pipeline.toml fixed_prices --why \"prices were in cents\"";

/// Arguments of `weir replay`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, after_help = EXAMPLES)]
pub(crate) struct Replay {
    /// What to do with replays that are there.
    #[command(subcommand)]
    pub command: Option<Manage>,
    /// What to replay.
    #[command(flatten)]
    pub start: Option<Start>,
}

/// A replay to begin, or to go on with.
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// The live pipeline's file.
    #[arg(required = true)]
    pub file: PathBuf,
    /// The first event time, such as 2026-01-31T12:00:00Z or 2026-01-31; widened to whole windows.
    #[arg(long, value_name = "TIME", value_parser = parse_time, requires = "to", conflicts_with = "last")]
    pub from: Option<EventTime>,
    /// The event time after the last one.
    #[arg(long, value_name = "TIME", value_parser = parse_time, requires = "from")]
    pub to: Option<EventTime>,
    /// Instead: so much before what is final, such as 12h, 7d or "7 days".
    #[arg(long, value_name = "LENGTH", value_parser = parse_length)]
    pub last: Option<TimeDelta>,
    /// Only these views, and the sources that they read.
    #[arg(long)]
    pub view: Vec<String>,
    /// Only the events for which this holds, in SQL over their fields, as in a view's WHERE.
    #[arg(long = "where", value_name = "SQL")]
    pub condition: Option<String>,
    /// Only this topic, partition (events/3) or stretch of offsets (events/3@100..200, the last number left out).
    #[arg(long, value_name = "PLACE", value_parser = parse_chosen)]
    pub only: Vec<Chosen>,
    /// Run the rules, views and code of this pipeline file instead.
    #[arg(long, value_name = "FILE")]
    pub with: Option<PathBuf>,
    /// Where records are read from; absent, the topics, and the archive where they have forgotten a part and there is one.
    #[arg(long, value_name = "WHERE", value_enum)]
    pub source: Option<Where>,
    /// The same as --source archive: neither the topics nor the registry are asked.
    #[arg(long, conflicts_with = "source")]
    pub from_archive: bool,
    /// Its name: lower-case letters, digits and _; absent, one is made from the time.
    #[arg(long, value_name = "NAME", value_parser = named)]
    pub run: Option<String>,
    /// Say what would be read, and read nothing.
    #[arg(long)]
    pub plan: bool,
    /// Read what the log still has, where it has forgotten a part.
    #[arg(long)]
    pub allow_gaps: bool,
    /// Let the clock's judgements (too late after an idle partition, an unknown schema) be made anew, instead of as the live
    /// pipeline made them.
    #[arg(long)]
    pub judge_anew: bool,
    /// Records a second, at most.
    #[arg(long)]
    pub rate: Option<u32>,
    /// Pause while the live pipeline is as many records behind as this.
    #[arg(long, value_name = "RECORDS")]
    pub while_lag_below: Option<u64>,
    /// Worker threads, instead of the file's.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,
}

/// Where a replay reads from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Where {
    /// The topics.
    Topic,
    /// The archive, with the schemas in it.
    Archive,
    /// The archive as far as it goes, and the topics from there on.
    Both,
}

impl Start {
    /// Whether it isn't to read as fast as it can.
    fn is_paced(&self) -> bool {
        self.rate.is_some() || self.while_lag_below.is_some()
    }

    /// Where it is to read from, if that is said.
    fn reads(&self) -> Option<ReadFrom> {
        match self.source {
            _ if self.from_archive => Some(ReadFrom::Archive),
            Some(Where::Topic) => Some(ReadFrom::Topic),
            Some(Where::Archive) => Some(ReadFrom::Archive),
            Some(Where::Both) => Some(ReadFrom::Both),
            None => None,
        }
    }
}

/// What to do with replays that are there.
#[derive(Debug, Subcommand)]
pub(crate) enum Manage {
    /// The replays of a pipeline, the newest first.
    List {
        /// The live pipeline's file.
        file: PathBuf,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// One of them.
    Show(One),
    /// End one that runs; what it has written stays until it is dropped.
    Cancel(One),
    /// Remove its tables and its state. One that is swapped in stays.
    Drop(One),
}

/// A replay that is there.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// The live pipeline's file.
    pub file: PathBuf,
    /// The replay.
    pub run: String,
}

fn named(text: &str) -> Result<String, String> {
    if is_name(text) { Ok(text.to_owned()) } else { Err("write up to 40 lower-case letters, digits and _".to_owned()) }
}

/// Replays, or does what is asked with replays.
pub(crate) fn run(replay: &Replay, operators: &OperatorRegistry) -> Outcome {
    let done = match (&replay.command, &replay.start) {
        (Some(Manage::List { file, json }), _) => manage::list(file, *json),
        (Some(Manage::Show(one)), _) => manage::show(one),
        (Some(Manage::Cancel(one)), _) => manage::cancel(one),
        (Some(Manage::Drop(one)), _) => manage::drop_run(one),
        (None, Some(start)) => start::run(start, operators),
        (None, None) => {
            Err(Outcome::refused("nothing is named to replay", "give a pipeline file; --help has examples"))
        }
    };
    done.unwrap_or_else(|outcome| outcome)
}

/// Tells the console of `pipeline`, which is in `file`, of its replays.
pub(crate) fn shown_replays(file: &Path, pipeline: &Pipeline) -> Replays {
    let (store, file) = (Store::of(&pipeline.state), file.to_owned());
    Replays {
        list: Arc::new(move || {
            let records = store.all().map_err(|error| error.to_string())?;
            Ok(records.iter().map(|record| shown_replay(&store, record)).collect())
        }),
        compare: Arc::new(move |run| shown_differences(&file, run).map_err(Outcome::into_text)),
    }
}

fn shown_replay(store: &Store, record: &Record) -> Replayed {
    let stretches = record.slice.stretches.iter().map(|of| Stretch {
        topic: of.topic.clone(),
        partition: of.partition,
        first: of.first,
        next: of.next,
    });
    Replayed {
        run: record.run.clone(),
        state: manage::state_of(store, record).to_owned(),
        from_s: record.slice.from.as_ms() / 1_000,
        to_s: record.slice.to.as_ms() / 1_000,
        views: record.views.iter().cloned().collect(),
        database: record.database.clone(),
        created_at_ms: record.created_at_ms,
        stretches: stretches.collect(),
    }
}

/// A pipeline file, and its replays.
pub(crate) fn opened(file: &Path) -> Result<(Pipeline, Store), Outcome> {
    let pipeline = load(file).map_err(|problems| Outcome::problems(&problems))?;
    let store = Store::of(&pipeline.state);
    Ok((pipeline, store))
}

/// The pipeline of `file` as it is replayed: its rules, views and code, over what the live one reads, and where that keeps its
/// results.
pub(crate) fn with(file: &Path, live: &Pipeline) -> Result<Pipeline, Outcome> {
    let mut other = load(file).map_err(|problems| Outcome::problems(&problems))?;
    for (name, source) in &other.sources {
        if live.sources.get(name).is_none_or(|of_live| of_live.all_topics() != source.all_topics()) {
            return Err(Outcome::refused(
                format!("{}: the source `{name}` reads other topics than the live one", file.display()),
                "a replay changes rules, views and code, not where events come from",
            ));
        }
    }
    // It is the live one's history, by whatever name the file goes: its log, and its archive.
    other.name.clone_from(&live.name);
    other.archive.clone_from(&live.archive);
    other.kafka.clone_from(&live.kafka);
    other.registry.clone_from(&live.registry);
    other.clickhouse.clone_from(&live.clickhouse);
    // Schemas that the live state keeps are kept.
    other.state.clone_from(&live.state);
    Ok(other)
}

/// The same, held to the events that `record` is for.
pub(crate) fn narrowed(mut other: Pipeline, record: &Record) -> Pipeline {
    narrow_to(&mut other, record);
    other
}

/// The replay of this name.
fn found(store: &Store, run: &str) -> Result<Record, Outcome> {
    let found = if is_name(run) { store.read(run).map_err(|error| Outcome::of_error(&error))? } else { None };
    found.ok_or_else(|| {
        let names: Vec<String> = store.all().unwrap_or_default().into_iter().map(|record| record.run).collect();
        let remedy = match names.as_slice() {
            [] => "there are none yet: `weir replay FILE --from ... --to ...` makes one".to_owned(),
            names => format!("name one of {}", names.join(", ")),
        };
        Outcome::refused(format!("there is no replay `{run}`"), remedy)
    })
}

/// The replay of this name, of which all rows are there, and which has each of `views`.
pub(crate) fn complete(store: &Store, file: &Path, run: &str, views: &[String]) -> Result<Record, Outcome> {
    let record = found(store, run)?;
    if record.status != Status::Complete {
        return Err(Outcome::refused(
            format!("the replay `{}` isn't complete", record.run),
            format!("let it end: weir replay {} --run {}", file.display(), record.run),
        ));
    }
    if let Some(unknown) = views.iter().find(|name| !record.views.contains(*name)) {
        let known = record.views.iter().cloned().collect::<Vec<_>>().join(", ");
        return Err(Outcome::refused(format!("it has no view `{unknown}`"), format!("name one of {known}")));
    }
    Ok(record)
}
