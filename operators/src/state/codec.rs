//! How typed keys and values become bytes and back.
//!
//! Encodings keep order: of two keys of one type the lesser has the lesser bytes, so a scan sees them in the
//! order of the type. Integers are big-endian with the sign flipped; byte strings end in `00 00` and escape a
//! `00` within as `00 ff`; an option has a leading 0 or 1; tuples are their parts one after another.
//! Golden bytes stand in the tests; they are the format on disk.

use std::sync::Arc;

use weir_schemas::time::{Epoch, EventTime};

/// Bytes that the type did not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored bytes are not a {0}")]
pub struct CodecError(pub &'static str);

/// A type with an encoding that keeps its order and knows its own end.
pub trait Codec: Sized {
    /// Appends the encoding.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads a value off the front of `bytes` and moves it past. Never allocates more than `bytes.len()`.
    fn decode(bytes: &mut &[u8]) -> Result<Self, CodecError>;

    /// Reads a value that takes all of `bytes`.
    fn decode_all(mut bytes: &[u8]) -> Result<Self, CodecError> {
        let value = Self::decode(&mut bytes)?;
        if bytes.is_empty() { Ok(value) } else { Err(CodecError("value of this length")) }
    }
}

fn take<const N: usize>(bytes: &mut &[u8], name: &'static str) -> Result<[u8; N], CodecError> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(CodecError(name))?;
    *bytes = rest;
    Ok(*head)
}

macro_rules! unsigned {
    ($($type:ty),*) => {$(
        impl Codec for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
            fn decode(bytes: &mut &[u8]) -> Result<Self, CodecError> {
                Ok(<$type>::from_be_bytes(take(bytes, stringify!($type))?))
            }
        }
    )*};
}
unsigned!(u8, u16, u32, u64, u128);

macro_rules! signed {
    ($($type:ty as $unsigned:ty),*) => {$(
        impl Codec for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                // With the sign flipped, negative numbers come first.
                ((*self as $unsigned) ^ (1 << (<$type>::BITS - 1))).encode(out);
            }
            fn decode(bytes: &mut &[u8]) -> Result<Self, CodecError> {
                let flipped = <$unsigned>::from_be_bytes(take(bytes, stringify!($type))?);
                Ok((flipped ^ (1 << (<$type>::BITS - 1))) as $type)
            }
        }
    )*};
}
signed!(i8 as u8, i16 as u16, i32 as u32, i64 as u64, i128 as u128);

impl Codec for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        match take::<1>(bytes, "bool")? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(CodecError("bool")),
        }
    }
}

impl Codec for () {
    fn encode(&self, _: &mut Vec<u8>) {}

    fn decode(_: &mut &[u8]) -> Result<Self, CodecError> {
        Ok(())
    }
}

impl Codec for Vec<u8> {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_bytes(self, out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        let mut value = Vec::new();
        loop {
            let zero = bytes.iter().position(|byte| *byte == 0).ok_or(CodecError("byte string"))?;
            value.extend_from_slice(bytes.get(..zero).unwrap_or_default());
            *bytes = bytes.get(zero + 1..).unwrap_or_default();
            match take::<1>(bytes, "byte string")? {
                [0] => return Ok(value),
                [0xff] => value.push(0),
                _ => return Err(CodecError("byte string")),
            }
        }
    }
}

/// Appends the encoding of a byte string.
pub(crate) fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    for (at, part) in bytes.split(|byte| *byte == 0).enumerate() {
        if at > 0 {
            out.extend_from_slice(&[0, 0xff]);
        }
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&[0, 0]);
}

impl Codec for Arc<[u8]> {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_bytes(self, out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        Vec::<u8>::decode(bytes).map(Arc::from)
    }
}

impl Codec for String {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_bytes(self.as_bytes(), out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        String::from_utf8(Vec::decode(bytes)?).map_err(|_| CodecError("string"))
    }
}

impl<T: Codec> Codec for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(value) = self {
            value.encode(out);
        }
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        Ok(if bool::decode(bytes)? { Some(T::decode(bytes)?) } else { None })
    }
}

impl Codec for EventTime {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        i64::decode(bytes).map(EventTime)
    }
}

impl Codec for Epoch {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        u64::decode(bytes).map(Epoch)
    }
}

macro_rules! tuple {
    ($($name:ident . $at:tt),*) => {
        impl<$($name: Codec),*> Codec for ($($name,)*) {
            fn encode(&self, out: &mut Vec<u8>) {
                $(self.$at.encode(out);)*
            }
            fn decode(bytes: &mut &[u8]) -> Result<Self, CodecError> {
                Ok(($($name::decode(bytes)?,)*))
            }
        }
    };
}
tuple!(A.0, B.1);
tuple!(A.0, B.1, C.2);
tuple!(A.0, B.1, C.2, D.3);
tuple!(A.0, B.1, C.2, D.3, E.4);

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(value: &impl Codec) -> Vec<u8> {
        let mut out = Vec::new();
        value.encode(&mut out);
        out
    }

    #[test]
    fn golden_bytes_of_format_1() {
        assert_eq!(bytes_of(&0x0102_0304u32), [1, 2, 3, 4]);
        assert_eq!(bytes_of(&-1i16), [0x7f, 0xff]);
        assert_eq!(bytes_of(&EventTime(1)), [0x80, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(bytes_of(&vec![1u8, 0, 2]), [1, 0, 0xff, 2, 0, 0]);
        assert_eq!(bytes_of(&Some(true)), [1, 1]);
        assert_eq!(bytes_of(&("a".to_owned(), 7u8)), [b'a', 0, 0, 7]);
    }

    #[test]
    fn keys_keep_their_order_and_come_back() {
        let mut keys = Vec::new();
        for text in [&b""[..], b"\0", b"\0\0", b"\0\x01", b"\x01", b"a", b"a\0", b"ab", b"\xff", b"\xff\xff"] {
            for number in [i64::MIN, -256, -1, 0, 1, 255, i64::MAX] {
                for some in [None, Some(0u8), Some(255)] {
                    keys.push((text.to_vec(), number, some));
                }
            }
        }
        keys.sort();
        let encoded: Vec<_> = keys.iter().map(bytes_of).collect();
        assert!(encoded.is_sorted_by(|a, b| a < b));
        for (key, bytes) in keys.iter().zip(&encoded) {
            assert_eq!(<(Vec<u8>, i64, Option<u8>)>::decode_all(bytes).as_ref(), Ok(key));
        }
    }

    #[test]
    fn cut_bytes_are_refused() {
        let bytes = bytes_of(&(vec![1u8, 0, 2], 7i64, Some(9u8)));
        for cut in 0..bytes.len() {
            assert!(<(Vec<u8>, i64, Option<u8>)>::decode_all(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(bool::decode_all(&[2]).is_err() && u8::decode_all(&[1, 2]).is_err());
    }
}
