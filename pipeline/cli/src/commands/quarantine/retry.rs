//! `weir quarantine retry`: the waiting records of one cause, once more.

use std::io::{BufRead, IsTerminal};
use std::time::Duration;

use serde::Deserialize;
use weir_pipeline::kept::peek_kept_from;
use weir_pipeline::quarantine::{Audit, Counts, Status, counts, send, watch};
use weir_schemas::tables::{PARTITIONS, QUARANTINE};
use weir_schemas::time::EventTime;
use weir_sinks::clickhouse::literal;

use super::{Desk, Retry, begins_with};
use crate::out::{ask, say};
use crate::{Outcome, counted, paint};

#[derive(Deserialize)]
struct Cause {
    fingerprint: String,
    reason: String,
    about: String,
    topic: String,
}

pub(super) fn run(retry: &Retry) -> Result<Outcome, Outcome> {
    let desk = Desk::open(&retry.file)?;
    let cause = find(&desk, retry)?;
    let Some(name) = desk.source_of(&cause.topic) else {
        let what = format!("no source of the file reads the topic {}", cause.topic);
        return Err(Outcome::refused(what, "give the file of the pipeline that refused the records"));
    };
    let Some((source, topic)) =
        desk.pipeline.sources.get(name).and_then(|source| Some((source, source.retry_topic.clone()?)))
    else {
        let remedy = format!("add `retry_topic = \"...\"` to [sources.{name}] and start the pipeline with it");
        return Err(Outcome::refused(format!("source `{name}` has no retry topic"), remedy));
    };
    let counted_for = |error| Outcome::of_error(&error);
    let (pipeline, client) = (&desk.pipeline, &desk.client);
    let before = desk.runtime.block_on(counts(pipeline, client, &cause.fingerprint)).map_err(counted_for)?;
    let floor = floor(&desk, name, source.allowed_lateness_ms.saturating_add(source.retained_ms()))?;
    let too_old = match floor {
        EventTime::MIN => 0,
        floor => too_old(&desk, &cause.fingerprint, floor)?,
    };
    say!("{} {} {}", paint::bold(&cause.fingerprint), cause.reason, cause.about);
    say!("{} waiting, {} retried", before.waiting, before.retried);
    if too_old > 0 {
        let told = format!("{too_old} of them are older than what the state keeps: they would be kept as too late");
        say!("{}", paint::bad(&told));
    }
    if retry.dry_run || before.waiting == 0 {
        say!("{}", paint::dim("nothing was sent"));
        return Ok(Outcome::done());
    }
    if !retry.yes && !agreed(before.waiting, &topic)? {
        say!("{}", paint::dim("nothing was sent"));
        return Ok(Outcome::done());
    }
    let audit = Audit::begin(&cause.fingerprint, name, &retry.by, &retry.why, before.waiting);
    carry_out(&desk, retry, &topic, audit, before)
}

fn carry_out(desk: &Desk, retry: &Retry, topic: &str, mut audit: Audit, before: Counts) -> Result<Outcome, Outcome> {
    let (pipeline, client) = (&desk.pipeline, &desk.client);
    let bar = indicatif::ProgressBar::new(before.waiting);
    let sent = desk.runtime.block_on(send(pipeline, client, topic, &mut audit, |sent| bar.set_position(sent)));
    bar.finish_and_clear();
    sent.map_err(|error| Outcome::of_error(&error))?;
    say!("retry {}: {} to {topic}", audit.id, counted(usize::try_from(audit.sent).unwrap_or(usize::MAX), "record"));
    let within = Duration::from_secs(retry.wait);
    let bar = indicatif::ProgressBar::new(audit.sent);
    let watched = watch(pipeline, client, topic, &mut audit, before, within, |taken| bar.set_position(taken));
    let watched = desk.runtime.block_on(watched);
    bar.finish_and_clear();
    watched.map_err(|error| Outcome::of_error(&error))?;
    let mut table = paint::table(&["", "before", "after"]);
    table.add_row(["waiting".to_owned(), audit.waiting_before.to_string(), audit.waiting_after.to_string()]);
    table.add_row([
        "retried".to_owned(),
        before.retried.to_string(),
        before.retried.saturating_add(audit.taken).to_string(),
    ]);
    say!("{table}");
    if audit.status == Status::Done {
        let again = audit.refused_again;
        say!("{} taken, {again} of them refused again", audit.taken);
    } else {
        let left = audit.sent.saturating_sub(audit.taken);
        say!("{}", paint::dim(&format!("{left} wait in the topic: the pipeline takes them when it runs")));
    }
    Ok(Outcome::done())
}

