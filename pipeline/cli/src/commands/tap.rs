//! `weir tap`: a sample of live topics as a scenario, masked where the source calls fields sensitive.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use weir_pipeline::config::Pipeline;
use weir_pipeline::config::load::load;
use weir_pipeline::custom::OperatorRegistry;
use weir_pipeline::source::kafka::KafkaLog;
use weir_pipeline::{connect, readers};
use weir_replay::simulate::tap::{Tapped, Tapping, name_of};
use weir_replay::simulate::{Options, Simulation};

use super::test::replace;
use crate::out::{complain, say};
use crate::{Outcome, counted, paint, runtime};

/// Arguments of `weir tap`.
#[derive(Debug, Args)]
pub(crate) struct Tap {
    /// The pipeline file.
    file: PathBuf,
    /// The scenario to write: a file that isn't there yet.
    #[arg(long, value_name = "SCENARIO")]
    out: PathBuf,
    /// Records of each partition, at most: the newest.
    #[arg(long, value_name = "N", default_value_t = 100)]
    records: u32,
    /// Instead of the newest those that come within so many seconds.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Only these topics.
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,
}

/// Taps the topics of the pipeline in `tap.file`.
pub(crate) fn run(tap: &Tap, operators: &OperatorRegistry) -> Outcome {
    try_run(tap, operators).unwrap_or_else(|outcome| outcome)
}

fn try_run(tap: &Tap, operators: &OperatorRegistry) -> Result<Outcome, Outcome> {
    let pipeline = load(&tap.file).map_err(|problems| Outcome::problems(&problems))?;
    if tap.out.exists() {
        let remedy = "name a file that isn't there yet";
        return Err(Outcome::refused(format!("{} is there already", tap.out.display()), remedy));
    }
    let known: Vec<&String> = pipeline.sources.values().flat_map(|source| &source.topics).collect();
    if let Some(unknown) = tap.topic.iter().find(|topic| !known.contains(topic)) {
        let names: Vec<&str> = known.iter().map(|name| name.as_str()).collect();
        let what = format!("the pipeline doesn't read the topic `{unknown}`");
        return Err(Outcome::refused(what, format!("name one of {}", names.join(", "))));
    }
    let tapped = take(tap, &pipeline)?;
    if tapped.records == 0 {
        let remedy = "produce some first, or name another topic with --topic";
        return Err(Outcome::refused("nothing came that a scenario could hold", remedy));
    }
    let mut made = Made::default();
    made.write(&tap.out, &tapped)?;
    let file = tap.file.display().to_string();
    let simulation = Simulation { file: &file, pipeline: &pipeline, operators, options: Options::default() };
    let played = simulation.play(&tap.out, &tapped.text).map_err(|error| Outcome::of_error(&error))?;
    replace(&tap.out, &played.updated).map_err(|error| unwritable(&tap.out, &error))?;
    made.keep();
    if tapped.left_out > 0 {
        complain!(
            "{} left out: they don't decode, and their bytes may hold what the source calls sensitive",
            counted(tapped.left_out, "record")
        );
    }
    say!("{} {} with {}", paint::good("wrote"), tap.out.display(), counted(tapped.records, "record"));
    say!("\nNext: shorten it to what matters, then\n  weir test {file} --scenario {}", tap.out.display());
    if played.imbalances.is_empty() {
        return Ok(Outcome::done());
    }
    complain!("the ledger doesn't balance, which is a bug of Weir: `weir test` shows where");
    Ok(Outcome::different())
}

fn take(tap: &Tap, pipeline: &Pipeline) -> Result<Tapped, Outcome> {
    let runtime = runtime()?;
    let registry = connect::registry(pipeline).map_err(|error| Outcome::of_error(&error))?;
    let readers = runtime.block_on(readers::choose(pipeline, Some(&registry)));
    let readers = readers.map_err(|error| Outcome::of_error(&error))?;
    let tapping = Tapping {
        pipeline,
        readers: &readers,
        registry: &registry,
        handle: runtime.handle(),
        records: tap.records.max(1),
        within: tap.seconds.map(Duration::from_secs),
        topics: tap.topic.clone(),
    };
    let taken = tapping.take(&KafkaLog::new(pipeline), &name_of(&tap.out));
    taken.map_err(|error| Outcome::of_error(&error))
}

/// Files that were made, which go again unless they are kept: so the next try finds none of a failed one.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Made {
    /// Writes the scenario and the files that it needs, none of which may be there with other words.
    fn write(&mut self, out: &Path, tapped: &Tapped) -> Result<(), Outcome> {
        let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
        for (name, text) in &tapped.files {
            self.create(&folder.join(name), text)?;
        }
        self.create(out, &tapped.text)
    }

    fn create(&mut self, path: &Path, text: &str) -> Result<(), Outcome> {
        match File::create_new(path) {
            Ok(mut file) => {
                self.0.push(path.to_owned());
                file.write_all(text.as_bytes()).map_err(|error| unwritable(path, &error))
            }
            Err(_) if std::fs::read_to_string(path).is_ok_and(|there| there == text) => Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let what = format!("{} is there already and says something else", path.display());
                Err(Outcome::refused(what, "move it away, or give the scenario another name"))
            }
            Err(error) => Err(unwritable(path, &error)),
        }
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn unwritable(out: &Path, error: &std::io::Error) -> Outcome {
    Outcome::refused(format!("{}: {error}", out.display()), "name a file that can be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_failed_tap_go_and_files_of_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (out, beside) = (folder.path().join("new/s.toml"), folder.path().join("new/s.events.avsc"));
        let tapped = |schema: &str| Tapped {
            text: "events = []".to_owned(),
            files: vec![("s.events.avsc".to_owned(), schema.to_owned())],
            ..Tapped::default()
        };
        let mut failed = Made::default();
        assert!(failed.write(&out, &tapped("one")).is_ok() && out.exists() && beside.exists());
        drop(failed);
        assert!(!out.exists() && !beside.exists());

        std::fs::write(&beside, "one").unwrap();
        let mut refused = Made::default();
        assert!(refused.write(&out, &tapped("two")).is_err(), "another schema of this name");
        drop(refused);
        assert_eq!(std::fs::read_to_string(&beside).unwrap(), "one");

        let mut kept = Made::default();
        assert!(kept.write(&out, &tapped("one")).is_ok(), "the very same schema");
        kept.keep();
        assert!(out.exists() && beside.exists());
    }
}
