//! Accepts each event once: later copies of it, on whatever partition, are counted and go no further.
//!
//! A copy is an event with the tenant and the id of one that was accepted before, and
//! - with the same event time: always, because an accepted event is remembered until the watermark has passed its time
//!   by the allowed lateness, and a copy that comes after that is too late by itself;
//! - with another event time, when the two times differ by at most the horizon. For that, events are remembered as
//!   much longer.
//!
//! So whether an event is a copy depends on the log alone, not on when it was read or how much memory there is. Two
//! copies that differ in any other field are a duplicate, too, counted apart; across partitions it isn't fixed which of
//! them comes first and is accepted.
//!
//! Tenant and id are remembered as a hash of 128 bits: among 10^12 remembered ids the odds that any two of them have the
//! same one are 1 to 7 * 10^14, and only then would an event be taken for another's copy.
//!
//! [`Identify`] stands in front of the exchange. [`Deduplicate`] drops its columns again: output 0 are the accepted
//! events, output 1 the tallies of an epoch; where somebody asks for them, output 2 are the copies.

mod identify;
mod remembered;
mod shelf;

use std::ops::Range;

use arrow_arith::boolean::not;
use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{BooleanArray, RecordBatch};
use arrow_schema::ArrowError;
use arrow_select::filter::filter_record_batch;
use weir_schemas::fate::Fate;
use weir_schemas::time::{EventTime, Span};

pub use identify::{IDENTITY_COLUMNS, Identify};
pub(crate) use identify::{Ids, place_bytes};
pub(crate) use remembered::Remembered;
pub(crate) use shelf::Accepted;

use crate::derived::Derived;
use crate::error::Error;
use crate::operator::{Context, Operator};
use crate::state::{ByteTable, StateRegistry};
use crate::tally::{EventAccounts, Tallies};

/// Tables of the operator's state; the numbers are part of the keys on disk.
const FILES_TABLE: u16 = 0;
const WIDTH_TABLE: u16 = 1;
const NOTES_TABLE: u16 = 2;
/// Microseconds of the narrowest bucket.
const LEAST_BUCKET: i64 = 5 * 60 * 1_000_000;

/// What deduplication goes by.
#[derive(Clone, Copy, Debug)]
pub struct Deduplication {
    /// Index of the tenant's column.
    pub tenant: Option<usize>,
    /// The source's allowed lateness.
    pub allowed_lateness: Span,
    /// Up to which difference events of one id with differing times are copies of each other.
    pub horizon: Span,
    /// How much longer ids are remembered for retried events, which are never too late by being retried.
    pub retained: Span,
    /// Bytes that remembered ids may take in memory on one worker, roughly.
    pub memory_bytes: usize,
}

/// The operator that lets each event through once.
pub struct Deduplicate {
    settings: Deduplication,
    remembered: Remembered,
    tallies: Tallies,
    /// Of events without the columns that [`Identify`] added.
    schema: Derived,
    tells_copies: bool,
}

impl Deduplicate {
    /// Goes on with what `registry` remembers.
    pub fn new(settings: Deduplication, registry: &mut StateRegistry) -> Result<Deduplicate, Error> {
        let (files, notes) = (registry.table(FILES_TABLE)?, registry.table(NOTES_TABLE)?);
        let width = LEAST_BUCKET.max(settings.horizon.0.saturating_mul(2));
        let width = kept_width(&mut registry.table(WIDTH_TABLE)?, registry.owned(), width)?;
        let remembered = Remembered::new(files, notes, registry.owned(), width, settings.memory_bytes)?;
        Ok(Deduplicate {
            settings,
            remembered,
            tallies: Tallies::default(),
            schema: Derived::default(),
            tells_copies: false,
        })
    }

    /// Lets the copies out, too, on an edge of their own.
    #[must_use]
    pub fn telling_copies(self) -> Deduplicate {
        Deduplicate { tells_copies: true, ..self }
    }

    /// How many ids are in memory.
    pub fn ids_in_memory(&self) -> usize {
        self.remembered.in_memory()
    }

    /// Judges the rows of a batch: whether each is accepted.
    fn judge(&mut self, batch: &RecordBatch, events: usize) -> Result<BooleanArray, Error> {
        let wrong = || ArrowError::SchemaError("a batch of events was not identified".to_owned());
        let identities = batch.column(events + 1).as_fixed_size_binary_opt().ok_or_else(wrong)?;
        let contents = batch.column(events + 2).as_primitive_opt::<UInt64Type>().ok_or_else(wrong)?.values();
        let accounts = EventAccounts::of(batch, self.settings.tenant)?;
        let identity_of =
            |row: usize| identities.value(row).first_chunk::<16>().map_or(0, |bytes| u128::from_le_bytes(*bytes));
        let asked: Vec<(u128, i64)> =
            accounts.times().iter().enumerate().map(|(row, at)| (identity_of(row), *at)).collect();
        let reach = self.settings.horizon.0.max(0);
        self.remembered.prefetch(&asked, reach)?;
        let mut accepted = Vec::with_capacity(asked.len());
        for (row, ((identity, at), content)) in asked.into_iter().zip(contents).enumerate() {
            let fate = match self.remembered.find(identity, at, reach) {
                None => {
                    let new = Accepted { identity, at, content: *content };
                    self.remembered.accept(new);
                    Fate::Accepted
                }
                Some(known) if known.content == *content => Fate::Duplicate,
                Some(_) => Fate::DuplicateDiffering,
            };
            self.tallies.add(accounts.account(row), fate as u8, 1);
            accepted.push(fate == Fate::Accepted);
        }
        Ok(BooleanArray::from(accepted))
    }
}

/// The width of the buckets, once and for all: their starts are part of the keys on disk.
pub(crate) fn kept_width(table: &mut ByteTable, owned: Range<u16>, wanted: i64) -> Result<i64, Error> {
    for group in owned.clone() {
        if let Some(stored) = table.get(group, &[])?
            && let Some(bytes) = stored.whole().and_then(<[u8]>::first_chunk::<8>)
        {
            return Ok(i64::from_le_bytes(*bytes).max(1));
        }
    }
    for group in owned {
        table.put(group, &[], &wanted.to_le_bytes())?;
    }
    Ok(wanted)
}

impl Operator for Deduplicate {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        let events = batch
            .num_columns()
            .checked_sub(IDENTITY_COLUMNS)
            .ok_or_else(|| ArrowError::SchemaError("a batch of events was not identified".to_owned()))?;
        let accepted = self.judge(&batch, events)?;
        let schema = self.schema.first(batch.schema(), events);
        let columns = batch.columns().iter().take(events).cloned().collect();
        let batch = RecordBatch::try_new(schema, columns)?;
        let all = accepted.true_count() == batch.num_rows();
        if self.tells_copies && !all {
            cx.emit_to(2, filter_record_batch(&batch, &not(&accepted)?)?);
        }
        cx.emit(if all { batch } else { filter_record_batch(&batch, &accepted)? });
        self.remembered.evict()
    }

    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        cx.emit_to(1, self.tallies.take()?);
        self.remembered.note(cx.epoch())?;
        if cx.log_watermark() != EventTime::MIN {
            // An event that is not too late can be as old as the watermark less the lateness, and its copy's time
            // differs from it by the horizon at most.
            let Deduplication { allowed_lateness, horizon, retained, .. } = self.settings;
            let EventTime(oldest) = cx.log_watermark().minus(allowed_lateness).minus(horizon).minus(retained);
            self.remembered.forget(oldest)?;
        }
        Ok(())
    }

    fn outputs(&self) -> usize {
        if self.tells_copies { 3 } else { 2 }
    }
}
