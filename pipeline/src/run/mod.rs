//! Running a pipeline file: from what it says to an engine's plan, with real sources and real sinks.
//!
//! Steps: connect, take the reader schemas, bind, hold it to the state, lay out the tables, open the logs where the state
//! left them, execute.
//! [`layout`] is the pure part that `check` prints as well.
//!
//! Not here: any thread or order of steps while it runs (`engine`), and the graph (`dataflow`).

mod destinations;
mod fingerprint;
mod operators;
mod sources;
mod tables;

use std::time::Duration;

use weir_operators::state::StoreOptions;
use weir_operators::window::Windows;
use weir_schemas::registry::SchemaCache;
use weir_schemas::time::Span;
use weir_sinks::clickhouse::Layout;
use weir_sinks::kafka::{Cleanup, create_topic};

use crate::bind::{Bound, bind};
use crate::config::Pipeline;
use crate::connect;
use crate::console::Console;
use crate::custom::OperatorRegistry;
use crate::engine::{Plan, Running, SourcePlan, Summary, execute};
use crate::error::Error;
use crate::lineage;
use crate::lineage::openlineage::{self, Emission, Graph, Uses, targets_of};
use crate::progress::Watched;
use crate::readers::{self, Readers};
use crate::recovery;
use destinations::{tables_of, topics_of};
use fingerprint::fingerprint;
use operators::{Described, describe};
use sources::{graph_of, opener, samples_of, schema_news, unreadable};
use tables::layout_of;

/// Runs the pipeline of `file` until it is at its end, is stopped, or fails.
///
/// # Errors
/// What is wrong with the file, its schemas or its state, which part can't be reached, or what failed first while it ran.
pub fn run(file: &str, pipeline: &Pipeline, operators: &OperatorRegistry, running: &Running) -> Result<Summary, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("registry")
        .enable_all()
        .build()
        .map_err(|error| Error::Worker { detail: format!("a thread for the registry: {error}") })?;
    let registry = connect::registry(pipeline)?;
    let client = connect::clickhouse(pipeline)?;
    let readers = runtime.block_on(readers::choose(pipeline, Some(&registry)))?;
    let bound = bind(file, pipeline, &readers.schemas).map_err(Error::Config)?;
    let custom = describe(file, pipeline, &bound, operators)?;
    let fingerprint = fingerprint(pipeline, &bound, &readers);
    recovery::hold(&pipeline.state, &fingerprint)?;
    let layout = layout_of(pipeline, &bound, &custom);
    for statement in runtime.block_on(layout.apply(&client)).map_err(|error| connect::first_contact(pipeline, error))? {
        tracing::info!(statement, "changed a table");
    }
    let mut destinations = tables_of(pipeline, &layout, &client);
    destinations.extend(runtime.block_on(topics_of(pipeline, &registry))?);

    let schemas = SchemaCache::new(registry.clone(), runtime.handle().clone());
    let mut sources = Vec::new();
    for source in &bound.sources {
        let (Some(config), Some(kept)) = (pipeline.sources.get(&source.name), readers.kept.get(&source.name)) else {
            continue;
        };
        if let Some(topic) = &config.retry_topic {
            let kafka = connect::kafka(pipeline);
            runtime.block_on(create_topic(&kafka, topic, Cleanup::Delete)).map_err(weir_sinks::Error::from)?;
        }
        let unreadable = runtime.block_on(unreadable(config, source, kept, &registry));
        let news = schema_news(config, source, kept, unreadable, &registry, runtime.handle());
        sources.push(SourcePlan {
            name: source.name.clone(),
            topics: config.all_topics(),
            retry_topic: config.retry_topic.clone(),
            prepare: opener(pipeline, config, source, schemas.clone(), news, running)?,
            graph: graph_of(pipeline, config, source, &bound, &custom, running.slice.as_deref()),
        });
    }
    let plan = Plan {
        name: pipeline.name.clone(),
        state: pipeline.state.clone(),
        store: StoreOptions::default(),
        workers: pipeline.workers,
        epoch: Duration::from_millis(pipeline.epoch_ms),
        in_flight_bytes: pipeline.in_flight_bytes,
        outbox_bytes: pipeline.outbox_bytes,
        http: pipeline.http.clone(),
        console: Console::of(pipeline, &bound, &client, running.replays.clone()),
        fingerprint,
        version: lineage::version_of(pipeline, &bound, &readers),
        sources,
        destinations,
        watched: watched(pipeline, &bound)?,
        samples: samples_of(pipeline, &bound, schemas, running),
        emission: emission(pipeline, &bound, &layout, &custom)?,
    };
    execute(plan, running)
}

/// The tables that a pipeline needs.
///
/// # Errors
/// [`Error::Config`] with every custom operator that isn't known or refuses its settings.
pub fn layout(file: &str, pipeline: &Pipeline, bound: &Bound, operators: &OperatorRegistry) -> Result<Layout, Error> {
    Ok(layout_of(pipeline, bound, &describe(file, pipeline, bound, operators)?))
}

/// What the pipeline reads and writes, as OpenLineage tells it.
///
/// # Errors
/// As [`layout`].
pub fn graph(file: &str, pipeline: &Pipeline, bound: &Bound, operators: &OperatorRegistry) -> Result<Graph, Error> {
    let custom = describe(file, pipeline, bound, operators)?;
    let layout = layout_of(pipeline, bound, &custom);
    Ok(graph_with(pipeline, bound, &layout, &custom))
}

fn graph_with(pipeline: &Pipeline, bound: &Bound, layout: &Layout, custom: &[Described]) -> Graph {
    let operators: Vec<Uses<'_>> =
        custom.iter().map(|of| Uses { name: &of.name, source: &of.source, tables: &of.operator.tables }).collect();
    openlineage::graph_of(pipeline, bound, layout, &operators)
}

/// What is told of a run, where the file names somebody to tell.
fn emission(
    pipeline: &Pipeline,
    bound: &Bound,
    layout: &Layout,
    custom: &[Described],
) -> Result<Option<Emission>, Error> {
    let targets = targets_of(pipeline)?;
    let every = Duration::from_millis(pipeline.lineage.every_ms);
    let graph = || graph_with(pipeline, bound, layout, custom);
    Ok((!targets.is_empty()).then(|| Emission { graph: graph(), every, targets }))
}

/// Whether the pipeline may go on from the state that it has; nothing is changed.
///
/// # Errors
/// [`Error::Changed`], which names what differs; a state that can't be read.
pub fn hold_to_state(pipeline: &Pipeline, bound: &Bound, readers: &Readers) -> Result<(), Error> {
    recovery::hold(&pipeline.state, &fingerprint(pipeline, bound, readers))
}

fn span(ms: u64) -> Span {
    Span::from_ms(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// The views whose completeness is told.
fn watched(pipeline: &Pipeline, bound: &Bound) -> Result<Vec<Watched>, Error> {
    let mut watched = Vec::new();
    for view in &bound.views {
        let plan = &view.plan;
        let source = bound.sources.iter().position(|source| source.name == plan.source);
        let (Some(source), Some(config)) = (source, pipeline.sources.get(&plan.source)) else { continue };
        watched.push(Watched {
            view: plan.name.clone(),
            source,
            windows: Windows::new(&plan.window)?,
            allowed_lateness: span(config.allowed_lateness_ms),
        });
    }
    Ok(watched)
}
