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
//!
//! Every view and every column has a comment that says what it is; a view's columns can't get theirs when it is made
//! without its types being repeated, so a second statement gives them. It also ends the view's own comment with a fingerprint
//! of both, by which the next start knows that nothing has to be made anew.
//!
//! A database for readers alone offers the same views, without the bytes of refused records: nobody knows what they hold.

use weir_schemas::rows::Table;
use weir_schemas::tables;
use weir_schemas::types::{ColumnType, Zone};
use xxhash_rust::xxh3::xxh3_64;

use super::ddl::{IS_DELETED, MARK, VERSION, physical, told};
use super::rollup::Rollup;
use super::swaps::{self, Swapped};
use super::{base_table, identifier, literal};
use crate::error::Error;

/// The column of a readers' view that tells whether the window is closed.
pub const IS_CLOSED: &str = "is_closed";
/// The column of a readers' view that tells whether the row can change no more by itself.
pub const IS_FINAL: &str = "is_final";
/// What both say: the column, that of `weir_progress`, and the comment.
pub(super) const ENDS: [(&str, &str, &str); 2] = [
    (IS_CLOSED, "complete_through", "whether every event of the window that isn't late is in"),
    (IS_FINAL, "final_through", "whether the row can change no more by itself"),
];
/// The view of how far each view is complete, by partition.
pub const PROGRESS_BY_PARTITION: &str = "weir_progress_by_partition";
/// What stands behind a measure's name where the readers' view shows its state.
pub const STATE_SUFFIX: &str = "_state";

/// Columns that a database for readers doesn't offer: the table's name, and theirs.
const KEPT_BACK: [(&str, &[&str]); 1] = [(tables::QUARANTINE, &["key", "value"])];

/// How a view is made in a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Making {
    /// Its name.
    pub name: String,
    /// The statements, in their order: the view itself, then what it and its columns are.
    pub statements: Vec<String>,
    /// The comment that it has behind all of them, and behind no others.
    pub comment: String,
}

/// A view that readers query, ready to be made in a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Its name.
    pub name: String,
    /// What a row of it is.
    pub comment: String,
    /// Its columns with their comments, in their order.
    pub columns: Vec<(String, String)>,
    /// The SELECT behind it, with every table qualified.
    pub select: String,
}

impl Reader {
    /// How it is made in `database`.
    pub fn making(&self, database: &str) -> Making {
        self.making_with(database, "")
    }

    /// The same view in another database, whose readers need no right on what lies behind it: it reads with the rights of
    /// whoever made it.
    pub fn offered(&self, database: &str, to: &str) -> Making {
        let kept_back = KEPT_BACK.iter().filter(|(table, _)| *table == self.name).flat_map(|(_, columns)| *columns);
        let kept_back: Vec<&str> = kept_back.copied().collect();
        let mut offered = self.clone();
        offered.columns.retain(|(name, _)| !kept_back.contains(&name.as_str()));
        let columns: Vec<String> = offered.columns.iter().map(|(name, _)| identifier(name)).collect();
        offered.select = format!("SELECT\n    {}\n{}", columns.join(",\n    "), from(database, &self.name));
        offered.making_with(to, " DEFINER = CURRENT_USER SQL SECURITY DEFINER")
    }

    fn making_with(&self, database: &str, security: &str) -> Making {
        let name = format!("{}.{}", identifier(database), identifier(&self.name));
        let comment = literal(&format!("{MARK}{}", self.comment));
        let create = format!("CREATE OR REPLACE VIEW {name}{security} AS\n{}\nCOMMENT {comment}", self.select);
        let told = self.columns.iter().filter(|(_, comment)| !comment.is_empty());
        let mut told: Vec<String> = told.map(|(column, comment)| comment_column(column, comment)).collect();
        let fingerprint = xxh3_64([create.as_str(), &told.join("\n")].join("\n").as_bytes());
        let comment = format!("{MARK}{} [{fingerprint:016x}]", self.comment);
        told.push(format!("MODIFY COMMENT {}", literal(&comment)));
        let comments = format!("ALTER TABLE {name}\n    {}", told.join(",\n    "));
        Making { name: self.name.clone(), statements: vec![create, comments], comment }
    }
}

/// What a view of a readers' database reads `name` from.
pub(super) fn from(database: &str, name: &str) -> String {
    format!("FROM {}.{}", identifier(database), identifier(name))
}

/// `COMMENT COLUMN ...`, as ALTER TABLE takes it.
pub(super) fn comment_column(column: &str, comment: &str) -> String {
    format!("COMMENT COLUMN {} {}", identifier(column), literal(comment))
}

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
    /// The source whose events the query counts.
    pub source: String,
    /// For each of the table's columns the function that makes one value of several rows', such as `sum` or
    /// `uniqExactMerge`; `None` for those that aren't measures.
    pub merges: Vec<Option<String>>,
    /// The coarser views over it that are offered.
    pub rollups: Vec<Rollup>,
}

/// A column of a readers' view: its name, its value in SQL, its comment.
pub(super) struct Shown {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) comment: String,
}

