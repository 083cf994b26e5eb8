//! Detects releases that send bad data: the share of refused records per tenant and release, against a threshold.
//!
//! A window is judged once, in the order of windows, when the watermark has passed its end by `settle`. With the source's
//! allowed lateness as `settle` nothing of the window can come any more, so the same log makes the same alerts; with less
//! they come sooner and count what had come by then. What comes for a window that was judged is not looked at.
//!
//! An alert *opens* at a share of `open_at` or more, is *updated* by a later window whose commonest reason or whose share in
//! whole per cent is another than was told last, and is *resolved* by one whose share is below `resolve_below`; between
//! the two thresholds nothing changes hands, so a share that hovers about one of them does not flap. A window with
//! fewer than `min_records` records says nothing. After `silent_windows` of them in a row the alert is resolved with
//! `silent` as its reason: the release is gone, or nobody uses it any more. The end of a run is not silence: all windows
//! that have records are judged then, and only they count.
//!
//! Rows go to two tables: each step to the history, the newest step of each alert to the current one.
//! Bound: counts of the windows that are open, one entry per window and release, in keyed state.

pub(crate) mod alerts;
mod count;
pub mod policy;

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use arrow_array::RecordBatch;
use weir_schemas::fate::Reason;
use weir_schemas::time::{EventTime, Span};

use crate::account::TopicNames;
use crate::error::Error;
use crate::operator::{Context, Operator};
use crate::profile::Spot;
use crate::record::reason_of;
use crate::route::key_group;
use crate::state::{ByteTable, Codec, CodecError, KeyedTable, StateRegistry};
use crate::through::Through;
use crate::wanted::Wanted;
use alerts::{Alert, AlertRows, EXAMPLES, Severity, Status, fingerprint, literal};
use count::{ACCEPTED, Cause, Sender, read_counts};
use policy::Policy;

pub use count::{CountAccepted, CountRefused, SenderColumns};

/// Tables of the operator's state; the numbers are part of the keys on disk. 0 and 1 held counts and open alerts without
/// last and first places, 3 counts by each detail.
const COUNTS_TABLE: u16 = 5;
const OPEN_TABLE: u16 = 4;
const JUDGED_TABLE: u16 = 2;
/// The detector's name in alerts.
const DETECTOR: &str = "refused_share";
/// From this share on an alert is critical.
const CRITICAL_AT: f64 = 0.5;
/// The reason of an alert that is resolved because its release has fallen silent.
const SILENT: &str = "silent";

/// When a share of refused records is an alert.
#[derive(Clone, Debug)]
pub struct Thresholds {
    /// The source's name, for the alerts.
    pub source: String,
    /// Opens at this share, 0 to 1.
    pub open_at: f64,
    /// Resolves below this share.
    pub resolve_below: f64,
    /// Windows with fewer records than this say nothing.
    pub min_records: u64,
    /// Resolves after this many windows in a row that say nothing; at least 1.
    pub silent_windows: u32,
    /// The window's width.
    pub window: Span,
    /// How long after its end a window is judged.
    pub settle: Span,
    /// Whose alerts are, and who is told.
    pub policy: Policy,
}

/// The operator that judges releases; its inputs are what [`CountAccepted`] and [`CountRefused`] emit, by group.
pub struct Detect {
    thresholds: Thresholds,
    rows: AlertRows,
    counts: KeyedTable<(i64, Vec<u8>), Counted>,
    open: KeyedTable<Vec<u8>, OpenAlert>,
    /// The open alerts by the window that spoke last, with their key groups and keys.
    spoke: BTreeSet<(i64, u16, Vec<u8>)>,
    /// Windows that have counts, with their key groups.
    windows: BTreeMap<i64, Vec<u16>>,
    /// Up to where windows were judged.
    judged_through: Through,
    /// The same, on disk.
    judged: ByteTable,
}

/// What a sender's records of one window were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counted {
    sender: Sender,
    total: u64,
    refused: u64,
    /// By cause, the least detail and how many records.
    causes: BTreeMap<Cause, (Vec<u8>, u64)>,
    examples: Vec<Spot>,
    /// The greatest place among the refused records.
    last: Option<Spot>,
}

