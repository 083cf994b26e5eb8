//! OpenLineage events of real runs: what they hold, against the specification and against ClickHouse; that receivers which are
//! away, unwell or silent cost nobody anything but the events.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::{Value, json};

use crate::program::{Bench, parts, terminate, wait_until};
use crate::receivers::{Http, Request};
use crate::shop::{sell, shop};

const EVENTS: u64 = 5_000;
const FAULTS: &[&str] = &["--duplicates", "0.02", "--bad", "0.01"];
const TOKEN: &str = "a-token-that-nobody-may-see";

/// The shop, which tells lineage as `section` says.
fn told(name: &str, section: &str) -> Bench {
    let bench = shop(name);
    bench.edit("[views.by_minute]", &format!("[lineage]\n{section}\n[views.by_minute]"));
    bench.edit("event_id = \"event_id\"", "event_id = \"event_id\"\nsensitive = [\"user_id\", \"props['phone']\"]");
    sell(&bench, EVENTS, 3, FAULTS);
    bench
}

fn lines(bench: &Bench) -> Vec<Value> {
    let text = std::fs::read_to_string(bench.folder.path().join("lineage.jsonl")).unwrap();
    // A line that is being written is not there yet.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The events by job, in their order.
fn by_job(events: &[Value]) -> BTreeMap<String, Vec<&Value>> {
    let mut jobs: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for event in events {
        jobs.entry(event["job"]["name"].as_str().unwrap().to_owned()).or_default().push(event);
    }
    jobs
}

#[test]
fn a_run_tells_what_reads_and_writes_what() {
    let receiver = Http::start(|_, _| 200);
    let bench = told(
        "lineage_told",
        &format!(
            "url = \"http://127.0.0.1:{}\"\ntoken = \"{TOKEN}\"\ntopic = \"${{TOPIC}}-lineage\"\nfile = \"lineage.jsonl\"\n\
             every_ms = 200",
            receiver.port
        ),
    );
    let done = bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    let events = lines(&bench);
    let taken: Vec<Request> = receiver.taken();
    assert!(taken.iter().all(|of| of.path == "/api/v1/lineage" && of.authorization == format!("Bearer {TOKEN}")));
    let bodies: Vec<Value> = taken.iter().map(|of| serde_json::from_str(&of.body).unwrap()).collect();
    assert_eq!(bodies, events, "the receiver was told what stands in the file");
    let messages = messages(&bench);
    let steps = |of: &[Value]| -> Vec<String> {
        of.iter().map(|event| format!("{} {}", event["job"]["name"], event["eventType"])).collect()
    };
    assert_eq!(steps(&messages), steps(&events), "and so was the topic; the log says\n{}", done.err);
    assert!(messages == events, "the same events");

    let all = serde_json::to_string(&events).unwrap();
    assert!(!all.contains(TOKEN) && !all.contains("password"), "a secret");
    events.iter().for_each(check_event);
    let jobs = by_job(&events);
    let whole = &bench.database;
    let expected = ["", ".by_minute", ".events", ".weir_alerts", ".weir_quarantine"].map(|of| format!("{whole}{of}"));
    assert_eq!(jobs.keys().cloned().collect::<Vec<_>>(), expected);
    let mut runs = BTreeSet::new();
    for (job, events) in &jobs {
        let steps: Vec<&str> = events.iter().map(|event| event["eventType"].as_str().unwrap()).collect();
        assert_eq!((steps.first(), steps.last()), (Some(&"START"), Some(&"COMPLETE")), "{job}: {steps:?}");
        assert!(steps[1..steps.len() - 1].iter().all(|step| *step == "RUNNING"), "{job}: {steps:?}");
        let run: BTreeSet<&str> = events.iter().map(|event| event["run"]["runId"].as_str().unwrap()).collect();
        assert_eq!(run.len(), 1, "{job}");
        runs.extend(run);
        if job != whole {
            let parent = &events[0]["run"]["facets"]["parent"];
            assert_eq!(parent["run"]["runId"], jobs[whole][0]["run"]["runId"]);
            assert_eq!(parent["job"], json!({ "namespace": "weir", "name": whole }));
        }
    }
    assert_eq!(runs.len(), jobs.len(), "each job has a run of its own");
    the_view_is_told(&bench, jobs[&format!("{whole}.by_minute")][0]);
    statistics_are_what_was_written(&bench, &jobs);
    the_command_says_the_same(&bench, &jobs);

    // One that somebody stops is told as that, as another run.
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("the second run has begun", || lines(&bench).len() > events.len() + 10);
    terminate(&mut running);
    let again = lines(&bench);
    let last = again.last().unwrap();
    assert_eq!(last["eventType"], "ABORT");
    assert!(!runs.contains(last["run"]["runId"].as_str().unwrap()));
}

/// The messages of the lineage topic, whose keys are the jobs.
fn messages(bench: &Bench) -> Vec<Value> {
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", parts().kafka()).set("group.id", &bench.topic).set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.set("auto.offset.reset", "earliest").create().unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(&format!("{}-lineage", bench.topic), 0, rdkafka::Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut found = Vec::new();
    loop {
        match consumer.poll(Duration::from_secs(10)) {
            Some(Ok(message)) => {
                let event: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
                assert_eq!(message.key(), event["job"]["name"].as_str().map(str::as_bytes));
                found.push(event);
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => return found,
            other => panic!("{other:?}"),
        }
    }
}

/// What a person says of the view's SQL.
fn the_view_is_told(bench: &Bench, start: &Value) {
    let kafka = format!("kafka://{}", parts().kafka());
    let clickhouse = parts().clickhouse().replace("http://", "clickhouse://");
    let clickhouse = clickhouse.trim_end_matches('/');
    let way = |kind: &str, subtype: &str, description: &str, masking: bool| json!({ "type": kind, "subtype": subtype, "description": description, "masking": masking });
    let field = |name: &str, ways: Vec<Value>| json!({ "namespace": kafka, "name": bench.topic, "field": name, "transformations": ways });
    let window = "window of 1 minute (UTC)";
    let revenue = "sumIf(amount, (type = 'purchase'))";
    let users = || field("user_id", vec![way("DIRECT", "AGGREGATION", "uniqExact(user_id)", true)]);
    let expected = json!({
        "window_start": { "inputFields": [field("occurred_at", vec![way("DIRECT", "TRANSFORMATION", window, false)])] },
        "tenant": { "inputFields": [field("tenant", vec![way("DIRECT", "IDENTITY", "", false)])] },
        "country": { "inputFields": [field("props", vec![way("DIRECT", "TRANSFORMATION", "props['country']", false)])] },
        "events": { "inputFields": [] },
        "revenue": { "inputFields": [
            field("amount", vec![way("DIRECT", "AGGREGATION", revenue, false)]),
            field("type", vec![way("INDIRECT", "CONDITIONAL", "(type = 'purchase')", false)]),
        ] },
        "users": { "inputFields": [users()] },
        "users_state": { "inputFields": [users()] },
    });
    let output = &start["outputs"][0];
    let lineage = &output["facets"]["columnLineage"];
    assert_eq!(lineage["fields"], expected, "{lineage:#}");
    let whole = json!([
        field("occurred_at", vec![way("INDIRECT", "GROUP_BY", window, false)]),
        field("props", vec![way("INDIRECT", "GROUP_BY", "props['country']", false)]),
        field("tenant", vec![way("INDIRECT", "GROUP_BY", "tenant", false)]),
        field("type", vec![way("INDIRECT", "FILTER", "WHERE (type != 'heartbeat')", false)]),
    ]);
    assert_eq!(lineage["dataset"], whole, "{lineage:#}");
    assert_eq!(
        (&output["namespace"], &output["name"]),
        (&json!(clickhouse), &json!(format!("{}.by_minute", bench.database)))
    );
    let job = &start["job"]["facets"];
    let sql = std::fs::read_to_string(bench.folder.path().join("views/by_minute.sql")).unwrap();
    assert_eq!((&job["sql"]["query"], &job["sql"]["dialect"]), (&json!(sql.trim()), &json!("clickhouse")));
    assert_eq!(job["jobType"]["processingType"], "STREAMING");
    // The readers' view has the columns that are told, in their order.
    let told: Vec<&str> = output["facets"]["schema"]["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| of["name"].as_str().unwrap())
        .collect();
    let columns = bench.ask(&format!(
        "SELECT name FROM system.columns WHERE database = '{}' AND table = 'by_minute' ORDER BY position",
        bench.database
    ));
    assert_eq!(told, columns.lines().collect::<Vec<_>>());
    let input = &start["inputs"][0];
    assert_eq!((&input["namespace"], &input["name"]), (&json!(kafka), &json!(bench.topic)));
    let tags = &input["facets"]["tags"]["tags"];
    let tag =
        |field: &str, path: &str| json!({ "key": "sensitive", "value": path, "source": "INTEGRATION", "field": field });
    assert_eq!(*tags, json!([tag("user_id", "user_id"), tag("props", "props['phone']")]));
}

fn statistics_are_what_was_written(bench: &Bench, jobs: &BTreeMap<String, Vec<&Value>>) {
    let written = |job: &str, table: &str| -> u64 {
        let last = jobs[&format!("{}.{job}", bench.database)].last().unwrap();
        let name = format!("{}.{table}", bench.database);
        let output = last["outputs"].as_array().unwrap().iter().find(|of| of["name"] == name.as_str()).unwrap();
        let statistics = &output["outputFacets"]["outputStatistics"];
        assert!(statistics["size"].as_u64().unwrap() > 0, "{last:#}");
        statistics["rowCount"].as_u64().unwrap()
    };
    let rows = |table: &str| -> u64 { bench.ask(&format!("SELECT count() FROM {table}")).parse().unwrap() };
    assert_eq!(written("events", "events"), rows("events"));
    assert_eq!(written("weir_quarantine", "weir_quarantine"), rows("weir_quarantine"));
    assert!(rows("weir_quarantine") > 0 && written("by_minute", "by_minute") >= rows("by_minute"));
    // Values of sensitive fields that a rule or an alert tells of are masked there.
    let start = jobs[&format!("{}.weir_alerts", bench.database)][0];
    let samples = &start["outputs"][0]["facets"]["columnLineage"]["fields"]["samples"]["inputFields"];
    let masking = |field: &str| {
        let of = samples.as_array().unwrap().iter().find(|of| of["field"] == field).unwrap();
        of["transformations"][0]["masking"].clone()
    };
    assert_eq!((masking("user_id"), masking("tenant")), (json!(true), json!(false)));
}

fn the_command_says_the_same(bench: &Bench, jobs: &BTreeMap<String, Vec<&Value>>) {
    let said = bench.weir(&["lineage", "pipeline.toml", "--json"]).fine().out;
    let said: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    said.iter().for_each(check_event);
    assert_eq!(said.len(), jobs.len() - 1, "all but the pipeline itself");
    for event in &said {
        let start = jobs[event["job"]["name"].as_str().unwrap()][0];
        for part in ["job", "inputs", "outputs"] {
            assert_eq!(event[part], start[part]);
        }
        assert!(event["run"].is_null() && event["eventType"].is_null());
    }
    let text = bench.weir(&["lineage", "pipeline.toml"]).fine().out;
    for told in [
        "weir/",
        "reads   kafka://",
        "writes  clickhouse://",
        "direct AGGREGATION, masks",
        "indirect FILTER",
        "(every row)",
    ] {
        assert!(text.contains(told), "{told} is missing in\n{text}");
    }
}

/// What the specification demands of every event, and that names which it mentions are there.
fn check_event(event: &Value) {
    let text = |of: &Value| of.as_str().unwrap_or_else(|| panic!("{of} in {event:#}")).to_owned();
    chrono::DateTime::parse_from_rfc3339(&text(&event["eventTime"])).unwrap();
    assert!(text(&event["producer"]).starts_with("urn:weir:"));
    let kind = if event["run"].is_null() { "JobEvent" } else { "RunEvent" };
    assert_eq!(event["schemaURL"], format!("https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/{kind}"));
    if kind == "RunEvent" {
        assert!(["START", "RUNNING", "COMPLETE", "ABORT", "FAIL"].contains(&text(&event["eventType"]).as_str()));
        let id = text(&event["run"]["runId"]);
        let groups: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12], "{id}");
        assert!(id.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()), "{id}");
        check_facets(&event["run"]["facets"]);
    }
    assert!(!text(&event["job"]["name"]).is_empty() && event["job"]["namespace"] == "weir");
    check_facets(&event["job"]["facets"]);
    let list = |of: &str| event[of].as_array().cloned().unwrap_or_default();
    let mut known: BTreeSet<(String, String, String)> = BTreeSet::new();
    for input in list("inputs") {
        check_facets(&input["facets"]);
        for field in input["facets"]["schema"]["fields"].as_array().into_iter().flatten() {
            assert!(!text(&field["type"]).is_empty() && field["ordinal_position"].as_u64().is_some());
            known.insert((text(&input["namespace"]), text(&input["name"]), text(&field["name"])));
        }
    }
    for output in list("outputs") {
        assert!(text(&output["namespace"]).contains("://") && !text(&output["name"]).is_empty());
        check_facets(&output["facets"]);
        check_facets(&output["outputFacets"]);
        let lineage = &output["facets"]["columnLineage"];
        let own: BTreeSet<String> =
            output["facets"]["schema"]["fields"].as_array().into_iter().flatten().map(|of| text(&of["name"])).collect();
        let fields = lineage["fields"].as_object().cloned().unwrap_or_default();
        for (column, of) in &fields {
            assert!(own.contains(column), "{column} is no column of {own:?}");
            of["inputFields"].as_array().unwrap().iter().for_each(|input| check_input_field(input, &known));
        }
        lineage["dataset"].as_array().into_iter().flatten().for_each(|input| check_input_field(input, &known));
    }
}

