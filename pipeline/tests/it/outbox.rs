//! The outbox on real RocksDB: what waits, what is replaced, what is kept, and what a restart finds.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_operators::state::{Store, StoreOptions};
use weir_pipeline::outbox::{DestinationId, INDEX_BYTES, KEPT_FOR, Outbox, Waiting};
use weir_schemas::time::Epoch;
use weir_sinks::OutRow;

const KEYED: DestinationId = DestinationId(0);
const APPENDED: DestinationId = DestinationId(1);

fn open(folder: &Path, delivered: u64) -> (Arc<Store>, Outbox) {
    let store = Arc::new(Store::open(folder, StoreOptions::default()).expect("a store"));
    let lanes = [(true, Epoch(delivered)), (false, Epoch(delivered))];
    let outbox = Outbox::open(store.clone(), &lanes, 1 << 20).expect("an outbox");
    (store, outbox)
}

fn row(key: &str, payload: &str) -> OutRow {
    OutRow { key: key.into(), payload: payload.into(), rows: 1 }
}

fn commit(store: &Store, outbox: &Outbox, epoch: u64, rows: &[(DestinationId, &str, &str)]) {
    let rows: Vec<_> = rows.iter().map(|(to, key, payload)| (*to, row(key, payload))).collect();
    let mut writes = store.writes();
    outbox.stage(&mut writes, Epoch(epoch), &rows);
    store.commit(writes, Epoch(epoch)).expect("a commit");
    outbox.committed(Epoch(epoch), rows);
}

/// The payloads that a delivery of everything after `after` up to `to` would send.
fn read(outbox: &Outbox, from: DestinationId, after: u64, to: u64) -> Vec<String> {
    let mut payloads = Vec::new();
    outbox
        .read(from, Epoch(after), Epoch(to), 1, |piece| {
            payloads.extend(piece.rows.iter().map(|row| String::from_utf8_lossy(&row.payload).into_owned()));
            true
        })
        .expect("read");
    payloads
}

#[test]
fn of_a_key_only_the_newest_undelivered_row_waits_and_of_appended_rows_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, outbox) = open(folder.path(), 0);
    commit(&store, &outbox, 1, &[(KEYED, "a", "a1"), (KEYED, "b", "b1"), (APPENDED, "a", "x1")]);
    commit(&store, &outbox, 2, &[(KEYED, "a", "a2"), (APPENDED, "a", "x2")]);
    assert_eq!(read(&outbox, KEYED, 0, 2), ["b1", "a2"]);
    assert_eq!(read(&outbox, APPENDED, 0, 2), ["x1", "x2"]);
    assert_eq!(outbox.waiting(KEYED), Waiting { rows: 2, bytes: 6 + 2 * INDEX_BYTES });
    assert_eq!(outbox.waiting_in_all(), Waiting { rows: 4, bytes: 12 + 2 * INDEX_BYTES });
}

#[test]
fn rows_that_are_nearly_empty_still_count_what_finding_them_takes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, outbox) = open(folder.path(), 0);
    let keys: Vec<String> = (0..5_000).map(|number| format!("{number}")).collect();
    let rows: Vec<_> = keys.iter().map(|key| (KEYED, key.as_str(), "")).collect();
    commit(&store, &outbox, 1, &rows);
    let waiting = outbox.waiting(KEYED);
    assert_eq!(waiting.rows, 5_000);
    assert!(waiting.bytes >= 5_000 * INDEX_BYTES, "{waiting:?}: the memory isn't bounded with the disk");
    outbox.acknowledge(KEYED, Epoch(1), Instant::now()).expect("acknowledged");
    assert_eq!(outbox.waiting(KEYED), Waiting::default());
}

