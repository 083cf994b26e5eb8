//! What a judge looks at of an event's fields: a code of a byte for most, read where the record is decoded.
//!
//! A judge asks of a value only whether it is there, whether it is its type's default, and in which of sixteen buckets it
//! falls. That fits into a byte, so a field that nobody else reads is never made a column for the judge's sake. The codes
//! of an event stand side by side, [`Codes`] says where, those of texts and numbers first; together they are one column,
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

    /// Whether each value falls in one bucket.
    pub fn is_valued(self) -> bool {
        matches!(self, Kind::Text | Kind::Number)
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
    /// The codes of columns that are looked at so: those of texts and numbers first, each in the order of the columns.
    pub fn new(kinds: impl IntoIterator<Item = Kind>) -> Codes {
        let mut places: Box<[(Kind, usize)]> = kinds.into_iter().map(|kind| (kind, 0)).collect();
        let mut bytes = 0;
        for valued in [true, false] {
            for (kind, at) in places.iter_mut().filter(|(kind, _)| kind.is_valued() == valued) {
                *at = bytes;
                bytes += kind.bytes();
            }
        }
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

/// The code of an integer, which is that of the same number.
#[inline]
pub fn integer(value: i64) -> u8 {
    match value {
        0 => DEFAULT,
        ..0 => 1,
        _ => step(value.ilog2() as i32),
    }
}

/// The bucket of a text: its XXH3 modulo [`BUCKETS`], so that it can be asked for in SQL, too.
#[inline]
pub fn bucket_of(text: &[u8]) -> u8 {
    (short_xxh3(text).unwrap_or_else(|| long_xxh3(text)) % u64::from(BUCKETS)) as u8
}

/// Nearly all texts that are categories are short, and every text of every event comes by here: the library's function,
/// which is ready for any length and so not in line, took two fifths of what all codes cost. The source is Collet's
/// reference (`xxhash.h` 0.8, `XXH3_len_4to8_64b` and `XXH3_len_9to16_64b`) with the seed 0; the constants are parts of its
/// secret, put together.
#[inline]
fn short_xxh3(text: &[u8]) -> Option<u64> {
    let length = text.len() as u64;
    if let (4..=8, Some(first), Some(last)) = (text.len(), text.first_chunk(), text.last_chunk()) {
        let both = u64::from(u32::from_le_bytes(*last)) | u64::from(u32::from_le_bytes(*first)) << 32;
        let mut hash = both ^ 0xc73a_b174_c5ec_d5a2;
        hash ^= hash.rotate_left(49) ^ hash.rotate_left(24);
        hash = hash.wrapping_mul(0x9fb2_1c65_1e98_df25);
        hash = (hash ^ (hash >> 35).wrapping_add(length)).wrapping_mul(0x9fb2_1c65_1e98_df25);
        return Some(hash ^ hash >> 28);
    }
    if let (9..=16, Some(first), Some(last)) = (text.len(), text.first_chunk(), text.last_chunk()) {
        let low = u64::from_le_bytes(*first) ^ 0x6782_737b_ea42_39b9;
        let high = u64::from_le_bytes(*last) ^ 0xaf56_bc3b_0996_523a;
        let product = u128::from(low) * u128::from(high);
        let folded = product as u64 ^ (product >> 64) as u64;
        let hash = length.wrapping_add(low.swap_bytes()).wrapping_add(high).wrapping_add(folded);
        let hash = (hash ^ hash >> 37).wrapping_mul(0x1656_6791_9e37_79f9);
        return Some(hash ^ hash >> 32);
    }
    None
}

#[inline(never)]
fn long_xxh3(text: &[u8]) -> u64 {
    xxh3_64(text)
}

/// Whether a text is nothing but a number, as one that was sent as a string.
#[inline]
fn is_number(text: &[u8]) -> bool {
    text.first().is_some_and(|first| first.is_ascii_digit() || *first == b'-') && is_all_number(text)
}

fn is_all_number(text: &[u8]) -> bool {
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
    // Without the sign, which only a NaN can have here; what isn't finite has the greatest exponent.
    step(((value.to_bits() >> 52) as i32 & 0x7ff) - 1023)
}

/// The bucket of a positive number between 2^`exponent` and twice that.
#[inline]
fn step(exponent: i32) -> u8 {
    ((exponent + 8).clamp(0, 26) / 2) as u8 + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_falls_in_the_step_of_its_magnitude() {
        assert_eq!([0.0, -3.0, 0.001, 1.0, 3.9, 4.0, 100.0, 10_000.0].map(magnitude), [0, 1, 2, 6, 6, 7, 9, 12]);
        assert_eq!([f64::NAN, f64::INFINITY, 1e300, 262_144.0, 262_143.0].map(magnitude), [15, 15, 15, 15, 14]);
        assert_eq!([0.0, -0.0, 1.0].map(number), [DEFAULT, DEFAULT, 6]);
        let mut random = fastrand::Rng::with_seed(2);
        let of_any_size = (0..2_000).map(|_| random.i64(..) >> random.u32(0..64));
        of_any_size.chain([0, 1, -1, i64::MIN, i64::MAX]).for_each(|value| {
            assert_eq!(integer(value), number(value as f64), "{value}");
        });
    }

    #[test]
    fn a_text_tells_its_bucket_and_whether_it_is_empty_or_a_number() {
        let flags = |value: &str| text(value.as_bytes()) & !BUCKET;
        assert_eq!(["", "12", "-1.5", "1.2.3", "-", "GB"].map(flags), [DEFAULT, NUMERIC, NUMERIC, 0, 0, 0]);
    }

    #[test]
    fn a_text_of_any_length_has_the_bucket_of_its_xxh3() {
        let mut random = fastrand::Rng::with_seed(4);
        for length in (0..40).chain([100, 300]) {
            for _ in 0..200 {
                let text: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
                assert_eq!(short_xxh3(&text).unwrap_or_else(|| long_xxh3(&text)), xxh3_64(&text), "{text:?}");
                assert_eq!(u64::from(bucket_of(&text)), xxh3_64(&text) % 16);
            }
        }
    }

    #[test]
    fn codes_stand_side_by_side() {
        let codes = Codes::new([Kind::Map, Kind::Text, Kind::Opaque, Kind::Number]);
        let places = [0, 1, 2, 3, 4].map(|column| codes.place(column).map(|(_, at)| at));
        assert_eq!(places, [Some(2), Some(0), Some(5), Some(1), None]);
        assert_eq!(codes.bytes(), 6);
    }
}
