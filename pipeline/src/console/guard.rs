//! Who may look: anybody on this machine, or whoever has the token; and what a browser may do with the page.
//!
//! - Where a token is set, every page of the console and every answer asks for it: as `Authorization: Bearer`, or in the
//!   cookie that `/?token=...` sets. It is compared in constant time.
//! - Without one, the console is served on loopback only, to requests whose `Host` is this machine: a page of somebody else
//!   whose name was made to point here would send its own.
//! - Nothing can be changed through the console, so a forged request would achieve nothing, and its answer can't be read;
//!   one that a browser says comes from another site's page is refused all the same, since questions cost.
//! - `/status` is guarded alike.
//!
//! Not here: `/metrics`, `/healthz`, `/readyz`, which stay open to whoever reaches the address.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// The cookie that holds the token.
const COOKIE: &str = "weir_console";

/// Nothing from elsewhere, no inline script or style, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Who may look at the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever asks from this machine.
    Loopback,
    /// Whoever has the token.
    Token(String),
    /// Nobody: the address is beyond loopback, and there is no token.
    Closed,
}

impl Access {
    /// Who may look at a console at `address` with this token.
    pub fn of(address: &str, token: Option<&str>) -> Access {
        match token.filter(|token| !token.is_empty()) {
            Some(token) => Access::Token(token.to_owned()),
            None if is_loopback(address) => Access::Loopback,
            None => Access::Closed,
        }
    }
}

/// Whether only this machine reaches an address such as `127.0.0.1:9464`.
pub fn is_loopback(address: &str) -> bool {
    let host = host_of(address);
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn host_of(address: &str) -> &str {
    if let Some(rest) = address.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    match address.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') => host,
        _ => address,
    }
}

