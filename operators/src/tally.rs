//! Counts for the ledger: how many records of a partition, a tenant and a minute had which fate.
//!
//! [`Tallies`] gathers them, [`GatherTallies`] is the operator in front of the ledger's exchange: it adds up what a worker
//! counted in an epoch, so that a few rows travel instead of a few per batch.
//!
//! Bound: one entry per partition, tenant, minute and fate of an epoch.

use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, UInt8Type, UInt16Type, UInt64Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, Int32Array, Int64Array, PrimitiveArray, RecordBatch, UInt8Array, UInt16Array,
    UInt64Array,
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use hashbrown::HashTable;
use weir_schemas::fate::Fate;
use weir_schemas::stage::{system, tally_schema};
use xxhash_rust::xxh3::xxh3_64;

use crate::content::mix;
use crate::error::Error;
use crate::operator::{Context, Operator};
use crate::route::key_group;

/// Microseconds of a minute.
const MINUTE: i64 = 60_000_000;
/// The last minute that the ledger's table can hold, in seconds since 1970; the first is 0.
const LAST_MINUTE: i64 = u32::MAX as i64 / 60 * 60;

/// What one count belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account<'a> {
    /// The topic's number in the pipeline.
    pub topic: u16,
    /// The partition.
    pub partition: i32,
    /// The tenant, '' where unknown.
    pub tenant: &'a [u8],
    /// Seconds since 1970, a multiple of 60.
    pub minute: i64,
}

impl Account<'_> {
    /// Bytes that name the account: equal for equal accounts only.
    pub(crate) fn write_key(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.topic.to_be_bytes());
        out.extend_from_slice(&self.partition.to_be_bytes());
        out.extend_from_slice(&self.minute.to_be_bytes());
        out.extend_from_slice(self.tenant);
    }
}

/// The minute of a time in microseconds, in seconds since 1970.
pub fn minute_of(time: i64) -> i64 {
    time.div_euclid(MINUTE) * 60
}

/// Counts that are being gathered.
#[derive(Default)]
pub struct Tallies {
    table: HashTable<u32>,
    rows: Vec<Row>,
    /// The row that was counted last: most records follow one of their kind.
    last: usize,
}

struct Row {
    topic: u16,
    partition: i32,
    minute: i64,
    fate: u8,
    tenant: Box<[u8]>,
    count: u64,
    hash: u64,
}

impl Row {
    fn is(&self, account: &Account<'_>, fate: u8) -> bool {
        self.minute == account.minute
            && self.partition == account.partition
            && self.fate == fate
            && self.topic == account.topic
            && *self.tenant == *account.tenant
    }
}

impl Tallies {
    /// Adds `count` records; `fate` is a fate's number, or [`CONSUMED`](weir_schemas::stage::CONSUMED).
    ///
    /// Minutes that the ledger's table can't hold count as its first or last one: two accounts with the same row there
    /// would take each other's place.
    pub fn add(&mut self, account: Account<'_>, fate: u8, count: u64) {
        let account = Account { minute: account.minute.clamp(0, LAST_MINUTE), ..account };
        let Tallies { table, rows, last } = self;
        if let Some(row) = rows.get_mut(*last)
            && row.is(&account, fate)
        {
            row.count += count;
            return;
        }
        let place = u64::from(account.topic) << 48 | u64::from(account.partition as u32) << 8 | u64::from(fate);
        let hash = mix(mix(xxh3_64(account.tenant), account.minute as u64), place);
        let found = table.find(hash, |at| rows.get(*at as usize).is_some_and(|row| row.is(&account, fate))).copied();
        let at = match found {
            Some(at) => at as usize,
            None => {
                let Account { topic, partition, tenant, minute } = account;
                rows.push(Row { topic, partition, minute, fate, tenant: tenant.into(), count: 0, hash });
                let at = rows.len() - 1;
                table.insert_unique(hash, at as u32, |at| rows.get(*at as usize).map_or(0, |row| row.hash));
                at
            }
        };
        *last = at;
        if let Some(row) = rows.get_mut(at) {
            row.count += count;
        }
    }

    /// Adds every row of a batch with the columns of [`tally_schema`].
    pub fn add_batch(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let columns = TallyColumns::of(batch, 0)?;
        for row in 0..batch.num_rows() {
            self.add(columns.account(row), columns.fate.value(row), columns.count.value(row));
        }
        Ok(())
    }

