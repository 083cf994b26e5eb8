//! A typed table with a working set in memory.
//!
//! Invariants: an entry leaves memory only when its last change has been staged in the table of bytes, so
//! eviction never loses one; that a key is *not* there is remembered, too. Memory is bounded by the encoded size
//! of the entries: a value that grows under [`KeyedTable::get_mut`] is weighed again when it is next written.
//!
//! Not here: adding to a value without reading it; an owner of big values uses [`ByteTable::merge`].

use std::cell::{Ref, RefCell, RefMut};
use std::hash::{BuildHasher, Hash};
use std::ops::ControlFlow;
use std::rc::Rc;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::codec::Codec;
use super::pieces::Stored;
use super::{ByteTable, at};
use crate::error::Error;

/// An operator's table of `K` to `V` on one worker. `group` is the key group of the routing key, as in
/// [`ByteTable`].
pub struct KeyedTable<K, V> {
    working: Rc<RefCell<WorkingSet<K, V>>>,
}

/// What the registry does to a working set before it freezes the table beneath.
pub(super) trait Flush {
    /// Stages every changed entry.
    fn flush(&mut self) -> Result<(), Error>;
}

struct WorkingSet<K, V> {
    table: ByteTable,
    limit_bytes: usize,
    bytes: usize,
    hasher: DefaultHashBuilder,
    index: HashTable<usize>,
    slots: Vec<Option<Entry<K, V>>>,
    free: Vec<usize>,
    /// Slots that may hold a changed entry.
    changed: Vec<usize>,
    /// Where the clock that looks for entries to evict stands.
    hand: usize,
}

struct Entry<K, V> {
    group: u16,
    key: K,
    value: Option<V>,
    bytes: usize,
    changed: bool,
    /// Used since the hand last came by.
    touched: bool,
}

