//! One session of the engine: statements, streamed results, streamed inserts.
//!
//! Invariants:
//! - The engine runs one statement at a time on a session, and only one thread may use it: every
//!   method takes `&mut self`, a [`Rows`] borrows its connection until it is dropped.
//! - Inserts with data always go through the streaming insert. `chdb_query` cuts inline data of any
//!   format except VALUES at the first blank line (`0A 0A`) and loses rows without an error.
//! - After a failed statement the engine prefixes the next result with what the failed one had
//!   written so far (seen with 26.7.3); [`Connection::query`] drains that remainder itself.

use std::ffi::c_char;
use std::io::Read;
use std::sync::Arc;

use crate::engine::{
    Analysis, ConnectionPointer, Engine, QueryFunction, RawConnection, RawInsert, RawResult, owned_text,
};
use crate::exception::Exception;

/// How much of an insert's data is handed to the engine in one call.
const APPEND_BYTES: usize = 1 << 20;

/// `name`, `value` pairs for `{name:Type}` places in a statement.
pub(crate) type Parameters = Vec<(String, String)>;

/// What a statement does to state that outlives it, decided by the engine's own parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Changes nothing.
    ReadOnly,
    /// Changes tables, databases, functions or users.
    Mutating,
    /// Changes the session or the engine: SET, USE, SYSTEM, KILL.
    Control,
    /// Doesn't parse; the engine will say where when it is run.
    Unknown,
}

/// Counters of a result or of one piece of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) elapsed_seconds: f64,
    pub(crate) result_rows: u64,
    pub(crate) result_bytes: u64,
    pub(crate) read_rows: u64,
    pub(crate) read_bytes: u64,
    pub(crate) written_rows: u64,
    pub(crate) written_bytes: u64,
}

impl Counters {
    /// Adds a later piece of the same result.
    pub(crate) fn add(&mut self, piece: &Counters) {
        self.elapsed_seconds = self.elapsed_seconds.max(piece.elapsed_seconds);
        self.result_rows += piece.result_rows;
        self.result_bytes += piece.result_bytes;
        self.read_rows += piece.read_rows;
        self.read_bytes += piece.read_bytes;
        self.written_rows += piece.written_rows;
        self.written_bytes += piece.written_bytes;
    }
}

/// A session of the engine; closed when dropped.
pub(crate) struct Connection {
    engine: Arc<Engine>,
    pointer: ConnectionPointer,
}

// SAFETY: a session may move between threads as long as one uses it at a time, which `&mut` proves.
unsafe impl Send for Connection {}

/// A result, or a piece of one; its bytes stay in the engine's buffer until it is dropped.
pub(crate) struct Output {
    engine: Arc<Engine>,
    result: RawResult,
    pub(crate) counters: Counters,
}

// SAFETY: a result is not tied to a thread and is only read after it was made.
unsafe impl Send for Output {}
// SAFETY: see above: all access is reading.
unsafe impl Sync for Output {}

impl AsRef<[u8]> for Output {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the buffer has that length and lives until the result is destroyed in `drop`.
        unsafe {
            let buffer = (self.engine.chdb_result_buffer)(self.result);
            let length = (self.engine.chdb_result_length)(self.result);
            if buffer.is_null() || length == 0 { &[] } else { std::slice::from_raw_parts(buffer.cast::<u8>(), length) }
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // SAFETY: the result is destroyed once, here.
        unsafe { (self.engine.chdb_destroy_query_result)(self.result) }
    }
}

/// Parameters as the four arrays that the C interface takes, borrowed from [`Parameters`].
struct Bound {
    names: Vec<*const c_char>,
    name_lengths: Vec<usize>,
    values: Vec<*const c_char>,
    value_lengths: Vec<usize>,
}

impl Bound {
    fn new(parameters: &[(String, String)]) -> Bound {
        Bound {
            names: parameters.iter().map(|(name, _)| name.as_ptr().cast()).collect(),
            name_lengths: parameters.iter().map(|(name, _)| name.len()).collect(),
            values: parameters.iter().map(|(_, value)| value.as_ptr().cast()).collect(),
            value_lengths: parameters.iter().map(|(_, value)| value.len()).collect(),
        }
    }
}

