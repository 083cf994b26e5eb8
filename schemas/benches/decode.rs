//! Time to decode one record: events of 9 fields and about 110 bytes, a map among them.
//!
//! `cargo bench -p weir-schemas --bench decode` prints nanoseconds per record and CPU-seconds per million, for the
//! proof alone (no column wanted), all 9 columns, and 5 of them; and of events of 50 fields for the proof alone, with a
//! judge's codes, and all columns; an argument names the one to run. One thread, by the CPU time that Linux counts for it;
//! the best of several rounds in turns, since other work on the machine takes caches away.

use std::sync::Arc;

use apache_avro::types::Value;
use weir_schemas::avro::{Decoder, Encoder, ReaderSchema, Schema};
use weir_schemas::frame::frame;
use weir_schemas::profile::{Codes, Kind};

const SCHEMA: &str = r#"{"type": "record", "name": "Event", "fields": [
    {"name": "event_id", "type": "string"},
    {"name": "tenant", "type": "string"},
    {"name": "type", "type": {"type": "enum", "name": "Type", "symbols": ["view", "click", "purchase", "heartbeat"]}},
    {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "user_id", "type": ["null", "long"], "default": null},
    {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
    {"name": "sdk", "type": "string"},
    {"name": "app_version", "type": "string"},
    {"name": "props", "type": {"type": "map", "values": "string"}}
]}"#;
const RECORDS: usize = 200_000;
const BATCH: usize = 4_096;
const ROUNDS: usize = 15;

fn main() {
    let records = records();
    let bytes: usize = records.iter().map(Vec::len).sum();
    println!("{RECORDS} records of {} bytes on average, {BATCH} in a batch", bytes / RECORDS);
    let reader = Arc::new(ReaderSchema::parse(SCHEMA).expect("reader schema"));
    let writer = Schema::parse(SCHEMA).expect("writer schema");
    let wanted = |names: &[&str]| -> Vec<bool> {
        reader.columns.iter().map(|column| names.contains(&column.name.as_str())).collect()
    };
    let five = wanted(&["tenant", "type", "occurred_at", "user_id", "amount"]);
    let decoder = |wanted: &[bool]| Decoder::new(&writer, Arc::clone(&reader), wanted).expect("compiles");
    run(
        &records,
        &[("proof alone", decoder(&[])), ("all 9 columns", decoder(&[true; 9])), ("5 of 9 columns", decoder(&five))],
    );
    wide();
}

