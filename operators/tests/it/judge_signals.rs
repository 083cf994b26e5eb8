//! Every kind of fault from events to one alert on virtual time: the release at fault is named, and no other alert opens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, ListBuilder, MapBuilder, MapFieldNames, UInt16Builder};
use arrow_array::cast::AsArray;
use arrow_array::types::{TimestampMicrosecondType, UInt64Type};
use arrow_array::{ArrayRef, BinaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, UInt16Array, UInt32Array};
use weir_judge::settings::Settings;
use weir_operators::account::TopicNames;
use weir_operators::detect::policy::Policy;
use weir_operators::expr::Expr;
use weir_operators::judge::{CELLS_AT_ONCE, Court, Judge, Names, Raise, Telling};
use weir_operators::operator::{Context, Effects, Operator};
use weir_operators::profile::{
    Layout, ProfileCopies, ProfileEvents, ProfileRefused, SCHEMAS, SenderColumns, delay_bucket,
};
use weir_operators::rule::Rule;
use weir_operators::sequence::{KeySequence, Sequence, Tell};
use weir_operators::state::{StateRegistry, Store, StoreOptions};
use weir_schemas::fate::Reason;
use weir_schemas::stage::{Column, broken_rule_field, event_schema, marked_event_schema, system};
use weir_schemas::tables;
use weir_schemas::time::{Epoch, EventTime, Span};
use weir_schemas::types::{ColumnType, Width};

use crate::codes::coded;
use crate::detect::{Record, refused};
use crate::judge::{hand, rows_of};
use crate::sequence;

const WINDOW: Span = Span::from_ms(60_000);
const WINDOWS: i64 = 60;
/// The window in which the fault begins.
const BAD_FROM: i64 = 45;
const BAD: &str = "2.1.0";
const BYTES: usize = 64 << 20;

/// What is wrong with the bad release, or with all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    Null,
    Default,
    TextForNumber,
    Enum,
    Amounts,
    Property,
    NewType,
    VanishedType,
    Silence,
    Late,
    Clock,
    Schema,
    Rule,
    Copies,
    Refused,
    Lost,
}

/// A fault, the words that may name it in the alert, and the field that it is in.
const FAULTS: [(Wrong, &[&str], &str); 16] = [
    (Wrong::Null, &["null"], "amount"),
    (Wrong::Default, &["default value", "share of a range of numbers"], "items"),
    (Wrong::TextForNumber, &["other type than planned", "share of a value"], "country"),
    (Wrong::Enum, &["share of a value"], "country"),
    (Wrong::Amounts, &["share of a range of numbers"], "amount"),
    (Wrong::Property, &["share of a value", "default value"], "props"),
    (Wrong::NewType, &["share of the event type"], ""),
    (Wrong::VanishedType, &["share of the event type"], ""),
    (Wrong::Silence, &["number of events"], ""),
    (Wrong::Late, &["late"], ""),
    (Wrong::Clock, &["clock skew"], ""),
    (Wrong::Schema, &["schema id"], ""),
    (Wrong::Rule, &["breaks a rule"], ""),
    (Wrong::Copies, &["duplicate"], ""),
    (Wrong::Refused, &["refused"], ""),
    (Wrong::Lost, &["lost in transit"], "seq"),
];

fn columns() -> Vec<Column> {
    let text = |name: &str| Column::new(name, ColumnType::String);
    let mut columns: Vec<Column> =
        ["tenant", "type", "user", "sdk", "sdk_version", "app_version", "country"].map(text).into();
    columns.push(Column::new("amount", ColumnType::Float64.nullable()));
    columns.push(Column::new("items", ColumnType::Int(Width::W32)));
    columns.push(Column::new("props", ColumnType::Map(Box::new(ColumnType::String), Box::new(ColumnType::String))));
    columns
}

