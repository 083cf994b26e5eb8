//! What the judge is told: the counts of one closed window of one tenant.
//!
//! Every row is a share: `hits` of `trials` events of one release, event type and field show one [`Indicator`]. What an
//! indicator is a share *of* goes with its [`Family`]; all rows of a release, type, field and family have the same trials.
//!
//! Rows of no hits may be left out, with one rule: **a family that was measured for a release, type and field has at least
//! one row**, if need be with `hits` 0. From that row the judge knows the trials of the family's other indicators, so that
//! a value which one release sends and the others don't is seen as 0 of n there, and a vanished one as 0 of n here. For the
//! families whose buckets add up to the trials (categories, numbers, delays, schema ids, shares of types) this is so by
//! itself.
//!
//! Texts and releases stand once in the window's lists; rows name them by number.

use std::fmt;

/// A span of event time that the watermark has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    /// First moment, microseconds since 1970.
    pub start_us: i64,
    /// Length in microseconds; the same for all windows that one judge sees.
    pub width_us: i64,
}

impl Window {
    /// The number of the window on the time line; the one after it has the next number. Times before 1970 are number 0.
    pub fn index(&self) -> u32 {
        u32::try_from(self.start_us.div_euclid(self.width_us.max(1)).max(0)).unwrap_or(u32::MAX)
    }
}

/// What sent an event: the SDK (its name is the platform), its version, and the version of the app around it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release {
    pub sdk: String,
    pub sdk_version: String,
    pub app_version: String,
}

impl fmt::Display for Release {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} in app {}", self.sdk, self.sdk_version, self.app_version)
    }
}

/// Where a record stands in the log; the topic by its number in the pipeline's list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub topic: u16,
    pub partition: i32,
    pub offset: i64,
}

/// The kinds of indicators, each with its trials. The numbers are kept in state and never used anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// Refused by this reason or cause; of all records of the release and type.
    Refused = 1,
    /// Breaks this rule; of the events that the rule was asked about.
    Tagged = 2,
    /// The field is null; of the type's events.
    Null = 3,
    /// The field has its default value; of the type's events.
    Default = 4,
    /// The property isn't there; of the type's events.
    Missing = 5,
    /// The value of a category, by hash, or [`OTHER`]; of the field's values.
    Category = 6,
    /// The bucket of a number (logarithm or quantile); of the field's values.
    Number = 7,
    /// A value of another type than planned, as a number sent as a string; of the field's values.
    Drift = 8,
    /// A copy of an event that was accepted before (signal `duplicates`); hits are the copies, trials copies + accepted.
    Duplicate = 9,
    /// Later than a bucket of delay, or too late; of the type's records.
    Late = 10,
    /// The device's clock is off by this bucket; of the type's records.
    Skew = 11,
    /// The schema id in use; of the type's records.
    Schema = 12,
    /// Lost by the gap in sequence numbers (signal `gaps`); hits are the numbers missing, trials missing + seen. No hit has
    /// a place or users of its own: `first`, `last` and `examples` are of events that came after a gap, `users` of the devices
    /// with one.
    Lost = 13,
    /// The share of one event type: row's type and field are empty, the indicator's code is [`code_of`] the type's name and
    /// its label the name; of the release's events.
    TypeShare = 14,
    /// The number of events of a type, or of all types; not for rows: the judge makes it of [`Tally::volumes`].
    Volume = 15,
}

impl Family {
    /// All families, in the order of their numbers.
    pub const ALL: [Family; 15] = [
        Family::Refused,
        Family::Tagged,
        Family::Null,
        Family::Default,
        Family::Missing,
        Family::Category,
        Family::Number,
        Family::Drift,
        Family::Duplicate,
        Family::Late,
        Family::Skew,
        Family::Schema,
        Family::Lost,
        Family::TypeShare,
        Family::Volume,
    ];

    pub(crate) fn from_number(number: u8) -> Option<Family> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// Moves with what people do (campaigns, seasons, new audiences), and so needs more to be called a fault.
    pub fn is_mix(self) -> bool {
        matches!(self, Family::Category | Family::Number | Family::TypeShare | Family::Schema)
    }

    /// The family's name in alerts.
    pub fn name(self) -> &'static str {
        match self {
            Family::Refused => "refused",
            Family::Tagged => "breaks a rule",
            Family::Null => "null",
            Family::Default => "default value",
            Family::Missing => "missing",
            Family::Category => "share of a value",
            Family::Number => "share of a range of numbers",
            Family::Drift => "other type than planned",
            Family::Duplicate => "duplicate",
            Family::Late => "late",
            Family::Skew => "clock skew",
            Family::Schema => "schema id",
            Family::Lost => "lost in transit",
            Family::TypeShare => "share of the event type",
            Family::Volume => "number of events",
        }
    }
}

/// What is counted: the family, and within it which reason, rule, value, bucket or schema id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Indicator {
    pub family: Family,
    /// 0 where the family has one indicator only, the bucket's or schema's number, or [`code_of`] a text.
    pub code: u64,
}

/// The code of all values of a category that aren't told apart.
pub const OTHER: u64 = u64::MAX;

/// A text's code: FNV-1a over its bytes with a final mix, the same on every machine, never [`OTHER`] nor 0.
pub fn code_of(text: &str) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (hash ^ (hash >> 32)).clamp(1, OTHER - 1)
}

/// One count. A window of a large tenant has millions, so it is kept small.
#[derive(Clone, Debug)]
pub struct Row {
    /// Position in [`Tally::releases`].
    pub release: u32,
    /// Position in [`Tally::texts`]; of the empty text where the count isn't of one type.
    pub event_type: u32,
    /// Position in [`Tally::texts`]; of the empty text where the count isn't of one field.
    pub field: u32,
    pub indicator: Indicator,
    /// Position in [`Tally::texts`]: the reason, rule id, value (masked where it must be) or bucket, to be shown.
    pub label: u32,
    pub hits: u64,
    pub trials: u64,
    /// Distinct users among the hits, about; 0 where unknown.
    pub users: u32,
    /// Least and greatest place among the hits.
    pub first: Place,
    pub last: Place,
    /// Up to three hits; of most rows none is known.
    pub examples: Box<[Place]>,
}

/// Events of one type in the window, over all releases; types that are known but have none may be left out.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Position in [`Tally::texts`].
    pub event_type: u32,
    pub events: u64,
    /// Distinct users, about.
    pub users: u32,
}

/// The counts of one closed window of one tenant.
#[derive(Clone, Debug)]
pub struct Tally {
    pub tenant: String,
    pub window: Window,
    pub releases: Vec<Release>,
    /// Distinct users of each release, about, in the order of `releases`; 0 where unknown.
    pub release_users: Vec<u32>,
    pub texts: Vec<String>,
    /// In any order, at most one per release, type, field and indicator.
    pub rows: Vec<Row>,
    pub volumes: Vec<Volume>,
}
