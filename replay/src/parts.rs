//! Real parts on loopback: Apache Kafka, a schema registry, the ClickHouse engine behind its front.
//!
//! For `weir demo` and for tests. The scripts that know how to start them are built into the program and written out to
//! the cache folder when they are used, so that the binary stands alone.
//!
//! Invariants: every part keeps its data below the folder that was given, so that a second start goes on where the
//! first one was; only loopback is listened on; dropping [`Parts`] stops what it started.
//!
//! Not here: parts that somebody else runs.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SCRIPTS: [(&str, &str); 5] = [
    ("kafka.sh", include_str!("../parts/kafka.sh")),
    ("pom.xml", include_str!("../parts/pom.xml")),
    ("log4j2.properties", include_str!("../parts/log4j2.properties")),
    ("registry.sh", include_str!("../parts/registry.sh")),
    ("clickhouse.sh", include_str!("../parts/clickhouse.sh")),
];

/// How long the engine's front may take to answer; it reads its data folder first.
const FRONT_READY_WITHIN: Duration = Duration::from_secs(60);

/// Which parts to start, and where they keep their data.
#[derive(Clone, Debug)]
pub struct PartsOptions {
    /// Folder of all data.
    pub folder: PathBuf,
    /// Start Kafka.
    pub kafka: bool,
    /// Start the registry.
    pub registry: bool,
    /// Start the ClickHouse engine, with this program: `weir`, whose subcommand `clickhouse` is the front.
    pub clickhouse: Option<PathBuf>,
    /// Ports by part: Kafka (and the next one), the registry (and the next one), ClickHouse.
    pub ports: Ports,
    /// Start fast rather than run fast: for tests.
    pub quick: bool,
}

/// Ports on loopback.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Kafka's; its controller takes the next one.
    pub kafka: u16,
    /// The registry's; its management interface takes the next one.
    pub registry: u16,
    /// ClickHouse's.
    pub clickhouse: u16,
}

impl Ports {
    /// Ports that nobody uses right now. Another process may take one before the part does; the part then says so.
    pub fn free() -> Ports {
        Ports { kafka: free_pair(), registry: free_pair(), clickhouse: free_pair() }
    }
}

/// A port that is free together with the one behind it.
fn free_pair() -> u16 {
    for _ in 0..100 {
        let Ok(first) = TcpListener::bind(("127.0.0.1", 0)) else { continue };
        let Ok(port) = first.local_addr().map(|address| address.port()) else { continue };
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
    0
}

/// Why a part could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its script or program ended with an error; what it said is told.
    #[error("{part} could not be started: {detail}")]
    Start {
        /// The part.
        part: &'static str,
        /// What it said.
        detail: String,
    },
    /// The scripts could not be written or run.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
}

/// Running parts; dropping them stops them.
pub struct Parts {
    options: PartsOptions,
    scripts: PathBuf,
    front: Option<Child>,
}

impl Parts {
    /// Starts the wanted parts and waits until each one answers. `tell` hears which part is being started.
    ///
    /// # Errors
    /// Which part, and what it said.
    pub fn start(options: PartsOptions, tell: &dyn Fn(&str)) -> Result<Parts, Error> {
        let scripts = write_scripts()?;
        std::fs::create_dir_all(&options.folder)
            .map_err(|error| Error::File { path: options.folder.clone(), error })?;
        let folder = std::path::absolute(&options.folder)
            .map_err(|error| Error::File { path: options.folder.clone(), error })?;
        let mut parts = Parts { options: PartsOptions { folder, ..options }, scripts, front: None };
        if parts.options.clickhouse.is_some() {
            tell("the ClickHouse engine");
            parts.start_clickhouse()?;
        }
        if parts.options.kafka {
            tell("Apache Kafka");
            parts.start_kafka()?;
        }
        if parts.options.registry {
            tell("the schema registry");
            parts.start_registry()?;
        }
        Ok(parts)
    }

    /// Kafka's address.
    pub fn kafka(&self) -> String {
        format!("127.0.0.1:{}", self.options.ports.kafka)
    }

    /// The registry's address.
    pub fn registry(&self) -> String {
        format!("http://127.0.0.1:{}/apis/ccompat/v7", self.options.ports.registry)
    }

    /// ClickHouse's address.
    pub fn clickhouse(&self) -> String {
        format!("http://127.0.0.1:{}", self.options.ports.clickhouse)
    }

    /// Starts Kafka, or finds it running.
    ///
    /// # Errors
    /// What its script said.
    pub fn start_kafka(&self) -> Result<(), Error> {
        self.script("Kafka", "kafka.sh", "start").map(drop)
    }

    /// Ends Kafka at once, as a power cut of the process would.
    ///
    /// # Errors
    /// When it isn't running.
    pub fn kill_kafka(&self) -> Result<(), Error> {
        self.kill("Kafka", "kafka")
    }

    /// Starts the registry, or finds it running.
    ///
    /// # Errors
    /// What its script said.
    pub fn start_registry(&self) -> Result<(), Error> {
        self.script("the registry", "registry.sh", "start").map(drop)
    }

    /// Ends the registry at once.
    ///
    /// # Errors
    /// When it isn't running.
    pub fn kill_registry(&self) -> Result<(), Error> {
        self.kill("the registry", "registry")
    }

