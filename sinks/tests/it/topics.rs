//! Topics as consumers of committed messages see them, whoever is killed in between.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::builder::{BinaryBuilder, ListBuilder};
use arrow_array::{
    ArrayRef, BinaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
    TimestampMillisecondArray, UInt32Array, UInt64Array,
};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use weir_schemas::headers;
use weir_schemas::rows::Changes;
use weir_schemas::tables;
use weir_schemas::time::{Epoch, Version};
use weir_schemas::types::{ColumnType, Width};
use weir_sinks::kafka::{AlertEncoder, QuarantineEncoder, TAIL_MESSAGES, TopicSettings, TopicSink};
use weir_sinks::{Deliver, Delivery, DeliveryError, Encode, OutRow};

use crate::parts::kafka;

/// Set in a child process: which scenario of [`child`] it plays, and on which topic.
const ROLE: &str = "WEIR_TEST_ROLE";
const TOPIC: &str = "WEIR_TEST_TOPIC";
/// Epochs that the child sends, each of [`PER_EPOCH`] messages.
const EPOCHS: u64 = 40;
const PER_EPOCH: u64 = 5;

fn client_config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka());
    config
}

fn new_topic(name: &str) -> String {
    format!("{name}-{:016x}", fastrand::u64(..))
}

fn settings(topic: &str) -> TopicSettings {
    TopicSettings {
        client: client_config(),
        topic: topic.to_owned(),
        current_topic: None,
        transactional_id: format!("{topic}-sender"),
        partitions: 3,
        tail_messages: TAIL_MESSAGES,
        within_transaction: || {},
        topic_settings: BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]),
    }
}

/// Refused records at offsets `[from, to)`, one key each of seven.
fn quarantine_rows(from: u64, to: u64) -> RecordBatch {
    let count = (to - from) as usize;
    let numbers = || from as i64..to as i64;
    let mut original = Vec::new();
    headers::push(&mut original, b"trace", Some(b"\xff\n"));
    headers::push(&mut original, b"empty", None);
    let columns = tables::quarantine(None).columns;
    let arrays = columns.iter().map(|column| -> (&str, ArrayRef) {
        let array: ArrayRef = match column.name.as_str() {
            "kafka_time" => Arc::new(TimestampMillisecondArray::from(vec![1_000; count])),
            "partition" => Arc::new(Int32Array::from(vec![3; count])),
            "offset" => Arc::new(Int64Array::from_iter_values(numbers())),
            "schema_id" => Arc::new(UInt32Array::from(vec![Some(17); count])),
            "event_time" => Arc::new(TimestampMicrosecondArray::from(vec![None; count])),
            "key" => Arc::new(BinaryArray::from_iter_values(numbers().map(|at| format!("key {}", at % 7)))),
            "value" => Arc::new(BinaryArray::from_iter_values(numbers().map(|at| format!("\0{at}")))),
            "headers" => Arc::new(BinaryArray::from_iter_values(std::iter::repeat_n(&original, count))),
            "broken_rules" => {
                let field = ColumnType::String.field("item");
                let mut ids = ListBuilder::new(BinaryBuilder::new()).with_field(field);
                (0..count).for_each(|_| ids.append_value([Some(b"a_rule"), Some(b"b_rule")]));
                Arc::new(ids.finish())
            }
            name => Arc::new(BinaryArray::from_iter_values(std::iter::repeat_n(name, count))),
        };
        (column.name.as_str(), array)
    });
    RecordBatch::try_from_iter(arrays.collect::<Vec<_>>()).expect("columns of one length")
}

/// What the outbox holds of epoch `epoch`: its own [`PER_EPOCH`] records.
fn epoch_rows(epoch: u64) -> Vec<OutRow> {
    quarantined(epoch * PER_EPOCH, (epoch + 1) * PER_EPOCH, epoch)
}

fn quarantined(from: u64, to: u64, epoch: u64) -> Vec<OutRow> {
    let mut out = Vec::new();
    let changes = Changes { table: Arc::from(tables::QUARANTINE), rows: quarantine_rows(from, to), deleted: None };
    QuarantineEncoder.encode(&changes, Version(epoch), &mut out).expect("fits");
    out
}

