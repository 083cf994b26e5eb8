//! Intake: what becomes of one run of records, all of one partition and one writer schema.
//!
//! Decode, judge time, apply the rules (`apply`), prove that the views can be evaluated, in this order. Each record
//! ends in exactly one place: among the events, among the refused ones, or in a count; each is counted as consumed
//! where it is taken, and its fate where it is decided.
//!
//! Not here: which partition's turn it is, and where schemas come from.

use std::sync::Arc;

use arrow_array::builder::BooleanBufferBuilder;
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, UInt16Array, UInt32Array};
use arrow_buffer::NullBuffer;
use arrow_schema::{ArrowError, DataType, SchemaRef, TimeUnit};
use arrow_select::filter::filter_record_batch;
use weir_operators::plan::Plan;
use weir_operators::prove::{Proof, Unproven};
use weir_operators::rule::Rule;
use weir_schemas::avro::{Decoded, Decoder, RefusedRecord};
use weir_schemas::fate::{Fate, Reason};
use weir_schemas::frame::FRAME_BYTES;
use weir_schemas::place::Partition;
use weir_schemas::stage::CONSUMED;
use weir_schemas::time::{Epoch, EventTime};

use super::judge::{Bounds, PartitionClock, Verdict};
use super::judgement::{Judgement, JudgementSheet, Kind};
use super::message::Message;
use super::precedent::OfPartition;
use super::refuse::{Cause, Refusal, RefusedSheet, Sender};
use super::tally::TallySheet;
use crate::error::Error;
use crate::rules;

/// What is the same for every run of a source.
#[derive(Clone, Debug)]
pub struct Contract {
    /// The source's name.
    pub source: String,
    /// The fields whose values nobody may see.
    pub sensitive: Vec<String>,
    /// The bounds of time.
    pub bounds: Bounds,
    /// The Arrow schema of the events: system columns, then the wanted columns.
    pub events: SchemaRef,
    /// The same with the marks behind, where the source has rules that events may break and still pass.
    pub marked: Option<SchemaRef>,
    /// The same with their records behind, where operators behind the source may still refuse events.
    pub recorded: Option<SchemaRef>,
    /// Index of the event time among the wanted columns.
    pub event_time: usize,
    /// Index of the tenant among the wanted columns.
    pub tenant: Option<usize>,
    /// Indices of SDK, its version and the app's version among the wanted columns.
    pub release: [Option<usize>; 3],
    /// Names of the Kafka headers that tell tenant, SDK, its version and the app's version where a record doesn't decode.
    pub sender_headers: [Option<String>; 4],
    /// The rules, in the order of their ids, over [`Contract::events`].
    pub rules: Vec<Rule>,
    /// What judges by those of them that belong to the tracking plan.
    pub plan: Option<Plan>,
    /// What views compute of every event and can't of some.
    pub proofs: Vec<Proof>,
}

/// The sheets of one poll.
#[derive(Default)]
pub struct Sheets {
    /// Events that passed.
    pub events: Vec<RecordBatch>,
    /// Records that were refused.
    pub refused: RefusedSheet,
    /// Those of them that are events in time, where the source has sequences.
    pub refused_events: Vec<RecordBatch>,
    /// Counts.
    pub tallies: TallySheet,
    /// Judgements by the clock.
    pub judgements: JudgementSheet,
    /// How many events in time broke each rule, by the rules' indices; empty where none did.
    pub broken: Vec<u64>,
    /// The least and the greatest event time of events in time since the span was last taken.
    pub span: Option<(EventTime, EventTime)>,
}

impl Contract {
    /// The Arrow schema of the events that are neither refused nor may be any more.
    pub fn emitted(&self) -> &SchemaRef {
        self.marked.as_ref().unwrap_or(&self.events)
    }
}

/// Whose run it is.
pub struct Run<'a> {
    /// The source's contract.
    pub contract: &'a Contract,
    /// The topic's name.
    pub topic: &'a str,
    /// The partition.
    pub partition: Partition,
    /// The open epoch.
    pub epoch: Epoch,
    /// Now, by the clock.
    pub now_ms: i64,
    /// What the stream was told before this poll.
    pub held: EventTime,
    /// What is judged as it was before, instead of against `held`: what of this partition was; absent, the clock judges.
    pub precedents: Option<&'a OfPartition>,
    /// For retried records: the least event time whose window the state has.
    pub floor: Option<EventTime>,
}

