//! What goes wrong, as a ClickHouse server would say it: a code, a name, an HTTP status.

use std::fmt::Display;

use axum::http::StatusCode;

/// A ClickHouse exception: `Code: N. DB::Exception: … (NAME)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    code: u32,
    text: String,
}

impl Exception {
    /// An exception of the front itself, with one of ClickHouse's codes.
    pub(crate) fn new(code: u32, name: &str, message: impl Display) -> Exception {
        Exception { code, text: format!("Code: {code}. DB::Exception: {message} ({name})") }
    }

    /// One that the engine has reported; 1002 (UNKNOWN_EXCEPTION) when it names no code.
    pub(crate) fn from_engine(text: String) -> Exception {
        let code = text
            .split_once("Code: ")
            .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
            .unwrap_or(1002);
        Exception { code, text }
    }

    /// One that a reader of request data has wrapped in an `io::Error`, or that error itself.
    pub(crate) fn from_read(error: std::io::Error) -> Exception {
        match error.downcast::<Exception>() {
            Ok(exception) => exception,
            Err(error) => {
                Exception::new(271, "CANNOT_DECOMPRESS", format_args!("cannot decompress the request body: {error}"))
            }
        }
    }

    /// ClickHouse's number, sent as `X-ClickHouse-Exception-Code`.
    pub fn code(&self) -> u32 {
        self.code
    }

    /// The engine can't stream this statement, and has not run it.
    pub(crate) fn says_not_streamable(&self) -> bool {
        self.code == 36 && self.text.contains("Streaming query is not supported")
    }

    /// The message as a server ends it: with the version in brackets and a line feed. Clients
    /// look for `))` and a line feed at the end of a chunk.
    pub fn message(&self, version: &str) -> String {
        format!("{} (version {version} (libchdb))\n", self.text.trim_end())
    }

    /// The HTTP status that a server answers for this code (`exceptionCodeToHTTPStatus`).
    pub fn status(&self) -> StatusCode {
        match self.code {
            194 | 516 => StatusCode::UNAUTHORIZED,
            192 | 193 | 497 => StatusCode::FORBIDDEN,
            6 | 26 | 27 | 36 | 38 | 41 | 42 | 43 | 44 | 53 | 62 | 72 | 117 | 130 | 131 | 321 | 427 | 456 | 457
            | 636 => StatusCode::BAD_REQUEST,
            46 | 47 | 50 | 56 | 60 | 63 | 73 | 78 | 79 | 81 | 115 | 336 | 372 => StatusCode::NOT_FOUND,
            48 => StatusCode::NOT_IMPLEMENTED,
            159 => StatusCode::REQUEST_TIMEOUT,
            202 | 209 | 210 => StatusCode::SERVICE_UNAVAILABLE,
            307 => StatusCode::PAYLOAD_TOO_LARGE,
            373 => StatusCode::LOCKED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Display for Exception {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Exception {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_names_its_code() {
        let exception = Exception::from_engine("Code: 60. DB::Exception: no table t. (UNKNOWN_TABLE)".into());
        assert_eq!((exception.code(), exception.status()), (60, StatusCode::NOT_FOUND));
        assert_eq!(Exception::from_engine("out of luck".into()).code(), 1002);
        assert!(exception.message("26.7").ends_with("(UNKNOWN_TABLE) (version 26.7 (libchdb))\n"));
    }

    #[test]
    fn an_exception_survives_a_reader() {
        let exception = Exception::new(40, "CHECKSUM_DOESNT_MATCH", "wrong");
        assert_eq!(Exception::from_read(std::io::Error::other(exception.clone())), exception);
    }
}
