//! What the pipeline file says about alerts: detectors, topics, whose they are, who is told, and when nobody is.
//!
//! Here is also what can be wrong about it. Names of senders live in `[senders]`; a route names them.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono_tz::Tz;
use serde::Deserialize;

use super::Pipeline;
use super::judge::Judge;
use super::load::Source;
use crate::problem::{Problem, nearest};

/// How bad an alert can be, the least first.
pub const SEVERITIES: [&str; 3] = ["info", "warning", "critical"];
/// The days of a week as `weekly.days` names them.
pub const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Detectors and where alerts go.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alerts {
    /// The topic of every step of every alert, key = fingerprint. Absent, alerts are only in the tables.
    pub topic: Option<String>,
    /// A compacted topic that keeps the newest step of every alert.
    pub current_topic: Option<String>,
    /// The topic of acknowledgements; absent, `<pipeline>-control`.
    pub control_topic: Option<String>,
    /// Who has to act: the first that matches; where none does, the owner of the rule that is broken.
    #[serde(default)]
    pub owners: Vec<OwnerRule>,
    /// Which senders tell an alert: the first that matches. With no route at all every sender does.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// When alerts are kept and not sent.
    #[serde(default)]
    pub suppressions: Vec<SuppressionRule>,
    /// The detector of refused records.
    pub refused_share: Option<RefusedShare>,
    /// The judge of all that events show.
    pub judge: Option<Judge>,
}

/// Alerts when the share of refused records of a tenant's release is too large.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedShare {
    /// Opens at this share, 0 to 1.
    pub open_at: f64,
    /// Resolves below this share.
    pub resolve_below: f64,
    /// Windows with fewer records than this say nothing.
    #[serde(default = "default_min_records")]
    pub min_records: u64,
    /// Resolves after this many windows in a row that say nothing.
    #[serde(default = "default_silent_windows")]
    pub silent_windows: u32,
    /// The window, in milliseconds.
    #[serde(default = "default_detect_window_ms")]
    pub window_ms: u64,
}

/// Conditions on an alert, each a text with `*` for any text; all that are given must hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// The detector.
    pub detector: Option<String>,
    /// The source.
    pub source: Option<String>,
    /// The rule that is broken.
    pub rule: Option<String>,
    /// The SDK of the first bad release.
    pub sdk: Option<String>,
    /// Every event type that the alert names.
    pub event_type: Option<String>,
    /// Every tenant that has the problem.
    pub tenant: Option<String>,
    /// Every field that the alert names.
    pub field: Option<String>,
    /// The severity.
    pub severity: Option<String>,
    /// The owner.
    pub owner: Option<String>,
}

/// Whose alerts are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnerRule {
    /// The owner's name.
    pub owner: String,
    /// Of which alerts; absent, of all that are left.
    #[serde(default)]
    pub when: When,
}

/// Who is told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Names of `[senders]`; none for nobody.
    pub to: Vec<String>,
    /// Of which alerts; absent, of all that are left.
    #[serde(default)]
    pub when: When,
}

/// When alerts are kept and not sent. Times are those of an alert's window, so that a replay suppresses the same ones.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuppressionRule {
    /// The name that stands in suppressed alerts.
    pub name: String,
    /// Why; for people.
    pub reason: String,
    /// Which alerts; absent, all.
    #[serde(default)]
    pub when: When,
    /// From this time on, in RFC 3339.
    pub from: Option<String>,
    /// Up to before this time, in RFC 3339.
    pub until: Option<String>,
    /// Or every week.
    pub weekly: Option<WeeklyHours>,
}

/// Hours of some days of every week.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeeklyHours {
    /// `mon` to `sun`; hours past midnight belong to the day on which they began.
    pub days: Vec<String>,
    /// `HH:MM`.
    pub from: String,
    /// `HH:MM`; up to `from` it is on the next day.
    pub until: String,
    /// An IANA zone.
    #[serde(default = "default_zone")]
    pub zone: String,
}

