//! What a retried record is: the headers that make a message of the retry topic one, and the tables that tell of it.
//!
//! A retried record is the refused one, whole: its key, its value and its headers, with four more behind them. Its own
//! Kafka timestamp is when it was retried, so that the topic forgets it in due time; the original one travels in a header,
//! and is the one that counts.

use std::sync::Arc;

use crate::headers;
use crate::place::Place;
use crate::rows::{Table, TableKind};
use crate::stage::Column;
use crate::types::{ColumnType, Width, Zone};

/// How the names of the headers of a retry begin.
const PREFIX: &str = "weir_retry_";
/// The header with the place of the record that was refused.
pub const OF: &str = "weir_retry_of";
/// The header with its Kafka timestamp, in milliseconds since 1970.
pub const KAFKA_TIME: &str = "weir_retry_kafka_time";
/// The header with the retry's id, a key of [`retries`].
pub const ID: &str = "weir_retry_id";
/// The header with the fingerprint of the cause that was retried.
pub const CAUSE: &str = "weir_retry_cause";

/// The name of [`retried`].
pub const RETRIED: &str = "weir_retried";
/// The name of [`retries`].
pub const RETRIES: &str = "weir_retries";

/// What the headers of a retried record say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retried {
    /// Where the record was when it was refused.
    pub origin: Place,
    /// Its Kafka timestamp there, in milliseconds; negative where it had none.
    pub kafka_time_ms: i64,
    /// The retry's id.
    pub id: String,
    /// The fingerprint of the cause.
    pub cause: String,
}

impl Retried {
    /// Reads the headers of a message; the last of a name counts.
    ///
    /// # Errors
    /// What is missing or wrong, in words.
    pub fn of<'a>(headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Result<Retried, String> {
        let mut values: [Option<String>; 4] = Default::default();
        for (name, value) in headers {
            let known = [OF, KAFKA_TIME, ID, CAUSE].iter().position(|known| known.as_bytes() == name);
            if let Some(slot) = known.and_then(|at| values.get_mut(at)) {
                *slot = Some(String::from_utf8_lossy(value.unwrap_or_default()).into_owned());
            }
        }
        let [of, kafka_time, id, cause] = values;
        let of = of.ok_or_else(|| format!("no header {OF}: only `weir quarantine retry` writes to this topic"))?;
        let origin = Place::parse(&of).ok_or_else(|| format!("header {OF} is no place"))?;
        let kafka_time_ms = kafka_time.and_then(|text| text.parse().ok());
        let kafka_time_ms = kafka_time_ms.ok_or_else(|| format!("header {KAFKA_TIME} is no number"))?;
        Ok(Retried { origin, kafka_time_ms, id: id.unwrap_or_default(), cause: cause.unwrap_or_default() })
    }

    /// The headers of the message: those of the refused record as [`headers`] writes them, without what an earlier retry
    /// added, then this one's.
    pub fn headers(&self, of_record: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(of_record.len() + 200);
        for (name, value) in headers::iter(of_record) {
            if !is_ours(name) {
                headers::push(&mut bytes, name, value);
            }
        }
        let (of, time) = (self.origin.to_string(), self.kafka_time_ms.to_string());
        for (name, value) in [(OF, &of), (KAFKA_TIME, &time), (ID, &self.id), (CAUSE, &self.cause)] {
            headers::push(&mut bytes, name.as_bytes(), Some(value.as_bytes()));
        }
        bytes
    }
}

/// Whether a header was added for a retry, on the way to the topic or when it was sent.
fn is_ours(name: &[u8]) -> bool {
    name.starts_with(PREFIX.as_bytes()) || name == b"weir_id" || name == b"weir_version"
}

