//! The invented world: a log that is a function of its seed, copies included; a source that reads it; the production
//! graph behind it with deduplication, a view, the ledger and two operators of a team's own; destinations that append to
//! files; and an oracle that shares no code with any of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt16Type, UInt64Type};
use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch, UInt8Array, UInt16Array, UInt32Array, UInt64Array};
use arrow_array::{BinaryArray, TimestampMicrosecondArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use weir_operators::account::LEDGER;
use weir_operators::deduplicate::Deduplication;
use weir_operators::detect::SenderColumns;
use weir_operators::error::Error as OperatorError;
use weir_operators::maintain::{CLOSING_BYTES, Keeping, PROVISIONAL_BYTES};
use weir_operators::operator::{Context, Operator};
use weir_operators::state::{ByteTable, StateRegistry, StoreOptions};
use weir_operators::view::ViewPlan;
use weir_operators::window::Windows;
use weir_pipeline::custom::CustomOperator;
use weir_pipeline::dataflow::SourceGraph;
use weir_pipeline::deliver::{AWAY_FOR, LaneKind};
use weir_pipeline::engine::{Destination, OpenSource, Plan, Prepared, Resume, SourcePlan};
use weir_pipeline::error::Error;
use weir_pipeline::lineage::PipelineVersion;
use weir_pipeline::progress::Watched;
use weir_pipeline::recovery::{Fingerprint, Part};
use weir_pipeline::source::{PartitionPosition, PartitionStatus, Polled, Source};
use weir_pipeline::sql::{self, SourceColumns};
use weir_schemas::rows::{Changes, Table, TableKind};
use weir_schemas::stage::{CONSUMED, Column, event_schema, system, tally_schema};
use weir_schemas::time::{Epoch, EventTime, Span, Version};
use weir_schemas::types::{ColumnType, Width as IntWidth};
use weir_sinks::{BoxFuture, Deliver, Delivery, DeliveryError, Encode, OutRow};

pub(crate) const MINUTE: i64 = 60_000_000;
/// How far the invented events are out of order.
const DISORDER: i64 = 5_000_000;
/// What a record counts against a budget.
const RECORD_BYTES: u64 = 100;

/// One invented event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) id: u64,
    pub(crate) key: u64,
    pub(crate) at: i64,
    pub(crate) value: u64,
}

/// Small numbers without an end, the same for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// The log: `partitions` of about `records` each, over about twenty windows. A few events come twice, at once or on
/// another partition.
pub(crate) fn log(seed: u64, partitions: usize, records: usize) -> Vec<Vec<Event>> {
    let mut random = Random(seed);
    let mut log = vec![Vec::new(); partitions];
    for n in 0..records {
        for at in 0..partitions {
            let on_time = n as i64 * 20 * MINUTE / records as i64 + MINUTE;
            let event = Event {
                id: (n * partitions + at) as u64,
                key: random.below(50),
                at: on_time - random.below(DISORDER as u64 / 2) as i64,
                value: random.below(1_000),
            };
            log[at].push(event);
            if random.below(30) == 0 {
                log[random.below(partitions as u64) as usize].push(event);
            }
        }
    }
    log
}

/// The oracle: count and sum by key and window over each id once, in one pass over the log.
pub(crate) fn expected(log: &[Vec<Event>]) -> BTreeMap<(u64, i64), (u64, u64)> {
    let mut totals = BTreeMap::new();
    let by_id: BTreeMap<u64, Event> = log.iter().flatten().map(|event| (event.id, *event)).collect();
    for event in by_id.values() {
        let total: &mut (u64, u64) = totals.entry((event.key, event.at / MINUTE * MINUTE)).or_default();
        total.0 += 1;
        total.1 += event.value;
    }
    totals
}

struct InventedPartition {
    number: i32,
    next: usize,
    watermark: EventTime,
    events: Vec<Event>,
}

/// A worker's share of the log.
pub(crate) struct InventedSource {
    partitions: Vec<InventedPartition>,
    until_end: bool,
    records_per_poll: u64,
    pause: Duration,
}

impl InventedSource {
    fn watermark(&self) -> EventTime {
        self.partitions.iter().map(|partition| partition.watermark).min().unwrap_or(EventTime::MIN)
    }

    fn is_dry(&self) -> bool {
        self.partitions.iter().all(|partition| partition.next == partition.events.len())
    }
}

