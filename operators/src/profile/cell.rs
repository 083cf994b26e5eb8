//! What a window's events of one tenant, event type and release looked like.
//!
//! A cell adds up: merging cells in any order, split over any workers and epochs, gives the same cell. So it keeps sums, the
//! least places and a sketch of users whose registers are maxima, nothing that depends on who came first.

use std::collections::BTreeMap;

use super::sums::{Sums, read_values, write_values};
use crate::state::{Codec, CodecError, encode_bytes};

/// Registers of the sketch of users: its standard error is 1.04 / √64 = 13 %.
const REGISTERS: usize = 64;
/// Bytes of each text that a key or a detail keeps; longer ones are cut.
pub const TEXT_BYTES: usize = 128;
/// Buckets of the details of one reason for refusal.
const DETAILS: u8 = 8;

/// A place by the topic's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spot(pub u16, pub i32, pub i64);

/// The three least places of many, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spots([Option<Spot>; 3]);

impl Spots {
    /// Takes a place, if it is one of the three least; one that is known changes nothing.
    pub fn offer(&mut self, spot: Spot) {
        let mut offered = Some(spot);
        for seat in &mut self.0 {
            match (*seat, offered) {
                (Some(known), Some(new)) if new == known => return,
                (Some(known), Some(new)) if new > known => {}
                _ => std::mem::swap(seat, &mut offered),
            }
        }
    }

    /// The places.
    pub fn iter(&self) -> impl Iterator<Item = Spot> {
        self.0.into_iter().flatten()
    }
}

/// Whose events a cell holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellKey {
    /// The tenant, '' where unknown.
    pub tenant: Vec<u8>,
    /// The event's type, '' where there is no event.
    pub event_type: Vec<u8>,
    /// The SDK's name, its version, the app's version.
    pub release: [Vec<u8>; 3],
}

impl CellKey {
    /// The encoding of the key of these parts.
    pub(super) fn encode_of(tenant: &[u8], event_type: &[u8], release: [&[u8]; 3], out: &mut Vec<u8>) {
        [tenant, event_type].into_iter().chain(release).for_each(|part| encode_bytes(part, out));
    }
}

impl Codec for CellKey {
    fn encode(&self, out: &mut Vec<u8>) {
        let [sdk, sdk_version, app_version] = &self.release;
        CellKey::encode_of(&self.tenant, &self.event_type, [sdk, sdk_version, app_version], out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        let (tenant, event_type) = (Vec::decode(bytes)?, Vec::decode(bytes)?);
        let mut release: [Vec<u8>; 3] = Default::default();
        for part in &mut release {
            *part = Vec::decode(bytes)?;
        }
        Ok(CellKey { tenant, event_type, release })
    }
}

/// A sketch of how many users there were: HyperLogLog (Flajolet and others 2007) with linear counting for few.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users([u8; REGISTERS]);

impl Default for Users {
    fn default() -> Users {
        Users([0; REGISTERS])
    }
}

impl Users {
    /// Adds a user by a 64-bit hash.
    pub fn add(&mut self, hash: u64) {
        // The low six bits choose the register, the rest gives the rank; the bit above the rest ends a rest of zeros.
        let rank = ((hash >> 6) | 1 << 58).trailing_zeros() as u8 + 1;
        if let Some(register) = self.0.get_mut((hash & 63) as usize) {
            *register = (*register).max(rank);
        }
    }

    /// Adds the users of another sketch.
    pub fn merge(&mut self, other: &Users) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine = (*mine).max(theirs));
    }

    fn add_encoded(&mut self, bytes: &mut &[u8]) -> Result<(), CodecError> {
        let mut is_foreign = false;
        read_values(bytes, |at, rank| match (self.0.get_mut(at), u8::try_from(rank)) {
            (Some(register), Ok(rank)) => *register = (*register).max(rank),
            _ => is_foreign = true,
        })?;
        if is_foreign { Err(WRONG) } else { Ok(()) }
    }

    /// About how many there were.
    pub fn estimate(&self) -> f64 {
        let registers = REGISTERS as f64;
        let raw = 0.709 * registers * registers / self.0.iter().map(|&rank| (-f64::from(rank)).exp2()).sum::<f64>();
        let empty = self.0.iter().filter(|&&rank| rank == 0).count() as f64;
        if raw <= 2.5 * registers && empty > 0.0 { registers * (registers / empty).ln() } else { raw }
    }
}

/// Refused records of one reason whose details fall in one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusals {
    /// How many.
    pub records: u64,
    /// The least of the details.
    pub detail: Vec<u8>,
    /// The least place.
    pub spot: Spot,
}

/// One cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Events by slot.
    pub counts: Sums,
    /// Places of what can't be told by looking at an event again: copies, and events that broke a rule, by slot.
    pub examples: BTreeMap<u32, Spots>,
    /// First and last place.
    pub range: Option<(Spot, Spot)>,
    /// Its users.
    pub users: Users,
    /// Refused records by reason and bucket of their detail.
    pub refused: BTreeMap<(u8, u8), Refusals>,
    /// Numbers of devices by rule and field.
    pub sequences: BTreeMap<(Vec<u8>, Vec<u8>), Numbers>,
}

