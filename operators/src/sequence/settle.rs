//! Keeps the numbers of devices until they are settled, then walks over them and tells what is missing.
//!
//! Events wait in buckets of event time. A bucket is settled when the log's watermark has passed its end by `within` and the
//! allowed lateness: everything that may stand in it, or fill a gap in it, is there then. The end of a run settles nothing before
//! its time, since another run may go on from the state.
//!
//! State: an event is added to its device's part of a bucket without reading it, and read once; a device's part is the next number
//! and the points ahead that fill gaps already. Bound: in memory is one key group's part of one bucket at a time, and the working
//! set of devices.
//!
//! Output 0 are a judge's cells, in the window that holds the bucket's end and `within` more: so they come before the watermark
//! that lets the window be judged. Output 1 is how many gaps there were. The gaps themselves are rows.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

use arrow_array::RecordBatch;
use weir_schemas::time::{EventTime, Span};

use super::tell::Tell;
use super::waiting::Waiting;
use super::walk::{Device, Numbering, Point, Step, walk};
use super::{Numbered, Sequencing};
use crate::deduplicate::kept_width;
use crate::error::Error;
use crate::group_key::{decode_start, encode_start};
use crate::operator::{Context, Operator};
use crate::state::{ByteTable, CodecError, KeyedTable, StateRegistry, Stored};

/// Tables of the operator's state; the numbers are part of the keys on disk.
const WAITING_TABLE: u16 = 0;
const DEVICES_TABLE: u16 = 1;
const HEARD_TABLE: u16 = 2;
const WIDTH_TABLE: u16 = 3;
/// Microseconds of the narrowest bucket, which delays what is told by as much and saves a walk for each event; a wider one is an
/// eighth of `within`, so that few have to be looked at.
const LEAST_BUCKET: i64 = 30 * 1_000_000;
const DAY: i64 = 86_400_000_000;
/// Days of event time after which a device that nothing is heard of is forgotten.
pub const REMEMBERED_DAYS: i64 = 60;

/// The operator; its input are numbers of devices, by group.
pub struct Sequence {
    numbering: Numbering,
    lateness: Span,
    width: i64,
    /// Events by bucket and device.
    waiting: ByteTable,
    /// Buckets that have events, with their key groups.
    buckets: BTreeMap<i64, Vec<u16>>,
    devices: KeyedTable<u128, Device>,
    /// Devices by the days in which something was heard of them.
    heard: ByteTable,
    /// Devices that weren't heard of since this day are forgotten.
    forgotten: i64,
    owned: Range<u16>,
    tell: Tell,
}

impl Sequence {
    /// Goes on with what `registry` holds.
    pub fn new(
        sequencing: &Sequencing,
        lateness: Span,
        tell: Tell,
        memory_bytes: usize,
        registry: &mut StateRegistry,
    ) -> Result<Sequence, Error> {
        let within = sequencing.within.0.max(0);
        let waiting = registry.table(WAITING_TABLE)?;
        let mut buckets = BTreeMap::new();
        waiting.scan(|group, key, _| {
            add_group(&mut buckets, decode_start(key)?, group);
            Ok(ControlFlow::Continue(()))
        })?;
        let width = LEAST_BUCKET.max(within / 8);
        Ok(Sequence {
            numbering: Numbering { within, starts_at: sequencing.starts_at },
            lateness,
            width: kept_width(&mut registry.table(WIDTH_TABLE)?, registry.owned(), width)?,
            waiting,
            buckets,
            devices: registry.keyed(DEVICES_TABLE, memory_bytes)?,
            heard: registry.table(HEARD_TABLE)?,
            forgotten: i64::MIN,
            owned: registry.owned(),
            tell,
        })
    }

    fn bucket_of(&self, at: i64) -> i64 {
        at.saturating_sub(at.rem_euclid(self.width))
    }

    /// Up to where buckets are settled.
    fn settled(&self, cx: &Context<'_>) -> i64 {
        cx.log_watermark().minus(self.lateness).minus(Span(self.numbering.within)).0
    }

    /// Walks over what came of a key group's devices in the bucket that begins at `start`.
    fn settle(&mut self, group: u16, start: i64) -> Result<(), Error> {
        let mut parts: Vec<(u128, Stored)> = Vec::new();
        self.waiting.scan_prefix(group, &encode_start(start), |key, stored| {
            let device = key.last_chunk::<16>().ok_or_else(|| foreign(CodecError("device")))?;
            parts.push((u128::from_be_bytes(*device), stored));
            Ok(ControlFlow::Continue(()))
        })?;
        self.devices.prefetch(parts.iter().map(|(device, _)| (group, device)))?;
        for (name, stored) in parts {
            self.waiting.delete(group, &key_of(start, name))?;
            let mut events = events_of(start, &stored)?;
            events.sort_unstable();
            events.dedup_by_key(|event| event.point);
            self.walk(group, name, start, &events)?;
        }
        Ok(())
    }

