//! The archive on real parts: records go out and come back byte for byte, through kills and outages; what is damaged is named;
//! ClickHouse reads the files as they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use weir_archive::{Archive, Error, Pending, Settings, Stretch};

use crate::program::{Bench, block_on, parts, size, terminate, wait_until};
use crate::shop::{FAULTS, sell, shop};

const PARTITIONS: i32 = 4;

/// A shop with an archive.
fn archived(name: &str, section: &str) -> Bench {
    let bench = shop(name);
    add(&bench, &format!("\n[archive]\n{section}\n"));
    bench
}

fn add(bench: &Bench, text: &str) {
    let file = std::fs::read_to_string(bench.file()).unwrap();
    std::fs::write(bench.file(), file + text).unwrap();
}

fn client() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", parts().kafka());
    config
}

/// What a record is, but for its offset: key, value, headers, timestamp and its type.
fn bytes_of(message: &impl Message) -> Vec<u8> {
    let mut bytes = format!("{:?}", message.timestamp()).into_bytes();
    for part in [message.key(), message.payload()] {
        bytes.extend(part.map_or(-1, |part| part.len() as i64).to_le_bytes());
        bytes.extend(part.unwrap_or_default());
    }
    for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
        bytes.extend((header.key.len() as i64).to_le_bytes());
        bytes.extend(header.key.as_bytes());
        bytes.extend(header.value.map_or(-1, |value| value.len() as i64).to_le_bytes());
        bytes.extend(header.value.unwrap_or_default());
    }
    bytes
}

/// Every record of a topic, in order, by partition: by a hash each where there are many.
fn raw(topic: &str) -> BTreeMap<i32, Vec<u64>> {
    let mut config = client();
    config.set("group.id", "raw").set("enable.partition.eof", "true").set("isolation.level", "read_committed");
    let consumer: BaseConsumer = config.set("enable.auto.commit", "false").create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut all: BTreeMap<i32, Vec<u64>> = (0..PARTITIONS).map(|partition| (partition, Vec::new())).collect();
    let mut ended = 0;
    let mut heard_at = Instant::now();
    while ended < PARTITIONS {
        match consumer.poll(Duration::from_secs(1)) {
            None => assert!(heard_at.elapsed() < Duration::from_secs(60), "no answer from Kafka"),
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => panic!("{error}"),
            Some(Ok(message)) => {
                let hash = std::hash::BuildHasher::hash_one(&Fixed::default(), bytes_of(&message));
                all.get_mut(&message.partition()).unwrap().push(hash);
                heard_at = Instant::now();
            }
        }
    }
    all
}

type Fixed = std::hash::BuildHasherDefault<std::collections::hash_map::DefaultHasher>;

fn count(records: &BTreeMap<i32, Vec<u64>>) -> usize {
    records.values().map(Vec::len).sum()
}

