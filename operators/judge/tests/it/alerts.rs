//! The life of alerts, and which problem a set of signals is.

use std::collections::BTreeMap;

use weir_judge::Known;
use weir_judge::alert::{Alert, Change, Facts, NoFacts, Reason, Severity, Status};
use weir_judge::book::{Book, Manners, WindowSignals};
use weir_judge::cause::{CauseKind, explain};
use weir_judge::signal::{Scope, Signal, State};
use weir_judge::tally::{Family, Indicator, Place, Release};

fn release(sdk: &str, sdk_version: &str, app_version: &str) -> Release {
    Release { sdk: sdk.into(), sdk_version: sdk_version.into(), app_version: app_version.into() }
}

fn signal(tenant: &str, scope: Scope, field: &str, family: Family, since: u32) -> Signal {
    let place = Place { topic: 0, partition: 1, offset: i64::from(since) * 100 };
    Signal {
        tenant: tenant.into(),
        scope,
        event_type: "purchase".into(),
        field: field.into(),
        indicator: Indicator { family, code: 0 },
        label: String::new(),
        state: State::Bad,
        since,
        window: since,
        ln_e: 20.0,
        ln_threshold: 15.0,
        share_now: 0.9,
        share_seen: 0.9,
        expected: 0.01,
        lower: 0.005,
        upper: 0.02,
        hits: 90,
        trials: 100,
        users: 30.0,
        users_all: 33.0,
        first: Some(place),
        last: Some(place),
        examples: [Some(place), None, None],
    }
}

fn known(releases: &[Release]) -> BTreeMap<String, Vec<Known>> {
    let known = |release: &Release| Known { release: release.clone(), first_seen: 0, last_seen: 100 };
    [("t", releases), ("u", releases)].map(|(tenant, of)| (tenant.into(), of.iter().map(known).collect())).into()
}

fn releases() -> Vec<Release> {
    vec![
        release("ios", "1.9.0", "5.0"),
        release("ios", "1.10.0", "5.1"),
        release("ios", "1.11.0", "5.2"),
        release("ios", "1.11.0", "5.3"),
        release("android", "2.0.0", "5.3"),
        release("android", "2.0.0", "5.0"),
    ]
}

#[test]
fn symptoms_of_one_release_are_one_problem_with_its_last_good_neighbour() {
    let bad = Scope::release(&releases()[1]);
    let signals = [
        signal("t", bad.clone(), "amount", Family::Null, 10),
        signal("t", bad.clone(), "amount", Family::Tagged, 12),
        signal("t", bad, "", Family::Refused, 11),
    ];
    let problems = explain(&signals, &known(&releases()));
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].cause.kind, CauseKind::Release);
    assert_eq!(problems[0].first_bad, Some(releases()[1].clone()));
    // By number: 1.9 stands before 1.10.
    assert_eq!(problems[0].last_good, Some(releases()[0].clone()));
    assert_eq!(problems[0].cause.field.as_deref(), Some("amount"));
}

#[test]
fn the_coarsest_attribute_that_all_share_is_the_cause() {
    let of = |at: &[usize]| -> Vec<Signal> {
        at.iter().map(|&at| signal("t", Scope::release(&releases()[at]), "amount", Family::Null, 10)).collect()
    };
    let kind = |signals: &[Signal]| {
        let problems = explain(signals, &known(&releases()));
        assert_eq!(problems.len(), 1, "{problems:#?}");
        (problems[0].cause.kind, problems[0].first_bad.clone())
    };
    assert_eq!(kind(&of(&[2, 3])), (CauseKind::SdkVersion, Some(releases()[2].clone())));
    assert_eq!(kind(&of(&[3, 4])).0, CauseKind::AppVersion);
    // The fault came with 1.10.0 and was inherited.
    assert_eq!(kind(&of(&[1, 2, 3])), (CauseKind::SdkVersion, Some(releases()[1].clone())));
    let mut tenants = of(&[2]);
    tenants.push(signal("u", Scope::release(&releases()[3]), "amount", Family::Null, 14));
    assert_eq!(kind(&tenants).0, CauseKind::SdkVersion);
    let mut whole = of(&[2]);
    whole.push(signal("t", Scope::platform("ios"), "amount", Family::Null, 10));
    assert_eq!(kind(&whole), (CauseKind::Platform, None));
    whole.push(signal("t", Scope::platform("android"), "amount", Family::Null, 11));
    assert_eq!(kind(&whole), (CauseKind::Tenant, None));
}

#[test]
fn unlike_faults_of_unlike_releases_are_two_problems() {
    let signals = [
        signal("t", Scope::release(&releases()[0]), "amount", Family::Null, 10),
        signal("t", Scope::release(&releases()[4]), "user", Family::Null, 10),
    ];
    assert_eq!(explain(&signals, &known(&releases())).len(), 2);
}

struct Life {
    book: Book,
    window: u32,
}

impl Life {
    fn step(&mut self, signals: Vec<Signal>) -> Vec<Alert> {
        // Through bytes each time, so that nothing lives beside them.
        self.book = Book::from_bytes(&self.book.to_bytes()).unwrap();
        self.window += 1;
        let signals = signals.into_iter().map(|signal| Signal { window: self.window, ..signal }).collect();
        let users = [("t".to_owned(), 1_000.0), ("u".to_owned(), 1_000.0)].into();
        let of = WindowSignals { window: self.window, signals, releases: known(&releases()), users };
        self.book.close(of, &Manners::default(), &NoFacts)
    }
}

