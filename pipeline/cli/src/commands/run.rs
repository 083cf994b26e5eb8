//! `weir run`: a pipeline until it is told to stop.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::EnvFilter;
use weir_pipeline::config::load::load;
use weir_pipeline::engine::Running;
use weir_pipeline::run::run as run_pipeline;

use super::replay::shown_replays;
use crate::out::say;
use crate::{OperatorRegistry, Outcome, runtime};

/// How it is run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Read to the log's end, close every window, exit.
    pub until_end: bool,
    /// Worker threads, instead of the file's.
    pub workers: Option<u16>,
    /// Log lines as JSON.
    pub log_json: bool,
}

/// Runs the pipeline of `file`.
pub(crate) fn run(file: &Path, options: Options, operators: OperatorRegistry) -> Outcome {
    log(options.log_json);
    let mut pipeline = match load(file) {
        Ok(pipeline) => pipeline,
        Err(problems) => return Outcome::problems(&problems),
    };
    pipeline.workers = options.workers.map_or(pipeline.workers, usize::from);
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(outcome) => return outcome,
    };
    let stop = Arc::new(AtomicBool::new(false));
    runtime.spawn(stop_on_signal(Arc::clone(&stop)));
    let replays = Some(shown_replays(file, &pipeline));
    let running = Running { until_end: options.until_end, replays, stop, ..Running::default() };
    match run_pipeline(&file.display().to_string(), &pipeline, &operators, &running) {
        Ok(summary) => {
            say!(
                "committed epochs {} to {}, {} rows undelivered",
                summary.first.0 + 1,
                summary.committed.0,
                summary.undelivered_rows
            );
            Outcome::done()
        }
        Err(error) => Outcome::of_error(&error),
    }
}

/// Log lines to standard error: for people at a terminal, else as JSON when asked. `RUST_LOG` filters them.
pub(crate) fn log(json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let lines = lines.with_ansi(console::colors_enabled_stderr());
    // A second call finds a subscriber in place, which is as good.
    let _ = if json { lines.json().try_init() } else { lines.compact().try_init() };
}

/// The first SIGTERM or Ctrl-C drains, the second ends at once: the next start resumes from the last commit.
pub(crate) async fn stop_on_signal(stop: Arc<AtomicBool>) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals can't be caught: the process ends without draining");
        return;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if stop.swap(true, Ordering::AcqRel) {
            std::process::exit(130);
        }
        tracing::info!("draining; once more ends at once");
    }
}
