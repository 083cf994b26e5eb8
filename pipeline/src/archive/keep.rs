//! Keeping an archive: merging, letting go of what is old, sweeping. A little at a time, between commits.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use weir_archive::{Archive, Catalog, Compaction, Error};

use crate::config;

/// How often old records are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(600);

/// How often a whole archive is listed, for what a killed writer left.
const SWEEP_EVERY: Duration = Duration::from_secs(86_400);

/// How often something to merge or to delete is looked for, when there was nothing.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What is merged, by the pipeline file; nothing where it says so.
pub fn compaction(config: &config::archive::Archive) -> Option<Compaction> {
    let settle_ms = i64::try_from(config.merge_after_ms).unwrap_or(i64::MAX);
    (config.merge_to_bytes > 0).then_some(Compaction { aim_bytes: config.merge_to_bytes, settle_ms })
}

/// The time before which a topic's records aren't kept, in milliseconds since 1970.
pub fn kept_from_ms(config: &config::archive::Archive, topic: &str, now: DateTime<Utc>) -> Option<i64> {
    config.keep_days_of(topic).map(|days| (now - TimeDelta::days(i64::from(days))).timestamp_millis())
}

/// How long objects that count no more are left alone.
pub fn grace(config: &config::archive::Archive) -> TimeDelta {
    TimeDelta::try_milliseconds(i64::try_from(config.delete_after_ms).unwrap_or(i64::MAX)).unwrap_or(TimeDelta::MAX)
}

/// What was done when.
#[derive(Default)]
pub(super) struct Keeper {
    looked_at: Option<Instant>,
    expired_at: Option<Instant>,
    swept_at: Option<Instant>,
    is_stopped: bool,
}

fn is_due(at: &mut Option<Instant>, every: Duration) -> bool {
    let is_due = at.is_none_or(|at| at.elapsed() >= every);
    if is_due {
        *at = Some(Instant::now());
    }
    is_due
}

impl Keeper {
    /// Does nothing any more.
    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// Does one piece of work, if some is due.
    pub(super) fn step(
        &mut self,
        archive: &Archive,
        config: &config::archive::Archive,
        catalog: &mut Catalog,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        if self.is_stopped {
            return Ok(());
        }
        if is_due(&mut self.swept_at, SWEEP_EVERY) {
            let nobodys = archive.sweep_nobodys(now)?;
            if nobodys > 0 {
                tracing::info!(objects = nobodys, "deleted what a killed writer had left in the archive");
            }
        }
        if is_due(&mut self.expired_at, EXPIRE_EVERY) {
            let topics: Vec<String> = catalog.topics.keys().cloned().collect();
            for topic in topics {
                let Some(before_ms) = kept_from_ms(config, &topic, now) else { continue };
                let objects = archive.expire(catalog, &topic, before_ms, now)?;
                if objects > 0 {
                    tracing::info!(topic, objects, "records in the archive are older than they are kept");
                }
            }
        }
        if is_due(&mut self.looked_at, LOOK_EVERY) {
            archive.sweep_removed(catalog, grace(config), now)?;
            if let Some(compaction) = compaction(config)
                && let Some(merged) = archive.merge(catalog, compaction, now)?
            {
                tracing::debug!(object = merged.object, objects = merged.objects, "merged objects of the archive");
                self.looked_at = None;
            }
        }
        Ok(())
    }
}
