//! Retried records: the retry topic as a further topic of a source.
//!
//! It moves no watermark, holds nobody back and is read a little at a time beside the others. What is in it was judged
//! before, so its events are never too late by being retried; only those whose windows the state keeps no more are.
//!
//! Invariant: each place is retried once. A second message for the same place, whoever sent it, is a duplicate by its
//! place, before anything of it is decoded. What was taken is remembered here until its epoch is surely committed, and in
//! the state from then on (`kept`). That needs one order, so a retry topic has one partition.
//!
//! Not here: who sends records there (`quarantine`).

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, UInt64Array};
use arrow_schema::{ArrowError, Schema};
use weir_operators::state::Store;
use weir_schemas::fate::{Fate, Reason};
use weir_schemas::place::Place;
use weir_schemas::retry::{Retried, retried};
use weir_schemas::rows::Changes;
use weir_schemas::time::{Epoch, EventTime, Span};

use super::intake::{Run, Sheets};
use super::message::Message;
use crate::error::Error;
use crate::kept;

/// What a source's retries go by.
pub struct Retries {
    /// The retry topic.
    pub topic: String,
    /// The topics that its records may come from.
    pub origins: BTreeSet<String>,
    /// The event time before which windows are gone already.
    pub kept_from: EventTime,
    /// For how long windows are kept beyond the allowed lateness.
    pub retained: Span,
    /// The state.
    pub store: Arc<Store>,
}

impl fmt::Debug for Retries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retries")
            .field("topic", &self.topic)
            .field("kept_from", &self.kept_from)
            .finish_non_exhaustive()
    }
}

impl Retries {
    /// The least event time whose window the state has, when the stream was told `held`.
    pub fn floor(&self, held: EventTime, lateness: Span) -> EventTime {
        self.kept_from.max(held.minus(lateness).minus(self.retained))
    }
}

/// What was taken from the retry topic.
#[derive(Default)]
pub struct Taken {
    /// By place, until the epoch is committed for sure.
    uncommitted: HashMap<Place, Epoch>,
    /// Places of the open epoch, for its commit.
    of_epoch: Vec<Place>,
    /// Rows for `weir_retried`: the retry, the partition and offset of its message, and the epoch.
    rows: Vec<(Retried, i32, i64, Epoch)>,
}

impl Taken {
    /// Of `messages`, those that are the first of their place, with the original's timestamp. The others are given their
    /// fates here.
    pub(super) fn admit(
        &mut self,
        retries: &Retries,
        messages: Vec<Message>,
        run: &Run<'_>,
        schema_id: Option<u32>,
        sheets: &mut Sheets,
    ) -> Result<Vec<Message>, Error> {
        // An epoch opens only when the one before the last is committed.
        self.uncommitted.retain(|_, epoch| epoch.0 + 1 >= run.epoch.0);
        let mut first = Vec::with_capacity(messages.len());
        for mut message in messages {
            let of = match retried_by(&message).and_then(|of| known(retries, of)) {
                Ok(of) => of,
                Err(why) => {
                    // No judge counts what was retried, so no watermark matters.
                    run.refuse(&message, schema_id, Reason::Malformed, &why, EventTime::MIN, sheets);
                    continue;
                }
            };
            message.set_timestamp_ms(of.kafka_time_ms);
            if self.uncommitted.contains_key(&of.origin) || kept::was_retried(&retries.store, &of.origin)? {
                run.count_without_event(&message, Fate::Duplicate, sheets);
                continue;
            }
            self.uncommitted.insert(of.origin.clone(), run.epoch);
            self.of_epoch.push(of.origin.clone());
            self.rows.push((of, run.partition.number, message.offset(), run.epoch));
            first.push(message);
        }
        Ok(first)
    }

    /// The places that the open epoch has taken; the next one begins with none.
    pub fn take_places(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.of_epoch)
    }

    /// The rows of what was taken since the last time.
    pub(super) fn take_rows(&mut self, source: &str, topic: &str) -> Result<Option<Changes>, ArrowError> {
        if self.rows.is_empty() {
            return Ok(None);
        }
        let rows = std::mem::take(&mut self.rows);
        let texts = |of: &dyn Fn(&Retried) -> Vec<u8>| -> ArrayRef {
            Arc::new(BinaryArray::from_iter_values(rows.iter().map(|(retried, ..)| of(retried))))
        };
        let same = |text: &str| -> ArrayRef { Arc::new(BinaryArray::from_iter_values(rows.iter().map(|_| text))) };
        let table = retried();
        let columns: Vec<ArrayRef> = vec![
            texts(&|of| of.origin.topic.clone().into_bytes()),
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|(of, ..)| of.origin.partition))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|(of, ..)| of.origin.offset))),
            same(source),
            texts(&|of| of.cause.clone().into_bytes()),
            texts(&|of| of.id.clone().into_bytes()),
            same(topic),
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|(_, partition, ..)| *partition))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, _, offset, _)| *offset))),
            Arc::new(UInt64Array::from_iter_values(rows.iter().map(|(.., epoch)| epoch.0))),
        ];
        let fields: Vec<_> = table.columns.iter().map(|column| column.column_type.field(&column.name)).collect();
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        Ok(Some(Changes { table: table.name, rows, deleted: None }))
    }
}

/// What the headers of a message of the retry topic say.
pub(crate) fn retried_by(message: &Message) -> Result<Retried, String> {
    let mut all: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
    message.headers(|name, value| all.push((name.to_vec(), value.map(<[u8]>::to_vec))));
    Retried::of(all.iter().map(|(name, value)| (name.as_slice(), value.as_deref())))
}

fn known(retries: &Retries, of: Retried) -> Result<Retried, String> {
    if of.origin.topic == retries.topic || retries.origins.contains(&of.origin.topic) {
        return Ok(of);
    }
    Err(format!("retried from {}, a topic that this source doesn't read", of.origin))
}
