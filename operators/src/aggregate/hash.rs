//! The hash functions by which ClickHouse identifies values in its sets.
//!
//! They decide what is distinct, so they are exactly ClickHouse's: SipHash-2-4 with a zero key, whose 128 bits
//! are not those of the reference (ClickHouse keeps the two halves of the state and mixes no further), CityHash64
//! of version 1.0.2, which later versions changed, and the finaliser of MurmurHash3 for integers.

/// The state of SipHash-2-4 after its last round.
fn sip(bytes: &[u8]) -> [u64; 4] {
    let mut v = [0x736f_6d65_7073_6575u64, 0x646f_7261_6e64_6f6d, 0x6c79_6765_6e65_7261, 0x7465_6462_7974_6573];
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        v[3] ^= word;
        round(&mut v);
        round(&mut v);
        v[0] ^= word;
    }
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    last[7] = bytes.len() as u8;
    let last = u64::from_le_bytes(last);
    v[3] ^= last;
    round(&mut v);
    round(&mut v);
    v[0] ^= last;
    v[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut v);
    }
    v
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

/// ClickHouse's `sipHash128` of the bytes, the first half in the low bits.
#[inline]
pub(super) fn sip128(bytes: &[u8]) -> u128 {
    let v = sip(bytes);
    u128::from(v[0] ^ v[1]) | u128::from(v[2] ^ v[3]) << 64
}

/// ClickHouse's internal hash of an integer of up to 64 bits (the SQL function of that name adds a salt).
#[inline]
pub(super) fn int64(mut value: u64) -> u64 {
    value ^= value >> 33;
    value = value.wrapping_mul(0xff51_afd7_ed55_8ccd);
    value ^= value >> 33;
    value = value.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ value >> 33
}

const K0: u64 = 0xc3a5_c85c_97cb_3127;
const K1: u64 = 0xb492_b66f_be98_f273;
const K2: u64 = 0x9ae1_6a3b_2f90_404f;
const K3: u64 = 0xc949_d7c7_509e_6557;

/// CityHash64 of version 1.0.2.
pub(super) fn city64(bytes: &[u8]) -> u64 {
    match bytes.len() {
        0..=16 => city_to_16(bytes),
        17..=32 => city_to_32(bytes),
        33..=64 => city_to_64(bytes),
        _ => city_long(bytes),
    }
}

/// Eight bytes at `at`, which the callers keep inside.
#[inline]
fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[inline]
fn half(bytes: &[u8], at: usize) -> u64 {
    let mut half = [0; 4];
    half.copy_from_slice(&bytes[at..at + 4]);
    u64::from(u32::from_le_bytes(half))
}

#[inline]
fn shift_mix(value: u64) -> u64 {
    value ^ value >> 47
}

#[inline]
fn pair(low: u64, high: u64) -> u64 {
    const MULTIPLIER: u64 = 0x9ddf_ea08_eb38_2d69;
    let a = shift_mix((low ^ high).wrapping_mul(MULTIPLIER));
    shift_mix((high ^ a).wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER)
}

fn city_to_16(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    match length {
        9.. => {
            let (a, b) = (word(bytes, 0), word(bytes, length - 8));
            pair(a, b.wrapping_add(length as u64).rotate_right(length as u32)) ^ b
        }
        4..=8 => pair((length as u64).wrapping_add(half(bytes, 0) << 3), half(bytes, length - 4)),
        1..=3 => {
            let y = u64::from(bytes[0]) + (u64::from(bytes[length >> 1]) << 8);
            let z = length as u64 + (u64::from(bytes[length - 1]) << 2);
            shift_mix(y.wrapping_mul(K2) ^ z.wrapping_mul(K3)).wrapping_mul(K2)
        }
        0 => K2,
    }
}

fn city_to_32(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    let a = word(bytes, 0).wrapping_mul(K1);
    let b = word(bytes, 8);
    let c = word(bytes, length - 8).wrapping_mul(K2);
    let d = word(bytes, length - 16).wrapping_mul(K0);
    pair(
        a.wrapping_sub(b).rotate_right(43).wrapping_add(c.rotate_right(30)).wrapping_add(d),
        a.wrapping_add((b ^ K3).rotate_right(20)).wrapping_sub(c).wrapping_add(length as u64),
    )
}

/// One half of the function for 33 to 64 bytes: four words and the number that starts it.
fn city_lane(start: u64, second: u64, third: u64, last: u64) -> (u64, u64) {
    let mut a = start;
    let b = a.wrapping_add(last).rotate_right(52);
    let mut c = a.rotate_right(37);
    a = a.wrapping_add(second);
    c = c.wrapping_add(a.rotate_right(7));
    a = a.wrapping_add(third);
    (a.wrapping_add(last), b.wrapping_add(a.rotate_right(31)).wrapping_add(c))
}

fn city_to_64(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    let start = (length as u64).wrapping_add(word(bytes, length - 16)).wrapping_mul(K0).wrapping_add(word(bytes, 0));
    let v = city_lane(start, word(bytes, 8), word(bytes, 16), word(bytes, 24));
    let start = word(bytes, 16).wrapping_add(word(bytes, length - 32));
    let w = city_lane(start, word(bytes, length - 24), word(bytes, length - 16), word(bytes, length - 8));
    let r = v.0.wrapping_add(w.1).wrapping_mul(K2).wrapping_add(w.0.wrapping_add(v.1).wrapping_mul(K0));
    shift_mix(shift_mix(r).wrapping_mul(K0).wrapping_add(v.1)).wrapping_mul(K2)
}

fn city_weak(bytes: &[u8], at: usize, a: u64, b: u64) -> (u64, u64) {
    let (w, x, y, z) = (word(bytes, at), word(bytes, at + 8), word(bytes, at + 16), word(bytes, at + 24));
    let a = a.wrapping_add(w);
    let b = b.wrapping_add(a).wrapping_add(z).rotate_right(21);
    let sum = a.wrapping_add(x).wrapping_add(y);
    (sum.wrapping_add(z), b.wrapping_add(sum.rotate_right(44)).wrapping_add(a))
}

fn city_long(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    let mut x = word(bytes, 0);
    let mut y = word(bytes, length - 16) ^ K1;
    let mut z = word(bytes, length - 56) ^ K0;
    let mut v = city_weak(bytes, length - 64, length as u64, y);
    let mut w = city_weak(bytes, length - 32, (length as u64).wrapping_mul(K1), K0);
    z = z.wrapping_add(shift_mix(v.1).wrapping_mul(K1));
    x = z.wrapping_add(x).rotate_right(39).wrapping_mul(K1);
    y = y.rotate_right(33).wrapping_mul(K1);
    // The last block is read from the end of the bytes, above, so a full block at the end is not read here.
    for at in (0..(length - 1) & !63).step_by(64) {
        let sum = x.wrapping_add(y).wrapping_add(v.0).wrapping_add(word(bytes, at + 16));
        x = sum.rotate_right(37).wrapping_mul(K1);
        y = y.wrapping_add(v.1).wrapping_add(word(bytes, at + 48)).rotate_right(42).wrapping_mul(K1);
        x ^= w.1;
        y ^= v.0;
        z = (z ^ w.0).rotate_right(33);
        v = city_weak(bytes, at, v.1.wrapping_mul(K1), x.wrapping_add(w.0));
        w = city_weak(bytes, at + 32, z.wrapping_add(w.1), y);
        (z, x) = (x, z);
    }
    pair(pair(v.0, w.0).wrapping_add(shift_mix(y).wrapping_mul(K1)).wrapping_add(z), pair(v.1, w.1).wrapping_add(x))
}
