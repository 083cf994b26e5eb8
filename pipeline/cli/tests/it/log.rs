//! A log whose every record is chosen by the test: its partition, its Kafka timestamp, its bytes. The counts that the
//! views are held against are made here, over what was sent, by code that knows nothing of Weir's operators.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use apache_avro::types::Value;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};
use weir_schemas::avro::Encoder;
use weir_schemas::registry::{Registry, Settings};

use crate::program::{Bench, block_on, parts};

/// 2026-01-05 06:00 UTC in milliseconds: when the tests' invented time begins.
pub(crate) const MORNING: i64 = 1_767_592_800_000;
/// Length of the windows of `clock/views/by_window.sql`, in milliseconds.
const WINDOW_MS: i64 = 5_000;

/// The files of the pipeline that these tests run.
pub(crate) fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clock")
}

/// The reader schema of the pipeline's source.
pub(crate) const SALE: &str = include_str!("clock/event.avsc");

/// One event of the pipeline `clock`.
#[derive(Clone, Debug)]
pub(crate) struct Sale {
    pub id: String,
    /// Milliseconds since 1970.
    pub at: i64,
    pub shop: String,
    pub user: String,
    pub amount: i64,
}

impl Sale {
    /// A sale that differs from all of other numbers; few users share many of them.
    pub(crate) fn of(number: u64, at: i64, shop: &str) -> Sale {
        let id = format!("{shop}-{number}");
        Sale { id, at, shop: shop.to_owned(), user: format!("u{}", number % 7), amount: (number % 100) as i64 - 20 }
    }
}

/// Writes sales with one registered schema.
pub(crate) struct SaleWriter {
    encoder: Encoder,
    more: Vec<(String, Value)>,
}

impl SaleWriter {
    /// Registers `schema`, which may have more fields than [`SALE`], whose values are `more`.
    pub(crate) fn register(bench: &Bench, schema: &str, more: Vec<(String, Value)>) -> SaleWriter {
        let registry = Registry::new(Settings::new(parts().registry())).unwrap();
        let id = block_on(registry.register(&format!("{}-value", bench.topic), schema)).unwrap();
        SaleWriter { encoder: Encoder::new(id, schema, &[]).unwrap(), more }
    }

    pub(crate) fn bytes(&self, sale: &Sale, note: &str) -> Vec<u8> {
        let text = |text: &str| Value::String(text.to_owned());
        let mut fields: Vec<(String, Value)> = [
            ("id", text(&sale.id)),
            ("at", Value::TimestampMillis(sale.at)),
            ("shop", text(&sale.shop)),
            ("user", text(&sale.user)),
            ("amount", Value::Long(sale.amount)),
            ("note", text(note)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        fields.extend(self.more.iter().cloned());
        let mut bytes = Vec::new();
        self.encoder.writer().unwrap().write(&Value::Record(fields), &mut bytes).unwrap();
        bytes
    }
}

/// Where each record that was sent came to lie, by its number.
#[derive(Default)]
struct Places(Mutex<BTreeMap<usize, (i32, i64)>>);

impl ClientContext for Places {}

impl ProducerContext for Places {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<usize>) {
        let message = result.as_ref().map_err(|(error, _)| error).expect("Kafka takes every record");
        let place = (message.partition(), message.offset());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(*number, place);
    }
}

/// A topic of a bench, written to partition by partition.
pub(crate) struct Log {
    topic: String,
    producer: BaseProducer<Places>,
    sent: usize,
}

impl Log {
    /// Makes the topic.
    pub(crate) fn make(bench: &Bench, partitions: i32) -> Log {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", parts().kafka());
        let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
        let topic = NewTopic::new(&bench.topic, partitions, TopicReplication::Fixed(1));
        block_on(admin.create_topics([&topic], &AdminOptions::new())).unwrap()[0].as_ref().unwrap();
        // Idempotent, so that what a test sends in an order stands in that order.
        config.set("enable.idempotence", "true").set("linger.ms", "5");
        let producer = config.create_with_context(Places::default()).unwrap();
        Log { topic: bench.topic.clone(), producer, sent: 0 }
    }

    /// Sends a record; its place is told by [`Log::flush`].
    pub(crate) fn send(&mut self, partition: i32, kafka_time_ms: i64, value: &[u8]) {
        let mut record = BaseRecord::<[u8], [u8], Box<usize>>::with_opaque_to(&self.topic, Box::new(self.sent))
            .partition(partition)
            .timestamp(kafka_time_ms)
            .payload(value);
        self.sent += 1;
        loop {
            match self.producer.send(record) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(Duration::from_millis(20));
                }
                Err((error, _)) => panic!("{error}"),
            }
        }
    }

    /// Waits until Kafka has everything: (partition, offset) of every record, in the order of sending.
    pub(crate) fn flush(&mut self) -> Vec<(i32, i64)> {
        self.producer.flush(Duration::from_secs(60)).unwrap();
        let places = self.producer.context().0.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(places.len(), self.sent);
        places.values().copied().collect()
    }
}

/// What the view has to hold over `sales`: a line for each window and shop, as [`live`] prints them.
pub(crate) fn expected<'a>(sales: impl IntoIterator<Item = &'a Sale>) -> String {
    type Cells<'a> = (u64, i64, BTreeSet<&'a str>);
    let mut windows: BTreeMap<(i64, &str), Cells<'_>> = BTreeMap::new();
    for sale in sales {
        let cells = windows.entry((sale.at.div_euclid(WINDOW_MS) * WINDOW_MS, &sale.shop)).or_default();
        cells.0 += 1;
        cells.1 += sale.amount;
        cells.2.insert(&sale.user);
    }
    let line = |((window, shop), (sales, revenue, users)): (&(i64, &str), &Cells<'_>)| {
        format!("{}\t{shop}\t{sales}\t{revenue}\t{}", window / 1_000, users.len())
    };
    windows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What the view holds, shops of `like` only.
pub(crate) fn live(bench: &Bench, like: &str) -> String {
    bench.ask(&format!(
        "SELECT toUnixTimestamp(window_start), shop, sales, revenue, users FROM by_window WHERE shop LIKE '{like}' \
         ORDER BY 1, 2"
    ))
}

/// How many records the ledger knows for each fate: consumed, accepted, quarantined, duplicate, too late, too late
/// after idleness; and the accounts that don't balance.
pub(crate) fn ledger(bench: &Bench) -> String {
    bench.ask(
        "SELECT sum(consumed), sum(accepted), sum(quarantined), sum(duplicate) + sum(duplicate_differing), \
         sum(too_late), sum(too_late_after_idle), countIf(consumed != accepted + quarantined + duplicate + \
         duplicate_differing + too_late + too_late_after_idle + tombstone) FROM weir_ledger",
    )
}