impl Source for InventedSource {
    fn poll(&mut self, _epoch: Epoch, _now_ms: i64, budget_bytes: u64, others: EventTime) -> Result<Polled, Error> {
        if self.partitions.is_empty() {
            let followed = if others == EventTime::MAX { EventTime::MIN } else { others };
            return Ok(Polled::nothing(followed, true));
        }
        let is_dry = self.is_dry();
        let mut polled = Polled::nothing(self.watermark(), is_dry && !self.until_end);
        let most = budget_bytes.div_ceil(RECORD_BYTES).min(self.records_per_poll) as usize;
        // The partition furthest behind goes first, as the real source has it.
        let behind = self.partitions.iter_mut().filter(|of| of.next < of.events.len()).min_by_key(|of| of.watermark);
        if let Some(partition) = behind.filter(|_| most > 0) {
            let to = (partition.next + most).min(partition.events.len());
            let taken = &partition.events[partition.next..to];
            polled.events.push(batch_of(partition.number, partition.next as i64, taken));
            polled.tallies.push(tallies_of(partition.number, taken));
            polled.bytes = taken.len() as u64 * RECORD_BYTES;
            let greatest = taken.iter().map(|event| event.at).max().unwrap_or(i64::MIN);
            partition.watermark = partition.watermark.max(EventTime(greatest - DISORDER));
            partition.next = to;
            if !self.pause.is_zero() {
                std::thread::sleep(self.pause);
            }
        }
        polled.watermark = self.watermark();
        Ok(polled)
    }

    fn positions(&self) -> Vec<PartitionPosition> {
        let position = |of: &InventedPartition| PartitionPosition {
            topic: "orders".to_owned(),
            partition: of.number,
            next_offset: of.next as i64,
            watermark: of.watermark,
        };
        self.partitions.iter().map(position).collect()
    }

    fn at_end(&self) -> bool {
        self.until_end && self.is_dry()
    }

    fn status(&self) -> Vec<PartitionStatus> {
        let status = |of: &InventedPartition| PartitionStatus {
            topic: "orders".to_owned(),
            partition: of.number,
            next_offset: of.next as i64,
            end_offset: of.events.len() as i64,
            watermark: of.watermark,
            state: "reading".to_owned(),
            detail: String::new(),
        };
        self.partitions.iter().map(status).collect()
    }
}

/// The columns of the invented events, behind the system columns.
pub(crate) fn columns() -> Vec<Column> {
    let number = || ColumnType::UInt(IntWidth::W64);
    let time = ColumnType::DateTime64(6, Some("UTC".into()));
    vec![
        Column::new("occurred_at", time),
        Column::new("id", number()),
        Column::new("key", number()),
        Column::new("value", number()),
    ]
}

/// Indices of the invented columns.
const ID: usize = system::COUNT + 1;
const KEY: usize = system::COUNT + 2;
const VALUE: usize = system::COUNT + 3;
const GROUP: usize = system::COUNT + 4;

/// The view that the production graph keeps.
const VIEW: &str = "SELECT toStartOfInterval(occurred_at, INTERVAL 1 MINUTE) AS window_start, key, count() AS events, \
                    sum(value) AS total FROM events GROUP BY window_start, key";

fn view() -> ViewPlan {
    let columns = SourceColumns { columns: columns(), event_time: "occurred_at".to_owned() };
    sql::plan("per_minute", VIEW, "per_minute.sql", &[("events".to_owned(), columns)].into()).expect("a plan")
}

fn batch_of(partition: i32, offset: i64, events: &[Event]) -> RecordBatch {
    let rows = events.len();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt16Array::from(vec![0; rows])),
        Arc::new(Int32Array::from(vec![partition; rows])),
        Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|row| offset + row))),
        Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.at / 1000))),
        Arc::new(UInt32Array::from(vec![1; rows])),
        Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.at))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(events.iter().map(|event| event.at))),
        Arc::new(UInt64Array::from_iter_values(events.iter().map(|event| event.id))),
        Arc::new(UInt64Array::from_iter_values(events.iter().map(|event| event.key))),
        Arc::new(UInt64Array::from_iter_values(events.iter().map(|event| event.value))),
    ];
    RecordBatch::try_new(event_schema(&self::columns()), columns).expect("events")
}

