//! `weir status`: what a running pipeline says of itself.

use std::path::Path;
use std::time::Duration;

use weir_pipeline::config::load::load;
use weir_pipeline::status::{ArchiveStatus, Status};
use weir_schemas::time::EventTime;

use crate::commands::archive::retention;
use crate::out::say;
use crate::{Outcome, paint, runtime};

/// How long the pipeline may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Asks the pipeline of `file` and prints what it answers.
pub(crate) fn run(file: &Path, json: bool) -> Outcome {
    let pipeline = match load(file) {
        Ok(pipeline) => pipeline,
        Err(problems) => return Outcome::problems(&problems),
    };
    let Some(address) = &pipeline.http else {
        return Outcome::refused(
            format!("{} has no `http`", file.display()),
            "add an address such as http = \"127.0.0.1:9464\" and start the pipeline again",
        );
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(outcome) => return outcome,
    };
    let text = match runtime.block_on(fetch(address, pipeline.http_token.as_deref())) {
        Ok(text) => text,
        Err(NoStatus { why, .. }) => {
            return Outcome::unreachable(
                format!("the pipeline doesn't answer at {address}: {why}"),
                "start it with `weir run`, or correct `http` in the pipeline file",
            );
        }
    };
    if json {
        say!("{text}");
        return Outcome::done();
    }
    match serde_json::from_str::<Status>(&text) {
        Ok(status) => print(&status),
        Err(error) => {
            return Outcome::unreachable(
                format!("what answers at {address} isn't this version of weir: {error}"),
                "compare `weir --version` with the running one",
            );
        }
    }
    Outcome::done()
}

/// Why there is no status.
pub(crate) struct NoStatus {
    /// Nobody listens there; else somebody does, and is slow or says something else.
    pub(crate) is_away: bool,
    pub(crate) why: String,
}

impl From<reqwest::Error> for NoStatus {
    fn from(error: reqwest::Error) -> NoStatus {
        NoStatus { is_away: error.is_connect() && !error.is_timeout(), why: error.to_string() }
    }
}

/// What `/status` at `address` says to whoever has `token`.
pub(crate) async fn fetch(address: &str, token: Option<&str>) -> Result<String, NoStatus> {
    let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).build()?;
    let request = client.get(format!("http://{address}/status"));
    let request = match token.filter(|token| !token.is_empty()) {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let answer = request.send().await?;
    let status = answer.status();
    let text = answer.text().await?;
    if status.is_success() { Ok(text) } else { Err(NoStatus { is_away: false, why: text.trim_end().to_owned() }) }
}

fn print(status: &Status) {
    say!(
        "{}  open epoch {}, committed {}, delivered {}",
        paint::bold(&status.pipeline),
        status.open_epoch,
        status.committed_epoch,
        status.delivered_epoch
    );
    if let Some(why) = &status.waits_for {
        say!("{} {why}", paint::bad("waits:"));
    }
    say!(
        "in flight {} of {}, outbox {} of {}\n",
        paint::bytes(status.in_flight_bytes),
        paint::bytes(status.in_flight_limit_bytes),
        paint::bytes(status.outbox_bytes),
        paint::bytes(status.outbox_limit_bytes)
    );
    for source in &status.sources {
        say!("source {}  watermark {}", paint::bold(&source.name), time(source.watermark));
        let mut table = paint::table(&["partition", "worker", "next offset", "lag", "watermark", "state", ""]);
        for of in &source.partitions {
            let partition = &of.status;
            let name = format!("{}/{}", partition.topic, partition.partition);
            let holds = source.held_back_by.as_deref() == Some(&name);
            table.add_row([
                name,
                of.worker.to_string(),
                partition.next_offset.to_string(),
                paint::count(u64::try_from(partition.end_offset - partition.next_offset).unwrap_or(0)),
                time(Some(partition.watermark)),
                partition.state.clone(),
                if holds { format!("holds the watermark {}", partition.detail) } else { partition.detail.clone() },
            ]);
        }
        say!("{table}\n");
        for note in &source.notes {
            say!("{} {note}\n", paint::bad("note:"));
        }
    }
    let mut table = paint::table(&["destination", "delivered epoch", "waiting rows", "waiting bytes", ""]);
    for destination in &status.destinations {
        table.add_row([
            destination.name.clone(),
            destination.delivered_epoch.to_string(),
            paint::count(destination.waiting_rows),
            paint::bytes(destination.waiting_bytes),
            destination.failing.as_ref().map(|failing| paint::bad(&failing.error)).unwrap_or_default(),
        ]);
    }
    say!("{table}");
    if let Some(archive) = &status.archive {
        print_archive(archive);
    }
}

fn print_archive(archive: &ArchiveStatus) {
    say!(
        "\narchive {}  commit {}, {} records in {} objects, {}, {} offsets behind",
        paint::bold(&archive.url),
        archive.commit,
        paint::count(archive.records),
        paint::count(archive.objects),
        paint::bytes(archive.bytes),
        paint::count(archive.lag_records)
    );
    let kept = archive.topics.iter().map(|of| {
        let then = of.keep_days.map_or("for ever".to_owned(), |days| format!("{days} days"));
        format!("{}: {} in the topic, {then} in the archive", of.topic, retention(of.retention_ms))
    });
    say!("{}", paint::dim(&kept.collect::<Vec<_>>().join("; ")));
    if let Some(failing) = &archive.failing {
        say!("{} {}", paint::bad("can't be written:"), failing.error);
    }
    for note in &archive.notes {
        say!("{} {note}", paint::bad("note:"));
    }
}

/// An event time for people; `-` where none is known.
pub(crate) fn time(at: Option<EventTime>) -> String {
    match at {
        None | Some(EventTime::MIN) => "-".to_owned(),
        Some(EventTime::MAX) => "the end".to_owned(),
        Some(at) => chrono::DateTime::from_timestamp_micros(at.0)
            .map(|at| at.format("%Y-%m-%d %H:%M:%S").to_string())
            .unwrap_or_else(|| format!("{} µs", at.0)),
    }
}
