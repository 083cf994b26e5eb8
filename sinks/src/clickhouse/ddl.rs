//! The base table of a [`Table`]: its CREATE statement, and the few choices behind it.
//!
//! **Sorting key.** `toDate(time, 'UTC')`, then the other key columns in their order, then the time as a number.
//! Dashboards ask for a range of time, mostly of one tenant: the day leads, so that a range reads only its days,
//! and within a day a tenant's rows lie together. The time stands last as a *number* on purpose: were the
//! column itself in the key, ClickHouse would match a condition on it there, at the end, instead of at the day in
//! front (measured on 4.3 million rows of a month, 100 groups a minute: one day of one tenant reads 6 granules of
//! 528 this way, 112 with the column itself last, 18 with the time in front; one hour of all reads 18, 528 and 2).
//! Where the time is a date, it leads by itself. A view puts its dimensions in the order in which they stand in its
//! SELECT: the one that dashboards filter by most should come first.
//!
//! **Partitions** are months of the same time, in UTC whatever the column's zone, so that they do not depend
//! on a server's setting. The time is part of the key, so the key fixes partition and retention.
//!
//! **Names.** A dot in a column's name becomes a colon: ClickHouse takes dotted arrays and maps of one prefix for
//! one nested table, makes them share their lengths, and refuses rows where they differ. The reader's view shows
//! the dotted name.

use weir_schemas::rows::{Table, TableKind};
use weir_schemas::stage::Column;
use weir_schemas::types::ColumnType;

use super::{base_table, identifier, literal};
use crate::error::Error;
use crate::row_binary;

/// The column that `ReplacingMergeTree` keeps the greatest of.
pub const VERSION: &str = "_version";
/// The column that marks a tombstone with 1.
pub const IS_DELETED: &str = "_is_deleted";
/// How comments of what Weir made begin; a view without it is somebody else's and never replaced.
pub const MARK: &str = "Weir: ";

/// A base table, ready to be created or compared with what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseTable {
    /// Its name in the database.
    pub name: String,
    /// Its columns with their physical names, the two of Weir's own last.
    pub columns: Vec<Column>,
    /// How many of them are the natural key.
    pub key_columns: usize,
    /// The engine with its arguments.
    pub engine: String,
    /// The expression behind PARTITION BY.
    pub partition_key: Option<String>,
    /// The expressions of ORDER BY, joined by commas.
    pub sorting_key: String,
    /// The column that retention counts from, and its days.
    pub retention: Option<(String, u32)>,
    /// The table's comment.
    pub comment: String,
}

/// A column's name in the base table.
pub fn physical(name: &str) -> String {
    name.replace('.', ":")
}

impl BaseTable {
    /// The base table of `table`.
    ///
    /// # Errors
    /// [`Error::Refused`] when ClickHouse could not hold such a table, with the column that is to blame.
    pub fn of(table: &Table) -> Result<BaseTable, Error> {
        check(table)?;
        let stored = |column: &Column| Column {
            name: physical(&column.name),
            column_type: column.column_type.clone(),
            comment: told(column),
        };
        let mut columns: Vec<Column> = table.columns.iter().map(stored).collect();
        columns.push(own(
            VERSION,
            ColumnType::UInt(weir_schemas::types::Width::W64),
            "the row with the greatest counts: generation and epoch",
        ));
        let engine = match table.kind {
            TableKind::Keyed => {
                columns.push(own(
                    IS_DELETED,
                    ColumnType::UInt(weir_schemas::types::Width::W8),
                    "1 where the key has no row any more",
                ));
                format!("ReplacingMergeTree({VERSION}, {IS_DELETED})")
            }
            TableKind::Appended => format!("ReplacingMergeTree({VERSION})"),
        };
        let time = table.partition_by.map(|at| &columns[at]);
        Ok(BaseTable {
            name: base_table(&table.name),
            key_columns: table.key_columns,
            engine,
            partition_key: time
                .map(|time| format!("toYYYYMM({}{})", identifier(&time.name), zone_argument(&time.column_type))),
            sorting_key: sorting_key(&columns[..table.key_columns], table.partition_by),
            retention: time.and_then(|time| Some((time.name.clone(), table.retention_days?))),
            comment: format!("{MARK}{}", table.comment),
            columns,
        })
    }

