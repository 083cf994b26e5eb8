//! The world's counts, hour by hour: one tally per tenant.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use weir_judge::tally::{Family, Indicator, Place, Release, Row, Tally, Volume, Window, code_of};

use super::incidents::{Incident, Kind};
use super::random::Random;
use super::world::{FIELDS, PLATFORMS, Plan, TYPES, lasting};

const HOUR_US: i64 = 3_600_000_000;
/// Monday, 5 January 2026.
const START_US: i64 = 1_767_571_200_000_000;

/// What is counted of every type as hits of events: family, field, label, usual share, whether users agree with
/// themselves, deviation of a campaign's effect.
const SHARES: [(Family, &str, &str, f64, bool, f64); 15] = [
    (Family::Refused, "", "decode", 5e-4, false, 0.1),
    (Family::Refused, "", "contract", 1e-3, false, 0.1),
    (Family::Tagged, "user_id", "user_required", 3e-3, false, 0.1),
    (Family::Tagged, "amount", "amount_range", 5e-3, false, 0.2),
    (Family::Duplicate, "", "", 5e-3, false, 0.1),
    (Family::Late, "", "", 1e-2, false, 0.3),
    (Family::Skew, "", "", 2e-2, true, 0.3),
    (Family::Lost, "", "", 4e-3, false, 0.1),
    (Family::Null, "user_id", "", 0.15, true, 0.4),
    (Family::Null, "channel", "", 0.03, true, 0.3),
    (Family::Null, "amount", "", 5e-3, false, 0.2),
    (Family::Default, "user_id", "", 1e-3, true, 0.2),
    (Family::Default, "channel", "", 0.02, false, 0.2),
    (Family::Default, "amount", "", 0.01, false, 0.2),
    (Family::Drift, "amount", "", 8e-4, true, 0.1),
];
const CHANNELS: [f64; 6] = [0.35, 0.25, 0.2, 0.1, 0.07, 0.03];
const AMOUNTS: [f64; 10] = [0.02, 0.06, 0.14, 0.24, 0.24, 0.16, 0.08, 0.04, 0.015, 0.005];
const MIX: [f64; 4] = [0.52, 0.26, 0.15, 0.07];
const NEW_TYPE: &str = "feature";

/// Shares of what, by number of the thing: 0 to 14 as above, 16 on channels, 32 on amounts, 48 on types.
const CHANNEL_THING: u64 = 16;
const AMOUNT_THING: u64 = 32;
const TYPE_THING: u64 = 48;

/// A device that sends odd events for some hours.
struct Bot {
    until: u32,
    release: usize,
    event_type: usize,
    share: usize,
    events: u64,
}

pub(crate) struct Emitter {
    random: Random,
    /// Slow noise, by tenant (or tenant and release) and thing.
    common: BTreeMap<(usize, u64), f64>,
    own: BTreeMap<(usize, usize, u64), f64>,
    volume: Vec<f64>,
    bots: Vec<Vec<Bot>>,
    texts: Vec<String>,
    numbers: BTreeMap<String, u32>,
}

impl Emitter {
    pub(crate) fn new(plan: &Plan) -> Emitter {
        let mut emitter = Emitter {
            random: Random::new(plan.seed ^ 0x5eed),
            common: BTreeMap::new(),
            own: BTreeMap::new(),
            volume: vec![0.0; plan.tenants.len()],
            bots: plan.tenants.iter().map(|_| Vec::new()).collect(),
            texts: Vec::new(),
            numbers: BTreeMap::new(),
        };
        emitter.text("");
        emitter
    }

    fn text(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.texts.len() as u32;
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }

    fn drift(state: &mut f64, random: &mut Random, memory: f64) -> f64 {
        *state = memory * *state + (1.0 - memory * memory).sqrt() * random.normal();
        *state
    }

    pub(crate) fn window(hour: u32) -> Window {
        Window { start_us: START_US + i64::from(hour) * HOUR_US, width_us: HOUR_US }
    }

