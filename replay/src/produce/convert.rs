//! Text and JSON to Avro values, by the schema.
//!
//! The schema is walked once into a tree of [`Kind`]s; converting a value then follows that tree. Nothing is guessed
//! and nothing rounded: a text that isn't exactly a value of its type is an error that says why. An empty CSV cell is
//! null where the type allows null.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::types::Value;
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, TimeZone};
use chrono_tz::Tz;

/// How times are written in the input.
#[derive(Clone, Debug)]
pub struct TimeText {
    /// `strftime` format of times and dates; absent: RFC 3339, or `2011-12-09 12:50:00` in `zone`.
    pub format: Option<String>,
    /// The zone of times that name none.
    pub zone: Tz,
}

impl Default for TimeText {
    fn default() -> TimeText {
        TimeText { format: None, zone: Tz::UTC }
    }
}

/// A type of the schema with what converting needs.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Decimal {
        precision: usize,
        scale: usize,
    },
    Date,
    Time(Unit),
    Enum(Vec<String>),
    Map(Box<Kind>),
    Array(Box<Kind>),
    Record(Vec<(String, Kind, Option<serde_json::Value>)>),
    /// `[null, T]` or `[T, null]`, with the places of both.
    Nullable {
        null: u32,
        other: u32,
        kind: Box<Kind>,
    },
}

/// The unit of a timestamp.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    Millis,
    Micros,
    LocalMillis,
    LocalMicros,
}

/// The tree for `schema`.
///
/// # Errors
/// Names the type that can't be produced.
pub(crate) fn kind_of(schema: &Schema) -> Result<Kind, String> {
    Ok(match schema {
        Schema::Null => Kind::Null,
        Schema::Boolean => Kind::Boolean,
        Schema::Int => Kind::Int,
        Schema::Long => Kind::Long,
        Schema::Float => Kind::Float,
        Schema::Double => Kind::Double,
        Schema::Bytes => Kind::Bytes,
        Schema::String => Kind::String,
        Schema::Decimal(decimal) => Kind::Decimal { precision: decimal.precision, scale: decimal.scale },
        Schema::Date => Kind::Date,
        Schema::TimestampMillis => Kind::Time(Unit::Millis),
        Schema::TimestampMicros => Kind::Time(Unit::Micros),
        Schema::LocalTimestampMillis => Kind::Time(Unit::LocalMillis),
        Schema::LocalTimestampMicros => Kind::Time(Unit::LocalMicros),
        Schema::Enum(symbols) => Kind::Enum(symbols.symbols.clone()),
        Schema::Map(map) => Kind::Map(Box::new(kind_of(&map.types)?)),
        Schema::Array(array) => Kind::Array(Box::new(kind_of(&array.items)?)),
        Schema::Record(record) => {
            let fields = record.fields.iter().map(|field| {
                let kind = kind_of(&field.schema).map_err(|why| format!("{}: {why}", field.name))?;
                Ok((field.name.clone(), kind, field.default.clone()))
            });
            Kind::Record(fields.collect::<Result<_, String>>()?)
        }
        Schema::Union(union) => match union.variants() {
            [Schema::Null, other] => Kind::Nullable { null: 0, other: 1, kind: Box::new(kind_of(other)?) },
            [other, Schema::Null] => Kind::Nullable { null: 1, other: 0, kind: Box::new(kind_of(other)?) },
            _ => return Err("a union of several types can't be produced; only [null, T] can".to_owned()),
        },
        other => return Err(format!("the type {other:?} can't be produced from text")),
    })
}

