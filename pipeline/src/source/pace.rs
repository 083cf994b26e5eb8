//! Pace: a bound on how fast a run reads, and a hand on the brake.
//!
//! A bucket of records, shared by all workers, fills at the wished rate up to a tenth of a second's worth. What a worker may
//! read is asked for in bytes, so the bucket's records are turned into bytes by the mean size seen so far; one poll may
//! overdraw, and the debt is waited off.
//!
//! Not here: whether a live pipeline suffers; whoever watches it holds the brake.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use weir_schemas::place::Place;
use weir_schemas::time::{Epoch, EventTime};

use super::{PartitionPosition, PartitionStatus, Polled, Source};
use crate::error::Error;
use crate::lineage::Consumed;

/// The share of a second for which a bucket holds records.
const FULL_SECONDS: f64 = 0.1;
/// What a record is taken to weigh before one was seen, in bytes.
const FIRST_GUESS_BYTES: f64 = 200.0;

/// How fast a run may read.
#[derive(Debug)]
pub struct Pace {
    /// Records per second; absent, as fast as it can.
    per_second: Option<f64>,
    bucket: Mutex<Bucket>,
    is_held: AtomicBool,
}

#[derive(Debug)]
struct Bucket {
    records: f64,
    filled_at: Instant,
    mean_bytes: f64,
}

impl Pace {
    /// At most `per_second` records per second, over all workers; `None` is no bound.
    pub fn new(per_second: Option<u32>) -> Pace {
        let bucket = Bucket { records: 0.0, filled_at: Instant::now(), mean_bytes: FIRST_GUESS_BYTES };
        Pace {
            per_second: per_second.map(|rate| f64::from(rate.max(1))),
            bucket: Mutex::new(bucket),
            is_held: AtomicBool::new(false),
        }
    }

    /// Stops reading, or lets it go on.
    pub fn hold(&self, is_held: bool) {
        self.is_held.store(is_held, Ordering::Release);
    }

    /// Whether reading is stopped.
    pub fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Acquire)
    }

    /// Bytes that may be read now.
    fn allowance_bytes(&self, now: Instant) -> u64 {
        if self.is_held() {
            return 0;
        }
        let Some(per_second) = self.per_second else { return u64::MAX };
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(bucket.filled_at).as_secs_f64();
        bucket.filled_at = now;
        bucket.records = (bucket.records + since * per_second).min((per_second * FULL_SECONDS).max(1.0));
        if bucket.records < 1.0 { 0 } else { (bucket.records * bucket.mean_bytes) as u64 }
    }

    fn took(&self, records: u64, bytes: u64) {
        if self.per_second.is_none() || records == 0 {
            return;
        }
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.records -= records as f64;
        bucket.mean_bytes += (bytes as f64 / records as f64 - bucket.mean_bytes) * 0.1;
    }
}

/// A source that keeps to a pace.
pub struct Paced {
    source: Box<dyn Source>,
    pace: Arc<Pace>,
}

impl Paced {
    /// `source`, at `pace`.
    pub fn new(source: Box<dyn Source>, pace: Arc<Pace>) -> Paced {
        Paced { source, pace }
    }

    fn read_so_far(&self) -> i64 {
        self.source.positions().iter().map(|position| position.next_offset).sum()
    }
}

impl Source for Paced {
    fn poll(&mut self, epoch: Epoch, now_ms: i64, budget_bytes: u64, others: EventTime) -> Result<Polled, Error> {
        let budget_bytes = budget_bytes.min(self.pace.allowance_bytes(Instant::now()));
        if budget_bytes == 0 || self.pace.per_second.is_none() {
            return self.source.poll(epoch, now_ms, budget_bytes, others);
        }
        let before = self.read_so_far();
        let polled = self.source.poll(epoch, now_ms, budget_bytes, others)?;
        if polled.bytes > 0 {
            self.pace.took(self.read_so_far().abs_diff(before), polled.bytes);
        }
        Ok(polled)
    }

    fn positions(&self) -> Vec<PartitionPosition> {
        self.source.positions()
    }

    fn take_retried(&mut self) -> Vec<Place> {
        self.source.take_retried()
    }

    fn take_consumed(&mut self) -> Vec<Consumed> {
        self.source.take_consumed()
    }

    fn at_end(&self) -> bool {
        self.source.at_end()
    }

    fn status(&self) -> Vec<PartitionStatus> {
        self.source.status()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_gives_its_rate_and_debts_are_waited_off() {
        let pace = Pace::new(Some(1_000));
        let start = pace.bucket.lock().expect("no panic").filled_at;
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!(pace.allowance_bytes(at(0)), 0);
        assert_eq!(pace.allowance_bytes(at(50)), 50 * 200);
        pace.took(150, 150 * 200);
        assert_eq!(pace.allowance_bytes(at(100)), 0, "a debt of 100, of which 50 are paid");
        assert_eq!(pace.allowance_bytes(at(200)), 50 * 200);
        assert_eq!(pace.allowance_bytes(at(9_000)), 100 * 200, "no more than a tenth of a second at once");
        pace.hold(true);
        assert_eq!(pace.allowance_bytes(at(9_100)), 0);
        assert_eq!(Pace::new(None).allowance_bytes(at(0)), u64::MAX);
    }
}
