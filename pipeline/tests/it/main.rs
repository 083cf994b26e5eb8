//! The runtime against invented sources and destinations: real timely workers, real RocksDB, no network.
//! SQL against the ClickHouse engine, which [`engine`] starts as a child process.

#![allow(clippy::unwrap_used, reason = "a test or benchmark ends where it can't go on")]

mod crash;
mod engine;
mod invented;
mod limits;
mod outbox;
mod pages;
mod reading;
mod recovery;
mod refusals;
mod sql;
mod straight;
