//! What a state folder tells at the next start, and what it refuses.

use std::path::Path;

use weir_operators::state::{Family, StoreOptions};
use weir_pipeline::error::Error;
use weir_pipeline::outbox::DestinationId;
use weir_pipeline::recovery::{
    Fingerprint, Part, Recovered, forget_marks, recover, write_delivered, write_position, write_watermark,
};
use weir_pipeline::source::PartitionPosition;
use weir_schemas::time::{Epoch, EventTime};

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn start(folder: &Path, fingerprint: Fingerprint, topics: &[&str], destinations: &[&str]) -> Result<Recovered, Error> {
    recover(folder, StoreOptions::default(), fingerprint, &names(topics), &names(destinations))
}

fn fingerprint(parts: &[(&str, &[(&str, &str)], bool)]) -> Fingerprint {
    let part = |(name, facts, loses_by_absence): &(&str, &[(&str, &str)], bool)| {
        let facts = facts.iter().map(|(fact, value)| ((*fact).to_owned(), (*value).to_owned())).collect();
        ((*name).to_owned(), Part { facts, loses_by_absence: *loses_by_absence, ..Part::default() })
    };
    Fingerprint { pipeline: "shop".to_owned(), parts: parts.iter().map(part).collect() }
}

fn position(topic: &str, partition: i32, next_offset: i64, watermark: i64) -> PartitionPosition {
    PartitionPosition { topic: topic.to_owned(), partition, next_offset, watermark: EventTime(watermark) }
}

#[test]
fn positions_watermarks_and_numbers_come_back_and_numbers_are_never_given_again() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let found = start(folder.path(), fingerprint(&[]), &["b", "a"], &["t", "u"]).expect("opened");
        assert_eq!((found.topics.as_slice(), found.committed), (&names(&["b", "a"])[..], Epoch(0)));
        let mut writes = found.store.writes();
        write_position(&mut writes, &position("a", 3, 17, 99), 1, true);
        write_position(&mut writes, &position("with/slash", -1, 1, i64::MIN), 1, false);
        write_watermark(&mut writes, "events", EventTime(77));
        found.store.commit(writes, Epoch(5)).expect("a commit");
        write_delivered(&found.store, "u", Epoch(4)).expect("written");
    }
    let found = start(folder.path(), fingerprint(&[]), &["a", "c"], &["v", "u"]).expect("opened again");
    assert_eq!(found.committed, Epoch(5));
    assert_eq!(found.topics, names(&["b", "a", "c"]), "an old number stays, a new one comes behind");
    assert_eq!(found.positions[&("a".to_owned(), 3)], position("a", 3, 17, 99));
    assert_eq!(found.positions[&("with/slash".to_owned(), -1)], position("with/slash", -1, 1, i64::MIN));
    assert_eq!(found.watermarks["events"], EventTime(77));
    assert_eq!(found.destinations["u"], (DestinationId(1), Epoch(4)));
    assert_eq!(found.destinations["v"], (DestinationId(2), Epoch(0)));
}

#[test]
fn golden_bytes_of_a_position_and_a_mark() {
    let folder = tempfile::tempdir().expect("a folder");
    let found = start(folder.path(), fingerprint(&[]), &["a"], &[]).expect("opened");
    let mut writes = found.store.writes();
    write_position(&mut writes, &position("a", 3, 17, -2), 258, true);
    found.store.commit(writes, Epoch(1)).expect("a commit");
    let stored = |key: &[u8]| found.store.get(Family::Meta, key).expect("read");
    let value = [0, 0, 0, 0, 0, 0, 0, 17, 255, 255, 255, 255, 255, 255, 255, 254];
    assert_eq!(stored(b"run/position/a\0\0\0\0\x03"), Some(value.to_vec()));
    assert_eq!(stored(b"run/mark/\x01\x02\0\0\0\x03\0\0\0\0\0\0\0\x11"), Some(value[8..].to_vec()));
}

#[test]
fn marks_before_the_logs_beginning_are_forgotten_but_the_last() {
    let folder = tempfile::tempdir().expect("a folder");
    let found = start(folder.path(), fingerprint(&[]), &["a"], &[]).expect("opened");
    let mut writes = found.store.writes();
    for offset in [10, 20, 30, 40] {
        write_position(&mut writes, &position("a", 0, offset, offset * 100), 0, true);
        write_position(&mut writes, &position("a", 1, offset, 7), 0, true);
    }
    found.store.commit(writes, Epoch(1)).expect("a commit");
    forget_marks(&found.store, 0, 0, 35).expect("forgotten");
    let marks = |partition: u8| {
        let prefix = [b"run/mark/", &[0, 0, 0, 0, 0, partition][..]].concat();
        let end = [b"run/mark/", &[0, 0, 0, 0, 0, partition + 1][..]].concat();
        let mut offsets = Vec::new();
        let visit = |key: &[u8], _: &[u8]| {
            offsets.push(key[key.len() - 1]);
            true
        };
        found.store.scan(Family::Meta, &prefix, &end, visit).expect("read");
        offsets
    };
    assert_eq!(marks(0), [30, 40], "a replay from 35 starts with the mark at 30");
    assert_eq!(marks(1), [10, 20, 30, 40], "those of another partition stay");
}

#[test]
fn a_new_view_starts_from_now_and_a_new_column_is_welcome() {
    let before = fingerprint(&[("source e", &[("column a", "String")], false)]);
    let now = fingerprint(&[
        ("source e", &[("column a", "String"), ("column b", "Int64")], false),
        ("view v", &[("query", "q")], true),
    ]);
    assert_eq!(now.clone().after(&before).expect("goes on"), now);
}

#[test]
fn what_the_state_cannot_follow_is_refused_by_name() {
    let before = fingerprint(&[("source e", &[("column a", "String")], false), ("view v", &[("query", "q")], true)]);
    let refused = |now: Fingerprint| match now.after(&before) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("went on"),
    };
    let retyped = refused(fingerprint(&[("source e", &[("column a", "Int64")], false)]));
    assert!(retyped.contains("column a of source e was String and is Int64"), "{retyped}");
    let gone = refused(fingerprint(&[("source e", &[], false)]));
    assert!(gone.contains("column a of source e was String and is nothing"), "{gone}");
    let foreign = refused(Fingerprint { pipeline: "other".to_owned(), ..Fingerprint::default() });
    assert!(foreign.contains("belongs to the pipeline \"shop\""), "{foreign}");
}

#[test]
fn a_view_that_was_away_does_not_come_back_under_its_name_but_a_source_does() {
    let source: (&str, &[(&str, &str)], bool) = ("source e", &[("column a", "String")], false);
    let view: (&str, &[(&str, &str)], bool) = ("view v", &[("query", "q")], true);
    let without = fingerprint(&[]).after(&fingerprint(&[source, view])).expect("taken out");
    let error = fingerprint(&[source, view]).after(&without).expect_err("refused").to_string();
    assert!(error.contains("view v was taken out") && error.contains("another name"), "{error}");
    let back = fingerprint(&[source]).after(&without).expect("goes on from its positions");
    assert!(!back.parts["source e"].is_absent && back.parts["view v"].is_absent);
}
