//! Sweeping: objects that the manifest doesn't name any more, or never did, are deleted.
//!
//! What was replaced or has expired goes after a grace, for those who are reading it. What was never named was written by
//! somebody who was killed before the commit, or who is about to make it: it goes an hour after it was written, and
//! only if its name is one that this crate gives and fits its bytes. Nobody else's file is ever deleted.

use chrono::{DateTime, TimeDelta, Utc};

use crate::catalog::Catalog;
use crate::crypto::sha256;
use crate::error::Error;
use crate::manifest::{Archive, Change, Commit};
use crate::name;
use crate::store::Listed;

/// After how long an object without a commit is nobody's.
const NOBODYS_AFTER: TimeDelta = TimeDelta::hours(1);

/// What was swept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Objects that were replaced or had expired.
    pub removed: usize,
    /// Objects that were never named.
    pub nobodys: usize,
}

impl Archive {
    /// Deletes what was removed before `grace`.
    ///
    /// # Errors
    /// As of [`Archive::commit`].
    pub fn sweep_removed(&self, catalog: &mut Catalog, grace: TimeDelta, now: DateTime<Utc>) -> Result<usize, Error> {
        let before = (now - grace).timestamp_millis();
        let is_due = |(name, at): &(&String, &i64)| **at <= before && !catalog.entries.contains_key(*name);
        let deleted: Vec<String> = catalog.removed.iter().filter(is_due).map(|(name, _)| name.clone()).collect();
        for name in &deleted {
            self.store().delete(name)?;
        }
        let count = deleted.len();
        if count > 0 {
            self.commit(catalog, Commit { change: Change::Delete, deleted, ..Commit::default() }, now)?;
        }
        Ok(count)
    }

    /// Deletes what a writer that was killed left behind. `catalog` must have been read after no other writer could be
    /// at work on what is older than an hour.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn sweep_nobodys(&self, now: DateTime<Utc>) -> Result<usize, Error> {
        // Listed first, so that what was committed in between is known.
        let listed = self.store().list("")?;
        let catalog = self.catalog()?;
        let mut count = 0;
        for of in listed {
            if of.written_at + NOBODYS_AFTER < now && self.is_left_over(&catalog, &of)? {
                self.store().delete(&of.name)?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Whether an object was written by an archive and never named by a commit.
    pub(crate) fn is_left_over(&self, catalog: &Catalog, of: &Listed) -> Result<bool, Error> {
        if catalog.entries.contains_key(&of.name) || catalog.removed.contains_key(&of.name) {
            return Ok(false);
        }
        let Some(begins) = name::parse(&of.name) else { return Ok(false) };
        Ok(self.store().get(&of.name)?.is_some_and(|bytes| sha256(&bytes).starts_with(begins)))
    }
}
