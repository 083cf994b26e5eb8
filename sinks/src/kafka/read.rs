//! Reading alerts and acknowledgements back from their topics: for senders, and for people who follow them.
//!
//! A message names the schema that it was written with; whatever version that is, it is read as ours.

use std::marker::PhantomData;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::util::max_allocation_bytes;
use apache_avro::{Schema, from_value};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Bytes in front of a datum: a zero and the schema's id.
const FRAME_BYTES: usize = 5;
/// The longest message that is decoded. Ours are a few KiB.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// One step of one alert, as its topic and `weir_alerts_history` hold it: the columns of that table say what each field
/// is. Times are microseconds since 1970; in JSON they are texts of RFC 3339.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "`weir_schemas::tables::alerts_history` describes each, once")]
pub struct Alert {
    #[serde(serialize_with = "micros::serialize")]
    pub window_start: i64,
    pub fingerprint: String,
    pub revision: i64,
    #[serde(serialize_with = "micros::serialize")]
    pub window_end: i64,
    pub status: String,
    pub status_reason: String,
    pub severity: String,
    pub owner: String,
    pub routes: Vec<String>,
    pub suppressed_by: String,
    #[serde(serialize_with = "micros::serialize")]
    pub opened_at: i64,
    #[serde(serialize_with = "micros::serialize")]
    pub last_seen_at: i64,
    pub detector: String,
    pub indicator: String,
    pub cause_kind: String,
    pub cause: String,
    pub source: String,
    pub tenants: Vec<String>,
    pub tenant_count: i64,
    pub sdk: String,
    pub sdk_version: String,
    pub app_version: String,
    pub last_good_release: String,
    pub event_types: Vec<String>,
    pub fields: Vec<String>,
    pub rule: String,
    pub reason: String,
    pub detail: String,
    pub affected_records: i64,
    pub records: i64,
    pub affected_share: f64,
    pub affected_users: Option<i64>,
    pub seen: f64,
    pub expected: Option<f64>,
    pub expected_lower: Option<f64>,
    pub expected_upper: Option<f64>,
    pub statistic: String,
    pub first_place: String,
    pub last_place: String,
    pub examples: Vec<String>,
    pub samples: Vec<String>,
    pub query: String,
}

impl Alert {
    /// What a receiver tells copies of one step by: they all have the same.
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}/{}", self.fingerprint, self.opened_at, self.revision)
    }

    /// Whether this step ends the alert.
    pub fn is_resolved(&self) -> bool {
        self.status == "resolved"
    }
}

