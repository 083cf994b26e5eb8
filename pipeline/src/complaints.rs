//! Why a Kafka client can't use its brokers, as librdkafka logs it: a call that fails says no more than that there was no
//! answer, while a wrong password or certificate stands in a log line.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;

/// Log lines that are looked through for a reason; a client that fails logs one for each attempt.
const LINES_AT_MOST: usize = 256;

/// Keeps the newest failure of a connection that librdkafka logged.
#[derive(Debug, Default)]
pub struct Complaints(Mutex<Option<String>>);

impl ClientContext for Complaints {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "librdkafka");
        if facility == "FAIL" {
            // In front stands the client's thread.
            let message = message.split_once("]: ").map_or(message, |(_, rest)| rest);
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(message.to_owned());
        }
    }
}

impl ConsumerContext for Complaints {}

/// What `error` means: the newest complaint of the consumer's connections, or else the error itself.
pub fn why(consumer: &BaseConsumer<Complaints>, error: &KafkaError) -> String {
    for _ in 0..LINES_AT_MOST {
        // A consumer that reads nothing has nothing but events in its queue.
        let _ = consumer.poll(Duration::ZERO);
    }
    let newest = rdkafka::consumer::Consumer::context(consumer).0.lock().unwrap_or_else(PoisonError::into_inner).take();
    newest.map_or_else(|| error.to_string(), |complaint| format!("{error}: {complaint}"))
}
