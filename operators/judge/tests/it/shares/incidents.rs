//! Labelled incidents: what goes wrong, for whom, from when to when.

use weir_judge::settings::Settings;

use super::oracle::{Evidence, Known};
use super::random::Random;
use super::world::{FIELDS, HOURS, LEARN_HOURS, Plan, TYPES};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    FieldDropped,
    DefaultSent,
    EnumDrift,
    UnitChange,
    NumberAsText,
    Duplicates,
    Late,
    ClockSkew,
    Lost,
    TypeVanished,
    NewValue,
    RuleBroken,
    Refused,
    VolumeDrop,
    PropertyGone,
    CategoryShift,
    /// Of a release that is known: a new one may bring types and schemas of its own.
    NewType,
    SchemaLeft,
}

impl Kind {
    /// What one release can do wrong.
    pub(crate) const OF_RELEASES: [Kind; 15] = [
        Kind::FieldDropped,
        Kind::DefaultSent,
        Kind::EnumDrift,
        Kind::UnitChange,
        Kind::NumberAsText,
        Kind::Duplicates,
        Kind::Late,
        Kind::ClockSkew,
        Kind::Lost,
        Kind::TypeVanished,
        Kind::NewValue,
        Kind::RuleBroken,
        Kind::Refused,
        Kind::PropertyGone,
        Kind::CategoryShift,
    ];
    /// What a release that was in order can do besides.
    pub(crate) const OF_KNOWN: [Kind; 2] = [Kind::NewType, Kind::SchemaLeft];
    /// What can go wrong behind all releases at once.
    pub(crate) const OF_TENANTS: [Kind; 8] = [
        Kind::FieldDropped,
        Kind::DefaultSent,
        Kind::Duplicates,
        Kind::Late,
        Kind::TypeVanished,
        Kind::RuleBroken,
        Kind::Refused,
        Kind::VolumeDrop,
    ];

    /// Moves shares that also move with people's choices.
    pub(crate) fn is_mix(self) -> bool {
        use Kind::{CategoryShift, EnumDrift, NewType, NewValue, PropertyGone, SchemaLeft, TypeVanished, UnitChange};
        let mixes = [EnumDrift, UnitChange, TypeVanished, NewValue, PropertyGone, CategoryShift, NewType, SchemaLeft];
        mixes.contains(&self)
    }
}

/// Who is affected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Breadth {
    /// One release, from its first day.
    NewRelease,
    /// One release, while it is held at 1 % of its platform's traffic.
    AtOnePercent,
    /// One release that was in order for a while.
    KnownRelease,
    /// An SDK version in all apps of all tenants.
    SdkVersion,
    /// An app version on all platforms of a tenant.
    AppVersion,
    /// All releases of a tenant: server-side.
    Tenant,
}

#[derive(Clone, Debug)]
pub(crate) struct Incident {
    pub(crate) kind: Kind,
    pub(crate) breadth: Breadth,
    /// Part of the events (or users) concerned that go wrong.
    pub(crate) size: f64,
    /// Hours since the world began.
    pub(crate) start: u32,
    pub(crate) end: u32,
    /// None: all.
    pub(crate) tenant: Option<usize>,
    /// None: all.
    pub(crate) platform: Option<usize>,
    pub(crate) sdk_version: Option<String>,
    pub(crate) app_version: Option<String>,
    /// Type concerned; none: all types.
    pub(crate) event_type: Option<usize>,
    pub(crate) field: usize,
    /// (SDK version, app version, platform) to be named per tenant; empty where no release is to blame.
    pub(crate) first_bad: Vec<(usize, usize)>,
    /// Filled in by the world: users that went wrong, by hour, summed; and what could be known of it.
    pub(crate) users: f64,
    pub(crate) evidence: Evidence,
    /// Filled in when it is scored: the best that could be known, its ratio to the threshold, and whether that is enough.
    pub(crate) known: Known,
    pub(crate) ratio: f64,
    pub(crate) is_of_stated_size: bool,
}

impl Incident {
    pub(crate) fn is_active(&self, hour: u32) -> bool {
        (self.start..self.end).contains(&hour)
    }