/// What the source counts at fetch; the fates are counted by the operators behind it.
fn tallies_of(partition: i32, events: &[Event]) -> RecordBatch {
    let mut minutes: BTreeMap<i64, u64> = BTreeMap::new();
    for event in events {
        *minutes.entry(event.at / MINUTE * 60).or_default() += 1;
    }
    let rows = minutes.len();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt16Array::from(vec![0; rows])),
        Arc::new(Int32Array::from(vec![partition; rows])),
        Arc::new(BinaryArray::from_iter_values(std::iter::repeat_n(b"", rows))),
        Arc::new(Int64Array::from_iter_values(minutes.keys().copied())),
        Arc::new(UInt8Array::from(vec![CONSUMED; rows])),
        Arc::new(UInt64Array::from_iter_values(minutes.values().copied())),
    ];
    RecordBatch::try_new(tally_schema(), columns).expect("tallies")
}

/// Counts and sums by key and window; keeps both in its table, writes changed rows at each epoch's end.
struct Totals {
    table: ByteTable,
    changed: BTreeMap<(u64, i64), (u16, u64, u64)>,
    trouble: Arc<Trouble>,
}

/// What a test makes go wrong.
#[derive(Default)]
pub(crate) struct Trouble {
    /// The operator sleeps this many milliseconds per batch.
    pub(crate) slow_batch_ms: AtomicU64,
    /// The operator fails once it has seen this many batches; 0 for never.
    pub(crate) fail_after_batches: AtomicU64,
    /// Destinations refuse everything, for now.
    pub(crate) refuse: AtomicBool,
    /// The destinations' server loses what it has and is away for a while.
    pub(crate) loss: Mutex<Loss>,
    /// The most bytes that were ever in flight, as a test saw them.
    pub(crate) batches: AtomicU64,
}

impl Totals {
    fn stored(&self, group: u16, key: &[u8]) -> Result<(u64, u64), OperatorError> {
        let stored = self.table.get(group, key)?;
        let bytes = stored.as_ref().and_then(|stored| stored.whole());
        Ok(bytes.map_or((0, 0), |bytes| {
            let number = |from: usize| u64::from_be_bytes(bytes[from..from + 8].try_into().expect("eight bytes"));
            (number(0), number(8))
        }))
    }
}

/// When the server of all destinations loses everything that it has acknowledged, and what became of it.
#[derive(Default)]
pub(crate) struct Loss {
    /// When; without it never.
    pub(crate) when: Option<LossAt>,
    /// When it happened, and how many bytes were lost.
    pub(crate) happened: Option<(Instant, u64)>,
    deliveries: u64,
}

/// When a server loses everything.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LossAt {
    /// With this delivery.
    Delivery(u64),
    /// With a delivery of totals after this many rows of places; totals are refused until then.
    Places(usize),
}

impl Loss {
    /// Whether a delivery to `table` is refused. All deliveries ask one after the other, so none is under way when
    /// everything is lost.
    fn refuses(&mut self, table: &str, file: &Path) -> bool {
        let Some(when) = self.when else { return false };
        if let Some((at, _)) = self.happened {
            // Whoever was refused first began before: it has been away for as long when it is taken.
            return at.elapsed() < AWAY_FOR;
        }
        // Only tables are sent again, so one of them has to find the server away.
        if table == weir_schemas::tables::PROGRESS {
            return false;
        }
        self.deliveries += 1;
        let is_now = match when {
            LossAt::Delivery(number) => self.deliveries >= number,
            LossAt::Places(_) if table != "totals" => return false,
            LossAt::Places(rows) => {
                let text = std::fs::read_to_string(file).unwrap_or_default();
                text.lines().filter(|line| line.starts_with("places ")).count() >= rows
            }
        };
        if is_now {
            let lost = std::fs::metadata(file).map_or(0, |file| file.len());
            std::fs::write(file, "").expect("lost");
            self.happened = Some((Instant::now(), lost));
        }
        is_now || table == "totals" && matches!(when, LossAt::Places(_))
    }
}

fn state_key(key: u64, window: i64) -> Vec<u8> {
    [key.to_be_bytes(), window.to_be_bytes()].concat()
}

