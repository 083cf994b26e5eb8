//! One table of many types with nulls and extreme values: as an Arrow batch for us, as SQL for the engine.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, MapBuilder};
use arrow_array::*;
use arrow_schema::{DataType, Field};
use weir_pipeline::sql::SourceColumns;
use weir_schemas::stage::{Column, event_schema};
use weir_schemas::types::{ColumnType, Width};

/// A cell.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Bytes(Vec<u8>),
    Map(Vec<(String, String)>),
}

/// A small generator: the same numbers for the same seed on every machine.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// The table's columns besides its row number: name and type.
pub(crate) fn columns() -> Vec<(&'static str, ColumnType)> {
    use ColumnType as T;
    let utc = || Some(Arc::from("UTC"));
    vec![
        ("ts", T::DateTime64(3, utc())),
        ("i8", T::Int(Width::W8)),
        ("i16", T::Int(Width::W16)),
        ("i32", T::Int(Width::W32)),
        ("i64", T::Int(Width::W64)),
        ("u8", T::UInt(Width::W8)),
        ("u16", T::UInt(Width::W16)),
        ("u32", T::UInt(Width::W32)),
        ("u64", T::UInt(Width::W64)),
        ("f32", T::Float32),
        ("f64", T::Float64),
        ("flag", T::Bool),
        ("s", T::String),
        ("lc", T::LowCardinality),
        ("d9", T::Decimal(9, 2)),
        ("d10", T::Decimal(10, 2)),
        ("d18", T::Decimal(18, 4)),
        ("d38", T::Decimal(38, 6)),
        ("day", T::Date),
        ("dt", T::DateTime(Some(Arc::from("Europe/Berlin")))),
        ("d6", T::DateTime64(6, Some(Arc::from("America/New_York")))),
        ("props", T::Map(Box::new(T::String), Box::new(T::String))),
        ("n64", T::Int(Width::W64).nullable()),
        ("nf", T::Float64.nullable()),
        ("ns", T::String.nullable()),
        ("nlc", T::LowCardinality.nullable()),
        ("nd", T::Decimal(10, 2).nullable()),
        ("nb", T::Bool.nullable()),
        ("nts", T::DateTime64(3, utc()).nullable()),
        ("fs", T::FixedString(4)),
        ("id", T::Uuid),
    ]
}

/// What the planner is told of the table.
pub(crate) fn source() -> SourceColumns {
    let columns = columns().into_iter().map(|(name, of)| Column::new(name, of)).collect();
    SourceColumns { columns, event_time: "ts".into() }
}

/// The cells, row by row.
pub(crate) fn rows(count: usize, seed: u64) -> Vec<Vec<Cell>> {
    let mut random = Random(seed);
    (0..count).map(|_| columns().iter().map(|(_, of)| cell(of, &mut random)).collect()).collect()
}

fn cell(of: &ColumnType, random: &mut Random) -> Cell {
    match of {
        ColumnType::Nullable(inner) => {
            match (random.below(4), &**inner) {
                (0, _) => Cell::Null,
                // Bytes that aren't UTF-8 stand in `ns` only: beside them in one column, ClickHouse 26.7's ILIKE misses
                // matches in other rows.
                (1, ColumnType::String) => Cell::Bytes(vec![random.next() as u8, b'a', random.next() as u8]),
                _ => cell(inner, random),
            }
        }
        ColumnType::Bool => Cell::Bool(random.below(2) == 0),
        ColumnType::Int(width) => {
            Cell::Int(integer(-(1i128 << (*width as u8 - 1)), (1i128 << (*width as u8 - 1)) - 1, random))
        }
        ColumnType::UInt(width) => Cell::Int(integer(0, (1i128 << *width as u8) - 1, random)),
        ColumnType::Float32 => Cell::Float(f64::from(float(random) as f32)),
        ColumnType::Float64 => Cell::Float(float(random)),
        ColumnType::Decimal(precision, _) => {
            // Mostly amounts; now and then as large as the declared digits allow.
            let digits = if random.below(8) == 0 { u32::from(*precision) } else { u32::from(*precision).min(6) };
            let bound = 10i128.pow(digits) - 1;
            Cell::Int(integer(-bound, bound, random))
        }
        ColumnType::String => Cell::Bytes(string(random)),
        ColumnType::LowCardinality => {
            Cell::Bytes(random.pick(&["", "a", "Ab", "purchase", "view", "x%_y"]).as_bytes().to_vec())
        }
        ColumnType::FixedString(size) => {
            let mut bytes = string(random);
            bytes.resize(usize::from(*size), 0);
            Cell::Bytes(bytes)
        }
        ColumnType::Uuid => Cell::Bytes(random.next().to_be_bytes().repeat(2)),
        ColumnType::Date => Cell::Int(random.below(65_536) as i128),
        // Up to 2095: chrono-tz has no transitions after 2099.
        ColumnType::DateTime(_) => Cell::Int((random.next() % 3_944_678_400) as i128),
        // 1930 to 2090: within what zone tables of both sides cover in detail.
        ColumnType::DateTime64(scale, _) => {
            let unit = 10i128.pow(u32::from(*scale));
            let seconds = i128::from(random.next() % 5_049_129_600) - 1_262_304_000i128;
            Cell::Int(seconds * unit + (i128::from(random.next()) % unit))
        }
        ColumnType::Map(..) => Cell::Map(
            ["country", "plan", "a", "country"][random.below(3)..]
                .iter()
                .map(|key| ((*key).to_owned(), random.pick(&["", "DE", "us", "12", "1.5"]).to_owned()))
                .collect(),
        ),
        other => panic!("no cells of {other}"),
    }
}

