//! Follow: a diff that is kept current while the live side goes on writing.
//!
//! Both sides are read once and held (`kept`); from then on only what has changed is read. Every row that the live pipeline
//! writes has a version that is greater than those before, so a look asks the base table for keys with the greatest version
//! that was seen or a greater one, and reads these rows anew as readers see them: a key that has none any more was removed. What a
//! look reads twice changes nothing.
//!
//! Read anew from the beginning is what versions don't tell: a replay that was swapped in or out, and a table from which the
//! newest rows have gone, as retention and a restore by hand do it. That single older rows expire is seen then, and not before.
//!
//! Not here: the replay's side isn't looked at again, since a complete replay writes no more.

use serde::Deserialize;
use weir_sinks::DeliveryError;
use weir_sinks::clickhouse::swaps::{self, Swapped};
use weir_sinks::clickhouse::{base_table, ddl, identifier};

use super::kept::Kept;
use super::{Options, Side, Sides, ViewDiff};
use crate::compare::{Error, Meeting, Question, Row, key_text};
use crate::rerun::range::Range;

/// Why a diff can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// ClickHouse said no, or nothing.
    #[error(transparent)]
    Asked(#[from] Error),
    /// More rows than may be held.
    #[error("view `{view}`: both sides have more than {most} rows together, which would have to be held in memory")]
    TooMany {
        /// The view.
        view: String,
        /// How many may be held.
        most: u64,
    },
}

impl FollowError {
    /// Whether it may go by itself.
    pub fn is_passing(&self) -> bool {
        matches!(self, FollowError::Asked(Error::ClickHouse { error: DeliveryError::Retriable { .. }, .. }))
    }
}

/// A view of which the difference is kept current.
pub struct Followed {
    sides: Sides,
    range: Range,
    options: Options,
    /// Rows of both sides that may be held.
    most: u64,
    question: Question,
    kept: Kept,
    /// The greatest version of the live rows that was read.
    version: u64,
    /// What stands in the place of live rows.
    swaps: Vec<Swapped>,
}

/// A key whose row was written, and its version.
type Written = (u64, String, u64);

impl Followed {
    /// Reads both sides of windows that begin within `range`, and holds as many rows as `most`.
    ///
    /// # Errors
    /// When ClickHouse can't be asked, or there are more rows.
    pub async fn begin(sides: Sides, range: Range, options: Options, most: u64) -> Result<Followed, FollowError> {
        let (question, shape) = sides.asked(range, options.tolerance).await?;
        // Before the rows: what is written meanwhile is read again by the first look.
        let swaps = swapped(&sides).await?;
        let version = newest(&sides, &question).await?;
        let mut kept = Kept::new(shape);
        let mut is_full = false;
        let take = |meeting| {
            let (live, replay) = match meeting {
                Meeting::First(live) => (Some(live), None),
                Meeting::Second(replay) => (None, Some(replay)),
                Meeting::Both(live, replay) => (Some(live), Some(replay)),
            };
            for (side, row) in [(Side::Live, live), (Side::Replay, replay)] {
                is_full |= kept.rows() > most;
                if let Some(row) = row.filter(|_| !is_full) {
                    kept.set(side, (row.hash, row.key), Some(row.text));
                }
            }
        };
        question.merge(&sides.client, &sides.of_live(), &sides.of_replay(), take).await?;
        kept.settle();
        let followed = Followed { sides, range, options, most, question, kept, version, swaps };
        followed.fits(is_full)?;
        Ok(followed)
    }

    /// Reads what the live side has changed since the last look.
    ///
    /// # Errors
    /// When ClickHouse can't be asked, or there are more rows than may be held. After an error that passes, the next look reads
    /// what this one has left.
    pub async fn look(&mut self) -> Result<(), FollowError> {
        let written = written(&self.sides, &self.question, self.version).await?;
        let has_lost = self.version > 0 && written.is_empty();
        if has_lost || swapped(&self.sides).await? != self.swaps {
            *self = Followed::begin(self.sides.clone(), self.range, self.options, self.most).await?;
            return Ok(());
        }
        if written.is_empty() {
            return Ok(());
        }
        let mut rows: Vec<Row> = Vec::new();
        let question = changed(&self.sides, &self.question, self.version);
        question.rows(&self.sides.client, &self.sides.of_live(), |row| rows.push(row)).await?;
        let there: std::collections::BTreeSet<&str> = rows.iter().map(|row| row.key.as_str()).collect();
        for (hash, key, version) in &written {
            self.version = self.version.max(*version);
            if !there.contains(key.as_str()) {
                self.kept.set(Side::Live, (*hash, key.clone()), None);
            }
        }
        for row in rows {
            self.kept.set(Side::Live, (row.hash, row.key), Some(row.text));
        }
        self.kept.settle();
        self.fits(false)
    }

