//! Wall time: the one place that asks for it, so that a test can invent it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use weir_schemas::time::EventTime;

/// Where wall time comes from.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// A clock that a test sets, in milliseconds since 1970.
    Invented(Arc<AtomicI64>),
}

/// CPU time that the calling thread has used, in nanoseconds; 0 where the system can't say.
pub fn thread_cpu_ns() -> u64 {
    let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the one structure that it is given.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut used) };
    if result != 0 {
        return 0;
    }
    u64::try_from(used.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(used.tv_nsec).unwrap_or(0)
}

impl Clock {
    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.now().as_ms()
    }

    /// Now, in microseconds since 1970.
    pub fn now(&self) -> EventTime {
        match self {
            #[expect(clippy::disallowed_methods, reason = "this is the wrapper")]
            Clock::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                EventTime(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
            }
            Clock::Invented(ms) => EventTime::from_ms(ms.load(Ordering::Acquire)),
        }
    }
}
