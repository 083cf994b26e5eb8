//! Scenario files: what is sent when, what goes wrong, and what must come of it.
//!
//! ```toml
//! about = "A purchase that comes late corrects its closed minute."
//! start = "2026-01-05T12:00:00Z"                  # where invented time begins
//! events = [
//!   { at = "5s", type = "purchase", amount = "10.00" },
//!   { at = "3m", late = "2m", type = "purchase", amount = "7.50" },   # sent at 3m, happened at 1m
//! ]
//! [[steps]]
//! at = "2m"
//! kill = true
//! [expect.views]
//! revenue_by_minute = [{ window_start = "2026-01-05 12:00:00", orders = 1, revenue = "10.00" }]
//! ```
//! Times of the scenario are written as `1m30s`, from its start on. Whatever else stands in an event is a field of its
//! schema.
//!
//! Not here: what the fields mean (`events`), and how expectations are compared (`expect`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use weir_pipeline::config::load::{Source, read_file};
use weir_pipeline::problem::Problem;

/// Where invented time begins, where a scenario doesn't say it: the start of an hour, of a day and of a week's Monday
/// noon.
const START: &str = "2026-01-05T12:00:00Z";

/// A span of invented time, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "toml::Value")]
pub struct Offset(pub i64);

impl TryFrom<toml::Value> for Offset {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Offset, String> {
        let parsed = match &value {
            toml::Value::String(text) => Offset::parse(text),
            toml::Value::Integer(ms) => (*ms >= 0).then_some(Offset(*ms)),
            _ => None,
        };
        parsed.ok_or_else(|| format!("{value} is no time of a scenario: write one as \"1m30s\" (d, h, m, s, ms)"))
    }
}

impl Offset {
    /// Reads `1m30s`; `None` where it is something else.
    pub fn parse(text: &str) -> Option<Offset> {
        let mut rest = text.trim().trim_start_matches('+');
        let (mut total, mut is_any) = (0i64, false);
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let number: i64 = rest.get(..digits)?.parse().ok()?;
            rest = rest.get(digits..)?;
            let unit = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
            let ms = match rest.get(..unit)? {
                "ms" => 1,
                "s" => 1_000,
                "m" | "min" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return None,
            };
            rest = rest.get(unit..)?;
            total = total.checked_add(number.checked_mul(ms)?)?;
            is_any = true;
        }
        is_any.then_some(Offset(total))
    }
}

/// A scenario file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// One sentence on what it shows.
    #[serde(default)]
    pub about: String,
    /// Where invented time begins, in RFC 3339.
    #[serde(default = "default_start")]
    pub start: String,
    /// What everything that is drawn is drawn from.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Worker threads; absent, one.
    pub workers: Option<u16>,
    /// How much invented time goes into one epoch; absent, the pipeline file's `epoch_ms`. Longer ones are faster, and show
    /// less of what comes in between.
    pub epoch: Option<Offset>,
    /// Bytes that may wait for the tables before no further epoch begins; absent, the pipeline file's `outbox_bytes`, of which
    /// no scenario fills the least.
    pub outbox_bytes: Option<u64>,
    /// Partitions that each topic has.
    #[serde(default = "default_partitions")]
    pub partitions: u16,
    /// Reader schemas of sources that take theirs from the registry: a file of Avro JSON for each.
    #[serde(default)]
    pub readers: BTreeMap<String, PathBuf>,
    /// Further schemas that events can be written with, by id. The sources' own have the ids from 1 on, in their order.
    #[serde(default)]
    pub schemas: BTreeMap<String, PathBuf>,
    /// When time ends; absent, with the last of what happens.
    pub ends_at: Option<Offset>,
    /// How it ends.
    #[serde(default)]
    pub end: End,
    /// Fields that every event has that doesn't say otherwise.
    #[serde(default)]
    pub defaults: toml::Table,
    /// What is sent.
    #[serde(default)]
    pub events: Vec<Event>,
    /// What a generator sends.
    #[serde(default)]
    pub generate: Vec<Generate>,
    /// What happens besides.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// What must be so in between.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// What must be so at the end.
    #[serde(default)]
    pub expect: Expect,
}

/// How a scenario ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Every window is closed, as by `weir run --until-end`.
    #[default]
    Close,
    /// The program is stopped, and windows stay open.
    Stop,
}