impl Shown {
    pub(super) fn new(name: &str, value: impl Into<String>, comment: impl Into<String>) -> Shown {
        Shown { name: name.to_owned(), value: value.into(), comment: comment.into() }
    }
}

/// The readers' view of a table without windows.
pub fn plain(database: &str, table: &Table) -> Reader {
    reader(database, table, &plain_columns(table), "")
}

fn plain_columns(table: &Table) -> Vec<Shown> {
    table.columns.iter().map(|column| Shown::new(&column.name, stored(&column.name), told(column))).collect()
}

/// The readers' view of how far views are complete: its own columns, and how old what they say is.
pub fn progress(database: &str) -> Reader {
    let table = tables::progress();
    let mut columns = plain_columns(&table);
    let told = stored("complete_through");
    columns.push(Shown::new(
        "lag_ms",
        format!("if({told} > '1900-01-01', greatest(0, dateDiff('millisecond', {told}, now64(6))), NULL)"),
        "milliseconds from complete_through to now, 0 where everything is closed; null while nothing is known",
    ));
    columns.push(Shown::new(
        "freshness_ms",
        age_ms(&stored("committed_at")),
        "milliseconds since the commit that this row speaks of",
    ));
    reader(database, &table, &columns, "")
}

/// The readers' view of every partition of every view: how far the view is complete, and what the partition has to do with it.
pub fn progress_by_partition(database: &str, views: &[ViewTable]) -> Reader {
    let base = |name: &str| format!("{}.{} FINAL", identifier(database), identifier(&base_table(name)));
    let list = |of: fn(&ViewTable) -> &str| views.iter().map(|view| literal(of(view))).collect::<Vec<_>>().join(", ");
    let source = match views {
        [] => "''".to_owned(),
        _ => format!("transform(`view`, [{}], [{}], '')", list(|view| &view.table.name), list(|view| &view.source)),
    };
    let of_view = format!(
        "(SELECT `view`, {source} AS `source`, `complete_through`, `final_through` FROM {})",
        base(tables::PROGRESS)
    );
    let columns = progress_by_partition_columns();
    let select = format!(
        "SELECT\n    {}\nFROM {of_view} AS `views`\nINNER JOIN (SELECT * FROM {}) AS `parts` ON `views`.`source` = `parts`.`source`",
        columns.iter().map(|of| shown(&of.name, &of.value)).collect::<Vec<_>>().join(",\n    "),
        base(tables::PARTITIONS),
    );
    Reader {
        name: PROGRESS_BY_PARTITION.to_owned(),
        comment: "How far each view is complete, by the partitions of its source; what is left out of it, and why"
            .to_owned(),
        columns: columns.into_iter().map(|of| (of.name, of.comment)).collect(),
        select,
    }
}

fn progress_by_partition_columns() -> Vec<Shown> {
    let watermark = "`parts`.`watermark`";
    vec![
        Shown::new("view", "`views`.`view`", "the view's name"),
        Shown::new("source", "`parts`.`source`", "the source that it counts"),
        Shown::new("topic", "`parts`.`topic`", "the topic"),
        Shown::new("partition", "`parts`.`partition`", "the partition"),
        Shown::new("state", "`parts`.`state`", "reading, idle, waiting, parked or done"),
        Shown::new("detail", "`parts`.`detail`", "why it waits or is parked"),
        Shown::new(
            "complete_through",
            "`views`.`complete_through`",
            "every window of the view that ends here or before is closed (UTC)",
        ),
        Shown::new(
            "final_through",
            "`views`.`final_through`",
            "every window that ends here or before can change no more by itself (UTC)",
        ),
        Shown::new(
            "watermark",
            watermark,
            "no event older than this is expected of the partition; 1900 while none came (UTC)",
        ),
        Shown::new("holds_back", "`parts`.`holds_back`", "whether it is the one that complete_through waits for"),
        Shown::new(
            "is_left_out",
            format!("CAST({watermark} < `views`.`complete_through`, 'Bool')"),
            "whether complete_through has passed the partition's watermark: it is idle or ended, and what it says later is late",
        ),
        Shown::new(
            "lag_records",
            "greatest(0, `parts`.`end_offset` - `parts`.`next_offset`)",
            "offsets between the committed position and the end of the log",
        ),
        Shown::new(
            "lag_ms",
            format!(
                "if({watermark} > '1900-01-01', greatest(0, dateDiff('millisecond', {watermark}, now64(6))), NULL)"
            ),
            "milliseconds from the partition's watermark to now; null while none came",
        ),
        Shown::new(
            "freshness_ms",
            age_ms("`parts`.`committed_at`"),
            "milliseconds since the commit that this row speaks of",
        ),
    ]
}

fn age_ms(at: &str) -> String {
    format!("greatest(0, dateDiff('millisecond', {at}, now64(6)))")
}

