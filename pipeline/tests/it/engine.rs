//! The ClickHouse engine for tests: an existing one by `WEIR_TEST_CLICKHOUSE`, else the front of the workspace, started
//! as a child process. There is no skipping: without an engine the tests fail and say how to get one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// An engine that answers queries.
pub(crate) struct Engine {
    address: String,
}

static ENGINE: OnceLock<Engine> = OnceLock::new();

/// The engine of this test run, started by the first test that wants it.
pub(crate) fn engine() -> &'static Engine {
    ENGINE.get_or_init(Engine::start)
}

impl Engine {
    #[expect(clippy::zombie_processes, reason = "they live as long as this process")]
    fn start() -> Engine {
        if let Ok(url) = std::env::var("WEIR_TEST_CLICKHOUSE") {
            let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
            return Engine { address };
        }
        let program = front_program();
        let data = tempfile::tempdir().expect("a folder for the engine's data").keep();
        let mut child = Command::new(&program)
            .args(["--listen", "127.0.0.1:0", "--parent", &std::process::id().to_string(), "--path"])
            .arg(&data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{} doesn't start ({error}): build it with `cargo build -p weir-clickhouse`", program.display())
            });
        let mut lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
        let address = lines
            .find_map(|line| line.ok().filter(|line| line.contains("127.0.0.1:")))
            .expect("the front prints its address: is WEIR_LIBCHDB set to libchdb.so?");
        let address = address.rsplit(['/', ' ']).next().unwrap_or_default().to_owned();
        std::thread::spawn(move || lines.for_each(drop));
        // The front ends with this process; its folder is removed after it.
        let after = "while kill -0 \"$0\" 2>/dev/null; do sleep 1; done; rm -rf \"$1\"";
        let removal = Command::new("sh").args(["-c", after, &child.id().to_string()]).arg(&data).spawn();
        assert!(removal.is_ok(), "sh doesn't start");
        Engine { address }
    }

    /// Runs one statement; the answer in TabSeparated, or the engine's exception.
    pub(crate) fn query(&self, sql: &str) -> Result<String, String> {
        let mut stream = TcpStream::connect(&self.address).expect("the engine listens");
        let head = format!("POST / HTTP/1.0\r\nHost: {}\r\nContent-Length: {}\r\n\r\n", self.address, sql.len());
        stream.write_all(head.as_bytes()).expect("the engine reads");
        stream.write_all(sql.as_bytes()).expect("the engine reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the engine answers");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let status = head.split(' ').nth(1).unwrap_or_default();
        if status == "200" { Ok(body.to_owned()) } else { Err(body.to_owned()) }
    }
}

fn front_program() -> PathBuf {
    // Test binaries stand in target/<profile>/deps.
    let test = std::env::current_exe().expect("the path of this test");
    let folder = test.parent().and_then(|deps| deps.parent()).expect("target/<profile>");
    folder.join("weir-clickhouse")
}
