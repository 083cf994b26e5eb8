//! `weir swap`: a replay's rows in the place of live ones, and back.

use std::path::PathBuf;

use clap::Args;
use weir_pipeline::run::layout;
use weir_replay::rerun::range::{Range, parse_time, shown};
use weir_replay::rerun::record::Record;
use weir_replay::swap::{Swap as Swapping, SwapError};
use weir_schemas::time::EventTime;
use weir_sinks::clickhouse::swaps;

use super::replay::{complete, narrowed, opened, with};
use crate::out::say;
use crate::prepare::prepare;
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
    if record.is_part && !arguments.undo {
        return Err(Outcome::refused(
            format!("`{}` read a part of the partitions or offsets, so its rows are parts of rows", record.run),
            "replay the same times without --only",
        ));
    }
    let with = narrowed(with(&record.with, &live)?, &record);
    let (of_live, of_replay) = (prepare(&arguments.file, &live)?, prepare(&record.with, &with)?);
    let layout_of = |file: &PathBuf, pipeline, prepared: &crate::prepare::Prepared| {
        layout(&file.display().to_string(), pipeline, &prepared.bound, operators)
            .map_err(|error| Outcome::of_error(&error))
    };
    let live_layout = layout_of(&arguments.file, &live, &of_live)?;
    let replay_layout = layout_of(&record.with, &with, &of_replay)?;
    let swapping = Swapping {
        client: &of_live.clickhouse,
        live: &live_layout,
        replay: &replay_layout,
        database: &record.database,
        run: &record.run,
        by: &arguments.by,
        why: &arguments.why,
    };
    let runtime = runtime()?;
    let failed = |error: SwapError| match error {
        SwapError::ClickHouse(error) => Outcome::unreachable(format!("clickhouse: {error}"), "check `[clickhouse]`"),
        SwapError::Refused { view, detail, remedy } => Outcome::refused(format!("view `{view}`: {detail}"), remedy),
    };
    let active = runtime.block_on(swaps::active(&of_live.clickhouse)).map_err(|error| failed(error.into()))?;
    let in_place = active.into_iter().filter(|of| of.run == record.run).map(|of| of.view).collect::<Vec<_>>();
    for name in wanted(arguments, &record, &in_place)? {
        if arguments.undo {
            runtime.block_on(swapping.undo(&name)).map_err(failed)?;
            say!("{} {name}: readers see the live rows again", paint::good("undone"));
            continue;
        }
        let range = range_of(arguments, &record, &of_replay, &name)?;
        if record.condition.is_some() {
            return Err(Outcome::refused(
                format!("`{}` has the rows of a condition only, and the others would vanish", record.run),
                "replay the same times without --where",
            ));
        }
        runtime.block_on(swapping.swap(&name, range)).map_err(failed)?;
        let (from, to) = (shown(range.from), shown(range.to));
        say!("{} {name}: readers see the replay's rows from {from} to {to}", paint::good("swapped"));
    }
    Ok(Outcome::done())
}

/// The views to act on.
fn wanted(arguments: &Swap, record: &Record, in_place: &[String]) -> Result<Vec<String>, Outcome> {
    if !arguments.view.is_empty() {
        return Ok(arguments.view.clone());
    }
    let all: Vec<String> = if arguments.undo { in_place.to_vec() } else { record.views.iter().cloned().collect() };
    if all.is_empty() {
        return Err(Outcome::refused(format!("`{}` is in no view's place", record.run), "there is nothing to undo"));
    }
    Ok(all)
}

/// The times to swap: those of the replay, or a part of them that cuts no window.
fn range_of(
    arguments: &Swap,
    record: &Record,
    of_replay: &crate::prepare::Prepared,
    name: &str,
) -> Result<Range, Outcome> {
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
