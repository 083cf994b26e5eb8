//! Cells: values of rows as text, written the one way that both a run and an expectation are brought to.
//!
//! A scalar is a JSON string, whatever its type: `"17"`, `"10.50"` (a decimal has all digits of its scale),
//! `"2026-01-05 12:00:00"` (in the column's zone, or UTC). Arrays and maps are JSON's, and null is null. An expectation
//! may be written in other words (a TOML number, a time with an offset, `10.5`); [`expected`] brings it to these.
//!
//! Invariant: two values of one type are equal exactly when their cells are, save floats, which are compared with a
//! tolerance.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Decimal256Type, DecimalType, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, SubsecRound, TimeZone, Utc};
use chrono_tz::Tz;
use serde_json::{Map, Value};
use weir_schemas::types::{ColumnType, Width};

/// What stands for null in a scenario file, which has no word for it.
pub(super) const NULL: &str = "NULL";

/// How times without a zone of their own are written.
const SECONDS: &str = "%Y-%m-%d %H:%M:%S";

/// The cells of a column.
///
/// # Errors
/// When the array isn't one of that type: a bug.
pub(super) fn cells(of: &ColumnType, array: &ArrayRef) -> Result<Vec<Value>, String> {
    (0..array.len()).map(|row| cell(of, array, row)).collect()
}

fn cell(of: &ColumnType, array: &ArrayRef, row: usize) -> Result<Value, String> {
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    let text = match of {
        ColumnType::Nullable(of) => return cell(of, array, row),
        ColumnType::Array(of) => {
            let items = array.as_list_opt::<i32>().ok_or_else(|| mismatch(of, array))?.value(row);
            return Ok(Value::Array(cells(of, &items)?));
        }
        ColumnType::Map(key, value) => {
            let entries = array.as_map_opt().ok_or_else(|| mismatch(of, array))?.value(row);
            let keys = cells(key, entries.column(0))?.into_iter().map(|key| text_of(&key));
            return Ok(Value::Object(keys.zip(cells(value, entries.column(1))?).collect()));
        }
        ColumnType::Bool => array.as_boolean_opt().map(|array| array.value(row).to_string()),
        ColumnType::Int(Width::W8) => native::<Int8Type>(array, row).map(|value| value.to_string()),
        ColumnType::Int(Width::W16) => native::<Int16Type>(array, row).map(|value| value.to_string()),
        ColumnType::Int(Width::W32) => native::<Int32Type>(array, row).map(|value| value.to_string()),
        ColumnType::Int(Width::W64) => native::<Int64Type>(array, row).map(|value| value.to_string()),
        ColumnType::UInt(Width::W8) => native::<UInt8Type>(array, row).map(|value| value.to_string()),
        ColumnType::UInt(Width::W16) => native::<UInt16Type>(array, row).map(|value| value.to_string()),
        ColumnType::UInt(Width::W32) => native::<UInt32Type>(array, row).map(|value| value.to_string()),
        ColumnType::UInt(Width::W64) => native::<UInt64Type>(array, row).map(|value| value.to_string()),
        ColumnType::Float32 => native::<Float32Type>(array, row).map(|value| value.to_string()),
        ColumnType::Float64 => native::<Float64Type>(array, row).map(|value| value.to_string()),
        ColumnType::Decimal(precision, scale) => decimal(array, row, *precision, *scale),
        ColumnType::String | ColumnType::LowCardinality | ColumnType::AggregateState(_) => {
            let bytes = array.as_binary_opt::<i32>().map(|array| array.value(row));
            bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        }
        ColumnType::FixedString(_) => fixed(array, row).map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
        ColumnType::Uuid => fixed(array, row).map(uuid),
        ColumnType::Date | ColumnType::Date32 => native::<Date32Type>(array, row).and_then(date),
        ColumnType::DateTime(zone) => time_of(array, row).map(|at| time_text(at, 0, zone.as_deref())),
        ColumnType::DateTime64(scale, zone) => time_of(array, row).map(|at| time_text(at, *scale, zone.as_deref())),
    };
    text.map(Value::String).ok_or_else(|| mismatch(of, array))
}

fn mismatch(of: &ColumnType, array: &ArrayRef) -> String {
    format!("{} came where {of} travels as {}", array.data_type(), of.arrow())
}