/// One event, or a record that is none.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Event {
    /// When it is sent; absent, with the one before it.
    pub at: Option<Offset>,
    /// Its Kafka timestamp; absent, when it is sent.
    pub kafka_time: Option<Offset>,
    /// The source that reads it; absent, the first that the pipeline file has.
    pub source: Option<String>,
    /// The topic; absent, the source's first.
    pub topic: Option<String>,
    /// The partition; absent, 0.
    pub partition: Option<u16>,
    /// The record's key.
    pub key: Option<String>,
    /// The record's headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The id of the schema that it is written with; absent, the source's own.
    pub schema: Option<u32>,
    /// How many times the very same record is sent; absent, once.
    pub copies: Option<u32>,
    /// How long ago it happened when it is sent.
    pub late: Option<Offset>,
    /// How many such events are sent; absent, one. `{n}` and `{n%10}` in its texts count them.
    pub times: Option<u32>,
    /// The time between two of them.
    pub every: Option<Offset>,
    /// The record's value instead of any event, as `hex:00ff` or `base64:AP8=`.
    pub raw: Option<String>,
    /// Of the record's value only so many bytes are sent.
    pub cut: Option<u32>,
    /// The record has no value.
    #[serde(default)]
    pub tombstone: bool,
    /// Fields that are null, whatever the defaults say.
    #[serde(default)]
    pub null: Vec<String>,
    /// Fields whose names are words of a scenario.
    #[serde(default)]
    pub fields: toml::Table,
    /// The event's other fields.
    #[serde(flatten)]
    pub others: toml::Table,
}

/// The words of an event that are none of its fields.
pub(super) const EVENT_WORDS: [&str; 17] = [
    "at",
    "kafka_time",
    "source",
    "topic",
    "partition",
    "key",
    "headers",
    "schema",
    "copies",
    "late",
    "times",
    "every",
    "raw",
    "cut",
    "tombstone",
    "null",
    "fields",
];

/// Events of the storefront generator, as `weir produce storefront` makes them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generate {
    /// When the first happens.
    #[serde(default)]
    pub at: Offset,
    /// The source that reads them; absent, the first that the pipeline file has.
    pub source: Option<String>,
    /// How many.
    pub count: u64,
    /// Events per second of invented time.
    #[serde(default = "default_per_second")]
    pub per_second: f64,
    /// Users of each shop.
    #[serde(default = "default_users")]
    pub users: u32,
    /// What the bad release does: `nothing`, `negative_amount` or `undecodable`.
    #[serde(default)]
    pub wrong: WrongKind,
    /// The event from which on it does so.
    #[serde(default)]
    pub wrong_from: u64,
    /// How far records are out of order.
    #[serde(default)]
    pub disorder: Offset,
    /// The share that is sent twice, 0 to 1.
    #[serde(default)]
    pub duplicates: f64,
    /// The share that comes later than `disorder` allows, 0 to 1.
    #[serde(default)]
    pub stragglers: f64,
    /// How much later at most.
    #[serde(default = "default_straggler")]
    pub straggler: Offset,
    /// The share whose bytes are broken, 0 to 1.
    #[serde(default)]
    pub bad: f64,
}

/// What the storefront's bad release does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrongKind {
    /// Nothing.
    #[default]
    Nothing,
    /// Purchases with negative amounts.
    NegativeAmount,
    /// Bytes that don't decode.
    Undecodable,
}

/// Something that happens besides events.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// When: behind what is sent at the same time.
    pub at: Offset,
    /// The program is killed, with what it hasn't committed, and starts again.
    #[serde(default)]
    pub kill: bool,
    /// It starts again with so many worker threads; a restart, if it isn't killed.
    pub workers: Option<u16>,
    /// It starts again with another pipeline file, such as one whose rules are mended; a restart, if it isn't killed.
    pub with: Option<PathBuf>,
    /// Before it starts again it is away for so long, as after a full disk: what is sent meanwhile waits in the log.
    pub away: Option<Offset>,
    /// The registry can't be asked from now on, or can be again.
    pub registry: Option<PartState>,
    /// The tables take no rows from now on, or do again; at the latest, at the end.
    pub tables: Option<PartState>,
    /// Refused records are sent once more, as `weir quarantine retry` does.
    pub retry: Option<Retry>,
}

/// Whether a part around the program answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartState {
    /// It doesn't.
    Down,
    /// It does.
    Up,
}