    fn fits(&self, is_full: bool) -> Result<(), FollowError> {
        if is_full || self.kept.rows() > self.most {
            return Err(FollowError::TooMany { view: self.question.view.clone(), most: self.most });
        }
        Ok(())
    }

    /// What differs, as of the last look.
    pub fn told(&self) -> ViewDiff {
        self.kept.told(self.options.examples)
    }

    /// Rows that are held of both sides together.
    pub fn rows(&self) -> u64 {
        self.kept.rows()
    }
}

/// What stands in the place of live rows of this view.
async fn swapped(sides: &Sides) -> Result<Vec<Swapped>, Error> {
    let active = swaps::active(&sides.client).await.map_err(|error| failed(sides, error))?;
    Ok(active.into_iter().filter(|of| of.view == sides.live.name).collect())
}

/// The greatest version of the live rows that are asked for, tombstones included; 0 where there is none.
async fn newest(sides: &Sides, question: &Question) -> Result<u64, Error> {
    #[derive(Deserialize)]
    struct Found {
        version: String,
    }
    let (from, condition) = (stored(sides, question), question.conditions());
    let sql = format!("SELECT toString(max(`{}`)) AS version FROM {from} WHERE {condition}", ddl::VERSION);
    let found = sides.client.select::<Found>(&sql).await.map_err(|error| failed(sides, error))?;
    Ok(found.into_iter().next().and_then(|found| found.version.parse().ok()).unwrap_or_default())
}

/// Keys whose live rows have this version or a greater one, each with its greatest.
async fn written(sides: &Sides, question: &Question, version: u64) -> Result<Vec<Written>, Error> {
    #[derive(Deserialize)]
    struct Found {
        // No column of a view has such names.
        #[serde(rename = "weir hash")]
        hash: String,
        #[serde(rename = "weir key")]
        key: String,
        #[serde(rename = "weir version")]
        version: String,
    }
    let sql = format!(
        "SELECT toString(sipHash64(`weir key`)) AS `weir hash`, {key} AS `weir key`, \
         toString(max(`{of}`)) AS `weir version` FROM {from} WHERE {condition} GROUP BY `weir key`",
        key = key_text(&question.key),
        of = ddl::VERSION,
        from = stored(sides, question),
        condition = since(question, version),
    );
    let found = sides.client.select::<Found>(&sql).await.map_err(|error| failed(sides, error))?;
    let number = |text: &str| {
        text.parse().map_err(|_| Error::Answer { view: question.view.clone(), detail: format!("{text} is no number") })
    };
    found.into_iter().map(|of| Ok((number(&of.hash)?, of.key, number(&of.version)?))).collect()
}

/// The question after these rows alone, as readers see them.
fn changed(sides: &Sides, question: &Question, version: u64) -> Question {
    let (from, condition) = (stored(sides, question), since(question, version));
    let (window, key) = (identifier(&question.window), key_text(&question.key));
    let among = |what: &str| format!("{what} IN (SELECT {what} FROM {from} WHERE {condition})");
    // By the window first, whose column leads in the base table's order.
    let own = question.condition.iter().map(|condition| format!("({condition})"));
    let conditions: Vec<String> = own.chain([among(&window), among(&key)]).collect();
    Question { condition: Some(conditions.join(" AND ")), ..question.clone() }
}

/// Rows that are asked for and have this version or a greater one.
fn since(question: &Question, version: u64) -> String {
    format!("`{}` >= {version} AND {}", ddl::VERSION, question.conditions())
}

/// The base table with the key's columns named as the view names them, in parentheses.
fn stored(sides: &Sides, question: &Question) -> String {
    let key = question.key.iter().map(|name| format!("{} AS {}", identifier(&ddl::physical(name)), identifier(name)));
    let columns: Vec<String> = key.chain([format!("`{}`", ddl::VERSION)]).collect();
    let base = sides.client.qualified(&base_table(&sides.live.name));
    format!("(SELECT {} FROM {base})", columns.join(", "))
}

fn failed(sides: &Sides, error: DeliveryError) -> Error {
    Error::ClickHouse { view: sides.live.name.clone(), error }
}
