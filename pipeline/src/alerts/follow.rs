//! Reading alerts and acknowledgements from their topics: for senders, and for people who follow them.
//!
//! Partitions are assigned, not shared out by a group; a group's offsets are used where a position has to be kept. Only
//! committed transactions are read.
//!
//! Not here: what is done with them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::de::DeserializeOwned;
use weir_schemas::registry::{Lookup, Registry};
use weir_sinks::kafka::Quiet;
use weir_sinks::kafka::read::{Reader, schema_id};

use crate::config::Pipeline;
use crate::error::Error;

/// How long the brokers may take for one question.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Schemas that are remembered; a topic has one for each version of Weir that wrote to it.
const SCHEMAS_MAX: usize = 64;

/// A message as it stands in the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The value; empty for a tombstone.
    pub value: Vec<u8>,
}

/// What reading brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Polled {
    /// A message.
    Record(Record),
    /// A partition has been read to its end.
    End(i32),
    /// Nothing came.
    Nothing,
}

/// Reads one topic.
pub struct Topic {
    consumer: BaseConsumer<Quiet>,
    name: String,
    brokers: String,
    partitions: Vec<i32>,
}

impl Topic {
    /// Opens a topic; `group` keeps positions. Nothing is read before [`Topic::assign`].
    ///
    /// # Errors
    /// When the brokers don't answer, or there is no such topic.
    pub fn open(pipeline: &Pipeline, mut config: ClientConfig, group: &str, name: &str) -> Result<Topic, Error> {
        let brokers = pipeline.kafka.brokers.clone();
        config.set("group.id", group).set("isolation.level", "read_committed").set("enable.partition.eof", "true");
        config.set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
        config.set("allow.auto.create.topics", "false");
        let consumer: BaseConsumer<Quiet> =
            config.create_with_context(Quiet).map_err(|error| unreachable(&brokers, name, &error))?;
        let metadata =
            consumer.fetch_metadata(Some(name), ANSWER_WITHIN).map_err(|error| unreachable(&brokers, name, &error))?;
        let partitions: Vec<i32> =
            metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id()).collect();
        if partitions.is_empty() {
            return Err(Error::Unreachable {
                part: format!("kafka at {brokers}"),
                detail: format!("there is no topic `{name}`"),
                remedy: "start the pipeline, which makes it with its first alert, or correct [alerts]".to_owned(),
            });
        }
        Ok(Topic { consumer, name: name.to_owned(), brokers, partitions })
    }

    /// The topic's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where each partition begins and ends now.
    ///
    /// # Errors
    /// When the brokers don't answer.
    pub fn bounds(&self) -> Result<BTreeMap<i32, (i64, i64)>, Error> {
        let bounds = self.partitions.iter().map(|partition| {
            let bounds = self.consumer.fetch_watermarks(&self.name, *partition, ANSWER_WITHIN);
            Ok((*partition, bounds.map_err(|error| self.failed(&error))?))
        });
        bounds.collect()
    }

    /// The positions that the group has kept.
    ///
    /// # Errors
    /// When the brokers don't answer.
    pub fn kept(&self) -> Result<BTreeMap<i32, i64>, Error> {
        let mut list = TopicPartitionList::new();
        self.partitions.iter().for_each(|partition| {
            list.add_partition(&self.name, *partition);
        });
        let kept = self.consumer.committed_offsets(list, ANSWER_WITHIN).map_err(|error| self.failed(&error))?;
        let offset = |offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
        Ok(kept.elements().iter().filter_map(|of| Some((of.partition(), offset(of.offset())?))).collect())
    }

    /// Keeps `positions`: the offsets that are read next.
    ///
    /// # Errors
    /// When the brokers don't answer.
    pub fn keep(&self, positions: &BTreeMap<i32, i64>) -> Result<(), Error> {
        if positions.is_empty() {
            return Ok(());
        }
        let list = self.list(positions)?;
        self.consumer.commit(&list, CommitMode::Sync).map_err(|error| self.failed(&error))
    }

    /// Reads on from `positions`.
    ///
    /// # Errors
    /// When the client can't be told.
    pub fn assign(&self, positions: &BTreeMap<i32, i64>) -> Result<(), Error> {
        self.consumer.assign(&self.list(positions)?).map_err(|error| self.failed(&error))
    }

    /// The next message, waiting for it `within`. What passes by itself, such as a broker that is away, is waited for.
    ///
    /// # Errors
    /// What a person has to mend.
    pub fn poll(&self, within: Duration) -> Result<Polled, Error> {
        match self.consumer.poll(within) {
            None => Ok(Polled::Nothing),
            Some(Ok(message)) => Ok(Polled::Record(Record {
                partition: message.partition(),
                offset: message.offset(),
                value: message.payload().unwrap_or_default().to_vec(),
            })),
            Some(Err(KafkaError::PartitionEOF(partition))) => Ok(Polled::End(partition)),
            Some(Err(error)) if is_passing(&error) => {
                tracing::debug!(%error, topic = self.name, "kafka client");
                Ok(Polled::Nothing)
            }
            Some(Err(error)) => Err(self.failed(&error)),
        }
    }

    /// Shows every message from `positions` to before `ends`, or to the end of the topic.
    ///
    /// # Errors
    /// As of [`Topic::poll`], and what `take` says.
    pub fn read_through(
        &self,
        positions: &BTreeMap<i32, i64>,
        ends: &BTreeMap<i32, i64>,
        mut take: impl FnMut(&Record) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let before_end = |partition: &i32, offset: i64| ends.get(partition).is_none_or(|end| offset < *end);
        let mut open: BTreeMap<i32, i64> =
            positions.iter().filter(|(partition, at)| before_end(partition, **at)).map(|(of, at)| (*of, *at)).collect();
        self.assign(&open)?;
        while !open.is_empty() {
            match self.poll(ANSWER_WITHIN)? {
                Polled::Record(record) if before_end(&record.partition, record.offset) => take(&record)?,
                Polled::Record(Record { partition, .. }) | Polled::End(partition) => {
                    open.remove(&partition);
                }
                Polled::Nothing => {}
            }
        }
        Ok(())
    }

    fn list(&self, positions: &BTreeMap<i32, i64>) -> Result<TopicPartitionList, Error> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in positions {
            list.add_partition_offset(&self.name, *partition, Offset::Offset(*offset))
                .map_err(|error| self.failed(&error))?;
        }
        Ok(list)
    }

    fn failed(&self, error: &KafkaError) -> Error {
        unreachable(&self.brokers, &self.name, error)
    }
}

