//! A table of bytes: what the epochs in memory changed, above what RocksDB holds.
//!
//! Invariants: a read sees every write before it, whatever has been frozen, committed or not; a key of a group
//! that another worker owns is refused, since that worker's changes in memory cannot be seen from here.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::rc::Rc;
use std::sync::Arc;

use weir_schemas::time::Epoch;

use super::changes::{FrozenChanges, GroupChanges, KeyRange, Staged, TablePrefix, after_prefix, full_key, span_of};
use super::pieces::{self, Stored};
use super::store::{Family, Store};
use super::{OperatorId, at};
use crate::error::Error;

/// An operator's table of bytes on one worker.
///
/// `group` is the key group of the *routing* key, by which rows reach the worker; the key itself may be anything,
/// and within a group keys are in byte order. A value is whole, or a whole value and what was added to it since:
/// the owner folds them when it reads, and puts the result when [`Stored::len`] has grown.
pub struct ByteTable {
    inner: Rc<RefCell<Inner>>,
}

/// Shared by the table and the registry that freezes it; never borrowed across a call of the operator.
pub(super) struct Inner {
    store: Arc<Store>,
    operator: Arc<str>,
    prefix: TablePrefix,
    owned: Range<u16>,
    open: Epoch,
    staged: Staged,
    /// Oldest first; those that are committed are dropped at the next read or freeze.
    frozen: VecDeque<Arc<FrozenChanges>>,
}

impl ByteTable {
    pub(super) fn new(inner: Rc<RefCell<Inner>>) -> ByteTable {
        ByteTable { inner }
    }

    /// What is stored under `key`.
    pub fn get(&self, group: u16, key: &[u8]) -> Result<Option<Stored>, Error> {
        let mut inner = self.inner.borrow_mut();
        inner.check(group)?;
        inner.drop_committed();
        let overlay = inner.overlay(group, key);
        if overlay.hides_stored {
            return inner.join(key, None, &overlay);
        }
        let mut full = Vec::with_capacity(key.len() + 8);
        full_key(&mut full, inner.prefix, group, key);
        let stored = inner.store.get_pinned(Family::State, &full).map_err(|error| at(&inner.operator, error))?;
        inner.join(key, stored.as_deref(), &overlay)
    }