impl Run<'_> {
    /// Refuses a record that has no event: its minute is its Kafka timestamp's, its sender what the headers tell.
    /// `watermark` is the partition's where the record stands.
    pub fn refuse(
        &self,
        message: &Message,
        schema_id: Option<u32>,
        reason: Reason,
        detail: &str,
        watermark: EventTime,
        sheets: &mut Sheets,
    ) {
        self.refuse_for(message, schema_id, (reason, detail), &Cause::default(), watermark, sheets);
    }

    fn refuse_for(
        &self,
        message: &Message,
        schema_id: Option<u32>,
        (reason, detail): (Reason, &str),
        cause: &Cause<'_>,
        watermark: EventTime,
        sheets: &mut Sheets,
    ) {
        let sender = self.sender_of_headers(message);
        let minute_of = EventTime::from_ms(message.timestamp_ms().max(0));
        let counted_at = minute_of.max(watermark);
        self.consume(&sender.tenant, minute_of, reason.fate(), &mut sheets.tallies);
        let source = &self.contract.source;
        let refusal =
            Refusal { source, schema_id, event_time: None, counted_at, reason, detail, sender: &sender, cause };
        sheets.refused.refuse(self.partition, message, &refusal);
    }

    /// Counts a record without a value.
    pub fn tombstone(&self, message: &Message, sheets: &mut Sheets) {
        self.count_without_event(message, Fate::Tombstone, sheets);
    }

    /// Counts a record that isn't looked into.
    pub(super) fn count_without_event(&self, message: &Message, fate: Fate, sheets: &mut Sheets) {
        let minute_of = EventTime::from_ms(message.timestamp_ms().max(0));
        self.consume(&[], minute_of, fate, &mut sheets.tallies);
    }

    /// Takes framed records of one writer schema.
    ///
    /// # Errors
    /// When the decoded columns aren't those that the contract was bound to: a bug.
    pub fn take(
        &self,
        messages: &[Message],
        schema_id: u32,
        decoder: &Decoder,
        clock: &mut PartitionClock,
        sheets: &mut Sheets,
    ) -> Result<(), Error> {
        let data: Vec<&[u8]> =
            messages.iter().map(|m| m.value().and_then(|value| value.get(FRAME_BYTES..)).unwrap_or_default()).collect();
        decoder.decode_all(&data, |of, decoded| self.take_decoded(&messages[of], schema_id, decoded, clock, sheets))
    }

    fn take_decoded(
        &self,
        messages: &[Message],
        schema_id: u32,
        decoded: Decoded,
        clock: &mut PartitionClock,
        sheets: &mut Sheets,
    ) -> Result<(), Error> {
        let mut undecoded = Undecoded { messages, left: &decoded.refused, schema_id };
        let rows: Vec<&Message> = decoded.records.iter().filter_map(|&at| messages.get(at as usize)).collect();
        if rows.is_empty() {
            undecoded.refuse_before(self, u32::MAX, clock.watermark(), sheets);
            return Ok(());
        }
        let (times, known) = event_times(decoded.batch.column(self.contract.event_time))?;
        let senders = Senders::of(&decoded.batch, self.contract);
        let judged = Judged { rows: &rows, records: &decoded.records, times: &times, senders: &senders, schema_id };
        let in_time = self.judge(&judged, known.as_ref(), &mut undecoded, clock, sheets);
        let events = self.with_system_columns(decoded.batch, &judged)?;
        let broken = self.broken_rules(&events)?;
        let kept = self.apply_rules(&events, in_time.clone(), &broken, &judged, sheets)?;
        let kept = self.prove(&events, kept, &judged, sheets)?;
        let events = self.mark(events, &broken)?;
        self.keep_refused(&events, &in_time, &kept, sheets)?;
        let events = self.with_records(events, &rows)?;
        let events = if kept.true_count() == kept.len() { events } else { filter_record_batch(&events, &kept)? };
        if events.num_rows() > 0 {
            sheets.events.push(events);
        }
        Ok(())
    }

    /// Judges each row's time in the order of the log; true where it goes on. Records in between that didn't decode are
    /// refused in the same order, so that the watermark where they stand is known.
    fn judge(
        &self,
        judged: &Judged<'_>,
        known: Option<&NullBuffer>,
        undecoded: &mut Undecoded<'_>,
        clock: &mut PartitionClock,
        sheets: &mut Sheets,
    ) -> BooleanArray {
        let mut in_time = BooleanBufferBuilder::new(judged.rows.len());
        for (row, message) in judged.rows.iter().enumerate() {
            let own = clock.watermark();
            undecoded.refuse_before(self, judged.records[row], own, sheets);
            if known.is_some_and(|known| known.is_null(row)) {
                let minute_of = EventTime::from_ms(message.timestamp_ms().max(0));
                self.refuse_row(judged, row, None, minute_of, (Reason::NoEventTime, ""), own, sheets);
                in_time.append(false);
                continue;
            }
            let time = judged.times[row];
            let (bounds, kafka_time_ms) = (&self.contract.bounds, message.timestamp_ms());
            let against = self.against(message.offset());
            let verdict = match self.floor {
                Some(_) => PartitionClock::judge_retried(time, kafka_time_ms, bounds, against),
                None => clock.judge(time, kafka_time_ms, bounds, against),
            };
            in_time.append(verdict == Verdict::InTime);
            match verdict {
                Verdict::InTime => {
                    sheets.span =
                        Some(sheets.span.map_or((time, time), |(least, most)| (least.min(time), most.max(time))));
                    sheets.tallies.count(self.partition, judged.senders.tenant(row), time, CONSUMED);
                }
                Verdict::TooLate => {
                    let detail = match self.floor {
                        Some(_) => "retried, but its windows are kept no more".to_owned(),
                        None => {
                            format!("{} ms older than the partition's watermark", own.0.saturating_sub(time.0) / 1000)
                        }
                    };
                    self.refuse_row(judged, row, Some(time), time, (Reason::TooLate, &detail), own, sheets);
                    // When it was retried was up to a person, and so was which windows were left.
                    if self.floor.is_some() {
                        self.note_late(message, Kind::TooLateRetried, against, sheets);
                    }
                }
                Verdict::TooLateAfterIdle => {
                    self.refuse_row(judged, row, Some(time), time, (Reason::TooLateAfterIdle, ""), own, sheets);
                    self.note_late(message, Kind::TooLateAfterIdle, against, sheets);
                }
                Verdict::Future => {
                    let minute_of = EventTime::from_ms(message.timestamp_ms());
                    let ahead = time.0.saturating_sub(minute_of.0) / 1000;
                    let detail = format!("{ahead} ms beyond the record's timestamp");
                    let refused = (Reason::FutureEventTime, detail.as_str());
                    self.refuse_row(judged, row, Some(time), minute_of, refused, own, sheets);
                }
            }
        }
        undecoded.refuse_before(self, u32::MAX, clock.watermark(), sheets);
        BooleanArray::new(in_time.finish(), None)
    }

    /// Keeps that a record was too late by the clock.
    fn note_late(&self, message: &Message, kind: Kind, watermark: EventTime, sheets: &mut Sheets) {
        sheets.judgements.add(&Judgement {
            judged_at_ms: self.now_ms,
            topic: self.topic,
            partition: self.partition.number,
            offset: message.offset(),
            last_offset: message.offset(),
            kind,
            epoch: self.epoch,
            watermark,
            detail: "",
        });
    }

    /// Refuses what a view can't be evaluated for; the first such view is the one that is told.
    fn prove(
        &self,
        events: &RecordBatch,
        mut kept: BooleanArray,
        judged: &Judged<'_>,
        sheets: &mut Sheets,
    ) -> Result<BooleanArray, Error> {
        for proof in &self.contract.proofs {
            let unproven = proof.unproven(events)?;
            kept = self.refuse_unproven(&proof.wanted_by, &unproven, kept, judged, sheets);
        }
        Ok(kept)
    }

    fn refuse_unproven(
        &self,
        wanted_by: &str,
        unproven: &[Unproven],
        kept: BooleanArray,
        judged: &Judged<'_>,
        sheets: &mut Sheets,
    ) -> BooleanArray {
        if unproven.is_empty() {
            return kept;
        }
        let mut proven = BooleanBufferBuilder::new(kept.len());
        proven.append_buffer(kept.values());
        for Unproven { row, expression, detail } in unproven {
            // What is refused already, as too late or by a rule, is that alone, whatever else is wrong with it.
            if kept.value(*row) {
                let detail = format!("{wanted_by}: {expression}: {detail}");
                let cause = Cause { fault: &detail, ..Cause::default() };
                self.refuse_in_time(judged, *row, Reason::NotEvaluable, &detail, &cause, sheets);
                proven.set_bit(*row, false);
            }
        }
        BooleanArray::new(proven.finish(), None)
    }

    /// Refuses a row that was counted as consumed when its time was judged.
    pub(super) fn refuse_in_time(
        &self,
        judged: &Judged<'_>,
        row: usize,
        reason: Reason,
        detail: &str,
        cause: &Cause<'_>,
        sheets: &mut Sheets,
    ) {
        let time = judged.times[row];
        sheets.tallies.count(self.partition, judged.senders.tenant(row), time, reason.fate() as u8);
        let sender = judged.senders.of_row(row);
        let (source, schema_id) = (&self.contract.source, Some(judged.schema_id));
        let (event_time, counted_at) = (Some(time), time);
        let refusal = Refusal { source, schema_id, event_time, counted_at, reason, detail, sender: &sender, cause };
        sheets.refused.refuse(self.partition, judged.rows[row], &refusal);
    }

    #[allow(clippy::too_many_arguments, reason = "one row's facts; a struct would be built for this call alone")]
    fn refuse_row(
        &self,
        judged: &Judged<'_>,
        row: usize,
        event_time: Option<EventTime>,
        minute_of: EventTime,
        (reason, detail): (Reason, &str),
        watermark: EventTime,
        sheets: &mut Sheets,
    ) {
        let sender = judged.senders.of_row(row);
        let counted_at = EventTime::from_ms(judged.rows[row].timestamp_ms().max(0)).max(watermark);
        self.consume(&sender.tenant, minute_of, reason.fate(), &mut sheets.tallies);
        let (source, cause) = (&self.contract.source, &Cause::default());
        let schema_id = Some(judged.schema_id);
        let refusal = Refusal { source, schema_id, event_time, counted_at, reason, detail, sender: &sender, cause };
        sheets.refused.refuse(self.partition, judged.rows[row], &refusal);
    }

    fn consume(&self, tenant: &[u8], minute_of: EventTime, fate: Fate, tallies: &mut TallySheet) {
        tallies.count(self.partition, tenant, minute_of, CONSUMED);
        tallies.count(self.partition, tenant, minute_of, fate as u8);
    }

    fn sender_of_headers(&self, message: &Message) -> Sender {
        let names = &self.contract.sender_headers;
        let mut sender = Sender::default();
        if names.iter().all(Option::is_none) {
            return sender;
        }
        let Sender { tenant, release: [sdk, sdk_version, app_version] } = &mut sender;
        let mut parts = [tenant, sdk, sdk_version, app_version];
        message.headers(|name, value| {
            for (part, wanted) in parts.iter_mut().zip(names) {
                if wanted.as_deref().is_some_and(|wanted| wanted.as_bytes() == name) {
                    part.clear();
                    part.extend_from_slice(value.unwrap_or_default());
                }
            }
        });
        sender
    }

    fn with_system_columns(&self, batch: RecordBatch, judged: &Judged<'_>) -> Result<RecordBatch, ArrowError> {
        let rows = batch.num_rows();
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(UInt16Array::from_value(self.partition.topic.0, rows)),
            Arc::new(Int32Array::from_value(self.partition.number, rows)),
            Arc::new(Int64Array::from_iter_values(judged.rows.iter().map(|message| message.offset()))),
            Arc::new(Int64Array::from_iter_values(judged.rows.iter().map(|message| message.timestamp_ms()))),
            Arc::new(UInt32Array::from_value(judged.schema_id, rows)),
            Arc::new(Int64Array::from_iter_values(judged.times.iter().map(|time| time.0))),
        ];
        columns.extend_from_slice(batch.columns());
        RecordBatch::try_new(Arc::clone(&self.contract.events), columns)
    }
}

