//! What goes wrong around a pipeline and is put right: tables that are away, an outbox that is full, a rule that is mended
//! and its records retried.

use weir_pipeline::config::load::load;
use weir_replay::simulate::Options;

use super::{DEFAULTS, Shop};

/// A shop that takes retries, and beside it the same with a rule that lets small corrections pass.
fn with_retries() -> Shop {
    let mut shop = Shop::new();
    let folder = shop.folder.path();
    let file = folder.join("pipeline.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("event_id = \"event_id\"", "event_id = \"event_id\"\nretry_topic = \"events-retry\"");
    std::fs::write(&file, &text).unwrap();
    let mended = text.replace("amount >= 0", "amount >= -5");
    assert_ne!(text, mended);
    std::fs::write(folder.join("mended.toml"), mended).unwrap();
    std::fs::create_dir(folder.join("scenarios")).unwrap();
    shop.pipeline = load(&file).unwrap();
    shop
}

#[test]
fn what_a_rule_refused_is_retried_when_the_rule_is_mended() {
    let shop = with_retries();
    let events = r#"events = [
            { at = "1s", user_id = "ada", amount = 10 },
            { at = "2s", user_id = "bo", amount = -1 },
            { at = "3s", user_id = "cy", amount = -9 },
            { at = "4s", cut = 20 },
            { at = "3m", user_id = "ada", amount = 1 },
        ]"#;
    let retried = r#"[[steps]]
        at = "2m"
        with = "../mended.toml"
        [[checks]]
        at = "2m1s"
        expect = { quarantine = [{ reason = "rule", count = 2 }, { reason = "truncated", count = 1 }] }
        [[steps]]
        at = "2m30s"
        retry = { reason = "rule", rule = "amounts_are_positive" }
        [[steps]]
        at = "2m40s"
        retry = { reason = "rule" }"#;
    // Whoever was refused again waits at a new place, and was retried once more.
    let expected = r#"[expect]
        quarantine = [{ reason = "rule", count = 4 }, { reason = "truncated", count = 1 }]
        [expect.views]
        by_minute = [
            { window_start = "2026-01-05 12:00:00", events = 2, revenue = "9.00", users = 2 },
            { window_start = "2026-01-05 12:03:00", events = 1, revenue = "1.00", users = 1 },
        ]
        [expect.ledger]
        consumed = 8
        accepted = 3
        quarantined = 5"#;
    for workers in [1, 3] {
        let text = format!("workers = {workers}\n{events}\n{DEFAULTS}\n{retried}\n{expected}");
        assert_eq!(shop.told(&text), "");
    }
    let without = format!("{events}\n{DEFAULTS}\n{expected}");
    assert_ne!(shop.told(&without), "", "the comparison can fail");

    for (step, told) in
        [("with = '../nobody.toml'", "nobody.toml"), ("retry = { reasn = 'rule' }", "did you mean `reason`?")]
    {
        let said = shop.refused(&format!("events = [{{}}]\n[[steps]]\nat = '1s'\n{step}"));
        assert!(said.contains(told), "{told:?} is missing in:\n{said}");
    }
    let said = Shop::new().refused("events = [{}]\n[[steps]]\nat = '1s'\nretry = {}");
    assert!(said.contains("no source of the pipeline has a `retry_topic`"), "{said}");
}

/// Rows that are late for their tables are the same rows, whatever is killed meanwhile and however little may wait.
#[test]
fn tables_that_are_away_cost_no_row() {
    let shop = Shop::new();
    let events =
        "[[generate]]\ncount = 1500\nper_second = 20\nusers = 50\nduplicates = 0.05\nbad = 0.02\ndisorder = '4s'\n";
    let expected = "[expect]\nquarantine = []\nalerts = []\n[expect.views]\nby_minute = []\n[expect.ledger]\n\
                    [expect.tables]\nevents = []\n";
    let filled = shop.play(&format!("{events}{expected}")).updated;
    assert!(filled.matches("window_start").count() > 1, "{filled}");
    let down = "[[steps]]\nat = '10s'\ntables = 'down'\n";
    let look = "[[checks]]\nat = '40s'\nexpect = { ledger = { consumed = 0 } }\n";
    let killed = "[[steps]]\nat = '25500ms'\nkill = true\n";
    let up = "[[steps]]\nat = '50s'\ntables = 'up'\n";
    let of = |head: &str, steps: &[&str]| {
        let text = filled.replacen("[expect]", &format!("{}[expect]", steps.concat()), 1);
        let played = shop.play_with(&format!("{head}{text}"), Options::default()).unwrap();
        let told = |(when, of): &(String, weir_replay::simulate::Difference)| format!("{when}: {}", of.text());
        played.differences.iter().map(told).collect::<Vec<_>>()
    };
    let small = "outbox_bytes = 1\n";
    let none: [String; 0] = [];
    // As after a full disk: away with everything that wasn't committed, and back when there is room.
    let away = "[[steps]]\nat = '20500ms'\nkill = true\naway = '15s'\n";
    assert_eq!(of("", &[away]), none);
    assert_eq!(of("", &[down, away, up]), none);
    assert_eq!(of("", &[down, up]), none);
    assert_eq!(of("", &[down]), none, "they are back at the end");
    assert_eq!(of("", &[down, killed, up]), none);
    assert_eq!(of(small, &[down, up]), none);
    assert_eq!(of(small, &[down, killed, up]), none);
    // While they are away, a check sees what they had; the rest is in the outbox, or, where that is full, in the log.
    let consumed = |steps: &[&str]| -> u64 {
        let told = of("", steps).concat();
        let number = told.split_once("+ consumed").and_then(|(_, behind)| behind.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).unwrap_or_default()
    };
    let (away, there) = (consumed(&[down, look, up]), consumed(&[look]));
    assert!(away > 0 && away < there, "{away} of {there}");
}
