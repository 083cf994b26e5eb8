//! `weir check`: what is wrong, what will be computed, which tables will be made.

use std::path::Path;

use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::runtime::Runtime;
use weir_pipeline::archive::archive_of;
use weir_pipeline::bind::{Bound, bind};
use weir_pipeline::complaints::{Complaints, why};
use weir_pipeline::config::Pipeline;
use weir_pipeline::config::load::load_with_problems;
use weir_pipeline::console::guard::is_loopback;
use weir_pipeline::error::Error;
use weir_pipeline::problem::Problem;
use weir_pipeline::readers::{self, Readers};
use weir_pipeline::rules::describe_table;
use weir_pipeline::source::kafka::topic_settings;
use weir_pipeline::{connect, run, sql};
use weir_schemas::registry::Registry;
use weir_sinks::clickhouse::Layout;

use crate::out::say;
use crate::{OperatorRegistry, Outcome, counted, paint, runtime};

/// How long the broker may take to answer.
const ANSWER_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// Checks the pipeline of `file`: tells everything that is wrong at once. With `offline` nothing is asked over the network.
pub(crate) fn run(file: &Path, offline: bool, operators: &OperatorRegistry) -> Outcome {
    let (pipeline, problems) = load_with_problems(file);
    let Some(pipeline) = pipeline else { return Outcome::problems(&problems) };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(outcome) => return outcome,
    };
    let is_file_fine = problems.is_empty();
    let mut found = Found { problems, errors: Vec::new() };
    let fits = fitted(file, &pipeline, offline, operators, &runtime, &mut found);
    // What addresses and names say that are wrong is no news.
    if !offline && is_file_fine {
        if let Some(fits) = &fits {
            let Fitted { bound, readers, registry, layout } = fits;
            runtime.block_on(check_subjects(&pipeline, bound, readers, registry, &mut found));
            let needed = connect::clickhouse(&pipeline).and_then(|client| {
                let asked = runtime.block_on(layout.needed(&client));
                asked.map_err(|error| connect::first_contact(&pipeline, error))
            });
            found.errors.extend(needed.err());
        }
        check_topics(&pipeline, &mut found);
        found.errors.extend(check_archive(&pipeline).err());
    }
    let outcome = found.outcome();
    let (Some(Fitted { bound, .. }), None) = (&fits, &outcome) else { return outcome.unwrap_or_else(Outcome::done) };
    let clocks = Some(&pipeline).filter(|_| !offline).and_then(|pipeline| clocks_of_producers(pipeline, &runtime));
    for note in [open_address(&pipeline), clocks].into_iter().flatten() {
        say!("{} {note}", paint::bold("note:"));
    }
    let sources = counted(bound.sources.len(), "source");
    say!("{} {sources}, {}", paint::good("fine:"), counted(bound.views.len(), "view"));
    Outcome::done()
}

/// A pipeline that fits its schemas, and what it was held against.
struct Fitted {
    bound: Bound,
    readers: Readers,
    registry: Registry,
    layout: Layout,
}

