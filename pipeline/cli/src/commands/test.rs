//! `weir test`: a pipeline's scenarios, on invented time and without any part around Weir.

use std::io::Write;
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
    #[arg(long, conflicts_with_all = ["seed", "workers"])]
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
    let verdict = verdict(&played, test.update);
    if verdict == Verdict::Well {
        let nothing = if played.expects { "" } else { "  (nothing is expected)" };
        say!("{}     {name}  {}{nothing}", paint::good("ok"), paint::dim(&facts));
        return Went::Well;
    }
    if verdict == Verdict::Update {
        return match replace(path, &played.updated) {
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
    say!("       seed {}: {}\n", played.seed, again(test, path, played.seed));
    Went::Differently
}

/// What follows from how a scenario went.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Well,
    /// Its expectations are to be rewritten.
    Update,
    Differently,
}

/// A ledger that doesn't balance fails, whatever is asked: of numbers that don't add up nothing is made an expectation.
fn verdict(played: &Played, is_update: bool) -> Verdict {
    match (played.imbalances.is_empty(), played.differences.is_empty()) {
        (true, true) => Verdict::Well,
        (true, false) if is_update => Verdict::Update,
        _ => Verdict::Differently,
    }
}

/// The command that plays one scenario in the same way.
fn again(test: &Test, path: &Path, seed: u64) -> String {
    let which = match test.scenario.is_empty() {
        true => format!("--filter {}", quoted(&name_of(path))),
        false => format!("--scenario {}", quoted(&path.display().to_string())),
    };
    let workers = test.workers.map(|workers| format!(" --workers {workers}")).unwrap_or_default();
    format!("weir test {} {which} --seed {seed}{workers}", quoted(&test.file.display().to_string()))
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:@%+=,".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// Puts `text` in the place of what the file holds, in one step; its rights stay, and a link stays one.
pub(crate) fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let path = path.canonicalize()?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut next = tempfile::NamedTempFile::new_in(folder)?;
    next.write_all(text.as_bytes())?;
    next.as_file().set_permissions(path.metadata()?.permissions())?;
    next.as_file().sync_all()?;
    next.persist(&path).map(drop).map_err(|error| error.error)
}

/// Prints what differs: what was expected behind a minus, what was found behind a plus.
fn show(played: &Played) {
    if !played.about.is_empty() {
        say!("       {}", played.about);
    }
    for (when, difference) in played.differences.iter().chain(&played.imbalances) {
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

#[cfg(test)]
mod tests {
    use weir_replay::simulate::Difference;

    use super::*;

    #[test]
    fn a_command_to_repeat_names_the_scenario_as_it_was_chosen() {
        let test = |scenario: &[&str], workers| Test {
            file: "a shop/pipeline.toml".into(),
            scenario: scenario.iter().map(PathBuf::from).collect(),
            filter: None,
            update: false,
            seed: None,
            workers,
        };
        let path = Path::new("kept/it's.toml");
        assert_eq!(
            again(&test(&["x.toml", "kept/it's.toml"], Some(4)), path, 7),
            r"weir test 'a shop/pipeline.toml' --scenario 'kept/it'\''s.toml' --seed 7 --workers 4"
        );
        assert_eq!(
            again(&test(&[], None), Path::new("a/b.toml"), 1),
            "weir test 'a shop/pipeline.toml' --filter b --seed 1"
        );
    }

    #[test]
    fn no_update_hides_a_ledger_that_does_not_balance() {
        let of = |differs: bool, balances: bool| {
            let difference =
                Difference { what: "ledger".to_owned(), columns: Vec::new(), lines: Vec::new(), untold: 0 };
            let one =
                |is_there: bool| is_there.then(|| ("at the end".to_owned(), difference.clone())).into_iter().collect();
            Played {
                about: String::new(),
                seed: 1,
                records: 0,
                invented: Duration::ZERO,
                took: Duration::ZERO,
                differences: one(differs),
                imbalances: one(!balances),
                expects: true,
                updated: String::new(),
            }
        };
        assert_eq!(verdict(&of(false, true), false), Verdict::Well);
        assert_eq!(verdict(&of(true, true), false), Verdict::Differently);
        assert_eq!(verdict(&of(true, true), true), Verdict::Update);
        for (differs, is_update) in [(false, false), (false, true), (true, true)] {
            assert_eq!(verdict(&of(differs, false), is_update), Verdict::Differently);
        }
    }

    #[test]
    fn a_file_is_replaced_with_its_rights_and_through_a_link() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a.toml"), folder.path().join("link.toml"));
        std::fs::write(&path, "before").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        replace(&link, "after").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "after");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
        assert!(replace(&folder.path().join("absent"), "x").is_err());
    }
}
