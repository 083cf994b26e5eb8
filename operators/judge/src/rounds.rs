//! The three rounds of judging one indicator in one window: each release against the others, SDK and app versions as a
//! whole, and the platform against its own season.

use crate::block::{Block, Group};
use crate::cell::{PoolCell, Trial};
use crate::compare::{Common, Observation, common};
use crate::evidence::Seen;
use crate::facts::{
    between_usual, excess_users, learn_offset, learn_per_user, moved_together, past_variance, seen_by, summed,
};
use crate::report::{Came, Report, Who};
use crate::tally::{Family, Indicator, Row};
use crate::types::Part;
use crate::verdict::{Bar, Outcome, Told, judge};

/// Effective trials of the others below which no release is compared with them.
const OTHERS_MIN: f64 = 10.0;
/// Variance by which platforms may differ when a platform has too few releases and others stand in.
const BETWEEN_PLATFORMS: f64 = 0.09;

/// Releases that the usual difference between releases counts for, where it is learned.
const USUAL_RELEASES: f64 = 4.0;
/// Greatest variance that a known release's wandering is taken for.
const WITHIN_MAX: f64 = 0.25;
/// Mean of the square of a standard normal number that is clipped at 4.
const CLIPPED_SQUARE: f64 = 0.9205;
/// Part of the releases' votes that a move of the whole platform takes.
const TOGETHER_MIN: f64 = 0.7;
/// Evidence from which a series doesn't tell how series in order wander.
const WANDER_LN_E_MAX: f32 = 4.0;

/// A group's counts over its platforms.
struct Together {
    seen: Seen,
    /// One of the platforms, and the indicator's position in its pool.
    platform: usize,
    pool_at: usize,
    users: f64,
    /// Whether all platforms have been watched for long enough, and all have others to compare with.
    mature: bool,
    compared: bool,
}

/// A series that was judged.
struct Say<'t> {
    who: Who<'t>,
    platform: usize,
    /// Position in the platform's pool.
    pool_at: usize,
    told: Told,
    bar: Bar,
}

/// By how much a release wandered more than was known of it, as a variance.
fn wandered(own: &Observation, others: &Common) -> f64 {
    let left_over = own.shift - others.shift;
    let known = 1.0 / own.information + own.offset_variance + others.variance + own.within;
    known * ((left_over * left_over / known).min(4.0) - CLIPPED_SQUARE)
}

impl<'t> Block<'t> {
    /// What the observations outside of some members lead these to expect, and its variance without the members' own.
    fn reference(
        &self,
        platform: usize,
        pool: &PoolCell,
        observations: &[Observation],
        order: &[usize],
        inside: &dyn Fn(usize) -> bool,
    ) -> Option<Common> {
        let prior = past_variance(pool, self.frame.settings);
        let same = |o: &Observation| f64::from(o.platform == platform && !o.at_fault && !inside(o.member));
        let mut others = common(observations, order, prior, same);
        if others.trials < OTHERS_MIN {
            // Too few on this platform: the other platforms stand in, with what platforms differ by added.
            let any = |o: &Observation| {
                let abroad = 1.0 / (1.0 + o.vote * BETWEEN_PLATFORMS);
                if o.at_fault || inside(o.member) {
                    0.0
                } else if o.platform == platform {
                    1.0
                } else {
                    abroad
                }
            };
            others = common(observations, order, prior, any);
            others.variance += BETWEEN_PLATFORMS * others.known * others.known;
        }
        let follow = self.frame.settings.follow_differently * others.shift;
        others.variance += follow * follow;
        (others.trials >= OTHERS_MIN).then_some(others)
    }

