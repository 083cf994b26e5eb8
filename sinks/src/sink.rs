//! The two halves of every sink: encode before the commit, deliver after it.

use std::future::Future;
use std::pin::Pin;

use weir_schemas::rows::Changes;
use weir_schemas::time::{Epoch, Version};

use crate::error::{DeliveryError, Error};

/// A future that owns nothing beyond its borrow, so that sinks of all kinds stand in one list.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Encoded rows on their way through the outbox.
///
/// For a keyed table it is one row, and of several undelivered ones with the same key only the newest has to be
/// kept. For an appended table and for topics it is a block of rows whose key is unique within its epoch and
/// destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutRow {
    /// What the outbox tells rows apart by, within one destination.
    pub key: Vec<u8>,
    /// The bytes that the destination's [`Deliver`] understands.
    pub payload: Vec<u8>,
    /// How many rows the payload holds.
    pub rows: u32,
}

/// Turns an epoch's rows into bytes. Runs on worker and committer threads: no I/O, no clock, no waiting.
pub trait Encode: Send + Sync {
    /// Appends `changes` to `out`, as rows of `version`. The same changes give the same bytes.
    ///
    /// # Errors
    /// When the batch does not have the columns that the destination was declared with.
    fn encode(&self, changes: &Changes, version: Version, out: &mut Vec<OutRow>) -> Result<(), Error>;

    /// Whether of several undelivered rows with one key only the newest has to be kept and sent.
    fn newest_only(&self) -> bool;
}

/// Committed rows of one destination, in the order of their epochs.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The newest epoch among the rows.
    pub epoch: Epoch,
    /// The rows.
    pub rows: &'a [OutRow],
}

/// Sends committed rows to one destination.
///
/// May be told the same rows twice, in the same or another grouping, before and after a restart: it must leave
/// what readers see as if it had been told once. A returned `Ok` means that the destination acknowledged all.
pub trait Deliver: Send {
    /// Sends `delivery`. After an error some, all or none of the rows may have arrived.
    ///
    /// # Errors
    /// [`DeliveryError::Retriable`] when the same call may succeed later, [`DeliveryError::Fatal`] when somebody has to act.
    fn deliver<'a>(&'a mut self, delivery: Delivery<'a>) -> BoxFuture<'a, Result<(), DeliveryError>>;
}
