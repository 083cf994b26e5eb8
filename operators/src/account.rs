//! The ledger: what became of every record, as running totals per source, partition, tenant and minute.
//!
//! Invariant: `consumed` is the sum of all fates of each key. Since every fate of an epoch arrives within the epoch, it
//! holds at the end of each; where it does not, the key is counted as an imbalance and its row is written as it is, so
//! that the difference can be seen. `consumed` is counted where records are fetched and each fate where it happens,
//! independent of each other: so the sum can fail.
//!
//! Totals are kept for ever, about a hundred bytes a key: a record of any minute can still come (one that is too late
//! counts under its own minute), and its row must not begin again at nothing.
//!
//! Not here: records that were shed or erased; Weir does neither yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::builder::BinaryBuilder;
use arrow_array::{ArrayRef, BinaryArray, Int32Array, RecordBatch, TimestampSecondArray, UInt64Array};
use arrow_schema::SchemaRef;
use weir_schemas::fate::Fate;
use weir_schemas::rows::{Changes, Table, TableKind};
use weir_schemas::stage::{CONSUMED, Column};
use weir_schemas::types::{ColumnType, Width, Zone};

use crate::error::Error;
use crate::operator::{Context, Operator};
use crate::record::schema_of;
use crate::route::key_group;
use crate::state::{Codec, CodecError, KeyedTable, StateRegistry};
use crate::tally::{Account, TallyColumns};

/// The ledger's name.
pub const LEDGER: &str = "weir_ledger";

/// Table of the operator's state; the number is part of the keys on disk.
const TOTALS_TABLE: u16 = 0;
/// How many counts a row has: consumed, then each fate.
const COUNTS: usize = 1 + Fate::ALL.len();

/// The ledger's table: one row per source, topic, partition, tenant and minute.
pub fn ledger_table() -> Table {
    let column = |name: &str, column_type: ColumnType, comment: &str| Column {
        name: name.to_owned(),
        column_type,
        comment: comment.to_owned(),
    };
    let mut columns = vec![
        column("source", ColumnType::LowCardinality, "the source's name"),
        column("topic", ColumnType::LowCardinality, "the topic"),
        column("partition", ColumnType::Int(Width::W32), "the partition"),
        column("tenant", ColumnType::LowCardinality, "the tenant, empty where unknown"),
        column(
            "minute",
            ColumnType::DateTime(Some(Zone::from("UTC"))),
            "the event's minute, or the Kafka timestamp's where there is no event",
        ),
        column("consumed", ColumnType::UInt(Width::W64), "records fetched: the sum of the columns that follow"),
    ];
    columns.extend(Fate::ALL.map(|fate| column(fate.name(), ColumnType::UInt(Width::W64), "records with this fate")));
    Table {
        name: Arc::from(LEDGER),
        comment: "What became of every record, in running totals".to_owned(),
        columns,
        key_columns: 5,
        partition_by: Some(4),
        kind: TableKind::Keyed,
        retention_days: None,
    }
}

/// The name of a topic and of the source that reads it.
#[derive(Clone, Debug)]
pub struct TopicNames {
    /// The source.
    pub source: Arc<str>,
    /// The topic.
    pub topic: Arc<str>,
}

/// The operator that keeps the ledger; its input is what [`GatherTallies`](crate::tally::GatherTallies) emits, by group.
pub struct KeepLedger {
    topics: Vec<TopicNames>,
    schema: SchemaRef,
    totals: KeyedTable<Key, Counts>,
    /// What the open epoch adds.
    added: BTreeMap<Key, Counts>,
    imbalances: Arc<AtomicU64>,
}

/// Topic, partition, tenant and minute.
type Key = (u16, i32, Vec<u8>, i64);

/// Consumed records, then the records of each fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts([u64; COUNTS]);

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.0.iter_mut().zip(other.0).for_each(|(count, other)| *count = count.saturating_add(other));
    }

    fn balances(&self) -> bool {
        let [consumed, fates @ ..] = &self.0;
        *consumed == fates.iter().sum::<u64>()
    }
}

impl Codec for Counts {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.iter().for_each(|count| count.encode(out));
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        let mut counts = Counts::default();
        for count in &mut counts.0 {
            *count = u64::decode(bytes)?;
        }
        Ok(counts)
    }
}

