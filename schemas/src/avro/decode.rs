//! Decoding: from the bytes of records to one Arrow batch, in one pass that proves each record well-formed as it reads.
//!
//! Why a decoder of our own rather than `arrow-avro`'s: that one can't take back a record which turns out to be
//! malformed (its columns are then of unequal length, and the batch is lost at `flush`), takes a record that is cut
//! short for one that isn't complete yet, doesn't check ranges, and gives text as `Utf8`; so each record would have to
//! be walked twice, once to prove it and once to decode it, and converted after that. Reading straight into buffers that
//! can be cut back costs one walk.
//!
//! Invariants:
//! - A record is decoded whole or leaves no trace: a fault cuts every buffer back to the rows before it.
//! - Nothing is allocated by what a length or a count says; memory grows by bytes that were there to be read, by at
//!   most [`RECORD_BYTES_MAX`] a record.
//! - What is wanted changes which columns are made, never which records are refused; so do codes for a judge.
//!
//! What is refused, beyond what any reader refuses: a block whose size in bytes isn't what its items took, a
//! variable-length integer that overflows 64 bits, text that isn't UTF-8 even in fields that nobody reads, bytes left
//! over, nesting beyond [`DEPTH_MAX`], values that the column can't hold.
//!
//! Not here: the frame around the datum ([`frame`](crate::frame)), and what becomes of a refused record.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_buffer::i256;
use arrow_schema::{Schema as ArrowSchema, SchemaRef};

use super::buffers::Buffers;
use super::codes::Looks;
use super::compile::{List, Program, Step, StepId, Target, UuidFrom, What, Within, compile};
use super::reader::ReaderSchema;
use super::resolve::Incompatibility;
use super::schema::Schema;
use super::tell::{name, reason, words};
use super::wire::{Cursor, Fault};
use crate::fate::Reason;
use crate::profile::Codes;
#[cfg(doc)]
use crate::stage::PROFILE_CODES;
use crate::stage::profile_codes_field;

/// Records, arrays, maps and unions within each other that one record may hold.
pub const DEPTH_MAX: usize = 64;
/// Items without bytes (nulls, empty records) that the lists of one record may hold together.
pub const EMPTY_ITEMS_MAX: usize = 65_536;
/// Bytes of memory that one record may fill.
pub const RECORD_BYTES_MAX: usize = 64 << 20;
/// Bytes of memory that one batch may fill.
pub const BATCH_BYTES_MAX: usize = 1 << 30;

/// Reads records of one writer schema into the columns of one reader schema.
#[derive(Debug)]
pub struct Decoder {
    reader: Arc<ReaderSchema>,
    program: Program,
    wanted: Box<[bool]>,
    looks: Option<Looks>,
    arrow: SchemaRef,
}

/// What became of a batch of records.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// One row for each record that could be decoded, in order; the wanted columns of the reader schema in its order, and
    /// behind them the codes, where they are read.
    pub batch: RecordBatch,
    /// For each row, the index of its record among those given.
    pub records: Vec<u32>,
    /// The other records.
    pub refused: Vec<RefusedRecord>,
}

/// A record that can't be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRecord {
    /// Its index among those given.
    pub record: u32,
    /// The reason.
    pub reason: Reason,
    /// Where and what, in words; no value of text is ever in it.
    pub detail: String,
    /// The path of the field, dotted; empty where the fault is in none.
    pub field: Box<str>,
    /// The kind of the fault: a name that stays the same, without numbers.
    pub fault: &'static str,
}

/// The records together would fill more than [`BATCH_BYTES_MAX`]; nothing was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the first {fits} records fill a batch; decode that many at once, then the others")]
pub struct BatchTooLarge {
    /// How many of the records fit, at least one.
    pub fits: usize,
}

impl Decoder {
    /// A decoder for `writer`'s records. `wanted` has one entry for each of the reader's columns; columns beyond its
    /// end aren't wanted.
    ///
    /// # Errors
    /// What keeps every record of this writer from being read.
    pub fn new(writer: &Schema, reader: Arc<ReaderSchema>, wanted: &[bool]) -> Result<Decoder, Vec<Incompatibility>> {
        Decoder::with_codes(writer, reader, wanted, None)
    }

