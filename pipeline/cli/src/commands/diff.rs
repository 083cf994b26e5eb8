//! `weir diff`: what a replay's rows would change of the live ones.

use std::path::{Path, PathBuf};

use clap::Args;
use weir_pipeline::connect;
use weir_pipeline::console::replays::Difference;
use weir_replay::diff::{Example, Options, Sides, ViewDiff};
use weir_replay::rerun::part::cut_by;
use weir_replay::rerun::range::{Range, shown};
use weir_replay::rerun::record::Record;

use super::replay::{complete, narrowed, opened, with};
use crate::out::{printable, say};
use crate::prepare::prepare;
use crate::{Outcome, paint, runtime};

/// Values of a dimension that are printed.
const VALUES_SHOWN: usize = 8;

/// Greatest relative difference of Float64 values, where nobody says another.
const TOLERANCE: f64 = 1e-9;

/// Arguments of `weir diff`.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The live pipeline's file.
    pub file: PathBuf,
    /// The replay.
    pub run: String,
    /// Only these views.
    #[arg(long)]
    pub view: Vec<String>,
    /// Example rows to print of each view and kind.
    #[arg(long, default_value_t = 5)]
    pub examples: usize,
    /// Greatest relative difference of Float64 values, whose sums depend on order.
    #[arg(long, default_value_t = TOLERANCE)]
    pub tolerance: f64,
}

/// Compares, prints, and says by the exit code whether something differs.
pub(crate) fn run(diff: &Diff) -> Outcome {
    compare(diff).unwrap_or_else(|outcome| outcome)
}

fn compare(arguments: &Diff) -> Result<Outcome, Outcome> {
    let options = Options { examples: arguments.examples, tolerance: arguments.tolerance };
    let Differences { record, diffs, new, cut } =
        differences(&arguments.file, &arguments.run, &arguments.view, options)?;
    say!("{}  {} to {}\n", paint::bold(&record.run), shown(record.slice.from), shown(record.slice.to));
    if let Some(condition) = &record.condition {
        say!("of both sides the rows for which {}\n", printable(condition));
    }
    if record.is_part {
        say!("{} it read a part of the partitions or offsets only\n", paint::bad("a part:"));
    }
    print(&diffs, &new);
    for (view, column) in &cut {
        say!("{view} isn't compared: the replay's condition asks for `{column}`, which is no dimension of it");
    }
    if diffs.iter().all(ViewDiff::is_equal) { Ok(Outcome::done()) } else { Ok(Outcome::different()) }
}

/// The differences of replay `run` as the console shows them.
pub(crate) fn shown_differences(file: &Path, run: &str) -> Result<Vec<Difference>, Outcome> {
    let options = Options { examples: 0, tolerance: TOLERANCE };
    let Differences { diffs, new, .. } = differences(file, run, &[], options)?;
    let of_view = |diff: ViewDiff| Difference {
        measures: diff.measures.iter().map(|of| (of.name.clone(), of.changed, of.live_sum, of.replay_sum)).collect(),
        view: diff.view,
        live_rows: diff.live_rows,
        replay_rows: diff.replay_rows,
        added: diff.added,
        removed: diff.removed,
        changed: diff.changed,
    };
    let new = new.into_iter().map(|view| Difference { view, ..Difference::default() });
    Ok(diffs.into_iter().map(of_view).chain(new).collect())
}

/// What differs, view by view, and the views that the live pipeline doesn't have.
struct Differences {
    record: Record,
    diffs: Vec<ViewDiff>,
    new: Vec<String>,
    /// Views that the replay's condition cuts through, each with a column that does.
    cut: Vec<(String, String)>,
}

