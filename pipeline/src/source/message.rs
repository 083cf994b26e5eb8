//! Messages: records as a source reads them, wherever their bytes lie.
//!
//! A broker's stay in librdkafka's memory until they are dropped, so that nothing is copied on the way to the decoder.
//! Those of any other log are a shared [`Record`]. Which of the two it is costs a branch that always goes the same way.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use bytes::Bytes;
use rdkafka::bindings as c;
use rdkafka::types::RDKafkaRespErr;

/// A record that no client of a broker holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The offset.
    pub offset: i64,
    /// The Kafka timestamp in milliseconds; -1 where the record carries none.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers, in order.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// One message.
pub struct Message {
    memory: Memory,
    /// Bytes of key, value and headers.
    size: u64,
    /// The timestamp of the record that was refused, where this is a retried one.
    kafka_time_ms: Option<i64>,
}

enum Memory {
    Kafka(Raw),
    Shared(Arc<Record>),
}

/// A message of librdkafka's, which it belongs to until it is dropped.
struct Raw(NonNull<c::rd_kafka_message_t>);

impl Raw {
    fn get(&self) -> &c::rd_kafka_message_t {
        // SAFETY: the pointer stays valid until `drop` hands it back.
        unsafe { self.0.as_ref() }
    }

    fn headers(&self, mut each: impl FnMut(&[u8], Option<&[u8]>)) {
        let mut headers = std::ptr::null_mut();
        // SAFETY: the header list belongs to the message and lives as long as it.
        if unsafe { c::rd_kafka_message_headers(self.0.as_ptr(), &mut headers) }
            != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            return;
        }
        for at in 0.. {
            let (mut name, mut value, mut size) = (std::ptr::null::<c_char>(), std::ptr::null::<c_void>(), 0usize);
            // SAFETY: an index past the end is answered with an error, which ends the loop.
            let found = unsafe { c::rd_kafka_header_get_all(headers, at, &mut name, &mut value, &mut size) };
            if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
                return;
            }
            // SAFETY: the name is a C string, the value `size` bytes, both of the header list.
            unsafe { each(CStr::from_ptr(name).to_bytes(), bytes(value, size)) };
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: each message is owned by exactly one `Raw`.
        unsafe { c::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

impl Message {
    /// A message that shares `record`.
    pub fn of(record: Arc<Record>) -> Message {
        let part = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = record.headers.iter().map(|(name, value)| name.len() + part(value)).sum();
        let size = (part(&record.key) + part(&record.value) + headers) as u64;
        Message { memory: Memory::Shared(record), size, kafka_time_ms: None }
    }

    /// Takes over a message of librdkafka's, which nobody else may free.
    pub(super) fn of_kafka(raw: NonNull<c::rd_kafka_message_t>) -> Message {
        let raw = Raw(raw);
        let mut size = raw.get().len + raw.get().key_len;
        if raw.get().err == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            raw.headers(|name, value| size += name.len() + value.map_or(0, <[u8]>::len));
        }
        Message { memory: Memory::Kafka(raw), size: size as u64, kafka_time_ms: None }
    }

    /// What librdkafka hands over may be an error or the end of a partition instead.
    pub(super) fn error(&self) -> RDKafkaRespErr {
        match &self.memory {
            Memory::Kafka(raw) => raw.get().err,
            Memory::Shared(_) => RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR,
        }
    }

    /// The offset.
    pub fn offset(&self) -> i64 {
        match &self.memory {
            Memory::Kafka(raw) => raw.get().offset,
            Memory::Shared(record) => record.offset,
        }
    }

    /// Lets the timestamp of the record that was refused count, for a retried one.
    pub(crate) fn set_timestamp_ms(&mut self, kafka_time_ms: i64) {
        self.kafka_time_ms = Some(kafka_time_ms);
    }

    /// The Kafka timestamp in milliseconds; -1 where the record carries none.
    pub fn timestamp_ms(&self) -> i64 {
        if let Some(kafka_time_ms) = self.kafka_time_ms {
            return kafka_time_ms;
        }
        match &self.memory {
            Memory::Kafka(raw) => {
                let mut kind = c::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
                // SAFETY: reads the message's own fields.
                unsafe { c::rd_kafka_message_timestamp(raw.0.as_ptr(), &mut kind) }
            }
            Memory::Shared(record) => record.timestamp_ms,
        }
    }

    /// Whether the broker set the timestamp, and not the producer.
    pub fn is_append_time(&self) -> bool {
        let Memory::Kafka(raw) = &self.memory else { return false };
        let mut kind = c::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: reads the message's own fields.
        unsafe { c::rd_kafka_message_timestamp(raw.0.as_ptr(), &mut kind) };
        kind == c::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME
    }

    /// The value; `None` is a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        match &self.memory {
            // SAFETY: librdkafka says that `payload` points to `len` bytes as long as the message lives.
            Memory::Kafka(raw) => unsafe { bytes(raw.get().payload, raw.get().len) },
            Memory::Shared(record) => record.value.as_deref(),
        }
    }

    /// The key.
    pub fn key(&self) -> Option<&[u8]> {
        match &self.memory {
            // SAFETY: as for the value.
            Memory::Kafka(raw) => unsafe { bytes(raw.get().key, raw.get().key_len) },
            Memory::Shared(record) => record.key.as_deref(),
        }
    }

    /// Bytes of key, value and headers.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Calls `each` with the name and value of every header, in order.
    pub fn headers(&self, mut each: impl FnMut(&[u8], Option<&[u8]>)) {
        match &self.memory {
            Memory::Kafka(raw) => raw.headers(each),
            Memory::Shared(record) => record.headers.iter().for_each(|(name, value)| each(name, value.as_deref())),
        }
    }
}

/// `size` bytes at `start`, or `None` for a null pointer.
unsafe fn bytes<'a>(start: *const c_void, size: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller promises that a pointer that isn't null has `size` bytes behind it.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast::<u8>(), size) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_record_reads_as_any_other_and_weighs_all_that_it_carries() {
        let record = Record {
            offset: 7,
            timestamp_ms: 9,
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(b"value")),
            headers: vec![
                (Bytes::from_static(b"sdk"), Some(Bytes::from_static(b"web"))),
                (Bytes::from_static(b"x"), None),
            ],
        };
        let mut message = Message::of(Arc::new(record));
        assert_eq!((message.offset(), message.timestamp_ms(), message.size()), (7, 9, 1 + 5 + 3 + 3 + 1));
        assert_eq!((message.key(), message.value()), (Some(&b"k"[..]), Some(&b"value"[..])));
        let mut headers = Vec::new();
        message.headers(|name, value| headers.push((name.to_vec(), value.map(<[u8]>::to_vec))));
        assert_eq!(headers, [(b"sdk".to_vec(), Some(b"web".to_vec())), (b"x".to_vec(), None)]);
        message.set_timestamp_ms(1);
        assert_eq!(message.timestamp_ms(), 1, "a retried one has the time of the record that was refused");
        assert_eq!(Message::of(Arc::default()).value(), None, "a tombstone");
    }
}