/// Refused records that were retried: one row each, written by the pipeline when it took the retried copy, in the same
/// commit. The key is the place at which the record was refused, so a record that waits has no row.
pub fn retried() -> Table {
    let few = || ColumnType::LowCardinality;
    Table {
        name: Arc::from(RETRIED),
        comment: "Refused records that were retried, each once; those of weir_quarantine without a row here wait"
            .to_owned(),
        columns: vec![
            column("topic", few(), "the topic in which it was refused"),
            column("partition", ColumnType::Int(Width::W32), "the partition in which it was refused"),
            column("offset", ColumnType::Int(Width::W64), "the offset at which it was refused"),
            column("source", few(), "the source"),
            column("fingerprint", few(), "of the cause that was retried"),
            column("retry", few(), "the retry, a key of weir_retries"),
            column("retry_topic", few(), "the retry topic"),
            column("retry_partition", ColumnType::Int(Width::W32), "its partition"),
            column("retry_offset", ColumnType::Int(Width::W64), "the offset of the retried copy"),
            column("epoch", ColumnType::UInt(Width::W64), "the epoch whose commit took it"),
        ],
        key_columns: 3,
        partition_by: None,
        kind: TableKind::Appended,
        retention_days: None,
    }
}

/// Who retried what, when and why: one row per retry, written by the command before it sends anything and again when it
/// is done.
pub fn retries() -> Table {
    let (few, text) = (|| ColumnType::LowCardinality, || ColumnType::String);
    let count = || ColumnType::UInt(Width::W64);
    let time = || ColumnType::DateTime64(6, Some(Zone::from("UTC")));
    Table {
        name: Arc::from(RETRIES),
        comment: "Who retried which cause, when and why; a retry that stays planned or sent was interrupted".to_owned(),
        columns: vec![
            column("retry", text(), "the retry's id"),
            column("fingerprint", few(), "of the cause"),
            column("source", few(), "the source"),
            column("retried_by", text(), "who"),
            column("why", text(), "what they said"),
            column("status", few(), "planned, sent (all records are in the topic) or done (the pipeline took them)"),
            column("planned_at", time(), "when it was begun, by the command's clock"),
            column("changed_at", time(), "when this was last written, by the command's clock"),
            column("waiting_before", count(), "records of the cause that waited when it began"),
            column("sent", count(), "records that were sent, or were in the topic already"),
            column("taken", count(), "of those, records that the pipeline has taken"),
            column("refused_again", count(), "of those, records that were refused again, too late ones included"),
            column("waiting_after", count(), "records of the cause that waited when this was written"),
        ],
        key_columns: 1,
        partition_by: None,
        kind: TableKind::Keyed,
        retention_days: None,
    }
}

fn column(name: &str, column_type: ColumnType, comment: &str) -> Column {
    Column { name: name.to_owned(), column_type, comment: comment.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_comes_back_from_its_headers_and_takes_the_place_of_an_earlier_one() {
        let place = |text: &str| Place::parse(text).unwrap();
        let retried = |of: &str, id: &str| Retried {
            origin: place(of),
            kafka_time_ms: -1,
            id: id.to_owned(),
            cause: "c0ffee".to_owned(),
        };
        let mut own = Vec::new();
        headers::push(&mut own, b"trace", Some(b"\xff"));
        let first = retried("a/b/3@17", "one").headers(&own);
        let second = retried("retry/0@4", "two").headers(&first);
        assert_eq!(Retried::of(headers::iter(&first)), Ok(retried("a/b/3@17", "one")));
        assert_eq!(Retried::of(headers::iter(&second)), Ok(retried("retry/0@4", "two")));
        assert_eq!(headers::iter(&second).filter(|(name, _)| name == b"trace").count(), 1);
        assert_eq!(headers::iter(&second).count(), 5);
        assert!(Retried::of(headers::iter(&own)).unwrap_err().contains("no header weir_retry_of"));
        for wrong in ["", "a", "a/1", "a/1@", "a/x@1", "/1@1", "a/-1@1", "a/1@-1"] {
            assert_eq!(Place::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_are_unique() {
        for table in [retried(), retries()] {
            let mut names: Vec<_> = table.columns.iter().map(|column| &column.name).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), table.columns.len(), "{}", table.name);
        }
    }
}
