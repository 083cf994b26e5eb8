//! Diff: what a replay's rows would change of the live ones, row by row and cell by cell.
//!
//! Rows meet by their key (window and dimensions) as they stream from ClickHouse, so memory grows with what is told, not with what is
//! read. Only columns that both sides have are compared; a measure that one side lacks is named. Float64 is compared within a
//! tolerance, everything else exactly.
//!
//! Not here: whether the live side is final. A row that live events still correct may differ for that alone: a replay is for
//! times that are final (`rerun::range`).

use std::collections::BTreeMap;

use serde_json::Value;
use weir_operators::view::ViewPlan;
use weir_sinks::clickhouse::Client;

use crate::compare::{Described, Error, Meeting, Question, Row, describe};
use crate::rerun::range::Range;

/// Values of one dimension that are told, at most.
const VALUES_TOLD: usize = 1_000;

/// How a difference is told.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Example rows of each view and kind.
    pub examples: usize,
    /// Greatest relative difference of Float64 cells.
    pub tolerance: f64,
}

/// What differs in one view.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ViewDiff {
    /// The view.
    pub view: String,
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
    /// Columns that only one side has: its name, and whether it is the replay.
    pub one_sided: Vec<(String, bool)>,
    /// By measure.
    pub measures: Vec<MeasureDiff>,
    /// By dimension and value, how many rows were added, removed or changed.
    pub dimensions: BTreeMap<String, BTreeMap<String, u64>>,
    /// Some rows that differ.
    pub examples: Vec<Example>,
}

/// What differs in one measure.
#[derive(Clone, Debug, Default, PartialEq)]
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
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Its key, as a JSON array.
    pub key: String,
    /// The cells that differ: column, live, replay; none where one side lacks the row.
    pub cells: Vec<(String, Value, Value)>,
    /// Whether the live side has it, and whether the replay has.
    pub is_in: (bool, bool),
}

impl ViewDiff {
    /// Whether nothing differs.
    pub fn is_equal(&self) -> bool {
        self.added + self.removed + self.changed == 0
    }
}

/// One view on both sides.
pub struct Sides<'a> {
    /// ClickHouse.
    pub client: &'a Client,
    /// The live view's name as SQL writes it.
    pub live: String,
    /// The live view's plan.
    pub live_plan: &'a ViewPlan,
    /// The replay's view's name as SQL writes it.
    pub replay: String,
    /// The replay's view's plan.
    pub replay_plan: &'a ViewPlan,
    /// What rows of both sides must meet, over the dimensions; absent, all are compared.
    pub condition: Option<&'a str>,
}

impl Sides<'_> {
    /// Compares the rows of windows that begin within `range`.
    ///
    /// # Errors
    /// When ClickHouse can't be asked.
    pub async fn compare(&self, range: Range, options: Options) -> Result<ViewDiff, Error> {
        // A window that begins in a fraction of a second doesn't exist.
        let starts = (range.from.0.div_euclid(1_000_000), (range.to.0 - 1).div_euclid(1_000_000));
        let mut question = Question::of(self.live_plan, starts);
        let of_replay = Question::of(self.replay_plan, starts);
        let has = |columns: &[String], name: &String| columns.contains(name);
        let mut diff = ViewDiff { view: question.view.clone(), ..ViewDiff::default() };
        let only_live = question.columns.iter().filter(|name| !has(&of_replay.columns, name));
        let only_replay = of_replay.columns.iter().filter(|name| !has(&question.columns, name));
        diff.one_sided.extend(only_live.map(|name| (name.clone(), false)));
        diff.one_sided.extend(only_replay.map(|name| (name.clone(), true)));
        question.columns.retain(|name| has(&of_replay.columns, name));
        question.condition = self.condition.map(str::to_owned);
        let types = describe(self.client, &self.live, &question.columns).await;
        let types = types.map_err(|error| Error::ClickHouse { view: question.view.clone(), error })?;
        let measures = types.iter().filter(|column| !question.key.contains(&column.name));
        diff.measures = measures.map(|of| MeasureDiff { name: of.name.clone(), ..MeasureDiff::default() }).collect();
        let told = Told { question: &question, types: &types, options };
        question.merge(self.client, &self.live, &self.replay, |meeting| diff.take(meeting, &told)).await?;
        Ok(diff)
    }
}

struct Told<'a> {
    question: &'a Question,
    types: &'a [Described],
    options: Options,
}

