//! Files and schemas that other programs wrote: Avro's own test data.

use std::collections::HashMap;
use std::sync::Arc;

use apache_avro::types::Value;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use weir_schemas::avro::{Decoder, ReaderSchema, Schema, can_read};

use crate::cells::{Cell, row};

/// The datums of an object container of one uncompressed or deflated block after another, and its schema's text. They
/// are read and written again one by one, which gives the bytes of each: the writer's blocks don't separate them.
fn datums(file: &[u8]) -> (String, Vec<Vec<u8>>, Vec<Value>) {
    crate::cap_the_oracle();
    let reader = apache_avro::Reader::new(file).expect("an object container");
    let schema = reader.writer_schema().clone();
    let text = serde_json::to_string(&schema).expect("JSON");
    let values: Vec<Value> = reader.map(|value| value.expect("a value")).collect();
    let datums = values
        .iter()
        .map(|value| {
            let writer = apache_avro::writer::datum::GenericDatumWriter::builder(&schema).build().expect("a writer");
            writer.write_value_to_vec(value.clone()).expect("it was read with this schema")
        })
        .collect();
    (text, datums, values)
}

#[test]
fn the_weather_files_read_as_their_json_says() {
    let expected: Vec<serde_json::Value> =
        include_str!("../data/weather.json").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let files: [(&[u8], bool); 3] = [
        (include_bytes!("../data/weather.avro"), false),
        (include_bytes!("../data/weather-deflate.avro"), false),
        (include_bytes!("../data/weather-sorted.avro"), true),
    ];
    for (file, is_sorted) in files {
        let (text, datums, _) = datums(file);
        let reader = Arc::new(ReaderSchema::parse(&text).expect("columns"));
        let names: Vec<&str> = reader.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["station", "time", "temp"]);
        let decoder = Decoder::new(&Schema::parse(&text).expect("a schema"), reader, &[true; 3]).expect("compatible");
        let decoded = decoder.decode(&datums).expect("small");
        assert!(decoded.refused.is_empty(), "{:?}", decoded.refused);
        let batch = decoded.batch;
        let mut rows: Vec<serde_json::Value> = (0..batch.num_rows())
            .map(|row| {
                serde_json::json!({
                    "station": String::from_utf8_lossy(batch.column(0).as_binary::<i32>().value(row)),
                    "time": batch.column(1).as_primitive::<Int64Type>().value(row),
                    "temp": batch.column(2).as_primitive::<Int32Type>().value(row),
                })
            })
            .collect();
        let mut expected = expected.clone();
        if is_sorted {
            let key = |value: &serde_json::Value| value.to_string();
            rows.sort_by_key(key);
            expected.sort_by_key(key);
        }
        assert_eq!(rows, expected);
    }
}

