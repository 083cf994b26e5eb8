//! Verify: a view's own SQL, run by ClickHouse over the accepted events, against the rows that Weir kept live.
//!
//! Both sides are read in the same order and compared cell by cell as they stream, so that memory stays flat. Only
//! closed windows are compared, since open ones are provisional, and only those of which nothing has expired:
//! ClickHouse lets go of events and rows after the days that the pipeline file gives them, in its own time. While a
//! pipeline runs, a correction may have reached the events and not yet the view; a difference counts when it is still
//! there after a pause.
//!
//! Float64 is compared within a relative tolerance, since ClickHouse's own sums depend on the order of rows; all else
//! exactly, as the text that ClickHouse prints.
//!
//! Not here: what is right when the accepted events themselves are wrong. The ledger accounts for those.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use weir_pipeline::bind::BoundView;
use weir_sinks::DeliveryError;
use weir_sinks::clickhouse::{Client, Lines};

/// How often a difference is looked at again before it counts, and how long to wait between.
const LOOKS: usize = 4;
const BETWEEN_LOOKS: Duration = Duration::from_secs(3);
/// How much younger than the oldest that is kept a window must be: a run takes less, and nothing of it expires meanwhile.
const KEPT_MARGIN_SECONDS: i64 = 3_600;
/// Without these ClickHouse computes some branches that no row takes, depending on its plan, and fails over them: it leaves
/// arithmetic of decimals out of short circuits, and turns `sum(if(c, x, 0))` into `sumIf(x, c)`.
const LAZILY: &str =
    "short_circuit_function_evaluation = 'force_enable', optimize_rewrite_aggregate_function_with_if = 0";

/// What to compare, and how strictly.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Differences to keep for each view; all are counted.
    pub show: usize,
    /// Greatest relative difference of Float64 cells.
    pub tolerance: f64,
    /// Whether the pipeline may still be delivering, so that differences are looked at again.
    pub live: bool,
}

/// The verdict on one view.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// The view.
    pub view: String,
    /// The first and the last compared window's start, as ClickHouse prints them; absent where there is none to compare.
    pub compared: Option<(String, String)>,
    /// Rows that ClickHouse computed.
    pub expected_rows: u64,
    /// Rows that Weir kept.
    pub live_rows: u64,
    /// Cells compared.
    pub cells: u64,
    /// Cells and rows that differ.
    pub differing: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The row's key, as a JSON tuple.
    pub key: String,
    /// The column; absent where the whole row is on one side only.
    pub column: Option<String>,
    /// What ClickHouse computed; absent where it has no such row.
    pub expected: Option<String>,
    /// What Weir kept; absent where it has no such row.
    pub live: Option<String>,
}

impl Verdict {
    /// Whether nothing differs.
    pub fn is_equal(&self) -> bool {
        self.differing == 0
    }
}

/// Why a view could not be verified.
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