/// The one cause whose fingerprint begins as was given.
fn find(desk: &Desk, retry: &Retry) -> Result<Cause, Outcome> {
    let mut found: Vec<Cause> = desk.select(&format!(
        "SELECT fingerprint, any(reason) AS reason, any(if(empty(rule), field, rule)) AS about, any(topic) AS topic \
         FROM {} WHERE {} GROUP BY fingerprint ORDER BY fingerprint LIMIT 2",
        desk.client.qualified(QUARANTINE),
        begins_with(&retry.cause)?,
    ))?;
    let remedy = format!("`weir quarantine group {}` shows the causes", retry.file.display());
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(_), false) => Err(Outcome::refused(format!("several causes begin with `{}`", retry.cause), remedy)),
        (None, _) => Err(Outcome::refused(format!("no cause begins with `{}`", retry.cause), remedy)),
    }
}

/// The event time before which windows are kept no more, as far as the tables and a state on this machine tell: the
/// pipeline's own is no earlier.
fn floor(desk: &Desk, source: &str, kept_ms: u64) -> Result<EventTime, Outcome> {
    #[derive(Deserialize)]
    struct Found {
        watermark: i64,
    }
    let own = desk.pipeline.sources.get(source).map(|source| source.topics.clone()).unwrap_or_default();
    let topics: Vec<String> = own.iter().map(|topic| literal(topic)).collect();
    let found: Vec<Found> = desk.select(&format!(
        "SELECT toUnixTimestamp64Micro(if(countIf(state != 'idle') = 0, max(watermark), minIf(watermark, state != 'idle'))) \
         AS watermark FROM {} WHERE source = {} AND topic IN ({})",
        desk.client.qualified(PARTITIONS),
        literal(source),
        topics.join(", "),
    ))?;
    let kept = i64::try_from(kept_ms.saturating_mul(1_000)).unwrap_or(i64::MAX);
    let by_watermark = found.first().map_or(EventTime::MIN, |found| EventTime(found.watermark.saturating_sub(kept)));
    let state = peek_kept_from(&desk.pipeline.state, source).map_err(|error| Outcome::of_error(&error))?;
    Ok(state.map_or(by_watermark, |kept_from| kept_from.max(by_watermark)))
}

fn too_old(desk: &Desk, cause: &str, floor: EventTime) -> Result<u64, Outcome> {
    #[derive(Deserialize)]
    struct Found {
        old: u64,
    }
    let found: Vec<Found> = desk.select(&format!(
        "SELECT countIf(toUnixTimestamp64Micro(assumeNotNull(event_time)) < {} AND event_time IS NOT NULL) AS old FROM {} \
         WHERE fingerprint = {} AND NOT {}",
        floor.0,
        desk.client.qualified(QUARANTINE),
        literal(cause),
        desk.is_retried,
    ))?;
    Ok(found.first().map_or(0, |found| found.old))
}

/// Asks the person at the terminal.
fn agreed(waiting: u64, topic: &str) -> Result<bool, Outcome> {
    if !std::io::stdin().is_terminal() {
        return Err(Outcome::refused("nobody can be asked here", "give --yes to send, or --dry-run to look"));
    }
    ask(format_args!("send {waiting} to {topic}? [y/N] "));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    Ok(read.is_ok() && matches!(answer.trim(), "y" | "yes"))
}
