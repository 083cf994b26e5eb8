//! What a window costs, and what odd input does.

use std::time::Instant;

use weir_judge::settings::Settings;
use weir_judge::signal::State;
use weir_judge::store::MemoryStore;
use weir_judge::tally::{Family, Indicator, Place, Release, Row, Tally, Window};
use weir_judge::{BYTES_PER_PLATFORM_SERIES, BYTES_PER_SERIES, Judged, judge};

const HOUR_US: i64 = 3_600_000_000;

/// A window of `fields` fields with ten indicators each, of every release.
fn tally(hour: i64, releases: u32, fields: u32) -> Tally {
    let mut random = fastrand::Rng::with_seed(hour as u64);
    let mut rows = Vec::new();
    for release in 0..releases {
        for field in 0..fields {
            for bucket in 0..10 {
                let hits = random.u64(90..110);
                let place = Place { topic: 0, partition: 0, offset: hour };
                rows.push(Row {
                    release,
                    event_type: 0,
                    field: field + 1,
                    indicator: Indicator { family: Family::Number, code: bucket },
                    label: 0,
                    hits,
                    trials: 1000,
                    users: hits as u32,
                    first: place,
                    last: place,
                    examples: Box::new([place]),
                });
            }
        }
    }
    Tally {
        tenant: "t".into(),
        window: Window { start_us: hour * HOUR_US, width_us: HOUR_US },
        releases: (0..releases)
            .map(|at| Release {
                sdk: format!("sdk{}", at % 3),
                sdk_version: format!("1.{}", at / 12),
                app_version: format!("2.{at}"),
            })
            .collect(),
        release_users: vec![900; releases as usize],
        texts: (0..=fields).map(|field| if field == 0 { String::new() } else { format!("field{field}") }).collect(),
        rows,
        volumes: Vec::new(),
    }
}

#[test]
fn a_window_of_many_series_takes_little_time_and_constant_memory() {
    let full = std::env::var("WEIR_PROOF").is_ok_and(|value| value == "full");
    let (releases, fields) = if full { (100, 500) } else { (100, 25) };
    let (mut store, settings) = (MemoryStore::default(), Settings { learn_windows: 1, ..Settings::default() });
    let mut bytes = Vec::new();
    for hour in 500_000..500_004 {
        let tally = tally(hour, releases, fields);
        let began = Instant::now();
        let judged = judge(&tally, &mut store, &settings);
        let ns = began.elapsed().as_nanos() / u128::from(judged.series);
        let kept: usize = store.entries.iter().map(|(key, value)| key.len() + value.len()).sum();
        bytes.push(kept);
        println!(
            "{} series in a window: {ns} ns and {} bytes each, keys included (a release's {BYTES_PER_SERIES}, a \
             platform's {BYTES_PER_PLATFORM_SERIES})",
            judged.series,
            kept as u64 / judged.series
        );
        assert_eq!(judged.skipped, 0);
        assert!(judged.series >= u64::from(releases * fields * 10));
    }
    assert_eq!(bytes[1], bytes[3], "memory doesn't grow with windows");
}

/// Six days of one field's nulls, then a release that drops the field.
fn story(spoil: bool) -> Vec<Judged> {
    let (mut store, settings) = (MemoryStore::default(), Settings::default());
    let mut told = Vec::new();
    for hour in 500_000..500_150 {
        let mut tally = tally(hour, 6, 1);
        for row in &mut tally.rows {
            let drops = row.release == 5 && hour >= 500_145;
            row.indicator = Indicator { family: Family::Null, code: 0 };
            row.hits = if drops { 990 } else { 10 + row.hits % 3 };
            row.users = row.hits as u32;
        }
        tally.rows.dedup_by_key(|row| row.release);
        if spoil {
            let row = tally.rows[0].clone();
            tally.rows.push(Row { release: 77, ..row.clone() });
            tally.rows.push(Row { field: 77, ..row.clone() });
            tally.rows.push(Row { label: 77, ..row.clone() });
            tally.rows.push(Row { hits: 5, trials: 4, ..row.clone() });
            tally.rows.push(Row { hits: 0, trials: 0, ..row });
        }
        told.push(judge(&tally, &mut store, &settings));
        let again = judge(&tally, &mut store, &settings);
        assert!(again.signals.is_empty() && again.series == 0, "a window is judged once");
    }
    told
}

#[test]
fn the_same_windows_give_the_same_signals_and_odd_rows_are_left_out() {
    let (one, spoilt) = (story(false), story(true));
    assert_eq!(format!("{one:?}"), format!("{spoilt:?}"));
    let first = one.iter().position(|judged| !judged.signals.is_empty()).unwrap();
    assert_eq!(first, 145, "told when the window closes in which it began");
    let signal = &one[first].signals[0];
    assert_eq!((signal.state, signal.scope.app_version.as_deref()), (State::Bad, Some("2.5")));
    assert!(signal.share_seen > 0.9 && signal.upper < 0.05 && signal.ln_e > signal.ln_threshold);
    assert_eq!(signal.first, Some(Place { topic: 0, partition: 0, offset: 500_145 }));
    assert!(one[first..].iter().all(|judged| judged.signals.len() == 1), "one release, and it alone");
}