impl Counted {
    /// Counts refused records.
    fn add(&mut self, reason: u8, detail: Vec<u8>, records: u64) {
        match self.causes.entry(Cause::of(reason, &detail)) {
            Entry::Vacant(new) => {
                new.insert((detail, records));
            }
            Entry::Occupied(known) => {
                let (least, sum) = known.into_mut();
                *sum += records;
                if detail < *least {
                    *least = detail;
                }
            }
        }
    }
}

/// An alert that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OpenAlert {
    revision: u32,
    opened_at: i64,
    /// The start of the last window with enough records.
    spoke_at: i64,
    /// The commonest reason's number and detail, and the share in whole per cent, as they were told last.
    told: (u8, Vec<u8>, u32),
    /// The least place among the refused records of the window in which it opened.
    first: Option<Spot>,
}

/// What a window does to an alert.
struct Step {
    status: Status,
    revision: u32,
    opened_at: i64,
    /// The start of the last window in which the problem was seen.
    seen_at: i64,
    first: Option<Spot>,
}

impl Detect {
    /// Goes on with what `registry` holds; the topics' numbers are the indices of `topics`.
    pub fn new(
        thresholds: Thresholds,
        topics: Vec<TopicNames>,
        memory_bytes: usize,
        registry: &mut StateRegistry,
    ) -> Result<Detect, Error> {
        let mut counts: KeyedTable<(i64, Vec<u8>), Counted> = registry.keyed(COUNTS_TABLE, memory_bytes)?;
        let mut windows: BTreeMap<i64, Vec<u16>> = BTreeMap::new();
        counts.scan(|group, (window, _), _| {
            add_group(&mut windows, window, group);
            Ok(ControlFlow::Continue(()))
        })?;
        let judged = registry.table(JUDGED_TABLE)?;
        let judged_through = Through::recover(&judged, registry.owned())?;
        let mut open: KeyedTable<Vec<u8>, OpenAlert> = registry.keyed(OPEN_TABLE, memory_bytes)?;
        let mut spoke = BTreeSet::new();
        open.scan(|group, key, alert| {
            spoke.insert((alert.spoke_at, group, key));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Detect {
            rows: AlertRows::new(thresholds.source.clone(), topics, thresholds.policy.clone()),
            thresholds,
            counts,
            open,
            spoke,
            windows,
            judged_through,
            judged,
        })
    }

    /// Judges every sender of a window, in the order of their keys, and forgets the window.
    fn judge_window(&mut self, window: i64, groups: &[u16]) -> Result<Vec<Alert>, Error> {
        let mut found = Vec::new();
        for group in groups {
            self.counts.scan_prefix(*group, &window, |(_, key), counted| {
                found.push((*group, key, counted));
                Ok(ControlFlow::Continue(()))
            })?;
        }
        found.sort_by(|a, b| a.1.cmp(&b.1));
        let mut alerts = Vec::new();
        for (group, key, counted) in found {
            self.counts.remove(group, &(window, key.clone()))?;
            alerts.extend(self.judge(window, group, &key, &counted)?);
        }
        Ok(alerts)
    }

    fn judge(&mut self, window: i64, group: u16, key: &Vec<u8>, counted: &Counted) -> Result<Option<Alert>, Error> {
        let Thresholds { open_at, resolve_below, min_records, .. } = self.thresholds;
        if counted.total == 0 || counted.total < min_records {
            return Ok(None);
        }
        let share = counted.share();
        let (number, detail) = counted.commonest().unwrap_or((ACCEPTED, Vec::new()));
        let told = (number, detail, (share * 100.0) as u32);
        let known = self.open.get(group, key)?.map(|open| OpenAlert::clone(&open));
        if let Some(open) = &known {
            self.spoke.remove(&(open.spoke_at, group, key.clone()));
        }
        let (status, revision, opened_at, first) = match &known {
            None if share >= open_at => (Some(Status::Open), 1, window, counted.examples.first().copied()),
            None => return Ok(None),
            Some(open) => {
                let status = if share < resolve_below {
                    Some(Status::Resolved)
                } else {
                    (open.told != told).then_some(Status::Update)
                };
                (status, open.revision + u32::from(status.is_some()), open.opened_at, open.first)
            }
        };
        let mut seen_at = window;
        if status == Some(Status::Resolved) {
            self.open.remove(group, key)?;
            seen_at = known.map_or(window, |open| open.spoke_at);
        } else {
            self.open.insert(group, key, OpenAlert { revision, opened_at, spoke_at: window, told, first })?;
            self.spoke.insert((window, group, key.clone()));
        }
        let step = status.map(|status| Step { status, revision, opened_at, seen_at, first });
        step.map(|step| self.alert(window, &step, counted)).transpose()
    }

    /// Resolves every alert whose release has said nothing for so long that the last silent window ends at `through` or
    /// before.
    fn resolve_silent(&mut self, through: i64) -> Result<Vec<Alert>, Error> {
        let Thresholds { silent_windows, min_records, window: Span(width), .. } = self.thresholds;
        let silence = width.saturating_mul(i64::from(silent_windows.max(1)));
        let mut alerts = Vec::new();
        while let Some((spoke_at, _, _)) = self.spoke.first() {
            let last_silent = spoke_at.saturating_add(silence);
            if last_silent.saturating_add(width) > through {
                break;
            }
            let Some((_, group, key)) = self.spoke.pop_first() else { break };
            let Some(open) = self.open.get(group, &key)?.map(|open| OpenAlert::clone(&open)) else { continue };
            self.open.remove(group, &key)?;
            let step = Step {
                status: Status::Resolved,
                revision: open.revision + 1,
                opened_at: open.opened_at,
                seen_at: open.spoke_at,
                first: open.first,
            };
            let nothing = Counted { sender: Sender::of_key(&key), ..Counted::default() };
            let why = format!("fewer than {min_records} records in each of {silent_windows} windows");
            let alert = self.alert(last_silent, &step, &nothing)?;
            alerts.push(Alert { reason: SILENT, detail: why.clone().into_bytes(), status_reason: why, ..alert });
        }
        Ok(alerts)
    }

    /// What is told of a window.
    fn alert(&self, window: i64, step: &Step, counted: &Counted) -> Result<Alert, Error> {
        let Thresholds { source, open_at, resolve_below, window: Span(width), .. } = &self.thresholds;
        let share = counted.share();
        let (reason, detail) = match counted.commonest() {
            Some((number, detail)) => (Some(reason_of(number)?), detail),
            None => (None, Vec::new()),
        };
        let percent = |share: f64| format!("{:.2} %", share * 100.0);
        let status_reason = match step.status {
            Status::Open => format!("{} refused, {} or more opens", percent(share), percent(*open_at)),
            Status::Update => format!("{} refused, less than {} resolves", percent(share), percent(*resolve_below)),
            Status::Resolved | Status::Reopened => {
                format!("{} refused, less than {}", percent(share), percent(*resolve_below))
            }
        };
        let is_opening = step.status == Status::Open;
        let window_end = window.saturating_add(*width);
        let [tenant, sdk, sdk_version, app_version] = counted.sender.0.clone();
        Ok(Alert {
            window_start: window,
            window_end,
            fingerprint: fingerprint(&[DETECTOR.as_bytes(), source.as_bytes(), &counted.sender.key()]),
            revision: step.revision,
            status: step.status,
            status_reason,
            severity: if share >= CRITICAL_AT { Severity::Critical } else { Severity::Warning },
            opened_at: step.opened_at,
            last_seen_at: step.seen_at.saturating_add(*width),
            detector: DETECTOR,
            indicator: "share of refused records",
            cause_kind: "release",
            cause: [&sdk[..], b" ", &sdk_version, b" / ", &app_version].concat(),
            last_good: String::new(),
            event_types: Vec::new(),
            fields: Vec::new(),
            tenant_count: 1,
            affected_share: share,
            affected_users: None,
            expected: None,
            query: query(&counted.sender, step.opened_at, window_end),
            tenants: vec![tenant],
            release: [sdk, sdk_version, app_version],
            rule: if reason == Some(Reason::Rule) { detail.clone() } else { Vec::new() },
            reason: reason.map(Reason::name).unwrap_or_default(),
            detail,
            affected_records: counted.refused,
            records: counted.total,
            seen: share,
            expected_lower: None,
            // What opens one is no surprise any more while it is open.
            expected_upper: Some(if is_opening { *open_at } else { *resolve_below }),
            statistic: format!("{} of {} records against a fixed bound", counted.refused, counted.total),
            first_place: step.first,
            last_place: counted.last,
            wanted: Wanted { places: counted.examples.clone(), ..Wanted::default() },
            examples: counted.examples.clone(),
        })
    }
}

impl Counted {
    fn share(&self) -> f64 {
        self.refused as f64 / self.total.max(1) as f64
    }

