//! Steps of alerts as Avro messages in Confluent's frame, keyed by fingerprint.
//!
//! The schema is [`SCHEMA`], whose own doc says how it may evolve; its fields are the columns of
//! [`alerts_history`](tables::alerts_history) in their order, which a test holds together. A message's identity is
//! `fingerprint/window start/revision`, both numbers padded with zeros and the time counted from the earliest that there
//! is, so that identities of one alert sort as its steps: an alert that opens anew begins at revision 1 again.

use arrow_array::types::{Float64Type, TimestampMicrosecondType, UInt32Type, UInt64Type};
use arrow_array::{Array, BinaryArray, ListArray, PrimitiveArray, RecordBatch};
use weir_schemas::rows::Changes;
use weir_schemas::tables;
use weir_schemas::time::Version;

use super::message::Blocks;
use crate::error::Error;
use crate::sink::{Encode, OutRow};

/// The Avro schema of the messages, to be registered as the subject of the topic's values.
pub const SCHEMA: &str = include_str!("alert.avsc");

/// Columns of the natural key in [`tables::alerts_history`].
const WINDOW_START: usize = 0;
const FINGERPRINT: usize = 1;
const REVISION: usize = 2;

/// Encodes rows of `weir_alerts_history` for the alert topic.
#[derive(Clone, Debug)]
pub struct AlertEncoder {
    schema_id: u32,
}

impl AlertEncoder {
    /// An encoder whose messages name `schema_id`, the id under which the registry knows [`SCHEMA`].
    pub fn new(schema_id: u32) -> AlertEncoder {
        AlertEncoder { schema_id }
    }
}

impl Encode for AlertEncoder {
    fn encode(&self, changes: &Changes, version: Version, out: &mut Vec<OutRow>) -> Result<(), Error> {
        let fields = fields(&changes.rows)?;
        let (Some(Field::Micros(starts)), Some(Field::Text(fingerprints)), Some(Field::Long32(revisions))) =
            (fields.get(WINDOW_START), fields.get(FINGERPRINT), fields.get(REVISION))
        else {
            return Err(wrong("the first three columns are not the natural key".to_owned()));
        };
        let mut blocks = Blocks::new(version, out);
        let mut value = Vec::new();
        for row in 0..changes.rows.num_rows() {
            value.clear();
            value.push(0);
            value.extend_from_slice(&self.schema_id.to_be_bytes());
            fields.iter().for_each(|field| field.write(row, &mut value));
            let fingerprint = fingerprints.value(row);
            let mut identity = fingerprint.to_vec();
            let since_earliest = starts.value(row).cast_unsigned() ^ (1 << 63);
            identity.extend_from_slice(format!("/{since_earliest:020}/{:010}", revisions.value(row)).as_bytes());
            blocks.push(&identity, Some(fingerprint), Some(&value), &[]);
        }
        blocks.finish();
        Ok(())
    }

    fn newest_only(&self) -> bool {
        false
    }
}