impl Connection {
    pub(crate) fn new(engine: Arc<Engine>, pointer: ConnectionPointer) -> Connection {
        Connection { engine, pointer }
    }

    fn raw(&self) -> RawConnection {
        // SAFETY: `pointer` was checked at connect and stays valid until `drop`.
        unsafe { *self.pointer }
    }

    /// The class of `statement` and how many statements the text holds (0: it doesn't parse).
    pub(crate) fn classify(&mut self, statement: &[u8]) -> (Class, u32) {
        let size = u32::try_from(size_of::<Analysis>()).unwrap_or(16);
        let mut analysis = Analysis { struct_size: size, statement_count: 0, flags: 0, query_class: 4 };
        // SAFETY: the text is passed with its length, the struct says its own size.
        let state = unsafe {
            (self.engine.chdb_classify_query_n)(
                self.raw(),
                statement.as_ptr().cast(),
                statement.len(),
                std::ptr::null(),
                0,
                &raw mut analysis,
            )
        };
        let class = match (state, analysis.query_class) {
            (0, 0) => Class::ReadOnly,
            (0, 1 | 2) => Class::Mutating,
            (0, 3) => Class::Control,
            _ => Class::Unknown,
        };
        (class, analysis.statement_count)
    }

    /// Calls one of the engine's functions that take a statement with parameters and have a result.
    fn ask(
        &self,
        function: QueryFunction,
        statement: &[u8],
        format: &str,
        parameters: &[(String, String)],
    ) -> Result<Output, Exception> {
        let bound = Bound::new(parameters);
        // SAFETY: all texts are passed with their lengths and live through the call.
        let result = unsafe {
            function(
                self.raw(),
                statement.as_ptr().cast(),
                statement.len(),
                format.as_ptr().cast(),
                format.len(),
                bound.names.as_ptr(),
                bound.name_lengths.as_ptr(),
                bound.values.as_ptr(),
                bound.value_lengths.as_ptr(),
                parameters.len(),
            )
        };
        finish(&self.engine, result)
    }

    /// Runs one statement and holds its whole result.
    ///
    /// # Errors
    /// The engine's exception.
    pub(crate) fn query(
        &mut self,
        statement: &[u8],
        format: &str,
        parameters: &[(String, String)],
    ) -> Result<Output, Exception> {
        let output = self.ask(self.engine.chdb_query_with_params_n, statement, format, parameters);
        if output.is_err() && statement != DRAIN {
            let _ = self.query(DRAIN, "Null", &[]);
        }
        output
    }

    /// Starts a SELECT whose result is fetched piece by piece.
    ///
    /// # Errors
    /// The engine's exception; code 36 with "Streaming query is not supported" for other statements.
    pub(crate) fn stream(
        &mut self,
        statement: &[u8],
        format: &str,
        parameters: &[(String, String)],
    ) -> Result<Rows<'_>, Exception> {
        // The engine captures the parameters before it returns.
        let stream = self.ask(self.engine.chdb_stream_query_with_params_n, statement, format, parameters)?;
        Ok(Rows { connection: self, stream, ended: false })
    }

    /// Inserts `data`, read to its end. `head` is the INSERT without its FORMAT clause and data.
    ///
    /// When `data` or the engine fails, the rows of blocks that were not complete yet are dropped;
    /// complete blocks (about a million rows each) may be stored, as in a server.
    ///
    /// # Errors
    /// The engine's exception, or the one that `data` carries.
    pub(crate) fn insert(
        &mut self,
        head: &str,
        format: &str,
        parameters: &[(String, String)],
        data: &mut dyn Read,
    ) -> Result<Output, Exception> {
        let bound = Bound::new(parameters);
        // SAFETY: as in `ask`; the handle is never null and is destroyed by `InsertHandle`.
        let handle = InsertHandle {
            engine: &self.engine,
            handle: unsafe {
                (self.engine.chdb_stream_insert_with_params_n)(
                    self.raw(),
                    head.as_ptr().cast(),
                    head.len(),
                    format.as_ptr().cast(),
                    format.len(),
                    bound.names.as_ptr(),
                    bound.name_lengths.as_ptr(),
                    bound.values.as_ptr(),
                    bound.value_lengths.as_ptr(),
                    parameters.len(),
                )
            },
        };
        handle.error()?;
        let mut buffer = vec![0; APPEND_BYTES];
        loop {
            let length = match data.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    handle.cancel();
                    return Err(Exception::from_read(error));
                }
            };
            // SAFETY: the engine copies the first `length` bytes of the buffer.
            let state = unsafe { (self.engine.chdb_stream_append)(handle.handle, buffer.as_ptr().cast(), length) };
            if state != 0 {
                break;
            }
        }
        // SAFETY: the stream is finished once; an append that failed reports its error here.
        let output = finish(&self.engine, unsafe { (self.engine.chdb_stream_done)(handle.handle) });
        if output.is_err() {
            handle.cancel();
        }
        output
    }
}

