//! Refusing events behind an exchange, where other events have judged them.
//!
//! A source refuses what it can judge while it holds the record. What other events judge goes on with its record's bytes
//! ([`RECORD_COLUMNS`]) until the last operator that may refuse it has let it pass; here such events become refused records
//! again, as whole as those that the source refuses. Sources without such rules carry nothing.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, ListBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::UInt16Type;
use arrow_array::{ArrayRef, RecordBatch, UInt8Array};
use arrow_schema::ArrowError;
use weir_schemas::fate::Reason;
use weir_schemas::stage::{RECORD_COLUMNS, broken_rules, refused_schema, system, text_item};

use crate::detect::SenderColumns;
use crate::error::Error;
use crate::rule::Rule;
use crate::tally::{EventAccounts, Tallies};
use crate::violations::{found_of, same, text_of};

/// Refuses events that break a rule, and counts them.
pub struct Refusing {
    rule: Rule,
    /// The ids of the source's rules that let events pass, by their numbers in the marks.
    passing: Vec<Arc<str>>,
    sender: SenderColumns,
    tallies: Tallies,
}

impl Refusing {
    /// For events that break `rule`; `rules` are all of the source.
    pub fn new(rule: Rule, rules: &[Rule], sender: SenderColumns) -> Refusing {
        let passing = rules.iter().filter(|rule| rule.mode.passes()).map(|rule| Arc::clone(&rule.id)).collect();
        Refusing { rule, passing, sender, tallies: Tallies::default() }
    }

    /// The refused records of `events`, a batch with [`RECORD_COLUMNS`] behind the events' own.
    pub(crate) fn refuse(&mut self, events: &RecordBatch) -> Result<RecordBatch, Error> {
        let (rows, rule) = (events.num_rows(), &self.rule);
        let accounts = EventAccounts::of(events, self.sender.tenant)?;
        (0..rows).for_each(|row| self.tallies.add(accounts.account(row), Reason::Rule.fate() as u8, 1));
        let column = |at: usize| events.column(at).clone();
        let record = |at: usize| {
            let missing = || ArrowError::SchemaError("a batch of events that may be refused has no records".to_owned());
            events.column_by_name(RECORD_COLUMNS[at]).cloned().ok_or_else(missing)
        };
        let columns: Vec<ArrayRef> = vec![
            column(system::TOPIC),
            column(system::PARTITION),
            column(system::OFFSET),
            column(system::KAFKA_TIME_MS),
            column(system::SCHEMA_ID),
            column(system::EVENT_TIME),
            Arc::new(UInt8Array::from_value(Reason::Rule as u8, rows)),
            same(&rule.id, rows),
            text_of(events, self.sender.tenant),
            text_of(events, self.sender.sdk),
            text_of(events, self.sender.sdk_version),
            text_of(events, self.sender.app_version),
            same(&rule.id, rows),
            same(&rule.field, rows),
            same(&rule.expected, rows),
            found_of(rule, events)?,
            same(rule.severity.name(), rows),
            same(&rule.owner, rows),
            same(&rule.fingerprint, rows),
            self.broken_by(events),
            record(0)?,
            record(1)?,
            record(2)?,
            column(system::EVENT_TIME),
        ];
        Ok(RecordBatch::try_new(refused_schema(), columns)?)
    }

    /// The ids of every rule that each event breaks, in their order: those of its marks and this one.
    fn broken_by(&self, events: &RecordBatch) -> ArrayRef {
        let marks = broken_rules(events);
        let mut all = ListBuilder::new(BinaryBuilder::new()).with_field(text_item());
        for row in 0..events.num_rows() {
            let numbers = marks.map(|marks| marks.value(row));
            let numbers = numbers.as_ref().and_then(|numbers| numbers.as_primitive_opt::<UInt16Type>());
            let marked = numbers.iter().flat_map(|numbers| numbers.values().iter());
            let mut ids: Vec<&str> =
                marked.filter_map(|number| self.passing.get(usize::from(*number))).map(|id| &**id).collect();
            ids.push(&self.rule.id);
            ids.sort_unstable();
            ids.iter().for_each(|id| all.values().append_value(id));
            all.append(true);
        }
        Arc::new(all.finish())
    }

    /// The tallies of what was refused since they were last taken.
    pub(crate) fn take_tallies(&mut self) -> Result<RecordBatch, Error> {
        self.tallies.take()
    }
}