impl Operator for Totals {
    fn on_batch(&mut self, batch: RecordBatch, _cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let seen = self.trouble.batches.fetch_add(1, Ordering::AcqRel) + 1;
        let fail_after = self.trouble.fail_after_batches.load(Ordering::Acquire);
        if fail_after > 0 && seen > fail_after {
            return Err(OperatorError::Custom { operator: "totals".to_owned(), detail: "asked to fail".to_owned() });
        }
        let slow_ms = self.trouble.slow_batch_ms.load(Ordering::Acquire);
        if slow_ms > 0 {
            std::thread::sleep(Duration::from_millis(slow_ms));
        }
        let at = batch.column(system::EVENT_TIME).as_primitive::<Int64Type>();
        let key = batch.column(KEY).as_primitive::<UInt64Type>();
        let value = batch.column(VALUE).as_primitive::<UInt64Type>();
        let group = batch.column(GROUP).as_primitive::<UInt16Type>();
        for row in 0..batch.num_rows() {
            let window = at.value(row) / MINUTE * MINUTE;
            let of = (key.value(row), window);
            if !self.changed.contains_key(&of) {
                let (count, sum) = self.stored(group.value(row), &state_key(of.0, of.1))?;
                self.changed.insert(of, (group.value(row), count, sum));
            }
            let total = self.changed.get_mut(&of).expect("just put there");
            total.1 += 1;
            total.2 += value.value(row);
        }
        Ok(())
    }

    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let changed = std::mem::take(&mut self.changed);
        for ((key, window), (group, count, sum)) in &changed {
            let value = [count.to_be_bytes(), sum.to_be_bytes()].concat();
            self.table.put(*group, &state_key(*key, *window), &value)?;
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt64Array::from_iter_values(changed.keys().map(|of| of.0))),
            Arc::new(Int64Array::from_iter_values(changed.keys().map(|of| of.1))),
            Arc::new(UInt64Array::from_iter_values(changed.values().map(|total| total.1))),
            Arc::new(UInt64Array::from_iter_values(changed.values().map(|total| total.2))),
        ];
        let rows = RecordBatch::try_new(totals_schema(), columns)?;
        cx.write(Changes { table: Arc::from("totals"), rows, deleted: None });
        Ok(())
    }

    fn outputs(&self) -> usize {
        0
    }
}

fn totals_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::UInt64, false),
        Field::new("window", DataType::Int64, false),
        Field::new("count", DataType::UInt64, false),
        Field::new("sum", DataType::UInt64, false),
    ]))
}

/// Writes every event as a row whose key is its place.
struct Places;

impl Operator for Places {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let rows = batch.project(&[system::PARTITION, system::OFFSET, ID])?;
        cx.write(Changes { table: Arc::from("places"), rows, deleted: None });
        Ok(())
    }

    fn end_of_epoch(&mut self, _cx: &mut Context<'_>) -> Result<(), OperatorError> {
        Ok(())
    }
}

/// Rows as lines of text: `table epoch columns...`; the first `key_columns` are the key.
struct TextEncode {
    table: &'static str,
    key_columns: usize,
    newest_only: bool,
}

impl Encode for TextEncode {
    fn encode(&self, changes: &Changes, version: Version, out: &mut Vec<OutRow>) -> Result<(), weir_sinks::Error> {
        for row in 0..changes.rows.num_rows() {
            let cells: Vec<String> = changes.rows.columns().iter().map(|column| cell(column, row)).collect();
            let payload = format!("{} {} {}\n", self.table, version.0, cells.join(" "));
            let key = cells[..self.key_columns].join(" ").into_bytes();
            out.push(OutRow { key, payload: payload.into_bytes(), rows: 1 });
        }
        Ok(())
    }

    fn newest_only(&self) -> bool {
        self.newest_only
    }
}

fn cell(column: &ArrayRef, row: usize) -> String {
    use arrow_array::types::{Int32Type, TimestampMicrosecondType, TimestampSecondType, UInt32Type};
    match column.data_type() {
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).to_string(),
        DataType::Timestamp(TimeUnit::Second, _) => column.as_primitive::<TimestampSecondType>().value(row).to_string(),
        DataType::Timestamp(..) => column.as_primitive::<TimestampMicrosecondType>().value(row).to_string(),
        DataType::Binary => format!("'{}'", String::from_utf8_lossy(column.as_binary::<i32>().value(row))),
        other => panic!("a column of {other}"),
    }
}

