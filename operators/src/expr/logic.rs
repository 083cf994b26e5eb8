//! Three-valued logic and the functions that choose between values.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray};
use arrow_buffer::BooleanBuffer;
use weir_schemas::types::ColumnType;

use super::evaluate::{Evaluation, Value, as_number, spread};
use super::{Expr, Function};
use crate::error::Error;

/// `AND` and `OR`: null only where the other side doesn't decide. A side that fails is computed again for the rows that are still
/// undecided alone, as ClickHouse does.
pub(super) fn and_or<'a>(evaluation: &mut Evaluation<'a>, arguments: &'a [Expr], and: bool) -> Result<Value, Error> {
    let mut result: Option<BooleanArray> = None;
    // Constants first: where one decides, no other side can fail.
    let (constants, others): (Vec<&Expr>, Vec<&Expr>) = arguments.iter().partition(|argument| argument.is_constant());
    for argument in constants.into_iter().chain(others) {
        let Some(left) = result else {
            result = Some(evaluation.condition(argument)?);
            continue;
        };
        let right = match evaluation.condition(argument) {
            Err(Error::Evaluation { .. }) => {
                // What a left side decides, a null on the right leaves as it is.
                let undecided =
                    BooleanBuffer::collect_bool(left.len(), |row| left.is_null(row) || left.value(row) == and);
                evaluation.condition_where(argument, &BooleanArray::new(undecided, None))?
            }
            right => right?,
        };
        result = Some(if and {
            arrow_arith::boolean::and_kleene(&left, &right)?
        } else {
            arrow_arith::boolean::or_kleene(&left, &right)?
        });
    }
    match result {
        Some(result) => Ok(Value { array: Arc::new(result), constant: false }),
        None => Err(Error::Evaluation { expression: "AND".into(), detail: "has no arguments".into() }),
    }
}

/// `IS NULL`, never null itself.
pub(super) fn is_null(value: &Value, rows: usize) -> BooleanArray {
    match value.nulls_over(rows) {
        Some(nulls) => BooleanArray::new(!nulls.inner(), None),
        None => BooleanArray::new(BooleanBuffer::new_unset(rows), None),
    }
}

/// `multiIf` and `coalesce`. A branch that fails is computed again for the rows that choose it alone, as ClickHouse does.
pub(super) fn choose<'a>(
    evaluation: &mut Evaluation<'a>,
    function: &Function,
    arguments: &'a [Expr],
    result: &ColumnType,
) -> Result<Value, Error> {
    match choose_eagerly(evaluation, function, arguments, result) {
        Err(Error::Evaluation { .. }) if matches!(function, Function::MultiIf) => {
            choose_lazily(evaluation, arguments, result)
        }
        chosen => chosen,
    }
}

/// From the last branch back to the first, each laid over what comes after it.
fn choose_eagerly<'a>(
    evaluation: &mut Evaluation<'a>,
    function: &Function,
    arguments: &'a [Expr],
    result: &ColumnType,
) -> Result<Value, Error> {
    let rows = evaluation.rows();
    let mut rest = arguments.iter().rev();
    let mut chosen = match rest.next() {
        Some(last) => carried(evaluation.value(last)?, result),
        None => {
            return Err(Error::Evaluation { expression: function.name().into(), detail: "has no arguments".into() });
        }
    };
    while let Some(branch) = rest.next() {
        let branch = carried(evaluation.value(branch)?, result);
        let condition = if matches!(function, Function::MultiIf) { rest.next() } else { None };
        let mask = match condition {
            Some(condition) => without_nulls(evaluation.condition(condition)?),
            None => BooleanArray::new(!is_null(&branch, rows).values(), None),
        };
        chosen = Value { array: arrow_select::zip::zip(&mask, &branch, &chosen)?, constant: false };
    }
    let array = if chosen.constant { spread(&chosen.array, rows)? } else { chosen.array };
    Ok(Value { array, constant: false })
}

/// Each branch over the rows that choose it, then all put back in order.
fn choose_lazily<'a>(
    evaluation: &mut Evaluation<'a>,
    arguments: &'a [Expr],
    result: &ColumnType,
) -> Result<Value, Error> {
    let rows = evaluation.rows();
    let mut open = BooleanArray::new(BooleanBuffer::new_set(rows), None);
    let mut places = vec![(0usize, 0usize); rows];
    let mut parts: Vec<ArrayRef> = Vec::new();
    for pair in arguments.chunks(2) {
        let (taken, branch) = match pair {
            [condition, branch] => {
                let condition = &without_nulls(evaluation.condition_where(condition, &open)?);
                (condition.clone(), branch)
            }
            [otherwise] => (open.clone(), otherwise),
            _ => break,
        };
        for (index, row) in taken.values().set_indices().enumerate() {
            places[row] = (parts.len(), index);
        }
        parts.push(as_carried(Evaluation::new(&evaluation.rows_where(&taken)?).array(branch)?, result));
        open = arrow_arith::boolean::and_not(&open, &taken)?;
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    Ok(Value { array: arrow_select::interleave::interleave(&parts, &places)?, constant: false })
}

/// A null condition chooses what comes after, like a false one.
fn without_nulls(truth: BooleanArray) -> BooleanArray {
    match truth.nulls() {
        Some(nulls) => BooleanArray::new(truth.values() & nulls.inner(), None),
        None => truth,
    }
}

/// A branch in the Arrow type of the result, so that all branches agree.
fn carried(value: Value, result: &ColumnType) -> Value {
    Value { array: as_carried(value.array, result), constant: value.constant }
}

fn as_carried(array: ArrayRef, result: &ColumnType) -> ArrayRef {
    match result.without_null() {
        ColumnType::Bool => array,
        _ => as_number(&array),
    }
}
