//! Every column type, random values: what arrives through `RowBinary` equals what the engine reads from literals.

use std::fmt::Write;
use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Decimal256Builder,
    FixedSizeBinaryBuilder, Float32Builder, Float64Builder, Int8Builder, Int16Builder, Int32Builder, Int64Builder,
    ListBuilder, MapBuilder, MapFieldNames, TimestampMicrosecondBuilder, TimestampMillisecondBuilder,
    TimestampNanosecondBuilder, TimestampSecondBuilder, UInt8Builder, UInt16Builder, UInt32Builder, UInt64Builder,
};
use arrow_array::{ArrayRef, RecordBatch, UInt64Array, make_array};
use arrow_buffer::i256;
use weir_schemas::rows::{Changes, Table, TableKind};
use weir_schemas::stage::Column;
use weir_schemas::time::{Epoch, Version};
use weir_schemas::types::{ColumnType, Width, Zone};
use weir_sinks::clickhouse::{Layout, TableEncoder, TableSink};
use weir_sinks::{Deliver, Delivery, Encode};

use crate::parts::{database, lines};

const ROWS: usize = 200;

/// One value in its two forms: a number or bytes for Arrow, and a literal for ClickHouse.
#[derive(Clone, Debug)]
enum Value {
    Null,
    Number(i128),
    Wide(i256),
    Float(f64),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Pairs(Vec<(Value, Value)>),
}

fn types() -> Vec<ColumnType> {
    use ColumnType as T;
    let utc = || Some(Zone::from("UTC"));
    let mut all = vec![
        T::Bool,
        T::Float32,
        T::Float64,
        T::String,
        T::LowCardinality,
        T::FixedString(5),
        T::Uuid,
        T::Date,
        T::Date32,
        T::DateTime(None),
        T::DateTime(Some(Zone::from("Asia/Kathmandu"))),
        T::AggregateState("sum, UInt64".to_owned()),
    ];
    all.extend([Width::W8, Width::W16, Width::W32, Width::W64].iter().flat_map(|w| [T::Int(*w), T::UInt(*w)]));
    all.extend([0, 3, 6, 9].map(|scale| T::DateTime64(scale, utc())));
    all.extend(
        [(1, 0), (9, 4), (10, 0), (18, 18), (19, 2), (38, 10), (39, 0), (76, 20)].map(|(p, s)| T::Decimal(p, s)),
    );
    let nullable: Vec<ColumnType> =
        all.iter().filter(|of| !matches!(of, T::AggregateState(_))).cloned().map(ColumnType::nullable).collect();
    all.extend(nullable);
    all.extend([T::Int(Width::W32), T::String.nullable(), T::Decimal(18, 2)].map(|of| T::Array(Box::new(of))));
    all.push(T::Array(Box::new(T::Array(Box::new(T::UInt(Width::W8))))));
    all.push(T::Map(Box::new(T::LowCardinality), Box::new(T::String)));
    all.push(T::Map(Box::new(T::String), Box::new(T::Int(Width::W64).nullable())));
    all
}

/// A random value of a type, often one at an end of its range.
fn value(of: &ColumnType, rng: &mut fastrand::Rng) -> Value {
    use ColumnType as T;
    let mut between = |low: i128, high: i128| match rng.u8(..6) {
        0 => Value::Number(low),
        1 => Value::Number(high),
        _ => Value::Number(rng.i128(low..=high)),
    };
    match of {
        T::Bool => between(0, 1),
        T::Int(width) => between(-(1 << (*width as u8 - 1)), (1 << (*width as u8 - 1)) - 1),
        T::UInt(width) => between(0, (1 << (*width as u8)) - 1),
        T::AggregateState(_) => between(0, i128::from(u64::MAX)),
        T::Date => between(0, 65_535),
        T::Date32 => between(-25_567, 120_529),
        T::DateTime(_) => between(0, i128::from(u32::MAX)),
        // 1900 to 2299, and of nanoseconds what an i64 holds: to 2262.
        T::DateTime64(scale, _) => {
            let last = if *scale == 9 { 9_223_372_035 } else { 10_413_791_999 };
            let unit = 10i128.pow(u32::from(*scale));
            between(-2_208_988_800 * unit, last * unit + unit - 1)
        }
        T::Decimal(precision @ ..=38, _) => {
            between(1 - 10i128.pow(u32::from(*precision)), 10i128.pow(u32::from(*precision)) - 1)
        }
        T::Decimal(precision, _) => {
            let digits: String = (0..*precision).map(|_| char::from(b'0' + rng.u8(..10))).collect();
            let sign = if rng.bool() { "-" } else { "" };
            Value::Wide(i256::from_string(&format!("{sign}{digits}")).expect("a number"))
        }
        T::Float32 => Value::Float(f64::from(rng.f32() * 10f32.powi(rng.i32(-30..30)))),
        T::Float64 => Value::Float(rng.f64() * 10f64.powi(rng.i32(-300..300))),
        T::FixedString(length) => Value::Bytes((0..*length).map(|_| rng.u8(..)).collect()),
        T::Uuid => Value::Bytes((0..16).map(|_| rng.u8(..)).collect()),
        T::String | T::LowCardinality => {
            // Blank lines and long texts among them: what cuts a stream of lines must not cut this one.
            let length = [0, 1, 2, 127, 128, 300][rng.usize(..6)];
            Value::Bytes((0..length).map(|_| if rng.bool() { b'\n' } else { rng.u8(..) }).collect())
        }
        T::Nullable(_) if rng.u8(..3) == 0 => Value::Null,
        T::Nullable(of) => value(of, rng),
        T::Array(of) => Value::List((0..rng.usize(..4)).map(|_| value(of, rng)).collect()),
        T::Map(key, of) => Value::Pairs((0..rng.usize(..4)).map(|_| (value(key, rng), value(of, rng))).collect()),
    }
}

