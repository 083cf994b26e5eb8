//! Precedents: what a live run judged by the clock, as a replay judges it again.
//!
//! A live run keeps these judgements by place (`judgement`). A replay that repeats them asks here instead of the clock: an
//! event is late against the watermark that it was late against then, and against its own partition's log as always; the
//! registry doesn't know a schema for those records for which it didn't. All else was in time, and is.
//!
//! Idle partitions need no precedent: what they decided is which events came too late, and those are known.
//!
//! Not here: where they are read from (`weir-replay`).

use std::collections::BTreeMap;

use weir_schemas::time::EventTime;

use super::intake::Run;
use super::judgement::Kind;

/// What was judged of some consecutive records of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precedent {
    /// The first record.
    pub first: i64,
    /// The last record.
    pub last: i64,
    /// What was decided.
    pub kind: Kind,
    /// The watermark it was judged against.
    pub watermark: EventTime,
}

/// Precedents by topic and partition.
#[derive(Debug, Default)]
pub struct Precedents(BTreeMap<String, BTreeMap<i32, OfPartition>>);

/// Those of one partition, in the order of their offsets.
#[derive(Debug, Default)]
pub struct OfPartition {
    late: Vec<Precedent>,
    unknown: Vec<Precedent>,
}

/// What is known of a partition that has none.
static NONE: OfPartition = OfPartition { late: Vec::new(), unknown: Vec::new() };

impl Precedents {
    /// Adds a precedent. Those of a partition come in the order of their offsets, and one record has one of each kind.
    pub fn add(&mut self, topic: &str, partition: i32, precedent: Precedent) {
        let of = match self.0.get_mut(topic) {
            Some(partitions) => partitions.entry(partition).or_default(),
            None => self.0.entry(topic.to_owned()).or_default().entry(partition).or_default(),
        };
        let list = match precedent.kind {
            Kind::TooLateAfterIdle | Kind::TooLateRetried => &mut of.late,
            Kind::UnknownSchema => &mut of.unknown,
            Kind::Idle | Kind::Awake => return,
        };
        // After a long silence whole stretches are late against the same watermark.
        match list.last_mut() {
            Some(before) if before.last + 1 == precedent.first && before.watermark == precedent.watermark => {
                before.last = precedent.last;
            }
            _ => list.push(precedent),
        }
    }

    /// What is known of a partition.
    pub fn of(&self, topic: &str, partition: i32) -> &OfPartition {
        self.0.get(topic).and_then(|partitions| partitions.get(&partition)).unwrap_or(&NONE)
    }
}

impl OfPartition {
    /// The watermark that the record at `offset` was too late against; [`EventTime::MIN`], against which nothing is late,
    /// where it was in time or its own log decided.
    pub fn late_against(&self, offset: i64) -> EventTime {
        holding(&self.late, offset).map_or(EventTime::MIN, |of| of.watermark)
    }

    /// Whether the registry didn't know the schema of the record at `offset`, and up to before which offset the same is so.
    pub fn schema_was_unknown(&self, offset: i64) -> (bool, i64) {
        match holding(&self.unknown, offset) {
            Some(of) => (true, of.last.saturating_add(1)),
            None => {
                let next = self.unknown.partition_point(|of| of.first <= offset);
                (false, self.unknown.get(next).map_or(i64::MAX, |of| of.first))
            }
        }
    }
}

impl Run<'_> {
    /// What the record at `offset` is held to besides its own partition's log: the watermark that the stream was told, or, for
    /// a retried one, the least event time whose window the state has.
    pub(super) fn against(&self, offset: i64) -> EventTime {
        let before = self.precedents.map(|of| of.late_against(offset));
        // Whatever was judged before, a window that this state has no more can't be corrected.
        let retried = self.floor.map(|floor| floor.max(before.unwrap_or(floor)));
        retried.or(before).unwrap_or(self.held)
    }
}

/// The precedent of a list that is of the record at `offset`.
fn holding(list: &[Precedent], offset: i64) -> Option<&Precedent> {
    let behind = list.partition_point(|of| of.first <= offset);
    list.get(behind.checked_sub(1)?).filter(|of| of.last >= offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_precedent_that_holds_its_offset() {
        let late = |first, watermark| Precedent {
            first,
            last: first,
            kind: Kind::TooLateAfterIdle,
            watermark: EventTime(watermark),
        };
        let unknown = |first, last| Precedent { first, last, kind: Kind::UnknownSchema, watermark: EventTime::MIN };
        let mut all = Precedents::default();
        for of in [late(3, 50), late(4, 50), late(5, 60), late(9, 60), unknown(10, 12), unknown(20, 20)] {
            all.add("t", 1, of);
        }
        all.add("t", 1, Precedent { kind: Kind::Idle, ..late(7, 70) });
        let of = all.of("t", 1);
        assert_eq!(of.late.len(), 3, "3 and 4 are one");
        let against: Vec<i64> = (3..=10)
            .map(|offset| of.late_against(offset))
            .map(|at| if at == EventTime::MIN { 0 } else { at.0 })
            .collect();
        assert_eq!(against, [50, 50, 60, 0, 0, 0, 60, 0]);
        let told = |offset| of.schema_was_unknown(offset);
        assert_eq!([told(0), told(10), told(12)], [(false, 10), (true, 13), (true, 13)]);
        assert_eq!([told(13), told(20), told(21)], [(false, 20), (true, 21), (false, i64::MAX)]);
        assert_eq!(all.of("t", 0).schema_was_unknown(5), (false, i64::MAX));
        assert_eq!(all.of("u", 1).late_against(3), EventTime::MIN);
    }
}
