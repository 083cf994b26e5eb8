//! The schema registry: asking it, and telling apart "there is no such schema", "it can't be asked now" and "it doesn't
//! let us".
//!
//! - [`Registry`] asks, one call at a time, and remembers nothing.
//! - [`SchemaCache`] is what workers hold: it answers at once from memory and asks in the background, so that a worker
//!   never waits for a network.
//!
//! Requests go through `schema_registry_converter`, whose own caches aren't used: they keep a 404, 429, 500, 504 or 401
//! until somebody clears them. Here a schema that was found is kept for ever (a registry never changes what an id
//! means) and an error never is.

mod cache;
mod client;

pub use cache::{Cached, SchemaCache, SchemaSource};
pub use client::{Compatibility, Credentials, Failure, Lookup, Registry, Settings};

use std::sync::Arc;

use crate::avro::Schema;

/// A schema that the registry knows, parsed.
#[derive(Clone, Debug)]
pub struct ParsedSchema {
    /// Its id in the registry.
    pub id: u32,
    /// The schema.
    pub schema: Arc<Schema>,
    /// Its text, as it was registered.
    pub text: String,
    /// The texts of the schemas that it refers to, each behind those that it uses itself.
    pub referenced: Vec<String>,
}