#[test]
fn a_union_of_several_types_is_read_as_the_one_that_is_wanted_and_the_others_are_refused() {
    let (text, datums, values) = datums(include_bytes!("../data/with_union.avro"));
    assert!(ReaderSchema::parse(&text).is_err());
    let reader = r#"{"type": "record", "name": "unionfields", "fields": [{"name": "data1", "type": "string"}]}"#;
    let reader = Arc::new(ReaderSchema::parse(reader).expect("columns"));
    let decoder = Decoder::new(&Schema::parse(&text).expect("a schema"), reader, &[true]).expect("some records fit");
    let decoded = decoder.decode(&datums).expect("small");
    let texts: Vec<Option<Vec<u8>>> = values
        .iter()
        .map(|value| match value {
            Value::Record(fields) => match &fields[0].1 {
                Value::Union(_, inner) => match &**inner {
                    Value::String(text) => Some(text.clone().into_bytes()),
                    _ => None,
                },
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        })
        .collect();
    let wanted: Vec<Cell> = texts.iter().flatten().cloned().map(Cell::Bytes).collect();
    let got: Vec<Cell> = (0..decoded.batch.num_rows()).flat_map(|at| row(&decoded.batch, at)).collect();
    assert_eq!(got, wanted);
    assert_eq!(decoded.refused.len(), texts.iter().filter(|text| text.is_none()).count());
    assert!(!got.is_empty());
}

#[test]
fn the_interop_schema_is_a_writers_but_tells_a_reader_every_problem_at_once() {
    let text = include_str!("../data/interop.avsc");
    let problems = ReaderSchema::parse(text).expect_err("unions, a map of records, recursion").0;
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["nullField", "mapField{}", "unionField", "recordField.children[]"], "{problems:?}");

    // Recursion included, all of it can be walked by a reader of one field.
    let reader = r#"{"type": "record", "name": "Interop", "fields": [{"name": "doubleField", "type": "double"}]}"#;
    let reader = Arc::new(ReaderSchema::parse(reader).expect("columns"));
    let decoder = Decoder::new(&Schema::parse(text).expect("a schema"), reader, &[true]).expect("compatible");
    let schema = apache_avro::Schema::parse_str(text).expect("a schema");
    let node = |label: &str, children| {
        Value::Record(vec![("label".into(), Value::String(label.into())), ("children".into(), Value::Array(children))])
    };
    let foo = Value::Record(vec![("label".into(), Value::String("x".into()))]);
    let value = Value::Record(vec![
        ("intField".into(), Value::Int(12)),
        ("longField".into(), Value::Long(15_234_324)),
        ("stringField".into(), Value::String("hey".into())),
        ("boolField".into(), Value::Boolean(true)),
        ("floatField".into(), Value::Float(1234.0)),
        ("doubleField".into(), Value::Double(-5432.6)),
        ("bytesField".into(), Value::Bytes(vec![0xff])),
        ("nullField".into(), Value::Null),
        ("arrayField".into(), Value::Array(vec![Value::Double(5.0)])),
        ("mapField".into(), Value::Map(HashMap::from([("a".into(), foo)]))),
        ("unionField".into(), Value::Union(2, Box::new(Value::Array(vec![Value::Bytes(vec![1])])))),
        ("enumField".into(), Value::Enum(2, "C".into())),
        ("fixedField".into(), Value::Fixed(16, vec![9; 16])),
        ("recordField".into(), node("blah", vec![node("inner", vec![node("innermost", vec![])])])),
    ]);
    let writer = apache_avro::writer::datum::GenericDatumWriter::builder(&schema).build().expect("a writer");
    let datum = writer.write_value_to_vec(value).expect("a value of the schema");
    let decoded = decoder.decode(&[&datum]).expect("small");
    assert_eq!(decoded.refused, []);
    assert_eq!(row(&decoded.batch, 0), [Cell::Float((-5432.6f64).to_bits())]);
    let decoded = decoder.decode(&[&datum[..datum.len() - 1]]).expect("small");
    assert_eq!(decoded.refused.len(), 1, "a record cut behind the last wanted field is refused, too");
}

/// Weir compares schemas by [`can_read`] and never by fingerprint, so of this list it uses the pairs: a schema and its
/// canonical form are the same to it, both ways.
#[test]
fn a_schema_and_its_canonical_form_read_each_other() {
    let mut pairs = 0;
    let mut input = None;
    let mut lines = include_str!("../data/schema-tests.txt").lines();
    while let Some(line) = lines.next() {
        if let Some(text) = line.strip_prefix("<<INPUT") {
            let mut text = text.to_owned();
            if text.trim().is_empty() {
                text = lines.by_ref().take_while(|line| *line != "INPUT").collect::<Vec<_>>().join("\n");
            }
            input = Some(Schema::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}")));
        } else if let (Some(canonical), Some(schema)) = (line.strip_prefix("<<canonical "), &input) {
            let canonical = Schema::parse(canonical).unwrap_or_else(|error| panic!("{canonical}: {error}"));
            assert_eq!(can_read(schema, &canonical), Ok(()));
            assert_eq!(can_read(&canonical, schema), Ok(()));
            assert_eq!(schema.name(), canonical.name());
            pairs += 1;
        }
    }
    assert_eq!(pairs, 34);
}
