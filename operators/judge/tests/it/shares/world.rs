//! An invented world at the level of window tallies: who sends how much, and what is usual there.
//!
//! What it assumes, and why:
//! - Six weeks of hourly windows from a Monday, four to learn and two that are measured. Tenants of 1,400 to 56,000 events an
//!   hour on three platforms, each with releases that overlap: a new one every four to ten days, ramping in stages from
//!   1 % over half a day to four days, older ones keeping a tail.
//! - Volume has a day, a week (weaker weekends, or stronger ones), growth of -1 to 4 % a week, noise that is correlated
//!   from hour to hour, campaigns of 6 to 72 hours and a holiday or two that halve or raise it for a day.
//! - Every share has its usual level by tenant and platform, a day and a night, slow noise common to all releases, and a
//!   campaign's effect on many of them (new visitors have no user id, come by other channels, look at other things).
//! - Releases differ: a lasting offset per share (deviation 0.15 on the logit scale for faults, 0.25 for what people choose), which is
//!   drawn anew for each release, and a wander per hour of 0.05.
//! - Users are clustered: for half of the indicators all events of a user agree; users have geometrically many events; the
//!   same users stay for hours, which shows as noise of a release that is correlated over hours and larger for small ones.
//! - Now and then one device sends hundreds of odd events for hours.
//! - Adversarial: some campaigns reach the newest release's audience half as much again; every third new release brings
//!   an event type of its own; new releases have schema ids of their own.

use std::f64::consts::TAU;

use super::incidents::{Incident, plan_incidents};
use super::random::Random;

pub(crate) const HOURS: u32 = 6 * 168;
pub(crate) const LEARN_HOURS: u32 = 4 * 168;
pub(crate) const PLATFORMS: [&str; 3] = ["ios", "android", "web"];
pub(crate) const TYPES: [&str; 4] = ["page_view", "click", "add_to_cart", "purchase"];
/// Of every type: one that may be null or default, a category, a number.
pub(crate) const FIELDS: [&str; 3] = ["user_id", "channel", "amount"];

#[derive(Clone, Debug)]
pub(crate) struct ReleasePlan {
    pub(crate) platform: usize,
    pub(crate) sdk_version: String,
    pub(crate) app_version: String,
    pub(crate) born_at: u32,
    /// Hours from 1 % to its full share.
    pub(crate) ramp_hours: f64,
    pub(crate) retired_at: u32,
    pub(crate) seed: u64,
    pub(crate) brings_type: bool,
}

pub(crate) struct Campaign {
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) lift: f64,
    pub(crate) seed: u64,
    /// Reaches the newest release's audience more.
    pub(crate) of_new_audience: bool,
}

pub(crate) struct TenantPlan {
    pub(crate) name: String,
    pub(crate) events_per_hour: f64,
    pub(crate) events_per_user: f64,
    pub(crate) growth_per_week: f64,
    pub(crate) weekend: f64,
    pub(crate) holidays: Vec<(u32, f64)>,
    pub(crate) campaigns: Vec<Campaign>,
    pub(crate) releases: Vec<ReleasePlan>,
    pub(crate) platform_shares: [f64; 3],
    pub(crate) seed: u64,
    versions: u32,
}

pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) tenants: Vec<TenantPlan>,
    pub(crate) incidents: Vec<Incident>,
}

impl Plan {
    pub(crate) fn new(seed: u64, with_incidents: bool) -> Plan {
        let mut random = Random::new(seed);
        let mut plan = Plan { seed, tenants: Vec::new(), incidents: Vec::new() };
        for (at, size) in [2_000.0, 8_000.0, 40_000.0].into_iter().enumerate() {
            let tenant = tenant_plan(&mut random, at, size);
            plan.tenants.push(tenant);
            for platform in 0..3 {
                plan.plan_releases(at, platform, &mut random);
            }
        }
        if with_incidents {
            plan.incidents = plan_incidents(&mut plan, &mut random);
        }
        plan
    }

    fn plan_releases(&mut self, tenant: usize, platform: usize, random: &mut Random) {
        let mut minor = 1;
        for _ in 0..2 {
            self.add_release(tenant, platform, &format!("3.{minor}.0"), None, 0, 0.0, random);
            minor += 1;
        }
        let mut hour = random.hours(12, 200);
        while hour < HOURS {
            if random.chance(0.6) {
                minor += 1;
            }
            let ramp = random.between(12.0, 96.0);
            self.add_release(tenant, platform, &format!("3.{minor}.0"), None, hour, ramp, random);
            hour += random.hours(96, 240);
        }
    }

    pub(crate) fn next_app_version(&mut self, tenant: usize) -> String {
        let tenant = &mut self.tenants[tenant];
        tenant.versions += 1;
        format!("5.{}.0", tenant.versions)
    }

    #[allow(clippy::too_many_arguments)]
    pub(crate) fn add_release(
        &mut self,
        tenant: usize,
        platform: usize,
        sdk_version: &str,
        app_version: Option<String>,
        born_at: u32,
        ramp_hours: f64,
        random: &mut Random,
    ) -> usize {
        let app_version = app_version.unwrap_or_else(|| self.next_app_version(tenant));
        let releases = &mut self.tenants[tenant].releases;
        releases.push(ReleasePlan {
            platform,
            sdk_version: sdk_version.to_owned(),
            app_version,
            born_at,
            ramp_hours,
            retired_at: u32::MAX,
            seed: u64::from(random.hours(0, u32::MAX)),
            brings_type: born_at > 0 && random.chance(0.33),
        });
        releases.len() - 1
    }

