//! Asking ClickHouse for the console: read-only, with limits, a few questions at once.
//!
//! Invariants: no answer is larger than [`ANSWER_BYTES`] here; a cell longer than [`CELL_CHARS`] is cut, with an ellipsis,
//! since a single event may hold megabytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use weir_sinks::DeliveryError;
use weir_sinks::clickhouse::{self, AnswerLines as Lines, Client, Limits, Refusal};

use super::fault::Fault;
use super::question::Question;

/// Bytes of an answer that is held in memory.
const ANSWER_BYTES: usize = 16 << 20;
/// Characters of a cell that are told.
const CELL_CHARS: usize = 400;
/// Rows of a CSV file.
pub(super) const CSV_ROWS: usize = 100_000;
/// Questions that are asked at once; others wait for their turn.
const AT_ONCE: usize = 6;
/// Files that are written at once, beside the questions: whoever takes one may be slow.
const FILES_AT_ONCE: usize = 2;
/// How long a question waits for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a file that are handed over at once, about.
const PIECE_BYTES: usize = 32 << 10;
/// How long whoever takes a file may take nothing.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// What one answer may take of the server.
const LIMITS: Limits = Limits {
    seconds: 20,
    result_rows: Some(CSV_ROWS as u64 + 1),
    result_bytes: Some(256 << 20),
    memory_bytes: 2 << 30,
    threads: Some(4),
};

/// Numbers as numbers, times as seconds since 1970: for drawing.
const DRAWN: &[(&str, &str)] = &[
    ("date_time_output_format", "unix_timestamp"),
    ("output_format_json_quote_64bit_integers", "0"),
    ("output_format_json_quote_denormals", "0"),
    ("output_format_json_validate_utf8", "1"),
    ("cancel_http_readonly_queries_on_client_close", "1"),
];
/// To the last digit, times as ISO 8601: for reading.
const READ: &[(&str, &str)] = &[
    ("date_time_output_format", "iso"),
    ("output_format_json_quote_64bit_integers", "1"),
    ("output_format_json_quote_decimals", "1"),
    ("output_format_decimal_trailing_zeros", "1"),
    ("output_format_json_quote_denormals", "1"),
    ("output_format_json_validate_utf8", "1"),
    ("cancel_http_readonly_queries_on_client_close", "1"),
];

/// Who asks.
#[derive(Clone)]
pub(super) struct Desk {
    client: Client,
    turns: Arc<Semaphore>,
    files: Arc<Semaphore>,
}

/// A column of an answer.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Column {
    /// Its name.
    pub(super) name: String,
    /// Its ClickHouse type.
    #[serde(rename = "type")]
    pub(super) kind: String,
}

/// Rows, and the SQL that they come from.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Answer {
    /// The columns.
    pub(super) columns: Vec<Column>,
    /// Their cells.
    pub(super) rows: Vec<Vec<Value>>,
    /// The SELECT, to be copied.
    pub(super) sql: String,
}

impl Answer {
    /// Leaves `limit` rows of an answer that was asked for one more, and tells whether there were more.
    pub(super) fn cut_to(&mut self, limit: usize) -> bool {
        let is_cut = self.rows.len() > limit;
        self.rows.truncate(limit);
        is_cut
    }

    /// The same of rows in order of time, of which the newest stay. All rows of the oldest time that is told go with what
    /// was cut, since some of them may be missing; unless there is no other time.
    pub(super) fn cut_to_newest(&mut self, limit: usize) -> bool {
        let is_cut = self.rows.len() > limit;
        if is_cut {
            let time = |row: &Vec<Value>| row.first().cloned();
            let oldest = self.rows.first().and_then(time);
            let others = self.rows.iter().position(|row| time(row) != oldest);
            self.rows.drain(..others.unwrap_or(self.rows.len() - limit));
        }
        is_cut
    }
}

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// For drawing.
    Drawn,
    /// For reading.
    Read,
}

