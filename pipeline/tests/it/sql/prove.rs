//! Events that a view can't be evaluated for: the same ones as ClickHouse fails over, each asked alone; and over the
//! others together, ClickHouse has an answer.

use std::collections::BTreeMap;

use arrow_array::BooleanArray;
use arrow_select::filter::filter_record_batch;
use weir_operators::prove::{self, Proof};
use weir_operators::view::ViewPlan;
use weir_pipeline::sql::{self, plan_condition};

use super::data;
use super::oracle::table;
use crate::engine::engine;

const ROWS: usize = 64;

/// As `weir verify` asks, and interpreted: compiled, chains of functions lose their checks. Conditions stay in the order
/// in which they are written.
const SETTINGS: &str = "SETTINGS short_circuit_function_evaluation = 'force_enable', \
                        optimize_rewrite_aggregate_function_with_if = 0, optimize_move_to_prewhere = 0, \
                        compile_expressions = 0, compile_aggregate_expressions = 0";

/// Dimensions, measures and filters, each of which fails for some rows.
const VIEWS: &[&str] = &[
    "SELECT toStartOfMinute(ts) AS w, sum(toInt64(s)) AS m FROM t GROUP BY w",
    "SELECT toStartOfMinute(ts) AS w, sum(toFloat64(s)) AS m FROM t GROUP BY w",
    "SELECT toStartOfMinute(ts) AS w, sum(toDecimal64(s, 2)) AS m FROM t GROUP BY w",
    "SELECT toStartOfMinute(ts) AS w, toInt64(lc) AS d, count() AS m FROM t GROUP BY w, d",
    "SELECT toStartOfMinute(ts) AS w, toDate(s) AS d, count() AS m FROM t GROUP BY w, d",
    "SELECT toStartOfMinute(ts) AS w, sum(toInt64(props['plan'])) AS m FROM t GROUP BY w",
    "SELECT toStartOfMinute(ts) AS w, sumIf(toInt64(s), flag) AS m FROM t GROUP BY w",
    "SELECT toStartOfMinute(ts) AS w, sum(toInt64(s)) AS m FROM t WHERE flag GROUP BY w",
    "SELECT toStartOfMinute(ts) AS w, count() AS m FROM t WHERE toInt64(s) > 3 GROUP BY w",
    "SELECT toStartOfMinute(ts) AS w, count() AS m FROM t WHERE flag AND toInt64(s) > 3 GROUP BY w",
    "SELECT toStartOfMinute(ts) AS w, count() AS m FROM t WHERE flag OR toInt64(s) > 3 GROUP BY w",
    "SELECT toStartOfMinute(ts) AS w, countIf(toFloat64(s) > 3 AND flag) AS m FROM t GROUP BY w",
    "SELECT toStartOfMinute(ts) AS w, sum(if(flag, toInt64(s), 0)) AS m FROM t GROUP BY w",
    "SELECT toStartOfMinute(ts) AS w, sum(multiIf(i8 > 0, toInt64(s), flag, toInt64(lc), 7)) AS m FROM t GROUP BY w",
    "SELECT toStartOfMinute(ts) AS w, sum(toInt64(f64)) AS m FROM t GROUP BY w",
    "SELECT toStartOfMinute(ts) AS w, sum(if(f64 < 1000, toInt64(f64), 0)) AS m FROM t GROUP BY w",
    "SELECT toStartOfMinute(ts) AS w, sum(toDecimal64(f64, 4)) AS m FROM t GROUP BY w",
    "SELECT toStartOfMinute(ts) AS w, sum(toDecimal64(d38, 2)) AS m FROM t WHERE flag GROUP BY w",
    "SELECT toStartOfMinute(ts) AS w, sum(d9 * d9 * d9) AS m FROM t GROUP BY w",
    "SELECT toStartOfMinute(ts) AS w, sum(if(flag, d18 * d18, toDecimal64(0, 8))) AS m FROM t GROUP BY w",
    "SELECT toStartOfMinute(ts) AS w, countIf(d38 > d18 * 3) AS m FROM t GROUP BY w",
    "SELECT toStartOfMinute(ts) AS w, quantileDD(0.01, 0.5)(toFloat64(f32)) AS m FROM t GROUP BY w",
    "SELECT toStartOfMinute(ts) AS w, quantileDDIf(0.01, 0.5)(f32, flag) AS m FROM t GROUP BY w",
    "SELECT toStartOfMinute(ts) AS w, quantileDD(0.01, 0.5)(nf / 0) AS m, sum(toInt64(s)) AS n FROM t WHERE i8 < 9 GROUP BY w",
];

