//! Explains a row: which records made it, at which places, and whether they make it again.
//!
//! 1. The row is looked up in the readers' view, its epoch in the base table. Where a replay was swapped in, the view has the
//!    replay's rows, and the report names it.
//! 2. `weir_epochs` gives the stretches of the log whose event times meet the window, up to that epoch.
//! 3. `weir_quarantine` gives the refused records of the window: they are decoded, and those of the row are told apart;
//!    `weir_retried` says which of them were taken again.
//! 4. The accepted events, where they are kept, say which copy of an event counted.
//! 5. The stretches are read from Kafka, decoded and evaluated by the code that the pipeline runs; what belongs to the row
//!    and wasn't left out is counted once more.
//!
//! Invariants: nothing is written anywhere, no position is moved; memory grows with the records of the row and with what
//! is read of the retry topic, not with what else is read; what can't be known is said and not guessed.
//!
//! A row that isn't there is explained, too, where it is named whole: removed by a tombstone, or never written, because HAVING
//! isn't true for it.
//!
//! Not here: rows of custom operators, whose code alone knows what made them.

mod asked;
mod matching;
mod places;
mod report;
mod stored;
mod stretches;

use std::collections::{BTreeMap, HashSet};

use tokio::runtime::Runtime;
use weir_operators::view::ViewPlan;
use weir_operators::window::Windows;
use weir_schemas::registry::{Registry, SchemaCache};
use weir_schemas::time::EventTime;
use weir_sinks::DeliveryError;
use weir_sinks::clickhouse::{Client, swaps};

pub use asked::{Asked, parse_condition};
pub use report::{InPlace, Left, Measure, PartitionPlaces, Release, Report, SchemaSeen, VersionSeen};

use crate::bind::{Bound, BoundView};
use crate::config::Pipeline;
use crate::connect;
use crate::error::Error;
use crate::problem::nearest;
use asked::{Instant, instant};
use matching::{Matcher, Recount};
use places::{Place, Places, Tally};
use stored::{Presence, Row};
use stretches::{Log, Stretch};

/// Why a row couldn't be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// What was asked has no answer.
    #[error("{message}")]
    Asked {
        /// What is wrong.
        message: String,
        /// What a person can do.
        remedy: String,
    },
    /// ClickHouse said no, or nothing.
    #[error("clickhouse: {0}")]
    ClickHouse(#[from] DeliveryError),
    /// Something else failed.
    #[error(transparent)]
    Other(#[from] Error),
}

fn asked(message: impl Into<String>, remedy: impl Into<String>) -> ExplainError {
    ExplainError::Asked { message: message.into(), remedy: remedy.into() }
}

/// What explaining works with.
pub struct Explain<'a> {
    /// The pipeline file.
    pub pipeline: &'a Pipeline,
    /// The file, bound.
    pub bound: &'a Bound,
    /// Where the rows are.
    pub client: &'a Client,
    /// Waits for the network.
    pub runtime: &'a Runtime,
    /// Told how many offsets are read, and of how many.
    pub progress: &'a mut dyn FnMut(u64, u64),
}

