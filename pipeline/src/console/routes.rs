//! The console's answers, as JSON.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use chrono::{NaiveDate, TimeZone};
use serde_json::{Value, json};

use super::Served;
use super::ask::{Answer, CSV_ROWS, Style};
use super::catalog::View;
use super::fault::Fault;
use super::question::{self, Asked};
use super::steps::{steps_of, week_after, zone_of};
use super::{beside, health, replays as runs};
use crate::clock::Clock;
use crate::quarantine::is_retried;

type Pairs = Query<Vec<(String, String)>>;
type Told = Result<Json<Value>, Fault>;

/// Rows of a view that the page shows.
const ROWS: usize = 200;
/// The longest stretch of releases, in seconds.
const RELEASES_S: i64 = 31 * 86_400;

fn view<'a>(served: &'a Served, name: &str) -> Result<&'a View, Fault> {
    let shown: String = name.chars().take(80).collect();
    let missing = || Fault::missing(format!("there is no view `{shown}`"), "take one that /api/views lists");
    served.catalog.view(name).ok_or_else(missing)
}

/// `/api/views`: everything that can be asked about.
pub(super) async fn views(State(served): State<Served>) -> Told {
    let mut catalog = serde_json::to_value(&*served.catalog).map_err(|error| Fault::busy(error.to_string()))?;
    for (view, told) in served.catalog.views.iter().zip(catalog["views"].as_array_mut().into_iter().flatten()) {
        let steps: Vec<Value> =
            steps_of(view).map(|(step_s, text)| json!({ "step_s": step_s, "text": text })).collect();
        told["steps"] = Value::Array(steps);
    }
    catalog["now_ms"] = json!(Clock::System.now_ms());
    catalog["weir"] = json!(env!("CARGO_PKG_VERSION"));
    Ok(Json(catalog))
}

/// `/api/views/{name}/series`: a measure over time, with its value over the whole range and, asked with `compare=week`, the
/// same of a week before, moved to this one's times.
pub(super) async fn series(State(served): State<Served>, Path(name): Path<String>, pairs: Pairs) -> Told {
    let view = view(&served, &name)?;
    let asked = Asked::of(&served.catalog, view, &pairs.0)?;
    // Completeness first: what it tells is then in the rows that are read behind it.
    let progress = of_view(&served, &name).await?;
    let compares = pairs.0.iter().any(|(key, value)| key == "compare" && value == "week");
    let (now, total) = (asked.series()?, asked.total()?);
    let before = asked.week_before();
    let then = async {
        match compares {
            true => Ok(Some(served.desk.ask(&before.series()?, Style::Drawn).await?)),
            false => Ok::<_, Fault>(None),
        }
    };
    let totals = async {
        let of_before = match compares {
            true => Some(served.desk.ask(&before.total()?, Style::Drawn).await?),
            false => None,
        };
        Ok::<_, Fault>((served.desk.ask(&total, Style::Drawn).await?, of_before))
    };
    let (now, then, totals) = tokio::try_join!(served.desk.ask(&now, Style::Drawn), then, totals)?;
    let value = |answer: &Answer| answer.rows.first().and_then(|row| row.first()).cloned().unwrap_or_default();
    let then = then.map(|answer| json!({ "points": a_week_on(view, points(view, answer.rows)), "sql": answer.sql }));
    Ok(Json(json!({
        "step_s": asked.step_s,
        "sql": now.sql,
        "points": points(view, now.rows),
        "total": value(&totals.0),
        "total_sql": totals.0.sql,
        "total_before": totals.1.as_ref().map(value),
        "before": then,
        "progress": progress,
    })))
}