struct Event {
    version: &'static str,
    kind: &'static str,
    user: String,
    country: &'static str,
    amount: Option<f64>,
    items: i32,
    props: Vec<&'static str>,
    time: i64,
    recorded_ms: i64,
    schema: u32,
    breaks: bool,
}

fn event(window: i64, version: &'static str, wrong: Wrong, random: &mut fastrand::Rng) -> Event {
    let often = random.u8(0..10) < 6;
    let is = |of: Wrong, random: bool| wrong == of && random;
    let time = window * WINDOW.0 + random.i64(0..WINDOW.0);
    let kind = ["view", "view", "view", "view", "view", "search", "search", "buy", "buy", "buy"][random.usize(0..10)];
    let kind = match kind {
        "view" if is(Wrong::NewType, often) => "veiw",
        "buy" if wrong == Wrong::VanishedType => "view",
        kind => kind,
    };
    let country = ["DE", "DE", "US", "GB"][random.usize(0..4)];
    let amount = random.f64() * 90.0 + 1.0;
    let delay_ms = match wrong {
        Wrong::Late if often => 1_800_000,
        Wrong::Clock if often => -900_000,
        _ => 500,
    };
    Event {
        version,
        kind,
        user: format!("u{}", random.u32(0..800)),
        country: if is(Wrong::Enum, often) {
            "Germany"
        } else if is(Wrong::TextForNumber, often) {
            "49"
        } else {
            country
        },
        amount: (!is(Wrong::Null, often)).then_some(if is(Wrong::Amounts, often) { amount * 1_000.0 } else { amount }),
        items: if is(Wrong::Default, often) { 0 } else { random.i32(1..5) },
        props: if is(Wrong::Property, often) { vec!["cuontry"] } else { vec!["path", "device"] },
        time,
        recorded_ms: time / 1_000 + delay_ms,
        schema: if is(Wrong::Schema, often) { 12 } else { 7 },
        breaks: is(Wrong::Rule, often),
    }
}

fn events(window: i64, wrong: Wrong, random: &mut fastrand::Rng) -> Vec<Event> {
    let is_on = window >= BAD_FROM;
    let mut events = Vec::new();
    for version in ["1.0.0", "2.0.0", BAD] {
        let count = random.usize(140..180);
        let count = if wrong == Wrong::Silence && is_on { count / 12 } else { count };
        let wrong = if version == BAD && is_on { wrong } else { Wrong::Nothing };
        events.extend((0..count).map(|_| event(window, version, wrong, random)));
    }
    events.sort_by_key(|event| event.time);
    events
}

fn batch(events: &[&Event], first_offset: i64) -> RecordBatch {
    let text = |of: &dyn Fn(&Event) -> String| -> ArrayRef {
        let mut column = BinaryBuilder::new();
        events.iter().for_each(|event| column.append_value(of(event)));
        Arc::new(column.finish())
    };
    let names = MapFieldNames { entry: "entries".into(), key: "key".into(), value: "value".into() };
    let mut maps = MapBuilder::new(Some(names), BinaryBuilder::new(), BinaryBuilder::new())
        .with_keys_field(ColumnType::String.field("key"))
        .with_values_field(ColumnType::String.field("value"));
    let mut broken = ListBuilder::new(UInt16Builder::new()).with_field(broken_rule_field());
    for event in events {
        for key in &event.props {
            maps.keys().append_value(key);
            maps.values().append_value("x");
        }
        maps.append(true).unwrap();
        if event.breaks {
            broken.values().append_value(0);
        }
        broken.append(true);
    }
    let count = events.len();
    let offsets = first_offset..first_offset + count as i64;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt16Array::from(vec![0; count])),
        Arc::new(Int32Array::from(vec![0; count])),
        Arc::new(Int64Array::from_iter_values(offsets)),
        Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.recorded_ms))),
        Arc::new(UInt32Array::from_iter_values(events.iter().map(|event| event.schema))),
        Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.time))),
        text(&|_| "acme".to_owned()),
        text(&|event| event.kind.to_owned()),
        text(&|event| event.user.clone()),
        text(&|_| "web".to_owned()),
        text(&|event| event.version.to_owned()),
        text(&|_| String::new()),
        text(&|event| event.country.to_owned()),
        Arc::new(Float64Array::from_iter(events.iter().map(|event| event.amount))),
        Arc::new(Int32Array::from_iter_values(events.iter().map(|event| event.items))),
        Arc::new(maps.finish()),
        Arc::new(broken.finish()),
    ];
    RecordBatch::try_new(marked_event_schema(&event_schema(&self::columns())), columns).unwrap()
}

