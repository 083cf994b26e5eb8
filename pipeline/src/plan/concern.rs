//! Whom a new version of a plan concerns: who sends events that keep the old one and break the new one.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use weir_operators::plan::Plan as BoundPlan;
use weir_operators::rule::Rule;
use weir_schemas::rule::Mode;
use weir_schemas::stage::system;

use super::compile::{Place, UNKNOWN_TYPE, UNKNOWN_VERSION, UNPLANNED_PROPERTY, compile};
use super::sample::Sample;
use super::{Plan, Version};
use crate::config::{self, JudgedBy, TrackingPlan};
use crate::error::Error;
use crate::sql::SourceColumns;

/// Events of a release that break what a new version asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Concerned {
    /// The rule without its version, as in `plan/purchase/amount`.
    pub rule: String,
    /// Whose rule it is.
    pub owner: String,
    /// SDK, its version, the app's version; '' where unknown.
    pub release: [String; 3],
}

/// How many events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of the sampled events of the release, those that keep the old version and break the new one there.
    pub breaking: u64,
    /// The other way round.
    pub mended: u64,
    /// All of the release.
    pub events: u64,
}

/// A version that judges every event, whatever it claims.
pub struct Judging {
    rules: Vec<Rule>,
    plan: BoundPlan,
}

impl Judging {
    /// Binds a version to a source's columns.
    ///
    /// # Errors
    /// Every problem with it.
    pub fn new(
        version: &Version,
        file: &str,
        name: &str,
        source: &config::Source,
        columns: &SourceColumns,
    ) -> Result<Judging, Error> {
        let field = source.plan.as_ref().map(|plan| plan.version.clone()).or(source.event_type.clone());
        let uses = TrackingPlan {
            folder: version.file.clone().into(),
            version: field.unwrap_or_default(),
            unknown_version: Mode::Observe,
            judge_unknown_by: JudgedBy::Newest,
            unknown_type: Mode::Tag,
            unplanned_property: Mode::Tag,
            mode_at_most: Mode::Quarantine,
        };
        let place = Place { file, name, source, uses: &uses, columns };
        let compiled = compile(&Plan { versions: vec![version.clone()] }, &place).map_err(Error::Config)?;
        let mut rules = compiled.rules.clone();
        rules.sort_by(|a, b| a.id.cmp(&b.id));
        let plan = compiled.bind(&mut rules);
        Ok(Judging { rules, plan })
    }

    /// How many events of a sample break each rule.
    ///
    /// # Errors
    /// Only if the sample isn't one of the source.
    pub fn broken(&self, sample: &Sample) -> Result<BTreeMap<Arc<str>, u64>, Error> {
        let mut counts = BTreeMap::new();
        for batch in &sample.batches {
            for broken in self.plan.judge(batch)? {
                if let Some(rule) = self.rules.get(broken.rule).filter(|rule| *rule.id != *UNKNOWN_VERSION) {
                    *counts.entry(Arc::clone(&rule.id)).or_default() += broken.rows.count_set_bits() as u64;
                }
            }
        }
        Ok(counts)
    }

    /// How many rules it has, those of every plan left out.
    pub fn len(&self) -> usize {
        let own = [UNKNOWN_VERSION, UNKNOWN_TYPE, UNPLANNED_PROPERTY];
        self.rules.iter().filter(|rule| !own.contains(&&*rule.id)).count()
    }

    /// Whether it has no rule of its own.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows that break each rule, by the rule without its version.
    fn judge<'a>(&'a self, batch: &RecordBatch) -> Result<BTreeMap<&'a str, (&'a str, Vec<bool>)>, Error> {
        let mut found = BTreeMap::new();
        for broken in self.plan.judge(batch)? {
            if let Some(rule) = self.rules.get(broken.rule).filter(|rule| *rule.id != *UNKNOWN_VERSION) {
                let name = rule.id.rsplit_once('@').map_or(&*rule.id, |(name, _)| name);
                found.insert(name, (&*rule.owner, broken.rows.iter().collect()));
            }
        }
        Ok(found)
    }
}

/// Who of a sample is concerned by `new` in the place of `old`.
///
/// # Errors
/// Only if the sample isn't one of the source.
pub fn concerned(
    old: &Judging,
    new: &Judging,
    sample: &Sample,
    source: &config::Source,
    columns: &SourceColumns,
) -> Result<BTreeMap<Concerned, Counts>, Error> {
    let mut counts: BTreeMap<Concerned, Counts> = BTreeMap::new();
    let mut events: BTreeMap<[String; 3], u64> = BTreeMap::new();
    for batch in &sample.batches {
        let releases = releases(batch, source, columns);
        for release in &releases {
            match events.get_mut(release) {
                Some(count) => *count += 1,
                None => {
                    events.insert(release.clone(), 1);
                }
            }
        }
        let (before, after) = (old.judge(batch)?, new.judge(batch)?);
        let rules: std::collections::BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
        for rule in rules {
            let (was, is) = (before.get(rule), after.get(rule));
            let owner = is.or(was).map_or("", |(owner, _)| owner);
            let at =
                |of: Option<&(&str, Vec<bool>)>, row: usize| of.is_some_and(|(_, rows)| rows.get(row) == Some(&true));
            for (row, release) in releases.iter().enumerate() {
                let (was, is) = (at(was, row), at(is, row));
                if was != is {
                    let one = Concerned { rule: rule.to_owned(), owner: owner.to_owned(), release: release.clone() };
                    let counts = counts.entry(one).or_default();
                    counts.breaking += u64::from(is);
                    counts.mended += u64::from(was);
                }
            }
        }
    }
    for (concerned, counts) in &mut counts {
        counts.events = events.get(&concerned.release).copied().unwrap_or_default();
    }
    Ok(counts)
}

/// The release of each row.
fn releases(batch: &RecordBatch, source: &config::Source, columns: &SourceColumns) -> Vec<[String; 3]> {
    let release = &source.release;
    let column = |name: &Option<String>| {
        let at = columns.columns.iter().position(|column| Some(&column.name) == name.as_ref())?;
        batch.columns().get(at + system::COUNT)?.as_binary_opt::<i32>()
    };
    let parts = [column(&release.sdk), column(&release.sdk_version), column(&release.app_version)];
    let text = |row: usize| {
        parts.map(|part| match part {
            Some(values) if values.is_valid(row) => String::from_utf8_lossy(values.value(row)).into_owned(),
            _ => String::new(),
        })
    };
    (0..batch.num_rows()).map(text).collect()
}