/// `/api/views/{name}/extent`: the first and the last window, in seconds since 1970; null where there is none.
pub(super) async fn extent(State(served): State<Served>, Path(name): Path<String>) -> Told {
    let view = view(&served, &name)?;
    let answer = served.desk.ask(&question::extent(&served.catalog, view), Style::Drawn).await?;
    let row = answer.rows.into_iter().next().filter(|row| row.get(2) != Some(&json!(0))).unwrap_or_default();
    let at = |index: usize| row.get(index).map(|cell| seconds(view, cell));
    Ok(Json(json!({ "from": at(0), "to": at(1) })))
}

/// Rows whose first cell is a time in seconds.
fn points(view: &View, rows: Vec<Vec<Value>>) -> Vec<Vec<Value>> {
    let mut rows = rows;
    for cell in rows.iter_mut().filter_map(|row| row.first_mut()) {
        *cell = seconds(view, cell);
    }
    rows
}

/// Points in the place where those of a week later stand; without those whose time of day isn't there a week later.
fn a_week_on(view: &View, points: Vec<Vec<Value>>) -> Vec<Vec<Value>> {
    let moved = |mut point: Vec<Value>| {
        let at = point.first_mut()?;
        *at = json!(week_after(view, at.as_f64()? as i64)?);
        Some(point)
    };
    points.into_iter().filter_map(moved).collect()
}

/// A time as ClickHouse writes it with `unix_timestamp`: seconds in a string, but of dates the date.
fn seconds(view: &View, cell: &Value) -> Value {
    let Some(text) = cell.as_str() else { return cell.clone() };
    if let Ok(seconds) = text.parse::<f64>() {
        return json!(seconds);
    }
    let midnight = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().and_then(|date| date.and_hms_opt(0, 0, 0));
    midnight
        .and_then(|at| zone_of(view).from_local_datetime(&at).earliest())
        .map_or(Value::Null, |at| json!(at.timestamp()))
}

async fn of_view(served: &Served, name: &str) -> Result<Value, Fault> {
    let rows = served.desk.objects(&health::progress(&served.catalog), Style::Drawn).await?;
    Ok(rows.into_iter().find(|row| row["view"] == name).unwrap_or_default())
}

/// `/api/views/{name}/top`: the greatest by dimension.
pub(super) async fn top(State(served): State<Served>, Path(name): Path<String>, pairs: Pairs) -> Told {
    let question = Asked::of(&served.catalog, view(&served, &name)?, &pairs.0)?.top()?;
    told(served.desk.ask(&question, Style::Drawn).await?)
}

/// `/api/views/{name}/values`: what a dimension's filter offers.
pub(super) async fn values(State(served): State<Served>, Path(name): Path<String>, pairs: Pairs) -> Told {
    let question = Asked::of(&served.catalog, view(&served, &name)?, &pairs.0)?.values()?;
    told(served.desk.ask(&question, Style::Drawn).await?)
}

/// `/api/views/{name}/rows`: rows as they are; with `format=csv`, a file.
pub(super) async fn rows(
    State(served): State<Served>,
    Path(name): Path<String>,
    pairs: Pairs,
) -> Result<Response, Fault> {
    let asked = Asked::of(&served.catalog, view(&served, &name)?, &pairs.0)?;
    if pairs.0.iter().any(|(key, value)| key == "format" && value == "csv") {
        return served.desk.csv(&asked.rows(CSV_ROWS), &name).await;
    }
    let mut answer = served.desk.ask(&asked.rows(ROWS + 1), Style::Read).await?;
    let is_cut = answer.cut_to(ROWS);
    let csv_rows = CSV_ROWS;
    let (columns, rows, sql) = (answer.columns, answer.rows, answer.sql);
    Ok(Json(json!({ "columns": columns, "rows": rows, "sql": sql, "is_cut": is_cut, "csv_rows": csv_rows }))
        .into_response())
}

/// `/api/status`: as `/status`, for whoever has the token.
pub(super) async fn status(State(served): State<Served>) -> Told {
    serde_json::to_value((served.pages.status)()).map(Json).map_err(|error| Fault::busy(error.to_string()))
}

