//! Logical types at their edges: values written by hand, expected values written by hand.

use std::sync::Arc;

use arrow_buffer::i256;
use serde_json::json;
use weir_schemas::avro::{Decoder, ReaderSchema, Schema};
use weir_schemas::fate::Reason;

use crate::cells::{Cell, row};

/// Reads `datum`, one field of type `writer`, as a field of type `reader`.
fn read(reader: &serde_json::Value, writer: &serde_json::Value, datum: &[u8]) -> Result<Vec<Cell>, Reason> {
    let record = |of: &serde_json::Value| {
        json!({"type": "record", "name": "R", "fields": [{"name": "f", "type": of}]}).to_string()
    };
    let reader = Arc::new(ReaderSchema::parse(&record(reader)).expect("columns"));
    let wanted = vec![true; reader.columns.len()];
    let decoder =
        Decoder::new(&Schema::parse(&record(writer)).expect("a schema"), reader, &wanted).expect("compatible");
    let decoded = decoder.decode(&[datum]).expect("small");
    match decoded.refused.first() {
        Some(refused) => Err(refused.reason),
        None => Ok(row(&decoded.batch, 0)),
    }
}

fn same(of: &serde_json::Value, datum: &[u8]) -> Result<Cell, Reason> {
    read(of, of, datum).map(|mut cells| cells.remove(0))
}

