//! `weir verify`: the views' own SQL against the rows that readers see, which are a replay's where one was swapped in.

use std::path::Path;

use weir_pipeline::config::load::load;
use weir_replay::rerun::range::shown;
use weir_replay::verify::{Options, Verdict, verify};
use weir_schemas::time::EventTime;
use weir_sinks::clickhouse::swaps::{self, Swapped};

use crate::out::say;
use crate::paint;
use crate::prepare::prepare;
use crate::{Outcome, runtime};

/// Verifies the views of `file`, all of them or those named in `only`.
pub(crate) fn run(file: &Path, only: &[String], options: Options) -> Outcome {
    let pipeline = match load(file) {
        Ok(pipeline) => pipeline,
        Err(problems) => return Outcome::problems(&problems),
    };
    if let Some(unknown) = only.iter().find(|name| !pipeline.views.contains_key(*name)) {
        let known: Vec<&str> = pipeline.views.keys().map(String::as_str).collect();
        return Outcome::refused(format!("there is no view `{unknown}`"), format!("name one of {}", known.join(", ")));
    }
    let prepared = match prepare(file, &pipeline) {
        Ok(prepared) => prepared,
        Err(outcome) => return outcome,
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(outcome) => return outcome,
    };
    let views = || prepared.bound.views.iter().filter(|view| only.is_empty() || only.contains(&view.plan.name));
    let days_of = |source: &str| pipeline.sources.get(source).and_then(|source| source.keep_events_days);
    if let Some(view) = views().find(|view| days_of(&view.plan.source).is_none()) {
        return Outcome::refused(
            format!("the accepted events of {} are not kept", view.plan.source),
            "set `keep_events_days` and run the pipeline from an empty state, so that all of them are there",
        );
    }
    let active = match runtime.block_on(swaps::active(&prepared.clickhouse)) {
        Ok(active) => active,
        Err(error) => return Outcome::unreachable(format!("clickhouse: {error}"), "check `[clickhouse]`"),
    };
    for of in active.iter().filter(|of| views().any(|view| view.plan.name == of.view)) {
        say!("{} {}", paint::bold("note:"), replay_in_place(file, of));
    }
    let mut verdicts = Vec::new();
    for view in views() {
        let events_days = days_of(&view.plan.source).unwrap_or_default();
        match runtime.block_on(verify(&prepared.clickhouse, view, events_days, options)) {
            Ok(verdict) => verdicts.push(verdict),
            Err(error) => {
                return Outcome::unreachable(error.to_string(), "check `[clickhouse]`, and that the pipeline ran");
            }
        }
    }
    report(&verdicts)
}

/// What has to be known before a replay's rows are judged as if they were the live ones.
fn replay_in_place(file: &Path, of: &Swapped) -> String {
    format!(
        "{}: the replay `{}` stands in the place of live rows from {} to {}, and its rows are compared there; \
         `weir swap {} {} --undo` takes it out",
        of.view,
        of.run,
        shown(EventTime(of.from)),
        shown(EventTime(of.to)),
        file.display(),
        of.run
    )
}

/// Prints the verdicts; differences make exit code 5.
pub(crate) fn report(verdicts: &[Verdict]) -> Outcome {
    let mut table =
        paint::table(&["view", "from", "through", "rows expected", "rows live", "cells", "differing", "verdict"]);
    for verdict in verdicts {
        let word = match (&verdict.compared, verdict.is_equal()) {
            (None, _) => paint::dim("no whole window is closed"),
            (_, true) => paint::good("equal"),
            (_, false) => paint::bad("DIFFERENT"),
        };
        let (from, through) = verdict.compared.clone().unwrap_or_else(|| ("-".to_owned(), "-".to_owned()));
        table.add_row([
            verdict.view.clone(),
            from,
            through,
            paint::count(verdict.expected_rows),
            paint::count(verdict.live_rows),
            paint::count(verdict.cells),
            paint::count(verdict.differing),
            word,
        ]);
    }
    say!("{table}");
    for verdict in verdicts.iter().filter(|verdict| !verdict.is_equal()) {
        say!("\n{}", paint::bold(&verdict.view));
        for difference in &verdict.differences {
            say!(
                "  {} {}  expected {}  live {}",
                difference.key,
                difference.column.as_deref().unwrap_or("(row)"),
                difference.expected.as_deref().unwrap_or("no row"),
                difference.live.as_deref().unwrap_or("no row")
            );
        }
    }
    if verdicts.iter().all(Verdict::is_equal) { Outcome::done() } else { Outcome::different() }
}
