//! The tables that every pipeline has, beside those of its views: declared once, because operators or the
//! pipeline write them and sinks and people read them.
//!
//! Times of the clock end in `_at`. Columns of text that have few distinct values are `LowCardinality`.
//!
//! Not here: the ledger, which one operator writes and nobody but ClickHouse reads; the accepted events,
//! whose columns are the source's.

mod lineage;
mod shares;
mod swaps;

use std::sync::Arc;

pub use lineage::{EPOCHS, VERSIONS, epochs, versions};
pub use shares::{SHARES, shares};
pub use swaps::{SWAPS, swaps};

use crate::rows::{Table, TableKind};
use crate::stage::Column;
use crate::types::{ColumnType, Width, Zone};

/// The name of [`progress`].
pub const PROGRESS: &str = "weir_progress";
/// The name of [`partitions`].
pub const PARTITIONS: &str = "weir_partitions";
/// The name of [`judgements`].
pub const JUDGEMENTS: &str = "weir_judgements";
/// The name of [`quarantine`].
pub const QUARANTINE: &str = "weir_quarantine";
/// The name of [`violations`].
pub const VIOLATIONS: &str = "weir_violations";
/// The name of [`alerts`].
pub const ALERTS: &str = "weir_alerts";
/// The name of [`alerts_history`].
pub const ALERTS_HISTORY: &str = "weir_alerts_history";
/// The name of [`acknowledgements`].
pub const ACKNOWLEDGEMENTS: &str = "weir_acknowledgements";

/// How far each view is complete: one row per view, rewritten after all rows of an epoch were acknowledged. Both times are
/// boundaries between two windows of the view, on which the readers' views rely.
pub fn progress() -> Table {
    Table {
        name: Arc::from(PROGRESS),
        comment: "How far each view is complete; written after all rows of the epoch".to_owned(),
        columns: vec![
            column("view", ColumnType::LowCardinality, "the view's name"),
            column("complete_through", time(), "every window that ends here or before is closed"),
            column("final_through", time(), "every window that ends here or before can change no more by itself"),
            column("epoch", ColumnType::UInt(Width::W64), "the committed epoch this speaks of"),
            column("held_back_by", ColumnType::String, "the partition with the least watermark, as topic/partition"),
            column("committed_at", time(), "when the epoch was committed, by Weir's clock"),
        ],
        key_columns: 1,
        partition_by: None,
        kind: TableKind::Keyed,
        retention_days: None,
    }
}

/// Where each partition is: one row per partition, rewritten about once a second. A partition that isn't read any more
/// keeps its last row.
pub fn partitions() -> Table {
    Table {
        name: Arc::from(PARTITIONS),
        comment: "Where each partition is read; rewritten about once a second".to_owned(),
        columns: vec![
            column("source", ColumnType::LowCardinality, "the source's name"),
            column("topic", ColumnType::LowCardinality, "the topic"),
            column("partition", ColumnType::Int(Width::W32), "the partition"),
            column("next_offset", ColumnType::Int(Width::W64), "every record before this offset is committed"),
            column(
                "end_offset",
                ColumnType::Int(Width::W64),
                "the log's end; less next_offset it is the lag, in offsets",
            ),
            column("watermark", time(), "no event older than this is expected of the partition; 1900 while none came"),
            column("state", ColumnType::LowCardinality, "reading, idle, waiting, parked or done"),
            column("detail", ColumnType::String, "why it waits or is parked"),
            column("holds_back", ColumnType::Bool, "whether it is the one that holds the source's watermark back"),
            column("worker", ColumnType::UInt(Width::W32), "the worker that reads it"),
            column("epoch", ColumnType::UInt(Width::W64), "the committed epoch this speaks of"),
            column("committed_at", time(), "when the epoch was committed, by Weir's clock"),
        ],
        key_columns: 3,
        partition_by: None,
        kind: TableKind::Keyed,
        retention_days: None,
    }
}

