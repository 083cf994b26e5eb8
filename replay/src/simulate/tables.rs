//! The invented ClickHouse: tables in memory that keep what a `ReplacingMergeTree` keeps.
//!
//! Of rows with one key the one with the greatest version is kept, and a tombstone hides it; so a delivery that is
//! repeated after a kill changes nothing here either. Keys come from the encoder of the real table, so what it refuses
//! is refused here. Values are kept as [`cells`](super::cells), an aggregate state by its finalised value.
//!
//! Not here: partitions, retention, and any SQL.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
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
pub struct Tables {
    stored: Arc<Mutex<BTreeMap<String, Stored>>>,
    is_down: Arc<AtomicBool>,
}

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

    /// Lets them take rows, or not.
    pub fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Release);
    }

    /// Whether they take none.
    pub fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Acquire)
    }

    /// Where the rows of `layout`'s tables go, so that they are kept here. Rows that are here already stay.
    ///
    /// It is one destination for all tables, beside the one that tells completeness: each has a task of its own, which
    /// would be woken for every epoch.
    pub fn destinations(&self, layout: &Layout, bound: &Bound) -> Vec<Destination> {
        let mut calls: HashMap<&str, (usize, Vec<Call>)> = HashMap::new();
        for view in &bound.views {
            let of_measures = view.plan.measures.iter().map(|measure| measure.call.clone()).collect();
            calls.insert(&view.plan.name, (1 + view.plan.dimensions.len(), of_measures));
        }
        let all = layout.tables.iter().chain(layout.views.iter().map(|view| &view.table));
        let (progress, others): (Vec<&Table>, Vec<&Table>) = all.partition(|table| *table.name == *tables::PROGRESS);
        let mut destination = |name: &str, tables: Vec<&Table>, kind: LaneKind| {
            let formats: Vec<Format> = tables
                .iter()
                .map(|table| {
                    let (first, calls) = calls.remove(&*table.name).unwrap_or_default();
                    Format::of(table, (first..).zip(calls).collect())
                })
                .collect();
            for format in &formats {
                self.lock().entry(format.table.name.to_string()).or_insert_with(|| Stored {
                    columns: format.columns.clone(),
                    key_columns: format.table.key_columns,
                    rows: BTreeMap::new(),
                });
            }
            let names = tables.iter().map(|table| table.name.clone());
            Destination {
                name: name.to_owned(),
                tables: names.clone().collect(),
                encode: Arc::new(Encoder(formats)),
                sink: Box::new(Sink { tables: self.clone(), names: names.collect() }),
                every: Duration::ZERO,
                kind,
            }
        };
        vec![
            destination("tables in memory", others, LaneKind::Table),
            destination("completeness in memory", progress, LaneKind::Progress),
        ]
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Stored>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How rows of one table become JSON, with the keys of the real encoder.
struct Format {
    keys: TableEncoder,
    table: Table,
    /// Aggregate states by column.
    calls: BTreeMap<usize, Call>,
    columns: Vec<Column>,
}

impl Format {
    fn of(table: &Table, calls: BTreeMap<usize, Call>) -> Format {
        let columns = table.columns.iter().enumerate().map(|(at, column)| match calls.get(&at) {
            Some(call) => Column { column_type: call.result.clone(), ..column.clone() },
            None => column.clone(),
        });
        Format { keys: TableEncoder::new(table.clone()), table: table.clone(), columns: columns.collect(), calls }
    }

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

/// Encodes the rows of several tables. A row's key begins with its table's number.
struct Encoder(Vec<Format>);

impl Encode for Encoder {
    fn encode(&self, changes: &Changes, version: Version, out: &mut Vec<OutRow>) -> Result<(), Error> {
        let Some((number, format)) = (0..).zip(&self.0).find(|(_, format)| format.table.name == changes.table) else {
            let detail = "nobody keeps its rows".to_owned();
            return Err(Error::Columns { table: changes.table.to_string(), detail });
        };
        let keys = format.keys(changes, version)?;
        let is_deleted = |row: usize| changes.deleted.as_ref().is_some_and(|of| of.is_valid(row) && of.value(row));
        let rows = format.rows(&changes.rows).map_err(|detail| format.wrong(detail))?;
        for (at, (key, cells)) in keys.into_iter().zip(rows).enumerate() {
            let kept = (version.0, (!is_deleted(at)).then_some(cells));
            let payload = serde_json::to_vec(&kept).map_err(|error| format.wrong(error.to_string()))?;
            let number: u16 = number;
            out.push(OutRow { key: [&number.to_be_bytes()[..], &key].concat(), payload, rows: 1 });
        }
        Ok(())
    }

    fn newest_only(&self) -> bool {
        // Rows that only come stand among those of which the newest counts.
        false
    }
}

struct Sink {
    tables: Tables,
    /// By number.
    names: Vec<Arc<str>>,
}

impl Deliver for Sink {
    fn deliver<'a>(&'a mut self, delivery: Delivery<'a>) -> BoxFuture<'a, Result<(), DeliveryError>> {
        Box::pin(async move {
            let fatal = |why: String| DeliveryError::Fatal { why, remedy: "this is a bug".to_owned() };
            if self.tables.is_down() {
                return Err(DeliveryError::Retriable { why: "the scenario's tables are down".to_owned() });
            }
            let mut tables = self.tables.lock();
            for row in delivery.rows {
                let kept: (u64, Option<Vec<Value>>) =
                    serde_json::from_slice(&row.payload).map_err(|error| fatal(error.to_string()))?;
                let (number, key) = row.key.split_first_chunk().ok_or_else(|| fatal("a key of no table".to_owned()))?;
                let name = self.names.get(usize::from(u16::from_be_bytes(*number)));
                let Some(stored) = name.and_then(|name| tables.get_mut(&**name)) else {
                    return Err(fatal("a row of no table".to_owned()));
                };
                match stored.rows.get(key) {
                    Some((version, _)) if *version > kept.0 => {}
                    _ => drop(stored.rows.insert(key.to_vec(), kept)),
                }
            }
            Ok(())
        })
    }
}
