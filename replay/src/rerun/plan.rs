//! Planning a replay: what is asked for, made into what would be read, what that costs and why it may be refused. Nothing is
//! read for it but a few records.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use tokio::runtime::Handle;
use weir_pipeline::bind::BoundView;
use weir_pipeline::config::Pipeline;
use weir_pipeline::connect;
use weir_pipeline::error::Error;
use weir_pipeline::source::kafka::KafkaLog;
use weir_pipeline::source::log::Log;
use weir_schemas::registry::SchemaSource;
use weir_schemas::time::EventTime;
use weir_sinks::clickhouse::Client;

use super::cost::{Cost, sample};
use super::inputs;
use super::part::{Chosen, choose};
use super::range::{Range, final_through, shown};
use super::record::ReadFrom;
use super::survey::{Survey, SurveyError, Surveyor};

/// What is asked for.
pub struct Asked<'a> {
    /// The live pipeline.
    pub live: &'a Pipeline,
    /// Its ClickHouse.
    pub client: &'a Client,
    /// Where that and the registry are asked: outside of it, since an archive waits by itself.
    pub handle: &'a Handle,
    /// The views that are wanted, as they would be run.
    pub views: &'a [&'a BoundView],
    /// The times.
    pub times: Times,
    /// Where records are read from; absent, the topics, and the archive where those have forgotten a part.
    pub reads: Option<ReadFrom>,
    /// The places that alone are wanted; empty, all.
    pub only: &'a [Chosen],
}

/// The times that are asked for.
#[derive(Clone, Copy, Debug)]
pub enum Times {
    /// These.
    Between(Range),
    /// So much before what is final.
    Last(TimeDelta),
}

/// What would be read.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The times that were asked for.
    pub asked: Range,
    /// The same, widened to whole windows.
    pub range: Range,
    /// The views.
    pub views: BTreeSet<String>,
    /// Where it would be read from.
    pub reads: ReadFrom,
    /// The stretches, gaps and schemas.
    pub survey: Survey,
    /// For how long before the times copies are looked for: the longest `dedup_horizon_ms` of what is read.
    pub horizon_ms: u64,
    /// Whether that leaves out records that belong to the times.
    pub is_part: bool,
    /// How much it is.
    pub cost: Cost,
}

/// Why there will be no such replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub what: String,
    /// What helps.
    pub remedy: String,
    /// Whether it is the log's fault, and not of what was asked for.
    pub is_of_log: bool,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// What is asked for can't be replayed.
    #[error("{}", .0.what)]
    Refused(Refusal),
    /// A part could not be asked.
    #[error(transparent)]
    Survey(#[from] SurveyError),
}

impl From<Error> for PlanError {
    fn from(error: Error) -> PlanError {
        PlanError::Survey(error.into())
    }
}

impl Refusal {
    fn of_asked(what: impl Into<String>, remedy: impl Into<String>) -> Refusal {
        Refusal { what: what.into(), remedy: remedy.into(), is_of_log: false }
    }
}