fn integer(least: i128, most: i128, random: &mut Random) -> i128 {
    match random.below(6) {
        0 => least,
        1 => most,
        2 => 0i128.clamp(least, most),
        3 => i128::from(random.next() as i64 % 100).clamp(least, most),
        _ => {
            least
                + (i128::from(random.next() >> 1) << 64 | i128::from(random.next()))
                    .rem_euclid((most / 2 - least / 2).max(1))
        }
    }
}

fn float(random: &mut Random) -> f64 {
    match random.below(13) {
        9 => 2f64.powi(random.below(80) as i32 - 50),
        0 => f64::NAN,
        1 => f64::INFINITY,
        2 => -0.0,
        3 => 0.5 + random.below(9) as f64 - 4.0,
        4 => 9_007_199_254_740_993.0,
        5 => f64::from_bits(random.next() & 0x7fef_ffff_ffff_ffff),
        6 => (random.next() as i64) as f64,
        7 => random.below(1000) as f64 / 100.0,
        8 => 1e-7 * random.below(100) as f64,
        _ => (random.next() as i32) as f64 / 1000.0,
    }
}

fn string(random: &mut Random) -> Vec<u8> {
    match random.below(10) {
        0 => Vec::new(),
        1 => random
            .pick(&[
                "12",
                "-7",
                "+5",
                "1.5",
                "007",
                "9223372036854775808",
                "1e3",
                "nan",
                "-",
                ".5",
                "1e",
                "inf",
                "--1",
                "1.2.3",
                "99999999999999999.99",
                "15e-3",
                "0e5",
                "-0",
                "5.",
            ])
            .as_bytes()
            .to_vec(),
        2 => "_ü%".as_bytes().to_vec(),
        3 => "Grüße \u{17f}\u{212a}".as_bytes().to_vec(),
        4 => b"a%b_c\\d".to_vec(),
        5 => random.pick(&["purchase", "view", "PURCHASE", "ski", "SKI"]).as_bytes().to_vec(),
        _ => (0..random.below(8)).map(|_| *b"abAB_% k".get(random.below(8)).unwrap_or(&b'a')).collect(),
    }
}

/// The table as the engine gets it: exact bits, whatever the parser of literals does.
pub(crate) fn insert_statement(table: &str, rows: &[Vec<Cell>]) -> String {
    let columns = columns();
    let lines: Vec<String> = rows
        .iter()
        .enumerate()
        .map(|(number, row)| {
            let cells: Vec<String> = row.iter().zip(&columns).map(|(cell, (_, of))| sql(cell, of)).collect();
            format!("SELECT {number}, {}", cells.join(", "))
        })
        .collect();
    format!("INSERT INTO {table} {}", lines.join(" UNION ALL "))
}

/// The statement that makes the table.
pub(crate) fn create_statement(table: &str) -> String {
    let columns: Vec<String> = columns().iter().map(|(name, of)| format!("{name} {of}")).collect();
    format!("CREATE TABLE {table} (row UInt32, {}) ENGINE = MergeTree ORDER BY row", columns.join(", "))
}

fn sql(cell: &Cell, of: &ColumnType) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match (cell, of) {
        (Cell::Null, of) => format!("CAST(NULL AS {of})"),
        (cell, ColumnType::Nullable(inner)) => format!("CAST({} AS {of})", sql(cell, inner)),
        (Cell::Bool(value), _) => value.to_string(),
        (Cell::Float(value), ColumnType::Float32) => {
            format!("reinterpretAsFloat32(toUInt32({}))", (*value as f32).to_bits())
        }
        (Cell::Float(value), _) => format!("reinterpretAsFloat64(toUInt64({}))", value.to_bits()),
        (Cell::Int(value), ColumnType::Decimal(precision, scale)) => {
            let bits = if *precision <= 9 {
                32
            } else if *precision <= 18 {
                64
            } else {
                128
            };
            format!("reinterpret(toInt{bits}('{value}'), 'Decimal({precision}, {scale})')")
        }
        (Cell::Int(value), ColumnType::Date) => format!("toDate(toUInt16({value}))"),
        (Cell::Int(value), ColumnType::DateTime(_)) => format!("CAST(toUInt32({value}) AS {of})"),
        (Cell::Int(value), ColumnType::DateTime64(..)) => {
            format!("reinterpret(toInt64({value}), '{}')", of.to_string().replace('\'', "\\'"))
        }
        (Cell::Int(value), _) => format!("CAST('{value}' AS {of})"),
        (Cell::Bytes(bytes), ColumnType::Uuid) => {
            let text = hex(bytes);
            format!("toUUID('{}-{}-{}-{}-{}')", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
        }
        (Cell::Bytes(bytes), of) => format!("CAST(unhex('{}') AS {of})", hex(bytes)),
        (Cell::Map(entries), _) => {
            let parts: Vec<String> = entries.iter().map(|(key, value)| format!("'{key}', '{value}'")).collect();
            format!("CAST(map({}) AS {of})", parts.join(", "))
        }
    }
}

