//! What one window's counts of a series are held against, whom they affect, and what is learned from them.

use crate::cell::PoolCell;
use crate::compare::{Common, Observation};
use crate::evidence::{Seen, Segment, drawn_shift, stay_variance};
use crate::math::{logit, share_at};
use crate::settings::Settings;
use crate::tally::{Family, Row};

/// What a user may count for, in usual hits per user.
const PER_USER_MAX: f64 = 1.25;
/// Hits from which a release's vote on whether all have moved grows no more.
const VOTE_HITS_MAX: f64 = 10.0;
/// Drift of an offset's variance per segment.
const OFFSET_DRIFT: f64 = 1e-4;

/// A window's counts with what the others and the past lead to expect.
pub(crate) fn seen_by(own: &Observation, others: Option<Common>, pool: &PoolCell, settings: &Settings) -> Seen {
    let part = if others.is_some() { settings.past_beside_others } else { 1.0 };
    let past = past_variance_from(pool, settings, part);
    let common = others.unwrap_or_default();
    // What the others don't decide is the past's to say, for as long as it goes on.
    let undecided = 1.0 - common.known;
    let prior = past_variance(pool, settings);
    let lasting = common.variance - common.noise - undecided * undecided * (prior - past).max(0.0);
    let spread = own.offset_variance + own.within;
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
        variance: spread + lasting.max(0.0) + common.noise,
        noise: common.noise,
        variance_by_past: spread + past,
        // What people choose is taken to differ by more anyway.
        stay: match pool.indicator.family.is_mix() {
            true => 0.0,
            false => stay_variance(own.trials * own.expected * (1.0 - own.expected)),
        },
    }
}

/// Variance of the logit about its season: learned, and never less than a floor, which is greater for what people choose.
pub(crate) fn past_variance(pool: &PoolCell, settings: &Settings) -> f64 {
    past_variance_from(pool, settings, 1.0)
}

fn past_variance_from(pool: &PoolCell, settings: &Settings, part: f64) -> f64 {
    let least = part * if pool.indicator.family.is_mix() { settings.past_of_mix_min } else { settings.past_min };
    f64::from(pool.season.variance).max(least * least)
}

pub(crate) fn between_usual(settings: &Settings, family: Family) -> f64 {
    if family == Family::Schema {
        // A release uses one or the other: nothing to expect of one that isn't known.
        return 9.0;
    }
    let deviation = if family.is_mix() { settings.between_of_mix_usual } else { settings.between_usual };
    deviation * deviation
}

/// Effective hits and trials of a release, and the hits that one user may have brought.
///
/// No user counts for more than a quarter above the usual hits per user, so that one device that sends hundreds of odd
/// events is one device. And both counts are divided by the design effect of clusters in which all events agree,
/// E[m^2] / E[m] of a geometric number m of hits per user: 2 x mean - 1.
pub(crate) fn effective(row: Option<&Row>, trials: u64, pool: &PoolCell) -> (f64, f64, f64) {
    let hits = row.map_or(0.0, |row| row.hits as f64);
    let users = row.map_or(0.0, |row| f64::from(row.users));
    let kept = if users > 0.0 { hits.min(PER_USER_MAX * f64::from(pool.per_user) * users) } else { hits };
    let shrink = 1.0 / (2.0 * per_user(row, pool) - 1.0);
    let one_user = PER_USER_MAX * f64::from(pool.per_user).max(1.0) * shrink;
    (kept * shrink, (trials as f64 - (hits - kept)) * shrink, one_user)
}

/// Hits per user, the greater of this row's and the usual, within reason.
fn per_user(row: Option<&Row>, pool: &PoolCell) -> f64 {
    let usual = f64::from(pool.per_user).max(1.0);
    let here = row.filter(|row| row.users > 0).map_or(1.0, |row| row.hits as f64 / f64::from(row.users));
    here.clamp(usual, PER_USER_MAX * usual)
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

/// Part of the votes of those releases whose counts would show it that have moved at least half as far as their sum. Each is
/// hits, trials and expected share.
pub(crate) fn moved_together(own: &[(f64, f64, f64)], (hits, trials, expected): (f64, f64, f64)) -> f64 {
    let (from, to) = (expected, hits / trials);
    let (mut votes, mut agreed, mut voters) = (0.0, 0.0, 0);
    for &(hits, trials, expected) in own {
        let vote = (trials * from.max(to)).min(VOTE_HITS_MAX);
        let middle = 0.5 * (expected + to);
        let moved = if to > from { hits > trials * middle } else { hits < trials * middle };
        votes += vote;
        if moved {
            agreed += vote;
            voters += usize::from(vote >= 1.0);
        }
    }
    // Of several releases, one that moved alone is that release's matter.
    if voters < own.len().min(2) { 0.0 } else { agreed / f64::max(votes, f64::MIN_POSITIVE) }
}

pub(crate) fn summed(own: &[&Observation]) -> Observation {
    let mut sum = *own[0];
    let trials: f64 = own.iter().map(|o| o.trials).sum();
    let mean = |of: fn(&Observation) -> f64| own.iter().map(|o| of(o) * o.trials).sum::<f64>() / trials;
    sum.hits = own.iter().map(|o| o.hits).sum();
    sum.trials = trials;
    sum.one_user = own.iter().map(|o| o.one_user).fold(0.0, f64::max);
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

pub(crate) fn learn_per_user(cell: &mut PoolCell, rows: &[Option<&Row>], mature: bool) {
    let told = || rows.iter().flatten().filter(|row| row.users > 0 && row.hits > 0);
    let users: f64 = told().map(|row| f64::from(row.users)).sum();
    if users >= 1.0 {
        let here = told().map(|row| row.hits as f64).sum::<f64>() / users;
        // A device that sends odd events for hours moves it by a hundredth each.
        let most = if mature { 1.2 * f64::from(cell.per_user) } else { f64::INFINITY };
        let here = here.max(1.0).min(most);
        cell.per_user += ((here - f64::from(cell.per_user)) * 0.05) as f32;
    }
}
