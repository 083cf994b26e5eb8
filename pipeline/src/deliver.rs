//! Delivery: one task per destination that sends what the outbox holds, for as long as it takes.
//!
//! ```text
//! commit of e ─▶ wait for the destination's pace ─▶ read (delivered, committed] in pieces ─▶ send each, until it is taken
//!                                                                                             │
//!         progress of e: only when every table is delivered up to e  ◀── acknowledged up to e ┘
//! ```
//! When tables were away for [`AWAY_FOR`] or longer, their server may have lost what it had acknowledged last, as one
//! does that loses power: when it is back, every table is sent again what the outbox has kept. So at the end no table's
//! task leaves before every table has taken everything, and completeness isn't told before every table was sent again.
//!
//! A task that fell behind sends several epochs together, so that a destination sees at most about one insert per pace
//! and [`PIECE_BYTES`] whatever the length of an epoch.
//!
//! Invariants: no row leaves before its commit; a destination's versions only rise; completeness of e is told after all
//! rows up to e were acknowledged by every table; a destination that is away costs disk, never memory, and is tried
//! again for ever.
//!
//! Not here: what makes a repeated delivery harmless (the sink's natural keys), and when the outbox is full (`epochs`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use weir_operators::state::Store;
use weir_schemas::time::Epoch;
use weir_sinks::{Deliver, Delivery, DeliveryError};

use crate::clock::Clock;
use crate::crash::{self, CrashPoint};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::outbox::{DestinationId, Outbox, Piece};
use crate::recovery;
use crate::status::Failures;

/// Bytes that one call of a sink gets at most, save a single larger row.
pub const PIECE_BYTES: usize = 16 << 20;

/// The first pause after a failure, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// How long a destination has to be away before it counts as one that may have lost something: less than a server needs
/// to start again, more than a busy one makes others wait.
pub const AWAY_FOR: Duration = Duration::from_secs(5);

/// One destination, as its task sees it.
pub struct Lane {
    /// Its number in the outbox.
    pub id: DestinationId,
    /// Its name.
    pub name: String,
    /// Its sink.
    pub sink: Box<dyn Deliver>,
    /// Least time between the beginnings of two rounds.
    pub every: Duration,
    /// What it may send.
    pub kind: LaneKind,
}

/// What a destination gets, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneKind {
    /// Rows that readers are promised: completeness waits for them.
    Table,
    /// Anything else; completeness doesn't wait for it.
    Topic,
    /// Completeness itself: of the epochs that every table acknowledged, the newest.
    Progress,
}

/// What the tasks share.
pub struct Post {
    /// Where rows wait.
    pub outbox: Arc<Outbox>,
    /// Where acknowledgements are kept.
    pub store: Arc<Store>,
    /// What is wrong with whom.
    pub failures: Failures,
    /// Where times are noted.
    pub metrics: Arc<Metrics>,
    /// Wall time.
    pub clock: Clock,
    /// The destinations for which completeness waits.
    pub tables: Vec<DestinationId>,
    /// When each epoch that isn't delivered yet was committed.
    committed_at: Mutex<VecDeque<(Epoch, Instant)>>,
    /// How often tables came back from being away.
    returns: AtomicU64,
    /// How many of them each table has answered.
    answers: Mutex<BTreeMap<u16, u64>>,
    /// The newest committed epoch, and a number that changes with each acknowledgement.
    news: watch::Sender<News>,
}

#[derive(Clone, Copy, Debug, Default)]
struct News {
    committed: Epoch,
    acknowledgements: u64,
    /// After this epoch nothing comes.
    last: Option<Epoch>,
}

impl Post {
    /// What the tasks of a pipeline that resumes after `committed` share.
    pub fn new(
        outbox: Arc<Outbox>,
        store: Arc<Store>,
        metrics: Arc<Metrics>,
        clock: Clock,
        tables: Vec<DestinationId>,
        committed: Epoch,
    ) -> Post {
        Post {
            outbox,
            store,
            failures: Failures::default(),
            metrics,
            clock,
            tables,
            committed_at: Mutex::default(),
            returns: AtomicU64::new(0),
            answers: Mutex::default(),
            news: watch::Sender::new(News { committed, ..News::default() }),
        }
    }

    /// Tells that `epoch` is on disk.
    pub fn committed(&self, epoch: Epoch, at: Instant) {
        self.committed_at.lock().unwrap_or_else(PoisonError::into_inner).push_back((epoch, at));
        self.news.send_modify(|news| news.committed = news.committed.max(epoch));
    }

