//! From the tables that are there to those that are needed: create, add a column, keep rows longer; refuse
//! everything else by name, with what a person can do.
//!
//! Deciding is apart from doing: [`changes`] compares and returns statements, [`Layout::apply`] asks and runs them.
//! Applied twice, the second time changes nothing. What is there beyond need is left alone when ClickHouse fills it by
//! itself (a column that a person added with a default, or materialized), and refused otherwise: inserts would fill it
//! silently.
//!
//! A readers' view is made anew only where its comment doesn't say that it was made by the very statements of now. Views that
//! Weir made and offers no more are dropped: the coarser ones of a query that it keeps, and those of a database for readers
//! that read this one.
//!
//! Comments are brought up to what is said now, since people read them; those of columns that Weir says nothing of are left.
//!
//! Not here: codecs of existing columns, which may differ without harm.

use serde::Deserialize;
use weir_schemas::rows::Table;
use weir_schemas::stage::Column;
use weir_schemas::tables;

use super::client::Client;
use super::ddl::{BaseTable, MARK, column_definition};
use super::reader::{self, Making, Reader, ViewTable, comment_column};
use super::releases::{self, KeptEvents};
use super::rollup;
use super::rollup::Rollup;
use super::swaps::{self, Swapped};
use super::{identifier, literal};
use crate::error::Error;

/// Everything that a pipeline needs in its database.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Tables without windows, `weir_progress` among them.
    pub tables: Vec<Table>,
    /// Tables of kept queries.
    pub views: Vec<ViewTable>,
    /// Sources whose accepted events are kept.
    pub kept: Vec<KeptEvents>,
    /// A database that holds nothing but the readers' views, for people who shall see nothing else; `None` for none.
    pub reader_database: Option<String>,
}

/// A table or view as `system.tables` tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Existing {
    /// Its name.
    pub name: String,
    /// The engine's name.
    pub engine: String,
    /// The engine with all its clauses.
    pub engine_full: String,
    /// The expressions of ORDER BY.
    pub sorting_key: String,
    /// The expression of PARTITION BY, or nothing.
    pub partition_key: String,
    /// Its comment.
    pub comment: String,
    /// The SELECT behind a view.
    pub as_select: String,
    /// Its columns, in their order.
    #[serde(skip)]
    pub columns: Vec<ExistingColumn>,
}

impl Existing {
    /// Whether it is a view that Weir made.
    fn is_weirs_view(&self) -> bool {
        self.engine == "View" && self.comment.starts_with(MARK)
    }
}

/// A column as `system.columns` tells it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ExistingColumn {
    /// The table's name.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub column_type: String,
    /// `DEFAULT`, `MATERIALIZED`, `ALIAS`, or nothing.
    pub default_kind: String,
    /// Its comment.
    pub comment: String,
}

impl Layout {
    /// All statements for an empty database, in the order in which they run.
    ///
    /// # Errors
    /// [`Error::Refused`] with the first table that ClickHouse could not hold.
    pub fn create(&self, database: &str) -> Result<Vec<String>, Error> {
        let mut statements = vec![format!("CREATE DATABASE IF NOT EXISTS {}", identifier(database))];
        for table in self.all_tables() {
            statements.push(BaseTable::of(table)?.create(database));
        }
        statements
            .extend(self.reader_database.iter().map(|to| format!("CREATE DATABASE IF NOT EXISTS {}", identifier(to))));
        let readers = self.readers(database, &[])?;
        let offered = self.reader_database.iter().flat_map(|to| readers.iter().map(|of| of.offered(database, to)));
        let makings = readers.iter().map(|of| of.making(database)).chain(offered);
        statements.extend(makings.flat_map(|making| making.statements));
        Ok(statements)
    }

    /// Makes the database, brings its tables up to what is needed, makes the readers' views that aren't so anew, and drops
    /// those that are offered no more. Returns the statements that changed a table.
    ///
    /// # Errors
    /// [`Error::Refused`] before anything is changed, when one of the tables can't be brought up without harm.
    pub async fn apply(&self, client: &Client) -> Result<Vec<String>, Error> {
        client.create_database().await?;
        let statements = self.needed(client).await?;
        for statement in &statements {
            client.execute(statement).await?;
        }
        let database = client.database();
        let readers = self.readers(database, &swaps::active(client).await?)?;
        let there = existing(client).await?;
        make(client, &there, readers.iter().map(|reader| reader.making(database))).await?;
        if let Some(to) = &self.reader_database {
            client.in_database(to).create_database().await?;
            let offered = existing(&client.in_database(to)).await?;
            make(client, &offered, readers.iter().map(|reader| reader.offered(database, to))).await?;
            for name in no_longer_offered(database, &readers, &offered) {
                client.execute(&drop_view(to, name)).await?;
            }
        }
        for name in self.no_longer_coarser(&readers, &there) {
            client.execute(&drop_view(database, name)).await?;
        }
        Ok(statements)
    }

