//! The archive on a folder: what goes in comes out, whatever is merged, lost or left behind.

#![allow(clippy::unwrap_used, reason = "a test ends where it can't go on")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use weir_archive::{
    Archive, Catalog, Compaction, Error, Gap, Kept, KeptSchema, Pending, Relation, Selection, Settings, Stretch,
};
use weir_schemas::headers;

const HOUR_MS: i64 = 3_600_000;
/// 2026-01-05, 12 o'clock.
const NOON_MS: i64 = 1_767_614_400_000;

fn open(folder: &Path) -> Archive {
    let url = folder.display().to_string();
    Archive::open(&Settings { url, options: BTreeMap::new(), pipeline: "shop".to_owned() }).unwrap()
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(NOON_MS + 48 * HOUR_MS).unwrap()
}

/// A record with everything that a record may have: nothing, empty, zeros, repeated headers, odd timestamps.
fn record(random: &mut fastrand::Rng, partition: i32, offset: i64) -> Kept {
    let bytes = |random: &mut fastrand::Rng, most: usize| -> Option<Vec<u8>> {
        (random.u8(..10) > 0).then(|| (0..random.usize(..most)).map(|_| random.u8(..)).collect())
    };
    let mut all = Vec::new();
    for _ in 0..random.usize(..4) {
        let name: &[u8] = [&b"sdk"[..], b"sdk", b"", b"\xff\xfe"][random.usize(..4)];
        headers::push(&mut all, name, bytes(random, 20).as_deref());
    }
    let mut value = bytes(random, 200);
    if let Some(value) = value.as_mut().filter(|value| value.len() > 5 && random.bool()) {
        value[..5].copy_from_slice(&[0, 0, 0, 0, random.u8(1..4)]);
    }
    // Times go forth and back over the bounds of hours.
    let timestamp_ms = NOON_MS + offset * 2_000 + random.i64(-900_000..900_000);
    let odd = [None, Some(0), Some(-5), Some(i64::MAX)][random.usize(..4)];
    Kept {
        partition,
        offset,
        timestamp_ms: if random.u8(..50) == 0 { odd } else { Some(timestamp_ms) },
        is_append_time: false,
        key: bytes(random, 12),
        value,
        headers: all,
    }
}

/// A log of two partitions, with offsets that have no record.
fn log(seed: u64, count: i64) -> Vec<Kept> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut records = Vec::new();
    for partition in 0..2 {
        for offset in 0..count {
            if random.u8(..20) > 0 {
                records.push(record(&mut random, partition, offset));
            }
        }
    }
    records
}

/// Archives offsets `first` to before `next` of every partition.
fn append(archive: &Archive, catalog: &mut Catalog, records: &[Kept], first: i64, next: i64) {
    let mut pending = Pending::default();
    cover(&mut pending, records, first, next);
    archive.append(catalog, &pending.finish().unwrap(), now()).unwrap();
}

fn cover(pending: &mut Pending, records: &[Kept], first: i64, next: i64) {
    for partition in 0..2 {
        let of = records.iter().filter(|of| of.partition == partition && (first..next).contains(&of.offset));
        let count = of.clone().count() as u64;
        of.for_each(|record| pending.add("events", &record.borrowed()).unwrap());
        let topic_id = Some("id".to_owned());
        pending.cover(Stretch { topic: "events".to_owned(), topic_id, partition, first, next, records: count });
    }
}

fn read(archive: &Archive, catalog: &Catalog) -> Vec<Kept> {
    let mut all = Vec::new();
    for partition in 0..2 {
        let mut order = archive.in_order(catalog, "events", partition, Selection::ALL);
        while let Some(record) = order.next_record().unwrap() {
            all.push(record);
        }
    }
    all
}

#[track_caller]
fn assert_whole(archive: &Archive) -> Catalog {
    let catalog = archive.catalog().unwrap();
    let verified = archive.verify(&catalog, || ()).unwrap();
    assert_eq!(verified.faults, []);
    catalog
}

/// Files below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn compaction() -> Compaction {
    Compaction { aim_bytes: 1 << 20, settle_ms: HOUR_MS }
}

