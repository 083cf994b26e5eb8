//! The parts start, keep their data through kill -9, and end with their process.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use weir_replay::parts::{Part, Parts, PartsOptions};
use weir_schemas::registry::{Registry, Settings};

async fn registered(parts: &Parts) -> u32 {
    let registry = Registry::new(Settings::new(parts.registry())).expect("a client");
    registry.register("subject-value", "\"string\"").await.expect("registered")
}

fn end_of_log(parts: &Parts) -> i64 {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", parts.kafka()).create().expect("a consumer");
    consumer.fetch_watermarks("topic", 0, Duration::from_secs(30)).expect("offsets").1
}

async fn counted(parts: &Parts) -> u64 {
    let client = clickhouse::Client::default().with_url(parts.clickhouse());
    client.query("SELECT count() FROM d.t").fetch_one().await.expect("a count")
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_come_back_with_their_data() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = PartsOptions {
        folder: folder.path().to_owned(),
        kafka: true,
        registry: true,
        clickhouse: true,
        quick: true,
        ..PartsOptions::default()
    };
    let parts = Parts::start(&options).expect("started");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", parts.kafka()).create().expect("a client");
    let topic = NewTopic::new("topic", 1, TopicReplication::Fixed(1));
    admin.create_topics([&topic], &AdminOptions::new()).await.expect("asked")[0].as_ref().expect("made");
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", parts.kafka()).create().expect("a producer");
    producer.send(BaseRecord::to("topic").key("k").payload("v")).map_err(|(error, _)| error).expect("queued");
    producer.flush(Duration::from_secs(30)).expect("sent");
    let id = registered(&parts).await;
    let client = clickhouse::Client::default().with_url(parts.clickhouse());
    for statement in
        ["CREATE DATABASE d", "CREATE TABLE d.t (n UInt8) ENGINE = MergeTree ORDER BY n", "INSERT INTO d.t VALUES (1)"]
    {
        client.query(statement).execute().await.expect(statement);
    }
    for part in [Part::ClickHouse, Part::Registry, Part::Kafka] {
        parts.kill(part).expect("killed");
        parts.restart(part).expect("started again");
    }
    assert_eq!((counted(&parts).await, registered(&parts).await, end_of_log(&parts)), (1, id, 1));
    // The same folder has the same addresses later.
    let addresses = (parts.kafka(), parts.registry(), parts.clickhouse());
    parts.stop().expect("stopped");
    drop(parts);
    let parts = Parts::start(&PartsOptions { kafka: false, registry: false, ..options }).expect("started");
    assert_eq!((parts.kafka(), parts.registry(), parts.clickhouse()), addresses);
    assert_eq!(counted(&parts).await, 1);
}

/// Runs itself again as the process that holds the parts, and kills that one as `kill -9` does.
#[test]
fn parts_end_with_their_process() {
    const HOLD: &str = "WEIR_TEST_HOLDS_PARTS_IN";
    if let Some(folder) = std::env::var_os(HOLD) {
        let options = PartsOptions {
            folder: folder.into(),
            kafka: true,
            clickhouse: true,
            quick: true,
            temporary: true,
            ..PartsOptions::default()
        };
        let _parts = Parts::start(&options).expect("started");
        std::fs::write(options.folder.join("ready"), "").expect("written");
        std::thread::sleep(Duration::from_secs(600));
        return;
    }
    let folder = tempfile::tempdir().expect("a folder").keep();
    let mut holder = std::process::Command::new(std::env::current_exe().expect("a program"))
        .args(["--exact", "parts::parts_end_with_their_process"])
        .env(HOLD, &folder)
        .spawn()
        .expect("started");
    wait_until("the parts are ready", || folder.join("ready").exists());
    let process = |part: &str| std::fs::read_to_string(folder.join(part).join("pid")).expect("a process id");
    let processes = [process("kafka"), process("clickhouse")];
    holder.kill().expect("killed");
    holder.wait().expect("ended");
    for id in processes {
        wait_until("a part has ended", || !std::path::Path::new("/proc").join(id.trim()).exists());
    }
    wait_until("the folder is removed", || !folder.exists());
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let until = std::time::Instant::now() + Duration::from_secs(240);
    while !is_so() {
        assert!(std::time::Instant::now() < until, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(100));
    }
}
