//! Sequences of devices: which of their numbers didn't come, that is, what was lost on the way to the log.
//!
//! An SDK numbers the events of a device one after the other. What came of a device is walked in the order of event
//! time, then of number, and only when no event that isn't too late can come in between any more. So what is missing is
//! a function of the log alone: disorder, the cut of batches, the number of workers and restarts change nothing.
//!
//! - A number is **missing** if the device's events have passed it and no event with it is at most `within` newer than
//!   the first event beyond it. That event is the one *behind the gap*: it is what is told, its release is who lost.
//! - A number that came before is counted once; one that is lower than what is expected, and not `starts_at`, is such a
//!   one.
//! - `starts_at` **begins anew**: nothing is missing between it and the number before it. Where its own event is lost,
//!   the numbers behind it are taken for old ones, until they pass the greatest: then nothing is known of what is
//!   missing among them.
//! - A step of more than [`STEP_MAX`] numbers is another numbering and no gap; it begins anew, too.
//! - The first number of a device says nothing of those before it. A device that nothing was heard of for
//!   [`REMEMBERED_DAYS`] is forgotten, and then is a new one.
//!
//! Events that a rule refused have come, so they stand in the input. Records that didn't decode have no number, and
//! records that are too late aren't waited for: both are missing. What was retried is left out: its gaps were told long
//! ago.
//!
//! [`KeySequence`] stands in front of the exchange, [`Sequence`] behind it. Not here: marking or refusing the event
//! behind a gap, which is written long before anybody knows that there is one.

mod settle;
mod tell;
mod waiting;
mod walk;

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, FixedSizeBinaryBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, UInt16Type, UInt32Type};
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, UInt16Array};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use arrow_select::take::take;
use weir_schemas::stage::system;
use weir_schemas::time::Span;
use xxhash_rust::xxh3::xxh3_128;

pub use settle::{REMEMBERED_DAYS, Sequence};
pub use tell::Tell;
pub use walk::STEP_MAX;

use crate::detect::SenderColumns;
use crate::error::Error;
use crate::expr::{Evaluation, Expr};
use crate::operator::{Context, Operator};
use crate::route::GROUPS;
use crate::rule::held;
use crate::tally::{Tenants, primitive};

/// What a sequence is.
#[derive(Clone, Debug)]
pub struct Sequencing {
    /// The device, as a text.
    pub device: Expr,
    /// The event's number, as an `Int64` that may be null.
    pub number: Expr,
    /// The events that have numbers; absent, all.
    pub when: Option<Expr>,
    /// How much newer than the event behind its gap an event with a missing number may be.
    pub within: Span,
    /// The number with which a device begins anew.
    pub starts_at: Option<i64>,
    /// The columns that hold device and number: each grows or is an id, so that nobody should judge how its values are
    /// spread.
    pub columns: Vec<String>,
    /// Whether nobody may see the numbers.
    pub is_masked: bool,
}

impl Sequencing {
    /// Calls `visit` with the index of every column that it reads.
    pub fn visit_columns(&self, visit: &mut impl FnMut(usize)) {
        [&self.device, &self.number].into_iter().chain(&self.when).for_each(|expr| expr.visit_columns(visit));
    }
}

/// Indices of the columns of [`numbered_schema`].
mod column {
    pub(super) const GROUP: usize = 0;
    pub(super) const DEVICE: usize = 1;
    pub(super) const NUMBER: usize = 2;
    /// The system columns of the event, in their order.
    pub(super) const SYSTEM: usize = 3;
    pub(super) const TENANT: usize = SYSTEM + super::system::COUNT;
    /// SDK, its version, the app's version.
    pub(super) const RELEASE: usize = TENANT + 1;
}

/// What travels over the exchange: the numbers of devices, and what is told of the event behind a gap.
fn numbered_schema() -> SchemaRef {
    let plain = |name: &str, of: DataType| Field::new(name, of, false);
    Arc::new(Schema::new(vec![
        plain("_group", DataType::UInt16),
        plain("_device", DataType::FixedSizeBinary(16)),
        plain("_number", DataType::Int64),
        plain("_topic", DataType::UInt16),
        plain("_partition", DataType::Int32),
        plain("_offset", DataType::Int64),
        plain("_kafka_time_ms", DataType::Int64),
        plain("_schema_id", DataType::UInt32),
        plain("_event_time", DataType::Int64),
        plain("tenant", DataType::Binary),
        plain("sdk", DataType::Binary),
        plain("sdk_version", DataType::Binary),
        plain("app_version", DataType::Binary),
    ]))
}

/// Names the device of each numbered event, in front of the exchange; other events are left out.
pub struct KeySequence {
    sequencing: Sequencing,
    sender: SenderColumns,
    schema: SchemaRef,
}

impl KeySequence {
    /// The index of the column with the key group.
    pub const GROUP: usize = column::GROUP;

