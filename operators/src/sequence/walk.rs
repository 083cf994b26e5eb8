//! Walking over what came of one device: the pure part, that knows points alone.
//!
//! A point is an event's time in microseconds and its number. Points are walked in their order, each once. What stands
//! ahead of the walk is looked at only where a number is skipped.

use std::collections::BTreeMap;

use crate::state::{Codec, CodecError};

/// A greater step between two numbers is another numbering: no SDK is known to keep so many events back and lose them
/// all, and one wrong number mustn't pass for a million lost events.
pub const STEP_MAX: i64 = 10_000;
/// Points ahead that are looked at for the sake of one gap, at most: a device that sends more within the time that a
/// number may be missing is none, and must not make the walk quadratic.
const LOOK_MAX: usize = 2_000;

/// When an event happened, in microseconds, and its number.
pub(super) type Point = (i64, i64);

/// How a device's events are numbered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbering {
    /// How much newer than the event behind its gap, in microseconds, an event with a missing number may be.
    pub(super) within: i64,
    /// The number with which it begins anew.
    pub(super) starts_at: Option<i64>,
}

/// How far the walk over a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    /// The number that is expected.
    next: i64,
    /// Points ahead of the walk whose numbers were passed already, in their order: they fill a gap that was looked at.
    ahead: Vec<Point>,
    /// The day of event time in which it was last heard of.
    pub(super) day: i64,
}

/// What a point is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A number that came before.
    Again,
    /// A number that came, nothing is missing before it.
    Came,
    /// A number behind a gap.
    Behind(Gap),
}

/// Numbers that didn't come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// First and last number of each stretch, rising.
    pub(super) stretches: Vec<(i64, i64)>,
    /// How many numbers that are.
    pub(super) missing: u64,
}

/// Walks over `points`, which rise and are each there once, and says what each is; `known` is how far the walk is, if
/// it has begun. `further` gives the points beyond them, in order, as far as a missing number may stand; it is asked
/// once at most.
pub(super) fn walk<E>(
    known: &mut Option<Device>,
    points: &[Point],
    numbering: Numbering,
    mut further: impl FnMut() -> Result<Vec<Point>, E>,
) -> Result<Vec<Step>, E> {
    let mut steps = Vec::with_capacity(points.len());
    let mut beyond: Option<Vec<Point>> = None;
    for (at, &point) in points.iter().enumerate() {
        let Some(device) = known.as_mut() else {
            *known = Some(Device { next: point.1.saturating_add(1), ahead: Vec::new(), day: i64::MIN });
            steps.push(Step::Came);
            continue;
        };
        let step = match device.meet(point, numbering) {
            Some(step) => step,
            None => {
                let beyond = match &mut beyond {
                    Some(beyond) => beyond,
                    none => none.insert(further()?),
                };
                let rest = points.get(at + 1..).unwrap_or_default();
                device.skip(point, numbering, rest.iter().chain(beyond.iter()))
            }
        };
        steps.push(step);
    }
    Ok(steps)
}

impl Device {
    /// Takes a point, unless it skips numbers.
    fn meet(&mut self, point: Point, numbering: Numbering) -> Option<Step> {
        if let Ok(at) = self.ahead.binary_search(&point) {
            self.ahead.remove(at);
            return Some(Step::Came);
        }
        let number = point.1;
        if number < self.next {
            if numbering.starts_at != Some(number) {
                return Some(Step::Again);
            }
        } else if number > self.next && number.saturating_sub(self.next) <= STEP_MAX {
            return None;
        }
        self.next = number.saturating_add(1);
        Some(Step::Came)
    }

