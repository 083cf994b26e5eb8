//! The invented registry: writer schemas by id, from files. An id that isn't there is one that nobody has registered.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use weir_schemas::avro::Schema;
use weir_schemas::registry::{Lookup, ParsedSchema, SchemaSource};

/// Schemas by id. Clones share them.
#[derive(Clone, Default)]
pub struct Shelf {
    schemas: Arc<BTreeMap<u32, ParsedSchema>>,
    is_down: Arc<AtomicBool>,
}

impl Shelf {
    /// A shelf of these schemas: their ids and texts.
    ///
    /// # Errors
    /// The id and what is wrong with its schema.
    pub fn new(texts: &BTreeMap<u32, String>) -> Result<Shelf, (u32, String)> {
        let mut schemas = BTreeMap::new();
        for (&id, text) in texts {
            let schema = Schema::parse(text).map_err(|problems| (id, problems.to_string()))?;
            let parsed = ParsedSchema { id, schema: Arc::new(schema), text: text.clone(), referenced: Vec::new() };
            schemas.insert(id, parsed);
        }
        Ok(Shelf { schemas: Arc::new(schemas), is_down: Arc::default() })
    }

    /// Lets it be asked, or not.
    pub fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Release);
    }

    /// The ids that are there.
    pub fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.schemas.keys().copied()
    }
}

impl SchemaSource for Shelf {
    fn look_up(&self, id: u32) -> Pin<Box<dyn Future<Output = Lookup<ParsedSchema>> + Send + '_>> {
        Box::pin(async move {
            if self.is_down.load(Ordering::Acquire) {
                return Lookup::Unavailable("the scenario's registry is down".to_owned());
            }
            self.schemas.get(&id).cloned().map_or(Lookup::Unknown, Lookup::Found)
        })
    }
}