/// Devices of each release; each numbers its events.
const DEVICES: usize = 40;

fn device(event: &Event) -> String {
    format!("{}-{}", event.version, event.user.bytes().map(usize::from).sum::<usize>() % DEVICES)
}

/// The rule that the third column behind the system's counts up for each device in the second.
fn numbered() -> Rule {
    let column =
        |at: usize, name: &str, column_type| Expr::Column { index: system::COUNT + at, name: name.into(), column_type };
    let number = column(2, "seq", ColumnType::Int(Width::W64));
    sequence::rule(column(1, "device", ColumnType::String), number, None, Span(0), None)
}

/// The columns that sequences are read from: tenant, device, number and the release.
fn numbers(events: &[(&Event, i64)], first_offset: i64) -> RecordBatch {
    let text = |of: &dyn Fn(&Event) -> String| -> ArrayRef {
        Arc::new(BinaryArray::from_iter_values(events.iter().map(|(event, _)| of(event))))
    };
    let batch = batch(&events.iter().map(|(event, _)| *event).collect::<Vec<_>>(), first_offset);
    let mut columns = batch.columns()[..system::COUNT].to_vec();
    columns.extend([text(&|_| "acme".to_owned()), text(&device)]);
    columns.push(Arc::new(Int64Array::from_iter_values(events.iter().map(|(_, number)| *number))));
    columns.extend([text(&|_| "web".to_owned()), text(&|event| event.version.to_owned())]);
    let texts = ["tenant", "device", "sdk", "sdk_version"].map(|name| Column::new(name, ColumnType::String));
    let [tenant, device, sdk, sdk_version] = texts;
    let seq = Column::new("seq", ColumnType::Int(Width::W64));
    RecordBatch::try_new(event_schema(&[tenant, device, seq, sdk, sdk_version]), columns).unwrap()
}

fn layout() -> Layout {
    Layout::new(&columns(), 1, &["tenant", "type", "user", "sdk", "sdk_version", "app_version"])
}