/// A column, resolved to how Avro writes it.
enum Field<'a> {
    Micros(&'a PrimitiveArray<TimestampMicrosecondType>),
    Long32(&'a PrimitiveArray<UInt32Type>),
    Long64(&'a PrimitiveArray<UInt64Type>),
    Double(&'a PrimitiveArray<Float64Type>),
    Text(&'a BinaryArray),
    Texts(&'a ListArray, &'a BinaryArray),
    /// A union of null and the type, in this order.
    Nullable(&'a dyn Array, Box<Field<'a>>),
}

fn fields(rows: &RecordBatch) -> Result<Vec<Field<'_>>, Error> {
    let declared = tables::alerts_history().columns;
    if declared.len() != rows.num_columns() {
        return Err(wrong(format!("{} columns came where {} are declared", rows.num_columns(), declared.len())));
    }
    declared
        .iter()
        .zip(rows.columns())
        .map(|(column, array)| {
            let field = plain(array.as_ref())
                .filter(|_| *array.data_type() == column.column_type.arrow())
                .ok_or_else(|| wrong(format!("column {} came as {}", column.name, array.data_type())))?;
            match (column.column_type.is_nullable(), array.null_count()) {
                (true, _) => Ok(Field::Nullable(array.as_ref(), Box::new(field))),
                (false, 0) => Ok(field),
                (false, _) => Err(wrong(format!("column {} came with nulls", column.name))),
            }
        })
        .collect()
}

fn plain(array: &dyn Array) -> Option<Field<'_>> {
    let any = array.as_any();
    let field = any.downcast_ref().map(Field::Micros);
    let field = field.or_else(|| any.downcast_ref().map(Field::Long32));
    let field = field.or_else(|| any.downcast_ref().map(Field::Long64));
    let field = field.or_else(|| any.downcast_ref().map(Field::Double));
    let field = field.or_else(|| any.downcast_ref().map(Field::Text));
    field.or_else(|| {
        let list: &ListArray = any.downcast_ref()?;
        Some(Field::Texts(list, list.values().as_any().downcast_ref()?))
    })
}

fn wrong(detail: String) -> Error {
    Error::Columns { table: tables::ALERTS_HISTORY.to_owned(), detail }
}

impl Field<'_> {
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Field::Micros(values) => write_long(values.value(row), out),
            Field::Long32(values) => write_long(i64::from(values.value(row)), out),
            Field::Long64(values) => write_long(i64::try_from(values.value(row)).unwrap_or(i64::MAX), out),
            Field::Double(values) => out.extend_from_slice(&values.value(row).to_le_bytes()),
            Field::Text(values) => write_text(values.value(row), out),
            Field::Texts(list, texts) => {
                // One block of all items, if there are any, then the empty block that ends an array.
                let (start, end) = (list.value_offsets()[row] as usize, list.value_offsets()[row + 1] as usize);
                if end > start {
                    write_long((end - start) as i64, out);
                    (start..end).for_each(|at| write_text(texts.value(at), out));
                }
                write_long(0, out);
            }
            Field::Nullable(array, _) if array.is_null(row) => write_long(0, out),
            Field::Nullable(_, field) => {
                write_long(1, out);
                field.write(row, out);
            }
        }
    }
}

/// Avro's strings are UTF-8, while a detail may quote bytes that are not.
fn write_text(bytes: &[u8], out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(bytes);
    write_long(text.len() as i64, out);
    out.extend_from_slice(text.as_bytes());
}