/// Appends rows to a file that all destinations share, so that their order can be checked; survives the process.
struct FileSink {
    table: &'static str,
    path: PathBuf,
    trouble: Arc<Trouble>,
    random: Random,
    /// One delivery in this many fails after half of it arrived; 0 for none.
    fails_one_in: u64,
}

impl Deliver for FileSink {
    fn deliver<'a>(&'a mut self, delivery: Delivery<'a>) -> BoxFuture<'a, Result<(), DeliveryError>> {
        Box::pin(async move {
            if self.trouble.refuse.load(Ordering::Acquire) {
                return Err(DeliveryError::Retriable { why: "refusing, as the test asked".to_owned() });
            }
            let mut loss = self.trouble.loss.lock().unwrap_or_else(PoisonError::into_inner);
            if loss.refuses(self.table, &self.path) {
                return Err(DeliveryError::Retriable { why: "away, as the test asked".to_owned() });
            }
            let fails = self.fails_one_in > 0 && self.random.below(self.fails_one_in) == 0;
            let taken = if fails { delivery.rows.len() / 2 } else { delivery.rows.len() };
            let bytes: Vec<u8> = delivery.rows[..taken].iter().flat_map(|row| row.payload.clone()).collect();
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.path).expect("the file");
            file.write_all(&bytes).expect("written");
            if fails {
                return Err(DeliveryError::Retriable { why: "half of it arrived".to_owned() });
            }
            Ok(())
        })
    }
}

/// A world to run in.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) folder: PathBuf,
    pub(crate) log: Arc<Vec<Vec<Event>>>,
    pub(crate) workers: usize,
    pub(crate) until_end: bool,
    pub(crate) epoch: Duration,
    pub(crate) in_flight_bytes: u64,
    pub(crate) outbox_bytes: u64,
    pub(crate) records_per_poll: u64,
    /// The source sleeps this long after a poll that brought something.
    pub(crate) pause: Duration,
    pub(crate) fails_one_in: u64,
    pub(crate) http: Option<String>,
    pub(crate) trouble: Arc<Trouble>,
    pub(crate) query: &'static str,
    /// How the view is kept.
    pub(crate) provisional: bool,
    pub(crate) closing_bytes: usize,
}

impl World {
    pub(crate) fn new(folder: &Path, log: Vec<Vec<Event>>, workers: usize) -> World {
        World {
            folder: folder.to_owned(),
            log: Arc::new(log),
            workers,
            until_end: true,
            epoch: Duration::from_millis(5),
            in_flight_bytes: 1 << 20,
            outbox_bytes: 1 << 20,
            records_per_poll: 50,
            pause: Duration::ZERO,
            fails_one_in: 0,
            http: None,
            trouble: Arc::default(),
            query: "SELECT 1",
            provisional: true,
            closing_bytes: CLOSING_BYTES,
        }
    }

    pub(crate) fn delivered_file(&self) -> PathBuf {
        self.folder.join("delivered")
    }

    /// The pipeline of this world.
    pub(crate) fn plan(&self) -> Plan {
        let part = |fact: &str, value: &str, loses_by_absence| Part {
            facts: [(fact.to_owned(), value.to_owned())].into(),
            loses_by_absence,
            ..Part::default()
        };
        let fingerprint = Fingerprint {
            pipeline: "invented".to_owned(),
            parts: [
                ("source events".to_owned(), part("column key", "UInt64", false)),
                ("view totals".to_owned(), part("query", self.query, true)),
            ]
            .into(),
        };
        Plan {
            samples: Default::default(),
            emission: None,
            archiving: None,
            name: "invented".to_owned(),
            state: self.folder.join("state"),
            store: StoreOptions { cache_bytes: 8 << 20, write_buffer_bytes: 4 << 20 },
            workers: self.workers,
            epoch: self.epoch,
            in_flight_bytes: self.in_flight_bytes,
            outbox_bytes: self.outbox_bytes,
            http: self.http.clone(),
            console: None,
            fingerprint,
            version: PipelineVersion::default(),
            sources: vec![self.source()],
            destinations: vec![
                self.destination("totals", 2, true, LaneKind::Table),
                self.destination("places", 2, false, LaneKind::Table),
                self.destination("per_minute", 2, true, LaneKind::Table),
                self.destination(LEDGER, 5, true, LaneKind::Table),
                self.destination(weir_schemas::tables::PROGRESS, 1, true, LaneKind::Progress),
            ],
            watched: vec![Watched {
                view: "per_minute".to_owned(),
                source: 0,
                windows: Windows::new(&view().window).expect("windows"),
                allowed_lateness: Span(0),
            }],
        }
    }

