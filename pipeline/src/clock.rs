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
