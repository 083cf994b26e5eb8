//! Retrying the quarantine by cause: the view over what was accepted, retried records included, equals ClickHouse's own
//! answer over the raw events, in windows that were final long before; every record once, whatever is killed.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use crate::program::{Bench, clickhouse, parts, size, wait_until};

/// What is wrong with events before and after the rule of codes was mended: only the rule of types is right.
const WRONG_CODE: &str = "NOT match(code, '^[A-Z]{2}-[0-9]+$')";
const WRONG_TYPE: &str = "type = 'vview'";

/// Events of the last hours in their order, in one partition; every fortieth is there twice.
pub(crate) fn bench(name: &str, events: u64) -> Bench {
    let bench = Bench::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/quarantine"), name);
    let now = weir_pipeline::clock::Clock::default().now_ms() as u64;
    let step = 10_000_000 / events;
    let mut lines = String::new();
    for id in 0..events {
        let at = now - 10_800_000 + id * step;
        let code = if id % 5 == 0 { "de-1" } else { "DE-1" };
        let kind = if id % 7 == 0 { "vview" } else { "view" };
        let line = format!(
            r#"{{"event_id": "e{id}", "occurred_at": {at}, "tenant": "t{}", "type": "{kind}", "amount": {}.5, "age": null, "code": "{code}", "email": null, "props": {{}}}}"#,
            id % 3,
            id % 11
        );
        for _ in 0..if id % 40 == 0 { 2 } else { 1 } {
            writeln!(lines, "{line}").unwrap();
        }
    }
    std::fs::write(bench.folder.path().join("events.json"), &lines).unwrap();
    clickhouse("default", &format!("CREATE DATABASE {}_raw", bench.database), &[]);
    let columns =
        "event_id String, occurred_at Int64, tenant String, type String, amount Nullable(Float64), code String";
    let raw = format!("CREATE TABLE {}_raw.raw ({columns}) ENGINE = MergeTree ORDER BY event_id", bench.database);
    clickhouse("default", &raw, &[]);
    let settings = "SETTINGS input_format_skip_unknown_fields = 1";
    let insert = format!("INSERT INTO {}_raw.raw {settings} FORMAT JSONEachRow", bench.database);
    clickhouse("default", &insert, lines.as_bytes());
    let produce = ["produce", "--topic", &bench.topic, "--partitions", "1", "--json", "events.json"];
    bench.weir(&[&produce[..], &["--schema", "event.avsc", "--time", "occurred_at"]].concat()).fine();
    bench
}

fn raw(bench: &Bench, what: &str, condition: &str) -> u64 {
    bench.ask(&format!("SELECT {what} FROM {}_raw.raw WHERE {condition}", bench.database)).parse().unwrap()
}

fn number(bench: &Bench, sql: &str) -> u64 {
    bench.ask(sql).parse().unwrap()
}

/// The fingerprint of the cause that is about `rule`, and how many records of it wait and were retried.
pub(crate) fn cause(bench: &Bench, rule: &str) -> (String, u64, u64) {
    let told = bench.weir(&["quarantine", "group", "pipeline.toml", "--json"]).fine().out;
    let rows = told.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let row = rows.into_iter().find(|row| row["about"] == rule).unwrap_or_else(|| panic!("{rule} in {told}"));
    (row["cause"].as_str().unwrap().to_owned(), row["waiting"].as_u64().unwrap(), row["retried"].as_u64().unwrap())
}

