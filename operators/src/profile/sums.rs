//! Counts by slot, of which most are zero.
//!
//! A cell of a few events touches a tenth of the slots of its layout, and a window has tens of thousands of cells: so only
//! what was counted is kept. A field's slots stand side by side and most fields have a few values, so counts are kept, written
//! and added up in groups of [`TOGETHER`] slots: cells of one window have nearly the same groups, and adding one to another
//! is one walk over two lists that mostly agree. What travels within an epoch are counts of a byte; where many of the slots
//! have one, they travel as they are, which is neither longer nor has to be put together and taken apart.

use std::cmp::Ordering;

use super::cell::{WRONG, read_varint, take, varint};
use crate::state::CodecError;

/// Groups that stored counts may name, at most: columns are bounded by the reader schema.
const MOST_GROUPS: usize = 1 << 17;
/// Slots of a group.
const TOGETHER: usize = 8;
/// How counts are written: in groups, or as the bytes that they are.
const IN_GROUPS: u8 = 0;
const AS_BYTES: u8 = 1;

/// Counts of slots that stand side by side; at least one isn't zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group {
    /// The first slot, in groups.
    at: u32,
    counts: [u32; TOGETHER],
}

/// Slots with their counts, in the order of the slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums(Vec<Group>);

impl Sums {
    /// What stands in `counts`, by slot.
    pub fn of<Count: Copy + Default + PartialEq + Into<u32>>(counts: &[Count]) -> Sums {
        Sums(groups(counts).collect())
    }

    /// Whether nothing was counted.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The count of a slot.
    pub fn get(&self, slot: usize) -> u32 {
        let found = self.0.binary_search_by_key(&(slot / TOGETHER), |group| group.at as usize).ok();
        let group = found.and_then(|at| self.0.get(at));
        group.and_then(|group| group.counts.get(slot % TOGETHER)).copied().unwrap_or_default()
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Sums) {
        let mut adding = self.adding();
        other.0.iter().for_each(|group| adding.add(*group));
        adding.end();
    }

    /// For adding groups in their order.
    fn adding(&mut self) -> Adding<'_> {
        Adding { sums: self, at: 0, new: Vec::new() }
    }

    /// The groups one after another, and what ends them.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(IN_GROUPS);
        write(self.0.iter().copied(), out);
    }

    /// Adds what was encoded.
    pub(super) fn add_encoded(&mut self, bytes: &mut &[u8]) -> Result<(), CodecError> {
        let mut adding = self.adding();
        read(bytes, |group| adding.add(group))?;
        adding.end();
        Ok(())
    }
}

/// Writes values by slot so that [`Sums`] can read and add them, without making these.
pub(super) fn write_values(values: &[u8], out: &mut Vec<u8>) {
    if groups(values).count() * TOGETHER * 4 >= values.len() {
        out.push(AS_BYTES);
        varint(values.len() as u64, out);
        out.extend_from_slice(values);
    } else {
        out.push(IN_GROUPS);
        write(groups(values), out);
    }
}

/// Reads values that were so written, as `each(slot, value)`; none is zero.
pub(super) fn read_values(bytes: &mut &[u8], mut each: impl FnMut(usize, u32)) -> Result<(), CodecError> {
    read(bytes, |group| {
        let values = (group.at as usize * TOGETHER..).zip(group.counts);
        values.filter(|(_, value)| *value != 0).for_each(|(slot, value)| each(slot, value));
    })
}

/// What adds groups to sums: mostly to groups that are there, in one walk; the others are put in at the end.
struct Adding<'a> {
    sums: &'a mut Sums,
    at: usize,
    new: Vec<Group>,
}

impl Adding<'_> {
    #[inline]
    fn add(&mut self, theirs: Group) {
        let rest = self.sums.0.get(self.at..).unwrap_or_default();
        self.at += rest.iter().take_while(|mine| mine.at < theirs.at).count();
        match self.sums.0.get_mut(self.at) {
            Some(mine) if mine.at == theirs.at => mine.add(&theirs),
            _ => self.new.push(theirs),
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

impl Group {
    #[inline]
    fn add(&mut self, other: &Group) {
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, theirs)| *mine = mine.saturating_add(theirs));
    }
}

/// The groups of counts by slot in which something was counted.
fn groups<Count: Copy + Default + PartialEq + Into<u32>>(counts: &[Count]) -> impl Iterator<Item = Group> {
    let (chunks, rest) = counts.as_chunks::<TOGETHER>();
    let mut last = [Count::default(); TOGETHER];
    last.iter_mut().zip(rest).for_each(|(last, count)| *last = *count);
    let numbered = (0..).zip(chunks.iter().copied().chain([last]));
    numbered
        .filter(|(_, counts)| *counts != [Count::default(); TOGETHER])
        .map(|(at, counts)| Group { at, counts: counts.map(Into::into) })
}

