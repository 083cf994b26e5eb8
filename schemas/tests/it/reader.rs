//! Columns of a reader schema, against the table of types in the crate's documentation.

use weir_schemas::avro::ReaderSchema;

fn columns(fields: &str) -> Vec<(String, String)> {
    let text = format!(r#"{{"type": "record", "name": "R", "namespace": "n", "fields": [{fields}]}}"#);
    let reader = ReaderSchema::parse(&text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    reader.columns.into_iter().map(|column| (column.name, column.column_type.to_string())).collect()
}

fn column(of: &str) -> String {
    let mut all = columns(&format!(r#"{{"name": "f", "type": {of}}}"#));
    assert_eq!(all.len(), 1);
    all.remove(0).1
}

#[test]
fn each_type_becomes_the_column_that_the_table_says() {
    let logical = |base: &str, name: &str| column(&format!(r#"{{"type": "{base}", "logicalType": "{name}"}}"#));
    assert_eq!(column("\"boolean\""), "Bool");
    assert_eq!(column("\"int\""), "Int32");
    assert_eq!(column("\"long\""), "Int64");
    assert_eq!(column("\"float\""), "Float32");
    assert_eq!(column("\"double\""), "Float64");
    assert_eq!(column("\"string\""), "String");
    assert_eq!(column("\"bytes\""), "String");
    assert_eq!(column(r#"{"type": "fixed", "name": "F", "size": 3}"#), "FixedString(3)");
    let kind = r#"{"type": "enum", "name": "E", "symbols": ["A"]}"#;
    assert_eq!(column(kind), "LowCardinality(String)");
    assert_eq!(column(&format!(r#"["null", {kind}]"#)), "LowCardinality(Nullable(String))");
    assert_eq!(column(r#"["null", "long"]"#), "Nullable(Int64)");
    assert_eq!(column(r#"["long", "null"]"#), "Nullable(Int64)");
    assert_eq!(column(r#"["long"]"#), "Int64");
    assert_eq!(
        column(r#"{"type": "bytes", "logicalType": "decimal", "precision": 76, "scale": 10}"#),
        "Decimal(76, 10)"
    );
    assert_eq!(logical("string", "uuid"), "UUID");
    assert_eq!(logical("int", "date"), "Date32");
    assert_eq!(logical("int", "time-millis"), "Int32");
    assert_eq!(logical("long", "time-micros"), "Int64");
    for local in ["", "local-"] {
        assert_eq!(logical("long", &format!("{local}timestamp-millis")), "DateTime64(3, 'UTC')");
        assert_eq!(logical("long", &format!("{local}timestamp-micros")), "DateTime64(6, 'UTC')");
        assert_eq!(logical("long", &format!("{local}timestamp-nanos")), "DateTime64(9, 'UTC')");
    }
    assert_eq!(column(r#"{"type": "fixed", "name": "F", "size": 12, "logicalType": "duration"}"#), "FixedString(12)");
    assert_eq!(column(r#"{"type": "array", "items": ["null", "int"]}"#), "Array(Nullable(Int32))");
    assert_eq!(column(r#"["null", {"type": "array", "items": "int"}]"#), "Array(Int32)");
    assert_eq!(
        column(r#"{"type": "map", "values": {"type": "array", "items": "string"}}"#),
        "Map(String, Array(String))"
    );
    assert_eq!(logical("string", "something-of-ours"), "String");
}

#[test]
fn a_column_says_what_its_field_says_and_in_which_unit_as_far_as_the_schema_tells() {
    let said = |field: &str| {
        let text = format!(r#"{{"type": "record", "name": "R", "fields": [{{"name": "f", {field}}}]}}"#);
        let mut reader = ReaderSchema::parse(&text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        reader.columns.remove(0).comment
    };
    let long = r#""type": {"type": "long", "logicalType": "timestamp-millis"}"#;
    for (field, expected) in [
        (r#""type": "long""#.to_owned(), ""),
        (r#""type": "long", "doc": "What it weighs.""#.to_owned(), "What it weighs."),
        (r#""type": "long", "doc": "What it weighs.", "unit": "grams""#.to_owned(), "What it weighs, in grams"),
        (r#""type": ["null", "long"], "unit": "EUR""#.to_owned(), "in EUR"),
        (r#""type": {"type": "array", "items": "long"}, "doc": "Each", "unit": "ms""#.to_owned(), "Each, in ms"),
        // A property of somebody else's that is no text means something else.
        (r#""type": "long", "unit": 7"#.to_owned(), ""),
        // The column's type tells it.
        (long.to_owned(), ""),
        (long.replace("timestamp", "local-timestamp"), "a local time, shown as if it were UTC"),
        (
            r#""type": ["null", {"type": "int", "logicalType": "time-millis"}], "doc": "Opens at""#.to_owned(),
            "Opens at, in milliseconds since midnight",
        ),
    ] {
        assert_eq!(said(&field), expected, "{field}");
    }
}

#[test]
fn nested_records_become_dotted_columns_and_lists_of_records_parallel_arrays() {
    let found = columns(
        r#"{"name": "user", "type": ["null", {"type": "record", "name": "U", "fields": [
                {"name": "id", "type": "long"}, {"name": "tags", "type": {"type": "map", "values": "string"}}]}]},
           {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "L", "fields": [
                {"name": "sku", "type": "string"},
                {"name": "taxes", "type": {"type": "array", "items": "double"}},
                {"name": "by", "type": ["null", "n.U"]}]}}}"#,
    );
    let found: Vec<(&str, &str)> = found.iter().map(|(name, of)| (name.as_str(), of.as_str())).collect();
    assert_eq!(
        found,
        [
            ("user.id", "Nullable(Int64)"),
            ("user.tags", "Map(String, String)"),
            ("lines.sku", "Array(String)"),
            ("lines.taxes", "Array(Array(Float64))"),
            ("lines.by.id", "Array(Nullable(Int64))"),
            ("lines.by.tags", "Array(Map(String, String))"),
        ]
    );
}

#[test]
fn every_problem_is_told_at_once_with_its_path_and_a_way_out() {
    let text = r#"{"type": "record", "name": "R", "fields": [
        {"name": "several", "type": ["null", "int", "string"]},
        {"name": "self", "type": ["null", "R"]},
        {"name": "records", "type": {"type": "map", "values": {"type": "record", "name": "V", "fields": [{"name": "v", "type": "int"}]}}},
        {"name": "wide", "type": {"type": "bytes", "logicalType": "decimal", "precision": 77}},
        {"name": "odd", "type": {"type": "string", "logicalType": "timestamp-millis"}},
        {"name": "big", "type": {"type": "bytes", "logicalType": "big-decimal"}},
        {"name": "late", "type": "int", "default": "x"},
        {"name": "r", "type": {"type": "record", "name": "Two", "fields": [
            {"name": "a", "type": {"type": "array", "items": "int"}}, {"name": "b", "type": {"type": "array", "items": "int"}},
            {"name": "c", "type": {"type": "map", "values": "int"}}]}}]}"#;
    let problems = ReaderSchema::parse(text).expect_err("nine problems").0;
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let expected = [
        ("several", "as the one type that is wanted"),
        ("self", "leave this field out"),
        ("records{}", "use an array of records"),
        ("wide", "at most 76 digits"),
        ("odd", "can't stand on string"),
        ("big", "use decimal with a fixed scale"),
        ("late", "is not a value of type int"),
        ("r.b", "move one of them out of the record"),
        ("r.c", "move one of them out of the record"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for ((path, way_out), told) in expected.iter().zip(&told) {
        assert!(told.starts_with(&format!("field `{path}`: ")) && told.contains(way_out), "{path}: {told}");
    }
}

#[test]
fn a_schema_that_is_wrong_itself_tells_every_problem() {
    let text = r#"{"type": "record", "name": "R", "fields": [
        {"name": "a b", "type": "int"}, {"name": "c", "type": "Unknown"}, {"name": "c", "type": "int"},
        {"name": "d", "type": {"type": "enum", "name": "E", "symbols": ["A", "A"], "default": "B"}},
        {"name": "e", "type": ["int", "int"]}, {"name": "f"}, {"name": "g", "type": {"type": "array"}}]}"#;
    let problems = ReaderSchema::parse(text).expect_err("wrong").0;
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["a b", "c", "c", "d", "d", "e", "f", "g"], "{problems:?}");
    assert!(ReaderSchema::parse("not a schema").is_err());
    assert!(ReaderSchema::parse("\"string\"").is_err());
    assert!(ReaderSchema::parse(&"[".repeat(100_000)).is_err());
}

#[test]
fn types_within_types_that_name_billions_of_columns_are_refused_quickly() {
    let mut fields = String::from(
        r#"{"name": "x0", "type": {"type": "record", "name": "R0", "fields": [{"name": "leaf", "type": "int"}]}}"#,
    );
    for level in 1..40 {
        let before = level - 1;
        fields += &format!(
            r#", {{"name": "x{level}", "type": {{"type": "record", "name": "R{level}", "fields": [
                {{"name": "a", "type": "R{before}"}}, {{"name": "b", "type": "R{before}"}}]}}}}"#
        );
    }
    let text = format!(r#"{{"type": "record", "name": "Top", "fields": [{fields}]}}"#);
    let problems = ReaderSchema::parse(&text).expect_err("too many columns");
    assert!(problems.to_string().contains("more than 2000 columns"), "{problems}");
}

#[test]
fn a_chain_of_names_is_as_deep_as_types_written_within_each_other() {
    let chain = |levels: usize| {
        let mut fields = String::from(r#"{"name": "x0", "type": {"type": "record", "name": "R0", "fields": []}}"#);
        for level in 1..levels {
            fields += &format!(
                r#", {{"name": "x{level}", "type": {{"type": "record", "name": "R{level}", "fields": [
                    {{"name": "a", "type": "R{}"}}]}}}}"#,
                level - 1
            );
        }
        weir_schemas::avro::Schema::parse(&format!(r#"{{"type": "record", "name": "Top", "fields": [{fields}]}}"#))
    };
    assert!(chain(100).is_ok());
    assert!(chain(10_000).is_err_and(|problems| problems.to_string().contains("beyond 128 levels")));
}
