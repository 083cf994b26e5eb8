//! Compatibility against the 131 pairs of Avro's own Python tests, and what Weir adds for logical types.

use serde_json::Value;
use weir_schemas::avro::{Schema, can_read};

#[test]
fn the_131_pairs_of_avros_own_tests_get_their_verdict() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../data/reader_writer_cases.json")).expect("JSON");
    assert_eq!(cases.len(), 131);
    let mut compatible = 0;
    for (index, case) in cases.iter().enumerate() {
        let schema =
            |key: &str| Schema::parse(&case[key].to_string()).unwrap_or_else(|error| panic!("{index} {key}: {error}"));
        let verdict = can_read(&schema("reader"), &schema("writer"));
        let expected = case["expected"] == "compatible";
        assert_eq!(verdict.is_ok(), expected, "{index}: {case}\n{verdict:?}");
        compatible += usize::from(expected);
    }
    assert_eq!(compatible, 70);
}

#[test]
fn every_incompatibility_is_told_with_its_path() {
    let schema = |text: &str| Schema::parse(text).expect("a schema");
    let writer = schema(
        r#"{"type": "record", "name": "R", "fields": [
            {"name": "a", "type": "string"},
            {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "L", "fields": [
                {"name": "price", "type": "double"}, {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}]}}},
            {"name": "kind", "type": {"type": "enum", "name": "K", "symbols": ["A", "B"]}}]}"#,
    );
    let reader = schema(
        r#"{"type": "record", "name": "R", "fields": [
            {"name": "a", "type": "int"},
            {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "L", "fields": [
                {"name": "price", "type": "long"}, {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}}},
            {"name": "kind", "type": {"type": "enum", "name": "K", "symbols": ["A"]}},
            {"name": "new", "type": "int"}]}"#,
    );
    let found = can_read(&reader, &writer).expect_err("incompatible");
    let paths: Vec<&str> = found.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(paths, ["a", "lines[].price", "lines[].at", "kind", "new"], "{found:?}");
    let at = found.iter().find(|one| one.path == "lines[].at").map(ToString::to_string);
    assert_eq!(
        at.as_deref(),
        Some(
            "field `lines[].at`: the reader's timestamp-millis is coarser than the writer's timestamp-micros; read it as timestamp-micros"
        )
    );
}

#[test]
fn logical_types_that_would_be_read_in_another_unit_are_incompatible() {
    let verdict = |reader: &str, writer: &str| {
        let schema = |text: &str| Schema::parse(text).expect("a schema");
        can_read(&schema(reader), &schema(writer)).is_ok()
    };
    let logical = |base: &str, name: &str| format!(r#"{{"type": "{base}", "logicalType": "{name}"}}"#);
    let decimal = |precision: u32, scale: u32| {
        format!(r#"{{"type": "bytes", "logicalType": "decimal", "precision": {precision}, "scale": {scale}}}"#)
    };
    let fixed = r#"{"type": "fixed", "name": "F", "size": 9, "logicalType": "decimal", "precision": 9, "scale": 2}"#;
    assert!(verdict(&logical("long", "timestamp-micros"), &logical("long", "timestamp-millis")));
    assert!(!verdict(&logical("long", "timestamp-millis"), &logical("long", "timestamp-micros")));
    assert!(verdict(&logical("long", "timestamp-millis"), "\"long\""));
    assert!(verdict("\"long\"", &logical("long", "timestamp-millis")));
    assert!(!verdict(&logical("long", "timestamp-millis"), &logical("int", "date")));
    assert!(!verdict(&logical("long", "timestamp-micros"), &logical("long", "time-micros")));
    assert!(verdict(&logical("long", "time-micros"), &logical("int", "time-millis")));
    assert!(verdict(&decimal(12, 2), &decimal(9, 2)));
    assert!(verdict(&decimal(9, 2), &decimal(12, 2)));
    assert!(!verdict(&decimal(9, 3), &decimal(9, 2)));
    assert!(verdict(&decimal(9, 2), fixed));
    assert!(!verdict(&decimal(9, 4), fixed));
    assert!(verdict(&decimal(9, 2), "\"bytes\""));
}
