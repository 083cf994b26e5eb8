//! Reading an archive and the topic behind it, which forgets while it is read.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use weir_archive::{Gap, Pending, Settings, Stretch};

use super::*;

fn value(offset: i64) -> Vec<u8> {
    format!("value {offset}").into_bytes()
}

/// A topic of a hundred records, of which it has those from an offset on.
#[derive(Clone)]
struct Forgetful(Arc<AtomicI64>);

/// Reads it; what it has forgotten by then is trouble.
struct Reader(Forgetful, i64);

impl Log for Forgetful {
    fn topics(&self, _: &[String]) -> Result<Vec<Topic>, Error> {
        Ok(Vec::new())
    }

    fn extent(&self, _: &str, _: i32) -> Result<(i64, i64), Error> {
        Ok((self.0.load(Ordering::Acquire), 100))
    }

    fn offset_at(&self, _: &str, _: i32, _: i64) -> Result<Option<i64>, Error> {
        Ok(None)
    }

    fn read(&self, _: &str, assigned: &[Assigned], _: u64) -> Result<Box<dyn Fetch>, Error> {
        Ok(Box::new(Reader(self.clone(), assigned[0].offset)))
    }

    fn lookups(&self) -> Box<dyn LookUp> {
        unreachable!("nothing is looked up")
    }

    fn attend(&self, _: Attending) -> Result<Option<Box<dyn Attend>>, Error> {
        Ok(None)
    }
}

impl Fetch for Reader {
    fn fetch(&mut self, _: usize) -> Fetched {
        if self.1 < self.0.0.load(Ordering::Acquire) {
            let trouble = Trouble { kind: Kind::Expired, detail: "expired".to_owned() };
            return Fetched { trouble: Some(trouble), ..Fetched::default() };
        }
        let of = |offset| Record { offset, value: Some(Bytes::from(value(offset))), ..Record::default() };
        let messages = (self.1..100).map(|offset| Message::of(Arc::new(of(offset)))).collect();
        self.1 = 100;
        Fetched { messages, end_offset: Some(100), ..Fetched::default() }
    }

    fn end_offset(&self, _: &str, _: i32) -> Option<i64> {
        Some(100)
    }

    fn serve(&mut self) -> Option<String> {
        None
    }
}

fn open(folder: &Path) -> Archive {
    let (url, options, pipeline) = (folder.display().to_string(), BTreeMap::new(), "shop".to_owned());
    Archive::open(&Settings { url, options, pipeline, makes_folder: true }).unwrap()
}

/// Archives offsets `first` to before `next`, ten to an hour from the year 2000 on.
fn append(archive: &Archive, first: i64, next: i64, gap: Option<(i64, i64)>) {
    let (mut pending, topic) = (Pending::default(), "events".to_owned());
    if let Some((first, next)) = gap {
        pending.miss(Gap { topic: topic.clone(), partition: 0, first, next, found_at_ms: 0 });
    }
    for offset in first..next {
        let timestamp_ms = Some(946_684_800_000 + offset / 10 * 3_600_000);
        let kept = Kept { offset, timestamp_ms, value: Some(value(offset)), ..Kept::default() };
        pending.add(&topic, &kept.borrowed()).unwrap();
    }
    let records = (next - first) as u64;
    pending.cover(Stretch { topic, topic_id: None, partition: 0, first, next, records });
    let mut catalog = archive.catalog().unwrap();
    archive.append(&mut catalog, &pending.finish().unwrap(), chrono::Utc::now()).unwrap();
}

