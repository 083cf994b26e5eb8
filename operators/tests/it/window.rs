//! Windows against the engine's own answers, and against themselves: they tile the time line.

use weir_operators::view::{Bounds, Width, Window};
use weir_operators::window::Windows;
use weir_schemas::time::{EventTime, Span};
use weir_schemas::types::ColumnType;

const SECOND: i64 = 1_000_000;

fn windows(zone: &str, width: Width) -> Windows {
    let zone: std::sync::Arc<str> = zone.into();
    let column_type = ColumnType::DateTime(Some(zone.clone()));
    Windows::new(&Window { name: "w".to_owned(), column_type, width, zone: Some(zone) }).unwrap()
}

fn width_of(interval: &str) -> Width {
    let (count, unit) = interval.split_once(' ').unwrap();
    let count: u32 = count.parse().unwrap();
    match unit {
        "SECOND" => Width::Fixed(Span(i64::from(count) * SECOND)),
        "MINUTE" => Width::Fixed(Span(i64::from(count) * 60 * SECOND)),
        "HOUR" => Width::Hours(count),
        "DAY" => Width::Days(count),
        other => panic!("no unit {other}"),
    }
}

/// One line of the engine's answers: the samples of `first + i * step`, and the first sample of each window.
#[test]
fn windows_are_cut_where_the_engine_cuts_them() {
    let mut checked = 0;
    let mut wrong = Vec::new();
    for line in include_str!("windows.tsv").lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [zone, interval, first, step, samples, expected] = fields[..] else { panic!("line {line}") };
        let (first, step, samples): (i64, i64, i64) =
            (first.parse().unwrap(), step.parse().unwrap(), samples.parse().unwrap());
        let mut expected = expected
            .split(' ')
            .map(|pair| {
                let (start, from) = pair.split_once(':').unwrap();
                (start.parse::<i64>().unwrap(), from.parse::<i64>().unwrap())
            })
            .peekable();
        let mut windows = windows(zone, width_of(interval));
        let times: Vec<i64> = (0..samples).map(|sample| (first + sample * step) * SECOND).collect();
        let mut starts = Vec::new();
        windows.assign(&times, &mut starts);
        let mut current = 0;
        for (time, start) in times.iter().zip(&starts) {
            while expected.peek().is_some_and(|(_, from)| from * SECOND <= *time) {
                current = expected.next().unwrap().0;
            }
            if *start != current * SECOND {
                wrong.push(format!(
                    "{zone} {interval} at {}: {} but the engine says {current}",
                    time / SECOND,
                    start / SECOND
                ));
                break;
            }
            checked += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 40_000, "only {checked} samples were checked");
}

#[test]
fn windows_tile_the_time_line() {
    for zone in ["UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/St_Johns", "Pacific/Apia"] {
        for width in [Width::Hours(1), Width::Hours(5), Width::Hours(12), Width::Days(1), Width::Days(3)] {
            let windows = windows(zone, width);
            let mut at = windows.bounds(EventTime(1_325_000_000 * SECOND));
            for _ in 0..2_000 {
                let next = windows.bounds(at.end);
                assert_eq!(next.start, at.end, "{zone} {width:?} after {at:?}");
                assert_eq!(windows.bounds(EventTime(at.end.0 - 1)), at, "{zone} {width:?}");
                at = next;
            }
        }
    }
}

#[test]
fn days_of_a_change_have_23_and_25_hours() {
    let windows = windows("America/New_York", Width::Days(1));
    let hours = |at: i64| {
        let Bounds { start, end } = windows.bounds(EventTime(at * SECOND));
        (end.0 - start.0) / SECOND / 3_600
    };
    assert_eq!([hours(1_710_054_000), hours(1_710_140_400), hours(1_730_613_600)], [23, 24, 25]);
}

#[test]
fn complete_through_is_the_end_of_the_last_window_that_was_passed_entirely() {
    let minutes = windows("UTC", Width::Fixed(Span(60 * SECOND)));
    let at = |second: i64| EventTime(second * SECOND);
    assert_eq!(minutes.complete_through(at(119)), at(60));
    assert_eq!(minutes.complete_through(at(120)), at(120));
    assert_eq!(minutes.final_through(at(120), Span(SECOND)), at(60));
    assert_eq!(minutes.complete_through(EventTime::MIN), EventTime::MIN);
    assert_eq!(minutes.complete_through(EventTime::MAX), EventTime::MAX);
    let days = windows("America/New_York", Width::Days(1));
    assert_eq!(days.complete_through(at(1_710_129_600)), at(1_710_129_600), "23 hours after its start");
    assert_eq!(days.complete_through(at(1_710_129_599)), at(1_710_046_800));
}

#[test]
fn times_before_1970_fall_into_the_first_window() {
    let mut windows = windows("UTC", Width::Hours(1));
    let mut starts = Vec::new();
    windows.assign(&[-5 * SECOND, 0, 3_600 * SECOND], &mut starts);
    assert_eq!(starts, [0, 0, 3_600 * SECOND]);
}