/// Holds a pipeline to its schemas, plans its views and rules, holds it to its state, and prints what it comes to where
/// nothing is wrong. `None` where what is wrong, which `found` then has, leaves nothing to look at further.
fn fitted(
    file: &Path,
    pipeline: &Pipeline,
    offline: bool,
    operators: &OperatorRegistry,
    runtime: &Runtime,
    found: &mut Found,
) -> Option<Fitted> {
    let name = file.display().to_string();
    let is_fine = found.problems.is_empty();
    let schemas = connect::registry(pipeline).and_then(|registry| {
        let asked = (!offline).then_some(&registry);
        let readers = runtime.block_on(readers::choose(pipeline, asked))?;
        Ok((registry, readers))
    });
    let (registry, readers) = match schemas {
        Ok(schemas) => schemas,
        Err(error) => {
            // Where the file itself is wrong, this may be no more than what comes of it.
            found.errors.extend(Some(error).filter(|_| is_fine));
            return None;
        }
    };
    let bound = bind(&name, pipeline, &readers.schemas).map_err(|problems| found.problems.extend(problems)).ok()?;
    let layout = run::layout(&name, pipeline, &bound, operators).map_err(|error| found.errors.push(error)).ok()?;
    match layout.create(&pipeline.clickhouse.database) {
        Ok(statements) if is_fine => {
            print_plan(pipeline, &bound);
            say!("{}", paint::bold("tables"));
            statements.iter().for_each(|statement| say!("{statement};\n"));
        }
        Ok(_) => {}
        Err(error) => {
            let remedy = "rename the column in the SELECT";
            found.problems.push(Problem::of_file(&name, error.to_string(), remedy));
            return None;
        }
    }
    found.errors.extend(run::hold_to_state(pipeline, &bound, &readers).err());
    Some(Fitted { bound, readers, registry, layout })
}

/// Whether the archive can be read. A folder that isn't there yet is made by the first run, and not by looking.
fn check_archive(pipeline: &Pipeline) -> Result<(), Error> {
    let is_absent = |url: &str| !url.contains("://") && !Path::new(url).exists();
    if pipeline.archive.as_ref().is_none_or(|archive| is_absent(&archive.url)) {
        return Ok(());
    }
    if let Some(archive) = archive_of(pipeline)? {
        archive.catalog()?;
    }
    Ok(())
}

/// What is wrong beyond the file's own text: what doesn't fit, and which parts couldn't be used.
#[derive(Default)]
struct Found {
    problems: Vec<Problem>,
    errors: Vec<Error>,
}

impl Found {
    /// Everything at once; the exit code is that of a problem if there is one, else the first error's.
    fn outcome(self) -> Option<Outcome> {
        let told = (!self.problems.is_empty()).then(|| Outcome::problems(&self.problems));
        told.into_iter().chain(self.errors.iter().map(Outcome::of_error)).reduce(Outcome::and)
    }
}

/// What is to be said of an address that others reach.
fn open_address(pipeline: &Pipeline) -> Option<String> {
    let address = pipeline.http.as_deref().filter(|address| !is_loopback(address))?;
    pipeline.http_token.as_deref().is_none_or(str::is_empty).then(|| {
        format!(
            "http = \"{address}\" is reached from beyond this machine and has no `http_token`, so neither the console nor \
             /status is served there; write http_token = \"${{CONSOLE_TOKEN}}\" beside it, or http = \"127.0.0.1:9464\""
        )
    })
}

/// What is to be said of topics whose records' timestamps are their producers': an event's time is judged against its
/// record's, and a clock that is wrong in both isn't noticed. Where the cluster doesn't tell, nothing is said.
fn clocks_of_producers(pipeline: &Pipeline, runtime: &Runtime) -> Option<String> {
    let topics: Vec<String> = pipeline.sources.values().flat_map(|source| source.topics.iter().cloned()).collect();
    let (kafka, brokers) = (connect::kafka(pipeline), &pipeline.kafka.brokers);
    let told = topic_settings(&kafka, brokers, &topics, "message.timestamp.type", runtime.handle()).ok()?;
    let is_theirs = |(_, told): &(&String, Option<String>)| told.as_deref() == Some("CreateTime");
    let theirs: Vec<String> =
        topics.iter().zip(told).filter(is_theirs).map(|(topic, _)| format!("`{topic}`")).collect();
    (!theirs.is_empty()).then(|| {
        format!(
            "the timestamps of {} are their producers' (message.timestamp.type is CreateTime): a producer whose clock is \
             ahead passes `future_limit_ms` with events from the future, and these move the watermark; with LogAppendTime \
             the timestamps are the broker's",
            theirs.join(", ")
        )
    })
}

