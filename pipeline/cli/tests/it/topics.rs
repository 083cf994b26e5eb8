//! What happens to topics while nobody looks, on real Kafka: they are made anew, they get partitions, and displays of
//! lag want to know how far they are read.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::program::{Bench, parts, terminate, wait_until};
use crate::shop::{sell, shop};

const WITHIN: Duration = Duration::from_secs(10);

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", parts().kafka()).create().unwrap()
}

/// Deletes the topic of `bench`, and waits until it is gone.
fn delete(bench: &Bench) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(admin().delete_topics(&[&bench.topic], &AdminOptions::new())).unwrap()[0].as_ref().unwrap();
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", parts().kafka()).create().unwrap();
    wait_until("the topic is gone", || {
        let all = consumer.fetch_metadata(None, WITHIN).unwrap();
        !all.topics().iter().any(|topic| topic.name() == bench.topic)
    });
}

/// Gives the pipeline an address of its own for its status.
pub(crate) fn serve_status(bench: &Bench) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = std::fs::read_to_string(bench.file()).unwrap();
    std::fs::write(bench.file(), format!("http = \"127.0.0.1:{port}\"\n{text}")).unwrap();
}

/// The ends of the first `partitions` logs.
fn ends(bench: &Bench, partitions: i32) -> Vec<i64> {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", parts().kafka()).create().unwrap();
    (0..partitions).map(|number| consumer.fetch_watermarks(&bench.topic, number, WITHIN).unwrap().1).collect()
}

/// The offsets that the source's consumer group has of the first `partitions` logs; -1 for none.
fn told(bench: &Bench, partitions: i32) -> Vec<i64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", parts().kafka())
        .set("group.id", format!("weir-{}-events", bench.database))
        .create()
        .unwrap();
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(&bench.topic, 0, partitions - 1);
    let offsets = consumer.committed_offsets(asked, WITHIN).unwrap();
    let offset = |number| match offsets.find_partition(&bench.topic, number).unwrap().offset() {
        Offset::Offset(offset) => offset,
        _ => -1,
    };
    (0..partitions).map(offset).collect()
}

#[test]
fn displays_of_lag_see_how_far_the_topic_is_committed() {
    let bench = shop("topics_lag");
    sell(&bench, 5_000, 1, &[]);
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    let ends = ends(&bench, 4);
    assert_eq!(told(&bench, 4), ends);
    // Readers of ClickHouse see the same.
    let rows: Vec<String> = (0..).zip(&ends).map(|(number, end)| format!("{number}\t{end}\t{end}\tdone")).collect();
    let asked = "SELECT partition, next_offset, end_offset, state FROM weir_partitions ORDER BY partition";
    assert_eq!(bench.ask(asked), rows.join("\n"));
}

#[test]
fn a_topic_made_anew_is_told_from_one_that_has_grown() {
    let bench = shop("topics_anew");
    sell(&bench, 2_000, 1, &[]);
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("everything is read", || bench.consumed() == 2_000);
    terminate(&mut running);
    let before = ends(&bench, 4);
    delete(&bench);
    sell(&bench, 9_000, 2, &[]);
    let grown = ends(&bench, 4);
    assert!(before.iter().zip(&grown).all(|(before, grown)| before < grown), "offsets alone don't tell it");
    for _ in 0..2 {
        bench.weir(&["run", "pipeline.toml"]).refused(4, &["made anew", &bench.topic, "new state folder"]);
    }
    assert_eq!(bench.consumed(), 2_000, "nothing of the new topic was read");
}

#[test]
fn a_topic_made_anew_under_a_running_pipeline_stops_it() {
    let bench = shop("topics_anew_live");
    sell(&bench, 2_000, 1, &[]);
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("everything is read", || bench.consumed() == 2_000);
    delete(&bench);
    sell(&bench, 9_000, 2, &[]);
    let mut code = None;
    wait_until("it stops", || {
        code = running.try_wait().unwrap();
        code.is_some()
    });
    assert_eq!(code.and_then(|status| status.code()), Some(4));
    bench.weir(&["run", "pipeline.toml"]).refused(4, &["made anew", &bench.topic]);
}

#[test]
fn new_partitions_are_read_while_it_runs_and_a_kill_loses_nothing_of_them() {
    let bench = shop("topics_grow");
    serve_status(&bench);
    sell(&bench, 2_000, 1, &[]);
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("everything is read", || bench.consumed() == 2_000);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let more = NewPartitions::new(&bench.topic, 6);
    runtime.block_on(admin().create_partitions(&[more], &AdminOptions::new())).unwrap()[0].as_ref().unwrap();
    sell(&bench, 6_000, 2, &[]);
    let before = ends(&bench, 6);
    assert!(before[4] > 0 && before[5] > 0, "something came into the new partitions: {before:?}");
    wait_until("the new partitions are read", || bench.consumed() == 8_000);
    let said = bench.weir(&["status", "pipeline.toml"]).fine().out;
    assert!(said.contains(&format!("{}/5", bench.topic)) && !said.contains("restart"), "{said}");

    running.kill().unwrap();
    running.wait().unwrap();
    sell(&bench, 3_000, 3, &[]);
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    assert_eq!(bench.consumed(), 11_000);
    assert_eq!(told(&bench, 6), ends(&bench, 6));
    let events = bench.ask("SELECT count() FROM events");
    assert_eq!(bench.ask("SELECT sum(accepted) FROM weir_ledger"), events);
}