/// The view is ClickHouse's answer over the raw events that are right, and the books balance.
fn is_right(bench: &Bench, refused: &str) {
    let view = "SELECT toString(window_start), tenant, events, paid FROM by_minute";
    let oracle = format!(
        "SELECT toString(toStartOfMinute(fromUnixTimestamp64Milli(occurred_at, 'UTC'))) AS at, tenant, count(), sum(amount) \
         FROM (SELECT DISTINCT * FROM {}_raw.raw WHERE NOT ({refused})) GROUP BY at, tenant",
        bench.database
    );
    for (one, other) in [(view, &*oracle), (&*oracle, view)] {
        assert_eq!(bench.ask(&format!("SELECT count() FROM ({one} EXCEPT {other})")), "0", "{one} EXCEPT {other}");
    }
    let events = bench.ask("SELECT count() - uniqExact(event_id), count() FROM events");
    assert_eq!(events, format!("0\t{}", raw(bench, "uniqExact(event_id)", &format!("NOT ({refused})"))));
    bench.weir(&["verify", "pipeline.toml"]).fine();
    let ledger = "SELECT countIf(consumed != accepted + quarantined + duplicate + duplicate_differing + too_late + \
                  too_late_after_idle + tombstone), sum(too_late + too_late_after_idle) FROM weir_ledger";
    assert_eq!(bench.ask(ledger), "0\t0");
    // Each place once, and quarantined = retried + waiting.
    let places = "SELECT count() - uniqExact(topic, partition, offset) FROM weir_retried";
    assert_eq!(bench.ask(places), "0");
    let group = bench.weir(&["quarantine", "group", "pipeline.toml"]).fine().out;
    assert!(group.contains(": balanced"), "{group}");
}

pub(crate) fn mend(bench: &Bench) {
    bench.edit(r"'^[A-Z]{2}-\d+$'", r"'^[A-Za-z]{2}-\d+$'");
}

#[test]
fn a_cause_that_was_mended_is_retried_alone_and_corrects_final_windows() {
    let bench = bench("quarantine", 1_200);
    let until_end = ["run", "pipeline.toml", "--until-end"];
    bench.weir(&until_end).fine();
    is_right(&bench, &format!("{WRONG_CODE} OR {WRONG_TYPE}"));
    let (codes, types) = (cause(&bench, "codes"), cause(&bench, "types"));
    let waiting = raw(&bench, "count()", WRONG_CODE);
    assert_eq!((codes.1, codes.2), (waiting, 0));
    let of_types = raw(&bench, "count()", &format!("{WRONG_TYPE} AND NOT {WRONG_CODE}"));
    assert_eq!((types.1, types.2), (of_types, 0));
    let finals = "SELECT countIf(is_final), countIf(revision > 0) FROM by_minute";
    let (is_final, _) = {
        let told = bench.ask(finals);
        let mut of = told.split('\t').map(|n| n.parse::<u64>().unwrap());
        (of.next().unwrap(), of.next().unwrap())
    };
    assert!(is_final > 300, "{is_final}");

    shown(&bench, &codes.0, waiting);
    mend(&bench);
    let retry = ["quarantine", "retry", "pipeline.toml", &codes.0[..8]];
    let dry = bench.weir(&[&retry[..], &["--dry-run"]].concat()).fine().out;
    assert!(dry.contains(&format!("{waiting} waiting, 0 retried")) && !dry.contains("too late"), "{dry}");
    bench.weir(&retry).refused(2, &["nobody can be asked here"]);
    let send = ["--yes", "--wait", "0", "--by", "ada", "--why", "codes are of any case"];
    // A second time before the pipeline has taken them: they are in the topic already.
    for _ in 0..2 {
        bench.weir(&[&retry[..], &send].concat()).fine();
    }
    bench.weir(&until_end).fine();
    is_right(&bench, WRONG_TYPE);
    let (_, left, retried) = cause(&bench, "codes");
    assert_eq!((left, retried), (0, waiting), "every record of the cause");
    // What broke both rules was refused again by the other, at its place in the retry topic, and waits there.
    let both = raw(&bench, "count()", &format!("{WRONG_TYPE} AND {WRONG_CODE}"));
    assert_eq!(cause(&bench, "types").1, of_types + both);
    let again = "SELECT count() FROM weir_quarantine WHERE endsWith(topic, '-retry') AND position(headers, 'weir_retry_of') > 0";
    assert_eq!(number(&bench, again), both);
    let copies = raw(&bench, "count() - uniqExact(event_id)", &format!("{WRONG_CODE} AND NOT {WRONG_TYPE}"));
    let ledger = "SELECT sum(consumed), sum(accepted), sum(quarantined), sum(duplicate) FROM weir_ledger \
                  WHERE source = 'events/retry'";
    assert_eq!(bench.ask(ledger), format!("{waiting}\t{}\t{both}\t{copies}", waiting - both - copies));
    assert!(number(&bench, "SELECT countIf(revision > 0 AND is_final) FROM by_minute") > 100);
    let audit = "SELECT status, retried_by, why, waiting_before, sent FROM weir_retries ORDER BY planned_at LIMIT 1";
    assert_eq!(bench.ask(audit), format!("sent\tada\tcodes are of any case\t{waiting}\t{waiting}"));

    explained(&bench);
    what_having_leaves_out_is_said(&bench);

    // Whoever sends a place again, or something else, changes no view.
    foreign(&bench);
    bench.weir(&until_end).fine();
    is_right(&bench, WRONG_TYPE);
    let ledger = "SELECT sum(duplicate), sum(quarantined) FROM weir_ledger WHERE source = 'events/retry'";
    assert_eq!(bench.ask(ledger), format!("{}\t{}", copies + 1, both + 1));
    what_does_not_decode_is_shown_as_bytes(&bench);
}