/// The records of a run that didn't decode and aren't refused yet.
struct Undecoded<'a> {
    messages: &'a [Message],
    left: &'a [RefusedRecord],
    schema_id: u32,
}

impl Undecoded<'_> {
    /// Refuses those that stand before the run's record `before`.
    fn refuse_before(&mut self, run: &Run<'_>, before: u32, watermark: EventTime, sheets: &mut Sheets) {
        while let Some((refused, left)) = self.left.split_first().filter(|(refused, _)| refused.record < before) {
            self.left = left;
            let Some(message) = self.messages.get(refused.record as usize) else { continue };
            let is_sensitive = rules::is_sensitive(&run.contract.sensitive, &refused.field);
            let masked = format!("field `{}`: {}, its value masked", refused.field, refused.fault.replace('_', " "));
            let detail = if is_sensitive { &masked } else { &refused.detail };
            let cause = Cause { field: &refused.field, fault: refused.fault, ..Cause::default() };
            run.refuse_for(message, Some(self.schema_id), (refused.reason, detail), &cause, watermark, sheets);
        }
    }
}

/// The decoded rows of a run and what was read of each.
pub(super) struct Judged<'a> {
    rows: &'a [&'a Message],
    /// Which of the run's records each row was.
    records: &'a [u32],
    times: &'a [EventTime],
    senders: &'a Senders,
    schema_id: u32,
}

