//! How wide the points of a view may be, and the calendar that weeks are counted by.
//!
//! Invariant: a point never takes part of a window: its width is the window's own, or one that every window fits into.

use chrono::{DateTime, Days, TimeZone};
use chrono_tz::Tz;
use weir_operators::view::ViewPlan;

use super::catalog::View;
use crate::coarser::nests;

/// Points of a line, about, where the browser doesn't say how wide they are.
const POINTS: i64 = 400;
/// A week in seconds.
const WEEK_S: i64 = 7 * 86_400;

/// Steps that are offered, in seconds, with ClickHouse's way to write them.
const STEPS: &[(i64, &str)] = &[
    (1, "1 SECOND"),
    (5, "5 SECOND"),
    (10, "10 SECOND"),
    (30, "30 SECOND"),
    (60, "1 MINUTE"),
    (300, "5 MINUTE"),
    (600, "10 MINUTE"),
    (900, "15 MINUTE"),
    (1_800, "30 MINUTE"),
    (3_600, "1 HOUR"),
    (7_200, "2 HOUR"),
    (10_800, "3 HOUR"),
    (21_600, "6 HOUR"),
    (43_200, "12 HOUR"),
    (86_400, "1 DAY"),
    (WEEK_S, "1 WEEK"),
];

/// Steps wider than the view's windows; none where HAVING has left groups out, which may meet it over a longer time.
pub(super) fn wider_of(plan: &ViewPlan) -> Vec<i64> {
    let fits = |step: &i64| plan.having.is_none() && nests(&plan.window, *step);
    STEPS.iter().map(|(step, _)| *step).filter(fits).collect()
}

/// Steps that points of a view may have, with a word for each: its window's, and wider ones.
pub(super) fn steps_of(view: &View) -> impl Iterator<Item = (i64, String)> + '_ {
    let own = (view.window_s, "window".to_owned());
    std::iter::once(own).chain(view.wider_s.iter().map(|step| (*step, interval_of(*step).to_lowercase())))
}

/// The step for a range of which nobody says how wide its points are.
pub(super) fn step_for(view: &View, range_s: i64) -> i64 {
    let steps = || steps_of(view).map(|(step, _)| step);
    steps().find(|step| range_s / step <= POINTS).or_else(|| steps().max()).unwrap_or(view.window_s)
}

/// A step as it stands behind INTERVAL.
pub(super) fn interval_of(step_s: i64) -> String {
    let known = STEPS.iter().find(|(step, _)| *step == step_s).map(|(_, text)| (*text).to_owned());
    known.unwrap_or_else(|| format!("{step_s} SECOND"))
}

/// The time that the view's clocks show a week earlier. Where they skip it, seven times 24 hours earlier.
pub(super) fn week_before(view: &View, at_s: i64) -> i64 {
    let local = local_of(view, at_s).and_then(|at| at.checked_sub_days(Days::new(7)));
    local.and_then(|at| zone_of(view).from_local_datetime(&at).earliest()).map_or(at_s - WEEK_S, |at| at.timestamp())
}

/// The time that the view's clocks show a week later; none where they skip it.
pub(super) fn week_after(view: &View, at_s: i64) -> Option<i64> {
    let local = local_of(view, at_s)?.checked_add_days(Days::new(7))?;
    Some(zone_of(view).from_local_datetime(&local).earliest()?.timestamp())
}

/// The zone whose calendar cuts the view's windows.
pub(super) fn zone_of(view: &View) -> Tz {
    view.zone.parse().unwrap_or(Tz::UTC)
}

fn local_of(view: &View, at_s: i64) -> Option<chrono::NaiveDateTime> {
    Some(DateTime::from_timestamp(at_s, 0)?.with_timezone(&zone_of(view)).naive_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_before_is_the_same_time_of_day_whatever_the_clocks_did() {
        let view = View { zone: "Europe/Berlin".to_owned(), ..View::default() };
        let at = |text: &str| DateTime::parse_from_rfc3339(text).expect("a time").timestamp();
        // On 2025-03-30 the clocks went from 2 to 3.
        let (noon, before) = (at("2025-04-01T12:00:00+02:00"), at("2025-03-25T12:00:00+01:00"));
        assert_eq!(week_before(&view, noon), before);
        assert_eq!(week_after(&view, before), Some(noon));
        assert_eq!(week_after(&view, at("2025-03-23T02:30:00+01:00")), None, "nobody's clock showed that");
        // On 2025-10-26 they showed the hour from 2 to 3 twice: the first is that of a week before.
        assert_eq!(week_after(&view, at("2025-10-19T02:30:00+02:00")), Some(at("2025-10-26T02:30:00+02:00")));
        let utc = View { zone: "UTC".to_owned(), ..View::default() };
        assert_eq!(week_before(&utc, noon), noon - WEEK_S);
    }

    #[test]
    fn points_are_as_wide_as_the_range_asks() {
        let view = View { window_s: 60, wider_s: vec![300, 600, 3_600, 86_400], ..View::default() };
        let steps: Vec<(i64, String)> = steps_of(&view).collect();
        assert_eq!((&steps[0].1[..], steps[1].0, &steps[1].1[..]), ("window", 300, "5 minute"));
        let of = |range_s| step_for(&view, range_s);
        assert_eq!((of(3_600), of(86_400), of(31_536_000)), (60, 300, 86_400));
        let filtered = View { window_s: 60, ..View::default() };
        assert_eq!(step_for(&filtered, 31_536_000), 60, "a view with HAVING has its own windows only");
    }
}
