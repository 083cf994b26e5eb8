//! Codes of events that were never Avro: what the decoder says of the same values, found from their columns one by one.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Float64Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, FixedSizeBinaryArray, RecordBatch};
use arrow_schema::DataType;
use weir_operators::profile::{Kind, Layout};
use weir_schemas::profile::{DEFAULT, NULL, bucket_of, number, text};
use weir_schemas::stage::{BROKEN_RULES, coded_event_schema, marked_event_schema, system};

/// The batch with codes behind the columns that `layout` is of, and marks behind them.
pub(crate) fn coded(events: &RecordBatch, layout: &Layout) -> RecordBatch {
    let mut codes = vec![0; events.num_rows() * layout.codes().bytes()];
    for (row, codes) in codes.chunks_exact_mut(layout.codes().bytes()).enumerate() {
        for field in layout.fields() {
            let column = events.column_by_name(&field.name).unwrap();
            code(column, row, field.kind, &mut codes[field.code..]);
        }
    }
    let width = i32::try_from(layout.codes().bytes()).unwrap();
    let codes: ArrayRef = Arc::new(FixedSizeBinaryArray::new(width, codes.into(), None));
    let at = system::COUNT + layout.fields().len();
    let mut columns = events.columns().to_vec();
    let plain = Arc::new(events.schema().project(&(0..at).collect::<Vec<_>>()).unwrap());
    let schema = coded_event_schema(&plain, layout.codes());
    let schema = if columns.len() > at { marked_event_schema(&schema) } else { schema };
    assert!(events.num_columns() == at || events.column_by_name(BROKEN_RULES).is_some());
    columns.insert(at, codes);
    RecordBatch::try_new(schema, columns).unwrap()
}

fn code(column: &ArrayRef, row: usize, kind: Kind, code: &mut [u8]) {
    if column.is_null(row) {
        code[0] = NULL;
        return;
    }
    let of_number = |value: f64| match kind {
        Kind::Number => number(value),
        _ if value == 0.0 => DEFAULT,
        _ => 0,
    };
    code[0] = match column.data_type() {
        DataType::Binary if kind == Kind::Text => text(column.as_binary::<i32>().value(row)),
        DataType::Binary if column.as_binary::<i32>().value(row).is_empty() => DEFAULT,
        DataType::Float64 => of_number(column.as_primitive::<Float64Type>().value(row)),
        DataType::Int32 => of_number(f64::from(column.as_primitive::<Int32Type>().value(row))),
        DataType::Int64 => of_number(column.as_primitive::<Int64Type>().value(row) as f64),
        DataType::Decimal128(_, scale) => {
            let digits = column.as_primitive::<Decimal128Type>().value(row) as f64;
            of_number(digits / 10_f64.powi(i32::from(*scale)))
        }
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            let keys = entries.column(0).as_binary::<i32>().iter().flatten();
            let buckets = keys.fold(0_u16, |buckets, key| buckets | 1 << bucket_of(key));
            code[1..3].copy_from_slice(&buckets.to_le_bytes());
            if entries.is_empty() { DEFAULT } else { 0 }
        }
        _ => 0,
    };
}
