//! Lets a part of the events through: those of one stretch of event time, and of these the ones for which a condition holds.
//! It is what a run that is for this part alone has results for.

use arrow_array::types::Int64Type;
use arrow_array::{BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;
use weir_schemas::stage::system;
use weir_schemas::time::EventTime;

use crate::error::Error;
use crate::expr::Expr;
use crate::operator::{Context, Operator};
use crate::tally::primitive;

/// The operator: batches of events go in and out.
#[derive(Clone, Debug)]
pub struct Within {
    from: EventTime,
    to: EventTime,
    only: Option<Expr>,
}

impl Within {
    /// Lets through what happened at `from` or later, and before `to`; of that, where `only` is given, the events for which
    /// it is true.
    pub fn new(from: EventTime, to: EventTime, only: Option<Expr>) -> Within {
        Within { from, to, only }
    }
}

impl Operator for Within {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        let times = primitive::<Int64Type>(&batch, system::EVENT_TIME)?.values();
        let is_within = |time: &i64| (self.from.0..self.to.0).contains(time);
        let mut kept = BooleanArray::from_iter(times.iter().map(|time| Some(is_within(time))));
        if let Some(only) = &self.only {
            let meets = only.evaluate_condition(&batch)?;
            kept =
                kept.iter().zip(&meets).map(|(time, meets)| Some(time == Some(true) && meets == Some(true))).collect();
        }
        match kept.true_count() {
            0 => {}
            all if all == batch.num_rows() => cx.emit(batch),
            _ => cx.emit(filter_record_batch(&batch, &kept)?),
        }
        Ok(())
    }

    fn end_of_epoch(&mut self, _: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }
}
