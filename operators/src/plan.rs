//! Judges events by the version of a tracking plan that each claims.
//!
//! A plan's conditions belong to *scopes*: what a version asks of an event type. Versions that ask the same of a type share
//! one. Each event is looked up once, and each scope's conditions are evaluated over its own events alone, a batch of them at
//! a time: what a batch costs grows with the conditions that are about its events, not with the plan's types or versions.
//!
//! An event that claims no version, or one that nobody knows, breaks a rule of its own and is judged by a stated version; one of
//! a type that its version doesn't have breaks another.
//!
//! Not here: an operator, as with [`rule`](crate::rule); and how a plan is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BinaryArray, MapArray, RecordBatch, UInt32Array};
use arrow_buffer::{BooleanBufferBuilder, MutableBuffer};
use arrow_schema::ArrowError;
use arrow_select::take::take_record_batch;
use hashbrown::{HashSet, HashTable};
use xxhash_rust::xxh3::xxh3_64;

use crate::content::mix;
use crate::error::Error;
use crate::expr::{Evaluation, Expr};
use crate::prove::Unproven;
use crate::rule::{Broken, breakers};

/// Stands for "no scope".
const NOWHERE: u32 = u32::MAX;

/// Which version of a plan an event claims, and which scope that and its type make.
#[derive(Clone, Debug)]
pub struct Claims {
    event_type: usize,
    version: Expr,
    versions: Vec<Box<[u8]>>,
    unknown_as: Option<usize>,
    entries: Vec<Entry>,
    index: HashTable<u32>,
}

#[derive(Clone, Debug)]
struct Entry {
    version: usize,
    event_type: Box<[u8]>,
    scope: u32,
}

/// Where the rows of a batch belong.
struct Assigned {
    /// By row; [`NOWHERE`] where the version doesn't have the type.
    scopes: Vec<u32>,
    unknown_versions: Vec<u32>,
    /// Rows of types that their version, by its index, doesn't have.
    unknown_types: Vec<(usize, u32)>,
}

impl Claims {
    /// `event_type` is the index of a text column, `version` an expression of text, `versions` the plan's. Events of another
    /// version are judged by the one at `unknown_as`, or by none.
    pub fn new(event_type: usize, version: Expr, versions: &[String], unknown_as: Option<usize>) -> Claims {
        let versions = versions.iter().map(|version| version.as_bytes().into()).collect();
        Claims { event_type, version, versions, unknown_as, entries: Vec::new(), index: HashTable::new() }
    }

    /// Says that the version at `version` judges events of `event_type` by `scope`; said twice, the first holds.
    pub fn add(&mut self, version: usize, event_type: &str, scope: usize) {
        if self.find(version, event_type.as_bytes()) != NOWHERE {
            return;
        }
        let entry = Entry { version, event_type: event_type.as_bytes().into(), scope: scope as u32 };
        let hash = hash_of(version, &entry.event_type);
        let number = self.entries.len() as u32;
        self.entries.push(entry);
        let entries = &self.entries;
        self.index.insert_unique(hash, number, |number| {
            entries.get(*number as usize).map_or(0, |entry| hash_of(entry.version, &entry.event_type))
        });
    }

    fn find(&self, version: usize, event_type: &[u8]) -> u32 {
        let is_it = |number: &u32| {
            let entry = self.entries.get(*number as usize);
            entry.is_some_and(|entry| entry.version == version && *entry.event_type == *event_type)
        };
        let found = self.index.find(hash_of(version, event_type), is_it);
        found.and_then(|number| self.entries.get(*number as usize)).map_or(NOWHERE, |entry| entry.scope)
    }

    fn assign(&self, batch: &RecordBatch) -> Result<Assigned, Error> {
        let wrong = || ArrowError::SchemaError("the event type and the plan's version are no texts".to_owned());
        let versions = self.version.evaluate(batch)?;
        let versions = versions.as_binary_opt::<i32>().ok_or_else(wrong)?;
        let types = batch.columns().get(self.event_type).and_then(|column| column.as_binary_opt::<i32>());
        let types = types.ok_or_else(wrong)?;
        let mut assigned = Assigned {
            scopes: Vec::with_capacity(batch.num_rows()),
            unknown_versions: Vec::new(),
            unknown_types: Vec::new(),
        };
        // Neighbours are often alike.
        let mut last: Option<(&[u8], &[u8], u32)> = None;
        for row in 0..batch.num_rows() {
            let (version, event_type) = (text(versions, row), text(types, row));
            if let Some((known, of, scope)) = last
                && known == version
                && of == event_type
            {
                assigned.scopes.push(scope);
                continue;
            }
            let known = self.versions.iter().position(|known| **known == *version);
            if known.is_none() {
                assigned.unknown_versions.push(row as u32);
            }
            let by = known.or(self.unknown_as);
            let scope = by.map_or(NOWHERE, |by| self.find(by, event_type));
            if let (Some(by), NOWHERE) = (by, scope) {
                assigned.unknown_types.push((by, row as u32));
            }
            last = (known.is_some() && scope != NOWHERE).then_some((version, event_type, scope));
            assigned.scopes.push(scope);
        }
        Ok(assigned)
    }
}