    /// The commonest cause's reason and detail; of equally common ones the first.
    fn commonest(&self) -> Option<(u8, Vec<u8>)> {
        let causes = self.causes.iter().map(|(cause, (detail, records))| (records, Reverse((cause.reason, detail))));
        causes.max().map(|(_, Reverse((reason, detail)))| (reason, detail.clone()))
    }
}

/// The refused records of a sender, by what is wrong with them.
fn query(sender: &Sender, from: i64, until: i64) -> String {
    let [tenant, sdk, sdk_version, app_version] = sender.0.each_ref().map(|text| literal(text));
    format!(
        "SELECT reason, detail, count() AS records, min(kafka_time) AS first, max(kafka_time) AS last, \
         any(concat(topic, '/', toString(partition), '@', toString(offset))) AS place\n\
         FROM weir_quarantine\n\
         WHERE tenant = {tenant} AND sdk = {sdk} AND sdk_version = {sdk_version} AND app_version = {app_version}\n  \
         AND ifNull(event_time, kafka_time) >= fromUnixTimestamp64Micro({from}) \
         AND ifNull(event_time, kafka_time) < fromUnixTimestamp64Micro({until})\n  \
         AND reason NOT LIKE 'too_late%'\n\
         GROUP BY reason, detail ORDER BY records DESC"
    )
}

fn add_group(windows: &mut BTreeMap<i64, Vec<u16>>, window: i64, group: u16) {
    let groups = windows.entry(window).or_default();
    if let Err(at) = groups.binary_search(&group) {
        groups.insert(at, group);
    }
}

impl Operator for Detect {
    fn on_batch(&mut self, batch: RecordBatch, _: &mut Context<'_>) -> Result<(), Error> {
        for count in read_counts(&batch)? {
            let key = count.sender.key();
            let group = key_group(&key);
            if count.window.saturating_add(self.thresholds.window.0) <= self.judged_through.of(group).0 {
                continue;
            }
            add_group(&mut self.windows, count.window, group);
            let mut counted = self.counts.get_or_insert_with(group, &(count.window, key), Counted::default)?;
            counted.sender = count.sender;
            counted.total += count.records;
            if count.reason != ACCEPTED {
                counted.refused += count.records;
                counted.add(count.reason, count.detail, count.records);
                counted.last = counted.last.max(Some(count.last));
                counted.examples.extend(count.examples.iter());
                counted.examples.sort_unstable();
                counted.examples.dedup();
                counted.examples.truncate(EXAMPLES);
            }
        }
        Ok(())
    }

    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let through = cx.watermark().minus(self.thresholds.settle);
        let width = self.thresholds.window.0;
        let mut alerts = Vec::new();
        let mut heard_through = i64::MIN;
        while let Some(first) = self.windows.first_entry()
            && first.key().saturating_add(width) <= through.0
        {
            let (window, groups) = first.remove_entry();
            alerts.extend(self.resolve_silent(window)?);
            alerts.extend(self.judge_window(window, &groups)?);
            heard_through = window.saturating_add(width);
        }
        let is_end = cx.watermark() == EventTime::MAX;
        alerts.extend(self.resolve_silent(if is_end { heard_through } else { through.0 })?);
        let boundary = through.0.saturating_sub(through.0.rem_euclid(width.max(1)));
        self.judged_through.raise(EventTime(if is_end { heard_through } else { boundary }), &mut self.judged)?;
        self.rows.write(&alerts, cx)
    }
}

