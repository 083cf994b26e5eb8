//! Counting records for the ledger: by partition, tenant, minute and fate.
//!
//! Counts are gathered over one poll and leave as one small batch, so that a record costs one look into a table of
//! the few tenants and minutes that are current.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, Int32Builder, Int64Builder, UInt8Builder, UInt16Builder, UInt64Builder};
use arrow_array::{ArrayRef, RecordBatch};
use hashbrown::HashTable;
use weir_schemas::place::Partition;
use weir_schemas::stage::{CONSUMED, tally_schema};
use weir_schemas::time::EventTime;
use xxhash_rust::xxh3::xxh3_64;

/// Counts of one poll.
#[derive(Default)]
pub struct TallySheet {
    table: HashTable<usize>,
    entries: Vec<Entry>,
    /// Records that were counted as consumed since that was last asked.
    consumed: u64,
}

struct Entry {
    partition: Partition,
    minute: i64,
    fate: u8,
    tenant: Vec<u8>,
    count: u64,
}

impl TallySheet {
    /// Counts one record of `partition` and `tenant` whose minute is that of `time`.
    pub fn count(&mut self, partition: Partition, tenant: &[u8], time: EventTime, fate: u8) {
        self.consumed += u64::from(fate == CONSUMED);
        let minute = time.0.div_euclid(60_000_000).saturating_mul(60);
        let hash = hash_of(partition, tenant, minute, fate);
        let entries = &mut self.entries;
        let found = self.table.find(hash, |&at| {
            let entry = &entries[at];
            entry.minute == minute && entry.fate == fate && entry.partition == partition && entry.tenant == tenant
        });
        if let Some(&at) = found {
            entries[at].count += 1;
            return;
        }
        let at = entries.len();
        entries.push(Entry { partition, minute, fate, tenant: tenant.to_vec(), count: 1 });
        self.table.insert_unique(hash, at, |&at| {
            let entry = &entries[at];
            hash_of(entry.partition, &entry.tenant, entry.minute, entry.fate)
        });
    }

    /// How many records were counted as consumed since this was last asked.
    pub fn take_consumed(&mut self) -> u64 {
        std::mem::take(&mut self.consumed)
    }

    /// The counts as a batch with the columns of [`tally_schema`]; the sheet is empty afterwards.
    ///
    /// # Errors
    /// Never for counts that fit in memory.
    pub fn take(&mut self) -> Result<Option<RecordBatch>, arrow_schema::ArrowError> {
        if self.entries.is_empty() {
            return Ok(None);
        }
        self.table.clear();
        let rows = self.entries.len();
        let mut topic = UInt16Builder::with_capacity(rows);
        let mut partition = Int32Builder::with_capacity(rows);
        let mut tenant = BinaryBuilder::with_capacity(rows, rows * 16);
        let mut minute = Int64Builder::with_capacity(rows);
        let mut fate = UInt8Builder::with_capacity(rows);
        let mut count = UInt64Builder::with_capacity(rows);
        for entry in self.entries.drain(..) {
            topic.append_value(entry.partition.topic.0);
            partition.append_value(entry.partition.number);
            tenant.append_value(&entry.tenant);
            minute.append_value(entry.minute);
            fate.append_value(entry.fate);
            count.append_value(entry.count);
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(topic.finish()),
            Arc::new(partition.finish()),
            Arc::new(tenant.finish()),
            Arc::new(minute.finish()),
            Arc::new(fate.finish()),
            Arc::new(count.finish()),
        ];
        RecordBatch::try_new(tally_schema(), columns).map(Some)
    }
}

fn hash_of(partition: Partition, tenant: &[u8], minute: i64, fate: u8) -> u64 {
    let place = (i64::from(partition.topic.0) << 40) ^ (i64::from(partition.number) << 8) ^ i64::from(fate);
    // At once: a hasher that takes parts has a state of half a kilobyte to set up, for every record.
    xxh3_64(tenant) ^ place.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64) as u64 ^ (minute as u64).rotate_left(17)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Int64Type, UInt64Type};
    use weir_schemas::place::TopicId;

    #[test]
    fn counts_are_gathered_by_tenant_minute_and_fate_and_negative_times_round_down() {
        let partition = Partition { topic: TopicId(1), number: 3 };
        let mut sheet = TallySheet::default();
        for _ in 0..3 {
            sheet.count(partition, b"acme", EventTime::from_ms(59_999), 0);
        }
        sheet.count(partition, b"acme", EventTime::from_ms(60_000), 0);
        sheet.count(partition, b"acme", EventTime::from_ms(-1), 0);
        sheet.count(partition, b"", EventTime::from_ms(0), 1);
        let batch = sheet.take().unwrap().unwrap();
        assert_eq!(batch.column(3).as_primitive::<Int64Type>().values(), &[0, 60, -60, 0]);
        assert_eq!(batch.column(5).as_primitive::<UInt64Type>().values(), &[3, 1, 1, 1]);
        assert!(sheet.take().unwrap().is_none());
    }
}
