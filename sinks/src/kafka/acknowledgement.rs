//! Acknowledgements: records of the control topic, and rows of `weir_acknowledgements`.
//!
//! Both say the same, and both may be written again: the key is the fingerprint, and the newest counts.

use std::sync::Arc;

use apache_avro::types::Value;
use arrow_array::{ArrayRef, BinaryArray, RecordBatch, TimestampMicrosecondArray};
use serde::{Deserialize, Serialize};
use weir_schemas::avro::{EncodeError, Encoder};
use weir_schemas::rows::Changes;
use weir_schemas::tables;
use weir_schemas::time::Version;

use super::read::micros;
use crate::error::Error;

/// The Avro schema of the control topic's values.
pub const SCHEMA: &str = include_str!("acknowledgement.avsc");

/// Somebody has taken an alert on. Times are microseconds since 1970; in JSON they are texts of RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// The alert's.
    pub fingerprint: String,
    /// The opening that it holds for.
    #[serde(serialize_with = "micros::serialize")]
    pub opened_at: i64,
    /// When.
    #[serde(serialize_with = "micros::serialize")]
    pub acknowledged_at: i64,
    /// Who.
    pub acknowledged_by: String,
    /// What they said.
    pub note: String,
    /// Windows that end later are told again.
    #[serde(serialize_with = "micros::serialize_some")]
    pub until: Option<i64>,
}

impl Acknowledgement {
    /// Whether it holds for a step of the alert that opened at `opened_at`, made by a window that ends at `window_end`.
    pub fn holds(&self, opened_at: i64, window_end: i64) -> bool {
        self.opened_at == opened_at && self.until.is_none_or(|until| window_end <= until)
    }

    /// The control record's value, framed with the id under which the registry knows [`SCHEMA`].
    ///
    /// # Errors
    /// None that a caller could cause: the schema is ours.
    pub fn encode(&self, schema_id: u32) -> Result<Vec<u8>, EncodeError> {
        let encoder = Encoder::new(schema_id, SCHEMA, &[])?;
        let text = |text: &str| Value::String(text.to_owned());
        let until = match self.until {
            Some(until) => Value::Union(1, Box::new(Value::TimestampMicros(until))),
            None => Value::Union(0, Box::new(Value::Null)),
        };
        let fields = [
            ("fingerprint", text(&self.fingerprint)),
            ("opened_at", Value::TimestampMicros(self.opened_at)),
            ("acknowledged_at", Value::TimestampMicros(self.acknowledged_at)),
            ("acknowledged_by", text(&self.acknowledged_by)),
            ("note", text(&self.note)),
            ("until", until),
        ];
        let mut bytes = Vec::new();
        let record = Value::Record(fields.map(|(name, value)| (name.to_owned(), value)).to_vec());
        encoder.writer()?.write(&record, &mut bytes)?;
        Ok(bytes)
    }

    /// The row of `weir_acknowledgements`, and its version: of two rows of an alert the later one counts.
    ///
    /// # Errors
    /// None that a caller could cause: the columns are ours.
    pub fn row(&self) -> Result<(Changes, Version), Error> {
        let text = |text: &str| -> ArrayRef { Arc::new(BinaryArray::from_vec(vec![text.as_bytes()])) };
        let time = |at: Option<i64>| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(vec![at])) };
        let columns = vec![
            text(&self.fingerprint),
            time(Some(self.opened_at)),
            time(Some(self.acknowledged_at)),
            text(&self.acknowledged_by),
            text(&self.note),
            time(self.until),
        ];
        let table = tables::acknowledgements();
        let names = table.columns.iter().map(|column| (&column.name, column.column_type.is_nullable()));
        let named = names.zip(columns).map(|((name, is_nullable), column)| (name, column, is_nullable));
        let rows = RecordBatch::try_from_iter_with_nullable(named)
            .map_err(|error| Error::Columns { table: table.name.to_string(), detail: error.to_string() })?;
        let version = Version(u64::try_from(self.acknowledged_at).unwrap_or_default());
        Ok((Changes { table: table.name, rows, deleted: None }, version))
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::Reader;
    use super::*;

    #[test]
    fn an_acknowledgement_comes_back_from_its_record_and_holds_for_one_opening() {
        let mut acknowledgement = Acknowledgement {
            fingerprint: "f00d".to_owned(),
            opened_at: 60_000_000,
            acknowledged_at: 61_000_000,
            acknowledged_by: "ada".to_owned(),
            note: "it's the proxy".to_owned(),
            until: None,
        };
        for until in [None, Some(90_000_000)] {
            acknowledgement.until = until;
            let bytes = acknowledgement.encode(7).expect("our own schema");
            let reader: Reader<Acknowledgement> = Reader::new(SCHEMA).expect("our own schema");
            assert_eq!(reader.read(&bytes, SCHEMA).expect("our own bytes"), acknowledgement);
            assert_eq!(acknowledgement.row().expect("our own columns").0.rows.num_rows(), 1);
        }
        assert!(acknowledgement.holds(60_000_000, 90_000_000));
        assert!(!acknowledgement.holds(60_000_000, 90_000_001), "it ended");
        assert!(!acknowledgement.holds(70_000_000, 80_000_000), "the alert opened anew");
    }
}