fn native<T: ArrowPrimitiveType>(array: &ArrayRef, row: usize) -> Option<T::Native> {
    array.as_primitive_opt::<T>().map(|array| array.value(row))
}

fn fixed(array: &ArrayRef, row: usize) -> Option<&[u8]> {
    array.as_fixed_size_binary_opt().map(|array| array.value(row))
}

fn decimal(array: &ArrayRef, row: usize, precision: u8, scale: u8) -> Option<String> {
    let scale = i8::try_from(scale).ok()?;
    if let Some(value) = native::<Decimal128Type>(array, row) {
        return Some(Decimal128Type::format_decimal(value, precision, scale));
    }
    native::<Decimal256Type>(array, row).map(|value| Decimal256Type::format_decimal(value, precision, scale))
}

fn uuid(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    match (hex.get(..8), hex.get(8..12), hex.get(12..16), hex.get(16..20), hex.get(20..)) {
        (Some(a), Some(b), Some(c), Some(d), Some(e)) => format!("{a}-{b}-{c}-{d}-{e}"),
        _ => hex,
    }
}

fn date(days: i32) -> Option<String> {
    let epoch = NaiveDate::from_ymd_opt(1970, 1, 1)?;
    let days_of = |days: i32| Days::new(u64::from(days.unsigned_abs()));
    let date = if days < 0 { epoch.checked_sub_days(days_of(days)) } else { epoch.checked_add_days(days_of(days)) };
    date.map(|date| date.to_string())
}

/// A timestamp of any unit.
fn time_of(array: &ArrayRef, row: usize) -> Option<DateTime<Utc>> {
    if let Some(value) = native::<TimestampSecondType>(array, row) {
        return DateTime::from_timestamp(value, 0);
    }
    if let Some(value) = native::<TimestampMillisecondType>(array, row) {
        return DateTime::from_timestamp_millis(value);
    }
    if let Some(value) = native::<TimestampMicrosecondType>(array, row) {
        return DateTime::from_timestamp_micros(value);
    }
    native::<TimestampNanosecondType>(array, row).map(DateTime::from_timestamp_nanos)
}

fn zone_of(zone: Option<&str>) -> Tz {
    zone.and_then(|zone| zone.parse().ok()).unwrap_or(Tz::UTC)
}

/// A time as it is written, with as many digits of a second as its type has; none where they are zero.
fn time_text(at: DateTime<Utc>, scale: u8, zone: Option<&str>) -> String {
    let local = at.with_timezone(&zone_of(zone)).naive_local();
    let whole = local.format(SECONDS).to_string();
    let nanoseconds = at.timestamp_subsec_nanos();
    if scale == 0 || nanoseconds == 0 {
        return whole;
    }
    let digits = format!("{nanoseconds:09}");
    format!("{whole}.{}", digits.get(..usize::from(scale)).unwrap_or(&digits))
}

/// The microseconds since 1970 of a cell of a time or a date.
pub(super) fn micros(of: &ColumnType, cell: &Value, zone: Option<&str>) -> Option<i64> {
    let text = cell.as_str()?;
    let (format, zone) = match of.without_null() {
        ColumnType::Date | ColumnType::Date32 => ("%Y-%m-%d", zone),
        ColumnType::DateTime(own) | ColumnType::DateTime64(_, own) => (SECONDS, own.as_deref()),
        _ => return None,
    };
    parse_time(text, format, zone).map(|at| at.timestamp_micros())
}

/// Reads a time: with an offset, or in `zone`.
fn parse_time(text: &str, format: &str, zone: Option<&str>) -> Option<DateTime<Utc>> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(at.with_timezone(&Utc));
    }
    let local = if format == SECONDS {
        let text = text.replacen('T', " ", 1);
        NaiveDateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S%.f")
            .or_else(|_| NaiveDateTime::parse_from_str(&format!("{text}:00"), SECONDS))
            .ok()?
    } else {
        NaiveDate::parse_from_str(text, format).ok()?.and_hms_opt(0, 0, 0)?
    };
    zone_of(zone).from_local_datetime(&local).earliest().map(|at| at.with_timezone(&Utc))
}

