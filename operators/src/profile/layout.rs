//! What is counted of each event: which indicator stands in which slot of a [`Cell`](super::Cell).
//!
//! Every indicator is a number of events out of a number of events, so that counts of any two workers, epochs or runs add up
//! to the same cell in any order. Categories and numbers are therefore told by fixed buckets, never by lists of the
//! commonest values, whose content would depend on the order of arrival.

use weir_schemas::profile::{self, Codes, DEFAULT, NULL, NUMERIC};
pub use weir_schemas::profile::{BUCKETS, Kind, magnitude};
use weir_schemas::stage::Column;

/// Buckets of an event's delay, see [`delay_bucket`].
pub const DELAYS: u16 = 8;
/// Buckets of a writer schema's id.
pub const SCHEMAS: u16 = 8;

/// What a slot counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Indicator {
    /// Every event.
    Events,
    /// A copy of an event that was accepted before; beside the events.
    Copies,
    /// The event's time against its record's Kafka timestamp, by [`delay_bucket`].
    Delay(u8),
    /// The writer schema's id, by its hash.
    Schema(u8),
    /// The event broke this rule and passed: the rule's number in the source.
    Rule(u16),
    /// The field is null.
    Null,
    /// The field has its type's default: '', 0, empty, false.
    Default,
    /// Text that is nothing but a number.
    NumericText,
    /// A category's value by its hash, or a number by [`magnitude`].
    Bucket(u8),
    /// A map has a key of this hash.
    Key(u8),
}

/// A field's slots: null, default, numeric text, then its buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldSlots {
    /// The name, dotted where the field was nested.
    pub name: String,
    /// How it is looked at.
    pub kind: Kind,
    /// The first byte of its code among an event's codes.
    pub code: usize,
    /// The slot of its nulls.
    pub first: usize,
}

impl FieldSlots {
    /// Slots in front of a field's buckets.
    pub const HEAD: usize = 3;
    /// Slots of a field with buckets.
    pub(super) const WITH_BUCKETS: usize = FieldSlots::HEAD + BUCKETS as usize;

    /// Whether an event with these codes is counted under `indicator` of this field.
    pub fn holds(&self, codes: &[u8], indicator: Indicator) -> bool {
        let Some(&code) = codes.get(self.code) else { return false };
        let has = |bits: u8| code & bits != 0;
        match indicator {
            Indicator::Null => has(NULL),
            Indicator::Default => has(DEFAULT),
            Indicator::NumericText => has(NUMERIC),
            Indicator::Bucket(bucket) => {
                matches!(self.kind, Kind::Text | Kind::Number) && !has(NULL) && code & profile::BUCKET == bucket
            }
            Indicator::Key(bucket) => {
                self.kind == Kind::Map && self.keys(codes) & 1_u16.rotate_left(bucket.into()) != 0
            }
            _ => false,
        }
    }

    /// The buckets of a map's keys.
    pub(super) fn keys(&self, codes: &[u8]) -> u16 {
        codes.get(self.code + 1..).and_then(<[u8]>::first_chunk).map_or(0, |keys| u16::from_le_bytes(*keys))
    }

    fn slots(&self) -> usize {
        if self.kind == Kind::Opaque { FieldSlots::HEAD } else { FieldSlots::WITH_BUCKETS }
    }
}

/// The slots of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Texts and numbers, of which an event is counted in one bucket each, and behind them the others. So the codes of the
    /// former stand side by side in front, and so do their slots, and counting an event is one walk over both.
    fields: Vec<FieldSlots>,
    /// How many of the fields are texts and numbers.
    valued: usize,
    codes: Codes,
    rules: usize,
    slots: usize,
}

impl Layout {
    /// The slot of [`Indicator::Events`].
    pub const EVENTS: usize = 0;
    /// The slot of [`Indicator::Copies`].
    pub const COPIES: usize = 1;
    /// The first slot of [`Indicator::Delay`].
    pub const DELAY: usize = 2;
    /// The first slot of [`Indicator::Schema`].
    pub const SCHEMA: usize = Layout::DELAY + DELAYS as usize;
    /// The first slot of [`Indicator::Rule`].
    pub const RULE: usize = Layout::SCHEMA + SCHEMAS as usize;

    /// The slots of a source's events, whose reader schema has `columns`, with `rules` rules that let events pass. Of the
    /// columns named in `identities` (ids, the user, what a cell's key holds) only nulls and defaults are counted.
    pub fn new(columns: &[Column], rules: usize, identities: &[&str]) -> Layout {
        let kind = |column: &Column| {
            if identities.contains(&column.name.as_str()) { Kind::Opaque } else { Kind::of(&column.column_type) }
        };
        let codes = Codes::new(columns.iter().map(kind));
        let field = |(at, column): (usize, &Column)| {
            let (kind, code) = codes.place(at)?;
            Some(FieldSlots { name: column.name.clone(), kind, code, first: 0 })
        };
        let mut fields: Vec<FieldSlots> = columns.iter().enumerate().filter_map(field).collect();
        fields.sort_by_key(|field| field.code);
        let mut slots = Layout::RULE + rules;
        for field in &mut fields {
            field.first = slots;
            slots += field.slots();
        }
        let valued = fields.partition_point(|field| field.kind.is_valued());
        Layout { fields, valued, codes, rules, slots }
    }

