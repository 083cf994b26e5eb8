//! The command line: arguments in, one call into a library, a report out.
//!
//! A team that has operators of its own builds its own `weir`: a `main` of one call to [`main`], with its operators
//! registered.
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     weir::main(weir::OperatorRegistry::default())
//! }
//! ```

mod args;
mod commands;
mod cookbook;
mod out;
mod paint;
mod prepare;
mod screen;

use std::io::Write;
use std::process::ExitCode;

use crate::out::complain;
use clap::Parser;
use weir_pipeline::error::Error;
use weir_pipeline::problem::Problem;

pub use weir_pipeline::custom::{CustomOperator, OperatorRegistry};

use args::{Cli, Command};

/// Runs the program with the operators of `operators` besides the built-in ones.
pub fn main(operators: OperatorRegistry) -> ExitCode {
    let cli = Cli::parse();
    paint::decide();
    let outcome = match cli.command {
        Command::Demo(demo) => commands::demo::run(&demo, operators),
        Command::Init { folder } => commands::init::run(&folder),
        Command::Check { file, offline } => commands::check::run(&file, offline, &operators),
        Command::Tap(tap) => commands::tap::run(&tap, &operators),
        Command::Test(test) => commands::test::run(&test, &operators),
        Command::Run { file, until_end, workers, log_json } => {
            commands::run::run(&file, commands::run::Options { until_end, workers, log_json }, operators)
        }
        Command::Status { file, json } => commands::status::run(&file, json),
        Command::Verify { file, view, show, tolerance } => {
            let options = weir_replay::verify::Options { show, tolerance, live: true };
            commands::verify::run(&file, &view, options)
        }
        Command::Query(query) => commands::query::run(&query),
        Command::Explain(explained) => commands::explain::run(&explained),
        Command::Lineage { file, json } => commands::lineage::run(&file, json, &operators),
        Command::Detect(detect) => commands::detect::run(&detect),
        Command::Archive(archive) => commands::archive::run(&archive),
        Command::Alerts(alerts) => commands::alerts::run(&alerts),
        Command::Plan(plan) => commands::plan::run(&plan),
        Command::Quarantine(quarantine) => commands::quarantine::run(&quarantine),
        Command::Replay(replay) => commands::replay::run(&replay, &operators),
        Command::Diff(diff) => commands::diff::run(&diff),
        Command::Swap(swap) => commands::swap::run(&swap, &operators),
        Command::Produce(produce) => commands::produce::run(&produce),
        Command::Clickhouse(clickhouse) => commands::clickhouse::run(&clickhouse),
        Command::Completions { shell } => commands::completions::run(shell),
    };
    leave(outcome.tell())
}

/// Ends the process at once. A normal end would also destroy the globals of RocksDB and librdkafka, while threads that nobody
/// waits for may still use them: a lock that is gone then aborts a program that has done everything.
fn leave(code: u8) -> ExitCode {
    let _ = std::io::stdout().flush();
    let _ = std::io::stderr().flush();
    // SAFETY: nothing of ours runs after it; what has to be durable was synced when it was committed.
    unsafe { libc::_exit(code.into()) }
}

/// How a command ended: an exit code, and for people what went wrong and what to do.
#[derive(Debug)]
pub struct Outcome {
    code: u8,
    message: Option<String>,
}

impl Outcome {
    fn done() -> Outcome {
        Outcome { code: 0, message: None }
    }

    fn is_done(&self) -> bool {
        self.code == 0
    }

    /// A difference was found; the report is printed already.
    fn different() -> Outcome {
        Outcome { code: 5, message: None }
    }

    /// What the person gave can't be used.
    fn refused(what: impl Into<String>, remedy: impl Into<String>) -> Outcome {
        Outcome::told(2, what, remedy)
    }

    /// A part around Weir can't be used.
    fn unreachable(what: impl Into<String>, remedy: impl Into<String>) -> Outcome {
        Outcome::told(3, what, remedy)
    }

    fn told(code: u8, what: impl Into<String>, remedy: impl Into<String>) -> Outcome {
        let message = format!("{}: {}\n  remedy: {}", paint::bad("error"), what.into(), remedy.into());
        Outcome { code, message: Some(message) }
    }

    /// Problems of the pipeline file, each with place and remedy.
    fn problems(problems: &[Problem]) -> Outcome {
        let mut message = String::new();
        for problem in problems {
            message.push_str(&format!("{}: {problem}\n\n", paint::bad("problem")));
        }
        message.push_str(&format!("{} found", counted(problems.len(), "problem")));
        Outcome { code: 2, message: Some(message) }
    }

    fn of_error(error: &Error) -> Outcome {
        match error {
            Error::Config(problems) => Outcome::problems(problems),
            other => Outcome {
                code: other.exit_code(),
                message: Some(format!("{} {}: {other}", paint::bad("error"), other.code())),
            },
        }
    }

    /// Both, with the code of the first.
    fn and(self, other: Outcome) -> Outcome {
        let told = [self.message, other.message].into_iter().flatten().collect::<Vec<_>>();
        Outcome { code: self.code, message: (!told.is_empty()).then(|| told.join("\n")) }
    }

    /// What went wrong, without colours.
    fn into_text(self) -> String {
        console::strip_ansi_codes(&self.message.unwrap_or_default()).into_owned()
    }

    fn tell(self) -> u8 {
        if let Some(message) = self.message {
            complain!("{message}");
        }
        self.code
    }
}

/// `1 problem`, `2 problems`.
fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A runtime for a command's few calls over the network.
fn runtime() -> Result<tokio::runtime::Runtime, Outcome> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(|error| {
        Outcome::told(1, format!("threads: {error}"), "the system allows too few threads: raise the limit")
    })
}
