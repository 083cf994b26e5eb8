//! Simulation: scenarios that run through the whole engine in milliseconds, with invented time, log, registry and
//! tables.
//!
//! ```text
//! scenario file ─▶ records in time ─▶ invented log ─▶ source ─▶ … the engine, as it is … ─▶ tables in memory
//!                                          clock ◀── conduct: an epoch at a time                  │
//!                                                                      expectations ◀─────────────┘
//! ```
//! What is invented is only what lies around the engine. Planning, decoding, judging time, operators, state, commit,
//! outbox and recovery are those of `weir run`; so a scenario says of a pipeline what a cluster would.
//!
//! Not here: a broker's, a registry's or ClickHouse's own failures, and SQL: `weir verify` compares with that.

mod cells;
mod conduct;
mod events;
mod expect;
mod found;
mod log;
mod retries;
mod run;
mod scenario;
mod shelf;
mod state_folder;
mod tables;
pub mod tap;
mod update;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use toml_edit::DocumentMut;
use weir_pipeline::bind::{Bound, bind};
use weir_pipeline::config::Pipeline;
use weir_pipeline::config::load::{Source as Place, load};
use weir_pipeline::custom::OperatorRegistry;
use weir_pipeline::error::Error;
use weir_pipeline::problem::Problem;
use weir_pipeline::readers::{self, Readers};

pub use conduct::{Conduct, Ended};
pub use expect::{Compared, Difference};
pub use found::Rows;
pub use log::InventedLog;
pub use scenario::{Offset, Scenario, beside};
pub use shelf::Shelf;
pub use tables::Tables;

use events::{Making, STOREFRONT_ID, Sent};
use expect::Comparing;
use run::{Stage, Version};

use crate::produce::storefront;

/// How scenarios are played.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The seed, instead of the scenario's.
    pub seed: Option<u64>,
    /// Worker threads, instead of the scenario's.
    pub workers: Option<u16>,
}

/// What came of a scenario.
#[derive(Debug)]
pub struct Played {
    /// What the scenario shows, in its author's words.
    pub about: String,
    /// What was drawn was drawn from this.
    pub seed: u64,
    /// Records that were sent.
    pub records: u64,
    /// Time that was invented.
    pub invented: Duration,
    /// Time that it took.
    pub took: Duration,
    /// What differs from what was expected, by where it was expected: `the end`, or a check's time.
    pub differences: Vec<(String, Difference)>,
    /// Rows of the ledger that don't balance, by where it was looked: a bug, whatever is expected.
    pub imbalances: Vec<(String, Difference)>,
    /// Whether anything was expected at all.
    pub expects: bool,
    /// The file's text with the expectations that would have been met.
    pub updated: String,
}

/// A pipeline whose scenarios are played.
pub struct Simulation<'a> {
    /// The pipeline file, as problems name it.
    pub file: &'a str,
    /// What it says.
    pub pipeline: &'a Pipeline,
    /// A team's own operators.
    pub operators: &'a OperatorRegistry,
    /// How.
    pub options: Options,
}

/// What a run of a scenario left behind.
pub struct Stands {
    /// Its tables.
    pub tables: Tables,
    /// The pipeline, bound.
    pub bound: Arc<Bound>,
}

impl Stands {
    /// A view's rows as analysts see them; `None` where there is no such view.
    pub fn view(&self, name: &str) -> Option<Rows> {
        found::view(&self.tables, &self.bound, name)
    }

    /// A table's rows.
    pub fn table(&self, name: &str) -> Option<Rows> {
        found::table(&self.tables, name)
    }

    /// The ledger's totals, and its rows that don't balance.
    pub fn ledger(&self) -> (BTreeMap<String, u64>, Vec<String>) {
        found::ledger(&self.tables)
    }
}

/// A scenario that is ready to be run.
struct Prepared {
    scenario: Scenario,
    pipeline: Pipeline,
    readers: Readers,
    bound: Arc<Bound>,
    /// What it starts again with, by step.
    versions: BTreeMap<usize, Version>,
    shelf: Shelf,
    sent: Vec<Sent>,
    start_ms: i64,
    seed: u64,
    runtime: tokio::runtime::Runtime,
    /// Holds the state, until it is dropped.
    _folder: tempfile::TempDir,
}

