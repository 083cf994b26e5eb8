//! `weir tap`: a masked sample of live topics as a scenario.

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
    write(&tap.out, &tapped).map_err(|error| unwritable(&tap.out, &error))?;
    let file = tap.file.display().to_string();
    let simulation = Simulation { file: &file, pipeline: &pipeline, operators, options: Options::default() };
    let played = simulation.play(&tap.out, &tapped.text).map_err(|error| Outcome::of_error(&error))?;
    std::fs::write(&tap.out, &played.updated).map_err(|error| unwritable(&tap.out, &error))?;
    if tapped.left_out > 0 {
        complain!(
            "{} left out: they don't decode, and their bytes may hold what the source calls sensitive",
            counted(tapped.left_out, "record")
        );
    }
    say!("{} {} with {}", paint::good("wrote"), tap.out.display(), counted(tapped.records, "record"));
    say!("\nNext: shorten it to what matters, then\n  weir test {file} --scenario {}", tap.out.display());
    Ok(Outcome::done())
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

fn write(out: &Path, tapped: &Tapped) -> std::io::Result<()> {
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    for (name, text) in &tapped.files {
        std::fs::write(folder.join(name), text)?;
    }
    std::fs::write(out, &tapped.text)
}

fn unwritable(out: &Path, error: &std::io::Error) -> Outcome {
    Outcome::refused(format!("{}: {error}", out.display()), "name a file that can be written")
}
