//! Aggregates a worker's events before the exchange, so that partial states travel instead of events.
//!
//! Everything that a view asks of single events happens here: the filter, the window, the dimensions, the conditions
//! and arguments of the aggregates, each on whole batches. Rows find their group through one hash table over the
//! bytes of their key ([`group_key`](crate::group_key)); there is no allocation per row.
//!
//! Out go, at the end of each epoch, one row per group: `_group` (key group, `UInt16`), `key` (`Binary`), then one `Binary`
//! per measure with the state's bytes. When the states take more memory than the bound they leave at once: a group
//! may thus leave several times in an epoch, and whoever merges them gets the same.
//!
//! Since what was gathered leaves at the end of the epoch, it may be older than the watermark by then: the operator
//! holds the watermark back within the epoch.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, UInt16Builder};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, BooleanArray, NullArray, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use arrow_select::filter::FilterBuilder;
use hashbrown::{HashSet, HashTable};
use weir_schemas::stage::system;
use xxhash_rust::xxh3::xxh3_64;

use crate::aggregate::{Accumulator, accumulator};
use crate::error::Error;
use crate::expr::Evaluation;
use crate::group_key::{KeyFormat, Keys};
use crate::operator::{Context, Operator};
use crate::route::{GROUPS, key_group};
use crate::view::ViewPlan;
use crate::window::Windows;

/// Index of the key group in a batch of partial states.
pub const GROUP: usize = 0;
/// Index of the group's key.
pub(crate) const KEY: usize = 1;
/// Index of the first measure's state.
pub(crate) const STATES: usize = 2;

/// Rows and bytes of one emitted batch, at most (a single state may be larger).
const BATCH_ROWS: usize = 8_192;
const BATCH_BYTES: usize = 8 << 20;

/// The operator that gathers partial states of one view on one worker.
pub struct Combine {
    plan: Arc<ViewPlan>,
    windows: Windows,
    format: KeyFormat,
    /// Indices of the event time and of the columns that stand in dimensions, arguments and conditions.
    reads: HashSet<usize>,
    schema: SchemaRef,
    memory_bytes: usize,
    groups: Groups,
    states: Vec<Box<dyn Accumulator>>,
    rows_since_measured: usize,
    // Reused from batch to batch.
    starts: Vec<i64>,
    keys: Keys,
    slots: Vec<u32>,
}

impl Combine {
    /// Gathers for `plan`; above about `memory_bytes` of states they leave before the epoch's end.
    pub fn new(plan: Arc<ViewPlan>, memory_bytes: usize) -> Result<Combine, Error> {
        let windows = Windows::new(&plan.window)?;
        let format = KeyFormat::new(plan.dimensions.iter().map(|dimension| dimension.value.column_type().clone()))?;
        let states = plan.measures.iter().map(|measure| accumulator(&measure.call)).collect::<Result<_, _>>()?;
        let mut reads = HashSet::new();
        let calls =
            plan.measures.iter().flat_map(|measure| measure.call.arguments.iter().chain(&measure.call.condition));
        reads.insert(system::EVENT_TIME);
        for expression in plan.dimensions.iter().map(|dimension| &dimension.value).chain(calls) {
            expression.visit_columns(&mut |index| {
                reads.insert(index);
            });
        }
        Ok(Combine {
            reads,
            schema: partial_schema(&plan),
            plan,
            windows,
            format,
            memory_bytes,
            groups: Groups::default(),
            states,
            rows_since_measured: 0,
            starts: Vec::new(),
            keys: Keys::default(),
            slots: Vec::new(),
        })
    }

    /// The rows for which the view's filter is true.
    fn filter(&self, batch: RecordBatch) -> Result<RecordBatch, Error> {
        let Some(filter) = &self.plan.filter else { return Ok(batch) };
        let passes = without_nulls(filter.evaluate_condition(&batch)?);
        rows_where(&batch, &passes, &self.reads)
    }

