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
    pub fn of<Count: Copy + Into<u64>>(counts: &[Count]) -> Sums {
        Sums(counted(counts).map(|(slot, count)| (slot as u32, u32::try_from(count).unwrap_or(u32::MAX))).collect())
    }

    /// Whether nothing was counted.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The count of a slot.
    pub fn get(&self, slot: usize) -> u32 {
        let found = u32::try_from(slot).ok().and_then(|slot| self.0.binary_search_by_key(&slot, |(at, _)| *at).ok());
        found.and_then(|at| self.0.get(at)).map_or(0, |(_, count)| *count)
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: Sums) {
        let mut adding = self.adding();
        other.0.into_iter().for_each(|(slot, count)| adding.add(slot, count));
        adding.end();
    }

    /// For adding counts in the order of their slots.
    fn adding(&mut self) -> Adding<'_> {
        Adding { sums: self, at: 0, new: Vec::new() }
    }

    /// A gap and a count for each, as variable-length integers.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        write_sparse(self.0.iter().map(|(slot, count)| (*slot as usize, u64::from(*count))), out);
    }

    /// Adds what was encoded.
    pub(super) fn add_encoded(&mut self, bytes: &mut &[u8]) -> Result<(), CodecError> {
        let mut adding = self.adding();
        read_sparse(bytes, |slot, count| {
            let count = u32::try_from(count).ok().filter(|count| *count != 0).ok_or(WRONG)?;
            if slot >= MOST_SLOTS {
                return Err(WRONG);
            }
            adding.add(slot as u32, count);
            Ok(())
        })?;
        adding.end();
        Ok(())
    }
}

/// What adds counts to sums: mostly to slots that are there, in one walk; the others are put in at the end.
struct Adding<'a> {
    sums: &'a mut Sums,
    at: usize,
    new: Vec<(u32, u32)>,
}

impl Adding<'_> {
    #[inline]
    fn add(&mut self, slot: u32, count: u32) {
        let rest = self.sums.0.get(self.at..).unwrap_or_default();
        self.at += rest.iter().take_while(|(mine, _)| *mine < slot).count();
        match self.sums.0.get_mut(self.at) {
            Some((mine, sum)) if *mine == slot => *sum = sum.saturating_add(count),
            _ => self.new.push((slot, count)),
        }
    }

    fn end(self) {
        if self.sums.0.is_empty() {
            self.sums.0 = self.new;
        } else if !self.new.is_empty() {
            let mine = std::mem::take(&mut self.sums.0);
            self.sums.0 = interleave(mine, self.new);
        }
    }
}

/// The counts that aren't zero, with their slots.
pub(super) fn counted<Count: Copy + Into<u64>>(counts: &[Count]) -> impl Iterator<Item = (usize, u64)> {
    let is_counted = |some: &[Count]| some.iter().fold(0, |any, &count| any | count.into()) != 0;
    let groups = (0..).step_by(TOGETHER).zip(counts.chunks(TOGETHER)).filter(move |(_, some)| is_counted(some));
    groups
        .flat_map(|(first, some)| (first..).zip(some.iter().map(|&count| count.into())))
        .filter(|(_, count)| *count != 0)
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
            let mut read = Sums::default();
            read.add_encoded(&mut &bytes[..]).unwrap();
            assert_eq!(read, sums);
        }
    }
}
