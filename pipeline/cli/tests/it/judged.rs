//! Alerts of the judge end to end: weeks of generated events through real Kafka, and what people are told of them.

use std::collections::BTreeMap;
use std::path::Path;

use weir_replay::produce::faults::Faults;

use crate::alerts::messages;
use crate::browser::Browser;
use crate::console::{drawn, photograph};
use crate::history::{Fault, History, START_MS, Wrong};
use crate::program::{Bench, size, terminate, wait_until};

pub(crate) fn bench(name: &str) -> Bench {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/judged");
    Bench::of(&folder, name)
}

/// A tenant's steps: status, cause, last good release, fields, owner, hours since the history's start.
pub(crate) fn steps(bench: &Bench, tenant: &str) -> Vec<Vec<String>> {
    let told = bench.ask(&format!(
        "SELECT status, concat(sdk, ' ', sdk_version), last_good_release, arrayStringConcat(fields), owner, \
         dateDiff('hour', toDateTime64('2026-01-05 00:00:00', 6, 'UTC'), window_start), indicator, detail \
         FROM weir_alerts_history WHERE has(tenants, '{tenant}') ORDER BY window_start, revision"
    ));
    told.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// One alert that opens soon after hour 216, names the release, and is over soon after hour 264.
#[track_caller]
pub(crate) fn assert_one_alert(bench: &Bench, tenant: &str, named: [&str; 4]) {
    let steps = steps(bench, tenant);
    let status: Vec<&str> = steps.iter().map(|step| step[0].as_str()).collect();
    let (Some(first), Some(last)) = (steps.first(), steps.last()) else { panic!("{tenant}: nothing was told") };
    assert_eq!(named.as_slice(), &first[1..5], "{tenant}: {steps:#?}");
    let hour = |step: &[String]| step[5].parse::<i64>().unwrap();
    assert!((216..228).contains(&hour(first)) && (264..276).contains(&hour(last)), "{tenant}: {steps:#?}");
    assert_eq!((status[0], status[status.len() - 1]), ("open", "resolved"), "{tenant}: {steps:#?}");
    assert!(status[1..status.len() - 1].iter().all(|status| *status == "update"), "{tenant}: {steps:#?}");
    let count = format!("SELECT uniqExact(fingerprint) FROM weir_alerts_history WHERE has(tenants, '{tenant}')");
    assert_eq!(bench.ask(&count), "1", "{tenant}");
}

#[test]
fn each_fault_of_a_release_is_one_alert_that_ends_by_itself() {
    let bench = bench("judged");
    let fault = |tenant, release, wrong| Fault { tenant, release, wrong, hours: 216..264 };
    let history = History {
        tenants: vec!["north", "south", "east", "west"],
        hours: 24 * size(14, 28) as usize,
        per_hour: 200.0,
        faults: vec![
            fault("north", 6, Wrong::NullAmount),
            // What is built on the bad release has the fault, too.
            fault("north", 7, Wrong::NullAmount),
            fault("south", 3, Wrong::Currency),
            fault("east", 1, Wrong::NoPurchases),
        ],
        seed: 5,
    };
    history.send(&bench, 4, Faults { seed: 5, disorder_ms: 30_000, duplicates: 0.01, ..Faults::default() });
    bench.weir(&["check", "pipeline.toml"]).fine();
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();

    assert_one_alert(&bench, "north", ["android 4.2.0", "android 4.1.0 / 7.0", "amount", "mobile"]);
    assert_one_alert(&bench, "south", ["ios 5.1.0", "ios 5.0.2 / 7.0", "currency", "checkout"]);
    assert_one_alert(&bench, "east", ["web 3.2.0", "web 3.1.0 / 2026.8", "", "growth"]);
    assert!(steps(&bench, "west").is_empty(), "{:#?}", steps(&bench, "west"));

    // Topics and tables have the same alerts and steps.
    let history = messages(&format!("{}-alerts", bench.database));
    assert_eq!(history.len().to_string(), bench.ask("SELECT count() FROM weir_alerts_history"));
    let newest = |messages: Vec<(String, String, Vec<u8>)>| -> BTreeMap<String, Vec<u8>> {
        messages.into_iter().map(|(key, _, value)| (key, value)).collect()
    };
    let current = newest(messages(&format!("{}-current", bench.database)));
    assert_eq!(current, newest(history));
    assert_eq!(current.len().to_string(), bench.ask("SELECT count() FROM weir_alerts WHERE status = 'resolved'"));
    what_an_alert_carries(&bench);
    what_people_see(&bench);
    what_the_judge_counted(&bench);
    what_a_page_draws(&bench);
}

/// Samples that show the fault and hide what is sensitive, and a query that finds it.
fn what_an_alert_carries(bench: &Bench) {
    let sample = |field: &str| {
        let of = "SELECT samples[1], length(samples), length(examples) FROM weir_alerts WHERE has(fields, '{}')";
        bench.ask(&of.replace("{}", field)).replace("\\'", "'")
    };
    let (amount, currency) = (sample("amount"), sample("currency"));
    assert!(amount.starts_with(r#"{"amount":null,"type":"purchase""#) && amount.ends_with("\t3\t3"), "{amount}");
    assert!(currency.starts_with(r#"{"currency":"EURO","type":"purchase""#) && currency.ends_with("\t3\t3"));
    assert!(amount.contains(r#""user_id":"***""#));
    assert_eq!(bench.ask("SELECT countIf(toString(samples) LIKE '%@%') FROM weir_alerts_history"), "0", "addresses");
    let users = "SELECT countIf(affected_users > 0), countIf(affected_records > 0) FROM weir_alerts_history \
                 WHERE status = 'open'";
    assert_eq!(bench.ask(users), "3\t3");
    let queries = bench.ask("SELECT DISTINCT query FROM weir_alerts_history FORMAT TSVRaw");
    assert!(queries.lines().count() >= 3);
    for query in queries.lines() {
        let found = bench.ask(&format!("SELECT count(), max(affected) FROM ({query})"));
        let mut counts = found.split('\t').map(|count| count.parse::<u64>().unwrap());
        assert!(counts.all(|count| count > 0), "{query}: {found}");
    }
}

fn what_people_see(bench: &Bench) {
    let listed = bench.weir(&["alerts", "list", "pipeline.toml", "--all"]).fine().out;
    println!("{listed}");
    for told in ["android 4.", "ios 5.1.0 / 7.1", "web 3.2.0 / 2026.9", "mobile", "checkout", "growth", "3 alerts"] {
        assert!(listed.contains(told), "{told} is missing in\n{listed}");
    }
    let fingerprint = bench.ask("SELECT fingerprint FROM weir_alerts WHERE has(fields, 'currency')");
    let shown = bench.weir(&["alerts", "show", "pipeline.toml", &fingerprint]).fine().out;
    println!("{shown}");
    for told in ["EURO", "look further", "ios 5.0.2 / 7.0", "resolved"] {
        assert!(shown.contains(told), "{told} is missing in\n{shown}");
    }
    let tail = bench.weir(&["alerts", "tail", "pipeline.toml", "--from-beginning", "--until-end"]).fine().out;
    println!("{tail}");
    assert_eq!(tail.matches(&fingerprint[..8]).count() > 0, !tail.is_empty());
    bench.weir(&["alerts", "ack", "pipeline.toml", &fingerprint, "--by", "ada"]).refused(2, &["is resolved"]);
}

/// The judge's own counts by release are those of the alert's query, which counts the events that are kept.
fn what_the_judge_counted(bench: &Bench) {
    let alerts = bench.ask("SELECT indicator, tenants[1], query FROM weir_alerts FORMAT TSVRaw");
    for alert in alerts.lines() {
        let [indicator, tenant, query] = alert.splitn(3, '\t').collect::<Vec<_>>()[..] else { panic!("{alert}") };
        // The alert is about one of the series that have its indicator.
        let told = bench.ask(&format!(
            "SELECT countIf(s.affected != q.affected OR s.records != q.records) AS wrong, count() AS rows, \
             uniqExact(s.sdk_version, s.app_version) AS releases \
             FROM (SELECT *, concat(sdk, ' ', sdk_version, ' / ', app_version) AS release FROM weir_shares \
             WHERE tenant = '{tenant}' AND indicator = '{indicator}') AS s \
             LEFT JOIN ({query}) AS q ON toDateTime(s.window_start, 'UTC') = q.window AND s.release = q.release \
             WHERE s.sdk = (SELECT any(sdk) FROM weir_alerts WHERE has(tenants, '{tenant}')) \
             GROUP BY s.event_type, s.field, s.code ORDER BY wrong, rows DESC LIMIT 1"
        ));
        let numbers: Vec<u64> = told.split('\t').map(|number| number.parse().unwrap()).collect();
        assert!(numbers[0] == 0 && numbers[1] > 40 && numbers[2] > 1, "{indicator} of {tenant}: {numbers:?}\n{query}");
    }
}

/// The page of each alert draws its release beside the others, from before it began.
fn what_a_page_draws(bench: &Bench) {
    bench.edit("epoch_ms = 200", "epoch_ms = 200\nhttp = \"127.0.0.1:${HTTP_PORT}\"");
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("the pipeline answers", || bench.status().is_some());
    let mut browser = Browser::strict();
    let alerts =
        bench.ask("SELECT fingerprint, concat(sdk, ' ', sdk_version, ' / ', app_version), indicator FROM weir_alerts");
    for alert in alerts.lines() {
        let [fingerprint, release, indicator] = alert.split('\t').collect::<Vec<_>>()[..] else { panic!("{alert}") };
        browser.go("about:blank");
        browser.go(&bench.page(&format!("/#/sdk/alert/{fingerprint}")));
        let chart = drawn(&mut browser, "Affected share by release");
        assert_eq!(chart["names"][0], release, "{indicator}");
        let marked = chart["columns"][0].as_array().unwrap();
        let at = |hour: i64| {
            let second = serde_json::json!(START_MS / 1_000 + hour * 3_600);
            let place = chart["xs"].as_array().unwrap().iter().position(|x| x.as_f64() == second.as_f64());
            place
                .and_then(|place| marked[place].as_f64())
                .unwrap_or_else(|| panic!("{indicator}: no point of hour {hour}"))
        };
        // A fifth of an hour's events are purchases, at least; who sends none of them is a fault, too.
        let (before, within) = (at(210), at(240));
        assert!((before - within).abs() > 0.1, "{indicator}: {before} before it, {within} within it");
        assert!(chart["names"].as_array().unwrap().len() > 1, "{indicator}");
        let told = "document.body.innerText.includes('Of the accepted events, which are kept for 10000 days.')";
        browser.until("where it is from", told);
        photograph(&mut browser, &format!("judged-{}", indicator.replace(' ', "-")));
    }
    assert_eq!(browser.troubles(&bench.page("/")), Vec::<String>::new());
    terminate(&mut running);
}