impl Style {
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Style::Drawn => DRAWN,
            Style::Read => READ,
        }
    }
}

impl Desk {
    /// Asks through `client`.
    pub(super) fn of(client: &Client) -> Desk {
        let of = |places| Arc::new(Semaphore::new(places));
        Desk { client: client.clone(), turns: of(AT_ONCE), files: of(FILES_AT_ONCE) }
    }

    /// Asks, and reads the whole answer.
    ///
    /// # Errors
    /// What ClickHouse says, an answer that is too large, too many questions.
    pub(super) async fn ask(&self, question: &Question, style: Style) -> Result<Answer, Fault> {
        self.answer(question, style, cut).await
    }

    /// The one text that a question asks for, whole: of what Weir wrote itself, which no event makes long.
    ///
    /// # Errors
    /// As [`Desk::ask`].
    pub(super) async fn text(&self, question: &Question) -> Result<Option<String>, Fault> {
        let answer = self.answer(question, Style::Drawn, |cell| cell).await?;
        Ok(answer.rows.first().and_then(|row| row.first()?.as_str().map(str::to_owned)))
    }

    async fn answer(&self, question: &Question, style: Style, shown: fn(Value) -> Value) -> Result<Answer, Fault> {
        let turn = tokio::time::timeout(TURN_WITHIN, self.turns.acquire());
        let _turn = turn.await.map_err(|_| Fault::busy("too many questions wait for ClickHouse"))?;
        let mut lines = self.lines(question, style)?;
        let columns = head(&mut lines).await?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(line) = lines.next().await? {
            bytes += line.len();
            if bytes > ANSWER_BYTES {
                return Err(Fault::asked("the answer is too large", "narrow the range, or filter"));
            }
            let row: Vec<Value> = parsed(&line)?;
            rows.push(row.into_iter().map(shown).collect());
        }
        Ok(Answer { columns, rows, sql: question.to_copy() })
    }

    /// Asks for JSON objects: each row by its columns' names.
    ///
    /// # Errors
    /// As [`Desk::ask`].
    pub(super) async fn objects(&self, question: &Question, style: Style) -> Result<Vec<Value>, Fault> {
        let Answer { columns, rows, .. } = self.ask(question, style).await?;
        let object = |row: Vec<Value>| {
            Value::Object(columns.iter().map(|column| column.name.clone()).zip(row).collect()) //
        };
        Ok(rows.into_iter().map(object).collect())
    }

