//! Judging time: which events are in time, how far a partition's watermark is, when it is idle.
//!
//! Pure: it takes times as facts and returns decisions. *Too late* is a fact of the log, not of the moment: an
//! event is too late when its time is older than its own partition's watermark at its own offset by more than the
//! allowed lateness. The one judgement that needs the clock, *too late after idleness*, is told apart.
//!
//! Invariants: a watermark never goes back; a record beyond the future limit doesn't move it; an event counts for
//! it as no later than its record's Kafka timestamp.

use weir_schemas::time::{EventTime, Span};

/// The bounds that a source's file gives.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How far events may be out of order within a partition.
    pub disorder: Span,
    /// How long after its close a window is still corrected.
    pub allowed_lateness: Span,
    /// How far an event time may lie beyond its record's Kafka timestamp.
    pub future_limit: Span,
    /// After how long at its end without a record a partition is idle.
    pub idle_after_ms: i64,
}

/// What time says of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    InTime,
    /// Older than its own partition's watermark by more than the allowed lateness.
    TooLate,
    /// Too late only against the watermark that went on while the partition was idle: a judgement by the clock.
    TooLateAfterIdle,
    /// Its time lies too far beyond its record's.
    Future,
}

/// One partition's clock.
#[derive(Clone, Debug)]
pub struct PartitionClock {
    watermark: EventTime,
    /// Wall time since when nothing came, in milliseconds: of the last record, of the start, or of the last look after a gap
    /// in which nobody looked.
    active_at_ms: i64,
    /// Wall time of the last look that found nothing at the log's end; absent since there is something to read.
    empty_at_ms: Option<i64>,
}

/// The longest time between two looks of which the second still says that nothing came in between: in a longer one the
/// process may have been stopped, and the client with it.
const LOOKS_WITHIN_MS: i64 = 2_000;

impl PartitionClock {
    /// A clock that resumes from a mark; [`EventTime::MIN`] where there is none.
    pub fn resume(watermark: EventTime, now_ms: i64) -> PartitionClock {
        PartitionClock { watermark, active_at_ms: now_ms, empty_at_ms: None }
    }

    /// The partition's own watermark.
    pub fn watermark(&self) -> EventTime {
        self.watermark
    }

    /// Judges the next event of the partition's log and moves the watermark behind it. `kafka_time_ms` is negative
    /// where the record carries none; `held` is what this worker's stream was already told.
    pub fn judge(&mut self, time: EventTime, kafka_time_ms: i64, bounds: &Bounds, held: EventTime) -> Verdict {
        let mut counts_as = time;
        if kafka_time_ms >= 0 {
            let recorded = EventTime::from_ms(kafka_time_ms);
            if time > recorded.plus(bounds.future_limit) {
                return Verdict::Future;
            }
            counts_as = time.min(recorded);
        }
        let verdict = if time < self.watermark.minus(bounds.allowed_lateness) {
            Verdict::TooLate
        } else if time < held.minus(bounds.allowed_lateness) {
            Verdict::TooLateAfterIdle
        } else {
            Verdict::InTime
        };
        self.watermark = self.watermark.max(counts_as.minus(bounds.disorder));
        verdict
    }

    /// Judges a retried event: its clock was judged by its own record's timestamp, and it is too late only where the state
    /// keeps its window no more, before `floor`. It moves nothing.
    pub fn judge_retried(time: EventTime, kafka_time_ms: i64, bounds: &Bounds, floor: EventTime) -> Verdict {
        if kafka_time_ms >= 0 && time > EventTime::from_ms(kafka_time_ms).plus(bounds.future_limit) {
            Verdict::Future
        } else if time < floor {
            Verdict::TooLate
        } else {
            Verdict::InTime
        }
    }

    /// Records came at `now_ms`.
    pub fn active(&mut self, now_ms: i64) {
        self.active_at_ms = now_ms;
        self.empty_at_ms = None;
    }

    /// A look at `now_ms` found everything read up to the end that the broker knows.
    pub fn found_empty(&mut self, now_ms: i64) {
        if self.empty_at_ms.is_some_and(|before| now_ms.saturating_sub(before) > LOOKS_WITHIN_MS) {
            self.active_at_ms = now_ms;
        }
        self.empty_at_ms = Some(now_ms);
    }

    /// Idle by time *and* by being at its end: a slow reader is not an idle partition, and the time in which nobody looked
    /// doesn't count.
    pub fn is_idle(&self, bounds: &Bounds) -> bool {
        self.empty_at_ms.is_some_and(|at| at.saturating_sub(self.active_at_ms) >= bounds.idle_after_ms)
    }

    /// Whether it holds the watermark back at `now_ms`. An idle one does, too, where this poll hasn't looked into it: it
    /// waits for room or for the others, and what it has to say meanwhile must not be late for that.
    fn holds(&self, bounds: &Bounds, now_ms: i64) -> bool {
        !self.is_idle(bounds) || self.empty_at_ms != Some(now_ms)
    }
}

/// What a worker's whole share says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Combined {
    /// The watermark that the stream is told; never less than `held`.
    pub watermark: EventTime,
    /// Whether every partition is idle and was looked into just now, or there is none.
    pub idle: bool,
}

/// Combines a worker's partitions. `held` is what the stream was told before, `others` the least watermark of the
/// other workers that aren't idle ([`EventTime::MAX`] when all are), `onward` how far the clock has carried the
/// greatest watermark since the last record anywhere.
pub fn combine<'a>(
    clocks: impl Iterator<Item = &'a PartitionClock>,
    bounds: &Bounds,
    now_ms: i64,
    held: EventTime,
    others: EventTime,
    onward: EventTime,
) -> Combined {
    let least = clocks.filter(|clock| clock.holds(bounds, now_ms)).map(PartitionClock::watermark).min();
    let (watermark, idle) = match least {
        Some(least) => (least, false),
        None if others == EventTime::MAX => (onward, true),
        None => (others, true),
    };
    Combined { watermark: held.max(watermark), idle }
}

