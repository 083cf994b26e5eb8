//! The wiring: configuration, SQL planning, the Kafka source, epochs, commit, recovery, HTTP.

pub mod bind;
pub mod config;
pub mod connect;
pub mod error;
pub mod problem;
pub mod source;
pub mod sql;
