//! Tables against an obvious model: a map, and a copy of it per epoch.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use weir_operators::state::{
    ByteTable, FORMAT, Family, FrozenChanges, KeyedTable, StateRegistry, Store, StoreError, StoreOptions, Stored, Sync,
};
use weir_schemas::time::Epoch;

use crate::harness::seeds;

const OPTIONS: StoreOptions = StoreOptions { cache_bytes: 4 << 20, write_buffer_bytes: 1 << 20 };

/// What a key holds: the whole value and what was added.
type Value = (Option<Vec<u8>>, Vec<Vec<u8>>);
type Model = BTreeMap<(u16, Vec<u8>), Value>;

fn value_of(stored: &Stored) -> Value {
    (stored.whole().map(<[u8]>::to_vec), stored.added().map(<[u8]>::to_vec).collect())
}

/// A store whose epochs end, are written and are published at moments of the test's choice.
struct World {
    store: Arc<Store>,
    registry: StateRegistry,
    ended: Vec<(Epoch, Vec<Arc<FrozenChanges>>)>,
    /// How many of `ended` are written, but not yet published.
    written: usize,
    open: Epoch,
}

impl World {
    fn open(path: &Path) -> World {
        let store = Arc::new(Store::open(path, OPTIONS).unwrap());
        let open = store.committed_epoch().next();
        let registry = StateRegistry::new(store.clone(), "table under test", 0, 1, open).unwrap();
        World { store, registry, ended: Vec::new(), written: 0, open }
    }

    fn freeze(&mut self) {
        self.ended.push((self.open, self.registry.freeze(self.open).unwrap()));
        self.open = self.open.next();
    }

    /// Writes the oldest ended epoch without telling the readers, as between a commit's write and its end.
    fn write_next(&mut self) {
        if let Some((_, changes)) = self.ended.get(self.written) {
            let mut writes = self.store.writes();
            changes.iter().for_each(|changes| changes.write_into(&mut writes));
            self.store.write(writes, Sync::Now).unwrap();
            self.written += 1;
        }
    }

    fn publish_next(&mut self) -> Option<Epoch> {
        if self.written == 0 {
            return None;
        }
        let (epoch, _) = self.ended.remove(0);
        self.written -= 1;
        self.store.commit(self.store.writes(), epoch).unwrap();
        Some(epoch)
    }
}

fn random_key(random: &mut fastrand::Rng) -> Vec<u8> {
    const BYTES: [u8; 4] = [0, b'a', b'b', 0xff];
    (0..random.usize(0..4)).map(|_| BYTES[random.usize(0..4)]).collect()
}

fn random_group(random: &mut fastrand::Rng) -> u16 {
    [0, 1, 77, 255][random.usize(0..4)]
}

/// Random writes; the model is told the same.
fn change(random: &mut fastrand::Rng, table: &mut ByteTable, model: &mut Model) {
    let (group, key) = (random_group(random), random_key(random));
    let value: Vec<u8> = (0..random.usize(0..20)).map(|_| random.u8(..)).collect();
    match random.u8(0..20) {
        0..8 => {
            table.put(group, &key, &value).unwrap();
            model.insert((group, key), (Some(value), Vec::new()));
        }
        8..14 => {
            table.merge(group, &key, &value).unwrap();
            model.entry((group, key)).or_default().1.push(value);
        }
        14..18 => {
            table.delete(group, &key).unwrap();
            model.remove(&(group, key));
        }
        18 => {
            table.delete_prefix(group, &key).unwrap();
            model.retain(|(g, k), _| *g != group || !k.starts_with(&key));
        }
        _ => {
            let to = random_key(random);
            table.delete_range(group, &key, &to).unwrap();
            model.retain(|(g, k), _| *g != group || *k < key || *k >= to);
        }
    }
}