/// Sends records as nobody should: without key or value, empty, with repeated headers, bytes that are no Avro.
fn send_odd(topic: &str, number: usize) {
    let producer: BaseProducer = client().create().unwrap();
    let mut random = fastrand::Rng::with_seed(number as u64);
    for at in 0..number {
        let value: Vec<u8> = (0..random.usize(..300)).map(|_| random.u8(..)).collect();
        let key = [at as u8, 0, 255];
        let headers = OwnedHeaders::new()
            .insert(Header { key: "sdk", value: Some("web") })
            .insert(Header { key: "sdk", value: None::<&[u8]> })
            .insert(Header { key: "", value: Some(&value[..value.len().min(9)]) });
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(at as i32 % PARTITIONS);
        record.key = (at % 3 > 0).then_some(&key[..]);
        record.payload = (at % 5 > 0).then_some(&value[..]);
        record.headers = (at % 2 > 0).then_some(headers);
        record.timestamp = Some(1_767_593_000_000 + at as i64 * 7);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
}

/// What ClickHouse reads in the files, as anybody would: records, bytes of values, a sum over the values, headers.
fn files_by_clickhouse(bench: &Bench) -> String {
    let files = bench.folder.path().join("archive/**/*.parquet");
    bench.ask(&format!(
        "SELECT count(), sum(length(value)), sum(toUInt64(CRC32(ifNull(value, '')))), sum(length(headers)), \
         uniqExact(partition, offset), countIf(value IS NULL), any(topic) FROM file('{}', Parquet) \
         SETTINGS use_hive_partitioning = 1",
        files.display()
    ))
}

/// The same, read from Kafka.
fn files_by_kafka(topic: &str) -> String {
    let mut config = client();
    config.set("group.id", "raw").set("enable.partition.eof", "true").set("isolation.level", "read_committed");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let (mut records, mut bytes, mut sum, mut headers, mut tombstones, mut ended) = (0_u64, 0_u64, 0_u64, 0, 0, 0);
    while ended < PARTITIONS {
        match consumer.poll(Duration::from_secs(1)) {
            Some(Ok(message)) => {
                let value = message.payload().unwrap_or_default();
                let mut crc = flate2::Crc::new();
                crc.update(value);
                records += 1;
                bytes += value.len() as u64;
                sum += u64::from(crc.sum());
                headers += message.headers().map_or(0, Headers::count);
                tombstones += u64::from(message.payload().is_none());
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
    format!("{records}\t{bytes}\t{sum}\t{headers}\t{records}\t{tombstones}\t{topic}")
}

#[test]
fn records_go_out_and_come_back_byte_for_byte() {
    let bench = archived("archive_whole", "url = \"archive\"\ndelete_after_ms = 0");
    let events = size(100_000, 10_000_000);
    sell(&bench, events, 3, FAULTS);
    send_odd(&bench.topic, 1_000);
    let began = Instant::now();
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    let ran = began.elapsed();
    let listed = bench.weir(&["archive", "list", "pipeline.toml"]).fine().out;
    assert!(listed.contains(&bench.topic) && listed.contains("2026-01-05") && !listed.contains("gap"), "{listed}");
    // The parts' broker keeps records for ever, and so does an archive that isn't told otherwise.
    assert!(listed.contains("in the topic") && listed.contains("for ever"), "{listed}");
    let verified = bench.weir(&["archive", "verify", "pipeline.toml"]).fine().out;
    assert!(verified.contains("whole") && !verified.contains("left over"), "{verified}");
    // Of many records small objects have become one: a pattern sees both until those are deleted.
    bench.weir(&["archive", "compact", "pipeline.toml"]).fine();
    assert_eq!(files_by_clickhouse(&bench), files_by_kafka(&bench.topic));
    let schema: serde_json::Value = {
        let folder = bench.folder.path().join("archive/_schemas");
        let file = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
    };
    assert!(schema["schema"].as_str().unwrap().contains("occurred_at"), "{schema}");
    // Other tests register the same schema under subjects of their own.
    let subject = format!("{}-value", bench.topic);
    let has = |version: &serde_json::Value| version["subject"] == subject.as_str() && version["version"] == 1;
    assert!(schema["versions"].as_array().unwrap().iter().any(has), "{schema}");

    let target = format!("{}-restored", bench.topic);
    let began = Instant::now();
    let restore = ["archive", "restore", "pipeline.toml", "--topic", &bench.topic, "--to", &target];
    bench.weir(&restore).fine();
    let restored = began.elapsed();
    let (before, after) = (raw(&bench.topic), raw(&target));
    assert_eq!(count(&before), count(&after));
    assert!(before == after, "the restored records differ");
    println!(
        "{} records, archived with the pipeline's run in {ran:.1?}, restored in {restored:.1?}, equal",
        count(&before)
    );

    // Given again it has nothing to do; a topic that holds something else is left alone.
    let again = bench.weir(&restore).fine().out;
    assert!(again.starts_with("0 records"), "{again}");
    let other = format!("{}-other", bench.topic);
    send_to_new(&other);
    let onto = ["archive", "restore", "pipeline.toml", "--topic", &bench.topic, "--to", &other];
    bench.weir(&onto).refused(4, &["isn't empty", "--append"]);
    let unknown = ["archive", "restore", "pipeline.toml", "--topic", "nothing", "--to", &other];
    bench.weir(&unknown).refused(2, &["no topic nothing", &bench.topic]);
}

/// Makes a topic with a record in it.
fn send_to_new(topic: &str) {
    let admin: rdkafka::admin::AdminClient<_> = client().create().unwrap();
    let new = rdkafka::admin::NewTopic::new(topic, PARTITIONS, rdkafka::admin::TopicReplication::Fixed(1));
    block_on(admin.create_topics([&new], &rdkafka::admin::AdminOptions::new())).unwrap();
    send_odd(topic, 1);
}

/// Parquet files below `folder`, in order.
fn parquet(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(parquet(&path));
        } else if path.extension().is_some_and(|of| of == "parquet") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn a_truncated_a_missing_and_a_foreign_file_are_each_named() {
    let bench = archived("archive_damaged", "url = \"archive\"\nkeep_days = 90000");
    sell(&bench, 20_000, 3, FAULTS);
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    bench.weir(&["archive", "verify", "pipeline.toml"]).fine();
    let folder = bench.folder.path().join("archive");
    let files = parquet(&folder);
    let [truncated, missing, copied, ..] = &files[..] else { panic!("{files:?}") };
    let foreign = copied.with_file_name("export.parquet");
    std::fs::copy(copied, &foreign).unwrap();
    let bytes = std::fs::read(truncated).unwrap();
    std::fs::write(truncated, &bytes[..bytes.len() - 100]).unwrap();
    let kept = std::fs::read(missing).unwrap();
    std::fs::remove_file(missing).unwrap();
    let name = |path: &Path| path.strip_prefix(&folder).unwrap().display().to_string();

    let said = bench.weir(&["archive", "verify", "pipeline.toml"]);
    assert_eq!(said.code, 5, "{}{}", said.out, said.err);
    for (kind, path) in [("truncated", truncated), ("missing", missing), ("foreign", &foreign)] {
        let line = format!("{kind}  {}: ", name(path));
        assert_eq!(said.out.matches(&line).count(), 1, "{line}\n{}", said.out);
    }
    assert!(said.out.contains("3 faults found"), "{}", said.out);
    println!("{}", said.out);
    let restore =
        ["archive", "restore", "pipeline.toml", "--topic", &bench.topic, "--to", &format!("{}-damaged", bench.topic)];
    let refused = bench.weir(&restore);
    assert_eq!(refused.code, 4, "{}{}", refused.out, refused.err);
    assert!([truncated, missing].into_iter().any(|path| refused.err.contains(&name(path))), "{}", refused.err);

    // Put right it is whole again, and what is older than it is kept goes through the manifest.
    std::fs::write(truncated, bytes).unwrap();
    std::fs::write(missing, kept).unwrap();
    std::fs::remove_file(foreign).unwrap();
    bench.weir(&["archive", "verify", "pipeline.toml"]).fine();
    bench.edit("keep_days = 90000", "keep_days = 30\ndelete_after_ms = 0");
    let compacted = bench.weir(&["archive", "compact", "pipeline.toml"]).fine().out;
    assert!(compacted.contains("older than they are kept"), "{compacted}");
    assert_eq!(parquet(&folder), Vec::<PathBuf>::new());
    let listed = bench.weir(&["archive", "list", "pipeline.toml"]).fine().out;
    assert!(listed.contains("30 days"), "{listed}");
    bench.weir(&["archive", "verify", "pipeline.toml"]).fine();
    bench.weir(&["archive", "list", "pipeline.toml", "--topic", "nothing"]).refused(2, &["no topic nothing"]);
}

#[test]
fn whatever_is_killed_no_record_is_lost_or_doubled() {
    let section = "url = \"archive\"\nroll_ms = 100\nroll_bytes = 1048576\nmerge_after_ms = 0\ndelete_after_ms = 0";
    let bench = archived("archive_killed", section);
    let kills = size(8, 40);
    let mut random = fastrand::Rng::with_seed(11);
    let mut killed = BTreeMap::new();
    for kill in 0..kills {
        sell(&bench, 3_000, kill % 60, FAULTS);
        send_odd(&bench.topic, 40);
        // Compaction of its own beside the running pipeline, one of both killed, or restoring.
        let mut running = bench.start(&["run", "pipeline.toml"]);
        let wait = Duration::from_millis(random.u64(50..3_000));
        if kill % 2 == 0 {
            std::thread::sleep(wait);
            killed.entry("run").and_modify(|of| *of += 1).or_insert(1);
        } else {
            std::thread::sleep(Duration::from_secs(2));
            let mut compacting = bench.start(&["archive", "compact", "pipeline.toml"]);
            std::thread::sleep(wait / 10);
            let _ = compacting.kill();
            compacting.wait().unwrap();
            killed.entry("compact").and_modify(|of| *of += 1).or_insert(1);
        }
        running.kill().unwrap();
        running.wait().unwrap();
    }
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    bench.weir(&["archive", "verify", "pipeline.toml"]).fine();
    let merged = bench.weir(&["archive", "compact", "pipeline.toml"]).fine().out;
    bench.weir(&["archive", "verify", "pipeline.toml"]).fine();

    // A restore that is killed now and then, too, ends with each record once.
    let target = format!("{}-restored", bench.topic);
    let restore = ["archive", "restore", "pipeline.toml", "--topic", &bench.topic, "--to", &target];
    for _ in 0..size(3, 10) {
        let mut restoring = bench.start(&restore);
        std::thread::sleep(Duration::from_millis(random.u64(100..1_500)));
        let _ = restoring.kill();
        restoring.wait().unwrap();
    }
    bench.weir(&restore).fine();
    let (before, after) = (raw(&bench.topic), raw(&target));
    assert_eq!(count(&before), count(&after));
    assert!(before == after, "the restored records differ");
    println!("killed {killed:?}; {} records, each once; {merged}", count(&before));
}

/// A server that speaks S3, ended when it is dropped.
struct S3(Child);

impl S3 {
    fn start(port: u16) -> S3 {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../replay/parts/s3.sh");
        let mut command = Command::new(script);
        command.args(["serve", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let server = S3(command.spawn().unwrap());
        let made = || {
            block_on(async move {
                let bucket = format!("http://127.0.0.1:{port}/bucket");
                reqwest::Client::new().put(bucket).send().await.is_ok_and(|answer| answer.status().is_success())
            })
        };
        wait_until("S3 answers", made);
        server
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn s3_takes_the_archive_once_it_is_there_and_nothing_waits_for_it() {
    let bench = shop("archive_s3");
    let port = weir_replay::parts::Ports::of_folder(&tempfile::tempdir().unwrap().keep()).unwrap().kafka;
    let options = format!(
        "endpoint = \"http://127.0.0.1:{port}\"\nallow_http = \"true\"\nregion = \"us-east-1\"\naccess_key_id = \"k\"\n\
         secret_access_key = \"s\""
    );
    let section =
        format!("url = \"s3://bucket/shop\"\nroll_ms = 200\nmerge_after_ms = 0\n[archive.options]\n{options}\n");
    add(&bench, &format!("\n[archive]\n{section}"));
    bench.edit("state = \"state\"\n", "state = \"state\"\nhttp = \"127.0.0.1:${HTTP_PORT}\"\n");
    sell(&bench, 20_000, 3, FAULTS);
    let mut running = bench.start(&["run", "pipeline.toml"]);
    let status = || bench.status().and_then(|status| status.archive).unwrap_or_default();

    // The store is away: the archive lags and says why, and the pipeline goes on.
    wait_until("everything is read", || bench.consumed() >= 20_000);
    wait_until("the archive says that it can't be written", || status().failing.is_some());
    assert!(bench.weir(&["status", "pipeline.toml"]).fine().out.contains("can't be written:"));
    let metrics = block_on(async { reqwest::get(bench.page("/metrics")).await.unwrap().text().await.unwrap() });
    assert!(metrics.contains("weir_archive_failing{} 1.0"), "{metrics}");

    let _server = S3::start(port);
    wait_until("the archive has followed", || {
        status().failing.is_none() && status().lag_records == 0 && status().records > 20_000
    });
    sell(&bench, 5_000, 4, FAULTS);
    wait_until("and follows", || status().lag_records == 0 && status().records > 25_000);
    terminate(&mut running);
    bench.weir(&["archive", "verify", "pipeline.toml"]).fine();
    let compacted = bench.weir(&["archive", "compact", "pipeline.toml"]).fine().out;
    bench.weir(&["archive", "verify", "pipeline.toml"]).fine();
    let target = format!("{}-restored", bench.topic);
    bench.weir(&["archive", "restore", "pipeline.toml", "--topic", &bench.topic, "--to", &target]).fine();
    let (before, after) = (raw(&bench.topic), raw(&target));
    assert!(count(&before) > 25_000 && before == after, "{} and {}", count(&before), count(&after));
    println!("{} records over S3 and back, equal; {compacted}", count(&before));

    // Of two who make the same commit one fails.
    let options = options.lines().filter_map(|line| line.split_once(" = "));
    let options = options.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect();
    let archive = Archive::open(&Settings {
        url: "s3://bucket/other".to_owned(),
        options,
        pipeline: "p".to_owned(),
        makes_folder: false,
    })
    .unwrap();
    let (mut one, mut other) = (archive.catalog().unwrap(), archive.catalog().unwrap());
    let mut pending = Pending::default();
    let topic = "t".to_owned();
    pending.cover(Stretch { topic, topic_id: None, partition: 0, first: 0, next: 5, records: 0 });
    let ready = pending.finish().unwrap();
    archive.append(&mut one, &ready, chrono::DateTime::UNIX_EPOCH).unwrap();
    let second = archive.append(&mut other, &ready, chrono::DateTime::UNIX_EPOCH);
    assert!(matches!(second, Err(Error::Conflict { number: 1 })), "{second:?}");
}
