//! The times that a replay is for: what a person asked for, widened to whole windows.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde::Deserialize;
use weir_operators::window::Windows;
use weir_pipeline::bind::BoundView;
use weir_schemas::tables;
use weir_schemas::time::EventTime;
use weir_sinks::DeliveryError;
use weir_sinks::clickhouse::{Client, literal};

/// From the first event time to before the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first time.
    pub from: EventTime,
    /// The time after the last.
    pub to: EventTime,
}

/// Reads a time: RFC 3339, or a date, which is its midnight in UTC.
///
/// # Errors
/// What is wrong with it.
pub fn parse_time(text: &str) -> Result<EventTime, String> {
    let micros = match DateTime::parse_from_rfc3339(text) {
        Ok(time) => time.timestamp_micros(),
        Err(_) => text
            .parse::<NaiveDate>()
            .map_err(|_| "write a time such as 2026-01-31T12:00:00Z, or a date such as 2026-01-31".to_owned())?
            .and_time(chrono::NaiveTime::MIN)
            .and_utc()
            .timestamp_micros(),
    };
    Ok(EventTime(micros))
}

/// Reads a length of time: `90m`, `12h`, `7d`, `2w`, or in words as `7 days`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_length(text: &str) -> Result<TimeDelta, String> {
    let wrong = || "write a length such as 90m, 12h, 7d, 2w or \"7 days\"".to_owned();
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: i64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = text[digits..].trim().trim_end_matches('s');
    let length = match unit {
        "m" | "min" | "minute" => TimeDelta::try_minutes(number),
        "h" | "hour" => TimeDelta::try_hours(number),
        "d" | "day" => TimeDelta::try_days(number),
        "w" | "week" => TimeDelta::try_weeks(number),
        _ => None,
    };
    length.filter(|length| length.num_milliseconds() > 0).ok_or_else(wrong)
}

impl Range {
    /// The `length` before `end`.
    pub fn last(length: TimeDelta, end: EventTime) -> Range {
        Range { from: EventTime(end.0.saturating_sub(length.num_microseconds().unwrap_or(i64::MAX))), to: end }
    }

    /// The smallest range around this one that cuts no window of any of `views`.
    ///
    /// # Errors
    /// When a view's windows aren't known: a bug.
    pub fn widened(self, views: &[&BoundView]) -> Result<Range, weir_operators::error::Error> {
        let windows = views.iter().map(|view| Windows::new(&view.plan.window)).collect::<Result<Vec<_>, _>>()?;
        let mut range = self;
        loop {
            let before = range;
            for windows in &windows {
                range.from = range.from.min(windows.bounds(range.from).start);
                range.to = range.to.max(windows.bounds(EventTime(range.to.0.saturating_sub(1))).end);
            }
            if range == before {
                return Ok(range);
            }
        }
    }

    /// Both ends, for people.
    pub fn shown(&self) -> (String, String) {
        (shown(self.from), shown(self.to))
    }
}

/// Up to where every one of `views` is final, as far as `weir_progress` knows them; absent where it knows none.
///
/// # Errors
/// What ClickHouse says: that there is no such table, where there was no live pipeline yet.
pub async fn final_through(client: &Client, views: &[&str]) -> Result<Option<EventTime>, DeliveryError> {
    #[derive(Deserialize)]
    struct Found {
        through: Option<i64>,
    }
    let names: Vec<String> = views.iter().map(|name| literal(name)).collect();
    let sql = format!(
        "SELECT toUnixTimestamp64Micro(minOrNull(final_through)) AS through FROM {} WHERE view IN ({}) \
         SETTINGS output_format_json_quote_64bit_integers = 0",
        client.qualified(tables::PROGRESS),
        names.join(", ")
    );
    let found = client.select::<Found>(&sql).await?;
    Ok(found.into_iter().next().and_then(|found| found.through).map(EventTime))
}

/// A time for people, in UTC, without a fraction where there is none.
pub fn shown(time: EventTime) -> String {
    match DateTime::<Utc>::from_timestamp_micros(time.0) {
        Some(time) => time.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string(),
        None => format!("{} µs", time.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_or_dates() {
        assert_eq!(parse_time("1970-01-01T00:00:01Z"), Ok(EventTime(1_000_000)));
        assert_eq!(parse_time("1970-01-02"), Ok(EventTime(86_400_000_000)));
        assert_eq!(parse_time("1970-01-02T01:00:00+01:00"), parse_time("1970-01-02"));
        assert!(parse_time("yesterday").is_err_and(|why| why.contains("2026-01-31")));
        assert_eq!(shown(EventTime(1_500_000)), "1970-01-01T00:00:01.500Z");
        assert_eq!(shown(EventTime(1_000_000)), "1970-01-01T00:00:01Z");
    }

    #[test]
    fn lengths_have_a_unit() {
        assert_eq!(parse_length("7 days"), parse_length("1w"));
        assert_eq!(parse_length("90m").map(|length| length.num_seconds()), Ok(5_400));
        for wrong in ["", "7", "0d", "-1d", "7 fortnights", "99999999999999999999d", "9223372036854775807w"] {
            assert!(parse_length(wrong).is_err(), "{wrong}");
        }
    }
}
