//! How each release did, over time, in what an alert is about: which table knows depends on the alert's kind.
//!
//! | what is out of order | told by |
//! |---|---|
//! | the share of refused records | quarantine and accepted events; without events the judge's own counts, else refused records alone |
//! | numbers lost on the way | the judge's own counts |
//! | copies, what came too late | the judge's own counts, by the alert's query |
//! | anything else that events show | the alert's query: over the accepted events where they are kept, else the judge's own counts |
//!
//! The judge's counts (`weir_shares`) are of windows in which it was out of order, so nothing is known of the time before; the
//! page says so. The query of an alert is Weir's own text out of Weir's own table, asked as everything else: read-only, with limits.

use serde_json::{Value, json};
use weir_judge::tally::Family;
use weir_schemas::tables;

use super::Served;
use super::ask::Style;
use super::catalog::Source;
use super::fault::Fault;
use super::health::{self, Which};
use super::question::{Question, shown};

/// The columns with which an alert's query begins where it tells shares by release.
const TELLS: [&str; 4] = ["window", "release", "affected", "records"];

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drawn {
    /// The affected part of a release's records.
    Share,
    /// How many are affected: of how many isn't known, or no part of them is meant.
    Count,
}

/// A question about releases, and what it can tell.
struct Beside {
    question: Question,
    drawn: Drawn,
    /// Where the numbers are from, and what of them isn't there.
    told: String,
}

/// What is known of an alert that decides who can tell.
struct About<'a> {
    source: &'a str,
    detector: &'a str,
    indicator: &'a str,
    rule: &'a str,
    reason: &'a str,
    query: &'a str,
    /// The one tenant that has it.
    tenant: Option<&'a str>,
    /// The width of its windows.
    window_s: i64,
}

