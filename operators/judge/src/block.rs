//! One event type and field of one tenant in one window: all platforms, releases and indicators of it.

use crate::cell::{Pool, PoolCell, Strand, cut};
use crate::compare::{Observation, by_shift};
use crate::facts::{between_usual, effective};
use crate::math::{logit, share_at};
use crate::report::Who;
use crate::season::Season;
use crate::settings::Settings;
use crate::signal::Signal;
use crate::store::{Store, key};
use crate::tally::{Indicator, Release, Row, Tally};
use crate::types::Part;

/// Kinds of keys; never used anew.
const POOL_KEY: u8 = b'p';
const STRAND_KEY: u8 = b's';
const SDK_VERSION_KEY: u8 = b'v';
const APP_VERSION_KEY: u8 = b'a';
/// Of an app version on all platforms.
const APP_KEY: u8 = b'x';

/// Share that an indicator is expected at that was never seen on a platform which is known: of a fault, of a mix.
const NEWCOMER: (f64, f64) = (3e-4, 1e-3);
/// What all blocks of a window share.
pub(crate) struct Frame<'t> {
    pub(crate) tally: &'t Tally,
    pub(crate) window: u32,
    pub(crate) settings: &'t Settings,
    pub(crate) ln_threshold: f64,
    /// Windows since each release of the tally was first seen.
    pub(crate) ages: Vec<u32>,
}

/// A release in a block.
pub(crate) struct Member {
    pub(crate) release: usize,
    pub(crate) platform: usize,
    pub(crate) strand: Strand,
    /// By number of the family; 0 where not measured.
    pub(crate) trials: [u64; 16],
}

impl Member {
    /// Whether the evidence so far is for a fault of this release.
    pub(crate) fn leans(&self, indicator: Indicator) -> bool {
        let found = self.strand.cells.binary_search_by(|cell| cell.indicator.cmp(&indicator));
        found.is_ok_and(|at| self.strand.cells[at].trial.ln_e > 0.5)
    }
}

/// Several releases of one SDK version or app version of a platform, or of one app version on several platforms, judged
/// together as far as they aren't at fault already.
pub(crate) struct Group<'t> {
    pub(crate) who: Who<'t>,
    key: Vec<u8>,
    pub(crate) members: Vec<usize>,
    pub(crate) strand: Strand,
}

/// Texts of a block, and its rows sorted by indicator.
pub(crate) struct Block<'t> {
    pub(crate) frame: &'t Frame<'t>,
    pub(crate) event_type: &'t str,
    pub(crate) field: &'t str,
    pub(crate) platforms: Vec<&'t str>,
    pub(crate) pools: Vec<Pool>,
    pub(crate) members: Vec<Member>,
    pub(crate) groups: Vec<Group<'t>>,
    pub(crate) signals: Vec<Signal>,
    /// What is summed over types, and the labels of its indicators.
    pub(crate) parts: Vec<Part<'t>>,
    pub(crate) labels: Vec<(Indicator, String)>,
    pub(crate) series: u64,
    pub(crate) skipped: u64,
}