    /// The tally of one tenant's hour; adds the users that incidents touch to these.
    pub(crate) fn tally(&mut self, plan: &Plan, incidents: &mut [Incident], tenant: usize, hour: u32) -> Tally {
        let of = &plan.tenants[tenant];
        let active: Vec<usize> = (0..incidents.len())
            .filter(|&at| incidents[at].is_active(hour) && incidents[at].tenant.is_none_or(|only| only == tenant))
            .collect();
        let noise = Self::drift(&mut self.volume[tenant], &mut self.random, 0.7);
        let mut events = of.volume(hour) * (0.06 * noise).exp();
        for &at in &active {
            if incidents[at].kind == Kind::VolumeDrop {
                let lost = events * incidents[at].size;
                events -= lost;
                incidents[at].add_users(lost / of.events_per_user, hour);
            }
        }
        self.keep_bots(plan, tenant, hour);
        let mut tally = Tally {
            tenant: of.name.clone(),
            window: Self::window(hour),
            releases: Vec::new(),
            release_users: Vec::new(),
            texts: Vec::new(),
            rows: Vec::with_capacity(1200),
            volumes: Vec::new(),
        };
        let mut volumes: BTreeMap<u32, u64> = BTreeMap::new();
        for platform in 0..PLATFORMS.len() {
            let shares = plan.shares(tenant, platform, hour);
            let newest = shares.first().map(|(release, _)| *release);
            for (release, share) in shares {
                let mean = events * of.platform_shares[platform] * share;
                let sent = Sent { plan, tenant, release, hour, mean, is_newest: newest == Some(release) };
                self.emit_release(&sent, incidents, &active, &mut tally, &mut volumes);
            }
        }
        tally.volumes = volumes
            .into_iter()
            .map(|(event_type, events)| {
                let users = (events as f64 / of.events_per_user) as u32;
                Volume { event_type, events, users }
            })
            .collect();
        tally.texts = self.texts.clone();
        tally
    }

    fn keep_bots(&mut self, plan: &Plan, tenant: usize, hour: u32) {
        self.bots[tenant].retain(|bot| bot.until > hour);
        if self.random.chance(0.01) {
            let platform = self.random.below(3);
            let shares = plan.shares(tenant, platform, hour);
            let release = shares[self.random.below(shares.len())].0;
            self.bots[tenant].push(Bot {
                until: hour + self.random.hours(1, 12),
                release,
                event_type: self.random.below(TYPES.len()),
                share: self.random.below(SHARES.len()),
                events: u64::from(self.random.hours(30, 400)),
            });
        }
    }

