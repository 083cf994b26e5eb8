//! What we rely on of ClickHouse, one expression each: accepted by the planner, and equal in type and in every row.

use super::oracle::{differences, plan};

const FACTS: &[&str] = &[
    // Promotion, wrap-around, division.
    "u8 + u8", "u8 + i8", "u32 + i8", "u64 + i8", "u64 + u64", "i64 + i64", "i32 + i16", "u8 - u8", "u64 - u64", "u8 * u8",
    "u16 * i8", "u64 * i64", "i64 * i64", "u8 / u8", "i64 / 0", "f64 / 0", "f32 + u8", "f32 + f32", "f32 + i64", "f32 / f32",
    "f32 * f64", "f32 - i16", "intDiv(u8, 2)", "intDiv(i32, 2)", "intDiv(i64, 7)", "intDiv(u64, -3)", "intDiv(u8, -3)",
    "intDiv(u8, 100000)", "intDiv(i8, 200)", "i64 % 3", "i64 % -3", "i32 % 100000", "i16 % 100000", "i64 % 4294967296",
    "u64 % -3", "flag % 2", "-u8", "-u16", "-u32", "-u64", "-i8", "-i64", "-f32", "-flag", "-d10",
    "abs(i8)", "abs(i64)", "abs(u8)", "abs(f32)", "abs(d10)", "abs(flag)", "flag + flag", "flag + 1", "n64 + 1", "n64 * nf",
    "1 + 1", "1 + 1 + 1", "5 - 3 - 1", "2 + 3 * 4 - 1", "-5", "- 5", "-(5)", "-1.5", "+5", "18446744073709551616", "1e3",
    "-9223372036854775808", "-129", "65536", "4294967296", "-0", "0", "255", "256",
    // Comparison.
    "i64 = u64", "i64 < u64", "i8 > u64", "u64 = f64", "i64 = f64", "i64 > f64", "u64 <= f64", "f64 = f64", "f64 != f64", "f64 < 1",
    "f32 = 0.1", "i64 < 0.5", "n64 = 1", "n64 != nf", "flag = true", "flag = 1", "flag < 2", "flag > 0.5", "s = 'purchase'", "s < lc",
    "lc = 'purchase'", "nlc = 'a'", "ns >= 'a'", "lc != s", "s > 'a\\xff'", "d10 = d18", "d10 < 5", "d10 > -5", "d10 > 1.5", "d10 = 0.3",
    "d9 < f32", "d18 >= d38", "nd != 0", "5 < d10", "i8 between 1 and 3", "i8 not between 1 and 3", "n64 between 0 and 50",
    "ts > '2020-01-01 00:00:00.5'", "ts >= '2020-01-01'", "ts = '2020-01-01 00:00:00'", "dt < '2020-06-01 12:00:00'",
    "d6 > '2020-06-01 12:00:00.123456'", "day >= '2020-02-29'", "'2020-02-29' > day", "dt < ts", "ts > d6", "nts < ts",
    "id = '61f0c404-5cb3-11e7-907b-a6006ad3dba0'", "fs = 'ab'", "fs < 'abab'", "day = day",
    // Logic.
    "flag and 1", "not flag", "not i64", "not n64", "u8 and i8", "nb and 0", "nb or 1", "nb or flag", "n64 and u8", "nb and nb", "not nb",
    "n64 is null", "n64 is not null", "i8 is null", "isNull(nlc)", "isNotNull(s)", "(n64 is null) = flag", "not (s = 'a')", "not s = 'a'",
    "flag and u8 and nb", "flag or u8 or n64",
    // Choice.
    "if(flag, u8, i8)", "if(flag, u64, 1)", "if(flag, i32, 1.5)", "if(flag, u32, -1)", "if(flag, f32, 1)", "if(flag, f32, 1.5)",
    "if(flag, f64, 0)", "if(flag, i64, 0)", "if(flag, 1, NULL)", "if(flag, 'a', ns)", "if(nb, 1, 2)", "if(flag, d10, 0)",
    "if(flag, d10, i64)", "if(flag, d9, u32)", "if(flag, d9, u8)", "if(flag, nd, 0)", "if(flag, d10, NULL)", "if(flag, true, false)",
    "if(flag, lc, 'b')", "if(flag, lc, lc)", "if(flag, lc, NULL)", "if(flag, ts, nts)", "if(lc = 'a', 1, 2)", "if(flag, id, NULL)",
    "if(u8, day, day)", "multiIf(flag, u8, nb, -1, i64)", "multiIf(n64 > 5, 'a', nb, lc, 'c')", "multiIf(flag, 1, nb, NULL, 3)",
    "case when flag then 1 end", "case when flag then 1 when nb then 2 else -1 end", "coalesce(n64, 2)", "coalesce(n64, NULL)",
    "coalesce(ns, '')", "coalesce(nlc, '')", "coalesce(nlc, lc)", "coalesce(nlc, ns)", "coalesce(nd, 0)", "coalesce(n64, nd, 1)",
    "coalesce(i64, 5)", "ifNull(nlc, lc)", "ifNull(nf, 0)", "coalesce(nb, false)", "coalesce(nf, n64 > 0)", "coalesce(ns, nlc, 'x')",
    // IN and LIKE.
    "u8 in (256, 1)", "u8 in (1.5, 255)", "i8 in (255, -128)", "i64 in (1, NULL, -1)", "n64 in (1, 2)", "n64 not in (1, NULL)",
    "s in ('purchase', 'a')", "lc not in ('purchase', 'a')", "nlc in ('a')", "f64 in (0, 0.5)", "f32 in (0.1, 0.5)", "f64 in (9007199254740993)",
    "flag in (true)", "d10 in (1, 2)", "day in ('2020-01-01')", "ts in ('2020-01-01 00:00:00.5', '2020-01-01')", "u64 in (18446744073709551615)",
    "s in ('a','b','c','d','e','f','g','h','i','purchase')", "id in ('61f0c404-5cb3-11e7-907b-a6006ad3dba0')", "fs in ('ab')", "s in 'purchase'",
    "s like 'a%'", "s like '%a%'", "s like '%b'", "s like '_'", "s like '__'", "s like '%a_'", "s like 'a%b'", "s like 'a\\\\%b%'", "s like 'a\\\\_b'",
    "s like 'a\\\\xb'", "s like 'a\\\\\\\\b'", "s not like '%a%'", "ns like '%a%'", "lc like 'p%'", "s ilike 'PURCHASE'", "s ilike '%SKI%'", "s ilike 'ski'",
    "s ilike '_k_'", "s ilike '%s%'", "s ilike '%k_'", "s like '%%'", "s like ''", "s like '%'", "s like '% %'", "s like '%a%b%'", "s like '_%_'",
    "s not ilike 'p%'", "s like '%ü_e%'",
    // Strings.
    "lower(s)", "upper(lc)", "lower(nlc)", "length(s)", "length(lc)", "length(ns)", "length(props)", "concat(s, lc)", "concat(lc, 'x')", "concat(lc, lc)",
    "concat(s, i64, f64)", "concat(s, flag, d10)", "s || 'x'", "concat(ns, s)", "concat(s)", "concat(s, ts)", "substring(s, 2)", "substring(s, 2, 2)",
    "substring(s, -3)", "substring(s, -3, 2)", "substring(s, 2, -2)", "substring(s, 10)", "substring(s, -10, 7)",
    "substring(s, i8)", "substring(s, i8, i16)", "substring(s, u64)", "substring(s, n64, 2)", "substring(lc, 2)", "substring(ns, 1, 1)", "substr(s, 2)",
    "startsWith(s, 'a')", "startsWith(s, lc)", "endsWith(ns, 'b')", "props['country']", "props['nothing']", "props[lc]", "props['country'] = 'DE'",
    "toInt64OrZero(props['plan'])",
    // Text.
    "toString(i8)", "toString(u64)", "toString(f64)", "toString(f32)", "toString(flag)", "toString(d10)", "toString(d38)", "toString(ts)", "toString(d6)",
    "toString(dt)", "toString(day)", "toString(id)", "toString(fs)", "toString(nlc)", "toString(lc)", "toString(nts)", "toString(nb)", "toString(n64 > 1)",
    // Conversion.
    "toInt64(u64)", "toInt64(d10)", "toInt64(ts)", "toInt64(d6)", "toInt64(dt)", "toInt64(day)", "toInt64(flag)", "toInt64(n64)", "toInt64(d38)",
    "toInt64OrZero(s)", "toInt64OrNull(s)", "toInt64OrZero(ns)", "toInt64OrNull(nlc)", "toInt64OrZero(lc)", "toFloat64(i64)", "toFloat64(d38)", "toFloat64(u64)",
    "toFloat64(ts)", "toFloat64(dt)", "toFloat64(f32)", "toFloat64OrZero(s)", "toFloat64OrNull(s)", "toFloat64OrNull(ns)", "toDecimal64(i32, 2)", "toDecimal64(d38, 2)",
    "toDecimal64(d10, 1)", "toDecimal64(d18, 2)", "toDecimal64(flag, 2)", "toDecimal64(i8 / 7, 3)", "toDecimal64(0.29, 2)", "toDecimal64(u16, 0)", "toDecimal64OrZero(s, 2)",
    "toDecimal64OrNull(s, 2)", "toDecimal64OrNull(ns, 4)", "toDecimal64OrZero(s, 0)", "toDecimal64OrZero(s, 18)", "toDate(ts)", "toDate(d6)", "toDate(ts, 'Asia/Tokyo')", "toDate(dt)", "toDate(day)", "toDate(nts)",
    // Rounding.
    "round(f64)", "round(f64, 1)", "round(f64, 2)", "round(f64, -2)", "round(f32)", "round(f32, 1)", "round(f32, -1)", "round(i8, -1)", "round(u8, -1)", "round(i64, -1)",
    "round(u64, -1)", "round(i64, -18)", "round(i64, -19)", "round(i8, -3)", "round(i64, 2)", "round(u16, -2)", "round(d10)", "round(d10, 1)", "round(d10, 5)", "round(d10, -2)",
    "round(d18, 3)", "round(nd, 1)", "round(i32, -3)", "round(i32, -9)",
    // Decimals.
    "d10 + d10", "d10 + d9", "d10 - d18", "d9 * d9", "d10 * d10", "d9 + d38", "d10 + 1", "d10 * 3", "1 - d10", "d10 * i32", "d9 + i16", "d10 / 3", "d18 / 7", "d10 + 1.5",
    "d10 * f64", "f64 / d10", "d10 / 0.5", "d10 / -7", "nd * 2", "d38 + 1", "d18 + i64",
    // Literals.
    "'a\\tb'", "'a''b'", "'a\\\\b'", "'a\\%b'", "'a\\qb'", "'a\\x41b'", "'\\a\\b\\e\\f\\v\\r\\n\\0'", "'a\\/b\\\"c\\`d'", "true", "concat('\\xff', s)",
    // Names in any case.
    "LOWER(s)", "COALESCE(n64, 1)", "IF(flag, 1, 2)", "ROUND(f64)", "CONCAT(s, 'a')", "LENGTH(s)", "IFNULL(n64, 1)", "ABS(i8)", "UPPER(s)", "ISNULL(n64)", "SUBSTRING(s, 2)",
    "plus(i8, 1)", "equals(s, 'a')", "and(flag, 1)", "or(flag, 0)", "not(flag)", "like(s, 'a%')", "notLike(s, 'a%')", "ilike(s, 'A%')", "negate(i8)", "modulo(i64, 3)",
    "notILike(s, 'A%')", "minus(u8, 1)", "multiply(u8, 2)", "divide(u8, 2)", "greater(i8, 1)", "lessOrEquals(i8, 1)", "notEquals(i8, 1)", "NOT(flag)",
];

#[test]
fn what_we_rely_on_is_so_in_clickhouse() {
    let mut planned = Vec::new();
    let mut refused = Vec::new();
    for fact in FACTS {
        match plan(fact) {
            Ok(expr) => planned.push(((*fact).to_owned(), expr)),
            Err(problems) => refused.push(format!("{fact}: {}", problems[0])),
        }
    }
    assert!(refused.is_empty(), "refused:\n{}", refused.join("\n"));
    let found = differences(&planned);
    assert!(found.is_empty(), "{} of {} differ:\n{}", found.len(), FACTS.len(), found.join("\n"));
}

#[test]
fn powers_of_two_are_written_as_clickhouse_writes_them() {
    // Their shortest digits are found by a rule of their own.
    let planned: Vec<_> = (-160..160)
        .map(|power| {
            let text = format!("toString({:?})", 2f64.powi(power));
            let expr = plan(&text).expect("a literal");
            (text, expr)
        })
        .collect();
    let found = differences(&planned);
    assert!(found.is_empty(), "{} differ:\n{}", found.len(), found.join("\n"));
}
