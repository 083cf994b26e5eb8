//! Which of a row's records counted, and what became of the others.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, UInt16Type, UInt32Type};
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow_schema::ArrowError;
use arrow_select::filter::filter_record_batch;
use weir_operators::expr::{Expr, Function};
use weir_operators::plan::Plan;
use weir_operators::rule::{self, Rule, rows_of};
use weir_schemas::stage::{Column, system};
use xxhash_rust::xxh3::xxh3_128;

use crate::bind::BoundSource;
use crate::error::Error;

/// A record's place: the index of its topic in the source, partition, offset.
pub(super) type Place = (u16, i32, i64);

/// Releases that are told apart, at most.
const RELEASES_MAX: usize = 1_000;

/// What is counted besides.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Refused records of the row, by reason and rule.
    pub(super) left_out: BTreeMap<(String, String), u64>,
    /// Records of the row that were refused and retried since, by reason and rule of the refusal.
    pub(super) retried: BTreeMap<(String, String), u64>,
    /// Events of the window for which the view can't be evaluated.
    pub(super) unproven: u64,
    /// Further copies of events.
    pub(super) copies: u64,
    /// Records that counted, by SDK, its version and the app's version.
    pub(super) releases: BTreeMap<[String; 3], u64>,
}

/// Where the records of a row are.
pub(super) struct Places {
    accepted: Option<BTreeMap<Place, u32>>,
    refused: HashSet<Place>,
    rules: Vec<Rule>,
    plan: Option<Plan>,
    /// Tenant and event id, as text.
    identity: Option<Vec<Expr>>,
    seen: HashSet<u128>,
    release: [Option<usize>; 3],
    counted: BTreeMap<(u16, i32), BTreeSet<i64>>,
    schemas: BTreeMap<u32, u64>,
}

impl Places {
    /// None yet. `accepted` holds those that counted, where it is known; `refused` those that were refused.
    pub(super) fn new(
        accepted: Option<BTreeMap<Place, u32>>,
        refused: HashSet<Place>,
        source: &BoundSource,
        identity: &[Option<&str>],
    ) -> Places {
        let of = |name: &str| {
            let at = source.columns.iter().position(|column| column.name == name)?;
            text_of(&source.columns[at], at)
        };
        // The event id comes last; without it nothing is deduplicated.
        let identity = match identity.last() {
            Some(Some(_)) => Some(identity.iter().flatten().filter_map(|name| of(name)).collect()),
            _ => None,
        };
        Places {
            accepted,
            refused,
            rules: source.contract.rules.clone(),
            plan: source.contract.plan.clone(),
            identity,
            seen: HashSet::new(),
            release: source.contract.release.map(|at| at.map(|at| at + system::COUNT)),
            counted: BTreeMap::new(),
            schemas: BTreeMap::new(),
        }
    }

    /// Sorts events of the row, and gives those that counted.
    pub(super) fn take(&mut self, events: &RecordBatch, tally: &mut Tally) -> Result<RecordBatch, Error> {
        if events.num_rows() == 0 {
            return Ok(events.clone());
        }
        let places = places_of(events)?;
        let mut broken = rule::judge(&self.rules, events)?;
        if let Some(plan) = &self.plan {
            broken.extend(plan.judge(events)?);
            broken.sort_by_key(|broken| broken.rule);
        }
        broken.retain(|broken| self.rules.get(broken.rule).is_some_and(|rule| !rule.mode.passes()));
        let refused_now = rows_of(events.num_rows(), broken.iter());
        let identities = self.identities(events)?;
        let mut counts = Vec::with_capacity(places.len());
        for (row, place) in places.iter().enumerate() {
            counts.push(if self.refused.contains(place) {
                false
            } else if let Some(accepted) = &self.accepted {
                let is_accepted = accepted.contains_key(place);
                tally.copies += u64::from(!is_accepted);
                is_accepted
            } else if refused_now.value(row) {
                let first = broken.iter().find(|broken| broken.rows.value(row));
                let rule = first.map_or(String::new(), |broken| self.rules[broken.rule].id.to_string());
                *tally
                    .left_out
                    .entry(("rule, judged anew: the quarantine has no row".to_owned(), rule))
                    .or_default() += 1;
                false
            } else {
                let is_new = identities.as_ref().is_none_or(|identities| self.seen.insert(identities[row]));
                tally.copies += u64::from(!is_new);
                is_new
            });
        }
        let counted = filter_record_batch(events, &BooleanArray::from(counts))?;
        self.note(&counted, tally)?;
        Ok(counted)
    }

