//! The real parts on loopback: Apache Kafka, a schema registry, the ClickHouse engine behind its HTTP front.
//!
//! `weir demo` and every integration test start them here. The scripts are embedded in the binary and written to the
//! cache folder at use, so that the binary stands alone. A part may be killed and started again on the same port and
//! data, which is what the kill tests do.
//!
//! Invariants:
//! - Nothing listens anywhere but on 127.0.0.1.
//! - The parts end with the process that started them, however it ends: a shell beside them waits on a pipe that
//!   closes with this process, and stops what is left. They are in process groups of their own, so that Ctrl-C reaches
//!   only Weir.
//! - A folder's ports are remembered in it, so that a folder started again has the same addresses.

mod ports;
mod scripts;

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub use ports::Ports;

/// How long a killed or stopped process may take to vanish.
const GONE_WITHIN: Duration = Duration::from_secs(60);

/// One of the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The broker.
    Kafka,
    /// The schema registry.
    Registry,
    /// The ClickHouse engine.
    ClickHouse,
}

impl Part {
    /// Its name in messages and folders.
    pub fn name(self) -> &'static str {
        match self {
            Part::Kafka => "kafka",
            Part::Registry => "registry",
            Part::ClickHouse => "clickhouse",
        }
    }
}

/// What to start, and where.
#[derive(Clone, Debug, Default)]
pub struct PartsOptions {
    /// Data of all parts, below it; made when missing.
    pub folder: PathBuf,
    /// Start Kafka.
    pub kafka: bool,
    /// Start the registry, with its subjects kept below `folder`.
    pub registry: bool,
    /// Start the ClickHouse engine.
    pub clickhouse: bool,
    /// A file with further settings of the Kafka server, of which the last of a name wins; absent, none.
    pub kafka_settings: Option<PathBuf>,
    /// The command of the ClickHouse front, such as `weir clickhouse`; `--path`, `--listen` and `--parent` are added.
    /// Empty: `WEIR_CLICKHOUSE_FRONT`, else `weir-clickhouse` or `weir` beside this program.
    pub front: Vec<OsString>,
    /// Ports to use; absent, those of an earlier start in `folder`, else free ones.
    pub ports: Option<Ports>,
    /// Start fast rather than run fast: for tests, not for measurements.
    pub quick: bool,
    /// Remove `folder` at the end.
    pub temporary: bool,
}

/// Why a part isn't there.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// A file or folder.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A program couldn't be run at all.
    #[error("cannot run {program}: {source}")]
    Run {
        /// Which.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// A part was started and didn't become ready.
    #[error("{part} did not start: {said}")]
    NotReady {
        /// Its name.
        part: &'static str,
        /// The last lines that it wrote.
        said: String,
    },
    /// No program serves the ClickHouse engine.
    #[error(
        "no program for the ClickHouse engine: build `weir-clickhouse` or `weir` (cargo build --workspace), or name \
         one in WEIR_CLICKHOUSE_FRONT"
    )]
    NoFront,
    /// A process can't be ended.
    #[error("{part} (process {process}) can't be ended")]
    Stuck {
        /// Its name.
        part: &'static str,
        /// Its id.
        process: u32,
    },
    /// No two neighbouring ports are free.
    #[error("no free ports on 127.0.0.1")]
    NoPorts,
}

fn file(path: &Path) -> impl FnOnce(std::io::Error) -> PartsError + '_ {
    move |source| PartsError::File { path: path.to_owned(), source }
}

/// Parts that run; stopped when dropped, or when the process ends.
#[derive(Debug)]
pub struct Parts {
    options: PartsOptions,
    scripts: PathBuf,
    ports: Ports,
    front: Mutex<Option<Child>>,
    /// Stops what is left when its standard input closes.
    keeper: Mutex<Option<Child>>,
}

