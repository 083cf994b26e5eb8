//! Plans against a slow answer: each event by itself, looked up in the plan as it was written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, MapBuilder};
use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch};
use arrow_schema::Schema;
use weir_operators::expr::{Comparison, Expr, Function, Scalar};
use weir_operators::plan::{Claims, Keys, Plan, Scope};
use weir_schemas::types::{ColumnType, Width};

use crate::harness::{Random, seeds};

const VERSIONS: [&str; 3] = ["1", "2", "3"];
const TYPES: [&str; 4] = ["a", "b", "c", "d"];
const KEYS: [&str; 4] = ["k", "l", "m", "n"];

struct Event {
    version: Option<&'static str>,
    event_type: &'static str,
    amounts: [i64; 2],
    keys: Vec<&'static str>,
}

/// What a version asks of a type: amount at `column` is at least `least`, by the rule's index.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    conditions: Vec<(usize, usize, i64)>,
    keys: Option<BTreeSet<&'static str>>,
}

type Written = BTreeMap<(usize, &'static str), Asked>;

fn column(index: usize, column_type: ColumnType) -> Expr {
    Expr::Column { index, name: format!("c{index}"), column_type }
}

fn at_least(index: usize, least: i64) -> Expr {
    let value = Expr::Literal { value: Scalar::Int(least), column_type: ColumnType::Int(Width::W64) };
    let amount = column(index, ColumnType::Int(Width::W64));
    Expr::call(Function::Compare(Comparison::GreaterOrEqual), vec![amount, value]).unwrap()
}

/// Columns: type, version, two amounts, a map.
fn batch(events: &[Event]) -> RecordBatch {
    let map = ColumnType::Map(Box::new(ColumnType::String), Box::new(ColumnType::String));
    let mut maps = MapBuilder::new(None, BinaryBuilder::new(), BinaryBuilder::new());
    for event in events {
        for key in &event.keys {
            maps.keys().append_value(key);
            maps.values().append_value("v");
        }
        maps.append(true).unwrap();
    }
    let maps = maps.finish();
    let offsets = maps.offsets().clone();
    let arrow_schema::DataType::Map(entries, _) = map.arrow() else { panic!("a map") };
    let arrow_schema::DataType::Struct(fields) = entries.data_type() else { panic!("entries") };
    let entry_values = vec![maps.keys().clone(), maps.values().clone()];
    let entry_values = arrow_array::StructArray::try_new(fields.clone(), entry_values, None).unwrap();
    let maps = arrow_array::MapArray::try_new(entries.clone(), offsets, entry_values, None, false).unwrap();
    let amount = |at: usize| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.amounts[at])))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BinaryArray::from_iter_values(events.iter().map(|event| event.event_type))),
        Arc::new(BinaryArray::from_iter(events.iter().map(|event| event.version))),
        amount(0),
        amount(1),
        Arc::new(maps),
    ];
    let number = ColumnType::Int(Width::W64);
    let types = [ColumnType::String, ColumnType::String.nullable(), number.clone(), number, map];
    let fields: Vec<_> = types.iter().enumerate().map(|(at, of)| of.field(&format!("c{at}"))).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// Rules 0 to 5 are conditions; 6 is the version's, 7 the type's, 8 the keys'.
const VERSION_RULE: usize = 6;
const TYPE_RULE: usize = 7;
const KEYS_RULE: usize = 8;

fn random_plan(random: &mut Random) -> Written {
    let mut written = Written::new();
    for version in 0..VERSIONS.len() {
        for event_type in TYPES.into_iter().take(3) {
            if random.once_in(4) {
                continue;
            }
            let rules = (0..6).filter(|_| random.once_in(2)).collect::<Vec<_>>();
            let conditions = rules.into_iter().map(|rule| (rule, 2 + rule % 2, rule as i64 * 3 - 6)).collect();
            let keys = (!random.once_in(2)).then(|| KEYS.into_iter().filter(|_| random.once_in(2)).collect());
            written.insert((version, event_type), Asked { conditions, keys });
        }
    }
    written
}

