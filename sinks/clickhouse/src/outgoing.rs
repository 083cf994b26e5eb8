//! A result on its way from the engine's thread to the client's response.
//!
//! The first bytes are held until they pass the request's `buffer_size` or the result ends, so that
//! most failures still get an HTTP status of their own. From then on pieces go through a channel of
//! [`PIECES_IN_FLIGHT`]: a slow client slows the engine. A failure behind the start is written into the body as a server does:
//! the exception between two `__exception__` marks with the tag from the header, then the
//! connection ends without the last chunk.

use std::io::Read;

use bytes::Bytes;
use tokio::sync::mpsc::Sender;

use crate::connection::{Counters, Output};
use crate::encoding::Encoder;
use crate::exception::Exception;
use crate::spool::Spool;

/// Bound of the channel to the response; each piece is at most [`PIECE_BYTES`] long.
pub(crate) const PIECES_IN_FLIGHT: usize = 4;
const PIECE_BYTES: usize = 1 << 20;
/// What `wait_end_of_query=1` holds in memory; more goes to a temporary file.
const HELD_IN_MEMORY_BYTES: usize = 4 << 20;

/// What the response learns before its body.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) format: String,
    pub(crate) encoding: Option<&'static str>,
    /// `X-ClickHouse-Summary`: complete when the result ended within what was held.
    pub(crate) summary: String,
    pub(crate) exception_tag: String,
}

/// What goes through the channel: one `Started`, then data; or one `Failed`.
#[derive(Debug)]
pub(crate) enum Message {
    Started(Head),
    Data(Bytes),
    Failed(Exception),
    /// The body so far ends in an exception.
    Broken,
}

/// Why a statement's thread stops early.
#[derive(Debug)]
pub(crate) enum Stop {
    Exception(Exception),
    /// The client has gone.
    Gone,
}

impl From<Exception> for Stop {
    fn from(exception: Exception) -> Stop {
        Stop::Exception(exception)
    }
}

enum Held {
    /// Not started; kept in memory up to a number of bytes.
    Pieces { pieces: Vec<Bytes>, bytes: usize, bytes_at_most: usize },
    /// Not started, and not before the end.
    UntilEnd(Spool),
    /// The head has been sent.
    Started,
}

/// The sending side of a response.
pub(crate) struct Outgoing {
    sender: Sender<Message>,
    encoder: Encoder,
    encoding: Option<&'static str>,
    held: Held,
    has_bytes: bool,
    format: String,
    exception_tag: String,
    counters: Counters,
}

impl Outgoing {
    /// A response in `format` whose first `hold_bytes` bytes are held, or all with `wait_end`.
    pub(crate) fn new(
        sender: Sender<Message>,
        encoder: Encoder,
        format: String,
        hold_bytes: usize,
        wait_end: bool,
    ) -> Outgoing {
        let held = if wait_end {
            Held::UntilEnd(Spool::new(HELD_IN_MEMORY_BYTES))
        } else {
            Held::Pieces { pieces: Vec::new(), bytes: 0, bytes_at_most: hold_bytes }
        };
        let encoding = encoder.name();
        Outgoing {
            sender,
            encoder,
            encoding,
            held,
            has_bytes: false,
            format,
            exception_tag: new_tag(),
            counters: Counters::default(),
        }
    }

    /// Sends a piece of the result from its byte `from` on.
    ///
    /// # Errors
    /// [`Stop::Gone`] when nobody reads any more; compressing or spooling.
    pub(crate) fn push(&mut self, piece: Output, from: usize) -> Result<(), Stop> {
        self.counters.add(&piece.counters);
        if piece.as_ref().len() <= from {
            return Ok(());
        }
        self.has_bytes = true;
        if self.encoder.is_plain() {
            return self.forward(Bytes::from_owner(piece).slice(from..));
        }
        for part in piece.as_ref()[from..].chunks(PIECE_BYTES) {
            let encoded = self.encoder.encode(part, false).map_err(failed_to_compress)?;
            self.forward(encoded.into())?;
        }
        Ok(())
    }

    fn forward(&mut self, bytes: Bytes) -> Result<(), Stop> {
        match &mut self.held {
            Held::Started => return send_parts(&self.sender, bytes),
            Held::UntilEnd(spool) => return spool.write(&bytes).map_err(failed_to_hold),
            Held::Pieces { pieces, bytes: held, bytes_at_most } => {
                *held += bytes.len();
                pieces.push(bytes);
                if *held <= *bytes_at_most {
                    return Ok(());
                }
            }
        }
        self.start()
    }

