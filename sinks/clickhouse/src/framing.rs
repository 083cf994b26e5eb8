//! ClickHouse's own compressed framing (`compress=1`, `decompress=1`).
//!
//! A stream of blocks: checksum (16 bytes, CityHash128 of version 1.0.2 over the rest), method
//! (1 byte), compressed size with this 9-byte header (u32 LE), size (u32 LE), data. Methods: 0x02
//! none, 0x82 LZ4, 0x90 ZSTD. Read block by block, so that memory is bounded by one block.

use std::io::{self, Read};

use crate::exception::Exception;

const CHECKSUM_BYTES: usize = 16;
const HEADER_BYTES: usize = 9;
const NONE: u8 = 0x02;
const LZ4: u8 = 0x82;
const ZSTD: u8 = 0x90;
/// ClickHouse's own limit of one block (`DBMS_MAX_COMPRESSED_SIZE`).
const BLOCK_BYTES_AT_MOST: usize = 0x4000_0000;
/// What one written block holds at most.
const WRITTEN_BLOCK_BYTES: usize = 1 << 20;

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    cityhash_rs::cityhash_102_128(bytes).rotate_right(64).to_le_bytes()
}

fn corrupt(reason: impl std::fmt::Display) -> io::Error {
    io::Error::other(Exception::new(
        271,
        "CANNOT_DECOMPRESS",
        format_args!("cannot decompress a block of the request: {reason}"),
    ))
}

/// Reads the data out of a stream of blocks.
pub(crate) struct FramedReader<R> {
    blocks: R,
    data: Vec<u8>,
    at: usize,
}

impl<R: Read> FramedReader<R> {
    pub(crate) fn new(blocks: R) -> FramedReader<R> {
        FramedReader { blocks, data: Vec::new(), at: 0 }
    }

    /// Reads the next block into `data`; false at the end of the stream.
    fn next_block(&mut self) -> io::Result<bool> {
        let mut start = [0; CHECKSUM_BYTES + HEADER_BYTES];
        let mut filled = 0;
        while filled < start.len() {
            match self.blocks.read(&mut start[filled..])? {
                0 if filled == 0 => return Ok(false),
                0 => return Err(corrupt("it ends inside a header")),
                length => filled += length,
            }
        }
        let number = |at: usize| u32::from_le_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]]) as usize;
        let (packed, size) = (number(CHECKSUM_BYTES + 1), number(CHECKSUM_BYTES + 5));
        if !(HEADER_BYTES..=BLOCK_BYTES_AT_MOST).contains(&packed) || size > BLOCK_BYTES_AT_MOST {
            return Err(corrupt(format_args!("its sizes are out of range: {packed} bytes packed, {size} bytes")));
        }
        // `take` and growing by reading: nothing is allocated for bytes that never come.
        let mut block = start[CHECKSUM_BYTES..].to_vec();
        let missing = (packed - HEADER_BYTES) as u64;
        if (&mut self.blocks).take(missing).read_to_end(&mut block)? as u64 != missing {
            return Err(corrupt("it ends inside a block"));
        }
        if checksum(&block) != start[..CHECKSUM_BYTES] {
            return Err(io::Error::other(Exception::new(
                40,
                "CHECKSUM_DOESNT_MATCH",
                "checksum doesn't match: corrupted data in the request",
            )));
        }
        self.data = unpack(block[0], &block[HEADER_BYTES..], size)?;
        self.at = 0;
        Ok(true)
    }
}

fn unpack(method: u8, packed: &[u8], size: usize) -> io::Result<Vec<u8>> {
    // LZ4 can't grow data by more than 255, ZSTD frames are decompressed up to their promised size.
    let data = match method {
        NONE => packed.to_vec(),
        LZ4 if size / 255 > packed.len() => return Err(corrupt("it promises more than LZ4 can hold")),
        LZ4 => lz4_flex::block::decompress(packed, size).map_err(corrupt)?,
        ZSTD => {
            let mut data = Vec::new();
            zstd::stream::read::Decoder::new(packed)?.take(size as u64 + 1).read_to_end(&mut data).map_err(corrupt)?;
            data
        }
        method => return Err(corrupt(format_args!("unknown method {method:#04x}"))),
    };
    if data.len() != size {
        return Err(corrupt(format_args!("it holds {} bytes instead of {size}", data.len())));
    }
    Ok(data)
}

impl<R: Read> Read for FramedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.data.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let length = buffer.len().min(self.data.len() - self.at);
        buffer[..length].copy_from_slice(&self.data[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// `data` as LZ4 blocks.
pub(crate) fn pack(data: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(data.len() / 2 + 64);
    for piece in data.chunks(WRITTEN_BLOCK_BYTES) {
        let packed = lz4_flex::block::compress(piece);
        let sizes = [u32::try_from(packed.len() + HEADER_BYTES), u32::try_from(piece.len())];
        let mut block = vec![LZ4];
        for size in sizes {
            block.extend_from_slice(&size.map_err(io::Error::other)?.to_le_bytes());
        }
        block.extend_from_slice(&packed);
        out.extend_from_slice(&checksum(&block));
        out.extend_from_slice(&block);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<u8>, Exception> {
        let mut data = Vec::new();
        FramedReader::new(bytes).read_to_end(&mut data).map(|_| data).map_err(Exception::from_read)
    }

    fn block(method: u8, size: u32, packed: &[u8]) -> Vec<u8> {
        let mut block = vec![method];
        block.extend_from_slice(&u32::try_from(packed.len() + HEADER_BYTES).expect("small").to_le_bytes());
        block.extend_from_slice(&size.to_le_bytes());
        block.extend_from_slice(packed);
        [checksum(&block).as_slice(), &block].concat()
    }

    #[test]
    fn what_is_packed_is_read_back() {
        let data: Vec<u8> = (0..3_000_000u32).map(|number| (number / 7) as u8).collect();
        assert_eq!(read(&pack(&data).expect("packed")), Ok(data));
        assert_eq!(read(b""), Ok(vec![]));
    }

    #[test]
    fn every_method_is_read() {
        let packed = zstd::bulk::compress(b"hello", 1).expect("packed");
        let all =
            [block(NONE, 5, b"hello"), block(ZSTD, 5, &packed), block(LZ4, 5, &lz4_flex::block::compress(b"hello"))]
                .concat();
        assert_eq!(read(&all), Ok(b"hellohellohello".to_vec()));
    }

    #[test]
    fn damage_is_an_error_and_allocates_nothing() {
        let good = pack(b"some data that is long enough to be packed").expect("packed");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert!(read(&bad).is_err(), "a flipped bit at {at} went unseen");
            assert!(at == 0 || read(&good[..at]).is_err(), "a cut at {at} went unseen");
        }
        assert_eq!(read(&block(LZ4, 0x3fff_ffff, b"x")).map_err(|e| e.code()), Err(271));
        assert_eq!(read(&block(0x55, 1, b"x")).map_err(|e| e.code()), Err(271));
        let mut wrong = good;
        wrong[0] ^= 1;
        assert_eq!(read(&wrong).map_err(|e| e.code()), Err(40));
    }
}
