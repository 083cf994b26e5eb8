//! The invented log: topics in memory, which grow while they are read.
//!
//! Offsets are the records' places in their partition, from 0 and without gaps. Nothing is forgotten, nobody is silent,
//! and nothing is ever refused: what can go wrong with a broker is the business of tests against a real one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use weir_pipeline::error::Error;
use weir_pipeline::source::Attend;
use weir_pipeline::source::describe::Topic;
use weir_pipeline::source::log::{Assigned, Attending, Fetch, Fetched, Log, LookUp};
use weir_pipeline::source::message::{Message, Record};

/// Messages that one look at a partition brings at most.
const MESSAGES_PER_CALL: usize = 8_192;

/// Topics in memory. Clones share them.
#[derive(Clone, Default)]
pub struct InventedLog(Arc<Mutex<Topics>>);

/// The partitions of each topic, each with its records by offset.
type Topics = BTreeMap<String, Vec<Vec<Arc<Record>>>>;

impl InventedLog {
    /// A log with these topics, each of as many partitions.
    pub fn new(topics: impl IntoIterator<Item = (String, usize)>) -> InventedLog {
        let empty = |(name, partitions): (String, usize)| (name, vec![Vec::new(); partitions.max(1)]);
        InventedLog(Arc::new(Mutex::new(topics.into_iter().map(empty).collect())))
    }

    /// Puts a record behind a partition's last one and gives it its offset; false where there is no such partition.
    pub fn append(&self, topic: &str, partition: usize, mut record: Record) -> bool {
        let mut topics = self.topics();
        let Some(records) = topics.get_mut(topic).and_then(|partitions| partitions.get_mut(partition)) else {
            return false;
        };
        record.offset = end_of(records);
        records.push(Arc::new(record));
        true
    }

    /// How many partitions a topic has; 0 where there is no such topic.
    pub fn partitions(&self, topic: &str) -> usize {
        self.topics().get(topic).map_or(0, Vec::len)
    }

    /// The record at a place.
    pub fn record(&self, topic: &str, partition: i32, offset: i64) -> Option<Arc<Record>> {
        self.records(topic, partition, offset, 1).0.pop().filter(|record| record.offset == offset)
    }

    /// Records in all.
    pub fn len(&self) -> u64 {
        self.topics().values().flatten().map(|records| records.len() as u64).sum()
    }

    /// Whether there is no record at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to `count` records from `offset` on, and the log's end.
    fn records(&self, topic: &str, partition: i32, offset: i64, count: usize) -> (Vec<Arc<Record>>, i64) {
        let topics = self.topics();
        let number = usize::try_from(partition).unwrap_or(usize::MAX);
        let Some(records) = topics.get(topic).and_then(|partitions| partitions.get(number)) else {
            return (Vec::new(), 0);
        };
        let from = usize::try_from(offset).unwrap_or(0).min(records.len());
        let to = from.saturating_add(count).min(records.len());
        (records[from..to].to_vec(), end_of(records))
    }
}

fn end_of(records: &[Arc<Record>]) -> i64 {
    i64::try_from(records.len()).unwrap_or(i64::MAX)
}

impl Log for InventedLog {
    fn topics(&self, names: &[String]) -> Result<Vec<Topic>, Error> {
        let topics = InventedLog::topics(self);
        let describe = |name: &String| {
            let partitions =
                topics.get(name).map_or(0, |partitions| i32::try_from(partitions.len()).unwrap_or(i32::MAX));
            if partitions == 0 {
                return Err(Error::Stopped(format!("the invented log has no topic `{name}`: this is a bug")));
            }
            Ok(Topic { name: name.clone(), id: None, partitions: (0..partitions).collect() })
        };
        names.iter().map(describe).collect()
    }

    fn extent(&self, topic: &str, partition: i32) -> Result<(i64, i64), Error> {
        Ok((0, self.records(topic, partition, 0, 0).1))
    }

    fn offset_at(&self, topic: &str, partition: i32, at_ms: i64) -> Result<Option<i64>, Error> {
        let (records, _) = self.records(topic, partition, 0, usize::MAX);
        Ok(records.iter().find(|record| record.timestamp_ms >= at_ms).map(|record| record.offset))
    }

    fn read(&self, _source: &str, assigned: &[Assigned], _queue_bytes: u64) -> Result<Box<dyn Fetch>, Error> {
        Ok(Box::new(Reader { log: self.clone(), assigned: assigned.to_vec() }))
    }

    fn lookups(&self) -> Box<dyn LookUp> {
        Box::new(self.clone())
    }

    fn attend(&self, _asked: Attending) -> Result<Option<Box<dyn Attend>>, Error> {
        Ok(None)
    }
}

impl LookUp for InventedLog {
    fn look_up(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        count: usize,
        _until: Instant,
    ) -> Option<Vec<Arc<Record>>> {
        Some(self.records(topic, partition, offset, count).0)
    }
}

/// A worker's reader; each assignment's offset is the one that is read next.
struct Reader {
    log: InventedLog,
    assigned: Vec<Assigned>,
}

impl Fetch for Reader {
    fn fetch(&mut self, index: usize) -> Fetched {
        let Some(of) = self.assigned.get_mut(index) else { return Fetched::default() };
        let (records, end) = self.log.records(&of.topic, of.partition, of.offset, MESSAGES_PER_CALL);
        of.offset += end_of(&records);
        Fetched {
            messages: records.into_iter().map(Message::of).collect(),
            end_offset: (of.offset >= end).then_some(end),
            ..Fetched::default()
        }
    }

    fn end_offset(&self, topic: &str, partition: i32) -> Option<i64> {
        Some(self.log.records(topic, partition, 0, 0).1)
    }

    fn serve(&mut self) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_while_it_grows_and_says_where_it_ends() {
        let log = InventedLog::new([("t".to_owned(), 2)]);
        let record = |timestamp_ms| Record { timestamp_ms, ..Record::default() };
        assert!(log.append("t", 1, record(5)) && log.append("t", 1, record(9)));
        assert!(!log.append("t", 2, record(0)) && !log.append("u", 0, record(0)));
        let assigned = [Assigned { topic: "t".to_owned(), partition: 1, offset: 0 }];
        let mut reader = log.read("s", &assigned, 0).expect("a reader");
        let fetched = reader.fetch(0);
        assert_eq!((fetched.messages.len(), fetched.end_offset), (2, Some(2)));
        assert_eq!(reader.fetch(0).messages.len(), 0);
        assert!(log.append("t", 1, record(12)));
        let fetched = reader.fetch(0);
        assert_eq!(fetched.messages.first().map(Message::offset), Some(2));
        assert_eq!(log.extent("t", 1).ok(), Some((0, 3)));
        assert_eq!(log.offset_at("t", 1, 6).ok(), Some(Some(1)));
        assert_eq!(log.offset_at("t", 1, 13).ok(), Some(None), "no record is as young");
        assert_eq!(log.look_up_one(1, 2), Some(12));
    }

    impl InventedLog {
        fn look_up_one(&self, partition: i32, offset: i64) -> Option<i64> {
            let found = self.clone().look_up("t", partition, offset, 1, Instant::now())?;
            found.first().map(|record| record.timestamp_ms)
        }
    }
}
