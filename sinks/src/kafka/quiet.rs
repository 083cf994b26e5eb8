//! A consumer whose caller hears of every failure from its own calls.
//!
//! librdkafka tells what happens to a client besides, the end of a partition included, when nobody polls any more; as an error
//! in the log that would worry people for nothing.

use rdkafka::client::ClientContext;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

/// Keeps what a client says of itself for those who debug.
#[derive(Debug, Default)]
pub struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
    }
}

impl ConsumerContext for Quiet {}