fn print_plan(pipeline: &Pipeline, bound: &Bound) {
    for source in &bound.sources {
        say!("{} {}", paint::bold("source"), source.name);
        let mut table = paint::table(&["  column", "type", "read"]);
        for (column, wanted) in source.reader.columns.iter().zip(&source.wanted) {
            let read = match (wanted, &source.judged) {
                (true, _) => "yes",
                (false, Some(_)) => "by the judge",
                (false, None) => "no",
            };
            table.add_row([&format!("  {}", column.name), &column.column_type.to_string(), read]);
        }
        say!("{table}\n");
    }
    print_rules(pipeline, bound);
    for view in &bound.views {
        say!("{}", sql::render(&view.plan));
    }
}

/// The rules with the conditions that they stand for, and what the tables hold that they look values up in.
fn print_rules(pipeline: &Pipeline, bound: &Bound) {
    let rules = || bound.sources.iter().flat_map(|source| source.contract.rules.iter().map(move |rule| (source, rule)));
    if rules().next().is_none() {
        return;
    }
    say!("{}", paint::bold("rules"));
    for (source, rule) in rules() {
        let owner = if rule.owner.is_empty() { String::new() } else { format!(", owner {}", rule.owner) };
        say!("  {} of {}: {}, {}{owner}", rule.id, source.name, rule.mode.name(), rule.severity.name());
        if !rule.when.is_empty() {
            say!("    when      {}", rule.when);
        }
        say!("    requires  {}\n", rule.expected);
    }
    for (id, table) in pipeline.quality.rules.iter().filter_map(|(id, rule)| Some((id, rule.in_table.as_ref()?))) {
        say!("  {id}: {}\n", describe_table(table, &bound.tables));
    }
}

/// Whether every version that the sources' subjects have can be read; says where a newer one than the reader is there.
async fn check_subjects(pipeline: &Pipeline, bound: &Bound, readers: &Readers, registry: &Registry, found: &mut Found) {
    for source in &bound.sources {
        let (Some(config), Some(kept)) = (pipeline.sources.get(&source.name), readers.kept.get(&source.name)) else {
            continue;
        };
        let place = format!("subject {}", readers::subject_of(config));
        match readers::compare(&source.name, config, &source.reader, kept, registry).await {
            Ok(compared) => {
                if let Some(newer) = compared.newer {
                    say!("{} {newer}\n", paint::bold("note:"));
                }
                let remedy = "change the reader schema: give the field a default, or the type that was written; where no \
                              record of that version is left, delete the version from the subject";
                found.problems.extend(compared.unreadable.iter().map(|what| Problem::of_file(&place, what, remedy)));
            }
            Err(error) => found.errors.push(error),
        }
    }
}

/// Whether the topics are there.
fn check_topics(pipeline: &Pipeline, found: &mut Found) {
    let unreachable = |detail: String| Error::Unreachable {
        part: format!("kafka at {}", pipeline.kafka.brokers),
        detail,
        remedy: "correct `kafka.brokers` and `kafka.settings`, or start it; --offline leaves it out".to_owned(),
    };
    let consumer: BaseConsumer<Complaints> = match connect::kafka(pipeline).create_with_context(Complaints::default()) {
        Ok(consumer) => consumer,
        Err(error) => return found.errors.push(unreachable(error.to_string())),
    };
    let metadata = match consumer.fetch_metadata(None, ANSWER_WITHIN) {
        Ok(metadata) => metadata,
        Err(error) => return found.errors.push(unreachable(why(&consumer, &error))),
    };
    for (name, source) in &pipeline.sources {
        for topic in source.topics.iter().filter(|topic| !metadata.topics().iter().any(|known| known.name() == **topic))
        {
            found.errors.push(Error::Unreachable {
                part: format!("kafka at {}", pipeline.kafka.brokers),
                detail: format!("source `{name}`: there is no topic `{topic}`"),
                remedy: "make the topic, or correct `topics`".to_owned(),
            });
        }
    }
}
