//! Replays beside the live pipeline, with how far they are: by the positions in the replay's own `weir_partitions`.
//!
//! Who runs replays tells which there are, and compares them ([`Replays`]); this crate knows none.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use weir_schemas::tables;
use weir_sinks::clickhouse::identifier;

use super::Served;
use super::ask::Style;
use super::fault::Fault;
use super::question::Question;

/// Replays that are shown.
const SHOWN: usize = 50;

/// A replay, as far as the console shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Replay {
    /// Its name.
    pub run: String,
    /// `running`, `interrupted`, `complete` or `cancelled`.
    pub state: String,
    /// The first event time, in seconds since 1970.
    pub from_s: i64,
    /// The event time after the last one.
    pub to_s: i64,
    /// Its views.
    pub views: Vec<String>,
    /// Where its tables are.
    pub database: String,
    /// When it was asked for, in milliseconds since 1970.
    pub created_at_ms: i64,
    /// What of the log it reads.
    #[serde(skip)]
    pub stretches: Vec<Stretch>,
}

/// What a replay reads of a partition: offsets from `first` to before `next`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub first: i64,
    /// The offset behind the last one.
    pub next: i64,
}

/// What a replay would change of a view; all 0 and no measure where the live pipeline has no such view.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Difference {
    /// The view.
    pub view: String,
    /// Rows of the live side.
    pub live_rows: u64,
    /// Rows of the replay.
    pub replay_rows: u64,
    /// Rows that only the replay has.
    pub added: u64,
    /// Rows that only the live side has.
    pub removed: u64,
    /// Rows that both have, with a cell that differs.
    pub changed: u64,
    /// Of each measure: its name, cells that differ, the sum over the live rows and over the replay's.
    pub measures: Vec<(String, u64, Option<f64>, Option<f64>)>,
}

/// Tells which replays there are, the newest first; it may read files.
pub type Lister = Arc<dyn Fn() -> Result<Vec<Replay>, String> + Send + Sync>;

/// Compares a replay of this name with the live rows; it may take long.
pub type Comparer = Arc<dyn Fn(&str) -> Result<Vec<Difference>, String> + Send + Sync>;

/// Who knows of replays.
#[derive(Clone)]
pub struct Replays {
    /// Lists them.
    pub list: Lister,
    /// Compares one.
    pub compare: Comparer,
}

/// What the replay called `run` would change. One comparison runs at a time: each reads all rows of both sides.
pub(super) async fn compared(served: &Served, run: String) -> Result<Vec<Difference>, Fault> {
    let Some(replays) = served.replays.clone() else {
        return Err(Fault::missing("this pipeline has no replays", "weir replay FILE makes one"));
    };
    let Ok(turn) = served.comparing.clone().try_acquire_owned() else {
        return Err(Fault::busy("another replay is being compared"));
    };
    let (tell, told) = oneshot::channel();
    // A thread of its own: the runtime would wait for one of its own when the pipeline stops.
    let compare = move || {
        // It is over when the thread has read all, not when a browser has gone away.
        let _turn = turn;
        // Nobody may be waiting any more.
        let _ = tell.send((replays.compare)(&run));
    };
    let thread = std::thread::Builder::new().name("compare".to_owned()).spawn(compare);
    thread.map_err(|error| Fault::busy(format!("a thread: {error}")))?;
    let compared = told.await.map_err(|_| Fault::busy("the comparison ended early"))?;
    compared.map_err(|why| Fault::asked(why, ""))
}

/// Every replay, with the records that it has read (null where that can't be told) and those that it will have.
pub(super) async fn seen(served: &Served) -> Result<Vec<Value>, Fault> {
    let Some(replays) = served.replays.clone() else { return Ok(Vec::new()) };
    let listed = tokio::task::spawn_blocking(move || (replays.list)()).await;
    let listed = listed.map_err(|error| Fault::busy(error.to_string()))?;
    let listed = listed.map_err(|error| Fault::busy(format!("replays: {error}")))?;
    let mut all = Vec::new();
    for replay in listed.into_iter().take(SHOWN) {
        let offsets: i64 = replay.stretches.iter().map(|of| (of.next - of.first).max(0)).sum();
        let read = match replay.state.as_str() {
            "complete" => Some(offsets),
            _ => read_of(served, &replay).await,
        };
        let mut value = serde_json::to_value(&replay).unwrap_or_default();
        if let Some(object) = value.as_object_mut() {
            object.insert("records".to_owned(), json!(offsets));
            object.insert("read".to_owned(), json!(read));
        }
        all.push(value);
    }
    Ok(all)
}

/// Records that a replay has committed; none while it has no tables, or ClickHouse doesn't answer.
async fn read_of(served: &Served, replay: &Replay) -> Option<i64> {
    let sql = format!(
        "SELECT topic, partition, next_offset FROM {}.{} LIMIT 10000",
        identifier(&replay.database),
        identifier(tables::PARTITIONS)
    );
    let answer = served.desk.ask(&Question::plain(sql), Style::Drawn).await.ok()?;
    let next_of = |stretch: &Stretch| {
        let row = answer.rows.iter().find(|row| {
            row.first().and_then(Value::as_str) == Some(&stretch.topic)
                && row.get(1).and_then(Value::as_i64) == Some(i64::from(stretch.partition))
        })?;
        row.get(2)?.as_i64()
    };
    let read = |stretch: &Stretch| Some((next_of(stretch)?.min(stretch.next) - stretch.first).max(0));
    Some(replay.stretches.iter().filter_map(read).sum())
}
