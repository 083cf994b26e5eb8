//! `weir alerts`: what is wrong with whom, who has taken it on, and telling others.
//!
//! `list`, `show` and `ack` ask ClickHouse; `tail` and `send` read the alert topic.

mod ack;
mod list;
mod send;
mod show;
mod tail;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Deserialize;
use weir_pipeline::config::Pipeline;
use weir_pipeline::config::load::load;
use weir_pipeline::connect;
use weir_schemas::tables;
use weir_schemas::types::ColumnType;
use weir_sinks::clickhouse::Client;
use weir_sinks::kafka::read::Alert;

use crate::{Outcome, paint};

/// Characters of a fingerprint that tables show; as many as are needed to tell it from others may be given.
const SHORT: usize = 12;

/// Arguments of `weir alerts`.
#[derive(Debug, Subcommand)]
pub(crate) enum Alerts {
    /// The open alerts, the worst first.
    #[command(
        after_help = "Examples:\n  weir alerts list shop/pipeline.toml\n  weir alerts list shop/pipeline.toml --all"
    )]
    List {
        /// The pipeline file.
        file: PathBuf,
        /// Resolved ones, too.
        #[arg(long)]
        all: bool,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Everything about one alert: cause, proof, history, and the query to look further with.
    #[command(after_help = "Example:\n  weir alerts show shop/pipeline.toml 3f2a")]
    Show {
        /// The pipeline file.
        file: PathBuf,
        /// The fingerprint, or as much of its beginning as tells it from others.
        fingerprint: String,
        /// One JSON object per step.
        #[arg(long)]
        json: bool,
    },
    /// Print alerts as they come.
    #[command(
        after_help = "Examples:\n  weir alerts tail shop/pipeline.toml\n  weir alerts tail shop/pipeline.toml --from-beginning --json | jq .cause"
    )]
    Tail(Tail),
    /// Take an alert on: senders don't repeat it, and tables say who has it.
    #[command(
        after_help = "Examples:\n  weir alerts ack shop/pipeline.toml 3f2a --note 'rolling back'\n  weir alerts ack shop/pipeline.toml 3f2a --by ada --until 2026-01-31T12:00:00Z"
    )]
    Ack(Ack),
    /// Tell alerts by the file's [senders]: webhook, Slack, e-mail. Runs beside the pipeline until it is stopped.
    #[command(
        after_help = "Examples:\n  weir alerts send shop/pipeline.toml\n  weir alerts send shop/pipeline.toml --to chat --until-end"
    )]
    Send(Send),
}

/// Arguments of `weir alerts tail`.
#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// The pipeline file.
    pub file: PathBuf,
    /// Begin with what the topic holds.
    #[arg(long)]
    pub from_beginning: bool,
    /// End where the topic ends now.
    #[arg(long)]
    pub until_end: bool,
    /// One JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `weir alerts ack`.
#[derive(Debug, Args)]
pub(crate) struct Ack {
    /// The pipeline file.
    pub file: PathBuf,
    /// The fingerprint, or as much of its beginning as tells it from others.
    pub fingerprint: String,
    /// Who takes it on.
    #[arg(long, env = "USER")]
    pub by: String,
    /// What to say about it.
    #[arg(long, default_value = "")]
    pub note: String,
    /// Until when, in RFC 3339: of later windows it is told again. Without it, until the alert is resolved.
    #[arg(long)]
    pub until: Option<String>,
}

/// Arguments of `weir alerts send`.
#[derive(Debug, Args)]
pub(crate) struct Send {
    /// The pipeline file.
    pub file: PathBuf,
    /// A name of [senders]; absent, all of them.
    #[arg(long, value_name = "NAME")]
    pub to: Vec<String>,
    /// Tell what the topic holds now, and end.
    #[arg(long)]
    pub until_end: bool,
    /// A sender that has never run begins with the topic's first alert, instead of the next one.
    #[arg(long)]
    pub from_beginning: bool,
    /// Log lines as JSON.
    #[arg(long)]
    pub log_json: bool,
}

