//! One series' evidence in one window: found out of order, still so, back in order, or nothing.

use crate::cell::{Fault, Trial};
use crate::evidence::{Seen, Segment, drawn_shift, ln_ratio, observe};
use crate::settings::Settings;
use crate::tally::Place;

/// Windows after which a segment that led nowhere is learned from.
const SEGMENT_WINDOWS_MAX: u32 = 24 * 14;

/// Variance of the logit by which a fault's share may change while it goes on.
const FAULT_VARIANCE: f64 = 0.5;

/// What a series must show to be out of order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bar {
    pub(crate) ln_threshold: f64,
    pub(crate) shift_min: f64,
    pub(crate) difference_min: f64,
    /// Whether more, or less, than expected can be a fault.
    pub(crate) up: bool,
    pub(crate) down: bool,
    pub(crate) windows_min: u32,
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
    users: f64,
    first: Option<Place>,
    bar: &Bar,
    settings: &Settings,
) -> Outcome {
    trial.last_seen = window;
    if trial.fault.is_some() {
        return still_bad(trial, seen, settings);
    }
    if trial.segment.is_empty() && unremarkable(seen) {
        let mut segment = Segment::default();
        segment.add(window, seen);
        return Outcome::Calm(segment);
    }
    let before = trial.segment;
    let statistic = observe(&mut trial.segment, window, seen);
    if before.is_empty() || trial.segment.start != before.start {
        (trial.users, trial.users_in_window, trial.windows, trial.first) = (0.0, 0.0, 0, None);
    }
    trial.users += users as f32;
    trial.users_in_window = trial.users_in_window.max(users as f32);
    trial.windows += 1;
    trial.first = match (trial.first, first) {
        (Some(known), Some(new)) => Some(known.min(new)),
        (known, new) => known.or(new),
    };
    if statistic >= bar.ln_threshold && matters(trial, bar, settings) {
        let effect = trial.segment.effect();
        let since = trial.segment.start;
        let fault = Fault { since, ln_e: statistic as f32, share: effect.seen as f32, recovery: 0.0, windows: 0 };
        trial.fault = Some(fault);
        return Outcome::Bad;
    }
    if trial.segment.ln_e() <= 0.0 || trial.windows >= SEGMENT_WINDOWS_MAX {
        let segment = trial.segment;
        trial.clear();
        return Outcome::Calm(segment);
    }
    Outcome::Gathering
}

/// Within half a standard deviation of either reference: no evidence, without working it out.
fn unremarkable(seen: &Seen) -> bool {
    let near = |expected: f64, variance: f64| {
        let shift = drawn_shift(seen.hits, seen.trials, expected);
        let information = (seen.trials * expected * (1.0 - expected)).max(1e-9);
        shift * shift < 0.25 * (1.0 / information + variance)
    };
    near(seen.expected, seen.variance) || near(seen.expected_by_past, seen.variance_by_past)
}

/// Whether the effect is one that a person wants to be told about.
fn matters(trial: &Trial, bar: &Bar, settings: &Settings) -> bool {
    let effect = trial.segment.effect();
    let direction = if effect.shift > 0.0 { bar.up } else { bar.down };
    direction
        && effect.shift.abs() >= bar.shift_min
        && (effect.seen - effect.expected).abs() >= bar.difference_min
        && f64::from(trial.users) >= settings.users_min
        && f64::from(trial.users_in_window) >= settings.users_in_window_min
        && trial.windows >= bar.windows_min
}

/// A fault goes on until the windows speak for either reference, against the share that it had.
fn still_bad(trial: &mut Trial, seen: &Seen, settings: &Settings) -> Outcome {
    let Some(fault) = trial.fault.as_mut() else { return Outcome::Gathering };
    let faulty = (f64::from(fault.share), FAULT_VARIANCE);
    let by_others = ln_ratio(seen.hits, seen.trials, (seen.expected, seen.variance), faulty);
    let by_past = ln_ratio(seen.hits, seen.trials, (seen.expected_by_past, seen.variance_by_past), faulty);
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
