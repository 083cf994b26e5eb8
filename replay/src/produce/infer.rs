//! A schema for a CSV file that has none: types that every cell of a column fits.
//!
//! Whole numbers become long, other finite numbers double, texts like `2010-12-01 08:26:00` or RFC 3339
//! timestamp-millis, anything else string; a column with an empty cell is nullable. Numbers with a leading zero stay
//! strings, as they are names (`00123`). Doubles are inexact: name decimals where exactness matters.

use std::collections::BTreeMap;
use std::io::Read;

use serde_json::{Value, json};

use super::convert::{Kind, TimeText, Unit};

#[derive(Clone, Copy)]
struct Seen {
    is_long: bool,
    is_double: bool,
    is_time: bool,
    has_empty: bool,
    has_text: bool,
}

/// The schema of all rows that `reader` gives, as JSON.
///
/// # Errors
/// Reading.
pub(super) fn schema_of(
    reader: &mut csv::Reader<impl Read>,
    decimals: &BTreeMap<String, (usize, usize)>,
    id_field: Option<&str>,
) -> Result<String, csv::Error> {
    let header = reader.headers()?.clone();
    let mut columns =
        vec![Seen { is_long: true, is_double: true, is_time: true, has_empty: false, has_text: false }; header.len()];
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record)? {
        for (seen, text) in columns.iter_mut().zip(&record) {
            look(seen, text);
        }
    }
    let mut fields: Vec<Value> = header
        .iter()
        .zip(&columns)
        .map(|(name, seen)| {
            let inner = decimals.get(name).map_or_else(|| type_of(seen), |(precision, scale)| {
                json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
            });
            if seen.has_empty {
                json!({"name": name, "type": ["null", inner], "default": null})
            } else {
                json!({"name": name, "type": inner})
            }
        })
        .collect();
    if let Some(id) = id_field
        && !header.iter().any(|name| name == id)
    {
        fields.push(json!({"name": id, "type": "string"}));
    }
    Ok(json!({"type": "record", "name": "Row", "namespace": "weir.produce", "fields": fields}).to_string())
}

fn look(seen: &mut Seen, text: &str) {
    if text.is_empty() {
        seen.has_empty = true;
        return;
    }
    seen.has_text = true;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_name = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    seen.is_long = seen.is_long && !is_name && text.parse::<i64>().is_ok();
    seen.is_double = seen.is_double && !is_name && text.parse::<f64>().is_ok_and(f64::is_finite);
    seen.is_time = seen.is_time && Kind::Time(Unit::Millis).value_of_text(text, &TimeText::default()).is_ok();
}

fn type_of(seen: &Seen) -> Value {
    match seen {
        Seen { has_text: false, .. } => json!("string"),
        Seen { is_long: true, .. } => json!("long"),
        Seen { is_double: true, .. } => json!("double"),
        Seen { is_time: true, .. } => json!({"type": "long", "logicalType": "timestamp-millis"}),
        _ => json!("string"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_fit_every_cell() {
        let text =
            "n,x,at,code,empty,price,mixed\n1,1,2010-12-01 08:26:00,007,,2.55,1\n-2,2.5,2010-12-02T00:00:00Z,8,,,a\n";
        let decimals = BTreeMap::from([("price".to_owned(), (10, 3))]);
        let schema =
            schema_of(&mut csv::Reader::from_reader(text.as_bytes()), &decimals, Some("row")).expect("a schema");
        let schema: Value = serde_json::from_str(&schema).expect("JSON");
        let types: Vec<String> =
            schema["fields"].as_array().expect("fields").iter().map(|field| field["type"].to_string()).collect();
        let time = json!({"type": "long", "logicalType": "timestamp-millis"}).to_string();
        let price =
            json!(["null", {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 3}]).to_string();
        assert_eq!(
            types,
            [
                "\"long\"",
                "\"double\"",
                &time,
                "\"string\"",
                "[\"null\",\"string\"]",
                &price,
                "\"string\"",
                "\"string\""
            ]
        );
    }
}