fn check_input_field(input: &Value, known: &BTreeSet<(String, String, String)>) {
    let text = |of: &str| input[of].as_str().unwrap().to_owned();
    assert!(known.contains(&(text("namespace"), text("name"), text("field"))), "{input} is no field of an input");
    for way in input["transformations"].as_array().unwrap() {
        let direct = ["IDENTITY", "TRANSFORMATION", "AGGREGATION"];
        let subtypes: &[&str] = if way["type"] == "DIRECT" { &direct } else { &["CONDITIONAL", "GROUP_BY", "FILTER"] };
        assert!(["DIRECT", "INDIRECT"].contains(&way["type"].as_str().unwrap()), "{way}");
        assert!(subtypes.contains(&way["subtype"].as_str().unwrap()) && way["masking"].is_boolean(), "{way}");
    }
}

fn check_facets(facets: &Value) {
    for (name, facet) in facets.as_object().into_iter().flatten() {
        let url = facet["_schemaURL"].as_str().unwrap_or_else(|| panic!("{name}: {facet}"));
        let (file, definition) = url.split_once("#/$defs/").unwrap();
        let stem = file.rsplit('/').next().unwrap();
        assert!(
            file.starts_with("https://openlineage.io/spec/facets/") && stem == format!("{definition}.json"),
            "{url}"
        );
        assert!(facet["_producer"].as_str().unwrap().starts_with("urn:weir:"));
    }
}