impl Codec for Counted {
    fn encode(&self, out: &mut Vec<u8>) {
        self.sender.0.iter().for_each(|part| part.encode(out));
        (self.total, self.refused).encode(out);
        (self.causes.len() as u32).encode(out);
        for (cause, (detail, records)) in &self.causes {
            (cause.reason, detail.clone(), *records).encode(out);
        }
        (self.examples.len() as u32).encode(out);
        for Spot(topic, partition, offset) in &self.examples {
            (*topic, *partition, *offset).encode(out);
        }
        encode_spot(self.last, out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        let mut counted = Counted::default();
        for part in &mut counted.sender.0 {
            *part = Vec::decode(bytes)?;
        }
        (counted.total, counted.refused) = <(u64, u64)>::decode(bytes)?;
        for _ in 0..u32::decode(bytes)? {
            let (reason, detail, records) = <(u8, Vec<u8>, u64)>::decode(bytes)?;
            counted.add(reason, detail, records);
        }
        for _ in 0..u32::decode(bytes)? {
            let (topic, partition, offset) = <(u16, i32, i64)>::decode(bytes)?;
            counted.examples.push(Spot(topic, partition, offset));
        }
        counted.last = decode_spot(bytes)?;
        Ok(counted)
    }
}

impl Codec for OpenAlert {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.revision, self.opened_at, self.spoke_at).encode(out);
        self.told.encode(out);
        encode_spot(self.first, out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        let (revision, opened_at, spoke_at) = <(u32, i64, i64)>::decode(bytes)?;
        let told = <(u8, Vec<u8>, u32)>::decode(bytes)?;
        Ok(OpenAlert { revision, opened_at, spoke_at, told, first: decode_spot(bytes)? })
    }
}