/// What a value of a scenario file means as a cell of this type.
///
/// # Errors
/// Why it can't be one.
pub(super) fn expected(of: &ColumnType, value: &toml::Value) -> Result<Value, String> {
    if let ColumnType::Nullable(of) = of {
        return if value.as_str() == Some(NULL) { Ok(Value::Null) } else { expected(of, value) };
    }
    let wrong = || format!("{value} is no {of}");
    match (of, value) {
        (ColumnType::Array(of), toml::Value::Array(items)) => items.iter().map(|item| expected(of, item)).collect(),
        (ColumnType::Map(key, of), toml::Value::Table(entries)) => {
            let entry = |(name, value): (&String, &toml::Value)| {
                let name = expected(key, &toml::Value::String(name.clone()))?;
                Ok((text_of(&name), expected(of, value)?))
            };
            entries.iter().map(entry).collect::<Result<Map<_, _>, String>>().map(Value::Object)
        }
        (ColumnType::Array(_) | ColumnType::Map(..), _) => Err(wrong()),
        (_, toml::Value::Array(_) | toml::Value::Table(_)) => Err(wrong()),
        (of, value) => {
            let text = match value {
                toml::Value::String(text) => text.clone(),
                toml::Value::Datetime(time) => time.to_string(),
                other => other.to_string(),
            };
            canonical(of, &text).map(Value::String).ok_or_else(wrong)
        }
    }
}

/// A scalar's text as [`cell`] writes it.
fn canonical(of: &ColumnType, text: &str) -> Option<String> {
    Some(match of {
        ColumnType::Bool => text.parse::<bool>().ok()?.to_string(),
        ColumnType::Int(_) => text.parse::<i64>().ok()?.to_string(),
        ColumnType::UInt(_) => text.parse::<u64>().ok()?.to_string(),
        ColumnType::Float32 | ColumnType::Float64 => text.parse::<f64>().ok()?.to_string(),
        ColumnType::Decimal(precision, scale) => scaled(text, *precision, *scale)?,
        ColumnType::Uuid => {
            let hex: String = text.chars().filter(|c| *c != '-').collect::<String>().to_ascii_lowercase();
            let is_hex = hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
            let bytes: Option<Vec<u8>> =
                (0..16).map(|at| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()).collect();
            uuid(&bytes.filter(|_| is_hex)?)
        }
        ColumnType::Date | ColumnType::Date32 => NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.to_string(),
        ColumnType::DateTime(zone) => time_text(parse_time(text, SECONDS, zone.as_deref())?, 0, zone.as_deref()),
        ColumnType::DateTime64(scale, zone) => {
            let at = parse_time(text, SECONDS, zone.as_deref())?.trunc_subsecs(u16::from(*scale));
            time_text(at, *scale, zone.as_deref())
        }
        _ => text.to_owned(),
    })
}

/// A decimal with all digits of its scale; `None` where it has more than fit.
fn scaled(text: &str, precision: u8, scale: u8) -> Option<String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let whole = match whole.trim_start_matches('0') {
        "" if whole.is_empty() && fraction.is_empty() => return None,
        "" => "0",
        whole => whole,
    };
    let (scale, precision) = (usize::from(scale), usize::from(precision));
    let fits = fraction.len() <= scale && (whole == "0" || whole.len() + scale <= precision);
    if !is_digits(whole) || !is_digits(fraction) || !fits {
        return None;
    }
    let sign = if whole == "0" && fraction.is_empty() { "" } else { sign };
    let point = if scale == 0 { "" } else { "." };
    Some(format!("{sign}{whole}{point}{fraction:0<scale$}"))
}

/// Whether two cells of a type are equal; floats within a relative `tolerance`.
pub(super) fn are_equal(of: &ColumnType, one: &Value, other: &Value, tolerance: f64) -> bool {
    if !matches!(of.without_null(), ColumnType::Float32 | ColumnType::Float64) {
        return one == other;
    }
    let number = |cell: &Value| cell.as_str().and_then(|text| text.parse::<f64>().ok());
    match (number(one), number(other)) {
        (Some(one), Some(other)) => {
            let bound = tolerance * one.abs().max(other.abs());
            one == other || (one.is_nan() && other.is_nan()) || (one - other).abs() <= bound
        }
        _ => one == other,
    }
}

