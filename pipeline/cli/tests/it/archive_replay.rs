//! Replays from the archive: the rows of one from the topic, with neither Kafka nor the registry there; and of both, where the
//! topic has forgotten a part.

use std::process::Output;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::program::{Bench, Done, block_on, parts};
use crate::replay::{EVENTS, FROM, TO, one_sided, replay_of};
use crate::shop::{FAULTS, sell, shop};

/// Nobody listens there.
const NOBODY: &str = "127.0.0.1:1";

/// Runs a command where Kafka and the registry are away.
fn alone(bench: &Bench, arguments: &[&str]) -> Done {
    let mut command = bench.command(arguments);
    command.env("BROKERS", NOBODY).env("REGISTRY", format!("http://{NOBODY}"));
    let output: Output = command.output().unwrap();
    Done::of(output)
}

#[test]
fn a_replay_from_the_archive_gives_the_rows_of_one_from_the_topic_without_a_registry() {
    let bench = shop("archive_replay");
    // The reader schema is the subject's, too: the state keeps it.
    bench.edit("schema_file = \"event.avsc\"\n", "");
    let file = std::fs::read_to_string(bench.file()).unwrap();
    std::fs::write(bench.file(), file + "\n[archive]\nurl = \"archive\"\nroll_ms = 500\nmerge_after_ms = 0\n").unwrap();
    for seed in 1..=3 {
        sell(&bench, EVENTS, seed, FAULTS);
        bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    }
    let replay = |run: &'static str| ["replay", "pipeline.toml", "--from", FROM, "--to", TO, "--run", run];
    bench.weir(&replay("topic")).fine();

    let planned = alone(&bench, &["replay", "pipeline.toml", "--from", FROM, "--to", TO, "--from-archive", "--plan"]);
    let planned = planned.fine().out;
    assert!(planned.contains("the archive") && planned.contains("resolve") && !planned.contains("gap"), "{planned}");
    alone(&bench, &[&replay("archive")[..], &["--from-archive"]].concat()).fine();
    let rows = |run: &str| format!("{}.by_minute", replay_of(&bench, run));
    assert_eq!(one_sided(&bench, &rows("topic"), &rows("archive")), "0");
    assert_ne!(bench.ask(&format!("SELECT count() FROM {}", rows("archive"))), "0");
    bench.weir(&["diff", "pipeline.toml", "archive"]).fine();

    // The topic forgets half of what it has: the replay says where it will read that from, and reads both.
    forget_half(&bench.topic);
    let planned = bench.weir(&["replay", "pipeline.toml", "--from", FROM, "--to", TO, "--plan"]).fine().out;
    assert!(planned.contains("the archive as far as it goes, then the topics"), "{planned}");
    let refused = bench.weir(&[&replay("forgotten")[..], &["--source", "topic"]].concat());
    refused.refused(4, &["the log has forgotten a part"]);
    bench.weir(&replay("both")).fine();
    assert_eq!(one_sided(&bench, &rows("topic"), &rows("both")), "0");
    let read = |run: &str| {
        bench.ask(&format!("SELECT sum(consumed), sum(accepted) FROM {}.weir_ledger", replay_of(&bench, run)))
    };
    assert_eq!(read("topic"), read("archive"));
    assert_eq!(read("topic"), read("both"));
}

/// Deletes the older half of each partition of `topic`.
fn forget_half(topic: &str) {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", parts().kafka());
    let consumer: BaseConsumer = config.create().unwrap();
    let mut before = TopicPartitionList::new();
    for partition in 0..4 {
        let (_, high) = consumer.fetch_watermarks(topic, partition, std::time::Duration::from_secs(10)).unwrap();
        before.add_partition_offset(topic, partition, Offset::Offset(high / 2)).unwrap();
    }
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    block_on(admin.delete_records(&before, &AdminOptions::new())).unwrap();
}
