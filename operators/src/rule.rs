//! Judges events by rules: which of a source's rules each event of a batch breaks.
//!
//! All rules are evaluated over the whole batch, each common part once. An event breaks a rule when its condition isn't
//! true: NULL isn't, and neither is a condition that can't be evaluated for the event. Where nothing is broken, nothing
//! is allocated for any event.
//!
//! Not here: an operator. Rules are applied by whoever still holds the record's bytes, so that quarantine gets them; nor what
//! becomes of an event, which the rule's mode says.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow_buffer::BooleanBuffer;
use weir_schemas::rule::{Mode, Severity};

use crate::combine::without_nulls;
use crate::error::Error;
use crate::expr::{Evaluation, Expr};
use crate::plan::{Keys, Unplanned};
use crate::prove::{self, Unproven};
use crate::sequence::Sequencing;
use crate::unique::Uniqueness;

/// Bytes of what was found that are told, at most.
const FOUND_BYTES_MAX: usize = 200;

/// A rule of a source, bound to its batches of events.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its id in the pipeline file.
    pub id: Arc<str>,
    /// What becomes of an event that breaks it.
    pub mode: Mode,
    /// How bad that is.
    pub severity: Severity,
    /// Whose rule it is; may be empty.
    pub owner: Arc<str>,
    /// The path of the field that it is about; empty where it is about several.
    pub field: Arc<str>,
    /// The condition of events that it is about, in words or SQL; empty where it is about all.
    pub when: Arc<str>,
    /// What must hold of them, in words or SQL.
    pub expected: Arc<str>,
    /// By what an event is judged.
    pub basis: Basis,
    /// What of the event is told when it breaks the rule.
    pub shown: Vec<Shown>,
    /// The fingerprint of being broken as a cause: the same for every release.
    pub fingerprint: Arc<str>,
}

/// By what a rule judges an event.
#[derive(Clone, Debug)]
pub enum Basis {
    /// The whole condition, false for events that break it.
    Condition(Expr),
    /// The source's tracking plan ([`Plan`](crate::plan::Plan)), which knows who is to be judged.
    Plan,
    /// Other events with the same key: an operator behind the source judges.
    Unique(Box<Uniqueness>),
    /// The events of the same device: operators behind the source see what is missing among them.
    Sequence(Box<Sequencing>),
}

/// A value that is told of an event which breaks a rule.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its name, if others stand beside it.
    pub name: Option<String>,
    /// What it is.
    pub value: Value,
}

/// What is told of an event.
#[derive(Clone, Debug)]
pub enum Value {
    /// A text.
    Text(Expr),
    /// That there is a value which nobody may see.
    Masked,
    /// The keys of a map that its plan doesn't have.
    Unplanned(Arc<Keys>),
}

impl Rule {
    /// Whether an operator behind the source may refuse events by it: then they carry their records so far.
    pub fn refuses_behind_source(&self) -> bool {
        matches!(self.basis, Basis::Unique(_)) && !self.mode.passes()
    }

    /// Calls `visit` with the index of every column that it reads to judge by itself or to tell.
    pub fn visit_columns(&self, visit: &mut impl FnMut(usize)) {
        match &self.basis {
            Basis::Condition(condition) => condition.visit_columns(visit),
            Basis::Unique(unique) => unique.visit_columns(visit),
            Basis::Sequence(sequencing) => sequencing.visit_columns(visit),
            Basis::Plan => {}
        }
        for shown in &self.shown {
            if let Value::Text(text) = &shown.value {
                text.visit_columns(visit);
            }
        }
    }
}

/// What a rule says of a batch, if some event breaks it.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The rule's index.
    pub rule: usize,
    /// The rows that break it.
    pub rows: BooleanBuffer,
    /// Those among them for which it can't be evaluated, and why.
    pub unproven: Vec<Unproven>,
}

/// The rules with a condition of their own that some event of `batch` breaks, in their order.
///
/// # Errors
/// Only if the batch isn't one that the rules were bound to.
pub fn judge(rules: &[Rule], batch: &RecordBatch) -> Result<Vec<Broken>, Error> {
    let mut broken = Vec::new();
    let mut evaluation = Evaluation::new(batch);
    for (index, rule) in rules.iter().enumerate() {
        let Basis::Condition(condition) = &rule.basis else { continue };
        if let Some((rows, unproven)) = breakers(condition, &mut evaluation, batch)? {
            broken.push(Broken { rule: index, rows, unproven });
        }
    }
    Ok(broken)
}

