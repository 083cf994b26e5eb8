//! Readers' views: what analysts and dashboards query.
//!
//! A view shows each key's newest row and no deleted one, by `FINAL` over the base table; within a partition only,
//! since the key fixes the partition. A condition on key columns reaches the base table's index through the view.
//!
//! The view of a kept query has the SELECT's columns in their order, then:
//! - further columns of its table, such as `revision`;
//! - `<measure>_state` for each measure that is stored as a state: the finalised value can't be merged, so ranges
//!   are rolled up with `uniqExactMerge(users_state)` and the like;
//! - `is_closed`: the window ends at or before the view's `complete_through`, so every event that isn't late is in;
//! - `is_final`: it ends at or before `final_through`, so nothing can change it by itself.
//!
//! Where a replay was swapped in, its rows are read instead of the live ones, for the windows that it stands for.
//!
//! Both look at `weir_progress` when the query runs, hence a window that closes needs no new row.

use weir_schemas::rows::Table;
use weir_schemas::tables;
use weir_schemas::types::{ColumnType, Zone};

use super::ddl::{IS_DELETED, MARK, VERSION, physical};
use super::swaps::{self, Swapped};
use super::{base_table, identifier, literal};
use crate::error::Error;

/// The column of a readers' view that tells whether the window is closed.
pub const IS_CLOSED: &str = "is_closed";
/// The column of a readers' view that tells whether the row can change no more by itself.
pub const IS_FINAL: &str = "is_final";
/// What stands behind a measure's name where the readers' view shows its state.
pub const STATE_SUFFIX: &str = "_state";

/// The table of a kept query, and how its readers' view comes from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewTable {
    /// The table; its name is the view's.
    pub table: Table,
    /// Indexes of the table's columns in the order of the SELECT; the others follow.
    pub select: Vec<usize>,
    /// Index of the column of the window's start.
    pub window: usize,
    /// The zone whose calendar cuts days, where the window's start is a date; `None` is UTC.
    pub zone: Option<Zone>,
}

/// The statement that makes the readers' view of a table without windows.
pub fn create_plain(database: &str, table: &Table) -> String {
    let columns: Vec<String> = table.columns.iter().map(|column| shown(&column.name, &stored(&column.name))).collect();
    create(database, table, &columns, "")
}

/// The statement that makes the readers' view of the newest steps of alerts: its own columns, then who has taken an alert
/// on and when, as far as the acknowledgement holds for this step.
pub fn create_alerts(database: &str) -> String {
    let table = tables::alerts();
    let mut columns: Vec<String> =
        table.columns.iter().map(|column| shown(&column.name, &stored(&column.name))).collect();
    let holds = "`said`.`fingerprint` != '' AND (`said`.`until` IS NULL OR `rows`.`window_end` <= `said`.`until`)";
    columns.push(shown("acknowledged_by", &format!("if({holds}, ifNull(`said`.`acknowledged_by`, ''), '')")));
    columns.push(shown("acknowledged_at", &format!("if({holds}, toNullable(`said`.`acknowledged_at`), NULL)")));
    let said = format!("{}.{}", identifier(database), identifier(&base_table(tables::ACKNOWLEDGEMENTS)));
    let join = format!(
        "LEFT JOIN {said} AS `said` FINAL \
         ON `said`.`fingerprint` = `rows`.`fingerprint` AND `said`.`opened_at` = `rows`.`opened_at`\n"
    );
    create(database, &table, &columns, &join)
}