/// Why a message can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no frame, or the message is longer than any of ours.
    #[error("{0} bytes are no message of ours")]
    Frame(usize),
    /// The schema can't be used.
    #[error("the schema can't be used: {0}")]
    Schema(#[source] Box<apache_avro::Error>),
    /// The bytes aren't what the schema says, or can't be read as ours.
    #[error("the bytes don't fit the schema: {0}")]
    Datum(#[source] Box<apache_avro::Error>),
}

/// The id of the schema that a message was written with.
///
/// # Errors
/// [`ReadError::Frame`] when there is none.
pub fn schema_id(bytes: &[u8]) -> Result<u32, ReadError> {
    match bytes.split_first_chunk::<FRAME_BYTES>() {
        Some(([0, id @ ..], _)) if bytes.len() <= MESSAGE_BYTES_MAX => Ok(u32::from_be_bytes(*id)),
        _ => Err(ReadError::Frame(bytes.len())),
    }
}

/// Reads messages of any version as `T`.
#[derive(Debug)]
pub struct Reader<T> {
    schema: Schema,
    read: PhantomData<T>,
}

impl<T: DeserializeOwned> Reader<T> {
    /// A reader for the schema that `T` has the fields of.
    ///
    /// # Errors
    /// [`ReadError::Schema`] when it is no Avro schema.
    pub fn new(schema: &str) -> Result<Reader<T>, ReadError> {
        // A length that the bytes only claim must not be believed. The limit is the process's; a second call is ignored.
        max_allocation_bytes(MESSAGE_BYTES_MAX);
        let schema = Schema::parse_str(schema).map_err(|error| ReadError::Schema(Box::new(error)))?;
        Ok(Reader { schema, read: PhantomData })
    }

    /// Reads a message that was written with the schema `writer`.
    ///
    /// # Errors
    /// When the message isn't one, or doesn't fit.
    pub fn read(&self, bytes: &[u8], writer: &str) -> Result<T, ReadError> {
        schema_id(bytes)?;
        let mut datum = bytes.get(FRAME_BYTES..).unwrap_or_default();
        let writer = Schema::parse_str(writer).map_err(|error| ReadError::Schema(Box::new(error)))?;
        let wrong = |error| ReadError::Datum(Box::new(error));
        let reader = GenericDatumReader::builder(&writer).reader_schema(&self.schema).build().map_err(wrong)?;
        let value: Value = reader.read_value(&mut datum).map_err(wrong)?;
        from_value(&value).map_err(wrong)
    }
}

/// Times in JSON: RFC 3339, to the microsecond where it isn't a whole second.
pub(crate) mod micros {
    use chrono::{DateTime, SecondsFormat};
    use serde::Serializer;

    pub(crate) fn serialize<S: Serializer>(at: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        match DateTime::from_timestamp_micros(*at) {
            Some(at) => serializer.serialize_str(&at.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            None => serializer.serialize_i64(*at),
        }
    }

    pub(crate) fn serialize_some<S: Serializer>(at: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => serialize(at, serializer),
            None => serializer.serialize_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::schema_compatibility::SchemaCompatibility;

    use super::super::alert::SCHEMA;
    use super::*;

    /// A version to come: a field more, a field less.
    fn later() -> String {
        let mut schema: serde_json::Value = serde_json::from_str(SCHEMA).expect("JSON");
        let fields = schema["fields"].as_array_mut().expect("fields");
        fields.retain(|field| field["name"] != "samples");
        fields.push(serde_json::json!({"name": "ticket", "type": "string", "default": ""}));
        schema.to_string()
    }

    /// The frame of schema 1 and a datum of `schema` in which every text is the field's name.
    fn message(schema: &str) -> Vec<u8> {
        let json: serde_json::Value = serde_json::from_str(schema).expect("JSON");
        let value = |kind: &serde_json::Value, name: &str| match kind {
            serde_json::Value::String(kind) if kind == "string" => Value::String(name.to_owned()),
            serde_json::Value::String(kind) if kind == "long" => Value::Long(3),
            serde_json::Value::String(_) => Value::Double(0.5),
            serde_json::Value::Array(_) => Value::Union(0, Box::new(Value::Null)),
            kind if kind["type"] == "array" => Value::Array(vec![Value::String(name.to_owned())]),
            _ => Value::TimestampMicros(1_500_000),
        };
        let fields = json["fields"].as_array().expect("fields").iter().map(|field| {
            let name = field["name"].as_str().expect("a name");
            (name.to_owned(), value(&field["type"], name))
        });
        let encoder = weir_schemas::avro::Encoder::new(1, schema, &[]).expect("a schema");
        let mut bytes = Vec::new();
        encoder.writer().expect("a writer").write(&Value::Record(fields.collect()), &mut bytes).expect("fits");
        bytes
    }

    #[test]
    fn messages_of_another_version_are_read_both_ways() {
        let ours: Reader<Alert> = Reader::new(SCHEMA).expect("our own schema");
        let alert = ours.read(&message(&later()), &later()).expect("a later version");
        assert_eq!((alert.owner.as_str(), alert.samples.len(), alert.expected), ("owner", 0, None));
        assert_eq!((alert.routes.as_slice(), alert.window_end), (&["routes".to_owned()][..], 1_500_000));
        let json = serde_json::to_value(&alert).expect("JSON");
        assert_eq!(json["window_end"], "1970-01-01T00:00:01.500Z");

        // And a reader of the later version reads what this one writes.
        let [now, then] = [SCHEMA, &later()].map(|text| Schema::parse_str(text).expect("a schema"));
        SchemaCompatibility::mutual_read(&now, &then).expect("readers of both ages read both");
    }

    #[test]
    fn what_is_no_message_is_told() {
        let reader: Reader<Alert> = Reader::new(SCHEMA).expect("our own schema");
        for bytes in [&b""[..], b"\x01\0\0\0\x01", b"\0\0\0\0\x01\xff\xff", &vec![0; MESSAGE_BYTES_MAX + 1]] {
            assert!(reader.read(bytes, SCHEMA).is_err(), "{} bytes", bytes.len());
        }
        let whole = message(SCHEMA);
        for length in 0..whole.len() {
            assert!(reader.read(&whole[..length], SCHEMA).is_err(), "cut at {length}");
        }
    }
}
