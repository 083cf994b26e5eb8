//! An address that takes JSON by HTTP POST.
//!
//! Only what a receiver says about the *content* poisons what is sent: 400, 406, 413, 415 and 422. A wrong address, a wrong
//! login and an unwell receiver may be mended.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url};

use super::NotTaken;
use crate::error::Error;

/// The header of what copies of one thing have in common.
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";

/// Bytes of an answer that are told in a log line.
const TOLD_BYTES: usize = 200;
/// The longest wait that a receiver is granted.
const WAIT_MS_MAX: u64 = 600_000;

/// Posts to one address.
#[derive(Clone, Debug)]
pub struct Endpoint {
    client: Client,
    url: Url,
    authorization: Option<HeaderValue>,
}

impl Endpoint {
    /// An endpoint at `url`, with a bearer token. `setting` is how the pipeline file calls it, for errors. Nothing is asked yet.
    ///
    /// # Errors
    /// When the address or the token can't be right.
    pub fn new(setting: &str, url: &str, token: Option<&str>, answer_within: Duration) -> Result<Endpoint, Error> {
        let authorization = token.map(|token| format!("Bearer {token}"));
        Endpoint::authorized(setting, url, authorization.as_deref().map(|value| ("token", value)), answer_within)
    }

    /// The same with the whole header `Authorization`, and the key of the setting that it came from.
    pub(super) fn authorized(
        setting: &str,
        url: &str,
        authorization: Option<(&str, &str)>,
        answer_within: Duration,
    ) -> Result<Endpoint, Error> {
        let wrong = |key: &str, detail: String| Error::Setting { setting: format!("{setting}.{key}"), detail };
        let client = Client::builder()
            .timeout(answer_within)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| wrong("url", error.to_string()))?;
        let url = Url::parse(url).map_err(|error| wrong("url", format!("is no address: {error}")))?;
        let header = |(key, text)| -> Result<HeaderValue, Error> {
            let mut header = HeaderValue::from_str(text)
                .map_err(|_| wrong(key, "holds characters that a header can't".to_owned()))?;
            header.set_sensitive(true);
            Ok(header)
        };
        Ok(Endpoint { client, url, authorization: authorization.map(header).transpose()? })
    }

    /// Posts one body, with what its copies have in common.
    ///
    /// # Errors
    /// Why the receiver hasn't taken it.
    pub async fn post(&self, body: Vec<u8>, idempotency_key: Option<&str>) -> Result<(), NotTaken> {
        let poisoned = |why: String| NotTaken::Poisoned { why };
        let mut request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json").body(body);
        if let Some(key) = idempotency_key {
            let key = HeaderValue::from_str(key).map_err(|error| poisoned(error.to_string()))?;
            request = request.header(IDEMPOTENCY_HEADER, key);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let answer = request.send().await.map_err(|error| NotTaken::NotYet { why: causes(error), wait_ms: None })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let said = first_bytes(answer).await;
        let why = format!("the receiver answered {status} {said}").trim_end().to_owned();
        Err(match status {
            StatusCode::BAD_REQUEST
            | StatusCode::NOT_ACCEPTABLE
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY => poisoned(why),
            _ => {
                NotTaken::NotYet { why, wait_ms: seconds.map(|seconds| seconds.saturating_mul(1_000).min(WAIT_MS_MAX)) }
            }
        })
    }
}

/// The beginning of an answer; the rest, however long, isn't read.
async fn first_bytes(mut answer: reqwest::Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < TOLD_BYTES
        && let Ok(Some(piece)) = answer.chunk().await
    {
        bytes.extend_from_slice(&piece[..piece.len().min(TOLD_BYTES - bytes.len())]);
    }
    String::from_utf8_lossy(&bytes).replace(['\n', '\r'], " ")
}

/// An error with its causes, without the address: it may be the secret itself.
fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut told = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        told.push_str(": ");
        told.push_str(&cause.to_string());
        next = cause.source();
    }
    told
}
