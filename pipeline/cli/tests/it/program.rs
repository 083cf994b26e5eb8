//! Driving the program as a user does: child processes, their exit codes, what they print.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use weir_pipeline::status::Status;
use weir_replay::parts::{Parts, PartsOptions, Ports};

/// The program under test.
pub(crate) const WEIR: &str = env!("CARGO_BIN_EXE_weir");

/// Real Kafka, registry and ClickHouse engine for all tests of this program, whose front is the program itself.
pub(crate) fn parts() -> &'static Parts {
    static PARTS: OnceLock<Parts> = OnceLock::new();
    PARTS.get_or_init(|| {
        let options = PartsOptions {
            folder: std::env::temp_dir().join(format!("weir-it-{}", std::process::id())),
            kafka: true,
            registry: true,
            clickhouse: true,
            front: vec![WEIR.into(), "clickhouse".into()],
            quick: true,
            temporary: true,
            ..PartsOptions::default()
        };
        Parts::start(&options).unwrap()
    })
}

/// Says that a test does nothing here, and why. Not by the macro, whose lines a test that passes keeps to itself.
pub(crate) fn skipped(why: &str) {
    std::io::stderr().write_all(format!("SKIPPED: {why}\n").as_bytes()).unwrap();
}

/// How much a proof does: `quick` in `make test`, `full` when `WEIR_PROOF=full` asks for it, as `make proof` does.
pub(crate) fn size(quick: u64, full: u64) -> u64 {
    if std::env::var_os("WEIR_PROOF").is_some_and(|size| size == "full") { full } else { quick }
}

/// A finished command.
pub(crate) struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Done {
    pub(crate) fn of(output: Output) -> Done {
        Done {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The command must have ended well.
    #[track_caller]
    pub(crate) fn fine(self) -> Done {
        assert_eq!(self.code, 0, "out:\n{}\nerr:\n{}", self.out, self.err);
        self
    }

    /// The command must have ended with `code` and told each of `words`.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "out:\n{}\nerr:\n{}", self.out, self.err);
        for word in words {
            assert!(self.err.contains(word), "{word:?} is missing in:\n{}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }
}

/// Tests share the parts; one that takes them away is alone for as long.
static SHARED: RwLock<()> = RwLock::new(());

enum Turn {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

/// A folder with a pipeline, and the topic and database of its own that it uses.
pub(crate) struct Bench {
    pub folder: tempfile::TempDir,
    pub topic: String,
    pub database: String,
    http_port: u16,
    _turn: Turn,
}

impl Bench {
    /// A copy of the files below `from`.
    pub(crate) fn of(from: &Path, name: &str) -> Bench {
        Bench::with(from, name, Turn::Shared { _guard: SHARED.read().unwrap_or_else(PoisonError::into_inner) })
    }

    /// The same for a test that takes parts away: no other test runs beside it.
    pub(crate) fn alone(from: &Path, name: &str) -> Bench {
        Bench::with(from, name, Turn::Alone { _guard: SHARED.write().unwrap_or_else(PoisonError::into_inner) })
    }

    fn with(from: &Path, name: &str, turn: Turn) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        copy(from, folder.path());
        let unique = weir_replay::parts::unique(name);
        // Below the range that the system takes for outgoing connections, so that it is still free when it is used.
        let http_port = Ports::of_folder(folder.path()).unwrap().registry;
        Bench { folder, topic: unique.clone(), database: unique, http_port, _turn: turn }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("pipeline.toml")
    }

    /// A state folder and database like new, over the same topic.
    pub(crate) fn anew(&mut self, name: &str) {
        let state = self.folder.path().join("state");
        if state.exists() {
            std::fs::remove_dir_all(state).unwrap();
        }
        self.database = weir_replay::parts::unique(name);
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let parts = parts();
        let mut command = Command::new(WEIR);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("BROKERS", parts.kafka())
            .env("REGISTRY", parts.registry())
            .env("CLICKHOUSE", parts.clickhouse())
            .env("DATABASE", &self.database)
            .env("TOPIC", &self.topic)
            .env("HTTP_PORT", self.http_port.to_string())
            .env("WEIR_KAFKA", parts.kafka())
            .env("WEIR_REGISTRY", parts.registry())
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn weir(&self, arguments: &[&str]) -> Done {
        Done::of(self.command(arguments).output().unwrap())
    }

    /// Starts a command and leaves it running.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Replaces `from`, which has to be there, in the pipeline file.
    #[track_caller]
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.file()).unwrap();
        assert!(text.contains(from), "{from}");
        std::fs::write(self.file(), text.replace(from, to)).unwrap();
    }

    /// The address of a page of the running pipeline.
    pub(crate) fn page(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.http_port)
    }

    /// What the running pipeline says at `/status`; nothing while it doesn't answer.
    pub(crate) fn status(&self) -> Option<Status> {
        let url = self.page("/status");
        let text = block_on(async { reqwest::get(url).await.ok()?.text().await.ok() })?;
        serde_json::from_str(&text).ok()
    }

    /// Records that the ledger in ClickHouse knows; 0 while there is none.
    pub(crate) fn consumed(&self) -> u64 {
        let there = format!("SELECT count() FROM tables WHERE database = '{}' AND name = 'weir_ledger'", self.database);
        if clickhouse("system", &there, &[]) == "0" {
            return 0;
        }
        self.ask("SELECT sum(consumed) FROM weir_ledger").parse().unwrap_or(0)
    }

    /// Asks ClickHouse in this bench's database; the answer is tab-separated.
    #[track_caller]
    pub(crate) fn ask(&self, sql: &str) -> String {
        clickhouse(&self.database, sql, &[])
    }
}

/// Sends a statement to ClickHouse, with data behind an INSERT.
#[track_caller]
pub(crate) fn clickhouse(database: &str, sql: &str, data: &[u8]) -> String {
    let (url, sql, data) = (parts().clickhouse(), sql.to_owned(), data.to_vec());
    let url = format!("{url}/?database={database}&query={}", escaped(&sql));
    block_on(async {
        let answer = reqwest::Client::new().post(url).body(data).send().await.unwrap();
        let is_fine = answer.status().is_success();
        let text = answer.text().await.unwrap();
        assert!(is_fine, "{sql}\n{text}");
        text.trim_end().to_owned()
    })
}

/// Waits for `future` on the tests' one runtime.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Runtime::new().unwrap()).block_on(future)
}

/// SIGTERM, and the end with exit code 0.
#[track_caller]
pub(crate) fn terminate(running: &mut Child) {
    Command::new("kill").args(["-TERM", &running.id().to_string()]).status().unwrap();
    let mut code = None;
    wait_until("it stops", || {
        code = running.try_wait().unwrap();
        code.is_some()
    });
    assert_eq!(code.and_then(|status| status.code()), Some(0));
}

/// A statement as part of an address.
pub(crate) fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Waits until `is_so`, for a minute at most.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