fn unreachable(brokers: &str, topic: &str, error: &KafkaError) -> Error {
    Error::Unreachable {
        part: format!("kafka at {brokers}"),
        detail: format!("topic {topic}: {error}"),
        remedy: "check [kafka], that the broker is up, and that this user may read the topic".to_owned(),
    }
}

/// Errors that librdkafka reports while it goes on trying.
fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::Resolve
                | Code::OperationTimedOut
                | Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
                | Code::RequestTimedOut
        )
    )
}

/// How long an id that the registry doesn't know is taken for one that it will know: the writer has registered it before, so
/// the registry that is asked may only be behind.
pub const GRACE: Duration = Duration::from_secs(30);
/// Unknown ids of which it is remembered since when they are; with more the oldest has had its time.
const UNKNOWN_MAX: usize = 64;

/// Why a message wasn't decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undecoded {
    /// It never will be.
    Poisoned(String),
    /// The registry can't be asked now, or doesn't know the schema yet.
    NotYet(String),
}

/// Decodes messages, asking the registry for each schema once.
pub struct Decoder<T> {
    registry: Registry,
    reader: Reader<T>,
    schemas: BTreeMap<u32, String>,
    /// Ids that the registry doesn't know, since when.
    unknown: BTreeMap<u32, Instant>,
    grace: Duration,
}