/// Numbers of devices' sequences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// How many came.
    pub received: u64,
    /// How many didn't.
    pub missing: u64,
    /// The least places of events behind a gap.
    pub behind: Spots,
}

impl Numbers {
    fn merge(&mut self, other: &Numbers) {
        self.received = self.received.saturating_add(other.received);
        self.missing = self.missing.saturating_add(other.missing);
        other.behind.iter().for_each(|spot| self.behind.offer(spot));
    }
}

impl Cell {
    /// The count of a slot.
    pub fn count(&self, slot: usize) -> u32 {
        self.counts.get(slot)
    }

    /// Widens the range of places to `spot`.
    pub fn cover(&mut self, spot: Spot) {
        let (first, last) = self.range.unwrap_or((spot, spot));
        self.range = Some((first.min(spot), last.max(spot)));
    }

    /// Takes a place of an event of a slot.
    pub fn example(&mut self, slot: u32, spot: Spot) {
        self.examples.entry(slot).or_default().offer(spot);
    }

    /// Counts a refused record.
    pub fn refuse(&mut self, reason: u8, detail: &[u8], records: u64, spot: Spot) {
        let detail = detail.get(..TEXT_BYTES).unwrap_or(detail);
        let bucket = (xxhash_rust::xxh3::xxh3_64(detail) % u64::from(DETAILS)) as u8;
        self.add_refusals((reason, bucket), Refusals { records, detail: detail.to_vec(), spot });
    }

    fn add_refusals(&mut self, key: (u8, u8), refusals: Refusals) {
        match self.refused.get_mut(&key) {
            Some(known) => {
                known.records = known.records.saturating_add(refusals.records);
                known.spot = known.spot.min(refusals.spot);
                if refusals.detail < known.detail {
                    known.detail = refusals.detail;
                }
            }
            None => {
                self.refused.insert(key, refusals);
            }
        }
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: Cell) {
        self.counts.merge(&other.counts);
        for (slot, spots) in other.examples {
            spots.iter().for_each(|spot| self.example(slot, spot));
        }
        if let Some((first, last)) = other.range {
            self.cover(first);
            self.cover(last);
        }
        self.users.merge(&other.users);
        other.refused.into_iter().for_each(|(key, refusals)| self.add_refusals(key, refusals));
        other.sequences.into_iter().for_each(|(key, numbers)| self.sequences.entry(key).or_default().merge(&numbers));
    }

    /// The bytes of the cell with `counts` by slot added, which are mostly all that there are.
    pub(super) fn encode_with(&self, counts: &[u8], out: &mut Vec<u8>) {
        if self.counts.is_empty() {
            write_values(counts, out);
        } else {
            let mut sums = self.counts.clone();
            sums.merge(&Sums::of(counts));
            sums.encode(out);
        }
        self.encode_all_but_counts(out);
    }

    fn encode_all_but_counts(&self, out: &mut Vec<u8>) {
        write_values(&self.users.0, out);
        varint(self.examples.len() as u64, out);
        for (slot, spots) in &self.examples {
            varint(u64::from(*slot), out);
            varint(spots.iter().count() as u64, out);
            spots.iter().for_each(|spot| write_spot(spot, out));
        }
        out.push(u8::from(self.range.is_some()));
        if let Some((first, last)) = self.range {
            write_spot(first, out);
            write_spot(last, out);
        }
        varint(self.refused.len() as u64, out);
        for ((reason, bucket), refusals) in &self.refused {
            out.extend_from_slice(&[*reason, *bucket]);
            varint(refusals.records, out);
            write_text(&refusals.detail, out);
            write_spot(refusals.spot, out);
        }
        varint(self.sequences.len() as u64, out);
        for ((rule, field), numbers) in &self.sequences {
            write_text(rule, out);
            write_text(field, out);
            varint(numbers.received, out);
            varint(numbers.missing, out);
            varint(numbers.behind.iter().count() as u64, out);
            numbers.behind.iter().for_each(|spot| write_spot(spot, out));
        }
    }

    /// Adds what another cell's bytes hold, without making a cell of them: this is done for each cell of an epoch.
    ///
    /// # Errors
    /// When these aren't a cell's bytes; some of them may have been added then.
    pub(crate) fn add_encoded(&mut self, bytes: &mut &[u8]) -> Result<(), CodecError> {
        self.counts.add_encoded(bytes)?;
        self.users.add_encoded(bytes)?;
        for _ in 0..read_varint(bytes)? {
            let slot = u32::try_from(read_varint(bytes)?).map_err(|_| WRONG)?;
            for _ in 0..read_varint(bytes)?.min(3) {
                self.example(slot, read_spot(bytes)?);
            }
        }
        if take(bytes, 1)? == [1] {
            self.cover(read_spot(bytes)?);
            self.cover(read_spot(bytes)?);
        }
        for _ in 0..read_varint(bytes)? {
            let &[reason, bucket] = take(bytes, 2)? else { return Err(WRONG) };
            let records = read_varint(bytes)?;
            let detail = read_text(bytes)?.to_vec();
            self.add_refusals((reason, bucket), Refusals { records, detail, spot: read_spot(bytes)? });
        }
        for _ in 0..read_varint(bytes)? {
            let key = (read_text(bytes)?.to_vec(), read_text(bytes)?.to_vec());
            let mut numbers =
                Numbers { received: read_varint(bytes)?, missing: read_varint(bytes)?, behind: Spots::default() };
            for _ in 0..read_varint(bytes)?.min(3) {
                numbers.behind.offer(read_spot(bytes)?);
            }
            self.sequences.entry(key).or_default().merge(&numbers);
        }
        Ok(())
    }
}

