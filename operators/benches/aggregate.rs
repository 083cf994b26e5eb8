//! CPU nanoseconds per row of the accumulators of a usual view: count, the sum of a decimal, distinct users, over
//! 1,000 groups; sets once with users that are mostly new to their group, once with users mostly seen. Prints one
//! line for each.
//!
//! `cargo bench --profile dev -p weir-operators --bench aggregate`; the dev profile is the optimised one that the
//! whole workspace uses.

#![allow(clippy::unwrap_used, reason = "a test or benchmark ends where it can't go on")]

use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Decimal128Array};
use weir_operators::aggregate::{Call, Function, accumulator};
use weir_operators::expr::Expr;
use weir_schemas::types::{ColumnType, Width};

const BATCHES: usize = 1_000;
const ROWS: usize = 4_096;
const GROUPS: u64 = 1_000;

/// Nanoseconds that this thread has run, as Linux counts them: other load on the machine does not show.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|field| field.parse().ok()).expect("a number")
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn call(function: Function, argument: Option<ColumnType>, result: ColumnType) -> Call {
    let column = |column_type| Expr::Column { index: 0, name: "x".into(), column_type };
    Call {
        function,
        arguments: argument.map(column).into_iter().collect(),
        condition: None,
        signature: String::new(),
        result,
    }
}

/// Slots, prices and users of every batch.
fn batches(users: u64, price: &ColumnType) -> Vec<(Vec<u32>, ArrayRef, ArrayRef)> {
    let mut seed = 88_172_645_463_325_252;
    (0..BATCHES)
        .map(|_| {
            let slots = (0..ROWS).map(|_| (random(&mut seed) % GROUPS) as u32).collect();
            let users = (0..ROWS).map(|_| format!("user{:08}", random(&mut seed) % users));
            let users: ArrayRef = Arc::new(BinaryArray::from_iter_values(users));
            let prices = (0..ROWS).map(|_| i128::from(random(&mut seed) % 100_000));
            let prices = Decimal128Array::from_iter_values(prices).with_data_type(price.arrow());
            (slots, Arc::new(prices) as ArrayRef, users)
        })
        .collect()
}

fn main() {
    let price = ColumnType::Decimal(18, 2);
    let count = ColumnType::UInt(Width::W64);
    let calls = [
        call(Function::Count, None, count.clone()),
        call(Function::Sum, Some(price.clone()), ColumnType::Decimal(38, 2)),
        call(Function::UniqExact, Some(ColumnType::String), count.clone()),
        call(Function::UniqCombined64, Some(ColumnType::String), count),
    ];
    for users in [1_000, 1_000_000] {
        let batches = batches(users, &price);
        for call in &calls {
            let mut accumulator = accumulator(call).expect("a known function");
            accumulator.grow(GROUPS as usize);
            let started = cpu_ns();
            for (slots, prices, users) in &batches {
                let arguments = match call.function {
                    Function::Count => vec![],
                    Function::Sum => vec![prices.clone()],
                    _ => vec![users.clone()],
                };
                accumulator.update(slots, &arguments, None).expect("well-formed batches");
            }
            let taken = cpu_ns() - started;
            let slots: Vec<u32> = (0..GROUPS as u32).collect();
            let heap: usize = slots.iter().map(|slot| accumulator.heap_bytes(*slot)).sum();
            let started = cpu_ns();
            let mut bytes = Vec::new();
            slots.iter().for_each(|slot| accumulator.write_state(*slot, &mut bytes));
            println!(
                "{:<15} {users:>8} users {:>6.1} ns/row, {:>9} bytes of memory, {:>9} of states written in {:.1} ms",
                call.function.name(),
                taken as f64 / (BATCHES * ROWS) as f64,
                heap,
                bytes.len(),
                (cpu_ns() - started) as f64 / 1e6,
            );
        }
    }
}
