//! The HTTP address, asked over a real socket while a pipeline runs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use weir_pipeline::engine::{Running, execute};
use weir_pipeline::status::Status;

use crate::invented::{World, log};

/// An address that nobody has now.
pub(crate) fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").to_string()
}

/// The answer to a GET: its code and its body; `None` when nobody answers.
pub(crate) fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    Some((code, body.to_owned()))
}

/// What `/metrics` says when every event of the log was accepted.
const ACCEPTED: &str = "weir_records_total{source=\"events\",fate=\"accepted\"} 1000";

#[test]
fn the_pages_tell_what_the_pipeline_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = free_address();
    let world =
        World { until_end: false, http: Some(address.clone()), ..World::new(folder.path(), log(31, 2, 500), 2) };
    let running = Running::default();
    let stop = running.stop.clone();
    let asker = std::thread::spawn(move || {
        let began = Instant::now();
        let status = loop {
            assert!(began.elapsed() < Duration::from_secs(60), "never read to the end");
            let status = get(&address, "/status").and_then(|(_, json)| serde_json::from_str::<Status>(&json).ok());
            if let Some(status) = status
                && status.sources[0].partitions.len() == 2
                && status.sources[0].partitions.iter().all(|of| of.status.next_offset == of.status.end_offset)
                && status.delivered_epoch > 0
            {
                break status;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        // Fates are counted when their epoch ends, a little after the last record was read.
        let until = std::time::Instant::now() + Duration::from_secs(30);
        let mut metrics = get(&address, "/metrics").expect("metrics");
        while !metrics.1.contains(ACCEPTED) && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
            metrics = get(&address, "/metrics").expect("metrics");
        }
        let health = get(&address, "/healthz").expect("health");
        let ready = get(&address, "/readyz").expect("readiness");
        stop.store(true, Ordering::Release);
        (status, metrics, health, ready)
    });
    execute(world.plan(), &running).expect("drains");
    let (status, metrics, health, ready) = asker.join().expect("the asker");
    assert_eq!((status.pipeline.as_str(), status.sources[0].name.as_str()), ("invented", "events"));
    assert!(status.sources[0].watermark.is_some() && status.sources[0].held_back_by.is_some());
    assert_eq!((health.0, ready.0, metrics.0), (200, 200, 200));
    assert!(metrics.1.contains(ACCEPTED), "{}", metrics.1);
    assert!(metrics.1.contains("weir_ledger_imbalances_total 0"), "{}", metrics.1);
}

#[test]
fn an_address_that_is_taken_is_told_before_anything_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let world = World { http: Some(address.clone()), ..World::new(folder.path(), log(32, 1, 10), 1) };
    let error = execute(world.plan(), &Running::default()).expect_err("refused");
    assert_eq!((error.code(), error.exit_code()), ("W011", 2));
    assert!(error.to_string().contains(&address), "{error}");
}
