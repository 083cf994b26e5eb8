//! What holds for every series, whatever its numbers.

use weir_judge::series::{STATE_BYTES, Series, THRESHOLD};

const HOUR_US: i64 = 3_600_000_000;

/// Five weeks of hourly values with a day, noise and a fault.
fn values(seed: u64) -> Vec<f64> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..840)
        .map(|hour| {
            let day = (f64::from(hour % 24) / 24.0 * std::f64::consts::TAU).sin();
            let fault = if hour == 700 { 25.0 } else { 0.0 };
            50.0 + 10.0 * day + random.f64() + random.f64() + fault
        })
        .collect()
}

fn scores(values: &[f64]) -> Vec<f64> {
    let mut series = Series::new();
    values.iter().enumerate().map(|(at, value)| series.observe(at as i64 * HOUR_US, *value).score).collect()
}

#[test]
fn scores_stay_when_the_values_are_scaled_and_moved() {
    let values = values(1);
    let scores_of = scores(&values);
    assert!(scores_of[700] >= THRESHOLD, "{}", scores_of[700]);
    for (factor, summand) in [(1e-6, 0.0), (1e9, -3e12), (-2.0, 7.0), (1024.0, 0.0)] {
        let moved: Vec<f64> = values.iter().map(|value| value * factor + summand).collect();
        for (at, (a, b)) in scores_of.iter().zip(scores(&moved)).enumerate() {
            assert!((a - b).abs() < 0.02, "{a} became {b} at {at} by {factor} and {summand}");
        }
    }
}

#[test]
fn a_series_goes_on_from_its_bytes_as_if_nothing_had_been() {
    let values = values(2);
    let mut straight = Series::new();
    let mut stopped = Series::new();
    for (at, value) in values.iter().enumerate() {
        let at_us = at as i64 * HOUR_US;
        assert_eq!(straight.observe(at_us, *value), stopped.observe(at_us, *value));
        let bytes = stopped.to_bytes();
        assert_eq!(bytes.len(), STATE_BYTES);
        stopped = Series::from_bytes(&bytes).unwrap();
    }
}

#[test]
fn bytes_that_are_no_state_are_refused_and_never_panic() {
    let mut series = Series::new();
    values(3).iter().enumerate().for_each(|(at, value)| {
        series.observe(at as i64 * HOUR_US, *value);
    });
    let bytes = series.to_bytes();
    assert!(Series::from_bytes(&[]).is_err());
    assert!(Series::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    assert!(Series::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_err());
    let newer = Series::from_bytes(&[&[200], &bytes[1..]].concat()).unwrap_err();
    assert_eq!(newer.unknown_version, Some(200));
    let mut random = fastrand::Rng::with_seed(4);
    for _ in 0..2_000 {
        let mut damaged = bytes.clone();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(1..damaged.len());
            damaged[at] = random.u8(..);
        }
        if let Ok(mut series) = Series::from_bytes(&damaged) {
            for step in 0..5 {
                let observation = series.observe(step * HOUR_US, 1.0);
                assert!((0.0..=1.0).contains(&observation.score), "{observation:?}");
            }
        }
    }
}

#[test]
fn any_number_at_any_time_gives_a_score_and_harms_nothing() {
    let odd =
        [0.0, -0.0, 1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 1e-320];
    let times = [i64::MIN, i64::MAX, 0, -1, HOUR_US];
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..50 {
        let mut series = Series::new();
        for step in 0..500 {
            let at_us = if random.u8(..10) == 0 { times[random.usize(..times.len())] } else { step * HOUR_US };
            let value = if random.u8(..4) == 0 { odd[random.usize(..odd.len())] } else { random.f64() };
            let observation = series.observe(at_us, value);
            assert!((0.0..=1.0).contains(&observation.score), "{observation:?}");
            assert!(value.is_finite() || observation.score == 0.0);
            Series::from_bytes(&series.to_bytes()).unwrap();
        }
    }
}

#[test]
fn a_huge_value_does_not_blind_the_series_for_long() {
    let mut values = values(6);
    values[300] = 1e300;
    let scores = scores(&values);
    assert!(scores[300] >= THRESHOLD && scores[700] >= THRESHOLD, "{} {}", scores[300], scores[700]);
}

#[test]
fn the_first_values_of_a_series_are_no_alarm() {
    for seed in 0..20 {
        assert!(scores(&values(seed))[..48].iter().all(|score| *score < THRESHOLD), "{seed}");
    }
}

