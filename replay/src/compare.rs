//! Two queries of the same rows, read side by side in one order, so that memory stays flat however many there are.
//!
//! Both sides are asked for each row's key and its hash, sorted by them; the rows then meet as in a merge. Numbers that
//! JSON can't hold exactly come as text, so what is compared is what ClickHouse prints.
//!
//! Not here: which rows and what a difference means (`verify`, `diff`).

use std::cmp::Ordering;

use serde::Deserialize;
use serde_json::Value;
use weir_operators::view::ViewPlan;
use weir_sinks::DeliveryError;
use weir_sinks::clickhouse::{Client, Lines, identifier};

/// Without these ClickHouse computes some branches that no row takes, depending on its plan, and fails over them: it leaves
/// arithmetic of decimals out of short circuits, and turns `sum(if(c, x, 0))` into `sumIf(x, c)`.
const LAZILY: &str =
    "short_circuit_function_evaluation = 'force_enable', optimize_rewrite_aggregate_function_with_if = 0";

/// Why two queries could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// ClickHouse said no, or nothing.
    #[error("view `{view}`: {error}")]
    ClickHouse {
        /// The view.
        view: String,
        /// What it said.
        error: DeliveryError,
    },
    /// ClickHouse answered with something else than rows of JSON.
    #[error("view `{view}`: ClickHouse's answer can't be read: {detail}")]
    Answer {
        /// The view.
        view: String,
        /// What was wrong.
        detail: String,
    },
}

/// A row of either side.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub(crate) hash: u64,
    /// Its key, as a JSON array.
    pub key: String,
    /// The cells of the columns that were asked for.
    pub cells: Vec<Value>,
    /// The same as ClickHouse wrote them, as a JSON array.
    pub(crate) text: String,
}

impl Row {
    /// The whole row as JSON.
    pub fn shown(&self) -> String {
        Value::from(self.cells.clone()).to_string()
    }
}

/// What the merge finds next.
#[derive(Debug)]
pub enum Meeting {
    /// A row that both sides have.
    Both(Row, Row),
    /// A row of the first side only.
    First(Row),
    /// A row of the second side only.
    Second(Row),
}

/// What is asked of both sides.
#[derive(Clone, Debug)]
pub struct Question {
    /// The view, for messages.
    pub view: String,
    /// The window's column.
    pub window: String,
    /// The columns of the key.
    pub key: Vec<String>,
    /// The columns to compare.
    pub columns: Vec<String>,
    /// The first and the last start of a window, in seconds since 1970.
    pub starts: (i64, i64),
    /// A condition over the columns of the view; absent, all rows.
    pub condition: Option<String>,
}

/// The expression of a row's key as text, by which the rows of two sides meet.
pub(crate) fn key_text(key: &[String]) -> String {
    format!("toJSONString(tuple({}))", key.iter().map(|name| identifier(name)).collect::<Vec<_>>().join(", "))
}

impl Question {
    /// Of all columns of a view.
    pub fn of(plan: &ViewPlan, starts: (i64, i64)) -> Question {
        let dimensions = plan.dimensions.iter().map(|dimension| &dimension.name);
        Question {
            view: plan.name.clone(),
            window: plan.window.name.clone(),
            key: std::iter::once(&plan.window.name).chain(dimensions).cloned().collect(),
            columns: plan.columns().iter().map(|column| column.name.clone()).collect(),
            starts,
            condition: None,
        }
    }

    fn sql(&self, from: &str) -> String {
        let columns: String = self.columns.iter().map(|name| format!(", {}", identifier(name))).collect();
        format!(
            "SELECT toString(sipHash64(`weir key`)), {key} AS `weir key`{columns} FROM {from} \
             WHERE {condition} ORDER BY sipHash64(`weir key`), `weir key` \
             SETTINGS {LAZILY}, output_format_json_quote_64bit_integers = 1, output_format_json_quote_decimals = 1, \
             output_format_json_quote_denormals = 1",
            key = key_text(&self.key),
            condition = self.conditions(),
        )
    }

    /// What every row meets that is asked for.
    pub(crate) fn conditions(&self) -> String {
        let (first, last) = self.starts;
        let condition = self.condition.as_ref().map(|condition| format!(" AND ({condition})")).unwrap_or_default();
        format!("toUnixTimestamp({}) BETWEEN {first} AND {last}{condition}", identifier(&self.window))
    }

    fn failed(&self, error: DeliveryError) -> Error {
        Error::ClickHouse { view: self.view.clone(), error }
    }

    fn unreadable(&self, detail: impl ToString) -> Error {
        Error::Answer { view: self.view.clone(), detail: detail.to_string() }
    }

    /// Reads the rows of `from`, a table or a query in parentheses, in the order of their keys' hashes.
    ///
    /// # Errors
    /// When ClickHouse can't be asked, or refuses.
    pub(crate) async fn rows(&self, client: &Client, from: &str, mut on_row: impl FnMut(Row)) -> Result<(), Error> {
        let lines = client.lines(&self.sql(from), "JSONCompactEachRow");
        let mut lines = lines.map_err(|error| self.failed(error))?;
        while let Some(row) = self.next(&mut lines).await? {
            on_row(row);
        }
        Ok(())
    }

