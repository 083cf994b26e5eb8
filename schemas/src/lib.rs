//! What bytes mean: the words that every other Weir crate shares.
//!
//! Avro contracts and their decoding, the schema registry, the types of columns, the stage types that
//! travel on the edges of the dataflow, places, times, reasons and metric names.
//!
//! This crate uses no other Weir crate. It takes a thing only if two rooms above it, or somebody outside
//! Weir, have to read it the same way. Its one piece of network code is the registry client.

pub mod avro;
pub mod fate;
pub mod frame;
pub mod headers;
pub mod metric;
pub mod place;
pub mod profile;
pub mod registry;
pub mod retry;
pub mod rows;
pub mod rule;
pub mod stage;
pub mod tables;
pub mod time;
pub mod types;
