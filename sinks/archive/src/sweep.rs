//! Sweeping: objects that the manifest doesn't name any more, or never did, are deleted.
//!
//! What was replaced or has expired goes after a grace, for those who are reading it. What was never named was written by
//! somebody who was killed before the commit, or who is about to make it: it goes an hour after it was written, and
//! only if its name is one that this crate gives and fits its bytes. Nobody else's file is ever deleted.
//!
//! Nor is one deleted whose offsets the manifest doesn't have: a manifest that has lost its last commits can't be told from an
//! interrupted write, and its objects may be all that is left of their records. Once the offsets are archived again, it goes.

use chrono::{DateTime, TimeDelta, Utc};

use crate::catalog::Catalog;
use crate::error::Error;
use crate::manifest::{Archive, Change, Commit, Gap};
use crate::name;
use crate::store::Listed;

/// After how long an object without a commit is nobody's.
const NOBODYS_AFTER: TimeDelta = TimeDelta::hours(1);

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
        let mut catalog = self.catalog()?;
        let mut count = 0;
        for of in listed {
            if !is_old(&of, now) || self.unnamed(&catalog, &of)? != Some(Unnamed::Archived) {
                continue;
            }
            // Whoever writes the same again makes it young, and names it then.
            let is_same = self.store().written_at(&of.name)? == Some(of.written_at);
            self.refresh(&mut catalog)?;
            if is_same && !catalog.names(&of.name) {
                self.store().delete(&of.name)?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// What an object is that was written by an archive and isn't named by a commit; `None` for all others.
    pub(crate) fn unnamed(&self, catalog: &Catalog, of: &Listed) -> Result<Option<Unnamed>, Error> {
        let Some(named) = name::parse(&of.name).filter(|_| !catalog.names(&of.name)) else { return Ok(None) };
        if !self.spill(&of.name)?.is_some_and(|spilled| spilled.sha256.starts_with(named.begins)) {
            return Ok(None);
        }
        let is_archived = catalog.log(named.topic, named.partition).is_some_and(|log| {
            // One that was merged may span a gap; one that was written begins or ends in it.
            let is_in = |gap: &Gap, offset: i64| (gap.first..gap.next).contains(&offset);
            let is_in_gap = log.gaps.iter().any(|gap| is_in(gap, named.first) || is_in(gap, named.last));
            log.first <= named.first && named.last < log.next && !is_in_gap
        });
        Ok(Some(if is_archived { Unnamed::Archived } else { Unnamed::Unknown }))
    }
}

/// An object of an archive's writer that no commit names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unnamed {
    /// Its offsets were archived without it.
    Archived,
    /// The manifest doesn't have its offsets.
    Unknown,
}

/// Whether an object that no commit names is nobody's by its age.
pub(crate) fn is_old(of: &Listed, now: DateTime<Utc>) -> bool {
    of.written_at + NOBODYS_AFTER < now
}
