//! What rows and their differences add up to.
//!
//! Everything that a diff tells, but for its examples, is a sum of [`Fact`]s: each row adds that it is there and the numbers in
//! it, each difference what it is, in which measures and dimensions. Sums don't ask in which order they are added up, and
//! what was added can be taken away: so a diff that is computed once and one that is kept current are the same sums.
//!
//! Invariant: sums of measures are exact until they are told, since parts of numbers of one magnitude add up as integers:
//! no order of rows and no history of corrections shows in them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::Value;

use super::{Example, Kind, MeasureDiff, OneSided, Side, ViewDiff};
use crate::compare::Described;

/// Values of one dimension that are told, at most.
const VALUES_TOLD: usize = 1_000;
/// Binary digits between the magnitudes of which parts of a number are kept apart.
const PART_BITS: i32 = 32;

/// Something that can be counted of rows and their differences. Measures and dimensions go by their place in [`Shape`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fact {
    /// Rows of a side.
    Rows(Side),
    /// Cells of a measure that are numbers.
    Numbers(Side, usize),
    /// What numbers of one magnitude add to the sum of a measure.
    Part(Side, usize, i32),
    /// Rows that differ.
    Differing(Kind),
    /// Cells of a measure that differ.
    Cells(usize),
    /// Rows that differ, by the value of a dimension.
    Value(usize, String),
}

/// How rows of both sides are compared.
#[derive(Clone, Debug, Default)]
pub(super) struct Shape {
    /// The view.
    pub(super) view: String,
    /// The columns of the key, the window's first.
    pub(super) key: Vec<String>,
    /// The columns that are compared, in the order of a row's cells.
    pub(super) measures: Vec<Described>,
    /// Columns that only one side has.
    pub(super) one_sided: Vec<OneSided>,
    /// Greatest relative difference of Float64 cells.
    pub(super) tolerance: f64,
}

impl Shape {
    /// What a row adds, whatever the other side has.
    pub(super) fn of_row(&self, side: Side, cells: &[Value], mut add: impl FnMut(Fact, i128)) {
        add(Fact::Rows(side), 1);
        let numbers = cells.iter().take(self.measures.len()).enumerate();
        for (at, number) in numbers.filter_map(|(at, cell)| Some((at, number(cell)?))) {
            let (magnitude, part) = part_of(number);
            add(Fact::Numbers(side, at), 1);
            add(Fact::Part(side, at, magnitude), part);
        }
    }

    /// The measures in which two rows of one key differ.
    pub(super) fn changed(&self, live: &[Value], replay: &[Value]) -> Vec<usize> {
        let differs = |at: &usize| match (live.get(*at), replay.get(*at)) {
            (Some(live), Some(replay)) => !self.measures[*at].are_equal(live, replay, self.tolerance),
            (live, replay) => live != replay,
        };
        (0..self.measures.len()).filter(differs).collect()
    }

    /// What a row that differs adds.
    pub(super) fn of_difference(&self, kind: Kind, key: &str, changed: &[usize], mut add: impl FnMut(Fact)) {
        add(Fact::Differing(kind));
        changed.iter().for_each(|at| add(Fact::Cells(*at)));
        let key: Vec<Value> = serde_json::from_str(key).unwrap_or_default();
        for (at, value) in key.iter().enumerate().skip(1) {
            add(Fact::Value(at, value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
        }
    }
}

/// Facts, and how often each holds; of numbers, their sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    facts: BTreeMap<Fact, i128>,
    /// By dimension, how many values [`Tally::add_told`] has let in.
    let_in: BTreeMap<usize, usize>,
}

impl Tally {
    /// Adds `weight` of a fact; what comes to nothing is forgotten.
    pub(super) fn add(&mut self, fact: Fact, weight: i128) {
        match self.facts.entry(fact) {
            Entry::Occupied(mut held) => {
                *held.get_mut() = held.get().wrapping_add(weight);
                if *held.get() == 0 {
                    held.remove();
                }
            }
            Entry::Vacant(free) if weight != 0 => {
                free.insert(weight);
            }
            Entry::Vacant(_) => {}
        }
    }

    /// The same, but for a value of a dimension that already has as many as are told.
    pub(super) fn add_told(&mut self, fact: Fact, weight: i128) {
        if let Fact::Value(at, _) = &fact
            && !self.facts.contains_key(&fact)
        {
            let let_in = self.let_in.entry(*at).or_default();
            if *let_in == VALUES_TOLD {
                return;
            }
            *let_in += 1;
        }
        self.add(fact, weight);
    }

    fn values(&self, at: usize) -> impl Iterator<Item = (&String, u64)> {
        let all = self.facts.range(Fact::Value(at, String::new())..Fact::Value(at + 1, String::new()));
        all.filter_map(|(fact, count)| match fact {
            Fact::Value(_, value) => Some((value, clamped(*count))),
            _ => None,
        })
    }

    fn count(&self, fact: &Fact) -> u64 {
        self.facts.get(fact).map_or(0, |count| clamped(*count))
    }

    /// Rows of both sides.
    pub(super) fn rows(&self) -> u64 {
        self.count(&Fact::Rows(Side::Live)) + self.count(&Fact::Rows(Side::Replay))
    }