    /// Where the codes of the fields stand.
    pub fn codes(&self) -> &Codes {
        &self.codes
    }

    /// How many slots a cell has.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The fields, in the order of their slots.
    pub fn fields(&self) -> &[FieldSlots] {
        &self.fields
    }

    /// The first slot of a field.
    pub(super) fn first_field(&self) -> usize {
        Layout::RULE + self.rules
    }

    /// How many fields have one bucket for a value, and the others.
    pub(super) fn counted(&self) -> (usize, &[FieldSlots]) {
        (self.valued, self.fields.get(self.valued..).unwrap_or_default())
    }

    /// What a slot counts, and of which field.
    pub fn indicator(&self, slot: usize) -> (Option<&FieldSlots>, Indicator) {
        let below = |slot: usize, first: usize| u8::try_from(slot.saturating_sub(first)).unwrap_or(u8::MAX);
        if slot == Layout::EVENTS {
            return (None, Indicator::Events);
        } else if slot == Layout::COPIES {
            return (None, Indicator::Copies);
        } else if slot < Layout::SCHEMA {
            return (None, Indicator::Delay(below(slot, Layout::DELAY)));
        } else if slot < Layout::RULE {
            return (None, Indicator::Schema(below(slot, Layout::SCHEMA)));
        } else if slot < self.first_field() {
            return (None, Indicator::Rule(u16::try_from(slot - Layout::RULE).unwrap_or(u16::MAX)));
        }
        let at = self.fields.partition_point(|field| field.first <= slot).saturating_sub(1);
        let Some(field) = self.fields.get(at) else { return (None, Indicator::Events) };
        let indicator = match slot - field.first {
            0 => Indicator::Null,
            1 => Indicator::Default,
            2 => Indicator::NumericText,
            _ if field.kind == Kind::Map => Indicator::Key(below(slot, field.first + FieldSlots::HEAD)),
            _ => Indicator::Bucket(below(slot, field.first + FieldSlots::HEAD)),
        };
        (Some(field), indicator)
    }
}

/// The bucket of a delay: how many milliseconds an event's record came after the event. 0 an hour or more *before* it,
/// 1 a minute or more before, 2 within a minute of it, then up to 10 minutes, an hour, 6 hours, a day, and more.
pub fn delay_bucket(delay_ms: i64) -> u8 {
    DELAY_FROM_MS.partition_point(|from| *from <= delay_ms) as u8
}

/// The least delay of each bucket but the first.
pub const DELAY_FROM_MS: [i64; 7] = [-3_599_999, -59_999, 60_000, 600_000, 3_600_000, 21_600_000, 86_400_000];

#[cfg(test)]
mod tests {
    use super::*;
    use weir_schemas::types::{ColumnType, Width};

    #[test]
    fn every_slot_has_one_meaning_and_says_it() {
        let columns = [
            Column::new("id", ColumnType::String),
            Column::new("amount", ColumnType::Decimal(18, 2).nullable()),
            Column::new("props", ColumnType::Map(Box::new(ColumnType::String), Box::new(ColumnType::String))),
            Column::new("n", ColumnType::Int(Width::W64)),
        ];
        let layout = Layout::new(&columns, 2, &["id"]);
        let mut seen = std::collections::BTreeSet::new();
        for slot in 0..layout.slots() {
            let (field, indicator) = layout.indicator(slot);
            assert!(seen.insert((field.map(|field| field.name.clone()), indicator)), "slot {slot} repeats");
        }
        assert_eq!(layout.indicator(Layout::RULE + 1), (None, Indicator::Rule(1)));
        let field = |name: &str| layout.fields().iter().find(|field| field.name == name).unwrap();
        let amount = field("amount");
        assert_eq!(layout.indicator(amount.first + 1).1, Indicator::Default);
        assert_eq!(layout.indicator(amount.first + 3 + 15).1, Indicator::Bucket(15));
        assert_eq!(layout.indicator(field("props").first + 3).1, Indicator::Key(0));
        assert_eq!(field("id").kind, Kind::Opaque);
        let names: Vec<&str> = layout.fields().iter().map(|field| &field.name[..]).collect();
        assert_eq!((names, layout.counted().0), (vec!["amount", "n", "id", "props"], 2));
    }

    #[test]
    fn a_delay_falls_in_its_bucket() {
        assert_eq!(
            [-3_600_000, -60_000, -59_999, 0, 59_999, 60_000, 86_400_000].map(delay_bucket),
            [0, 1, 2, 2, 2, 3, 7]
        );
    }
}
