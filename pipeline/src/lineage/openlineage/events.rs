//! Events: the graph in OpenLineage's JSON, version 2-0-2 of its specification.
//!
//! A run has an event START with everything that is known, RUNNING with what was written by then, and one of COMPLETE
//! (a run to the end), ABORT (stopped by somebody) and FAIL, again with everything. A run that is killed has no last
//! event; the next start is another run.
//!
//! Statistics are of the run so far: rows and bytes that destinations have taken, each revision of a row counted.

use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};
use uuid::Uuid;
use weir_schemas::time::EventTime;

use super::columns::{Columns, Fields};
use super::graph::{Dataset, Graph, Job, Written};

/// Who says so: a name, since an address of the code would be one of a machine.
const PRODUCER: &str = concat!("urn:weir:", env!("CARGO_PKG_VERSION"));
const SPECIFICATION: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/";
const FACETS: &str = "https://openlineage.io/spec/facets/";

/// An event on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// The job.
    pub(super) job: String,
    /// What is told of it.
    pub(super) step: Step,
    /// The JSON.
    pub(super) json: String,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It begins.
    Start,
    /// It goes on.
    Running,
    /// It is at its end.
    Complete,
    /// Somebody stopped it.
    Abort,
    /// It failed.
    Fail,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Step::Start => "START",
            Step::Running => "RUNNING",
            Step::Complete => "COMPLETE",
            Step::Abort => "ABORT",
            Step::Fail => "FAIL",
        }
    }

    /// Whether everything that is known is told again.
    fn is_whole(self) -> bool {
        self != Step::Running
    }
}

/// A run of the pipeline: its jobs' runs.
pub(super) struct Run {
    whole: Uuid,
    jobs: Vec<Uuid>,
}

impl Run {
    pub(super) fn new(graph: &Graph) -> Run {
        Run { whole: Uuid::new_v4(), jobs: graph.jobs.iter().map(|_| Uuid::new_v4()).collect() }
    }

    /// The events of a step, the pipeline's own first. `written` knows rows and bytes of a destination, `failure` why.
    pub(super) fn events(
        &self,
        graph: &Graph,
        step: Step,
        at: EventTime,
        written: &dyn Fn(&str) -> (u64, u64),
        failure: Option<&str>,
    ) -> Vec<Event> {
        let event = |id: Uuid, name: &str, job: Value, of: Option<&Job>| {
            let mut told = json!({
                "eventType": step.name(),
                "eventTime": rfc3339(at),
                "producer": PRODUCER,
                "schemaURL": format!("{SPECIFICATION}RunEvent"),
                "run": { "runId": id.to_string(), "facets": self.facets(graph, of.is_some(), failure) },
                "job": job,
            });
            if let Some(of) = of {
                told["inputs"] = of.inputs.iter().map(|at| dataset(&graph.datasets[*at], step.is_whole())).collect();
                let output =
                    |of: &Written| output(graph, of, step.is_whole(), (step != Step::Start).then_some(written));
                told["outputs"] = of.outputs.iter().map(output).collect();
            }
            Event { job: name.to_owned(), step, json: told.to_string() }
        };
        let whole = event(self.whole, &graph.pipeline, job(graph, &graph.pipeline, "PIPELINE", None), None);
        let others =
            self.jobs.iter().zip(&graph.jobs).map(|(id, of)| event(*id, &of.name, job_of(graph, of), Some(of)));
        std::iter::once(whole).chain(others).collect()
    }

    fn facets(&self, graph: &Graph, has_parent: bool, failure: Option<&str>) -> Value {
        let mut facets = Map::new();
        let engine = json!({
            "version": env!("CARGO_PKG_VERSION"), "name": "weir", "openlineageAdapterVersion": env!("CARGO_PKG_VERSION"),
        });
        facets.insert("processing_engine".to_owned(), facet("1-1-1", "ProcessingEngineRunFacet", engine));
        if has_parent {
            let of = json!({
                "run": { "runId": self.whole.to_string() },
                "job": { "namespace": graph.namespace, "name": graph.pipeline },
            });
            facets.insert("parent".to_owned(), facet("1-2-0", "ParentRunFacet", of));
        }
        if let Some(message) = failure {
            let of = json!({ "message": message, "programmingLanguage": "RUST" });
            facets.insert("errorMessage".to_owned(), facet("1-0-1", "ErrorMessageRunFacet", of));
        }
        Value::Object(facets)
    }
}

