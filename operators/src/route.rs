//! How batches get from worker to worker: key groups, the edges' container, and the two ways of an edge.
//!
//! A key belongs to one of [`GROUPS`] key groups for ever; a group belongs to one worker for the life of a
//! process. State is kept by group, so that a restart may spread the groups over another number of workers.
//!
//! Invariant: an edge counts rows, not batches, because a batch that is routed by group arrives as several.
//! Not here: order between the workers that a worker receives from; operators must not depend on any.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt16Type;
use arrow_array::{Array, RecordBatch, UInt32Array};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, Schema};
use arrow_select::take::take_record_batch;
use timely::communication::Push;
use timely::container::Accountable;
use timely::dataflow::Stream;
use timely::dataflow::channels::pushers::exchange::Distributor;
use timely::dataflow::channels::{ContainerBytes, Message, Stamp};
use xxhash_rust::xxh3::xxh3_64;

use crate::adaptor::Failure;
use crate::error::Error;
use crate::moment::Moment;

/// How many key groups there are. Never changes: it is part of every key on disk.
pub const GROUPS: u16 = 256;

/// The key group of a routing key's bytes: the low 8 bits of its xxh3.
pub fn key_group(key: &[u8]) -> u16 {
    (xxh3_64(key) & u64::from(GROUPS - 1)) as u16
}

/// The worker, of `peers`, that owns `group`.
pub fn worker_of(group: u16, peers: usize) -> usize {
    usize::from(group) * peers / usize::from(GROUPS)
}

/// The key groups that `worker`, of `peers`, owns; empty for some when there are more workers than groups.
pub fn owned_groups(worker: usize, peers: usize) -> Range<u16> {
    let first_of = |worker: usize| (worker * usize::from(GROUPS)).div_ceil(peers) as u16;
    first_of(worker)..first_of(worker + 1)
}

/// What an edge carries: one record batch per message.
#[derive(Clone, Debug)]
pub struct Batch(pub RecordBatch);

/// An edge of the dataflow.
pub type BatchStream<'scope> = Stream<'scope, Moment, Batch>;

impl Default for Batch {
    fn default() -> Batch {
        Batch(RecordBatch::new_empty(Arc::new(Schema::empty())))
    }
}

impl Accountable for Batch {
    fn record_count(&self) -> i64 {
        self.0.num_rows() as i64
    }
}

impl Batch {
    /// The batch in Arrow's IPC stream format, for an edge between processes.
    fn to_ipc(&self) -> Result<Vec<u8>, ArrowError> {
        let mut writer = StreamWriter::try_new(Vec::new(), &self.0.schema())?;
        writer.write(&self.0)?;
        writer.into_inner()
    }

    /// The first batch of an Arrow IPC stream.
    fn from_ipc(bytes: &[u8]) -> Result<Batch, ArrowError> {
        let mut reader = StreamReader::try_new(bytes, None)?;
        match reader.next() {
            Some(batch) => Ok(Batch(batch?)),
            None => Ok(Batch(RecordBatch::new_empty(reader.schema()))),
        }
    }
}

/// Timely's bounds for an edge that may leave the process. Within a process batches are moved, never encoded.
///
/// Timely gives no way to report an error from here, and what it hands over was written by the same program on
/// the other side of its own connection, so bytes that do not decode are a bug there and end the process.
impl ContainerBytes for Batch {
    fn from_bytes(bytes: timely::bytes::arc::Bytes) -> Batch {
        let decoded = match bytes.get(..8).map(<[u8; 8]>::try_from) {
            Some(Ok(length)) => bytes.get(8..8usize.saturating_add(u64::from_le_bytes(length) as usize)),
            _ => None,
        };
        match decoded.map(Batch::from_ipc) {
            Some(Ok(batch)) => batch,
            Some(Err(error)) => panic!("a batch from another process is not Arrow IPC: {error}"),
            None => panic!("a batch from another process is cut short"),
        }
    }

    fn length_in_bytes(&self) -> usize {
        match self.to_ipc() {
            // The length in front, then the batch padded to eight bytes, as timely asks.
            Ok(bytes) => 8 + bytes.len().next_multiple_of(8),
            Err(error) => panic!("a batch cannot be written as Arrow IPC: {error}"),
        }
    }

    fn into_bytes<W: std::io::Write>(&self, writer: &mut W) {
        let written = self.to_ipc().map_err(std::io::Error::other).and_then(|mut bytes| {
            writer.write_all(&(bytes.len() as u64).to_le_bytes())?;
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            writer.write_all(&bytes)
        });
        if let Err(error) = written {
            panic!("a batch cannot be written to another process: {error}");
        }
    }
}

/// How an edge carries batches to the workers of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Stay on the worker.
    Pipeline,
    /// Each row goes to the worker that owns its key group.
    ByGroup {
        /// Index of the `UInt16` column that holds the key group, usually named `_group`.
        column: usize,
    },
}

/// Splits batches by key group; timely calls it on the sending side of an edge.
pub(crate) struct GroupDistributor {
    /// Index of the column with the key group.
    pub(crate) column: usize,
    /// Where a batch without such a column is reported.
    pub(crate) failure: Failure,
    /// Name and number of the receiving operator, for the report.
    pub(crate) operator: Arc<str>,
    /// The worker that sends.
    pub(crate) worker: usize,
}