/// Counts and sketch are written in groups, of which only those that aren't zero.
impl Codec for Cell {
    fn encode(&self, out: &mut Vec<u8>) {
        self.counts.encode(out);
        self.encode_all_but_counts(out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        let mut cell = Cell::default();
        cell.add_encoded(bytes)?;
        Ok(cell)
    }
}

pub(super) const WRONG: CodecError = CodecError("cell");
pub(crate) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
pub(crate) fn read_varint(bytes: &mut &[u8]) -> Result<u64, CodecError> {
    match bytes.split_first() {
        Some((&byte, rest)) if byte < 0x80 => {
            *bytes = rest;
            Ok(u64::from(byte))
        }
        _ => read_long_varint(bytes),
    }
}

fn read_long_varint(bytes: &mut &[u8]) -> Result<u64, CodecError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let &[byte] = take(bytes, 1)? else { return Err(WRONG) };
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(WRONG)
}

pub(crate) fn write_text(text: &[u8], out: &mut Vec<u8>) {
    varint(text.len() as u64, out);
    out.extend_from_slice(text);
}

pub(crate) fn read_text<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], CodecError> {
    let length = usize::try_from(read_varint(bytes)?).map_err(|_| WRONG)?;
    take(bytes, length)
}

pub(crate) fn write_spot(spot: Spot, out: &mut Vec<u8>) {
    varint(u64::from(spot.0), out);
    varint(u64::from(spot.1 as u32), out);
    varint(spot.2 as u64, out);
}

pub(crate) fn read_spot(bytes: &mut &[u8]) -> Result<Spot, CodecError> {
    let topic = u16::try_from(read_varint(bytes)?).map_err(|_| WRONG)?;
    let partition = u32::try_from(read_varint(bytes)?).map_err(|_| WRONG)? as i32;
    Ok(Spot(topic, partition, read_varint(bytes)? as i64))
}

pub(super) fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], CodecError> {
    let (head, rest) = bytes.split_at_checked(length).ok_or(WRONG)?;
    *bytes = rest;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random_cell(random: &mut fastrand::Rng) -> Cell {
        let mut cell = Cell::default();
        for _ in 0..random.usize(0..20) {
            let slot = random.usize(0..60);
            let mut counts = vec![0_u32; slot + 1];
            counts[slot] = random.u32(1..1_000_000);
            cell.counts.merge(&Sums::of(&counts));
            let spot = Spot(random.u16(0..3), random.i32(0..9), random.i64(0..1 << 40));
            cell.example(slot as u32, spot);
            cell.cover(spot);
            cell.users.add(random.u64(..));
            let detail = [b'a' + random.u8(0..5)];
            cell.refuse(random.u8(0..3), &detail, random.u64(1..9), spot);
            let mut numbers =
                Numbers { received: random.u64(0..99), missing: random.u64(0..9), behind: Spots::default() };
            numbers.behind.offer(spot);
            cell.sequences.entry((detail.to_vec(), b"seq".to_vec())).or_default().merge(&numbers);
        }
        cell
    }

    #[test]
    fn cells_add_up_in_any_order_and_come_back_from_their_bytes() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..500 {
            let cells: Vec<Cell> = (0..5).map(|_| random_cell(&mut random)).collect();
            let sum = |order: &[usize]| {
                let mut sum = Cell::default();
                order.iter().for_each(|&at| sum.merge(cells[at].clone()));
                sum
            };
            let all = sum(&[0, 1, 2, 3, 4]);
            assert_eq!(all, sum(&[4, 2, 0, 3, 1]));
            let mut bytes = Vec::new();
            all.encode(&mut bytes);
            assert_eq!(Cell::decode_all(&bytes).unwrap(), all);
            for cut in 0..bytes.len() {
                assert!(Cell::decode_all(&bytes[..cut]).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn users_are_counted_within_the_sketch_error() {
        let mut random = fastrand::Rng::with_seed(5);
        for users in [1_u32, 10, 100, 1_000, 100_000] {
            let mut sketch = Users::default();
            let ids: Vec<u64> = (0..users).map(|_| random.u64(..)).collect();
            ids.iter().chain(&ids).for_each(|&id| sketch.add(id));
            let off = sketch.estimate() / f64::from(users) - 1.0;
            assert!(off.abs() < 0.45, "{users} users: off by {off}");
        }
    }
}
