//! Gathering the rows of `weir_judgements`: what only the clock could decide, kept so that a replay can repeat it
//! (`precedent`).

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, Int32Builder, Int64Builder, TimestampMicrosecondBuilder, UInt64Builder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, Schema};
use weir_schemas::rows::Changes;
use weir_schemas::tables;
use weir_schemas::time::{Epoch, EventTime};

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A partition is idle from this offset on: it holds no watermark back.
    Idle,
    /// It has records again.
    Awake,
    /// An event was too late only against the watermark that went on while its partition was idle.
    TooLateAfterIdle,
    /// A retried event came when its windows were kept no more.
    TooLateRetried,
    /// The registry didn't know a schema id for longer than the grace period.
    UnknownSchema,
}

impl Kind {
    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Idle => "idle",
            Kind::Awake => "awake",
            Kind::TooLateAfterIdle => "too_late_after_idle",
            Kind::TooLateRetried => "too_late_retried",
            Kind::UnknownSchema => "unknown_schema",
        }
    }
}

/// Judgements of one poll, all of one epoch and one moment.
#[derive(Default)]
pub struct JudgementSheet {
    judged_at: TimestampMicrosecondBuilder,
    topic: BinaryBuilder,
    partition: Int32Builder,
    offset: Int64Builder,
    kind: BinaryBuilder,
    epoch: UInt64Builder,
    watermark: TimestampMicrosecondBuilder,
    detail: BinaryBuilder,
    last_offset: Int64Builder,
    rows: usize,
}

/// One judgement's facts.
#[derive(Debug)]
pub struct Judgement<'a> {
    /// When, by the clock.
    pub judged_at_ms: i64,
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The record judged, or the next one where a partition was.
    pub offset: i64,
    /// The last record that it is of; of one record, the same.
    pub last_offset: i64,
    /// What was decided.
    pub kind: Kind,
    /// The epoch whose commit holds it.
    pub epoch: Epoch,
    /// The watermark it was judged against.
    pub watermark: EventTime,
    /// What else is to be said of it.
    pub detail: &'a str,
}

impl JudgementSheet {
    /// Adds a judgement.
    pub fn add(&mut self, judgement: &Judgement<'_>) {
        self.rows += 1;
        self.judged_at.append_value(judgement.judged_at_ms.saturating_mul(1000));
        self.topic.append_value(judgement.topic);
        self.partition.append_value(judgement.partition);
        self.offset.append_value(judgement.offset);
        self.kind.append_value(judgement.kind.name());
        self.epoch.append_value(judgement.epoch.0);
        self.watermark.append_value(judgement.watermark.storable().0);
        self.detail.append_value(judgement.detail);
        self.last_offset.append_value(judgement.last_offset);
    }

    /// The judgements as rows; the sheet is empty afterwards.
    ///
    /// # Errors
    /// Never: the columns are those of [`tables::judgements`].
    pub fn take(&mut self) -> Result<Option<Changes>, ArrowError> {
        if std::mem::take(&mut self.rows) == 0 {
            return Ok(None);
        }
        let table = tables::judgements();
        let fields: Vec<_> = table.columns.iter().map(|column| column.column_type.field(&column.name)).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.judged_at.finish()),
            Arc::new(self.topic.finish()),
            Arc::new(self.partition.finish()),
            Arc::new(self.offset.finish()),
            Arc::new(self.kind.finish()),
            Arc::new(self.epoch.finish()),
            Arc::new(self.watermark.finish()),
            Arc::new(self.detail.finish()),
            Arc::new(self.last_offset.finish()),
        ];
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        Ok(Some(Changes { table: table.name, rows, deleted: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fit_the_declared_table() {
        let mut sheet = JudgementSheet::default();
        assert!(sheet.take().unwrap().is_none());
        sheet.add(&Judgement {
            judged_at_ms: 5,
            topic: "events",
            partition: 1,
            offset: 7,
            last_offset: 7,
            kind: Kind::Idle,
            epoch: Epoch(3),
            watermark: EventTime::MIN,
            detail: "",
        });
        let changes = sheet.take().unwrap().unwrap();
        assert_eq!(changes.rows.num_rows(), 1);
        assert_eq!(&*changes.table, tables::JUDGEMENTS);
    }
}