    /// What is stored under each of `keys`, in their order, with one read of RocksDB for all.
    pub fn get_many<'k>(&self, keys: impl IntoIterator<Item = (u16, &'k [u8])>) -> Result<Vec<Option<Stored>>, Error> {
        let mut inner = self.inner.borrow_mut();
        inner.drop_committed();
        let inner = &*inner;
        let mut found = Vec::new();
        let (mut asked, mut asked_for) = (Vec::new(), Vec::new());
        for (group, key) in keys {
            inner.check(group)?;
            let overlay = inner.overlay(group, key);
            if overlay.hides_stored {
                found.push(inner.join(key, None, &overlay)?);
            } else {
                let mut full = Vec::with_capacity(key.len() + 8);
                full_key(&mut full, inner.prefix, group, key);
                asked.push(full);
                asked_for.push((found.len(), key, overlay));
                found.push(None);
            }
        }
        let stored = inner.store.get_many(Family::State, &asked).map_err(|error| at(&inner.operator, error))?;
        for ((place, key, overlay), stored) in asked_for.into_iter().zip(stored) {
            if let Some(place) = found.get_mut(place) {
                *place = inner.join(key, stored.as_deref(), &overlay)?;
            }
        }
        Ok(found)
    }

    /// Sets the whole value of `key`.
    pub fn put(&mut self, group: u16, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let mut inner = self.inner.borrow_mut();
        inner.check(group)?;
        inner.staged.change(group, key, true, |out| pieces::push_whole(out, value));
        Ok(())
    }

    /// Adds `delta` to the value of `key`, without reading it.
    pub fn merge(&mut self, group: u16, key: &[u8], delta: &[u8]) -> Result<(), Error> {
        let mut inner = self.inner.borrow_mut();
        inner.check(group)?;
        let open = inner.open;
        inner.staged.change(group, key, false, |out| pieces::push_added(out, open, delta));
        Ok(())
    }

    /// Removes `key`; one that is not there is no error.
    pub fn delete(&mut self, group: u16, key: &[u8]) -> Result<(), Error> {
        let mut inner = self.inner.borrow_mut();
        inner.check(group)?;
        inner.staged.change(group, key, true, |_| {});
        Ok(())
    }

    /// Removes every key of the group that begins with `prefix`, without reading them. RocksDB keeps a mark for
    /// each such range until it compacts, which reads have to pass: for a few known keys, delete them.
    pub fn delete_prefix(&mut self, group: u16, prefix: &[u8]) -> Result<(), Error> {
        self.clear(group, KeyRange::of_prefix(prefix))
    }

    /// Removes every key of the group from `from` up to and without `to`.
    pub fn delete_range(&mut self, group: u16, from: &[u8], to: &[u8]) -> Result<(), Error> {
        if from >= to {
            return Ok(());
        }
        self.clear(group, KeyRange { from: from.to_vec(), to: Some(to.to_vec()) })
    }

    fn clear(&mut self, group: u16, range: KeyRange) -> Result<(), Error> {
        let mut inner = self.inner.borrow_mut();
        inner.check(group)?;
        inner.staged.clear(group, range);
        Ok(())
    }

    /// Shows the keys of one group that begin with `prefix`, in order, until `visit` breaks.
    pub fn scan_prefix(
        &self,
        group: u16,
        prefix: &[u8],
        mut visit: impl FnMut(&[u8], Stored) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let mut inner = self.inner.borrow_mut();
        inner.check(group)?;
        inner.drop_committed();
        inner.scan(group, &KeyRange::of_prefix(prefix), &mut visit).map(drop)
    }

    /// Shows the keys of one group from `from` up to and without `to`, in order, until `visit` breaks.
    pub fn scan_range(
        &self,
        group: u16,
        from: &[u8],
        to: &[u8],
        mut visit: impl FnMut(&[u8], Stored) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let mut inner = self.inner.borrow_mut();
        inner.check(group)?;
        inner.drop_committed();
        inner.scan(group, &KeyRange { from: from.to_vec(), to: Some(to.to_vec()) }, &mut visit).map(drop)
    }

    /// Shows every key of the worker's groups, group by group and in order within each, until `visit` breaks:
    /// what an operator loads when it starts.
    pub fn scan(
        &self,
        mut visit: impl FnMut(u16, &[u8], Stored) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let mut inner = self.inner.borrow_mut();
        inner.drop_committed();
        let everything = KeyRange::of_prefix(&[]);
        for group in inner.groups_in_use()? {
            if inner.scan(group, &everything, &mut |key, stored| visit(group, key, stored))?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The name of the operator, for errors.
    pub(crate) fn operator(&self) -> Arc<str> {
        self.inner.borrow().operator.clone()
    }
}

/// What the layers in memory say about a key.
struct Overlay<'a> {
    /// Whether what RocksDB holds does not count.
    hides_stored: bool,
    /// Newest first.
    changes: Vec<&'a [u8]>,
}

impl Inner {
    pub(super) fn new(
        store: Arc<Store>,
        operator: Arc<str>,
        id: OperatorId,
        number: u16,
        owned: Range<u16>,
        open: Epoch,
    ) -> Inner {
        let [a, b, c, d] = id.0.to_be_bytes();
        let [e, f] = number.to_be_bytes();
        Inner {
            store,
            operator,
            prefix: [a, b, c, d, e, f],
            owned,
            open,
            staged: Staged::default(),
            frozen: VecDeque::new(),
        }
    }

    pub(super) fn freeze(&mut self, epoch: Epoch) -> Option<Arc<FrozenChanges>> {
        self.open = epoch.next();
        self.drop_committed();
        if self.staged.is_empty() {
            return None;
        }
        let frozen = Arc::new(FrozenChanges::new(self.prefix, epoch, std::mem::take(&mut self.staged)));
        self.frozen.push_back(frozen.clone());
        Some(frozen)
    }

    fn check(&self, group: u16) -> Result<(), Error> {
        if self.owned.contains(&group) {
            return Ok(());
        }
        let Range { start, end } = self.owned;
        Err(at(
            &self.operator,
            format!("key group {group} is not of this worker, which owns {start}..{end}: route its input by group"),
        ))
    }

    /// Committed epochs are read from RocksDB: the number is raised only after the write has returned.
    fn drop_committed(&mut self) {
        let committed = self.store.committed_epoch();
        while self.frozen.front().is_some_and(|frozen| frozen.epoch() <= committed) {
            self.frozen.pop_front();
        }
    }

