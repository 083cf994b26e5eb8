//! Which records an alert wants to show: known by their places, or to be looked for in the log.
//!
//! A profile counts fields and keeps no event, so what the judge finds in a field has to be looked for when somebody is
//! told of it: from a place on, the events of the senders at fault for which the indicator holds. Operators don't read
//! the log. They leave what they want, as bytes, in the column `samples` of an alert's row, and whoever commits the row
//! puts the samples there. The same log gives the same samples.

use weir_judge::tally::{Family, Indicator as Of};

use crate::profile::{Indicator, Kind, Spot};
use crate::state::{Codec, CodecError};

/// What an alert wants to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Records that have the problem.
    pub places: Vec<Spot>,
    /// Fields that matter, the first one most.
    pub fields: Vec<String>,
    /// What to look for while there are fewer than three places.
    pub search: Option<Search>,
}

/// Events to look for. A part that is `None` fits all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// Where to begin; the search stays in this partition.
    pub from: Spot,
    /// The tenant.
    pub tenant: Option<String>,
    /// SDK, its version, the app's version.
    pub release: [Option<String>; 3],
    /// The event type; '' for any.
    pub event_type: String,
    /// The field; '' where the indicator is of none.
    pub field: String,
    /// What is counted, by number of family and code.
    pub indicator: (u8, u64),
    /// Whether it has to hold; not where too few events have it.
    pub holds: bool,
}

impl Search {
    /// What to look for in an event, if an event by itself shows it; `kind` is the field's.
    pub fn indicator(&self, kind: Option<Kind>) -> Option<Indicator> {
        let (family, code) = self.indicator;
        let bucket = u8::try_from(code.saturating_sub(1)).ok().filter(|_| code > 0);
        let small = u8::try_from(code).ok();
        let is = |of: Family| of as u8 == family;
        match kind {
            Some(_) if is(Family::Null) => Some(Indicator::Null),
            Some(_) if is(Family::Default) => Some(Indicator::Default),
            Some(_) if is(Family::Drift) => Some(Indicator::NumericText),
            Some(Kind::Map) if is(Family::Category) => bucket.map(Indicator::Key),
            Some(_) if is(Family::Category) || is(Family::Number) => bucket.map(Indicator::Bucket),
            None if is(Family::Schema) => small.map(Indicator::Schema),
            None if is(Family::Skew) || is(Family::Late) => small.filter(|at| *at < 8).map(Indicator::Delay),
            _ => None,
        }
    }
}

/// Whether an event by itself shows that it is one of those that are counted.
pub(crate) fn shows(indicator: Of) -> bool {
    use Family::{Category, Default, Drift, Late, Null, Number, Schema, Skew};
    matches!(indicator.family, Null | Default | Drift | Category | Number | Schema | Skew | Late)
}

impl Wanted {
    /// As bytes, for the column.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// What [`Wanted::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Option<Wanted> {
        Wanted::decode_all(bytes).ok()
    }
}

fn encode_spot(spot: Spot, out: &mut Vec<u8>) {
    (spot.0, spot.1, spot.2).encode(out);
}

fn decode_spot(bytes: &mut &[u8]) -> Result<Spot, CodecError> {
    let (topic, partition, offset) = <(u16, i32, i64)>::decode(bytes)?;
    Ok(Spot(topic, partition, offset))
}

impl Codec for Wanted {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.places.len() as u32, self.fields.len() as u32).encode(out);
        self.places.iter().for_each(|place| encode_spot(*place, out));
        self.fields.iter().for_each(|field| field.encode(out));
        out.push(u8::from(self.search.is_some()));
        let Some(search) = &self.search else { return };
        encode_spot(search.from, out);
        search.tenant.encode(out);
        search.release.iter().for_each(|part| part.encode(out));
        search.event_type.encode(out);
        search.field.encode(out);
        search.indicator.encode(out);
        search.holds.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        let (places, fields) = <(u32, u32)>::decode(bytes)?;
        let mut wanted = Wanted::default();
        for _ in 0..places {
            wanted.places.push(decode_spot(bytes)?);
        }
        for _ in 0..fields {
            wanted.fields.push(String::decode(bytes)?);
        }
        if !bool::decode(bytes)? {
            return Ok(wanted);
        }
        wanted.search = Some(Search {
            from: decode_spot(bytes)?,
            tenant: Option::decode(bytes)?,
            release: [Option::decode(bytes)?, Option::decode(bytes)?, Option::decode(bytes)?],
            event_type: String::decode(bytes)?,
            field: String::decode(bytes)?,
            indicator: <(u8, u64)>::decode(bytes)?,
            holds: bool::decode(bytes)?,
        });
        Ok(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_comes_back_from_its_bytes() {
        let search = Search {
            from: Spot(0, 3, 1 << 40),
            tenant: Some("north".to_owned()),
            release: [Some("web".to_owned()), None, Some(String::new())],
            event_type: "purchase".to_owned(),
            field: "amount".to_owned(),
            indicator: (Family::Category as u8, 4),
            holds: true,
        };
        assert_eq!(search.indicator(Some(Kind::Text)), Some(Indicator::Bucket(3)));
        assert_eq!(search.indicator(Some(Kind::Map)), Some(Indicator::Key(3)));
        let wanted = Wanted { places: vec![Spot(1, 2, 3)], fields: vec!["amount".to_owned()], search: Some(search) };
        for wanted in [wanted, Wanted::default()] {
            let bytes = wanted.to_bytes();
            assert_eq!(Wanted::from_bytes(&bytes), Some(wanted));
            assert_eq!(Wanted::from_bytes(&bytes[..bytes.len() - 1]), None);
        }
    }
}
