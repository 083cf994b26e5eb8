//! The source on a Kafka of librdkafka's own within the process, and by an invented clock: what is idle, what waits, what
//! is read how far.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::{UInt8Type, UInt64Type};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use weir_pipeline::source::fetch::{Fetcher, consumer_config};
use weir_pipeline::source::intake::Contract;
use weir_pipeline::source::joining::Joining;
use weir_pipeline::source::judge::Bounds;
use weir_pipeline::source::log::Assigned;
use weir_pipeline::source::stream::{Paces, Plan, Resume, StreamSource};
use weir_pipeline::source::{Polled, Source};
use weir_schemas::avro::{ReaderSchema, Schema};
use weir_schemas::fate::Reason;
use weir_schemas::frame::put_frame;
use weir_schemas::place::{Partition, TopicId};
use weir_schemas::registry::{Lookup, ParsedSchema, SchemaCache, SchemaSource};
use weir_schemas::stage::{CONSUMED, event_schema};
use weir_schemas::time::{Epoch, EventTime, Span};

const SCHEMA: &str = r#"{"type": "record", "name": "Event", "fields": [
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}"#;
/// The id that the registry knows.
const KNOWN: u32 = 1;
const TOPIC: &str = "events";
const IDLE_AFTER_MS: i64 = 1_000;
const GRACE_MS: u64 = 5_000;
/// 2026-01-05 10:00:00 UTC: when the invented clock begins.
const MORNING: i64 = 1_767_607_200_000;
const HOUR: i64 = 3_600_000;

/// A registry that knows one schema.
#[derive(Clone, Default)]
struct Shelf {
    asked: Arc<Mutex<BTreeSet<u32>>>,
}

impl SchemaSource for Shelf {
    fn look_up(&self, id: u32) -> Pin<Box<dyn Future<Output = Lookup<ParsedSchema>> + Send + '_>> {
        Box::pin(async move {
            self.asked.lock().unwrap().insert(id);
            if id != KNOWN {
                return Lookup::Unknown;
            }
            let schema = Arc::new(Schema::parse(SCHEMA).unwrap());
            Lookup::Found(ParsedSchema { id, schema, text: SCHEMA.to_owned(), referenced: Vec::new() })
        })
    }
}

/// A log, a registry, and one worker's source of them.
struct World {
    producer: BaseProducer,
    cluster: MockCluster<'static, DefaultProducerContext>,
    shelf: Shelf,
    runtime: tokio::runtime::Runtime,
    now_ms: i64,
}