    fn note(&mut self, counted: &RecordBatch, tally: &mut Tally) -> Result<(), Error> {
        let ids = counted.column(system::SCHEMA_ID).as_primitive_opt::<UInt32Type>().ok_or_else(odd)?;
        for ((topic, partition, offset), id) in places_of(counted)?.into_iter().zip(ids.values()) {
            self.counted.entry((topic, partition)).or_default().insert(offset);
            *self.schemas.entry(*id).or_default() += 1;
        }
        let text = |at: Option<usize>, row: usize| match at.and_then(|at| counted.column(at).as_binary_opt::<i32>()) {
            Some(texts) if texts.is_valid(row) => String::from_utf8_lossy(texts.value(row)).into_owned(),
            _ => String::new(),
        };
        if self.release.iter().any(Option::is_some) {
            for row in 0..counted.num_rows() {
                let release = self.release.map(|at| text(at, row));
                if tally.releases.len() < RELEASES_MAX || tally.releases.contains_key(&release) {
                    *tally.releases.entry(release).or_default() += 1;
                }
            }
        }
        Ok(())
    }

    /// A hash of each event's tenant and id; `None` where nothing is deduplicated.
    fn identities(&self, events: &RecordBatch) -> Result<Option<Vec<u128>>, Error> {
        let Some(parts) = &self.identity else { return Ok(None) };
        let parts: Vec<ArrayRef> = parts.iter().map(|part| part.evaluate(events)).collect::<Result<_, _>>()?;
        let mut bytes = Vec::new();
        let hash = |row: usize| {
            bytes.clear();
            for part in parts.iter().filter_map(|part| part.as_binary_opt::<i32>()) {
                bytes.extend_from_slice(if part.is_valid(row) { part.value(row) } else { &[] });
                bytes.push(0);
            }
            xxh3_128(&bytes)
        };
        Ok(Some((0..events.num_rows()).map(hash).collect()))
    }

    /// The offsets that counted, by topic and partition.
    pub(super) fn counted(&self) -> &BTreeMap<(u16, i32), BTreeSet<i64>> {
        &self.counted
    }

    /// Records that counted, by schema id.
    pub(super) fn schemas(&self) -> &BTreeMap<u32, u64> {
        &self.schemas
    }

    /// Whether it is known which copy of an event counted.
    pub(super) fn knows_copies(&self) -> bool {
        self.accepted.is_some()
    }

    /// Whether events are deduplicated at all.
    pub(super) fn deduplicates(&self) -> bool {
        self.identity.is_some()
    }

    /// Accepted events of the row that weren't found in the log.
    pub(super) fn not_found(&self) -> Vec<(Place, u32)> {
        let is_counted = |place: &Place| self.counted.get(&(place.0, place.1)).is_some_and(|at| at.contains(&place.2));
        let accepted = self.accepted.iter().flatten();
        accepted.filter(|(place, _)| !is_counted(place)).map(|(place, id)| (*place, *id)).collect()
    }

    /// Takes accepted events as counted that the log no longer has.
    pub(super) fn add_forgotten(&mut self, forgotten: Vec<(Place, u32)>) {
        for ((topic, partition, offset), id) in forgotten {
            self.counted.entry((topic, partition)).or_default().insert(offset);
            *self.schemas.entry(id).or_default() += 1;
        }
    }
}

/// The places of a batch of events.
pub(super) fn places_of(events: &RecordBatch) -> Result<Vec<Place>, Error> {
    let topics = events.column(system::TOPIC).as_primitive_opt::<UInt16Type>().ok_or_else(odd)?;
    let partitions = events.column(system::PARTITION).as_primitive_opt::<Int32Type>().ok_or_else(odd)?;
    let offsets = events.column(system::OFFSET).as_primitive_opt::<Int64Type>().ok_or_else(odd)?;
    let places = topics.values().iter().zip(partitions.values()).zip(offsets.values());
    Ok(places.map(|((topic, partition), offset)| (*topic, *partition, *offset)).collect())
}

fn text_of(column: &Column, at: usize) -> Option<Expr> {
    let column =
        Expr::Column { index: at + system::COUNT, name: column.name.clone(), column_type: column.column_type.clone() };
    Expr::call(Function::ToString, vec![column]).ok()
}

fn odd() -> Error {
    Error::Arrow(ArrowError::SchemaError("a batch of events lacks a system column".to_owned()))
}
