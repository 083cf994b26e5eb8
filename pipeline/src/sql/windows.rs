//! The window expression of a view: `toStartOf...` over the event time.

use sqlparser::ast::{self, DateTimeField, FunctionArg, FunctionArgExpr, FunctionArguments};
use sqlparser::tokenizer::Location;
use weir_operators::expr::LocalTime;
use weir_operators::view::{Width, Window};
use weir_schemas::time::Span;
use weir_schemas::types::{ColumnType, Zone};

use super::SourceColumns;
use super::literals::unescape;
use super::places::{Problems, start};

/// The functions that make a window, with their fixed widths in minutes where they have one.
const MINUTES: [(&str, i64); 4] =
    [("toStartOfMinute", 1), ("toStartOfFiveMinutes", 5), ("toStartOfTenMinutes", 10), ("toStartOfFifteenMinutes", 15)];

/// Whether a function makes a window wherever it stands.
pub(super) fn is_window(name: &str) -> bool {
    matches!(name, "toStartOfInterval" | "toStartOfHour" | "toStartOfDay")
        || MINUTES.iter().any(|(window, _)| *window == name)
}

/// Reads a window expression; problems are added where it isn't one.
pub(super) fn window(
    name: &str,
    function: &ast::Function,
    source: &SourceColumns,
    at: Location,
    problems: &mut Problems<'_>,
) -> Option<Window> {
    let called = function.name.to_string();
    let arguments = arguments(function)?;
    let interval = called == "toStartOfInterval";
    let (time, rest) = arguments.split_first().or_else(|| {
        problems.add(at, format!("{called} takes a time"), format!("write {called}({})", source.event_time));
        None
    })?;
    let (unit, rest) = if interval {
        match rest.split_first() {
            Some((ast::Expr::Interval(unit), rest)) => (Some(unit), rest),
            _ => {
                problems.add(
                    at,
                    "toStartOfInterval takes a time and an interval",
                    "write INTERVAL 1 MINUTE as its second argument",
                );
                return None;
            }
        }
    } else {
        (None, rest)
    };
    let zone = match rest {
        [] => None,
        [zone] => Some(zone_literal(zone, start(*zone, at), problems)?),
        [_, further, ..] => {
            problems.add(start(*further, at), format!("{called} takes no further argument here"), "leave it out");
            return None;
        }
    };
    let own = event_time(time, source, start(*time, at), problems)?;
    let zone = zone.or(own);
    let width = match unit {
        Some(unit) => interval_width(unit, zone.as_ref(), start(unit.value.as_ref(), at), problems)?,
        None => match (MINUTES.iter().find(|(window, _)| *window == called), called.as_str()) {
            (Some((_, minutes)), _) => Width::Fixed(Span(minutes * 60_000_000)),
            (None, "toStartOfHour") => hours(1, zone.as_ref()),
            _ => Width::Days(1),
        },
    };
    if let (Width::Fixed(_), Some("Africa/Monrovia")) = (width, zone.as_deref()) {
        // Its clock was off by 44 minutes and 30 seconds until 1972, so ClickHouse cuts it from local midnights.
        problems.add(at, "minutes in Africa/Monrovia aren't supported", "use UTC, or hours");
        return None;
    }
    let column_type = if called == "toDate" { ColumnType::Date } else { ColumnType::DateTime(zone.clone()) };
    Some(Window { name: name.to_owned(), column_type, width, zone })
}

fn arguments(function: &ast::Function) -> Option<Vec<&ast::Expr>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    list.args
        .iter()
        .map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
            _ => None,
        })
        .collect()
}

/// The zone of the event time's column, if `time` is that column.
fn event_time(
    time: &ast::Expr,
    source: &SourceColumns,
    at: Location,
    problems: &mut Problems<'_>,
) -> Option<Option<Zone>> {
    let name = match time {
        ast::Expr::Identifier(name) => name.value.clone(),
        ast::Expr::CompoundIdentifier(parts) => {
            let parts: Vec<&str> = parts.iter().map(|part| part.value.as_str()).collect();
            parts.join(".")
        }
        other => other.to_string(),
    };
    let suffix = name.strip_suffix(source.event_time.as_str());
    if !suffix.is_some_and(|before| before.is_empty() || before.ends_with('.')) {
        problems.add(
            at,
            format!("windows are cut over the event time, which is `{}`, not `{name}`", source.event_time),
            format!("write `{}` here, or name this field as `event_time` of the source", source.event_time),
        );
        return None;
    }
    let column = source.columns.iter().find(|column| column.name == source.event_time);
    match column.map(|column| &column.column_type) {
        Some(ColumnType::DateTime(zone) | ColumnType::DateTime64(_, zone)) => Some(zone.clone()),
        other => {
            let found = other.map_or("missing".to_owned(), |of| format!("of type {of}"));
            problems.add(
                at,
                format!("the event time `{}` is {found}, not a time", source.event_time),
                "make it a timestamp that is never null in the schema",
            );
            None
        }
    }
}

fn zone_literal(zone: &ast::Expr, at: Location, problems: &mut Problems<'_>) -> Option<Zone> {
    let name = match zone {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::SingleQuotedString(raw) => unescape(raw).ok().and_then(|bytes| String::from_utf8(bytes).ok()),
            _ => None,
        },
        _ => None,
    };
    let known = name.map(Zone::from).filter(|name| LocalTime::new(Some(name)).is_some());
    if known.is_none() {
        problems.add(at, format!("{zone} is no time zone"), "write an IANA name as a literal, such as 'Europe/Berlin'");
    }
    known
}

fn interval_width(
    unit: &ast::Interval,
    zone: Option<&Zone>,
    at: Location,
    problems: &mut Problems<'_>,
) -> Option<Width> {
    let count = match unit.value.as_ref() {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Number(text, _) => text.parse::<u32>().ok().filter(|count| *count > 0),
            _ => None,
        },
        _ => None,
    };
    // A century of seconds; anything beyond is a slip.
    let Some(count) = count.filter(|count| *count <= 100_000) else {
        problems.add(
            at,
            format!("{} is no width of a window", unit.value),
            "write a whole number from 1 to 100000, as in INTERVAL 5 MINUTE",
        );
        return None;
    };
    let fixed = |seconds: i64| Width::Fixed(Span(i64::from(count) * seconds * 1_000_000));
    match &unit.leading_field {
        Some(DateTimeField::Second | DateTimeField::Seconds) => Some(fixed(1)),
        Some(DateTimeField::Minute | DateTimeField::Minutes) => Some(fixed(60)),
        Some(DateTimeField::Hour | DateTimeField::Hours) => Some(hours(count, zone)),
        Some(DateTimeField::Day | DateTimeField::Days) => Some(Width::Days(count)),
        other => {
            let named = other.as_ref().map_or("this unit".to_owned(), ToString::to_string);
            problems.add(
                at,
                format!("windows of {named} aren't supported"),
                "use SECOND, MINUTE, HOUR or DAY, and roll up further in a query over the view",
            );
            None
        }
    }
}

/// Hours are counted from local midnight; in UTC those that divide a day are fixed spans.
fn hours(count: u32, zone: Option<&Zone>) -> Width {
    let utc = zone.is_none_or(|zone| matches!(&**zone, "UTC" | "Etc/UTC"));
    if utc && count <= 24 && 24 % count == 0 {
        return Width::Fixed(Span(i64::from(count) * 3_600_000_000));
    }
    Width::Hours(count)
}
