//! Names each event by hashes, in front of the exchange that brings the copies of an event together.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, FixedSizeBinaryArray, RecordBatch, UInt16Array, UInt64Array};
use arrow_buffer::Buffer;
use arrow_schema::{ArrowError, DataType, Field};
use weir_schemas::stage::{BROKEN_RULES, system};
use xxhash_rust::xxh3::xxh3_128;

use crate::content;
use crate::derived::Derived;
use crate::error::Error;
use crate::operator::{Context, Operator};
use crate::route::GROUPS;
use crate::tally::Tenants;

/// How many columns [`Identify`] adds behind an event's own.
pub const IDENTITY_COLUMNS: usize = 3;

/// Adds three columns behind an event's own: `_group` (`UInt16`, the key group), `_identity` (16 bytes, the hash of tenant
/// and event id) and `_content` (`UInt64`, the hash of what the event says). An event without an id is named by its
/// place: it is nobody's copy.
pub struct Identify {
    tenant: Option<usize>,
    id: usize,
    schema: Derived,
    scratch: Vec<u8>,
}

impl Identify {
    /// `tenant` and `id` are indices of columns of the batches; the id is bytes or of a fixed width.
    pub fn new(tenant: Option<usize>, id: usize) -> Identify {
        Identify { tenant, id, schema: Derived::default(), scratch: Vec::new() }
    }

    /// The index of the column with the key group, in a batch of events with `columns` columns.
    pub fn group_column(columns: usize) -> usize {
        columns
    }

    /// The hash of tenant and id, or of the place where there is no id, for each row.
    fn identities(&mut self, batch: &RecordBatch) -> Result<Vec<u128>, Error> {
        let tenants = Tenants::of(batch, self.tenant)?;
        let ids = Ids::of(batch, self.id)?;
        let mut identities = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let tenant = tenants.get(row);
            self.scratch.clear();
            self.scratch.extend_from_slice(&(tenant.len() as u32).to_le_bytes());
            self.scratch.extend_from_slice(tenant);
            match ids.get(row) {
                Some(id) => self.scratch.extend_from_slice(id),
                None => {
                    // Longer than any tenant: no (tenant, id) has these bytes.
                    self.scratch.clear();
                    self.scratch.extend_from_slice(&u32::MAX.to_le_bytes());
                    place_bytes(batch, row, &mut self.scratch);
                }
            }
            identities.push(xxh3_128(&self.scratch));
        }
        Ok(identities)
    }
}

impl Operator for Identify {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        let identities = self.identities(&batch)?;
        let mut contents = vec![0; batch.num_rows()];
        let names = batch.schema_ref().fields().iter().map(|field| field.name());
        for (column, name) in batch.columns().iter().zip(names).skip(system::COUNT) {
            // Rules also judge what a copy doesn't share, such as its record's timestamp.
            if name != BROKEN_RULES {
                content::add_column(column, &mut contents)?;
            }
        }
        let groups = identities.iter().map(|identity| (identity & u128::from(GROUPS - 1)) as u16);
        let groups = UInt16Array::from_iter_values(groups);
        let mut bytes = Vec::with_capacity(identities.len() * size_of::<u128>());
        identities.iter().for_each(|identity| bytes.extend_from_slice(&identity.to_le_bytes()));
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        columns.push(Arc::new(groups));
        columns.push(Arc::new(FixedSizeBinaryArray::try_new(16, Buffer::from(bytes), None)?));
        columns.push(Arc::new(UInt64Array::from(contents)));
        let schema = self.schema.extended(batch.schema(), || {
            [
                Field::new("_group", DataType::UInt16, false),
                Field::new("_identity", DataType::FixedSizeBinary(16), false),
                Field::new("_content", DataType::UInt64, false),
            ]
        });
        cx.emit(RecordBatch::try_new(schema, columns)?);
        Ok(())
    }

    fn end_of_epoch(&mut self, _: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// Appends the bytes of a row's place.
pub(crate) fn place_bytes(batch: &RecordBatch, row: usize, out: &mut Vec<u8>) {
    for column in [system::TOPIC, system::PARTITION, system::OFFSET] {
        let column = batch.column(column).slice(row, 1).to_data();
        let width = column.data_type().primitive_width().unwrap_or_default();
        let bytes = column.buffers().first().map_or(&[][..], |bytes| bytes.as_slice());
        let at = column.offset() * width;
        out.extend_from_slice(bytes.get(at..at + width).unwrap_or_default());
    }
}

/// The bytes of event ids.
pub(crate) enum Ids {
    Bytes(arrow_array::BinaryArray),
    Fixed { values: Buffer, width: usize, array: ArrayRef },
}

impl Ids {
    pub(crate) fn of(batch: &RecordBatch, column: usize) -> Result<Ids, Error> {
        let wrong = |detail: String| Error::Arrow(ArrowError::SchemaError(format!("the event id {detail}")));
        let array =
            batch.columns().get(column).ok_or_else(|| wrong(format!("is column {column}, which is not there")))?;
        if let Some(bytes) = array.as_binary_opt::<i32>() {
            return Ok(Ids::Bytes(bytes.clone()));
        }
        let width = match array.data_type() {
            DataType::FixedSizeBinary(width) => usize::try_from(*width).ok(),
            other => other.primitive_width(),
        };
        let width = width.ok_or_else(|| wrong(format!("cannot be of type {}", array.data_type())))?;
        let data = array.to_data();
        let values = data.buffers().first().map(|values| values.slice(data.offset() * width)).unwrap_or_default();
        Ok(Ids::Fixed { values, width, array: array.clone() })
    }

    pub(crate) fn get(&self, row: usize) -> Option<&[u8]> {
        match self {
            Ids::Bytes(ids) => ids.is_valid(row).then(|| ids.value(row)),
            Ids::Fixed { values, width, array } => {
                array.is_valid(row).then(|| values.get(row * width..(row + 1) * width)).flatten()
            }
        }
    }
}