    /// The counts so far as a batch with the columns of [`tally_schema`], in the order of their first record; the next
    /// ones begin at nothing.
    pub fn take(&mut self) -> Result<RecordBatch, Error> {
        let batch = RecordBatch::try_new(tally_schema(), self.columns())?;
        self.clear();
        Ok(batch)
    }

    fn columns(&self) -> Vec<ArrayRef> {
        let mut tenants = BinaryBuilder::with_capacity(self.rows.len(), 0);
        self.rows.iter().for_each(|row| tenants.append_value(&row.tenant));
        vec![
            Arc::new(UInt16Array::from_iter_values(self.rows.iter().map(|row| row.topic))),
            Arc::new(Int32Array::from_iter_values(self.rows.iter().map(|row| row.partition))),
            Arc::new(tenants.finish()),
            Arc::new(Int64Array::from_iter_values(self.rows.iter().map(|row| row.minute))),
            Arc::new(UInt8Array::from_iter_values(self.rows.iter().map(|row| row.fate))),
            Arc::new(UInt64Array::from_iter_values(self.rows.iter().map(|row| row.count))),
        ]
    }

    fn clear(&mut self) {
        self.table.clear();
        self.rows.clear();
        self.last = 0;
    }
}

/// The columns of a batch of tallies.
pub(crate) struct TallyColumns<'a> {
    topic: &'a UInt16Array,
    partition: &'a Int32Array,
    tenant: &'a BinaryArray,
    minute: &'a Int64Array,
    pub(crate) fate: &'a UInt8Array,
    pub(crate) count: &'a UInt64Array,
}

impl<'a> TallyColumns<'a> {
    /// The columns of [`tally_schema`], from column `first` on.
    pub(crate) fn of(batch: &'a RecordBatch, first: usize) -> Result<TallyColumns<'a>, Error> {
        Ok(TallyColumns {
            topic: primitive::<UInt16Type>(batch, first)?,
            partition: primitive::<Int32Type>(batch, first + 1)?,
            tenant: binary(batch, first + 2)?,
            minute: primitive::<Int64Type>(batch, first + 3)?,
            fate: primitive::<UInt8Type>(batch, first + 4)?,
            count: primitive::<UInt64Type>(batch, first + 5)?,
        })
    }

    pub(crate) fn account(&self, row: usize) -> Account<'a> {
        Account {
            topic: self.topic.value(row),
            partition: self.partition.value(row),
            tenant: self.tenant.value(row),
            minute: self.minute.value(row),
        }
    }
}

/// Column `at` of a batch, of the type that its stage promises.
pub(crate) fn primitive<T: arrow_array::ArrowPrimitiveType>(
    batch: &RecordBatch,
    at: usize,
) -> Result<&PrimitiveArray<T>, Error> {
    let column = batch.columns().get(at).and_then(|column| column.as_primitive_opt::<T>());
    column.ok_or_else(|| mistyped(at, &T::DATA_TYPE))
}

/// Column `at` of a batch, which its stage promises to be bytes.
pub(crate) fn binary(batch: &RecordBatch, at: usize) -> Result<&BinaryArray, Error> {
    let column = batch.columns().get(at).and_then(|column| column.as_binary_opt::<i32>());
    column.ok_or_else(|| mistyped(at, &DataType::Binary))
}

/// An array that belongs to a column, of the type that its stage promises.
pub(crate) fn primitive_of<T: arrow_array::ArrowPrimitiveType>(array: &ArrayRef) -> Result<&PrimitiveArray<T>, Error> {
    array.as_primitive_opt::<T>().ok_or_else(|| {
        Error::Arrow(ArrowError::SchemaError(format!("the items of a list are not of type {}", T::DATA_TYPE)))
    })
}

fn mistyped(at: usize, expected: &DataType) -> Error {
    Error::Arrow(ArrowError::SchemaError(format!("column {at} of a batch is not of type {expected}")))
}

/// Where an event's tenant stands: nothing, or a column of bytes.
pub(crate) struct Tenants<'a>(Option<&'a BinaryArray>);

impl<'a> Tenants<'a> {
    pub(crate) fn of(batch: &'a RecordBatch, column: Option<usize>) -> Result<Tenants<'a>, Error> {
        Ok(Tenants(column.map(|column| binary(batch, column)).transpose()?))
    }

    /// The tenant of a row; '' where there is none.
    pub(crate) fn get(&self, row: usize) -> &'a [u8] {
        self.0.filter(|tenants| tenants.is_valid(row)).map_or(&[], |tenants| tenants.value(row))
    }
}

