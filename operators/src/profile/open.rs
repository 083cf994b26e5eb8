//! The cells of the open epoch, and how an event's is found.

use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::{Array, ArrayRef, BinaryArray, Int64Array, RecordBatch, UInt16Array};
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_128;

use super::cell::{Cell, CellKey, TEXT_BYTES};
use super::cell_schema;
use super::count::{Counts, prefetch};
use crate::error::Error;
use crate::route::key_group;

/// The cells of the open epoch, found by a hash of 128 bits of what they are of: comparing five texts an event would cost
/// more than counting it.
#[derive(Default)]
pub(crate) struct Open {
    index: HashTable<(Identity, u32)>,
    /// By number, as the columns of [`cell_schema`].
    groups: Vec<u16>,
    windows: Vec<i64>,
    keys: BinaryBuilder,
    cells: Vec<Cell>,
    scratch: Vec<u8>,
}

impl Open {
    /// The number of a cell; a new one is made where there is none.
    pub(crate) fn number(&mut self, window: i64, tenant: &[u8], event_type: &[u8], release: [&[u8]; 3]) -> u32 {
        let parts = [tenant, event_type].into_iter().chain(release);
        let identity = parts.fold(Identity::of(window), Identity::and);
        self.known(identity).unwrap_or_else(|| self.open(identity, window, tenant, event_type, release))
    }

    #[inline]
    pub(super) fn known(&self, identity: Identity) -> Option<u32> {
        self.index.find(identity.0[0], |(known, _)| *known == identity).map(|(_, at)| *at)
    }

    pub(super) fn open(
        &mut self,
        identity: Identity,
        window: i64,
        tenant: &[u8],
        event_type: &[u8],
        release: [&[u8]; 3],
    ) -> u32 {
        let scratch = &mut self.scratch;
        scratch.clear();
        CellKey::encode_of(tenant, event_type, release, scratch);
        self.keys.append_value(&scratch);
        self.groups.push(key_group(tenant));
        self.windows.push(window);
        let at = self.cells.len() as u32;
        self.cells.push(Cell::default());
        self.index.insert_unique(identity.0[0], (identity, at), |(known, _)| known.0[0]);
        at
    }

    /// The cell with a number.
    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut Cell> {
        self.cells.get_mut(at as usize)
    }

    /// Says that a cell is wanted soon.
    #[inline]
    pub(super) fn expect(&self, at: u32) {
        prefetch(self.cells.get(at as usize).map_or(&[], std::slice::from_ref));
    }

    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    /// The cells as a batch, in the order of their first event; none are left. What stands in `counts` is added to them.
    pub(crate) fn take(&mut self, counts: Option<&Counts>) -> Result<RecordBatch, Error> {
        self.index.clear();
        let (mut cells, bytes) = (BinaryBuilder::new(), &mut self.scratch);
        for (at, cell) in (0..).zip(self.cells.drain(..)) {
            bytes.clear();
            cell.encode_with(counts.map_or(&[], |counts| counts.of(at)), bytes);
            cells.append_value(&bytes);
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt16Array::from(std::mem::take(&mut self.groups))),
            Arc::new(Int64Array::from(std::mem::take(&mut self.windows))),
            Arc::new(self.keys.finish()),
            Arc::new(cells.finish()),
        ];
        Ok(RecordBatch::try_new(cell_schema(), columns)?)
    }
}

/// A hash of 128 bits of a cell's window and texts, one after another: two lanes of folded multiplications, which is what
/// wyhash (Wang Yi) is made of. It is never kept, so another way of computing it changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity([u64; 2]);

impl Identity {
    #[inline]
    pub(super) fn of(window: i64) -> Identity {
        Identity([window as u64, !window as u64])
    }

    /// Adds a text to those before it.
    fn and(self, text: &[u8]) -> Identity {
        self.and_word(word_of(text, 0, text.len()), text.len())
    }