impl<'a> Explain<'a> {
    /// Explains the row that `what` asks for.
    ///
    /// # Errors
    /// When there is no such row, or more than one; when a part can't be asked.
    pub fn row(&mut self, what: &Asked) -> Result<Report, ExplainError> {
        let view = self.view(&what.view)?;
        let plan = &view.plan;
        let (Some(source), Some(config)) = (self.bound.source(&plan.source), self.pipeline.sources.get(&plan.source))
        else {
            return Err(asked(format!("view `{}` has no source", plan.name), "correct the pipeline file"));
        };
        let window = window_of(view, &what.window)?;
        let dimensions = asked::dimensions(plan, &what.dimensions)?;
        let row = self.runtime.block_on(stored::find(self.client, plan, window, &dimensions))?;
        let mut report = Report::of(plan, window, &row);
        report.in_place(&self.runtime.block_on(swaps::active(self.client))?, window);

        let (known, stretches) = self.runtime.block_on(stretches::of_epochs(self.client, plan, window, row.epoch))?;
        report.epochs(&known);
        report.versions = self.runtime.block_on(self.versions(view, &known.versions))?;

        let registry = connect::registry(self.pipeline)?;
        let schemas = SchemaCache::new(registry.clone(), self.runtime.handle().clone());
        let topics = &config.all_topics();
        let log = Log::new(self.pipeline, source, topics, schemas);
        let matcher = Matcher::new(plan, window, &row)?;
        let mut tally = Tally::default();
        let looked_for = Refusals { log: &log, matcher: &matcher, topics, window, stretches: &stretches };
        let refused = self.refused(&looked_for, &mut tally)?;
        let accepted = match config.keep_events_days {
            Some(_) => self.accepted(plan, topics, window, &row, &mut report),
            None => None,
        };

        let (readable, forgotten) = log.split_forgotten(stretches)?;
        let mut recount = Recount::new(plan)?;
        let identity = [config.tenant.as_deref(), config.event_id.as_deref()];
        let mut places = Places::new(accepted, refused, source, &identity);
        let total: u64 = readable.iter().map(Stretch::offsets).sum();
        let progress = &mut self.progress;
        let read = log.read(&readable, &mut |done| progress(done, total), &mut |events| {
            let (of_row, unproven) = matcher.matching(events)?;
            tally.unproven += unproven;
            let counted = places.take(&of_row, &mut tally)?;
            recount.add(&counted)
        })?;
        report.searched(&readable, &forgotten, read.records, read.undecodable);
        let mut missing = places.not_found();
        if forgotten.is_empty() {
            from_log(plan, window, &row, &recount, !places.counted().is_empty(), &mut report)?;
        } else if config.keep_events_days.is_some() {
            let is_forgotten = |(place, _): &((u16, i32, i64), u32)| {
                forgotten.iter().any(|of| {
                    topics.get(usize::from(place.0)) == Some(&of.topic)
                        && of.partition == place.1
                        && (of.first..of.next).contains(&place.2)
                })
            };
            let (gone, others) = missing.into_iter().partition(is_forgotten);
            missing = others;
            places.add_forgotten(gone);
            self.recount_accepted(view, window, &row, &mut report)?;
        } else {
            report.nothing_left();
        }
        report.places(topics, &places, tally);
        report.schemas = self.runtime.block_on(schemas_of(&registry, config, places.schemas()))?;
        report.finish(missing.len());
        Ok(report)
    }

    fn view(&self, name: &str) -> Result<&'a BoundView, ExplainError> {
        let views = || self.bound.views.iter().map(|view| view.plan.name.as_str());
        self.bound.views.iter().find(|view| view.plan.name == name).ok_or_else(|| {
            let remedy = match nearest(name, views()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("name one of {}", views().collect::<Vec<_>>().join(", ")),
            };
            asked(format!("there is no view `{name}`"), remedy)
        })
    }

    /// The refused records of the row: their places, counted by reason and rule into `tally`.
    ///
    /// One that was retried isn't left out at its first place: what became of it is told at the place of its retry, where it
    /// counts as any other record, or was refused again.
    fn refused(&self, of: &Refusals<'_>, tally: &mut Tally) -> Result<HashSet<Place>, ExplainError> {
        let mut found = HashSet::new();
        let asked = stored::refused(self.client, of.topics, of.window, of.stretches);
        let mut lines = self.runtime.block_on(asked)?;
        while let Some(batch) = self.runtime.block_on(stored::next_refused(&mut lines, of.topics))? {
            for (schema_id, records) in batch {
                let Some(events) = of.log.decode(schema_id, &records)? else { continue };
                let (of_row, _) = of.matcher.matching(&events)?;
                for at in places::places_of(&of_row)? {
                    let Some(record) = records.iter().find(|record| record.place == at) else { continue };
                    let cause = (record.reason.clone(), record.rule.clone());
                    let of_cause = if record.is_retried { &mut tally.retried } else { &mut tally.left_out };
                    *of_cause.entry(cause).or_default() += 1;
                    found.insert(at);
                }
            }
        }
        Ok(found)
    }

    /// The places of the row's accepted events, with their schema ids; `None` where ClickHouse can't tell them.
    fn accepted(
        &self,
        plan: &ViewPlan,
        topics: &[String],
        window: Window,
        row: &Row,
        report: &mut Report,
    ) -> Option<BTreeMap<Place, u32>> {
        let condition = stored::accepted_where(plan, window, row);
        match self.runtime.block_on(stored::accepted(self.client, &plan.source, topics, &condition)) {
            Ok(places) => Some(places),
            Err(error) => {
                report.notes.push(format!("the accepted events can't be asked which copies counted: {error}"));
                None
            }
        }
    }

    /// Recomputes the row by the view's own SQL over the accepted events, since the log has forgotten some of it.
    fn recount_accepted(
        &self,
        view: &BoundView,
        window: Window,
        row: &Row,
        report: &mut Report,
    ) -> Result<(), ExplainError> {
        let sql = format!("({})", view.text.trim().trim_end_matches(';'));
        let values = self.runtime.block_on(stored::measures(self.client, &view.plan, &sql, window, row))?;
        let from = "the accepted events, by the view's own SQL: the log has forgotten some of them";
        match row.presence {
            Presence::Stored => report.compare(row, &values, from),
            // The SQL has HAVING in it: no row is what it gives for one that isn't there.
            _ => report.absent(row, &view.plan, &values, (!values.is_empty()).then_some(true), from),
        }
        Ok(())
    }

    async fn versions(&self, view: &BoundView, ids: &BTreeMap<String, u64>) -> Result<Vec<VersionSeen>, ExplainError> {
        let mut seen = Vec::new();
        for (id, epochs) in ids {
            let mut version = VersionSeen::unknown(id, *epochs);
            if let Some(found) = stored::version(self.client, id).await? {
                version.fill(&found, &view.plan.name, &view.plan.source, &super::versions::hash(&view.text));
            }
            seen.push(version);
        }
        Ok(seen)
    }
}

