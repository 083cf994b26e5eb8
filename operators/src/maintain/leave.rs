//! Which groups' rows leave at the end of an epoch.

use std::ops::ControlFlow;

use arrow_array::BooleanArray;
use weir_schemas::time::EventTime;
use xxhash_rust::xxh3::xxh3_64;

use super::slots::FIXED_BYTES;
use super::value::{HELD_BACK, Header, OUT};
use super::{BIG_STATE_BYTES, CHUNK, CHUNK_BYTES, Keeping, Maintain};
use crate::error::Error;
use crate::group_key::{decode_start, encode_start};
use crate::operator::Context;
use crate::state::Stored;
use crate::through::Through;

impl Maintain {
    /// Looks at groups for rows: decides which leave, writes them, and keeps what was decided in their headers.
    fn write_rows(&mut self, slots: &[u32], complete: EventTime, cx: &mut Context<'_>) -> Result<(), Error> {
        let mut chosen = Vec::new();
        let mut bytes = 0;
        for slot in slots {
            if self.wants_row(*slot, complete) {
                chosen.push(*slot);
                let of_slot =
                    self.groups.get(*slot).map_or(0, |entry| FIXED_BYTES + entry.key.len() + entry.heap_bytes);
                self.written_bytes += of_slot;
                bytes += of_slot;
            }
            if chosen.len() >= CHUNK || bytes >= CHUNK_BYTES {
                self.write_chosen(&std::mem::take(&mut chosen), cx)?;
                bytes = 0;
            }
        }
        self.write_chosen(&chosen, cx)
    }

    /// Whether a group's row leaves now; its revision rises and its flags change accordingly.
    fn wants_row(&mut self, slot: u32, complete: EventTime) -> bool {
        let Keeping { provisional, .. } = self.keeping;
        let Some(entry) = self.groups.get_mut(slot) else { return false };
        let changed = std::mem::take(&mut entry.changed);
        let was_closed = entry.start < self.complete_through.of(entry.group).0;
        let is_closed = entry.start < complete.0;
        let wants = if was_closed {
            changed
        } else if is_closed {
            !provisional || changed || entry.header.flags & HELD_BACK != 0
        } else {
            provisional && changed && entry.heap_bytes < BIG_STATE_BYTES
        };
        if wants {
            entry.header.revision += u32::from(was_closed);
            entry.header.flags &= !HELD_BACK;
        } else if changed && provisional {
            entry.header.flags |= HELD_BACK;
            self.open_windows.entry(entry.start).or_default().held_back = true;
            self.waiting.push(&entry.key, entry.group);
        }
        wants
    }

    fn write_chosen(&mut self, slots: &[u32], cx: &mut Context<'_>) -> Result<(), Error> {
        if slots.is_empty() {
            return Ok(());
        }
        let Maintain { plan, windows, format, row_format, groups, .. } = self;
        let Some(holds) = row_format.having(plan, windows, format, slots, groups)? else {
            cx.write(row_format.changes(plan, windows, format, slots, None, groups)?);
            return Ok(());
        };
        let (mut written, mut deleted) = (Vec::new(), Vec::new());
        for (slot, holds) in slots.iter().zip(holds.values()) {
            let Some(entry) = groups.get_mut(*slot) else { continue };
            let was_out = entry.header.flags & OUT != 0;
            if holds || was_out {
                written.push(*slot);
                deleted.push(!holds);
            }
            entry.header.flags = if holds { entry.header.flags | OUT } else { entry.header.flags & !OUT };
        }
        let any = deleted.iter().any(|deleted| *deleted);
        let deleted = any.then(|| BooleanArray::from(deleted));
        cx.write(row_format.changes(plan, windows, format, &written, deleted, groups)?);
        Ok(())
    }

    /// Writes rows with big states of open windows, as many as their turn has come for. A row of a window that closes now
    /// loses its turn: it leaves with its window.
    pub(super) fn write_waiting(&mut self, complete: EventTime, cx: &mut Context<'_>) -> Result<(), Error> {
        let each_epoch = self.keeping.provisional_bytes as i64;
        // What wasn't needed isn't saved up, so that no epoch has more than its share and one state.
        self.waiting.credit_bytes = self.waiting.credit_bytes.saturating_add(each_epoch).min(each_epoch);
        let mut slots = Vec::new();
        while self.waiting.credit_bytes > 0 {
            let Some((key, group)) = self.waiting.pop() else { break };
            let start = decode_start(&key)?;
            if start < complete.0 {
                continue;
            }
            let hash = xxh3_64(&key);
            let slot = match self.groups.find(hash, &key) {
                Some(slot) => slot,
                None => {
                    let slot = self.groups.place(hash, &key, group, start);
                    self.read_back(&[slot])?;
                    slot
                }
            };
            let Some(entry) = self.groups.get_mut(slot) else { continue };
            entry.header.flags &= !HELD_BACK;
            self.waiting.credit_bytes -= entry.heap_bytes as i64;
            slots.push(slot);
        }
        self.write_chosen(&slots, cx)?;
        slots.iter().try_for_each(|slot| self.save(*slot))?;
        self.evict()
    }