impl<'a> About<'a> {
    fn of(alert: &'a Value) -> About<'a> {
        let text = |name: &str| alert[name].as_str().unwrap_or_default();
        let time = |name: &str| text(name).parse::<f64>().unwrap_or_default() as i64;
        let is_one = alert["tenant_count"] == 1;
        About {
            source: text("source"),
            detector: text("detector"),
            indicator: text("indicator"),
            rule: text("rule"),
            // A release that fell silent: its last reason isn't known any more.
            reason: if text("reason") == "silent" { "" } else { text("reason") },
            query: text("query"),
            tenant: alert["tenants"][0].as_str().filter(|_| is_one),
            window_s: (time("window_end") - time("window_start")).max(1),
        }
    }

    fn is_judged(&self) -> bool {
        self.detector == "judge"
    }

    /// The width of a point: the alert's windows, which the judge's counts come in; else as wide as the range asks.
    fn step_s(&self, (from_s, to_s): (i64, i64)) -> i64 {
        if self.is_judged() { self.window_s } else { health::step_of(to_s - from_s) }
    }

    fn is_refusal(&self) -> bool {
        !self.is_judged() || self.indicator == Family::Refused.name()
    }
}

/// The releases' rows of `time`, `release`, `affected` and `records` in a range of seconds, with what is drawn of them and
/// whatever isn't known; a reason instead of rows where nothing is.
pub(super) async fn releases(served: &Served, alert: &Value, range: (i64, i64)) -> Result<Value, Fault> {
    let of = About::of(alert);
    let source = served.catalog.sources.iter().find(|source| source.name == of.source);
    let days = source.and_then(|source| source.keep_events_days);
    let beside = match (of.is_refusal(), of.indicator == Family::Lost.name()) {
        (true, _) => refused(served, &of, source, range),
        (_, true) => counted(served, &of, days, range),
        _ => match asked(served, &of, days, range).await? {
            Some(beside) => beside,
            None => {
                let why =
                    "This alert's query doesn't tell releases apart: it was raised by an earlier version of Weir.";
                return Ok(json!({ "left_out": why, "rows": [] }));
            }
        },
    };
    let mut answer = served.desk.ask(&beside.question, Style::Drawn).await?;
    let is_cut = answer.cut_to_newest(health::SHARES);
    Ok(json!({
        "columns": answer.columns, "rows": answer.rows, "sql": answer.sql, "told": beside.told, "is_cut": is_cut,
        "left_out": null,
        "step_s": of.step_s(range),
        "drawn": if beside.drawn == Drawn::Share { "share" } else { "count" },
    }))
}

/// Refused records, of all where those are known.
fn refused(served: &Served, of: &About<'_>, source: Option<&Source>, (from_s, to_s): (i64, i64)) -> Beside {
    let step_s = of.step_s((from_s, to_s));
    let range = (from_s - from_s.rem_euclid(step_s), to_s);
    // The judge adds up reasons.
    let reason = if of.is_judged() { "" } else { of.reason };
    let rule = if reason == "rule" { of.rule } else { "" };
    let told = match (reason, rule) {
        ("", _) => String::new(),
        (reason, "") => format!(" for {reason}"),
        (_, rule) => format!(" by the rule {rule}"),
    };
    let question = health::shares(&served.catalog, range, step_s, &Which { source, tenant: of.tenant, reason, rule });
    let kept = source.filter(|source| source.release.is_some()).and_then(|source| source.keep_events_days);
    match kept {
        Some(days) => Beside {
            question,
            drawn: Drawn::Share,
            told: format!(
                "The share of a release's records that were refused{told}: of the quarantine and the accepted events, which \
                 are kept for {days} days."
            ),
        },
        None if of.is_judged() => counted(served, of, None, range),
        None => Beside {
            question,
            drawn: Drawn::Count,
            told: format!(
                "Records that were refused{told}, by release. Of how many isn't known, since the source's accepted events \
                 aren't kept with their release: keep_events_days and release in the source make shares of them."
            ),
        },
    }
}

/// What the judge itself counted, of an alert whose query asks for something else.
fn counted(served: &Served, of: &About<'_>, days: Option<u32>, range: (i64, i64)) -> Beside {
    let mut question = Question::plain(String::new());
    let mut conditions = Vec::new();
    let rule = if of.is_refusal() { "" } else { of.rule };
    let given =
        [("source", of.source), ("indicator", of.indicator), ("label", rule), ("tenant", of.tenant.unwrap_or(""))];
    for (name, value) in given.into_iter().filter(|(_, value)| !value.is_empty()) {
        conditions.push(format!("{name} = {{{name}:String}}"));
        question.parameters.push(health::text(name, value));
    }
    question.parameters.extend(health::bounds(range));
    // A release's records are the same for each of several reasons.
    question.sql = health::newest(&format!(
        "SELECT time, release, sum(of_tenant) AS affected, sum(all_of_tenant) AS records\nFROM (\n  \
         SELECT window_start AS time, {} AS release, tenant, sum(affected) AS of_tenant, max(records) AS all_of_tenant\n  \
         FROM {}\n  WHERE {} AND window_start >= {} AND window_start < {}\n  GROUP BY time, release, tenant\n)\n\
         GROUP BY time, release",
        health::RELEASE,
        served.catalog.qualified(tables::SHARES),
        conditions.join(" AND "),
        health::FROM,
        health::TO,
    ));
    Beside { question, drawn: Drawn::Share, told: as_judged(of, days) }
}

/// What the alert's own query tells; nothing where it doesn't tell releases apart.
async fn asked(
    served: &Served,
    of: &About<'_>,
    days: Option<u32>,
    (from_s, to_s): (i64, i64),
) -> Result<Option<Beside>, Fault> {
    let described = Question::plain(format!("DESCRIBE TABLE (\n{}\n)", of.query));
    let columns = served.desk.ask(&described, Style::Drawn).await?;
    let name = |row: &Vec<Value>| row.first().and_then(Value::as_str).map(str::to_owned);
    let columns: Vec<String> = columns.rows.iter().filter_map(name).collect();
    if !columns.iter().map(String::as_str).take(TELLS.len()).eq(TELLS) {
        return Ok(None);
    }
    let time = |at_s: i64| format!("toDateTime('{}', 'UTC')", shown(at_s));
    let sql = health::newest(&format!(
        "SELECT window AS time, release, affected, records\nFROM (\n{}\n)\nWHERE time >= {} AND time < {}",
        of.query,
        time(from_s),
        time(to_s),
    ));
    let is_volume = of.indicator == Family::Volume.name();
    let told = if of.query.contains(tables::SHARES) {
        as_judged(of, days)
    } else {
        let days = days.map(|days| format!(", which are kept for {days} days")).unwrap_or_default();
        format!("Of the accepted events{days}.")
    };
    let drawn = if is_volume { Drawn::Count } else { Drawn::Share };
    Ok(Some(Beside { question: Question::plain(sql), drawn, told }))
}

/// What the judge's own counts leave out, and why nothing else is asked.
fn as_judged(of: &About<'_>, days: Option<u32>) -> String {
    let is_no_event =
        [Family::Lost, Family::Duplicate, Family::Late].iter().any(|family| family.name() == of.indicator);
    let why = match days {
        Some(_) if is_no_event => " What isn't an accepted event is counted by release nowhere else.".to_owned(),
        Some(_) => String::new(),
        None => format!(
            " The accepted events of {} aren't kept: keep_events_days in the source lets such a chart begin before.",
            of.source
        ),
    };
    format!("As the judge counted it, of windows in which it was out of order alone; what was before isn't known.{why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_says_who_can_tell_of_its_releases() {
        let alert = json!({
            "source": "events", "detector": "judge", "indicator": "refused", "rule": "", "reason": "refused", "query": "q",
            "tenants": ["a"], "tenant_count": 1, "window_start": "3600.000000", "window_end": "7200.000000",
        });
        let of = About::of(&alert);
        assert!(of.is_judged() && of.is_refusal());
        assert_eq!((of.tenant, of.window_s), (Some("a"), 3_600));
        let mut two = alert.clone();
        (two["tenant_count"], two["indicator"]) = (json!(2), json!("null"));
        let of = About::of(&two);
        assert_eq!((of.tenant, of.is_refusal()), (None, false));
        assert!(
            as_judged(&of, None).contains("keep_events_days") && !as_judged(&of, Some(7)).contains("keep_events_days")
        );
    }
}
