//! Refused records as messages: the original key, value and headers, and why they were refused.
//!
//! Behind the record's own headers stand Weir's, all as text: [`HEADERS`]. Where a record came back from a quarantine topic and
//! was refused again, the last header of a name is the newest. A message's identity is the record's place.

use std::fmt::Display;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType, UInt32Type};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, RecordBatch};
use weir_schemas::headers;
use weir_schemas::place::Place;
use weir_schemas::rows::Changes;
use weir_schemas::tables;
use weir_schemas::time::Version;

use super::message::Blocks;
use crate::error::Error;
use crate::sink::{Encode, OutRow};

/// The headers that Weir adds, in their order; the schema id and the event time only where they are known, those behind
/// them only where they aren't empty (the broken rules separated by commas). Times are milliseconds
/// (`weir_kafka_time`) and microseconds (`weir_event_time`) since 1970. Two more, `weir_id` and `weir_version`, let a
/// restarted sender see what it has sent.
pub const HEADERS: [&str; 16] = [
    "weir_reason",
    "weir_detail",
    "weir_topic",
    "weir_partition",
    "weir_offset",
    "weir_kafka_time",
    "weir_schema_id",
    "weir_event_time",
    "weir_rule",
    "weir_field",
    "weir_expected",
    "weir_found",
    "weir_severity",
    "weir_owner",
    "weir_fingerprint",
    "weir_broken_rules",
];

/// The columns of those that are text, in their order.
const CAUSE: [&str; 7] = ["rule", "field", "expected", "found", "severity", "owner", "fingerprint"];

/// Encodes rows of `weir_quarantine` for the quarantine topic.
#[derive(Clone, Copy, Debug, Default)]
pub struct QuarantineEncoder;

impl Encode for QuarantineEncoder {
    fn encode(&self, changes: &Changes, version: Version, out: &mut Vec<OutRow>) -> Result<(), Error> {
        let columns = Columns::of(&changes.rows)?;
        let mut blocks = Blocks::new(version, out);
        let mut all_headers = Vec::new();
        for row in 0..changes.rows.num_rows() {
            all_headers.clear();
            all_headers.extend_from_slice(bytes(columns.headers, row).unwrap_or_default());
            for (name, value) in HEADERS.iter().zip(columns.header_values(row)) {
                if let Some(value) = value {
                    headers::push(&mut all_headers, name.as_bytes(), Some(&value));
                }
            }
            let (key, value) = (bytes(columns.key, row), bytes(columns.value, row));
            blocks.push(columns.place(row).as_bytes(), key, value, &all_headers);
        }
        blocks.finish();
        Ok(())
    }

    fn newest_only(&self) -> bool {
        false
    }
}

/// The columns of a batch that a message is made of, each of the type that the table declares.
struct Columns<'a> {
    topic: &'a ArrayRef,
    partition: &'a ArrayRef,
    offset: &'a ArrayRef,
    kafka_time: &'a ArrayRef,
    schema_id: &'a ArrayRef,
    event_time: &'a ArrayRef,
    reason: &'a ArrayRef,
    detail: &'a ArrayRef,
    cause: [&'a ArrayRef; CAUSE.len()],
    broken_rules: &'a ArrayRef,
    key: &'a ArrayRef,
    value: &'a ArrayRef,
    headers: &'a ArrayRef,
}

