//! Uniqueness, judged by ClickHouse as well: of the events with one key, which are all within the horizon here, all but one break
//! the rule, whichever arrives first. Through a kill and with another number of workers the same.

use std::fmt::Write;
use std::path::Path;

use crate::program::{Bench, block_on, clickhouse, terminate, wait_until};

const EVENTS: usize = 900;

const RULES: &str = r#"
[quality.rules.one_code_each]
source = "events"
when = "amount > 0"
fields = ["code", "type"]
unique_within_ms = 7200000
mode = "tag"
owner = "shop"

[quality.rules.one_email_each]
source = "events"
field = "email"
unique_within_ms = 7200000
mode = "observe"
"#;
const REFUSED: &str = "type NOT IN ('purchase', 'signup', 'view') OR NOT match(code, '^[A-Z]{2}-[0-9]+$')";

/// Events of the last half hour in which codes and addresses come again; every seventh event is there twice.
fn lines() -> String {
    let now = weir_pipeline::clock::Clock::System.now_ms() as u64;
    let mut random = fastrand::Rng::with_seed(31);
    let mut lines = String::new();
    for id in 0..EVENTS {
        let kind = ["purchase", "signup", "view", "vview"][random.usize(..4)];
        let amount = ["null", "1.5", "20", "0"][random.usize(..4)];
        let code = format!("{}-{}", ["DE", "at"][usize::from(random.u8(..) < 30)], random.u32(..60));
        let email = ["null".to_owned(), "\"\"".to_owned(), format!("\"u{}@example.org\"", random.u32(..80))];
        let email = &email[random.usize(..3)];
        let at = now - random.u64(..1_800_000);
        let line = format!(
            r#"{{"event_id": "e{id}", "occurred_at": {at}, "tenant": "t{}", "type": "{kind}", "amount": {amount}, "age": 30, "code": "{code}", "email": {email}, "props": {{"size": "1"}}}}"#,
            id % 3
        );
        for _ in 0..if id % 7 == 0 { 2 } else { 1 } {
            writeln!(lines, "{line}").unwrap();
        }
    }
    lines
}

fn bench(rules: &str) -> Bench {
    let bench = Bench::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/rules"), "unique");
    let text = std::fs::read_to_string(bench.file()).unwrap();
    std::fs::write(bench.file(), text + rules).unwrap();
    let lines = lines();
    std::fs::write(bench.folder.path().join("events.json"), &lines).unwrap();
    clickhouse("default", &format!("CREATE DATABASE {}_raw", bench.database), &[]);
    let columns = "event_id String, occurred_at Int64, tenant String, type String, amount Nullable(Float64), \
                   age Nullable(Int32), code String, email Nullable(String), props Map(String, String)";
    let raw = format!("CREATE TABLE {}_raw.raw ({columns}) ENGINE = MergeTree ORDER BY event_id", bench.database);
    clickhouse("default", &raw, &[]);
    let insert = format!("INSERT INTO {}_raw.raw FORMAT JSONEachRow", bench.database);
    clickhouse("default", &insert, lines.as_bytes());
    let produce = ["produce", "--topic", &bench.topic, "--partitions", "3", "--json", "events.json"];
    bench.weir(&[&produce[..], &["--schema", "event.avsc", "--time", "occurred_at"]].concat()).fine();
    bench
}

/// All but one of each key, among the events that no rule refuses.
fn expected(bench: &Bench, key: &str, when: &str) -> u64 {
    let of_key = format!(
        "SELECT uniqExact(event_id) - 1 AS more FROM {}_raw.raw WHERE NOT ({REFUSED}) AND {when} GROUP BY tenant, {key}",
        bench.database
    );
    bench.ask(&format!("SELECT sum(more) FROM ({of_key})")).parse().unwrap()
}

fn compare(bench: &Bench) {
    let all = expected(bench, "code, type", "ifNull(amount > 0, 0)");
    assert!(all > 50, "only {all} events break it");
    let tagged =
        "SELECT count(), uniqExact(topic, partition, offset) FROM weir_violations WHERE rule = 'one_code_each'";
    assert_eq!(bench.ask(tagged), format!("{all}\t{all}"));
    let marked = "SELECT countIf(has(weir_broken_rules, 'one_code_each')) FROM events";
    assert_eq!(bench.ask(marked), all.to_string());
    // One of each key kept the rule, and only events that it is about broke it.
    let kept = "SELECT max(kept), min(kept), sum(wrong) FROM (SELECT countIf(amount > 0 AND NOT has(weir_broken_rules, \
                'one_code_each')) AS kept, countIf(has(weir_broken_rules, 'one_code_each') AND NOT ifNull(amount > 0, 0)) \
                AS wrong FROM events GROUP BY tenant, code, type HAVING countIf(amount > 0) > 0)";
    assert_eq!(bench.ask(kept), "1\t1\t0");
    let ledger = "SELECT sum(consumed) - sum(accepted) - sum(quarantined) - sum(duplicate + duplicate_differing), \
                  sum(duplicate_differing) FROM weir_ledger";
    assert_eq!(bench.ask(ledger), "0\t0");
}

