//! `weir explain row`: which records made a row, and whether they make it again.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use weir_pipeline::config::load::load;
use weir_pipeline::lineage::explain::{Asked, Explain, ExplainError, Left, Report, parse_condition};

use crate::out::{printable, say};
use crate::prepare::prepare;
use crate::{Outcome, paint, runtime};

/// Runs of offsets that are printed of a partition; `--json` has all.
const RUNS_SHOWN: usize = 12;

/// What to explain.
#[derive(Debug, Subcommand)]
pub(crate) enum Explained {
    /// Say which records made a row of a view: their offsets, schemas and releases, what was left out and why, which versions
    /// of SQL, rules and code were in force; and count them once more.
    ///
    /// A row that isn't there is explained, too, where every dimension is given: HAVING leaves it out, or it was removed.
    ///
    /// Reads the stretches of the log that can hold the row's records, and nothing else. Of a window in whose place a replay was
    /// swapped in, the row is the replay's, which is said before the verdict. Exit code 5 when the value that comes
    /// out isn't the stored one.
    #[command(after_help = "Examples:\n  \
        weir explain row shop/pipeline.toml revenue_by_minute --window 2026-11-23T10:00:00Z --where country=DE\n  \
        weir explain row shop/pipeline.toml orders_by_day --window 2026-11-23 --where tenant=shop1 --json")]
    Row(RowArguments),
}

/// Arguments of `weir explain row`.
#[derive(Debug, Args)]
pub(crate) struct RowArguments {
    /// The pipeline file.
    pub file: PathBuf,
    /// The view.
    pub view: String,
    /// The start of the row's window, such as 2026-11-23T10:00:00Z; without an offset by the clock of the view's zone.
    #[arg(long, value_name = "TIME")]
    pub window: String,
    /// A dimension's value, as ClickHouse's toString gives it; \N is NULL. Those that don't matter may be left out.
    #[arg(long = "where", value_name = "NAME=VALUE", value_parser = parse_condition)]
    pub dimensions: Vec<(String, Option<String>)>,
    /// Print everything as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Explains.
pub(crate) fn run(what: &Explained) -> Outcome {
    let Explained::Row(arguments) = what;
    match explain(&arguments.file, arguments) {
        Ok(report) => {
            if arguments.json {
                match serde_json::to_string_pretty(&report) {
                    Ok(json) => say!("{json}"),
                    Err(error) => return Outcome::told(1, format!("the report can't be written: {error}"), "tell us"),
                }
            } else {
                print(&report);
            }
            if report.is_equal == Some(false) { Outcome::different() } else { Outcome::done() }
        }
        Err(outcome) => outcome,
    }
}

fn explain(file: &Path, arguments: &RowArguments) -> Result<Report, Outcome> {
    let pipeline = load(file).map_err(|problems| Outcome::problems(&problems))?;
    let prepared = prepare(file, &pipeline)?;
    let runtime = runtime()?;
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} offsets  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut explain = Explain {
        pipeline: &pipeline,
        bound: &prepared.bound,
        client: &prepared.clickhouse,
        runtime: &runtime,
        progress: &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        },
    };
    let asked = Asked {
        view: arguments.view.clone(),
        window: arguments.window.clone(),
        dimensions: arguments.dimensions.clone(),
    };
    let explained = explain.row(&asked);
    bar.finish_and_clear();
    explained.map_err(|error| match error {
        ExplainError::Asked { message, remedy } => Outcome::refused(message, remedy),
        ExplainError::ClickHouse(error) => {
            Outcome::unreachable(error.to_string(), "check `[clickhouse]`, and that the pipeline ran with this version")
        }
        ExplainError::Other(error) => Outcome::of_error(&error),
    })
}

fn print(report: &Report) {
    let or_null = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".to_owned());
    say!("{}  {} to {}", paint::bold(&report.view), report.window_start, report.window_end);
    for (name, value) in &report.dimensions {
        say!("  {name} = {}", printable(&or_null(value)));
    }
    if let Some(of) = &report.replay {
        say!(
            "{} the replay `{}` stands in the place of live rows from {} to {}: what is judged here is its row",
            paint::bold("note:"),
            of.run,
            of.from,
            of.to
        );
    }
    let state = match (report.is_final, report.is_closed) {
        (true, _) => "final",
        (_, true) => "closed, late events may still correct it",
        _ => "open: provisional",
    };
    if report.is_there {
        say!("  {state}; revision {}, written by epoch {}\n", report.revision, report.epoch);
    } else {
        say!("  {} {}\n", paint::bold("there is no such row:"), report.absence);
    }
    let mut table = paint::table(&["measure", "stored", "recomputed", ""]);
    for measure in &report.measures {
        let verdict = match measure.is_equal {
            Some(true) => paint::good("equal"),
            Some(false) => paint::bad("DIFFERENT"),
            None => paint::dim("not recomputed"),
        };
        let is_recomputed = measure.is_equal.is_some() || measure.recomputed.is_some();
        let recomputed = if is_recomputed { or_null(&measure.recomputed) } else { String::new() };
        let stored = if report.is_there { or_null(&measure.stored) } else { "no row".to_owned() };
        let verdict = if report.is_there { verdict } else { String::new() };
        table.add_row([measure.name.clone(), stored, recomputed, verdict]);
    }
    say!("{table}\nrecomputed from {}\n", report.recomputed_from);
    print_places(report);
    print_left(report);
    print_versions(report);
    let (epochs, first, last) = report.epochs;
    say!(
        "read {} records of {} offsets, which {epochs} epochs took ({first} to {last})",
        paint::count(report.records_read),
        paint::count(report.offsets_searched)
    );
    report.notes.iter().for_each(|note| say!("{} {note}", paint::bold("note:")));
}

