//! `weir plan`: what a tracking plan asks, what a new version changes for whom, and a first proposal from a topic.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use weir_pipeline::config::load::load;
use weir_pipeline::config::{Pipeline, Source};
use weir_pipeline::plan::concern::{Concerned, Counts, Judging, concerned};
use weir_pipeline::plan::diff::{Difference, differences};
use weir_pipeline::plan::infer::infer;
use weir_pipeline::plan::sample::{Sample, Sampling};
use weir_pipeline::plan::{Version, read_plan, read_version};
use weir_pipeline::sql::SourceColumns;
use weir_pipeline::{connect, readers};
use weir_schemas::avro::ReaderSchema;

use crate::out::{complain, say, text};
use crate::{Outcome, counted, paint, runtime};

/// Arguments of `weir plan`.
#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// Whether every version of a source's plan can be judged by, and what each comes to.
    #[command(after_help = "Example:\n  weir plan check shop/pipeline.toml")]
    Check(Of),
    /// What a version asks differently from another; with a pipeline file, who sends what would break.
    #[command(after_help = "Examples:\n  weir plan diff plans/2.toml plans/3.toml\n  \
                            weir plan diff plans/2.toml plans/3.toml --file shop/pipeline.toml --records 500000")]
    Diff {
        /// The version that is.
        old: PathBuf,
        /// The version that is to be.
        new: PathBuf,
        /// The pipeline file: events of its source's topics are judged by both.
        #[arg(long)]
        file: Option<PathBuf>,
        /// What is sampled.
        #[command(flatten)]
        sampled: Sampled,
    },
    /// Propose a version from what held for a sample of a source's events.
    #[command(after_help = "Examples:\n  weir plan infer shop/pipeline.toml --out shop/plans/1.toml\n  \
                            weir plan infer shop/pipeline.toml --topic events-of-staging --records 20000")]
    Infer {
        /// The pipeline file: it says where the topic is, how to read it and what the event's type is.
        file: PathBuf,
        /// What is sampled.
        #[command(flatten)]
        sampled: Sampled,
        /// Where to write it; absent, it is printed.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// A source of a pipeline file.
#[derive(Debug, Args)]
pub(crate) struct Of {
    /// The pipeline file.
    file: PathBuf,
    /// The source; absent, the only one.
    #[arg(long)]
    source: Option<String>,
}

/// What is sampled.
#[derive(Debug, Args)]
pub(crate) struct Sampled {
    /// The source; absent, the only one.
    #[arg(long)]
    source: Option<String>,
    /// This topic in the place of the source's.
    #[arg(long)]
    topic: Option<String>,
    /// Records to read, at most: the newest, about as many of each partition.
    #[arg(long, default_value_t = 100_000)]
    records: u64,
}

/// Runs one of the commands.
pub(crate) fn run(command: &PlanCommand) -> Outcome {
    let done = match command {
        PlanCommand::Check(of) => check(of),
        PlanCommand::Diff { old, new, file, sampled } => diff(old, new, file.as_deref(), sampled),
        PlanCommand::Infer { file, sampled, out } => propose(file, sampled, out.as_deref()),
    };
    done.unwrap_or_else(|outcome| outcome)
}

/// A source with what is needed to judge its events.
struct Opened {
    file: String,
    pipeline: Pipeline,
    name: String,
    source: Source,
    reader: Arc<ReaderSchema>,
    columns: SourceColumns,
    runtime: tokio::runtime::Runtime,
}

fn open(file: &Path, source: Option<&str>) -> Result<Opened, Outcome> {
    let pipeline = load(file).map_err(|problems| Outcome::problems(&problems))?;
    let known = || pipeline.sources.keys().cloned().collect::<Vec<_>>().join(", ");
    let name = match source {
        Some(name) => name.to_owned(),
        None if pipeline.sources.len() == 1 => known(),
        None => {
            return Err(Outcome::refused(
                "the pipeline has several sources",
                format!("name one of {} with --source", known()),
            ));
        }
    };
    let Some(of) = pipeline.sources.get(&name).cloned() else {
        return Err(Outcome::refused(format!("there is no source `{name}`"), format!("name one of {}", known())));
    };
    if of.event_type.is_none() {
        let remedy = "name the field of the event's type in `event_type`: a plan goes by it";
        return Err(Outcome::refused(format!("the source `{name}` has no event type"), remedy));
    }
    let runtime = runtime()?;
    let registry = connect::registry(&pipeline).map_err(|error| Outcome::of_error(&error))?;
    let readers =
        runtime.block_on(readers::choose(&pipeline, Some(&registry))).map_err(|error| Outcome::of_error(&error))?;
    let reader = readers.schemas.get(&name).cloned();
    let reader = reader.ok_or_else(|| Outcome::refused("the source has no reader schema", "name its `schema_file`"))?;
    let columns = SourceColumns { columns: reader.columns.clone(), event_time: of.event_time.clone() };
    Ok(Opened { file: file.display().to_string(), name, source: of, reader, columns, runtime, pipeline })
}

impl Opened {
    fn judging(&self, version: &Version) -> Result<Judging, Outcome> {
        Judging::new(version, &self.file, &self.name, &self.source, &self.columns)
            .map_err(|error| Outcome::of_error(&error))
    }

    fn sample(&self, sampled: &Sampled) -> Result<Sample, Outcome> {
        let topics = sampled.topic.as_ref().map_or(self.source.topics.clone(), |topic| vec![topic.clone()]);
        let registry = connect::registry(&self.pipeline).map_err(|error| Outcome::of_error(&error))?;
        let sampling = Sampling {
            pipeline: &self.pipeline,
            reader: Arc::clone(&self.reader),
            topics: &topics,
            records: sampled.records,
        };
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {pos} of {len} records  {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let mut progress = |done: u64, of: u64| {
            bar.set_length(of);
            bar.set_position(done);
        };
        let taken = sampling.take(&registry, self.runtime.handle(), &mut progress);
        bar.finish_and_clear();
        let sample = taken.map_err(|error| Outcome::of_error(&error))?;
        if sample.events == 0 {
            let message = format!("there are no events in {}", topics.join(", "));
            return Err(Outcome::refused(message, "name another topic with --topic, or produce some first"));
        }
        let left_out = match sample.left_out {
            0 => String::new(),
            some => format!(", {} left out: no events, or not readable with the reader schema", paint::count(some)),
        };
        complain!(
            "{} {} events of {}{left_out}",
            paint::good("sampled"),
            paint::count(sample.events),
            topics.join(", ")
        );
        Ok(sample)
    }
}

fn check(of: &Of) -> Result<Outcome, Outcome> {
    let opened = open(&of.file, of.source.as_deref())?;
    let Some(uses) = &opened.source.plan else {
        let remedy = "add [sources.NAME.plan]; `weir plan infer` proposes a first version";
        return Err(Outcome::refused(format!("the source `{}` has no tracking plan", opened.name), remedy));
    };
    let plan = read_plan(&uses.folder).map_err(|problems| Outcome::problems(&problems))?;
    let mut table = paint::table(&["version", "event types", "fields", "rules"]);
    for version in &plan.versions {
        let judging = opened.judging(version)?;
        let fields: usize =
            version.plan.events.iter().map(|(name, event)| version.plan.fields_of(name, event).len()).sum();
        let types = version.plan.events.len();
        table.add_row([&version.name, &types.to_string(), &fields.to_string(), &judging.len().to_string()]);
    }
    say!("{table}");
    say!("{} {}", paint::good("fine:"), counted(plan.versions.len(), "version"));
    Ok(Outcome::done())
}

fn diff(old: &Path, new: &Path, file: Option<&Path>, sampled: &Sampled) -> Result<Outcome, Outcome> {
    let read = |path: &Path| read_version(path).map_err(|problems| Outcome::problems(&problems));
    let (old, new) = (read(old)?, read(new)?);
    print_differences(&differences(&old, &new));
    let Some(file) = file else { return Ok(Outcome::done()) };
    let opened = open(file, sampled.source.as_deref())?;
    let (before, after) = (opened.judging(&old)?, opened.judging(&new)?);
    let sample = opened.sample(sampled)?;
    let found = concerned(&before, &after, &sample, &opened.source, &opened.columns);
    let found = found.map_err(|error| Outcome::of_error(&error))?;
    print_concerned(found.iter());
    Ok(Outcome::done())
}

fn print_differences(found: &[Difference]) {
    if found.is_empty() {
        say!("both ask the same");
        return;
    }
    let mut table = paint::table(&["", "event type", "field", ""]);
    for one in found {
        let word = one.change.name();
        let change = if word == "tightened" { paint::bad(word) } else { word.to_owned() };
        table.add_row([&change, &one.event_type, &one.field, &one.what]);
    }
    say!("{table}");
}

fn print_concerned<'a>(found: impl Iterator<Item = (&'a Concerned, &'a Counts)> + Clone) {
    let mut table =
        paint::table(&["rule", "owner", "sdk", "version", "app", "would break", "would be mended", "of events"]);
    let mut rows: Vec<(&Concerned, &Counts)> = found.collect();
    if rows.is_empty() {
        say!("\nnobody in the sample is concerned");
        return;
    }
    rows.sort_by(|a, b| b.1.breaking.cmp(&a.1.breaking).then(a.0.cmp(b.0)));
    for (one, counts) in rows {
        let [sdk, version, app] = &one.release;
        let (breaking, mended) = (paint::count(counts.breaking), paint::count(counts.mended));
        table.add_row([&one.rule, &one.owner, sdk, version, app, &breaking, &mended, &paint::count(counts.events)]);
    }
    say!("\n{table}");
}

fn propose(file: &Path, sampled: &Sampled, out: Option<&Path>) -> Result<Outcome, Outcome> {
    let opened = open(file, sampled.source.as_deref())?;
    if let Some(out) = out.filter(|out| out.exists()) {
        let remedy = "name a file that isn't there yet: a version that events claim doesn't change";
        return Err(Outcome::refused(format!("{} is there already", out.display()), remedy));
    }
    let sample = opened.sample(sampled)?;
    let proposal = infer(&sample, &opened.source, &opened.columns).map_err(|error| Outcome::of_error(&error))?;
    // The proposal is held to its own sample before anybody sees it.
    let version = Version::parse("proposal", &proposal.text).map_err(|problems| Outcome::problems(&problems))?;
    let judging = opened.judging(&version)?;
    let broken = judging.broken(&sample).map_err(|error| Outcome::of_error(&error))?;
    if let Some((rule, count)) = broken.iter().next() {
        let message = format!("{count} events of the sample break {rule}, which was proposed from them: this is a bug");
        return Err(Outcome::told(1, message, "report it, with the field's values if they may be shown"));
    }
    let told = format!(
        "{}, {}, {}; the sample breaks none",
        counted(proposal.event_types, "event type"),
        counted(proposal.fields, "field"),
        counted(judging.len(), "rule")
    );
    if proposal.left_out > 0 {
        complain!("{} events of further types are left out", paint::count(proposal.left_out));
    }
    match out {
        None => {
            // Who closes the pipe has read enough.
            let _ = text(proposal.text.as_bytes());
        }
        Some(out) => {
            let failed = |error: std::io::Error| {
                Outcome::refused(format!("{}: {error}", out.display()), "name a file that can be written")
            };
            if let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                std::fs::create_dir_all(folder).map_err(failed)?;
            }
            std::fs::write(out, &proposal.text).map_err(failed)?;
        }
    }
    complain!("{} {told}", paint::good("proposed"));
    Ok(Outcome::done())
}
