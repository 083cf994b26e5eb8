//! One series' evidence in one window: found out of order, still so, back in order, or nothing.

use crate::cell::{Fault, Trial};
use crate::evidence::{Seen, Segment, is_within, ln_ratio, observe};
use crate::settings::Settings;
use crate::tally::Place;

/// Windows after which a segment that led nowhere is learned from.
const SEGMENT_WINDOWS_MAX: u32 = 24 * 14;

/// Evidence at which a segment ends. Where a window has few events, what speaks against "as expected" has to outweigh first
/// that the alternative knows so little: a segment that is a little below nothing may still become something.
const LN_CALM: f64 = -2.5;
/// Part of the threshold that the evidence must reach without one user of each window: a device that sends odd events for
/// hours is no fault of a release.
const WITHOUT_ONE: f64 = 0.5;
/// Part of what is expected by which more of it must be seen: of what nearly all events show anyway, more is no news.
const MORE_BY: f64 = 0.1;
/// Variance of the logit by which a fault's share may change while it goes on.
const FAULT_VARIANCE: f64 = 0.5;

/// What a series must show to be out of order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bar {
    pub(crate) ln_threshold: f64,
    /// Least shifts (logit), each with its least difference of shares.
    pub(crate) effects_min: [(f64, f64); 2],
    /// Whether more, or less, than expected can be a fault.
    pub(crate) up: bool,
    pub(crate) down: bool,
    pub(crate) windows_min: u32,
    /// Whether this window may be the one in which it is found; if not, evidence is gathered all the same.
    pub(crate) tells: bool,
}

/// What is told of the window's hits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    /// Users affected beyond what is usual.
    pub(crate) users: f64,
    /// Effective hits that one user may have brought.
    pub(crate) one_user: f64,
    pub(crate) first: Option<Place>,
}

/// What became of a series in a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// As expected: the segment may be learned from.
    Calm(Segment),
    Gathering,
    Bad,
    Recovered,
}

/// Judges one window of one series.
pub(crate) fn judge(
    trial: &mut Trial,
    window: u32,
    seen: &Seen,
    told: &Told,
    bar: &Bar,
    settings: &Settings,
) -> Outcome {
    trial.last_seen = window;
    if trial.fault.is_some() {
        return still_bad(trial, seen, settings);
    }
    if !bar.up && !bar.down {
        // Nothing to find here: no evidence is gathered that a later window could be blamed with.
        trial.clear();
    }
    if (!bar.up && !bar.down) || (trial.segment.is_empty() && is_within(seen, 0.5)) {
        let mut segment = Segment::default();
        segment.add(window, seen);
        return Outcome::Calm(segment);
    }
    let before = trial.segment;
    let (ln_e, statistic) = observe(&mut trial.segment, window, seen);
    trial.ln_e = ln_e as f32;
    if before.is_empty() || trial.segment.start != before.start {
        (trial.users, trial.users_in_window, trial.one_user) = (0.0, 0.0, 0.0);
        trial.first = None;
    }
    trial.users += told.users as f32;
    trial.users_in_window = trial.users_in_window.max(told.users as f32);
    trial.one_user += told.one_user.min(seen.hits) as f32;
    trial.first = match (trial.first, told.first) {
        (Some(known), Some(new)) => Some(known.min(new)),
        (known, new) => known.or(new),
    };
    if bar.tells && statistic >= bar.ln_threshold && matters(trial, bar, settings) {
        let effect = trial.segment.effect();
        let since = trial.segment.start;
        let fault = Fault { since, ln_e: statistic as f32, share: effect.seen as f32, recovery: 0.0, windows: 0 };
        trial.fault = Some(fault);
        return Outcome::Bad;
    }
    if ln_e <= LN_CALM || trial.segment.windows >= SEGMENT_WINDOWS_MAX {
        let segment = trial.segment;
        trial.clear();
        return Outcome::Calm(segment);
    }
    Outcome::Gathering
}

/// Whether the effect is one that a person wants to be told about.
fn matters(trial: &Trial, bar: &Bar, settings: &Settings) -> bool {
    let effect = trial.segment.effect();
    let direction = if effect.shift > 0.0 { bar.up } else { bar.down };
    let difference = (effect.seen - effect.expected).abs();
    direction
        && bar.effects_min.iter().any(|&(shift, least)| effect.shift.abs() >= shift && difference >= least)
        && (effect.shift < 0.0 || difference >= MORE_BY * effect.expected)
        && f64::from(trial.users) >= settings.users_min
        && f64::from(trial.users_in_window) >= settings.users_in_window_min
        && trial.segment.windows >= bar.windows_min
        && (effect.shift < 0.0 || trial.segment.without(trial.one_user).ln_e() >= WITHOUT_ONE * bar.ln_threshold)
}

/// A fault goes on until the windows speak for either reference, against the share that it had.
fn still_bad(trial: &mut Trial, seen: &Seen, settings: &Settings) -> Outcome {
    let Some(fault) = trial.fault.as_mut() else { return Outcome::Gathering };
    let (found, now) = (f64::from(fault.share), (seen.hits + 0.5) / (seen.trials + 1.0));
    // A fault is found in windows that show more of it than others. So it is held to be what this window shows, from half
    // as far off as when it was found.
    let against = |expected: f64, variance: f64| {
        let half = 0.5 * (expected + found);
        let faulty = now.clamp(half.min(found), half.max(found));
        ln_ratio(seen.hits, seen.trials, (expected, variance), (faulty, FAULT_VARIANCE))
    };
    let by_others = against(seen.expected, seen.variance + seen.stay);
    let by_past = against(seen.expected_by_past, seen.variance_by_past + seen.stay);
    let step = by_others.max(by_past).clamp(-settings.ln_recovery, settings.ln_recovery);
    let recovery = (f64::from(fault.recovery) + step).clamp(0.0, settings.ln_recovery * 2.0);
    fault.windows = if step > 0.0 { fault.windows + 1 } else { 0 };
    fault.recovery = recovery as f32;
    if recovery >= settings.ln_recovery && fault.windows >= settings.recovery_windows {
        trial.clear();
        return Outcome::Recovered;
    }
    Outcome::Bad
}
