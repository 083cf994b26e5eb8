//! `weir quarantine show`: one refused record, decoded where its schema can be had and its bytes follow it.

use std::path::Path;

use serde_json::{Map, Value};
use weir_pipeline::quarantine::{decode, from_hex};
use weir_schemas::headers;
use weir_schemas::place::Place;
use weir_schemas::tables::QUARANTINE;
use weir_sinks::clickhouse::literal;

use super::{Desk, print_json, text};
use crate::out::say;
use crate::{Outcome, paint};

/// Bytes that a line shows, and of a value in all.
const LINE: usize = 16;
const SHOWN: usize = 1_024;

/// Columns that are shown as they are, in their order.
const COLUMNS: [&str; 19] = [
    "kafka_time",
    "event_time",
    "schema_id",
    "reason",
    "detail",
    "rule",
    "field",
    "expected",
    "found",
    "severity",
    "owner",
    "fingerprint",
    "broken_rules",
    "tenant",
    "sdk",
    "sdk_version",
    "app_version",
    "state",
    "place",
];

pub(super) fn run(file: &Path, place: &str, as_json: bool) -> Result<Outcome, Outcome> {
    let Some(at) = Place::parse(place) else {
        let remedy = "write topic/partition@offset, as `weir quarantine list` shows it";
        return Err(Outcome::refused(format!("`{place}` is no place"), remedy));
    };
    let desk = Desk::open(file)?;
    let mut rows: Vec<serde_json::Value> = desk.select(&format!(
        "SELECT * EXCEPT (kafka_time, event_time, key, value, headers), toString(kafka_time) AS kafka_time, \
         toString(event_time) AS event_time, hex(key) AS key, hex(value) AS value, hex(headers) AS headers, \
         if({}, 'retried', 'waiting') AS state, {} AS place FROM {} WHERE topic = {} AND partition = {} AND offset = {}",
        desk.is_retried,
        literal(place),
        desk.client.qualified(QUARANTINE),
        literal(&at.topic),
        at.partition,
        at.offset,
    ))?;
    let Some(mut row) = rows.pop() else {
        let remedy = format!("`weir quarantine list {}` shows what was refused", file.display());
        return Err(Outcome::refused(format!("no record was refused at {place}"), remedy));
    };
    let name = desk.source_of(&at.topic);
    let source = name.and_then(|name| desk.pipeline.sources.get(name));
    let is_sensitive = source.is_none_or(|source| !source.sensitive.is_empty());
    let value = row.get("value").and_then(|value| value.as_str()).and_then(from_hex);
    let decoded = match (&value, name) {
        (Some(value), Some(name)) => desk.runtime.block_on(decode(&desk.pipeline, name, value)),
        (None, _) => Err("there is no value".to_owned()),
        (_, None) => Err("no source of the file reads its topic".to_owned()),
    };
    if let Some(row) = row.as_object_mut() {
        row.insert("decoded".to_owned(), decoded.clone().map_or(serde_json::Value::Null, Into::into));
    }
    if is_sensitive && let Some(row) = row.as_object_mut() {
        // Which of the bytes are the sensitive ones can't be told where the record doesn't decode.
        for bytes in ["key", "value", "headers"] {
            row.insert(bytes.to_owned(), "(masked)".into());
        }
    }
    if as_json {
        return Ok(print_json(&[row]));
    }
    let mut table = paint::table(&["", ""]);
    for column in COLUMNS {
        let value = text(&row, column);
        if !value.is_empty() {
            table.add_row([column.to_owned(), value]);
        }
    }
    say!("{table}");
    print_value(value.as_deref(), &decoded, is_sensitive);
    if is_sensitive {
        say!("\n{}", paint::dim("the bytes of key, value and headers: masked, as the source has sensitive fields"));
        return Ok(Outcome::done());
    }
    match row.get("key").and_then(|key| key.as_str()).and_then(from_hex) {
        None => say!("\nkey: null"),
        Some(bytes) => say!("\nkey, {} bytes\n{}", bytes.len(), dump(&bytes)),
    }
    let bytes = from_hex(&text(&row, "headers")).unwrap_or_default();
    for (name, value) in headers::iter(&bytes) {
        let value = value.map_or("null".to_owned(), |value| value.escape_ascii().to_string());
        say!("header {}: {value}", name.escape_ascii());
    }
    Ok(Outcome::done())
}

/// The fields of a value that decodes; of another one its bytes, unless they may hold something sensitive.
fn print_value(value: Option<&[u8]>, decoded: &Result<Map<String, Value>, String>, is_sensitive: bool) {
    let Some(value) = value else {
        say!("\nvalue: null");
        return;
    };
    match decoded {
        Ok(fields) => {
            say!("\nvalue, {} bytes, decoded", value.len());
            let mut table = paint::table(&["  field", "value"]);
            for (field, value) in fields {
                table.add_row([format!("  {}", field.escape_debug()), value.to_string()]);
            }
            say!("{table}");
        }
        Err(why) => {
            say!("\nvalue, {} bytes, which don't decode: {why}", value.len());
            if !is_sensitive {
                say!("{}", dump(value));
            }
        }
    }
}

/// Bytes as hexadecimal digits beside what of them is text.
fn dump(bytes: &[u8]) -> String {
    let mut lines = Vec::new();
    for (at, line) in bytes.chunks(LINE).take(SHOWN / LINE).enumerate() {
        let digits: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
        let ascii: String = line.iter().map(shown).collect();
        lines.push(format!("{:06x}  {:<47}  {ascii}", at * LINE, digits.join(" ")));
    }
    if bytes.len() > SHOWN {
        lines.push(format!("and {} more", bytes.len() - SHOWN));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::dump;

    #[test]
    fn bytes_stand_beside_their_text() {
        assert_eq!(dump(b"\0Az~\xff"), format!("000000  {:<47}  .Az~.", "00 41 7a 7e ff"));
        assert_eq!(dump(&[0; 2_000]).lines().count(), 65);
    }
}