    /// Tells that nothing comes after what is committed: the tasks end when they have sent it.
    pub fn finish(&self) {
        self.news.send_modify(|news| news.last = Some(news.committed));
    }

    /// The newest epoch that every table acknowledged.
    pub fn delivered(&self) -> Epoch {
        let delivered = self.tables.iter().map(|table| self.outbox.delivered(*table)).min();
        delivered.unwrap_or(self.news.borrow().committed)
    }

    /// Tells that the tables' server is back.
    fn returned(&self) {
        self.returns.fetch_add(1, Ordering::AcqRel);
        self.news.send_modify(|news| news.acknowledgements += 1);
    }

    /// Tells that table `id` has sent again what so many returns asked for.
    fn answered(&self, id: DestinationId, returns: u64) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(id.0, returns);
        self.news.send_modify(|news| news.acknowledgements += 1);
    }

    /// How many returns table `id` has answered.
    fn answered_by(&self, id: DestinationId) -> u64 {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(&id.0).copied().unwrap_or_default()
    }

    /// Whether what the tables acknowledged is there: no table is away, and each has answered every return. Else completeness
    /// isn't told, since the server may have lost what it would speak of.
    fn is_settled(&self) -> bool {
        let returns = self.returns.load(Ordering::Acquire);
        let is_there = |table: &DestinationId| self.answered_by(*table) == returns;
        self.tables.iter().all(|table| is_there(table) && self.failures.of(usize::from(table.0)).is_none())
    }

    fn acknowledged(&self) {
        let delivered = self.delivered();
        let mut committed_at = self.committed_at.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((_, at)) = committed_at.pop_front_if(|(epoch, _)| *epoch <= delivered) {
            self.metrics.delivered(at.elapsed().as_secs_f64());
        }
        drop(committed_at);
        self.news.send_modify(|news| news.acknowledgements += 1);
    }
}

impl Lane {
    /// Sends until everything after [`Post::finish`] is acknowledged.
    ///
    /// # Errors
    /// When the destination refuses for good, or the disk fails.
    pub async fn run(mut self, post: Arc<Post>) -> Result<(), Error> {
        let mut news = post.news.subscribe();
        let mut next_at: Option<tokio::time::Instant> = None;
        loop {
            let now = *news.borrow_and_update();
            let delivered = post.outbox.delivered(self.id);
            if self.kind == LaneKind::Table {
                self.send_again(&post, delivered).await?;
            }
            let to = match self.kind {
                LaneKind::Table | LaneKind::Topic => now.committed,
                LaneKind::Progress if post.is_settled() => post.delivered(),
                LaneKind::Progress => delivered,
            };
            if to <= delivered {
                if now.last.is_some_and(|last| self.is_done(&post, delivered, last)) {
                    return Ok(());
                }
                // The sender lives in `post`, which this task holds.
                let _ = news.changed().await;
                continue;
            }
            if post.outbox.waiting(self.id).rows > 0 {
                if let Some(at) = next_at.filter(|_| now.last.is_none()) {
                    tokio::time::sleep_until(at).await;
                    // More may have been committed meanwhile; it goes along.
                    if std::mem::take(&mut next_at).is_some() {
                        continue;
                    }
                }
                next_at = Some(tokio::time::Instant::now() + self.every);
                if self.send(&post, delivered, to).await? && self.kind == LaneKind::Table {
                    self.send_again(&post, delivered).await?;
                }
            }
            recovery::write_delivered(&post.store, &self.name, to)?;
            post.outbox.acknowledge(self.id, to, Instant::now())?;
            if self.kind != LaneKind::Progress {
                crash::pass(CrashPoint::BeforeProgress);
            }
            post.acknowledged();
        }
    }

    /// Whether nothing can be asked of it any more after the last epoch.
    fn is_done(&self, post: &Post, delivered: Epoch, last: Epoch) -> bool {
        if self.kind != LaneKind::Table {
            return delivered >= last;
        }
        // In this order: a return is told before what was sent after it is acknowledged.
        post.delivered() >= last && post.returns.load(Ordering::Acquire) == post.answered_by(self.id)
    }

