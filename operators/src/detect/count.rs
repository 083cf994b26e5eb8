//! Counts records by release, in front of the detector's exchange: accepted events on one edge, refused records on
//! another. A few rows per worker and epoch travel instead of records.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::types::{Int32Type, Int64Type, UInt8Type, UInt16Type, UInt64Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, UInt8Array, UInt16Array, UInt64Array,
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use weir_schemas::fate::{Fate, Reason};
use weir_schemas::stage::system;
use weir_schemas::time::Span;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::Error;
use crate::operator::{Context, Operator};
use crate::profile::{Spot, Spots, read_spot, write_spot};
use crate::record::{reason_of, refused};
use crate::route::key_group;
use crate::tally::{binary, primitive};

/// The number in a count's column `reason` that means "accepted".
pub(super) const ACCEPTED: u8 = 255;
/// Bytes of each text that a release, a tenant or a detail is told by; longer ones are cut.
const TEXT_BYTES: usize = 128;

/// Who sent a record: tenant, SDK, its version, the app's version.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Sender(pub(super) [Vec<u8>; 4]);

impl Sender {
    /// Bytes that name the sender: equal for equal senders only.
    pub(super) fn key(&self) -> Vec<u8> {
        let mut key = Vec::new();
        for part in &self.0 {
            key.extend_from_slice(&(part.len() as u32).to_le_bytes());
            key.extend_from_slice(part);
        }
        key
    }

    /// The sender that a key names; parts that are cut short are empty.
    pub(super) fn of_key(mut key: &[u8]) -> Sender {
        let mut sender = Sender::default();
        for part in &mut sender.0 {
            let Some((length, rest)) = key.split_first_chunk::<4>() else { break };
            let Some((text, rest)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize) else { break };
            *part = text.to_vec();
            key = rest;
        }
        sender
    }
}

/// One row of counts.
pub(super) struct Count {
    pub(super) window: i64,
    pub(super) sender: Sender,
    pub(super) reason: u8,
    pub(super) detail: Vec<u8>,
    pub(super) records: u64,
    /// The least places among them.
    pub(super) examples: Spots,
    /// The greatest place among them.
    pub(super) last: Spot,
}

/// Why records are refused: a reason, and which details count together as one. Senders write what stands in a detail, so
/// there is no end of them; which count together must not depend on which came first, or one log would make differing
/// alerts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cause {
    pub(super) reason: u8,
    alike: Alike,
}

/// Which details count together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alike {
    /// Those that name this rule: there are as many as the pipeline file has.
    Rule(Vec<u8>),
    /// Those with this byte of their hash.
    Hash(u8),
}

impl Cause {
    pub(super) fn of(reason: u8, detail: &[u8]) -> Cause {
        let is_rule = reason == Reason::Rule as u8;
        let alike = if is_rule { Alike::Rule(detail.to_vec()) } else { Alike::Hash(xxh3_64(detail) as u8) };
        Cause { reason, alike }
    }
}

/// Of records with one cause: the least detail, how many there are, their least places and the greatest.
struct Refused {
    detail: Vec<u8>,
    records: u64,
    least: Spots,
    greatest: Spot,
}

/// What an epoch counted on one worker, by window, sender and cause. As many places are kept as an alert shows, so that
/// these don't depend on what came in which epoch to which worker.
#[derive(Default)]
struct Counts {
    rows: BTreeMap<(i64, Sender, Cause), Refused>,
}

impl Counts {
    fn add(&mut self, window: i64, sender: Sender, reason: u8, detail: &[u8], records: u64, spot: Spot) {
        let detail = cut(detail);
        let counted = self.rows.entry((window, sender, Cause::of(reason, detail))).or_insert_with(|| Refused {
            detail: detail.to_vec(),
            records: 0,
            least: Spots::default(),
            greatest: spot,
        });
        if detail < &counted.detail[..] {
            counted.detail = detail.to_vec();
        }
        counted.records += records;
        counted.least.offer(spot);
        counted.greatest = spot.max(counted.greatest);
    }

