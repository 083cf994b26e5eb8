//! Proves of each event, before it is accepted, that every view and every rule can be evaluated for it.
//!
//! ClickHouse fails a whole query over one value that a function can't take: a decimal that overflows, NaN as an integer, a
//! string that is no number, an infinite value in a sketch. "The same query over the accepted events" has an answer
//! only when no such event is among them, so the event is refused, by all views or by none, and its fate is one.
//!
//! An event can't be evaluated when a view's plan fails for a batch of that event alone. So a branch of `if`, and what
//! stands behind `AND` and `OR`, counts only where it is reached, and what stands behind WHERE only where that is
//! true; an argument of an aggregate counts whatever its `-If` says, since ClickHouse computes it first.
//!
//! Invariant: a plan that can be evaluated for each row of a batch alone can be evaluated for the batch. Expressions that can't
//! fail are not looked at, and a view without any that can has no proof and costs nothing.
//!
//! Not here: an operator. The proof is a step of whoever still holds the record's bytes, so that quarantine gets them.

use arrow_array::{BooleanArray, RecordBatch};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use hashbrown::HashSet;

use crate::aggregate::SketchRange;
use crate::combine::{rows_where, without_nulls};
use crate::error::Error;
use crate::expr::{Evaluation, Expr};
use crate::view::ViewPlan;

/// What has to be computed for an event, as far as it can fail.
#[derive(Clone, Debug)]
pub struct Proof {
    /// Who wants it, for people: `view revenue_by_minute`.
    pub wanted_by: String,
    filter: Option<Expr>,
    values: Vec<Expr>,
    ranges: Vec<Ranged>,
    /// Indices of the columns that stand in `values` and `ranges`.
    reads: HashSet<usize>,
}

/// The argument of a sketch, which holds numbers of a range.
#[derive(Clone, Debug)]
struct Ranged {
    argument: Expr,
    condition: Option<Expr>,
    range: SketchRange,
}

/// An event that can't be evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unproven {
    /// Its row in the batch.
    pub row: usize,
    /// The text of the expression that fails.
    pub expression: String,
    /// What ClickHouse would say of it; never the value itself.
    pub detail: String,
}

impl Proof {
    /// What of a view can fail; `None` if nothing can.
    pub fn of_view(plan: &ViewPlan) -> Option<Proof> {
        let calls = || plan.measures.iter().map(|measure| &measure.call);
        let dimensions = plan.dimensions.iter().map(|dimension| &dimension.value);
        let computed = calls().flat_map(|call| call.arguments.iter().chain(&call.condition));
        let values: Vec<Expr> = dimensions.chain(computed).filter(|value| value.can_fail()).cloned().collect();
        let ranges: Vec<Ranged> = calls()
            .filter_map(|call| {
                let (argument, range) = (call.arguments.first()?.clone(), call.sketch_range()?);
                Some(Ranged { argument, condition: call.condition.clone(), range })
            })
            .collect();
        if values.is_empty() && ranges.is_empty() && !plan.filter.as_ref().is_some_and(Expr::can_fail) {
            return None;
        }
        let mut reads = HashSet::new();
        let ranged = ranges.iter().flat_map(|ranged| std::iter::once(&ranged.argument).chain(&ranged.condition));
        for value in values.iter().chain(ranged) {
            value.visit_columns(&mut |index| {
                reads.insert(index);
            });
        }
        let wanted_by = format!("view {}", plan.name);
        Some(Proof { wanted_by, filter: plan.filter.clone(), values, ranges, reads })
    }

    /// The events of `batch` that can't be evaluated, in the order of their rows.
    ///
    /// # Errors
    /// Only if the batch isn't one of the view's source.
    pub fn unproven(&self, batch: &RecordBatch) -> Result<Vec<Unproven>, Error> {
        let mut unproven = Vec::new();
        each_part(batch, 0, &mut |part| self.evaluate(part), &mut |_, ()| {}, &mut unproven)?;
        Ok(unproven)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<(), Error> {
        let filtered = match &self.filter {
            None => None,
            Some(filter) => {
                let passes = without_nulls(filter.evaluate_condition(batch)?);
                Some(rows_where(batch, &passes, &self.reads)?)
            }
        };
        let batch = filtered.as_ref().unwrap_or(batch);
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let mut evaluation = Evaluation::new(batch);
        for value in &self.values {
            evaluation.array(value)?;
        }
        for Ranged { argument, condition, range } in &self.ranges {
            let condition = condition.as_ref().map(|when| evaluation.condition(when)).transpose()?;
            range.check(&evaluation.array(argument)?, condition.as_ref())?;
        }
        Ok(())
    }
}

/// Whether `condition` is true, row by row; where it can't be evaluated it is not, and the second answer says why.
///
/// # Errors
/// Only if the batch isn't one that the condition was planned for.
pub fn holds(condition: &Expr, batch: &RecordBatch) -> Result<(BooleanBuffer, Vec<Unproven>), Error> {
    let mut unproven = Vec::new();
    let mut held = BooleanBufferBuilder::new(batch.num_rows());
    held.append_n(batch.num_rows(), false);
    let mut evaluate = |part: &RecordBatch| condition.evaluate_condition(part);
    let mut keep = |from: usize, truth: BooleanArray| {
        for row in without_nulls(truth).values().set_indices() {
            held.set_bit(from + row, true);
        }
    };
    each_part(batch, 0, &mut evaluate, &mut keep, &mut unproven)?;
    Ok((held.finish(), unproven))
}

/// Evaluates `batch`, and where that fails its halves, down to the single rows that fail: twice as many evaluations as
/// there are rows, at most, and one when all is well.
fn each_part<T>(
    batch: &RecordBatch,
    from: usize,
    evaluate: &mut impl FnMut(&RecordBatch) -> Result<T, Error>,
    keep: &mut impl FnMut(usize, T),
    unproven: &mut Vec<Unproven>,
) -> Result<(), Error> {
    let rows = batch.num_rows();
    match evaluate(batch) {
        Ok(value) => keep(from, value),
        Err(Error::Evaluation { expression, detail }) if rows <= 1 => {
            unproven.push(Unproven { row: from, expression, detail });
        }
        Err(Error::Evaluation { .. }) => {
            let half = rows / 2;
            each_part(&batch.slice(0, half), from, evaluate, keep, unproven)?;
            each_part(&batch.slice(half, rows - half), from + half, evaluate, keep, unproven)?;
        }
        Err(other) => return Err(other),
    }
    Ok(())
}