/// How far the clock carries the watermark when every partition has been idle at its end: from the greatest watermark
/// that any partition has, at the clock's pace. (From the watermark and not from the greatest event time, since an
/// event may be ahead of its record's timestamp by a wrong clock.)
pub fn onward(greatest: EventTime, last_record_at_ms: i64, now_ms: i64) -> EventTime {
    greatest.plus(Span::from_ms(now_ms.saturating_sub(last_record_at_ms).max(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        disorder: Span::from_ms(10),
        allowed_lateness: Span::from_ms(100),
        future_limit: Span::from_ms(1_000),
        idle_after_ms: 500,
    };

    fn ms(at: i64) -> EventTime {
        EventTime::from_ms(at)
    }

    #[test]
    fn an_event_is_judged_by_the_log_before_it() {
        let mut clock = PartitionClock::resume(EventTime::MIN, 0);
        assert_eq!(clock.judge(ms(1_000), 1_000, &BOUNDS, EventTime::MIN), Verdict::InTime);
        assert_eq!(clock.watermark(), ms(990));
        assert_eq!(clock.judge(ms(890), 1_000, &BOUNDS, EventTime::MIN), Verdict::InTime);
        assert_eq!(clock.judge(ms(889), 1_000, &BOUNDS, EventTime::MIN), Verdict::TooLate);
        assert_eq!(clock.watermark(), ms(990), "a watermark never goes back");
    }

    #[test]
    fn a_clock_in_the_future_moves_nothing_and_a_little_ahead_counts_as_its_record() {
        let mut clock = PartitionClock::resume(EventTime::MIN, 0);
        assert_eq!(clock.judge(ms(2_001), 1_000, &BOUNDS, EventTime::MIN), Verdict::Future);
        assert_eq!(clock.watermark(), EventTime::MIN);
        assert_eq!(clock.judge(ms(2_000), 1_000, &BOUNDS, EventTime::MIN), Verdict::InTime);
        assert_eq!(clock.watermark(), ms(990));
        assert_eq!(clock.judge(ms(9_000), -1, &BOUNDS, EventTime::MIN), Verdict::InTime, "no timestamp, no limit");
    }

    #[test]
    fn waking_from_idleness_is_judged_against_what_was_told_and_told_apart() {
        let mut clock = PartitionClock::resume(ms(0), 0);
        assert_eq!(clock.judge(ms(400), 400, &BOUNDS, ms(501)), Verdict::TooLateAfterIdle);
        assert_eq!(clock.judge(ms(401), 401, &BOUNDS, ms(501)), Verdict::InTime);
    }

    #[test]
    fn only_a_partition_at_its_end_can_be_idle() {
        let mut clock = PartitionClock::resume(EventTime::MIN, 0);
        assert!(!clock.is_idle(&BOUNDS), "it was never read to its end");
        (0..=500).step_by(100).for_each(|at| clock.found_empty(at));
        assert!(clock.is_idle(&BOUNDS));
        clock.active(600);
        assert!(!clock.is_idle(&BOUNDS));
    }

    #[test]
    fn time_in_which_nobody_looks_makes_nothing_idle_and_the_watermark_waits_for_the_next_look() {
        let mut clock = PartitionClock::resume(ms(100), 0);
        clock.found_empty(0);
        clock.found_empty(LOOKS_WITHIN_MS + 1);
        assert!(!clock.is_idle(&BOUNDS), "the process may have slept in between");
        clock.found_empty(LOOKS_WITHIN_MS + 501);
        assert!(clock.is_idle(&BOUNDS));

        let told = |clock: &PartitionClock, now_ms| {
            combine([clock].into_iter(), &BOUNDS, now_ms, ms(150), EventTime::MAX, ms(9_000))
        };
        let looked_at = LOOKS_WITHIN_MS + 501;
        assert_eq!(told(&clock, looked_at), Combined { watermark: ms(9_000), idle: true });
        let paused = Combined { watermark: ms(150), idle: false };
        assert_eq!(told(&clock, looked_at + 1), paused, "nobody looked: it holds what was told");
    }

    #[test]
    fn an_idle_share_follows_the_others_and_the_clock_when_all_are_idle() {
        let mut slow = PartitionClock::resume(ms(100), 0);
        let fast = PartitionClock::resume(ms(900), 0);
        let told = |clocks: &[&PartitionClock], others| {
            combine(clocks.iter().copied(), &BOUNDS, 1_000, ms(50), others, ms(2_000))
        };
        assert_eq!(told(&[&slow, &fast], ms(700)), Combined { watermark: ms(100), idle: false });
        slow.found_empty(1_000);
        assert_eq!(told(&[&slow, &fast], ms(700)), Combined { watermark: ms(900), idle: false });
        assert_eq!(told(&[&slow], ms(700)), Combined { watermark: ms(700), idle: true });
        assert_eq!(told(&[], EventTime::MAX), Combined { watermark: ms(2_000), idle: true });
        assert_eq!(told(&[&slow], ms(10)), Combined { watermark: ms(50), idle: true }, "never back");
    }

    #[test]
    fn the_clock_carries_the_greatest_watermark_on() {
        assert_eq!(onward(ms(5_000), 1_000, 1_700), ms(5_700));
        assert_eq!(onward(EventTime::MIN, 1_000, 1_700), EventTime::MIN);
    }
}
