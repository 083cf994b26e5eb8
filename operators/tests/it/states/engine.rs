//! The ClickHouse engine behind its HTTP front, as a process of its own.
//!
//! The front (`weir-clickhouse`) is a binary of this workspace and lies beside the tests; it finds the engine's
//! library in `WEIR_LIBCHDB` or in the cache of the local parts, and ends when this process ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A running engine with an empty data folder.
pub(super) struct Engine {
    front: Child,
    address: String,
    /// Held open, for what the front may print later.
    _lines: BufReader<ChildStdout>,
    _data: tempfile::TempDir,
}

/// `target/debug/weir-clickhouse`, seen from `target/debug/deps/it-...`.
fn front() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let binary = tests.ancestors().nth(2).unwrap().join("weir-clickhouse");
    assert!(binary.exists(), "{} is not there: cargo build -p weir-clickhouse", binary.display());
    binary
}

impl Engine {
    /// Starts an engine.
    pub(super) fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut front = Command::new(front())
            .args(["--listen", "127.0.0.1:0", "--parent", &std::process::id().to_string(), "--path"])
            .arg(data.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(front.stdout.take().unwrap());
        let (mut line, mut address) = (String::new(), None);
        while address.is_none() && lines.read_line(&mut line).unwrap() > 0 {
            // The last line is the address, with or without its scheme.
            let last = line.trim().trim_start_matches("http://").trim_end_matches('/');
            address = last.starts_with("127.0.0.1:").then(|| last.to_owned());
            line.clear();
        }
        let address = address.expect("weir-clickhouse says its address");
        Engine { front, address, _lines: lines, _data: data }
    }

    /// Sends a statement with a body and returns the answer, or what the engine said against it.
    pub(super) fn try_send(&self, statement: &str, body: &[u8]) -> Result<String, String> {
        let query: String = statement.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "POST /?query={query}&max_threads=1 HTTP/1.1\r\nHost: engine\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let head = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("an HTTP answer");
        let (head, body) = (String::from_utf8_lossy(&answer[..head]).to_lowercase(), &answer[head + 4..]);
        let body = if head.contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_vec() };
        let body = String::from_utf8(body).unwrap();
        if head.starts_with("http/1.1 200") { Ok(body) } else { Err(body) }
    }

    /// Sends a statement that has to succeed and returns the fields of the rows that it gives.
    pub(super) fn rows(&self, statement: &str) -> Vec<Vec<String>> {
        let answer = self.try_send(statement, b"").unwrap_or_else(|error| panic!("{statement}: {error}"));
        answer.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }

    /// Sends a statement that has to succeed, with a body.
    pub(super) fn send(&self, statement: &str, body: &[u8]) {
        self.try_send(statement, body).unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.front.kill();
        let _ = self.front.wait();
    }
}

fn unchunk(mut chunked: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(line) = chunked.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&chunked[..line]).unwrap().split(';').next().unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        whole.extend_from_slice(&chunked[line + 2..line + 2 + size]);
        chunked = &chunked[line + 4 + size..];
    }
    whole
}
