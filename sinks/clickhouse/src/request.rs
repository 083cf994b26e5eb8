//! What a request asks for: its parameters from URL, headers and form, its statement and its body.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, header, request::Parts};
use base64::Engine as _;
use futures_util::StreamExt;

use crate::connection::Parameters;
use crate::exception::Exception;
use crate::session::Wanted;
use crate::spool::{Spool, Spooled};

/// Names that the HTTP interface keeps for itself; every other one is a setting.
const RESERVED: &[&str] = &[
    "add_http_cors_header",
    "buffer_size",
    "client_protocol_version",
    "close_session",
    "compress",
    "database",
    "decompress",
    "default_format",
    "http_write_exception_in_output_format",
    "log_comment",
    "password",
    "query",
    "query_id",
    "quota_key",
    "role",
    "session_check",
    "session_id",
    "session_timeout",
    "stacktrace",
    "user",
    "wait_end_of_query",
];

/// A form carries a statement and its parameters, not data.
const FORM_BYTES_AT_MOST: u64 = 64 << 20;
/// An upload that sends nothing for so long is given up.
const BODY_IDLE: Duration = Duration::from_secs(120);

/// Limits of one request's body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// More is refused with 413.
    pub(crate) bytes_at_most: u64,
    /// More than this goes to a temporary file.
    pub(crate) memory_bytes_at_most: usize,
}

/// A request, read to its end.
pub(crate) struct Request {
    /// The statement in the URL or a form; `None` when it starts the body.
    pub(crate) statement: Option<String>,
    pub(crate) body: Spooled,
    pub(crate) content_encoding: String,
    pub(crate) accept_encoding: String,
    /// `decompress=1`: the body is in ClickHouse's framing.
    pub(crate) framed_in: bool,
    /// `compress=1`: the response shall be.
    pub(crate) framed_out: bool,
    pub(crate) database: Option<String>,
    pub(crate) default_format: String,
    pub(crate) parameters: Parameters,
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) log_comment: Option<String>,
    pub(crate) session: Option<Wanted>,
    pub(crate) query_id: String,
    /// GET must not change anything.
    pub(crate) read_only: bool,
    pub(crate) wait_end: bool,
    /// How many bytes of the result are held before the response starts.
    pub(crate) hold_bytes: usize,
}

/// Names and values of a request's URL and form; the last of a name wins.
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(crate) fn of_url(parts: &Parts) -> Fields {
        Fields(form_urlencoded::parse(parts.uri.query().unwrap_or("").as_bytes()).into_owned().collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value == "1" || value == "true")
    }

    fn get_owned(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }
}

