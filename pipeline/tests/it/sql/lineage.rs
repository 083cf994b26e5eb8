//! Column lineage of views, read from their plans, against what a person says of the same SQL.

use std::collections::BTreeMap;
use std::fmt::Write;

use expect_test::{Expect, expect};
use weir_pipeline::lineage::openlineage::columns::{Fields, of_view};
use weir_pipeline::sql;

use super::data;

/// Each column with its fields, one way a line.
fn check(text: &str, expected: Expect) {
    let sources = BTreeMap::from([("t".to_owned(), data::source())]);
    let plan = sql::plan("v", text, "v.sql", &sources).unwrap_or_else(|problems| panic!("{text}: {}", problems[0]));
    let columns = of_view(&plan, "ts");
    let mut told = String::new();
    for (column, fields) in &columns.columns {
        write(&mut told, column, fields);
    }
    write(&mut told, "(every row)", &columns.whole);
    expected.assert_eq(&told);
}

fn write(told: &mut String, column: &str, fields: &Fields) {
    if fields.is_empty() {
        writeln!(told, "{column} ← nothing").unwrap();
    }
    for (field, ways) in fields {
        for way in ways {
            let (kind, subtype) = way.how.names();
            let masks = if way.masks { " masks" } else { "" };
            let line = format!("{column} ← {field}: {kind} {subtype}{masks} {}", way.description);
            writeln!(told, "{}", line.trim_end()).unwrap();
        }
    }
}

#[test]
fn values_are_direct_and_what_decides_is_indirect() {
    check(
        "SELECT toStartOfInterval(ts, INTERVAL 5 MINUTE) AS window_start, lc AS tenant, props['country'] AS country,
                count() AS events, countIf(s = 'purchase') AS orders, sumIf(d10, s = 'purchase') AS revenue,
                max(if(f64 > 1, i8, u8)) AS most
         FROM t WHERE s != 'heartbeat' GROUP BY window_start, tenant, country",
        expect![[r#"
            window_start ← ts: DIRECT TRANSFORMATION window of 5 minutes (UTC)
            tenant ← lc: DIRECT IDENTITY
            country ← props: DIRECT TRANSFORMATION props['country']
            events ← nothing
            orders ← s: INDIRECT CONDITIONAL (s = 'purchase')
            revenue ← d10: DIRECT AGGREGATION sumIf(d10, (s = 'purchase'))
            revenue ← s: INDIRECT CONDITIONAL (s = 'purchase')
            most ← f64: INDIRECT CONDITIONAL (f64 > 1)
            most ← i8: DIRECT AGGREGATION max(multiIf((f64 > 1), i8, u8))
            most ← u8: DIRECT AGGREGATION max(multiIf((f64 > 1), i8, u8))
            (every row) ← lc: INDIRECT GROUP_BY lc
            (every row) ← props: INDIRECT GROUP_BY props['country']
            (every row) ← s: INDIRECT FILTER WHERE (s != 'heartbeat')
            (every row) ← ts: INDIRECT GROUP_BY window of 5 minutes (UTC)
        "#]],
    );
}

#[test]
fn counts_and_sets_mask_unless_their_state_holds_the_values() {
    check(
        "SELECT toDate(ts) AS day, uniqExact(ns) AS users, uniqExact(i64) AS numbers, uniqCombined64(i64) AS roughly,
                count(ns) AS known, avg(f64) AS mean
         FROM t GROUP BY day",
        expect![[r#"
            day ← ts: DIRECT TRANSFORMATION window of 1 day (UTC)
            users ← ns: DIRECT AGGREGATION masks uniqExact(ns)
            numbers ← i64: DIRECT AGGREGATION masks uniqExact(i64)
            roughly ← i64: DIRECT AGGREGATION masks uniqCombined64(i64)
            known ← ns: DIRECT AGGREGATION masks count(ns)
            mean ← f64: DIRECT AGGREGATION avg(f64)
            users_state ← ns: DIRECT AGGREGATION masks uniqExact(ns)
            numbers_state ← i64: DIRECT AGGREGATION uniqExact(i64)
            roughly_state ← i64: DIRECT AGGREGATION masks uniqCombined64(i64)
            mean_state ← f64: DIRECT AGGREGATION avg(f64)
            (every row) ← ts: INDIRECT GROUP_BY window of 1 day (UTC)
        "#]],
    );
}

#[test]
fn having_filters_by_the_fields_behind_its_columns() {
    check(
        "SELECT toStartOfHour(ts) AS hour, coalesce(ns, s) AS name, ns IS NULL AS is_unnamed, sumIf(i8, flag) AS total
         FROM t GROUP BY hour, name, is_unnamed HAVING total > 3 AND name != ''",
        expect![[r#"
            hour ← ts: DIRECT TRANSFORMATION window of 1 hour (UTC)
            name ← ns: INDIRECT CONDITIONAL coalesce(ns, s)
            name ← ns: DIRECT TRANSFORMATION coalesce(ns, s)
            name ← s: DIRECT TRANSFORMATION coalesce(ns, s)
            is_unnamed ← ns: DIRECT TRANSFORMATION masks isNull(ns)
            total ← flag: INDIRECT CONDITIONAL flag
            total ← i8: DIRECT AGGREGATION sumIf(i8, flag)
            (every row) ← flag: INDIRECT FILTER HAVING ((total > 3) AND (name != ''))
            (every row) ← i8: INDIRECT FILTER HAVING ((total > 3) AND (name != ''))
            (every row) ← ns: INDIRECT GROUP_BY coalesce(ns, s)
            (every row) ← ns: INDIRECT GROUP_BY isNull(ns)
            (every row) ← ns: INDIRECT FILTER HAVING ((total > 3) AND (name != ''))
            (every row) ← s: INDIRECT GROUP_BY coalesce(ns, s)
            (every row) ← s: INDIRECT FILTER HAVING ((total > 3) AND (name != ''))
            (every row) ← ts: INDIRECT GROUP_BY window of 1 hour (UTC)
        "#]],
    );
}