    async fn next(&self, lines: &mut Lines) -> Result<Option<Row>, Error> {
        let Some(line) = lines.next().await.map_err(|error| self.failed(error))? else { return Ok(None) };
        let mut cells: Vec<Value> = serde_json::from_slice(&line).map_err(|error| self.unreadable(error))?;
        if cells.len() < 2 {
            return Err(self.unreadable("a row without its key"));
        }
        let rest = cells.split_off(2);
        let text = behind_key(&line).ok_or_else(|| self.unreadable("a row whose key isn't text"))?;
        match (cells.pop(), cells.pop()) {
            (Some(Value::String(key)), Some(Value::String(hash))) => {
                let hash = hash.parse().map_err(|error| self.unreadable(error))?;
                Ok(Some(Row { hash, key, cells: rest, text }))
            }
            _ => Err(self.unreadable("a row whose key isn't text")),
        }
    }

    /// Reads `first` and `second`, each a table or a query in parentheses, and tells every meeting.
    ///
    /// # Errors
    /// When ClickHouse can't be asked, or refuses one of them.
    pub async fn merge(
        &self,
        client: &Client,
        first: &str,
        second: &str,
        mut on_meeting: impl FnMut(Meeting),
    ) -> Result<(), Error> {
        let ask = |from: &str| client.lines(&self.sql(from), "JSONCompactEachRow").map_err(|error| self.failed(error));
        let (mut first, mut second) = (ask(first)?, ask(second)?);
        let (mut left, mut right) = (self.next(&mut first).await?, self.next(&mut second).await?);
        loop {
            let meeting = match (left.take(), right.take()) {
                (None, None) => return Ok(()),
                (Some(row), None) => Meeting::First(row),
                (None, Some(row)) => Meeting::Second(row),
                (Some(of_first), Some(of_second)) => {
                    match (of_first.hash, &of_first.key).cmp(&(of_second.hash, &of_second.key)) {
                        Ordering::Equal => Meeting::Both(of_first, of_second),
                        Ordering::Less => {
                            right = Some(of_second);
                            Meeting::First(of_first)
                        }
                        Ordering::Greater => {
                            left = Some(of_first);
                            Meeting::Second(of_second)
                        }
                    }
                }
            };
            if !matches!(meeting, Meeting::Second(_)) {
                left = self.next(&mut first).await?;
            }
            if !matches!(meeting, Meeting::First(_)) {
                right = self.next(&mut second).await?;
            }
            on_meeting(meeting);
        }
    }
}

/// What stands in a row of JSON behind its first two cells, which are texts, as an array of its own.
fn behind_key(line: &[u8]) -> Option<String> {
    let mut rest = std::str::from_utf8(line).ok()?.trim_start().strip_prefix('[')?;
    for _ in 0..2 {
        rest = rest.trim_start().strip_prefix('"')?;
        let mut is_escaped = false;
        let end = rest.bytes().position(|byte| {
            let is_end = byte == b'"' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            is_end
        })?;
        rest = rest.get(end + 1..)?.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some(format!("[{}", rest.trim_start()))
}

/// A column, as ClickHouse describes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// Its type.
    pub r#type: String,
}

impl Described {
    /// Whether it holds numbers whose sums depend on the order of rows.
    pub fn is_float(&self) -> bool {
        self.r#type.contains("Float")
    }

    /// Whether two of its cells are the same: Float64 within `tolerance`, relative; all else exactly.
    pub fn are_equal(&self, first: &Value, second: &Value, tolerance: f64) -> bool {
        first == second || (self.is_float() && nearly(first, second, tolerance))
    }
}

/// The types of some columns of a table.
///
/// # Errors
/// What ClickHouse says.
pub async fn describe(client: &Client, table: &str, columns: &[String]) -> Result<Vec<Described>, DeliveryError> {
    if columns.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = columns.iter().map(|name| identifier(name)).collect();
    client.select(&format!("DESCRIBE (SELECT {} FROM {table})", names.join(", "))).await
}

/// Whether two numbers differ by rounding only.
fn nearly(first: &Value, second: &Value, tolerance: f64) -> bool {
    match (first.as_f64(), second.as_f64()) {
        (Some(first), Some(second)) => (first - second).abs() <= tolerance * first.abs().max(second.abs()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_stands_behind_a_key_is_kept_as_it_was_written() {
        let behind = |line: &str| behind_key(line.as_bytes());
        assert_eq!(behind(r#"["1", "[\"a\\\\\"]", 1.10, "x,y", null]"#).as_deref(), Some(r#"[1.10, "x,y", null]"#));
        assert_eq!(behind(r#"["1","k"]"#).as_deref(), Some("[]"));
        assert_eq!(behind("Code: 395. DB::Exception"), None);
    }

    #[test]
    fn floats_may_differ_by_rounding_and_nothing_else_may() {
        let float = Described { name: "x".to_owned(), r#type: "Nullable(Float64)".to_owned() };
        assert!(float.are_equal(&json!(1.0), &json!(1.0 + 1e-12), 1e-9));
        assert!(!float.are_equal(&json!(1.0), &json!(1.001), 1e-9));
        assert!(!float.are_equal(&json!("1.00"), &json!("1.0"), 1e-9), "text is compared exactly");
        assert!(!float.are_equal(&json!(1.0), &json!("nan"), 1e-9));
        let whole = Described { name: "n".to_owned(), r#type: "UInt64".to_owned() };
        assert!(!whole.are_equal(&json!(1.0), &json!(1.0 + 1e-12), 1e-9));
    }
}
