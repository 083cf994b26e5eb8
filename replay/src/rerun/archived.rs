//! An archive as a log, for replays: records that a topic has forgotten, or all of them, with the schemas that were kept beside
//! them.
//!
//! A partition is the archive's up to where the topic begins, and the topic's from there on; without a topic the archive's
//! alone. A thread for each partition reads ahead, a few batches at most, so that whoever asks never waits.
//!
//! Invariants: an offset comes from one of both, never from both; a gap of the archive is passed over as offsets without a
//! record, which the survey told before.
//!
//! Not here: writing the archive, and what is replayed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Instant;

use bytes::Bytes;
use weir_archive::{Archive, Catalog, Kept, Order, Selection};
use weir_pipeline::error::Error;
use weir_pipeline::source::Attend;
use weir_pipeline::source::describe::Topic;
use weir_pipeline::source::log::{Assigned, Attending, Fetch, Fetched, Log, LookUp};
use weir_pipeline::source::message::{Message, Record};
use weir_pipeline::source::trouble::{Kind, Trouble};
use weir_schemas::avro::Schema;
use weir_schemas::headers;
use weir_schemas::registry::{Lookup, ParsedSchema, Registry, SchemaSource};

/// Batches that are read ahead of each partition.
const BATCHES: usize = 4;

/// Bytes and records of a batch, at most.
const BATCH_BYTES: u64 = 1 << 20;
const BATCH_RECORDS: usize = 2_000;

/// The archive of a pipeline, and the topics behind it where those are wanted.
pub struct ArchiveLog {
    archive: Archive,
    catalog: Arc<Catalog>,
    /// Where a partition goes on; absent, it ends with the archive.
    topics: Option<Arc<dyn Log>>,
}

impl ArchiveLog {
    /// What is in the archive now; with `topics` everything from where they begin is theirs.
    ///
    /// # Errors
    /// When the archive can't be read.
    pub fn open(archive: Archive, topics: Option<Arc<dyn Log>>) -> Result<ArchiveLog, Error> {
        let catalog = Arc::new(archive.catalog()?);
        Ok(ArchiveLog { archive, catalog, topics })
    }

    /// The first offset of a partition that the archive still has, and the one behind its last.
    fn archived(&self, topic: &str, partition: i32) -> (i64, i64) {
        let Some(log) = self.catalog.log(topic, partition) else { return (0, 0) };
        let first = match log.expired_records {
            0 => log.first,
            _ => self.catalog.of_partition(topic, partition).first().map_or(log.next, |entry| entry.first_offset),
        };
        (first, log.next)
    }

    /// Up to where a partition's records are the archive's.
    fn bound(&self, topic: &str, partition: i32) -> Result<i64, Error> {
        let (_, next) = self.archived(topic, partition);
        match &self.topics {
            Some(topics) => Ok(topics.extent(topic, partition)?.0.min(next)),
            None => Ok(next),
        }
    }
}

impl Log for ArchiveLog {
    fn topics(&self, names: &[String]) -> Result<Vec<Topic>, Error> {
        if let Some(topics) = &self.topics {
            return topics.topics(names);
        }
        let of = |name: &String| {
            let logs = self.catalog.topics.get(name);
            let partitions: Vec<i32> = logs.into_iter().flat_map(|logs| logs.keys().copied()).collect();
            // One of which nothing was ever archived, as a topic of retries may be, is as good as empty.
            let partitions = if partitions.is_empty() { vec![0] } else { partitions };
            let id = logs.and_then(|logs| logs.values().find_map(|log| log.topic_id.clone()));
            Topic { name: name.clone(), id, partitions }
        };
        Ok(names.iter().map(of).collect())
    }

    fn extent(&self, topic: &str, partition: i32) -> Result<(i64, i64), Error> {
        let (first, next) = self.archived(topic, partition);
        let Some(topics) = &self.topics else { return Ok((first, next)) };
        let (low, high) = topics.extent(topic, partition)?;
        // Where the archive lags behind what the topic has forgotten, only the topic counts.
        let low = if next >= low && first < next { first.min(low) } else { low };
        Ok((low, high))
    }

