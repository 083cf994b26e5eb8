//! What is refused: at which place, in which words, with which way out.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use weir_pipeline::sql;

use super::data;

fn check(text: &str, expected: Expect) {
    let sources = BTreeMap::from([("events".to_owned(), data::source())]);
    let problems = match sql::plan("v", text, "v.sql", &sources) {
        Ok(plan) => panic!("{text} was planned as\n{}", sql::render(&plan)),
        Err(problems) => problems,
    };
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| {
            let (line, column) = problem.at.expect("a place");
            format!("{line}:{column} {} -> {}", problem.message, problem.remedy)
        })
        .collect();
    expected.assert_eq(&lines.join("\n"));
}

/// A view whose one dimension is `expression`, which begins at 2:1.
fn check_expression(expression: &str, expected: Expect) {
    check(
        &format!("SELECT toStartOfMinute(ts) AS w,\n{expression} AS d,\ncount() AS c FROM events GROUP BY w, d"),
        expected,
    );
}

/// A view whose one measure is `call`, which begins at 2:1.
fn check_measure(call: &str, expected: Expect) {
    check(&format!("SELECT toStartOfMinute(ts) AS w,\n{call} AS m\nFROM events GROUP BY w"), expected);
}

#[test]
fn names_are_suggested() {
    check_expression("lowr(s)", expect!["2:1 the function lowr isn't supported -> did you mean `lower`?"]);
    check_expression("lower(prosp['a'])", expect!["2:7 there is no column `prosp` -> did you mean `props`?"]);
    check_expression(
        "nothing_like_it + 1",
        expect!["2:1 there is no column `nothing_like_it` -> see the reader schema for the columns"],
    );
    check_measure("uniqExct(s)", expect!["2:1 the function uniqExct isn't supported -> did you mean `uniqExact`?"]);
    check(
        "SELECT toStartOfMinute(ts) AS w, count() AS c FROM evnts GROUP BY w",
        expect!["1:52 there is no source `evnts` -> did you mean `events`?"],
    );
    check_measure(
        "uniq(s)",
        expect!["2:1 the function uniq isn't supported -> use uniqExact, or uniqCombined64 for an estimate"],
    );
}

#[test]
fn a_call_without_arguments_is_refused_and_never_left_out() {
    check_expression(
        "round()",
        expect!["2:1 0 arguments where one or two are taken -> give it a value and, if wanted, a second argument"],
    );
    check_expression(
        "toDate(ts, 'UTC', 1)",
        expect!["2:1 3 arguments where one or two are taken -> give it a value and, if wanted, a second argument"],
    );
    check(
        "SELECT toStartOfMinute(ts) AS w, count() AS c FROM events WHERE toDate() = toDate() GROUP BY w",
        expect![
            "1:65 0 arguments where one or two are taken -> give it a value and, if wanted, a second argument\n1:76 0 arguments where one or two are taken -> give it a value and, if wanted, a second argument"
        ],
    );
}

#[test]
fn what_could_stop_a_view_is_refused() {
    check_expression(
        "toInt64('12 apples')",
        expect![
            "2:1 this fails for every event: expression toInt64('12 apples'): the string can't be parsed as Int64 -> write another literal"
        ],
    );
    check_expression(
        "intDiv(i64, i8)",
        expect![
            "2:13 intDiv by anything but a small literal other than 0 and -1 could stop the view at a row where ClickHouse fails -> divide by a literal, or use a / b"
        ],
    );
    check_expression(
        "i64 % 0",
        expect![
            "2:7 modulo by anything but a small literal other than 0 and -1 could stop the view at a row where ClickHouse fails -> divide by a literal, or use a / b"
        ],
    );
    check_expression(
        "intDiv(i64, -1)",
        expect![
            "2:14 intDiv by anything but a small literal other than 0 and -1 could stop the view at a row where ClickHouse fails -> divide by a literal, or use a / b"
        ],
    );
    check_expression(
        "d10 / d18",
        expect![
            "2:1 division of decimals isn't supported: a divisor of zero would stop the view -> write toFloat64(a) / toFloat64(b)"
        ],
    );
    check_expression(
        "d10 / i8",
        expect![
            "2:1 a decimal divided by a value that may be zero would stop the view -> divide by a literal other than zero, or write toFloat64(a) / b"
        ],
    );
}

