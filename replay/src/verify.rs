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
use weir_pipeline::bind::BoundView;
use weir_sinks::DeliveryError;
use weir_sinks::clickhouse::{Client, identifier};

pub use crate::compare::Error;
use crate::compare::{Described, Meeting, Question, Row, describe};

/// How often a difference is looked at again before it counts, and how long to wait between.
const LOOKS: usize = 4;
const BETWEEN_LOOKS: Duration = Duration::from_secs(3);
/// How much younger than the oldest that is kept a window must be: a run takes less, and nothing of it expires meanwhile.
const KEPT_MARGIN_SECONDS: i64 = 3_600;

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
    let mut verdict = Verdict { view: view.plan.name.clone(), ..Verdict::default() };
    let failed = |error| Error::ClickHouse { view: view.plan.name.clone(), error };
    let Some(closed) = closed(client, view, events_days).await.map_err(failed)? else { return Ok(verdict) };
    let question = Question::of(&view.plan, (closed.from_seconds, closed.through_seconds));
    let kept = client.qualified(&view.plan.name);
    let columns = describe(client, &kept, &question.columns).await.map_err(failed)?;
    let computed = format!("({})", view.text.trim().trim_end_matches(';'));
    question.merge(client, &computed, &kept, |meeting| verdict.take(&meeting, &columns, options)).await?;
    verdict.compared = Some((closed.first, closed.last));
    Ok(verdict)
}

impl Verdict {
    fn take(&mut self, meeting: &Meeting, columns: &[Described], options: Options) {
        let one_sided = |row: &Row, is_expected: bool| Difference {
            key: row.key.clone(),
            column: None,
            expected: is_expected.then(|| row.shown()),
            live: (!is_expected).then(|| row.shown()),
        };
        match meeting {
            Meeting::Both(expected, live) => {
                self.expected_rows += 1;
                self.live_rows += 1;
                self.take_cells(expected, live, columns, options);
            }
            Meeting::First(expected) => {
                self.expected_rows += 1;
                self.note(options, one_sided(expected, true));
            }
            Meeting::Second(live) => {
                self.live_rows += 1;
                self.note(options, one_sided(live, false));
            }
        }
    }

    fn take_cells(&mut self, left: &Row, right: &Row, columns: &[Described], options: Options) {
        for ((column, expected), live) in columns.iter().zip(&left.cells).zip(&right.cells) {
            self.cells += 1;
            if !column.are_equal(expected, live, options.tolerance) {
                let difference = Difference {
                    key: left.key.clone(),
                    column: Some(column.name.clone()),
                    expected: Some(expected.to_string()),
                    live: Some(live.to_string()),
                };
                self.note(options, difference);
            }
        }
    }

    fn note(&mut self, options: Options, difference: Difference) {
        self.differing += 1;
        if self.differences.len() < options.show {
            self.differences.push(difference);
        }
    }
}

/// The windows to compare: starts in seconds since 1970, and as ClickHouse prints them.
struct Closed {
    first: String,
    last: String,
    from_seconds: i64,
    through_seconds: i64,
}

/// The closed windows that are whole: what ClickHouse may have let go of, or may while it is asked, is left out.
async fn closed(client: &Client, view: &BoundView, events_days: u32) -> Result<Option<Closed>, DeliveryError> {
    #[derive(Deserialize)]
    struct Found {
        first: Option<String>,
        last: Option<String>,
        from_seconds: Option<i64>,
        through_seconds: Option<i64>,
    }
    let window = identifier(&view.plan.window.name);
    let days = view.config.retention_days.map_or(events_days, |days| days.min(events_days));
    let sql = format!(
        "SELECT toString(minOrNull({window})) AS first, toString(maxOrNull({window})) AS last, \
         minOrNull(toInt32(toUnixTimestamp({window}))) AS from_seconds, \
         maxOrNull(toInt32(toUnixTimestamp({window}))) AS through_seconds FROM {} \
         WHERE is_closed AND toInt64(toUnixTimestamp({window})) >= toInt64(toUnixTimestamp(now())) - {}",
        client.qualified(&view.plan.name),
        i64::from(days) * 86_400 - KEPT_MARGIN_SECONDS,
    );
    let found = client.select::<Found>(&sql).await?;
    Ok(found.into_iter().next().and_then(|found| {
        let (from_seconds, through_seconds) = found.from_seconds.zip(found.through_seconds)?;
        Some(Closed { first: found.first?, last: found.last?, from_seconds, through_seconds })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn every_differing_cell_is_counted_and_the_first_are_kept() {
        let columns = [
            Described { name: "n".to_owned(), r#type: "UInt64".to_owned() },
            Described { name: "x".to_owned(), r#type: "Nullable(Float64)".to_owned() },
        ];
        let row = |cells: Vec<Value>| Row { hash: 1, key: "[1]".to_owned(), cells, text: String::new() };
        let mut verdict = Verdict::default();
        let options = Options { show: 1, tolerance: 1e-9, live: false };
        let rows = Meeting::Both(row(vec![json!("1"), json!(2.0)]), row(vec![json!("2"), json!(3.0)]));
        verdict.take(&rows, &columns, options);
        assert_eq!((verdict.cells, verdict.differing, verdict.differences.len()), (2, 2, 1));
        assert_eq!(verdict.differences[0].expected.as_deref(), Some("\"1\""));
    }
}
