//! The wiring: configuration, SQL planning, the Kafka source, epochs, commit, recovery, HTTP.

pub mod bind;
pub mod clock;
pub mod commit;
pub mod config;
pub mod connect;
mod count;
pub mod crash;
pub mod custom;
pub mod dataflow;
pub mod deliver;
pub mod engine;
pub mod epochs;
pub mod error;
pub mod feed;
pub mod gather;
pub mod http;
pub mod metrics;
pub mod outbox;
pub mod problem;
pub mod progress;
pub mod readers;
pub mod recovery;
pub mod run;
pub mod shares;
pub mod source;
pub mod sql;
pub mod status;
