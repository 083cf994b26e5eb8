//! `weir demo` as people meet it: started, looked at in a browser while it runs, ended, started again.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::browser::{Browser, axe};
use crate::console::{drawn, photograph};
use crate::program::{Done, block_on, clickhouse, parts, size, wait_until};
use crate::shop::shop;

/// Where the pipeline of `weir init` answers.
const CONSOLE: &str = "http://127.0.0.1:9464/";
/// The database that it fills.
const DATABASE: &str = "weir";
/// Paths of the console that a page asks for in other tests: when events are cut off, and of replays.
const ELSEWHERE: [&str; 2] = ["/api/snapshot", "/api/replays/{run}/diff"];
/// Paths that are there for people's own programs, which no page asks for.
const UNASKED: [&str; 3] = ["/api/status", "/api/progress", "/api/replays"];

#[test]
fn the_demo_is_looked_at_ends_with_a_balanced_ledger_and_goes_on() {
    let bench = shop("demo");
    let parts = parts();
    let (kafka, registry, clickhouse) = (parts.kafka(), parts.registry(), parts.clickhouse());
    let named = ["--kafka", &kafka, "--registry", &registry, "--clickhouse", &clickhouse];
    let demo = |seconds: &str| {
        let mut command = bench.command(&["demo", "--seconds", seconds, "--rate", "200"]);
        command.args(named).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let mut browser = Browser::strict();
    let mut running = Ended(Some(demo("900").spawn().unwrap()));
    wait_until("the demo answers", || {
        block_on(async { reqwest::get(format!("{CONSOLE}readyz")).await.is_ok_and(|one| one.status().is_success()) })
    });
    look(&mut browser);
    let running = running.0.take().unwrap();
    Command::new("kill").args(["-TERM", &running.id().to_string()]).status().unwrap();
    assert_equal(Done::of(running.wait_with_output().unwrap()).fine());
    let before = consumed();
    // Started again it goes on where it was, and ends by itself.
    assert_equal(Done::of(demo(&size(10, 60).to_string()).output().unwrap()).fine());
    let after = consumed();
    assert!(before > 0 && after > before, "{before} records, then {after}");
}

/// A demo that doesn't outlive a test which failed.
struct Ended(Option<Child>);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(running) = &mut self.0 {
            let _ = running.kill();
            let _ = running.wait();
        }
    }
}

fn consumed() -> u64 {
    clickhouse(DATABASE, "SELECT sum(consumed) FROM weir_ledger", &[]).parse().expect("a number of records")
}

/// What the demo says in the end.
#[track_caller]
fn assert_equal(done: Done) {
    let told = done.out;
    assert!(told.contains("balanced") && !told.contains("NOT BALANCED"), "{told}");
    assert!(told.contains("equal") && !told.contains("DIFFERENT"), "{told}");
}

/// Every page and every view, while events come.
fn look(browser: &mut Browser) {
    let axe = axe();
    browser.go(&format!("{CONSOLE}#/sdk"));
    browser.until("the page is there", "document.querySelector('#sdk h1')");
    appears(browser);
    opens(browser, "revenue_by_minute", "orders", Some(60));
    opens(browser, "purchases_by_five_minutes", "most", Some(300));
    // Of an hour there may be no final window yet.
    opens(browser, "visitors_by_hour", "visitors", None);
    browser.hash("#/engineer");
    browser.until("the flow", "document.querySelector('svg.flow')");
    browser.until("the ledger balances", "document.getElementById('books').innerText.includes('balanced')");
    browser.until("eight partitions", "document.querySelectorAll('#partitions tbody tr').length === 8");
    browser.until("destinations", "document.getElementById('destinations').innerText.includes('revenue_by_minute')");
    browser.until("causes", "document.getElementById('causes').innerText.includes('amounts_are_positive')");
    drawn(browser, "Records by fate");
    photograph(browser, "demo-engineer");
    browser.hash("#/sdk/releases");
    browser.until("six releases, and who isn't known", "document.querySelectorAll('#sdk tbody tr').length >= 6");
    photograph(browser, "demo-releases");
    browser.hash("#/sdk/release/android%204.2.0%20%2F%207.1");
    drawn(browser, "Refused share by release");
    browser.until("why", "document.body.innerText.includes('amounts_are_positive')");
    photograph(browser, "demo-release");
    let found = browser.violations(&axe);
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert_eq!(browser.troubles(CONSOLE), Vec::<String>::new());
    assert_covered(browser);
    // That a name is unknown would have been told.
    browser.value("fetch('/api/views').then((one) => one.json()).then((all) => all.views[0].mesures)");
    let told = browser.troubles(CONSOLE).concat();
    assert!(told.contains("unknown name: /api/views.views.0.mesures"), "{told}");
}

