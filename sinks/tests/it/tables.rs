//! What readers see of tables, whatever is delivered, in which order and however often.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, ListBuilder};
use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use weir_schemas::rows::{Changes, Table, TableKind};
use weir_schemas::stage::Column;
use weir_schemas::types::{ColumnType, Width, Zone};
use weir_sinks::DeliveryError;
use weir_sinks::clickhouse::Layout;

use crate::parts::{client, database, lines};
use crate::sample::{MARCH, changes, deliver, encode, layout, revenue, write};

const ALL: &str = "SELECT tenant, window_start, spend, orders, revision FROM {db}.revenue ORDER BY ALL";

#[tokio::test]
async fn rows_told_twice_and_out_of_order_are_seen_once_and_newest() {
    let client = database().await;
    layout(revenue()).apply(&client).await.expect("created");
    let table = revenue().table;
    let first = encode(&table, &changes(&[(MARCH, "eu", 1, 10), (MARCH + 60, "us", 5, 50)], None), 1);
    let second = encode(&table, &changes(&[(MARCH, "eu", 2, 20)], None), 2);
    let expected = ["('eu','2026-03-01 00:00:00',20,2,1)", "('us','2026-03-01 00:01:00',50,5,1)"];
    // The older epoch comes last, as after a crash between a delivery and its mark.
    for rows in [&first, &second, &second, &first] {
        deliver(&client, &table, rows).await.expect("delivered");
    }
    assert_eq!(lines(&client, ALL).await, expected);
    let together: Vec<_> = second.iter().chain(&first).cloned().collect();
    deliver(&client, &table, &together).await.expect("delivered");
    assert_eq!(lines(&client, ALL).await, expected);
}

#[tokio::test]
async fn tombstones_vanish_and_a_key_can_come_back() {
    let client = database().await;
    layout(revenue()).apply(&client).await.expect("created");
    let table = revenue().table;
    write(&client, &[(MARCH, "eu", 1, 10), (MARCH, "us", 1, 10)], 1).await;
    let gone = encode(&table, &changes(&[(MARCH, "eu", 0, 0)], Some(vec![true])), 2);
    deliver(&client, &table, &gone).await.expect("delivered");
    deliver(&client, &table, &gone).await.expect("delivered");
    assert_eq!(lines(&client, ALL).await, ["('us','2026-03-01 00:00:00',10,1,1)"]);
    // A merge may not bring it back either.
    client.execute(&format!("OPTIMIZE TABLE {}.revenue__rows FINAL", client.database())).await.expect("merged");
    write(&client, &[(MARCH, "eu", 9, 90)], 1).await;
    assert_eq!(lines(&client, ALL).await.len(), 1, "an older row came back to life");
    write(&client, &[(MARCH, "eu", 3, 30)], 3).await;
    assert_eq!(
        lines(&client, ALL).await,
        ["('eu','2026-03-01 00:00:00',30,3,1)", "('us','2026-03-01 00:00:00',10,1,1)"]
    );
}

#[tokio::test]
async fn states_merge_over_any_range() {
    let client = database().await;
    layout(revenue()).apply(&client).await.expect("created");
    write(&client, &[(MARCH, "eu", 1, 10), (MARCH + 60, "eu", 1, 20), (MARCH, "us", 1, 500)], 1).await;
    write(&client, &[(MARCH, "eu", 2, 11)], 2).await;
    let rolled_up = "SELECT tenant, sumMerge(spend_state), sum(orders) FROM {db}.revenue GROUP BY tenant ORDER BY ALL";
    assert_eq!(lines(&client, rolled_up).await, ["('eu',31,3)", "('us',500,1)"]);
}

/// Rows of many inserts, with bytes in them that a line-wise reader would trip over.
#[tokio::test]
async fn a_delivery_larger_than_one_insert_arrives_whole() {
    const ROWS: i64 = 250_000;
    let table = Table {
        name: Arc::from("events"),
        comment: "accepted events".to_owned(),
        columns: vec![
            Column::new("occurred_at", ColumnType::DateTime64(6, Some(Zone::from("UTC")))),
            Column::new("offset", ColumnType::Int(Width::W64)),
            Column::new("payload", ColumnType::String),
        ],
        key_columns: 2,
        partition_by: Some(0),
        kind: TableKind::Appended,
        retention_days: Some(36_500),
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        // Over eleven years, so that one insert touches more than the hundred months that ClickHouse allows.
        (
            "occurred_at",
            Arc::new(TimestampMicrosecondArray::from_iter_values((0..ROWS).map(|row| row * 1_400_000_000))),
        ),
        ("offset", Arc::new(Int64Array::from_iter_values(0..ROWS))),
        ("payload", Arc::new(BinaryArray::from_iter_values((0..ROWS).map(|row| format!("\n\n{row}\n\n\0"))))),
    ];
    let rows = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let out = encode(&table, &Changes { table: table.name.clone(), rows, deleted: None }, 1);
    let client = database().await;
    Layout { tables: vec![table.clone()], ..Layout::default() }.apply(&client).await.expect("created");
    for _ in 0..2 {
        deliver(&client, &table, &out).await.expect("delivered");
    }
    let seen = "SELECT count(), uniqExact(payload), sum(offset), countIf(payload = concat('\\n\\n', toString(offset), \
                '\\n\\n\\0')) FROM {db}.events";
    assert_eq!(lines(&client, seen).await, [format!("({ROWS},{ROWS},{},{ROWS})", ROWS * (ROWS - 1) / 2)]);
}

