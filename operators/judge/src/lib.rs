//! What is normal and what is not: judging the counts of closed windows, without I/O, clock or threads.
//!
//! Numbers in, judgements out. Two things are judged: a *series* (one number per window, against its own past by hour of
//! week) and a *share* (so many of so many, of a release against the other releases at the same time). Everything is
//! online and in one pass, with constant memory per series, so that the same log gives the same judgements.
//!
//! ```text
//! Tally (a closed window of a tenant) ─▶ judge ─▶ Signals (series out of order) ─▶ causes ─▶ alerts
//!                                          │▲
//!                                          ▼│ Store: series by key
//! ```
//!
//! Not here: how counts are taken from events (`weir-operators`), where state is kept, where alerts go.

pub mod alert;
mod block;
pub mod book;
pub mod cause;
mod cell;
mod compare;
mod evidence;
mod facts;
mod judge;
mod math;
mod report;
mod rounds;
mod season;
pub mod series;
pub mod settings;
mod shelf;
pub mod signal;
pub mod store;
mod tails;
pub mod tally;
mod types;
mod verdict;
pub mod version;
mod volume;

pub use judge::{Judged, Known, judge};

/// Bytes of state of one release's series (or of an SDK or app version's).
pub const BYTES_PER_SERIES: usize = cell::Cell::BYTES;
/// Bytes of state of one indicator of a platform, which all its releases share, without its label.
pub const BYTES_PER_PLATFORM_SERIES: usize = cell::PoolCell::BYTES;