impl<K, V> KeyedTable<K, V>
where
    K: Codec + Hash + Eq + Clone + 'static,
    V: Codec + 'static,
{
    /// The table, and the part of it that the registry flushes.
    pub(super) fn new(table: ByteTable, limit_bytes: usize) -> (KeyedTable<K, V>, Rc<RefCell<dyn Flush>>) {
        let working = Rc::new(RefCell::new(WorkingSet {
            table,
            limit_bytes,
            bytes: 0,
            hasher: DefaultHashBuilder::default(),
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            changed: Vec::new(),
            hand: 0,
        }));
        (KeyedTable { working: working.clone() }, working)
    }

    /// The value of `key`.
    pub fn get(&mut self, group: u16, key: &K) -> Result<Option<Ref<'_, V>>, Error> {
        let slot = self.working.borrow_mut().load(group, key)?;
        Ok(Ref::filter_map(self.working.borrow(), |working| working.entry(slot)?.value.as_ref()).ok())
    }

    /// The value of `key`, to change it.
    pub fn get_mut(&mut self, group: u16, key: &K) -> Result<Option<RefMut<'_, V>>, Error> {
        let mut working = self.working.borrow_mut();
        let slot = working.load(group, key)?;
        if working.entry(slot).is_some_and(|entry| entry.value.is_some()) {
            working.mark_changed(slot);
        }
        Ok(RefMut::filter_map(working, |working| working.entry_mut(slot)?.value.as_mut()).ok())
    }

    /// The value of `key`, to change it; `make` gives it if there is none.
    pub fn get_or_insert_with(
        &mut self,
        group: u16,
        key: &K,
        make: impl FnOnce() -> V,
    ) -> Result<RefMut<'_, V>, Error> {
        let mut working = self.working.borrow_mut();
        let slot = working.load(group, key)?;
        working.mark_changed(slot);
        RefMut::filter_map(working, |working| Some(working.entry_mut(slot)?.value.get_or_insert_with(make)))
            .map_err(|working| at(&working.table.operator(), "a loaded entry is not in memory"))
    }

    /// Sets the value of `key`.
    pub fn insert(&mut self, group: u16, key: &K, value: V) -> Result<(), Error> {
        let mut working = self.working.borrow_mut();
        let slot = match working.find(group, key) {
            Some(slot) => slot,
            // What was there does not matter, so it is not read.
            None => working.place(group, key.clone(), None, 0)?,
        };
        if let Some(entry) = working.entry_mut(slot) {
            entry.value = Some(value);
        }
        working.mark_changed(slot);
        Ok(())
    }

    /// Removes `key`; one that is not there is no error.
    pub fn remove(&mut self, group: u16, key: &K) -> Result<(), Error> {
        let mut working = self.working.borrow_mut();
        let slot = match working.find(group, key) {
            Some(slot) => slot,
            None => working.place(group, key.clone(), None, 0)?,
        };
        if let Some(entry) = working.entry_mut(slot) {
            entry.value = None;
        }
        working.mark_changed(slot);
        Ok(())
    }

    /// Reads the keys that are not in memory, all at once: call it with the keys of a batch before using them.
    pub fn prefetch<'k>(&mut self, keys: impl IntoIterator<Item = (u16, &'k K)>) -> Result<(), Error> {
        let mut working = self.working.borrow_mut();
        let mut missing: Vec<(u16, &K)> =
            keys.into_iter().filter(|(group, key)| working.find(*group, key).is_none()).collect();
        let mut seen = hashbrown::HashSet::with_capacity(missing.len());
        missing.retain(|asked| seen.insert(*asked));
        let encoded: Vec<Vec<u8>> = missing.iter().map(|(_, key)| encoded(*key)).collect();
        let groups = missing.iter().map(|(group, _)| *group);
        let stored = working.table.get_many(groups.zip(encoded.iter().map(Vec::as_slice)))?;
        for (((group, key), encoded), stored) in missing.into_iter().zip(&encoded).zip(stored) {
            let (value, bytes) = working.decode(stored)?;
            working.place(group, key.clone(), value, bytes + encoded.len())?;
        }
        Ok(())
    }

    /// Shows the entries of one group whose keys begin with `prefix` (the leading parts of a tuple, or `()` for
    /// all), in order, until `visit` breaks.
    pub fn scan_prefix<P: Codec>(
        &mut self,
        group: u16,
        prefix: &P,
        mut visit: impl FnMut(K, V) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let mut working = self.working.borrow_mut();
        working.flush()?;
        let operator = working.table.operator();
        working.table.scan_prefix(group, &encoded(prefix), |key, stored| {
            let (key, value) = decode_entry(&operator, key, &stored)?;
            visit(key, value)
        })
    }

    /// Shows every entry of the worker's groups, group by group and in order within each, until `visit` breaks.
    pub fn scan(&mut self, mut visit: impl FnMut(u16, K, V) -> Result<ControlFlow<()>, Error>) -> Result<(), Error> {
        let mut working = self.working.borrow_mut();
        working.flush()?;
        let operator = working.table.operator();
        working.table.scan(|group, key, stored| {
            let (key, value) = decode_entry(&operator, key, &stored)?;
            visit(group, key, value)
        })
    }

    /// How many entries are in memory, those known to be absent included.
    pub fn entries_in_memory(&self) -> usize {
        self.working.borrow().index.len()
    }
}

fn encoded(value: &impl Codec) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(&mut out);
    out
}

fn decode_value<V: Codec>(operator: &str, stored: &Stored) -> Result<V, Error> {
    match stored.whole() {
        Some(bytes) if stored.len() == 1 => V::decode_all(bytes).map_err(|error| at(operator, error)),
        _ => Err(at(operator, "a value of a typed table has parts that were added")),
    }
}

fn decode_entry<K: Codec, V: Codec>(operator: &str, key: &[u8], stored: &Stored) -> Result<(K, V), Error> {
    let key = K::decode_all(key).map_err(|error| at(operator, error))?;
    Ok((key, decode_value(operator, stored)?))
}

