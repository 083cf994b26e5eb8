//! The HTTP service: from a request to a running statement and back to a response.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderValue, Method, Response, StatusCode, header, response};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{Semaphore, mpsc};

use crate::connection::Connection;
use crate::engine::Engine;
use crate::exception::Exception;
use crate::formats;
use crate::outgoing::{Head, Message, PIECES_IN_FLIGHT};
use crate::request::{self, BodyLimits, Fields, Request};
use crate::run::{Progress, Run, Step};
use crate::session::Sessions;
use crate::sql::quoted_text;
use crate::{Error, Options};

/// How long a client has to read the exception of a statement that failed behind its first rows.
const CUT_OFF_AFTER: Duration = Duration::from_millis(500);
/// How long a request waits for its turn before it gets 202.
const TURN: Duration = Duration::from_secs(60);
/// How often a query whose client has gone is told to stop, until it has.
const KILL_EVERY: Duration = Duration::from_millis(100);

/// The engine and what all requests share.
pub struct Front {
    engine: Arc<Engine>,
    arguments: Vec<String>,
    /// Keeps the engine running (it stops with its last connection) and kills queries.
    control: Mutex<Option<Connection>>,
    sessions: Sessions,
    /// Requests whose bodies are read or held.
    requests: Arc<Semaphore>,
    /// Statements on the engine.
    statements: Arc<Semaphore>,
    statements_at_once: u32,
    body_limits: BodyLimits,
    result_bytes_at_most: u64,
    account: Option<(String, String)>,
    version: String,
    timezone: String,
}

impl Front {
    /// Loads the library and opens the data folder.
    ///
    /// # Errors
    /// The library or the folder can't be opened.
    pub fn open(options: &Options) -> Result<Arc<Front>, Error> {
        let engine = Engine::load(&options.library)?;
        engine.leave_signals_alone();
        let mut arguments = vec![format!("--path={}", options.data.display()), "--implicit_select=0".to_owned()];
        arguments.extend(options.engine_arguments.iter().cloned());
        let failed = |exception: Exception| Error::Data { path: PathBuf::from(&options.data), exception };
        let mut control = engine.connect(&arguments).map_err(failed)?;
        let mut ask = |question: &str| -> Result<String, Error> {
            let answer = control.query(question.as_bytes(), "TSVRaw", &[]).map_err(failed)?;
            Ok(String::from_utf8_lossy(answer.as_ref()).trim().to_owned())
        };
        let (version, timezone) = (ask("SELECT version()")?, ask("SELECT timezone()")?);
        let statements_at_once = options.statements_at_once.clamp(1, 1024);
        Ok(Arc::new(Front {
            engine,
            arguments,
            control: Mutex::new(Some(control)),
            sessions: Sessions::default(),
            requests: Arc::new(Semaphore::new(statements_at_once as usize * 4)),
            statements: Arc::new(Semaphore::new(statements_at_once as usize)),
            statements_at_once,
            body_limits: BodyLimits {
                bytes_at_most: options.body_bytes_at_most,
                memory_bytes_at_most: options.body_bytes_in_memory,
            },
            result_bytes_at_most: options.result_bytes_at_most,
            account: options.account.clone(),
            version,
            timezone,
        }))
    }

    pub(crate) fn connect(&self) -> Result<Connection, Exception> {
        self.engine.connect(&self.arguments)
    }

    /// The engine's `version()`.
    pub fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn result_bytes_at_most(&self) -> u64 {
        self.result_bytes_at_most
    }

    /// The service, to be given to `axum::serve`.
    pub fn router(self: &Arc<Front>) -> axum::Router {
        axum::Router::new().fallback(answer).with_state(self.clone())
    }

    /// Stops queries that still run, waits for their threads up to `patience`, closes the engine.
    /// False when a statement didn't end in time; its data is safe as after a kill.
    pub async fn close(self: &Arc<Front>, patience: Duration) -> bool {
        let front = self.clone();
        let _ = tokio::task::spawn_blocking(move || front.kill("like(Settings['log_comment'], '%weir-%')")).await;
        let all = self.statements.acquire_many(self.statements_at_once);
        let is_idle = tokio::time::timeout(patience, all).await.is_ok();
        let front = self.clone();
        let closing = tokio::task::spawn_blocking(move || {
            front.sessions.clear();
            drop(front.control.lock().unwrap_or_else(PoisonError::into_inner).take());
            if is_idle {
                front.engine.shutdown();
            }
            is_idle
        });
        closing.await.unwrap_or(false)
    }

    fn kill(&self, condition: &str) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(control) = control.as_mut() else { return };
        if let Err(exception) = control.query(format!("KILL QUERY WHERE {condition} ASYNC").as_bytes(), "Null", &[]) {
            tracing::warn!(%exception, "cannot kill a query");
        }
    }
}

/// Watches one request: dropped before its statement is finished, the client has gone.
struct Watch {
    front: Arc<Front>,
    progress: Arc<Progress>,
    comment: String,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.progress.advance(Step::Preparing, Step::Abandoned) || self.progress.step() != Step::Reading {
            return;
        }
        let (front, progress) = (self.front.clone(), self.progress.clone());
        let condition = format!("Settings['log_comment'] = {}", quoted_text(&self.comment));
        // A KILL may come before the engine lists the query, so it is repeated until it has worked.
        tokio::spawn(async move {
            while progress.step() == Step::Reading {
                let (front, condition) = (front.clone(), condition.clone());
                let _ = tokio::task::spawn_blocking(move || front.kill(&condition)).await;
                tokio::time::sleep(KILL_EVERY).await;
            }
        });
    }
}

async fn answer(State(front): State<Arc<Front>>, request: HttpRequest) -> Response<Body> {
    let mut query_id = String::new();
    match respond(&front, request, &mut query_id).await {
        Ok(response) => response,
        Err(exception) => failed(&front, &exception, &query_id),
    }
}

