//! Why rows differ, and which alerts opened on one side only, on real parts: each fact that `weir diff` tells against SQL.

use serde_json::{Value, json};

use crate::program::Bench;
use crate::replay::{FROM, TO, lived, replay_of};

/// A replay of the pipeline with `from` changed to `to` in its file, and the lines of its diff.
fn replayed(bench: &Bench, run: &str, from: &str, to: &str) -> Vec<Value> {
    let file = std::fs::read_to_string(bench.file()).unwrap();
    assert!(file.contains(from), "{from}");
    std::fs::write(bench.folder.path().join("next.toml"), file.replace(from, to)).unwrap();
    bench.weir(&["replay", "pipeline.toml", "--from", FROM, "--to", TO, "--with", "next.toml", "--run", run]).fine();
    let told = bench.weir(&["diff", "pipeline.toml", run, "--json", "--examples", "12"]);
    told.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn view(lines: &[Value]) -> &Value {
    lines.iter().find(|line| line["view"] == "by_minute").unwrap()
}

/// The details of an example's reasons of one kind.
fn reasons(example: &Value, cause: &str) -> Vec<String> {
    let all = example["reasons"].as_array().unwrap();
    let of_cause = all.iter().filter(|reason| reason["cause"] == cause);
    of_cause.map(|reason| reason["detail"].as_str().unwrap().to_owned()).collect()
}

/// Records of an example's minute and tenant that one of two databases refused for `reason` and the other didn't.
fn refused_by_one(bench: &Bench, example: &Value, reason: &str, one: &str, other: &str) -> u64 {
    let key = example["key"].as_array().unwrap();
    let of = format!(
        "reason = '{reason}' AND toStartOfMinute(assumeNotNull(event_time)) = toDateTime({}, 'UTC') AND tenant = {}",
        key[0].to_string().replace('"', "'"),
        key[1].to_string().replace('"', "'")
    );
    let places = |database: &str| format!("SELECT topic, partition, offset FROM {database}.weir_quarantine");
    let count = format!("SELECT count() FROM ({} WHERE {of} EXCEPT {})", places(one), places(other));
    bench.ask(&count).parse().unwrap()
}

#[test]
fn what_may_be_why_rows_differ_is_told_from_facts() {
    let bench = lived("reasons");
    let (live, late) = (bench.database.clone(), replay_of(&bench, "late"));
    let lines = replayed(&bench, "late", "allowed_lateness_ms = 30000", "allowed_lateness_ms = 0");
    let examples = view(&lines)["examples"].as_array().unwrap();
    assert!(examples.len() >= 12, "{examples:#?}");
    let mut by_lateness = 0;
    for example in examples {
        let setting = "`allowed_lateness_ms` of `events` is 30000 live and 0 in the replay".to_owned();
        assert_eq!(reasons(example, "code"), [setting], "{example:#}");
        let only_replay = refused_by_one(&bench, example, "too_late", &late, &live);
        let records = if only_replay == 1 { "1 record".to_owned() } else { format!("{only_replay} records") };
        let told = reasons(example, "late");
        assert_eq!(told, [format!("too late: {records} of its window in the replay, not live")], "{example:#}");
        by_lateness += only_replay;
        assert_eq!(reasons(example, "rule"), Vec::<String>::new(), "{example:#}");
    }
    assert!(by_lateness >= 12);

    let tighter = replay_of(&bench, "tighter");
    let (old, new) = ("OR amount >= 0", "OR amount >= 20");
    let lines = replayed(&bench, "tighter", old, new);
    for example in view(&lines)["examples"].as_array().unwrap() {
        let only_replay = refused_by_one(&bench, example, "rule", &tighter, &live);
        let records = if only_replay == 1 { "1 record".to_owned() } else { format!("{only_replay} records") };
        let told = format!(
            "the rule `amounts_are_positive`, another one in the replay: {records} of its window in the replay, not live"
        );
        assert_eq!(reasons(example, "rule"), [told], "{example:#}");
        assert_eq!((reasons(example, "code"), reasons(example, "late")), (vec![], vec![]), "{example:#}");
    }
    alerts_are_those_of_sql(&bench, &lines, &tighter);

    // Rows that somebody changed behind Weir's back have no reason that is known.
    let same = replayed(&bench, "same", old, old);
    assert_eq!(view(&same)["examples"], json!([]), "{same:#?}");
    let rows = format!("{}.{}", replay_of(&bench, "same"), weir_sinks::clickhouse::base_table("by_minute"));
    bench.ask(&format!(
        "INSERT INTO {rows} SELECT * REPLACE (events + 1 AS events, _version + 1 AS _version) FROM {rows} FINAL LIMIT 3"
    ));
    let told = bench.weir(&["diff", "pipeline.toml", "same"]).out;
    assert_eq!(told.matches("no reason is known").count(), 3, "{told}");
    assert!(told.contains("0 live only, 0 in the replay only  equal"), "{told}");
}

/// Openings on both sides and on one, against sets in SQL.
fn alerts_are_those_of_sql(bench: &Bench, lines: &[Value], replay: &str) {
    let told = &lines.iter().find(|line| line.get("alerts").is_some()).unwrap()["alerts"];
    let opened = |database: &str| {
        format!(
            "(SELECT DISTINCT fingerprint, window_start FROM {database}.weir_alerts_history \
             WHERE status IN ('open', 'reopened') AND window_start >= '2026-01-05 06:12:00' AND window_start < '2026-01-05 06:25:00')"
        )
    };
    let (live, replay) = (opened(&bench.database), opened(replay));
    let count = |sets: &str| -> u64 { bench.ask(&format!("SELECT count() FROM ({sets})")).parse().unwrap() };
    let expected = [
        count(&format!("{live} INTERSECT {replay}")),
        count(&format!("{live} EXCEPT {replay}")),
        count(&format!("{replay} EXCEPT {live}")),
    ];
    let of_told = ["both", "only_live", "only_replay"].map(|of| told[of].as_u64().unwrap());
    assert_eq!(of_told, expected, "{told:#}");
    println!("alerts on both sides, live only, in the replay only: {of_told:?}");
    assert!(of_told[2] > 0, "a tighter rule refuses more: {told:#}");
    let examples = told["examples"].as_array().unwrap();
    assert_eq!(examples.iter().filter(|of| of["is_live"] == false).count() as u64, expected[2].min(12));
}
