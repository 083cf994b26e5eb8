//! Reporting: the status of a running pipeline, from what its threads share.

use std::sync::{Arc, Mutex, PoisonError};

use crate::archive::ArchiveReporter;
use crate::deliver::Post;
use crate::epochs::Epochs;
use crate::outbox::DestinationId;
use crate::shares::Shares;
use crate::status::{DestinationStatus, SourceStatus, Status};

/// What a status is made from.
pub(super) struct Reporting {
    pub(super) pipeline: String,
    pub(super) in_flight_limit_bytes: u64,
    pub(super) outbox_limit_bytes: u64,
    pub(super) epochs: Arc<Epochs>,
    pub(super) post: Arc<Post>,
    pub(super) sources: Vec<(String, Arc<Shares>)>,
    pub(super) destinations: Vec<(String, DestinationId)>,
    pub(super) waits_for: Arc<Mutex<Option<String>>>,
    pub(super) archive: Option<ArchiveReporter>,
}

/// What tells the status.
pub(super) fn reporter(of: Reporting) -> impl Fn() -> Status + Send + Sync {
    move || Status {
        pipeline: of.pipeline.clone(),
        open_epoch: of.epochs.open().0,
        committed_epoch: of.epochs.committed().0,
        delivered_epoch: of.post.delivered().0,
        waits_for: of.waits_for.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        in_flight_bytes: of.epochs.in_flight_bytes(),
        in_flight_limit_bytes: of.in_flight_limit_bytes,
        outbox_bytes: of.post.outbox.waiting_in_all().bytes,
        outbox_limit_bytes: of.outbox_limit_bytes,
        archive: of.archive.as_ref().map(ArchiveReporter::status),
        sources: of
            .sources
            .iter()
            .map(|(name, shares)| SourceStatus::of(name, shares.watermark(), shares.partitions(), shares.notes()))
            .collect(),
        destinations: of
            .destinations
            .iter()
            .map(|(name, id)| {
                let waiting = of.post.outbox.waiting(*id);
                DestinationStatus {
                    name: name.clone(),
                    delivered_epoch: of.post.outbox.delivered(*id).0,
                    waiting_rows: waiting.rows,
                    waiting_bytes: waiting.bytes,
                    failing: of.post.failures.of(usize::from(id.0)),
                }
            })
            .collect(),
    }
}
