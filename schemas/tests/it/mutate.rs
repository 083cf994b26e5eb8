//! One million mutated messages among good neighbours: nothing panics, every record is accounted for, neighbours decode
//! to the same bytes as alone, memory stays within a multiple of what came in, and what is accepted is what `apache-avro`
//! accepts as a whole record, but for differences that are named here.
//!
//! Finds: lengths that are believed, rollbacks that leave a value behind, steps that read past a record's end.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell as ThreadCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use apache_avro::types::Value;
use fastrand::Rng;
use weir_schemas::avro::{Decoded, Decoder, ReaderSchema, RefusedRecord, Schema};
use weir_schemas::fate::Reason;
use weir_schemas::frame::{frame, put_frame};

use crate::cells::{Cell, row, sorted};
use crate::evolve::cells;
use crate::generate::{Gen, Ty, Within};
use crate::mutations::mutate;
use crate::write::{encode, schema};

/// Counts what each thread holds and held at most; only this test reads it.
struct Counting;

thread_local! {
    static HELD: ThreadCell<isize> = const { ThreadCell::new(0) };
    static MOST: ThreadCell<isize> = const { ThreadCell::new(0) };
}

fn count(bytes: isize) {
    // A thread that is ending has no counters any more; nobody reads them then.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        MOST.with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that `run` held beyond what was held before it.
fn most_held<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    MOST.set(before);
    let result = run();
    (result, (MOST.get() - before).max(0) as usize)
}

const SCHEMA_ID: u32 = 7;
const SCHEMAS: u64 = 50;
/// The same for `make proof`, which sets `WEIR_PROOF=full`: ten million messages.
const SCHEMAS_IN_FULL: u64 = 500;
const BATCHES: usize = 500;
const MUTATED_IN_BATCH: usize = 40;
const GOOD_IN_BATCH: usize = 10;

#[test]
fn a_million_mutated_messages_harm_neither_memory_nor_neighbours_and_are_all_accounted_for() {
    crate::cap_the_oracle();
    let mut counted = Counted::default();
    let is_full = std::env::var_os("WEIR_PROOF").is_some_and(|size| size == "full");
    let schemas = if is_full { SCHEMAS_IN_FULL } else { SCHEMAS };
    for seed in 0..schemas {
        one_schema(0xbad_0000 + seed, &mut counted);
    }
    let mutated = (schemas as usize) * BATCHES * MUTATED_IN_BATCH;
    assert!(mutated >= 1_000_000);
    assert_eq!(counted.accepted + counted.refused + counted.not_framed + counted.other_id, mutated, "{counted:?}");
    println!("{counted:#?}");
    // The mutations reach every fate: otherwise the test shows less than it says.
    assert!(counted.accepted > 50_000 && counted.refused > 500_000, "{counted:?}");
    assert!(counted.not_framed > 10_000 && counted.other_id > 10_000, "{counted:?}");
    for reason in [Reason::Truncated, Reason::TrailingBytes, Reason::Malformed, Reason::OutOfRange] {
        assert!(counted.reasons.get(reason.name()).is_some_and(|count| *count > 1_000), "{reason:?} {counted:?}");
    }
}

#[derive(Debug, Default)]
struct Counted {
    accepted: usize,
    refused: usize,
    not_framed: usize,
    other_id: usize,
    reasons: BTreeMap<&'static str, usize>,
    /// Refused here, taken by `apache-avro`; by what was said about the record.
    stricter: BTreeMap<String, usize>,
}

/// One writer's schema, its good records and what they decode to alone.
struct Writer {
    seed: u64,
    ty: Ty,
    decoder: Decoder,
    columns: usize,
    oracle: apache_avro::Schema,
    pool: Vec<Vec<u8>>,
    alone: Decoded,
    rng: Rng,
}

