//! The bytes under which a group is kept.
//!
//! ```text
//! piece   = revision (u32 LE) | flags (u8) | part per measure
//! part    = 0x00                                     nothing new
//!         | 0x01 length (u32 LE) state               the whole state: what came before does not count
//!         | 0x02 length (u32 LE) state               to be merged with what came before
//! ```
//! The table of bytes keeps a whole piece, then pieces that were added; revision and flags of the last one count.

use crate::aggregate::{Accumulator, Delta};
use crate::error::Error;
use crate::state::Stored;

/// A row of the group stands in the table (only known for views with HAVING).
pub(super) const OUT: u8 = 1;
/// What the group's row holds is older than the group: it was held back.
pub(super) const HELD_BACK: u8 = 2;

const NOTHING: u8 = 0;
const WHOLE: u8 = 1;
const ADDED: u8 = 2;
const HEADER_BYTES: usize = 5;

/// Revision and flags of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) revision: u32,
    pub(super) flags: u8,
}

impl Header {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.revision.to_le_bytes());
        out.push(self.flags);
    }

    /// The header of the newest piece.
    pub(super) fn of(stored: &Stored) -> Result<Header, Error> {
        let newest = stored.added().last().or(stored.whole());
        newest.and_then(read_header).map(|(header, _)| header).ok_or_else(corrupt)
    }
}

/// Appends a part that says nothing new.
pub(super) fn write_nothing(out: &mut Vec<u8>) {
    out.push(NOTHING);
}

/// Appends a part whose bytes `write` appends and classifies.
pub(super) fn write_part(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Delta) -> Result<Delta, Error> {
    let at = out.len();
    out.extend_from_slice(&[0; 5]);
    let delta = write(out);
    let length = u32::try_from(out.len() - at - 5).map_err(|_| Error::AggregateState {
        function: "a group's state".to_owned(),
        detail: "it takes more than 4 GiB; the view needs smaller groups".to_owned(),
    })?;
    let kind = match delta {
        Delta::Whole => WHOLE,
        Delta::Added => ADDED,
    };
    let [a, b, c, d] = length.to_le_bytes();
    out[at..at + 5].copy_from_slice(&[kind, a, b, c, d]);
    Ok(delta)
}

/// Puts what is stored of a group into the cleared `slot` of `states`; the header of the newest piece comes back.
pub(super) fn load(stored: &Stored, slot: u32, states: &mut [Box<dyn Accumulator>]) -> Result<Header, Error> {
    let mut header = Header::default();
    for piece in stored.whole().into_iter().chain(stored.added()) {
        let (newer, mut rest) = read_header(piece).ok_or_else(corrupt)?;
        header = newer;
        for state in states.iter_mut() {
            let (kind, bytes, after) = read_part(rest).ok_or_else(corrupt)?;
            rest = after;
            if kind == WHOLE {
                state.clear(slot);
            }
            if kind != NOTHING {
                state.merge(slot, bytes)?;
            }
        }
        if !rest.is_empty() {
            return Err(corrupt());
        }
    }
    Ok(header)
}

fn read_header(piece: &[u8]) -> Option<(Header, &[u8])> {
    let (head, rest) = piece.split_first_chunk::<HEADER_BYTES>()?;
    let [a, b, c, d, flags] = *head;
    Some((Header { revision: u32::from_le_bytes([a, b, c, d]), flags }, rest))
}

fn read_part(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&kind, rest) = bytes.split_first()?;
    match kind {
        NOTHING => Some((kind, &[], rest)),
        WHOLE | ADDED => {
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let (state, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            Some((kind, state, rest))
        }
        _ => None,
    }
}

fn corrupt() -> Error {
    Error::State {
        operator: "maintain".to_owned(),
        detail: "a stored group is corrupt: restore the state folder or start again from the log".to_owned(),
    }
}