    fn emit_release(
        &mut self,
        sent: &Sent<'_>,
        incidents: &mut [Incident],
        active: &[usize],
        tally: &mut Tally,
        volumes: &mut BTreeMap<u32, u64>,
    ) {
        let of = &sent.plan.tenants[sent.tenant];
        let release = &of.releases[sent.release];
        let mut weights = [0.0; 4];
        for (at, weight) in weights.iter_mut().enumerate() {
            *weight = MIX[at] * self.logit_noise(sent, TYPE_THING + at as u64, 0.25, 0.3).exp();
        }
        let all: f64 = weights.iter().sum();
        let mut counts = [0u64; 4];
        for (at, count) in counts.iter_mut().enumerate() {
            let mut mean = sent.mean * weights[at] / all;
            for &one in active {
                let incident = &mut incidents[one];
                let hit = incident.kind == Kind::TypeVanished && incident.event_type == Some(at);
                if hit && incident.concerns(sent.plan, sent.tenant, sent.release) {
                    let lost = mean * incident.size;
                    mean -= lost;
                    incident.add_users(lost / of.events_per_user, sent.hour);
                }
            }
            *count = self.random.poisson(mean);
        }
        let of_feature = if release.brings_type { self.random.poisson(sent.mean * 0.02) } else { 0 };
        let total: u64 = counts.iter().sum::<u64>() + of_feature;
        if total == 0 {
            return;
        }
        let seat = tally.releases.len() as u32;
        tally.releases.push(Release {
            sdk: PLATFORMS[release.platform].to_owned(),
            sdk_version: release.sdk_version.clone(),
            app_version: release.app_version.clone(),
        });
        let users = (total as f64 / of.events_per_user).ceil();
        tally.release_users.push(users as u32);
        let new_type = (of_feature > 0).then_some((NEW_TYPE, of_feature));
        for (name, count) in TYPES.into_iter().zip(counts).chain(new_type) {
            let label = self.text(name);
            if count > 0 {
                *volumes.entry(label).or_default() += count;
                let indicator = Indicator { family: Family::TypeShare, code: code_of(name) };
                let users = (count as f64 / of.events_per_user).ceil() as u32;
                tally.rows.push(self.row(sent, seat, 0, 0, indicator, label, (count, total, users)));
            }
        }
        for (at, count) in counts.into_iter().enumerate() {
            if count > 0 {
                self.emit_type(sent, incidents, active, tally, seat, at, count);
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn emit_type(
        &mut self,
        sent: &Sent<'_>,
        incidents: &mut [Incident],
        active: &[usize],
        tally: &mut Tally,
        seat: u32,
        at: usize,
        count: u64,
    ) {
        let of = &sent.plan.tenants[sent.tenant];
        let type_text = self.text(TYPES[at]);
        let users = (count as f64 / of.events_per_user).max(1.0);
        let mut gone = [0.0; 16];
        let (mut renamed, mut news, mut shifted) = (0.0, 0.0, 0.0);
        for &one in active {
            let incident = &mut incidents[one];
            let of_type = incident.event_type.is_none_or(|only| only == at);
            if !of_type || !incident.concerns(sent.plan, sent.tenant, sent.release) {
                continue;
            }
            let mut part = incident.size;
            match incident.kind {
                Kind::EnumDrift => (renamed, part) = (part, part * CHANNELS[0]),
                Kind::NewValue => news = part,
                Kind::UnitChange => shifted = part,
                kind => symptoms(kind, incident.field).iter().for_each(|&(share, factor)| gone[share] = part * factor),
            }
            if !matches!(incident.kind, Kind::TypeVanished | Kind::VolumeDrop) {
                incident.add_users(users * part, sent.hour);
            }
        }
        let mut nulls = [0; 3];
        for (share, &(family, field, label, _, clustered, _)) in SHARES.iter().enumerate() {
            let (hits, touched) = self.hits(sent, at, share, count, users, gone[share], clustered);
            let bots =
                || self.bots[sent.tenant].iter().filter(|bot| bot.release == sent.release && bot.event_type == at);
            let odd: u64 = bots().filter(|bot| bot.share == share).map(|bot| bot.events).sum();
            if family == Family::Null {
                let field = FIELDS.iter().position(|name| *name == field).unwrap();
                nulls[field] = hits;
            }
            let trials = if family == Family::Lost { count + hits + odd } else { count + odd };
            let indicator = Indicator { family, code: if label.is_empty() { 0 } else { code_of(label) } };
            let (field, label) = (self.text(field), self.text(label));
            let counted = ((hits + odd).min(trials), trials, touched + u32::from(odd > 0));
            tally.rows.push(self.row(sent, seat, type_text, field, indicator, label, counted));
        }
        let channels = count - nulls[1].min(count);
        self.emit_buckets(sent, tally, seat, at, type_text, channels, &CHANNELS, CHANNEL_THING, (renamed, news));
        let amounts = count - nulls[2].min(count);
        self.emit_buckets(sent, tally, seat, at, type_text, amounts, &AMOUNTS, AMOUNT_THING, (shifted, 0.0));
        let label = self.text(&release_schema(sent));
        let code = code_of(&release_schema(sent));
        let indicator = Indicator { family: Family::Schema, code };
        tally.rows.push(self.row(sent, seat, type_text, 0, indicator, label, (count, count, users as u32)));
    }

    /// Logit by which a thing is off its usual share here and now.
    fn logit_noise(&mut self, sent: &Sent<'_>, thing: u64, between: f64, campaign: f64) -> f64 {
        let of = &sent.plan.tenants[sent.tenant];
        let release = &of.releases[sent.release];
        let at_home = of.seed ^ (release.platform as u64) << 40;
        let mut logit = 0.4 * lasting(at_home, thing);
        let phase = f64::from(sent.hour % 24) / 24.0 * TAU;
        logit +=
            0.2 * lasting(at_home, thing + 1000) * phase.cos() + 0.1 * lasting(at_home, thing + 2000) * phase.sin();
        if sent.hour / 24 % 7 >= 5 {
            logit += 0.15 * lasting(at_home, thing + 3000);
        }
        let key = (sent.tenant, thing << 8 | release.platform as u64);
        if let Some(common) = self.common.get(&key) {
            logit += 0.06 * common;
        }
        for one in of.campaigns_at(sent.hour) {
            let further = if one.of_new_audience && sent.is_newest { 1.5 } else { 1.0 };
            logit += campaign * lasting(one.seed, thing) * further;
        }
        logit + between * lasting(release.seed, thing) + 0.05 * self.random.normal()
    }

    /// Slow noise that all releases of a platform share; once an hour.
    pub(crate) fn drift_common(&mut self, tenants: usize) {
        for tenant in 0..tenants {
            for platform in 0..3u64 {
                for thing in 0..TYPE_THING + 4 + 64 * 4 {
                    let state = self.common.entry((tenant, thing << 8 | platform)).or_default();
                    Self::drift(state, &mut self.random, 0.9);
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn hits(
        &mut self,
        sent: &Sent<'_>,
        at: usize,
        share: usize,
        count: u64,
        users: f64,
        gone: f64,
        clustered: bool,
    ) -> (u64, u32) {
        let (_, _, _, usual, _, campaign) = SHARES[share];
        let thing = (64 * (at as u64 + 1)) + share as u64;
        let mut logit = (usual / (1.0 - usual)).ln() + self.logit_noise(sent, thing, 0.15, campaign);
        // The same users stay: a release's own noise that lasts for hours, larger where fewer users carry the share.
        let own = self.own.entry((sent.tenant, sent.release, thing)).or_default();
        let state = Self::drift(own, &mut self.random, 0.8);
        logit += state * (0.5 / (users * usual * (1.0 - usual)).sqrt()).min(0.5);
        let usual = 1.0 / (1.0 + (-logit).exp());
        let share = usual + gone * (1.0 - usual);
        if !clustered {
            let hits = self.random.binomial(count, share);
            let touched = users * (1.0 - (-(hits as f64) / users).exp());
            return (hits, touched.ceil() as u32);
        }
        let touched = self.random.binomial(users.round().max(1.0) as u64, share);
        let per_user = count as f64 / users.round().max(1.0);
        let spread = (touched as f64 * per_user * (per_user - 1.0).max(0.0)).sqrt();
        let hits = touched as f64 * per_user + spread * self.random.normal();
        ((hits.round().max(touched as f64) as u64).min(count), touched.min(count) as u32)
    }

    #[allow(clippy::too_many_arguments)]
    fn emit_buckets(
        &mut self,
        sent: &Sent<'_>,
        tally: &mut Tally,
        seat: u32,
        at: usize,
        type_text: u32,
        count: u64,
        usual: &[f64],
        first_thing: u64,
        (moved, new): (f64, f64),
    ) {
        let is_amount = first_thing == AMOUNT_THING;
        let thing = |bucket: usize| 64 * (at as u64 + 1) + first_thing + bucket as u64;
        let mut weights: Vec<f64> =
            (0..usual.len()).map(|b| usual[b] * self.logit_noise(sent, thing(b), 0.25, 0.5).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
        if is_amount && moved > 0.0 {
            let before = weights.clone();
            for (bucket, weight) in before.iter().enumerate() {
                weights[bucket] -= moved * weight;
                let to = (bucket + 3).min(usual.len() - 1);
                weights[to] += moved * weight;
            }
        } else if !is_amount {
            let renamed = weights[0] * moved;
            weights[0] -= renamed;
            weights.iter_mut().for_each(|weight| *weight *= 1.0 - new);
            weights.extend([renamed, new]);
        }
        let (family, field) = if is_amount { (Family::Number, "amount") } else { (Family::Category, "channel") };
        let field = self.text(field);
        let (mut left, mut left_weight) = (count, 1.0f64);
        for (bucket, weight) in weights.into_iter().enumerate() {
            let hits = self.random.binomial(left, (weight / left_weight.max(1e-12)).min(1.0));
            left -= hits;
            left_weight -= weight;
            if hits > 0 {
                let label = self.text(&format!("{field}:{bucket}"));
                let indicator = Indicator { family, code: bucket as u64 + 1 };
                let users = (hits as f64 / sent.plan.tenants[sent.tenant].events_per_user).ceil() as u32;
                tally.rows.push(self.row(sent, seat, type_text, field, indicator, label, (hits, count, users)));
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn row(
        &self,
        sent: &Sent<'_>,
        release: u32,
        event_type: u32,
        field: u32,
        indicator: Indicator,
        label: u32,
        (hits, trials, users): (u64, u64, u32),
    ) -> Row {
        let place = |offset: i64| Place {
            topic: 0,
            partition: (sent.release % 8) as i32,
            offset: i64::from(sent.hour) * 1_000_000 + offset,
        };
        let first = place(0);
        Row {
            release,
            event_type,
            field,
            indicator,
            label,
            hits,
            trials,
            users,
            first,
            last: place(999_999),
            examples: [(hits > 0).then_some(first), None, None],
        }
    }
}

/// One release in one hour.
struct Sent<'p> {
    plan: &'p Plan,
    tenant: usize,
    release: usize,
    hour: u32,
    mean: f64,
    is_newest: bool,
}

fn release_schema(sent: &Sent<'_>) -> String {
    format!("schema of {}", sent.plan.tenants[sent.tenant].releases[sent.release].sdk_version)
}

/// Which shares an incident raises, and by what part of its size.
fn symptoms(kind: Kind, field: usize) -> Vec<(usize, f64)> {
    match (kind, field) {
        (Kind::FieldDropped, 0) => vec![(8, 1.0), (2, 1.0)],
        (Kind::FieldDropped, field) => vec![(8 + field, 1.0)],
        (Kind::DefaultSent, field) => vec![(11 + field, 1.0)],
        (Kind::NumberAsText, _) => vec![(14, 1.0)],
        (Kind::Duplicates, _) => vec![(4, 1.0)],
        (Kind::Late, _) => vec![(5, 1.0)],
        (Kind::ClockSkew, _) => vec![(6, 1.0)],
        (Kind::Lost, _) => vec![(7, 1.0)],
        (Kind::RuleBroken, 0) => vec![(2, 1.0)],
        (Kind::RuleBroken, _) => vec![(3, 1.0)],
        (Kind::Refused, _) => vec![(1, 1.0)],
        _ => Vec::new(),
    }
}

impl Incident {
    fn add_users(&mut self, users: f64, hour: u32) {
        self.users += users;
        if hour < self.start + 24 {
            self.users_in_first_day += users;
        }
    }
}