impl<'a> Columns<'a> {
    fn of(rows: &'a RecordBatch) -> Result<Columns<'a>, Error> {
        let declared = tables::quarantine(None).columns;
        let column = |name: &str| {
            let at = declared.iter().position(|column| column.name == name);
            at.and_then(|at| Some((&declared[at], rows.columns().get(at)?)))
                .filter(|(column, array)| *array.data_type() == column.column_type.arrow())
                .map(|(_, array)| array)
                .ok_or_else(|| Error::Columns {
                    table: tables::QUARANTINE.to_owned(),
                    detail: format!("column {name} is missing or of another type"),
                })
        };
        Ok(Columns {
            topic: column("topic")?,
            partition: column("partition")?,
            offset: column("offset")?,
            kafka_time: column("kafka_time")?,
            schema_id: column("schema_id")?,
            event_time: column("event_time")?,
            reason: column("reason")?,
            detail: column("detail")?,
            cause: {
                let [rule, field, expected, found, severity, owner, fingerprint] = CAUSE.map(column);
                [rule?, field?, expected?, found?, severity?, owner?, fingerprint?]
            },
            broken_rules: column("broken_rules")?,
            key: column("key")?,
            value: column("value")?,
            headers: column("headers")?,
        })
    }

    /// The values of [`HEADERS`] in their order.
    fn header_values(&self, row: usize) -> [Option<Vec<u8>>; HEADERS.len()] {
        let text = |array| bytes(array, row).map(<[u8]>::to_vec);
        let filled = |array| text(array).filter(|text| !text.is_empty());
        let broken = self.broken_rules.as_list::<i32>().value(row);
        let broken: Vec<&[u8]> = broken.as_binary::<i32>().iter().flatten().collect();
        let [rule, field, expected, found, severity, owner, fingerprint] = self.cause.map(filled);
        [
            text(self.reason),
            text(self.detail),
            text(self.topic),
            number::<Int32Type>(self.partition, row),
            number::<Int64Type>(self.offset, row),
            number::<TimestampMillisecondType>(self.kafka_time, row),
            number::<UInt32Type>(self.schema_id, row),
            number::<TimestampMicrosecondType>(self.event_time, row),
            rule,
            field,
            expected,
            found,
            severity,
            owner,
            fingerprint,
            Some(broken.join(&b","[..])).filter(|ids| !ids.is_empty()),
        ]
    }

    /// The record's place, as [`Place`] shows it.
    fn place(&self, row: usize) -> String {
        let place = Place {
            topic: String::from_utf8_lossy(bytes(self.topic, row).unwrap_or_default()).into_owned(),
            partition: self.partition.as_primitive::<Int32Type>().value(row),
            offset: self.offset.as_primitive::<Int64Type>().value(row),
        };
        place.to_string()
    }
}

/// The bytes of a row, or nothing where it is null.
fn bytes(array: &ArrayRef, row: usize) -> Option<&[u8]> {
    array.is_valid(row).then(|| array.as_binary::<i32>().value(row))
}

/// The number of a row as text, or nothing where it is null.
fn number<T: ArrowPrimitiveType<Native: Display>>(array: &ArrayRef, row: usize) -> Option<Vec<u8>> {
    array.is_valid(row).then(|| array.as_primitive::<T>().value(row).to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::builder::{BinaryBuilder, ListBuilder};
    use arrow_array::{
        BinaryArray, Int32Array, Int64Array, TimestampMicrosecondArray, TimestampMillisecondArray, UInt32Array,
    };

    use weir_schemas::stage::text_item;

    use super::super::message::messages;
    use super::*;

    fn texts(value: &str) -> ArrayRef {
        Arc::new(BinaryArray::from_vec(vec![value.as_bytes(), value.as_bytes()]))
    }

    /// One record of which all is known, and one of which nothing is.
    fn rows() -> RecordBatch {
        let mut original = Vec::new();
        headers::push(&mut original, b"trace", Some(b"\xff"));
        let columns = tables::quarantine(None).columns;
        let arrays = columns.iter().map(|column| -> (&str, ArrayRef) {
            let array: ArrayRef = match column.name.as_str() {
                "kafka_time" => Arc::new(TimestampMillisecondArray::from(vec![1_000, 2_000])),
                "partition" => Arc::new(Int32Array::from(vec![3, 4])),
                "offset" => Arc::new(Int64Array::from(vec![1_207, 5])),
                "schema_id" => Arc::new(UInt32Array::from(vec![Some(17), None])),
                "event_time" => Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), None])),
                "key" => Arc::new(BinaryArray::from_opt_vec(vec![Some(b"key"), None])),
                "value" => Arc::new(BinaryArray::from_opt_vec(vec![Some(b"\0\xff"), Some(b"")])),
                "headers" => Arc::new(BinaryArray::from_vec(vec![&original, b""])),
                "topic" => texts("orders"),
                "broken_rules" => {
                    let mut ids = ListBuilder::new(BinaryBuilder::new()).with_field(text_item());
                    ids.append_value([Some(b"a_rule"), Some(b"b_rule")]);
                    ids.append(true);
                    Arc::new(ids.finish())
                }
                "owner" => Arc::new(BinaryArray::from_vec(vec![b"team", b""])),
                name => texts(name),
            };
            (column.name.as_str(), array)
        });
        RecordBatch::try_from_iter_with_nullable(arrays.map(|(name, array)| (name, array, true)))
            .expect("columns of one length")
    }

    fn encode(rows: RecordBatch) -> Result<Vec<OutRow>, Error> {
        let mut out = Vec::new();
        let changes = Changes { table: Arc::from(tables::QUARANTINE), rows, deleted: None };
        QuarantineEncoder.encode(&changes, Version(1), &mut out)?;
        Ok(out)
    }

    #[test]
    fn a_message_keeps_the_record_whole_and_says_why_it_was_refused() {
        let messages = messages(&encode(rows()).expect("fits")).expect("own bytes");
        let [first, second] = messages.as_slice() else { panic!("{} messages", messages.len()) };
        assert_eq!(first.identity, b"orders/3@1207");
        assert_eq!((first.key.as_deref(), first.value.as_deref()), (Some(&b"key"[..]), Some(&b"\0\xff"[..])));
        assert_eq!((second.key.as_deref(), second.value.as_deref()), (None, Some(&b""[..])));
        let shown = |message: &super::super::message::Message| {
            headers::iter(&message.headers)
                .map(|(name, value)| format!("{}={}", name.escape_ascii(), value.unwrap_or_default().escape_ascii()))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            shown(first),
            "trace=\\xff weir_reason=reason weir_detail=detail weir_topic=orders weir_partition=3 weir_offset=1207 \
             weir_kafka_time=1000 weir_schema_id=17 weir_event_time=-1 weir_rule=rule weir_field=field \
             weir_expected=expected weir_found=found weir_severity=severity weir_owner=team \
             weir_fingerprint=fingerprint weir_broken_rules=a_rule,b_rule"
        );
        assert_eq!(
            shown(second),
            "weir_reason=reason weir_detail=detail weir_topic=orders weir_partition=4 weir_offset=5 weir_kafka_time=2000 \
             weir_rule=rule weir_field=field weir_expected=expected weir_found=found weir_severity=severity \
             weir_fingerprint=fingerprint"
        );
    }

    #[test]
    fn other_columns_are_an_error() {
        let error = encode(rows().project(&[0, 1, 2]).expect("three columns")).expect_err("does not fit");
        assert!(error.to_string().contains("column offset is missing"), "{error}");
    }
}