    /// Starts the ClickHouse engine's front as a child that ends with this process, and waits until it answers.
    ///
    /// # Errors
    /// What it said.
    pub fn start_clickhouse(&mut self) -> Result<(), Error> {
        let part = "the ClickHouse engine";
        let Some(program) = self.options.clickhouse.clone() else { return Ok(()) };
        let library = self.script(part, "clickhouse.sh", "fetch")?;
        let log = self.options.folder.join("clickhouse.log");
        let file = std::fs::File::create(&log).map_err(|error| Error::File { path: log.clone(), error })?;
        let child = Command::new(&program)
            .arg("clickhouse")
            .arg("--path")
            .arg(self.options.folder.join("clickhouse"))
            .args(["--listen", &format!("127.0.0.1:{}", self.options.ports.clickhouse)])
            .args(["--parent", &std::process::id().to_string()])
            .env("WEIR_LIBCHDB", library.trim())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .map_err(|error| Error::File { path: program, error })?;
        self.front = Some(child);
        let until = Instant::now() + FRONT_READY_WITHIN;
        while Instant::now() < until {
            if std::net::TcpStream::connect(("127.0.0.1", self.options.ports.clickhouse)).is_ok() {
                return Ok(());
            }
            let ended = self.front.as_mut().and_then(|front| front.try_wait().ok().flatten());
            if ended.is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        Err(Error::Start { part, detail: last_lines(&said) })
    }

    /// Ends the ClickHouse engine at once.
    pub fn kill_clickhouse(&mut self) {
        if let Some(mut front) = self.front.take() {
            let _ = front.kill();
            let _ = front.wait();
        }
    }

    /// Stops everything that was started, cleanly.
    pub fn stop(&mut self) {
        if self.options.registry {
            let _ = self.script("the registry", "registry.sh", "stop");
        }
        if self.options.kafka {
            let _ = self.script("Kafka", "kafka.sh", "stop");
        }
        if let Some(mut front) = self.front.take() {
            let _ = Command::new("kill").args(["-TERM", &front.id().to_string()]).status();
            let _ = front.wait();
        }
    }

    /// Runs a part's script and returns the last line that it printed.
    fn script(&self, part: &'static str, name: &str, verb: &str) -> Result<String, Error> {
        let folder = &self.options.folder;
        let ports = self.options.ports;
        let path = self.scripts.join(name);
        let mut command = Command::new("bash");
        command
            .arg(&path)
            .arg(verb)
            .env("KAFKA_PORT", ports.kafka.to_string())
            .env("KAFKA_DATA", folder.join("kafka"))
            .env("REGISTRY_PORT", ports.registry.to_string())
            .env("REGISTRY_DATA", folder.join("registry"))
            .env("REGISTRY_DB", folder.join("registry-database"))
            .stdin(Stdio::null());
        if self.options.quick {
            command.env("KAFKA_JVM", "-XX:TieredStopAtLevel=1").env("REGISTRY_JVM", "-XX:TieredStopAtLevel=1");
        }
        // Through files and not pipes: the part inherits them, and a pipe would not end before the part does.
        let said = folder.join(format!("{name}.log"));
        let file = || std::fs::File::create(&said).map_err(|error| Error::File { path: said.clone(), error });
        let out = file()?;
        let err = out.try_clone().map_err(|error| Error::File { path: said.clone(), error })?;
        let status = command.stdout(out).stderr(err).status().map_err(|error| Error::File { path, error })?;
        let text = std::fs::read_to_string(&said).unwrap_or_default();
        if status.success() {
            Ok(text.lines().last().unwrap_or_default().to_owned())
        } else {
            Err(Error::Start { part, detail: last_lines(&text) })
        }
    }

    fn kill(&self, part: &'static str, folder: &str) -> Result<(), Error> {
        let path = self.options.folder.join(folder).join("pid");
        let pid = std::fs::read_to_string(&path).map_err(|error| Error::File { path, error })?;
        let killed = Command::new("kill").args(["-KILL", pid.trim()]).status();
        if killed.is_ok_and(|status| status.success()) {
            return Ok(());
        }
        Err(Error::Start { part, detail: format!("no process {}", pid.trim()) })
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Writes the scripts out, all at once under a name of their contents, so that two versions can run beside each other.
fn write_scripts() -> Result<PathBuf, Error> {
    let cache = match std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
    };
    let contents: Vec<u8> = SCRIPTS.iter().flat_map(|(_, text)| text.bytes()).collect();
    let folder = cache.join("weir/parts").join(format!("scripts-{:016x}", xxhash_rust::xxh3::xxh3_64(&contents)));
    if folder.is_dir() {
        return Ok(folder);
    }
    let fresh = folder.with_extension(std::process::id().to_string());
    let write = |path: &Path, text: &str| {
        std::fs::write(path, text).map_err(|error| Error::File { path: path.to_owned(), error })
    };
    std::fs::create_dir_all(&fresh).map_err(|error| Error::File { path: fresh.clone(), error })?;
    for (name, text) in SCRIPTS {
        write(&fresh.join(name), text)?;
        make_executable(&fresh.join(name));
    }
    if std::fs::rename(&fresh, &folder).is_err() {
        // Another process was first with the same contents.
        let _ = std::fs::remove_dir_all(&fresh);
    }
    Ok(folder)
}

/// `kafka.sh cds` calls itself by its path.
fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755));
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(8)..].join("\n  ")
}
