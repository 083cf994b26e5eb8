//! An event as JSON for people: the fields that matter first, masked, cut short, bounded.

use std::fmt::Write;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{DataType, TimeUnit};

/// Bytes of one value, and of a whole sample, at most.
const VALUE_BYTES: usize = 100;
const SAMPLE_BYTES: usize = 2_000;
/// Items of a map or list that are shown.
const ITEMS: usize = 8;
/// Bytes of a record that doesn't decode.
const RAW_BYTES: usize = 32;
/// What stands for a value that nobody may see.
const MASK: &str = "\"***\"";

/// The one event of `batch`: the columns of `order` first, then the others in their order while there is room.
pub(super) fn event(batch: &RecordBatch, order: &[&String], is_sensitive: impl Fn(&str) -> bool) -> String {
    let schema = batch.schema();
    let mut columns: Vec<usize> = Vec::new();
    let named = order.iter().filter_map(|name| schema.index_of(name).ok());
    for at in named.chain(0..batch.num_columns()) {
        if !columns.contains(&at) {
            columns.push(at);
        }
    }
    let mut text = String::from("{");
    let mut left_out = 0;
    for at in columns {
        let name = schema.field(at).name();
        let column = batch.column(at);
        let value = if column.is_valid(0) && is_sensitive(name) {
            MASK.to_owned()
        } else {
            value(column, 0, &|key| is_sensitive(&format!("{name}['{key}']")))
        };
        let separator = if text.len() > 1 { "," } else { "" };
        let entry = format!("{separator}{}:{value}", quoted(name));
        if text.len() + entry.len() > SAMPLE_BYTES {
            left_out += 1;
            continue;
        }
        text.push_str(&entry);
    }
    if left_out > 0 {
        // Writing to a string can't fail.
        let _ = write!(text, ",\"…\":\"{left_out} more fields\"");
    }
    text.push('}');
    text
}

/// A record that doesn't decode. Where fields are sensitive its bytes may hold some of them, so only the frame is shown.
pub(super) fn bytes(value: Option<&[u8]>, is_sensitive: bool) -> String {
    let Some(value) = value else { return "{\"bytes\":null}".to_owned() };
    let shown = value.get(..if is_sensitive { 5 } else { RAW_BYTES }).unwrap_or(value);
    let hex: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
    let rest = if shown.len() < value.len() { "…" } else { "" };
    format!("{{\"bytes\":\"{hex}{rest}\",\"length\":{}}}", value.len())
}

/// Milliseconds since 1970 of a timestamp of any unit.
pub(super) fn time_ms(column: &ArrayRef, row: usize) -> Option<i64> {
    if column.is_null(row) {
        return None;
    }
    let DataType::Timestamp(unit, _) = column.data_type() else { return None };
    Some(match unit {
        TimeUnit::Second => column.as_primitive::<TimestampSecondType>().value(row).saturating_mul(1_000),
        TimeUnit::Millisecond => column.as_primitive::<TimestampMillisecondType>().value(row),
        TimeUnit::Microsecond => column.as_primitive::<TimestampMicrosecondType>().value(row).div_euclid(1_000),
        TimeUnit::Nanosecond => column.as_primitive::<TimestampNanosecondType>().value(row).div_euclid(1_000_000),
    })
}

fn value(column: &ArrayRef, row: usize, is_sensitive: &dyn Fn(&str) -> bool) -> String {
    if column.is_null(row) {
        return "null".to_owned();
    }
    match column.data_type() {
        DataType::Binary => text_of(column.as_binary::<i32>().value(row)),
        DataType::FixedSizeBinary(_) => {
            let hex: String =
                column.as_fixed_size_binary().value(row).iter().map(|byte| format!("{byte:02x}")).collect();
            quoted(&hex)
        }
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            let (keys, values) = (entries.column(0), entries.column(1));
            let mut entries: Vec<(String, usize)> = (0..keys.len()).map(|at| (plain(keys, at), at)).collect();
            // Writers write maps in any order; people shouldn't wonder about it.
            entries.sort();
            let shown = entries.iter().take(ITEMS).map(|(key, at)| {
                let is_masked = values.is_valid(*at) && is_sensitive(key);
                let value = if is_masked { MASK.to_owned() } else { value(values, *at, &|_| false) };
                format!("{}:{value}", quoted(key))
            });
            format!("{{{}{}}}", shown.collect::<Vec<_>>().join(","), more(entries.len(), "\"…\":\"", "\""))
        }
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            let shown: Vec<String> = (0..items.len().min(ITEMS)).map(|at| value(&items, at, &|_| false)).collect();
            format!("[{}{}]", shown.join(","), more(items.len(), "\"", "\""))
        }
        data_type if data_type.is_numeric() || *data_type == DataType::Boolean => {
            let text = formatted(column, row);
            // JSON has no NaN and no infinity.
            if serde_json::from_str::<serde_json::Value>(&text).is_ok() { text } else { quoted(&text) }
        }
        _ => quoted(&formatted(column, row)),
    }
}

