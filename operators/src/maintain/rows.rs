//! From groups to rows of the view's table.

use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};
use weir_schemas::rows::{Changes, Table, TableKind};
use weir_schemas::stage::Column;
use weir_schemas::types::{ColumnType, Width};

use super::slots::Slots;
use crate::aggregate::Call;
use crate::combine::without_nulls;
use crate::error::Error;
use crate::group_key::KeyFormat;
use crate::view::{Output, ViewPlan};
use crate::window::Windows;

/// The name of the column that counts corrections of a closed window's row.
pub const REVISION: &str = "revision";

/// The table that a view's rows are written to: the window's start and the dimensions are the key, then come the
/// measures as they are stored, then the revision.
pub fn view_table(plan: &ViewPlan, retention_days: Option<u32>) -> Table {
    let mut columns = vec![Column::new(&plan.window.name, plan.window.column_type.clone())];
    columns.extend(
        plan.dimensions.iter().map(|dimension| Column::new(&dimension.name, dimension.value.column_type().clone())),
    );
    columns.extend(plan.measures.iter().map(|measure| Column::new(&measure.name, measure.call.stored_type())));
    let mut revision = Column::new(REVISION, ColumnType::UInt(Width::W32));
    revision.comment = "how often the row of the closed window was corrected".to_owned();
    columns.push(revision);
    Table {
        name: plan.name.as_str().into(),
        comment: format!("One row per {} and group of the view {}.", plan.window.name, plan.name),
        columns,
        key_columns: 1 + plan.dimensions.len(),
        partition_by: Some(0),
        kind: TableKind::Keyed,
        retention_days,
    }
}

/// What is needed to write rows.
pub(super) struct RowFormat {
    table: Arc<str>,
    schema: SchemaRef,
    finalised: SchemaRef,
}

impl RowFormat {
    pub(super) fn new(plan: &ViewPlan) -> RowFormat {
        let fields = |columns: &[Column]| -> SchemaRef {
            let fields: Vec<Field> = columns.iter().map(|column| column.column_type.field(&column.name)).collect();
            Arc::new(Schema::new(fields))
        };
        let table = view_table(plan, None);
        RowFormat { table: table.name, schema: fields(&table.columns), finalised: fields(&plan.columns()) }
    }

    /// Whether HAVING is true for each of `slots`; `None` when the view has none.
    pub(super) fn having(
        &self,
        plan: &ViewPlan,
        windows: &Windows,
        format: &KeyFormat,
        slots: &[u32],
        groups: &Slots,
    ) -> Result<Option<BooleanArray>, Error> {
        let Some(having) = &plan.having else { return Ok(None) };
        let (window, dimensions) = keys_of(windows, format, slots, groups)?;
        let columns = plan.outputs.iter().map(|output| match *output {
            Output::Window => Ok(window.clone()),
            Output::Dimension(at) => dimensions.get(at).cloned().ok_or_else(misnumbered),
            Output::Measure(at) => groups.states.get(at).ok_or_else(misnumbered)?.finish(slots),
        });
        let batch = RecordBatch::try_new(self.finalised.clone(), columns.collect::<Result<_, _>>()?)?;
        Ok(Some(without_nulls(having.evaluate_condition(&batch)?)))
    }

    /// The rows of `slots`; where `deleted` says so, a tombstone.
    pub(super) fn changes(
        &self,
        plan: &ViewPlan,
        windows: &Windows,
        format: &KeyFormat,
        slots: &[u32],
        deleted: Option<BooleanArray>,
        groups: &Slots,
    ) -> Result<Changes, Error> {
        let (window, dimensions) = keys_of(windows, format, slots, groups)?;
        // A tombstone holds the values of no rows, which slot 0 has.
        let is_deleted = |at: usize| deleted.as_ref().is_some_and(|deleted| deleted.value(at));
        let valued: Vec<u32> =
            slots.iter().enumerate().map(|(at, slot)| if is_deleted(at) { 0 } else { *slot }).collect();
        let mut columns = vec![window];
        columns.extend(dimensions);
        for (at, measure) in plan.measures.iter().enumerate() {
            columns.push(stored_column(&measure.call, at, &valued, groups)?);
        }
        let revision = |slot: &u32| groups.get(*slot).map_or(0, |entry| entry.header.revision);
        columns.push(Arc::new(UInt32Array::from_iter_values(slots.iter().map(revision))));
        Ok(Changes { table: self.table.clone(), rows: RecordBatch::try_new(self.schema.clone(), columns)?, deleted })
    }
}

/// The measure as it is stored: its value, or its state's bytes.
fn stored_column(call: &Call, at: usize, slots: &[u32], groups: &Slots) -> Result<ArrayRef, Error> {
    let state = groups.states.get(at).ok_or_else(misnumbered)?;
    if !matches!(call.stored_type(), ColumnType::AggregateState(_)) {
        return state.finish(slots);
    }
    let mut column = BinaryBuilder::with_capacity(slots.len(), 0);
    let (mut bytes, mut total) = (Vec::new(), 0usize);
    for slot in slots {
        bytes.clear();
        state.write_state(*slot, &mut bytes);
        total += bytes.len();
        if total > i32::MAX as usize {
            return Err(Error::AggregateState {
                function: call.signature.clone(),
                detail: "the states of one batch of rows take more than 2 GiB; the view needs smaller groups"
                    .to_owned(),
            });
        }
        column.append_value(&bytes);
    }
    Ok(Arc::new(column.finish()))
}

fn keys_of(
    windows: &Windows,
    format: &KeyFormat,
    slots: &[u32],
    groups: &Slots,
) -> Result<(ArrayRef, Vec<ArrayRef>), Error> {
    let starts: Vec<i64> = slots.iter().filter_map(|slot| groups.get(*slot)).map(|entry| entry.start).collect();
    let keys = slots.iter().filter_map(|slot| groups.get(*slot)).map(|entry| &*entry.key);
    Ok((windows.column(&starts), format.decode(keys)?))
}

fn misnumbered() -> Error {
    Error::Arrow(ArrowError::SchemaError("a view's outputs name a column that it does not have".to_owned()))
}
