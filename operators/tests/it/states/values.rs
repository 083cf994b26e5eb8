//! Values as ClickHouse writes them in tab-separated text, to and from Arrow.

use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, PrimitiveArray, cast::AsArray};
use arrow_buffer::i256;
use chrono::{DateTime, NaiveDate, NaiveDateTime};
use weir_schemas::types::{ColumnType, Width};

/// The text of NULL.
pub(super) const NULL: &str = "\\N";

fn primitive<T: ArrowPrimitiveType>(texts: &[&str], read: impl Fn(&str) -> T::Native) -> PrimitiveArray<T> {
    texts.iter().map(|text| (*text != NULL).then(|| read(text))).collect()
}

fn number<N: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> N {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

/// A decimal's digits without its point.
fn digits(text: &str, scale: u8) -> String {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    assert!(fraction.len() <= usize::from(scale), "{text}");
    format!("{whole}{fraction:0<width$}", width = usize::from(scale))
}

fn date(text: &str) -> i32 {
    let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
    (text.parse::<NaiveDate>().unwrap() - epoch).num_days() as i32
}

fn time(text: &str) -> NaiveDateTime {
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").unwrap()
}

/// The array of a type that holds these texts.
pub(super) fn array(column_type: &ColumnType, texts: &[&str]) -> ArrayRef {
    let of = column_type.without_null();
    match of {
        ColumnType::Bool => {
            Arc::new(BooleanArray::from_iter(texts.iter().map(|text| (*text != NULL).then_some(*text == "true"))))
        }
        ColumnType::Int(Width::W8) => Arc::new(primitive::<Int8Type>(texts, number)),
        ColumnType::Int(Width::W16) => Arc::new(primitive::<Int16Type>(texts, number)),
        ColumnType::Int(Width::W32) => Arc::new(primitive::<Int32Type>(texts, number)),
        ColumnType::Int(Width::W64) => Arc::new(primitive::<Int64Type>(texts, number)),
        ColumnType::UInt(Width::W8) => Arc::new(primitive::<UInt8Type>(texts, number)),
        ColumnType::UInt(Width::W16) => Arc::new(primitive::<UInt16Type>(texts, number)),
        ColumnType::UInt(Width::W32) => Arc::new(primitive::<UInt32Type>(texts, number)),
        ColumnType::UInt(Width::W64) => Arc::new(primitive::<UInt64Type>(texts, number)),
        ColumnType::Float32 => Arc::new(primitive::<Float32Type>(texts, number)),
        ColumnType::Float64 => Arc::new(primitive::<Float64Type>(texts, number)),
        ColumnType::Decimal(_, scale) => match of.arrow() {
            arrow_schema::DataType::Decimal128(precision, arrow_scale) => Arc::new(
                primitive::<Decimal128Type>(texts, |text| number(&digits(text, *scale)))
                    .with_precision_and_scale(precision, arrow_scale)
                    .unwrap(),
            ),
            arrow_schema::DataType::Decimal256(precision, arrow_scale) => Arc::new(
                primitive::<Decimal256Type>(texts, |text| i256::from_string(&digits(text, *scale)).unwrap())
                    .with_precision_and_scale(precision, arrow_scale)
                    .unwrap(),
            ),
            other => panic!("{other}"),
        },
        ColumnType::String | ColumnType::LowCardinality => {
            Arc::new(BinaryArray::from_iter(texts.iter().map(|text| (*text != NULL).then_some(text.as_bytes()))))
        }
        ColumnType::FixedString(length) => {
            let padded = texts.iter().map(|text| {
                let mut bytes = text.as_bytes().to_vec();
                bytes.resize(usize::from(*length), 0);
                (*text != NULL).then_some(bytes)
            });
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(padded, i32::from(*length)).unwrap())
        }
        ColumnType::Uuid => {
            let parsed = texts.iter().map(|text| (*text != NULL).then(|| uuid(text).to_be_bytes()));
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(parsed, 16).unwrap())
        }
        ColumnType::Date | ColumnType::Date32 => Arc::new(primitive::<Date32Type>(texts, date)),
        ColumnType::DateTime(_) | ColumnType::DateTime64(0, _) => {
            Arc::new(primitive::<TimestampSecondType>(texts, |text| time(text).and_utc().timestamp()))
        }
        ColumnType::DateTime64(3, _) => {
            Arc::new(primitive::<TimestampMillisecondType>(texts, |text| time(text).and_utc().timestamp_millis()))
        }
        ColumnType::DateTime64(6, _) => {
            Arc::new(primitive::<TimestampMicrosecondType>(texts, |text| time(text).and_utc().timestamp_micros()))
        }
        ColumnType::DateTime64(_, _) => Arc::new(primitive::<TimestampNanosecondType>(texts, |text| {
            time(text).and_utc().timestamp_nanos_opt().unwrap()
        })),
        other => panic!("no values of {other}"),
    }
}