    /// An object that holds such a record is taken from its first record on: earlier, and never too late.
    fn offset_at(&self, topic: &str, partition: i32, at_ms: i64) -> Result<Option<i64>, Error> {
        let bound = self.bound(topic, partition)?;
        let entries = self.catalog.of_partition(topic, partition);
        let holds = |at: i64| at >= at_ms;
        let found = entries
            .iter()
            .filter(|entry| entry.first_offset < bound && entry.greatest_timestamp_ms.is_none_or(holds))
            .map(|entry| entry.first_offset)
            .min();
        match (found, &self.topics) {
            (None, Some(topics)) => topics.offset_at(topic, partition, at_ms),
            (found, _) => Ok(found),
        }
    }

    fn read(&self, source: &str, assigned: &[Assigned], queue_bytes: u64) -> Result<Box<dyn Fetch>, Error> {
        let mut parts = Vec::with_capacity(assigned.len());
        let mut later = Vec::with_capacity(assigned.len());
        for of in assigned {
            let bound = self.bound(&of.topic, of.partition)?;
            let selection = Selection { first: of.offset, next: bound };
            let batches = match of.offset < bound {
                true => Some(self.read_ahead(&of.topic, of.partition, selection, queue_bytes)?),
                false => None,
            };
            later.push(Assigned { offset: of.offset.max(bound), ..of.clone() });
            parts.push(Part { topic: of.topic.clone(), partition: of.partition, batches, bound });
        }
        let topics = self.topics.as_ref().map(|topics| topics.read(source, &later, queue_bytes)).transpose()?;
        Ok(Box::new(ArchiveFetch { parts, topics }))
    }

    fn lookups(&self) -> Box<dyn LookUp> {
        Box::new(ArchiveLookUp {
            archive: self.archive.clone(),
            catalog: self.catalog.clone(),
            at: None,
            topics: self.topics.as_ref().map(|topics| topics.lookups()),
        })
    }

    fn attend(&self, _: Attending) -> Result<Option<Box<dyn Attend>>, Error> {
        Ok(None)
    }
}

/// What a partition's thread sends.
type Batch = Result<Vec<Arc<Record>>, String>;

impl ArchiveLog {
    fn read_ahead(
        &self,
        topic: &str,
        partition: i32,
        selection: Selection,
        queue_bytes: u64,
    ) -> Result<Receiver<Batch>, Error> {
        let (send, batches) = sync_channel(BATCHES);
        let order = self.archive.in_order(&self.catalog, topic, partition, selection);
        let bytes = (queue_bytes / BATCHES as u64).clamp(1, BATCH_BYTES);
        std::thread::Builder::new()
            .name("archive-read".to_owned())
            .spawn(move || read_ahead(order, bytes, &send))
            .map_err(|error| Error::Worker { detail: format!("a thread that reads the archive: {error}") })?;
        Ok(batches)
    }
}

/// Sends everything in batches, until nobody wants more.
fn read_ahead(mut order: Order, bytes: u64, send: &SyncSender<Batch>) {
    loop {
        let (mut batch, mut size) = (Vec::new(), 0);
        let end = loop {
            match order.next_record() {
                Ok(Some(record)) => {
                    size += record.borrowed().bytes();
                    batch.push(Arc::new(shared(record)));
                }
                Ok(None) => break Some(None),
                Err(error) => break Some(Some(error.to_string())),
            }
            if size >= bytes || batch.len() >= BATCH_RECORDS {
                break None;
            }
        };
        let is_wanted = batch.is_empty() || send.send(Ok(batch)).is_ok();
        match end {
            None if is_wanted => {}
            Some(Some(error)) => {
                // Whoever reads may have left: there is nobody to tell then.
                let _ = send.send(Err(error));
                return;
            }
            _ => return,
        }
    }
}

fn shared(record: Kept) -> Record {
    let headers = headers::iter(&record.headers)
        .map(|(name, value)| (Bytes::copy_from_slice(name), value.map(Bytes::copy_from_slice)))
        .collect();
    Record {
        offset: record.offset,
        timestamp_ms: record.timestamp_ms.unwrap_or(-1),
        key: record.key.map(Bytes::from),
        value: record.value.map(Bytes::from),
        headers,
    }
}

struct Part {
    topic: String,
    partition: i32,
    /// What comes from the archive; absent when all of it has come.
    batches: Option<Receiver<Batch>>,
    /// The first offset that isn't the archive's.
    bound: i64,
}

/// Reads the archive's part of each partition, then the topic's.
struct ArchiveFetch {
    parts: Vec<Part>,
    topics: Option<Box<dyn Fetch>>,
}

