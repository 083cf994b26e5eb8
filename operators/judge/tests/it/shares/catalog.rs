//! What is counted in the invented world: shares with their usual sizes, and what each kind of incident does to them.

use weir_judge::tally::Family;

use super::incidents::Kind;

/// What is counted of every type as hits of events: family, field, label, usual share, whether users agree with
/// themselves, deviation of a campaign's effect.
pub(crate) const SHARES: [(Family, &str, &str, f64, bool, f64); 15] = [
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
pub(crate) const CHANNELS: [f64; 6] = [0.35, 0.25, 0.2, 0.1, 0.07, 0.03];
pub(crate) const AMOUNTS: [f64; 10] = [0.02, 0.06, 0.14, 0.24, 0.24, 0.16, 0.08, 0.04, 0.015, 0.005];
/// Keys of `props`, each in this part of the events.
pub(crate) const KEYS: [f64; 4] = [0.96, 0.6, 0.3, 0.12];
pub(crate) const MIX: [f64; 4] = [0.52, 0.26, 0.15, 0.07];
/// A type that new releases bring, and one that a fault makes of another.
pub(crate) const NEW_TYPE: &str = "feature";
pub(crate) const MISSPELT_TYPE: &str = "Click_";

/// Shares of what, by number of the thing: 0 to 14 as above, 16 on channels, 24 on keys, 32 on amounts, 48 on types.
pub(crate) const CHANNEL_THING: u64 = 16;
pub(crate) const KEY_THING: u64 = 24;
pub(crate) const AMOUNT_THING: u64 = 32;
pub(crate) const TYPE_THING: u64 = 48;

/// Deviations of the logit: between releases, of faults and of what people choose; of a release from hour to hour; of slow
/// noise that all releases share; and of a campaign's effect on what people choose.
pub(crate) const BETWEEN: f64 = 0.15;
pub(crate) const BETWEEN_OF_MIX: f64 = 0.25;
pub(crate) const WANDER: f64 = 0.05;
pub(crate) const COMMON: f64 = 0.06;
pub(crate) const CAMPAIGN_OF_TYPES: f64 = 0.3;
pub(crate) const CAMPAIGN_OF_VALUES: f64 = 0.5;

/// Which shares an incident raises.
pub(crate) fn raised(kind: Kind, field: usize) -> &'static [usize] {
    match (kind, field) {
        (Kind::FieldDropped, 0) => &[8, 2],
        (Kind::FieldDropped, 1) => &[9],
        (Kind::FieldDropped, _) => &[10],
        (Kind::DefaultSent, 0) => &[11],
        (Kind::DefaultSent, 1) => &[12],
        (Kind::DefaultSent, _) => &[13],
        (Kind::NumberAsText, _) => &[14],
        (Kind::Duplicates, _) => &[4],
        (Kind::Late, _) => &[5],
        (Kind::ClockSkew, _) => &[6],
        (Kind::Lost, _) => &[7],
        (Kind::RuleBroken, 0) => &[2],
        (Kind::RuleBroken, _) => &[3],
        (Kind::Refused, _) => &[1],
        _ => &[],
    }
}