    pub(crate) fn judge_releases(
        &mut self,
        indicator: Indicator,
        pool_at: &[Option<usize>],
        observations: &mut [Observation],
        order: &[usize],
        rows: &[Option<&Row>],
    ) {
        let settings = self.frame.settings;
        let mut wander: Vec<(f64, f64)> = vec![(0.0, 0.0); self.platforms.len()];
        let mut found = Vec::new();
        for at in 0..observations.len() {
            let own = observations[at];
            let Some(pool_at) = pool_at[own.platform] else { continue };
            let pool = &self.pools[own.platform];
            let mature = pool.windows >= settings.learn_windows;
            let cell = &pool.cells[pool_at];
            let others = self.reference(own.platform, cell, observations, order, &|member| member == own.member);
            let row = rows[self.members[own.member].release];
            let seen = seen_by(&own, others, cell, settings);
            let users = excess_users(row, &own, seen.expected, cell);
            let between = f64::from(cell.between);
            let is_new = self.is_new(own.member);
            let bar = self.bar(indicator.family, others, &own, mature, is_new);
            let member = &mut self.members[own.member];
            let told = Told { users, one_user: own.one_user, first: row.map(|row| row.first) };
            let series = member.strand.find(indicator, between);
            let outcome = judge(&mut series.trial, self.frame.window, &seen, &told, &bar, settings);
            if let Some(others) = others
                && own.information > 20.0
                && series.trial.ln_e < WANDER_LN_E_MAX
                && !matches!(outcome, Outcome::Bad | Outcome::Recovered)
            {
                let sum = &mut wander[own.platform];
                *sum = (sum.0 + wandered(&own, &others), sum.1 + 1.0);
            }
            // What a release does from its first windows on may be a fault that is still small, and a known one's that left
            // its schema for another isn't its habit.
            let of_schema = indicator.family == Family::Schema;
            let is_habit = if of_schema { !member.strand.is_at_fault(Family::Schema) } else { !is_new };
            let series = member.strand.find(indicator, between);
            if let Outcome::Calm(segment) = &outcome
                && is_habit
            {
                learn_offset(&mut series.offset, &mut series.offset_variance, segment, own.within, between);
            }
            if matches!(outcome, Outcome::Bad | Outcome::Recovered) {
                found.push(at);
            }
            let trial = series.trial.clone();
            let say = Say { who: Who::Release(member.release), platform: own.platform, pool_at, told, bar };
            self.say(&say, &trial, outcome, &seen, &[own.member], &[row]);
        }
        for at in found {
            observations[at].at_fault = true;
        }
        self.learn_spread(indicator, pool_at, &wander);
    }

    /// Whether a release hasn't been watched for long enough to say what it usually brings.
    fn is_new(&self, member: usize) -> bool {
        let age = self.frame.ages.get(self.members[member].release).copied().unwrap_or(0);
        age < self.frame.settings.learn_windows
    }

    /// How a family is judged for one release. Without others nothing is blamed on a release.
    fn bar(&self, family: Family, others: Option<Common>, seen: &Observation, mature: bool, new: bool) -> Bar {
        let judged = others.is_some() && mature;
        // A new release brings its own schema and its own new types: no fault. A known one that leaves its schema is one.
        let brings = family == Family::Schema || (new && family == Family::TypeShare && seen.expected < 0.01);
        Bar {
            ln_threshold: self.frame.ln_threshold,
            effects_min: self.frame.settings.release.of(family),
            up: judged && !brings,
            down: judged && family.is_mix() && (family != Family::Schema || (!new && seen.expected > 0.5)),
            windows_min: 1,
            tells: true,
        }
    }

    fn learn_spread(&mut self, indicator: Indicator, pool_at: &[Option<usize>], wander: &[(f64, f64)]) {
        let settings = self.frame.settings;
        for (platform, at) in pool_at.iter().enumerate() {
            let Some(at) = *at else { continue };
            let (mut sum, mut squares, mut open, mut count) = (0.0, 0.0, 0.0, 0.0);
            for member in self.members.iter_mut().filter(|member| member.platform == platform) {
                if let Ok(found) = member.strand.cells.binary_search_by(|cell| cell.indicator.cmp(&indicator)) {
                    let cell = &member.strand.cells[found];
                    if cell.offset_variance < 0.02 && cell.trial.fault.is_none() {
                        let offset = f64::from(cell.offset);
                        sum += offset;
                        squares += offset * offset;
                        open += f64::from(cell.offset_variance);
                        count += 1.0;
                    }
                }
            }
            let usual = between_usual(settings, indicator.family);
            let cell = &mut self.pools[platform].cells[at];
            if count >= 2.0 {
                // Around their mean: what all offsets have in common is the season's. Few releases say little of how they
                // differ, so that as many again as usual stand beside them.
                let around = squares - sum * sum / count + open * (count - 1.0) / count;
                let between = (around + USUAL_RELEASES * usual) / (count - 1.0 + USUAL_RELEASES);
                cell.between += ((between.min(4.0 * usual) - f64::from(cell.between)) * 0.01) as f32;
            }
            if wander[platform].1 > 0.0 {
                let within = f64::from(cell.within) + 0.02 * (wander[platform].0 / wander[platform].1);
                cell.within = within.clamp(settings.within_min * settings.within_min, WITHIN_MAX) as f32;
            }
        }
    }