/// What tells alerts to people or programs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sender {
    /// What it speaks.
    pub kind: SenderKind,
    /// Only alerts of these severities; absent, of all.
    pub severities: Option<Vec<String>>,
    /// Only alerts of these owners; absent, of all.
    pub owners: Option<Vec<String>>,
    /// Tell every step; otherwise only an opening, a worse severity and the end.
    #[serde(default)]
    pub updates: bool,
    /// Webhook and Slack: the address.
    pub url: Option<String>,
    /// Webhook: the header `Authorization`.
    pub authorization: Option<String>,
    /// E-mail: the SMTP server.
    pub server: Option<String>,
    /// E-mail: its port; absent, 587 with `starttls`, 465 with `tls`, 25 with `none`.
    pub port: Option<u16>,
    /// E-mail: how the connection is protected.
    #[serde(default)]
    pub encryption: Encryption,
    /// E-mail: the login.
    pub user: Option<String>,
    /// E-mail: its password.
    pub password: Option<String>,
    /// E-mail: whom it is from.
    pub from: Option<String>,
    /// E-mail: who gets the alerts of owners that `addresses` doesn't name.
    pub to: Option<String>,
    /// E-mail: who gets an owner's alerts.
    #[serde(default)]
    pub addresses: BTreeMap<String, String>,
    /// E-mail: milliseconds between two mails to one owner.
    #[serde(default = "default_digest_every_ms")]
    pub digest_every_ms: u64,
}

/// What a sender speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SenderKind {
    /// An HTTP POST of JSON.
    Webhook,
    /// Slack's incoming webhook.
    Slack,
    /// Digests by SMTP.
    Email,
}

/// How a connection to an SMTP server is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// STARTTLS, required.
    #[default]
    Starttls,
    /// TLS from the first byte.
    Tls,
    /// Nothing: for a relay on the same machine.
    None,
}

impl When {
    /// The conditions that are given, by their keys.
    pub fn given(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("detector", &self.detector),
            ("source", &self.source),
            ("rule", &self.rule),
            ("sdk", &self.sdk),
            ("event_type", &self.event_type),
            ("tenant", &self.tenant),
            ("field", &self.field),
            ("severity", &self.severity),
            ("owner", &self.owner),
        ];
        all.into_iter().filter_map(|(key, text)| Some((key, text.as_deref()?))).collect()
    }
}

/// Minutes after midnight of `HH:MM`.
pub fn minute_of(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |text: &str| (text.len() == 2).then(|| text.parse::<u32>().ok()).flatten();
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    ((hours < 24 && minutes < 60) || (hours, minutes) == (24, 0)).then_some(hours * 60 + minutes)
}

/// Every problem of what `pipeline` says about alerts.
pub(super) fn validate(source: &Source<'_>, pipeline: &Pipeline, problems: &mut Vec<Problem>) {
    let alerts = &pipeline.alerts;
    let index: Vec<String> = (0..alerts.owners.len().max(alerts.routes.len()).max(alerts.suppressions.len()))
        .map(|at| at.to_string())
        .collect();
    for (at, rule) in index.iter().zip(&alerts.owners) {
        if rule.when.owner.is_some() {
            let path = ["alerts", "owners", at, "when", "owner"];
            problems.push(source.problem(&path, "an owner can't depend on the owner", "remove this condition"));
        }
        severity(source, &["alerts", "owners", at, "when", "severity"], &rule.when, problems);
    }
    for (at, route) in index.iter().zip(&alerts.routes) {
        severity(source, &["alerts", "routes", at, "when", "severity"], &route.when, problems);
        for name in route.to.iter().filter(|name| !pipeline.senders.contains_key(*name)) {
            let remedy = match nearest(name, pipeline.senders.keys().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("add a section [senders.{name}]"),
            };
            problems.push(source.problem(
                &["alerts", "routes", at, "to"],
                format!("there is no sender `{name}`"),
                remedy,
            ));
        }
    }
    for (at, rule) in index.iter().zip(&alerts.suppressions) {
        severity(source, &["alerts", "suppressions", at, "when", "severity"], &rule.when, problems);
        suppression(source, at, rule, problems);
    }
    for (name, sender) in &pipeline.senders {
        self::sender(source, name, sender, problems);
    }
}

