//! Profiles accepted events and refused records, in front of the judges' exchange.
//!
//! What an epoch's events of a window, tenant, event type and release looked like becomes one [`Cell`]; a few cells travel
//! instead of events. What of a field is counted stands in the events' codes already. What devices' sequences show comes as
//! cells, too, from [`sequence`](crate::sequence).
//!
//! Output: the columns of [`cell_schema`]. Bound: one cell per window, tenant, event type and release of an epoch. Senders
//! choose those, so with more than [`CELLS_MAX`] the cells leave before the epoch ends: they add up behind the exchange.

mod cell;
mod count;
mod layout;
mod open;
mod sums;

use std::sync::Arc;

use arrow_array::types::{Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type};
use arrow_array::{Array, BinaryArray, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use weir_schemas::stage::{PROFILE_CODES, broken_rules, profile_codes, system};
use weir_schemas::time::Span;

pub use cell::{Cell, CellKey, Numbers, Refusals, Spot, Spots, TEXT_BYTES, Users};
pub(crate) use cell::{read_spot, read_text, read_varint, varint, write_spot, write_text};
pub use layout::{
    BUCKETS, DELAY_FROM_MS, DELAYS, FieldSlots, Indicator, Kind, Layout, SCHEMAS, delay_bucket, magnitude,
};
pub(crate) use open::Open;
pub use sums::Sums;

use crate::error::Error;
use crate::operator::{Context, Operator};
use crate::record::refused;
use crate::state::{Codec, CodecError};
use crate::tally::{binary, primitive, primitive_of};
use count::{Counts, Marks, Places};
use open::Identity;

/// Cells that are counted at once, and as many more as a batch brings.
pub const CELLS_MAX: usize = 16_384;
/// Bytes of counts that are kept at once, and as many more as a batch brings: wide events have fewer cells.
const COUNT_BYTES: usize = 32 << 20;

/// How many events ahead a cell's memory is asked for.
const AHEAD: usize = 4;

/// Indices of the columns of [`cell_schema`].
pub const GROUP: usize = 0;
const WINDOW: usize = 1;
const KEY: usize = 2;
const CELL: usize = 3;

/// Indices of the columns of events that say whose an event is; where there is none it counts as ''.
#[derive(Clone, Copy, Debug, Default)]
pub struct SenderColumns {
    /// The tenant.
    pub tenant: Option<usize>,
    /// The event's type.
    pub event_type: Option<usize>,
    /// SDK, its version, the app's version.
    pub release: [Option<usize>; 3],
    /// The user.
    pub user: Option<usize>,
}

/// The columns of what a profile emits: the tenant's key group, the window's start in microseconds, the encoded [`CellKey`]
/// and the encoded [`Cell`].
pub fn cell_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("_group", DataType::UInt16, false),
        Field::new("window", DataType::Int64, false),
        Field::new("key", DataType::Binary, false),
        Field::new("cell", DataType::Binary, false),
    ]))
}

/// A cell's bytes, to be added to another one.
pub struct EncodedCell<'a>(&'a [u8]);

impl EncodedCell<'_> {
    /// Adds what the bytes hold to `cell`.
    ///
    /// # Errors
    /// When they aren't what a profile wrote.
    pub fn add_to(self, cell: &mut Cell) -> Result<(), Error> {
        let mut bytes = self.0;
        cell.add_encoded(&mut bytes).map_err(foreign)?;
        if bytes.is_empty() { Ok(()) } else { Err(foreign(CodecError("cell with bytes behind it"))) }
    }
}