/// The value as an SQL expression of its type.
fn literal(of: &ColumnType, value: &Value) -> String {
    use ColumnType as T;
    match (of, value) {
        (T::Nullable(_), Value::Null) => format!("CAST(NULL AS {of})"),
        (T::Nullable(of), value) => literal(of, value),
        (T::Bool, Value::Number(n)) => (if *n == 1 { "true" } else { "false" }).to_owned(),
        (T::AggregateState(_), Value::Number(n)) => format!("initializeAggregation('sumState', toUInt64({n}))"),
        (T::Date, Value::Number(n)) => format!("toDate(toUInt16({n}))"),
        (T::Date32, Value::Number(n)) => format!("addDays(toDate32('1970-01-01'), {n})"),
        (T::DateTime(_), Value::Number(n)) => format!("CAST(toUInt32({n}) AS {of})"),
        (T::DateTime64(scale, _), Value::Number(n)) => {
            format!("CAST(CAST({} AS Decimal128({scale})) AS {of})", quoted_decimal(&n.to_string(), *scale))
        }
        (T::Decimal(_, scale), Value::Number(n)) => format!("CAST({} AS {of})", quoted_decimal(&n.to_string(), *scale)),
        (T::Decimal(_, scale), Value::Wide(n)) => format!("CAST({} AS {of})", quoted_decimal(&n.to_string(), *scale)),
        (T::Float32 | T::Float64, Value::Float(n)) => format!("CAST('{n:e}' AS {of})"),
        (_, Value::Number(n)) => format!("CAST('{n}' AS {of})"),
        (T::Uuid, Value::Bytes(bytes)) => format!("CAST('{}' AS UUID)", dashed(bytes)),
        (_, Value::Bytes(bytes)) => format!("CAST(unhex('{}') AS {of})", hex(bytes)),
        (T::Array(item), Value::List(items)) => {
            let items: Vec<String> = items.iter().map(|value| literal(item, value)).collect();
            format!("CAST([{}] AS {of})", items.join(", "))
        }
        (T::Map(key, of), Value::Pairs(pairs)) => {
            let keys: Vec<String> = pairs.iter().map(|(value, _)| literal(key, value)).collect();
            let values: Vec<String> = pairs.iter().map(|(_, value)| literal(of, value)).collect();
            format!(
                "CAST((CAST([{}] AS Array({key})), CAST([{}] AS Array({of}))) AS Map({key}, {of}))",
                keys.join(", "),
                values.join(", ")
            )
        }
        (of, value) => panic!("{value:?} is no {of}"),
    }
}