/// The readers' view of the newest steps of alerts: its own columns, then who has taken an alert on and when, as far as
/// the acknowledgement holds for this step.
pub fn alerts(database: &str) -> Reader {
    let table = tables::alerts();
    let mut columns = plain_columns(&table);
    let holds = "`said`.`fingerprint` != '' AND (`said`.`until` IS NULL OR `rows`.`window_end` <= `said`.`until`)";
    columns.push(Shown::new(
        "acknowledged_by",
        format!("if({holds}, ifNull(`said`.`acknowledged_by`, ''), '')"),
        "who has taken it on; empty for nobody",
    ));
    columns.push(Shown::new(
        "acknowledged_at",
        format!("if({holds}, toNullable(`said`.`acknowledged_at`), NULL)"),
        "when, by the clock of who said so (UTC)",
    ));
    let said = format!("{}.{}", identifier(database), identifier(&base_table(tables::ACKNOWLEDGEMENTS)));
    let join = format!(
        "LEFT JOIN {said} AS `said` FINAL \
         ON `said`.`fingerprint` = `rows`.`fingerprint` AND `said`.`opened_at` = `rows`.`opened_at`\n"
    );
    reader(database, &table, &columns, &join)
}

/// The readers' view of a kept query, of which `swaps` (those of other views don't matter) stand in the place of live rows.
///
/// # Errors
/// [`Error::Refused`] when a column of the query has a name that the view gives to a column of its own.
pub fn of_view(database: &str, view: &ViewTable, swaps: &[Swapped]) -> Result<Reader, Error> {
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
            columns.push(Shown::new(&column.name, format!("finalizeAggregation({stored})"), told(column)));
            let comment = format!("the state of {}, to be merged over any range", column.name);
            states.push(Shown::new(&state_of(&column.name), stored, comment));
        } else {
            columns.push(Shown::new(&column.name, stored, told(column)));
        }
    }
    columns.extend(states);
    let start = window_start(view);
    for (name, through, comment) in ENDS {
        columns.push(Shown::new(name, ends_by(database, view, through, &format!("{start} <")), comment));
    }
    if let Some(name) = first_repeated(&columns) {
        return Err(Error::Refused {
            table: table.name.to_string(),
            detail: format!("the readers' view would have two columns named {name}"),
            remedy: format!("give the column another name than {name} in the SELECT"),
        });
    }
    let swaps: Vec<&Swapped> = swaps.iter().filter(|of| *of.view == *table.name).collect();
    if swaps.is_empty() {
        return Ok(reader(database, table, &columns, ""));
    }
    let live = (database, swaps::condition(&swaps, None, &start));
    let replays = swaps.iter().enumerate();
    let replays = replays.map(|(at, of)| (of.database.as_str(), swaps::condition(&swaps, Some(at), &start)));
    let parts: Vec<String> = std::iter::once(live)
        .chain(replays)
        .map(|(from, condition)| select(from, table, &columns, &format!("WHERE {condition}\n")))
        .collect();
    Ok(Reader { select: parts.join("\nUNION ALL\n"), ..reader(database, table, &columns, "") })
}

fn reader(database: &str, table: &Table, columns: &[Shown], rest: &str) -> Reader {
    Reader {
        name: table.name.to_string(),
        comment: table.comment.clone(),
        columns: columns.iter().map(|of| (of.name.clone(), of.comment.clone())).collect(),
        select: select(database, table, columns, rest),
    }
}

/// The newest rows of the base table in `database`; `rest` is what joins or bounds them.
fn select(database: &str, table: &Table, columns: &[Shown], rest: &str) -> String {
    format!(
        "SELECT\n    {}\nFROM {}.{} AS `rows` FINAL\n{rest}SETTINGS do_not_merge_across_partitions_select_final = 1",
        columns.iter().map(|of| shown(&of.name, &of.value)).collect::<Vec<_>>().join(",\n    "),
        identifier(database),
        identifier(&base_table(&table.name)),
    )
}

/// A column of the base table. It is qualified, because the view's own name for it would win otherwise.
fn stored(name: &str) -> String {
    format!("`rows`.{}", identifier(&physical(name)))
}

/// The column with the state of a measure.
pub(super) fn state_of(measure: &str) -> String {
    format!("{measure}{STATE_SUFFIX}")
}

pub(super) fn shown(name: &str, value: &str) -> String {
    format!("{value} AS {}", identifier(name))
}

fn first_repeated(columns: &[Shown]) -> Option<&str> {
    let names = || columns.iter().map(|of| of.name.as_str());
    names()
        .enumerate()
        .find(|(at, name)| [VERSION, IS_DELETED].contains(name) || names().take(*at).any(|earlier| earlier == *name))
        .map(|(_, name)| name)
}

/// Whether the window of a row ends at or before a column of `weir_progress`. Since that is always a boundary between
/// two windows of the view, it is so exactly when the window *starts* before it; no arithmetic of calendars is needed.
/// While `weir_progress` has no row of the view, nothing has ended. `compared` is what stands before the column: a time
/// of the window and a comparison.
pub(super) fn ends_by(database: &str, view: &ViewTable, through: &str, compared: &str) -> String {
    format!(
        "CAST(ifNull({compared} (SELECT argMax(`{through}`, `{VERSION}`) FROM {}.{} WHERE `view` = {}), 0), 'Bool')",
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