fn differences(file: &Path, run: &str, views: &[String], options: Options) -> Result<Differences, Outcome> {
    let (live, store) = opened(file)?;
    let record = complete(&store, file, run, views)?;
    let with = narrowed(with(&record.with, &live)?, &record);
    let (of_live, of_replay) = (prepare(file, &live)?, prepare(&record.with, &with)?);
    let mut other = live.clone();
    other.clickhouse.database.clone_from(&record.database);
    let replay_client = connect::clickhouse(&other).map_err(|error| Outcome::of_error(&error))?;
    let range = Range { from: record.slice.from, to: record.slice.to };
    let runtime = runtime()?;
    let (mut diffs, mut new, mut cut) = (Vec::new(), Vec::new(), Vec::new());
    let is_wanted = |name: &&String| views.is_empty() || views.contains(name);
    for name in record.views.iter().filter(is_wanted) {
        let plan_of = |of: &crate::prepare::Prepared| {
            of.bound.views.iter().find(|view| view.plan.name == *name).map(|view| view.plan.clone())
        };
        let Some(replay_plan) = plan_of(&of_replay) else { continue };
        let Some(live_plan) = plan_of(&of_live) else {
            new.push(name.clone());
            continue;
        };
        let source = of_replay.bound.source(&replay_plan.source);
        if let Some(column) = source.and_then(|source| cut_by(&replay_plan, source)) {
            cut.push((name.clone(), column));
            continue;
        }
        let sides = Sides {
            client: &of_live.clickhouse,
            live: of_live.clickhouse.qualified(name),
            live_plan: &live_plan,
            replay: replay_client.qualified(name),
            replay_plan: &replay_plan,
            condition: record.condition.as_deref(),
        };
        diffs.push(runtime.block_on(sides.compare(range, options)).map_err(|error| {
            Outcome::unreachable(
                error.to_string(),
                "check `[clickhouse]`, and that both sides have this view's columns",
            )
        })?);
    }
    Ok(Differences { record, diffs, new, cut })
}

fn print(diffs: &[ViewDiff], new: &[String]) {
    let mut table = paint::table(&["view", "rows live", "rows replayed", "added", "removed", "changed", "verdict"]);
    for diff in diffs {
        let verdict = if diff.is_equal() { paint::good("equal") } else { paint::bad("DIFFERENT") };
        let counts = [diff.live_rows, diff.replay_rows, diff.added, diff.removed, diff.changed].map(paint::count);
        table.add_row([vec![diff.view.clone()], counts.to_vec(), vec![verdict]].concat());
    }
    say!("{table}");
    for name in new {
        say!("{name} is new: the live pipeline has no such view");
    }
    diffs.iter().filter(|diff| !diff.is_equal() || !diff.one_sided.is_empty()).for_each(print_view);
}

fn print_view(diff: &ViewDiff) {
    say!("\n{}", paint::bold(&diff.view));
    for (name, is_replay) in &diff.one_sided {
        say!("  column {name} is there {} only", if *is_replay { "in the replay" } else { "live" });
    }
    let mut table = paint::table(&["measure", "cells changed", "sum live", "sum replayed", "difference"]);
    let number = |sum: Option<f64>| sum.map_or("-".to_owned(), |sum| format!("{sum:.2}"));
    for of in &diff.measures {
        let difference = of.live_sum.zip(of.replay_sum).map(|(live, replay)| replay - live);
        table.add_row([
            of.name.clone(),
            paint::count(of.changed),
            number(of.live_sum),
            number(of.replay_sum),
            number(difference),
        ]);
    }
    say!("{table}");
    for (dimension, values) in &diff.dimensions {
        let mut by_count: Vec<(&String, &u64)> = values.iter().collect();
        by_count.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let shown: Vec<String> = by_count
            .iter()
            .take(VALUES_SHOWN)
            .map(|(value, count)| format!("{} {}", printable(value), paint::count(**count)))
            .collect();
        let more = by_count.len().saturating_sub(VALUES_SHOWN);
        let more = if more > 0 { format!(", and {more} values more") } else { String::new() };
        say!("  rows by {dimension}: {}{more}", shown.join(", "));
    }
    diff.examples.iter().for_each(print_example);
}

fn print_example(example: &Example) {
    let key = printable(&example.key);
    match example.is_in {
        (true, false) => say!("  {} {key}", paint::bad("removed")),
        (false, true) => say!("  {} {key}", paint::good("added")),
        _ => {
            let cell = |(name, live, replay): &(String, serde_json::Value, serde_json::Value)| {
                printable(&format!("{name} {live} → {replay}")).into_owned()
            };
            say!("  changed {key}  {}", example.cells.iter().map(cell).collect::<Vec<_>>().join(", "));
        }
    }
}
