//! Rewriting the expectations of a scenario file by what came, in place.
//!
//! A row that came as it was expected stays byte for byte, with its comments. One that didn't come gets the values of a row
//! that nobody expected, in the columns that it names: of the same key, as far as it names columns of the key, and the most
//! alike of those. Where there is none, it is taken out. What is left is added in the columns that are compared, unless
//! only some rows are expected. Nothing else of the file is touched.

use std::collections::BTreeMap;

use serde_json::Value as Cell;
use toml_edit::{Array, DocumentMut, InlineTable, Item, TableLike, Value};
use weir_schemas::types::ColumnType;

use super::cells;
use super::expect::{Compared, Taken};

/// Rewrites the expectation at `path` (`expect`, or `checks`, a number and `expect`) of `document` by what came.
pub(super) fn rewrite(document: &mut DocumentMut, path: &[String], compared: &Compared) {
    let Some(expect) = at(document.as_item_mut(), path) else { return };
    for (place, taken) in &compared.found {
        if let Some(rows) = at(expect, place) {
            rewrite_rows(rows, taken);
        }
    }
    if let Some(ledger) = at(expect, &["ledger".to_owned()]).and_then(Item::as_table_like_mut) {
        rewrite_ledger(ledger, &compared.ledger);
    }
}

/// What stands at a path; a number counts the entries of a list.
fn at<'a>(item: &'a mut Item, path: &[String]) -> Option<&'a mut Item> {
    let Some((name, rest)) = path.split_first() else { return Some(item) };
    if let (Ok(number), true) = (name.parse::<usize>(), item.is_array_of_tables()) {
        let table = item.as_array_of_tables_mut()?.get_mut(number)?;
        let (next, rest) = rest.split_first()?;
        return at(table.get_mut(next)?, rest);
    }
    at(item.as_table_like_mut()?.get_mut(name)?, rest)
}

fn rewrite_ledger(ledger: &mut dyn TableLike, totals: &BTreeMap<String, u64>) {
    let is_empty = ledger.is_empty();
    for (fate, total) in totals {
        let number = i64::try_from(*total).unwrap_or(i64::MAX);
        match ledger.get_mut(fate) {
            Some(item) if item.as_integer() == Some(number) => {}
            Some(item) => replace(item, Value::from(number)),
            // Who names no fate is told of those that records have.
            None if is_empty && *total > 0 => drop(ledger.insert(fate, toml_edit::value(number))),
            None => {}
        }
    }
}

/// Puts a value in the place of another, with the space and comments around it.
fn replace(item: &mut Item, value: Value) {
    let decor = item.as_value().map(|old| old.decor().clone());
    let mut value = value;
    if let Some(decor) = decor {
        *value.decor_mut() = decor;
    }
    *item = Item::Value(value);
}

fn rewrite_rows(rows: &mut Item, taken: &Taken) {
    let plan = Plan::of(taken);
    if let Some(tables) = rows.as_array_of_tables_mut() {
        for (number, step) in plan.existing.iter().enumerate().rev() {
            match step {
                Step::Keep => {}
                Step::Take(row) => {
                    if let Some(table) = tables.get_mut(number) {
                        set_cells(table, taken, *row);
                    }
                }
                Step::Remove => drop(tables.remove(number)),
            }
        }
        for row in plan.added {
            let mut table = toml_edit::Table::new();
            for (name, value) in cells_of(taken, row) {
                table.insert(&name, Item::Value(value));
            }
            tables.push(table);
        }
        return;
    }
    if let Some(array) = rows.as_array_mut() {
        rewrite_array(array, taken, &plan);
    }
}

fn rewrite_array(array: &mut Array, taken: &Taken, plan: &Plan) {
    for (number, step) in plan.existing.iter().enumerate().rev() {
        match step {
            Step::Keep => {}
            Step::Take(row) => {
                if let Some(table) = array.get_mut(number).and_then(Value::as_inline_table_mut) {
                    set_cells(table, taken, *row);
                }
            }
            Step::Remove => drop(array.remove(number)),
        }
    }
    for row in &plan.added {
        let table: InlineTable = cells_of(taken, *row).into_iter().collect();
        let mut value = Value::InlineTable(table);
        value.decor_mut().set_prefix("\n  ");
        array.push_formatted(value);
    }
    if !plan.added.is_empty() {
        array.set_trailing_comma(true);
        array.set_trailing("\n");
    }
    if array.is_empty() {
        array.set_trailing("");
        array.set_trailing_comma(false);
    }
}

