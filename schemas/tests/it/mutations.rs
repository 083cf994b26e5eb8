//! Mutations of framed records: flipped, cut, spliced with another, grown, with huge lengths and wrong schema ids.
//!
//! The proof over Kafka, in the tests of `weir`, takes this file in as well.

use fastrand::Rng;

/// A record of `pool`, framed, with one to three mutations.
pub(crate) fn mutate(pool: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut message = pool[rng.usize(0..pool.len())].clone();
    for _ in 0..rng.usize(1..4) {
        let at = rng.usize(0..=message.len());
        // Most mutations leave the frame alone, or nothing behind it would be reached.
        let at = if at < 5 && rng.u32(0..4) != 0 { 5.min(message.len()) } else { at };
        match rng.u32(0..8) {
            0 | 1 if at < message.len() => message[at] ^= 1 << rng.u32(0..8),
            2 => message.truncate(at),
            3 => {
                let other = &pool[rng.usize(0..pool.len())];
                let from = rng.usize(0..=other.len());
                message.truncate(at);
                message.extend(&other[from..]);
            }
            4 if at < message.len() => {
                // A length or a count of any size, positive or negative.
                let mut rest = rng.u64(..) >> rng.u32(0..64);
                let mut huge = Vec::new();
                while rest > 127 {
                    huge.push(rest as u8 & 127 | 128);
                    rest >>= 7;
                }
                huge.push(rest as u8);
                message.splice(at..=at, huge);
            }
            5 => message.insert(at, rng.u8(..)),
            6 => {
                let end = rng.usize(at..=message.len());
                let again = message[at..end].to_vec();
                message.splice(at..at, again);
            }
            7 if message.len() >= 5 && rng.u32(0..4) == 0 => message[rng.usize(1..5)] = rng.u8(..),
            _ => message.extend((0..rng.usize(1..12)).map(|_| rng.u8(..))),
        }
    }
    message
}
