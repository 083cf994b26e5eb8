//! Scenarios as a user runs them: those of a new pipeline, and one tapped from a live topic, which is held against what
//! Kafka, Weir and ClickHouse make of the same records.

use std::path::Path;
use std::process::Command;

use expect_test::{Expect, expect};
use serde_json::Value;

use crate::program::{Bench, Done, WEIR, size};
use crate::shop::{FAULTS, sell, shop};

/// The program in a folder, with nothing around it: no part, and no variable that a pipeline file might want.
fn weir(folder: &Path, arguments: &[&str]) -> Done {
    let mut command = Command::new(WEIR);
    command.args(arguments).current_dir(folder).env("NO_COLOR", "1").env_remove("RUST_LOG");
    Done::of(command.output().unwrap())
}

/// What a command printed, without how long it took.
fn timeless(text: &str) -> String {
    let mut kept = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let mut words = words.iter().peekable();
        let mut out = Vec::new();
        while let Some(word) = words.next() {
            let is_number = word.chars().all(|c| c.is_ascii_digit() || c == '.') && !word.is_empty();
            let is_time = is_number && words.peek().is_some_and(|unit| ["ms", "s,"].contains(unit));
            out.push(if is_time { "N" } else { word });
        }
        let line = out.join(" ");
        let line = line.split(", N times").next().unwrap_or(&line);
        let line = match line.split_once(" s, ") {
            Some((before, behind)) if behind.ends_with("times as fast") => before.to_owned(),
            _ => line.to_owned(),
        };
        kept.push_str(&line);
        kept.push('\n');
    }
    kept
}

#[track_caller]
fn printed(done: &Done, expected: &Expect) {
    expected.assert_eq(&timeless(&done.out));
}