/// An unscaled number as quoted text with its decimal point.
fn quoted_decimal(unscaled: &str, scale: u8) -> String {
    let (sign, digits) = unscaled.strip_prefix('-').map_or(("", unscaled), |digits| ("-", digits));
    let digits = format!("{digits:0>width$}", width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    if fraction.is_empty() { format!("'{sign}{whole}'") } else { format!("'{sign}{whole}.{fraction}'") }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn dashed(bytes: &[u8]) -> String {
    let text = hex(bytes);
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

/// The values as the Arrow array that carries the type.
fn array(of: &ColumnType, values: &[Value]) -> ArrayRef {
    let mut builder = builder(of);
    values.iter().for_each(|value| append(of, value, builder.as_mut()));
    // Builders know neither zones nor names of fields: the buffers are right, the type is told.
    let data = builder.finish().to_data().into_builder().data_type(of.arrow()).build().expect("the type fits");
    make_array(data)
}

fn builder(of: &ColumnType) -> Box<dyn ArrayBuilder> {
    use ColumnType as T;
    match of {
        T::Bool => Box::new(BooleanBuilder::new()),
        T::Int(Width::W8) => Box::new(Int8Builder::new()),
        T::Int(Width::W16) => Box::new(Int16Builder::new()),
        T::Int(Width::W32) => Box::new(Int32Builder::new()),
        T::Int(Width::W64) => Box::new(Int64Builder::new()),
        T::UInt(Width::W8) => Box::new(UInt8Builder::new()),
        T::UInt(Width::W16) => Box::new(UInt16Builder::new()),
        T::UInt(Width::W32) => Box::new(UInt32Builder::new()),
        T::UInt(Width::W64) => Box::new(UInt64Builder::new()),
        T::Float32 => Box::new(Float32Builder::new()),
        T::Float64 => Box::new(Float64Builder::new()),
        T::Decimal(..=38, _) => Box::new(Decimal128Builder::new().with_data_type(of.arrow())),
        T::Decimal(..) => Box::new(Decimal256Builder::new().with_data_type(of.arrow())),
        T::String | T::LowCardinality | T::AggregateState(_) => Box::new(BinaryBuilder::new()),
        T::FixedString(length) => Box::new(FixedSizeBinaryBuilder::new(i32::from(*length))),
        T::Uuid => Box::new(FixedSizeBinaryBuilder::new(16)),
        T::Date | T::Date32 => Box::new(Date32Builder::new()),
        T::DateTime(_) | T::DateTime64(0, _) => Box::new(TimestampSecondBuilder::new()),
        T::DateTime64(3, _) => Box::new(TimestampMillisecondBuilder::new()),
        T::DateTime64(6, _) => Box::new(TimestampMicrosecondBuilder::new()),
        T::DateTime64(..) => Box::new(TimestampNanosecondBuilder::new()),
        T::Array(item) => Box::new(ListBuilder::new(builder(item)).with_field(item.field("item"))),
        T::Map(key, value) => {
            let names = MapFieldNames { entry: "entries".into(), key: "key".into(), value: "value".into() };
            let map = MapBuilder::new(Some(names), builder(key), builder(value));
            Box::new(map.with_keys_field(key.field("key")).with_values_field(value.field("value")))
        }
        T::Nullable(of) => builder(of),
    }
}

/// Appends a number to whichever of these builders it is.
macro_rules! append_number {
    ($builder:expr, $value:expr, $($kind:ty),+) => {
        $(if let Some(builder) = $builder.as_any_mut().downcast_mut::<$kind>() {
            builder.append_option($value.map(|n| n.try_into().expect("in range")));
        } else)+ {
            panic!("no builder of numbers");
        }
    };
}

fn append(of: &ColumnType, value: &Value, builder: &mut dyn ArrayBuilder) {
    use ColumnType as T;
    let of = of.without_null();
    macro_rules! as_builder {
        ($kind:ty) => {
            builder.as_any_mut().downcast_mut::<$kind>().expect("the type's builder")
        };
    }
    let number = match value {
        Value::Number(n) => Some(*n),
        _ => None,
    };
    let bytes = match value {
        Value::Bytes(bytes) => Some(bytes.clone()),
        Value::Number(n) => Some(u64::try_from(*n).unwrap_or_default().to_le_bytes().to_vec()),
        _ => None,
    };
    match (of, value) {
        (T::Bool, _) => as_builder!(BooleanBuilder).append_option(number.map(|n| n == 1)),
        (T::Float32, Value::Float(n)) => as_builder!(Float32Builder).append_value(*n as f32),
        (T::Float32, _) => as_builder!(Float32Builder).append_null(),
        (T::Float64, Value::Float(n)) => as_builder!(Float64Builder).append_value(*n),
        (T::Float64, _) => as_builder!(Float64Builder).append_null(),
        (T::Decimal(..=38, _), _) => as_builder!(Decimal128Builder).append_option(number),
        (T::Decimal(..), Value::Wide(n)) => as_builder!(Decimal256Builder).append_value(*n),
        (T::Decimal(..), _) => as_builder!(Decimal256Builder).append_null(),
        (T::String | T::LowCardinality | T::AggregateState(_), _) => as_builder!(BinaryBuilder).append_option(bytes),
        (T::FixedString(_) | T::Uuid, Value::Bytes(bytes)) => {
            as_builder!(FixedSizeBinaryBuilder).append_value(bytes).expect("of its length");
        }
        (T::FixedString(_) | T::Uuid, _) => as_builder!(FixedSizeBinaryBuilder).append_null(),
        (T::Array(item), Value::List(items)) => {
            let list = as_builder!(ListBuilder<Box<dyn ArrayBuilder>>);
            items.iter().for_each(|value| append(item, value, list.values().as_mut()));
            list.append(true);
        }
        (T::Map(key, of), Value::Pairs(pairs)) => {
            let map = as_builder!(MapBuilder<Box<dyn ArrayBuilder>, Box<dyn ArrayBuilder>>);
            for (left, right) in pairs {
                append(key, left, map.keys().as_mut());
                append(of, right, map.values().as_mut());
            }
            map.append(true).expect("as many keys as values");
        }
        _ => append_number!(
            builder,
            number,
            Int8Builder,
            Int16Builder,
            Int32Builder,
            Int64Builder,
            UInt8Builder,
            UInt16Builder,
            UInt32Builder,
            UInt64Builder,
            Date32Builder,
            TimestampSecondBuilder,
            TimestampMillisecondBuilder,
            TimestampMicrosecondBuilder,
            TimestampNanosecondBuilder
        ),
    }
}

#[tokio::test]
async fn every_type_arrives_as_the_engine_reads_its_literals() {
    let seed = std::env::var("WEIR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("WEIR_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let types = types();
    let mut columns = vec![Column::new("k", ColumnType::UInt(Width::W64))];
    columns.extend(types.iter().enumerate().map(|(at, of)| Column::new(format!("c{at}"), of.clone())));
    let table = Table {
        name: Arc::from("every_type"),
        comment: "one column of each type".to_owned(),
        columns,
        key_columns: 1,
        partition_by: None,
        kind: TableKind::Keyed,
        retention_days: None,
    };
    let values: Vec<Vec<Value>> = types.iter().map(|of| (0..ROWS).map(|_| value(of, &mut rng)).collect()).collect();
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(UInt64Array::from_iter_values(0..ROWS as u64))];
    arrays.extend(types.iter().zip(&values).map(|(of, values)| array(of, values)));
    let names = table.columns.iter().map(|column| column.name.as_str());
    let nullable = table.columns.iter().map(|column| column.column_type.is_nullable());
    let batch = RecordBatch::try_from_iter_with_nullable(
        names.zip(arrays).zip(nullable).map(|((name, array), nullable)| (name, array, nullable)),
    )
    .expect("columns of one length");

    let client = database().await;
    let layout = Layout { tables: vec![table.clone()], ..Layout::default() };
    layout.apply(&client).await.expect("created");
    let mut out = Vec::new();
    // In two slices, so that offsets into the arrays count, too.
    for rows in [batch.slice(0, 77), batch.slice(77, ROWS - 77)] {
        let changes = Changes { table: table.name.clone(), rows, deleted: None };
        TableEncoder::new(table.clone()).encode(&changes, Version(1), &mut out).expect("fits");
    }
    let delivery = Delivery { epoch: Epoch(1), rows: &out };
    TableSink::new(client.clone(), &table).deliver(delivery).await.expect("delivered");

    client
        .execute(&format!("CREATE TABLE {0}.expected AS {0}.every_type__rows ENGINE = Memory", client.database()))
        .await
        .expect("a table");
    let rows: Vec<String> = (0..ROWS)
        .map(|row| {
            let cells: Vec<String> = types.iter().zip(&values).map(|(of, values)| literal(of, &values[row])).collect();
            format!("({row}, {}, 1, 0)", cells.join(", "))
        })
        .collect();
    for rows in rows.chunks(20) {
        let insert = format!("INSERT INTO {}.expected VALUES {}", client.database(), rows.join(", "));
        client.execute(&insert).await.expect("the literals are read");
    }
    for (at, of) in types.iter().enumerate() {
        let column = |table: &str| match of {
            ColumnType::AggregateState(_) => format!("finalizeAggregation({table}.c{at})"),
            _ => format!("{table}.c{at}"),
        };
        let (arrived, expected) = (column("every_type__rows"), column("expected"));
        let differing = lines(
            &client,
            &format!(
                "SELECT k, hex(ifNull(toString({arrived}), 'null')) AS arrived, hex(ifNull(toString({expected}), 'null')) AS wanted \
                 FROM {{db}}.every_type__rows JOIN {{db}}.expected USING k WHERE arrived != wanted LIMIT 3"
            ),
        )
        .await;
        assert!(differing.is_empty(), "{of}: {differing:?}");
    }
    let count = lines(&client, "SELECT count() FROM {db}.every_type").await;
    assert_eq!(count, [format!("({ROWS})")]);
}
