//! Rows of the two tables of alerts.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, ListBuilder};
use arrow_array::{ArrayRef, Float64Array, RecordBatch, TimestampMicrosecondArray, UInt32Array, UInt64Array};
use arrow_schema::{DataType, Field, SchemaRef};
use weir_schemas::rows::Changes;
use weir_schemas::tables;
use xxhash_rust::xxh3::xxh3_128;

use super::count::{Sender, Spot};
use crate::account::TopicNames;
use crate::error::Error;
use crate::operator::Context;
use crate::record::{reason_of, schema_of};

/// The detector's name in alerts.
const DETECTOR: &str = "refused_share";

/// A step of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Open,
    Update,
    Resolved,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Status::Open => "open",
            Status::Update => "update",
            Status::Resolved => "resolved",
        }
    }
}

/// What an alert's step is about.
pub(super) enum Cause {
    /// The commonest reason's number and detail.
    Refused(u8, Vec<u8>),
    /// Nothing was refused.
    Nothing,
    /// So many windows in a row had fewer records than are needed to go by.
    Silent { windows: u32, min_records: u64 },
}

impl Cause {
    fn reason(&self) -> Result<Vec<u8>, Error> {
        Ok(match self {
            Cause::Refused(number, _) => reason_of(*number)?.name().into(),
            Cause::Nothing => Vec::new(),
            Cause::Silent { .. } => b"silent".to_vec(),
        })
    }

    fn detail(&self) -> Vec<u8> {
        match self {
            Cause::Refused(_, detail) => detail.clone(),
            Cause::Nothing => Vec::new(),
            Cause::Silent { windows, min_records } => {
                format!("fewer than {min_records} records in each of {windows} windows").into_bytes()
            }
        }
    }
}

/// What a window made of an alert.
pub(super) struct Judgement {
    pub(super) status: Status,
    pub(super) revision: u32,
    pub(super) opened_at: i64,
    pub(super) window_start: i64,
    pub(super) window_end: i64,
    pub(super) sender: Sender,
    pub(super) cause: Cause,
    pub(super) refused: u64,
    pub(super) total: u64,
    pub(super) share: f64,
    pub(super) examples: Vec<Spot>,
}

pub(super) struct AlertRows {
    source: String,
    topics: Vec<TopicNames>,
    history: SchemaRef,
    current: SchemaRef,
}

impl AlertRows {
    pub(super) fn new(source: String, topics: Vec<TopicNames>) -> AlertRows {
        AlertRows {
            source,
            topics,
            history: schema_of(&tables::alerts_history()),
            current: schema_of(&tables::alerts()),
        }
    }

    /// Writes every step to the history, and the last one of each alert to the table of current alerts.
    pub(super) fn write(&self, judgements: &[Judgement], cx: &mut Context<'_>) -> Result<(), Error> {
        if judgements.is_empty() {
            return Ok(());
        }
        let all: Vec<&Judgement> = judgements.iter().collect();
        // Judgements stand in the order of windows: the last one of a sender counts.
        let newest: BTreeMap<&Sender, &Judgement> =
            all.iter().map(|judgement| (&judgement.sender, *judgement)).collect();
        let newest: Vec<&Judgement> = newest.into_values().collect();
        let history = RecordBatch::try_new(self.history.clone(), self.columns(&all)?)?;
        let mut columns = self.columns(&newest)?;
        columns.swap(0, 1);
        let current = RecordBatch::try_new(self.current.clone(), columns)?;
        cx.write(Changes { table: Arc::from(tables::ALERTS_HISTORY), rows: history, deleted: None });
        cx.write(Changes { table: Arc::from(tables::ALERTS), rows: current, deleted: None });
        Ok(())
    }

    /// The columns of the history, in their order.
    fn columns(&self, rows: &[&Judgement]) -> Result<Vec<ArrayRef>, Error> {
        let times = |of: fn(&Judgement) -> i64| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| of(row))))
        };
        let counts = |of: fn(&Judgement) -> u64| -> ArrayRef {
            Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| of(row))))
        };
        let texts = |of: &dyn Fn(&Judgement) -> Result<Vec<u8>, Error>| -> Result<ArrayRef, Error> {
            let mut column = BinaryBuilder::new();
            for row in rows {
                column.append_value(of(row)?);
            }
            Ok(Arc::new(column.finish()))
        };
        let mut columns = vec![
            times(|row| row.window_start),
            texts(&|row| Ok(self.fingerprint(&row.sender).into_bytes()))?,
            Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.revision))),
            times(|row| row.window_end),
            texts(&|row| Ok(row.status.name().into()))?,
            texts(&|_| Ok(DETECTOR.into()))?,
            texts(&|_| Ok(self.source.clone().into_bytes()))?,
        ];
        for part in 0..4 {
            columns.push(texts(&|row| Ok(row.sender.0[part].clone()))?);
        }
        columns.push(texts(&|row| row.cause.reason())?);
        columns.push(texts(&|row| Ok(row.cause.detail()))?);
        columns.push(counts(|row| row.refused));
        columns.push(counts(|row| row.total));
        columns.push(Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.share))));
        columns.push(times(|row| row.opened_at));
        let mut examples =
            ListBuilder::new(BinaryBuilder::new()).with_field(Field::new("item", DataType::Binary, false));
        for row in rows {
            for Spot(topic, partition, offset) in &row.examples {
                let topic = self.topics.get(usize::from(*topic)).map_or("?", |names| &names.topic);
                examples.values().append_value(format!("{topic}/{partition}@{offset}"));
            }
            examples.append(true);
        }
        columns.push(Arc::new(examples.finish()));
        Ok(columns)
    }

    /// What makes it the same problem: detector, source and sender.
    fn fingerprint(&self, sender: &Sender) -> String {
        let mut bytes = Vec::new();
        for part in [DETECTOR.as_bytes(), self.source.as_bytes()] {
            bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(&sender.key());
        let mut text = String::with_capacity(32);
        // Writing to a string cannot fail.
        let _ = write!(text, "{:032x}", xxh3_128(&bytes));
        text
    }
}
