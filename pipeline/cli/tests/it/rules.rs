//! Rules of every kind and mode, judged by ClickHouse as well: the same conditions, written anew, over the events as they
//! were before Weir saw them.

use std::fmt::Write;
use std::path::Path;

use crate::program::{Bench, block_on, clickhouse, terminate, wait_until};

const EVENTS: usize = 900;

/// Each rule, and for which of the raw events it is broken.
const BROKEN: &[(&str, &str)] = &[
    ("types", "type NOT IN ('purchase', 'signup', 'view')"),
    ("codes", "NOT match(code, '^[A-Z]{2}-[0-9]+$')"),
    ("amounts", "type = 'purchase' AND NOT ifNull(amount > 0 AND age >= 18, 0)"),
    ("ages", "age < 0 OR age > 120"),
    ("emails_given", "type = 'signup' AND ifNull(email, '') = ''"),
    (
        "emails",
        "email IS NOT NULL AND (countSubstrings(email, '@') != 1 OR startsWith(email, '@') OR endsWith(email, '@'))",
    ),
    ("code_lengths", "length(code) NOT BETWEEN 4 AND 7"),
    ("sizes", "props['size'] != '' AND toFloat64OrNull(props['size']) IS NULL"),
    ("countries_are_words", "toFloat64OrNull(props['country']) IS NOT NULL"),
    ("countries", "props['country'] NOT IN ('', 'AT', 'DE', 'KR', 'O\\'N')"),
    ("counted", "props['n'] != '' AND NOT ifNull(toInt64OrNull(props['n']) > 3, 0)"),
];
const REFUSED: &str = "type NOT IN ('purchase', 'signup', 'view') OR NOT match(code, '^[A-Z]{2}-[0-9]+$')";

