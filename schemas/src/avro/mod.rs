//! Avro: schemas, what columns they become, whether one reads the other, and decoding straight to Arrow.
//!
//! - [`Schema`] is a parsed schema; [`can_read`] compares two.
//! - [`ReaderSchema`] holds the columns that a reader schema's events have; the table of types stands in
//!   [its module](reader).
//! - [`Decoder`] reads the records of one writer schema into those columns.
//! - [`Encoder`] writes values with a registered schema, for those who produce.
//!
//! A generic value tree is used for encoding only, never on the way in.

mod buffers;
mod codes;
mod compile;
mod decode;
mod defaults;
mod encode;
mod parse;
pub mod reader;
mod resolve;
mod schema;
mod tell;
mod wire;

pub use decode::{
    BATCH_BYTES_MAX, BatchTooLarge, DEPTH_MAX, Decoded, Decoder, EMPTY_ITEMS_MAX, RECORD_BYTES_MAX, RefusedRecord,
};
pub use encode::{EncodeError, Encoder, Writer};
pub use reader::{FieldRules, ReaderSchema};
pub use resolve::{Incompatibility, can_read};
pub use schema::{Kind, Logical, Node, NodeId, Problem, Problems, RecordField, Schema, TypeName};

/// The property of a field that holds rules: a list of objects with the keys that a rule has in the pipeline file. What they
/// mean is said there; here they are data, and no part of what bytes mean.
pub const RULES: &str = "weir.rules";

impl Schema {
    /// Parses a schema's JSON.
    ///
    /// # Errors
    /// Every problem, each with its path.
    pub fn parse(text: &str) -> Result<Schema, Problems> {
        parse::parse(text, &[])
    }

    /// Parses a schema that uses types which `referenced` define, as a registry's references do; a referenced schema
    /// may use the types of those before it.
    ///
    /// # Errors
    /// Every problem, each with its path.
    pub fn parse_with(text: &str, referenced: &[String]) -> Result<Schema, Problems> {
        parse::parse(text, referenced)
    }
}