    fn take(&mut self, schema: &SchemaRef) -> Result<RecordBatch, Error> {
        let rows: Vec<_> = std::mem::take(&mut self.rows).into_iter().collect();
        let texts = |of: &dyn Fn(usize) -> Vec<u8>| -> ArrayRef {
            let mut column = BinaryBuilder::new();
            (0..rows.len()).for_each(|row| column.append_value(of(row)));
            Arc::new(column.finish())
        };
        let places = |row: usize| {
            let mut bytes = Vec::new();
            rows[row].1.least.iter().for_each(|spot| write_spot(spot, &mut bytes));
            bytes
        };
        let (keys, counted) = (|| rows.iter().map(|(key, _)| key), || rows.iter().map(|(_, counted)| counted));
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(UInt16Array::from_iter_values(keys().map(|(_, sender, _)| key_group(&sender.key())))),
            Arc::new(Int64Array::from_iter_values(keys().map(|(window, ..)| *window))),
        ];
        columns.extend((0..4).map(|part| texts(&|row| rows[row].0.1.0[part].clone())));
        columns.push(Arc::new(UInt8Array::from_iter_values(keys().map(|(.., cause)| cause.reason))));
        columns.push(texts(&|row| rows[row].1.detail.clone()));
        columns.push(Arc::new(UInt64Array::from_iter_values(counted().map(|counted| counted.records))));
        columns.push(texts(&places));
        columns.push(Arc::new(UInt16Array::from_iter_values(counted().map(|counted| counted.greatest.0))));
        columns.push(Arc::new(Int32Array::from_iter_values(counted().map(|counted| counted.greatest.1))));
        columns.push(Arc::new(Int64Array::from_iter_values(counted().map(|counted| counted.greatest.2))));
        Ok(RecordBatch::try_new(schema.clone(), columns)?)
    }
}

fn cut(text: &[u8]) -> &[u8] {
    text.get(..TEXT_BYTES).unwrap_or(text)
}

fn count_schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Binary, false);
    Arc::new(Schema::new(vec![
        Field::new("_group", DataType::UInt16, false),
        Field::new("window", DataType::Int64, false),
        text("tenant"),
        text("sdk"),
        text("sdk_version"),
        text("app_version"),
        Field::new("reason", DataType::UInt8, false),
        text("detail"),
        Field::new("records", DataType::UInt64, false),
        text("examples"),
        Field::new("last_topic", DataType::UInt16, false),
        Field::new("last_partition", DataType::Int32, false),
        Field::new("last_offset", DataType::Int64, false),
    ]))
}

/// The rows of a batch that one of the counting operators emitted.
pub(super) fn read_counts(batch: &RecordBatch) -> Result<Vec<Count>, Error> {
    let windows = primitive::<Int64Type>(batch, 1)?;
    let parts: Vec<&BinaryArray> = (2..6).map(|at| binary(batch, at)).collect::<Result<_, _>>()?;
    let reasons = primitive::<UInt8Type>(batch, 6)?;
    let details = binary(batch, 7)?;
    let records = primitive::<UInt64Type>(batch, 8)?;
    let examples = binary(batch, 9)?;
    let (topics, partitions) = (primitive::<UInt16Type>(batch, 10)?, primitive::<Int32Type>(batch, 11)?);
    let offsets = primitive::<Int64Type>(batch, 12)?;
    let count = |row: usize| -> Result<Count, Error> {
        Ok(Count {
            window: windows.value(row),
            sender: Sender(std::array::from_fn(|part| parts[part].value(row).to_vec())),
            reason: reasons.value(row),
            detail: details.value(row).to_vec(),
            records: records.value(row),
            examples: read_spots(examples.value(row))?,
            last: Spot(topics.value(row), partitions.value(row), offsets.value(row)),
        })
    };
    (0..batch.num_rows()).map(count).collect()
}

fn read_spots(mut bytes: &[u8]) -> Result<Spots, Error> {
    let mut spots = Spots::default();
    while !bytes.is_empty() {
        let spot = read_spot(&mut bytes);
        spots.offer(spot.map_err(|error| ArrowError::SchemaError(format!("a batch of counts: {error}")))?);
    }
    Ok(spots)
}

fn window_of(at: i64, width: Span) -> i64 {
    at.saturating_sub(at.rem_euclid(width.0.max(1)))
}

/// Indices of the columns that name an event's sender; where there is none it counts as ''.
#[derive(Clone, Copy, Debug, Default)]
pub struct SenderColumns {
    /// The tenant.
    pub tenant: Option<usize>,
    /// The SDK.
    pub sdk: Option<usize>,
    /// The SDK's version.
    pub sdk_version: Option<usize>,
    /// The app's version.
    pub app_version: Option<usize>,
}

