//! An archive as a log, for replays: records that a topic has forgotten, or all of them, with the schemas that were kept beside
//! them.
//!
//! A partition is the archive's as far as that goes, and the topic's from there on; without a topic the archive's alone. So
//! what is read of a topic is the youngest that it has: a replay may take longer than the rest is kept. The topic's reader is
//! made when the archive's part of a partition has ended, which is where the archive ends by then if the topic has forgotten
//! what lies behind it.
//!
//! A thread for each partition reads ahead, a few batches at most, so that whoever asks never waits.
//!
//! Invariants: an offset comes from one of both, never from both; a gap of the archive is passed over as offsets without a
//! record, which the survey told before; the end of the archive's part is said, and a thread that is gone without saying it is
//! a failure.
//!
//! Not here: writing the archive, and what is replayed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SendError, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

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

/// The shortest and the longest wait before a store that is away is asked again.
const BACKOFF: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// The archive of a pipeline, and the topics behind it where those are wanted.
pub struct ArchiveLog {
    archive: Archive,
    catalog: Arc<Catalog>,
    /// Where a partition goes on; absent, it ends with the archive.
    topics: Option<Arc<dyn Log>>,
}

impl ArchiveLog {
    /// What is in the archive now; with `topics` everything from where it ends is theirs.
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
        let Some(log) = self.catalog.log(topic, partition) else { return Ok(0) };
        let Some(topics) = &self.topics else { return Ok(log.next) };
        let (low, _) = topics.extent(topic, partition)?;
        // What the archive has let go of is the topic's, if that still has it.
        let has_all = log.next >= low && log.missing(low, log.next).is_empty();
        Ok(if has_all { log.next } else { low.min(log.next) })
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

    fn missing(&self, topic: &str, partition: i32, first: i64, next: i64) -> Result<Vec<(i64, i64)>, Error> {
        let Some(log) = self.catalog.log(topic, partition) else { return Ok(Vec::new()) };
        Ok(log.missing(first, next.min(self.bound(topic, partition)?)))
    }

