//! `weir alerts send`: the file's senders, each on a thread of its own, so that one whose receiver is away holds up nobody.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use weir_pipeline::alerts::send::{Sending, send};
use weir_pipeline::error::Error;

use super::super::run::{log, stop_on_signal};
use super::{Send, pipeline};
use crate::out::say;
use crate::{Outcome, paint, runtime};

pub(super) fn run(arguments: &Send) -> Result<Outcome, Outcome> {
    log(arguments.log_json);
    let pipeline = pipeline(&arguments.file)?;
    let names: Vec<String> =
        if arguments.to.is_empty() { pipeline.senders.keys().cloned().collect() } else { arguments.to.clone() };
    if names.is_empty() {
        return Err(Outcome::refused(
            format!("{} has no senders", arguments.file.display()),
            "add a section such as [senders.chat] with kind = \"slack\" and url = \"${SLACK_URL}\"",
        ));
    }
    let runtime = runtime()?;
    let stop = Arc::new(AtomicBool::new(false));
    runtime.spawn(stop_on_signal(Arc::clone(&stop)));
    let sending =
        Sending { until_end: arguments.until_end, from_beginning: arguments.from_beginning, stop: Arc::clone(&stop) };
    let results: Vec<Result<_, Error>> = std::thread::scope(|scope| {
        let threads: Vec<_> = names
            .iter()
            .map(|name| {
                let (pipeline, sending) = (&pipeline, &sending);
                scope.spawn(move || {
                    let result = send(pipeline, name, sending);
                    if let Err(error) = &result {
                        tracing::error!(sender = name, code = error.code(), %error, "a sender ended");
                    }
                    result
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                let ended = || Error::Worker { detail: "the thread of a sender".to_owned() };
                thread.join().unwrap_or_else(|_| Err(ended()))
            })
            .collect()
    });
    let mut failed = None;
    for (name, result) in names.iter().zip(results) {
        match result {
            Ok(sent) => say!("{} told {}, skipped {}", paint::bold(name), sent.told, sent.skipped),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        None => Ok(Outcome::done()),
        Some(error) => Err(Outcome::of_error(&error)),
    }
}