/// Which of the refused records that wait are retried: those that have all of this in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Why they were refused, such as `rule`.
    pub reason: Option<String>,
    /// The rule that they broke.
    pub rule: Option<String>,
    /// The field that was wrong.
    pub field: Option<String>,
}

/// What must be so at a time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// When: behind everything that happens at the same time, and committed.
    pub at: Offset,
    /// What.
    pub expect: Expect,
}

/// Rows of a table as they are expected: any of its columns.
pub(super) type ExpectedRows = Vec<toml::Table>;

/// What must be so.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The greatest relative difference of floats.
    #[serde(default = "default_tolerance")]
    pub tolerance: f64,
    /// Views and tables that may have further rows.
    #[serde(default)]
    pub subset: Vec<String>,
    /// The rows of views, as analysts see them.
    #[serde(default)]
    pub views: BTreeMap<String, ExpectedRows>,
    /// The rows of any other tables.
    #[serde(default)]
    pub tables: BTreeMap<String, ExpectedRows>,
    /// Every step of every alert: rows of `weir_alerts_history`.
    pub alerts: Option<ExpectedRows>,
    /// Refused records: rows of `weir_quarantine`; with a `count`, so many that have the row's other columns in common.
    pub quarantine: Option<ExpectedRows>,
    /// The ledger's totals over everything, by fate. That it balances is always expected.
    pub ledger: Option<BTreeMap<String, u64>>,
}

impl Default for Expect {
    fn default() -> Expect {
        Expect {
            tolerance: default_tolerance(),
            subset: Vec::new(),
            views: BTreeMap::new(),
            tables: BTreeMap::new(),
            alerts: None,
            quarantine: None,
            ledger: None,
        }
    }
}

impl Expect {
    /// Whether anything is expected.
    pub fn is_empty(&self) -> bool {
        let has_rows = self.alerts.is_some() || self.quarantine.is_some() || self.ledger.is_some();
        !has_rows && self.views.is_empty() && self.tables.is_empty()
    }
}

/// Reads a scenario's text.
///
/// # Errors
/// Every unknown key, a wrong type, or wrong syntax, each at its place.
pub(super) fn read(file: &str, text: &str) -> Result<Scenario, Vec<Problem>> {
    let source = Source::new(file, text);
    let scenario: Scenario = read_file(&source)?;
    if scenario.partitions == 0 {
        return Err(vec![source.problem(&["partitions"], "a topic has at least one partition", "write 1 or more")]);
    }
    if scenario.epoch.is_some_and(|epoch| epoch.0 == 0) {
        return Err(vec![source.problem(&["epoch"], "an epoch takes time", "write \"1s\", or leave it out")]);
    }
    Ok(scenario)
}

/// The scenario files beside a pipeline file, in the order of their names.
///
/// # Errors
/// When the folder can't be read.
pub fn beside(pipeline_file: &Path) -> std::io::Result<Vec<PathBuf>> {
    let folder = pipeline_file.parent().unwrap_or(Path::new("")).join("scenarios");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn default_start() -> String {
    START.to_owned()
}
fn default_seed() -> u64 {
    1
}
fn default_partitions() -> u16 {
    1
}
fn default_per_second() -> f64 {
    10.0
}
fn default_users() -> u32 {
    1_000
}
fn default_straggler() -> Offset {
    Offset(60_000)
}
fn default_tolerance() -> f64 {
    1e-9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_sums_of_units() {
        for (text, ms) in
            [("90s", 90_000), ("1m30s", 90_000), ("+250ms", 250), ("1h1ms", 3_600_001), ("2d", 172_800_000)]
        {
            assert_eq!(Offset::parse(text), Some(Offset(ms)), "{text}");
        }
        for text in ["", "s", "5", "5x", "-5s", "1m30", "5s 3m!", "99999999999999999999s", "9999999999999999d"] {
            assert_eq!(Offset::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_unknown_key_is_told_with_its_place_and_what_was_meant() {
        let problems = read("s.toml", "abuot = 'x'\n[[steps]]\nat = '1s'\nkil = true\n").expect_err("two problems");
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("s.toml:1:1") && told[0].contains("`about`"), "{}", told[0]);
        assert!(told[1].contains("s.toml:4:1") && told[1].contains("`kill`"), "{}", told[1]);
    }
}
