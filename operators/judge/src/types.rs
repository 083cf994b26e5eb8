//! What a sender does over all event types together: what is too little in each type is seen in their sum.
//!
//! A share over all types moves with the mix of types as well as with what the sender does: where only purchases carry an
//! amount, fewer purchases are more nulls. So the sum isn't held against its own past. What is expected of it is what each
//! type's own references (the other releases, the past) lead to expect at the mix of types that the sender has in this very
//! window: *indirect standardisation*. A change of the mix alone then changes what was seen and what was expected by the
//! same, and is the matter of the types' shares, which are judged beside.
//!
//! Summed are faults only, not mixes; of the types in which the series may be judged and isn't out of order already, and
//! where there are two at least. Bound: the series of one field. Deliberately not here: seasons and offsets; the types have
//! them.

use std::collections::BTreeMap;

use crate::block::Frame;
use crate::cell::Strand;
use crate::evidence::Seen;
use crate::facts::moved_together;
use crate::report::{Came, Report, Who};
use crate::signal::Signal;
use crate::store::{Store, key};
use crate::tally::Indicator;
use crate::verdict::{Bar, Told, judge};

/// Kind of key; never used anew. What each stands for goes on in the key.
const OVER_TYPES_KEY: u8 = b'o';
/// Part of the releases' votes that a move of the whole platform takes.
const TOGETHER_MIN: f64 = 0.7;

/// What one type shows of a series.
pub(crate) struct Part<'t> {
    pub(crate) who: Who<'t>,
    pub(crate) indicator: Indicator,
    pub(crate) seen: Seen,
    pub(crate) told: Told,
    pub(crate) came: Came,
    /// Whether it may be judged, and whether it is out of order by itself.
    pub(crate) counts: bool,
    pub(crate) at_fault: bool,
}

/// A series' types together.
#[derive(Default)]
struct Sum {
    /// Of each type, and whether that is out of order by itself.
    seen: Vec<(Seen, bool)>,
    told: Told,
    came: Came,
}

/// The sums of one field.
pub(crate) struct Sums<'f, 't> {
    frame: &'f Frame<'t>,
    field: &'t str,
    of: BTreeMap<(Indicator, Who<'t>), Sum>,
    labels: BTreeMap<Indicator, String>,
    /// Indicators that were counted over all types already.
    counted: Vec<Indicator>,
}

impl<'f, 't> Sums<'f, 't> {
    pub(crate) fn new(frame: &'f Frame<'t>, field: &'t str) -> Sums<'f, 't> {
        Sums { frame, field, of: BTreeMap::new(), labels: BTreeMap::new(), counted: Vec::new() }
    }

    /// Takes what a type showed.
    pub(crate) fn add(&mut self, event_type: &str, parts: Vec<Part<'t>>, labels: Vec<(Indicator, String)>) {
        for (indicator, label) in labels {
            if event_type.is_empty() {
                self.counted.push(indicator);
            }
            self.labels.entry(indicator).or_insert(label);
        }
        for part in parts.into_iter().filter(|part| part.counts) {
            let sum = self.of.entry((part.indicator, part.who)).or_default();
            sum.seen.push((part.seen, part.at_fault));
            sum.came.add_type(&part.came);
            sum.told.users += part.told.users;
            sum.told.one_user = sum.told.one_user.max(part.told.one_user);
            sum.told.first = sum.told.first.into_iter().chain(part.told.first).min();
        }
    }