    /// Sends the head and what is held.
    fn start(&mut self) -> Result<(), Stop> {
        let head = Head {
            format: std::mem::take(&mut self.format),
            encoding: self.encoding,
            summary: summary(&self.counters),
            exception_tag: self.exception_tag.clone(),
        };
        self.sender.blocking_send(Message::Started(head)).map_err(|_| Stop::Gone)?;
        match std::mem::replace(&mut self.held, Held::Started) {
            Held::Started => Ok(()),
            Held::Pieces { pieces, .. } => pieces.into_iter().try_for_each(|piece| send_parts(&self.sender, piece)),
            Held::UntilEnd(spool) => {
                let mut held = spool.complete().map_err(failed_to_hold)?;
                loop {
                    let mut part = Vec::with_capacity(PIECE_BYTES);
                    held.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut part).map_err(failed_to_hold)?;
                    if part.is_empty() {
                        return Ok(());
                    }
                    send_parts(&self.sender, part.into())?;
                }
            }
        }
    }

    /// Ends the response; `counters` of a statement without rows (an INSERT) come in here.
    ///
    /// # Errors
    /// As [`Outgoing::push`].
    pub(crate) fn finish(&mut self, counters: Option<Counters>) -> Result<(), Stop> {
        if let Some(counters) = counters {
            self.counters.add(&counters);
        }
        if self.has_bytes {
            let encoder = std::mem::replace(&mut self.encoder, Encoder::Plain);
            let end = encoder.finish().map_err(failed_to_compress)?;
            self.forward(end.into())?;
        } else {
            // An empty body stays empty rather than becoming an empty compressed stream.
            self.encoding = None;
        }
        if matches!(self.held, Held::Started) { Ok(()) } else { self.start() }
    }

    /// Ends a response that has started with a failure in its body; gives the exception back when nothing was sent.
    pub(crate) fn fail(&mut self, exception: Exception, version: &str) -> Result<(), Stop> {
        if !matches!(self.held, Held::Started) {
            return Err(Stop::Exception(exception));
        }
        let message = exception.message(version);
        let tag = &self.exception_tag;
        let block = format!("\r\n__exception__\r\n{tag}\r\n{message}{} {tag}\r\n__exception__\r\n", message.len());
        // Flushed before and behind, so that clients find the block at the end of a piece.
        let pieces = [self.encoder.encode(b"", true), self.encoder.encode(block.as_bytes(), true)];
        for piece in pieces.into_iter().flatten() {
            send_parts(&self.sender, piece.into())?;
        }
        self.sender.blocking_send(Message::Broken).map_err(|_| Stop::Gone)
    }
}

fn failed_to_compress(error: std::io::Error) -> Stop {
    Stop::Exception(Exception::new(270, "CANNOT_COMPRESS", format_args!("cannot compress the response: {error}")))
}

fn failed_to_hold(error: std::io::Error) -> Stop {
    Stop::Exception(Exception::new(
        243,
        "NOT_ENOUGH_SPACE",
        format_args!("cannot hold the response in a temporary file: {error}"),
    ))
}

fn send_parts(sender: &Sender<Message>, mut bytes: Bytes) -> Result<(), Stop> {
    while !bytes.is_empty() {
        let part = bytes.split_to(bytes.len().min(PIECE_BYTES));
        sender.blocking_send(Message::Data(part)).map_err(|_| Stop::Gone)?;
    }
    Ok(())
}

fn summary(counters: &Counters) -> String {
    format!(
        "{{\"read_rows\":\"{}\",\"read_bytes\":\"{}\",\"written_rows\":\"{}\",\"written_bytes\":\"{}\",\"total_rows_to_read\":\"0\",\
         \"result_rows\":\"{}\",\"result_bytes\":\"{}\",\"elapsed_ns\":\"{:.0}\"}}",
        counters.read_rows,
        counters.read_bytes,
        counters.written_rows,
        counters.written_bytes,
        counters.result_rows,
        counters.result_bytes,
        counters.elapsed_seconds * 1e9,
    )
}

/// Sixteen lower-case letters that the data can't know.
fn new_tag() -> String {
    uuid::Uuid::new_v4().as_bytes().iter().map(|byte| char::from(b'a' + byte % 26)).collect()
}