    /// The answer as a CSV file, written as it comes.
    ///
    /// A text that a spreadsheet would run as a formula gets an apostrophe before it: events are other people's.
    ///
    /// # Errors
    /// What ClickHouse says at once.
    pub(super) async fn csv(&self, question: &Question, name: &str) -> Result<Response, Fault> {
        let turn = tokio::time::timeout(TURN_WITHIN, self.files.clone().acquire_owned());
        let turn = turn.await.map_err(|_| Fault::busy("other files are being written"))?;
        let turn = turn.map_err(|_| Fault::busy("the pipeline is stopping"))?;
        let mut lines = self.lines(question, Style::Read)?;
        let columns = head(&mut lines).await?;
        let (pieces, mut next) = mpsc::channel(4);
        let is_whole = Arc::new(AtomicBool::new(false));
        let ends_whole = is_whole.clone();
        tokio::spawn(async move {
            let _turn = turn;
            match write(lines, columns, &pieces).await {
                Ok(()) => ends_whole.store(true, Ordering::Release),
                Err(fault) => tracing::warn!(why = fault.what, "a CSV file of the console ended early"),
            }
        });
        let stream = futures_util::stream::poll_fn(move |context| match next.poll_recv(context) {
            // The file ends in the middle, which the browser tells as a failed download.
            Poll::Ready(None) if !is_whole.load(Ordering::Acquire) => {
                Poll::Ready(Some(Err(std::io::Error::other("the file ended early"))))
            }
            next => next.map(|piece| piece.map(Ok)),
        });
        let file = format!("attachment; filename=\"{}.csv\"", name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
        let headers =
            [(header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()), (header::CONTENT_DISPOSITION, file)];
        Ok((headers, Body::from_stream(stream)).into_response())
    }

    fn lines(&self, question: &Question, style: Style) -> Result<Lines, Refusal> {
        let settings = style.settings().iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let asked = clickhouse::Question {
            sql: question.sql.clone(),
            parameters: question.parameters.iter().map(|of| (of.name.clone(), of.value.clone())).collect(),
            settings: settings.collect(),
            format: "JSONCompactEachRowWithNamesAndTypes".to_owned(),
        };
        Ok(self.client.ask(&asked, &LIMITS)?.lines())
    }
}

/// Which of [`LIMITS`] has ended a question, by the code of ClickHouse's exception.
fn ended_by(told: &str) -> Option<String> {
    match told.split_once("Code: ")?.1.split('.').next()? {
        "159" => Some(format!("it would take longer than {} seconds", LIMITS.seconds)),
        "241" => Some(format!("it would take more than {} GiB of memory", LIMITS.memory_bytes >> 30)),
        "396" => Some("its answer would have too many rows or bytes".to_owned()),
        _ => None,
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        if let Refusal::Said(told) = &refusal
            && let Some(limit) = ended_by(told)
        {
            let what = format!("ClickHouse has ended the question, since {limit}. It says: {told}");
            let remedy = "narrow the range, filter, or take wider points".to_owned();
            return Fault { status: StatusCode::BAD_GATEWAY, what, remedy };
        }
        let remedy = match refusal {
            Refusal::Said(_) => "narrow the range, or see that the tables are those of this pipeline",
            Refusal::Away(_) => "see that ClickHouse is up, or narrow the range",
        };
        Fault { status: StatusCode::BAD_GATEWAY, what: refusal.to_string(), remedy: remedy.to_owned() }
    }
}

/// Writes rows as CSV, piece by piece, until all are written, something fails, or nobody takes them.
async fn write(mut lines: Lines, columns: Vec<Column>, pieces: &mpsc::Sender<Bytes>) -> Result<(), Fault> {
    let mut piece = record(columns.iter().map(|column| Value::String(column.name.clone())), |_| true);
    loop {
        let line = lines.next().await?;
        let is_last = line.is_none();
        if let Some(line) = line {
            let row: Vec<Value> = parsed(&line)?;
            piece.extend(record(row.into_iter(), |at| columns.get(at).is_some_and(|of| is_text(&of.kind))));
        }
        if is_last || piece.len() > PIECE_BYTES {
            hand_over(pieces, std::mem::take(&mut piece).into(), TAKEN_WITHIN).await?;
        }
        if is_last {
            return Ok(());
        }
    }
}

/// Hands a piece to whoever takes the file, who mustn't keep others waiting.
async fn hand_over(pieces: &mpsc::Sender<Bytes>, piece: Bytes, within: Duration) -> Result<(), Fault> {
    pieces.send_timeout(piece, within).await.map_err(|_| Fault::busy("nobody takes the file"))
}

/// The first two lines: names and types.
async fn head(lines: &mut Lines) -> Result<Vec<Column>, Fault> {
    let mut line = async || -> Result<Vec<String>, Fault> {
        lines.next().await?.map_or_else(|| Ok(Vec::new()), |line| parsed(&line)) //
    };
    let (names, kinds) = (line().await?, line().await?);
    Ok(names.into_iter().zip(kinds).map(|(name, kind)| Column { name, kind }).collect())
}

fn parsed<T: serde::de::DeserializeOwned>(line: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(line).map_err(|error| {
        let why = format!("ClickHouse answered something else: {error}");
        Fault::from(DeliveryError::Retriable { why })
    })
}

/// A cell that isn't too long.
fn cut(cell: Value) -> Value {
    match cell {
        Value::String(text) => match text.char_indices().nth(CELL_CHARS) {
            Some((at, _)) => Value::String(format!("{}…", &text[..at])),
            None => Value::String(text),
        },
        Value::Array(items) => Value::Array(items.into_iter().take(50).map(cut).collect()),
        other => other,
    }
}

fn is_text(kind: &str) -> bool {
    kind.contains("String")
}

/// A line of CSV, as RFC 4180 has it.
fn record(cells: impl Iterator<Item = Value>, is_text: impl Fn(usize) -> bool) -> Vec<u8> {
    let mut line = String::new();
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            line.push(',');
        }
        let text = match cell {
            Value::Null => continue,
            Value::String(text) => text,
            other => other.to_string(),
        };
        let is_formula = is_text(at) && text.starts_with(['=', '+', '-', '@', '\t', '\r']);
        if is_formula || text.contains(['"', ',', '\n', '\r']) {
            let mark = if is_formula { "'" } else { "" };
            line.push_str(&format!("\"{mark}{}\"", text.replace('"', "\"\"")));
        } else {
            line.push_str(&text);
        }
    }
    line.push_str("\r\n");
    line.into_bytes()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_spreadsheet_runs_nothing_of_an_event() {
        let row = [json!("=HYPERLINK(\"x\")"), json!("-5"), json!(null), json!("a,b"), json!(7)];
        let line = record(row.into_iter(), |at| at == 0);
        assert_eq!(String::from_utf8_lossy(&line), "\"'=HYPERLINK(\"\"x\"\")\",-5,,\"a,b\",7\r\n");
    }

    #[tokio::test]
    async fn who_takes_a_file_and_then_nothing_is_given_up() {
        let (pieces, mut next) = mpsc::channel(1);
        let give = async || hand_over(&pieces, Bytes::from_static(b"x"), Duration::from_millis(20)).await;
        assert!(give().await.is_ok(), "there is room");
        assert!(give().await.is_err(), "nobody takes it");
        assert!(next.recv().await.is_some());
        assert!(give().await.is_ok(), "it was taken");
        drop(next);
        assert!(give().await.is_err(), "nobody is there");
    }

    #[test]
    fn an_answer_that_is_cut_says_so_and_keeps_whole_points() {
        let of = |times: &[u64]| Answer { rows: times.iter().map(|at| vec![json!(at)]).collect(), ..Answer::default() };
        let mut whole = of(&[1, 2]);
        assert!(!whole.cut_to(2) && !whole.cut_to_newest(2) && whole.rows.len() == 2);
        let mut first = of(&[1, 2, 3]);
        assert!(first.cut_to(2) && first.rows == of(&[1, 2]).rows);
        let mut newest = of(&[1, 1, 2, 3]);
        assert!(
            newest.cut_to_newest(3) && newest.rows == of(&[2, 3]).rows,
            "what is left of the oldest time goes, too"
        );
        let mut same = of(&[1, 1, 1]);
        assert!(same.cut_to_newest(2) && same.rows == of(&[1, 1]).rows);
    }

    #[test]
    fn a_question_that_was_ended_says_by_which_limit() {
        let told = |text: &str| Fault::from(Refusal::Said(text.to_owned()));
        let slow = told("Code: 159. DB::Exception: Timeout exceeded: elapsed 20.5 seconds. (TIMEOUT_EXCEEDED)");
        assert!(slow.what.contains("longer than 20 seconds. It says: Code: 159.") && slow.remedy.contains("narrow"));
        assert!(told("Code: 241. DB::Exception: Memory limit").what.contains("more than 2 GiB of memory"));
        assert_eq!(told("Code: 60. DB::Exception: Unknown table").what, "Code: 60. DB::Exception: Unknown table");
    }

    #[test]
    fn a_huge_cell_is_cut() {
        let long = "ü".repeat(100_000);
        assert_eq!(cut(json!(long)).as_str().map(|text| text.chars().count()), Some(CELL_CHARS + 1));
        assert_eq!(cut(json!("short")), json!("short"));
    }
}
