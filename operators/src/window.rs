//! Which window an event time falls into, as ClickHouse's `toStartOfInterval` and its relatives cut them.
//!
//! Invariants: windows of one view tile the time line without gaps and without overlap, so the end of a window is the
//! start of the next one; an event time always has exactly one window; the answer depends on nothing but the
//! time and the IANA rules of the zone that are compiled in.
//!
//! Times before 1970 fall into the first window of `DateTime` and `Date` columns, since ClickHouse clips them.
//! Not here: hopping and session windows; zones whose offset had seconds in it after 1970 (`Africa/Monrovia` until
//! 1972), where ClickHouse counts minutes from midnight.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, Date32Array, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray,
};
use chrono::offset::{LocalResult, Offset};
use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, TimeZone};
use chrono_tz::Tz;
use weir_schemas::time::{EventTime, Span};
use weir_schemas::types::ColumnType;

use crate::error::Error;
use crate::view::{Bounds, Width, Window};

const SECOND: i64 = 1_000_000;
const HOUR_SECONDS: i64 = 3_600;
const DAY_SECONDS: i64 = 86_400;
/// Days of calendar arithmetic that are meaningful: 1900 to 2299, ClickHouse's own table.
const FIRST_DAY: i64 = -25_567;
const LAST_DAY: i64 = 120_529;
/// Windows of a calendar that are remembered; a batch rarely touches more than a handful.
const REMEMBERED: usize = 4_096;

/// Finds windows, and remembers the ones it has found.
#[derive(Clone, Debug)]
pub struct Windows {
    column_type: ColumnType,
    cut: Cut,
    /// Windows of a calendar that were asked for, in order of start.
    remembered: Vec<Bounds>,
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Width in microseconds.
    Fixed(i64),
    Hours {
        hours: i64,
        zone: Tz,
        whole_hours: bool,
    },
    Days {
        days: i64,
        zone: Tz,
    },
}

impl Windows {
    /// The windows of a view; an unknown zone, a width of nothing and a column type that is no time are errors.
    pub fn new(window: &Window) -> Result<Windows, Error> {
        let refuse = |detail: String| Error::Evaluation { expression: format!("window {}", window.name), detail };
        let zone = match &window.zone {
            None => Tz::UTC,
            Some(name) => name.parse().map_err(|_| refuse(format!("unknown time zone '{name}'; use an IANA name")))?,
        };
        match &window.column_type {
            ColumnType::Date | ColumnType::Date32 | ColumnType::DateTime(_) => {}
            ColumnType::DateTime64(0 | 3 | 6 | 9, _) => {}
            other => return Err(refuse(format!("a window cannot start at a value of type {other}"))),
        }
        let cut = match window.width {
            Width::Fixed(Span(micros)) if micros > 0 => Cut::Fixed(micros),
            Width::Hours(hours) if hours >= 24 => Cut::Days { days: 1, zone },
            Width::Hours(hours) if hours > 0 => {
                Cut::Hours { hours: i64::from(hours), zone, whole_hours: has_whole_hours(zone) }
            }
            Width::Days(days) if days > 0 => Cut::Days { days: i64::from(days), zone },
            _ => return Err(refuse("its width is not positive".to_owned())),
        };
        Ok(Windows { column_type: window.column_type.clone(), cut, remembered: Vec::new() })
    }

    /// The window that `at` falls into.
    pub fn bounds(&self, at: EventTime) -> Bounds {
        let at = if self.clips() { at.0.max(0) } else { at.0 };
        match self.cut {
            Cut::Fixed(width) => {
                let start = at.saturating_sub(at.rem_euclid(width));
                Bounds { start: EventTime(start), end: EventTime(start.saturating_add(width)) }
            }
            Cut::Days { days, zone } => {
                let day = day_of(zone, at.div_euclid(SECOND));
                let first = day.div_euclid(days) * days;
                self.in_seconds(day_start(zone, first), day_start(zone, first + days))
            }
            Cut::Hours { hours, zone, whole_hours } => {
                let at = at.div_euclid(SECOND);
                let start_of = |second| hour_start(zone, second, hours, whole_hours);
                let start = start_of(at);
                // The first second that has another start; starts never go back, so halving finds it.
                let (mut inside, mut outside) = (at, at + DAY_SECONDS + 4 * HOUR_SECONDS);
                while outside - inside > 1 {
                    let middle = inside + (outside - inside) / 2;
                    if start_of(middle) == start { inside = middle } else { outside = middle }
                }
                self.in_seconds(start, outside)
            }
        }
    }

