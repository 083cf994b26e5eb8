//! `weir diff`: what a replay's rows would change of the live ones, once or kept current.

mod follow;
mod print;

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use weir_pipeline::bind::BoundView;
use weir_pipeline::console::replays::Difference;
use weir_replay::compare::Error;
use weir_replay::diff::alerts::{self, AlertDiff};
use weir_replay::diff::reasons::{Known, tenant_of};
use weir_replay::diff::{Options, Sides, ViewDiff};
use weir_replay::rerun::part::cut_by;
use weir_replay::rerun::range::Range;
use weir_replay::rerun::record::Record;
use weir_sinks::clickhouse::Client;

use super::replay::{complete, narrowed, opened, with};
use crate::out::{complain, say};
use crate::prepare::{Prepared, prepare};
use crate::{Outcome, runtime};

/// Greatest relative difference of Float64 values, where nobody says another.
const TOLERANCE: f64 = 1e-9;
/// Rows of both sides that are held to follow a diff, where nobody says another number.
const HELD_ROWS: u64 = 2_000_000;

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
    /// Keep it current while the live pipeline writes on, until Ctrl-C. The rows of both sides are held in memory.
    #[arg(long)]
    pub follow: bool,
    /// Follow until no row differs any more; alerts, and columns and views of one side only, aren't waited for.
    #[arg(long, requires = "follow")]
    pub until_equal: bool,
    /// Rows of both sides that may be held of each view to follow it.
    #[arg(long, value_name = "ROWS", default_value_t = HELD_ROWS, requires = "follow")]
    pub hold: u64,
    /// One JSON object per line: each view's difference, and again whenever it has changed.
    #[arg(long)]
    pub json: bool,
}

impl Diff {
    fn options(&self) -> Options {
        Options { examples: self.examples, tolerance: self.tolerance }
    }
}

/// Compares, prints, and says by the exit code whether something differs.
pub(crate) fn run(diff: &Diff) -> Outcome {
    let done = if diff.follow { follow::follow(diff) } else { compare(diff) };
    done.unwrap_or_else(|outcome| outcome)
}

fn compare(arguments: &Diff) -> Result<Outcome, Outcome> {
    let compared = compared(&arguments.file, &arguments.run, &arguments.view)?;
    let diffs = differences(&compared, arguments.options())?;
    let alerts = compared.alerts(arguments.examples)?;
    if arguments.json {
        lines(&compared, &diffs, alerts.as_ref()).for_each(|line| say!("{line}"));
    } else {
        say!("{}", print::whole(&compared, &diffs, alerts.as_ref()));
    }
    Ok(outcome(&compared, &diffs, alerts.as_ref()))
}

/// Everything for programs.
fn lines<'a>(
    compared: &'a Compared,
    diffs: &'a [ViewDiff],
    alerts: Option<&'a AlertDiff>,
) -> impl Iterator<Item = Value> + 'a {
    let run = &compared.record.run;
    let of_alerts = alerts.map(|alerts| json!({ "run": run, "alerts": alerts }));
    let views = diffs.iter().map(move |diff| line(run, diff));
    views.chain(compared.apart.iter().map(move |apart| apart.line(run))).chain(of_alerts)
}

/// Different is what is told as different: rows, columns and views of one side only, alerts. A view that can't be compared is
/// told as such, and is no difference.
fn outcome(compared: &Compared, diffs: &[ViewDiff], alerts: Option<&AlertDiff>) -> Outcome {
    let is_equal = diffs.iter().all(ViewDiff::is_equal)
        && !compared.apart.iter().any(Apart::is_new)
        && alerts.is_none_or(AlertDiff::is_equal);
    if is_equal { Outcome::done() } else { Outcome::different() }
}

/// A view's difference for programs.
fn line(run: &str, diff: &ViewDiff) -> Value {
    let mut value = serde_json::to_value(diff).unwrap_or_default();
    value["run"] = json!(run);
    value
}

/// The differences of replay `run` as the console shows them.
pub(crate) fn shown_differences(file: &Path, run: &str) -> Result<Vec<Difference>, Outcome> {
    let compared = compared(file, run, &[])?;
    let diffs = differences(&compared, Options { examples: 0, tolerance: TOLERANCE })?;
    let of_view = |diff: ViewDiff| Difference {
        measures: diff.measures.iter().map(|of| (of.name.clone(), of.changed, of.live_sum, of.replay_sum)).collect(),
        view: diff.view,
        live_rows: diff.live_rows,
        replay_rows: diff.replay_rows,
        added: diff.added,
        removed: diff.removed,
        changed: diff.changed,
    };
    let new = compared.apart.into_iter().filter(Apart::is_new);
    let new = new.map(|apart| Difference { view: apart.view, ..Difference::default() });
    Ok(diffs.into_iter().map(of_view).chain(new).collect())
}

