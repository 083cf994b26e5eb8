//! Whole views: the plan as `check` prints it, and types, windows and signatures against ClickHouse.

use std::collections::BTreeMap;

use expect_test::expect;
use weir_operators::view::{Output, ViewPlan};
use weir_pipeline::sql::{self, columns_used, plan_condition, render};
use weir_schemas::stage::system;

use super::data;
use super::oracle::table;
use crate::engine::engine;

fn planned(text: &str) -> ViewPlan {
    let sources = BTreeMap::from([("t".to_owned(), data::source())]);
    sql::plan("v", text, "v.sql", &sources).unwrap_or_else(|problems| panic!("{text}: {}", problems[0]))
}

#[test]
fn a_view_is_planned_and_printed() {
    let plan = planned(
        "SELECT toStartOfInterval(ts, INTERVAL 5 MINUTE) AS window_start, lc AS tenant, props['country'] AS country,
                countIf(s = 'purchase') AS orders, sumIf(d10, s = 'purchase') AS revenue, uniqExact(ns) AS users,
                quantileDD(0.01, 0.95)(f64) AS p95
         FROM t WHERE s != 'heartbeat' AND country != '' GROUP BY window_start, 2, props['country'] HAVING orders > 3 AND uniqExact(ns) > 1",
    );
    expect![[r#"
        view v
          source  t
          where   ((s != 'heartbeat') AND (props['country'] != ''))
          having  ((orders > 3) AND (users > 1))
          window_start  DateTime('UTC')         window of 5 minutes (UTC)
          tenant        LowCardinality(String)  lc
          country       String                  props['country']
          orders        UInt64                  countIf((s = 'purchase'))
          revenue       Decimal(38, 2)          sumIf(d10, (s = 'purchase'))
          users         UInt64                  uniqExact(ns)
          p95           Float64                 quantileDD(f64)
    "#]]
    .assert_eq(&render(&plan));
    let used: Vec<usize> = columns_used(&plan).into_iter().map(|index| index - system::COUNT).collect();
    let names: Vec<&str> = used.iter().map(|index| data::columns()[*index].0).collect();
    assert_eq!(names, ["f64", "s", "lc", "d10", "props", "ns"]);
}

#[test]
fn columns_and_states_have_clickhouses_types() {
    let calls = [
        "count()",
        "count(*)",
        "count(n64)",
        "count(1)",
        "sum(i8)",
        "sum(u8)",
        "sum(f32)",
        "sum(d10)",
        "sum(nd)",
        "sum(flag)",
        "sum(nf)",
        "min(lc)",
        "min(nlc)",
        "max(s)",
        "min(flag)",
        "max(nts)",
        "min(d38)",
        "max(day)",
        "min(id)",
        "avg(d10)",
        "avg(n64)",
        "avg(f32)",
        "avg(flag)",
        "uniqExact(nlc)",
        "uniqExact(s)",
        "uniqExact(ts)",
        "uniqExact(d6)",
        "uniqCombined64(lc)",
        "quantileDD(0.01, 0.5)(f64)",
        "quantileDD(0.01, 0.5)(n64)",
        "quantileDD(0.01)(f32)",
        "quantileDD(0.05, 1)(u8)",
        "quantileDD(0.001, 0.)(i64)",
        "countIf(flag)",
        "countIf(n64 > 1)",
        "countIf(n64, flag)",
        "sumIf(i64, n64 > 1)",
        "sumIf(n64, flag)",
        "maxIf(s, nb)",
        "avgIf(f64, lc = 'a')",
        "uniqExactIf(s, nlc = 'a')",
        "uniqExactIf(ns, u8)",
        "quantileDDIf(0.01, 0.5)(f64, flag)",
        "avgIf(nd, n64 > 1)",
        "uniqCombined64If(ns, flag)",
        "uniqCombined64(n64)",
        "uniqCombined64If(s, nb)",
        "uniqExact(n64)",
        "COUNT()",
        "SUM(i8)",
        "Avg(u8)",
    ];
    let (table, _) = table();
    for call in calls {
        let plan = planned(&format!("SELECT toStartOfMinute(ts) AS w, {call} AS m FROM t GROUP BY w"));
        let planned = &plan.measures[0].call;
        let theirs = engine().query(&format!("SELECT toTypeName({call}) FROM {table} WHERE 0")).expect(call);
        assert_eq!(planned.result_type().to_string(), theirs.trim().replace("\\'", "'"), "{call}");
        // The combinator -State stands where the name ends.
        let name_ends = call.find('(').expect("a call");
        let state = format!("{}State{}", &call[..name_ends], &call[name_ends..]);
        let theirs = engine().query(&format!("SELECT toTypeName({state}) FROM {table} WHERE 0"));
        let Ok(theirs) = theirs else { continue };
        let signature = format!("AggregateFunction({})", planned.signature);
        // count of a literal keeps no argument; names in other cases keep their case in ClickHouse.
        if matches!(call, "count(1)" | "COUNT()" | "SUM(i8)" | "Avg(u8)") {
            continue;
        }
        let theirs = if planned.condition.is_some() {
            // The state of an -If form has the type of its base without the condition, so that one merge serves all.
            let (head, arguments) = call.trim_end_matches(')').rsplit_once('(').expect("a call");
            let base = arguments.rsplit_once(", ").map_or("", |(base, _condition)| base);
            let state = format!("{}({base})", head.replacen("If", "State", 1));
            engine().query(&format!("SELECT toTypeName({state}) FROM {table} WHERE 0")).expect(call)
        } else {
            theirs
        };
        assert_eq!(signature, theirs.trim().replace("\\'", "'"), "{call}");
    }
}

#[test]
fn windows_have_clickhouses_types() {
    let windows = [
        "toStartOfInterval(ts, INTERVAL 1 SECOND)",
        "toStartOfInterval(ts, INTERVAL 7 MINUTE)",
        "toStartOfInterval(ts, INTERVAL 5 HOUR)",
        "toStartOfInterval(ts, INTERVAL 1 DAY)",
        "toStartOfInterval(ts, INTERVAL 1 DAY, 'Europe/Berlin')",
        "toStartOfInterval(ts, INTERVAL 15 MINUTE, 'Asia/Kolkata')",
        "toStartOfMinute(ts)",
        "toStartOfFiveMinutes(ts)",
        "toStartOfTenMinutes(ts)",
        "toStartOfFifteenMinutes(ts)",
        "toStartOfHour(ts)",
        "toStartOfDay(ts)",
        "toStartOfHour(ts, 'Asia/Tokyo')",
        "toStartOfDay(ts, 'America/New_York')",
        "toDate(ts)",
        "toDate(ts, 'Asia/Tokyo')",
    ];
    let (table, _) = table();
    for window in windows {
        let plan = planned(&format!("SELECT {window} AS w, count() AS c FROM t GROUP BY w"));
        let theirs = engine().query(&format!("SELECT toTypeName({window}) FROM {table} LIMIT 1")).expect(window);
        assert_eq!(plan.window.column_type.to_string(), theirs.trim().replace("\\'", "'"), "{window}");
    }
}

#[test]
fn a_key_may_be_grouped_by_alias_position_or_expression() {
    for keys in ["w, d", "1, 2", "toStartOfMinute(ts), lower(s)", "ALL", "w, lower(t.s)"] {
        let keys = if keys == "ALL" { "GROUP BY ALL".to_owned() } else { format!("GROUP BY {keys}") };
        let plan = planned(&format!("SELECT toStartOfMinute(ts) AS w, lower(s) AS d, count() AS c FROM t {keys}"));
        assert_eq!(plan.outputs, [Output::Window, Output::Dimension(0), Output::Measure(0)], "{keys}");
    }
}

#[test]
fn days_may_be_cut_by_to_date_and_a_date_may_be_a_dimension() {
    let plan = planned("SELECT toDate(ts) AS day_, count() AS c FROM t GROUP BY day_");
    assert_eq!(plan.outputs, [Output::Window, Output::Measure(0)]);
    let plan = planned("SELECT toStartOfHour(ts) AS w, toDate(ts) AS day_, count() AS c FROM t GROUP BY w, day_");
    assert_eq!(plan.outputs, [Output::Window, Output::Dimension(0), Output::Measure(0)]);
}

#[test]
fn a_rule_is_a_condition() {
    let source = data::source();
    let condition = plan_condition("d10 >= 0 AND s != ''", "rule.sql", &source).expect("a condition");
    let (_, batch) = table();
    assert_eq!(condition.evaluate_condition(batch).expect("computed").len(), batch.num_rows());
    let problems = plan_condition("d10 + 1", "rule.sql", &source).expect_err("no condition");
    assert!(problems[0].message.contains("a condition is wanted"), "{}", problems[0]);
    let problems = plan_condition("d10 >= 0 s", "rule.sql", &source).expect_err("too much");
    assert_eq!(problems[0].at, Some((1, 10)), "{}", problems[0]);
}
