//! The store: one RocksDB per process, with a column family for each kind of thing that is kept.
//!
//! Invariants: every column family has the options below, not only the default one; a commit is one synced
//! write; [`Store::committed`] is raised only after that write has returned. A folder belongs to one process, and
//! its format is checked before anything is read.
//!
//! Not here: what the runtime's own keys mean (positions, marks, outbox), and how tables read (`table`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBPinnableSlice, Direction,
    IteratorMode, Options, ReadOptions, WriteBatch, WriteBufferManager, WriteOptions,
};
use weir_schemas::time::Epoch;
use xxhash_rust::xxh3::xxh3_64;

use super::OperatorId;
use super::pieces;

/// The format of everything in the folder. A change of any golden bytes raises it.
pub const FORMAT: u32 = 2;

/// Formats that this one only adds to: a folder of theirs is read as it is, and is of this format from then on. 1 had no
/// notes of remembered ids.
const ADDED_TO: [u32; 1] = [1];

const FORMAT_KEY: &[u8] = b"weir/format";
const COMMITTED_KEY: &[u8] = b"weir/committed";
const OPERATOR_KEY: &str = "weir/operator/";

/// A column family. Its name on disk never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Positions, marks and facts about the store itself. Keys that begin with `weir/` are the store's own.
    Meta,
    /// The tables of the operators; written through [`FrozenChanges`](super::FrozenChanges).
    State,
    /// Rows that wait for delivery.
    Outbox,
}

impl Family {
    const ALL: [Family; 3] = [Family::Meta, Family::State, Family::Outbox];

    fn name(self) -> &'static str {
        match self {
            Family::Meta => "meta",
            Family::State => "state",
            Family::Outbox => "outbox",
        }
    }
}

/// Why the store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process, or this one, has the folder open.
    #[error("the state folder {} is in use by another Weir process: stop that one, or give this one a `state` folder of its own", .path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The disk is full.
    #[error("the disk that holds the state folder {} is full: free space and start again, nothing is lost", .path.display())]
    DiskFull {
        /// The folder.
        path: PathBuf,
    },
    /// The folder was written by another version.
    #[error("the state folder {} has format {found}, this Weir reads format {FORMAT}: use the version that wrote it, or an empty folder", .path.display())]
    Format {
        /// The folder.
        path: PathBuf,
        /// What it says, or what is there instead.
        found: String,
    },
    /// Two operators' names have the same id.
    #[error("the operators {first:?} and {second:?} have the same id in the state folder: rename one of them")]
    SameId {
        /// The name that is stored.
        first: String,
        /// The name that was to be added.
        second: String,
    },
    /// Anything else that RocksDB reports.
    #[error("the state folder {}: {detail}", .path.display())]
    Failed {
        /// The folder.
        path: PathBuf,
        /// RocksDB's words.
        detail: String,
    },
}

/// How much memory a store may take.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Bytes of the one cache that blocks, indexes, filters and write buffers of all column families share.
    pub cache_bytes: usize,
    /// Of those, bytes of write buffers before they are flushed.
    pub write_buffer_bytes: usize,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions { cache_bytes: 256 << 20, write_buffer_bytes: 96 << 20 }
    }
}

/// An open state folder.
pub struct Store {
    path: PathBuf,
    db: DB,
    committed: Arc<AtomicU64>,
}

impl Store {
    /// Opens the folder, making it if it does not exist.
    pub fn open(path: &Path, options: StoreOptions) -> Result<Store, StoreError> {
        let failed = |error| StoreError::of(path, &error);
        std::fs::create_dir_all(path).map_err(|error| StoreError::of_text(path, &error.to_string()))?;
        let shared = Shared::new(options);
        let database = database_options(&shared);
        if let Some(unknown) = DB::list_cf(&database, path)
            .unwrap_or_default()
            .into_iter()
            .find(|name| name != "default" && !Family::ALL.iter().any(|family| family.name() == name))
        {
            return Err(StoreError::Format { path: path.into(), found: format!("with a column family {unknown:?}") });
        }
        let mut families = vec![ColumnFamilyDescriptor::new("default", family_options(&shared))];
        families.extend(Family::ALL.map(|family| {
            let mut options = family_options(&shared);
            if family == Family::State {
                options.set_merge_operator_associative("weir.append.1", pieces::append);
                // Most keys that an operator asks for are new: a filter in front of the write buffer, too.
                options.set_memtable_whole_key_filtering(true);
                options.set_memtable_prefix_bloom_ratio(0.02);
            }
            ColumnFamilyDescriptor::new(family.name(), options)
        }));
        let db = DB::open_cf_descriptors(&database, path, families).map_err(failed)?;
        let store = Store { path: path.into(), db, committed: Arc::default() };
        store.check_format()?;
        let committed = store.read_number(COMMITTED_KEY)?.unwrap_or(0);
        store.committed.store(committed, Ordering::Release);
        Ok(store)
    }

