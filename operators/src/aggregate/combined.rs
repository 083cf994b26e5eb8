//! `uniqCombined64` of one argument at the default precision 17.
//!
//! A set of 64-bit hashes that becomes estimating ranks when it would exceed [`HASHES_MAX`]. In a state, a byte tells
//! the container: 1 for up to 16 hashes, 2 for more (both a `VarUInt` and the hashes), 3 for ranks. Numbers and
//! dates are hashed as integers, a `UUID` as the exclusive or of its halves, strings, decimals and `DateTime64` by
//! CityHash64 of their bytes.
//!
//! As in ClickHouse, a full set becomes ranks at the next row even when that row's hash is in it: the value of a
//! group of exactly [`HASHES_MAX`] distinct hashes is exact only if no row followed.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, UInt64Array};
use weir_schemas::types::ColumnType;

use super::bytes::{Bytes, put_varint};
use super::distinct::{Distinct, put_sorted, take_elements};
use super::hash;
use super::lane::{Lane, Uuid, bits, each_bytes};
use super::ranks::{Ranks, STATE_BYTES};
use super::rows::{Rows, argument};
use super::{Accumulator, Delta};
use crate::error::Error;

const NAME: &str = "uniqCombined64";

const SMALL: u8 = 1;
const MEDIUM: u8 = 2;
const LARGE: u8 = 3;

/// The hashes of the small container.
const SMALL_MAX: usize = 16;

/// The hashes of the medium container.
const HASHES_MAX: usize = 4096;

/// What one group has seen.
enum Seen {
    /// Every hash.
    Hashes(Distinct<u64>),
    /// An estimate.
    Ranks {
        ranks: Box<Ranks>,
        /// The hashes that raised a rank since the last delta; of no use once there are more than `HASHES_MAX`.
        raising: Vec<u64>,
        /// The next delta has to be the whole state.
        whole: bool,
    },
}

impl Default for Seen {
    fn default() -> Self {
        Seen::Hashes(Distinct::default())
    }
}

impl Seen {
    #[inline]
    fn insert(&mut self, hash: u64) {
        match self {
            Seen::Hashes(hashes) if hashes.len() < HASHES_MAX => hashes.insert(hash),
            Seen::Hashes(_) => {
                self.estimate();
                self.insert(hash);
            }
            Seen::Ranks { ranks, raising, whole } => {
                if ranks.insert(hash) && !*whole {
                    raising.push(hash);
                    if raising.len() > HASHES_MAX {
                        *whole = true;
                        *raising = Vec::new();
                    }
                }
            }
        }
    }

    /// Turns a set into ranks.
    #[cold]
    fn estimate(&mut self) {
        if let Seen::Hashes(hashes) = self {
            let mut ranks = Box::new(Ranks::new());
            for hash in hashes.elements() {
                ranks.insert(hash);
            }
            *self = Seen::Ranks { ranks, raising: Vec::new(), whole: true };
        }
    }

    fn value(&self) -> u64 {
        match self {
            Seen::Hashes(hashes) => hashes.len() as u64,
            Seen::Ranks { ranks, .. } => ranks.estimate(),
        }
    }
}

fn put_hashes(hashes: Vec<u64>, out: &mut Vec<u8>) {
    out.push(if hashes.len() <= SMALL_MAX { SMALL } else { MEDIUM });
    put_varint(hashes.len() as u64, out);
    put_sorted(hashes, out);
}

/// The estimates of every slot.
pub(super) struct Combined {
    argument: ColumnType,
    seen: Vec<Seen>,
}

impl Combined {
    /// Estimates for arguments of a type.
    pub(super) fn new(argument: ColumnType) -> Self {
        Combined { argument, seen: Vec::new() }
    }
}