/// What of a replay is held against what.
struct Compared {
    record: Record,
    views: Vec<Both>,
    apart: Vec<Apart>,
    range: Range,
    live: Client,
}

/// A view that is there on both sides, and where is known why its rows may differ.
struct Both {
    sides: Sides,
    known: Known,
}

impl Compared {
    /// What opened of the alerts; none where a part of the events can't tell, or a side has no alerts.
    fn alerts(&self, examples: usize) -> Result<Option<AlertDiff>, Outcome> {
        if self.record.is_part || self.record.condition.is_some() {
            return Ok(None);
        }
        let mut sources: Vec<&str> = self.views.iter().map(|of| of.sides.replay.source.as_str()).collect();
        sources.sort_unstable();
        sources.dedup();
        if sources.is_empty() {
            return Ok(None);
        }
        let compared = alerts::compare(&self.live, &self.record.database, &sources, self.range, examples);
        runtime()?
            .block_on(compared)
            .map_err(|error| Outcome::unreachable(format!("alerts: {error}"), "check `[clickhouse]`"))
    }
}

/// A view that isn't compared.
struct Apart {
    view: String,
    /// Why not; absent where the live pipeline has no such view.
    why: Option<String>,
}

impl Apart {
    /// Whether only the replay has it.
    fn is_new(&self) -> bool {
        self.why.is_none()
    }

    fn line(&self, run: &str) -> Value {
        json!({ "run": run, "view": self.view, "is_new": self.is_new(), "not_compared": self.why })
    }
}

fn compared(file: &Path, run: &str, views: &[String]) -> Result<Compared, Outcome> {
    let (live, store) = opened(file)?;
    let record = complete(&store, file, run, views)?;
    let with = narrowed(with(&record.with, &live)?, &record);
    let (of_live, of_replay) = (prepare(file, &live)?, prepare(&record.with, &with)?);
    let (mut both, mut apart) = (Vec::new(), Vec::new());
    for name in record.views.iter().filter(|name| views.is_empty() || views.contains(name)) {
        let Some(replay) = view_of(&of_replay, name).map(|view| view.plan.clone()) else { continue };
        let Some(view) = view_of(&of_live, name).map(|view| view.plan.clone()) else {
            apart.push(Apart { view: name.clone(), why: None });
            continue;
        };
        let cut = of_replay.bound.source(&replay.source).and_then(|source| cut_by(&replay, source));
        let cut = cut.map(|column| format!("the replay's condition asks for `{column}`, which is no dimension of it"));
        let source = live.sources.get(&view.source);
        let tenant = source.zip(of_live.bound.source(&view.source));
        let tenant = tenant.and_then(|(source, bound)| tenant_of(&view, bound, source.tenant.as_deref()?));
        let known = Known {
            client: of_live.clickhouse.clone(),
            database: record.database.clone(),
            run: record.run.clone(),
            view: view.clone(),
            topics: source.map(|of| of.all_topics()).unwrap_or_default(),
            tenant,
            slice: record.slice.clone(),
            is_part: record.is_part,
        };
        let sides = Sides {
            client: of_live.clickhouse.clone(),
            live: view,
            replay,
            database: record.database.clone(),
            condition: record.condition.clone(),
        };
        match cut.or_else(|| sides.apart()) {
            Some(why) => apart.push(Apart { view: name.clone(), why: Some(why) }),
            None => both.push(Both { sides, known }),
        }
    }
    let range = Range { from: record.slice.from, to: record.slice.to };
    Ok(Compared { record, views: both, apart, range, live: of_live.clickhouse })
}

fn view_of<'a>(of: &'a Prepared, name: &str) -> Option<&'a BoundView> {
    of.bound.views.iter().find(|view| view.plan.name == name)
}

fn differences(compared: &Compared, options: Options) -> Result<Vec<ViewDiff>, Outcome> {
    let runtime = runtime()?;
    let compare = |of: &Both| {
        let diff = runtime.block_on(of.sides.compare(compared.range, options));
        let mut diff = diff.map_err(|error| unreadable(&error))?;
        runtime.block_on(explain(&of.known, &mut diff));
        Ok(diff)
    };
    compared.views.iter().map(compare).collect()
}

/// Writes reasons beside the examples. A diff without them is better than none.
async fn explain(known: &Known, diff: &mut ViewDiff) {
    if let Err(error) = known.explain(diff).await {
        complain!("no reasons can be told: {error}");
    }
}

fn unreadable(error: &Error) -> Outcome {
    Outcome::unreachable(error.to_string(), "check `[clickhouse]`, and that both sides have this view's columns")
}
