//! Event time and epochs: the two coordinates of progress.

use serde::{Deserialize, Serialize};

/// A point in event time, in microseconds since 1970-01-01T00:00:00Z.
///
/// [`EventTime::MIN`] means "nothing is known yet" and [`EventTime::MAX`] "no event can come any more".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventTime(pub i64);

impl EventTime {
    /// Before every event.
    pub const MIN: EventTime = EventTime(i64::MIN);
    /// After every event.
    pub const MAX: EventTime = EventTime(i64::MAX);

    /// The time `ms` milliseconds after 1970, saturating at the ends.
    pub fn from_ms(ms: i64) -> EventTime {
        EventTime(ms.saturating_mul(1000))
    }

    /// Milliseconds since 1970, rounded down.
    pub fn as_ms(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This time within what `DateTime64(6)` can hold, 1900 to 2299, where ClickHouse clips windows, too.
    #[must_use]
    pub fn storable(self) -> EventTime {
        const YEAR_1900: i64 = -2_208_988_800_000_000;
        const YEAR_2299: i64 = 10_413_791_999_000_000;
        EventTime(self.0.clamp(YEAR_1900, YEAR_2299))
    }

    /// This time moved by `span`; the two ends stay where they are.
    #[must_use]
    pub fn plus(self, span: Span) -> EventTime {
        match self {
            EventTime::MIN | EventTime::MAX => self,
            EventTime(at) => EventTime(at.saturating_add(span.0)),
        }
    }

    /// This time moved back by `span`; the two ends stay where they are.
    #[must_use]
    pub fn minus(self, span: Span) -> EventTime {
        self.plus(Span(-span.0))
    }
}

/// A length of event time, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span(pub i64);

impl Span {
    /// A span of `ms` milliseconds, saturating.
    pub const fn from_ms(ms: i64) -> Span {
        Span(ms.saturating_mul(1000))
    }
}

/// The slice of every partition's log that is processed and committed as one transaction.
/// Epochs are numbered from 1; 0 is "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

/// What a `ReplacingMergeTree` keeps the greatest of: a generation (raised by a restore from an older
/// checkpoint) above an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// Bits that hold the epoch: 34 years of epochs of one millisecond.
    pub const EPOCH_BITS: u32 = 40;

    /// The version of rows that `epoch` writes in `generation`.
    pub fn of(generation: u32, epoch: Epoch) -> Version {
        Version((u64::from(generation) << Self::EPOCH_BITS) + epoch.0)
    }
}
