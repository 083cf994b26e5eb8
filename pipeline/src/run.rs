//! Running a pipeline file: from what it says to an engine's plan, with real sources and real sinks.
//!
//! Steps: connect, take the reader schemas, bind, lay out the tables, open the logs where the state left them, execute.
//! [`layout`] is the pure part that `check` prints as well.
//!
//! Not here: any thread or order of steps while it runs (`engine`), and the graph (`dataflow`).

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use sqlparser::dialect::ClickHouseDialect;
use sqlparser::parser::Parser;
use weir_operators::account::{TopicNames, ledger_table};
use weir_operators::deduplicate::Deduplication;
use weir_operators::detect::{SenderColumns, Thresholds};
use weir_operators::maintain::{Keeping, view_table};
use weir_operators::record::events_table;
use weir_operators::state::StoreOptions;
use weir_operators::view::{Output, ViewPlan};
use weir_operators::window::Windows;
use weir_schemas::place::TopicId;
use weir_schemas::registry::{Registry, SchemaCache};
use weir_schemas::rows::Table;
use weir_schemas::stage::{Column, event_schema, system};
use weir_schemas::tables;
use weir_schemas::time::{EventTime, Span};
use weir_sinks::clickhouse::{Client, Layout, TableEncoder, TableSink, ViewTable};
use weir_sinks::kafka::{AlertEncoder, QuarantineEncoder, TopicSettings, TopicSink, alert};
use weir_sinks::{Deliver, Encode};

use crate::bind::{Bound, BoundSource, BoundView, bind};
use crate::config::{self, Pipeline};
use crate::connect;
use crate::custom::{CustomOperator, OperatorRegistry};
use crate::dataflow::SourceGraph;
use crate::deliver::LaneKind;
use crate::engine::{Destination, OpenSource, Plan, PrepareSource, Resume, Running, SourcePlan, Summary, execute};
use crate::error::Error;
use crate::problem::{Problem, nearest};
use crate::progress::Watched;
use crate::recovery::{self, Fingerprint, Part};
use crate::source::Source;
use crate::source::fetch::{Assigned, Fetcher, consumer_config};
use crate::source::open::{self, Start};
use crate::source::stream::{self, StreamSource};

/// Partitions of a topic that Weir makes.
const TOPIC_PARTITIONS: i32 = 1;