fn print_places(report: &Report) {
    let records: u64 = report.partitions.iter().map(|of| of.records).sum();
    say!("{} {}", paint::bold("records that counted:"), paint::count(records));
    let mut table = paint::table(&["partition", "records", "first", "last", "offsets"]);
    for of in &report.partitions {
        let shown =
            |(first, last): &(i64, i64)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
        let mut runs = of.runs.iter().take(RUNS_SHOWN).map(shown).collect::<Vec<_>>().join(" ");
        if of.runs.len() > RUNS_SHOWN {
            runs += &format!(" and {} runs more", of.runs.len() - RUNS_SHOWN);
        }
        table.add_row([
            format!("{}/{}", of.topic, of.partition),
            paint::count(of.records),
            of.runs.first().map_or(String::new(), |run| run.0.to_string()),
            of.runs.last().map_or(String::new(), |run| run.1.to_string()),
            runs,
        ]);
    }
    say!("{table}\n");
    let mut table = paint::table(&["schema id", "subject", "version", "records"]);
    for schema in &report.schemas {
        let version = schema.version.map_or("unknown".to_owned(), |version| version.to_string());
        let subject = schema.subject.clone().unwrap_or_else(|| "another one".to_owned());
        table.add_row([schema.id.to_string(), subject, version, paint::count(schema.records)]);
    }
    say!("{table}\n");
    if !report.releases.is_empty() {
        let mut table = paint::table(&["sdk", "sdk version", "app version", "records"]);
        for of in &report.releases {
            let records = paint::count(of.records);
            table.add_row([of.sdk.clone(), of.sdk_version.clone(), of.app_version.clone(), records]);
        }
        say!("{table}\n");
    }
}

fn print_left(report: &Report) {
    say!("{}", paint::bold("left out of this row:"));
    let mut table = paint::table(&["why", "rule", "records"]);
    let add = |table: &mut paint::Table, of: &Left| {
        table.add_row([of.reason.clone(), of.rule.clone(), paint::count(of.records)]);
    };
    report.left_out.iter().for_each(|of| add(&mut table, of));
    table.add_row(["further copies".to_owned(), String::new(), paint::count(report.copies)]);
    say!("{table}\nwhich copy counted is known by {}\n", report.copies_known_by);
    if !report.retried.is_empty() {
        say!(
            "{}",
            paint::bold("refused at first, and retried since (each counts, or not, at its place in the retry topic):")
        );
        let mut table = paint::table(&["why it was refused", "rule", "records"]);
        report.retried.iter().for_each(|of| add(&mut table, of));
        say!("{table}\n");
    }
    if !report.undecodable.is_empty() {
        say!("{}", paint::bold("without an event, in the same stretches:"));
        let mut table = paint::table(&["why", "rule", "records"]);
        report.undecodable.iter().for_each(|of| add(&mut table, of));
        say!("{table}\n");
    }
}

fn print_versions(report: &Report) {
    say!("{}", paint::bold("versions in force:"));
    let mut table = paint::table(&["pipeline version", "epochs", "view's SQL", "", "rules", "weir"]);
    for of in &report.versions {
        let known = match of.is_todays_view {
            Some(true) => "today's",
            Some(false) => "changed since",
            None => "unknown",
        };
        let short = |hash: &str| hash.get(..12).unwrap_or(hash).to_owned();
        let rules: Vec<String> = of.rules.iter().map(|(id, hash)| format!("{id} {}", short(hash))).collect();
        table.add_row([
            short(&of.pipeline_version),
            of.epochs.to_string(),
            short(&of.view_hash),
            known.to_owned(),
            rules.join(", "),
            format!("{} {}", of.weir_version, short(&of.weir_commit)).trim().to_owned(),
        ]);
    }
    say!("{table}\n");
}