#[test]
fn what_goes_in_comes_out_however_it_was_cut_and_merged() {
    for seed in 0..6 {
        let folder = tempfile::tempdir().unwrap();
        let archive = open(folder.path());
        let records = log(seed, 4_000);
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut catalog, mut first) = (archive.catalog().unwrap(), 0);
        while first < 4_000 {
            let next = (first + random.i64(1..400)).min(4_000);
            append(&archive, &mut catalog, &records, first, next);
            first = next;
            if random.u8(..3) == 0 {
                archive.merge(&mut catalog, compaction(), now()).unwrap();
            }
        }
        assert_eq!(archive.catalog().unwrap().number, catalog.number);
        assert!(read(&archive, &catalog) == records, "seed {seed}");

        let before = catalog.entries.len();
        while archive.merge(&mut catalog, compaction(), now()).unwrap().is_some() {}
        assert!(catalog.entries.len() < before / 2, "{} of {before}", catalog.entries.len());
        assert!(read(&archive, &assert_whole(&archive)) == records, "seed {seed}, merged");
        let deleted = archive.sweep_removed(&mut catalog, TimeDelta::zero(), now()).unwrap();
        assert!(deleted > 0 && catalog.removed.is_empty());
        assert!(read(&archive, &assert_whole(&archive)) == records, "seed {seed}, swept");
        let parquet = files(folder.path()).into_iter().filter(|of| of.extension().is_some_and(|of| of == "parquet"));
        assert_eq!(parquet.count(), catalog.entries.len(), "what counts is all that is there");

        // A part of it, from the middle.
        let mut order = archive.in_order(&catalog, "events", 1, Selection { first: 1_000, next: 1_500 });
        let mut part = Vec::new();
        while let Some(record) = order.next_record().unwrap() {
            part.push(record);
        }
        let is_in = |of: &&Kept| of.partition == 1 && (1_000..1_500).contains(&of.offset);
        assert!(part.iter().eq(records.iter().filter(is_in)));
    }
}

#[test]
fn a_truncated_a_missing_an_altered_and_a_foreign_file_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let archive = open(folder.path());
    let records = log(9, 3_000);
    let mut catalog = archive.catalog().unwrap();
    archive
        .put_schema(&KeptSchema { id: 7, schema: "\"int\"".to_owned(), referenced: vec![], versions: vec![] })
        .unwrap();
    let mut pending = Pending::default();
    cover(&mut pending, &records, 0, 3_000);
    let mut ready = pending.finish().unwrap();
    ready.has_schema(7);
    archive.append(&mut catalog, &ready, now()).unwrap();
    let catalog = assert_whole(&archive);
    let names: Vec<&String> = catalog.entries.keys().collect();
    let path = |name: &str| folder.path().join(name);
    assert!(names.len() > 4);

    let bytes = std::fs::read(path(names[0])).unwrap();
    std::fs::write(path(names[0]), &bytes[..bytes.len() / 2]).unwrap();
    std::fs::remove_file(path(names[1])).unwrap();
    let mut bytes = std::fs::read(path(names[2])).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path(names[2]), &bytes).unwrap();
    let foreign = names[3].replace("part-", "copy-of-part-");
    std::fs::copy(path(names[3]), path(&foreign)).unwrap();
    std::fs::write(path("_manifest/notes.txt"), "hello").unwrap();
    std::fs::remove_file(path("_schemas/7.json")).unwrap();
    // An object of a writer that was killed before its commit: another pipeline's records under a name of ours.
    let other = tempfile::tempdir().unwrap();
    let theirs = open(other.path());
    append(&theirs, &mut theirs.catalog().unwrap(), &log(10, 50), 0, 50);
    let left = theirs.catalog().unwrap().entries.keys().next().unwrap().clone();
    std::fs::create_dir_all(path(&left).parent().unwrap()).unwrap();
    std::fs::copy(other.path().join(&left), path(&left)).unwrap();

    let verified = archive.verify(&catalog, || ()).unwrap();
    let found: Vec<(&str, &str)> = verified.faults.iter().map(|of| (of.kind, of.name.as_str())).collect();
    let mut expected = vec![
        ("truncated", names[0].as_str()),
        ("missing", names[1].as_str()),
        ("altered", names[2].as_str()),
        ("missing", "_schemas/7.json"),
        ("foreign", "_manifest/notes.txt"),
        ("foreign", foreign.as_str()),
    ];
    expected.sort_unstable();
    let mut sorted = found.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    assert_eq!(verified.left_over, [left.clone()]);

    // Whoever reads is told the object, and what is foreign stays out.
    let mut order = archive.in_order(&catalog, "events", 0, Selection::ALL);
    let told = loop {
        match order.next_record() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a damaged archive was read to its end"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(names[..3].iter().any(|name| told.contains(name.as_str())), "{told}");

    // What a killed writer left is swept when it is old enough to be nobody's; a foreign file is left alone.
    assert_eq!(archive.sweep_nobodys(Utc::now()).unwrap(), 0);
    assert_eq!(archive.sweep_nobodys(Utc::now() + TimeDelta::hours(2)).unwrap(), 1);
    assert!(!path(&left).exists() && path(&foreign).exists());
}