impl Accumulator for Combined {
    fn grow(&mut self, slots: usize) {
        if slots > self.seen.len() {
            self.seen.resize_with(slots, Seen::default);
        }
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<(), Error> {
        let array = argument(arguments, &self.argument.arrow(), slots, filter)?;
        let rows = Rows::new(slots, array.nulls(), filter);
        let seen = &mut self.seen;
        if let Some(bits) = bits(array, &self.argument) {
            rows.each(|row, slot| seen[slot].insert(hash::int64(bits[row])));
        } else if self.argument == ColumnType::Uuid {
            let values = Uuid::values(array);
            rows.each(|row, slot| {
                let uuid = values[row].0;
                seen[slot].insert(hash::int64(uuid as u64 ^ (uuid >> 64) as u64));
            });
        } else {
            each_bytes(array, &self.argument, &rows, |slot, bytes| seen[slot].insert(hash::city64(bytes)));
        }
        Ok(())
    }

    fn merge(&mut self, slot: u32, state: &[u8]) -> Result<(), Error> {
        let mut bytes = Bytes::new(NAME, state);
        let seen = &mut self.seen[slot as usize];
        match bytes.byte()? {
            container @ (SMALL | MEDIUM) => {
                let count = bytes.varint()?;
                let most = if container == SMALL { SMALL_MAX } else { HASHES_MAX };
                if count > most as u64 {
                    return Err(bytes.wrong(format!("{count} hashes in a container of {most}")));
                }
                for hash in take_elements::<u64>(bytes, count)? {
                    seen.insert(hash?);
                }
            }
            LARGE => {
                let other = Ranks::read(&mut bytes)?;
                bytes.end()?;
                seen.estimate();
                if let Seen::Ranks { ranks, raising, whole } = seen {
                    ranks.merge(&other);
                    *whole = true;
                    *raising = Vec::new();
                }
            }
            other => return Err(bytes.wrong(format!("there is no container {other}"))),
        }
        Ok(())
    }

    fn write_state(&self, slot: u32, out: &mut Vec<u8>) {
        match &self.seen[slot as usize] {
            Seen::Hashes(hashes) => put_hashes(hashes.elements().collect(), out),
            Seen::Ranks { ranks, .. } => {
                out.reserve(1 + STATE_BYTES);
                out.push(LARGE);
                ranks.write(out);
            }
        }
    }

    fn take_delta(&mut self, slot: u32, out: &mut Vec<u8>) -> Delta {
        // A delta of hashes is merged with the stored state in the same container, so both change it alike.
        let delta = match &self.seen[slot as usize] {
            Seen::Hashes(hashes) if hashes.settled() > SMALL_MAX => {
                put_hashes(hashes.added(), out);
                Delta::Added
            }
            Seen::Ranks { raising, whole: false, .. } => {
                put_hashes(raising.clone(), out);
                Delta::Added
            }
            _ => {
                self.write_state(slot, out);
                Delta::Whole
            }
        };
        self.settle(slot);
        delta
    }

    fn settle(&mut self, slot: u32) {
        match &mut self.seen[slot as usize] {
            Seen::Hashes(hashes) => hashes.settle(),
            Seen::Ranks { raising, whole, .. } => {
                raising.clear();
                *whole = false;
            }
        }
    }

    fn finish(&self, slots: &[u32]) -> Result<ArrayRef, Error> {
        let values = slots.iter().map(|slot| self.seen[*slot as usize].value());
        Ok(Arc::new(UInt64Array::from_iter_values(values)))
    }

    fn clear(&mut self, slot: u32) {
        match &mut self.seen[slot as usize] {
            Seen::Hashes(hashes) => hashes.clear(),
            ranks => *ranks = Seen::default(),
        }
    }

    fn heap_bytes(&self, slot: u32) -> usize {
        match &self.seen[slot as usize] {
            Seen::Hashes(hashes) => hashes.heap_bytes(),
            Seen::Ranks { ranks, raising, .. } => ranks.heap_bytes() + raising.capacity() * size_of::<u64>(),
        }
    }
}