fn long(value: i64) -> Vec<u8> {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    let mut bytes = Vec::new();
    while rest > 127 {
        bytes.push(rest as u8 & 127 | 128);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

fn bytes(value: &[u8]) -> Vec<u8> {
    [long(value.len() as i64), value.to_vec()].concat()
}

#[test]
fn decimals_are_exact_to_the_last_digit_and_refused_one_beyond() {
    for precision in [1u32, 2, 9, 18, 19, 37, 38, 39, 40, 75, 76] {
        let of = json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": 1.min(precision)});
        let greatest: i256 = "9".repeat(precision as usize).parse().expect("a number of 256 bits");
        for value in [greatest, greatest.wrapping_neg(), i256::ZERO, i256::ONE, i256::MINUS_ONE] {
            let all = value.to_be_bytes();
            let sign = if value.is_negative() { 0xff } else { 0 };
            // As short as it can be, at 32 bytes, and padded beyond those.
            let needless = (0..31).take_while(|at| all[*at] == sign && (all[at + 1] ^ sign) < 0x80).count();
            let padded = [vec![sign; 40], all.to_vec()].concat();
            for written in [&all[needless..], &all[..], &padded] {
                assert_eq!(same(&of, &bytes(written)), Ok(Cell::Decimal(value)), "{precision} {value}");
            }
            let size = 72;
            let fixed = json!({"type": "fixed", "name": "F", "size": size, "logicalType": "decimal", "precision": precision, "scale": 1});
            assert_eq!(read(&of, &fixed, &padded), Ok(vec![Cell::Decimal(value)]));
        }
        let beyond = greatest.wrapping_add(i256::ONE);
        for value in [beyond, beyond.wrapping_neg(), i256::MAX, i256::MIN] {
            assert_eq!(same(&of, &bytes(&value.to_be_bytes())), Err(Reason::OutOfRange), "{precision} {value}");
        }
        // 2^255 and 2^256: the sign must not be taken from the lower 32 bytes.
        assert_eq!(same(&of, &bytes(&[&[0][..], &i256::MIN.to_be_bytes()].concat())), Err(Reason::OutOfRange));
        assert_eq!(same(&of, &bytes(&[&[1][..], &[0; 32]].concat())), Err(Reason::OutOfRange));
        assert_eq!(same(&of, &bytes(&[])), Err(Reason::Malformed));
    }
}

#[test]
fn dates_and_times_hold_at_clickhouses_bounds_and_are_refused_beyond() {
    let logical = |base: &str, name: &str| json!({"type": base, "logicalType": name});
    let edges = |of: serde_json::Value, least: i64, greatest: i64| {
        for value in [least, greatest] {
            assert_eq!(same(&of, &long(value)), Ok(Cell::Int(value)), "{of} {value}");
        }
        for value in [least - 1, greatest + 1] {
            assert_eq!(same(&of, &long(value)), Err(Reason::OutOfRange), "{of} {value}");
        }
    };
    // 1900-01-01 and 2299-12-31, as chrono counts them.
    let day = |year, month, day| {
        let date = chrono::NaiveDate::from_ymd_opt(year, month, day).expect("a date");
        date.signed_duration_since(chrono::NaiveDate::default()).num_days()
    };
    let (first, last) = (day(1900, 1, 1), day(2299, 12, 31));
    edges(logical("int", "date"), first, last);
    edges(logical("int", "time-millis"), 0, 86_399_999);
    edges(logical("long", "time-micros"), 0, 86_399_999_999);
    for local in ["", "local-"] {
        edges(logical("long", &format!("{local}timestamp-millis")), first * 86_400_000, (last + 1) * 86_400_000 - 1);
        edges(
            logical("long", &format!("{local}timestamp-micros")),
            first * 86_400_000_000,
            (last + 1) * 86_400_000_000 - 1,
        );
    }
    // Nanoseconds: the upper bound is what 64 bits hold.
    let nanos = logical("long", "timestamp-nanos");
    assert_eq!(same(&nanos, &long(i64::MAX)), Ok(Cell::Int(i64::MAX)));
    assert_eq!(same(&nanos, &long(first * 86_400_000_000_000)), Ok(Cell::Int(first * 86_400_000_000_000)));
    assert_eq!(same(&nanos, &long(first * 86_400_000_000_000 - 1)), Err(Reason::OutOfRange));
    // A coarser writer is multiplied exactly, or refused where that overflows.
    let millis = logical("long", "timestamp-millis");
    assert_eq!(read(&nanos, &millis, &long(1_700_000_000_123)), Ok(vec![Cell::Int(1_700_000_000_123_000_000)]));
    assert_eq!(read(&nanos, &millis, &long(i64::MAX / 1_000)), Err(Reason::OutOfRange));
}

#[test]
fn uuids_come_in_network_order_from_text_bytes_and_fixed() {
    let raw: [u8; 16] = std::array::from_fn(|index| 0x10 + index as u8);
    let text = b"10111213-1415-1617-1819-1A1b1c1d1e1f";
    let of = |base: &str| json!({"type": base, "logicalType": "uuid"});
    let fixed = json!({"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"});
    let expected = Ok(Cell::Bytes(raw.to_vec()));
    assert_eq!(same(&of("string"), &bytes(text)), expected);
    assert_eq!(same(&of("bytes"), &bytes(&raw)), expected);
    assert_eq!(same(&fixed, &raw), expected);
    assert_eq!(read(&of("string"), &of("bytes"), &bytes(&raw)), Ok(vec![Cell::Bytes(raw.to_vec())]));
    assert_eq!(read(&of("string"), &json!("string"), &bytes(text)), Ok(vec![Cell::Bytes(raw.to_vec())]));
    assert_eq!(same(&of("bytes"), &bytes(&raw[..15])), Err(Reason::Malformed));
    for wrong in [
        "10111213-1415-1617-1819-1a1b1c1d1e1",
        "10111213x1415-1617-1819-1a1b1c1d1e1f",
        "g0111213-1415-1617-1819-1a1b1c1d1e1f",
        "",
    ] {
        assert_eq!(same(&of("string"), &bytes(wrong.as_bytes())), Err(Reason::Malformed), "{wrong}");
    }
}

#[test]
fn each_fault_has_its_reason_and_names_the_field_and_the_byte() {
    let schema = r#"{"type": "record", "name": "R", "fields": [
        {"name": "user", "type": {"type": "record", "name": "U", "fields": [{"name": "id", "type": "string"}]}},
        {"name": "props", "type": {"type": "map", "values": "boolean"}}]}"#;
    let reader = Arc::new(ReaderSchema::parse(schema).expect("columns"));
    let decoder = Decoder::new(&Schema::parse(schema).expect("a schema"), reader, &[true, true]).expect("compatible");
    let good = [bytes(b"u1"), long(1), bytes(b"k"), vec![1], vec![0]].concat();
    let records: Vec<Vec<u8>> = vec![
        good.clone(),
        good[..2].to_vec(),
        [good.clone(), vec![7]].concat(),
        [bytes(&[0xff]), vec![0]].concat(),
        [bytes(b"u1"), long(1), bytes(b"k"), vec![2], vec![0]].concat(),
        [bytes(b"u1"), long(-1), long(9), bytes(b"k"), vec![1], vec![0]].concat(),
        vec![],
        good.clone(),
    ];
    let decoded = decoder.decode(&records).expect("small");
    assert_eq!(decoded.records, [0, 7]);
    assert_eq!(row(&decoded.batch, 0), row(&decoded.batch, 1));
    let told: Vec<(u32, Reason, &str)> =
        decoded.refused.iter().map(|refused| (refused.record, refused.reason, refused.detail.as_str())).collect();
    assert_eq!(
        told,
        [
            (1, Reason::Truncated, "field `user.id`: the length 2 runs past the record's end, at byte 1"),
            (2, Reason::TrailingBytes, "1 bytes are left over behind the datum, at byte 8"),
            (3, Reason::Malformed, "field `user.id`: the text is not UTF-8, at byte 2"),
            (4, Reason::Malformed, "field `props{}`: 2 is not a boolean, at byte 7"),
            (5, Reason::Truncated, "field `props`: the length 9 runs past the record's end, at byte 5"),
            (6, Reason::Truncated, "field `user.id`: the record ends inside the value, at byte 0"),
        ]
    );
}

