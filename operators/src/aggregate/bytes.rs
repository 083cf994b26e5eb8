//! Reading and writing the pieces that ClickHouse's states are made of.
//!
//! Invariant: a reader never passes the end of the state and never believes a length before it has compared it
//! with the bytes that are left, so that wrong bytes end in an error and not in an allocation.

use crate::error::Error;

/// A state that is being read.
pub(super) struct Bytes<'a> {
    rest: &'a [u8],
    function: &'static str,
}

impl<'a> Bytes<'a> {
    /// Reads `state`, naming `function` in errors.
    pub(super) fn new(function: &'static str, state: &'a [u8]) -> Self {
        Bytes { rest: state, function }
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.wrong(format!("{count} bytes expected where only {} are left", self.rest.len()))),
        }
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// One byte.
    pub(super) fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    /// A flag, which is 0 or 1.
    pub(super) fn flag(&mut self) -> Result<bool, Error> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.wrong(format!("a flag is 0 or 1, not {other}"))),
        }
    }

    /// A `VarUInt`: seven bits to a byte, the lowest first.
    pub(super) fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.wrong("a variable-length integer has more than 64 bits".into()))
    }

    /// A `VarInt`: a `VarUInt` whose lowest bit is the sign.
    pub(super) fn zigzag(&mut self) -> Result<i64, Error> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// A `Float64`.
    pub(super) fn float(&mut self) -> Result<f64, Error> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    /// Says that the state ends here.
    pub(super) fn end(self) -> Result<(), Error> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(self.wrong(format!("{left} bytes left after its end"))),
        }
    }

    /// The error for these bytes.
    pub(super) fn wrong(&self, detail: String) -> Error {
        Error::AggregateState { function: self.function.into(), detail }
    }
}

/// Appends a `VarUInt`.
pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a `VarInt`.
pub(super) fn put_zigzag(value: i64, out: &mut Vec<u8>) {
    put_varint(((value << 1) ^ (value >> 63)).cast_unsigned(), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_variable_length_return() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put_varint(value, &mut out);
            let mut bytes = Bytes::new("count", &out);
            assert_eq!(bytes.varint().unwrap(), value);
            bytes.end().unwrap();
        }
        for value in [0, -1, 1, 63, -64, i64::from(i32::MAX), i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            put_zigzag(value, &mut out);
            assert_eq!(Bytes::new("count", &out).zigzag().unwrap(), value);
        }
    }

    #[test]
    fn wrong_integers_are_refused() {
        for state in [&[][..], &[0x80], &[0xff; 10], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]] {
            assert!(Bytes::new("count", state).varint().is_err(), "{state:?}");
        }
    }
}
