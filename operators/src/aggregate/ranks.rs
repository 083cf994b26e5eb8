//! HyperLogLog with 2^17 buckets of 6 bits, as ClickHouse's `uniqCombined64` keeps large sets.
//!
//! Sources: Flajolet et al., "HyperLogLog" (AofA 2007); Heule et al., "HyperLogLog in Practice" (EDBT 2013) for the
//! correction of the raw estimate's bias; Whang et al. (1990) for linear counting, which is used below
//! [`LINEAR_BELOW`].
//!
//! In a state: the packed ranks, then for each rank the number of its buckets (`UInt32`), then the number of
//! buckets of rank 0 once more. ClickHouse counts the buckets again when it reads a state; here, counts that
//! disagree with the ranks are wrong bytes.

use super::bytes::Bytes;
use super::knots::KNOTS;
use crate::error::Error;

const PRECISION: u32 = 17;
const BUCKETS: usize = 1 << PRECISION;
const PACKED_BYTES: usize = BUCKETS * 6 / 8;

/// The rank of a hash whose bits beyond the bucket's number are all zero.
const RANK_MAX: usize = 64 - PRECISION as usize + 1;

/// The bytes of these in a state.
pub(super) const STATE_BYTES: usize = PACKED_BYTES + (RANK_MAX + 1) * 4 + 4;

/// Where linear counting gives less than this, it is believed.
const LINEAR_BELOW: f64 = 177_700.0;

/// The ranks of all buckets.
#[derive(Clone)]
pub(super) struct Ranks {
    /// Six bits to a bucket, the lowest first, and one byte more so that every bucket can be read as two bytes.
    packed: Vec<u8>,
    /// How many buckets have each rank.
    counts: [u32; RANK_MAX + 1],
}

impl Ranks {
    /// No hash was seen.
    pub(super) fn new() -> Self {
        let mut counts = [0; RANK_MAX + 1];
        counts[0] = BUCKETS as u32;
        Ranks { packed: vec![0; PACKED_BYTES + 1], counts }
    }

    /// The rank of a bucket.
    #[inline]
    fn rank(&self, bucket: usize) -> u8 {
        let (at, shift) = (bucket * 6 / 8, bucket * 6 % 8);
        (u16::from_le_bytes([self.packed[at], self.packed[at + 1]]) >> shift) as u8 & 0x3f
    }

    /// Raises a bucket's rank; false if it is as high already.
    #[inline]
    fn raise(&mut self, bucket: usize, rank: u8) -> bool {
        let held = self.rank(bucket);
        if rank <= held {
            return false;
        }
        let (at, shift) = (bucket * 6 / 8, bucket * 6 % 8);
        // The new rank is laid over the difference, so that the neighbours' bits stay.
        let change = (u16::from(held ^ rank) << shift).to_le_bytes();
        self.packed[at] ^= change[0];
        self.packed[at + 1] ^= change[1];
        self.counts[usize::from(held)] -= 1;
        self.counts[usize::from(rank)] += 1;
        true
    }

    /// Adds a hash; false if nothing changed.
    #[inline]
    pub(super) fn insert(&mut self, hash: u64) -> bool {
        let tail = hash >> PRECISION;
        let rank = if tail == 0 { RANK_MAX as u8 } else { tail.trailing_zeros() as u8 + 1 };
        self.raise(hash as usize & (BUCKETS - 1), rank)
    }

    /// Adds what another one has seen.
    pub(super) fn merge(&mut self, other: &Ranks) {
        for bucket in 0..BUCKETS {
            self.raise(bucket, other.rank(bucket));
        }
    }

    /// The estimated number of distinct hashes.
    pub(super) fn estimate(&self) -> u64 {
        let buckets = BUCKETS as f64;
        let alpha = 0.7213 / (1.0 + 1.079 / buckets);
        // The sum of 2^-rank is exact in integers: ClickHouse adds up in 80-bit floats, which round but once.
        let sum = (0..).zip(self.counts).map(|(rank, count)| u128::from(count) << (RANK_MAX - rank)).sum::<u128>();
        let sum = sum as f64 / (1u64 << RANK_MAX) as f64;
        let raw = alpha * buckets * buckets / sum;
        let corrected = if raw <= 5.0 * buckets { without_bias(raw) } else { raw };
        let linear = match self.counts[0] {
            0 => corrected,
            zeros => buckets * (buckets.ln() - f64::from(zeros).ln()),
        };
        // Above a thirtieth of 2^32 ClickHouse corrects nothing; linear counting cannot give as much.
        let estimate = if linear < LINEAR_BELOW { linear } else { corrected };
        (estimate + 0.5) as u64
    }

    /// Appends the state without the byte that tells the container.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.packed[..PACKED_BYTES]);
        for count in self.counts {
            out.extend_from_slice(&count.to_le_bytes());
        }
        out.extend_from_slice(&self.counts[0].to_le_bytes());
    }

    /// Reads what `write` wrote.
    pub(super) fn read(bytes: &mut Bytes<'_>) -> Result<Self, Error> {
        let mut packed = bytes.take(PACKED_BYTES)?.to_vec();
        packed.push(0);
        let mut ranks = Ranks { packed, counts: [0; RANK_MAX + 1] };
        for bucket in 0..BUCKETS {
            let rank = ranks.rank(bucket);
            match ranks.counts.get_mut(usize::from(rank)) {
                Some(count) => *count += 1,
                None => {
                    return Err(bytes.wrong(format!("bucket {bucket} has rank {rank}, the greatest is {RANK_MAX}")));
                }
            }
        }
        for (rank, count) in ranks.counts.iter().chain(&ranks.counts[..1]).enumerate() {
            if u32::from_le_bytes(bytes.array()?) != *count {
                return Err(bytes.wrong(format!("count {rank} of buckets disagrees with the ranks")));
            }
        }
        Ok(ranks)
    }

    /// Bytes of memory.
    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.packed.capacity()
    }
}

/// The number of distinct hashes at which the raw estimate has this value on average.
fn without_bias(raw: f64) -> f64 {
    let next = KNOTS.partition_point(|(at, _)| *at < raw);
    match (next.checked_sub(1).and_then(|before| KNOTS.get(before)), KNOTS.get(next)) {
        (Some(before), Some(after)) => before.1 + (after.1 - before.1) / (after.0 - before.0) * (raw - before.0),
        // Beyond the table, the bias of its end.
        (Some(end), None) | (None, Some(end)) => raw - (end.0 - end.1),
        (None, None) => raw,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::hash;

    #[test]
    fn the_knots_ascend() {
        assert!(KNOTS.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1));
    }

    #[test]
    fn estimates_are_near_the_truth_at_every_size() {
        let mut ranks = Ranks::new();
        let mut next = 5000;
        for number in 1..=3_000_000u64 {
            ranks.insert(hash::int64(number));
            if number == next {
                let error = ranks.estimate() as f64 / number as f64 - 1.0;
                assert!(error.abs() < 0.012, "{number}: {error}");
                next = next * 5 / 4;
            }
        }
    }

    #[test]
    fn a_merge_equals_one_that_saw_everything() {
        let (mut left, mut right, mut both) = (Ranks::new(), Ranks::new(), Ranks::new());
        for number in 0..200_000u64 {
            let hash = hash::int64(number);
            both.insert(hash);
            if number % 3 == 0 {
                left.insert(hash)
            } else {
                right.insert(hash)
            };
        }
        left.merge(&right);
        assert!(left.packed == both.packed && left.counts == both.counts);
    }
}