/// The rows of a batch with the columns of [`cell_schema`], as `each(group, window, key, cell)`.
///
/// # Errors
/// When the bytes aren't what a profile wrote.
pub fn read_cells(
    batch: &RecordBatch,
    mut each: impl FnMut(u16, i64, CellKey, EncodedCell<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let groups = primitive::<UInt16Type>(batch, GROUP)?;
    let windows = primitive::<Int64Type>(batch, WINDOW)?;
    let (keys, cells) = (binary(batch, KEY)?, binary(batch, CELL)?);
    for row in 0..batch.num_rows() {
        let key = CellKey::decode_all(keys.value(row)).map_err(foreign)?;
        each(groups.value(row), windows.value(row), key, EncodedCell(cells.value(row)))?;
    }
    Ok(())
}

fn foreign(error: CodecError) -> Error {
    Error::Arrow(ArrowError::SchemaError(format!("a batch of cells: {error}")))
}

/// The start of the window of `width` that a time falls in.
pub fn window_of(at: i64, width: Span) -> i64 {
    at.saturating_sub(at.rem_euclid(width.0.max(1)))
}

/// Profiles accepted events.
pub struct ProfileEvents {
    layout: Arc<Layout>,
    columns: SenderColumns,
    window: Span,
    cells: Open,
    counts: Counts,
}

pub(crate) fn cut(text: &[u8]) -> &[u8] {
    text.get(..TEXT_BYTES).unwrap_or(text)
}

/// A text column's value in a row; '' where it is null or there is no such column.
fn text(column: Option<&BinaryArray>, row: usize) -> &[u8] {
    column.filter(|texts| texts.is_valid(row)).map_or(&[], |texts| cut(texts.value(row)))
}

impl ProfileEvents {
    /// `layout` says what is counted of which columns; `window` is the judges'.
    pub fn new(layout: Arc<Layout>, columns: SenderColumns, window: Span) -> ProfileEvents {
        let counts = Counts::new(layout.slots());
        ProfileEvents { layout, columns, window, cells: Open::default(), counts }
    }

    /// The cell of each row.
    fn cells_of(&mut self, batch: &RecordBatch) -> Result<Vec<u32>, Error> {
        let column = |at: Option<usize>| at.map(|at| binary(batch, at)).transpose();
        let (tenant, event_type) = (column(self.columns.tenant)?, column(self.columns.event_type)?);
        let [sdk, sdk_version, app_version] = self.columns.release;
        let release = [column(sdk)?, column(sdk_version)?, column(app_version)?];
        let times = primitive::<Int64Type>(batch, system::EVENT_TIME)?.values();
        let windows: Vec<i64> = times.iter().map(|&time| window_of(time, self.window)).collect();
        let mut identities: Vec<Identity> = windows.iter().map(|&window| Identity::of(window)).collect();
        let columns = [tenant, event_type].into_iter().chain(release);
        columns.flatten().for_each(|texts| Identity::and_all(&mut identities, texts));
        // All identities first: then the processor looks for several of them at once, and each waits for memory.
        let found = identities.iter().zip(&windows).enumerate().map(|(row, (&identity, &window))| {
            self.cells.known(identity).unwrap_or_else(|| {
                let release = release.map(|part| text(part, row));
                self.cells.open(identity, window, text(tenant, row), text(event_type, row), release)
            })
        });
        Ok(found.collect())
    }

    /// Sends the cells on their way; none are left.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        cx.emit(self.cells.take(Some(&self.counts))?);
        self.counts.clear();
        Ok(())
    }

    /// Sends them, if there are too many to be kept until the epoch ends.
    fn send_if_many(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let most = (COUNT_BYTES / self.layout.slots().max(1)).min(CELLS_MAX);
        if self.cells.len() >= most { self.send(cx) } else { Ok(()) }
    }

    /// The hashes of the rows' users; empty where there is no such column.
    fn users_of(&self, batch: &RecordBatch) -> Result<Vec<u64>, Error> {
        let Some(users) = self.columns.user.and_then(|at| batch.columns().get(at)) else { return Ok(Vec::new()) };
        let mut hashes = vec![0_u64; batch.num_rows()];
        crate::content::add_column(users, &mut hashes)?;
        Ok(hashes)
    }

    /// Counts each row in its cell.
    fn count(&mut self, batch: &RecordBatch, numbers: &[u32]) -> Result<(), Error> {
        let times = primitive::<Int64Type>(batch, system::EVENT_TIME)?.values();
        let kafka_times = primitive::<Int64Type>(batch, system::KAFKA_TIME_MS)?.values();
        let schemas = primitive::<UInt32Type>(batch, system::SCHEMA_ID)?.values();
        let (places, marks, users) = (places_of(batch)?, marks_of(batch)?, self.users_of(batch)?);
        let codes = profile_codes(batch).ok_or_else(|| {
            ArrowError::SchemaError(format!("a batch of events that are judged has no {PROFILE_CODES}"))
        })?;
        let ProfileEvents { layout, cells, counts, .. } = self;
        let facts = times.iter().zip(kafka_times).zip(schemas);
        for ((row, &number), ((&time, &recorded), &schema)) in numbers.iter().enumerate().zip(facts) {
            if let Some(&ahead) = numbers.get(row + AHEAD) {
                cells.expect(ahead);
                counts.expect(ahead);
            }
            let Some(cell) = cells.get_mut(number) else { continue };
            let mut counts = counts.event(number, |full| cell.counts.merge(&full));
            counts.add(Layout::EVENTS);
            if recorded >= 0 {
                let delay = delay_bucket(recorded.saturating_sub(time.div_euclid(1_000)));
                counts.add(Layout::DELAY + usize::from(delay));
            }
            counts.add(Layout::SCHEMA + (schema % u32::from(SCHEMAS)) as usize);
            counts.add_fields(layout, codes.value(row));
            let place = places.of(row);
            for slot in marks.of(row).iter().map(|&rule| Layout::RULE + usize::from(rule)) {
                counts.add(slot);
                cell.example(slot as u32, place);
            }
            cell.cover(place);
            if let Some(&hash) = users.get(row) {
                cell.users.add(hash);
            }
        }
        Ok(())
    }
}

