//! Swap: a replay's rows in the place of live ones, for their readers, and back.
//!
//! A swap is one row of `weir_swaps` and one replacement of the readers' view made from that table, which coarser views and
//! those of the readers' database read; no row is copied or deleted. Before the range and behind it readers see the live rows, which the live pipeline goes on writing.
//!
//! Invariants:
//! - Only final windows are swapped, so that no live correction is hidden.
//! - A replay that readers may see is in place by the record, since the record is what keeps its database from being dropped:
//!   a swap is written down before the view is replaced, an undo after it. So whatever is killed in between leaves a replay
//!   that `weir replay drop` refuses to remove, and is completed by giving it again. The next start of the pipeline makes what
//!   the record says: it completes a killed swap, and puts the replay of a killed undo in place again.
//! - A swap whose view ClickHouse refuses is taken out of the record at once, as nobody sees it. Where nobody knows whether
//!   the view was replaced, as after an answer that never came, the record keeps it.
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
    /// Whether rows of `view`, whose tables are `replay`, can stand in the place of live ones within `range`: the live table,
    /// if so.
    ///
    /// # Errors
    /// When a side has no such view, the tables differ, or the live windows aren't final; when ClickHouse can't be asked.
    pub async fn fits(&self, view: &str, replay: &Layout, range: Range) -> Result<&ViewTable, SwapError> {
        let live = self.live_table(view)?;
        let Some(replay) = table(replay, view) else {
            let detail = "the file of the replay has no such view any more".to_owned();
            return Err(refused(view, detail, "put it back, or name other views with --view"));
        };
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
        Ok(live)
    }

    /// Puts the replay's rows of `view`, whose tables are `replay`, in place, for windows that begin within `range`.
    ///
    /// # Errors
    /// As [`Swap::fits`]; when ClickHouse refuses.
    pub async fn swap(&self, view: &str, replay: &Layout, range: Range) -> Result<(), SwapError> {
        let live = self.fits(view, replay, range).await?;
        let before = swaps::active(self.client).await?.into_iter().find(|of| self.is_own(of, view));
        let of = Swapped {
            view: view.to_owned(),
            run: self.run.to_owned(),
            database: self.database.to_owned(),
            from: range.from.0,
            to: range.to.0,
        };
        self.write_down(&of, true).await?;
        let active = swaps::active(self.client).await?;
        let Err(unseen) = self.replace_view(live, &active).await else { return Ok(()) };
        if unseen.is_view_as_before {
            // Best effort: what stays in the record is refused by `drop` and taken out by --undo.
            let _ = match &before {
                Some(before) => self.write_down(before, true).await,
                None => self.write_down(&of, false).await,
            };
        }
        Err(unseen.error)
    }

    /// Takes the replay's rows of `view` out of the live ones again.
    ///
    /// # Errors
    /// When they aren't in place, or ClickHouse can't be asked or refuses.
    pub async fn undo(&self, view: &str) -> Result<(), SwapError> {
        let live = self.live_table(view)?;
        let (own, others): (Vec<Swapped>, Vec<Swapped>) =
            swaps::active(self.client).await?.into_iter().partition(|of| self.is_own(of, view));
        let Some(of) = own.first() else {
            return Err(refused(
                view,
                format!("`{}` isn't in its place", self.run),
                "`weir replay list` tells what is",
            ));
        };
        self.replace_view(live, &others).await.map_err(|unseen| unseen.error)?;
        self.write_down(of, false).await
    }

    fn live_table(&self, view: &str) -> Result<&ViewTable, SwapError> {
        table(self.live, view).ok_or_else(|| {
            refused(
                view,
                "the live pipeline has no such view, so readers have none that could show its rows".to_owned(),
                "add it to the live pipeline's file and start that, or name other views with --view",
            )
        })
    }

    /// Whether `of` is this replay in the place of `view`.
    fn is_own(&self, of: &Swapped, view: &str) -> bool {
        of.view == view && of.run == self.run
    }

    /// Writes into the record that `of` was put in place, or taken out.
    async fn write_down(&self, of: &Swapped, is_swap: bool) -> Result<(), SwapError> {
        let act = Act { of, is_swap, by: self.by, why: self.why };
        Ok(self.client.execute(&swaps::record(self.client.database(), &act)).await?)
    }

    /// Makes the readers' view of `live` with what of `active` stands in its place.
    async fn replace_view(&self, live: &ViewTable, active: &[Swapped]) -> Result<(), Unseen> {
        let database = self.client.database();
        let reader = reader::of_view(database, live, active).map_err(|error| Unseen {
            error: refused(&live.table.name, error.to_string(), "start the pipeline once, which says what is wrong"),
            is_view_as_before: true,
        })?;
        for (at, statement) in reader.making(database).statements.iter().enumerate() {
            self.client.execute(statement).await.map_err(|error| Unseen {
                // The first statement replaces the view, those behind it comment on it.
                is_view_as_before: at == 0 && matches!(error, DeliveryError::Fatal { .. }),
                error: error.into(),
            })?;
        }
        Ok(())
    }
}

/// Why a view wasn't replaced.
struct Unseen {
    error: SwapError,
    /// Whether readers are known to see what they saw.
    is_view_as_before: bool,
}

fn table<'a>(layout: &'a Layout, view: &str) -> Option<&'a ViewTable> {
    layout.views.iter().find(|of| *of.table.name == *view)
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
