//! Alerts, and their rows in the two tables.
//!
//! A detector fills an [`Alert`] with facts; owner, routes and suppression come from the [`Policy`] when its row is written.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, ListBuilder};
use arrow_array::{ArrayRef, Float64Array, RecordBatch, TimestampMicrosecondArray, UInt32Array, UInt64Array};
use arrow_schema::{DataType, Field, SchemaRef};
use weir_schemas::rows::Changes;
use weir_schemas::tables;
use weir_schemas::time::EventTime;
use xxhash_rust::xxh3::xxh3_128;

use super::policy::{Decision, Policy, Subject};
use crate::account::TopicNames;
use crate::error::Error;
use crate::operator::Context;
use crate::profile::Spot;
use crate::record::schema_of;
use crate::wanted::Wanted;

/// Tenants, event types and fields that an alert names, at most, each.
const NAMED: usize = 20;
/// Places and samples that it names, at most, each.
pub(crate) const EXAMPLES: usize = 3;

/// A step of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Open,
    Update,
    Resolved,
    Reopened,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Status::Open => "open",
            Status::Update => "update",
            Status::Resolved => "resolved",
            Status::Reopened => "reopened",
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// One step of one alert, as a detector knows it. The columns of `weir_alerts_history` say what each is.
pub(crate) struct Alert {
    pub(crate) window_start: i64,
    pub(crate) window_end: i64,
    pub(crate) fingerprint: String,
    pub(crate) revision: u32,
    pub(crate) status: Status,
    pub(crate) status_reason: String,
    pub(crate) severity: Severity,
    pub(crate) opened_at: i64,
    pub(crate) last_seen_at: i64,
    pub(crate) detector: &'static str,
    pub(crate) indicator: &'static str,
    pub(crate) cause_kind: &'static str,
    pub(crate) cause: Vec<u8>,
    /// Some of the tenants that have it, and how many there are.
    pub(crate) tenants: Vec<Vec<u8>>,
    pub(crate) tenant_count: u64,
    /// SDK, its version, the app's version.
    pub(crate) release: [Vec<u8>; 3],
    pub(crate) last_good: String,
    pub(crate) event_types: Vec<Vec<u8>>,
    pub(crate) fields: Vec<Vec<u8>>,
    pub(crate) rule: Vec<u8>,
    pub(crate) reason: &'static str,
    pub(crate) detail: Vec<u8>,
    pub(crate) affected_records: u64,
    pub(crate) records: u64,
    pub(crate) affected_share: f64,
    pub(crate) affected_users: Option<u64>,
    pub(crate) seen: f64,
    pub(crate) expected: Option<f64>,
    pub(crate) expected_lower: Option<f64>,
    pub(crate) expected_upper: Option<f64>,
    pub(crate) statistic: String,
    pub(crate) first_place: Option<Spot>,
    pub(crate) last_place: Option<Spot>,
    pub(crate) examples: Vec<Spot>,
    pub(crate) wanted: Wanted,
    pub(crate) query: String,
}

pub(crate) struct AlertRows {
    source: String,
    topics: Vec<TopicNames>,
    policy: Policy,
    history: SchemaRef,
    current: SchemaRef,
}

/// A row: a step, and what the rules say about it.
struct Row<'a> {
    alert: &'a Alert,
    decision: Decision,
}

impl AlertRows {
    pub(crate) fn new(source: String, topics: Vec<TopicNames>, policy: Policy) -> AlertRows {
        AlertRows {
            source,
            topics,
            policy,
            history: schema_of(&tables::alerts_history()),
            current: schema_of(&tables::alerts()),
        }
    }

    /// Writes every step to the history, and the last one of each alert to the table of current alerts. Steps of one
    /// alert stand in their order.
    pub(crate) fn write(&self, alerts: &[Alert], cx: &mut Context<'_>) -> Result<(), Error> {
        if alerts.is_empty() {
            return Ok(());
        }
        let newest: BTreeMap<&str, &Alert> = alerts.iter().map(|alert| (alert.fingerprint.as_str(), alert)).collect();
        let history = self.columns(alerts.iter())?;
        let mut current = self.columns(newest.into_values())?;
        current.swap(0, 1);
        for (table, schema, columns) in
            [(tables::ALERTS_HISTORY, &self.history, history), (tables::ALERTS, &self.current, current)]
        {
            let rows = RecordBatch::try_new(schema.clone(), columns)?;
            cx.write(Changes { table: Arc::from(table), rows, deleted: None });
        }
        Ok(())
    }