async fn respond(front: &Arc<Front>, request: HttpRequest, query_id: &mut String) -> Result<Response<Body>, Exception> {
    let (parts, body) = request.into_parts();
    let fields = Fields::of_url(&parts);
    let path = parts.uri.path();
    let is_bare = path == "/" && parts.method == Method::GET && fields.get("query").is_none();
    if is_bare || matches!(path, "/ping" | "/replicas_status") {
        return Ok(Response::new(Body::from("Ok.\n")));
    }
    if path != "/" && path != "/query" {
        return Ok(plain(
            StatusCode::NOT_FOUND,
            format!(
                "There is no handle {path}\n\nUse / or /ping for health checks.\nSend queries from your program with POST method or GET /?query=...\n"
            ),
        ));
    }
    if !matches!(parts.method, Method::GET | Method::POST) {
        return Ok(plain(StatusCode::METHOD_NOT_ALLOWED, "Use GET or POST.\n".to_owned()));
    }
    request::authorize(front.account.as_ref(), &parts.headers, &fields)?;
    let request_permit = turn(&front.requests).await?;
    let request = Request::read(&parts, fields, body, front.body_limits).await?;
    query_id.clone_from(&request.query_id);
    let permits = vec![request_permit, turn(&front.statements).await?];
    let (close, session) = match &request.session {
        None => (None, None),
        Some(wanted) => {
            let (front, wanted) = (front.clone(), wanted.clone());
            let close = wanted.close.then(|| wanted.id.clone());
            let locking = tokio::task::spawn_blocking(move || front.sessions.lock(&wanted, || front.connect()));
            (close, Some(locking.await.map_err(thread_failed)??))
        }
    };
    let mark = format!("weir-{}", uuid::Uuid::new_v4());
    let comment = request.log_comment.as_ref().map_or_else(|| mark.clone(), |own| format!("{own} {mark}"));
    let progress = Arc::new(Progress::default());
    let watch = Watch { front: front.clone(), progress: progress.clone(), comment: comment.clone() };
    let (sender, mut receiver) = mpsc::channel(PIECES_IN_FLIGHT);
    let run = Run { front: front.clone(), request, session, comment, sender, progress, permits };
    tokio::task::spawn_blocking(move || run.run());
    let first = receiver.recv().await;
    if let Some(id) = close {
        front.sessions.close(&id);
    }
    match first {
        Some(Message::Started(head)) => Ok(started(front, head, query_id, receiver, watch)),
        Some(Message::Failed(exception)) => Err(exception),
        Some(Message::Data(_) | Message::Broken) | None => Err(thread_failed("the statement's thread ended")),
    }
}

fn thread_failed(reason: impl std::fmt::Display) -> Exception {
    Exception::new(49, "LOGICAL_ERROR", reason)
}

async fn turn(places: &Arc<Semaphore>) -> Result<tokio::sync::OwnedSemaphorePermit, Exception> {
    match tokio::time::timeout(TURN, places.clone().acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) | Err(_) => Err(Exception::new(
            202,
            "TOO_MANY_SIMULTANEOUS_QUERIES",
            format_args!("no place became free within {} s", TURN.as_secs()),
        )),
    }
}

/// A response whose body follows the engine; dropping it drops `watch`.
fn started(
    front: &Front,
    head: Head,
    query_id: &str,
    receiver: mpsc::Receiver<Message>,
    watch: Watch,
) -> Response<Body> {
    let pieces = stream::unfold(Some((receiver, watch)), |state| async move {
        let (mut receiver, watch) = state?;
        match receiver.recv().await {
            Some(Message::Data(bytes)) => Some((Ok(bytes), Some((receiver, watch)))),
            Some(Message::Broken) => {
                // Lets the connection send the exception, and the client read it, before it is cut off.
                tokio::time::sleep(CUT_OFF_AFTER).await;
                Some((Err(std::io::Error::other("the statement failed behind its first rows")), None))
            }
            Some(Message::Started(_) | Message::Failed(_)) | None => None::<(Result<Bytes, std::io::Error>, _)>,
        }
    });
    let mut builder = common_headers(Response::builder(), query_id)
        .header("X-ClickHouse-Timezone", text_header(&front.timezone))
        .header("X-ClickHouse-Summary", text_header(&head.summary))
        .header("X-ClickHouse-Exception-Tag", text_header(&head.exception_tag))
        .header("X-ClickHouse-Format", text_header(&head.format))
        .header(header::CONTENT_TYPE, formats::content_type(&head.format));
    if let Some(encoding) = head.encoding {
        builder = builder.header(header::CONTENT_ENCODING, encoding);
    }
    builder
        .body(Body::from_stream(pieces))
        .unwrap_or_else(|error| plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")))
}

fn failed(front: &Front, exception: &Exception, query_id: &str) -> Response<Body> {
    let mut builder = common_headers(Response::builder().status(exception.status()), query_id)
        .header("X-ClickHouse-Exception-Code", exception.code())
        .header(header::CONTENT_TYPE, "text/plain; charset=UTF-8");
    if exception.status() == StatusCode::UNAUTHORIZED {
        builder = builder.header(header::WWW_AUTHENTICATE, "Basic realm=\"ClickHouse server HTTP API\"");
    }
    let message = exception.message(&front.version);
    builder
        .body(Body::from(message))
        .unwrap_or_else(|error| plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")))
}

fn common_headers(builder: response::Builder, query_id: &str) -> response::Builder {
    builder.header("X-ClickHouse-Query-Id", text_header(query_id)).header("X-ClickHouse-Server-Display-Name", "weir")
}

/// A header value; empty when a client's text can't be one.
fn text_header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}