/// Compares one view. `events_days` says for how many days the accepted events of its source are kept.
///
/// # Errors
/// When ClickHouse can't be asked, or refuses the view's own text.
pub async fn verify(client: &Client, view: &BoundView, events_days: u32, options: Options) -> Result<Verdict, Error> {
    let mut look = 1;
    loop {
        let verdict = compare(client, view, events_days, options).await?;
        if verdict.is_equal() || !options.live || look == LOOKS {
            return Ok(verdict);
        }
        look += 1;
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

async fn compare(client: &Client, view: &BoundView, events_days: u32, options: Options) -> Result<Verdict, Error> {
    let asked = Asked { client, view };
    let mut verdict = Verdict { view: view.plan.name.clone(), ..Verdict::default() };
    let Some(closed) = asked.closed(events_days).await? else { return Ok(verdict) };
    let columns = asked.columns().await?;
    let mut expected = asked.rows(&format!("({})", view.text.trim().trim_end_matches(';')), &closed)?;
    let mut live = asked.rows(&client.qualified(&view.plan.name), &closed)?;
    verdict.compared = Some((closed.first, closed.last));
    let (mut left, mut right) = (asked.next(&mut expected).await?, asked.next(&mut live).await?);
    loop {
        let order = match (&left, &right) {
            (None, None) => return Ok(verdict),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(left), Some(right)) => (left.hash, &left.key).cmp(&(right.hash, &right.key)),
        };
        verdict.expected_rows += u64::from(order.is_le());
        verdict.live_rows += u64::from(order.is_ge());
        if order.is_eq() {
            if let (Some(left), Some(right)) = (&left, &right) {
                compare_cells(left, right, &columns, options, &mut verdict);
            }
        } else {
            let one_sided = |row: &Option<Row>| row.as_ref().map(Row::shown);
            let key = if order.is_lt() { &left } else { &right };
            let difference = Difference {
                key: key.as_ref().map(|row| row.key.clone()).unwrap_or_default(),
                column: None,
                expected: one_sided(&left).filter(|_| order.is_lt()),
                live: one_sided(&right).filter(|_| order.is_gt()),
            };
            note(&mut verdict, options, difference);
        }
        if order.is_le() {
            left = asked.next(&mut expected).await?;
        }
        if order.is_ge() {
            right = asked.next(&mut live).await?;
        }
    }
}

fn compare_cells(left: &Row, right: &Row, columns: &[Described], options: Options, verdict: &mut Verdict) {
    for ((column, expected), live) in columns.iter().zip(&left.cells).zip(&right.cells) {
        verdict.cells += 1;
        let equal = expected == live || (column.is_float() && nearly(expected, live, options.tolerance));
        if !equal {
            let difference = Difference {
                key: left.key.clone(),
                column: Some(column.name.clone()),
                expected: Some(expected.to_string()),
                live: Some(live.to_string()),
            };
            note(verdict, options, difference);
        }
    }
}

fn note(verdict: &mut Verdict, options: Options, difference: Difference) {
    verdict.differing += 1;
    if verdict.differences.len() < options.show {
        verdict.differences.push(difference);
    }
}

/// Whether two numbers differ by rounding only.
fn nearly(expected: &Value, live: &Value, tolerance: f64) -> bool {
    match (expected.as_f64(), live.as_f64()) {
        (Some(expected), Some(live)) => (expected - live).abs() <= tolerance * expected.abs().max(live.abs()),
        _ => false,
    }
}

/// One row of either side.
struct Row {
    hash: u64,
    key: String,
    cells: Vec<Value>,
}

impl Row {
    fn shown(&self) -> String {
        Value::from(self.cells.clone()).to_string()
    }
}

/// A column of the SELECT, as ClickHouse describes it.
#[derive(Debug, Deserialize)]
struct Described {
    name: String,
    r#type: String,
}

impl Described {
    fn is_float(&self) -> bool {
        self.r#type.contains("Float")
    }
}

/// The windows to compare: starts in seconds since 1970, and as ClickHouse prints them.
struct Closed {
    first: String,
    last: String,
    from_seconds: i64,
    through_seconds: i64,
}

struct Asked<'a> {
    client: &'a Client,
    view: &'a BoundView,
}