    /// Emits every group and forgets it.
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let mut batch = Partials::new(self.states.len());
        for (slot, key) in self.groups.keys.iter().enumerate() {
            batch.push(slot as u32, key, &self.states)?;
            if batch.is_full() {
                cx.emit(batch.finish(&self.schema)?);
            }
        }
        cx.emit(batch.finish(&self.schema)?);
        for state in &mut self.states {
            for slot in 0..self.groups.len() {
                state.clear(slot as u32);
            }
        }
        self.groups.clear();
        self.rows_since_measured = 0;
        Ok(())
    }

    /// Bytes that groups and states take; a walk over all groups.
    fn measure_bytes(&self) -> usize {
        let heap = |state: &dyn Accumulator| -> usize {
            (0..self.groups.len()).map(|slot| state.heap_bytes(slot as u32)).sum()
        };
        self.groups.bytes() + self.states.iter().map(|state| heap(state.as_ref())).sum::<usize>()
    }
}

impl Operator for Combine {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        let batch = self.filter(batch)?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let times = batch
            .columns()
            .get(system::EVENT_TIME)
            .and_then(|column| column.as_primitive_opt::<Int64Type>())
            .ok_or_else(|| ArrowError::SchemaError("a batch of events has no event time".to_owned()))?;
        self.windows.assign(times.values(), &mut self.starts);
        let mut evaluation = Evaluation::new(&batch);
        let dimensions = self.plan.dimensions.iter().map(|dimension| evaluation.array(&dimension.value));
        let dimensions: Vec<ArrayRef> = dimensions.collect::<Result<_, _>>()?;
        self.format.encode(&self.starts, &dimensions, &mut self.keys)?;
        self.groups.find(&self.keys, &mut self.slots);
        for (measure, state) in self.plan.measures.iter().zip(&mut self.states) {
            let arguments = measure.call.arguments.iter().map(|argument| evaluation.array(argument));
            let arguments: Vec<ArrayRef> = arguments.collect::<Result<_, _>>()?;
            let condition = measure.call.condition.as_ref().map(|when| evaluation.condition(when)).transpose()?;
            state.grow(self.groups.len());
            state.update(&self.slots, &arguments, condition.as_ref())?;
        }
        // The walk over all groups is paid for by as many rows.
        self.rows_since_measured += batch.num_rows();
        if self.rows_since_measured >= self.groups.len().max(BATCH_ROWS) || self.groups.bytes() > self.memory_bytes {
            self.rows_since_measured = 0;
            if self.measure_bytes() > self.memory_bytes {
                self.flush(cx)?;
            }
        }
        Ok(())
    }

    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.flush(cx)
    }

    fn holds_watermark_within_epoch(&self) -> bool {
        true
    }
}

/// The columns of a view's partial states.
pub(crate) fn partial_schema(plan: &ViewPlan) -> SchemaRef {
    let mut fields = vec![Field::new("_group", DataType::UInt16, false), Field::new("key", DataType::Binary, false)];
    fields.extend(plan.measures.iter().map(|measure| Field::new(&measure.name, DataType::Binary, false)));
    Arc::new(Schema::new(fields))
}

