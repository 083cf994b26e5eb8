//! Confluent's frame around a datum: a zero byte, the writer schema's id as a big-endian u32, the datum.
//!
//! Not here: frames that carry the id in a Kafka header, and Protobuf's message indexes.

use crate::fate::Reason;

/// Bytes before the datum.
pub const FRAME_BYTES: usize = 5;

/// A record's value, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The writer schema's id in the registry.
    pub schema_id: u32,
    /// The Avro binary.
    pub datum: &'a [u8],
}

/// Takes a record's value apart.
///
/// # Errors
/// [`Reason::NotFramed`] and a detail, when it is shorter than a frame or doesn't begin with 0.
pub fn frame(value: &[u8]) -> Result<Frame<'_>, (Reason, String)> {
    match value.split_first_chunk::<FRAME_BYTES>() {
        Some(([0, id @ ..], datum)) => Ok(Frame { schema_id: u32::from_be_bytes(*id), datum }),
        Some(([magic, ..], _)) => {
            Err((Reason::NotFramed, format!("the first byte is {magic}, not the 0 of Confluent's frame")))
        }
        None => Err((
            Reason::NotFramed,
            format!("{} bytes are less than the {FRAME_BYTES} of Confluent's frame", value.len()),
        )),
    }
}

/// Appends the head of a frame; the datum comes behind it.
pub fn put_frame(schema_id: u32, into: &mut Vec<u8>) {
    into.push(0);
    into.extend(schema_id.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_taken_apart_and_what_is_none_is_refused() {
        let mut bytes = Vec::new();
        put_frame(0x0102_0304, &mut bytes);
        assert_eq!(frame(&bytes), Ok(Frame { schema_id: 0x0102_0304, datum: &[] }));
        bytes.push(9);
        assert_eq!(frame(&bytes).map(|frame| frame.datum), Ok(&[9u8][..]));
        for short in 0..FRAME_BYTES {
            assert_eq!(frame(&bytes[..short]).map_err(|(reason, _)| reason), Err(Reason::NotFramed));
        }
        bytes[0] = 1;
        assert_eq!(frame(&bytes).map_err(|(reason, _)| reason), Err(Reason::NotFramed));
    }
}
