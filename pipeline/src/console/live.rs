//! What changes by itself: one snapshot a second for all who look, computed while anybody does.
//!
//! Invariants: listeners are bounded, and each holds only the newest snapshot; ClickHouse is asked once for all of them.
//! A completeness that is told was read before anything that it is shown beside. What can't be asked anew stays as it was
//! told last, with when that was: nothing is called absent because nobody answers.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Mutex, Semaphore, watch};

use super::ask::Style;
use super::fault::Fault;
use super::numbers::Numbers;
use super::{Served, health, replays};
use crate::clock::Clock;
use crate::status::Status;

/// Listeners at once.
const LISTENERS: usize = 64;
/// How often a snapshot is made.
const EVERY: Duration = Duration::from_secs(1);
/// How often ClickHouse is asked for more than how far it is; where that takes long, ten times as long as it takes.
const SLOW_EVERY: Duration = Duration::from_secs(3);
/// How long ClickHouse may take for a snapshot, first for how far it is, then for the rest; else it comes without.
const ANSWER_WITHIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));
/// How long after the last question snapshots are made for those who poll.
const POLLED_FOR_MS: i64 = 10_000;
/// Alerts in a snapshot.
const ALERTS: usize = 100;
/// Files of the state that are looked at for its size.
const FILES: usize = 20_000;

/// Everything that changes by itself.
#[derive(Clone, Debug, Default, Serialize)]
struct Snapshot {
    /// When it was made, in milliseconds since 1970.
    at_ms: i64,
    /// Where everything is.
    status: Status,
    /// Totals since the start.
    numbers: Numbers,
    /// How far each view is complete; times in seconds since 1970.
    progress: Vec<Value>,
    #[serde(flatten)]
    slow: Slow,
    /// When each of what ClickHouse tells was told, in milliseconds since 1970; what never was isn't in it.
    told_at_ms: BTreeMap<&'static str, i64>,
    /// What couldn't be asked.
    faults: Vec<String>,
}

/// What is asked for less often.
#[derive(Clone, Debug, Default, Serialize)]
struct Slow {
    /// Records by source and fate since ever.
    books: Vec<Value>,
    /// Open alerts, the worst first, [`ALERTS`] at most.
    alerts: Vec<Value>,
    /// Whether there are more.
    are_alerts_cut: bool,
    /// Replays with their progress.
    replays: Vec<Value>,
    /// Bytes of the state on disk.
    state_bytes: u64,
}

/// What was told last.
#[derive(Debug, Default)]
struct Told {
    progress: Vec<Value>,
    slow: Slow,
    at_ms: BTreeMap<&'static str, i64>,
    /// What couldn't be asked when the rest was asked for last.
    slow_faults: Vec<String>,
}

/// Makes snapshots, and hands out the newest.
pub(super) struct Live {
    newest: watch::Sender<Arc<str>>,
    places: Arc<Semaphore>,
    polled_at_ms: AtomicI64,
    making: Mutex<(Instant, Told)>,
}

impl Live {
    pub(super) fn new() -> Live {
        Live {
            newest: watch::Sender::new(Arc::from("")),
            places: Arc::new(Semaphore::new(LISTENERS)),
            polled_at_ms: AtomicI64::new(i64::MIN),
            making: Mutex::new((Instant::now(), Told::default())),
        }
    }

    /// Makes snapshots for as long as the task runs, while anybody looks.
    pub(super) async fn keep(served: Served) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let live = &served.live;
            let polled_ago = Clock::System.now_ms().saturating_sub(live.polled_at_ms.load(Ordering::Relaxed));
            if live.newest.receiver_count() > 0 || polled_ago < POLLED_FOR_MS {
                live.make(&served).await;
            }
        }
    }

    async fn make(&self, served: &Served) {
        let mut making = self.making.lock().await;
        let (next_at, told) = &mut *making;
        let mut faults = Vec::new();
        let (first, rest) = ANSWER_WITHIN;
        let progress = health::progress(&served.catalog);
        let progress = tokio::time::timeout(first, served.desk.objects(&progress, Style::Drawn)).await;
        renew("progress", &mut told.progress, progress.unwrap_or_else(|_| Err(silent())), &mut told.at_ms, &mut faults);
        let now = Instant::now();
        if now >= *next_at {
            told.slow_faults.clear();
            if tokio::time::timeout(rest, ask_slow(served, told)).await.is_err() {
                told.slow_faults.push(silent().what);
            }
            *next_at = Instant::now() + SLOW_EVERY.max(now.elapsed() * 10);
        }
        faults.extend(told.slow_faults.iter().filter(|fault| !faults.contains(fault)).cloned().collect::<Vec<_>>());
        let status = (served.pages.status)();
        let snapshot = Snapshot {
            at_ms: Clock::System.now_ms(),
            numbers: served.pages.metrics.text(&status).map(|text| Numbers::of(&text)).unwrap_or_default(),
            status,
            progress: told.progress.clone(),
            slow: told.slow.clone(),
            told_at_ms: told.at_ms.clone(),
            faults,
        };
        match serde_json::to_string(&snapshot) {
            Ok(text) => {
                self.newest.send_replace(Arc::from(text));
            }
            Err(error) => tracing::error!(%error, "a snapshot for the console can't be written"),
        }
    }
}