/// A judging worker.
struct Bench {
    events: ProfileEvents,
    copies: ProfileCopies,
    refused: ProfileRefused,
    judge: Judge,
    raise: Raise,
    numbers: KeySequence,
    sequence: Sequence,
    /// The last number of each device.
    counted: BTreeMap<String, i64>,
    /// Which events are lost.
    lost: fastrand::Rng,
    /// What was written of shares, and the events of each window.
    shares: Vec<RecordBatch>,
    seen: BTreeMap<i64, Vec<Event>>,
    _store: (Arc<Store>, tempfile::TempDir),
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path(), StoreOptions::default()).unwrap());
        let registry = |name: &str| StateRegistry::new(store.clone(), name, 0, 1, Epoch(1)).unwrap();
        let layout = Arc::new(layout());
        let at = |column: usize| Some(system::COUNT + column);
        let senders = SenderColumns { tenant: at(0), event_type: at(1), user: at(2), release: [at(3), at(4), at(5)] };
        let settings = Settings { learn_windows: 20, ..Settings::default() };
        let court = Court { window: WINDOW, settle: Span(0), settings, cells_at_once: CELLS_AT_ONCE };
        let topics = vec![TopicNames { source: "shop".into(), topic: "events".into() }];
        let telling = Telling { layout: layout.clone(), rules: vec!["positive".to_owned()] };
        let names = Names { has_users: true, ..Names::default() };
        let at_release = |column: usize| Some(system::COUNT + column);
        let sender = weir_operators::detect::SenderColumns {
            tenant: at_release(0),
            sdk: at_release(3),
            sdk_version: at_release(4),
            app_version: None,
        };
        let (of, tell) = (numbered(), Tell::new(numbered(), false, topics.clone(), Some(WINDOW)));
        let of = sequence::sequencing(&of);
        Bench {
            events: ProfileEvents::new(layout.clone(), senders, WINDOW),
            copies: ProfileCopies::new(layout, senders, WINDOW),
            sequence: Sequence::new(&of, Span(0), tell, BYTES, &mut registry("sequence")).unwrap(),
            numbers: KeySequence::new(of, sender),
            counted: BTreeMap::new(),
            lost: fastrand::Rng::with_seed(29),
            shares: Vec::new(),
            seen: BTreeMap::new(),
            refused: ProfileRefused::new(WINDOW),
            judge: Judge::new(court.clone(), telling, "shop", BYTES, &mut registry("judge")).unwrap(),
            raise: Raise::new(court, names, "shop", Policy::default(), topics, BYTES, &mut registry("raise")).unwrap(),
            _store: (store, folder),
        }
    }

    /// Numbers each device's events; a fifth of the bad release's are lost then, where that is the fault.
    fn transport(&mut self, all: Vec<Event>, window: i64, wrong: Wrong) -> (Vec<Event>, Vec<i64>) {
        let is_lost = |event: &Event| wrong == Wrong::Lost && window >= BAD_FROM && event.version == BAD;
        let mut arrived = Vec::new();
        for event in all {
            let number = self.counted.entry(device(&event)).or_default();
            *number += 1;
            if !(is_lost(&event) && self.lost.u8(0..10) < 2) {
                arrived.push((event, *number));
            }
        }
        arrived.into_iter().unzip()
    }

    /// The cells of what sequences show.
    fn sequences(&mut self, numbers: &RecordBatch, end: EventTime) -> Vec<(usize, RecordBatch)> {
        let mut effects = Effects::default();
        self.numbers.on_batch(numbers.clone(), &mut Context::new(Epoch(1), end, &mut effects)).unwrap();
        let keyed = std::mem::take(&mut effects.emitted);
        // The watermark rises when the window's events are there.
        let start = EventTime(end.0 - WINDOW.0);
        for (_, batch) in keyed {
            self.sequence.on_batch(batch, &mut Context::new(Epoch(1), start, &mut effects)).unwrap();
        }
        self.sequence.end_of_epoch(&mut Context::new(Epoch(1), end, &mut effects)).unwrap();
        effects.emitted.into_iter().filter(|(output, _)| *output == 0).collect()
    }

    /// One window as one epoch; the steps of alerts that it made.
    fn window(&mut self, window: i64, wrong: Wrong, random: &mut fastrand::Rng) -> Vec<BTreeMap<String, String>> {
        let end = EventTime((window + 1) * WINDOW.0);
        let all = events(window, wrong, random);
        let (all, numbered) = self.transport(all, window, wrong);
        let lost: Vec<&Event> = all.iter().filter(|event| wrong == Wrong::Refused && is_bad(event, window)).collect();
        let kept: Vec<&Event> = all.iter().filter(|event| wrong != Wrong::Refused || !is_bad(event, window)).collect();
        let mut effects = Effects::default();
        let mut cx = Context::new(Epoch(1), end, &mut effects);
        self.events.on_batch(coded(&batch(&kept, window * 10_000), &layout()), &mut cx).unwrap();
        self.events.end_of_epoch(&mut cx).unwrap();
        let copies: Vec<&Event> = all.iter().filter(|event| wrong == Wrong::Copies && is_bad(event, window)).collect();
        if !copies.is_empty() {
            self.copies.on_batch(batch(&copies, window * 10_000 + 5_000), &mut cx).unwrap();
            self.copies.end_of_epoch(&mut cx).unwrap();
        }
        let records: Vec<Record> = (0..)
            .zip(&lost)
            .map(|(at, event)| Record {
                at: event.time,
                release: event.version,
                refused: Some((Reason::Rule, "positive")),
                offset: window * 10_000 + 7_000 + at,
            })
            .collect();
        if !records.is_empty() {
            self.refused.on_batch(refused(&records), &mut cx).unwrap();
            self.refused.end_of_epoch(&mut cx).unwrap();
        }
        let numbered: Vec<(&Event, i64)> = all.iter().zip(numbered).collect();
        effects.emitted.extend(self.sequences(&numbers(&numbered, window * 10_000), end));
        let effects = hand(&mut self.judge, effects, end);
        let shares = effects.changes.iter().filter(|changes| *changes.table == *tables::SHARES);
        self.shares.extend(shares.map(|changes| changes.rows.clone()));
        let effects = hand(&mut self.raise, effects, end);
        self.seen.insert(window * WINDOW.0, all);
        let history = effects.changes.into_iter().filter(|changes| *changes.table == *tables::ALERTS_HISTORY);
        history.flat_map(|changes| rows_of(&changes.rows)).collect()
    }
}