/// Decisions that needed the clock: a replay reads them instead of deciding again.
pub fn judgements() -> Table {
    Table {
        name: Arc::from(JUDGEMENTS),
        comment: "Decisions that needed the clock; a replay reads them instead of deciding again".to_owned(),
        columns: vec![
            column("judged_at", time(), "when, by Weir's clock"),
            column("topic", ColumnType::LowCardinality, "the topic"),
            column("partition", ColumnType::Int(Width::W32), "the partition"),
            column("offset", ColumnType::Int(Width::W64), "the record judged, or the next one where a partition was"),
            column("kind", ColumnType::LowCardinality, "what was decided, such as idle or too_late_after_idle"),
            column("epoch", ColumnType::UInt(Width::W64), "the epoch whose commit holds it"),
            column("watermark", time(), "the watermark it was judged against"),
            column("detail", ColumnType::String, "what else is to be said of it"),
            column("last_offset", ColumnType::Int(Width::W64), "the last record that it is of, from offset on"),
        ],
        key_columns: 5,
        partition_by: Some(0),
        kind: TableKind::Appended,
        retention_days: None,
    }
}

/// Refused records, whole, one row each; the key is the place.
pub fn quarantine(retention_days: Option<u32>) -> Table {
    let few = || ColumnType::LowCardinality;
    Table {
        name: Arc::from(QUARANTINE),
        comment: "Refused records with their bytes, place and reason".to_owned(),
        columns: vec![
            column("kafka_time", milliseconds(), "the record's Kafka timestamp"),
            column("topic", few(), "the topic"),
            column("partition", ColumnType::Int(Width::W32), "the partition"),
            column("offset", ColumnType::Int(Width::W64), "the offset"),
            column("schema_id", ColumnType::UInt(Width::W32).nullable(), "the writer schema's id in the registry"),
            column("event_time", time().nullable(), "the event's time, where it could be read"),
            column("reason", few(), "the stable name of the reason"),
            column("detail", ColumnType::String, "the field, the rule, or what was wrong with the bytes"),
            column("tenant", few(), "the tenant, empty where unknown"),
            column("sdk", few(), "the SDK that sent it, empty where unknown"),
            column("sdk_version", few(), "the SDK's version"),
            column("app_version", few(), "the app's version"),
            column("rule", few(), "the rule that decided, empty where none did"),
            column("field", few(), "the field's path, empty where unknown or where a rule is about several"),
            column("expected", few(), "what the rule requires"),
            column(
                "found",
                ColumnType::String,
                "what was found instead, cut short, masked where the field is sensitive",
            ),
            column("severity", few(), "info, warning or critical; empty without a rule"),
            column("owner", few(), "whose rule it is"),
            column(
                "fingerprint",
                few(),
                "of the cause: source, reason, rule or field and fault; the same for every release",
            ),
            column("broken_rules", ColumnType::Array(Box::new(ColumnType::String)), "every rule that the event breaks"),
            column("key", ColumnType::String.nullable(), "the record's key, byte for byte"),
            column("value", ColumnType::String.nullable(), "the record's value, byte for byte"),
            column(
                "headers",
                ColumnType::String,
                "the headers: name, zero byte, i32 length (-1 null), value; repeated",
            ),
        ],
        key_columns: 4,
        partition_by: Some(0),
        kind: TableKind::Appended,
        retention_days,
    }
}