    fn source(&self) -> SourcePlan {
        let world = self.clone();
        let (provisional, closing_bytes) = (self.provisional, self.closing_bytes);
        let trouble = self.trouble.clone();
        let totals = CustomOperator {
            key: vec!["key".to_owned()],
            tables: vec![table("totals")],
            build: Arc::new(move |registry: &mut StateRegistry| {
                let (table, trouble) = (registry.table(0)?, trouble.clone());
                Ok(Box::new(Totals { table, changed: BTreeMap::new(), trouble }))
            }),
        };
        let places = CustomOperator {
            key: Vec::new(),
            tables: vec![table("places")],
            build: Arc::new(|_: &mut StateRegistry| Ok(Box::new(Places))),
        };
        SourcePlan {
            name: "events".to_owned(),
            topics: vec!["orders".to_owned()],
            retry_topic: None,
            prepare: Box::new(move |resume: Resume| {
                let open: OpenSource =
                    Arc::new(move |worker, peers| Ok(Box::new(world.share(&resume, worker, peers)) as Box<dyn Source>));
                Ok(Prepared { open, attend: None })
            }),
            graph: Box::new(move |topics| SourceGraph {
                name: "events".to_owned(),
                schema: event_schema(&columns()),
                topics,
                retry_topic: None,
                tenant: None,
                id: None,
                lateness: Span(0),
                within: None,
                deduplicate: Some((
                    ID,
                    Deduplication {
                        tenant: None,
                        allowed_lateness: Span(0),
                        horizon: Span(0),
                        retained: Span(0),
                        memory_bytes: 0,
                    },
                )),
                keep_events: None,
                sender: SenderColumns::default(),
                rules: Vec::new(),
                views: vec![(
                    Arc::new(view()),
                    Keeping {
                        provisional,
                        allowed_lateness: Span(0),
                        retained: Span(0),
                        memory_bytes: 0,
                        closing_bytes,
                        provisional_bytes: PROVISIONAL_BYTES,
                    },
                )],
                detect: None,
                judge: None,
                custom: vec![("totals".to_owned(), totals), ("places".to_owned(), places)],
            }),
        }
    }

    fn share(&self, resume: &Resume, worker: usize, peers: usize) -> InventedSource {
        let partitions = self.log.iter().enumerate().filter(|(number, _)| number % peers == worker);
        let partitions = partitions.map(|(number, events)| {
            let position = resume.positions.get(&("orders".to_owned(), number as i32));
            InventedPartition {
                number: number as i32,
                next: position.map_or(0, |position| position.next_offset as usize),
                watermark: position.map_or(EventTime::MIN, |position| position.watermark),
                events: events.clone(),
            }
        });
        InventedSource {
            partitions: partitions.collect(),
            until_end: self.until_end,
            records_per_poll: self.records_per_poll,
            pause: self.pause,
        }
    }

    fn destination(&self, table: &'static str, key_columns: usize, newest_only: bool, kind: LaneKind) -> Destination {
        Destination {
            name: table.to_owned(),
            tables: vec![Arc::from(table)],
            encode: Arc::new(TextEncode { table, key_columns, newest_only }),
            sink: Box::new(FileSink {
                table,
                path: self.delivered_file(),
                trouble: self.trouble.clone(),
                random: Random(key_columns as u64),
                fails_one_in: self.fails_one_in,
            }),
            every: Duration::from_millis(10),
            kind,
        }
    }

    /// Checks everything that the destinations were told, in the order in which they were told.
    pub(crate) fn check_delivered(&self) {
        let delivered = Delivered::read(&self.delivered_file());
        let expected = expected(&self.log);
        assert_eq!(delivered.totals, expected, "the totals");
        assert_eq!(delivered.per_minute, expected, "the view");
        let ids: BTreeSet<u64> = self.log.iter().flatten().map(|event| event.id).collect();
        let accepted: BTreeSet<u64> = delivered.places.values().map(|(_, id)| *id).collect();
        assert_eq!(accepted, ids, "every event was accepted");
        assert_eq!(delivered.places.len(), ids.len(), "and none of them twice");
        let records: usize = self.log.iter().map(Vec::len).sum();
        let [consumed, accepted, duplicate] = delivered.ledger();
        assert_eq!((consumed, accepted), (records as u64, ids.len() as u64), "the ledger");
        assert_eq!(duplicate, consumed - accepted, "the ledger balances");
        if self.until_end {
            let last = delivered.complete_through.last().expect("progress was told");
            assert!(*last > 1_000 * MINUTE, "every window is closed in the end, but: {last}");
        }
        delivered.check_completeness(&self.log);
    }
}

