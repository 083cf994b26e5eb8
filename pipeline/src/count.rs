//! Counts for the metrics: tallies on their way to the ledger, and what rules over several events found.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use weir_operators::account::TopicNames;
use weir_operators::error::Error;
use weir_operators::operator::{Context, Operator};

use weir_schemas::rule::Mode;

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

/// The operator that counts the events that broke a rule; its batches hold numbers alone.
pub(crate) struct CountBroken {
    /// The source's name.
    pub(crate) source: String,
    /// The rule's id.
    pub(crate) rule: Arc<str>,
    /// Its mode.
    pub(crate) mode: Mode,
    /// Where counts are noted.
    pub(crate) metrics: Arc<Metrics>,
}

impl Operator for CountBroken {
    fn on_batch(&mut self, batch: RecordBatch, _cx: &mut Context<'_>) -> Result<(), Error> {
        let counts = batch.columns().first().and_then(|counts| counts.as_primitive_opt::<UInt64Type>());
        let count = counts.map_or(0, |counts| counts.values().iter().sum());
        self.metrics.rule_broken(&self.source, &self.rule, self.mode, count);
        Ok(())
    }

    fn end_of_epoch(&mut self, _cx: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }
}