    /// Puts the start of the window of each of `times` (microseconds) into `starts`, cleared first.
    pub fn assign(&mut self, times: &[i64], starts: &mut Vec<i64>) {
        starts.clear();
        starts.reserve(times.len());
        let mut current = Bounds { start: EventTime(1), end: EventTime(0) };
        for &at in times {
            let at = if self.clips() { at.max(0) } else { at };
            if at < current.start.0 || at >= current.end.0 {
                current = self.find(at);
            }
            starts.push(current.start.0);
        }
    }

    /// The end of the window that begins at `start`.
    pub fn end_of(&mut self, start: EventTime) -> EventTime {
        self.find(start.0).end
    }

    /// Up to where everything is closed when the watermark stands at `watermark`: the end of the last window that it
    /// has passed entirely. [`EventTime::MIN`] while none is.
    pub fn complete_through(&self, watermark: EventTime) -> EventTime {
        match watermark {
            EventTime::MIN | EventTime::MAX => watermark,
            at if self.clips() && at.0 < 0 => EventTime::MIN,
            at => self.bounds(at).start,
        }
    }

    /// Up to where nothing can change by itself any more: as [`Windows::complete_through`], `lateness` later.
    pub fn final_through(&self, watermark: EventTime, lateness: Span) -> EventTime {
        self.complete_through(watermark.minus(lateness))
    }

    /// The starts (microseconds) as the view's window column.
    pub fn column(&self, starts: &[i64]) -> ArrayRef {
        let seconds = || starts.iter().map(|start| start.div_euclid(SECOND));
        match &self.column_type {
            ColumnType::Date | ColumnType::Date32 => {
                let zone = match self.cut {
                    Cut::Days { zone, .. } | Cut::Hours { zone, .. } => zone,
                    Cut::Fixed(_) => Tz::UTC,
                };
                let days = seconds().map(|second| i32::try_from(day_of(zone, second)).unwrap_or(0));
                Arc::new(Date32Array::from_iter_values(days))
            }
            ColumnType::DateTime64(3, _) => Arc::new(TimestampMillisecondArray::from_iter_values(
                starts.iter().map(|start| start.div_euclid(1_000)),
            )),
            ColumnType::DateTime64(6, _) => {
                Arc::new(TimestampMicrosecondArray::from_iter_values(starts.iter().copied()))
            }
            ColumnType::DateTime64(9, _) => {
                let nanoseconds = starts.iter().map(|start| start.saturating_mul(1_000));
                Arc::new(TimestampNanosecondArray::from_iter_values(nanoseconds))
            }
            _ => Arc::new(TimestampSecondArray::from_iter_values(seconds())),
        }
    }

    /// Whether ClickHouse clips times before 1970 in this column.
    fn clips(&self) -> bool {
        matches!(self.column_type, ColumnType::DateTime(_) | ColumnType::Date)
    }

    fn in_seconds(&self, start: i64, end: i64) -> Bounds {
        let start = start.saturating_mul(SECOND);
        let start = if matches!(self.column_type, ColumnType::DateTime(_)) { start.max(0) } else { start };
        Bounds { start: EventTime(start), end: EventTime(end.saturating_mul(SECOND)) }
    }

