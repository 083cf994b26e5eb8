//! The pipeline file: what it may say, read from TOML, with every problem reported at once.
//!
//! Invariant: a [`Pipeline`] that [`load`](load::load) returned has no unknown keys, its secrets are resolved from
//! the environment, and its paths are absolute (relative ones are taken from the file's folder).
//!
//! Not here: whether the brokers answer, whether a schema fits, whether SQL parses. `check` asks those.

pub mod alerts;
pub mod archive;
pub mod judge;
pub mod lineage;
pub mod load;
mod plan;
mod quality;
mod topics;
mod validate;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use alerts::{Alerts, Sender};
pub use plan::{JudgedBy, TrackingPlan};
pub use quality::{Quality, ReferenceTable, Rule, check_rule};

/// A whole pipeline file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// The pipeline's name: prefixes consumer groups and transactional ids.
    pub name: String,
    /// Folder of the state; one running `weir` at a time holds it.
    pub state: PathBuf,
    /// Worker threads.
    #[serde(default = "default_workers")]
    pub workers: usize,
    /// Length of an epoch in milliseconds: how often results are committed.
    #[serde(default = "default_epoch_ms")]
    pub epoch_ms: u64,
    /// Bytes that may be fetched and not yet committed, over all workers.
    #[serde(default = "default_in_flight_bytes")]
    pub in_flight_bytes: u64,
    /// Bytes that may be committed and not yet delivered; above it no new epoch begins.
    #[serde(default = "default_outbox_bytes")]
    pub outbox_bytes: u64,
    /// Address of the console, `/metrics`, `/healthz` and `/readyz`; absent for none.
    pub http: Option<String>,
    /// What the console asks for; beyond loopback it isn't served without one.
    pub http_token: Option<String>,
    /// Where events come from and alerts go to.
    pub kafka: Kafka,
    /// Where schemas are.
    pub registry: Registry,
    /// Where results go.
    pub clickhouse: ClickHouse,
    /// The event streams, by name; the name is what stands in FROM.
    pub sources: BTreeMap<String, Source>,
    /// The live queries, by name.
    #[serde(default)]
    pub views: BTreeMap<String, View>,
    /// A team's own operators, by name.
    #[serde(default)]
    pub operators: BTreeMap<String, Custom>,
    /// Rules and the quarantine.
    #[serde(default)]
    pub quality: Quality,
    /// Detectors, the alert topics, owners, routes and suppressions.
    #[serde(default)]
    pub alerts: Alerts,
    /// How long it is known what epochs took, and who is told of lineage.
    #[serde(default)]
    pub lineage: lineage::Lineage,
    /// Where raw records and schemas are kept; absent, nowhere.
    pub archive: Option<archive::Archive>,
    /// What `weir alerts send` sends alerts with, by name.
    #[serde(default)]
    pub senders: BTreeMap<String, Sender>,
}

/// The Kafka cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// Further librdkafka settings by their own names (`security.protocol`, `sasl.mechanism`, `ssl.ca.location`, ...),
    /// passed through as they are.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// The schema registry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// The address of Confluent's REST interface.
    pub url: String,
    /// User of HTTP basic authentication.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// A bearer token instead.
    pub token: Option<String>,
    /// A PEM file of certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// How long an id that the registry doesn't know may be too young, before its records are refused. A partition that
    /// has waited for so long in vain waits for no other unknown id during the four periods that follow.
    #[serde(default = "default_grace_ms")]
    pub grace_ms: u64,
}

/// The ClickHouse server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClickHouse {
    /// The HTTP address, `http://` or `https://`.
    pub url: String,
    /// Weir's database, made if it isn't there.
    #[serde(default = "default_database")]
    pub database: String,
    /// A database with nothing in it but the readers' views, for people who shall see nothing else; absent for none. It is
    /// made if it isn't there, and its views read with the rights of Weir's user.
    pub reader_database: Option<String>,
    /// The user.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// A PEM file of certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Least milliseconds between two inserts into one table.
    #[serde(default = "default_insert_every_ms")]
    pub insert_every_ms: u64,
}

