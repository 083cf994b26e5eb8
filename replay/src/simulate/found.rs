//! What a scenario's tables hold, as a reader of ClickHouse would see it.

use std::collections::BTreeMap;

use serde_json::Value;
use weir_operators::account::LEDGER;
use weir_pipeline::bind::{Bound, BoundView};
use weir_schemas::fate::Fate;
use weir_schemas::stage::Column;
use weir_schemas::tables::PROGRESS;
use weir_schemas::types::ColumnType;
use weir_sinks::clickhouse::{IS_CLOSED, IS_FINAL};

use super::cells;
use super::tables::Tables;

/// The column that says how many rows have the others in common.
pub(super) const COUNT: &str = "count";

/// Rows of one table or view.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// The columns that may be expected, with their types.
    pub columns: Vec<(String, ColumnType)>,
    /// How many of them, from the first on, are written where nobody says which to write.
    pub shown: usize,
    /// How many of them, from the first on, say which row it is.
    pub key_columns: usize,
    /// The rows.
    pub rows: Vec<Vec<Value>>,
}

impl Rows {
    /// The index of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|(known, _)| known == name)
    }

    /// The same with the columns of `names` in front, which are those that are shown.
    pub(super) fn led_by(mut self, names: &[&str]) -> Rows {
        let front: Vec<usize> = names.iter().filter_map(|name| self.column(name)).collect();
        let order: Vec<usize> =
            front.iter().copied().chain((0..self.columns.len()).filter(|at| !front.contains(at))).collect();
        self.columns = order.iter().filter_map(|&at| self.columns.get(at).cloned()).collect();
        for row in &mut self.rows {
            *row = order.iter().filter_map(|&at| row.get(at).cloned()).collect();
        }
        (self.shown, self.key_columns) = (front.len(), 1);
        self
    }

    /// The rows by the columns at `kept`, each once, with how many there are of it.
    pub(super) fn counted(&self, kept: &[usize]) -> Rows {
        let mut groups: BTreeMap<Vec<String>, (Vec<Value>, u64)> = BTreeMap::new();
        for row in &self.rows {
            let cells: Vec<Value> = kept.iter().filter_map(|&at| row.get(at).cloned()).collect();
            groups.entry(cells.iter().map(cells::text_of).collect()).or_insert((cells, 0)).1 += 1;
        }
        let mut columns: Vec<(String, ColumnType)> =
            kept.iter().filter_map(|&at| self.columns.get(at).cloned()).collect();
        let key_columns = columns.len();
        columns.push((COUNT.to_owned(), ColumnType::UInt(weir_schemas::types::Width::W64)));
        let rows = groups.into_values().map(|(mut cells, count)| {
            cells.push(Value::String(count.to_string()));
            cells
        });
        Rows { shown: columns.len(), key_columns, columns, rows: rows.collect() }
    }
}

/// A table as it is; of the events and of Weir's own tables.
pub(super) fn table(tables: &Tables, name: &str) -> Option<Rows> {
    let stored = tables.get(name)?;
    let columns: Vec<(String, ColumnType)> =
        stored.columns.iter().map(|Column { name, column_type, .. }| (name.clone(), column_type.clone())).collect();
    Some(Rows { shown: columns.len(), key_columns: stored.key_columns, columns, rows: stored.rows() })
}

/// A view as analysts see it: the SELECT's columns in their order, then `revision`, `is_closed` and `is_final`.
pub(super) fn view(tables: &Tables, bound: &Bound, name: &str) -> Option<Rows> {
    let of: &BoundView = bound.views.iter().find(|view| view.plan.name == name)?;
    let stored = tables.get(name)?;
    let selected = of.plan.columns();
    let order: Vec<usize> = selected.iter().filter_map(|column| stored.column(&column.name)).collect();
    let others = (0..stored.columns.len()).filter(|at| !order.contains(at));
    let order: Vec<usize> = order.iter().copied().chain(others).collect();
    let progress = tables.get(PROGRESS)?;
    let through = |column: &str| {
        let at = progress.column(column)?;
        let of_view =
            progress.rows().into_iter().find(|row| row.first().is_some_and(|cell| cell.as_str() == Some(name)))?;
        cells::micros(&progress.columns.get(at)?.column_type, of_view.get(at)?, None)
    };
    let (complete, last) = (through("complete_through"), through("final_through"));
    let (window, zone) = (stored.columns.first()?, of.plan.window.zone.as_deref());
    let is_over = |row: &[Value], through: Option<i64>| {
        let start = row.first().and_then(|cell| cells::micros(&window.column_type, cell, zone));
        Value::String(start.is_some_and(|start| through.is_some_and(|through| start < through)).to_string())
    };
    let mut columns: Vec<(String, ColumnType)> = order
        .iter()
        .filter_map(|&at| stored.columns.get(at))
        .map(|column| (column.name.clone(), column.column_type.clone()))
        .collect();
    columns.extend([IS_CLOSED, IS_FINAL].map(|name| (name.to_owned(), ColumnType::Bool)));
    let rows = stored.rows().into_iter().map(|row| {
        let mut cells: Vec<Value> = order.iter().filter_map(|&at| row.get(at).cloned()).collect();
        cells.extend([is_over(&row, complete), is_over(&row, last)]);
        cells
    });
    let is_key = |(name, _): &&(String, ColumnType)| stored.column(name).is_some_and(|at| at < stored.key_columns);
    // The key's columns stand first in most SELECTs; where they don't, rows are told apart by more than their key.
    let key_columns = columns.iter().take_while(is_key).count().max(1);
    Some(Rows { shown: selected.len(), key_columns, columns, rows: rows.collect() })
}

/// The ledger's totals over everything, and the rows that don't balance.
pub(super) fn ledger(tables: &Tables) -> (BTreeMap<String, u64>, Vec<String>) {
    let (mut totals, mut imbalances) = (BTreeMap::new(), Vec::new());
    let Some(stored) = tables.get(LEDGER) else { return (totals, imbalances) };
    let names: Vec<&str> = std::iter::once("consumed").chain(Fate::ALL.map(Fate::name)).collect();
    let places: Vec<Option<usize>> = names.iter().map(|name| stored.column(name)).collect();
    for row in stored.rows() {
        let count = |at: &Option<usize>| {
            at.and_then(|at| row.get(at)).and_then(Value::as_str).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
        };
        let counts: Vec<u64> = places.iter().map(count).collect();
        if counts.first().copied().unwrap_or(0) != counts.iter().skip(1).sum::<u64>() {
            imbalances.push(row.iter().map(cells::text_of).collect::<Vec<_>>().join(" "));
        }
        for (name, count) in names.iter().zip(counts) {
            *totals.entry((*name).to_owned()).or_insert(0) += count;
        }
    }
    (totals, imbalances)
}
