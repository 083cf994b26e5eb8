//! Counts tallies for the metrics on their way to the ledger.

use std::sync::Arc;

use arrow_array::RecordBatch;
use weir_operators::account::TopicNames;
use weir_operators::error::Error;
use weir_operators::operator::{Context, Operator};

use crate::metrics::Metrics;

/// The operator. It passes every batch on unchanged.
pub(crate) struct Count {
    /// The source's name.
    pub(crate) source: String,
    /// The topics' names by number.
    pub(crate) topics: Vec<TopicNames>,
    /// Where counts are noted.
    pub(crate) metrics: Arc<Metrics>,
}

impl Operator for Count {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        self.metrics.count(&self.source, &self.topics, &batch);
        cx.emit(batch);
        Ok(())
    }

    fn end_of_epoch(&mut self, _cx: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }
}
