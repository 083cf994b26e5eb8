//! Acknowledging an alert: a record on the control topic, which senders read, and a row of `weir_acknowledgements`, which
//! the readers' view `weir_alerts` joins.
//!
//! The record comes first. If the row can't be written, the command says so and may be given again: both have the
//! fingerprint as their key.
//!
//! Not here: changing the alert itself. What a pipeline writes depends on its log alone, and people aren't in it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use weir_schemas::tables;
use weir_schemas::time::Epoch;
use weir_sinks::clickhouse::{Client, TableEncoder, TableSink};
use weir_sinks::kafka::acknowledgement::{self, Acknowledgement};
use weir_sinks::kafka::{Cleanup, create_topic};
use weir_sinks::{Deliver, Delivery, Encode};

use super::register;
use crate::config::Pipeline;
use crate::connect;
use crate::error::Error;

/// How long the brokers may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Writes `acknowledgement` where senders and readers find it.
///
/// # Errors
/// When the registry, the broker or ClickHouse can't be used.
pub async fn acknowledge(pipeline: &Pipeline, client: &Client, acknowledgement: &Acknowledgement) -> Result<(), Error> {
    let topic = pipeline.control_topic();
    create_topic(&connect::kafka(pipeline), &topic, Cleanup::Compact).await.map_err(weir_sinks::Error::from)?;
    let id = register(pipeline, &connect::registry(pipeline)?, &topic, acknowledgement::SCHEMA).await?;
    let value = acknowledgement.encode(id).map_err(|error| Error::Stopped(error.to_string()))?;
    produce(pipeline, &topic, &acknowledgement.fingerprint, &value)?;

    let table = tables::acknowledgements();
    let (changes, version) = acknowledgement.row()?;
    let mut rows = Vec::new();
    TableEncoder::new(table.clone()).encode(&changes, version, &mut rows)?;
    let delivery = Delivery { epoch: Epoch(0), rows: &rows };
    TableSink::new(client.clone(), &table).deliver(delivery).await.map_err(|error| Error::Unreachable {
        part: format!("ClickHouse at {}", pipeline.clickhouse.url),
        detail: format!("senders know of the acknowledgement, {} does not: {error}", tables::ACKNOWLEDGEMENTS),
        remedy: "give the command again".to_owned(),
    })
}

/// What became of the one message.
#[derive(Clone, Default)]
struct Fate(Arc<Mutex<Option<Result<(), KafkaError>>>>);

impl ClientContext for Fate {}

impl ProducerContext for Fate {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let result = result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    }
}

fn produce(pipeline: &Pipeline, topic: &str, key: &str, value: &[u8]) -> Result<(), Error> {
    let failed = |error: &KafkaError| Error::Unreachable {
        part: format!("kafka at {}", pipeline.kafka.brokers),
        detail: format!("topic {topic}: {error}"),
        remedy: "check [kafka], that the broker is up, and that this user may write to the topic".to_owned(),
    };
    let fate = Fate::default();
    let mut config = connect::kafka(pipeline);
    // As Java's clients place keys.
    config.set("acks", "all").set("enable.idempotence", "true").set("partitioner", "murmur2_random");
    config.set("message.timeout.ms", ANSWER_WITHIN.as_millis().to_string());
    let producer: BaseProducer<Fate> = config.create_with_context(fate.clone()).map_err(|error| failed(&error))?;
    producer.send(BaseRecord::to(topic).key(key).payload(value)).map_err(|(error, _)| failed(&error))?;
    producer.flush(ANSWER_WITHIN).map_err(|error| failed(&error))?;
    let result = fate.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    match result {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(failed(&error)),
        None => Err(failed(&KafkaError::Canceled)),
    }
}
