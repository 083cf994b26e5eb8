//! A record as the archive knows it.

use weir_schemas::frame::frame;
use xxhash_rust::xxh3::Xxh3;

/// A record, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The Kafka timestamp in milliseconds since 1970; absent where the record carries none.
    pub timestamp_ms: Option<i64>,
    /// Whether the broker set the timestamp (`LogAppendTime`), and not the producer.
    pub is_append_time: bool,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; absent, a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, in the form of [`weir_schemas::headers`].
    pub headers: &'a [u8],
}

/// A record of one's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The Kafka timestamp in milliseconds since 1970; absent where the record carries none.
    pub timestamp_ms: Option<i64>,
    /// Whether the broker set the timestamp, and not the producer.
    pub is_append_time: bool,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; absent, a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers, in the form of [`weir_schemas::headers`].
    pub headers: Vec<u8>,
}

impl Kept {
    /// The record, borrowed.
    pub fn borrowed(&self) -> Record<'_> {
        Record {
            partition: self.partition,
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            is_append_time: self.is_append_time,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
        }
    }
}

impl Record<'_> {
    /// The id of the schema that its value names, in Confluent's frame; absent where it has none.
    pub fn schema_id(&self) -> Option<u32> {
        self.value.and_then(|value| frame(value).ok()).map(|frame| frame.schema_id)
    }

    /// Bytes of key, value and headers.
    pub fn bytes(&self) -> u64 {
        (self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + self.headers.len()) as u64
    }

    /// A hash of everything in it. The sum over rows, wrapping, tells whether two sets of rows are the same.
    pub(crate) fn hash(&self) -> u64 {
        let mut hasher = Xxh3::new();
        hasher.update(&self.partition.to_le_bytes());
        hasher.update(&self.offset.to_le_bytes());
        hasher.update(&self.timestamp_ms.unwrap_or(i64::MIN).to_le_bytes());
        hasher.update(&[u8::from(self.is_append_time)]);
        for part in [self.key, self.value, Some(self.headers)] {
            // A length in front, so that no two records have the same bytes in a row; none for what is absent.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            hasher.update(&length.to_le_bytes());
            hasher.update(part.unwrap_or_default());
        }
        hasher.digest()
    }
}