/// Lets a request pass that may, and tells the browser what the answer may do.
pub(crate) async fn guard(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let mut response = match entry(&access, &request) {
        Entry::Open => next.run(request).await,
        Entry::SetCookie(token) => welcome(&token, request.uri().path()),
        Entry::Refused(status, why) => refusal(status, why, request.uri().path()),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Open,
    SetCookie(String),
    Refused(StatusCode, &'static str),
}

fn entry(access: &Access, request: &Request) -> Entry {
    let headers = request.headers();
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if request.uri().path().starts_with("/api/") && matches!(site, Some(b"cross-site" | b"same-site")) {
        return Entry::Refused(StatusCode::FORBIDDEN, "The console answers to its own page only.");
    }
    match access {
        Access::Closed => Entry::Refused(
            StatusCode::FORBIDDEN,
            "The console and /status need a token beyond this machine: set http_token = \"${CONSOLE_TOKEN}\" beside http in the \
             pipeline file.",
        ),
        Access::Loopback => {
            let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
            match host.is_some_and(is_loopback) {
                true => Entry::Open,
                false => Entry::Refused(
                    StatusCode::MISDIRECTED_REQUEST,
                    "Call this machine by 127.0.0.1 or localhost: the console answers to no other name without a token.",
                ),
            }
        }
        Access::Token(token) => {
            if in_query(request).is_some_and(|given| same(&given, token)) {
                return Entry::SetCookie(token.clone());
            }
            let is_given = bearer(headers).is_some_and(|given| same(given, token))
                || cookie(headers).is_some_and(|given| same(given, &hexadecimal(token)));
            let why = "The console asks for its token: open /?token=... once, or send it as a bearer token.";
            if is_given { Entry::Open } else { Entry::Refused(StatusCode::UNAUTHORIZED, why) }
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    // A token may hold more than ASCII.
    std::str::from_utf8(headers.get(header::AUTHORIZATION)?.as_bytes()).ok()?.strip_prefix("Bearer ")
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = all.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value).next()
}

/// The token in `/?token=...`.
fn in_query(request: &Request) -> Option<String> {
    if request.uri().path() != "/" {
        return None;
    }
    let query = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(request.uri()).ok()?;
    query.0.into_iter().find(|(name, _)| name == "token").map(|(_, value)| value)
}

/// Whether two texts are the same, in a time that doesn't tell where they differ.
fn same(given: &str, expected: &str) -> bool {
    let (given, expected) = (given.as_bytes(), expected.as_bytes());
    let differs = given.iter().zip(expected).fold(0, |differs, (one, other)| differs | (one ^ other));
    std::hint::black_box(differs) == 0 && given.len() == expected.len()
}

/// A token may hold what a cookie may not.
fn hexadecimal(token: &str) -> String {
    token.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// Sets the cookie, and goes where the token isn't in the address.
fn welcome(token: &str, path: &str) -> Response {
    let cookie = format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Lax; Max-Age=2592000", hexadecimal(token));
    (StatusCode::SEE_OTHER, [(header::LOCATION, path.to_owned()), (header::SET_COOKIE, cookie)]).into_response()
}

fn refusal(status: StatusCode, why: &'static str, path: &str) -> Response {
    if path.starts_with("/api/") {
        return (status, axum::Json(serde_json::json!({ "what": why, "remedy": "" }))).into_response();
    }
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{why}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn asked(uri: &str, headers: &[(&str, &str)]) -> Request {
        let builder = headers.iter().fold(Request::builder().uri(uri), |of, (name, value)| of.header(*name, *value));
        builder.body(Body::empty()).expect("a request")
    }

    fn is_open(access: &Access, uri: &str, headers: &[(&str, &str)]) -> bool {
        entry(access, &asked(uri, headers)) == Entry::Open
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (address, is_it) in [
            ("127.0.0.1:9464", true),
            ("localhost:1", true),
            ("[::1]:9464", true),
            ("::1", true),
            ("127.9.9.9", true),
            ("0.0.0.0:9464", false),
            ("[::]:9464", false),
            ("10.0.0.1:9464", false),
            ("127.0.0.1.example.com", false),
            ("localhost.example.com:80", false),
        ] {
            assert_eq!(is_loopback(address), is_it, "{address}");
        }
    }

    #[test]
    fn a_name_that_was_made_to_point_here_gets_nothing() {
        let open = Access::of("127.0.0.1:9464", None);
        assert!(is_open(&open, "/api/views", &[("host", "127.0.0.1:9464")]));
        assert!(is_open(&open, "/", &[("host", "localhost:9464")]));
        assert!(!is_open(&open, "/api/views", &[("host", "evil.example:9464")]));
        assert!(!is_open(&open, "/api/views", &[]));
    }

    #[test]
    fn another_sites_page_gets_no_answer() {
        let open = Access::of("127.0.0.1:9464", None);
        for (site, path, is_it) in [
            ("cross-site", "/api/views", false),
            ("same-site", "/api/live", false),
            ("same-origin", "/api/views", true),
            ("none", "/api/views", true),
            ("cross-site", "/", true),
        ] {
            let headers = [("host", "127.0.0.1:9464"), ("sec-fetch-site", site)];
            assert_eq!(is_open(&open, path, &headers), is_it, "{site} {path}");
        }
    }

    #[test]
    fn beyond_loopback_a_token_is_asked_for() {
        assert_eq!(Access::of("0.0.0.0:9464", None), Access::Closed);
        assert_eq!(Access::of("0.0.0.0:9464", Some("")), Access::Closed);
        assert!(!is_open(&Access::Closed, "/", &[("host", "127.0.0.1")]));
        let token = Access::of("0.0.0.0:9464", Some("s3cret; ü"));
        assert!(!is_open(&token, "/api/views", &[("host", "127.0.0.1")]));
        assert!(!is_open(&token, "/api/views", &[("authorization", "Bearer s3cret")]));
        assert!(!is_open(&token, "/api/views?token=s3cret;%20%C3%BC", &[]), "the page sets the cookie, nothing else");
        let cookie = format!("other=1; {COOKIE}={}", hexadecimal("s3cret; ü"));
        assert!(is_open(&token, "/api/views", &[("cookie", &cookie)]));
        let set = entry(&token, &asked("/?token=s3cret;%20%C3%BC", &[]));
        assert_eq!(set, Entry::SetCookie("s3cret; ü".to_owned()));
        assert!(matches!(entry(&token, &asked("/?token=wrong", &[])), Entry::Refused(StatusCode::UNAUTHORIZED, _)));
        let plain = Access::of("0.0.0.0:9464", Some("abc"));
        assert!(is_open(&plain, "/api/views", &[("authorization", "Bearer abc")]));
    }
}
