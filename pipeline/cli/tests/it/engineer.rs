//! What engineers and SDK teams see: figures that agree with what `/status`, `/metrics` and the disk say, alerts by whose they
//! are, and a release whose name means no good.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use weir_pipeline::status::Status;
use weir_schemas::metric::Metric;

use crate::browser::{Browser, axe};
use crate::console::{
    asked, assert_clean, assert_usable, drawn, open, photograph, purchases_after, shop_with_console, start,
};
use crate::program::{Bench, terminate, wait_until};

/// What a hostile SDK calls itself: its name, its version, the app's.
const HOSTILE: [&str; 3] =
    ["<img src=x onerror=\"window.hacked=1\">", "4'--", "</script><script>window.hacked=1</script>"];

/// Purchases of three senders in turn, every other one of each refused: one whose SDK has an owner, one whose tenant has,
/// and one that is nobody's.
fn sender(at: u32) -> Value {
    let (tenant, [sdk, sdk_version, app_version]) = match at % 3 {
        0 => ("a", ["android", "4.2.0", "7.1"]),
        1 => ("b", HOSTILE),
        _ => ("c", ["flutter", "1.0.0", "2.0"]),
    };
    let amount = if (at / 3).is_multiple_of(2) { "-1.00" } else { "5.00" };
    json!({ "tenant": tenant, "sdk": sdk, "sdk_version": sdk_version, "app_version": app_version, "amount": amount })
}

#[test]
fn figures_agree_with_what_is_measured_and_alerts_stand_with_their_owners() {
    let bench = shop_with_console("console_owners");
    let owners = "[[alerts.owners]]\nowner = \"mobile\"\nwhen = { sdk = \"android\" }\n\n\
                  [[alerts.owners]]\nowner = \"web\"\nwhen = { tenant = \"b\" }\n";
    bench.edit("min_records = 20\nwindow_ms = 60000", &format!("min_records = 10\nwindow_ms = 60000\n\n{owners}"));
    // Recent, since the page of a release looks back from now.
    let start_s = (chrono::Utc::now().timestamp() - 900) / 60 * 60;
    purchases_after(&bench, start_s, 0, 360, sender);
    let mut running = start(&bench);
    let mut browser = Browser::strict();
    wait_until("the first events are there", || bench.consumed() == 360);
    figures(&mut browser, &bench, start_s);
    let axe = axe();
    owners_see_theirs(&mut browser, &axe);
    hostile_release(&mut browser, &axe);
    assert_clean(&browser, &bench);
    assert!(!browser.paths().contains("/x"), "what an event names isn't requested");
    terminate(&mut running);
}

/// All figures of the engineer's page: what stands large, and what stands below it, by their labels.
fn read(browser: &mut Browser) -> BTreeMap<String, (String, String)> {
    let of = "[...document.querySelectorAll('#figures dt')].map((one) => [one.textContent, \
              one.nextElementSibling.firstChild.textContent, one.nextElementSibling.querySelector('small')?.textContent ?? ''])";
    let figures: Vec<(String, String, String)> = serde_json::from_value(browser.value(of)).unwrap();
    figures.into_iter().map(|(label, large, small)| (label, (large, small))).collect()
}

/// Reads the figures until they are as somebody wants.
#[track_caller]
fn read_until(
    browser: &mut Browser,
    what: &str,
    is_so: impl Fn(&BTreeMap<String, (String, String)>) -> bool,
) -> BTreeMap<String, (String, String)> {
    let mut last = BTreeMap::new();
    for _ in 0..300 {
        last = read(browser);
        if is_so(&last) {
            return last;
        }
        browser.wait(Duration::from_millis(100));
    }
    panic!("{what}: {last:#?}");
}