impl Parts {
    /// Starts what `options` ask for and waits until all of it answers. What is missing in the cache is fetched first.
    ///
    /// # Errors
    /// [`PartsError`]; what was started is stopped again.
    pub fn start(options: &PartsOptions) -> Result<Parts, PartsError> {
        let mut options = options.clone();
        std::fs::create_dir_all(&options.folder).map_err(file(&options.folder))?;
        options.folder = options.folder.canonicalize().map_err(file(&options.folder))?;
        let scripts = scripts::write_out()?;
        let ports = match options.ports {
            Some(ports) => ports,
            None => Ports::of_folder(&options.folder)?,
        };
        let mut parts = Parts { options, scripts, ports, front: Mutex::new(None), keeper: Mutex::new(None) };
        parts.keeper = Mutex::new(Some(parts.start_keeper()?));
        std::thread::scope(|scope| {
            let parts = &parts;
            let starting: Vec<_> =
                parts.wanted().into_iter().map(|part| scope.spawn(move || parts.restart(part))).collect();
            starting.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| {
                    Err(PartsError::NotReady { part: "a part", said: "its thread panicked".to_owned() })
                })
            })
        })?;
        Ok(parts)
    }

    fn wanted(&self) -> Vec<Part> {
        let options = &self.options;
        [(Part::Kafka, options.kafka), (Part::Registry, options.registry), (Part::ClickHouse, options.clickhouse)]
            .into_iter()
            .filter_map(|(part, is_wanted)| is_wanted.then_some(part))
            .collect()
    }

    /// Kafka's bootstrap address, `127.0.0.1:port`.
    pub fn kafka(&self) -> String {
        format!("127.0.0.1:{}", self.ports.kafka)
    }

    /// The registry's address, with the path of the Confluent-compatible interface.
    pub fn registry(&self) -> String {
        format!("http://127.0.0.1:{}/apis/ccompat/v7", self.ports.registry)
    }

    /// The ClickHouse front's address, `http://127.0.0.1:port`.
    pub fn clickhouse(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.clickhouse)
    }

    /// Where the parts keep their data.
    pub fn folder(&self) -> &Path {
        &self.options.folder
    }

    /// Starts `part` (again) on its port and data, and waits until it answers.
    ///
    /// # Errors
    /// [`PartsError::NotReady`] with what it wrote, and others before that.
    pub fn restart(&self, part: Part) -> Result<(), PartsError> {
        match part {
            Part::Kafka | Part::Registry => self.run_script(part, "start"),
            Part::ClickHouse => self.start_front(),
        }
    }

    /// Kills `part` as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// [`PartsError::Stuck`] when it stays.
    pub fn kill(&self, part: Part) -> Result<(), PartsError> {
        self.end(part, libc::SIGKILL)
    }

    /// Ends all parts, cleanly and side by side.
    ///
    /// # Errors
    /// [`PartsError::Stuck`] or a script's failure; the rest is stopped nevertheless.
    pub fn stop(&self) -> Result<(), PartsError> {
        let ended = std::thread::scope(|scope| {
            let ending: Vec<_> = self
                .wanted()
                .into_iter()
                .map(|part| {
                    scope.spawn(move || match part {
                        Part::ClickHouse => self.end(part, libc::SIGTERM),
                        Part::Kafka | Part::Registry => self.run_script(part, "stop"),
                    })
                })
                .collect();
            let ended: Vec<_> = ending.into_iter().map(|thread| thread.join().unwrap_or(Ok(()))).collect();
            // All are waited for, also when one of them fails.
            ended.into_iter().collect()
        });
        if let Some(mut keeper) = lock(&self.keeper).take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
        ended
    }

    fn data(&self, part: Part) -> PathBuf {
        self.options.folder.join(part.name())
    }

    /// The script of `part` with its settings.
    fn script(&self, part: Part) -> Command {
        let mut command = Command::new(self.scripts.join(format!("{}.sh", part.name())));
        let data = self.data(part);
        match part {
            Part::Kafka => {
                command
                    .env("KAFKA_PORT", self.ports.kafka.to_string())
                    .env("KAFKA_DATA", data)
                    .env("KAFKA_HEAP", "384m")
                    .env("KAFKA_WAIT", "180");
                if let Some(settings) = &self.options.kafka_settings {
                    command.env("KAFKA_CONF", settings);
                }
                if self.options.quick {
                    command.env("KAFKA_JVM", "-XX:TieredStopAtLevel=1");
                }
            }
            Part::Registry => {
                command
                    .env("REGISTRY_PORT", self.ports.registry.to_string())
                    .env("REGISTRY_DB", data.join("db"))
                    .env("REGISTRY_DATA", data)
                    .env("REGISTRY_WAIT", "300");
                if self.options.quick {
                    command.env("REGISTRY_JVM", "-XX:TieredStopAtLevel=1");
                }
            }
            Part::ClickHouse => {}
        }
        command.process_group(0).stdin(Stdio::null());
        command
    }

    fn run_script(&self, part: Part, word: &str) -> Result<(), PartsError> {
        let mut command = self.script(part);
        let output = command
            .arg(word)
            .output()
            .map_err(|source| PartsError::Run { program: format!("{}.sh", part.name()), source })?;
        if output.status.success() {
            return Ok(());
        }
        Err(PartsError::NotReady { part: part.name(), said: last_lines(&String::from_utf8_lossy(&output.stderr)) })
    }

    fn start_front(&self) -> Result<(), PartsError> {
        let words = self.front_command()?;
        let (program, arguments) = words.split_first().ok_or(PartsError::NoFront)?;
        let run = |source| PartsError::Run { program: program.to_string_lossy().into_owned(), source };
        let data = self.data(Part::ClickHouse);
        std::fs::create_dir_all(&data).map_err(file(&data))?;
        let log = data.join("front.log");
        let errors = std::fs::File::create(&log).map_err(file(&log))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg("--path")
            .arg(data.join("data"))
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", self.ports.clickhouse));
        command.arg("--parent").arg(std::process::id().to_string());
        command.env("WEIR_LIBCHDB", self.library()?);
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().map_err(run)?;
        let is_ready = child.stdout.take().is_some_and(|output| {
            let mut lines = BufReader::new(output).lines();
            lines.any(|line| line.is_ok_and(|line| line.starts_with("http://")))
        });
        let process = data.join("pid");
        std::fs::write(&process, child.id().to_string()).map_err(file(&process))?;
        if !is_ready {
            let _ = child.kill();
            let _ = child.wait();
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(PartsError::NotReady { part: Part::ClickHouse.name(), said: last_lines(&said) });
        }
        *lock(&self.front) = Some(child);
        Ok(())
    }

    /// The engine's library, fetched when it is in no place yet.
    fn library(&self) -> Result<PathBuf, PartsError> {
        let output = self.script(Part::ClickHouse).arg("fetch").stderr(Stdio::inherit()).output();
        let output = output.map_err(|source| PartsError::Run { program: "clickhouse.sh".to_owned(), source })?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match said.lines().last() {
            Some(path) if output.status.success() => Ok(PathBuf::from(path)),
            _ => Err(PartsError::NotReady {
                part: "clickhouse",
                said: "clickhouse.sh could not fetch the engine's library".to_owned(),
            }),
        }
    }

    fn front_command(&self) -> Result<Vec<OsString>, PartsError> {
        if !self.options.front.is_empty() {
            return Ok(self.options.front.clone());
        }
        if let Ok(command) = std::env::var("WEIR_CLICKHOUSE_FRONT")
            && !command.trim().is_empty()
        {
            return Ok(command.split_whitespace().map(OsString::from).collect());
        }
        // Tests are in target/debug/deps, binaries one above.
        let here = std::env::current_exe().map_err(file(Path::new("this program")))?;
        for folder in here.ancestors().skip(1).take(2) {
            for (name, word) in [("weir-clickhouse", None), ("weir", Some("clickhouse"))] {
                let program = folder.join(name);
                if program.is_file() {
                    return Ok(std::iter::once(program.into_os_string()).chain(word.map(OsString::from)).collect());
                }
            }
        }
        Err(PartsError::NoFront)
    }

    fn end(&self, part: Part, signal: libc::c_int) -> Result<(), PartsError> {
        if part == Part::ClickHouse {
            let Some(mut child) = lock(&self.front).take() else { return Ok(()) };
            let process = child.id();
            send(process, signal);
            return wait_until(|| matches!(child.try_wait(), Ok(Some(_)) | Err(_)), part, process);
        }
        let path = self.data(part).join("pid");
        let Some(process) = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()) else {
            return Ok(());
        };
        send(process, signal);
        wait_until(|| !is_running(process), part, process)
    }

    /// A shell that does nothing until this process ends, in whatever way.
    fn start_keeper(&self) -> Result<Child, PartsError> {
        const WORK: &str = r#"
            trap '' INT TERM HUP
            cat >/dev/null
            [ "$1" = no ] || KAFKA_DATA="$1" KAFKA_PORT="$2" "$0/kafka.sh" stop &
            [ "$3" = no ] || REGISTRY_DATA="$3" REGISTRY_PORT="$4" "$0/registry.sh" stop &
            wait
            [ "$5" = no ] || rm -rf "$5""#;
        let part = |part: Part, is_wanted: bool| {
            if is_wanted { self.data(part).into_os_string() } else { OsString::from("no") }
        };
        let mut command = Command::new("bash");
        command.arg("-c").arg(WORK).arg(&self.scripts);
        command.arg(part(Part::Kafka, self.options.kafka)).arg(self.ports.kafka.to_string());
        command.arg(part(Part::Registry, self.options.registry)).arg(self.ports.registry.to_string());
        command.arg(if self.options.temporary {
            self.options.folder.clone().into_os_string()
        } else {
            OsString::from("no")
        });
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map_err(|source| PartsError::Run { program: "bash".to_owned(), source })
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "a part could not be stopped");
        }
    }
}

