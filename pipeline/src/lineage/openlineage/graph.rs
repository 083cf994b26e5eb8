//! The graph: which job reads and writes which dataset, and what of it reaches which column.
//!
//! Pure: it is made of the pipeline file and the plans alone, so that it can be printed without running anything.

use weir_schemas::rows::Table;
use weir_schemas::stage::{Column, system};
use weir_schemas::tables;
use weir_schemas::types::ColumnType;
use weir_sinks::clickhouse::Layout;
use weir_sinks::clickhouse::reader::{IS_CLOSED, IS_FINAL, STATE_SUFFIX};

use super::columns::{Columns, How, of_view};
use super::names;
use crate::bind::{Bound, BoundSource, BoundView};
use crate::config::{self, Pipeline};
use crate::rules::is_sensitive;

/// The column of the event's time among the accepted events.
const EVENT_TIME: &str = "_event_time";

/// What a pipeline reads and writes.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The namespace of its jobs.
    pub namespace: String,
    /// Its name, which is that of the job above all others.
    pub pipeline: String,
    /// Seconds between two events of a running job.
    pub every_s: u64,
    /// The datasets.
    pub datasets: Vec<Dataset>,
    /// The jobs, which name datasets by their index.
    pub jobs: Vec<Job>,
}

/// A topic or a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// The namespace, which is also its address.
    pub namespace: String,
    /// The name in it.
    pub name: String,
    /// `TOPIC`, or `VIEW`: people read every table of Weir's through one.
    pub kind: &'static str,
    /// Its columns with their ClickHouse types and what is said of them; none where they aren't known.
    pub fields: Vec<(String, String, String)>,
    /// Fields whose values nobody may see: each with the path that the pipeline file names.
    pub sensitive: Vec<(String, String)>,
}

/// Something that reads datasets and writes others.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// The SELECT, where it is a view.
    pub sql: Option<String>,
    /// What it reads.
    pub inputs: Vec<usize>,
    /// What it writes.
    pub outputs: Vec<Written>,
}

/// A dataset that a job writes.
#[derive(Clone, Debug)]
pub struct Written {
    /// The dataset.
    pub dataset: usize,
    /// The destination whose deliveries are counted as its rows, if they are known apart.
    pub destination: Option<String>,
    /// What reaches its columns, each with the datasets whose fields are meant.
    pub columns: Vec<(Vec<usize>, Columns)>,
}

/// An operator of a team's own, and its tables.
#[derive(Clone, Copy, Debug)]
pub struct Uses<'a> {
    /// Its name in the pipeline file.
    pub name: &'a str,
    /// Its source.
    pub source: &'a str,
    /// Its tables.
    pub tables: &'a [Table],
}

/// The graph of a pipeline with these tables and operators.
pub fn graph_of(pipeline: &Pipeline, bound: &Bound, layout: &Layout, operators: &[Uses<'_>]) -> Graph {
    let mut building = Building {
        pipeline,
        layout,
        kafka: names::kafka(&pipeline.kafka.brokers),
        clickhouse: names::clickhouse(&pipeline.clickhouse.url),
        datasets: Vec::new(),
        jobs: Vec::new(),
    };
    let mut read: Vec<(&BoundSource, &config::Source, Vec<usize>)> = Vec::new();
    for source in &bound.sources {
        if let Some(config) = pipeline.sources.get(&source.name) {
            let topics = config.all_topics().iter().map(|topic| building.source_topic(topic, source, config)).collect();
            read.push((source, config, topics));
        }
    }
    for (source, config, topics) in &read {
        building.accepted(source, config, topics);
        for view in bound.views.iter().filter(|view| view.plan.source == source.name) {
            building.view(view, config, topics);
        }
        for uses in operators.iter().filter(|uses| uses.source == source.name) {
            building.operator(uses, topics);
        }
    }
    building.quarantine(&read);
    if pipeline.alerts.has_detector() {
        building.alerts(&read);
    }
    Graph {
        namespace: pipeline.lineage.namespace.clone(),
        pipeline: pipeline.name.clone(),
        every_s: pipeline.lineage.every_ms.div_ceil(1_000),
        datasets: building.datasets,
        jobs: building.jobs,
    }
}

type Read<'a> = (&'a BoundSource, &'a config::Source, Vec<usize>);

struct Building<'a> {
    pipeline: &'a Pipeline,
    layout: &'a Layout,
    kafka: String,
    clickhouse: String,
    datasets: Vec<Dataset>,
    jobs: Vec<Job>,
}

