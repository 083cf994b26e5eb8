//! Describing topics: which partitions they have, and which id the cluster gave them.
//!
//! A topic that is deleted and made again keeps its name and gets another id, so the id is what tells a log that was
//! made anew from one that has only grown.
//!
//! `DescribeTopics` stands in librdkafka's C interface only.

use std::ffi::{CStr, CString, c_char};
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::bindings as c;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};

/// A topic, as the cluster describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id, written as Kafka's own tools write it; `None` from a cluster that gives none (before Kafka 2.8).
    pub id: Option<String>,
    /// Its partitions, in ascending order; none where there is no such topic.
    pub partitions: Vec<i32>,
}

/// Something of librdkafka's that is freed when it is dropped.
struct Owned<T> {
    pointer: NonNull<T>,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// Takes over what librdkafka made; null is an error that names `what`.
    fn new(pointer: *mut T, free: unsafe extern "C" fn(*mut T), what: &str) -> Result<Owned<T>, KafkaError> {
        let pointer = NonNull::new(pointer).ok_or_else(|| KafkaError::AdminOpCreation(what.to_owned()))?;
        Ok(Owned { pointer, free })
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from librdkafka, `free` is its own function for it, and it is freed once.
        unsafe { (self.free)(self.pointer.as_ptr()) }
    }
}

/// Asks the cluster of `consumer` for `names`, in that order, and waits for at most `within`.
///
/// # Errors
/// When there is no answer in time, or one that refuses.
pub fn describe<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    names: &[String],
    within: Duration,
) -> Result<Vec<Topic>, KafkaError> {
    let event = ask(consumer, names, i32::try_from(within.as_millis()).unwrap_or(i32::MAX))?;
    let event = event.pointer.as_ptr();
    // SAFETY: reads the event's own fields; it lives until the end of this function, as do all results below.
    unsafe {
        checked(c::rd_kafka_event_error(event))?;
        let result = c::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(KafkaError::AdminOpCreation("an answer of another kind".to_owned()));
        }
        let mut count = 0;
        let topics = c::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        let mut described = Vec::with_capacity(count);
        for at in 0..count {
            described.push(read(*topics.add(at))?);
        }
        // The answer has an order of its own.
        let of = |name: &String| described.iter().find(|topic| topic.name == *name).cloned();
        let missing = |name: &String| Topic { name: name.clone(), id: None, partitions: Vec::new() };
        Ok(names.iter().map(|name| of(name).unwrap_or_else(|| missing(name))).collect())
    }
}

/// Sends the question and waits for the event that answers it.
fn ask<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    names: &[String],
    within_ms: i32,
) -> Result<Owned<c::rd_kafka_event_t>, KafkaError> {
    let names: Vec<CString> = names
        .iter()
        .map(|name| CString::new(name.as_str()))
        .collect::<Result<_, _>>()
        .map_err(|_| KafkaError::AdminOpCreation("a topic's name has a zero byte".to_owned()))?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let client = consumer.client().native_ptr();
    // SAFETY: the client lives as long as `consumer`; the names are copied by librdkafka; whatever it makes here is
    // owned by an `Owned` and freed by its own function.
    unsafe {
        let topics = Owned::new(
            c::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()),
            c::rd_kafka_TopicCollection_destroy,
            "a list of topics",
        )?;
        let options = Owned::new(
            c::rd_kafka_AdminOptions_new(client, c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
            c::rd_kafka_AdminOptions_destroy,
            "options",
        )?;
        checked(c::rd_kafka_AdminOptions_set_request_timeout(
            options.pointer.as_ptr(),
            within_ms,
            std::ptr::null_mut(),
            0,
        ))?;
        let queue = Owned::new(c::rd_kafka_queue_new(client), c::rd_kafka_queue_destroy, "a queue")?;
        c::rd_kafka_DescribeTopics(client, topics.pointer.as_ptr(), options.pointer.as_ptr(), queue.pointer.as_ptr());
        // A second more than the request may take: its own timeout is an event, too.
        let event = c::rd_kafka_queue_poll(queue.pointer.as_ptr(), within_ms.saturating_add(1_000));
        Owned::new(event, c::rd_kafka_event_destroy, "no answer in time")
    }
}

/// Reads one topic of an answer.
///
/// # Safety
/// `topic` is a description of an event that lives.
unsafe fn read(topic: *const c::rd_kafka_TopicDescription_t) -> Result<Topic, KafkaError> {
    // SAFETY: as promised by the caller; all that is read belongs to the description.
    unsafe {
        let name = CStr::from_ptr(c::rd_kafka_TopicDescription_name(topic)).to_string_lossy().into_owned();
        let error = c::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() {
            match c::rd_kafka_error_code(error) {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {}
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => {
                    return Ok(Topic { name, id: None, partitions: Vec::new() });
                }
                other => checked(other)?,
            }
        }
        let mut count = 0;
        let partitions = c::rd_kafka_TopicDescription_partitions(topic, &mut count);
        let mut numbers = Vec::new();
        for at in 0..count {
            numbers.push(c::rd_kafka_TopicPartitionInfo_partition(*partitions.add(at)));
        }
        numbers.sort_unstable();
        let id = id_of(c::rd_kafka_TopicDescription_topic_id(topic));
        Ok(Topic { name, id, partitions: numbers })
    }
}

/// An id's text in the alphabet that Kafka's tools use; `None` for the id of nothing.
///
/// # Safety
/// `uuid` is null or belongs to an event that lives.
unsafe fn id_of(uuid: *const c::rd_kafka_Uuid_t) -> Option<String> {
    if uuid.is_null() {
        return None;
    }
    // SAFETY: as promised by the caller; the text belongs to the id.
    unsafe {
        if c::rd_kafka_Uuid_most_significant_bits(uuid) == 0 && c::rd_kafka_Uuid_least_significant_bits(uuid) == 0 {
            return None;
        }
        let text = c::rd_kafka_Uuid_base64str(uuid);
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().replace('+', "-").replace('/', "_"))
    }
}

fn checked(code: RDKafkaRespErr) -> Result<(), KafkaError> {
    match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        other => Err(KafkaError::AdminOp(RDKafkaErrorCode::from(other))),
    }
}