/// The offsets that come, until the end or what doesn't pass.
fn read(fetch: &mut dyn Fetch) -> Result<Vec<i64>, Trouble> {
    let mut offsets = Vec::new();
    let until = Instant::now() + Duration::from_secs(30);
    while Instant::now() < until {
        let fetched = fetch.fetch(0);
        for message in &fetched.messages {
            assert_eq!(message.value(), Some(&value(message.offset())[..]));
            offsets.push(message.offset());
        }
        if let Some(trouble) = fetched.trouble.filter(|trouble| !trouble.passes()) {
            return Err(trouble);
        }
        if fetched.end_offset.is_some() {
            return Ok(offsets);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("{} offsets came, and no end", offsets.len());
}

fn from(offset: i64) -> [Assigned; 1] {
    [Assigned { topic: "events".to_owned(), partition: 0, offset }]
}

#[test]
fn what_the_topic_forgets_while_the_archive_is_read_comes_from_the_archive() {
    let folder = tempfile::tempdir().unwrap();
    let archive = open(folder.path());
    append(&archive, 0, 60, None);
    let topic = Forgetful(Arc::new(AtomicI64::new(30)));
    let log = ArchiveLog::open(archive.clone(), Some(Arc::new(topic.clone()))).unwrap();
    assert_eq!(log.extent("events", 0).unwrap(), (0, 100));
    assert_eq!(log.bound("events", 0).unwrap(), 60, "the topic's youngest is read of it, and no more");
    // The live pipeline goes on archiving, and the topic forgets, also what lies behind the archive that was opened.
    append(&archive, 60, 90, None);
    topic.0.store(80, Ordering::Release);
    let mut fetch = log.read("events", &from(5), 1 << 20).unwrap();
    assert_eq!(read(fetch.as_mut()).unwrap(), (5..100).collect::<Vec<_>>());

    // Where nobody has it any more, that is told.
    topic.0.store(95, Ordering::Release);
    let mut fetch = log.read("events", &from(5), 1 << 20).unwrap();
    assert_eq!(read(fetch.as_mut()).unwrap_err().kind, Kind::Expired);
    let alone = ArchiveLog::open(archive, None).unwrap();
    assert_eq!(read(alone.read("events", &from(50), 1 << 20).unwrap().as_mut()).unwrap(), (50..90).collect::<Vec<_>>());
}

#[test]
fn gaps_and_what_expired_are_missing_and_the_topics_if_it_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let archive = open(folder.path());
    append(&archive, 0, 20, None);
    append(&archive, 25, 60, Some((20, 25)));
    let topic = Forgetful(Arc::new(AtomicI64::new(30)));
    let both = || ArchiveLog::open(archive.clone(), Some(Arc::new(topic.clone()))).unwrap();
    assert_eq!(both().missing("events", 0, 10, 100).unwrap(), [(20, 25)]);
    assert_eq!(both().missing("events", 0, 40, 100).unwrap(), []);
    let mut catalog = archive.catalog().unwrap();
    let before_ms = 946_684_800_000 + 4 * 3_600_000;
    assert!(archive.expire(&mut catalog, "events", before_ms, chrono::Utc::now()).unwrap() > 0);
    let log = both();
    // Offsets 0 to 39 have expired, and the topic has those from 30 on.
    assert_eq!((log.extent("events", 0).unwrap(), log.bound("events", 0).unwrap()), ((30, 100), 30));
    assert_eq!(log.missing("events", 0, 30, 100).unwrap(), []);
    assert_eq!(read(log.read("events", &from(30), 1 << 20).unwrap().as_mut()).unwrap(), (30..100).collect::<Vec<_>>());
    let alone = ArchiveLog::open(archive, None).unwrap();
    assert_eq!(alone.extent("events", 0).unwrap(), (40, 60));
}

#[test]
fn a_damaged_object_and_a_thread_that_is_gone_are_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let archive = open(folder.path());
    append(&archive, 0, 60, None);
    let log = ArchiveLog::open(archive.clone(), None).unwrap();
    let third = log.catalog.of_partition("events", 0)[2].object.clone();
    std::fs::remove_file(folder.path().join(&third)).unwrap();
    let trouble = read(log.read("events", &from(0), 1 << 20).unwrap().as_mut()).unwrap_err();
    assert!(trouble.kind == Kind::Damaged && trouble.detail.contains(&third), "{trouble:?}");

    let (send, batches) = sync_channel(1);
    drop(send);
    let part = Part { topic: "events".to_owned(), partition: 0, from: Feed::Archive(batches), bound: 60 };
    let (parts, source) = (vec![part], "events".to_owned());
    let mut fetch = ArchiveFetch { parts, readers: Vec::new(), topics: None, source, queue_bytes: 1 };
    assert!(read(&mut fetch).unwrap_err().detail.contains("gone"));
}