/// One Kafka, registry and ClickHouse engine for all tests of a test program; started at first use, they end with it.
/// Each test uses topics, subjects and databases of its own.
///
/// # Panics
/// When they can't be started: a test can't go on without them.
#[allow(clippy::panic)]
pub fn shared() -> &'static Parts {
    static SHARED: OnceLock<Parts> = OnceLock::new();
    SHARED.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("weir-parts-{}", std::process::id()));
        let options = PartsOptions {
            folder,
            kafka: true,
            registry: true,
            clickhouse: true,
            quick: true,
            temporary: true,
            ..PartsOptions::default()
        };
        Parts::start(&options).unwrap_or_else(|error| panic!("the parts for the tests: {error}"))
    })
}

/// A name that no other test uses, for a topic, a subject or a database.
pub fn unique(name: &str) -> String {
    format!("{name}_{:08x}{:04x}", std::process::id(), fastrand::u16(..))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn send(process: u32, signal: libc::c_int) {
    if let Ok(process) = libc::pid_t::try_from(process) {
        // SAFETY: a plain system call; the process is one that we have started.
        unsafe { libc::kill(process, signal) };
    }
}

/// False when the process has ended with all its threads, also when nobody has asked for its exit code yet: a process
/// that is killed shows as a zombie while some of its threads still hold its ports.
fn is_running(process: u32) -> bool {
    let folder = PathBuf::from(format!("/proc/{process}"));
    let Ok(state) = std::fs::read_to_string(folder.join("stat")) else { return false };
    let is_zombie = state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
    !is_zombie || std::fs::read_dir(folder.join("task")).is_ok_and(|threads| threads.count() > 1)
}

fn wait_until(mut is_gone: impl FnMut() -> bool, part: Part, process: u32) -> Result<(), PartsError> {
    let until = Instant::now() + GONE_WITHIN;
    while !is_gone() {
        if Instant::now() > until {
            return Err(PartsError::Stuck { part: part.name(), process });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
