//! Keyed state: what operators remember, in tables that are larger than memory and change once per epoch.
//!
//! A table is a [`ByteTable`], or a typed [`KeyedTable`] on top of one. Both live on one worker and hold the keys
//! of the key groups that it owns. What an operator changes is staged; at the end of the epoch the adaptor
//! *freezes* it ([`StateRegistry::freeze`]) and hands it to the epoch's commit, while the operator goes on.
//!
//! ```text
//! read:   working set (KeyedTable) → staged, open epoch → frozen, uncommitted epochs → RocksDB
//! key:    operator id (u32 BE) | table (u16 BE) | key group (u16 BE) | the operator's own key
//! ```
//!
//! Invariants: only the owner of a key group reads or writes its keys; a frozen epoch is read from memory until
//! [`Store::committed`] has passed it; operator ids and table numbers are never used for anything else again.
//!
//! Not here: who commits and when (the runtime), and copies of the store elsewhere.

mod changes;
mod codec;
mod keyed;
mod pieces;
mod store;
mod table;

use std::cell::RefCell;
use std::hash::Hash;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

pub use changes::FrozenChanges;
pub(crate) use codec::encode_bytes;
pub use codec::{Codec, CodecError};
pub use keyed::KeyedTable;
pub use pieces::Stored;
pub use store::{FORMAT, Family, Store, StoreError, StoreOptions, Sync, Writes};
pub use table::ByteTable;
use weir_schemas::time::Epoch;

use crate::error::Error;
use crate::route::owned_groups;

/// The number of an operator in keys, from its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperatorId(pub u32);

/// The table of an operator's timers; no operator may use the number itself.
pub(crate) const TIMERS: u16 = u16::MAX;

/// Gives an operator of one worker its tables, and freezes them at the end of each epoch.
pub struct StateRegistry {
    store: Arc<Store>,
    operator: Arc<str>,
    id: OperatorId,
    owned: Range<u16>,
    open: Epoch,
    tables: Vec<(u16, Rc<RefCell<table::Inner>>)>,
    working_sets: Vec<Rc<RefCell<dyn keyed::Flush>>>,
}

impl StateRegistry {
    /// The registry of `operator` on `worker` of `peers`, whose first epoch will be `first`.
    pub fn new(
        store: Arc<Store>,
        operator: &str,
        worker: usize,
        peers: usize,
        first: Epoch,
    ) -> Result<StateRegistry, Error> {
        let id = store.operator_id(operator).map_err(|error| at(operator, error))?;
        Ok(StateRegistry {
            store,
            operator: operator.into(),
            id,
            owned: owned_groups(worker, peers),
            open: first,
            tables: Vec::new(),
            working_sets: Vec::new(),
        })
    }

    /// The operator's name.
    pub fn operator(&self) -> &Arc<str> {
        &self.operator
    }

    /// The operator's id.
    pub fn id(&self) -> OperatorId {
        self.id
    }

    /// The key groups of this worker.
    pub fn owned(&self) -> Range<u16> {
        self.owned.clone()
    }

    /// The operator's table `number`. Each number once; it is part of the keys on disk, so it never changes its
    /// meaning.
    pub fn table(&mut self, number: u16) -> Result<ByteTable, Error> {
        if number == TIMERS {
            return Err(at(&self.operator, format!("table number {TIMERS} belongs to its timers")));
        }
        self.any_table(number)
    }

    pub(crate) fn any_table(&mut self, number: u16) -> Result<ByteTable, Error> {
        if self.tables.iter().any(|(taken, _)| *taken == number) {
            return Err(at(&self.operator, format!("table number {number} is taken twice")));
        }
        let inner =
            table::Inner::new(self.store.clone(), self.operator.clone(), self.id, number, self.owned(), self.open);
        let inner = Rc::new(RefCell::new(inner));
        self.tables.push((number, inner.clone()));
        Ok(ByteTable::new(inner))
    }

    /// A typed table whose working set takes about `memory_bytes`; see [`StateRegistry::table`] for `number`.
    pub fn keyed<K, V>(&mut self, number: u16, memory_bytes: usize) -> Result<KeyedTable<K, V>, Error>
    where
        K: Codec + Hash + Eq + Clone + 'static,
        V: Codec + 'static,
    {
        let (table, working_set) = KeyedTable::new(self.table(number)?, memory_bytes);
        self.working_sets.push(working_set);
        Ok(table)
    }

    /// Ends `epoch`: what the tables changed in it, one part per table that changed. Reads go on seeing the
    /// changes; what is written from now on belongs to the next epoch.
    pub fn freeze(&mut self, epoch: Epoch) -> Result<Vec<Arc<FrozenChanges>>, Error> {
        if epoch != self.open {
            return Err(at(&self.operator, format!("epoch {} ends while {} is open", epoch.0, self.open.0)));
        }
        for working_set in &self.working_sets {
            working_set.borrow_mut().flush()?;
        }
        self.open = epoch.next();
        Ok(self.tables.iter().filter_map(|(_, table)| table.borrow_mut().freeze(epoch)).collect())
    }
}

/// An error of the state of `operator`.
pub(crate) fn at(operator: &str, detail: impl ToString) -> Error {
    Error::State { operator: operator.to_owned(), detail: detail.to_string() }
}