/// `/api/progress`: how far each view is complete.
pub(super) async fn progress(State(served): State<Served>) -> Told {
    told(served.desk.ask(&health::progress(&served.catalog), Style::Drawn).await?)
}

/// `/api/ledger`: totals by source, and by fate and minute of the newest hour.
pub(super) async fn ledger(State(served): State<Served>) -> Told {
    let (books, minutes) = (health::books(&served.catalog), health::ledger(&served.catalog));
    let (books, minutes) =
        tokio::try_join!(served.desk.ask(&books, Style::Drawn), served.desk.ask(&minutes, Style::Drawn))?;
    Ok(Json(json!({ "books": books, "minutes": minutes, "step_s": 60 })))
}

/// `/api/quarantine`: causes of the newest `days` days; `is_cut` where there are more.
pub(super) async fn quarantine(State(served): State<Served>) -> Told {
    let is_retried = if served.catalog.has_retries { is_retried(&served.client) } else { "0".to_owned() };
    let mut answer = served.desk.ask(&health::causes(&served.catalog, &is_retried), Style::Drawn).await?;
    let is_cut = answer.cut_to(health::LISTED);
    Ok(Json(json!({
        "columns": answer.columns, "rows": answer.rows, "sql": answer.sql, "is_cut": is_cut, "days": health::CAUSES_DAYS,
    })))
}

/// `/api/alerts`: the open ones; with `all=1`, the resolved ones as well.
pub(super) async fn alerts(State(served): State<Served>, pairs: Pairs) -> Told {
    has_alerts(&served)?;
    let with_resolved = pairs.0.iter().any(|(key, value)| key == "all" && value == "1");
    let mut answer = served.desk.ask(&health::alerts(&served.catalog, with_resolved, ROWS), Style::Drawn).await?;
    let is_cut = answer.cut_to(ROWS);
    Ok(Json(json!({ "columns": answer.columns, "rows": answer.rows, "sql": answer.sql, "is_cut": is_cut })))
}

fn has_alerts(served: &Served) -> Result<(), Fault> {
    let missing = || {
        Fault::missing(
            "this pipeline has no detector",
            "add [alerts.judge] or [alerts.refused_share] to the pipeline file",
        )
    };
    served.catalog.has_alerts.then_some(()).ok_or_else(missing)
}

/// `/api/alerts/{fingerprint}`: one alert, and its steps.
pub(super) async fn alert(State(served): State<Served>, Path(fingerprint): Path<String>) -> Told {
    let steps = health::steps(&served.catalog, &fingerprint);
    let asked = tokio::try_join!(one(&served, &fingerprint), served.desk.ask(&steps, Style::Drawn));
    asked.map(|(alert, steps)| Json(json!({ "alert": alert, "steps": steps })))
}

/// `/api/alerts/{fingerprint}/releases`: how each release did, over time, in what the alert is about.
pub(super) async fn of_alert(State(served): State<Served>, Path(fingerprint): Path<String>, pairs: Pairs) -> Told {
    let range = range(&pairs, 86_400)?;
    let alert = one(&served, &fingerprint).await?;
    beside::releases(&served, &alert, range).await.map(Json)
}

/// An alert, with its query whole.
async fn one(served: &Served, fingerprint: &str) -> Result<Value, Fault> {
    has_alerts(served)?;
    let (of, query) = (health::alert(&served.catalog, fingerprint), health::query(&served.catalog, fingerprint));
    let (of, query) = tokio::try_join!(served.desk.objects(&of, Style::Drawn), served.desk.text(&query))?;
    let mut alert = of.into_iter().next().ok_or_else(no_such_alert)?;
    alert["query"] = json!(query.unwrap_or_default());
    Ok(alert)
}

fn no_such_alert() -> Fault {
    Fault::missing("there is no such alert", "take one that /api/alerts lists")
}

