//! Swap: a replay's rows in the place of live ones, for their readers, and back.
//!
//! A swap is one row of `weir_swaps` and one replacement of the readers' view made from that table, which coarser views and
//! those of the readers' database read; no row is copied or deleted. Before the range and behind it readers see the live rows, which the live pipeline goes on writing.
//!
//! Invariants: only final windows are swapped, so that no live correction is hidden; a swap or undo that was killed is
//! completed by giving it again, and by the next start of the pipeline.
//!
//! Not here: dropping a replay that is in place (`rerun::record` and the command line refuse it).

use weir_schemas::time::EventTime;
use weir_schemas::types::ColumnType;
use weir_sinks::DeliveryError;
use weir_sinks::clickhouse::swaps::{self, Act, Swapped};
use weir_sinks::clickhouse::{Client, Layout, ViewTable, reader};

use crate::rerun::range::{Range, final_through, shown};

/// Why nothing was swapped.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// ClickHouse said no, or nothing.
    #[error("clickhouse: {0}")]
    ClickHouse(#[from] DeliveryError),
    /// It may not be.
    #[error("view `{view}`: {detail}")]
    Refused {
        /// The view.
        view: String,
        /// Why not.
        detail: String,
        /// What a person can do.
        remedy: String,
    },
}

/// A view whose rows are to come from a replay, or from the live pipeline again.
pub struct Swap<'a> {
    /// The live ClickHouse.
    pub client: &'a Client,
    /// The live pipeline's tables.
    pub live: &'a Layout,
    /// The replay's tables.
    pub replay: &'a Layout,
    /// The replay's database.
    pub database: &'a str,
    /// The replay.
    pub run: &'a str,
    /// Who does it.
    pub by: &'a str,
    /// Why.
    pub why: &'a str,
}

impl Swap<'_> {
    /// Puts the replay's rows of `view` in place, for windows that begin within `range`.
    ///
    /// # Errors
    /// When the tables differ, when the live windows aren't final, when ClickHouse can't be asked.
    pub async fn swap(&self, view: &str, range: Range) -> Result<(), SwapError> {
        let (live, replay) = (self.table(self.live, view)?, self.table(self.replay, view)?);
        if let Some(detail) = difference(live, replay) {
            return Err(refused(
                view,
                detail,
                "give the changed view a name of its own: it can't stand in for this one",
            ));
        }
        let final_through = final_through(self.client, &[view]).await?.unwrap_or(EventTime::MIN);
        if final_through < range.to {
            return Err(refused(
                view,
                format!(
                    "the replay goes to {}, and the live rows are final to {}: later ones are still corrected",
                    shown(range.to),
                    shown(final_through)
                ),
                "wait until they are final, or swap a part with --to",
            ));
        }
        self.act(live, range, true).await
    }

    /// Takes the replay's rows of `view` out of the live ones again.
    ///
    /// # Errors
    /// When they aren't in place, or ClickHouse can't be asked.
    pub async fn undo(&self, view: &str) -> Result<(), SwapError> {
        let live = self.table(self.live, view)?;
        let active = swaps::active(self.client).await?;
        let Some(of) = active.iter().find(|of| of.view == view && of.run == self.run) else {
            return Err(refused(
                view,
                format!("`{}` isn't in its place", self.run),
                "`weir replay list` tells what is",
            ));
        };
        self.act(live, Range { from: EventTime(of.from), to: EventTime(of.to) }, false).await
    }

    async fn act(&self, live: &ViewTable, range: Range, is_swap: bool) -> Result<(), SwapError> {
        let of = Swapped {
            view: live.table.name.to_string(),
            run: self.run.to_owned(),
            database: self.database.to_owned(),
            from: range.from.0,
            to: range.to.0,
        };
        let act = Act { of: &of, is_swap, by: self.by, why: self.why };
        let database = self.client.database();
        self.client.execute(&swaps::record(database, &act)).await?;
        let active = swaps::active(self.client).await?;
        let reader = reader::of_view(database, live, &active).map_err(|error| {
            refused(&of.view, error.to_string(), "start the pipeline once, which says what is wrong")
        })?;
        for statement in &reader.making(database).statements {
            self.client.execute(statement).await?;
        }
        Ok(())
    }

    fn table<'b>(&self, layout: &'b Layout, view: &str) -> Result<&'b ViewTable, SwapError> {
        layout.views.iter().find(|of| *of.table.name == *view).ok_or_else(|| {
            let names: Vec<&str> = self.replay.views.iter().map(|of| &*of.table.name).collect();
            refused(
                view,
                "there is no such view on both sides".to_owned(),
                &format!("name one of {}", names.join(", ")),
            )
        })
    }
}

/// Why rows of one table can't be read as rows of the other.
fn difference(live: &ViewTable, replay: &ViewTable) -> Option<String> {
    let columns = |of: &ViewTable| -> Vec<(String, ColumnType)> {
        of.table.columns.iter().map(|column| (column.name.clone(), column.column_type.clone())).collect()
    };
    let (of_live, of_replay) = (columns(live), columns(replay));
    let other = of_live.iter().find(|of| !of_replay.contains(of));
    let more = of_replay.iter().find(|of| !of_live.contains(of));
    if let Some((name, column_type)) = other {
        return Some(format!("the live column {name} {column_type} is another one in the replay, or isn't there"));
    }
    if let Some((name, column_type)) = more {
        return Some(format!("the replay has a column {name} {column_type} that the live view lacks"));
    }
    (live.table.key_columns != replay.table.key_columns).then(|| "its rows have another key in the replay".to_owned())
}

fn refused(view: &str, detail: String, remedy: &str) -> SwapError {
    SwapError::Refused { view: view.to_owned(), detail, remedy: remedy.to_owned() }
}