    fn find(&mut self, at: i64) -> Bounds {
        if matches!(self.cut, Cut::Fixed(_)) {
            return self.bounds(EventTime(at));
        }
        let next = self.remembered.partition_point(|bounds| bounds.start.0 <= at);
        if let Some(found) = next.checked_sub(1).and_then(|before| self.remembered.get(before))
            && at < found.end.0
        {
            return *found;
        }
        let found = self.bounds(EventTime(at));
        if self.remembered.len() >= REMEMBERED {
            self.remembered.clear();
            self.remembered.push(found);
        } else {
            self.remembered.insert(next, found);
        }
        found
    }
}

/// The zone's offset from UTC at `second`, in seconds.
fn offset(zone: Tz, second: i64) -> i64 {
    let at = DateTime::from_timestamp(second, 0).unwrap_or_default();
    i64::from(zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc())
}

/// The second at which day number `day` (since 1970-01-01) begins on the zone's calendar: its last midnight, or where
/// midnight is skipped, the instant of the skip.
fn day_start(zone: Tz, day: i64) -> i64 {
    let midnight = day.saturating_mul(DAY_SECONDS);
    let Some(date) = NaiveDate::default().checked_add_signed(TimeDelta::try_days(day).unwrap_or_default()) else {
        return midnight;
    };
    match zone.from_local_datetime(&date.and_time(NaiveTime::MIN)) {
        LocalResult::Single(at) => at.timestamp(),
        LocalResult::Ambiguous(_, last) => last.timestamp(),
        LocalResult::None => midnight - offset(zone, midnight - DAY_SECONDS),
    }
}

/// The number of the zone's day that `second` falls into: the last one that has begun.
fn day_of(zone: Tz, second: i64) -> i64 {
    let mut day = (second.saturating_add(offset(zone, second))).div_euclid(DAY_SECONDS);
    if !(FIRST_DAY..=LAST_DAY).contains(&day) {
        return day;
    }
    while day_start(zone, day) > second {
        day -= 1;
    }
    while day_start(zone, day + 1) <= second {
        day += 1;
    }
    day
}

/// Whether every day since 1970 begins at a whole hour of UTC; then hours are cut in UTC.
fn has_whole_hours(zone: Tz) -> bool {
    (0..=LAST_DAY).step_by(7).all(|day| day_start(zone, day).rem_euclid(HOUR_SECONDS) == 0)
}

/// A change of a zone's offset within a day: seconds of the clock after midnight, and by how much the clock moves.
struct Shift {
    at: i64,
    by: i64,
}

fn shift_of_day(zone: Tz, day: i64) -> Option<Shift> {
    let (mut before, mut after) = (day_start(zone, day) - 1, day_start(zone, day + 1) - 1);
    let (old, new) = (offset(zone, before), offset(zone, after));
    if old == new {
        return None;
    }
    while after - before > 1 {
        let middle = before + (after - before) / 2;
        if offset(zone, middle) == old { before = middle } else { after = middle }
    }
    let by = new - old;
    let at = after + old - day * DAY_SECONDS;
    // A jump to this day's midnight belongs to the day before. ClickHouse knows no change that leads back into
    // the day before: it moves the point of change.
    (at >= 0).then_some(Shift { at: if at + by < 0 { -by } else { at }, by })
}

/// The start of the `hours`-hour window that holds `second`.
fn hour_start(zone: Tz, second: i64, hours: i64, whole_hours: bool) -> i64 {
    if hours == 1 && whole_hours {
        return second.div_euclid(HOUR_SECONDS) * HOUR_SECONDS;
    }
    let day = day_of(zone, second);
    let midnight = day_start(zone, day);
    if hours == 1 {
        // Single hours are counted as they pass, whatever the clock does.
        return second - (second - midnight).rem_euclid(HOUR_SECONDS);
    }
    let width = hours * HOUR_SECONDS;
    let mut time = second - midnight;
    match shift_of_day(zone, day) {
        Some(shift) if time >= shift.at => {
            time = (time + shift.by).div_euclid(width) * width;
            // Back by the shift, but not to before it.
            if time >= shift.at {
                time = (time - shift.by).max(shift.at);
            }
        }
        _ => time = time.div_euclid(width) * width,
    }
    midnight + time
}