fn compare(random: &mut fastrand::Rng, table: &ByteTable, model: &Model, context: &str) {
    let keys: Vec<_> = (0..8).map(|_| (random_group(random), random_key(random))).collect();
    let expected: Vec<_> = keys.iter().map(|key| model.get(key).cloned()).collect();
    let single: Vec<_> =
        keys.iter().map(|(group, key)| table.get(*group, key).unwrap().as_ref().map(value_of)).collect();
    assert_eq!(single, expected, "get, {context}");
    let many = table.get_many(keys.iter().map(|(group, key)| (*group, key.as_slice()))).unwrap();
    assert_eq!(many.iter().map(|stored| stored.as_ref().map(value_of)).collect::<Vec<_>>(), expected, "{context}");

    let (group, prefix) = (random_group(random), random_key(random));
    let mut scanned = Vec::new();
    table
        .scan_prefix(group, &prefix, |key, stored| {
            scanned.push(((group, key.to_vec()), value_of(&stored)));
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    let in_prefix = |(key, _): &(&(u16, Vec<u8>), &Value)| key.0 == group && key.1.starts_with(&prefix);
    let expected: Vec<_> = model.iter().filter(in_prefix).map(|(key, value)| (key.clone(), value.clone())).collect();
    assert_eq!(scanned, expected, "scan of {prefix:?} in group {group}, {context}");

    let mut all = Vec::new();
    table
        .scan(|group, key, stored| {
            all.push(((group, key.to_vec()), value_of(&stored)));
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    assert_eq!(all, model.clone().into_iter().collect::<Vec<_>>(), "scan of all, {context}");
}

#[test]
fn a_table_of_bytes_reads_what_was_written_whatever_is_frozen_written_published_or_lost() {
    for seed in seeds(24) {
        let mut random = fastrand::Rng::with_seed(seed);
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::open(folder.path());
        let mut table = world.registry.table(3).unwrap();
        let (mut model, mut by_epoch) = (Model::new(), BTreeMap::from([(Epoch(0), Model::new())]));
        for step in 0..150 {
            match random.u8(0..20) {
                0..12 => (0..random.usize(1..6)).for_each(|_| change(&mut random, &mut table, &mut model)),
                12..15 => {
                    by_epoch.insert(world.open, model.clone());
                    world.freeze();
                }
                15..17 => world.write_next(),
                17..19 => drop(world.publish_next()),
                _ => {
                    // Killed: what is written counts, published or not; a commit always does both in one write.
                    while world.publish_next().is_some() {}
                    drop((table, world));
                    world = World::open(folder.path());
                    table = world.registry.table(3).unwrap();
                    model = by_epoch[&world.store.committed_epoch()].clone();
                }
            }
            compare(&mut random, &table, &model, &format!("seed {seed} step {step}"));
        }
    }
}

#[test]
fn a_typed_table_reads_what_was_written_with_any_working_set() {
    type Key = (i64, Vec<u8>);
    for seed in seeds(24) {
        let mut random = fastrand::Rng::with_seed(seed);
        // Nothing but the entry in use, a few, all.
        let memory_bytes = [0, 600, 1 << 20][seed as usize % 3];
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::open(folder.path());
        let mut table: KeyedTable<Key, u64> = world.registry.keyed(1, memory_bytes).unwrap();
        let mut model: BTreeMap<(u16, Key), u64> = BTreeMap::new();
        let mut by_epoch = BTreeMap::from([(Epoch(0), model.clone())]);
        for step in 0..300 {
            let context = format!("seed {seed} step {step}");
            let group = random_group(&mut random);
            let key: Key = (random.i64(-2..3), random_key(&mut random));
            match random.u8(0..24) {
                0..5 => {
                    table.insert(group, &key, step).unwrap();
                    model.insert((group, key), step);
                }
                5..8 => {
                    *table.get_or_insert_with(group, &key, || 7).unwrap() += 1;
                    *model.entry((group, key)).or_insert(7) += 1;
                }
                8..11 => {
                    let value = table.get_mut(group, &key).unwrap().map(|mut value| {
                        *value *= 2;
                        *value
                    });
                    let expected = model.get_mut(&(group, key)).map(|value| {
                        *value *= 2;
                        *value
                    });
                    assert_eq!(value, expected, "{context}");
                }
                11..13 => {
                    table.remove(group, &key).unwrap();
                    model.remove(&(group, key));
                }
                13..16 => {
                    let keys: Vec<_> = (0..6)
                        .map(|_| (random_group(&mut random), (random.i64(-2..3), random_key(&mut random))))
                        .collect();
                    table.prefetch(keys.iter().map(|(group, key)| (*group, key))).unwrap();
                    for (group, key) in &keys {
                        let found = table.get(*group, key).unwrap().map(|value| *value);
                        assert_eq!(found, model.get(&(*group, key.clone())).copied(), "{context}");
                    }
                }
                16..19 => {
                    by_epoch.insert(world.open, model.clone());
                    world.freeze();
                }
                19..21 => world.write_next(),
                21..23 => drop(world.publish_next()),
                _ => {
                    while world.publish_next().is_some() {}
                    drop((table, world));
                    world = World::open(folder.path());
                    table = world.registry.keyed(1, memory_bytes).unwrap();
                    model = by_epoch[&world.store.committed_epoch()].clone();
                }
            }
            if memory_bytes == 0 {
                assert!(table.entries_in_memory() <= 1, "{context}");
            }
            // Seldom: a scan stages what changed, and it is eviction that has to do so in between.
            if random.u8(0..6) > 0 {
                continue;
            }
            let mut scanned = Vec::new();
            let time = random.i64(-2..3);
            table
                .scan_prefix(group, &time, |key, value| {
                    scanned.push(((group, key), value));
                    Ok(ControlFlow::Continue(()))
                })
                .unwrap();
            let expected: Vec<_> = model
                .iter()
                .filter(|((g, key), _)| *g == group && key.0 == time)
                .map(|(k, v)| (k.clone(), *v))
                .collect();
            assert_eq!(scanned, expected, "{context}");
        }
    }
}

#[test]
fn workers_of_another_number_share_the_same_keys_and_refuse_those_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path(), OPTIONS).unwrap());
    let keys = |worker, peers| {
        let epoch = store.committed_epoch().next();
        let mut registry = StateRegistry::new(store.clone(), "counts", worker, peers, epoch).unwrap();
        let mut table: KeyedTable<u32, u32> = registry.keyed(0, 1 << 20).unwrap();
        let mut found = Vec::new();
        table
            .scan(|group, key, _| {
                found.push((group, key));
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
        (registry, table, found)
    };
    let (mut registry, mut table, _) = keys(0, 1);
    for group in 0..256 {
        table.insert(group, &u32::from(group), 1).unwrap();
    }
    let mut writes = store.writes();
    registry.freeze(Epoch(1)).unwrap().iter().for_each(|changes| changes.write_into(&mut writes));
    store.commit(writes, Epoch(1)).unwrap();
    for peers in [1, 2, 3, 7, 300] {
        let all: Vec<_> = (0..peers).flat_map(|worker| keys(worker, peers).2).collect();
        assert_eq!(all, (0..256).map(|group| (group, u32::from(group))).collect::<Vec<_>>(), "{peers} workers");
    }
    let (_, mut table, _) = keys(1, 2);
    let refused = table.get(5, &5).map(drop).unwrap_err().to_string();
    assert!(refused.contains("counts") && refused.contains("key group 5") && refused.contains("128..256"), "{refused}");
}

#[test]
fn a_second_instance_a_foreign_format_and_a_taken_table_number_are_refused_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), OPTIONS).unwrap();
    let second = Store::open(folder.path(), OPTIONS).err().unwrap();
    assert!(matches!(second, StoreError::InUse { .. }), "{second}");
    let as_format = |store: Store, format: u32| {
        let mut writes = store.writes();
        writes.put(Family::Meta, b"weir/format", &format.to_be_bytes());
        store.write(writes, Sync::Now).unwrap();
        drop(store);
        Store::open(folder.path(), OPTIONS)
    };
    let store = as_format(store, 1).expect("this format only adds to the one before");
    assert_eq!(store.get(Family::Meta, b"weir/format").unwrap(), Some(FORMAT.to_be_bytes().to_vec()));
    let format = as_format(store, FORMAT + 1).err().unwrap().to_string();
    assert!(format.contains(&format!("has format {}, this Weir reads format {FORMAT}", FORMAT + 1)), "{format}");

    let folder = tempfile::tempdir().unwrap();
    let mut registry =
        StateRegistry::new(Arc::new(Store::open(folder.path(), OPTIONS).unwrap()), "twice", 0, 1, Epoch(1)).unwrap();
    registry.table(1).unwrap();
    assert!(registry.table(1).is_err() && registry.table(u16::MAX).is_err());
    assert!(registry.freeze(Epoch(2)).is_err(), "an epoch is never skipped");
}

