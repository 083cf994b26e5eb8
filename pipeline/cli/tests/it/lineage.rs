//! Lineage on real parts: the offsets that are told of a row are those that independent SQL finds among the accepted events,
//! and the value that comes out of them is the stored one.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::program::{Bench, parts, terminate, wait_until};
use crate::shop::{sell, shop};

const FAULTS: &[&str] = &[
    "--disorder-ms",
    "3000",
    "--duplicates",
    "0.05",
    "--stragglers",
    "0.02",
    "--straggler-ms",
    "60000",
    "--bad",
    "0.02",
];
const EVENTS: u64 = 20_000;

/// A row's key: its minute, tenant and country.
type Key = [String; 3];

/// A shop that was stopped on the way and went on with more workers.
fn run_in_two_parts(name: &str) -> Bench {
    let bench = shop(name);
    sell(&bench, EVENTS, 5, FAULTS);
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("the first part is read", || bench.consumed() >= EVENTS);
    terminate(&mut running);
    // The first part ends at 06:53:20: the second begins before, in windows that hold rows already.
    let produce = ["produce", "--topic", &bench.topic, "--storefront", "--from", "2026-01-05T06:52:55Z"];
    let rest = ["--events-per-second", "100", "--event-timestamps", "--count", "20000", "--seed", "6"];
    bench.weir(&[&produce[..], &rest, FAULTS].concat()).fine();
    bench.weir(&["run", "pipeline.toml", "--until-end", "--workers", "3"]).fine();
    bench
}

fn keys(bench: &Bench, sql: &str) -> Vec<Key> {
    let of = |line: &str| {
        let mut parts = line.split('\t').map(str::to_owned);
        [(); 3].map(|()| parts.next().unwrap_or_default())
    };
    bench.ask(sql).lines().map(of).collect()
}

fn explain(bench: &Bench, [minute, tenant, country]: &Key) -> Value {
    let (tenant, country) = (format!("tenant={tenant}"), format!("country={country}"));
    let arguments = ["explain", "row", "pipeline.toml", "by_minute", "--window", minute, "--json"];
    let done = bench.weir(&[&arguments[..], &["--where", &tenant, "--where", &country]].concat()).fine();
    serde_json::from_str(&done.out).unwrap()
}

/// Every offset that is told, as `partition@offset`.
fn told(report: &Value) -> BTreeSet<String> {
    let mut places = BTreeSet::new();
    for of in report["partitions"].as_array().unwrap() {
        for run in of["runs"].as_array().unwrap() {
            let (first, last) = (run[0].as_i64().unwrap(), run[1].as_i64().unwrap());
            places.extend((first..=last).map(|offset| format!("{}@{offset}", of["partition"])));
        }
        let records: u64 = of["records"].as_u64().unwrap();
        assert!(records > 0, "{of}");
    }
    places
}

/// The same by SQL of its own over the accepted events.
fn accepted(bench: &Bench, [minute, tenant, country]: &Key) -> BTreeSet<String> {
    let sql = format!(
        "SELECT concat(toString(_partition), '@', toString(_offset)) FROM events WHERE occurred_at >= toDateTime('{minute}', 'UTC') \
         AND occurred_at < toDateTime('{minute}', 'UTC') + 60 AND tenant = '{tenant}' AND props['country'] = '{country}' \
         AND type != 'heartbeat'"
    );
    bench.ask(&sql).lines().map(str::to_owned).collect()
}

const KEY: &str = "toString(window_start, 'UTC') AS minute, tenant, country";