impl<K, V> WorkingSet<K, V>
where
    K: Codec + Hash + Eq,
    V: Codec,
{
    fn entry(&self, slot: usize) -> Option<&Entry<K, V>> {
        self.slots.get(slot)?.as_ref()
    }

    fn entry_mut(&mut self, slot: usize) -> Option<&mut Entry<K, V>> {
        self.slots.get_mut(slot)?.as_mut()
    }

    fn find(&mut self, group: u16, key: &K) -> Option<usize> {
        let hash = self.hasher.hash_one((group, key));
        let slots = &self.slots;
        let slot = *self.index.find(hash, |slot| {
            slots.get(*slot).and_then(Option::as_ref).is_some_and(|entry| entry.group == group && entry.key == *key)
        })?;
        self.entry_mut(slot)?.touched = true;
        Some(slot)
    }

    /// The slot of `key`, read into memory if it was not there.
    fn load(&mut self, group: u16, key: &K) -> Result<usize, Error>
    where
        K: Clone,
    {
        if let Some(slot) = self.find(group, key) {
            return Ok(slot);
        }
        let encoded = encoded(key);
        let stored = self.table.get(group, &encoded)?;
        let (value, bytes) = self.decode(stored)?;
        self.place(group, key.clone(), value, bytes + encoded.len())
    }

    fn decode(&self, stored: Option<Stored>) -> Result<(Option<V>, usize), Error> {
        let Some(stored) = stored else { return Ok((None, 0)) };
        let bytes = stored.whole().map_or(0, <[u8]>::len);
        Ok((Some(decode_value(&self.table.operator(), &stored)?), bytes))
    }

    /// Puts an entry that is not in memory there, after making room for it.
    fn place(&mut self, group: u16, key: K, value: Option<V>, encoded_bytes: usize) -> Result<usize, Error> {
        let bytes = encoded_bytes + size_of::<Option<Entry<K, V>>>();
        while !self.index.is_empty() && self.bytes + bytes > self.limit_bytes {
            self.evict_one()?;
        }
        let hash = self.hasher.hash_one((group, &key));
        let entry = Some(Entry { group, key, value, bytes, changed: false, touched: true });
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = entry;
                slot
            }
            None => {
                self.slots.push(entry);
                self.slots.len() - 1
            }
        };
        let WorkingSet { index, slots, hasher, .. } = self;
        index.insert_unique(hash, slot, |slot| match &slots[*slot] {
            Some(entry) => hasher.hash_one((entry.group, &entry.key)),
            None => 0,
        });
        self.bytes += bytes;
        Ok(slot)
    }

    fn mark_changed(&mut self, slot: usize) {
        if let Some(entry) = self.entry_mut(slot)
            && !entry.changed
        {
            entry.changed = true;
            self.changed.push(slot);
        }
    }

    /// Moves the hand to the next entry that was not used since it last came by, and lets that one go.
    fn evict_one(&mut self) -> Result<(), Error> {
        loop {
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            let slot = self.hand;
            match self.entry_mut(slot) {
                None => continue,
                Some(entry) if entry.touched => entry.touched = false,
                Some(_) => {
                    self.stage(slot)?;
                    if let Some(entry) = self.slots[slot].take() {
                        self.bytes -= entry.bytes;
                        let hash = self.hasher.hash_one((entry.group, &entry.key));
                        if let Ok(found) = self.index.find_entry(hash, |other| *other == slot) {
                            found.remove();
                        }
                        self.free.push(slot);
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Stages the entry's change, if it has one, and weighs it again.
    fn stage(&mut self, slot: usize) -> Result<(), Error> {
        let WorkingSet { table, slots, bytes, .. } = self;
        let Some(entry) = slots.get_mut(slot).and_then(Option::as_mut).filter(|entry| entry.changed) else {
            return Ok(());
        };
        let key = encoded(&entry.key);
        let mut weight = key.len() + size_of::<Option<Entry<K, V>>>();
        match &entry.value {
            Some(value) => {
                let value = encoded(value);
                weight += value.len();
                table.put(entry.group, &key, &value)?;
            }
            None => table.delete(entry.group, &key)?,
        }
        entry.changed = false;
        *bytes = *bytes + weight - entry.bytes;
        entry.bytes = weight;
        Ok(())
    }
}

impl<K, V> Flush for WorkingSet<K, V>
where
    K: Codec + Hash + Eq,
    V: Codec,
{
    fn flush(&mut self) -> Result<(), Error> {
        for slot in std::mem::take(&mut self.changed) {
            self.stage(slot)?;
        }
        while self.index.len() > 1 && self.bytes > self.limit_bytes {
            self.evict_one()?;
        }
        Ok(())
    }
}
