//! Profiles against a naive recount, event by event, whatever the batches and workers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, MapBuilder, MapFieldNames};
use arrow_array::{
    ArrayRef, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, UInt16Array, UInt32Array,
};
use weir_operators::operator::{Context, Effects, Operator};
use weir_operators::profile::{
    CELLS_MAX, Cell, CellKey, Indicator, Kind, Layout, ProfileEvents, SenderColumns, delay_bucket, magnitude,
    read_cells, window_of,
};
use weir_schemas::stage::{Column, event_schema, profile_codes, system};
use weir_schemas::time::{Epoch, EventTime, Span};
use weir_schemas::types::ColumnType;
use xxhash_rust::xxh3::xxh3_64;

use crate::codes::coded;

const WINDOW: Span = Span::from_ms(60_000);

#[derive(Clone)]
struct Event {
    offset: i64,
    time_ms: i64,
    recorded_ms: i64,
    schema: u32,
    texts: [Option<String>; 3],
    amount: Option<i128>,
    score: f64,
    props: Vec<(String, String)>,
}

fn columns() -> Vec<Column> {
    let text = || ColumnType::String;
    vec![
        Column::new("tenant", text()),
        Column::new("type", text().nullable()),
        Column::new("country", text().nullable()),
        Column::new("amount", ColumnType::Decimal(18, 2).nullable()),
        Column::new("score", ColumnType::Float64),
        Column::new("props", ColumnType::Map(Box::new(text()), Box::new(text()))),
    ]
}

fn random_event(random: &mut fastrand::Rng, offset: i64) -> Event {
    let mut pick = |of: &[&str]| of[random.usize(0..of.len())].to_owned();
    let texts =
        [Some(pick(&["a", "b"])), Some(pick(&["view", "buy"])), Some(pick(&["", "12", "GB", "DE", "-1.5", "1.2.3"]))];
    let keys = ["x", "y", "country"];
    let props = keys.iter().filter(|_| random.bool()).map(|key| ((*key).to_owned(), "v".to_owned())).collect();
    let time_ms = random.i64(1_000_000..1_180_000);
    Event {
        offset,
        time_ms,
        recorded_ms: time_ms + random.i64(-100_000..4_000_000),
        schema: random.u32(0..20),
        texts: texts.map(|text| text.filter(|_| random.u8(0..4) > 0)),
        amount: random.bool().then(|| random.i128(-5..100_000) * random.i128(0..2)),
        score: if random.bool() { 0.0 } else { random.f64() * 1e6 },
        props,
    }
}

fn batch(events: &[Event]) -> RecordBatch {
    let text = |at: usize| -> ArrayRef {
        let mut column = BinaryBuilder::new();
        events.iter().for_each(|event| match (&event.texts[at], at) {
            (Some(text), _) => column.append_value(text),
            (None, 0) => column.append_value(""),
            (None, _) => column.append_null(),
        });
        Arc::new(column.finish())
    };
    let names = MapFieldNames { entry: "entries".into(), key: "key".into(), value: "value".into() };
    let mut maps = MapBuilder::new(Some(names), BinaryBuilder::new(), BinaryBuilder::new())
        .with_keys_field(ColumnType::String.field("key"))
        .with_values_field(ColumnType::String.field("value"));
    for event in events {
        for (key, value) in &event.props {
            maps.keys().append_value(key);
            maps.values().append_value(value);
        }
        maps.append(true).unwrap();
    }
    let amounts = Decimal128Array::from_iter(events.iter().map(|event| event.amount));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt16Array::from_iter_values(events.iter().map(|_| 0))),
        Arc::new(Int32Array::from_iter_values(events.iter().map(|event| (event.offset % 3) as i32))),
        Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.offset))),
        Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.recorded_ms))),
        Arc::new(UInt32Array::from_iter_values(events.iter().map(|event| event.schema))),
        Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.time_ms * 1_000))),
        text(0),
        text(1),
        text(2),
        Arc::new(amounts.with_precision_and_scale(18, 2).unwrap()),
        Arc::new(Float64Array::from_iter_values(events.iter().map(|event| event.score))),
        Arc::new(maps.finish()),
    ];
    RecordBatch::try_new(event_schema(&self::columns()), columns).unwrap()
}

type Profile = BTreeMap<(i64, CellKey), Cell>;

/// What profiles say of `parts`, each a worker's batches of several epochs.
fn profiled(layout: &Arc<Layout>, parts: &[Vec<Vec<Event>>]) -> Profile {
    let senders = SenderColumns {
        tenant: Some(system::COUNT),
        event_type: Some(system::COUNT + 1),
        user: Some(system::COUNT + 2),
        ..SenderColumns::default()
    };
    let mut found = Profile::new();
    for batches in parts {
        let mut operator = ProfileEvents::new(layout.clone(), senders, WINDOW);
        for (at, events) in batches.iter().enumerate() {
            let mut effects = Effects::default();
            let mut cx = Context::new(Epoch(1), EventTime::MIN, &mut effects);
            operator.on_batch(coded(&batch(events), layout), &mut cx).unwrap();
            if at % 2 == 1 || at + 1 == batches.len() {
                operator.end_of_epoch(&mut cx).unwrap();
            }
            for (_, cells) in effects.emitted {
                read_cells(&cells, |_, window, key, cell| cell.add_to(found.entry((window, key)).or_default()))
                    .unwrap();
            }
        }
    }
    found
}