    /// Sends the rows of the epochs after `after`, up to `to`. Returns whether the destination was away meanwhile.
    async fn send(&mut self, post: &Arc<Post>, after: Epoch, to: Epoch) -> Result<bool, Error> {
        if self.kind == LaneKind::Progress {
            return self.send_newest(post, after, to).await;
        }
        let (pieces, mut next) = mpsc::channel::<Piece>(1);
        let (outbox, id) = (post.outbox.clone(), self.id);
        let reading = tokio::task::spawn_blocking(move || {
            outbox.read(id, after, to, PIECE_BYTES, |piece| pieces.blocking_send(piece).is_ok())
        });
        let mut was_away = false;
        while let Some(piece) = next.recv().await {
            was_away |= self.insist(post, &piece).await?;
            crash::pass(CrashPoint::WithinDelivery);
        }
        reading.await.map_err(|error| Error::Worker { detail: error.to_string() })??;
        crash::pass(CrashPoint::AfterDelivery);
        Ok(was_away)
    }

    /// Sends what is kept of the epochs up to `delivered`, if a table came back from being away since the last time.
    async fn send_again(&mut self, post: &Arc<Post>, delivered: Epoch) -> Result<(), Error> {
        let returns = post.returns.load(Ordering::Acquire);
        if returns == post.answered_by(self.id) {
            return Ok(());
        }
        let after = post.outbox.kept_after(self.id);
        tracing::warn!(destination = self.name, after = after.0, "was away: what it had acknowledged is sent again");
        self.send(post, after, delivered).await?;
        post.answered(self.id, returns);
        Ok(())
    }

    /// Sends only the rows of the newest epoch up to `to` that has any: what they replace needs no telling.
    async fn send_newest(&mut self, post: &Arc<Post>, after: Epoch, to: Epoch) -> Result<bool, Error> {
        let (outbox, id) = (post.outbox.clone(), self.id);
        let newest = tokio::task::spawn_blocking(move || {
            let mut newest = Piece::default();
            // One byte: a piece for each row, so that no piece holds rows of two epochs.
            let read = outbox.read(id, after, to, 1, |piece| {
                if piece.epoch > newest.epoch {
                    newest = piece;
                } else {
                    newest.rows.extend(piece.rows);
                }
                true
            });
            read.map(|()| newest)
        });
        let newest = newest.await.map_err(|error| Error::Worker { detail: error.to_string() })??;
        if newest.rows.is_empty() { Ok(false) } else { self.insist(post, &newest).await }
    }

    /// Sends a piece until it is taken. Returns whether that took as long as a destination is away.
    async fn insist(&mut self, post: &Post, piece: &Piece) -> Result<bool, Error> {
        let (at, began) = (usize::from(self.id.0), Instant::now());
        let mut has_failed = false;
        loop {
            while has_failed && self.kind == LaneKind::Progress && !post.is_settled() {
                tokio::time::sleep(PAUSES.0).await;
            }
            let delivery = Delivery { epoch: piece.epoch, rows: &piece.rows };
            match self.sink.deliver(delivery).await {
                Ok(()) => {
                    let rows = piece.rows.iter().map(|row| u64::from(row.rows)).sum();
                    let bytes = piece.rows.iter().map(|row| row.payload.len() as u64).sum();
                    post.metrics.took(&self.name, rows, bytes);
                    let was_away = has_failed && began.elapsed() >= AWAY_FOR;
                    if was_away && self.kind == LaneKind::Table {
                        // First, so that nobody takes the tables for settled in between.
                        post.returned();
                    }
                    post.failures.succeeded(at);
                    return Ok(was_away);
                }
                Err(DeliveryError::Retriable { why }) => {
                    has_failed = true;
                    let attempts = post.failures.failed(at, post.clock.now_ms(), &why);
                    let pause = pause_after(attempts);
                    tracing::warn!(
                        destination = self.name,
                        epoch = piece.epoch.0,
                        attempts,
                        pause_ms = pause.as_millis() as u64,
                        error = why,
                        "a delivery failed and will be tried again"
                    );
                    tokio::time::sleep(pause).await;
                }
                Err(error @ DeliveryError::Fatal { .. }) => {
                    return Err(Error::Delivery { destination: self.name.clone(), detail: error.to_string() });
                }
            }
        }
    }
}

/// How long to wait after `attempts` failures in a row: twice as long each time, up to a bound.
fn pause_after(attempts: u64) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    PAUSES.0.saturating_mul(1 << doublings).min(PAUSES.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound() {
        let pauses: Vec<u128> = [1, 2, 3, 9, 10, 1_000_000].map(|attempts| pause_after(attempts).as_millis()).to_vec();
        assert_eq!(pauses, [100, 200, 400, 25_600, 30_000, 30_000]);
    }
}
