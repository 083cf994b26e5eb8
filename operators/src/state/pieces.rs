//! The bytes of a stored value: one whole value, or none, and what was added to it since.
//!
//! ```text
//! value = piece*                        at least one
//! piece = 0x00 varint(length) bytes     the whole value; only as the first piece
//!       | 0x01 varint(epoch) varint(length) bytes      added in that epoch
//! ```
//! Varints are LEB128. RocksDB's merge appends pieces, so it needs no knowledge of what they mean; the
//! table's owner folds them when it reads. The epoch on an added piece lets a reader that still holds the frozen
//! changes of that epoch skip the copy that the commit may already have written, so nothing is added twice.

use rocksdb::MergeOperands;
use weir_schemas::time::Epoch;

const WHOLE: u8 = 0;
const ADDED: u8 = 1;

/// What is stored under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Well-formed pieces, at least one.
    pieces: Vec<u8>,
}

/// A value's bytes are not a sequence of pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Stored {
    /// The whole value that was put, if there was one.
    pub fn whole(&self) -> Option<&[u8]> {
        match read_piece(&self.pieces) {
            Some((Piece { added: None, bytes }, _)) => Some(bytes),
            _ => None,
        }
    }

    /// What was added since, oldest first.
    pub fn added(&self) -> impl Iterator<Item = &[u8]> {
        Pieces(&self.pieces).filter(|piece| piece.added.is_some()).map(|piece| piece.bytes)
    }

    /// How many pieces there are; an owner that finds many should put the folded value.
    pub fn len(&self) -> usize {
        Pieces(&self.pieces).count()
    }

    /// Never: a value has at least one piece.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Joins what RocksDB holds, without the pieces of `skip_from` and later, and newer pieces from memory.
    /// `None` when nothing is left.
    pub(crate) fn join(
        stored: Option<&[u8]>,
        skip_from: Option<Epoch>,
        newer: &[&[u8]],
    ) -> Result<Option<Stored>, Malformed> {
        let stored = stored.unwrap_or_default();
        let mut pieces = Vec::with_capacity(stored.len() + newer.iter().map(|bytes| bytes.len()).sum::<usize>());
        let mut rest = stored;
        while !rest.is_empty() {
            let (piece, after) = read_piece(rest).ok_or(Malformed)?;
            let skipped = skip_from.is_some_and(|from| piece.added.is_some_and(|epoch| epoch >= from));
            if !skipped {
                pieces.extend_from_slice(&rest[..rest.len() - after.len()]);
            }
            rest = after;
        }
        newer.iter().for_each(|bytes| pieces.extend_from_slice(bytes));
        Ok((!pieces.is_empty()).then_some(Stored { pieces }))
    }
}

/// One piece; `added` is its epoch, or `None` for a whole value.
struct Piece<'a> {
    added: Option<Epoch>,
    bytes: &'a [u8],
}

struct Pieces<'a>(&'a [u8]);

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let (piece, rest) = read_piece(self.0)?;
        self.0 = rest;
        Some(piece)
    }
}

fn read_piece(bytes: &[u8]) -> Option<(Piece<'_>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (added, rest) = match tag {
        WHOLE => (None, rest),
        ADDED => {
            let (epoch, rest) = read_varint(rest)?;
            (Some(Epoch(epoch)), rest)
        }
        _ => return None,
    };
    let (length, rest) = read_varint(rest)?;
    let (bytes, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((Piece { added, bytes }, rest))
}

/// Appends a whole value.
pub(crate) fn push_whole(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + 6);
    out.push(WHOLE);
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends what was added in `epoch`.
pub(crate) fn push_added(out: &mut Vec<u8>, epoch: Epoch, bytes: &[u8]) {
    out.reserve(bytes.len() + 10);
    out.push(ADDED);
    push_varint(out, epoch.0);
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends `value` as LEB128.
pub(crate) fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a LEB128 number of at most 64 bits; the second part is what follows it.
pub(crate) fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if at == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(at + 1..)?));
        }
    }
    None
}

/// RocksDB's merge: what is stored, then the operands in their order.
pub(crate) fn append(_key: &[u8], stored: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    let stored = stored.unwrap_or_default();
    let mut out = Vec::with_capacity(stored.len() + operands.iter().map(<[u8]>::len).sum::<usize>());
    out.extend_from_slice(stored);
    operands.iter().for_each(|pieces| out.extend_from_slice(pieces));
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_format_1() {
        let mut bytes = Vec::new();
        push_whole(&mut bytes, b"abc");
        push_added(&mut bytes, Epoch(300), b"d");
        assert_eq!(bytes, [0x00, 3, b'a', b'b', b'c', 0x01, 0xac, 0x02, 1, b'd']);
        let stored = Stored::join(Some(&bytes), None, &[]).unwrap().unwrap();
        assert_eq!(stored.whole(), Some(b"abc".as_slice()));
        assert_eq!(stored.added().collect::<Vec<_>>(), [b"d"]);
    }

    #[test]
    fn pieces_of_epochs_that_are_still_in_memory_are_read_once() {
        let (mut written, mut held) = (Vec::new(), Vec::new());
        push_whole(&mut written, b"");
        push_added(&mut written, Epoch(6), b"six");
        push_added(&mut written, Epoch(7), b"seven");
        push_added(&mut held, Epoch(7), b"seven");
        let stored = Stored::join(Some(&written), Some(Epoch(7)), &[&held]).unwrap().unwrap();
        assert_eq!(stored.added().collect::<Vec<_>>(), [b"six".as_slice(), b"seven"]);
    }

    #[test]
    fn no_cut_or_flipped_value_is_taken_for_a_well_formed_one_beyond_its_end() {
        let mut bytes = Vec::new();
        push_whole(&mut bytes, b"abc");
        push_added(&mut bytes, Epoch(300), &[7; 200]);
        for cut in 1..bytes.len() {
            let cut_at_a_piece = cut == 5;
            assert_eq!(Stored::join(Some(&bytes[..cut]), None, &[]).is_ok(), cut_at_a_piece, "cut at {cut}");
        }
        assert_eq!(Stored::join(Some(&[2, 0]), None, &[]), Err(Malformed));
        assert_eq!(
            Stored::join(Some(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]), None, &[]),
            Err(Malformed)
        );
    }

    #[test]
    fn varints_round_trip_at_their_edges() {
        for value in [0, 1, 127, 128, 16383, 16384, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            push_varint(&mut bytes, value);
            assert_eq!(read_varint(&bytes), Some((value, &[][..])));
        }
    }
}