impl Kind {
    /// A CSV cell's value.
    ///
    /// # Errors
    /// Why the text isn't one.
    pub(crate) fn value_of_text(&self, text: &str, times: &TimeText) -> Result<Value, String> {
        let wrong = |what: &str| format!("{text:?} is no {what}");
        Ok(match self {
            Kind::Nullable { null, .. } if text.is_empty() => Value::Union(*null, Box::new(Value::Null)),
            Kind::Nullable { other, kind, .. } => Value::Union(*other, Box::new(kind.value_of_text(text, times)?)),
            Kind::Null => Value::Null,
            Kind::Boolean => match text {
                "true" | "1" => Value::Boolean(true),
                "false" | "0" => Value::Boolean(false),
                _ => return Err(wrong("boolean")),
            },
            Kind::Int => Value::Int(i32::try_from(whole(text)?).map_err(|_| wrong("int of 32 bits"))?),
            Kind::Long => Value::Long(whole(text)?),
            Kind::Float => Value::Float(text.parse().map_err(|_| wrong("number"))?),
            Kind::Double => Value::Double(text.parse().map_err(|_| wrong("number"))?),
            Kind::Bytes => Value::Bytes(text.as_bytes().to_vec()),
            Kind::String => Value::String(text.to_owned()),
            Kind::Decimal { precision, scale } => decimal(unscaled(text, *precision, *scale)?),
            Kind::Date => Value::Date(days(text, times)?),
            Kind::Time(unit) => time(text, *unit, times)?,
            Kind::Enum(symbols) => symbol(symbols, text)?,
            Kind::Map(_) | Kind::Array(_) | Kind::Record(_) => {
                return Err("maps, arrays and records can't come from CSV; use JSON lines".to_owned());
            }
        })
    }

    /// A JSON value's value.
    ///
    /// # Errors
    /// Why it isn't one, with the names of the fields on the way.
    pub(crate) fn value_of_json(&self, json: &serde_json::Value, times: &TimeText) -> Result<Value, String> {
        use serde_json::Value as Json;
        Ok(match (self, json) {
            (Kind::Nullable { null, .. }, Json::Null) => Value::Union(*null, Box::new(Value::Null)),
            (Kind::Nullable { other, kind, .. }, json) => {
                Value::Union(*other, Box::new(kind.value_of_json(json, times)?))
            }
            (Kind::Null, Json::Null) => Value::Null,
            (Kind::Record(fields), Json::Object(object)) => {
                let values = fields.iter().map(|(name, kind, default)| {
                    let json = object.get(name).or(default.as_ref()).unwrap_or(&Json::Null);
                    let value = kind.value_of_json(json, times).map_err(|why| format!("{name}: {why}"))?;
                    Ok((name.clone(), value))
                });
                Value::Record(values.collect::<Result<_, String>>()?)
            }
            (Kind::Map(kind), Json::Object(object)) => {
                let entries = object.iter().map(|(name, json)| Ok((name.clone(), kind.value_of_json(json, times)?)));
                Value::Map(entries.collect::<Result<HashMap<_, _>, String>>()?)
            }
            (Kind::Array(kind), Json::Array(items)) => {
                Value::Array(items.iter().map(|json| kind.value_of_json(json, times)).collect::<Result<_, String>>()?)
            }
            (Kind::Boolean, Json::Bool(value)) => Value::Boolean(*value),
            (Kind::Time(unit), Json::Number(number)) => {
                let count = number.as_i64().ok_or_else(|| format!("{number} is no whole number"))?;
                unit.value(count)
            }
            (Kind::Map(_) | Kind::Array(_) | Kind::Record(_), json) => {
                return Err(format!("{json} is not what the schema has there"));
            }
            (_, Json::String(text)) => self.value_of_text(text, times)?,
            (_, Json::Number(number)) => self.value_of_text(&number.to_string(), times)?,
            (Kind::String, json @ (Json::Object(_) | Json::Array(_))) => Value::String(json.to_string()),
            (_, json) => return Err(format!("{json} is not what the schema has there")),
        })
    }
}

impl Unit {
    fn value(self, count: i64) -> Value {
        match self {
            Unit::Millis => Value::TimestampMillis(count),
            Unit::Micros => Value::TimestampMicros(count),
            Unit::LocalMillis => Value::LocalTimestampMillis(count),
            Unit::LocalMicros => Value::LocalTimestampMicros(count),
        }
    }
}

