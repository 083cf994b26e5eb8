//! What `weir produce` sends is what the file says, read back from a real Kafka with the schema of a real registry.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::time::{Duration, Instant};

use apache_avro::types::Value;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::{Offset, TopicPartitionList};
use weir_replay::parts::{Parts, shared, unique};
use weir_replay::produce::faults::Faults;
use weir_replay::produce::files::{CsvRows, FileInput, JsonRows};
use weir_replay::produce::rows::Rows;
use weir_replay::produce::storefront::{Storefront, StorefrontRows, Wrong};
use weir_replay::produce::{Job, ProduceError, Progress, RETAIL_SCHEMA, Target, produce};
use weir_schemas::registry::{Lookup, Registry, Settings};

const PARTITIONS: i32 = 3;

fn job(parts: &Parts, topic: &str, rows: impl Rows + Send + 'static) -> Job {
    let kafka = BTreeMap::from([("bootstrap.servers".to_owned(), parts.kafka())]);
    let target = Target { kafka, topic: topic.to_owned(), partitions: Some(PARTITIONS), event_timestamps: true };
    let registry = Registry::new(Settings::new(parts.registry())).expect("a client");
    Job { rows: Box::new(rows), target, registry, subject: None, rate: None, limit: None, faults: Faults::default() }
}

/// Everything in the topic, in order within its partitions.
fn read_all(parts: &Parts, topic: &str) -> Vec<OwnedMessage> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", parts.kafka()).set("group.id", topic).set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let (mut assignment, mut missing) = (TopicPartitionList::new(), 0);
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("added");
        missing += consumer.fetch_watermarks(topic, partition, Duration::from_secs(30)).expect("offsets").1;
    }
    consumer.assign(&assignment).expect("assigned");
    let (mut all, until) = (Vec::new(), Instant::now() + Duration::from_secs(60));
    while all.len() < usize::try_from(missing).expect("a number") {
        assert!(Instant::now() < until, "{} of {missing} records came", all.len());
        if let Some(message) = consumer.poll(Duration::from_millis(200)) {
            all.push(message.expect("a message").detach());
        }
    }
    all
}

async fn decoder(parts: &Parts, topic: &str) -> impl Fn(&OwnedMessage) -> HashMap<String, Value> {
    let registry = Registry::new(Settings::new(parts.registry())).expect("a client");
    let Lookup::Found(schema) = registry.latest(&format!("{topic}-value")).await else { panic!("no schema") };
    let parsed = apache_avro::Schema::parse_str(&schema.text).expect("a schema");
    move |message| {
        let payload = message.payload().expect("a payload");
        assert_eq!(payload[..5], [&[0], schema.id.to_be_bytes().as_slice()].concat());
        let mut datum = &payload[5..];
        let reader = apache_avro::reader::datum::GenericDatumReader::builder(&parsed).build().expect("a reader");
        let Value::Record(fields) = reader.read_value(&mut datum).expect("a record") else { panic!("a record") };
        assert!(datum.is_empty());
        fields.into_iter().collect()
    }
}