/// One stream of events.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The topics that are read as one stream.
    pub topics: Vec<String>,
    /// Where to begin when there is no state yet: `earliest`, `latest` or a time in RFC 3339.
    #[serde(default = "default_start")]
    pub start: String,
    /// The reader schema: a file of Avro JSON; absent, the subject's newest version at first start, kept in the state.
    pub schema_file: Option<PathBuf>,
    /// The reader schema: this version of the subject, instead of the one that the state keeps.
    pub schema_version: Option<u32>,
    /// The registry subject; absent, `<first topic>-value`.
    pub subject: Option<String>,
    /// Field of the event time (a timestamp).
    pub event_time: String,
    /// Field of the event's id, for deduplication; absent, nothing is deduplicated.
    pub event_id: Option<String>,
    /// Field of the subject of the event: the user.
    pub user: Option<String>,
    /// Field of the event's type, by which detectors tell events apart; absent, all are of one type.
    pub event_type: Option<String>,
    /// Field of the tenant; absent, the tenant is ''.
    pub tenant: Option<String>,
    /// Fields of the release that sent the event.
    #[serde(default)]
    pub release: Release,
    /// How far events may be out of order within a partition, in milliseconds.
    #[serde(default = "default_disorder_ms")]
    pub disorder_ms: u64,
    /// After how long without a record a partition at its end is idle.
    #[serde(default = "default_idle_after_ms")]
    pub idle_after_ms: u64,
    /// How long after its close a window is still corrected.
    #[serde(default)]
    pub allowed_lateness_ms: u64,
    /// How far an event time may lie beyond its record's Kafka timestamp.
    #[serde(default = "default_future_ms")]
    pub future_limit_ms: u64,
    /// How long ids are remembered beyond the allowed lateness, for copies whose event times differ.
    #[serde(default)]
    pub dedup_horizon_ms: u64,
    /// How far a partition may run ahead of the watermark before it waits.
    #[serde(default = "default_align_ms")]
    pub align_within_ms: u64,
    /// Fields whose values are masked wherever one is told of a record that was refused or tagged: columns, maps, or a map's
    /// values as in `props['phone']`. A name covers what lies below it.
    #[serde(default)]
    pub sensitive: Vec<String>,
    /// Fields whose values say who or which one, beside those that are named elsewhere here: the judge looks at whether
    /// they are there, not at which values are frequent.
    #[serde(default)]
    pub identities: Vec<String>,
    /// What events of each type should be, by versions that they claim.
    pub plan: Option<TrackingPlan>,
    /// The topic that `weir quarantine retry` sends refused records to, which the source reads beside the others; absent,
    /// nothing can be retried.
    pub retry_topic: Option<String>,
    /// How long the state of final windows is kept, in milliseconds of event time, so that retried events can correct them.
    #[serde(default = "default_retry_for_ms")]
    pub retry_for_ms: u64,
    /// A condition in SQL: a run for a slice of the log has results of the events that meet it. No key of the file: it is a
    /// replay's.
    #[serde(skip)]
    pub only: Option<String>,
    /// Keep the accepted events in ClickHouse, for this many days; absent, they are not kept.
    pub keep_events_days: Option<u32>,
}

impl Source {
    /// For how long the state of final windows is kept, in milliseconds: zero where nothing can be retried.
    pub fn retained_ms(&self) -> u64 {
        if self.retry_topic.is_some() { self.retry_for_ms } else { 0 }
    }

    /// Every topic that is read, the retry topic last.
    pub fn all_topics(&self) -> Vec<String> {
        self.topics.iter().chain(&self.retry_topic).cloned().collect()
    }
}

/// The fields that name a release; each may also be a Kafka header of the same name, read where a record
/// does not decode.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The SDK's name.
    pub sdk: Option<String>,
    /// The SDK's version.
    pub sdk_version: Option<String>,
    /// The app's version.
    pub app_version: Option<String>,
}

/// One live query.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// The file that holds the SELECT.
    pub file: PathBuf,
    /// Write rows of open windows each epoch; otherwise only when they close or are corrected.
    #[serde(default = "default_true")]
    pub provisional: bool,
    /// Days that rows are kept; absent, for ever.
    pub retention_days: Option<u32>,
}

/// A team's own operator.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Custom {
    /// The name under which the operator was registered.
    pub uses: String,
    /// The source whose accepted events it sees.
    pub source: String,
    /// Its own settings, handed over as they are.
    #[serde(default)]
    pub settings: toml::Table,
}

fn default_workers() -> usize {
    2
}
fn default_epoch_ms() -> u64 {
    1_000
}
fn default_in_flight_bytes() -> u64 {
    256 << 20
}
fn default_outbox_bytes() -> u64 {
    1 << 30
}
fn default_grace_ms() -> u64 {
    30_000
}
fn default_database() -> String {
    "weir".to_owned()
}
fn default_insert_every_ms() -> u64 {
    1_000
}
fn default_start() -> String {
    "earliest".to_owned()
}
fn default_disorder_ms() -> u64 {
    10_000
}
fn default_idle_after_ms() -> u64 {
    30_000
}
fn default_future_ms() -> u64 {
    3_600_000
}
fn default_align_ms() -> u64 {
    3_600_000
}
fn default_retry_for_ms() -> u64 {
    7 * 86_400_000
}
fn default_true() -> bool {
    true
}
