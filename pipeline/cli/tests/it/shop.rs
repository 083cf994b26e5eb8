//! A shop with everything switched on: faults put in on purpose, each found where it belongs, through outages and stops.

use std::path::{Path, PathBuf};

use weir_replay::parts::Part;

use crate::program::{Bench, parts, size, terminate, wait_until};

/// The shop's pipeline with a topic and a database of its own.
pub(crate) fn shop(name: &str) -> Bench {
    with_schema(Bench::of(&files(), name))
}

fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/shop")
}

fn with_schema(bench: Bench) -> Bench {
    let schema = files().join("../../../../../replay/presets/storefront.avsc");
    std::fs::copy(schema, bench.folder.path().join("event.avsc")).unwrap();
    bench
}

/// Sends `count` events of virtual time, with faults. A greater seed is a later stretch of the same day.
pub(crate) fn sell(bench: &Bench, count: u64, seed: u64, faults: &[&str]) {
    let from = format!("2026-01-05T{:02}:{:02}:00Z", 6 + seed / 6, seed % 6 * 10);
    let (count, seed) = (count.to_string(), seed.to_string());
    let mut arguments = vec!["produce", "--topic", &bench.topic, "--partitions", "4", "--storefront"];
    arguments.extend(["--from", &from, "--events-per-second", "100", "--event-timestamps"]);
    arguments.extend(["--count", &count, "--seed", &seed]);
    arguments.extend(faults);
    bench.weir(&arguments).fine();
}

pub(crate) const FAULTS: &[&str] = &[
    "--disorder-ms",
    "3000",
    "--duplicates",
    "0.02",
    "--stragglers",
    "0.01",
    "--straggler-ms",
    "20000",
    "--bad",
    "0.01",
];

/// Whether the view equals ClickHouse's answer and the ledger balances over all that was sent.
#[track_caller]
fn assert_exact(bench: &Bench, consumed: u64) {
    bench.weir(&["verify", "pipeline.toml"]).fine();
    let ledger = bench.ask(
        "SELECT sum(consumed), countIf(consumed != accepted + quarantined + duplicate + duplicate_differing + too_late \
         + too_late_after_idle + tombstone) FROM weir_ledger",
    );
    assert_eq!(ledger, format!("{consumed}\t0"));
}

/// Records in the topic, by ClickHouse's own count of what Weir says it read is no proof; Kafka's offsets are.
fn records_in(bench: &Bench) -> u64 {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let consumer: BaseConsumer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", parts().kafka()).create().unwrap();
    let within = std::time::Duration::from_secs(10);
    (0..4).map(|partition| consumer.fetch_watermarks(&bench.topic, partition, within).unwrap().1 as u64).sum()
}

#[test]
fn faults_end_where_they_belong_and_the_bad_release_is_named() {
    let bench = shop("shop_faults");
    sell(&bench, size(60_000, 1_000_000), 11, FAULTS);
    bench.weir(&["check", "pipeline.toml"]).fine();
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    assert_exact(&bench, records_in(&bench));

    // Every refused record is in the quarantine, whole, with its reason, once.
    let refused = bench.ask("SELECT sum(quarantined) FROM weir_ledger");
    let kept = "SELECT countIf(reason NOT LIKE 'too_late%'), uniqExact(topic, partition, offset) = count() FROM weir_quarantine";
    assert_eq!(bench.ask(kept), format!("{refused}\t1"));
    let by_rule =
        bench.ask("SELECT count() > 0 FROM weir_quarantine WHERE reason = 'rule' AND detail = 'amounts_are_positive'");
    assert_eq!(by_rule, "1");
    assert_eq!(bench.ask("SELECT count() > 100 FROM weir_quarantine WHERE reason NOT IN ('rule', 'too_late')"), "1");

    // The release that went wrong, and no other, has an alert that names it, its share and places.
    let alerts = bench.ask(
        "SELECT DISTINCT sdk, sdk_version, app_version, reason FROM weir_alerts_history WHERE detail = 'amounts_are_positive'",
    );
    assert_eq!(alerts, "android\t4.2.0\t7.1\trule");
    let opened = bench.ask("SELECT count() > 0, min(affected_share) >= 0.05, min(length(examples)) > 0 FROM weir_alerts_history WHERE status = 'open'");
    assert_eq!(opened, "1\t1\t1");
}

#[test]
fn a_stop_drains_and_the_next_start_goes_on() {
    let bench = shop("shop_stop");
    sell(&bench, 20_000, 5, FAULTS);
    let first = records_in(&bench);
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("everything is read", || bench.consumed() == first);
    terminate(&mut running);
    sell(&bench, 20_000, 6, FAULTS);
    bench.weir(&["run", "pipeline.toml", "--until-end", "--workers", "3"]).fine();
    assert_exact(&bench, records_in(&bench));
}

#[test]
fn outages_and_kills_lose_nothing_and_double_nothing() {
    let bench = with_schema(Bench::alone(&files(), "shop_outage"));
    sell(&bench, 20_000, 21, FAULTS);
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("it began", || bench.consumed() > 0);

    // ClickHouse goes away while events come, Weir is killed in the outage, and both come back.
    parts().kill(Part::ClickHouse).unwrap();
    sell(&bench, 20_000, 22, FAULTS);
    std::thread::sleep(std::time::Duration::from_secs(1));
    running.kill().unwrap();
    running.wait().unwrap();
    parts().restart(Part::ClickHouse).unwrap();
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("it is back", || bench.consumed() == records_in(&bench));

    // Kafka is killed and comes back; Weir waits for it.
    parts().kill(Part::Kafka).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    parts().restart(Part::Kafka).unwrap();
    sell(&bench, 10_000, 23, FAULTS);
    wait_until("it reads on", || bench.consumed() == records_in(&bench));

    terminate(&mut running);
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    assert_exact(&bench, records_in(&bench));
}
