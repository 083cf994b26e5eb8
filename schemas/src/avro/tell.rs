//! What a fault is called, for people and for whoever groups refused records by cause.

use super::decode::{DEPTH_MAX, EMPTY_ITEMS_MAX, RECORD_BYTES_MAX};
use super::wire::Fault;
use crate::fate::Reason;

/// Why a record with the fault is in quarantine.
pub(super) fn reason(fault: Fault) -> Reason {
    match fault {
        Fault::Ended => Reason::Truncated,
        // A record that was cut ends behind a length that was right; a length that no record has was never right.
        Fault::LengthBeyondEnd(length) if length <= i64::from(i32::MAX) => Reason::Truncated,
        Fault::Trailing(_) => Reason::TrailingBytes,
        Fault::Unresolved => Reason::IncompatibleSchema,
        Fault::DecimalRange | Fault::TimeRange(_) | Fault::DateRange(_) | Fault::TimeOfDay(_) | Fault::TooLarge => {
            Reason::OutOfRange
        }
        _ => Reason::Malformed,
    }
}

/// The kind of a fault. Names are part of the fingerprints of causes, so they stay.
pub(super) fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::Ended => "ended",
        Fault::LongVarint => "long_varint",
        Fault::IntRange(_) => "int_range",
        Fault::NegativeLength(_) => "negative_length",
        Fault::LengthBeyondEnd(_) => "length_beyond_end",
        Fault::NotBoolean(_) => "not_boolean",
        Fault::NotUtf8 => "not_utf8",
        Fault::NoSuchBranch(_) => "no_such_branch",
        Fault::NoSuchSymbol(_) => "no_such_symbol",
        Fault::BlockSize(_) => "block_size",
        Fault::TooDeep => "too_deep",
        Fault::TooManyEmptyItems => "too_many_empty_items",
        Fault::EmptyDecimal => "empty_decimal",
        Fault::DecimalRange => "decimal_range",
        Fault::NotUuid => "not_uuid",
        Fault::UuidLength(_) => "uuid_length",
        Fault::TimeRange(_) => "time_range",
        Fault::DateRange(_) => "date_range",
        Fault::TimeOfDay(_) => "time_of_day",
        Fault::TooLarge => "too_large",
        Fault::Unresolved => "unresolved",
        Fault::Trailing(_) => "trailing",
    }
}

/// The fault in words; no value of text is ever in it.
pub(super) fn words(fault: Fault) -> String {
    match fault {
        Fault::Ended => "the record ends inside the value".to_owned(),
        Fault::LongVarint => "a variable-length integer of more than 64 bits".to_owned(),
        Fault::IntRange(value) => format!("{value} is not an int of 32 bits"),
        Fault::NegativeLength(length) => format!("the length {length} is negative"),
        Fault::LengthBeyondEnd(length) => format!("the length {length} runs past the record's end"),
        Fault::NotBoolean(byte) => format!("{byte} is not a boolean"),
        Fault::NotUtf8 => "the text is not UTF-8".to_owned(),
        Fault::NoSuchBranch(index) => format!("the union has no branch {index}"),
        Fault::NoSuchSymbol(index) => format!("the enum has no symbol {index}"),
        Fault::BlockSize(size) => format!("the block's items don't take the {size} bytes that it says"),
        Fault::TooDeep => format!("types within types beyond a depth of {DEPTH_MAX}"),
        Fault::TooManyEmptyItems => format!("more than {EMPTY_ITEMS_MAX} items without bytes"),
        Fault::EmptyDecimal => "a decimal of no bytes".to_owned(),
        Fault::DecimalRange => "the decimal has more digits than its precision".to_owned(),
        Fault::NotUuid => "the text is not a UUID".to_owned(),
        Fault::UuidLength(length) => format!("a UUID has 16 bytes, not {length}"),
        Fault::TimeRange(value) => format!("the time {value} is outside 1900 to 2299"),
        Fault::DateRange(value) => format!("the date {value} is outside 1900 to 2299"),
        Fault::TimeOfDay(value) => format!("the time of day {value} is outside its day"),
        Fault::TooLarge => format!("the record would fill more than {} MiB", RECORD_BYTES_MAX >> 20),
        Fault::Unresolved => "the reader schema has no place for the value".to_owned(),
        Fault::Trailing(bytes) => format!("{bytes} bytes are left over behind the datum"),
    }
}