    /// The same, which also reads what `codes` wants of each column, be it wanted otherwise or not:
    /// [`PROFILE_CODES`] is the last column then.
    ///
    /// # Errors
    /// As of [`Decoder::new`].
    pub fn with_codes(
        writer: &Schema,
        reader: Arc<ReaderSchema>,
        wanted: &[bool],
        codes: Option<&Codes>,
    ) -> Result<Decoder, Vec<Incompatibility>> {
        let looks = codes.map(|codes| Looks::new(codes, &reader));
        let program = compile(writer, &reader, wanted, looks.as_ref())?;
        let wanted: Box<[bool]> =
            (0..reader.columns.len()).map(|index| wanted.get(index).copied().unwrap_or(false)).collect();
        let fields = reader
            .columns
            .iter()
            .zip(&wanted)
            .filter(|(_, wanted)| **wanted)
            .map(|(column, _)| column.column_type.field(&column.name))
            .chain(codes.map(profile_codes_field))
            .collect::<Vec<_>>();
        Ok(Decoder { reader, program, wanted, looks, arrow: Arc::new(ArrowSchema::new(fields)) })
    }

    /// The Arrow schema of the batches: the wanted columns, in the reader schema's order.
    pub fn arrow_schema(&self) -> &SchemaRef {
        &self.arrow
    }

    /// Decodes records in as many batches as they need; `take` gets each, with which of the records it is of.
    ///
    /// # Errors
    /// What `take` says.
    pub fn decode_all<R: AsRef<[u8]>, E>(
        &self,
        records: &[R],
        mut take: impl FnMut(Range<usize>, Decoded) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut from = 0;
        while from < records.len() {
            let mut upto = records.len();
            let decoded = loop {
                match self.decode(&records[from..upto]) {
                    Ok(decoded) => break decoded,
                    Err(too_large) => upto = from + too_large.fits.clamp(1, upto - from),
                }
            };
            take(from..upto, decoded)?;
            from = upto;
        }
        Ok(())
    }

    /// Decodes records, each the bytes of one datum and nothing else.
    ///
    /// # Errors
    /// When the records together would fill more than [`BATCH_BYTES_MAX`]; those that fit are counted.
    pub fn decode<R: AsRef<[u8]>>(&self, records: &[R]) -> Result<Decoded, BatchTooLarge> {
        let mut run = Run {
            steps: &self.program.steps,
            buffers: Buffers::new(&self.reader, &self.wanted, self.looks.as_ref(), records.len()),
            cursor: Cursor::new(&[]),
            depth: 0,
            empty_items: 0,
            filled: 0,
            at: self.program.root,
        };
        let mut rows = Vec::with_capacity(records.len());
        let mut refused = Vec::new();
        let mut filled = 0usize;
        for (index, record) in records.iter().enumerate() {
            match run.record(record.as_ref(), self.program.root) {
                Ok(()) => {
                    filled += run.filled;
                    if filled > BATCH_BYTES_MAX {
                        return Err(BatchTooLarge { fits: index.max(1) });
                    }
                    rows.push(index as u32);
                }
                Err(fault) => {
                    for (layout, _) in self.reader.layouts.iter().zip(&self.wanted).filter(|(_, wanted)| **wanted) {
                        run.buffers.cut(layout, rows.len());
                    }
                    run.buffers.cut_codes(rows.len());
                    refused.push(self.tell(index as u32, fault, run.at, run.cursor.at));
                }
            }
        }
        Ok(Decoded { batch: self.batch(run.buffers, rows.len()), records: rows, refused })
    }

