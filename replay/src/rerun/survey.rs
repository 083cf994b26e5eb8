//! Looking before reading: which stretches of the log hold what a replay is for, and what is missing of them.
//!
//! The live pipeline wrote down, for each epoch and partition, the span of the event times that were in time
//! (`weir_epochs`). Every event in time that belongs to the range lies in an epoch whose span meets it; so a partition's
//! stretch goes from the first such epoch to the last. It begins earlier by the horizon of deduplication, since a copy whose
//! time differs counts as one only if the first is seen. Its first epoch says, too, what the partition's watermark was before
//! it: so what was too late is too late again.
//!
//! Where the live pipeline knows nothing of a partition's beginning (its epochs have expired, or there was no pipeline),
//! the stretch begins where the log's own timestamps say, earlier by how far a clock may be ahead.
//!
//! The log is the cluster's topics, the pipeline's archive, or both (`archived`).
//!
//! Not here: what the records say; they are read when the replay runs.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use weir_pipeline::config::{Pipeline, Source};
use weir_pipeline::error::Error;
use weir_pipeline::slice::{Slice, Stretch};
use weir_pipeline::source::log::Log;
use weir_schemas::registry::{Lookup, SchemaSource};
use weir_schemas::tables;
use weir_schemas::time::EventTime;
use weir_sinks::DeliveryError;
use weir_sinks::clickhouse::{Client, literal};

use super::range::Range;

/// What a replay would read.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The stretches that the log still has.
    pub slice: Slice,
    /// What it has forgotten of them, or doesn't have whole.
    pub forgotten: Vec<Stretch>,
    /// Partitions of whose beginning the live pipeline knows nothing: all that may hold something is read.
    pub by_log_time: Vec<(String, i32)>,
    /// The writer schemas that were seen in the stretches, each with what the registry says against it.
    pub schemas: BTreeMap<u32, Option<String>>,
}

/// What is asked, and of whom.
pub struct Surveyor<'a> {
    /// The live pipeline.
    pub live: &'a Pipeline,
    /// Its ClickHouse.
    pub client: &'a Client,
    /// The log that would be read.
    pub log: &'a dyn Log,
    /// Where schemas would come from.
    pub schemas: &'a dyn SchemaSource,
}

/// Why there is no survey.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// ClickHouse said no, or nothing.
    #[error("clickhouse: {0}")]
    ClickHouse(#[from] DeliveryError),
    /// Something else failed.
    #[error(transparent)]
    Other(#[from] Error),
}

/// What the live pipeline knows of a partition.
#[derive(Clone, Debug, Default)]
struct Known {
    first: i64,
    next: i64,
    /// The first offset that any epoch is known for.
    begins: i64,
    /// The partition's watermark before the first offset.
    watermark: Option<EventTime>,
    schema_ids: Vec<u32>,
}

/// A partition of the log.
struct Part<'a> {
    log: &'a dyn Log,
    topic: &'a str,
    partition: i32,
    low: i64,
    high: i64,
}