fn one_schema(seed: u64, counted: &mut Counted) {
    let mut generator = Gen::new(seed);
    let fields = generator.rng.usize(2..9);
    let ty = generator.record(fields, 3, Within::Top);
    let reader = Arc::new(ReaderSchema::parse(&schema(&without_choices(&ty))).expect("columns"));
    let text = schema(&ty);
    let columns = reader.columns.len();
    let decoder =
        Decoder::new(&Schema::parse(&text).expect("a schema"), reader, &vec![true; columns]).expect("compatible");
    let mut rng = generator.rng.fork();
    let mut pool: Vec<Vec<u8>> = Vec::new();
    // Of a writer with several unions only few records may have the types that the reader takes.
    let alone = loop {
        for _ in 0..64 {
            let mut record = Vec::new();
            put_frame(SCHEMA_ID, &mut record);
            encode(&generator.value(&ty), &ty, &mut rng, &mut record);
            pool.push(record);
        }
        let datums: Vec<&[u8]> = pool.iter().map(|record| &record[5..]).collect();
        let alone = decoder.decode(&datums).expect("small");
        if !alone.records.is_empty() || pool.len() >= 1_024 {
            break alone;
        }
    };
    assert!(!alone.records.is_empty(), "seed {seed}: no record of the pool decodes");
    let oracle = apache_avro::Schema::parse_str(&text).expect("a schema");
    let mut writer = Writer { seed, ty, decoder, columns, oracle, pool, alone, rng };
    for _ in 0..BATCHES {
        one_batch(&mut writer, counted);
    }
}

fn one_batch(writer: &mut Writer, counted: &mut Counted) {
    let Writer { seed, pool, alone, rng, .. } = writer;
    let mut messages: Vec<(Option<usize>, Vec<u8>)> = Vec::new();
    messages.extend((0..MUTATED_IN_BATCH).map(|_| (None, mutate(pool, rng))));
    messages.extend((0..GOOD_IN_BATCH).map(|_| {
        let at = rng.usize(0..alone.records.len());
        (Some(at), pool[alone.records[at] as usize].clone())
    }));
    rng.shuffle(&mut messages);

    let mut given: Vec<(Option<usize>, &[u8])> = Vec::new();
    for (at, message) in &messages {
        match frame(message) {
            Ok(framed) if framed.schema_id == SCHEMA_ID => given.push((*at, framed.datum)),
            Ok(_) => counted.other_id += 1,
            Err((reason, _)) => {
                assert_eq!(reason, Reason::NotFramed);
                counted.not_framed += 1;
            }
        }
    }
    let datums: Vec<&[u8]> = given.iter().map(|(_, datum)| *datum).collect();
    let bytes: usize = datums.iter().map(|datum| datum.len()).sum();
    let (decoded, held) = most_held(|| writer.decoder.decode(&datums).expect("small"));
    // Fixed widths times rows, then a multiple of the bytes that came in: 32 for the widest column from the
    // shortest value, twice that while a buffer grows.
    let bound = datums.len() * writer.columns * 80 + 64 * bytes + 65_536;
    assert!(held <= bound, "seed {seed}: {held} bytes held for {bytes} bytes of records, bound {bound}");
    fates(writer, &given, &decoded, counted);
}

/// Looks at each record of a batch: given are its place among those that decode alone, for a good one, and its bytes.
fn fates(writer: &Writer, given: &[(Option<usize>, &[u8])], decoded: &Decoded, counted: &mut Counted) {
    let seed = writer.seed;
    assert_eq!(decoded.records.len() + decoded.refused.len(), given.len(), "seed {seed}");
    assert_eq!(decoded.batch.num_rows(), decoded.records.len());
    let mut rows = decoded.records.iter().enumerate().peekable();
    let mut refused = decoded.refused.iter().peekable();
    for (index, (at, datum)) in given.iter().enumerate() {
        let row_of = rows.next_if(|(_, record)| **record as usize == index).map(|(row, _)| row);
        let why = refused.next_if(|refused| refused.record as usize == index);
        assert!(row_of.is_some() != why.is_some(), "seed {seed}: record {index} has one fate");
        match (at, row_of, why) {
            (Some(at), Some(row), _) => {
                let (here, alone) = (decoded.batch.slice(row, 1), writer.alone.batch.slice(*at, 1));
                assert_eq!(here, alone, "seed {seed}: a neighbour was harmed");
            }
            (Some(_), None, why) => panic!("seed {seed}: a good record was refused: {why:?}"),
            (None, Some(at), _) => {
                counted.accepted += 1;
                accepted(seed, &writer.oracle, &writer.ty, datum, row(&decoded.batch, at));
            }
            (None, None, Some(why)) => {
                counted.refused += 1;
                *counted.reasons.entry(why.reason.name()).or_default() += 1;
                if let Some(value) = oracle_reads(&writer.oracle, datum) {
                    stricter(seed, why, &writer.ty, &value, counted);
                }
            }
            (None, None, None) => unreachable!("a record has one fate"),
        }
    }
}