    pub(crate) fn judge_groups(
        &mut self,
        indicator: Indicator,
        pool_at: &[Option<usize>],
        observations: &[Observation],
        order: &[usize],
        rows: &[Option<&Row>],
    ) {
        let settings = self.frame.settings;
        if indicator.family == Family::Schema {
            return;
        }
        for at in 0..self.groups.len() {
            let group = &self.groups[at];
            let inside = |member: usize| group.members.contains(&member);
            // Who is out of order alone needn't be found once more, but belongs to what was found before.
            let known = group.strand.has_fault(indicator);
            let own = observations.iter().filter(|o| inside(o.member) && (known || !o.at_fault));
            let own: Vec<&Observation> = own.collect();
            if own.len() < if known { 1 } else { 2 } {
                continue;
            }
            // One member alone doesn't make its whole version bad.
            let leans = |o: &&&Observation| self.members[o.member].leans(indicator);
            let leaning = own.iter().filter(leans).count() >= 2;
            let Some(together) = self.see_group(group, &own, pool_at, observations, order, rows) else { continue };
            let group_rows: Vec<Option<&Row>> = own.iter().map(|o| rows[self.members[o.member].release]).collect();
            let members: Vec<usize> = own.iter().map(|o| o.member).collect();
            let sum = summed(&own);
            let others = together.compared.then(Common::default);
            let new = members.iter().any(|&member| self.is_new(member));
            let mut bar = self.bar(indicator.family, others, &sum, together.mature, new);
            bar.tells = leaning;
            let first = group_rows.iter().flatten().filter(|row| row.hits > 0).map(|row| row.first).min();
            let who = group.who;
            let told = Told { users: together.users, one_user: sum.one_user, first };
            let series = self.groups[at].strand.find(indicator, 0.0);
            let outcome = judge(&mut series.trial, self.frame.window, &together.seen, &told, &bar, settings);
            let trial = series.trial.clone();
            let Together { platform, pool_at, .. } = together;
            let say = Say { who, platform, pool_at, told, bar };
            self.say(&say, &trial, outcome, &together.seen, &members, &group_rows);
        }
    }

    /// What a group's members show together, each platform's held against that platform's others.
    fn see_group(
        &self,
        group: &Group<'_>,
        own: &[&Observation],
        pool_at: &[Option<usize>],
        observations: &[Observation],
        order: &[usize],
        rows: &[Option<&Row>],
    ) -> Option<Together> {
        let settings = self.frame.settings;
        let mut parts = Vec::with_capacity(self.platforms.len());
        let (mut users, mut mature, mut compared) = (0.0, true, true);
        for (platform, at) in pool_at.iter().enumerate() {
            let part: Vec<&Observation> = own.iter().copied().filter(|o| o.platform == platform).collect();
            let (Some(at), false) = (*at, part.is_empty()) else { continue };
            let cell = &self.pools[platform].cells[at];
            let inside = |member: usize| group.members.contains(&member);
            let others = self.reference(platform, cell, observations, order, &inside);
            let seen = seen_by(&summed(&part), others, cell, settings);
            let excess = |o: &&Observation| excess_users(rows[self.members[o.member].release], o, seen.expected, cell);
            users += part.iter().map(excess).sum::<f64>();
            mature &= self.pools[platform].windows >= settings.learn_windows;
            compared &= others.is_some();
            parts.push((platform, at, seen));
        }
        let &(platform, pool_at, _) = parts.first()?;
        let seen = Seen::sum(parts.iter().map(|part| &part.2));
        Some(Together { seen, platform, pool_at, users, mature, compared })
    }