#[test]
fn lists_can_neither_recurse_nor_repeat_nothing_nor_grow_without_bound() {
    let writer = r#"{"type": "record", "name": "R", "fields": [
        {"name": "next", "type": ["null", "R"]},
        {"name": "nothing", "type": {"type": "array", "items": "null"}},
        {"name": "kinds", "type": {"type": "array", "items": {"type": "enum", "name": "K", "symbols": ["LONG"]}}}]}"#
        .replace("LONG", &"L".repeat(1_000));
    let reader = r#"{"type": "record", "name": "R", "fields": [
        {"name": "kinds", "type": {"type": "array", "items": {"type": "enum", "name": "K", "symbols": ["LONG"]}}}]}"#
        .replace("LONG", &"L".repeat(1_000));
    let reader = Arc::new(ReaderSchema::parse(&reader).expect("columns"));
    let decoder = Decoder::new(&Schema::parse(&writer).expect("a schema"), reader, &[true]).expect("compatible");
    let nested = |depth: usize| [vec![2; depth], vec![0], [0, 0].repeat(depth + 1)].concat();
    let nothing = |count: i64| [vec![0], long(count), vec![0, 0]].concat();
    let kinds = |count: usize| [vec![0, 0], long(count as i64), vec![0; count + 1]].concat();
    let records =
        [nested(10), nested(1_000), nothing(65_536), nothing(65_537), nothing(i64::MAX), kinds(66_000), kinds(67_000)];
    let decoded = decoder.decode(&records).expect("one large record is less than a batch");
    let reasons: Vec<(u32, Reason)> = decoded.refused.iter().map(|refused| (refused.record, refused.reason)).collect();
    assert_eq!(
        reasons,
        [(1, Reason::Malformed), (3, Reason::Malformed), (4, Reason::Malformed), (6, Reason::OutOfRange)]
    );
    assert_eq!(decoded.records, [0, 2, 5]);

    // Twenty such records would fill 1.3 GiB: the first sixteen are told to fit.
    let many: Vec<Vec<u8>> = (0..20).map(|_| kinds(64_000)).collect();
    let fits = decoder.decode(&many).expect_err("too large").fits;
    assert_eq!(fits, 16);
}
