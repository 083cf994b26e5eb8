//! From events to alerts on virtual time: a release that stops to send a field is named, once, and no other.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::UInt16Type;
use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, UInt16Array, UInt32Array,
};
use arrow_select::filter::filter_record_batch;
use weir_judge::settings::Settings;
use weir_operators::account::TopicNames;
use weir_operators::detect::policy::Policy;
use weir_operators::judge::{CELLS_AT_ONCE, Court, Judge, Names, Raise, Telling};
use weir_operators::operator::{Context, Effects, Operator};
use weir_operators::profile::{GROUP, Layout, ProfileEvents, SenderColumns};
use weir_operators::route::worker_of;
use weir_operators::state::{StateRegistry, Store, StoreOptions};
use weir_schemas::stage::{Column, event_schema, system};
use weir_schemas::tables;
use weir_schemas::time::{Epoch, EventTime, Span};
use weir_schemas::types::{ColumnType, Width};

use crate::codes::coded;

const WINDOW: Span = Span::from_ms(60_000);
/// Of 60 windows, the one in which the bad release begins to be bad.
const BAD_FROM: i64 = 45;
const BYTES: usize = 64 << 20;

fn columns() -> Vec<Column> {
    let text = |name: &str| Column::new(name, ColumnType::String);
    let mut columns: Vec<Column> = ["tenant", "type", "user", "sdk", "sdk_version", "app_version"].map(text).into();
    columns.push(Column::new("amount", ColumnType::Float64.nullable()));
    columns.push(Column::new("items", ColumnType::Int(Width::W32)));
    columns
}

/// A window's events: two tenants, three releases; from [`BAD_FROM`] on `bad` sends its amount in four of ten events.
fn events(window: i64, bad: &str, random: &mut fastrand::Rng) -> RecordBatch {
    let mut rows = Vec::new();
    for tenant in ["north", "south"] {
        for version in ["1.0.0", "2.0.0", "2.1.0"] {
            for _ in 0..random.usize(120..180) {
                let is_bad = version == bad && window >= BAD_FROM;
                let is_null = random.f64() < if is_bad { 0.6 } else { 0.02 };
                let user = format!("{tenant}-{}", random.u32(0..400));
                rows.push((tenant, version, user, (!is_null).then(|| random.f64() * 90.0 + 1.0), random.i32(1..5)));
            }
        }
    }
    random.shuffle(&mut rows);
    let text = |of: &dyn Fn(usize) -> String| -> ArrayRef {
        let mut column = BinaryBuilder::new();
        (0..rows.len()).for_each(|row| column.append_value(of(row)));
        Arc::new(column.finish())
    };
    let count = rows.len();
    let time = |row: usize| window * WINDOW.0 + row as i64 * (WINDOW.0 / count as i64);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt16Array::from(vec![0; count])),
        Arc::new(Int32Array::from(vec![0; count])),
        Arc::new(Int64Array::from_iter_values((0..count as i64).map(|row| window * 10_000 + row))),
        Arc::new(Int64Array::from_iter_values((0..count).map(|row| time(row) / 1_000 + 500))),
        Arc::new(UInt32Array::from(vec![7; count])),
        Arc::new(Int64Array::from_iter_values((0..count).map(time))),
        text(&|row| rows[row].0.to_owned()),
        text(&|_| "purchase".to_owned()),
        text(&|row| rows[row].2.clone()),
        text(&|_| "android".to_owned()),
        text(&|row| rows[row].1.to_owned()),
        text(&|_| "7.1".to_owned()),
        Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.3))),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.4))),
    ];
    coded(&RecordBatch::try_new(event_schema(&self::columns()), columns).unwrap(), &layout())
}

fn layout() -> Arc<Layout> {
    Arc::new(Layout::new(&columns(), 0, &["tenant", "type", "user", "sdk", "sdk_version", "app_version"]))
}

fn senders() -> SenderColumns {
    let at = |column: usize| Some(system::COUNT + column);
    SenderColumns { tenant: at(0), event_type: at(1), user: at(2), release: [at(3), at(4), at(5)] }
}

/// A judging worker: its operators and where they keep their state.
struct Bench {
    profile: ProfileEvents,
    judges: Vec<Judge>,
    raise: Raise,
    /// Epochs in which a window was judged on.
    later: usize,
    _store: (Arc<Store>, tempfile::TempDir),
}

