//! Records what accepted events broke: a row for each event and each rule of mode tag.
//!
//! A row's key is the event's place and the rule, so that a repeated delivery changes nothing. Duplicates have no rows: they
//! are no accepted events. Nothing is remembered here.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, UInt32Builder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt16Type};
use arrow_array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray, TimestampMillisecondArray, UInt32Array};
use arrow_schema::SchemaRef;
use arrow_select::take::take_record_batch;
use weir_schemas::rows::Changes;
use weir_schemas::rule::Mode;
use weir_schemas::stage::{broken_rules, system};
use weir_schemas::tables;

use crate::account::TopicNames;
use crate::detect::SenderColumns;
use crate::error::Error;
use crate::operator::{Context, Operator};
use crate::record::{schema_of, topic_names};
use crate::rule::{Found, Rule};
use crate::tally::primitive;

/// Writes a row for each rule of mode tag that an accepted event breaks.
pub struct RecordViolations {
    schema: SchemaRef,
    topics: Vec<TopicNames>,
    sender: SenderColumns,
    /// The passing rules of the source by number.
    passing: Vec<Rule>,
}

impl RecordViolations {
    /// `rules` are the source's; those of a mode that doesn't pass are left out, as in the numbers of the events' marks.
    pub fn new(rules: &[Rule], sender: SenderColumns, topics: Vec<TopicNames>) -> RecordViolations {
        let passing = rules.iter().filter(|rule| rule.mode.passes()).cloned().collect();
        RecordViolations { schema: schema_of(&tables::violations(None)), topics, sender, passing }
    }

    /// The rows of `batch` that break the rule of `number`.
    fn rows_of(batch: &RecordBatch, number: usize) -> UInt32Array {
        let mut rows = UInt32Builder::new();
        if let Some(broken) = broken_rules(batch) {
            let offsets = broken.value_offsets();
            let numbers = broken.values().as_primitive::<UInt16Type>().values();
            for (row, ends) in offsets.windows(2).enumerate() {
                let own = numbers.get(ends[0] as usize..ends[1] as usize).unwrap_or_default();
                if own.iter().any(|own| usize::from(*own) == number) {
                    rows.append_value(row as u32);
                }
            }
        }
        rows.finish()
    }

    fn write(&self, rule: &Rule, events: &RecordBatch) -> Result<RecordBatch, Error> {
        let same = |value: &str| same(value, events.num_rows());
        let times = primitive::<Int64Type>(events, system::EVENT_TIME)?.values().clone();
        let kafka_times = primitive::<Int64Type>(events, system::KAFKA_TIME_MS)?.values().clone();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMillisecondArray::new(kafka_times, None)),
            topic_names(&self.topics, primitive::<UInt16Type>(events, system::TOPIC)?.values())?,
            events.column(system::PARTITION).clone(),
            events.column(system::OFFSET).clone(),
            same(&rule.id),
            events.column(system::SCHEMA_ID).clone(),
            Arc::new(TimestampMicrosecondArray::new(times, None)),
            text_of(events, self.sender.tenant),
            text_of(events, self.sender.sdk),
            text_of(events, self.sender.sdk_version),
            text_of(events, self.sender.app_version),
            same(&rule.field),
            same(&rule.expected),
            found_of(rule, events)?,
            same(rule.severity.name()),
            same(&rule.owner),
            same(&rule.fingerprint),
        ];
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

impl Operator for RecordViolations {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        if broken_rules(&batch).is_none_or(|broken| broken.values().is_empty()) {
            return Ok(());
        }
        for (number, rule) in self.passing.iter().enumerate().filter(|(_, rule)| rule.mode == Mode::Tag) {
            let rows = RecordViolations::rows_of(&batch, number);
            if !rows.is_empty() {
                let rows = self.write(rule, &take_record_batch(&batch, &rows)?)?;
                cx.write(Changes { table: Arc::from(tables::VIOLATIONS), rows, deleted: None });
            }
        }
        Ok(())
    }

    fn end_of_epoch(&mut self, _: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// A column with the same text in all its rows.
pub(crate) fn same(value: &str, rows: usize) -> ArrayRef {
    let mut texts = BinaryBuilder::with_capacity(rows, rows * value.len());
    (0..rows).for_each(|_| texts.append_value(value));
    Arc::new(texts.finish())
}

/// A column of texts in which null is ''; so are all where there is no such column.
pub(crate) fn text_of(events: &RecordBatch, column: Option<usize>) -> ArrayRef {
    match column.and_then(|at| events.columns().get(at)) {
        Some(column) if column.null_count() == 0 => column.clone(),
        Some(column) => {
            let mut texts = BinaryBuilder::new();
            let own = column.as_binary::<i32>();
            own.iter().for_each(|text| texts.append_value(text.unwrap_or_default()));
            Arc::new(texts.finish())
        }
        None => same("", events.num_rows()),
    }
}

/// What a rule tells of each event.
pub(crate) fn found_of(rule: &Rule, events: &RecordBatch) -> Result<ArrayRef, Error> {
    let (found, mut texts, mut text) = (Found::of(rule, events)?, BinaryBuilder::new(), Vec::new());
    for row in 0..events.num_rows() {
        text.clear();
        found.write(row, &mut text);
        texts.append_value(&text);
    }
    Ok(Arc::new(texts.finish()))
}
