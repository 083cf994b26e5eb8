//! The detector: opening, updating and resolving, in scripts of shares; the same answer however the log is cut.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, Int64Builder, ListBuilder, UInt32Builder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, TimestampMicrosecondType, UInt32Type, UInt64Type};
use arrow_array::{ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, UInt8Array, UInt16Array};
use weir_operators::account::TopicNames;
use weir_operators::detect::policy::Policy;
use weir_operators::detect::{CountAccepted, CountRefused, Detect, SenderColumns, Thresholds};
use weir_operators::operator::{Context, Effects, Operator};
use weir_schemas::fate::Reason;
use weir_schemas::rows::Changes;
use weir_schemas::stage::{refused_schema, text_item};
use weir_schemas::tables;
use weir_schemas::time::{Epoch, EventTime, Span};

use crate::events::{self, Event};
use crate::harness::{Harness, Random};

const MINUTE: i64 = 60_000_000;

fn harness(peers: usize, settle: i64) -> Harness {
    Harness::new(peers, Some(0), move |registry| {
        let thresholds = Thresholds {
            source: "shop".into(),
            open_at: 0.5,
            resolve_below: 0.2,
            min_records: 10,
            silent_windows: 3,
            window: Span(MINUTE),
            settle: Span(settle),
            policy: Policy::default(),
        };
        let topics = vec![TopicNames { source: "shop".into(), topic: "orders".into() }];
        Box::new(Detect::new(thresholds, topics, 1_000, registry).unwrap())
    })
}

/// A record: its time, its release and, where it was refused, why.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) at: i64,
    pub(crate) release: &'static str,
    pub(crate) refused: Option<(Reason, &'static str)>,
    pub(crate) offset: i64,
}

pub(crate) fn refused(records: &[Record]) -> RecordBatch {
    let rows: Vec<&Record> = records.iter().filter(|record| record.refused.is_some()).collect();
    let text = |of: &dyn Fn(&Record) -> String| -> ArrayRef {
        Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| of(row).into_bytes())))
    };
    let (mut ids, mut times, mut absent) = (UInt32Builder::new(), Int64Builder::new(), BinaryBuilder::new());
    for row in &rows {
        ids.append_null();
        // Every other one has no event time; when it counts is told apart.
        times.append_option((row.offset % 2 == 0).then_some(row.at));
        absent.append_null();
    }
    let absent: ArrayRef = Arc::new(absent.finish());
    let nothing = text(&|_| String::new());
    let mut broken = ListBuilder::new(BinaryBuilder::new()).with_field(text_item());
    rows.iter().for_each(|_| broken.append(true));
    RecordBatch::try_new(
        refused_schema(),
        vec![
            Arc::new(UInt16Array::from_iter_values(rows.iter().map(|_| 0))),
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|_| 4))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.offset))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.at / 1_000))),
            Arc::new(ids.finish()),
            Arc::new(times.finish()),
            Arc::new(UInt8Array::from_iter_values(rows.iter().filter_map(|row| Some(row.refused?.0 as u8)))),
            text(&|row| row.refused.unwrap().1.to_owned()),
            text(&|_| "acme".to_owned()),
            text(&|_| "web".to_owned()),
            text(&|row| row.release.to_owned()),
            text(&|_| String::new()),
            // Rule, field, expected, found, severity, owner, fingerprint, all that are broken.
            nothing.clone(),
            nothing.clone(),
            nothing.clone(),
            nothing.clone(),
            nothing.clone(),
            nothing.clone(),
            nothing,
            Arc::new(broken.finish()),
            absent.clone(),
            absent,
            text(&|_| String::new()),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.at / 1_000 * 1_000))),
        ],
    )
    .unwrap()
}

fn accepted(records: &[Record]) -> RecordBatch {
    let rows = records.iter().filter(|record| record.refused.is_none()).map(|record| Event {
        partition: 4,
        offset: record.offset,
        at: record.at,
        tenant: "acme",
        kind: "web",
        amount: None,
        user: 1,
        id: record.release.to_owned(),
    });
    events::batch(&rows.collect::<Vec<_>>())
}

fn feed(harness: &mut Harness, records: &[Record]) {
    let columns = SenderColumns {
        tenant: Some(events::TENANT),
        sdk: Some(events::KIND),
        sdk_version: Some(events::ID),
        app_version: None,
    };
    let counts: [(Box<dyn Operator>, RecordBatch); 2] = [
        (Box::new(CountAccepted::new(columns, Span(MINUTE))), accepted(records)),
        (Box::new(CountRefused::new(Span(MINUTE))), refused(records)),
    ];
    for (mut operator, batch) in counts {
        let mut effects = Effects::default();
        let mut cx = Context::new(Epoch(1), EventTime::MIN, &mut effects);
        operator.on_batch(batch, &mut cx).unwrap();
        operator.end_of_epoch(&mut cx).unwrap();
        effects.emitted.into_iter().for_each(|(_, counts)| harness.input(counts));
    }
}

