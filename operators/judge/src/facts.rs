//! What one window's counts of a series are held against, whom they affect, and what is learned from them.

use crate::cell::PoolCell;
use crate::compare::{Common, Observation};
use crate::evidence::{Seen, Segment, drawn_shift};
use crate::math::{logit, share_at};
use crate::settings::Settings;
use crate::tally::{Family, Row};

/// Drift of an offset's variance per segment.
const OFFSET_DRIFT: f64 = 1e-4;

/// A window's counts with what the others and the past lead to expect.
pub(crate) fn seen_by(own: &Observation, others: Option<Common>, pool: &PoolCell, settings: &Settings) -> Seen {
    let common = others.unwrap_or_default();
    let spread = own.offset_variance + own.within;
    let past = f64::from(pool.season.variance).max(settings.past_min * settings.past_min);
    let by_others = share_at(own.logit + common.shift);
    // Where all moved far, an offset needn't carry over to the new level: between the two nothing is odd.
    let raw = (common.hits + 0.5) / (common.trials + 1.0);
    let share = own.hits / own.trials;
    let between = common.shift.abs() > 1.0 && (share - by_others) * (share - raw) < 0.0;
    Seen {
        hits: own.hits,
        trials: own.trials,
        expected: if between { share.clamp(1e-6, 1.0 - 1e-6) } else { by_others },
        expected_by_past: own.expected,
        variance: spread + common.variance,
        variance_by_past: spread + past,
    }
}

pub(crate) fn between_min(settings: &Settings, family: Family) -> f64 {
    let deviation = if family.is_mix() { settings.between_of_mix_min } else { settings.between_min };
    deviation * deviation
}

/// Hits per user, the greater of this row's and the usual.
pub(crate) fn per_user(row: Option<&Row>, pool: &PoolCell) -> f64 {
    let here = row.filter(|row| row.users > 0).map_or(1.0, |row| row.hits as f64 / f64::from(row.users));
    here.max(f64::from(pool.per_user)).max(1.0)
}

/// Users affected beyond what was expected.
pub(crate) fn excess_users(row: Option<&Row>, seen: &Observation, expected: f64, pool: &PoolCell) -> f64 {
    let usual = seen.trials * expected;
    if seen.hits >= usual {
        let Some(row) = row.filter(|row| row.hits > 0) else { return 0.0 };
        let users = if row.users > 0 { f64::from(row.users) } else { row.hits as f64 / per_user(None, pool) };
        return users * (1.0 - usual / seen.hits);
    }
    // Effective counts are counts over (2 x hits per user - 1).
    let per_user = per_user(row, pool);
    (usual - seen.hits) * (2.0 * per_user - 1.0) / per_user
}

pub(crate) fn summed(own: &[&Observation]) -> Observation {
    let mut sum = *own[0];
    let trials: f64 = own.iter().map(|o| o.trials).sum();
    let mean = |of: fn(&Observation) -> f64| own.iter().map(|o| of(o) * o.trials).sum::<f64>() / trials;
    sum.hits = own.iter().map(|o| o.hits).sum();
    sum.trials = trials;
    sum.offset_variance = mean(|o| o.offset_variance);
    sum.expected = mean(|o| o.expected);
    sum.logit = logit(sum.expected);
    sum.finish()
}

/// A Kalman step of the offset by what a segment showed against the others, clipped at three deviations.
pub(crate) fn learn_offset(offset: &mut f32, variance: &mut f32, segment: &Segment, within: f64, between: f64) {
    let trials = f64::from(segment.trials);
    if trials <= 0.0 {
        return;
    }
    let expected = (f64::from(segment.expected) / trials).clamp(1e-6, 1.0 - 1e-6);
    let information = trials * expected * (1.0 - expected);
    let drawn = drawn_shift(f64::from(segment.hits), trials, expected);
    let seen = drawn * (1.0 + information) / information.max(1e-9);
    let noise = 1.0 / information.max(1e-9) + within;
    let known = (f64::from(*variance) + OFFSET_DRIFT).min(between);
    let clip = 3.0 * (known + noise).sqrt();
    let gain = known / (known + noise);
    *offset += (gain * seen.clamp(-clip, clip)) as f32;
    *variance = (known * (1.0 - gain)) as f32;
}

pub(crate) fn learn_per_user(cell: &mut PoolCell, rows: &[Option<&Row>]) {
    let told = || rows.iter().flatten().filter(|row| row.users > 0 && row.hits > 0);
    let users: f64 = told().map(|row| f64::from(row.users)).sum();
    if users >= 1.0 {
        let here = told().map(|row| row.hits as f64).sum::<f64>() / users;
        cell.per_user += ((here.max(1.0) - f64::from(cell.per_user)) * 0.05) as f32;
    }
}
