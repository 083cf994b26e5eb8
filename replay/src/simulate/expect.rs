//! Comparing what came with what was expected, and telling the difference.
//!
//! A row is expected by any of its columns; what isn't named isn't compared. Each expected row takes one of the rows
//! that came. What is left on either side is the difference: `-` lines were expected and are not there, `+` lines are
//! there and were not expected.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use weir_pipeline::bind::Bound;
use weir_pipeline::config::load::Source as Place;
use weir_pipeline::problem::{Problem, nearest};
use weir_schemas::tables::{ALERTS_HISTORY, QUARANTINE};

use super::cells;
use super::found::{self, COUNT, Rows};
use super::scenario::{Expect, ExpectedRows};
use super::tables::Tables;

/// Lines of a difference that are told for one table.
const LINES_MAX: usize = 40;

/// What is told of a step of an alert where nobody says what to tell.
const ALERT_COLUMNS: [&str; 8] =
    ["window_start", "status", "severity", "detector", "cause_kind", "cause", "rule", "affected_records"];
/// What refused records are counted by where nobody says by what.
const CAUSE_COLUMNS: [&str; 3] = ["reason", "rule", "field"];

/// What differs in one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What of: `view revenue_by_minute`, `ledger`.
    pub what: String,
    /// The columns' names.
    pub columns: Vec<String>,
    /// Lines: whether it was found, and the cells.
    pub lines: Vec<(bool, Vec<String>)>,
    /// How many lines aren't told.
    pub untold: usize,
}

/// What was compared: the rows that came of what the scenario names.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// What differs from what is expected.
    pub differences: Vec<Difference>,
    /// The rows of the ledger that don't balance, of which nobody could expect anything.
    pub imbalance: Option<Difference>,
    /// By place in the expectation, such as `views/revenue`, the rows that came, in the columns that were compared.
    pub found: BTreeMap<Vec<String>, Taken>,
    /// The ledger's totals.
    pub ledger: BTreeMap<String, u64>,
}

/// The rows that came, and which of the expected rows took which of them.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// The rows.
    pub rows: Rows,
    /// Columns that are written for a new row.
    pub written: Vec<usize>,
    /// By expected row, the columns that it names and what it says of them.
    pub meant: Vec<Vec<(usize, Value)>>,
    /// By expected row, the one that it took.
    pub takes: Vec<Option<usize>>,
    /// Whether rows that nobody expects are no difference.
    pub is_subset: bool,
}

/// Compares; `path` is where the expectation stands in the file.
pub(super) struct Comparing<'a> {
    pub(super) place: &'a Place<'a>,
    pub(super) path: Vec<String>,
    pub(super) tables: &'a Tables,
    pub(super) bound: &'a Bound,
    pub(super) expect: &'a Expect,
}

