//! What an analyst does on the page beyond looking: a range that is typed, a filter by any value, this week over last; and
//! what the page says of a question that asks for too much.

use std::time::Duration;

use serde_json::{Value, json};

use crate::browser::{Browser, axe};
use crate::console::{
    SIX_S, assert_clean, assert_usable, drawn, open, photograph, purchases, shop_with_console, start,
};
use crate::program::{Bench, terminate, wait_until};

const WEEK_S: u32 = 7 * 86_400;
/// Six minutes of a purchase a second, each by a tenant of its own.
const COUNT: u32 = 360;
/// What the page calls the chart.
const LABEL: &str = "of by_minute over time";

/// What a minute's purchases cost each: another price each minute, and ten times as much a week later.
fn price(at: u32) -> u32 {
    (at % WEEK_S / 60 % 5 + 1) * if at < WEEK_S { 1 } else { 10 }
}

/// Waits until the chart has the points of these times, and returns it.
#[track_caller]
fn drawn_at(browser: &mut Browser, times_s: &[i64]) -> Value {
    let mut last = Value::Null;
    for _ in 0..300 {
        last = drawn(browser, LABEL);
        if last["xs"] == json!(times_s) {
            return last;
        }
        browser.wait(Duration::from_millis(100));
    }
    panic!("drawn are {}, not {times_s:?}", last["xs"]);
}

fn minutes(from_s: i64, minutes: std::ops::Range<i64>) -> Vec<i64> {
    minutes.map(|minute| from_s + minute * 60).collect()
}

#[test]
fn ranges_and_values_are_typed_and_a_week_is_drawn_over_the_week_before() {
    let bench = shop_with_console("console_analyst");
    for week in 0..2 {
        purchases(
            &bench,
            week * WEEK_S,
            COUNT,
            |at| json!({ "tenant": format!("t{:03}", at % WEEK_S), "amount": format!("{}.00", price(at)) }),
        );
    }
    let mut running = start(&bench);
    let mut browser = Browser::strict();
    wait_until("both weeks are there", || {
        bench.consumed() == u64::from(2 * COUNT) && bench.ask("SELECT count() FROM by_minute") == "720"
    });
    weeks(&mut browser, &bench);
    ranges(&mut browser);
    assert_usable(&mut browser, &axe(), "analyst with a typed range");
    photograph(&mut browser, "analyst-range");
    values(&mut browser);
    assert_clean(&browser, &bench);
    terminate(&mut running);
}

/// The second line is of the rows a week earlier, minute by minute.
fn weeks(browser: &mut Browser, bench: &Bench) {
    let from = SIX_S + i64::from(WEEK_S);
    let hash = format!("#/analyst/by_minute?measure=revenue&step=60&compare=week&from={from}&to={}", from + 360);
    open(browser, bench, &hash);
    let chart = drawn_at(browser, &minutes(from, 0..6));
    assert_eq!(chart["names"], json!(["revenue", "a week before"]));
    for (column, first) in [(0, WEEK_S), (1, 0)] {
        let shown: Vec<f64> =
            chart["columns"][column].as_array().unwrap().iter().map(|of| of.as_f64().unwrap()).collect();
        let sent: Vec<f64> = (0..6).map(|minute| f64::from(60 * price(first + minute * 60))).collect();
        assert_eq!(shown, sent, "{}", chart["names"][column]);
    }
    let change = "document.querySelector('#figure .change')?.textContent";
    browser.until("what the week before was", &format!("{change}.startsWith('+900 % ') && {change}.endsWith('(960)')"));
}

/// Both ends of a range are reached by keys, labelled, typed, and in the address; what is no range is refused beside them.
fn ranges(browser: &mut Browser) {
    browser.hash("#/analyst/by_minute?measure=events");
    browser.until("no range is chosen", "!document.getElementById('range-from')");
    browser.choose("range", "chosen");
    browser
        .until("its ends are in the address", "/from=[0-9]+/.test(location.hash) && /to=[0-9]+/.test(location.hash)");
    browser.until("there is a place for them", "document.getElementById('range-from')?.value");
    let labels =
        browser.value("['range-from', 'range-to'].map((id) => document.getElementById(id).labels[0].textContent)");
    assert_eq!(labels, json!(["From (UTC)", "To (UTC)"]));
    browser.value("document.getElementById('range').focus()");
    browser.press("Tab");
    browser.until("the first end is next", "document.activeElement.id === 'range-from'");

    type_range(browser, "2026-01-05T06:02:00", "2026-01-05T06:05:00");
    let (from, to) = (SIX_S + 120, SIX_S + 300);
    let address = format!("location.hash.includes('from={from}&to={to}')");
    browser.until("what was typed is in the address", &address);
    let chart = drawn_at(browser, &minutes(SIX_S, 2..5));
    assert_eq!(chart["columns"][0], json!([60, 60, 60]));
    browser
        .until("it stands in its place", "document.getElementById('range-from').value.startsWith('2026-01-05T06:02')");
    // Seconds count.
    type_range(browser, "2026-01-05T06:01:01", "2026-01-05T06:02:01");
    browser.until("to the second", &format!("location.hash.includes('from={}&to={}')", SIX_S + 61, SIX_S + 121));
    drawn_at(browser, &minutes(SIX_S, 1..3));

    let wrong = "document.getElementById('range-wrong').textContent";
    let hash = browser.text("location.hash");
    for (from, to, words) in [
        ("2026-01-05T06:05:00", "2026-01-05T06:02:00", "give a “from” before “to”"),
        ("2026-01-05T06:05:00", "2026-01-05T06:05:00", "give a “from” before “to”"),
        ("2026-01-05T06:05:00", "2200-01-05T06:05:00", "from 1970 to 2105"),
        ("", "2026-01-05T06:05:00", "Give both times"),
    ] {
        type_range(browser, from, to);
        browser.until(&format!("{from} to {to} is refused"), &format!("{wrong}.includes('{words}')"));
        assert_eq!(browser.value("document.getElementById('range-to').getAttribute('aria-invalid')"), json!("true"));
        assert_eq!(browser.text("location.hash"), hash, "what was there stays");
    }
}