    /// The coarser views of kept queries that aren't right any more.
    fn no_longer_coarser<'a>(&self, readers: &[Reader], there: &'a [Existing]) -> Vec<&'a str> {
        let of = |view: &ViewTable| [Rollup::Hour, Rollup::Day].map(|rollup| rollup.name_of(&view.table.name));
        let all: Vec<String> = self.views.iter().flat_map(of).collect();
        let is_wanted = |name: &str| readers.iter().any(|reader| reader.name == name);
        let unwanted = there.iter().filter(|of| of.is_weirs_view() && all.contains(&of.name) && !is_wanted(&of.name));
        unwanted.map(|of| of.name.as_str()).collect()
    }

    /// The statements that [`Layout::apply`] would run on tables that are there or missing. Nothing is changed.
    ///
    /// # Errors
    /// [`Error::Refused`], when one of the tables can't be brought up without harm.
    pub async fn needed(&self, client: &Client) -> Result<Vec<String>, Error> {
        let existing = existing(client).await?;
        let find = |name: &str| existing.iter().find(|table| table.name == name);
        let mut statements = Vec::new();
        for table in self.all_tables() {
            let base = BaseTable::of(table)?;
            statements.extend(changes(client.database(), &base, find(&base.name))?);
        }
        let readers = self.readers(client.database(), &[])?;
        for reader in &readers {
            check_reader(client.database(), &reader.name, find(&reader.name))?;
        }
        if let Some(to) = &self.reader_database {
            let existing = self::existing(&client.in_database(to)).await?;
            for reader in &readers {
                check_reader(to, &reader.name, existing.iter().find(|table| table.name == reader.name))?;
            }
        }
        Ok(statements)
    }

    fn all_tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.iter().chain(self.views.iter().map(|view| &view.table))
    }

    /// What readers query, each behind what it reads.
    fn readers(&self, database: &str, swaps: &[Swapped]) -> Result<Vec<Reader>, Error> {
        let has = |name: &str| self.tables.iter().any(|table| *table.name == *name);
        let plain = self.tables.iter().map(|table| match &*table.name {
            tables::ALERTS if has(tables::ACKNOWLEDGEMENTS) => reader::alerts(database),
            tables::PROGRESS => reader::progress(database),
            _ => reader::plain(database, table),
        });
        let mut readers: Vec<Reader> = plain.collect();
        if has(tables::PROGRESS) && has(tables::PARTITIONS) {
            readers.push(reader::progress_by_partition(database, &self.views));
        }
        if has(tables::QUARANTINE) {
            readers.extend(releases::releases(database, &self.kept, has(tables::ALERTS)));
        }
        for view in &self.views {
            readers.push(reader::of_view(database, view, swaps)?);
            readers.extend(view.rollups.iter().map(|rollup| rollup::of_view(database, view, *rollup)));
        }
        Ok(readers)
    }
}

/// Makes the views that weren't made by the same statements, in their order: one may read those before it.
async fn make(client: &Client, there: &[Existing], makings: impl Iterator<Item = Making>) -> Result<(), Error> {
    let is_made = |of: &Making| there.iter().any(|there| there.name == of.name && there.comment == of.comment);
    for making in makings.filter(|of| !is_made(of)) {
        for statement in &making.statements {
            client.execute(statement).await?;
        }
    }
    Ok(())
}

/// The views of a database for readers that Weir made over `database` and that aren't among `readers` any more.
fn no_longer_offered<'a>(database: &str, readers: &[Reader], there: &'a [Existing]) -> Vec<&'a str> {
    let is_over = |of: &Existing| normalized(&of.as_select).ends_with(&normalized(&reader::from(database, &of.name)));
    let is_wanted = |name: &str| readers.iter().any(|reader| reader.name == name);
    let unwanted = there.iter().filter(|of| of.is_weirs_view() && is_over(of) && !is_wanted(&of.name));
    unwanted.map(|of| of.name.as_str()).collect()
}