#[test]
fn a_corrupt_value_is_an_error_that_names_the_operator_and_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path(), OPTIONS).unwrap());
    let mut registry = StateRegistry::new(store.clone(), "counts", 0, 1, Epoch(1)).unwrap();
    let table = registry.table(0).unwrap();
    let mut key = registry.id().0.to_be_bytes().to_vec();
    key.extend_from_slice(&[0, 0, 0, 9]);
    key.extend_from_slice(b"key");
    let mut writes = store.writes();
    writes.put(weir_operators::state::Family::State, &key, &[0, 200, 1]);
    store.write(writes, Sync::Now).unwrap();
    let error = table.get(9, b"key").unwrap_err().to_string();
    assert!(error.contains("counts") && error.contains("key is corrupt"), "{error}");
}

/// Names the small disk to the test when it runs once more, where that is mounted.
const SMALL_DISK: &str = "WEIR_TEST_SMALL_DISK";

/// Runs the test that follows in a process of its own, in namespaces where a disk of 8 MiB is mounted: an ordinary user
/// may do so in a user namespace, root also where those are forbidden. Where neither is allowed it says that it skips
/// the test; in continuous integration (`CI=true`) it fails instead.
fn on_a_small_disk() {
    let folder = tempfile::tempdir().unwrap();
    let test =
        "tables::a_full_disk_is_an_error_with_a_remedy_and_what_was_committed_is_there_when_there_is_space_again";
    let script =
        format!("mount -t tmpfs -o size=8m weir \"${SMALL_DISK}\" && echo mounted && exec \"$0\" --exact {test}");
    for namespaces in [&["--user", "--map-root-user", "--mount"][..], &["--mount"]] {
        let mut command = std::process::Command::new("unshare");
        command.args(namespaces).args(["sh", "-c", &script]).arg(std::env::current_exe().unwrap());
        let Ok(output) = command.env(SMALL_DISK, folder.path()).output() else { break };
        let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if said.starts_with("mounted") {
            assert!(output.status.success() && said.contains("1 passed"), "{said}\n{errors}");
            return;
        }
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "no small disk can be mounted here");
    // Not by the macro, whose lines a test that passes keeps to itself.
    let why = "neither user namespaces nor mounting are allowed here, so there is no full disk to test";
    std::io::stderr().write_all(format!("SKIPPED: {why}\n").as_bytes()).unwrap();
}

