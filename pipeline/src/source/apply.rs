//! Applying rules to the events that are in time: who is refused, what is counted, what the others are marked with.

use std::sync::Arc;

use arrow_array::{BinaryArray, BooleanArray, ListArray, RecordBatch, UInt16Array};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_schema::ArrowError;
use arrow_select::filter::filter_record_batch;
use weir_operators::rule::{self, Basis, Broken, Found, rows_of};
use weir_schemas::fate::Reason;
use weir_schemas::stage::broken_rule_field;

use super::intake::{Judged, Run, Sheets};
use super::message::Message;
use super::refuse::{Cause, header_bytes};
use crate::error::Error;

impl Run<'_> {
    /// The rules that events break, in the order of the rules.
    pub(super) fn broken_rules(&self, events: &RecordBatch) -> Result<Vec<Broken>, Error> {
        let mut broken = rule::judge(&self.contract.rules, events)?;
        if let Some(plan) = &self.contract.plan {
            broken.extend(plan.judge(events)?);
            broken.sort_by_key(|broken| broken.rule);
        }
        Ok(broken)
    }

    /// Counts what is broken among the rows of `in_time`, and refuses those that break a rule of mode quarantine. The first
    /// such rule decides; all that are broken are told.
    pub(super) fn apply_rules(
        &self,
        events: &RecordBatch,
        in_time: BooleanArray,
        broken: &[Broken],
        judged: &Judged<'_>,
        sheets: &mut Sheets,
    ) -> Result<BooleanArray, Error> {
        if broken.is_empty() {
            return Ok(in_time);
        }
        let rules = &self.contract.rules;
        sheets.broken.resize(rules.len(), 0);
        for broken in broken {
            let count = (&broken.rows & in_time.values()).count_set_bits();
            sheets.broken[broken.rule] += count as u64;
        }
        let deciding: Vec<&Broken> = broken.iter().filter(|broken| !rules[broken.rule].mode.passes()).collect();
        let refused = rows_of(events.num_rows(), deciding.iter().copied());
        let mut found: Vec<Option<Found<'_>>> = deciding.iter().map(|_| None).collect();
        let mut told = Vec::new();
        for row in (refused.values() & in_time.values()).set_indices() {
            let Some(first) = deciding.iter().position(|broken| broken.rows.value(row)) else { continue };
            let (decides, rule) = (deciding[first], &rules[deciding[first].rule]);
            let all: Vec<&str> =
                broken.iter().filter(|broken| broken.rows.value(row)).map(|broken| &*rules[broken.rule].id).collect();
            let mut cause = Cause {
                rule: &rule.id,
                field: &rule.field,
                expected: &rule.expected,
                severity: rule.severity.name(),
                owner: &rule.owner,
                broken: &all,
                fingerprint: Some(&rule.fingerprint),
                ..Cause::default()
            };
            if let Some(unproven) = decides.unproven.iter().find(|unproven| unproven.row == row) {
                let detail = format!("rule {}: {}: {}", rule.id, unproven.expression, unproven.detail);
                cause.fingerprint = None;
                cause.fault = &detail;
                self.refuse_in_time(judged, row, Reason::NotEvaluable, &detail, &cause, sheets);
                continue;
            }
            let of_rule = match &mut found[first] {
                Some(found) => found,
                none => none.insert(Found::of(rule, events)?),
            };
            told.clear();
            of_rule.write(row, &mut told);
            cause.found = &told;
            self.refuse_in_time(judged, row, Reason::Rule, &rule.id, &cause, sheets);
        }
        Ok(BooleanArray::new(in_time.values() & &!refused.values(), None))
    }

    /// Keeps the events in time that were refused, where there are sequences: they have come, whatever became of them.
    pub(super) fn keep_refused(
        &self,
        events: &RecordBatch,
        in_time: &BooleanArray,
        kept: &BooleanArray,
        sheets: &mut Sheets,
    ) -> Result<(), ArrowError> {
        let refused = in_time.values() & &!kept.values();
        let has_sequences = || self.contract.rules.iter().any(|rule| matches!(rule.basis, Basis::Sequence(_)));
        if refused.count_set_bits() > 0 && has_sequences() {
            sheets.refused_events.push(filter_record_batch(events, &BooleanArray::new(refused, None))?);
        }
        Ok(())
    }

    /// Puts their records behind the events, where operators behind the source may still refuse some.
    pub(super) fn with_records(&self, events: RecordBatch, rows: &[&Message]) -> Result<RecordBatch, ArrowError> {
        let Some(schema) = &self.contract.recorded else { return Ok(events) };
        let mut columns = events.columns().to_vec();
        columns.push(Arc::new(rows.iter().map(|message| message.key()).collect::<BinaryArray>()));
        columns.push(Arc::new(rows.iter().map(|message| message.value()).collect::<BinaryArray>()));
        columns.push(Arc::new(BinaryArray::from_iter_values(rows.iter().map(|message| header_bytes(message)))));
        RecordBatch::try_new(Arc::clone(schema), columns)
    }

    /// Puts the marks behind the events, where the source has rules that may be broken.
    pub(super) fn mark(&self, events: RecordBatch, broken: &[Broken]) -> Result<RecordBatch, ArrowError> {
        let Some(schema) = &self.contract.marked else { return Ok(events) };
        let rows = events.num_rows();
        let rules = &self.contract.rules;
        let mut passing = Vec::new();
        for broken in broken.iter().filter(|broken| rules[broken.rule].mode.passes()) {
            let before = rules[..broken.rule].iter().filter(|rule| rule.mode.passes()).count();
            passing.push((u16::try_from(before).unwrap_or(u16::MAX), &broken.rows));
        }
        let mut numbers = Vec::new();
        let offsets = if passing.is_empty() {
            OffsetBuffer::new_zeroed(rows)
        } else {
            let mut offsets = Vec::with_capacity(rows + 1);
            offsets.push(0);
            for row in 0..rows {
                numbers.extend(passing.iter().filter(|(_, rows)| rows.value(row)).map(|(number, _)| *number));
                offsets.push(i32::try_from(numbers.len()).map_err(|_| ArrowError::OffsetOverflowError(numbers.len()))?);
            }
            OffsetBuffer::new(ScalarBuffer::from(offsets))
        };
        let marks = ListArray::try_new(broken_rule_field(), offsets, Arc::new(UInt16Array::from(numbers)), None)?;
        let mut columns = events.columns().to_vec();
        columns.push(Arc::new(marks));
        RecordBatch::try_new(Arc::clone(schema), columns)
    }
}