    /// Judges the sums; returns how many.
    pub(crate) fn judge(self, store: &mut dyn Store, signals: &mut Vec<Signal>) -> u64 {
        let mut strands = Strands { frame: self.frame, field: self.field, of: BTreeMap::new() };
        let (mut judged, mut releases) = (0, Vec::new());
        let mut of = None;
        // In the order of the map an indicator's releases come before its versions and platforms.
        for ((indicator, who), sum) in &self.of {
            if of != Some(*indicator) {
                (of, releases) = (Some(*indicator), Vec::new());
            }
            if self.counted.contains(indicator) {
                continue;
            }
            let strand = strands.load(*who, store);
            let trial = &mut strand.find(*indicator, 0.0).trial;
            // What is out of order by itself needn't be found once more, but belongs to what was found before.
            let types = || sum.seen.iter().filter(|(_, at_fault)| !at_fault || trial.fault.is_some());
            let (count, seen) = (types().count(), Seen::sum(types().map(|(seen, _)| seen)));
            if count == 0 {
                continue;
            }
            let mut bar = self.bar(*indicator, *who, &seen, &releases);
            bar.up &= count >= 2;
            let outcome = judge(trial, self.frame.window, &seen, &sum.told, &bar, self.frame.settings);
            judged += 1;
            let report = Report {
                who: *who,
                event_type: "",
                field: self.field,
                indicator: *indicator,
                label: self.labels.get(indicator).map_or("", String::as_str),
                trial,
                outcome,
                seen: &seen,
                came: &sum.came,
                users: sum.told.users,
                ln_threshold: bar.ln_threshold,
            };
            signals.extend(report.signal(self.frame));
            if let Who::Release(at) = *who {
                let leans = trial.fault.is_none() && trial.ln_e > 0.5;
                releases.push(OfRelease { at, seen, leans, at_fault: trial.fault.is_some() });
            }
        }
        strands.save(store);
        judged
    }

    fn bar(&self, indicator: Indicator, who: Who<'_>, seen: &Seen, releases: &[OfRelease]) -> Bar {
        let settings = self.frame.settings;
        let all = &self.frame.tally.releases;
        let own = || releases.iter().filter(|one| who.holds(one.at, &all[one.at]));
        let (up, tells, effects) = match who {
            Who::Release(_) => (true, true, &settings.release),
            Who::Platform(_) => {
                let counts: Vec<(f64, f64, f64)> = own()
                    .filter(|one| !one.at_fault)
                    .map(|one| (one.seen.hits, one.seen.trials, one.seen.expected_by_past))
                    .collect();
                let together = moved_together(&counts, (seen.hits, seen.trials, seen.expected_by_past));
                (together >= TOGETHER_MIN, true, &settings.platform)
            }
            // One member alone doesn't make its whole version bad.
            _ => (true, own().filter(|one| one.leans).count() >= 2, &settings.release),
        };
        let effects_min = effects.of(indicator.family);
        Bar { ln_threshold: self.frame.ln_threshold, effects_min, up, down: false, windows_min: 1, tells }
    }
}

/// A release's sum, as judged.
struct OfRelease {
    at: usize,
    seen: Seen,
    leans: bool,
    at_fault: bool,
}

/// The state of a field's sums.
struct Strands<'f, 't> {
    frame: &'f Frame<'t>,
    field: &'t str,
    of: BTreeMap<Who<'t>, (Vec<u8>, Strand)>,
}

impl<'t> Strands<'_, 't> {
    fn load(&mut self, who: Who<'t>, store: &mut dyn Store) -> &mut Strand {
        let (frame, field) = (self.frame, self.field);
        let entry = self.of.entry(who).or_insert_with(|| {
            let key = key_of(frame, field, who);
            let strand = store.get(&key).and_then(|bytes| Strand::from_bytes(&bytes)).unwrap_or_default();
            (key, strand)
        });
        &mut entry.1
    }

    fn save(self, store: &mut dyn Store) {
        let oldest = self.frame.window.saturating_sub(self.frame.settings.forget_after_windows);
        for (key, mut strand) in self.of.into_values() {
            strand.cells.retain(|cell| cell.trial.last_seen >= oldest);
            store.put(&key, strand.to_bytes());
        }
    }
}

fn key_of(frame: &Frame<'_>, field: &str, who: Who<'_>) -> Vec<u8> {
    let tenant = &frame.tally.tenant;
    let of = |parts: &[&str]| key(OVER_TYPES_KEY, &[&[tenant.as_str(), field], parts].concat());
    match who {
        Who::Release(at) => match frame.tally.releases.get(at) {
            Some(release) => of(&["release", &release.sdk, &release.sdk_version, &release.app_version]),
            None => of(&["release"]),
        },
        Who::SdkVersion { sdk, version } => of(&["sdk version", sdk, version]),
        Who::AppVersion { sdk, version } => of(&["app version", sdk, version]),
        Who::App(version) => of(&["app", version]),
        Who::Platform(sdk) => of(&["platform", sdk]),
    }
}