/// Epochs, bytes of the state, records, and how long commits and deliveries take.
fn figures(browser: &mut Browser, bench: &Bench, start_s: i64) {
    let metrics = || asked(&bench.page("/metrics"), &[]).2;
    let before = metrics();
    open(browser, bench, "#/engineer");
    browser.until("figures", "document.querySelectorAll('#figures dt').length > 0");
    purchases_after(bench, start_s, 360, 60, sender);
    wait_until("there are more", || bench.consumed() == 420);
    let status = || bench.status().expect("a status");
    let (earlier, state) = (status(), bench.folder.path().join("state"));
    let shown = read_until(browser, "the figures become those of now", |of| {
        let [open, committed, delivered] = epochs(of);
        let size = bytes_below(&state) as f64;
        committed >= earlier.committed_epoch
            && delivered >= earlier.delivered_epoch
            && open >= earlier.open_epoch
            && (bytes(&of["State"].0) - size).abs() <= 0.1 * size + 65_536.0
            && of["Reading"].1.ends_with(" 420 since the start")
            && of["Commit"].1.starts_with("p99 ")
            && of["Delivery"].1.starts_with("p99 ")
    });
    assert!(bytes(&shown["State"].0) > 0.0);
    let (later, after) = (status(), metrics());
    assert_epochs(epochs(&shown), &earlier, &later);
    let limits = [("In flight", later.in_flight_limit_bytes), ("Outbox", later.outbox_limit_bytes)];
    for (label, limit) in limits {
        let told = bytes(shown[label].1.strip_prefix("of ").unwrap());
        assert!((told - limit as f64).abs() <= 0.06 * limit as f64, "{label}: {}, not {limit}", shown[label].1);
    }
    let consumed: f64 = numbers(&after, Metric::RecordsConsumed.name()).map(|(_, value)| value).sum();
    assert_eq!(consumed, 420.0);
    for (label, metric) in [("Commit", Metric::CommitSeconds), ("Delivery", Metric::DeliverySeconds)] {
        let (least, most) = between(&before, &after, metric.name());
        let (large, small) = &shown[label];
        let (half, slow) = (seconds(large), seconds(small.strip_prefix("p99 ").unwrap().split(',').next().unwrap()));
        // As exact as they are written.
        let about = |of: f64| 0.06 * of + 0.001;
        assert!(
            least <= half + about(half) && half <= slow + about(half) && slow <= most + about(slow),
            "{label}: {large}, {small}; measured were {least} to {most} s"
        );
    }
}

/// The open, the committed and the delivered epoch that are shown; zeros while none are.
fn epochs(of: &BTreeMap<String, (String, String)>) -> [u64; 3] {
    let number = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
    let (open, rest) = &of["Epochs"];
    let (committed, delivered) = rest.split_once(", delivered ").unwrap_or(("", ""));
    [number(open), number(committed), number(delivered)]
}

/// What is shown was so between two moments.
#[track_caller]
fn assert_epochs([open, committed, delivered]: [u64; 3], earlier: &Status, later: &Status) {
    assert!(
        (earlier.open_epoch..=later.open_epoch).contains(&open)
            && (earlier.committed_epoch..=later.committed_epoch).contains(&committed)
            && (earlier.delivered_epoch..=later.delivered_epoch).contains(&delivered),
        "{open}, {committed}, {delivered}:\n{earlier:#?}\n{later:#?}"
    );
}

/// The series of a metric's name, with their labels.
fn numbers<'a>(metrics: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> + 'a {
    metrics.lines().filter_map(move |line| {
        let (series, value) = line.rsplit_once(' ')?;
        let labels = series.strip_prefix(name)?;
        let is_it = labels.is_empty() || labels.starts_with('{');
        is_it.then_some((labels, value.parse().ok()?))
    })
}

/// The bounds of the least and of the greatest bucket of a histogram in which anything came between two moments.
fn between(before: &str, after: &str, name: &str) -> (f64, f64) {
    let buckets = |metrics: &str| -> Vec<(f64, f64)> {
        let name = format!("{name}_bucket");
        let bound = |labels: &str| labels.split("le=\"").nth(1)?.split('"').next()?.parse().ok();
        numbers(metrics, &name).map(|(labels, count)| (bound(labels).expect("a bound"), count)).collect()
    };
    let (before, after) = (buckets(before), buckets(after));
    assert!(before.len() > 3 && before.len() == after.len(), "{name}: {before:?} {after:?}");
    let (mut lower, mut below, mut met) = (0.0, 0.0, Vec::new());
    for ((bound, earlier), (_, later)) in before.into_iter().zip(after) {
        if later - earlier > below {
            met.push((lower, bound));
        }
        (lower, below) = (bound, later - earlier);
    }
    (met.first().expect("something came").0, met.last().expect("something came").1)
}