/// ClickHouse takes dotted arrays of one prefix for a nested table, whose arrays have to be of one length.
#[tokio::test]
async fn arrays_of_one_nested_record_may_differ_in_length() {
    let list = || ColumnType::Array(Box::new(ColumnType::String));
    let table = Table {
        name: Arc::from("nested"),
        comment: String::new(),
        columns: vec![
            Column::new("id", ColumnType::UInt(Width::W64)),
            Column::new("cart.skus", list()),
            Column::new("cart.coupons", list()),
            Column::new("cart.note", ColumnType::String),
        ],
        key_columns: 1,
        partition_by: None,
        kind: TableKind::Keyed,
        retention_days: None,
    };
    let texts = |texts: &[&str]| -> ArrayRef {
        let mut list = ListBuilder::new(BinaryBuilder::new()).with_field(ColumnType::String.field("item"));
        texts.iter().for_each(|text| list.values().append_value(text));
        list.append(true);
        Arc::new(list.finish())
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(UInt64Array::from(vec![1]))),
        ("cart.skus", texts(&["a", "b"])),
        ("cart.coupons", texts(&[])),
        ("cart.note", Arc::new(BinaryArray::from_vec(vec![b"gift"]))),
    ];
    let rows = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let out = encode(&table, &Changes { table: table.name.clone(), rows, deleted: None }, 1);
    let client = database().await;
    Layout { tables: vec![table.clone()], ..Layout::default() }.apply(&client).await.expect("created");
    deliver(&client, &table, &out).await.expect("delivered");
    let seen = "SELECT `cart.skus`, `cart.coupons`, `cart.note` FROM {db}.nested";
    assert_eq!(lines(&client, seen).await, ["(['a','b'],[],'gift')"]);
}

/// A day of one tenant, asked of the readers' view, reads a small part of the month.
#[tokio::test]
async fn conditions_on_key_columns_reach_the_index_through_the_view() {
    let client = database().await;
    layout(revenue()).apply(&client).await.expect("created");
    let database = client.database();
    client
        .execute(&format!(
            "INSERT INTO {database}.revenue__rows (window_start, tenant, orders, _version) \
             SELECT toDateTime({MARCH}, 'UTC') + number % 44640 * 60, toString(intDiv(number, 44640)), 1, 1 \
             FROM numbers(892800)"
        ))
        .await
        .expect("filled");
    client.execute(&format!("OPTIMIZE TABLE {database}.revenue__rows FINAL")).await.expect("merged");
    let granules = async |condition: &str| -> (u32, u32) {
        let plan: Vec<serde_json::Value> = client
            .select(&format!("EXPLAIN indexes = 1 SELECT * FROM {database}.revenue WHERE {condition}"))
            .await
            .expect("a plan");
        let lines = plan.iter().filter_map(|line| line["explain"].as_str()).map(str::trim);
        let last = lines.rev().find_map(|line| line.strip_prefix("Granules: ")?.split_once('/')).expect("an index");
        (last.0.parse().expect("a number"), last.1.parse().expect("a number"))
    };
    let day = "window_start >= '2026-03-10 00:00:00' AND window_start < '2026-03-11 00:00:00'";
    let (read, of) = granules(day).await;
    assert!(of > 100 && read * 10 <= of, "a day: {read} of {of}");
    let (read, of) = granules(&format!("{day} AND tenant = '7'")).await;
    assert!(read <= 4, "a day of a tenant: {read} of {of}");
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for_and_a_missing_table_is_not() {
    let table = revenue().table;
    let rows = encode(&table, &changes(&[(MARCH, "eu", 1, 10)], None), 1);
    let away = client("http://127.0.0.1:9", "weir");
    assert!(matches!(deliver(&away, &table, &rows).await, Err(DeliveryError::Retriable { .. })));
    let client = database().await;
    match deliver(&client, &table, &rows).await {
        Err(DeliveryError::Fatal { why, remedy }) => {
            assert!(why.contains("Code: 60") && remedy.contains("start Weir again"), "{why}; {remedy}");
        }
        other => panic!("{other:?}"),
    }
}