impl<T: DeserializeOwned> Decoder<T> {
    /// A decoder for the schema that `T` has the fields of.
    ///
    /// # Errors
    /// When `schema` is none, which is a bug.
    pub fn new(registry: Registry, schema: &str) -> Result<Decoder<T>, Error> {
        let reader = Reader::new(schema).map_err(|error| Error::Stopped(error.to_string()))?;
        Ok(Decoder { registry, reader, schemas: BTreeMap::new(), unknown: BTreeMap::new(), grace: GRACE })
    }

    /// Gives ids that the registry doesn't know another time than [`GRACE`].
    pub fn set_grace(&mut self, grace: Duration) {
        self.grace = grace;
    }

    /// What it means that the registry doesn't know `id`.
    fn unknown(&mut self, id: u32) -> Undecoded {
        let since = *self.unknown.entry(id).or_insert_with(Instant::now);
        if since.elapsed() < self.grace {
            return Undecoded::NotYet(format!("it doesn't know schema {id} yet"));
        }
        while self.unknown.len() > UNKNOWN_MAX {
            let oldest = self.unknown.iter().min_by_key(|(_, since)| **since).map(|(id, _)| *id);
            oldest.and_then(|oldest| self.unknown.remove(&oldest));
        }
        Undecoded::Poisoned(format!("the registry has no schema {id}"))
    }

    /// Decodes a message's value.
    ///
    /// # Errors
    /// Whether it can never be decoded or the registry doesn't answer.
    pub async fn decode(&mut self, value: &[u8]) -> Result<T, Undecoded> {
        let id = schema_id(value).map_err(|error| Undecoded::Poisoned(error.to_string()))?;
        if !self.schemas.contains_key(&id) {
            let text = match self.registry.by_id(id).await {
                Lookup::Found(schema) => schema.text,
                Lookup::Unavailable(why) | Lookup::Refused(why) => return Err(Undecoded::NotYet(why)),
                Lookup::Unknown => return Err(self.unknown(id)),
                Lookup::Unusable(why) => return Err(Undecoded::Poisoned(why)),
            };
            if self.schemas.len() >= SCHEMAS_MAX {
                self.schemas.clear();
            }
            self.unknown.remove(&id);
            self.schemas.insert(id, text);
        }
        let writer = self.schemas.get(&id).map(String::as_str).unwrap_or_default();
        self.reader.read(value, writer).map_err(|error| Undecoded::Poisoned(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use weir_schemas::registry::Settings;
    use weir_sinks::kafka::alert::SCHEMA;
    use weir_sinks::kafka::read::Alert;

    use super::*;

    /// A registry that knows no schema.
    fn knows_nothing() -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let body = r#"{"error_code": 40403, "message": "Schema not found"}"#;
                let head = format!("HTTP/1.1 404 X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.read(&mut [0; 4_096]);
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        Registry::new(Settings::new(url)).expect("settings")
    }

    #[test]
    fn a_schema_that_the_registry_does_not_know_yet_is_waited_for_and_not_skipped() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let grace = Duration::from_millis(300);
        let mut decoder: Decoder<Alert> = Decoder::new(knows_nothing(), SCHEMA).expect("our own schema");
        decoder.set_grace(grace);
        let message = [0, 0, 0, 0, 9, 2];
        let began = Instant::now();
        let first = runtime.block_on(decoder.decode(&message));
        assert_eq!(first, Err(Undecoded::NotYet("it doesn't know schema 9 yet".to_owned())));
        std::thread::sleep(grace.saturating_sub(began.elapsed()) + Duration::from_millis(50));
        let then = runtime.block_on(decoder.decode(&message));
        assert_eq!(then, Err(Undecoded::Poisoned("the registry has no schema 9".to_owned())));
    }
}