    /// `sender` are indices of columns of the batches.
    pub fn new(sequencing: Sequencing, sender: SenderColumns) -> KeySequence {
        KeySequence { sequencing, sender, schema: numbered_schema() }
    }
}

impl Operator for KeySequence {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        let wrong = |what: &str| ArrowError::SchemaError(format!("a sequence's {what}"));
        let mut evaluation = Evaluation::new(&batch);
        let when = held(self.sequencing.when.as_ref(), &mut evaluation, &batch)?;
        let devices = evaluation.array(&self.sequencing.device)?;
        let devices = devices.as_binary_opt::<i32>().ok_or_else(|| wrong("device is no text"))?;
        let numbers = evaluation.array(&self.sequencing.number)?;
        let numbers = numbers.as_primitive_opt::<Int64Type>().ok_or_else(|| wrong("number is no Int64"))?;
        let tenants = Tenants::of(&batch, self.sender.tenant)?;
        let (mut rows, mut groups, mut own) = (Vec::new(), Vec::new(), Vec::new());
        let (mut names, mut scratch) = (FixedSizeBinaryBuilder::new(16), Vec::new());
        for row in 0..batch.num_rows() {
            let is_there = devices.is_valid(row) && !devices.value(row).is_empty() && numbers.is_valid(row);
            // Numbers count up from 0 or more; what is below isn't one.
            if !is_there || numbers.value(row) < 0 || when.as_ref().is_some_and(|when| !when.value(row)) {
                continue;
            }
            scratch.clear();
            for part in [tenants.get(row), devices.value(row)] {
                scratch.extend_from_slice(&(part.len() as u32).to_le_bytes());
                scratch.extend_from_slice(part);
            }
            let name = xxh3_128(&scratch);
            groups.push((name & u128::from(GROUPS - 1)) as u16);
            names.append_value(name.to_be_bytes())?;
            own.push(numbers.value(row));
            rows.push(row as u32);
        }
        let rows = arrow_array::UInt32Array::from(rows);
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(UInt16Array::from(groups)), Arc::new(names.finish()), Arc::new(Int64Array::from(own))];
        for at in 0..system::COUNT {
            columns.push(take(batch.column(at), &rows, None)?);
        }
        let SenderColumns { tenant, sdk, sdk_version, app_version } = self.sender;
        for at in [tenant, sdk, sdk_version, app_version] {
            let texts = Tenants::of(&batch, at)?;
            let mut taken = BinaryBuilder::with_capacity(rows.len(), rows.len() * 8);
            rows.values().iter().for_each(|row| taken.append_value(texts.get(*row as usize)));
            columns.push(Arc::new(taken.finish()));
        }
        cx.emit(RecordBatch::try_new(self.schema.clone(), columns)?);
        Ok(())
    }

    fn end_of_epoch(&mut self, _: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// Numbers of devices as they came over the exchange.
struct Numbered<'a> {
    batch: &'a RecordBatch,
    groups: &'a [u16],
    devices: &'a arrow_array::FixedSizeBinaryArray,
    numbers: &'a [i64],
    topics: &'a [u16],
    partitions: &'a [i32],
    offsets: &'a [i64],
    kafka_times: &'a [i64],
    schemas: &'a [u32],
    times: &'a [i64],
    texts: [&'a arrow_array::BinaryArray; 4],
}

impl<'a> Numbered<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Numbered<'a>, Error> {
        let wrong = || ArrowError::SchemaError("a batch of numbers has no devices".to_owned());
        let at = |index: usize| column::SYSTEM + index;
        let text = |index: usize| crate::tally::binary(batch, index);
        let devices = batch.columns().get(column::DEVICE).and_then(|devices| devices.as_fixed_size_binary_opt());
        Ok(Numbered {
            batch,
            groups: primitive::<UInt16Type>(batch, column::GROUP)?.values(),
            devices: devices.ok_or_else(wrong)?,
            numbers: primitive::<Int64Type>(batch, column::NUMBER)?.values(),
            topics: primitive::<UInt16Type>(batch, at(system::TOPIC))?.values(),
            partitions: primitive::<Int32Type>(batch, at(system::PARTITION))?.values(),
            offsets: primitive::<Int64Type>(batch, at(system::OFFSET))?.values(),
            kafka_times: primitive::<Int64Type>(batch, at(system::KAFKA_TIME_MS))?.values(),
            schemas: primitive::<UInt32Type>(batch, at(system::SCHEMA_ID))?.values(),
            times: primitive::<Int64Type>(batch, at(system::EVENT_TIME))?.values(),
            texts: [
                text(column::TENANT)?,
                text(column::RELEASE)?,
                text(column::RELEASE + 1)?,
                text(column::RELEASE + 2)?,
            ],
        })
    }

    fn rows(&self) -> std::ops::Range<usize> {
        0..self.batch.num_rows()
    }

    fn text(&self, which: usize, row: usize) -> &'a [u8] {
        self.texts.get(which).map_or(&[], |texts| texts.value(row))
    }
}