/// How long a broker may take to answer one question at start.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

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
    let readers = runtime.block_on(connect::readers(pipeline, Some(&registry))).map_err(Error::Config)?;
    let bound = bind(file, pipeline, &readers).map_err(Error::Config)?;
    let custom = describe(file, pipeline, &bound, operators)?;
    let layout = layout_of(pipeline, &bound, &custom);
    for statement in runtime.block_on(layout.apply(&client))? {
        tracing::info!(statement, "changed a table");
    }
    let mut destinations = tables_of(pipeline, &layout, &client);
    destinations.extend(runtime.block_on(topics_of(pipeline, &registry))?);

    let schemas = SchemaCache::new(registry, runtime.handle().clone());
    let mut sources = Vec::new();
    for source in &bound.sources {
        let Some(config) = pipeline.sources.get(&source.name) else { continue };
        sources.push(SourcePlan {
            name: source.name.clone(),
            topics: config.topics.clone(),
            prepare: opener(pipeline, config, source, schemas.clone(), running)?,
            graph: graph_of(pipeline, config, source, &bound, &custom),
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
        fingerprint: fingerprint(pipeline, &bound),
        sources,
        destinations,
        watched: watched(pipeline, &bound)?,
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

/// A use of a custom operator: its name and its source in the pipeline file, and what it is.
struct Described {
    name: String,
    source: String,
    operator: CustomOperator,
}

fn describe(
    file: &str,
    pipeline: &Pipeline,
    bound: &Bound,
    operators: &OperatorRegistry,
) -> Result<Vec<Described>, Error> {
    let (mut described, mut problems) = (Vec::new(), Vec::new());
    for (name, custom) in &pipeline.operators {
        let Some(describe) = operators.get(&custom.uses) else {
            let remedy = match nearest(&custom.uses, operators.names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "register it in the program's `main`, or run the program that does".to_owned(),
            };
            let message = format!("operator `{name}` uses `{}`, which this program doesn't know", custom.uses);
            problems.push(Problem::of_file(file, message, remedy));
            continue;
        };
        let columns = bound.source(&custom.source).map(|source| source.columns.as_slice()).unwrap_or_default();
        match describe(&custom.settings, columns) {
            Ok(operator) => {
                described.push(Described { name: name.clone(), source: custom.source.clone(), operator });
            }
            Err(message) => problems.push(Problem::of_file(
                file,
                format!("operator `{name}`: {message}"),
                "correct its `settings`, or the source that it names",
            )),
        }
    }
    if problems.is_empty() { Ok(described) } else { Err(Error::Config(problems)) }
}

fn layout_of(pipeline: &Pipeline, bound: &Bound, custom: &[Described]) -> Layout {
    let mut plain = vec![tables::progress(), tables::judgements(), tables::quarantine(None), ledger_table()];
    if pipeline.alerts.refused_share.is_some() {
        plain.extend([tables::alerts(), tables::alerts_history()]);
    }
    for source in &bound.sources {
        plain.extend(kept_events(pipeline, source));
    }
    plain.extend(custom.iter().flat_map(|described| described.operator.tables.clone()));
    Layout { tables: plain, views: bound.views.iter().map(table_of).collect() }
}

/// The table of a source's accepted events, where they are kept.
fn kept_events(pipeline: &Pipeline, source: &BoundSource) -> Option<Table> {
    let days = pipeline.sources.get(&source.name)?.keep_events_days?;
    Some(events_table(&source.name, &source.columns, Some(days)))
}

/// A view's table, and where the SELECT's columns stand in it.
fn table_of(view: &BoundView) -> ViewTable {
    let plan = &view.plan;
    let place = |output: &Output| match *output {
        Output::Window => 0,
        Output::Dimension(at) => 1 + at,
        Output::Measure(at) => 1 + plan.dimensions.len() + at,
    };
    ViewTable {
        table: view_table(plan, view.config.retention_days),
        select: plan.outputs.iter().map(place).collect(),
        window: 0,
        zone: plan.window.zone.clone(),
    }
}

/// The destinations in ClickHouse.
fn tables_of(pipeline: &Pipeline, layout: &Layout, client: &Client) -> Vec<Destination> {
    let all = layout.tables.iter().chain(layout.views.iter().map(|view| &view.table));
    let destination = |table: &Table| Destination {
        name: table.name.to_string(),
        tables: vec![table.name.clone()],
        encode: Arc::new(TableEncoder::new(table.clone())) as Arc<dyn Encode>,
        sink: Box::new(TableSink::new(client.clone(), table)) as Box<dyn Deliver>,
        every: Duration::from_millis(pipeline.clickhouse.insert_every_ms),
        kind: if *table.name == *tables::PROGRESS { LaneKind::Progress } else { LaneKind::Table },
    };
    all.map(destination).collect()
}

/// The destinations in Kafka.
async fn topics_of(pipeline: &Pipeline, registry: &Registry) -> Result<Vec<Destination>, Error> {
    let mut destinations = Vec::new();
    let mut add = |table: &'static str, topic: &str, encode: Arc<dyn Encode>| {
        let name = format!("topic {topic}");
        let settings = TopicSettings {
            client: connect::kafka(pipeline),
            topic: topic.to_owned(),
            transactional_id: format!("{}/{topic}", pipeline.name),
            partitions: TOPIC_PARTITIONS,
            topic_settings: Default::default(),
        };
        destinations.push(Destination {
            name,
            tables: vec![Arc::from(table)],
            encode,
            sink: Box::new(TopicSink::new(settings)),
            every: Duration::ZERO,
            kind: LaneKind::Topic,
        });
    };
    if let Some(topic) = &pipeline.quality.quarantine_topic {
        add(tables::QUARANTINE, topic, Arc::new(QuarantineEncoder));
    }
    if let Some(topic) = pipeline.alerts.topic.as_ref().filter(|_| pipeline.alerts.refused_share.is_some()) {
        let subject = format!("{topic}-value");
        let id = registry.register(&subject, alert::SCHEMA).await.map_err(|error| Error::Unreachable {
            part: format!("registry at {}", pipeline.registry.url),
            detail: format!("the schema of alerts can't be registered as {subject}: {error}"),
            remedy: "check [registry] and the subject's compatibility, or leave `alerts.topic` out".to_owned(),
        })?;
        add(tables::ALERTS_HISTORY, topic, Arc::new(AlertEncoder::new(id)));
    }
    Ok(destinations)
}

/// What opens a source's shares, once the state says where.
fn opener(
    pipeline: &Pipeline,
    config: &config::Source,
    source: &BoundSource,
    schemas: SchemaCache,
    running: &Running,
) -> Result<PrepareSource, Error> {
    let base = connect::kafka(pipeline);
    let group = format!("weir-{}-{}", pipeline.name, source.name);
    let (brokers, until_end, clock) = (pipeline.kafka.brokers.clone(), running.until_end, running.clock.clone());
    let start = Start::parse(&config.start).ok_or_else(|| {
        Error::Config(vec![Problem::of_file(
            "the pipeline file",
            format!("source `{}`: start = {:?} is no word and no time", source.name, config.start),
            "write earliest, latest, or a time such as 2026-01-31T00:00:00Z",
        )])
    })?;
    let names = config.topics.clone();
    // Half of what may be in flight may wait in librdkafka's queues besides, shared by the workers.
    let queue_bytes = pipeline.in_flight_bytes / 2 / pipeline.workers.max(1) as u64;
    let plan = stream::Plan {
        name: source.name.clone(),
        contract: source.contract.clone(),
        reader: source.reader.clone(),
        wanted: source.wanted.clone(),
        grace_ms: pipeline.registry.grace_ms,
        align_within: span(config.align_within_ms),
        greatest: AtomicI64::new(i64::MIN),
        last_record_at_ms: AtomicI64::new(clock.now_ms()),
        told: EventTime::MIN,
    };
    Ok(Box::new(move |resume: Resume| {
        let consumer: BaseConsumer = base.create().map_err(|error| unreachable_broker(&brokers, &error))?;
        let topics: Vec<(TopicId, String)> =
            names.iter().filter_map(|name| Some((number_of(&resume.topics, name)?, name.clone()))).collect();
        let committed: Vec<_> = resume.positions.values().cloned().collect();
        let resumes = open::open(&consumer, &brokers, &topics, &committed, start, until_end)?;
        for of in &resumes {
            let (topic, number) = (of.partition.topic.0, of.partition.number);
            let (first, _) = consumer
                .fetch_watermarks(&of.topic, number, ANSWER_WITHIN)
                .map_err(|error| unreachable_broker(&brokers, &error))?;
            recovery::forget_marks(&resume.store, topic, number, first)?;
        }
        let plan = Arc::new(stream::Plan { told: resume.told, ..plan });
        Ok(Arc::new(move |worker: usize, peers: usize| {
            let share = open::share(&resumes, worker, peers);
            let assigned: Vec<Assigned> = share
                .iter()
                .map(|of| Assigned { topic: of.topic.clone(), partition: of.partition.number, offset: of.offset })
                .collect();
            let config = consumer_config(&base, &group, queue_bytes);
            let fetcher = Fetcher::new(&config, &assigned).map_err(|error| unreachable_broker(&brokers, &error))?;
            let source = StreamSource::new(plan.clone(), schemas.clone(), fetcher, share, clock.now_ms());
            Ok(Box::new(source) as Box<dyn Source>)
        }) as OpenSource)
    }))
}

fn number_of(topics: &[String], name: &str) -> Option<TopicId> {
    let at = topics.iter().position(|topic| topic == name)?;
    u16::try_from(at).ok().map(TopicId)
}

fn unreachable_broker(brokers: &str, error: &rdkafka::error::KafkaError) -> Error {
    Error::Unreachable {
        part: format!("kafka at {brokers}"),
        detail: error.to_string(),
        remedy: "check `kafka.brokers` and `kafka.settings`, and that the broker is up".to_owned(),
    }
}

/// What follows a source, once the topics have their numbers.
fn graph_of(
    pipeline: &Pipeline,
    config: &config::Source,
    source: &BoundSource,
    bound: &Bound,
    custom: &[Described],
) -> Box<dyn FnOnce(Vec<TopicNames>) -> SourceGraph> {
    let index = |field: &Option<String>| field.as_deref().and_then(|field| column_of(&source.columns, field));
    let allowed_lateness = span(config.allowed_lateness_ms);
    let tenant = index(&config.tenant);
    let keeping =
        |view: &BoundView| Keeping { provisional: view.config.provisional, allowed_lateness, memory_bytes: 0 };
    let views = bound.views.iter().filter(|view| view.plan.source == source.name);
    let graph = SourceGraph {
        name: source.name.clone(),
        schema: event_schema(&source.columns),
        topics: Vec::new(),
        tenant,
        deduplicate: index(&config.event_id).map(|id| {
            let horizon = span(config.dedup_horizon_ms);
            (id, Deduplication { tenant, allowed_lateness, horizon, memory_bytes: 0 })
        }),
        keep_events: kept_events(pipeline, source),
        views: views.map(|view| (Arc::new(view.plan.clone()), keeping(view))).collect(),
        detect: pipeline.alerts.refused_share.as_ref().map(|detector| {
            let columns = SenderColumns {
                tenant,
                sdk: index(&config.release.sdk),
                sdk_version: index(&config.release.sdk_version),
                app_version: index(&config.release.app_version),
            };
            let thresholds = Thresholds {
                source: source.name.clone(),
                open_at: detector.open_at,
                resolve_below: detector.resolve_below,
                min_records: detector.min_records,
                window: span(detector.window_ms),
                settle: allowed_lateness,
            };
            (columns, thresholds)
        }),
        custom: custom
            .iter()
            .filter(|described| described.source == source.name)
            .map(|described| (described.name.clone(), described.operator.clone()))
            .collect(),
    };
    Box::new(move |topics| SourceGraph { topics, ..graph })
}

/// A column's index in a batch of events.
fn column_of(columns: &[Column], field: &str) -> Option<usize> {
    columns.iter().position(|column| column.name == field).map(|at| at + system::COUNT)
}

fn span(ms: u64) -> Span {
    Span::from_ms(i64::try_from(ms).unwrap_or(i64::MAX))
}

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

/// What the state depends on. A view's query counts as its parsed form prints it, so that space and comments may change.
fn fingerprint(pipeline: &Pipeline, bound: &Bound) -> Fingerprint {
    let mut fingerprint = Fingerprint { pipeline: pipeline.name.clone(), ..Fingerprint::default() };
    let or_none = |field: &Option<String>| field.clone().unwrap_or_else(|| "nothing".to_owned());
    for source in &bound.sources {
        let Some(config) = pipeline.sources.get(&source.name) else { continue };
        let mut part = Part::default();
        for (fact, value) in [
            ("event_time", config.event_time.clone()),
            ("event_id", or_none(&config.event_id)),
            ("tenant", or_none(&config.tenant)),
            ("allowed_lateness_ms", config.allowed_lateness_ms.to_string()),
            ("dedup_horizon_ms", config.dedup_horizon_ms.to_string()),
        ] {
            part.facts.insert(fact.to_owned(), value);
        }
        for topic in &config.topics {
            part.facts.insert(format!("topic {topic}"), "read".to_owned());
        }
        for column in &source.reader.columns {
            part.facts.insert(format!("column {}", column.name), column.column_type.to_string());
        }
        fingerprint.parts.insert(format!("source {}", source.name), part);
    }
    for view in &bound.views {
        let mut part = Part { loses_by_absence: true, ..Part::default() };
        part.facts.insert("query".to_owned(), canonical(&view.text, &view.plan));
        fingerprint.parts.insert(format!("view {}", view.plan.name), part);
    }
    for (name, custom) in &pipeline.operators {
        let mut part = Part { loses_by_absence: true, ..Part::default() };
        part.facts.insert("uses".to_owned(), custom.uses.clone());
        part.facts.insert("source".to_owned(), custom.source.clone());
        fingerprint.parts.insert(format!("operator {name}"), part);
    }
    if let Some(detector) = &pipeline.alerts.refused_share {
        let mut part = Part { loses_by_absence: false, ..Part::default() };
        part.facts.insert("window_ms".to_owned(), detector.window_ms.to_string());
        fingerprint.parts.insert("detector refused_share".to_owned(), part);
    }
    fingerprint
}

fn canonical(text: &str, plan: &ViewPlan) -> String {
    match Parser::parse_sql(&ClickHouseDialect {}, text) {
        Ok(statements) => statements.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        // The planner took it, so the parser does; the plan's source alone still tells two views apart.
        Err(_) => format!("{} over {}", text.trim(), plan.source),
    }
}