async fn ask_slow(served: &Served, told: &mut Told) {
    let (catalog, desk) = (&served.catalog, &served.desk);
    let Told { slow, at_ms, slow_faults: faults, .. } = told;
    let books = desk.objects(&health::books(catalog), Style::Drawn).await;
    renew("books", &mut slow.books, books, at_ms, faults);
    let alerts = match catalog.has_alerts {
        true => desk.objects(&health::alerts(catalog, false, ALERTS), Style::Drawn).await,
        false => Ok(Vec::new()),
    };
    // One more was asked for, which tells that there are more.
    let alerts = alerts.inspect(|rows| slow.are_alerts_cut = rows.len() > ALERTS);
    renew("alerts", &mut slow.alerts, alerts, at_ms, faults);
    slow.alerts.truncate(ALERTS);
    renew("replays", &mut slow.replays, replays::seen(served).await, at_ms, faults);
    let state = served.state.clone();
    slow.state_bytes = tokio::task::spawn_blocking(move || bytes_below(&state)).await.unwrap_or_default();
}

fn silent() -> Fault {
    Fault::busy("ClickHouse takes too long to answer")
}

/// Takes an answer in the place of the one before; where there is none, that one stays.
fn renew(
    name: &'static str,
    kept: &mut Vec<Value>,
    answer: Result<Vec<Value>, Fault>,
    told_at_ms: &mut BTreeMap<&'static str, i64>,
    faults: &mut Vec<String>,
) {
    match answer {
        Ok(rows) => {
            *kept = rows;
            told_at_ms.insert(name, Clock::System.now_ms());
        }
        Err(fault) if faults.contains(&fault.what) => {}
        Err(fault) => faults.push(fault.what),
    }
}

/// Bytes of the files below a folder. Files come and go meanwhile; what is gone counts nothing.
fn bytes_below(folder: &Path) -> u64 {
    let (mut folders, mut bytes, mut files): (Vec<PathBuf>, u64, usize) = (vec![folder.to_owned()], 0, 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            files += 1;
            if files > FILES {
                return bytes;
            }
            match entry.metadata() {
                Ok(of) if of.is_dir() => folders.push(entry.path()),
                Ok(of) => bytes += of.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}

/// `/api/live`: each snapshot as it is made.
pub(super) async fn events(State(served): State<Served>) -> Response {
    let Ok(place) = served.live.places.clone().try_acquire_owned() else {
        return Fault::busy(format!("{LISTENERS} pages listen already")).into_response();
    };
    let mut newest = served.live.newest.subscribe();
    // The one that is there may be old.
    newest.mark_unchanged();
    let stream = unfold((newest, place), |(mut newest, place)| async move {
        newest.changed().await.ok()?;
        let text = newest.borrow_and_update().clone();
        Some((Ok::<_, Infallible>(Event::default().event("snapshot").data(text)), (newest, place)))
    });
    let mut response = Sse::new(stream).keep_alive(KeepAlive::default()).into_response();
    // Proxies that gather answers would hold events back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// `/api/snapshot`: the newest, for those who poll.
pub(super) async fn snapshot(State(served): State<Served>) -> Response {
    let now_ms = Clock::System.now_ms();
    let polled_at_ms = served.live.polled_at_ms.swap(now_ms, Ordering::Relaxed);
    let is_kept = served.live.newest.receiver_count() > 0 || now_ms.saturating_sub(polled_at_ms) < POLLED_FOR_MS;
    if !is_kept || served.live.newest.borrow().is_empty() {
        served.live.make(&served).await;
    }
    let text = served.live.newest.borrow().to_string();
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_told_stays_while_nobody_answers() {
        let (mut kept, mut at_ms, mut faults) = (Vec::new(), BTreeMap::new(), Vec::new());
        renew("alerts", &mut kept, Err(silent()), &mut at_ms, &mut faults);
        assert!(kept.is_empty() && at_ms.is_empty(), "nothing was told yet: that isn't the same as none");
        renew("alerts", &mut kept, Ok(vec![json!({ "fingerprint": "f" })]), &mut at_ms, &mut faults);
        let told_at_ms = at_ms["alerts"];
        renew("alerts", &mut kept, Err(silent()), &mut at_ms, &mut faults);
        assert_eq!((kept.len(), at_ms["alerts"], faults), (1, told_at_ms, vec![silent().what]));
    }
}