fn more(items: usize, before: &str, after: &str) -> String {
    if items > ITEMS { format!(",{before}{} more{after}", items - ITEMS) } else { String::new() }
}

/// A map's key as plain text.
fn plain(column: &ArrayRef, row: usize) -> String {
    match column.as_binary_opt::<i32>() {
        Some(texts) => cut(&String::from_utf8_lossy(texts.value(row))),
        None => formatted(column, row),
    }
}

fn formatted(column: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::default();
    ArrayFormatter::try_new(column, &options).map(|formatter| formatter.value(row).to_string()).unwrap_or_default()
}

fn text_of(bytes: &[u8]) -> String {
    quoted(&cut(&String::from_utf8_lossy(bytes.get(..VALUE_BYTES * 2).unwrap_or(bytes))))
}

/// A text of at most [`VALUE_BYTES`].
fn cut(text: &str) -> String {
    if text.len() <= VALUE_BYTES {
        return text.to_owned();
    }
    let end = (0..=VALUE_BYTES).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{BinaryArray, Decimal128Array, Float64Array, TimestampMillisecondArray};

    use super::*;

    fn batch() -> RecordBatch {
        let long = "ä".repeat(400);
        let texts = |text: &str| -> ArrayRef { Arc::new(BinaryArray::from_vec(vec![text.as_bytes()])) };
        let amount = Decimal128Array::from(vec![Some(-1_250)]).with_precision_and_scale(12, 2).expect("a decimal");
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", texts("a\"b\u{1}")),
            ("email", texts("ada@example.org")),
            ("note", texts(&long)),
            ("amount", Arc::new(amount)),
            ("score", Arc::new(Float64Array::from(vec![f64::NAN]))),
            ("none", Arc::new(Float64Array::from(vec![None]))),
            ("at", Arc::new(TimestampMillisecondArray::from(vec![1_767_571_200_123]))),
        ];
        RecordBatch::try_from_iter(columns).expect("columns of one length")
    }

    #[test]
    fn what_matters_comes_first_masked_and_cut() {
        let order = ["amount".to_owned(), "none".to_owned()];
        let text = event(&batch(), &order.iter().collect::<Vec<_>>(), |name| name == "email");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert!(
            text.starts_with(r#"{"amount":-12.50,"none":null,"id":"a\"b\u0001","email":"***","note":"ää"#),
            "{text}"
        );
        assert_eq!(json["note"].as_str().map(|note| note.chars().count()), Some(51));
        assert_eq!((json["score"].as_str(), json["at"].as_str()), (Some("NaN"), Some("2026-01-05T00:00:00.123")));
    }

    #[test]
    fn a_sample_is_bounded_and_says_what_it_leaves_out() {
        let text = "x".repeat(90);
        let columns = (0..60).map(|at| -> (String, ArrayRef) {
            (format!("field{at}"), Arc::new(BinaryArray::from_vec(vec![text.as_bytes()])))
        });
        let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
        let text = event(&batch, &[], |_| false);
        assert!(text.len() < SAMPLE_BYTES + 50 && text.ends_with(r#""…":"41 more fields"}"#), "{text}");
    }

    #[test]
    fn bytes_that_decode_to_nothing_are_shown_as_hex_unless_they_may_be_secret() {
        assert_eq!(bytes(Some(&[0, 0, 0, 0, 7, 255]), false), r#"{"bytes":"0000000007ff","length":6}"#);
        assert_eq!(bytes(Some(&[0, 0, 0, 0, 7, 255]), true), r#"{"bytes":"0000000007…","length":6}"#);
        assert_eq!(bytes(None, false), r#"{"bytes":null}"#);
    }
}
