//! A small kept query: orders and spending per minute and tenant, spending as a state.

use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, BooleanArray, RecordBatch, TimestampSecondArray, UInt32Array, UInt64Array};
use weir_schemas::rows::{Changes, Table, TableKind};
use weir_schemas::stage::Column;
use weir_schemas::tables;
use weir_schemas::time::{Epoch, Version};
use weir_schemas::types::{ColumnType, Width, Zone};
use weir_sinks::clickhouse::{Client, Layout, Rollup, TableEncoder, TableSink, ViewTable};
use weir_sinks::{Deliver, Delivery, DeliveryError, Encode, OutRow};

/// 2026-03-01T00:00:00Z in seconds.
pub(crate) const MARCH: i64 = 1_772_323_200;

/// One row: window start in seconds, tenant, orders, spending.
pub(crate) type Row = (i64, &'static str, u64, u64);

pub(crate) fn revenue() -> ViewTable {
    let count = || ColumnType::UInt(Width::W64);
    ViewTable {
        table: Table {
            name: Arc::from("revenue"),
            comment: "Orders per minute and tenant; it's live".to_owned(),
            columns: vec![
                Column::new("window_start", ColumnType::DateTime(Some(Zone::from("UTC")))),
                Column::new("tenant", ColumnType::LowCardinality),
                Column::new("orders", count()),
                Column::new("spend", ColumnType::AggregateState("sum, UInt64".to_owned())),
                Column::new("revision", ColumnType::UInt(Width::W32)),
            ],
            key_columns: 2,
            partition_by: Some(0),
            kind: TableKind::Keyed,
            retention_days: None,
        },
        select: vec![1, 0, 3, 2],
        window: 0,
        zone: None,
        source: "events".to_owned(),
        merges: vec![None, None, Some("sum".to_owned()), Some("sumMerge".to_owned()), None],
        rollups: vec![Rollup::Hour, Rollup::Day],
    }
}

pub(crate) fn layout(view: ViewTable) -> Layout {
    Layout { tables: vec![tables::progress()], views: vec![view], ..Layout::default() }
}

/// `rows` of [`revenue`], the marked ones deleted.
pub(crate) fn changes(rows: &[Row], deleted: Option<Vec<bool>>) -> Changes {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("window_start", Arc::new(TimestampSecondArray::from_iter_values(rows.iter().map(|row| row.0)))),
        ("tenant", Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| row.1)))),
        ("orders", Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.2)))),
        // A deleted row's state has no bytes, as of an operator that knows no empty state.
        (
            "spend",
            Arc::new(BinaryArray::from_iter_values(rows.iter().enumerate().map(|(at, row)| {
                let is_deleted = deleted.as_ref().is_some_and(|deleted| deleted[at]);
                if is_deleted { vec![] } else { row.3.to_le_bytes().to_vec() }
            }))),
        ),
        ("revision", Arc::new(UInt32Array::from_iter_values(rows.iter().map(|_| 1)))),
    ];
    let rows = RecordBatch::try_from_iter(columns).expect("columns of one length");
    Changes { table: Arc::from("revenue"), rows, deleted: deleted.map(BooleanArray::from) }
}

/// What the outbox would hold of `changes` in `epoch`.
pub(crate) fn encode(table: &Table, changes: &Changes, epoch: u64) -> Vec<OutRow> {
    let mut out = Vec::new();
    TableEncoder::new(table.clone()).encode(changes, Version(epoch), &mut out).expect("fits");
    out
}

pub(crate) async fn deliver(client: &Client, table: &Table, rows: &[OutRow]) -> Result<(), DeliveryError> {
    TableSink::new(client.clone(), table).deliver(Delivery { epoch: Epoch(1), rows }).await
}

/// Encodes and delivers rows of [`revenue`].
pub(crate) async fn write(client: &Client, rows: &[Row], epoch: u64) {
    let table = revenue().table;
    let rows = encode(&table, &changes(rows, None), epoch);
    deliver(client, &table, &rows).await.expect("delivered");
}
