//! Kafka topics as destinations: alerts, and refused records with their original bytes.
//!
//! Encoders turn rows into messages; one [`TopicSink`] per topic sends them, each exactly once as `read_committed`
//! consumers see it.

pub mod alert;
mod classify;
mod message;
pub mod quarantine;
mod tail;
mod topic;

pub use alert::AlertEncoder;
pub use quarantine::QuarantineEncoder;
pub use topic::{TopicSettings, TopicSink};
