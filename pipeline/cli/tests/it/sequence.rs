//! Gaps in devices' sequences, found by ClickHouse as well: over all records that were sent, those that a rule refuses
//! included, each number of a device and session against the one before it. Live, and through a kill with another
//! number of workers.

use std::fmt::Write;
use std::path::Path;

use weir_replay::produce::faults::Faults;

use crate::history::{Fault, History, Wrong};
use crate::judged;
use crate::program::{Bench, block_on, clickhouse, terminate, wait_until};

const DEVICES: usize = 30;
/// Events without numbers that bring the watermark on.
const TAIL: usize = 120;

/// The records in the order of sending, and how many there are: devices with sessions that begin at 1; one number in
/// nine is lost, every twelfth record is there twice, and each leaves up to 25 seconds after its event.
fn lines() -> (String, usize) {
    let now = weir_pipeline::clock::Clock::System.now_ms() as u64;
    let mut random = fastrand::Rng::with_seed(41);
    let mut lines: Vec<(u64, String)> = Vec::new();
    for device in 0..DEVICES {
        let (sdk_version, mut at) = (["1.0", "1.1", "2.0"][device % 3], now - 1_500_000 + random.u64(..60_000));
        for session in 0..3 {
            for seq in 1..=random.u64(20..40) {
                at += random.u64(1_000..9_000);
                // The first number of a session has to come, else nobody knows that it began.
                if seq > 1 && random.u8(..9) == 0 {
                    continue;
                }
                let kind = if random.u8(..8) == 0 { "vview" } else { ["purchase", "view"][random.usize(..2)] };
                let n = if session == 0 {
                    format!(r#", "props": {{"n": "{seq}", "device": "d{device}"}}"#)
                } else {
                    r#", "props": {}"#.to_owned()
                };
                let line = format!(
                    r#"{{"event_id": "d{device}-{session}-{seq}", "occurred_at": {at}, "tenant": "t{}", "type": "{kind}", "device": "d{device}", "seq": {seq}, "session": {session}, "sdk": "web", "sdk_version": "{sdk_version}"{n}}}"#,
                    device % 4
                );
                for _ in 0..if random.u8(..12) == 0 { 2 } else { 1 } {
                    lines.push((at + random.u64(..25_000), line.clone()));
                }
            }
        }
        assert!(at < now - 240_000, "the tail has to come behind");
    }
    for tail in 0..TAIL {
        let at = now - 20_000;
        let line = format!(
            r#"{{"event_id": "tail{tail}", "occurred_at": {at}, "tenant": "t0", "type": "tail", "device": "d0", "seq": 9, "session": 9, "sdk": "web", "sdk_version": "1.0", "props": {{}}}}"#
        );
        lines.push((now, line));
    }
    lines.sort();
    let mut text = String::new();
    lines.iter().for_each(|(_, line)| writeln!(text, "{line}").unwrap());
    (text, lines.len())
}

fn bench() -> (Bench, u64) {
    let bench = Bench::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sequence"), "sequence");
    let (lines, count) = lines();
    std::fs::write(bench.folder.path().join("events.json"), strip_sessions(&lines)).unwrap();
    clickhouse("default", &format!("CREATE DATABASE {}_raw", bench.database), &[]);
    let columns = "event_id String, occurred_at Int64, tenant String, type String, device String, seq Int64, session Int64, \
                   sdk_version String, props Map(String, String)";
    let raw = format!("CREATE TABLE {}_raw.raw ({columns}) ENGINE = MergeTree ORDER BY event_id", bench.database);
    clickhouse("default", &raw, &[]);
    let insert = format!(
        "INSERT INTO {}_raw.raw SETTINGS input_format_skip_unknown_fields = 1 FORMAT JSONEachRow",
        bench.database
    );
    clickhouse("default", &insert, lines.as_bytes());
    let produce =
        ["produce", "--topic", &bench.topic, "--partitions", "3", "--json", "events.json", "--key", "event_id"];
    bench.weir(&[&produce[..], &["--schema", "event.avsc", "--time", "occurred_at"]].concat()).fine();
    (bench, count as u64)
}

/// What is sent doesn't say in which session it is.
fn strip_sessions(lines: &str) -> String {
    (0..10).fold(lines.to_owned(), |text, session| text.replace(&format!(r#" "session": {session},"#), ""))
}

/// Tenant, device, version and the number behind each gap, with the first and the last missing one, as ClickHouse finds
/// them.
fn expected(bench: &Bench, number: &str, of: &str, min_session: i64, max_session: i64) -> String {
    let sent = format!(
        "SELECT DISTINCT tenant, device, sdk_version, session, toInt64OrZero(toString({number})) AS number FROM {}_raw.raw \
         WHERE type != 'tail' AND session BETWEEN {min_session} AND {max_session}",
        bench.database
    );
    let before = format!(
        "SELECT *, lagInFrame(number, 1, 0) OVER (PARTITION BY tenant, device, session ORDER BY number ROWS BETWEEN 1 PRECEDING \
         AND CURRENT ROW) AS before FROM ({sent})"
    );
    let gaps = format!("SELECT * FROM ({before}) WHERE number > before + 1 AND before > 0");
    bench.ask(&format!(
        "SELECT tenant, {of}, sdk_version, number, if(number = before + 2, toString(before + 1), concat(toString(before + 1), \
         '-', toString(number - 1))) FROM ({gaps}) ORDER BY ALL"
    ))
}

/// The same as Weir told it, but for the device, which is the event's own where it was accepted.
fn found(bench: &Bench, rule: &str) -> String {
    bench.ask(&format!(
        "SELECT tenant, sdk_version, toInt64(found) AS number, expected FROM weir_violations WHERE rule = '{rule}' ORDER BY ALL"
    ))
}

fn compare(bench: &Bench) {
    for (rule, number, last) in [("numbers", "seq", 2), ("written_numbers", "props['n']", 0)] {
        let gaps = expected(bench, number, "device", 0, last);
        assert!(gaps.lines().count() > 60, "{gaps}");
        let mut without_device: Vec<String> = gaps
            .lines()
            .map(|line| {
                line.split('\t')
                    .enumerate()
                    .filter(|(at, _)| *at != 1)
                    .map(|(_, part)| part)
                    .collect::<Vec<_>>()
                    .join("\t")
            })
            .collect();
        let mut told: Vec<String> = found(bench, rule).lines().map(str::to_owned).collect();
        without_device.sort();
        told.sort();
        assert_eq!(told, without_device, "{rule}");
    }
    // Each place that is told is that of the event behind the gap, where that was accepted.
    let places = "SELECT count(), countIf(toString(assumeNotNull(e.seq)) != v.found OR e.occurred_at != v.event_time) \
                  FROM weir_violations AS v INNER JOIN events AS e ON v.topic = e._topic AND v.partition = e._partition AND \
                  v.offset = e._offset WHERE v.rule = 'numbers'";
    let placed = bench.ask(places);
    let (count, wrong) = placed.split_once('\t').unwrap();
    assert!(count.parse::<u64>().unwrap() > 60 && wrong == "0", "{placed}");
    let told = "SELECT DISTINCT owner, severity, field FROM weir_violations WHERE rule = 'numbers'";
    assert_eq!(bench.ask(told), "mobile\tcritical\tseq");
    // Events pass unmarked, and the ledger is as without the rules.
    assert_eq!(bench.ask("SELECT countIf(notEmpty(weir_broken_rules)) FROM events"), "0");
    let ledger = "SELECT sum(consumed) - sum(accepted) - sum(quarantined) - sum(duplicate + duplicate_differing), \
                  sum(quarantined) > 100, sum(duplicate) > 50 FROM weir_ledger";
    assert_eq!(bench.ask(ledger), "0\t1\t1");
}

#[test]
fn every_number_that_was_not_sent_is_told_once() {
    let (bench, count) = bench();
    let check = bench.weir(&["check", "pipeline.toml"]).fine().out;
    let requires = "every number of seq of a tenant's device, at most 5000 ms of event time behind the first one beyond it; 1 begins";
    assert!(check.contains(requires), "{check}");
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("everything is read", || bench.consumed() == count);
    let gaps = expected(&bench, "seq", "device", 0, 2).lines().count().to_string();
    let all = "SELECT count() FROM weir_violations WHERE rule = 'numbers'";
    wait_until("every gap is told", || bench.ask(all) == gaps);
    let metrics = block_on(async { reqwest::get(bench.page("/metrics")).await.unwrap().text().await.unwrap() });
    terminate(&mut running);
    compare(&bench);
    let line = format!("weir_rule_broken_total{{source=\"events\",rule=\"numbers\",mode=\"observe\"}} {gaps}");
    assert!(metrics.lines().any(|of| of == line), "{line} is missing in\n{metrics}");
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    compare(&bench);
    bench.weir(&["verify", "pipeline.toml"]).fine();
}

#[test]
fn sequences_survive_kills_and_other_numbers_of_workers() {
    let (bench, _) = bench();
    for workers in ["1", "3"] {
        let mut running = bench.start(&["run", "pipeline.toml", "--workers", workers]);
        wait_until("something is read", || bench.consumed() > 0);
        running.kill().unwrap();
        running.wait().unwrap();
    }
    bench.weir(&["run", "pipeline.toml", "--until-end", "--workers", "4"]).fine();
    compare(&bench);
}

#[test]
fn a_release_that_loses_events_is_one_alert() {
    let bench = judged::bench("lost");
    let rule = "\n[quality.rules.numbered]\nsource = \"events\"\nfield = \"props['n']\"\ndevice = \"props['device']\"\n\
                sequence_within_ms = 60000\nmode = \"observe\"\nowner = \"transport\"\n";
    let text = std::fs::read_to_string(bench.file()).unwrap();
    std::fs::write(bench.file(), text + rule).unwrap();
    let fault = Fault { tenant: "north", release: 3, wrong: Wrong::Lost, hours: 216..264 };
    let history =
        History { tenants: vec!["north", "south"], hours: 288, per_hour: 200.0, faults: vec![fault], seed: 7 };
    history.send(&bench, 4, Faults { seed: 5, disorder_ms: 30_000, duplicates: 0.01, ..Faults::default() });
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    judged::assert_one_alert(&bench, "north", ["ios 5.1.0", "ios 5.0.2 / 7.0", r"props[\'n\']", "growth"]);
    assert!(judged::steps(&bench, "south").is_empty(), "{:#?}", judged::steps(&bench, "south"));
    let opened = "SELECT indicator, rule, length(samples), extract(detail, '^([0-9]+) %') FROM weir_alerts_history \
                  WHERE status = 'open'";
    let opened = bench.ask(opened);
    assert!(opened.starts_with("lost in transit\tnumbered\t3\t"), "{opened}");
    let query = bench.ask("SELECT any(query) FROM weir_alerts FORMAT TSVRaw");
    let found = bench.ask(&format!("SELECT sum(gaps) > 100, uniqExact(sdk_version), any(sdk_version) FROM ({query})"));
    assert_eq!(found, "1\t1\t5.1.0", "{query}");
    let only = "SELECT DISTINCT tenant, sdk_version FROM weir_violations WHERE rule = 'numbered'";
    assert_eq!(bench.ask(only), "north\t5.1.0");
}

#[test]
fn a_rule_of_sequences_that_cannot_hold_is_refused() {
    let bench = Bench::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sequence"), "sequence");
    bench.edit("mode = \"observe\"\nseverity", "mode = \"tag\"\nseverity");
    bench.edit("sequence_within_ms = 0\nmode = \"observe\"", "sequence_within_ms = 90000000");
    bench.edit("one_of = [", "device = \"device\"\none_of = [");
    bench.weir(&["check", "pipeline.toml", "--offline"]).refused(
        2,
        &[
            "rule `numbers` can't mark an event: that a number is missing is known when the event behind it was written long ago",
            "write mode = \"observe\"; each gap is a row of weir_violations",
            "rule `written_numbers` waits for 90000000 ms",
            "rule `written_numbers` can't refuse",
            "rule `types` has `device` and no `sequence_within_ms`",
        ],
    );
    let bench = Bench::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sequence"), "sequence");
    bench.edit("user = \"device\"\n", "");
    bench.edit("event_id = \"event_id\"\n", "");
    bench.edit("field = \"props['n']\"", "field = \"occurred_at\"");
    bench.weir(&["check", "pipeline.toml", "--offline"]).refused(
        2,
        &[
            "rule `numbers`",
            "numbers count a device's events, and none is named",
            "`starts_at` needs the source's `event_id`",
            "`sequence_within_ms` wants a whole number, and `occurred_at` is DateTime64",
            "name a field of int or long, or a text that holds such a number",
        ],
    );
    let bench = Bench::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sequence"), "sequence");
    let schema = bench.folder.path().join("event.avsc");
    let text = std::fs::read_to_string(&schema).unwrap();
    let rule = r#""default": null, "weir.rules": [{"sequence_within_ms": 1000, "mode": "observe"}]},
    {"name": "sdk","#;
    let text = text.replace("\"default\": null},\n    {\"name\": \"sdk\",", rule);
    std::fs::write(schema, text).unwrap();
    let check = bench.weir(&["check", "pipeline.toml", "--offline"]).fine().out;
    assert!(check.contains("schema/seq/sequence_within_ms of events: observe"), "{check}");
    bench.edit("[quality.rules.types]", "[quality.modes]\n\"schema/seq/*\" = \"tag\"\n\n[quality.rules.types]");
    let told = ["rule `schema/seq/sequence_within_ms` can only observe", "write \"observe\""];
    bench.weir(&["check", "pipeline.toml", "--offline"]).refused(2, &told);
}
