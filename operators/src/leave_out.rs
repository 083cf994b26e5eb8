//! Leaves out what came from one topic.

use arrow_array::types::UInt16Type;
use arrow_array::{BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;
use weir_schemas::stage::system;

use crate::error::Error;
use crate::operator::{Context, Operator};
use crate::tally::primitive;

/// The operator: batches of events or of refused records go in, whose topic's number is the first column of both.
#[derive(Debug)]
pub struct LeaveOut {
    topic: u16,
}

impl LeaveOut {
    /// Leaves out the rows of the topic with this number.
    pub fn new(topic: u16) -> LeaveOut {
        LeaveOut { topic }
    }
}

impl Operator for LeaveOut {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        let topics = primitive::<UInt16Type>(&batch, system::TOPIC)?.values();
        let left = topics.iter().filter(|topic| **topic != self.topic).count();
        if left == batch.num_rows() {
            cx.emit(batch);
        } else if left > 0 {
            let others = BooleanArray::from_iter(topics.iter().map(|topic| Some(*topic != self.topic)));
            cx.emit(filter_record_batch(&batch, &others)?);
        }
        Ok(())
    }

    fn end_of_epoch(&mut self, _: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }
}
