//! Rules that a key is unique: an event breaks one when another event with the same tenant and key is at most a horizon away.
//!
//! An event that keeps the rule is remembered with a hash of its id, until no event in time can be within the horizon of it any
//! more. An event breaks the rule when one that is remembered has its tenant and key, another id, and an event time at most the
//! horizon away. One with the same id is a copy: it breaks nothing, and deduplication behind judges it. What breaks the rule
//! isn't remembered. An event without a key, or that the rule isn't about, isn't judged.
//!
//! So of events that are nearer than the horizon the first to arrive keeps the rule. Which one that is isn't fixed across
//! partitions; how many break it is, where all events of a key are within the horizon.
//!
//! Tenant and key are remembered as a hash of 128 bits, ids as one of 64: an event would be taken for another's copy only if
//! their keys are equal and their ids collide.
//!
//! [`KeyUnique`] stands in front of the exchange. [`Unique`] drops its columns again: output 0 are the events, output 1 how
//! many broke the rule. Those that did are marked, or refused: then output 2 are the refused records, output 3 their tallies
//! and output 4 the same as events, for who counts what has come.

use std::sync::Arc;

use arrow_array::builder::{BooleanBufferBuilder, FixedSizeBinaryBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{UInt16Type, UInt64Type};
use arrow_array::{Array, ArrayRef, BooleanArray, ListArray, RecordBatch, UInt16Array, UInt32Array, UInt64Array};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field};
use arrow_select::filter::filter_record_batch;
use arrow_select::take::take_record_batch;
use weir_schemas::stage::{BROKEN_RULES, RECORD_COLUMNS, broken_rule_field, system};
use weir_schemas::time::{EventTime, Span};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::deduplicate::{Accepted, Ids, Remembered, kept_width, place_bytes};
use crate::derived::Derived;
use crate::error::Error;
use crate::expr::{Evaluation, Expr};
use crate::operator::{Context, Operator};
use crate::refuse::Refusing;
use crate::route::GROUPS;
use crate::rule::held;
use crate::state::StateRegistry;
use crate::tally::{Tenants, primitive};

/// Columns that [`KeyUnique`] adds behind an event's own.
const COLUMNS: usize = 3;
/// Tables of the operator's state; the numbers are part of the keys on disk.
const FILES_TABLE: u16 = 0;
const WIDTH_TABLE: u16 = 1;
const NOTES_TABLE: u16 = 2;
/// Microseconds of the narrowest bucket.
const LEAST_BUCKET: i64 = 5 * 60 * 1_000_000;

/// What is unique.
#[derive(Clone, Debug)]
pub struct Uniqueness {
    /// The parts of the key, as texts.
    pub key: Vec<Expr>,
    /// The events that it is about; absent, all.
    pub when: Option<Expr>,
    /// Within which span of event time.
    pub within: Span,
}

impl Uniqueness {
    /// Calls `visit` with the index of every column that it reads.
    pub fn visit_columns(&self, visit: &mut impl FnMut(usize)) {
        self.key.iter().chain(&self.when).for_each(|expr| expr.visit_columns(visit));
    }
}

/// Names each event by its key, in front of the exchange.
pub struct KeyUnique {
    rule: Uniqueness,
    tenant: Option<usize>,
    id: Option<usize>,
    schema: Derived,
}

impl KeyUnique {
    /// `tenant` and `id` are indices of columns of the batches; where an event has no id it is named by its place.
    pub fn new(rule: Uniqueness, tenant: Option<usize>, id: Option<usize>) -> KeyUnique {
        KeyUnique { rule, tenant, id, schema: Derived::default() }
    }

    /// The index of the column with the key group, in a batch of events with `columns` columns.
    pub fn group_column(columns: usize) -> usize {
        columns
    }
}

