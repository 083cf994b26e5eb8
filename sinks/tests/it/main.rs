//! Sinks against the real ClickHouse engine and a real Kafka node.

mod closing;
mod evolving;
mod parts;
mod rollups;
mod row_binary;
mod sample;
mod speed;
mod tables;
mod topics;