impl GroupDistributor {
    /// The pieces of `batch` for each worker.
    fn split(&self, batch: RecordBatch, peers: usize) -> Result<Split, Error> {
        let wrong = |detail: String| Error::Custom { operator: self.operator.to_string(), detail };
        let column = (self.column < batch.num_columns())
            .then(|| batch.column(self.column))
            .and_then(|column| column.as_primitive_opt::<UInt16Type>())
            .filter(|column| column.null_count() == 0)
            .ok_or_else(|| {
                wrong(format!("column {} of its input must hold the key group as UInt16 without nulls", self.column))
            })?;
        let groups = column.values();
        if let Some(group) = groups.iter().find(|group| **group >= GROUPS) {
            return Err(wrong(format!("key group {group} in its input, but there are only {GROUPS}")));
        }
        let to = groups.first().map_or(0, |first| worker_of(*first, peers));
        if groups.iter().all(|group| worker_of(*group, peers) == to) {
            return Ok(Split::Whole(to, batch));
        }
        let mut rows = vec![Vec::new(); peers];
        for (row, group) in groups.iter().enumerate() {
            if let Some(rows) = rows.get_mut(worker_of(*group, peers)) {
                rows.push(row as u32);
            }
        }
        let pieces = rows.into_iter().map(|rows| take_record_batch(&batch, &UInt32Array::from(rows)));
        Ok(Split::Pieces(pieces.collect::<Result<_, _>>()?))
    }
}

/// What becomes of a batch.
enum Split {
    /// All of it goes to this worker, uncopied.
    Whole(usize, RecordBatch),
    /// Each worker gets its piece; some may be empty.
    Pieces(Vec<RecordBatch>),
}

impl Distributor<Batch> for GroupDistributor {
    fn partition<T: Clone, P: Push<Message<T, Batch>>>(
        &mut self,
        container: &mut Batch,
        stamp: &Stamp<T>,
        pushers: &mut [P],
    ) {
        let batch = std::mem::take(container).0;
        let peers = pushers.len();
        let mut send = |to: usize, batch: RecordBatch| {
            if let Some(pusher) = pushers.get_mut(to).filter(|_| batch.num_rows() > 0) {
                Message::push_at(&mut Batch(batch), stamp.clone(), pusher);
            }
        };
        match self.split(batch.clone(), peers) {
            Ok(Split::Whole(to, batch)) => send(to, batch),
            Ok(Split::Pieces(pieces)) => pieces.into_iter().enumerate().for_each(|(to, piece)| send(to, piece)),
            Err(error) => {
                self.failure.fail(&self.operator, self.worker, error);
                // Timely counts rows on both sides, so they are delivered all the same; every operator has
                // stopped by then, since it looks at the failure before it takes anything.
                send(0, batch);
            }
        }
    }

    fn flush<T: Clone, P: Push<Message<T, Batch>>>(&mut self, _stamp: &Stamp<T>, _pushers: &mut [P]) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{BinaryArray, UInt16Array};

    fn batch(groups: Vec<u16>) -> RecordBatch {
        let names: Vec<String> = groups.iter().map(|group| format!("of {group}")).collect();
        let names = BinaryArray::from_iter_values(&names);
        let columns = [("_group", Arc::new(UInt16Array::from(groups)) as _), ("name", Arc::new(names) as _)];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn distributor(column: usize) -> GroupDistributor {
        GroupDistributor { column, failure: Failure::default(), operator: "receiver".into(), worker: 0 }
    }

    #[test]
    fn a_batch_is_split_by_owner_in_order_and_not_copied_when_it_has_one() {
        let whole = batch(vec![0, 64, 127]);
        let Ok(Split::Whole(0, kept)) = distributor(0).split(whole.clone(), 2) else { panic!("split") };
        assert!(Arc::ptr_eq(whole.column(1), kept.column(1)));
        let Ok(Split::Pieces(pieces)) = distributor(0).split(batch(vec![200, 3, 255, 128, 7]), 3) else {
            panic!("not split")
        };
        assert_eq!(pieces, [batch(vec![3, 7]), batch(vec![128]), batch(vec![200, 255])]);
    }

    #[test]
    fn a_column_that_is_no_key_group_is_refused() {
        for (column, batch) in [(1, batch(vec![1])), (2, batch(vec![1])), (0, batch(vec![256]))] {
            let refused = distributor(column).split(batch, 2).err().map(|error| error.to_string());
            assert!(refused.is_some_and(|text| text.contains("receiver")));
        }
    }

    #[test]
    fn a_batch_crosses_processes_as_it_is() {
        for sent in [batch(vec![5, 250, 7]), batch(vec![])] {
            let mut bytes = Vec::new();
            Batch(sent.clone()).into_bytes(&mut bytes);
            assert_eq!(bytes.len(), Batch(sent.clone()).length_in_bytes());
            assert_eq!(bytes.len() % 8, 0);
            let received = Batch::from_bytes(timely::bytes::arc::BytesMut::from(bytes).freeze());
            assert_eq!(received.0, sent);
        }
    }
}