/// A text column's value; '' where it is null.
fn text(values: &BinaryArray, row: usize) -> &[u8] {
    if values.is_valid(row) { values.value(row) } else { &[] }
}

fn hash_of(version: usize, event_type: &[u8]) -> u64 {
    mix(xxh3_64(event_type), version as u64)
}

/// What a version, or several, ask of an event type.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The columns that its conditions read, and the rules' indices with the conditions over those.
    columns: Vec<usize>,
    conditions: Vec<(usize, Expr)>,
}

impl Scope {
    /// The conditions of rules, by the rules' indices, over a batch of events.
    pub fn new(conditions: &[(usize, Expr)]) -> Scope {
        let mut columns = Vec::new();
        for (_, condition) in conditions {
            condition.visit_columns(&mut |index| columns.push(index));
        }
        columns.sort_unstable();
        columns.dedup();
        let to = |index: usize| columns.binary_search(&index).unwrap_or_default();
        let conditions = conditions.iter().map(|(rule, condition)| (*rule, condition.clone().over(&to))).collect();
        Scope { conditions, columns }
    }

    fn judge(&self, batch: &RecordBatch, members: &[u32], broken: &mut Collected) -> Result<(), Error> {
        if self.conditions.is_empty() {
            return Ok(());
        }
        let mut own = batch.project(&self.columns)?;
        if members.len() < batch.num_rows() {
            own = take_record_batch(&own, &UInt32Array::from(members.to_vec()))?;
        }
        let row_of = |member: usize| members.get(member).copied().unwrap_or_default() as usize;
        let mut evaluation = Evaluation::new(&own);
        for (rule, condition) in &self.conditions {
            if let Some((rows, unproven)) = breakers(condition, &mut evaluation, &own)? {
                let (bits, reasons) = broken.of(*rule);
                rows.set_indices().for_each(|member| bits.set_bit(row_of(member), true));
                reasons.extend(unproven.into_iter().map(|why| Unproven { row: row_of(why.row), ..why }));
            }
        }
        Ok(())
    }
}

/// What is broken so far, by rule.
struct Collected {
    rows: usize,
    rules: BTreeMap<usize, (BooleanBufferBuilder, Vec<Unproven>)>,
}

impl Collected {
    fn of(&mut self, rule: usize) -> (&mut BooleanBufferBuilder, &mut Vec<Unproven>) {
        let rows = self.rows;
        let none = || {
            let bits = MutableBuffer::from_len_zeroed(rows.div_ceil(8));
            (BooleanBufferBuilder::new_from_buffer(bits, rows), Vec::new())
        };
        let (bits, unproven) = self.rules.entry(rule).or_insert_with(none);
        (bits, unproven)
    }
}

/// The keys of maps that a plan has, by scope.
#[derive(Clone, Debug)]
pub struct Keys {
    claims: Arc<Claims>,
    /// The maps' names and columns.
    maps: Vec<(String, usize)>,
    /// By scope, where it has nothing to do with others: the keys of each map.
    planned: Vec<Option<Vec<HashSet<Box<[u8]>>>>>,
}

impl Keys {
    /// `maps` are names and indices of columns that are maps of text; `planned` the keys of each, by scope, or nothing where a
    /// scope may have any.
    pub fn new(claims: Arc<Claims>, maps: Vec<(String, usize)>, planned: Vec<Option<Vec<Vec<String>>>>) -> Keys {
        let set = |keys: Vec<String>| keys.iter().map(|key| key.as_bytes().into()).collect();
        let planned = planned.into_iter().map(|maps| maps.map(|maps| maps.into_iter().map(set).collect())).collect();
        Keys { claims, maps, planned }
    }

    /// What `batch` has of other keys.
    ///
    /// # Errors
    /// Only if the batch isn't one of the plan's source.
    pub fn in_batch<'a>(&'a self, batch: &RecordBatch) -> Result<Unplanned<'a>, Error> {
        self.of_assigned(batch, self.claims.assign(batch)?.scopes)
    }

    fn of_assigned<'a>(&'a self, batch: &RecordBatch, scopes: Vec<u32>) -> Result<Unplanned<'a>, Error> {
        let map_of = |(_, column): &(String, usize)| -> Result<MapArray, Error> {
            let map = batch.columns().get(*column).and_then(|column: &ArrayRef| column.as_map_opt());
            let wrong = || ArrowError::SchemaError("a column with planned keys is no map".to_owned());
            Ok(map.ok_or_else(wrong)?.clone())
        };
        let maps = self.maps.iter().map(map_of).collect::<Result<_, Error>>()?;
        Ok(Unplanned { keys: self, scopes, maps })
    }
}