/// The steps of the history, one line each.
fn steps(changes: &[Changes]) -> Vec<String> {
    let mut steps = Vec::new();
    for changes in changes.iter().filter(|changes| &*changes.table == tables::ALERTS_HISTORY) {
        let column = |name: &str| changes.rows.column_by_name(name).unwrap();
        let text =
            |name: &str, row: usize| String::from_utf8_lossy(column(name).as_binary::<i32>().value(row)).into_owned();
        let minute =
            |name: &str, row: usize| column(name).as_primitive::<TimestampMicrosecondType>().value(row) / MINUTE;
        let count = |name: &str, row: usize| column(name).as_primitive::<UInt64Type>().value(row);
        for row in 0..changes.rows.num_rows() {
            let examples = column("examples").as_list::<i32>().value(row);
            assert!(examples.len() <= 3);
            assert_eq!(text("cause", row), format!("web {} / ", text("sdk_version", row)));
            steps.push(format!(
                "{} {} r{} {} since {}, seen to {}: {}/{} = {:.2} {} {} {} {}..{}",
                minute("window_start", row),
                text("sdk_version", row),
                column("revision").as_primitive::<UInt32Type>().value(row),
                text("status", row),
                minute("opened_at", row),
                minute("last_seen_at", row),
                count("affected_records", row),
                count("records", row),
                column("affected_share").as_primitive::<Float64Type>().value(row),
                text("severity", row),
                text("reason", row),
                text("detail", row),
                text("first_place", row),
                text("last_place", row),
            ));
        }
    }
    steps
}

/// A minute of a release: so many records, so many of them refused.
fn minute_of(release: &'static str, minute: i64, records: usize, bad: usize) -> Vec<Record> {
    (0..records)
        .map(|at| Record {
            at: minute * MINUTE + at as i64,
            release,
            refused: (at < bad).then_some(if at % 3 == 0 {
                (Reason::Rule, "positive")
            } else {
                (Reason::Malformed, "amount")
            }),
            offset: minute * 1_000 + at as i64,
        })
        .collect()
}

#[test]
fn an_alert_opens_is_updated_and_resolves_with_hysteresis() {
    let mut harness = harness(1, 0);
    for (minute, (records, bad)) in
        [(20, 2), (20, 10), (8, 8), (20, 5), (20, 3), (20, 9), (20, 20)].into_iter().enumerate()
    {
        feed(&mut harness, &minute_of("2.1", minute as i64, records, bad));
    }
    harness.raise(EventTime(5 * MINUTE - 1));
    assert_eq!(
        steps(&harness.finish_epoch()),
        [
            "1 2.1 r1 open since 1, seen to 2: 10/20 = 0.50 critical malformed amount orders/4@1000..orders/4@1009",
            // Minute 2 has too few records to say anything.
            "3 2.1 r2 update since 1, seen to 4: 5/20 = 0.25 warning malformed amount orders/4@1000..orders/4@3004",
        ]
    );
    harness.start(2);
    harness.raise(EventTime(7 * MINUTE));
    let changes = harness.finish_epoch();
    assert_eq!(
        steps(&changes),
        [
            "4 2.1 r3 resolved since 1, seen to 4: 3/20 = 0.15 warning malformed amount orders/4@1000..orders/4@4002",
            // 9 of 20 is below the threshold again.
            "6 2.1 r1 open since 6, seen to 7: 20/20 = 1.00 critical malformed amount orders/4@6000..orders/4@6019",
        ]
    );
    let current: Vec<&Changes> = changes.iter().filter(|changes| &*changes.table == tables::ALERTS).collect();
    assert_eq!(
        current.iter().map(|changes| changes.rows.num_rows()).sum::<usize>(),
        1,
        "one row per alert: the newest"
    );
}