    /// The columns of the history, in their order.
    fn columns<'a>(&self, alerts: impl Iterator<Item = &'a Alert>) -> Result<Vec<ArrayRef>, Error> {
        let rows: Vec<Row<'_>> = alerts.map(|alert| Row { alert, decision: self.decide(alert) }).collect();
        let mut columns = identity(&rows);
        columns.extend(self.cause(&rows));
        columns.extend(self.proof(&rows));
        Ok(columns)
    }

    fn decide(&self, alert: &Alert) -> Decision {
        self.policy.decide(&Subject {
            window_start: EventTime(alert.window_start),
            detector: alert.detector,
            source: &self.source,
            rule: &alert.rule,
            sdk: &alert.release[0],
            severity: alert.severity.name(),
            event_types: &alert.event_types,
            tenants: &alert.tenants,
            tenant_count: alert.tenant_count,
            fields: &alert.fields,
        })
    }

    fn cause(&self, rows: &[Row<'_>]) -> Vec<ArrayRef> {
        vec![
            texts(rows, |row| row.alert.detector.as_bytes()),
            texts(rows, |row| row.alert.indicator.as_bytes()),
            texts(rows, |row| row.alert.cause_kind.as_bytes()),
            texts(rows, |row| &row.alert.cause),
            texts(rows, |_| self.source.as_bytes()),
            lists(rows, |row| row.alert.tenants.iter().take(NAMED).cloned().collect()),
            counts(rows, |row| row.alert.tenant_count),
            texts(rows, |row| &row.alert.release[0]),
            texts(rows, |row| &row.alert.release[1]),
            texts(rows, |row| &row.alert.release[2]),
            texts(rows, |row| row.alert.last_good.as_bytes()),
            lists(rows, |row| row.alert.event_types.iter().take(NAMED).cloned().collect()),
            lists(rows, |row| row.alert.fields.iter().take(NAMED).cloned().collect()),
            texts(rows, |row| &row.alert.rule),
            texts(rows, |row| row.alert.reason.as_bytes()),
            texts(rows, |row| &row.alert.detail),
        ]
    }

    fn proof(&self, rows: &[Row<'_>]) -> Vec<ArrayRef> {
        let place = |spot: &Option<Spot>| spot.as_ref().map(|spot| self.place(spot)).unwrap_or_default();
        let numbers = |of: fn(&Alert) -> Option<f64>| -> ArrayRef {
            Arc::new(rows.iter().map(|row| of(row.alert)).collect::<Float64Array>())
        };
        vec![
            counts(rows, |row| row.alert.affected_records),
            counts(rows, |row| row.alert.records),
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.alert.affected_share))),
            Arc::new(rows.iter().map(|row| row.alert.affected_users).collect::<UInt64Array>()),
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.alert.seen))),
            numbers(|alert| alert.expected),
            numbers(|alert| alert.expected_lower),
            numbers(|alert| alert.expected_upper),
            texts(rows, |row| row.alert.statistic.as_bytes()),
            owned_texts(rows, |row| place(&row.alert.first_place)),
            owned_texts(rows, |row| place(&row.alert.last_place)),
            lists(rows, |row| {
                row.alert.examples.iter().take(EXAMPLES).map(|spot| self.place(spot).into_bytes()).collect()
            }),
            lists(rows, |row| vec![row.alert.wanted.to_bytes()]),
            texts(rows, |row| row.alert.query.as_bytes()),
        ]
    }

    fn place(&self, Spot(topic, partition, offset): &Spot) -> String {
        let topic = self.topics.get(usize::from(*topic)).map_or("?", |names| &names.topic);
        format!("{topic}/{partition}@{offset}")
    }
}

fn identity(rows: &[Row<'_>]) -> Vec<ArrayRef> {
    vec![
        times(rows, |alert| alert.window_start),
        texts(rows, |row| row.alert.fingerprint.as_bytes()),
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.alert.revision))),
        times(rows, |alert| alert.window_end),
        texts(rows, |row| row.alert.status.name().as_bytes()),
        texts(rows, |row| row.alert.status_reason.as_bytes()),
        texts(rows, |row| row.alert.severity.name().as_bytes()),
        texts(rows, |row| row.decision.owner.as_bytes()),
        lists(rows, |row| row.decision.routes.iter().map(|route| route.clone().into_bytes()).collect()),
        texts(rows, |row| row.decision.suppressed_by.as_bytes()),
        times(rows, |alert| alert.opened_at),
        times(rows, |alert| alert.last_seen_at),
    ]
}

fn times(rows: &[Row<'_>], of: fn(&Alert) -> i64) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| of(row.alert))))
}

fn counts(rows: &[Row<'_>], of: fn(&Row<'_>) -> u64) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(rows.iter().map(of)))
}

fn texts<'a>(rows: &'a [Row<'_>], of: impl Fn(&'a Row<'_>) -> &'a [u8]) -> ArrayRef {
    let mut column = BinaryBuilder::new();
    rows.iter().for_each(|row| column.append_value(of(row)));
    Arc::new(column.finish())
}

fn owned_texts(rows: &[Row<'_>], of: impl Fn(&Row<'_>) -> String) -> ArrayRef {
    let mut column = BinaryBuilder::new();
    rows.iter().for_each(|row| column.append_value(of(row)));
    Arc::new(column.finish())
}

fn lists(rows: &[Row<'_>], of: impl Fn(&Row<'_>) -> Vec<Vec<u8>>) -> ArrayRef {
    let mut column = ListBuilder::new(BinaryBuilder::new()).with_field(Field::new("item", DataType::Binary, false));
    for row in rows {
        of(row).into_iter().for_each(|text| column.values().append_value(text));
        column.append(true);
    }
    Arc::new(column.finish())
}

/// What makes it the same problem: 128 bits of the parts, as hexadecimal text. It doesn't change between versions.
pub(crate) fn fingerprint(parts: &[&[u8]]) -> String {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    let mut text = String::with_capacity(32);
    // Writing to a string cannot fail.
    let _ = write!(text, "{:032x}", xxh3_128(&bytes));
    text
}

/// A text as SQL writes it.
pub(crate) fn literal(text: &[u8]) -> String {
    format!("'{}'", String::from_utf8_lossy(text).replace('\\', "\\\\").replace('\'', "\\'"))
}
