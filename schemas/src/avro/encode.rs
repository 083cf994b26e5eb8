//! Writing: a value of `apache_avro`'s tree with a registered schema into a Confluent frame.
//!
//! For those who produce few records or invent them (alerts, `weir produce`); the way in never builds such a tree.

use apache_avro::schema::ResolvedSchema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;

use crate::frame::put_frame;

/// A registered schema to write with.
#[derive(Debug)]
pub struct Encoder {
    schema_id: u32,
    schema: apache_avro::Schema,
    referenced: Vec<apache_avro::Schema>,
}

/// Why a value couldn't be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The schema is one that `apache_avro` doesn't take.
    #[error("the schema can't be used for writing: {0}")]
    Schema(#[source] Box<apache_avro::Error>),
    /// The value isn't one of the schema's.
    #[error("the value doesn't fit the schema: {0}")]
    Value(#[source] Box<apache_avro::Error>),
}

impl Encoder {
    /// An encoder for the schema that the registry calls `schema_id`, with the texts of the schemas that it refers to.
    ///
    /// # Errors
    /// [`EncodeError::Schema`] when `apache_avro` can't parse it.
    pub fn new(schema_id: u32, text: &str, referenced: &[String]) -> Result<Encoder, EncodeError> {
        let (schema, referenced) = apache_avro::Schema::parse_str_with_list(text, referenced)
            .map_err(|error| EncodeError::Schema(Box::new(error)))?;
        Ok(Encoder { schema_id, schema, referenced })
    }

    /// The schema as `apache_avro` sees it, for building values.
    pub fn schema(&self) -> &apache_avro::Schema {
        &self.schema
    }

    /// Prepares writing; names are looked up once here rather than for each value.
    ///
    /// # Errors
    /// [`EncodeError::Schema`] when a name can't be resolved.
    pub fn writer(&self) -> Result<Writer<'_>, EncodeError> {
        // A name has to stand before it is used.
        let all: Vec<&apache_avro::Schema> = self.referenced.iter().chain(std::iter::once(&self.schema)).collect();
        let writer = ResolvedSchema::new_with_schemata(all)
            .and_then(|names| GenericDatumWriter::builder(&self.schema).resolved_schemata(names).build())
            .map_err(|error| EncodeError::Schema(Box::new(error)))?;
        Ok(Writer { schema_id: self.schema_id, writer })
    }
}

/// Writes values of one schema.
pub struct Writer<'a> {
    schema_id: u32,
    writer: GenericDatumWriter<'a>,
}

impl Writer<'_> {
    /// Appends the frame of `value` to `into`, which is left as it was when the value doesn't fit.
    ///
    /// # Errors
    /// [`EncodeError::Value`] when the value isn't one of the schema's.
    pub fn write(&self, value: &Value, into: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = into.len();
        put_frame(self.schema_id, into);
        match self.writer.write_value_ref(into, value) {
            Ok(_) => Ok(()),
            Err(error) => {
                into.truncate(start);
                Err(EncodeError::Value(Box::new(error)))
            }
        }
    }
}