impl ViewDiff {
    fn take(&mut self, meeting: Meeting, told: &Told<'_>) {
        match meeting {
            Meeting::First(live) => {
                self.live_rows += 1;
                self.removed += 1;
                self.add_sums(&live, told, false);
                self.differs(&live, Vec::new(), (true, false), told);
            }
            Meeting::Second(replay) => {
                self.replay_rows += 1;
                self.added += 1;
                self.add_sums(&replay, told, true);
                self.differs(&replay, Vec::new(), (false, true), told);
            }
            Meeting::Both(live, replay) => {
                self.live_rows += 1;
                self.replay_rows += 1;
                self.add_sums(&live, told, false);
                self.add_sums(&replay, told, true);
                let pairs = told.types.iter().zip(live.cells.iter().zip(&replay.cells));
                let cells: Vec<(String, Value, Value)> = pairs
                    .filter(|(column, (of_live, of_replay))| {
                        !column.are_equal(of_live, of_replay, told.options.tolerance)
                    })
                    .map(|(column, (of_live, of_replay))| (column.name.clone(), of_live.clone(), of_replay.clone()))
                    .collect();
                if cells.is_empty() {
                    return;
                }
                self.changed += 1;
                for measure in &mut self.measures {
                    measure.changed += u64::from(cells.iter().any(|(name, ..)| *name == measure.name));
                }
                self.differs(&live, cells, (true, true), told);
            }
        }
    }

    fn add_sums(&mut self, row: &Row, told: &Told<'_>, is_replay: bool) {
        for (column, cell) in told.types.iter().zip(&row.cells) {
            let Some(measure) = self.measures.iter_mut().find(|measure| measure.name == column.name) else { continue };
            let sum = if is_replay { &mut measure.replay_sum } else { &mut measure.live_sum };
            if let Some(number) = number(cell) {
                *sum = Some(sum.unwrap_or(0.0) + number);
            }
        }
    }

    /// Notes a row that differs under each of its dimensions, and as an example while there is room for its kind.
    fn differs(&mut self, row: &Row, cells: Vec<(String, Value, Value)>, is_in: (bool, bool), told: &Told<'_>) {
        let key: Vec<Value> = serde_json::from_str(&row.key).unwrap_or_default();
        for (name, value) in told.question.key.iter().zip(&key).skip(1) {
            let values = self.dimensions.entry(name.clone()).or_default();
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if values.len() < VALUES_TOLD || values.contains_key(&value) {
                *values.entry(value).or_default() += 1;
            }
        }
        let of_kind = self.examples.iter().filter(|example| example.is_in == is_in).count();
        if of_kind < told.options.examples {
            self.examples.push(Example { key: row.key.clone(), cells, is_in });
        }
    }
}

/// A cell's number, however JSON writes it.
fn number(cell: &Value) -> Option<f64> {
    match cell {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(hash: u64, key: &str, cells: Vec<Value>) -> Row {
        Row { hash, key: key.to_owned(), cells }
    }

    #[test]
    fn rows_are_added_removed_or_changed_and_summed() {
        let columns = ["window_start", "country", "orders", "revenue"].map(str::to_owned).to_vec();
        let question = Question {
            view: "v".to_owned(),
            window: "window_start".to_owned(),
            key: columns[..2].to_vec(),
            columns: columns.clone(),
            starts: (0, 1),
            condition: None,
        };
        let types = ["DateTime", "String", "UInt64", "Float64"];
        let types: Vec<Described> = columns
            .iter()
            .zip(types)
            .map(|(name, of)| Described { name: name.clone(), r#type: of.to_owned() })
            .collect();
        let told = Told { question: &question, types: &types, options: Options { examples: 1, tolerance: 1e-9 } };
        let measure = |name: &str| MeasureDiff { name: name.to_owned(), ..MeasureDiff::default() };
        let mut diff = ViewDiff { measures: vec![measure("orders"), measure("revenue")], ..ViewDiff::default() };
        let cells = |country: &str, orders: &str, revenue: f64| {
            vec![json!("2026-01-01 00:00:00"), json!(country), json!(orders), json!(revenue)]
        };
        let de = r#"["2026-01-01 00:00:00","DE"]"#;
        let fr = r#"["2026-01-01 00:00:00","FR"]"#;
        diff.take(Meeting::Both(row(1, de, cells("DE", "2", 1.0)), row(1, de, cells("DE", "2", 1.0 + 1e-12))), &told);
        diff.take(Meeting::Both(row(1, de, cells("DE", "2", 1.0)), row(1, de, cells("DE", "3", 1.0))), &told);
        diff.take(Meeting::First(row(2, fr, cells("FR", "1", 5.0))), &told);
        diff.take(Meeting::Second(row(3, fr, cells("FR", "4", 6.0))), &told);
        diff.take(Meeting::Second(row(3, fr, cells("FR", "4", 6.0))), &told);
        assert_eq!((diff.added, diff.removed, diff.changed), (2, 1, 1));
        assert_eq!((diff.live_rows, diff.replay_rows), (3, 4));
        assert_eq!(diff.measures[0].changed, 1);
        assert_eq!((diff.measures[0].live_sum, diff.measures[0].replay_sum), (Some(5.0), Some(13.0)));
        assert_eq!(diff.measures[1].changed, 0);
        assert_eq!(diff.dimensions["country"]["FR"], 3);
        assert_eq!(diff.dimensions["country"]["DE"], 1);
        assert_eq!(diff.examples.len(), 3, "one of each kind");
        assert_eq!(diff.examples[0].cells, [("orders".to_owned(), json!("2"), json!("3"))]);
        assert!(!diff.is_equal());
    }
}
