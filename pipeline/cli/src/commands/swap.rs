//! `weir swap`: a replay's rows in the place of live ones, and back.

use std::path::{Path, PathBuf};

use clap::Args;
use weir_pipeline::config::Pipeline;
use weir_pipeline::run::layout;
use weir_replay::rerun::range::{Range, parse_time, shown};
use weir_replay::rerun::record::Record;
use weir_replay::swap::{Swap as Swapping, SwapError};
use weir_schemas::time::EventTime;
use weir_sinks::clickhouse::{Layout, swaps};

use super::replay::{complete, narrowed, opened, with};
use crate::out::say;
use crate::prepare::{Prepared, prepare};
use crate::{OperatorRegistry, Outcome, paint, runtime};

/// Arguments of `weir swap`.
#[derive(Debug, Args)]
pub(crate) struct Swap {
    /// The live pipeline's file.
    pub file: PathBuf,
    /// The replay.
    pub run: String,
    /// Only these views.
    #[arg(long)]
    pub view: Vec<String>,
    /// Only windows that begin at this time or later; a boundary between windows of each view.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub from: Option<EventTime>,
    /// Only windows that begin before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub to: Option<EventTime>,
    /// Take the replay's rows out again.
    #[arg(long)]
    pub undo: bool,
    /// Who does it, for the record.
    #[arg(long, env = "USER", default_value = "")]
    pub by: String,
    /// Why, for the record.
    #[arg(long, default_value = "")]
    pub why: String,
}

/// Swaps, or takes back.
pub(crate) fn run(swap: &Swap, operators: &OperatorRegistry) -> Outcome {
    act(swap, operators).unwrap_or_else(|outcome| outcome)
}

fn act(arguments: &Swap, operators: &OperatorRegistry) -> Result<Outcome, Outcome> {
    let (live, store) = opened(&arguments.file)?;
    let record = complete(&store, &arguments.file, &arguments.run, &arguments.view)?;
    let of_live = prepare(&arguments.file, &live)?;
    let live_layout = layout_of(&arguments.file, &live, &of_live, operators)?;
    let swapping = Swapping {
        client: &of_live.clickhouse,
        live: &live_layout,
        database: &record.database,
        run: &record.run,
        by: &arguments.by,
        why: &arguments.why,
    };
    if arguments.undo {
        undo(arguments, &record, &swapping)
    } else {
        swap(arguments, &record, &live, &swapping, operators)
    }
}

/// Puts the replay's rows in place.
fn swap(
    arguments: &Swap,
    record: &Record,
    live: &Pipeline,
    swapping: &Swapping<'_>,
    operators: &OperatorRegistry,
) -> Result<Outcome, Outcome> {
    if record.is_part {
        return Err(Outcome::refused(
            format!("`{}` read a part of the partitions or offsets, so its rows are parts of rows", record.run),
            "replay the same times without --only",
        ));
    }
    if record.condition.is_some() {
        return Err(Outcome::refused(
            format!("`{}` has the rows of a condition only, and the others would vanish", record.run),
            "replay the same times without --where",
        ));
    }
    let with = narrowed(with(&record.with, live)?, record);
    let of_replay = prepare(&record.with, &with)?;
    let replay_layout = layout_of(&record.with, &with, &of_replay, operators)?;
    let runtime = runtime()?;
    let all = || record.views.iter().cloned().collect();
    let names: Vec<String> = if arguments.view.is_empty() { all() } else { arguments.view.clone() };
    // Of several views none is swapped where one can't be.
    let mut ranges = Vec::with_capacity(names.len());
    for name in &names {
        let range = range_of(arguments, record, &of_replay, name)?;
        runtime.block_on(swapping.fits(name, &replay_layout, range)).map_err(failed)?;
        ranges.push(range);
    }
    for (name, range) in names.iter().zip(ranges) {
        runtime.block_on(swapping.swap(name, &replay_layout, range)).map_err(failed)?;
        let (from, to) = (shown(range.from), shown(range.to));
        say!("{} {name}: readers see the replay's rows from {from} to {to}", paint::good("swapped"));
    }
    Ok(Outcome::done())
}

/// Takes the replay's rows out again. The file that it was made with isn't read: it may be gone or wrong by now, and the live
/// rows have to come back all the same.
fn undo(arguments: &Swap, record: &Record, swapping: &Swapping<'_>) -> Result<Outcome, Outcome> {
    let runtime = runtime()?;
    let active = runtime.block_on(swaps::active(swapping.client)).map_err(|error| failed(error.into()))?;
    let in_place = active.into_iter().filter(|of| of.run == record.run).map(|of| of.view).collect::<Vec<_>>();
    let wanted = if arguments.view.is_empty() { in_place } else { arguments.view.clone() };
    if wanted.is_empty() {
        return Err(Outcome::refused(format!("`{}` is in no view's place", record.run), "there is nothing to undo"));
    }
    for name in wanted {
        runtime.block_on(swapping.undo(&name)).map_err(failed)?;
        say!("{} {name}: readers see the live rows again", paint::good("undone"));
    }
    Ok(Outcome::done())
}

/// The tables of a pipeline.
fn layout_of(
    file: &Path,
    pipeline: &Pipeline,
    prepared: &Prepared,
    operators: &OperatorRegistry,
) -> Result<Layout, Outcome> {
    layout(&file.display().to_string(), pipeline, &prepared.bound, operators).map_err(|error| Outcome::of_error(&error))
}

fn failed(error: SwapError) -> Outcome {
    match error {
        SwapError::ClickHouse(error) => {
            Outcome::unreachable(format!("clickhouse: {error}"), "check `[clickhouse]`, then give it again")
        }
        SwapError::Refused { view, detail, remedy } => Outcome::refused(format!("view `{view}`: {detail}"), remedy),
    }
}

/// The times to swap: those of the replay, or a part of them that cuts no window.
fn range_of(arguments: &Swap, record: &Record, of_replay: &Prepared, name: &str) -> Result<Range, Outcome> {
    let whole = Range { from: record.slice.from, to: record.slice.to };
    let range = Range { from: arguments.from.unwrap_or(whole.from), to: arguments.to.unwrap_or(whole.to) };
    if range.from < whole.from || range.to > whole.to || range.from >= range.to {
        let (from, to) = whole.shown();
        return Err(Outcome::refused("these times aren't the replay's", format!("name times from {from} to {to}")));
    }
    let views: Vec<_> = of_replay.bound.views.iter().filter(|view| view.plan.name == name).collect();
    let widened = range.widened(&views).map_err(|error| Outcome::told(1, error.to_string(), "tell us"))?;
    if widened != range {
        let (from, to) = widened.shown();
        return Err(Outcome::refused(
            format!("--from or --to cuts a window of `{name}`"),
            format!("the windows around it go from {from} to {to}"),
        ));
    }
    Ok(range)
}
