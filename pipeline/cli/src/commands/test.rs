//! `weir test`: a pipeline's scenarios, on invented time and without any part around Weir.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use weir_pipeline::config::Pipeline;
use weir_pipeline::config::load;
use weir_pipeline::custom::OperatorRegistry;
use weir_pipeline::problem::Problem;
use weir_replay::simulate::{Options, Played, Simulation, beside};

use crate::out::say;
use crate::{Outcome, counted, paint};

/// Arguments of `weir test`.
#[derive(Debug, Args)]
pub(crate) struct Test {
    /// The pipeline file; its scenarios are scenarios/*.toml beside it.
    file: PathBuf,
    /// These scenario files instead.
    #[arg(long, value_name = "SCENARIO")]
    scenario: Vec<PathBuf>,
    /// Only scenarios whose file's name contains this.
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Rewrite the expectations that weren't met, in place; comments and the rest of each file stay.
    #[arg(long)]
    update: bool,
    /// Draw what is drawn from this seed, instead of each scenario's.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Worker threads, instead of each scenario's.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: Option<u16>,
}

/// How one scenario went.
enum Went {
    Well,
    Updated,
    Differently,
    /// It can't be played.
    Wrong(Outcome),
}

/// What all scenarios took.
#[derive(Default)]
struct Sum {
    ok: usize,
    updated: usize,
    different: usize,
    wrong: Vec<Outcome>,
    invented: Duration,
    took: Duration,
}

/// Runs the scenarios of the pipeline in `test.file`.
pub(crate) fn run(test: &Test, operators: &OperatorRegistry) -> Outcome {
    let pipeline = match read_pipeline(&test.file) {
        Ok(pipeline) => pipeline,
        Err(problems) => return Outcome::problems(&problems),
    };
    let files = match files(test) {
        Ok(files) => files,
        Err(outcome) => return outcome,
    };
    let file = test.file.display().to_string();
    let options = Options { seed: test.seed, workers: test.workers };
    let simulation = Simulation { file: &file, pipeline: &pipeline, operators, options };
    let width = files.iter().map(|path| name_of(path).chars().count()).max().unwrap_or(0);
    let mut sum = Sum::default();
    for path in &files {
        match play(test, &simulation, path, width, &mut sum) {
            Went::Well => sum.ok += 1,
            Went::Updated => sum.updated += 1,
            Went::Differently => sum.different += 1,
            Went::Wrong(outcome) => sum.wrong.push(outcome),
        }
    }
    tell(&sum);
    let code = if sum.different > 0 { Outcome::different() } else { Outcome::done() };
    // A file that is wrong goes before one that fails: nobody knows what it would have said.
    sum.wrong.into_iter().rev().fold(code, |all, one| one.and(all))
}

/// The pipeline file. Secrets needn't be there: nobody is asked who would want them.
fn read_pipeline(file: &Path) -> Result<Pipeline, Vec<Problem>> {
    load::load_with(file, &|name| Some(std::env::var(name).unwrap_or_else(|_| format!("no-{name}"))))
}

fn files(test: &Test) -> Result<Vec<PathBuf>, Outcome> {
    let remedy = "write scenarios/NAME.toml beside the pipeline file (`weir init` writes some to start from, `weir tap` makes \
                  one of a live topic), or name files with --scenario";
    let files = if test.scenario.is_empty() {
        beside(&test.file).map_err(|error| {
            Outcome::refused(format!("the pipeline file's scenarios can't be read: {error}"), remedy)
        })?
    } else {
        test.scenario.clone()
    };
    let is_wanted = |path: &PathBuf| test.filter.as_ref().is_none_or(|part| name_of(path).contains(part.as_str()));
    let wanted: Vec<PathBuf> = files.iter().filter(|path| is_wanted(path)).cloned().collect();
    match (&test.filter, files.is_empty(), wanted.is_empty()) {
        (_, true, _) => Err(Outcome::refused("there is no scenario", remedy)),
        (Some(part), false, true) => {
            let names: Vec<String> = files.iter().map(|path| name_of(path)).collect();
            Err(Outcome::refused(
                format!("no scenario's name contains {part:?}"),
                format!("there are {}", names.join(", ")),
            ))
        }
        _ => Ok(wanted),
    }
}

/// A scenario's name: its file's, without the ending.
fn name_of(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn play(test: &Test, simulation: &Simulation<'_>, path: &Path, width: usize, sum: &mut Sum) -> Went {
    let name = format!("{:<width$}", name_of(path));
    let wrong = |outcome: Outcome| {
        say!("{}  {name}  can't be played", paint::bad("wrong"));
        Went::Wrong(outcome)
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            let what = format!("{}: {error}", path.display());
            return wrong(Outcome::refused(what, "give the path of a scenario file"));
        }
    };
    let played = match simulation.play(path, &text) {
        Ok(played) => played,
        Err(error) => return wrong(Outcome::of_error(&error)),
    };
    sum.invented += played.invented;
    sum.took += played.took;
    let facts = format!(
        "{}, {} in {} ms",
        counted(usize::try_from(played.records).unwrap_or(usize::MAX), "record"),
        span(played.invented),
        played.took.as_millis()
    );
    if played.differences.is_empty() {
        let nothing = if played.expects { "" } else { "  (nothing is expected)" };
        say!("{}     {name}  {}{nothing}", paint::good("ok"), paint::dim(&facts));
        return Went::Well;
    }
    if test.update {
        return match std::fs::write(path, &played.updated) {
            Ok(()) => {
                say!("{}  {name}  {}", paint::good("wrote"), paint::dim(&facts));
                show(&played);
                Went::Updated
            }
            Err(error) => {
                wrong(Outcome::refused(format!("{}: {error}", path.display()), "make the file one that can be written"))
            }
        };
    }
    say!("{}   {name}  {}", paint::bad("fail"), paint::dim(&facts));
    show(&played);
    let again = format!("weir test {} --filter {} --seed {}", test.file.display(), name_of(path), played.seed);
    say!("       seed {}: {again}\n", played.seed);
    Went::Differently
}

/// Prints what differs: what was expected behind a minus, what was found behind a plus.
fn show(played: &Played) {
    if !played.about.is_empty() {
        say!("       {}", played.about);
    }
    for (when, difference) in &played.differences {
        let text = difference.text();
        let mut lines = text.lines();
        say!("       {}, {when}", paint::bold(lines.next().unwrap_or_default()));
        for line in lines {
            let line = match line.trim_start().chars().next() {
                Some('-') => paint::bad(line),
                Some('+') => paint::good(line),
                _ => line.to_owned(),
            };
            say!("       {line}");
        }
    }
}

fn tell(sum: &Sum) {
    let all = sum.ok + sum.updated + sum.different + sum.wrong.len();
    let mut parts = vec![format!("{} ok", sum.ok)];
    for (number, word) in [(sum.updated, "updated"), (sum.different, "failed"), (sum.wrong.len(), "can't be played")] {
        if number > 0 {
            parts.push(format!("{number} {word}"));
        }
    }
    let seconds = sum.took.as_secs_f64();
    let speed = if seconds > 0.0 { sum.invented.as_secs_f64() / seconds } else { 0.0 };
    say!(
        "\n{}: {}; {} of invented time in {seconds:.2} s, {} times as fast",
        counted(all, "scenario"),
        parts.join(", "),
        span(sum.invented),
        paint::count(speed as u64)
    );
}

/// A span of invented time.
fn span(of: Duration) -> String {
    let seconds = of.as_secs();
    match (seconds / 3_600, seconds % 3_600 / 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}