    pub(crate) fn judge_platform(
        &mut self,
        indicator: Indicator,
        platform: usize,
        at: usize,
        observations: &[Observation],
        order: &[usize],
        rows: &[Option<&Row>],
    ) {
        let settings = self.frame.settings;
        let mature = self.pools[platform].windows >= settings.learn_windows;
        let known = self.pools[platform].cells[at].trial.fault.is_some();
        let own = observations.iter().filter(|o| o.platform == platform && (known || !o.at_fault));
        let own: Vec<&Observation> = own.collect();
        if own.is_empty() {
            return;
        }
        let whole = common(observations, order, 1e6, |o| f64::from(o.platform == platform && !o.at_fault));
        let mut sum = summed(&own);
        sum.offset_variance = 0.0;
        let cell = &self.pools[platform].cells[at];
        // There are no others: the past is the only reference.
        let mut seen = seen_by(&sum, None, cell, settings);
        seen.variance = seen.variance_by_past;
        let own_rows: Vec<Option<&Row>> = own.iter().map(|o| rows[self.members[o.member].release]).collect();
        let users: f64 = own.iter().zip(&own_rows).map(|(o, row)| excess_users(*row, o, o.expected, cell)).sum();
        let members: Vec<usize> = own.iter().map(|o| o.member).collect();
        // One release among several that moved isn't all of them.
        let counts: Vec<(f64, f64, f64)> = own.iter().map(|o| (o.hits, o.trials, o.expected)).collect();
        let together = moved_together(&counts, (sum.hits, sum.trials, sum.expected)) >= TOGETHER_MIN;
        let mix = indicator.family.is_mix();
        let mut bar = Bar {
            ln_threshold: self.frame.ln_threshold,
            effects_min: settings.platform.of(indicator.family),
            up: mature && together && !mix,
            down: mature && together && mix && indicator.family != Family::Schema,
            windows_min: if mix { 2 } else { 1 },
            tells: true,
        };
        let first = own_rows.iter().flatten().filter(|row| row.hits > 0).map(|row| row.first).min();
        let at_us = self.frame.tally.window.start_us;
        let told = Told { users, one_user: sum.one_user, first };
        let cell = &mut self.pools[platform].cells[at];
        let outcome = judge(&mut cell.trial, self.frame.window, &seen, &told, &bar, settings);
        if !matches!(outcome, Outcome::Bad) {
            cell.season.learn(at_us, whole.shift, whole.variance);
            learn_per_user(cell, &own_rows, mature);
        }
        let trial = cell.trial.clone();
        bar.up = mature && !mix;
        let say = Say { who: Who::Platform(self.platforms[platform]), platform, pool_at: at, told, bar };
        self.say(&say, &trial, outcome, &seen, &members, &own_rows);
    }

    /// Tells of a series that is out of order, and keeps what is summed over types.
    fn say(
        &mut self,
        say: &Say<'t>,
        trial: &Trial,
        outcome: Outcome,
        seen: &Seen,
        members: &[usize],
        rows: &[Option<&Row>],
    ) {
        let pool = &self.pools[say.platform].cells[say.pool_at];
        let indicator = pool.indicator;
        let told = matches!(outcome, Outcome::Bad | Outcome::Recovered);
        if !told && indicator.family.is_mix() {
            return;
        }
        let members = members.iter().map(|&member| &self.members[member]).zip(rows.iter().copied());
        let came = Came::of(self.frame, indicator.family as usize, members);
        let report = Report {
            who: say.who,
            event_type: self.event_type,
            field: self.field,
            indicator,
            label: &pool.label,
            trial,
            outcome,
            seen,
            came: &came,
            users: say.told.users,
            ln_threshold: say.bar.ln_threshold,
        };
        self.signals.extend(report.signal(self.frame));
        if !indicator.family.is_mix() {
            let (counts, at_fault) = (say.bar.up, told);
            self.parts.push(Part { who: say.who, indicator, seen: *seen, told: say.told, came, counts, at_fault });
        }
    }
}