fn severity(source: &Source<'_>, path: &[&str], when: &When, problems: &mut Vec<Problem>) {
    let Some(written) = when.severity.as_deref() else { return };
    if !written.contains('*') && !SEVERITIES.contains(&written) {
        problems.push(no_severity(source, path, written));
    }
}

fn no_severity(source: &Source<'_>, path: &[&str], written: &str) -> Problem {
    source.problem(path, format!("`{written}` is no severity"), format!("write one of {}", SEVERITIES.join(", ")))
}

fn suppression(source: &Source<'_>, at: &str, rule: &SuppressionRule, problems: &mut Vec<Problem>) {
    let mut add = |key: &str, message: String, remedy: &str| {
        problems.push(source.problem(&["alerts", "suppressions", at, key], message, remedy));
    };
    if rule.name.is_empty() {
        add(
            "name",
            "a suppression has no name".to_owned(),
            "name it: the name stands in the alerts that it keeps back",
        );
    }
    let time = |text: &Option<String>| text.as_deref().map(DateTime::parse_from_rfc3339);
    let (from, until) = (time(&rule.from), time(&rule.until));
    for (key, time, text) in [("from", &from, &rule.from), ("until", &until, &rule.until)] {
        if let (Some(Err(_)), Some(text)) = (time, text) {
            add(key, format!("`{text}` is no time"), "write a time such as 2026-01-31T00:00:00Z");
        }
    }
    if let (Some(Ok(from)), Some(Ok(until))) = (&from, &until)
        && from >= until
    {
        add("until", "it ends before it begins".to_owned(), "write a time behind `from`");
    }
    if from.is_some() != until.is_some() {
        add("name", format!("`{}` has only one of `from` and `until`", rule.name), "give both");
    }
    if from.is_none() && until.is_none() && rule.weekly.is_none() {
        add("name", format!("`{}` says no time", rule.name), "give `from` and `until`, or `weekly`");
    }
    let Some(weekly) = &rule.weekly else { return };
    if weekly.days.is_empty() {
        add("weekly", "`days` is empty".to_owned(), "name days, such as days = [\"sat\", \"sun\"]");
    }
    for day in weekly.days.iter().filter(|day| !DAYS.contains(&day.as_str())) {
        add("weekly", format!("`{day}` is no day"), "write mon, tue, wed, thu, fri, sat or sun");
    }
    for text in [&weekly.from, &weekly.until].into_iter().filter(|text| minute_of(text).is_none()) {
        add("weekly", format!("`{text}` is no time of day"), "write a time such as 06:30");
    }
    if weekly.zone.parse::<Tz>().is_err() {
        add("weekly", format!("`{}` is no time zone", weekly.zone), "write a name such as UTC or Europe/Berlin");
    }
}

fn sender(source: &Source<'_>, name: &str, sender: &Sender, problems: &mut Vec<Problem>) {
    for written in sender.severities.iter().flatten().filter(|written| !SEVERITIES.contains(&written.as_str())) {
        problems.push(no_severity(source, &["senders", name, "severities"], written));
    }
    let mut need = |key: &str, is_there: bool, remedy: &str| {
        if !is_there {
            problems.push(source.problem(&["senders", name], format!("sender `{name}` has no `{key}`"), remedy));
        }
    };
    if sender.kind == SenderKind::Email {
        need("server", sender.server.is_some(), "name the SMTP server's host");
        need("from", sender.from.is_some(), "write an address such as weir@example.com");
        let anybody = sender.to.is_some() || !sender.addresses.is_empty();
        need("to", anybody, "write an address, or one for each owner under `addresses`");
        need("user", sender.user.is_some() || sender.password.is_none(), "a password needs a user");
        if !(1_000..=7 * 86_400_000).contains(&sender.digest_every_ms) {
            problems.push(source.problem(
                &["senders", name, "digest_every_ms"],
                format!("`digest_every_ms` is {}", sender.digest_every_ms),
                "take a number from 1000, a second, to 604800000, a week",
            ));
        }
        return;
    }
    need("url", sender.url.is_some(), "add the address that alerts are posted to");
    if let Some(url) = sender.url.as_deref().filter(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
        // An address may be a secret, so it isn't shown.
        problems.push(source.problem(
            &["senders", name, "url"],
            format!("the {} characters of `url` are no HTTP address", url.chars().count()),
            "begin it with https:// or http://",
        ));
    }
}

