//! Which events belong to a row, and what they make: the pipeline's own expressions and aggregates, for one group.

use arrow_array::builder::BooleanBufferBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow_schema::{ArrowError, Schema};
use arrow_select::filter::filter_record_batch;
use std::sync::Arc;
use weir_operators::aggregate::{Accumulator, accumulator};
use weir_operators::expr::{Evaluation, Expr, Function};
use weir_operators::prove::Proof;
use weir_operators::view::{Output, ViewPlan};
use weir_operators::window::Windows;
use weir_schemas::stage::system;

use super::stored::Row;
use super::{ExplainError, Window, asked};
use crate::error::Error;

/// Finds the events of one row.
pub(super) struct Matcher {
    window: Window,
    proof: Option<Proof>,
    filter: Option<Expr>,
    /// The dimensions as text, and what they are in the row.
    dimensions: Vec<(Expr, Option<Vec<u8>>)>,
}

impl Matcher {
    pub(super) fn new(plan: &ViewPlan, window: Window, row: &Row) -> Result<Matcher, ExplainError> {
        let dimensions = plan.dimensions.iter().zip(&row.dimensions).map(|(dimension, value)| {
            let text = text_of(dimension.value.clone())?;
            Ok((text, value.as_ref().map(|value| value.clone().into_bytes())))
        });
        Ok(Matcher {
            window,
            proof: Proof::of_view(plan),
            filter: plan.filter.clone(),
            dimensions: dimensions.collect::<Result<_, ExplainError>>()?,
        })
    }

    /// The events of the row among `events`, and how many of the window can't be evaluated for the view.
    pub(super) fn matching(&self, events: &RecordBatch) -> Result<(RecordBatch, u64), Error> {
        let times = events
            .columns()
            .get(system::EVENT_TIME)
            .and_then(|column| column.as_primitive_opt::<Int64Type>())
            .ok_or_else(|| ArrowError::SchemaError("a batch of events has no event time".to_owned()))?;
        let (from, end) = (self.window.from(), self.window.end);
        let within: BooleanArray = times.values().iter().map(|at| Some((from..end).contains(at))).collect();
        let mut found = filter_record_batch(events, &within)?;
        let mut unproven = 0;
        if let Some(proof) = self.proof.as_ref().filter(|_| found.num_rows() > 0) {
            let failing = proof.unproven(&found)?;
            unproven = failing.len() as u64;
            let mut fine = BooleanBufferBuilder::new(found.num_rows());
            fine.append_n(found.num_rows(), true);
            failing.iter().for_each(|of| fine.set_bit(of.row, false));
            found = filter_record_batch(&found, &BooleanArray::new(fine.finish(), None))?;
        }
        if let Some(filter) = self.filter.as_ref().filter(|_| found.num_rows() > 0) {
            // A row for which it is null doesn't pass; the kernel sees it as false.
            found = filter_record_batch(&found, &filter.evaluate_condition(&found)?)?;
        }
        for (text, wanted) in self.dimensions.iter() {
            if found.num_rows() == 0 {
                break;
            }
            let values = text.evaluate(&found)?;
            let values = values.as_binary_opt::<i32>().ok_or_else(|| not_text(text))?;
            let same: BooleanArray = values.iter().map(|value| Some(value == wanted.as_deref())).collect();
            found = filter_record_batch(&found, &same)?;
        }
        Ok((found, unproven))
    }
}

/// An expression's value as ClickHouse's `toString` gives it.
fn text_of(value: Expr) -> Result<Expr, ExplainError> {
    let told = value.to_string();
    Expr::call(Function::ToString, vec![value]).map_err(|refusal| {
        asked(format!("{told} can't be compared as text: {refusal:?}"), "explain a row of a view without that column")
    })
}

fn not_text(expr: &Expr) -> Error {
    Error::Stopped(format!("{expr} is no text, though toString makes it one"))
}

/// The row's measures, counted once more.
pub(super) struct Recount<'a> {
    plan: &'a ViewPlan,
    states: Vec<Box<dyn Accumulator>>,
    /// One event of the row, which has the values of its dimensions.
    one: Option<RecordBatch>,
}

impl<'a> Recount<'a> {
    pub(super) fn new(plan: &'a ViewPlan) -> Result<Recount<'a>, ExplainError> {
        let mut states =
            plan.measures.iter().map(|measure| accumulator(&measure.call)).collect::<Result<Vec<_>, _>>()?;
        states.iter_mut().for_each(|state| state.grow(1));
        Ok(Recount { plan, states, one: None })
    }

    /// Adds events of the row.
    pub(super) fn add(&mut self, events: &RecordBatch) -> Result<(), Error> {
        if events.num_rows() == 0 {
            return Ok(());
        }
        self.one.get_or_insert_with(|| events.slice(0, 1));
        let slots = vec![0; events.num_rows()];
        let mut evaluation = Evaluation::new(events);
        for (measure, state) in self.plan.measures.iter().zip(&mut self.states) {
            let arguments = measure.call.arguments.iter().map(|argument| evaluation.array(argument));
            let arguments: Vec<ArrayRef> = arguments.collect::<Result<_, _>>()?;
            let condition = measure.call.condition.as_ref().map(|when| evaluation.condition(when)).transpose()?;
            state.update(&slots, &arguments, condition.as_ref())?;
        }
        Ok(())
    }

    /// Whether HAVING is true for what came out; `None` where the view has none, or no event counted.
    pub(super) fn having(&self, window: Window) -> Result<Option<bool>, Error> {
        let (Some(having), Some(one)) = (&self.plan.having, &self.one) else { return Ok(None) };
        let windows = Windows::new(&self.plan.window)?;
        let mut evaluation = Evaluation::new(one);
        let misnumbered = || Error::Stopped("a view's outputs name a column that it does not have".to_owned());
        let mut columns: Vec<ArrayRef> = Vec::new();
        for output in &self.plan.outputs {
            columns.push(match *output {
                Output::Window => windows.column(&[window.start]),
                Output::Dimension(at) => {
                    evaluation.array(&self.plan.dimensions.get(at).ok_or_else(misnumbered)?.value)?
                }
                Output::Measure(at) => self.states.get(at).ok_or_else(misnumbered)?.finish(&[0])?,
            });
        }
        let fields: Vec<_> = self.plan.columns().iter().map(|column| column.column_type.field(&column.name)).collect();
        let row = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        let holds = having.evaluate_condition(&row)?;
        Ok(Some(holds.is_valid(0) && holds.value(0)))
    }

    /// The measures as ClickHouse's `toString` gives them; `None` is NULL.
    pub(super) fn texts(&self) -> Result<Vec<Option<String>>, ExplainError> {
        let text = |(measure, state): (&weir_operators::view::Measure, &dyn Accumulator)| {
            let column_type = measure.call.result_type().clone();
            let value = state.finish(&[0])?;
            let schema = Schema::new(vec![column_type.field(&measure.name)]);
            let batch = RecordBatch::try_new(Arc::new(schema), vec![value]).map_err(Error::from)?;
            let text = text_of(Expr::Column { index: 0, name: measure.name.clone(), column_type })?;
            let texts = text.evaluate(&batch)?;
            let texts = texts.as_binary_opt::<i32>().ok_or_else(|| not_text(&text))?;
            Ok(texts.is_valid(0).then(|| String::from_utf8_lossy(texts.value(0)).into_owned()))
        };
        self.plan.measures.iter().zip(self.states.iter().map(Box::as_ref)).map(text).collect()
    }
}