/// `/api/releases`: the releases of the range, the worst first; `is_cut` where there are more.
pub(super) async fn releases(State(served): State<Served>, pairs: Pairs) -> Told {
    let (from_s, to_s) = range(&pairs, 86_400)?;
    let mut answer = served.desk.ask(&health::releases(&served.catalog, from_s, to_s), Style::Drawn).await?;
    let is_cut = answer.cut_to(health::LISTED);
    let is_whole = served.catalog.releases().next().is_some();
    Ok(Json(json!({
        "columns": answer.columns, "rows": answer.rows, "sql": answer.sql, "is_cut": is_cut, "knows_accepted": is_whole,
    })))
}

/// `/api/releases/one`: what is known of `release`, and of all others together.
pub(super) async fn one_release(State(served): State<Served>, pairs: Pairs) -> Told {
    let ((from_s, to_s), release) = (range(&pairs, 86_400)?, named_release(&pairs)?);
    told(served.desk.ask(&health::one_release(&served.catalog, release, from_s, to_s), Style::Drawn).await?)
}

fn named_release(pairs: &Pairs) -> Result<&str, Fault> {
    text(pairs, "release").ok_or_else(|| Fault::asked("no release is named", "give one as `release`"))
}

/// `/api/releases/shares`: the share of refused records by release and time.
pub(super) async fn shares(State(served): State<Served>, pairs: Pairs) -> Told {
    let (from_s, to_s) = range(&pairs, 86_400)?;
    let step_s = health::step_of(to_s - from_s);
    let missing = || {
        let what = "which release sent an accepted event isn't known";
        Fault::missing(what, "set keep_events_days and release.sdk, sdk_version and app_version in the source")
    };
    let range = (from_s - from_s.rem_euclid(step_s), to_s);
    served.catalog.releases().next().ok_or_else(missing)?;
    let question = health::shares(&served.catalog, range, step_s, &health::Which::default());
    let mut answer = served.desk.ask(&question, Style::Drawn).await?;
    let is_cut = answer.cut_to_newest(health::SHARES);
    Ok(Json(json!({
        "columns": answer.columns, "rows": answer.rows, "sql": answer.sql, "is_cut": is_cut, "step_s": step_s, "drawn": "share",
    })))
}

/// `/api/releases/reasons`: why records of `release` are refused.
pub(super) async fn reasons(State(served): State<Served>, pairs: Pairs) -> Told {
    let ((from_s, to_s), release) = (range(&pairs, 86_400)?, named_release(&pairs)?);
    told(served.desk.ask(&health::reasons(&served.catalog, release, from_s, to_s), Style::Drawn).await?)
}

/// `/api/replays`: replays with their progress.
pub(super) async fn replays(State(served): State<Served>) -> Told {
    Ok(Json(json!({ "replays": runs::seen(&served).await? })))
}

/// `/api/replays/{run}/diff`: what a replay would change of the live rows.
pub(super) async fn diff(State(served): State<Served>, Path(run): Path<String>) -> Told {
    Ok(Json(json!({ "views": runs::compared(&served, run).await? })))
}

fn text<'a>(pairs: &'a Pairs, name: &str) -> Option<&'a str> {
    pairs.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// `from` and `to` in seconds since 1970; absent, the last `default_s` seconds.
fn range(pairs: &Pairs, default_s: i64) -> Result<(i64, i64), Fault> {
    let number = |name: &str| match text(pairs, name) {
        None | Some("") => Ok(None),
        Some(text) => text.parse::<i64>().map(Some).map_err(|_| {
            Fault::asked(format!("`{name}` is no time"), "give seconds since 1970") //
        }),
    };
    let to_s = number("to")?.unwrap_or_else(|| Clock::System.now_ms() / 1_000 + 60).clamp(0, 4_291_747_200);
    let from_s = number("from")?.unwrap_or(to_s - default_s).clamp(0, to_s);
    Ok((from_s.max(to_s - RELEASES_S), to_s))
}

fn told(answer: Answer) -> Told {
    serde_json::to_value(answer).map(Json).map_err(|error| Fault::busy(error.to_string()))
}