/// The same rows as a batch of events.
pub(crate) fn batch(rows: &[Vec<Cell>]) -> RecordBatch {
    let columns = columns();
    let schema = event_schema(&source().columns);
    let count = rows.len();
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(UInt16Array::from(vec![0; count])),
        Arc::new(Int32Array::from(vec![0; count])),
        Arc::new(Int64Array::from(vec![0; count])),
        Arc::new(Int64Array::from(vec![0; count])),
        Arc::new(UInt32Array::from(vec![0; count])),
        Arc::new(Int64Array::from(vec![0; count])),
    ];
    for (at, (_, of)) in columns.iter().enumerate() {
        let cells: Vec<&Cell> = rows.iter().map(|row| &row[at]).collect();
        arrays.push(array(of, &cells));
    }
    RecordBatch::try_new(schema, arrays).expect("the arrays fit the schema")
}

fn array(of: &ColumnType, cells: &[&Cell]) -> ArrayRef {
    let ints = || cells.iter().map(|cell| if let Cell::Int(value) = cell { Some(*value) } else { None });
    let floats = || cells.iter().map(|cell| if let Cell::Float(value) = cell { Some(*value) } else { None });
    let bytes = || cells.iter().map(|cell| if let Cell::Bytes(value) = cell { Some(value.as_slice()) } else { None });
    let data_type = of.arrow();
    match &data_type {
        DataType::Boolean => Arc::new(BooleanArray::from_iter(
            cells.iter().map(|cell| if let Cell::Bool(value) = cell { Some(*value) } else { None }),
        )),
        DataType::Int8 => Arc::new(Int8Array::from_iter(ints().map(|value| value.map(|value| value as i8)))),
        DataType::Int16 => Arc::new(Int16Array::from_iter(ints().map(|value| value.map(|value| value as i16)))),
        DataType::Int32 => Arc::new(Int32Array::from_iter(ints().map(|value| value.map(|value| value as i32)))),
        DataType::Int64 => Arc::new(Int64Array::from_iter(ints().map(|value| value.map(|value| value as i64)))),
        DataType::UInt8 => Arc::new(UInt8Array::from_iter(ints().map(|value| value.map(|value| value as u8)))),
        DataType::UInt16 => Arc::new(UInt16Array::from_iter(ints().map(|value| value.map(|value| value as u16)))),
        DataType::UInt32 => Arc::new(UInt32Array::from_iter(ints().map(|value| value.map(|value| value as u32)))),
        DataType::UInt64 => Arc::new(UInt64Array::from_iter(ints().map(|value| value.map(|value| value as u64)))),
        DataType::Float32 => Arc::new(Float32Array::from_iter(floats().map(|value| value.map(|value| value as f32)))),
        DataType::Float64 => Arc::new(Float64Array::from_iter(floats())),
        DataType::Decimal128(precision, scale) => Arc::new(
            Decimal128Array::from_iter(ints()).with_precision_and_scale(*precision, *scale).expect("a decimal type"),
        ),
        DataType::Date32 => Arc::new(Date32Array::from_iter(ints().map(|value| value.map(|value| value as i32)))),
        DataType::Timestamp(..) => {
            let ticks: ArrayRef = Arc::new(Int64Array::from_iter(ints().map(|value| value.map(|value| value as i64))));
            let data = ticks.to_data().into_builder().data_type(data_type.clone()).build().expect("the same layout");
            make_array(data)
        }
        DataType::Binary => Arc::new(BinaryArray::from_iter(bytes())),
        DataType::FixedSizeBinary(size) => {
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes(), *size).expect("cells of that size"))
        }
        DataType::Map(entries, _) => {
            let DataType::Struct(fields) = entries.data_type() else { panic!("a map has entries") };
            let names = arrow_array::builder::MapFieldNames {
                entry: "entries".into(),
                key: "key".into(),
                value: "value".into(),
            };
            let mut map = MapBuilder::new(Some(names), BinaryBuilder::new(), BinaryBuilder::new())
                .with_values_field(Field::clone(&fields[1]));
            for cell in cells {
                if let Cell::Map(entries) = cell {
                    for (key, value) in entries {
                        map.keys().append_value(key);
                        map.values().append_value(value);
                    }
                }
                map.append(true).expect("as many keys as values");
            }
            Arc::new(map.finish())
        }
        other => panic!("no array of {other}"),
    }
}