/// A zigzag number in groups of seven bits, as Avro writes `long`.
fn write_long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use apache_avro::types::Value;
    use arrow_array::builder::{BinaryBuilder, ListBuilder};
    use arrow_array::{ArrayRef, Float64Array, TimestampMicrosecondArray, UInt32Array, UInt64Array};
    use weir_schemas::types::{ColumnType, Width};

    use super::super::message::messages;
    use super::*;

    /// Two rows whose values are made from the column's number.
    fn rows() -> RecordBatch {
        let columns = tables::alerts_history().columns;
        let arrays = columns.iter().enumerate().map(|(at, column)| -> (&str, ArrayRef) {
            let array: ArrayRef = match &column.column_type {
                ColumnType::DateTime64(..) => Arc::new(TimestampMicrosecondArray::from(vec![-(at as i64), i64::MAX])),
                ColumnType::UInt(Width::W32) => Arc::new(UInt32Array::from(vec![1, 200])),
                ColumnType::UInt(_) => Arc::new(UInt64Array::from(vec![at as u64, u64::MAX])),
                ColumnType::Nullable(of) if **of == ColumnType::Float64 => {
                    Arc::new(Float64Array::from(vec![Some(0.5), None]))
                }
                ColumnType::Nullable(_) => Arc::new(UInt64Array::from(vec![Some(7), None])),
                ColumnType::Float64 => Arc::new(Float64Array::from(vec![0.25, 1.0])),
                ColumnType::Array(_) => {
                    let mut list = ListBuilder::new(BinaryBuilder::new()).with_field(ColumnType::String.field("item"));
                    list.values().append_value("t/0@1");
                    list.values().append_value("t/1@2");
                    list.append(true);
                    list.append(true);
                    Arc::new(list.finish())
                }
                _ => Arc::new(BinaryArray::from_vec(vec![column.name.as_bytes(), b"\xff\xfe"])),
            };
            (column.name.as_str(), array)
        });
        RecordBatch::try_from_iter(arrays.collect::<Vec<_>>()).expect("columns of one length")
    }

    #[test]
    fn the_schema_has_the_tables_columns_in_their_order() {
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).expect("JSON");
        let fields = schema["fields"].as_array().expect("fields");
        let names: Vec<_> = fields.iter().map(|field| field["name"].as_str().unwrap_or_default().to_owned()).collect();
        let columns = tables::alerts_history().columns;
        assert_eq!(names, columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>());
        let docs: Vec<_> = fields.iter().map(|field| field["doc"].as_str().unwrap_or_default()).collect();
        assert_eq!(docs, columns.iter().map(|column| column.comment.as_str()).collect::<Vec<_>>());
        // Only a field with a default may be added to what has been written, and may leave one day.
        let without = fields.iter().filter(|field| field.get("default").is_none());
        assert_eq!(
            without.map(|field| &field["name"]).collect::<Vec<_>>(),
            ["window_start", "fingerprint", "revision"]
        );
    }

    #[test]
    fn messages_are_read_back_by_an_avro_library() {
        let mut out = Vec::new();
        let changes = Changes { table: Arc::from(tables::ALERTS_HISTORY), rows: rows(), deleted: None };
        AlertEncoder::new(0x0102_0304).encode(&changes, Version(7), &mut out).expect("fits");
        let messages = messages(&out).expect("own bytes");
        assert_eq!(messages.len(), 2);
        let message =
            messages.iter().find(|message| message.identity.starts_with(b"fingerprint")).expect("the first row");
        assert_eq!(message.identity, b"fingerprint/09223372036854775808/0000000001");
        assert_eq!(message.key.as_deref(), Some(b"fingerprint".as_slice()));

        let schema = apache_avro::Schema::parse_str(SCHEMA).expect("a schema");
        let reader = apache_avro::reader::datum::GenericDatumReader::builder(&schema).build().expect("a reader");
        let read = |message: &super::super::message::Message| {
            let value = message.value.as_deref().expect("a value");
            assert_eq!(&value[..5], [0, 1, 2, 3, 4]);
            let mut datum = &value[5..];
            let value = reader.read_value(&mut datum).expect("one datum");
            assert!(datum.is_empty());
            match value {
                Value::Record(fields) => fields,
                other => panic!("{other:?} is no record"),
            }
        };
        let first = read(message);
        let field = |name: &str| first.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone());
        assert_eq!(field("window_end"), Some(Value::TimestampMicros(-3)));
        assert_eq!(field("revision"), Some(Value::Long(1)));
        assert_eq!(field("status"), Some(Value::String("status".to_owned())));
        let at = tables::alerts_history().columns.iter().position(|column| column.name == "records");
        assert_eq!(field("records"), at.map(|at| Value::Long(at as i64)));
        assert_eq!(field("affected_share"), Some(Value::Double(0.25)));
        assert_eq!(field("affected_users"), Some(Value::Union(1, Box::new(Value::Long(7)))));
        assert_eq!(field("expected"), Some(Value::Union(1, Box::new(Value::Double(0.5)))));
        let places = ["t/0@1", "t/1@2"].map(|place| Value::String(place.to_owned()));
        assert_eq!(field("examples"), Some(Value::Array(places.to_vec())));

        let second = messages.iter().find(|other| *other != message).map(read).expect("the second row");
        assert!(second.contains(&("detail".to_owned(), Value::String("\u{fffd}\u{fffd}".to_owned()))));
        assert!(second.contains(&("opened_at".to_owned(), Value::TimestampMicros(i64::MAX))));
        assert!(second.contains(&("examples".to_owned(), Value::Array(vec![]))));
        assert!(second.contains(&("expected".to_owned(), Value::Union(0, Box::new(Value::Null)))));
    }

    #[test]
    fn other_columns_are_an_error() {
        let rows = rows().project(&[0, 1, 2]).expect("three columns");
        let changes = Changes { table: Arc::from(tables::ALERTS_HISTORY), rows, deleted: None };
        let error = AlertEncoder::new(1).encode(&changes, Version(1), &mut Vec::new()).expect_err("does not fit");
        assert!(error.to_string().contains("3 columns came where 42 are declared"), "{error}");
    }
}