impl Operator for ProfileEvents {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        let numbers = self.cells_of(&batch)?;
        self.counts.grow(self.cells.len());
        self.count(&batch, &numbers)?;
        self.send_if_many(cx)
    }

    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.send(cx)
    }

    fn holds_watermark_within_epoch(&self) -> bool {
        true
    }
}

/// Counts copies of accepted events, beside the events of their cell.
pub struct ProfileCopies(ProfileEvents);

impl ProfileCopies {
    /// As of [`ProfileEvents::new`].
    pub fn new(layout: Arc<Layout>, columns: SenderColumns, window: Span) -> ProfileCopies {
        ProfileCopies(ProfileEvents::new(layout, columns, window))
    }
}

impl Operator for ProfileCopies {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        let numbers = self.0.cells_of(&batch)?;
        self.0.counts.grow(self.0.cells.len());
        let places = places_of(&batch)?;
        for (row, &number) in numbers.iter().enumerate() {
            let Some(cell) = self.0.cells.get_mut(number) else { continue };
            self.0.counts.event(number, |full| cell.counts.merge(&full)).add(Layout::COPIES);
            cell.cover(places.of(row));
            cell.example(Layout::COPIES as u32, places.of(row));
        }
        self.0.send_if_many(cx)
    }

    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.0.end_of_epoch(cx)
    }

    fn holds_watermark_within_epoch(&self) -> bool {
        true
    }
}

/// The places of a batch's rows.
fn places_of(batch: &RecordBatch) -> Result<Places<'_>, Error> {
    Ok(Places {
        topics: primitive::<UInt16Type>(batch, system::TOPIC)?.values(),
        partitions: primitive::<Int32Type>(batch, system::PARTITION)?.values(),
        offsets: primitive::<Int64Type>(batch, system::OFFSET)?.values(),
    })
}

/// The rules that a batch's events broke.
fn marks_of(batch: &RecordBatch) -> Result<Marks<'_>, Error> {
    let Some(marks) = broken_rules(batch) else { return Ok(Marks::default()) };
    let rules = primitive_of::<UInt16Type>(marks.values())?.values();
    Ok(Marks { rules, ends: marks.value_offsets() })
}

/// Profiles refused records: by tenant and release, and by event type '' since most of them never became an event.
pub struct ProfileRefused {
    window: Span,
    cells: Open,
}

impl ProfileRefused {
    /// `window` is the judges'.
    pub fn new(window: Span) -> ProfileRefused {
        ProfileRefused { window, cells: Open::default() }
    }
}

impl Operator for ProfileRefused {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        let topics = primitive::<UInt16Type>(&batch, refused::TOPIC)?;
        let partitions = primitive::<Int32Type>(&batch, refused::PARTITION)?;
        let offsets = primitive::<Int64Type>(&batch, refused::OFFSET)?;
        let times = primitive::<Int64Type>(&batch, refused::COUNTED_AT)?;
        let reasons = primitive::<UInt8Type>(&batch, refused::REASON)?;
        let details = binary(&batch, refused::DETAIL)?;
        let tenants = binary(&batch, refused::TENANT)?;
        let parts: Vec<&BinaryArray> =
            refused::RELEASE.map(|column| binary(&batch, column)).collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            let release = std::array::from_fn(|part| text(parts.get(part).copied(), row));
            let number =
                self.cells.number(window_of(times.value(row), self.window), text(Some(tenants), row), &[], release);
            let spot = Spot(topics.value(row), partitions.value(row), offsets.value(row));
            if let Some(cell) = self.cells.get_mut(number) {
                cell.refuse(reasons.value(row), details.value(row), 1, spot);
                cell.cover(spot);
            }
        }
        if self.cells.len() >= CELLS_MAX {
            cx.emit(self.cells.take(None)?);
        }
        Ok(())
    }

    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        cx.emit(self.cells.take(None)?);
        Ok(())
    }

    fn holds_watermark_within_epoch(&self) -> bool {
        true
    }
}
