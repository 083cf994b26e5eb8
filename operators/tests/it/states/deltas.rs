//! What is stored by deltas equals the state in memory, whatever the order of updates, deltas, reloads and reuse.

use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, UInt64Array};
use weir_operators::aggregate::{Accumulator, Call, Delta, Function, accumulator, merge_states};
use weir_schemas::types::{ColumnType, Width};

use super::calls::{call, functions};
use super::oracle::Random;

fn state(accumulator: &dyn Accumulator, slot: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    accumulator.write_state(slot, &mut bytes);
    bytes
}

/// A batch of values below a limit.
fn batch(of: &ColumnType, rows: u64, limit: u64, random: &mut Random) -> ArrayRef {
    let numbers: Vec<Option<u64>> = (0..rows)
        .map(|_| random.below(limit))
        .map(|number| (!of.is_nullable() || number % 5 > 0).then_some(number))
        .collect();
    match of.without_null() {
        ColumnType::String => {
            let texts: Vec<Option<String>> = numbers.iter().map(|number| number.map(|n| n.to_string())).collect();
            Arc::new(BinaryArray::from_iter(texts))
        }
        _ => Arc::new(UInt64Array::from(numbers)),
    }
}

/// Updates two slots and stores one of them after every step, now and then going on from what is stored.
fn follow(call: &Call, of: &ColumnType, steps: u64, rows: u64, random: &mut Random) -> Vec<Delta> {
    let mut memory = accumulator(call).unwrap();
    memory.grow(2);
    let mut stored: Option<Vec<u8>> = None;
    let mut kinds = Vec::new();
    for step in 0..steps {
        let values = batch(of, rows, steps * rows, random);
        let slots: Vec<u32> = (0..rows).map(|row| (row % 2) as u32).collect();
        memory.update(&slots, &[values], None).unwrap();
        if step % 7 == 3 {
            // A partial state from another worker.
            let mut part = accumulator(call).unwrap();
            part.grow(1);
            part.update(&vec![0; rows as usize], &[batch(of, rows, steps * rows, random)], None).unwrap();
            memory.merge(1, &state(part.as_ref(), 0)).unwrap();
        }
        let mut bytes = Vec::new();
        let kind = memory.take_delta(1, &mut bytes);
        stored = Some(match (kind, &stored) {
            (Delta::Whole, _) | (Delta::Added, None) => bytes,
            (Delta::Added, Some(base)) => merge_states(call, Some(base), &[&bytes]).unwrap(),
        });
        kinds.push(kind);
        assert!(stored == Some(state(memory.as_ref(), 1)), "{} at step {step}", call.signature);
        if step % 11 == 5 {
            memory.clear(1);
            memory.merge(1, stored.as_ref().unwrap()).unwrap();
            memory.settle(1);
        }
    }
    kinds
}

#[test]
fn what_deltas_store_is_what_memory_holds() {
    let mut random = Random(11);
    for of in [ColumnType::UInt(Width::W64), ColumnType::String] {
        for argument in [of.clone(), of.clone().nullable()] {
            for call in functions().iter().filter_map(|function| call(function, &argument)) {
                follow(&call, &argument, 40, 20, &mut random);
            }
        }
    }
}

#[test]
fn big_sets_are_stored_by_what_was_added() {
    let mut random = Random(12);
    for function in [Function::UniqExact, Function::UniqCombined64] {
        let of = ColumnType::UInt(Width::W64).nullable();
        let call = call(&function, &of).unwrap();
        let kinds = follow(&call, &of, 30, 2_000, &mut random);
        let added = kinds.iter().filter(|kind| **kind == Delta::Added).count();
        assert!(added >= 20, "{function:?} wrote {added} deltas of 30 as additions");
    }
}

#[test]
fn a_cleared_slot_is_as_new() {
    for of in [ColumnType::UInt(Width::W64), ColumnType::String.nullable()] {
        for call in functions().iter().filter_map(|function| call(function, &of)) {
            let mut used = accumulator(&call).unwrap();
            used.grow(1);
            let empty = state(used.as_ref(), 0);
            used.update(&vec![0; 9_000], &[batch(&of, 9_000, 9_000, &mut Random(13))], None).unwrap();
            assert_ne!(state(used.as_ref(), 0), empty);
            used.clear(0);
            assert_eq!(state(used.as_ref(), 0), empty, "{}", call.signature);
            let mut bytes = Vec::new();
            assert_eq!((used.take_delta(0, &mut bytes), bytes), (Delta::Whole, empty), "{}", call.signature);
        }
    }
}
