//! Alerts as HTTP POSTs of JSON.
//!
//! What poisons an alert is said where the answer is read (`endpoint`); everything else is mended while the alert waits.

use std::time::Duration;

use super::endpoint::Endpoint;
use super::{NotTaken, slack_message};
use crate::error::Error;
use crate::kafka::read::Alert;

/// How long a receiver may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// What the body looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookFormat {
    /// The alert's fields by their names.
    Alert,
    /// A message for Slack's incoming webhooks.
    Slack,
}

/// Posts alerts to one address.
#[derive(Clone, Debug)]
pub struct Webhook {
    endpoint: Endpoint,
    format: WebhookFormat,
}

impl Webhook {
    /// A webhook at `url`. `setting` is how the pipeline file calls it, for errors. Nothing is asked yet.
    ///
    /// # Errors
    /// When the address or the header can't be right.
    pub fn new(setting: &str, url: &str, authorization: Option<&str>, format: WebhookFormat) -> Result<Webhook, Error> {
        let authorization = authorization.map(|value| ("authorization", value));
        Ok(Webhook { endpoint: Endpoint::authorized(setting, url, authorization, ANSWER_WITHIN)?, format })
    }

    /// Posts one step; copies of it have one key: fingerprint, opening and revision.
    ///
    /// # Errors
    /// Why the receiver hasn't taken it.
    pub async fn post(&self, alert: &Alert) -> Result<(), NotTaken> {
        let body = match self.format {
            WebhookFormat::Alert => serde_json::to_vec(alert),
            WebhookFormat::Slack => serde_json::to_vec(&slack_message(alert)),
        };
        let body = body.map_err(|error| NotTaken::Poisoned { why: error.to_string() })?;
        self.endpoint.post(body, Some(&alert.idempotency_key())).await
    }
}