/// Who sent each row of a batch.
pub(super) struct Senders {
    tenant: Option<ArrayRef>,
    release: [Option<ArrayRef>; 3],
}

impl Senders {
    fn of(batch: &RecordBatch, contract: &Contract) -> Senders {
        let column = |index: Option<usize>| index.map(|index| Arc::clone(batch.column(index)));
        Senders { tenant: column(contract.tenant), release: contract.release.map(column) }
    }

    fn tenant(&self, row: usize) -> &[u8] {
        text(self.tenant.as_ref(), row)
    }

    fn of_row(&self, row: usize) -> Sender {
        Sender {
            tenant: self.tenant(row).to_vec(),
            release: [0, 1, 2].map(|part: usize| text(self.release[part].as_ref(), row).to_vec()),
        }
    }
}

/// A text column's value; '' where it is null or there is no such column.
fn text(column: Option<&ArrayRef>, row: usize) -> &[u8] {
    match column.and_then(|column| column.as_binary_opt::<i32>()) {
        Some(values) if values.is_valid(row) => values.value(row),
        _ => &[],
    }
}

/// The event times in microseconds, and which are known.
pub(crate) fn event_times(column: &ArrayRef) -> Result<(Vec<EventTime>, Option<NullBuffer>), ArrowError> {
    use arrow_array::types::{
        TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    };
    let times = match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => {
            scaled(column.as_primitive::<TimestampSecondType>().values(), |at| at.saturating_mul(1_000_000))
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            scaled(column.as_primitive::<TimestampMillisecondType>().values(), |at| at.saturating_mul(1_000))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            scaled(column.as_primitive::<TimestampMicrosecondType>().values(), |at| at)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            scaled(column.as_primitive::<TimestampNanosecondType>().values(), |at| at.div_euclid(1_000))
        }
        other => return Err(ArrowError::SchemaError(format!("the event time is a {other}, not a timestamp"))),
    };
    Ok((times, column.nulls().cloned()))
}

fn scaled(values: &[i64], scale: impl Fn(i64) -> i64) -> Vec<EventTime> {
    values.iter().map(|&at| EventTime(scale(at))).collect()
}
