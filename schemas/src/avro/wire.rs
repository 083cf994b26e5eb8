//! Avro's binary encoding at the level of bytes: a cursor that can't leave its record.

/// What is wrong with a record's bytes or values, without a word allocated: faults are made on the hot path and told
/// later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The record ends inside a value.
    Ended,
    /// More than ten bytes, or a tenth that doesn't fit into 64 bits.
    LongVarint,
    /// A value outside 32 bits where the schema says int.
    IntRange(i64),
    NegativeLength(i64),
    /// A length or a count that the rest of the record can't hold.
    LengthBeyondEnd(i64),
    NotBoolean(u8),
    NotUtf8,
    NoSuchBranch(i64),
    NoSuchSymbol(i64),
    /// A block's size in bytes isn't what its items took.
    BlockSize(i64),
    TooDeep,
    /// Too many items that take no bytes.
    TooManyEmptyItems,
    EmptyDecimal,
    DecimalRange,
    NotUuid,
    UuidLength(usize),
    TimeRange(i64),
    DateRange(i64),
    TimeOfDay(i64),
    /// One record would fill more memory than a record may.
    TooLarge,
    /// A value that the reader schema has no place for; the text is kept with the step.
    Unresolved,
    Trailing(usize),
}

pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    #[inline]
    pub(super) fn long(&mut self) -> Result<i64, Fault> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(unzigzag(u64::from(byte)))
            }
            _ => self.long_slowly(),
        }
    }

    fn long_slowly(&mut self) -> Result<i64, Fault> {
        let mut value = 0u64;
        for (index, &byte) in self.bytes[self.at..].iter().take(10).enumerate() {
            if index == 9 && byte > 1 {
                return Err(Fault::LongVarint);
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.at += index + 1;
                return Ok(unzigzag(value));
            }
        }
        Err(Fault::Ended)
    }

    #[inline]
    pub(super) fn int(&mut self) -> Result<i32, Fault> {
        let value = self.long()?;
        i32::try_from(value).map_err(|_| Fault::IntRange(value))
    }

    #[inline]
    pub(super) fn take(&mut self, size: usize) -> Result<&'a [u8], Fault> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..size)).ok_or(Fault::Ended)?;
        self.at += size;
        Ok(taken)
    }

    #[inline]
    pub(super) fn array<const SIZE: usize>(&mut self) -> Result<[u8; SIZE], Fault> {
        let taken = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<SIZE>).ok_or(Fault::Ended)?;
        self.at += SIZE;
        Ok(*taken)
    }

    /// A length and as many bytes.
    #[inline]
    pub(super) fn prefixed(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.long()?;
        let size = usize::try_from(length).map_err(|_| Fault::NegativeLength(length))?;
        if size > self.left() {
            return Err(Fault::LengthBeyondEnd(length));
        }
        self.take(size)
    }

    #[inline]
    pub(super) fn text(&mut self) -> Result<&'a [u8], Fault> {
        let bytes = self.prefixed()?;
        if !bytes.is_ascii() && std::str::from_utf8(bytes).is_err() {
            return Err(Fault::NotUtf8);
        }
        Ok(bytes)
    }

    #[inline]
    pub(super) fn boolean(&mut self) -> Result<bool, Fault> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(Fault::NotBoolean(other)),
        }
    }

    /// An index below `count`.
    #[inline]
    pub(super) fn index(&mut self, count: usize, fault: fn(i64) -> Fault) -> Result<usize, Fault> {
        let index = self.long()?;
        usize::try_from(index).ok().filter(|index| *index < count).ok_or_else(|| fault(index))
    }

    /// The head of a block: how many items, and where they have to end when the writer said so.
    #[inline]
    pub(super) fn block(&mut self, item_bytes_min: usize) -> Result<(usize, Option<(usize, i64)>), Fault> {
        let count = self.long()?;
        let (count, end) = if count >= 0 {
            (count.unsigned_abs(), None)
        } else {
            let size = self.long()?;
            let bytes = usize::try_from(size).map_err(|_| Fault::NegativeLength(size))?;
            if bytes > self.left() {
                return Err(Fault::LengthBeyondEnd(size));
            }
            (count.unsigned_abs(), Some((self.at + bytes, size)))
        };
        let told = i64::try_from(count).unwrap_or(i64::MAX);
        let items = usize::try_from(count).map_err(|_| Fault::LengthBeyondEnd(told))?;
        if item_bytes_min > 0 && items > self.left() / item_bytes_min {
            return Err(Fault::LengthBeyondEnd(told));
        }
        Ok((items, end))
    }
}

#[inline]
fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// Appends a long as Avro writes it.
pub(super) fn put_long(value: i64, into: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        into.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    into.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_comes_back_and_a_tenth_byte_that_overflows_is_refused() {
        for value in [0, -1, 1, 63, 64, -64, -65, i64::from(i32::MAX), i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            put_long(value, &mut bytes);
            let mut cursor = Cursor::new(&bytes);
            assert_eq!(cursor.long(), Ok(value));
            assert_eq!(cursor.left(), 0);
            assert_eq!(Cursor::new(&bytes[..bytes.len() - 1]).long(), Err(Fault::Ended));
        }
        let mut overlong = [0xff; 10];
        overlong[9] = 2;
        assert_eq!(Cursor::new(&overlong).long(), Err(Fault::LongVarint));
        assert_eq!(Cursor::new(&[0xff; 11]).long(), Err(Fault::LongVarint));
    }

    #[test]
    fn a_length_beyond_the_end_is_refused_before_anything_is_allocated() {
        let mut bytes = Vec::new();
        put_long(i64::MAX, &mut bytes);
        assert_eq!(Cursor::new(&bytes).prefixed(), Err(Fault::LengthBeyondEnd(i64::MAX)));
        bytes.clear();
        put_long(i64::MIN, &mut bytes);
        put_long(0, &mut bytes);
        assert!(Cursor::new(&bytes).block(1).is_err());
    }
}