fn uuid(text: &str) -> u128 {
    u128::from_str_radix(&text.replace('-', ""), 16).unwrap()
}

/// A decimal's text from its digits, without zeros at the end of its fraction.
fn pointed(digits: &str, scale: u8) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |rest| ("-", rest));
    let padded = format!("{digits:0>width$}", width = usize::from(scale) + 1);
    let (whole, fraction) = padded.split_at(padded.len() - usize::from(scale));
    format!("{sign}{whole}.{fraction}").trim_end_matches('0').trim_end_matches('.').into()
}

/// The text of a row.
pub(super) fn text(column_type: &ColumnType, array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return NULL.into();
    }
    let instant = |format: &str, seconds: i64, nanos: i64| {
        DateTime::from_timestamp(seconds, nanos as u32).unwrap().format(format).to_string()
    };
    match column_type.without_null() {
        ColumnType::Bool => array.as_boolean().value(row).to_string(),
        ColumnType::Int(Width::W8) => array.as_primitive::<Int8Type>().value(row).to_string(),
        ColumnType::Int(Width::W16) => array.as_primitive::<Int16Type>().value(row).to_string(),
        ColumnType::Int(Width::W32) => array.as_primitive::<Int32Type>().value(row).to_string(),
        ColumnType::Int(Width::W64) => array.as_primitive::<Int64Type>().value(row).to_string(),
        ColumnType::UInt(Width::W8) => array.as_primitive::<UInt8Type>().value(row).to_string(),
        ColumnType::UInt(Width::W16) => array.as_primitive::<UInt16Type>().value(row).to_string(),
        ColumnType::UInt(Width::W32) => array.as_primitive::<UInt32Type>().value(row).to_string(),
        ColumnType::UInt(Width::W64) => array.as_primitive::<UInt64Type>().value(row).to_string(),
        ColumnType::Float32 => array.as_primitive::<Float32Type>().value(row).to_string(),
        ColumnType::Float64 => array.as_primitive::<Float64Type>().value(row).to_string(),
        ColumnType::Decimal(..=38, scale) => {
            pointed(&array.as_primitive::<Decimal128Type>().value(row).to_string(), *scale)
        }
        ColumnType::Decimal(_, scale) => {
            pointed(&array.as_primitive::<Decimal256Type>().value(row).to_string(), *scale)
        }
        ColumnType::String | ColumnType::LowCardinality => {
            String::from_utf8(array.as_binary::<i32>().value(row).to_vec()).unwrap()
        }
        ColumnType::FixedString(_) => {
            String::from_utf8(array.as_fixed_size_binary().value(row).to_vec()).unwrap().replace('\0', "\\0")
        }
        ColumnType::Uuid => {
            let hex: String =
                array.as_fixed_size_binary().value(row).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
        }
        ColumnType::Date | ColumnType::Date32 => {
            let days = array.as_primitive::<Date32Type>().value(row);
            instant("%Y-%m-%d", i64::from(days) * 86_400, 0)
        }
        ColumnType::DateTime(_) | ColumnType::DateTime64(0, _) => {
            instant("%Y-%m-%d %H:%M:%S", array.as_primitive::<TimestampSecondType>().value(row), 0)
        }
        ColumnType::DateTime64(3, _) => {
            let ticks = array.as_primitive::<TimestampMillisecondType>().value(row);
            instant("%Y-%m-%d %H:%M:%S%.3f", ticks.div_euclid(1_000), ticks.rem_euclid(1_000) * 1_000_000)
        }
        ColumnType::DateTime64(6, _) => {
            let ticks = array.as_primitive::<TimestampMicrosecondType>().value(row);
            instant("%Y-%m-%d %H:%M:%S%.6f", ticks.div_euclid(1_000_000), ticks.rem_euclid(1_000_000) * 1_000)
        }
        ColumnType::DateTime64(_, _) => {
            let ticks = array.as_primitive::<TimestampNanosecondType>().value(row);
            instant("%Y-%m-%d %H:%M:%S%.9f", ticks.div_euclid(1_000_000_000), ticks.rem_euclid(1_000_000_000))
        }
        other => panic!("no text of {other}"),
    }
}