fn explain(bench: &Bench, view: &str, minute: &str, tenant: &str) -> Value {
    let tenant = format!("tenant={tenant}");
    let arguments = ["explain", "row", "pipeline.toml", view, "--window", minute, "--where", &tenant];
    bench.weir(&arguments).fine();
    serde_json::from_str(&bench.weir(&[&arguments[..], &["--json"]].concat()).fine().out).unwrap()
}

/// Every offset that is told, as `topic/partition@offset`.
fn places(report: &Value) -> BTreeSet<String> {
    let mut places = BTreeSet::new();
    for of in report["partitions"].as_array().unwrap() {
        for run in of["runs"].as_array().unwrap() {
            let offsets = run[0].as_i64().unwrap()..=run[1].as_i64().unwrap();
            let topic = of["topic"].as_str().unwrap();
            places.extend(offsets.map(|offset| format!("{topic}/{}@{offset}", of["partition"])));
        }
    }
    places
}

/// Rows that were corrected by retries are explained by the retried records, at their places in the retry topic, with the
/// accepted events and without.
fn explained(bench: &Bench) {
    // Those with most copies and most records that were refused twice, by SQL over the raw events.
    let rows = bench.ask(&format!(
        "SELECT toString(toStartOfMinute(fromUnixTimestamp64Milli(occurred_at, 'UTC')), 'UTC') AS minute, tenant \
         FROM {}_raw.raw GROUP BY minute, tenant HAVING countIf({WRONG_CODE} AND NOT {WRONG_TYPE}) > 0 \
         ORDER BY count() - uniqExact(event_id) + countIf({WRONG_CODE} AND {WRONG_TYPE}) DESC, minute, tenant LIMIT 8",
        bench.database
    ));
    let count = |report: &Value, of: &str| -> u64 {
        report[of].as_array().unwrap().iter().map(|of| of["records"].as_u64().unwrap()).sum()
    };
    let mut retried = 0;
    for round in 0..2 {
        for row in rows.lines() {
            let (minute, tenant) = row.split_once('\t').unwrap();
            let report = explain(bench, "by_minute", minute, tenant);
            assert_eq!(
                (&report["is_equal"], &report["is_there"]),
                (&Value::Bool(true), &Value::Bool(true)),
                "{report:#}"
            );
            assert_eq!(report["notes"], serde_json::json!([]), "{report:#}");
            let of_row =
                format!("toStartOfMinute(occurred_at) = toDateTime('{minute}', 'UTC') AND tenant = '{tenant}'");
            let accepted = bench.ask(&format!(
                "SELECT concat(_topic, '/', toString(_partition), '@', toString(_offset)) FROM events WHERE {of_row}"
            ));
            let accepted: BTreeSet<String> = accepted.lines().map(str::to_owned).collect();
            if round == 0 {
                assert_eq!(places(&report), accepted, "{row}");
            } else {
                assert_eq!(places(&report).len(), accepted.len(), "{row}");
            }
            let of_raw = format!(
                "toStartOfMinute(fromUnixTimestamp64Milli(occurred_at, 'UTC')) = toDateTime('{minute}', 'UTC') AND tenant = '{tenant}'"
            );
            let told = (count(&report, "retried"), count(&report, "left_out"));
            let expected = |wrong: &str| raw(bench, "count()", &format!("{of_raw} AND {wrong}"));
            assert_eq!(told, (expected(WRONG_CODE), expected(WRONG_TYPE)), "{report:#}");
            retried += told.0;
        }
        if round == 0 {
            bench.edit("keep_events_days = 10000\n", "");
        }
    }
    bench.edit("retry_topic = ", "keep_events_days = 10000\nretry_topic = ");
    println!("{retried} retried records of {} rows, told twice", rows.lines().count());
    assert!(retried > 16 && rows.lines().count() == 8, "{retried}");
}

