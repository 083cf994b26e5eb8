//! The program as a user runs it, on real Kafka, registry and ClickHouse engine; and the house's own rules.

#![allow(clippy::unwrap_used, reason = "a test or benchmark ends where it can't go on")]

mod evaluable;
mod program;
mod refusals;
mod retail;
mod schema;
mod shop;
mod tidy;
mod topics;