impl World {
    fn new(partitions: i32) -> World {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, partitions, 1).unwrap();
        let producer = config(&cluster).set("linger.ms", "0").create().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        World { producer, cluster, shelf: Shelf::default(), runtime, now_ms: MORNING }
    }

    /// Appends an event of `at` with a schema id, recorded when it happened.
    fn append(&self, partition: i32, id: u32, at: i64) {
        let mut value = Vec::new();
        put_frame(id, &mut value);
        let mut zigzag = ((at << 1) ^ (at >> 63)) as u64;
        while zigzag >= 0x80 {
            value.push(zigzag as u8 | 0x80);
            zigzag >>= 7;
        }
        value.push(zigzag as u8);
        self.send(BaseRecord::to(TOPIC).partition(partition).payload(value.as_slice()).timestamp(at));
    }

    fn send(&self, record: BaseRecord<'_, [u8], [u8]>) {
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }

    fn flush(&self) {
        self.producer.flush(Duration::from_secs(10)).unwrap();
    }

    /// A source of all partitions from their beginnings; `ends` as `--until-end` records them.
    fn source(&self, partitions: i32, ends: Option<i64>, align_within: Span) -> StreamSource {
        let reader = Arc::new(ReaderSchema::parse(SCHEMA).unwrap());
        let ms = Span::from_ms;
        let contract = Contract {
            source: "events".to_owned(),
            sensitive: Vec::new(),
            bounds: Bounds {
                disorder: ms(0),
                allowed_lateness: ms(0),
                future_limit: ms(HOUR),
                idle_after_ms: IDLE_AFTER_MS,
            },
            events: event_schema(&reader.columns),
            marked: None,
            recorded: None,
            event_time: 0,
            tenant: None,
            release: [None; 3],
            sender_headers: [const { None }; 4],
            rules: Vec::new(),
            plan: None,
            proofs: Vec::new(),
        };
        let plan = Plan {
            name: "events".to_owned(),
            wanted: vec![true; reader.columns.len()],
            codes: None,
            contract,
            reader,
            grace_ms: GRACE_MS,
            align_within,
            greatest: AtomicI64::new(i64::MIN),
            last_record_at_ms: AtomicI64::new(self.now_ms),
            told: EventTime::MIN,
            retries: None,
            paces: Paces::default(),
            joining: Joining::default(),
            precedents: None,
        };
        let resume = |number| Resume {
            topic: TOPIC.to_owned(),
            partition: Partition { topic: TopicId(0), number },
            offset: 0,
            log_begins_at: 0,
            watermark: EventTime::MIN,
            end: ends,
        };
        let assigned = |partition| Assigned { topic: TOPIC.to_owned(), partition, offset: 0 };
        let assigned: Vec<Assigned> = (0..partitions).map(assigned).collect();
        let fetcher = Fetcher::new(&consumer_config(&config(&self.cluster), "weir", 1 << 20), &assigned).unwrap();
        let schemas = SchemaCache::new(self.shelf.clone(), self.runtime.handle().clone());
        StreamSource::new(
            Arc::new(plan),
            schemas,
            Box::new(fetcher),
            (0..partitions).map(resume).collect(),
            self.now_ms,
        )
    }

    /// Polls, and lets the invented clock go on by `step_ms` each time, until `is_done`.
    #[track_caller]
    fn poll_until(
        &mut self,
        source: &mut StreamSource,
        step_ms: i64,
        seen: &mut Seen,
        mut is_done: impl FnMut(&StreamSource, &Seen) -> bool,
    ) {
        let began = Instant::now();
        while !is_done(source, seen) {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "it doesn't come to be: {seen:?}, {:?}",
                source.status()
            );
            self.poll(source, u64::MAX, seen);
            self.now_ms += step_ms;
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn poll(&mut self, source: &mut StreamSource, budget: u64, seen: &mut Seen) -> Polled {
        let polled = source.poll(Epoch(1), self.now_ms, budget, EventTime::MAX).unwrap();
        seen.take(&polled);
        polled
    }
}

fn config(cluster: &MockCluster<'static, DefaultProducerContext>) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.bootstrap_servers());
    config
}

/// What a source has said so far.
#[derive(Debug, Default)]
struct Seen {
    events: usize,
    consumed: u64,
    refused: Vec<u8>,
    bytes: u64,
    watermark: Option<EventTime>,
    is_idle: bool,
}

impl Seen {
    fn take(&mut self, polled: &Polled) {
        self.events += polled.events.iter().map(|batch| batch.num_rows()).sum::<usize>();
        for tallies in &polled.tallies {
            let fates = tallies.column(4).as_primitive::<UInt8Type>();
            let counts = tallies.column(5).as_primitive::<UInt64Type>();
            let consumed = fates.values().iter().zip(counts.values()).filter(|(fate, _)| **fate == CONSUMED);
            self.consumed += consumed.map(|(_, count)| count).sum::<u64>();
        }
        for refused in &polled.refused {
            let at = refused.schema().index_of("reason").unwrap();
            self.refused.extend(refused.column(at).as_primitive::<UInt8Type>().values());
        }
        self.bytes += polled.bytes;
        self.watermark = Some(polled.watermark);
        self.is_idle = polled.idle;
    }
}

