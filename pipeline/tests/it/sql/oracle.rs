//! The comparison with ClickHouse: each expression that the planner accepts has ClickHouse's type and values.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use weir_operators::expr::{Expr, Function};
use weir_pipeline::problem::Problem;
use weir_pipeline::sql;
use weir_schemas::types::ColumnType;

use super::data;
use crate::engine::engine;

const ROWS: usize = 64;
const SEED: u64 = 20_260_531;

/// The shared table in the engine, and the same rows here.
pub(crate) fn table() -> &'static (String, RecordBatch) {
    static TABLE: OnceLock<(String, RecordBatch)> = OnceLock::new();
    TABLE.get_or_init(|| {
        let name = format!("expressions_{}", std::process::id());
        let rows = data::rows(ROWS, SEED);
        let engine = engine();
        engine.query(&format!("DROP TABLE IF EXISTS {name}")).expect("drop");
        engine.query(&data::create_statement(&name)).expect("create");
        engine.query(&data::insert_statement(&name, &rows)).expect("insert");
        (name, data::batch(&rows))
    })
}

/// The expression as a dimension of a view, so that only the public planner is used.
pub(crate) fn plan(expression: &str) -> Result<Expr, Vec<Problem>> {
    let text =
        format!("SELECT toStartOfMinute(ts) AS w, ({expression}) AS value_, count() AS c FROM t GROUP BY w, value_");
    let sources = BTreeMap::from([("t".to_owned(), data::source())]);
    let mut plan = sql::plan("v", &text, "v.sql", &sources)?;
    Ok(plan.dimensions.remove(0).value)
}

/// ClickHouse's name of a type, without the LowCardinality that we keep on strings only.
fn comparable(type_name: &str) -> &str {
    match type_name.strip_prefix("LowCardinality(").and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) if !matches!(inner, "String" | "Nullable(String)") => inner,
        _ => type_name,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Our answer: the type, and every row's text in hex, NULL as `N`.
pub(crate) fn ours(expr: &Expr, batch: &RecordBatch) -> Result<(String, Vec<String>), String> {
    let value = expr.evaluate(batch).map_err(|error| error.to_string())?;
    assert_eq!(*value.data_type(), expr.column_type().arrow(), "{expr} isn't carried as its type");
    assert_eq!(value.len(), batch.num_rows(), "{expr} has another length");
    assert!(
        value.nulls().is_none_or(|nulls| nulls.null_count() == 0) || expr.column_type().is_nullable(),
        "{expr} has nulls"
    );
    let text = match expr.column_type().without_null() {
        ColumnType::String | ColumnType::LowCardinality => value,
        _ => Expr::call(Function::ToString, vec![expr.clone()])
            .map_err(|refusal| refusal.message)?
            .evaluate(batch)
            .map_err(|error| error.to_string())?,
    };
    let texts = text.as_binary::<i32>().iter().map(|text| text.map_or("N".to_owned(), hex)).collect();
    Ok((expr.column_type().to_string(), texts))
}

/// ClickHouse's answers to several expressions at once.
fn theirs(expressions: &[&str]) -> Result<Vec<(String, Vec<String>)>, String> {
    let (table, _) = table();
    let columns: Vec<String> = expressions
        .iter()
        .flat_map(|expression| {
            [format!("toTypeName({expression})"), format!("ifNull(hex(toString({expression})), 'N')")]
        })
        .collect();
    // Compiled, chains of functions lose their checks: toDecimal64(abs(nan), 0) is a number then. Interpreted, they fail.
    let settings = "SETTINGS compile_expressions = 0";
    let answer = engine().query(&format!("SELECT {} FROM {table} ORDER BY row {settings}", columns.join(", ")))?;
    let mut out = vec![(String::new(), Vec::new()); expressions.len()];
    for line in answer.lines() {
        for (at, cell) in line.split('\t').enumerate() {
            if at % 2 == 0 {
                out[at / 2].0 = cell.replace("\\'", "'");
            } else {
                out[at / 2].1.push(cell.to_owned());
            }
        }
    }
    Ok(out)
}

/// Compares accepted expressions with ClickHouse; returns what differs, in words.
pub(crate) fn differences(planned: &[(String, Expr)]) -> Vec<String> {
    let (_, batch) = table();
    let mut found = Vec::new();
    for chunk in planned.chunks(20) {
        let texts: Vec<&str> = chunk.iter().map(|(text, _)| text.as_str()).collect();
        let all = theirs(&texts);
        for (at, (text, expr)) in chunk.iter().enumerate() {
            // One that fails takes its neighbours with it, so then each is asked alone.
            let theirs = match &all {
                Ok(all) => Ok(all[at].clone()),
                Err(_) => theirs(&[text.as_str()]).map(|mut one| one.remove(0)),
            };
            match (ours(expr, batch), theirs) {
                (Ok((our_type, our_values)), Ok((their_type, their_values))) => {
                    if our_type != comparable(&their_type) {
                        found.push(format!("{text}: our type {our_type}, ClickHouse's {their_type}"));
                    }
                    if let Some(row) =
                        (0..our_values.len()).find(|&row| !same(text, our_values.get(row), their_values.get(row)))
                    {
                        found.push(format!(
                            "{text}: row {row}: ours {}, ClickHouse's {:?}",
                            readable(&our_values[row]),
                            their_values.get(row).map(|value| readable(value))
                        ));
                    }
                }
                (Err(_), Err(_)) => {}
                (Ok(_), Err(error)) if fails_needlessly(text, &error) => {}
                (Ok(_), Err(error)) => found.push(format!("{text}: we compute it, ClickHouse says {}", first(&error))),
                (Err(error), Ok(_)) => found.push(format!("{text}: ClickHouse computes it, we say {error}")),
            }
        }
    }
    found
}

/// ClickHouse fails also over values that can't matter: later arguments of coalesce, what lies beneath a null, and, depending on
/// its plan, branches that no row takes. Then there is no answer to compare with.
fn fails_needlessly(text: &str, error: &str) -> bool {
    let hiding = ["coalesce(", "OrNull(", "n64", "nf", "ns", "nlc", "nd", "nb", "nts", "if(", " and ", " or "];
    hiding.iter().any(|part| text.contains(part))
        && (error.contains("(DECIMAL_OVERFLOW)") || error.contains("(CANNOT_CONVERT_TYPE)"))
}

/// ClickHouse doesn't compute functions of the empty string of a LowCardinality: the result is the type's default, so that
/// -toFloat64OrZero('') is 0 there, and -0 elsewhere.
fn same(text: &str, ours: Option<&String>, theirs: Option<&String>) -> bool {
    let zero =
        |value: Option<&String>| value.map(|value| if value == "2D30" { "30".to_owned() } else { value.clone() });
    if text.contains("lc") { zero(ours) == zero(theirs) } else { ours == theirs }
}

fn readable(hexed: &str) -> String {
    let bytes: Vec<u8> =
        (0..hexed.len() / 2).filter_map(|at| u8::from_str_radix(hexed.get(2 * at..2 * at + 2)?, 16).ok()).collect();
    if hexed == "N" { "NULL".to_owned() } else { format!("{:?}", String::from_utf8_lossy(&bytes)) }
}

fn first(error: &str) -> String {
    error.chars().take(160).collect()
}