    fn walk(&mut self, group: u16, name: u128, start: i64, events: &[Waiting]) -> Result<(), Error> {
        let points: Vec<Point> = events.iter().map(|event| event.point).collect();
        let mut device = self.devices.get(group, &name)?.map(|device| device.clone());
        let upto = start.saturating_add(self.width).saturating_add(self.numbering.within);
        let (width, waiting) = (self.width, &self.waiting);
        let further = || further(waiting, group, name, start.saturating_add(width)..upto, width);
        let steps = walk(&mut device, &points, self.numbering, further)?;
        let Some(mut device) = device else { return Ok(()) };
        let day = start.div_euclid(DAY);
        if device.day != day {
            device.day = day;
            self.heard.put(group, &key_of(day, name), &[])?;
        }
        self.devices.insert(group, &name, device)?;
        let told_at = upto.saturating_sub(1);
        for (event, step) in events.iter().zip(steps) {
            match step {
                Step::Again => {}
                Step::Came => self.tell.came(event, told_at),
                Step::Behind(gap) => self.tell.behind(event, &gap, told_at),
            }
        }
        Ok(())
    }

    /// Forgets devices that nothing was heard of for long; looked for once a day.
    fn forget(&mut self, settled: i64) -> Result<(), Error> {
        let oldest = settled.div_euclid(DAY).saturating_sub(REMEMBERED_DAYS);
        if oldest <= self.forgotten {
            return Ok(());
        }
        self.forgotten = oldest;
        for group in self.owned.clone() {
            let mut old: Vec<(i64, u128)> = Vec::new();
            self.heard.scan_range(group, &encode_start(i64::MIN), &encode_start(oldest), |key, _| {
                let device = key.last_chunk::<16>().ok_or_else(|| foreign(CodecError("device")))?;
                old.push((decode_start(key)?, u128::from_be_bytes(*device)));
                Ok(ControlFlow::Continue(()))
            })?;
            for (day, name) in old {
                self.heard.delete(group, &key_of(day, name))?;
                let is_last = self.devices.get(group, &name)?.is_some_and(|device| device.day == day);
                if is_last {
                    self.devices.remove(group, &name)?;
                }
            }
        }
        Ok(())
    }
}

/// A bucket or a day, then the device.
fn key_of(start: i64, device: u128) -> Vec<u8> {
    let mut key = encode_start(start).to_vec();
    key.extend_from_slice(&device.to_be_bytes());
    key
}

fn events_of(start: i64, stored: &Stored) -> Result<Vec<Waiting>, Error> {
    stored.added().map(|bytes| Waiting::read(start, bytes).map_err(foreign)).collect()
}

/// The points of a device that wait in the buckets of `of`, in order.
fn further(waiting: &ByteTable, group: u16, device: u128, of: Range<i64>, width: i64) -> Result<Vec<Point>, Error> {
    let mut points = Vec::new();
    let mut start = of.start;
    while start < of.end {
        if let Some(stored) = waiting.get(group, &key_of(start, device))? {
            points.extend(events_of(start, &stored)?.into_iter().map(|event| event.point));
        }
        start = start.saturating_add(width);
    }
    points.sort_unstable();
    points.dedup();
    Ok(points)
}

fn foreign(error: CodecError) -> Error {
    Error::State { operator: "sequence".to_owned(), detail: error.to_string() }
}

fn add_group(buckets: &mut BTreeMap<i64, Vec<u16>>, bucket: i64, group: u16) {
    let groups = buckets.entry(bucket).or_default();
    if let Err(at) = groups.binary_search(&group) {
        groups.insert(at, group);
    }
}

impl Operator for Sequence {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        let numbered = Numbered::of(&batch)?;
        let (settled, mut bytes) = (self.settled(cx), Vec::new());
        for row in numbered.rows() {
            let (group, event) = (numbered.groups[row], Waiting::of_row(&numbered, row));
            let start = self.bucket_of(event.point.0);
            if start.saturating_add(self.width) <= settled {
                // Nothing in time is so old; what is nevertheless must not be walked over out of turn.
                continue;
            }
            let device = numbered.devices.value(row).first_chunk::<16>().map_or(0, |name| u128::from_be_bytes(*name));
            bytes.clear();
            event.write(start, &mut bytes);
            self.waiting.merge(group, &key_of(start, device), &bytes)?;
            add_group(&mut self.buckets, start, group);
        }
        Ok(())
    }

    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        if cx.log_watermark() == EventTime::MIN {
            return Ok(());
        }
        let settled = self.settled(cx);
        while let Some(first) = self.buckets.first_entry()
            && first.key().saturating_add(self.width) <= settled
        {
            let (start, groups) = first.remove_entry();
            for group in groups {
                self.settle(group, start)?;
            }
            self.tell.write(cx)?;
        }
        self.forget(settled)?;
        self.tell.emit(cx)
    }

    fn outputs(&self) -> usize {
        2
    }

    /// What is told at an epoch's end is of windows that the watermark passed within it.
    fn holds_watermark_within_epoch(&self) -> bool {
        true
    }
}
