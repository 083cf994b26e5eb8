//! Text to values, with ClickHouse's grammar.

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use weir_schemas::types::Zone;

use super::decimals::power;
use super::zone::LocalTime;

/// An integer as `toInt64OrNull` reads it: a sign, digits, nothing else, in range.
pub(super) fn parse_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = sign_and_digits(text)?;
    digits.iter().try_fold(0i64, |value, digit| {
        let digit = i64::from(digit - b'0');
        let value = value.checked_mul(10)?;
        if negative { value.checked_sub(digit) } else { value.checked_add(digit) }
    })
}

/// An integer as `toInt64` reads it: the same text, but what is out of range wraps around.
pub(super) fn parse_integer_wrapping(text: &[u8]) -> Option<i64> {
    let (negative, digits) = sign_and_digits(text)?;
    let add = |value: i64, digit: &u8| value.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
    let value = digits.iter().fold(0, add);
    Some(if negative { value.wrapping_neg() } else { value })
}

/// Whether an integer is negative, and its digits, of which there is at least one.
fn sign_and_digits(text: &[u8]) -> Option<(bool, &[u8])> {
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit)).then_some((negative, digits))
}

/// A float as `toFloat64OrNull` reads it. Rust's grammar is the same: decimal digits with point and exponent, `inf`,
/// `infinity`, `nan` in any case, a sign.
pub(super) fn parse_float(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A day as `toDate` reads it, in days since 1970: `2026-05-31` with any two separators and one or two digits for month and
/// day, or `20260531`. A time of day may follow, of which ClickHouse looks at the length alone: 19 bytes in all, or
/// more with a point and digits. A month or day that no month has gives 1970-01-01, the 31st of a shorter month a day
/// of the next one, and what `Date` can't hold its nearest day.
pub(super) fn parse_day(text: &[u8]) -> Option<i32> {
    const WITH_TIME: usize = 19;
    if text.len() < 8 {
        return None;
    }
    let (year, rest) = number(text, 4, 4)?;
    let (month, day, rest) = if rest.first().is_some_and(u8::is_ascii_digit) {
        let (month, rest) = number(rest, 2, 2)?;
        let (day, rest) = number(rest, 2, 2)?;
        (month, day, rest)
    } else {
        let (month, rest) = number(rest.get(1..)?, 1, 2)?;
        let separated = rest.split_first().filter(|(separator, _)| !separator.is_ascii_digit())?.1;
        let (day, rest) = number(separated, 1, 2)?;
        (month, day, rest)
    };
    let whole = match rest.first() {
        None => true,
        Some(b' ' | b'T') => match text.get(WITH_TIME..)?.split_first() {
            None => true,
            Some((b'.', digits)) => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
            Some(_) => false,
        },
        Some(_) => false,
    };
    whole.then(|| day_of(year, month, day))
}

/// A number of `least` to `most` digits at the front, and what follows it.
fn number(text: &[u8], least: usize, most: usize) -> Option<(u32, &[u8])> {
    let digits = text.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = text.split_at_checked(digits.max(least))?;
    let value =
        number.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + u32::from(byte - b'0')))?;
    Some((value, rest))
}

/// Days since 1970 as ClickHouse makes a `Date` of three numbers.
fn day_of(year: u32, month: u32, day: u32) -> i32 {
    if year < 1970 || !(1..=31).contains(&day) {
        return 0;
    }
    let first = i32::try_from(year).ok().and_then(|year| NaiveDate::from_ymd_opt(year, month, 1));
    let Some(first) = first else { return 0 };
    let days = first.signed_duration_since(NaiveDate::default()).num_days() + i64::from(day) - 1;
    i32::from(u16::try_from(days).unwrap_or(u16::MAX))
}

/// A decimal as `toDecimal64OrNull` reads it, unscaled: further points are skipped, digits beyond the scale are cut off, more
/// than `18 - scale` before the point are out of range. Follows the steps of ClickHouse's `readDecimalText`.
pub(super) fn parse_decimal(text: &[u8], scale: u8) -> Option<i64> {
    const PRECISION: i64 = 18;
    let (sign, rest) = match text.split_first()? {
        (b'-', rest) => (-1i128, rest),
        (b'+', rest) => (1, rest),
        _ => (1, text),
    };
    let (mut value, mut digits, mut exponent, mut places) = (0i128, 0i64, 0i64, 0i64);
    let (mut leading_zeros, mut after_point) = (true, false);
    for (at, &byte) in rest.iter().enumerate() {
        match byte {
            b'.' => (after_point, leading_zeros) = (true, false),
            b'0' if leading_zeros => {}
            // Zeros behind the point count only when another digit follows.
            b'0' if after_point => places += 1,
            b'0'..=b'9' => {
                leading_zeros = false;
                places += 1;
                if digits + places > PRECISION {
                    if after_point {
                        continue;
                    }
                    return None;
                }
                digits += places;
                if after_point {
                    exponent -= places;
                }
                value = value * power(u8::try_from(places).ok()?) + i128::from(byte - b'0');
                places = 0;
            }
            b'e' | b'E' => {
                let stated = parse_integer(&rest[at + 1..])?;
                exponent = exponent.checked_add(i64::from(i32::try_from(stated).ok()?))?;
                break;
            }
            _ => return None,
        }
    }
    value *= sign;
    let scale = i64::from(scale);
    if digits + exponent > PRECISION - scale {
        return None;
    }
    let shift = scale + exponent;
    let value = match u8::try_from(shift.unsigned_abs()) {
        Ok(places) if shift >= 0 => value.checked_mul(power(places))?,
        Ok(places) if places < 18 => value / power(places),
        _ => 0,
    };
    i64::try_from(value).ok()
}

/// A day as a literal of `Date` or `Date32` is written, `2026-05-31`, in days since 1970.
pub fn parse_date(text: &str) -> Option<i32> {
    if text.len() != 10 {
        return None;
    }
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    i32::try_from(day.signed_duration_since(NaiveDate::default()).num_days()).ok()
}

/// An instant as a literal of `DateTime` or `DateTime64` is written, `2026-05-31[ 12:30:00[.123]]`, on the clock of `zone`; in
/// ticks of `scale` decimal places since 1970. `None` also where the clock skips or repeats that time, and where
/// there are more decimal places than the type has.
pub fn parse_ticks(text: &str, scale: u8, zone: &Zone) -> Option<i64> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, fraction),
        None => (text, ""),
    };
    let local = match whole.len() {
        10 if fraction.is_empty() && !text.contains('.') => {
            NaiveDateTime::new(NaiveDate::parse_from_str(whole, "%Y-%m-%d").ok()?, NaiveTime::MIN)
        }
        19 => NaiveDateTime::parse_from_str(whole, "%Y-%m-%d %H:%M:%S").ok()?,
        _ => return None,
    };
    if fraction.len() > usize::from(scale)
        || (text.contains('.') && fraction.is_empty())
        || !fraction.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let seconds = LocalTime::new(Some(zone))?.instant(local)?;
    let unit = 10i64.checked_pow(u32::from(scale))?;
    let missing = u32::from(scale).checked_sub(u32::try_from(fraction.len()).ok()?)?;
    let fraction: i64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    seconds.checked_mul(unit)?.checked_add(fraction.checked_mul(10i64.checked_pow(missing)?)?)
}