impl KeepLedger {
    /// Keeps the ledger of the topics whose numbers are the indices of `topics`. Keys that do not balance at an epoch's end
    /// are counted in `imbalances`; `memory_bytes` bounds the totals that are in memory.
    pub fn new(
        topics: Vec<TopicNames>,
        imbalances: Arc<AtomicU64>,
        memory_bytes: usize,
        registry: &mut StateRegistry,
    ) -> Result<KeepLedger, Error> {
        Ok(KeepLedger {
            topics,
            schema: schema_of(&ledger_table()),
            totals: registry.keyed(TOTALS_TABLE, memory_bytes)?,
            added: BTreeMap::new(),
            imbalances,
        })
    }

    /// Adds the epoch's counts to the totals; the new totals come back in the order of the keys.
    fn add_up(&mut self) -> Result<Vec<(Key, Counts)>, Error> {
        let added: Vec<(u16, Key, Counts)> =
            std::mem::take(&mut self.added).into_iter().map(|(key, counts)| (group_of(&key), key, counts)).collect();
        let mut totals = Vec::with_capacity(added.len());
        for (group, key, counts) in added {
            let mut total = self.totals.get_or_insert_with(group, &key, Counts::default)?;
            total.add(&counts);
            let now = *total;
            drop(total);
            // The epoch's own counts: what did not balance once is not reported for ever.
            if !counts.balances() {
                self.imbalances.fetch_add(1, Ordering::Relaxed);
                let (topic, partition, _, minute) = &key;
                tracing::error!(topic, partition, minute, counts = ?counts.0, "ledger does not balance");
            }
            totals.push((key, now));
        }
        Ok(totals)
    }

    fn rows(&self, totals: &[(Key, Counts)]) -> Result<RecordBatch, Error> {
        let (mut sources, mut topics) = (BinaryBuilder::new(), BinaryBuilder::new());
        for ((topic, ..), _) in totals {
            let names = self.topics.get(usize::from(*topic)).ok_or_else(|| Error::Custom {
                operator: LEDGER.to_owned(),
                detail: format!("a tally of topic number {topic}, but the pipeline has {}", self.topics.len()),
            })?;
            sources.append_value(names.source.as_bytes());
            topics.append_value(names.topic.as_bytes());
        }
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(sources.finish()),
            Arc::new(topics.finish()),
            Arc::new(Int32Array::from_iter_values(totals.iter().map(|((_, partition, ..), _)| *partition))),
            Arc::new(BinaryArray::from_iter_values(totals.iter().map(|((_, _, tenant, _), _)| tenant))),
            Arc::new(TimestampSecondArray::from_iter_values(totals.iter().map(|((.., minute), _)| *minute))),
        ];
        for at in 0..COUNTS {
            let counts = totals.iter().map(|(_, counts)| counts.0[at]);
            columns.push(Arc::new(UInt64Array::from_iter_values(counts)));
        }
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

fn group_of((topic, partition, tenant, minute): &Key) -> u16 {
    let mut bytes = Vec::new();
    Account { topic: *topic, partition: *partition, tenant, minute: *minute }.write_key(&mut bytes);
    key_group(&bytes)
}

impl Operator for KeepLedger {
    fn on_batch(&mut self, batch: RecordBatch, _: &mut Context<'_>) -> Result<(), Error> {
        // The first column is the key group.
        let columns = TallyColumns::of(&batch, 1)?;
        for row in 0..batch.num_rows() {
            let (account, fate) = (columns.account(row), columns.fate.value(row));
            let at = if fate == CONSUMED { 0 } else { 1 + usize::from(fate) };
            let key = (account.topic, account.partition, account.tenant.to_vec(), account.minute);
            let counts = self.added.entry(key).or_default();
            let count = counts.0.get_mut(at).ok_or_else(|| Error::Custom {
                operator: LEDGER.to_owned(),
                detail: format!("a tally of fate number {fate}, which does not exist"),
            })?;
            *count = count.saturating_add(columns.count.value(row));
        }
        Ok(())
    }

    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        if self.added.is_empty() {
            return Ok(());
        }
        let totals = self.add_up()?;
        cx.write(Changes { table: Arc::from(LEDGER), rows: self.rows(&totals)?, deleted: None });
        Ok(())
    }
}
