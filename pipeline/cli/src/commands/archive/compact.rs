//! `weir archive compact`: merging, letting go and deleting, at once.

use std::collections::BTreeSet;
use std::path::Path;

use weir_archive::{Archive, Catalog, Error};
use weir_pipeline::archive::keep;
use weir_pipeline::clock::Clock;

use super::{Shelf, of_archive};
use crate::out::say;
use crate::{Outcome, counted, paint};

/// How often a step is decided anew because a running pipeline committed meanwhile.
const TRIES: usize = 20;

pub(super) fn run(file: &Path) -> Result<Outcome, Outcome> {
    let Shelf { config, archive, mut catalog, .. } = Shelf::open(file)?;
    let now = || chrono::DateTime::from_timestamp_millis(Clock::default().now_ms()).unwrap_or_default();
    let (mut merges, mut objects, mut damaged) = (0, 0, BTreeSet::new());
    if let Some(compaction) = keep::compaction(&config) {
        loop {
            let merge = |catalog: &mut Catalog| archive.merge(catalog, compaction, &damaged, now());
            match decided(&archive, &mut catalog, merge) {
                Ok(Some(merged)) => {
                    merges += 1;
                    objects += merged.objects;
                }
                Ok(None) => break,
                // All else is merged without it.
                Err(Error::Damaged { object, detail }) if catalog.entries.contains_key(&object) => {
                    say!("{} isn't merged: {detail}", paint::bad(&object));
                    damaged.insert(object);
                }
                Err(error) => return Err(of_archive(error)),
            }
        }
    }
    say!("{} merged into {merges}", counted(objects, "object"));
    let mut expired = 0;
    let topics: Vec<String> = catalog.topics.keys().cloned().collect();
    for topic in topics {
        let Some(before_ms) = keep::kept_from_ms(&config, &topic, now()) else { continue };
        let expire = |catalog: &mut Catalog| archive.expire(catalog, &topic, before_ms, now());
        expired += decided(&archive, &mut catalog, expire).map_err(of_archive)?;
    }
    say!("{} older than they are kept", counted(expired, "object"));
    let sweep = |catalog: &mut Catalog| archive.sweep_removed(catalog, keep::grace(&config), now());
    let removed = decided(&archive, &mut catalog, sweep).map_err(of_archive)?;
    let nobodys = archive.sweep_nobodys(now()).map_err(of_archive)?;
    say!("{} deleted, {nobodys} of them from an interrupted write", counted(removed + nobodys, "object"));
    Ok(if damaged.is_empty() { Outcome::done() } else { Outcome::different() })
}

/// Takes a step, again from what is there now where somebody else has committed in between.
fn decided<T>(
    archive: &Archive,
    catalog: &mut Catalog,
    step: impl Fn(&mut Catalog) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        match step(catalog) {
            Err(Error::Conflict { .. }) if tries < TRIES => *catalog = archive.catalog()?,
            done => return done,
        }
    }
}