impl Fetch for ArchiveFetch {
    fn fetch(&mut self, index: usize) -> Fetched {
        let Some(part) = self.parts.get_mut(index) else { return Fetched::default() };
        let is_last = self.topics.is_none();
        let Some(batches) = &part.batches else {
            return match &mut self.topics {
                Some(topics) => topics.fetch(index),
                None => Fetched { end_offset: Some(part.bound), ..Fetched::default() },
            };
        };
        match batches.try_recv() {
            Ok(Ok(records)) => {
                Fetched { messages: records.into_iter().map(Message::of).collect(), ..Fetched::default() }
            }
            Ok(Err(detail)) => {
                // What can't be read now is what can't be gone on behind.
                let trouble = Trouble { kind: Kind::Unreadable, detail };
                Fetched { trouble: Some(trouble), ..Fetched::default() }
            }
            Err(TryRecvError::Empty) => Fetched::default(),
            Err(TryRecvError::Disconnected) => {
                part.batches = None;
                Fetched { end_offset: is_last.then_some(part.bound), ..Fetched::default() }
            }
        }
    }

    fn end_offset(&self, topic: &str, partition: i32) -> Option<i64> {
        match &self.topics {
            Some(topics) => topics.end_offset(topic, partition),
            None => self.parts.iter().find(|of| of.topic == topic && of.partition == partition).map(|of| of.bound),
        }
    }

    fn serve(&mut self) -> Option<String> {
        self.topics.as_mut().and_then(|topics| topics.serve())
    }
}

/// Reads single records of the archive, and of the topics behind it.
struct ArchiveLookUp {
    archive: Archive,
    catalog: Arc<Catalog>,
    /// Where it stands: what comes next of which partition.
    at: Option<(String, i32, i64, Order)>,
    topics: Option<Box<dyn LookUp>>,
}

impl LookUp for ArchiveLookUp {
    fn look_up(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        count: usize,
        until: Instant,
    ) -> Option<Vec<Arc<Record>>> {
        let next = self.catalog.log(topic, partition).map_or(0, |log| log.next);
        if offset >= next {
            return self
                .topics
                .as_mut()
                .map_or_else(|| Some(Vec::new()), |topics| topics.look_up(topic, partition, offset, count, until));
        }
        let mut order = match self.at.take() {
            Some((name, number, at, order)) if name == topic && number == partition && at == offset => order,
            _ => {
                let selection = Selection { first: offset, ..Selection::ALL };
                self.archive.in_order(&self.catalog, topic, partition, selection)
            }
        };
        let mut records = Vec::new();
        while records.len() < count && Instant::now() < until {
            match order.next_record() {
                Ok(Some(record)) => records.push(Arc::new(shared(record))),
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(topic, partition, offset, %error, "a sample could not be read");
                    return None;
                }
            }
        }
        if let Some(last) = records.last() {
            self.at = Some((topic.to_owned(), partition, last.offset + 1, order));
        }
        Some(records)
    }
}

/// The schemas of an archive; those that it hasn't are asked for at the registry, where there is one to ask.
pub struct ArchivedSchemas {
    archive: Archive,
    registry: Option<Registry>,
}

impl ArchivedSchemas {
    /// Without a registry, what the archive hasn't is unknown.
    pub fn new(archive: Archive, registry: Option<Registry>) -> ArchivedSchemas {
        ArchivedSchemas { archive, registry }
    }
}

impl SchemaSource for ArchivedSchemas {
    fn look_up(&self, id: u32) -> Pin<Box<dyn Future<Output = Lookup<ParsedSchema>> + Send + '_>> {
        Box::pin(async move {
            let archive = self.archive.clone();
            let found = tokio::task::spawn_blocking(move || archive.schema(id)).await;
            match found {
                Ok(Ok(Some(kept))) => match Schema::parse_with(&kept.schema, &kept.referenced) {
                    Ok(schema) => Lookup::Found(ParsedSchema {
                        id,
                        schema: Arc::new(schema),
                        text: kept.schema,
                        referenced: kept.referenced,
                    }),
                    Err(problems) => Lookup::Unusable(format!("schema {id}: {problems}")),
                },
                Ok(Ok(None)) => match &self.registry {
                    Some(registry) => registry.by_id(id).await,
                    None => Lookup::Unknown,
                },
                Ok(Err(error)) => Lookup::Unavailable(error.to_string()),
                Err(error) => Lookup::Unavailable(error.to_string()),
            }
        })
    }
}