/// How long a run to the end takes, which must be right whatever becomes of the events.
fn run(bench: &Bench) -> Duration {
    let began = Instant::now();
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    let took = began.elapsed();
    bench.weir(&["verify", "pipeline.toml"]).fine();
    took
}

#[test]
fn a_receiver_that_is_away_unwell_or_silent_holds_nobody_up() {
    let mut bench = told("lineage_away", "every_ms = 100");
    let alone = run(&bench);
    let unwell = Http::start(|_, _| 500);
    let picky = Http::start(|_, _| 400);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    std::thread::spawn(move || {
        // Connections are taken and kept, and never answered.
        let kept: Vec<_> = silent.incoming().collect();
        drop(kept);
    });
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let mut section = "every_ms = 100".to_owned();
    for (what, port) in [("away", nobody), ("unwell", unwell.port), ("picky", picky.port), ("silent", silent_port)] {
        bench.anew(&format!("lineage_{what}"));
        let next = format!("every_ms = 100\nurl = \"http://127.0.0.1:{port}\"");
        bench.edit(&section, &next);
        section = next;
        let took = run(&bench);
        println!("{what}: {} ms, {} ms without a receiver", took.as_millis(), alone.as_millis());
        // The end waits three seconds at most; the rest is for a machine that others use, too.
        assert!(took < alone * 2 + Duration::from_secs(8), "{what}: {took:?}, {alone:?} without a receiver");
    }
    assert!(!unwell.seen.lock().unwrap().is_empty() && !picky.seen.lock().unwrap().is_empty());
    // A file that can't be written, and a topic whose name no broker takes, are no better.
    bench.anew("lineage_nowhere");
    bench.edit(&section, "every_ms = 100\nfile = \"no/such/folder/lineage.jsonl\"\ntopic = \"not a topic\"");
    let took = run(&bench);
    assert!(took < alone * 2 + Duration::from_secs(8), "{took:?}, {alone:?} without a receiver");
}
