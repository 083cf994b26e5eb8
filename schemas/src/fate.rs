//! What can become of a record, and why it was refused: the closed lists behind the ledger and the
//! quarantine.

/// What became of a consumed record. Each record has exactly one fate, so that per source, partition,
/// tenant and minute `consumed` is the sum of all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Fate {
    /// It became an event that the views count.
    Accepted = 0,
    /// Its bytes, its time or a rule refused it; it waits in the quarantine with its bytes.
    Quarantined = 1,
    /// An event with its tenant and id was accepted before, and the two are equal.
    Duplicate = 2,
    /// The same, but the two copies differ in some field.
    DuplicateDiffering = 3,
    /// Older than its own partition's watermark by more than the allowed lateness.
    TooLate = 4,
    /// Too late only against the watermark that went on while its partition was idle.
    TooLateAfterIdle = 5,
    /// A record without a value.
    Tombstone = 6,
}

impl Fate {
    /// Every fate, in the order of their numbers.
    pub const ALL: [Fate; 7] = [
        Fate::Accepted,
        Fate::Quarantined,
        Fate::Duplicate,
        Fate::DuplicateDiffering,
        Fate::TooLate,
        Fate::TooLateAfterIdle,
        Fate::Tombstone,
    ];

    /// The ledger's column and the metric's label.
    pub fn name(self) -> &'static str {
        match self {
            Fate::Accepted => "accepted",
            Fate::Quarantined => "quarantined",
            Fate::Duplicate => "duplicate",
            Fate::DuplicateDiffering => "duplicate_differing",
            Fate::TooLate => "too_late",
            Fate::TooLateAfterIdle => "too_late_after_idle",
            Fate::Tombstone => "tombstone",
        }
    }
}

/// Why a record is in quarantine. The name is stable: it stands in headers, tables and alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    /// Shorter than the five bytes of Confluent's frame, or its first byte is not 0.
    NotFramed = 0,
    /// The registry knows no schema of this id, and the grace period is over.
    UnknownSchema = 1,
    /// The id's schema is not one that the reader schema can read.
    IncompatibleSchema = 2,
    /// The bytes end inside a field.
    Truncated = 3,
    /// Bytes are left over behind the datum.
    TrailingBytes = 4,
    /// A length, branch, index or variable-length integer out of bounds, or text that is not UTF-8.
    Malformed = 5,
    /// A value that its logical type or the column cannot hold (a decimal too wide, a time out of range).
    OutOfRange = 6,
    /// The event time is null.
    NoEventTime = 7,
    /// The event time lies too far beyond the record's Kafka timestamp.
    FutureEventTime = 8,
    /// A rule of the pipeline file refused the event; the detail names the rule.
    Rule = 9,
    /// Kept with the refused records, but its fate is [`Fate::TooLate`]: nothing is wrong with its bytes.
    TooLate = 10,
    /// The same for [`Fate::TooLateAfterIdle`].
    TooLateAfterIdle = 11,
    /// An expression of a view or a rule fails for the event, as it would fail ClickHouse's query; the detail names both.
    NotEvaluable = 12,
}

impl Reason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Reason; 13] = [
        Reason::NotFramed,
        Reason::UnknownSchema,
        Reason::IncompatibleSchema,
        Reason::Truncated,
        Reason::TrailingBytes,
        Reason::Malformed,
        Reason::OutOfRange,
        Reason::NoEventTime,
        Reason::FutureEventTime,
        Reason::Rule,
        Reason::TooLate,
        Reason::TooLateAfterIdle,
        Reason::NotEvaluable,
    ];

    /// The fate of a record with this reason.
    pub fn fate(self) -> Fate {
        match self {
            Reason::TooLate => Fate::TooLate,
            Reason::TooLateAfterIdle => Fate::TooLateAfterIdle,
            _ => Fate::Quarantined,
        }
    }

    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Reason::NotFramed => "not_framed",
            Reason::UnknownSchema => "unknown_schema",
            Reason::IncompatibleSchema => "incompatible_schema",
            Reason::Truncated => "truncated",
            Reason::TrailingBytes => "trailing_bytes",
            Reason::Malformed => "malformed",
            Reason::OutOfRange => "out_of_range",
            Reason::NoEventTime => "no_event_time",
            Reason::FutureEventTime => "future_event_time",
            Reason::Rule => "rule",
            Reason::TooLate => "too_late",
            Reason::TooLateAfterIdle => "too_late_after_idle",
            Reason::NotEvaluable => "not_evaluable",
        }
    }

    /// The reason of a number that a stage column carried.
    pub fn from_number(number: u8) -> Option<Reason> {
        Reason::ALL.get(usize::from(number)).copied()
    }
}
