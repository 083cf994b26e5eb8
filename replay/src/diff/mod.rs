//! Diff: what a replay's rows would change of the live ones, row by row and cell by cell.
//!
//! Rows meet by their key (window and dimensions) as they stream from ClickHouse, so memory grows with what is told, not with what is
//! read. Only columns that both sides have are compared; a measure that one side lacks is named. Float64 is compared within a
//! tolerance, everything else exactly.
//!
//! [`follow`] keeps a diff current while the live side still changes; it holds the rows for that, and compares them by the
//! same code.
//!
//! Not here: whether the live side is final. A row that live events still correct may differ for that alone: a replay is for
//! times that are final (`rerun::range`).

pub mod alerts;
pub mod follow;
mod kept;
pub mod reasons;
mod tally;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use weir_operators::view::ViewPlan;
use weir_sinks::clickhouse::Client;

use crate::compare::{Error, Meeting, Question, Row, describe};
use crate::rerun::range::Range;
use reasons::Reason;
use tally::{Shape, Tally};

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The live pipeline's rows.
    Live,
    /// The replay's.
    Replay,
}

/// How a row differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Only the live side has it.
    Removed,
    /// Only the replay has it.
    Added,
    /// Both have it, with a cell that differs.
    Changed,
}

/// How a difference is told.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Example rows of each view and kind.
    pub examples: usize,
    /// Greatest relative difference of Float64 cells.
    pub tolerance: f64,
}

/// What differs in one view.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ViewDiff {
    /// The view.
    pub view: String,
    /// The columns of a row's key, the window's first.
    pub key: Vec<String>,
    /// Rows of the live side.
    pub live_rows: u64,
    /// Rows of the replay.
    pub replay_rows: u64,
    /// Rows that only the replay has.
    pub added: u64,
    /// Rows that only the live side has.
    pub removed: u64,
    /// Rows that both have, with a cell that differs.
    pub changed: u64,
    /// Columns that only one side has, and which side it is.
    pub one_sided: Vec<OneSided>,
    /// By measure.
    pub measures: Vec<MeasureDiff>,
    /// By dimension and value, how many rows were added, removed or changed.
    pub dimensions: BTreeMap<String, BTreeMap<String, u64>>,
    /// Some rows that differ.
    pub examples: Vec<Example>,
}

/// A column that only one side has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OneSided {
    /// Its name.
    pub column: String,
    /// The side that has it.
    pub side: Side,
}

/// What differs in one measure.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MeasureDiff {
    /// Its name.
    pub name: String,
    /// Cells that differ, in rows that both sides have.
    pub changed: u64,
    /// The sum over the live rows, where it is a number.
    pub live_sum: Option<f64>,
    /// The sum over the replay's.
    pub replay_sum: Option<f64>,
}

/// A row that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// How it differs.
    pub kind: Kind,
    /// The values of its key.
    pub key: Vec<Value>,
    /// The cells that differ; none where one side lacks the row.
    pub cells: Vec<Cell>,
    /// What may be why, where that was asked for.
    pub reasons: Vec<Reason>,
}

/// A cell that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// Its column.
    pub column: String,
    /// What the live side has.
    pub live: Value,
    /// What the replay has.
    pub replay: Value,
}

impl ViewDiff {
    /// Whether nothing differs: no row, and no side has a column that the other lacks.
    pub fn is_equal(&self) -> bool {
        self.are_rows_equal() && self.one_sided.is_empty()
    }

    /// Whether no row differs in the columns that both sides have.
    pub fn are_rows_equal(&self) -> bool {
        self.added + self.removed + self.changed == 0
    }
}

/// One view on both sides.
#[derive(Clone)]
pub struct Sides {
    /// ClickHouse.
    pub client: Client,
    /// The live view's plan.
    pub live: ViewPlan,
    /// The replay's view's plan.
    pub replay: ViewPlan,
    /// The replay's database.
    pub database: String,
    /// What rows of both sides must meet, over the dimensions; absent, all are compared.
    pub condition: Option<String>,
}

impl Sides {
    /// Why rows of the two sides can't be held against each other, if they can't: they would meet by nothing.
    pub fn apart(&self) -> Option<String> {
        let key = |plan: &ViewPlan| -> Vec<String> {
            let dimensions = plan.dimensions.iter().map(|dimension| dimension.name.clone());
            std::iter::once(plan.window.name.clone()).chain(dimensions).collect()
        };
        let (live, replay) = (key(&self.live), key(&self.replay));
        let (mut of_live, mut of_replay) = (live.clone(), replay.clone());
        of_live.sort();
        of_replay.sort();
        let shown = |names: &[String]| names.join(", ");
        (of_live != of_replay)
            .then(|| format!("its rows go by {} live, and by {} in the replay", shown(&live), shown(&replay)))
    }

    /// Compares the rows of windows that begin within `range`.
    ///
    /// # Errors
    /// When ClickHouse can't be asked.
    pub async fn compare(&self, range: Range, options: Options) -> Result<ViewDiff, Error> {
        let (question, shape) = self.asked(range, options.tolerance).await?;
        let mut streamed = Streamed { tally: Tally::default(), examples: Vec::new(), most: options.examples };
        let take = |meeting| streamed.take(meeting, &shape);
        question.merge(&self.client, &self.of_live(), &self.of_replay(), take).await?;
        streamed.examples.sort_by_key(|example| example.kind);
        Ok(streamed.tally.told(&shape, streamed.examples))
    }