/// The release that goes wrong gets its alert, whose page shows that it is the one.
fn appears(browser: &mut Browser) {
    // The demo makes up ten minutes first, in the middle of which a release goes wrong.
    browser.until_within(Duration::from_secs(180), "an alert appears", "document.querySelector('a.alert')");
    browser.until("its number stands beside the page", "document.querySelector('nav .badge')");
    browser.until("of the one release", "document.querySelector('a.alert').innerText.includes('android 4.2.0 / 7.1')");
    photograph(browser, "demo-alerts");
    browser.value("document.querySelector('a.alert').click()");
    browser.until("the alert", "document.body.innerText.includes('First bad release')");
    let chart = drawn(browser, "Affected share by release");
    let names: Vec<&str> = chart["names"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(names[0], "android 4.2.0 / 7.1");
    let most = |at: usize| {
        let column = chart["columns"][at].as_array().unwrap().iter().filter_map(Value::as_f64);
        column.fold(0.0, f64::max)
    };
    assert!(names.len() > 3 && most(0) >= 0.05, "{names:?}: {}", most(0));
    assert!((1..names.len()).all(|at| most(at) < 0.05), "the others are in order");
    browser.until("samples", "document.querySelector('.sample')");
    photograph(browser, "demo-alert");
    browser.hash("#/sdk?all=1");
    browser.until("those that are over, too", "document.getElementById('all')?.checked");
}

/// A view as time series, top and rows; filtered, its number is what ClickHouse says of the filter's tenant. For windows
/// of `final_s` seconds the number is that of the final ones of five minutes: they don't change between two questions.
fn opens(browser: &mut Browser, view: &str, measure: &str, final_s: Option<u64>) {
    browser.hash(&format!("#/analyst/{view}"));
    drawn(browser, &format!("of {view} over time"));
    browser.until("rows", "document.querySelectorAll('#rows tbody tr').length > 1");
    browser.until("completeness", "document.getElementById('complete')");
    photograph(browser, &format!("demo-{view}"));
    let mut range = String::new();
    if let Some(width_s) = final_s {
        let last = format!("SELECT toUnixTimestamp(max(window_start)) FROM {view} WHERE is_final");
        let mut to = 0;
        wait_until("a window is final", || {
            to = clickhouse(DATABASE, &last, &[]).parse().unwrap_or(0);
            to > 0
        });
        // The last final one is in the range: after a demo's first minutes there may be only one of five minutes.
        to += width_s;
        range = format!("&from={}&to={to}", to - 300);
    }
    browser.hash(&format!("#/analyst/{view}?measure={measure}{range}"));
    drawn(browser, &format!("{measure} of {view} over time"));
    browser.choose("f-0", "alpine");
    browser.until("the filter is in the address", "location.hash.includes('filter.tenant=alpine')");
    let sql = "document.querySelector('#series details:last-of-type pre').textContent";
    browser.until("the number is of the filter", &format!("{sql}.includes('alpine')"));
    if !range.is_empty() {
        let number = clickhouse(DATABASE, &browser.text(sql), &[]);
        let shown = "Number(document.getElementById('total')?.textContent.replaceAll(',', ''))";
        browser.until("the number is ClickHouse's", &format!("Math.abs({shown} - {number}) < 0.01"));
    }
    photograph(browser, &format!("demo-{view}-filtered"));
}

/// Each path that a page may ask for was asked, and each table in what was asked is there. That columns are, ClickHouse
/// says itself: it refuses others, and a refusal is a trouble.
fn assert_covered(browser: &mut Browser) {
    let source = include_str!("../../../src/console/mod.rs");
    let routes = source.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next());
    let routes: Vec<&str> = routes.filter(|route| route.starts_with("/api/")).collect();
    assert!(routes.len() > 15, "{routes:?}");
    let asked = browser.paths();
    let is_asked = |route: &str| {
        let parts: Vec<&str> = route.split('/').collect();
        let fits = |path: &String| {
            let of: Vec<&str> = path.split('/').collect();
            of.len() == parts.len() && of.iter().zip(&parts).all(|(of, part)| part.starts_with('{') || of == part)
        };
        asked.iter().any(fits)
    };
    let left: Vec<&&str> = routes.iter().filter(|route| !is_asked(route)).collect();
    let known: Vec<&&str> =
        routes.iter().filter(|route| ELSEWHERE.contains(route) || UNASKED.contains(route)).collect();
    assert_eq!(left, known, "paths that no page asked for");

    let faults = "fetch('/api/snapshot').then((one) => one.json()).then((one) => one.faults.join('; '))";
    assert_eq!(browser.text(faults), "", "what a snapshot couldn't ask");
    let statements = browser.value("statements_()");
    let statements: Vec<&str> = statements.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(statements.len() > 15, "{statements:#?}");
    let tables = clickhouse(DATABASE, &format!("SELECT name FROM system.tables WHERE database = '{DATABASE}'"), &[]);
    let there: BTreeSet<&str> = tables.lines().collect();
    for statement in statements {
        let words: Vec<&str> = statement.split_whitespace().collect();
        for pair in words.windows(2).filter(|pair| ["FROM", "JOIN"].contains(&pair[0]) && !pair[1].starts_with('(')) {
            let table = pair[1].rsplit('.').next().unwrap_or_default().trim_matches(['`', ')', ',']);
            assert!(there.contains(table), "unknown table {table}:\n{statement}");
        }
        // What is shown to be copied runs as it stands.
        clickhouse(DATABASE, &format!("EXPLAIN {statement}"), &[]);
    }
}