async fn deliver(sink: &mut TopicSink, rows: &[OutRow]) -> Result<(), DeliveryError> {
    // As the delivery loop does: what passes by itself is told again.
    for _ in 0..20 {
        match sink.deliver(Delivery { epoch: Epoch(1), rows }).await {
            Err(DeliveryError::Retriable { why }) => {
                println!("retried: {why}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            other => return other,
        }
    }
    panic!("not delivered after 20 attempts");
}

/// A message as a consumer sees it.
#[derive(Debug)]
struct Seen {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Seen {
    fn header(&self, name: &str) -> String {
        let found = self.headers.iter().rev().find(|(other, _)| other == name);
        String::from_utf8_lossy(found.and_then(|(_, value)| value.as_deref()).unwrap_or_default()).into_owned()
    }
}

/// All committed messages of a topic, by partition, in their order.
fn committed(topic: &str) -> HashMap<i32, Vec<Seen>> {
    let consumer: BaseConsumer = client_config()
        .set("group.id", format!("{topic}-reader"))
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    for partition in 0..3 {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&assignment).expect("assigned");
    let mut seen: HashMap<i32, Vec<Seen>> = HashMap::new();
    let mut open = 3;
    while open > 0 {
        match consumer.poll(Duration::from_secs(30)).expect("the end comes within 30 seconds") {
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => open -= 1,
            Err(error) => println!("{error}"),
            Ok(message) => {
                let headers = message.headers().map(|headers| {
                    headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
                });
                seen.entry(message.partition()).or_default().push(Seen {
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers: headers.unwrap_or_default(),
                });
            }
        }
    }
    seen
}

/// Asserts that offsets `[0, count)` of the original topic are there, each once, epoch after epoch in each partition.
fn assert_each_once(topic: &str, count: u64) {
    let seen = committed(topic);
    let mut all = Vec::new();
    for (partition, messages) in &seen {
        let numbers = |header: &str| -> Vec<u64> {
            messages.iter().map(|message| message.header(header).parse().expect("a number")).collect()
        };
        let versions = numbers("weir_version");
        assert!(versions.is_sorted(), "partition {partition}: {versions:?}");
        all.extend(numbers("weir_offset"));
    }
    all.sort_unstable();
    assert_eq!(all, (0..count).collect::<Vec<_>>());
}

#[tokio::test]
async fn told_twice_by_one_sender_and_by_the_next_is_there_once() {
    let topic = new_topic("quarantine");
    let mut sink = TopicSink::new(settings(&topic));
    for epoch in [0, 1, 1, 2, 0] {
        deliver(&mut sink, &epoch_rows(epoch)).await.expect("delivered");
    }
    drop(sink);
    let mut sink = TopicSink::new(settings(&topic));
    // Two epochs in one delivery, of which the topic holds the first.
    let together: Vec<_> = [2, 3].into_iter().flat_map(epoch_rows).collect();
    deliver(&mut sink, &together).await.expect("delivered");
    assert_each_once(&topic, 4 * PER_EPOCH);
}

#[tokio::test]
async fn a_long_tail_is_read_back_as_far_as_needed() {
    let topic = new_topic("quarantine");
    let mut sink = TopicSink::new(settings(&topic));
    let large = quarantined(PER_EPOCH, 12_000, 1);
    for rows in [&epoch_rows(0), &large, &epoch_rows(2_400)] {
        deliver(&mut sink, rows).await.expect("delivered");
    }
    drop(sink);
    let mut sink = TopicSink::new(settings(&topic));
    for rows in [&large, &epoch_rows(2_400)] {
        deliver(&mut sink, rows).await.expect("delivered");
    }
    assert_each_once(&topic, 12_000 + PER_EPOCH);
}

#[tokio::test]
async fn a_second_sender_fences_the_first() {
    let topic = new_topic("quarantine");
    let mut first = TopicSink::new(settings(&topic));
    deliver(&mut first, &epoch_rows(0)).await.expect("delivered");
    let mut second = TopicSink::new(settings(&topic));
    deliver(&mut second, &epoch_rows(1)).await.expect("delivered");
    match deliver(&mut first, &epoch_rows(2)).await {
        Err(DeliveryError::Fatal { remedy, .. }) => assert!(remedy.contains("another Weir"), "{remedy}"),
        other => panic!("{other:?}"),
    }
    assert_each_once(&topic, 2 * PER_EPOCH);
}

#[tokio::test]
async fn a_refused_record_keeps_its_bytes_and_headers() {
    let topic = new_topic("quarantine");
    let mut sink = TopicSink::new(settings(&topic));
    deliver(&mut sink, &quarantined(0, 1, 9)).await.expect("delivered");
    let seen: Vec<Seen> = committed(&topic).into_values().flatten().collect();
    let [message] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((message.key.as_deref(), message.value.as_deref()), (Some(&b"key 0"[..]), Some(&b"\x000"[..])));
    let text = |text: &str| Some(text.as_bytes().to_vec());
    let expected = [
        ("trace", Some(b"\xff\n".to_vec())),
        ("empty", None),
        ("weir_reason", text("reason")),
        ("weir_detail", text("detail")),
        ("weir_topic", text("topic")),
        ("weir_partition", text("3")),
        ("weir_offset", text("0")),
        ("weir_kafka_time", text("1000")),
        ("weir_schema_id", text("17")),
        ("weir_rule", text("rule")),
        ("weir_field", text("field")),
        ("weir_expected", text("expected")),
        ("weir_found", text("found")),
        ("weir_severity", text("severity")),
        ("weir_owner", text("owner")),
        ("weir_fingerprint", text("fingerprint")),
        ("weir_broken_rules", text("a_rule,b_rule")),
        ("weir_id", text("topic/3@0")),
        ("weir_version", text("9")),
    ];
    assert_eq!(message.headers, expected.map(|(name, value)| (name.to_owned(), value)));
}

#[tokio::test]
async fn steps_of_an_alert_come_in_order_with_their_fingerprint_as_key() {
    let topic = new_topic("alerts");
    let columns = tables::alerts_history().columns;
    let rows = |revisions: [u32; 2]| {
        let arrays = columns.iter().map(|column| -> (&str, ArrayRef) {
            let array: ArrayRef = match &column.column_type {
                ColumnType::DateTime64(..) => Arc::new(TimestampMicrosecondArray::from(vec![7, 7])),
                ColumnType::UInt(Width::W32) => Arc::new(UInt32Array::from(revisions.to_vec())),
                ColumnType::UInt(_) => Arc::new(UInt64Array::from(vec![1, 1])),
                ColumnType::Nullable(of) if **of == ColumnType::Float64 => {
                    Arc::new(Float64Array::from(vec![None, Some(0.5)]))
                }
                ColumnType::Nullable(_) => Arc::new(UInt64Array::from(vec![None, Some(1)])),
                ColumnType::Float64 => Arc::new(Float64Array::from(vec![0.5, 0.5])),
                ColumnType::Array(_) => {
                    let field = ColumnType::String.field("item");
                    let mut list = ListBuilder::new(BinaryBuilder::new()).with_field(field);
                    list.append(true);
                    list.append(true);
                    Arc::new(list.finish())
                }
                _ => Arc::new(BinaryArray::from_vec(vec![b"f00d", b"f00d"])),
            };
            (column.name.as_str(), array)
        });
        RecordBatch::try_from_iter(arrays.collect::<Vec<_>>()).expect("columns of one length")
    };
    let mut out = Vec::new();
    // One epoch may hold several steps, and the outbox keeps no order within it.
    for revisions in [[10, 3], [1, 2]] {
        let changes = Changes { table: Arc::from(tables::ALERTS_HISTORY), rows: rows(revisions), deleted: None };
        AlertEncoder::new(5).encode(&changes, Version(4), &mut out).expect("fits");
    }
    let mut sink = TopicSink::new(settings(&topic));
    for _ in 0..2 {
        deliver(&mut sink, &out).await.expect("delivered");
    }
    let seen: Vec<Seen> = committed(&topic).into_values().flatten().collect();
    let ids: Vec<String> = seen.iter().map(|message| message.header("weir_id")).collect();
    let id = |revision: u32| format!("f00d/09223372036854775815/{revision:010}");
    assert_eq!(ids, [1, 2, 3, 10].map(id));
    assert!(seen.iter().all(|message| message.key.as_deref() == Some(b"f00d")));
    assert!(
        seen.iter().all(|message| message.value.as_deref().is_some_and(|value| value.starts_with(&[0, 0, 0, 0, 5])))
    );
}

/// A topic beside the first one that keeps the newest message of each key, in the same transactions.
#[tokio::test]
async fn the_current_topic_has_the_newest_message_of_each_key_and_nothing_twice() {
    let (topic, current) = (new_topic("alerts"), new_topic("current"));
    let settings = || TopicSettings { current_topic: Some(current.clone()), ..settings(&topic) };
    let mut sink = TopicSink::new(settings());
    // Keys come again every seven offsets: ten records have three keys twice.
    for epoch in [1, 1, 2] {
        deliver(&mut sink, &quarantined(epoch * 10, epoch * 10 + 10, epoch)).await.expect("delivered");
    }
    drop(sink);
    // Told again by the next one, as after a kill: an older epoch must not come behind a newer one.
    let mut sink = TopicSink::new(settings());
    for epoch in [1, 2, 3] {
        deliver(&mut sink, &quarantined(epoch * 10, epoch * 10 + 10, epoch)).await.expect("delivered");
    }
    let offsets = |topic: &str| -> Vec<u64> {
        let all = committed(topic).into_values().flatten();
        let mut offsets: Vec<u64> =
            all.map(|message| message.header("weir_offset").parse().expect("a number")).collect();
        offsets.sort_unstable();
        offsets
    };
    assert_eq!(offsets(&topic), (10..40).collect::<Vec<_>>());
    let newest: Vec<u64> = [10, 20, 30].into_iter().flat_map(|first| first + 3..first + 10).collect();
    assert_eq!(offsets(&current), newest);
}

/// A state that begins anew under the name of an old one: what it looks through of the topic is bounded.
#[tokio::test]
async fn of_a_long_topic_a_new_state_looks_at_the_newest_messages_alone() {
    let topic = new_topic("quarantine");
    let settings = || TopicSettings { tail_messages: 60, ..settings(&topic) };
    deliver(&mut TopicSink::new(settings()), &quarantined(0, 200, 7)).await.expect("delivered");
    deliver(&mut TopicSink::new(settings()), &quarantined(0, 200, 1)).await.expect("delivered");
    let (mut records, mut repeated) = (0, 0);
    for messages in committed(&topic).into_values() {
        let number = |message: &Seen| -> u64 { message.header("weir_offset").parse().expect("a number") };
        let numbers: Vec<u64> = messages.iter().map(number).collect();
        let distinct = numbers.iter().collect::<BTreeSet<_>>().len();
        let (first, again) = numbers.split_at(distinct);
        // The newest 20 offsets of a partition are 19 messages and the mark of their transaction.
        let older = distinct.saturating_sub(19);
        assert_eq!(again, &first[..older], "what lies before the bound is sent once more, and nothing else");
        (records, repeated) = (records + distinct, repeated + older);
    }
    assert_eq!(records, 200);
    assert!(repeated > 100, "{repeated}");
}

/// A sender that died after its messages reached the broker, but before its transaction was committed.
#[tokio::test]
async fn killed_between_produce_and_commit_leaves_nothing_behind() {
    let topic = new_topic("quarantine");
    let mut sink = TopicSink::new(settings(&topic));
    deliver(&mut sink, &epoch_rows(0)).await.expect("delivered");
    drop(sink);
    let (mut child, mut said) = start_child("produce without commit", &topic);
    assert_eq!(said.next().as_deref(), Some("produced"));
    child.kill().expect("killed");
    child.wait().expect("gone");
    let mut sink = TopicSink::new(settings(&topic));
    for epoch in [0, 1] {
        deliver(&mut sink, &epoch_rows(epoch)).await.expect("delivered");
    }
    assert_each_once(&topic, 2 * PER_EPOCH);
}

/// A sender that is killed again and again at any moment, and told again from its last acknowledged epoch.
#[tokio::test]
async fn killed_at_any_moment_each_message_is_there_once() {
    let topic = new_topic("quarantine");
    let mut acknowledged = 0;
    for _ in 0..4 {
        let (mut child, mut said) = start_child(&format!("send from {acknowledged}"), &topic);
        // Some are killed before their first acknowledgement, some after a few.
        for _ in 0..fastrand::u64(1..8) {
            match said.next().and_then(|line| line.parse().ok()) {
                Some(epoch) => acknowledged = epoch,
                None => break,
            }
        }
        std::thread::sleep(Duration::from_millis(fastrand::u64(..40)));
        child.kill().expect("killed");
        child.wait().expect("gone");
    }
    println!("acknowledged {acknowledged} of {EPOCHS} epochs when the last one was killed");
    let mut sink = TopicSink::new(settings(&topic));
    for epoch in acknowledged..EPOCHS {
        deliver(&mut sink, &epoch_rows(epoch)).await.expect("delivered");
    }
    assert_each_once(&topic, EPOCHS * PER_EPOCH);
}

/// Starts this test program again to play `role`, and returns the lines that it prints for us.
fn start_child(role: &str, topic: &str) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut child = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "topics::child", "--nocapture"])
        .env(ROLE, role)
        .env(TOPIC, topic)
        .env("WEIR_TEST_KAFKA", kafka())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let lines = output.lines().map_while(Result::ok);
    (child, lines.filter_map(|line| Some(line.split_once("child: ")?.1.to_owned())))
}

/// Not a test by itself: what a child process does that is going to be killed.
#[tokio::test]
async fn child() {
    let (Ok(role), Ok(topic)) = (std::env::var(ROLE), std::env::var(TOPIC)) else { return };
    if role == "produce without commit" {
        let producer: BaseProducer =
            client_config().set("transactional.id", settings(&topic).transactional_id).create().expect("a producer");
        producer.init_transactions(Duration::from_secs(30)).expect("fenced");
        producer.begin_transaction().expect("begun");
        for offset in PER_EPOCH..2 * PER_EPOCH {
            let value = format!("uncommitted {offset}");
            producer.send(BaseRecord::<str, str>::to(&topic).payload(&value)).expect("queued");
        }
        producer.flush(Duration::from_secs(30)).expect("at the broker");
        println!("child: produced");
        std::future::pending::<()>().await;
    }
    let from = role.strip_prefix("send from ").and_then(|epoch| epoch.parse().ok()).expect("an epoch");
    let mut sink = TopicSink::new(settings(&topic));
    for epoch in from..EPOCHS {
        deliver(&mut sink, &epoch_rows(epoch)).await.expect("delivered");
        println!("child: {}", epoch + 1);
    }
}
