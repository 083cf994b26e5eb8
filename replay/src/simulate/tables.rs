//! The invented ClickHouse: tables in memory that keep what a `ReplacingMergeTree` keeps.
//!
//! Of rows with one key the one with the greatest version is kept, and a tombstone hides it; so a delivery that is
//! repeated after a kill changes nothing here either. Keys come from the encoder of the real table, so what it refuses is
//! refused here. Values are kept as [`cells`](super::cells), an aggregate state by its finalised value.
//!
//! Not here: partitions, retention, and any SQL.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use serde_json::Value;
use weir_operators::aggregate::{Call, accumulator};
use weir_pipeline::bind::Bound;
use weir_pipeline::deliver::LaneKind;
use weir_pipeline::engine::Destination;
use weir_schemas::rows::{Changes, Table, TableKind};
use weir_schemas::stage::Column;
use weir_schemas::tables;
use weir_schemas::time::Version;
use weir_sinks::clickhouse::{Layout, TableEncoder};
use weir_sinks::{BoxFuture, Deliver, Delivery, DeliveryError, Encode, Error, OutRow};

use super::cells;

/// Tables by name. Clones share them.
#[derive(Clone, Default)]
pub struct Tables(Arc<Mutex<BTreeMap<String, Stored>>>);

/// One table's rows.
#[derive(Clone)]
pub struct Stored {
    /// Its columns; those of aggregate states with the types of their values.
    pub columns: Vec<Column>,
    /// How many of them are the key.
    pub key_columns: usize,
    rows: BTreeMap<Vec<u8>, (u64, Option<Vec<Value>>)>,
}

impl Stored {
    /// The newest rows that aren't deleted, in the order of their columns.
    pub fn rows(&self) -> Vec<Vec<Value>> {
        let mut rows: Vec<Vec<Value>> = self.rows.values().filter_map(|(_, cells)| cells.clone()).collect();
        rows.sort_by_cached_key(|cells| cells.iter().map(sort_key).collect::<Vec<_>>());
        rows
    }

    /// The index of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

/// Numbers in their order, everything else as text.
fn sort_key(cell: &Value) -> (u8, i128, String) {
    let text = cells::text_of(cell);
    match text.parse::<i128>() {
        Ok(number) => (0, number, String::new()),
        Err(_) => (1, 0, text),
    }
}

impl Tables {
    /// A copy of a table as it is now.
    pub fn get(&self, name: &str) -> Option<Stored> {
        self.lock().get(name).cloned()
    }