#[test]
fn a_row_is_explained_by_the_offsets_that_made_it() {
    let bench = run_in_two_parts("lineage");
    epochs_tile_the_log(&bench);
    let random = format!("SELECT {KEY} FROM by_minute ORDER BY sipHash64(minute, tenant, country) LIMIT 8");
    let corrected =
        format!("SELECT {KEY} FROM by_minute WHERE revision > 0 ORDER BY revision DESC, minute, tenant LIMIT 3");
    let mut rows = keys(&bench, &random);
    rows.extend(keys(&bench, &corrected));
    assert_eq!(rows.len(), 11, "late events corrected rows");
    let (mut copies, mut epochs) = (0, 0);
    for key in &rows {
        let report = explain(&bench, key);
        assert_eq!(told(&report), accepted(&bench, key), "{key:?}");
        assert_eq!(report["is_equal"], true, "{report:#}");
        assert_eq!(report["recomputed_from"], "the log");
        assert_eq!(report["notes"], serde_json::json!([]), "{key:?}");
        let count =
            |of: &str| -> u64 { report[of].as_array().unwrap().iter().map(|of| of["records"].as_u64().unwrap()).sum() };
        assert_eq!(count("partitions"), count("schemas"));
        assert_eq!(count("partitions"), count("releases"));
        assert_eq!(report["schemas"][0]["version"], 1, "{report:#}");
        assert_eq!(report["versions"][0]["is_todays_view"], true, "{report:#}");
        copies += report["copies"].as_u64().unwrap();
        epochs = epochs.max(report["epochs"][0].as_u64().unwrap());
    }
    assert!(copies > 0 && epochs > 1, "{copies} copies, {epochs} epochs");
    what_was_refused_is_told(&bench);
    what_cannot_be_explained_is_said(&bench, &rows[0]);

    // Without the accepted events the log alone has to do.
    bench.edit("keep_events_days = 10000\n", "");
    for key in &rows {
        let report = explain(&bench, key);
        assert_eq!(told(&report).len(), accepted(&bench, key).len(), "{key:?}");
        assert_eq!(report["is_equal"], true, "{report:#}");
        assert!(report["copies_known_by"].as_str().unwrap().contains("aren't kept"));
    }
}

/// What epochs took is every record, once.
fn epochs_tile_the_log(bench: &Bench) {
    let consumed = bench.ask("SELECT sum(consumed) FROM weir_ledger");
    assert_eq!(bench.ask("SELECT sum(records) FROM weir_epochs"), consumed);
    let gaps = "SELECT countIf(first_offset != before) FROM (SELECT first_offset, lagInFrame(next_offset, 1, 0) OVER \
                (PARTITION BY topic, partition ORDER BY first_offset) AS before FROM weir_epochs)";
    assert_eq!(bench.ask(gaps), "0");
    let joined = "SELECT count() = (SELECT count() FROM events) FROM events AS e INNER JOIN weir_epochs AS w ON w.partition = \
                  e._partition WHERE e._offset >= w.first_offset AND e._offset < w.next_offset \
                  AND e._event_time >= w.least_event_time AND e._event_time <= w.greatest_event_time";
    assert_eq!(bench.ask(joined), "1", "an event outside of its epoch's span");
    let version = "SELECT count(), any(first_epoch), uniqExact(e.pipeline_version) FROM weir_versions AS v \
                   INNER JOIN weir_epochs AS e ON e.pipeline_version = v.pipeline_version WHERE 1";
    assert!(bench.ask(version).ends_with("\t1\t1"), "{}", bench.ask(version));
}

/// All rows of the minute and tenant with most refusals by the rule tell them together.
fn what_was_refused_is_told(bench: &Bench) {
    let worst = bench.ask(
        "SELECT toString(toStartOfMinute(event_time), 'UTC') AS minute, tenant, count() FROM weir_quarantine \
         WHERE reason = 'rule' GROUP BY ALL ORDER BY count() DESC, minute, tenant LIMIT 1",
    );
    let worst: Vec<&str> = worst.split('\t').collect();
    let rows =
        keys(bench, &format!("SELECT {KEY} FROM by_minute WHERE minute = '{}' AND tenant = '{}'", worst[0], worst[1]));
    let mut refused = 0;
    for key in &rows {
        let report = explain(bench, key);
        let of_rule = report["left_out"].as_array().unwrap().iter().filter(|of| of["rule"] == "amounts_are_positive");
        refused += of_rule.map(|of| of["records"].as_u64().unwrap()).sum::<u64>();
    }
    assert_eq!(refused.to_string(), worst[2], "{worst:?}");
}

