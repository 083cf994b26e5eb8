//! `weir check`: what is wrong, what will be computed, which tables will be made.

use std::path::Path;

use rdkafka::consumer::{BaseConsumer, Consumer};
use weir_pipeline::bind::{Bound, bind};
use weir_pipeline::config::Pipeline;
use weir_pipeline::config::load::load;
use weir_pipeline::problem::Problem;
use weir_pipeline::{connect, run, sql};
use weir_schemas::avro::{Schema, can_read};
use weir_schemas::registry::{Lookup, Registry};

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
    let readers = match runtime.block_on(connect::readers(&pipeline, asked)) {
        Ok(readers) => readers,
        Err(problems) => return Outcome::problems(&problems),
    };
    let name = file.display().to_string();
    let bound = match bind(&name, &pipeline, &readers) {
        Ok(bound) => bound,
        Err(problems) => return Outcome::problems(&problems),
    };
    let layout = match run::layout(&name, &pipeline, &bound, operators) {
        Ok(layout) => layout,
        Err(error) => return Outcome::of_error(&error),
    };
    print_plan(&bound);
    println!("{}", paint::bold("tables"));
    match layout.create(&pipeline.clickhouse.database) {
        Ok(statements) => statements.iter().for_each(|statement| println!("{statement};\n")),
        Err(error) => return Outcome::refused(error.to_string(), "rename the column in the SELECT"),
    }
    let mut problems = Vec::new();
    if !offline {
        runtime.block_on(check_registry(&pipeline, &bound, &registry, &mut problems));
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

fn print_plan(bound: &Bound) {
    for source in &bound.sources {
        println!("{} {}", paint::bold("source"), source.name);
        let mut table = paint::table(&["  column", "type", "read"]);
        for (column, wanted) in source.reader.columns.iter().zip(&source.wanted) {
            let read = if *wanted { "yes" } else { "no" };
            table.add_row([&format!("  {}", column.name), &column.column_type.to_string(), read]);
        }
        println!("{table}\n");
    }
    for view in &bound.views {
        println!("{}", sql::render(&view.plan));
    }
}

/// Whether every schema that the subject has can be read.
async fn check_registry(pipeline: &Pipeline, bound: &Bound, registry: &Registry, problems: &mut Vec<Problem>) {
    for source in &bound.sources {
        let Some(config) = pipeline.sources.get(&source.name) else { continue };
        let subject = connect::subject_of(config);
        let place = format!("subject {subject}");
        let writer: std::sync::Arc<Schema> = match registry.latest(&subject).await {
            Lookup::Found(found) => found.schema,
            Lookup::Unknown => continue,
            Lookup::Unusable(why) | Lookup::Unavailable(why) | Lookup::Refused(why) => {
                problems.push(Problem::of_file(
                    &place,
                    why,
                    "correct [registry], or start it; --offline leaves it out",
                ));
                continue;
            }
        };
        if let Err(found) = can_read(source.reader.schema(), &writer) {
            problems.extend(found.iter().map(|incompatibility| {
                Problem::of_file(
                    &place,
                    format!("source `{}` can't read its newest schema: {incompatibility}", source.name),
                    "change the reader schema: give the field a default, or the type that was written",
                )
            }));
        }
    }
}

/// Whether the topics are there.
fn check_topics(file: &str, pipeline: &Pipeline, problems: &mut Vec<Problem>) {
    let consumer: BaseConsumer = match connect::kafka(pipeline).create() {
        Ok(consumer) => consumer,
        Err(error) => {
            problems.push(Problem::of_file(file, format!("[kafka]: {error}"), "correct `brokers` and `settings`"));
            return;
        }
    };
    let metadata = match consumer.fetch_metadata(None, ANSWER_WITHIN) {
        Ok(metadata) => metadata,
        Err(error) => {
            let message = format!("kafka at {} doesn't answer: {error}", pipeline.kafka.brokers);
            problems.push(Problem::of_file(file, message, "correct `brokers`, or start it; --offline leaves it out"));
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