    /// The tables' names.
    pub fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// A destination for each table of `layout`, whose rows are kept here. Rows that are here already stay.
    pub fn destinations(&self, layout: &Layout, bound: &Bound) -> Vec<Destination> {
        let mut calls: HashMap<&str, (usize, Vec<Call>)> = HashMap::new();
        for view in &bound.views {
            let of_measures = view.plan.measures.iter().map(|measure| measure.call.clone()).collect();
            calls.insert(&view.plan.name, (1 + view.plan.dimensions.len(), of_measures));
        }
        let all = layout.tables.iter().chain(layout.views.iter().map(|view| &view.table));
        let destination = |table: &Table| {
            let (first, calls) = calls.remove(&*table.name).unwrap_or_default();
            let calls: BTreeMap<usize, Call> = (first..).zip(calls).collect();
            let columns = table.columns.iter().enumerate().map(|(at, column)| match calls.get(&at) {
                Some(call) => Column { column_type: call.result.clone(), ..column.clone() },
                None => column.clone(),
            });
            let columns: Vec<Column> = columns.collect();
            self.lock().entry(table.name.to_string()).or_insert_with(|| Stored {
                columns: columns.clone(),
                key_columns: table.key_columns,
                rows: BTreeMap::new(),
            });
            Destination {
                name: table.name.to_string(),
                tables: vec![table.name.clone()],
                encode: Arc::new(Encoder {
                    keys: TableEncoder::new(table.clone()),
                    table: table.clone(),
                    calls,
                    columns,
                }),
                sink: Box::new(Sink { tables: self.clone(), table: table.name.to_string() }),
                every: Duration::ZERO,
                kind: if *table.name == *tables::PROGRESS { LaneKind::Progress } else { LaneKind::Table },
            }
        };
        all.map(destination).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Stored>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rows as JSON, with the keys of the real encoder.
struct Encoder {
    keys: TableEncoder,
    table: Table,
    /// Aggregate states by column.
    calls: BTreeMap<usize, Call>,
    columns: Vec<Column>,
}

impl Encoder {
    fn wrong(&self, detail: String) -> Error {
        Error::Columns { table: self.table.name.to_string(), detail }
    }

    /// The column's values: those of its states where it has states.
    fn values(&self, at: usize, array: &ArrayRef) -> Result<ArrayRef, String> {
        let Some(call) = self.calls.get(&at) else { return Ok(array.clone()) };
        let Some(states) = array.as_binary_opt::<i32>() else { return Ok(array.clone()) };
        // Counts and sums are stored as their values, whatever Arrow type those have.
        if call.stored_type() == call.result {
            return Ok(array.clone());
        }
        let mut values = accumulator(call).map_err(|error| error.to_string())?;
        let slots: Vec<u32> = (0..u32::try_from(states.len()).unwrap_or(u32::MAX)).collect();
        values.grow(slots.len());
        for (slot, state) in slots.iter().zip(states.iter()) {
            values.merge(*slot, state.unwrap_or_default()).map_err(|error| error.to_string())?;
        }
        values.finish(&slots).map_err(|error| error.to_string())
    }

    fn rows(&self, batch: &RecordBatch) -> Result<Vec<Vec<Value>>, String> {
        let mut rows = vec![Vec::with_capacity(self.columns.len()); batch.num_rows()];
        for ((at, column), array) in self.columns.iter().enumerate().zip(batch.columns()) {
            let values = self.values(at, array)?;
            for (row, cell) in rows.iter_mut().zip(cells::cells(&column.column_type, &values)?) {
                row.push(cell);
            }
        }
        Ok(rows)
    }

    /// The keys of the rows, each as the real encoder writes it.
    fn keys(&self, changes: &Changes, version: Version) -> Result<Vec<Vec<u8>>, Error> {
        let mut encoded = Vec::new();
        if self.table.kind == TableKind::Keyed {
            self.keys.encode(changes, version, &mut encoded)?;
            return Ok(encoded.into_iter().map(|row| row.key).collect());
        }
        // A block of appended rows has one key; a row alone has its own.
        for row in 0..changes.rows.num_rows() {
            let rows = changes.rows.slice(row, 1);
            self.keys.encode(&Changes { table: changes.table.clone(), rows, deleted: None }, version, &mut encoded)?;
        }
        Ok(encoded.into_iter().map(|row| row.key).collect())
    }
}

impl Encode for Encoder {
    fn encode(&self, changes: &Changes, version: Version, out: &mut Vec<OutRow>) -> Result<(), Error> {
        let keys = self.keys(changes, version)?;
        let is_deleted = |row: usize| changes.deleted.as_ref().is_some_and(|of| of.is_valid(row) && of.value(row));
        let rows = self.rows(&changes.rows).map_err(|detail| self.wrong(detail))?;
        for (at, (key, cells)) in keys.into_iter().zip(rows).enumerate() {
            let kept = (version.0, (!is_deleted(at)).then_some(cells));
            let payload = serde_json::to_vec(&kept).map_err(|error| self.wrong(error.to_string()))?;
            out.push(OutRow { key, payload, rows: 1 });
        }
        Ok(())
    }

    fn newest_only(&self) -> bool {
        self.keys.newest_only()
    }
}

struct Sink {
    tables: Tables,
    table: String,
}

impl Deliver for Sink {
    fn deliver<'a>(&'a mut self, delivery: Delivery<'a>) -> BoxFuture<'a, Result<(), DeliveryError>> {
        Box::pin(async move {
            let mut tables = self.tables.lock();
            let Some(stored) = tables.get_mut(&self.table) else { return Ok(()) };
            for row in delivery.rows {
                let kept: (u64, Option<Vec<Value>>) = serde_json::from_slice(&row.payload).map_err(|error| {
                    DeliveryError::Fatal { why: error.to_string(), remedy: "this is a bug".to_owned() }
                })?;
                match stored.rows.get(&row.key) {
                    Some((version, _)) if *version > kept.0 => {}
                    _ => drop(stored.rows.insert(row.key.clone(), kept)),
                }
            }
            Ok(())
        })
    }
}
