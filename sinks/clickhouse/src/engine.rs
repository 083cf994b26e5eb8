//! The part of libchdb's C interface that the front needs, resolved at run time.
//!
//! The library is opened with `dlopen`, so that this crate builds, links and shows its help on a
//! machine without libchdb. The signatures are those of `chdb.h` of chdb-core 26.7.3; a symbol that
//! is missing makes [`Engine::load`] fail by name instead of crashing later.
//!
//! Nothing here interprets SQL or HTTP. Every `unsafe` of the crate is in this file and in
//! `connection.rs`.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::sync::Arc;

use crate::Error;
use crate::connection::Connection;
use crate::exception::Exception;

/// The npm package that carries the library; the version is named because its tag `latest` is older.
pub const PACKAGE: &str = "@chdb/lib-linux-x64-gnu@26.7.3-stable.1";
/// SHA-256 of that package's `libchdb.so` (566,330,096 bytes).
pub const SHA256: &str = "36ad4e999882821ef13cf2d0f52c93f48e6ee1b4498b35a201c23ce4b8d15bf5";

/// `chdb_connection *`: libchdb hands out a pointer to the connection, and its calls take the
/// connection itself.
pub(crate) type ConnectionPointer = *mut *mut c_void;
pub(crate) type RawConnection = *mut c_void;
pub(crate) type RawResult = *mut c_void;
pub(crate) type RawInsert = *mut c_void;
pub(crate) type Texts = *const *const c_char;
pub(crate) type Lengths = *const usize;

/// `chdb_query_analysis_v1`: what a statement does to state that outlives it.
#[repr(C)]
pub(crate) struct Analysis {
    pub(crate) struct_size: u32,
    pub(crate) statement_count: u32,
    pub(crate) flags: u32,
    pub(crate) query_class: u32,
}

/// A function that takes a statement, a format and parameters, each as texts with their lengths, and has a result.
pub(crate) type QueryFunction = unsafe extern "C" fn(
    RawConnection,
    *const c_char,
    usize,
    *const c_char,
    usize,
    Texts,
    Lengths,
    Texts,
    Lengths,
    usize,
) -> RawResult;

macro_rules! symbols {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// libchdb, loaded. Lives until the process ends: the engine keeps threads of its own,
        /// so the library must never be unloaded.
        pub(crate) struct Engine {
            $(pub(crate) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Engine {
            /// Opens the library at `path` and finds every symbol.
            ///
            /// # Errors
            /// [`Error::Library`] when the file can't be opened or lacks a symbol; the message
            /// names the package that has it.
            pub(crate) fn load(path: &Path) -> Result<Arc<Engine>, Error> {
                let failed = |reason: String| Error::Library { path: path.to_owned(), reason };
                // SAFETY: opening libchdb runs its static initialisers, which have no preconditions.
                let library = unsafe { libloading::Library::new(path) }
                    .map_err(|error| failed(error.to_string()))?;
                let engine = Engine {
                    // SAFETY: each type is the one that chdb.h declares for that symbol.
                    $($name: unsafe {
                        *library
                            .get(concat!(stringify!($name), "\0").as_bytes())
                            .map_err(|error| failed(error.to_string()))?
                    },)*
                };
                std::mem::forget(library);
                Ok(Arc::new(engine))
            }
        }
    };
}

symbols! {
    chdb_set_signal_handlers_enabled: fn(c_int);
    chdb_connect: fn(c_int, *mut *mut c_char) -> ConnectionPointer;
    chdb_close_conn: fn(ConnectionPointer);
    chdb_shutdown: fn() -> c_int;
    chdb_classify_query_n: fn(RawConnection, *const c_char, usize, *const c_char, usize, *mut Analysis) -> c_int;
    chdb_query_with_params_n: fn(RawConnection, *const c_char, usize, *const c_char, usize, Texts, Lengths, Texts, Lengths, usize) -> RawResult;
    chdb_stream_query_with_params_n: fn(RawConnection, *const c_char, usize, *const c_char, usize, Texts, Lengths, Texts, Lengths, usize) -> RawResult;
    chdb_stream_fetch_result: fn(RawConnection, RawResult) -> RawResult;
    chdb_stream_cancel_query: fn(RawConnection, RawResult);
    chdb_stream_insert_with_params_n: fn(RawConnection, *const c_char, usize, *const c_char, usize, Texts, Lengths, Texts, Lengths, usize) -> RawInsert;
    chdb_stream_append: fn(RawInsert, *const c_void, usize) -> c_int;
    chdb_stream_done: fn(RawInsert) -> RawResult;
    chdb_stream_cancel_insert: fn(RawInsert);
    chdb_stream_insert_error: fn(RawInsert) -> *const c_char;
    chdb_destroy_insert_stream: fn(RawInsert);
    chdb_destroy_query_result: fn(RawResult);
    chdb_result_buffer: fn(RawResult) -> *mut c_char;
    chdb_result_length: fn(RawResult) -> usize;
    chdb_result_elapsed: fn(RawResult) -> f64;
    chdb_result_rows_read: fn(RawResult) -> u64;
    chdb_result_bytes_read: fn(RawResult) -> u64;
    chdb_result_storage_rows_read: fn(RawResult) -> u64;
    chdb_result_storage_bytes_read: fn(RawResult) -> u64;
    chdb_result_rows_written: fn(RawResult) -> u64;
    chdb_result_bytes_written: fn(RawResult) -> u64;
    chdb_result_error: fn(RawResult) -> *const c_char;
}

/// The text behind a C string that libchdb owns; `None` when it is null or empty.
///
/// # Safety
/// `text` is null or points to a NUL-terminated string that lives through the call.
pub(crate) unsafe fn owned_text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller promises a live, NUL-terminated string.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    (!text.is_empty()).then_some(text)
}

impl Engine {
    /// Keeps the engine from installing its crash handlers: signals belong to the process.
    pub(crate) fn leave_signals_alone(&self) {
        // SAFETY: no preconditions; called before the first connection.
        unsafe { (self.chdb_set_signal_handlers_enabled)(0) }
    }

    /// Stops the engine's background threads. Every connection must be closed before. What it answers is left out:
    /// 26.7.3 says "no" after a clean end, too, once a table was used.
    pub(crate) fn shutdown(&self) {
        // SAFETY: no preconditions; the call refuses while connections are open.
        unsafe { (self.chdb_shutdown)() };
    }

    /// Opens a session of the engine with command-line-like `arguments` (`--path=…`).
    ///
    /// # Errors
    /// The engine's refusal: most often another process has the data folder.
    pub(crate) fn connect(self: &Arc<Self>, arguments: &[String]) -> Result<Connection, Exception> {
        let texts = std::iter::once("chdb")
            .chain(arguments.iter().map(String::as_str))
            .map(CString::new)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Exception::new(36, "BAD_ARGUMENTS", error))?;
        let mut pointers: Vec<*mut c_char> = texts.iter().map(|text| text.as_ptr().cast_mut()).collect();
        let count = c_int::try_from(pointers.len()).map_err(|error| Exception::new(36, "BAD_ARGUMENTS", error))?;
        // SAFETY: `pointers` holds `count` live strings; the engine copies them.
        let pointer = unsafe { (self.chdb_connect)(count, pointers.as_mut_ptr()) };
        // SAFETY: a non-null answer points to the connection until chdb_close_conn.
        if pointer.is_null() || unsafe { *pointer }.is_null() {
            return Err(Exception::new(
                76,
                "CANNOT_OPEN_FILE",
                "the engine refused a connection: is another process using the data folder?",
            ));
        }
        Ok(Connection::new(self.clone(), pointer))
    }
}