/// Of the bad release those that are refused, or come twice, where that is the fault.
fn is_bad(event: &Event, window: i64) -> bool {
    window >= BAD_FROM && event.version == BAD && event.user.len().is_multiple_of(2)
}

fn judged(wrong: Wrong) -> (Bench, Vec<BTreeMap<String, String>>) {
    let mut random = fastrand::Rng::with_seed(17);
    let mut bench = Bench::new();
    let told = (0..WINDOWS).flat_map(|window| bench.window(window, wrong, &mut random)).collect();
    (bench, told)
}

fn alerts_of(wrong: Wrong) -> Vec<BTreeMap<String, String>> {
    judged(wrong).1
}

/// Events of a release that show what a row of shares is about, counted once more, and of how many; nothing where it
/// takes more than a look at each event.
fn counted(wrong: Wrong, row: &BTreeMap<String, String>, events: &[Event], window: i64) -> (Option<u64>, Option<u64>) {
    let (code, kind) = (row["code"].parse::<u64>().unwrap(), row["event_type"].as_str());
    let own = || events.iter().filter(|event| event.version == row["sdk_version"]);
    let of_type = || own().filter(|event| kind.is_empty() || event.kind == kind);
    let count = |is_one: &dyn Fn(&Event) -> bool| Some(of_type().filter(|event| is_one(event)).count() as u64);
    let twice = || of_type().filter(|event| wrong == Wrong::Copies && is_bad(event, window)).count() as u64;
    let refused = own().filter(|event| wrong == Wrong::Refused && is_bad(event, window)).count() as u64;
    let delay = |event: &Event| u64::from(delay_bucket(event.recorded_ms - event.time / 1_000));
    let all = count(&|_| true);
    match row["indicator"].as_str() {
        "null" => (count(&|event| event.amount.is_none()), all),
        "default value" if row["field"] == "items" => (count(&|event| event.items == 0), all),
        "other type than planned" => (count(&|event| event.country == "49"), all),
        "clock skew" | "late" => (count(&|event| delay(event) == code), all),
        "schema id" => (count(&|event| u64::from(event.schema) % u64::from(SCHEMAS) == code), all),
        "breaks a rule" => (count(&|event| event.breaks), all),
        "share of the event type" | "number of events" => (all, Some(own().count() as u64)),
        "duplicate" => (Some(twice()), all.map(|all| all + twice())),
        "refused" => (Some(refused), Some(own().count() as u64)),
        _ => (None, None),
    }
}