fn drop_view(database: &str, name: &str) -> String {
    format!("DROP VIEW IF EXISTS {}.{}", identifier(database), identifier(name))
}

/// What is in the database, asked in two queries.
async fn existing(client: &Client) -> Result<Vec<Existing>, Error> {
    let database = literal(client.database());
    let mut tables: Vec<Existing> = client
        .select(&format!(
            "SELECT name, engine, engine_full, sorting_key, partition_key, comment, as_select FROM system.tables WHERE database = {database}"
        ))
        .await?;
    let columns: Vec<ExistingColumn> = client
        .select(&format!(
            "SELECT table, name, type, default_kind, comment FROM system.columns WHERE database = {database} ORDER BY table, position"
        ))
        .await?;
    for table in &mut tables {
        table.columns = columns.iter().filter(|column| column.table == table.name).cloned().collect();
    }
    Ok(tables)
}

/// The statements that turn what is there into `wanted`.
///
/// # Errors
/// [`Error::Refused`] with the first difference that can't be mended without harm.
pub fn changes(database: &str, wanted: &BaseTable, existing: Option<&Existing>) -> Result<Vec<String>, Error> {
    let Some(existing) = existing else {
        return Ok(vec![wanted.create(database)]);
    };
    let compare = Compare { database, wanted, existing };
    compare.keys()?;
    compare.surplus_columns()?;
    let mut statements = compare.columns()?;
    statements.extend(compare.retention()?);
    statements.extend(compare.comments());
    Ok(statements)
}

/// A wanted table beside the one that is there.
struct Compare<'a> {
    database: &'a str,
    wanted: &'a BaseTable,
    existing: &'a Existing,
}