/// Looks what would be read; not to be called by a task of a runtime.
///
/// # Errors
/// When it can't be replayed, or a part can't be asked.
pub fn plan(asked: &Asked<'_>) -> Result<Planned, PlanError> {
    let refused = |what: String, remedy: String| PlanError::Refused(Refusal::of_asked(what, remedy));
    let is_final_through = asked.handle.block_on(asked.known_final());
    let times = match (asked.times, is_final_through) {
        (Times::Between(range), _) => range,
        (Times::Last(length), Some(end)) => Range::last(length, end),
        (Times::Last(_), None) => {
            return Err(refused("nothing is final yet".to_owned(), "name the times with --from and --to".to_owned()));
        }
    };
    if times.from >= times.to {
        let remedy = "name the first event time, then the one after the last";
        return Err(refused("--to is not after --from".to_owned(), remedy.to_owned()));
    }
    let range = times.widened(asked.views).map_err(|error| Error::Stopped(error.to_string()))?;
    if let Some(end) = is_final_through.filter(|end| *end < range.to) {
        return Err(refused(
            format!("windows up to {} are asked for, and only those up to {} are final", shown(range.to), shown(end)),
            format!("replay to {}, or wait until the rest is final", shown(end)),
        ));
    }
    let read = asked.views.iter().filter_map(|view| asked.live.sources.get(&view.plan.source));
    let mut looked = asked.look(asked.reads.unwrap_or_default(), range)?;
    if !looked.survey.forgotten.is_empty() && asked.reads.is_none() && asked.live.archive.is_some() {
        looked = asked.look(ReadFrom::Both, range)?;
    }
    Ok(Planned {
        asked: times,
        range,
        views: asked.views.iter().map(|view| view.plan.name.clone()).collect(),
        reads: looked.reads,
        survey: looked.survey,
        horizon_ms: read.map(|source| source.dedup_horizon_ms).max().unwrap_or(0),
        is_part: looked.is_part,
        cost: looked.cost,
    })
}

/// What was found in one log.
struct Looked {
    reads: ReadFrom,
    survey: Survey,
    is_part: bool,
    cost: Cost,
}

impl Asked<'_> {
    /// Up to where every view is final, those that are new as far as the live ones; absent where that isn't known.
    async fn known_final(&self) -> Option<EventTime> {
        let names: Vec<&str> = self.views.iter().map(|view| view.plan.name.as_str()).collect();
        // Where there was no live pipeline yet, there is no such table, and nothing that could still change.
        match final_through(self.client, &names).await.ok()? {
            Some(through) => Some(through),
            None => {
                let all: Vec<&str> = self.live.views.keys().map(String::as_str).collect();
                final_through(self.client, &all).await.ok()?
            }
        }
    }

    /// What would be read of the log that `reads` names.
    fn look(&self, reads: ReadFrom, range: Range) -> Result<Looked, PlanError> {
        let sources: BTreeSet<&str> = self.views.iter().map(|view| view.plan.source.as_str()).collect();
        let archive = inputs::of(reads, self.live)?;
        let (topics, registry);
        let (archived, archived_schemas);
        let (log, schemas): (&dyn Log, &dyn SchemaSource) = match &archive {
            Some(reads) => {
                (archived, archived_schemas) = (reads.log.clone(), reads.schemas());
                (&*archived, &archived_schemas)
            }
            None => {
                (topics, registry) = (KafkaLog::new(self.live), connect::registry(self.live)?);
                (&topics, &registry)
            }
        };
        let surveyor = Surveyor { live: self.live, client: self.client, log, schemas };
        let mut survey = self.handle.block_on(surveyor.survey(&sources, range))?;
        let is_part = choose(&mut survey, self.only);
        let sampled = sample(log, &survey.slice);
        self.handle.block_on(surveyor.resolve(&mut survey, sampled.schema_ids.iter().copied()));
        let cost = self.handle.block_on(Cost::of(self.client, &survey.slice, &sampled)).map_err(SurveyError::from)?;
        Ok(Looked { reads, survey, is_part, cost })
    }
}

impl Planned {
    /// Why it would not be begun as it is.
    pub fn refusal(&self, allows_gaps: bool) -> Option<Refusal> {
        if !self.survey.forgotten.is_empty() && !allows_gaps {
            return Some(Refusal {
                what: "the log has forgotten a part of what is asked for".to_owned(),
                remedy: "replay later times, or read what is left with --allow-gaps".to_owned(),
                is_of_log: true,
            });
        }
        if self.survey.slice.stretches.is_empty() {
            let (from, to) = self.range.shown();
            return Some(Refusal::of_asked(
                format!("no partition holds events from {from} to {to}"),
                "name other times; `weir replay ... --plan` looks without reading",
            ));
        }
        None
    }
}