impl Operator for KeyUnique {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        let rows = batch.num_rows();
        let mut evaluation = Evaluation::new(&batch);
        let when = held(self.rule.when.as_ref(), &mut evaluation, &batch)?;
        let parts = self.rule.key.iter().map(|part| evaluation.array(part)).collect::<Result<Vec<_>, Error>>()?;
        let wrong = || ArrowError::SchemaError("a key's part is no text".to_owned());
        let parts: Vec<_> =
            parts.iter().map(|part| part.as_binary_opt::<i32>().ok_or_else(wrong)).collect::<Result<_, _>>()?;
        let (tenants, ids) = (Tenants::of(&batch, self.tenant)?, self.id.map(|id| Ids::of(&batch, id)).transpose()?);
        let mut keys = FixedSizeBinaryBuilder::with_capacity(rows, 16);
        let (mut groups, mut named, mut scratch) = (Vec::with_capacity(rows), Vec::with_capacity(rows), Vec::new());
        for row in 0..rows {
            let id = ids.as_ref().and_then(|ids| ids.get(row));
            scratch.clear();
            match id {
                Some(id) => scratch.extend_from_slice(id),
                None => place_bytes(&batch, row, &mut scratch),
            }
            let name = xxh3_64(&scratch);
            named.push(name);
            let is_there = parts.iter().all(|part| part.is_valid(row) && !part.value(row).is_empty());
            if !is_there || when.as_ref().is_some_and(|when| !when.value(row)) {
                keys.append_null();
                groups.push((name & u64::from(GROUPS - 1)) as u16);
                continue;
            }
            scratch.clear();
            for part in std::iter::once(tenants.get(row)).chain(parts.iter().map(|part| part.value(row))) {
                scratch.extend_from_slice(&(part.len() as u32).to_le_bytes());
                scratch.extend_from_slice(part);
            }
            let key = xxh3_128(&scratch);
            groups.push((key & u128::from(GROUPS - 1)) as u16);
            keys.append_value(key.to_le_bytes())?;
        }
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        columns.push(Arc::new(UInt16Array::from(groups)));
        columns.push(Arc::new(keys.finish()));
        columns.push(Arc::new(UInt64Array::from(named)));
        let schema = self.schema.extended(batch.schema(), || {
            [
                Field::new("_group", DataType::UInt16, false),
                Field::new("_key", DataType::FixedSizeBinary(16), true),
                Field::new("_named", DataType::UInt64, false),
            ]
        });
        cx.emit(RecordBatch::try_new(schema, columns)?);
        Ok(())
    }

    fn end_of_epoch(&mut self, _: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// What becomes of an event that breaks the rule.
pub enum Verdict {
    /// It goes on with this number among its marks: the rule's among the passing ones of its source.
    Mark(u16),
    /// It is refused. Events come with their records, and go on without them behind the last operator that refuses.
    Refuse {
        /// How.
        refusing: Box<Refusing>,
        /// Whether no other operator behind this one refuses.
        is_last: bool,
    },
}

/// The operator that finds events whose key isn't unique.
pub struct Unique {
    within: Span,
    allowed_lateness: Span,
    verdict: Verdict,
    remembered: Remembered,
    broken: u64,
    schema: Derived,
}

impl Unique {
    /// Goes on with what `registry` remembers.
    pub fn new(
        within: Span,
        allowed_lateness: Span,
        verdict: Verdict,
        memory_bytes: usize,
        registry: &mut StateRegistry,
    ) -> Result<Unique, Error> {
        let (files, notes) = (registry.table(FILES_TABLE)?, registry.table(NOTES_TABLE)?);
        let width = LEAST_BUCKET.max(within.0.saturating_mul(2));
        let width = kept_width(&mut registry.table(WIDTH_TABLE)?, registry.owned(), width)?;
        let remembered = Remembered::new(files, notes, registry.owned(), width, memory_bytes)?;
        Ok(Unique { within, allowed_lateness, verdict, remembered, broken: 0, schema: Derived::default() })
    }

    /// The rows that break the rule.
    fn judge(&mut self, batch: &RecordBatch, events: usize) -> Result<Vec<u32>, Error> {
        let wrong = || ArrowError::SchemaError("a batch of events has no keys".to_owned());
        let keys = batch.column(events + 1).as_fixed_size_binary_opt().ok_or_else(wrong)?;
        let named = primitive::<UInt64Type>(batch, events + 2)?.values();
        let times = primitive::<arrow_array::types::Int64Type>(batch, system::EVENT_TIME)?.values();
        let key_of = |row: usize| keys.value(row).first_chunk::<16>().map_or(0, |bytes| u128::from_le_bytes(*bytes));
        let judged: Vec<usize> = (0..batch.num_rows()).filter(|row| keys.is_valid(*row)).collect();
        let asked: Vec<(u128, i64)> = judged.iter().map(|row| (key_of(*row), times[*row])).collect();
        let reach = self.within.0.max(0);
        self.remembered.prefetch(&asked, reach)?;
        let mut broken = Vec::new();
        for (row, (identity, at)) in judged.into_iter().zip(asked) {
            let (mut is_copy, mut is_taken) = (false, false);
            self.remembered.visit(identity, at, reach, |known| {
                is_copy |= known.content == named[row];
                is_taken |= known.content != named[row];
            });
            match (is_copy, is_taken) {
                (true, _) => {}
                (false, true) => broken.push(row as u32),
                (false, false) => self.remembered.accept(Accepted { identity, at, content: named[row] }),
            }
        }
        Ok(broken)
    }

    /// Sends what broke the rule on its ways; the events that go on.
    fn refuse(&mut self, events: RecordBatch, broken: &[u32], cx: &mut Context<'_>) -> Result<RecordBatch, Error> {
        let Verdict::Refuse { refusing, is_last } = &mut self.verdict else { return Ok(events) };
        let own: Vec<usize> = (0..events.num_columns().saturating_sub(RECORD_COLUMNS.len())).collect();
        let mut kept = events;
        if !broken.is_empty() {
            let refused = take_record_batch(&kept, &UInt32Array::from(broken.to_vec()))?;
            cx.emit_to(2, refusing.refuse(&refused)?);
            cx.emit_to(4, refused.project(&own)?);
            let mut goes_on = BooleanBufferBuilder::new(kept.num_rows());
            goes_on.append_n(kept.num_rows(), true);
            broken.iter().for_each(|row| goes_on.set_bit(*row as usize, false));
            kept = filter_record_batch(&kept, &BooleanArray::new(goes_on.finish(), None))?;
        }
        Ok(if *is_last { kept.project(&own)? } else { kept })
    }
}

/// The events with the number of a rule among the marks of the rows of `broken`, which rise.
fn mark(events: RecordBatch, number: u16, broken: &[u32]) -> Result<RecordBatch, Error> {
    let wrong = || ArrowError::SchemaError("a batch of events has no marks".to_owned());
    let (schema, mut columns) = (events.schema(), events.columns().to_vec());
    let at = schema.index_of(BROKEN_RULES)?;
    let marks = columns.get(at).and_then(|marks| marks.as_list_opt::<i32>()).ok_or_else(wrong)?;
    let numbers = marks.values().as_primitive_opt::<UInt16Type>().ok_or_else(wrong)?.values();
    let mut all = Vec::with_capacity(numbers.len() + broken.len());
    let mut offsets = Vec::with_capacity(marks.len() + 1);
    offsets.push(0i32);
    let mut broken = broken.iter().peekable();
    for (row, ends) in marks.value_offsets().windows(2).enumerate() {
        let own = numbers.get(ends[0] as usize..ends[1] as usize).unwrap_or_default();
        if broken.next_if(|at| **at as usize == row).is_some() {
            let before = own.iter().filter(|own| **own < number).count();
            all.extend_from_slice(&own[..before]);
            all.push(number);
            all.extend_from_slice(&own[before..]);
        } else {
            all.extend_from_slice(own);
        }
        offsets.push(i32::try_from(all.len()).map_err(|_| ArrowError::OffsetOverflowError(all.len()))?);
    }
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    columns[at] = Arc::new(ListArray::try_new(broken_rule_field(), offsets, Arc::new(UInt16Array::from(all)), None)?);
    Ok(RecordBatch::try_new(schema, columns)?)
}

impl Operator for Unique {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        let wrong = || ArrowError::SchemaError("a batch of events has no keys".to_owned());
        let events = batch.num_columns().checked_sub(COLUMNS).ok_or_else(wrong)?;
        let broken = self.judge(&batch, events)?;
        self.broken += broken.len() as u64;
        let schema = self.schema.first(batch.schema(), events);
        let columns: Vec<ArrayRef> = batch.columns().iter().take(events).cloned().collect();
        let events = RecordBatch::try_new(schema, columns)?;
        let events = match self.verdict {
            Verdict::Mark(_) if broken.is_empty() => events,
            Verdict::Mark(number) => mark(events, number, &broken)?,
            Verdict::Refuse { .. } => self.refuse(events, &broken, cx)?,
        };
        cx.emit(events);
        self.remembered.evict()
    }

    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        if self.broken > 0 {
            let counts: ArrayRef = Arc::new(UInt64Array::from(vec![std::mem::take(&mut self.broken)]));
            cx.emit_to(1, RecordBatch::try_from_iter([("broken", counts)])?);
        }
        if let Verdict::Refuse { refusing, .. } = &mut self.verdict {
            cx.emit_to(3, refusing.take_tallies()?);
        }
        self.remembered.note(cx.epoch())?;
        if cx.log_watermark() != EventTime::MIN {
            // An event that is not too late can be as old as the watermark less the lateness.
            let EventTime(oldest) = cx.log_watermark().minus(self.allowed_lateness).minus(self.within);
            self.remembered.forget(oldest)?;
        }
        Ok(())
    }

    fn outputs(&self) -> usize {
        if matches!(self.verdict, Verdict::Mark(_)) { 2 } else { 5 }
    }
}
