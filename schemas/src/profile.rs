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

use xxhash_rust::xxh3::xxh3_128;

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

/// The code of an integer, which is that of the same number.
#[inline]
pub fn integer(value: i64) -> u8 {
    match value {
        0 => DEFAULT,
        ..0 => 1,
        _ => step(value.ilog2() as i32),
    }
}

/// The bucket of a text.
#[inline]
pub fn bucket_of(text: &[u8]) -> u8 {
    let [first, last] = words_of(text);
    // The length, since zeros at the front of a text of a few bytes say nothing in a word.
    let product = u128::from(first ^ FIRST ^ text.len() as u64) * u128::from(last ^ LAST);
    ((product as u64 ^ (product >> 64) as u64) >> 60) as u8
}

/// Odd numbers with as many ones as zeros, without which texts of zeros would be multiplied by zero.
const FIRST: u64 = 0x9e37_79b9_7f4a_7c15;
const LAST: u64 = 0xd1b5_4a32_d192_ed03;

/// Two words that are another text's only if it has another length, or both are longer than 16 bytes and have one hash of
/// 128 bits. Nearly all texts of senders and of categories are short, and no copy of a length that varies is taken.
#[inline]
pub fn words_of(text: &[u8]) -> [u64; 2] {
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    let half = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
    match text.len() {
        9..=16 => [text.first_chunk().map_or(0, word), text.last_chunk().map_or(0, word)],
        4..=8 => [text.first_chunk().map_or(0, half), text.last_chunk().map_or(0, half)],
        0..=3 => [text.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0],
        _ => words_of_long(text),
    }
}

/// Kept apart, so that the short texts' few instructions stand where they are wanted.
#[cold]
fn words_of_long(text: &[u8]) -> [u64; 2] {
    let hash = xxh3_128(text);
    [hash as u64, (hash >> 64) as u64]
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
    fn texts_of_any_length_fall_evenly_in_the_buckets_and_a_zero_more_is_another_text() {
        let forms: [fn(u32) -> String; 5] = [
            |number| format!("{number:x}"),
            |number| format!("value-{number}"),
            |number| format!("{number}, a text of more than sixteen bytes"),
            |number| "\0".repeat(number as usize),
            |number| format!("DE{}", char::from_u32(number + 0x100).unwrap()),
        ];
        for (at, form) in forms.into_iter().enumerate() {
            let mut counts = [0_u32; BUCKETS as usize];
            (0..1_600).for_each(|number| counts[usize::from(bucket_of(form(number).as_bytes()))] += 1);
            // A hundred on average; five times the standard deviation of a fair draw.
            assert!(counts.iter().all(|count| (52..148).contains(count)), "{at}: {counts:?}");
        }
    }

    #[test]
    fn codes_stand_side_by_side() {
        let codes = Codes::new([Kind::Text, Kind::Map, Kind::Opaque]);
        assert_eq!([0, 1, 2, 3].map(|column| codes.place(column).map(|(_, at)| at)), [Some(0), Some(1), Some(4), None]);
        assert_eq!(codes.bytes(), 5);
    }
}
