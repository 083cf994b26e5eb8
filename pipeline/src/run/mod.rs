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

use std::sync::Arc;
use std::time::Duration;

use weir_operators::state::StoreOptions;
use weir_operators::window::Windows;
use weir_schemas::registry::SchemaCache;
use weir_schemas::time::Span;
use weir_sinks::clickhouse::Layout;
use weir_sinks::kafka::{Cleanup, create_topic};

use crate::archive::Archiving;
use crate::bind::{Bound, BoundSource, bind};
use crate::config::{Pipeline, Source};
use crate::connect;
use crate::console::Console;
use crate::custom::OperatorRegistry;
use crate::engine::{Destination, Inputs, Plan, Running, SourcePlan, Summary, execute};
use crate::error::Error;
use crate::lineage;
use crate::lineage::openlineage::{self, Emission, Graph, Uses, targets_of};
use crate::progress::Watched;
use crate::readers::{self, KeptReader, Readers};
use crate::recovery::{self, Fingerprint};
use crate::source::attend::News;
use crate::source::kafka::KafkaLog;
use destinations::{tables_of, topics_of};
use fingerprint::{add_what_decides, fingerprint};
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
    let mut assembly = Assembly::of(file, pipeline, &readers, operators)?;
    if running.slice.is_some() {
        add_what_decides(&mut assembly.fingerprint, pipeline, &assembly.bound);
    }
    recovery::hold(&pipeline.state, &assembly.fingerprint)?;
    let applied = runtime.block_on(assembly.layout.apply(&client));
    for statement in applied.map_err(|error| connect::first_contact(pipeline, error))? {
        tracing::info!(statement, "changed a table");
    }
    let mut destinations = tables_of(pipeline, &assembly.layout, &client);
    destinations.extend(runtime.block_on(topics_of(pipeline, &registry))?);
    // What the registry says of the subjects is no news to who reads something else.
    let (inputs, is_live) = match running.inputs.clone() {
        Some(inputs) => (inputs, false),
        None => {
            let schemas = SchemaCache::new(registry.clone(), runtime.handle().clone());
            (Inputs { log: Arc::new(KafkaLog::new(pipeline)), schemas }, true)
        }
    };
    if is_live {
        for topic in pipeline.sources.values().filter_map(|source| source.retry_topic.as_ref()) {
            let kafka = connect::kafka(pipeline);
            runtime.block_on(create_topic(&kafka, topic, Cleanup::Delete)).map_err(weir_sinks::Error::from)?;
        }
    }
    let news = |config: &Source, source: &BoundSource, kept: &KeptReader| -> News {
        if !is_live {
            return Box::new(Vec::new);
        }
        let unreadable = runtime.block_on(unreadable(config, source, kept, &registry));
        schema_news(config, source, kept, unreadable, &registry, runtime.handle())
    };
    // What is read from elsewhere isn't the log that is archived.
    let archiving = if is_live { Archiving::of(pipeline, &registry, runtime.handle())? } else { None };
    let sources = assembly.sources(&inputs, news, running)?;
    let console = Console::of(pipeline, &assembly.bound, &client, running.replays.clone());
    execute(Plan { archiving, console, ..assembly.plan(sources, destinations, inputs, running)? }, running)
}

/// Runs the pipeline of `file` apart from everything that it names: it reads `running.inputs`, with these reader schemas,
/// and its rows go where `destinations` says, which is given the tables that they are for.
///
/// # Errors
/// What is wrong with the file, its schemas or its state, or what failed first while it ran.
pub fn run_apart(
    file: &str,
    pipeline: &Pipeline,
    readers: &Readers,
    operators: &OperatorRegistry,
    destinations: impl FnOnce(&Layout) -> Vec<Destination>,
    running: &Running,
) -> Result<Summary, Error> {
    let Some(inputs) = running.inputs.clone() else {
        return Err(Error::Stopped("a run apart has no log to read: this is a bug".to_owned()));
    };
    let assembly = Assembly::of(file, pipeline, readers, operators)?;
    let destinations = destinations(&assembly.layout);
    let sources = assembly.sources(&inputs, |_, _, _| Box::new(Vec::new), running)?;
    execute(assembly.plan(sources, destinations, inputs, running)?, running)
}

/// A pipeline file, understood.
struct Assembly<'a> {
    pipeline: &'a Pipeline,
    readers: &'a Readers,
    bound: Bound,
    custom: Vec<Described>,
    layout: Layout,
    fingerprint: Fingerprint,
}

impl<'a> Assembly<'a> {
    fn of(
        file: &str,
        pipeline: &'a Pipeline,
        readers: &'a Readers,
        operators: &OperatorRegistry,
    ) -> Result<Assembly<'a>, Error> {
        let bound = bind(file, pipeline, &readers.schemas).map_err(Error::Config)?;
        let custom = describe(file, pipeline, &bound, operators)?;
        let fingerprint = fingerprint(pipeline, &bound, readers);
        let layout = layout_of(pipeline, &bound, &custom);
        Ok(Assembly { pipeline, readers, bound, custom, layout, fingerprint })
    }

    /// The sources, which read `inputs`; `news` makes what is told of each beside what the log itself tells.
    fn sources(
        &self,
        inputs: &Inputs,
        news: impl Fn(&Source, &BoundSource, &KeptReader) -> News,
        running: &Running,
    ) -> Result<Vec<SourcePlan>, Error> {
        let pipeline = self.pipeline;
        let mut sources = Vec::new();
        for source in &self.bound.sources {
            let kept = self.readers.kept.get(&source.name);
            let (Some(config), Some(kept)) = (pipeline.sources.get(&source.name), kept) else { continue };
            sources.push(SourcePlan {
                name: source.name.clone(),
                topics: config.all_topics(),
                retry_topic: config.retry_topic.clone(),
                prepare: opener(pipeline, config, source, inputs.clone(), news(config, source, kept), running)?,
                graph: graph_of(pipeline, config, source, &self.bound, &self.custom, running.slice.as_deref()),
            });
        }
        Ok(sources)
    }

    fn plan(
        self,
        sources: Vec<SourcePlan>,
        destinations: Vec<Destination>,
        inputs: Inputs,
        running: &Running,
    ) -> Result<Plan, Error> {
        let Assembly { pipeline, readers, bound, custom, layout, fingerprint } = self;
        Ok(Plan {
            name: pipeline.name.clone(),
            state: pipeline.state.clone(),
            store: StoreOptions::default(),
            workers: pipeline.workers,
            epoch: Duration::from_millis(pipeline.epoch_ms),
            in_flight_bytes: pipeline.in_flight_bytes,
            outbox_bytes: pipeline.outbox_bytes,
            http: pipeline.http.clone(),
            fingerprint,
            version: lineage::version_of(pipeline, &bound, readers),
            sources,
            destinations,
            watched: watched(pipeline, &bound)?,
            samples: samples_of(pipeline, &bound, inputs, running),
            emission: emission(pipeline, &bound, &layout, &custom)?,
            archiving: None,
            console: None,
        })
    }
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
