//! What is told of sequences: a row for each gap, cells for a judge, and how many gaps there were.
//!
//! A row is about the event behind the gap: its place and the rule are the key, so that a repeated delivery changes
//! nothing.

use std::fmt::Write;
use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::{
    ArrayRef, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray, TimestampMillisecondArray, UInt32Array,
    UInt64Array,
};
use arrow_schema::SchemaRef;
use weir_schemas::rows::Changes;
use weir_schemas::tables;
use weir_schemas::time::Span;

use super::waiting::Waiting;
use super::walk::Gap;
use crate::account::TopicNames;
use crate::error::Error;
use crate::operator::Context;
use crate::profile::{Numbers, Open, cut, window_of};
use crate::record::{schema_of, topic_names};
use crate::rule::Rule;

/// Stretches of missing numbers that a row names, at most.
const STRETCHES_MAX: usize = 8;
const MASKED: &str = "(masked)";

/// What was found since it was told last.
pub struct Tell {
    rule: Rule,
    is_masked: bool,
    topics: Vec<TopicNames>,
    schema: SchemaRef,
    /// The judge's windows, where there is one.
    window: Option<Span>,
    rows: Vec<(Waiting, String)>,
    cells: Open,
    /// Rule and field, as cells name them.
    of: (Vec<u8>, Vec<u8>),
    gaps: u64,
}

impl Tell {
    /// Tells of gaps in the name of `rule`; `window` is the width of the judge's windows, where there is one.
    pub fn new(rule: Rule, is_masked: bool, topics: Vec<TopicNames>, window: Option<Span>) -> Tell {
        let schema = schema_of(&tables::violations(None));
        let of = (rule.id.as_bytes().to_vec(), rule.field.as_bytes().to_vec());
        Tell { rule, is_masked, topics, schema, window, rows: Vec::new(), cells: Open::default(), of, gaps: 0 }
    }

    /// A number came, in the window of `told_at`.
    pub(super) fn came(&mut self, event: &Waiting, told_at: i64) {
        self.numbers(event, told_at, |numbers| numbers.received += 1);
    }

    /// A number came behind a gap.
    pub(super) fn behind(&mut self, event: &Waiting, gap: &Gap, told_at: i64) {
        self.numbers(event, told_at, |numbers| {
            numbers.received += 1;
            numbers.missing = numbers.missing.saturating_add(gap.missing);
            numbers.behind.offer(event.place);
        });
        self.gaps += 1;
        let expected = if self.is_masked { MASKED.to_owned() } else { numbers_of(gap) };
        self.rows.push((event.clone(), expected));
    }

    fn numbers(&mut self, event: &Waiting, told_at: i64, count: impl FnOnce(&mut Numbers)) {
        let Some(window) = self.window else { return };
        let release = event.release.each_ref().map(|part| cut(part));
        let at = self.cells.number(window_of(told_at, window), cut(&event.tenant), &[], release);
        let Some(cell) = self.cells.get_mut(at) else { return };
        cell.cover(event.place);
        match cell.sequences.get_mut(&self.of) {
            Some(numbers) => count(numbers),
            None => count(cell.sequences.entry(self.of.clone()).or_default()),
        }
    }

    /// Writes the rows of what was found, and sends the cells on their way: they add up behind the exchange.
    pub(super) fn write(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        cx.emit(self.cells.take(None)?);
        let found = std::mem::take(&mut self.rows);
        if found.is_empty() {
            return Ok(());
        }
        let texts = |of: &dyn Fn(&Waiting, &str) -> Vec<u8>| -> ArrayRef {
            let mut texts = BinaryBuilder::new();
            found.iter().for_each(|(event, expected)| texts.append_value(of(event, expected)));
            Arc::new(texts.finish())
        };
        let same = |text: &str| texts(&|_, _| text.as_bytes().to_vec());
        let release = |part: usize| texts(&move |event, _| event.release.get(part).cloned().unwrap_or_default());
        let events = || found.iter().map(|(event, _)| event);
        let topics: Vec<u16> = events().map(|event| event.place.0).collect();
        let is_masked = self.is_masked;
        let number = |event: &Waiting| if is_masked { MASKED.into() } else { event.point.1.to_string().into_bytes() };
        let rule = &self.rule;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMillisecondArray::from_iter_values(events().map(|event| event.kafka_time_ms))),
            topic_names(&self.topics, &topics)?,
            Arc::new(Int32Array::from_iter_values(events().map(|event| event.place.1))),
            Arc::new(Int64Array::from_iter_values(events().map(|event| event.place.2))),
            same(&rule.id),
            Arc::new(UInt32Array::from_iter_values(events().map(|event| event.schema_id))),
            Arc::new(TimestampMicrosecondArray::from_iter_values(events().map(|event| event.point.0))),
            texts(&|event, _| event.tenant.clone()),
            release(0),
            release(1),
            release(2),
            same(&rule.field),
            texts(&|_, expected| expected.as_bytes().to_vec()),
            texts(&|event, _| number(event)),
            same(rule.severity.name()),
            same(&rule.owner),
            same(&rule.fingerprint),
        ];
        let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
        cx.write(Changes { table: Arc::from(tables::VIOLATIONS), rows, deleted: None });
        Ok(())
    }

    /// Emits the number of gaps.
    pub(super) fn emit(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        if self.gaps > 0 {
            let counts: ArrayRef = Arc::new(UInt64Array::from(vec![std::mem::take(&mut self.gaps)]));
            cx.emit_to(1, RecordBatch::try_from_iter([("broken", counts)])?);
        }
        Ok(())
    }
}

/// The missing numbers in words: `5-7, 9`.
fn numbers_of(gap: &Gap) -> String {
    let mut text = String::new();
    for (at, &(from, to)) in gap.stretches.iter().take(STRETCHES_MAX).enumerate() {
        let comma = if at > 0 { ", " } else { "" };
        // Writing to a string can't fail.
        let _ = if from == to { write!(text, "{comma}{from}") } else { write!(text, "{comma}{from}-{to}") };
    }
    if gap.stretches.len() > STRETCHES_MAX {
        let _ = write!(text, ", … ({} in all)", gap.missing);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_numbers_are_told_as_stretches_cut_short() {
        let gap = |stretches: Vec<(i64, i64)>| numbers_of(&Gap { missing: 40, stretches });
        assert_eq!(gap(vec![(5, 7), (9, 9)]), "5-7, 9");
        let many = gap((0..9).map(|at| (at * 2, at * 2)).collect());
        assert_eq!(many, "0, 2, 4, 6, 8, 10, 12, 14, … (40 in all)");
    }
}
