//! Bytes that nobody wrote are errors: no panic, nothing changed, no memory asked for by a number in them.

use std::sync::Arc;

use arrow_array::{ArrayRef, UInt64Array};
use weir_operators::aggregate::{Accumulator, Function, accumulator};
use weir_schemas::types::{ColumnType, Width};

use super::calls::{call, functions, parameters, types};
use super::golden::{hex, unhex};
use super::oracle::Random;

fn state(accumulator: &dyn Accumulator) -> Vec<u8> {
    let mut bytes = Vec::new();
    accumulator.write_state(0, &mut bytes);
    bytes
}

/// Merges bytes; if they are refused, nothing may have changed.
fn merge(accumulator: &mut dyn Accumulator, bytes: &[u8]) -> bool {
    let before = state(accumulator);
    let merged = accumulator.merge(0, bytes).is_ok();
    assert!(merged || state(accumulator) == before, "changed by {}", hex(bytes));
    let heap = accumulator.heap_bytes(0);
    assert!(heap <= 64 * bytes.len() + 4_096 || merged && heap < 300_000, "{heap} bytes of memory for {}", hex(bytes));
    merged
}

#[test]
fn cut_and_lengthened_states_are_refused() {
    let golden = include_str!("golden.tsv");
    let mut random = Random(17);
    for line in golden.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let function =
            functions().into_iter().find(|one| format!("{}{}", one.name(), parameters(one)) == fields[0]).unwrap();
        let argument = types()
            .into_iter()
            .flat_map(|one| [one.clone(), one.nullable()])
            .find(|one| one.to_string() == fields[1])
            .unwrap();
        let call = call(&function, &argument).unwrap();
        let bytes = unhex(fields[3]);
        let mut fresh = accumulator(&call).unwrap();
        fresh.grow(1);
        for length in 0..bytes.len() {
            assert!(!merge(fresh.as_mut(), &bytes[..length]), "{line} cut to {length} bytes");
        }
        assert!(!merge(fresh.as_mut(), &[&bytes[..], &[0]].concat()), "{line} with a byte more");
        for _ in 0..40 {
            let mut wrong = bytes.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(wrong.len() as u64) as usize;
                wrong[at] = random.next() as u8;
            }
            fresh.clear(0);
            merge(fresh.as_mut(), &wrong);
        }
    }
}

#[test]
fn lengths_that_lie_are_refused() {
    let of = ColumnType::UInt(Width::W64);
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let mut unique = accumulator(&call(&Function::UniqExact, &of).unwrap()).unwrap();
    unique.grow(1);
    assert!(!merge(unique.as_mut(), &huge));
    assert!(!merge(unique.as_mut(), &[0x80, 0x80, 0x80, 0x80, 0x20]));
    let mut combined = accumulator(&call(&Function::UniqCombined64, &of).unwrap()).unwrap();
    combined.grow(1);
    for container in [1, 2] {
        assert!(!merge(combined.as_mut(), &[&[container][..], &huge].concat()));
    }
    assert!(!merge(combined.as_mut(), &[4, 0]));
    let mut least = accumulator(&call(&Function::Min, &ColumnType::String).unwrap()).unwrap();
    least.grow(1);
    assert!(!merge(least.as_mut(), &[0xff, 0xff, 0xff, 0x7f, 1, 2, 3]));
}

#[test]
fn ranks_that_disagree_with_their_counts_are_refused() {
    let of = ColumnType::UInt(Width::W64);
    let call = call(&Function::UniqCombined64, &of).unwrap();
    let mut large = accumulator(&call).unwrap();
    large.grow(1);
    let values: ArrayRef = Arc::new(UInt64Array::from_iter_values(0..10_000));
    large.update(&vec![0; 10_000], &[values], None).unwrap();
    let bytes = state(large.as_ref());
    assert_eq!(bytes.len(), 98_505);
    let mut fresh = accumulator(&call).unwrap();
    fresh.grow(1);
    for at in [1, 50_000, 98_304, 98_306, 98_500, 98_504] {
        let mut wrong = bytes.clone();
        wrong[at] ^= 0x15;
        assert!(!merge(fresh.as_mut(), &wrong), "byte {at}");
    }
    assert!(merge(fresh.as_mut(), &bytes));
    assert_eq!(state(fresh.as_ref()), bytes);
}

#[test]
fn a_sketch_that_spans_too_much_is_refused() {
    let of = ColumnType::Float64;
    let call = call(&Function::QuantileDd { relative_accuracy: 0.003, level: 0.25 }, &of).unwrap();
    let mut sketch = accumulator(&call).unwrap();
    sketch.grow(1);
    let values: ArrayRef = Arc::new(arrow_array::Float64Array::from(vec![1e-300]));
    sketch.update(&[0], &[values], None).unwrap();
    let values: ArrayRef = Arc::new(arrow_array::Float64Array::from(vec![1e300]));
    assert!(sketch.update(&[0], std::slice::from_ref(&values), None).is_err());
    let mut other = accumulator(&call).unwrap();
    other.grow(1);
    other.update(&[0], &[values], None).unwrap();
    assert!(!merge(sketch.as_mut(), &state(other.as_ref())));
    let values: ArrayRef = Arc::new(arrow_array::Float64Array::from(vec![f64::INFINITY]));
    assert!(other.update(&[0], &[values], None).is_err());
}