/// The graph as events about jobs, without a run.
pub fn static_events(graph: &Graph, at: EventTime) -> Vec<Value> {
    let event = |of: &Job| {
        json!({
            "eventTime": rfc3339(at),
            "producer": PRODUCER,
            "schemaURL": format!("{SPECIFICATION}JobEvent"),
            "job": job_of(graph, of),
            "inputs": of.inputs.iter().map(|at| dataset(&graph.datasets[*at], true)).collect::<Vec<_>>(),
            "outputs": of.outputs.iter().map(|of| output(graph, of, true, None)).collect::<Vec<_>>(),
        })
    };
    graph.jobs.iter().map(event).collect()
}

fn job_of(graph: &Graph, of: &Job) -> Value {
    job(graph, &of.name, if of.sql.is_some() { "QUERY" } else { "TASK" }, of.sql.as_deref())
}

fn job(graph: &Graph, name: &str, kind: &str, sql: Option<&str>) -> Value {
    let mut facets = Map::new();
    let pattern = json!({
        "eventTrigger": "PERIODIC", "eventContentMode": "ACCUMULATIVE", "windowDuration": graph.every_s.max(1),
    });
    let of = json!({
        "processingType": "STREAMING", "integration": "WEIR", "jobType": kind, "emissionPattern": pattern,
    });
    facets.insert("jobType".to_owned(), facet("2-0-4", "JobTypeJobFacet", of));
    if let Some(sql) = sql {
        let of = json!({ "query": sql, "dialect": "clickhouse" });
        facets.insert("sql".to_owned(), facet("1-1-0", "SQLJobFacet", of));
    }
    json!({ "namespace": graph.namespace, "name": name, "facets": facets })
}

fn dataset(of: &Dataset, is_whole: bool) -> Value {
    let mut told = json!({ "namespace": of.namespace, "name": of.name });
    if is_whole {
        told["facets"] = Value::Object(facets_of(of));
    }
    told
}

fn facets_of(of: &Dataset) -> Map<String, Value> {
    let mut facets = Map::new();
    let source = json!({ "name": of.namespace, "uri": of.namespace });
    facets.insert("dataSource".to_owned(), facet("1-0-1", "DatasourceDatasetFacet", source));
    let kind = json!({ "datasetType": of.kind });
    facets.insert("datasetType".to_owned(), facet("1-0-1", "DatasetTypeDatasetFacet", kind));
    if !of.fields.is_empty() {
        let field = |(at, (name, kind, told)): (usize, &(String, String, String))| {
            let mut field = json!({ "name": name, "type": kind, "ordinal_position": at + 1 });
            if !told.is_empty() {
                field["description"] = told.as_str().into();
            }
            field
        };
        let fields: Vec<Value> = of.fields.iter().enumerate().map(field).collect();
        facets.insert("schema".to_owned(), facet("1-2-0", "SchemaDatasetFacet", json!({ "fields": fields })));
    }
    if !of.sensitive.is_empty() {
        let tag = |(field, path): &(String, String)| json!({ "key": "sensitive", "value": path, "source": "INTEGRATION", "field": field });
        let tags: Vec<Value> = of.sensitive.iter().map(tag).collect();
        facets.insert("tags".to_owned(), facet("1-0-0", "TagsDatasetFacet", json!({ "tags": tags })));
    }
    facets
}

fn output(graph: &Graph, of: &Written, is_whole: bool, written: Option<&dyn Fn(&str) -> (u64, u64)>) -> Value {
    let mut told = dataset(&graph.datasets[of.dataset], is_whole);
    if is_whole && !of.columns.is_empty() {
        told["facets"]["columnLineage"] = column_lineage(graph, &of.columns);
    }
    if let (Some(written), Some(destination)) = (written, &of.destination) {
        let (rows, bytes) = written(destination);
        let statistics = json!({ "rowCount": rows, "size": bytes });
        let statistics = facet("1-0-2", "OutputStatisticsOutputDatasetFacet", statistics);
        told["outputFacets"] = json!({ "outputStatistics": statistics });
    }
    told
}

