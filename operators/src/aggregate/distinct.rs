//! A set of distinct elements that knows which of them are new since the last delta.
//!
//! Up to [`LISTED_MAX`] elements are a list that is compared one by one. Beyond, they stand in an open-addressing table
//! without anything beside them, so that a lookup touches one place in memory: an empty cell holds the zero of the
//! element's type, whose own presence is a flag.

use std::hint::black_box;

use super::bytes::Bytes;
use crate::error::Error;

/// Up to this many elements are a list.
const LISTED_MAX: usize = 16;

/// A cleared set keeps its memory up to this many cells, for the group that gets its slot next.
const KEPT_MAX: usize = 64;

/// An element of a set, as wide as it is in ClickHouse's state.
pub(super) trait Element: Copy + Ord + Default + 'static {
    /// Its bytes in a state.
    const WIDTH: usize = size_of::<Self>();

    /// A hash for the table; never seen outside.
    fn spread(self) -> u64;

    /// Appends it to a state.
    fn put(self, out: &mut Vec<u8>);

    /// Reads it from `WIDTH` bytes of a state.
    fn take(bytes: &mut Bytes<'_>) -> Result<Self, Error>;

    /// The low bits of a number.
    fn truncated(bits: u128) -> Self;
}

/// Mixes all bits of a number into the low bits of a hash, which choose the cell.
#[inline(always)]
fn mix(value: u64) -> u64 {
    let product = u128::from(value ^ 0x9e37_79b9_7f4a_7c15) * 0xa5a3_564e_27f8_8645;
    (product as u64) ^ (product >> 64) as u64
}

macro_rules! element {
    ($native:ty, $spread:expr) => {
        impl Element for $native {
            #[inline(always)]
            fn spread(self) -> u64 {
                $spread(self)
            }

            fn put(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn take(bytes: &mut Bytes<'_>) -> Result<Self, Error> {
                Ok(Self::from_le_bytes(bytes.array()?))
            }

            #[inline(always)]
            fn truncated(bits: u128) -> Self {
                bits as Self
            }
        }
    };
}

element!(u8, |value| mix(u64::from(value)));
element!(u16, |value| mix(u64::from(value)));
element!(u32, |value| mix(u64::from(value)));
element!(u64, mix);
element!(u128, |value: u128| mix(value as u64 ^ (value >> 64) as u64));

/// A set of distinct elements.
#[derive(Default)]
pub(super) struct Distinct<E> {
    /// The list, or the table's cells.
    cells: Vec<E>,
    /// One less than the number of the table's cells, a power of two; 0 while there is a list.
    mask: usize,
    /// Elements in the table other than zero.
    filled: usize,
    /// Zero is in the table's set.
    zero: bool,
    /// How many elements the last delta had covered.
    settled: usize,
    /// The elements that came since, if there was a delta and there is a table.
    added: Vec<E>,
}

impl<E: Element> Distinct<E> {
    /// How many elements there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        if self.mask == 0 { self.cells.len() } else { self.filled + usize::from(self.zero) }
    }

    /// The elements in no particular order.
    pub(super) fn elements(&self) -> impl Iterator<Item = E> + '_ {
        let listed = self.mask == 0;
        let filled = self.cells.iter().copied().filter(move |cell| listed || *cell != E::default());
        filled.chain((!listed && self.zero).then(E::default))
    }

    /// The elements that came after the last `settle`; everything that may be new if there was none.
    pub(super) fn added(&self) -> Vec<E> {
        match (self.settled, self.mask) {
            (0, _) => self.elements().collect(),
            (settled, 0) => self.cells.get(settled..).unwrap_or_default().to_vec(),
            _ => self.added.clone(),
        }
    }

    /// How many elements were there at the last `settle`.
    pub(super) fn settled(&self) -> usize {
        self.settled
    }

    /// Declares what is here as known.
    pub(super) fn settle(&mut self) {
        self.settled = self.len();
        self.added = Vec::new();
    }

    /// Reads the place where an element would be, so that it is near when `insert` comes. Many of these wait for
    /// memory at once; one `insert` after the other would wait for each.
    #[inline]
    pub(super) fn approach(&self, element: E) {
        black_box(self.cells.get(element.spread() as usize & self.mask));
    }

    /// Adds an element, unless it is here.
    #[inline]
    pub(super) fn insert(&mut self, element: E) {
        if self.mask == 0 {
            if self.cells.contains(&element) {
                return;
            }
            if self.cells.len() < LISTED_MAX {
                self.cells.push(element);
                return;
            }
            self.tabulate();
        }
        let new = if element == E::default() { !std::mem::replace(&mut self.zero, true) } else { self.place(element) };
        if new && self.settled > 0 {
            self.added.push(element);
        }
    }

    /// Puts an element that is not zero into its cell; false if it is there.
    #[inline]
    fn place(&mut self, element: E) -> bool {
        let mut at = element.spread() as usize & self.mask;
        loop {
            let cell = self.cells[at];
            if cell == element {
                return false;
            }
            if cell == E::default() {
                break;
            }
            at = (at + 1) & self.mask;
        }
        self.cells[at] = element;
        self.filled += 1;
        if self.filled > self.cells.len() / 4 * 3 {
            self.resize(self.cells.len() * 2);
        }
        true
    }

    /// Turns the list into a table.
    #[cold]
    fn tabulate(&mut self) {
        if self.settled > 0 {
            self.added = self.cells.get(self.settled..).unwrap_or_default().to_vec();
        }
        self.zero = self.cells.contains(&E::default());
        self.resize(LISTED_MAX * 4);
    }

    /// Moves the elements to a table of another size.
    #[cold]
    fn resize(&mut self, cells: usize) {
        let old = std::mem::replace(&mut self.cells, vec![E::default(); cells]);
        self.mask = cells - 1;
        self.filled = 0;
        for element in old {
            if element != E::default() {
                self.place(element);
            }
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        let mut cells = std::mem::take(&mut self.cells);
        cells.clear();
        *self = Distinct::default();
        if cells.capacity() <= KEPT_MAX {
            self.cells = cells;
        }
    }

    /// Bytes of memory beyond the fixed part.
    pub(super) fn heap_bytes(&self) -> usize {
        (self.cells.capacity() + self.added.capacity()) * size_of::<E>()
    }
}

