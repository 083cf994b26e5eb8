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
//! `silent` as its reason: the release is gone, or nobody uses it any more. The end of the log is not silence: when
//! the watermark goes to its end, only windows up to the last one with records count.
//!
//! Rows go to two tables: each step to the history, the newest step of each alert to the current one.
//! Bound: counts of the windows that are open, one entry per window and release, in keyed state.

mod alerts;
mod count;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};

use arrow_array::RecordBatch;
use weir_schemas::time::{EventTime, Span};

use crate::account::TopicNames;
use crate::error::Error;
use crate::group_key::{decode_start, encode_start};
use crate::operator::{Context, Operator};
use crate::route::key_group;
use crate::state::{ByteTable, Codec, CodecError, KeyedTable, StateRegistry, Stored};
use alerts::{AlertRows, Cause, Judgement, Status};
use count::{ACCEPTED, Sender, Spot, read_counts};

pub use count::{CountAccepted, CountRefused, SenderColumns};

/// Tables of the operator's state; the numbers are part of the keys on disk.
const COUNTS_TABLE: u16 = 0;
const OPEN_TABLE: u16 = 1;
const JUDGED_TABLE: u16 = 2;
/// Example places that an alert names, at most.
const EXAMPLES: usize = 5;

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
    /// Every window that ends here or before was judged.
    judged_through: EventTime,
    /// The same, on disk, under every key group.
    judged: ByteTable,
    owned: Range<u16>,
}

/// What a sender's records of one window were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counted {
    sender: Sender,
    total: u64,
    refused: u64,
    reasons: BTreeMap<(u8, Vec<u8>), u64>,
    examples: Vec<Spot>,
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
        let mut judged_through = EventTime::MIN;
        for group in registry.owned() {
            if let Some(through) = judged.get(group, &[])?.as_ref().and_then(Stored::whole) {
                judged_through = judged_through.max(EventTime(decode_start(through)?));
            }
        }
        let mut open: KeyedTable<Vec<u8>, OpenAlert> = registry.keyed(OPEN_TABLE, memory_bytes)?;
        let mut spoke = BTreeSet::new();
        open.scan(|group, key, alert| {
            spoke.insert((alert.spoke_at, group, key));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Detect {
            rows: AlertRows::new(thresholds.source.clone(), topics),
            thresholds,
            counts,
            open,
            spoke,
            windows,
            judged_through,
            judged,
            owned: registry.owned(),
        })
    }

    /// Judges every sender of a window, in the order of their keys, and forgets the window.
    fn judge_window(&mut self, window: i64, groups: &[u16]) -> Result<Vec<Judgement>, Error> {
        let mut found = Vec::new();
        for group in groups {
            self.counts.scan_prefix(*group, &window, |(_, key), counted| {
                found.push((*group, key, counted));
                Ok(ControlFlow::Continue(()))
            })?;
        }
        found.sort_by(|a, b| a.1.cmp(&b.1));
        let mut judgements = Vec::new();
        for (group, key, counted) in found {
            self.counts.remove(group, &(window, key.clone()))?;
            judgements.extend(self.judge(window, group, &key, counted)?);
        }
        Ok(judgements)
    }

    fn judge(&mut self, window: i64, group: u16, key: &Vec<u8>, counted: Counted) -> Result<Option<Judgement>, Error> {
        let Thresholds { open_at, resolve_below, min_records, .. } = self.thresholds;
        if counted.total == 0 || counted.total < min_records {
            return Ok(None);
        }
        let share = counted.refused as f64 / counted.total as f64;
        // The commonest reason; of equally common ones the first by number and detail.
        let commonest = counted.reasons.iter().max_by(|a, b| a.1.cmp(b.1).then(b.0.cmp(a.0)));
        let commonest = commonest.map(|(reason, _)| reason.clone());
        let (number, detail) = commonest.clone().unwrap_or((ACCEPTED, Vec::new()));
        let told = (number, detail, (share * 100.0) as u32);
        let known = self.open.get(group, key)?.map(|open| OpenAlert::clone(&open));
        if let Some(open) = &known {
            self.spoke.remove(&(open.spoke_at, group, key.clone()));
        }
        let (status, revision, opened_at) = match &known {
            None if share >= open_at => (Some(Status::Open), 1, window),
            None => return Ok(None),
            Some(open) if share < resolve_below => (Some(Status::Resolved), open.revision + 1, open.opened_at),
            Some(open) if open.told != told => (Some(Status::Update), open.revision + 1, open.opened_at),
            Some(open) => (None, open.revision, open.opened_at),
        };
        if status == Some(Status::Resolved) {
            self.open.remove(group, key)?;
        } else {
            self.open.insert(group, key, OpenAlert { revision, opened_at, spoke_at: window, told })?;
            self.spoke.insert((window, group, key.clone()));
        }
        Ok(status.map(|status| Judgement {
            status,
            revision,
            opened_at,
            window_start: window,
            window_end: window.saturating_add(self.thresholds.window.0),
            cause: commonest.map_or(Cause::Nothing, |(reason, detail)| Cause::Refused(reason, detail)),
            sender: counted.sender,
            refused: counted.refused,
            total: counted.total,
            share,
            examples: counted.examples,
        }))
    }

    /// Resolves every alert whose release has said nothing for so long that the last silent window ends at `through` or
    /// before.
    fn resolve_silent(&mut self, through: i64) -> Result<Vec<Judgement>, Error> {
        let Thresholds { silent_windows, min_records, window: Span(width), .. } = self.thresholds;
        let silence = width.saturating_mul(i64::from(silent_windows.max(1)));
        let mut judgements = Vec::new();
        while let Some((spoke_at, _, _)) = self.spoke.first() {
            let last_silent = spoke_at.saturating_add(silence);
            if last_silent.saturating_add(width) > through {
                break;
            }
            let Some((_, group, key)) = self.spoke.pop_first() else { break };
            let Some(open) = self.open.get(group, &key)?.map(|open| OpenAlert::clone(&open)) else { continue };
            self.open.remove(group, &key)?;
            judgements.push(Judgement {
                status: Status::Resolved,
                revision: open.revision + 1,
                opened_at: open.opened_at,
                window_start: last_silent,
                window_end: last_silent.saturating_add(width),
                cause: Cause::Silent { windows: silent_windows, min_records },
                sender: Sender::of_key(&key),
                refused: 0,
                total: 0,
                share: 0.0,
                examples: Vec::new(),
            });
        }
        Ok(judgements)
    }
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
            if count.window.saturating_add(self.thresholds.window.0) <= self.judged_through.0 {
                continue;
            }
            let key = count.sender.key();
            let group = key_group(&key);
            add_group(&mut self.windows, count.window, group);
            let mut counted = self.counts.get_or_insert_with(group, &(count.window, key), Counted::default)?;
            counted.sender = count.sender;
            counted.total += count.records;
            if count.reason != ACCEPTED {
                counted.refused += count.records;
                *counted.reasons.entry((count.reason, count.detail)).or_default() += count.records;
                counted.examples.push(count.example);
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
        let mut judgements = Vec::new();
        let mut heard_through = i64::MIN;
        while let Some(first) = self.windows.first_entry()
            && first.key().saturating_add(width) <= through.0
        {
            let (window, groups) = first.remove_entry();
            judgements.extend(self.resolve_silent(window)?);
            judgements.extend(self.judge_window(window, &groups)?);
            heard_through = window.saturating_add(width);
        }
        let is_end = cx.watermark() == EventTime::MAX;
        judgements.extend(self.resolve_silent(if is_end { heard_through } else { through.0 })?);
        let boundary = EventTime(through.0.saturating_sub(through.0.rem_euclid(width.max(1))));
        if boundary > self.judged_through {
            self.judged_through = boundary;
            for group in self.owned.clone() {
                self.judged.put(group, &[], &encode_start(boundary.0))?;
            }
        }
        self.rows.write(&judgements, cx)
    }
}

