//! A log of four partitions that is a function of (partition, step), the source that reads it, and its recount.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use arrow_array::{Int64Array, RecordBatch, UInt16Array, UInt64Array};
use timely::container::NoopBuilder;
use timely::dataflow::Scope;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use weir_operators::moment::Moment;
use weir_operators::route::{Batch, BatchStream, key_group};
use weir_schemas::time::{Epoch, EventTime};

pub(crate) const PARTITIONS: u64 = 4;
pub(crate) const STEPS_PER_EPOCH: u64 = 8;
pub(crate) const WINDOW: i64 = 100;

/// The partition's watermark when `step` is sent: partitions are up to 1500 ahead of each other.
pub(crate) fn partition_watermark(partition: u64, step: u64) -> i64 {
    (step * 3 + partition * 500) as i64
}

/// The events of a step: (key, time), none older than the partition's watermark.
pub(crate) fn events(partition: u64, step: u64) -> impl Iterator<Item = (u64, i64)> {
    let watermark = partition_watermark(partition, step);
    (0..4).map(move |i| ((step * 7 + i + partition) % 50, watermark + ((step * 13 + i * 5) % 40) as i64))
}

pub(crate) fn epoch_of(step: u64) -> Epoch {
    Epoch(1 + step / STEPS_PER_EPOCH)
}

pub(crate) fn group_of(key: u64) -> u16 {
    key_group(&key.to_be_bytes())
}

pub(crate) fn batch_of(partition: u64, step: u64) -> RecordBatch {
    let (keys, times): (Vec<u64>, Vec<i64>) = events(partition, step).unzip();
    let epochs = vec![epoch_of(step).0; keys.len()];
    RecordBatch::try_from_iter([
        ("_group", Arc::new(UInt16Array::from_iter_values(keys.iter().map(|key| group_of(*key)))) as _),
        ("key", Arc::new(UInt64Array::from(keys)) as _),
        ("time", Arc::new(Int64Array::from(times)) as _),
        ("epoch", Arc::new(UInt64Array::from(epochs)) as _),
    ])
    .unwrap()
}

/// Rows that committed epochs have written: (window, key) to each count written for it.
pub(crate) type Written = BTreeMap<(i64, u64), Vec<u64>>;

/// A source that reads the worker's partitions in step, at its own pace, and then waits until `closed`. At the log's
/// end it raises the watermark, so that every window closes.
pub(crate) fn source<'scope>(
    scope: Scope<'scope, Moment>,
    (worker, workers): (usize, usize),
    steps: Range<u64>,
    log_ends: bool,
    closed: Arc<AtomicBool>,
) -> BatchStream<'scope> {
    let partitions: Vec<u64> = (0..PARTITIONS).filter(|p| *p as usize % workers == worker).collect();
    let until_step = steps.end;
    let mut builder = OperatorBuilder::new("test_source".to_owned(), scope);
    let (output, stream) = builder.new_output::<Batch>();
    let mut output = OutputBuilder::<Moment, NoopBuilder<Batch>>::from(output);
    let activator = scope.activator_for(builder.operator_info().address);
    builder.build_reschedule(move |mut held| {
        let mut held = held.pop();
        let mut step = steps.start;
        let mut random = fastrand::Rng::with_seed(worker as u64);
        move |_| {
            let burst = if worker == 0 { 16 } else { random.u64(0..4) };
            for _ in 0..burst {
                let Some(capability) = held.as_mut() else { return false };
                if step >= until_step {
                    // The log's end: every window closes, and the capability goes when the last epoch is through.
                    let watermark = if log_ends { EventTime::MAX } else { capability.time().watermark };
                    capability.downgrade(&Moment::new(epoch_of(until_step), watermark));
                    if closed.load(SeqCst) {
                        held = None;
                    }
                    break;
                }
                let watermark = partitions.iter().map(|p| partition_watermark(*p, step)).min().unwrap();
                capability.downgrade(&Moment::new(epoch_of(step), EventTime(watermark)));
                for partition in &partitions {
                    let mut batch = Batch(batch_of(*partition, step));
                    output.activate().session_with_builder(&*capability).give_container(&mut batch);
                }
                step += 1;
            }
            activator.activate();
            held.is_some()
        }
    });
    stream
}

/// Every window of the first `steps` steps, counted in the plainest way.
pub(crate) fn recount(steps: u64) -> Written {
    let mut counts = Written::new();
    for (partition, step) in (0..PARTITIONS).flat_map(|p| (0..steps).map(move |step| (p, step))) {
        for (key, time) in events(partition, step) {
            counts.entry((time / WINDOW * WINDOW, key)).or_insert_with(|| vec![0])[0] += 1;
        }
    }
    counts
}