    /// The statement that creates it in `database`, unless it is there.
    pub fn create(&self, database: &str) -> String {
        let columns: Vec<String> =
            self.columns.iter().map(|column| format!("    {}", column_definition(column))).collect();
        let mut sql = format!(
            "CREATE TABLE IF NOT EXISTS {}.{}\n(\n{}\n)\nENGINE = {}\n",
            identifier(database),
            identifier(&self.name),
            columns.join(",\n"),
            self.engine
        );
        if let Some(partition_key) = &self.partition_key {
            sql += &format!("PARTITION BY {partition_key}\n");
        }
        sql += &format!("ORDER BY ({})\n", self.sorting_key);
        if let Some(ttl) = self.ttl() {
            sql += &format!("TTL {ttl}\n");
        }
        sql + &format!("SETTINGS allow_nullable_key = 1\nCOMMENT {}", literal(&self.comment))
    }

    /// The expression behind TTL.
    pub fn ttl(&self) -> Option<String> {
        self.retention.as_ref().map(|(column, days)| expires(&identifier(column), *days))
    }
}

/// When a row of this time goes, where rows are kept for so many days.
pub(super) fn expires(time: &str, days: u32) -> String {
    format!("toDateTime({time}, 'UTC') + toIntervalDay({days})")
}

/// `name type COMMENT '...'`, as CREATE and ADD COLUMN write it.
pub(crate) fn column_definition(column: &Column) -> String {
    let definition = format!("{} {}", identifier(&column.name), column.column_type);
    if column.comment.is_empty() { definition } else { format!("{definition} COMMENT {}", literal(&column.comment)) }
}

/// What is said of a column; behind it, of a time, whose clock shows it, where it doesn't say so itself.
pub(super) fn told(column: &Column) -> String {
    match column.column_type.without_null() {
        ColumnType::DateTime(Some(zone)) | ColumnType::DateTime64(_, Some(zone))
            if !column.comment.is_empty() && !column.comment.contains(&**zone) =>
        {
            format!("{} ({zone})", column.comment)
        }
        _ => column.comment.clone(),
    }
}

fn own(name: &str, column_type: ColumnType, comment: &str) -> Column {
    Column { name: name.to_owned(), column_type, comment: comment.to_owned() }
}

/// Dates have no zone and functions on them take none.
fn zone_argument(column_type: &ColumnType) -> &'static str {
    if matches!(column_type, ColumnType::Date | ColumnType::Date32) { "" } else { ", 'UTC'" }
}

fn sorting_key(key: &[Column], time: Option<usize>) -> String {
    let others = key.iter().enumerate().filter(|(at, _)| Some(*at) != time).map(|(_, column)| identifier(&column.name));
    let Some(time) = time.map(|at| &key[at]) else {
        return others.collect::<Vec<_>>().join(", ");
    };
    let name = identifier(&time.name);
    let number = match &time.column_type {
        ColumnType::DateTime(_) => format!("toUnixTimestamp({name})"),
        ColumnType::DateTime64(9, _) => format!("toUnixTimestamp64Nano({name})"),
        ColumnType::DateTime64(..) => format!("toUnixTimestamp64Micro({name})"),
        _ => return std::iter::once(name).chain(others).collect::<Vec<_>>().join(", "),
    };
    let day = format!("toDate({name}, 'UTC')");
    std::iter::once(day).chain(others).chain([number]).collect::<Vec<_>>().join(", ")
}

fn check(table: &Table) -> Result<(), Error> {
    let refuse = |detail: String, remedy: &str| {
        Err(Error::Refused { table: table.name.to_string(), detail, remedy: remedy.to_owned() })
    };
    if table.key_columns == 0 || table.key_columns > table.columns.len() {
        return refuse(format!("{} key columns of {}", table.key_columns, table.columns.len()), "declare at least one");
    }
    if table.partition_by.is_some_and(|at| at >= table.key_columns) {
        return refuse("the partition's column is not part of the key".to_owned(), "declare it within the key");
    }
    for (at, column) in table.columns.iter().enumerate() {
        let name = &column.name;
        if [VERSION, IS_DELETED].contains(&name.as_str()) {
            return refuse(format!("column {name} is Weir's own"), "give the column another name");
        }
        let clashes = |other: &&Column| physical(&other.name) == physical(name);
        if let Some(other) = table.columns[..at].iter().find(clashes) {
            return refuse(format!("columns {} and {name} have one name", other.name), "rename one of them");
        }
        if let Err(detail) = row_binary::check(&column.column_type) {
            return refuse(format!("column {name}: {detail}"), "convert the column to another type");
        }
        if at < table.key_columns && matches!(column.column_type, ColumnType::AggregateState(_) | ColumnType::Map(..)) {
            return refuse(
                format!("column {name} is a {} within the key", column.column_type),
                "group by something that has an order",
            );
        }
    }
    let time = table.partition_by.map(|at| &table.columns[at]);
    if let Some(time) = time.filter(|time| !is_time(&time.column_type)) {
        return refuse(
            format!("column {} is a {} and cuts no months", time.name, time.column_type),
            "use a date or a time",
        );
    }
    Ok(())
}