/// Events of the last half hour; every seventh is there twice.
fn lines() -> String {
    let now = weir_pipeline::clock::Clock::System.now_ms() as u64;
    let mut random = fastrand::Rng::with_seed(11);
    let mut lines = String::new();
    for id in 0..EVENTS {
        let mut pick = |values: &[&'static str]| values[random.usize(..values.len())];
        let kind = pick(&["purchase", "purchase", "signup", "view", "view", "view", "vview"]);
        let amount = pick(&["null", "1.5", "20", "0", "-3.25"]);
        let age = pick(&["null", "17", "18", "44", "-1", "121", "120", "0"]);
        let code = pick(&["DE-1", "DE-12345", "AT-22", "KR-00", "at-22", "DE-", "DE-1\\n", "X", ""]);
        let email = pick(&["null", "null", "\"\"", "\"a@b\"", "\"someone@example.org\"", "\"nobody\"", "\"a@b@c\""]);
        let size = pick(&["", "1", "1.5e3", "XL", "1,5", "-7"]);
        let country = pick(&["", "AT", "DE", "O'N", "49", "at", "XX"]);
        let n = pick(&["", "", "3", "4", "-9", "many"]);
        let at = now - random.u64(..1_800_000);
        let line = format!(
            r#"{{"event_id": "e{id}", "occurred_at": {at}, "tenant": "t{}", "type": "{kind}", "amount": {amount}, "age": {age}, "code": "{code}", "email": {email}, "props": {{"size": "{size}", "country": "{country}", "n": "{n}", "phone": "0800-{id}"}}}}"#,
            id % 3
        );
        for _ in 0..if id % 7 == 0 { 2 } else { 1 } {
            writeln!(lines, "{line}").unwrap();
        }
    }
    lines
}

fn bench() -> Bench {
    let bench = Bench::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/rules"), "rules");
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

fn number(text: &str) -> u64 {
    text.parse().unwrap()
}

#[test]
fn each_kind_of_rule_finds_the_events_that_clickhouse_finds() {
    let bench = bench();
    let check = bench.weir(&["check", "pipeline.toml"]).fine().out;
    for told in ["code_lengths", "length(code) >= 4 AND length(code) <= 7", "4 values of code in", "AT, DE, KR, O\\'N"]
    {
        assert!(check.contains(told), "{told} is missing in\n{check}");
    }
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    bench.weir(&["verify", "pipeline.toml"]).fine();

    let raw = |what: &str, condition: &str| {
        number(&bench.ask(&format!("SELECT {what} FROM {}_raw.raw WHERE {condition}", bench.database)))
    };
    let refused = raw("count()", REFUSED);
    assert!(refused > 100 && raw("count()", &format!("NOT ({REFUSED})")) > 100);
    let ledger = "SELECT sum(consumed), sum(accepted), sum(quarantined), sum(consumed) - sum(accepted) - sum(quarantined) \
                  - sum(duplicate + duplicate_differing) FROM weir_ledger";
    let accepted = raw("uniqExact(event_id)", &format!("NOT ({REFUSED})"));
    assert_eq!(bench.ask(ledger), format!("{}\t{accepted}\t{refused}\t0", EVENTS + EVENTS.div_ceil(7)));
    for (rule, broken) in BROKEN {
        let all = raw("count()", broken);
        assert!(all > 10, "{rule}: only {all} events break it");
        // Refused events tell every rule that they break, whatever its mode; copies are refused as well.
        let of_refused = format!("SELECT countIf(has(broken_rules, '{rule}')) FROM weir_quarantine");
        assert_eq!(number(&bench.ask(&of_refused)), raw("count()", &format!("({broken}) AND ({REFUSED})")), "{rule}");
        // Accepted ones are tagged, once each.
        let tagged = raw("uniqExact(event_id)", &format!("({broken}) AND NOT ({REFUSED})"));
        let tagged = if ["code_lengths", "countries_are_words"].contains(rule) { 0 } else { tagged };
        let violations = format!("SELECT count() FROM weir_violations WHERE rule = '{rule}'");
        assert_eq!(number(&bench.ask(&violations)), tagged, "{rule}: violations");
        let events = format!("SELECT countIf(has(weir_broken_rules, '{rule}')) FROM events");
        assert_eq!(number(&bench.ask(&events)), tagged, "{rule}: tags");
    }
    let clocks = "SELECT countIf(has(weir_broken_rules, 'clocks')), countIf(abs(dateDiff('millisecond', _event_time, \
                  _kafka_time)) > 600000), countIf(NOT has(weir_broken_rules, 'clocks')) > 50 FROM events";
    let clocks = bench.ask(clocks);
    let counts: Vec<&str> = clocks.split('\t').collect();
    assert!(counts[0] == counts[1] && number(counts[0]) > 50 && counts[2] == "1", "{clocks}");
    what_is_told(&bench);
}

/// Rule, field, expectation, owner and fingerprint; and nothing of what is sensitive.
fn what_is_told(bench: &Bench) {
    let decided = "SELECT rule, field, expected, severity, owner, uniqExact(fingerprint), min(detail = rule), \
                   min(reason = 'rule') FROM weir_quarantine GROUP BY ALL ORDER BY rule FORMAT TSVRaw";
    assert_eq!(
        bench.ask(decided),
        "codes\tcode\tmatch(code, '^[A-Z]{2}-\\\\d+$')\twarning\tcatalogue\t1\t1\t1\n\
         types\ttype\ttype IN ('purchase', 'signup', 'view')\tcritical\tweb\t1\t1\t1"
    );
    let found = "SELECT arraySort(groupUniqArray(found)) FROM weir_quarantine WHERE rule = 'types' FORMAT TSVRaw";
    assert_eq!(bench.ask(found), "['vview']");
    let both = "SELECT count() > 5, min(length(broken_rules) >= 2), min(rule = 'codes') FROM weir_quarantine \
                WHERE has(broken_rules, 'codes') AND has(broken_rules, 'types')";
    assert_eq!(bench.ask(both), "1\t1\t1", "the first by id decides, all are told");
    let tagged = "SELECT DISTINCT found FROM weir_violations WHERE rule IN ('emails', 'emails_given')";
    assert_eq!(bench.ask(tagged), "(masked)");
    let ages =
        "SELECT arraySort(groupUniqArray(found)), any(expected) FROM weir_violations WHERE rule = 'ages' FORMAT TSVRaw";
    assert_eq!(bench.ask(ages), "['-1','121']\tage IS NULL OR (age >= 0 AND age <= 120)");
    let amounts =
        "SELECT DISTINCT found FROM weir_violations WHERE rule = 'amounts' AND found LIKE '%-3.25%' ORDER BY 1";
    assert!(bench.ask(amounts).contains("amount=-3.25, age=44"), "{}", bench.ask(amounts));
    let counted = "SELECT arraySort(groupUniqArray(found)) FROM weir_violations WHERE rule = 'counted' FORMAT TSVRaw";
    assert_eq!(bench.ask(counted), "['props[\\'n\\']=-9','props[\\'n\\']=3','props[\\'n\\']=many']");
    let key = "SELECT count() - uniqExact(topic, partition, offset, rule), uniqExact(fingerprint) - uniqExact(rule), \
               countIf(position(found, '@') > 0) FROM weir_violations";
    assert_eq!(bench.ask(key), "0\t0\t0");
}

#[test]
fn rules_that_are_only_observed_are_counted() {
    let bench = bench();
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("everything is read", || bench.consumed() == (EVENTS + EVENTS.div_ceil(7)) as u64);
    let metrics = block_on(async { reqwest::get(bench.page("/metrics")).await.unwrap().text().await.unwrap() });
    terminate(&mut running);
    for (rule, broken) in BROKEN {
        let count = bench.ask(&format!("SELECT count() FROM {}_raw.raw WHERE {broken}", bench.database));
        let line = format!("weir_rule_broken_total{{source=\"events\",rule=\"{rule}\",mode=");
        let found = metrics.lines().find(|of| of.starts_with(&line)).unwrap_or_default();
        assert!(found.ends_with(&format!("\"}} {count}")), "{rule}: {count} expected, {found}");
    }
}

#[test]
fn every_problem_of_rules_is_told_with_its_place() {
    let bench = Bench::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/rules"), "rules");
    let check = ["check", "pipeline.toml", "--offline"];
    bench.edit("min = 0\nmax = 120", "min = 130\nmax = 120");
    bench.edit("number = false", "number = false\nrequired = true");
    bench.edit("max_clock_skew_ms = 600000", "field = \"type\"");
    bench.weir(&check).refused(
        2,
        &[
            "pipeline.toml:56:1: rule `ages` allows no value: 130 is more than 120",
            "rule `countries_are_words` has two requirements, `required` and `number`",
            "rule `clocks` requires nothing",
        ],
    );
    let bench = Bench::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/rules"), "rules");
    bench.edit("field = \"age\"", "field = \"aeg\"");
    bench.edit("'^[^@]+@[^@]+$'", "'(?i)[a'");
    bench.edit("column = \"code\"", "column = \"cod\"");
    bench.edit("when = \"props['size'] != ''\"", "when = \"props['size'] !\"");
    bench.edit("field = \"type\"\n", "field = \"amount\"\n");
    bench.edit("\"props['phone']\"]", "\"fone\"]");
    bench.edit("one_of = [\"purchase\", \"signup\", \"view\"]", "number = true");
    let said = bench.weir(&check);
    said.refused(
        2,
        &[
            "rule `countries`: the table has no column `cod`",
            "did you mean `code`?",
            "`sensitive` names the field `fone`",
        ],
    );
    bench.edit("column = \"cod\"", "column = \"code\"");
    bench.edit("\"fone\"]", "\"props['phone']\"]");
    bench.weir(&check).refused(
        2,
        &[
            "rule `ages`:1:1: there is no column `aeg`",
            "did you mean `age`?",
            "(?i isn't supported",
            "rule `sizes`",
            "`number` wants a text, and `amount` is Nullable(Float64)",
        ],
    );
}
