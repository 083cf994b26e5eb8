//! How results leave: rows into ClickHouse, alerts and refused records into Kafka topics.
//!
//! A sink has two halves. An [`Encode`] turns [`Changes`](weir_schemas::rows::Changes) into [`OutRow`]s, purely, before
//! the epoch's commit; the outbox keeps those bytes durably. A [`Deliver`] sends them after the commit, and may be told
//! the same rows twice: each row has a natural key that makes the second time harmless.
//!
//! Invariants: nothing here decides *whether* a row leaves, an encoder only how its bytes look; no row is
//! delivered that was not committed before; whether a failed delivery is tried again is decided by
//! [`DeliveryError`] alone.
//!
//! Not here: the outbox, its order and its bounds (the pipeline's), and what the rows mean (the operators').

pub mod clickhouse;
pub mod error;
pub mod kafka;
pub mod notify;
mod row_binary;
pub mod sink;

pub use error::{DeliveryError, Error};
pub use sink::{BoxFuture, Deliver, Delivery, Encode, OutRow};
