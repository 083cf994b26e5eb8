//! How rows of a view become those of longer stretches: into which their windows fit, and what puts their values together.
//! The readers' coarser views and the console's wider points go by it alike.
//!
//! Not here: views with HAVING, whose missing groups no stretch can bring back; their callers leave them out.

use weir_operators::aggregate::{Call, Function};
use weir_operators::view::{Width, Window};

const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 86_400;
/// The clocks of all zones differ from UTC by whole multiples of it.
const ZONES_DIFFER_BY_S: i64 = 900;

/// Whether every window lies whole within a stretch of `unit_s` seconds that is longer than it, as `toStartOfInterval` cuts
/// stretches in the view's zone: minutes from 1970, hours from midnight, weeks from Monday.
pub(crate) fn nests(window: &Window, unit_s: i64) -> bool {
    let is_utc = window.zone.as_deref().is_none_or(|zone| zone == "UTC");
    let (window_s, within_s) = match window.width {
        Width::Fixed(span) if span.0 % 1_000_000 != 0 => return false,
        Width::Fixed(span) => {
            let within = if unit_s < HOUR_S || is_utc { unit_s.min(DAY_S) } else { ZONES_DIFFER_BY_S };
            (span.0 / 1_000_000, within)
        }
        // A day's last window ends with the day.
        Width::Hours(hours) if unit_s >= DAY_S => {
            (i64::from(hours.min(24)) * HOUR_S, i64::from(hours.min(24)) * HOUR_S)
        }
        Width::Hours(hours) => (i64::from(hours.min(24)) * HOUR_S, unit_s),
        Width::Days(days) => (i64::from(days) * DAY_S, DAY_S),
    };
    window_s > 0 && window_s < unit_s && within_s % window_s == 0
}

/// The function that makes one value of several rows' of a measure. Values of counts, sums and extremes are put together as
/// they are; the rest is merged from states, since distinct counts, means and quantiles of parts don't add up.
pub(crate) fn merge_of(call: &Call) -> String {
    match call.function {
        Function::Count | Function::Sum => "sum".to_owned(),
        Function::Min | Function::Max => call.function.name().to_owned(),
        _ => {
            let name = call.function.name();
            let parameters = call.signature.strip_prefix(name).filter(|rest| rest.starts_with('('));
            let parameters = parameters.and_then(|rest| Some(&rest[..=rest.find(')')?])).unwrap_or_default();
            format!("{name}Merge{parameters}")
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_schemas::time::Span;
    use weir_schemas::types::{ColumnType, Zone};

    use super::*;

    #[test]
    fn a_window_fits_only_into_stretches_that_hold_it_whole() {
        let of = |width, zone: Option<&str>, unit_s| {
            let zone = zone.map(Zone::from);
            nests(&Window { name: "w".to_owned(), column_type: ColumnType::DateTime(None), width, zone }, unit_s)
        };
        let fixed = |seconds: i64| Width::Fixed(Span(seconds * 1_000_000));
        let kathmandu = Some("Asia/Kathmandu");
        for (width, zone, unit_s, fits) in [
            (fixed(60), None, 300, true),
            (fixed(60), kathmandu, HOUR_S, true),
            (fixed(1_800), None, HOUR_S, true),
            (fixed(1_800), Some("UTC"), HOUR_S, true),
            // There an hour begins a quarter past those of UTC.
            (fixed(1_800), kathmandu, HOUR_S, false),
            (fixed(1_800), kathmandu, 2 * DAY_S, false),
            // Minutes are counted from 1970 in every zone.
            (fixed(600), kathmandu, 1_800, true),
            (fixed(420), None, HOUR_S, false),
            (fixed(60), None, 60, false),
            // A week divides into seven hours, but a Monday doesn't begin with them.
            (fixed(7 * HOUR_S), None, 7 * DAY_S, false),
            (Width::Hours(5), Some("Europe/Berlin"), DAY_S, true),
            (Width::Hours(5), Some("Europe/Berlin"), 12 * HOUR_S, false),
            (Width::Hours(2), Some("Europe/Berlin"), 6 * HOUR_S, true),
            (Width::Hours(24), None, 7 * DAY_S, true),
            (Width::Days(1), None, DAY_S, false),
            (Width::Days(1), None, 7 * DAY_S, true),
            (Width::Days(2), None, 7 * DAY_S, false),
            (Width::Fixed(Span(500_000)), None, 60, false),
        ] {
            assert_eq!(of(width, zone, unit_s), fits, "{width:?} in {zone:?} within {unit_s} s");
        }
    }
}
