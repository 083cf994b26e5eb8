//! `is_closed` and `is_final` follow `weir_progress`.

use std::sync::Arc;

use arrow_array::{ArrayRef, Date32Array, RecordBatch, UInt64Array};
use weir_schemas::rows::{Changes, Table, TableKind};
use weir_schemas::stage::Column;
use weir_schemas::tables;
use weir_schemas::time::{Epoch, EventTime};
use weir_schemas::types::{ColumnType, Width, Zone};
use weir_sinks::clickhouse::progress::{self, EARLIEST, LATEST, Progress};
use weir_sinks::clickhouse::{Client, ViewTable};

use crate::parts::{database, lines};
use crate::sample::{MARCH, deliver, encode, layout, revenue, write};

pub(crate) async fn complete(
    client: &Client,
    view: &str,
    complete_through: EventTime,
    final_through: EventTime,
    epoch: u64,
) {
    let row = Progress {
        view: view.to_owned(),
        complete_through,
        final_through,
        epoch: Epoch(epoch),
        held_back_by: "orders/3".to_owned(),
        committed_at: EventTime::from_ms(1),
    };
    let table = tables::progress();
    let rows = encode(&table, &progress::changes(&[row]).expect("the table's columns"), epoch);
    deliver(client, &table, &rows).await.expect("delivered");
}

pub(crate) fn seconds(seconds: i64) -> EventTime {
    EventTime(seconds * 1_000_000)
}

#[tokio::test]
async fn windows_close_when_progress_passes_them_without_a_new_row() {
    let client = database().await;
    layout(revenue()).apply(&client).await.expect("created");
    write(&client, &[(MARCH, "eu", 1, 1), (MARCH + 60, "eu", 1, 1), (MARCH + 120, "eu", 1, 1)], 1).await;
    let seen = "SELECT toUnixTimestamp(window_start) - 1772323200 AS at, is_closed, is_final, toTypeName(is_closed) \
                FROM {db}.revenue ORDER BY at";
    let flags = async |expected: [(bool, bool); 3]| {
        let shown = |at: usize| format!("({},{},{},'Bool')", at * 60, expected[at].0, expected[at].1);
        assert_eq!(lines(&client, seen).await, [shown(0), shown(1), shown(2)]);
    };
    flags([(false, false); 3]).await;
    complete(&client, "another view", EventTime::MAX, EventTime::MAX, 2).await;
    flags([(false, false); 3]).await;
    complete(&client, "revenue", seconds(MARCH + 120), seconds(MARCH + 60), 3).await;
    flags([(true, true), (true, false), (false, false)]).await;
    // An older epoch told again moves nothing back.
    complete(&client, "revenue", EventTime::MIN, EventTime::MIN, 2).await;
    flags([(true, true), (true, false), (false, false)]).await;
    complete(&client, "revenue", EventTime::MAX, seconds(MARCH + 120), 4).await;
    flags([(true, true), (true, true), (true, false)]).await;

    let progress =
        "SELECT view, complete_through, final_through, epoch, held_back_by FROM {db}.weir_progress ORDER BY view";
    assert_eq!(
        lines(&client, progress).await,
        [
            "('another view','2299-12-31 23:59:59.999999','2299-12-31 23:59:59.999999',2,'orders/3')",
            "('revenue','2299-12-31 23:59:59.999999','2026-03-01 00:02:00.000000',4,'orders/3')",
        ]
    );
}

#[tokio::test]
async fn days_of_a_zone_close_at_its_midnight() {
    let view = ViewTable {
        table: Table {
            name: Arc::from("daily"),
            comment: String::new(),
            columns: vec![Column::new("day", ColumnType::Date), Column::new("orders", ColumnType::UInt(Width::W64))],
            key_columns: 1,
            partition_by: Some(0),
            kind: TableKind::Keyed,
            retention_days: None,
        },
        select: vec![0, 1],
        window: 0,
        zone: Some(Zone::from("Pacific/Auckland")),
        source: "events".to_owned(),
        merges: vec![None, Some("sum".to_owned())],
        rollups: vec![],
    };
    let client = database().await;
    layout(view.clone()).apply(&client).await.expect("created");
    // The first two days of March.
    let day = i32::try_from(MARCH / 86_400).expect("a day");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("day", Arc::new(Date32Array::from(vec![day, day + 1]))),
        ("orders", Arc::new(UInt64Array::from(vec![1, 2]))),
    ];
    let rows = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let out = encode(&view.table, &Changes { table: view.table.name.clone(), rows, deleted: None }, 1);
    deliver(&client, &view.table, &out).await.expect("delivered");
    // Auckland is 13 hours ahead in March, so its second of March begins eleven hours after the first does in UTC.
    complete(&client, "daily", seconds(MARCH + 11 * 3_600), EventTime::MIN, 1).await;
    let seen = "SELECT day, orders, is_closed, is_final FROM {db}.daily ORDER BY day";
    assert_eq!(lines(&client, seen).await, ["('2026-03-01',1,true,false)", "('2026-03-02',2,false,false)"]);
}

#[tokio::test]
async fn the_ends_of_time_are_what_clickhouse_can_show() {
    let client = database().await;
    let shown = format!(
        "SELECT fromUnixTimestamp64Micro({}, 'UTC'), fromUnixTimestamp64Micro({}, 'UTC')",
        EARLIEST.0, LATEST.0
    );
    assert_eq!(lines(&client, &shown).await, ["('1900-01-01 00:00:00.000000','2299-12-31 23:59:59.999999')"]);
}