    /// The layers of a group, newest first.
    fn layers(&self, group: u16) -> impl Iterator<Item = &GroupChanges> {
        let frozen = self.frozen.iter().rev().filter_map(move |frozen| frozen.group(group));
        self.staged.group(group).into_iter().chain(frozen)
    }

    fn overlay(&self, group: u16, key: &[u8]) -> Overlay<'_> {
        let mut overlay = Overlay { hides_stored: false, changes: Vec::new() };
        for layer in self.layers(group) {
            if let Some(change) = layer.get(key) {
                overlay.changes.push(&change.pieces);
                overlay.hides_stored = change.resets;
            }
            overlay.hides_stored |= layer.clears(key);
            if overlay.hides_stored {
                break;
            }
        }
        overlay
    }

    fn join(&self, key: &[u8], stored: Option<&[u8]>, overlay: &Overlay<'_>) -> Result<Option<Stored>, Error> {
        let newer: Vec<&[u8]> = overlay.changes.iter().rev().copied().collect();
        // A commit may be written and not yet published: its added pieces are in both places.
        let held_from = self.frozen.front().map(|frozen| frozen.epoch());
        Stored::join(stored, held_from, &newer)
            .map_err(|_| at(&self.operator, format!("the value under key {} is corrupt", key.escape_ascii())))
    }

    fn scan(
        &self,
        group: u16,
        range: &KeyRange,
        visit: &mut impl FnMut(&[u8], Stored) -> Result<ControlFlow<()>, Error>,
    ) -> Result<ControlFlow<()>, Error> {
        let failed = |error| at(&self.operator, error);
        let mut in_memory: Vec<&[u8]> = self.layers(group).flat_map(|layer| layer.keys_in(range)).collect();
        in_memory.sort_unstable();
        in_memory.dedup();
        let mut in_memory = in_memory.into_iter().peekable();
        let (mut from, mut to) = (Vec::new(), Vec::new());
        full_key(&mut from, self.prefix, group, &range.from);
        match &range.to {
            Some(end) => full_key(&mut to, self.prefix, group, end),
            None => full_key(&mut to, self.prefix, group + 1, &[]),
        }
        let mut stored = self.store.iterate(Family::State, &from, &to).map_err(failed)?;
        let mut next_stored = stored.next().transpose().map_err(failed_iteration(&self.operator))?;
        loop {
            let stored_key = next_stored.as_ref().and_then(|(key, _)| key.get(8..));
            let (key, value) = match (in_memory.peek().copied(), stored_key) {
                (None, None) => return Ok(ControlFlow::Continue(())),
                (Some(key), Some(other)) if key < other => (key.to_vec(), None),
                (Some(key), None) => (key.to_vec(), None),
                (_, Some(_)) => match next_stored.take() {
                    Some((key, value)) => (key.get(8..).unwrap_or_default().to_vec(), Some(value)),
                    None => return Ok(ControlFlow::Continue(())),
                },
            };
            if in_memory.peek() == Some(&key.as_slice()) {
                in_memory.next();
            }
            if value.is_some() {
                next_stored = stored.next().transpose().map_err(failed_iteration(&self.operator))?;
            }
            let overlay = self.overlay(group, &key);
            let value = value.as_deref().filter(|_| !overlay.hides_stored);
            if let Some(joined) = self.join(&key, value, &overlay)?
                && visit(&key, joined)?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
    }

    /// The owned groups that have anything: a seek each, instead of a scan each.
    fn groups_in_use(&self) -> Result<Vec<u16>, Error> {
        let mut groups: Vec<u16> = self.owned.clone().filter(|group| self.layers(*group).next().is_some()).collect();
        let (mut from, to) = span_of(self.prefix, &self.owned);
        loop {
            let mut entries =
                self.store.iterate(Family::State, &from, &to).map_err(|error| at(&self.operator, error))?;
            let Some((key, _)) = entries.next().transpose().map_err(failed_iteration(&self.operator))? else { break };
            let Some(group) = key.get(6..8).and_then(|bytes| <[u8; 2]>::try_from(bytes).ok()).map(u16::from_be_bytes)
            else {
                return Err(at(&self.operator, "a key without a key group"));
            };
            groups.push(group);
            match after_prefix(key.get(..8).unwrap_or_default()) {
                Some(next) => from = next,
                None => break,
            }
        }
        groups.sort_unstable();
        groups.dedup();
        Ok(groups)
    }
}

fn failed_iteration(operator: &str) -> impl Fn(rocksdb::Error) -> Error {
    move |error| at(operator, error)
}