impl Building<'_> {
    fn add(&mut self, dataset: Dataset) -> usize {
        self.datasets.push(dataset);
        self.datasets.len() - 1
    }

    fn topic(&mut self, name: &str, fields: Vec<(String, String, String)>, sensitive: Vec<(String, String)>) -> usize {
        let namespace = self.kafka.clone();
        self.add(Dataset { namespace, name: name.to_owned(), kind: "TOPIC", fields, sensitive })
    }

    fn table(&mut self, name: &str, fields: Vec<(String, String, String)>, sensitive: Vec<(String, String)>) -> usize {
        let name = format!("{}.{name}", self.pipeline.clickhouse.database);
        let namespace = self.clickhouse.clone();
        self.add(Dataset { namespace, name, kind: "VIEW", fields, sensitive })
    }

    /// One of Weir's plain tables, if the pipeline has it.
    fn plain(&mut self, name: &str, columns: Vec<(Vec<usize>, Columns)>) -> Option<Written> {
        let table = self.layout.tables.iter().find(|table| *table.name == *name)?;
        let mut fields = fields_of(&table.columns);
        if name == tables::ALERTS {
            // The readers' view joins them.
            let of = |name: &str, of: &str| (name.to_owned(), of.to_owned(), String::new());
            fields.push(of("acknowledged_by", "String"));
            fields.push(of("acknowledged_at", "Nullable(DateTime64(6, 'UTC'))"));
        }
        let dataset = self.table(name, fields, Vec::new());
        Some(Written { dataset, destination: Some(name.to_owned()), columns })
    }

    /// A topic that Weir writes; `is_counted` where a destination of its own delivers to it.
    fn written_topic(&mut self, name: &str, is_counted: bool) -> Written {
        let dataset = self.topic(name, Vec::new(), Vec::new());
        Written { dataset, destination: is_counted.then(|| format!("topic {name}")), columns: Vec::new() }
    }

    fn source_topic(&mut self, topic: &str, source: &BoundSource, config: &config::Source) -> usize {
        let columns = &source.reader.columns;
        self.topic(topic, fields_of(columns), sensitive_of(config, columns))
    }

    fn job(&mut self, name: &str, sql: Option<String>, inputs: Vec<usize>, outputs: Vec<Written>) {
        self.jobs.push(Job { name: format!("{}.{name}", self.pipeline.name), sql, inputs, outputs });
    }

    /// The accepted events, where they are kept.
    fn accepted(&mut self, source: &BoundSource, config: &config::Source, topics: &[usize]) {
        let Some(table) = self.layout.tables.iter().find(|table| *table.name == *source.name) else { return };
        let (fields, sensitive) = (fields_of(&table.columns), sensitive_of(config, &source.columns));
        let mut columns = Columns::default();
        for column in &source.columns {
            columns.add(&column.name, &column.name, How::Identity, false);
        }
        columns.add(EVENT_TIME, &config.event_time, How::Identity, false);
        let written = Written {
            dataset: self.table(&source.name, fields, sensitive),
            destination: Some(source.name.clone()),
            columns: vec![(topics.to_vec(), columns)],
        };
        self.job(&source.name, None, topics.to_vec(), vec![written]);
    }

    fn view(&mut self, view: &BoundView, config: &config::Source, topics: &[usize]) {
        let plan = &view.plan;
        let columns = of_view(plan, &config.event_time);
        let mut fields = fields_of(&plan.columns());
        if let Some(of) = self.layout.views.iter().find(|of| *of.table.name == *plan.name) {
            let selected = |at: &usize| of.select.contains(at);
            let others = (0..of.table.columns.len()).filter(|at| !selected(at)).map(|at| of.table.columns[at].clone());
            fields.extend(fields_of(&others.collect::<Vec<_>>()));
            for column in of.table.columns.iter().filter(|of| matches!(of.column_type, ColumnType::AggregateState(_))) {
                let name = format!("{}{STATE_SUFFIX}", column.name);
                fields.push((name, column.column_type.to_string(), String::new()));
            }
        }
        for (name, told) in [
            (IS_CLOSED, "whether every event of the window that isn't late is in"),
            (IS_FINAL, "whether nothing can change the row by itself"),
        ] {
            fields.push((name.to_owned(), "Bool".to_owned(), told.to_owned()));
        }
        let dataset = self.table(&plan.name, fields, Vec::new());
        let destination = Some(plan.name.clone());
        let written = Written { dataset, destination, columns: vec![(topics.to_vec(), columns)] };
        self.job(&plan.name, Some(view.text.trim().to_owned()), topics.to_vec(), vec![written]);
    }

    /// What reaches the columns of an operator's tables, its code alone knows.
    fn operator(&mut self, uses: &Uses<'_>, topics: &[usize]) {
        let outputs = uses.tables.iter().map(|table| Written {
            dataset: self.table(&table.name, fields_of(&table.columns), Vec::new()),
            destination: Some(table.name.to_string()),
            columns: Vec::new(),
        });
        let outputs = outputs.collect();
        self.job(uses.name, None, topics.to_vec(), outputs);
    }

    fn quarantine(&mut self, read: &[Read<'_>]) {
        let of_all = || -> Vec<(Vec<usize>, Columns)> {
            read.iter().map(|(source, config, topics)| (topics.clone(), refused_columns(source, config))).collect()
        };
        let mut outputs: Vec<Written> =
            [tables::QUARANTINE, tables::VIOLATIONS].iter().filter_map(|name| self.plain(name, of_all())).collect();
        if let Some(topic) = &self.pipeline.quality.quarantine_topic {
            outputs.push(self.written_topic(topic, true));
        }
        self.job(tables::QUARANTINE, None, inputs_of(read), outputs);
    }

    fn alerts(&mut self, read: &[Read<'_>]) {
        let of_all = || -> Vec<(Vec<usize>, Columns)> {
            read.iter().map(|(source, config, topics)| (topics.clone(), alert_columns(source, config))).collect()
        };
        let mut outputs: Vec<Written> =
            [tables::ALERTS, tables::ALERTS_HISTORY].iter().filter_map(|name| self.plain(name, of_all())).collect();
        let of_senders = read.iter().map(|(_, config, topics)| {
            let mut columns = Columns::default();
            add_sender(&mut columns, config);
            (topics.clone(), columns)
        });
        outputs.extend(self.plain(tables::SHARES, of_senders.collect()));
        if let Some(topic) = &self.pipeline.alerts.topic {
            outputs.push(self.written_topic(topic, true));
            // Both topics are one destination, whose messages are counted once.
            outputs.extend(self.pipeline.alerts.current_topic.as_ref().map(|topic| self.written_topic(topic, false)));
        }
        self.job(tables::ALERTS, None, inputs_of(read), outputs);
    }
}

fn inputs_of(read: &[Read<'_>]) -> Vec<usize> {
    read.iter().flat_map(|(_, _, topics)| topics.iter().copied()).collect()
}

fn fields_of(columns: &[Column]) -> Vec<(String, String, String)> {
    columns.iter().map(|of| (of.name.clone(), of.column_type.to_string(), of.comment.clone())).collect()
}

/// The columns that the source calls sensitive, whole or in part.
fn sensitive_of(config: &config::Source, columns: &[Column]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for column in columns {
        if is_sensitive(&config.sensitive, &column.name) {
            found.push((column.name.clone(), column.name.clone()));
            continue;
        }
        let within = config.sensitive.iter().filter(|path| path.split('[').next() == Some(column.name.as_str()));
        found.extend(within.map(|path| (column.name.clone(), path.clone())));
    }
    found
}

/// What every refused or tagged record tells of its event.
fn refused_columns(source: &BoundSource, config: &config::Source) -> Columns {
    let mut columns = Columns::default();
    columns.add("event_time", &config.event_time, How::Identity, false);
    add_sender(&mut columns, config);
    for rule in &source.contract.rules {
        rule.visit_columns(&mut |index| {
            let column = index.checked_sub(system::COUNT).and_then(|at| source.columns.get(at));
            if let Some(column) = column {
                let masks = is_sensitive(&config.sensitive, &column.name);
                columns.add("found", &column.name, How::Transformation, masks);
            }
        });
    }
    columns
}

/// What alerts tell of the events that they are about.
fn alert_columns(source: &BoundSource, config: &config::Source) -> Columns {
    let mut columns = Columns::default();
    for (column, field) in [("tenants", &config.tenant), ("event_types", &config.event_type)] {
        if let Some(field) = field {
            columns.add(column, field, How::Aggregation, false);
        }
    }
    add_release(&mut columns, config);
    for column in &source.reader.columns {
        let masks = is_sensitive(&config.sensitive, &column.name);
        columns.add("samples", &column.name, How::Transformation, masks);
    }
    columns
}

fn add_sender(columns: &mut Columns, config: &config::Source) {
    if let Some(tenant) = &config.tenant {
        columns.add("tenant", tenant, How::Identity, false);
    }
    add_release(columns, config);
}

fn add_release(columns: &mut Columns, config: &config::Source) {
    let release = &config.release;
    for (column, field) in
        [("sdk", &release.sdk), ("sdk_version", &release.sdk_version), ("app_version", &release.app_version)]
    {
        if let Some(field) = field {
            columns.add(column, field, How::Identity, false);
        }
    }
}
