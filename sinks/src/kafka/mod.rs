//! Kafka topics as destinations: alerts, and refused records with their original bytes.
//!
//! Encoders turn rows into messages; one [`TopicSink`] per topic sends them, each exactly once as `read_committed`
//! consumers see it. What Weir itself reads back of its own topics is in [`read`].

pub mod acknowledgement;
pub mod alert;
mod classify;
mod message;
pub mod quarantine;
mod quiet;
pub mod read;
pub mod retry;
mod tail;
mod topic;

pub use alert::AlertEncoder;
pub use quarantine::QuarantineEncoder;
pub use quiet::Quiet;
pub use topic::{Cleanup, TAIL_MESSAGES, TopicSettings, TopicSink, create_topic};
