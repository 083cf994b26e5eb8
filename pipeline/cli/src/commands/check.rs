//! `weir check`: what is wrong, what will be computed, which tables will be made.

use std::path::Path;

use rdkafka::consumer::{BaseConsumer, Consumer};
use weir_pipeline::bind::{Bound, bind};
use weir_pipeline::complaints::{Complaints, why};
use weir_pipeline::config::Pipeline;
use weir_pipeline::config::load::load;
use weir_pipeline::problem::Problem;
use weir_pipeline::readers::{self, Readers};
use weir_pipeline::rules::describe_table;
use weir_pipeline::{connect, run, sql};
use weir_schemas::registry::Registry;

use crate::{OperatorRegistry, Outcome, counted, paint, runtime};

/// How long the broker may take to answer.
const ANSWER_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// Checks the pipeline of `file`; with `offline` nothing is asked over the network.
pub(crate) fn run(file: &Path, offline: bool, operators: &OperatorRegistry) -> Outcome {
    let pipeline = match load(file) {
        Ok(pipeline) => pipeline,
        Err(problems) => return Outcome::problems(&problems),
    };
    let registry = match connect::registry(&pipeline) {
        Ok(registry) => registry,
        Err(error) => return Outcome::of_error(&error),
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(outcome) => return outcome,
    };
    let asked = (!offline).then_some(&registry);
    let readers = match runtime.block_on(readers::choose(&pipeline, asked)) {
        Ok(readers) => readers,
        Err(error) => return Outcome::of_error(&error),
    };
    let name = file.display().to_string();
    let bound = match bind(&name, &pipeline, &readers.schemas) {
        Ok(bound) => bound,
        Err(problems) => return Outcome::problems(&problems),
    };
    let layout = match run::layout(&name, &pipeline, &bound, operators) {
        Ok(layout) => layout,
        Err(error) => return Outcome::of_error(&error),
    };
    print_plan(&pipeline, &bound);
    println!("{}", paint::bold("tables"));
    match layout.create(&pipeline.clickhouse.database) {
        Ok(statements) => statements.iter().for_each(|statement| println!("{statement};\n")),
        Err(error) => return Outcome::refused(error.to_string(), "rename the column in the SELECT"),
    }
    let mut problems = Vec::new();
    if !offline {
        runtime.block_on(check_subjects(&pipeline, &bound, &readers, &registry, &mut problems));
        check_topics(&name, &pipeline, &mut problems);
        let needed = connect::clickhouse(&pipeline).and_then(|client| Ok(runtime.block_on(layout.needed(&client))?));
        if let Err(error) = needed {
            problems.push(Problem::of_file(&name, error.to_string(), "correct [clickhouse], or start it"));
        }
    }
    if !problems.is_empty() {
        return Outcome::problems(&problems);
    }
    let sources = counted(bound.sources.len(), "source");
    println!("{} {sources}, {}", paint::good("fine:"), counted(bound.views.len(), "view"));
    Outcome::done()
}

fn print_plan(pipeline: &Pipeline, bound: &Bound) {
    for source in &bound.sources {
        println!("{} {}", paint::bold("source"), source.name);
        let mut table = paint::table(&["  column", "type", "read"]);
        for (column, wanted) in source.reader.columns.iter().zip(&source.wanted) {
            let read = if *wanted { "yes" } else { "no" };
            table.add_row([&format!("  {}", column.name), &column.column_type.to_string(), read]);
        }
        println!("{table}\n");
    }
    print_rules(pipeline, bound);
    for view in &bound.views {
        println!("{}", sql::render(&view.plan));
    }
}

/// The rules with the conditions that they stand for, and what the tables hold that they look values up in.
fn print_rules(pipeline: &Pipeline, bound: &Bound) {
    let rules = || bound.sources.iter().flat_map(|source| source.contract.rules.iter().map(move |rule| (source, rule)));
    if rules().next().is_none() {
        return;
    }
    println!("{}", paint::bold("rules"));
    for (source, rule) in rules() {
        let owner = if rule.owner.is_empty() { String::new() } else { format!(", owner {}", rule.owner) };
        println!("  {} of {}: {}, {}{owner}", rule.id, source.name, rule.mode.name(), rule.severity.name());
        if !rule.when.is_empty() {
            println!("    when      {}", rule.when);
        }
        println!("    requires  {}\n", rule.expected);
    }
    for (id, table) in pipeline.quality.rules.iter().filter_map(|(id, rule)| Some((id, rule.in_table.as_ref()?))) {
        println!("  {id}: {}\n", describe_table(table, &bound.tables));
    }
}

/// Whether every version that the sources' subjects have can be read; says where a newer one than the reader is there.
async fn check_subjects(
    pipeline: &Pipeline,
    bound: &Bound,
    readers: &Readers,
    registry: &Registry,
    problems: &mut Vec<Problem>,
) {
    for source in &bound.sources {
        let (Some(config), Some(kept)) = (pipeline.sources.get(&source.name), readers.kept.get(&source.name)) else {
            continue;
        };
        let place = format!("subject {}", readers::subject_of(config));
        match readers::compare(&source.name, config, &source.reader, kept, registry).await {
            Ok(found) => {
                if let Some(newer) = found.newer {
                    println!("{} {newer}\n", paint::bold("note:"));
                }
                let remedy = "change the reader schema: give the field a default, or the type that was written; where no \
                              record of that version is left, delete the version from the subject";
                problems.extend(found.unreadable.iter().map(|what| Problem::of_file(&place, what, remedy)));
            }
            Err(error) => {
                let remedy = "correct [registry], or start it; --offline leaves it out";
                problems.push(Problem::of_file(&place, error.to_string(), remedy));
            }
        }
    }
}

/// Whether the topics are there.
fn check_topics(file: &str, pipeline: &Pipeline, problems: &mut Vec<Problem>) {
    let consumer: BaseConsumer<Complaints> = match connect::kafka(pipeline).create_with_context(Complaints::default()) {
        Ok(consumer) => consumer,
        Err(error) => {
            problems.push(Problem::of_file(file, format!("[kafka]: {error}"), "correct `brokers` and `settings`"));
            return;
        }
    };
    let metadata = match consumer.fetch_metadata(None, ANSWER_WITHIN) {
        Ok(metadata) => metadata,
        Err(error) => {
            let why = why(&consumer, &error);
            let message = format!("kafka at {} doesn't answer: {why}", pipeline.kafka.brokers);
            let remedy = "correct `brokers` and `settings`, or start it; --offline leaves it out";
            problems.push(Problem::of_file(file, message, remedy));
            return;
        }
    };
    for (name, source) in &pipeline.sources {
        for topic in source.topics.iter().filter(|topic| !metadata.topics().iter().any(|found| found.name() == **topic))
        {
            problems.push(Problem::of_file(
                file,
                format!("source `{name}`: there is no topic `{topic}`"),
                "make the topic, or correct `topics`",
            ));
        }
    }
}
