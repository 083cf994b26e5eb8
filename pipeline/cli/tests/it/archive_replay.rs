//! Replays from the archive: the rows of one from the topic, with neither Kafka nor the registry there, killed or not; of both,
//! where the topic has forgotten a part; and of what a topic has left.

use std::process::{Command, Stdio};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::program::{Bench, Done, block_on, parts, wait_until};
use crate::replay::{EVENTS, FROM, TO, one_sided, read_by, replay_of};
use crate::shop::{FAULTS, sell, shop};

/// Nobody listens there.
const NOBODY: &str = "127.0.0.1:1";

/// A command where Kafka and the registry are away.
fn apart(bench: &Bench, arguments: &[&str]) -> Command {
    let mut command = bench.command(arguments);
    command.env("BROKERS", NOBODY).env("REGISTRY", format!("http://{NOBODY}"));
    command
}

/// Runs a command there.
fn alone(bench: &Bench, arguments: &[&str]) -> Done {
    Done::of(apart(bench, arguments).output().unwrap())
}

#[test]
fn a_replay_from_the_archive_gives_the_rows_of_one_from_the_topic_without_a_registry() {
    let bench = shop("archive_replay");
    let copies = FAULTS.iter().position(|fault| *fault == "--duplicates").unwrap();
    let without_copies = [&FAULTS[..copies], &FAULTS[copies + 2..]].concat();
    // The reader schema is the subject's, too: the state keeps it.
    bench.edit("schema_file = \"event.avsc\"\n", "");
    let file = std::fs::read_to_string(bench.file()).unwrap();
    std::fs::write(bench.file(), file + "\n[archive]\nurl = \"archive\"\nroll_ms = 500\nmerge_after_ms = 0\n").unwrap();
    let mut within_first = Vec::new();
    for seed in 1..=3 {
        // Of the first stretch a half is forgotten. A copy behind that half whose first is in it would count then, and the
        // accepted events that the rows are held against don't know it: there are none.
        sell(&bench, EVENTS, seed, if seed == 1 { &without_copies } else { FAULTS });
        if seed == 1 {
            within_first = ends(&bench.topic).iter().map(|end| end / 2).collect();
        }
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

    // Killed twice, it goes on by its name, with neither of them there.
    let begin = [&replay("killed")[..], &["--from-archive", "--rate", "20000"]].concat();
    let goes_on = ["replay", "pipeline.toml", "--run", "killed"];
    let goes_on_paced = [&goes_on[..], &["--rate", "20000"]].concat();
    for (arguments, records) in [(&begin, 4_000), (&goes_on_paced, 30_000)] {
        let mut running = apart(&bench, arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("a part is read", || read_by(&bench, "killed") > Some(records));
        running.kill().unwrap();
        running.wait().unwrap();
        let listed = bench.weir(&["replay", "list", "pipeline.toml"]).fine().out;
        assert!(listed.contains("interrupted"), "{listed}");
    }
    alone(&bench, &goes_on).fine();
    assert_eq!(one_sided(&bench, &rows("topic"), &rows("killed")), "0");

    // The topic forgets a part of what it has: the replay says where it will read that from, and reads both.
    forget(&bench.topic, &within_first);
    let planned = bench.weir(&["replay", "pipeline.toml", "--from", FROM, "--to", TO, "--plan"]).fine().out;
    assert!(planned.contains("the archive as far as it goes, then the topics"), "{planned}");
    let refused = bench.weir(&[&replay("forgotten")[..], &["--source", "topic"]].concat());
    refused.refused(4, &["the log has forgotten a part", "--allow-gaps"]);
    bench.weir(&replay("both")).fine();
    assert_eq!(one_sided(&bench, &rows("topic"), &rows("both")), "0");
    let read = |run: &str| {
        bench.ask(&format!("SELECT sum(consumed), sum(accepted) FROM {}.weir_ledger", replay_of(&bench, run)))
    };
    for run in ["archive", "killed", "both"] {
        assert_eq!(read("topic"), read(run), "{run}");
    }

    let began = bench.weir(&[&replay("left")[..], &["--source", "topic", "--allow-gaps"]].concat()).fine().out;
    is_what_the_log_still_has(&bench, &rows("left"), &began, &within_first);
}

/// A replay that was begun with `--allow-gaps` said so in `began`: of each partition it has nothing before these offsets, and
/// everything behind them, by the accepted events.
fn is_what_the_log_still_has(bench: &Bench, left: &str, began: &str, first: &[i64]) {
    for (partition, first) in first.iter().enumerate() {
        let place = format!("gap {}/{partition}: offsets ", bench.topic);
        let line = began.lines().find(|line| line.starts_with(&place)).unwrap_or_else(|| panic!("{place}:\n{began}"));
        assert!(line.ends_with(&format!(" to {} are gone from the log", first - 1)), "{began}");
    }
    let sql = std::fs::read_to_string(bench.folder.path().join("views/by_minute.sql")).unwrap();
    let is_there = format!("_offset >= {first:?}[_partition + 1]");
    let of_left = sql.replace("FROM events\nWHERE", &format!("FROM events\nWHERE {is_there} AND"));
    assert_ne!(sql, of_left);
    bench.ask(&format!("CREATE VIEW of_left AS {of_left}"));
    assert_eq!(one_sided(bench, "of_left", left), "0");
    assert_eq!(bench.ask(&format!("SELECT count() > 200 FROM {left}")), "1");
    assert_ne!(one_sided(bench, "by_minute", left), "0", "nothing is missing");
}

fn kafka() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", parts().kafka());
    config
}

/// The offset behind the last record of each partition of `topic`.
fn ends(topic: &str) -> Vec<i64> {
    let consumer: BaseConsumer = kafka().create().unwrap();
    let within = std::time::Duration::from_secs(10);
    (0..4).map(|partition| consumer.fetch_watermarks(topic, partition, within).unwrap().1).collect()
}

/// Deletes what lies before these offsets of each partition of `topic`.
fn forget(topic: &str, first: &[i64]) {
    let mut before = TopicPartitionList::new();
    for (partition, first) in (0..).zip(first) {
        before.add_partition_offset(topic, partition, Offset::Offset(*first)).unwrap();
    }
    let admin: AdminClient<DefaultClientContext> = kafka().create().unwrap();
    block_on(admin.delete_records(&before, &AdminOptions::new())).unwrap();
}