impl Codec for Counted {
    fn encode(&self, out: &mut Vec<u8>) {
        self.sender.0.iter().for_each(|part| part.encode(out));
        (self.total, self.refused).encode(out);
        (self.reasons.len() as u32).encode(out);
        for ((reason, detail), records) in &self.reasons {
            (*reason, detail.clone(), *records).encode(out);
        }
        (self.examples.len() as u32).encode(out);
        for Spot(topic, partition, offset) in &self.examples {
            (*topic, *partition, *offset).encode(out);
        }
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        let mut counted = Counted::default();
        for part in &mut counted.sender.0 {
            *part = Vec::decode(bytes)?;
        }
        (counted.total, counted.refused) = <(u64, u64)>::decode(bytes)?;
        for _ in 0..u32::decode(bytes)? {
            let (reason, detail, records) = <(u8, Vec<u8>, u64)>::decode(bytes)?;
            counted.reasons.insert((reason, detail), records);
        }
        for _ in 0..u32::decode(bytes)? {
            let (topic, partition, offset) = <(u16, i32, i64)>::decode(bytes)?;
            counted.examples.push(Spot(topic, partition, offset));
        }
        Ok(counted)
    }
}

impl Codec for OpenAlert {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.revision, self.opened_at, self.spoke_at).encode(out);
        self.told.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        let (revision, opened_at, spoke_at) = <(u32, i64, i64)>::decode(bytes)?;
        let told = <(u8, Vec<u8>, u32)>::decode(bytes)?;
        Ok(OpenAlert { revision, opened_at, spoke_at, told })
    }
}