fn table(name: &str) -> Table {
    let number = || ColumnType::UInt(IntWidth::W64);
    Table {
        name: Arc::from(name),
        comment: String::new(),
        columns: vec![Column::new("a", number()), Column::new("b", number())],
        key_columns: 2,
        partition_by: None,
        kind: TableKind::Keyed,
        retention_days: None,
    }
}

/// What the destinations hold, as a `ReplacingMergeTree` would show it.
#[derive(Default)]
pub(crate) struct Delivered {
    pub(crate) totals: Totalled,
    pub(crate) per_minute: Totalled,
    /// By place: the epoch and the id.
    pub(crate) places: BTreeMap<(i32, i64), (u64, u64)>,
    pub(crate) complete_through: Vec<i64>,
    /// For each telling of completeness, the view as readers saw it then.
    seen: Vec<(i64, Totalled)>,
    /// Rows of the ledger by their keys: consumed, accepted, duplicate.
    ledger: BTreeMap<Vec<String>, [u64; 3]>,
    versions: BTreeMap<Vec<String>, u64>,
}

/// Count and sum by key and window.
type Totalled = BTreeMap<(u64, i64), (u64, u64)>;

impl Delivered {
    pub(crate) fn read(path: &Path) -> Delivered {
        let mut delivered = Delivered::default();
        for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
            delivered.take(line);
        }
        delivered
    }

    fn take(&mut self, line: &str) {
        let cells: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| cells[at].parse::<i64>().unwrap_or_else(|_| panic!("{line}"));
        let (count, version) = (|at: usize| number(at) as u64, number(1) as u64);
        let key_columns = if cells[0] == LEDGER { 5 } else { 2 };
        let key: Vec<String> = cells[..2 + key_columns]
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != 1)
            .map(|(_, cell)| (*cell).to_owned())
            .collect();
        // An older version may arrive again, after a crash; the newest counts.
        let newest = self.versions.entry(key.clone()).or_default();
        let is_newest = version >= *newest;
        *newest = version.max(*newest);
        match cells[0] {
            "totals" if is_newest => {
                self.totals.insert((count(2), number(3)), (count(4), count(5)));
            }
            "per_minute" if is_newest => {
                self.per_minute.insert((count(3), number(2) * 1_000_000), (count(4), count(5)));
            }
            "places" => {
                let at = self.places.entry((number(2) as i32, number(3))).or_insert((version, count(4)));
                assert_eq!(*at, (version, count(4)), "a place was written in two epochs: {line}");
            }
            LEDGER if is_newest => {
                // Consumed, then the fates in their order: accepted, quarantined, duplicate.
                self.ledger.insert(key, [count(7), count(8), count(10)]);
            }
            weir_schemas::tables::PROGRESS => {
                self.complete_through.push(number(3));
                self.seen.push((number(3), self.per_minute.clone()));
            }
            _ => {}
        }
    }

    fn ledger(&self) -> [u64; 3] {
        self.ledger.values().fold([0; 3], |sum, row| std::array::from_fn(|at| sum[at] + row[at]))
    }

    /// Whenever completeness was told, every window before it was already what it stayed.
    pub(crate) fn check_completeness(&self, log: &[Vec<Event>]) {
        let expected = expected(log);
        for (at, (through, seen)) in self.seen.iter().enumerate() {
            // The end of a run closes what there is of the log; another one that goes on corrects it.
            if *through > 1_000 * MINUTE && at + 1 < self.seen.len() {
                continue;
            }
            let closed = |totals: &Totalled| -> Vec<_> {
                totals.iter().filter(|((_, window), _)| window + MINUTE <= *through).map(|(k, v)| (*k, *v)).collect()
            };
            assert_eq!(closed(seen), closed(&expected), "complete through {through}, but it was not");
        }
    }
}
