//! Every kind of step, each in a scenario that passes and in one that fails, and what is told of it.

use expect_test::{Expect, expect};
use weir_replay::simulate::Options;

use super::{DEFAULTS, Shop};

/// Plays `events` with what is expected, which must be so; and with what isn't, whose difference must read as told.
#[track_caller]
fn both(events: &str, met: &str, unmet: &str, told: Expect) {
    let shop = Shop::new();
    let text = |expected: &str| format!("{events}\n{DEFAULTS}\n{expected}");
    assert_eq!(shop.told(&text(met)), "", "it must be met");
    told.assert_eq(&shop.told(&text(unmet)));
}

#[test]
fn events_are_counted_in_views_with_every_kind_of_measure() {
    both(
        r#"events = [
            { at = "1s", user_id = "ada", amount = "10.00" },
            { at = "2s", user_id = "ada", amount = 5 },
            { at = "3s", user_id = "bo", amount = 1.5, type = "page_view" },
            { at = "4s", user_id = "cy", null = ["amount"], type = "page_view", tenant = "dune" },
            { at = "65s", user_id = "ada", amount = "1.00" },
        ]"#,
        r#"[expect.views]
        by_minute = [
            { window_start = "2026-01-05 12:00:00", tenant = "alpine", events = 3, revenue = "15.00", users = 2, mean = 5.5 },
            { window_start = 2026-01-05T12:00:00Z, tenant = "dune", users = 1, mean = "NULL", revision = 0, is_closed = true },
            { window_start = "2026-01-05 12:01:00", revenue = 1 },
        ]
        [expect.ledger]
        consumed = 5
        accepted = 5"#,
        r#"[expect.views]
        by_minute = [
            { window_start = "2026-01-05 12:00:00", tenant = "alpine", events = 3, revenue = "15.01" },
            { window_start = "2026-01-05 12:00:00", tenant = "dune", events = 1, revenue = 0 },
            { window_start = "2026-01-05 12:07:00", tenant = "dune", events = 1, revenue = 0 },
        ]
        [expect.ledger]
        accepted = 4"#,
        expect![[r#"
            at the end: view by_minute
                window_start         tenant  events  revenue
              - 2026-01-05 12:00:00  alpine  3       15.01
              + 2026-01-05 12:00:00  alpine  3       15.00
              - 2026-01-05 12:00:00  dune    1       0.00
              + 2026-01-05 12:00:00  dune    1       NULL
              + 2026-01-05 12:01:00  alpine  1       1.00
              - 2026-01-05 12:07:00  dune    1       0.00
            at the end: ledger
                fate      records
              - accepted  4
              + accepted  5
        "#]],
    );
}

#[test]
fn copies_are_duplicates_and_tombstones_are_told() {
    both(
        r#"events = [
            { at = "1s", user_id = "ada", amount = 10, copies = 3 },
            { at = "2s", tombstone = true },
        ]"#,
        "[expect.ledger]\nconsumed = 4\naccepted = 1\nduplicate = 2\ntombstone = 1",
        "[expect.ledger]\nduplicate = 0",
        expect![[r#"
            at the end: ledger
                fate       records
              - duplicate  0
              + duplicate  2
        "#]],
    );
}

#[test]
fn late_events_correct_and_those_that_are_too_late_are_kept_aside() {
    both(
        r#"events = [
            { at = "10s", amount = 1 },
            { at = "80s", amount = 1 },
            { at = "81s", late = "60s", amount = 2 },
            { at = "5m", amount = 1 },
            { at = "301s", late = "4m", amount = 9 },
        ]
        [[checks]]
        at = "80500ms"
        [[checks.expect.views.by_minute]]
        window_start = "2026-01-05 12:00:00"
        revenue = 1
        revision = 0
        is_closed = true
        is_final = false
        [[checks.expect.views.by_minute]]
        window_start = "2026-01-05 12:01:00"
        is_closed = false"#,
        r#"[expect]
        subset = ["by_minute"]
        quarantine = [{ reason = "too_late", event_time = "2026-01-05 12:01:01" }]
        [expect.views]
        by_minute = [{ window_start = "2026-01-05 12:00:00", revenue = 3, revision = 1, is_final = true }]
        [expect.ledger]
        too_late = 1"#,
        r#"[expect]
        subset = ["by_minute"]
        quarantine = []
        [expect.views]
        by_minute = [{ window_start = "2026-01-05 12:00:00", revenue = 3, revision = 0 }]"#,
        expect![[r#"
            at the end: view by_minute
                window_start         revenue  revision
              - 2026-01-05 12:00:00  3.00     0
              + 2026-01-05 12:00:00  3.00     1
              + 2026-01-05 12:01:00  1.00     0
              + 2026-01-05 12:05:00  1.00     0
            at the end: quarantine
                reason    rule  field  count
              + too_late               1
        "#]],
    );
}

#[test]
fn broken_bytes_and_broken_rules_wait_with_their_reasons() {
    both(
        r#"events = [
            { at = "1s", user_id = "ada", amount = 10 },
            { at = "2s", raw = "hex:7b7d" },
            { at = "3s", raw = "base64:AAAAAAH///8=" },
            { at = "4s", cut = 20 },
            { at = "5s", amount = "-1.00", times = 3 },
            { at = "6s", late = "0s", occurred_at = "3h" },
        ]"#,
        r#"[expect]
        quarantine = [
            { reason = "not_framed", rule = "", count = 1 },
            { reason = "truncated", rule = "", count = 2 },
            { reason = "rule", rule = "amounts_are_positive", count = 3 },
            { reason = "future_event_time", rule = "", count = 1 },
        ]"#,
        r#"[expect]
        quarantine = [{ reason = "rule", owner = "mobile", count = 3 }, { reason = "not_framed", owner = "", count = 1 }]"#,
        expect![[r#"
            at the end: quarantine
                reason             owner     count
              + future_event_time            1
              - rule               mobile    3
              + rule               payments  3
              + truncated                    2
        "#]],
    );
}

#[test]
fn a_registry_that_is_down_holds_records_up_and_an_unknown_schema_is_refused_after_its_grace() {
    both(
        r#"ends_at = "30s"
        events = [
            { at = "3s", user_id = "ada", amount = 10 },
            { at = "12s", user_id = "bo", amount = 1, schema = 77 },
            { at = "13s", user_id = "cy", amount = 5 },
        ]
        [[steps]]
        at = "1s"
        registry = "down"
        [[checks]]
        at = "5s"
        expect = { ledger = { consumed = 0 } }
        [[steps]]
        at = "6s"
        registry = "up""#,
        "[expect]\nquarantine = [{ reason = 'unknown_schema', schema_id = 77 }]\n[expect.ledger]\naccepted = 2",
        "[expect]\nquarantine = []",
        expect![[r#"
            at the end: quarantine
                reason          rule  field  count
              + unknown_schema               1
        "#]],
    );
}

#[test]
fn alerts_are_told_by_step_and_silence_resolves_them() {
    both(
        r#"ends_at = "12m"
        events = [
            { at = "0s", every = "1s", times = 120, user_id = "u{n%9}", amount = 1, sdk_version = "4.1" },
            { at = "60s", every = "2s", times = 30, user_id = "u{n%9}", amount = -1, sdk_version = "4.2" },
            { at = "121s", every = "1s", times = 300, user_id = "u{n%9}", amount = 1, sdk_version = "4.2" },
        ]"#,
        r#"[expect]
        alerts = [
            { status = "open", sdk_version = "4.2", rule = "amounts_are_positive", affected_records = 30 },
            { status = "resolved", sdk_version = "4.2" },
        ]"#,
        r#"[expect]
        subset = ["alerts"]
        alerts = [{ status = "open", sdk_version = "4.1" }]"#,
        expect![[r#"
            at the end: alerts
                status    sdk_version
              - open      4.1
              + open      4.2
              + resolved  4.2
        "#]],
    );
}

#[test]
fn a_generator_sends_what_its_seed_says_and_the_end_may_leave_windows_open() {
    let shop = Shop::new();
    let text = "end = 'stop'\n[[generate]]\ncount = 600\nper_second = 10\nduplicates = 0.1\nbad = 0.05\ndisorder = '2s'\n\
                [expect.views]\nby_minute = []\n[expect.ledger]";
    let play = |seed| shop.play_with(text, Options { seed, ..Options::default() }).unwrap();
    let (one, same, other) = (play(None), play(Some(1)), play(Some(2)));
    assert!(one.records > 600, "copies");
    assert_eq!(one.updated, same.updated);
    assert_ne!(one.updated, other.updated);
    assert_eq!((one.seed, other.seed), (1, 2));
}

/// One scenario with everything in it, through kills and with any number of workers: what one worker gave is expected of all.
#[test]
fn workers_and_kills_change_no_row() {
    let shop = Shop::new();
    let events = "partitions = 3\n[[generate]]\ncount = 2000\nper_second = 20\nusers = 50\nduplicates = 0.05\nbad = 0.02\n\
                  disorder = '4s'\nstragglers = 0.02\nstraggler = '20s'\nwrong = 'negative_amount'\nwrong_from = 600\n";
    let expected = "[expect]\nquarantine = []\nalerts = []\n[expect.views]\nby_minute = []\n[expect.ledger]\n\
                    [expect.tables]\nevents = []\n";
    let kills = "[[steps]]\nat = '21500ms'\nkill = true\n[[steps]]\nat = '45s'\nkill = true\nworkers = 3\n\
                 [[steps]]\nat = '46200ms'\nkill = true\n[[steps]]\nat = '70s'\nworkers = 1\n";
    let of = |workers| Options { workers: Some(workers), ..Options::default() };
    let filled = shop.play_with(&format!("{events}{expected}"), of(1)).unwrap().updated;
    assert!(filled.matches("window_start").count() > 4 && filled.contains("status = \"open\""), "{filled}");
    for (steps, workers) in [("", 2), ("", 4), (kills, 1), (kills, 2), (kills, 4)] {
        let text = filled.replacen("[expect]", &format!("{steps}[expect]"), 1);
        let played = shop.play_with(&text, of(workers)).unwrap();
        let told: String = played.differences.iter().map(|(_, difference)| difference.text()).collect();
        assert_eq!(told, "", "{workers} workers, kills: {}", !steps.is_empty());
    }
}

#[test]
fn what_cant_be_is_told_at_its_place() {
    let shop = Shop::new();
    for (text, told) in [
        ("events = [{ at = '1s', amuont = 1 }]", "no field `amuont`\n"),
        ("events = [{ at = '1s' },\n { at = '2s', type = 'purchas' }]", "case.toml:2:15: type: \"purchas\" is none of"),
        ("events = [{ at = 'noon' }]", "no time of a scenario"),
        ("events = [{ at = '1s', partition = 1 }]", "counted from 0"),
        ("events = [{ at = '1s', raw = 'zz' }]", "these are no bytes"),
        ("events = [{ at = '1s', copies = 4000000000 }]", "case.toml:1:11: a scenario sends at most 2 000 000 records"),
        ("events = [{ at = '1s', copies = 0, times = 4000000000 }]", "sends at most 2 000 000 records"),
        ("[[generate]]\ncount = 1999999\n[[generate]]\ncount = 2", "sends at most 2 000 000 records"),
        ("events = [{ at = '1s', source = 'evnts' }]", "did you mean `events`?"),
        ("[expect.views]\nby_minut = []", "did you mean `by_minute`?"),
        ("[expect.views]\nby_minute = [{ evnts = 1 }]", "case.toml:2:16: there is no column `evnts`"),
        ("[expect.views]\nby_minute = [{ events = 'x' }]", "is no UInt64"),
        ("[expect.ledger]\nacepted = 1", "did you mean `accepted`?"),
        ("start = 'now'", "case.toml:1:1"),
        ("[schemas]\n1 = 'x.avsc'", "no id that is free"),
        ("[[steps]]\nat = '1s'\nkil = true", "did you mean `kill`?"),
    ] {
        // Something must have come for the ledger to have fates.
        let text = if text.starts_with("events") { text.to_owned() } else { format!("events = [{{}}]\n{text}") };
        let text = if text.contains("start =") { "start = 'now'".to_owned() } else { text };
        let said = shop.refused(&text);
        let told = told.replace(":2:", if text.starts_with("events = [{}]\n") { ":3:" } else { ":2:" });
        assert!(said.contains(told.trim_end()), "{told:?} is missing in:\n{said}");
    }
}
