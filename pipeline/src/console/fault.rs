//! What goes wrong with a question, told as JSON: `{"what": ..., "remedy": ...}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use weir_sinks::DeliveryError;

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// The status of the answer.
    pub(super) status: StatusCode,
    /// What went wrong.
    pub(super) what: String,
    /// What helps.
    pub(super) remedy: String,
}

impl Fault {
    /// A question that can't be asked.
    pub(super) fn asked(what: impl Into<String>, remedy: impl Into<String>) -> Fault {
        Fault { status: StatusCode::BAD_REQUEST, what: what.into(), remedy: remedy.into() }
    }

    /// What isn't there.
    pub(super) fn missing(what: impl Into<String>, remedy: impl Into<String>) -> Fault {
        Fault { status: StatusCode::NOT_FOUND, what: what.into(), remedy: remedy.into() }
    }

    /// Too much at once.
    pub(super) fn busy(what: impl Into<String>) -> Fault {
        let remedy = "wait a moment: it is tried again".to_owned();
        Fault { status: StatusCode::SERVICE_UNAVAILABLE, what: what.into(), remedy }
    }
}

impl From<DeliveryError> for Fault {
    fn from(error: DeliveryError) -> Fault {
        let (what, remedy) = match error {
            DeliveryError::Retriable { why } => (why, "see that ClickHouse is up, or narrow the range".to_owned()),
            DeliveryError::Fatal { why, remedy } => (why, remedy),
        };
        Fault { status: StatusCode::BAD_GATEWAY, what, remedy }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "what": self.what, "remedy": self.remedy }))).into_response()
    }
}