#[test]
fn a_pause_makes_nothing_late() {
    let mut world = World::new(1);
    let mut source = world.source(1, None, Span::from_ms(HOUR));
    let mut seen = Seen::default();
    world.append(0, KNOWN, MORNING);
    world.flush();
    world.poll_until(&mut source, 50, &mut seen, |_, seen| seen.consumed == 1 && seen.is_idle);

    // What is in flight is too much for a whole hour: nobody may read, while events come.
    let told = seen.watermark.unwrap();
    let first = world.now_ms;
    for minute in 0..60 {
        world.now_ms = first + minute * 60_000;
        world.append(0, KNOWN, world.now_ms);
        let polled = world.poll(&mut source, 0, &mut seen);
        assert!(!polled.idle, "nobody looked whether it has something to say");
        assert_eq!(polled.watermark, told, "the watermark went on over records that wait");
    }
    world.flush();
    world.poll_until(&mut source, 1, &mut seen, |_, seen| seen.consumed == 61);
    assert!(seen.refused.is_empty(), "{} records were late for our own pause", seen.refused.len());
    assert_eq!(seen.events, 61);

    // And after it silence is silence as before.
    world.poll_until(&mut source, 50, &mut seen, |_, seen| seen.is_idle);
}

#[test]
fn a_process_that_slept_looks_again_before_it_takes_anybody_for_idle() {
    let mut world = World::new(1);
    let mut source = world.source(1, None, Span::from_ms(HOUR));
    let mut seen = Seen::default();
    world.append(0, KNOWN, MORNING);
    world.flush();
    world.poll_until(&mut source, 50, &mut seen, |_, seen| seen.consumed == 1 && seen.is_idle);
    let told = seen.watermark.unwrap();
    world.now_ms += HOUR;
    let polled = world.poll(&mut source, u64::MAX, &mut seen);
    assert!(!polled.idle && polled.watermark == told, "the clock carried the watermark over the sleep");
}

#[test]
fn a_broker_that_is_away_makes_its_partition_not_idle() {
    let mut world = World::new(1);
    let mut source = world.source(1, None, Span::from_ms(HOUR));
    let mut seen = Seen::default();
    world.append(0, KNOWN, MORNING);
    world.flush();
    world.poll_until(&mut source, 50, &mut seen, |_, seen| seen.consumed == 1 && seen.is_idle);
    world.cluster.broker_down(1).unwrap();
    world.poll_until(&mut source, 0, &mut seen, |source, _| {
        let status = &source.status()[0];
        status.state == "waiting" && status.detail.contains("doesn't answer")
    });
    let told = seen.watermark.unwrap();
    for _ in 0..60 {
        world.now_ms += 1_000;
        let polled = world.poll(&mut source, u64::MAX, &mut seen);
        assert!(!polled.idle && polled.watermark == told, "what comes there is late when the broker is back");
    }
    world.cluster.broker_up(1).unwrap();
    world.append(0, KNOWN, world.now_ms - 30_000);
    world.flush();
    world.poll_until(&mut source, 0, &mut seen, |_, seen| seen.consumed == 2);
    assert!(seen.refused.is_empty());
    world.poll_until(&mut source, 50, &mut seen, |_, seen| seen.is_idle);
}