fn column_lineage(graph: &Graph, of: &[(Vec<usize>, Columns)]) -> Value {
    let mut fields: Map<String, Value> = Map::new();
    let mut whole = Vec::new();
    for (datasets, columns) in of {
        for (name, reached_by) in &columns.columns {
            let inputs = input_fields(graph, datasets, reached_by);
            match fields.get_mut(name).and_then(|known| known["inputFields"].as_array_mut()) {
                Some(known) => known.extend(inputs),
                None => {
                    fields.insert(name.clone(), json!({ "inputFields": inputs }));
                }
            }
        }
        whole.extend(input_fields(graph, datasets, &columns.whole));
    }
    let mut told = json!({ "fields": fields });
    if !whole.is_empty() {
        told["dataset"] = whole.into();
    }
    facet("1-2-0", "ColumnLineageDatasetFacet", told)
}

fn input_fields(graph: &Graph, datasets: &[usize], fields: &Fields) -> Vec<Value> {
    let mut told = Vec::new();
    for (field, ways) in fields {
        let transformations: Vec<Value> = ways
            .iter()
            .map(|way| {
                let (kind, subtype) = way.how.names();
                json!({ "type": kind, "subtype": subtype, "description": way.description, "masking": way.masks })
            })
            .collect();
        told.extend(datasets.iter().map(|at| &graph.datasets[*at]).map(|of| {
            json!({
                "namespace": of.namespace, "name": of.name, "field": field, "transformations": transformations,
            })
        }));
    }
    told
}

fn facet(version: &str, name: &str, mut of: Value) -> Value {
    of["_producer"] = PRODUCER.into();
    of["_schemaURL"] = format!("{FACETS}{version}/{name}.json#/$defs/{name}").into();
    of
}

fn rfc3339(at: EventTime) -> String {
    DateTime::from_timestamp_micros(at.0).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_of_every_job_with_what_was_written_by_then() {
        let dataset = Dataset {
            namespace: "clickhouse://c:8123".to_owned(),
            name: "shop.by_minute".to_owned(),
            kind: "VIEW",
            fields: Vec::new(),
            sensitive: Vec::new(),
        };
        let destination = Some("by_minute".to_owned());
        let outputs = vec![Written { dataset: 0, destination, columns: Vec::new() }];
        let job = Job { name: "shop.by_minute".to_owned(), sql: None, inputs: Vec::new(), outputs };
        let (namespace, pipeline) = ("weir".to_owned(), "shop".to_owned());
        let graph = Graph { namespace, pipeline, every_s: 0, datasets: vec![dataset], jobs: vec![job] };
        let written = |destination: &str| if destination == "by_minute" { (7, 700) } else { (0, 0) };
        let events = Run::new(&graph).events(&graph, Step::Fail, EventTime(1_500), &written, Some("W006: it failed"));
        let told: Vec<Value> = events.iter().map(|event| serde_json::from_str(&event.json).expect("JSON")).collect();
        assert_eq!(told.len(), 2);
        for event in &told {
            assert_eq!(
                (&event["eventType"], &event["eventTime"]),
                (&json!("FAIL"), &json!("1970-01-01T00:00:00.001Z"))
            );
            assert_eq!(event["run"]["facets"]["errorMessage"]["message"], "W006: it failed");
            assert_eq!(event["job"]["facets"]["jobType"]["emissionPattern"]["windowDuration"], 1);
        }
        let statistics = &told[1]["outputs"][0]["outputFacets"]["outputStatistics"];
        assert_eq!((&statistics["rowCount"], &statistics["size"]), (&json!(7), &json!(700)));
        let started = Run::new(&graph).events(&graph, Step::Start, EventTime(0), &written, None);
        assert!(!started[1].json.contains("outputStatistics") && !started[1].json.contains("errorMessage"));
    }
}
