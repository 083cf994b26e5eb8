//! Three-valued logic and the functions that choose between values.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray};
use arrow_buffer::BooleanBuffer;
use weir_schemas::types::ColumnType;

use super::evaluate::{Call, Evaluation, Value, as_number, spread};
use super::{Expr, Function};
use crate::error::Error;

/// `AND` and `OR`: null only where the other side doesn't decide.
pub(super) fn and_or(call: &Call<'_>, and: bool) -> Result<BooleanArray, Error> {
    let mut result: Option<BooleanArray> = None;
    for value in call.values {
        let truth = spread_truth(value, call.rows)?;
        result = Some(match result {
            None => truth,
            Some(left) if and => arrow_arith::boolean::and_kleene(&left, &truth)?,
            Some(left) => arrow_arith::boolean::or_kleene(&left, &truth)?,
        });
    }
    result.ok_or_else(|| call.unsupported())
}

fn spread_truth(value: &Value, rows: usize) -> Result<BooleanArray, Error> {
    let truth = value.truth()?;
    if !value.constant || truth.len() == rows {
        return Ok(truth);
    }
    if truth.is_null(0) {
        return Ok(BooleanArray::new_null(rows));
    }
    Ok(BooleanArray::new(BooleanBuffer::collect_bool(rows, |_| truth.value(0)), None))
}

/// `IS NULL`, never null itself.
pub(super) fn is_null(value: &Value, rows: usize) -> BooleanArray {
    match value.nulls_over(rows) {
        Some(nulls) => BooleanArray::new(!nulls.inner(), None),
        None => BooleanArray::new(BooleanBuffer::new_unset(rows), None),
    }
}

/// `multiIf` and `coalesce`: from the last branch back to the first, each laid over what comes after it.
pub(super) fn choose<'a>(
    evaluation: &mut Evaluation<'a>,
    function: &Function,
    arguments: &'a [Expr],
    result: &ColumnType,
) -> Result<Value, Error> {
    let rows = evaluation.rows();
    let mut chosen: Option<Value> = None;
    let mut at = arguments.len();
    while at > 0 {
        at -= 1;
        let branch = carried(evaluation.value(&arguments[at])?, result);
        let Some(otherwise) = chosen else {
            chosen = Some(branch);
            continue;
        };
        let mask = if matches!(function, Function::MultiIf) {
            at -= 1;
            let truth = evaluation.condition(&arguments[at])?;
            // A null condition chooses what comes after, like a false one.
            match truth.nulls() {
                Some(nulls) => BooleanArray::new(truth.values() & nulls.inner(), None),
                None => truth,
            }
        } else {
            BooleanArray::new(!is_null(&branch, rows).values(), None)
        };
        let array = arrow_select::zip::zip(&mask, &branch, &otherwise)?;
        chosen = Some(Value { array, constant: false });
    }
    let Some(chosen) = chosen else {
        return Err(Error::Evaluation { expression: function.name().into(), detail: "has no arguments".into() });
    };
    let array = if chosen.constant { spread(&chosen.array, rows)? } else { chosen.array };
    Ok(Value { array, constant: false })
}

/// A branch in the Arrow type of the result, so that all branches agree.
fn carried(value: Value, result: &ColumnType) -> Value {
    let array: ArrayRef = match result.without_null() {
        ColumnType::Bool => value.array,
        _ => as_number(&value.array),
    };
    Value { array: Arc::clone(&array), constant: value.constant }
}
