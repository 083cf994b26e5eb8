//! What an incident does to the counts, and what it shows to one who knows of it.

use weir_judge::tally::Family;

use super::catalog::{
    AMOUNT_THING, AMOUNTS, BETWEEN, BETWEEN_OF_MIX, CAMPAIGN_OF_TYPES, CHANNEL_THING, CHANNELS, COMMON, KEYS,
    TYPE_THING, WANDER,
};
use super::emit::Sent;
use super::incidents::{Breadth, Incident, Kind};
use super::oracle::{NEVER_SEEN, Shown};

impl Incident {
    pub(crate) fn add_users(&mut self, users: f64) {
        self.users += users;
    }

    /// Part of a type's users that go wrong, where it isn't the number of events that does.
    pub(crate) fn part_of_users(&self) -> f64 {
        match self.kind {
            Kind::TypeVanished | Kind::VolumeDrop | Kind::NewType => 0.0,
            Kind::EnumDrift | Kind::CategoryShift => self.size * CHANNELS[0],
            Kind::PropertyGone => self.size * KEYS[self.field],
            _ => self.size,
        }
    }

    /// Whether it moves the values of a field from one to another.
    pub(crate) fn moves(&self, first_thing: u64) -> bool {
        match self.kind {
            Kind::UnitChange => first_thing == AMOUNT_THING,
            Kind::EnumDrift | Kind::NewValue | Kind::CategoryShift => first_thing == CHANNEL_THING,
            _ => false,
        }
    }

    pub(crate) fn move_values(&self, weights: &mut [f64]) {
        let before = weights.to_vec();
        let mut shift = |from: usize, to: usize| {
            weights[from] -= self.size * before[from];
            weights[to] += self.size * before[from];
        };
        match self.kind {
            Kind::UnitChange => {
                (0..AMOUNTS.len()).for_each(|bucket| shift(bucket, (bucket + 3).min(AMOUNTS.len() - 1)))
            }
            Kind::EnumDrift => shift(0, CHANNELS.len()),
            Kind::NewValue => (0..CHANNELS.len()).for_each(|value| shift(value, CHANNELS.len() + 1)),
            _ => shift(0, 3),
        }
    }

    /// Variance of the logit that nobody can know: how a new release differs, and what campaigns do where nothing is there
    /// to compare with.
    fn open(&self, sent: &Sent<'_>, is_mix: bool, campaign: f64) -> f64 {
        let of = &sent.plan.tenants[sent.tenant];
        let further = of.campaigns_at(sent.hour).filter(|one| one.of_new_audience && sent.is_newest).count() as f64;
        let between = if is_mix { BETWEEN_OF_MIX } else { BETWEEN };
        let of_release = match self.breadth {
            Breadth::Tenant => campaign * campaign + COMMON * COMMON,
            Breadth::KnownRelease => 0.0,
            _ => between * between,
        };
        of_release + WANDER * WANDER + further * (0.5 * campaign).powi(2)
    }

    pub(crate) fn show(
        &mut self,
        sent: &Sent<'_>,
        family: Family,
        symptom: u64,
        users: f64,
        (usual, share): (f64, f64),
        campaign: f64,
    ) {
        let open = self.open(sent, family.is_mix(), campaign);
        let symptom = symptom | (sent.tenant as u64) << 32;
        let users_stay = !family.is_mix();
        self.evidence.add(sent.hour, Shown { family, symptom, users, usual, share, open, users_stay });
    }

    /// Of a type that isn't sent any more, or under another name.
    pub(crate) fn show_type(&mut self, sent: &Sent<'_>, at: usize, usual: f64) {
        let users = sent.mean / sent.plan.tenants[sent.tenant].events_per_user;
        let left = usual * (1.0 - self.size);
        let all = if self.kind == Kind::NewType { 1.0 } else { 1.0 - usual + left };
        let symptom = TYPE_THING + at as u64;
        self.show(sent, Family::TypeShare, symptom, users * all, (usual, left / all), CAMPAIGN_OF_TYPES);
        if self.kind == Kind::NewType {
            self.show(sent, Family::TypeShare, TYPE_THING + 9, users, (NEVER_SEEN, usual - left), CAMPAIGN_OF_TYPES);
        }
    }

    /// A volume is so many of what came and of what is usual; hours differ by about a quarter.
    pub(crate) fn show_volume(&mut self, tenant: usize, hour: u32, usual: f64) {
        let users = usual * (2.0 - self.size);
        let share = (1.0 - self.size) / (2.0 - self.size);
        let symptom = 100 | (tenant as u64) << 32;
        let shown = Shown { family: Family::Volume, symptom, users, usual: 0.5, share, open: 0.05, users_stay: false };
        self.evidence.add(hour, shown);
    }
}
