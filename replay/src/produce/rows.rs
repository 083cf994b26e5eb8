//! What an input gives: one row after another, each an Avro value with its time, key and release.

use apache_avro::types::Value;

use super::ProduceError;

/// The release that a row's sender ran, sent along as Kafka headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The tenant.
    pub tenant: String,
    /// The SDK's name.
    pub sdk: String,
    /// Its version.
    pub sdk_version: String,
    /// The app's version.
    pub app_version: String,
}

/// One row of the input.
#[derive(Debug)]
pub struct Row {
    /// The record, of the input's schema.
    pub value: Value,
    /// Its event time in milliseconds.
    pub time_ms: Option<i64>,
    /// Its Kafka key.
    pub key: Option<Vec<u8>>,
    /// Its sender, if it tells it in headers.
    pub release: Option<Release>,
    /// Sent with bytes that don't decode.
    pub is_spoiled: bool,
}

/// An input.
pub trait Rows {
    /// The schema of its rows, as JSON.
    fn schema(&self) -> &str;

    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// A row that doesn't fit the schema, with its place, or the input can't be read.
    fn next_row(&mut self) -> Result<Option<Row>, ProduceError>;

    /// How far it is, from 0 to 1, if that is known.
    fn share_done(&self) -> Option<f64>;
}

/// The text that a value has as a key.
pub(super) fn key_of(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Union(_, value) => key_of(value),
        Value::String(text) | Value::Enum(_, text) => Some(text.clone().into_bytes()),
        Value::Int(number) => Some(number.to_string().into_bytes()),
        Value::Long(number) | Value::TimestampMillis(number) | Value::TimestampMicros(number) => {
            Some(number.to_string().into_bytes())
        }
        Value::Bytes(bytes) => Some(bytes.clone()),
        _ => None,
    }
}

/// A timestamp value in milliseconds.
pub(super) fn time_of(value: &Value) -> Option<i64> {
    match value {
        Value::Union(_, value) => time_of(value),
        Value::TimestampMillis(time) | Value::LocalTimestampMillis(time) => Some(*time),
        Value::TimestampMicros(time) | Value::LocalTimestampMicros(time) => Some(time.div_euclid(1000)),
        _ => None,
    }
}
