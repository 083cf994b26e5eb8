//! Why a pipeline could not start or go on: one error for the whole process, with a stable code, whether trying
//! again can help, and the exit code that it becomes.
//!
//! Bad *data* is never an error here; it is a row with a reason. Every error stops the pipeline before the open
//! epoch's commit, so that nothing is lost: the next start resumes from the last commit.

use crate::problem::Problem;

/// Why a pipeline stopped, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pipeline file, its SQL or its schemas are wrong.
    #[error("the pipeline file has {} problem(s):\n{}", .0.len(), listed(.0))]
    Config(Vec<Problem>),
    /// A part outside Weir could not be used: broker, registry, ClickHouse.
    #[error("{part}: {detail}; {remedy}")]
    Unreachable {
        /// Which part, with its address.
        part: String,
        /// What it said.
        detail: String,
        /// What a person can do.
        remedy: String,
    },
    /// The log no longer holds what the state resumes from: offsets expired, or a topic was recreated.
    #[error("{place}: {detail}; {remedy}")]
    Log {
        /// The topic, or `topic/partition`.
        place: String,
        /// What differs.
        detail: String,
        /// What a person can do.
        remedy: String,
    },
    /// The state folder belongs to another pipeline, another version of it, or another process.
    #[error("state: {detail}; {remedy}")]
    State {
        /// What is wrong.
        detail: String,
        /// What a person can do.
        remedy: String,
    },
    /// The pipeline file asks for more than the existing state can follow.
    #[error("the pipeline file and its state differ: {what}; {remedy}")]
    Changed {
        /// Which part changed, by name, and how.
        what: String,
        /// What a person can do.
        remedy: String,
    },
    /// The disk of the state failed or is full.
    #[error("the state's disk: {detail}; {remedy}")]
    Disk {
        /// What the storage said.
        detail: String,
        /// What a person can do.
        remedy: String,
    },
    /// A destination refused what it will refuse again.
    #[error("{destination}: {detail}")]
    Delivery {
        /// The destination's name.
        destination: String,
        /// What it said, and the remedy.
        detail: String,
    },
    /// A sink could not be made, or rows not be encoded.
    #[error(transparent)]
    Sink(#[from] weir_sinks::Error),
    /// The archive could not be used.
    #[error(transparent)]
    Archive(#[from] weir_archive::Error),
    /// An operator could not be built.
    #[error(transparent)]
    Operator(#[from] weir_operators::error::Error),
    /// A batch that does not have the columns that its stage promises: a bug.
    #[error("arrow: {0}; this is a bug, and the next start resumes from the last commit")]
    Arrow(#[from] arrow_schema::ArrowError),
    /// An operator could not go on.
    #[error("{0}; the next start resumes from the last commit")]
    Stopped(String),
    /// A worker thread ended by a panic: a bug.
    #[error("a worker thread stopped: {detail}; this is a bug, and the next start resumes from the last commit")]
    Worker {
        /// The panic's message.
        detail: String,
    },
    /// The HTTP address could not be served.
    #[error("http {address}: {detail}; give another address or none in the pipeline file")]
    Http {
        /// The address.
        address: String,
        /// What the system said.
        detail: String,
    },
}

impl Error {
    /// The code that stands in logs and in the help; it never changes its meaning.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Config(_) => "W001",
            Error::Unreachable { .. } => "W002",
            Error::Log { .. } => "W003",
            Error::State { .. } => "W004",
            Error::Changed { .. } => "W005",
            Error::Disk { .. } => "W006",
            Error::Delivery { .. } => "W007",
            Error::Sink(_) => "W008",
            Error::Operator(_) => "W009",
            Error::Worker { .. } => "W010",
            Error::Http { .. } => "W011",
            Error::Arrow(_) => "W012",
            Error::Stopped(_) => "W013",
            Error::Archive(_) => "W014",
        }
    }

    /// What happened, without any detail: what a part said may hold an address, a login or an event's value.
    pub fn summary(&self) -> &'static str {
        match self {
            Error::Config(_) => "W001: the pipeline file, its SQL or its schemas are wrong",
            Error::Unreachable { .. } => "W002: a part outside Weir can't be used",
            Error::Log { .. } => "W003: the log no longer holds what the state resumes from",
            Error::State { .. } => "W004: the state folder doesn't fit",
            Error::Changed { .. } => "W005: the pipeline file and its state differ",
            Error::Disk { .. } => "W006: the state's disk failed or is full",
            Error::Delivery { .. } => "W007: a destination refuses what it will refuse again",
            Error::Sink(_) => "W008: a sink can't go on",
            Error::Operator(_) => "W009: an operator can't be built",
            Error::Worker { .. } => "W010: a thread ended, which is a bug",
            Error::Http { .. } => "W011: the HTTP address can't be served",
            Error::Arrow(_) => "W012: a batch lacks its columns, which is a bug",
            Error::Stopped(_) => "W013: an operator can't go on",
            Error::Archive(_) => "W014: the archive can't be used",
        }
    }

    /// Whether the same start may succeed later without anybody changing the pipeline.
    pub fn may_retry(&self) -> bool {
        match self {
            Error::Unreachable { .. } | Error::Disk { .. } => true,
            Error::Archive(error) => error.may_retry(),
            _ => false,
        }
    }

    /// The process's exit code, by who can help: 2 the author of the pipeline file, 3 whoever runs the parts
    /// around Weir, 4 whoever owns the state or the log, 1 a bug.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Archive(weir_archive::Error::Settings(_)) => 2,
            Error::Archive(weir_archive::Error::Damaged { .. }) => 4,
            Error::Archive(weir_archive::Error::Bug(_)) => 1,
            Error::Archive(_) => 3,
            Error::Config(_) | Error::Changed { .. } | Error::Http { .. } => 2,
            Error::Unreachable { .. } | Error::Delivery { .. } | Error::Sink(_) => 3,
            Error::Log { .. } | Error::State { .. } | Error::Disk { .. } => 4,
            Error::Operator(_) | Error::Stopped(_) | Error::Worker { .. } | Error::Arrow(_) => 1,
        }
    }

    /// A failure of the state's storage, as RocksDB or the file system told it.
    pub(crate) fn disk(detail: impl ToString) -> Error {
        let detail = detail.to_string();
        let remedy = if detail.contains("No space left") {
            "free space on the volume of the state folder, then start again: it resumes from the last commit"
        } else {
            "check the volume of the state folder, then start again: it resumes from the last commit"
        };
        Error::Disk { detail, remedy: remedy.to_owned() }
    }
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