    /// Looks at every group of the window that begins at `start`, reading those that are not in memory.
    pub(super) fn close_window(&mut self, start: i64, complete: EventTime, cx: &mut Context<'_>) -> Result<(), Error> {
        let Some(window) = self.open_windows.get_mut(&start) else { return Ok(()) };
        window.held_back = false;
        let mut key_groups = window.key_groups();
        key_groups.retain(|group| self.complete_through.of(*group).0 <= start);
        let Some(end) = start.checked_add(1).map(encode_start) else { return Ok(()) };
        for group in key_groups {
            let mut from = encode_start(start).to_vec();
            loop {
                let (mut found, mut bytes): (Vec<(Vec<u8>, Stored)>, usize) = (Vec::new(), 0);
                self.table.scan_range(group, &from, &end, |key, stored| {
                    bytes += stored.whole().map_or(0, <[u8]>::len) + stored.added().map(<[u8]>::len).sum::<usize>();
                    found.push((key.to_vec(), stored));
                    let room = found.len() < CHUNK && bytes < CHUNK_BYTES;
                    Ok(if room { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
                })?;
                let Some((last, _)) = found.last() else { break };
                from = [last, &[0][..]].concat();
                let mut slots = Vec::with_capacity(found.len());
                for (key, stored) in &found {
                    slots.extend(self.closing_slot(group, start, key, stored)?);
                }
                self.write_and_save(&slots, complete, cx)?;
                self.evict()?;
            }
        }
        Ok(())
    }

    /// The slot of a group of a window that closes; `None` where its row is certain to be up to date.
    fn closing_slot(&mut self, group: u16, start: i64, key: &[u8], stored: &Stored) -> Result<Option<u32>, Error> {
        let hash = xxh3_64(key);
        if let Some(slot) = self.groups.find(hash, key) {
            return Ok(Some(slot));
        }
        let up_to_date = Header::of(stored)?.flags & HELD_BACK == 0 && !self.evicted.contains_key(key);
        if self.keeping.provisional && up_to_date {
            return Ok(None);
        }
        let slot = self.groups.place(hash, key, group, start);
        self.fill(slot, stored)?;
        Ok(Some(slot))
    }

    fn write_and_save(&mut self, slots: &[u32], complete: EventTime, cx: &mut Context<'_>) -> Result<(), Error> {
        self.write_rows(slots, complete, cx)?;
        slots.iter().try_for_each(|slot| self.save(*slot))
    }

    /// Writes the rows of groups that changed in this epoch, save those of windows that are `closing`.
    pub(super) fn write_changed(
        &mut self,
        closing: &[i64],
        complete: EventTime,
        cx: &mut Context<'_>,
    ) -> Result<(), Error> {
        let is_closing =
            |done: &Through, group: u16, start: i64| closing.binary_search(&start).is_ok() && done.of(group).0 <= start;
        let mut slots = std::mem::take(&mut self.changed);
        slots.sort_unstable();
        slots.dedup();
        slots.retain(|slot| self.groups.get(*slot).is_some_and(|entry| entry.changed));
        let (later, now): (Vec<u32>, Vec<u32>) = slots.into_iter().partition(|slot| {
            self.groups.get(*slot).is_some_and(|entry| is_closing(&self.complete_through, entry.group, entry.start))
        });
        // A window that closes is read from the table, which must have all of it.
        later.iter().try_for_each(|slot| self.save(*slot))?;
        self.write_and_save(&now, complete, cx)?;
        loop {
            let of_now = |key: &[u8], group: u16| {
                decode_start(key).is_ok_and(|start| !is_closing(&self.complete_through, group, start))
            };
            let keys: Vec<(Box<[u8]>, u16)> = self
                .evicted
                .iter()
                .filter(|(key, group)| of_now(key, **group))
                .take(CHUNK)
                .map(|(key, group)| (key.clone(), *group))
                .collect();
            if keys.is_empty() {
                return Ok(());
            }
            let mut slots = Vec::with_capacity(keys.len());
            for (key, group) in &keys {
                slots.push(self.groups.place(xxh3_64(key), key, *group, decode_start(key)?));
            }
            self.read_back(&slots)?;
            self.write_and_save(&slots, complete, cx)?;
            self.evict()?;
        }
    }
}