/// The same counts, one event at a time.
fn recount(layout: &Layout, events: &[Event]) -> BTreeMap<(i64, CellKey), BTreeMap<usize, u32>> {
    let mut found: BTreeMap<_, BTreeMap<usize, u32>> = BTreeMap::new();
    let batch = coded(&batch(events), layout);
    let codes = profile_codes(&batch).unwrap();
    for (row, event) in events.iter().enumerate() {
        let part = |at: usize| event.texts[at].clone().unwrap_or_default().into_bytes();
        let key = CellKey { tenant: part(0), event_type: part(1), release: Default::default() };
        let counts = found.entry((window_of(event.time_ms * 1_000, WINDOW), key)).or_default();
        for slot in 0..layout.slots() {
            let (field, indicator) = layout.indicator(slot);
            let text = match field.map(|field| field.name.as_str()) {
                Some("tenant") => Some(event.texts[0].clone().unwrap_or_default()),
                Some("type") => event.texts[1].clone(),
                Some("country") => event.texts[2].clone(),
                _ => None,
            };
            let number = match field.map(|field| field.name.as_str()) {
                Some("amount") => event.amount.map(|amount| amount as f64 / 100.0),
                Some("score") => Some(event.score),
                _ => None,
            };
            let is_map = field.is_some_and(|field| field.name == "props");
            let keys: BTreeSet<u8> = event.props.iter().map(|(key, _)| (xxh3_64(key.as_bytes()) % 16) as u8).collect();
            let holds = match indicator {
                Indicator::Events => true,
                Indicator::Copies => false,
                Indicator::Delay(bucket) => delay_bucket(event.recorded_ms - event.time_ms) == bucket,
                Indicator::Schema(bucket) => event.schema % 8 == u32::from(bucket),
                Indicator::Rule(_) => false,
                Indicator::Null => text.is_none() && number.is_none() && !is_map,
                Indicator::Default if is_map => keys.is_empty(),
                Indicator::Default => text.as_deref() == Some("") || number == Some(0.0),
                Indicator::NumericText => ["12", "-1.5"].contains(&text.as_deref().unwrap_or_default()),
                Indicator::Bucket(bucket) => match (text, number) {
                    (Some(text), _) => (xxh3_64(text.as_bytes()) % 16) as u8 == bucket,
                    (_, Some(number)) => magnitude(number) == bucket,
                    _ => false,
                },
                Indicator::Key(bucket) => keys.contains(&bucket),
            };
            if let Some(field) = field.filter(|field| indicator == Indicator::Null || field.kind != Kind::Opaque) {
                let asked = field.holds(codes.value(row), indicator);
                assert_eq!(asked, holds, "{} {indicator:?} of {:?}", field.name, event.texts);
            }
            if holds {
                *counts.entry(slot).or_default() += 1;
            }
        }
    }
    found
}

#[test]
fn a_profile_is_the_naive_recount_however_events_are_spread() {
    let layout = Arc::new(Layout::new(&columns(), 1, &["tenant", "type"]));
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..20 {
        let events: Vec<Event> = (0..400).map(|offset| random_event(&mut random, offset)).collect();
        let one = profiled(&layout, &[vec![events.clone()]]);
        let mut shuffled = events.clone();
        random.shuffle(&mut shuffled);
        let spread: Vec<Vec<Vec<Event>>> =
            shuffled.chunks(133).map(|part| part.chunks(31).map(<[Event]>::to_vec).collect()).collect();
        assert_eq!(profiled(&layout, &spread), one);

        let expected = recount(&layout, &events);
        assert_eq!(one.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (key, counts) in &expected {
            let cell = &one[key];
            for slot in 0..layout.slots() {
                let wanted = counts.get(&slot).copied().unwrap_or(0);
                assert_eq!(cell.count(slot), wanted, "{key:?}: {:?}", layout.indicator(slot));
            }
        }
    }
}

#[test]
fn tenants_that_senders_make_up_take_no_more_memory_than_the_bound_and_still_add_up() {
    let layout = Arc::new(Layout::new(&columns(), 1, &["tenant", "type"]));
    let mut random = fastrand::Rng::with_seed(9);
    let made_up = 3 * CELLS_MAX as i64;
    let events: Vec<Event> = (0..made_up)
        .map(|offset| {
            let mut event = random_event(&mut random, offset);
            // Each tenant twice, far apart.
            event.texts[0] = Some(format!("tenant {}", offset % (made_up / 2)));
            event
        })
        .collect();
    let senders = SenderColumns { tenant: Some(system::COUNT), ..SenderColumns::default() };
    let mut operator = ProfileEvents::new(layout.clone(), senders, Span::from_ms(3_600_000));
    let (mut most, mut found) = (0, Profile::new());
    for events in events.chunks(500).map(Some).chain([None]) {
        let mut effects = Effects::default();
        let mut cx = Context::new(Epoch(1), EventTime::MIN, &mut effects);
        match events {
            Some(events) => operator.on_batch(coded(&batch(events), &layout), &mut cx).unwrap(),
            None => operator.end_of_epoch(&mut cx).unwrap(),
        }
        for (_, cells) in effects.emitted {
            most = most.max(cells.num_rows());
            read_cells(&cells, |_, window, key, cell| cell.add_to(found.entry((window, key)).or_default())).unwrap();
        }
    }
    assert!(most <= CELLS_MAX + 500, "{most} cells were kept at once");
    assert_eq!(found.len() as i64, made_up / 2);
    let slot = (0..layout.slots()).find(|&slot| layout.indicator(slot).1 == Indicator::Events).unwrap();
    assert!(found.values().all(|cell| cell.count(slot) == 2));
}
