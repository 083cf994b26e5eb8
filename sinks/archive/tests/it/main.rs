//! The archive on a folder: what goes in comes out, whatever is merged, lost or left behind.

#![allow(clippy::unwrap_used, reason = "a test ends where it can't go on")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use weir_archive::{
    Archive, Catalog, Compaction, Error, Gap, Kept, KeptSchema, Pending, Relation, Selection, Settings, Stretch,
};
use weir_schemas::headers;

const HOUR_MS: i64 = 3_600_000;
/// 2026-01-05, 12 o'clock.
const NOON_MS: i64 = 1_767_614_400_000;

/// No object is left out of a merge.
const NONE: BTreeSet<String> = BTreeSet::new();

fn open(folder: &Path) -> Archive {
    let url = folder.display().to_string();
    Archive::open(&Settings { url, options: BTreeMap::new(), pipeline: "shop".to_owned(), makes_folder: true }).unwrap()
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
    let verified = archive.verify(&catalog, Utc::now(), || ()).unwrap();
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
                archive.merge(&mut catalog, compaction(), &NONE, now()).unwrap();
            }
        }
        assert_eq!(archive.catalog().unwrap().number, catalog.number);
        assert!(read(&archive, &catalog) == records, "seed {seed}");

        let before = catalog.entries.len();
        while archive.merge(&mut catalog, compaction(), &NONE, now()).unwrap().is_some() {}
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

    let verified = archive.verify(&catalog, Utc::now(), || ()).unwrap();
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
    assert_eq!(verified.left_over, std::slice::from_ref(&left));

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
    let settings = Settings {
        url: folder.path().display().to_string(),
        options: BTreeMap::new(),
        pipeline: "other".to_owned(),
        makes_folder: false,
    };
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

#[test]
fn without_its_manifest_nothing_is_written_or_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let archive = open(folder.path());
    let records = log(11, 500);
    let mut catalog = archive.catalog().unwrap();
    append(&archive, &mut catalog, &records, 0, 500);
    let kept = files(&folder.path().join("topic=events"));
    std::fs::rename(folder.path().join("_manifest"), folder.path().join("away")).unwrap();

    let later = Utc::now() + TimeDelta::hours(2);
    for told in [archive.catalog().unwrap_err(), archive.sweep_nobodys(later).unwrap_err()] {
        let Error::Damaged { object, detail } = &told else { panic!("{told}") };
        assert!(object == "_manifest" && detail.contains(&format!("{} objects", kept.len())), "{told}");
    }
    assert_eq!(files(&folder.path().join("topic=events")), kept);
    std::fs::rename(folder.path().join("away"), folder.path().join("_manifest")).unwrap();
    assert!(read(&archive, &assert_whole(&archive)) == records);
}

#[test]
fn objects_whose_commits_were_lost_are_told_and_stay_until_their_records_are_archived_again() {
    let folder = tempfile::tempdir().unwrap();
    let archive = open(folder.path());
    let records = log(12, 400);
    let mut catalog = archive.catalog().unwrap();
    append(&archive, &mut catalog, &records, 0, 100);
    let early = catalog.entries.len();
    append(&archive, &mut catalog, &records, 100, 400);
    let late = catalog.entries.len() - early;
    // A manifest that comes from a copy of before the last commit.
    std::fs::remove_file(folder.path().join(format!("_manifest/commit-{:020}.json", catalog.number))).unwrap();

    let later = Utc::now() + TimeDelta::hours(2);
    assert_eq!(archive.sweep_nobodys(later).unwrap(), 0);
    let mut catalog = archive.catalog().unwrap();
    let verified = archive.verify(&catalog, later, || ()).unwrap();
    assert_eq!(verified.faults.iter().filter(|fault| fault.kind == "unnamed").count(), late);
    assert_eq!((verified.faults.len(), verified.left_over.len()), (late, 0));
    // Young ones are a writer's who is about to name them.
    assert_eq!(archive.verify(&catalog, Utc::now(), || ()).unwrap().left_over.len(), late);

    for first in [100, 200, 300] {
        append(&archive, &mut catalog, &records, first, first + 100);
    }
    let swept = archive.sweep_nobodys(later).unwrap();
    assert!(swept > 0, "cut otherwise, the old ones are nobody's");
    assert!(read(&archive, &assert_whole(&archive)) == records);
}

/// An archive of 2,000 offsets in many small objects.
fn in_small_objects(folder: &Path, records: &[Kept]) -> (Archive, Catalog) {
    let archive = open(folder);
    let mut catalog = archive.catalog().unwrap();
    for at in 0..20 {
        append(&archive, &mut catalog, records, at * 100, (at + 1) * 100);
    }
    (archive, catalog)
}