/// The statement that makes the readers' view of a kept query, of which `swaps` (those of other views don't matter) stand in
/// the place of live rows.
///
/// # Errors
/// [`Error::Refused`] when a column of the query has a name that the view gives to a column of its own.
pub fn create_view(database: &str, view: &ViewTable, swaps: &[Swapped]) -> Result<String, Error> {
    let table = &view.table;
    let all = || 0..table.columns.len();
    if table.columns.get(view.window).is_none() || view.select.iter().any(|at| *at >= table.columns.len()) {
        return Err(Error::Columns {
            table: table.name.to_string(),
            detail: "the view names a column that isn't there".to_owned(),
        });
    }
    let order = view.select.iter().copied().chain(all().filter(|at| !view.select.contains(at)));
    let mut columns = Vec::new();
    let mut states = Vec::new();
    for column in order.map(|at| &table.columns[at]) {
        let stored = stored(&column.name);
        if matches!(column.column_type, ColumnType::AggregateState(_)) {
            columns.push((column.name.clone(), format!("finalizeAggregation({stored})")));
            states.push((format!("{}{STATE_SUFFIX}", column.name), stored));
        } else {
            columns.push((column.name.clone(), stored));
        }
    }
    columns.extend(states);
    for (name, through) in [(IS_CLOSED, "complete_through"), (IS_FINAL, "final_through")] {
        columns.push((name.to_owned(), ends_by(database, view, through)));
    }
    if let Some(name) = first_repeated(&columns) {
        return Err(Error::Refused {
            table: table.name.to_string(),
            detail: format!("the readers' view would have two columns named {name}"),
            remedy: format!("give the column another name than {name} in the SELECT"),
        });
    }
    let columns: Vec<String> = columns.iter().map(|(name, value)| shown(name, value)).collect();
    let swaps: Vec<&Swapped> = swaps.iter().filter(|of| *of.view == *table.name).collect();
    if swaps.is_empty() {
        return Ok(create(database, table, &columns, ""));
    }
    let start = window_start(view);
    let live = (database, swaps::condition(&swaps, None, &start));
    let replays = swaps.iter().enumerate();
    let replays = replays.map(|(at, of)| (of.database.as_str(), swaps::condition(&swaps, Some(at), &start)));
    let parts: Vec<String> = std::iter::once(live)
        .chain(replays)
        .map(|(from, condition)| select(from, table, &columns, &format!("WHERE {condition}\n")))
        .collect();
    Ok(create_as(database, table, &parts.join("\nUNION ALL\n")))
}

fn create(database: &str, table: &Table, columns: &[String], rest: &str) -> String {
    create_as(database, table, &select(database, table, columns, rest))
}

fn create_as(database: &str, table: &Table, select: &str) -> String {
    format!(
        "CREATE OR REPLACE VIEW {}.{} AS\n{select}\nCOMMENT {}",
        identifier(database),
        identifier(&table.name),
        literal(&format!("{MARK}{}", table.comment)),
    )
}

/// The newest rows of the base table in `database`; `rest` is what joins or bounds them.
fn select(database: &str, table: &Table, columns: &[String], rest: &str) -> String {
    format!(
        "SELECT\n    {}\nFROM {}.{} AS `rows` FINAL\n{rest}SETTINGS do_not_merge_across_partitions_select_final = 1",
        columns.join(",\n    "),
        identifier(database),
        identifier(&base_table(&table.name)),
    )
}

/// A column of the base table. It is qualified, because the view's own name for it would win otherwise.
fn stored(name: &str) -> String {
    format!("`rows`.{}", identifier(&physical(name)))
}

fn shown(name: &str, value: &str) -> String {
    format!("{value} AS {}", identifier(name))
}

fn first_repeated(columns: &[(String, String)]) -> Option<&str> {
    let names = || columns.iter().map(|(name, _)| name.as_str());
    names()
        .enumerate()
        .find(|(at, name)| [VERSION, IS_DELETED].contains(name) || names().take(*at).any(|earlier| earlier == *name))
        .map(|(_, name)| name)
}

/// Whether the window of a row ends at or before a column of `weir_progress`. Since that is always a boundary between
/// two windows of the view, it is so exactly when the window *starts* before it; no arithmetic of calendars is needed.
/// While `weir_progress` has no row of the view, nothing has ended.
fn ends_by(database: &str, view: &ViewTable, through: &str) -> String {
    format!(
        "CAST(ifNull({} < (SELECT argMax(`{through}`, `{VERSION}`) FROM {}.{} WHERE `view` = {}), 0), 'Bool')",
        window_start(view),
        identifier(database),
        identifier(&base_table(tables::PROGRESS)),
        literal(&view.table.name),
    )
}

/// The first instant of the window; of a date that is its midnight in the zone.
fn window_start(view: &ViewTable) -> String {
    let column = &view.table.columns[view.window];
    let start = stored(&column.name);
    if matches!(column.column_type, ColumnType::Date | ColumnType::Date32) {
        let zone = view.zone.as_deref().unwrap_or("UTC");
        format!("toDateTime64({start}, 6, {})", literal(zone))
    } else {
        start
    }
}
