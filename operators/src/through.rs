//! How far windows are done, by key group.
//!
//! A worker does the windows of all its key groups together, but not every worker gets equally far: one may leave work for
//! later, and the end of a run closes the windows that there are, which are others for each. So how far it came stands on
//! disk under each key group, and a worker that takes over key groups of several is further in some than in others: what is
//! done once is neither done again nor forgotten.

use std::collections::BTreeMap;
use std::ops::Range;

use weir_schemas::time::EventTime;

use crate::error::Error;
use crate::group_key::{decode_start, encode_start};
use crate::state::{ByteTable, Stored};

/// The key under which it stands in each key group of the table.
const KEY: &[u8] = &[];

/// Up to where windows are done.
pub(crate) struct Through {
    owned: Range<u16>,
    /// Every window that ends here or before is done in all key groups.
    all: EventTime,
    /// The key groups that are further.
    ahead: BTreeMap<u16, EventTime>,
}

impl Through {
    /// What `table` says of the key groups `owned`.
    pub(crate) fn recover(table: &ByteTable, owned: Range<u16>) -> Result<Through, Error> {
        let mut ahead = BTreeMap::new();
        for group in owned.clone() {
            let stored = table.get(group, KEY)?;
            let through = stored.as_ref().and_then(Stored::whole).map(decode_start).transpose()?;
            ahead.insert(group, through.map_or(EventTime::MIN, EventTime));
        }
        let all = ahead.values().copied().min().unwrap_or(EventTime::MIN);
        ahead.retain(|_, through| *through > all);
        Ok(Through { owned, all, ahead })
    }

    /// Up to where windows are done in every key group.
    pub(crate) fn all(&self) -> EventTime {
        self.all
    }

    /// Up to where windows are done in a key group.
    pub(crate) fn of(&self, group: u16) -> EventTime {
        self.ahead.get(&group).copied().unwrap_or(self.all)
    }

    /// All windows that end at `through` or before are done; less than before changes nothing.
    pub(crate) fn raise(&mut self, through: EventTime, table: &mut ByteTable) -> Result<(), Error> {
        if through <= self.all {
            return Ok(());
        }
        self.all = through;
        self.ahead.retain(|_, ahead| *ahead > through);
        let raised = self.owned.clone().filter(|group| !self.ahead.contains_key(group));
        raised.into_iter().try_for_each(|group| table.put(group, KEY, &encode_start(through.0)))
    }
}
