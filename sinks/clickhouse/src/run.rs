//! Runs one statement on the engine, on a thread that may block.
//!
//! Without `session_id` a request has a connection of its own, so that USE, settings and
//! parameters can't leak into another request. In a session, the request's settings are put back
//! afterwards: a server keeps only what `SET` has set.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, mpsc::Sender};

use crate::connection::{Class, Connection};
use crate::encoding::Encoder;
use crate::exception::Exception;
use crate::formats::{Joiner, Joining};
use crate::front::Front;
use crate::outgoing::{Message, Outgoing, Stop};
use crate::request::Request;
use crate::sql::{quoted_name, quoted_text};
use crate::statement::{self, Statement, Text};

/// How far a statement has come, shared with the one who watches whether its client is still there.
#[derive(Default)]
pub(crate) struct Progress(AtomicU8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Before it was handed to the engine.
    Preparing,
    /// Reads only: to be killed when its client goes away.
    Reading,
    /// Changes something: goes on without its client, as in a server.
    Changing,
    Finished,
    /// The client went away before it began.
    Abandoned,
}

impl Progress {
    const STEPS: [Step; 5] = [Step::Preparing, Step::Reading, Step::Changing, Step::Finished, Step::Abandoned];

    pub(crate) fn step(&self) -> Step {
        Self::STEPS.get(usize::from(self.0.load(Ordering::SeqCst))).copied().unwrap_or(Step::Finished)
    }