    /// The newest release with a fair share.
    pub(crate) fn newest(&self, tenant: usize, platform: usize, hour: u32) -> Option<usize> {
        let releases = &self.tenants[tenant].releases;
        let fits = |at: &usize| {
            let release = &releases[*at];
            release.platform == platform
                && release.born_at + 48 <= hour
                && release.retired_at > hour
                && release.sdk_version.starts_with('3')
        };
        (0..releases.len()).filter(fits).max_by_key(|&at| (releases[at].born_at, at))
    }

    /// A release that has been in order for three days and carries at least a twentieth.
    pub(crate) fn known(&self, tenant: usize, platform: usize, hour: u32, random: &mut Random) -> Option<usize> {
        let shares = self.shares(tenant, platform, hour);
        let known: Vec<usize> = shares
            .iter()
            .filter(|(at, share)| *share > 0.05 && self.tenants[tenant].releases[*at].born_at + 72 <= hour)
            .map(|(at, _)| *at)
            .collect();
        if known.is_empty() { None } else { Some(known[random.below(known.len())]) }
    }

    /// The releases of a platform with their shares of its traffic.
    pub(crate) fn shares(&self, tenant: usize, platform: usize, hour: u32) -> Vec<(usize, f64)> {
        let releases = &self.tenants[tenant].releases;
        let mut live: Vec<usize> = (0..releases.len())
            .filter(|&at| {
                let release = &releases[at];
                release.platform == platform && (release.born_at..release.retired_at).contains(&hour)
            })
            .collect();
        live.sort_by_key(|&at| std::cmp::Reverse((releases[at].born_at, at)));
        let (mut left, mut shares) = (1.0, Vec::new());
        for (rank, &at) in live.iter().enumerate() {
            let release = &releases[at];
            let age = f64::from(hour - release.born_at);
            let done = if release.ramp_hours <= 0.0 { 1.0 } else { (age / release.ramp_hours).min(1.0) };
            // Stages of a roll-out: 1, 5, 20, 50 and in the end 80 % of whom it is offered to.
            let adopted = [0.01, 0.05, 0.2, 0.5, 0.8][(done * 4.0) as usize];
            let share = if rank + 1 == live.len() { left } else { left * adopted };
            left -= share;
            if share > 5e-4 {
                shares.push((at, share));
            }
        }
        shares
    }
}

fn tenant_plan(random: &mut Random, at: usize, size: f64) -> TenantPlan {
    let mut campaigns = Vec::new();
    let mut hour = random.hours(20, 160);
    while hour < HOURS {
        let lasts = [6, 12, 24, 48, 72][random.below(5)];
        campaigns.push(Campaign {
            start: hour,
            end: hour + lasts,
            lift: random.between(1.1, 2.2),
            seed: u64::from(random.hours(0, u32::MAX)),
            of_new_audience: random.chance(0.3),
        });
        hour += lasts + random.hours(48, 240);
    }
    let mut holidays = Vec::new();
    for _ in 0..1 + random.below(2) {
        let day = random.hours(3, 42) * 24;
        holidays.push((day, if random.chance(0.6) { random.between(0.55, 0.8) } else { random.between(1.2, 1.6) }));
    }
    let mix = [random.between(0.3, 1.0), random.between(0.3, 1.0), random.between(0.3, 1.0)];
    let sum: f64 = mix.iter().sum();
    TenantPlan {
        name: format!("tenant-{at}"),
        events_per_hour: size * random.between(0.7, 1.4),
        events_per_user: random.between(2.0, 6.0),
        growth_per_week: random.between(-0.01, 0.04),
        weekend: random.between(0.5, 1.3),
        holidays,
        campaigns,
        releases: Vec::new(),
        platform_shares: mix.map(|share| share / sum),
        seed: u64::from(random.hours(0, u32::MAX)),
        versions: 0,
    }
}

impl TenantPlan {
    /// Events expected in an hour, without noise.
    pub(crate) fn volume(&self, hour: u32) -> f64 {
        let of_day = f64::from(hour % 24);
        let day = 1.0 + 0.65 * ((of_day - 15.0) / 24.0 * TAU).cos() + 0.15 * ((of_day - 20.0) / 12.0 * TAU).cos();
        let is_weekend = hour / 24 % 7 >= 5;
        let growth = (1.0 + self.growth_per_week).powf(f64::from(hour) / 168.0);
        let campaign: f64 = self.campaigns_at(hour).map(|campaign| campaign.lift).product();
        let holiday: f64 = self
            .holidays
            .iter()
            .filter(|(from, _)| (*from..from + 24).contains(&hour))
            .map(|(_, factor)| factor)
            .product();
        self.events_per_hour * day.max(0.12) * if is_weekend { self.weekend } else { 1.0 } * growth * campaign * holiday
    }

    pub(crate) fn campaigns_at(&self, hour: u32) -> impl Iterator<Item = &Campaign> {
        self.campaigns.iter().filter(move |campaign| (campaign.start..campaign.end).contains(&hour))
    }
}

/// A number that is always the same for the same seed and thing: normal with deviation 1.
pub(crate) fn lasting(seed: u64, thing: u64) -> f64 {
    let mut mixed = (seed ^ thing.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x1234_5678_9abc_def1);
    let mut next = || {
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    };
    let (first, second) = (next().max(1e-300), next());
    (-2.0 * first.ln()).sqrt() * (TAU * second).cos()
}