/// A whole number, also one that was written as a float: `17850.0`.
fn whole(text: &str) -> Result<i64, String> {
    let digits = match text.split_once('.') {
        Some((digits, fraction)) if !fraction.is_empty() && fraction.bytes().all(|byte| byte == b'0') => digits,
        _ => text,
    };
    digits.parse().map_err(|_| format!("{text:?} is no whole number of 64 bits"))
}

fn symbol(symbols: &[String], text: &str) -> Result<Value, String> {
    let place = symbols.iter().position(|symbol| symbol == text);
    let place = place.and_then(|place| u32::try_from(place).ok());
    place
        .map(|place| Value::Enum(place, text.to_owned()))
        .ok_or_else(|| format!("{text:?} is none of {}", symbols.join(", ")))
}

/// The unscaled value of a decimal text, exact or an error.
pub(crate) fn unscaled(text: &str, precision: usize, scale: usize) -> Result<i128, String> {
    let wrong = || format!("{text:?} is no decimal({precision}, {scale})");
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (kept, dropped) = fraction.split_at_checked(scale).unwrap_or((fraction, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + kept.len() == 0
        || !is_digits(whole)
        || !is_digits(kept)
        || dropped.bytes().any(|byte| byte != b'0')
    {
        return Err(wrong());
    }
    let mut number = 0i128;
    for byte in whole.bytes().chain(kept.bytes()).chain(std::iter::repeat_n(b'0', scale - kept.len())) {
        number =
            number.checked_mul(10).and_then(|number| number.checked_add(i128::from(byte - b'0'))).ok_or_else(wrong)?;
    }
    let limit = u32::try_from(precision).ok().and_then(|precision| 10i128.checked_pow(precision)).unwrap_or(i128::MAX);
    if number >= limit { Err(wrong()) } else { Ok(if is_negative { -number } else { number }) }
}

/// A decimal of that unscaled value, in as few bytes as it needs.
pub(crate) fn decimal(unscaled: i128) -> Value {
    let bytes = unscaled.to_be_bytes();
    let sign = if unscaled < 0 { 0xff } else { 0 };
    let is_needed = |place: usize| bytes[place] != sign || (bytes[place + 1] ^ sign) & 0x80 != 0;
    let start = (0..bytes.len() - 1).find(|&place| is_needed(place)).unwrap_or(bytes.len() - 1);
    Value::Decimal(apache_avro::Decimal::from(&bytes[start..]))
}

fn days(text: &str, times: &TimeText) -> Result<i32, String> {
    let format = times.format.as_deref().unwrap_or("%Y-%m-%d");
    let date =
        NaiveDate::parse_from_str(text, format).map_err(|error| format!("{text:?} is no date ({format}): {error}"))?;
    NaiveDate::from_ymd_opt(1970, 1, 1)
        .and_then(|epoch| date.num_days_from_ce().checked_sub(epoch.num_days_from_ce()))
        .ok_or_else(|| format!("{text:?} is out of range"))
}

fn time(text: &str, unit: Unit, times: &TimeText) -> Result<Value, String> {
    if times.format.is_none()
        && let Ok(moment) = DateTime::parse_from_rfc3339(text)
    {
        return Ok(match unit {
            Unit::Millis => unit.value(moment.timestamp_millis()),
            Unit::Micros => unit.value(moment.timestamp_micros()),
            Unit::LocalMillis => unit.value(moment.naive_local().and_utc().timestamp_millis()),
            Unit::LocalMicros => unit.value(moment.naive_local().and_utc().timestamp_micros()),
        });
    }
    let format = times.format.as_deref().unwrap_or("%Y-%m-%d %H:%M:%S%.f");
    let local = NaiveDateTime::parse_from_str(text, format)
        .map_err(|error| format!("{text:?} is no time ({format}): {error}"))?;
    let moment = || {
        let moment = times.zone.from_local_datetime(&local);
        moment
            .earliest()
            .ok_or_else(|| format!("{text:?} doesn't exist in {}: the clock is put forward there", times.zone))
    };
    Ok(match unit {
        Unit::Millis => unit.value(moment()?.timestamp_millis()),
        Unit::Micros => unit.value(moment()?.timestamp_micros()),
        Unit::LocalMillis => unit.value(local.and_utc().timestamp_millis()),
        Unit::LocalMicros => unit.value(local.and_utc().timestamp_micros()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_or_refused() {
        for (text, expected) in [
            ("2.55", Some(2550)),
            ("-0.001", Some(-1)),
            ("7", Some(7000)),
            (".5", Some(500)),
            ("+1.2300", Some(1230)),
            ("-9999999.999", Some(-9_999_999_999)),
        ] {
            assert_eq!(unscaled(text, 10, 3).ok(), expected, "{text}");
        }
        for text in
            ["", "-", "1.2345", "10000000", "1e3", "1.2.3", " 1", "--1", "99999999999999999999999999999999999999999"]
        {
            assert!(unscaled(text, 10, 3).is_err(), "{text}");
        }
    }

    #[test]
    fn decimals_take_as_few_bytes_as_they_need() {
        for number in [0i128, 1, -1, 127, 128, -128, -129, 255, 256, i128::MAX, i128::MIN] {
            let Value::Decimal(value) = decimal(number) else { panic!("a decimal") };
            let bytes = Vec::<u8>::try_from(value).expect("bytes");
            let fill = if bytes[0] & 0x80 == 0 { 0 } else { 0xff };
            let mut whole = [fill; 16];
            whole[16 - bytes.len()..].copy_from_slice(&bytes);
            assert_eq!(i128::from_be_bytes(whole), number);
            assert!(bytes.len() == 1 || !(bytes[0] == fill && bytes[1] & 0x80 == fill & 0x80), "{number}: {bytes:?}");
        }
    }

    #[test]
    fn times_have_a_format_and_a_zone() {
        let london = TimeText { format: Some("%d/%m/%Y %H:%M".to_owned()), zone: Tz::Europe__London };
        assert_eq!(
            Kind::Time(Unit::Millis).value_of_text("01/07/2011 12:00", &london),
            Ok(Value::TimestampMillis(1_309_518_000_000))
        );
        let utc = TimeText::default();
        assert_eq!(
            Kind::Time(Unit::Millis).value_of_text("2010-12-01 08:26:00", &utc),
            Ok(Value::TimestampMillis(1_291_191_960_000))
        );
        assert_eq!(
            Kind::Time(Unit::Micros).value_of_text("2010-12-01T09:26:00.5+01:00", &utc),
            Ok(Value::TimestampMicros(1_291_191_960_500_000))
        );
        assert!(Kind::Time(Unit::Millis).value_of_text("27/03/2011 01:30", &london).is_err());
        assert_eq!(Kind::Date.value_of_text("1970-01-02", &utc), Ok(Value::Date(1)));
    }

    #[test]
    fn json_follows_the_schema() {
        let schema = r#"{"type": "record", "name": "R", "fields": [
            {"name": "a", "type": ["null", "long"], "default": null}, {"name": "m", "type": {"type": "map", "values": "string"}},
            {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["x", "y"]}}, {"name": "l", "type": {"type": "array", "items": "double"}}]}"#;
        let kind = kind_of(&Schema::parse_str(schema).expect("a schema")).expect("a kind");
        let json = serde_json::json!({"m": {"k": "v"}, "e": "y", "l": [1, 2.5]});
        let value = kind.value_of_json(&json, &TimeText::default()).expect("a value");
        let Value::Record(fields) = value else { panic!("a record") };
        assert_eq!(fields[0].1, Value::Union(0, Box::new(Value::Null)));
        assert_eq!(fields[3].1, Value::Array(vec![Value::Double(1.0), Value::Double(2.5)]));
        let wrong = kind.value_of_json(&serde_json::json!({"m": {}, "e": "z", "l": []}), &TimeText::default());
        assert_eq!(wrong, Err("e: \"z\" is none of x, y".to_owned()));
    }
}