    /// What is asked of both sides, and how their rows are compared.
    async fn asked(&self, range: Range, tolerance: f64) -> Result<(Question, Shape), Error> {
        // A window that begins in a fraction of a second doesn't exist.
        let starts = (range.from.0.div_euclid(1_000_000), (range.to.0 - 1).div_euclid(1_000_000));
        let mut question = Question::of(&self.live, starts);
        let of_replay = Question::of(&self.replay, starts);
        let only = |of: &Question, other: &Question, side: Side| -> Vec<OneSided> {
            let names = of.columns.iter().filter(|name| !other.columns.contains(name));
            names.map(|name| OneSided { column: name.clone(), side }).collect()
        };
        let one_sided = [only(&question, &of_replay, Side::Live), only(&of_replay, &question, Side::Replay)].concat();
        // Rows that meet have equal keys.
        let key = question.key.clone();
        question.columns.retain(|name| of_replay.columns.contains(name) && !key.contains(name));
        question.condition.clone_from(&self.condition);
        let measures = describe(&self.client, &self.of_live(), &question.columns).await;
        let measures = measures.map_err(|error| Error::ClickHouse { view: question.view.clone(), error })?;
        let shape = Shape { view: question.view.clone(), key, measures, one_sided, tolerance };
        Ok((question, shape))
    }

    /// The live view as SQL writes it.
    fn of_live(&self) -> String {
        self.client.qualified(&self.live.name)
    }

    /// The replay's view as SQL writes it.
    fn of_replay(&self) -> String {
        self.client.in_database(&self.database).qualified(&self.live.name)
    }
}

/// A diff of rows that meet one after the other.
struct Streamed {
    tally: Tally,
    examples: Vec<Example>,
    most: usize,
}

impl Streamed {
    fn take(&mut self, meeting: Meeting, shape: &Shape) {
        let (kind, key, changed, live, replay) = match &meeting {
            Meeting::First(live) => (Kind::Removed, &live.key, Vec::new(), Some(live), None),
            Meeting::Second(replay) => (Kind::Added, &replay.key, Vec::new(), None, Some(replay)),
            Meeting::Both(live, replay) => {
                (Kind::Changed, &live.key, shape.changed(&live.cells, &replay.cells), Some(live), Some(replay))
            }
        };
        for (side, row) in [(Side::Live, live), (Side::Replay, replay)] {
            let Some(row) = row else { continue };
            shape.of_row(side, &row.cells, |fact, weight| self.tally.add(fact, weight));
        }
        if kind == Kind::Changed && changed.is_empty() {
            return;
        }
        shape.of_difference(kind, key, &changed, |fact| self.tally.add_told(fact, 1));
        let has_room = self.examples.iter().filter(|example| example.kind == kind).count() < self.most;
        if has_room {
            let cells = |row: Option<&Row>| row.map(|row| row.cells.clone()).unwrap_or_default();
            self.examples.push(shape.example(kind, key, &changed, &cells(live), &cells(replay)));
        }
    }
}

impl Shape {
    /// A row that differs, as it is told.
    fn example(&self, kind: Kind, key: &str, changed: &[usize], live: &[Value], replay: &[Value]) -> Example {
        let cell = |cells: &[Value], at: usize| cells.get(at).cloned().unwrap_or_default();
        let name = |at: usize| self.measures.get(at).map(|column| column.name.clone()).unwrap_or_default();
        let cell_of = |at: usize| Cell { column: name(at), live: cell(live, at), replay: cell(replay, at) };
        let cells = changed.iter().map(|at| cell_of(*at));
        Example {
            kind,
            key: serde_json::from_str(key).unwrap_or_default(),
            cells: cells.collect(),
            reasons: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Described;
    use serde_json::json;

    #[test]
    fn rows_are_added_removed_or_changed_and_summed() {
        let column = |name: &str, of: &str| Described { name: name.to_owned(), r#type: of.to_owned() };
        let shape = Shape {
            key: ["window_start", "country"].map(str::to_owned).to_vec(),
            measures: vec![column("orders", "UInt64"), column("revenue", "Float64")],
            tolerance: 1e-9,
            ..Shape::default()
        };
        let row = |country: &str, orders: &str, revenue: f64| {
            let key = json!(["2026-01-01 00:00:00", country]).to_string();
            Row { hash: 1, key, cells: vec![json!(orders), json!(revenue)], text: String::new() }
        };
        let mut streamed = Streamed { tally: Tally::default(), examples: Vec::new(), most: 1 };
        for meeting in [
            Meeting::Both(row("DE", "2", 1.0), row("DE", "2", 1.0 + 1e-12)),
            Meeting::Both(row("DE", "2", 1.0), row("DE", "3", 1.0)),
            Meeting::First(row("FR", "1", 5.0)),
            Meeting::Second(row("FR", "4", 6.0)),
            Meeting::Second(row("FR", "4", 6.0)),
        ] {
            streamed.take(meeting, &shape);
        }
        let diff = streamed.tally.told(&shape, streamed.examples);
        assert_eq!((diff.added, diff.removed, diff.changed), (2, 1, 1));
        assert_eq!((diff.live_rows, diff.replay_rows), (3, 4));
        assert_eq!(diff.measures[0].changed, 1);
        assert_eq!((diff.measures[0].live_sum, diff.measures[0].replay_sum), (Some(5.0), Some(13.0)));
        assert_eq!(diff.measures[1].changed, 0);
        assert_eq!(diff.dimensions["country"]["FR"], 3);
        assert_eq!(diff.dimensions["country"]["DE"], 1);
        assert_eq!(diff.examples.len(), 3, "one of each kind");
        let cells = [Cell { column: "orders".to_owned(), live: json!("2"), replay: json!("3") }];
        assert_eq!(diff.examples.iter().find(|of| of.kind == Kind::Changed).unwrap().cells, cells);
        assert!(!diff.is_equal());
    }
}