/// What accepted events broke: one row per event and rule of mode tag; the key is the place and the rule.
pub fn violations(retention_days: Option<u32>) -> Table {
    let few = || ColumnType::LowCardinality;
    Table {
        name: Arc::from(VIOLATIONS),
        comment: "Rules that accepted events broke: those of mode tag, and gaps in sequences at the event behind"
            .to_owned(),
        columns: vec![
            column("kafka_time", milliseconds(), "the record's Kafka timestamp"),
            column("topic", few(), "the topic"),
            column("partition", ColumnType::Int(Width::W32), "the partition"),
            column("offset", ColumnType::Int(Width::W64), "the offset"),
            column("rule", few(), "the rule"),
            column("schema_id", ColumnType::UInt(Width::W32), "the writer schema's id in the registry"),
            column("event_time", time(), "the event's time"),
            column("tenant", few(), "the tenant, empty where unknown"),
            column("sdk", few(), "the SDK that sent it, empty where unknown"),
            column("sdk_version", few(), "the SDK's version"),
            column("app_version", few(), "the app's version"),
            column("field", few(), "the field's path, empty where the rule is about several"),
            column("expected", few(), "what the rule requires; of a sequence, the numbers that are missing"),
            column(
                "found",
                ColumnType::String,
                "what was found instead, cut short, masked where the field is sensitive",
            ),
            column("severity", few(), "info, warning or critical"),
            column("owner", few(), "whose rule it is"),
            column("fingerprint", few(), "of the cause: source, reason and rule; the same for every release"),
        ],
        key_columns: 5,
        partition_by: Some(0),
        kind: TableKind::Appended,
        retention_days,
    }
}

/// Every step of every alert: one row per (fingerprint, alert revision, window). The alert topic carries the same rows.
pub fn alerts_history() -> Table {
    Table {
        name: Arc::from(ALERTS_HISTORY),
        comment: "Every step of every alert; the alert topic carries the same".to_owned(),
        columns: alert_columns(),
        key_columns: 3,
        partition_by: Some(0),
        kind: TableKind::Appended,
        retention_days: None,
    }
}

/// The newest step of every alert: one row per fingerprint.
pub fn alerts() -> Table {
    let mut columns = alert_columns();
    columns.swap(0, 1);
    Table {
        name: Arc::from(ALERTS),
        comment: "The newest step of every alert".to_owned(),
        columns,
        key_columns: 1,
        partition_by: None,
        kind: TableKind::Keyed,
        retention_days: None,
    }
}

/// Who has taken an alert on: the newest acknowledgement of each fingerprint. The control topic carries the same.
///
/// It holds for the steps of one opening, told by `opened_at`: an alert that reopens is nobody's again.
pub fn acknowledgements() -> Table {
    let text = || ColumnType::String;
    Table {
        name: Arc::from(ACKNOWLEDGEMENTS),
        comment: "Who has taken which alert on; the control topic carries the same".to_owned(),
        columns: vec![
            column("fingerprint", text(), "the alert's"),
            column("opened_at", time(), "the opening that it holds for: the alert's opened_at"),
            column("acknowledged_at", time(), "when, by the clock of who said so"),
            column("acknowledged_by", text(), "who"),
            column("note", text(), "what they said, empty where nothing"),
            column("until", time().nullable(), "windows that end later are told again; null for no end"),
        ],
        key_columns: 1,
        partition_by: None,
        kind: TableKind::Keyed,
        retention_days: None,
    }
}

/// Columns of [`alerts_history`], its three key columns first; [`alerts`] has the first two swapped.
fn alert_columns() -> Vec<Column> {
    let mut columns = alert_identity();
    columns.extend(alert_cause());
    columns.extend(alert_proof());
    columns
}

/// Which alert, which step, and whose it is.
fn alert_identity() -> Vec<Column> {
    let few = || ColumnType::LowCardinality;
    vec![
        column("window_start", time(), "start of the window that made this step"),
        column("fingerprint", ColumnType::String, "what makes it the same problem: hexadecimal, stable"),
        column("revision", ColumnType::UInt(Width::W32), "1 when the alert opens, one more with each step"),
        column("window_end", time(), "end of the window that made this step"),
        column("status", few(), "open, update, resolved or reopened"),
        column("status_reason", ColumnType::String, "why this step was made"),
        column("severity", few(), "info, warning or critical"),
        column("owner", few(), "who has to act, by the pipeline file; empty where nobody is named"),
        column("routes", texts(), "the senders that tell it, by the pipeline file"),
        column("suppressed_by", ColumnType::String, "the suppression that keeps it from being sent; empty for none"),
        column("opened_at", time(), "start of the window in which it opened, or reopened last, in event time"),
        column("last_seen_at", time(), "end of the last window in which the problem was seen, in event time"),
    ]
}