fn planned(text: &str) -> ViewPlan {
    let sources = BTreeMap::from([("t".to_owned(), data::source())]);
    sql::plan("v", text, "v.sql", &sources).unwrap_or_else(|problems| panic!("{text}: {}", problems[0]))
}

/// The view over other rows, materialised so that no condition moves between it and them.
fn over(text: &str, rows: &str) -> Result<String, String> {
    engine().query(&format!("{} FORMAT Null {SETTINGS}", text.replace(" FROM t ", &format!(" FROM {rows} "))))
}

#[test]
fn what_clickhouse_fails_over_is_refused_and_nothing_else() {
    let (table, batch) = table();
    let copy = |name: &str, condition: &str| {
        engine().query(&format!("DROP TABLE IF EXISTS {name}")).expect("drop");
        let rows = format!("CREATE TABLE {name} ENGINE = Memory AS SELECT * FROM {table} WHERE {condition}");
        engine().query(&rows).expect("rows");
    };
    for row in 0..ROWS {
        copy(&format!("{table}_{row}"), &format!("row = {row}"));
    }
    let mut found = Vec::new();
    for view in VIEWS {
        let proof = Proof::of_view(&planned(view)).expect("something that can fail");
        let refused: Vec<usize> = proof.unproven(batch).expect("a batch").iter().map(|event| event.row).collect();
        let failing: Vec<usize> = (0..ROWS).filter(|row| over(view, &format!("{table}_{row}")).is_err()).collect();
        if refused != failing {
            found.push(format!("{view}: we refuse {refused:?}, ClickHouse fails over {failing:?}"));
        }
        let accepted: Vec<String> = (0..ROWS).filter(|row| !refused.contains(row)).map(|row| row.to_string()).collect();
        let name = format!("{table}_accepted");
        copy(&name, &format!("row IN ({})", accepted.join(", ")));
        if let Err(error) = over(view, &name) {
            found.push(format!("{view}: over the accepted rows ClickHouse says {error}"));
        }
        let kept: BooleanArray = (0..ROWS).map(|row| Some(!refused.contains(&row))).collect();
        let rest = filter_record_batch(batch, &kept).expect("rows");
        assert_eq!(proof.unproven(&rest).expect("a batch"), [], "{view}: each row alone, but not all of them");
    }
    assert!(found.is_empty(), "{} of {}:\n{}", found.len(), VIEWS.len(), found.join("\n"));
}

#[test]
fn a_refusal_names_the_expression_and_never_the_value() {
    let view = "SELECT toStartOfMinute(ts) AS w, sum(if(flag, toInt64(concat(s, 'x')), 0)) AS m FROM t GROUP BY w";
    let proof = Proof::of_view(&planned(view)).expect("something that can fail");
    assert_eq!(proof.wanted_by, "view v");
    let unproven = proof.unproven(&table().1).expect("a batch");
    assert!(!unproven.is_empty());
    for event in unproven {
        assert_eq!(event.expression, "toInt64(concat(s, 'x'))");
        assert_eq!(event.detail, "the string can't be parsed as Int64");
    }
}

#[test]
fn a_view_that_cannot_fail_has_no_proof() {
    let view = "SELECT toStartOfMinute(ts) AS w, lower(s) AS d, sum(i64 * 2) AS m, quantileDD(0.01, 0.5)(i64) AS q,
                sum(toInt64OrZero(s)) AS z, sum(toInt64(ns)) AS y, min(toDate(nlc)) AS x, avg(toFloat64(d10)) AS a FROM t WHERE f64 > 3 AND s LIKE 'a%' GROUP BY w, d";
    assert!(Proof::of_view(&planned(view)).is_none());
}

#[test]
fn a_rule_holds_row_by_row_and_says_where_it_cannot_be_evaluated() {
    let batch = &table().1;
    let rule = plan_condition("NOT flag OR toInt64(s) != 12", "the rule", &data::source()).expect("a condition");
    let (holds, unproven) = prove::holds(&rule, batch).expect("a batch");
    let alone: Vec<Option<bool>> =
        (0..ROWS).map(|row| rule.evaluate_condition(&batch.slice(row, 1)).ok().map(|truth| truth.value(0))).collect();
    let failing: Vec<usize> = (0..ROWS).filter(|row| alone[*row].is_none()).collect();
    assert!(!failing.is_empty() && failing.len() < ROWS);
    assert_eq!(unproven.iter().map(|event| event.row).collect::<Vec<_>>(), failing);
    let expected: Vec<bool> = alone.iter().map(|truth| truth.unwrap_or(false)).collect();
    assert_eq!(holds.iter().collect::<Vec<_>>(), expected);
}
