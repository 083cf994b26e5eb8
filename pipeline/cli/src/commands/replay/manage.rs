//! Replays that are there: list, show, cancel, drop.

use std::path::Path;

use weir_pipeline::connect;
use weir_replay::rerun::range::shown;
use weir_replay::rerun::record::{Record, Status, Store};
use weir_sinks::clickhouse::swaps::{self, Swapped};

use super::{One, found, opened};
use crate::out::say;
use crate::{Outcome, paint, runtime};

pub(super) fn state_of(store: &Store, record: &Record) -> &'static str {
    match record.status {
        Status::Complete => "complete",
        Status::Cancelled => "cancelled",
        Status::Begun if store.is_running(&record.run) => "running",
        Status::Begun => "interrupted",
    }
}

/// What is swapped in, as far as ClickHouse answers.
fn swapped_in(pipeline: &weir_pipeline::config::Pipeline) -> Result<Vec<Swapped>, Outcome> {
    let client = connect::clickhouse(pipeline).map_err(|error| Outcome::of_error(&error))?;
    runtime()?
        .block_on(swaps::active(&client))
        .map_err(|error| Outcome::unreachable(format!("clickhouse: {error}"), "check `[clickhouse]`"))
}

pub(super) fn list(file: &Path, json: bool) -> Result<Outcome, Outcome> {
    let (pipeline, store) = opened(file)?;
    let records = store.all().map_err(|error| Outcome::of_error(&error))?;
    let active = swapped_in(&pipeline)?;
    if json {
        for record in &records {
            let views: Vec<&str> = active.iter().filter(|of| of.run == record.run).map(|of| of.view.as_str()).collect();
            let line = serde_json::json!({
                "run": record.run, "state": state_of(&store, record), "from": shown(record.slice.from),
                "to": shown(record.slice.to), "views": record.views, "database": record.database, "swapped_in": views,
                "offsets": record.slice.offsets(), "with": record.with,
            });
            say!("{line}");
        }
        return Ok(Outcome::done());
    }
    if records.is_empty() {
        say!("no replays; `weir replay FILE --from ... --to ...` makes one");
        return Ok(Outcome::done());
    }
    let mut table = paint::table(&["replay", "state", "from", "to", "offsets", "views", "swapped in"]);
    for record in &records {
        let of_run: Vec<&str> = active.iter().filter(|of| of.run == record.run).map(|of| of.view.as_str()).collect();
        table.add_row([
            record.run.clone(),
            state_of(&store, record).to_owned(),
            shown(record.slice.from),
            shown(record.slice.to),
            paint::count(record.slice.offsets()),
            record.views.iter().cloned().collect::<Vec<_>>().join(", "),
            of_run.join(", "),
        ]);
    }
    say!("{table}");
    Ok(Outcome::done())
}

pub(super) fn show(one: &One) -> Result<Outcome, Outcome> {
    let (_, store) = opened(&one.file)?;
    let record = found(&store, &one.run)?;
    say!("{}  {}", paint::bold(&record.run), state_of(&store, &record));
    say!("  event times  {} to {}", shown(record.slice.from), shown(record.slice.to));
    say!("  pipeline     {}", record.with.display());
    say!("  rows         in the database {}", record.database);
    say!("  views        {}\n", record.views.iter().cloned().collect::<Vec<_>>().join(", "));
    let mut table = paint::table(&["partition", "first offset", "next offset", "offsets"]);
    for of in &record.slice.stretches {
        let partition = format!("{}/{}", of.topic, of.partition);
        table.add_row([partition, of.first.to_string(), of.next.to_string(), paint::count(of.offsets())]);
    }
    say!("{table}");
    Ok(Outcome::done())
}

pub(super) fn cancel(one: &One) -> Result<Outcome, Outcome> {
    let (_, store) = opened(&one.file)?;
    let mut record = found(&store, &one.run)?;
    if record.status == Status::Complete {
        return Err(Outcome::refused(format!("`{}` is complete", one.run), "`weir replay drop` removes it"));
    }
    store.cancel(&one.run).map_err(|error| Outcome::of_error(&error))?;
    if !store.is_running(&one.run) {
        record.status = Status::Cancelled;
        store.write(&record).map_err(|error| Outcome::of_error(&error))?;
    }
    say!("cancelled {}; `weir replay drop` removes what it has written", one.run);
    Ok(Outcome::done())
}

pub(super) fn drop_run(one: &One) -> Result<Outcome, Outcome> {
    let (pipeline, store) = opened(&one.file)?;
    let record = found(&store, &one.run)?;
    if let Some(of) = swapped_in(&pipeline)?.iter().find(|of| of.run == one.run) {
        return Err(Outcome::refused(
            format!("`{}` stands in the place of live rows of {}", one.run, of.view),
            format!("take it out first: weir swap {} {} --undo", one.file.display(), one.run),
        ));
    }
    let held = store.hold(&one.run).map_err(|error| Outcome::of_error(&error))?;
    let mut of_replay = pipeline.clone();
    of_replay.clickhouse.database.clone_from(&record.database);
    let client = connect::clickhouse(&of_replay).map_err(|error| Outcome::of_error(&error))?;
    runtime()?
        .block_on(client.drop_database())
        .map_err(|error| Outcome::unreachable(format!("clickhouse: {error}"), "check `[clickhouse]`"))?;
    drop(held);
    store.remove(&one.run).map_err(|error| Outcome::of_error(&error))?;
    say!("dropped {}: the database {} and its state", one.run, record.database);
    Ok(Outcome::done())
}