#[test]
fn the_scenarios_of_a_new_pipeline_pass_and_a_changed_one_is_told_and_updated() {
    let folder = tempfile::tempdir().unwrap();
    weir(folder.path(), &["init", "shop"]).fine();
    let all = weir(folder.path(), &["test", "shop/pipeline.toml"]).fine();
    printed(
        &all,
        &expect![[r#"
        ok     bad_release            1320 records, 20 min 0 s in N ms
        ok     broken_records         8 records, 2 min 0 s in N ms
        ok     late_purchases         5 records, 5 min 2 s in N ms
        ok     purchases_are_counted  6 records, 1 min 11 s in N ms

        4 scenarios: 4 ok; 28 min 13 s of invented time in N
    "#]],
    );

    let path = folder.path().join("shop/scenarios/late_purchases.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let changed = text.replacen("orders = 2", "orders = 3", 1);
    assert_ne!(text, changed);
    std::fs::write(&path, &changed).unwrap();
    let failed = weir(folder.path(), &["test", "shop/pipeline.toml", "--filter", "late"]);
    assert_eq!(failed.code, 5, "{}{}", failed.out, failed.err);
    printed(
        &failed,
        &expect![[r#"
        fail   late_purchases  5 records, 5 min 2 s in N ms
               A purchase that comes late corrects its closed minute; one that is too late is kept aside.
               view revenue_by_minute, at the end
                   window_start         orders  revenue  users  revision
                 - 2026-01-05 12:00:00  3       17.00    2      1
                 + 2026-01-05 12:00:00  2       17.00    2      1
                 + 2026-01-05 12:01:00  1       1.00     1      0
                 + 2026-01-05 12:05:00  1       1.00     1      0
               seed 1: weir test shop/pipeline.toml --filter late_purchases --seed 1


        1 scenario: 0 ok, 1 failed; 5 min 2 s of invented time in N
    "#]],
    );

    let updated = weir(folder.path(), &["test", "shop/pipeline.toml", "--filter", "late", "--update"]).fine();
    assert!(updated.out.contains("1 updated"), "{}", updated.out);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "it is what it was");
    weir(folder.path(), &["test", "shop/pipeline.toml", "--workers", "4"]).fine();
}

#[test]
fn what_cant_be_played_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    weir(folder.path(), &["init", "shop"]).fine();
    let shop = folder.path().join("shop");
    std::fs::write(shop.join("scenarios/wrong.toml"), "events = [{ at = '1s', amuont = 1 }]\n").unwrap();
    let test = |arguments: &[&str]| weir(&shop, &[&["test", "pipeline.toml"], arguments].concat());
    test(&["--filter", "wrong"]).refused(2, &["wrong.toml:1:", "no field `amuont`", "did you mean `amount`?"]);
    // The others are played all the same.
    let all = test(&[]);
    assert_eq!(all.code, 2, "{}", all.out);
    assert!(all.out.contains("4 ok, 1 can't be played"), "{}", all.out);
    test(&["--filter", "nobody"]).refused(2, &["no scenario's name contains \"nobody\"", "late_purchases"]);
    test(&["--scenario", "absent.toml"]).refused(2, &["absent.toml: No such file"]);
    std::fs::remove_dir_all(shop.join("scenarios")).unwrap();
    test(&[]).refused(2, &["can't be read", "weir tap"]);
}

/// Two hours in a quiet shop, and a busy hour. Unoptimised code is no measure, nor is a machine that does much else: the best
/// of three counts.
#[test]
fn invented_time_is_a_thousand_times_as_fast_as_the_clock() {
    let folder = tempfile::tempdir().unwrap();
    weir(folder.path(), &["init", "shop"]).fine();
    let quiet = "ends_at = '2h'\nevents = [{ at = '0s', every = '30s', times = 120, type = 'purchase', amount = 1, \
                 user_id = 'u{n%7}' }]\n[expect.ledger]\naccepted = 120\n";
    let busy = "epoch = '10s'\n[[generate]]\ncount = 36000\nper_second = 10\nduplicates = 0.02\nbad = 0.01\n\
                disorder = '3s'\n[expect.ledger]\ntombstone = 0\n";
    let is_optimised = option_env!("CARGO_PROFILE_DEV_OPT_LEVEL") != Some("0");
    for (name, text, least) in [("quiet", quiet, if is_optimised { 1_000 } else { 100 }), ("busy", busy, 10)] {
        std::fs::write(folder.path().join(format!("shop/{name}.toml")), text).unwrap();
        let file = format!("shop/{name}.toml");
        let speed = || {
            let done = weir(folder.path(), &["test", "shop/pipeline.toml", "--scenario", &file]).fine();
            println!("{name}: {}", done.out.lines().last().unwrap());
            let last = done.out.trim_end().rsplit(" s, ").next().unwrap().to_owned();
            last.split(" times").next().unwrap().replace(' ', "").parse::<u64>().unwrap()
        };
        let best = (0..3).map(|_| speed()).max().unwrap();
        assert!(best >= least, "{name}: {best} scenario-seconds per second");
    }
}

/// Rows of a query as a scenario's inline tables.
fn rows(bench: &Bench, query: &str) -> String {
    let answer = bench.ask(&format!("{query} FORMAT JSONEachRow"));
    let mut text = String::new();
    for line in answer.lines() {
        let row: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
        let cell = |(name, value): (&String, &Value)| {
            let value = match value {
                Value::String(text) => format!("{text:?}"),
                Value::Null => "\"NULL\"".to_owned(),
                other => other.to_string(),
            };
            format!("{name} = {value}")
        };
        text.push_str(&format!("  {{ {} }},\n", row.iter().map(cell).collect::<Vec<_>>().join(", ")));
    }
    text
}

#[test]
fn a_tapped_topic_gives_in_a_scenario_what_kafka_and_clickhouse_give() {
    let bench = shop("scenario_tapped");
    sell(&bench, size(3_000, 30_000), 31, FAULTS);
    let tapped = bench.weir(&["tap", "pipeline.toml", "--out", "scenarios/tapped.toml", "--records", "100000"]).fine();
    assert!(tapped.out.contains("wrote scenarios/tapped.toml"), "{}", tapped.out);
    // It passes as it is, with what the engine made of it.
    bench.weir(&["test", "pipeline.toml"]).fine();

    // And with what the real thing makes of the same records, by ClickHouse's own word.
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    bench.weir(&["verify", "pipeline.toml"]).fine();
    let path = bench.folder.path().join("scenarios/tapped.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (events, _) = text.split_once("\n[expect]").unwrap();
    let view = rows(&bench, "SELECT window_start, tenant, country, events, revenue, users, is_closed FROM by_minute");
    let quarantine = rows(
        &bench,
        "SELECT reason, rule, field, owner, sdk, sdk_version, toInt32(count()) AS count FROM weir_quarantine GROUP BY ALL",
    );
    let alerts = rows(
        &bench,
        "SELECT window_start, status, revision, sdk, sdk_version, affected_records, records FROM weir_alerts_history",
    );
    let ledger = bench.ask(
        "SELECT sum(consumed), sum(accepted), sum(quarantined), sum(duplicate), sum(duplicate_differing), sum(too_late), \
         sum(tombstone) FROM weir_ledger",
    );
    let fates = ["consumed", "accepted", "quarantined", "duplicate", "duplicate_differing", "too_late", "tombstone"];
    let ledger: Vec<String> =
        fates.iter().zip(ledger.split('\t')).map(|(fate, count)| format!("{fate} = {count}")).collect();
    assert!(view.lines().count() > 10 && quarantine.lines().count() > 3, "{view}{quarantine}");
    assert!(!ledger.contains(&"duplicate = 0".to_owned()), "{ledger:?}");
    let real = format!(
        "{events}\n[expect]\nquarantine = [\n{quarantine}]\nalerts = [\n{alerts}]\n[expect.views]\nby_minute = [\n{view}]\n\
         [expect.ledger]\n{}\n",
        ledger.join("\n")
    );
    std::fs::write(&path, &real).unwrap();
    let same = bench.weir(&["test", "pipeline.toml"]);
    assert_eq!(same.code, 0, "{}{}", same.out, same.err);
    // Everything that decodes was written by its fields.
    let undecoded = bench.ask("SELECT countIf(event_time IS NULL) FROM weir_quarantine");
    assert_eq!(text.matches("raw = ").count().to_string(), undecoded);
    assert!(text.contains("type = \"purchase\"") && text.contains("amount = \""), "{text}");
    // The comparison can fail.
    std::fs::write(&path, real.replacen(", events = ", ", events = 1", 1)).unwrap();
    assert_eq!(bench.weir(&["test", "pipeline.toml"]).code, 5);
}

/// What the source calls sensitive doesn't leave, and the scenario still counts as the topic does.
#[test]
fn a_tap_masks_what_is_sensitive() {
    let bench = shop("scenario_masked");
    sell(&bench, 400, 32, &["--bad", "0.05"]);
    let file = std::fs::read_to_string(bench.file()).unwrap();
    let file = file.replace("keep_events_days", "sensitive = [\"user_id\", \"props['country']\"]\nkeep_events_days");
    std::fs::write(bench.file(), file).unwrap();
    let tapped = bench.weir(&["tap", "pipeline.toml", "--out", "masked.toml", "--records", "50"]).fine();
    assert!(tapped.err.contains("left out"), "bytes that don't decode may hold anything: {}", tapped.err);
    let text = std::fs::read_to_string(bench.folder.path().join("masked.toml")).unwrap();
    assert!(text.contains("user_id = \"masked-") && text.contains("country = \"masked-"), "{text}");
    assert!(!text.contains("user_id = \"u") && !text.contains("raw = "), "{text}");
    let countries = ["DE", "US", "GB", "FR", "IN", "BR", "JP", "NZ"];
    assert!(!countries.iter().any(|country| text.contains(&format!("\"{country}\""))), "{text}");
    bench.weir(&["test", "pipeline.toml", "--scenario", "masked.toml"]).fine();
    bench.weir(&["tap", "pipeline.toml", "--out", "masked.toml"]).refused(2, &["is there already"]);
    bench.weir(&["tap", "pipeline.toml", "--out", "x.toml", "--topic", "nope"]).refused(2, &["doesn't read the topic"]);
}