/// The rows of `batch` for which `condition` isn't true, and why it can't be evaluated for some of them; nothing where it
/// holds for all.
pub(crate) fn breakers<'a>(
    condition: &'a Expr,
    evaluation: &mut Evaluation<'a>,
    batch: &RecordBatch,
) -> Result<Option<(BooleanBuffer, Vec<Unproven>)>, Error> {
    match evaluation.condition(condition) {
        Ok(truth) if truth.true_count() == truth.len() => Ok(None),
        Ok(truth) => Ok(Some((!without_nulls(truth).values(), Vec::new()))),
        Err(Error::Evaluation { .. }) => {
            let (held, unproven) = prove::holds(condition, batch)?;
            Ok(Some((!&held, unproven)))
        }
        Err(other) => Err(other),
    }
}

/// The rows of `batch` that a rule with the condition `when` is about; `None` where it has none. A condition that can't be
/// evaluated for some event isn't true for it; the others are judged one by one.
pub(crate) fn held<'a>(
    when: Option<&'a Expr>,
    evaluation: &mut Evaluation<'a>,
    batch: &RecordBatch,
) -> Result<Option<BooleanBuffer>, Error> {
    let Some(when) = when else { return Ok(None) };
    match evaluation.condition(when) {
        Ok(truth) => Ok(Some(without_nulls(truth).values().clone())),
        Err(Error::Evaluation { .. }) => Ok(Some(prove::holds(when, batch)?.0)),
        Err(other) => Err(other),
    }
}

/// What was found in the events of one batch that break a rule, as text.
pub struct Found<'a> {
    parts: Vec<(&'a Shown, Part<'a>)>,
}

enum Part<'a> {
    Masked,
    /// The texts of all rows; none where they can't be computed.
    Texts(Option<ArrayRef>),
    Unplanned(Unplanned<'a>),
}

impl<'a> Found<'a> {
    /// Computes what `rule` tells, for a whole batch.
    ///
    /// # Errors
    /// Only if the batch isn't one that the rule was bound to.
    pub fn of(rule: &'a Rule, batch: &RecordBatch) -> Result<Found<'a>, Error> {
        let mut evaluation = Evaluation::new(batch);
        let mut parts = Vec::with_capacity(rule.shown.len());
        for shown in &rule.shown {
            let part = match &shown.value {
                Value::Masked => Part::Masked,
                Value::Unplanned(keys) => Part::Unplanned(keys.in_batch(batch)?),
                Value::Text(text) => match evaluation.array(text) {
                    Ok(texts) => Part::Texts(Some(texts)),
                    // What can't be told is left out; the rule's verdict stands without it.
                    Err(Error::Evaluation { .. }) => Part::Texts(None),
                    Err(other) => return Err(other),
                },
            };
            parts.push((shown, part));
        }
        Ok(Found { parts })
    }

    /// Appends what was found in `row`, cut short.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        let start = out.len();
        for (at, (shown, part)) in self.parts.iter().enumerate() {
            if at > 0 {
                out.extend_from_slice(b", ");
            }
            if let Some(name) = &shown.name {
                out.extend_from_slice(name.as_bytes());
                out.push(b'=');
            }
            match part {
                Part::Masked => out.extend_from_slice(b"(masked)"),
                Part::Unplanned(keys) => keys.write(row, out),
                Part::Texts(texts) => match texts.as_ref().and_then(|texts| texts.as_binary_opt::<i32>()) {
                    Some(texts) if texts.is_valid(row) => out.extend_from_slice(texts.value(row)),
                    Some(_) => out.extend_from_slice(b"NULL"),
                    None => out.push(b'?'),
                },
            }
        }
        shorten(out, start + FOUND_BYTES_MAX);
    }
}

/// Cuts `text` to `most` bytes, not within a character of UTF-8, and says so.
fn shorten(text: &mut Vec<u8>, most: usize) {
    if text.len() <= most {
        return;
    }
    let mut end = most;
    while end > 0 && text.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
        end -= 1;
    }
    text.truncate(end);
    text.extend_from_slice("…".as_bytes());
}

/// The rows of a batch that some rule of `broken` breaks and `of` allows.
pub fn rows_of<'a>(rows: usize, broken: impl Iterator<Item = &'a Broken>) -> BooleanArray {
    let none = BooleanBuffer::new_unset(rows);
    BooleanArray::new(broken.fold(none, |all, broken| &all | &broken.rows), None)
}
