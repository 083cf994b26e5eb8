//! Swaps: stretches of a view's windows whose rows readers see from a replay's table instead of the live one.
//!
//! The table `weir_swaps` says what is in place; a readers' view is made from it, so that every start of the pipeline makes the
//! same view again. Where stretches overlap, the one that was swapped in last is seen.
//!
//! Invariant: what readers see of a window comes from exactly one table, and changes with one replacement of the view.
//!
//! Not here: whether a replay's rows may stand there (who swaps checks that).

use serde::Deserialize;
use weir_schemas::tables;

use super::client::Client;
use super::{identifier, literal};
use crate::error::DeliveryError;

/// A replay that stands in the place of live rows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Swapped {
    /// The view.
    pub view: String,
    /// The replay.
    pub run: String,
    /// The database with its rows.
    pub database: String,
    /// The first start of a window that it stands for, in microseconds since 1970.
    pub from: i64,
    /// The first start behind them.
    pub to: i64,
}

/// What somebody does to a view.
#[derive(Clone, Debug)]
pub struct Act<'a> {
    /// Which replay, where.
    pub of: &'a Swapped,
    /// Whether it is put in place; else it is taken out.
    pub is_swap: bool,
    /// Who does it.
    pub by: &'a str,
    /// Why.
    pub why: &'a str,
}

/// What is in place, the oldest first; nothing where there is no such table.
///
/// # Errors
/// What ClickHouse says.
pub async fn active(client: &Client) -> Result<Vec<Swapped>, DeliveryError> {
    let base = super::base_table(tables::SWAPS);
    if !client.has_table(&base).await? {
        return Ok(Vec::new());
    }
    let last = |column: &str| format!("argMax(`{column}`, `at`)");
    let micros = |column: &str| format!("toUnixTimestamp64Micro({}) AS `{column}`", last(column));
    let sql = format!(
        "SELECT `view`, `run`, {} AS `database`, {}, {} FROM {}.{} GROUP BY `view`, `run` \
         HAVING {} = 'swap' ORDER BY max(`at`), `run` SETTINGS output_format_json_quote_64bit_integers = 0",
        last("database"),
        micros("from"),
        micros("to"),
        identifier(client.database()),
        identifier(&base),
        last("action"),
    );
    client.select(&sql).await
}

/// The statement that writes down what somebody does.
pub fn record(database: &str, act: &Act<'_>) -> String {
    let time = |micros: i64| format!("fromUnixTimestamp64Micro({micros}, 'UTC')");
    format!(
        "INSERT INTO {}.{} (`at`, `view`, `run`, `action`, `database`, `from`, `to`, `by`, `why`, `_version`) \
         SELECT now64(6, 'UTC'), {}, {}, {}, {}, {}, {}, {}, {}, 1",
        identifier(database),
        identifier(&super::base_table(tables::SWAPS)),
        literal(&act.of.view),
        literal(&act.of.run),
        literal(if act.is_swap { "swap" } else { "undo" }),
        literal(&act.of.database),
        time(act.of.from),
        time(act.of.to),
        literal(act.by),
        literal(act.why),
    )
}

/// The condition that holds for windows of `swaps[at]`, or of none where `at` is absent; `start` is the window's start in SQL.
pub(super) fn condition(swaps: &[&Swapped], at: Option<usize>, start: &str) -> String {
    let time = |micros: i64| format!("fromUnixTimestamp64Micro({micros}, 'UTC')");
    let within = |of: &Swapped| format!("({start} >= {} AND {start} < {})", time(of.from), time(of.to));
    let own = at.and_then(|at| swaps.get(at)).map(|of| within(of));
    let later = swaps.iter().skip(at.map_or(0, |at| at + 1)).map(|of| format!("NOT {}", within(of)));
    own.into_iter().chain(later).collect::<Vec<_>>().join(" AND ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swapped(run: &str, from: i64, to: i64) -> Swapped {
        Swapped { view: "v".to_owned(), run: run.to_owned(), database: format!("r_{run}"), from, to }
    }

    #[test]
    fn each_window_comes_from_one_table() {
        let (a, b) = (swapped("a", 0, 10), swapped("b", 5, 15));
        let swaps = [&a, &b];
        let time = |micros: i64| format!("fromUnixTimestamp64Micro({micros}, 'UTC')");
        let (of_a, of_b) =
            (format!("(w >= {} AND w < {})", time(0), time(10)), format!("(w >= {} AND w < {})", time(5), time(15)));
        assert_eq!(condition(&swaps, None, "w"), format!("NOT {of_a} AND NOT {of_b}"));
        assert_eq!(condition(&swaps, Some(0), "w"), format!("{of_a} AND NOT {of_b}"));
        assert_eq!(condition(&swaps, Some(1), "w"), of_b);
    }

    #[test]
    fn what_people_write_is_text() {
        let of = swapped("a", 0, 10);
        let act = Act { of: &of, is_swap: true, by: "o'hara", why: "it's \\ wrong" };
        let sql = record("weir", &act);
        assert!(sql.contains(r"'o\'hara'") && sql.contains(r"'it\'s \\ wrong'") && sql.contains("'swap'"), "{sql}");
    }
}