/// Types both ends into their places, and says that they hold.
fn type_range(browser: &mut Browser, from: &str, to: &str) {
    for (id, time) in [("range-from", from), ("range-to", to)] {
        // The order of the parts in which people type a time is the browser's own affair.
        browser.value(&format!(
            "(() => {{ const of = document.getElementById('{id}'); of.focus(); of.value = '{time}'; \
             of.dispatchEvent(new Event('change', {{ bubbles: true }})); }})()"
        ));
    }
    browser.press("Enter");
}

/// A filter takes a value that isn't among those that are offered, and one that nobody has.
fn values(browser: &mut Browser) {
    browser.hash(&format!("#/analyst/by_minute?measure=events&from={SIX_S}&to={}", SIX_S + 360));
    let total = |value: &str| format!("document.getElementById('total')?.textContent === '{value}'");
    browser.until("all are counted", &total("360"));
    browser.value("document.getElementById('f-0').dispatchEvent(new Event('focus'))");
    let options = "[...document.getElementById('f-0').options].map((one) => one.text)";
    // Beside the values there are "all" and "other".
    browser.until("the first two hundred are offered", &format!("{options}.length === 202"));
    assert_eq!(
        browser.value(&format!("[{options}.includes('t000'), {options}.includes('t359')]")),
        json!([true, false])
    );
    for (value, told) in [("t359", "1"), ("<b>nobody", "0")] {
        browser.choose("f-0", "other …");
        browser.until("there is a place for a value", "!document.getElementById('f-0-other').hidden");
        browser.value("document.getElementById('f-0-other').focus()");
        browser.write(value);
        browser.press("Enter");
        let address = format!("new URLSearchParams(location.hash.split('?')[1]).get('filter.tenant') === '{value}'");
        browser.until("the filter is in the address", &address);
        browser.until("it is chosen", &format!("document.getElementById('f-0').selectedOptions[0].text === '{value}'"));
        browser.until(&format!("the number is of {value}"), &total(told));
    }
    let nothing = "['series', 'top', 'rows'].every((id) => document.getElementById(id).innerText.includes('No rows in this range'))";
    browser.until("nobody's rows are none", nothing);
}

/// Puts a view in the place of `by_minute` whose rows are as dear as somebody wants.
fn replace(bench: &Bench, tenant: &str, events: &str, revenue: &str, rows: &str) {
    bench.ask(&format!(
        "CREATE OR REPLACE VIEW by_minute AS SELECT toDateTime('2026-01-05 06:00:00', 'UTC') + toIntervalMinute(number % 400) \
         AS window_start, {tenant} AS tenant, 'DE' AS country, {events} AS events, {revenue} AS revenue, 1 AS users, \
         1 AS revision, true AS is_closed, true AS is_final FROM {rows}"
    ));
}

#[test]
fn a_question_that_asks_for_too_much_is_ended_and_the_page_says_what_helps() {
    let bench = shop_with_console("console_limits");
    purchases(&bench, 0, 60, |_| json!({}));
    let mut running = start(&bench);
    wait_until("the events are there", || bench.consumed() == 60);
    let mut browser = Browser::start();
    let hash = |measure: &str| format!("#/analyst/by_minute?measure={measure}&from={SIX_S}&to={}", SIX_S + 24_000);
    let says = |place: &str, words: &[&str]| {
        let all = words.iter().map(|word| format!("of.includes('{word}')")).collect::<Vec<_>>().join(" && ");
        format!("((of) => {all})(document.getElementById('{place}').innerText)")
    };

    // Two hundred rows, each of a hundred thousand bytes, are more than an answer may have here; what is drawn is little.
    replace(&bench, "repeat('x', 100000)", "1", "1", "numbers(400)");
    open(&mut browser, &bench, &hash("events"));
    browser.until("the rows are too many bytes", &says("rows", &["the answer is too large", "narrow the range"]));
    let drawn = drawn(&mut browser, LABEL);
    assert!(drawn["xs"].as_array().is_some_and(|xs| xs.len() > 1), "{drawn}");

    // An array of three gigabytes and more.
    replace(&bench, "'t'", "1", "length(range(toUInt64(400000000 + number)))", "numbers(1)");
    browser.hash(&hash("revenue"));
    browser.until("it takes too much memory", &says("series", &["more than 2 GiB of memory", "narrow the range"]));

    // Half a second a row, for ever.
    replace(&bench, "'t'", "sleepEachRow(0.5)", "1", "numbers(1000) SETTINGS max_block_size = 1");
    browser.hash(&hash("events"));
    let says = says("series", &["longer than 20 seconds", "narrow the range"]);
    browser.until_within(Duration::from_secs(60), "it takes too long", &says);
    assert_eq!(browser.value("document.getElementById('series').querySelector('[role=alert]') !== null"), json!(true));
    terminate(&mut running);
}
