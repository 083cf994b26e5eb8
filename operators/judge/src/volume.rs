//! How many events come, per tenant and type, against the same hour of week.
//!
//! A volume is judged as a share, too: x events where E are usual are x of x + E, which is a half when all is as usual, and
//! whose logit is ln(x / E). Only drops are faults: more events than usual are a campaign's, and what is sent twice shows
//! as duplicates.

use crate::block::Frame;
use crate::cell::{Pool, PoolCell, cut};
use crate::evidence::{Seen, ln_threshold};
use crate::math::logit;
use crate::season::Season;
use crate::signal::{Scope, Signal, State};
use crate::store::{Store, key};
use crate::tally::{Family, Indicator, code_of};
use crate::verdict::{Bar, Outcome, Told, judge};

const VOLUME_KEY: u8 = b'n';
/// The code of all types together.
const ALL_TYPES: u64 = 0;
/// Usual events below which a volume isn't judged.
const USUAL_MIN: f64 = 20.0;
/// Least variance of a volume's logarithm.
const VARIANCE_MIN: f64 = 0.05;
const WEEK_US: f64 = 7.0 * 86_400e6;

struct Count<'t> {
    code: u64,
    label: &'t str,
    events: f64,
    users: f64,
}

/// Judges all volumes of a tenant; returns how many.
pub(crate) fn judge_volumes(frame: &Frame<'_>, store: &mut dyn Store, signals: &mut Vec<Signal>) -> u64 {
    let tally = frame.tally;
    let volume_key = key(VOLUME_KEY, &[&tally.tenant]);
    let mut pool = store.get(&volume_key).and_then(|bytes| Pool::from_bytes(&bytes)).unwrap_or_default();
    let mut counts: Vec<Count<'_>> = Vec::with_capacity(tally.volumes.len() + 1);
    let mut all = Count { code: ALL_TYPES, label: "", events: 0.0, users: 0.0 };
    for volume in &tally.volumes {
        let label = tally.texts.get(volume.event_type as usize).map_or("", String::as_str);
        all.events += volume.events as f64;
        all.users = all.users.max(f64::from(volume.users));
        counts.push(Count { code: code_of(label), label, events: volume.events as f64, users: volume.users.into() });
    }
    counts.push(all);
    for count in &counts {
        let indicator = Indicator { family: Family::Volume, code: count.code };
        if let Err(at) = pool.position(indicator)
            && pool.cells.len() < frame.settings.indicators_max
        {
            let cell = PoolCell {
                indicator,
                label: cut(count.label),
                season: Season::new((count.events + 1.0).ln(), 0.09),
                within: 0.0,
                between: 0.0,
                per_user: 1.0,
                trial: Default::default(),
            };
            pool.cells.insert(at, cell);
        }
    }
    // A family of its own, with the same budget: volumes are few, and a drop that lasts is worth the other false alert.
    let per_week = WEEK_US / tally.window.width_us.max(1) as f64;
    let ln_threshold = ln_threshold(pool.cells.len() as u64, per_week, frame.settings.false_alerts_per_week);
    let mature = pool.windows >= frame.settings.learn_windows;
    for cell in &mut pool.cells {
        let code = cell.indicator.code;
        let count = counts.iter().find(|count| count.code == code);
        let (events, users) = count.map_or((0.0, 0.0), |count| (count.events, count.users));
        judge_volume(frame, cell, (events, users), mature, ln_threshold, signals);
    }
    let oldest = frame.window.saturating_sub(frame.settings.forget_after_windows);
    pool.cells.retain(|cell| cell.season.level > 0.0 || cell.trial.last_seen >= oldest);
    pool.windows = pool.windows.saturating_add(1);
    store.put(&volume_key, pool.to_bytes());
    pool.cells.len() as u64
}

fn judge_volume(
    frame: &Frame<'_>,
    cell: &mut PoolCell,
    (events, users): (f64, f64),
    mature: bool,
    ln_threshold: f64,
    signals: &mut Vec<Signal>,
) {
    let settings = frame.settings;
    let at_us = frame.tally.window.start_us;
    let usual_ln = cell.season.expected(at_us);
    let usual = usual_ln.exp() - 1.0;
    let left_over = (events + 1.0).ln() - usual_ln;
    if events > 0.0 && users > 0.0 {
        cell.per_user += ((events / users - f64::from(cell.per_user)) * 0.05) as f32;
    }
    // A type that has come for a while only isn't missed.
    if usual < USUAL_MIN || !mature || cell.season.windows < settings.learn_windows {
        cell.trial.last_seen = frame.window;
        cell.season.learn(at_us, left_over, 1.0 / (events + 1.0));
        return;
    }
    let per_user = f64::from(cell.per_user).max(1.0);
    let shrink = 1.0 / (2.0 * per_user - 1.0);
    let variance = f64::from(cell.season.variance).max(VARIANCE_MIN);
    let seen = Seen {
        hits: events * shrink,
        trials: (events + usual) * shrink,
        expected: 0.5,
        expected_by_past: 0.5,
        variance,
        noise: 0.0,
        stay: 0.0,
        variance_by_past: variance,
    };
    let bar = Bar {
        ln_threshold,
        effects_min: [(-settings.volume_left_max.ln(), 0.0); 2],
        up: false,
        down: true,
        windows_min: settings.volume_windows,
        tells: true,
    };
    let lost = (usual - events).max(0.0) / per_user;
    let outcome = judge(&mut cell.trial, frame.window, &seen, &Told { users: lost, ..Told::default() }, &bar, settings);
    if outcome != Outcome::Bad {
        cell.season.learn(at_us, left_over, 1.0 / (events + 1.0));
    }
    if !matches!(outcome, Outcome::Bad | Outcome::Recovered) {
        return;
    }
    let fault = cell.trial.fault;
    signals.push(Signal {
        tenant: frame.tally.tenant.clone(),
        scope: Scope::default(),
        event_type: cell.label.clone(),
        field: String::new(),
        indicator: cell.indicator,
        label: String::new(),
        state: if outcome == Outcome::Bad { State::Bad } else { State::Recovered },
        since: fault.map_or(frame.window, |fault| fault.since),
        window: frame.window,
        ln_e: fault.map_or(0.0, |fault| f64::from(fault.ln_e)),
        ln_threshold,
        share_now: events / usual,
        share_seen: fault.map_or(1.0, |fault| logit(f64::from(fault.share)).exp()),
        expected: 1.0,
        lower: (-1.96 * variance.sqrt()).exp(),
        upper: (1.96 * variance.sqrt()).exp(),
        hits: events as u64,
        trials: usual as u64,
        users: lost,
        users_all: usual / per_user,
        first: None,
        last: None,
        examples: [None; 3],
    });
}