fn csv(rows: usize) -> (tempfile::NamedTempFile, Vec<(String, i64)>) {
    let file = tempfile::Builder::new().suffix(".csv.gz").tempfile().expect("a file");
    let mut gzip = flate2::write::GzEncoder::new(file.reopen().expect("a file"), flate2::Compression::fast());
    writeln!(gzip, "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country")
        .expect("written");
    let mut expected = Vec::new();
    for row in 0..rows {
        let (thousandths, minute) = ((row as i64 * 37) % 100_000 - 500, row / 7);
        let sign = if thousandths < 0 { "-" } else { "" };
        let price = format!("{sign}{}.{:03}", thousandths.abs() / 1000, thousandths.abs() % 1000);
        let text = if row % 5 == 0 { String::new() } else { format!("\"a \"\"lamp\"\", {row}\"") };
        let at = format!("2010-12-{:02} {:02}:{:02}:00", 1 + minute / 1440, minute / 60 % 24, minute % 60);
        writeln!(
            gzip,
            "{},S{},{text},{},{at},{price},{}.0,United Kingdom",
            row / 3,
            row % 50,
            row as i64 % 9 - 4,
            row % 400
        )
        .expect("written");
        expected.push((text, thousandths));
    }
    gzip.finish().expect("finished");
    (file, expected)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csv_arrives_exactly_whatever_is_done_to_its_order() {
    let parts = shared();
    let topic = unique("retail");
    let (file, expected) = csv(20_000);
    let input = FileInput {
        path: file.path().to_owned(),
        schema: Some(RETAIL_SCHEMA.to_owned()),
        id_field: Some("row".to_owned()),
        key_field: Some("CustomerID".to_owned()),
        time_field: Some("InvoiceDate".to_owned()),
        ..FileInput::default()
    };
    let mut job = job(parts, &topic, CsvRows::open(&input).expect("opened"));
    job.faults = Faults { seed: 9, disorder_ms: 600_000, duplicates: 0.01, ..Faults::default() };
    let done = produce(job, |_| true).await.expect("produced");
    assert_eq!((done.rows, done.sent, done.acknowledged), (20_000, 20_000 + done.injected.duplicates, done.sent));
    let decode = decoder(parts, &topic).await;
    let (mut rows, mut partition_of, mut newest) = (BTreeMap::new(), HashMap::new(), HashMap::new());
    for message in read_all(parts, &topic) {
        let fields = decode(&message);
        let Value::String(row) = &fields["row"] else { panic!("a row number") };
        let Value::TimestampMillis(time) = fields["InvoiceDate"] else { panic!("a time") };
        assert_eq!(message.timestamp().to_millis(), Some(time));
        let newest = newest.entry(message.partition()).or_insert(time);
        *newest = time.max(*newest);
        assert!(*newest - time <= 600_000, "row {row} is {} ms late", *newest - time);
        let key = message.key().expect("a key").to_vec();
        assert_eq!(*partition_of.entry(key).or_insert(message.partition()), message.partition());
        rows.entry(row.parse::<usize>().expect("a number")).or_insert_with(Vec::new).push(fields);
    }
    assert_eq!(rows.len(), expected.len());
    assert_eq!(rows.values().map(|copies| copies.len() as u64 - 1).sum::<u64>(), done.injected.duplicates);
    assert!(partition_of.values().collect::<BTreeSet<_>>().len() == 3);
    for (number, copies) in rows {
        let (text, thousandths) = &expected[number - 1];
        for fields in copies {
            let Value::Decimal(price) = &fields["UnitPrice"] else { panic!("a decimal") };
            assert_eq!(*price, apache_avro::Decimal::from(thousandths.to_be_bytes()), "row {number}");
            let description = match &fields["Description"] {
                Value::Union(1, text) => format!("{text:?}"),
                _ => String::new(),
            };
            assert_eq!(description.is_empty(), text.is_empty(), "row {number}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_storefront_sends_headers_and_undecodable_bytes() {
    let parts = shared();
    let topic = unique("storefront");
    let settings =
        Storefront { count: Some(30_000), wrong: Wrong::Undecodable, wrong_from: 10_000, ..Storefront::default() };
    let done = produce(job(parts, &topic, StorefrontRows::new(settings)), |_| true).await.expect("produced");
    assert_eq!((done.rows, done.acknowledged), (30_000, 30_000));
    let Lookup::Found(schema) =
        Registry::new(Settings::new(parts.registry())).expect("a client").latest(&format!("{topic}-value")).await
    else {
        panic!("no schema")
    };
    let parsed = apache_avro::Schema::parse_str(&schema.text).expect("a schema");
    let reader = apache_avro::reader::datum::GenericDatumReader::builder(&parsed).build().expect("a reader");
    let mut broken = 0u64;
    for message in read_all(parts, &topic) {
        let headers = message.headers().expect("headers");
        let names: Vec<_> = headers.iter().map(|header| header.key.to_owned()).collect();
        assert_eq!(names, ["tenant", "sdk", "sdk_version", "app_version"]);
        let payload = message.payload().expect("a payload");
        let is_whole = payload.len() > 5 && payload[..5] == [&[0], schema.id.to_be_bytes().as_slice()].concat() && {
            let mut datum = &payload[5..];
            reader.read_value(&mut datum).is_ok() && datum.is_empty()
        };
        if !is_whole {
            broken += 1;
            assert_eq!(headers.get(2).value, Some(b"4.2.0".as_slice()));
        }
    }
    assert_eq!(broken, done.injected.bad);
    assert!(broken > 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_fast_and_paced_and_stops_when_told() {
    let parts = shared();
    let started = Instant::now();
    let settings = Storefront { count: Some(200_000), headers: false, ..Storefront::default() };
    produce(job(parts, &unique("fast"), StorefrontRows::new(settings)), |_| true).await.expect("produced");
    println!("200,000 storefront events in {:?}", started.elapsed());
    let mut paced = job(parts, &unique("paced"), StorefrontRows::new(Storefront::default()));
    paced.rate = Some(1_000.0);
    let started = Instant::now();
    let done = produce(paced, move |_: &Progress| started.elapsed() < Duration::from_secs(2)).await.expect("produced");
    assert!((1_500..=3_000).contains(&done.rows), "{} rows in 2 s at 1000 a second", done.rows);
    assert_eq!(done.acknowledged, done.rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_input_is_refused_with_its_place() {
    let parts = shared();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("events.json");
    std::fs::write(&path, "{\"a\": 1}\n\n{\"a\": \"x\"}\n").expect("written");
    let schema = r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "long"}]}"#.to_owned();
    let input = FileInput { path: path.clone(), schema: Some(schema), ..FileInput::default() };
    let error = produce(job(parts, &unique("json"), JsonRows::open(&input).expect("opened")), |_| true)
        .await
        .expect_err("an error");
    assert_eq!(
        error.to_string(),
        format!("{}, line 3: the object: a: \"x\" is no whole number of 64 bits", path.display())
    );
    let csv = folder.path().join("a.csv");
    std::fs::write(&csv, "b\n1\n").expect("written");
    let error = CsvRows::open(&FileInput { path: csv, ..input }).err().expect("an error");
    assert!(
        matches!(&error, ProduceError::Schema(text) if text.contains("\"a\" is no column") && text.contains("columns are b")),
        "{error}"
    );
    let mut nowhere =
        job(parts, &unique("nowhere"), StorefrontRows::new(Storefront { count: Some(1), ..Storefront::default() }));
    nowhere.target.partitions = None;
    let error = produce(nowhere, |_| true).await.expect_err("an error");
    assert!(matches!(&error, ProduceError::Kafka { .. }), "{error}");
}
