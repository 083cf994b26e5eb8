//! What is counted of each event: which indicator stands in which slot of a [`Cell`](super::Cell).
//!
//! Every indicator is a number of events out of a number of events, so that counts of any two workers, epochs or runs add up
//! to the same cell in any order. Categories and numbers are therefore told by fixed buckets, never by lists of the
//! commonest values, whose content would depend on the order of arrival.

use weir_schemas::stage::{Column, system};
use weir_schemas::types::ColumnType;

/// Buckets of a category, a number or a map's keys.
pub const BUCKETS: u16 = 16;
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

/// How a field is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Default only: identities, times, arrays.
    Opaque,
    /// Bytes of any number of values.
    Text,
    /// Integers, floats, decimals.
    Number,
    /// Keys of a map.
    Map,
}

/// A field's slots: null, default, numeric text, then its buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldSlots {
    /// The name, dotted where the field was nested.
    pub name: String,
    /// Its index in a batch of events.
    pub column: usize,
    /// How it is looked at.
    pub kind: Kind,
    /// The slot of its nulls.
    pub first: usize,
}

impl FieldSlots {
    /// Slots in front of a field's buckets.
    pub const HEAD: usize = 3;

    fn slots(&self) -> usize {
        FieldSlots::HEAD + if self.kind == Kind::Opaque { 0 } else { usize::from(BUCKETS) }
    }
}

/// The slots of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    fields: Vec<FieldSlots>,
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

    /// The slots of a source's events with `columns` and `rules` rules that let events pass. Of the columns named in
    /// `identities` (ids, the user, what a cell's key holds) only nulls and defaults are counted.
    pub fn new(columns: &[Column], rules: usize, identities: &[&str]) -> Layout {
        let mut slots = Layout::RULE + rules;
        let mut fields = Vec::with_capacity(columns.len());
        for (at, column) in columns.iter().enumerate() {
            let is_identity = identities.contains(&column.name.as_str());
            let kind = if is_identity { Kind::Opaque } else { kind_of(column.column_type.without_null()) };
            let field = FieldSlots { name: column.name.clone(), column: at + system::COUNT, kind, first: slots };
            slots += field.slots();
            fields.push(field);
        }
        Layout { fields, rules, slots }
    }

    /// How many slots a cell has.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The fields, in the order of their slots.
    pub fn fields(&self) -> &[FieldSlots] {
        &self.fields
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
        } else if slot < Layout::RULE + self.rules {
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

fn kind_of(column_type: &ColumnType) -> Kind {
    match column_type {
        ColumnType::String | ColumnType::LowCardinality => Kind::Text,
        ColumnType::Int(_)
        | ColumnType::UInt(_)
        | ColumnType::Float32
        | ColumnType::Float64
        | ColumnType::Decimal(..)
        | ColumnType::Bool => Kind::Number,
        ColumnType::Map(..) => Kind::Map,
        _ => Kind::Opaque,
    }
}

/// The bucket of a number by its sign and magnitude: 0 zero, 1 negative, 2 to 14 steps of four from 2^-8 on, 15 not
/// finite or 2^18 and more.
pub fn magnitude(value: f64) -> u8 {
    if value == 0.0 {
        return 0;
    }
    if value < 0.0 {
        return 1;
    }
    if !value.is_finite() {
        return 15;
    }
    let exponent = i64::try_from(value.to_bits() >> 52).unwrap_or(0) - 1023;
    let step = (exponent + 8).max(0) / 2;
    u8::try_from(step.min(13)).unwrap_or(13) + 2
}

/// The bucket of a delay: how many milliseconds an event's record came after the event. 0 an hour or more *before* it,
/// 1 a minute or more before, 2 within a minute of it, then up to 10 minutes, an hour, 6 hours, a day, and more.
pub fn delay_bucket(delay_ms: i64) -> u8 {
    const MINUTE: i64 = 60_000;
    match delay_ms {
        ..=-3_600_000 => 0,
        -3_599_999..=-60_000 => 1,
        -59_999..MINUTE => 2,
        MINUTE..600_000 => 3,
        600_000..3_600_000 => 4,
        3_600_000..21_600_000 => 5,
        21_600_000..86_400_000 => 6,
        86_400_000.. => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_schemas::types::Width;

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
        let amount = &layout.fields()[1];
        assert_eq!(layout.indicator(amount.first + 1).1, Indicator::Default);
        assert_eq!(layout.indicator(amount.first + 3 + 15).1, Indicator::Bucket(15));
        assert_eq!(layout.indicator(layout.fields()[2].first + 3).1, Indicator::Key(0));
        assert_eq!(layout.fields()[0].kind, Kind::Opaque);
    }

    #[test]
    fn a_number_falls_in_the_step_of_its_magnitude() {
        assert_eq!([0.0, -3.0, 0.001, 1.0, 3.9, 4.0, 100.0, 10_000.0].map(magnitude), [0, 1, 2, 6, 6, 7, 9, 12]);
        assert_eq!([f64::NAN, f64::INFINITY, 1e300, 262_144.0, 262_143.0].map(magnitude), [15, 15, 15, 15, 14]);
    }

    #[test]
    fn a_delay_falls_in_its_bucket() {
        assert_eq!(
            [-3_600_000, -60_000, -59_999, 0, 59_999, 60_000, 86_400_000].map(delay_bucket),
            [0, 1, 2, 2, 2, 3, 7]
        );
    }
}