/// What is wrong, with whom.
fn alert_cause() -> Vec<Column> {
    let few = || ColumnType::LowCardinality;
    vec![
        column("detector", few(), "the detector's name"),
        column("indicator", few(), "the number that it watches"),
        column("cause_kind", few(), "sdk_version, app_version, release, platform, tenant, event_type, field or source"),
        column("cause", ColumnType::String, "what the problem is put down to: a value of that kind"),
        column("source", few(), "the source"),
        column("tenants", texts(), "tenants that have the problem, the first of them by name"),
        column("tenant_count", count(), "how many tenants have it"),
        column("sdk", few(), "the SDK of the first bad release, empty where unknown"),
        column("sdk_version", few(), "the first bad release: the SDK's version"),
        column("app_version", few(), "the first bad release: the app's version"),
        column("last_good_release", few(), "the release before it, as SDK, version / app version; empty where unknown"),
        column("event_types", texts(), "event types that have the problem; empty where unknown"),
        column("fields", texts(), "paths of the fields that have it; empty where unknown"),
        column("rule", few(), "the rule that is broken, empty where it is none"),
        column(
            "reason",
            few(),
            "the commonest reason among refused records, empty where none was refused; silent where too few came to go on",
        ),
        column("detail", ColumnType::String, "the field, rule or wrong bytes of that reason"),
    ]
}

/// How much, against what was expected, and where to look.
fn alert_proof() -> Vec<Column> {
    let share = || ColumnType::Float64.nullable();
    vec![
        column("affected_records", count(), "records of the window that have the problem"),
        column("records", count(), "records of the window that could have it"),
        column("affected_share", ColumnType::Float64, "affected_records / records, 0 to 1"),
        column("affected_users", count().nullable(), "users among the affected records; null where not counted"),
        column("seen", ColumnType::Float64, "the indicator's value in the window"),
        column("expected", share(), "the value that was expected; null where there is only a bound"),
        column("expected_lower", share(), "the least value that would have been no alert; null for none"),
        column("expected_upper", share(), "the greatest value that would have been no alert; null for none"),
        column("statistic", ColumnType::String, "the evidence and its method, in words"),
        column("first_place", ColumnType::String, "the first affected record, topic/partition@offset"),
        column("last_place", ColumnType::String, "the last affected record of the window"),
        column("examples", texts(), "places of up to three affected records"),
        column("samples", texts(), "up to three of them with their values masked"),
        column("query", ColumnType::String, "SQL to look further with"),
    ]
}

fn column(name: &str, column_type: ColumnType, comment: &str) -> Column {
    Column { name: name.to_owned(), column_type, comment: comment.to_owned() }
}

fn utc() -> Option<Zone> {
    Some(Zone::from("UTC"))
}

fn count() -> ColumnType {
    ColumnType::UInt(Width::W64)
}

fn texts() -> ColumnType {
    ColumnType::Array(Box::new(ColumnType::String))
}

/// Microseconds, as event times are.
fn time() -> ColumnType {
    ColumnType::DateTime64(6, utc())
}

/// Milliseconds, as Kafka's timestamps are.
fn milliseconds() -> ColumnType {
    ColumnType::DateTime64(3, utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_partition_columns_belong_to_the_key() {
        for table in [
            progress(),
            partitions(),
            judgements(),
            quarantine(Some(30)),
            violations(None),
            alerts(),
            alerts_history(),
            acknowledgements(),
            shares(),
            epochs(Some(90)),
            versions(),
        ] {
            let mut names: Vec<_> = table.columns.iter().map(|column| &column.name).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), table.columns.len(), "{}", table.name);
            assert!(table.partition_by.is_none_or(|at| at < table.key_columns), "{}", table.name);
        }
        assert_eq!(alerts().columns[0].name, "fingerprint");
    }
}
