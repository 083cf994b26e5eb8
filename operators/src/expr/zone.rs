//! Local time: how far a zone's clock is from UTC at an instant.

use chrono::{DateTime, LocalResult, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;
use weir_schemas::types::Zone;

/// A zone's clock. Looking up an offset costs a search, so the last quarter of an hour is remembered.
#[derive(Clone, Debug)]
pub struct LocalTime {
    zone: Tz,
    /// The quarter (seconds / 900) whose offset is known, and that offset in seconds.
    known: Option<(i64, i64)>,
}

/// Offsets are looked up once per this many seconds; transitions within it are found by looking at both its ends.
const QUARTER: i64 = 900;

impl LocalTime {
    /// The clock of a zone; none is UTC. `None` if nobody knows the zone.
    pub fn new(zone: Option<&Zone>) -> Option<LocalTime> {
        let zone = match zone {
            Some(name) => name.parse().ok()?,
            None => Tz::UTC,
        };
        Some(LocalTime { zone, known: None })
    }

    /// Local time minus UTC, in seconds, at an instant in seconds since 1970.
    pub fn offset(&mut self, at: i64) -> i64 {
        if self.zone == Tz::UTC {
            return 0;
        }
        let quarter = at.div_euclid(QUARTER);
        if let Some((known, offset)) = self.known
            && known == quarter
        {
            return offset;
        }
        let start = self.look_up(quarter * QUARTER);
        if start == self.look_up(quarter * QUARTER + QUARTER - 1) {
            self.known = Some((quarter, start));
            return start;
        }
        self.look_up(at)
    }

    fn look_up(&self, at: i64) -> i64 {
        match DateTime::from_timestamp(at, 0) {
            Some(instant) => {
                i64::from(self.zone.offset_from_utc_datetime(&instant.naive_utc()).fix().local_minus_utc())
            }
            None => 0,
        }
    }

    /// The instant at which the clock shows `local`, in seconds since 1970; `None` where it shows it twice or never.
    pub fn instant(&self, local: NaiveDateTime) -> Option<i64> {
        match self.zone.from_local_datetime(&local) {
            LocalResult::Single(at) => Some(at.timestamp()),
            _ => None,
        }
    }
}