    fn batch(&self, mut buffers: Buffers, rows: usize) -> RecordBatch {
        let wanted = (0..self.reader.columns.len()).filter(|index| self.wanted[*index]);
        let mut arrays = wanted.map(|index| buffers.array(&self.reader, index)).collect::<Result<Vec<_>, _>>();
        if self.looks.is_some() {
            arrays = arrays.and_then(|mut arrays| {
                arrays.push(buffers.codes()?);
                Ok(arrays)
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch =
            arrays.and_then(|arrays| RecordBatch::try_new_with_options(Arc::clone(&self.arrow), arrays, &options));
        match batch {
            Ok(batch) => batch,
            // The buffers were made from the same reader schema as the Arrow schema.
            Err(error) => unreachable!("the decoder's buffers don't fit its own schema: {error}"),
        }
    }

    /// The reason of a fault and what to tell about it.
    fn tell(&self, record: u32, fault: Fault, at: StepId, byte: usize) -> RefusedRecord {
        let step = at.0 as usize;
        let told = match (fault, &self.program.steps[step]) {
            (Fault::Unresolved, Step::Refuse(why)) => why.to_string(),
            _ => words(fault),
        };
        let path = &self.program.paths[step];
        let detail = if path.is_empty() {
            format!("{told}, at byte {byte}")
        } else {
            format!("field `{path}`: {told}, at byte {byte}")
        };
        RefusedRecord { record, reason: reason(fault), detail, field: path.clone(), fault: name(fault) }
    }
}

struct Run<'a> {
    steps: &'a [Step],
    buffers: Buffers,
    cursor: Cursor<'a>,
    depth: usize,
    empty_items: usize,
    /// Bytes of memory that the record at hand fills.
    filled: usize,
    /// The innermost step that was begun last: where a fault is.
    at: StepId,
}

impl<'a> Run<'a> {
    fn record(&mut self, bytes: &'a [u8], root: StepId) -> Result<(), Fault> {
        self.cursor = Cursor::new(bytes);
        self.depth = 0;
        self.empty_items = 0;
        self.filled = 0;
        self.buffers.begin();
        self.step(root)?;
        match self.cursor.left() {
            0 => Ok(()),
            left => {
                self.at = root;
                Err(Fault::Trailing(left))
            }
        }
    }

    fn step(&mut self, id: StepId) -> Result<(), Fault> {
        self.at = id;
        let steps = self.steps;
        match &steps[id.0 as usize] {
            Step::Nothing => {}
            Step::Bool(to) => {
                let value = self.cursor.boolean()?;
                self.buffers.boolean(*to, value);
            }
            Step::Int { to, within } => {
                let value = self.cursor.int()?;
                check(*within, i64::from(value))?;
                self.buffers.i32(*to, value);
            }
            Step::Long { to, narrow, factor, within } => {
                let read = self.integer(*narrow)?;
                let value = read.checked_mul(*factor).ok_or(Fault::TimeRange(read))?;
                check(*within, value)?;
                self.buffers.i64(*to, value);
            }
            Step::IntToFloat { to, narrow, wide } => {
                let value = self.integer(*narrow)?;
                self.float(*to, *wide, value as f32, value as f64);
            }
            Step::Float { to, wide } => {
                let value = f32::from_le_bytes(self.cursor.array()?);
                self.float(*to, *wide, value, f64::from(value));
            }
            Step::Double(to) => {
                let value = f64::from_le_bytes(self.cursor.array()?);
                self.buffers.f64(*to, value);
            }
            Step::Bytes { to, utf8 } => {
                let value = if *utf8 { self.cursor.text()? } else { self.cursor.prefixed()? };
                self.bytes(*to, value)?;
            }
            Step::Fixed { to, size } => {
                let value = self.cursor.take(*size)?;
                self.bytes(*to, value)?;
            }
            Step::Enum { to, symbols } => {
                let index = self.cursor.index(symbols.len(), Fault::NoSuchSymbol)?;
                let symbol = symbols[index].as_deref().ok_or(Fault::Unresolved)?;
                self.bytes(*to, symbol)?;
            }
            Step::Decimal { to, size, bound } => self.decimal(*to, *size, *bound)?,
            Step::Uuid { to, from } => self.uuid(*to, *from)?,
            Step::Null(targets) => targets.iter().for_each(|to| self.buffers.null(*to)),
            Step::Constant { bytes, of } => self.constant(bytes, *of)?,
            Step::Refuse(_) => return Err(Fault::Unresolved),
            nested => return self.nested(nested),
        }
        Ok(())
    }

    fn nested(&mut self, step: &'a Step) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Fault::TooDeep);
        }
        match step {
            Step::Record(fields) => {
                for field in fields {
                    self.step(*field)?;
                }
            }
            Step::Union(branches) => {
                let index = self.cursor.index(branches.len(), Fault::NoSuchBranch)?;
                self.step(branches[index])?;
            }
            Step::Array(list) => self.list(list, None)?,
            Step::Map { keys, list } => self.list(list, Some(*keys))?,
            _ => {}
        }
        self.depth -= 1;
        Ok(())
    }

    /// The blocks of an array, or of a map when there are keys.
    fn list(&mut self, list: &List, keys: Option<Target>) -> Result<(), Fault> {
        let whole = self.at;
        let mut items = 0usize;
        loop {
            self.at = whole;
            let (count, end) = self.cursor.block(list.item_bytes_min)?;
            if count == 0 && end.is_none() {
                break;
            }
            if list.item_bytes_min == 0 {
                self.empty_items = self.empty_items.saturating_add(count);
                if self.empty_items > EMPTY_ITEMS_MAX {
                    return Err(Fault::TooManyEmptyItems);
                }
            }
            self.fill(count.saturating_mul(list.item_width))?;
            items += count;
            for _ in 0..count {
                if let Some(to) = keys {
                    self.at = whole;
                    let key = self.cursor.text()?;
                    self.bytes(to, key)?;
                }
                self.step(list.item)?;
            }
            if let Some((end, size)) = end
                && end != self.cursor.at
            {
                self.at = whole;
                return Err(Fault::BlockSize(size));
            }
        }
        for to in &list.offsets {
            self.buffers.list(*to, items);
        }
        Ok(())
    }

    #[inline]
    fn integer(&mut self, narrow: bool) -> Result<i64, Fault> {
        if narrow { self.cursor.int().map(i64::from) } else { self.cursor.long() }
    }

    #[inline]
    fn float(&mut self, to: Target, wide: bool, single: f32, double: f64) {
        if wide { self.buffers.f64(to, double) } else { self.buffers.f32(to, single) }
    }

    /// Reads a default's bytes in the place of the record's.
    fn constant(&mut self, bytes: &'a [u8], of: StepId) -> Result<(), Fault> {
        let record = std::mem::replace(&mut self.cursor, Cursor::new(bytes));
        let read = self.step(of);
        self.cursor = record;
        read
    }

    /// Counts memory before it is filled.
    #[inline]
    fn fill(&mut self, bytes: usize) -> Result<(), Fault> {
        self.filled = self.filled.saturating_add(bytes);
        if self.filled > RECORD_BYTES_MAX { Err(Fault::TooLarge) } else { Ok(()) }
    }

    #[inline]
    fn bytes(&mut self, to: Target, value: &[u8]) -> Result<(), Fault> {
        self.fill(value.len())?;
        self.buffers.bytes(to, value);
        Ok(())
    }

    fn decimal(&mut self, to: Target, size: Option<usize>, bound: i256) -> Result<(), Fault> {
        let bytes = match size {
            Some(size) => self.cursor.take(size)?,
            None => self.cursor.prefixed()?,
        };
        let sign = if bytes.first().ok_or(Fault::EmptyDecimal)? & 0x80 == 0 { 0 } else { 0xff };
        let (extra, low) = bytes.split_at(bytes.len().saturating_sub(32));
        let mut wide = [sign; 32];
        wide[32 - low.len()..].copy_from_slice(low);
        let value = i256::from_be_bytes(wide);
        let same_sign = value.is_negative() == (sign == 0xff);
        if !same_sign || extra.iter().any(|byte| *byte != sign) || value >= bound || value <= bound.wrapping_neg() {
            return Err(Fault::DecimalRange);
        }
        self.buffers.decimal(to, value);
        Ok(())
    }

    fn uuid(&mut self, to: Target, from: UuidFrom) -> Result<(), Fault> {
        let value = match from {
            UuidFrom::Fixed => self.cursor.array::<16>()?,
            UuidFrom::Text => parse_uuid(self.cursor.text()?).ok_or(Fault::NotUuid)?,
            UuidFrom::Bytes => match self.cursor.prefixed()? {
                text if text.len() == 36 => parse_uuid(text).ok_or(Fault::NotUuid)?,
                raw => raw.try_into().map_err(|_| Fault::UuidLength(raw.len()))?,
            },
        };
        self.bytes(to, &value)
    }
}

#[inline]
fn check(within: Option<Within>, value: i64) -> Result<(), Fault> {
    match within {
        Some(within) if value < within.least || value > within.greatest => Err(match within.what {
            What::Date => Fault::DateRange(value),
            What::Time => Fault::TimeRange(value),
            What::TimeOfDay => Fault::TimeOfDay(value),
        }),
        _ => Ok(()),
    }
}

/// The 16 bytes of `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` in network order.
fn parse_uuid(text: &[u8]) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.try_into().ok()?;
    let mut value = [0u8; 16];
    let mut digits = 0usize;
    for (index, &character) in text.iter().enumerate() {
        if matches!(index, 8 | 13 | 18 | 23) {
            if character != b'-' {
                return None;
            }
            continue;
        }
        let digit = char::from(character).to_digit(16)? as u8;
        value[digits / 2] = (value[digits / 2] << 4) | digit;
        digits += 1;
    }
    Some(value)
}