impl<'t> Block<'t> {
    /// Loads what the rows of one type and field touch.
    pub(crate) fn load(frame: &'t Frame<'t>, rows: &[&'t Row], store: &mut dyn Store) -> Block<'t> {
        let tally = frame.tally;
        let text = |at: u32| tally.texts.get(at as usize).map_or("", String::as_str);
        let (event_type, field) = rows.first().map_or(("", ""), |row| (text(row.event_type), text(row.field)));
        let mut block = Block {
            frame,
            event_type,
            field,
            platforms: Vec::new(),
            pools: Vec::new(),
            members: Vec::new(),
            groups: Vec::new(),
            signals: Vec::new(),
            parts: Vec::new(),
            labels: Vec::new(),
            series: 0,
            skipped: 0,
        };
        let mut seats: Vec<Option<usize>> = vec![None; tally.releases.len()];
        for row in rows {
            let Some(release) = tally.releases.get(row.release as usize) else { continue };
            let seat = *seats[row.release as usize].get_or_insert_with(|| {
                block.load_member(row.release as usize, release, store);
                block.members.len() - 1
            });
            let trials = &mut block.members[seat].trials[row.indicator.family as usize];
            *trials = (*trials).max(row.trials);
        }
        block.load_groups(store);
        block
    }

    fn load_member(&mut self, at: usize, release: &'t Release, store: &mut dyn Store) {
        let platform = match self.platforms.iter().position(|sdk| *sdk == release.sdk) {
            Some(platform) => platform,
            None => {
                let bytes = store.get(&self.pool_key(&release.sdk));
                self.pools.push(bytes.and_then(|bytes| Pool::from_bytes(&bytes)).unwrap_or_default());
                self.platforms.push(&release.sdk);
                self.platforms.len() - 1
            }
        };
        let bytes = store.get(&self.strand_key(release));
        let strand = bytes.and_then(|bytes| Strand::from_bytes(&bytes)).unwrap_or_default();
        self.members.push(Member { release: at, platform, strand, trials: [0; 16] });
    }

    fn load_groups(&mut self, store: &mut dyn Store) {
        let tally = self.frame.tally;
        let releases = &tally.releases;
        let mut seats: Vec<(usize, u8, &'t str, usize)> = Vec::with_capacity(2 * self.members.len());
        for (at, member) in self.members.iter().enumerate() {
            let release = &releases[member.release];
            seats.push((member.platform, SDK_VERSION_KEY, &release.sdk_version, at));
            seats.push((member.platform, APP_VERSION_KEY, &release.app_version, at));
        }
        seats.sort_unstable();
        for same in seats.chunk_by(|a, b| (a.0, a.1, a.2) == (b.0, b.1, b.2)) {
            let (platform, kind, version, _) = same[0];
            let on_platform = self.members.iter().filter(|member| member.platform == platform).count();
            if same.len() < 2 || same.len() == on_platform {
                continue;
            }
            let sdk = self.platforms[platform];
            let key = key(kind, &[&self.frame.tally.tenant, self.event_type, self.field, sdk, version]);
            let who = match kind {
                SDK_VERSION_KEY => Who::SdkVersion { sdk, version },
                _ => Who::AppVersion { sdk, version },
            };
            let strand = store.get(&key).and_then(|bytes| Strand::from_bytes(&bytes)).unwrap_or_default();
            let members = same.iter().map(|seat| seat.3).collect();
            self.groups.push(Group { who, key, members, strand });
        }
        self.load_apps(store);
    }

    /// The app versions that are on several platforms, and not everything there is.
    fn load_apps(&mut self, store: &mut dyn Store) {
        let tally = self.frame.tally;
        let releases = &tally.releases;
        let mut seats: Vec<(&'t str, usize)> =
            self.members.iter().enumerate().map(|(at, one)| (releases[one.release].app_version.as_str(), at)).collect();
        seats.sort_unstable();
        for same in seats.chunk_by(|a, b| a.0 == b.0) {
            let first = self.members[same[0].1].platform;
            if same.iter().all(|seat| self.members[seat.1].platform == first) || same.len() == self.members.len() {
                continue;
            }
            let version = same[0].0;
            let key = key(APP_KEY, &[&self.frame.tally.tenant, self.event_type, self.field, version]);
            let strand = store.get(&key).and_then(|bytes| Strand::from_bytes(&bytes)).unwrap_or_default();
            let who = Who::App(version);
            let members = same.iter().map(|seat| seat.1).collect();
            self.groups.push(Group { who, key, members, strand });
        }
    }

    fn pool_key(&self, sdk: &str) -> Vec<u8> {
        key(POOL_KEY, &[&self.frame.tally.tenant, self.event_type, self.field, sdk])
    }

    fn strand_key(&self, release: &Release) -> Vec<u8> {
        let Release { sdk, sdk_version, app_version } = release;
        key(STRAND_KEY, &[&self.frame.tally.tenant, self.event_type, self.field, sdk, sdk_version, app_version])
    }

    /// Judges every indicator that came or is known, and stores what it learned.
    pub(crate) fn run(mut self, rows: &mut [&'t Row], store: &mut dyn Store) -> Block<'t> {
        rows.sort_unstable_by_key(|row| (row.indicator, row.release));
        let mut indicators: Vec<Indicator> = rows.iter().map(|row| row.indicator).collect();
        indicators.extend(self.pools.iter().flat_map(|pool| pool.cells.iter().map(|cell| cell.indicator)));
        indicators.sort_unstable();
        indicators.dedup();
        let mut by_release: Vec<Option<&Row>> = vec![None; self.frame.tally.releases.len()];
        for indicator in indicators {
            let from = rows.partition_point(|row| row.indicator < indicator);
            let of_it = rows[from..].iter().take_while(|row| row.indicator == indicator);
            for row in of_it.clone() {
                if let Some(seat) = by_release.get_mut(row.release as usize) {
                    *seat = Some(row);
                }
            }
            let label = of_it.clone().next().map(|row| row.label);
            self.judge_indicator(indicator, label, &by_release);
            for row in of_it {
                if let Some(seat) = by_release.get_mut(row.release as usize) {
                    *seat = None;
                }
            }
        }
        self.save(store);
        self
    }

    fn save(&mut self, store: &mut dyn Store) {
        let oldest = self.frame.window.saturating_sub(self.frame.settings.forget_after_windows);
        for (platform, sdk) in self.platforms.iter().enumerate() {
            let mut pool = std::mem::take(&mut self.pools[platform]);
            pool.windows = pool.windows.saturating_add(1);
            pool.cells.retain(|cell| cell.trial.last_seen >= oldest);
            store.put(&self.pool_key(sdk), pool.to_bytes());
        }
        let releases = &self.frame.tally.releases;
        for member in &mut self.members {
            member.strand.cells.retain(|cell| cell.trial.last_seen >= oldest);
        }
        for member in &self.members {
            store.put(&self.strand_key(&releases[member.release]), member.strand.to_bytes());
        }
        for group in &mut self.groups {
            group.strand.cells.retain(|cell| cell.trial.last_seen >= oldest);
            store.put(&group.key, group.strand.to_bytes());
        }
    }

    fn judge_indicator(&mut self, indicator: Indicator, label: Option<u32>, rows: &[Option<&Row>]) {
        let pool_at: Vec<Option<usize>> =
            (0..self.platforms.len()).map(|platform| self.pool_cell(platform, indicator, label, rows)).collect();
        let mut observations = self.observe(indicator, &pool_at, rows);
        if observations.is_empty() {
            return;
        }
        self.series += observations.len() as u64 + pool_at.len() as u64;
        if !indicator.family.is_mix() {
            let known = pool_at.iter().enumerate().find_map(|(platform, at)| at.map(|at| (platform, at)));
            let label = known.map_or_else(String::new, |(platform, at)| self.pools[platform].cells[at].label.clone());
            self.labels.push((indicator, label));
        }
        let order = by_shift(&observations);
        self.judge_releases(indicator, &pool_at, &mut observations, &order, rows);
        self.judge_groups(indicator, &pool_at, &observations, &order, rows);
        for (platform, at) in pool_at.iter().enumerate() {
            if let Some(at) = *at {
                self.judge_platform(indicator, platform, at, &observations, &order, rows);
            }
        }
    }

    /// The position of the platform's cell, made if need be; none where the family wasn't measured or there are too many.
    fn pool_cell(
        &mut self,
        platform: usize,
        indicator: Indicator,
        label: Option<u32>,
        rows: &[Option<&Row>],
    ) -> Option<usize> {
        let (mut hits, mut trials) = (0, 0);
        for member in self.members.iter().filter(|member| member.platform == platform) {
            trials += member.trials[indicator.family as usize];
            hits += rows[member.release].map_or(0, |row| row.hits);
        }
        if trials == 0 {
            return None;
        }
        let settings = self.frame.settings;
        let pool = &mut self.pools[platform];
        let mature = pool.windows >= settings.learn_windows;
        let at = match pool.position(indicator) {
            Ok(at) => at,
            Err(_) if hits == 0 => return None,
            Err(_) if pool.cells.len() >= settings.indicators_max => {
                self.skipped += 1;
                return None;
            }
            Err(at) => {
                let newcomer = if indicator.family.is_mix() { NEWCOMER.1 } else { NEWCOMER.0 };
                let share = if mature { newcomer } else { (hits as f64 + 0.5) / (trials as f64 + 1.0) };
                let level = logit(share.clamp(1e-5, 1.0 - 1e-5));
                let windows = if mature { settings.learn_windows } else { 0 };
                let text = label.and_then(|label| self.frame.tally.texts.get(label as usize));
                let cell = PoolCell {
                    indicator,
                    label: cut(text.map_or("", String::as_str)),
                    season: Season::never_seen(level, 0.09, windows),
                    within: (settings.within_min * settings.within_min) as f32,
                    between: between_usual(settings, indicator.family) as f32,
                    per_user: 1.0,
                    trial: Default::default(),
                };
                pool.cells.insert(at, cell);
                at
            }
        };
        pool.cells[at].trial.last_seen = self.frame.window;
        Some(at)
    }

    fn observe(&mut self, indicator: Indicator, pool_at: &[Option<usize>], rows: &[Option<&Row>]) -> Vec<Observation> {
        let mut observations = Vec::with_capacity(self.members.len());
        let at_us = self.frame.tally.window.start_us;
        let settings = self.frame.settings;
        for (at, member) in self.members.iter_mut().enumerate() {
            let trials = member.trials[indicator.family as usize];
            let Some(pool_at) = pool_at[member.platform] else { continue };
            if trials == 0 {
                continue;
            }
            let pool = &self.pools[member.platform].cells[pool_at];
            let row = rows[member.release];
            let (hits, trials, one_user) = effective(row, trials, pool);
            let cell = member.strand.find(indicator, f64::from(pool.between));
            let logit = pool.season.expected(at_us) + f64::from(cell.offset);
            let observation = Observation {
                member: at,
                platform: member.platform,
                hits,
                trials,
                one_user,
                logit,
                expected: share_at(logit),
                offset_variance: f64::from(cell.offset_variance),
                within: f64::from(pool.within).max(settings.within_min * settings.within_min),
                shift: 0.0,
                information: 0.0,
                vote: 0.0,
                at_fault: cell.trial.fault.is_some(),
            };
            observations.push(observation.finish());
        }
        observations
    }
}