/// A row that the retries made too large for HAVING, one that never was, and one without a record.
fn what_having_leaves_out_is_said(bench: &Bench) {
    let row = "SELECT toString(toStartOfMinute(occurred_at), 'UTC') AS minute, tenant, count() AS all, \
               countIf(endsWith(_topic, '-retry')) AS retried FROM events GROUP BY minute, tenant \
               HAVING all > 2 AND all - retried BETWEEN 1 AND 2 ORDER BY minute, tenant LIMIT 1";
    let row = bench.ask(row);
    let [minute, tenant, all, _] = row.split('\t').collect::<Vec<_>>().try_into().unwrap();
    let report = explain(bench, "few", minute, tenant);
    assert_eq!((&report["is_there"], &report["is_equal"]), (&Value::Bool(false), &Value::Bool(true)), "{report:#}");
    let absence = report["absence"].as_str().unwrap();
    assert!(absence.starts_with("removed by epoch ") && absence.contains("HAVING"), "{absence}");
    assert_eq!(report["measures"][0]["recomputed"], all, "{report:#}");
    assert_eq!(places(&report).len().to_string(), all);

    let tenant_only = ["explain", "row", "pipeline.toml", "few", "--window", minute];
    bench.weir(&[&tenant_only[..], &["--where", "tenant=nobody"]].concat()).refused(2, &["no record of its window"]);
    let there =
        bench.ask("SELECT toString(window_start, 'UTC'), tenant FROM few ORDER BY window_start, tenant LIMIT 1");
    let (minute, tenant) = there.split_once('\t').unwrap();
    let report = explain(bench, "few", minute, tenant);
    assert_eq!((&report["is_there"], &report["is_equal"]), (&Value::Bool(true), &Value::Bool(true)), "{report:#}");
}

/// A refused record that is no event shows its bytes.
fn what_does_not_decode_is_shown_as_bytes(bench: &Bench) {
    let place = bench.ask(
        "SELECT concat(topic, '/', toString(partition), '@', toString(offset)) FROM weir_quarantine WHERE value = 'junk' LIMIT 1",
    );
    let shown = bench.weir(&["quarantine", "show", "pipeline.toml", &place]).fine().out;
    for told in ["value, 4 bytes, which don't decode: not_framed", "6a 75 6e 6b"] {
        assert!(shown.contains(told), "{told} is missing in\n{shown}");
    }
}

/// `list` and `show` tell what is known.
fn shown(bench: &Bench, codes: &str, waiting: u64) {
    let list = ["quarantine", "list", "pipeline.toml", "--cause", &codes[..6], "--state", "waiting", "--limit", "5000"];
    let listed = bench.weir(&[&list[..], &["--json"]].concat()).fine().out;
    assert_eq!(listed.lines().count() as u64, waiting);
    let first: serde_json::Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
    let place = first["place"].as_str().unwrap();
    let shown = bench.weir(&["quarantine", "show", "pipeline.toml", place]).fine().out;
    for told in ["catalogue", "match(code,", "de-1", codes, "bytes, decoded", "\"de-1\"", "occurred_at", "waiting"] {
        assert!(shown.contains(told), "{told} is missing in\n{shown}");
    }
    decoded(bench, place);
    bench.weir(&["quarantine", "show", "pipeline.toml", "nowhere/0@1"]).refused(2, &["no record was refused at"]);
    bench.weir(&["quarantine", "retry", "pipeline.toml", "ffffffffffffffff"]).refused(2, &["no cause begins with"]);
}

