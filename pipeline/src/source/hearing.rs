//! Hearing: whether the broker of a partition answers at all.
//!
//! A broker that can't be reached looks to a consumer like a log in which nothing happens. What is written there meanwhile
//! would be late if its partition were taken for idle, so the client's statistics are asked: a partition at its end is
//! fetched from ten times a second, and a broker that answers is heard as often.
//!
//! Not here: what follows from it (`partition`).

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::consumer::ConsumerContext;
use serde::Deserialize;

/// How often the client says how it is, in milliseconds.
pub(super) const TOLD_EVERY_MS: u64 = 2_000;

/// A broker that said nothing for so long, in microseconds, doesn't answer.
const SILENT_US: i64 = 5_000_000;

/// What the client told last. Its log lines go through `tracing`.
#[derive(Default)]
pub(super) struct Hearing(Mutex<HashSet<(String, i32)>>);

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    brokers: HashMap<String, Broker>,
    #[serde(default)]
    topics: HashMap<String, Topic>,
}

#[derive(Deserialize)]
struct Broker {
    nodeid: i32,
    state: String,
    /// Since something was last heard, in microseconds; -1 before anything was.
    rxidle: i64,
}

#[derive(Deserialize)]
struct Topic {
    topic: String,
    #[serde(default)]
    partitions: HashMap<String, Partition>,
}

#[derive(Deserialize)]
struct Partition {
    partition: i32,
    leader: i32,
}

impl Hearing {
    /// Whether nothing was heard of a partition's broker lately.
    pub(super) fn is_silent(&self, topic: &str, partition: i32) -> bool {
        let silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !silent.is_empty() && silent.contains(&(topic.to_owned(), partition))
    }
}

impl ClientContext for Hearing {
    fn stats_raw(&self, statistics: &[u8]) {
        match serde_json::from_slice::<Told>(statistics) {
            Ok(told) => *self.0.lock().unwrap_or_else(PoisonError::into_inner) = silent(told),
            // Then nobody is taken for silent: as without statistics.
            Err(error) => tracing::debug!(%error, "the client's statistics can't be read"),
        }
    }
}

impl ConsumerContext for Hearing {}

/// The partitions whose brokers don't answer.
fn silent(told: Told) -> HashSet<(String, i32)> {
    let answers = |broker: &&Broker| broker.state == "UP" && (0..SILENT_US).contains(&broker.rxidle);
    let heard: HashSet<i32> = told.brokers.values().filter(answers).map(|broker| broker.nodeid).collect();
    let mut silent = HashSet::new();
    for topic in told.topics.into_values() {
        let of_topic = topic.partitions.values().filter(|of| of.partition >= 0 && !heard.contains(&of.leader));
        silent.extend(of_topic.map(|of| (topic.topic.clone(), of.partition)));
    }
    silent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_silent_whose_leader_is_away_or_says_nothing() {
        let hearing = Hearing::default();
        assert!(!hearing.is_silent("events", 0), "before anything is told");
        let broker = |id: i32, state: &str, idle: i64| {
            format!(r#""b{id}": {{"nodeid": {id}, "state": "{state}", "rxidle": {idle}, "tx": 7}}"#)
        };
        let brokers = [broker(1, "UP", 90_000), broker(2, "UP", 9_000_000), broker(3, "DOWN", 10), broker(4, "UP", -1)];
        let partitions: Vec<String> =
            (0..6).map(|at| format!(r#""{at}": {{"partition": {at}, "leader": {}}}"#, at - 1)).collect();
        let told = format!(
            r#"{{"brokers": {{{}}}, "topics": {{"events": {{"topic": "events", "partitions": {{{}}}}}}}}}"#,
            brokers.join(","),
            partitions.join(",")
        );
        hearing.stats_raw(told.as_bytes());
        let silent: Vec<i32> = (0..6).filter(|at| hearing.is_silent("events", *at)).collect();
        assert_eq!(silent, [0, 1, 3, 4, 5], "only the leader of partition 2 answers");
        hearing.stats_raw(b"{}");
        assert!(!hearing.is_silent("events", 0));
    }
}
