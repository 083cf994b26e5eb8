//! A record's Kafka headers as one run of bytes, so that a refused record keeps them whole in one column.
//!
//! Format: for each header its name, a zero byte, the value's length as a little-endian `i32` (-1 for a
//! null value), the value. The order and repetitions are kept. Kafka allows a zero byte inside a name; what
//! stands behind it in the name is dropped by [`push`], since librdkafka cannot hand it over either.

/// Appends one header to `bytes`.
pub fn push(bytes: &mut Vec<u8>, name: &[u8], value: Option<&[u8]>) {
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    bytes.extend_from_slice(name);
    bytes.push(0);
    match value.map(|value| (i32::try_from(value.len()), value)) {
        Some((Ok(length), value)) => {
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(value);
        }
        // A value of 2 GiB and more cannot be in a Kafka record.
        Some((Err(_), _)) | None => bytes.extend_from_slice(&(-1i32).to_le_bytes()),
    }
}

/// The headers in `bytes`, in order. Ends early where the bytes are not what [`push`] writes.
pub fn iter(bytes: &[u8]) -> Headers<'_> {
    Headers { rest: bytes }
}

/// The iterator of [`iter`]: names and values.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let end = self.rest.iter().position(|byte| *byte == 0)?;
        let (name, rest) = self.rest.split_at_checked(end)?;
        let (length, rest) = rest.get(1..)?.split_first_chunk::<4>()?;
        let length = i32::from_le_bytes(*length);
        let (value, rest) = match usize::try_from(length) {
            Ok(length) => {
                let (value, rest) = rest.split_at_checked(length)?;
                (Some(value), rest)
            }
            Err(_) => (None, rest),
        };
        self.rest = rest;
        Some((name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_order_repetition_and_null() {
        let mut bytes = Vec::new();
        push(&mut bytes, b"sdk", Some(b"web"));
        push(&mut bytes, b"sdk", Some(b"\0\xff"));
        push(&mut bytes, b"", None);
        assert_eq!(bytes, b"sdk\0\x03\0\0\0websdk\0\x02\0\0\0\0\xff\0\xff\xff\xff\xff");
        let read: Vec<_> = iter(&bytes).collect();
        assert_eq!(
            read,
            [
                (b"sdk".as_slice(), Some(b"web".as_slice())),
                (b"sdk".as_slice(), Some(b"\0\xff".as_slice())),
                (b"".as_slice(), None),
            ]
        );
    }

    #[test]
    fn cut_bytes_end_the_iteration() {
        let mut bytes = Vec::new();
        push(&mut bytes, b"name", Some(b"value"));
        for length in 0..bytes.len() {
            assert_eq!(iter(&bytes[..length]).count(), 0, "cut at {length}");
        }
    }
}
