//! Refused records on their way back: messages for a [`TopicSink`](super::TopicSink) of a retry topic.
//!
//! A message's identity is the place at which the record was refused, and all have the same version: so whatever the
//! topic holds of them is known before more is sent, and nothing is sent twice.

use weir_schemas::retry::Retried;
use weir_schemas::time::Version;

use super::message::Blocks;
use crate::sink::OutRow;

/// A refused record, whole.
#[derive(Clone, Debug)]
pub struct Refused {
    /// What its retry says of it.
    pub retried: Retried,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers, as [`weir_schemas::headers`] writes them.
    pub headers: Vec<u8>,
}

/// The messages of `records`.
pub fn encode(records: &[Refused]) -> Vec<OutRow> {
    let mut out = Vec::new();
    let mut blocks = Blocks::new(Version(0), &mut out);
    for record in records {
        let identity = record.retried.origin.to_string();
        let headers = record.retried.headers(&record.headers);
        blocks.push(identity.as_bytes(), record.key.as_deref(), record.value.as_deref(), &headers);
    }
    blocks.finish();
    out
}
