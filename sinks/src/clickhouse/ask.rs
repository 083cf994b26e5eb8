//! People's own questions: read-only, with limits, and answered as the server answers, errors included.
//!
//! What fails here fails the question alone, so nothing is classified or tried again: the server's own words are
//! handed on.

use std::time::Duration;

use clickhouse::error::Error as ClientError;

use super::client::Client;

/// A statement with what stands around it.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The statement. A FORMAT in it wins over `format`.
    pub sql: String,
    /// The format of the answer.
    pub format: String,
    /// The values of `{name:Type}` in it, as text.
    pub parameters: Vec<(String, String)>,
    /// How long the server may work, in seconds.
    pub seconds_at_most: u64,
    /// How much memory the server may take for it, in bytes.
    pub memory_at_most: u64,
}

/// Why there is no answer, or no more of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The server's exception, as it wrote it.
    #[error("{0}")]
    Said(String),
    /// Nobody answered, or what answered isn't ClickHouse.
    #[error("{0}")]
    Away(String),
}

/// An answer, in pieces as they come.
pub struct Answer {
    cursor: clickhouse::query::BytesCursor,
    wait: Duration,
}

/// What the way to the server and back may take beyond the server's own limit.
const WAY: Duration = Duration::from_secs(15);

impl Client {
    /// Asks; names are looked up in the client's database. Nothing can be changed by it.
    ///
    /// # Errors
    /// What can't be sent; what the server says comes with the pieces.
    pub fn ask(&self, question: &Question) -> Result<Answer, Refusal> {
        let mut client = self.reading();
        for (name, value) in [
            // Reading only, where settings of the statement's own may still be given.
            ("readonly", "2".to_owned()),
            ("max_execution_time", question.seconds_at_most.to_string()),
            ("timeout_overflow_mode", "throw".to_owned()),
            ("max_memory_usage", question.memory_at_most.to_string()),
            ("output_format_json_quote_64bit_integers", "0".to_owned()),
        ] {
            client = client.with_setting(name, value);
        }
        for (name, value) in &question.parameters {
            client = client.with_setting(format!("param_{name}"), value.as_str());
        }
        let cursor = client.query_raw(&question.sql).fetch_bytes(&question.format).map_err(|error| refusal(&error))?;
        Ok(Answer { cursor, wait: Duration::from_secs(question.seconds_at_most) + WAY })
    }
}

impl Answer {
    /// The next bytes; `None` behind the last.
    ///
    /// # Errors
    /// What the server says, even in the middle of the answer, or that nothing comes any more.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Refusal> {
        match tokio::time::timeout(self.wait, self.cursor.next()).await {
            Ok(Ok(bytes)) => Ok(bytes.map(|bytes| bytes.to_vec())),
            Ok(Err(error)) => Err(refusal(&error)),
            Err(_) => Err(Refusal::Away(format!("no answer within {} seconds", self.wait.as_secs()))),
        }
    }
}

fn refusal(error: &ClientError) -> Refusal {
    match error {
        ClientError::BadResponse(text) if text.contains("DB::Exception") => {
            Refusal::Said(text.split("Stack trace").next().unwrap_or_default().trim().to_owned())
        }
        other => {
            let causes = std::iter::successors(Some(other as &dyn std::error::Error), |error| error.source());
            Refusal::Away(causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
        }
    }
}