/// Counts accepted events by release and window.
pub struct CountAccepted {
    columns: SenderColumns,
    window: Span,
    counts: Counts,
    schema: SchemaRef,
}

impl CountAccepted {
    /// `window` is the detector's.
    pub fn new(columns: SenderColumns, window: Span) -> CountAccepted {
        CountAccepted { columns, window, counts: Counts::default(), schema: count_schema() }
    }
}

impl Operator for CountAccepted {
    fn on_batch(&mut self, batch: RecordBatch, _: &mut Context<'_>) -> Result<(), Error> {
        let SenderColumns { tenant, sdk, sdk_version, app_version } = self.columns;
        let mut parts = Vec::with_capacity(4);
        for column in [tenant, sdk, sdk_version, app_version] {
            parts.push(column.map(|column| binary(&batch, column)).transpose()?);
        }
        let part = |part: usize, row: usize| -> &[u8] {
            parts[part].filter(|texts| texts.is_valid(row)).map_or(&[], |texts| cut(texts.value(row)))
        };
        let times = primitive::<Int64Type>(&batch, system::EVENT_TIME)?.values();
        let place = |row: usize| -> Result<Spot, Error> {
            Ok(Spot(
                primitive::<UInt16Type>(&batch, system::TOPIC)?.value(row),
                primitive::<Int32Type>(&batch, system::PARTITION)?.value(row),
                primitive::<Int64Type>(&batch, system::OFFSET)?.value(row),
            ))
        };
        // Neighbours mostly have one sender and window: only the first of a run is looked up.
        let mut first = 0;
        for row in 1..=batch.num_rows() {
            let goes_on = row < batch.num_rows()
                && window_of(times[row], self.window) == window_of(times[first], self.window)
                && (0..4).all(|at| part(at, row) == part(at, first));
            if !goes_on {
                let sender = Sender(std::array::from_fn(|at| part(at, first).to_vec()));
                let window = window_of(times[first], self.window);
                self.counts.add(window, sender, ACCEPTED, &[], (row - first) as u64, place(first)?);
                first = row;
            }
        }
        Ok(())
    }

    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        cx.emit(self.counts.take(&self.schema)?);
        Ok(())
    }

    fn holds_watermark_within_epoch(&self) -> bool {
        true
    }
}

/// Counts quarantined records by release, window and reason; one that came too late is not counted, since nothing is
/// wrong with its bytes.
pub struct CountRefused {
    window: Span,
    counts: Counts,
    schema: SchemaRef,
}

impl CountRefused {
    /// `window` is the detector's.
    pub fn new(window: Span) -> CountRefused {
        CountRefused { window, counts: Counts::default(), schema: count_schema() }
    }
}

impl Operator for CountRefused {
    fn on_batch(&mut self, batch: RecordBatch, _: &mut Context<'_>) -> Result<(), Error> {
        let reasons = primitive::<UInt8Type>(&batch, refused::REASON)?;
        let times = primitive::<Int64Type>(&batch, refused::COUNTED_AT)?;
        let details = binary(&batch, refused::DETAIL)?;
        let parts: Vec<&BinaryArray> = std::iter::once(refused::TENANT)
            .chain(refused::RELEASE)
            .map(|column| binary(&batch, column))
            .collect::<Result<_, _>>()?;
        let topics = primitive::<UInt16Type>(&batch, refused::TOPIC)?;
        let partitions = primitive::<Int32Type>(&batch, refused::PARTITION)?;
        let offsets = primitive::<Int64Type>(&batch, refused::OFFSET)?;
        for row in 0..batch.num_rows() {
            let reason = reason_of(reasons.value(row))?;
            if reason.fate() != Fate::Quarantined {
                continue;
            }
            let sender = Sender(std::array::from_fn(|part| cut(parts[part].value(row)).to_vec()));
            let spot = Spot(topics.value(row), partitions.value(row), offsets.value(row));
            self.counts.add(
                window_of(times.value(row), self.window),
                sender,
                reason as u8,
                details.value(row),
                1,
                spot,
            );
        }
        Ok(())
    }

    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        cx.emit(self.counts.take(&self.schema)?);
        Ok(())
    }

    fn holds_watermark_within_epoch(&self) -> bool {
        true
    }
}
