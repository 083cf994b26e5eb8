//! What a release does over all event types, and what a change of their mix is not.

use weir_judge::settings::Settings;
use weir_judge::signal::{Signal, State};
use weir_judge::store::MemoryStore;
use weir_judge::tally::{Family, Indicator, Place, Release, Row, Tally, Window, code_of};
use weir_judge::{Judged, judge};

const HOUR_US: i64 = 3_600_000_000;
const TYPES: [&str; 4] = ["view", "search", "click", "buy"];
const RELEASES: [&str; 3] = ["1.0", "2.0", "3.0"];
/// The window from which the last release is at fault.
const BAD_FROM: i64 = 500_120;

/// Events of a type, and how many of these have no amount, by release and hour.
type Counts = dyn Fn(usize, usize, i64, &mut fastrand::Rng) -> (u64, u64);

fn tally(hour: i64, counts: &Counts, random: &mut fastrand::Rng) -> Tally {
    let texts: Vec<String> = ["", "amount"].into_iter().chain(TYPES).map(str::to_owned).collect();
    let place = Place { topic: 0, partition: 0, offset: hour };
    let mut rows = Vec::new();
    for release in 0..RELEASES.len() {
        let of_types: Vec<(u64, u64)> = (0..TYPES.len()).map(|at| counts(release, at, hour, random)).collect();
        let all: u64 = of_types.iter().map(|(events, _)| events).sum();
        let mut row = |event_type, field, family, code, label, hits: u64, trials| {
            let examples = Box::new([place]);
            let indicator = Indicator { family, code };
            let users = hits as u32;
            let (first, last, release) = (place, place, release as u32);
            rows.push(Row { release, event_type, field, indicator, label, hits, trials, users, first, last, examples });
        };
        for (at, (events, nulls)) in of_types.into_iter().enumerate().filter(|(_, (events, _))| *events > 0) {
            let text = at as u32 + 2;
            row(0, 0, Family::TypeShare, code_of(TYPES[at]), text, events, all);
            row(text, 1, Family::Null, 0, 0, nulls, events);
        }
    }
    let release = |version: &&str| Release {
        sdk: "web".into(),
        sdk_version: (*version).to_owned(),
        app_version: format!("app {version}"),
    };
    Tally {
        tenant: "t".into(),
        window: Window { start_us: hour * HOUR_US, width_us: HOUR_US },
        releases: RELEASES.iter().map(release).collect(),
        release_users: vec![500; RELEASES.len()],
        texts,
        rows,
        volumes: Vec::new(),
    }
}

/// The signals of series out of order, by window.
fn signals_of(counts: &Counts) -> Vec<Signal> {
    let (mut store, settings) = (MemoryStore::default(), Settings::default());
    let mut random = fastrand::Rng::with_seed(11);
    let judged = |hour| -> Judged { judge(&tally(hour, counts, &mut random), &mut store, &settings) };
    let signals = (BAD_FROM - 120..BAD_FROM + 40).map(judged).flat_map(|judged| judged.signals);
    signals.filter(|signal| signal.state == State::Bad).collect()
}

fn binomial(random: &mut fastrand::Rng, trials: u64, share: f64) -> u64 {
    (0..trials).filter(|_| random.f64() < share).count() as u64
}

/// Signals where a release stops to send purchases, the only type that carries an amount.
fn signals_without_purchases(events: std::ops::Range<u64>) -> Vec<Signal> {
    signals_of(&move |release, at, hour, random| {
        let is_buy = TYPES[at] == "buy";
        let gone = is_buy && release == 2 && hour >= BAD_FROM;
        let events = if gone { 0 } else { random.u64(events.clone()) };
        (events, if is_buy { binomial(random, events, 0.02) } else { events })
    })
}

#[test]
fn purchases_that_vanish_are_no_nulls_of_a_field_that_only_they_carry() {
    // With few events it takes long to learn that every view is without an amount.
    for events in [90..110, 3..15] {
        let signals = signals_without_purchases(events);
        let about = |s: &Signal| (s.indicator.family, s.field.clone(), s.scope.sdk_version.clone());
        let said: Vec<_> = signals.iter().map(about).collect();
        assert!(said.iter().all(|(family, field, _)| *family == Family::TypeShare && field.is_empty()), "{said:?}");
        assert!(said.iter().any(|(_, _, version)| version.as_deref() == Some("3.0")), "{said:?}");
    }
}

#[test]
fn a_mix_that_wanders_is_nobodys_fault() {
    let signals = signals_of(&|_, at, hour, random| {
        let is_buy = TYPES[at] == "buy";
        let events = if is_buy { 60 + hour as u64 % 24 * 10 } else { random.u64(90..110) };
        (events, if is_buy { binomial(random, events, 0.02) } else { events })
    });
    assert!(signals.iter().all(|signal| signal.indicator.family == Family::TypeShare), "{signals:?}");
}

#[test]
fn what_is_too_little_in_each_type_is_found_in_their_sum() {
    let signals = signals_of(&|release, at, hour, random| {
        let events = if release == 2 { random.u64(0..4) } else { random.u64(90..110) };
        let share = if release == 2 && hour >= BAD_FROM { 0.4 } else { 0.02 };
        let _ = at;
        (events, binomial(random, events, share))
    });
    let first = signals.first().expect("it is found");
    assert_eq!((first.event_type.as_str(), first.field.as_str()), ("", "amount"), "{first:?}");
    assert_eq!(first.scope.sdk_version.as_deref(), Some("3.0"));
    assert!(first.expected < 0.05 && first.share_seen > 0.2, "{first:?}");
    assert!(signals.iter().all(|signal| signal.scope.sdk_version.as_deref() == Some("3.0")));
    // What was found in windows that happened to be bad ones isn't over where the share is what it truly is.
    let windows: Vec<u32> = signals.iter().map(|signal| signal.window).collect();
    assert!(windows.windows(2).all(|pair| pair[1] - pair[0] <= 1), "{windows:?}");
}
