//! Counts by slot, of which most are zero.
//!
//! A cell of a few events touches a tenth of the slots of its layout, and a window has tens of thousands of cells: so only
//! what was counted is kept, in the order of the slots, and adding up is one walk over two sorted lists.

use std::cmp::Ordering;

use super::cell::{WRONG, read_varint, varint};
use crate::state::CodecError;

/// Slots that stored counts may name, at most: columns are bounded by the reader schema.
const MOST_SLOTS: usize = 1 << 20;
/// Slots that are looked at together, since most are zero.
const TOGETHER: usize = 8;

/// Slots with their counts, in the order of the slots; none is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums(Vec<(u32, u32)>);

impl Sums {
    /// What stands in `counts`, by slot.
    pub fn of(counts: &[u32]) -> Sums {
        let mut sums = Vec::new();
        for (first, some) in (0_u32..).step_by(TOGETHER).zip(counts.chunks(TOGETHER)) {
            if some.iter().fold(0, |any, count| any | count) != 0 {
                sums.extend((first..).zip(some.iter().copied()).filter(|(_, count)| *count != 0));
            }
        }
        Sums(sums)
    }

    /// The count of a slot.
    pub fn get(&self, slot: usize) -> u32 {
        let found = u32::try_from(slot).ok().and_then(|slot| self.0.binary_search_by_key(&slot, |(at, _)| *at).ok());
        found.and_then(|at| self.0.get(at)).map_or(0, |(_, count)| *count)
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: Sums) {
        if self.0.is_empty() {
            *self = other;
        } else if !self.add_known(&other) {
            let mine = std::mem::take(&mut self.0);
            self.0 = interleave(mine, other.0);
        }
    }

    /// Adds `other` if it has no slot that isn't here; otherwise nothing is added, and it says so.
    fn add_known(&mut self, other: &Sums) -> bool {
        let mut at = 0;
        let mut find = |sums: &[(u32, u32)], slot: u32| {
            at += sums.get(at..)?.iter().take_while(|(mine, _)| *mine < slot).count();
            sums.get(at).filter(|(mine, _)| *mine == slot).map(|_| at)
        };
        if !other.0.iter().all(|(slot, _)| find(&self.0, *slot).is_some()) {
            return false;
        }
        let mut mine = self.0.iter_mut();
        for (slot, count) in &other.0 {
            if let Some((_, sum)) = mine.find(|(at, _)| at == slot) {
                *sum = sum.saturating_add(*count);
            }
        }
        true
    }

    /// A gap and a count for each, as variable-length integers.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        write_sparse(self.0.iter().map(|(slot, count)| (*slot as usize, u64::from(*count))), out);
    }

    pub(super) fn decode(bytes: &mut &[u8]) -> Result<Sums, CodecError> {
        let mut sums = Vec::new();
        read_sparse(bytes, |slot, count| {
            let count = u32::try_from(count).ok().filter(|count| *count != 0).ok_or(WRONG)?;
            if slot >= MOST_SLOTS {
                return Err(WRONG);
            }
            sums.push((slot as u32, count));
            Ok(())
        })?;
        Ok(Sums(sums))
    }
}

fn interleave(mine: Vec<(u32, u32)>, theirs: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    let mut all = Vec::with_capacity(mine.len() + theirs.len());
    let (mut mine, mut theirs) = (mine.into_iter().peekable(), theirs.into_iter().peekable());
    while let (Some(a), Some(b)) = (mine.peek(), theirs.peek()) {
        match a.0.cmp(&b.0) {
            Ordering::Less => all.extend(mine.next()),
            Ordering::Greater => all.extend(theirs.next()),
            Ordering::Equal => {
                all.push((a.0, a.1.saturating_add(b.1)));
                mine.next();
                theirs.next();
            }
        }
    }
    all.extend(mine);
    all.extend(theirs);
    all
}

/// Writes places that rise, and a value for each.
pub(super) fn write_sparse(values: impl Iterator<Item = (usize, u64)>, out: &mut Vec<u8>) {
    let mut next = 0;
    for (at, value) in values {
        // One more than the gap, so that 0 can end the list.
        varint((at - next + 1) as u64, out);
        varint(value, out);
        next = at + 1;
    }
    out.push(0);
}

pub(super) fn read_sparse(
    bytes: &mut &[u8],
    mut each: impl FnMut(usize, u64) -> Result<(), CodecError>,
) -> Result<(), CodecError> {
    let mut next = 0_usize;
    loop {
        let gap = usize::try_from(read_varint(bytes)?).map_err(|_| WRONG)?;
        if gap == 0 {
            return Ok(());
        }
        let at = next.checked_add(gap - 1).ok_or(WRONG)?;
        each(at, read_varint(bytes)?)?;
        next = at.checked_add(1).ok_or(WRONG)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_dense_counts() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..2_000 {
            let few = random.usize(1..40);
            let mut dense = vec![0_u32; 64];
            let mut sums = Sums::default();
            for _ in 0..random.usize(1..6) {
                let mut counts = vec![0_u32; random.usize(0..=64)];
                let slots = counts.len();
                (0..few).take_while(|_| slots > 0).for_each(|_| counts[random.usize(0..slots)] += random.u32(0..9));
                dense.iter_mut().zip(&counts).for_each(|(sum, count)| *sum += count);
                sums.merge(Sums::of(&counts));
            }
            assert_eq!(sums, Sums::of(&dense));
            assert!((0..64).all(|slot| sums.get(slot) == dense[slot]));
            let mut bytes = Vec::new();
            sums.encode(&mut bytes);
            assert_eq!(Sums::decode(&mut &bytes[..]), Ok(sums));
        }
    }
}