/// Groups that are in one of two lists or in both, each in the order of their slots and each once in a list.
fn interleave(mine: Vec<Group>, theirs: Vec<Group>) -> Vec<Group> {
    let mut all = Vec::with_capacity(mine.len() + theirs.len());
    let (mut mine, mut theirs) = (mine.into_iter().peekable(), theirs.into_iter().peekable());
    while let (Some(a), Some(b)) = (mine.peek(), theirs.peek()) {
        match a.at.cmp(&b.at) {
            Ordering::Less => all.extend(mine.next()),
            Ordering::Greater => all.extend(theirs.next()),
            Ordering::Equal => {
                let mut both = *a;
                both.add(b);
                all.push(both);
                mine.next();
                theirs.next();
            }
        }
    }
    all.extend(mine);
    all.extend(theirs);
    all
}

/// Of each group its distance from the one before, which of its counts aren't zero, a bit each, and those, as
/// variable-length integers; 0 ends them.
fn write(groups: impl Iterator<Item = Group>, out: &mut Vec<u8>) {
    let mut next = 0;
    for Group { at, counts } in groups {
        // One more than the gap, so that 0 can end the list.
        let gap = at - next + 1;
        next = at + 1;
        let mask = counts.iter().rev().fold(0_u8, |mask, count| mask << 1 | u8::from(*count != 0));
        if gap < 0x80 && counts.iter().fold(0, |any, count| any | count) < 0x80 {
            write_small(gap as u8, mask, counts, out);
            continue;
        }
        varint(u64::from(gap), out);
        out.push(mask);
        counts.iter().filter(|count| **count != 0).for_each(|count| varint(u64::from(*count), out));
    }
    out.push(0);
}

/// Writes a group whose numbers are all bytes: nearly every one is. It is put together in place, and added at once.
#[inline]
fn write_small(gap: u8, mask: u8, counts: [u32; TOGETHER], out: &mut Vec<u8>) {
    let mut bytes = [0_u8; TOGETHER + 2];
    bytes[0] = gap;
    bytes[1] = mask;
    let mut size = 2;
    for count in counts {
        // A count that is zero is overwritten by the next one.
        bytes[size] = count as u8;
        size += usize::from(count != 0);
    }
    let end = out.len() + size;
    out.extend_from_slice(&bytes);
    out.truncate(end);
}

fn read(bytes: &mut &[u8], mut each: impl FnMut(Group)) -> Result<(), CodecError> {
    match *take(bytes, 1)? {
        [AS_BYTES] => {
            let length = usize::try_from(read_varint(bytes)?).map_err(|_| WRONG)?;
            groups(take(bytes, length)?).for_each(each);
            return Ok(());
        }
        [IN_GROUPS] => {}
        _ => return Err(WRONG),
    }
    let mut next = 0_usize;
    loop {
        let gap = usize::try_from(read_varint(bytes)?).map_err(|_| WRONG)?;
        if gap == 0 {
            return Ok(());
        }
        let at = next.checked_add(gap - 1).filter(|at| *at < MOST_GROUPS).ok_or(WRONG)?;
        each(Group { at: at as u32, counts: read_counts(bytes)? });
        next = at + 1;
    }
}

#[inline]
fn read_counts(bytes: &mut &[u8]) -> Result<[u32; TOGETHER], CodecError> {
    let (&mask, rest) = bytes.split_first().filter(|(mask, _)| **mask != 0).ok_or(WRONG)?;
    *bytes = rest;
    let (mut mask, mut counts) = (mask, [0; TOGETHER]);
    while mask != 0 {
        let count = u32::try_from(read_varint(bytes)?).ok().filter(|count| *count != 0).ok_or(WRONG)?;
        if let Some(slot) = counts.get_mut(mask.trailing_zeros() as usize) {
            *slot = count;
        }
        mask &= mask - 1;
    }
    Ok(counts)
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
                let mut bytes = Vec::new();
                match <Vec<u8>>::from_iter(counts.iter().map(|count| *count as u8)) {
                    small if random.bool() && counts.iter().all(|count| *count < 256) => {
                        write_values(&small, &mut bytes)
                    }
                    _ => Sums::of(&counts).encode(&mut bytes),
                }
                sums.add_encoded(&mut &bytes[..]).unwrap();
                assert!((0..bytes.len()).all(|cut| Sums::default().add_encoded(&mut &bytes[..cut]).is_err()));
            }
            assert_eq!(sums, Sums::of(&dense));
            assert!((0..64).all(|slot| sums.get(slot) == dense[slot]));
            let mut bytes = Vec::new();
            sums.encode(&mut bytes);
            let mut read = Sums::default();
            read.add_encoded(&mut &bytes[..]).unwrap();
            assert_eq!(read, sums);
            assert!((0..bytes.len()).all(|cut| Sums::default().add_encoded(&mut &bytes[..cut]).is_err()));
        }
    }
}