/// Runs `weir alerts`.
pub(crate) fn run(alerts: &Alerts) -> Outcome {
    let outcome = match alerts {
        Alerts::List { file, all, json } => list::run(file, *all, *json),
        Alerts::Show { file, fingerprint, json } => show::run(file, fingerprint, *json),
        Alerts::Tail(tail) => tail::run(tail),
        Alerts::Ack(ack) => ack::run(ack),
        Alerts::Send(send) => send::run(send),
    };
    outcome.unwrap_or_else(|outcome| outcome)
}

fn pipeline(file: &Path) -> Result<Pipeline, Outcome> {
    load(file).map_err(|problems| Outcome::problems(&problems))
}

fn clickhouse(pipeline: &Pipeline) -> Result<Client, Outcome> {
    connect::clickhouse(pipeline).map_err(|error| Outcome::of_error(&error))
}

/// An alert, and who has it.
#[derive(Clone, Debug, Deserialize)]
struct Current {
    #[serde(flatten)]
    alert: Alert,
    #[serde(default)]
    acknowledged_by: String,
}

/// Rows of `table`, one of the two of alerts, with `further` columns, behind `rest` of the query.
async fn select<T: serde::de::DeserializeOwned>(
    client: &Client,
    table: &str,
    further: &str,
    rest: &str,
) -> Result<Vec<T>, Outcome> {
    let columns: Vec<String> = tables::alerts_history()
        .columns
        .iter()
        .map(|column| match column.column_type {
            ColumnType::DateTime64(..) => format!("toUnixTimestamp64Micro({0}) AS {0}", column.name),
            _ => column.name.clone(),
        })
        .collect();
    let sql = format!(
        "SELECT {}{further} FROM {} {rest} \
         SETTINGS output_format_json_quote_64bit_integers = 0, prefer_column_name_to_alias = 1",
        columns.join(", "),
        client.qualified(table)
    );
    client.select(&sql).await.map_err(|error| {
        let remedy = "check [clickhouse]; the pipeline makes the tables of alerts when it starts with a detector";
        Outcome::unreachable(format!("{table} can't be read: {error}"), remedy)
    })
}

/// The one alert whose fingerprint begins with `prefix`.
async fn find(client: &Client, file: &Path, prefix: &str) -> Result<Current, Outcome> {
    if prefix.is_empty() || !prefix.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(Outcome::refused(
            format!("`{prefix}` is no fingerprint"),
            format!("give hexadecimal digits as `weir alerts list {}` shows them", file.display()),
        ));
    }
    let condition = format!("WHERE startsWith(fingerprint, '{}') ORDER BY fingerprint LIMIT 2", prefix.to_lowercase());
    let mut found: Vec<Current> = select(client, tables::ALERTS, ", acknowledged_by", &condition).await?;
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(_), false) => Err(Outcome::refused(
            format!("several fingerprints begin with `{prefix}`"),
            format!("give more digits; `weir alerts list {} --all` shows them", file.display()),
        )),
        (None, _) => Err(Outcome::refused(
            format!("no alert's fingerprint begins with `{prefix}`"),
            format!("`weir alerts list {} --all` shows those that there are", file.display()),
        )),
    }
}

fn short(fingerprint: &str) -> &str {
    fingerprint.get(..SHORT).unwrap_or(fingerprint)
}

/// A severity in its colour.
fn severity(alert: &Alert) -> String {
    match alert.severity.as_str() {
        "critical" => paint::bad(&alert.severity),
        "warning" => paint::bold(&alert.severity),
        other => other.to_owned(),
    }
}

fn status(alert: &Alert) -> String {
    if alert.is_resolved() { paint::good(&alert.status) } else { alert.status.clone() }
}

fn share(alert: &Alert) -> String {
    format!("{:.2} %", alert.affected_share * 100.0)
}

/// Microseconds since 1970 for people.
fn time(at: i64) -> String {
    super::status::time(Some(weir_schemas::time::EventTime(at)))
}

/// Prints one line; `false` when nobody reads it any more.
fn print_line(line: &str) -> bool {
    crate::out::line(format_args!("{line}"))
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, Outcome> {
    serde_json::to_string(value).map_err(|error| Outcome::told(1, error.to_string(), "this is a bug"))
}
