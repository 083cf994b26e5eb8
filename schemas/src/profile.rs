//! What a judge looks at of an event's fields: a code of a byte for most, read where the record is decoded.
//!
//! A judge asks of a value only whether it is there, whether it is its type's default, and in which of sixteen buckets it
//! falls. That fits into a byte, so a field that nobody else reads is never made a column for the judge's sake. The codes
//! of an event stand side by side, [`Codes`] says where; together they are one column,
//! [`PROFILE_CODES`](crate::stage::PROFILE_CODES).
//!
//! | field | bytes | hold |
//! |---|---|---|
//! | any | 1 | [`NULL`], [`DEFAULT`] |
//! | text | the same | [`NUMERIC`] and its bucket, the hash modulo [`BUCKETS`] |
//! | number | the same | its bucket, by [`magnitude`] |
//! | map | 2 more | which buckets its keys fall in, a bit each, little-endian |
//!
//! Invariant: a code says nothing that the value's column wouldn't, so that who holds a column finds the same.

use xxhash_rust::xxh3::xxh3_64;

use crate::types::ColumnType;

/// Buckets of a text, a number or a map's keys.
pub const BUCKETS: u16 = 16;
/// The value is null; nothing else is said of it.
pub const NULL: u8 = 0x80;
/// The value is its type's default: '', 0, empty, false.
pub const DEFAULT: u8 = 0x40;
/// Text that is nothing but a number.
pub const NUMERIC: u8 = 0x20;
/// The bits of the bucket.
pub const BUCKET: u8 = 0x0f;

/// How a field is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Null and default only: identities, times, booleans, arrays.
    Opaque,
    /// Bytes of any number of values.
    Text,
    /// Integers, floats, decimals.
    Number,
    /// Keys of a map.
    Map,
}

impl Kind {
    /// How values of a type are looked at.
    pub fn of(column_type: &ColumnType) -> Kind {
        match column_type.without_null() {
            ColumnType::String | ColumnType::LowCardinality => Kind::Text,
            ColumnType::Int(_)
            | ColumnType::UInt(_)
            | ColumnType::Float32
            | ColumnType::Float64
            | ColumnType::Decimal(..) => Kind::Number,
            ColumnType::Map(..) => Kind::Map,
            _ => Kind::Opaque,
        }
    }

    /// Bytes of a code.
    pub fn bytes(self) -> usize {
        if self == Kind::Map { 3 } else { 1 }
    }
}

/// Where the code of each column of a reader schema stands among an event's codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codes {
    places: Box<[(Kind, usize)]>,
    bytes: usize,
}

impl Codes {
    /// The codes of columns that are looked at so, in their order.
    pub fn new(kinds: impl IntoIterator<Item = Kind>) -> Codes {
        let mut bytes = 0;
        let place = |kind: Kind| {
            let at = bytes;
            bytes += kind.bytes();
            (kind, at)
        };
        let places = kinds.into_iter().map(place).collect();
        Codes { places, bytes }
    }

    /// How a column is looked at, and the first byte of its code.
    pub fn place(&self, column: usize) -> Option<(Kind, usize)> {
        self.places.get(column).copied()
    }

    /// Bytes of an event's codes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The code of a text.
#[inline]
pub fn text(value: &[u8]) -> u8 {
    let default = if value.is_empty() { DEFAULT } else { 0 };
    let numeric = if is_number(value) { NUMERIC } else { 0 };
    bucket_of(value) | default | numeric
}

/// The code of a number.
#[inline]
pub fn number(value: f64) -> u8 {
    magnitude(value) | if value == 0.0 { DEFAULT } else { 0 }
}

/// The bucket of a text.
#[inline]
pub fn bucket_of(text: &[u8]) -> u8 {
    (xxh3_64(text) % u64::from(BUCKETS)) as u8
}

/// Whether a text is nothing but a number, as one that was sent as a string.
#[inline]
fn is_number(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let starts = digits.first().is_some_and(u8::is_ascii_digit);
    starts && digits.len() <= 24 && digits.iter().filter(|&&byte| byte == b'.').count() <= 1 && {
        digits.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
    }
}

/// The bucket of a number by its sign and magnitude: 0 zero, 1 negative, 2 to 14 steps of four from 2^-8 on, 15 not
/// finite or 2^18 and more.
#[inline]
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
    let exponent = (value.to_bits() >> 52) as i32 - 1023;
    ((exponent + 8).max(0) / 2).min(13) as u8 + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_falls_in_the_step_of_its_magnitude() {
        assert_eq!([0.0, -3.0, 0.001, 1.0, 3.9, 4.0, 100.0, 10_000.0].map(magnitude), [0, 1, 2, 6, 6, 7, 9, 12]);
        assert_eq!([f64::NAN, f64::INFINITY, 1e300, 262_144.0, 262_143.0].map(magnitude), [15, 15, 15, 15, 14]);
        assert_eq!([0.0, -0.0, 1.0].map(number), [DEFAULT, DEFAULT, 6]);
    }

    #[test]
    fn a_text_tells_its_bucket_and_whether_it_is_empty_or_a_number() {
        let flags = |value: &str| text(value.as_bytes()) & !BUCKET;
        assert_eq!(["", "12", "-1.5", "1.2.3", "-", "GB"].map(flags), [DEFAULT, NUMERIC, NUMERIC, 0, 0, 0]);
        assert_eq!(text(b"GB") & BUCKET, (xxh3_64(b"GB") % 16) as u8);
    }

    #[test]
    fn codes_stand_side_by_side() {
        let codes = Codes::new([Kind::Text, Kind::Map, Kind::Opaque]);
        assert_eq!([0, 1, 2, 3].map(|column| codes.place(column).map(|(_, at)| at)), [Some(0), Some(1), Some(4), None]);
        assert_eq!(codes.bytes(), 5);
    }
}