impl Simulation<'_> {
    /// Plays the scenario whose text is `text`, read from `path`.
    ///
    /// # Errors
    /// [`Error::Config`] with every problem of scenario and pipeline, each at its place; what stopped the engine.
    pub fn play(&self, path: &Path, text: &str) -> Result<Played, Error> {
        let file = path.display().to_string();
        let place = Place::new(&file, text);
        let began = Instant::now();
        let prepared = self.prepare(path, text, &place)?;
        let mut document: DocumentMut = text.parse().map_err(|error| unreadable(&file, &error))?;
        let mut played = Played {
            about: prepared.scenario.about.clone(),
            seed: prepared.seed,
            records: prepared.sent.len() as u64,
            invented: Duration::ZERO,
            took: Duration::ZERO,
            differences: Vec::new(),
            imbalances: Vec::new(),
            expects: !prepared.scenario.expect.is_empty() || !prepared.scenario.checks.is_empty(),
            updated: String::new(),
        };
        let (scenario, bound) = (prepared.scenario.clone(), prepared.bound.clone());
        let mut problems = Vec::new();
        let mut look = |path: Vec<String>, when: String, expect: &scenario::Expect, tables: &Tables| {
            let comparing = Comparing { place: &place, path: path.clone(), tables, bound: &bound, expect };
            match comparing.compare() {
                Ok(compared) => {
                    update::rewrite(&mut document, &path, &compared);
                    played.imbalances.extend(compared.imbalance.map(|of| (when.clone(), of)));
                    played.differences.extend(compared.differences.into_iter().map(|of| (when.clone(), of)));
                }
                Err(found) => problems.extend(found),
            }
        };
        let stands = self.run(prepared, |number, tables| {
            let Some(check) = scenario.checks.get(number) else { return };
            let path = ["checks".to_owned(), number.to_string(), "expect".to_owned()];
            look(path.to_vec(), format!("at {}", told(check.at)), &check.expect, tables);
        })?;
        look(vec!["expect".to_owned()], "at the end".to_owned(), &scenario.expect, &stands.0.tables);
        if !problems.is_empty() {
            return Err(Error::Config(problems));
        }
        (played.invented, played.took) = (stands.1, began.elapsed());
        played.updated = document.to_string();
        Ok(played)
    }

    /// Runs the scenario whose text is `text`, read from `path`, and hands over what it left.
    ///
    /// # Errors
    /// As of [`Simulation::play`].
    pub fn stand(&self, path: &Path, text: &str) -> Result<Stands, Error> {
        let file = path.display().to_string();
        let place = Place::new(&file, text);
        let prepared = self.prepare(path, text, &place)?;
        Ok(self.run(prepared, |_, _| {})?.0)
    }

    fn run(&self, prepared: Prepared, check: impl FnMut(usize, &Tables)) -> Result<(Stands, Duration), Error> {
        let Prepared { scenario, pipeline, readers, bound, versions, shelf, sent, start_ms, runtime, .. } = &prepared;
        let topics = pipeline.sources.values().flat_map(|source| {
            let own = source.topics.iter().map(|topic| (topic.clone(), usize::from(scenario.partitions)));
            own.chain(source.retry_topic.iter().map(|topic| (topic.clone(), 1)))
        });
        let stage = Stage {
            file: self.file,
            pipeline: pipeline.clone(),
            operators: self.operators,
            readers,
            bound,
            versions,
            scenario,
            shelf: shelf.clone(),
            log: InventedLog::new(topics),
            tables: Tables::default(),
            start_ms: *start_ms,
            epoch_ms: self.pipeline.epoch_ms,
            runtime,
        };
        let tables = stage.tables.clone();
        let invented_ms = stage.run(sent.clone(), check)?;
        let invented = Duration::from_millis(u64::try_from(invented_ms).unwrap_or(0));
        Ok((Stands { tables, bound: bound.clone() }, invented))
    }

    fn prepare(&self, path: &Path, text: &str, place: &Place<'_>) -> Result<Prepared, Error> {
        let scenario = scenario::read(place.file, text).map_err(Error::Config)?;
        let start_ms = chrono::DateTime::parse_from_rfc3339(&scenario.start)
            .map_err(|error| {
                let remedy = "write a time such as 2026-01-05T12:00:00Z";
                Error::Config(vec![place.problem(&["start"], error.to_string(), remedy)])
            })?
            .timestamp_millis();
        let folder = state_folder::new().map_err(|error| Error::Disk {
            detail: format!("a folder for the scenario's state: {error}"),
            remedy: "make room in the folder of temporary files, or name another with TMPDIR".to_owned(),
        })?;
        let seed = self.options.seed.unwrap_or(scenario.seed);
        let pipeline = self.apart(self.pipeline, &scenario, path, folder.path());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| Error::Worker { detail: format!("a thread for the scenario's registry: {error}") })?;
        let readers = runtime.block_on(readers::choose(&pipeline, None))?;
        let bound = Arc::new(bind(self.file, &pipeline, &readers.schemas).map_err(Error::Config)?);
        let versions = self.versions(&scenario, (path, place), folder.path(), &runtime)?;
        let (schemas, own) = schemas_of(&scenario, path, place, &readers).map_err(Error::Config)?;
        let making =
            Making { place, pipeline: &pipeline, scenario: &scenario, start_ms, schemas: &schemas, own: &own, seed };
        let sent = making.records().map_err(Error::Config)?;
        let with_generators =
            schemas.into_iter().chain([(STOREFRONT_ID, storefront::SCHEMA.to_owned())]).collect::<BTreeMap<_, _>>();
        let shelf = Shelf::new(&with_generators).map_err(|(id, why)| {
            let id = id.to_string();
            Error::Config(vec![place.problem(&["schemas", &id], why, "correct the schema's file")])
        })?;
        Ok(Prepared {
            scenario,
            pipeline,
            readers,
            bound,
            versions,
            shelf,
            sent,
            start_ms,
            seed,
            runtime,
            _folder: folder,
        })
    }

    /// The pipeline files that steps start the program again with. They read what the scenario's own reads, and where a step
    /// retries, there is somebody who takes what is retried.
    fn versions(
        &self,
        scenario: &Scenario,
        (path, place): (&Path, &Place<'_>),
        state: &Path,
        runtime: &tokio::runtime::Runtime,
    ) -> Result<BTreeMap<usize, Version>, Error> {
        let mut versions = BTreeMap::new();
        for (number, step) in scenario.steps.iter().enumerate() {
            let number_text = number.to_string();
            let wrong = |key: &str, message: String, remedy: &str| {
                Error::Config(vec![place.problem(&["steps", &number_text, key], message, remedy)])
            };
            if step.retry.is_some() && self.pipeline.sources.values().all(|source| source.retry_topic.is_none()) {
                let message = "no source of the pipeline has a `retry_topic`".to_owned();
                return Err(wrong("retry", message, "name one in the pipeline file, or take the step out"));
            }
            let Some(with) = &step.with else { continue };
            let file = beside_file(path, with);
            let mut other = load(&file).map_err(Error::Config)?;
            let topics = |of: &Pipeline| -> Vec<(String, Vec<String>)> {
                of.sources.iter().map(|(name, source)| (name.clone(), source.all_topics())).collect()
            };
            if topics(&other) != topics(self.pipeline) {
                let message = format!("{} reads other topics than the scenario's pipeline", with.display());
                return Err(wrong("with", message, "leave its sources and their topics as they are"));
            }
            other.name.clone_from(&self.pipeline.name);
            let pipeline = self.apart(&other, scenario, path, state);
            let readers = runtime.block_on(readers::choose(&pipeline, None))?;
            let bound = bind(&file.display().to_string(), &pipeline, &readers.schemas).map_err(Error::Config)?;
            versions.insert(number, Version { pipeline, readers, bound: Arc::new(bound) });
        }
        Ok(versions)
    }

    /// The pipeline of a file without anything that reaches out of this process.
    fn apart(&self, file: &Pipeline, scenario: &Scenario, path: &Path, state: &Path) -> Pipeline {
        let mut pipeline = file.clone();
        pipeline.state = state.to_owned();
        // How long an epoch lasts is the conductor's to say, and the engine looks at it as often as that.
        pipeline.epoch_ms = 1;
        pipeline.http = None;
        pipeline.outbox_bytes = scenario.outbox_bytes.unwrap_or(pipeline.outbox_bytes);
        pipeline.lineage.url = None;
        pipeline.lineage.topic = None;
        pipeline.lineage.file = None;
        // Rows don't depend on it, and one is the fastest here.
        pipeline.workers = usize::from(self.options.workers.or(scenario.workers).unwrap_or(1).max(1));
        for (name, source) in &mut pipeline.sources {
            if let Some(file) = scenario.readers.get(name) {
                source.schema_file = Some(beside_file(path, file));
            }
        }
        pipeline
    }
}