#[test]
fn all_but_one_of_a_key_break_the_rule_that_it_is_unique() {
    let bench = bench(RULES);
    let check = bench.weir(&["check", "pipeline.toml"]).fine().out;
    assert!(check.contains("no other event with the same code, type and tenant within 7200000 ms"), "{check}");
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("everything is read", || bench.consumed() == (EVENTS + EVENTS.div_ceil(7)) as u64);
    let metrics = block_on(async { reqwest::get(bench.page("/metrics")).await.unwrap().text().await.unwrap() });
    terminate(&mut running);
    compare(&bench);
    // Copies of an event that breaks the rule break it, too, as with every rule.
    let emails = expected(&bench, "email", "ifNull(email, '') != ''");
    let line = "weir_rule_broken_total{source=\"events\",rule=\"one_email_each\",mode=\"observe\"} ";
    let counted = metrics.lines().find_map(|of| of.strip_prefix(line)).unwrap_or("0").parse::<u64>().unwrap();
    assert!(emails > 50 && counted >= emails && counted < emails * 2, "{counted} of {emails} or a few more");
    let found = "SELECT min(match(found, '^code=DE-[0-9]+, type=[a-z]+$')), any(owner) FROM weir_violations WHERE rule = \
                 'one_code_each'";
    assert_eq!(bench.ask(found), "1\tshop");
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    bench.weir(&["verify", "pipeline.toml"]).fine();
}

#[test]
fn uniqueness_survives_a_kill_and_another_number_of_workers() {
    let bench = bench(RULES);
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("something is read", || bench.consumed() > 0);
    running.kill().unwrap();
    running.wait().unwrap();
    bench.weir(&["run", "pipeline.toml", "--until-end", "--workers", "1"]).fine();
    compare(&bench);
}

#[test]
fn what_isnt_unique_is_refused_whole_where_the_rule_says_so() {
    let bench = bench(&RULES.replace("mode = \"tag\"\n", ""));
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("something is read", || bench.consumed() > 0);
    running.kill().unwrap();
    running.wait().unwrap();
    bench.weir(&["run", "pipeline.toml", "--until-end", "--workers", "3"]).fine();
    // One event of each key went on, in its copies too; each other one is in the quarantine, once for each of its records.
    let keys = format!(
        "SELECT uniqExact(tenant, code, type) FROM {}_raw.raw WHERE NOT ({REFUSED}) AND ifNull(amount > 0, 0)",
        bench.database
    );
    let keys: u64 = bench.ask(&keys).parse().unwrap();
    let kept = "SELECT count(), uniqExact(tenant, code, type) FROM events WHERE ifNull(amount > 0, 0)";
    assert_eq!(bench.ask(kept), format!("{keys}\t{keys}"));
    let others = expected(&bench, "code, type", "ifNull(amount > 0, 0)");
    let refused = "SELECT uniqExact(topic, partition, offset), count() FROM \
                   weir_quarantine WHERE rule = 'one_code_each' AND has(broken_rules, 'one_code_each') AND owner = 'shop'";
    let refused = bench.ask(refused);
    let (places, rows) = refused.split_once('\t').unwrap();
    assert_eq!(places, rows, "each record once");
    let rows: u64 = rows.parse().unwrap();
    assert!(others > 50 && rows >= others && rows < others * 2, "{rows} of {others} and their copies");
    let whole = "SELECT min(length(value) > 40 AND startsWith(value, unhex('00')) AND match(found, '^code=DE-[0-9]+, type=')) \
                 FROM weir_quarantine WHERE rule = 'one_code_each'";
    assert_eq!(bench.ask(whole), "1");
    let ledger = "SELECT sum(consumed) - sum(accepted) - sum(quarantined) - sum(duplicate + duplicate_differing), \
                  (SELECT count() FROM weir_quarantine) - sum(quarantined) FROM weir_ledger";
    assert_eq!(bench.ask(ledger), "0\t0");
    bench.weir(&["verify", "pipeline.toml"]).fine();
}

#[test]
fn problems_of_a_rule_of_uniqueness_are_told() {
    let bench = Bench::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/rules"), "unique");
    let text = std::fs::read_to_string(bench.file()).unwrap();
    let rules = RULES.replace("field = \"email\"", "field = \"email\"\nfields = []");
    std::fs::write(bench.file(), text + &rules).unwrap();
    bench
        .weir(&["check", "pipeline.toml", "--offline"])
        .refused(2, &["rule `one_email_each` has `field` and `fields`"]);
}
