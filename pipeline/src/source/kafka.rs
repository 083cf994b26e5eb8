//! A cluster's topics as a log: what is asked of its brokers, and the clients that are made for it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::Attend;
use super::attend::Attendant;
use super::describe::{Topic, describe};
use super::fetch::{Fetcher, consumer_config};
use super::log::{Assigned, Attending, Fetch, Log, LookUp};
use super::lookup::Seeker;
use crate::complaints::{self, Complaints};
use crate::config::Pipeline;
use crate::connect;
use crate::error::Error;

/// How long a broker may take to answer one question at start.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// The cluster that a pipeline file names.
pub struct KafkaLog {
    base: ClientConfig,
    brokers: String,
    pipeline: String,
    /// For questions; made when one is asked, and let go of when reading begins.
    questioner: Mutex<Option<BaseConsumer<Complaints>>>,
}

impl KafkaLog {
    /// The cluster of `pipeline`. Nothing is asked yet.
    pub fn new(pipeline: &Pipeline) -> KafkaLog {
        KafkaLog {
            base: connect::kafka(pipeline),
            brokers: pipeline.kafka.brokers.clone(),
            pipeline: pipeline.name.clone(),
            questioner: Mutex::default(),
        }
    }

    fn ask<T>(&self, question: impl FnOnce(&BaseConsumer<Complaints>) -> Result<T, Error>) -> Result<T, Error> {
        let mut questioner = self.questioner.lock().unwrap_or_else(PoisonError::into_inner);
        let made = match questioner.take() {
            Some(made) => made,
            None => self.base.create_with_context(Complaints::default()).map_err(|error| self.unreachable(error))?,
        };
        question(questioner.insert(made))
    }

    fn unreachable(&self, error: KafkaError) -> Error {
        unreachable_broker(&self.brokers, error)
    }

    fn group(&self, of: &str) -> String {
        format!("weir-{}-{of}", self.pipeline)
    }
}

impl Log for KafkaLog {
    fn topics(&self, names: &[String]) -> Result<Vec<Topic>, Error> {
        self.ask(|consumer| topics_of(consumer, &self.brokers, names))
    }

    fn extent(&self, topic: &str, partition: i32) -> Result<(i64, i64), Error> {
        self.ask(|consumer| {
            let answered = consumer.fetch_watermarks(topic, partition, ANSWER_WITHIN);
            answered.map_err(|error| self.unreachable(error))
        })
    }

    fn offset_at(&self, topic: &str, partition: i32, at_ms: i64) -> Result<Option<i64>, Error> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset(topic, partition, Offset::Offset(at_ms)).map_err(|error| self.unreachable(error))?;
        let answered = self.ask(|consumer| {
            consumer.offsets_for_times(asked, ANSWER_WITHIN).map_err(|error| self.unreachable(error))
        })?;
        Ok(match answered.find_partition(topic, partition).map(|found| found.offset()) {
            Some(Offset::Offset(offset)) => Some(offset),
            _ => None,
        })
    }

    fn read(&self, source: &str, assigned: &[Assigned], queue_bytes: u64) -> Result<Box<dyn Fetch>, Error> {
        drop(self.questioner.lock().unwrap_or_else(PoisonError::into_inner).take());
        let config = consumer_config(&self.base, &self.group(source), queue_bytes);
        let fetcher = Fetcher::new(&config, assigned).map_err(|error| self.unreachable(error))?;
        Ok(Box::new(fetcher))
    }

    fn lookups(&self) -> Box<dyn LookUp> {
        Box::new(Seeker::new(consumer_config(&self.base, &self.group("samples"), 0)))
    }

    fn attend(&self, asked: Attending) -> Result<Option<Box<dyn Attend>>, Error> {
        let Attending { source, topics, news, forget, admit } = asked;
        let config = consumer_config(&self.base, &self.group(&source), 0);
        let attendant = Attendant::new(&config, &source, topics, news).map_err(|error| self.unreachable(error))?;
        Ok(Some(Box::new(attendant.forgetting(forget).admitting(admit))))
    }
}

/// The topics of `names` as the cluster describes them.
///
/// # Errors
/// When the cluster can't be asked, or one of them isn't there.
pub fn topics_of(consumer: &BaseConsumer<Complaints>, brokers: &str, names: &[String]) -> Result<Vec<Topic>, Error> {
    // The first question of all: here a wrong password or certificate shows.
    let topics = describe(consumer, names, ANSWER_WITHIN)
        .map_err(|error| unreachable_broker(brokers, complaints::why(consumer, &error)))?;
    match topics.iter().find(|topic| topic.partitions.is_empty()) {
        None => Ok(topics),
        Some(missing) => Err(Error::Unreachable {
            part: format!("kafka at {brokers}"),
            detail: format!("there is no topic `{}`", missing.name),
            remedy: "make the topic, or correct `topics` in the pipeline file".to_owned(),
        }),
    }
}

/// What the cluster says of one setting of each of `topics`; nothing where it doesn't know the topic or the setting.
///
/// # Errors
/// When the cluster can't be asked.
pub fn topic_settings(
    kafka: &ClientConfig,
    brokers: &str,
    topics: &[String],
    setting: &str,
    handle: &tokio::runtime::Handle,
) -> Result<Vec<Option<String>>, Error> {
    let unreachable = |error: KafkaError| unreachable_broker(brokers, error);
    let admin: AdminClient<DefaultClientContext> = kafka.create().map_err(unreachable)?;
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(10)));
    let names: Vec<ResourceSpecifier<'_>> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let answers = handle.block_on(admin.describe_configs(&names, &options)).map_err(unreachable)?;
    let of = |answer: Result<ConfigResource, _>| answer.ok()?.get(setting)?.value.clone();
    Ok(answers.into_iter().map(of).collect())
}

/// The error for a broker that gave no answer, or a wrong one.
pub fn unreachable_broker(brokers: &str, error: impl ToString) -> Error {
    Error::Unreachable {
        part: format!("kafka at {brokers}"),
        detail: error.to_string(),
        remedy: "check `kafka.brokers` and `kafka.settings`, and that the broker is up".to_owned(),
    }
}
