//! Events of the tests: a tenant, a kind, an amount and a user.

use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, UInt16Array, UInt32Array, UInt64Array};
use weir_schemas::stage::{Column, event_schema, system};
use weir_schemas::types::{ColumnType, Width};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) at: i64,
    pub(crate) tenant: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) amount: Option<i64>,
    pub(crate) user: u64,
    pub(crate) id: String,
}

pub(crate) const TENANT: usize = system::COUNT;
pub(crate) const KIND: usize = system::COUNT + 1;
pub(crate) const AMOUNT: usize = system::COUNT + 2;
pub(crate) const USER: usize = system::COUNT + 3;
pub(crate) const ID: usize = system::COUNT + 4;

pub(crate) fn columns() -> Vec<Column> {
    vec![
        Column::new("tenant", ColumnType::String),
        Column::new("kind", ColumnType::LowCardinality),
        Column::new("amount", ColumnType::Int(Width::W64).nullable()),
        Column::new("user", ColumnType::UInt(Width::W64)),
        Column::new("id", ColumnType::String),
    ]
}

pub(crate) fn batch(events: &[Event]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt16Array::from_iter_values(events.iter().map(|_| 0))),
        Arc::new(Int32Array::from_iter_values(events.iter().map(|event| event.partition))),
        Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.offset))),
        Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.at / 1_000))),
        Arc::new(UInt32Array::from_iter_values(events.iter().map(|_| 1))),
        Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.at))),
        Arc::new(BinaryArray::from_iter_values(events.iter().map(|event| event.tenant))),
        Arc::new(BinaryArray::from_iter_values(events.iter().map(|event| event.kind))),
        Arc::new(Int64Array::from_iter(events.iter().map(|event| event.amount))),
        Arc::new(UInt64Array::from_iter_values(events.iter().map(|event| event.user))),
        Arc::new(BinaryArray::from_iter_values(events.iter().map(|event| event.id.as_bytes()))),
    ];
    RecordBatch::try_new(event_schema(&self::columns()), columns).unwrap()
}