    /// Reads one key of [`Family::Meta`] in a folder that another process may have open; `None` where there is no such
    /// key, or no store yet. What that process commits meanwhile may be missed.
    pub fn peek(path: &Path, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let options = Options::default();
        let families = DB::list_cf(&options, path).unwrap_or_default();
        if !families.iter().any(|family| family == Family::Meta.name()) {
            return Ok(None);
        }
        // The other families stay closed: they may be large, and nothing of them is read.
        let names = ["default", Family::Meta.name()];
        let failed = |error| StoreError::of(path, &error);
        let db = DB::open_cf_for_read_only(&options, path, names, false).map_err(failed)?;
        let Some(meta) = db.cf_handle(Family::Meta.name()) else { return Ok(None) };
        db.get_cf(meta, key).map_err(failed)
    }

    fn check_format(&self) -> Result<(), StoreError> {
        match self.get(Family::Meta, FORMAT_KEY)? {
            Some(found) if found == FORMAT.to_be_bytes() => Ok(()),
            Some(found) if ADDED_TO.iter().any(|format| found == format.to_be_bytes()) => self.write_format(),
            Some(found) => {
                let found = match <[u8; 4]>::try_from(found.as_slice()) {
                    Ok(bytes) => u32::from_be_bytes(bytes).to_string(),
                    Err(_) => format!("{found:02x?}"),
                };
                Err(StoreError::Format { path: self.path.clone(), found })
            }
            None => self.write_format(),
        }
    }

    fn write_format(&self) -> Result<(), StoreError> {
        let mut writes = self.writes();
        writes.put(Family::Meta, FORMAT_KEY, &FORMAT.to_be_bytes());
        self.write(writes, Sync::Now)
    }

    fn read_number(&self, key: &[u8]) -> Result<Option<u64>, StoreError> {
        let Some(bytes) = self.get(Family::Meta, key)? else { return Ok(None) };
        match <[u8; 8]>::try_from(bytes.as_slice()) {
            Ok(bytes) => Ok(Some(u64::from_be_bytes(bytes))),
            Err(_) => Err(StoreError::of_text(&self.path, &format!("{} holds no number", key.escape_ascii()))),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last committed epoch; 0 before the first. Shared, so that a reader need not hold the store.
    pub fn committed(&self) -> &Arc<AtomicU64> {
        &self.committed
    }

    /// The last committed epoch; 0 before the first.
    pub fn committed_epoch(&self) -> Epoch {
        Epoch(self.committed.load(Ordering::Acquire))
    }

    /// The id of the operator `name`, the same for ever; the first call keeps the name.
    pub fn operator_id(&self, name: &str) -> Result<OperatorId, StoreError> {
        let id = OperatorId(xxh3_64(name.as_bytes()) as u32);
        let key = format!("{OPERATOR_KEY}{:08x}", id.0);
        match self.get(Family::Meta, key.as_bytes())? {
            Some(stored) if stored == name.as_bytes() => Ok(id),
            Some(stored) => Err(StoreError::SameId {
                first: String::from_utf8_lossy(&stored).into_owned(),
                second: name.to_owned(),
            }),
            None => {
                let mut writes = self.writes();
                writes.put(Family::Meta, key.as_bytes(), name.as_bytes());
                self.write(writes, Sync::Now)?;
                Ok(id)
            }
        }
    }

    /// The names of all operators that ever kept state here.
    pub fn operator_names(&self) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        let to = super::changes::after_prefix(OPERATOR_KEY.as_bytes()).unwrap_or_default();
        self.scan(Family::Meta, OPERATOR_KEY.as_bytes(), &to, |_, name| {
            names.push(String::from_utf8_lossy(name).into_owned());
            true
        })?;
        Ok(names)
    }

    /// The value under `key`.
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.get_pinned(family, key)?.map(|value| value.to_vec()))
    }

    pub(crate) fn get_pinned(&self, family: Family, key: &[u8]) -> Result<Option<DBPinnableSlice<'_>>, StoreError> {
        self.db.get_pinned_cf(self.handle(family)?, key).map_err(|error| StoreError::of(&self.path, &error))
    }

    /// The values under `keys`, in their order; one call reads them together.
    pub(crate) fn get_many(
        &self,
        family: Family,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<DBPinnableSlice<'_>>>, StoreError> {
        let values = self.db.batched_multi_get_cf(self.handle(family)?, keys, false);
        values.into_iter().collect::<Result<_, _>>().map_err(|error| StoreError::of(&self.path, &error))
    }

    /// Shows keys from `from` up to and without `to`, in order, until `visit` returns false.
    pub fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        for entry in self.iterate(family, from, to)? {
            let (key, value) = entry.map_err(|error| StoreError::of(&self.path, &error))?;
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    pub(crate) fn iterate(&self, family: Family, from: &[u8], to: &[u8]) -> Result<Entries<'_>, StoreError> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        let mode = IteratorMode::From(from, Direction::Forward);
        Ok(self.db.iterator_cf_opt(self.handle(family)?, options, mode))
    }

    /// An empty set of writes.
    pub fn writes(&self) -> Writes<'_> {
        Writes { store: self, batch: WriteBatch::default(), failed: None }
    }

    /// Applies `writes` at once, outside an epoch: what was delivered is forgotten, for example.
    pub fn write(&self, writes: Writes<'_>, sync: Sync) -> Result<(), StoreError> {
        if let Some(error) = writes.failed {
            return Err(error);
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync == Sync::Now);
        self.db.write_opt(writes.batch, &options).map_err(|error| StoreError::of(&self.path, &error))
    }

    /// Makes `epoch` durable: `writes` and the epoch's number in one synced write. Only then does
    /// [`Store::committed_epoch`] tell it.
    pub fn commit(&self, mut writes: Writes<'_>, epoch: Epoch) -> Result<(), StoreError> {
        writes.put(Family::Meta, COMMITTED_KEY, &epoch.0.to_be_bytes());
        self.write(writes, Sync::Now)?;
        self.committed.store(epoch.0, Ordering::Release);
        Ok(())
    }

    /// RocksDB's own number of this name over all column families, such as `rocksdb.estimate-live-data-size`.
    pub fn property(&self, name: &str) -> Result<u64, StoreError> {
        let mut sum = 0;
        for family in Family::ALL {
            let value = self.db.property_int_value_cf(self.handle(family)?, name);
            sum += value.map_err(|error| StoreError::of(&self.path, &error))?.unwrap_or(0);
        }
        Ok(sum)
    }

    fn handle(&self, family: Family) -> Result<&ColumnFamily, StoreError> {
        self.db
            .cf_handle(family.name())
            .ok_or_else(|| StoreError::of_text(&self.path, &format!("the column family {} is missing", family.name())))
    }
}

