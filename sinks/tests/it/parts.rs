//! The real parts that these tests need: those that `WEIR_TEST_CLICKHOUSE` (an HTTP address) and `WEIR_TEST_KAFKA` (a
//! bootstrap address) name, or else ones of their own, started once per run on free ports.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde::de::DeserializeOwned;
use weir_sinks::clickhouse::{Client, Settings};

/// A client of a new, empty database.
pub(crate) async fn database() -> Client {
    let database = format!("sinks_{:016x}", fastrand::u64(..));
    let client = client(clickhouse(), &database);
    client.create_database().await.expect("a database");
    client
}

pub(crate) fn client(url: &str, database: &str) -> Client {
    let settings = Settings {
        url: url.to_owned(),
        database: database.to_owned(),
        user: None,
        password: None,
        authorities_pem: None,
    };
    Client::new(&settings).expect("good settings")
}

/// The rows of a query, in which `{db}` stands for the database.
pub(crate) async fn rows<T: DeserializeOwned>(client: &Client, sql: &str) -> Vec<T> {
    client.select(&sql.replace("{db}", client.database())).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// The rows of a query as text, one line each.
pub(crate) async fn lines(client: &Client, sql: &str) -> Vec<String> {
    let rows: Vec<serde_json::Value> = rows(client, &format!("SELECT toString(tuple(*)) AS line FROM ({sql})")).await;
    rows.iter().map(|row| row["line"].as_str().unwrap_or_default().to_owned()).collect()
}

fn clickhouse() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| std::env::var("WEIR_TEST_CLICKHOUSE").unwrap_or_else(|_| start_clickhouse()))
}

/// Starts the front that was built beside this test; it ends with this process.
#[expect(clippy::zombie_processes, reason = "it lives as long as this process")]
fn start_clickhouse() -> String {
    let program = beside("weir-clickhouse");
    assert!(program.exists(), "{} is missing: cargo build -p weir-clickhouse", program.display());
    let library = script("clickhouse.sh", &["fetch"], &[]);
    let folder = own_folder("clickhouse");
    let mut child = Command::new(&program)
        .args(["--listen", "127.0.0.1:0", "--path"])
        .arg(&folder)
        .args(["--parent", &std::process::id().to_string(), "--library", &library])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the front starts");
    when_we_end(&format!("wait_for {}; rm -rf '{}'", child.id(), folder.display()));
    let output = child.stdout.take().expect("piped");
    let mut printed = BufReader::new(output).lines().map_while(Result::ok);
    printed.find(|line| line.starts_with("http://")).expect("the front prints its address")
}

/// The bootstrap address of a Kafka node.
pub(crate) fn kafka() -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| std::env::var("WEIR_TEST_KAFKA").unwrap_or_else(|_| start_kafka()))
}

/// Starts a node; it ends with this process.
fn start_kafka() -> String {
    let folder = own_folder("kafka");
    let data = folder.join("data").to_string_lossy().into_owned();
    let port = free_ports().to_string();
    let environment = [
        ("KAFKA_PORT", port.as_str()),
        ("KAFKA_DATA", &data),
        ("KAFKA_HEAP", "384m"),
        ("KAFKA_JVM", "-XX:TieredStopAtLevel=1"),
    ];
    let wipe = path_of("kafka.sh").display().to_string();
    when_we_end(&format!("KAFKA_DATA='{data}' KAFKA_PORT={port} '{wipe}' wipe; rm -rf '{}'", folder.display()));
    script("kafka.sh", &["start"], &environment)
}

/// The first of two ports that nobody listens on: one for the broker, the next for its controller.
fn free_ports() -> u16 {
    for _ in 0..100 {
        let listen = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).ok();
        let Some(first) = listen(fastrand::u16(20_000..30_000)) else { continue };
        let port = first.local_addr().expect("an address").port();
        if listen(port + 1).is_some() {
            return port;
        }
    }
    panic!("no two free ports in a row");
}

/// Has a shell run `command` when this process has ended, however it ends; in it `wait_for PID` waits for another.
#[expect(clippy::zombie_processes, reason = "it outlives this process")]
fn when_we_end(command: &str) {
    let wait = "wait_for() { while kill -0 \"$1\" 2>/dev/null; do sleep 0.2; done; }";
    Command::new("bash")
        .args(["-c", &format!("{wait}; wait_for {}; {command}", std::process::id())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("bash");
}

/// Runs a script of the local parts and returns the last line that it prints.
fn script(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let path = path_of(name);
    let output = Command::new(&path)
        .args(arguments)
        .envs(environment.iter().copied())
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(output.status.success(), "{name} {arguments:?} failed");
    String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned()
}

fn path_of(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../replay/parts").join(script)
}

/// A program in the folder where cargo puts this workspace's programs.
fn beside(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let folder = test.ancestors().nth(2).expect("deps lies within it");
    folder.join(name)
}

/// A folder that no other run uses.
fn own_folder(name: &str) -> PathBuf {
    let folder = tempfile::Builder::new().prefix(name).tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    folder.keep()
}