impl Compare<'_> {
    fn qualified(&self) -> String {
        format!("{}.{}", identifier(self.database), identifier(&self.wanted.name))
    }

    fn refuse<T>(&self, detail: String, remedy: String) -> Result<T, Error> {
        Err(Error::Refused { table: format!("{}.{}", self.database, self.wanted.name), detail, remedy })
    }

    /// The engine and the keys: what makes a row the same row can't change under rows that are there.
    fn keys(&self) -> Result<(), Error> {
        let arguments = self.wanted.engine.trim_start_matches("ReplacingMergeTree(");
        let engine_fits = self.existing.engine.ends_with("ReplacingMergeTree")
            && normalized(&self.existing.engine_full).contains(&normalized(arguments));
        let wanted_partition = self.wanted.partition_key.as_deref().unwrap_or_default();
        for (what, there, wanted, fits) in [
            ("engine", engine_with_arguments(&self.existing.engine_full), self.wanted.engine.as_str(), engine_fits),
            (
                "sorting key",
                self.existing.sorting_key.as_str(),
                self.wanted.sorting_key.as_str(),
                without_parentheses(&normalized(&self.existing.sorting_key)) == normalized(&self.wanted.sorting_key),
            ),
            (
                "partition key",
                self.existing.partition_key.as_str(),
                wanted_partition,
                normalized(&self.existing.partition_key) == normalized(wanted_partition),
            ),
        ] {
            if !fits {
                return self.refuse(format!("its {what} is {there}, needed is {wanted}"), self.remedy_rename());
            }
        }
        Ok(())
    }

    /// Missing columns are added; a column of another type is refused.
    fn columns(&self) -> Result<Vec<String>, Error> {
        let mut statements = Vec::new();
        let mut previous: Option<&Column> = None;
        for (at, column) in self.wanted.columns.iter().enumerate() {
            let there = self.existing.columns.iter().find(|there| there.name == column.name);
            match there {
                Some(there) if normalized(&there.column_type) != normalized(&column.column_type.to_string()) => {
                    let detail =
                        format!("column {} is {}, needed is {}", column.name, there.column_type, column.column_type);
                    return self.refuse(detail, self.remedy_rename());
                }
                Some(_) => {}
                None if at < self.wanted.key_columns => {
                    return self.refuse(format!("key column {} is missing", column.name), self.remedy_rename());
                }
                None => {
                    let place =
                        previous.map_or("FIRST".to_owned(), |before| format!("AFTER {}", identifier(&before.name)));
                    statements.push(format!(
                        "ALTER TABLE {} ADD COLUMN IF NOT EXISTS {} {place}",
                        self.qualified(),
                        column_definition(column)
                    ));
                }
            }
            previous = Some(column);
        }
        Ok(statements)
    }

    /// A column that nobody fills any more would turn into zeros for new rows.
    fn surplus_columns(&self) -> Result<(), Error> {
        let is_wanted = |name: &str| self.wanted.columns.iter().any(|column| column.name == name);
        let surplus =
            self.existing.columns.iter().find(|there| there.default_kind.is_empty() && !is_wanted(&there.name));
        match surplus {
            None => Ok(()),
            Some(column) => self.refuse(
                format!("column {} is there, but the pipeline does not write it any more", column.name),
                format!(
                    "put it back into the pipeline, or drop it with ALTER TABLE {} DROP COLUMN {}, or {}",
                    self.qualified(),
                    identifier(&column.name),
                    self.remedy_rename()
                ),
            ),
        }
    }

    /// Rows may be kept longer; keeping them for a shorter time deletes some, which a person has to say.
    fn retention(&self) -> Result<Option<String>, Error> {
        let there = retention_days(&self.existing.engine_full);
        let wanted = self.wanted.retention.as_ref().map(|(_, days)| *days);
        let table = self.qualified();
        match (there, self.wanted.ttl()) {
            _ if there == wanted => Ok(None),
            (_, None) => Ok(Some(format!("ALTER TABLE {table} REMOVE TTL"))),
            (Some(there), Some(ttl)) if wanted > Some(there) => {
                Ok(Some(format!("ALTER TABLE {table} MODIFY TTL {ttl}")))
            }
            (_, Some(ttl)) => self.refuse(
                format!("retention would shrink to {} days and delete rows", wanted.unwrap_or_default()),
                format!("if they may go, run ALTER TABLE {table} MODIFY TTL {ttl}, then start Weir again"),
            ),
        }
    }

    /// One statement for all comments that say something else now; a column that is just being added brings its own.
    fn comments(&self) -> Option<String> {
        let there = |name: &str| self.existing.columns.iter().find(|there| there.name == name);
        let differs = |column: &&Column| {
            !column.comment.is_empty() && there(&column.name).is_some_and(|there| there.comment != column.comment)
        };
        let columns = self.wanted.columns.iter().filter(differs);
        let mut changes: Vec<String> = columns.map(|column| comment_column(&column.name, &column.comment)).collect();
        if self.existing.comment != self.wanted.comment {
            changes.push(format!("MODIFY COMMENT {}", literal(&self.wanted.comment)));
        }
        (!changes.is_empty()).then(|| format!("ALTER TABLE {} {}", self.qualified(), changes.join(", ")))
    }

    fn remedy_rename(&self) -> String {
        "give the view or source another name, so that a new table is made, or move this one away with RENAME TABLE"
            .to_owned()
    }
}

/// Refuses to replace what Weir did not make: CREATE OR REPLACE VIEW would drop a table without a word.
fn check_reader(database: &str, name: &str, existing: Option<&Existing>) -> Result<(), Error> {
    match existing {
        Some(there) if !there.is_weirs_view() => Err(Error::Refused {
            table: format!("{database}.{name}"),
            detail: format!("a {} of this name is there that Weir did not make", there.engine),
            remedy: "give Weir a database of its own, or the view another name".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// SQL without what ClickHouse writes in its own way when it tells it back.
fn normalized(sql: &str) -> String {
    sql.chars().filter(|c| !matches!(c, ' ' | '`' | '\n')).collect()
}

/// `ReplacingMergeTree(...)` without the clauses behind it.
fn engine_with_arguments(engine_full: &str) -> &str {
    engine_full.find(')').and_then(|end| engine_full.get(..=end)).unwrap_or(engine_full)
}

/// A key of one column comes back in the parentheses that CREATE wrote around it, a longer one without.
fn without_parentheses(key: &str) -> &str {
    key.strip_prefix('(').and_then(|key| key.strip_suffix(')')).unwrap_or(key)
}

/// The days of `TTL ... toIntervalDay(90)`.
fn retention_days(engine_full: &str) -> Option<u32> {
    let (_, ttl) = engine_full.split_once(" TTL ")?;
    let (_, days) = ttl.split_once("toIntervalDay(")?;
    days.split_once(')')?.0.parse().ok()
}
