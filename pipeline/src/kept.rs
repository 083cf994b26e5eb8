//! What the state keeps for retries: which places were retried, and how far back in event time it still can.
//!
//! Keys in the column family `meta`; numbers are big-endian:
//! ```text
//! run/retried/<topic>\0<partition i32><offset i64>   nothing: the record refused at this place was retried
//! run/retained/<source>                              i64, i64: for how long windows were kept at the last start, and
//!                                                    the event time before which they are gone
//! ```
//! Invariants: a place is written with the commit of the epoch that took its retry, so that a restart from before it takes
//! it again and one from after it never does. What is retained only ever begins later.
//!
//! Places are kept for ever, about 40 bytes each: a copy of a retry may stand in the topic for as long as it likes.

use std::path::Path;

use weir_operators::state::{Family, Store, Sync, Writes};
use weir_schemas::place::Place;
use weir_schemas::time::{EventTime, Span};

use crate::error::Error;

const RETRIED: &str = "run/retried/";
const RETAINED: &str = "run/retained/";

fn key_of(place: &Place) -> Vec<u8> {
    let mut key = RETRIED.as_bytes().to_vec();
    key.extend_from_slice(place.topic.as_bytes());
    key.push(0);
    key.extend_from_slice(&place.partition.to_be_bytes());
    key.extend_from_slice(&place.offset.to_be_bytes());
    key
}

/// Whether the record refused at `place` was retried by a committed epoch.
pub fn was_retried(store: &Store, place: &Place) -> Result<bool, Error> {
    Ok(store.get(Family::Meta, &key_of(place))?.is_some())
}

/// Adds to a commit that the record refused at `place` was retried.
pub fn write_retried(writes: &mut Writes<'_>, place: &Place) {
    writes.put(Family::Meta, &key_of(place), &[]);
}

/// What is true of a source's windows at a start.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// The watermark that state went by until now.
    pub told: EventTime,
    /// The source's allowed lateness.
    pub lateness: Span,
    /// For how long windows are kept from now on; zero where nothing is retried.
    pub retained: Span,
}

/// Notes for how long `source` keeps windows from now on, and says from which event time on they were all kept. What was
/// dropped before retries were possible, or under a shorter time, is gone.
///
/// # Errors
/// When the state can't be read or written.
pub fn retain(store: &Store, source: &str, start: Start) -> Result<EventTime, Error> {
    let key = format!("{RETAINED}{source}");
    let stored = store.get(Family::Meta, key.as_bytes())?;
    let before = stored.as_deref().and_then(|bytes| Some((Span(number(bytes, 0)?), EventTime(number(bytes, 1)?))));
    let from = kept_from(before, start);
    if before.is_some() || start.retained > Span(0) {
        let mut writes = store.writes();
        let value = [start.retained.0.to_be_bytes(), from.0.to_be_bytes()].concat();
        writes.put(Family::Meta, key.as_bytes(), &value);
        store.write(writes, Sync::Now)?;
    }
    Ok(from)
}

/// `before`: for how long windows were kept until now, and from when on they were.
fn kept_from(before: Option<(Span, EventTime)>, start: Start) -> EventTime {
    let (retained, from) = before.unwrap_or((Span(0), EventTime::MIN));
    from.max(start.told.minus(start.lateness).minus(retained))
}

/// From which event time on the state in `folder` has kept the windows of `source`; `None` where there is no such state
/// on this machine. A running pipeline isn't disturbed.
///
/// # Errors
/// When the state can't be read.
pub fn peek_kept_from(folder: &Path, source: &str) -> Result<Option<EventTime>, Error> {
    let stored = Store::peek(folder, format!("{RETAINED}{source}").as_bytes())?;
    Ok(stored.and_then(|bytes| number(&bytes, 1)).map(EventTime))
}

fn number(bytes: &[u8], at: usize) -> Option<i64> {
    bytes.get(at * 8..)?.first_chunk::<8>().map(|bytes| i64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(at: i64) -> EventTime {
        EventTime::from_ms(at)
    }

    #[test]
    fn windows_are_kept_from_where_they_were_dropped_last() {
        let start = |told| Start { told, lateness: Span::from_ms(10), retained: Span::from_ms(500) };
        let kept = |ms_kept, from| Some((Span::from_ms(ms_kept), from));
        assert_eq!(kept_from(None, start(EventTime::MIN)), EventTime::MIN, "a new state");
        assert_eq!(kept_from(None, start(ms(1_000))), ms(990), "a retry topic was added");
        assert_eq!(kept_from(kept(100, ms(50)), start(ms(1_000))), ms(890), "a longer time is as good as the old one");
        assert_eq!(kept_from(kept(0, ms(50)), start(ms(1_000))), ms(990), "it was taken out for a while");
        assert_eq!(kept_from(kept(5_000, ms(50)), start(ms(1_000))), ms(50), "never earlier");
    }
}