/// Bytes as the page writes them.
fn bytes(text: &str) -> f64 {
    let (number, unit) = text.split_once(' ').unwrap_or_else(|| panic!("{text} is no number of bytes"));
    let power = ["B", "KiB", "MiB", "GiB", "TiB"].iter().position(|of| *of == unit).expect("a unit");
    number.parse::<f64>().expect("a number") * 1_024f64.powi(i32::try_from(power).unwrap())
}

/// A span as the page writes it, in seconds.
fn seconds(text: &str) -> f64 {
    let (number, unit) = text.trim_start_matches("< ").split_once(' ').unwrap_or_else(|| panic!("{text} is no span"));
    let unit_s = [("ms", 0.001), ("s", 1.0), ("min", 60.0)].into_iter().find(|(of, _)| *of == unit).expect("a unit").1;
    number.parse::<f64>().expect("a number") * unit_s
}

/// The sizes of all files below a folder; those that go meanwhile aside.
fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(of) if of.is_dir() => bytes_below(&entry.path()),
        Ok(of) => of.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// Each alert stands below its owner, and one that is nobody's below nobody.
fn owners_see_theirs(browser: &mut Browser, axe: &str) {
    browser.hash("#/sdk");
    browser.until("three alerts", "document.querySelectorAll('a.alert').length === 3");
    let groups = "[...document.querySelectorAll('#sdk section')].map((one) => [one.querySelector('h2').textContent, \
                  [...one.querySelectorAll('a.alert')].map((of) => of.innerText)])";
    let groups: BTreeMap<String, Vec<String>> =
        serde_json::from_value::<Vec<(String, Vec<String>)>>(browser.value(groups)).unwrap().into_iter().collect();
    let [sdk, sdk_version, app_version] = HOSTILE;
    let hostile = format!("{sdk} {sdk_version} / {app_version}");
    for (owner, release) in
        [("mobile 1", "android 4.2.0 / 7.1"), ("web 1", hostile.as_str()), ("Nobody named 1", "flutter 1.0.0 / 2.0")]
    {
        let alerts = groups.get(owner).unwrap_or_else(|| panic!("{owner}: {groups:#?}"));
        assert!(alerts.len() == 1 && alerts[0].contains(release), "{owner}: {groups:#?}");
    }
    assert_eq!(groups.len(), 3);
    assert_usable(browser, axe, "alerts by owner");
    photograph(browser, "alerts-owners");
}

/// A release that is called like markup is text on its alert's page and on its own, and does nothing there.
fn hostile_release(browser: &mut Browser, axe: &str) {
    let [sdk, sdk_version, app_version] = HOSTILE;
    let release = format!("{sdk} {sdk_version} / {app_version}");
    let wanted = serde_json::to_string(&release).unwrap();
    let shows = |place: &str| format!("document.querySelector('{place}')?.textContent.includes({wanted})");
    browser.value(&format!(
        "[...document.querySelectorAll('a.alert')].find((one) => one.textContent.includes({wanted})).click()"
    ));
    browser.until("the alert's page", "document.body.innerText.includes('First bad release')");
    browser.until("its title is the release's", &shows("#sdk h1"));
    browser.until("its first bad release", &shows("#sdk .facts a"));
    browser.value("document.querySelector('#sdk .facts a').click()");
    browser.until("the release's page", "location.hash.startsWith('#/sdk/release/')");
    let chart = drawn(browser, "Refused share by release");
    assert_eq!(chart["names"][0], json!(release), "{chart}");
    browser.until("its title", &shows("#sdk h1"));
    browser.until("its alert", &shows("#sdk a.alert"));
    browser.until("why it is refused", "document.querySelector('#sdk').innerText.includes('amounts_are_positive')");
    let made = "document.querySelectorAll('main img, main script, main iframe').length";
    assert_eq!(browser.value(&format!("[{made}, window.hacked === undefined]")), json!([0, true]));
    assert_usable(browser, axe, "a hostile release");
    photograph(browser, "release-hostile");
}