/// Sets the columns that an expected row names to what came; a value that means the same stays as it is written.
fn set_cells(table: &mut dyn TableLike, taken: &Taken, row: usize) {
    let Some(cells) = taken.rows.rows.get(row) else { return };
    for at in &taken.written {
        let (Some((name, of)), Some(cell)) = (taken.rows.columns.get(*at), cells.get(*at)) else { continue };
        if let Some(item) = table.get_mut(name).filter(|item| !means(item, of, cell)) {
            replace(item, cells::toml_of(of, cell));
        }
    }
}

/// Whether a value of the file means this cell.
fn means(item: &Item, of: &ColumnType, cell: &Cell) -> bool {
    let Some(value) = item.as_value() else { return false };
    let written = format!("v = {}", value.clone().decorated("", ""));
    let parsed = toml::from_str::<toml::Table>(&written).ok();
    parsed.and_then(|table| cells::expected(of, table.get("v")?).ok()).is_some_and(|meant| meant == *cell)
}

/// The written columns of a row that came.
fn cells_of(taken: &Taken, row: usize) -> Vec<(String, Value)> {
    let Some(cells) = taken.rows.rows.get(row) else { return Vec::new() };
    let cell = |at: &usize| -> Option<(String, Value)> {
        let (name, of): &(String, ColumnType) = taken.rows.columns.get(*at)?;
        let cell: &Cell = cells.get(*at)?;
        Some((name.clone(), cells::toml_of(of, cell)))
    };
    taken.written.iter().filter_map(cell).collect()
}

/// What becomes of an expected row.
enum Step {
    Keep,
    /// It gets the values of this row that came.
    Take(usize),
    Remove,
}

struct Plan {
    existing: Vec<Step>,
    added: Vec<usize>,
}

impl Plan {
    fn of(taken: &Taken) -> Plan {
        let mut free: Vec<usize> =
            (0..taken.rows.rows.len()).filter(|row| !taken.takes.contains(&Some(*row))).collect();
        let mut existing: Vec<Step> =
            taken.takes.iter().map(|takes| if takes.is_some() { Step::Keep } else { Step::Remove }).collect();
        // Who says most about its row chooses first, as where rows are compared.
        let mut order: Vec<usize> = (0..existing.len()).filter(|at| taken.takes[*at].is_none()).collect();
        order.sort_by_key(|&at| std::cmp::Reverse(taken.meant.get(at).map_or(0, Vec::len)));
        for at in order {
            let meant = taken.meant.get(at).map_or(&[][..], Vec::as_slice);
            if let Some(chosen) = most_alike(taken, meant, &free) {
                existing[at] = Step::Take(free.remove(chosen));
            }
        }
        Plan { existing, added: if taken.is_subset { Vec::new() } else { free } }
    }
}

/// The place in `free` of the row that an expected one can have meant; `None` where it meant none of them.
fn most_alike(taken: &Taken, meant: &[(usize, Cell)], free: &[usize]) -> Option<usize> {
    let is_key = |column: usize| column < taken.rows.key_columns;
    let names_key = meant.iter().any(|(column, _)| is_key(*column));
    let mut best: Option<(usize, usize)> = None;
    for (at, row) in free.iter().enumerate() {
        let Some(cells) = taken.rows.rows.get(*row) else { continue };
        let is_met = |column: usize, cell: &Cell| {
            let of = taken.rows.columns.get(column).map(|(_, of)| of);
            of.zip(cells.get(column)).is_some_and(|(of, found)| cells::are_equal(of, found, cell, 0.0))
        };
        let alike = meant.iter().filter(|(column, cell)| is_met(*column, cell)).count();
        let has_key = meant.iter().all(|(column, cell)| !is_key(*column) || is_met(*column, cell));
        // One of some rows, which names nothing by which it could be found, can have meant any row.
        let is_anything = taken.is_subset && !names_key && alike == 0;
        if has_key && !is_anything && best.is_none_or(|(_, most)| alike > most) {
            best = Some((at, alike));
        }
    }
    best.map(|(at, _)| at)
}