/// What `show` decodes is the event that was sent; sensitive fields of it are masked, and so are all bytes.
fn decoded(bench: &Bench, place: &str) {
    let show = ["quarantine", "show", "pipeline.toml", place];
    let json = |bench: &Bench| -> Value {
        serde_json::from_str(&bench.weir(&[&show[..], &["--json"]].concat()).fine().out).unwrap()
    };
    let event = json(bench)["decoded"].clone();
    let id = event["event_id"].as_str().unwrap();
    let sent = raw(bench, "count()", &format!("event_id = '{id}' AND code = 'de-1' AND amount = {}", event["amount"]));
    assert!(sent > 0, "{event}");
    assert_eq!(
        (&event["code"], &event["email"], &event["props"]),
        (&"de-1".into(), &Value::Null, &serde_json::json!({}))
    );

    bench.edit("retry_topic = ", "sensitive = [\"event_id\"]\nretry_topic = ");
    let (masked, shown) = (json(bench), bench.weir(&show).fine().out);
    bench.edit("sensitive = [\"event_id\"]\nretry_topic = ", "retry_topic = ");
    assert_eq!((&masked["decoded"]["event_id"], &masked["decoded"]["code"]), (&"***".into(), &"de-1".into()));
    assert_eq!((&masked["value"], &masked["key"]), (&"(masked)".into(), &"(masked)".into()));
    assert!(shown.contains("\"***\"") && !shown.contains(&format!("\"{id}\"")), "{shown}");
    let hex: String = id.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(!masked.to_string().contains(&hex), "{masked}");
}

/// Sends the first retried place again, and a record that is no retry.
fn foreign(bench: &Bench) {
    let topic = format!("{}-retry", bench.topic);
    let place =
        bench.ask("SELECT concat(topic, '/', toString(partition), '@', toString(offset)) FROM weir_retried LIMIT 1");
    let config = ClientConfig::new().set("bootstrap.servers", parts().kafka()).clone();
    let producer: BaseProducer = config.create().unwrap();
    let headers = OwnedHeaders::new()
        .insert(Header { key: "weir_retry_of", value: Some(place.as_str()) })
        .insert(Header { key: "weir_retry_kafka_time", value: Some("0") });
    producer.send(BaseRecord::<[u8], [u8]>::to(&topic).payload(&b"junk"[..]).headers(headers)).unwrap();
    producer.send(BaseRecord::<[u8], [u8]>::to(&topic).payload(&b"junk"[..])).unwrap();
    producer.flush(Duration::from_secs(20)).unwrap();
}

#[test]
fn each_record_is_retried_once_whatever_is_killed() {
    let bench = bench("quarantine_kill", size(6_000, 60_000));
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    let (codes, waiting, _) = cause(&bench, "codes");
    mend(&bench);
    let mut random = fastrand::Rng::with_seed(5);
    let kill = |mut child: Child| {
        child.kill().unwrap();
        child.wait().unwrap();
    };
    for round in 0..size(6, 30) {
        let running = bench.start(&["run", "pipeline.toml"]);
        let retry = bench.start(&["quarantine", "retry", "pipeline.toml", &codes, "--yes", "--wait", "1"]);
        std::thread::sleep(Duration::from_millis(random.u64(50..1_500)));
        // The command first, or the pipeline.
        let (first, second) = if round % 2 == 0 { (retry, running) } else { (running, retry) };
        kill(first);
        std::thread::sleep(Duration::from_millis(random.u64(0..700)));
        kill(second);
    }
    let planned = number(&bench, "SELECT count() FROM weir_retries");
    bench.weir(&["quarantine", "retry", "pipeline.toml", &codes, "--yes", "--wait", "0"]).fine();
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("the cause is retried", || cause(&bench, "codes").1 == 0);
    crate::program::terminate(&mut running);
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    is_right(&bench, WRONG_TYPE);
    assert_eq!(cause(&bench, "codes").2, waiting);
    println!("{waiting} records, {planned} retries of which some were killed: each once");
}