/// The keys of a batch's maps that its events' plan doesn't have.
pub struct Unplanned<'a> {
    keys: &'a Keys,
    scopes: Vec<u32>,
    maps: Vec<MapArray>,
}

impl Unplanned<'_> {
    /// Calls `each` with the map and each such key of `row`, until it says that it has enough.
    fn visit<'a>(&'a self, row: usize, mut each: impl FnMut(&'a str, &'a [u8]) -> bool) {
        let scope = self.scopes.get(row).copied().unwrap_or(NOWHERE) as usize;
        let Some(Some(planned)) = self.keys.planned.get(scope) else { return };
        for ((map, (name, _)), planned) in self.maps.iter().zip(&self.keys.maps).zip(planned) {
            let Some(keys) = map.keys().as_binary_opt::<i32>() else { continue };
            let (from, to) = (map.value_offsets()[row] as usize, map.value_offsets()[row + 1] as usize);
            for key in (from..to).map(|entry| keys.value(entry)) {
                if !planned.contains(key) && !each(name, key) {
                    return;
                }
            }
        }
    }

    fn is_any(&self, row: usize) -> bool {
        let mut is_any = false;
        self.visit(row, |_, _| {
            is_any = true;
            false
        });
        is_any
    }

    /// Appends the keys of `row`, as in `props['colour']`.
    pub(crate) fn write(&self, row: usize, out: &mut Vec<u8>) {
        let start = out.len();
        self.visit(row, |map, key| {
            if out.len() > start {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(map.as_bytes());
            out.extend_from_slice(b"['");
            out.extend_from_slice(key);
            out.extend_from_slice(b"']");
            // What is told is cut short anyway.
            out.len() < start + 1_000
        });
    }
}

/// A source's tracking plan, all its versions, bound to its batches of events. Rules are told by their indices among the
/// source's.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who is judged by what.
    pub claims: Arc<Claims>,
    /// The scopes, by their numbers.
    pub scopes: Vec<Scope>,
    /// The rule that an event breaks whose version nobody knows.
    pub unknown_version: Option<usize>,
    /// The rule that an event breaks whose type isn't in its version, by the version's index; none where others are allowed.
    pub unknown_type: Vec<Option<usize>>,
    /// The rule that an event breaks which has other keys than the planned ones, and those.
    pub unplanned: Option<(usize, Arc<Keys>)>,
}

impl Plan {
    /// The plan's rules that some event of `batch` breaks, in their order.
    ///
    /// # Errors
    /// Only if the batch isn't one that the plan was bound to.
    pub fn judge(&self, batch: &RecordBatch) -> Result<Vec<Broken>, Error> {
        let assigned = self.claims.assign(batch)?;
        let mut broken = Collected { rows: batch.num_rows(), rules: BTreeMap::new() };
        if let Some(rule) = self.unknown_version.filter(|_| !assigned.unknown_versions.is_empty()) {
            let (bits, _) = broken.of(rule);
            assigned.unknown_versions.iter().for_each(|row| bits.set_bit(*row as usize, true));
        }
        for (version, row) in &assigned.unknown_types {
            if let Some(Some(rule)) = self.unknown_type.get(*version) {
                broken.of(*rule).0.set_bit(*row as usize, true);
            }
        }
        let mut members: Vec<Vec<u32>> = vec![Vec::new(); self.scopes.len()];
        for (row, scope) in assigned.scopes.iter().enumerate() {
            if let Some(members) = members.get_mut(*scope as usize) {
                members.push(row as u32);
            }
        }
        for (scope, members) in self.scopes.iter().zip(members).filter(|(_, members)| !members.is_empty()) {
            scope.judge(batch, &members, &mut broken)?;
        }
        if let Some((rule, keys)) = &self.unplanned {
            let unplanned = keys.of_assigned(batch, assigned.scopes)?;
            for row in (0..batch.num_rows()).filter(|row| unplanned.is_any(*row)) {
                broken.of(*rule).0.set_bit(row, true);
            }
        }
        let of_rule = |(rule, (mut bits, unproven)): (usize, (BooleanBufferBuilder, Vec<Unproven>))| Broken {
            rule,
            rows: bits.finish(),
            unproven,
        };
        Ok(broken.rules.into_iter().map(of_rule).collect())
    }

    /// Calls `visit` with the index of every column that it reads.
    pub fn visit_columns(&self, visit: &mut impl FnMut(usize)) {
        visit(self.claims.event_type);
        self.claims.version.visit_columns(visit);
        self.scopes.iter().flat_map(|scope| &scope.columns).for_each(|column| visit(*column));
        if let Some((_, keys)) = &self.unplanned {
            keys.maps.iter().for_each(|(_, column)| visit(*column));
        }
    }
}