#[test]
fn who_reads_for_long_goes_on_in_what_was_merged_and_is_told_what_expired() {
    let folder = tempfile::tempdir().unwrap();
    let records = log(13, 2_000);
    let (archive, planned) = in_small_objects(folder.path(), &records);
    let mut order = archive.in_order(&planned, "events", 0, Selection::ALL);
    let mut all: Vec<Kept> = (0..150).map(|_| order.next_record().unwrap().unwrap()).collect();
    let mut begun = archive.in_order(&planned, "events", 1, Selection::ALL);
    begun.next_record().unwrap().unwrap();

    let mut catalog = planned.clone();
    while archive.merge(&mut catalog, compaction(), &NONE, now()).unwrap().is_some() {}
    assert!(archive.sweep_removed(&mut catalog, TimeDelta::zero(), now()).unwrap() > 0);
    while let Some(record) = order.next_record().unwrap() {
        all.push(record);
    }
    assert!(all.iter().eq(records.iter().filter(|of| of.partition == 0)));
    // Whoever verifies what was planned before sees the archive as it is.
    let verified = archive.verify(&planned, Utc::now(), || ()).unwrap();
    assert_eq!((verified.faults.as_slice(), verified.objects), (&[][..], catalog.entries.len() as u64));

    archive.expire(&mut catalog, "events", NOON_MS + HOUR_MS, now()).unwrap();
    archive.sweep_removed(&mut catalog, TimeDelta::zero(), now()).unwrap();
    let told = loop {
        match begun.next_record() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("what expired was passed over"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(told.contains("expired while they were read"), "{told}");
    assert_whole(&archive);
}

#[test]
fn a_damaged_object_is_left_out_of_a_merge_and_fits_in_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let records = log(14, 2_000);
    let (archive, mut catalog) = in_small_objects(folder.path(), &records);
    let broken = catalog.of_partition("events", 0)[2].object.clone();
    let path = folder.path().join(&broken);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, b"PAR1").unwrap();

    let mut leave_out = BTreeSet::new();
    loop {
        match archive.merge(&mut catalog, compaction(), &leave_out, now()) {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(Error::Damaged { object, .. }) => assert!(leave_out.insert(object)),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(leave_out, BTreeSet::from([broken.clone()]));
    std::fs::write(&path, bytes).unwrap();
    assert!(read(&archive, &assert_whole(&archive)) == records, "its rows lie between those of a merged one");
    while archive.merge(&mut catalog, compaction(), &NONE, now()).unwrap().is_some() {}
    assert!(!catalog.entries.contains_key(&broken));
    assert!(read(&archive, &assert_whole(&archive)) == records);
}

#[test]
fn what_is_missing_of_a_stretch_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let archive = open(folder.path());
    let records = log(15, 6_000);
    let mut catalog = archive.catalog().unwrap();
    let mut pending = Pending::default();
    for partition in 0..2 {
        pending.miss(Gap { topic: "events".to_owned(), partition, first: 0, next: 40, found_at_ms: NOON_MS });
    }
    cover(&mut pending, &records, 40, 3_000);
    archive.append(&mut catalog, &pending.finish().unwrap(), now()).unwrap();
    append(&archive, &mut catalog, &records, 3_000, 6_000);
    let missing = |catalog: &Catalog, first, next| catalog.log("events", 0).unwrap().missing(first, next);
    assert_eq!(missing(&catalog, 10, 5_000), [(10, 40)]);
    archive.expire(&mut catalog, "events", NOON_MS + HOUR_MS, now()).unwrap();
    let catalog = archive.catalog().unwrap();

    // Every record that isn't there lies where the archive says so, and what it says isn't all of it.
    let there: BTreeSet<i64> =
        read(&archive, &catalog).iter().filter(|of| of.partition == 0).map(|of| of.offset).collect();
    let told = missing(&catalog, 0, 6_000);
    let is_told = |offset: i64| told.iter().any(|(first, next)| (*first..*next).contains(&offset));
    let gone = records.iter().filter(|of| of.partition == 0 && !there.contains(&of.offset));
    assert!(gone.clone().count() > 1_000 && gone.clone().all(|of| is_told(of.offset)));
    assert!(!is_told(5_999) && told.len() < 20, "{told:?}");
}

#[test]
fn numbers_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let archive = open(folder.path());
    let mut catalog = archive.catalog().unwrap();
    append(&archive, &mut catalog, &log(16, 50), 0, 50);
    let path = folder.path().join(format!("_manifest/commit-{:020}.json", catalog.number));
    let commit: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let odd: [(&str, serde_json::Value); 4] = [
        ("raw_bytes", u64::MAX.into()),
        ("records", 0.into()),
        ("records", 1_000.into()),
        ("last_offset", i64::MAX.into()),
    ];
    for (field, value) in odd {
        let mut commit = commit.clone();
        commit["added"][0][field] = value;
        if field == "last_offset" {
            commit["added"][0]["first_offset"] = i64::MIN.into();
        }
        std::fs::write(&path, commit.to_string()).unwrap();
        let told = archive.catalog().unwrap_err().to_string();
        assert!(told.contains("can't be") && told.contains("commit-"), "{told}");
    }
}

#[test]
fn who_reads_makes_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("archvie");
    let settings = |makes_folder| Settings {
        url: path.display().to_string(),
        options: BTreeMap::new(),
        pipeline: "shop".to_owned(),
        makes_folder,
    };
    let told = Archive::open(&settings(false)).err().unwrap().to_string();
    assert!(told.contains("there is no archive") && told.contains("archvie"), "{told}");
    assert!(!path.exists());
    let archive = Archive::open(&settings(true)).unwrap();
    archive.probe().unwrap();
    archive.probe().unwrap();
    assert_eq!(assert_whole(&archive).number, 0);
}
