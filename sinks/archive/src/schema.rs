//! Writer schemas, each in an object of its own, so that records can be read without a registry.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::manifest::Archive;

const FOLDER: &str = "_schemas";

/// Where a registry has a schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The subject.
    pub subject: String,
    /// The version.
    pub version: u32,
}

/// A schema, as its registry had it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSchema {
    /// Its id in the registry.
    pub id: u32,
    /// Its text.
    pub schema: String,
    /// The texts of the schemas that it refers to, each behind those that it uses itself.
    #[serde(default)]
    pub referenced: Vec<String>,
    /// The subjects and versions that have it, where the registry told.
    #[serde(default)]
    pub versions: Vec<Version>,
}

pub(crate) fn name_of(id: u32) -> String {
    format!("{FOLDER}/{id}.json")
}

/// Whether an object's name is a schema's.
pub(crate) fn is_schema(name: &str) -> bool {
    let id = name.strip_prefix(FOLDER).and_then(|rest| rest.strip_prefix('/')?.strip_suffix(".json"));
    id.is_some_and(|id| id.parse::<u32>().is_ok())
}

impl Archive {
    /// Puts a schema. A registry never changes what an id means, so that one that is there is the same.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn put_schema(&self, schema: &KeptSchema) -> Result<(), Error> {
        let text =
            serde_json::to_vec_pretty(schema).map_err(|error| Error::Bug(format!("a schema's JSON: {error}")))?;
        self.store().put_new(&name_of(schema.id), Bytes::from(text)).map(|_| ())
    }

    /// The schema of an id; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it can't be read; [`Error::Store`].
    pub fn schema(&self, id: u32) -> Result<Option<KeptSchema>, Error> {
        let Some(bytes) = self.store().get(&name_of(id))? else { return Ok(None) };
        let wrong = |error| Error::damaged(&name_of(id), format!("it can't be read: {error}"));
        let schema: KeptSchema = serde_json::from_slice(&bytes).map_err(wrong)?;
        if schema.id == id { Ok(Some(schema)) } else { Err(Error::damaged(&name_of(id), "it has another id")) }
    }
}
