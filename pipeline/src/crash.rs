//! Crash points: places at which a test may end the process as `kill -9` would, to prove that a restart from there
//! loses nothing and counts nothing twice.
//!
//! `WEIR_CRASH_AT=after_commit:3` aborts at the third passage of that point. Without the variable a point costs one load
//! of a static. They are few, and stand where the order of two effects matters.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A place where a crash is interesting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPoint {
    /// A worker has read a batch and counted it, but not sent it on.
    AfterPoll,
    /// Every worker has passed the epoch; nothing of it is on disk.
    BeforeCommit,
    /// The epoch is on disk; nobody knows it yet.
    AfterCommit,
    /// A destination got some of its rows and is about to get more.
    WithinDelivery,
    /// A transaction holds an epoch's messages and isn't committed.
    WithinTransaction,
    /// A destination acknowledged its rows; that is written nowhere.
    AfterDelivery,
    /// The acknowledgement is written; what readers are promised is not sent yet.
    BeforeProgress,
}

impl CrashPoint {
    /// Every point.
    pub const ALL: [CrashPoint; 7] = [
        CrashPoint::AfterPoll,
        CrashPoint::BeforeCommit,
        CrashPoint::AfterCommit,
        CrashPoint::WithinDelivery,
        CrashPoint::WithinTransaction,
        CrashPoint::AfterDelivery,
        CrashPoint::BeforeProgress,
    ];

    /// The name that `WEIR_CRASH_AT` takes.
    pub fn name(self) -> &'static str {
        match self {
            CrashPoint::AfterPoll => "after_poll",
            CrashPoint::BeforeCommit => "before_commit",
            CrashPoint::AfterCommit => "after_commit",
            CrashPoint::WithinDelivery => "within_delivery",
            CrashPoint::WithinTransaction => "within_transaction",
            CrashPoint::AfterDelivery => "after_delivery",
            CrashPoint::BeforeProgress => "before_progress",
        }
    }
}

/// The point that is armed, and how many passages are left.
struct Armed {
    point: CrashPoint,
    passages: AtomicU64,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// Ends the process here if `WEIR_CRASH_AT` says so.
pub fn pass(point: CrashPoint) {
    let armed = ARMED.get_or_init(|| parse(&std::env::var("WEIR_CRASH_AT").ok()?));
    if let Some(armed) = armed
        && armed.point == point
        && armed.passages.fetch_sub(1, Ordering::AcqRel) == 1
    {
        tracing::error!(point = point.name(), "crashing as WEIR_CRASH_AT asked");
        std::process::abort();
    }
}

fn parse(text: &str) -> Option<Armed> {
    let (name, passages) = text.split_once(':').unwrap_or((text, "1"));
    let point = CrashPoint::ALL.into_iter().find(|point| point.name() == name)?;
    Some(Armed { point, passages: AtomicU64::new(passages.parse().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_and_a_count_are_read_and_anything_else_arms_nothing() {
        let armed = parse("after_commit:3").expect("a point");
        assert_eq!((armed.point, armed.passages.into_inner()), (CrashPoint::AfterCommit, 3));
        assert_eq!(parse("before_commit").map(|armed| armed.passages.into_inner()), Some(1));
        assert!(parse("nowhere").is_none() && parse("after_commit:x").is_none());
    }
}