impl Bench {
    /// With `judges` workers that judge.
    fn new(cells_at_once: usize, judges: usize) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path(), StoreOptions::default()).unwrap());
        let registry = |name: &str, worker: usize, peers: usize| {
            StateRegistry::new(store.clone(), name, worker, peers, Epoch(1)).unwrap()
        };
        let layout = layout();
        let settings = Settings { learn_windows: 20, ..Settings::default() };
        let court = Court { window: WINDOW, settle: Span(0), settings, cells_at_once };
        let topics = vec![TopicNames { source: "shop".into(), topic: "events".into() }];
        let field = |name: &str| Some(name.to_owned());
        let names = Names {
            events: field("events"),
            tenant: field("tenant"),
            event_type: field("type"),
            release: [field("sdk"), field("sdk_version"), field("app_version")],
            has_users: true,
        };
        let telling = Telling { layout: layout.clone(), rules: Vec::new() };
        let judge = |worker: usize| {
            let mut registry = registry("judge", worker, judges);
            Judge::new(court.clone(), telling.clone(), "shop", BYTES, &mut registry).unwrap()
        };
        let policy = Policy::default();
        Bench {
            profile: ProfileEvents::new(layout, senders(), WINDOW),
            judges: (0..judges).map(judge).collect(),
            raise: Raise::new(court.clone(), names, "shop", policy, topics, BYTES, &mut registry("raise", 0, 1))
                .unwrap(),
            later: 0,
            _store: (store, folder),
        }
    }

    /// Takes batches as one epoch; the rows of the history of alerts that it wrote.
    fn epoch(&mut self, batches: &[RecordBatch], watermark: EventTime) -> Vec<BTreeMap<String, String>> {
        let mut effects = Effects::default();
        let mut cx = Context::new(Epoch(1), watermark, &mut effects);
        batches.iter().for_each(|batch| self.profile.on_batch(batch.clone(), &mut cx).unwrap());
        self.profile.end_of_epoch(&mut cx).unwrap();
        let mut effects = self.judge(effects, watermark);
        let mut told = Vec::new();
        loop {
            let behind = effects.behind;
            // The watermark is that of who goes on after a kill: the judge has left something for later, and it is known.
            let raised = hand(&mut self.raise, effects, watermark);
            let history = raised.changes.into_iter().filter(|changes| *changes.table == *tables::ALERTS_HISTORY);
            told.extend(history.flat_map(|changes| rows_of(&changes.rows)));
            if behind.is_none() {
                return told;
            }
            self.later += 1;
            effects = self.judge(Effects::default(), watermark);
        }
    }

    /// Gives each judge the cells of its key groups; what all of them emitted.
    fn judge(&mut self, cells: Effects, watermark: EventTime) -> Effects {
        let peers = self.judges.len();
        let mut all = Effects::default();
        for (worker, judge) in self.judges.iter_mut().enumerate() {
            let mut of_worker = Effects::default();
            for (output, batch) in &cells.emitted {
                let groups = batch.column(GROUP).as_primitive::<UInt16Type>().values().iter();
                let is_here: BooleanArray = groups.map(|group| Some(worker_of(*group, peers) == worker)).collect();
                of_worker.emitted.push((*output, filter_record_batch(batch, &is_here).unwrap()));
            }
            let judged = hand(judge, of_worker, watermark);
            all.emitted.extend(judged.emitted);
            all.behind = all.behind.or(judged.behind);
        }
        all
    }
}

/// Gives an operator what the one before it emitted.
pub(crate) fn hand(operator: &mut dyn Operator, from: Effects, watermark: EventTime) -> Effects {
    let mut effects = Effects::default();
    let mut cx = Context::new(Epoch(1), watermark, &mut effects);
    for (_, batch) in from.emitted {
        operator.on_batch(batch, &mut cx).unwrap();
    }
    operator.end_of_epoch(&mut cx).unwrap();
    effects
}

/// The columns of text of each row, by name; lists joined by commas.
pub(crate) fn rows_of(batch: &RecordBatch) -> Vec<BTreeMap<String, String>> {
    let schema = batch.schema();
    let value = |column: usize, row: usize| {
        let column = batch.column(column);
        if let Some(texts) = column.as_binary_opt::<i32>() {
            return String::from_utf8_lossy(texts.value(row)).into_owned();
        }
        let Some(lists) = column.as_list_opt::<i32>() else { return String::new() };
        let texts = lists.value(row);
        let texts = texts.as_binary::<i32>().iter().flatten().map(|text| String::from_utf8_lossy(text).into_owned());
        texts.collect::<Vec<_>>().join(",")
    };
    let row = |row: usize| {
        schema.fields().iter().enumerate().map(|(at, field)| (field.name().clone(), value(at, row))).collect()
    };
    (0..batch.num_rows()).map(row).collect()
}

fn alerts_of(bad: &str, batches_of_a_window: usize) -> Vec<BTreeMap<String, String>> {
    told_by(&mut Bench::new(CELLS_AT_ONCE, 1), bad, batches_of_a_window)
}

fn told_by(bench: &mut Bench, bad: &str, batches_of_a_window: usize) -> Vec<BTreeMap<String, String>> {
    let mut random = fastrand::Rng::with_seed(3);
    let mut told = Vec::new();
    for window in 0..60 {
        let all = events(window, bad, &mut random);
        let part = all.num_rows().div_ceil(batches_of_a_window);
        let parts: Vec<RecordBatch> =
            (0..all.num_rows()).step_by(part).map(|at| all.slice(at, part.min(all.num_rows() - at))).collect();
        told.extend(bench.epoch(&parts, EventTime((window + 1) * WINDOW.0)));
    }
    told
}

