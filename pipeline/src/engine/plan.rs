//! What the engine is handed: a pipeline with everything decided, its sources and sinks included.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use weir_operators::account::TopicNames;
use weir_operators::state::{Store, StoreOptions};
use weir_schemas::registry::SchemaCache;
use weir_schemas::time::{Epoch, EventTime};
use weir_sinks::{Deliver, Encode};

use crate::archive::Archiving;
use crate::clock::Clock;
use crate::console::Console;
use crate::console::replays::Replays;
use crate::dataflow::SourceGraph;
use crate::deliver::LaneKind;
use crate::epochs::Epochs;
use crate::error::Error;
use crate::lineage::PipelineVersion;
use crate::lineage::openlineage::Emission;
use crate::progress::Watched;
use crate::recovery::Fingerprint;
use crate::samples::Samples;
use crate::slice::Slice;
use crate::source::log::Log;
use crate::source::pace::Pace;
use crate::source::precedent::Precedents;
use crate::source::{Attend, PartitionPosition, Source};
use crate::status::Status;

/// A pipeline, with everything decided before a thread starts.
pub struct Plan {
    /// The pipeline's name.
    pub name: String,
    /// The state folder.
    pub state: PathBuf,
    /// Memory of the store.
    pub store: StoreOptions,
    /// Worker threads.
    pub workers: usize,
    /// The length of an epoch.
    pub epoch: Duration,
    /// Bytes that may be fetched and not yet committed.
    pub in_flight_bytes: u64,
    /// Bytes that may be committed and not yet delivered.
    pub outbox_bytes: u64,
    /// The address of the pages.
    pub http: Option<String>,
    /// The console that is served there, if one is.
    pub console: Option<Console>,
    /// What the state depends on.
    pub fingerprint: Fingerprint,
    /// What decides its results, for lineage.
    pub version: PipelineVersion,
    /// The sources.
    pub sources: Vec<SourcePlan>,
    /// Where rows go.
    pub destinations: Vec<Destination>,
    /// The views whose completeness is told.
    pub watched: Vec<Watched>,
    /// What alerts show of their records.
    pub samples: Samples,
    /// What is told of the run to receivers of lineage, if there are any.
    pub emission: Option<Emission>,
    /// Where raw records are kept, if they are.
    pub archiving: Option<Archiving>,
}

/// A source, and what follows it.
pub struct SourcePlan {
    /// The source's name.
    pub name: String,
    /// Its topics.
    pub topics: Vec<String>,
    /// Which of them is the one for retries: a source of its own in the ledger.
    pub retry_topic: Option<String>,
    /// Called once, when the state is open and before a thread starts.
    pub prepare: PrepareSource,
    /// Makes what follows it, given the topics of all sources by number.
    pub graph: Box<dyn FnOnce(Vec<TopicNames>) -> SourceGraph>,
}

/// Finds out where a source goes on, and how its shares are opened.
pub type PrepareSource = Box<dyn FnOnce(Resume) -> Result<Prepared, Error>>;

/// A source that knows where it goes on.
pub struct Prepared {
    /// Opens its shares.
    pub open: OpenSource,
    /// What it does beside reading, if anything.
    pub attend: Option<Box<dyn Attend>>,
}

/// Opens one worker's share of a source, on the worker's own thread: worker, number of workers.
pub type OpenSource = Arc<dyn Fn(usize, usize) -> Result<Box<dyn Source>, Error> + Send + Sync>;

/// What a source resumes from.
#[derive(Clone)]
pub struct Resume {
    /// How far each partition was read, by topic and partition; partitions that were never read have none.
    pub positions: BTreeMap<(String, i32), PartitionPosition>,
    /// The watermark of the log that the operators were shown: what is older by more than the allowed lateness is too late.
    pub told: EventTime,
    /// The topics' names by number.
    pub topics: Vec<String>,
    /// The state: what it knows of the topics, and marks that the log has left behind.
    pub store: Arc<Store>,
}

/// Where rows of some tables go.
pub struct Destination {
    /// Its name: the same for ever, since the state knows it by that.
    pub name: String,
    /// The tables whose rows it gets.
    pub tables: Vec<Arc<str>>,
    /// How rows look there.
    pub encode: Arc<dyn Encode>,
    /// How they get there.
    pub sink: Box<dyn Deliver>,
    /// Least time between two inserts.
    pub every: Duration,
    /// Whether completeness waits for it, or is it.
    pub kind: LaneKind,
}

/// Tells the status of a run, whenever it is asked.
pub type Reporter = Arc<dyn Fn() -> Status + Send + Sync>;

/// Is handed a run's [`Reporter`].
pub type Watch = Arc<dyn Fn(Reporter) + Send + Sync>;

/// How a pipeline is run.
#[derive(Clone, Default)]
pub struct Running {
    /// Read to the ends that the logs have at start, close every window, and end. Another run may go on from there.
    pub until_end: bool,
    /// Read this of the log and no more. It ends as `until_end` does.
    pub slice: Option<Arc<Slice>>,
    /// What was judged by the clock before, to be judged the same; absent, the clock judges.
    pub precedents: Option<Arc<Precedents>>,
    /// What it reads; absent, the cluster and the registry that the file names.
    pub inputs: Option<Inputs>,
    /// Who invents time for it; absent, it goes by the wall's clock.
    pub conductor: Option<Arc<dyn Conductor>>,
    /// How fast it reads; absent, as fast as it can.
    pub pace: Option<Arc<Pace>>,
    /// Is handed what tells the run's status, once, when it begins.
    pub watch: Option<Watch>,
    /// Who tells the console of replays.
    pub replays: Option<Replays>,
    /// Set by whoever wants it to stop.
    pub stop: Arc<AtomicBool>,
    /// Wall time.
    pub clock: Clock,
}

/// Who invents time for a run: [`Running::clock`] is theirs to set, and so is when an epoch ends.
///
/// Workers, operators, commit and delivery are those of any run; what they do between two decisions of the conductor
/// doesn't depend on how long it takes.
pub trait Conductor: Send + Sync {
    /// Is handed the run's epochs before the first of them is open.
    fn begin(&self, epochs: Arc<Epochs>);

    /// Whether the open epoch is to end now. Who has changed their mind rings the epochs' bell.
    fn is_due(&self, open: Epoch) -> bool;

    /// Takes a worker's share of a source in hand, on the worker's own thread.
    fn accompany(&self, source: Box<dyn Source>) -> Box<dyn Source>;

    /// How long a worker with nothing to do sleeps before it looks at its sources again.
    fn idle_pause(&self) -> Duration;
}

/// What a run reads instead of the parts that its file names.
#[derive(Clone)]
pub struct Inputs {
    /// The records of every source.
    pub log: Arc<dyn Log>,
    /// The schemas that they were written with, by id.
    pub schemas: SchemaCache,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The epoch that was committed when it started.
    pub first: Epoch,
    /// The newest committed epoch.
    pub committed: Epoch,
    /// Rows that a destination hasn't taken yet; the next start sends them.
    pub undelivered_rows: u64,
}