    pub(crate) fn concerns(&self, plan: &Plan, tenant: usize, release: usize) -> bool {
        let release = &plan.tenants[tenant].releases[release];
        self.tenant.is_none_or(|only| only == tenant)
            && self.platform.is_none_or(|only| only == release.platform)
            && self.sdk_version.as_ref().is_none_or(|only| *only == release.sdk_version)
            && self.app_version.as_ref().is_none_or(|only| *only == release.app_version)
    }

    /// States its size against the logarithms of the thresholds of a tenant's series, and of its volumes.
    pub(crate) fn weigh(&mut self, (of_series, of_volumes): (f64, f64), settings: &Settings) {
        let threshold = if self.kind == Kind::VolumeDrop { of_volumes } else { of_series };
        self.known = self.evidence.best(self.breadth == Breadth::Tenant, settings);
        self.ratio = self.known.nats / threshold;
        self.is_of_stated_size = self.known.is_enough(threshold, settings);
    }

    pub(crate) fn size_class(&self) -> &'static str {
        match self.size {
            size if size >= 0.9 => "all",
            size if size >= 0.4 => "half",
            size if size >= 0.15 => "fifth",
            _ => "tenth",
        }
    }
}

fn size_of(random: &mut Random, kind: Kind, breadth: Breadth) -> f64 {
    match (breadth, kind) {
        (Breadth::Tenant, Kind::TypeVanished) => 1.0,
        (Breadth::Tenant, Kind::VolumeDrop) => random.between(0.7, 1.0),
        (Breadth::Tenant, _) => [1.0, 0.5, 0.2][random.below(3)],
        (_, kind) if kind.is_mix() => [1.0, 0.6][random.below(2)],
        _ => [1.0, 0.5, 0.2, 0.1][random.below(4)],
    }
}

/// Incidents of a run. No two touch the same tenant within 20 hours of each other, so that each alert has one
/// cause that it can be scored by.
pub(crate) fn plan_incidents(plan: &mut Plan, random: &mut Random) -> Vec<Incident> {
    let mut incidents = Vec::new();
    let mut free_from: Vec<u32> = plan.tenants.iter().map(|_| LEARN_HOURS + random.hours(2, 20)).collect();
    let wanted = [
        Breadth::NewRelease,
        Breadth::AtOnePercent,
        Breadth::KnownRelease,
        Breadth::NewRelease,
        Breadth::AppVersion,
        Breadth::AtOnePercent,
        Breadth::Tenant,
    ];
    // An SDK version that breaks touches all tenants: one per run at most, first, while all tenants are free.
    if random.chance(0.35)
        && let Some(incident) = sdk_incident(plan, random)
    {
        free_from.iter_mut().for_each(|hour| *hour = incident.end + 20);
        incidents.push(incident);
    }
    #[expect(clippy::needless_range_loop, reason = "the plan of the tenant is changed meanwhile")]
    for tenant in 0..plan.tenants.len() {
        let mut turn = random.below(wanted.len());
        while free_from[tenant] + 8 < HOURS {
            let breadth = wanted[turn % wanted.len()];
            turn += 1;
            let lasts = [3, 6, 12, 24, 48][random.below(5)];
            let start = free_from[tenant] + random.hours(0, 12);
            let end = (start + lasts).min(HOURS);
            if end < start + 3 {
                break;
            }
            if let Some(incident) = tenant_incident(plan, random, tenant, breadth, start, end) {
                free_from[tenant] = incident.end + 20;
                incidents.push(incident);
            } else {
                free_from[tenant] += 6;
            }
        }
    }
    incidents
}

fn kind_of(random: &mut Random, breadth: Breadth) -> Kind {
    match breadth {
        Breadth::Tenant => Kind::OF_TENANTS[random.below(Kind::OF_TENANTS.len())],
        Breadth::KnownRelease => {
            let at = random.below(Kind::OF_RELEASES.len() + 2 * Kind::OF_KNOWN.len());
            let known = || Kind::OF_KNOWN[at % Kind::OF_KNOWN.len()];
            Kind::OF_RELEASES.get(at).copied().unwrap_or_else(known)
        }
        _ => Kind::OF_RELEASES[random.below(Kind::OF_RELEASES.len())],
    }
}

