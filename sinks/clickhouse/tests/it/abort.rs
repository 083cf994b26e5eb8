//! Clients that go away, and limits.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::server::Server;

fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address.trim_start_matches("http://")).expect("connected")
}

async fn running(server: &Server, mark: &str) -> u64 {
    let count = server.ask(&format!("SELECT count() FROM system.processes WHERE position(query, '{mark}') > 0 AND position(query, 'system.processes') = 0")).await;
    count.trim().parse().expect("a number")
}

async fn wait_for(server: &Server, mark: &str, wanted: u64) {
    let until = Instant::now() + Duration::from_secs(20);
    while running(server, mark).await != wanted {
        assert!(Instant::now() < until, "{mark}: still not {wanted} running");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An aggregation sends nothing for minutes: only KILL can end it.
#[tokio::test]
async fn a_query_ends_with_its_client() {
    let server = Server::shared();
    let mut socket = connect(server);
    let statement = "SELECT 'abandoned_one', sum(cityHash64(number)) FROM numbers(1000000000000)";
    write!(socket, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{statement}", statement.len())
        .expect("sent");
    wait_for(server, "abandoned_one", 1).await;
    drop(socket);
    wait_for(server, "abandoned_one", 0).await;
}

/// A client that stops reading holds a bounded part of the result back in the engine; when it goes, the query goes.
#[tokio::test]
async fn a_slow_reader_holds_the_engine_back() {
    let server = Server::start(&["--statements", "2"]);
    let mut socket = connect(&server);
    let statement = "SELECT 'slow_one', number, repeat('x', 1000) FROM numbers(100000000)";
    write!(socket, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{statement}", statement.len())
        .expect("sent");
    socket.read_exact(&mut [0; 4096]).expect("the first rows");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(running(&server, "slow_one").await, 1);
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).expect("status");
    let resident_kib: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok())
        .expect("VmRSS");
    assert!(resident_kib < 1_500_000, "{resident_kib} KiB for a result of 100 GB");
    drop(socket);
    wait_for(&server, "slow_one", 0).await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_stores_nothing() {
    let server = Server::start(&["--body-memory", "1000"]);
    server.ask("CREATE DATABASE d").await;
    server.ask("CREATE TABLE d.t (n UInt64) ENGINE = MergeTree ORDER BY n").await;
    let mut socket = connect(&server);
    let rows: String = (0..3_000_000).map(|n| format!("{n}\n")).collect();
    write!(
        socket,
        "POST /?query=INSERT+INTO+d.t+FORMAT+TSV HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        rows.len() + 1
    )
    .expect("sent");
    socket.write_all(rows.as_bytes()).expect("sent");
    drop(socket);
    // Chunked, without the last chunk.
    let mut socket = connect(&server);
    write!(socket, "POST /?query=INSERT+INTO+d.t+FORMAT+TSV HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1\n2\n\r\n").expect("sent");
    drop(socket);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(server.ask("SELECT count() FROM d.t").await, "0\n");
    // The same rows whole, through a temporary file.
    let answer = server.post(&[("query", "INSERT INTO d.t FORMAT TSV")], rows).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(server.ask("SELECT count(), max(n) FROM d.t").await, "3000000\t2999999\n");
}

#[tokio::test]
async fn limits_answer_clearly() {
    let server = Server::start(&["--body-bytes", "1000000", "--result-bytes", "1000000"]);
    server.ask("CREATE TABLE default.t (s String) ENGINE = MergeTree ORDER BY s").await;
    let answer = server.post(&[("query", "INSERT INTO t FORMAT TSV")], vec![b'x'; 1_000_001]).await;
    assert_eq!((answer.status, answer.header("x-clickhouse-exception-code")), (413, "307"), "{}", answer.text());
    assert_eq!(server.ask("SELECT count() FROM t").await, "0\n");
    let answer = server.post(&[], "SELECT number FROM numbers(1000000) FORMAT JSON").await;
    assert_eq!(answer.header("x-clickhouse-exception-code"), "396", "{}", answer.text());
    assert_eq!(server.ask("SELECT number FROM numbers(1000000)").await.lines().count(), 1_000_000);
    // wait_end_of_query gives a failure behind the first rows a status of its own.
    let late = "SELECT throwIf(number = 2500000) FROM numbers(3000000) SETTINGS max_block_size = 10000";
    let answer = server.post(&[("wait_end_of_query", "1")], late).await;
    assert_eq!((answer.status, answer.header("x-clickhouse-exception-code")), (500, "395"));
}