/// The value when the oracle reads it and nothing is left over.
fn oracle_reads(oracle: &apache_avro::Schema, datum: &[u8]) -> Option<Value> {
    let mut rest = datum;
    #[expect(deprecated, reason = "the plain function is what an oracle needs")]
    let value =
        catch_unwind(AssertUnwindSafe(|| apache_avro::from_avro_datum(oracle, &mut rest, None).ok())).ok().flatten();
    value.filter(|_| rest.is_empty())
}

/// What is accepted here has to be what the oracle reads, cell by cell, but for repeated keys of a map.
fn accepted(seed: u64, oracle: &apache_avro::Schema, wrote: &Ty, datum: &[u8], row: Vec<Cell>) {
    let Some(value) = oracle_reads(oracle, datum) else {
        panic!("seed {seed}: accepted here, refused by the oracle: {datum:?}\n{}", schema(wrote));
    };
    let expected = cells(&without_choices(wrote), wrote, &value).ok();
    let row: Vec<Cell> = row.into_iter().map(last_of_repeated_keys).collect();
    assert_eq!(Some(row), expected.map(|row| row.into_iter().map(sorted).collect()), "seed {seed}: {datum:?}");
}

/// A tree's map keeps the last of a repeated key; rows keep all of them.
fn last_of_repeated_keys(cell: Cell) -> Cell {
    match cell {
        Cell::Map(pairs) => {
            let last: BTreeMap<Vec<u8>, Cell> =
                pairs.into_iter().map(|(key, value)| (key, last_of_repeated_keys(value))).collect();
            Cell::Map(last.into_iter().collect())
        }
        Cell::List(items) => Cell::List(items.into_iter().map(last_of_repeated_keys).collect()),
        other => other,
    }
}

/// Differences that are meant: what the oracle takes although it is not what a writer wrote, or what no column holds.
fn stricter(seed: u64, why: &RefusedRecord, wrote: &Ty, value: &Value, counted: &mut Counted) {
    let said = why.detail.split("`: ").last().unwrap_or_default();
    let known = [
        // The oracle skips a block's size without looking.
        ("the block's items don't take", "block size"),
        ("runs past the record's end", "block size or count"),
        ("is negative", "block size"),
        // It drops the bits beyond 64.
        ("a variable-length integer of more than 64 bits", "varint"),
        // It reads a UUID in forms that the specification doesn't have.
        ("the text is not a UUID", "uuid"),
        ("a decimal of no bytes", "empty decimal"),
        // It takes the end of the record for a null (apache/avro-rs#664).
        ("the record ends inside the value", "end as null"),
    ];
    // A tree forgets all but the last value of a repeated key, whatever the forgotten ones held.
    let in_map =
        why.detail.split("`: ").next().is_some_and(|path| path.contains("{}")) && why.reason != Reason::Malformed;
    match known.iter().find(|(words, _)| said.contains(words)).or(in_map.then_some(&("", "value of a repeated key"))) {
        Some((_, name)) => *counted.stricter.entry((*name).to_owned()).or_default() += 1,
        None => {
            let refused = cells(&without_choices(wrote), wrote, value).is_err();
            assert!(refused, "seed {seed}: {} but the oracle reads {value:?}", why.detail);
            *counted.stricter.entry(why.reason.name().to_owned()).or_default() += 1;
        }
    }
}

/// The reader's side of a writer's type: of several types the first.
fn without_choices(ty: &Ty) -> Ty {
    match ty {
        Ty::Several(all) => all[0].clone(),
        Ty::Opt(inner, first) => Ty::Opt(Box::new(without_choices(inner)), *first),
        Ty::Arr(inner) => Ty::Arr(Box::new(without_choices(inner))),
        Ty::Map(inner) => Ty::Map(Box::new(without_choices(inner))),
        Ty::Rec(name, fields) => Ty::Rec(
            name.clone(),
            fields
                .iter()
                .map(|field| crate::generate::Field { ty: without_choices(&field.ty), ..field.clone() })
                .collect(),
        ),
        other => other.clone(),
    }
}
