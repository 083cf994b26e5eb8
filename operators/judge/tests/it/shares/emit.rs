//! The world's counts, hour by hour: one tally per tenant.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use weir_judge::tally::{Family, Indicator, Place, Release, Row, Tally, Volume, Window, code_of};

use super::catalog::{
    AMOUNT_THING, AMOUNTS, BETWEEN, BETWEEN_OF_MIX, CAMPAIGN_OF_TYPES, CAMPAIGN_OF_VALUES, CHANNEL_THING, CHANNELS,
    COMMON, KEY_THING, KEYS, MISSPELT_TYPE, MIX, NEW_TYPE, SHARES, TYPE_THING, WANDER, raised,
};
use super::incidents::{Incident, Kind};
use super::oracle::NEVER_SEEN;
use super::random::Random;
use super::world::{FIELDS, PLATFORMS, Plan, TYPES, lasting};

const HOUR_US: i64 = 3_600_000_000;
/// Monday, 5 January 2026.
const START_US: i64 = 1_767_571_200_000_000;

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
                let usual = (events + lost) / of.events_per_user;
                incidents[at].add_users(lost / of.events_per_user);
                incidents[at].show_volume(tenant, hour, usual);
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
            let noise = self.logit_noise(sent, TYPE_THING + at as u64, BETWEEN_OF_MIX, CAMPAIGN_OF_TYPES);
            *weight = MIX[at] * noise.exp();
        }
        let all: f64 = weights.iter().sum();
        let wrong = active.iter().copied().find(|&one| {
            let incident = &incidents[one];
            incident.concerns(sent.plan, sent.tenant, sent.release)
        });
        let mut counts = [0u64; 4];
        let mut misspelt = 0;
        for (at, count) in counts.iter_mut().enumerate() {
            let mut mean = sent.mean * weights[at] / all;
            if let Some(incident) = wrong.map(|one| &mut incidents[one])
                && matches!(incident.kind, Kind::TypeVanished | Kind::NewType)
                && incident.event_type == Some(at)
            {
                let lost = mean * incident.size;
                mean -= lost;
                if incident.kind == Kind::NewType {
                    misspelt = self.random.poisson(lost);
                }
                incident.add_users(lost / of.events_per_user);
                incident.show_type(sent, at, weights[at] / all);
            }
            *count = self.random.poisson(mean);
        }
        let of_feature = if release.brings_type { self.random.poisson(sent.mean * 0.02) } else { 0 };
        let total: u64 = counts.iter().sum::<u64>() + of_feature + misspelt;
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
        let others = [(NEW_TYPE, of_feature), (MISSPELT_TYPE, misspelt)];
        for (name, count) in TYPES.into_iter().zip(counts).chain(others) {
            if count > 0 {
                let label = self.text(name);
                *volumes.entry(label).or_default() += count;
                let indicator = Indicator { family: Family::TypeShare, code: code_of(name) };
                let users = (count as f64 / of.events_per_user).ceil() as u32;
                tally.rows.push(self.row(sent, seat, 0, 0, indicator, label, (count, total, users)));
            }
        }
        for (at, count) in counts.into_iter().enumerate() {
            if count > 0 {
                let wrong = wrong.map(|one| &mut incidents[one]);
                self.emit_type(sent, wrong, tally, seat, at, count);
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn emit_type(
        &mut self,
        sent: &Sent<'_>,
        wrong: Option<&mut Incident>,
        tally: &mut Tally,
        seat: u32,
        at: usize,
        count: u64,
    ) {
        let of = &sent.plan.tenants[sent.tenant];
        let type_text = self.text(TYPES[at]);
        let users = (count as f64 / of.events_per_user).max(1.0);
        let mut wrong = wrong.filter(|incident| incident.event_type.is_none_or(|only| only == at));
        if let Some(incident) = &mut wrong {
            incident.add_users(users * incident.part_of_users());
        }
        let mut nulls = [0; 3];
        for (share, &(family, field, label, _, clustered, _)) in SHARES.iter().enumerate() {
            let (hits, touched) = self.hits(sent, at, share, count, users, wrong.as_deref_mut(), clustered);
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
        self.emit_buckets(sent, tally, seat, at, channels, &CHANNELS, CHANNEL_THING, wrong.as_deref_mut());
        let amounts = count - nulls[2].min(count);
        self.emit_buckets(sent, tally, seat, at, amounts, &AMOUNTS, AMOUNT_THING, wrong.as_deref_mut());
        self.emit_keys(sent, tally, seat, at, count, wrong.as_deref_mut());
        let left = match wrong {
            Some(incident) if incident.kind == Kind::SchemaLeft => {
                incident.show(sent, Family::Schema, TYPE_THING + 12, users, (1.0, 1.0 - incident.size), 0.0);
                self.random.binomial(count, incident.size)
            }
            _ => 0,
        };
        for (schema, hits) in [(release_schema(sent), count - left), ("schema of nobody".to_owned(), left)] {
            if hits > 0 {
                let (label, code) = (self.text(&schema), code_of(&schema));
                let users = (hits as f64 / of.events_per_user).ceil() as u32;
                let indicator = Indicator { family: Family::Schema, code };
                tally.rows.push(self.row(sent, seat, type_text, 0, indicator, label, (hits, count, users)));
            }
        }
    }

    /// Keys of a map: each is in some of the events, and one may be gone.
    fn emit_keys(
        &mut self,
        sent: &Sent<'_>,
        tally: &mut Tally,
        seat: u32,
        at: usize,
        count: u64,
        mut wrong: Option<&mut Incident>,
    ) {
        let (type_text, field) = (self.text(TYPES[at]), self.text("props"));
        let per_user = sent.plan.tenants[sent.tenant].events_per_user;
        for (key, part) in KEYS.into_iter().enumerate() {
            let thing = 64 * (at as u64 + 1) + KEY_THING + key as u64;
            let noise = self.logit_noise(sent, thing, BETWEEN_OF_MIX, CAMPAIGN_OF_VALUES);
            let usual = 1.0 / (1.0 + (-(part / (1.0 - part)).ln() - noise).exp());
            let mut share = usual;
            if let Some(incident) = &mut wrong
                && incident.kind == Kind::PropertyGone
                && incident.field == key % 3
                && key < 3
            {
                share *= 1.0 - incident.size;
                let users = count as f64 / per_user;
                let symptom = KEY_THING + key as u64;
                incident.show(sent, Family::Category, symptom, users, (usual, share), CAMPAIGN_OF_VALUES);
            }
            let hits = self.random.binomial(count, share);
            let label = self.text(&format!("key:{key}"));
            let indicator = Indicator { family: Family::Category, code: key as u64 + 1 };
            let users = (hits as f64 / per_user).ceil() as u32;
            tally.rows.push(self.row(sent, seat, type_text, field, indicator, label, (hits, count, users)));
        }
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
            logit += COMMON * common;
        }
        for one in of.campaigns_at(sent.hour) {
            let further = if one.of_new_audience && sent.is_newest { 1.5 } else { 1.0 };
            logit += campaign * lasting(one.seed, thing) * further;
        }
        logit + between * lasting(release.seed, thing) + WANDER * self.random.normal()
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
        wrong: Option<&mut Incident>,
        clustered: bool,
    ) -> (u64, u32) {
        let (family, _, _, usual, _, campaign) = SHARES[share];
        let number = share;
        let thing = (64 * (at as u64 + 1)) + share as u64;
        let mut logit = (usual / (1.0 - usual)).ln() + self.logit_noise(sent, thing, BETWEEN, campaign);
        // The same users stay: a release's own noise that lasts for hours, larger where fewer users carry the share.
        let own = self.own.entry((sent.tenant, sent.release, thing)).or_default();
        let state = Self::drift(own, &mut self.random, 0.8);
        logit += state * (0.5 / (users * usual * (1.0 - usual)).sqrt()).min(0.5);
        let usual = 1.0 / (1.0 + (-logit).exp());
        let mut share = usual;
        if let Some(incident) = wrong.filter(|incident| raised(incident.kind, incident.field).contains(&number)) {
            share += incident.size * (1.0 - usual);
            // What is lost isn't among what came.
            let seen = if family == Family::Lost { share / (1.0 + share) } else { share };
            incident.show(sent, family, number as u64, users, (usual, seen), campaign);
        }
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
        count: u64,
        usual: &[f64],
        first_thing: u64,
        wrong: Option<&mut Incident>,
    ) {
        let is_amount = first_thing == AMOUNT_THING;
        let type_text = self.text(TYPES[at]);
        let thing = |bucket: usize| 64 * (at as u64 + 1) + first_thing + bucket as u64;
        let mut noise = |b: usize| self.logit_noise(sent, thing(b), BETWEEN_OF_MIX, CAMPAIGN_OF_VALUES);
        let mut weights: Vec<f64> = (0..usual.len()).map(|b| usual[b] * noise(b).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
        if !is_amount {
            weights.extend([0.0, 0.0]);
        }
        if let Some(incident) = wrong.filter(|incident| incident.moves(first_thing)) {
            let before = weights.clone();
            incident.move_values(&mut weights);
            let users = count as f64 / sent.plan.tenants[sent.tenant].events_per_user;
            let family = if is_amount { Family::Number } else { Family::Category };
            for (bucket, (before, now)) in before.into_iter().zip(&weights).enumerate() {
                let shares = (before.max(NEVER_SEEN), *now);
                incident.show(sent, family, first_thing + bucket as u64, users, shares, CAMPAIGN_OF_VALUES);
            }
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
            examples: (hits > 0).then_some(first).into_iter().collect(),
        }
    }
}

/// One release in one hour.
pub(crate) struct Sent<'p> {
    pub(crate) plan: &'p Plan,
    pub(crate) tenant: usize,
    pub(crate) release: usize,
    pub(crate) hour: u32,
    /// Events expected.
    pub(crate) mean: f64,
    pub(crate) is_newest: bool,
}

fn release_schema(sent: &Sent<'_>) -> String {
    format!("schema of {}", sent.plan.tenants[sent.tenant].releases[sent.release].sdk_version)
}