#[test]
fn an_update_tells_something_new_and_silence_resolves_with_a_reason() {
    let mut harness = harness(1, 0);
    // The same share and reason is told once; three silent windows in a row resolve, two do not.
    for (minute, bad) in [(0, 12), (1, 12), (2, 15), (5, 15), (6, 15)] {
        feed(&mut harness, &minute_of("2.1", minute, 20, bad));
    }
    harness.raise(EventTime(10 * MINUTE - 1));
    assert_eq!(
        steps(&harness.finish_epoch()),
        [
            "0 2.1 r1 open since 0, seen to 1: 12/20 = 0.60 critical malformed amount orders/4@0..orders/4@11",
            "2 2.1 r2 update since 0, seen to 3: 15/20 = 0.75 critical malformed amount orders/4@0..orders/4@2014",
        ]
    );
    // What is open is known again after a start.
    harness.start(2);
    harness.raise(EventTime(10 * MINUTE));
    assert_eq!(
        steps(&harness.finish_epoch()),
        [
            "9 2.1 r3 resolved since 0, seen to 7: 0/0 = 0.00 warning silent fewer than 10 records in each of 3 windows orders/4@0.."
        ]
    );
    // It is over: the next bad window opens another one, and the end of the log is not silence.
    feed(&mut harness, &minute_of("2.1", 20, 20, 20));
    harness.raise(EventTime::MAX);
    assert_eq!(
        steps(&harness.finish_epoch()),
        ["20 2.1 r1 open since 20, seen to 21: 20/20 = 1.00 critical malformed amount orders/4@20000..orders/4@20019"]
    );
    // Another run goes on: what the end has judged isn't looked at again, and what follows is.
    harness.start(1);
    feed(&mut harness, &minute_of("2.1", 20, 20, 0));
    feed(&mut harness, &minute_of("2.1", 21, 20, 0));
    harness.raise(EventTime(22 * MINUTE));
    let steps = steps(&harness.finish_epoch());
    assert_eq!(steps.len(), 1, "{steps:?}");
    assert!(steps[0].starts_with("21 2.1 r2 resolved since 20, seen to 21: 0/20 = 0.00"), "{steps:?}");
}

#[test]
fn silence_ends_before_a_later_window_is_judged() {
    let mut harness = harness(1, 0);
    feed(&mut harness, &minute_of("2.1", 0, 20, 20));
    feed(&mut harness, &minute_of("2.1", 4, 20, 20));
    harness.raise(EventTime(5 * MINUTE));
    assert_eq!(
        steps(&harness.finish_epoch()),
        [
            "0 2.1 r1 open since 0, seen to 1: 20/20 = 1.00 critical malformed amount orders/4@0..orders/4@19",
            "3 2.1 r2 resolved since 0, seen to 1: 0/0 = 0.00 warning silent fewer than 10 records in each of 3 windows orders/4@0..",
            "4 2.1 r1 open since 4, seen to 5: 20/20 = 1.00 critical malformed amount orders/4@4000..orders/4@4019",
        ]
    );
}

#[test]
fn too_late_records_and_judged_windows_are_not_looked_at() {
    let mut harness = harness(1, 0);
    let mut records = minute_of("2.1", 0, 20, 20);
    records.iter_mut().for_each(|record| record.refused = Some((Reason::TooLate, "")));
    feed(&mut harness, &records);
    harness.raise(EventTime(MINUTE));
    assert!(steps(&harness.finish_epoch()).is_empty());
    feed(&mut harness, &minute_of("2.1", 0, 20, 20));
    harness.raise(EventTime(2 * MINUTE));
    assert!(steps(&harness.finish_epoch()).is_empty());
}

#[test]
fn the_same_log_makes_the_same_alerts_however_it_is_cut_into_epochs() {
    let mut log = Vec::new();
    let mut random = Random::new(99);
    for minute in 0..30 {
        for release in ["1.0", "1.1", "2.0"] {
            let records = random.below(40) as usize;
            let bad = if random.once_in(2) { records * 2 / 3 } else { random.below(records as u64 + 1) as usize / 6 };
            log.extend(minute_of(release, minute, records, bad));
        }
    }
    let mut answers = Vec::new();
    for run in 0..4 {
        let mut harness = harness(1 + run % 3, 2 * MINUTE);
        let (mut answer, mut log) = (Vec::new(), log.clone());
        while !log.is_empty() {
            let rest = log.split_off(log.len().min(1 + random.below(400) as usize));
            feed(&mut harness, &log);
            // Events may be two minutes late, which is how long a window settles.
            harness.raise(EventTime(log.last().unwrap().at - random.between(0, 2 * MINUTE)));
            let mut steps = steps(&harness.finish_epoch());
            steps.sort_by_key(|step| step.split(' ').next().map(|minute| minute.parse::<i64>().unwrap()));
            answer.extend(steps);
            if random.once_in(3) {
                harness.start(1 + random.below(2) as usize);
            }
            log = rest;
        }
        harness.raise(EventTime::MAX);
        answer.extend(steps(&harness.finish_epoch()));
        answer.sort();
        answers.push(answer);
    }
    assert!(answers[0].len() > 20, "{}: the log shows too little", answers[0].len());
    assert!(answers.iter().all(|answer| answer == &answers[0]), "{answers:#?}");
}