/// The rows of `batch` that pass. Only the columns `reads` are copied; the others are replaced by columns of nulls, so that
/// indices stay what they were.
pub(crate) fn rows_where(
    batch: &RecordBatch,
    passes: &BooleanArray,
    reads: &HashSet<usize>,
) -> Result<RecordBatch, Error> {
    let rows = passes.true_count();
    if rows == batch.num_rows() || rows == 0 {
        return Ok(batch.slice(0, rows));
    }
    let passes = FilterBuilder::new(passes).optimize().build();
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (at, (field, column)) in batch.schema().fields().iter().zip(batch.columns()).enumerate() {
        if reads.contains(&at) {
            fields.push(field.clone());
            columns.push(passes.filter(column)?);
        } else {
            fields.push(Arc::new(Field::new(field.name(), DataType::Null, true)));
            columns.push(Arc::new(NullArray::new(rows)));
        }
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// A condition without nulls: what is null is not true.
pub(crate) fn without_nulls(condition: BooleanArray) -> BooleanArray {
    match condition.nulls() {
        Some(nulls) if nulls.null_count() > 0 => BooleanArray::new(condition.values() & nulls.inner(), None),
        _ => condition,
    }
}

/// The groups seen since the last flush: the bytes of their keys, and a table that finds them.
#[derive(Default)]
struct Groups {
    table: HashTable<u32>,
    hashes: Vec<u64>,
    keys: KeyList,
}

impl Groups {
    fn len(&self) -> usize {
        self.hashes.len()
    }

    fn bytes(&self) -> usize {
        self.keys.bytes.len() + self.len() * 32
    }

    fn clear(&mut self) {
        self.table.clear();
        self.hashes.clear();
        self.keys.clear();
    }

    /// Puts the slot of each of `keys` into `slots`, cleared first; new groups get new slots.
    fn find(&mut self, keys: &Keys, slots: &mut Vec<u32>) {
        slots.clear();
        slots.reserve(keys.len());
        let Groups { table, hashes, keys: known } = self;
        for key in keys.iter() {
            let hash = xxh3_64(key);
            let found = table.find(hash, |slot| hashes[*slot as usize] == hash && known.get(*slot as usize) == key);
            let slot = match found {
                Some(slot) => *slot,
                None => {
                    let slot = hashes.len() as u32;
                    hashes.push(hash);
                    known.push(key);
                    table.insert_unique(hash, slot, |slot| hashes[*slot as usize]);
                    slot
                }
            };
            slots.push(slot);
        }
    }
}

/// Keys one after the other in one allocation.
#[derive(Default)]
struct KeyList {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl KeyList {
    fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    fn get(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start..self.ends[at]]
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len()).map(|at| self.get(at))
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// A batch of partial states that is being built.
struct Partials {
    groups: UInt16Builder,
    keys: BinaryBuilder,
    states: Vec<BinaryBuilder>,
    scratch: Vec<u8>,
    rows: usize,
    bytes: usize,
}

impl Partials {
    fn new(measures: usize) -> Partials {
        Partials {
            groups: UInt16Builder::new(),
            keys: BinaryBuilder::new(),
            states: (0..measures).map(|_| BinaryBuilder::new()).collect(),
            scratch: Vec::new(),
            rows: 0,
            bytes: 0,
        }
    }

    fn push(&mut self, slot: u32, key: &[u8], states: &[Box<dyn Accumulator>]) -> Result<(), Error> {
        debug_assert!(key_group(key) < GROUPS);
        self.groups.append_value(key_group(key));
        self.keys.append_value(key);
        for (state, column) in states.iter().zip(&mut self.states) {
            self.scratch.clear();
            state.write_state(slot, &mut self.scratch);
            if self.scratch.len() > i32::MAX as usize - BATCH_BYTES {
                return Err(Error::AggregateState {
                    function: "a partial state".to_owned(),
                    detail: format!("it has {} bytes; a group of the view is too large", self.scratch.len()),
                });
            }
            column.append_value(&self.scratch);
            self.bytes += self.scratch.len();
        }
        self.rows += 1;
        self.bytes += key.len();
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    fn finish(&mut self, schema: &SchemaRef) -> Result<RecordBatch, Error> {
        let mut columns: Vec<ArrayRef> = vec![Arc::new(self.groups.finish()), Arc::new(self.keys.finish())];
        columns.extend(self.states.iter_mut().map(|states| Arc::new(states.finish()) as ArrayRef));
        self.rows = 0;
        self.bytes = 0;
        Ok(RecordBatch::try_new(schema.clone(), columns)?)
    }
}