/// An iterator over a range of a column family.
pub(crate) type Entries<'a> = rocksdb::DBIteratorWithThreadMode<'a, DB>;

/// Whether a write waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Durable when the call returns.
    Now,
    /// Durable with the next synced write; a loss of power may undo it, a crash of the process does not.
    Later,
}

/// Writes that are applied together or not at all.
pub struct Writes<'a> {
    store: &'a Store,
    batch: WriteBatch,
    failed: Option<StoreError>,
}

impl Writes<'_> {
    /// Sets `key` to `value`.
    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.with(family, |batch, handle| batch.put_cf(handle, key, value));
    }

    /// Removes `key`.
    pub fn delete(&mut self, family: Family, key: &[u8]) {
        self.with(family, |batch, handle| batch.delete_cf(handle, key));
    }

    /// Removes the keys from `from` up to and without `to`.
    pub fn delete_range(&mut self, family: Family, from: &[u8], to: &[u8]) {
        self.with(family, |batch, handle| batch.delete_range_cf(handle, from, to));
    }

    /// Appends pieces to a state's value.
    pub(crate) fn append(&mut self, key: &[u8], pieces: &[u8]) {
        self.with(Family::State, |batch, handle| batch.merge_cf(handle, key, pieces));
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.batch.size_in_bytes()
    }

    fn with(&mut self, family: Family, write: impl FnOnce(&mut WriteBatch, &ColumnFamily)) {
        match self.store.handle(family) {
            Ok(handle) => write(&mut self.batch, handle),
            // Reported when the writes are applied, which then does nothing.
            Err(error) => self.failed = Some(error),
        }
    }
}

impl StoreError {
    fn of(path: &Path, error: &rocksdb::Error) -> StoreError {
        StoreError::of_text(path, error.as_ref())
    }

    /// Tells the cases with a remedy of their own by RocksDB's words, since its C interface passes on only those.
    fn of_text(path: &Path, detail: &str) -> StoreError {
        let path = path.to_owned();
        if detail.contains("LOCK") && (detail.contains("lock hold by") || detail.contains("While lock file")) {
            StoreError::InUse { path }
        } else if detail.contains("No space left on device") || detail.contains("NoSpace") {
            StoreError::DiskFull { path }
        } else {
            StoreError::Failed { path, detail: detail.to_owned() }
        }
    }
}

/// What all column families share, so that memory has one bound.
struct Shared {
    cache: Cache,
    write_buffers: WriteBufferManager,
}

impl Shared {
    fn new(options: StoreOptions) -> Shared {
        let cache = Cache::new_lru_cache(options.cache_bytes);
        let write_buffers =
            WriteBufferManager::new_write_buffer_manager_with_cache(options.write_buffer_bytes, false, cache.clone());
        Shared { cache, write_buffers }
    }
}

fn database_options(shared: &Shared) -> Options {
    let mut options = family_options(shared);
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_write_buffer_manager(&shared.write_buffers);
    options.set_max_background_jobs(2);
    options.set_max_open_files(1024);
    options.set_max_total_wal_size(256 << 20);
    options.set_bytes_per_sync(1 << 20);
    options.set_wal_bytes_per_sync(1 << 20);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(4 << 20);
    options
}

fn family_options(shared: &Shared) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&shared.cache);
    table.set_block_size(16 << 10);
    table.set_bloom_filter(10.0, false);
    table.set_format_version(5);
    // Indexes and filters count against the cache's bound, else they would be memory that nobody limits.
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(32 << 20);
    options.set_max_write_buffer_number(3);
    options.set_target_file_size_base(32 << 20);
    options.set_level_compaction_dynamic_level_bytes(true);
    options
}
