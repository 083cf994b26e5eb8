//! The operator on a virtual clock, without a broker: events and watermarks in, rows out.

#![allow(clippy::unwrap_used, reason = "a test or benchmark ends where it can't go on")]

use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, UInt16Array, UInt32Array};
use expect_test::expect;
use weir_operators::script::Script;
use weir_schemas::stage::{Column, event_schema};
use weir_schemas::time::EventTime;
use weir_schemas::types::ColumnType;

const MINUTE_MS: i64 = 60_000;

fn columns() -> Vec<Column> {
    vec![
        Column::new("type", ColumnType::LowCardinality),
        Column::new("tenant", ColumnType::String),
        Column::new("user_id", ColumnType::String.nullable()),
    ]
}

/// Events as (minute, type, user), all of one shop.
fn events(rows: &[(i64, &str, Option<&str>)]) -> RecordBatch {
    let count = rows.len();
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(UInt16Array::from_value(0, count)),
        Arc::new(Int32Array::from_value(0, count)),
        Arc::new(Int64Array::from_iter_values(0..count as i64)),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0 * MINUTE_MS))),
        Arc::new(UInt32Array::from_value(1, count)),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0 * MINUTE_MS * 1000))),
        Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| row.1))),
        Arc::new(BinaryArray::from_iter_values(rows.iter().map(|_| "acme"))),
        Arc::new(BinaryArray::from_iter(rows.iter().map(|row| row.2))),
        Arc::new(UInt16Array::from_value(7, count)),
    ];
    let mut fields: Vec<_> = event_schema(&columns()).fields().iter().cloned().collect();
    fields.push(Arc::new(arrow_schema::Field::new("_group", arrow_schema::DataType::UInt16, false)));
    RecordBatch::try_new(Arc::new(arrow_schema::Schema::new(fields)), arrays).unwrap()
}

fn script() -> Script {
    let operator = weir_example::describe(&toml::Table::new(), &columns()).unwrap();
    Script::new(move |state| (operator.build)(state)).unwrap()
}

#[test]
fn a_cart_is_given_up_when_nothing_was_bought_in_time() {
    let mut script = script();
    script
        .input(events(&[
            (0, "add_to_cart", Some("ann")),
            (1, "add_to_cart", Some("bob")),
            (2, "purchase", Some("ann")),
            (3, "add_to_cart", None),
            (5, "add_to_cart", Some("bob")),
        ]))
        .unwrap();
    script.watermark(EventTime::from_ms(34 * MINUTE_MS)).unwrap();
    script.end_of_epoch().unwrap();
    expect![[""]].assert_eq(&script.take_output());

    script.watermark(EventTime::from_ms(35 * MINUTE_MS)).unwrap();
    script.end_of_epoch().unwrap();
    expect![[r#"
        written to abandoned_carts
            added_at             tenant  user_id  given_up_at
          + 1970-01-01T00:05:00  'acme'  'bob'    1970-01-01T00:35:00
    "#]]
    .assert_eq(&script.take_output());
}

#[test]
fn carts_and_timers_outlive_a_kill_and_the_lost_epoch_is_as_if_it_never_was() {
    let mut script = script();
    script.input(events(&[(0, "add_to_cart", Some("ann"))])).unwrap();
    script.end_of_epoch().unwrap();
    script.input(events(&[(1, "purchase", Some("ann"))])).unwrap();
    script.recover().unwrap();
    script.watermark(EventTime::from_ms(30 * MINUTE_MS)).unwrap();
    script.end_of_epoch().unwrap();
    expect![[r#"
        written to abandoned_carts
            added_at             tenant  user_id  given_up_at
          + 1970-01-01T00:00:00  'acme'  'ann'    1970-01-01T00:30:00
    "#]]
    .assert_eq(&script.take_output());
}

#[test]
fn wrong_settings_and_missing_columns_are_told() {
    let refused = |text: &str, columns: &[Column]| {
        let settings: toml::Table = text.parse().unwrap();
        weir_example::describe(&settings, columns).err().unwrap_or_default()
    };
    assert!(refused("wait_ms = 0", &columns()).contains("above 0"));
    assert!(refused("wait = 1", &columns()).contains("unknown setting `wait`"));
    assert!(refused("", &columns()[..2]).contains("no column `user_id`"));
}
