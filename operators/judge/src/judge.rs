//! Judges the closed windows of a tenant, one after the other: counts in, signals out, state in a [`Store`].

use crate::block::{Block, Frame};
use crate::evidence::ln_threshold;
use crate::settings::Settings;
use crate::signal::Signal;
use crate::store::{Reader, Store, Writer, key};
use crate::tally::{Release, Row, Tally};
use crate::types::Sums;
use crate::volume::judge_volumes;

const TENANT_KEY: u8 = b't';
const TENANT_VERSION: u8 = 1;
const WEEK_US: f64 = 7.0 * 86_400e6;
/// Releases that a tenant's order of releases holds; beyond it the one that was seen longest ago is dropped.
const RELEASES_MAX: usize = 4096;

/// A release that a tenant's events came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub release: Release,
    /// Numbers of windows.
    pub first_seen: u32,
    pub last_seen: u32,
}

/// What a window gave.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// Series that are out of order, and those that are back in order since the last window.
    pub signals: Vec<Signal>,
    /// The tenant's releases, those of this window included.
    pub releases: Vec<Known>,
    /// Distinct users of the tenant in the window, about: the sum over its releases.
    pub users: f64,
    /// Series that were judged.
    pub series: u64,
    /// Indicators that weren't judged, because a field has too many.
    pub skipped: u64,
}

/// A tenant's own record.
#[derive(Debug, Default, PartialEq)]
struct Tenant {
    last_window: u32,
    series: u64,
    releases: Vec<Known>,
}

/// Judges one closed window of one tenant. Windows come in the order of time; one that came before is skipped (without
/// signals), so that a window is never judged twice.
pub fn judge(tally: &Tally, store: &mut dyn Store, settings: &Settings) -> Judged {
    let window = tally.window.index();
    let tenant_key = key(TENANT_KEY, &[&tally.tenant]);
    let stored = store.get(&tenant_key).and_then(|bytes| Tenant::from_bytes(&bytes));
    let mut tenant = stored.unwrap_or_default();
    if window <= tenant.last_window && !tenant.releases.is_empty() {
        return Judged { releases: tenant.releases, ..Judged::default() };
    }
    tenant.note(window, &tally.releases, settings);
    let per_week = WEEK_US / tally.window.width_us.max(1) as f64;
    // The last window's number of series is this one's, about; the first window judges nothing.
    let threshold = ln_threshold(tenant.series.max(100), per_week, settings.false_alerts_per_week);
    let ages = tally.releases.iter().map(|release| tenant.age(release)).collect();
    let frame = Frame { tally, window, settings, ln_threshold: threshold, ages };
    let users = tally.release_users.iter().copied().map(f64::from).sum();
    let mut judged = Judged { users, ..Judged::default() };
    let mut rows: Vec<&Row> = tally.rows.iter().filter(|row| is_whole(row, tally)).collect();
    rows.sort_unstable_by_key(|row| (row.field, row.event_type));
    for of_field in rows.chunk_by_mut(|a, b| a.field == b.field) {
        let mut sums = Sums::new(&frame, text(tally, of_field[0].field));
        for of_type in of_field.chunk_by_mut(|a, b| a.event_type == b.event_type) {
            let block = Block::load(&frame, of_type, store).run(of_type, store);
            judged.signals.extend(block.signals);
            judged.series += block.series;
            judged.skipped += block.skipped;
            sums.add(block.event_type, block.parts, block.labels);
        }
        judged.series += sums.judge(store, &mut judged.signals);
    }
    judged.series += judge_volumes(&frame, store, &mut judged.signals);
    tenant.series = judged.series;
    store.put(&tenant_key, tenant.to_bytes());
    judged.releases = tenant.releases;
    judged
}

fn text(tally: &Tally, at: u32) -> &str {
    tally.texts.get(at as usize).map_or("", String::as_str)
}

/// Names a release and texts that are there, and counts that can be.
fn is_whole(row: &Row, tally: &Tally) -> bool {
    let texts = tally.texts.len();
    (row.release as usize) < tally.releases.len()
        && [row.event_type, row.field, row.label].into_iter().all(|text| (text as usize) < texts)
        && row.hits <= row.trials
        && row.trials > 0
}

impl Tenant {
    fn note(&mut self, window: u32, releases: &[Release], settings: &Settings) {
        self.last_window = window;
        for release in releases {
            match self.releases.binary_search_by(|known| known.release.cmp(release)) {
                Ok(at) => self.releases[at].last_seen = window,
                Err(at) => {
                    self.releases.insert(at, Known { release: release.clone(), first_seen: window, last_seen: window });
                }
            }
        }
        let oldest = window.saturating_sub(settings.forget_after_windows);
        self.releases.retain(|known| known.last_seen >= oldest);
        while self.releases.len() > RELEASES_MAX {
            let longest_ago = self.releases.iter().enumerate().min_by_key(|(_, known)| known.last_seen);
            let Some((at, _)) = longest_ago else { break };
            self.releases.remove(at);
        }
    }

    /// Windows since a release was first seen.
    fn age(&self, release: &Release) -> u32 {
        let known = self.releases.binary_search_by(|known| known.release.cmp(release));
        known.map_or(0, |at| self.last_window.saturating_sub(self.releases[at].first_seen))
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(TENANT_VERSION);
        out.u32(self.last_window);
        out.u64(self.series);
        for known in &self.releases {
            let Release { sdk, sdk_version, app_version } = &known.release;
            [sdk, sdk_version, app_version].into_iter().for_each(|text| out.text(text));
            out.u32(known.first_seen);
            out.u32(known.last_seen);
        }
        out.0
    }

    fn from_bytes(bytes: &[u8]) -> Option<Tenant> {
        let mut from = Reader(bytes);
        if from.u8()? != TENANT_VERSION {
            return None;
        }
        let mut tenant = Tenant { last_window: from.u32()?, series: from.u64()?, releases: Vec::new() };
        while !from.0.is_empty() {
            let release = Release { sdk: from.text()?, sdk_version: from.text()?, app_version: from.text()? };
            tenant.releases.push(Known { release, first_seen: from.u32()?, last_seen: from.u32()? });
        }
        Some(tenant)
    }
}