#[test]
fn an_alert_opens_stays_quiet_resolves_and_reopens_as_itself() {
    let mut life = Life { book: Book::default(), window: 100 };
    let bad = || signal("t", Scope::release(&releases()[1]), "amount", Family::Null, 100);
    let opened = life.step(vec![bad()]);
    assert_eq!((opened.len(), opened[0].change, opened[0].revision), (1, Change::Opened, 1));
    assert_eq!((opened[0].severity, opened[0].users), (Severity::Minor, 30.0));
    for _ in 0..20 {
        assert_eq!(life.step(vec![bad()]), Vec::new(), "nothing that a person cares about");
    }
    let more = life.step(vec![Signal { users: 400.0, ..bad() }]);
    assert_eq!((more[0].change, more[0].severity, more[0].revision), (Change::Updated, Severity::Major, 2));
    let over = life.step(vec![Signal { state: State::Recovered, ..bad() }]);
    assert_eq!((over[0].status, over[0].reason), (Status::Resolved, Some(Reason::Recovered)));
    assert_eq!(life.step(Vec::new()), Vec::new());
    let again = life.step(vec![bad()]);
    assert_eq!((again[0].change, again[0].revision), (Change::Reopened, 4));
    assert_eq!(again[0].fingerprint, opened[0].fingerprint);
    assert_eq!(again[0].first_place, opened[0].first_place);
}

#[test]
fn an_alert_grows_from_a_release_to_its_sdk_version_and_stays_one() {
    let mut life = Life { book: Book::default(), window: 100 };
    let bad = |tenant: &str, at: usize| signal(tenant, Scope::release(&releases()[at]), "amount", Family::Null, 100);
    let opened = life.step(vec![bad("t", 2)]);
    let grown = life.step(vec![bad("t", 2), bad("u", 3)]);
    assert_eq!((grown.len(), grown[0].change), (1, Change::Updated));
    assert_eq!(grown[0].fingerprint, opened[0].fingerprint);
    assert_eq!((grown[0].cause.kind, grown[0].tenants_count), (CauseKind::SdkVersion, 2));
    assert_eq!(life.book.open().count(), 1);
}

#[test]
fn a_release_that_is_not_heard_of_any_more_ends_its_alert_and_says_so() {
    let mut life = Life { book: Book::default(), window: 100 };
    life.step(vec![signal("t", Scope::release(&releases()[1]), "amount", Family::Null, 100)]);
    let told: Vec<Alert> = (0..30).flat_map(|_| life.step(Vec::new())).collect();
    let last = told.last().unwrap();
    assert_eq!((last.status, last.reason), (Status::Resolved, Some(Reason::Vanished)));
    assert_eq!(told.iter().filter(|alert| alert.change == Change::Resolved).count(), 1);
}

#[test]
fn owners_acknowledgement_and_suppression_are_taken_as_facts() {
    struct Team;
    impl Facts for Team {
        fn owner(&self, alert: &Alert) -> String {
            format!("team of {}", alert.cause.scope.sdk.as_deref().unwrap_or("all"))
        }
        fn is_suppressed(&self, _: &Alert) -> bool {
            true
        }
        fn is_acknowledged(&self, _: u64) -> bool {
            true
        }
    }
    let signals = vec![signal("t", Scope::release(&releases()[1]), "amount", Family::Null, 100)];
    let of = WindowSignals { window: 100, signals, releases: known(&releases()), users: BTreeMap::new() };
    let told = Book::default().close(of, &Manners::default(), &Team);
    assert_eq!((told[0].owner.as_str(), told[0].suppressed, told[0].acknowledged), ("team of ios", true, true));
}

#[test]
fn a_damaged_book_is_refused() {
    let mut life = Life { book: Book::default(), window: 100 };
    life.step(vec![signal("t", Scope::release(&releases()[1]), "amount", Family::Null, 100)]);
    let bytes = life.book.to_bytes();
    for cut in 0..bytes.len() {
        assert!(Book::from_bytes(&bytes[..cut]).is_none(), "{cut}");
    }
}

#[test]
fn what_senders_name_is_remembered_within_bounds_only() {
    let manners = Manners { remembered_max: 3, ..Manners::default() };
    let mut book = Book::default();
    let tenant_of = |window: u32| format!("tenant {window}");
    let window_of = |window: u32| {
        let tenant = tenant_of(window);
        let known = Known { release: releases()[0].clone(), first_seen: 0, last_seen: window };
        let mut signals = vec![signal(&tenant, Scope::release(&releases()[0]), "amount", Family::Null, window)];
        // The one of the window before is in order again.
        let before = signal(&tenant_of(window - 1), Scope::release(&releases()[0]), "amount", Family::Null, window);
        signals.push(Signal { state: State::Recovered, ..before });
        WindowSignals {
            window,
            signals,
            releases: BTreeMap::from([(tenant.clone(), vec![known])]),
            users: BTreeMap::from([(tenant, 5.0)]),
        }
    };
    for window in 1..=100 {
        let changed = book.close(window_of(window), &manners, &NoFacts);
        assert!(changed.iter().any(|alert| alert.change == Change::Opened), "window {window}");
    }
    let small = book.to_bytes().len();
    for window in 101..=200 {
        book.close(window_of(window), &manners, &NoFacts);
    }
    assert!(book.to_bytes().len() <= small + 64, "{} bytes grew to {}", small, book.to_bytes().len());
    // The newest are remembered: one that comes back is the same alert.
    let mut back = window_of(201);
    let of = |window| signal(&tenant_of(window), Scope::release(&releases()[0]), "amount", Family::Null, 201);
    back.signals = vec![of(198), Signal { state: State::Recovered, ..of(200) }];
    let changed = book.close(back, &manners, &NoFacts);
    assert!(changed.iter().any(|alert| alert.change == Change::Reopened), "{changed:?}");
}