/// The schemas that records can be written with, by id, and which are the sources' own.
type Schemas = (BTreeMap<u32, String>, BTreeMap<String, u32>);

fn schemas_of(scenario: &Scenario, path: &Path, place: &Place<'_>, readers: &Readers) -> Result<Schemas, Vec<Problem>> {
    let (mut texts, mut own, mut problems) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for (id, (name, reader)) in (1..).zip(&readers.kept) {
        texts.insert(id, reader.text.clone());
        own.insert(name.clone(), id);
    }
    for (id, file) in &scenario.schemas {
        let key = ["schemas", id.as_str()];
        let Some(number) =
            id.parse::<u32>().ok().filter(|number| !texts.contains_key(number) && *number < STOREFRONT_ID)
        else {
            let message =
                format!("{id:?} is no id that is free: a number above {} and below {STOREFRONT_ID}", own.len());
            problems.push(place.problem(&key, message, "write another number"));
            continue;
        };
        match std::fs::read_to_string(beside_file(path, file)) {
            Ok(text) => drop(texts.insert(number, text)),
            Err(error) => problems.push(place.problem(
                &key,
                format!("{}: {error}", file.display()),
                "correct the path, which starts at the scenario's folder",
            )),
        }
    }
    if problems.is_empty() { Ok((texts, own)) } else { Err(problems) }
}

/// A path of a scenario, which starts at its folder.
fn beside_file(scenario: &Path, file: &Path) -> PathBuf {
    scenario.parent().unwrap_or(Path::new("")).join(file)
}

fn unreadable(file: &str, error: &toml_edit::TomlError) -> Error {
    Error::Config(vec![Problem::of_file(file, error.message().to_owned(), "correct the file")])
}

/// A time of a scenario as people write it.
fn told(offset: Offset) -> String {
    let mut rest = offset.0;
    let mut text = String::new();
    for (unit, ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest >= ms {
            text.push_str(&format!("{}{unit}", rest / ms));
            rest %= ms;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}
