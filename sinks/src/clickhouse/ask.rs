//! Questions, people's own and the console's: read-only, with limits, and answered as the server answers, errors included.
//!
//! What fails here fails the question alone, so nothing is classified or tried again: the server's own words are
//! handed on.

use std::time::Duration;

use clickhouse::error::Error as ClientError;

use super::client::Client;
use super::lines::Splitter;

/// A statement with what stands around it.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The statement. A FORMAT in it wins over `format`.
    pub sql: String,
    /// The values of `{name:Type}` in it, as text: of a text every character as it is, of arrays, maps and tuples what
    /// ClickHouse's SQL writes, and `\N` for null.
    pub parameters: Vec<(String, String)>,
    /// Settings of the server for it.
    pub settings: Vec<(String, String)>,
    /// The format of the answer.
    pub format: String,
}

/// What one answer may take of the server, at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Seconds.
    pub seconds: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Rows of the answer.
    pub result_rows: Option<u64>,
    /// Bytes of the answer.
    pub result_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
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

/// An answer line by line.
pub struct AnswerLines {
    answer: Answer,
    lines: Splitter,
}

/// What the way to the server and back may take beyond the server's own limit.
const WAY: Duration = Duration::from_secs(15);

impl Client {
    /// Asks; names are looked up in the client's database. Nothing can be changed by it.
    ///
    /// # Errors
    /// What can't be sent; what the server says comes with the pieces.
    pub fn ask(&self, question: &Question, limits: &Limits) -> Result<Answer, Refusal> {
        let bounds = [
            ("max_execution_time", Some(limits.seconds)),
            ("max_memory_usage", Some(limits.memory_bytes)),
            ("max_result_rows", limits.result_rows),
            ("max_result_bytes", limits.result_bytes),
            ("max_threads", limits.threads),
        ];
        let mut client = self.reading();
        for (name, value) in [
            // Reading only; 1 would forbid the settings that readers' views have in them, too.
            ("readonly", "2"),
            ("timeout_overflow_mode", "throw"),
            ("result_overflow_mode", "throw"),
            ("output_format_json_quote_64bit_integers", "0"),
        ] {
            client = client.with_setting(name, value);
        }
        for (name, value) in bounds {
            client = value.into_iter().fold(client, |client, value| client.with_setting(name, value.to_string()));
        }
        for (name, value) in &question.settings {
            client = client.with_setting(name.as_str(), value.as_str());
        }
        let mut query = client.query_raw(&question.sql);
        for (name, value) in &question.parameters {
            query = match is_sql(kind_of(&question.sql, name), value) {
                true => query.with_setting(format!("param_{name}"), value.as_str()),
                false => query.param(name, value),
            };
        }
        let cursor = query.fetch_bytes(&question.format).map_err(|error| refusal(&error))?;
        Ok(Answer { cursor, wait: Duration::from_secs(limits.seconds) + WAY })
    }
}

/// The type with which a statement takes the parameter of this name; empty where it doesn't.
fn kind_of<'a>(sql: &'a str, name: &str) -> &'a str {
    let declared = sql.split('{').skip(1).filter_map(|rest| rest.split_once('}')?.0.split_once(':'));
    declared.into_iter().find(|(of, _)| of.trim() == name).map_or("", |(_, kind)| kind.trim())
}

/// Whether a value is written as SQL already: the server takes such types as they are, and only of texts it undoes escapes.
fn is_sql(kind: &str, value: &str) -> bool {
    let is_null = kind.starts_with("Nullable(") && value == "\\N";
    is_null || ["Array(", "Map(", "Tuple(", "Nested("].iter().any(|begin| kind.starts_with(begin))
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

    /// Its lines, for a format of one line per row.
    pub fn lines(self) -> AnswerLines {
        AnswerLines { answer: self, lines: Splitter::default() }
    }
}

impl AnswerLines {
    /// The next line without its end; `None` behind the last.
    ///
    /// # Errors
    /// As [`Answer::next`].
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Refusal> {
        loop {
            if let Some(line) = self.lines.next() {
                return Ok(Some(line));
            }
            match self.answer.next().await? {
                Some(bytes) => self.lines.push(&bytes),
                None => return Ok(self.lines.rest()),
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_lists_are_sql_and_texts_are_not() {
        let sql = "SELECT {a:String}, { list : Array(String) }, {maybe:Nullable(String)}, '{'";
        assert_eq!(kind_of(sql, "list"), "Array(String)");
        assert_eq!(kind_of(sql, "absent"), "");
        for (name, value, expected) in [
            ("a", "it's", false),
            ("a", "\\N", false),
            ("list", "['it\\'s']", true),
            ("maybe", "\\N", true),
            ("maybe", "N", false),
            ("absent", "x", false),
        ] {
            assert_eq!(is_sql(kind_of(sql, name), value), expected, "{name} {value}");
        }
    }
}