#[test]
fn a_reading_sees_the_rows_that_a_later_commit_replaces() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, outbox) = open(folder.path(), 0);
    commit(&store, &outbox, 1, &[(KEYED, "a", "a1"), (KEYED, "b", "b1"), (KEYED, "c", "c1")]);
    let mut seen = Vec::new();
    outbox
        .read(KEYED, Epoch(0), Epoch(1), 1, |piece| {
            if seen.is_empty() {
                commit(&store, &outbox, 2, &[(KEYED, "b", "b2"), (KEYED, "c", "c2")]);
            }
            seen.extend(piece.rows.into_iter().map(|row| row.payload));
            true
        })
        .expect("read");
    assert_eq!(seen, [b"a1", b"b1", b"c1"]);
    outbox.acknowledge(KEYED, Epoch(1), Instant::now()).expect("acknowledged");
    assert_eq!(read(&outbox, KEYED, 1, 2), ["b2", "c2"]);
    assert_eq!(outbox.waiting(KEYED).rows, 2);
}

#[test]
fn a_delivered_row_is_kept_beside_its_successor_and_forgotten_in_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, outbox) = open(folder.path(), 0);
    let now = Instant::now();
    commit(&store, &outbox, 1, &[(KEYED, "a", "a1")]);
    outbox.acknowledge(KEYED, Epoch(1), now).expect("acknowledged");
    commit(&store, &outbox, 2, &[(KEYED, "a", "a2")]);
    assert_eq!(outbox.kept_after(KEYED), Epoch(0));
    assert_eq!(read(&outbox, KEYED, 0, 2), ["a1", "a2"], "a server that lost a1 can be told again");
    outbox.acknowledge(KEYED, Epoch(2), now + KEPT_FOR).expect("acknowledged");
    assert_eq!(read(&outbox, KEYED, 0, 2), ["a2"]);
    assert_eq!(outbox.kept_after(KEYED), Epoch(1));
}

#[test]
fn delivered_rows_take_no_more_than_their_bound() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, outbox) = open(folder.path(), 0);
    let big = "x".repeat(300 << 10);
    for epoch in 1..=8 {
        commit(&store, &outbox, epoch, &[(APPENDED, "a", &big)]);
        outbox.acknowledge(APPENDED, Epoch(epoch), Instant::now()).expect("acknowledged");
    }
    assert_eq!(read(&outbox, APPENDED, 0, 8).len(), 3, "of 300 KiB each, three fit into a mebibyte");
}

#[test]
fn a_restart_finds_what_waits_and_what_is_kept_and_replaces_across_it() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let (store, outbox) = open(folder.path(), 0);
        commit(&store, &outbox, 1, &[(KEYED, "a", "a1"), (APPENDED, "p", "x1")]);
        commit(&store, &outbox, 2, &[(KEYED, "b", "b2")]);
    }
    let (store, outbox) = open(folder.path(), 1);
    assert_eq!(outbox.waiting(KEYED), Waiting { rows: 1, bytes: 3 + INDEX_BYTES });
    assert_eq!((outbox.waiting(APPENDED).rows, outbox.kept_after(APPENDED)), (0, Epoch(0)));
    commit(&store, &outbox, 3, &[(KEYED, "b", "b3")]);
    assert_eq!(read(&outbox, KEYED, 1, 3), ["b3"]);
}

#[test]
fn an_acknowledgement_that_a_crash_lost_is_a_repeated_delivery_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let (store, outbox) = open(folder.path(), 0);
        commit(&store, &outbox, 1, &[(KEYED, "a", "a1")]);
        outbox.acknowledge(KEYED, Epoch(1), Instant::now()).expect("acknowledged");
        commit(&store, &outbox, 2, &[(KEYED, "a", "a2")]);
    }
    let (_store, outbox) = open(folder.path(), 0);
    assert_eq!(read(&outbox, KEYED, 0, 2), ["a1", "a2"], "in the order of their versions");
    assert_eq!(outbox.waiting(KEYED).rows, 1);
    outbox.acknowledge(KEYED, Epoch(2), Instant::now() + Duration::from_secs(1)).expect("acknowledged");
    assert_eq!(outbox.waiting(KEYED), Waiting::default());
}
