//! `weir quarantine`: what was refused, why, and sending it again once the cause is mended.
//!
//! All of it asks ClickHouse; `retry` writes to the retry topic besides.

mod group;
mod list;
mod retry;
mod show;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;
use weir_pipeline::config::Pipeline;
use weir_pipeline::config::load::load;
use weir_pipeline::connect;
use weir_pipeline::quarantine::is_retried;
use weir_schemas::retry::RETRIED;
use weir_sinks::DeliveryError;
use weir_sinks::clickhouse::{Client, literal};

use crate::out::{line, printable};
use crate::{Outcome, runtime};

/// Arguments of `weir quarantine`.
#[derive(Debug, Subcommand)]
pub(crate) enum Quarantine {
    /// Refused records, the newest first.
    #[command(
        after_help = "Examples:\n  weir quarantine list shop/pipeline.toml\n  weir quarantine list shop/pipeline.toml --rule codes --state waiting\n  weir quarantine list shop/pipeline.toml --since 2026-01-31T12:00:00Z --json"
    )]
    List(List),
    /// Everything about one refused record.
    #[command(after_help = "Example:\n  weir quarantine show shop/pipeline.toml events/3@1207")]
    Show {
        /// The pipeline file.
        file: PathBuf,
        /// Where it was refused: topic/partition@offset.
        place: String,
        /// As a JSON object; bytes are hexadecimal.
        #[arg(long)]
        json: bool,
    },
    /// Refused records by cause, those with most waiting records first.
    #[command(after_help = "Example:\n  weir quarantine group shop/pipeline.toml")]
    Group {
        /// The pipeline file.
        file: PathBuf,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Send the waiting records of one cause through the pipeline again, each once.
    #[command(
        after_help = "Examples:\n  weir quarantine retry shop/pipeline.toml 3f2a --dry-run\n  weir quarantine retry shop/pipeline.toml 3f2a --why 'rule codes allowed no digits'"
    )]
    Retry(Retry),
}

/// Arguments of `weir quarantine list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// The pipeline file.
    pub file: PathBuf,
    /// The cause's fingerprint, or its beginning.
    #[arg(long)]
    pub cause: Option<String>,
    /// The rule that decided.
    #[arg(long)]
    pub rule: Option<String>,
    /// The release: SDK version or app version.
    #[arg(long)]
    pub release: Option<String>,
    /// The tenant.
    #[arg(long)]
    pub tenant: Option<String>,
    /// Records with a Kafka timestamp from this on, in RFC 3339.
    #[arg(long)]
    pub since: Option<String>,
    /// Only those that wait, or only those that were retried.
    #[arg(long, value_parser = ["waiting", "retried"])]
    pub state: Option<String>,
    /// How many at most.
    #[arg(long, default_value_t = 100)]
    pub limit: u32,
    /// One JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `weir quarantine retry`.
#[derive(Debug, Args)]
pub(crate) struct Retry {
    /// The pipeline file.
    pub file: PathBuf,
    /// The cause's fingerprint, or as much of its beginning as tells it from others.
    pub cause: String,
    /// Say what would be sent, and send nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Don't ask.
    #[arg(long)]
    pub yes: bool,
    /// Who retries.
    #[arg(long, env = "USER", default_value = "")]
    pub by: String,
    /// Why: what was mended.
    #[arg(long, default_value = "")]
    pub why: String,
    /// How many seconds to wait until the pipeline has taken the records.
    #[arg(long, default_value_t = 60)]
    pub wait: u64,
}

/// Runs `weir quarantine`.
pub(crate) fn run(quarantine: &Quarantine) -> Outcome {
    let outcome = match quarantine {
        Quarantine::List(list) => list::run(list),
        Quarantine::Show { file, place, json } => show::run(file, place, *json),
        Quarantine::Group { file, json } => group::run(file, *json),
        Quarantine::Retry(retry) => retry::run(retry),
    };
    outcome.unwrap_or_else(|outcome| outcome)
}

/// What the commands share: the file, and a client of its ClickHouse.
struct Desk {
    pipeline: Pipeline,
    client: Client,
    runtime: tokio::runtime::Runtime,
    /// The condition that a refused record was retried.
    is_retried: String,
}

impl Desk {
    fn open(file: &Path) -> Result<Desk, Outcome> {
        let pipeline = load(file).map_err(|problems| Outcome::problems(&problems))?;
        let client = connect::clickhouse(&pipeline).map_err(|error| Outcome::of_error(&error))?;
        let mut desk = Desk { pipeline, client, runtime: runtime()?, is_retried: "0".to_owned() };
        // The table is there once the pipeline was started with a retry topic.
        if desk.ask(desk.client.has_table(RETRIED))? {
            desk.is_retried = is_retried(&desk.client);
        }
        Ok(desk)
    }

    fn select<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>, Outcome> {
        let sql =
            format!("{sql} SETTINGS output_format_json_quote_64bit_integers = 0, output_format_json_validate_utf8 = 1");
        self.ask(self.client.select(&sql))
    }

    fn ask<T>(&self, asked: impl Future<Output = Result<T, DeliveryError>>) -> Result<T, Outcome> {
        self.runtime.block_on(asked).map_err(|error| {
            let remedy = "check [clickhouse]; the pipeline makes the tables when it starts";
            Outcome::unreachable(format!("the quarantine can't be read: {error}"), remedy)
        })
    }

    /// The source that reads `topic`.
    fn source_of(&self, topic: &str) -> Option<&str> {
        let mut sources = self.pipeline.sources.iter();
        sources.find(|(_, source)| source.all_topics().iter().any(|of| of == topic)).map(|(name, _)| name.as_str())
    }
}

/// The condition that a fingerprint begins with `prefix`, which comes from a command line.
fn begins_with(prefix: &str) -> Result<String, Outcome> {
    if prefix.is_empty() || !prefix.chars().all(|c| c.is_ascii_hexdigit()) {
        let remedy = "give hexadecimal digits as `weir quarantine group` shows them";
        return Err(Outcome::refused(format!("`{prefix}` is no fingerprint"), remedy));
    }
    Ok(format!("startsWith(fingerprint, {})", literal(&prefix.to_lowercase())))
}

fn print_json(rows: &[serde_json::Value]) -> Outcome {
    // The first line that nobody reads is the last one.
    let _ = rows.iter().all(|row| line(format_args!("{row}")));
    Outcome::done()
}

/// What stands in a column of a row, for people; empty for null.
fn text(row: &serde_json::Value, column: &str) -> String {
    match row.get(column) {
        None | Some(serde_json::Value::Null) => String::new(),
        Some(serde_json::Value::String(text)) => printable(text).into_owned(),
        Some(other) => printable(&other.to_string()).into_owned(),
    }
}