#[test]
fn types_that_clickhouse_gives_no_meaning_are_refused() {
    check_expression(
        "if(flag, i64, 'a')",
        expect!["2:15 Int64 and String have no common type -> convert one to the other's type, as with toString"],
    );
    check_expression(
        "if(flag, u64, i64)",
        expect!["2:15 UInt64 and Int64 have no common type -> convert with toInt64 or toFloat64 to one of the types"],
    );
    check_expression(
        "if(i64, 1, 2)",
        expect![
            "2:4 a condition is of type UInt8 or Bool, this is of type Int64 -> compare it with something, as in x != 0"
        ],
    );
    check_expression(
        "if(flag, d10, d18)",
        expect![
            "2:15 Decimal(10, 2) and Decimal(18, 4) have no common type -> convert all with toDecimal64(x, scale) or toFloat64(x)"
        ],
    );
    check_expression(
        "if(flag, d10, 1.5)",
        expect![
            "2:15 Decimal(10, 2) and Float64 have no common type -> convert all with toDecimal64(x, scale) or toFloat64(x)"
        ],
    );
    check_expression(
        "s = 1",
        expect![
            "2:1 String and UInt8 don't compare with equals -> convert the other side with toString, or the string to its type"
        ],
    );
    check_expression("i64 = '1'", expect!["2:7 '1' isn't a value of type Int64 -> write a number without quotes"]);
    check_expression(
        "n64 = NULL",
        expect!["2:7 NULL here makes the result NULL for every row -> write `x IS NULL`, or coalesce(x, default)"],
    );
    check_expression(
        "lower(i64)",
        expect!["2:7 lower wants a string, this is of type Int64 -> convert it with toString first"],
    );
    check_expression(
        "s and 1",
        expect![
            "2:1 AND wants conditions, this is of type String -> compare it with something, as in x != 0 or x != ''"
        ],
    );
    check_expression(
        "ts > '2020-13-01'",
        expect![
            "2:6 '2020-13-01' isn't a value of type DateTime64(3, 'UTC') -> write it as '2026-05-31 12:30:00.123', with no more places than the type has"
        ],
    );
    check_expression(
        "dt > '2024-03-31 02:30:00'",
        expect![
            "2:6 '2024-03-31 02:30:00' isn't a value of type DateTime('Europe/Berlin') -> write it as '2026-05-31 12:30:00', a time that its zone shows once"
        ],
    );
    check_expression(
        "ts > '2020-01-01 00:00:00.1234'",
        expect![
            "2:6 '2020-01-01 00:00:00.1234' isn't a value of type DateTime64(3, 'UTC') -> write it as '2026-05-31 12:30:00.123', with no more places than the type has"
        ],
    );
    check_expression(
        "d10 = i64",
        expect![
            "2:1 Decimal(10, 2) and Int64 don't compare with equals -> convert the other side with toDecimal64(x, scale)"
        ],
    );
    check_expression(
        "s in (1, 'a')",
        expect!["2:7 1 can't be looked for in a column of type String -> write literals of the type String"],
    );
    check_expression(
        "s like lc",
        expect!["2:8 the pattern of LIKE must be a literal -> write the pattern as a string"],
    );
    check_expression(
        "s like 'a\\\\'",
        expect![
            "2:8 the pattern ends in a single backslash -> change the pattern; in a string, a backslash is written as two"
        ],
    );
    check_expression("s + 1", expect!["2:1 plus wants numbers, this is of type String -> convert it first"]);
    check_expression(
        "props[1]",
        expect!["2:7 a key of type UInt8 isn't supported in Map(String, String) -> use a string as the key"],
    );
    check_expression(
        "props",
        expect![
            "2:1 grouping by a value of type Map(String, String) isn't supported -> group by one of its values, as in props['country']"
        ],
    );
    check_expression(
        "round(f64, i8)",
        expect!["2:12 the number of decimal places must be a literal -> write a whole number"],
    );
    check_expression(
        "toDate(ts, 'Mars/Base')",
        expect!["2:12 this is no time zone -> write an IANA name as a literal, such as 'Europe/Berlin'"],
    );
    check_expression(
        "s || 'a' + 1",
        expect!["2:1 which side + takes first isn't clear here -> put parentheses around each side"],
    );
    check_expression(
        "CAST(s AS Int64)",
        expect!["2:6 CAST isn't supported in a view -> use toInt64, toFloat64, toDecimal64, toString or toDate"],
    );
    check_expression("0x10", expect!["2:1 the literal X'10' isn't supported -> write the number with decimal digits"]);
    check_expression("1_000", expect!["2:1 the literal 1_000 isn't supported -> write the number without underscores"]);
}