    /// Moves from `from` to `to`; false when it was elsewhere.
    pub(crate) fn advance(&self, from: Step, to: Step) -> bool {
        self.0.compare_exchange(from as u8, to as u8, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn finish(&self) {
        self.0.store(Step::Finished as u8, Ordering::SeqCst);
    }
}

/// One statement with everything that it needs.
pub(crate) struct Run {
    pub(crate) front: Arc<Front>,
    pub(crate) request: Request,
    pub(crate) session: Option<OwnedMutexGuard<Connection>>,
    /// The `log_comment` by which KILL QUERY finds it.
    pub(crate) comment: String,
    pub(crate) sender: Sender<Message>,
    pub(crate) progress: Arc<Progress>,
    /// Released when the statement is over.
    pub(crate) permits: Vec<OwnedSemaphorePermit>,
}

impl Run {
    /// Runs the statement to its end; every outcome goes through the channel.
    pub(crate) fn run(self) {
        let Run { front, mut request, session, comment, sender, progress, permits } = self;
        let outcome = execute(&front, &mut request, session, &comment, &sender, &progress);
        progress.finish();
        if let Err(Stop::Exception(exception)) = outcome {
            // Sent only here, when the session is free again: the client may ask the next thing at once.
            let _ = sender.blocking_send(Message::Failed(exception));
        }
        drop(permits);
    }
}

fn execute(
    front: &Front,
    request: &mut Request,
    session: Option<OwnedMutexGuard<Connection>>,
    comment: &str,
    sender: &Sender<Message>,
    progress: &Progress,
) -> Result<(), Stop> {
    let statement = statement::statement_of(request)?;
    let is_session = session.is_some();
    let (mut own, mut held);
    let connection: &mut Connection = match session {
        Some(session) => {
            held = session;
            &mut held
        }
        None => {
            own = front.connect()?;
            &mut own
        }
    };
    if let Some(database) = &request.database {
        connection.query(format!("USE {}", quoted_name(database)).as_bytes(), "Null", &[])?;
    }
    let mut settings = request.settings.clone();
    if let Statement::Other(Text { joining: Joining::Whole, .. }) = &statement
        && !settings.iter().any(|(name, _)| name == "max_result_bytes")
    {
        settings.push(("max_result_bytes".to_owned(), front.result_bytes_at_most().to_string()));
    }
    let before = if is_session { values_of(connection, &settings)? } else { String::new() };
    settings.push(("log_comment".to_owned(), comment.to_owned()));
    connection.query(set_statement(&settings)?.as_bytes(), "Null", &[])?;
    let encoder = Encoder::new(request.framed_out, &request.accept_encoding).map_err(|error| {
        Exception::new(270, "CANNOT_COMPRESS", format_args!("cannot compress the response: {error}"))
    })?;
    let format = match &statement {
        Statement::Insert { .. } => "Null".to_owned(),
        Statement::Other(text) => text.format.clone(),
    };
    let mut outgoing = Outgoing::new(sender.clone(), encoder, format, request.hold_bytes, request.wait_end);
    let outcome = match statement {
        Statement::Insert { insert, mut data } => {
            refuse_change(request.read_only)?;
            begin(progress, Step::Changing)?;
            connection
                .insert(&insert.head, &insert.format, &request.parameters, &mut *data)
                .map_err(Stop::Exception)
                .and_then(|output| outgoing.finish(Some(output.counters)))
        }
        Statement::Other(text) => run_text(connection, &text, request, progress, &mut outgoing),
    };
    if !before.is_empty() {
        let _ = connection.query(before.as_bytes(), "Null", &[]);
    }
    match outcome {
        Err(Stop::Exception(exception)) => outgoing.fail(exception, front.version()),
        outcome => outcome,
    }
}

fn begin(progress: &Progress, step: Step) -> Result<(), Stop> {
    if progress.advance(Step::Preparing, step) { Ok(()) } else { Err(Stop::Gone) }
}

fn refuse_change(read_only: bool) -> Result<(), Exception> {
    if !read_only {
        return Ok(());
    }
    Err(Exception::new(
        164,
        "READONLY",
        "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly. You should use method POST for modifying queries.",
    ))
}

fn run_text(
    connection: &mut Connection,
    text: &Text,
    request: &Request,
    progress: &Progress,
    outgoing: &mut Outgoing,
) -> Result<(), Stop> {
    let (class, statements) = connection.classify(&text.text);
    if statements > 1 {
        return Err(Exception::new(62, "SYNTAX_ERROR", "Syntax error (Multi-statements are not allowed)").into());
    }
    let is_session_matter = matches!(text.first_keyword.as_str(), "SET" | "USE");
    if matches!(class, Class::Mutating | Class::Control) && !is_session_matter {
        refuse_change(request.read_only)?;
    }
    begin(progress, if class == Class::ReadOnly { Step::Reading } else { Step::Changing })?;
    let is_select = matches!(text.first_keyword.as_str(), "SELECT" | "WITH" | "FROM");
    if class == Class::ReadOnly && is_select && text.joining != Joining::Whole {
        match stream_text(connection, text, request, outgoing) {
            Err(Stop::Exception(exception)) if exception.says_not_streamable() => {}
            outcome => return outcome,
        }
    }
    let output = connection.query(&text.text, &request.default_format, &request.parameters)?;
    outgoing.push(output, 0)?;
    outgoing.finish(None)
}

fn stream_text(
    connection: &mut Connection,
    text: &Text,
    request: &Request,
    outgoing: &mut Outgoing,
) -> Result<(), Stop> {
    let mut rows = connection.stream(&text.text, &request.default_format, &request.parameters)?;
    let mut joiner = Joiner::new(text.joining);
    while let Some(piece) = rows.next_piece()? {
        let from = joiner.repeated(piece.as_ref()).ok_or_else(|| {
            Exception::new(
                49,
                "LOGICAL_ERROR",
                format_args!("a piece of the result lacks the header of format {}", text.format),
            )
        })?;
        outgoing.push(piece, from)?;
    }
    drop(rows);
    outgoing.finish(None)
}

/// One SET statement for `settings`.
fn set_statement(settings: &[(String, String)]) -> Result<String, Exception> {
    let mut statement = String::from("SET ");
    for (index, (name, value)) in settings.iter().enumerate() {
        check_name(name)?;
        let comma = if index == 0 { "" } else { ", " };
        statement += &format!("{comma}{name} = {}", quoted_text(value));
    }
    Ok(statement)
}

fn check_name(name: &str) -> Result<(), Exception> {
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.') {
        return Ok(());
    }
    Err(Exception::new(115, "UNKNOWN_SETTING", format_args!("Unknown setting {name:?}")))
}

/// The SET statement that puts the session's `settings` back to what they are now; '' for none.
fn values_of(connection: &mut Connection, settings: &[(String, String)]) -> Result<String, Exception> {
    let mut restore = Vec::new();
    for (name, _) in settings {
        check_name(name)?;
        let question = format!("SELECT changed, value FROM system.settings WHERE name = {}", quoted_text(name));
        let answer = connection.query(question.as_bytes(), "TSVRaw", &[])?;
        let answer = String::from_utf8_lossy(answer.as_ref()).into_owned();
        match answer.trim_end_matches('\n').split_once('\t') {
            Some(("1", value)) => restore.push(format!("{name} = {}", quoted_text(value))),
            Some(_) => restore.push(format!("{name} = DEFAULT")),
            None => {}
        }
    }
    Ok(if restore.is_empty() { String::new() } else { format!("SET {}", restore.join(", ")) })
}