impl Surveyor<'_> {
    /// Finds what `range` needs of the topics of `sources`.
    ///
    /// # Errors
    /// When a part can't be asked.
    pub async fn survey(&self, sources: &BTreeSet<&str>, range: Range) -> Result<Survey, SurveyError> {
        let slice = Slice { from: range.from, to: range.to, stretches: Vec::new() };
        let mut survey = Survey { slice, forgotten: Vec::new(), by_log_time: Vec::new(), schemas: BTreeMap::new() };
        let is_known = self.client.has_table(tables::EPOCHS).await?;
        for (name, source) in self.live.sources.iter().filter(|(name, _)| sources.contains(name.as_str())) {
            let known = if is_known { self.known(name, source, range).await? } else { BTreeMap::new() };
            for topic in self.log.topics(&source.all_topics())? {
                for &partition in &topic.partitions {
                    let (low, high) = self.log.extent(&topic.name, partition)?;
                    let log = Part { log: self.log, topic: &topic.name, partition, low, high };
                    survey.add(&log, known.get(&(topic.name.clone(), partition)), source, range)?;
                }
            }
        }
        let ids: Vec<u32> = std::mem::take(&mut survey.schemas).into_keys().collect();
        self.resolve(&mut survey, ids.into_iter()).await;
        Ok(survey)
    }

    /// Asks for those of `ids` that `survey` doesn't know yet.
    pub async fn resolve(&self, survey: &mut Survey, ids: impl Iterator<Item = u32>) {
        for id in ids {
            if survey.schemas.contains_key(&id) {
                continue;
            }
            let said = match self.schemas.look_up(id).await {
                Lookup::Found(_) => None,
                Lookup::Unknown => Some("nobody knows it".to_owned()),
                Lookup::Unusable(why) | Lookup::Unavailable(why) | Lookup::Refused(why) => Some(why),
            };
            survey.schemas.insert(id, said);
        }
    }

    /// What `weir_epochs` says of a source's partitions. One that has no epoch in the range, but some epoch, has an empty stretch.
    async fn known(
        &self,
        name: &str,
        source: &Source,
        range: Range,
    ) -> Result<BTreeMap<(String, i32), Known>, DeliveryError> {
        #[derive(Deserialize)]
        struct Row {
            topic: String,
            partition: i32,
            first: Option<String>,
            next: Option<String>,
            begins: String,
            watermark: Option<String>,
            schema_ids: Vec<u32>,
        }
        let horizon = i64::try_from(source.dedup_horizon_ms).unwrap_or(i64::MAX).saturating_mul(1_000);
        // What ClickHouse's type can't hold, no epoch's span does.
        let from = EventTime(range.from.0.saturating_sub(horizon)).storable().0;
        let meets = format!(
            "greatest_event_time >= fromUnixTimestamp64Micro({from}, 'UTC') \
             AND least_event_time < fromUnixTimestamp64Micro({}, 'UTC')",
            range.to.storable().0
        );
        let sql = format!(
            "SELECT topic, partition, toString(minIfOrNull(first_offset, {meets})) AS first, \
             toString(maxIfOrNull(next_offset, {meets})) AS next, toString(min(first_offset)) AS begins, \
             toString(toUnixTimestamp64Micro(argMinIf(tuple(watermark), first_offset, {meets}).1)) AS watermark, \
             arraySort(groupUniqArrayArrayIf(schema_ids, {meets})) AS schema_ids \
             FROM {} WHERE source = {} GROUP BY topic, partition",
            self.client.qualified(tables::EPOCHS),
            literal(name)
        );
        let number = |text: &str| text.parse::<i64>().unwrap_or_default();
        let rows = self.client.select::<Row>(&sql).await?;
        let known = rows.into_iter().map(|row| {
            let begins = number(&row.begins);
            let (first, next) = match (&row.first, &row.next) {
                (Some(first), Some(next)) => (number(first), number(next)),
                _ => (begins, begins),
            };
            let watermark = row.watermark.and_then(|at| at.parse().ok()).map(EventTime);
            ((row.topic, row.partition), Known { first, next, begins, watermark, schema_ids: row.schema_ids })
        });
        Ok(known.collect())
    }
}

impl Survey {
    fn add(&mut self, log: &Part<'_>, known: Option<&Known>, source: &Source, range: Range) -> Result<(), Error> {
        let (topic, partition) = (log.topic.to_owned(), log.partition);
        let is_retry = source.retry_topic.as_deref() == Some(log.topic);
        let mut watermark = None;
        let (first, next) = match known {
            Some(known) => {
                self.schemas.extend(known.schema_ids.iter().map(|id| (*id, None)));
                // An epoch before the first known one may hold something of the range, too.
                let is_open = known.first == known.begins && known.begins > log.low;
                if is_open && !is_retry {
                    self.by_log_time.push((topic.clone(), partition));
                    (log.at(source, range.from)?.min(known.first), known.next)
                } else {
                    watermark = known.watermark;
                    (known.first, known.next)
                }
            }
            // What was retried is known to the pipeline that took it, or to nobody.
            None if is_retry => return Ok(()),
            None => {
                self.by_log_time.push((topic.clone(), partition));
                (log.at(source, range.from)?, log.high)
            }
        };
        if first < log.low && next > first {
            let next = next.min(log.low);
            self.forgotten.push(Stretch { topic: topic.clone(), partition, first, next, watermark });
        }
        let (first, next) = (first.max(log.low), next.min(log.high));
        for (first, next) in log.log.missing(log.topic, partition, first, next)? {
            self.forgotten.push(Stretch { topic: topic.clone(), partition, first, next, watermark });
        }
        if next > first {
            self.slice.stretches.push(Stretch { topic, partition, first, next, watermark });
        }
        Ok(())
    }
}

impl Part<'_> {
    /// The first offset that may hold an event of `time`: a record is no older than its event, but for how far a clock may
    /// be ahead.
    fn at(&self, source: &Source, time: EventTime) -> Result<i64, Error> {
        let ahead_ms = i64::try_from(source.future_limit_ms.max(source.dedup_horizon_ms)).unwrap_or(i64::MAX);
        let at_ms = time.0.div_euclid(1_000).saturating_sub(ahead_ms).max(0);
        Ok(self.log.offset_at(self.topic, self.partition, at_ms)?.unwrap_or(self.high))
    }
}