fn blank(random: &mut Random, kind: Kind, breadth: Breadth, start: u32, end: u32) -> Incident {
    let of_field = matches!(kind, Kind::FieldDropped | Kind::DefaultSent | Kind::RuleBroken | Kind::NumberAsText);
    let of_type = of_field || kind.is_mix() || kind == Kind::Refused;
    let field = match kind {
        Kind::EnumDrift | Kind::NewValue | Kind::CategoryShift => 1,
        Kind::UnitChange | Kind::NumberAsText => 2,
        _ => random.below(FIELDS.len()),
    };
    // The two commonest types carry most incidents; the rarest are covered too.
    let event_type = random.below(TYPES.len());
    Incident {
        kind,
        breadth,
        size: size_of(random, kind, breadth),
        start,
        end,
        tenant: None,
        platform: None,
        sdk_version: None,
        app_version: None,
        event_type: of_type.then_some(event_type),
        field,
        first_bad: Vec::new(),
        users: 0.0,
        evidence: Evidence::default(),
        known: Known::default(),
        ratio: 0.0,
        is_of_stated_size: false,
    }
}

fn sdk_incident(plan: &mut Plan, random: &mut Random) -> Option<Incident> {
    let kind = kind_of(random, Breadth::SdkVersion);
    let start = LEARN_HOURS + random.hours(4, 60);
    let end = start + 48 + random.hours(0, 72);
    let mut incident = blank(random, kind, Breadth::SdkVersion, start, end);
    let platform = random.below(3);
    let version = format!("9.{}.0", random.below(5));
    incident.platform = Some(platform);
    incident.sdk_version = Some(version.clone());
    for tenant in 0..plan.tenants.len() {
        let release = plan.add_release(tenant, platform, &version, None, start + random.hours(0, 10), 36.0, random);
        incident.first_bad.push((tenant, release));
    }
    Some(incident)
}

fn tenant_incident(
    plan: &mut Plan,
    random: &mut Random,
    tenant: usize,
    breadth: Breadth,
    start: u32,
    end: u32,
) -> Option<Incident> {
    let kind = kind_of(random, breadth);
    let mut incident = blank(random, kind, breadth, start, end);
    incident.tenant = Some(tenant);
    let platform = random.below(3);
    let own_version =
        |plan: &Plan| plan.newest(tenant, platform, start).map(|at| plan.tenants[tenant].releases[at].clone());
    match breadth {
        Breadth::Tenant => {}
        Breadth::NewRelease => {
            let newest = own_version(plan)?;
            incident.end = incident.end.max(start + 12).min(HOURS);
            let release = plan.add_release(
                tenant,
                platform,
                &newest.sdk_version,
                None,
                start,
                random.between(20.0, 90.0),
                random,
            );
            incident.pin(plan, tenant, release);
        }
        Breadth::AtOnePercent => {
            let newest = own_version(plan)?;
            incident.end = incident.end.max(start + 24).min(HOURS);
            let release = plan.add_release(tenant, platform, &newest.sdk_version, None, start, 1e9, random);
            plan.tenants[tenant].releases[release].retired_at = incident.end + 4;
            incident.pin(plan, tenant, release);
        }
        Breadth::KnownRelease => {
            let known = plan.known(tenant, platform, start, random)?;
            incident.pin(plan, tenant, known);
        }
        Breadth::AppVersion => {
            incident.end = incident.end.max(start + 24).min(HOURS);
            let version = plan.next_app_version(tenant);
            for platform in 0..3 {
                let newest = plan.newest(tenant, platform, start)?;
                let sdk_version = plan.tenants[tenant].releases[newest].sdk_version.clone();
                let release =
                    plan.add_release(tenant, platform, &sdk_version, Some(version.clone()), start, 30.0, random);
                incident.first_bad.push((tenant, release));
            }
            incident.app_version = Some(version);
        }
        Breadth::SdkVersion => return None,
    }
    Some(incident)
}

impl Incident {
    fn pin(&mut self, plan: &Plan, tenant: usize, release: usize) {
        let of = &plan.tenants[tenant].releases[release];
        self.platform = Some(of.platform);
        self.sdk_version = Some(of.sdk_version.clone());
        self.app_version = Some(of.app_version.clone());
        self.first_bad.push((tenant, release));
    }
}