    #[inline]
    fn and_word(self, word: u128, length: usize) -> Identity {
        let (first, last) = (word as u64, (word >> 64) as u64);
        let Identity([one, other]) = self;
        let length = length as u64;
        let fold = |lane: u64, by: u64| {
            let product = u128::from(lane) * u128::from(by);
            product as u64 ^ (product >> 64) as u64
        };
        let one = fold(one ^ first ^ 0xa076_1d64_78bd_642f, last ^ length ^ 0xe703_7ed1_a0b4_28db);
        let other = fold(other ^ last ^ 0x8ebc_6af0_9c88_c6e3, first ^ length ^ 0x5899_65cc_7537_4cc3);
        Identity([one, other])
    }

    /// Adds a column's texts, each to those of its row.
    pub(super) fn and_all(identities: &mut [Identity], texts: &BinaryArray) {
        let (data, ends) = (texts.value_data(), texts.value_offsets().iter().skip(1));
        let mut from = texts.value_offsets().first().map_or(0, |first| *first as usize);
        for (row, (identity, &end)) in identities.iter_mut().zip(ends).enumerate() {
            let length = if texts.is_null(row) { 0 } else { (end as usize).saturating_sub(from).min(TEXT_BYTES) };
            *identity = identity.and_word(word_of(data, from, length), length);
            from = end as usize;
        }
    }
}

/// A number that is another text's only if it has another length, or both are longer than 16 bytes and have one hash of 128
/// bits; the text is the one at a place of `data`. Nearly all texts that name a sender are short, of lengths in no order:
/// they are read as 16 bytes, whose rest is masked, so that nothing depends on the length.
#[inline]
fn word_of(data: &[u8], from: usize, length: usize) -> u128 {
    const MASKS: [u128; 17] = {
        let mut masks = [u128::MAX; 17];
        let mut length = 0;
        while length < 16 {
            masks[length] = (1 << (8 * length)) - 1;
            length += 1;
        }
        masks
    };
    let rest = data.get(from..).unwrap_or_default();
    match (MASKS.get(length), rest.first_chunk()) {
        (Some(mask), Some(bytes)) => u128::from_le_bytes(*bytes) & mask,
        (Some(_), None) => rest.iter().take(length).rev().fold(0, |word, byte| word << 8 | u128::from(*byte)),
        (None, _) => xxh3_128(rest.get(..length).unwrap_or(rest)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn cells_of_other_windows_or_texts_have_other_identities_and_columns_give_those_of_their_rows() {
        let texts = [
            "",
            "\0",
            "\0\0",
            "a",
            "ab",
            "abc",
            "abcd",
            "abcdabcd",
            "abcdefghi",
            "0123456789abcdef",
            "0123456789abcdefg",
        ];
        let at = |number: usize, place: u32| texts[number / texts.len().pow(place) % texts.len()];
        let all = || (0..texts.len().pow(3)).map(|number| [at(number, 0), at(number, 1), at(number, 2)]);
        let mut known = HashSet::new();
        for window in [0, -1, 60_000_000] {
            let each = all().map(|row| row.iter().fold(Identity::of(window), |of, text| of.and(text.as_bytes())));
            let mut together = vec![Identity::of(window); all().count()];
            for part in 0..3 {
                let column = BinaryArray::from_iter_values(all().map(|row| row[part]));
                Identity::and_all(&mut together, &column);
            }
            assert_eq!(each.clone().collect::<Vec<_>>(), together);
            known.extend(each);
        }
        assert_eq!(known.len(), 3 * 11 * 11 * 11);
        let lane = |lane: usize| known.iter().map(|identity| identity.0[lane]).collect::<HashSet<_>>().len();
        assert_eq!([lane(0), lane(1)], [known.len(); 2]);
        let column = BinaryArray::from_iter([Some("ab"), None, Some("abc")]).slice(1, 2);
        let mut sliced = vec![Identity::of(5); 2];
        Identity::and_all(&mut sliced, &column);
        assert_eq!(sliced, [Identity::of(5).and(b""), Identity::of(5).and(b"abc")]);
    }
}