    fn read(&self, source: &str, assigned: &[Assigned], queue_bytes: u64) -> Result<Box<dyn Fetch>, Error> {
        let mut parts = Vec::with_capacity(assigned.len());
        // Partitions of which nothing is the archive's share a reader from the beginning.
        let mut direct = Vec::new();
        for of in assigned {
            let bound = self.bound(&of.topic, of.partition)?;
            let from = if of.offset < bound {
                Feed::Archive(self.read_ahead(of, bound, queue_bytes)?)
            } else if self.topics.is_some() {
                direct.push(of.clone());
                Feed::Topic { reader: 0, index: direct.len() - 1 }
            } else {
                Feed::Nowhere
            };
            parts.push(Part { topic: of.topic.clone(), partition: of.partition, from, bound });
        }
        let mut readers = Vec::new();
        if let Some(topics) = self.topics.as_ref().filter(|_| !direct.is_empty()) {
            readers.push(topics.read(source, &direct, queue_bytes)?);
        }
        let (source, topics) = (source.to_owned(), self.topics.clone());
        Ok(Box::new(ArchiveFetch { parts, readers, topics, source, queue_bytes }))
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
enum Sent {
    /// Records, in their order.
    Records(Vec<Arc<Record>>),
    /// Nothing can be read, for now or for good.
    Trouble(Trouble),
    /// The archive's part has ended: the first offset that isn't its.
    End(i64),
}

impl ArchiveLog {
    fn read_ahead(&self, of: &Assigned, bound: i64, queue_bytes: u64) -> Result<Receiver<Sent>, Error> {
        let (send, batches) = sync_channel(BATCHES);
        let ahead = Ahead {
            archive: self.archive.clone(),
            topics: self.topics.clone(),
            topic: of.topic.clone(),
            partition: of.partition,
            bytes: (queue_bytes / BATCHES as u64).clamp(1, BATCH_BYTES),
            send,
        };
        let (first, catalog) = (of.offset, self.catalog.clone());
        // Whoever reads has left where a message isn't taken: there is nothing to do then.
        let read = move || ahead.run(&catalog, Selection { first, next: bound }).unwrap_or_default();
        std::thread::Builder::new()
            .name("archive-read".to_owned())
            .spawn(read)
            .map_err(|error| Error::Worker { detail: format!("a thread that reads the archive: {error}") })?;
        Ok(batches)
    }
}

/// A partition's thread.
struct Ahead {
    archive: Archive,
    topics: Option<Arc<dyn Log>>,
    topic: String,
    partition: i32,
    /// Bytes of a batch.
    bytes: u64,
    send: SyncSender<Sent>,
}

impl Ahead {
    /// Sends everything of `selection`, and what has to be the archive's by then, until nobody wants more.
    fn run(&self, catalog: &Catalog, selection: Selection) -> Result<(), SendError<Sent>> {
        let order = self.archive.in_order(catalog, &self.topic, self.partition, selection);
        if !self.send_all(order)? {
            return Ok(());
        }
        let mut bound = selection.next;
        while let Some((next, order)) = self.behind(bound) {
            if !self.send_all(order)? {
                return Ok(());
            }
            bound = next;
        }
        self.send.send(Sent::End(bound))
    }

    /// What the topic has forgotten behind `bound` while the archive was read; the archive may have it now.
    fn behind(&self, bound: i64) -> Option<(i64, Order)> {
        let (low, _) = self.topics.as_ref()?.extent(&self.topic, self.partition).ok()?;
        if low <= bound {
            return None;
        }
        let catalog = self.archive.catalog().ok()?;
        let log = catalog.log(&self.topic, self.partition).filter(|log| log.next > bound)?;
        if !log.missing(bound, log.next).is_empty() {
            return None;
        }
        let selection = Selection { first: bound, next: log.next };
        Some((log.next, self.archive.in_order(&catalog, &self.topic, self.partition, selection)))
    }

    /// Sends all of `order` in batches; false after what doesn't pass.
    fn send_all(&self, mut order: Order) -> Result<bool, SendError<Sent>> {
        let mut backoff = BACKOFF;
        loop {
            let (mut batch, mut size) = (Vec::new(), 0);
            let end = loop {
                match order.next_record() {
                    Ok(Some(record)) => {
                        size += record.borrowed().bytes();
                        batch.push(Arc::new(shared(record)));
                    }
                    Ok(None) => break Some(Ok(())),
                    Err(error) => break Some(Err(error)),
                }
                if size >= self.bytes || batch.len() >= BATCH_RECORDS {
                    break None;
                }
            };
            if !batch.is_empty() {
                backoff = BACKOFF;
                self.send.send(Sent::Records(batch))?;
            }
            match end {
                None => {}
                Some(Ok(())) => return Ok(true),
                Some(Err(error)) => {
                    let passes = error.may_retry();
                    let kind = if passes { Kind::Passing } else { Kind::Damaged };
                    self.send.send(Sent::Trouble(Trouble { kind, detail: error.to_string() }))?;
                    if !passes {
                        return Ok(false);
                    }
                    std::thread::sleep(backoff);
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
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

/// Where a partition's records come from now.
enum Feed {
    /// The archive, by its thread.
    Archive(Receiver<Sent>),
    /// The topic, by one of its readers: which one, and the partition's index there.
    Topic { reader: usize, index: usize },
    /// Everything has come.
    Nowhere,
}

struct Part {
    topic: String,
    partition: i32,
    from: Feed,
    /// The first offset that isn't the archive's.
    bound: i64,
}

/// Reads the archive's part of each partition, then the topic's.
struct ArchiveFetch {
    parts: Vec<Part>,
    readers: Vec<Box<dyn Fetch>>,
    topics: Option<Arc<dyn Log>>,
    /// What a reader is made with.
    source: String,
    queue_bytes: u64,
}

impl Part {
    /// Goes on with the topic behind the archive, or ends.
    fn leave(
        &mut self,
        topics: Option<&dyn Log>,
        source: &str,
        queue_bytes: u64,
        readers: &mut Vec<Box<dyn Fetch>>,
    ) -> Fetched {
        self.from = Feed::Nowhere;
        let Some(topics) = topics else { return Fetched { end_offset: Some(self.bound), ..Fetched::default() } };
        let assigned = Assigned { topic: self.topic.clone(), partition: self.partition, offset: self.bound };
        match topics.read(source, &[assigned], queue_bytes) {
            Ok(reader) => {
                readers.push(reader);
                self.from = Feed::Topic { reader: readers.len() - 1, index: 0 };
                Fetched::default()
            }
            Err(error) => {
                let trouble = Trouble { kind: Kind::Unreadable, detail: error.to_string() };
                Fetched { trouble: Some(trouble), ..Fetched::default() }
            }
        }
    }
}

impl Fetch for ArchiveFetch {
    fn fetch(&mut self, index: usize) -> Fetched {
        let Some(part) = self.parts.get_mut(index) else { return Fetched::default() };
        let batches = match &part.from {
            Feed::Archive(batches) => batches,
            Feed::Topic { reader, index } => {
                return self.readers.get_mut(*reader).map(|reader| reader.fetch(*index)).unwrap_or_default();
            }
            Feed::Nowhere => return Fetched { end_offset: Some(part.bound), ..Fetched::default() },
        };
        match batches.try_recv() {
            Ok(Sent::Records(records)) => {
                Fetched { messages: records.into_iter().map(Message::of).collect(), ..Fetched::default() }
            }
            Ok(Sent::Trouble(trouble)) => Fetched { trouble: Some(trouble), ..Fetched::default() },
            Ok(Sent::End(bound)) => {
                part.bound = bound;
                part.leave(self.topics.as_deref(), &self.source, self.queue_bytes, &mut self.readers)
            }
            Err(TryRecvError::Empty) => Fetched::default(),
            Err(TryRecvError::Disconnected) => {
                let detail = "the thread that reads the archive is gone, which is a bug".to_owned();
                Fetched { trouble: Some(Trouble { kind: Kind::Damaged, detail }), ..Fetched::default() }
            }
        }
    }

    fn end_offset(&self, topic: &str, partition: i32) -> Option<i64> {
        let part = self.parts.iter().find(|of| of.topic == topic && of.partition == partition)?;
        match &part.from {
            Feed::Topic { reader, .. } => self.readers.get(*reader)?.end_offset(topic, partition),
            Feed::Archive(_) | Feed::Nowhere => self.topics.is_none().then_some(part.bound),
        }
    }

    fn serve(&mut self) -> Option<String> {
        self.readers.iter_mut().filter_map(|reader| reader.serve()).last()
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

#[cfg(test)]
mod tests;
