//! From a request's text and body to the one statement it holds.

use std::io::{Cursor, Read};

use crate::encoding;
use crate::exception::Exception;
use crate::formats::{self, Joining};
use crate::request::Request;
use crate::sql::{self, Insert};

/// An INSERT's head must end within this; ClickHouse's `max_query_size`.
const HEAD_BYTES_AT_MOST: usize = 256 << 10;
/// A statement without data (a long IN list, say) is held whole up to this.
const STATEMENT_BYTES_AT_MOST: u64 = 64 << 20;

/// What a request wants to be run.
pub(crate) enum Statement {
    /// An INSERT whose rows are read from `data`.
    Insert { insert: Insert, data: Box<dyn Read + Send> },
    /// Any other statement.
    Other(Text),
}

/// A statement without data of its own.
pub(crate) struct Text {
    pub(crate) text: Vec<u8>,
    /// The format of its result: its own FORMAT or the request's default.
    pub(crate) format: String,
    pub(crate) first_keyword: String,
    pub(crate) joining: Joining,
}

/// Takes the statement out of `request`, whose body is decoded on the way.
///
/// # Errors
/// 48 (unknown encoding), 62 (empty or too long), or what decoding says.
pub(crate) fn statement_of(request: &mut Request) -> Result<Statement, Exception> {
    let body =
        std::mem::replace(&mut request.body, crate::spool::Spool::new(0).complete().map_err(Exception::from_read)?);
    let body: Box<dyn Read + Send> = if body.is_empty() {
        Box::new(std::io::empty())
    } else {
        encoding::decoded(body, &request.content_encoding, request.framed_in)?
    };
    let mut input: Box<dyn Read + Send> = body;
    if let Some(text) = request.statement.take() {
        match sql::insert_of(text.as_bytes()) {
            Some(insert) if insert.complete => {
                let inline = Cursor::new(text.into_bytes().split_off(insert.data_at));
                return Ok(Statement::Insert { insert, data: Box::new(inline.chain(input)) });
            }
            // A server reads URL and body as one text.
            _ => input = Box::new(Cursor::new(text.into_bytes()).chain(Cursor::new(b"\n")).chain(input)),
        }
    }
    let mut text = Vec::new();
    input.by_ref().take(HEAD_BYTES_AT_MOST as u64).read_to_end(&mut text).map_err(Exception::from_read)?;
    let is_cut = text.len() == HEAD_BYTES_AT_MOST;
    if let Some(insert) = sql::insert_of(&text) {
        if is_cut && (!insert.complete || insert.data_at >= text.len()) {
            return Err(too_long("the INSERT in front of its data", HEAD_BYTES_AT_MOST as u64));
        }
        let inline = Cursor::new(text.split_off(insert.data_at));
        return Ok(Statement::Insert { insert, data: Box::new(inline.chain(input)) });
    }
    let rest = STATEMENT_BYTES_AT_MOST - text.len() as u64;
    input.by_ref().take(rest).read_to_end(&mut text).map_err(Exception::from_read)?;
    if text.len() as u64 == STATEMENT_BYTES_AT_MOST {
        return Err(too_long("the statement", STATEMENT_BYTES_AT_MOST));
    }
    other_of(text, request).map(Statement::Other)
}

fn too_long(what: &str, bytes_at_most: u64) -> Exception {
    Exception::new(62, "SYNTAX_ERROR", format_args!("{what} is longer than {bytes_at_most} bytes"))
}

fn other_of(text: Vec<u8>, request: &Request) -> Result<Text, Exception> {
    let shape = sql::shape_of(&text);
    if shape.first.is_empty() {
        return Err(Exception::new(62, "SYNTAX_ERROR", "Syntax error: Empty query"));
    }
    let format = shape.format.unwrap_or_else(|| request.default_format.clone());
    // Rows of a second kind, or an array around the rows, exist once per document.
    let is_one_document = shape.has_totals
        || contains(&text, ARRAY_OF_ROWS.as_bytes())
        || request.settings.iter().any(|(name, _)| name == "extremes" || name == ARRAY_OF_ROWS);
    let joining = if is_one_document { Joining::Whole } else { formats::joining_of(&format) };
    Ok(Text { text, format, first_keyword: shape.first, joining })
}

const ARRAY_OF_ROWS: &str = "output_format_json_array_of_rows";

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
