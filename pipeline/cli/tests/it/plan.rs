//! Tracking plans and rules in the reader schema, judged by ClickHouse as well: the same requirements, written anew, over the
//! events as they were before Weir saw them. And `weir plan`, as people use it.

use std::fmt::Write;
use std::path::Path;

use crate::program::{Bench, clickhouse, wait_until};

const EVENTS: usize = 1_200;

/// Version 1 judges who claims it; version 2, the newest, everybody else.
const ONE: &str = "props['plan'] = '1'";
const TWO: &str = "props['plan'] != '1'";

/// Each rule, for which of the raw events it is broken, and whether those that pass are tagged.
fn broken() -> Vec<(&'static str, String, bool)> {
    let size = "toFloat64OrNull(props['size'])";
    vec![
        ("plan/purchase/amount@1", "type = 'purchase' AND NOT ifNull(amount >= 0, 0)".to_owned(), true),
        (
            "plan/purchase/props.country@1",
            format!("{ONE} AND type = 'purchase' AND props['country'] NOT IN ('', 'AT', 'DE')"),
            true,
        ),
        (
            "plan/purchase/props.country@2",
            format!("{TWO} AND type = 'purchase' AND props['country'] NOT IN ('AT', 'DE', 'KR')"),
            false,
        ),
        ("plan/view/props.path@1", format!("{ONE} AND type = 'view' AND NOT startsWith(props['path'], '/')"), true),
        (
            "plan/purchase/props.size@2",
            format!("{TWO} AND type = 'purchase' AND props['size'] != '' AND NOT ifNull({size} BETWEEN 1 AND 50, 0)"),
            true,
        ),
        ("plan/signup/code@2", format!("{TWO} AND type = 'signup' AND length(code) NOT BETWEEN 1 AND 4"), true),
        (
            "plan/*/props.phone@2",
            format!("{TWO} AND type IN ('purchase', 'signup') AND length(props['phone']) BETWEEN 1 AND 5"),
            true,
        ),
        ("plan_unknown_version", "props['plan'] NOT IN ('1', '2')".to_owned(), true),
        (
            "plan_unknown_type",
            format!("if({ONE}, type NOT IN ('purchase', 'view'), type NOT IN ('purchase', 'signup'))"),
            true,
        ),
        (
            "plan_unplanned_property",
            format!(
                "{TWO} AND (type = 'purchase' AND arrayExists(k -> k NOT IN ('plan', 'phone', 'country', 'size'), mapKeys(props)) \
                 OR type = 'signup' AND arrayExists(k -> k NOT IN ('plan', 'phone'), mapKeys(props)))"
            ),
            false,
        ),
        ("schema/amount/max", "amount > 900".to_owned(), true),
        ("schema/code/pattern", "type = 'purchase' AND NOT match(code, '^[A-Z]')".to_owned(), true),
        ("schema/props.size/number", format!("props['size'] != '' AND {size} IS NULL"), true),
    ]
}

fn refused() -> String {
    format!("({TWO} AND type = 'purchase' AND props['country'] NOT IN ('AT', 'DE', 'KR'))")
}