impl Pipeline {
    /// The topic of acknowledgements.
    pub fn control_topic(&self) -> String {
        self.alerts.control_topic.clone().unwrap_or_else(|| format!("{}-control", self.name))
    }
}

fn default_min_records() -> u64 {
    100
}
fn default_silent_windows() -> u32 {
    30
}
fn default_detect_window_ms() -> u64 {
    60_000
}
fn default_zone() -> String {
    "UTC".to_owned()
}
fn default_digest_every_ms() -> u64 {
    900_000
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::load::read;

    const GOOD: &str = r#"
name = "shop"
state = "state"
[kafka]
brokers = "127.0.0.1:9092"
[registry]
url = "http://127.0.0.1:8081"
[clickhouse]
url = "http://127.0.0.1:8123"
[sources.events]
topics = ["events"]
event_time = "occurred_at"
[alerts]
topic = "alerts"
current_topic = "alerts-current"
[[alerts.owners]]
owner = "payments"
when = { rule = "amounts_*" }
[[alerts.routes]]
when = { severity = "critical" }
to = ["chat"]
[[alerts.suppressions]]
name = "release night"
reason = "we watch it"
weekly = { days = ["tue"], from = "22:00", until = "02:00", zone = "Europe/Berlin" }
[senders.chat]
kind = "slack"
url = "https://example.com/hook"
"#;

    fn check(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from}");
        match read("p.toml", &GOOD.replace(from, to), Path::new("/srv"), &|_| None) {
            Ok(_) => String::new(),
            Err(problems) => problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"),
        }
    }

    #[test]
    fn what_is_wrong_about_alerts_is_told_at_its_place() {
        assert_eq!(check("shop", "shop"), "");
        for (from, to, expected) in [
            ("to = [\"chat\"]", "to = [\"chta\"]", "p.toml:21:1: there is no sender `chta`"),
            ("to = [\"chat\"]", "to = [\"chta\"]", "did you mean `chat`?"),
            ("\"critical\"", "\"bad\"", "p.toml:20:10: `bad` is no severity"),
            ("rule = \"amounts_*\"", "owner = \"x\"", "an owner can't depend on the owner"),
            ("rule = \"amounts_*\"", "rul = \"x\"", "unknown key `rul`"),
            ("\"tue\"", "\"tuesday\"", "p.toml:25:1: `tuesday` is no day"),
            ("\"22:00\"", "\"25:00\"", "`25:00` is no time of day"),
            ("Europe/Berlin", "Europe/Berlln", "`Europe/Berlln` is no time zone"),
            ("weekly = {", "from = \"2026-01-01\"\nweekly = {", "`2026-01-01` is no time"),
            (
                "weekly = {",
                "from = \"2026-01-02T00:00:00Z\"\nuntil = \"2026-01-01T00:00:00Z\"\nweekly = {",
                "p.toml:26:1: it ends before it begins",
            ),
            ("topic = \"alerts\"\n", "", "there is a topic of newest steps and none of all steps"),
            (
                "\"alerts-current\"",
                "\"alerts\"",
                "`alerts` is the topic of alerts already, and can't be the topic of the alerts' newest steps as well",
            ),
            (
                "\"alerts-current\"",
                "\"shop-control\"",
                "`shop-control` is the topic of the alerts' newest steps already, and can't be the alerts' control topic",
            ),
            ("url = \"https://example.com/hook\"", "", "p.toml:26:10: sender `chat` has no `url`"),
            ("https://example.com", "example.com", "no HTTP address"),
            ("kind = \"slack\"", "kind = \"email\"", "sender `chat` has no `server`"),
            ("kind = \"slack\"", "kind = \"pager\"", "pager"),
        ] {
            let message = check(from, to);
            assert!(message.contains(expected), "{to}: {message}");
        }
    }

    #[test]
    fn times_of_day() {
        let minutes: Vec<_> = ["00:00", "23:59", "24:00", "24:01", "7:00", "ab:cd", "07"].map(minute_of).to_vec();
        assert_eq!(minutes, [Some(0), Some(1_439), Some(1_440), None, None, None, None]);
    }
}