fn what_cannot_be_explained_is_said(bench: &Bench, [minute, tenant, _]: &Key) {
    let ask = |view: &str, rest: &[&str]| bench.weir(&[&["explain", "row", "pipeline.toml", view][..], rest].concat());
    ask("by_minut", &["--window", minute]).refused(2, &["there is no view `by_minut`", "did you mean `by_minute`?"]);
    ask("by_minute", &["--window", "noon"]).refused(2, &["`--window noon` is no time"]);
    let between = format!("{}30", minute.strip_suffix("00").unwrap());
    let begins = format!("--window {}Z", minute.replace(' ', "T"));
    ask("by_minute", &["--window", &between]).refused(2, &["no window of `by_minute` begins at", &begins]);
    ask("by_minute", &["--window", minute, "--where", "land=DE"])
        .refused(2, &["no dimension `land`", "it has tenant, country"]);
    let tenant = format!("tenant={tenant}");
    ask("by_minute", &["--window", minute, "--where", &tenant]).refused(2, &["more than one row", "--where 'country="]);
    ask("by_minute", &["--window", minute, "--where", "tenant=nobody"]).refused(2, &["has no such row"]);
    let people = ask("by_minute", &["--window", "2026-01-05T00:00:00Z", "--where", "country"]);
    people.refused(2, &["name=value"]);
}

#[test]
fn what_the_log_has_forgotten_comes_from_the_accepted_events_or_from_nowhere() {
    use rdkafka::admin::{AdminClient, AdminOptions};
    use rdkafka::client::DefaultClientContext;
    let bench = shop("lineage_forgotten");
    sell(&bench, EVENTS, 7, FAULTS);
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    let row = keys(&bench, &format!("SELECT {KEY} FROM by_minute ORDER BY minute, events DESC LIMIT 1")).remove(0);
    let expected = accepted(&bench, &row);
    assert_eq!(told(&explain(&bench, &row)), expected);

    let mut up_to = rdkafka::TopicPartitionList::new();
    let first = expected.iter().next().unwrap();
    let (partition, offset) = first.split_once('@').unwrap();
    let at = rdkafka::Offset::Offset(offset.parse::<i64>().unwrap() + 1);
    up_to.add_partition_offset(&bench.topic, partition.parse().unwrap(), at).unwrap();
    let client: AdminClient<DefaultClientContext> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", parts().kafka()).create().unwrap();
    crate::program::block_on(client.delete_records(&up_to, &AdminOptions::new())).unwrap();

    let report = explain(&bench, &row);
    assert_eq!(report["is_equal"], true, "{report:#}");
    assert!(report["recomputed_from"].as_str().unwrap().starts_with("the accepted events"), "{report:#}");
    assert_eq!(told(&report), expected);
    bench.edit("keep_events_days = 10000\n", "");
    let report = explain(&bench, &row);
    assert_eq!(report["is_equal"], Value::Null);
    assert!(report["recomputed_from"].as_str().unwrap().starts_with("nothing"), "{report:#}");
    // What is gone can't be told, nor which copies counted: where the log has only another copy of an event, it is told in
    // its stead, and the report says so. All else is as before.
    let cut: i64 = offset.parse().unwrap();
    let is_gone = |place: &&String| {
        place.split_once('@').is_some_and(|(of, at)| of == partition && at.parse::<i64>().unwrap() <= cut)
    };
    let (lost, left): (BTreeSet<&String>, BTreeSet<&String>) = expected.iter().partition(is_gone);
    let told = told(&report);
    assert!(!told.iter().any(|place| is_gone(&place)), "{first} and before is forgotten, and told is {told:?}");
    let missing: Vec<_> = left.iter().filter(|place| !told.contains(**place)).collect();
    let others: Vec<_> = told.iter().filter(|place| !expected.contains(*place)).collect();
    let seen =
        format!("{} of {} forgotten up to {first}; missing {missing:?}; others {others:?}", lost.len(), expected.len());
    println!("{seen}");
    // A copy that lies in another partition, which is read first, may be told though the one that counted is still there.
    assert!(told.len() <= expected.len() && told.len() >= left.len(), "{seen}");
    assert!(others.len() <= lost.len() + missing.len(), "{seen}");
    assert!(report["copies_known_by"].as_str().unwrap().contains("another copy stands in its stead"), "{report:#}");
}
