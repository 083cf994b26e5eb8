//! Alerts of a replay against the live ones: which problems opened on both sides, and which on one only.
//!
//! An opening is a fingerprint and the window in which it opened or reopened; one that opened in another window is another
//! opening. A replay knows nothing of what was open before its range, so an alert that was may open there anew: such ones are
//! marked.
//!
//! Not here: updates and resolutions of an alert, and alerts of a replay that holds a part of the events.

use serde::{Deserialize, Serialize};
use weir_schemas::tables;
use weir_sinks::DeliveryError;
use weir_sinks::clickhouse::{Client, literal};

use crate::rerun::range::Range;

/// What opened where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AlertDiff {
    /// Openings on both sides.
    pub both: u64,
    /// Openings on the live side only.
    pub only_live: u64,
    /// Openings in the replay only.
    pub only_replay: u64,
    /// Some of those that are on one side only, the earliest first.
    pub examples: Vec<Opening>,
}

/// An alert that opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Opening {
    /// Whether it opened on the live side, else in the replay.
    pub is_live: bool,
    /// The alert's fingerprint.
    pub fingerprint: String,
    /// The start of the window in which it opened.
    pub window_start: String,
    /// `open` or `reopened`.
    pub status: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// The detector.
    pub detector: String,
    /// What kind of cause it is put down to.
    pub cause_kind: String,
    /// The cause.
    pub cause: String,
    /// The tenants that have it.
    pub tenants: Vec<String>,
    /// Whether it was open on the live side when the range began, so that the replay couldn't but open it.
    pub was_open: bool,
}

impl AlertDiff {
    /// Whether the same alerts opened.
    pub fn is_equal(&self) -> bool {
        self.only_live + self.only_replay == 0
    }
}

/// What opened within `range` of the alerts of `sources`, with as many `examples` of each side; none where a side has no alerts.
///
/// # Errors
/// What ClickHouse says.
pub async fn compare(
    client: &Client,
    database: &str,
    sources: &[&str],
    range: Range,
    examples: usize,
) -> Result<Option<AlertDiff>, DeliveryError> {
    #[derive(Deserialize)]
    struct Counts {
        both: u64,
        only_live: u64,
        only_replay: u64,
    }
    let replay = client.in_database(database);
    for side in [client, &replay] {
        if !side.has_table(tables::ALERTS_HISTORY).await? {
            return Ok(None);
        }
    }
    let live = client.qualified(tables::ALERTS_HISTORY);
    let opened = opened(&live, &replay.qualified(tables::ALERTS_HISTORY), sources, range);
    let sql = format!(
        "SELECT toUInt64(countIf(of_live AND of_replay)) AS both, toUInt64(countIf(NOT of_replay)) AS only_live, \
         toUInt64(countIf(NOT of_live)) AS only_replay FROM ({opened}) SETTINGS output_format_json_quote_64bit_integers = 0"
    );
    let Some(counts) = client.select::<Counts>(&sql).await?.into_iter().next() else { return Ok(None) };
    let sql = format!(
        "SELECT of_live AS is_live, fingerprint, toString(window_start) AS window_start, status, severity, detector, \
         cause_kind, cause, tenants, NOT of_live AND fingerprint IN (SELECT fingerprint FROM {live} \
         WHERE toUnixTimestamp64Micro(window_start) < {} GROUP BY fingerprint \
         HAVING argMax(status, (window_start, revision)) != 'resolved') AS was_open \
         FROM (SELECT * FROM ({opened}) WHERE of_live != of_replay ORDER BY window_start, fingerprint LIMIT {examples} BY of_live) \
         ORDER BY is_live DESC, window_start, fingerprint",
        range.from.0
    );
    let examples = client.select::<Told>(&sql).await?.into_iter().map(Told::opening).collect();
    let Counts { both, only_live, only_replay } = counts;
    Ok(Some(AlertDiff { both, only_live, only_replay, examples }))
}

/// An [`Opening`] as ClickHouse answers it, with numbers for what is true or not.
#[derive(Deserialize)]
struct Told {
    is_live: u8,
    was_open: u8,
    fingerprint: String,
    window_start: String,
    status: String,
    severity: String,
    detector: String,
    cause_kind: String,
    cause: String,
    tenants: Vec<String>,
}

impl Told {
    fn opening(self) -> Opening {
        Opening {
            is_live: self.is_live != 0,
            was_open: self.was_open != 0,
            fingerprint: self.fingerprint,
            window_start: self.window_start,
            status: self.status,
            severity: self.severity,
            detector: self.detector,
            cause_kind: self.cause_kind,
            cause: self.cause,
            tenants: self.tenants,
        }
    }
}

/// One row for each opening, with whether either side has it.
fn opened(live: &str, replay: &str, sources: &[&str], range: Range) -> String {
    let sources: Vec<String> = sources.iter().map(|name| literal(name)).collect();
    let side = |from: &str, is_live: u8| {
        format!(
            "SELECT fingerprint, window_start, status, severity, detector, cause_kind, cause, tenants, {is_live} AS is_live \
             FROM {from} WHERE status IN ('open', 'reopened') AND source IN ({}) \
             AND toUnixTimestamp64Micro(window_start) >= {} AND toUnixTimestamp64Micro(window_start) < {}",
            sources.join(", "),
            range.from.0,
            range.to.0
        )
    };
    let any = |column: &str| format!("any({column}) AS {column}");
    let columns = ["status", "severity", "detector", "cause_kind", "cause", "tenants"].map(any).join(", ");
    format!(
        "SELECT fingerprint, window_start, {columns}, toUInt8(max(is_live = 1)) AS of_live, toUInt8(max(is_live = 0)) AS of_replay \
         FROM ({} UNION ALL {}) GROUP BY fingerprint, window_start",
        side(live, 1),
        side(replay, 0)
    )
}