#[test]
fn a_full_disk_is_an_error_with_a_remedy_and_what_was_committed_is_there_when_there_is_space_again() {
    let Some(small_disk) = std::env::var_os(SMALL_DISK) else { return on_a_small_disk() };
    let folder = tempfile::tempdir_in(small_disk).unwrap();
    let store = Arc::new(Store::open(folder.path(), OPTIONS).unwrap());
    let mut registry = StateRegistry::new(store.clone(), "filler", 0, 1, Epoch(1)).unwrap();
    let mut table = registry.table(0).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let error = loop {
        let epoch = store.committed_epoch().next();
        let value: Vec<u8> = (0..200_000).map(|_| random.u8(..)).collect();
        table.put(0, &epoch.0.to_be_bytes(), &value).unwrap();
        let mut writes = store.writes();
        registry.freeze(epoch).unwrap().iter().for_each(|changes| changes.write_into(&mut writes));
        if let Err(error) = store.commit(writes, epoch) {
            break error;
        }
        assert!(epoch < Epoch(1000), "the disk is not small");
    };
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    let committed = store.committed_epoch();
    drop((table, registry, store));

    // Space again: what was committed is there, whatever became of the epoch that failed.
    let freed = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), freed.path().join(file.file_name())).unwrap();
    }
    let store = Arc::new(Store::open(freed.path(), OPTIONS).unwrap());
    assert!(store.committed_epoch() >= committed, "{:?} is less than {committed:?}", store.committed_epoch());
    let mut registry = StateRegistry::new(store, "filler", 0, 1, committed.next()).unwrap();
    let table = registry.table(0).unwrap();
    for epoch in 1..=committed.0 {
        assert!(table.get(0, &epoch.to_be_bytes()).unwrap().is_some(), "epoch {epoch}");
    }
}