/// The place columns of a batch of events that the ledger counts by.
pub(crate) struct EventAccounts<'a> {
    topics: &'a [u16],
    partitions: &'a [i32],
    times: &'a [i64],
    tenants: Tenants<'a>,
}

impl<'a> EventAccounts<'a> {
    pub(crate) fn of(batch: &'a RecordBatch, tenant: Option<usize>) -> Result<EventAccounts<'a>, Error> {
        Ok(EventAccounts {
            topics: primitive::<UInt16Type>(batch, system::TOPIC)?.values(),
            partitions: primitive::<Int32Type>(batch, system::PARTITION)?.values(),
            times: primitive::<Int64Type>(batch, system::EVENT_TIME)?.values(),
            tenants: Tenants::of(batch, tenant)?,
        })
    }

    pub(crate) fn times(&self) -> &'a [i64] {
        self.times
    }

    pub(crate) fn account(&self, row: usize) -> Account<'a> {
        Account {
            topic: self.topics[row],
            partition: self.partitions[row],
            tenant: self.tenants.get(row),
            minute: minute_of(self.times[row]),
        }
    }
}

/// Counts accepted events of a source that deduplicates nothing; they pass through.
///
/// Output 0 are the events, output 1 the tallies of an epoch.
pub struct TallyAccepted {
    tenant: Option<usize>,
    tallies: Tallies,
}

impl TallyAccepted {
    /// `tenant` is the index of the tenant's column in the batches.
    pub fn new(tenant: Option<usize>) -> TallyAccepted {
        TallyAccepted { tenant, tallies: Tallies::default() }
    }
}

impl Operator for TallyAccepted {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        let accounts = EventAccounts::of(&batch, self.tenant)?;
        for row in 0..batch.num_rows() {
            self.tallies.add(accounts.account(row), Fate::Accepted as u8, 1);
        }
        cx.emit(batch);
        Ok(())
    }

    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        cx.emit_to(1, self.tallies.take()?);
        Ok(())
    }

    fn outputs(&self) -> usize {
        2
    }
}

/// Adds up a worker's tallies of an epoch, in front of the ledger's exchange: the columns of [`tally_schema`] behind
/// `_group`, the key group of the account.
pub struct GatherTallies {
    tallies: Tallies,
    schema: SchemaRef,
}

impl Default for GatherTallies {
    fn default() -> GatherTallies {
        let mut fields = vec![Field::new("_group", DataType::UInt16, false)];
        fields.extend(tally_schema().fields().iter().map(|field| field.as_ref().clone()));
        GatherTallies { tallies: Tallies::default(), schema: Arc::new(Schema::new(fields)) }
    }
}

impl Operator for GatherTallies {
    fn on_batch(&mut self, batch: RecordBatch, _: &mut Context<'_>) -> Result<(), Error> {
        self.tallies.add_batch(&batch)
    }

    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let mut key = Vec::new();
        let groups = self.tallies.rows.iter().map(|row| {
            let Row { topic, partition, minute, tenant, .. } = row;
            Account { topic: *topic, partition: *partition, tenant, minute: *minute }.write_key(&mut key);
            key_group(&key)
        });
        let mut columns: Vec<ArrayRef> = vec![Arc::new(UInt16Array::from_iter_values(groups))];
        columns.extend(self.tallies.columns());
        self.tallies.clear();
        cx.emit(RecordBatch::try_new(self.schema.clone(), columns)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_beyond_the_tables_calendar_are_its_first_and_last() {
        let mut tallies = Tallies::default();
        for minute in [-6_000, -60, 0, 60, LAST_MINUTE, LAST_MINUTE + 60, i64::MAX / 60 * 60] {
            tallies.add(Account { topic: 0, partition: 0, tenant: b"acme", minute }, 0, 1);
        }
        let batch = tallies.take().expect("a batch");
        let column = |at: usize| batch.column(at);
        assert_eq!(column(3).as_primitive::<Int64Type>().values(), &[0, 60, LAST_MINUTE]);
        assert_eq!(column(5).as_primitive::<UInt64Type>().values(), &[3, 1, 3]);
    }
}