#[test]
fn a_release_that_stops_to_send_a_field_is_named_once_and_alone() {
    let told = alerts_of("2.1.0", 1);
    let fingerprints: std::collections::BTreeSet<&String> = told.iter().map(|row| &row["fingerprint"]).collect();
    assert_eq!(fingerprints.len(), 1, "{told:#?}");
    let opened: Vec<_> = told.iter().filter(|row| row["status"] == "open").collect();
    let [opened] = opened[..] else { panic!("{told:#?}") };
    assert_eq!((opened["sdk"].as_str(), opened["sdk_version"].as_str()), ("android", "2.1.0"));
    assert!(opened["last_good_release"].contains("2.0.0"), "{opened:#?}");
    assert_eq!(opened["fields"], "amount");
    assert!(opened["detail"].starts_with("amount is null in "), "{opened:#?}");
    assert!(opened["first_place"].starts_with("events/0@"), "{opened:#?}");
    assert!(told.iter().all(|row| row["status"] != "resolved"), "it goes on: {told:#?}");
}

#[test]
fn the_same_log_tells_the_same_alerts_however_it_is_cut() {
    assert_eq!(alerts_of("2.1.0", 1), alerts_of("2.1.0", 7));
}

#[test]
fn a_window_that_is_judged_in_slices_is_told_when_all_of_it_was_judged() {
    let mut slices = Bench::new(1, 1);
    assert_eq!(told_by(&mut slices, "2.1.0", 1), alerts_of("2.1.0", 1));
    assert_eq!(slices.later, 60, "two tenants are two slices");
}

/// The alerts where the run ends when the bad release has begun to be bad, with so many judges.
fn told_at_the_end(judges: usize) -> Vec<BTreeMap<String, String>> {
    let mut bench = Bench::new(CELLS_AT_ONCE, judges);
    let mut random = fastrand::Rng::with_seed(3);
    let mut told = Vec::new();
    for window in 0..BAD_FROM + 2 {
        let watermark = window.min(BAD_FROM) * WINDOW.0;
        told.extend(bench.epoch(&[events(window, "2.1.0", &mut random)], EventTime(watermark)));
    }
    assert_eq!(told, Vec::new(), "the windows that show it are open");
    bench.epoch(&[], EventTime::MAX)
}

#[test]
fn the_end_of_a_run_tells_what_its_last_windows_show_with_any_number_of_judges() {
    let told = told_at_the_end(1);
    assert!(!told.is_empty());
    // Most of these judge no tenant at all.
    assert_eq!(told_at_the_end(7), told);
}

/// Counts half a window by one layout, restarts, and ends the window by `then`; how many tenants are judged.
fn judged_after_a_restart(then: &Telling) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path(), StoreOptions::default()).unwrap());
    let settings = Settings { learn_windows: 20, ..Settings::default() };
    let court = Court { window: WINDOW, settle: Span(0), settings, cells_at_once: CELLS_AT_ONCE };
    let first = Telling { layout: layout(), rules: Vec::new() };
    let mut profile = ProfileEvents::new(layout(), senders(), WINDOW);
    let mut registry = StateRegistry::new(store.clone(), "judge", 0, 1, Epoch(1)).unwrap();
    let mut judge = Judge::new(court.clone(), first, "shop", BYTES, &mut registry).unwrap();
    let (mut effects, within) = (Effects::default(), EventTime(WINDOW.0 / 2));
    let mut cx = Context::new(Epoch(1), within, &mut effects);
    profile.on_batch(events(0, "none", &mut fastrand::Rng::with_seed(1)), &mut cx).unwrap();
    profile.end_of_epoch(&mut cx).unwrap();
    assert_eq!(findings(hand(&mut judge, effects, within)), 0);
    let mut writes = store.writes();
    registry.freeze(Epoch(1)).unwrap().iter().for_each(|changes| changes.write_into(&mut writes));
    store.commit(writes, Epoch(1)).unwrap();
    drop((judge, registry));
    let mut registry = StateRegistry::new(store.clone(), "judge", 0, 1, Epoch(2)).unwrap();
    let mut judge = Judge::new(court, then.clone(), "shop", BYTES, &mut registry).unwrap();
    findings(hand(&mut judge, Effects::default(), EventTime(WINDOW.0)))
}

/// How many tenants' windows were judged.
fn findings(of: Effects) -> usize {
    of.emitted.iter().map(|(_, batch)| batch.num_rows() - batch.column(2).null_count()).sum()
}

#[test]
fn a_window_whose_cells_were_counted_by_other_slots_is_not_judged() {
    let same = Telling { layout: layout(), rules: Vec::new() };
    assert_eq!(judged_after_a_restart(&same), 2);
    let rules = vec!["amounts_are_positive".to_owned()];
    assert_eq!(judged_after_a_restart(&Telling { rules, ..same }), 0);
}

#[test]
fn nothing_is_told_where_nothing_is_wrong() {
    assert_eq!(alerts_of("none", 2), Vec::new());
}
