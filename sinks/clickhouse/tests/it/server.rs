//! A front in a process of its own on a free port, with a data folder that goes away with it.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: String,
    pub(crate) folder: tempfile::TempDir,
    _output: BufReader<ChildStdout>,
}

pub(crate) fn command(data: &std::path::Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-clickhouse"));
    command.arg("--path").arg(data).args(["--listen", "127.0.0.1:0"]).args(arguments).stdout(Stdio::piped());
    command
}

/// Reads what the front prints until its address comes.
pub(crate) fn address_of(child: &mut Child) -> (String, BufReader<ChildStdout>) {
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    loop {
        line.clear();
        assert!(output.read_line(&mut line).expect("output") > 0, "the front ended before it was ready");
        if line.starts_with("http://") {
            return (line.trim().to_owned(), output);
        }
    }
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Server {
        Server::start_in(tempfile::tempdir().expect("a folder"), arguments)
    }

    fn start_in(folder: tempfile::TempDir, arguments: &[&str]) -> Server {
        let mut child = command(&folder.path().join("data"), arguments).spawn().expect("started");
        let (address, output) = address_of(&mut child);
        Server { child, address, folder, _output: output }
    }

    /// One for all tests that don't need it to themselves; each uses a database of its own.
    pub(crate) fn shared() -> &'static Server {
        static SHARED: OnceLock<Server> = OnceLock::new();
        // Statics aren't dropped: the front ends with this process, its folder goes with the next one's start.
        SHARED.get_or_init(|| {
            let all = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
            for entry in std::fs::read_dir(all).expect("a folder").flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let owner = name.strip_prefix("shared-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
                if owner.is_some_and(|owner| !std::path::Path::new(&format!("/proc/{owner}")).exists()) {
                    let _ = std::fs::remove_dir_all(entry.path());
                }
            }
            let own = std::process::id().to_string();
            let folder = tempfile::Builder::new().prefix(&format!("shared-{own}-")).tempdir_in(all).expect("a folder");
            Server::start_in(folder, &["--parent", &own])
        })
    }

    pub(crate) fn url(&self, parameters: &[(&str, &str)]) -> String {
        let mut url = format!("{}/?", self.address);
        for (name, value) in parameters {
            url += &format!("{name}={}&", escape(value));
        }
        url
    }

    /// POSTs `body` and returns status, headers and text.
    pub(crate) async fn post(&self, parameters: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Answer {
        Answer::of(reqwest::Client::new().post(self.url(parameters)).body(body).send().await.expect("an answer")).await
    }

    pub(crate) async fn get(&self, parameters: &[(&str, &str)]) -> Answer {
        Answer::of(reqwest::Client::new().get(self.url(parameters)).send().await.expect("an answer")).await
    }

    /// The text of an answer that must be 200.
    pub(crate) async fn ask(&self, statement: &str) -> String {
        let answer = self.post(&[], statement.to_owned()).await;
        assert_eq!(answer.status, 200, "{statement}: {}", answer.text());
        answer.text()
    }

    pub(crate) async fn new_database(&self) -> String {
        let name = format!("t_{}", uuid::Uuid::new_v4().simple());
        self.ask(&format!("CREATE DATABASE {name}")).await;
        name
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) async fn of(response: reqwest::Response) -> Answer {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.bytes().await.expect("a body").to_vec() }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

fn escape(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