/// The statement that takes up what a failed one has left in the session's output.
const DRAIN: &[u8] = b"SELECT 1";

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: closed once, here; no result of the session that needs it is alive.
        unsafe { (self.engine.chdb_close_conn)(self.pointer) }
    }
}

/// An open insert stream, destroyed when dropped.
struct InsertHandle<'engine> {
    engine: &'engine Engine,
    handle: RawInsert,
}

impl InsertHandle<'_> {
    fn error(&self) -> Result<(), Exception> {
        // SAFETY: the text belongs to the live handle and is copied.
        match unsafe { owned_text((self.engine.chdb_stream_insert_error)(self.handle)) } {
            Some(text) => Err(Exception::from_engine(text)),
            None => Ok(()),
        }
    }

    fn cancel(&self) {
        // SAFETY: allowed at any moment of a live handle.
        unsafe { (self.engine.chdb_stream_cancel_insert)(self.handle) }
    }
}

impl Drop for InsertHandle<'_> {
    fn drop(&mut self) {
        // SAFETY: destroyed once, here.
        unsafe { (self.engine.chdb_destroy_insert_stream)(self.handle) }
    }
}

/// A streamed result. Dropping it before its end cancels the query.
pub(crate) struct Rows<'connection> {
    connection: &'connection mut Connection,
    stream: Output,
    ended: bool,
}

impl Rows<'_> {
    /// The next piece, a document of its own in formats that have a beginning or an end; `None` at
    /// the end. Blocks while the engine computes.
    ///
    /// # Errors
    /// The engine's exception; the stream is over then.
    pub(crate) fn next_piece(&mut self) -> Result<Option<Output>, Exception> {
        if self.ended {
            return Ok(None);
        }
        // SAFETY: connection and stream are alive; `&mut self` keeps other calls away.
        let piece =
            unsafe { (self.connection.engine.chdb_stream_fetch_result)(self.connection.raw(), self.stream.result) };
        let piece = finish(&self.connection.engine, piece).inspect_err(|_| self.ended = true)?;
        // Rows may have no bytes (format Null, empty tuples); the end has neither.
        self.ended = piece.as_ref().is_empty() && piece.counters.result_rows == 0;
        Ok((!self.ended).then_some(piece))
    }
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        // SAFETY: cancelling is allowed at any moment, also after the end; the stream's own
        // handle is destroyed afterwards, with the field.
        unsafe { (self.connection.engine.chdb_stream_cancel_query)(self.connection.raw(), self.stream.result) }
    }
}

/// Takes over a result: its counters, or its exception.
fn finish(engine: &Arc<Engine>, result: RawResult) -> Result<Output, Exception> {
    if result.is_null() {
        return Err(Exception::new(49, "LOGICAL_ERROR", "the engine returned no result"));
    }
    // SAFETY: the result is alive until `Output` is dropped; all calls only read it.
    unsafe {
        let counters = Counters {
            elapsed_seconds: (engine.chdb_result_elapsed)(result),
            result_rows: (engine.chdb_result_rows_read)(result),
            result_bytes: (engine.chdb_result_bytes_read)(result),
            read_rows: (engine.chdb_result_storage_rows_read)(result),
            read_bytes: (engine.chdb_result_storage_bytes_read)(result),
            written_rows: (engine.chdb_result_rows_written)(result),
            written_bytes: (engine.chdb_result_bytes_written)(result),
        };
        let output = Output { engine: engine.clone(), result, counters };
        match owned_text((engine.chdb_result_error)(result)) {
            Some(text) => Err(Exception::from_engine(text)),
            None => Ok(output),
        }
    }
}
