//! Messages for a topic as the outbox keeps them, in blocks.
//!
//! Payload, format 1: a byte 1, then message after message: version (`u64`), identity, key, value, headers; each of
//! the latter four as its length (`i32`, -1 for null) and its bytes, all little-endian. Headers are as
//! [`weir_schemas::headers`] writes them, without the two that every message gets when it is sent.
//!
//! The identity is the message's natural key as text. It travels in the header [`IDENTITY_HEADER`], the version in
//! [`VERSION_HEADER`], so that a sender can tell from the topic alone what is there already.

use weir_schemas::time::Version;

use crate::error::DeliveryError;
use crate::sink::OutRow;

/// The header that holds the natural key.
pub(crate) const IDENTITY_HEADER: &str = "weir_id";
/// The header that holds the version: (generation << 40) + epoch, in decimal.
pub(crate) const VERSION_HEADER: &str = "weir_version";

const FORMAT: u8 = 1;
/// A block ends with the message that reaches this size.
const BLOCK_BYTES: usize = 1 << 20;

/// One message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) version: u64,
    pub(crate) identity: Vec<u8>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<u8>,
}

/// Gathers messages into blocks for the outbox.
pub(crate) struct Blocks<'a> {
    version: Version,
    block: OutRow,
    out: &'a mut Vec<OutRow>,
}

impl<'a> Blocks<'a> {
    pub(crate) fn new(version: Version, out: &'a mut Vec<OutRow>) -> Blocks<'a> {
        Blocks { version, block: empty_block(), out }
    }

    /// Adds a message. The parts were Kafka messages or are small, so each is shorter than 2 GiB.
    pub(crate) fn push(&mut self, identity: &[u8], key: Option<&[u8]>, value: Option<&[u8]>, headers: &[u8]) {
        if self.block.rows == 0 {
            self.block.key = identity.to_vec();
        }
        let payload = &mut self.block.payload;
        payload.extend_from_slice(&self.version.0.to_le_bytes());
        for part in [Some(identity), key, value, Some(headers)] {
            match part {
                Some(bytes) => {
                    payload.extend_from_slice(&i32::try_from(bytes.len()).unwrap_or(i32::MAX).to_le_bytes());
                    payload.extend_from_slice(bytes);
                }
                None => payload.extend_from_slice(&(-1i32).to_le_bytes()),
            }
        }
        self.block.rows += 1;
        if payload.len() >= BLOCK_BYTES {
            self.out.push(std::mem::replace(&mut self.block, empty_block()));
        }
    }

    pub(crate) fn finish(self) {
        if self.block.rows > 0 {
            self.out.push(self.block);
        }
    }
}

fn empty_block() -> OutRow {
    OutRow { key: Vec::new(), payload: vec![FORMAT], rows: 0 }
}

/// The messages of `rows`, by version and, within one, by identity: the outbox keeps no order within an epoch, while
/// consumers rely on the steps of one alert coming in theirs.
pub(crate) fn messages(rows: &[OutRow]) -> Result<Vec<Message>, DeliveryError> {
    let mut messages = Vec::with_capacity(rows.iter().map(|row| row.rows as usize).sum());
    for row in rows {
        let mut rest = match row.payload.split_first() {
            Some((&FORMAT, rest)) => rest,
            _ => return Err(not_ours()),
        };
        while !rest.is_empty() {
            messages.push(read_message(&mut rest).ok_or_else(not_ours)?);
        }
    }
    messages.sort_by(|a, b| (a.version, &a.identity).cmp(&(b.version, &b.identity)));
    Ok(messages)
}

fn read_message(rest: &mut &[u8]) -> Option<Message> {
    let (version, behind) = rest.split_first_chunk::<8>()?;
    *rest = behind;
    Some(Message {
        version: u64::from_le_bytes(*version),
        identity: read_part(rest)??.to_vec(),
        key: read_part(rest)?.map(<[u8]>::to_vec),
        value: read_part(rest)?.map(<[u8]>::to_vec),
        headers: read_part(rest)??.to_vec(),
    })
}

/// The outer `None` says that the bytes end too early, the inner one is a null.
fn read_part<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (length, behind) = rest.split_first_chunk::<4>()?;
    *rest = behind;
    let Ok(length) = usize::try_from(i32::from_le_bytes(*length)) else {
        return Some(None);
    };
    let (part, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(Some(part))
}

fn not_ours() -> DeliveryError {
    DeliveryError::Fatal {
        why: "the outbox holds messages in a format that this version of Weir does not write".to_owned(),
        remedy: "run the version of Weir that wrote this state".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of the outbox are kept on disk across versions of Weir, hence golden.
    #[test]
    fn a_block_has_golden_bytes() {
        let mut out = Vec::new();
        let mut blocks = Blocks::new(Version(0x0102), &mut out);
        blocks.push(b"id", Some(b"k"), None, b"h\0\xff\xff\xff\xff");
        blocks.finish();
        let payload = b"\x01\x02\x01\0\0\0\0\0\0\x02\0\0\0id\x01\0\0\0k\xff\xff\xff\xff\x06\0\0\0h\0\xff\xff\xff\xff";
        assert_eq!(out, [OutRow { key: b"id".to_vec(), payload: payload.to_vec(), rows: 1 }]);
    }

    #[test]
    fn messages_come_back_in_order_of_version_and_identity() {
        let mut out = Vec::new();
        for (version, identities) in [(2, ["b", "a"]), (1, ["z", "c"])] {
            let mut blocks = Blocks::new(Version(version), &mut out);
            identities.iter().for_each(|identity| blocks.push(identity.as_bytes(), None, Some(b""), b""));
            blocks.finish();
        }
        let read = messages(&out).expect("own bytes");
        let order: Vec<_> = read.iter().map(|message| (message.version, message.identity.as_slice())).collect();
        assert_eq!(order, [(1, b"c".as_slice()), (1, b"z"), (2, b"a"), (2, b"b")]);
        assert!(read.iter().all(|message| message.value.as_deref() == Some(b"") && message.key.is_none()));
    }

    #[test]
    fn large_messages_leave_in_blocks_of_their_own() {
        let mut out = Vec::new();
        let mut blocks = Blocks::new(Version(1), &mut out);
        let value = vec![7; BLOCK_BYTES / 2 + 1];
        for identity in [b"a", b"b", b"c"] {
            blocks.push(identity, None, Some(&value), b"");
        }
        blocks.finish();
        assert_eq!(out.iter().map(|block| block.rows).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(messages(&out).expect("own bytes").len(), 3);
    }

    #[test]
    fn cut_and_unknown_bytes_are_refused() {
        let mut out = Vec::new();
        let mut blocks = Blocks::new(Version(1), &mut out);
        blocks.push(b"id", Some(b"key"), Some(b"value"), b"");
        blocks.finish();
        let whole = out.remove(0);
        for length in (0..whole.payload.len()).filter(|length| *length != 1) {
            let cut = OutRow { payload: whole.payload[..length].to_vec(), ..whole.clone() };
            assert!(messages(&[cut]).is_err(), "cut at {length}");
        }
        let other = OutRow { payload: vec![9], ..whole };
        assert!(messages(&[other]).is_err());
    }
}