impl Comparing<'_> {
    /// Compares everything that is expected.
    ///
    /// # Errors
    /// Every view, table, column or value that can't be, at its place.
    pub(super) fn compare(&self) -> Result<Compared, Vec<Problem>> {
        let (mut compared, mut problems) = (Compared::default(), Vec::new());
        let mut add = |path: Vec<String>, what: String, rows: Rows, expected: &ExpectedRows, is_subset: bool| match self
            .rows(&path, rows, expected, is_subset)
        {
            Ok(taken) => {
                compared.differences.extend(difference(what, &taken));
                compared.found.insert(path, taken);
            }
            Err(found) => problems.extend(found),
        };
        let expect = self.expect;
        let is_subset = |name: &String| expect.subset.contains(name);
        let mut missing = Vec::new();
        for (name, expected) in &expect.views {
            let path = vec!["views".to_owned(), name.clone()];
            match found::view(self.tables, self.bound, name) {
                Some(rows) => add(path, format!("view {name}"), rows, expected, is_subset(name)),
                None => missing.push(self.missing(&path, "view", self.bound.views.iter().map(|view| &*view.plan.name))),
            }
        }
        let names = self.tables.names();
        for (name, expected) in &expect.tables {
            let path = vec!["tables".to_owned(), name.clone()];
            match found::table(self.tables, name) {
                Some(rows) => add(path, format!("table {name}"), rows, expected, is_subset(name)),
                None => missing.push(self.missing(&path, "table", names.iter().map(String::as_str))),
            }
        }
        if let Some(expected) = &expect.alerts {
            let rows = found::table(self.tables, ALERTS_HISTORY).unwrap_or_default().led_by(&ALERT_COLUMNS);
            add(vec!["alerts".to_owned()], "alerts".to_owned(), rows, expected, is_subset(&"alerts".to_owned()));
        }
        if let Some(expected) = &expect.quarantine {
            let rows = found::table(self.tables, QUARANTINE).unwrap_or_default();
            let is_counted = expected.is_empty() || expected.iter().any(|row| row.contains_key(COUNT));
            let rows = if is_counted { self.counted(rows, expected) } else { rows };
            let is_subset = is_subset(&"quarantine".to_owned());
            add(vec!["quarantine".to_owned()], "quarantine".to_owned(), rows, expected, is_subset);
        }
        for name in &expect.subset {
            let is_known = expect.views.contains_key(name) || expect.tables.contains_key(name);
            if !is_known && name != "alerts" && name != "quarantine" {
                missing.push(self.problem(&["subset".to_owned()], format!("nothing is expected of `{name}`")));
            }
        }
        problems.extend(missing);
        self.ledger(&mut compared, &mut problems);
        if problems.is_empty() { Ok(compared) } else { Err(problems) }
    }

    fn ledger(&self, compared: &mut Compared, problems: &mut Vec<Problem>) {
        let (totals, imbalances) = found::ledger(self.tables);
        for expected in self.expect.ledger.iter().flat_map(BTreeMap::keys) {
            if !totals.is_empty() && !totals.contains_key(expected) {
                let path = vec!["ledger".to_owned(), expected.clone()];
                problems.push(self.missing(&path, "fate", totals.keys().map(String::as_str)));
            }
        }
        let mut lines = Vec::new();
        for (fate, expected) in self.expect.ledger.iter().flatten() {
            let found = totals.get(fate).copied().unwrap_or(0);
            if found != *expected {
                lines.push((false, vec![fate.clone(), expected.to_string()]));
                lines.push((true, vec![fate.clone(), found.to_string()]));
            }
        }
        let of = |what: &str, columns: [&str; 2], lines: Vec<(bool, Vec<String>)>| Difference {
            what: what.to_owned(),
            columns: columns.map(str::to_owned).to_vec(),
            lines,
            untold: 0,
        };
        if !lines.is_empty() {
            compared.differences.push(of("ledger", ["fate", "records"], lines));
        }
        if !imbalances.is_empty() {
            let lines =
                imbalances.into_iter().map(|row| (true, vec![row, "doesn't balance: a bug".to_owned()])).collect();
            compared.imbalance = Some(of("ledger", ["row", ""], lines));
        }
        compared.ledger = totals;
    }

    /// Finds for each expected row one that came.
    fn rows(
        &self,
        path: &[String],
        rows: Rows,
        expected: &ExpectedRows,
        is_subset: bool,
    ) -> Result<Taken, Vec<Problem>> {
        let meant = self.meant(path, &rows, expected)?;
        let mut takes = vec![None; meant.len()];
        let mut free: BTreeSet<usize> = (0..rows.rows.len()).collect();
        // Who says most about its row chooses first.
        let mut order: Vec<usize> = (0..meant.len()).collect();
        order.sort_by_key(|&at| std::cmp::Reverse(meant[at].len()));
        for at in order {
            let fits = |row: &&usize| {
                meant[at].iter().all(|(column, cell)| {
                    let found = rows.rows.get(**row).and_then(|row| row.get(*column));
                    let of = rows.columns.get(*column);
                    found
                        .zip(of)
                        .is_some_and(|(found, (_, of))| cells::are_equal(of, found, cell, self.expect.tolerance))
                })
            };
            if let Some(row) = free.iter().find(fits).copied() {
                free.remove(&row);
                takes[at] = Some(row);
            }
        }
        let named: BTreeSet<usize> = meant.iter().flatten().map(|(column, _)| *column).collect();
        let written = if named.is_empty() { (0..rows.shown).collect() } else { named.into_iter().collect() };
        Ok(Taken { rows, written, meant, takes, is_subset })
    }

    /// What each expected row says: columns and cells.
    fn meant(
        &self,
        path: &[String],
        rows: &Rows,
        expected: &ExpectedRows,
    ) -> Result<Vec<Vec<(usize, Value)>>, Vec<Problem>> {
        let (mut meant, mut problems) = (Vec::new(), Vec::new());
        for (number, row) in expected.iter().enumerate() {
            let mut cells_of_row = Vec::new();
            for (name, value) in row {
                let place: Vec<String> = path.iter().cloned().chain([number.to_string(), name.clone()]).collect();
                let Some(at) = rows.column(name) else {
                    problems.push(self.missing(&place, "column", rows.columns.iter().map(|(name, _)| name.as_str())));
                    continue;
                };
                match cells::expected(&rows.columns[at].1, value) {
                    Ok(cell) => cells_of_row.push((at, cell)),
                    Err(why) => problems.push(self.problem(&place, format!("{name}: {why}"))),
                }
            }
            meant.push(cells_of_row);
        }
        if problems.is_empty() { Ok(meant) } else { Err(problems) }
    }

    /// The rows by the columns that are expected of any, or else by those that tell causes apart.
    fn counted(&self, rows: Rows, expected: &ExpectedRows) -> Rows {
        let named = |at: &usize| {
            let name = &rows.columns[*at].0;
            let is_cause = expected.is_empty() && CAUSE_COLUMNS.contains(&name.as_str());
            is_cause || expected.iter().any(|row| row.contains_key(name))
        };
        let kept: Vec<usize> = (0..rows.columns.len()).filter(named).collect();
        rows.counted(&kept)
    }

    fn missing<'n>(&self, path: &[String], kind: &str, known: impl Iterator<Item = &'n str>) -> Problem {
        let name = path.last().map_or("", String::as_str);
        let known: Vec<&str> = known.collect();
        let remedy = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", known.join(", ")),
        };
        self.place.problem(&self.whole(path), format!("there is no {kind} `{name}`"), remedy)
    }

    fn problem(&self, path: &[String], message: String) -> Problem {
        self.place.problem(&self.whole(path), message, "write what can come of the pipeline")
    }

    fn whole<'p>(&'p self, path: &'p [String]) -> Vec<&'p str> {
        self.path.iter().chain(path).map(String::as_str).collect()
    }
}