#[test]
fn a_manifest_that_lost_a_commit_says_which() {
    let folder = tempfile::tempdir().unwrap();
    let archive = open(folder.path());
    let records = log(3, 300);
    let mut catalog = archive.catalog().unwrap();
    for at in 0..3 {
        append(&archive, &mut catalog, &records, at * 100, (at + 1) * 100);
    }
    std::fs::remove_file(folder.path().join("_manifest/commit-00000000000000000002.json")).unwrap();
    let told = archive.catalog().unwrap_err().to_string();
    assert!(told.contains("commit-00000000000000000002.json") && told.contains("missing"), "{told}");
}

#[test]
fn of_two_writers_one_fails_and_a_retry_knows_that_it_was_done() {
    let folder = tempfile::tempdir().unwrap();
    let archive = open(folder.path());
    let records = log(5, 200);
    let (mut one, mut other) = (archive.catalog().unwrap(), archive.catalog().unwrap());
    let mut pending = Pending::default();
    cover(&mut pending, &records, 0, 100);
    let ready = pending.finish().unwrap();
    append(&archive, &mut one, &records, 0, 150);
    assert!(matches!(archive.append(&mut other, &ready, now()), Err(Error::Conflict { number: 1 })));
    let catalog = archive.catalog().unwrap();
    // All of it is there; what goes beyond it isn't, and doesn't follow either.
    assert_eq!(ready.relation(&catalog), Relation::There);
    let (mut beyond, mut behind) = (Pending::default(), Pending::default());
    cover(&mut beyond, &records, 100, 200);
    assert_eq!(beyond.finish().unwrap().relation(&catalog), Relation::Elsewhere);
    cover(&mut behind, &records, 150, 200);
    assert_eq!(behind.finish().unwrap().relation(&catalog), Relation::Next);
    append(&archive, &mut one, &records, 150, 200);
    assert!(read(&archive, &assert_whole(&archive)) == records);

    // A pipeline of another name is told whose it is.
    let settings =
        Settings { url: folder.path().display().to_string(), options: BTreeMap::new(), pipeline: "other".to_owned() };
    let told = Archive::open(&settings).unwrap().catalog().unwrap_err().to_string();
    assert!(told.contains("belongs to the pipeline `shop`"), "{told}");
}

#[test]
fn gaps_have_names_old_records_expire_and_snapshots_sum_up() {
    let folder = tempfile::tempdir().unwrap();
    let archive = open(folder.path());
    let records = log(7, 6_000);
    let mut catalog = archive.catalog().unwrap();
    append(&archive, &mut catalog, &records, 0, 1_000);
    let mut pending = Pending::default();
    for partition in 0..2 {
        let (topic, found_at_ms) = ("events".to_owned(), NOON_MS);
        pending.miss(Gap { topic, partition, first: 1_000, next: 1_100, found_at_ms });
    }
    cover(&mut pending, &records, 1_100, 1_200);
    archive.append(&mut catalog, &pending.finish().unwrap(), now()).unwrap();
    for at in 12..60 {
        append(&archive, &mut catalog, &records, at * 100, (at + 1) * 100);
    }
    assert!(folder.path().join("_manifest/snapshot-00000000000000000050.json").exists());
    let catalog = assert_whole(&archive);
    let is_there = |of: &&Kept| !(1_000..1_100).contains(&of.offset);
    assert!(read(&archive, &catalog).iter().eq(records.iter().filter(is_there)));
    let log = catalog.log("events", 1).unwrap();
    assert_eq!((log.gaps.len(), log.gaps[0].first, log.gaps[0].next, log.next), (1, 1_000, 1_100, 6_000));

    // Objects go when their youngest record is too old; what has no time stays.
    let before_ms = NOON_MS + HOUR_MS;
    let mut catalog = catalog;
    let expired = archive.expire(&mut catalog, "events", before_ms, now()).unwrap();
    assert!(expired > 0);
    let catalog = assert_whole(&archive);
    let is_old = |entry: &weir_archive::Entry| entry.greatest_timestamp_ms.is_some_and(|at| at < before_ms);
    assert!(!catalog.entries.is_empty() && !catalog.entries.values().any(is_old));
    assert!(read(&archive, &catalog).len() < records.len());
}