#[test]
fn aggregates_that_are_not_there_are_refused() {
    check_measure(
        "sum(s)",
        expect![
            "2:5 sum of a value of type String isn't supported -> convert it with toFloat64OrZero or toInt64OrZero"
        ],
    );
    check_measure(
        "sum(i8) / count()",
        expect![[r#"
        2:1 sum stands inside an expression; a view keeps plain aggregates -> make it a column of its own, and compute with it in a ClickHouse query over the view
        2:11 count stands inside an expression; a view keeps plain aggregates -> make it a column of its own, and compute with it in a ClickHouse query over the view"#]],
    );
    check_measure("count(DISTINCT s)", expect!["2:1 count(DISTINCT ...) isn't supported -> use uniqExact(x)"]);
    check_measure(
        "quantileDD(2, 0.5)(f64)",
        expect![
            "2:1 quantileDD takes a relative accuracy between 0 and 1 and a level from 0 to 1 -> write quantileDD(0.01, 0.95)(x)"
        ],
    );
    check_measure(
        "quantileDD(0.01, 0.5)(d10)",
        expect!["2:23 quantileDD of a value of type Decimal(10, 2) isn't supported -> convert it with toFloat64"],
    );
    check_measure(
        "sumIf(i64)",
        expect!["2:7 the condition of sumIf is of type Int64 -> compare it with something, as in x != 0 or x != ''"],
    );
    check_measure(
        "sumIf(i64, i64)",
        expect!["2:12 the condition of sumIf is of type Int64 -> compare it with something, as in x != 0 or x != ''"],
    );
    check_measure(
        "uniqExact(s, lc)",
        expect!["2:1 uniqExact of several arguments isn't supported -> write uniqExact of one column"],
    );
    check_measure(
        "sum(sum(i8))",
        expect![
            "2:5 sum stands inside an expression; a view keeps plain aggregates -> make it a column of its own, and compute with it in a ClickHouse query over the view"
        ],
    );
    check_measure(
        "min(props)",
        expect![
            "2:5 min of a value of type Map(String, String) isn't supported -> aggregate one of its values, as in props['country']"
        ],
    );
    check_measure(
        "uniqCombined64(12)(s)",
        expect!["2:1 uniqCombined64 with parameters isn't supported -> write uniqCombined64(x)"],
    );
}

#[test]
fn windows_that_are_none_are_refused() {
    check(
        "SELECT s, count() AS c FROM events GROUP BY s",
        expect![
            "1:1 there is no window in the SELECT -> add toStartOfInterval(ts, INTERVAL 1 MINUTE) AS window_start to SELECT and GROUP BY"
        ],
    );
    check(
        "SELECT toStartOfMinute(dt) AS w, count() AS c FROM events GROUP BY w",
        expect![
            "1:24 windows are cut over the event time, which is `ts`, not `dt` -> write `ts` here, or name this field as `event_time` of the source"
        ],
    );
    check(
        "SELECT toStartOfInterval(ts, INTERVAL 1 WEEK) AS w, count() AS c FROM events GROUP BY w",
        expect![
            "1:39 windows of WEEK aren't supported -> use SECOND, MINUTE, HOUR or DAY, and roll up further in a query over the view"
        ],
    );
    check(
        "SELECT toStartOfInterval(ts, INTERVAL 0 DAY) AS w, count() AS c FROM events GROUP BY w",
        expect!["1:39 0 is no width of a window -> write a whole number from 1 to 100000, as in INTERVAL 5 MINUTE"],
    );
    check(
        "SELECT toStartOfInterval(ts) AS w, count() AS c FROM events GROUP BY w",
        expect!["1:8 toStartOfInterval takes a time and an interval -> write INTERVAL 1 MINUTE as its second argument"],
    );
    check(
        "SELECT toStartOfHour(ts, 'Nowhere') AS w, count() AS c FROM events GROUP BY w",
        expect!["1:26 'Nowhere' is no time zone -> write an IANA name as a literal, such as 'Europe/Berlin'"],
    );
    check(
        "SELECT toStartOfHour(ts) AS w, toStartOfDay(ts) AS d, count() AS c FROM events GROUP BY w, d",
        expect!["1:32 a view has one window -> leave one toStartOf... in the SELECT, and write another view"],
    );
    check(
        "SELECT toStartOfHour(ts) AS w, count() AS c FROM events WHERE w > 0 GROUP BY w",
        expect![
            "1:8 toStartOfHour makes the view's window, so it stands as a whole column of the SELECT -> use it once in the SELECT and in GROUP BY; filter by time in a query over the view"
        ],
    );
}

#[test]
fn clauses_that_belong_in_a_query_over_the_view_are_refused_together() {
    check(
        "WITH x AS (SELECT 1) SELECT DISTINCT toStartOfMinute(ts) AS w, count() AS c\nFROM events AS e JOIN other ON 1\nGROUP BY w\nORDER BY w\nLIMIT 5",
        expect![[r#"
            1:1 WITH isn't supported in a view -> write the expression out where it is used
            1:29 DISTINCT isn't supported in a view -> GROUP BY makes the rows distinct
            2:23 JOIN isn't supported in a view -> join in a ClickHouse query over the view
            4:1 ORDER BY isn't supported in a view -> put it into a ClickHouse query over the view
            5:1 LIMIT isn't supported in a view -> put it into a ClickHouse query over the view"#]],
    );
    check("SELECT * FROM events", expect!["1:8 * isn't supported in a view -> name the columns"]);
    check(
        "SELECT toStartOfMinute(ts) AS w, count() FROM events GROUP BY w",
        expect!["1:34 the column count() has no name -> write AS and a name after it"],
    );
    check(
        "SELECT toStartOfMinute(ts) AS w, s, count() AS c FROM events GROUP BY w",
        expect!["1:34 `s` is neither an aggregate nor in GROUP BY -> add it to GROUP BY"],
    );
    check(
        "SELECT toStartOfMinute(ts) AS w, count() AS c FROM events GROUP BY w, s",
        expect![
            "1:71 s is grouped by, but no column of the SELECT -> add it to the SELECT with a name, or leave it out"
        ],
    );
    check(
        "SELECT toStartOfMinute(ts) AS w, count() AS c FROM events GROUP BY w HAVING i64 > 1",
        expect![
            "1:77 `i64` isn't in the SELECT, and HAVING sees its columns only -> put the condition into WHERE, or add the column to SELECT and GROUP BY"
        ],
    );
    check(
        "SELECT toStartOfMinute(ts) AS w, count() AS c FROM events GROUP BY w HAVING sum(i64) > 1",
        expect!["1:77 this call of sum isn't a column of the SELECT -> add it to the SELECT, and use its alias here"],
    );
    check(
        "SELECT toStartOfMinute(ts) AS w, lower(s) AS s, countIf(s = 'a') AS c FROM events GROUP BY w, s",
        expect![
            "1:57 `s` is both a column and an alias of this SELECT, and ClickHouse takes the alias -> give the alias another name"
        ],
    );
    check(
        "SELECT toStartOfMinute(ts) AS w, count() AS c FROM (SELECT 1) GROUP BY w",
        expect!["1:53 a view reads from a source, not from this -> name one source of the pipeline after FROM"],
    );
    check(
        "SELECT 1 UNION ALL SELECT 2",
        expect!["1:10 UNION, EXCEPT and INTERSECT aren't supported in a view -> write a view for each SELECT"],
    );
    check(
        "SELECT toStartOfMinute(ts AS w",
        expect!["1:27 Expected: ), found: AS -> check the SQL at this place; it must be one SELECT of ClickHouse"],
    );
    check("DROP TABLE events", expect!["1:1 a view is one SELECT -> leave one SELECT in the file"]);
    check("", expect!["1:1 a view is one SELECT -> leave one SELECT in the file"]);
    check(
        "SELECT toStartOfMinute(ts) AS w FROM events GROUP BY w",
        expect!["1:1 the view aggregates nothing -> add a measure, such as count() AS events"],
    );
    check(
        "SELECT toStartOfMinute(ts) AS w, count() AS c FROM events FINAL GROUP BY w WITH TOTALS",
        expect![[r#"
        1:1 GROUP BY with ROLLUP, CUBE or TOTALS isn't supported -> roll up in a query over the view
        1:52 FINAL isn't supported in a view -> leave it out: a source has no duplicates"#]],
    );
}

#[test]
fn names_that_every_view_has_already_are_refused_where_they_stand() {
    for taken in ["revision", "is_closed", "is_final", "_version", "_is_deleted"] {
        let text = format!("SELECT toStartOfMinute(ts) AS w,\n count() AS {taken} FROM events GROUP BY w");
        let sources = BTreeMap::from([("events".to_owned(), data::source())]);
        let problems = sql::plan("v", &text, "v.sql", &sources).expect_err(taken);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].at, Some((2, 13)));
        assert_eq!(
            problems[0].message,
            format!("a column can't be called `{taken}`: every view has a column of that name")
        );
    }
    check(
        "SELECT toStartOfMinute(ts) AS w, uniqExact(s) AS users, count() AS users_state FROM events GROUP BY w",
        expect!["1:68 a column can't be called `users_state`: that is the state of `users` -> give it another name"],
    );
}

#[test]
fn a_problem_is_printed_with_a_caret_under_its_place() {
    let sources = BTreeMap::from([("events".to_owned(), data::source())]);
    let text = "SELECT toStartOfMinute(ts) AS w,\n       lowr(s) AS d, count() AS c\nFROM events GROUP BY w, d";
    let problems = sql::plan("v", text, "views/v.sql", &sources).expect_err("lowr is no function");
    expect![[r#"
        views/v.sql:2:8: the function lowr isn't supported
          2 |        lowr(s) AS d, count() AS c
            |        ^
          remedy: did you mean `lower`?"#]]
    .assert_eq(&problems[0].to_string());
}