/// Appends elements in ascending order.
pub(super) fn put_sorted<E: Element>(mut elements: Vec<E>, out: &mut Vec<u8>) {
    elements.sort_unstable();
    out.reserve(elements.len() * E::WIDTH);
    for element in elements {
        element.put(out);
    }
}

/// The rest of a state, which must be exactly `count` elements.
pub(super) fn take_elements<'a, E: Element>(
    mut bytes: Bytes<'a>,
    count: u64,
) -> Result<impl Iterator<Item = Result<E, Error>> + 'a, Error> {
    let needed = usize::try_from(count).ok().and_then(|count| count.checked_mul(E::WIDTH));
    if needed != Some(bytes.left()) {
        return Err(bytes.wrong(format!("{count} elements of {} bytes in {} bytes", E::WIDTH, bytes.left())));
    }
    Ok((0..count).map(move |_| E::take(&mut bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_each_element_once_and_tells_the_new_ones() {
        let mut set = Distinct::<u64>::default();
        for element in (0..1000u64).chain(0..1000) {
            set.insert(element << 40);
        }
        assert_eq!((set.len(), set.added().len()), (1000, 1000));
        set.settle();
        set.insert(999 << 40);
        assert!(set.added().is_empty());
        set.insert(5);
        assert_eq!((set.len(), set.added()), (1001, vec![5]));
        let mut elements: Vec<u64> = set.elements().collect();
        elements.sort_unstable();
        assert_eq!(elements[..3], [0, 5, 1 << 40]);
        set.clear();
        assert_eq!((set.len(), set.settled(), set.elements().count()), (0, 0, 0));
        set.insert(7);
        assert_eq!(set.elements().collect::<Vec<u64>>(), [7]);
    }

    #[test]
    fn what_came_after_a_delta_is_told_when_the_list_becomes_a_table() {
        for zero_at in [0, 4, 16, 30] {
            let mut set = Distinct::<u8>::default();
            for element in 0..40u8 {
                if element == 5 {
                    set.settle();
                }
                set.insert(if element == zero_at { 0 } else { element + 1 });
            }
            let mut added = set.added();
            added.sort_unstable();
            let mut expected: Vec<u8> = (5..40).map(|one| if one == zero_at { 0 } else { one + 1 }).collect();
            expected.sort_unstable();
            assert_eq!((set.len(), added), (40, expected));
        }
    }
}