#[test]
fn a_run_to_the_end_takes_nothing_behind_the_ends_that_it_noted() {
    let mut world = World::new(2);
    (0..3).for_each(|at| world.append(0, KNOWN, MORNING + at));
    (0..900).for_each(|at| world.append(1, KNOWN, MORNING + at));
    world.flush();
    // Both ended at 2 when the run began; more has come since.
    let mut source = world.source(2, Some(2), Span::from_ms(HOUR));
    let mut seen = Seen::default();
    world.poll_until(&mut source, 1, &mut seen, |source, _| source.at_end());
    for _ in 0..50 {
        world.poll(&mut source, u64::MAX, &mut seen);
        world.now_ms += IDLE_AFTER_MS;
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(seen.consumed, 4);
    let positions: Vec<i64> = source.positions().iter().map(|of| of.next_offset).collect();
    assert_eq!(positions, [2, 2], "a later run goes on from there");
    assert!(seen.watermark < Some(EventTime::from_ms(MORNING + 2)), "what waits behind the end would be late");
}

#[test]
fn ids_that_nobody_registered_hold_a_partition_up_for_one_grace_period_and_not_for_one_each() {
    let mut world = World::new(1);
    const MADE_UP: u32 = 200;
    (0..MADE_UP).for_each(|number| world.append(0, 1_000 + number, MORNING + i64::from(number)));
    world.append(0, KNOWN, MORNING + HOUR / 2);
    world.flush();
    let mut source = world.source(1, None, Span::from_ms(HOUR));
    let mut seen = Seen::default();
    world.poll_until(&mut source, 1, &mut seen, |source, _| source.status()[0].state == "parked");
    let parked_at = world.now_ms;
    // The ids behind the first are asked for while it is waited for.
    let asked = world.shelf.asked.clone();
    world.poll_until(&mut source, 10, &mut seen, |_, _| asked.lock().unwrap().len() >= 150);
    assert_eq!(seen.consumed, 0, "its grace period isn't over");
    world.poll_until(&mut source, 20, &mut seen, |_, seen| seen.consumed == u64::from(MADE_UP) + 1);
    let waited = world.now_ms - parked_at;
    assert!(waited < 3 * GRACE_MS as i64, "{MADE_UP} made-up ids held the partition up for {waited} ms");
    assert!(waited >= GRACE_MS as i64, "the first had no grace period: {waited} ms");
    assert_eq!(seen.refused.len(), MADE_UP as usize);
    assert!(seen.refused.iter().all(|reason| *reason == Reason::UnknownSchema as u8));
    assert_eq!(seen.events, 1);
}

#[test]
fn while_one_partition_waits_before_its_first_word_the_others_stay_within_reach() {
    let mut world = World::new(2);
    world.append(0, 7, MORNING);
    world.flush();
    let mut source = world.source(2, None, Span::from_ms(HOUR));
    let mut seen = Seen::default();
    world.poll_until(&mut source, 1, &mut seen, |source, _| source.status()[0].state == "parked");
    // Six hours of the other partition, an event a minute.
    (0..360).for_each(|minute| world.append(1, KNOWN, MORNING + minute * 60_000));
    world.flush();
    let limit = EventTime::from_ms(MORNING + HOUR);
    for _ in 0..200 {
        // Small budgets, as a real poll has: a partition stops between two of them.
        world.poll(&mut source, 200, &mut seen);
        std::thread::sleep(Duration::from_millis(2));
    }
    let ahead = source.positions().into_iter().find(|of| of.partition == 1).unwrap();
    assert!(ahead.watermark > EventTime::from_ms(MORNING), "it flows");
    assert!(ahead.watermark <= limit.plus(Span::from_ms(HOUR / 3)), "{:?} is out of reach", ahead.watermark);
    let status = source.status();
    assert_eq!(status.iter().map(|of| of.state.as_str()).collect::<Vec<_>>(), ["parked", "waiting"], "{status:?}");
}

#[test]
fn headers_count_among_the_bytes_in_flight() {
    let mut world = World::new(1);
    let header = vec![b'x'; 10_000];
    let headers = OwnedHeaders::new().insert(Header { key: "trace", value: Some(&header) });
    world.send(BaseRecord::to(TOPIC).partition(0).payload(&b"no frame"[..]).headers(headers));
    world.flush();
    let mut source = world.source(1, None, Span::from_ms(HOUR));
    let mut seen = Seen::default();
    world.poll_until(&mut source, 1, &mut seen, |_, seen| seen.consumed == 1);
    assert_eq!(seen.bytes, 10_000 + 5 + 8, "value, header and its name");
}
