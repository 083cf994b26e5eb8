//! The ClickHouse engine behind ClickHouse's HTTP interface, in one process.
//!
//! For a laptop and for tests, where no `clickhouse-server` can be installed: libchdb is the real
//! engine as a shared library, this crate is its front. Drivers talk to it as to a server.
//!
//! ```text
//! cargo run -p weir-clickhouse -- --path ./data --listen 127.0.0.1:8123
//! ```
//!
//! The library is looked for in `WEIR_LIBCHDB`, else where `replay/parts/clickhouse.sh` puts it.
//! When the front is ready it prints its address, `http://127.0.0.1:8123`, as its last line.
//! `kill -TERM` ends it.
//!
//! Invariants:
//! - Memory is bounded: requests at once, statements at once, what a request's body and a held
//!   result keep in memory (the rest is in temporary files), pieces on their way to a slow client,
//!   and the size of a result that can't be streamed each have a limit.
//! - A body is read to its end before its statement starts: an upload that breaks off stores nothing.
//! - A reading statement whose client has gone is killed.
//!
//! Not there, and refused rather than ignored: external tables, `client_protocol_version`, several
//! statements in a request. Absent: the native protocol, TLS, users and grants beyond one account,
//! query ids that the engine knows, progress headers. Formats with one document around all rows
//! (JSON, Parquet, Pretty …) are made as a whole, up to `result_bytes_at_most`.
//!
//! The engine reads and writes any file that its user may (`file()`, `INTO OUTFILE`, database
//! `default`) and opens network connections: keep it on loopback and unprivileged.

mod connection;
mod encoding;
mod engine;
mod exception;
mod formats;
mod framing;
mod front;
mod outgoing;
mod parent;
mod request;
mod run;
mod session;
mod spool;
mod sql;
mod statement;

use std::path::PathBuf;
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;

pub use engine::{PACKAGE, SHA256};
pub use exception::Exception;
pub use front::Front;

/// How long statements may go on after SIGTERM before they are killed.
const GRACE: Duration = Duration::from_secs(5);

/// How the front is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// `libchdb.so`.
    pub library: PathBuf,
    /// The data folder; made when missing, used by one process at a time.
    pub data: PathBuf,
    /// Address and port, port 0 for a free one.
    pub listen: String,
    /// The one user and password to ask for; `None` lets everybody in as `default`.
    pub account: Option<(String, String)>,
    /// Statements on the engine at once; others wait.
    pub statements_at_once: u32,
    /// A larger request body is refused (bytes as sent, before decompression).
    pub body_bytes_at_most: u64,
    /// What a request body keeps in memory; the rest waits in a temporary file.
    pub body_bytes_in_memory: usize,
    /// Limit of a result that can't be streamed, in the engine's own representation.
    pub result_bytes_at_most: u64,
    /// Further arguments for every connection, such as `--max_threads=2`.
    pub engine_arguments: Vec<String>,
    /// End when this process ends.
    pub parent: Option<u32>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            library: default_library(),
            data: PathBuf::from("clickhouse-data"),
            listen: "127.0.0.1:8123".to_owned(),
            account: None,
            statements_at_once: 32,
            body_bytes_at_most: 2 << 30,
            body_bytes_in_memory: 4 << 20,
            result_bytes_at_most: 1 << 30,
            engine_arguments: Vec::new(),
            parent: None,
        }
    }
}

/// Where libchdb is: `WEIR_LIBCHDB`, else the cache folder of the local parts.
pub fn default_library() -> PathBuf {
    if let Some(path) = std::env::var_os("WEIR_LIBCHDB").filter(|path| !path.is_empty()) {
        return PathBuf::from(path);
    }
    let cache = match std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
    };
    cache.join("weir/parts/libchdb-26.7.3/libchdb.so")
}

/// What keeps the front from running.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine's library can't be opened.
    #[error(
        "cannot load the ClickHouse engine from {path}: {reason}. It is libchdb.so of the npm package {PACKAGE} \
         (sha256 {SHA256}): `replay/parts/clickhouse.sh fetch` gets it, WEIR_LIBCHDB names another place"
    )]
    Library { path: PathBuf, reason: String },
    /// The data folder can't be opened.
    #[error("cannot open the data folder {path}: {exception}")]
    Data { path: PathBuf, exception: Exception },
    /// The address can't be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: std::io::Error },
    /// The process to end with can't be watched.
    #[error("cannot watch process {parent}: {source}")]
    Parent { parent: u32, source: std::io::Error },
    /// Signals or connections can't be served.
    #[error("the front failed: {0}")]
    Serve(std::io::Error),
}

/// Serves until SIGTERM, SIGINT or the end of `options.parent`; prints the address when ready.
///
/// Statements that run get some seconds to end, then they are killed. Needs a tokio runtime with
/// several threads; end it with `shutdown_timeout`, since a statement that can't be killed keeps a
/// blocking thread.
///
/// # Errors
/// [`Error`], each with what to do.
pub async fn serve(options: Options) -> Result<(), Error> {
    let to_open = options.clone();
    let front = tokio::task::spawn_blocking(move || Front::open(&to_open))
        .await
        .map_err(|error| Error::Serve(std::io::Error::other(error)))??;
    let failed = |source| Error::Listen { address: options.listen.clone(), source };
    let listener = TcpListener::bind(&options.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let ended = ended(options.parent)?;
    // Answers are small and asked for one by one: Nagle's algorithm would add 40 ms to each.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    println!("clickhouse engine {} over {}", front.version(), options.data.display());
    println!("http://{address}");
    let (tell, mut told) = tokio::sync::watch::channel(());
    let serving = axum::serve(listener, front.router()).with_graceful_shutdown(async move {
        ended.await;
        drop(tell);
    });
    let patience_ended = async move {
        let _ = told.changed().await;
        tokio::time::sleep(GRACE).await;
    };
    let served = tokio::select! {
        served = serving => served,
        () = patience_ended => Ok(()),
    };
    if !front.close(GRACE).await {
        tracing::warn!("a statement did not end in time");
    }
    served.map_err(Error::Serve)
}

/// A future that is ready when a signal or the parent's end says to stop.
fn ended(parent: Option<u32>) -> Result<impl Future<Output = ()>, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Serve)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Serve)?;
    let parent = match parent {
        Some(parent) => Some(parent::Parent::watch(parent).map_err(|source| Error::Parent { parent, source })?),
        None => None,
    };
    Ok(async move {
        let parent_ended = async {
            match parent {
                Some(parent) => parent.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = parent_ended => {}
        }
    })
}
