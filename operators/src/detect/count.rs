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
use weir_schemas::fate::Fate;
use weir_schemas::stage::system;
use weir_schemas::time::Span;

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
/// Details that are told apart for each release, window and reason; further ones count together under ''.
const DETAILS: usize = 16;

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

/// By detail: records, their least places and the greatest.
type Details = BTreeMap<Vec<u8>, (u64, Spots, Spot)>;

/// What an epoch counted on one worker: window, sender, reason and detail, to records, their least places and the greatest.
/// As many places are kept as an alert shows, so that these don't depend on what came in which epoch to which worker.
#[derive(Default)]
struct Counts {
    rows: BTreeMap<(i64, Sender, u8), Details>,
}

impl Counts {
    fn add(&mut self, window: i64, sender: Sender, reason: u8, detail: &[u8], records: u64, spot: Spot) {
        let details = self.rows.entry((window, sender, reason)).or_default();
        let detail = cut(detail);
        let detail = if details.len() >= DETAILS && !details.contains_key(detail) { &[][..] } else { detail };
        let (count, least, greatest) = match details.get_mut(detail) {
            Some(known) => known,
            None => details.entry(detail.to_vec()).or_insert((0, Spots::default(), spot)),
        };
        *count += records;
        least.offer(spot);
        *greatest = spot.max(*greatest);
    }

    fn take(&mut self, schema: &SchemaRef) -> Result<RecordBatch, Error> {
        let rows = std::mem::take(&mut self.rows);
        let rows: Vec<_> = rows
            .iter()
            .flat_map(|((window, sender, reason), details)| {
                details.iter().map(move |(detail, (records, least, greatest))| {
                    (*window, sender, *reason, detail, *records, *least, *greatest)
                })
            })
            .collect();
        let text = |of: &dyn Fn(usize) -> Vec<u8>| -> ArrayRef {
            let mut column = BinaryBuilder::new();
            (0..rows.len()).for_each(|row| column.append_value(of(row)));
            Arc::new(column.finish())
        };
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(UInt16Array::from_iter_values(rows.iter().map(|row| key_group(&row.1.key())))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
        ];
        columns.extend((0..4).map(|part| text(&|row| rows[row].1.0[part].clone())));
        columns.push(Arc::new(UInt8Array::from_iter_values(rows.iter().map(|row| row.2))));
        columns.push(text(&|row| rows[row].3.clone()));
        columns.push(Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.4))));
        columns.push(text(&|row| {
            let mut bytes = Vec::new();
            rows[row].5.iter().for_each(|spot| write_spot(spot, &mut bytes));
            bytes
        }));
        columns.push(Arc::new(UInt16Array::from_iter_values(rows.iter().map(|row| row.6.0))));
        columns.push(Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.6.1))));
        columns.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.6.2))));
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
