//! Nanoseconds of CPU per event of profiling, and of adding up its cells as a judge does, on one thread.
//!
//! `cargo bench -p weir-operators --profile dev --bench profile`; an argument is the number of epochs (10). The events are
//! those of `wide`: ten tenants and a thousand releases drawn log-uniformly, 24 texts, of which ten may be missing, and 18
//! numbers, in an epoch of 400,000 events.

#![allow(clippy::unwrap_used, reason = "a test or benchmark ends where it can't go on")]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, FixedSizeBinaryArray, Int32Array, Int64Array, RecordBatch, UInt16Array, UInt32Array,
};
use weir_operators::operator::{Context, Effects, Operator};
use weir_operators::profile::{Cell, CellKey, Layout, ProfileEvents, SenderColumns, read_cells};
use weir_operators::state::Codec;
use weir_schemas::profile::NULL;
use weir_schemas::stage::{Column, coded_event_schema, event_schema, system};
use weir_schemas::time::{Epoch, EventTime, Span};
use weir_schemas::types::{ColumnType, Width};

const BATCH: usize = 8_192;
const BATCHES: usize = 49;
const FIELDS: usize = 42;

fn columns() -> Vec<Column> {
    let senders = ["tenant", "type", "sdk", "sdk_version", "app_version"];
    let senders = senders.map(|name| Column::new(name, ColumnType::String)).into_iter();
    let texts = (0..24).map(|at| Column::new(format!("text{at}"), ColumnType::String.nullable()));
    let numbers = (24..FIELDS).map(|at| Column::new(format!("number{at}"), ColumnType::Int(Width::W64).nullable()));
    senders.chain(texts).chain(numbers).collect()
}

/// The columns that say whose an event is; what is profiled are the codes.
fn batch(layout: &Layout, random: &mut fastrand::Rng) -> RecordBatch {
    let releases: Vec<u16> = (0..BATCH).map(|_| 1_000_f64.powf(random.f64()) as u16).collect();
    let of_release = |text: &dyn Fn(u16) -> String| -> ArrayRef {
        Arc::new(BinaryArray::from_iter_values(releases.iter().map(|of| text(*of).into_bytes())))
    };
    let tenants: Vec<String> = (0..BATCH).map(|_| format!("shop-{}", random.u8(0..10))).collect();
    let codes = layout.codes();
    let rows = (0..BATCH).map(|_| {
        let mut row = vec![0; codes.bytes()];
        for field in layout.fields() {
            let is_null = field.name.starts_with("text1") && random.u8(0..3) == 0;
            row[field.code] = if is_null { NULL } else { random.u8(0..8) };
        }
        row
    });
    let whole = |number: i64| -> ArrayRef { Arc::new(Int64Array::from_value(number, BATCH)) };
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(UInt16Array::from_value(0, BATCH)),
        Arc::new(Int32Array::from_value(0, BATCH)),
        Arc::new(Int64Array::from_iter_values(0..BATCH as i64)),
        whole(0),
        Arc::new(UInt32Array::from_value(1, BATCH)),
        whole(0),
        Arc::new(BinaryArray::from_iter_values(tenants)),
        of_release(&|_| "view".to_owned()),
        of_release(&|of| ["android", "ios", "web"][usize::from(of % 3)].to_owned()),
        of_release(&|of| format!("4.{of}.0")),
        of_release(&|_| "7.1".to_owned()),
    ];
    arrays.push(Arc::new(FixedSizeBinaryArray::try_from_iter(rows).unwrap()));
    let senders = coded_event_schema(&event_schema(&columns()[..5]), codes);
    RecordBatch::try_new(senders, arrays).unwrap()
}

/// Nanoseconds of CPU that this thread has taken, as Linux counts them: what others do on the machine does not count.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

fn taken(what: impl FnOnce()) -> u64 {
    let started = cpu_ns();
    what();
    cpu_ns() - started
}

fn main() {
    let asked = std::env::args().skip(1).find_map(|argument| argument.parse::<usize>().ok());
    let epochs = asked.unwrap_or(10);
    let senders: Vec<&str> = vec!["tenant", "type", "sdk", "sdk_version", "app_version"];
    let layout = Arc::new(Layout::new(&columns(), 0, &senders));
    let at = |column: usize| Some(system::COUNT + column);
    let columns = SenderColumns { tenant: at(0), event_type: at(1), release: [at(2), at(3), at(4)], user: None };
    let mut profile = ProfileEvents::new(layout.clone(), columns, Span::from_ms(3_600_000));
    let mut random = fastrand::Rng::with_seed(1);
    let batches: Vec<RecordBatch> = (0..BATCHES).map(|_| batch(&layout, &mut random)).collect();
    let mut all = [0; 4];
    let mut sums: HashMap<CellKey, Cell> = HashMap::new();
    let mut cells = 0;
    for _ in 0..epochs {
        let mut effects = Effects::default();
        let mut cx = Context::new(Epoch(1), EventTime(0), &mut effects);
        let count = taken(|| batches.iter().for_each(|batch| profile.on_batch(batch.clone(), &mut cx).unwrap()));
        let send = taken(|| profile.end_of_epoch(&mut cx).unwrap());
        let add = taken(|| {
            for (_, batch) in &effects.emitted {
                cells = batch.num_rows();
                let add = |_, _, key, cell: weir_operators::profile::EncodedCell<'_>| {
                    cell.add_to(sums.entry(key).or_default())
                };
                read_cells(batch, add).unwrap();
            }
        });
        let mut bytes = Vec::new();
        let write = taken(|| {
            for cell in sums.values() {
                bytes.clear();
                cell.encode(&mut bytes);
                black_box(&bytes);
            }
        });
        all.iter_mut().zip([count, send, add, write]).for_each(|(all, taken)| *all += taken);
    }
    println!("{cells} cells of {} slots in an epoch of {} events", layout.slots(), BATCH * BATCHES);
    for (name, taken) in ["count", "send cells", "add cells", "write sums"].into_iter().zip(all) {
        println!("{name:<12} {:>7.1} ns/event", taken as f64 / (BATCH * BATCHES * epochs) as f64);
    }
}
