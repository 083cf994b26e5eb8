//! Lets events of one stretch of event time through: what a run that is for that stretch alone has results for.

use arrow_array::types::Int64Type;
use arrow_array::{BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;
use weir_schemas::stage::system;
use weir_schemas::time::EventTime;

use crate::error::Error;
use crate::operator::{Context, Operator};
use crate::tally::primitive;

/// The operator: batches of events go in and out.
#[derive(Clone, Copy, Debug)]
pub struct Within {
    from: EventTime,
    to: EventTime,
}

impl Within {
    /// Lets through what happened at `from` or later, and before `to`.
    pub fn new(from: EventTime, to: EventTime) -> Within {
        Within { from, to }
    }
}

impl Operator for Within {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        let times = primitive::<Int64Type>(&batch, system::EVENT_TIME)?.values();
        let is_within = |time: &i64| (self.from.0..self.to.0).contains(time);
        let within = times.iter().filter(|time| is_within(time)).count();
        if within == batch.num_rows() {
            cx.emit(batch);
        } else if within > 0 {
            let kept = BooleanArray::from_iter(times.iter().map(|time| Some(is_within(time))));
            cx.emit(filter_record_batch(&batch, &kept)?);
        }
        Ok(())
    }

    fn end_of_epoch(&mut self, _: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }
}