    /// Takes a point that skips numbers: those that don't stand `ahead` either are missing.
    fn skip<'p>(
        &mut self,
        (time, number): Point,
        numbering: Numbering,
        ahead: impl Iterator<Item = &'p Point>,
    ) -> Step {
        let last = time.saturating_add(numbering.within);
        let mut filling: BTreeMap<i64, i64> = BTreeMap::new();
        for &(at, of) in ahead.take(LOOK_MAX).take_while(|(at, _)| *at <= last) {
            // What comes after a new beginning fills no gap before it.
            if of < self.next && numbering.starts_at == Some(of) {
                break;
            }
            if (self.next..number).contains(&of) && self.ahead.binary_search(&(at, of)).is_err() {
                filling.entry(of).or_insert(at);
            }
        }
        let mut gap = Gap { stretches: Vec::new(), missing: 0 };
        let mut from = std::mem::replace(&mut self.next, number.saturating_add(1));
        for of in filling.keys().copied().chain([number]) {
            if from < of {
                gap.stretches.push((from, of - 1));
                gap.missing += from.abs_diff(of);
            }
            from = of.saturating_add(1);
        }
        self.ahead.extend(filling.into_iter().map(|(of, at)| (at, of)));
        self.ahead.sort_unstable();
        if gap.missing == 0 { Step::Came } else { Step::Behind(gap) }
    }
}

impl Codec for Device {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.next, self.day).encode(out);
        self.ahead.iter().for_each(|point| point.encode(out));
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        let (next, day) = <(i64, i64)>::decode(bytes)?;
        let mut ahead = Vec::new();
        while !bytes.is_empty() {
            ahead.push(Point::decode(bytes)?);
        }
        Ok(Device { next, ahead, day })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks over points in seconds; each step as a word, a gap as its stretches.
    fn told(numbering: (i64, Option<i64>), points: &[Point], beyond: &[Point]) -> (Vec<String>, Option<Device>) {
        let mut device = None;
        let numbering = Numbering { within: numbering.0, starts_at: numbering.1 };
        let steps = walk(&mut device, points, numbering, || Ok::<_, ()>(beyond.to_vec())).unwrap();
        let word = |step: &Step| match step {
            Step::Again => "again".to_owned(),
            Step::Came => "came".to_owned(),
            Step::Behind(gap) => {
                let all: Vec<String> = gap.stretches.iter().map(|(from, to)| format!("{from}-{to}")).collect();
                format!("{} of {}", all.join(" "), gap.missing)
            }
        };
        (steps.iter().map(word).collect(), device)
    }

    #[test]
    fn a_number_that_is_skipped_and_not_ahead_is_missing() {
        let (steps, device) = told((5, None), &[(0, 7), (1, 8), (2, 12), (4, 10)], &[(7, 9), (8, 11), (9, 13)]);
        // 10 and 9 come within 5 of the event with 12, 11 doesn't.
        assert_eq!(steps, ["came", "came", "11-11 of 1", "came"]);
        assert_eq!(device.map(|device| (device.next, device.ahead)), Some((13, vec![(7, 9)])));
    }

    #[test]
    fn a_first_number_begins_anew_and_fills_no_gap_before_it() {
        let points = [(0, 1), (1, 5), (2, 1), (3, 2), (4, 3), (5, 5)];
        assert_eq!(told((9, Some(1)), &points, &[]).0, ["came", "2-4 of 3", "came", "came", "came", "4-4 of 1"]);
        // Without a first number the same ones fill the gap, as numbers that came out of order.
        assert_eq!(told((9, None), &points, &[]).0, ["came", "4-4 of 1", "again", "came", "came", "again"]);
    }

    #[test]
    fn a_giant_step_is_another_numbering() {
        let points = [(0, 1), (1, 2 + STEP_MAX), (2, 4 + 2 * STEP_MAX), (3, i64::MAX), (4, i64::MAX)];
        assert_eq!(told((0, None), &points, &[]).0[..3], ["came", "2-10001 of 10000", "came"]);
        let (steps, device) = told((0, None), &points, &[]);
        assert_eq!((steps[3].as_str(), device.map(|device| device.next)), ("came", Some(i64::MAX)));
    }

    #[test]
    fn a_device_comes_back_from_its_bytes() {
        let device = Device { next: 9, ahead: vec![(-1, 4), (3, 7)], day: 20_000 };
        let mut bytes = Vec::new();
        device.encode(&mut bytes);
        assert_eq!(Device::decode_all(&bytes).as_ref(), Ok(&device));
        assert!(Device::decode_all(&bytes[..bytes.len() - 1]).is_err());
    }
}