fn is_time(column_type: &ColumnType) -> bool {
    matches!(column_type, ColumnType::Date | ColumnType::Date32 | ColumnType::DateTime(_) | ColumnType::DateTime64(..))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::{Expect, expect};
    use weir_schemas::tables;
    use weir_schemas::types::Width;

    use super::super::reader::{ViewTable, of_view, progress};
    use super::super::rollup::{self, Rollup};
    use super::*;

    fn check_sql(sql: &str, expected: Expect) {
        expected.assert_eq(sql);
    }

    fn column(name: &str, column_type: ColumnType, comment: &str) -> Column {
        Column { name: name.to_owned(), column_type, comment: comment.to_owned() }
    }

    fn revenue() -> ViewTable {
        let columns = vec![
            column("window_start", ColumnType::DateTime(Some(Arc::from("UTC"))), "start of the window"),
            column("tenant", ColumnType::LowCardinality, ""),
            column("geo.country", ColumnType::String.nullable(), "it's a code"),
            column("orders", ColumnType::UInt(Width::W64), ""),
            column("users", ColumnType::AggregateState("uniqExact, String".to_owned()), ""),
            column("revision", ColumnType::UInt(Width::W32), ""),
        ];
        ViewTable {
            table: Table {
                name: Arc::from("revenue_by_minute"),
                comment: "Revenue by minute".to_owned(),
                columns,
                key_columns: 3,
                partition_by: Some(0),
                kind: TableKind::Keyed,
                retention_days: Some(90),
            },
            select: vec![1, 2, 0, 4, 3],
            window: 0,
            zone: None,
            source: "events".to_owned(),
            merges: vec![None, None, None, Some("sum".to_owned()), Some("uniqExactMerge".to_owned()), None],
            rollups: vec![Rollup::Hour, Rollup::Day],
        }
    }

    #[test]
    fn a_kept_query_has_this_base_table() {
        let base = BaseTable::of(&revenue().table).expect("a table");
        check_sql(
            &base.create("weir"),
            expect![[r#"
            CREATE TABLE IF NOT EXISTS `weir`.`revenue_by_minute__rows`
            (
                `window_start` DateTime('UTC') COMMENT 'start of the window (UTC)',
                `tenant` LowCardinality(String),
                `geo:country` Nullable(String) COMMENT 'it\'s a code',
                `orders` UInt64,
                `users` AggregateFunction(uniqExact, String),
                `revision` UInt32,
                `_version` UInt64 COMMENT 'the row with the greatest counts: generation and epoch',
                `_is_deleted` UInt8 COMMENT '1 where the key has no row any more'
            )
            ENGINE = ReplacingMergeTree(_version, _is_deleted)
            PARTITION BY toYYYYMM(`window_start`, 'UTC')
            ORDER BY (toDate(`window_start`, 'UTC'), `tenant`, `geo:country`, toUnixTimestamp(`window_start`))
            TTL toDateTime(`window_start`, 'UTC') + toIntervalDay(90)
            SETTINGS allow_nullable_key = 1
            COMMENT 'Weir: Revenue by minute'"#]],
        );
    }

    #[test]
    fn a_kept_query_has_this_readers_view() {
        check_sql(
            &of_view("weir", &revenue(), &[]).expect("a view").making("weir").statements.join("\n;\n"),
            expect![[r#"
                CREATE OR REPLACE VIEW `weir`.`revenue_by_minute` AS
                SELECT
                    `rows`.`tenant` AS `tenant`,
                    `rows`.`geo:country` AS `geo.country`,
                    `rows`.`window_start` AS `window_start`,
                    finalizeAggregation(`rows`.`users`) AS `users`,
                    `rows`.`orders` AS `orders`,
                    `rows`.`revision` AS `revision`,
                    `rows`.`users` AS `users_state`,
                    CAST(ifNull(`rows`.`window_start` < (SELECT argMax(`complete_through`, `_version`) FROM `weir`.`weir_progress__rows` WHERE `view` = 'revenue_by_minute'), 0), 'Bool') AS `is_closed`,
                    CAST(ifNull(`rows`.`window_start` < (SELECT argMax(`final_through`, `_version`) FROM `weir`.`weir_progress__rows` WHERE `view` = 'revenue_by_minute'), 0), 'Bool') AS `is_final`
                FROM `weir`.`revenue_by_minute__rows` AS `rows` FINAL
                SETTINGS do_not_merge_across_partitions_select_final = 1
                COMMENT 'Weir: Revenue by minute'
                ;
                ALTER TABLE `weir`.`revenue_by_minute`
                    COMMENT COLUMN `geo.country` 'it\'s a code',
                    COMMENT COLUMN `window_start` 'start of the window (UTC)',
                    COMMENT COLUMN `users_state` 'the state of users, to be merged over any range',
                    COMMENT COLUMN `is_closed` 'whether every event of the window that isn\'t late is in',
                    COMMENT COLUMN `is_final` 'whether the row can change no more by itself',
                    MODIFY COMMENT 'Weir: Revenue by minute [ffbd6b396ad608bd]'"#]],
        );
    }

    #[test]
    fn its_days_are_merged_from_states() {
        check_sql(
            &rollup::of_view("weir", &revenue(), Rollup::Day).making("weir").statements.join("\n;\n"),
            expect![[r#"
            CREATE OR REPLACE VIEW `weir`.`revenue_by_minute__by_day` AS
            SELECT
                `fine`.`tenant` AS `tenant`,
                `fine`.`geo.country` AS `geo.country`,
                toDate(`fine`.`window_start`, 'UTC') AS `window_start`,
                uniqExactMerge(`fine`.`users_state`) AS `users`,
                sum(`fine`.`orders`) AS `orders`,
                sum(`fine`.`revision`) AS `revision`,
                uniqExactMergeState(`fine`.`users_state`) AS `users_state`,
                CAST(ifNull(toDateTime64(addDays(toDate(`fine`.`window_start`, 'UTC'), 1), 6, 'UTC') <= (SELECT argMax(`complete_through`, `_version`) FROM `weir`.`weir_progress__rows` WHERE `view` = 'revenue_by_minute'), 0), 'Bool') AS `is_closed`,
                CAST(ifNull(toDateTime64(addDays(toDate(`fine`.`window_start`, 'UTC'), 1), 6, 'UTC') <= (SELECT argMax(`final_through`, `_version`) FROM `weir`.`weir_progress__rows` WHERE `view` = 'revenue_by_minute'), 0), 'Bool') AS `is_final`
            FROM `weir`.`revenue_by_minute` AS `fine`
            WHERE toDateTime(toStartOfDay(`fine`.`window_start`, 'UTC'), 'UTC') + toIntervalDay(90) > now()
            GROUP BY `fine`.`tenant`, `fine`.`geo.country`, toDate(`fine`.`window_start`, 'UTC')
            COMMENT 'Weir: revenue_by_minute by day, merged when it is asked. Only days of which every row is kept: rows go after 90 days. Revenue by minute'
            ;
            ALTER TABLE `weir`.`revenue_by_minute__by_day`
                COMMENT COLUMN `geo.country` 'it\'s a code',
                COMMENT COLUMN `window_start` 'start of the day (UTC)',
                COMMENT COLUMN `users_state` 'the state of users, to be merged over any range',
                COMMENT COLUMN `is_closed` 'whether every event of the window that isn\'t late is in',
                COMMENT COLUMN `is_final` 'whether the row can change no more by itself',
                MODIFY COMMENT 'Weir: revenue_by_minute by day, merged when it is asked. Only days of which every row is kept: rows go after 90 days. Revenue by minute [231d3f3f57372d2e]'"#]],
        );
    }

    #[test]
    fn progress_has_these_two() {
        let base = BaseTable::of(&tables::progress()).expect("a table");
        check_sql(
            &base.create("weir"),
            expect![[r#"
            CREATE TABLE IF NOT EXISTS `weir`.`weir_progress__rows`
            (
                `view` LowCardinality(String) COMMENT 'the view\'s name',
                `complete_through` DateTime64(6, 'UTC') COMMENT 'every window that ends here or before is closed (UTC)',
                `final_through` DateTime64(6, 'UTC') COMMENT 'every window that ends here or before can change no more by itself (UTC)',
                `epoch` UInt64 COMMENT 'the committed epoch this speaks of',
                `held_back_by` String COMMENT 'the partition with the least watermark, as topic/partition',
                `committed_at` DateTime64(6, 'UTC') COMMENT 'when the epoch was committed, by Weir\'s clock (UTC)',
                `_version` UInt64 COMMENT 'the row with the greatest counts: generation and epoch',
                `_is_deleted` UInt8 COMMENT '1 where the key has no row any more'
            )
            ENGINE = ReplacingMergeTree(_version, _is_deleted)
            ORDER BY (`view`)
            SETTINGS allow_nullable_key = 1
            COMMENT 'Weir: How far each view is complete; written after all rows of the epoch'"#]],
        );
        check_sql(
            &progress("weir").making("weir").statements.join("\n;\n"),
            expect![[r#"
                CREATE OR REPLACE VIEW `weir`.`weir_progress` AS
                SELECT
                    `rows`.`view` AS `view`,
                    `rows`.`complete_through` AS `complete_through`,
                    `rows`.`final_through` AS `final_through`,
                    `rows`.`epoch` AS `epoch`,
                    `rows`.`held_back_by` AS `held_back_by`,
                    `rows`.`committed_at` AS `committed_at`,
                    if(`rows`.`complete_through` > '1900-01-01', greatest(0, dateDiff('millisecond', `rows`.`complete_through`, now64(6))), NULL) AS `lag_ms`,
                    greatest(0, dateDiff('millisecond', `rows`.`committed_at`, now64(6))) AS `freshness_ms`
                FROM `weir`.`weir_progress__rows` AS `rows` FINAL
                SETTINGS do_not_merge_across_partitions_select_final = 1
                COMMENT 'Weir: How far each view is complete; written after all rows of the epoch'
                ;
                ALTER TABLE `weir`.`weir_progress`
                    COMMENT COLUMN `view` 'the view\'s name',
                    COMMENT COLUMN `complete_through` 'every window that ends here or before is closed (UTC)',
                    COMMENT COLUMN `final_through` 'every window that ends here or before can change no more by itself (UTC)',
                    COMMENT COLUMN `epoch` 'the committed epoch this speaks of',
                    COMMENT COLUMN `held_back_by` 'the partition with the least watermark, as topic/partition',
                    COMMENT COLUMN `committed_at` 'when the epoch was committed, by Weir\'s clock (UTC)',
                    COMMENT COLUMN `lag_ms` 'milliseconds from complete_through to now, 0 where everything is closed; null while nothing is known',
                    COMMENT COLUMN `freshness_ms` 'milliseconds since the commit that this row speaks of',
                    MODIFY COMMENT 'Weir: How far each view is complete; written after all rows of the epoch [40e8dd4f77a5899c]'"#]],
        );
    }

    #[test]
    fn the_sorting_key_follows_the_type_of_the_time() {
        let key = |time: ColumnType| {
            let mut table = revenue().table;
            table.columns[0].column_type = time;
            BaseTable::of(&table).expect("a table").sorting_key
        };
        let utc = || Some(Arc::from("UTC"));
        for (time, expected) in [
            (ColumnType::Date, "`window_start`, `tenant`, `geo:country`"),
            (
                ColumnType::DateTime(utc()),
                "toDate(`window_start`, 'UTC'), `tenant`, `geo:country`, toUnixTimestamp(`window_start`)",
            ),
            (
                ColumnType::DateTime64(3, utc()),
                "toDate(`window_start`, 'UTC'), `tenant`, `geo:country`, toUnixTimestamp64Micro(`window_start`)",
            ),
            (
                ColumnType::DateTime64(9, utc()),
                "toDate(`window_start`, 'UTC'), `tenant`, `geo:country`, toUnixTimestamp64Nano(`window_start`)",
            ),
        ] {
            assert_eq!(key(time), expected);
        }
    }

    #[test]
    fn what_clickhouse_could_not_hold_is_refused_by_column() {
        let refused = |change: fn(&mut ViewTable), expected: &str| {
            let mut view = revenue();
            change(&mut view);
            let base = BaseTable::of(&view.table).map(drop);
            let error = base.and_then(|()| of_view("weir", &view, &[]).map(drop)).expect_err("is refused").to_string();
            assert!(error.starts_with("table revenue_by_minute: ") && error.contains(expected), "{error}");
        };
        refused(|view| view.table.columns[3].name = "_version".to_owned(), "column _version is Weir's own");
        refused(|view| view.table.columns[3].name = "is_closed".to_owned(), "two columns named is_closed");
        refused(|view| view.table.columns[3].name = "users_state".to_owned(), "two columns named users_state");
        refused(|view| view.table.columns[3].name = "geo:country".to_owned(), "columns geo.country and geo:country");
        refused(
            |view| view.table.columns[3].column_type = ColumnType::DateTime64(2, None),
            "column orders: DateTime64(2)",
        );
        refused(
            |view| view.table.columns[1].column_type = ColumnType::AggregateState("sum, UInt8".to_owned()),
            "column tenant is a AggregateFunction(sum, UInt8) within the key",
        );
        refused(
            |view| view.table.partition_by = Some(1),
            "column tenant is a LowCardinality(String) and cuts no months",
        );
        refused(|view| view.table.partition_by = Some(4), "not part of the key");
        refused(|view| view.table.key_columns = 0, "0 key columns of 6");
    }
}