impl Asked<'_> {
    fn failed(&self, error: DeliveryError) -> Error {
        Error::ClickHouse { view: self.view.plan.name.clone(), error }
    }

    fn unreadable(&self, detail: impl ToString) -> Error {
        Error::Answer { view: self.view.plan.name.clone(), detail: detail.to_string() }
    }

    /// The closed windows that are whole: what ClickHouse may have let go of, or may while it is asked, is left out.
    async fn closed(&self, events_days: u32) -> Result<Option<Closed>, Error> {
        #[derive(Deserialize)]
        struct Found {
            first: Option<String>,
            last: Option<String>,
            from_seconds: Option<i64>,
            through_seconds: Option<i64>,
        }
        let window = quoted(&self.view.plan.window.name);
        let days = self.view.config.retention_days.map_or(events_days, |days| days.min(events_days));
        let sql = format!(
            "SELECT toString(minOrNull({window})) AS first, toString(maxOrNull({window})) AS last, \
             minOrNull(toInt32(toUnixTimestamp({window}))) AS from_seconds, \
             maxOrNull(toInt32(toUnixTimestamp({window}))) AS through_seconds FROM {} \
             WHERE is_closed AND toInt64(toUnixTimestamp({window})) >= toInt64(toUnixTimestamp(now())) - {}",
            self.client.qualified(&self.view.plan.name),
            i64::from(days) * 86_400 - KEPT_MARGIN_SECONDS,
        );
        let found = self.client.select::<Found>(&sql).await.map_err(|error| self.failed(error))?;
        Ok(found.into_iter().next().and_then(|found| {
            let (from_seconds, through_seconds) = found.from_seconds.zip(found.through_seconds)?;
            Some(Closed { first: found.first?, last: found.last?, from_seconds, through_seconds })
        }))
    }

    async fn columns(&self) -> Result<Vec<Described>, Error> {
        let names: Vec<String> = self.view.plan.columns().iter().map(|column| quoted(&column.name)).collect();
        let sql =
            format!("DESCRIBE (SELECT {} FROM {})", names.join(", "), self.client.qualified(&self.view.plan.name));
        self.client.select(&sql).await.map_err(|error| self.failed(error))
    }

    /// Rows of `from` whose window is among `closed`, ordered by their key's hash, then the key.
    fn rows(&self, from: &str, closed: &Closed) -> Result<Lines, Error> {
        let plan = &self.view.plan;
        let keys: Vec<String> = std::iter::once(&plan.window.name)
            .chain(plan.dimensions.iter().map(|dimension| &dimension.name))
            .map(|name| quoted(name))
            .collect();
        let names: Vec<String> = plan.columns().iter().map(|column| quoted(&column.name)).collect();
        let sql = format!(
            "SELECT toString(sipHash64(`weir key`)), toJSONString(tuple({keys})) AS `weir key`, {names} FROM {from} \
             WHERE toUnixTimestamp({window}) BETWEEN {from_seconds} AND {through} ORDER BY sipHash64(`weir key`), `weir key` \
             SETTINGS {LAZILY}, output_format_json_quote_64bit_integers = 1, output_format_json_quote_decimals = 1, \
             output_format_json_quote_denormals = 1",
            through = closed.through_seconds,
            keys = keys.join(", "),
            names = names.join(", "),
            window = quoted(&plan.window.name),
            from_seconds = closed.from_seconds,
        );
        self.client.lines(&sql, "JSONCompactEachRow").map_err(|error| self.failed(error))
    }

    async fn next(&self, lines: &mut Lines) -> Result<Option<Row>, Error> {
        let Some(line) = lines.next().await.map_err(|error| self.failed(error))? else { return Ok(None) };
        let mut cells: Vec<Value> = serde_json::from_slice(&line).map_err(|error| self.unreadable(error))?;
        if cells.len() < 2 {
            return Err(self.unreadable("a row without its key"));
        }
        let rest = cells.split_off(2);
        match (cells.pop(), cells.pop()) {
            (Some(Value::String(key)), Some(Value::String(hash))) => {
                let hash = hash.parse().map_err(|error| self.unreadable(error))?;
                Ok(Some(Row { hash, key, cells: rest }))
            }
            _ => Err(self.unreadable("a row whose key isn't text")),
        }
    }
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn floats_may_differ_by_rounding_and_nothing_else_may() {
        assert!(nearly(&json!(1.0), &json!(1.0 + 1e-12), 1e-9));
        assert!(!nearly(&json!(1.0), &json!(1.001), 1e-9));
        assert!(!nearly(&json!("1.00"), &json!("1.0"), 1e-9), "text is compared exactly");
        assert!(!nearly(&json!(1.0), &json!("nan"), 1e-9));
    }

    #[test]
    fn every_differing_cell_is_counted_and_the_first_are_kept() {
        let columns = [
            Described { name: "n".to_owned(), r#type: "UInt64".to_owned() },
            Described { name: "x".to_owned(), r#type: "Nullable(Float64)".to_owned() },
        ];
        let row = |cells: Vec<Value>| Row { hash: 1, key: "[1]".to_owned(), cells };
        let mut verdict = Verdict::default();
        let options = Options { show: 1, tolerance: 1e-9, live: false };
        compare_cells(
            &row(vec![json!("1"), json!(2.0)]),
            &row(vec![json!("2"), json!(3.0)]),
            &columns,
            options,
            &mut verdict,
        );
        assert_eq!((verdict.cells, verdict.differing, verdict.differences.len()), (2, 2, 1));
        assert_eq!(verdict.differences[0].expected.as_deref(), Some("\"1\""));
    }
}