/// A window of a view, in microseconds: `[start, end)`, and its start as the view's column has it.
#[derive(Clone, Copy, Debug)]
struct Window {
    start: i64,
    end: i64,
    /// Everything older counts in it, too: ClickHouse clips what its type can't hold.
    is_first: bool,
}

impl Window {
    /// The first event time that counts in it.
    fn from(&self) -> i64 {
        if self.is_first { i64::MIN } else { self.start }
    }
}

/// Holds what came out of the log against the row, or tells why there is none.
fn from_log(
    plan: &ViewPlan,
    window: Window,
    row: &Row,
    recount: &Recount<'_>,
    counts: bool,
    report: &mut Report,
) -> Result<(), ExplainError> {
    let from = "the log";
    match (row.presence, counts) {
        (Presence::Stored, _) => report.compare(row, &recount.texts()?, from),
        (Presence::Never, false) => {
            return Err(asked(
                format!("`{}` has no such row: no record of its window belongs to it", plan.name),
                "check the window and the dimensions; one that isn't delivered yet comes within seconds",
            ));
        }
        (_, true) => {
            // Without HAVING every group that has a record has a row.
            let holds = recount.having(window)?.or(Some(true));
            report.absent(row, plan, &recount.texts()?, holds, from);
        }
        (_, false) => report.absent(row, plan, &[], None, from),
    }
    Ok(())
}

/// Which refused records are looked for, and with what.
struct Refusals<'a> {
    log: &'a Log<'a>,
    matcher: &'a Matcher,
    topics: &'a [String],
    window: Window,
    stretches: &'a [Stretch],
}

fn window_of(view: &BoundView, text: &str) -> Result<Window, ExplainError> {
    let plan = &view.plan;
    let zone = plan.window.zone.as_deref().unwrap_or("UTC");
    let Some(Instant(at)) = instant(text, zone) else {
        return Err(asked(
            format!("`--window {text}` is no time"),
            format!("write it as 2026-01-31T10:00:00Z, or as 2026-01-31 10:00:00 by the clock of {zone}"),
        ));
    };
    let bounds = Windows::new(&plan.window).map_err(Error::from)?.bounds(EventTime(at));
    if bounds.start.0 != at {
        return Err(asked(
            format!("no window of `{}` begins at {text}", plan.name),
            format!("the window that holds it is --window {}", report::shown(bounds.start.0)),
        ));
    }
    use weir_schemas::types::ColumnType;
    let clips = matches!(plan.window.column_type, ColumnType::Date | ColumnType::DateTime(_));
    Ok(Window { start: at, end: bounds.end.0, is_first: clips && at <= 0 })
}

/// What the registry calls the schemas of `counts`, as far as they belong to the source's subject.
async fn schemas_of(
    registry: &Registry,
    config: &crate::config::Source,
    counts: &BTreeMap<u32, u64>,
) -> Result<Vec<SchemaSeen>, ExplainError> {
    use weir_schemas::registry::Lookup;
    let subject = crate::readers::subject_of(config);
    let mut names = BTreeMap::new();
    // What the registry doesn't say is left open; the ids are facts.
    for version in registry.versions(&subject).await.unwrap_or_default().into_iter().rev().take(200) {
        if names.len() == counts.len() {
            break;
        }
        if let Lookup::Found(schema) = registry.version(&subject, version).await
            && counts.contains_key(&schema.id)
        {
            names.insert(schema.id, version);
        }
    }
    let seen = |(id, records): (&u32, &u64)| SchemaSeen {
        id: *id,
        subject: names.contains_key(id).then(|| subject.clone()),
        version: names.get(id).copied(),
        records: *records,
    };
    Ok(counts.iter().map(seen).collect())
}

impl From<weir_operators::error::Error> for ExplainError {
    fn from(error: weir_operators::error::Error) -> ExplainError {
        ExplainError::Other(error.into())
    }
}