/// The lines that differ, if any do.
fn difference(what: String, taken: &Taken) -> Option<Difference> {
    let Taken { rows, written, meant, takes, is_subset } = taken;
    let named: BTreeSet<usize> = meant.iter().flatten().map(|(column, _)| *column).collect();
    let columns: Vec<usize> = if named.is_empty() { written.clone() } else { named.into_iter().collect() };
    let mut lines: Vec<(bool, Vec<String>)> = Vec::new();
    for (row, _) in meant.iter().zip(takes).filter(|(_, taken)| taken.is_none()) {
        let cell = |column: &usize| {
            let found = row.iter().find(|(at, _)| at == column);
            found.map_or_else(String::new, |(_, cell)| cells::text_of(cell))
        };
        lines.push((false, columns.iter().map(cell).collect()));
    }
    let are_missing = !lines.is_empty();
    // Where a subset is all there, nobody cares for the rest; where it isn't, the rest may say why.
    if are_missing || !is_subset {
        let is_free = |(at, _): &(usize, &Vec<Value>)| !takes.contains(&Some(*at));
        for (_, row) in rows.rows.iter().enumerate().filter(is_free) {
            let cell = |column: &usize| row.get(*column).map_or_else(String::new, cells::text_of);
            lines.push((true, columns.iter().map(cell).collect()));
        }
    }
    if lines.is_empty() {
        return None;
    }
    let keys = columns.iter().take_while(|column| **column < rows.key_columns).count();
    lines.sort_by(|(is_found, one), (is_other_found, other)| {
        one[..keys].cmp(&other[..keys]).then(is_found.cmp(is_other_found))
    });
    let untold = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    let columns = columns.iter().filter_map(|&at| rows.columns.get(at)).map(|(name, _)| name.clone()).collect();
    Some(Difference { what, columns, lines, untold })
}

impl Difference {
    /// The difference as text: a line each, columns aligned, `-` before what was expected and `+` before what was
    /// found.
    pub fn text(&self) -> String {
        let header = self.columns.clone();
        let all: Vec<(&str, &[String])> = std::iter::once((" ", header.as_slice()))
            .chain(self.lines.iter().map(|(is_found, cells)| (if *is_found { "+" } else { "-" }, cells.as_slice())))
            .collect();
        let width =
            |at: usize| all.iter().filter_map(|(_, cells)| cells.get(at)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..header.len()).map(|at| width(at).unwrap_or(0)).collect();
        let mut text = format!("{}\n", self.what);
        for (mark, cells) in all {
            let cells: Vec<String> =
                cells.iter().zip(&widths).map(|(cell, width)| format!("{:<width$}", one_line(cell))).collect();
            text.push_str(format!("  {mark} {}", cells.join("  ")).trim_end());
            text.push('\n');
        }
        if self.untold > 0 {
            text.push_str(&format!("    … {} more\n", self.untold));
        }
        text
    }
}

/// A cell without line breaks.
fn one_line(cell: &str) -> String {
    cell.replace('\n', "\\n").replace('\t', "\\t")
}