/// A byte 1 and the place, or a byte 0.
fn encode_spot(spot: Option<Spot>, out: &mut Vec<u8>) {
    u8::from(spot.is_some()).encode(out);
    if let Some(Spot(topic, partition, offset)) = spot {
        (topic, partition, offset).encode(out);
    }
}

fn decode_spot(bytes: &mut &[u8]) -> Result<Option<Spot>, CodecError> {
    if u8::decode(bytes)? == 0 {
        return Ok(None);
    }
    let (topic, partition, offset) = <(u16, i32, i64)>::decode(bytes)?;
    Ok(Some(Spot(topic, partition, offset)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_that_senders_make_up_count_together_in_any_order() {
        let mut random = fastrand::Rng::with_seed(7);
        let rule = Reason::Rule as u8;
        let mut all: Vec<(u8, Vec<u8>)> = (0..20_000_u32).map(|number| (1, number.to_be_bytes().to_vec())).collect();
        all.extend((0..300).flat_map(|number| vec![(rule, format!("rule {number}").into_bytes()); 80]));
        all.extend(vec![(rule, b"the commonest".to_vec()); 90]);
        let sum = |all: &[(u8, Vec<u8>)]| {
            let mut counted = Counted::default();
            all.iter().for_each(|(reason, detail)| counted.add(*reason, detail.clone(), 1));
            counted
        };
        let counted = sum(&all);
        random.shuffle(&mut all);
        assert_eq!(sum(&all), counted);
        assert!(counted.causes.len() <= 256 + 301, "{}", counted.causes.len());
        assert_eq!(counted.causes.values().map(|(_, records)| records).sum::<u64>(), all.len() as u64);
        let commonest = |reason| {
            let of = all.iter().filter(|(of, _)| *of == reason).cloned().collect::<Vec<_>>();
            sum(&of).commonest().map(|(_, detail)| detail)
        };
        assert_eq!(commonest(rule), Some(b"the commonest".to_vec()));
        let mut bytes = Vec::new();
        counted.encode(&mut bytes);
        assert_eq!(Counted::decode_all(&bytes).unwrap(), counted);
    }
}
