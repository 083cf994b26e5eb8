//! One partition of a worker's share: where it is, what of it waits, and what people are told of it.

use std::collections::VecDeque;

use weir_schemas::frame::frame;
use weir_schemas::time::EventTime;

use super::judge::{Bounds, PartitionClock};
use super::log::{Fetch, Fetched};
use super::message::Message;
use super::resolve::Patience;
use super::stream::Resume;
use super::trouble::Trouble;
use super::{PartitionPosition, PartitionStatus};
use crate::error::Error;
use crate::lineage::Consumed;

/// For how long an error that passes is shown, and keeps its partition from being taken for idle: the client doesn't
/// say when it has got over it.
const TROUBLE_MS: i64 = 30_000;

/// A partition that is being read.
pub(super) struct PartitionState {
    pub(super) resume: Resume,
    pub(super) next_offset: i64,
    pub(super) clock: PartitionClock,
    /// Fetched and not yet consumed.
    pub(super) waiting: VecDeque<Message>,
    /// The end of the log behind what was fetched, where the client has reached it.
    end_offset: Option<i64>,
    pub(super) was_idle: bool,
    pub(super) parked: Option<String>,
    pub(super) aligned: bool,
    /// Whether it is the retry topic's: it says nothing of time.
    pub(super) is_retry: bool,
    /// What was consumed since it was last taken.
    pub(super) consumed: Option<Consumed>,
    pub(super) patience: Patience,
    /// An error that passes, and until when it is remembered.
    trouble: Option<(String, i64)>,
    /// Whether its broker doesn't answer, so that nothing is known of its end.
    is_silent: bool,
}

impl PartitionState {
    pub(super) fn resume(is_retry: bool, resume: Resume, now_ms: i64) -> PartitionState {
        // No watermark holds anybody back less than the greatest.
        let watermark = if is_retry { EventTime::MAX } else { resume.watermark };
        PartitionState {
            next_offset: resume.offset,
            clock: PartitionClock::resume(watermark, now_ms),
            waiting: VecDeque::new(),
            end_offset: None,
            was_idle: false,
            parked: None,
            aligned: false,
            is_retry,
            consumed: None,
            patience: Patience::default(),
            trouble: None,
            is_silent: false,
            resume,
        }
    }

    /// Takes what was fetched.
    ///
    /// # Errors
    /// When the partition can't be read any more.
    pub(super) fn take(&mut self, fetched: Fetched, now_ms: i64) -> Result<(), Error> {
        if self.trouble.as_ref().is_some_and(|(_, until)| now_ms >= *until || !fetched.messages.is_empty()) {
            self.trouble = None;
        }
        if let Some(trouble) = fetched.trouble {
            if let Some(error) = trouble.error(&self.resume, self.next_offset) {
                return Err(error);
            }
            let Trouble { detail, .. } = trouble;
            tracing::debug!(topic = self.resume.topic, partition = self.resume.partition.number, detail, "kafka");
            self.trouble = Some((detail, now_ms.saturating_add(TROUBLE_MS)));
        }
        self.is_silent = fetched.is_silent;
        if !fetched.messages.is_empty() && !self.is_retry {
            self.clock.active(now_ms);
        }
        self.end_offset = fetched.end_offset.or(self.end_offset.filter(|_| fetched.messages.is_empty()));
        self.waiting.extend(fetched.messages);
        Ok(())
    }

    /// Notes that nothing waits any more, if that is so and it is known where the log ends.
    pub(super) fn note_end(&mut self, now_ms: i64) {
        if let Some(end) = self.end_offset.filter(|_| self.waiting.is_empty()) {
            // Control records of transactions have offsets but are no messages: the end stands behind them.
            self.next_offset = self.next_offset.max(end);
            if self.trouble.is_none() && !self.is_silent {
                self.clock.found_empty(now_ms);
            }
        }
    }

    /// The record to be consumed next. One that lies behind the end which `--until-end` recorded isn't, though it was
    /// fetched.
    pub(super) fn front(&mut self) -> Option<&Message> {
        if let (Some(end), Some(first)) = (self.resume.end, self.waiting.front())
            && first.offset() >= end
        {
            self.next_offset = self.next_offset.max(end);
            return None;
        }
        self.waiting.front()
    }

    /// Takes the records in front that have the schema id `id` and lie before `until`: within `budget` bytes, but at least
    /// one.
    pub(super) fn take_run(&mut self, id: Option<u32>, budget: u64, until: i64) -> Vec<Message> {
        let end = self.resume.end.unwrap_or(i64::MAX).min(until);
        let (mut bytes, mut count) = (0, 0);
        for message in &self.waiting {
            let own = message.value().and_then(|value| frame(value).ok()).map(|frame| frame.schema_id);
            if own != id || message.offset() >= end || (count > 0 && bytes >= budget) {
                break;
            }
            bytes += message.size();
            count += 1;
        }
        self.waiting.drain(..count).collect()
    }

    /// Where it stands in event time, for keeping partitions in step: its watermark, or, where it has said nothing yet, what
    /// the timestamp of its first waiting record allows. `None` where nothing is known.
    pub(super) fn pace(&self, bounds: &Bounds) -> Option<EventTime> {
        let own = self.clock.watermark();
        if own > EventTime::MIN {
            return Some(own);
        }
        let recorded_ms = self.waiting.front()?.timestamp_ms();
        (recorded_ms >= 0).then(|| EventTime::from_ms(recorded_ms).minus(bounds.disorder))
    }

    /// Whether others should keep in step with it: not with one that is idle, nor with one that a run has read to its end.
    pub(super) fn sets_pace(&self, bounds: &Bounds) -> bool {
        !self.is_retry && !self.clock.is_idle(bounds) && !self.is_at_end()
    }

    /// Whether it was read to the end that `--until-end` recorded.
    pub(super) fn is_at_end(&self) -> bool {
        self.resume.end.is_some_and(|end| self.next_offset >= end)
    }

    pub(super) fn position(&self) -> PartitionPosition {
        PartitionPosition {
            topic: self.resume.topic.clone(),
            partition: self.resume.partition.number,
            next_offset: self.next_offset,
            watermark: self.clock.watermark(),
        }
    }

    pub(super) fn status(&self, fetcher: &dyn Fetch) -> PartitionStatus {
        let (state, detail) = match (&self.parked, &self.trouble) {
            (Some(why), _) => ("parked", why.clone()),
            _ if self.is_at_end() => ("done", String::new()),
            (_, Some((why, _))) => ("waiting", format!("kafka: {why}")),
            _ if self.is_silent => ("waiting", "kafka: its broker doesn't answer".to_owned()),
            _ if self.was_idle => ("idle", String::new()),
            _ if self.aligned => ("waiting", "too far ahead of the watermark".to_owned()),
            _ => ("reading", String::new()),
        };
        let end = fetcher.end_offset(&self.resume.topic, self.resume.partition.number);
        PartitionStatus {
            topic: self.resume.topic.clone(),
            partition: self.resume.partition.number,
            next_offset: self.next_offset,
            end_offset: end.unwrap_or(self.next_offset).max(self.next_offset),
            watermark: self.clock.watermark(),
            state: state.to_owned(),
            detail,
        }
    }
}