    /// All of it, as it is told.
    pub(super) fn told(&self, shape: &Shape, examples: Vec<Example>) -> ViewDiff {
        let measures = shape.measures.iter().enumerate().map(|(at, column)| MeasureDiff {
            name: column.name.clone(),
            changed: self.count(&Fact::Cells(at)),
            live_sum: self.sum(Side::Live, at),
            replay_sum: self.sum(Side::Replay, at),
        });
        let dimensions = shape.key.iter().enumerate().skip(1).filter_map(|(at, name)| {
            let mut values: Vec<(&String, u64)> = self.values(at).collect();
            values.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
            let values = values.into_iter().take(VALUES_TOLD).map(|(value, count)| (value.clone(), count));
            let values: BTreeMap<String, u64> = values.collect();
            (!values.is_empty()).then(|| (name.clone(), values))
        });
        ViewDiff {
            view: shape.view.clone(),
            key: shape.key.clone(),
            live_rows: self.count(&Fact::Rows(Side::Live)),
            replay_rows: self.count(&Fact::Rows(Side::Replay)),
            added: self.count(&Fact::Differing(Kind::Added)),
            removed: self.count(&Fact::Differing(Kind::Removed)),
            changed: self.count(&Fact::Differing(Kind::Changed)),
            one_sided: shape.one_sided.clone(),
            measures: measures.collect(),
            dimensions: dimensions.collect(),
            examples,
        }
    }

    /// The sum of a measure over the rows of a side; none where no cell is a number.
    fn sum(&self, side: Side, at: usize) -> Option<f64> {
        if self.count(&Fact::Numbers(side, at)) == 0 {
            return None;
        }
        let parts = self.facts.range(Fact::Part(side, at, i32::MIN)..=Fact::Part(side, at, i32::MAX));
        Some(parts.rev().fold(0.0, |sum, (fact, part)| match fact {
            Fact::Part(_, _, magnitude) => sum + of_part(*magnitude, *part),
            _ => sum,
        }))
    }
}

fn clamped(count: i128) -> u64 {
    u64::try_from(count.max(0)).unwrap_or(u64::MAX)
}

/// A cell's number, however JSON writes it.
fn number(cell: &Value) -> Option<f64> {
    match cell {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
    .filter(|number: &f64| number.is_finite())
}

/// A number as an integer times two to the power of a magnitude times [`PART_BITS`]. The integer has fewer than 85 binary
/// digits, so that more rows than there can be add up in 128.
fn part_of(number: f64) -> (i32, i128) {
    let bits = number.to_bits();
    let (exponent, fraction) = ((bits >> 52) & 0x7ff, bits & ((1 << 52) - 1));
    let (digits, exponent) = match i32::try_from(exponent).unwrap_or_default() {
        0 => (fraction, -1_074),
        exponent => (fraction | (1 << 52), exponent - 1_075),
    };
    let part = i128::from(digits) << exponent.rem_euclid(PART_BITS);
    (exponent.div_euclid(PART_BITS), if number.is_sign_negative() { -part } else { part })
}

fn of_part(magnitude: i32, part: i128) -> f64 {
    // In two steps, since the least magnitudes are no numbers by themselves.
    let half = 2.0_f64.powi(magnitude * PART_BITS / 2);
    part as f64 * half * half
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_of_any_magnitude_survive_their_parts() {
        for number in
            [0.0, 1.0, -0.1, 5e-324, f64::MIN_POSITIVE, f64::MAX, -f64::MAX, 1e300, 12_345_678.9, 2f64.powi(63)]
        {
            let (magnitude, part) = part_of(number);
            assert_eq!(of_part(magnitude, part), number, "{number:e}");
        }
    }

    #[test]
    fn what_was_added_and_taken_away_leaves_no_trace_in_a_sum() {
        let measures = vec![Described { name: "paid".to_owned(), r#type: "Float64".to_owned() }];
        let shape = Shape { measures, ..Shape::default() };
        let (mut corrected, mut plain) = (Tally::default(), Tally::default());
        let mut random = fastrand::Rng::with_seed(7);
        let numbers: Vec<f64> =
            (0..500).map(|_| (random.f64() - 0.5) * 10f64.powi(random.i32(-20..20))).chain([1e300, -1e300]).collect();
        for number in &numbers {
            shape.of_row(Side::Live, &[json!(number)], |fact, weight| corrected.add(fact, weight));
        }
        for number in numbers.iter().rev().skip(300) {
            shape.of_row(Side::Live, &[json!(number)], |fact, weight| corrected.add(fact, -weight));
        }
        for number in numbers.iter().rev().take(300) {
            shape.of_row(Side::Live, &[json!(number)], |fact, weight| plain.add(fact, weight));
        }
        assert_eq!(corrected, plain);
        let exact: f64 = numbers.iter().rev().skip(2).take(298).sum();
        let told = plain.told(&shape, Vec::new()).measures[0].live_sum.expect("numbers");
        assert!((told - exact).abs() <= 1e-9 * exact.abs(), "{told} {exact}");
        for number in numbers.iter().rev().take(300) {
            shape.of_row(Side::Live, &[json!(number)], |fact, weight| plain.add(fact, -weight));
        }
        assert_eq!((plain.told(&shape, Vec::new()).measures[0].live_sum, plain.rows()), (None, 0));
    }

    #[test]
    fn a_dimension_of_many_values_stays_bounded_where_it_streams() {
        let shape = Shape { key: vec!["w".to_owned(), "user".to_owned()], ..Shape::default() };
        let mut tally = Tally::default();
        for user in (0..3_000).chain(0..10) {
            let key = json!(["2026-01-01 00:00:00", format!("{user}")]).to_string();
            shape.of_difference(Kind::Added, &key, &[], |fact| tally.add_told(fact, 1));
        }
        let told = tally.told(&shape, Vec::new());
        assert_eq!((told.added, told.dimensions["user"].len(), told.dimensions["user"]["3"]), (3_010, VALUES_TOLD, 2));
    }
}
