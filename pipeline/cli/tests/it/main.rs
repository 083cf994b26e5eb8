//! The program as a user runs it, on real Kafka, registry and ClickHouse engine; and the house's own rules.

mod program;
mod refusals;
mod retail;
mod shop;
mod tidy;