/// A header's text, '' when it is missing or not text.
pub(crate) fn header_text<'headers>(headers: &'headers HeaderMap, name: &str) -> Option<&'headers str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Lets a request in when it names the one account that was set, by Basic, headers or URL.
///
/// # Errors
/// 516 AUTHENTICATION_FAILED.
pub(crate) fn authorize(
    account: Option<&(String, String)>,
    headers: &HeaderMap,
    fields: &Fields,
) -> Result<(), Exception> {
    let Some((user, password)) = account else { return Ok(()) };
    let basic = header_text(headers, "authorization")
        .and_then(|value| value.strip_prefix("Basic "))
        .and_then(|text| base64::engine::general_purpose::STANDARD.decode(text.trim()).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let (given_user, given_password) = match basic.as_deref().and_then(|text| text.split_once(':')) {
        Some((user, password)) => (user, password),
        None => (
            header_text(headers, "x-clickhouse-user").or_else(|| fields.get("user")).unwrap_or("default"),
            header_text(headers, "x-clickhouse-key").or_else(|| fields.get("password")).unwrap_or(""),
        ),
    };
    if given_user == user && given_password == password {
        return Ok(());
    }
    Err(Exception::new(
        516,
        "AUTHENTICATION_FAILED",
        format_args!("{given_user}: Authentication failed: password is incorrect, or there is no user with such name."),
    ))
}

impl Request {
    /// Reads the rest of a request: form or body, to its end.
    ///
    /// # Errors
    /// 307 (too large), 36 (a form that isn't one), 48 (what the front can't do), 209 (stalled),
    /// 1002-like codes when the client breaks off.
    pub(crate) async fn read(
        parts: &Parts,
        mut fields: Fields,
        body: Body,
        limits: BodyLimits,
    ) -> Result<Request, Exception> {
        let headers = &parts.headers;
        let content_type = header_text(headers, "content-type").unwrap_or("");
        let body = if content_type.starts_with("multipart/form-data") {
            read_form(content_type, body, &mut fields, limits).await?
        } else {
            read_body(body, limits).await?
        };
        if fields.get("client_protocol_version").is_some_and(|version| version != "0") {
            return Err(not_there("client_protocol_version"));
        }
        let query_id = match fields.get("query_id") {
            Some(id) if !id.is_empty() => id.to_owned(),
            _ => uuid::Uuid::new_v4().to_string(),
        };
        let session = fields.get_owned("session_id").map(|id| Wanted {
            id,
            timeout: fields.get_owned("session_timeout"),
            must_exist: fields.is_set("session_check"),
            close: fields.is_set("close_session"),
        });
        let mut parameters = Parameters::new();
        let mut settings = Vec::new();
        for (name, value) in &fields.0 {
            if let Some(name) = name.strip_prefix("param_") {
                parameters.push((name.to_owned(), value.clone()));
            } else if !RESERVED.contains(&name.as_str()) {
                settings.push((name.clone(), value.clone()));
            }
        }
        let hold_bytes = fields.get("buffer_size").and_then(|size| size.parse().ok()).unwrap_or(1 << 20);
        let or_header =
            |name: &str, header: &str| fields.get(name).or_else(|| header_text(headers, header)).map(str::to_owned);
        Ok(Request {
            statement: fields.get_owned("query"),
            body,
            content_encoding: header_text(headers, header::CONTENT_ENCODING.as_str())
                .unwrap_or("")
                .trim()
                .to_ascii_lowercase(),
            accept_encoding: header_text(headers, header::ACCEPT_ENCODING.as_str()).unwrap_or("").to_ascii_lowercase(),
            framed_in: fields.is_set("decompress"),
            framed_out: fields.is_set("compress"),
            database: or_header("database", "x-clickhouse-database").filter(|name| !name.is_empty()),
            default_format: or_header("default_format", "x-clickhouse-format")
                .unwrap_or_else(|| "TabSeparated".to_owned()),
            parameters,
            settings,
            log_comment: fields.get_owned("log_comment"),
            session,
            query_id,
            read_only: parts.method == Method::GET,
            wait_end: fields.is_set("wait_end_of_query"),
            hold_bytes: std::cmp::min(hold_bytes, 16 << 20),
        })
    }
}

fn not_there(what: &str) -> Exception {
    Exception::new(48, "NOT_IMPLEMENTED", format_args!("{what} is not supported by this front over libchdb"))
}

async fn read_body(body: Body, limits: BodyLimits) -> Result<Spooled, Exception> {
    let mut spool = Spool::new(limits.memory_bytes_at_most);
    let mut pieces = body.into_data_stream();
    loop {
        let piece = tokio::time::timeout(BODY_IDLE, pieces.next()).await.map_err(|_| {
            Exception::new(
                209,
                "SOCKET_TIMEOUT",
                format_args!("the request's body stalled for {} s", BODY_IDLE.as_secs()),
            )
        })?;
        let Some(piece) = piece else { break };
        let piece = piece.map_err(|error| {
            Exception::new(23, "CANNOT_READ_FROM_ISTREAM", format_args!("the request's body broke off: {error}"))
        })?;
        if spool.len() + piece.len() as u64 > limits.bytes_at_most {
            return Err(Exception::new(
                307,
                "TOO_MANY_BYTES",
                format_args!("the request's body is larger than {} bytes; send smaller inserts", limits.bytes_at_most),
            ));
        }
        // Spilling blocks for a write to the page cache at most.
        spool.write(&piece).map_err(spill_failed)?;
    }
    spool.complete().map_err(spill_failed)
}

fn spill_failed(error: std::io::Error) -> Exception {
    Exception::new(243, "NOT_ENOUGH_SPACE", format_args!("cannot hold the request's body in a temporary file: {error}"))
}

/// The `clickhouse` crate sends statements with parameters as a form. External tables would come
/// as files in it; there are none here.
async fn read_form(
    content_type: &str,
    body: Body,
    fields: &mut Fields,
    limits: BodyLimits,
) -> Result<Spooled, Exception> {
    let wrong = |error: multer::Error| {
        Exception::new(36, "BAD_ARGUMENTS", format_args!("the request's form can't be read: {error}"))
    };
    let boundary = multer::parse_boundary(content_type).map_err(wrong)?;
    let size = multer::SizeLimit::new().whole_stream(limits.bytes_at_most.min(FORM_BYTES_AT_MOST));
    let constraints = multer::Constraints::new().size_limit(size);
    let mut form = multer::Multipart::with_constraints(body.into_data_stream(), boundary, constraints);
    while let Some(field) = form.next_field().await.map_err(wrong)? {
        if field.file_name().is_some() {
            return Err(not_there("an external table (a file in the form)"));
        }
        let name = field.name().unwrap_or("").to_owned();
        fields.0.push((name, field.text().await.map_err(wrong)?));
    }
    Spool::new(0).complete().map_err(spill_failed)
}
