//! The names of objects.

use chrono::{DateTime, Datelike, Timelike, Utc};
use serde::{Deserialize, Serialize};

/// An hour of Kafka timestamps, in hours since 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hour(pub i64);

const HOUR_MS: i64 = 3_600_000;

impl Hour {
    /// The hour of a timestamp. A record without one, or with one before the year 1 or after 9999, which no reader of the
    /// folders would take for a date, belongs to the first hour of 1970; its row has the timestamp as it was.
    pub fn of(timestamp_ms: Option<i64>) -> Hour {
        let of = |ms: i64| DateTime::<Utc>::from_timestamp_millis(ms).filter(|at| (1..=9999).contains(&at.year()));
        Hour(timestamp_ms.filter(|ms| of(*ms).is_some()).map_or(0, |ms| ms.div_euclid(HOUR_MS)))
    }

    /// Its first moment, in milliseconds since 1970.
    pub fn starts_at_ms(self) -> i64 {
        self.0.saturating_mul(HOUR_MS)
    }

    /// The moment after its last one.
    pub fn ends_at_ms(self) -> i64 {
        self.0.saturating_add(1).saturating_mul(HOUR_MS)
    }

    /// Day and hour, as the folders have them.
    pub fn shown(self) -> (String, String) {
        let at = DateTime::<Utc>::from_timestamp_millis(self.starts_at_ms()).unwrap_or_default();
        (format!("{:04}-{:02}-{:02}", at.year(), at.month(), at.day()), format!("{:02}", at.hour()))
    }
}

/// The folder of a topic's hour.
pub(crate) fn folder(topic: &str, hour: Hour) -> String {
    let (day, hour) = hour.shown();
    format!("topic={topic}/day={day}/hour={hour}")
}

/// The name of an object with a partition's records of an hour.
pub(crate) fn object(topic: &str, hour: Hour, partition: i32, (first, last): (i64, i64), sha256: &str) -> String {
    let begins = sha256.get(..8).unwrap_or(sha256);
    format!("{}/part-{partition}-{first}-{last}-{begins}.parquet", folder(topic, hour))
}

/// What the name of an object says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named<'a> {
    /// The topic.
    pub(crate) topic: &'a str,
    /// The partition.
    pub(crate) partition: i32,
    /// The first offset in it.
    pub(crate) first: i64,
    /// The last one.
    pub(crate) last: i64,
    /// The beginning of its SHA-256.
    pub(crate) begins: &'a str,
}

/// What the name of an object says, if it is one that this crate gives.
pub(crate) fn parse(name: &str) -> Option<Named<'_>> {
    let mut parts = name.split('/');
    let topic = parts.next()?.strip_prefix("topic=")?;
    let is_folder = parts.next()?.starts_with("day=") && parts.next()?.starts_with("hour=");
    let (file, rest) = (parts.next()?, parts.next());
    let mut fields = file.strip_prefix("part-")?.strip_suffix(".parquet")?.split('-');
    let partition = fields.next()?.parse().ok()?;
    let (first, last) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let begins = fields.next()?;
    let is_hash = begins.len() == 8 && begins.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_one = is_folder && rest.is_none() && is_hash && fields.next().is_none();
    is_one.then_some(Named { topic, partition, first, last, begins })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_topic_hour_place_and_content_and_is_recognised() {
        let hour = Hour::of(Some(1_769_860_800_123));
        let name = object("orders", hour, 3, (100, 199), &crate::crypto::sha256(b"test"));
        assert_eq!(name, "topic=orders/day=2026-01-31/hour=12/part-3-100-199-9f86d081.parquet");
        let named = Named { topic: "orders", partition: 3, first: 100, last: 199, begins: "9f86d081" };
        assert_eq!(parse(&name), Some(named));
        for other in [
            "a.parquet",
            "topic=o/day=d/hour=1/part-3-1-2.parquet",
            "topic=o/day=d/hour=1/x/part-3-1-2-9f86d081.parquet",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn timestamps_that_are_no_dates_belong_to_1970() {
        for odd in [None, Some(i64::MAX), Some(i64::MIN), Some(253_402_300_800_000)] {
            assert_eq!(Hour::of(odd), Hour(0), "{odd:?}");
        }
        assert_eq!(Hour::of(Some(-1)).shown(), ("1969-12-31".to_owned(), "23".to_owned()));
    }
}
