//! Literals as ClickHouse reads them: the narrowest integer type, escapes in strings.

use std::sync::Arc;

use weir_operators::expr::{Expr, Scalar};
use weir_schemas::types::{ColumnType, Width};

/// A number: the narrowest unsigned type, the narrowest signed one after a minus; beyond 64 bits, or with a point or an exponent,
/// `Float64`.
pub(super) fn number(text: &str, negative: bool) -> Result<Expr, &'static str> {
    if text.contains('_') {
        return Err("write the number without underscores");
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        if let Ok(value) = text.parse::<u64>() {
            if !negative {
                return Ok(unsigned(value));
            }
            if let Ok(value) = i64::try_from(-i128::from(value)) {
                return Ok(signed(value));
            }
        }
    } else if text.starts_with("0x") || text.starts_with("0b") {
        return Err("write the number with decimal digits");
    }
    match text.parse::<f64>() {
        Ok(value) => {
            let value = if negative { -value } else { value };
            Ok(Expr::Literal { value: Scalar::Float(value), column_type: ColumnType::Float64 })
        }
        Err(_) => Err("write the number with decimal digits"),
    }
}

fn unsigned(value: u64) -> Expr {
    let width = match value {
        0..=0xff => Width::W8,
        0x100..=0xffff => Width::W16,
        0x1_0000..=0xffff_ffff => Width::W32,
        _ => Width::W64,
    };
    Expr::Literal { value: Scalar::UInt(value), column_type: ColumnType::UInt(width) }
}

fn signed(value: i64) -> Expr {
    let width = match value {
        -0x80..=0x7f => Width::W8,
        -0x8000..=0x7fff => Width::W16,
        -0x8000_0000..=0x7fff_ffff => Width::W32,
        _ => Width::W64,
    };
    // -0 is UInt8 in ClickHouse.
    if value == 0 {
        return unsigned(0);
    }
    Expr::Literal { value: Scalar::Int(value), column_type: ColumnType::Int(width) }
}

/// A string, from the text between its quotes.
pub(super) fn string(raw: &str) -> Result<Expr, &'static str> {
    let bytes = unescape(raw)?;
    Ok(Expr::Literal { value: Scalar::Bytes(Arc::from(bytes)), column_type: ColumnType::String })
}

/// ClickHouse's escapes: the letters below, `\xHH`, `''`; a backslash before anything else stays.
pub(super) fn unescape(raw: &str) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\'' => {
                // Within the quotes a quote stands twice.
                bytes.next();
                out.push(b'\'');
            }
            b'\\' => match bytes.next() {
                Some(b'a') => out.push(0x07),
                Some(b'b') => out.push(0x08),
                Some(b'e') => out.push(0x1b),
                Some(b'f') => out.push(0x0c),
                Some(b'n') => out.push(b'\n'),
                Some(b'r') => out.push(b'\r'),
                Some(b't') => out.push(b'\t'),
                Some(b'v') => out.push(0x0b),
                Some(b'0') => out.push(0),
                Some(b'N') => return Err("leave out \\N, which stands for nothing"),
                Some(b'x') => {
                    let digits = [bytes.next(), bytes.next()];
                    let value = digits.iter().try_fold(0u8, |value, digit| {
                        let digit = (*digit)? as char;
                        Some(value << 4 | u8::try_from(digit.to_digit(16)?).ok()?)
                    });
                    out.push(value.ok_or("write two hexadecimal digits after \\x")?);
                }
                Some(plain @ (b'\\' | b'\'' | b'"' | b'`' | b'/')) => out.push(plain),
                Some(other) if other < 0x20 => out.push(other),
                Some(other) => out.extend_from_slice(&[b'\\', other]),
                None => out.push(b'\\'),
            },
            other => out.push(other),
        }
    }
    Ok(out)
}