#[test]
fn expect_says_what_observe_will_say() {
    let mut series = Series::new();
    for (at, value) in values(7).iter().enumerate() {
        let at_us = at as i64 * HOUR_US;
        let expectation = series.expect(at_us);
        let observation = series.observe(at_us, *value);
        assert_eq!((expectation.expected, expectation.lower), (observation.expected, observation.lower));
        assert!(expectation.lower <= expectation.expected && expectation.expected <= expectation.upper);
    }
}

/// Hourly values with a day and a quiet weekend, little noise.
fn week_shaped(hour: i64, random: &mut fastrand::Rng) -> f64 {
    let is_weekend = (hour / 24) % 7 >= 5;
    let day = 20.0 * ((hour % 24) as f64 / 24.0 * std::f64::consts::TAU).sin();
    (100.0 + day) * if is_weekend { 0.5 } else { 1.0 } + random.f64()
}

#[test]
fn the_shape_of_the_week_is_expected_once_it_was_seen() {
    let mut random = fastrand::Rng::with_seed(8);
    let mut series = Series::new();
    let mut off = 0.0;
    for hour in 0..24 * 7 * 8 {
        let value = week_shaped(hour, &mut random);
        let expected = series.observe(hour * HOUR_US, value).expected;
        off += if hour >= 24 * 7 * 7 { (expected - value).abs() / (24.0 * 7.0) } else { 0.0 };
    }
    assert!(off < 2.5, "in the eighth week it is off by {off} in the mean");
    let noon = |day: i64| series.expect((24 * (7 * 8 + day) + 12) * HOUR_US).expected;
    assert!((noon(2) - 100.0).abs() < 12.0 && (noon(6) - 50.0).abs() < 12.0, "{} {}", noon(2), noon(6));
}

#[test]
fn an_incident_does_not_become_normal_but_a_lasting_change_does() {
    let mut random = fastrand::Rng::with_seed(9);
    let (weeks, start) = (4, 24 * 7 * 4 + 24 * 2);
    for lasts_hours in [6, i64::MAX] {
        let mut series = Series::new();
        let mut alarms = 0;
        for hour in 0..24 * 7 * weeks + 24 * 14 {
            let is_wrong = hour >= start && hour - start < lasts_hours;
            let value = week_shaped(hour, &mut random) + if is_wrong { 300.0 } else { 0.0 };
            alarms += i32::from(series.observe(hour * HOUR_US, value).score >= THRESHOLD && hour >= start);
            if hour == start + 24 && lasts_hours == 6 {
                let expected = series.expect((hour + 1) * HOUR_US).expected;
                assert!((expected - 100.0).abs() < 40.0, "a day after the incident {expected} is expected");
            }
        }
        let expected = series.expect((24 * 7 * weeks + 24 * 14 + 1) * HOUR_US).expected;
        let wanted = if lasts_hours == 6 { 100.0 } else { 400.0 };
        assert!((expected - wanted).abs() < 40.0, "{expected} instead of {wanted}");
        assert!((1..=4).contains(&alarms), "{alarms} alarms for one incident of {lasts_hours} hours");
    }
}

#[test]
fn gaps_repeats_and_uneven_times_are_no_alarm_and_a_constant_that_moves_is() {
    let mut random = fastrand::Rng::with_seed(10);
    let mut series = Series::new();
    let mut at_us = 0;
    let mut alarms = 0;
    for step in 0..2_000 {
        at_us += match step % 40 {
            7 => 30 * HOUR_US,
            11 | 12 => 0,
            _ => HOUR_US + random.i64(-HOUR_US / 3..HOUR_US / 3),
        };
        let value = if step % 23 == 5 { f64::NAN } else { 10.0 + random.f64() + random.f64() };
        alarms += i32::from(series.observe(at_us, value).score >= THRESHOLD);
    }
    assert!(alarms <= 3, "{alarms} alarms");

    let mut series = Series::new();
    let scores: Vec<f64> = (0..500).map(|step| series.observe(step * HOUR_US, 45.0).score).collect();
    assert!(scores.iter().all(|score| *score < THRESHOLD), "a constant is no alarm");
    assert!(series.observe(500 * HOUR_US, 46.0).score >= THRESHOLD, "a constant that moves is one");
}