fn bound(written: &Written, unknown_as: Option<usize>, open: [bool; 3]) -> Plan {
    let versions = VERSIONS.map(str::to_owned);
    let mut claims = Claims::new(0, column(1, ColumnType::String.nullable()), &versions, unknown_as);
    let mut distinct: Vec<&Asked> = Vec::new();
    for ((version, event_type), asked) in written {
        let scope = distinct.iter().position(|known| *known == asked).unwrap_or_else(|| {
            distinct.push(asked);
            distinct.len() - 1
        });
        claims.add(*version, event_type, scope);
    }
    let scopes = distinct.iter().map(|asked| {
        let conditions = asked.conditions.iter().map(|(rule, column, least)| (*rule, at_least(*column, *least)));
        Scope::new(&conditions.collect::<Vec<_>>())
    });
    let scopes = scopes.collect();
    let keys = |asked: &&Asked| asked.keys.as_ref().map(|keys| vec![keys.iter().map(ToString::to_string).collect()]);
    let planned = distinct.iter().map(keys).collect();
    let claims = Arc::new(claims);
    let keys = Keys::new(Arc::clone(&claims), vec![("c4".to_owned(), 4)], planned);
    Plan {
        claims,
        scopes,
        unknown_version: Some(VERSION_RULE),
        unknown_type: open.map(|is_open| (!is_open).then_some(TYPE_RULE)).to_vec(),
        unplanned: Some((KEYS_RULE, Arc::new(keys))),
    }
}

/// The slow answer: the rules that one event breaks.
fn broken(event: &Event, written: &Written, unknown_as: Option<usize>, open: [bool; 3]) -> BTreeSet<usize> {
    let mut rules = BTreeSet::new();
    let known = VERSIONS.iter().position(|version| Some(*version) == event.version);
    if known.is_none() {
        rules.insert(VERSION_RULE);
    }
    let Some(version) = known.or(unknown_as) else { return rules };
    match written.get(&(version, event.event_type)) {
        None if open[version] => {}
        None => {
            rules.insert(TYPE_RULE);
        }
        Some(asked) => {
            let below = asked.conditions.iter().filter(|(_, column, least)| event.amounts[column - 2] < *least);
            rules.extend(below.map(|(rule, ..)| *rule));
            if let Some(planned) = &asked.keys
                && event.keys.iter().any(|key| !planned.contains(key))
            {
                rules.insert(KEYS_RULE);
            }
        }
    }
    rules
}

#[test]
fn each_event_is_judged_by_the_version_that_it_claims() {
    let mut totals = [0; 9];
    for seed in seeds(60) {
        let mut random = Random::new(seed + 77);
        let written = random_plan(&mut random);
        let unknown_as = [None, Some(2), Some(0)][seed as usize % 3];
        let open = [random.once_in(3), random.once_in(3), random.once_in(3)];
        let plan = bound(&written, unknown_as, open);
        let claims = [Some("1"), Some("2"), Some("3"), Some("9"), None];
        let events: Vec<Event> = (0..random.below(300))
            .map(|_| Event {
                version: claims[random.below(5) as usize],
                event_type: TYPES[random.below(4) as usize],
                amounts: [random.between(-10, 15), random.between(-10, 15)],
                keys: KEYS.into_iter().filter(|_| random.once_in(3)).collect(),
            })
            .collect();
        let found = plan.judge(&batch(&events)).unwrap();
        assert!(found.windows(2).all(|pair| pair[0].rule < pair[1].rule), "in the order of the rules");
        for (row, event) in events.iter().enumerate() {
            let expected = broken(event, &written, unknown_as, open);
            let of_row: BTreeSet<usize> =
                found.iter().filter(|broken| broken.rows.value(row)).map(|broken| broken.rule).collect();
            assert_eq!(of_row, expected, "row {row} of seed {seed}");
            expected.into_iter().for_each(|rule| totals[rule] += 1);
        }
    }
    assert!(totals.iter().all(|total| *total > 100), "{totals:?}: the runs show too little");
}