fn lines(is_clean: bool) -> String {
    let now = weir_pipeline::clock::Clock::System.now_ms() as u64;
    let mut random = fastrand::Rng::with_seed(if is_clean { 5 } else { 23 });
    let mut lines = String::new();
    for id in 0..EVENTS {
        let mut pick = |values: &[&'static str]| values[random.usize(..values.len())];
        let kind = pick(&["purchase", "purchase", "view", "signup", if is_clean { "view" } else { "vieww" }]);
        let version = pick(&["\"plan\": \"1\",", "\"plan\": \"2\",", "\"plan\": \"2\",", "\"plan\": \"3\",", ""]);
        let amount =
            if is_clean && kind == "purchase" { "12.5" } else { pick(&["null", "1.5", "20", "-3.25", "1000"]) };
        let code = pick(&["DE-1", "AT-22", "de-1", "x", "DE-12345"]);
        let country =
            pick(&["AT", "DE", "AT", "KR", if is_clean { "DE" } else { "" }, if is_clean { "AT" } else { "XX" }]);
        let size = pick(&["", "1", "7.5", "50", "51", "XL"]);
        let path = pick(&["/a", "/b/c", if is_clean { "/d" } else { "a" }]);
        let phone = pick(&["", "12345", "0800123"]);
        let other = pick(&["", "", ", \"colour\": \"red\""]);
        let sdk = pick(&["web", "ios"]);
        let sdk_version = pick(&["1.0.0", "1.1.0"]);
        let at = now - random.u64(..1_800_000);
        let line = format!(
            r#"{{"event_id": "e{id}", "occurred_at": {at}, "tenant": "t{}", "type": "{kind}", "sdk": "{sdk}", "sdk_version": "{sdk_version}", "amount": {amount}, "code": "{code}", "props": {{{version} "country": "{country}", "size": "{size}", "path": "{path}", "phone": "{phone}"{other}}}}}"#,
            id % 3
        );
        for _ in 0..if id % 9 == 0 { 2 } else { 1 } {
            writeln!(lines, "{line}").unwrap();
        }
    }
    // A property that is there and empty is missing, as one is that isn't there.
    lines.replace("\"size\": \"\", ", "")
}

fn bench(is_clean: bool) -> Bench {
    let bench = Bench::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/plan"), "plan");
    let lines = lines(is_clean);
    std::fs::write(bench.folder.path().join("events.json"), &lines).unwrap();
    clickhouse("default", &format!("CREATE DATABASE {}_raw", bench.database), &[]);
    let columns = "event_id String, occurred_at Int64, tenant String, type String, sdk String, sdk_version String, \
                   amount Nullable(Float64), code String, props Map(String, String)";
    let raw = format!("CREATE TABLE {}_raw.raw ({columns}) ENGINE = MergeTree ORDER BY event_id", bench.database);
    clickhouse("default", &raw, &[]);
    let insert = format!("INSERT INTO {}_raw.raw FORMAT JSONEachRow", bench.database);
    clickhouse("default", &insert, lines.as_bytes());
    let produce = ["produce", "--topic", &bench.topic, "--partitions", "3", "--json", "events.json"];
    bench.weir(&[&produce[..], &["--schema", "event.avsc", "--time", "occurred_at"]].concat()).fine();
    bench
}

fn raw(bench: &Bench, what: &str, condition: &str) -> u64 {
    bench.ask(&format!("SELECT {what} FROM {}_raw.raw WHERE {condition}", bench.database)).parse().unwrap()
}

/// Every rule against the raw events.
fn compare(bench: &Bench) {
    let refused = refused();
    for (rule, broken, is_tagged) in broken() {
        let all = raw(bench, "count()", &broken);
        assert!(all > 10, "{rule}: only {all} events break it");
        let of_refused: u64 =
            bench.ask(&format!("SELECT countIf(has(broken_rules, '{rule}')) FROM weir_quarantine")).parse().unwrap();
        assert_eq!(of_refused, raw(bench, "count()", &format!("({broken}) AND {refused}")), "{rule}: refused");
        let tagged = raw(bench, "uniqExact(event_id)", &format!("({broken}) AND NOT {refused}"));
        let tagged = if is_tagged { tagged } else { 0 };
        let violations = format!("SELECT count() FROM weir_violations WHERE rule = '{rule}'");
        assert_eq!(bench.ask(&violations).parse::<u64>().unwrap(), tagged, "{rule}: violations");
        let events = format!("SELECT countIf(has(weir_broken_rules, '{rule}')) FROM events");
        assert_eq!(bench.ask(&events).parse::<u64>().unwrap(), tagged, "{rule}: tags");
    }
    let accepted = raw(bench, "uniqExact(event_id)", &format!("NOT {refused}"));
    let ledger = "SELECT sum(accepted), sum(quarantined), sum(consumed) - sum(accepted) - sum(quarantined) - sum(duplicate \
                  + duplicate_differing) FROM weir_ledger";
    assert_eq!(bench.ask(ledger), format!("{accepted}\t{}\t0", raw(bench, "count()", &refused)));
}

#[test]
fn each_event_is_judged_by_the_version_that_it_claims_as_clickhouse_judges_it() {
    let bench = bench(false);
    let check = bench.weir(&["check", "pipeline.toml"]).fine().out;
    for told in [
        "plan/purchase/amount@1 of events: tag, warning, owner web",
        "when      type = 'purchase', plan 1, 2",
        "plan/*/props.phone@2",
        "schema/amount/max of events: tag, warning, owner schema owners",
    ] {
        assert!(check.contains(told), "{told} is missing in\n{check}");
    }
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    bench.weir(&["verify", "pipeline.toml"]).fine();
    compare(&bench);

    let found =
        "SELECT DISTINCT found FROM weir_violations WHERE rule = 'plan/purchase/amount@1' ORDER BY 1 FORMAT TSVRaw";
    assert_eq!(
        bench.ask(found),
        "-3.25, plan=\n-3.25, plan=1\n-3.25, plan=2\n-3.25, plan=3\nNULL, plan=\nNULL, plan=1\nNULL, plan=2\nNULL, plan=3"
    );
    let masked =
        "SELECT countIf(found NOT LIKE '(masked), plan=%') FROM weir_violations WHERE rule = 'plan/*/props.phone@2'";
    assert_eq!(bench.ask(masked), "0");
    let told = "SELECT DISTINCT field, expected, severity, owner FROM weir_violations WHERE rule = \
                'plan/purchase/props.country@1' FORMAT TSVRaw";
    assert_eq!(
        bench.ask(told),
        "props['country']\tprops['country'] = '' OR (props['country'] IN ('AT', 'DE'))\tcritical\tweb"
    );
}

#[test]
fn a_plan_judges_the_same_after_a_kill() {
    let bench = bench(false);
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("something is read", || bench.consumed() > 0);
    running.kill().unwrap();
    running.wait().unwrap();
    bench.weir(&["run", "pipeline.toml", "--until-end", "--workers", "1"]).fine();
    compare(&bench);
}

#[test]
fn what_is_inferred_holds_for_its_sample_and_a_diff_tells_whom_it_concerns() {
    let bench = bench(true);
    let out = bench.weir(&["plan", "infer", "pipeline.toml", "--out", "proposed/1.toml"]).fine();
    assert!(out.err.contains("the sample breaks none"), "{}", out.err);
    let text = std::fs::read_to_string(bench.folder.path().join("proposed/1.toml")).unwrap();
    for told in [
        "[events.purchase.fields.\"props['country']\"]",
        "one_of = [",
        "[events.view.fields.\"props['path']\"]",
        "min = 0",
        "[fields.sdk]  # of every type: in",
        "[events.purchase.fields.amount]",
    ] {
        assert!(text.contains(told), "{told} is missing in\n{text}");
    }
    // The pipeline runs with it, and no event of the sample breaks it; only who claims another version is told.
    bench.edit("folder = \"plans\"", "folder = \"proposed\"");
    bench.weir(&["plan", "check", "pipeline.toml"]).fine();
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    let broken = "SELECT DISTINCT rule FROM weir_violations WHERE startsWith(rule, 'plan')";
    assert_eq!(bench.ask(broken), "plan_unknown_version");
    assert_eq!(bench.ask("SELECT count() FROM weir_quarantine"), "0");
    // A second file isn't written over it.
    let again = bench.weir(&["plan", "infer", "pipeline.toml", "--out", "proposed/1.toml"]);
    again.refused(2, &["is there already"]);

    let diff = bench.weir(&["plan", "diff", "plans/1.toml", "plans/2.toml", "--file", "pipeline.toml"]).fine().out;
    assert!(diff.contains("tightened") && diff.contains("optional -> required"), "{diff}");
    let lines: Vec<Vec<&str>> = diff.lines().map(|line| line.split_whitespace().collect()).collect();
    let mut told = 0;
    for (sdk, version) in [("web", "1.0.0"), ("web", "1.1.0"), ("ios", "1.0.0"), ("ios", "1.1.0")] {
        let who = format!("sdk = '{sdk}' AND sdk_version = '{version}'");
        // Version 1 asks nothing of codes, version 2 does.
        let breaking =
            raw(&bench, "count()", &format!("{who} AND type = 'signup' AND length(code) NOT BETWEEN 1 AND 4"));
        let all = raw(&bench, "count()", &who);
        let is_it = |row: &&Vec<&str>| row.len() > 6 && row[0] == "plan/signup/code" && row[2..4] == [sdk, version];
        let row = lines.iter().find(is_it);
        let row = row.unwrap_or_else(|| panic!("{sdk} {version} is missing in\n{diff}"));
        assert_eq!(row[row.len() - 3..], [&*breaking.to_string(), "0", &*all.to_string()], "{diff}");
        told += 1;
    }
    assert_eq!(told, 4);
}

#[test]
fn every_problem_of_a_plan_and_of_a_schemas_rules_is_told_with_its_place() {
    let bench = Bench::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/plan"), "plan");
    let write = |file: &str, from: &str, to: &str| {
        let path = bench.folder.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    };
    write("plans/2.toml", "max_length = 4", "max_lenth = 4");
    bench
        .weir(&["check", "pipeline.toml", "--offline"])
        .refused(2, &["plans/2.toml:27:1: unknown key `max_lenth`", "did you mean `max_length`?"]);
    write("plans/2.toml", "max_lenth = 4", "max = 4");
    write("plans/1.toml", "[events.purchase.fields.amount]\n", "[events.purchase.fields.amount]\ntype = \"time\"\n");
    write("plans/1.toml", "pattern = \"^/\"", "pattern = \"(^/\"");
    write("event.avsc", "\"max\": 900", "\"maxx\": 900");
    bench.edit("\"schema/amount/max\"", "\"schema/amount/mix\"");
    bench.weir(&["check", "pipeline.toml", "--offline"]).refused(
        2,
        &[
            "plans/1.toml:4:1: `amount` is Nullable(Float64) in the reader schema, and the plan says time",
            "plans/2.toml:27:1: `max` wants a number or a time, and `code` is String",
            "events.view.fields.props['path']",
            "event.avsc, field `amount`: unknown key `maxx`",
            "did you mean `max`?",
        ],
    );
    let bench = Bench::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/plan"), "plan");
    bench.edit("\"schema/amount/max\"", "\"schema/amount/mix\"");
    bench
        .weir(&["check", "pipeline.toml", "--offline"])
        .refused(2, &["[quality.modes]: there is no rule `schema/amount/mix`", "did you mean `schema/amount/max`?"]);
    let bench = Bench::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/plan"), "plan");
    bench.edit("event_type = \"type\"\n", "");
    bench.edit("folder = \"plans\"", "folder = \"planes\"");
    bench.weir(&["check", "pipeline.toml", "--offline"]).refused(2, &["no `event_type`", "there is no folder"]);
}
