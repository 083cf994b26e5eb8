//! A set of distinct elements that remembers the order in which they came, so that what is new since the last
//! delta is a slice of it.
//!
//! Up to [`SCANNED`] elements are compared one by one; beyond, an open-addressing index holds the elements'
//! positions. The index is rebuilt in the order of the elements when it is full, which reads memory forwards.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::bytes::Bytes;
use crate::error::Error;

/// Up to this many elements need no index.
const SCANNED: usize = 16;

/// A cleared set keeps its memory up to this many elements, for the group that gets its slot next.
const KEPT_MAX: usize = 64;

/// An element of a set, as wide as it is in ClickHouse's state.
pub(super) trait Element: Copy + Ord + Default + 'static {
    /// Its bytes in a state.
    const WIDTH: usize = size_of::<Self>();

    /// A hash for the index; never seen outside.
    fn spread(self) -> u64;

    /// Appends it to a state.
    fn put(self, out: &mut Vec<u8>);

    /// Reads it from `WIDTH` bytes of a state.
    fn take(bytes: &mut Bytes<'_>) -> Result<Self, Error>;

    /// The low bits of a number.
    fn truncated(bits: u128) -> Self;
}

/// Mixes the bits of a number into both halves of a hash: the index reads its low bits and its top seven.
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

/// A set has as many elements as its index can number.
#[derive(Debug)]
pub(super) struct Full;

/// A set of distinct elements.
#[derive(Clone, Default)]
pub(super) struct Distinct<E> {
    elements: Vec<E>,
    /// Positions in `elements`; empty while these are few.
    index: HashTable<u32>,
    /// How many elements the last delta had covered.
    settled: usize,
}

impl<E: Element> Distinct<E> {
    /// How many elements there are.
    pub(super) fn len(&self) -> usize {
        self.elements.len()
    }

    /// The elements in the order in which they came.
    pub(super) fn elements(&self) -> &[E] {
        &self.elements
    }

    /// The elements that came after the last `settle`.
    pub(super) fn added(&self) -> &[E] {
        self.elements.get(self.settled..).unwrap_or_default()
    }

    /// How many elements were there at the last `settle`.
    pub(super) fn settled(&self) -> usize {
        self.settled
    }

    /// Declares what is here as known.
    pub(super) fn settle(&mut self) {
        self.settled = self.elements.len();
    }

    /// Adds an element, unless it is here.
    #[inline]
    pub(super) fn insert(&mut self, element: E) -> Result<(), Full> {
        if self.elements.len() < SCANNED {
            if !self.elements.contains(&element) {
                self.elements.push(element);
            }
            return Ok(());
        }
        if self.index.len() == self.index.capacity() || self.index.is_empty() {
            self.rebuild();
        }
        let elements = &self.elements;
        let found = self.index.entry(
            element.spread(),
            |position| elements[*position as usize] == element,
            |position| elements[*position as usize].spread(),
        );
        if let Entry::Vacant(vacant) = found {
            vacant.insert(u32::try_from(elements.len()).map_err(|_| Full)?);
            self.elements.push(element);
        }
        Ok(())
    }

    /// Numbers all elements in an index with room for twice as many.
    #[cold]
    fn rebuild(&mut self) {
        let mut index = HashTable::with_capacity(self.elements.len() * 2);
        for (position, element) in self.elements.iter().enumerate() {
            index.insert_unique(element.spread(), position as u32, |position: &u32| {
                self.elements[*position as usize].spread()
            });
        }
        self.index = index;
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.settled = 0;
        if self.elements.capacity() > KEPT_MAX {
            *self = Distinct { elements: Vec::new(), index: HashTable::new(), settled: 0 };
        } else {
            self.elements.clear();
            self.index.clear();
        }
    }

    /// Bytes of memory beyond the fixed part.
    pub(super) fn heap_bytes(&self) -> usize {
        self.elements.capacity() * size_of::<E>() + self.index.allocation_size()
    }
}

/// Appends elements in ascending order.
pub(super) fn put_sorted<E: Element>(elements: &[E], out: &mut Vec<u8>) {
    let mut sorted = elements.to_vec();
    sorted.sort_unstable();
    out.reserve(sorted.len() * E::WIDTH);
    for element in sorted {
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
            set.insert(element * 0x1_0000_0001).unwrap();
        }
        assert_eq!(set.len(), 1000);
        assert_eq!(set.added().len(), 1000);
        set.settle();
        set.insert(999 * 0x1_0000_0001).unwrap();
        assert!(set.added().is_empty());
        set.insert(5).unwrap();
        assert_eq!(set.added(), [5]);
        set.clear();
        assert_eq!((set.len(), set.settled(), set.heap_bytes()), (0, 0, 0));
        set.insert(7).unwrap();
        assert_eq!(set.elements(), [7]);
    }
}