/// A cell as people read it.
pub(super) fn text_of(cell: &Value) -> String {
    match cell {
        Value::Null => NULL.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A cell as a scenario file holds it: numbers as numbers, where TOML has room for them.
pub(super) fn toml_of(of: &ColumnType, cell: &Value) -> toml_edit::Value {
    let text = || toml_edit::Value::from(text_of(cell));
    match (of.without_null(), cell) {
        (_, Value::Null) => NULL.into(),
        (ColumnType::Bool, Value::String(value)) => value.parse::<bool>().map_or_else(|_| text(), Into::into),
        (ColumnType::Int(_) | ColumnType::UInt(_), Value::String(value)) => {
            value.parse::<i64>().map_or_else(|_| text(), Into::into)
        }
        (ColumnType::Float32 | ColumnType::Float64, Value::String(value)) => {
            value.parse::<f64>().map_or_else(|_| text(), Into::into)
        }
        (ColumnType::Array(of), Value::Array(items)) => {
            toml_edit::Value::Array(items.iter().map(|item| toml_of(of, item)).collect())
        }
        (ColumnType::Map(_, of), Value::Object(entries)) => {
            let mut table = toml_edit::InlineTable::new();
            for (name, value) in entries {
                table.insert(name, toml_of(of, value));
            }
            toml_edit::Value::InlineTable(table)
        }
        _ => text(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Decimal128Array, Float64Array, TimestampMillisecondArray, TimestampSecondArray};

    use super::*;

    fn one(array: impl Array + 'static) -> ArrayRef {
        Arc::new(array)
    }

    fn toml_value(text: &str) -> toml::Value {
        let table: toml::Table = toml::from_str(&format!("v = {text}")).expect("TOML");
        table["v"].clone()
    }

    #[test]
    fn what_is_meant_is_written_as_what_comes() {
        let berlin = || Some("Europe/Berlin".into());
        let decimal = Decimal128Array::from(vec![-1050]).with_precision_and_scale(12, 2).expect("a decimal");
        let second = 1_767_614_400; // 2026-01-05 12:00:00
        for (of, array, written) in [
            (ColumnType::Decimal(12, 2), one(decimal), "-10.5"),
            (ColumnType::DateTime(None), one(TimestampSecondArray::from(vec![second])), "2026-01-05T12:00:00Z"),
            (ColumnType::DateTime(berlin()), one(TimestampSecondArray::from(vec![second])), "\"2026-01-05 13:00:00\""),
            (ColumnType::DateTime(berlin()), one(TimestampSecondArray::from(vec![second])), "2026-01-05T12:00:00Z"),
            (
                ColumnType::DateTime64(3, None),
                one(TimestampMillisecondArray::from(vec![second * 1000 + 250])),
                "\"2026-01-05 12:00:00.25\"",
            ),
            (ColumnType::Float64, one(Float64Array::from(vec![0.1 + 0.2])), "0.3"),
        ] {
            let found = cells(&of, &array).expect("its type").remove(0);
            let meant = expected(&of, &toml_value(written)).expect(written);
            assert!(are_equal(&of, &found, &meant, 1e-9), "{of}: {found} and {meant}");
        }
        assert_eq!(expected(&ColumnType::Decimal(12, 2), &toml_value("\"007.5\"")), Ok("7.50".into()));
    }

    #[test]
    fn what_cant_be_meant_is_refused() {
        let of = ColumnType::Decimal(4, 2);
        for wrong in ["\"1.234\"", "\"100\"", "\"x\"", "[1]", "\"\""] {
            assert!(expected(&of, &toml_value(wrong)).is_err(), "{wrong}");
        }
        assert!(expected(&ColumnType::UInt(Width::W8), &toml_value("-1")).is_err());
        assert!(expected(&ColumnType::DateTime(None), &toml_value("\"noon\"")).is_err());
        let nullable = ColumnType::Bool.nullable();
        assert_eq!(expected(&nullable, &toml_value("\"NULL\"")), Ok(Value::Null));
    }

    #[test]
    fn a_float_that_is_beyond_the_tolerance_differs() {
        let of = ColumnType::Float64;
        assert!(!are_equal(&of, &"1.0".into(), &"1.001".into(), 1e-6));
        assert!(are_equal(&of, &"1000000".into(), &"1000000.5".into(), 1e-6));
        assert!(!are_equal(&of, &Value::Null, &"0".into(), 1e-6));
    }
}