/// The rows of shares as text by column.
fn shares_of(bench: &Bench) -> Vec<BTreeMap<String, String>> {
    let rows = |batch: &RecordBatch| {
        let mut rows = rows_of(batch);
        for (at, row) in rows.iter_mut().enumerate() {
            for name in ["code", "affected", "records"] {
                let column = batch.column_by_name(name).unwrap().as_primitive::<UInt64Type>();
                row.insert(name.to_owned(), column.value(at).to_string());
            }
            let start = batch.column(0).as_primitive::<TimestampMicrosecondType>().value(at);
            row.insert("window_start".to_owned(), start.to_string());
        }
        rows
    };
    bench.shares.iter().flat_map(rows).collect()
}

#[test]
fn shares_by_release_are_those_of_the_events() {
    for (wrong, words, _) in FAULTS {
        let (bench, told) = judged(wrong);
        let shares = shares_of(&bench);
        let of_alert: Vec<_> = shares.iter().filter(|row| words.contains(&row["indicator"].as_str())).collect();
        let releases: BTreeSet<&str> = of_alert.iter().map(|row| row["sdk_version"].as_str()).collect();
        assert_eq!(releases, ["1.0.0", "2.0.0", BAD].into(), "{wrong:?}: the others say what is usual");
        let mut checked = 0;
        for row in &shares {
            let start: i64 = row["window_start"].parse().unwrap();
            let (affected, records) = counted(wrong, row, &bench.seen[&start], start / WINDOW.0);
            let is = |name: &str, counted: Option<u64>| counted.is_none_or(|of| of.to_string() == row[name]);
            assert!(
                is("affected", affected) && is("records", records),
                "{wrong:?}: {affected:?} of {records:?}: {row:#?}"
            );
            assert_eq!((row["source"].as_str(), row["tenant"].as_str(), row["sdk"].as_str()), ("shop", "acme", "web"));
            checked += u64::from(affected.is_some());
        }
        // Of a value's bucket, a range and numbers in sequence the events alone don't say.
        let is_checked = checked > 0 || [Wrong::Enum, Wrong::Amounts, Wrong::Property, Wrong::Lost].contains(&wrong);
        assert!(is_checked, "{wrong:?}");
        // The alert's own query asks for them, where no events are kept.
        let asks = told.iter().filter(|row| row["query"].contains("FROM weir_shares AS e")).count();
        assert_eq!(asks > 0, ![Wrong::Refused, Wrong::Lost].contains(&wrong), "{wrong:?}");
        let share = |row: &&BTreeMap<String, String>| {
            row["affected"].parse::<f64>().unwrap() / row["records"].parse::<f64>().unwrap()
        };
        if wrong == Wrong::Lost {
            let lost: Vec<f64> = of_alert.iter().filter(|row| row["sdk_version"] == BAD).map(share).collect();
            assert!(lost.iter().any(|share| (0.1..0.3).contains(share)), "{lost:?}");
            assert!(of_alert.iter().filter(|row| row["sdk_version"] != BAD).all(|row| row["affected"] == "0"));
        }
    }
    assert!(judged(Wrong::Nothing).0.shares.is_empty(), "nothing is written of what is in order");
}

#[test]
fn every_kind_of_fault_is_one_alert_that_names_its_release() {
    let mut failed = Vec::new();
    for (wrong, words, field) in FAULTS {
        let told = alerts_of(wrong);
        let fingerprints: BTreeSet<&String> = told.iter().map(|row| &row["fingerprint"]).collect();
        let opened = told.iter().find(|row| row["status"] == "open");
        let said = opened.map(|row| (row["cause"].as_str(), row["indicator"].as_str(), row["detail"].as_str()));
        println!("{wrong:?}: {} alerts, {} steps: {said:?}", fingerprints.len(), told.len());
        let is_right = opened.is_some_and(|row| {
            let of_release = (row["sdk_version"] == BAD) != (wrong == Wrong::Silence);
            of_release && words.contains(&row["indicator"].as_str()) && row["fields"] == field
        });
        if fingerprints.len() != 1 || !is_right {
            failed.push((wrong, told));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(alerts_of(Wrong::Nothing), Vec::new());
}
