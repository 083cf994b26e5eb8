//! Coarser views over a kept query's readers' view: the same measures by hour and by day, made by merging when they are asked.
//!
//! Nothing is stored for them, so a late correction shows at once, and a distinct count of a day is exactly that: states
//! are merged, not counts added. They read the readers' view, hence a replay that is swapped in shows here, too. A day is
//! `toDate` of the window's start on purpose: in UTC that is the front of the base table's sorting key, so that a
//! range of days reads only its days.
//!
//! Rows go one by one when their time to be kept is over. An hour or day of which some may have gone is left out, since what is
//! left would pass for all of it.
//!
//! Not here: which of them divide evenly into a view's windows (the planner knows the widths).

use weir_schemas::types::ColumnType;

use super::ddl::{expires, told};
use super::reader::{ENDS, Reader, Shown, ViewTable, ends_by, shown, state_of};
use super::{identifier, literal};

/// A width that a kept query's windows are merged into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rollup {
    /// Hours of the view's zone.
    Hour,
    /// Days of the view's zone.
    Day,
}

impl Rollup {
    /// The coarser view's name.
    pub fn name_of(self, view: &str) -> String {
        format!("{view}__by_{}", self.noun())
    }

    fn noun(self) -> &'static str {
        match self {
            Rollup::Hour => "hour",
            Rollup::Day => "day",
        }
    }

    /// The start of the hour or day that holds `time`.
    fn start(self, time: &str, zone: &str) -> String {
        match self {
            Rollup::Hour => format!("toStartOfHour({time}, {zone})"),
            Rollup::Day => format!("toDate({time}, {zone})"),
        }
    }

    /// The instant at which the hour or day that holds `time` starts.
    fn starts_at(self, time: &str, zone: &str) -> String {
        match self {
            Rollup::Hour => self.start(time, zone),
            Rollup::Day => format!("toStartOfDay({time}, {zone})"),
        }
    }

    /// The instant at which what begins at `start` ends.
    fn end(self, start: &str, zone: &str) -> String {
        match self {
            Rollup::Hour => format!("addHours({start}, 1)"),
            Rollup::Day => format!("toDateTime64(addDays({start}, 1), 6, {zone})"),
        }
    }
}

/// The view `rollup` over the readers' view of `view` in `database`.
pub fn of_view(database: &str, view: &ViewTable, rollup: Rollup) -> Reader {
    let table = &view.table;
    let zone = literal(view.zone.as_deref().unwrap_or("UTC"));
    let column = |name: &str| format!("`fine`.{}", identifier(name));
    let (mut columns, mut keys, mut states) = (Vec::new(), Vec::new(), Vec::new());
    let order = view.select.iter().copied().chain((0..table.columns.len()).filter(|at| !view.select.contains(at)));
    for at in order {
        let of = &table.columns[at];
        let merge = view.merges.get(at).and_then(Option::as_deref);
        if at == view.window {
            let start = rollup.start(&column(&of.name), &zone);
            columns.push(Shown::new(
                &of.name,
                &start,
                format!("start of the {} ({})", rollup.noun(), zone.trim_matches('\'')),
            ));
            keys.push(start);
        } else if at < table.key_columns {
            columns.push(Shown::new(&of.name, column(&of.name), told(of)));
            keys.push(column(&of.name));
        } else if let (ColumnType::AggregateState(_), Some(merge)) = (&of.column_type, merge) {
            let state = column(&state_of(&of.name));
            columns.push(Shown::new(&of.name, format!("{merge}({state})"), told(of)));
            let comment = format!("the state of {}, to be merged over any range", of.name);
            states.push(Shown::new(&state_of(&of.name), format!("{}({state})", merge_state(merge)), comment));
        } else {
            let merge = merge.unwrap_or("sum");
            columns.push(Shown::new(&of.name, format!("{merge}({})", column(&of.name)), told(of)));
        }
    }
    columns.extend(states);
    let start = rollup.start(&column(&table.columns[view.window].name), &zone);
    for (name, through, comment) in ENDS {
        let compared = format!("{} <=", rollup.end(&start, &zone));
        columns.push(Shown::new(name, ends_by(database, view, through, &compared), comment));
    }
    let window = column(&table.columns[view.window].name);
    let is_whole = table.retention_days.map(|days| expires(&rollup.starts_at(&window, &zone), days));
    let is_whole = is_whole.map(|ends| format!("WHERE {ends} > now()\n")).unwrap_or_default();
    let left_out = table.retention_days.map(|days| {
        format!(" Only {}s of which every row is kept: rows go after {days} days.", rollup.noun()) //
    });
    let select = format!(
        "SELECT\n    {}\nFROM {}.{} AS `fine`\n{is_whole}GROUP BY {}",
        columns.iter().map(|of| shown(&of.name, &of.value)).collect::<Vec<_>>().join(",\n    "),
        identifier(database),
        identifier(&table.name),
        keys.join(", "),
    );
    Reader {
        name: rollup.name_of(&table.name),
        comment: format!(
            "{} by {}, merged when it is asked.{} {}",
            table.name,
            rollup.noun(),
            left_out.unwrap_or_default(),
            table.comment
        ),
        columns: columns.into_iter().map(|of| (of.name, of.comment)).collect(),
        select,
    }
}

/// `uniqExactMerge` becomes `uniqExactMergeState`; parameters stay behind the name.
fn merge_state(merge: &str) -> String {
    match merge.split_once('(') {
        Some((name, parameters)) => format!("{name}State({parameters}"),
        None => format!("{merge}State"),
    }
}