/// Events as in the benchmark `wide`: texts of few values, texts that may be missing, integers, floats.
fn wide() {
    let kinds = [
        ("text", "\"string\"", 22),
        ("maybe", r#"["null", "string"]"#, 10),
        ("long", "\"long\"", 9),
        ("double", "\"double\"", 9),
    ];
    let named = |(name, of, count): (&str, &str, usize)| -> Vec<String> {
        (0..count).map(|at| format!(r#"{{"name": "{name}{at}", "type": {of}}}"#)).collect()
    };
    let fields: Vec<String> = kinds.into_iter().flat_map(named).collect();
    let schema = format!(r#"{{"type": "record", "name": "Wide", "fields": [{}]}}"#, fields.join(", "));
    let encoder = Encoder::new(7, &schema, &[]).expect("writer schema");
    let writer = encoder.writer().expect("writer");
    let record = |index: usize| {
        let mixed = |at: usize| (index * 2_654_435_761 + at * 40_503) >> 7;
        let value = |at: usize| match at {
            0..22 => Value::String(format!("value-{}", mixed(at) % 8)),
            22..32 if mixed(at).is_multiple_of(3) => Value::Union(0, Box::new(Value::Null)),
            22..32 => Value::Union(1, Box::new(Value::String(format!("some-{}", mixed(at) % 3)))),
            32..41 => Value::Long((mixed(at) % 5_000) as i64),
            _ => Value::Double(mixed(at) as f64 / 1e3),
        };
        let names = kinds.iter().flat_map(|(name, _, count)| (0..*count).map(move |at| format!("{name}{at}")));
        let value = Value::Record(names.enumerate().map(|(at, name)| (name, value(at))).collect());
        let mut bytes = Vec::new();
        writer.write(&value, &mut bytes).expect("encodes");
        bytes
    };
    let records: Vec<Vec<u8>> = (0..RECORDS).map(record).collect();
    println!("\nevents of 50 fields, {} bytes on average", records.iter().map(Vec::len).sum::<usize>() / RECORDS);
    let reader = Arc::new(ReaderSchema::parse(&schema).expect("reader schema"));
    let writer = Schema::parse(&schema).expect("writer schema");
    let codes = Codes::new(reader.columns.iter().map(|column| Kind::of(&column.column_type)));
    let decoder =
        |wanted: &[bool], codes| Decoder::with_codes(&writer, Arc::clone(&reader), wanted, codes).expect("compiles");
    let (proof, coded) = (decoder(&[], None), decoder(&[], Some(&codes)));
    run(&records, &[("proof alone", proof), ("codes", coded), ("all 50 columns", decoder(&[true; 50], None))]);
}

fn run(records: &[Vec<u8>], decoders: &[(&str, Decoder)]) {
    let asked: Option<String> = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let datums: Vec<&[u8]> = records.iter().map(|record| frame(record).expect("framed").datum).collect();
    let mut best = vec![u64::MAX; decoders.len()];
    for _ in 0..ROUNDS {
        for ((what, decoder), best) in decoders.iter().zip(&mut best) {
            if asked.as_ref().is_some_and(|asked| asked != what) {
                continue;
            }
            let began = cpu_ns();
            let rows: usize =
                datums.chunks(BATCH).map(|batch| decoder.decode(batch).expect("fits").batch.num_rows()).sum();
            assert_eq!(rows, RECORDS);
            *best = (cpu_ns() - began).min(*best);
        }
    }
    for ((what, _), best) in decoders.iter().zip(best).filter(|(_, best)| *best < u64::MAX) {
        let each = best as f64 / RECORDS as f64;
        println!("{what:<16} {each:>6.0} ns per record   {:>6.3} CPU-s per million", each / 1e3);
    }
}

/// Nanoseconds that this thread has been on a CPU.
fn cpu_ns() -> u64 {
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts it");
    counted.split(' ').next().and_then(|first| first.parse().ok()).expect("a number first")
}

fn records() -> Vec<Vec<u8>> {
    let encoder = Encoder::new(7, SCHEMA, &[]).expect("writer schema");
    let writer = encoder.writer().expect("writer");
    let types = ["view", "click", "purchase", "heartbeat"];
    (0..RECORDS)
        .map(|index| {
            let at = 1_700_000_000_000 + index as i64;
            let user = match index % 10 {
                0 => Value::Union(0, Box::new(Value::Null)),
                _ => Value::Union(1, Box::new(Value::Long((index * 7_919 % 50_000) as i64))),
            };
            let amount = ((index * 31 % 100_000) as i32).to_be_bytes();
            let props = [("country", "DE"), ("page", "/checkout/cart"), ("campaign", "spring")];
            let value = Value::Record(vec![
                ("event_id".into(), Value::String(format!("{:020x}", index * 2_654_435_761))),
                ("tenant".into(), Value::String(format!("tenant-{}", index % 12))),
                ("type".into(), Value::Enum((index % 4) as u32, types[index % 4].into())),
                ("occurred_at".into(), Value::TimestampMillis(at)),
                ("user_id".into(), user),
                ("amount".into(), Value::Decimal(amount.into())),
                ("sdk".into(), Value::String("weir-js".into())),
                ("app_version".into(), Value::String("4.18.2".into())),
                ("props".into(), Value::Map(props.map(|(k, v)| (k.into(), Value::String(v.into()))).into())),
            ]);
            let mut bytes = Vec::new();
            writer.write(&value, &mut bytes).expect("encodes");
            bytes
        })
        .collect()
}
