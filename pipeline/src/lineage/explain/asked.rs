//! What is asked: a view, a window, and dimensions by name.

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeZone};
use chrono_tz::Tz;
use weir_operators::view::ViewPlan;

use super::{ExplainError, asked};
use crate::problem::nearest;

/// Which row.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The view.
    pub view: String,
    /// The start of its window.
    pub window: String,
    /// Values of dimensions by name, as ClickHouse's `toString` gives them; `None` is NULL.
    pub dimensions: Vec<(String, Option<String>)>,
}

/// Reads `name=value`; `name=\N` is NULL.
///
/// # Errors
/// What is wrong with it, for a person.
pub fn parse_condition(text: &str) -> Result<(String, Option<String>), String> {
    let (name, value) = text.split_once('=').ok_or("write it as name=value, as in country=DE".to_owned())?;
    let name = name.trim();
    if name.is_empty() {
        return Err("the dimension's name is missing before =".to_owned());
    }
    Ok((name.to_owned(), (value != "\\N").then(|| value.to_owned())))
}

/// A point in time, in microseconds since 1970.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Instant(pub(super) i64);

/// Reads a time: RFC 3339, or without an offset by the clock of `zone`, or a day of it.
pub(super) fn instant(text: &str, zone: &str) -> Option<Instant> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(Instant(at.timestamp_micros()));
    }
    let zone: Tz = zone.parse().ok()?;
    let formats = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"];
    let local = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok()).or_else(|| {
        let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        day.and_hms_opt(0, 0, 0)
    })?;
    // Where the clock was set back, the first of the two is meant; the other has to be written with its offset.
    zone.from_local_datetime(&local).earliest().map(|at| Instant(at.timestamp_micros()))
}

/// A dimension of the plan by its index, and the value asked for.
pub(super) type Wanted = (usize, Option<String>);

/// The dimensions that `named` names.
pub(super) fn dimensions(plan: &ViewPlan, named: &[(String, Option<String>)]) -> Result<Vec<Wanted>, ExplainError> {
    let names = || plan.dimensions.iter().map(|dimension| dimension.name.as_str());
    let mut wanted: Vec<Wanted> = Vec::new();
    for (name, value) in named {
        let Some(at) = names().position(|known| known == name) else {
            let remedy = match nearest(name, names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if plan.dimensions.is_empty() => "it has none: leave --where out".to_owned(),
                None => format!("it has {}", names().collect::<Vec<_>>().join(", ")),
            };
            return Err(asked(format!("view `{}` has no dimension `{name}`", plan.name), remedy));
        };
        if wanted.iter().any(|(known, _)| *known == at) {
            return Err(asked(format!("`--where {name}=` is given twice"), "leave one of them"));
        }
        wanted.push((at, value.clone()));
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_an_offset_or_by_the_views_clock() {
        let ten = Some(Instant(1_795_428_000_000_000));
        for text in ["2026-11-23T10:00:00Z", "2026-11-23T11:00:00+01:00", "2026-11-23 10:00", "2026-11-23T10:00:00.0"] {
            assert_eq!(instant(text, "UTC"), ten, "{text}");
        }
        assert_eq!(instant("2026-11-23 11:00:00", "Europe/Berlin"), ten);
        assert_eq!(instant("1970-01-02", "UTC"), Some(Instant(86_400_000_000)));
        assert_eq!(instant("noon", "UTC"), None);
    }

    #[test]
    fn a_condition_is_a_name_and_a_value() {
        assert_eq!(parse_condition("a=b=c"), Ok(("a".to_owned(), Some("b=c".to_owned()))));
        assert_eq!(parse_condition("a="), Ok(("a".to_owned(), Some(String::new()))));
        assert_eq!(parse_condition("a=\\N"), Ok(("a".to_owned(), None)));
        assert!(parse_condition("a").is_err() && parse_condition("=b").is_err());
    }
}
